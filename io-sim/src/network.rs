//! The network: one directed path per pair of nodes. Packets travel here; streams ask it for delays.

use std::collections::VecDeque;

use kimberlite_io::{Buf, Frame, Packet};
use kimberlite_types::limits::{FRAME_HEADER_SIZE, LINK_QUEUE_MAX};
use kimberlite_types::{Instant, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::NodeId;
use crate::agenda::Due;
use crate::census::Fault;
use crate::dice::Concern;
use crate::ground::Ground;

/// How one directed path behaves. Times in nanoseconds, rates in parts of 1,000,000 packets or chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The shortest delay.
    pub delay_min: u64,
    /// The mean of what is added to it, exponentially distributed.
    pub delay_mean: u64,
    /// A packet takes `tail_factor` times as long.
    pub tail_ppm: u32,
    /// How much longer such a packet takes.
    pub tail_factor: u32,
    /// Bytes per second; zero for no limit.
    pub bandwidth: u64,
    /// Packets under way before an arbitrary one is dropped for the next.
    pub capacity: u32,
    /// A packet is lost.
    pub loss_ppm: u32,
    /// A packet is delivered twice.
    pub duplicate_ppm: u32,
    /// A recent packet is delivered again beside the one sent.
    pub replay_ppm: u32,
    /// A bit of a packet is flipped.
    pub corrupt_ppm: u32,
    /// A stream stands still before a chunk.
    pub stall_ppm: u32,
    /// How long, on average.
    pub stall_mean: u64,
    /// A stream is reset before a chunk.
    pub reset_ppm: u32,
    /// A chunk of a stream is cut at an arbitrary byte.
    pub cut_ppm: u32,
    /// A bit of a chunk of a stream is flipped.
    pub stream_corrupt_ppm: u32,
}

impl Link {
    /// A local network without faults: 0.1 ms and more, 0.4 ms on average. Streams are cut often, since
    /// every network does that.
    pub const HEALTHY: Self = Self {
        delay_min: 100_000,
        delay_mean: 300_000,
        tail_ppm: 0,
        tail_factor: 1,
        bandwidth: 0,
        capacity: LINK_QUEUE_MAX as u32,
        loss_ppm: 0,
        duplicate_ppm: 0,
        replay_ppm: 0,
        corrupt_ppm: 0,
        stall_ppm: 0,
        stall_mean: 0,
        reset_ppm: 0,
        cut_ppm: 200_000,
        stream_corrupt_ppm: 0,
    };
}

impl Default for Link {
    fn default() -> Self {
        Self::HEALTHY
    }
}

/// Packets a path remembers, to replay them.
const MEMORY: usize = 4;

/// Packets of each class that a path keeps for whoever wants to send them again ([`Network::keep`]).
const KEPT: usize = 6;

/// Classes of packets that may be kept.
const CLASSES: usize = 3;

/// Tells the class of a packet, if it has any: below 3.
pub type Keeper = fn(&Packet) -> Option<usize>;

/// One directed path.
#[derive(Debug)]
struct Path {
    link: Link,
    up: bool,
    clogged_until: u64,
    busy_until: u64,
    /// Send number of the latest packet that arrived, to see when one is overtaken.
    arrived: u64,
    under_way: Vec<u32>,
    recent: VecDeque<Packet>,
    /// What somebody on the way keeps, by class, the oldest first.
    kept: [VecDeque<Packet>; CLASSES],
    /// Of 1,000,000 packets of each class, how many are lost.
    thin_ppm: [u32; CLASSES],
}

/// A packet under way.
struct Flight {
    from: NodeId,
    to: NodeId,
    /// The claimed sender.
    claim: ReplicaId,
    /// The life of the receiver it was sent to: a link does not survive its process.
    life: u32,
    number: u64,
    packet: Packet,
}

