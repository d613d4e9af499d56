//! Execution: push pipelines.
//!
//! A [`Program`] is a list of pipelines, each with a source, stages and a sink. Only sources see pages: reading
//! ([`Execution::read`]) takes `&self` and may miss; what was read is then pushed through the stages
//! ([`Execution::advance`]), which never see a page and cannot miss. A paused [`Execution`] is a plain value.

pub mod aggregate;
mod batch;
mod compile;
mod hash;
mod lookup;
mod sort;
mod source;
mod stage;
mod stream;
mod window;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::codec::Projection;
use kimberlite_row::fact::{KeyRange, Miss, Rows};
use kimberlite_row::{Row, SqlError, Table, Value};
use kimberlite_types::LogPosition;

use batch::Batch;
pub use compile::{LateQuery, compile, compile_expression, compile_late};
use hash::Keys;
pub(crate) use lookup::Lookup;
use source::Cursor;
pub use source::Read;
use stage::State;

use crate::eval::{Kept, Scope, Shared};
use crate::expr::{Ask, Expr};
use crate::limits::SCAN_BATCH_ROWS;
use crate::plan::{AggregateCall, JoinKind, SetOp, SortKey, TableFunction, WindowCall};

/// A compiled plan.
#[derive(Debug)]
pub struct Program {
    pub(crate) pipelines: Vec<Pipeline>,
    /// Columns of the enclosing query's row that it needs, in the order in which it expects them.
    pub outer: Vec<crate::expr::Col>,
    /// The columns it gives.
    pub layout: Vec<crate::expr::Col>,
}

#[derive(Debug)]
pub(crate) struct Pipeline {
    source: Source,
    stages: Vec<Stage>,
    sink: Sink,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// Rows of expressions.
    Values(Vec<Vec<Expr>>),
    /// A table or index.
    Scan(Box<ScanSource>),
    /// A stream.
    Stream(Box<StreamSource>),
    /// Rows kept.
    Slot(usize, Option<Vec<usize>>),
    /// A function that gives rows.
    Function(TableFunction, Vec<Expr>, bool),
    /// A subquery per kept row.
    Apply(ApplySource),
    /// A recursive query.
    Recursive(RecursiveSource),
}

#[derive(Debug)]
pub(crate) struct ScanSource {
    table: Arc<Table>,
    index: Option<usize>,
    places: Vec<usize>,
    /// Reads those, and of an index those of the key, which the guards of its rows name.
    reader: Projection,
    identity: bool,
    at: Option<LogPosition>,
    versions: bool,
    equal: Vec<Expr>,
    low: Option<(Expr, bool)>,
    high: Option<(Expr, bool)>,
    any: Vec<Expr>,
    /// What rows are held against before they are batched.
    tests: Vec<Test>,
}

#[derive(Debug)]
pub(crate) struct StreamSource {
    name: Expr,
    places: Vec<usize>,
    at: Option<LogPosition>,
    low: Option<(Expr, bool)>,
    high: Option<(Expr, bool)>,
}

/// A comparison of a column, by its place in the scan's rows, with what does not depend on the row and cannot fail.
#[derive(Debug)]
pub(crate) struct Test {
    place: usize,
    comparison: crate::expr::Comparison,
    value: Expr,
}

#[derive(Debug)]
pub(crate) enum Asked {
    /// A value per row.
    Value(Ask),
    /// Joined rows; true keeps rows without any, and the condition.
    Rows(bool, usize, Option<Expr>),
}

#[derive(Debug)]
pub(crate) struct ApplySource {
    input: usize,
    program: Arc<Program>,
    /// Values for the program's outer columns.
    outer: Vec<Expr>,
    asked: Asked,
    /// Whether equal outer values give equal answers.
    repeatable: bool,
}

#[derive(Debug)]
pub(crate) struct RecursiveSource {
    slot: usize,
    first: Arc<Program>,
    step: Arc<Program>,
    first_outer: Vec<Expr>,
    step_outer: Vec<Expr>,
    first_places: Vec<usize>,
    step_places: Vec<usize>,
    distinct: bool,
}

