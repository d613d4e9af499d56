//! Statements of SQL: each connection is a session, and its statements run one after the other.
//!
//! A statement is confirmed as a query is, then runs in steps that are spread over events, then proposes the facts it
//! came to as a command of its connection's own session of the log. What becomes of them is answered when they are
//! applied.
//!
//! A single INSERT, UPDATE or DELETE is planned on the committed rows with what its tenant has proposed laid over them, so
//! that many writes of one row go into one op. Nothing is answered by what is only proposed: such a plan counts if it
//! comes to facts, which are refused if what it was made on is not what is there. If it comes to anything else, it is made
//! again on what is committed.
//!
//! Facts whose plan is overtaken are refused: a statement outside of a transaction block is then planned
//! again. One that was overtaken twice is planned alone: what else its tenant would propose waits for its verdict, COMMITs
//! of transaction blocks included, so that none is overtaken for ever. A transaction block that is overtaken is told to
//! begin again.
//!
//! `SET statement_timeout` ends a statement that takes longer, unless its facts are on their way: what becomes of those is
//! decided by the log.

mod answers;
mod proposals;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_io::Conn;
use kimberlite_kernel::Kernel;
use kimberlite_kernel::staged::Commands;
use kimberlite_probe::mutant;
use kimberlite_query::overlay::Ahead;
use kimberlite_query::parse;
use kimberlite_query::session::{self, Running, Session, Step};
use kimberlite_row::check::Stop;
use kimberlite_row::fact::{Guard, RowId};
use kimberlite_row::{ObjectId, SqlError, SqlState};
use kimberlite_storage::{PageRef, Storage};
use kimberlite_types::{Instant, Now, Op, RequestNumber, Rng, SessionId, Streams, TenantId};
use kimberlite_wire::Prepare;
use kimberlite_wire::client::{Answer, SqlAnswer, SqlFailure, SqlRows, Statement, Turn};
use kimberlite_wire::command::SqlCode;

use answers::{crowded, failure, refused, told, unreadable};

/// Statements that one connection may have waiting: as many as a client asks at once.
const STATEMENTS_QUEUED_MAX: usize = 64;
/// Bytes of text that statements of all connections may hold: 64 of the largest.
const STATEMENT_BYTES_MAX: usize = 64 << 20;
/// Statements that hold rows at once; each is bounded by the query layer. Others wait for one to end.
const EXECUTING_MAX: usize = 4;
/// Steps of statements in one event: then the node looks after everything else. Most take a microsecond or two.
const STEPS_MAX: usize = 1024;
/// Rows that the steps of one event may handle, besides those of the last one.
const EVENT_ROWS_MAX: u64 = 8192;
/// Steps that one statement takes before another one has its turn.
const TURN_STEPS_MAX: usize = 64;
/// After how long statements that are not done go on, if nothing else happens: everything that has happened comes first.
const PAUSE: Duration = Duration::from_micros(50);
/// Frames of answers that wait for those in front of them to leave, of all connections: 256 MiB.
const PARTS_HELD_MAX: usize = 256;
/// Ops of the log that are kept at hand for one statement: two times what it asks for at once.
const PREPARES_MAX: usize = 16;

/// Set in the tickets of statements and never in those of queries: both are confirmed.
const TICKET: u64 = 1 << 63;

/// The condition of PostgreSQL for a write of which nobody knows whether it was done.
const RESOLUTION_UNKNOWN: &str = "08007";

/// What the node has to do.
pub(crate) enum Effect {
    Answer {
        conn: Conn,
        nonce: u64,
        answer: Answer,
    },
    Turn {
        conn: Conn,
        nonce: u64,
        turn: Turn,
    },
    Confirm {
        ticket: u64,
    },
    Propose {
        session: SessionId,
        number: RequestNumber,
        tenant: TenantId,
        command: Vec<u8>,
    },
    /// These pages are needed to go on.
    Want {
        conn: Conn,
        pages: Vec<PageRef>,
    },
    /// These ops of the log are needed to go on.
    Fetch {
        conn: Conn,
        ops: Vec<Op>,
    },
    /// They are needed no longer.
    Release {
        conn: Conn,
    },
    /// This page is needed and lost.
    Lost {
        page: PageRef,
    },
}

