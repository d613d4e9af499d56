//! How the rows of a program become writes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kimberlite_row::check::{Stop, check, find};
use kimberlite_row::fact::{RowId, Rows, Write, provisional};
use kimberlite_row::schema::Action;
use kimberlite_row::{Catalogue, Row, SqlError, SqlState, Table, Type, Value};
use kimberlite_types::LogPosition;

use super::{Conflict, ConflictUpdate, Kind, WritePlan, Written, default_of};
use crate::bind::{Binder, unsupported};
use crate::eval::{Scope as Seen, Shared};
use crate::expr::Expr;

struct Work<'a> {
    plan: &'a WritePlan,
    catalogue: &'a Catalogue,
    rows: &'a dyn Rows,
    at: LogPosition,
    shared: &'a mut Shared,
    out: Written,
    /// The rows of the target as the statement has left them so far.
    state: BTreeMap<RowId, usize>,
}

fn eval(expr: &Expr, row: &[Value], shared: &mut Shared) -> Result<Value, SqlError> {
    expr.eval(row, &mut Seen { outer: &[], slots: &[], shared })
}

fn hidden_of(value: &Value) -> Option<[u8; 16]> {
    match value {
        Value::Bytes(bytes) => <[u8; 16]>::try_from(&bytes[..]).ok(),
        _ => None,
    }
}

impl WritePlan {
    /// The command tag.
    pub(in crate::session) fn tag(&self, count: u64) -> String {
        match self.kind {
            Kind::Insert(_) => format!("INSERT 0 {count}"),
            Kind::Update(_) => format!("UPDATE {count}"),
            Kind::Delete => format!("DELETE {count}"),
        }
    }

    /// Turns the program's rows into writes: reads what conflicts and cascades, checks, changes nothing.
    pub(in crate::session) fn writes(
        &self,
        given: &[Row],
        catalogue: &Catalogue,
        rows: &dyn Rows,
        at: LogPosition,
        fresh: u32,
        shared: &mut Shared,
    ) -> Result<Written, Stop> {
        let mut work =
            Work { plan: self, catalogue, rows, at, shared, out: Written::default(), state: BTreeMap::new() };
        work.out.fresh = fresh;
        match &self.kind {
            Kind::Insert(conflict) => {
                for row in given {
                    work.insert(row.clone(), conflict.as_ref())?;
                }
            }
            Kind::Update(places) => work.update(given, places)?,
            Kind::Delete => work.delete(given)?,
        }
        work.cascade()?;
        check(catalogue, &work.out.writes, rows, at)?;
        Ok(work.out)
    }
}

