//! How the rows of a program become writes.
//!
//! A [`Writing`] is a plain value between steps. [`Writing::read`] sees pages and changes nothing; [`Writing::advance`]
//! takes what was read, and cannot miss: a step that missed is made again, and none before it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::check::{self, Keys, Stop, access, check_next, check_part, find};
use kimberlite_row::fact::{Miss, RowId, Rows, Write, provisional};
use kimberlite_row::schema::{Action, ColumnId, ForeignKey};
use kimberlite_row::{Catalogue, ObjectId, Row, SqlError, SqlState, Table, Type, Value};
use kimberlite_types::LogPosition;

use super::{Conflict, ConflictUpdate, Kind, WritePlan, default_of};
use crate::bind::{Binder, Output, unsupported};
use crate::eval::{Kept, Scope as Seen, Shared};
use crate::expr::Expr;
use crate::limits::BATCH_ROWS;
use crate::plan::Plan;

/// The answer of a subquery.
type Slot = Option<Arc<Kept>>;

/// Constraints of so many writes are decided in one step.
const CHECK_ROWS: usize = 1024;

/// So many writes are looked through one by one.
const FEW: usize = 4;

/// How far a statement that writes has come.
#[derive(Debug)]
pub(in crate::session) struct Writing {
    /// What is done with each row.
    pub plan: Arc<WritePlan>,
    given: Vec<Row>,
    /// What the program left for RETURNING and DO UPDATE.
    slots: Vec<Slot>,
    stage: Stage,
    /// Whether a row that several others fit is refused, as MERGE does, instead of changed once.
    pub once: bool,
    /// The writes so far, those of cascades included.
    pub writes: Vec<Write>,
    /// Rows that the statement counts.
    pub count: u64,
    /// Rows of RETURNING.
    pub rows: Vec<Row>,
    /// Provisional keys given so far in the transaction.
    pub fresh: u32,
    /// Where the write of a row stands, once there are more than a [`FEW`].
    places: BTreeMap<(ObjectId, RowId), usize>,
    /// Of each key that may conflict: which row this statement gave it.
    taken: Vec<BTreeMap<Vec<Value>, RowId>>,
    /// Rows that an UPDATE gives other keys, by their new key.
    moved: BTreeMap<RowId, Row>,
    /// The new rows of those, by their old key: what refers to one follows it.
    follow: BTreeMap<RowId, Row>,
    /// Unique keys of the writes that were checked.
    seen: check::Seen,
}

#[derive(Debug)]
enum Stage {
    /// At a row of the program; it, finished, if its keys are to be looked up.
    Rows(usize, Option<Row>),
    /// At a write whose row others may refer to, in the order in which writes were made or changed.
    Cascade(Vec<usize>, usize),
    /// At a write whose constraints are to be decided.
    Check(usize),
    Done,
}

/// What a step read.
#[derive(Debug)]
pub(in crate::session) enum Read {
    /// Nothing was needed.
    Nothing,
    /// The row that has one of the keys of the row at hand, and how many keys were looked up to find it.
    Holder(Option<(RowId, Row)>, usize),
    /// For each reference to the row at hand: the rows that refer to it.
    Children(Vec<Vec<(RowId, Row)>>),
    /// Whether constraints hold for the writes up to there.
    Verdict(Result<Keys, SqlError>, usize),
}

fn eval(expr: &Expr, row: &[Value], shared: &mut Shared) -> Result<Value, SqlError> {
    eval_late(expr, row, &[], shared)
}

/// Evaluates with answers of the subqueries that the program left.
fn eval_late(expr: &Expr, row: &[Value], slots: &[Slot], shared: &mut Shared) -> Result<Value, SqlError> {
    expr.eval(row, &mut Seen { outer: &[], slots, shared })
}

fn hidden_of(value: &Value) -> Option<[u8; 16]> {
    match value {
        Value::Bytes(bytes) => <[u8; 16]>::try_from(&bytes[..]).ok(),
        _ => None,
    }
}

fn project(row: &[Value], places: &[usize]) -> Vec<Value> {
    places.iter().map(|at| row[*at].clone()).collect()
}

