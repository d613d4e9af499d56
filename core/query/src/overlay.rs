//! What a transaction has written so far, laid over the snapshot it reads.

use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Bound;

use kimberlite_row::fact::{
    Facts, Found, Guard, KeyRange, Miss, Record, RowId, Rows, Scan, SchemaFact, StreamScan, TimePoint, Write,
};
use kimberlite_row::schema::SchemaVersion;
use kimberlite_row::{Catalogue, ObjectId, Row, Sequence, Table, Value};
use kimberlite_types::{LogPosition, Offset, StreamId, TenantId};

/// What becomes of a row: a write without its name.
#[derive(Clone, Debug)]
struct Net {
    before: Option<Row>,
    after: Option<Row>,
}

/// Uncommitted writes: net, one per row.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// The changed schema, if it was changed.
    pub catalogue: Option<Arc<Catalogue>>,
    /// Changes of the schema, in order.
    pub schema: Vec<SchemaFact>,
    /// Net writes.
    writes: BTreeMap<(ObjectId, RowId), Net>,
    /// Tables whose stored rows are gone.
    truncated: BTreeSet<ObjectId>,
    /// Rows that got a provisional key.
    pub fresh: u32,
    /// Sequences numbers were taken from, as they are now.
    pub sequences: BTreeMap<ObjectId, Sequence>,
    /// Names that objects of the snapshot had and have no more.
    pub freed: BTreeSet<String>,
    /// What must still hold at commit.
    pub guards: Vec<Guard>,
}

