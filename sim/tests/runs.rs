//! Whole runs: what they show, that they repeat, and that their failures can be kept.

use kimberlite_sim::{
    Bundle, Checker, Counts, End, FailureKind, FormatError, Luck, Observation, Outcome, Report, RunConfig,
    Scenario, Violation, draw, rules, run,
};
use kimberlite_types::Instant;

fn report_of(scenario: Scenario, seed: u64) -> Report {
    run(&draw(scenario, seed), seed, Luck::Free, rules).0
}

#[test]
fn a_calm_run_passes_commits_every_request_and_compares_it() {
    for seed in 0..4 {
        let config = draw(Scenario::Calm, seed);
        let report = report_of(Scenario::Calm, seed);
        assert_eq!(report.outcome, Outcome::Passed, "seed {seed}");
        let Counts { requests_done, queries_answered, requests_failed, ops_committed, .. } = report.counts;
        let probes = u64::from(config.work.clients);
        let asked = requests_done + queries_answered + requests_failed;
        assert!(
            (u64::from(config.work.requests)..=u64::from(config.work.requests) + probes).contains(&asked)
        );
        assert!(ops_committed > 0 && report.compared.iter().any(|(_, compared)| *compared > 0));
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    for scenario in Scenario::ALL {
        let first = report_of(scenario, 3);
        assert_eq!(first, report_of(scenario, 3), "{}", scenario.name());
        assert_ne!(first.digest, report_of(scenario, 4).digest);
    }
}

#[test]
fn recording_and_replaying_do_not_change_a_run() {
    let config = draw(Scenario::Default, 5);
    let (free, _) = run(&config, 5, Luck::Free, rules);
    let (recorded, record) = run(&config, 5, Luck::Recorded, rules);
    assert_eq!(free, recorded);
    assert!(record.decisions.size() > 0 && !record.checkpoints.is_empty());
    let (replayed, again) = run(&config, 5, Luck::Replayed(record.decisions.clone()), rules);
    assert_eq!(replayed, free);
    assert_eq!(again.divergence, None);
    assert_eq!(again.checkpoints, record.checkpoints);
}

/// Is broken by the hundredth thing that happens.
struct Brittle {
    seen: u64,
    panics: bool,
}

impl Checker for Brittle {
    fn name(&self) -> &'static str {
        "brittle"
    }

    fn rules(&self) -> &'static [&'static str] {
        &["little happens"]
    }

    fn observe(&mut self, _: Instant, _: &Observation<'_>) -> Result<(), Violation> {
        self.seen += 1;
        if self.seen < 100 {
            return Ok(());
        }
        assert!(!self.panics, "100 things happened");
        Err(Violation {
            checker: self.name().to_owned(),
            rule: self.rules()[0].to_owned(),
            seen: format!("{} things happened", self.seen),
            replica: None,
            op: None,
        })
    }

    fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.seen
    }
}

fn brittle(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    vec![Box::new(Brittle { seen: 0, panics: false })]
}

fn panicking(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    vec![Box::new(Brittle { seen: 0, panics: true })]
}

fn bundle() -> Bundle {
    Bundle::capture("default", &draw(Scenario::Default, 7), 7, brittle).expect("it fails")
}

#[test]
fn a_bundle_replays_to_the_failure_it_was_made_of() {
    let bundle = bundle();
    assert_eq!(bundle.failure.kind, FailureKind::Violation);
    let read = Bundle::decode(&bundle.encode()).expect("our own bundles decode");
    assert_eq!(read, bundle);
    let replayed = read.replay(brittle);
    assert!(replayed.exact && replayed.same_failure, "{:?}", replayed.report.outcome);
    assert_eq!(replayed.identity, []);
    // Under rules that hold, the same decisions lead further, and that is told.
    let healed = read.replay(|_| Vec::new());
    assert!(!healed.exact && !healed.same_failure);
}

#[test]
fn a_panic_is_a_failure_like_any_other() {
    let config = draw(Scenario::Calm, 7);
    let bundle = Bundle::capture("calm", &config, 7, panicking).expect("it fails");
    assert_eq!(bundle.failure.kind, FailureKind::Panic);
    assert_eq!(bundle.failure.rule, "# things happened");
    assert!(bundle.decisions.size() > 0, "the record up to the panic is kept");
    assert!(bundle.replay(panicking).exact);
}

#[test]
fn other_decisions_are_noticed_and_told() {
    let mut bundle = bundle();
    let (concern, key, _) =
        bundle.decisions.lanes().max_by_key(|(_, _, length)| *length).expect("there are decisions");
    let mut decisions = bundle.decisions.decisions(concern, key);
    decisions[0] ^= 1;
    bundle.decisions.set(concern, key, decisions);
    let replayed = bundle.replay(brittle);
    assert!(!replayed.exact);
    // And the first event that differs is named.
    let parting = replayed.parting.expect("the runs part");
    assert!(parting.event <= bundle.events && !parting.what.is_empty(), "{parting:?}");
}

#[test]
fn a_damaged_or_cut_bundle_is_refused_with_a_reason() {
    let file = bundle().encode();
    for at in (0..file.len()).filter(|at| *at < 200 || at % 97 == 0) {
        for bit in [0, 3, 7] {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(Bundle::decode(&damaged).is_err(), "byte {at}");
        }
    }
    for len in (0..file.len()).filter(|len| *len < 200 || len % 97 == 0) {
        assert!(Bundle::decode(&file[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(Bundle::decode(b""), Err(FormatError::Magic));
    assert_eq!(Bundle::decode(&file[..96]), Err(FormatError::Size));
    let mut newer = file.clone();
    newer[8] = 9;
    assert!(matches!(Bundle::decode(&newer), Err(FormatError::Version { found: 9, .. })));
    let mut longer = file;
    longer.push(0);
    assert_eq!(Bundle::decode(&longer), Err(FormatError::Size));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_before_it_runs() {
    let mut bundle = bundle();
    let sound = bundle.config.clone();
    bundle.config.replicas = 9;
    assert!(matches!(Bundle::decode(&bundle.encode()), Err(FormatError::Sense(_))));
    bundle.config = sound;
    bundle.config.sessions_max = u32::MAX;
    assert!(matches!(Bundle::decode(&bundle.encode()), Err(FormatError::Sense(_))));
}

#[test]
fn a_small_swarm_is_green_and_much_happens_in_it() {
    let mut sum = Counts::default();
    for (scenario, seeds) in
        [(Scenario::Crashes, 0..12), (Scenario::Network, 0..12), (Scenario::Storage, 0..12)]
    {
        for seed in seeds {
            let report = report_of(scenario, seed);
            assert!(
                !matches!(report.outcome, Outcome::Failed(_)),
                "{} {seed}: {:?}",
                scenario.name(),
                report.outcome
            );
            sum.add(&report.counts);
        }
    }
    let Counts { crashes, view_changes, partitions, storage_faults, repairs, segments_sealed, .. } = sum;
    for count in [crashes, view_changes, partitions, storage_faults, repairs, segments_sealed] {
        assert!(count > 0, "{sum:?}");
    }
}
