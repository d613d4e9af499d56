//! The first command of the project's page, on that page.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::world::{Running, await_some, kmb, temporary, text};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");

/// The directory that the demonstration names in its first line.
fn place(line: &str) -> &Path {
    Path::new(line.split("data in ").nth(1).unwrap().split(" (").next().unwrap())
}

#[test]
fn the_demonstration_holds_on_the_projects_page_and_leaves_nothing_behind() {
    let said = kmb(&["demo", README]).ok();
    let records = fs::read_to_string(README).unwrap().lines().count();
    for words in [
        format!("{records} records"),
        "killed the primary: node ".to_owned(),
        "took over".to_owned(),
        "byte for byte".to_owned(),
        format!("whole, {} records", records + 2),
        "every step held".to_owned(),
    ] {
        assert!(said.contains(&words), "`{words}` is missing: {said}");
    }
    let hashes: Vec<&str> = said.lines().filter_map(|line| line.split(", head hash ").nth(1)).collect();
    assert_eq!(hashes.len(), 3, "{said}");
    assert!(hashes.iter().all(|hash| hash.len() == 64 && *hash == hashes[0]), "{said}");
    assert!(!place(&said).exists(), "{said}");
}

#[test]
fn the_demonstration_says_the_same_as_one_object_and_keeps_a_named_directory() {
    let dir = temporary();
    let data = dir.path().join("data");
    let file = dir.path().join("file");
    fs::write(&file, b"no line feed\n\n\xff at the end").unwrap();
    let said = kmb(&["demo", text(&file), "--dir", text(&data), "--json"]).json();
    let [report] = &said[..] else { panic!("{said:?}") };
    assert_eq!(report["held"], true, "{report}");
    assert_eq!(report["file"]["records"], 3, "{report}");
    assert_ne!(report["killed"], report["new_primary"], "{report}");
    for node in ["node0", "node1", "node2"] {
        let found = kmb(&["verify", text(&data.join(node)), "--json"]).json();
        assert_eq!(found[0]["head_hash"], report["head_hash"]);
        assert_eq!(report["nodes"][node]["records"], 5, "{report}");
    }
    kmb(&["demo", text(&file), "--dir", text(&data)]).fails(1, &["is not an empty directory"]);
    kmb(&["demo", text(&dir.path().join("nowhere"))]).fails(5, &["nowhere"]);
}

#[test]
fn a_demonstration_that_is_interrupted_leaves_nothing_behind() {
    let mut demo = Running::spawn(&["demo", README]);
    let first = await_some("the first line", || demo.lines().into_iter().next());
    demo.signal(Signal::INT);
    assert_eq!(demo.ended().code(), Some(1), "{:?}", demo.lines());
    await_some("the reason", || demo.errors().iter().any(|line| line.contains("interrupted")).then_some(()));
    assert!(!place(&first).exists(), "{first}");
}

#[test]
fn a_step_that_fails_is_named_and_the_data_is_kept_to_be_looked_at() {
    let dir = temporary();
    let file = dir.path().join("file");
    fs::write(&file, vec![b'x'; 2 << 20]).unwrap();
    let said = kmb(&["demo", text(&file), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["held"], false, "{report}");
    let kept = said.err.split("(kept: ").nth(1).unwrap().split(')').next().unwrap().to_owned();
    said.fails(1, &["step `append`", "line 1 has"]);
    assert!(Path::new(&kept).join("node0.log").exists(), "{kept}");
    fs::remove_dir_all(&kept).unwrap();
}
