//! Statements that change the schema: a copy is changed, kept, and the rows are brought to follow.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::check::{Keys, Seen, Stop, check_stored};
use kimberlite_row::fact::{KeyRange, Miss, RowId, Rows, Scan, Write};
use kimberlite_row::{Catalogue, ObjectId, SqlError, SqlState, Table, Value};
use kimberlite_types::LogPosition;
use sqlparser::ast;

use super::define::{Definer, in_sql};
use super::{Answer, Running, Session, Stage, Step, Travel, in_transaction_only, write};
use crate::bind::{Binder, has_schema, last_part, no_schema, own_name, split, unknown, unsupported};
use crate::dialect::ALTER_SEQUENCE;
use crate::eval::{Scope, Shared};
use crate::limits::BATCH_ROWS;
use crate::overlay::View;

impl Session {
    pub(super) fn create_table_as(
        &mut self,
        running: &mut Running,
        create: &ast::CreateTable,
        text: &str,
        (rows, catalogue): (&dyn Rows, &Arc<Catalogue>),
    ) -> Result<Step, Stop> {
        let Some(query) = &create.query else { return Err(unsupported("this").into()) };
        let transaction = self.transaction.as_ref().ok_or_else(in_transaction_only)?;
        let view = View { base: rows, overlay: &transaction.overlay, at: transaction.at };
        let travel = Travel { view: &view };
        let mut binder = Binder::new(catalogue, text, transaction.now);
        binder.travel = Some(&travel);
        let (_, output) = binder.bound(|binder| binder.query(query))?;
        drop(binder);
        let created =
            self.change(running, catalogue, |definer| definer.create_table(create, Some(&output)))?;
        running.queue.pop_front();
        if created {
            let name = own_name(&create.name)?;
            let insert = format!("INSERT INTO {} {query}", in_sql(&name));
            if let Some(statement) = crate::parse::statements(&insert)?.pop() {
                running.queue.push_front((Arc::new(statement), insert.into()));
                running.direct = false;
            }
        }
        running.answer = Some(Answer { tag: "SELECT".to_string(), ..Answer::default() });
        running.stage = Stage::Begin;
        Ok(Step::More)
    }