#[derive(Debug)]
pub(crate) enum Stage {
    Filter(Vec<Expr>),
    Project(Vec<Expr>),
    Pick(Vec<usize>),
    HashJoin {
        slot: usize,
        kind: JoinKind,
        keys: Vec<Expr>,
        rest: Option<Expr>,
        left_width: usize,
        right_width: usize,
    },
    LoopJoin {
        slot: usize,
        kind: JoinKind,
        on: Option<Expr>,
        left_width: usize,
        right_width: usize,
    },
    Limit {
        limit: Option<Expr>,
        offset: Option<Expr>,
        ties: Option<Vec<SortKey>>,
    },
    Distinct(Vec<usize>),
    DistinctOn(Vec<Expr>),
    SetProbe {
        slot: usize,
        op: SetOp,
        all: bool,
        left: Vec<usize>,
        right: Vec<usize>,
    },
}

#[derive(Debug)]
pub(crate) enum Sink {
    Output,
    /// Into a slot.
    Keep(usize),
    /// Into a slot, with a sorted set of the first column.
    KeepSet(usize),
    /// Into a slot, with a hash table.
    Build(usize, Vec<Expr>),
    /// Into a slot, in order; of so many rows, if no more are wanted.
    Sort(usize, Vec<SortKey>, Option<usize>),
    Aggregate(usize, AggregateSpec),
    Window(usize, Vec<WindowCall>),
}

#[derive(Debug)]
pub(crate) struct AggregateSpec {
    groups: Vec<Expr>,
    calls: Vec<AggregateCall>,
    sets: Vec<Vec<usize>>,
    grouping: bool,
}

impl Stage {
    fn is_join(&self) -> bool {
        matches!(self, Self::HashJoin { .. } | Self::LoopJoin { .. })
    }
}

/// A hash table over kept rows.
#[derive(Debug, Default)]
pub(crate) struct Built {
    keys: Keys,
    rows: Vec<Vec<u32>>,
}

#[derive(Debug, Default)]
enum Collected {
    #[default]
    None,
    Rows(Vec<Row>),
    Build(Built, Vec<Row>),
    Sort(Vec<(Vec<Value>, Row)>),
    Groups(Keys, Vec<Vec<aggregate::State>>),
}

/// A program that runs: a plain value between steps.
#[derive(Debug)]
pub struct Execution {
    program: Arc<Program>,
    pipeline: usize,
    cursor: Cursor,
    states: Vec<State>,
    collected: Collected,
    slots: Vec<Option<Arc<Kept>>>,
    builds: Vec<Option<Arc<Built>>>,
    outer: Vec<Value>,
    /// Rows that wait before a stage, those of the last stage behind: a join stops when it has done enough for one step.
    pending: Vec<(usize, Vec<Row>)>,
    /// Whether the source of the pipeline is at its end.
    ended: bool,
    /// Stages that were told so.
    finished: usize,
    /// Rows that are ready.
    pub output: Vec<Row>,
    done: bool,
}

impl Execution {
    /// Starts a program with the values of its outer columns and the slots of the enclosing one.
    pub fn new(program: Arc<Program>, outer: Vec<Value>, slots: Vec<Option<Arc<Kept>>>) -> Self {
        let mut execution = Self {
            done: program.pipelines.is_empty(),
            program,
            pipeline: 0,
            cursor: Cursor::Start,
            states: Vec::new(),
            collected: Collected::None,
            slots,
            builds: Vec::new(),
            outer,
            pending: Vec::new(),
            ended: false,
            finished: 0,
            output: Vec::new(),
        };
        execution.open();
        execution
    }

    /// What lies in the slots.
    pub fn slots(&self) -> &[Option<Arc<Kept>>] {
        &self.slots
    }

    /// Whether all rows have been given.
    pub fn is_done(&self) -> bool {
        self.done
    }

    fn open(&mut self) {
        self.cursor = Cursor::Start;
        self.ended = false;
        self.finished = 0;
        let program = self.program.clone();
        let Some(pipeline) = program.pipelines.get(self.pipeline) else {
            self.done = true;
            return;
        };
        self.states = pipeline.stages.iter().map(State::new).collect();
        self.collected = match &pipeline.sink {
            Sink::Output => Collected::None,
            Sink::Keep(_) | Sink::KeepSet(_) | Sink::Window(..) => Collected::Rows(Vec::new()),
            Sink::Build(..) => Collected::Build(Built::default(), Vec::new()),
            Sink::Sort(..) => Collected::Sort(Vec::new()),
            Sink::Aggregate(..) => Collected::Groups(Keys::default(), Vec::new()),
        };
    }

