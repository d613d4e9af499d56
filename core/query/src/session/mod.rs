//! Sessions: statements in, answers and facts out.
//!
//! A [`Running`] statement is a plain value. [`Session::step`] moves it on by one bounded step; a [`Stop::Miss`] changes
//! nothing, and the same step is made again when the pages are there. What a transaction has written lies in its
//! [`Overlay`]; at its end the caller gets the facts and says what became of them.

mod control;
mod copy;
mod define;
mod explain;
mod merge;
mod parts;
mod planned;
mod schema;
mod short;
mod write;

pub use control::{STATEMENT_TIMEOUT, milliseconds, reindex_target};
pub use copy::COPY_COLUMN;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::check::Stop;
use kimberlite_row::fact::{Facts, Rows, TimePoint};
use kimberlite_row::schema::SchemaVersion;
use kimberlite_row::{Catalogue, Object, ObjectId, Row, SqlError, SqlState, Type, Value};
use kimberlite_types::{LogPosition, Op};
use sqlparser::ast;

use crate::bind::{Binder, Output, TimeTravel};
use crate::eval::{Shared, fold};
use crate::exec::{Execution, compile};
use crate::limits::{MEMORY_BYTES_MAX, WORK_ROWS_MAX};
use crate::optimize::optimize;
use crate::overlay::{Overlay, View};
use crate::plan::Plan;
use crate::statistics::Statistics;
use parts::Parts;
use planned::{Planned, Plans};
use schema::Recheck;
use short::Short;
use write::{WritePlan, Writing};

/// What a statement answers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The command tag, as PostgreSQL sends it.
    pub tag: String,
    /// The columns, if it gives rows.
    pub columns: Arc<[Output]>,
    /// The rows.
    pub rows: Vec<Row>,
    /// What a client is told besides.
    pub notices: Vec<String>,
}

/// What a step came to.
#[derive(Debug)]
pub enum Step {
    /// There is more to do.
    More,
    /// The statement is done.
    Done(Answer),
    /// The statement is done once these facts are installed.
    Commit(Facts, Answer),
}

#[derive(Debug)]
struct Transaction {
    at: LogPosition,
    now: i64,
    overlay: Overlay,
    explicit: bool,
    failed: bool,
    read_only: bool,
    savepoints: Vec<(String, Overlay)>,
    /// From which key on a table has no stored rows, if it was asked; none if there are some behind.
    free: BTreeMap<ObjectId, Option<Row>>,
}

/// Steps that one call may take together, while they are small: a lookup is done in one.
const SMALL_STEPS: usize = 12;
/// Rows that these may handle.
const SMALL_STEP_ROWS: u64 = 64;

/// Writes that one step adds to those of the transaction.
const PUT_ROWS: usize = 4096;

/// A client's session.
#[derive(Debug, Default)]
pub struct Session {
    transaction: Option<Transaction>,
    prepared: BTreeMap<String, (Arc<ast::Statement>, Arc<str>)>,
    plans: Plans,
    settings: BTreeMap<String, String>,
    current: BTreeMap<ObjectId, i64>,
    last_sequence: Option<ObjectId>,
}

/// What is done with the rows of a program.
#[derive(Debug)]
enum After {
    Rows,
    Write(Box<Writing>),
    Explain(Vec<String>),
}

/// A program that runs.
#[derive(Debug)]
struct Run {
    execution: Execution,
    shared: Shared,
    after: After,
    /// The rows so far.
    given: Vec<Row>,
    /// The objects it was bound under.
    used: Arc<[(ObjectId, SchemaVersion)]>,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Run(Box<Run>),
    Recheck(Box<Recheck>),
}

