//! Rows in memory: versions by key, a position per commit, guards and constraints checked as the kernel does.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use kimberlite_query::overlay::missing;
use kimberlite_row::check::{Stop, check};
use kimberlite_row::fact::{
    Facts, Found, Guard, KeyRange, Miss, RowId, Rows, Scan, SchemaFact, TimePoint, hidden_at,
};
use kimberlite_row::{Catalogue, ColumnId, Object, ObjectId, Row, SqlError, SqlState, Table, Value};
use kimberlite_types::{LogPosition, Op};

/// One version of a row, by column id, while `begin <= p < end`.
struct Version {
    begin: LogPosition,
    end: Option<LogPosition>,
    row: Vec<(ColumnId, Value)>,
}

#[derive(Default)]
struct Stored {
    rows: BTreeMap<RowId, Vec<Version>>,
    /// Keys of each index, with the rows that had them once.
    indexes: BTreeMap<ObjectId, BTreeMap<Vec<Value>, BTreeSet<RowId>>>,
}

/// The store.
pub(crate) struct Memory {
    catalogues: Vec<(LogPosition, i64, Arc<Catalogue>)>,
    tables: BTreeMap<ObjectId, Stored>,
    /// What was touched already, if every first touch is to miss.
    touched: Option<RefCell<BTreeSet<Vec<u8>>>>,
}

const PAGE_ROWS: usize = 16;

impl Memory {
    /// An empty store; `miss` makes every first touch of a page miss.
    pub(crate) fn new(miss: bool) -> Self {
        let first = LogPosition { op: Op(1), index: 0 };
        Self {
            catalogues: vec![(first, 0, Arc::new(Catalogue::default()))],
            tables: BTreeMap::new(),
            touched: miss.then(RefCell::default),
        }
    }

    fn touch(&self, page: impl FnOnce() -> Vec<u8>) -> Result<(), Miss> {
        match &self.touched {
            Some(touched) if touched.borrow_mut().insert(page()) => Err(Miss { pages: vec![0] }),
            _ => Ok(()),
        }
    }

    fn now(&self) -> &(LogPosition, i64, Arc<Catalogue>) {
        self.catalogues.last().expect("there is always a first one")
    }

