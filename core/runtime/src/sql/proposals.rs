//! From facts to verdicts: what a statement came to is proposed, refused because it was overtaken, and planned again.

use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_io::Conn;
use kimberlite_kernel::staged::{Commands, Next};
use kimberlite_probe::mutant;
use kimberlite_query::session;
use kimberlite_row::fact::{Facts, Guard};
use kimberlite_row::{SqlError, SqlState};
use kimberlite_types::{Instant, RequestNumber, SessionId, TenantId};
use kimberlite_wire::client::Turn;
use kimberlite_wire::command::{Command, Outcome, Refusal, Verdict};

use super::answers::{failure, refused, told};
use super::{Awaited, Effect, Plan, Sql, Stage};

/// Rows of one proposal that others are planned on.
const LAID_MAX: usize = 8192;
/// How often a statement is planned again because it was overtaken.
const REPLANS_MAX: u32 = 16;
/// How often a statement is overtaken before its tenant's other statements wait for it.
const ALONE_REPLANS: u32 = 2;
/// How often a statement's session is evicted before it is told so.
const EVICTIONS_MAX: u32 = 12;
/// How long a statement whose session was evicted waits for another one, at most, the first time; each further time twice as
/// long.
const EVICTED_WAIT: Duration = Duration::from_millis(10);
/// How long it waits at most.
const EVICTED_WAIT_MAX: Duration = Duration::from_secs(1);

impl Sql {
    /// The statement is done once its facts are.
    pub(super) fn commit(
        &mut self,
        conn: Conn,
        facts: Facts,
        answer: session::Answer,
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
        // The facts of a block are those of its COMMIT.
        let alone = rows.last().is_none_or(|last| last.tag != "COMMIT");
        let waits = self.turns.get(&tenant).is_some_and(|turns| turns.front() != Some(&conn));
        if alone && waits {
            kimberlite_probe::reachable!("sql.waits_for_its_turn");
            active.stage = Stage::Queued;
            self.turns.entry(tenant).or_default().push_back(conn);
            return;
        }
        let read = |guard: &Guard| matches!(guard, Guard::Unchanged(..));
        let mut facts = facts;
        if mutant!(ReadsUnguarded, !alone && facts.guards.iter().any(read)) {
            facts.guards.retain(|guard| !read(guard));
        }
        let commands = Commands::new(facts, size_max as usize);
        let plan = Plan { tenant, commands, commits: false, rows, alone };
        if waits {
            active.stage = Stage::Holding(plan);
            self.turns.entry(tenant).or_default().push_back(conn);
            return;
        }
        self.propose(conn, plan, out);
    }

    /// Proposes a plan in the connection's session of the log, or asks for one first.
    pub(super) fn propose(&mut self, conn: Conn, plan: Plan, out: &mut Vec<Effect>) {
        let mut plan = plan;
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = &mut at.active else { return };
        let mut awaited = Awaited { conn, tenant: plan.tenant, mark: 0, laid: Vec::new() };
        let (session, number, tenant, command) = if let Some((session, number)) = &mut at.log {
            let command = match plan.commands.make_next() {
                Ok(Next::Commit(command)) => {
                    plan.commits = true;
                    command
                }
                Ok(Next::Stage(command)) => {
                    kimberlite_probe::reachable!("sql.stages");
                    command
                }
                Err(message) => {
                    let error = SqlError::new(SqlState::ProgramLimitExceeded, message)
                        .hint("Write fewer rows in one statement or transaction.");
                    at.session.fail();
                    return self.answer(conn, Err(failure(&error)), out);
                }
            };
            let request = (*session, *number, plan.tenant, command);
            *number = number.next();
            self.next_mark += 1;
            awaited.mark = self.next_mark;
            // What comes in pieces takes a while until it is done: others are not planned on it.
            if plan.commits && plan.commands.facts().writes.len() <= LAID_MAX {
                let ahead = self.ahead.entry(plan.tenant).or_default();
                awaited.laid = ahead.lay(plan.commands.facts(), awaited.mark);
            }
            active.stage = Stage::Proposed(plan);
            request
        } else {
            // By luck, so that it is nobody else's; without the bit that the nonces of queries have.
            let number = RequestNumber(self.rng.next_u64() >> 1);
            active.stage = Stage::Registering(plan);
            (SessionId::NONE, number, TenantId::ZERO, Command::Register.encode())
        };
        self.requests.insert((session, number), awaited);
        out.push(Effect::Propose { session, number, tenant, command });
    }

