//! One node.

use std::fs;

use crate::world::{Lone, kmb, kmb_with, lines, temporary, text};

#[test]
fn what_is_appended_is_read_back_survives_a_restart_and_verifies() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "production");
    let file = dir.path().join("story.txt");
    fs::write(&file, lines(1000)).unwrap();
    let appended =
        kmb(&["append", "--stream", "story", "--nodes", &lone.address, "--file", text(&file), "--json"])
            .json();
    assert_eq!((&appended[0]["first"], &appended[0]["last"]), (&0.into(), &999.into()));
    assert_eq!(kmb(&["read", "--stream", "story", "--nodes", &lone.address]).ok(), lines(1000));

    let data = lone.data.clone();
    lone.node.stop();
    let lone = Lone::start(&data);
    assert_eq!(kmb(&["read", "--stream", "story", "--nodes", &lone.address]).ok(), lines(1000));
    let more = b"no line feed at the end".as_slice();
    kmb_with(&["append", "--stream", "story", "--nodes", &lone.address], more).ok();
    let tail =
        kmb(&["read", "--stream", "story", "--nodes", &lone.address, "--from", "999", "--json"]).json();
    assert_eq!(tail.len(), 2);
    assert_eq!((&tail[1]["offset"], &tail[1]["text"]), (&1000.into(), &"no line feed at the end".into()));
    lone.node.stop();

    let found = kmb(&["verify", text(&data), "--json"]).json();
    assert_eq!(found[0]["whole"], true);
    assert_eq!(found[0]["damage"], serde_json::Value::Null);
    let shown = kmb(&["inspect", text(&data), "records", "--json"]).json();
    let records: usize = shown.iter().filter_map(|entry| entry["records"].as_array()).map(Vec::len).sum();
    assert_eq!(records, 1001);
    assert_eq!(
        shown.last().unwrap()["hash"],
        found[0]["head_hash"],
        "the last entry's hash is the head hash"
    );
}

#[test]
fn records_keep_every_byte_and_empty_lines_are_records() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    let input = b"first\n\n\xff\xfe\x00binary\nlast\n".as_slice();
    kmb_with(&["append", "--stream", "7", "--tenant", "3", "--nodes", &lone.address], input).ok();
    let read = kmb(&["read", "--stream", "7", "--tenant", "3", "--nodes", &lone.address, "--json"]).json();
    assert_eq!(read.len(), 4);
    assert_eq!(read[1]["text"], "");
    assert_eq!(read[2]["hex"], "fffe0062696e617279");
    let limited = ["read", "--stream", "7", "--tenant", "3", "--nodes", &lone.address, "--limit", "1"];
    assert_eq!(kmb(&limited).ok(), "first\n");
}

#[test]
fn batches_shrink_to_what_the_cluster_takes_and_a_record_beyond_that_is_refused_by_its_line() {
    let dir = temporary();
    // Small layout: a command holds less than 64 KiB.
    let lone = Lone::new(dir.path(), "small");
    let long = format!("{}\n", "x".repeat(1000)).repeat(300);
    kmb_with(&["append", "--stream", "long", "--nodes", &lone.address], long.as_bytes()).ok();
    assert_eq!(kmb(&["read", "--stream", "long", "--nodes", &lone.address]).ok(), long);
    let huge = format!("small\n{}\n", "x".repeat(100_000));
    kmb_with(&["append", "--stream", "huge", "--nodes", &lone.address], huge.as_bytes())
        .fails(1, &["line 2 has 100000 bytes"]);
    assert_eq!(kmb(&["read", "--stream", "huge", "--nodes", &lone.address]).ok(), "small\n");
}

#[test]
fn several_clients_append_every_line_once() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "production");
    let append =
        ["append", "--stream", "many", "--nodes", &lone.address, "--clients", "4", "--batch", "3", "--json"];
    let appended = kmb_with(&append, lines(200).as_bytes()).json();
    assert_eq!(appended[0]["appended"], 200);
    let read = kmb(&["read", "--stream", "many", "--nodes", &lone.address]).ok();
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&read), sorted(&lines(200)));
}

#[test]
fn a_node_says_how_it_stands() {
    let dir = temporary();
    let lone = Lone::new(dir.path(), "small");
    kmb_with(&["append", "--stream", "s", "--nodes", &lone.address], b"one\n").ok();
    let status = kmb(&["status", "--nodes", &lone.address, "--json"]).json();
    let row = &status[0]["nodes"][0];
    assert_eq!((&row["state"], &row["replica"], &row["lag"]), (&"normal".into(), &0.into(), &0.into()));
    assert_eq!(row["commit"], 4, "a session, a tenant, a stream and a batch");
    let table = kmb(&["status", "--nodes", &lone.address]).ok();
    assert!(table.contains("primary") && table.contains("normal"), "{table}");
}
