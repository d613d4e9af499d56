//! Statements of SQL: each connection is a session, and its statements run one after the other.
//!
//! A statement is confirmed as a query is, then runs in steps that are spread over events, then proposes the facts it
//! came to as a command of its connection's own session of the log. What becomes of them is answered when they are
//! applied. Facts whose plan is overtaken are refused there: a statement outside of a transaction block is then planned
//! again, and as long as such statements of a tenant are waiting, its writes are planned one after the other, in the
//! order in which they came, so that none of them is overtaken for ever. A transaction block is told to begin again.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_io::Conn;
use kimberlite_kernel::Kernel;
use kimberlite_kernel::tables::Unwritten;
use kimberlite_query::parse;
use kimberlite_query::session::{self, Running, Session, Step};
use kimberlite_row::check::Stop;
use kimberlite_row::fact::Facts;
use kimberlite_row::{SqlError, SqlState, text};
use kimberlite_types::limits::FRAME_BODY_SIZE_LIMIT;
use kimberlite_types::{Instant, Now, RequestNumber, Rng, SessionId, Streams, TenantId};
use kimberlite_wire::client::{SqlAnswer, SqlColumn, SqlFailure, SqlRows, Statement, Turn};
use kimberlite_wire::command::{Command, Outcome, Refusal, SqlCode, Verdict};

/// Statements that one connection may have waiting: as many as a client asks at once.
const STATEMENTS_QUEUED_MAX: usize = 64;
/// Bytes of text that statements of all connections may hold: 64 of the largest.
const STATEMENT_BYTES_MAX: usize = 64 << 20;
/// Statements that hold rows at once; each is bounded by the query layer. Others wait for one to end.
const EXECUTING_MAX: usize = 4;
/// Steps of statements in one event: then the node looks after everything else.
const STEPS_MAX: usize = 4;
/// After how long statements that are not done go on, if nothing else happens: everything that has happened comes first.
/// The steps of one event take a hundred times as long if they are large.
const PAUSE: Duration = Duration::from_micros(50);
/// How often a statement is planned again because it was overtaken.
const REPLANS_MAX: u32 = 16;
/// Bytes of an answer: the largest body, less what surrounds it.
const ANSWER_BYTES_MAX: usize = FRAME_BODY_SIZE_LIMIT as usize - 4096;
/// Bytes of each sentence of a failure.
const SENTENCE_BYTES_MAX: usize = 4096;
/// Bytes that a cell, a name or a row takes in an answer besides its own, at most.
const CELL_HEAD: usize = 6;

/// Set in the tickets of statements and never in those of queries: both are confirmed.
const TICKET: u64 = 1 << 63;

/// The condition of PostgreSQL for a write of which nobody knows whether it was done.
const RESOLUTION_UNKNOWN: &str = "08007";

/// What the node has to do.
pub(crate) enum Effect {
    Answer { conn: Conn, nonce: u64, answer: SqlAnswer },
    Turn { conn: Conn, nonce: u64, turn: Turn },
    Confirm { ticket: u64 },
    Propose { session: SessionId, number: RequestNumber, tenant: TenantId, command: Vec<u8> },
}

/// Facts on their way, and what is answered once they are installed.
struct Plan {
    tenant: TenantId,
    command: Vec<u8>,
    rows: SqlRows,
    /// A single statement, outside of a transaction block: it may be planned again.
    alone: bool,
}

/// Where a statement stands.
enum Stage {
    /// Its reads are not confirmed.
    Confirming,
    /// It may begin.
    Ready,
    /// It was overtaken, and others of its tenant were before it.
    Queued,
    Running(Box<Running>),
    /// Its connection gets a session of the log.
    Registering(Plan),
    /// Its facts are proposed.
    Proposed(Plan),
}

/// The statement of a connection that is under way.
struct Active {
    nonce: u64,
    statement: Statement,
    stage: Stage,
    replans: u32,
}

struct Connection {
    tenant: TenantId,
    session: Session,
    /// Its session of the log, and the number of the next request.
    log: Option<(SessionId, RequestNumber)>,
    active: Option<Active>,
    queue: VecDeque<(u64, Statement)>,
}