/// Why a step came to nothing.
enum Pause {
    Refused(SqlError),
    Missed(Vec<PageRef>),
    /// Records of streams are needed, which stand in these ops.
    Unread(Vec<Op>),
}

/// Facts on their way, and what is answered once they are installed.
struct Plan {
    tenant: TenantId,
    commands: Commands,
    /// Whether what is proposed does it, and not only stages a piece of it.
    commits: bool,
    rows: Vec<SqlRows>,
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
    /// A COMMIT whose turn it is not.
    Holding(Plan),
    /// Its connection gets a session of the log.
    Registering(Plan),
    /// Its session of the log was evicted, and it waits before it asks for another one.
    Evicted(Plan),
    /// Its facts are proposed.
    Proposed(Plan),
}

/// The statement of a connection that is under way.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own, and all go with the statement"
)]
struct Active {
    nonce: u64,
    statement: Statement,
    stage: Stage,
    replans: u32,
    /// How often its session of the log was evicted before its facts were decided.
    evictions: u32,
    /// Why it is given up, once it is known what became of the piece that is on its way.
    given_up: Option<&'static str>,
    /// Whether it read what is only proposed.
    ahead: bool,
    /// Whether it may do so.
    may_look_ahead: bool,
    /// When it is given up, if it is not proposed by then.
    until: Option<Instant>,
    /// Whether it waits for pages.
    awaits: bool,
    /// Whether pages are kept at hand for it, or wanted.
    pins: bool,
    /// Pages that it waited for and that are lost.
    lost: Vec<PageRef>,
    /// Ops of the log that it waits for.
    unread: BTreeSet<Op>,
    /// Those that were read for it.
    prepares: BTreeMap<Op, Prepare>,
}

/// A request whose verdict is awaited.
struct Awaited {
    conn: Conn,
    tenant: TenantId,
    mark: u64,
    /// The rows it writes, that others are planned on.
    laid: Vec<(ObjectId, RowId)>,
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
    requests: BTreeMap<(SessionId, RequestNumber), Awaited>,
    /// Of each tenant: what is proposed and not decided.
    ahead: BTreeMap<TenantId, Ahead>,
    next_mark: u64,
    /// When statements are given up, and of which connection.
    deadlines: BTreeSet<(Instant, Conn)>,
    /// Connections whose session of the log was evicted, and when they ask for another one.
    evicted: BTreeSet<(Instant, Conn)>,
    /// Connections whose statement may take a step.
    ready: VecDeque<Conn>,
    /// Of each tenant with statements that were overtaken twice: those, and what waits for them, in order. The first one plans,
    /// the others wait.
    turns: BTreeMap<TenantId, VecDeque<Conn>>,
    bytes: usize,
    /// Frames of answers in `parts`.
    held: usize,
    /// Of each connection: what is to be sent once what was sent before has left.
    parts: BTreeMap<Conn, VecDeque<(u64, Answer)>>,
    /// The time of the last event that was about statements.
    now: Instant,
}

