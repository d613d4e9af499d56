//! From facts to the keys that are written: what each part of a decision asks and gives.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use kimberlite_probe::mutant;
use kimberlite_row::cast::kind_fits;
use kimberlite_row::check::{self, Keys, Seen, check_next, find};
use kimberlite_row::codec::{Layout, Projection, TooLarge};
use kimberlite_row::fact::{
    Found, KeyRange, Miss, Record, RowId, Rows, Scan, StreamScan, TimePoint, Write, hidden_at, provisional,
};
use kimberlite_row::schema::{ForeignKey, Index};
use kimberlite_row::{Catalogue, ObjectId, Row, SqlError, SqlState, Table, Value};
use kimberlite_store::{Store, WriteBatch, WriteError};
use kimberlite_types::{LogPosition, Offset, StreamId, TenantId};

use super::keys::{CATALOGUE, Interval, hidden_of, index_key, object_of_catalogue, row_key};
use super::read::{Stored, TableRows, layout_of};
use super::schema::Changed;
use super::{Net, Refused, Rest, Stop, too_much};
use crate::limits::{COMMAND_BYTES_MAX, COMMAND_WRITES_MAX};

pub(super) fn full() -> Refused {
    too_much(format!(
        "the command writes or removes more than {COMMAND_WRITES_MAX} rows and index entries (COMMAND_WRITES_MAX) or \
         {COMMAND_BYTES_MAX} bytes of them (COMMAND_BYTES_MAX); divide it"
    ))
}

impl Rest {
    /// As much as one batch holds, in the order of keys, and the first key behind it. All of it was held against the limits
    /// of a batch but for its size.
    pub(super) fn batch(&self, store: &Store) -> (WriteBatch, Option<Vec<u8>>) {
        let mut batch = WriteBatch::new(store.shape(), self.tenant, self.at);
        for (key, value) in &self.net {
            let put = match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            };
            match put {
                Ok(()) => {}
                Err(WriteError::BatchFull) => {
                    kimberlite_probe::reachable!("kernel.several_batches");
                    return (batch, Some(key.clone()));
                }
                Err(error) => unreachable!("keys and values were measured: {error}"),
            }
        }
        (batch, None)
    }

    /// What is left from this key on, if there is one.
    pub(super) fn behind(mut self, next: Option<Vec<u8>>) -> Option<Self> {
        self.net = self.net.split_off(&next?);
        Some(self)
    }
}

/// Where a row that is written stands, and what stood there.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) key: Vec<u8>,
    pub(super) old: Option<Row>,
}

/// What is worked out of the table at hand, once for all of its rows that follow each other.
pub(super) struct AtHand {
    table: ObjectId,
    key_places: Option<Vec<usize>>,
    layout: Layout,
    reader: Projection,
}

impl AtHand {
    fn of(table: &Table) -> Self {
        let (layout, reader) = (layout_of(table), layout_of(table).projection(None));
        Self { table: table.id, key_places: table.key_places(), layout, reader }
    }
}

pub(super) struct Planner<'a> {
    pub(super) before: &'a Catalogue,
    pub(super) changed: &'a Changed,
    pub(super) rows: TableRows<'a>,
    pub(super) at: LogPosition,
}

