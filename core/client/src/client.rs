//! The client: what it is told, what it tells, and how one leads to the other.
//!
//! After every input the same three steps bring it forward: what is overdue is given up (`expire`), what
//! waits is sent (`pump`), and connections that nothing needs are closed (`tidy`). Handlers of events only
//! record.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use kimberlite_io::{CloseReason, Conn, Event, Frame, Io, Machine, Net};
use kimberlite_probe::mutant;
use kimberlite_types::limits::COMMAND_SIZE_LIMIT;
use kimberlite_types::{
    ClusterId, Instant, Now, ReplicaId, RequestNumber, Rng, SessionId, Streams, TenantId,
};
use kimberlite_wire::client::{
    Answer, ClientFrame, Query, SQL_PARTS_MAX, STATEMENT_SIZE_MAX, SqlAnswer, Statement, Turn, cancel_frame,
    query_frame, statement_frame,
};
use kimberlite_wire::command::{Outcome, Refusal, Verdict};
use kimberlite_wire::{FrameHeader, Malformed};

use crate::ClientOptions;
use crate::limits::{COMMANDS_QUEUED_MAX, LATER_MAX, QUERIES_MAX};
use crate::route::Route;
use crate::task::Task;

/// Set in the nonces of queries and never in the numbers of requests, because a `Turn` names either.
const QUERY_NONCE: u64 = 1 << 63;

/// All that can happen to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The world says something. Events about other parents' connections are ignored.
    Event(Event),
    /// Do this once. Answered by [`Output::Done`] or [`Output::Failed`] with the same ticket.
    Submit {
        /// The parent's name for it.
        ticket: u64,
        /// The tenant it is for.
        tenant: TenantId,
        /// The encoded command. Not `Register`: the client does that itself.
        command: Vec<u8>,
    },
    /// Tell me this. Answered by [`Output::Answered`] or [`Output::Failed`] with the same ticket.
    Query {
        /// The parent's name for it.
        ticket: u64,
        /// What is asked.
        query: Query,
        /// The replica to ask, and no other; none for the one that commands go to.
        to: Option<ReplicaId>,
    },
    /// Run this SQL, once, in the session that the connection to the primary is. Answered by [`Output::Answered`] or
    /// [`Output::Failed`] with the same ticket. When its connection is lost after it was sent, it fails and is not sent
    /// again: nobody knows what became of it.
    Statement {
        /// The parent's name for it.
        ticket: u64,
        /// What is to be run.
        statement: Statement,
    },
    /// End the statement with this ticket. It is answered as ever: as cancelled, unless it was done before.
    Cancel {
        /// The statement's ticket.
        ticket: u64,
    },
}

/// What a client tells its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A session began. Happens before the first command, and again after an eviction.
    Registered(SessionId),
    /// The final word on a command.
    Done {
        /// The ticket it was submitted with.
        ticket: u64,
        /// What became of it.
        verdict: Verdict,
    },
    /// The answer to a query or a statement.
    Answered {
        /// The ticket it was asked with.
        ticket: u64,
        /// The answer.
        answer: Answer,
    },
    /// There is no final word, and there will be none.
    Failed {
        /// The ticket of the command or query.
        ticket: u64,
        /// Why.
        why: ClientError,
    },
    /// The cluster has forgotten the session. The command in flight fails; those that wait get a new session.
    Evicted,
    /// A connection is open.
    Connected {
        /// To whom.
        replica: ReplicaId,
    },
    /// A connection ended, or never opened, and not because it was no longer needed.
    Disconnected {
        /// To whom.
        replica: ReplicaId,
        /// Why.
        why: Disconnect,
    },
    /// A replica named another as the primary, and the client turns there.
    Redirected {
        /// Who said so.
        from: ReplicaId,
        /// The primary.
        to: ReplicaId,
    },
}

/// Why a command or query has no final word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// Too many wait already. Nothing was sent.
    QueueFull,
    /// The command is larger than the cluster takes. Nothing was done.
    TooLarge,
    /// The session was evicted before the command was answered. It may have been executed or not.
    Evicted,
    /// The time to give up came, or the connection that carried a statement was lost.
    GaveUp {
        /// Whether it was ever sent: if so, a command may have been executed, or may yet be.
        sent: bool,
    },
    /// The one replica that should answer cannot, or there is none of that number.
    WrongReplica,
}