    /// A request is decided or was not taken: what it wrote is laid over the rows no longer.
    pub(super) fn settle(&mut self, session: SessionId, number: RequestNumber) -> Option<Conn> {
        let Awaited { conn, tenant, mark, laid } = self.requests.remove(&(session, number))?;
        if let Some(ahead) = self.ahead.get_mut(&tenant) {
            ahead.lift(&laid, mark);
            if ahead.is_empty() {
                self.ahead.remove(&tenant);
            }
        }
        Some(conn)
    }

    /// The queue for the log is full: nothing was done.
    pub(crate) fn not_taken(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(conn) = self.settle(session, number) else { return false };
        kimberlite_probe::reachable!("sql.log_is_full");
        self.turn_away(conn, Turn::Busy, out);
        true
    }

    /// What became of a request. Answers whether it was one of a statement.
    pub(crate) fn decided(
        &mut self,
        now: Instant,
        session: SessionId,
        number: RequestNumber,
        verdict: Verdict,
        out: &mut Vec<Effect>,
    ) -> bool {
        self.now = now;
        let Some(conn) = self.settle(session, number) else { return false };
        let Some(at) = self.connections.get_mut(&conn) else { return true };
        let Some(active) = &mut at.active else { return true };
        match (core::mem::replace(&mut active.stage, Stage::Ready), verdict.result) {
            (Stage::Registering(plan), Ok(Outcome::Registered { session })) => {
                at.log = Some((session, RequestNumber(1)));
                // What was proposed meanwhile is to be seen.
                if plan.alone && self.ahead.contains_key(&plan.tenant) {
                    self.make_ready(conn);
                } else {
                    self.propose(conn, plan, out);
                }
            }
            (Stage::Proposed(_), Ok(Outcome::Staged { .. })) if let Some(why) = active.given_up => {
                at.session.fail();
                let error = SqlError::new(SqlState::QueryCanceled, why);
                self.answer(conn, Err(failure(&error)), out);
            }
            (Stage::Proposed(plan), Ok(Outcome::Staged { .. })) => self.propose(conn, plan, out),
            (Stage::Proposed(plan), Ok(_)) if mutant!(DoneTwice, plan.alone && active.replans == 1) => {
                active.replans += 1;
                self.plan_again(conn, plan.tenant);
            }
            (Stage::Proposed(plan), Ok(_)) => self.answer(conn, Ok(plan.rows), out),
            (Stage::Proposed(plan), Err(Refusal::NoSession)) => self.session_is_evicted(conn, plan, out),
            (Stage::Proposed(plan), Err(Refusal::Conflict)) => {
                active.replans += 1;
                kimberlite_probe::sometimes!("sql.plans_again", plan.alone);
                kimberlite_probe::sometimes!("sql.block_is_overtaken", !plan.alone);
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
                    && refusal.sqlstate() != SqlState::ProgramLimitExceeded.code()
                    && refusal.sqlstate() != SqlState::OutOfMemory.code() =>
            {
                // Something came between that makes it wrong: planned again it says what, or takes another key.
                kimberlite_probe::reachable!("sql.constraint_comes_between");
                active.replans += 1;
                self.plan_again(conn, plan.tenant);
            }
            (_, Err(refusal)) => self.answer(conn, Err(refused(refusal)), out),
            (_, Ok(_)) => unreachable!("a verdict is of the request it answers"),
        }
        true
    }

    /// Nothing of a plan was done, for its session of the log was evicted: another session does it, after a while. Where more
    /// connections write than the cluster has sessions, each takes another's away; without a pause, and one that grows, none
    /// of them would come to write before it is evicted itself.
    fn session_is_evicted(&mut self, conn: Conn, mut plan: Plan, out: &mut Vec<Effect>) {
        plan.commands.restart();
        plan.commits = false;
        let Some(at) = self.connections.get_mut(&conn) else { return };
        let Some(active) = &mut at.active else { return };
        at.log = None;
        if active.evictions == EVICTIONS_MAX {
            kimberlite_probe::reachable!("sql.sessions_are_too_few");
            at.session.fail();
            let message = "more connections write than the cluster keeps sessions for";
            let error = SqlError::new(SqlState::TooManyConnections, message)
                .hint("Nothing was done. Try again later, or write from fewer connections.");
            return self.answer(conn, Err(failure(&error)), out);
        }
        kimberlite_probe::reachable!("sql.session_is_evicted");
        let most = EVICTED_WAIT.saturating_mul(1 << active.evictions).min(EVICTED_WAIT_MAX);
        active.evictions += 1;
        active.stage = Stage::Evicted(plan);
        let wait = Duration::from_nanos(self.rng.next_u64() % most.as_nanos() as u64);
        self.evicted.insert((self.now.after(wait), conn));
    }

    /// Those that were evicted long enough ago ask for another session.
    pub(super) fn register_again(&mut self, out: &mut Vec<Effect>) {
        while let Some((at, conn)) = self.evicted.first().copied()
            && at <= self.now
        {
            self.evicted.pop_first();
            let Some(active) = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut()) else {
                continue;
            };
            match core::mem::replace(&mut active.stage, Stage::Ready) {
                Stage::Evicted(plan) => self.propose(conn, plan, out),
                other => active.stage = other,
            }
        }
    }

