//! Flight recorders: what a node was told is told again to the same node in this process, and it asks for the same.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use kimberlite_sim::{Ended, ReadError, Reader, Relived, Tail, relive};
use rustix::process::Signal;

use crate::world::{Lone, Running, Three, await_some, kmb, kmb_with, lines, temporary, text};

fn relived(path: &Path) -> Relived {
    let reader = Reader::open(BufReader::new(File::open(path).unwrap())).unwrap();
    let (lived, result) = relive(reader);
    result.unwrap();
    assert_eq!(lived.parting, None, "{}", path.display());
    assert!(lived.panic.is_none(), "{:?}", lived.panic);
    lived
}

/// Loads three recorded nodes, kills the primary and then each of the others while it goes on, and stops all.
#[test]
fn every_life_of_three_nodes_under_load_and_kills_is_lived_again_bit_for_bit() {
    let mut three = Three::recorded();
    let nodes = three.nodes.clone();
    let mut load =
        Running::spawn(&["load", "--nodes", &nodes, "--clients", "4", "--seconds", "600", "--json"]);
    for round in 0..4 {
        let before = commit(&three);
        await_some("progress", || (commit(&three)? > before? + 20).then_some(()));
        // The primary first, then each in turn; once by an abort, which runs no destructor either.
        let victim = if round == 0 { primary(&three) } else { round - 1 };
        if round == 3 {
            three.node(victim).signal(Signal::ABORT);
        } else {
            three.node(victim).signal(Signal::KILL);
        }
        three.running[victim].take().unwrap().ended();
        three.start();
        await_some("the node's return", || commit_of(&three, victim).filter(|commit| *commit > 0));
    }
    load.signal(Signal::INT);
    assert!(load.ended().success(), "{:?}", load.errors());
    three.settled();
    three.stop();

    let mut last = vec![None; 3];
    let recordings = three.recordings.clone().unwrap();
    assert_eq!(recordings.len(), 7);
    for (number, (node, path)) in recordings.iter().enumerate() {
        let lived = relived(path);
        let killed = recordings[number + 1..].iter().any(|(other, _)| other == node);
        if killed {
            assert!(matches!(lived.tail, Some(Tail::Abrupt | Tail::Torn(_))), "{:?}", lived.tail);
            assert_eq!(lived.confirmed, lived.events - 1, "all but the last, of which nobody knows");
        } else {
            assert_eq!(lived.tail, Some(Tail::Ended(Ended::Stopped)));
            assert_eq!(lived.confirmed, lived.events);
            last[*node] = Some((lived.commit, lived.state));
        }
        assert!(lived.events > 100 && lived.kinds["message"] > 0 && lived.kinds["read"] > 0);
    }
    // What three processes and three lives lived again come to is one state.
    assert!(last[0].is_some() && last.iter().all(|life| *life == last[0]), "{last:?}");
    let hashes = three.head_hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));

    holds_no_secret(&three);
    a_cut_recording_is_confirmed_up_to_the_cut(&recordings[0].1);
}

fn status(three: &Three) -> Option<serde_json::Value> {
    let said = kmb(&["status", "--nodes", &three.nodes, "--json", "--timeout", "5"]);
    serde_json::from_str(&said.out).ok()
}

fn commit(three: &Three) -> Option<u64> {
    status(three)?["nodes"].as_array()?.iter().filter_map(|row| row["commit"].as_u64()).max()
}

fn commit_of(three: &Three, node: usize) -> Option<u64> {
    status(three)?["nodes"].as_array()?.get(node)?["commit"].as_u64()
}

fn primary(three: &Three) -> usize {
    await_some("a primary", || {
        status(three)?["nodes"].as_array()?.iter().find_map(|row| row["primary"].as_u64())
    }) as usize
}

