//! One node at the fuzzer's table: its disk, its links, its clients' streams, and the rules of the waist around it.

use std::collections::BTreeMap;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Ask, Asked, CloseReason, Conn, Event, Frame, Machine, Ordered, Packet, Zone};
use kimberlite_runtime::{Node, Note};
use kimberlite_storage::{FormatInput, FormatOutput, Formatter};
use kimberlite_types::limits::{FRAME_BODY_SIZE_LIMIT, FRAME_HEADER_SIZE, STREAM_CREDIT_INITIAL};
use kimberlite_types::{ClusterId, Config, Instant, Layout, Now, ReplicaId, Timing, WallTime};
use kimberlite_wire::Prepare;
use kimberlite_wire::client::{ClientFrame, Splitter};

use crate::platter::{self, Platter};

pub(crate) const CLUSTER: ClusterId = ClusterId(0x6b6d_6265_6675_7a7a);

pub(crate) const SECRET: [u8; 32] = *b"the secret of a fuzzed cluster..";

/// When virtual time begins, in nanoseconds since the epoch.
const WALL_EPOCH: u64 = 1_700_000_000_000_000_000;

/// Disk asks that a node may have in flight: reads of its opening, prepares and ring sectors of two pipelines, a footer,
/// the superblock, and what peers and queries make it fetch.
const DISK_ASKS_MAX: usize = 256;

/// Small enough for segments to seal and the ring to come round within a history of some dozen ops.
pub(crate) const LAYOUT: Layout =
    Layout { ring_slots: 32, segment_size: 64 << 10, segment_ops_max: 6, prepare_size_max: 16 << 10 };

pub(crate) fn config(replica: u8, replicas: u8) -> Config {
    Config {
        cluster: CLUSTER,
        replica: ReplicaId(replica),
        replicas,
        layout: LAYOUT,
        timing: Timing::PRODUCTION,
        pipeline_max: 8,
        sessions_max: 4,
    }
}

pub(crate) fn at(nanos: u64) -> Now {
    Now { monotonic: Instant(nanos), wall: WallTime(WALL_EPOCH + nanos) }
}

/// A formatted data directory.
pub(crate) fn formatted(config: Config) -> Platter {
    let mut platter = Platter::new(config.layout.ring_size());
    let mut formatter = Formatter::new(config);
    let mut asked = Asked::new();
    let mut out = Vec::new();
    formatter.on(at(0), FormatInput::Start, &mut asked, &mut out);
    loop {
        let asks = asked.take();
        if asks.is_empty() {
            break;
        }
        for ask in asks {
            let event = platter.answer(ask);
            formatter.on(at(0), FormatInput::Event(event), &mut asked, &mut out);
        }
    }
    assert_eq!(out, [FormatOutput::Done], "a healthy empty disk is formatted");
    platter
}

/// A client's stream, as the client sees it.
struct Stream {
    credit: u64,
    unsent: bool,
    splitter: Splitter,
}

/// One node and what surrounds it.
pub(crate) struct Seat {
    pub(crate) config: Config,
    pub(crate) node: Node,
    pub(crate) platter: Platter,
    /// Asks to the disk that were not answered yet.
    pub(crate) asks: Vec<Ask>,
    /// Messages that were sent and not taken off.
    pub(crate) sent: Vec<(ReplicaId, Packet)>,
    /// What was said on streams since the last look.
    pub(crate) said: Vec<ClientFrame>,
    /// What was noted since the last look.
    pub(crate) notes: Vec<Note>,
    /// Every prepare that was ever handed to this disk, by checksum.
    pub(crate) written: BTreeMap<Checksum, Prepare>,
    rules: Ordered,
    streams: BTreeMap<Conn, Stream>,
    streams_opened: u64,
}

impl Seat {
    pub(crate) fn new(config: Config, platter: Platter, seed: u64) -> Self {
        Self {
            config,
            node: Node::new(config, &SECRET, seed),
            platter,
            asks: Vec::new(),
            sent: Vec::new(),
            said: Vec::new(),
            notes: Vec::new(),
            written: BTreeMap::new(),
            rules: Ordered::new(),
            streams: BTreeMap::new(),
            streams_opened: 0,
        }
    }

