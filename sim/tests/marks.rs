//! Marks, cells and the contract of a scenario, in whole runs.

use kimberlite_sim::{
    Cell, Checker, End, Evidence, Failure, FailureKind, Fault, Luck, Observation, Outcome, Report, RunConfig,
    Scenario, State, Violation, What, draw, mark, rules, run,
};
use kimberlite_types::Instant;

fn report_of(scenario: Scenario, seed: u64) -> Report {
    run(&draw(scenario, seed), seed, Luck::Free, rules).0
}

fn evidence_of(scenario: Scenario, seeds: u64) -> Evidence {
    let mut evidence = Evidence::default();
    for seed in 0..seeds {
        evidence.add(&report_of(scenario, seed));
    }
    evidence
}

#[test]
fn a_calm_swarm_is_vacuous_under_the_contract_of_one_that_breaks_everything() {
    let evidence = evidence_of(Scenario::Calm, 6);
    let missing = Scenario::Default.contract().missing(&evidence);
    let is_missing =
        |what: What, name: &str| missing.iter().any(|missing| missing.what == what && missing.name == name);
    assert!(is_missing(What::Count, "crashes"));
    assert!(is_missing(What::Mark, "open.keep") && is_missing(What::Mark, "view_change.primary_resigns"));
    let crash = Cell { fault: Fault::Crash, state: State::Primary };
    assert!(is_missing(What::Cell, &crash.name()));
    // What a calm cluster does show is not missing.
    assert!(!is_missing(What::Mark, "normal.commit_learnt") && !is_missing(What::Mark, "journal.seals"));
}

#[test]
fn few_crashing_seeds_hit_replicas_doing_all_kinds_of_things() {
    let evidence = evidence_of(Scenario::Crashes, 10);
    for state in [State::Opening, State::ViewChange, State::Primary, State::Backup, State::InFlight] {
        let name = Cell { fault: Fault::Crash, state }.name();
        assert!(evidence.cells.contains_key(&name), "{name}: {:?}", evidence.cells);
    }
    // A process that is down does not die, and formatting a disk counts for nothing.
    let down = Cell { fault: Fault::Crash, state: State::Down };
    assert!(!evidence.cells.contains_key(&down.name()));
}

#[test]
fn every_name_a_contract_asks_for_exists() {
    let counted: Vec<&str> = kimberlite_sim::Counts::default().iter().map(|(name, _)| name).collect();
    for scenario in Scenario::ALL {
        let contract = scenario.contract();
        assert!(!contract.counts.is_empty());
        for (name, least) in contract.counts {
            assert!(counted.contains(name) && *least > 0, "{}: {name}", scenario.name());
        }
        for name in contract.marks() {
            let mark = mark::named(name).unwrap_or_else(|| panic!("{}: no mark {name}", scenario.name()));
            // What is rare in `default` may be asked of a scenario that is about it.
            assert!(mark.kind.is_to_be_reached(), "{name} cannot be asked for");
        }
    }
}

/// Does something odd when the hundredth thing happens.
struct Odd {
    seen: u64,
    does: fn(),
}

impl Checker for Odd {
    fn name(&self) -> &'static str {
        "odd"
    }

    fn rules(&self) -> &'static [&'static str] {
        &[]
    }

    fn observe(&mut self, _: Instant, _: &Observation<'_>) -> Result<(), Violation> {
        self.seen += 1;
        if self.seen == 100 {
            (self.does)();
        }
        Ok(())
    }

    fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.seen
    }
}

fn breaks_a_mark(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    vec![Box::new(Odd { seen: 0, does: || kimberlite_probe::unreachable!("merge.voters_contradict") })]
}

fn breaks_a_mark_and_panics(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    let does = || {
        kimberlite_probe::always!("reads.see_inherited", false);
        panic!("what follows from it");
    };
    vec![Box::new(Odd { seen: 0, does })]
}

fn panics(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    vec![Box::new(Odd { seen: 0, does: || panic!("a world that panics") })]
}

fn failure_under(rules: kimberlite_sim::Rules) -> Failure {
    let (report, _) = run(&draw(Scenario::Calm, 1), 1, Luck::Free, rules);
    match report.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("it fails: {other:?}"),
    }
}

#[test]
fn a_broken_mark_fails_the_run_and_is_named() {
    let failure = failure_under(breaks_a_mark);
    assert_eq!((failure.kind, failure.place.as_str()), (FailureKind::Violation, "mark"));
    assert!(failure.rule.starts_with("unreachable merge.voters_contradict: "), "{failure}");
    assert!(failure.event > 0);
    let failure = failure_under(breaks_a_mark_and_panics);
    assert!(failure.rule.starts_with("always reads.see_inherited: "), "{failure}");
}

#[test]
fn a_world_that_panics_leaves_no_counts_to_the_next() {
    let fresh = std::thread::spawn(|| report_of(Scenario::Calm, 2)).join().expect("it runs");
    assert_eq!(failure_under(panics).kind, FailureKind::Panic);
    let after = report_of(Scenario::Calm, 2);
    assert_eq!(after.marks, fresh.marks);
    assert_eq!(after, fresh);
}

#[test]
fn a_core_that_is_stuck_says_what_each_replica_waits_for() {
    // A core that is given no time converges in no time, or says what it waits for.
    let explained = (0..40).find_map(|seed| {
        let mut config = draw(Scenario::Crashes, seed);
        config.liveness = std::time::Duration::from_nanos(1);
        match run(&config, seed, Luck::Free, rules).0.outcome {
            Outcome::Failed(failure) if failure.seen.contains(" waits for ") => Some(failure),
            _ => None,
        }
    });
    let failure = explained.expect("one of them was in the middle of something");
    assert_eq!(failure.kind, FailureKind::Stuck);
}
