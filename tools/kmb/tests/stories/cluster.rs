//! Three nodes.

use rustix::process::Signal;

use crate::world::{Running, Three, await_some, free_addresses, kmb, kmb_with, lines, temporary, text};

#[test]
fn three_nodes_hold_the_same_log_to_the_last_byte() {
    let mut three = Three::new();
    let append = ["append", "--stream", "story", "--nodes", &three.nodes, "--batch", "5"];
    kmb_with(&append, lines(300).as_bytes()).ok();
    assert_eq!(kmb(&["read", "--stream", "story", "--nodes", &three.nodes]).ok(), lines(300));
    three.settled();
    three.stop();
    let hashes = three.head_hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    for node in 0..3 {
        let shown = kmb(&["inspect", text(&three.data(node)), "records", "--json"]).json();
        let read: String = shown
            .iter()
            .filter_map(|entry| entry["records"].as_array())
            .flatten()
            .flat_map(|record| [record["text"].as_str().unwrap(), "\n"])
            .collect();
        assert_eq!(read, lines(300), "node {node}");
    }
}

#[test]
fn the_cluster_serves_without_any_one_of_its_nodes_and_each_comes_back() {
    let mut three = Three::new();
    for gone in 0..3 {
        kmb_with(&["append", "--stream", "s", "--nodes", &three.nodes], b"with all\n").ok();
        three.settled();
        three.running[gone] = None;
        kmb_with(&["append", "--stream", "s", "--nodes", &three.nodes], b"with two\n").ok();
        let read = kmb(&["read", "--stream", "s", "--nodes", &three.nodes]).ok();
        assert_eq!(read, "with all\nwith two\n".repeat(gone + 1));
        three.start();
    }
    three.settled();
    three.stop();
    let hashes = three.head_hashes();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

#[test]
fn without_a_majority_nothing_is_acknowledged() {
    let mut three = Three::new();
    kmb_with(&["append", "--stream", "s", "--nodes", &three.nodes], b"one\n").ok();
    three.running[0] = None;
    three.running[1] = None;
    let append = ["append", "--stream", "s", "--nodes", &three.nodes, "--timeout", "3"];
    kmb_with(&append, b"two\n").fails(3, &["no answer in time"]);
}

#[test]
fn dev_runs_three_nodes_until_ctrl_c_and_leaves_nothing_behind() {
    let (port, nodes, _) = free_addresses();
    let mut dev = Running::spawn(&["dev", "--small", "--base-port", &port.to_string()]);
    kmb_with(&["append", "--stream", "s", "--nodes", &nodes, "--timeout", "60"], b"one\ntwo\n").ok();
    assert_eq!(kmb(&["read", "--stream", "s", "--nodes", &nodes]).ok(), "one\ntwo\n");
    let lines = dev.lines();
    let first = lines.first().unwrap();
    let data = first.split("data in ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(std::path::Path::new(&data).exists(), "{first}");
    for word in ["append", "read", "status", "verify", "kill -9"] {
        assert!(lines.iter().any(|line| line.contains(word)), "{word}: {lines:?}");
    }
    await_some("a line of each node", || {
        let lines = dev.lines();
        (0..3).all(|node| lines.iter().any(|line| line.starts_with(&format!("node{node} |")))).then_some(())
    });
    dev.signal(Signal::INT);
    assert!(dev.ended().success(), "{:?} {:?}", dev.lines(), dev.errors());
    assert!(!std::path::Path::new(&data).exists());
}

#[test]
fn dev_keeps_a_named_directory_and_goes_on_in_it() {
    let dir = temporary();
    let data = dir.path().join("cluster");
    for round in 0..2 {
        let (port, nodes, _) = free_addresses();
        let mut dev =
            Running::spawn(&["dev", "--small", "--dir", text(&data), "--base-port", &port.to_string()]);
        kmb_with(&["append", "--stream", "s", "--nodes", &nodes, "--timeout", "60"], b"one\n").ok();
        assert_eq!(kmb(&["read", "--stream", "s", "--nodes", &nodes]).ok(), "one\n".repeat(round + 1));
        dev.signal(Signal::TERM);
        assert!(dev.ended().success());
    }
    kmb(&["verify", text(&data.join("node1"))]).ok();
    kmb(&["dev", "--dir", text(&data), "--nodes", "1"]).fails(2, &["--nodes 3"]);
}

#[test]
fn dev_ends_when_a_node_cannot_start() {
    let (port, _, _) = free_addresses();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    kmb(&["dev", "--small", "--base-port", &port.to_string()]).fails(1, &["node1 could not start"]);
}