impl ClientError {
    /// Whether a command may nevertheless have been executed.
    pub const fn is_outcome_unknown(self) -> bool {
        matches!(self, Self::Evicted | Self::GaveUp { sent: true })
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "too many requests wait for an answer already",
            Self::TooLarge => "larger than the cluster accepts",
            Self::Evicted => "the session was evicted; the command may have been executed or not",
            Self::GaveUp { sent: true } => "no answer in time; a command may have been executed or not",
            Self::GaveUp { sent: false } => "no replica could be reached in time; nothing was sent",
            Self::WrongReplica => "the replica asked cannot answer this",
        })
    }
}

impl core::error::Error for ClientError {}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnect {
    /// The driver reports it closed.
    Closed(CloseReason),
    /// It did not open in time.
    ConnectTimeout,
    /// A request or query was not answered in time.
    RequestTimeout,
    /// What the replica sent is not the protocol.
    Malformed(Malformed),
    /// The replica keeps sending the client elsewhere, or keeps not knowing where.
    NoPrimary,
}

/// One call of [`Machine::on`]: the time, whom to ask and whom to tell.
pub(crate) struct Step<'a> {
    pub(crate) now: Instant,
    pub(crate) net: &'a mut dyn Net,
    pub(crate) out: &'a mut Vec<Output>,
}

/// A command that waits for its turn.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: u64,
    pub(crate) tenant: TenantId,
    pub(crate) command: Vec<u8>,
    pub(crate) give_up_at: Option<Instant>,
}

/// The one request in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) task: Task,
    pub(crate) number: RequestNumber,
    /// The parent's ticket; none for the registration.
    pub(crate) ticket: Option<u64>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    Query(Query),
    Statement,
}

/// A query or statement in flight.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) task: Task,
    pub(crate) ticket: u64,
    pub(crate) question: Question,
    /// The one replica to ask. Of a statement, the one it was sent to.
    pub(crate) to: Option<ReplicaId>,
    /// Rows of a statement that came ahead of its answer, and in how many frames.
    pub(crate) rows: Vec<Vec<Option<String>>>,
    pub(crate) parts: usize,
}

impl Asked {
    /// A statement that was sent and not turned away: it may have been run.
    pub(crate) fn is_sent_statement(&self) -> bool {
        matches!(self.question, Question::Statement) && self.to.is_some()
    }
}

/// A client of a cluster, with one session. See the crate's documentation.
#[derive(Debug)]
pub struct Client {
    pub(crate) options: ClientOptions,
    pub(crate) rng: Rng,
    pub(crate) session: Option<SessionId>,
    /// The number of the session's next request.
    pub(crate) next_number: RequestNumber,
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) flight: Option<Flight>,
    pub(crate) queries: BTreeMap<u64, Asked>,
    pub(crate) queries_asked: u64,
    /// By replica.
    pub(crate) routes: Vec<Route>,
    /// The replica taken for the primary.
    pub(crate) target: ReplicaId,
    /// Redirects followed since something was answered.
    pub(crate) redirects: u32,
    pub(crate) next_conn: u64,
    pub(crate) strays: u64,
}

impl Client {
    /// A client that has done nothing yet. It connects when there is something to send.
    pub fn new(options: ClientOptions) -> Self {
        options.check();
        let mut rng = Streams::new(options.seed).stream("client", 0);
        let target = ReplicaId(rng.below(u64::from(options.replicas)) as u8);
        Self {
            options,
            rng,
            session: None,
            next_number: RequestNumber(1),
            waiting: VecDeque::new(),
            flight: None,
            queries: BTreeMap::new(),
            queries_asked: 0,
            routes: (0..options.replicas).map(|_| Route::default()).collect(),
            target,
            redirects: 0,
            next_conn: options.first_conn,
            strays: 0,
        }
    }