/// The slot of a flight. The serial tells a flight from an earlier one in the same slot.
#[derive(Default)]
struct Slot {
    serial: u32,
    flight: Option<Flight>,
}

/// The questions a path asks its dice, one lane each.
#[derive(Clone, Copy)]
enum Question {
    Loss,
    Delay,
    Tail,
    Duplicate,
    Replay,
    Corrupt,
    Detail,
    Evict,
}

/// All paths.
pub struct Network {
    replicas: u16,
    nodes: u16,
    paths: Vec<Path>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    sent: u64,
    keeper: Option<Keeper>,
}

/// What became of a packet that was due.
pub(crate) enum Arrival {
    Nothing,
    Packet { to: NodeId, life: u32, claim: ReplicaId, packet: Packet },
}

impl Network {
    pub(crate) fn new(replicas: u16, nodes: u16) -> Self {
        let path = || Path {
            link: Link::HEALTHY,
            up: true,
            clogged_until: 0,
            busy_until: 0,
            arrived: 0,
            under_way: Vec::new(),
            recent: VecDeque::new(),
            kept: [const { VecDeque::new() }; CLASSES],
            thin_ppm: [0; CLASSES],
        };
        let paths = (0..usize::from(nodes) * usize::from(nodes)).map(|_| path()).collect();
        Self { replicas, nodes, paths, slots: Vec::new(), free: Vec::new(), sent: 0, keeper: None }
    }

    fn index(&self, from: NodeId, to: NodeId) -> usize {
        assert!(from.0 < self.nodes && to.0 < self.nodes, "no such node");
        usize::from(from.0) * usize::from(self.nodes) + usize::from(to.0)
    }

    fn path(&self, from: NodeId, to: NodeId) -> &Path {
        &self.paths[self.index(from, to)]
    }

    fn path_mut(&mut self, from: NodeId, to: NodeId) -> &mut Path {
        let index = self.index(from, to);
        &mut self.paths[index]
    }

    /// How the path behaves.
    pub fn link(&self, from: NodeId, to: NodeId) -> &Link {
        &self.path(from, to).link
    }

    /// Changes how the path behaves from now on.
    pub fn link_mut(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        &mut self.path_mut(from, to).link
    }

    /// Sets all paths between replicas.
    pub fn set_replica_links(&mut self, link: Link) {
        self.each_path(|from, to, path, replicas| {
            if from < replicas && to < replicas {
                path.link = link;
            }
        });
    }

    /// Sets all paths between clients and replicas.
    pub fn set_client_links(&mut self, link: Link) {
        self.each_path(|from, to, path, replicas| {
            if from >= replicas || to >= replicas {
                path.link = link;
            }
        });
    }

    fn each_path(&mut self, mut change: impl FnMut(u16, u16, &mut Path, u16)) {
        let (nodes, replicas) = (self.nodes, self.replicas);
        for from in 0..nodes {
            for to in 0..nodes {
                let index = self.index(NodeId(from), NodeId(to));
                change(from, to, &mut self.paths[index], replicas);
            }
        }
    }

    /// Whether the path lets anything through.
    pub fn is_up(&self, from: NodeId, to: NodeId) -> bool {
        self.path(from, to).up
    }

    /// Blocks or opens one direction.
    pub fn set_up(&mut self, from: NodeId, to: NodeId, up: bool) {
        self.path_mut(from, to).up = up;
    }

    /// Blocks every path from a node of `from` to a node of `to`. Twice, swapped, for a symmetric partition.
    pub fn block(&mut self, from: &[NodeId], to: &[NodeId]) {
        for a in from {
            for b in to.iter().filter(|b| *b != a) {
                self.set_up(*a, *b, false);
            }
        }
    }

    /// Opens and unclogs every path from a node of `from` to a node of `to`.
    pub fn open(&mut self, from: &[NodeId], to: &[NodeId]) {
        for a in from {
            for b in to.iter().filter(|b| *b != a) {
                let path = self.path_mut(*a, *b);
                path.up = true;
                path.clogged_until = 0;
            }
        }
    }

