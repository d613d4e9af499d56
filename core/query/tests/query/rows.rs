//! Rows in memory for tests: a snapshot per commit, every guard taken at its word, pages that may miss when first touched.
#![allow(clippy::disallowed_types, reason = "a read notes what it touched; this is no part of a node")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kimberlite_query::overlay::missing;
use kimberlite_query::parse::statements;
use kimberlite_query::session::{Answer, Running, Session, Step};
use kimberlite_row::check::{Seen, Stop, check, check_stored};
use kimberlite_row::fact::{
    Facts, Found, Guard, KeyRange, Lifetime, Miss, Record, RowId, Rows, Scan, SchemaFact, StreamScan,
    TimePoint, Write, hidden_at,
};
use kimberlite_row::{Catalogue, Object, ObjectId, Row, SqlError, SqlState, Table, Value};
use kimberlite_types::{LogPosition, Offset, Op, StreamId, TenantId};

/// Rows of a page.
const PAGE_ROWS: usize = 4;

/// A record, and the op that appended it.
type Appended = (u64, Vec<u8>);

type Stored = BTreeMap<RowId, (LogPosition, Row)>;

/// The state behind one commit.
#[derive(Clone, Default)]
struct Snapshot {
    catalogue: Arc<Catalogue>,
    tables: BTreeMap<ObjectId, Stored>,
}

/// The store.
pub(crate) struct Memory {
    /// By op, from 1; the time of a commit is its op in seconds.
    snapshots: Vec<Snapshot>,
    /// Pages that were touched, if the first touch of each is to miss.
    touched: Option<RefCell<BTreeSet<String>>>,
    /// Misses so far.
    pub(crate) misses: Cell<usize>,
    /// Streams: their records, each with the op that appended it.
    pub(crate) streams: Vec<(String, Vec<Appended>)>,
}

fn position(op: usize) -> LogPosition {
    LogPosition { op: Op(op as u64), index: 0 }
}

fn lost() -> SqlError {
    SqlError::new(SqlState::SerializationFailure, "could not serialize access")
}

impl Memory {
    /// An empty store.
    pub(crate) fn new(miss: bool) -> Self {
        Self {
            snapshots: vec![Snapshot::default()],
            touched: miss.then(RefCell::default),
            misses: Cell::new(0),
            streams: Vec::new(),
        }
    }

    fn touch(&self, page: impl FnOnce() -> String) -> Result<(), Miss> {
        match &self.touched {
            Some(touched) if touched.borrow_mut().insert(page()) => {
                self.misses.set(self.misses.get() + 1);
                Err(Miss::of_pages(vec![0]))
            }
            _ => Ok(()),
        }
    }

    /// Lets every page be touched for the first time again, if touches are to miss.
    pub(crate) fn forget(&mut self, miss: bool) {
        self.touched = miss.then(RefCell::default);
    }

    fn at(&self, at: LogPosition) -> &Snapshot {
        &self.snapshots[usize::try_from(at.op.0).expect("few commits").clamp(1, self.snapshots.len()) - 1]
    }

    /// The rows of a range, with the versions they are at.
    fn within(&self, at: LogPosition, table: ObjectId, index: Option<ObjectId>, range: &KeyRange) -> Stored {
        let snapshot = self.at(at);
        let (Some(schema), Some(rows)) = (snapshot.catalogue.table(table), snapshot.tables.get(&table))
        else {
            return Stored::new();
        };
        let places = match index {
            Some(id) => schema
                .indexes
                .iter()
                .find(|index| index.id == id)
                .map(|index| index.columns.iter().filter_map(|c| schema.place(c.column)).collect()),
            None => schema.key_places(),
        };
        let holds = |row: &Row| {
            places.as_ref().is_none_or(|places: &Vec<usize>| {
                range.holds(&places.iter().map(|at| row[*at].clone()).collect::<Vec<_>>())
            })
        };
        rows.iter().filter(|(_, (_, row))| holds(row)).map(|(id, row)| (id.clone(), row.clone())).collect()
    }

