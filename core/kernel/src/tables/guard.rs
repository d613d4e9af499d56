//! Whether what must still hold does.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use kimberlite_probe::mutant;
use kimberlite_row::fact::{Facts, Guard, KeyRange, RowId, SchemaFact, Write};
use kimberlite_row::{Catalogue, ObjectId, Table, Value};
use kimberlite_store::{Direction, Pages, Scan, Snapshot, StepLimits, Store};
use kimberlite_types::{LogPosition, TenantId};

use super::keys::{Interval, all_of, intervals, orders, row_key};
use super::{Refused, Stop, missed, stopped};

/// The state that guards are held against.
pub(super) struct Guards<'a> {
    pub(super) store: &'a Store,
    pub(super) pages: &'a dyn Pages,
    pub(super) tenant: TenantId,
    pub(super) catalogue: &'a Arc<Catalogue>,
    /// The position of the command that has them.
    pub(super) at: LogPosition,
}

/// What a guard is about.
enum Object<'a> {
    Known(&'a Table),
    /// The command itself makes it, so that nothing of it is there.
    New,
    /// It was there once.
    Gone,
}

impl Guards<'_> {
    /// Refuses by the first guard that does not hold.
    pub(super) fn check(&self, facts: &Facts) -> Result<(), Stop> {
        for guard in &facts.guards {
            self.check_one(guard, facts)?;
        }
        Ok(())
    }

    pub(super) fn check_one(&self, guard: &Guard, facts: &Facts) -> Result<(), Stop> {
        let (holds, otherwise) = match guard {
            // The kernel has held it against its streams.
            Guard::StreamEnds(..) => (true, "a stream went on"),
            Guard::NameFree(name) => (!self.catalogue.taken(name), "the name was taken"),
            Guard::Schema(id, version) => {
                // A transaction may also go by a version that it makes itself, on top of one that it guards.
                let made = |fact: &SchemaFact| matches!(fact, SchemaFact::Put(object) if object.id() == *id && object.version() == *version);
                let stored = self.catalogue.object(*id).is_some_and(|object| object.version() == *version);
                (stored || facts.schema.iter().any(made), "the schema changed")
            }
            Guard::Version(table, id, since) => {
                let key = row_key(*table, id);
                let high = [&key[..], &[0]].concat();
                let changed = self.changed(&[(key, Some(high))], *since)?;
                (!changed || mutant!(WriteCheckSkipped, changed), "the row was changed")
            }
            Guard::Absent(table, index, key) => (self.absent(*table, *index, key)?, "a row was added"),
            Guard::Unchanged(table, index, range, since) => {
                let unchanged = self.unchanged(*table, *index, range, *since)?;
                let written = |write: &Write| {
                    let key = if let RowId::Key(key) = &write.id { range.holds(key) } else { false };
                    key && index.is_none() && write.table == *table && write.before.is_some()
                };
                let skipped = mutant!(WriteCheckSkipped, !unchanged && facts.writes.iter().any(written));
                (unchanged || skipped, "what was read was changed")
            }
        };
        if holds { Ok(()) } else { Err(Refused::Conflict(otherwise).into()) }
    }

    fn object(&self, table: ObjectId) -> Object<'_> {
        match self.catalogue.table(table) {
            Some(table) => Object::Known(table),
            None if table >= self.catalogue.next_id() => Object::New,
            None => Object::Gone,
        }
    }

    fn changed(&self, intervals: &[Interval], since: LogPosition) -> Result<bool, Stop> {
        if since >= self.at {
            return Err(Refused::Malformed("a guard goes by a position of the future").into());
        }
        for (low, high) in intervals {
            let range = kimberlite_store::KeyRange { low, high: high.as_deref() };
            match self.store.changed_since(self.tenant, range, since, self.pages) {
                Ok(false) => {}
                Ok(true) => return Ok(true),
                Err(kimberlite_store::Stop::Miss(miss)) => return Err(missed(&miss).into()),
                Err(kimberlite_store::Stop::TooOld { .. }) => {
                    return Err(Refused::Conflict("versions that a guard asks for were removed").into());
                }
            }
        }
        Ok(false)
    }

    fn unchanged(
        &self,
        table: ObjectId,
        index: Option<ObjectId>,
        range: &KeyRange,
        since: LogPosition,
    ) -> Result<bool, Stop> {
        let known = match self.object(table) {
            Object::Known(known) => known,
            Object::New => return Ok(true),
            Object::Gone => return Ok(false),
        };
        let intervals = match index.map(|id| (id, known.indexes.iter().find(|index| index.id == id))) {
            None => intervals(table, &orders(known, None), range),
            Some((id, Some(index))) => intervals(id, &orders(known, Some(index)), range),
            // Read by an index that the command itself makes, so the table was read.
            Some((id, None)) if id >= self.catalogue.next_id() => [all_of(table)].into(),
            Some((_, None)) => return Ok(false),
        };
        let changed = self.changed(&intervals, since)?;
        Ok(!changed || mutant!(PhantomMissed, changed && self.rows_stay(&intervals, since)?))
    }

    /// Whether each row that was there is there still, whatever is new. No guard is held by this: a planted bug is.
    fn rows_stay(&self, intervals: &[Interval], since: LogPosition) -> Result<bool, Stop> {
        let mut stay = true;
        for (low, high) in intervals {
            let (snapshot, direction) = (Snapshot::At(since), Direction::Forward);
            let (low, high) = (low.clone(), high.clone());
            let mut scan = Scan { tenant: self.tenant, snapshot, direction, low, high };
            let mut keys = Vec::new();
            let limits = StepLimits { rows: u32::MAX, pages: u32::MAX };
            let step = self.store.scan(&mut scan, limits, self.pages, |row| {
                keys.push((row.key.to_vec(), row.begin));
                ControlFlow::Continue(())
            });
            step.map_err(|stop| stopped(&stop))?;
            for (key, begin) in keys {
                let now = self.store.get(self.tenant, &key, Snapshot::Present, self.pages);
                stay &= now.map_err(|stop| stopped(&stop))?.is_some_and(|version| version.begin == begin);
            }
        }
        Ok(stay)
    }

    fn absent(&self, table: ObjectId, index: Option<ObjectId>, key: &[Value]) -> Result<bool, Stop> {
        let known = match self.object(table) {
            Object::Known(known) => known,
            Object::New => return Ok(true),
            Object::Gone => return Ok(false),
        };
        let (object, orders) = match index {
            None => (table, orders(known, None)),
            Some(id) => match known.indexes.iter().find(|index| index.id == id) {
                Some(index) => (id, orders(known, Some(index))),
                None => return Ok(false),
            },
        };
        if key.len() > orders.len() {
            return Err(Refused::Malformed("a guard on more columns than there are").into());
        }
        let intervals: Vec<Interval> = intervals(object, &orders, &KeyRange::equal(key.to_vec()));
        for (low, high) in &intervals {
            let range = kimberlite_store::KeyRange { low, high: high.as_deref() };
            let count = self.store.count(self.tenant, range, self.pages);
            if count.map_err(|miss| missed(&miss))? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