    /// What the next step needs from pages.
    pub fn read(&self, rows: &dyn Rows, at: LogPosition) -> Result<Read, Miss> {
        match self.program.pipelines.get(self.pipeline) {
            Some(pipeline) if !self.done && !self.ended && self.pending.is_empty() => {
                self.cursor.read(&pipeline.source, rows, at)
            }
            _ => Ok(Read::Nothing),
        }
    }

    /// Pushes what was read through the stages.
    pub fn advance(&mut self, read: Read, shared: &mut Shared) -> Result<(), SqlError> {
        if self.done {
            return Ok(());
        }
        let program = self.program.clone();
        let pipeline = &program.pipelines[self.pipeline];
        let mut full = false;
        if let Some((place, batch)) = self.pending.pop() {
            full = self.push(pipeline, place, Batch::Rows(batch), shared)?;
        } else if !self.ended {
            let mut cursor = core::mem::take(&mut self.cursor);
            let mut scope = Scope { outer: &self.outer, slots: &self.slots, shared };
            let (more, batch) = cursor.advance(&pipeline.source, read, &mut scope)?;
            self.ended = !more;
            self.cursor = cursor;
            if batch.len() > 0 {
                shared.work(batch.len() as u64)?;
                full = self.push(pipeline, 0, batch, shared)?;
            }
        }
        if full {
            self.ended = true;
            self.pending.clear();
        }
        while self.ended && self.pending.is_empty() {
            if self.finished == pipeline.stages.len() {
                return self.finish(pipeline, shared);
            }
            let at = self.finished;
            self.finished += 1;
            let last = self.states[at].finish(&pipeline.stages[at], &self.slots);
            if !last.is_empty() {
                self.push(pipeline, at + 1, Batch::Rows(last), shared)?;
            }
        }
        Ok(())
    }

    /// Gives a batch to a stage; true when no more rows are wanted.
    fn push(
        &mut self,
        pipeline: &Pipeline,
        at: usize,
        mut batch: Batch,
        shared: &mut Shared,
    ) -> Result<bool, SqlError> {
        let mut full = false;
        for place in at..pipeline.stages.len() {
            let mut scope = Scope { outer: &self.outer, slots: &self.slots, shared };
            let stage = &pipeline.stages[place];
            batch = match (batch, stage) {
                (Batch::Flat(mut flat), Stage::Filter(conditions)) => {
                    flat.retain(|row| stage::all_hold(conditions, row, &mut scope))?;
                    Batch::Flat(flat)
                }
                (Batch::Flat(flat), Stage::Project(list)) => Batch::Flat(flat.projected(list, &mut scope)?),
                (Batch::Flat(flat), Stage::Pick(places)) => Batch::Flat(flat.picked(places)),
                (batch, stage) => {
                    let mut rows = batch.into_rows();
                    if stage.is_join() {
                        let pairs = self.states[place].join(stage, &mut rows, &self.builds, &mut scope)?;
                        let rest = core::mem::replace(&mut rows, pairs);
                        if !rest.is_empty() {
                            self.pending.push((place, rest));
                        }
                    } else {
                        full |= self.states[place].push(stage, &mut rows, &mut scope)?;
                    }
                    Batch::Rows(rows)
                }
            };
            if batch.len() == 0 {
                return Ok(full);
            }
            shared.work(batch.len() as u64)?;
        }
        self.collect(pipeline, batch, shared)?;
        Ok(full)
    }

