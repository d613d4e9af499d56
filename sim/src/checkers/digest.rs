//! The state is what was installed, equal on all replicas, and remembers every reply it must.

use std::collections::BTreeMap;

use kimberlite_kernel::{Kernel, Lookup, StateDigest};
use kimberlite_runtime::{Node, Note};
use kimberlite_store::{Address, Miss, PAGE_SIZE, Page, PageRef, Pages};
use kimberlite_types::{Config, Instant, Op, ReplicaId, RequestNumber};

use super::hold;
use super::model::Model;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "digest";
const WALK: &str = "the digest that is kept equals the digest of the state, item by item";
const NOTED: &str = "the state of a replica is the one noted after its last op";
const REPLIES: &str = "the last reply of every session is kept, and no other session";
const CONVERGED: &str = "healed replicas end at the same op";

/// How a replica's state stands at the end.
struct Standing<'a> {
    replica: ReplicaId,
    kernel: &'a Kernel,
    kept: StateDigest,
    walked: StateDigest,
}

/// Compares the states at the end with each other, with what was noted, and with a model's sessions.
pub struct Digest {
    model: Model,
    executed: Op,
    noted: BTreeMap<Op, StateDigest>,
    compared: u64,
}

impl Digest {
    /// Nothing was executed.
    pub fn new(config: &Config) -> Self {
        let model = Model::new(config.sessions_max);
        Self { model, executed: Op::ZERO, noted: BTreeMap::new(), compared: 0 }
    }

    fn check(&mut self, standing: &Standing<'_>) -> Result<(), Violation> {
        let Standing { replica, kernel, kept, walked } = *standing;
        let op = kernel.applied();
        self.compared += 1;
        hold!(kept == walked, WALK, replica, op, "{replica:?} keeps {kept}; its state is {walked}");
        if let Some(noted) = self.noted.get(&op) {
            hold!(kept == *noted, NOTED, replica, op, "{replica:?} has {kept} at op {op}; noted was {noted}");
        }
        if op != self.executed {
            return Ok(());
        }
        for (session, last) in self.model.sessions() {
            self.compared += 1;
            // Only a request above 0 has a reply to keep; a session that asked nothing must at least exist.
            let (number, expected) = match last.number {
                RequestNumber(0) => (RequestNumber(1), Lookup::New),
                number => (number, Lookup::Duplicate(last.verdict)),
            };
            let found = kernel.reply_of(*session, number);
            hold!(
                found == expected,
                REPLIES,
                replica,
                op,
                "{replica:?} says {found:?} of {number:?} of {session:?}; due is {expected:?}"
            );
        }
        for evicted in self.model.evicted() {
            self.compared += 1;
            let found = kernel.reply_of(*evicted, RequestNumber(1));
            hold!(
                found == Lookup::NoSession,
                REPLIES,
                replica,
                op,
                "{replica:?} says {found:?} of {evicted:?}, which was evicted"
            );
        }
        Ok(())
    }

    fn check_all(&mut self, standings: &[Standing<'_>], core: &[ReplicaId]) -> Result<(), Violation> {
        for standing in standings {
            self.check(standing)?;
            let op = standing.kernel.applied();
            hold!(
                op == self.executed || !core.contains(&standing.replica),
                CONVERGED,
                standing.replica,
                op,
                "{:?} ends at op {op}; op {} was executed",
                standing.replica,
                self.executed
            );
        }
        Ok(())
    }
}

/// The digest of a node's state, item by item. Pages of tables that are not at hand are read from its disk.
fn walk(node: &Node, replica: ReplicaId, end: &End<'_>) -> StateDigest {
    let mut platter = Platter { read: BTreeMap::new(), node };
    loop {
        match node.kernel().digest_walk_with(&platter) {
            Ok(digest) => return digest,
            Err(miss) => {
                for at in miss.pages() {
                    let place = kimberlite_storage::page_place(at.address);
                    let bytes = (end.disk)(replica, place.zone, place.offset, PAGE_SIZE);
                    let page =
                        Page::decode(at, bytes.into()).expect("without damage a disk holds what was written");
                    platter.read.insert(at.address, page);
                }
            }
        }
    }
}

/// Pages at hand, and pages read from the disk.
struct Platter<'a> {
    read: BTreeMap<Address, Page>,
    node: &'a Node,
}

