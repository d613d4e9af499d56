//! Byte streams between clients and replicas.
//!
//! Each direction has an outbox, in the sending process, and a wire, in the kernels and the network. Bytes
//! move from the outbox to the wire while there is room, and off the wire in chunks, as far as the
//! receiver's credit goes. A process that dies loses its outbox and an arbitrary end of its wire.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kimberlite_io::{Address, Buf, CloseReason, Conn, Event, Frame};
use kimberlite_types::limits::{STREAM_CREDIT_INITIAL, STREAM_QUEUE_MAX};

use crate::NodeId;
use crate::agenda::Due;
use crate::census::Fault;
use crate::dice::Concern;
use crate::ground::Ground;
use crate::network::{Network, flip};

/// Bytes of one direction that the kernels and the network hold.
const WIRE_SIZE_MAX: u64 = 128 << 10;

/// Bytes of one chunk at most.
const CHUNK_SIZE_MAX: usize = 64 << 10;

/// How often a blocked stream tries again, in nanoseconds.
const RETRY: u64 = 200_000_000;

/// A stream that was blocked for this long breaks, in nanoseconds.
const BLOCKED_MAX: u64 = 15_000_000_000;

/// A connection attempt that nobody answers ends after one to five seconds.
const CONNECT_TIMEOUT: (u64, u64) = (1_000_000_000, 5_000_000_000);

/// How long a kernel takes to find that an address leads nowhere, in nanoseconds.
const REFUSAL: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The opener has not heard yet; the acceptor has not been asked yet.
    Waiting,
    Open,
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct End {
    node: NodeId,
    conn: Conn,
    state: State,
}

/// What one side sends.
#[derive(Debug, Default)]
struct Flow {
    outbox: VecDeque<Frame>,
    outbox_bytes: u64,
    wire: VecDeque<Frame>,
    wire_bytes: u64,
    /// Bytes the receiver still allows.
    credit: u64,
    /// A pump is on the agenda.
    pumping: bool,
    /// A `Sent` is on the agenda.
    sent_due: bool,
    /// The sender ended the stream: `Closed` follows the last byte.
    ending: bool,
    blocked_since: Option<u64>,
}

impl Flow {
    fn fill_wire(&mut self) {
        while self.wire_bytes < WIRE_SIZE_MAX {
            let Some(frame) = self.outbox.pop_front() else { return };
            self.outbox_bytes -= frame.len() as u64;
            self.wire_bytes += frame.len() as u64;
            self.wire.push_back(frame);
        }
    }

    fn discard(&mut self) {
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.wire.clear();
        self.wire_bytes = 0;
    }

    /// Takes the first `len` bytes off the wire.
    fn take(&mut self, len: usize) -> Frame {
        self.wire_bytes -= len as u64;
        let front = self.wire.front_mut().expect("bytes on the wire");
        if front.len() > len {
            let taken = front.slice(0..len);
            *front = front.slice(len..front.len());
            return taken;
        }
        if front.len() == len {
            return self.wire.pop_front().expect("a frame is in front");
        }
        let mut buf = Buf::zeroed(len);
        let mut filled = 0;
        while filled < len {
            let front = self.wire.front_mut().expect("bytes on the wire");
            let part = front.len().min(len - filled);
            buf[filled..filled + part].copy_from_slice(&front[..part]);
            filled += part;
            if part == front.len() {
                self.wire.pop_front();
            } else {
                *front = front.slice(part..front.len());
            }
        }
        buf.freeze()
    }
}

#[derive(Debug)]
struct Stream {
    /// The opener, then the acceptor.
    ends: [End; 2],
    /// What the opener sends, then what the acceptor sends.
    flows: [Flow; 2],
    /// It broke: nothing moves any more, both ends are about to hear.
    broken: bool,
}

/// One node's view of its streams.
#[derive(Debug, Default)]
struct Book {
    streams: BTreeMap<Conn, (u32, u8)>,
    /// Ids this life has opened.
    opened: BTreeSet<Conn>,
    /// Ids accepted in this life are `accepted_first..accepted_next`.
    accepted_first: u64,
    accepted_next: u64,
}

impl Book {
    fn was_known(&self, conn: Conn) -> bool {
        let number = conn.0 & !Conn::ACCEPTED;
        if conn.is_accepted() {
            (self.accepted_first..self.accepted_next).contains(&number)
        } else {
            self.opened.contains(&conn)
        }
    }
}