impl Sql {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Streams::new(seed).stream("statements", 0),
            connections: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: TICKET,
            requests: BTreeMap::new(),
            ahead: BTreeMap::new(),
            next_mark: 0,
            deadlines: BTreeSet::new(),
            evicted: BTreeSet::new(),
            ready: VecDeque::new(),
            turns: BTreeMap::new(),
            bytes: 0,
            held: 0,
            parts: BTreeMap::new(),
            now: Instant::ZERO,
        }
    }

    /// Statements that are not answered.
    pub(crate) fn under_way(&self) -> usize {
        self.connections.values().map(|at| at.queue.len() + usize::from(at.active.is_some())).sum()
    }

    /// Whether a statement may take a step, or has taken too long.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        let due = |times: &BTreeSet<(Instant, Conn)>| times.first().is_some_and(|(at, _)| *at <= now);
        !self.ready.is_empty() || due(&self.deadlines) || due(&self.evicted)
    }

    /// When there is something to do.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let ready = (!self.ready.is_empty()).then(|| now.after(PAUSE));
        let due = |times: &BTreeSet<(Instant, Conn)>| times.first().map(|(at, _)| *at);
        ready.into_iter().chain(due(&self.deadlines)).chain(due(&self.evicted)).min()
    }

    /// Whether this ticket is one of a statement.
    pub(crate) const fn owns(ticket: u64) -> bool {
        ticket & TICKET != 0
    }

    /// Takes a statement in.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        conn: Conn,
        nonce: u64,
        statement: Statement,
        out: &mut Vec<Effect>,
    ) {
        self.now = now;
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
        let until = timeout(&at.session).map(|timeout| self.now.after(timeout));
        self.deadlines.extend(until.map(|until| (until, conn)));
        let stage = Stage::Confirming;
        let (ahead, may_look_ahead) = (false, true);
        let (awaits, pins, lost) = (false, false, Vec::new());
        let (replans, evictions) = (0, 0);
        at.active = Some(Active {
            nonce,
            statement,
            stage,
            replans,
            evictions,
            given_up: None,
            ahead,
            may_look_ahead,
            until,
            awaits,
            pins,
            lost,
            unread: BTreeSet::new(),
            prepares: BTreeMap::new(),
        });
        if mutant!(StatementUnconfirmed) {
            self.make_ready(conn);
            return;
        }
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
        self.deadlines.retain(|(_, of)| *of != conn);
        self.evicted.retain(|(_, of)| *of != conn);
        out.push(Effect::Turn { conn, nonce: active.nonce, turn });
        self.leave_turn(conn);
        self.next(conn, out);
    }

    /// Forgets a connection that is gone, with its transaction. What it proposed takes its course. Answers whether pages are
    /// kept for it.
    pub(crate) fn closed(&mut self, conn: Conn) -> bool {
        self.held -= self.parts.remove(&conn).map_or(0, |parts| parts.len());
        let Some(at) = self.connections.remove(&conn) else { return false };
        let pins = at.active.as_ref().is_some_and(|active| active.pins);
        self.bytes -= at.queue.iter().map(|(_, statement)| statement.text.len()).sum::<usize>();
        self.bytes -= at.active.map_or(0, |active| active.statement.text.len());
        self.tickets.retain(|_, of| *of != conn);
        self.deadlines.retain(|(_, of)| *of != conn);
        self.evicted.retain(|(_, of)| *of != conn);
        self.ready.retain(|of| *of != conn);
        self.leave_turn(conn);
        pins
    }

    /// The pages that a statement wanted are at hand, but for these.
    pub(crate) fn pages_came(&mut self, conn: Conn, bad: Vec<PageRef>) {
        let active = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut());
        if let Some(active) = active.filter(|active| active.awaits) {
            active.awaits = false;
            active.lost = bad;
            self.ready.push_back(conn);
        }
    }

    /// An op that a statement waited for was read.
    pub(crate) fn prepare_came(&mut self, conn: Conn, prepare: &Prepare) {
        let active = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut());
        let Some(active) = active else { return };
        if !active.unread.remove(&prepare.header.op) {
            return;
        }
        active.prepares.insert(prepare.header.op, prepare.clone());
        if active.unread.is_empty() && active.awaits {
            active.awaits = false;
            self.ready.push_back(conn);
        }
    }

    /// An op that a statement waits for is damaged, and nobody else has it.
    pub(crate) fn op_lost(&mut self, conn: Conn, op: Op, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        if at.active.as_ref().is_some_and(|active| active.unread.contains(&op)) {
            at.session.fail();
            self.ready.retain(|of| *of != conn);
            let message = format!("op {op} of the log is damaged, and with it records of a stream");
            let error = SqlError::new(SqlState::IoError, message)
                .hint("`kmb verify` tells what is damaged; conditions on the offset leave it out.");
            self.answer(conn, Err(failure(&error)), out);
        }
    }

    /// This node no longer speaks for the cluster: all sessions end.
    pub(crate) fn resigned(&mut self, out: &mut Vec<Effect>) {
        for (conn, at) in core::mem::take(&mut self.connections) {
            if let Some(Active { nonce, stage, pins, .. }) = at.active {
                if pins {
                    out.push(Effect::Release { conn });
                }
                let commits = matches!(&stage, Stage::Proposed(plan) if plan.commits);
                if commits && !mutant!(ProposedTurnedAway) {
                    kimberlite_probe::reachable!("sql.outcome_is_unknown");
                    let code = SqlCode::new(RESOLUTION_UNKNOWN).expect("five characters");
                    let message =
                        "the primary changed before the write was decided; it may have been done or not";
                    let hint = Some("Look whether it was done before you do it again.".to_string());
                    let failure =
                        SqlFailure { code, message: message.to_string(), position: None, detail: None, hint };
                    let answer = Answer::Sql(SqlAnswer { in_block: false, result: Err(failure) });
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
        self.ahead.clear();
        self.deadlines.clear();
        self.evicted.clear();
        self.ready.clear();
        self.turns.clear();
        self.bytes = 0;
    }

    /// Moves statements on, by a bounded number of steps.
    pub(crate) fn run(
        &mut self,
        now: Now,
        kernel: &Kernel,
        storage: &Storage,
        size_max: u32,
        out: &mut Vec<Effect>,
    ) {
        self.now = now.monotonic;
        self.give_up(out);
        self.register_again(out);
        let (mut steps, mut rows) = (0, 0);
        while steps < STEPS_MAX && rows < EVENT_ROWS_MAX {
            let Some(conn) = self.ready.pop_front() else { return };
            let executing =
                |at: &&Connection| matches!(at.active, Some(Active { stage: Stage::Running(_), .. }));
            let full = self.connections.values().filter(executing).count() >= EXECUTING_MAX;
            let Some(at) = self.connections.get_mut(&conn) else { continue };
            let Some(active) = &mut at.active else { continue };
            steps += 1;
            if let Stage::Holding(_) = active.stage
                && let Stage::Holding(plan) = core::mem::replace(&mut active.stage, Stage::Ready)
            {
                self.propose(conn, plan, out);
                continue;
            }
            if matches!(active.stage, Stage::Ready) {
                if full {
                    self.ready.push_back(conn);
                    continue;
                }
                let seed = self.rng.next_u64();
                match plan(active, &mut at.session, at.tenant, kernel, now, seed) {
                    Ok(Some(running)) => {
                        active.ahead = false;
                        active.stage = Stage::Running(Box::new(running));
                    }
                    Ok(None) => {
                        self.answer(conn, Ok(vec![SqlRows::default()]), out);
                        continue;
                    }
                    Err(error) => {
                        at.session.fail();
                        self.answer(conn, Err(error), out);
                        continue;
                    }
                }
            }
            for _ in 0..TURN_STEPS_MAX {
                let stepped = self.step(conn, kernel, storage, &mut rows);
                if !matches!(stepped, Some(Err(Pause::Missed(_) | Pause::Unread(_)))) {
                    self.release(conn, out);
                }
                match stepped {
                    Some(Ok(Step::More)) if rows < EVENT_ROWS_MAX => steps += 1,
                    Some(Ok(Step::More)) | None => break,
                    Some(Ok(ended)) => {
                        self.ended(conn, Ok(ended), size_max, out);
                        break;
                    }
                    Some(Err(Pause::Refused(error))) => {
                        self.ended(conn, Err(error), size_max, out);
                        break;
                    }
                    Some(Err(Pause::Missed(pages))) => {
                        self.missed(conn, pages, out);
                        break;
                    }
                    Some(Err(Pause::Unread(ops))) => {
                        self.unread(conn, ops, out);
                        break;
                    }
                }
            }
            let goes_on = |at: &Connection| {
                matches!(at.active, Some(Active { stage: Stage::Running(_), awaits: false, .. }))
            };
            if self.connections.get(&conn).is_some_and(goes_on) && !self.ready.contains(&conn) {
                self.ready.push_back(conn);
            }
        }
    }

    /// One step of a statement that runs; counts the rows it handled.
    fn step(
        &mut self,
        conn: Conn,
        kernel: &Kernel,
        storage: &Storage,
        rows: &mut u64,
    ) -> Option<Result<Step, Pause>> {
        let at = self.connections.get_mut(&conn)?;
        let active = at.active.as_mut()?;
        let Stage::Running(running) = &mut active.stage else { return None };
        let pages = storage.pages();
        let stored = kernel.rows_and_streams(at.tenant, &pages, &active.prepares);
        let alone = !at.session.in_transaction() && active.may_look_ahead && running.writes();
        let ahead = self.ahead.get(&at.tenant).filter(|ahead| alone && !ahead.is_empty());
        let before = running.work();
        let stepped = match ahead {
            Some(ahead) => {
                active.ahead = true;
                at.session.step(running, &ahead.over(&stored))
            }
            None => at.session.step(running, &stored),
        };
        *rows += running.work().saturating_sub(before);
        match stepped {
            Ok(step) => Some(Ok(step)),
            Err(Stop::Refused(error)) => Some(Err(Pause::Refused(error))),
            Err(Stop::Miss(miss)) if !miss.ops.is_empty() => Some(Err(Pause::Unread(miss.ops))),
            Err(Stop::Miss(_)) => Some(Err(Pause::Missed(pages.missed()))),
        }
    }

    /// A step needs these pages: it is made again when they came, unless one of them came before and was lost.
    fn missed(&mut self, conn: Conn, pages: Vec<PageRef>, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = &mut at.active else { return };
        if let Some(page) = pages.iter().find(|page| active.lost.contains(page)).copied() {
            at.session.fail();
            self.answer(conn, Err(unreadable(&page)), out);
            out.push(Effect::Lost { page });
            return;
        }
        kimberlite_probe::reachable!("sql.misses");
        (active.awaits, active.pins) = (true, true);
        out.push(Effect::Want { conn, pages });
    }

    /// A step needs records of these ops: it is made again when all of them were read.
    fn unread(&mut self, conn: Conn, ops: Vec<Op>, out: &mut Vec<Effect>) {
        let Some(active) = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut()) else { return };
        // One stream at a time is read; what another one needs again is read again.
        if active.prepares.len() + ops.len() > PREPARES_MAX {
            active.prepares.clear();
        }
        (active.awaits, active.pins) = (true, true);
        active.unread = ops.iter().copied().collect();
        out.push(Effect::Fetch { conn, ops });
    }

    /// A step is over: the pages that were kept for it are needed no longer.
    fn release(&mut self, conn: Conn, out: &mut Vec<Effect>) {
        let active = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut());
        if let Some(active) = active.filter(|active| active.pins) {
            active.lost.clear();
            active.pins = false;
            out.push(Effect::Release { conn });
        }
    }

    /// A statement came to its end, one way or another.
    fn ended(&mut self, conn: Conn, ended: Result<Step, SqlError>, size_max: u32, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = &mut at.active else { return };
        if active.ahead && !stands_ahead(&ended) {
            kimberlite_probe::reachable!("sql.looked_ahead_in_vain");
            active.may_look_ahead = false;
            self.make_ready(conn);
            return;
        }
        match ended {
            Ok(Step::More) => {}
            Ok(Step::Done(answer)) => {
                let told = told(answer);
                if told.is_err() {
                    at.session.fail();
                }
                self.answer(conn, told.map_err(|error| failure(&error)), out);
            }
            Ok(Step::Commit(facts, answer)) => self.commit(conn, facts, answer, size_max, out),
            Err(error) => self.answer(conn, Err(failure(&error)), out),
        }
    }

    /// Ends statements that take too long. What is proposed is left to the log.
    fn give_up(&mut self, out: &mut Vec<Effect>) {
        while let Some((until, conn)) = self.deadlines.first().copied()
            && until <= self.now
        {
            self.deadlines.pop_first();
            self.cancel(conn, "canceling statement due to statement timeout", out);
        }
    }

    /// The sender of a statement no longer wants it.
    pub(crate) fn cancelled(&mut self, conn: Conn, nonce: u64, out: &mut Vec<Effect>) {
        let why = "canceling statement due to user request";
        let Some(at) = self.connections.get_mut(&conn) else { return };
        if at.active.as_ref().is_some_and(|active| active.nonce == nonce) {
            self.cancel(conn, why, out);
        } else if let Some(place) = at.queue.iter().position(|(waiting, _)| *waiting == nonce)
            && let Some((nonce, statement)) = at.queue.remove(place)
        {
            self.bytes -= statement.text.len();
            let result = Err(failure(&SqlError::new(SqlState::QueryCanceled, why)));
            let answer = Answer::Sql(SqlAnswer { in_block: at.session.in_transaction(), result });
            out.push(Effect::Answer { conn, nonce, answer });
        }
    }

    /// Ends the statement under way, unless its facts are on their way.
    fn cancel(&mut self, conn: Conn, why: &'static str, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = &mut at.active else { return };
        match &active.stage {
            Stage::Proposed(plan) if plan.commits => return,
            Stage::Proposed(_) => {
                active.given_up = Some(why);
                return;
            }
            Stage::Registering(_) => return,
            _ => {}
        }
        at.session.fail();
        self.tickets.retain(|_, of| *of != conn);
        self.ready.retain(|of| *of != conn);
        self.answer(conn, Err(failure(&SqlError::new(SqlState::QueryCanceled, why))), out);
    }

    /// What was sent to a connection has left.
    pub(crate) fn sent(&mut self, conn: Conn, out: &mut Vec<Effect>) {
        let Some(parts) = self.parts.get_mut(&conn) else { return };
        if let Some((nonce, answer)) = parts.pop_front() {
            self.held -= 1;
            out.push(Effect::Answer { conn, nonce, answer });
        }
        if parts.is_empty() {
            self.parts.remove(&conn);
        }
    }

    /// The statement under way is done.
    fn answer(&mut self, conn: Conn, result: Result<Vec<SqlRows>, SqlFailure>, out: &mut Vec<Effect>) {
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = at.active.take() else { return };
        self.bytes -= active.statement.text.len();
        if active.pins {
            out.push(Effect::Release { conn });
        }
        if let Some(until) = active.until {
            self.deadlines.remove(&(until, conn));
        }
        self.evicted.retain(|(_, of)| *of != conn);
        let in_block = at.session.in_transaction();
        let result = result.and_then(|rows| {
            let fits = rows.len() <= 1 || self.held + rows.len() <= PARTS_HELD_MAX;
            if fits { Ok(rows) } else { Err(crowded()) }
        });
        let mut answers = VecDeque::new();
        let result = result.map(|mut rows| {
            let last = rows.pop().unwrap_or_default();
            answers.extend(rows.into_iter().map(|part| (active.nonce, Answer::SqlPart(part))));
            last
        });
        answers.push_back((active.nonce, Answer::Sql(SqlAnswer { in_block, result })));
        if !self.parts.contains_key(&conn)
            && let Some((nonce, answer)) = answers.pop_front()
        {
            out.push(Effect::Answer { conn, nonce, answer });
        }
        if !answers.is_empty() {
            self.held += answers.len();
            self.parts.entry(conn).or_default().append(&mut answers);
        }
        self.leave_turn(conn);
        self.next(conn, out);
    }
}