impl Overlay {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.schema.is_empty() && self.writes.is_empty() && self.sequences.is_empty()
    }

    /// Adds a write to the net. It says what was stored there, and is refused if something else is: that guards the row.
    pub fn put(&mut self, write: Write) {
        let Write { table, id, before, after } = write;
        match self.writes.entry((table, id)) {
            Entry::Vacant(entry) => {
                if before.is_some() || after.is_some() {
                    entry.insert(Net { before, after });
                }
            }
            Entry::Occupied(mut entry) => {
                let own = entry.get_mut();
                if own.before.is_some() || after.is_some() {
                    own.after = after;
                } else {
                    entry.remove();
                }
            }
        }
    }

    /// Whether all rows that were written stand in front of this key of a table: rows that come in the order of their
    /// keys are told by one comparison.
    pub(crate) fn ends_before(&self, table: ObjectId, key: &[Value]) -> bool {
        self.writes.last_key_value().is_none_or(|((last, id), _)| {
            last.cmp(&table).is_lt() || *last == table && matches!(id, RowId::Key(id) if &id[..] < key)
        })
    }

    /// An object is used as it is at this version. What the transaction itself made or changed needs no guard: it was
    /// guarded as it was before.
    pub fn guard_schema(&mut self, id: ObjectId, version: SchemaVersion) {
        let own = self.schema.iter().any(|fact| match fact {
            SchemaFact::Put(object) => object.id() == id,
            SchemaFact::Drop(dropped) => *dropped == id,
            _ => false,
        });
        if !own {
            self.guard(Guard::Schema(id, version));
        }
    }

    /// Rows were read at a position, and must be so still: what follows from them is only then true.
    pub fn guard_reads(
        &mut self,
        read: impl IntoIterator<Item = (ObjectId, Option<ObjectId>, KeyRange)>,
        at: LogPosition,
    ) {
        for (table, index, range) in read {
            self.guard(Guard::Unchanged(table, index, range, at));
        }
    }

    /// Streams were read to their ends, and must end there still.
    pub fn guard_streams(&mut self, read: impl IntoIterator<Item = (StreamId, Offset)>) {
        for (stream, end) in read {
            self.guard(Guard::StreamEnds(stream, end));
        }
    }

    /// Rows were read at a position that were found by what an index holds of them: they must be as they were.
    pub fn guard_rows(&mut self, read: impl IntoIterator<Item = (ObjectId, RowId)>, at: LogPosition) {
        for (table, id) in read {
            // What is written says what it was.
            let key = (table, id);
            if self.writes.get(&key).is_none_or(|write| write.before.is_none()) {
                self.guard(Guard::Version(key.0, key.1, at));
            }
        }
    }

    /// Takes back what was written since an earlier state. What was read since stays read: the client has seen it.
    pub fn restore(&mut self, before: Self) {
        let guards = core::mem::take(&mut self.guards);
        *self = Self { guards, ..before };
    }

    /// Adds a guard, unless it is among the first or the last ones: a guard that comes twice is only held twice.
    fn guard(&mut self, guard: Guard) {
        let (count, near) = (self.guards.len(), 64);
        let known = self.guards[..near.min(count)].contains(&guard)
            || self.guards[count.saturating_sub(near)..].contains(&guard);
        if !known {
            self.guards.push(guard);
        }
    }

    /// All rows of a table go.
    pub fn truncate(&mut self, table: ObjectId) {
        self.writes.retain(|(id, _), _| *id != table);
        self.truncated.insert(table);
        self.schema.push(SchemaFact::Truncate(table));
    }

    /// A table is gone: so are writes to it.
    pub fn forget(&mut self, table: ObjectId) {
        self.writes.retain(|(id, _), _| *id != table);
    }

    /// Brings the written rows of a table into the shape of its new version.
    pub fn reshape(&mut self, old: &Table, new: &Table) {
        let places: Vec<Option<usize>> = new.columns.iter().map(|c| old.place(c.id)).collect();
        let reshape = |row: &Row| -> Row {
            places
                .iter()
                .zip(&new.columns)
                .map(|(place, column)| match place {
                    Some(at) => row[*at].clone(),
                    None => missing(column),
                })
                .collect()
        };
        for ((table, _), write) in &mut self.writes {
            if *table == new.id {
                write.before = write.before.as_ref().map(reshape);
                write.after = write.after.as_ref().map(reshape);
            }
        }
    }

    /// What is handed to the kernel.
    pub fn facts(self) -> Facts {
        let Self { mut schema, sequences, writes, guards, .. } = self;
        schema.extend(sequences.values().map(|s| SchemaFact::Sequence(s.id, s.last)));
        // A lookup by the key of a row that is written: the write says what is there, and goes by no position, so that the
        // row may have been written by whoever proposed before.
        let by_values = |guard: Guard| {
            let Guard::Unchanged(table, None, range, since) = guard else { return Some(guard) };
            let point = range.low == Bound::Unbounded && range.high == Bound::Unbounded;
            let key = (table, RowId::Key(range.equal));
            match writes.get(&key).filter(|_| point).map(|write| write.before.is_some()) {
                Some(true) => None,
                Some(false) => Some(Guard::Absent(table, None, key_values(key.1))),
                None => {
                    let range = KeyRange { equal: key_values(key.1), ..range };
                    Some(Guard::Unchanged(table, None, range, since))
                }
            }
        };
        let guards = guards.into_iter().filter_map(by_values).collect();
        let write = |((table, id), Net { before, after })| Write { table, id, before, after };
        Facts { guards, schema, writes: writes.into_iter().map(write).collect() }
    }
}

fn key_values(id: RowId) -> Row {
    match id {
        RowId::Key(values) => values,
        RowId::Hidden(_) => Row::new(),
    }
}

/// What is proposed and not decided, laid over the committed rows: for statements that are proposed behind it. Whoever
/// plans on it must not answer by it before it is decided.
#[derive(Debug, Default)]
pub struct Ahead {
    overlay: Overlay,
    /// Which proposal wrote a row last.
    marks: BTreeMap<(ObjectId, RowId), u64>,
}

impl Ahead {
    /// Whether nothing is laid.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Lays what a proposal writes on top, and answers which rows these are. Rows that get their key from the machine have
    /// none yet, so they are not seen.
    pub fn lay(&mut self, facts: &Facts, mark: u64) -> Vec<(ObjectId, RowId)> {
        let mut laid = Vec::new();
        for write in facts.writes.iter().filter(|write| matches!(write.id, RowId::Key(_))) {
            let key = (write.table, write.id.clone());
            self.marks.insert(key.clone(), mark);
            let net = Net { before: write.before.clone(), after: write.after.clone() };
            self.overlay.writes.insert(key.clone(), net);
            laid.push(key);
        }
        laid
    }