impl<'a> Planner<'a> {
    /// The table as it is stored, if its rows stay.
    fn kept(&self, id: ObjectId) -> Option<&'a Table> {
        self.before.table(id).map(|table| &**table).filter(|_| !self.changed.truncated.contains(&id))
    }

    /// Holds a write against its table and against what is stored.
    pub(super) fn written(&self, write: &Write, hand: &mut Option<AtHand>) -> Result<Written, Stop> {
        let table = self.changed.catalogue.table(write.table);
        let table = table.ok_or(Refused::Malformed("a row of no table is written"))?;
        let hand = match hand {
            Some(hand) if hand.table == table.id => hand,
            other => other.insert(AtHand::of(table)),
        };
        check_shape(table, hand.key_places.as_deref(), write)?;
        let key = match &write.id {
            // The machine gives the key, by the count that the planner gave.
            RowId::Hidden(hidden) if write.before.is_none() => {
                let count = hidden[12..].try_into().map(u32::from_be_bytes).unwrap_or_default();
                row_key(table.id, &RowId::Hidden(hidden_at(self.at, count)))
            }
            id => row_key(table.id, id),
        };
        let mut old = None;
        if let Some(before) = &write.before {
            let row = match self.kept(write.table) {
                Some(_) => self.rows.row(&key, self.at, &hand.reader)?,
                None => None,
            };
            let same = row.as_ref() == Some(before);
            if !same && !mutant!(WriteCheckSkipped, row.is_some()) {
                return Err(Refused::Conflict("a row is not what it was").into());
            }
            old = row;
        }
        Ok(Written { key, old })
    }

    /// Tables that are truncated, and their indexes: what stands in them goes. What is dropped stays where it is: it is
    /// reached by its id alone, and no id is given twice.
    pub(super) fn removed(&self) -> Vec<ObjectId> {
        let mut removed = Vec::new();
        for old in self.changed.truncated.iter().filter_map(|id| self.before.table(*id)) {
            let Some(new) = self.changed.catalogue.table(old.id) else { continue };
            removed.push(old.id);
            let stays = |id: ObjectId| new.indexes.iter().any(|index| index.id == id);
            removed.extend(old.indexes.iter().map(|index| index.id).filter(|id| stays(*id)));
        }
        removed
    }

    /// Whether the stored rows of a table have to be looked at, because it has an index or a constraint that is new.
    pub(super) fn reshapes(&self, id: ObjectId) -> Option<Reshaped<'_>> {
        let (old, new) = (self.kept(id)?, self.changed.catalogue.table(id)?);
        let fresh: Vec<_> =
            new.indexes.iter().filter(|index| old.indexes.iter().all(|known| known.id != index.id)).collect();
        let stricter = is_stricter(old, new) || fresh.iter().any(|index| index.unique);
        (stricter || !fresh.is_empty()).then_some(Reshaped { old, new, fresh, stricter })
    }

    /// Whether the values of a row have the parents that new foreign keys of its table ask for.
    pub(super) fn new_parents(
        &self,
        Reshaped { old, new, .. }: &Reshaped<'_>,
        writes: &[Write],
        row: &Row,
    ) -> Result<(), Stop> {
        for key in new.foreign_keys.iter().filter(|key| !old.foreign_keys.contains(key)) {
            let values: Vec<Value> = new.places(&key.columns).iter().map(|at| row[*at].clone()).collect();
            if values.iter().any(Value::is_null) || self.has_parent(key, writes, &values)? {
                continue;
            }
            let message = format!(
                "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
                new.name, key.name
            );
            return Err(Refused::Sql(SqlError::new(SqlState::ForeignKeyViolation, message)).into());
        }
        Ok(())
    }

    fn has_parent(&self, key: &ForeignKey, writes: &[Write], values: &[Value]) -> Result<bool, Stop> {
        let parent = self.changed.catalogue.table(key.parent).expect("the catalogue was checked");
        let places = parent.places(&key.parent_columns);
        let here = writes.iter().filter(|write| write.table == parent.id);
        let fits = |row: &Row| places.iter().zip(values).all(|(at, value)| row[*at] == *value);
        if here.clone().any(|write| write.after.as_ref().is_some_and(fits)) {
            return Ok(true);
        }
        let mut there = false;
        find(&Under { planner: self }, self.at, parent, &key.parent_columns, values, &mut |id, _| {
            there = here.clone().all(|write| write.id != id);
            !there
        })?;
        Ok(there)
    }

    /// Decides the constraints on a part of what is written, and of rows whose table has new ones.
    pub(super) fn constraints(
        &self,
        writes: &[Write],
        part: Range<usize>,
        seen: &Seen,
    ) -> Result<Keys, Stop> {
        let checked =
            check_next(&self.changed.catalogue, writes, part, &Under { planner: self }, self.at, seen);
        if mutant!(ConstraintsPlanned, matches!(checked, Err(check::Stop::Refused(_)))) {
            return Ok(Keys::default());
        }
        Ok(checked?)
    }

    /// Puts a row and moves its index entries; those whose columns stay are left alone.
    pub(super) fn put_row(
        &self,
        write: &Write,
        Written { key, old }: Written,
        hand: &mut Option<AtHand>,
        net: &mut Net,
    ) -> Result<(), Refused> {
        let table = self.changed.catalogue.table(write.table).expect("the write was held against its table");
        let layout = match hand {
            Some(hand) if hand.table == table.id => &hand.layout,
            other => &other.insert(AtHand::of(table)).layout,
        };
        let new = write.after.as_ref();
        let known = self.kept(table.id);
        for index in &table.indexes {
            let entry = |row: &Row| index_key(table, index, row, &key);
            let filled = known.is_some_and(|known| known.indexes.iter().any(|known| known.id == index.id));
            let null = |row: &Row| {
                index.columns.iter().any(|at| table.place(at.column).is_some_and(|at| row[at].is_null()))
            };
            let kept = |row: &&Row| !mutant!(IndexDropsNull, null(row));
            let old = old.as_ref().filter(|_| filled).filter(kept).map(entry);
            let new = new.filter(kept).map(entry);
            if old == new {
                continue;
            }
            let stays = mutant!(IndexEntryStays, old.is_some() && new.is_some());
            net.extend(old.filter(|_| !stays).map(|old| (old, None)));
            net.extend(new.map(|new| (new, Some(Vec::new()))));
        }
        let value = match new {
            None => None,
            Some(row) => {
                let mut bytes = Vec::with_capacity(row.iter().map(encoded_size).sum());
                layout.encode(row, &mut bytes).map_err(|TooLarge { size }| {
                    let most = kimberlite_row::codec::ROW_SIZE_MAX;
                    too_much(format!("a row of {size} bytes is larger than {most} (ROW_SIZE_MAX)"))
                })?;
                Some(bytes)
            }
        };
        net.insert(key, value);
        if net.len() > COMMAND_WRITES_MAX { Err(full()) } else { Ok(()) }
    }

    pub(super) fn put_catalogue(&self, facts: &[kimberlite_row::fact::SchemaFact], net: &mut Net) {
        if facts.is_empty() {
            return;
        }
        let encoded =
            |value: Result<Vec<u8>, postcard::Error>| value.expect("what was decoded can be encoded");
        let after = &self.changed.catalogue;
        for id in &self.changed.touched {
            let object = after.object(*id);
            let value = object.map(|object| encoded(postcard::to_allocvec(object)));
            if value.is_some() || self.before.object(*id).is_some() {
                net.insert(object_of_catalogue(*id), value);
            }
        }
        if after.next_id() != self.before.next_id() {
            let next = encoded(postcard::to_allocvec(&after.next_id().0));
            net.insert(kimberlite_store::object_key(CATALOGUE, &[]), Some(next));
        }
    }
}