    /// The session, once there is one.
    pub const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Frames that answered nothing: replies to an earlier copy of a request, mostly.
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// Whether every command and query was answered or has failed.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flight.is_none() && self.queries.is_empty()
    }

    fn submit(&mut self, waiting: Waiting, step: &mut Step<'_>) {
        let ticket = waiting.ticket;
        let why = if waiting.command.len() > COMMAND_SIZE_LIMIT as usize {
            ClientError::TooLarge
        } else if self.waiting.len() >= COMMANDS_QUEUED_MAX {
            ClientError::QueueFull
        } else {
            self.waiting.push_back(Waiting { give_up_at: self.give_up_at(step.now), ..waiting });
            return;
        };
        step.out.push(Output::Failed { ticket, why });
    }

    fn ask(&mut self, ticket: u64, query: Query, to: Option<ReplicaId>, step: &mut Step<'_>) {
        let why = if to.is_some_and(|to| to.0 >= self.options.replicas) {
            ClientError::WrongReplica
        } else if self.queries.len() >= QUERIES_MAX {
            ClientError::QueueFull
        } else {
            let nonce = self.query_nonce();
            let frame = query_frame(self.options.cluster, nonce, &query);
            let task = Task::new(nonce, frame, self.give_up_at(step.now));
            let question = Question::Query(query);
            self.queries.insert(nonce, Asked { task, ticket, question, to, rows: Vec::new(), parts: 0 });
            return;
        };
        step.out.push(Output::Failed { ticket, why });
    }

    fn run(&mut self, ticket: u64, statement: &Statement, step: &mut Step<'_>) {
        let why = if statement.text.len() > STATEMENT_SIZE_MAX {
            ClientError::TooLarge
        } else if self.queries.len() >= QUERIES_MAX {
            ClientError::QueueFull
        } else {
            let nonce = self.query_nonce();
            let frame = statement_frame(self.options.cluster, nonce, statement);
            let task = Task { once: true, ..Task::new(nonce, frame, self.give_up_at(step.now)) };
            let question = Question::Statement;
            let asked = Asked { task, ticket, question, to: None, rows: Vec::new(), parts: 0 };
            self.queries.insert(nonce, asked);
            return;
        };
        step.out.push(Output::Failed { ticket, why });
    }

    fn cancel(&mut self, ticket: u64, step: &mut Step<'_>) {
        let Some((nonce, asked)) = self.queries.iter().find(|(_, asked)| asked.ticket == ticket) else {
            return;
        };
        let nonce = *nonce;
        match asked.to.filter(|_| asked.is_sent_statement()) {
            Some(to) => {
                if let Some(conn) = self.route(to).conn() {
                    step.net.stream(conn, cancel_frame(self.options.cluster, nonce));
                }
            }
            // Nobody has it.
            None => self.drop_task(nonce, ClientError::GaveUp { sent: false }, step),
        }
    }

    /// The nonce of one more query or statement.
    pub(crate) fn query_nonce(&mut self) -> u64 {
        self.queries_asked += 1;
        QUERY_NONCE | self.queries_asked
    }

    fn give_up_at(&self, now: Instant) -> Option<Instant> {
        self.options.give_up_after.map(|patience| now.after(patience))
    }

    fn on_event(&mut self, event: Event, step: &mut Step<'_>) {
        match event {
            Event::Opened { conn } => {
                let Some(replica) = self.replica_on(conn) else { return };
                let link = self.route(replica).link.as_mut().expect("the link was found by its connection");
                link.open_by = None;
                step.out.push(Output::Connected { replica });
            }
            Event::Received { conn, data } => {
                let Some(replica) = self.replica_on(conn) else { return };
                step.net.grant(conn, data.len() as u32);
                self.on_received(replica, conn, &data, step);
            }
            Event::Closed { conn, reason } => {
                let Some(replica) = self.replica_on(conn) else { return };
                self.route(replica).link = None;
                self.fail(replica, Disconnect::Closed(reason), step);
            }
            // What is sent is held until it is answered, so it need not be known when it left. And a client
            // has no disk and no link between replicas: the rest is for another machine.
            Event::Wake
            | Event::Sent { .. }
            | Event::Read { .. }
            | Event::Written { .. }
            | Event::Trimmed { .. }
            | Event::Message { .. } => {}
        }
    }

    fn on_received(&mut self, replica: ReplicaId, conn: Conn, data: &Frame, step: &mut Step<'_>) {
        let cluster = Some(self.options.cluster).filter(|cluster| *cluster != ClusterId::UNNAMED);
        let link = self.route(replica).link.as_mut().expect("the link was found by its connection");
        let mut frames: Vec<(FrameHeader, Frame)> = Vec::new();
        link.heard_at = step.now;
        link.probed_at = None;
        let mut result = link.splitter.take(data, cluster, |header, body| frames.push((header, body)));
        for (header, body) in frames {
            if self.options.cluster == ClusterId::UNNAMED {
                self.options.cluster = header.cluster;
            }
            // A frame may be the reason to leave this connection; what stands behind it is sent again.
            if self.route(replica).conn() != Some(conn) {
                return;
            }
            let handled = ClientFrame::decode(&header, &body)
                .and_then(|frame| self.on_frame(replica, conn, frame, step));
            if handled.is_err() {
                result = handled;
                break;
            }
        }
        if let Err(malformed) = result
            && self.route(replica).conn() == Some(conn)
        {
            self.fail(replica, Disconnect::Malformed(malformed), step);
        }
    }

    fn on_frame(
        &mut self,
        replica: ReplicaId,
        conn: Conn,
        frame: ClientFrame,
        step: &mut Step<'_>,
    ) -> Result<(), Malformed> {
        match frame {
            ClientFrame::Reply { session, number, verdict } => {
                self.on_reply(replica, session, number, verdict, step)
            }
            ClientFrame::Answer { nonce, answer } => self.on_answer(replica, nonce, answer, step),
            ClientFrame::Turn { nonce, turn } => {
                self.on_turn(replica, conn, nonce, turn, step);
                Ok(())
            }
            ClientFrame::Request { .. }
            | ClientFrame::Query { .. }
            | ClientFrame::Statement { .. }
            | ClientFrame::Cancel { .. } => Err(Malformed::Unknown),
        }
    }

    fn on_reply(
        &mut self,
        replica: ReplicaId,
        session: SessionId,
        number: RequestNumber,
        verdict: Verdict,
        step: &mut Step<'_>,
    ) -> Result<(), Malformed> {
        let sender = |flight: &Flight, own: Option<SessionId>| match flight.ticket {
            None => SessionId::NONE,
            Some(_) => own.expect("a command is in flight only within a session"),
        };
        let own = self.session;
        let matches = |flight: &Flight| {
            (flight.number == number || mutant!(ReplyNotMatched)) && sender(flight, own) == session
        };
        let Some(flight) = self.flight.take_if(|flight| matches(flight)) else {
            self.strays += 1;
            return Ok(());
        };
        match (flight.ticket, verdict.result) {
            (None, Ok(Outcome::Registered { session })) => {
                self.session = Some(session);
                self.next_number = RequestNumber(1);
                step.out.push(Output::Registered(session));
            }
            // A registration has no other outcome; it is tried again elsewhere.
            (None, _) => return Err(Malformed::Body),
            (Some(ticket), Err(Refusal::NoSession)) => {
                self.session = None;
                kimberlite_probe::reachable!("client.evicted");
                step.out.push(Output::Evicted);
                step.out.push(Output::Failed { ticket, why: ClientError::Evicted });
            }
            (Some(ticket), _) => step.out.push(Output::Done { ticket, verdict }),
        }
        self.praise(replica);
        Ok(())
    }

    fn on_answer(
        &mut self,
        replica: ReplicaId,
        nonce: u64,
        answer: Answer,
        step: &mut Step<'_>,
    ) -> Result<(), Malformed> {
        let Some(asked) = self.queries.get_mut(&nonce) else {
            self.strays += 1;
            return Ok(());
        };
        let mut answer = answer;
        match (asked.question, &mut answer) {
            (Question::Statement, Answer::SqlPart(part)) if asked.parts < SQL_PARTS_MAX => {
                asked.rows.append(&mut part.rows);
                asked.parts += 1;
                return Ok(());
            }
            (Question::Statement, Answer::Sql(SqlAnswer { result: Ok(last), .. })) => {
                asked.rows.append(&mut last.rows);
                last.rows = core::mem::take(&mut asked.rows);
            }
            _ => {}
        }
        let fits = match (asked.question, &answer) {
            (Question::Statement, Answer::Sql(_)) => true,
            (Question::Statement, _) => false,
            (Question::Query(query), answer) => fits(query, answer),
        };
        if !fits {
            return Err(Malformed::Body);
        }
        step.out.push(Output::Answered { ticket: asked.ticket, answer });
        self.queries.remove(&nonce);
        self.praise(replica);
        Ok(())
    }

    fn on_turn(&mut self, replica: ReplicaId, conn: Conn, nonce: u64, turn: Turn, step: &mut Step<'_>) {
        // Only about what this very connection carries: elsewhere it has been sent since.
        let Some(task) =
            self.tasks_mut().map(|(_, task)| task).find(|task| task.nonce == nonce && task.is_on(conn))
        else {
            self.strays += 1;
            return;
        };
        task.sent = None;
        if task.once {
            // It was not taken, so it may be sent again.
            task.ever_sent = false;
        }
        let again_until = self.give_up_at(step.now);
        let mut pinned = false;
        if let Some(asked) = self.queries.get_mut(&nonce) {
            if matches!(asked.question, Question::Statement) {
                asked.to = None;
                asked.task.give_up_at = asked.task.give_up_at.or(again_until);
            }
            pinned = asked.to.is_some();
        }
        match turn {
            Turn::TooLarge => {
                kimberlite_probe::reachable!("client.too_large");
                self.drop_task(nonce, ClientError::TooLarge, step);
            }
            Turn::Primary(_) if pinned => self.drop_task(nonce, ClientError::WrongReplica, step),
            Turn::Primary(to) if to != replica && to.0 < self.options.replicas => {
                kimberlite_probe::reachable!("client.redirected");
                self.redirect(replica, to, step);
            }
            Turn::Busy => {
                kimberlite_probe::reachable!("client.told_busy");
                self.put_off(step.now, replica);
            }
            // A node that names itself, or one that does not exist, knows no primary either.
            Turn::Later | Turn::Primary(_) => {
                if self.put_off(step.now, replica) {
                    self.route(replica).laters += 1;
                }
                if !pinned && self.route(replica).laters >= LATER_MAX {
                    kimberlite_probe::reachable!("client.later_too_often");
                    self.fail(replica, Disconnect::NoPrimary, step);
                }
            }
        }
    }
}

