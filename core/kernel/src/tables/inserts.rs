//! Facts that only insert rows, in the order of their keys, into tables of which nothing but the key asks for a look at
//! other rows: no index is unique, and there is no foreign key. They are decided from their encoding, without making values of it.
//!
//! Whether they are allowed is said by [`Tables::decide`] alone: what is not, or is anything else, is left to it. What is
//! taken here is what it would take, and becomes the same keys and values.

use alloc::vec::Vec;

use kimberlite_probe::mutant;
use kimberlite_row::codec::Layout;
use kimberlite_row::fact::{Facts, Miss, RowId, hidden_at};
use kimberlite_row::key::KeyOrder;
use kimberlite_row::raw::Inserts;
use kimberlite_row::schema::IndexColumn;
use kimberlite_row::{Catalogue, Index, ObjectId, Table};
use kimberlite_store::{BATCH_WRITES_MAX, OBJECT_SIZE, Pages, WriteBatch, object_prefix};
use kimberlite_types::{LogPosition, TenantId, WallTime};

use super::guard::Guards;
use super::keys::{row_key, time_key};
use super::read::layout_of;
use super::{Latest, Stop, TableChange, Tables, missed};
use crate::digest::{ItemSum, TableVersion};
use crate::limits::GUARDS_MAX;

/// A table that rows are inserted into.
struct Target<'a> {
    table: &'a Table,
    key_places: Option<Vec<usize>>,
    layout: Layout,
    /// Indexes, and where their columns stand in a row.
    indexes: Vec<(ObjectId, Vec<(usize, KeyOrder)>)>,
}

impl<'a> Target<'a> {
    fn of(table: &'a Table) -> Option<Self> {
        if !table.foreign_keys.is_empty() || table.indexes.iter().any(|index| index.unique) {
            return None;
        }
        let columns = |index: &Index| {
            let column = |of: &IndexColumn| Some((table.place(of.column)?, KeyOrder::from(of)));
            Some((index.id, index.columns.iter().map(column).collect::<Option<_>>()?))
        };
        let indexes = table.indexes.iter().map(columns).collect::<Option<_>>()?;
        Some(Self { table, key_places: table.key_places(), layout: layout_of(table), indexes })
    }
}

/// What is written, before it is known whether its keys are free.
struct Written {
    batch: WriteBatch,
    sum: ItemSum,
    rows: u32,
}

impl Tables {
    /// What facts do whose writes, none decoded yet, are `rest`: the encoding behind their guards. `None` unless they only
    /// insert and may.
    pub(crate) fn decide_inserts(
        &self,
        tenant: TenantId,
        (guards, rest): (&Facts, &[u8]),
        at: LogPosition,
        time: WallTime,
        pages: &dyn Pages,
    ) -> Result<Option<TableChange>, Miss> {
        let fits = |inserts: &Inserts<'_>| (1..BATCH_WRITES_MAX).contains(&inserts.left());
        let Some(inserts) = Inserts::of(rest).filter(fits) else { return Ok(None) };
        if guards.guards.len() > GUARDS_MAX {
            return Ok(None);
        }
        let latest = self.latest(tenant, pages)?;
        let micros = latest.next_micros(time);
        let batch = WriteBatch::new(self.store.shape(), tenant, at);
        let Some(written) = written(inserts, &latest.catalogue, batch, micros) else { return Ok(None) };
        match (Guards { store: &self.store, pages, tenant, catalogue: &latest.catalogue, at }).check(guards) {
            Ok(()) => {}
            Err(Stop::Refused(_)) => return Ok(None),
            Err(Stop::Miss(miss)) => return Err(miss),
        }
        let draft = self.store.plan(&written.batch, pages).map_err(|miss| missed(&miss))?;
        // A key was there: the plan has looked at each.
        if draft.ended() > 0 {
            return Ok(None);
        }
        kimberlite_probe::reachable!("kernel.inserts");
        let Latest { catalogue, since, .. } = latest;
        Ok(Some(TableChange {
            tenant,
            draft: Some(draft),
            rest: None,
            latest: Latest { catalogue, since, micros: Some(micros) },
            rows: written.rows,
            sum: written.sum,
        }))
    }
}

/// The keys and values of the rows and of the command's time, if all is in order and fits in one batch.
fn written(
    mut inserts: Inserts<'_>,
    catalogue: &Catalogue,
    mut batch: WriteBatch,
    micros: i64,
) -> Option<Written> {
    let (tenant, position) = (batch.tenant(), batch.position());
    let mut sum = ItemSum::default();
    let mut put = |key: &[u8], value: &[u8]| {
        sum.add(TableVersion { tenant, key, position, value: Some(value) }.lanes());
        batch.put(key, value).ok()
    };
    let mut target: Option<Target<'_>> = None;
    let (mut key, mut last, mut value, mut entry) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut rows = 0;
    while inserts.advance()? {
        let target = match &target {
            Some(same) if same.table.id == inserts.table() => same,
            _ => target.insert(Target::of(catalogue.table(inserts.table())?)?),
        };
        key.clear();
        if let Some(places) = &target.key_places {
            key.extend_from_slice(&object_prefix(target.table.id));
            inserts.put_key(places, &mut key)?;
        } else {
            let hidden = hidden_at(position, inserts.hidden_count()?);
            key = row_key(target.table.id, &RowId::Hidden(hidden));
        }
        // Only then is it plain that none comes twice.
        if key <= last {
            return None;
        }
        value.clear();
        inserts.put_row(target.table, &target.layout, &mut value)?;
        put(&key, &value)?;
        for (index, columns) in &target.indexes {
            entry.clear();
            entry.extend_from_slice(&object_prefix(*index));
            let null = inserts.put_columns(columns, &mut entry)?;
            entry.extend_from_slice(&key[OBJECT_SIZE..]);
            if !mutant!(IndexDropsNull, null) {
                put(&entry, &[])?;
            }
        }
        core::mem::swap(&mut key, &mut last);
        rows += 1;
    }
    put(&time_key(micros), &[])?;
    Some(Written { batch, sum, rows })
}
