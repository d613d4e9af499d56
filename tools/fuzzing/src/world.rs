//! A whole simulated cluster whose decisions are the fuzzer's, under every checker.

use std::time::Duration;

use kimberlite_sim::{Bundle, Failure, FailureKind, Luck, Outcome, Record, Report, RunConfig, Scenario};

use crate::script::Script;

/// Requests of all clients: few, so that an execution takes milliseconds.
const REQUESTS: u32 = 16;

/// The longest first phase.
const SAFETY: Duration = Duration::from_secs(8);

/// Events after which a run is let go: the fuzzer looks for short ones.
const EVENTS: u64 = 60_000;

/// A history: the first byte is the scenario, four are the seed, the rest steers.
struct History {
    scenario: Scenario,
    seed: u64,
    config: RunConfig,
    steering: Vec<u8>,
}

impl History {
    fn of(bytes: &[u8]) -> Self {
        let mut script = Script::new(bytes);
        let scenario = Scenario::ALL[script.below(Scenario::ALL.len())];
        let seed = u64::from(u32::from_le_bytes(std::array::from_fn(|_| script.byte())));
        let config = small(kimberlite_sim::draw(scenario, seed));
        Self { scenario, seed, config, steering: script.rest().to_vec() }
    }

    fn run(&self) -> (Report, Record) {
        kimberlite_sim::run(
            &self.config,
            self.seed,
            Luck::Steered(self.steering.clone()),
            kimberlite_sim::rules,
        )
    }
}

/// The configuration with less to do. What may break stays as it was drawn.
fn small(mut config: RunConfig) -> RunConfig {
    let work = &mut config.work;
    work.clients = work.clients.min(2);
    work.readers = work.readers.min(work.clients - 1);
    work.requests = work.requests.min(REQUESTS);
    work.tenants = work.tenants.min(2);
    work.streams = work.streams.min(2);
    work.records_max = work.records_max.min(8);
    work.record_size_max = work.record_size_max.min(512);
    if let Some(sql) = &mut config.sql {
        sql.clients = sql.clients.min(2);
        sql.statements = sql.statements.min(REQUESTS);
        sql.large_size = sql.large_size.min(512);
    }
    config.safety = config.safety.min(SAFETY);
    config.events_max = EVENTS;
    config.check().expect("less to do is still a run");
    config
}

/// Runs a history. A rule that is broken, a panic and a node that stops are found; a cluster that waits is not:
/// how fast a core converges is for the swarm, whose runs are long enough to tell.
pub(crate) fn run(bytes: &[u8]) {
    let history = History::of(bytes);
    let (report, _) = history.run();
    if let Some(failure) = found(&report.outcome) {
        panic!("a steered history of {}, seed {}: {failure}", history.scenario.name(), history.seed);
    }
}

fn found(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Failed(failure) if failure.kind != FailureKind::Stuck => Some(failure),
        Outcome::Failed(_) | Outcome::Passed | Outcome::Excused(_) => None,
    }
}

/// The failure of a history as a bundle, for `vopr replay`; none if it passes.
pub fn bundle(bytes: &[u8]) -> Option<Bundle> {
    let history = History::of(bytes);
    let (report, record) = history.run();
    found(&report.outcome)?;
    Bundle::of_run(history.scenario.name(), &history.config, history.seed, report, record).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_sim::{rules, run as simulate};

    #[test]
    fn a_steered_history_differs_from_its_seed_and_its_record_repeats_it() {
        let history = History::of(&[0, 3, 0, 0, 0, 20, 1, 40, 200, 90, 1, 200, 255]);
        let (steered, record) = history.run();
        let (free, _) = simulate(&history.config, history.seed, Luck::Free, rules);
        assert_ne!(steered.digest, free.digest);
        let replayed = Luck::Replayed(record.decisions.clone());
        let (again, repeated) = simulate(&history.config, history.seed, replayed, rules);
        assert_eq!(again, steered);
        assert_eq!((repeated.divergence, repeated.checkpoints), (None, record.checkpoints));
    }

    #[test]
    fn what_breaks_a_rule_is_found_and_what_waits_is_not() {
        let failed = |kind| {
            let (place, rule, seen) = ("a".to_owned(), "b".to_owned(), "c".to_owned());
            let at = kimberlite_types::Instant::ZERO;
            Outcome::Failed(Failure { kind, place, rule, seen, replica: None, event: 1, at })
        };
        for kind in [FailureKind::Violation, FailureKind::Panic, FailureKind::Halted] {
            assert!(found(&failed(kind)).is_some());
        }
        assert!(found(&failed(FailureKind::Stuck)).is_none());
        assert!(found(&Outcome::Passed).is_none());
    }
}
