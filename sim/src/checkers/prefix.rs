//! Each life of a replica executes a prefix of one log: op 1, then op 2, and so on, each once.

use kimberlite_crypto::Checksum;
use kimberlite_runtime::Note;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{Config, Instant, Op};
use kimberlite_wire::PrepareHeader;

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "prefix";
const GAP: &str = "a life executes ops without gaps, from op 1 or its checkpoint on";
const TWICE: &str = "a life executes an op once";
const PARENT: &str = "an op's parent is the op executed before it";
const DEAD: &str = "only a replica that runs executes";

#[derive(Clone, Copy)]
struct Life {
    running: bool,
    op: Op,
    checksum: Checksum,
}

/// Follows each replica from each start. State is rebuilt by replay, so each life begins at op 1.
pub struct Prefix {
    root: Checksum,
    lives: [Life; REPLICAS_MAX],
    compared: u64,
}

impl Prefix {
    /// Nobody runs.
    pub fn new(config: &Config) -> Self {
        let root = PrepareHeader::root(config.cluster).checksum;
        let life = Life { running: false, op: Op::ZERO, checksum: root };
        Self { root, lives: [life; REPLICAS_MAX], compared: 0 }
    }
}

impl Checker for Prefix {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[GAP, TWICE, PARENT, DEAD]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Started { replica } => {
                let life = Life { running: true, op: Op::ZERO, checksum: self.root };
                self.lives[usize::from(replica.0)] = life;
            }
            Observation::Crashed { replica } => self.lives[usize::from(replica.0)].running = false,
            Observation::Note { replica, note: Note::Restored { op, checksum, .. } } => {
                let life = &mut self.lives[usize::from(replica.0)];
                (life.op, life.checksum) = (*op, *checksum);
            }
            Observation::Note { replica, note: Note::Rebuilds { .. } } => {
                let life = &mut self.lives[usize::from(replica.0)];
                (life.op, life.checksum) = (Op::ZERO, self.root);
            }
            Observation::Note { replica, note: Note::Committed { prepare, .. } } => {
                let (replica, header) = (*replica, &prepare.header);
                let life = &mut self.lives[usize::from(replica.0)];
                let (op, last) = (header.op, life.op);
                self.compared += 1;
                hold!(life.running, DEAD, replica, op, "{replica:?} executes op {op} while it is down");
                hold!(
                    op > last,
                    TWICE,
                    replica,
                    op,
                    "{replica:?} executes op {op} after op {last} in one life"
                );
                hold!(
                    op == last.next(),
                    GAP,
                    replica,
                    op,
                    "{replica:?} executes op {op} right after op {last}"
                );
                hold!(
                    header.parent == life.checksum,
                    PARENT,
                    replica,
                    op,
                    "op {op} on {replica:?} names {:?} as parent; it executed {:?} before",
                    header.parent,
                    life.checksum
                );
                life.op = op;
                life.checksum = header.checksum;
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

    fn fresh(history: &History) -> Prefix {
        let mut checker = Prefix::new(&history.config);
        started(&mut checker, 0).unwrap();
        commit(&mut checker, 0, history, 1).unwrap();
        commit(&mut checker, 0, history, 2).unwrap();
        checker
    }

    #[test]
    fn a_replay_after_a_restart_begins_at_op_1_again() {
        let history = History::small(3);
        let mut checker = fresh(&history);
        crashed(&mut checker, 0).unwrap();
        history.play(&mut checker).unwrap();
        assert_eq!(checker.compared(), 2 + 3 * history.ops());
    }

    #[test]
    fn a_gap_a_repetition_and_an_execution_by_the_dead_are_noticed() {
        let history = History::small(3);
        let rules = checker_rules(&fresh(&history));
        assert_broken(&rules, commit(&mut fresh(&history), 0, &history, 4), GAP);
        assert_broken(&rules, commit(&mut fresh(&history), 0, &history, 2), TWICE);
        assert_broken(&rules, commit(&mut fresh(&history), 0, &history, 1), TWICE);
        let mut restarted = fresh(&history);
        started(&mut restarted, 0).unwrap();
        assert_broken(&rules, commit(&mut restarted, 0, &history, 3), GAP);
        let mut dead = fresh(&history);
        crashed(&mut dead, 0).unwrap();
        assert_broken(&rules, commit(&mut dead, 0, &history, 3), DEAD);
    }

    #[test]
    fn an_op_of_another_log_is_noticed_by_its_parent() {
        let history = History::small(3);
        let mut other = History::new(3);
        for _ in 0..2 {
            other.op(&[]);
        }
        other.op(&[]);
        let mut checker = fresh(&history);
        assert_broken(&checker_rules(&checker), commit(&mut checker, 0, &other, 3), PARENT);
    }
}
