//! From facts to the keys that are written.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_probe::mutant;
use kimberlite_row::cast::kind_fits;
use kimberlite_row::check::{check, find};
use kimberlite_row::codec::{Layout, Projection, TooLarge};
use kimberlite_row::fact::{
    Facts, Found, KeyRange, Miss, Record, RowId, Rows, Scan, StreamScan, TimePoint, Write, hidden_at,
    provisional,
};
use kimberlite_row::schema::ForeignKey;
use kimberlite_row::{Catalogue, ObjectId, Row, SqlError, SqlState, Table, Value};
use kimberlite_store::{Pages, Store, VALUE_SIZE_MAX, WriteBatch, WriteError};
use kimberlite_types::{LogPosition, Offset, StreamId, TenantId, WallTime};

use super::guard::Guards;
use super::keys::{
    CATALOGUE, Interval, all_of, hidden_of, index_key, object_of_catalogue, row_key, time_key,
};
use super::read::{TableRows, layout_of};
use super::schema::{Changed, changed};
use super::{Latest, Net, Refused, Rest, Stop, TableChange, Tables, missed, too_much};
use crate::digest::{ItemSum, TableVersion};
use crate::limits::{CHECKED_ROWS_MAX, COMMAND_BYTES_MAX, COMMAND_WRITES_MAX, GUARDS_MAX, SCHEMA_FACTS_MAX};

impl Tables {
    /// What facts do to the tables of a tenant if they are the command at `at`, which is behind all that was installed.
    /// Changes nothing. Any facts give a decision.
    ///
    /// Costs, besides a path in the trees for each guard, row and index entry: all rows of tables that are dropped or
    /// truncated, or that get an index or a constraint.
    pub fn decide(
        &self,
        tenant: TenantId,
        facts: &Facts,
        at: LogPosition,
        time: WallTime,
        pages: &dyn Pages,
    ) -> Result<Result<TableChange, Refused>, Miss> {
        match self.decided(tenant, facts, at, time, pages) {
            Ok(change) => Ok(Ok(change)),
            Err(Stop::Refused(refused)) => Ok(Err(refused)),
            Err(Stop::Miss(miss)) => Err(miss),
        }
    }

    fn decided(
        &self,
        tenant: TenantId,
        facts: &Facts,
        at: LogPosition,
        time: WallTime,
        pages: &dyn Pages,
    ) -> Result<TableChange, Stop> {
        let latest = self.latest(tenant, pages)?;
        for (what, count, max, name) in [
            ("guards", facts.guards.len(), GUARDS_MAX, "GUARDS_MAX"),
            ("changes of the schema", facts.schema.len(), SCHEMA_FACTS_MAX, "SCHEMA_FACTS_MAX"),
            ("written rows", facts.writes.len(), COMMAND_WRITES_MAX, "COMMAND_WRITES_MAX"),
        ] {
            if count > max {
                return Err(too_much(format!(
                    "{count} {what} are more than {max} ({name}); divide the command"
                ))
                .into());
            }
        }
        let guards = Guards { store: &self.store, pages, tenant, catalogue: &latest.catalogue, at };
        guards.check(facts)?;
        if facts.is_empty() {
            return Ok(TableChange {
                tenant,
                draft: None,
                rest: None,
                latest,
                rows: 0,
                sum: ItemSum::default(),
            });
        }
        let changed = changed(&latest.catalogue, &facts.schema)?;
        let planner =
            Planner { before: &latest.catalogue, changed: &changed, rows: self.rows(tenant, at, pages), at };
        let written = planner.written(&facts.writes)?;
        let mut net = Net::new();
        planner.remove(&mut net)?;
        let looked_at = planner.reshape(&facts.writes, &written, &mut net)?;
        let checked = planner.constraints(&facts.writes, looked_at);
        if !mutant!(ConstraintsPlanned, checked.is_err()) {
            checked?;
        }
        let mut layout: Option<(ObjectId, Layout)> = None;
        for row in written {
            let layout = match &mut layout {
                Some((of, layout)) if *of == row.table.id => layout,
                other => &mut other.insert((row.table.id, layout_of(row.table))).1,
            };
            planner.put_row(row, layout, &mut net)?;
        }
        planner.put_catalogue(&facts.schema, &mut net);
        let micros = latest.next_micros(time);
        net.insert(time_key(micros), Some(Vec::new()));
        let (key_size_max, mut bytes) = (self.store.shape().key_size_max(), 0);
        let mut sum = ItemSum::default();
        for (key, value) in &net {
            let size = value.as_ref().map_or(0, Vec::len);
            if key.len() > key_size_max {
                return Err(
                    too_much(format!("a key of {} bytes is longer than {key_size_max}", key.len())).into()
                );
            }
            if size > VALUE_SIZE_MAX {
                return Err(
                    too_much(format!("a value of {size} bytes is longer than {VALUE_SIZE_MAX}")).into()
                );
            }
            bytes += key.len() + size;
            sum.add(TableVersion { tenant, key, position: at, value: value.as_deref() }.lanes());
        }
        if net.len() > COMMAND_WRITES_MAX || bytes > COMMAND_BYTES_MAX {
            return Err(full().into());
        }
        let rest = Rest { tenant, at, net };
        let (batch, next) = rest.batch(&self.store);
        let draft = self.store.plan(&batch, pages).map_err(|miss| missed(&miss))?;
        let since = if facts.schema.is_empty() { latest.since } else { at };
        Ok(TableChange {
            tenant,
            draft: Some(draft),
            rest: rest.behind(next),
            latest: Latest { catalogue: changed.catalogue, since, micros: Some(micros) },
            rows: facts.writes.len() as u32,
            sum,
        })
    }
}

