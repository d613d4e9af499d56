//! Tables are what the facts of the committed log say, and facts are installed only where they may be.

use kimberlite_kernel::Applied;
use kimberlite_kernel::tables::Unwritten;
use kimberlite_row::Row;
use kimberlite_row::fact::{KeyRange, Rows, Scan};
use kimberlite_runtime::{Node, Note};
use kimberlite_types::{Instant, LogPosition, Op, ReplicaId, TenantId};
use kimberlite_wire::Prepare;

use super::facts::{TableModel, Wrong};
use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "tables";
const BEFORE: &str = "what facts replace is what was there";
const GUARDED: &str = "facts are installed only if all that they guard is as it was read";
const SHOWN: &str = "every replica shows at every position what the log says of it";

/// Positions that are looked at in the end, at most.
const LOOKS_MAX: u64 = 12;

/// Follows the facts of the log, and looks at what replicas have in the end.
#[derive(Default)]
pub struct Tables {
    model: TableModel,
    executed: Op,
    compared: u64,
    skipped: u64,
}

impl Tables {
    fn on_prepare(
        &mut self,
        replica: ReplicaId,
        prepare: &Prepare,
        applied: &Applied,
    ) -> Result<(), Violation> {
        let op = prepare.header.op;
        if op != self.executed.next() {
            return Ok(());
        }
        self.executed = op;
        for (entry, said) in prepare.entries().flatten().zip(&applied.verdicts) {
            let at = entry.header.position;
            match self.model.apply(&entry, said) {
                Ok(wrote) => self.compared += u64::from(wrote),
                Err(Wrong::Before(seen)) => hold!(false, BEFORE, replica, op, "entry {at}: {seen}"),
                Err(Wrong::Guard(seen)) => hold!(false, GUARDED, replica, op, "entry {at}: {seen}"),
            }
        }
        Ok(())
    }

    fn check_node(&mut self, replica: ReplicaId, node: &Node) -> Result<(), Violation> {
        let last = node.kernel().applied().0.min(self.executed.0);
        let tenants: Vec<TenantId> = self.model.tenants().collect();
        for tenant in tenants {
            let rows = node.kernel().rows(tenant, &Unwritten);
            for step in 0..=LOOKS_MAX {
                let op = Op(last * step / LOOKS_MAX);
                let at = LogPosition { op, index: u32::MAX };
                self.check_at(replica, tenant, &rows, at)?;
            }
        }
        Ok(())
    }

    fn check_at(
        &mut self,
        replica: ReplicaId,
        tenant: TenantId,
        rows: &dyn Rows,
        at: LogPosition,
    ) -> Result<(), Violation> {
        for table in self.model.tables(tenant, at) {
            let mut expected: Vec<Row> =
                self.model.rows(tenant, &table.name, at).into_iter().flatten().cloned().collect();
            expected.sort_by(|a, b| a.iter().cmp(b.iter()));
            for index in core::iter::once(None).chain(table.indexes.iter().map(Some)) {
                let (range, mut found, mut wanted) = (&KeyRange::ALL, Vec::<Row>::new(), true);
                let scan = Scan { table, index, at, range, after: None, reader: None };
                if rows
                    .scan(&scan, &mut |row| {
                        found.push(row.row.to_vec());
                        wanted = found.len() <= expected.len();
                        wanted
                    })
                    .is_err()
                {
                    // Its pages are not at hand.
                    self.skipped += 1;
                    continue;
                }
                self.compared += 1;
                found.sort_by(|a, b| a.iter().cmp(b.iter()));
                hold!(
                    found == expected,
                    SHOWN,
                    replica,
                    at.op,
                    "{replica:?} shows {found:?} in \"{}\" of {tenant} by {:?} at {at}; the log says {expected:?}",
                    table.name,
                    index.map(|index| &index.name)
                );
            }
        }
        Ok(())
    }
}

impl Checker for Tables {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[BEFORE, GUARDED, SHOWN]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Note { replica, note: Note::Committed { prepare, applied, .. } } => {
                self.on_prepare(*replica, prepare, applied)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        for replica in &end.core {
            if let Some(Some(node)) = end.nodes.get(usize::from(replica.0)) {
                self.check_node(*replica, node)?;
            }
        }
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use kimberlite_row::fact::Guard;
    use kimberlite_types::SessionId;
    use kimberlite_wire::command::Outcome;

    fn session(history: &History) -> SessionId {
        SessionId(history.verdict(1, 0).position)
    }

    /// A history whose last op is taken for installed, though the kernel refused it.
    fn as_if_installed(history: &History) -> Result<(), Violation> {
        let mut checker = Tables::default();
        for op in 1..history.ops() {
            commit(&mut checker, 0, history, op).unwrap();
        }
        assert!(history.verdict(history.ops(), 0).result.is_err(), "the kernel refuses it");
        let note = with_applied(&history.committed(history.ops()), |applied| {
            applied.verdicts[0].verdict.result = Ok(Outcome::Written { rows: 1 });
        });
        noted(&mut checker, 0, &note)
    }

    #[test]
    fn a_row_that_was_not_what_is_replaced_is_noticed() {
        let rules = checker_rules(&Tables::default());
        let mut history = wards();
        let at = session(&history);
        history.op(&[facts(at, 20, vec![], vec![cell(1, Some(",9"), Some(",9,2"))])]);
        assert_broken(&rules, as_if_installed(&history), BEFORE);
    }

    #[test]
    fn guards_that_did_not_hold_are_noticed() {
        let rules = checker_rules(&Tables::default());
        let since = LogPosition { op: Op(3), index: u32::MAX };
        let range = KeyRange { low: core::ops::Bound::Included(1.into_value()), ..KeyRange::ALL };
        for guard in [
            Guard::Version(CELLS, key(1), since),
            Guard::Absent(CELLS, None, vec![1.into_value()]),
            Guard::Unchanged(CELLS, None, range, since),
            Guard::Schema(CELLS, 7),
            Guard::NameFree("cells".to_owned()),
        ] {
            let mut history = wards();
            let at = session(&history);
            history.op(&[facts(at, 20, vec![guard], vec![cell(2, None, Some(",3"))])]);
            assert_broken(&rules, as_if_installed(&history), GUARDED);
        }
    }

    #[test]
    fn a_replica_that_shows_other_rows_is_noticed() {
        let rules = checker_rules(&Tables::default());
        let history = wards();
        let mut checker = Tables::default();
        for op in 1..=history.ops() {
            commit(&mut checker, 0, &history, op).unwrap();
        }
        let mut other = wards();
        let at = LogPosition { op: Op(history.ops()), index: u32::MAX };
        let shown = |kernel: &kimberlite_kernel::Kernel, checker: &mut Tables| {
            checker.check_at(ReplicaId(0), TENANT, &kernel.rows(TENANT, &Unwritten), at)
        };
        shown(&history.kernel, &mut checker).unwrap();
        assert!(checker.compared() > 2);
        other.truncate(history.ops() - 1);
        let session = session(&other);
        other.op(&[facts(session, 20, vec![], vec![cell(1, Some(",1"), Some(",1,7"))])]);
        assert_broken(&rules, shown(&other.kernel, &mut checker), SHOWN);
    }
}
