//! The corpora of the fuzz targets, replayed on the toolchain of the day.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fuzzing::{TARGETS, Target};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All inputs of a target, by file name.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = root().join("seeds/corpus").join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.expect("a folder that can be listed"))
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file"))
        })
        .collect();
    inputs.sort();
    inputs
}

fn replay(name: &str) {
    let target = Target::named(name).expect("a target");
    let inputs = corpus(target);
    assert!(inputs.len() >= 4, "a corpus of {name}");
    let broken: Vec<&str> = inputs
        .iter()
        .filter(|(_, bytes)| catch_unwind(AssertUnwindSafe(|| target.run(bytes))).is_err())
        .map(|(file, _)| file.as_str())
        .collect();
    assert!(broken.is_empty(), "{name} is broken by {broken:?}");
}

macro_rules! replayed {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*

        #[test]
        fn every_target_is_replayed_and_has_a_binary() {
            let replayed = [$(stringify!($target)),*];
            let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("the manifest");
            for target in &TARGETS {
                assert!(replayed.contains(&target.name), "{} is not replayed", target.name);
                let source = root().join("fuzz/fuzz_targets").join(target.name).with_extension("rs");
                let text = fs::read_to_string(&source).expect("a binary for each target");
                assert!(text.contains(&format!("\"{}\"", target.name)), "{} calls its body", source.display());
                assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{} is built", target.name);
            }
            assert_eq!(replayed.len(), TARGETS.len());
        }
    };
}

replayed! {
    frame
    message_body
    journal_recovery
    superblock
    kmb_bundle
    machine_under_arbitrary_events
    client_machine
    world_decisions
    kernel_commands
    btree_ops
    key_encoding
    row_codec
    sql_text
    plan_and_execute
}

#[test]
fn seeds_are_made_alike_every_time_and_for_every_target() {
    for target in &TARGETS {
        let seeds = target.seeds();
        assert!(!seeds.is_empty(), "{}", target.name);
        assert_eq!(seeds, target.seeds(), "{}", target.name);
    }
}
