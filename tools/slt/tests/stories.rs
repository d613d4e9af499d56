//! The files in `stories/` pass, whether pages are there or miss at the first touch.

use std::path::Path;
use std::process::Command;

fn run(options: &[&str], path: &Path) -> (bool, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_slt")).args(options).arg(path).output().expect("the runner starts");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_record_passes() {
    let (passed, shown) =
        run(&["--verbose"], Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories")));
    assert!(passed, "{shown}");
}

#[test]
fn every_record_passes_when_every_first_touch_misses() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories"));
    let (passed, shown) = run(&["--verbose", "--miss-every-page"], path);
    assert!(passed, "{shown}");
}

#[test]
fn a_wrong_answer_is_counted_as_failed() {
    let file = std::env::temp_dir().join(format!("wrong-{}.slt", std::process::id()));
    std::fs::write(&file, "query I\nSELECT 1\n----\n2\n").expect("the folder can be written");
    let (passed, shown) = run(&[], &file);
    std::fs::remove_file(&file).expect("it was there");
    assert!(!passed && shown.contains("0/1"), "{shown}");
}