    fn collect(&mut self, pipeline: &Pipeline, batch: Batch, shared: &mut Shared) -> Result<(), SqlError> {
        if !matches!(pipeline.sink, Sink::Aggregate(..) | Sink::Output) {
            let mut size = 0;
            batch.try_each(|row| {
                size += row.iter().map(Value::size).sum::<usize>();
                Ok::<_, SqlError>(())
            })?;
            shared.hold(size)?;
        }
        let mut scope = Scope { outer: &self.outer, slots: &self.slots, shared };
        match (&mut self.collected, &pipeline.sink) {
            (Collected::Rows(rows), _) => rows.extend(batch.into_rows()),
            (Collected::Build(built, rows), Sink::Build(_, keys)) => {
                for row in batch.into_rows() {
                    let mut key = Vec::with_capacity(keys.len());
                    for part in keys {
                        key.push(part.eval(&row, &mut scope)?);
                    }
                    // NULL never finds a partner, but the row may be wanted by an outer join.
                    if !key.iter().any(Value::is_null) {
                        let (number, new) = built.keys.insert(key);
                        if new {
                            built.rows.push(Vec::new());
                        }
                        built.rows[number].push(rows.len() as u32);
                    }
                    rows.push(row);
                }
            }
            (Collected::Sort(sorted), Sink::Sort(_, order, most)) => {
                for row in batch.into_rows() {
                    sorted.push((sort::key_of(order, &row, &mut scope)?, row));
                }
                if let Some(most) = most.filter(|most| sorted.len() >= 2 * most + SCAN_BATCH_ROWS) {
                    let mut first = sort::sorted(core::mem::take(sorted), order);
                    let size: usize = first[most..].iter().flat_map(|(_, row)| row).map(Value::size).sum();
                    scope.shared.memory = scope.shared.memory.saturating_sub(size);
                    first.truncate(most);
                    *sorted = first;
                }
            }
            (Collected::Groups(keys, states), Sink::Aggregate(_, spec)) => {
                // One set of plain columns is by far the most frequent.
                let plain = spec.sets.len() == 1 && spec.sets[0].len() == spec.groups.len() && !spec.grouping;
                // Without groups, all rows behind those of the first batch meet in the one group there is.
                if plain
                    && spec.groups.is_empty()
                    && let Some(states) = states.first_mut()
                {
                    let mut each = states.iter_mut().zip(&spec.calls);
                    return each.try_for_each(|(state, call)| state.add_all(call, &batch, &mut scope));
                }
                let mut all = Vec::with_capacity(spec.groups.len());
                batch.try_each(|row| {
                    all.clear();
                    for group in &spec.groups {
                        all.push(group.eval(row, &mut scope)?);
                    }
                    if plain && let Some(group) = keys.find(&all) {
                        for (state, call) in states[group].iter_mut().zip(&spec.calls) {
                            state.add(call, row, &mut scope)?;
                        }
                        return Ok(());
                    }
                    for (number, set) in spec.sets.iter().enumerate() {
                        let key = group_key(spec, number, set, &all);
                        let size: usize = key.iter().map(Value::size).sum();
                        let (group, new) = keys.insert(key);
                        if new {
                            scope.shared.hold(size + 256 * spec.calls.len())?;
                            states.push(spec.calls.iter().map(|_| aggregate::State::default()).collect());
                        }
                        for (state, call) in states[group].iter_mut().zip(&spec.calls) {
                            state.add(call, row, &mut scope)?;
                        }
                    }
                    Ok(())
                })?;
            }
            _ => self.output.extend(batch.into_rows()),
        }
        Ok(())
    }

    fn finish(&mut self, pipeline: &Pipeline, shared: &mut Shared) -> Result<(), SqlError> {
        let mut scope = Scope { outer: &self.outer, slots: &self.slots, shared };
        let kept = match (core::mem::take(&mut self.collected), &pipeline.sink) {
            (Collected::Rows(rows), Sink::Keep(slot)) => Some((*slot, rows, false)),
            (Collected::Rows(rows), Sink::KeepSet(slot)) => Some((*slot, rows, true)),
            (Collected::Rows(mut rows), Sink::Window(slot, calls)) => {
                for call in calls {
                    window::add(&mut rows, call, &mut scope)?;
                }
                Some((*slot, rows, false))
            }
            (Collected::Build(built, rows), Sink::Build(slot, _)) => {
                set(&mut self.builds, *slot, built);
                Some((*slot, rows, false))
            }
            (Collected::Sort(rows), Sink::Sort(slot, order, _)) => {
                Some((*slot, sort::sorted(rows, order).into_iter().map(|(_, row)| row).collect(), false))
            }
            (Collected::Groups(keys, states), Sink::Aggregate(slot, spec)) => {
                Some((*slot, groups(&keys, states, spec, &mut scope)?, false))
            }
            _ => None,
        };
        if let Some((slot, rows, with_set)) = kept {
            // Branches of a UNION share a slot.
            let mut all = match self.slots.get_mut(slot).and_then(Option::take) {
                Some(old) => Arc::try_unwrap(old).map_or_else(|old| old.rows.clone(), |kept| kept.rows),
                None => Vec::new(),
            };
            all.extend(rows);
            let sorted = with_set.then(|| {
                let mut values: Vec<Value> = all.iter().filter_map(|row| row.first().cloned()).collect();
                let null = values.iter().any(Value::is_null);
                values.retain(|v| !v.is_null());
                values.sort();
                values.dedup();
                (values, null)
            });
            set(&mut self.slots, slot, Kept { rows: all, set: sorted });
        }
        self.pipeline += 1;
        self.open();
        Ok(())
    }
}