/// Whether this answers that.
fn fits(query: Query, answer: &Answer) -> bool {
    match (query, answer) {
        (Query::ReadEvents { .. }, Answer::Events { from: _, end: _, records }) => {
            records.is_empty() || records.records().check().is_ok()
        }
        (Query::StreamInfo { .. }, Answer::Stream { .. })
        | (Query::Streams { .. }, Answer::Streams { .. })
        | (Query::ReadEvents { .. } | Query::StreamInfo { .. } | Query::Streams { .. }, Answer::Refused(_))
        | (Query::Status, Answer::Status(_)) => true,
        (Query::ReadEvents { .. }, Answer::Damaged { .. }) => !mutant!(DamagedAnswerRefused),
        _ => false,
    }
}

impl Machine for Client {
    type Input = Input;
    type Output = Output;

    fn on(&mut self, now: Now, input: Input, io: &mut dyn Io, out: &mut Vec<Output>) {
        let step = &mut Step { now: now.monotonic, net: io, out };
        match input {
            Input::Event(event) => self.on_event(event, step),
            Input::Submit { ticket, tenant, command } => {
                self.submit(Waiting { ticket, tenant, command, give_up_at: None }, step);
            }
            Input::Query { ticket, query, to } => self.ask(ticket, query, to, step),
            Input::Statement { ticket, statement } => self.run(ticket, &statement, step),
            Input::Cancel { ticket } => self.cancel(ticket, step),
        }
        self.expire(step);
        self.pump(step);
        self.tidy(step.net);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.next_deadline()
    }
}
