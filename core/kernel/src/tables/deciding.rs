//! A decision on facts, in bounded steps: a large one is under way for a while, and everything but the log goes on meanwhile.
//!
//! Nothing is written before all is decided. What a step has done is kept when the next one misses pages, so that each page is
//! waited for once. The parts in which constraints are checked are the same on every replica, and so is the first that is
//! refused.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use kimberlite_row::ObjectId;
use kimberlite_row::check::Seen;
use kimberlite_row::fact::{Facts, Miss, Write};
use kimberlite_store::{Pages, VALUE_SIZE_MAX};
use kimberlite_types::{LogPosition, TenantId, WallTime};

use super::decide::{AtHand, Planner, Reshaped, Written, behind, full};
use super::guard::Guards;
use super::keys::{all_of, time_key};
use super::read::layout_of;
use super::schema::{Changed, changed};
use super::{Latest, Net, Refused, Rest, Stop, TableChange, Tables, missed, too_much};
use crate::digest::{ItemSum, TableVersion};
use crate::limits::{CHECKED_ROWS_MAX, COMMAND_BYTES_MAX, COMMAND_WRITES_MAX, GUARDS_MAX, SCHEMA_FACTS_MAX};

/// Writes whose constraints are checked together.
const CHECK_PART: usize = 1024;

/// How far a decision is: what is done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Pieces of the facts are put together.
    Pieces,
    Guards,
    /// Each write is held against what is stored.
    Written,
    /// What is truncated goes.
    Remove,
    /// Stored rows of a table are looked at for its indexes and constraints that are new.
    Reshape,
    /// The parents of these rows are looked for, and those of rows that are written.
    Parents,
    Check,
    Put,
    /// What is written is measured.
    Measure,
}

/// What is decided, and what it is decided on.
#[derive(Clone, Debug)]
struct Ground {
    tenant: TenantId,
    at: LogPosition,
    time: WallTime,
    facts: Facts,
    /// Known from the guards on.
    known: Option<(Latest, Option<Changed>)>,
}

impl Ground {
    fn latest(&self) -> &Latest {
        &self.known.as_ref().expect("the state was read before it is decided on").0
    }

    fn planner<'a>(&'a self, tables: &'a Tables, pages: &'a dyn Pages) -> Planner<'a> {
        let Some((latest, Some(changed))) = &self.known else {
            unreachable!("the guards were held before anything is planned")
        };
        let rows = tables.rows(self.tenant, self.at, pages);
        Planner { before: &latest.catalogue, changed, rows, at: self.at }
    }
}

/// A decision under way. It is about one state: nothing else may be installed before it is done.
#[derive(Clone, Debug)]
pub(crate) struct Deciding {
    ground: Ground,
    pieces: VecDeque<Arc<[u8]>>,
    phase: Phase,
    /// The next item of the phase: a guard, a write, an object, a row.
    next: usize,
    /// The last key that was read of an object.
    last: Option<Vec<u8>>,
    /// Where each write stands, and what is there.
    written: Vec<Written>,
    /// Objects whose rows or entries go; or tables whose rows are looked at.
    objects: VecDeque<ObjectId>,
    /// Keys of written rows of the table that is looked at.
    own: Option<BTreeSet<Vec<u8>>>,
    /// Its other rows, as writes that leave them as they are.
    found: Vec<Write>,
    /// Those of all tables with new constraints, and then the writes with them, in order.
    checked: Vec<Write>,
    seen: Seen,
    net: Net,
    bytes: usize,
    sum: ItemSum,
}

/// What one call has to do at most, in rows; it may do a little more.
#[derive(Debug)]
pub(crate) struct Budget(pub(crate) usize);

impl Budget {
    /// No bound.
    pub(crate) const fn all() -> Self {
        Self(usize::MAX)
    }

    /// Whether nothing is left.
    pub(crate) const fn is_spent(&self) -> bool {
        self.0 == 0
    }

    pub(crate) fn spend(&mut self, rows: usize) {
        self.0 = self.0.saturating_sub(rows);
    }
}

impl Deciding {
    /// What these facts do to the tables of a tenant if they are the command at `at`, which is behind all that was installed.
    pub(crate) fn new(tenant: TenantId, facts: Facts, at: LogPosition, time: WallTime) -> Self {
        Self {
            ground: Ground { tenant, at, time, facts, known: None },
            pieces: VecDeque::new(),
            phase: Phase::Pieces,
            next: 0,
            last: None,
            written: Vec::new(),
            objects: VecDeque::new(),
            own: None,
            found: Vec::new(),
            checked: Vec::new(),
            seen: Seen::default(),
            net: Net::new(),
            bytes: 0,
            sum: ItemSum::default(),
        }
    }