/// A table whose stored rows have to be looked at.
pub(super) struct Reshaped<'a> {
    old: &'a Table,
    pub(super) new: &'a Table,
    fresh: Vec<&'a Index>,
    /// Whether rows that were allowed may not be any more.
    pub(super) stricter: bool,
}

impl Reshaped<'_> {
    /// Whether the table has a new foreign key.
    pub(super) fn has_new_parents(&self) -> bool {
        self.new.foreign_keys.iter().any(|key| !self.old.foreign_keys.contains(key))
    }

    /// Puts the entries of a stored row into the indexes that are new, and gives the row.
    pub(super) fn index(&self, layout: &Layout, found: &Stored<'_>, net: &mut Net) -> (RowId, Row) {
        let row = layout.decode(found.value).expect("the kernel wrote this row");
        for index in &self.fresh {
            net.insert(index_key(self.new, index, &row, found.key), Some(Vec::new()));
        }
        (RowId::of(self.new, &row, hidden_of(self.new, found.key)), row)
    }
}

/// What of an interval lies behind a key.
pub(super) fn behind((low, high): Interval, from: Option<&[u8]>) -> Interval {
    (from.map_or(low, |key| [key, &[0]].concat()), high)
}

/// About how many bytes a value takes in a row.
fn encoded_size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len() + 4,
        Value::Bytes(bytes) => bytes.len() + 4,
        _ => 8,
    }
}

