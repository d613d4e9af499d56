//! Checkpoints: the same bytes on every replica, and the state that was there.

use std::collections::BTreeMap;

use kimberlite_crypto::Checksum;
use kimberlite_kernel::StateDigest;
use kimberlite_runtime::Note;
use kimberlite_types::{Instant, Op};

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "checkpoints";
const BYTES: &str = "replicas that take a checkpoint after the same op write the same bytes";
const STATE: &str = "a state opened from a checkpoint is the one noted after its op";

/// Remembers states, and what covers the pages of each checkpoint.
#[derive(Default)]
pub struct Checkpoints {
    states: BTreeMap<Op, StateDigest>,
    roots: BTreeMap<Op, Checksum>,
    compared: u64,
}

impl Checker for Checkpoints {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[BYTES, STATE]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        let Observation::Note { replica, note } = seen else { return Ok(()) };
        let replica = *replica;
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
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
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
}