/// All statements of a node.
pub(crate) struct Sql {
    rng: Rng,
    connections: BTreeMap<Conn, Connection>,
    tickets: BTreeMap<u64, Conn>,
    next_ticket: u64,
    /// Requests whose verdict is awaited.
    requests: BTreeMap<(SessionId, RequestNumber), Conn>,
    /// Connections whose statement may take a step.
    ready: VecDeque<Conn>,
    /// Of each tenant with overtaken statements: those, in order. The first one plans, the others wait.
    turns: BTreeMap<TenantId, VecDeque<Conn>>,
    bytes: usize,
}

impl Sql {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Streams::new(seed).stream("statements", 0),
            connections: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: TICKET,
            requests: BTreeMap::new(),
            ready: VecDeque::new(),
            turns: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Statements that are not answered.
    pub(crate) fn under_way(&self) -> usize {
        self.connections.values().map(|at| at.queue.len() + usize::from(at.active.is_some())).sum()
    }

    /// Whether a statement may take a step.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When they go on that may.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.is_ready().then(|| now.after(PAUSE))
    }

    /// Whether this ticket is one of a statement.
    pub(crate) const fn owns(ticket: u64) -> bool {
        ticket & TICKET != 0
    }

    /// Takes a statement in.
    pub(crate) fn begin(&mut self, conn: Conn, nonce: u64, statement: Statement, out: &mut Vec<Effect>) {
        let size = statement.text.len();
        let at = self.connections.entry(conn).or_insert_with(|| Connection {
            tenant: statement.tenant,
            session: Session::default(),
            log: None,
            active: None,
            queue: VecDeque::new(),
        });
        if at.queue.len() >= STATEMENTS_QUEUED_MAX || self.bytes + size > STATEMENT_BYTES_MAX {
            out.push(Effect::Turn { conn, nonce, turn: Turn::Busy });
            return;
        }
        self.bytes += size;
        at.queue.push_back((nonce, statement));
        self.next(conn, out);
    }

    /// Takes up the next statement of a connection that has none under way.
    fn next(&mut self, conn: Conn, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        if at.active.is_some() {
            return;
        }
        let Some((nonce, statement)) = at.queue.pop_front() else { return };
        let stage = Stage::Confirming;
        at.active = Some(Active { nonce, statement, stage, replans: 0 });
        self.next_ticket += 1;
        self.tickets.insert(self.next_ticket, conn);
        out.push(Effect::Confirm { ticket: self.next_ticket });
    }

    /// Everything that was acknowledged before the statement came is in the kernel.
    pub(crate) fn confirmed(&mut self, ticket: u64) {
        let Some(conn) = self.tickets.remove(&ticket) else { return };
        self.make_ready(conn);
    }

    fn make_ready(&mut self, conn: Conn) {
        if let Some(active) = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut()) {
            active.stage = Stage::Ready;
            self.ready.push_back(conn);
        }
    }

    /// A statement could not be confirmed: too many wait.
    pub(crate) fn refuse(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        if let Some(conn) = self.tickets.remove(&ticket) {
            self.turn_away(conn, Turn::Busy, out);
        }
    }

    /// The statement under way was not done; its sender may send it again.
    fn turn_away(&mut self, conn: Conn, turn: Turn, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = at.active.take() else { return };
        self.bytes -= active.statement.text.len();
        out.push(Effect::Turn { conn, nonce: active.nonce, turn });
        self.leave_turn(conn);
        self.next(conn, out);
    }

    /// Forgets a connection that is gone, with its transaction. What it proposed takes its course.
    pub(crate) fn closed(&mut self, conn: Conn) {
        let Some(at) = self.connections.remove(&conn) else { return };
        self.bytes -= at.queue.iter().map(|(_, statement)| statement.text.len()).sum::<usize>();
        self.bytes -= at.active.map_or(0, |active| active.statement.text.len());
        self.tickets.retain(|_, of| *of != conn);
        self.requests.retain(|_, of| *of != conn);
        self.ready.retain(|of| *of != conn);
        self.leave_turn(conn);
    }

    /// This node no longer speaks for the cluster: all sessions end.
    pub(crate) fn resigned(&mut self, out: &mut Vec<Effect>) {
        for (conn, at) in core::mem::take(&mut self.connections) {
            if let Some(Active { nonce, stage, .. }) = at.active {
                if let Stage::Proposed(_) = stage {
                    let code = SqlCode::new(RESOLUTION_UNKNOWN).expect("five characters");
                    let message =
                        "the primary changed before the write was decided; it may have been done or not";
                    let hint = Some("Look whether it was done before you do it again.".to_string());
                    let failure =
                        SqlFailure { code, message: message.to_string(), position: None, detail: None, hint };
                    let answer = SqlAnswer { in_block: false, result: Err(failure) };
                    out.push(Effect::Answer { conn, nonce, answer });
                } else {
                    out.push(Effect::Turn { conn, nonce, turn: Turn::Later });
                }
            }
            for (nonce, _) in at.queue {
                out.push(Effect::Turn { conn, nonce, turn: Turn::Later });
            }
        }
        self.tickets.clear();
        self.requests.clear();
        self.ready.clear();
        self.turns.clear();
        self.bytes = 0;
    }

    /// Moves statements on, by a bounded number of steps.
    pub(crate) fn run(&mut self, now: Now, kernel: &Kernel, size_max: u32, out: &mut Vec<Effect>) {
        for _ in 0..STEPS_MAX {
            let Some(conn) = self.ready.pop_front() else { return };
            let executing =
                |at: &&Connection| matches!(at.active, Some(Active { stage: Stage::Running(_), .. }));
            let full = self.connections.values().filter(executing).count() >= EXECUTING_MAX;
            let Some(at) = self.connections.get_mut(&conn) else { continue };
            let Some(active) = &mut at.active else { continue };
            if matches!(active.stage, Stage::Ready) {
                if full {
                    self.ready.push_back(conn);
                    continue;
                }
                let seed = self.rng.next_u64();
                match plan(active, &mut at.session, at.tenant, kernel, now, seed) {
                    Ok(Some(running)) => active.stage = Stage::Running(Box::new(running)),
                    Ok(None) => {
                        self.answer(conn, Ok(SqlRows::default()), out);
                        continue;
                    }
                    Err(error) => {
                        at.session.fail();
                        self.answer(conn, Err(error), out);
                        continue;
                    }
                }
            }
            let Stage::Running(running) = &mut active.stage else { continue };
            let alone = !at.session.in_transaction();
            let rows = kernel.rows(at.tenant, &Unwritten);
            match at.session.step(running, &rows) {
                Ok(Step::More) => self.ready.push_back(conn),
                Ok(Step::Done(answer)) => {
                    let told = told(answer);
                    if told.is_err() {
                        at.session.fail();
                    }
                    self.answer(conn, told.map_err(|error| failure(&error)), out);
                }
                Ok(Step::Commit(facts, answer)) => self.commit(conn, &facts, answer, alone, size_max, out),
                Err(Stop::Refused(error)) => self.answer(conn, Err(failure(&error)), out),
                Err(Stop::Miss(miss)) => unreachable!("no page was ever written, and {miss:?} is missed"),
            }
        }
    }

    /// The statement is done once its facts are.
    fn commit(
        &mut self,
        conn: Conn,
        facts: &Facts,
        answer: session::Answer,
        alone: bool,
        size_max: u32,
        out: &mut Vec<Effect>,
    ) {
        // What cannot be answered is not done.
        let rows = match told(answer) {
            Ok(rows) => rows,
            Err(error) => return self.answer(conn, Err(failure(&error)), out),
        };
        if facts.is_empty() {
            return self.answer(conn, Ok(rows), out);
        }
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let (tenant, Some(active)) = (at.tenant, &mut at.active) else { return };
        if alone
            && let Some(turns) = self.turns.get_mut(&tenant)
            && turns.front() != Some(&conn)
        {
            active.stage = Stage::Queued;
            turns.push_back(conn);
            return;
        }
        let facts = postcard::to_allocvec(facts).expect("facts encode");
        let command = Command::Facts { facts: &facts, reply: &[] }.encode();
        if command.len() > size_max as usize {
            let message =
                format!("the writes take {} bytes, and a command has at most {size_max}", command.len());
            let error = SqlError::new(SqlState::ProgramLimitExceeded, message)
                .hint("Write fewer rows in one statement or transaction.");
            return self.answer(conn, Err(failure(&error)), out);
        }
        self.propose(conn, Plan { tenant, command, rows, alone }, out);
    }

    /// Proposes a plan in the connection's session of the log, or asks for one first.
    fn propose(&mut self, conn: Conn, plan: Plan, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = &mut at.active else { return };
        let (session, number, tenant, command) = if let Some((session, number)) = &mut at.log {
            let request = (*session, *number, plan.tenant, plan.command.clone());
            *number = number.next();
            active.stage = Stage::Proposed(plan);
            request
        } else {
            // By luck, so that it is nobody else's; without the bit that the nonces of queries have.
            let number = RequestNumber(self.rng.next_u64() >> 1);
            active.stage = Stage::Registering(plan);
            (SessionId::NONE, number, TenantId::ZERO, Command::Register.encode())
        };
        self.requests.insert((session, number), conn);
        out.push(Effect::Propose { session, number, tenant, command });
    }

    /// The queue for the log is full: nothing was done.
    pub(crate) fn not_taken(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(conn) = self.requests.remove(&(session, number)) else { return false };
        self.turn_away(conn, Turn::Busy, out);
        true
    }

    /// What became of a request. Answers whether it was one of a statement.
    pub(crate) fn decided(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        verdict: Verdict,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(conn) = self.requests.remove(&(session, number)) else { return false };
        let Some(at) = self.connections.get_mut(&conn) else { return true };
        let Some(active) = &mut at.active else { return true };
        match (core::mem::replace(&mut active.stage, Stage::Ready), verdict.result) {
            (Stage::Registering(plan), Ok(Outcome::Registered { session })) => {
                at.log = Some((session, RequestNumber(1)));
                self.propose(conn, plan, out);
            }
            (Stage::Proposed(plan), Ok(_)) => self.answer(conn, Ok(plan.rows), out),
            (Stage::Proposed(plan), Err(Refusal::NoSession)) => {
                // Evicted: nothing was done, and another session does it.
                at.log = None;
                self.propose(conn, plan, out);
            }
            (Stage::Proposed(plan), Err(Refusal::Conflict)) => {
                active.replans += 1;
                if plan.alone && active.replans <= REPLANS_MAX {
                    self.plan_again(conn, plan.tenant);
                    return true;
                }
                let message = "could not serialize access: what was read has changed since";
                let error = SqlError::new(SqlState::SerializationFailure, message)
                    .hint("The transaction might succeed if it is tried again.");
                self.answer(conn, Err(failure(&error)), out);
            }
            (Stage::Proposed(plan), Err(refusal @ Refusal::Sql { .. }))
                if plan.alone
                    && active.replans < REPLANS_MAX
                    && refusal.sqlstate() != SqlState::ProgramLimitExceeded.code() =>
            {
                // Something came between that makes it wrong: planned again it says what, or takes another key.
                active.replans += 1;
                self.plan_again(conn, plan.tenant);
            }
            (_, Err(refusal)) => self.answer(conn, Err(refused(refusal)), out),
            (_, Ok(_)) => unreachable!("a verdict is of the request it answers"),
        }
        true
    }

    /// A statement was overtaken. It is planned again when those of its tenant are that were overtaken before it.
    fn plan_again(&mut self, conn: Conn, tenant: TenantId) {
        let turns = self.turns.entry(tenant).or_default();
        if turns.front() != Some(&conn) {
            turns.push_back(conn);
        }
        if turns.front() == Some(&conn) {
            self.make_ready(conn);
        } else if let Some(active) = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut()) {
            active.stage = Stage::Queued;
        }
    }

    /// A connection no longer has or wants its tenant's turn: the next one has it.
    fn leave_turn(&mut self, conn: Conn) {
        let held: Vec<TenantId> =
            self.turns.iter().filter(|(_, turns)| turns.contains(&conn)).map(|(tenant, _)| *tenant).collect();
        for tenant in held {
            let Some(turns) = self.turns.get_mut(&tenant) else { continue };
            let first = turns.front() == Some(&conn);
            turns.retain(|of| *of != conn);
            match turns.front().copied() {
                None => drop(self.turns.remove(&tenant)),
                Some(next) if first => self.make_ready(next),
                Some(_) => {}
            }
        }
    }

    /// The statement under way is done.
    fn answer(&mut self, conn: Conn, result: Result<SqlRows, SqlFailure>, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = at.active.take() else { return };
        self.bytes -= active.statement.text.len();
        let answer = SqlAnswer { in_block: at.session.in_transaction(), result };
        out.push(Effect::Answer { conn, nonce: active.nonce, answer });
        self.leave_turn(conn);
        self.next(conn, out);
    }
}