    fn holds(&self, guard: &Guard) -> bool {
        let now = self.at(self.last());
        match guard {
            Guard::NameFree(name) => !now.catalogue.taken(name),
            Guard::Schema(id, version) => {
                now.catalogue.object(*id).is_some_and(|object| object.version() == *version)
            }
            Guard::StreamEnds(stream, end) => {
                let records = &self.streams[usize::try_from(stream.0).expect("few streams")].1;
                records.len() as u64 == end.0
            }
            Guard::Version(table, id, at) => {
                now.tables.get(table).and_then(|rows| rows.get(id)).is_some_and(|(version, _)| version <= at)
            }
            Guard::Absent(table, index, key) => {
                self.within(self.last(), *table, *index, &KeyRange::equal(key.clone())).is_empty()
            }
            Guard::Unchanged(table, index, range, at) => {
                self.within(*at, *table, *index, range) == self.within(self.last(), *table, *index, range)
            }
        }
    }

    /// Checks and installs.
    pub(crate) fn commit(&mut self, facts: Facts) -> Result<(), SqlError> {
        if let Some(guard) = facts.guards.iter().find(|guard| !self.holds(guard)) {
            return Err(lost().detail(format!("{guard:?}")));
        }
        let at = position(self.snapshots.len() + 1);
        let mut next = self.at(self.last()).clone();
        let mut catalogue = (*next.catalogue).clone();
        for fact in facts.schema {
            match fact {
                SchemaFact::Put(object) => {
                    if let (Object::Table(new), Some(old)) = (&object, catalogue.table(object.id())) {
                        let rows = next.tables.entry(new.id).or_default();
                        for (_, row) in rows.values_mut() {
                            *row = reshaped(row, old, new);
                        }
                    }
                    catalogue.put(object);
                }
                SchemaFact::Drop(id) => {
                    catalogue.remove(id);
                    next.tables.remove(&id);
                }
                SchemaFact::Sequence(id, value) => {
                    if let Some(Object::Sequence(sequence)) = catalogue.object(id) {
                        let mut sequence = (**sequence).clone();
                        sequence.last = value;
                        catalogue.put(Object::Sequence(Arc::new(sequence)));
                    }
                }
                SchemaFact::Truncate(id) => {
                    next.tables.remove(&id);
                }
            }
        }
        next.catalogue = Arc::new(catalogue);
        let under =
            Self { snapshots: vec![next.clone()], touched: None, misses: Cell::new(0), streams: Vec::new() };
        match check(&next.catalogue, &facts.writes, &under, position(1)) {
            Ok(()) => {}
            Err(Stop::Refused(error)) => return Err(error),
            Err(Stop::Miss(_)) => unreachable!("all pages are there"),
        }
        let mut count = 0;
        for write in facts.writes {
            let rows = next.tables.entry(write.table).or_default();
            let id = match write.id {
                RowId::Hidden(key) if write.before.is_none() && key[..12] == [0xFF; 12] => {
                    count += 1;
                    RowId::Hidden(hidden_at(at, count))
                }
                id => id,
            };
            if rows.get(&id).map(|(_, row)| row) != write.before.as_ref() {
                return Err(lost().detail("a row is not what it was"));
            }
            match write.after {
                Some(row) => rows.insert(id, (at, row)),
                None => rows.remove(&id),
            };
        }
        self.snapshots.push(next);
        self.consistent();
        Ok(())
    }

    /// Every constraint holds for all rows.
    fn consistent(&self) {
        let now = self.at(self.last());
        let under =
            Self { snapshots: vec![now.clone()], touched: None, misses: Cell::new(0), streams: Vec::new() };
        for (id, rows) in &now.tables {
            let table = now.catalogue.table(*id).expect("rows have a table");
            let writes: Vec<Write> = rows
                .iter()
                .map(|(id, (_, row))| Write {
                    table: table.id,
                    id: id.clone(),
                    before: Some(row.clone()),
                    after: Some(row.clone()),
                })
                .collect();
            check_stored(&now.catalogue, table, &writes, &under, position(1), &Seen::default())
                .expect("rows keep constraints");
        }
    }
}

fn reshaped(row: &Row, old: &Table, new: &Table) -> Row {
    new.columns
        .iter()
        .map(|column| old.place(column.id).map_or_else(|| missing(column), |at| row[at].clone()))
        .collect()
}

impl Rows for Memory {
    fn catalogue(&self, at: LogPosition) -> Result<Arc<Catalogue>, Miss> {
        self.touch(|| format!("catalogue {at}"))?;
        Ok(self.at(at).catalogue.clone())
    }

    fn last(&self) -> LogPosition {
        position(self.snapshots.len())
    }

