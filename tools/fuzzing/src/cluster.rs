//! Real nodes, their messages under way, and one client that speaks in frames.

use std::collections::BTreeMap;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Conn, Event, Frame, Packet};
use kimberlite_runtime::Note;
use kimberlite_types::{ReplicaId, RequestNumber, SessionId, StreamId, TenantId};
use kimberlite_wire::client::{ClientFrame, Query, Request, query_frame, request_frame};
use kimberlite_wire::command::{Command, Outcome, RecordsBuilder};

use crate::seat::{CLUSTER, Seat, config, formatted};

/// Messages under way at most; the oldest is lost for a new one.
const FLYING_MAX: usize = 256;

/// Messages of each command kept to be said again.
const SEEN_MAX: usize = 12;

/// Where a frame's header says its command.
const COMMAND_AT: usize = 6;

/// Bytes of a record at most.
const RECORD_MAX: usize = 6_000;

pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const STREAM: StreamId = StreamId(1);

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flying {
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) packet: Packet,
}

/// A cluster whose every step somebody else decides.
pub(crate) struct Cluster {
    pub(crate) seats: Vec<Seat>,
    pub(crate) now: u64,
    pub(crate) flying: Vec<Flying>,
    /// The last messages of each command, the oldest first.
    pub(crate) seen: Vec<Flying>,
    /// What was committed, by op: every replica, in every life, must say the same.
    pub(crate) ledger: BTreeMap<u64, Checksum>,
    /// What each replica held durably: the last word for each op.
    pub(crate) durable: Vec<BTreeMap<u64, Checksum>>,
    /// Frames that the client sent.
    pub(crate) frames: Vec<Frame>,
    /// What the client heard.
    pub(crate) heard: Vec<ClientFrame>,
    session: Option<SessionId>,
    number: u64,
    lives: u64,
}

impl Cluster {
    /// Formatted replicas, each at its first event.
    pub(crate) fn new(replicas: u8, seed: u64) -> Self {
        let seat = |replica| {
            let config = config(replica, replicas);
            Seat::new(config, formatted(config), seed + u64::from(replica))
        };
        let mut cluster = Self {
            seats: (0..replicas).map(seat).collect(),
            now: 0,
            flying: Vec::new(),
            seen: Vec::new(),
            ledger: BTreeMap::new(),
            durable: vec![BTreeMap::new(); usize::from(replicas)],
            frames: Vec::new(),
            heard: Vec::new(),
            session: None,
            number: 0,
            lives: seed + u64::from(replicas),
        };
        for index in 0..cluster.seats.len() {
            cluster.hear(index, Event::Wake);
        }
        cluster
    }

    pub(crate) fn hear(&mut self, index: usize, event: Event) {
        self.seats[index].hear(self.now, event);
        self.collect(index);
    }

    /// Takes off what a seat sent, said and noted.
    pub(crate) fn collect(&mut self, index: usize) {
        let from = ReplicaId(index as u8);
        for (to, packet) in std::mem::take(&mut self.seats[index].sent) {
            let flying = Flying { from, to, packet };
            self.remember(flying.clone());
            if self.flying.len() == FLYING_MAX {
                self.flying.remove(0);
            }
            self.flying.push(flying);
        }
        for frame in std::mem::take(&mut self.seats[index].said) {
            if let ClientFrame::Reply { verdict, .. } = &frame
                && let Ok(Outcome::Registered { session }) = verdict.result
            {
                self.session = Some(session);
                self.number = 0;
            }
            self.heard.push(frame);
        }
        for note in std::mem::take(&mut self.seats[index].notes) {
            match note {
                Note::Committed { prepare, .. } => {
                    self.committed(index, prepare.header.op.0, prepare.header.checksum);
                }
                Note::Durable { op, checksum } => drop(self.durable[index].insert(op.0, checksum)),
                _ => {}
            }
        }
    }

    fn remember(&mut self, flying: Flying) {
        let same = |other: &Flying| other.packet.head[COMMAND_AT] == flying.packet.head[COMMAND_AT];
        if self.seen.iter().filter(|other| same(other)).count() == SEEN_MAX {
            let oldest = self.seen.iter().position(same).expect("just counted");
            self.seen.remove(oldest);
        }
        self.seen.push(flying);
    }

    fn committed(&mut self, index: usize, op: u64, checksum: Checksum) {
        let known = *self.ledger.entry(op).or_insert(checksum);
        assert!(known == checksum, "replica {index} committed another op {op} than was committed before");
    }

