//! `vopr` on bundles: what it prints, and what it exits with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kimberlite_sim::{Bundle, Checker, End, Observation, RunConfig, Scenario, Violation, draw};
use kimberlite_types::Instant;
use serde_json::Value;

/// Fails after a number of observations.
struct Brittle(u64);

impl Checker for Brittle {
    fn name(&self) -> &'static str {
        "brittle"
    }

    fn rules(&self) -> &'static [&'static str] {
        &["little happens"]
    }

    fn observe(&mut self, _: Instant, _: &Observation<'_>) -> Result<(), Violation> {
        self.0 += 1;
        if self.0 < 300 {
            return Ok(());
        }
        let (checker, rule) = (self.name().to_owned(), self.rules()[0].to_owned());
        Err(Violation { checker, rule, seen: "much".to_owned(), replica: None, op: None })
    }

    fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.0
    }
}

fn brittle(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    vec![Box::new(Brittle(0))]
}

fn bundle() -> Bundle {
    Bundle::capture("storage", &draw(Scenario::Storage, 3), 3, brittle).expect("it fails")
}

/// A file in a folder of this test's own.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vopr-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("folder");
    let path = folder.join(name);
    fs::write(&path, bytes).expect("file");
    path
}

fn vopr(arguments: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vopr")).args(arguments).arg(file).output().expect("starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn show_tells_build_decisions_faults_and_failure_to_people_and_programs() {
    let bundle = bundle();
    let path = file("shown.kmb", &bundle.encode());
    let shown = vopr(&["show"], &path);
    assert_eq!(shown.status.code(), Some(0));
    let words = text(&shown.stdout);
    let fingerprint = bundle.failure.fingerprint().to_string();
    for word in
        ["a simulated failure", "storage, seed 3", "network ", "disk ", "little happens", &fingerprint]
    {
        assert!(words.contains(word), "{word}: {words}");
    }
    let shown = vopr(&["show", "--json"], &path);
    let value: Value = serde_json::from_slice(&shown.stdout).expect("an object");
    assert_eq!(value["same_build"], true);
    assert_eq!(value["failure"]["fingerprint"], fingerprint);
    let faults = value["faults"].as_array().expect("a list");
    assert_eq!(faults.len(), bundle.faults.len());
    assert!(faults.is_sorted_by_key(|fault| fault["event"].as_u64()));
    assert!(value["decisions"]["disk"].as_u64() > Some(0));
}

#[test]
fn a_replay_that_is_not_exact_on_the_same_build_is_a_failure_and_names_the_event() {
    // The rules of the program hold, so the recorded failure does not happen: it goes on where the record ends.
    let bundle = bundle();
    let path = file("replayed.kmb", &bundle.encode());
    let replayed = vopr(&["replay", "--json"], &path);
    assert_eq!(replayed.status.code(), Some(1), "{}", text(&replayed.stderr));
    let value: Value = serde_json::from_slice(&replayed.stdout).expect("an object");
    let replay = &value["replay"];
    assert_eq!((&replay["exact"], &replay["same_failure"]), (&Value::Bool(false), &Value::Bool(false)));
    assert_eq!(replay["parting"]["event"].as_u64(), Some(bundle.events + 1));
    let replayed = text(&vopr(&["replay"], &path).stdout);
    assert!(replayed.contains("diverged") && replayed.contains("NOT EXACT"), "{replayed}");
}

#[test]
fn minimize_refuses_what_does_not_fail_here() {
    let refused = vopr(&["minimize"], &file("sound.kmb", &bundle().encode()));
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("does not fail under its fingerprint here"));
}

#[test]
fn files_that_cannot_be_used_are_refused_with_a_reason() {
    let sound = bundle().encode();
    let mut newer = sound.clone();
    newer[8] = 9;
    let mut damaged = sound.clone();
    damaged[200] ^= 1;
    let cases: [(&[u8], &str); 5] = [
        (b"", "not a .kmb file"),
        (b"GET / HTTP/1.1", "not a .kmb file"),
        (&newer, "has format 9, written by Kimberlite"),
        (&damaged, "its hash does not match"),
        (&sound[..sound.len() - 1], "cut short"),
    ];
    for (bytes, reason) in cases {
        let path = file("refused.kmb", bytes);
        for command in ["replay", "show", "minimize"] {
            let refused = vopr(&[command], &path);
            assert_eq!(refused.status.code(), Some(5), "{command}: {reason}");
            assert!(text(&refused.stderr).contains(reason), "{}", text(&refused.stderr));
        }
    }
    assert_eq!(vopr(&["show"], Path::new("/nowhere/at/all.kmb")).status.code(), Some(5));
}
