//! What tables should say: all rows at every position, in ordinary maps. Nothing is encoded, and constraints are held
//! against the whole state after a command.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use kimberlite_row::fact::{Facts, Guard, KeyRange, Lifetime, RowId, SchemaFact, hidden_at};
use kimberlite_row::{Catalogue, ColumnId, Index, Object, ObjectId, Row, Table, Value, text};
use kimberlite_types::LogPosition;

/// One version of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) begin: LogPosition,
    values: BTreeMap<ColumnId, Value>,
}

impl Version {
    pub(super) fn new(table: &Table, begin: LogPosition, row: &[Value]) -> Self {
        Self {
            begin,
            values: table.columns.iter().map(|column| column.id).zip(row.iter().cloned()).collect(),
        }
    }

    /// The row as a table with these columns has it.
    pub(super) fn row(&self, table: &Table) -> Row {
        let value = |column: &kimberlite_row::Column| match (self.values.get(&column.id), &column.missing) {
            (Some(value), _) => value.clone(),
            (None, Some(text)) => text::parse(text, &column.kind).unwrap(),
            (None, None) => Value::Null,
        };
        table.columns.iter().map(value).collect()
    }
}

/// Everything at one position.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) at: LogPosition,
    pub(super) micros: Option<i64>,
    pub(super) catalogue: Catalogue,
    pub(super) rows: BTreeMap<(ObjectId, RowId), Version>,
}

impl Moment {
    pub(super) fn of(&self, table: ObjectId) -> impl Iterator<Item = (&RowId, &Version)> {
        self.rows.iter().filter(move |((id, _), _)| *id == table).map(|((_, id), version)| (id, version))
    }

    fn table(&self, id: ObjectId) -> Option<&Table> {
        self.catalogue.table(id).map(|table| &**table)
    }

    /// The rows of a range, in its order.
    pub(super) fn scan(
        &self,
        table: &Table,
        index: Option<&Index>,
        range: &KeyRange,
    ) -> Vec<(RowId, LogPosition, Row)> {
        let mut found: Vec<(Row, RowId, LogPosition, Row)> = self
            .of(table.id)
            .map(|(id, version)| (id, version, version.row(table)))
            .map(|(id, version, row)| (key_of(table, index, &row), id.clone(), version.begin, row))
            .filter(|(key, ..)| key.is_empty() || range.holds(key))
            .collect();
        found.sort_by(|a, b| {
            let columns = index.map(|index| &index.columns[..]).unwrap_or_default();
            for ((a, b), column) in a.0.iter().zip(&b.0).zip(columns) {
                let order = match (a.is_null(), b.is_null()) {
                    (true, true) => continue,
                    (true, false) if column.nulls_first => return std::cmp::Ordering::Less,
                    (false, true) if column.nulls_first => return std::cmp::Ordering::Greater,
                    (true, false) => return std::cmp::Ordering::Greater,
                    (false, true) => return std::cmp::Ordering::Less,
                    _ if column.descending => b.cmp(a),
                    _ => a.cmp(b),
                };
                if order.is_ne() {
                    return order;
                }
            }
            a.1.cmp(&b.1)
        });
        found.into_iter().map(|(_, id, begin, row)| (id, begin, row)).collect()
    }
}

fn key_of(table: &Table, index: Option<&Index>, row: &Row) -> Row {
    let columns: Vec<ColumnId> = match (index, &table.primary_key) {
        (Some(index), _) => index.columns.iter().map(|column| column.column).collect(),
        (None, Some(key)) => key.columns.clone(),
        (None, None) => Vec::new(),
    };
    table.places(&columns).iter().map(|at| row[*at].clone()).collect()
}

/// The condition of what may be planned again.
pub(super) const CONFLICT: &str = "40001";

