//! Statements that are done in one step: one row that is looked up by its key, and one row that is inserted. What they do is
//! what their programs do; only what surrounds these would cost several times as much.

use alloc::collections::btree_map::Entry;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::slice;

use kimberlite_row::check::{Stop, check_part, check_row};
use kimberlite_row::fact::{Miss, RowId, Rows, Write};
use kimberlite_row::{Catalogue, ObjectId, Row, Table, Value};

use super::planned::Planned;
use super::write::WritePlan;
use super::{Answer, Running, Session, Step, Transaction, in_transaction_only, typed};
use crate::eval::{Scope, Shared};
use crate::exec::{Lookup, Program};
use crate::overlay::View;

/// What such a statement does.
#[derive(Debug)]
pub(super) enum Short {
    /// Looks a row up.
    Lookup(Lookup),
    /// Inserts the one row that the program gives.
    Insert,
}

impl Short {
    /// What a statement does, if it is such a one.
    pub(super) fn of(program: &Program, writing: Option<&WritePlan>, sequences: &[ObjectId]) -> Option<Self> {
        match writing {
            _ if !sequences.is_empty() => None,
            None => program.as_lookup().map(Self::Lookup),
            Some(plan) => (plan.is_plain_insert() && program.one_row().is_some()).then_some(Self::Insert),
        }
    }
}

impl Transaction {
    /// Decides the constraints on one row that is inserted.
    fn check_insert(
        &mut self,
        table: &Table,
        write: &Write,
        rows: &dyn Rows,
        catalogue: &Catalogue,
    ) -> Result<(), Stop> {
        if let RowId::Key(key) = &write.id
            && self.is_free(table, key, rows)?
        {
            return Ok(check_row(table, write)?);
        }
        let view = View { base: rows, overlay: &self.overlay, at: self.at };
        check_part(catalogue, slice::from_ref(write), 0..1, &view, self.at)
    }

    /// Whether it is plain that a row may have this key: rows that come in the order of their keys, behind all that are
    /// stored, are not looked for one by one.
    fn is_free(&mut self, table: &Table, key: &[Value], rows: &dyn Rows) -> Result<bool, Miss> {
        let alone = table.foreign_keys.is_empty() && table.indexes.iter().all(|index| !index.unique);
        if !self.explicit || !alone || !self.overlay.ends_before(table.id, key) {
            return Ok(false);
        }
        let from = match self.free.entry(table.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(asked) => {
                let none = rows.holds_none(table, key, None, self.at)?;
                asked.insert(none.then(|| key.to_vec()))
            }
        };
        Ok(from.as_ref().is_some_and(|from| from[..] <= *key))
    }
}

impl Session {
    /// Does a statement in one step, if it can be. After a miss nothing has changed.
    pub(super) fn at_once(
        &mut self,
        running: &mut Running,
        planned: &Planned,
        rows: &dyn Rows,
        catalogue: &Catalogue,
    ) -> Result<Option<Step>, Stop> {
        // Limits may be set so low that not even a row fits.
        let Some(short) = planned
            .short
            .as_ref()
            .filter(|_| running.queue.len() == 1 && running.answer.is_none() && self.settings.is_empty())
        else {
            return Ok(None);
        };
        match short {
            Short::Lookup(lookup) => self.look_up(running, planned, lookup, rows),
            Short::Insert => self.insert_one(running, planned, rows, catalogue),
        }
    }

    fn look_up(
        &mut self,
        running: &mut Running,
        planned: &Planned,
        lookup: &Lookup,
        rows: &dyn Rows,
    ) -> Result<Option<Step>, Stop> {
        let transaction = self.transaction.as_ref().ok_or_else(in_transaction_only)?;
        // Where something may follow from what is read, it is guarded.
        if transaction.explicit || !transaction.overlay.is_empty() {
            return Ok(None);
        }
        typed(&mut running.params, &planned.kinds)?;
        let Some(key) = lookup.key(&running.params) else { return Ok(None) };
        let found = lookup.find(key, rows, transaction.at)?;
        running.queue.pop_front();
        self.transaction = None;
        let tag = if found.is_empty() { "SELECT 0" } else { "SELECT 1" };
        let columns = planned.columns.clone();
        Ok(Some(Step::Done(Answer { tag: tag.to_string(), columns, rows: found, notices: Vec::new() })))
    }

    fn insert_one(
        &mut self,
        running: &mut Running,
        planned: &Planned,
        rows: &dyn Rows,
        catalogue: &Catalogue,
    ) -> Result<Option<Step>, Stop> {
        let (Some(plan), Some(values)) = (&planned.writing, planned.program.one_row()) else {
            return Ok(None);
        };
        let transaction = self.transaction.as_mut().ok_or_else(in_transaction_only)?;
        typed(&mut running.params, &planned.kinds)?;
        let mut shared = Shared {
            params: core::mem::take(&mut running.params),
            current: self.current.clone(),
            last_sequence: self.last_sequence,
            ..Shared::new(transaction.now, running.seed)
        };
        let mut row = Row::with_capacity(values.len());
        for value in values {
            row.push(value.eval(&[], &mut Scope { outer: &[], slots: &[], shared: &mut shared })?);
        }
        plan.finish_row(&mut row, &mut shared)?;
        let id = RowId::of(&plan.table, &row, None);
        let write = Write { table: plan.table.id, id, before: None, after: Some(row) };
        let checked = transaction.check_insert(&plan.table, &write, rows, catalogue);
        running.params = shared.params;
        checked?;
        transaction.overlay.put(write);
        for (id, version) in &*planned.used {
            transaction.overlay.guard_schema(*id, *version);
        }
        running.queue.pop_front();
        let (tag, columns) = (plan.tag(1), planned.columns.clone());
        running.answer = Some(Answer { tag, columns, ..Answer::default() });
        Ok(Some(self.end(running)))
    }
}
