//! The rules a run is held against, one family to a file.
//!
//! | checker | holds |
//! |---|---|
//! | [`Agreement`] | one prepare, one chain hash, one state and one verdict per entry for each op |
//! | [`Prefix`] | each life of a replica executes 1, 2, 3, … once, each op the child of the one before |
//! | [`Chain`] | entries chain from the genesis on, times increase, prepares stand where they must |
//! | [`Durability`] | nothing is acknowledged before a quorum holds it, and nothing acknowledged is lost |
//! | [`ExactlyOnce`] | commands take effect once, and every verdict is what an independent model says |
//! | [`Views`] | views never go back, and each has one primary that never comes back from the dead |
//! | [`Promises`] | what a replica said to be durable it finds again at a restart, or knows that it lost it |
//! | [`Linearizability`] | answers show one moment between question and answer |
//! | [`Blackbox`] | the same, from what clients asked and heard alone, by search |
//! | [`Sessions`] | a session is one client's, and its end is told |
//! | [`Healing`] | once nothing breaks any more, views and repairs come to an end |
//! | [`Ring`] | the header ring agrees with the log |
//! | [`LogBytes`] | committed logs are the same bytes on every healed replica |
//! | [`Digest`] | the state is what was installed, the same everywhere, and replies are kept |
//! | [`Halts`] | a failed write stops its replica |
//! | [`Resources`] | what is held stays within limits, and is given back |
//! | [`Projection`] | the log replayed from zero gives the state that replicas have |
//! | [`Tables`] | tables are what the facts of the log say, and facts keep their guards |
//! | [`Isolation`] | transactions are strictly serializable, from what clients wrote and read alone |
//! | [`Counters`] | each addition to a number counts once |
//! | [`Answers`] | queries answer what a second evaluation says, of the past and of the present |
//!
//! They are written from the documented rules, not from the code they judge: `model` decides
//! every entry a second time, and nothing here calls consensus or the journal. All of them cost a few
//! hashes per op and keep hashes rather than payloads.
//!
//! The rules at the end (`finish`) assume a run whose liveness phase converged and then came to rest.

mod agreement;
mod answers;
mod blackbox;
mod chain;
mod checkpoints;
mod counters;
mod digest;
mod durability;
mod exactly_once;
mod facts;
mod halts;
mod healing;
mod isolation;
mod linearizability;
mod log_bytes;
mod model;
mod prefix;
mod projection;
mod promises;
mod resources;
mod ring;
mod sessions;
#[cfg(test)]
mod support;
mod tables;
mod transactions;
mod views;

use std::collections::BTreeMap;

use kimberlite_runtime::Note;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{Config, Op, ReplicaId};
use kimberlite_wire::PrepareHeader;

pub use agreement::Agreement;
pub use answers::Answers;
pub use blackbox::Blackbox;
pub use chain::Chain;
pub use checkpoints::Checkpoints;
pub use counters::Counters;
pub use digest::Digest;
pub use durability::Durability;
pub use exactly_once::ExactlyOnce;
pub use halts::Halts;
pub use healing::Healing;
pub use isolation::Isolation;
pub use linearizability::Linearizability;
pub use log_bytes::LogBytes;
pub use prefix::Prefix;
pub use projection::Projection;
pub use promises::Promises;
pub use resources::Resources;
pub use ring::Ring;
pub use sessions::Sessions;
pub use tables::Tables;
pub use views::Views;

use crate::{Checker, Observation, Violation};

/// All checkers, for a cluster that runs with `config` (the replica it names does not matter).
pub fn all(config: &Config) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(Agreement::default()),
        Box::new(Prefix::new(config)),
        Box::new(Chain::new(config)),
        Box::new(Durability::new(config)),
        Box::new(ExactlyOnce::new(config)),
        Box::new(Views::new(config)),
        Box::new(Promises::default()),
        Box::new(Linearizability::default()),
        Box::new(Blackbox::default()),
        Box::new(Sessions::new(config)),
        Box::new(Healing::new(config.timing.view_change)),
        Box::new(Ring::default()),
        Box::new(LogBytes::default()),
        Box::new(Digest::new(config)),
        Box::new(Checkpoints::default()),
        Box::new(Halts::default()),
        Box::new(Resources::default()),
        Box::new(Projection::new(config)),
        Box::new(Tables::default()),
        Box::new(Isolation::default()),
        Box::new(Counters::default()),
        Box::new(Answers::default()),
    ]
}

