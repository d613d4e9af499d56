//! The client and a world that a test plays by hand.

mod commands;
mod connections;
mod properties;
mod queries;
mod statements;

use core::time::Duration;

use kimberlite_io::{
    Address, Buf, CloseReason, Conn, Disk, Event, Frame, Machine, Net, Packet, Place, Token,
};
use kimberlite_types::{
    ClusterId, Instant, LogPosition, Now, Offset, Op, ReplicaId, RequestNumber, SessionId, TenantId,
};
use kimberlite_wire::client::{ClientFrame, Splitter, Turn, reply_frame, turn_frame};
use kimberlite_wire::command::{Command, Outcome, Refusal, Verdict};

use crate::{Client, ClientOptions, Disconnect, Input, Output};

const CLUSTER: ClusterId = ClusterId(77);
const TENANT: TenantId = TenantId(5);

/// What a client asked of the network.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Connect(Conn, ReplicaId),
    Sent(Conn, ClientFrame),
    Granted(Conn, u32),
    Closed(Conn),
}

/// Writes down what is asked. What a client may not ask is a panic.
#[derive(Default)]
struct Script {
    asked: Vec<Asked>,
}

impl Disk for Script {
    fn read(&mut self, _: Token, _: Place, _: Buf) {
        panic!("a client has no disk");
    }

    fn write(&mut self, _: Token, _: Place, _: Frame) {
        panic!("a client has no disk");
    }

    fn trim(&mut self, _: Token, _: Place, _: u64) {
        panic!("a client has no disk");
    }
}

impl Net for Script {
    fn send(&mut self, _: ReplicaId, _: Packet) {
        panic!("a client is no replica");
    }

    fn connect(&mut self, conn: Conn, to: Address) {
        assert!(!conn.is_accepted());
        let replica = ReplicaId(u8::try_from(to.0).unwrap());
        self.asked.push(Asked::Connect(conn, replica));
    }

    fn stream(&mut self, conn: Conn, data: Frame) {
        let mut splitter = Splitter::default();
        let mut frames = Vec::new();
        splitter.take(&data, Some(CLUSTER), |header, body| frames.push((header, body))).unwrap();
        let [(header, body)] = frames.as_slice() else { panic!("one frame at a time") };
        self.asked.push(Asked::Sent(conn, ClientFrame::decode(header, body).unwrap()));
    }

    fn grant(&mut self, conn: Conn, bytes: u32) {
        self.asked.push(Asked::Granted(conn, bytes));
    }

    fn close(&mut self, conn: Conn) {
        self.asked.push(Asked::Closed(conn));
    }
}

/// A request as the network saw it.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    conn: Conn,
    session: SessionId,
    number: RequestNumber,
    command: Vec<u8>,
}

/// A client, the time, and what came out so far.
struct Story {
    client: Client,
    script: Script,
    now: Instant,
    out: Vec<Output>,
}

fn options(replicas: u8) -> ClientOptions {
    ClientOptions::new(CLUSTER, replicas, 1)
}

fn command(n: u64) -> Vec<u8> {
    Command::CreateTenant { name: &format!("tenant {n}") }.encode()
}

fn position(op: u64) -> LogPosition {
    LogPosition { op: Op(op), index: 0 }
}

fn created(op: u64) -> Verdict {
    Verdict { position: position(op), result: Ok(Outcome::TenantCreated) }
}

impl Story {
    fn new(options: ClientOptions) -> Self {
        Self {
            client: Client::new(options),
            script: Script::default(),
            now: Instant::ZERO.after(Duration::from_secs(1)),
            out: Vec::new(),
        }
    }

    /// A story in which session op1.0 is registered over an open connection. Answers that connection and
    /// the replica it leads to.
    fn registered(options: ClientOptions) -> (Self, Conn, ReplicaId) {
        let mut story = Self::new(options);
        story.submit(0);
        let (conn, replica) = story.connected();
        let register = story.sent();
        story.reply(conn, SessionId::NONE, register.number, Ok(Outcome::Registered { session: SESSION }));
        let first = story.sent();
        assert_eq!(first.number, RequestNumber(1));
        story.reply(conn, SESSION, RequestNumber(1), Ok(Outcome::TenantCreated));
        story.out.clear();
        assert_eq!(story.asked(), []);
        (story, conn, replica)
    }