    /// Blocks every path to and from one node.
    pub fn isolate(&mut self, node: NodeId) {
        for other in (0..self.nodes).map(NodeId).filter(|other| *other != node) {
            self.set_up(node, other, false);
            self.set_up(other, node, false);
        }
    }

    /// Holds back everything on the path until then.
    pub fn clog(&mut self, from: NodeId, to: NodeId, until: Instant) {
        self.path_mut(from, to).clogged_until = until.0;
    }

    /// Opens and unclogs every path. Rates stay; set them with the links.
    pub fn heal(&mut self) {
        self.each_path(|_, _, path, _| {
            path.up = true;
            path.clogged_until = 0;
            path.thin_ppm = [0; CLASSES];
        });
    }

    /// Lets every path keep the last few packets of each class that `keeper` names, whatever becomes of them otherwise.
    pub fn keep(&mut self, keeper: Keeper) {
        self.keeper = Some(keeper);
    }

    /// Lets a path lose packets of one class, in parts of 1,000,000, as one loses large ones that has room for small ones only.
    /// Ends with [`Self::heal`].
    pub fn thin(&mut self, from: NodeId, to: NodeId, class: usize, ppm: u32) {
        self.path_mut(from, to).thin_ppm[class] = ppm;
    }

    /// Packets under way.
    pub fn packets_under_way(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// World time until which the path is clogged.
    pub(crate) fn clogged_until(&self, from: NodeId, to: NodeId) -> u64 {
        self.path(from, to).clogged_until
    }

    fn lane(&self, from: NodeId, to: NodeId, question: Question) -> u64 {
        self.index(from, to) as u64 * 8 + question as u64
    }

    /// The lane of a stream's question.
    pub(crate) fn stream_lane(&self, from: NodeId, to: NodeId, question: crate::streams::Question) -> u64 {
        self.index(from, to) as u64 * 8 + question as u64
    }

    /// The delay of one packet or chunk of `len` bytes, in nanoseconds; takes up the path's bandwidth.
    pub(crate) fn delay(
        &mut self,
        ground: &mut Ground,
        concern: Concern,
        from: NodeId,
        to: NodeId,
        len: usize,
    ) -> u64 {
        let link = *self.link(from, to);
        let drawn = ground.dice.exponential(concern, self.lane(from, to, Question::Delay), link.delay_mean);
        let mut delay = link.delay_min + drawn;
        if ground.dice.chance_ppm(concern, self.lane(from, to, Question::Tail), link.tail_ppm) {
            delay = delay.saturating_mul(u64::from(link.tail_factor));
            ground.path_fault(from, to, Fault::PacketDelayed);
        }
        if link.bandwidth == 0 {
            return delay;
        }
        let transfer = (u128::from(len as u64) * 1_000_000_000 / u128::from(link.bandwidth)) as u64;
        let path = self.path_mut(from, to);
        path.busy_until = path.busy_until.max(ground.time) + transfer;
        path.busy_until - ground.time + delay
    }

    /// Puts a packet on its way. All questions are asked for every packet, in their own lanes, so that a
    /// fault on one never changes the luck of the next.
    pub(crate) fn send(
        &mut self,
        ground: &mut Ground,
        from: NodeId,
        to: NodeId,
        life: u32,
        mut packet: Packet,
    ) {
        packet.body = as_received(packet.body);
        let link = *self.link(from, to);
        let ask = |ground: &mut Ground, lane, ppm| ground.dice.chance_ppm(Concern::Network, lane, ppm);
        let lost = ask(ground, self.lane(from, to, Question::Loss), link.loss_ppm);
        let corrupt = ask(ground, self.lane(from, to, Question::Corrupt), link.corrupt_ppm);
        let duplicate = ask(ground, self.lane(from, to, Question::Duplicate), link.duplicate_ppm);
        let replay = ask(ground, self.lane(from, to, Question::Replay), link.replay_ppm);
        let len = FRAME_HEADER_SIZE + packet.body.len();
        let delay = self.delay(ground, Concern::Network, from, to, len);
        if !self.is_up(from, to) {
            ground.path_fault(from, to, Fault::PathBlocked);
            return;
        }
        if let Some(class) = self.keeper.and_then(|keeper| keeper(&packet)) {
            let kept = &mut self.path_mut(from, to).kept[class];
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(packet.clone());
            let thin = self.path(from, to).thin_ppm[class];
            if thin > 0 && ask(ground, self.lane(from, to, Question::Detail), thin) {
                ground.path_fault(from, to, Fault::PacketLost);
                return;
            }
        }
        let claim = ReplicaId(from.0 as u8);
        let detail = self.lane(from, to, Question::Detail);
        if replay {
            let recent = &self.path(from, to).recent;
            if !recent.is_empty() {
                let old = recent[ground.dice.index(Concern::Network, detail, recent.len())].clone();
                ground.path_fault(from, to, Fault::PacketReplayed);
                let late = ground.dice.exponential(Concern::Network, detail, 10 * link.delay_mean);
                self.launch(ground, late, Flight { from, to, claim, life, number: 0, packet: old });
            }
        }
        if link.replay_ppm > 0 {
            let recent = &mut self.path_mut(from, to).recent;
            if recent.len() == MEMORY {
                recent.pop_front();
            }
            recent.push_back(packet.clone());
        }
        if lost {
            ground.path_fault(from, to, Fault::PacketLost);
            return;
        }
        if duplicate {
            ground.path_fault(from, to, Fault::PacketDuplicated);
            let late = delay + ground.dice.exponential(Concern::Network, detail, link.delay_mean);
            let packet = packet.clone();
            self.launch(ground, late, Flight { from, to, claim, life, number: 0, packet });
        }
        let packet = if corrupt { self.corrupt(ground, from, to, packet) } else { packet };
        self.sent += 1;
        let number = self.sent;
        self.launch(ground, delay, Flight { from, to, claim, life, number, packet });
    }

    /// Sends all of a class again that a path kept, each at some moment `within` nanoseconds.
    pub(crate) fn replay_kept(
        &mut self,
        ground: &mut Ground,
        (from, to): (NodeId, NodeId),
        life: u32,
        class: usize,
        within: u64,
    ) {
        let lane = self.lane(from, to, Question::Detail);
        let kept: Vec<Packet> = self.path(from, to).kept[class].iter().cloned().collect();
        for packet in kept {
            let late = 1 + ground.dice.draw(Concern::Network, lane, within.max(1));
            ground.path_fault(from, to, Fault::PacketReplayed);
            let claim = ReplicaId(from.0 as u8);
            self.launch(ground, late, Flight { from, to, claim, life, number: 0, packet });
        }
    }

    /// Puts a packet that no node sent on its way, as if `claim` had.
    pub(crate) fn forge(
        &mut self,
        ground: &mut Ground,
        (to, life): (NodeId, u32),
        claim: ReplicaId,
        delay: u64,
        mut packet: Packet,
    ) {
        packet.body = as_received(packet.body);
        let from = NodeId(u16::from(claim.0).min(self.nodes - 1));
        ground.path_fault(from, to, Fault::PacketForged);
        self.launch(ground, delay, Flight { from, to, claim, life, number: 0, packet });
    }

    fn corrupt(&self, ground: &mut Ground, from: NodeId, to: NodeId, mut packet: Packet) -> Packet {
        let lane = self.lane(from, to, Question::Detail);
        let head_bits = FRAME_HEADER_SIZE as u64 * 8;
        let in_body = !packet.body.is_empty() && ground.dice.draw(Concern::Network, lane, 2) == 1;
        if in_body {
            let bit = ground.dice.index(Concern::Network, lane, packet.body.len() * 8);
            packet.body = flip(&packet.body, bit);
            ground.path_fault(from, to, Fault::PacketBodyCorrupted);
        } else {
            let bit = ground.dice.draw(Concern::Network, lane, head_bits) as usize;
            packet.head[bit / 8] ^= 1 << (bit % 8);
            ground.path_fault(from, to, Fault::PacketHeadCorrupted);
        }
        packet
    }

    fn launch(&mut self, ground: &mut Ground, delay: u64, flight: Flight) {
        let (from, to) = (flight.from, flight.to);
        let path = self.path(from, to);
        if path.under_way.len() >= path.link.capacity.max(1) as usize {
            let lane = self.lane(from, to, Question::Evict);
            let victim = ground.dice.index(Concern::Network, lane, self.path(from, to).under_way.len());
            let slot = self.path(from, to).under_way[victim];
            ground.path_fault(from, to, Fault::PacketEvicted);
            self.land(slot);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("packets under way are few")
        });
        let entry = &mut self.slots[slot as usize];
        entry.serial = entry.serial.wrapping_add(1);
        entry.flight = Some(flight);
        let serial = entry.serial;
        self.path_mut(from, to).under_way.push(slot);
        ground.agenda.add(ground.time + delay, Due::Packet { slot, serial });
    }

