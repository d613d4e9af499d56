//! The command, from outside: what it prints, what it leaves on disk, and its exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn vopr(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vopr")).args(arguments).output().expect("the program runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The summary of a swarm that prints JSON, without what the machine's speed decides.
fn summary(output: &Output) -> Value {
    let last = text(&output.stdout).lines().last().expect("a line").to_owned();
    let mut value: Value = serde_json::from_str(&last).expect("JSON");
    let summary = value["summary"].as_object_mut().expect("a summary");
    summary.retain(|name, _| !name.contains("second"));
    value
}

#[test]
fn a_large_swarm_in_which_nothing_happens_is_vacuous_and_a_small_one_only_says_so() {
    let large = vopr(&["swarm", "calm", "--seeds", "100", "--requests", "1", "--clients", "1"]);
    assert_eq!(code(&large), 3, "{}", text(&large.stdout));
    assert!(text(&large.stdout).contains("vacuous: never seen: count ops_committed"));
    let small = vopr(&["swarm", "calm", "--seeds", "3", "--requests", "1", "--clients", "1"]);
    assert_eq!(code(&small), 0);
    assert!(text(&small.stdout).contains("not yet seen: count ops_committed"));
}

#[test]
fn a_swarm_that_was_killed_goes_on_and_comes_to_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("nightly");
    let directory = directory.to_str().expect("UTF-8");
    let swarm = |seeds: &str, more: &[&str]| {
        let mut arguments = vec!["swarm", "crashes", "--seeds", seeds, "--json"];
        arguments.extend(more);
        vopr(&arguments)
    };
    let whole = swarm("6", &[]);
    assert_eq!(code(&whole), 0, "{}", text(&whole.stderr));
    assert_eq!(text(&whole.stdout).lines().count(), 7);
    assert_eq!(code(&swarm("4", &["--resume", directory])), 0);
    // Killed while it wrote the last of them.
    let lines = Path::new(directory).join("seeds.jsonl");
    let written = fs::read(&lines).expect("results");
    fs::write(&lines, &written[..written.len() - 100]).expect("cut");
    let resumed = swarm("6", &["--resume", directory]);
    assert_eq!(text(&resumed.stdout).lines().count(), 4, "three seeds are left to run");
    assert_eq!(summary(&resumed), summary(&whole));
    // Nothing is left to do, and it says the same again.
    let again = swarm("6", &["--resume", directory]);
    assert_eq!((text(&again.stdout).lines().count(), summary(&again)), (1, summary(&whole)));
}

#[test]
fn a_directory_of_another_swarm_build_or_format_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().to_str().expect("UTF-8");
    let swarm = |more: &[&str]| {
        let mut arguments = vec!["swarm", "--seeds", "1", "--requests", "5", "--resume", directory];
        arguments.extend(more);
        vopr(&arguments)
    };
    assert_eq!(code(&swarm(&["calm"])), 0);
    let other = swarm(&["solo", "--start", "7"]);
    assert_eq!(code(&other), 2);
    let said = text(&other.stderr);
    assert!(said.contains("scenario: calm there, solo here; start: 0 there, 7 here"), "{said}");

    let header = folder.path().join("swarm.json");
    let mut value: Value = serde_json::from_slice(&fs::read(&header).expect("a header")).expect("JSON");
    let ours = value["program"].take();
    value["program"] = "0123456789abcdef".into();
    fs::write(&header, value.to_string()).expect("written");
    let said = text(&swarm(&["calm"]).stderr);
    assert!(said.contains("program: 0123456789abcdef there"), "{said}");

    value["program"] = ours;
    value["format"] = 9.into();
    fs::write(&header, value.to_string()).expect("written");
    let newer = swarm(&["calm"]);
    assert_eq!(code(&newer), 2);
    assert!(text(&newer.stderr).contains("format 9, this program reads 1"));

    fs::write(&header, "{").expect("written");
    assert_eq!(code(&swarm(&["calm"])), 5);
}

#[test]
fn a_line_that_is_no_result_or_of_another_seed_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().to_str().expect("UTF-8");
    let swarm = || vopr(&["swarm", "calm", "--seeds", "2", "--requests", "5", "--resume", directory]);
    assert_eq!(code(&swarm()), 0);
    let lines = folder.path().join("seeds.jsonl");
    let written = text(&fs::read(&lines).expect("results"));
    let (first, second) = written.split_once('\n').expect("two lines");
    fs::write(&lines, format!("{second}{first}\n")).expect("written");
    let swapped = swarm();
    assert_eq!(code(&swapped), 5);
    assert!(text(&swapped.stderr).contains("line 1 is not of seed 0"));
    fs::write(&lines, "{\"seed\": 0}\n").expect("written");
    assert_eq!(code(&swarm()), 5);
}

#[test]
fn time_ends_a_swarm_and_a_file_has_a_line_for_each_seed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("seeds.jsonl");
    let file = file.to_str().expect("UTF-8");
    let output =
        vopr(&["swarm", "calm", "--for", "1s", "--requests", "5", "--shard", "2/3", "--jsonl", file]);
    // A fast machine runs so many seeds in a second that the contract is due, which five requests do not fill.
    assert!([0, 3].contains(&code(&output)), "{}", text(&output.stderr));
    let lines = fs::read_to_string(file).expect("lines");
    let seeds: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["seed"].as_u64().expect("a number"))
        .collect();
    let expected: Vec<u64> = (0..seeds.len() as u64).map(|index| 1 + 3 * index).collect();
    assert!(!seeds.is_empty() && seeds == expected, "{seeds:?}");
    assert_eq!(code(&vopr(&["swarm", "--for", "1s", "--seeds", "3"])), 2);
    assert_eq!(code(&vopr(&["swarm", "--shard", "3/2"])), 2);
}

#[test]
fn marks_are_listed_with_their_places_and_counted_with_the_unreached_first() {
    let listed = text(&vopr(&["marks"]).stdout);
    assert!(listed.contains("core/vsr/src/merge.rs\n") && listed.contains("merge.cuts"), "{listed}");
    let counted = vopr(&["marks", "calm", "--seeds", "2"]);
    assert_eq!(code(&counted), 0);
    let counted = text(&counted.stdout);
    let first = counted.lines().nth(1).expect("a mark");
    assert!(first.trim_start().starts_with("0 "), "{first}");
    let rules = text(&vopr(&["invariants"]).stdout);
    assert!(rules.contains("broken by checkers::agreement::tests::another_prepare_at_an_op"), "{rules}");
}