    fn position_at(&self, micros: i64) -> Result<TimePoint, Miss> {
        let op = usize::try_from(micros / 1_000_000).unwrap_or(0);
        Ok(match op {
            0 => TimePoint::TooOld,
            op if op > self.snapshots.len() => TimePoint::Future,
            op => TimePoint::At(position(op)),
        })
    }

    fn time_of(&self, at: LogPosition) -> Result<Option<i64>, Miss> {
        Ok(i64::try_from(at.op.0).ok().map(|op| op * 1_000_000))
    }

    fn scan(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        let index = scan.index.map(|index| index.id);
        let places: Vec<(usize, bool, bool)> = match scan.index {
            Some(index) => index
                .columns
                .iter()
                .filter_map(|c| Some((scan.table.place(c.column)?, c.descending, c.nulls_first)))
                .collect(),
            None => Vec::new(),
        };
        let mut rows: Vec<(RowId, (LogPosition, Row))> =
            self.within(scan.at, scan.table.id, index, scan.range).into_iter().collect();
        // What a transaction made of the table is not what the rows were written under.
        if let Some(stored) = self.at(scan.at).catalogue.table(scan.table.id)
            && stored.version != scan.table.version
        {
            for (_, (_, row)) in &mut rows {
                *row = reshaped(row, stored, scan.table);
            }
        }
        rows.sort_by(|(a_id, (_, a)), (b_id, (_, b))| {
            let columns = places.iter().map(|(at, descending, nulls_first)| {
                let (a, b) = (&a[*at], &b[*at]);
                match (a.is_null(), b.is_null()) {
                    (false, false) if *descending => b.cmp(a),
                    (false, false) | (true, true) => a.cmp(b),
                    (null, _) if null == *nulls_first => std::cmp::Ordering::Less,
                    _ => std::cmp::Ordering::Greater,
                }
            });
            columns.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(a_id.cmp(b_id))
        });
        let from = scan.after.map_or(0, |key| {
            1 + usize::from_be_bytes(key.try_into().expect("a key that an earlier call gave"))
        });
        for (at, (id, (version, row))) in rows.iter().enumerate().skip(from) {
            self.touch(|| {
                format!("{:?} {index:?} {} {:?} {}", scan.table.id, scan.at, scan.range, at / PAGE_ROWS)
            })?;
            let hidden = match id {
                RowId::Hidden(hidden) => Some(*hidden),
                RowId::Key(_) => None,
            };
            if !each(Found { key: at.to_be_bytes()[..].into(), hidden, version: *version, row }) {
                break;
            }
        }
        Ok(())
    }

    fn tenant(&self) -> TenantId {
        TenantId(7)
    }

    fn streams(&self, at: LogPosition, each: &mut dyn FnMut(StreamId, &str, Offset)) {
        for (number, (name, records)) in self.streams.iter().enumerate() {
            let end = records.iter().filter(|(op, _)| *op <= at.op.0).count();
            each(StreamId(number as u64), name, Offset(end as u64));
        }
    }

