//! What is wrong with a command line or a directory, and what is said about it.

use std::fs;
use std::net::TcpListener;

use crate::world::{Lone, free_ports, kmb, kmb_with, temporary, text};

#[test]
fn every_command_explains_itself_with_an_example() {
    let all = kmb(&["--help"]).ok();
    for command in ["format", "start", "dev", "demo", "append", "read", "status", "verify", "inspect"] {
        assert!(all.contains(command), "{all}");
        let help = kmb(&[command, "--help"]).ok();
        assert!(help.contains("Example") && help.contains(&format!("kmb {command}")), "{help}");
        assert!(help.contains("Exit codes"), "{help}");
    }
    for hidden in ["load", "torture"] {
        assert!(!all.contains(hidden), "{all}");
        assert!(kmb(&[hidden, "--help"]).ok().contains("Example"));
    }
}

#[test]
fn a_misspelt_command_is_answered_with_the_likely_one() {
    kmb(&["appand"]).fails(2, &["append"]);
    kmb(&["append"]).fails(2, &["--stream"]);
    kmb(&["verify"]).fails(2, &["DIR"]);
}

#[test]
fn a_directory_that_is_missing_or_foreign_is_named() {
    let dir = temporary();
    let missing = dir.path().join("nowhere");
    for args in [
        vec!["start", "--data", text(&missing)],
        vec!["verify", text(&missing)],
        vec!["inspect", text(&missing)],
    ] {
        kmb(&args).fails(1, &["nowhere", "does not exist"]);
    }
    fs::write(dir.path().join("letter.txt"), "dear reader").unwrap();
    kmb(&["start", "--data", text(dir.path())]).fails(1, &["is not a Kimberlite data directory"]);
    kmb(&["format", "--data", text(dir.path())]).fails(1, &["is not empty"]);
    assert_eq!(fs::read_to_string(dir.path().join("letter.txt")).unwrap(), "dear reader");
    kmb(&["format", "--data", text(&missing.join("deeper"))]).fails(1, &["nowhere", "create it"]);
}

#[test]
fn a_directory_is_formatted_once_and_for_one_replica() {
    let dir = temporary();
    let data = dir.path().join("data");
    let data = text(&data);
    kmb(&["format", "--data", data, "--replica", "3", "--replicas", "3"]).fails(2, &["counted from 0"]);
    kmb(&["format", "--data", data, "--replicas", "3"]).fails(2, &["--replica"]);
    kmb(&["format", "--data", data, "--replica", "0", "--replicas", "9"]).fails(2, &["1 to 6"]);
    kmb(&["format", "--data", data, "--cluster-id", "xyz"]).fails(2, &["hexadecimal"]);
    kmb(&["format", "--data", data, "--cluster-id", "0"]).fails(2, &["not zero"]);
    kmb(&["format", "--data", data, "--replica", "1", "--replicas", "3", "--cluster-id", "abc"]).ok();
    kmb(&["format", "--data", data]).fails(1, &["is not empty"]);
    kmb(&["start", "--data", data, "--cluster-id", "def"]).fails(1, &["belongs to cluster", "abc"]);
    kmb(&["start", "--data", data, "--replica", "2"]).fails(1, &["belongs to replica 1 of 3"]);
    kmb(&["start", "--data", data]).fails(2, &["--cluster"]);
    kmb(&["start", "--data", data, "--cluster", "127.0.0.1:1"]).fails(2, &["names 1", "3 replicas"]);
}

#[test]
fn a_superblock_of_another_cluster_is_refused() {
    let dir = temporary();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    kmb(&["format", "--data", text(&one), "--cluster-id", "1", "--layout", "small"]).ok();
    kmb(&["format", "--data", text(&other), "--cluster-id", "2", "--layout", "small"]).ok();
    fs::copy(one.join("superblock"), other.join("superblock")).unwrap();
    let start = ["start", "--data", text(&other), "--listen", "127.0.0.1:0"];
    kmb(&start).fails(1, &["belongs to cluster 00000000000000000000000000000001"]);
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = temporary();
    let data = dir.path().join("data");
    kmb(&["format", "--data", text(&data), "--layout", "small"]).ok();
    let secret = data.join("link.secret");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    kmb(&["start", "--data", text(&data)]).fails(1, &["link.secret", "chmod 600"]);
}

#[test]
fn a_port_in_use_is_named_and_so_is_a_directory_in_use() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    kmb(&["start", "--data", text(&lone.data), "--listen", "127.0.0.1:0"]).fails(1, &["in use"]);
    kmb(&["verify", text(&lone.data)]).fails(1, &["in use"]);
    let other = dir.path().join("other");
    kmb(&["format", "--data", text(&other), "--layout", "small"]).ok();
    kmb(&["start", "--data", text(&other), "--listen", &lone.address]).fails(1, &["client", &lone.address]);
}

#[test]
fn a_cluster_that_is_not_there_ends_in_a_timeout_that_says_where_it_looked() {
    let nobody = format!("127.0.0.1:{}", free_ports(&[0]));
    let append = ["append", "--stream", "s", "--nodes", &nobody, "--timeout", "0.5"];
    kmb_with(&append, b"one\n").fails(3, &[&nobody, "connection refused"]);
    kmb(&["status", "--nodes", &nobody, "--timeout", "0.5"]).fails(3, &["no node answered"]);
    // Something listens there, and is no node.
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    kmb(&["read", "--stream", "s", "--nodes", &address, "--timeout", "3"]).fails(3, &[&address]);
}

#[test]
fn a_client_that_names_another_cluster_is_told_so() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    let read = ["read", "--stream", "s", "--nodes", &lone.address, "--cluster-id", "abc", "--timeout", "1"];
    kmb(&read).fails(3, &[&lone.address, "closed the connection"]);
    lone.node.awaits("client_malformed");
}

#[test]
fn a_stream_that_does_not_exist_is_not_read_and_not_made_against_the_wish() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    kmb(&["read", "--stream", "s", "--nodes", &lone.address]).fails(1, &["does not exist"]);
    kmb_with(&["append", "--stream", "s", "--nodes", &lone.address, "--no-create"], b"one\n")
        .fails(1, &["does not exist"]);
}

#[test]
fn start_formats_when_asked_and_only_an_empty_place() {
    let dir = temporary();
    let data = dir.path().join("data");
    let args = [
        "start",
        "--data",
        text(&data),
        "--format",
        "--layout",
        "small",
        "--listen",
        "127.0.0.1:0",
        "--log",
        "json",
        "--stop-with-stdin",
    ];
    for _ in 0..2 {
        let node = crate::world::Running::spawn(&args);
        node.awaits("opened");
        node.stop();
    }
    fs::remove_file(data.join("node.json")).unwrap();
    kmb(&args).fails(1, &["interrupted"]);
}
