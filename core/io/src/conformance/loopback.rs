//! A small honest driver in memory, on a clock that jumps from event to event; and one flaw at a time, to
//! prove that each case can fail.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kimberlite_types::limits::{FRAME_BODY_SIZE_LIMIT, SECTOR_SIZE, STREAM_CREDIT_INITIAL};
use kimberlite_types::{Instant, Now, ReplicaId, WallTime};

use super::{Bench, FRAMING, Geometry, MachineFactory, Verdict, Verdicts};
use crate::{
    Ask, Asked, Buf, CloseReason, Conn, Event, Frame, Machine, Ordered, Packet, Place, ReadFault, Token,
    WriteFault, Zone,
};

/// The one rule that a loopback breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    LosesMessages,
    DamagesHeads,
    CutsBodies,
    MovesBodies,
    DirtiesPadding,
    ForgesSenders,
    SwapsBytes,
    DropsBytes,
    IgnoresCredit,
    KeepsLastCredit,
    LosesSent,
    RepeatsSent,
    ForgetsOnClose,
    NeverRefuses,
    RefusesAsBroken,
    SpeaksAfterClose,
    LosesWrites,
    TearsWrites,
    LosesWritesAtKill,
    SwallowsAnswers,
    StartsWithGarbage,
    ZerosPastTheEnd,
    RefusesLaterSegments,
    AliasesSegments,
    AnswersTwice,
    HalvesTokens,
    KeepsTrimmed,
    TrimsTooMuch,
    LosesWakes,
    WakesLate,
    IgnoresCloserWakes,
    TimeGoesBack,
    StarvesUnderWakes,
}

const GEOMETRY: Geometry =
    Geometry { superblock_size: 64 << 10, headers_size: 64 << 10, segment_size: 2 << 20 };
const MICROSECOND: u64 = 1_000;

/// One disk: the sectors that were written, and how many segments of the log exist.
#[derive(Clone, Default)]
struct Sectors {
    written: BTreeMap<(Zone, u64), Vec<u8>>,
    segments: u64,
}

/// One end of a stream, at the node that knows it by its id.
struct End {
    peer: (usize, Conn),
    outgoing: VecDeque<u8>,
    credit: u64,
    unsent: bool,
    announced: bool,
    closed: bool,
}

struct Node {
    machine: Box<dyn Machine<Input = Event, Output = Verdict>>,
    rules: Ordered,
    wake_at: Option<Instant>,
    woken: u64,
}

pub(super) struct Loopback {
    flaw: Option<Flaw>,
    disks: Vec<Sectors>,
    nodes: Vec<Node>,
    ends: BTreeMap<(usize, Conn), End>,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    clock: u64,
    asks: u64,
    accepted: u64,
}

impl Bench for Loopback {
    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn phase(&mut self, machines: Vec<MachineFactory>, limit: Duration) -> Vec<Verdict> {
        self.disks.resize_with(machines.len().max(self.disks.len()), Sectors::default);
        let before = self.disks.clone();
        let mut verdicts = Verdicts::new(machines.len());
        let now = self.now();
        let node = |machine: MachineFactory| {
            let machine = machine(now);
            let wake_at = machine.wake_at();
            Node { machine, rules: Ordered::new(), wake_at, woken: 0 }
        };
        self.nodes = machines.into_iter().map(node).collect();
        let end = self.clock + limit.as_nanos() as u64;
        while !verdicts.complete() && self.clock < end {
            let Some((node, event)) = self.next() else { break };
            self.deliver(node, event, &mut verdicts);
        }
        self.nodes.clear();
        self.ends.clear();
        self.events.clear();
        if self.has(Flaw::LosesWritesAtKill) {
            self.disks = before;
        }
        verdicts.finish()
    }
}

