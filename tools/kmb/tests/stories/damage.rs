//! Disks that lie while the node is stopped.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::Value;

use crate::world::{Lone, Three, await_some, kmb, kmb_with, lines, temporary, text};

/// Flips one bit of a file.
fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
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
    repairs_itself(&mut three, 2);
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