/// A statement that runs.
#[derive(Debug)]
pub struct Running {
    queue: VecDeque<(Arc<ast::Statement>, Arc<str>)>,
    stage: Stage,
    params: Vec<Value>,
    now: i64,
    seed: u64,
    answer: Option<Answer>,
    as_bound: bool,
    /// Whether the statement at hand is what the text says, not what another statement stands for.
    direct: bool,
    /// The transaction's writes before the statement.
    before: Option<Overlay>,
    /// What its client is told besides the answer.
    notices: Vec<String>,
    /// The parts that write inside of WITH.
    parts: Parts,
    /// Whether it stands for COPY.
    copied: Option<copy::Copied>,
}

impl Running {
    /// A statement of a text, with its parameters, the time and a seed.
    pub fn new(
        statement: impl Into<Arc<ast::Statement>>,
        text: impl Into<Arc<str>>,
        params: Vec<Value>,
        now: i64,
        seed: u64,
    ) -> Self {
        Self {
            queue: [(statement.into(), text.into())].into(),
            stage: Stage::Begin,
            params,
            now,
            seed,
            answer: None,
            as_bound: false,
            direct: true,
            before: None,
            notices: Vec::new(),
            parts: Parts::default(),
            copied: None,
        }
    }
}

impl Running {
    /// Rows that the program at hand has handled so far.
    pub fn work(&self) -> u64 {
        match &self.stage {
            Stage::Run(run) => run.shared.work,
            Stage::Recheck(recheck) => recheck.work(),
            Stage::Begin => 0,
        }
    }

    /// Whether it is a write.
    pub fn writes(&self) -> bool {
        self.queue.front().is_some_and(|(statement, _)| {
            use ast::Statement as S;
            matches!(**statement, S::Insert(_) | S::Update(_) | S::Delete(_))
        })
    }

    /// Leaves the plans as they were bound. What they answer is the same, only later: that is what the planner is held
    /// against.
    #[must_use]
    pub fn as_bound(mut self) -> Self {
        self.as_bound = true;
        self
    }
}

struct Travel<'a> {
    view: &'a View<'a>,
}

impl TimeTravel for Travel<'_> {
    fn at_position(&self, position: u64) -> Result<(LogPosition, Arc<Catalogue>, i64), Stop> {
        // All of the op, and never what a transaction calls its snapshot: over that lie its own writes.
        let at = LogPosition { op: Op(position), index: u32::MAX - 1 };
        if Op(position) > self.view.base.last().op {
            return Err(SqlError::new(
                SqlState::InvalidParameterValue,
                format!("position {position} lies in the future"),
            )
            .into());
        }
        let time = self.view.base.time_of(at)?.unwrap_or(0);
        Ok((at, self.view.base.catalogue(at)?, time))
    }

    fn at_time(&self, micros: i64) -> Result<(LogPosition, Arc<Catalogue>, i64), Stop> {
        match self.view.base.position_at(micros)? {
            TimePoint::At(at) => Ok((at, self.view.base.catalogue(at)?, micros)),
            TimePoint::Future => {
                Err(SqlError::new(SqlState::InvalidParameterValue, "the time lies in the future").into())
            }
            TimePoint::TooOld => Err(SqlError::new(SqlState::SnapshotTooOld, "snapshot too old").into()),
        }
    }
}

/// Parameters come as text or as values of the type that was found.
fn typed(params: &mut [Value], kinds: &[Type]) -> Result<(), SqlError> {
    for (value, kind) in params.iter_mut().zip(kinds) {
        if let (Value::Text(text), false) = (&*value, kind.is_text() || *kind == Type::Unknown) {
            *value = kimberlite_row::text::parse(text, kind)?;
        }
    }
    Ok(())
}

fn in_transaction_only() -> SqlError {
    SqlError::new(SqlState::NoActiveTransaction, "this can only be used in transaction blocks")
}

impl Session {
    /// Whether a transaction block is open.
    pub fn in_transaction(&self) -> bool {
        self.transaction.as_ref().is_some_and(|t| t.explicit)
    }

    /// A setting that the client gave.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Breaks an open transaction block, as a refused statement does: one did not parse, or its answer cannot be given.
    pub fn fail(&mut self) {
        match &mut self.transaction {
            Some(transaction) if transaction.explicit => transaction.failed = true,
            _ => self.transaction = None,
        }
    }