/// What facts should become.
#[derive(Debug)]
pub(super) enum Expected {
    Written(Box<Moment>),
    /// One of these conditions.
    Refused(BTreeSet<&'static str>),
}

/// Every moment, the present last.
pub(super) struct Model {
    pub(super) moments: Vec<Moment>,
}

impl Model {
    /// What the history of a range of a table is at a position: with `table`'s columns, how long each version held.
    pub(super) fn history(&self, table: &Table, range: &KeyRange, at: LogPosition) -> Vec<(RowId, Row)> {
        type Past = (Row, Lifetime);
        let mut all: BTreeMap<RowId, Vec<Past>> = BTreeMap::new();
        for moment in self.moments.iter().filter(|moment| moment.at <= at) {
            let here: BTreeMap<RowId, LogPosition> =
                moment.of(table.id).map(|(id, version)| (id.clone(), version.begin)).collect();
            let (op, micros) = (moment.at.op, moment.micros);
            for (id, versions) in &mut all {
                let Some((_, last)) = versions.last_mut().filter(|(_, last)| last.end.is_none()) else {
                    continue;
                };
                if here.get(id).is_none_or(|begin| begin.op != last.begin.0) {
                    last.end = Some((op, micros));
                    last.replaced = here.contains_key(id);
                }
            }
            for (id, version) in moment.of(table.id).filter(|(_, version)| version.begin == moment.at) {
                let row = version.row(table);
                let key = key_of(table, None, &row);
                if !key.is_empty() && !range.holds(&key) {
                    continue;
                }
                let versions = all.entry(id.clone()).or_default();
                let before = versions.last().and_then(|(_, last)| last.end);
                let replaces = before == Some((op, micros));
                let begin = (op, micros);
                versions.push((row, Lifetime { begin, end: None, replaces, replaced: false }));
            }
        }
        let told = |(id, versions): (RowId, Vec<Past>)| {
            versions.into_iter().map(move |(row, lifetime)| {
                (id.clone(), row.into_iter().chain(lifetime.values()).collect::<Row>())
            })
        };
        all.into_iter().flat_map(told).collect()
    }

    pub(super) fn new() -> Self {
        let at = LogPosition::default();
        let (catalogue, rows) = (Catalogue::default(), BTreeMap::new());
        Self { moments: vec![Moment { at, micros: None, catalogue, rows }] }
    }

    pub(super) fn now(&self) -> &Moment {
        self.moments.last().expect("there is always a first moment")
    }

    pub(super) fn expect(&self, facts: &Facts, at: LogPosition, micros: i64) -> Expected {
        if !facts.guards.iter().all(|guard| self.holds(guard, facts)) {
            return Expected::Refused(BTreeSet::from([CONFLICT]));
        }
        let now = self.now();
        let mut catalogue = now.catalogue.clone();
        let mut rows = now.rows.clone();
        for fact in &facts.schema {
            match fact {
                SchemaFact::Put(object) => catalogue.put(object.clone()),
                SchemaFact::Drop(id) => {
                    catalogue.remove(*id);
                    rows.retain(|(table, _), _| table != id);
                }
                SchemaFact::Truncate(id) => rows.retain(|(table, _), _| table != id),
                SchemaFact::Sequence(..) => unreachable!("the generator makes no sequences"),
            }
        }
        let mut broken = self.broken_schema(facts, &catalogue);
        if !broken.is_empty() {
            return Expected::Refused(broken);
        }
        for write in &facts.writes {
            let table = catalogue.table(write.table).unwrap();
            let there = rows.get(&(write.table, write.id.clone()));
            if let Some(before) = &write.before
                && there.is_none_or(|version| version.row(table) != *before)
            {
                return Expected::Refused(BTreeSet::from([CONFLICT]));
            }
            if write.before.is_none() && there.is_some() {
                broken.insert("23505");
            }
            let id = match &write.id {
                RowId::Hidden(hidden) if write.before.is_none() => {
                    let count = u32::from_be_bytes(hidden[12..].try_into().unwrap());
                    RowId::Hidden(hidden_at(at, count))
                }
                id => id.clone(),
            };
            match &write.after {
                None => drop(rows.remove(&(write.table, id))),
                Some(row) => {
                    let values = table.columns.iter().map(|column| column.id).zip(row.clone()).collect();
                    rows.insert((write.table, id), Version { begin: at, values });
                }
            }
        }
        let after = Moment { at, micros: Some(micros), catalogue, rows };
        for object in after.catalogue.objects() {
            if let Object::Table(table) = object {
                broken.extend(violations(&after, table));
            }
        }
        if broken.is_empty() { Expected::Written(Box::new(after)) } else { Expected::Refused(broken) }
    }

    /// What is wrong with a catalogue that was planned on an older one.
    fn broken_schema(&self, facts: &Facts, after: &Catalogue) -> BTreeSet<&'static str> {
        let now = &self.now().catalogue;
        let mut broken = BTreeSet::new();
        let mut truncated = BTreeSet::new();
        for fact in &facts.schema {
            match fact {
                SchemaFact::Put(Object::Table(table)) => {
                    let old = now.table(table.id);
                    let known =
                        |index: &Index| old.is_some_and(|old| old.indexes.iter().any(|i| i.id == index.id));
                    let fresh = table.indexes.iter().filter(|index| !known(index)).map(|index| index.id);
                    if old
                        .map_or(Some(table.id), |_| None)
                        .into_iter()
                        .chain(fresh)
                        .any(|id| id < now.next_id())
                    {
                        broken.insert(CONFLICT);
                    }
                }
                SchemaFact::Truncate(id) => drop(truncated.insert(*id)),
                _ => {}
            }
        }
        for object in after.objects() {
            let Object::Table(child) = object else { continue };
            for key in &child.foreign_keys {
                match after.table(key.parent) {
                    None => broken.extend(["42P01", "2BP01"]),
                    Some(parent) if parent.places(&key.parent_columns).len() < key.columns.len() => {
                        broken.insert(CONFLICT);
                    }
                    Some(_) if truncated.contains(&key.parent) && !truncated.contains(&child.id) => {
                        broken.insert("0A000");
                    }
                    Some(_) => {}
                }
            }
        }
        broken
    }