/// Whether rows that were allowed in a table may not be in its new version.
fn is_stricter(old: &Table, new: &Table) -> bool {
    let nullable = |id| old.columns.iter().all(|column| column.id != id || !column.not_null);
    new.columns.iter().any(|column| column.not_null && nullable(column.id))
        || new.foreign_keys.iter().any(|key| !old.foreign_keys.contains(key))
}

/// Whether a write is one of a row of its table at all.
fn check_shape(table: &Table, key_places: Option<&[usize]>, write: &Write) -> Result<(), Refused> {
    for row in write.before.iter().chain(&write.after) {
        if row.len() != table.columns.len() {
            return Err(Refused::Malformed("a row does not fit its table"));
        }
    }
    for (column, value) in write.after.iter().flat_map(|row| table.columns.iter().zip(row)) {
        if !kind_fits(value, &column.kind) {
            return Err(Refused::Malformed("a value is not of its column's type"));
        }
    }
    let Some(row) = write.after.as_ref().or(write.before.as_ref()) else {
        return Err(Refused::Malformed("nothing is written to a row that was not there"));
    };
    let sound = match (&write.id, key_places) {
        (RowId::Key(key), Some(places)) => {
            key.len() == places.len() && key.iter().zip(places).all(|(value, at)| row[*at] == *value)
        }
        (RowId::Hidden(hidden), None) => (hidden[..12] == provisional(0)[..12]) == write.before.is_none(),
        _ => false,
    };
    if sound { Ok(()) } else { Err(Refused::Malformed("a row is written under a key that is not its own")) }
}

/// The rows before the command under the schema after it.
struct Under<'a> {
    planner: &'a Planner<'a>,
}

impl Rows for Under<'_> {
    fn holds_none(
        &self,
        table: &Table,
        first: &[Value],
        last: Option<&[Value]>,
        at: LogPosition,
    ) -> Result<bool, Miss> {
        if self.planner.kept(table.id).is_none() {
            return Ok(true);
        }
        self.planner.rows.holds_none(table, first, last, at)
    }

    fn holds_key(&self, table: &Table, key: &[Value], at: LogPosition) -> Result<bool, Miss> {
        if self.planner.kept(table.id).is_none() {
            return Ok(false);
        }
        self.planner.rows.holds_key(table, key, at)
    }

    fn catalogue(&self, _: LogPosition) -> Result<Arc<Catalogue>, Miss> {
        Ok(self.planner.changed.catalogue.clone())
    }

    fn last(&self) -> LogPosition {
        self.planner.rows.last()
    }

    fn position_at(&self, micros: i64) -> Result<TimePoint, Miss> {
        self.planner.rows.position_at(micros)
    }

    fn time_of(&self, at: LogPosition) -> Result<Option<i64>, Miss> {
        self.planner.rows.time_of(at)
    }

    fn scan(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        let Some(known) = self.planner.kept(scan.table.id) else { return Ok(()) };
        // An index that the command makes has no entries yet.
        let index = scan.index.filter(|index| known.indexes.iter().any(|known| known.id == index.id));
        if index.is_none() && scan.index.is_some() {
            return self.planner.rows.scan_filled(&Scan { index, range: &KeyRange::ALL, ..*scan }, each);
        }
        self.planner.rows.scan_filled(scan, each)
    }

    fn history(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        self.planner.rows.history(scan, each)
    }

    fn tenant(&self) -> TenantId {
        self.planner.rows.tenant()
    }

    fn streams(&self, at: LogPosition, each: &mut dyn FnMut(StreamId, &str, Offset)) {
        self.planner.rows.streams(at, each);
    }

    fn stream(&self, scan: &StreamScan, each: &mut dyn FnMut(Record<'_>) -> bool) -> Result<bool, Miss> {
        self.planner.rows.stream(scan, each)
    }
}