    /// The statement that a text is, if its plan is kept: it need not be parsed.
    pub fn statement(&self, text: &str) -> Option<Arc<ast::Statement>> {
        self.plans.statement(text)
    }

    /// Types of the parameters and columns of a statement, without running it.
    pub fn describe(
        &self,
        statement: &ast::Statement,
        text: &str,
        rows: &dyn Rows,
    ) -> Result<(Vec<Type>, Vec<Output>), Stop> {
        let catalogue = rows.catalogue(rows.last())?;
        let mut binder = Binder::new(&catalogue, text, 0);
        let output = match statement {
            ast::Statement::Query(_)
            | ast::Statement::Insert(_)
            | ast::Statement::Update(_)
            | ast::Statement::Delete(_) => write::statement(&mut binder, statement)?.1,
            _ => Vec::new(),
        };
        Ok((binder.params, output))
    }

    /// Moves a statement on by one step. After a miss nothing has changed.
    pub fn step(&mut self, running: &mut Running, rows: &dyn Rows) -> Result<Step, Stop> {
        if self.transaction.is_none() {
            self.transaction = Some(Transaction {
                at: rows.last(),
                now: running.now,
                overlay: Overlay::default(),
                explicit: false,
                failed: false,
                read_only: false,
                savepoints: Vec::new(),
                free: BTreeMap::new(),
            });
        }
        // Steps that hardly do anything are taken together. A miss behind them leaves what they did.
        let before = running.work();
        let mut stepped = self.step_here(running, rows);
        for _ in 0..SMALL_STEPS {
            if !matches!(stepped, Ok(Step::More)) || running.work() > before + SMALL_STEP_ROWS {
                break;
            }
            stepped = self.step_here(running, rows);
        }
        match stepped {
            Err(Stop::Refused(error)) => {
                match &mut self.transaction {
                    Some(transaction) if transaction.explicit => {
                        transaction.failed = true;
                        if let Some(before) = running.before.take() {
                            transaction.overlay.restore(before);
                        }
                        // The client saw the refusal, and may go on behind a savepoint: what led to it is a read.
                        if let Stage::Run(run) = &mut running.stage {
                            let read = core::mem::take(&mut run.shared.read);
                            transaction.overlay.guard_reads(read, transaction.at);
                            let rows = core::mem::take(&mut run.shared.read_rows);
                            transaction.overlay.guard_rows(rows, transaction.at);
                            let streams = core::mem::take(&mut run.shared.read_streams);
                            transaction.overlay.guard_streams(streams);
                        }
                    }
                    _ => self.transaction = None,
                }
                Err(Stop::Refused(error))
            }
            other => other,
        }
    }

    fn transaction(&mut self) -> Result<&mut Transaction, SqlError> {
        self.transaction.as_mut().ok_or_else(in_transaction_only)
    }

    fn step_here(&mut self, running: &mut Running, rows: &dyn Rows) -> Result<Step, Stop> {
        match &mut running.stage {
            Stage::Begin => {
                let Some((statement, text)) = running.queue.front().cloned() else {
                    return Ok(self.end(running));
                };
                self.begin(running, &statement, &text, rows)
            }
            Stage::Run(run) => {
                let Run { execution, shared, given, .. } = &mut **run;
                if !execution.is_done() {
                    let transaction = self.transaction.as_ref().ok_or_else(in_transaction_only)?;
                    let overlay = running.parts.seen.as_ref().unwrap_or(&transaction.overlay);
                    let view = View { base: rows, overlay, at: transaction.at };
                    let read = execution.read(&view, transaction.at)?;
                    execution.advance(read, shared)?;
                    if !execution.output.is_empty() {
                        shared.hold(execution.output.iter().flatten().map(Value::size).sum())?;
                        given.append(&mut execution.output);
                    }
                    return Ok(Step::More);
                }
                self.after(running, rows)
            }
            Stage::Recheck(recheck) => {
                let transaction = self.transaction.as_mut().ok_or_else(in_transaction_only)?;
                let view = View { base: rows, overlay: &transaction.overlay, at: transaction.at };
                let catalogue = view.catalogue(transaction.at)?;
                let read = recheck.read(&catalogue, &view, transaction.at)?;
                recheck.advance(read, &catalogue, transaction.now)?;
                if recheck.is_done() {
                    transaction.overlay.guard_reads(recheck.reads(&catalogue), transaction.at);
                    running.queue.pop_front();
                    running.stage = Stage::Begin;
                }
                Ok(Step::More)
            }
        }
    }

