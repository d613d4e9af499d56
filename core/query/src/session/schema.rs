//! Statements that change the schema: a copy is changed, kept, and the rows are brought to follow.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::check::{Stop, check_all};
use kimberlite_row::fact::{KeyRange, RowId, Rows, Scan, Write};
use kimberlite_row::{Catalogue, ObjectId, SqlError, SqlState, Value};
use kimberlite_types::Streams;
use sqlparser::ast;

use super::define::Definer;
use super::{Answer, Running, Session, Stage, Step, in_transaction_only, write};
use crate::bind::{Binder, last_part, unsupported};
use crate::eval::Shared;
use crate::overlay::View;

impl Session {
    /// Checks every row of tables that got a constraint.
    pub(super) fn recheck(&mut self, tables: &[ObjectId], rows: &dyn Rows) -> Result<(), Stop> {
        let transaction = self.transaction.as_ref().ok_or_else(in_transaction_only)?;
        let view = View { base: rows, overlay: &transaction.overlay, at: transaction.at };
        let catalogue = view.catalogue(transaction.at)?;
        for id in tables {
            let Some(table) = catalogue.table(*id) else { continue };
            let mut writes = Vec::new();
            let scan = Scan { table, index: None, at: transaction.at, range: &KeyRange::ALL, after: None };
            view.scan(&scan, &mut |found| {
                let id = RowId::of(table, found.row, found.hidden);
                writes.push(Write {
                    table: table.id,
                    id,
                    before: Some(found.row.to_vec()),
                    after: Some(found.row.to_vec()),
                });
                true
            })?;
            let mut binder = Binder::new(&catalogue, "", transaction.now);
            let checks = write::checks(&mut binder, table)?;
            let mut shared = Shared {
                params: Vec::new(),
                now: transaction.now,
                rng: Streams::new(0).stream("sql", 0),
                sequences: BTreeMap::new(),
                current: BTreeMap::new(),
                last_sequence: None,
                read: Vec::new(),
                memory: 0,
                work: 0,
            };
            for write in &writes {
                let Some(row) = &write.after else { continue };
                for (name, expr) in &checks {
                    let mut scope = crate::eval::Scope { outer: &[], slots: &[], shared: &mut shared };
                    if expr.eval(row, &mut scope)? == Value::Bool(false) {
                        return Err(SqlError::new(
                            SqlState::CheckViolation,
                            format!(
                                "check constraint \"{name}\" of relation \"{}\" is violated by some row",
                                table.name
                            ),
                        )
                        .into());
                    }
                }
            }
            check_all(&catalogue, table, &writes, &view, transaction.at)?;
        }
        Ok(())
    }

    pub(super) fn create_table_as(
        &mut self,
        running: &mut Running,
        create: &ast::CreateTable,
        text: &str,
        catalogue: &Arc<Catalogue>,
        _rows: &dyn Rows,
    ) -> Result<Step, Stop> {
        let Some(query) = &create.query else { return Err(unsupported("this").into()) };
        let now = self.transaction()?.now;
        let mut binder = Binder::new(catalogue, text, now);
        let (_, output) = binder.query(query)?;
        drop(binder);
        let created =
            self.change(running, catalogue, |definer| definer.create_table(create, Some(&output)))?;
        running.queue.pop_front();
        if created {
            let name = last_part(&create.name);
            let insert = format!("INSERT INTO \"{}\" {query}", name.replace('"', "\"\""));
            if let Some(statement) = crate::parse::statements(&insert)?.pop() {
                running.queue.push_front((statement, insert));
            }
        }
        running.answer = Some(Answer { tag: "SELECT".to_string(), ..Answer::default() });
        running.stage = Stage::Begin;
        Ok(Step::More)
    }