    /// Takes a packet off its path.
    fn land(&mut self, slot: u32) -> Flight {
        let flight = self.slots[slot as usize].flight.take().expect("a slot on a path holds a packet");
        self.free.push(slot);
        let under_way = &mut self.path_mut(flight.from, flight.to).under_way;
        let at = under_way.iter().position(|one| *one == slot).expect("a packet is on its path");
        under_way.swap_remove(at);
        flight
    }

    /// Where a packet that is still under way goes.
    pub(crate) fn receiver(&self, slot: u32, serial: u32) -> Option<NodeId> {
        let entry = &self.slots[slot as usize];
        entry.flight.as_ref().filter(|_| entry.serial == serial).map(|flight| flight.to)
    }

    /// A packet is due: it arrives, waits on, or vanishes.
    pub(crate) fn arrive(&mut self, ground: &mut Ground, slot: u32, serial: u32) -> Arrival {
        let entry = &self.slots[slot as usize];
        let Some(flight) = entry.flight.as_ref().filter(|_| entry.serial == serial) else {
            return Arrival::Nothing;
        };
        let (from, to) = (flight.from, flight.to);
        let path = self.path(from, to);
        if path.clogged_until > ground.time {
            ground.path_fault(from, to, Fault::PathClogged);
            ground.agenda.add(path.clogged_until, Due::Packet { slot, serial });
            return Arrival::Nothing;
        }
        let up = path.up;
        let flight = self.land(slot);
        if !up {
            ground.path_fault(from, to, Fault::PathBlocked);
            return Arrival::Nothing;
        }
        let path = self.path_mut(from, to);
        if flight.number != 0 && flight.number < path.arrived {
            ground.path_fault(from, to, Fault::PacketReordered);
        }
        path.arrived = path.arrived.max(flight.number);
        Arrival::Packet { to, life: flight.life, claim: flight.claim, packet: flight.packet }
    }
}

/// A body as it lies in the receiver's memory: aligned and padded with zeros, as real ones are that were
/// received into a fresh buffer. One that lies so already is shared.
fn as_received(body: Frame) -> Frame {
    let lies_so = body.is_aligned() && body.padded()[body.len()..].iter().all(|byte| *byte == 0);
    if lies_so { body } else { Frame::copy_from(&body) }
}

/// A copy of `bytes` with one bit flipped.
pub(crate) fn flip(bytes: &Frame, bit: usize) -> Frame {
    let mut buf = Buf::copy_from(bytes);
    buf[bit / 8] ^= 1 << (bit % 8);
    buf.freeze()
}
