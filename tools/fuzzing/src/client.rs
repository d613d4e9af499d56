//! The client machine before servers that say anything.

use std::collections::{BTreeMap, BTreeSet};

use kimberlite_client::{Client, ClientOptions, Input, Output};
use kimberlite_io::{Address, Ask, Asked, CloseReason, Conn, Event, Frame, Machine, Ordered};
use kimberlite_types::limits::{FRAME_HEADER_SIZE, STREAM_CREDIT_INITIAL};
use kimberlite_types::{
    Instant, LogPosition, Offset, Op, ReplicaId, RequestNumber, SessionId, StreamId, TenantId,
};
use kimberlite_wire::FrameHeader;
use kimberlite_wire::client::{Answer, ClientFrame, Query, Turn, answer_frame, reply_frame, turn_frame};
use kimberlite_wire::command::{Command, Outcome, RecordsBuilder, Refusal, Verdict};

use crate::mend;
use crate::script::Script;
use crate::seat::{CLUSTER, at};

const REPLICAS: u8 = 3;

/// Steps of one execution at most.
const STEPS_MAX: usize = 400;

/// When the client gives a request up, in nanoseconds.
const PATIENCE: u64 = 30_000_000_000;

struct Stream {
    to: Address,
    open: bool,
    credit: u64,
    unsent: bool,
}

/// A client, its streams, and what it was told to do.
struct Table {
    client: Client,
    rules: Ordered,
    streams: BTreeMap<Conn, Stream>,
    now: u64,
    tickets: u64,
    open: BTreeSet<u64>,
    commands: BTreeSet<u64>,
    last_done: u64,
    /// What the client sent last, to be answered.
    sent: Vec<ClientFrame>,
}

/// Runs the script.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut options = ClientOptions::new(CLUSTER, REPLICAS, 3);
    options.give_up_after = Some(std::time::Duration::from_nanos(PATIENCE));
    let mut table = Table {
        client: Client::new(options),
        rules: Ordered::new(),
        streams: BTreeMap::new(),
        now: 0,
        tickets: 0,
        open: BTreeSet::new(),
        commands: BTreeSet::new(),
        last_done: 0,
        sent: Vec::new(),
    };
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        table.step(&mut script);
    }
    table.wait_out();
}