/// A statement that may run, none if the text holds none, or why it may not.
fn plan(
    active: &Active,
    session: &mut Session,
    tenant: TenantId,
    kernel: &Kernel,
    now: Now,
    seed: u64,
) -> Result<Option<Running>, SqlFailure> {
    let Statement { tenant: wanted, in_block, text } = &active.statement;
    if *in_block && !session.in_transaction() {
        let message = "the transaction is gone: its connection was lost, or the primary changed";
        let error = SqlError::new(SqlState::SerializationFailure, message);
        return Err(failure(
            &error.hint("Nothing of it was done, unless its COMMIT was sent. Begin it again."),
        ));
    }
    if *wanted != tenant {
        let message = format!("this connection is a session of tenant {tenant}");
        let error = SqlError::new(SqlState::InvalidParameterValue, message);
        return Err(failure(&error.hint("Open a connection for each tenant.")));
    }
    kernel.tenant(tenant).map_err(refused)?;
    let mut statements = parse::statements(text).map_err(|error| failure(&error))?;
    if statements.len() > 1 {
        let message = "one text holds several statements";
        return Err(failure(&SqlError::new(SqlState::SyntaxError, message).hint("Send them one by one.")));
    }
    let micros = i64::try_from(now.wall.0 / 1_000).unwrap_or(i64::MAX);
    Ok(statements.pop().map(|statement| Running::new(statement, text, Vec::new(), micros, seed)))
}