    /// A statement was overtaken. The first time it is planned again at once, what came before it being known now; if that
    /// was not enough, when those of its tenant are that were overtaken as often before it, and nothing else is planned
    /// meanwhile.
    pub(super) fn plan_again(&mut self, conn: Conn, tenant: TenantId) {
        let Some(active) = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut()) else { return };
        if active.replans < ALONE_REPLANS {
            return self.make_ready(conn);
        }
        active.may_look_ahead = false;
        let turns = self.turns.entry(tenant).or_default();
        if turns.front() != Some(&conn) {
            turns.push_back(conn);
        }
        if turns.front() == Some(&conn) {
            self.take_turn(conn);
        } else {
            active.stage = Stage::Queued;
        }
    }

    /// It is a connection's turn: its statement is planned, or its COMMIT is proposed.
    pub(super) fn take_turn(&mut self, conn: Conn) {
        let Some(active) = self.connections.get_mut(&conn).and_then(|at| at.active.as_mut()) else { return };
        if !matches!(active.stage, Stage::Holding(_)) {
            active.stage = Stage::Ready;
        }
        self.ready.push_back(conn);
    }

    /// A connection no longer has or wants its tenant's turn: the next one has it.
    pub(super) fn leave_turn(&mut self, conn: Conn) {
        let held: Vec<TenantId> =
            self.turns.iter().filter(|(_, turns)| turns.contains(&conn)).map(|(tenant, _)| *tenant).collect();
        for tenant in held {
            let Some(turns) = self.turns.get_mut(&tenant) else { continue };
            let first = turns.front() == Some(&conn);
            turns.retain(|of| *of != conn);
            if first {
                self.next_turns(tenant);
            } else if turns.is_empty() {
                self.turns.remove(&tenant);
            }
        }
    }

    /// The front of a tenant's turns has left: those behind it go on that only waited for it, up to the next one that has
    /// to be alone.
    pub(super) fn next_turns(&mut self, tenant: TenantId) {
        while let Some(next) = self.turns.get(&tenant).and_then(|turns| turns.front().copied()) {
            let active = self.connections.get(&next).and_then(|at| at.active.as_ref());
            let alone = active.is_some_and(|active| active.replans >= ALONE_REPLANS);
            if !alone && let Some(turns) = self.turns.get_mut(&tenant) {
                turns.pop_front();
            }
            self.take_turn(next);
            if alone {
                return;
            }
        }
        self.turns.remove(&tenant);
    }
}