/// Says that `rule` of `checker` did not hold.
fn broken(
    checker: &str,
    rule: &str,
    replica: impl Into<Option<ReplicaId>>,
    op: impl Into<Option<Op>>,
    seen: String,
) -> Violation {
    Violation {
        checker: checker.to_owned(),
        rule: rule.to_owned(),
        seen,
        replica: replica.into(),
        op: op.into(),
    }
}

/// Returns a violation unless the condition holds; the words are put together only then.
macro_rules! hold {
    ($holds:expr, $rule:expr, $replica:expr, $op:expr, $($seen:tt)+) => {
        if !$holds {
            return Err($crate::checkers::broken(NAME, $rule, $replica, $op, format!($($seen)+)));
        }
    };
}
use hold;

/// What each replica has executed in its present life. A replica that is down keeps its last word.
#[derive(Debug, Default)]
struct Lives {
    executed: [Op; REPLICAS_MAX],
}

impl Lives {
    fn observe(&mut self, seen: &Observation<'_>) {
        match seen {
            Observation::Started { replica } => self.executed[usize::from(replica.0)] = Op::ZERO,
            Observation::Note { replica, note: Note::Restored { op, .. } } => {
                self.executed[usize::from(replica.0)] = *op;
            }
            Observation::Note { replica, note: Note::Rebuilds { .. } } => {
                self.executed[usize::from(replica.0)] = Op::ZERO;
            }
            Observation::Note { replica, note: Note::Committed { prepare, .. } } => {
                self.executed[usize::from(replica.0)] = prepare.header.op;
            }
            _ => {}
        }
    }

    fn executed(&self, replica: ReplicaId) -> Op {
        self.executed[usize::from(replica.0)]
    }
}

/// The committed log as the first replica to execute each op showed it: headers only. Each names its body
/// by a hash.
#[derive(Debug, Default)]
struct Canon {
    headers: BTreeMap<Op, PrepareHeader>,
}

impl Canon {
    fn observe(&mut self, seen: &Observation<'_>) {
        if let Observation::Note { note: Note::Committed { prepare, .. }, .. } = seen {
            self.headers.entry(prepare.header.op).or_insert(prepare.header);
        }
    }

    fn up_to(&self, op: Op) -> impl DoubleEndedIterator<Item = &PrepareHeader> {
        self.headers.range(..=op).map(|(_, header)| header)
    }
}

#[cfg(test)]
mod tests {
    use super::support::*;
    use crate::{End, Observation};
    use std::collections::BTreeSet;

    #[test]
    fn checkers_and_their_rules_have_names_of_their_own() {
        let all = super::all(&config(3));
        let names: BTreeSet<_> = all.iter().map(|checker| checker.name()).collect();
        assert_eq!(names.len(), 22);
        for checker in &all {
            let rules: BTreeSet<_> = checker.rules().iter().collect();
            assert!(!rules.is_empty() && rules.len() == checker.rules().len(), "{}", checker.name());
            assert_eq!(checker.compared(), 0, "{} has seen nothing yet", checker.name());
        }
    }

    #[test]
    fn a_run_without_fault_passes_every_checker() {
        let mut history = History::small(3);
        for number in 6..200 {
            let session = kimberlite_types::SessionId(history.verdict(1, 0).position);
            history.op(&[append(session, number, None, &[&number.to_le_bytes()])]);
        }
        let disks = Disks::of(&history);
        let disk = |replica, zone, at, len| disks.read(replica, zone, at, len);
        for mut checker in super::all(&history.config) {
            let name = checker.name();
            let checker = &mut *checker;
            submit_all(checker, &history).unwrap();
            history.play(checker).unwrap();
            let session = kimberlite_types::SessionId(history.verdict(1, 0).position);
            observe(checker, &Observation::Registered { client: 0, session }).unwrap();
            for op in 2..=history.ops() {
                done(checker, op, 0, history.verdict(op, 0)).unwrap();
            }
            // No node is at hand: what is asked of healed nodes is tested beside each checker.
            checker
                .finish(&End {
                    config: history.config,
                    nodes: vec![None; 3],
                    held: vec![],
                    disk: &disk,
                    seen: &|replica, zone, at, len| Some(disk(replica, zone, at, len)),
                    core: vec![],
                })
                .unwrap();
            let unused =
                ["views", "promises", "halts", "healing", "log_bytes", "digest", "checkpoints", "resources"];
            let unused = [&unused[..], &["tables", "isolation", "counters", "answers"]].concat();
            assert_eq!(checker.compared() > 0, !unused.contains(&name), "{name}");
        }
    }
}
