//! Disks that lie while the node is stopped.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::world::{Lone, Three, await_some, kmb, kmb_with, lines, temporary, text};

/// Flips one bit of a file.
fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Takes a stopped node's checkpoint from it. Then it needs all of its log; otherwise what stands in front of the checkpoint is
/// looked at only when somebody reads it.
fn lose_checkpoint(data: &Path) {
    let grid = data.join("grid");
    assert!(fs::metadata(&grid).unwrap().len() > 0, "there is a checkpoint");
    fs::write(grid, []).unwrap();
}

/// Every file below a directory: when it was changed, and its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.append(&mut files(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            let bytes = fs::read(&path).unwrap();
            all.insert(path, (changed, bytes));
        }
    }
    all
}

/// The headers of a stopped node's log.
fn headers(data: &Path) -> Vec<Value> {
    kmb(&["inspect", text(data), "headers", "--json"]).json()
}

/// Three nodes, stopped, with a few sealed segments.
fn three_with_a_log() -> Three {
    let mut three = Three::new();
    let append = ["append", "--stream", "s", "--nodes", &three.nodes, "--batch", "1"];
    kmb_with(&append, lines(80).as_bytes()).ok();
    three.settled();
    three.stop();
    three
}

/// Starts the nodes and expects that one of them says that it repaired itself, and that all is whole again.
fn repairs_itself(three: &mut Three, node: usize) {
    three.start();
    await_some("a repair", || {
        let running = three.node(node);
        let repaired = running.events("repaired").len() + running.events("fetched").len();
        (repaired > 0 && !running.events("damaged").is_empty()).then_some(())
    });
    three.settled();
    assert_eq!(kmb(&["read", "--stream", "s", "--nodes", &three.nodes]).ok(), lines(80));
    three.stop();
    let hashes = three.head_hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[test]
fn a_flipped_byte_in_a_sealed_segment_of_one_of_three_is_repaired_from_its_peers() {
    let mut three = three_with_a_log();
    let data = three.data(2);
    let victim = &headers(&data)[9];
    assert_eq!(victim["file"], "log/00000000.segment");
    flip(&data.join("log/00000000.segment"), victim["offset"].as_u64().unwrap() + 520);
    kmb(&["verify", text(&data)]).fails(1, &["op 10 ", "00000000.segment", "damaged"]);
    // One that peers have is given back by them.
    (0..3).for_each(|node| lose_checkpoint(&three.data(node)));
    repairs_itself(&mut three, 2);
}

#[test]
fn a_lost_checkpoint_of_one_of_three_is_named_and_comes_from_its_peers() {
    let mut three = three_with_a_log();
    let data = three.data(1);
    let whole = kmb(&["verify", text(&data), "--json"]).json().remove(0);
    let (op, pages) = (&whole["checkpoint"]["op"], whole["checkpoint"]["pages"].as_u64().unwrap());
    assert!(pages > 1 && whole["checkpoint"]["whole"] == true && op.as_u64().unwrap() > 10, "{whole}");
    assert_eq!(whole["checkpoint"]["bytes"], pages * 8192);
    let seen = kmb(&["inspect", text(&data), "checkpoint", "--json"]).json().remove(0);
    assert_eq!(seen, whole["checkpoint"]);
    lose_checkpoint(&data);
    let sentence = format!("the checkpoint of op {op} is damaged at grid byte");
    for command in ["verify", "inspect"] {
        let part = ["checkpoint"].into_iter().filter(|_| command == "inspect");
        let words: Vec<&str> = [command, text(&data)].into_iter().chain(part).collect();
        kmb(&words).fails(1, &[&sentence, "the log is whole"]);
    }
    three.start();
    await_some("a page from a peer", || (!three.node(1).events("page_mended").is_empty()).then_some(()));
    three.settled();
    assert!(three.node(1).events("rebuilds").is_empty());
    let status = kmb(&["status", "--nodes", &three.nodes, "--json"]).json().remove(0);
    assert!(
        status["nodes"].as_array().unwrap().iter().all(|node| node["checkpoint"]["op"] == *op),
        "{status}"
    );
    three.stop();
    kmb(&["verify", text(&data)]).ok();
}

#[test]
fn a_cut_tail_of_the_last_segment_of_one_of_three_is_repaired_from_its_peers() {
    let mut three = three_with_a_log();
    let data = three.data(1);
    let headers = headers(&data);
    let last = headers.last().unwrap();
    // Two prepares and all that follows are gone.
    let cut = headers[headers.len() - 2]["offset"].as_u64().unwrap();
    let segment = data.join(last["file"].as_str().unwrap());
    OpenOptions::new().write(true).open(&segment).unwrap().set_len(cut).unwrap();
    repairs_itself(&mut three, 1);
}

#[test]
fn a_lone_node_with_damage_in_what_it_acknowledged_refuses_and_names_the_place() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    let append = ["append", "--stream", "s", "--nodes", &lone.address, "--batch", "1"];
    kmb_with(&append, lines(40).as_bytes()).ok();
    let data = lone.data.clone();
    lone.node.stop();
    // Once in a sealed segment, once near the end, both undone again.
    let all = headers(&data);
    for index in [9, all.len() - 2] {
        let (file, offset) = (all[index]["file"].as_str().unwrap(), all[index]["offset"].as_u64().unwrap());
        let place = format!("{file} byte {offset}");
        flip(&data.join(file), offset + 600);
        if index == 9 {
            // In front of a checkpoint, it is found by whoever reads it.
            let lone = Lone::start(&data);
            let read = ["read", "--stream", "s", "--nodes", &lone.address];
            kmb(&read).fails(1, &["is damaged on the node's disk (op 10)"]);
            lone.node.stop();
            lose_checkpoint(&data);
        }
        let start = ["start", "--data", text(&data), "--listen", "127.0.0.1:0"];
        kmb(&start).fails(1, &["halted", "damaged", &place]);
        kmb(&["verify", text(&data)]).fails(1, &[file, &format!("byte {offset}")]);
        flip(&data.join(file), offset + 600);
    }
    let lone = Lone::start(&data);
    assert_eq!(kmb(&["read", "--stream", "s", "--nodes", &lone.address]).ok(), lines(40));
}