    fn stream(&self, scan: &StreamScan, each: &mut dyn FnMut(Record<'_>) -> bool) -> Result<bool, Miss> {
        let records = &self.streams[usize::try_from(scan.stream.0).expect("few streams")].1;
        let from = usize::try_from(scan.from.0).expect("few records").min(records.len());
        for (number, (op, payload)) in records.iter().enumerate().skip(from) {
            if *op > scan.at.op.0 {
                break;
            }
            if let (true, Err(_)) = (scan.whole, self.touch(|| format!("op {op}"))) {
                if number > from {
                    return Ok(false);
                }
                return Err(Miss::of_ops(vec![Op(*op)]));
            }
            let written = scan.whole.then(|| (i64::try_from(*op * 1_000_000).unwrap(), &payload[..]));
            if !each(Record { offset: Offset(number as u64), op: Op(*op), written }) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn history(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        // By row: where each version began and ended, and what it held.
        let mut all: BTreeMap<RowId, Vec<(LogPosition, Option<LogPosition>, Row)>> = BTreeMap::new();
        for op in 1..=usize::try_from(scan.at.op.0).expect("few commits").min(self.snapshots.len()) {
            let here = self.within(position(op), scan.table.id, None, scan.range);
            for (id, versions) in &mut all {
                if let Some(last @ (_, None, _)) = versions.last_mut()
                    && here.get(id).is_none_or(|(begin, _)| *begin != last.0)
                {
                    last.1 = Some(position(op));
                }
            }
            let schema = self.at(position(op)).catalogue.table(scan.table.id);
            for (id, (begin, row)) in here {
                let versions = all.entry(id).or_default();
                if let Some(schema) = schema.filter(|_| begin == position(op)) {
                    let row = reshaped(&row, schema, scan.table);
                    versions.push((begin, None, row));
                }
            }
        }
        let micros = |at: LogPosition| self.time_of(at).expect("times do not miss");
        let mut number = 0;
        let from = scan.after.map_or(0, |key| {
            1 + usize::from_be_bytes(key.try_into().expect("a key that an earlier call gave"))
        });
        for (id, versions) in &all {
            for (at, (begin, end, row)) in versions.iter().enumerate() {
                number += 1;
                if number <= from {
                    continue;
                }
                self.touch(|| {
                    format!("history {:?} {} {:?} {}", scan.table.id, scan.at, scan.range, number / PAGE_ROWS)
                })?;
                let lifetime = Lifetime {
                    begin: (begin.op, micros(*begin)),
                    end: end.map(|end| (end.op, micros(end))),
                    replaces: at > 0 && versions[at - 1].1 == Some(*begin),
                    replaced: versions.get(at + 1).is_some_and(|next| Some(next.0) == *end),
                };
                let hidden = if let RowId::Hidden(hidden) = id { Some(*hidden) } else { None };
                let row: Row = row.iter().cloned().chain(lifetime.values()).collect();
                if !each(Found {
                    key: (number - 1).to_be_bytes()[..].into(),
                    hidden,
                    version: *begin,
                    row: &row,
                }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A store with a session.
pub(crate) struct Database {
    pub(crate) memory: Memory,
    pub(crate) session: Session,
    /// Whether the planner is left out.
    pub(crate) as_bound: bool,
    seed: u64,
}

impl Database {
    pub(crate) fn new(miss: bool) -> Self {
        Self { memory: Memory::new(miss), session: Session::default(), as_bound: false, seed: 0 }
    }

    /// Runs statements; the answer is that of the last.
    pub(crate) fn run(&mut self, sql: &str) -> Result<Answer, SqlError> {
        let session = std::mem::take(&mut self.session);
        let (session, answer) = self.run_in(session, sql);
        self.session = session;
        answer
    }

    /// Runs statements in some session.
    pub(crate) fn run_in(&mut self, mut session: Session, sql: &str) -> (Session, Result<Answer, SqlError>) {
        let mut last = Answer::default();
        let list = match statements(sql) {
            Ok(list) => list,
            Err(error) => return (session, Err(error)),
        };
        for statement in list {
            self.seed += 1;
            let mut running = Running::new(statement, sql, Vec::new(), 1_600_000_000_000_000, self.seed);
            if self.as_bound {
                running = running.as_bound();
            }
            last = loop {
                match session.step(&mut running, &self.memory) {
                    Ok(Step::More) | Err(Stop::Miss(_)) => {}
                    Ok(Step::Done(answer)) => break answer,
                    Ok(Step::Commit(facts, answer)) => match self.memory.commit(facts) {
                        Ok(()) => break answer,
                        Err(error) => return (session, Err(error)),
                    },
                    Err(Stop::Refused(error)) => return (session, Err(error)),
                }
            };
        }
        (session, Ok(last))
    }

    /// What a statement comes to: its tag and rows in no order, or its SQLSTATE.
    pub(crate) fn outcome(&mut self, sql: &str) -> Result<(String, Vec<String>), &'static str> {
        match self.run(sql) {
            Ok(answer) => {
                let mut rows = shown(&answer);
                if !sql.contains("ORDER BY") {
                    rows.sort();
                }
                Ok((answer.tag, rows))
            }
            Err(error) => Err(error.state().code()),
        }
    }
}

/// The rows of an answer as text.
pub(crate) fn shown(answer: &Answer) -> Vec<String> {
    let cell = |value: &Value, kind| kimberlite_row::text::output(value, kind);
    answer
        .rows
        .iter()
        .map(|row| {
            let cells = row.iter().zip(&*answer.columns);
            let cells =
                cells.map(|(value, column)| cell(value, &column.kind).unwrap_or_else(|| "null".into()));
            cells.collect::<Vec<_>>().join(",")
        })
        .collect()
}