    /// The last statement of the queue is done.
    fn end(&mut self, running: &mut Running) -> Step {
        let mut answer = running.answer.take().unwrap_or_default();
        answer.notices.append(&mut running.notices);
        if let Some(copied) = running.copied.take() {
            answer = copy::answer(copied, answer);
        }
        match &self.transaction {
            Some(transaction) if !transaction.explicit => {
                let transaction = self.transaction.take();
                let overlay = transaction.map(|t| t.overlay).unwrap_or_default();
                if overlay.is_empty() { Step::Done(answer) } else { Step::Commit(overlay.facts(), answer) }
            }
            _ => Step::Done(answer),
        }
    }

    fn done(running: &mut Running, tag: impl Into<String>) -> Step {
        running.queue.pop_front();
        running.stage = Stage::Begin;
        if running.answer.is_none() {
            running.answer = Some(Answer { tag: tag.into(), ..Answer::default() });
        }
        Step::More
    }

    /// A limit that the client lowered with SET.
    fn bound(&self, name: &str) -> Option<u64> {
        self.settings.get(name)?.parse().ok()
    }

    fn shared(
        &self,
        running: &Running,
        now: i64,
        sequences: BTreeMap<ObjectId, kimberlite_row::Sequence>,
    ) -> Shared {
        Shared {
            params: running.params.clone(),
            sequences,
            current: self.current.clone(),
            last_sequence: self.last_sequence,
            work_max: self.bound("work_rows_max").unwrap_or(WORK_ROWS_MAX).min(WORK_ROWS_MAX),
            memory_max: self
                .bound("memory_bytes_max")
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(MEMORY_BYTES_MAX)
                .min(MEMORY_BYTES_MAX),
            ..Shared::new(now, running.seed)
        }
    }

