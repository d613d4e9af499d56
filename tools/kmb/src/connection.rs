//! A blocking client: the client machine of `core/client`, the real driver, and a loop.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use kimberlite_client::{Client, ClientError, ClientOptions, Disconnect, Input, Output};
use kimberlite_io::{CloseReason, Conn, Event, Machine as _};
use kimberlite_io_real::{Driver, Options as DriverOptions, Waker};
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{ClusterId, Instant, Now, ReplicaId, TenantId};
use kimberlite_wire::client::{Answer, Query, SqlAnswer, Statement};
use kimberlite_wire::command::{Command, Verdict};

use crate::failure::Kind;
use crate::signals::Stop;
use crate::{Failure, random};

/// Connections that one session may open in its life. A session's number is the upper half of their ids.
const CONNS_PER_SESSION: u64 = 1 << 32;

/// How a connection behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The cluster, or [`ClusterId::UNNAMED`] for whichever answers.
    pub cluster: ClusterId,
    /// How many sessions: commands of one are done one after the other, those of several side by side.
    pub sessions: usize,
    /// After how long without an answer a command or query fails. None: never.
    pub give_up_after: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { cluster: ClusterId::UNNAMED, sessions: 1, give_up_after: Some(Duration::from_secs(30)) }
    }
}

/// Sessions of one cluster, on the calling thread.
///
/// Use [`submit`](Self::submit) and [`query`](Self::query) to wait for each answer, or
/// [`begin`](Self::begin) and [`wait`](Self::wait) to have many under way.
pub struct Connection {
    driver: Driver,
    sessions: Vec<Client>,
    nodes: Vec<SocketAddr>,
    /// Why the connection to each node ended the last time.
    troubles: Vec<Option<Disconnect>>,
    ready: VecDeque<(usize, Output)>,
    next_ticket: u64,
    /// No timer of any session is earlier. Some may be later: timers are moved back far more often than they
    /// come, and looking at all of them after each event would cost as much as the event.
    timers: Option<Instant>,
    stop: Stop,
}

impl Connection {
    /// A connection to the nodes with these client addresses, in the order of their replica numbers. Nothing
    /// is sent yet.
    pub fn open(nodes: &[SocketAddr], options: Options) -> Result<Self, Failure> {
        if nodes.is_empty() || nodes.len() > REPLICAS_MAX {
            return Err(Failure::usage(format!("a cluster has 1 to {REPLICAS_MAX} nodes")));
        }
        let driver =
            Driver::open(DriverOptions { address_book: nodes.to_vec(), ..DriverOptions::default() })?;
        let seed = random::number()?;
        let client = |index: usize| {
            let index = index as u64;
            Client::new(ClientOptions {
                give_up_after: options.give_up_after,
                first_conn: index * CONNS_PER_SESSION + 1,
                ..ClientOptions::new(options.cluster, nodes.len() as u8, seed.wrapping_add(index))
            })
        };
        Ok(Self {
            driver,
            sessions: (0..options.sessions).map(client).collect(),
            nodes: nodes.to_vec(),
            troubles: vec![None; nodes.len()],
            ready: VecDeque::new(),
            next_ticket: 0,
            timers: None,
            stop: Stop::default(),
        })
    }

    /// Lets every wait fail once `stop` is asked; whoever asks it also wakes this connection.
    pub(crate) fn ends_with(mut self, stop: &Stop) -> Self {
        self.stop = stop.clone();
        self
    }

    /// Does a command and waits for its verdict.
    pub fn submit(&mut self, tenant: TenantId, command: &Command<'_>) -> Result<Verdict, Failure> {
        let ticket = self.begin(0, tenant, command.encode());
        loop {
            match self.wait(None)? {
                Some((_, Output::Done { ticket: done, verdict })) if done == ticket => return Ok(verdict),
                Some((_, Output::Failed { ticket: failed, why })) if failed == ticket => {
                    return Err(self.explain(why));
                }
                _ => {}
            }
        }
    }

    /// Asks the primary and waits for the answer.
    pub fn query(&mut self, query: Query) -> Result<Answer, Failure> {
        self.ask(query, None)
    }

    /// Asks one node, and waits for its answer.
    pub fn query_node(&mut self, query: Query, to: ReplicaId) -> Result<Answer, Failure> {
        self.ask(query, Some(to))
    }

    /// Runs a statement in the session that the connection to the primary is, and waits for its answer. When that
    /// connection is lost the failure says that nobody knows what became of it.
    pub fn statement(&mut self, statement: Statement) -> Result<SqlAnswer, Failure> {
        self.statement_until(statement, &Stop::default())
    }

