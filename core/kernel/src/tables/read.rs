//! Rows, catalogues and times at a position.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Bound, ControlFlow};

use kimberlite_probe::mutant;
use kimberlite_row::codec::{Layout, Projection};
use kimberlite_row::fact::{
    Found, FoundKey, HISTORY_COLUMNS, KeyRange, Lifetime, Miss, Record, Rows, Scan, StreamScan, TimePoint,
};
use kimberlite_row::{Catalogue, Index, Object, Row, Table, Value};
use kimberlite_store::{Direction, OBJECT_SIZE, Pages, Progress, Snapshot, StepLimits, Store, VersionScan};
use kimberlite_types::{LogPosition, Offset, Op, StreamId, TenantId};
use kimberlite_wire::Prepare;

use super::keys::{
    CATALOGUE, Interval, TIMES, all_of, hidden_of, index_key, intervals, key_of, orders, row_key_of_entry,
    time_in, time_key,
};
use super::{Tables, missed, stopped};
use crate::stream::{Extent, Tenants, records_of};

/// The rows of one tenant.
#[derive(Clone, Copy)]
pub struct TableRows<'a> {
    tables: &'a Tables,
    tenant: TenantId,
    last: LogPosition,
    pages: &'a dyn Pages,
    streams: Option<StreamsAtHand<'a>>,
}

/// The tenant's streams, and what was read of the log.
#[derive(Clone, Copy)]
struct StreamsAtHand<'a> {
    tenants: &'a Tenants,
    prepares: &'a BTreeMap<Op, Prepare>,
}

/// Ops that one miss of a stream's records names.
const STREAM_OPS_AHEAD: usize = 8;

/// What stands under a key.
#[derive(Clone, Copy)]
pub(super) struct Stored<'r> {
    pub(super) key: &'r [u8],
    pub(super) begin: LogPosition,
    pub(super) value: &'r [u8],
}

impl<'a> TableRows<'a> {
    pub(super) fn new(tables: &'a Tables, tenant: TenantId, last: LogPosition, pages: &'a dyn Pages) -> Self {
        Self { tables, tenant, last, pages, streams: None }
    }

    /// The same, with streams.
    pub(crate) fn with_streams(self, tenants: &'a Tenants, prepares: &'a BTreeMap<Op, Prepare>) -> Self {
        Self { streams: Some(StreamsAtHand { tenants, prepares }), ..self }
    }

