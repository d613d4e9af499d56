//! Tables are a view of the log: the committed log, replayed from zero, gives the state that every replica has.

use kimberlite_kernel::{Kernel, StateDigest};
use kimberlite_runtime::Note;
use kimberlite_types::{Config, Instant, Op, ReplicaId};
use kimberlite_wire::Prepare;

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "projection";
const REPLAYED: &str = "the committed log, replayed from zero, gives the state that replicas have";

/// Replays the committed log beside the replicas.
pub struct Projection {
    kernel: Kernel,
    digests: Vec<StateDigest>,
    compared: u64,
}

impl Projection {
    /// An empty log.
    pub fn new(config: &Config) -> Self {
        Self { kernel: Kernel::new(config.sessions_max), digests: Vec::new(), compared: 0 }
    }

    fn on_committed(
        &mut self,
        replica: ReplicaId,
        prepare: &Prepare,
        digest: StateDigest,
    ) -> Result<(), Violation> {
        let op = prepare.header.op;
        // That ops are executed in order, one prepare for each, is for others to say.
        let chains = prepare
            .entries()
            .next()
            .is_none_or(|entry| entry.is_ok_and(|entry| entry.header.previous == self.kernel.chain()));
        if op == self.kernel.applied().next() && chains && prepare.entries().all(|entry| entry.is_ok()) {
            let _verdicts = self.kernel.apply(prepare);
            self.digests.push(self.kernel.digest());
        }
        self.check(replica, op, digest)
    }

    fn check(&mut self, replica: ReplicaId, op: Op, digest: StateDigest) -> Result<(), Violation> {
        let Some(replayed) = op.0.checked_sub(1).and_then(|at| self.digests.get(at as usize)) else {
            return Ok(());
        };
        self.compared += 1;
        hold!(
            *replayed == digest,
            REPLAYED,
            replica,
            op,
            "{replica:?} has {digest} at op {op}; the log gives {replayed}"
        );
        Ok(())
    }
}

impl Checker for Projection {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[REPLAYED]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Note { replica, note: Note::Committed { prepare, digest, .. } } => {
                self.on_committed(*replica, prepare, *digest)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        for (replica, node) in (0..).map(ReplicaId).zip(&end.nodes) {
            let Some(kernel) = node.map(kimberlite_runtime::Node::kernel) else { continue };
            // That it is the digest of the state, item by item, is held by another checker.
            self.check(replica, kernel.applied(), kernel.digest())?;
        }
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;

    #[test]
    fn a_state_that_does_not_follow_from_the_log_is_noticed() {
        let history = History::small(3);
        let rules = checker_rules(&Projection::new(&history.config));
        let mut checker = Projection::new(&history.config);
        history.play(&mut checker).unwrap();
        assert!(checker.compared() > 0);
        let Note::Committed { prepare, applied, .. } = history.committed(4) else { unreachable!() };
        let Note::Committed { digest, .. } = history.committed(3) else { unreachable!() };
        let stale = Note::Committed { prepare, applied, digest };
        assert_broken(&rules, noted(&mut checker, 1, &stale), REPLAYED);
    }
}