    /// A proposal is decided: what it wrote is stored, or will never be.
    pub fn lift(&mut self, laid: &[(ObjectId, RowId)], mark: u64) {
        for key in laid {
            if self.marks.get(key) == Some(&mark) {
                self.marks.remove(key);
                self.overlay.writes.remove(key);
            }
        }
    }

    /// The rows as they will be if all that is laid is done.
    pub fn over<'a>(&'a self, base: &'a dyn Rows) -> View<'a> {
        View { base, overlay: &self.overlay, at: base.last() }
    }
}

/// What old rows hold in a column added later.
pub fn missing(column: &kimberlite_row::Column) -> Value {
    column
        .missing
        .as_ref()
        .and_then(|text| kimberlite_row::text::parse(text, &column.kind).ok())
        .unwrap_or_default()
}

/// Rows as a transaction sees them.
pub struct View<'a> {
    /// The committed rows.
    pub base: &'a dyn Rows,
    /// The transaction's writes.
    pub overlay: &'a Overlay,
    /// Its snapshot.
    pub at: LogPosition,
}

impl Rows for View<'_> {
    fn catalogue(&self, at: LogPosition) -> Result<Arc<Catalogue>, Miss> {
        match &self.overlay.catalogue {
            Some(catalogue) if at == self.at => Ok(catalogue.clone()),
            _ => self.base.catalogue(at),
        }
    }

    fn last(&self) -> LogPosition {
        self.base.last()
    }

    fn position_at(&self, micros: i64) -> Result<TimePoint, Miss> {
        self.base.position_at(micros)
    }

    fn time_of(&self, at: LogPosition) -> Result<Option<i64>, Miss> {
        self.base.time_of(at)
    }

    fn count(&self, scan: &Scan<'_>) -> Result<Option<u64>, Miss> {
        self.base.count(scan)
    }

    fn holds_key(&self, table: &Table, key: &[Value], at: LogPosition) -> Result<bool, Miss> {
        let overlay = self.overlay;
        if at == self.at && !overlay.ends_before(table.id, key) {
            let own = overlay.writes.get(&(table.id, RowId::Key(key.to_vec())));
            if let Some(write) = own {
                return Ok(write.after.is_some());
            }
        }
        if at == self.at && overlay.truncated.contains(&table.id) {
            return Ok(false);
        }
        self.base.holds_key(table, key, at)
    }

    fn holds_none(
        &self,
        table: &Table,
        first: &[Value],
        last: Option<&[Value]>,
        at: LogPosition,
    ) -> Result<bool, Miss> {
        let overlay = self.overlay;
        if at == self.at && !overlay.ends_before(table.id, first) {
            return Ok(false);
        }
        self.base.holds_none(table, first, last, at)
    }

    fn scan(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        let id = scan.table.id;
        // The key leads to the writes of a range; an index does not.
        let by_key = scan.index.is_none() && scan.table.primary_key.is_some();
        let equal = if by_key { &scan.range.equal[..] } else { &[] };
        let behind = self.overlay.ends_before(id, equal) && !self.overlay.truncated.contains(&id);
        if scan.at != self.at || behind {
            return self.base.scan(scan, each);
        }
        let mut first = equal.to_vec();
        if let (true, Bound::Included(low) | Bound::Excluded(low)) = (by_key, &scan.range.low) {
            first.push(low.clone());
        }
        let first = RowId::Key(first);
        let inside = |row: &RowId| match row {
            RowId::Key(key) if by_key => {
                key.starts_with(equal)
                    && match (&scan.range.high, key.get(equal.len())) {
                        (Bound::Included(high) | Bound::Excluded(high), Some(next)) => next <= high,
                        _ => true,
                    }
            }
            _ => true,
        };
        let written = || {
            let from = self.overlay.writes.range((id, first.clone())..);
            from.take_while(|((table, row), _)| *table == id && inside(row))
        };
        let untouched = !self.overlay.truncated.contains(&id) && written().next().is_none();
        if untouched {
            return self.base.scan(scan, each);
        }
        let order = ScanOrder::of(scan);
        let mut mine: Vec<(Row, &RowId, &Row)> = Vec::new();
        for ((_, row_id), write) in written() {
            let Some(row) = &write.after else { continue };
            let key = order.key_of(row);
            if key.is_empty() || scan.range.holds(&key) {
                mine.push((key, row_id, row));
            }
        }
        mine.sort_by(|a, b| order.compare((&a.0, a.1), (&b.0, b.1)));
        // Where to go on from: how many of the written rows were given, and behind which stored one.
        let name = |given: usize, stored: &[u8]| [&(given as u64).to_be_bytes()[..], stored].concat();
        let (mut given, mut stored) = match scan.after.and_then(<[u8]>::split_first_chunk::<8>) {
            Some((given, stored)) => (u64::from_be_bytes(*given) as usize, stored.to_vec()),
            None => (0, Vec::new()),
        };
        let mut wanted = true;
        let give = |at: usize, stored: &[u8], each: &mut dyn FnMut(Found<'_>) -> bool| {
            let (_, row_id, row) = &mine[at];
            let hidden = match row_id {
                RowId::Hidden(hidden) => Some(*hidden),
                RowId::Key(_) => None,
            };
            each(Found { key: name(at + 1, stored)[..].into(), hidden, version: self.at, row })
        };
        if !self.overlay.truncated.contains(&id) {
            let after = stored.clone();
            let after = Some(&after[..]).filter(|after| !after.is_empty());
            self.base.scan(&Scan { after, reader: None, ..*scan }, &mut |found| {
                let row_id = RowId::of(scan.table, found.row, found.hidden);
                let key = order.key_of(found.row);
                while wanted
                    && mine.get(given).is_some_and(|m| order.compare((&m.0, m.1), (&key, &row_id)).is_lt())
                {
                    wanted = give(given, &stored, each);
                    given += 1;
                }
                if !wanted || self.overlay.writes.contains_key(&(id, row_id)) {
                    return wanted;
                }
                stored.clear();
                stored.extend_from_slice(found.key.0);
                stored.extend_from_slice(found.key.1);
                wanted = each(Found { key: name(given, &stored)[..].into(), ..found });
                wanted
            })?;
        }
        while wanted && given < mine.len() {
            wanted = give(given, &stored, each);
            given += 1;
        }
        Ok(())
    }

    /// What is committed: own writes have no position yet.
    fn history(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        self.base.history(scan, each)
    }

    fn tenant(&self) -> TenantId {
        self.base.tenant()
    }

    fn streams(&self, at: LogPosition, each: &mut dyn FnMut(StreamId, &str, Offset)) {
        self.base.streams(at, each);
    }

    fn stream(&self, scan: &StreamScan, each: &mut dyn FnMut(Record<'_>) -> bool) -> Result<bool, Miss> {
        self.base.stream(scan, each)
    }
}