    fn store(&self) -> &'a Store {
        &self.tables.store
    }

    /// Gives the keys, in one piece, and values of an interval until `each` answers `false`.
    pub(super) fn interval(
        &self,
        interval: Interval,
        at: LogPosition,
        mut each: impl FnMut(Stored<'_>) -> Result<bool, Miss>,
    ) -> Result<bool, Miss> {
        let mut key = Vec::new();
        self.interval_in_parts(interval, at, |row| {
            key.clear();
            row.key.append_to(&mut key);
            each(Stored { key: &key, begin: row.begin, value: row.value })
        })
    }

    /// The same, the keys as their pages have them.
    fn interval_in_parts(
        &self,
        (low, high): Interval,
        at: LogPosition,
        mut each: impl FnMut(&kimberlite_store::Row<'_>) -> Result<bool, Miss>,
    ) -> Result<bool, Miss> {
        let early = LogPosition { op: Op(at.op.0.saturating_sub(1)), ..at };
        let at = if mutant!(AsOfEarly, at < self.last) { early } else { at };
        let (snapshot, direction) = (Snapshot::At(at), Direction::Forward);
        let mut scan = kimberlite_store::Scan { tenant: self.tenant, snapshot, direction, low, high };
        let mut wanted = Ok(true);
        loop {
            let step =
                self.store().scan(&mut scan, StepLimits::default(), self.pages, |row| match each(row) {
                    Ok(true) => ControlFlow::Continue(()),
                    ended => {
                        wanted = ended;
                        ControlFlow::Break(())
                    }
                });
            match step {
                Err(stop) => return Err(stopped(&stop)),
                Ok(Progress::More) => {}
                Ok(Progress::Done) => return wanted,
            }
        }
    }

    /// The row under a key.
    pub(super) fn row(&self, key: &[u8], at: LogPosition, reader: &Projection) -> Result<Option<Row>, Miss> {
        let found = self.store().get(self.tenant, key, Snapshot::At(at), self.pages);
        let Some(version) = found.map_err(|stop| stopped(&stop))? else { return Ok(None) };
        let mut row = reader.row();
        reader.read(&version.value, &mut row).expect("the kernel wrote this row");
        Ok(Some(row))
    }

    /// Gives the rows of a scan whose index, if it has one, has an entry for each row.
    pub(super) fn scan_filled(
        &self,
        scan: &Scan<'_>,
        each: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> Result<(), Miss> {
        let table = scan.table;
        if let Some(key) = whole_key(scan) {
            return self.point(scan, &key, each);
        }
        // Lookups that find nothing need no layout.
        let mut own: Option<Projection> = None;
        let object = scan.index.map_or(table.id, |index| index.id);
        let mut row = Vec::new();
        let (mut stored, mut entry, mut behind) = (Vec::new(), Vec::new(), Vec::new());
        for (low, high) in intervals(object, &orders(table, scan.index), scan.range) {
            let low = match scan.after {
                Some(after) if after >= &low[..] => {
                    behind.clear();
                    behind.extend_from_slice(after);
                    behind.push(0);
                    core::mem::take(&mut behind)
                }
                _ => low,
            };
            let wanted = self.interval_in_parts((low, high), scan.at, |found| {
                let reader = match scan.reader {
                    Some(reader) => reader,
                    None => own.get_or_insert_with(|| layout_of(table).projection(None)),
                };
                if row.is_empty() {
                    row = reader.row();
                }
                let (head, tail) = found.key.parts();
                if scan.index.is_none() && table.primary_key.is_some() {
                    reader.read(found.value, &mut row).expect("the kernel wrote this row");
                    let key = FoundKey(head, tail);
                    return Ok(each(Found { key, hidden: None, version: found.begin, row: &row }));
                }
                stored.clear();
                found.key.append_to(&mut stored);
                let (version, hidden) = match scan.index {
                    None => {
                        reader.read(found.value, &mut row).expect("the kernel wrote this row");
                        (found.begin, hidden_of(table, &stored))
                    }
                    Some(index) => {
                        entry.clear();
                        row_key_of_entry(table, index, &stored, &mut entry);
                        let stored = self.store().get(self.tenant, &entry, Snapshot::At(scan.at), self.pages);
                        let stored = stored.map_err(|stop| stopped(&stop))?;
                        let stored = stored.expect("an index entry leads to a row");
                        reader.read(&stored.value, &mut row).expect("the kernel wrote this row");
                        (stored.begin, hidden_of(table, &entry))
                    }
                };
                Ok(each(Found { key: FoundKey(head, tail), hidden, version, row: &row }))
            })?;
            if !wanted {
                break;
            }
        }
        Ok(())
    }

    /// Gives the one row of a scan that can be there.
    fn point(
        &self,
        scan: &Scan<'_>,
        key: &[u8],
        each: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> Result<(), Miss> {
        if scan.after.is_some_and(|after| after >= key) {
            return Ok(());
        }
        let found = self.store().get(self.tenant, key, Snapshot::At(scan.at), self.pages);
        let Some(version) = found.map_err(|stop| stopped(&stop))? else { return Ok(()) };
        let own: Projection;
        let reader = if let Some(reader) = scan.reader {
            reader
        } else {
            own = layout_of(scan.table).projection(None);
            &own
        };
        let mut row = reader.row();
        reader.read(&version.value, &mut row).expect("the kernel wrote this row");
        each(Found { key: key.into(), hidden: None, version: version.begin, row: &row });
        Ok(())
    }

    /// Gives the rows of a scan by an index that was not there at that position, as if it had been: a transaction reads by
    /// an index that it made itself.
    fn scan_sorted(
        &self,
        scan: &Scan<'_>,
        index: &Index,
        each: &mut dyn FnMut(Found<'_>) -> bool,
    ) -> Result<(), Miss> {
        let table = scan.table;
        let layout = layout_of(table);
        let wanted = intervals(index.id, &orders(table, Some(index)), scan.range);
        let mut rows = Vec::new();
        self.interval(all_of(table.id), scan.at, |found| {
            let row = layout.decode(found.value).expect("the kernel wrote this row");
            let key = index_key(table, index, &row, found.key);
            let inside = |(low, high): &Interval| *low <= key && high.as_ref().is_none_or(|high| key < *high);
            if scan.after.is_none_or(|after| after < &key[..]) && wanted.iter().any(inside) {
                rows.push((key, hidden_of(table, found.key), found.begin, row));
            }
            Ok(true)
        })?;
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, hidden, version, row) in &rows {
            if !each(Found { key: key[..].into(), hidden: *hidden, version: *version, row }) {
                break;
            }
        }
        Ok(())
    }

    /// The catalogue at a position, from its rows.
    pub(super) fn load(&self, at: LogPosition) -> Result<Catalogue, Miss> {
        let (mut next, mut objects) = (0, Vec::new());
        self.interval(all_of(CATALOGUE), at, |found| {
            if found.key.len() == OBJECT_SIZE {
                next = postcard::from_bytes(found.value).expect("the kernel wrote this number");
            } else {
                let object: Object = postcard::from_bytes(found.value).expect("the kernel wrote this object");
                objects.push(object);
            }
            Ok(true)
        })?;
        Ok(Catalogue::new(objects, next))
    }

    /// The last command at or before a time, with its own time.
    pub(super) fn floor(&self, micros: i64) -> Result<Option<(i64, LogPosition)>, Miss> {
        let (low, _) = all_of(TIMES);
        let mut high = time_key(micros);
        high.push(0);
        let mut scan = kimberlite_store::Scan {
            tenant: self.tenant,
            snapshot: Snapshot::Present,
            direction: Direction::Backward,
            low,
            high: Some(high),
        };
        let mut found = None;
        let one = StepLimits { rows: 1, ..StepLimits::default() };
        let step = self.store().scan(&mut scan, one, self.pages, |row| {
            found = Some((time_in(&row.key.to_vec()), row.begin));
            ControlFlow::Break(())
        });
        step.map_err(|stop| stopped(&stop))?;
        Ok(found)
    }

    /// The time of a command. Times grow with positions, so it is searched between those that are known, and every one that
    /// is met on the way is known from then on.
    fn time_of_command(&self, at: LogPosition, known: &mut Times) -> Result<Option<i64>, Miss> {
        if known.is_empty() {
            let mut first = None;
            self.interval(all_of(TIMES), self.last, |row| {
                first = Some((row.begin, time_in(row.key)));
                Ok(false)
            })?;
            known.extend(first);
            let latest = self.tables.latest(self.tenant, self.pages)?;
            known.extend(latest.micros.map(|micros| (self.store().newest(self.tenant), micros)));
        }
        let mut halved = false;
        let Some((mut from, mut seen)) = known.range(..=at).next_back().map(|(at, time)| (*at, *time)) else {
            return Ok(None);
        };
        // No command has a time behind that of `from` and up to `seen`.
        while from < at {
            let Some((to, until)) = known.range(at..).next().map(|(at, time)| (*at, *time)) else {
                return Ok(None);
            };
            if seen + 1 >= until {
                return Ok(Some(until));
            }
            // Times that grow evenly are met at once; others are halved in every other step.
            let parts = if halved { (1, 2) } else { (at.op.0 - from.op.0, (to.op.0 - from.op.0).max(1)) };
            let part = i128::from(until - seen) * i128::from(parts.0) / i128::from(parts.1);
            let middle = seen.saturating_add(i64::try_from(part).unwrap_or(1)).clamp(seen + 1, until - 1);
            halved = !halved;
            let Some((time, position)) = self.floor(middle)? else { return Ok(None) };
            known.insert(position, time);
            if position <= at {
                (from, seen) = (position, middle);
                if position == at {
                    return Ok(Some(time));
                }
            }
        }
        Ok(Some(seen))
    }
}

/// Times of commands, by their position.
type Times = BTreeMap<LogPosition, i64>;

/// Where a scan of versions goes on: a key, and the end of the version of it that was seen.
fn version_name(key: &[u8], end: Option<LogPosition>) -> Vec<u8> {
    let end = end.unwrap_or(HOLDS);
    [key, &end.op.0.to_be_bytes(), &end.index.to_be_bytes()].concat()
}

/// What [`version_name`] put together; a name that it did not make is of no version.
fn named_version(name: &[u8]) -> Option<(&[u8], Option<LogPosition>)> {
    let (rest, index) = name.split_last_chunk::<4>()?;
    let (key, op) = rest.split_last_chunk::<8>()?;
    let end = LogPosition { op: Op(u64::from_be_bytes(*op)), index: u32::from_be_bytes(*index) };
    Some((key, (end != HOLDS).then_some(end)))
}

/// In a name, the end of a version that holds: no command comes there.
const HOLDS: LogPosition = LogPosition { op: Op(u64::MAX), index: u32::MAX };

/// The key that a scan looks for, if it names all columns of the table's key.
fn whole_key(scan: &Scan<'_>) -> Option<Vec<u8>> {
    let width = scan.table.primary_key.as_ref()?.columns.len();
    let KeyRange { equal, low: Bound::Unbounded, high: Bound::Unbounded } = scan.range else { return None };
    if scan.index.is_some() || equal.len() != width {
        return None;
    }
    Some(key_of(scan.table.id, equal))
}

/// The layout of rows of a table. Tables that do not have one are refused when they are put.
pub(super) fn layout_of(table: &Table) -> Layout {
    Layout::of(table).expect("the table was checked when it was put")
}

impl Rows for TableRows<'_> {
    fn catalogue(&self, at: LogPosition) -> Result<Arc<Catalogue>, Miss> {
        let latest = self.tables.latest(self.tenant, self.pages)?;
        if at >= latest.since {
            return Ok(latest.catalogue);
        }
        self.load(at).map(Arc::new)
    }

    fn last(&self) -> LogPosition {
        self.last
    }

    fn position_at(&self, micros: i64) -> Result<TimePoint, Miss> {
        let latest = self.tables.latest(self.tenant, self.pages)?;
        // The newest command may be installed in part, behind what can be read: its time is of the future still.
        let under_way = self.store().newest(self.tenant) > self.last;
        if latest.micros.is_none_or(|last| micros > last || under_way && micros == last) {
            return Ok(TimePoint::Future);
        }
        // Before the first command there was nothing, and that can be read.
        let at = self.floor(micros)?.map_or(Store::ORIGIN, |(_, at)| at);
        let kept = at >= self.store().horizon(self.tenant);
        Ok(if kept { TimePoint::At(at) } else { TimePoint::TooOld })
    }

    fn time_of(&self, at: LogPosition) -> Result<Option<i64>, Miss> {
        let latest = self.tables.latest(self.tenant, self.pages)?;
        let Some(last) = latest.micros.filter(|_| at < self.store().newest(self.tenant)) else {
            return Ok(latest.micros);
        };
        // Times and positions grow together: the last time whose command is not behind `at`. It is mostly a recent one, so
        // steps from the end on double until they are behind it.
        let (mut low, mut high, mut found, mut back) = (0, last, None, 1);
        while low <= high {
            let middle = (low + (high - low) / 2).max(high.saturating_sub(back));
            match self.floor(middle)? {
                Some((time, position)) if position > at => {
                    high = time - 1;
                    back = back.saturating_mul(2);
                }
                earlier => {
                    found = earlier.map(|(time, _)| time).or(found);
                    low = middle + 1;
                }
            }
        }
        Ok(found)
    }

    fn history(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        let (table, width) = (scan.table, scan.table.columns.len());
        let wanted = |name: &str| {
            let place = HISTORY_COLUMNS.iter().position(|(column, _)| *column == name);
            scan.reader.is_none_or(|reader| place.is_some_and(|at| reader.wants(width + at)))
        };
        let timed = wanted("begin_time") || wanted("end_time");
        let mut times = Times::default();
        let own: Projection;
        let reader = if let Some(reader) = scan.reader {
            reader
        } else {
            own = layout_of(table).projection(None);
            &own
        };
        let mut row = reader.row();
        row.resize(width + HISTORY_COLUMNS.len(), Value::Null);
        let after = scan.after.and_then(named_version);
        for (low, high) in intervals(table.id, &orders(table, None), scan.range) {
            let mut versions = VersionScan::new(self.tenant, low, high);
            if let Some((key, end)) = after
                && key >= &versions.low[..]
            {
                versions.pass(key, end);
            }
            let mut wanted = Ok(true);
            loop {
                let step =
                    self.store().versions(&mut versions, StepLimits::default(), self.pages, |version| {
                        wanted = (|| {
                            if version.begin > scan.at {
                                return Ok(true);
                            }
                            let mut time = |at: LogPosition| {
                                if timed { self.time_of_command(at, &mut times) } else { Ok(None) }
                            };
                            let end = version.end.filter(|end| *end <= scan.at);
                            let lifetime = Lifetime {
                                begin: (version.begin.op, time(version.begin)?),
                                end: end.map(|end| Ok((end.op, time(end)?))).transpose()?,
                                replaces: version.replaces,
                                replaced: version.replaced,
                            };
                            let (columns, rest) = row.split_at_mut(width);
                            reader.read(version.value, columns).expect("the kernel wrote this row");
                            rest.clone_from_slice(&lifetime.values());
                            let key = version_name(version.key, version.end);
                            let hidden = hidden_of(table, version.key);
                            Ok(each(Found { key: key[..].into(), hidden, version: version.begin, row: &row }))
                        })();
                        if matches!(wanted, Ok(true)) {
                            ControlFlow::Continue(())
                        } else {
                            ControlFlow::Break(())
                        }
                    });
                match step {
                    Err(miss) => return Err(missed(&miss)),
                    Ok(Progress::More) => {}
                    Ok(Progress::Done) => break,
                }
            }
            if !wanted? {
                break;
            }
        }
        Ok(())
    }

    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn streams(&self, at: LogPosition, each: &mut dyn FnMut(StreamId, &str, Offset)) {
        let Some(StreamsAtHand { tenants, .. }) = &self.streams else { return };
        for (id, state) in tenants.streams(self.tenant, StreamId(0)).into_iter().flatten() {
            let located = tenants.locate(self.tenant, id, Offset::ZERO);
            let extents = located.map_or(&[][..], |located| located.extents);
            let until = extents.partition_point(|extent| extent.op <= at.op);
            each(id, state.name, extents[..until].last().map_or(Offset::ZERO, Extent::end));
        }
    }

    fn stream(&self, scan: &StreamScan, each: &mut dyn FnMut(Record<'_>) -> bool) -> Result<bool, Miss> {
        let Some(StreamsAtHand { tenants, prepares }) = &self.streams else { return Ok(true) };
        // A stream that is not there has no records.
        let Ok(located) = tenants.locate(self.tenant, scan.stream, scan.from) else { return Ok(true) };
        let until = located.extents.partition_point(|extent| extent.op <= scan.at.op);
        let mut extents = &located.extents[..until];
        let mut given = false;
        while let Some(first) = extents.first() {
            let op = first.op;
            if !scan.whole {
                for offset in first.first.0.max(scan.from.0)..first.end().0 {
                    if !each(Record { offset: Offset(offset), op, written: None }) {
                        return Ok(false);
                    }
                }
                extents = &extents[1..];
                continue;
            }
            let Some(prepare) = prepares.get(&op) else {
                if given {
                    return Ok(false);
                }
                let mut ops: Vec<Op> = extents.iter().map(|extent| extent.op).take(1 << 16).collect();
                ops.dedup();
                ops.retain(|op| !prepares.contains_key(op));
                ops.truncate(STREAM_OPS_AHEAD);
                return Err(Miss::of_ops(ops));
            };
            let micros = (prepare.header.timestamp.0 / 1_000).cast_signed();
            for record in records_of(prepare, extents, scan.from) {
                let (offset, record) = record.expect("the kernel applied this very prepare");
                given = true;
                if !each(Record { offset, op, written: Some((micros, record)) }) {
                    return Ok(false);
                }
            }
            extents = &extents[extents.iter().take_while(|extent| extent.op == op).count()..];
        }
        Ok(true)
    }

    fn count(&self, scan: &Scan<'_>) -> Result<Option<u64>, Miss> {
        let catalogue = self.catalogue(self.last)?;
        let Some(known) = catalogue.table(scan.table.id) else { return Ok(None) };
        if scan.index.is_some_and(|index| known.indexes.iter().all(|known| known.id != index.id)) {
            return Ok(None);
        }
        let object = scan.index.map_or(known.id, |index| index.id);
        let mut sum = 0;
        for (low, high) in intervals(object, &orders(known, scan.index), scan.range) {
            let range = kimberlite_store::KeyRange { low: &low, high: high.as_deref() };
            sum += self.store().count(self.tenant, range, self.pages).map_err(|miss| missed(&miss))?;
        }
        Ok(Some(sum))
    }

    fn holds_none(
        &self,
        table: &Table,
        first: &[Value],
        last: Option<&[Value]>,
        at: LogPosition,
    ) -> Result<bool, Miss> {
        // What is counted is of the present.
        if at < self.store().newest(self.tenant) {
            return Ok(false);
        }
        let low = key_of(table.id, first);
        let (_, mut high) = all_of(table.id);
        if let Some(last) = last {
            high = Some([&key_of(table.id, last)[..], &[0]].concat());
        }
        let range = kimberlite_store::KeyRange { low: &low, high: high.as_deref() };
        let count = self.store().count(self.tenant, range, self.pages);
        Ok(count.map_err(|miss| missed(&miss))? == 0)
    }

    fn holds_key(&self, table: &Table, key: &[Value], at: LogPosition) -> Result<bool, Miss> {
        let found = self.store().get(self.tenant, &key_of(table.id, key), Snapshot::At(at), self.pages);
        Ok(found.map_err(|stop| stopped(&stop))?.is_some())
    }

    fn find(
        &self,
        table: &Table,
        key: Vec<Value>,
        at: LogPosition,
        reader: &Projection,
    ) -> Result<Option<Row>, Miss> {
        self.row(&key_of(table.id, &key), at, reader)
    }

    fn scan(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        if let Some(index) = scan.index {
            let catalogue = self.catalogue(scan.at)?;
            let known = catalogue
                .table(scan.table.id)
                .is_some_and(|table| table.indexes.iter().any(|known| known.id == index.id));
            if !known {
                return self.scan_sorted(scan, index, each);
            }
        }
        self.scan_filled(scan, each)
    }
}