    /// Keeps the transaction as it is, for when a later part of the statement is refused.
    pub(super) fn remember(&mut self, running: &mut Running) -> Result<(), SqlError> {
        let transaction = self.transaction()?;
        if transaction.explicit && running.before.is_none() {
            running.before = Some(transaction.overlay.clone());
        }
        Ok(())
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
        self.remember(running)?;
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
        running.notices.extend(definer.notices);
        overlay.catalogue = Some(Arc::new(changed));
        self.transaction()?.overlay = overlay;
        for text in follow.into_iter().rev() {
            if let Some(statement) = crate::parse::statements(&text)?.pop() {
                running.queue.insert(1, (Arc::new(statement), text.into()));
                running.direct = false;
            }
        }
        if !recheck.is_empty() {
            running.stage = Stage::Recheck(Box::new(Recheck::new(recheck)));
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
                let mut create = create.clone();
                // Where names are too few to tell columns apart, `*` stays.
                if let Ok(written) = binder.written_out(&create.query)
                    && binder.query(&written).is_ok_and(|(_, again)| again == output)
                {
                    *create.query = written;
                }
                let create = &create;
                let old = match catalogue.named(&own_name(&create.name)?) {
                    Some(kimberlite_row::Object::View(view)) if create.or_replace => {
                        let all = format!("SELECT * FROM {}", in_sql(&view.name));
                        binder.query(&*crate::parse::query(&all)?)?.1
                    }
                    _ => Vec::new(),
                };
                drop(binder);
                self.change(running, catalogue, |d| d.create_view(create, &output, &old, reads))?;
                "CREATE VIEW"
            }
            S::CreateSequence { name, if_not_exists, sequence_options, .. } => {
                self.change(running, catalogue, |d| {
                    d.create_sequence(name, *if_not_exists, sequence_options)
                })?;
                if name.0.first().and_then(|part| part.as_ident()).is_some_and(|i| i.value == ALTER_SEQUENCE)
                {
                    "ALTER SEQUENCE"
                } else {
                    "CREATE SEQUENCE"
                }
            }
            S::CreateFunction(create) => {
                self.change(running, catalogue, |d| d.create_function(create))?;
                "CREATE FUNCTION"
            }
            S::DropFunction(drop) => {
                self.change(running, catalogue, |d| d.drop_function(drop))?;
                "DROP FUNCTION"
            }
            S::CreateSchema { schema_name, if_not_exists, .. } => {
                let ast::SchemaName::Simple(name) = schema_name else {
                    return Err(unsupported("a schema that belongs to a role").into());
                };
                let name = last_part(name);
                self.change(running, catalogue, |d| d.create_schema(&name, *if_not_exists))?;
                "CREATE SCHEMA"
            }
            S::Drop { object_type, if_exists, names, cascade, .. } => {
                self.change(running, catalogue, |d| d.drop(*object_type, names, *if_exists, *cascade))?;
                "DROP"
            }
            S::AlterTable(alter) => {
                self.change(running, catalogue, |d| d.alter_table(alter))?;
                "ALTER TABLE"
            }
            S::Comment { object_type, object_name, if_exists, .. } => {
                commented(*object_type, object_name, *if_exists, catalogue)?;
                let notices = ["comments are kept nowhere".to_string()].into();
                running.answer.get_or_insert(Answer { tag: "COMMENT".into(), notices, ..Answer::default() });
                "COMMENT"
            }
            S::Truncate(truncate) => {
                self.remember(running)?;
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
            let name = own_name(&target.name)?;
            match catalogue.named(&name) {
                Some(kimberlite_row::Object::Table(table)) => ids.push(table.id),
                _ if truncate.if_exists => {}
                None if !has_schema(catalogue, &split(&name).0) => return Err(no_schema(&split(&name).0)),
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
            if let Some(object) = catalogue.object(id) {
                overlay.guard_schema(id, object.version());
            }
            overlay.truncate(id);
        }
        Ok(())
    }
}

/// What COMMENT ON speaks of must be there.
fn commented(
    kind: ast::CommentObject,
    name: &ast::ObjectName,
    if_exists: bool,
    catalogue: &Catalogue,
) -> Result<(), SqlError> {
    use ast::CommentObject as O;
    let mut owner = name.clone();
    let column = if kind == O::Column { owner.0.pop() } else { None };
    let kept = own_name(&owner)?;
    let found = match kind {
        O::Table | O::View | O::Sequence | O::Column => catalogue.named(&kept).is_some(),
        O::Index => catalogue.index_table(&kept).is_some(),
        O::Schema => has_schema(catalogue, &last_part(name)),
        _ => return Err(unsupported(format!("COMMENT ON {kind}"))),
    };
    if !found && !if_exists {
        return Err(unknown(&kept, catalogue));
    }
    if let (Some(column), Some(kimberlite_row::Object::Table(table))) = (column, catalogue.named(&kept)) {
        let column = last_part(&ast::ObjectName([column].into()));
        if table.place_of(&column).is_none() {
            let message = format!("column \"{column}\" of relation \"{kept}\" does not exist");
            return Err(SqlError::new(SqlState::UndefinedColumn, message));
        }
    }
    Ok(())
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// Every row of tables that got a constraint is looked at again.
#[derive(Debug)]
pub(super) struct Recheck {
    tables: Vec<ObjectId>,
    at: usize,
    /// Unique keys of the rows of the table at hand that were looked at.
    seen: Seen,
    /// Behind which key its scan goes on.
    after: Option<Vec<u8>>,
    /// Rows that were looked at, of all tables.
    work: u64,
}

/// What a step of it read: some rows, as writes that change nothing, where the scan goes on, and what their constraints say.
#[derive(Debug)]
pub(super) struct Looked {
    rows: Vec<Write>,
    next: Option<Vec<u8>>,
    verdict: Result<Keys, SqlError>,
}

impl Recheck {
    fn new(tables: Vec<ObjectId>) -> Self {
        Self { tables, at: 0, seen: Seen::default(), after: None, work: 0 }
    }

    /// Rows that it has looked at.
    pub(super) const fn work(&self) -> u64 {
        self.work
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.tables.len()
    }

    /// What it looked at: all rows of the tables and of those they refer to.
    pub(super) fn reads(&self, catalogue: &Catalogue) -> Vec<(ObjectId, Option<ObjectId>, KeyRange)> {
        let mut ids = self.tables.clone();
        for table in self.tables.iter().filter_map(|id| catalogue.table(*id)) {
            ids.extend(table.foreign_keys.iter().map(|key| key.parent));
        }
        ids.into_iter().map(|id| (id, None, KeyRange::ALL)).collect()
    }

    pub(super) fn read(
        &self,
        catalogue: &Catalogue,
        rows: &dyn Rows,
        at: LogPosition,
    ) -> Result<Looked, Miss> {
        let (mut found, mut next) = (Vec::new(), None);
        let Some(table) = self.tables.get(self.at).and_then(|id| catalogue.table(*id)) else {
            return Ok(Looked { rows: found, next, verdict: Ok(Keys::default()) });
        };
        let scan = Scan {
            table,
            index: None,
            at,
            range: &KeyRange::ALL,
            after: self.after.as_deref(),
            reader: None,
        };
        rows.scan(&scan, &mut |row| {
            found.push(Write {
                table: table.id,
                id: RowId::of(table, row.row, row.hidden),
                before: Some(row.row.to_vec()),
                after: Some(row.row.to_vec()),
            });
            if found.len() == BATCH_ROWS {
                next = Some(row.key.to_vec());
            }
            found.len() < BATCH_ROWS
        })?;
        let verdict = match check_stored(catalogue, table, &found, rows, at, &self.seen) {
            Ok(keys) => Ok(keys),
            Err(Stop::Refused(error)) => Err(error),
            Err(Stop::Miss(miss)) => return Err(miss),
        };
        Ok(Looked { rows: found, next, verdict })
    }

    pub(super) fn advance(&mut self, read: Looked, catalogue: &Catalogue, now: i64) -> Result<(), SqlError> {
        let Looked { rows, next, verdict } = read;
        if let Some(table) = self.tables.get(self.at).and_then(|id| catalogue.table(*id)) {
            check_rows(catalogue, table, &rows, now)?;
        }
        self.seen.add(verdict?);
        self.work += rows.len() as u64 + 1;
        if next.is_none() {
            (self.at, self.seen) = (self.at + 1, Seen::default());
        }
        self.after = next;
        Ok(())
    }
}

/// CHECK constraints over rows that are there.
fn check_rows(catalogue: &Catalogue, table: &Table, rows: &[Write], now: i64) -> Result<(), SqlError> {
    let mut binder = Binder::new(catalogue, "", now);
    let checks = write::checks(&mut binder, table)?;
    let mut shared = Shared::new(now, 0);
    for row in rows.iter().filter_map(|write| write.after.as_ref()) {
        for (name, expr) in &checks {
            let mut scope = Scope { outer: &[], slots: &[], shared: &mut shared };
            if expr.eval(row, &mut scope)? == Value::Bool(false) {
                return Err(SqlError::new(
                    SqlState::CheckViolation,
                    format!(
                        "check constraint \"{name}\" of relation \"{}\" is violated by some row",
                        table.name
                    ),
                ));
            }
        }
    }
    Ok(())
}