    /// The same of facts in pieces, each an encoding of facts of its own.
    pub(crate) fn of_pieces(
        tenant: TenantId,
        pieces: impl IntoIterator<Item = Arc<[u8]>>,
        at: LogPosition,
        time: WallTime,
    ) -> Self {
        let pieces = pieces.into_iter().collect();
        Self { pieces, ..Self::new(tenant, Facts::default(), at, time) }
    }

    /// The position of the command.
    pub(crate) const fn at(&self) -> LogPosition {
        self.ground.at
    }

    /// Guards of the facts, as far as they are put together.
    pub(crate) fn facts(&self) -> &Facts {
        &self.ground.facts
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.next, self.last) = (phase, 0, None);
    }

    /// Goes on, up to the budget. `None`: there is more to do. After a miss the same call is made again with the pages at hand.
    pub(crate) fn go_on(
        &mut self,
        tables: &Tables,
        pages: &dyn Pages,
        budget: &mut Budget,
    ) -> Result<Option<Result<TableChange, Refused>>, Miss> {
        loop {
            match self.step(tables, pages, budget) {
                Ok(None) if budget.is_spent() => return Ok(None),
                Ok(None) => {}
                Ok(Some(change)) => return Ok(Some(Ok(change))),
                Err(Stop::Refused(refused)) => return Ok(Some(Err(refused))),
                Err(Stop::Miss(miss)) => return Err(miss),
            }
        }
    }

    fn step(
        &mut self,
        tables: &Tables,
        pages: &dyn Pages,
        budget: &mut Budget,
    ) -> Result<Option<TableChange>, Stop> {
        match self.phase {
            Phase::Pieces => self.put_together(budget)?,
            Phase::Guards => return self.hold_guards(tables, pages, budget),
            Phase::Written => self.hold_writes(tables, pages, budget)?,
            Phase::Remove => self.remove(tables, pages, budget)?,
            Phase::Reshape => self.reshape(tables, pages, budget)?,
            Phase::Parents => self.look_for_parents(tables, pages, budget)?,
            Phase::Check => self.check(tables, pages, budget)?,
            Phase::Put => self.put(tables, pages, budget)?,
            Phase::Measure => return self.measure(tables, pages, budget),
        }
        Ok(None)
    }

    /// Takes the next piece of the facts, and holds all so far against the limits.
    fn put_together(&mut self, budget: &mut Budget) -> Result<(), Stop> {
        let facts = &mut self.ground.facts;
        if let Some(piece) = self.pieces.pop_front() {
            let Ok((more, [])) = postcard::take_from_bytes::<Facts>(&piece) else {
                return Err(Refused::Malformed("a piece is no facts").into());
            };
            budget.spend(more.guards.len() + more.schema.len() + more.writes.len());
            facts.guards.extend(more.guards);
            facts.schema.extend(more.schema);
            facts.writes.extend(more.writes);
        }
        for (what, count, max, name) in [
            ("guards", facts.guards.len(), GUARDS_MAX, "GUARDS_MAX"),
            ("changes of the schema", facts.schema.len(), SCHEMA_FACTS_MAX, "SCHEMA_FACTS_MAX"),
            ("written rows", facts.writes.len(), COMMAND_WRITES_MAX, "COMMAND_WRITES_MAX"),
        ] {
            if count > max {
                let message = format!("{count} {what} are more than {max} ({name}); divide the command");
                return Err(too_much(message).into());
            }
        }
        if self.pieces.is_empty() {
            self.enter(Phase::Guards);
        }
        Ok(())
    }

    fn hold_guards(
        &mut self,
        tables: &Tables,
        pages: &dyn Pages,
        budget: &mut Budget,
    ) -> Result<Option<TableChange>, Stop> {
        let Ground { tenant, at, facts, known, .. } = &mut self.ground;
        let (tenant, at) = (*tenant, *at);
        if known.is_none() {
            *known = Some((tables.latest(tenant, pages)?, None));
        }
        let Some((latest, changes)) = known else { unreachable!("it was read") };
        let guards = Guards { store: &tables.store, pages, tenant, catalogue: &latest.catalogue, at };
        while let Some(guard) = facts.guards.get(self.next) {
            guards.check_one(guard, facts)?;
            self.next += 1;
            budget.spend(1);
            if budget.is_spent() {
                return Ok(None);
            }
        }
        if facts.is_empty() {
            let (latest, sum) = (latest.clone(), ItemSum::default());
            return Ok(Some(TableChange { tenant, draft: None, rest: None, latest, rows: 0, sum }));
        }
        *changes = Some(changed(&latest.catalogue, &facts.schema)?);
        // A planner gives them in order.
        let sorted = |writes: &[Write]| writes.is_sorted_by(|a, b| (a.table, &a.id) < (b.table, &b.id));
        if !sorted(&facts.writes) {
            facts.writes.sort_by(|a, b| (a.table, &a.id).cmp(&(b.table, &b.id)));
            if !sorted(&facts.writes) {
                return Err(Refused::Malformed("a row is written twice").into());
            }
        }
        self.enter(Phase::Written);
        Ok(None)
    }

    fn hold_writes(&mut self, tables: &Tables, pages: &dyn Pages, budget: &mut Budget) -> Result<(), Stop> {
        let planner = self.ground.planner(tables, pages);
        let writes = &self.ground.facts.writes;
        let mut hand = None;
        self.written.reserve_exact(writes.len() - self.written.len());
        while let Some(write) = writes.get(self.written.len()) {
            if budget.is_spent() {
                return Ok(());
            }
            self.written.push(planner.written(write, &mut hand)?);
            budget.spend(1);
        }
        self.objects = planner.removed().into();
        self.enter(Phase::Remove);
        Ok(())
    }

    fn remove(&mut self, tables: &Tables, pages: &dyn Pages, budget: &mut Budget) -> Result<(), Stop> {
        let planner = self.ground.planner(tables, pages);
        let Some(object) = self.objects.front() else {
            self.objects = planner.changed.touched.iter().copied().collect();
            self.enter(Phase::Reshape);
            return Ok(());
        };
        let interval = behind(all_of(*object), self.last.as_deref());
        let (net, last) = (&mut self.net, &mut self.last);
        let mut is_full = false;
        let ended = planner.rows.interval(interval, self.ground.at, |found| {
            is_full = net.len() >= COMMAND_WRITES_MAX;
            if !is_full {
                net.insert(found.key.to_vec(), None);
                *last = Some(found.key.to_vec());
                budget.spend(1);
            }
            Ok(!is_full && !budget.is_spent())
        })?;
        if is_full {
            return Err(full().into());
        }
        if ended {
            self.objects.pop_front();
            self.last = None;
        }
        Ok(())
    }

    /// Fills indexes that are new on a table that has rows, and keeps the rows that new constraints are about.
    fn reshape(&mut self, tables: &Tables, pages: &dyn Pages, budget: &mut Budget) -> Result<(), Stop> {
        let planner = self.ground.planner(tables, pages);
        let Some(id) = self.objects.front().copied() else {
            let rows = core::mem::take(&mut self.checked);
            if !rows.is_empty() {
                self.checked = self.ground.facts.writes.clone();
                self.checked.extend(rows);
                self.checked.sort_by(|a, b| (a.table, &a.id).cmp(&(b.table, &b.id)));
            }
            self.enter(Phase::Check);
            return Ok(());
        };
        let Some(reshaped) = planner.reshapes(id) else {
            self.objects.pop_front();
            return Ok(());
        };
        let Reshaped { new, stricter, .. } = &reshaped;
        let (writes, written) = (&self.ground.facts.writes, &self.written);
        let own = self.own.get_or_insert_with(|| {
            let own = writes.iter().zip(written).filter(|(write, _)| write.table == id);
            own.map(|(_, written)| written.key.clone()).collect()
        });
        let layout = layout_of(new);
        let (net, last, found) = (&mut self.net, &mut self.last, &mut self.found);
        let mut many = false;
        let interval = behind(all_of(id), last.as_deref());
        let ended = planner.rows.interval(interval, self.ground.at, |stored| {
            if !own.contains(stored.key) {
                self.next += 1;
                many = self.next > CHECKED_ROWS_MAX;
                let (id, row) = reshaped.index(&layout, &stored, net);
                if *stricter {
                    let (before, after) = (Some(row.clone()), Some(row));
                    found.push(Write { table: new.id, id, before, after });
                }
            }
            *last = Some(stored.key.to_vec());
            budget.spend(1);
            Ok(!many && !budget.is_spent())
        })?;
        if many {
            return Err(too_much(format!(
                "the table \"{}\" has more than {CHECKED_ROWS_MAX} rows (CHECKED_ROWS_MAX): too many to index or check by \
                 one command",
                new.name
            ))
            .into());
        }
        if ended {
            self.enter(Phase::Parents);
        }
        Ok(())
    }

    /// Looks for the parents of all rows of a table that has a new foreign key.
    fn look_for_parents(
        &mut self,
        tables: &Tables,
        pages: &dyn Pages,
        budget: &mut Budget,
    ) -> Result<(), Stop> {
        let planner = self.ground.planner(tables, pages);
        let id = *self.objects.front().expect("a table is at hand");
        let writes = &self.ground.facts.writes;
        if let Some(reshaped) = planner.reshapes(id).filter(Reshaped::has_new_parents) {
            let from = writes.partition_point(|write| write.table < id);
            let own = writes[from..].iter().take_while(|write| write.table == id);
            let after = |write: &'_ Write| write.after.clone();
            for row in self.found.iter().chain(own).skip(self.next).map(after) {
                if budget.is_spent() {
                    return Ok(());
                }
                if let Some(row) = row {
                    planner.new_parents(&reshaped, writes, &row)?;
                }
                self.next += 1;
                budget.spend(1);
            }
        }
        self.checked.append(&mut self.found);
        self.own = None;
        self.objects.pop_front();
        self.enter(Phase::Reshape);
        Ok(())
    }

    fn check(&mut self, tables: &Tables, pages: &dyn Pages, budget: &mut Budget) -> Result<(), Stop> {
        let planner = self.ground.planner(tables, pages);
        let writes = if self.checked.is_empty() { &self.ground.facts.writes } else { &self.checked };
        let end = (self.next + CHECK_PART).min(writes.len());
        let keys = planner.constraints(writes, self.next..end, &self.seen)?;
        self.seen.add(keys);
        budget.spend(end - self.next);
        self.next = end;
        if end == writes.len() {
            (self.checked, self.seen) = (Vec::new(), Seen::default());
            self.enter(Phase::Put);
        }
        Ok(())
    }

    fn put(&mut self, tables: &Tables, pages: &dyn Pages, budget: &mut Budget) -> Result<(), Stop> {
        let planner = self.ground.planner(tables, pages);
        let mut hand: Option<AtHand> = None;
        while let Some(write) = self.ground.facts.writes.get(self.next) {
            if budget.is_spent() {
                return Ok(());
            }
            let row = core::mem::take(&mut self.written[self.next]);
            planner.put_row(write, row, &mut hand, &mut self.net)?;
            self.next += 1;
            budget.spend(1);
        }
        planner.put_catalogue(&self.ground.facts.schema, &mut self.net);
        let micros = self.ground.latest().next_micros(self.ground.time);
        self.net.insert(time_key(micros), Some(Vec::new()));
        self.enter(Phase::Measure);
        Ok(())
    }

    fn measure(
        &mut self,
        tables: &Tables,
        pages: &dyn Pages,
        budget: &mut Budget,
    ) -> Result<Option<TableChange>, Stop> {
        let (tenant, position) = (self.ground.tenant, self.ground.at);
        let key_size_max = tables.store.shape().key_size_max();
        let from = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut reached = None;
        for (key, value) in self.net.range::<[u8], _>((from, Bound::Unbounded)) {
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
            self.bytes += key.len() + size;
            self.sum.add(TableVersion { tenant, key, position, value: value.as_deref() }.lanes());
            budget.spend(1);
            if budget.is_spent() {
                reached = Some(key.clone());
                break;
            }
        }
        if reached.is_some() {
            self.last = reached;
            return Ok(None);
        }
        if self.net.len() > COMMAND_WRITES_MAX || self.bytes > COMMAND_BYTES_MAX {
            return Err(full().into());
        }
        // Measured once, also when the pages of the first batch are missing.
        self.last = self.net.last_key_value().map(|(key, _)| key.clone());
        let rest = Rest { tenant, at: position, net: core::mem::take(&mut self.net) };
        let (batch, next) = rest.batch(&tables.store);
        let draft = match tables.store.plan(&batch, pages) {
            Ok(draft) => draft,
            Err(miss) => {
                self.net = rest.net;
                return Err(missed(&miss).into());
            }
        };
        let Ground { time, facts, known, .. } = &mut self.ground;
        let Some((latest, Some(changed))) = known.take() else { unreachable!("it was read") };
        let micros = latest.next_micros(*time);
        let since = if facts.schema.is_empty() { latest.since } else { position };
        Ok(Some(TableChange {
            tenant,
            draft: Some(draft),
            rest: rest.behind(next),
            latest: Latest { catalogue: changed.catalogue, since, micros: Some(micros) },
            rows: facts.writes.len() as u32,
            sum: self.sum,
        }))
    }
}

impl Tables {
    /// What facts do to the tables of a tenant if they are the command at `at`, which is behind all that was installed.
    /// Changes nothing. Any facts give a decision.
    ///
    /// Costs, besides a path in the trees for each guard, row and index entry: all rows of tables that are truncated, or
    /// that get an index or a constraint.
    pub fn decide(
        &self,
        tenant: TenantId,
        facts: Facts,
        at: LogPosition,
        time: WallTime,
        pages: &dyn Pages,
    ) -> Result<Result<TableChange, Refused>, Miss> {
        let decided = Deciding::new(tenant, facts, at, time).go_on(self, pages, &mut Budget::all());
        Ok(decided?.expect("no budget was set"))
    }
}