    fn holds(&self, guard: &Guard, facts: &Facts) -> bool {
        let now = self.now();
        let made = |id: ObjectId| {
            facts.schema.iter().find_map(|fact| match fact {
                SchemaFact::Put(object) if object.id() == id => Some(object.version()),
                _ => None,
            })
        };
        match guard {
            // Streams are no tables.
            Guard::StreamEnds(..) => true,
            Guard::NameFree(name) => !now.catalogue.taken(name),
            Guard::Schema(id, version) => {
                let stored = now.catalogue.object(*id).map(Object::version);
                stored == Some(*version) || made(*id) == Some(*version)
            }
            Guard::Version(table, id, since) => {
                let of =
                    |moment: &Moment| moment.rows.get(&(*table, id.clone())).map(|version| version.begin);
                self.pairs(*since).all(|(old, new)| of(old) == of(new))
            }
            Guard::Absent(table, index, key) => {
                let Some(known) = now.table(*table) else { return made(*table).is_some() };
                let index = index.map(|id| known.indexes.iter().find(|index| index.id == id));
                let Some(index) = index.map_or(Some(None), |found| found.map(Some)) else { return false };
                now.scan(known, index, &KeyRange::equal(key.clone())).is_empty()
            }
            Guard::Unchanged(table, index, range, since) => {
                let Some(known) = now.table(*table) else { return made(*table).is_some() };
                let index = index.map(|id| known.indexes.iter().find(|index| index.id == id));
                let Some(index) = index.map_or(Some(None), |found| found.map(Some)) else { return false };
                // An index that was made since was changed by that: all its entries are new.
                let filled = |moment: &Moment| {
                    index.is_none_or(|index| {
                        moment.table(*table).is_some_and(|t| t.indexes.iter().any(|i| i.id == index.id))
                    })
                };
                let of = |moment: &Moment| -> Vec<(RowId, Option<LogPosition>, Row)> {
                    if !filled(moment) {
                        return Vec::new();
                    }
                    let rows = moment.scan(known, index, range);
                    // A row has a version; an entry of an index stays while its columns do.
                    let seen = |(id, begin, row): (RowId, LogPosition, Row)| match index {
                        None => (id, Some(begin), Row::new()),
                        Some(_) => (id, None, key_of(known, index, &row)),
                    };
                    rows.into_iter().map(seen).collect()
                };
                self.pairs(*since).all(|(old, new)| of(old) == of(new))
            }
        }
    }

    /// Each moment behind a position, with the one before.
    fn pairs(&self, since: LogPosition) -> impl Iterator<Item = (&Moment, &Moment)> {
        self.moments.windows(2).filter(move |pair| pair[1].at > since).map(|pair| (&pair[0], &pair[1]))
    }
}

/// The conditions that a table's rows break.
fn violations(state: &Moment, table: &Table) -> BTreeSet<&'static str> {
    let mut broken = BTreeSet::new();
    let rows: Vec<Row> = state.of(table.id).map(|(_, version)| version.row(table)).collect();
    for row in &rows {
        if table.columns.iter().zip(row).any(|(column, value)| column.not_null && value.is_null()) {
            broken.insert("23502");
        }
    }
    for index in table.indexes.iter().filter(|index| index.unique) {
        let mut seen = BTreeSet::new();
        let keys = rows.iter().map(|row| key_of(table, Some(index), row));
        if !keys.filter(|key| !key.iter().any(Value::is_null)).all(|key| seen.insert(key)) {
            broken.insert("23505");
        }
    }
    for key in &table.foreign_keys {
        let parent = state.table(key.parent).unwrap();
        let there: BTreeSet<Row> = state
            .of(parent.id)
            .map(|(_, version)| version.row(parent))
            .map(|row| parent.places(&key.parent_columns).iter().map(|at| row[*at].clone()).collect())
            .collect();
        for row in &rows {
            let values: Row = table.places(&key.columns).iter().map(|at| row[*at].clone()).collect();
            if !values.iter().any(Value::is_null) && !there.contains(&values) {
                broken.insert("23503");
            }
        }
    }
    broken
}

/// A range of values.
pub(super) fn range(equal: Vec<Value>, low: Bound<Value>, high: Bound<Value>) -> KeyRange {
    KeyRange { equal, low, high }
}