/// How long a statement of a session may take.
fn timeout(session: &Session) -> Option<Duration> {
    let text = session.setting(session::STATEMENT_TIMEOUT)?;
    session::milliseconds(text).filter(|millis| *millis > 0).map(Duration::from_millis)
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
    if *in_block && !session.in_transaction() && !mutant!(BlockRunsOn) {
        kimberlite_probe::reachable!("sql.block_is_gone");
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
    let micros = i64::try_from(now.wall.0 / 1_000).unwrap_or(i64::MAX);
    if let Some(statement) = session.statement(text) {
        return Ok(Some(Running::new(statement, text.as_str(), Vec::new(), micros, seed)));
    }
    let mut statements = parse::statements(text).map_err(|error| failure(&error))?;
    if statements.len() > 1 {
        let message = "one text holds several statements";
        return Err(failure(&SqlError::new(SqlState::SyntaxError, message).hint("Send them one by one.")));
    }
    Ok(statements.pop().map(|statement| Running::new(statement, text.as_str(), Vec::new(), micros, seed)))
}

/// Whether what a statement came to holds also if what it saw ahead of it will never be. Nothing is answered by what is only
/// proposed. Facts are refused if a row that they replace is not as it was seen; but of rows that were only read, a guard
/// can say no more than that nothing was written there since, and that holds just when those ahead were refused.
fn stands_ahead(ended: &Result<Step, SqlError>) -> bool {
    let Ok(Step::Commit(facts, _)) = ended else { return false };
    let read = |guard: &Guard| matches!(guard, Guard::Version(..) | Guard::Unchanged(..));
    let reads = facts.guards.iter().any(read);
    !reads || mutant!(AheadTrusted)
}