impl Pages for Platter<'_> {
    fn page(&self, at: PageRef) -> Result<&Page, Miss> {
        match self.read.get(&at.address) {
            Some(page) => Ok(page),
            None => self.node.storage().page(&at).ok_or_else(|| Miss::of(at)),
        }
    }
}

impl Checker for Digest {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[WALK, NOTED, REPLIES, CONVERGED]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        let Observation::Note { note: Note::Committed { prepare, digest, .. }, .. } = seen else {
            return Ok(());
        };
        let op = prepare.header.op;
        if op == self.executed.next() {
            for entry in prepare.entries().flatten() {
                self.model.apply(&entry);
            }
            self.noted.insert(op, *digest);
            self.executed = op;
        }
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        let standings: Vec<Standing<'_>> = end
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(replica, node)| {
                let (replica, node) = (ReplicaId(replica as u8), (*node)?);
                let kernel = node.kernel();
                let (kept, walked) = (kernel.digest(), walk(node, replica, end));
                Some(Standing { replica, kernel, kept, walked })
            })
            .collect();
        self.check_all(&standings, &end.core)
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use kimberlite_types::{LogPosition, SessionId};

    fn fresh(history: &History) -> Digest {
        let mut checker = Digest::new(&history.config);
        history.play(&mut checker).unwrap();
        checker
    }

    fn standing(kernel: &Kernel) -> Standing<'_> {
        let replica = ReplicaId(1);
        Standing { replica, kernel, kept: kernel.digest(), walked: kernel.digest_walk() }
    }

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Digest::new(&config(3)))
    }

    /// A history with an idle session, an eviction, and sessions that asked.
    fn history() -> History {
        let mut history = History::small(3);
        for _ in 0..4 {
            history.session();
        }
        history
    }

    #[test]
    fn the_state_that_was_noted_passes() {
        let history = history();
        let mut checker = fresh(&history);
        checker.check_all(&[standing(&history.kernel)], &[ReplicaId(1)]).unwrap();
        assert_eq!(checker.compared(), 1 + 4 + 1);
    }

    #[test]
    fn a_digest_that_is_not_that_of_the_state_is_noticed() {
        let history = history();
        let mut lost = standing(&history.kernel);
        lost.walked.0[3] ^= 1;
        assert_broken(&rules(), fresh(&history).check(&lost), WALK);
        let mut other = standing(&history.kernel);
        other.kept.0[3] ^= 1;
        other.walked = other.kept;
        assert_broken(&rules(), fresh(&history).check(&other), NOTED);
    }

    #[test]
    fn a_reply_or_an_eviction_that_was_forgotten_is_noticed() {
        let small = History::small(3);
        let session = SessionId(LogPosition { op: Op(1), index: 0 });
        // The same ops without their commands: the session never asked anything.
        let mut silent = History::new(3);
        silent.session();
        for _ in 2..=4 {
            silent.op(&[]);
        }
        assert_eq!(silent.kernel.reply_of(session, RequestNumber(5)), Lookup::New);
        let mut checker = fresh(&small);
        checker.noted.clear();
        assert_broken(&rules(), checker.check(&standing(&silent.kernel)), REPLIES);

        let evicting = history();
        let mut keeping = Kernel::new(99);
        for op in 1..=evicting.ops() {
            keeping.apply(evicting.prepare(op));
        }
        let mut checker = fresh(&evicting);
        checker.noted.clear();
        assert_broken(&rules(), checker.check(&standing(&keeping)), REPLIES);
    }

    #[test]
    fn a_healed_node_that_lags_is_noticed_and_one_outside_the_core_is_not() {
        let history = history();
        let node = Node::new(history.config, &[1; 32], 1);
        let disk = |_, _, _, len| vec![0; len];
        let seen = |_, _, _, len| Some(vec![0; len]);
        let end = |core| End {
            config: history.config,
            nodes: vec![Some(&node), None, None],
            held: vec![],
            disk: &disk,
            seen: &seen,
            core,
        };
        let mut checker = fresh(&history);
        checker.finish(&end(vec![])).unwrap();
        assert_eq!(checker.compared(), 1);
        assert_broken(&rules(), checker.finish(&end(vec![ReplicaId(0)])), CONVERGED);
    }
}
