//! A bundle that stays in the tree: what was written once is read, replayed and refused as it should be.
//!
//! A change to the code leads the replay elsewhere; then the first event that differs must be named. A change to the format
//! needs a new file: `KIMBERLITE_GOLDEN=write cargo test -p kimberlite-sim --test golden`.

use std::path::Path;

use kimberlite_sim::{
    Bundle, Checker, End, FormatError, Observation, Outcome, RunConfig, Scenario, Violation, draw,
};
use kimberlite_types::Instant;

/// Where it is, and how it was made.
const FILE: &str = "tests/golden.kmb";
const SEED: u64 = 3;

/// Breaks after a number of observations: a failure that no change to the code repairs.
struct Enough(u64);

impl Checker for Enough {
    fn name(&self) -> &'static str {
        "enough"
    }

    fn rules(&self) -> &'static [&'static str] {
        &["less than six hundred things are seen"]
    }

    fn observe(&mut self, _: Instant, _: &Observation<'_>) -> Result<(), Violation> {
        self.0 += 1;
        if self.0 < 600 {
            return Ok(());
        }
        let (checker, rule) = (self.name().to_owned(), self.rules()[0].to_owned());
        Err(Violation { checker, rule, seen: "enough".to_owned(), replica: None, op: None })
    }

    fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.0
    }
}

fn enough(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    vec![Box::new(Enough(0))]
}

fn golden() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var("KIMBERLITE_GOLDEN").is_ok_and(|wish| wish == "write") {
        let config = draw(Scenario::Storage, SEED);
        let bundle = Bundle::capture("storage", &config, SEED, enough).expect("it fails");
        std::fs::write(&path, bundle.encode()).expect("the file is written");
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_golden_bundle_replays_exactly_or_to_the_first_event_that_differs() {
    let file = golden();
    assert!(file.len() < 50_000, "it is {} bytes", file.len());
    let bundle = Bundle::decode(&file).expect("this build reads it");
    assert_eq!((bundle.scenario.as_str(), bundle.seed, bundle.planted.as_deref()), ("storage", SEED, None));
    assert_eq!((bundle.failure.place.as_str(), bundle.failure.event), ("enough", bundle.events));
    let replayed = bundle.replay(enough);
    if replayed.exact {
        assert_eq!((replayed.report.digest, replayed.report.events), (bundle.digest, bundle.events));
        assert!(replayed.same_failure && replayed.parting.is_none());
    } else {
        let parting = replayed.parting.expect("the first event that differs is named");
        assert!(parting.event >= 1 && parting.event <= bundle.events + 1, "{parting:?}");
        assert!(!replayed.same_build, "the same build does the same");
    }
    // Six hundred things are seen in any run of this length.
    assert!(matches!(replayed.report.outcome, Outcome::Failed(_)), "{:?}", replayed.report.outcome);
}

#[test]
fn the_golden_bundle_in_another_format_is_refused_by_name() {
    for version in [1_u16, 3, 5, u16::MAX] {
        let mut file = golden();
        file[8..10].copy_from_slice(&version.to_le_bytes());
        let refusal = Bundle::decode(&file).expect_err("another format");
        assert!(matches!(&refusal, FormatError::Version { found, .. } if *found == version), "{refusal:?}");
        let (text, writer) = (refusal.to_string(), format!("format {version}, written by Kimberlite 0.1.0"));
        assert!(text.contains(&writer) && text.contains("use the release that wrote it"), "{text}");
    }
}