impl Loopback {
    pub(super) fn new(flaw: Option<Flaw>) -> Self {
        Self {
            flaw,
            disks: Vec::new(),
            nodes: Vec::new(),
            ends: BTreeMap::new(),
            events: BTreeMap::new(),
            clock: 1_000 * MICROSECOND,
            asks: 0,
            accepted: 0,
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn now(&self) -> Now {
        let back = if self.has(Flaw::TimeGoesBack) { self.asks % 3 * MICROSECOND * 100 } else { 0 };
        Now { monotonic: Instant(self.clock - back), wall: WallTime(0) }
    }

    /// What happens next: an event or a wake, whichever comes first. `None` when nothing ever will.
    fn next(&mut self) -> Option<(usize, Event)> {
        let late = if self.has(Flaw::WakesLate) { 2_000_000 * MICROSECOND } else { 0 };
        let alarm = |node: &Node| {
            let lost = self.has(Flaw::LosesWakes) && node.woken > 2;
            node.wake_at.filter(|_| !lost).map(|at| if at.0 > 0 { at.0 + late } else { 0 })
        };
        let nodes = self.nodes.iter().enumerate();
        let wake = nodes.filter_map(|(index, node)| Some((alarm(node)?, index))).min();
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let wakes_first = match (wake, event) {
            (None, None) => return None,
            (Some((at, _)), Some(event)) => at < event || self.has(Flaw::StarvesUnderWakes),
            (wake, None) => wake.is_some(),
            (None, _) => false,
        };
        match wake {
            Some((at, index)) if wakes_first => {
                self.clock = self.clock.max(at);
                self.nodes[index].woken += 1;
                Some((index, Event::Wake))
            }
            _ => {
                let ((at, _), (index, event)) = self.events.pop_first()?;
                self.clock = self.clock.max(at);
                Some((index, event))
            }
        }
    }

    fn deliver(&mut self, node: usize, event: Event, verdicts: &mut Verdicts) {
        if !self.still_heard(node, &event) {
            return;
        }
        let now = self.now();
        let honest = self.flaw.is_none();
        let closer = !self.has(Flaw::IgnoresCloserWakes);
        let runner = &mut self.nodes[node];
        if honest {
            runner.rules.heard(&event);
        }
        let woken = event == Event::Wake;
        let mut asked = Asked::new();
        let mut said = Vec::new();
        if honest {
            runner.machine.on(now, event, &mut runner.rules.wrap(&mut asked), &mut said);
        } else {
            runner.machine.on(now, event, &mut asked, &mut said);
        }
        if closer || woken {
            runner.wake_at = runner.machine.wake_at();
        }
        for verdict in said {
            verdicts.hear(node, verdict);
        }
        for ask in asked.take() {
            self.asks += 1;
            self.act(node, ask);
        }
        self.pump();
    }

    /// Whether the event still concerns the node: nothing is heard of a stream that is gone.
    fn still_heard(&mut self, node: usize, event: &Event) -> bool {
        let (Event::Opened { conn }
        | Event::Received { conn, .. }
        | Event::Sent { conn }
        | Event::Closed { conn, .. }) = event
        else {
            return true;
        };
        let refused = matches!(event, Event::Closed { reason, .. } if *reason != CloseReason::Ended);
        let Some(end) = self.ends.get_mut(&(node, *conn)) else { return refused };
        let mut silent = end.closed;
        if matches!(event, Event::Sent { .. }) {
            // True only if nothing was queued between the announcement and now.
            end.announced = false;
            let true_now = end.unsent && end.outgoing.is_empty();
            end.unsent &= !true_now;
            silent |= !true_now && self.flaw != Some(Flaw::RepeatsSent);
        }
        if matches!(event, Event::Closed { .. }) {
            self.ends.remove(&(node, *conn));
        }
        !silent || self.has(Flaw::SpeaksAfterClose)
    }

    fn happens(&mut self, after_us: u64, node: usize, event: Event) {
        let at = self.clock + after_us * MICROSECOND;
        let order = self.events.len() as u64 + self.asks * 1_000_000;
        let mut key = (at, order);
        while self.events.contains_key(&key) {
            key.1 += 1;
        }
        self.events.insert(key, (node, event));
    }

    fn act(&mut self, node: usize, ask: Ask) {
        match ask {
            Ask::Read { token, at, len } => {
                let result = self.read(node, at, len);
                self.answer(node, token, |token| Event::Read { token, result: result.clone() });
            }
            Ask::Write { token, at, data } => {
                let result = self.write(node, at, &data);
                self.answer(node, token, |token| Event::Written { token, result });
            }
            Ask::Trim { token, at, len } => {
                self.trim(node, at, len);
                self.answer(node, token, |token| Event::Trimmed { token, result: Ok(()) });
            }
            Ask::Send { to, packet } => self.send(to, &packet),
            Ask::Connect { conn, to } => self.connect(node, conn, to.0 as usize),
            Ask::Stream { conn, data } => {
                if let Some(end) = self.ends.get_mut(&(node, conn)) {
                    end.outgoing.extend(data.iter());
                    end.unsent = true;
                }
            }
            Ask::Grant { conn, bytes } => {
                if let Some(end) = self.ends.get_mut(&(node, conn)) {
                    end.credit += u64::from(bytes);
                }
            }
            Ask::Close { conn } => {
                let forgets = self.has(Flaw::ForgetsOnClose);
                if let Some(end) = self.ends.get_mut(&(node, conn)) {
                    end.closed = true;
                    if forgets {
                        end.outgoing.clear();
                    }
                }
            }
        }
    }

    /// Answers after 50 to 140 microseconds, so that answers overtake each other.
    fn answer(&mut self, node: usize, token: Token, event: impl Fn(Token) -> Event) {
        if self.has(Flaw::SwallowsAnswers) && self.asks.is_multiple_of(40) {
            return;
        }
        let token = if self.has(Flaw::HalvesTokens) { Token(token.0 & 0xffff_ffff) } else { token };
        let after = 50 + self.asks * 37 % 90;
        self.happens(after, node, event(token));
        if self.has(Flaw::AnswersTwice) {
            self.happens(after + 30, node, event(token));
        }
    }

    fn place(&self, at: Place, index: u64) -> (Zone, u64) {
        let offset = at.offset + index * SECTOR_SIZE as u64;
        let aliased = self.has(Flaw::AliasesSegments) && at.zone == Zone::Log;
        (at.zone, if aliased { offset % GEOMETRY.segment_size } else { offset })
    }

    fn read(&self, node: usize, at: Place, len: usize) -> Result<Buf, ReadFault> {
        let disk = &self.disks[node];
        let end = match at.zone {
            Zone::Superblock => GEOMETRY.superblock_size,
            Zone::Headers => GEOMETRY.headers_size,
            Zone::Log | Zone::Grid => disk.segments * GEOMETRY.segment_size,
        };
        if at.offset + len as u64 > end && !self.has(Flaw::ZerosPastTheEnd) {
            return Err(ReadFault::Absent);
        }
        let mut buf = Buf::zeroed(len);
        if self.has(Flaw::StartsWithGarbage) {
            buf.fill(0xa5);
        }
        for (index, sector) in buf.chunks_exact_mut(SECTOR_SIZE).enumerate() {
            if let Some(bytes) = disk.written.get(&self.place(at, index as u64)) {
                sector.copy_from_slice(bytes);
            }
        }
        Ok(buf)
    }

    fn write(&mut self, node: usize, at: Place, data: &Frame) -> Result<(), WriteFault> {
        let segment = at.offset / GEOMETRY.segment_size + 1;
        if at.zone == Zone::Log {
            let disk = &mut self.disks[node];
            if self.flaw == Some(Flaw::RefusesLaterSegments) && segment > disk.segments + 1 {
                return Err(WriteFault::Failed);
            }
            disk.segments = disk.segments.max(segment);
        }
        for (index, bytes) in data.chunks_exact(SECTOR_SIZE).enumerate() {
            let torn = self.has(Flaw::TearsWrites) && index == 6;
            let lost = self.has(Flaw::LosesWrites) && self.asks.is_multiple_of(3);
            let place = self.place(at, index as u64);
            if !torn && !lost {
                self.disks[node].written.insert(place, bytes.to_vec());
            }
        }
        Ok(())
    }

    fn trim(&mut self, node: usize, at: Place, len: u64) {
        let extra = u64::from(self.has(Flaw::TrimsTooMuch));
        if !self.has(Flaw::KeepsTrimmed) {
            for index in 0..len / SECTOR_SIZE as u64 + extra {
                let place = self.place(at, index);
                self.disks[node].written.remove(&place);
            }
        }
    }

    fn send(&mut self, to: ReplicaId, packet: &Packet) {
        let shape = FRAMING(&packet.head).expect("the suite's heads are sound");
        assert_eq!(shape.body_size as usize, packet.body.len(), "the head names the body's size");
        let Packet { mut head, body } = packet.clone();
        let mut body = Frame::copy_from(&body);
        let size = body.len();
        let mut from = shape.sender;
        match self.flaw {
            Some(Flaw::LosesMessages) => return,
            Some(Flaw::DamagesHeads) => head[100] ^= 1,
            Some(Flaw::CutsBodies) => body = body.slice(0..size.min(FRAME_BODY_SIZE_LIMIT as usize - 1)),
            Some(Flaw::MovesBodies) => {
                let mut moved = Buf::zeroed(size + 8);
                moved[8..].copy_from_slice(&body);
                body = moved.freeze().slice(8..size + 8);
            }
            Some(Flaw::DirtiesPadding) => {
                let mut dirty = Buf::zeroed(crate::sectors(size as u64) as usize);
                dirty.fill(0xee);
                dirty[..size].copy_from_slice(&body);
                body = dirty.freeze().slice(0..size);
            }
            Some(Flaw::ForgesSenders) if to == ReplicaId(0) => from = ReplicaId(3),
            _ => {}
        }
        if usize::from(to.0) < self.nodes.len() {
            self.happens(40, usize::from(to.0), Event::Message { from, packet: Packet { head, body } });
        }
    }

    fn connect(&mut self, node: usize, conn: Conn, to: usize) {
        if to >= self.nodes.len() {
            let reason =
                if self.has(Flaw::RefusesAsBroken) { CloseReason::Broken } else { CloseReason::Refused };
            if !self.has(Flaw::NeverRefuses) {
                self.happens(20, node, Event::Closed { conn, reason });
            }
            return;
        }
        self.accepted += 1;
        let there = Conn(Conn::ACCEPTED | self.accepted);
        let end = |peer| End {
            peer,
            outgoing: VecDeque::new(),
            credit: u64::from(STREAM_CREDIT_INITIAL),
            unsent: false,
            announced: false,
            closed: false,
        };
        self.ends.insert((node, conn), end((to, there)));
        self.ends.insert((to, there), end((node, conn)));
        self.happens(20, to, Event::Opened { conn: there });
        self.happens(30, node, Event::Opened { conn });
    }

    /// Moves bytes as far as credit goes, tells who has sent everything, and ends what is closed.
    fn pump(&mut self) {
        let keys: Vec<(usize, Conn)> = self.ends.keys().copied().collect();
        for key in keys {
            while self.push(key) {}
            let drained = self.ends.get(&key).is_some_and(|end| end.outgoing.is_empty());
            if !drained {
                continue;
            }
            let end = self.ends.get_mut(&key).expect("it was there a moment ago");
            let (peer, closed) = (end.peer, end.closed);
            let announce = end.unsent && !end.announced && !closed;
            end.announced |= announce;
            if announce && self.flaw != Some(Flaw::LosesSent) {
                self.happens(25, key.0, Event::Sent { conn: key.1 });
                if self.has(Flaw::RepeatsSent) {
                    self.happens(26, key.0, Event::Sent { conn: key.1 });
                }
            }
            let gone = self.ends.get(&peer).is_none_or(|end| end.closed);
            if closed && !gone {
                self.happens(60, peer.0, Event::Closed { conn: peer.1, reason: CloseReason::Ended });
            }
            if closed && self.flaw != Some(Flaw::SpeaksAfterClose) {
                self.ends.remove(&key);
            }
        }
    }

    /// Moves one piece to the other end; the pieces have many sizes. False when there is nothing to move.
    fn push(&mut self, key: (usize, Conn)) -> bool {
        let flaw = self.flaw;
        let Some(peer) = self.ends.get(&key).map(|end| end.peer) else { return false };
        let Some(there) = self.ends.get(&peer) else {
            // Nobody will read it any more.
            self.ends.get_mut(&key).expect("just seen").outgoing.clear();
            return false;
        };
        let credit = match flaw {
            Some(Flaw::IgnoresCredit) => u64::MAX,
            Some(Flaw::KeepsLastCredit) => there.credit.saturating_sub(1),
            _ => there.credit,
        };
        let end = self.ends.get_mut(&key).expect("just seen");
        self.asks += 1;
        let piece = 1 + self.asks * 7_919 % 40_000;
        let len = (end.outgoing.len() as u64).min(credit).min(piece) as usize;
        if len == 0 {
            return false;
        }
        let mut bytes: Vec<u8> = end.outgoing.drain(..len).collect();
        if let Some(there) = self.ends.get_mut(&peer) {
            there.credit = there.credit.saturating_sub(len as u64);
        }
        match flaw {
            Some(Flaw::SwapsBytes) => bytes.rotate_left(len / 2),
            Some(Flaw::DropsBytes) if len > 1 => bytes.truncate(len - 1),
            _ => {}
        }
        self.happens(50, peer.0, Event::Received { conn: peer.1, data: Frame::copy_from(&bytes) });
        true
    }
}