impl Table {
    fn input(&mut self, input: Input) {
        if let Input::Event(event) = &input {
            self.rules.heard(event);
        }
        let mut asked = Asked::new();
        let mut out = Vec::new();
        self.client.on(at(self.now), input, &mut self.rules.wrap(&mut asked), &mut out);
        for ask in asked.take() {
            self.take(ask);
        }
        for output in out {
            self.told(&output);
        }
        assert!(self.streams.len() <= usize::from(REPLICAS), "one stream to each replica");
        assert!(self.client.is_idle() || self.client.wake_at().is_some(), "a client that waits wakes up");
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Connect { conn, to } => {
                let credit = u64::from(STREAM_CREDIT_INITIAL);
                self.streams.insert(conn, Stream { to, open: false, credit, unsent: false });
            }
            Ask::Stream { conn, data } => {
                let header =
                    FrameHeader::decode(data.first_chunk().expect("a whole frame")).expect("a frame");
                let body = data.slice(FRAME_HEADER_SIZE..data.len());
                self.sent.push(ClientFrame::decode(&header, &body).expect("a client speaks the protocol"));
                if let Some(stream) = self.streams.get_mut(&conn) {
                    stream.unsent = true;
                }
            }
            Ask::Grant { conn, bytes } => {
                if let Some(stream) = self.streams.get_mut(&conn) {
                    stream.credit += u64::from(bytes);
                }
            }
            Ask::Close { conn } => drop(self.streams.remove(&conn)),
            Ask::Read { .. } | Ask::Write { .. } | Ask::Trim { .. } | Ask::Send { .. } => {
                panic!("a client has no disk and no replicas' link")
            }
        }
    }

    fn told(&mut self, output: &Output) {
        let ticket = match output {
            Output::Done { ticket, .. } => {
                assert!(*ticket > self.last_done, "commands are done in their order");
                assert!(self.commands.contains(ticket), "a query is not done but answered");
                self.last_done = *ticket;
                ticket
            }
            Output::Answered { ticket, .. } | Output::Failed { ticket, .. } => ticket,
            _ => return,
        };
        assert!(self.open.remove(ticket), "ticket {ticket} has one final word");
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(10) {
            0 => self.submit(script),
            1 => self.query(script),
            2 => {
                self.now += 1_000 << script.below(24);
                self.input(Input::Event(Event::Wake));
            }
            3 | 4 => {
                if let Some(conn) = self.pick(script, false) {
                    if script.below(4) == 3 {
                        self.streams.remove(&conn);
                        self.input(Input::Event(Event::Closed { conn, reason: CloseReason::Refused }));
                    } else {
                        self.streams.get_mut(&conn).expect("picked").open = true;
                        self.input(Input::Event(Event::Opened { conn }));
                    }
                }
            }
            5 => {
                if let Some(conn) = self.pick(script, true) {
                    self.streams.remove(&conn);
                    let reason = [CloseReason::Ended, CloseReason::Broken][script.below(2)];
                    self.input(Input::Event(Event::Closed { conn, reason }));
                }
            }
            6 => {
                if let Some(conn) = self.pick(script, true) {
                    let bytes = script.bytes(300);
                    self.receive(conn, bytes);
                }
            }
            7 | 8 => self.answer(script),
            _ => {
                if let Some(conn) = self.pick(script, true)
                    && std::mem::take(&mut self.streams.get_mut(&conn).expect("picked").unsent)
                {
                    self.input(Input::Event(Event::Sent { conn }));
                }
            }
        }
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.open.insert(self.tickets);
        self.tickets
    }

    fn submit(&mut self, script: &mut Script<'_>) {
        let command = match script.below(5) {
            0 => Command::CreateTenant { name: "tenant" }.encode(),
            3 => Command::Stage { number: script.below(3) as u32, facts: script.bytes(64) }.encode(),
            4 => {
                let digest = [script.byte(); 32];
                Command::Commit { pieces: 1, digest, reply: b"done" }.encode()
            }
            1 => script.bytes(64).to_vec(),
            _ => vec![0; 64 << script.below(16)],
        };
        let ticket = self.ticket();
        self.commands.insert(ticket);
        self.input(Input::Submit { ticket, tenant: TenantId(script.magnitude()), command });
    }

    fn query(&mut self, script: &mut Script<'_>) {
        let (tenant, stream) = (TenantId(1), StreamId(1));
        let query = match script.below(3) {
            0 => Query::Status,
            1 => Query::StreamInfo { tenant, stream },
            _ => {
                let from = Offset(script.magnitude());
                Query::ReadEvents { tenant, stream, from, records_max: 9, bytes_max: 99 }
            }
        };
        let to = script.flag().then(|| ReplicaId(script.byte() % (REPLICAS + 1)));
        let ticket = self.ticket();
        self.input(Input::Query { ticket, query, to });
    }

    /// A stream that is open, or one that is not yet.
    fn pick(&self, script: &mut Script<'_>, open: bool) -> Option<Conn> {
        let conns: Vec<Conn> =
            self.streams.iter().filter(|(_, stream)| stream.open == open).map(|(conn, _)| *conn).collect();
        (!conns.is_empty()).then(|| conns[script.below(conns.len())])
    }

    fn receive(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(&conn) else { return };
        let allowed = bytes.len().min(stream.credit as usize);
        if allowed > 0 {
            stream.credit -= allowed as u64;
            self.input(Input::Event(Event::Received { conn, data: Frame::copy_from(&bytes[..allowed]) }));
        }
    }

    /// A well-formed frame that answers something the client sent, rightly or wrongly.
    fn answer(&mut self, script: &mut Script<'_>) {
        let Some(conn) = self.pick(script, true) else { return };
        if self.sent.is_empty() {
            return;
        }
        let from = ReplicaId(self.streams[&conn].to.0 as u8);
        let asked = self.sent[self.sent.len() - 1 - script.below(self.sent.len().min(256))].clone();
        let mut frame = match (asked, script.below(4)) {
            (ClientFrame::Request { number, .. }, 0) => {
                let turn = turn(script);
                turn_frame(CLUSTER, from, number.0, turn)
            }
            (ClientFrame::Request { session, number, .. }, _) => {
                let (session, number) = match script.below(8) {
                    0 => (SessionId(LogPosition { op: Op(script.magnitude()), index: 0 }), number),
                    1 => (session, RequestNumber(script.magnitude())),
                    _ => (session, number),
                };
                reply_frame(CLUSTER, from, session, number, verdict(script))
            }
            (ClientFrame::Query { nonce, .. }, 0) => {
                let turn = turn(script);
                turn_frame(CLUSTER, from, nonce, turn)
            }
            (ClientFrame::Query { nonce, .. }, _) => answer_frame(CLUSTER, from, nonce, &answer(script)),
            _ => panic!("a client sends requests and queries"),
        }
        .to_vec();
        if script.below(8) == 7 {
            let at = script.below(frame.len());
            frame[at] ^= 1 << script.below(8);
            if script.flag() {
                mend::client_frame(&mut frame);
            }
        }
        let cut = script.below(frame.len() + 1);
        self.receive(conn, &frame[..cut]);
        self.receive(conn, &frame[cut..]);
    }

    /// Nobody answers any more: everything ends when patience does.
    fn wait_out(&mut self) {
        let end = Instant(self.now + 2 * PATIENCE);
        while Instant(self.now) < end && !self.client.is_idle() {
            let wake = self.client.wake_at().expect("a client that waits wakes up");
            self.now = wake.0.clamp(self.now + 1, self.now + PATIENCE);
            self.input(Input::Event(Event::Wake));
            let waiting: Vec<Conn> =
                self.streams.iter().filter(|(_, s)| !s.open).map(|(conn, _)| *conn).collect();
            for conn in waiting {
                // A stream of these may be closed by what the one before leads to.
                if self.streams.remove(&conn).is_some() {
                    self.input(Input::Event(Event::Closed { conn, reason: CloseReason::Refused }));
                }
            }
        }
        assert!(self.open.is_empty(), "after all patience, {:?} have no final word", self.open);
    }
}