/// All streams of a world.
pub(crate) struct Streams {
    open: BTreeMap<u32, Stream>,
    books: Vec<Book>,
    made: u32,
}

/// The questions a stream asks its dice about a path, one lane each. Two numbers are left out: they are the
/// path's own questions about delays.
#[derive(Clone, Copy)]
pub(crate) enum Question {
    Reset = 0,
    Stall = 3,
    Wait = 4,
    Cut = 5,
    Where = 6,
    Corrupt = 7,
}

/// Something a node hears.
type Heard = Option<(NodeId, Event)>;

impl Streams {
    pub(crate) fn new(nodes: u16) -> Self {
        Self { open: BTreeMap::new(), books: (0..nodes).map(|_| Book::default()).collect(), made: 0 }
    }

    /// Open streams of a node, and bytes in its outboxes.
    pub(crate) fn held(&self, node: NodeId) -> (usize, u64) {
        let book = &self.books[usize::from(node.0)];
        let queued = |(stream, side): &(u32, u8)| self.open[stream].flows[usize::from(*side)].outbox_bytes;
        (book.streams.len(), book.streams.values().map(queued).sum())
    }

    // Asks.

    pub(crate) fn connect(
        &mut self,
        ground: &mut Ground,
        network: &mut Network,
        node: NodeId,
        conn: Conn,
        to: Address,
    ) {
        let target = NodeId(to.0);
        assert!(target != node, "a node does not connect to itself");
        let stream = self.enter(node, conn, target);
        let delay = network.delay(ground, Concern::Stream, node, target, 0);
        ground.agenda.add(ground.time + delay, Due::Connect { stream });
    }

    /// A connection to an address that nobody has: refused by the caller's own kernel. Its other end is never
    /// asked.
    pub(crate) fn connect_nowhere(&mut self, ground: &mut Ground, node: NodeId, conn: Conn) {
        let id = self.enter(node, conn, node);
        self.open.get_mut(&id).expect("it was just entered").broken = true;
        let due = Due::Closed { stream: id, side: 0, reason: CloseReason::Refused };
        ground.agenda.add(ground.time + REFUSAL, due);
    }

    /// Enters a stream that its opener waits for.
    fn enter(&mut self, node: NodeId, conn: Conn, target: NodeId) -> u32 {
        assert!(!conn.is_accepted(), "{conn:?} carries the bit of accepted streams");
        let book = &mut self.books[usize::from(node.0)];
        assert!(book.opened.insert(conn), "{conn:?} was used before in this life");
        self.made = self.made.wrapping_add(1);
        book.streams.insert(conn, (self.made, 0));
        let credit = || Flow { credit: u64::from(STREAM_CREDIT_INITIAL), ..Flow::default() };
        let opener = End { node, conn, state: State::Waiting };
        let acceptor = End { node: target, conn: Conn(0), state: State::Waiting };
        self.open.insert(
            self.made,
            Stream { ends: [opener, acceptor], flows: [credit(), credit()], broken: false },
        );
        self.made
    }

    /// The stream and side behind a connection, unless it is gone.
    fn find(&self, node: NodeId, conn: Conn) -> Option<(u32, u8)> {
        let book = &self.books[usize::from(node.0)];
        let found = book.streams.get(&conn).copied();
        assert!(found.is_some() || book.was_known(conn), "{conn:?} was never heard of in this life");
        found
    }

    pub(crate) fn stream(
        &mut self,
        ground: &mut Ground,
        network: &mut Network,
        node: NodeId,
        conn: Conn,
        data: Frame,
    ) {
        let Some((id, side)) = self.find(node, conn) else { return };
        let stream = self.open.get_mut(&id).expect("a listed stream exists");
        let end = stream.ends[usize::from(side)];
        assert!(end.state == State::Open, "{conn:?} is not open yet");
        let peer = stream.ends[usize::from(1 - side)];
        let flow = &mut stream.flows[usize::from(side)];
        if peer.state != State::Gone && !stream.broken && !data.is_empty() {
            if flow.outbox_bytes + data.len() as u64 > STREAM_QUEUE_MAX {
                ground.path_fault(node, peer.node, Fault::StreamOverflowed);
                self.break_off(ground, network, id);
                return;
            }
            flow.outbox_bytes += data.len() as u64;
            flow.outbox.push_back(data);
            flow.fill_wire();
        }
        self.drained(ground, network, id, side);
        self.kick(ground, network, id, side);
    }