#[test]
fn a_lone_node_whose_last_segment_was_cut_within_what_it_acknowledged_refuses() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    let append = ["append", "--stream", "s", "--nodes", &lone.address, "--batch", "1"];
    kmb_with(&append, lines(10).as_bytes()).ok();
    let data = lone.data.clone();
    lone.node.stop();
    let cut = headers(&data)[8]["offset"].as_u64().unwrap();
    let segment = data.join("log/00000000.segment");
    OpenOptions::new().write(true).open(segment).unwrap().set_len(cut).unwrap();
    let start = ["start", "--data", text(&data), "--listen", "127.0.0.1:0"];
    kmb(&start).fails(1, &["halted", &format!("log/00000000.segment byte {cut}")]);
}

#[test]
fn whoever_looks_at_a_cut_segment_leaves_it_cut_and_names_the_place() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    let append = ["append", "--stream", "s", "--nodes", &lone.address, "--batch", "1"];
    kmb_with(&append, lines(10).as_bytes()).ok();
    let data = lone.data.clone();
    lone.node.stop();
    let victim = headers(&data)[8]["offset"].as_u64().unwrap();
    // Within the prepare, so that the file ends on no sector.
    let cut = victim + 700;
    let segment = data.join("log/00000000.segment");
    OpenOptions::new().write(true).open(&segment).unwrap().set_len(cut).unwrap();
    fs::write(data.join("log/00000007.segment.preparing"), "torn").unwrap();
    let before = files(&data);
    let place = format!("byte {victim}:");
    let short = format!("log/00000000.segment was cut short after {cut} bytes");
    kmb(&["verify", text(&data)]).fails(1, &["op 9 ", "log/00000000.segment", &place, "damaged", &short]);
    assert_eq!(headers(&data).len(), 8);
    for part in ["superblock", "ring", "records"] {
        kmb(&["inspect", text(&data), part]).ok();
    }
    assert!(files(&data) == before, "a file was changed");
}

#[test]
fn a_backup_that_stopped_before_it_had_received_the_log_is_behind_and_not_damaged() {
    let mut three = three_with_a_log();
    let data = three.data(2);
    let early = files(&data);
    three.start();
    let append = ["append", "--stream", "s", "--nodes", &three.nodes, "--batch", "1"];
    kmb_with(&append, lines(20).as_bytes()).ok();
    three.settled();
    three.stop();
    // A new view, whose log the backup adopts.
    three.start();
    three.settled();
    three.stop();
    let newest = headers(&data).len();
    // Log and ring of before, superblock of now: as if it had stopped right after adopting.
    for path in files(&data).into_keys().filter(|path| path.parent() == Some(&data.join("log"))) {
        fs::remove_file(path).unwrap();
    }
    for (path, (_, bytes)) in &early {
        if path.parent() == Some(&data.join("log")) || path.ends_with("headers") {
            fs::write(path, bytes).unwrap();
        }
    }
    let held = headers(&data).len();
    assert!(held < newest);
    let missing = format!("{} ops of the log were not received yet", newest - held);
    let said = kmb(&["verify", text(&data)]);
    assert!(said.code == 0 && said.err.contains(&missing), "{said:?}");
    assert!(said.out.contains("behind") && !said.out.contains("damaged"), "{said:?}");
    let found = kmb(&["verify", text(&data), "--json"]).json().remove(0);
    assert_eq!((&found["whole"], &found["damage"]), (&false.into(), &Value::Null), "{found}");
    assert_eq!((&found["ops"], &found["not_received"]), (&held.into(), &(newest - held).into()), "{found}");
    // Damage in what it has is damage.
    let victim = &headers(&data)[9];
    let (file, offset) = (victim["file"].as_str().unwrap(), victim["offset"].as_u64().unwrap());
    flip(&data.join(file), offset + 520);
    kmb(&["verify", text(&data)]).fails(1, &["op 10 ", file, "damaged"]);
    flip(&data.join(file), offset + 520);
    three.start();
    three.settled();
    three.stop();
    let hashes = three.head_hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[test]
fn one_damaged_copy_of_the_superblock_is_written_again_and_lost_copies_are_refused() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    kmb_with(&["append", "--stream", "s", "--nodes", &lone.address], b"one\n").ok();
    let data = lone.data.clone();
    lone.node.stop();
    flip(&data.join("superblock"), 100);
    let lone = Lone::start(&data);
    lone.node.awaits("damaged");
    lone.node.awaits("view");
    lone.node.stop();
    let copies = kmb(&["inspect", text(&data), "superblock", "--json"]).json();
    assert!(copies.iter().all(|copy| copy["state"] == "intact"), "{copies:?}");
    fs::write(data.join("superblock"), vec![0xAA; 64 << 10]).unwrap();
    let start = ["start", "--data", text(&data), "--listen", "127.0.0.1:0"];
    kmb(&start).fails(1, &["superblock is lost"]);
}