    fn begin(
        &mut self,
        running: &mut Running,
        statement: &Arc<ast::Statement>,
        text: &Arc<str>,
        rows: &dyn Rows,
    ) -> Result<Step, Stop> {
        if let Some(step) = self.control(running, statement, text)? {
            return Ok(step);
        }
        let transaction = self.transaction.as_ref().ok_or_else(in_transaction_only)?;
        if transaction.failed {
            return Err(SqlError::new(
                SqlState::InFailedTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            )
            .into());
        }
        let view = View { base: rows, overlay: &transaction.overlay, at: transaction.at };
        let catalogue = view.catalogue(transaction.at)?;
        let (inner, explain) = match &**statement {
            ast::Statement::Explain { statement, analyze, .. } => (&**statement, Some(*analyze)),
            other => (other, None),
        };
        // What a transaction makes of the schema is nobody else's, so no plan under it is kept.
        let kept = explain.is_none()
            && !running.as_bound
            && running.parts.seen.is_none()
            && transaction.overlay.catalogue.is_none();
        if kept
            && let Some(planned) = self.plans.get(statement, text, running.params.len(), &catalogue)
            && !(transaction.read_only && planned.writing.is_some())
        {
            if let Some(step) = self.at_once(running, &planned, rows, &catalogue)? {
                return Ok(step);
            }
            return self.launch(running, &planned, After::Rows, &catalogue);
        }
        if transaction.read_only
            && let Some(what) = writes(inner)
        {
            return Err(SqlError::new(
                SqlState::ReadOnlyTransaction,
                format!("cannot execute {what} in a read-only transaction"),
            )
            .into());
        }
        if explain.is_none() && Parts::take_apart(running, inner, &transaction.overlay) {
            self.remember(running)?;
            return Ok(Step::More);
        }
        if let (ast::Statement::Merge(merge), None) = (inner, explain) {
            let statements = merge::statements(merge)?;
            if !Parts::merge(running, statements, &transaction.overlay) {
                running.answer = Some(Answer { tag: "MERGE 0".to_string(), ..Answer::default() });
            }
            self.remember(running)?;
            return Ok(Step::More);
        }
        if let ast::Statement::Query(query) = inner
            && let Some(create) = into_table(query)
        {
            running.queue.pop_front();
            let statement = crate::parse::statements(&create)?.pop();
            running.direct = false;
            running.queue.extend(statement.map(|statement| (Arc::new(statement), create.into())));
            return Ok(Step::More);
        }
        match inner {
            ast::Statement::Query(_)
            | ast::Statement::Insert(_)
            | ast::Statement::Update(_)
            | ast::Statement::Delete(_) => {
                let keep = kept.then_some(statement);
                self.start(running, inner, (explain, keep), text, (rows, &catalogue))
            }
            ast::Statement::CreateTable(create) if create.query.is_some() => {
                self.create_table_as(running, create, text, (rows, &catalogue))
            }
            ast::Statement::Copy { .. } => Self::copy(running, inner, &catalogue),
            _ => self.define(running, inner, text, &catalogue),
        }
    }

    /// Binds, plans and compiles a statement that has a program.
    fn start(
        &mut self,
        running: &mut Running,
        statement: &ast::Statement,
        (explain, keep): (Option<bool>, Option<&Arc<ast::Statement>>),
        text: &Arc<str>,
        (rows, catalogue): (&dyn Rows, &Arc<Catalogue>),
    ) -> Result<Step, Stop> {
        let transaction = self.transaction.as_ref().ok_or_else(in_transaction_only)?;
        let now = transaction.now;
        let view = View { base: rows, overlay: &transaction.overlay, at: transaction.at };
        let travel = Travel { view: &view };
        let mut binder = Binder::new(catalogue, text, now);
        binder.travel = Some(&travel);
        binder.params = running.params.iter().map(|_| Type::Unknown).collect();
        for part in &running.parts.done {
            binder.in_sight(&part.name, &part.columns);
        }
        let (plan, columns, writing) = binder.bound(|binder| write::statement(binder, statement))?;
        let mut known = Statistics::of(&view, transaction.at);
        let plan = self.improve(running, plan, now, &mut known);
        let mut lines = Vec::new();
        if explain.is_some() {
            lines = explain::lines(&plan, writing.as_ref().map(WritePlan::explained));
        }
        if explain == Some(false) {
            let step = Self::done(running, "EXPLAIN");
            running.answer = Some(explain::answer(lines));
            return Ok(step);
        }
        let mut late = Vec::new();
        let writing = writing.map(|mut writing| {
            late = core::mem::take(&mut writing.late);
            writing
        });
        for query in &mut late {
            let plan = core::mem::replace(&mut query.plan, Plan::one_row());
            query.plan = self.improve(running, plan, now, &mut known);
        }
        if let Some(miss) = known.missed() {
            return Err(miss.into());
        }
        let program = Arc::new(compile(plan, late, &mut binder.slots)?);
        let mut used = Vec::new();
        let target = writing.iter().map(|plan| plan.table.id);
        for id in binder.reads.iter().chain(&binder.sequences).copied().chain(target) {
            used.extend(catalogue.object(id).map(|object| (id, object.version())));
        }
        let planned = Arc::new(Planned {
            catalogue: catalogue.clone(),
            whole: binder.whole,
            count: running.params.len(),
            kinds: core::mem::take(&mut binder.params),
            short: Short::of(&program, writing.as_ref(), &binder.sequences),
            program,
            columns: columns.into(),
            writing: writing.map(Arc::new),
            used: used.into(),
            sequences: core::mem::take(&mut binder.sequences),
        });
        let past = binder.past;
        drop(binder);
        if let Some(statement) = keep.filter(|_| !past) {
            self.plans.keep(statement, text, running.direct, planned.clone());
        }
        let after = if explain.is_some() { After::Explain(lines) } else { After::Rows };
        self.launch(running, &planned, after, catalogue)
    }