    pub(crate) fn grant(
        &mut self,
        ground: &mut Ground,
        network: &mut Network,
        node: NodeId,
        conn: Conn,
        bytes: u32,
    ) {
        let Some((id, side)) = self.find(node, conn) else { return };
        let stream = self.open.get_mut(&id).expect("a listed stream exists");
        assert!(stream.ends[usize::from(side)].state == State::Open, "{conn:?} is not open yet");
        stream.flows[usize::from(1 - side)].credit += u64::from(bytes);
        self.kick(ground, network, id, 1 - side);
    }

    pub(crate) fn close(&mut self, ground: &mut Ground, network: &mut Network, node: NodeId, conn: Conn) {
        let Some((id, side)) = self.find(node, conn) else { return };
        self.leave(id, side);
        let Some(stream) = self.open.get_mut(&id) else { return };
        stream.flows[usize::from(side)].ending = true;
        stream.flows[usize::from(1 - side)].discard();
        self.kick(ground, network, id, side);
    }

    /// One end is gone. The stream is forgotten with its second one.
    fn leave(&mut self, id: u32, side: u8) {
        let stream = self.open.get_mut(&id).expect("a listed stream exists");
        let end = &mut stream.ends[usize::from(side)];
        self.books[usize::from(end.node.0)].streams.remove(&end.conn);
        end.state = State::Gone;
        let unasked = side == 0 && stream.ends[1].state == State::Waiting;
        if stream.ends.iter().all(|end| end.state == State::Gone) || unasked {
            self.open.remove(&id);
        }
    }

    /// Tells the sender when its outbox is empty.
    fn drained(&mut self, ground: &mut Ground, network: &mut Network, id: u32, side: u8) {
        let stream = self.open.get_mut(&id).expect("the stream exists");
        let (end, peer) = (stream.ends[usize::from(side)], stream.ends[usize::from(1 - side)]);
        let flow = &mut stream.flows[usize::from(side)];
        if flow.outbox.is_empty() && !flow.sent_due && end.state == State::Open {
            flow.sent_due = true;
            let delay = network.link(end.node, peer.node).delay_min;
            ground.agenda.add(ground.time + delay, Due::Sent { stream: id, side });
        }
    }

    /// Puts a pump on the agenda if there is something to move.
    fn kick(&mut self, ground: &mut Ground, network: &mut Network, id: u32, side: u8) {
        let stream = self.open.get_mut(&id).expect("the stream exists");
        let (from, to) = (stream.ends[usize::from(side)], stream.ends[usize::from(1 - side)]);
        let flow = &mut stream.flows[usize::from(side)];
        let moves = if flow.wire.is_empty() { flow.ending } else { flow.credit > 0 };
        if !moves || flow.pumping || stream.broken || to.state != State::Open {
            return;
        }
        flow.pumping = true;
        let len = flow.wire.front().map_or(0, |frame| frame.len());
        let delay = network.delay(ground, Concern::Stream, from.node, to.node, len);
        ground.agenda.add(ground.time + delay, Due::Pump { stream: id, side });
    }

    /// Both ends will hear that the stream broke.
    fn break_off(&mut self, ground: &mut Ground, network: &mut Network, id: u32) {
        let stream = &self.open[&id];
        if stream.broken {
            return;
        }
        for side in 0..2_u8 {
            let (end, peer) = (stream.ends[usize::from(side)], stream.ends[usize::from(1 - side)]);
            if end.state != State::Gone {
                let delay = network.delay(ground, Concern::Stream, peer.node, end.node, 0);
                let reason = CloseReason::Broken;
                ground.agenda.add(ground.time + delay, Due::Closed { stream: id, side, reason });
            }
        }
        let stream = self.open.get_mut(&id).expect("the stream exists");
        stream.broken = true;
        stream.flows.iter_mut().for_each(Flow::discard);
    }

    // Processes.

    /// A process died: its ends are gone, and the others will hear of it.
    pub(crate) fn crash(&mut self, ground: &mut Ground, network: &mut Network, node: NodeId) {
        let touched: Vec<(u32, u8)> = self
            .open
            .iter()
            .flat_map(|(id, stream)| [(*id, 0, stream.ends[0]), (*id, 1, stream.ends[1])])
            .filter(|(_, side, end)| end.node == node && (*side == 0 || end.state != State::Waiting))
            .map(|(id, side, _)| (id, side))
            .collect();
        for (id, side) in touched {
            self.lose(ground, network, id, side);
        }
        let book = &mut self.books[usize::from(node.0)];
        book.opened.clear();
        book.accepted_first = book.accepted_next;
        assert!(book.streams.is_empty(), "a dead process holds no stream");
    }