    /// Checks and installs facts at a time.
    pub(crate) fn commit(&mut self, facts: Facts, time: i64) -> Result<(), SqlError> {
        let (last, _, catalogue) = self.now().clone();
        for guard in &facts.guards {
            let holds = match guard {
                Guard::NameFree(name) => !catalogue.taken(name),
                // A transaction may guard versions that it made itself; those are not stored yet.
                Guard::Schema(id, version) => catalogue.object(*id).is_none_or(|o| o.version() <= *version),
                Guard::Version(table, id, at) => {
                    self.tables.get(table).and_then(|t| t.rows.get(id)).is_none_or(|versions| {
                        versions.iter().all(|v| v.begin <= *at && v.end.is_none_or(|end| end <= *at))
                    })
                }
                Guard::Unchanged(table, _, _, at) => self.tables.get(table).is_none_or(|t| {
                    let old = |v: &Version| v.begin <= *at && v.end.is_none_or(|end| end <= *at);
                    last <= *at || t.rows.values().flatten().all(old)
                }),
                Guard::Absent(..) => true,
            };
            if !holds {
                return Err(SqlError::new(SqlState::SerializationFailure, "could not serialize access"));
            }
        }
        let at = LogPosition { op: Op(last.op.0 + 1), index: 0 };
        let mut next = (*catalogue).clone();
        for fact in &facts.schema {
            match fact {
                SchemaFact::Put(object) => next.put(object.clone()),
                SchemaFact::Drop(id) => {
                    next.remove(*id);
                }
                SchemaFact::Sequence(id, value) => {
                    if let Some(Object::Sequence(sequence)) = next.object(*id) {
                        let mut sequence = (**sequence).clone();
                        sequence.last = *value;
                        next.put(Object::Sequence(Arc::new(sequence)));
                    }
                }
                SchemaFact::Truncate(id) => {
                    for version in
                        self.tables.entry(*id).or_default().rows.values_mut().filter_map(|v| v.last_mut())
                    {
                        version.end.get_or_insert(at);
                    }
                }
            }
        }
        let next = Arc::new(next);
        loop {
            match check(&next, &facts.writes, &Under { memory: self, catalogue: &next }, last) {
                Ok(()) => break,
                Err(Stop::Refused(error)) => return Err(error),
                Err(Stop::Miss(_)) => {}
            }
        }
        let mut count = 0;
        for write in facts.writes {
            let Some(table) = next.table(write.table) else { continue };
            let stored = self.tables.entry(write.table).or_default();
            let id = match write.id {
                RowId::Hidden(key) if write.before.is_none() && key[..12] == [0xFF; 12] => {
                    count += 1;
                    RowId::Hidden(hidden_at(at, count))
                }
                id => id,
            };
            let versions = stored.rows.entry(id.clone()).or_default();
            if let Some(old) = versions.last_mut() {
                old.end.get_or_insert(at);
            }
            if let Some(row) = write.after {
                for index in &table.indexes {
                    let key = index_key(table, index, &row);
                    stored.indexes.entry(index.id).or_default().entry(key).or_default().insert(id.clone());
                }
                let row = table.columns.iter().map(|c| c.id).zip(row).collect();
                versions.push(Version { begin: at, end: None, row });
            }
        }
        // An index made now is filled with the rows there are.
        for fact in &facts.schema {
            let SchemaFact::Put(Object::Table(table)) = fact else { continue };
            let Some(table) = next.table(table.id) else { continue };
            let stored = self.tables.entry(table.id).or_default();
            for index in &table.indexes {
                let keys: Vec<(Vec<Value>, RowId)> = stored
                    .rows
                    .iter()
                    .flat_map(|(id, versions)| versions.iter().map(move |v| (id, v)))
                    .map(|(id, version)| (index_key(table, index, &shaped(table, version)), id.clone()))
                    .collect();
                let filled = stored.indexes.entry(index.id).or_default();
                for (key, id) in keys {
                    filled.entry(key).or_default().insert(id);
                }
            }
        }
        self.catalogues.push((at, time.max(self.now().1 + 1), next));
        Ok(())
    }
}

/// The rows before a commit under the schema after it.
struct Under<'a> {
    memory: &'a Memory,
    catalogue: &'a Arc<Catalogue>,
}

impl Rows for Under<'_> {
    fn catalogue(&self, _: LogPosition) -> Result<Arc<Catalogue>, Miss> {
        Ok(self.catalogue.clone())
    }
    fn last(&self) -> LogPosition {
        self.memory.last()
    }
    fn position_at(&self, micros: i64) -> Result<TimePoint, Miss> {
        self.memory.position_at(micros)
    }
    fn time_of(&self, at: LogPosition) -> Result<Option<i64>, Miss> {
        self.memory.time_of(at)
    }
    fn scan(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        // An index made by this commit holds nothing yet: its rows are looked for in the table.
        let filled = scan.index.is_none_or(|index| {
            self.memory.tables.get(&scan.table.id).is_some_and(|t| t.indexes.contains_key(&index.id))
        });
        if filled {
            return self.memory.scan(scan, each);
        }
        self.memory.scan(&Scan { index: None, range: &KeyRange::ALL, ..*scan }, each)
    }
}

fn index_key(table: &Table, index: &kimberlite_row::Index, row: &[Value]) -> Vec<Value> {
    index.columns.iter().filter_map(|c| table.place(c.column)).map(|at| row[at].clone()).collect()
}

fn shaped(table: &Table, version: &Version) -> Row {
    table
        .columns
        .iter()
        .map(|column| match version.row.iter().find(|(id, _)| *id == column.id) {
            Some((_, value)) => value.clone(),
            None => missing(column),
        })
        .collect()
}