impl WritePlan {
    /// The command tag.
    pub(in crate::session) fn tag(&self, count: u64) -> String {
        match self.kind {
            Kind::Insert(_) if count == 1 => "INSERT 0 1".into(),
            Kind::Insert(_) => format!("INSERT 0 {count}"),
            Kind::Update(_) => format!("UPDATE {count}"),
            Kind::Delete => format!("DELETE {count}"),
        }
    }

    /// The plan of its rows, the columns of its answer, and the rest.
    pub(in crate::session) fn taken_apart(mut self) -> (Plan, Vec<Output>, Option<Self>) {
        let source = core::mem::replace(&mut self.source, Plan::one_row());
        (source, core::mem::take(&mut self.output), Some(self))
    }

    /// Whether it inserts rows under keys of their own, and does nothing else.
    pub(in crate::session) fn is_plain_insert(&self) -> bool {
        matches!(self.kind, Kind::Insert(None))
            && self.returning.is_none()
            && self.table.primary_key.is_some()
    }

    /// As EXPLAIN shows it.
    pub(in crate::session) fn explained(&self) -> String {
        let what = match self.kind {
            Kind::Insert(_) => "Insert",
            Kind::Update(_) => "Update",
            Kind::Delete => "Delete",
        };
        format!("{what} on {}", self.table.name)
    }