    fn lose(&mut self, ground: &mut Ground, network: &mut Network, id: u32, side: u8) {
        let stream = self.open.get_mut(&id).expect("the stream exists");
        let (end, peer) = (stream.ends[usize::from(side)], stream.ends[usize::from(1 - side)]);
        stream.flows[usize::from(1 - side)].discard();
        let flow = &mut stream.flows[usize::from(side)];
        flow.outbox.clear();
        flow.outbox_bytes = 0;
        flow.ending = false;
        let kept = ground.dice.draw(Concern::Crash, 64 + u64::from(end.node.0), flow.wire_bytes + 1);
        if kept == 0 {
            flow.discard();
        } else if kept < flow.wire_bytes {
            let rest = flow.take(kept as usize);
            flow.discard();
            flow.wire_bytes = rest.len() as u64;
            flow.wire.push_back(rest);
        }
        let unasked = side == 0 && peer.state == State::Waiting;
        if peer.state != State::Gone && !unasked {
            let late = network.delay(ground, Concern::Stream, end.node, peer.node, 0);
            let delay = late + network.delay(ground, Concern::Stream, end.node, peer.node, 0);
            let due = Due::Closed { stream: id, side: 1 - side, reason: CloseReason::Broken };
            ground.agenda.add(ground.time + delay, due);
        }
        if end.state != State::Gone {
            self.leave(id, side);
        }
    }

    /// Breaks every stream of a node at once: a lost uplink, a restarted proxy.
    pub(crate) fn reset_all(&mut self, ground: &mut Ground, network: &mut Network, node: NodeId) {
        let mine: Vec<u32> = self.books[usize::from(node.0)].streams.values().map(|(id, _)| *id).collect();
        for id in mine {
            let Stream { ends, broken, .. } = self.open[&id];
            if broken {
                continue;
            }
            ground.path_fault(ends[0].node, ends[1].node, Fault::StreamReset);
            self.break_off(ground, network, id);
        }
    }

    // What is due.

    /// Which node something due is about, so that a paused one can be left alone.
    pub(crate) fn receiver(&self, due: Due) -> Option<NodeId> {
        let (id, side) = match due {
            Due::Connect { stream } => (stream, 1),
            Due::Connected { stream } => (stream, 0),
            Due::Pump { stream, side } => (stream, 1 - side),
            Due::Sent { stream, side } | Due::Closed { stream, side, .. } => (stream, side),
            _ => return None,
        };
        self.open.get(&id).map(|stream| stream.ends[usize::from(side)].node)
    }

    /// A connection attempt reaches its target.
    pub(crate) fn on_connect(
        &mut self,
        ground: &mut Ground,
        network: &mut Network,
        id: u32,
        target_up: bool,
    ) -> Heard {
        let stream = self.open.get_mut(&id)?;
        let (opener, target) = (stream.ends[0].node, stream.ends[1].node);
        let refused = Due::Closed { stream: id, side: 0, reason: CloseReason::Refused };
        if !network.is_up(opener, target) || !network.is_up(target, opener) {
            ground.path_fault(opener, target, Fault::StreamRefused);
            let (low, high) = CONNECT_TIMEOUT;
            let wait = ground.dice.between(
                Concern::Stream,
                network.stream_lane(opener, target, Question::Wait),
                low,
                high,
            );
            ground.agenda.add(ground.time + wait, refused);
            return None;
        }
        let delay = network.delay(ground, Concern::Stream, target, opener, 0);
        if !target_up {
            ground.path_fault(opener, target, Fault::StreamRefused);
            ground.agenda.add(ground.time + delay, refused);
            return None;
        }
        let book = &mut self.books[usize::from(target.0)];
        let conn = Conn(Conn::ACCEPTED | book.accepted_next);
        book.accepted_next += 1;
        book.streams.insert(conn, (id, 1));
        stream.ends[1].conn = conn;
        stream.ends[1].state = State::Open;
        ground.agenda.add(ground.time + delay, Due::Connected { stream: id });
        Some((target, Event::Opened { conn }))
    }

    /// The opener hears that it is connected.
    pub(crate) fn on_connected(&mut self, ground: &mut Ground, network: &mut Network, id: u32) -> Heard {
        let stream = self.open.get_mut(&id)?;
        if stream.ends[0].state != State::Waiting {
            return None;
        }
        stream.ends[0].state = State::Open;
        let (node, conn) = (stream.ends[0].node, stream.ends[0].conn);
        self.kick(ground, network, id, 1);
        Some((node, Event::Opened { conn }))
    }