fn bytes(count: usize) -> Vec<u8> {
    (count as u64).to_be_bytes().to_vec()
}

impl Rows for Memory {
    fn catalogue(&self, at: LogPosition) -> Result<Arc<Catalogue>, Miss> {
        self.touch(|| format!("catalogue {at}").into_bytes())?;
        let found = self.catalogues.iter().rev().find(|(position, ..)| *position <= at);
        Ok(found.map(|(_, _, catalogue)| catalogue.clone()).unwrap_or_default())
    }

    fn last(&self) -> LogPosition {
        self.now().0
    }

    fn position_at(&self, micros: i64) -> Result<TimePoint, Miss> {
        if micros > self.now().1 {
            return Ok(TimePoint::Future);
        }
        let found = self.catalogues.iter().rev().find(|(_, time, _)| *time <= micros);
        Ok(found.map_or(TimePoint::TooOld, |(at, ..)| TimePoint::At(*at)))
    }

    fn time_of(&self, at: LogPosition) -> Result<Option<i64>, Miss> {
        Ok(self.catalogues.iter().rev().find(|(position, ..)| *position <= at).map(|(_, time, _)| *time))
    }

    fn scan(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        let table = scan.table;
        let Some(stored) = self.tables.get(&table.id) else { return Ok(()) };
        let skip = scan.after.map_or(0, |key| key.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)) + 1);
        let places: Vec<usize> = match scan.index {
            Some(index) => index.columns.iter().filter_map(|c| table.place(c.column)).collect(),
            None => table.key_places().unwrap_or_default(),
        };
        let current = |id: &RowId| {
            let versions = stored.rows.get(id)?;
            let fits = |v: &&Version| v.begin <= scan.at && v.end.is_none_or(|end| end > scan.at);
            versions.iter().rev().find(fits)
        };
        let mut failed = Ok(());
        let mut count = 0;
        let mut visit = |id: &RowId| -> bool {
            count += 1;
            if count <= skip {
                return true;
            }
            let number = count - 1;
            failed = self.touch(|| {
                let index = scan.index.map_or(0, |i| i.id.0);
                format!("{} {index} {:?} {}", table.id.0, scan.range, number / PAGE_ROWS).into_bytes()
            });
            if failed.is_err() {
                return false;
            }
            let Some(version) = current(id) else { return true };
            let row = shaped(table, version);
            let key: Vec<Value> = places.iter().map(|at| row[*at].clone()).collect();
            if !places.is_empty() && !scan.range.holds(&key) {
                return true;
            }
            let hidden = match id {
                RowId::Hidden(hidden) => Some(*hidden),
                RowId::Key(_) => None,
            };
            each(Found { key: &bytes(number), hidden, version: version.begin, row: &row })
        };
        let from = scan.range.equal.clone();
        let starts = |key: &[Value]| key.len() >= from.len() && key[..from.len()] == from[..];
        #[allow(clippy::single_match_else, reason = "two ways to walk")]
        match scan.index {
            Some(index) => {
                let Some(keys) = stored.indexes.get(&index.id) else { return Ok(()) };
                let range = keys.range((Bound::Included(from.clone()), Bound::Unbounded));
                'all: for (key, ids) in range.take_while(|(key, _)| starts(key)) {
                    if !scan.range.holds(key) {
                        continue;
                    }
                    for id in ids {
                        // The row may have had this key once.
                        let same =
                            current(id).is_some_and(|v| index_key(table, index, &shaped(table, v)) == *key);
                        if same && !visit(id) {
                            break 'all;
                        }
                    }
                }
            }
            None => {
                let start = if places.is_empty() { RowId::Key(Vec::new()) } else { RowId::Key(from.clone()) };
                for (id, _) in stored.rows.range(start..) {
                    if let RowId::Key(key) = id
                        && !starts(key)
                    {
                        break;
                    }
                    if !visit(id) {
                        break;
                    }
                }
            }
        }
        failed
    }
}