    /// Starts the program of a plan. `after` is what is done with its rows, if not what the plan says.
    fn launch(
        &mut self,
        running: &mut Running,
        planned: &Planned,
        after: After,
        catalogue: &Catalogue,
    ) -> Result<Step, Stop> {
        let transaction = self.transaction.as_ref().ok_or_else(in_transaction_only)?;
        let now = transaction.now;
        let mut sequences = BTreeMap::new();
        for id in &planned.sequences {
            let Some(Object::Sequence(stored)) = catalogue.object(*id) else { continue };
            let own = transaction.overlay.sequences.get(id).cloned();
            sequences.insert(*id, own.unwrap_or_else(|| (**stored).clone()));
        }
        typed(&mut running.params, &planned.kinds)?;
        let after = match (after, &planned.writing) {
            (After::Rows, Some(plan)) => {
                let mut writing = Writing::new(plan.clone());
                writing.once = running.parts.merged.is_some();
                After::Write(Box::new(writing))
            }
            (after, _) => after,
        };
        let mut shared = self.shared(running, now, sequences);
        // Nothing follows from a query that stands alone.
        let queried = planned.writing.is_none() && planned.sequences.is_empty();
        shared.guarding =
            transaction.explicit || running.queue.len() > 1 || !queried || !transaction.overlay.is_empty();
        running.parts.begins(&planned.columns);
        let slots = running.parts.done.iter().map(|part| Some(part.rows.clone())).collect();
        let execution = Execution::new(planned.program.clone(), Vec::new(), slots);
        if running.queue.len() == 1 && running.answer.is_none() {
            running.answer = Some(Answer { columns: planned.columns.clone(), ..Answer::default() });
        }
        let used = planned.used.clone();
        running.stage = Stage::Run(Box::new(Run { execution, shared, after, given: Vec::new(), used }));
        Ok(Step::More)
    }

    /// Folds constants and plans.
    fn improve(&self, running: &Running, mut plan: Plan, now: i64, known: &mut Statistics<'_>) -> Plan {
        if running.as_bound {
            return plan;
        }
        let mut shared = self.shared(running, now, BTreeMap::new());
        fold_plan(&mut plan, &mut shared);
        optimize(plan, known)
    }