    /// The same, but the statement is cancelled when `interrupt` is asked, and given up when it is asked again. Whoever
    /// asks it also wakes this connection.
    pub(crate) fn statement_until(
        &mut self,
        statement: Statement,
        interrupt: &Stop,
    ) -> Result<SqlAnswer, Failure> {
        let mut cancelled = false;
        let ticket = self.ticket();
        let now = self.driver.now();
        self.tell(0, now, Input::Statement { ticket, statement });
        loop {
            if interrupt.take() {
                if cancelled {
                    return Err(Failure::failed("interrupted; it is not known what became of the statement"));
                }
                cancelled = true;
                let now = self.driver.now();
                self.tell(0, now, Input::Cancel { ticket });
            }
            match self.wait(None)? {
                Some((_, Output::Answered { ticket: of, answer: Answer::Sql(answer) })) if of == ticket => {
                    return Ok(answer);
                }
                Some((_, Output::Failed { ticket: of, why: ClientError::GaveUp { sent: true } }))
                    if of == ticket =>
                {
                    let what =
                        "the connection was lost before the answer came; a write may have been done or not";
                    return Err(Failure::new(Kind::Unreachable, what));
                }
                Some((_, Output::Failed { ticket: of, why })) if of == ticket => {
                    return Err(self.explain(why));
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, query: Query, to: Option<ReplicaId>) -> Result<Answer, Failure> {
        let ticket = self.begin_query(0, query, to);
        loop {
            match self.wait(None)? {
                Some((_, Output::Answered { ticket: of, answer })) if of == ticket => return Ok(answer),
                Some((_, Output::Failed { ticket: of, why })) if of == ticket => {
                    return Err(self.explain(why));
                }
                _ => {}
            }
        }
    }

    /// Hands an encoded command to a session. Answers the ticket that its [`Output::Done`] or
    /// [`Output::Failed`] will carry.
    pub fn begin(&mut self, session: usize, tenant: TenantId, command: Vec<u8>) -> u64 {
        let ticket = self.ticket();
        let now = self.driver.now();
        self.tell(session, now, Input::Submit { ticket, tenant, command });
        ticket
    }

    /// Hands a query to a session. Answers the ticket that its [`Output::Answered`] or [`Output::Failed`]
    /// will carry.
    pub fn begin_query(&mut self, session: usize, query: Query, to: Option<ReplicaId>) -> u64 {
        let ticket = self.ticket();
        let now = self.driver.now();
        self.tell(session, now, Input::Query { ticket, query, to });
        ticket
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// The next thing a session says, with its number. None when `until` has come, or the waker was used.
    pub fn wait(&mut self, until: Option<Instant>) -> Result<Option<(usize, Output)>, Failure> {
        let (mut woken, mut time) = (false, None);
        loop {
            if self.stop.is_asked() {
                return Err(Failure::failed("interrupted"));
            }
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if woken || until.is_some_and(|until| time.is_some_and(|time| until <= time)) {
                return Ok(None);
            }
            // Timers are looked at when the events run out.
            let (now, event) = if let Some(ready) = self.driver.try_next() {
                ready
            } else {
                self.driver.next(self.timers.into_iter().chain(until).min())?
            };
            time = Some(now.monotonic);
            match event {
                Event::Opened { conn }
                | Event::Received { conn, .. }
                | Event::Sent { conn }
                | Event::Closed { conn, .. } => {
                    self.tell(session_of(conn), now, Input::Event(event));
                }
                Event::Wake => {
                    let is_due = |client: &Client| client.wake_at().is_some_and(|at| at <= now.monotonic);
                    let due: Vec<usize> =
                        (0..self.sessions.len()).filter(|index| is_due(&self.sessions[*index])).collect();
                    // Neither a timer that came nor one that was moved back meanwhile: the waker.
                    woken = due.is_empty() && self.timers.is_none_or(|at| at > now.monotonic);
                    for session in due {
                        self.tell(session, now, Input::Event(Event::Wake));
                    }
                    self.timers = self.sessions.iter().filter_map(Client::wake_at).min();
                }
                Event::Read { .. }
                | Event::Written { .. }
                | Event::Trimmed { .. }
                | Event::Message { .. } => unreachable!("a client's driver has no disk and no links"),
            }
        }
    }

    fn tell(&mut self, session: usize, now: Now, input: Input) {
        let Self { driver, sessions, troubles, ready, timers, .. } = self;
        let mut out = Vec::new();
        sessions[session].on(now, input, driver, &mut out);
        *timers = sessions[session].wake_at().into_iter().chain(*timers).min();
        for output in out {
            if let Output::Disconnected { replica, why } = &output {
                troubles[usize::from(replica.0)] = Some(*why);
            }
            ready.push_back((session, output));
        }
    }

    /// The time, for `wait`.
    pub fn now(&mut self) -> Instant {
        self.driver.now().monotonic
    }

    /// Ends a `wait` from another thread.
    pub fn waker(&self) -> Waker {
        self.driver.waker()
    }

    /// The nodes, in the order of their replica numbers.
    pub fn nodes(&self) -> &[SocketAddr] {
        &self.nodes
    }

    /// What to tell a person about a command or query that failed.
    pub fn explain(&self, error: ClientError) -> Failure {
        let failure = Failure::from(error);
        if failure.kind() != Kind::Unreachable {
            return failure;
        }
        let trouble = |(address, trouble): (&SocketAddr, &Option<Disconnect>)| {
            trouble.as_ref().map(|why| format!("{address}: {}", describe(*why)))
        };
        let troubles: Vec<String> = self.nodes.iter().zip(&self.troubles).filter_map(trouble).collect();
        let troubles =
            if troubles.is_empty() { String::new() } else { format!(" ({})", troubles.join("; ")) };
        Failure::new(Kind::Unreachable, format!("{failure}{troubles}"))
    }
}

fn session_of(conn: Conn) -> usize {
    assert!(!conn.is_accepted(), "a client's driver accepts nothing");
    (conn.0 / CONNS_PER_SESSION) as usize
}

fn describe(why: Disconnect) -> &'static str {
    match why {
        Disconnect::Closed(CloseReason::Refused) => "connection refused",
        Disconnect::Closed(CloseReason::Ended) => "the node closed the connection",
        Disconnect::Closed(CloseReason::Broken) => "the connection broke",
        Disconnect::ConnectTimeout => "it did not accept the connection in time",
        Disconnect::RequestTimeout => "no answer in time",
        Disconnect::Malformed(kimberlite_wire::Malformed::Cluster) => "it belongs to another cluster",
        Disconnect::Malformed(_) => "what listens there is no Kimberlite node",
        Disconnect::NoPrimary => "the cluster has no primary at the moment",
    }
}