/// In which order a scan gives rows.
struct ScanOrder {
    /// Places of its columns, and whether larger values and NULL come first.
    columns: Vec<(usize, bool, bool)>,
}

impl ScanOrder {
    fn of(scan: &Scan<'_>) -> Self {
        let columns = match scan.index {
            Some(index) => index
                .columns
                .iter()
                .filter_map(|c| scan.table.place(c.column).map(|at| (at, c.descending, c.nulls_first)))
                .collect(),
            None => {
                scan.table.key_places().unwrap_or_default().into_iter().map(|at| (at, false, false)).collect()
            }
        };
        Self { columns }
    }

    fn key_of(&self, row: &[Value]) -> Row {
        self.columns.iter().map(|(at, ..)| row[*at].clone()).collect()
    }

    /// By the columns, and those that are equal in all of them by their identity.
    fn compare(&self, a: (&[Value], &RowId), b: (&[Value], &RowId)) -> Ordering {
        for ((left, right), (_, descending, nulls_first)) in a.0.iter().zip(b.0).zip(&self.columns) {
            let order = match (left.is_null(), right.is_null()) {
                (false, false) if *descending => right.cmp(left),
                (false, false) => left.cmp(right),
                (left, right) if *nulls_first => right.cmp(&left),
                (left, right) => left.cmp(&right),
            };
            if order.is_ne() {
                return order;
            }
        }
        a.1.cmp(b.1)
    }
}

/// Objects by name, for whoever needs to list them.
pub fn names(catalogue: &Catalogue) -> Vec<String> {
    catalogue.objects().map(|object| object.name().into()).collect()
}