    /// One side's outbox was empty a moment ago.
    pub(crate) fn on_sent(&mut self, id: u32, side: u8) -> Heard {
        let stream = self.open.get_mut(&id)?;
        let end = stream.ends[usize::from(side)];
        let flow = &mut stream.flows[usize::from(side)];
        flow.sent_due = false;
        let told = flow.outbox.is_empty() && end.state == State::Open;
        told.then_some((end.node, Event::Sent { conn: end.conn }))
    }

    /// One side hears that the stream is gone.
    pub(crate) fn on_closed(&mut self, id: u32, side: u8, reason: CloseReason) -> Heard {
        let end = self.open.get(&id)?.ends[usize::from(side)];
        if end.state == State::Gone {
            return None;
        }
        self.leave(id, side);
        Some((end.node, Event::Closed { conn: end.conn, reason }))
    }

    /// Bytes of one side may move on.
    pub(crate) fn on_pump(&mut self, ground: &mut Ground, network: &mut Network, id: u32, side: u8) -> Heard {
        let stream = self.open.get_mut(&id)?;
        let (sender, receiver) = (stream.ends[usize::from(side)], stream.ends[usize::from(1 - side)]);
        let (from, to) = (sender.node, receiver.node);
        let flow = &mut stream.flows[usize::from(side)];
        flow.pumping = false;
        if receiver.state != State::Open || stream.broken {
            return None;
        }
        let clogged_until = network.clogged_until(from, to);
        if clogged_until > ground.time {
            ground.path_fault(from, to, Fault::PathClogged);
            return Self::pump_again(ground, flow, id, side, clogged_until);
        }
        if !network.is_up(from, to) || !network.is_up(to, from) {
            let since = *flow.blocked_since.get_or_insert(ground.time);
            if ground.time - since < BLOCKED_MAX {
                return Self::pump_again(ground, flow, id, side, ground.time + RETRY);
            }
            ground.path_fault(from, to, Fault::PathBlocked);
            self.break_off(ground, network, id);
            return None;
        }
        flow.blocked_since = None;
        let link = *network.link(from, to);
        let lane = |question| network.stream_lane(from, to, question);
        if ground.dice.chance_ppm(Concern::Stream, lane(Question::Reset), link.reset_ppm) {
            ground.path_fault(from, to, Fault::StreamReset);
            self.break_off(ground, network, id);
            return None;
        }
        if ground.dice.chance_ppm(Concern::Stream, lane(Question::Stall), link.stall_ppm) {
            ground.path_fault(from, to, Fault::StreamStalled);
            let wait = ground.dice.exponential(Concern::Stream, lane(Question::Wait), link.stall_mean);
            return Self::pump_again(ground, flow, id, side, ground.time + wait.max(1));
        }
        if flow.wire.is_empty() {
            if !flow.ending {
                return None;
            }
            self.leave(id, 1 - side);
            return Some((to, Event::Closed { conn: receiver.conn, reason: CloseReason::Ended }));
        }
        let front = flow.wire[0].len();
        let allowed = flow.wire_bytes.min(flow.credit).min(CHUNK_SIZE_MAX as u64) as usize;
        if allowed == 0 {
            return None;
        }
        let len = if ground.dice.chance_ppm(Concern::Stream, lane(Question::Cut), link.cut_ppm) {
            1 + ground.dice.index(Concern::Stream, lane(Question::Where), allowed)
        } else {
            allowed.min(front)
        };
        if len != front {
            ground.path_fault(from, to, Fault::StreamCut);
        }
        let mut data = flow.take(len);
        flow.credit -= len as u64;
        if ground.dice.chance_ppm(Concern::Stream, lane(Question::Corrupt), link.stream_corrupt_ppm) {
            ground.path_fault(from, to, Fault::StreamCorrupted);
            data = flip(&data, ground.dice.index(Concern::Stream, lane(Question::Where), len * 8));
        }
        if !flow.outbox.is_empty() {
            flow.fill_wire();
            self.drained(ground, network, id, side);
        }
        self.kick(ground, network, id, side);
        Some((to, Event::Received { conn: receiver.conn, data }))
    }

    fn pump_again(ground: &mut Ground, flow: &mut Flow, id: u32, side: u8, at: u64) -> Heard {
        flow.pumping = true;
        ground.agenda.add(at, Due::Pump { stream: id, side });
        None
    }
}