    fn on(&mut self, input: Input) {
        let now = Now { monotonic: self.now, ..Now::default() };
        self.client.on(now, input, &mut self.script, &mut self.out);
        assert!(self.client.wake_at().is_none_or(|at| at > self.now), "what is due was done");
    }

    fn submit(&mut self, ticket: u64) {
        self.on(Input::Submit { ticket, tenant: TENANT, command: command(ticket) });
    }

    fn event(&mut self, event: Event) {
        self.on(Input::Event(event));
    }

    fn receive(&mut self, conn: Conn, bytes: &[u8]) {
        self.event(Event::Received { conn, data: Frame::copy_from(bytes) });
    }

    fn reply(
        &mut self,
        conn: Conn,
        session: SessionId,
        number: RequestNumber,
        result: Result<Outcome, Refusal>,
    ) {
        let verdict = Verdict { position: position(number.0), result };
        self.receive(conn, &reply_frame(CLUSTER, ReplicaId(0), session, number, verdict));
    }

    fn turn(&mut self, conn: Conn, nonce: u64, turn: Turn) {
        self.receive(conn, &turn_frame(CLUSTER, ReplicaId(0), nonce, turn));
    }

    fn closed(&mut self, conn: Conn, reason: CloseReason) {
        self.event(Event::Closed { conn, reason });
    }

    /// Lets time pass until the client wants to be woken, and wakes it.
    fn wake(&mut self) -> Duration {
        let at = self.client.wake_at().expect("the client waits for something");
        let waited = at.since(self.now);
        self.now = at;
        self.event(Event::Wake);
        waited
    }

    /// What was asked since the last look, credit aside.
    fn asked(&mut self) -> Vec<Asked> {
        let mut asked = core::mem::take(&mut self.script.asked);
        asked.retain(|asked| !matches!(asked, Asked::Granted(..)));
        asked
    }

    /// Expects that one request was sent since the last look, and nothing else asked.
    fn sent(&mut self) -> Sent {
        let asked = self.asked();
        let [Asked::Sent(conn, ClientFrame::Request { session, number, tenant, command })] = asked.as_slice()
        else {
            panic!("one request: {asked:?}")
        };
        let expected = if *session == SessionId::NONE { TenantId::ZERO } else { TENANT };
        assert_eq!(*tenant, expected);
        Sent { conn: *conn, session: *session, number: *number, command: command.to_vec() }
    }

    /// Expects that a connection was asked for, waiting for that if need be, and opens it. Others may have
    /// been closed.
    fn connected(&mut self) -> (Conn, ReplicaId) {
        loop {
            let mut asked = self.asked();
            asked.retain(|asked| !matches!(asked, Asked::Closed(_)));
            match asked.as_slice() {
                [] => self.wake(),
                [Asked::Connect(conn, replica)] => {
                    self.event(Event::Opened { conn: *conn });
                    return (*conn, *replica);
                }
                other => panic!("one connection: {other:?}"),
            };
        }
    }

    /// What came out since the last look, connections opening and closing aside.
    fn words(&mut self) -> Vec<Output> {
        let mut words = core::mem::take(&mut self.out);
        words.retain(|word| !matches!(word, Output::Connected { .. } | Output::Disconnected { .. }));
        words
    }

    /// Why connections ended since the last look.
    fn disconnects(&mut self) -> Vec<Disconnect> {
        let ended = |word| match word {
            Output::Disconnected { why, .. } => Some(why),
            _ => None,
        };
        core::mem::take(&mut self.out).into_iter().filter_map(ended).collect()
    }
}

/// The session that stories get.
const SESSION: SessionId = SessionId(LogPosition { op: Op(1), index: 0 });