    /// Runs a change of the schema on a copy and keeps it.
    fn change<T>(
        &mut self,
        running: &mut Running,
        catalogue: &Arc<Catalogue>,
        run: impl FnOnce(&mut Definer<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let now = self.transaction()?.now;
        let mut shared = self.shared(running, now, BTreeMap::new());
        let mut overlay = self.transaction()?.overlay.clone();
        let mut definer = Definer {
            catalogue: (**catalogue).clone(),
            overlay: &mut overlay,
            now,
            shared: &mut shared,
            recheck: Vec::new(),
            follow: Vec::new(),
            notices: Vec::new(),
        };
        let result = run(&mut definer)?;
        let (changed, recheck, follow) = (definer.catalogue, definer.recheck, definer.follow);
        overlay.catalogue = Some(Arc::new(changed));
        self.transaction()?.overlay = overlay;
        for text in follow.into_iter().rev() {
            if let Some(statement) = crate::parse::statements(&text)?.pop() {
                running.queue.insert(1, (statement, text));
            }
        }
        if !recheck.is_empty() {
            running.stage = Stage::Recheck(recheck);
        }
        Ok(result)
    }

    pub(super) fn define(
        &mut self,
        running: &mut Running,
        statement: &ast::Statement,
        text: &str,
        catalogue: &Arc<Catalogue>,
    ) -> Result<Step, Stop> {
        use ast::Statement as S;
        let tag = match statement {
            S::CreateTable(create) => {
                self.change(running, catalogue, |d| d.create_table(create, None))?;
                "CREATE TABLE"
            }
            S::CreateIndex(create) => {
                self.change(running, catalogue, |d| d.create_index(create))?;
                "CREATE INDEX"
            }
            S::CreateView(create) => {
                let now = self.transaction()?.now;
                let mut binder = Binder::new(catalogue, text, now);
                let (_, output) = binder.query(&create.query)?;
                let reads = core::mem::take(&mut binder.reads);
                drop(binder);
                self.change(running, catalogue, |d| d.create_view(create, &output, reads))?;
                "CREATE VIEW"
            }
            S::CreateSequence { name, if_not_exists, sequence_options, .. } => {
                self.change(running, catalogue, |d| {
                    d.create_sequence(name, *if_not_exists, sequence_options)
                })?;
                "CREATE SEQUENCE"
            }
            S::Drop { object_type, if_exists, names, cascade, .. } => {
                self.change(running, catalogue, |d| d.drop(*object_type, names, *if_exists, *cascade))?;
                "DROP"
            }
            S::AlterTable(alter) => {
                self.change(running, catalogue, |d| d.alter_table(alter))?;
                "ALTER TABLE"
            }
            S::Truncate(truncate) => {
                self.truncate(truncate, catalogue)?;
                "TRUNCATE TABLE"
            }
            other => return Err(unsupported(first_words(&other.to_string())).into()),
        };
        let waits = matches!(running.stage, Stage::Recheck(_));
        if running.answer.is_none() {
            running.answer = Some(Answer { tag: tag.to_string(), ..Answer::default() });
        }
        if !waits {
            running.queue.pop_front();
            running.stage = Stage::Begin;
        }
        Ok(Step::More)
    }

    fn truncate(&mut self, truncate: &ast::Truncate, catalogue: &Arc<Catalogue>) -> Result<(), SqlError> {
        let mut ids = Vec::new();
        for target in &truncate.table_names {
            let name = last_part(&target.name);
            match catalogue.named(&name) {
                Some(kimberlite_row::Object::Table(table)) => ids.push(table.id),
                _ if truncate.if_exists => {}
                _ => {
                    return Err(SqlError::new(
                        SqlState::UndefinedTable,
                        format!("relation \"{name}\" does not exist"),
                    ));
                }
            }
        }
        let cascade = matches!(truncate.cascade, Some(ast::CascadeOption::Cascade));
        let mut at = 0;
        while at < ids.len() {
            for (child, _) in catalogue.children(ids[at]) {
                if ids.contains(&child.id) {
                    continue;
                }
                if !cascade {
                    return Err(SqlError::new(
                        SqlState::FeatureNotSupported,
                        "cannot truncate a table referenced in a foreign key constraint",
                    ));
                }
                ids.push(child.id);
            }
            at += 1;
        }
        let overlay = &mut self.transaction()?.overlay;
        for id in ids {
            overlay.truncate(id);
        }
        Ok(())
    }
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
