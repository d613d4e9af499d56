//! A planted bug on the command line, as the guide to a first failing seed has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[cfg(feature = "mutants")]
use serde_json::Value;

/// A folder of one test's own.
fn folder(name: &str) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("planted-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("folder");
    folder
}

fn vopr(folder: &Path, arguments: &[&str]) -> Output {
    let mut vopr = Command::new(env!("CARGO_BIN_EXE_vopr"));
    vopr.current_dir(folder).args(arguments).output().expect("starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the guide runs.
const RUN: [&str; 6] = ["run", "default", "--seed", "34", "--mutant", "duplicate-ack-counted"];

/// What that leaves behind.
#[cfg(feature = "mutants")]
const BUNDLE: &str = "vopr-failures/default-34-duplicate-ack-counted.kmb";

#[cfg(feature = "mutants")]
#[test]
fn the_planted_bug_of_the_guide_fails_replays_shows_and_shrinks() {
    let folder = folder("guide");
    let failed = vopr(&folder, &[&RUN[..], &["--json"]].concat());
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    let value: Value = serde_json::from_slice(&failed.stdout).expect("an object");
    assert_eq!((&value["failure"]["place"], &value["bundle"]), (&"durability".into(), &BUNDLE.into()));
    assert_eq!(value["planted"]["mutant"], "duplicate-ack-counted");
    assert!(value["planted"]["triggered"].as_u64() > Some(0), "{}", value["planted"]);
    // The same seed without the bug is green.
    assert_eq!(vopr(&folder, &RUN[..4]).status.code(), Some(0));
    let replayed = vopr(&folder, &["replay", BUNDLE, "--json"]);
    assert_eq!(replayed.status.code(), Some(1), "{}", text(&replayed.stderr));
    let value: Value = serde_json::from_slice(&replayed.stdout).expect("an object");
    assert_eq!((&value["replay"]["exact"], &value["digest"]), (&Value::Bool(true), &value["digest"]));
    let shown = text(&vopr(&folder, &["show", BUNDLE]).stdout);
    assert!(shown.contains("planted      duplicate-ack-counted"), "{shown}");
    // A failure of a rule that ships, made smaller: the same rule is broken by less.
    let smaller = vopr(&folder, &["minimize", BUNDLE, "--for", "20s", "--json"]);
    assert_eq!(smaller.status.code(), Some(0), "{}", text(&smaller.stderr));
    let value: Value = serde_json::from_slice(&smaller.stdout).expect("an object");
    let of = |when: &str, what: &str| value[when][what].as_u64().expect("a number");
    assert_eq!(value["exact"], true);
    assert!(value["kept"].as_u64() > Some(0), "{value}");
    assert!(of("after", "events") <= of("before", "events"));
    assert!(of("after", "decisions") < of("before", "decisions"), "{value}");
    let again =
        vopr(&folder, &["replay", "vopr-failures/default-34-duplicate-ack-counted.min.kmb", "--json"]);
    let value: Value = serde_json::from_slice(&again.stdout).expect("an object");
    assert_eq!((&value["replay"]["exact"], &value["failure"]["place"]), (&true.into(), &"durability".into()));
}

#[cfg(not(feature = "mutants"))]
#[test]
fn a_build_without_planted_bugs_refuses_them_by_name_and_says_which_build_has_them() {
    use kimberlite_sim::{Bundle, Checker, End, Observation, RunConfig, Scenario, Violation, draw};
    use kimberlite_types::Instant;

    /// Fails at the first observation.
    struct Never;

    impl Checker for Never {
        fn name(&self) -> &'static str {
            "never"
        }

        fn rules(&self) -> &'static [&'static str] {
            &["nothing happens"]
        }

        fn observe(&mut self, _: Instant, _: &Observation<'_>) -> Result<(), Violation> {
            let (checker, rule) = (self.name().to_owned(), self.rules()[0].to_owned());
            Err(Violation { checker, rule, seen: "something".to_owned(), replica: None, op: None })
        }

        fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
            Ok(())
        }

        fn compared(&self) -> u64 {
            0
        }
    }

    fn never(_: &RunConfig) -> Vec<Box<dyn Checker>> {
        vec![Box::new(Never)]
    }

    let folder = folder("refused");
    let refused = vopr(&folder, &RUN);
    assert_eq!(refused.status.code(), Some(2));
    let text_of = text(&refused.stderr);
    assert!(text_of.contains("holds no planted bugs") && text_of.contains("--features mutants"), "{text_of}");
    let mut bundle = Bundle::capture("calm", &draw(Scenario::Calm, 3), 3, never).expect("it fails");
    bundle.planted = Some("duplicate-ack-counted".to_owned());
    fs::write(folder.join("planted.kmb"), bundle.encode()).expect("file");
    for command in ["replay", "show", "minimize"] {
        let refused = vopr(&folder, &[command, "planted.kmb"]);
        assert_eq!(refused.status.code(), Some(5), "{command}");
        let text_of = text(&refused.stderr);
        assert!(text_of.contains("planted bug duplicate-ack-counted"), "{command}: {text_of}");
        assert!(text_of.contains("--features mutants"), "{command}: {text_of}");
    }
}
