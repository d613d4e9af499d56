//! Statements that write inside of WITH: each becomes a statement of its own, run before the last one, and leaves its rows.
//!
//! All of them read what was there before the first; what they write comes together behind the last.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::fact::{RowId, Write};
use kimberlite_row::{ObjectId, Row, SqlError, SqlState};
use sqlparser::ast;

use super::Running;
use crate::bind::{Output, folded};
use crate::eval::Kept;
use crate::overlay::Overlay;

/// A part that has run: what it is called, its columns, and its rows.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub name: String,
    pub columns: Vec<Output>,
    pub rows: Arc<Kept>,
}

/// A statement in parts.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Names of those that are to run, with names for their columns.
    waiting: VecDeque<(String, Vec<String>)>,
    /// The columns of the one that runs.
    columns: Vec<Output>,
    /// Those that have run.
    pub done: Vec<Done>,
    /// What all of them read.
    pub seen: Option<Overlay>,
    touched: BTreeSet<(ObjectId, RowId)>,
    /// Rows that the parts of a MERGE counted.
    pub merged: Option<u64>,
}

fn writes(query: &ast::Query) -> bool {
    super::write::behind_with(query).is_some()
}

/// The query around the parts: a query itself, or what an INSERT takes its rows from.
fn list_of(statement: &ast::Statement) -> Option<&ast::Query> {
    let ast::Statement::Query(query) = statement else { return None };
    let list = query.with.as_ref()?;
    list.cte_tables.iter().any(|cte| writes(&cte.query)).then_some(query)
}

impl Parts {
    /// Takes a statement apart, in front of the queue: each part with the queries before it in sight.
    pub(super) fn take_apart(running: &mut Running, statement: &ast::Statement, overlay: &Overlay) -> bool {
        let (Some(query), None) = (list_of(statement), &running.parts.seen) else { return false };
        let Some((_, text)) = running.queue.pop_front() else { return false };
        let mut last = query.clone();
        let mut plain: Vec<ast::Cte> = Vec::new();
        let with = |list: &[ast::Cte]| {
            query
                .with
                .clone()
                .filter(|_| !list.is_empty())
                .map(|with| ast::With { cte_tables: list.to_vec(), ..with })
        };
        let mut statements = Vec::new();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            if writes(&cte.query) {
                let mut part = (*cte.query).clone();
                if part.with.is_none() {
                    part.with = with(&plain);
                }
                let columns = cte.alias.columns.iter().map(|column| folded(&column.name)).collect();
                running.parts.waiting.push_back((folded(&cte.alias.name), columns));
                statements.push(ast::Statement::Query(part.into()));
            } else {
                plain.push(cte.clone());
            }
        }
        last.with = with(&plain);
        statements.push(ast::Statement::Query(last.into()));
        for statement in statements.into_iter().rev() {
            running.queue.push_front((Arc::new(statement), text.clone()));
        }
        running.direct = false;
        running.parts.seen = Some(overlay.clone());
        true
    }

    /// Puts the statements of a MERGE in front of the queue; false if it does nothing.
    pub(super) fn merge(running: &mut Running, statements: Vec<ast::Statement>, overlay: &Overlay) -> bool {
        let Some((_, text)) = running.queue.pop_front() else { return false };
        running.direct = false;
        running.parts.merged = Some(0);
        running.parts.seen = Some(overlay.clone());
        let some = !statements.is_empty();
        for (at, statement) in statements.into_iter().rev().enumerate() {
            if at > 0 {
                running.parts.waiting.push_back((String::new(), Vec::new()));
            }
            running.queue.push_front((Arc::new(statement), text.clone()));
        }
        some
    }

    /// The columns of the part that begins to run, if one does.
    pub(super) fn begins(&mut self, columns: &[Output]) {
        if !self.waiting.is_empty() {
            self.columns = columns.to_vec();
        }
    }

    /// Notes what a part writes: no row twice.
    pub(super) fn writes(&mut self, writes: &[Write]) -> Result<(), SqlError> {
        if self.seen.is_none() {
            return Ok(());
        }
        for write in writes {
            if !self.touched.insert((write.table, write.id.clone())) {
                return Err(SqlError::new(
                    SqlState::CardinalityViolation,
                    "two parts of a statement write the same row",
                ));
            }
        }
        Ok(())
    }

    /// A part has run; false if it was the last.
    pub(super) fn ends(&mut self, rows: &mut Vec<Row>) -> bool {
        let Some((name, names)) = self.waiting.pop_front() else { return false };
        let mut columns = core::mem::take(&mut self.columns);
        columns.iter_mut().zip(names).for_each(|(column, name)| column.name = name);
        let rows = Kept { rows: core::mem::take(rows), set: None };
        self.done.push(Done { name, columns, rows: Arc::new(rows) });
        true
    }
}