fn turn(script: &mut Script<'_>) -> Turn {
    match script.below(4) {
        0 => Turn::Primary(ReplicaId(script.byte())),
        1 => Turn::Later,
        2 => Turn::Busy,
        _ => Turn::TooLarge,
    }
}

fn verdict(script: &mut Script<'_>) -> Verdict {
    let position = LogPosition { op: Op(script.magnitude()), index: script.below(4) as u32 };
    let result = match script.below(9) {
        0 | 1 => Ok(Outcome::Registered { session: SessionId(position) }),
        2 => Ok(Outcome::TenantCreated),
        3 => Ok(Outcome::Appended { first: Offset(script.magnitude()), count: script.below(9) as u32 }),
        4 => Err(Refusal::NoSession),
        5 => Err(Refusal::Stale),
        6 => Ok(Outcome::Written { rows: script.below(9) as u32 }),
        7 => Ok(Outcome::Staged { pieces: script.below(4) as u32 }),
        _ => Err(Refusal::Conflict),
    };
    Verdict { position, result }
}

fn answer(script: &mut Script<'_>) -> Answer {
    match script.below(4) {
        0 => Answer::Stream { name: "stream".to_owned(), end: Offset(script.magnitude()) },
        1 => Answer::Refused(Refusal::NoStream),
        2 => Answer::Damaged { op: Op(script.magnitude()) },
        _ => {
            let mut records = RecordsBuilder::default();
            (0..script.below(4)).for_each(|_| records.push(script.bytes(16)));
            Answer::Events { from: Offset(script.magnitude()), end: Offset(script.magnitude()), records }
        }
    }
}