fn holds_no_secret(three: &Three) {
    let secret = fs::read_to_string(three.data(0).join("link.secret")).unwrap();
    let secret = secret.trim();
    let raw: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).unwrap()).collect();
    for (_, path) in three.recordings.as_ref().unwrap() {
        let file = fs::read(path).unwrap();
        for part in raw.windows(8).chain(secret.as_bytes().windows(16)) {
            let found = file.windows(part.len()).position(|window| window[0] == part[0] && window == part);
            assert_eq!(found, None, "{}", path.display());
        }
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
    }
}

fn a_cut_recording_is_confirmed_up_to_the_cut(path: &Path) {
    let file = fs::read(path).unwrap();
    let whole = relived(path).events;
    for cut in [file.len() / 3, file.len() / 2 + 1, file.len() - 1] {
        let (lived, result) = relive(Reader::open(&file[..cut]).unwrap());
        result.unwrap();
        assert!(lived.is_exact() && lived.events < whole && lived.confirmed + 1 == lived.events);
        assert!(matches!(lived.tail, Some(Tail::Torn(_) | Tail::Abrupt)));
    }
    let mut damaged = file.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let (lived, result) = relive(Reader::open(&damaged[..]).unwrap());
    assert!(matches!(result, Err(ReadError::Damaged { .. })));
    assert!(lived.is_exact() && lived.events > 0 && lived.events < whole);
}

#[test]
fn a_recording_ends_at_its_limit_and_the_node_goes_on() {
    let dir = temporary();
    let data = dir.path().join("data");
    let file = dir.path().join("life.kmb");
    kmb(&["format", "--data", text(&data), "--layout", "small"]).ok();
    let start = ["start", "--data", text(&data), "--listen", "127.0.0.1:0", "--log", "json"];
    let record = ["--stop-with-stdin", "--record", text(&file), "--record-limit", "256KiB"];
    let node = Running::spawn(&[&start[..], &record[..]].concat());
    let address = node.awaits("listening")["clients"].as_str().unwrap().to_owned();
    let append = ["append", "--stream", "s", "--nodes", &address, "--batch", "10"];
    kmb_with(&append, lines(2_000).as_bytes()).ok();
    let line = node.awaits("recording_ended");
    assert_eq!(line["reason"], "limit");
    kmb_with(&append, b"still here\n").ok();
    node.stop();
    assert!(fs::metadata(&file).unwrap().len() <= 256 << 10);
    let lived = relived(&file);
    assert_eq!(lived.tail, Some(Tail::Ended(Ended::Limit)));
    assert!(lived.confirmed == lived.events && lived.events > 20);
    // Never over what is there.
    kmb(&[&start[..], &record[..]].concat()).fails(1, &["life.kmb exists", "name another one"]);
    let lone = Lone::start(&data);
    kmb_with(&["append", "--stream", "s", "--nodes", &lone.address], b"and without\n").ok();
}

#[test]
fn a_recording_that_cannot_be_written_ends_and_the_node_goes_on() {
    let dir = temporary();
    let data = dir.path().join("data");
    kmb(&["format", "--data", text(&data), "--layout", "small"]).ok();
    // The shell lets no file grow beyond this; with the signal ignored, a write that would fails.
    let file = dir.path().join("life.kmb");
    let script = format!(
        "trap '' XFSZ; ulimit -f 2048; exec {} start --data {} --listen 127.0.0.1:0 --log json --record {}",
        env!("CARGO_BIN_EXE_kmb"),
        text(&data),
        text(&file)
    );
    let node = Running::spawn_program("sh", &["-c", &script]);
    let address = node.awaits("listening")["clients"].as_str().unwrap().to_owned();
    let append = ["append", "--stream", "s", "--nodes", &address, "--batch", "50"];
    kmb_with(&append, lines(40_000).as_bytes()).ok();
    assert_eq!(node.awaits("recording_ended")["reason"], "failed");
    kmb_with(&append, b"still here\n").ok();
    node.stop();
    assert!(matches!(relived(&file).tail, Some(Tail::Torn(_) | Tail::Abrupt)));
}