impl Work<'_> {
    fn finish_row(&mut self, row: &mut Row) -> Result<(), SqlError> {
        for (at, expr) in &self.plan.generated {
            row[*at] = eval(expr, row, self.shared)?;
        }
        for (column, value) in self.plan.table.columns.iter().zip(row.iter()) {
            if column.not_null && value.is_null() {
                return Err(SqlError::new(
                    SqlState::NotNullViolation,
                    format!(
                        "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                        column.name, self.plan.table.name
                    ),
                ));
            }
        }
        for (name, expr) in &self.plan.checks {
            if eval(expr, row, self.shared)? == Value::Bool(false) {
                return Err(SqlError::new(
                    SqlState::CheckViolation,
                    format!(
                        "new row for relation \"{}\" violates check constraint \"{name}\"",
                        self.plan.table.name
                    ),
                ));
            }
        }
        Ok(())
    }

    fn give(&mut self, row: &[Value]) -> Result<(), SqlError> {
        self.out.count += 1;
        if let Some(list) = &self.plan.returning {
            let mut out = Vec::with_capacity(list.len());
            for expr in list {
                out.push(eval(expr, row, self.shared)?);
            }
            self.out.rows.push(out);
        }
        Ok(())
    }

    fn put(&mut self, id: RowId, before: Option<Row>, after: Option<Row>) {
        let table = self.plan.table.id;
        self.state.insert(id.clone(), self.out.writes.len());
        self.out.writes.push(Write { table, id, before, after });
    }

    /// The row that has one of these keys already: stored, or written by this statement.
    fn conflicting(&self, row: &Row, conflict: &Conflict) -> Result<Option<(RowId, Row)>, Stop> {
        let table = &self.plan.table;
        for key in &conflict.keys {
            let places = table.places(key);
            let values: Vec<Value> = places.iter().map(|at| row[*at].clone()).collect();
            if values.iter().any(Value::is_null) {
                continue;
            }
            for write in &self.out.writes {
                if let Some(after) = &write.after
                    && places.iter().zip(&values).all(|(at, value)| after[*at] == *value)
                {
                    return Ok(Some((write.id.clone(), after.clone())));
                }
            }
            let mut found = None;
            find(self.rows, self.at, table, key, &values, &mut |id, row| {
                if !self.state.contains_key(&id) {
                    found = Some((id, row.to_vec()));
                }
                found.is_none()
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn insert(&mut self, mut row: Row, conflict: Option<&Conflict>) -> Result<(), Stop> {
        self.finish_row(&mut row)?;
        if let Some(conflict) = conflict
            && let Some((id, old)) = self.conflicting(&row, conflict)?
        {
            let Some(ConflictUpdate { set, condition }) = &conflict.update else { return Ok(()) };
            if self.state.contains_key(&id) {
                return Err(SqlError::new(
                    SqlState::CardinalityViolation,
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .into());
            }
            let both: Row = old.iter().chain(&row).cloned().collect();
            if let Some(condition) = condition
                && eval(condition, &both, self.shared)? != Value::Bool(true)
            {
                return Ok(());
            }
            let mut new = old.clone();
            for (at, expr) in set {
                new[*at] = eval(expr, &both, self.shared)?;
            }
            self.finish_row(&mut new)?;
            self.give(&new)?;
            self.change(id, old, new);
            return Ok(());
        }
        let id = if self.plan.table.primary_key.is_some() {
            RowId::of(&self.plan.table, &row, None)
        } else {
            self.out.fresh += 1;
            RowId::Hidden(provisional(self.out.fresh))
        };
        if let (RowId::Key(key), true) = (&id, self.state.contains_key(&id)) {
            return Err(duplicate(&self.plan.table, key).into());
        }
        self.give(&row)?;
        self.put(id, None, Some(row));
        Ok(())
    }

    /// A changed row; a changed key makes it two writes.
    fn change(&mut self, id: RowId, old: Row, new: Row) {
        let new_id = match &id {
            RowId::Key(_) => RowId::of(&self.plan.table, &new, None),
            RowId::Hidden(_) => id.clone(),
        };
        if new_id == id {
            self.put(id, Some(old), Some(new));
        } else {
            self.put(id, Some(old), None);
            self.put(new_id, None, Some(new));
        }
    }

    fn update(&mut self, given: &[Row], places: &[usize]) -> Result<(), Stop> {
        let width = self.plan.table.columns.len();
        let mut seen = BTreeSet::new();
        let mut inserts: BTreeMap<RowId, Row> = BTreeMap::new();
        for row in given {
            let old: Row = row[..width].to_vec();
            let id = RowId::of(&self.plan.table, &old, hidden_of(&row[width]));
            // A row that several others fit is changed once.
            if !seen.insert(id.clone()) {
                continue;
            }
            let mut new = old.clone();
            let values = &row[row.len() - places.len()..];
            for (at, value) in places.iter().zip(values) {
                new[*at] = value.clone();
            }
            self.finish_row(&mut new)?;
            let others = &row[width + 2..row.len() - places.len()];
            let full: Row = new.iter().chain(others).cloned().collect();
            self.give(&full)?;
            let new_id = match &id {
                RowId::Key(_) => RowId::of(&self.plan.table, &new, None),
                RowId::Hidden(_) => id.clone(),
            };
            if new_id == id {
                self.put(id, Some(old), Some(new));
            } else {
                self.put(id, Some(old), None);
                if let Some(RowId::Key(key)) = inserts.insert(new_id.clone(), new).map(|_| new_id) {
                    return Err(duplicate(&self.plan.table, &key).into());
                }
            }
        }
        // Rows that take a key which another one has left.
        for (id, new) in inserts {
            match self.state.get(&id) {
                Some(at) if self.out.writes[*at].after.is_none() => {
                    let at = *at;
                    self.out.writes[at].after = Some(new);
                }
                Some(_) => {
                    let RowId::Key(key) = &id else { continue };
                    return Err(duplicate(&self.plan.table, key).into());
                }
                None => self.put(id, None, Some(new)),
            }
        }
        Ok(())
    }

    fn delete(&mut self, given: &[Row]) -> Result<(), Stop> {
        let width = self.plan.table.columns.len();
        for row in given {
            let old: Row = row[..width].to_vec();
            let id = RowId::of(&self.plan.table, &old, hidden_of(&row[width]));
            if self.state.contains_key(&id) {
                continue;
            }
            let full: Row = old.iter().chain(&row[width + 2..]).cloned().collect();
            self.give(&full)?;
            self.put(id, Some(old), None);
        }
        Ok(())
    }

    /// Follows foreign keys from rows that go or change their key.
    fn cascade(&mut self) -> Result<(), Stop> {
        let mut known: BTreeSet<(kimberlite_row::ObjectId, RowId)> =
            self.out.writes.iter().map(|w| (w.table, w.id.clone())).collect();
        let mut at = 0;
        while at < self.out.writes.len() {
            let write = self.out.writes[at].clone();
            at += 1;
            let Some(before) = &write.before else { continue };
            let Some(parent) = self.catalogue.table(write.table) else { continue };
            let children: Vec<_> = self
                .catalogue
                .children(write.table)
                .map(|(child, key)| (child.clone(), key.clone()))
                .collect();
            for (child, key) in children {
                let places = parent.places(&key.parent_columns);
                let old: Vec<Value> = places.iter().map(|p| before[*p].clone()).collect();
                let new: Option<Vec<Value>> =
                    write.after.as_ref().map(|row| places.iter().map(|p| row[*p].clone()).collect());
                if new.as_ref() == Some(&old) || old.iter().any(Value::is_null) {
                    continue;
                }
                // A row whose primary key changes is a delete and an insert: it still cascades as an update.
                let moved = new
                    .is_none()
                    .then(|| self.out.writes.iter().find(|w| w.table == write.table && w.before.is_none()))
                    .flatten()
                    .and_then(|w| w.after.as_ref())
                    .filter(|_| matches!(self.plan.kind, Kind::Update(_)))
                    .map(|row| places.iter().map(|p| row[*p].clone()).collect::<Vec<Value>>());
                let new = new.or(moved);
                let action = if new.is_some() { key.on_update } else { key.on_delete };
                if matches!(action, Action::NoAction | Action::Restrict) {
                    continue;
                }
                let mut found = Vec::new();
                find(self.rows, self.at, &child, &key.columns, &old, &mut |id, row| {
                    found.push((id, row.to_vec()));
                    true
                })?;
                let child_places = child.places(&key.columns);
                for (id, row) in found {
                    if !known.insert((child.id, id.clone())) {
                        continue;
                    }
                    let after = match (action, &new) {
                        (Action::Cascade, None) => None,
                        (Action::Cascade, Some(new)) => {
                            let mut changed = row.clone();
                            child_places.iter().zip(new).for_each(|(p, v)| changed[*p] = v.clone());
                            Some(changed)
                        }
                        (Action::SetDefault, _) => {
                            let mut changed = row.clone();
                            for p in &child_places {
                                changed[*p] = constant_default(&child, *p)?;
                            }
                            Some(changed)
                        }
                        _ => {
                            let mut changed = row.clone();
                            for p in &child_places {
                                changed[*p] = Value::Null;
                            }
                            Some(changed)
                        }
                    };
                    self.out.writes.push(Write { table: child.id, id, before: Some(row), after });
                }
            }
        }
        Ok(())
    }
}

/// The default of a column, if it is a constant.
fn constant_default(table: &Table, at: usize) -> Result<Value, SqlError> {
    let catalogue = Catalogue::default();
    let mut binder = Binder::new(&catalogue, "", 0);
    match default_of(&mut binder, table, at)? {
        Expr::Const(value) => Ok(value),
        _ => Err(unsupported("ON DELETE SET DEFAULT with a default that is no constant")),
    }
}

fn duplicate(table: &Table, key: &[Value]) -> SqlError {
    let name = table.primary_key.as_ref().map_or("", |k| k.name.as_str());
    let shown: Vec<String> = key
        .iter()
        .map(|v| kimberlite_row::text::output(v, &Type::Text).unwrap_or_else(|| "null".into()))
        .collect();
    SqlError::new(
        SqlState::UniqueViolation,
        format!("duplicate key value violates unique constraint \"{name}\""),
    )
    .detail(format!("Key ({}) already exists.", shown.join(", ")))
}