    /// The program has run to its end: its rows are the answer, or become writes.
    fn after(&mut self, running: &mut Running, rows: &dyn Rows) -> Result<Step, Stop> {
        let Stage::Run(run) = &mut running.stage else { return Ok(Step::More) };
        let Run { execution, shared, after, given, used } = &mut **run;
        let transaction = self.transaction.as_mut().ok_or_else(in_transaction_only)?;
        let (tag, mut out) = match after {
            After::Rows => (format!("SELECT {}", given.len()), core::mem::take(given)),
            After::Explain(lines) => {
                lines.push(format!("Rows: {}  Work: {} rows", given.len(), shared.work));
                let answer = explain::answer(core::mem::take(lines));
                running.answer = Some(Answer { columns: answer.columns, ..Answer::default() });
                ("EXPLAIN".to_string(), answer.rows)
            }
            After::Write(writing) if !writing.is_done() => {
                let view = View { base: rows, overlay: &transaction.overlay, at: transaction.at };
                let catalogue = view.catalogue(transaction.at)?;
                if !given.is_empty() {
                    writing.take(core::mem::take(given), execution.slots(), transaction.overlay.fresh);
                }
                let read = writing.read(&catalogue, &view, transaction.at)?;
                writing.advance(read, &catalogue, shared)?;
                return Ok(Step::More);
            }
            After::Write(writing) if writing.writes.len() > PUT_ROWS => {
                let some = writing.writes.split_off(writing.writes.len() - PUT_ROWS);
                running.parts.writes(&some)?;
                for write in some {
                    transaction.overlay.put(write);
                }
                shared.work(PUT_ROWS as u64)?;
                return Ok(Step::More);
            }
            After::Write(writing) => {
                transaction.overlay.guard_reads(core::mem::take(&mut shared.read), transaction.at);
                transaction.overlay.guard_streams(core::mem::take(&mut shared.read_streams));
                if writing.fresh > 0 {
                    transaction.overlay.fresh = writing.fresh;
                }
                running.parts.writes(&writing.writes)?;
                for write in core::mem::take(&mut writing.writes) {
                    transaction.overlay.put(write);
                }
                let tag = match &mut running.parts.merged {
                    Some(count) => {
                        *count += writing.count;
                        format!("MERGE {count}")
                    }
                    None => writing.plan.tag(writing.count),
                };
                (tag, core::mem::take(&mut writing.rows))
            }
        };
        // What was read, and under which schema, must be so still when what follows from it is installed.
        if shared.guarding {
            transaction.overlay.guard_reads(core::mem::take(&mut shared.read), transaction.at);
            transaction.overlay.guard_rows(core::mem::take(&mut shared.read_rows), transaction.at);
            transaction.overlay.guard_streams(core::mem::take(&mut shared.read_streams));
            for (id, version) in &**used {
                transaction.overlay.guard_schema(*id, *version);
            }
        }
        for (id, sequence) in &shared.sequences {
            transaction.overlay.sequences.insert(*id, sequence.clone());
        }
        self.current.clone_from(&shared.current);
        self.last_sequence = shared.last_sequence;
        running.queue.pop_front();
        running.stage = Stage::Begin;
        if running.parts.ends(&mut out) {
            return Ok(Step::More);
        }
        let answer = running.answer.get_or_insert_with(Answer::default);
        if answer.tag.is_empty() {
            answer.tag = tag;
            answer.rows = out;
        }
        Ok(Step::More)
    }
}

/// `SELECT … INTO t …` as the CREATE TABLE AS that it is.
fn into_table(query: &ast::Query) -> Option<String> {
    let ast::SetExpr::Select(select) = &*query.body else { return None };
    let name = select.into.as_ref()?.targets.first()?;
    let name = name.to_string();
    let mut query = query.clone();
    if let ast::SetExpr::Select(select) = &mut *query.body {
        select.into = None;
    }
    Some(format!("CREATE TABLE {name} AS {query}"))
}

/// What a statement is called that writes.
fn writes(statement: &ast::Statement) -> Option<&'static str> {
    match statement {
        ast::Statement::Query(query) => write::behind_with(query).and_then(writes),
        ast::Statement::Insert(_) => Some("INSERT"),
        ast::Statement::Update(_) => Some("UPDATE"),
        ast::Statement::Delete(_) => Some("DELETE"),
        ast::Statement::Merge(_) => Some("MERGE"),
        ast::Statement::CreateTable(_) => Some("CREATE TABLE"),
        _ => Some("this statement"),
    }
}

fn fold_plan(plan: &mut Plan, shared: &mut Shared) {
    plan.expressions_mut(&mut |e| {
        fold_subqueries(e, shared);
        fold(e, shared);
    });
    for input in plan.inputs_mut() {
        fold_plan(input, shared);
    }
}

fn fold_subqueries(expr: &mut crate::expr::Expr, shared: &mut Shared) {
    if let crate::expr::Expr::Subquery(_, plan) = expr {
        fold_plan(plan, shared);
    }
    expr.parts_mut(&mut |part| fold_subqueries(part, shared));
}