    /// Computes what is generated and checks what concerns the row alone.
    pub(in crate::session) fn finish_row(&self, row: &mut Row, shared: &mut Shared) -> Result<(), SqlError> {
        for (at, expr) in &self.generated {
            row[*at] = eval(expr, row, shared)?;
        }
        for (column, value) in self.table.columns.iter().zip(row.iter()) {
            if column.not_null && value.is_null() {
                return Err(SqlError::new(
                    SqlState::NotNullViolation,
                    format!(
                        "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                        column.name, self.table.name
                    ),
                ));
            }
        }
        for (name, expr) in &self.checks {
            if eval(expr, row, shared)? == Value::Bool(false) {
                return Err(SqlError::new(
                    SqlState::CheckViolation,
                    format!(
                        "new row for relation \"{}\" violates check constraint \"{name}\"",
                        self.table.name
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The identity of a row with these values; one without a primary key keeps the identity it had.
    fn identity(&self, row: &[Value], old: &RowId) -> RowId {
        match old {
            RowId::Key(_) => RowId::of(&self.table, row, None),
            RowId::Hidden(_) => old.clone(),
        }
    }

    fn conflict(&self) -> Option<&Conflict> {
        match &self.kind {
            Kind::Insert(conflict) => conflict.as_ref(),
            _ => None,
        }
    }

    /// The keys of a row that may conflict, by their number, with their values; one that holds NULL never does.
    fn keys<'a>(&'a self, row: &'a [Value]) -> impl Iterator<Item = (usize, &'a [ColumnId], Vec<Value>)> {
        let keys = self.conflict().map_or(&[][..], |conflict| &conflict.keys);
        keys.iter().enumerate().filter_map(|(number, key)| {
            let values = project(row, &self.table.places(key));
            (!values.iter().any(Value::is_null)).then_some((number, &key[..], values))
        })
    }
}

/// The references to a table: who refers, and how.
fn references(catalogue: &Catalogue, parent: ObjectId) -> Vec<(&Table, &ForeignKey)> {
    catalogue.children(parent).map(|(child, key)| (&**child, key)).collect()
}

impl Writing {
    /// Starts with all rows of the program.
    pub(in crate::session) fn new(plan: Arc<WritePlan>) -> Self {
        let keys = plan.conflict().map_or(0, |conflict| conflict.keys.len());
        Self {
            plan,
            given: Vec::new(),
            slots: Vec::new(),
            stage: Stage::Rows(0, None),
            once: false,
            writes: Vec::new(),
            count: 0,
            rows: Vec::new(),
            fresh: 0,
            places: BTreeMap::new(),
            taken: alloc::vec![BTreeMap::new(); keys],
            moved: BTreeMap::new(),
            follow: BTreeMap::new(),
            seen: check::Seen::default(),
        }
    }

    /// Takes the rows of the program, which has run to its end.
    pub(in crate::session) fn take(&mut self, given: Vec<Row>, slots: &[Slot], fresh: u32) {
        (self.given, self.slots, self.fresh) = (given, slots.to_vec(), fresh);
    }

    /// Whether all writes are known, and allowed.
    pub(in crate::session) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// What the next step needs from pages.
    pub(in crate::session) fn read(
        &self,
        catalogue: &Catalogue,
        rows: &dyn Rows,
        at: LogPosition,
    ) -> Result<Read, Miss> {
        match &self.stage {
            Stage::Rows(_, None) | Stage::Done => Ok(Read::Nothing),
            Stage::Rows(_, Some(row)) => self.holder(row, rows, at),
            Stage::Cascade(queue, next) => match queue.get(*next) {
                Some(write) => self.children(&self.writes[*write], catalogue, rows, at),
                None => Ok(Read::Nothing),
            },
            Stage::Check(from) => {
                let to = (from + CHECK_ROWS).min(self.writes.len());
                let checked = if self.writes.len() <= CHECK_ROWS {
                    check_part(catalogue, &self.writes, *from..to, rows, at).map(|()| Keys::default())
                } else {
                    check_next(catalogue, &self.writes, *from..to, rows, at, &self.seen)
                };
                match checked {
                    Ok(keys) => Ok(Read::Verdict(Ok(keys), to)),
                    Err(Stop::Refused(error)) => Ok(Read::Verdict(Err(error), to)),
                    Err(Stop::Miss(miss)) => Err(miss),
                }
            }
        }
    }

    /// Looks for the row that has one of these keys already: written by this statement, or stored.
    fn holder(&self, row: &[Value], rows: &dyn Rows, at: LogPosition) -> Result<Read, Miss> {
        let table = &self.plan.table;
        let mut looked_up = 0;
        for (number, key, values) in self.plan.keys(row) {
            if let Some(id) = self.taken[number].get(&values)
                && let Some(after) = self.written(table.id, id).and_then(|write| write.after.as_ref())
            {
                return Ok(Read::Holder(Some((id.clone(), after.clone())), looked_up));
            }
            looked_up += 1;
            let mut found = None;
            find(rows, at, table, key, &values, &mut |id, row| {
                // A row that the statement has written has its new keys among those taken.
                if self.written(table.id, &id).is_none() {
                    found = Some((id, row.to_vec()));
                }
                found.is_none()
            })?;
            if found.is_some() {
                return Ok(Read::Holder(found, looked_up));
            }
        }
        Ok(Read::Holder(None, looked_up))
    }

    /// Looks for the rows that refer to a row that goes or gets another key, where they must follow.
    fn children(
        &self,
        write: &Write,
        catalogue: &Catalogue,
        rows: &dyn Rows,
        at: LogPosition,
    ) -> Result<Read, Miss> {
        let mut all = Vec::new();
        for (child, key) in references(catalogue, write.table) {
            let mut found = Vec::new();
            if let Some((old, ..)) = self.change_of(write, catalogue, key) {
                find(rows, at, child, &key.columns, &old, &mut |id, row| {
                    found.push((id, row.to_vec()));
                    true
                })?;
            }
            all.push(found);
        }
        Ok(Read::Children(all))
    }

    /// The key that referring rows hold, the one that they must hold (none if its row goes), and what is to be done.
    fn change_of(
        &self,
        write: &Write,
        catalogue: &Catalogue,
        key: &ForeignKey,
    ) -> Option<(Vec<Value>, Option<Vec<Value>>, Action)> {
        let places = catalogue.table(write.table)?.places(&key.parent_columns);
        let old = project(write.before.as_ref()?, &places);
        let own = write.table == self.plan.table.id;
        let moved = if own { self.follow.get(&write.id) } else { None };
        let new = moved.or(write.after.as_ref()).map(|row| project(row, &places));
        if new.as_ref() == Some(&old) || old.iter().any(Value::is_null) {
            return None;
        }
        let action = if new.is_some() { key.on_update } else { key.on_delete };
        (!matches!(action, Action::NoAction | Action::Restrict)).then_some((old, new, action))
    }

    /// Takes what was read.
    pub(in crate::session) fn advance(
        &mut self,
        read: Read,
        catalogue: &Catalogue,
        shared: &mut Shared,
    ) -> Result<(), SqlError> {
        let stage = core::mem::replace(&mut self.stage, Stage::Done);
        self.stage = match (stage, read) {
            (Stage::Rows(next, Some(row)), Read::Holder(found, looked_up)) => {
                for (_, key, values) in self.plan.keys(&row).take(looked_up) {
                    note(&self.plan.table, key, &values, shared);
                }
                match found {
                    Some((id, old)) => self.conflicting(id, old, &row, shared)?,
                    None => self.insert(row, shared)?,
                }
                self.rows(next + 1, shared)?
            }
            (Stage::Rows(next, _), _) => self.rows(next, shared)?,
            // Nothing refers to the table, so nothing follows its rows.
            (Stage::Cascade(queue, 0), _) if catalogue.children(self.plan.table.id).next().is_none() => {
                drop(queue);
                self.check()
            }
            (Stage::Cascade(mut queue, next), Read::Children(all)) => {
                let write = queue[next];
                self.cascade(write, &all, &mut queue, catalogue, shared)?;
                Stage::Cascade(queue, next + 1)
            }
            (Stage::Cascade(..), _) => self.check(),
            (Stage::Check(from), Read::Verdict(verdict, to)) => {
                self.seen.add(verdict?);
                // What is done in one step is counted with the rows.
                if self.writes.len() > CHECK_ROWS {
                    shared.work((to - from) as u64)?;
                }
                if to < self.writes.len() { Stage::Check(to) } else { Stage::Done }
            }
            (stage, _) => stage,
        };
        Ok(())
    }

    /// All writes are known: those that are checked in parts come in the order of their rows.
    fn check(&mut self) -> Stage {
        if self.writes.len() > CHECK_ROWS {
            self.places.clear();
            self.writes.sort_by(|a, b| (a.table, &a.id).cmp(&(b.table, &b.id)));
        }
        Stage::Check(0)
    }

    /// Works off rows until one needs its keys looked up, or the step is long enough.
    fn rows(&mut self, from: usize, shared: &mut Shared) -> Result<Stage, SqlError> {
        let to = (from + BATCH_ROWS).min(self.given.len());
        let plan = self.plan.clone();
        for at in from..to {
            let mut row = core::mem::take(&mut self.given[at]);
            shared.work(1)?;
            match &plan.kind {
                Kind::Insert(conflict) => {
                    self.plan.finish_row(&mut row, shared)?;
                    if conflict.is_some() {
                        return Ok(Stage::Rows(at, Some(row)));
                    }
                    self.insert(row, shared)?;
                }
                Kind::Update(places) => {
                    let values = row.split_off(row.len() - places.len());
                    self.update(row, places.iter().copied().zip(values), shared)?;
                }
                Kind::Delete => self.delete(row, shared)?,
            }
        }
        if to < self.given.len() {
            return Ok(Stage::Rows(to, None));
        }
        self.arrive()?;
        Ok(Stage::Cascade((0..self.writes.len()).collect(), 0))
    }

    /// Where the write of a row stands.
    fn place(&self, table: ObjectId, id: &RowId) -> Option<usize> {
        if self.places.is_empty() {
            return self.writes.iter().rposition(|write| write.table == table && write.id == *id);
        }
        self.places.get(&(table, id.clone())).copied()
    }

    fn written(&self, table: ObjectId, id: &RowId) -> Option<&Write> {
        self.place(table, id).map(|at| &self.writes[at])
    }

    /// Adds the first write of a row.
    fn add(&mut self, write: Write) {
        self.writes.push(write);
        let count = self.writes.len();
        if count > FEW {
            let first = if self.places.is_empty() { 0 } else { count - 1 };
            for (at, write) in self.writes.iter().enumerate().skip(first) {
                self.places.insert((write.table, write.id.clone()), at);
            }
        }
    }

    fn put(&mut self, id: RowId, before: Option<Row>, after: Option<Row>) {
        let table = self.plan.table.id;
        if let Some(row) = &after {
            for (number, _, values) in self.plan.keys(row) {
                self.taken[number].insert(values, id.clone());
            }
        }
        self.add(Write { table, id, before, after });
    }

    /// Counts a row, and gives it to RETURNING.
    fn give(&mut self, row: &[Value], shared: &mut Shared) -> Result<(), SqlError> {
        self.count += 1;
        if let Some(list) = &self.plan.returning {
            let row = list
                .iter()
                .map(|expr| eval_late(expr, row, &self.slots, shared))
                .collect::<Result<Row, _>>()?;
            shared.hold(row.iter().map(Value::size).sum())?;
            self.rows.push(row);
        }
        Ok(())
    }

    /// The same of a row, with columns of the other tables behind it.
    fn give_with(&mut self, row: &[Value], others: &[Value], shared: &mut Shared) -> Result<(), SqlError> {
        if self.plan.returning.is_none() || others.is_empty() {
            return self.give(row, shared);
        }
        self.give(&[row, others].concat(), shared)
    }

    /// ON CONFLICT: a row is to be inserted whose key another one has.
    fn conflicting(&mut self, id: RowId, old: Row, row: &Row, shared: &mut Shared) -> Result<(), SqlError> {
        let update = self.plan.conflict().and_then(|conflict| conflict.update.as_ref());
        let Some(ConflictUpdate { set, condition }) = update else { return Ok(()) };
        if self.written(self.plan.table.id, &id).is_some() {
            return Err(SqlError::new(
                SqlState::CardinalityViolation,
                "ON CONFLICT DO UPDATE command cannot affect row a second time",
            ));
        }
        let both: Row = old.iter().chain(row).cloned().collect();
        if let Some(condition) = condition
            && eval_late(condition, &both, &self.slots, shared)? != Value::Bool(true)
        {
            return Ok(());
        }
        let mut new = old.clone();
        for (at, expr) in set {
            new[*at] = eval_late(expr, &both, &self.slots, shared)?;
        }
        self.plan.finish_row(&mut new, shared)?;
        self.give(&new, shared)?;
        // A changed key makes it two writes.
        let new_id = self.plan.identity(&new, &id);
        if new_id == id {
            self.put(id, Some(old), Some(new));
        } else {
            self.follow.insert(id.clone(), new.clone());
            self.put(id, Some(old), None);
            self.put(new_id, None, Some(new));
        }
        Ok(())
    }

    fn insert(&mut self, row: Row, shared: &mut Shared) -> Result<(), SqlError> {
        let table = &self.plan.table;
        let id = if table.primary_key.is_some() {
            RowId::of(table, &row, None)
        } else {
            self.fresh += 1;
            RowId::Hidden(provisional(self.fresh))
        };
        if let (RowId::Key(key), true) = (&id, self.written(table.id, &id).is_some()) {
            return Err(duplicate(table, key));
        }
        self.give(&row, shared)?;
        self.put(id, None, Some(row));
        Ok(())
    }

    /// UPDATE of a row: its old values, its identity, the values of the other tables' columns.
    fn update(
        &mut self,
        mut row: Row,
        set: impl Iterator<Item = (usize, Value)>,
        shared: &mut Shared,
    ) -> Result<(), SqlError> {
        let table = &self.plan.table;
        let rest = row.split_off(table.columns.len());
        let old = row;
        let id = RowId::of(table, &old, hidden_of(&rest[0]));
        // A row that several others fit is changed once.
        if self.written(table.id, &id).is_some() {
            return self.again();
        }
        let mut new = old.clone();
        for (at, value) in set {
            new[at] = value;
        }
        self.plan.finish_row(&mut new, shared)?;
        self.give_with(&new, &rest[2..], shared)?;
        let new_id = self.plan.identity(&new, &id);
        if new_id == id {
            self.put(id, Some(old), Some(new));
            return Ok(());
        }
        self.follow.insert(id.clone(), new.clone());
        self.put(id, Some(old), None);
        match self.moved.insert(new_id.clone(), new) {
            Some(_) => Err(taken_twice(&self.plan.table, &new_id)),
            None => Ok(()),
        }
    }

    /// Gives the rows of an UPDATE their new keys, which other rows of it may have left.
    fn arrive(&mut self) -> Result<(), SqlError> {
        for (id, new) in core::mem::take(&mut self.moved) {
            match self.place(self.plan.table.id, &id) {
                None => self.put(id, None, Some(new)),
                Some(at) if self.writes[at].after.is_none() => {
                    self.writes[at].after = Some(new);
                }
                Some(_) => return Err(taken_twice(&self.plan.table, &id)),
            }
        }
        Ok(())
    }

    /// A row has been written already.
    fn again(&self) -> Result<(), SqlError> {
        if self.once {
            let message = "MERGE command cannot affect row a second time";
            return Err(SqlError::new(SqlState::CardinalityViolation, message)
                .hint("Ensure that not more than one source row matches any one target row."));
        }
        Ok(())
    }

    fn delete(&mut self, mut row: Row, shared: &mut Shared) -> Result<(), SqlError> {
        let table = &self.plan.table;
        let rest = row.split_off(table.columns.len());
        let old = row;
        let id = RowId::of(table, &old, hidden_of(&rest[0]));
        if self.written(table.id, &id).is_some() {
            return self.again();
        }
        self.give_with(&old, &rest[2..], shared)?;
        self.put(id, Some(old), None);
        Ok(())
    }

    /// Makes the rows that refer to a written one follow it, and queues them: others may refer to them.
    fn cascade(
        &mut self,
        write: usize,
        all: &[Vec<(RowId, Row)>],
        queue: &mut Vec<usize>,
        catalogue: &Catalogue,
        shared: &mut Shared,
    ) -> Result<(), SqlError> {
        let parent = self.writes[write].table;
        for ((child, key), rows) in references(catalogue, parent).into_iter().zip(all) {
            let Some((old, new, action)) = self.change_of(&self.writes[write], catalogue, key) else {
                continue;
            };
            note(child, &key.columns, &old, shared);
            shared.work(rows.len() as u64)?;
            let places = child.places(&key.columns);
            for (id, row) in rows {
                // What the statement has made of the row so far.
                let at = self.place(child.id, id);
                let current = match at {
                    Some(at) => self.writes[at].after.as_ref(),
                    None => Some(row),
                };
                let Some(current) = current.filter(|row| project(row, &places) == old) else { continue };
                let after = followed(child, current, &places, new.as_deref(), action)?;
                let at = at.unwrap_or_else(|| {
                    shared.memory += row.iter().map(Value::size).sum::<usize>();
                    let before = Some(row.clone());
                    self.add(Write { table: child.id, id: id.clone(), before, after: None });
                    self.writes.len() - 1
                });
                self.writes[at].after = after;
                queue.push(at);
                shared.hold(0)?;
            }
        }
        Ok(())
    }
}

/// What a row becomes whose parent went, or has this new key.
fn followed(
    child: &Table,
    row: &Row,
    places: &[usize],
    new: Option<&[Value]>,
    action: Action,
) -> Result<Option<Row>, SqlError> {
    let mut changed = row.clone();
    match (action, new) {
        (Action::Cascade, None) => return Ok(None),
        (Action::Cascade, Some(new)) => {
            for (at, value) in places.iter().zip(new) {
                changed[*at] = value.clone();
            }
        }
        (Action::SetDefault, _) => {
            for at in places {
                changed[*at] = constant_default(child, *at)?;
            }
        }
        _ => {
            for at in places {
                changed[*at] = Value::Null;
            }
        }
    }
    Ok(Some(changed))
}

/// Notes a lookup by these columns as read.
fn note(table: &Table, columns: &[ColumnId], values: &[Value], shared: &mut Shared) {
    let (index, range) = access(table, columns, values);
    shared.note(table.id, index.map(|index| index.id), &range);
}

fn taken_twice(table: &Table, id: &RowId) -> SqlError {
    match id {
        RowId::Key(key) => duplicate(table, key),
        RowId::Hidden(_) => duplicate(table, &[]),
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
