//! A failure is made smaller and stays the same failure.

use kimberlite_runtime::Note;
use kimberlite_sim::{Bundle, Checker, End, Observation, RunConfig, Scenario, Violation, draw, minimize};
use kimberlite_types::{Instant, View};

/// Holds a rule that a cluster breaks when its first primary is lost for a moment: nothing else about a run matters.
struct NoSecondView {
    seen: u64,
}

impl Checker for NoSecondView {
    fn name(&self) -> &'static str {
        "no second view"
    }

    fn rules(&self) -> &'static [&'static str] {
        &["the view never changes"]
    }

    fn observe(&mut self, _: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        self.seen += 1;
        match seen {
            Observation::Note { replica, note: Note::Opened { view, .. } } if *view > View(0) => {
                Err(Violation {
                    checker: self.name().to_owned(),
                    rule: self.rules()[0].to_owned(),
                    seen: format!("replica {replica} opens in {view:?}"),
                    replica: Some(*replica),
                    op: None,
                })
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.seen
    }
}

fn no_second_view(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    vec![Box::new(NoSecondView { seen: 0 })]
}

/// A failure of a run in which much breaks.
fn bundle() -> Bundle {
    (0..50)
        .find_map(|seed| {
            let config = draw(Scenario::Crashes, seed);
            let busy = config.replicas >= 3 && config.faults.families.len() >= 2;
            let bundle = busy.then(|| Bundle::capture("crashes", &config, seed, no_second_view).ok())??;
            (bundle.events > 5_000).then_some(bundle)
        })
        .expect("views change where replicas crash")
}

#[test]
fn a_failure_becomes_smaller_keeps_its_fingerprint_and_replays_exactly() {
    let bundle = bundle();
    let mut runs = 0;
    let mut budget = |_: &_| {
        runs += 1;
        runs < 400
    };
    let smaller = minimize(&bundle, no_second_view, &mut budget).expect("it fails again");
    let (before, after) = (smaller.before, smaller.after);
    assert_eq!(smaller.bundle.failure.fingerprint(), bundle.failure.fingerprint());
    assert!(after.events < before.events / 2, "{before}\n{after}");
    assert!(after.strikes <= before.strikes && after.strikes <= 3, "{before}\n{after}");
    assert!(after.rate_faults <= before.rate_faults && after.requests < before.requests, "{before}\n{after}");
    assert!(smaller.kept > 0 && smaller.tried >= smaller.kept);
    // The result is a bundle like any other: through its file it leads to the same failure, exactly.
    let read = Bundle::decode(&smaller.bundle.encode()).expect("our own bundles decode");
    let replayed = read.replay(no_second_view);
    assert!(replayed.exact && replayed.same_failure, "{:?}", replayed.parting);
    assert_eq!(read.origin, Some(before.to_string()));
}

#[test]
fn what_does_not_fail_is_not_minimized_and_no_time_changes_nothing() {
    let bundle = bundle();
    assert!(minimize(&bundle, |_| Vec::new(), &mut |_| true).is_err());
    let same = minimize(&bundle, no_second_view, &mut |_| false).expect("it fails again");
    assert_eq!((same.tried, same.before, same.complete), (0, same.after, false));
    assert_eq!(same.bundle.decisions, bundle.decisions);
}