    /// Hands the node an event. Both sides are held against the rules of the waist.
    pub(crate) fn hear(&mut self, now: u64, event: Event) {
        self.rules.heard(&event);
        let mut asked = Asked::new();
        self.node.on(at(now), event, &mut self.rules.wrap(&mut asked), &mut self.notes);
        for ask in asked.take() {
            self.take(ask);
        }
        assert!(self.asks.len() <= DISK_ASKS_MAX, "{} asks to the disk in flight", self.asks.len());
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Read { .. } | Ask::Trim { .. } => self.asks.push(ask),
            Ask::Write { at, ref data, .. } => {
                if at.zone == Zone::Log
                    && let Ok(prepare) = Prepare::parse(data)
                {
                    self.written.insert(prepare.header.checksum, prepare);
                }
                self.asks.push(ask);
            }
            Ask::Send { to, packet } => self.sent.push((to, packet)),
            Ask::Stream { conn, data } => self.listen(conn, &data),
            Ask::Grant { conn, bytes } => {
                if let Some(stream) = self.streams.get_mut(&conn) {
                    stream.credit += u64::from(bytes);
                }
            }
            Ask::Close { conn } => drop(self.streams.remove(&conn)),
            Ask::Connect { .. } => panic!("a node calls nobody"),
        }
    }

    /// What a node says to a client is well formed.
    fn listen(&mut self, conn: Conn, data: &Frame) {
        let Some(stream) = self.streams.get_mut(&conn) else { return };
        stream.unsent = true;
        let said = &mut self.said;
        let taken = stream.splitter.take(data, Some(CLUSTER), |header, body| {
            said.push(ClientFrame::decode(&header, &body).expect("a node speaks the protocol"));
        });
        assert_eq!(taken, Ok(()), "a node speaks the protocol");
        let held = stream.splitter.held();
        assert!(
            held <= FRAME_HEADER_SIZE + FRAME_BODY_SIZE_LIMIT as usize,
            "{held} bytes held for one frame"
        );
    }

    /// Answers one ask of the disk as a healthy one does.
    pub(crate) fn answer(&mut self, now: u64, index: usize) {
        let ask = self.asks.remove(index);
        let event = self.platter.answer(ask);
        self.hear(now, event);
    }

    /// Answers one ask of the disk with a fault.
    pub(crate) fn refuse(&mut self, now: u64, index: usize, no_space: bool) {
        let event = platter::fault(&self.asks.remove(index), no_space);
        self.hear(now, event);
    }

    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.node.wake_at().is_some_and(|wake| wake <= Instant(now))
    }

    /// A client opens a stream.
    pub(crate) fn open_stream(&mut self, now: u64) -> Conn {
        self.streams_opened += 1;
        let conn = Conn(Conn::ACCEPTED | self.streams_opened);
        let stream =
            Stream { credit: u64::from(STREAM_CREDIT_INITIAL), unsent: false, splitter: Splitter::default() };
        self.streams.insert(conn, stream);
        self.hear(now, Event::Opened { conn });
        conn
    }

    /// The streams that are open.
    pub(crate) fn conns(&self) -> Vec<Conn> {
        self.streams.keys().copied().collect()
    }

    /// Bytes of a client arrive, as many as its credit allows.
    pub(crate) fn receive(&mut self, now: u64, conn: Conn, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(&conn) else { return };
        let allowed = bytes.len().min(stream.credit as usize);
        if allowed > 0 {
            stream.credit -= allowed as u64;
            self.hear(now, Event::Received { conn, data: Frame::copy_from(&bytes[..allowed]) });
        }
    }

    /// What was queued on a stream has left.
    pub(crate) fn drain(&mut self, now: u64, conn: Conn) {
        if let Some(stream) = self.streams.get_mut(&conn)
            && std::mem::take(&mut stream.unsent)
        {
            self.hear(now, Event::Sent { conn });
        }
    }

    /// A client goes.
    pub(crate) fn close_stream(&mut self, now: u64, conn: Conn, reason: CloseReason) {
        if self.streams.remove(&conn).is_some() {
            self.hear(now, Event::Closed { conn, reason });
        }
    }

    /// The process dies; of its unanswered writes those units are kept that `lands` permits. Another one starts.
    pub(crate) fn restart(&mut self, seed: u64, mut lands: impl FnMut() -> bool) {
        for ask in std::mem::take(&mut self.asks) {
            if let Ask::Write { at, data, .. } = ask {
                self.platter.tear(at, &data, &mut lands);
            }
        }
        self.node = Node::new(self.config, &SECRET, seed);
        self.rules = Ordered::new();
        self.streams.clear();
        self.sent.clear();
        self.streams_opened = 0;
    }
}
