//! What a transaction has written so far, laid over the snapshot it reads.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::fact::{
    Facts, Found, Guard, KeyRange, Miss, RowId, Rows, Scan, SchemaFact, TimePoint, Write,
};
use kimberlite_row::schema::SchemaVersion;
use kimberlite_row::{Catalogue, ObjectId, Row, Sequence, Table};
use kimberlite_types::LogPosition;

/// Uncommitted writes: net, one per row.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// The changed schema, if it was changed.
    pub catalogue: Option<Arc<Catalogue>>,
    /// Changes of the schema, in order.
    pub schema: Vec<SchemaFact>,
    /// Net writes.
    writes: BTreeMap<(ObjectId, RowId), Write>,
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

    /// Adds a write to the net, as planned on the snapshot at a position: what was stored there must be so still.
    pub fn put(&mut self, write: Write, at: LogPosition) {
        let key = (write.table, write.id.clone());
        let own = self.writes.remove(&key);
        if own.is_none() && write.before.is_some() {
            self.guards.push(Guard::Version(write.table, write.id.clone(), at));
        }
        let before = own.map_or(write.before, |own| own.before);
        if before.is_some() || write.after.is_some() {
            self.writes.insert(key, Write { before, ..write });
        }
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

    /// Takes back what was written since an earlier state. What was read since stays read: the client has seen it.
    pub fn restore(&mut self, before: Self) {
        let guards = core::mem::take(&mut self.guards);
        *self = Self { guards, ..before };
    }

    fn guard(&mut self, guard: Guard) {
        if !self.guards.contains(&guard) {
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
        let mut schema = self.schema;
        schema.extend(self.sequences.values().map(|s| SchemaFact::Sequence(s.id, s.last)));
        Facts { guards: self.guards, schema, writes: self.writes.into_values().collect() }
    }
}

/// What old rows hold in a column added later.
pub fn missing(column: &kimberlite_row::Column) -> kimberlite_row::Value {
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

    fn scan(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss> {
        let id = scan.table.id;
        let first = RowId::Key(Vec::new());
        let written = || {
            self.overlay.writes.range((id, first.clone())..).take_while(move |((table, _), _)| *table == id)
        };
        let untouched = !self.overlay.truncated.contains(&id) && written().next().is_none();
        if scan.at != self.at || untouched {
            return self.base.scan(scan, each);
        }
        // A key of the stored rows begins with 0, one of the written rows with 1 and its count.
        let mut wanted = true;
        let written_from = match scan.after {
            Some([1, count @ ..]) => count.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)) + 1,
            after => {
                if !self.overlay.truncated.contains(&id) {
                    let request = Scan { after: after.map(|key| &key[1..]), ..*scan };
                    let mut key = Vec::new();
                    self.base.scan(&request, &mut |found| {
                        let row_id = RowId::of(scan.table, found.row, found.hidden);
                        if self.overlay.writes.contains_key(&(id, row_id)) {
                            return true;
                        }
                        key.clear();
                        key.push(0);
                        key.extend_from_slice(found.key);
                        wanted = each(Found { key: &key, ..found });
                        wanted
                    })?;
                }
                0
            }
        };
        if !wanted {
            return Ok(());
        }
        let places: Vec<usize> = match scan.index {
            Some(index) => index.columns.iter().filter_map(|c| scan.table.place(c.column)).collect(),
            None => scan.table.key_places().unwrap_or_default(),
        };
        for (count, ((_, row_id), write)) in written().enumerate().skip(written_from) {
            let Some(row) = &write.after else { continue };
            let key: Row = places.iter().map(|at| row[*at].clone()).collect();
            if !places.is_empty() && !scan.range.holds(&key) {
                continue;
            }
            let hidden = match row_id {
                RowId::Hidden(hidden) => Some(*hidden),
                RowId::Key(_) => None,
            };
            let mut name = Vec::from([1]);
            name.extend_from_slice(&(count as u64).to_be_bytes());
            if !each(Found { key: &name, hidden, version: self.at, row }) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Objects by name, for whoever needs to list them.
pub fn names(catalogue: &Catalogue) -> Vec<String> {
    catalogue.objects().map(|object| object.name().into()).collect()
}
