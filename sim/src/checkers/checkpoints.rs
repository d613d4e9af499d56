//! Checkpoints: the same bytes on every replica, the state that was there, and lost by damage alone.

use std::collections::BTreeMap;

use kimberlite_crypto::Checksum;
use kimberlite_kernel::StateDigest;
use kimberlite_runtime::{Node, Note};
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{Instant, Op, ReplicaId};

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "checkpoints";
const BYTES: &str = "replicas that take a checkpoint after the same op write the same bytes";
const STATE: &str = "a state opened from a checkpoint is the one noted after its op";
const LOST: &str = "a checkpoint is lost only on a disk that did damage to the grid";
const ENDS: &str = "a page that peers are asked for comes, is given up, or is needed no more";

/// Remembers states, and what covers the pages of each checkpoint.
#[derive(Default)]
pub struct Checkpoints {
    states: BTreeMap<Op, StateDigest>,
    roots: BTreeMap<Op, Checksum>,
    /// Whose disk ever did damage to pages, beyond what a power cut does to writes in flight.
    harmed: [bool; REPLICAS_MAX],
    /// Whose pages ever came from peers.
    mended: [bool; REPLICAS_MAX],
    compared: u64,
}

impl Checkpoints {
    /// What healed replicas still ask their peers for, at the end.
    fn check_ends(&mut self, asked: impl Iterator<Item = (ReplicaId, usize)>) -> Result<(), Violation> {
        for (replica, pages) in asked {
            self.compared += u64::from(self.mended[usize::from(replica.0)]);
            hold!(pages == 0, ENDS, replica, None, "{replica:?} still asks its peers for {pages} pages");
        }
        Ok(())
    }
}

impl Checker for Checkpoints {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[BYTES, STATE, LOST, ENDS]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        let (replica, note) = match seen {
            Observation::GridHarmed { replica } => {
                self.harmed[usize::from(replica.0)] = true;
                return Ok(());
            }
            Observation::Note { replica, note } => (*replica, *note),
            _ => return Ok(()),
        };
        match note {
            Note::Committed { prepare, digest, .. } => {
                self.states.entry(prepare.header.op).or_insert(*digest);
            }
            Note::Checkpoint { op, digest } => {
                let first = *self.roots.entry(*op).or_insert(*digest);
                self.compared += 1;
                hold!(
                    *digest == first,
                    BYTES,
                    replica,
                    *op,
                    "{replica:?} has {digest} at op {op}; another has {first}"
                );
            }
            Note::Restored { op, digest, .. } => {
                let Some(noted) = self.states.get(op) else { return Ok(()) };
                self.compared += 1;
                hold!(
                    digest == noted,
                    STATE,
                    replica,
                    *op,
                    "{replica:?} opens {digest} at op {op}; noted was {noted}"
                );
            }
            Note::PageMended { .. } => self.mended[usize::from(replica.0)] = true,
            Note::Rebuilds { op, why } => {
                self.compared += 1;
                let harmed = self.harmed[usize::from(replica.0)];
                hold!(harmed, LOST, replica, *op, "{replica:?} lost its checkpoint (op {op}): {why}");
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        let asked = |replica: ReplicaId| end.nodes[usize::from(replica.0)].map_or(0, Node::pages_asked);
        self.check_ends(end.core.iter().map(|replica| (*replica, asked(*replica))))
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use kimberlite_io::Place;
    use kimberlite_runtime::CheckpointLost;

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Checkpoints::default())
    }

    fn digest_of(history: &History, op: u64) -> StateDigest {
        let Note::Committed { digest, .. } = history.committed(op) else {
            unreachable!("it is an execution")
        };
        digest
    }

    #[test]
    fn a_checkpoint_of_other_bytes_or_another_state_is_noticed() {
        let history = History::small(3);
        let mut checker = Checkpoints::default();
        history.play(&mut checker).unwrap();
        let (op, checksum) = (Op(3), history.header(3).checksum);
        noted(&mut checker, 0, &Note::Checkpoint { op, digest: checksum }).unwrap();
        noted(&mut checker, 1, &Note::Checkpoint { op, digest: checksum }).unwrap();
        let other = Note::Checkpoint { op, digest: history.header(2).checksum };
        assert_broken(&rules(), noted(&mut checker, 2, &other), BYTES);
        noted(&mut checker, 1, &Note::Restored { op, checksum, digest: digest_of(&history, 3) }).unwrap();
        let other = Note::Restored { op, checksum, digest: digest_of(&history, 2) };
        assert_broken(&rules(), noted(&mut checker, 1, &other), STATE);
    }

    #[test]
    fn a_checkpoint_that_is_lost_without_damage_is_noticed() {
        let mut checker = Checkpoints::default();
        let lost = Note::Rebuilds { op: Op(3), why: CheckpointLost::Page { place: Place::grid(0) } };
        observe(&mut checker, &Observation::GridHarmed { replica: ReplicaId(1) }).unwrap();
        noted(&mut checker, 1, &lost).unwrap();
        assert_broken(&rules(), noted(&mut checker, 2, &lost), LOST);
    }

    #[test]
    fn a_page_that_is_asked_for_without_end_is_noticed() {
        let mut checker = Checkpoints::default();
        checker.check_ends([(ReplicaId(0), 0), (ReplicaId(1), 0)].into_iter()).unwrap();
        assert_broken(&rules(), checker.check_ends([(ReplicaId(2), 1)].into_iter()), ENDS);
    }
}