fn full() -> Refused {
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

/// One row that is written, where it stands and what stood there.
struct Written<'a> {
    table: &'a Table,
    key: Vec<u8>,
    old: Option<Row>,
    new: Option<&'a Row>,
}

/// Rows of tables whose schema changed so that they had to be looked at, without those that are written.
type LookedAt = Vec<(Arc<Table>, Vec<(RowId, Row)>)>;

struct Planner<'a> {
    before: &'a Catalogue,
    changed: &'a Changed,
    rows: TableRows<'a>,
    at: LogPosition,
}

impl<'a> Planner<'a> {
    /// The table as it is stored, if its rows stay.
    fn kept(&self, id: ObjectId) -> Option<&'a Table> {
        self.before.table(id).map(|table| &**table).filter(|_| !self.changed.truncated.contains(&id))
    }

    /// Holds every write against its table and against what is stored.
    fn written<'w>(&self, writes: &'w [Write]) -> Result<Vec<Written<'w>>, Stop>
    where
        'a: 'w,
    {
        // A planner gives them in order; only then is it plain that none comes twice.
        let name = |write: &'w Write| (write.table, &write.id);
        let mut seen = BTreeSet::new();
        if !writes.is_sorted_by(|a, b| name(a) < name(b)) && !writes.iter().all(|w| seen.insert(name(w))) {
            return Err(Refused::Malformed("a row is written twice").into());
        }
        let mut reader: Option<(ObjectId, Projection)> = None;
        let mut shape: Option<(ObjectId, Option<Vec<usize>>)> = None;
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            let table = self.changed.catalogue.table(write.table);
            let table: &'w Table = table.ok_or(Refused::Malformed("a row of no table is written"))?;
            let key_places = match &mut shape {
                Some((of, places)) if *of == table.id => places,
                other => &mut other.insert((table.id, table.key_places())).1,
            };
            check_shape(table, key_places.as_deref(), write)?;
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
                let reader = match &mut reader {
                    Some((of, reader)) if *of == table.id => reader,
                    other => &mut other.insert((table.id, layout_of(table).projection(None))).1,
                };
                let row = match self.kept(write.table) {
                    Some(_) => self.rows.row(&key, self.at, reader)?,
                    None => None,
                };
                let same = row.as_ref() == Some(before);
                if !same && !mutant!(WriteCheckSkipped, row.is_some()) {
                    return Err(Refused::Conflict("a row is not what it was").into());
                }
                old = row;
            }
            written.push(Written { table, key, old, new: write.after.as_ref() });
        }
        Ok(written)
    }

    /// Removes the rows of tables that are truncated, and their index entries. What is dropped stays where it is: it is
    /// reached by its id alone, and no id is given twice.
    fn remove(&self, net: &mut Net) -> Result<(), Stop> {
        for old in self.changed.truncated.iter().filter_map(|id| self.before.table(*id)) {
            let Some(new) = self.changed.catalogue.table(old.id) else { continue };
            self.remove_all(all_of(old.id), net)?;
            let stays = |id: ObjectId| new.indexes.iter().any(|index| index.id == id);
            for index in old.indexes.iter().filter(|index| stays(index.id)) {
                self.remove_all(all_of(index.id), net)?;
            }
        }
        Ok(())
    }

    fn remove_all(&self, keys: Interval, net: &mut Net) -> Result<(), Stop> {
        let mut is_full = false;
        self.rows.interval(keys, self.at, |found| {
            is_full = net.len() >= COMMAND_WRITES_MAX;
            if !is_full {
                net.insert(found.key.to_vec(), None);
            }
            Ok(!is_full)
        })?;
        if is_full { Err(full().into()) } else { Ok(()) }
    }

    /// Fills indexes that are new on tables that have rows, and gives the rows that new constraints are about.
    fn reshape(&self, writes: &[Write], written: &[Written<'_>], net: &mut Net) -> Result<LookedAt, Stop> {
        let mut looked_at = LookedAt::new();
        for id in &self.changed.touched {
            let (Some(old), Some(new)) = (self.kept(*id), self.changed.catalogue.table(*id)) else {
                continue;
            };
            let fresh: Vec<_> = new
                .indexes
                .iter()
                .filter(|index| old.indexes.iter().all(|known| known.id != index.id))
                .collect();
            if fresh.is_empty() && !is_stricter(old, new) {
                continue;
            }
            let mine: BTreeSet<&[u8]> =
                written.iter().filter(|row| row.table.id == *id).map(|row| &row.key[..]).collect();
            let layout = layout_of(new);
            let (mut rows, mut many) = (Vec::new(), false);
            self.rows.interval(all_of(*id), self.at, |found| {
                if mine.contains(found.key) {
                    return Ok(true);
                }
                let row = layout.decode(found.value).expect("the kernel wrote this row");
                for index in &fresh {
                    net.insert(index_key(new, index, &row, found.key), Some(Vec::new()));
                }
                rows.push((RowId::of(new, &row, hidden_of(new, found.key)), row));
                many = rows.len() > CHECKED_ROWS_MAX;
                Ok(!many)
            })?;
            if many {
                return Err(too_much(format!(
                    "the table \"{}\" has more than {CHECKED_ROWS_MAX} rows (CHECKED_ROWS_MAX): too many to \
                     index or check by one command",
                    new.name
                ))
                .into());
            }
            self.new_parents(old, new, writes, &rows)?;
            looked_at.push((new.clone(), rows));
        }
        Ok(looked_at)
    }

    /// Whether each row of a table has the parents that its new foreign keys ask for.
    fn new_parents(
        &self,
        old: &Table,
        new: &Table,
        writes: &[Write],
        rows: &[(RowId, Row)],
    ) -> Result<(), Stop> {
        for key in new.foreign_keys.iter().filter(|key| !old.foreign_keys.contains(key)) {
            let after = writes.iter().filter(|write| write.table == new.id).filter_map(|w| w.after.as_ref());
            for row in rows.iter().map(|(_, row)| row).chain(after) {
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

    /// Decides the constraints on what is written, and on rows whose table has new ones.
    fn constraints(&self, writes: &[Write], looked_at: LookedAt) -> Result<(), Stop> {
        let under = Under { planner: self };
        if looked_at.is_empty() {
            return Ok(check(&self.changed.catalogue, writes, &under, self.at)?);
        }
        let mut all = writes.to_vec();
        for (table, rows) in looked_at {
            let same = |(id, row): (RowId, Row)| Write {
                table: table.id,
                id,
                before: Some(row.clone()),
                after: Some(row),
            };
            all.extend(rows.into_iter().map(same));
        }
        Ok(check(&self.changed.catalogue, &all, &under, self.at)?)
    }

    /// Puts a row and moves its index entries; those whose columns stay are left alone.
    fn put_row(&self, written: Written<'_>, layout: &Layout, net: &mut Net) -> Result<(), Refused> {
        let Written { table, key, old, new } = written;
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

    fn put_catalogue(&self, facts: &[kimberlite_row::fact::SchemaFact], net: &mut Net) {
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