/// An answer in text, if it fits into a frame.
fn told(answer: session::Answer) -> Result<SqlRows, SqlError> {
    let mut size = 0;
    let mut take = |bytes: usize| {
        size += bytes + CELL_HEAD;
        if size <= ANSWER_BYTES_MAX {
            return Ok(());
        }
        let message = format!("the answer takes more than {ANSWER_BYTES_MAX} bytes");
        Err(SqlError::new(SqlState::ProgramLimitExceeded, message)
            .hint("Ask for fewer rows or columns, with LIMIT or WHERE."))
    };
    take(answer.tag.len())?;
    let mut columns = Vec::with_capacity(answer.columns.len());
    for column in &answer.columns {
        let kind = column.kind.name();
        take(column.name.len())?;
        take(kind.len())?;
        columns.push(SqlColumn { name: column.name.clone(), kind });
    }
    let mut rows = Vec::with_capacity(answer.rows.len());
    for row in &answer.rows {
        take(0)?;
        let mut cells = Vec::with_capacity(row.len());
        for (value, column) in row.iter().zip(&answer.columns) {
            let cell = text::output(value, &column.kind);
            take(cell.as_ref().map_or(0, String::len))?;
            cells.push(cell);
        }
        rows.push(cells);
    }
    for notice in &answer.notices {
        take(notice.len())?;
    }
    Ok(SqlRows { tag: answer.tag, columns, rows, notices: answer.notices })
}

/// A refusal of the log, for a frame.
fn refused(refusal: Refusal) -> SqlFailure {
    let code = SqlCode::new(refusal.sqlstate()).expect("a SQLSTATE has five characters");
    SqlFailure { code, message: refusal.to_string(), position: None, detail: None, hint: None }
}

/// A refusal of the query layer, for a frame.
fn failure(error: &SqlError) -> SqlFailure {
    let parts = error.parts();
    SqlFailure {
        code: SqlCode::new(parts.state.code()).expect("a SQLSTATE has five characters"),
        message: clipped(&parts.message),
        position: parts.position,
        detail: parts.detail.as_deref().map(clipped),
        hint: parts.hint.as_deref().map(clipped),
    }
}

/// A sentence, or the beginning of a very long one.
fn clipped(sentence: &str) -> String {
    if sentence.len() <= SENTENCE_BYTES_MAX {
        return sentence.to_string();
    }
    format!("{}…", &sentence[..sentence.floor_char_boundary(SENTENCE_BYTES_MAX)])
}