fn set<T>(slots: &mut Vec<Option<Arc<T>>>, at: usize, value: T) {
    if slots.len() <= at {
        slots.resize_with(at + 1, || None);
    }
    slots[at] = Some(Arc::new(value));
}

fn group_key(spec: &AggregateSpec, number: usize, set: &[usize], all: &[Value]) -> Vec<Value> {
    let mut key: Vec<Value> = all
        .iter()
        .enumerate()
        .map(|(at, value)| if set.contains(&at) { value.clone() } else { Value::Null })
        .collect();
    if spec.sets.len() > 1 || spec.grouping {
        key.push(Value::Int(i64::from(number as u32)));
    }
    key
}

fn groups(
    keys: &Keys,
    mut states: Vec<Vec<aggregate::State>>,
    spec: &AggregateSpec,
    scope: &mut Scope<'_>,
) -> Result<Vec<Row>, SqlError> {
    let mut rows = Vec::with_capacity(states.len());
    let row_of =
        |key: &[Value], states: &mut [aggregate::State], scope: &mut Scope<'_>| -> Result<Row, SqlError> {
            let mut row: Row = key[..spec.groups.len()].to_vec();
            for (state, call) in states.iter_mut().zip(&spec.calls) {
                row.push(state.finish(call, scope)?);
            }
            if spec.grouping {
                // Bit i from the left is set when column i is not grouped by.
                let set = key.last().and_then(Value::as_int).and_then(|n| usize::try_from(n).ok());
                let set = set.map_or(&[][..], |n| &spec.sets[n]);
                let bits =
                    (0..spec.groups.len()).fold(0, |bits, at| bits * 2 + i64::from(!set.contains(&at)));
                row.push(Value::Int(bits));
            }
            Ok(row)
        };
    for (number, states) in states.iter_mut().enumerate() {
        rows.push(row_of(keys.key(number), states, scope)?);
    }
    // A set without columns has one group, also without rows.
    for (number, set) in spec.sets.iter().enumerate() {
        let key = group_key(spec, number, set, &alloc::vec![Value::Null; spec.groups.len()]);
        if set.is_empty() && keys.find(&key).is_none() {
            let mut empty: Vec<aggregate::State> =
                spec.calls.iter().map(|_| aggregate::State::default()).collect();
            rows.push(row_of(&key, &mut empty, scope)?);
        }
    }
    Ok(rows)
}

/// The ranges of a scan, in order, once its expressions have values; those in which nothing can lie are left out.
fn ranges_of(source: &ScanSource, scope: &mut Scope<'_>) -> Result<Vec<KeyRange>, SqlError> {
    let mut equal = Vec::with_capacity(source.equal.len() + usize::from(!source.any.is_empty()));
    for part in &source.equal {
        equal.push(part.eval(&[], scope)?);
    }
    if !source.any.is_empty() {
        let mut values = Vec::with_capacity(source.any.len());
        for value in &source.any {
            values.push(value.eval(&[], scope)?);
        }
        values.sort();
        values.dedup();
        let ranges = values.into_iter().filter_map(|value| {
            let mut equal = equal.clone();
            equal.push(value);
            crate::plan::key_range(equal, None, None)
        });
        return Ok(ranges.collect());
    }
    let mut bound = |bound: &Option<(Expr, bool)>| -> Result<Option<(Value, bool)>, SqlError> {
        match bound {
            None => Ok(None),
            Some((expr, inclusive)) => Ok(Some((expr.eval(&[], scope)?, *inclusive))),
        }
    };
    let (low, high) = (bound(&source.low)?, bound(&source.high)?);
    Ok(crate::plan::key_range(equal, low, high).into_iter().collect())
}

/// A nested execution.
type Inner = Box<Execution>;
