//! VOPR: the experiment on the simulated world. Policy: what is run, what breaks, what must hold.
//!
//! A seed becomes a [`RunConfig`] ([`draw`]), the configuration becomes a run of real nodes and real clients
//! in a world that breaks ([`run`](run::run)), and a failure becomes a [`Bundle`] that replays it.
//!
//! | module | holds |
//! |---|---|
//! | `scenario` | named experiments |
//! | `swarm`, `config` | from a seed to everything that distinguishes a run |
//! | `cluster` | nodes, clients and disks in a world |
//! | `workload` | what clients ask |
//! | [`sql`] | what clients say that speak SQL |
//! | `faults` | what breaks, when, and when it ends |
//! | `plots` | several faults in a row that fit together |
//! | `liveness` | the second phase: a healed core must converge |
//! | `crash_at` | short stories with the power cut at every ask |
//! | `run` | the loop, the checkers' view of it, the report |
//! | [`checkers`] | what must hold |
//! | `choice` | what of a run could have been left out |
//! | `trail` | every event of a run in a few bytes |
//! | `cells` | which faults hit replicas doing what |
//! | `contract` | what a swarm must have seen, or its green shows nothing |
//! | `bundle` | a failure as a file |
//! | `minimize` | a failure with less around it |
//! | `planted` | runs with a planted bug |
//! | `flight` | a recording of a production node, lived again |
//!
//! # What it promises
//!
//! - The same configuration and seed give the same run, whatever else runs beside it.
//! - Checkers never draw luck and never change a run.
//! - A run that was excused is never counted as passed, and one in which nothing happened shows as such.
#![forbid(unsafe_code)]

mod bundle;
mod cells;
mod census;
mod checker;
pub mod checkers;
mod choice;
mod cluster;
mod config;
mod contract;
mod crash_at;
mod failure;
mod faults;
mod flight;
mod liveness;
mod minimize;
mod planted;
mod plots;
mod run;
mod scenario;
pub mod sql;
mod swarm;
mod trail;
mod workload;

pub use bundle::{Bundle, Replayed};
pub use cells::{Cell, Cells, State};
pub use census::Counts;
pub use checker::{Checker, End, Observation, Sample, Violation};
pub use choice::{Choice, Chosen, without};
pub use config::{CLUSTER, ConfigFault, Every, Family, FaultPlan, Plot, RunConfig, WorkPlan};
pub use contract::{Contract, Evidence, Marks, Missing, Sum, What};
pub use crash_at::{CrashPoint, Outage, Story, asks_of, crash_at, crash_points, told};
pub use failure::{Failure, FailureKind, Fingerprint, without_numbers};
pub use flight::{FlightParting, Relived, relive};
pub use kimberlite_bundle::{
    Ended, FILE_SIZE_MAX, FormatError, HEAD_SIZE, Head, Identity, Kind, Opening, ReadError, Reader, Tail,
};
pub use kimberlite_io_sim::Fault;
pub use kimberlite_probe::{Mutant, mark};
pub use minimize::{Minimized, Size, minimize};
#[cfg(feature = "mutants")]
pub use planted::run_planted;
pub use planted::{HOLDS_MUTANTS, run_with};
pub use run::{CHECKPOINT_EVENTS, Checkpoint, Luck, Outcome, Record, Report, Rules, run};
pub use scenario::Scenario;
pub use swarm::draw;
pub use trail::{Parting, Seen, Trail};
pub use workload::record_author;

pub use kimberlite_io_sim::Keep;
use kimberlite_types::ReplicaId;

/// The rules of every scenario: all [`checkers`].
pub fn rules(config: &RunConfig) -> Vec<Box<dyn Checker>> {
    checkers::all(&config.config(ReplicaId(0)))
}

include!(concat!(env!("OUT_DIR"), "/rules_broken_by.rs"));

/// The tests in which a broken history breaks this rule of this checker.
pub fn broken_by(checker: &str, rule: &str) -> &'static [&'static str] {
    let row = RULES_BROKEN_BY.iter().find(|(owner, text, _)| *owner == checker && *text == rule);
    row.map_or(&[], |(_, _, tests)| tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_every_checker_is_broken_by_a_test() {
        for checker in rules(&draw(Scenario::Default, 0)) {
            for rule in checker.rules() {
                let tests = broken_by(checker.name(), rule);
                assert!(!tests.is_empty(), "{}: {rule}: no test names its constant", checker.name());
            }
        }
        assert!(broken_by("prefix", "no such rule").is_empty());
    }
}