    pub(crate) fn deliver(&mut self, flying: Flying) {
        let Flying { from, to, packet } = flying;
        // It arrives in memory of its own, aligned and padded.
        let packet = Packet { head: packet.head, body: Frame::copy_from(&packet.body) };
        self.hear(usize::from(to.0), Event::Message { from, packet });
    }

    pub(crate) fn answer(&mut self, index: usize, ask: usize) {
        self.seats[index].answer(self.now, ask);
        self.collect(index);
    }

    pub(crate) fn wake_due(&mut self) {
        for index in 0..self.seats.len() {
            if self.seats[index].is_due(self.now) {
                self.hear(index, Event::Wake);
            }
        }
    }

    /// What goes well in a round: every disk answers, every message arrives, whoever is due wakes.
    pub(crate) fn fair_round(&mut self) {
        for index in 0..self.seats.len() {
            for _ in 0..self.seats[index].asks.len() {
                if !self.seats[index].asks.is_empty() {
                    self.answer(index, 0);
                }
            }
        }
        for flying in std::mem::take(&mut self.flying) {
            self.deliver(flying);
        }
        self.wake_due();
    }

    pub(crate) fn advance(&mut self, nanos: u64) {
        self.now += nanos;
        self.wake_due();
    }

    pub(crate) fn restart(&mut self, index: usize, lands: impl FnMut() -> bool) {
        self.lives += 1;
        self.seats[index].restart(self.lives, lands);
        self.hear(index, Event::Wake);
    }

    /// The replica that leads, or the first.
    pub(crate) fn leader(&self) -> usize {
        self.seats.iter().position(|seat| seat.node.replica().is_primary()).unwrap_or(0)
    }

    /// A stream to a replica: the last that is open, or a new one.
    pub(crate) fn conn(&mut self, index: usize) -> Conn {
        if let Some(conn) = self.seats[index].conns().last() {
            return *conn;
        }
        let conn = self.seats[index].open_stream(self.now);
        self.collect(index);
        conn
    }

    pub(crate) fn say(&mut self, index: usize, conn: Conn, bytes: &[u8]) {
        self.seats[index].receive(self.now, conn, bytes);
        self.collect(index);
    }

    /// The frame of the client's next command: the first ones make a session, a tenant and a stream, the others append
    /// a record of `size` bytes.
    pub(crate) fn next_request(&mut self, size: usize) -> Frame {
        let mut records = RecordsBuilder::default();
        records.push(&vec![self.number as u8; size % RECORD_MAX]);
        let (session, command) = match (self.session, self.number) {
            (None, _) => (SessionId::NONE, Command::Register),
            (Some(session), 0) => (session, Command::CreateTenant { name: "tenant" }),
            (Some(session), 1) => (session, Command::CreateStream { stream: STREAM, name: "stream" }),
            (Some(session), _) => {
                (session, Command::AppendBatch { stream: STREAM, expected: None, records: records.records() })
            }
        };
        self.number += 1;
        let command = command.encode();
        let number = RequestNumber(self.number);
        let frame = request_frame(CLUSTER, &Request { session, number, tenant: TENANT, command: &command });
        self.frames.push(frame.clone());
        frame
    }

    /// The frame of a query.
    pub(crate) fn next_query(&mut self, which: usize, from: u64) -> Frame {
        let query = match which % 3 {
            0 => Query::Status,
            1 => Query::StreamInfo { tenant: TENANT, stream: STREAM },
            _ => Query::ReadEvents {
                tenant: TENANT,
                stream: STREAM,
                from: kimberlite_types::Offset(from),
                records_max: u32::MAX,
                bytes_max: u32::MAX,
            },
        };
        self.number += 1;
        let frame = query_frame(CLUSTER, self.number, &query);
        self.frames.push(frame.clone());
        frame
    }

    /// Lets the client have one command done, and waits for it for a while.
    pub(crate) fn do_one(&mut self, size: usize) {
        let leader = self.leader();
        let conn = self.conn(leader);
        let frame = self.next_request(size);
        self.say(leader, conn, &frame);
        let heard = self.heard.len();
        for _ in 0..40 {
            if self.heard.len() > heard {
                break;
            }
            self.fair_round();
            self.advance(1_000_000);
        }
    }

    /// Runs without requests until a leader has served for a while.
    pub(crate) fn settle(&mut self) {
        for _ in 0..60 {
            self.fair_round();
            self.advance(50_000_000);
        }
    }
}
