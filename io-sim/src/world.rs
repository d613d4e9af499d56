//! A world: nodes, what connects them, and the one loop that moves time.

use std::any::Any;
use std::time::Duration;

use kimberlite_io::{Event, Io, Machine, Packet, Place, WriteFault};
use kimberlite_types::limits::{REPLICAS_MAX, SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{Instant, Now, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::agenda::{Agenda, Due};
use crate::asks::Asks;
use crate::atlas::Atlas;
use crate::census::{Census, Fault, FaultInjected, Happening};
use crate::clock::Clock;
use crate::dice::Dice;
use crate::disk::{Geometry, SimDisk};
use crate::ground::Ground;
use crate::network::{Arrival, Network};
use crate::streams::Streams;
use crate::trace::{Line, Pulse, Trace};

/// A node of a world. Replicas come first, `NodeId(i)` being `ReplicaId(i)`; clients follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u16);

/// A machine that can live in a world: every machine whose input is [`Event`].
pub trait Resident<O>: Machine<Input = Event, Output = O> + Any {}

impl<O, M: Machine<Input = Event, Output = O> + Any> Resident<O> for M {}

/// A machine, ready to be started.
pub type Node<O> = Box<dyn Resident<O>>;

/// Nodes a world may have.
const NODES_MAX: u16 = 256;

/// What is still to be done between an answer and the next time a machine gets to run, in nanoseconds: a
/// wake that is overdue comes this much later, so that time always moves.
const TURNAROUND: u64 = 1_000;

/// The sizes of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldOptions {
    /// Replicas, 0 to 6.
    pub replicas: u8,
    /// Clients.
    pub clients: u16,
    /// How many replicas may lose any one piece of data; zero for no damage at all.
    pub tolerated: u8,
    /// Bytes of a piece of the log and the grid.
    pub chunk_size: u64,
    /// Bytes of the superblock zone.
    pub superblock_size: u64,
    /// Bytes of the header zone, formatted with zeros; `None`: it grows like the log.
    pub headers_size: Option<u64>,
    /// Bytes the log grows by.
    pub segment_size: u64,
    /// The unit in which a disk tears a write: 512 or 4,096 bytes.
    pub tear_unit: u32,
}

impl WorldOptions {
    /// A world for `replicas` and `clients` with the small layout and no budget for damage.
    pub const fn new(replicas: u8, clients: u16) -> Self {
        Self {
            replicas,
            clients,
            tolerated: 0,
            chunk_size: Atlas::CHUNK_SIZE,
            superblock_size: (SUPERBLOCK_COPIES * SUPERBLOCK_COPY_SIZE) as u64,
            headers_size: None,
            segment_size: 256 << 10,
            tear_unit: SECTOR_SIZE as u32,
        }
    }
}

/// One thing that happened.
#[derive(Debug)]
pub struct Step<O> {
    /// When, in world time.
    pub at: Instant,
    /// What.
    pub what: StepKind<O>,
}

/// What one step did.
#[derive(Debug)]
pub enum StepKind<O> {
    /// A machine handled an event.
    Delivered {
        /// Which node.
        node: NodeId,
        /// What kind of event.
        event: Happening,
        /// What it told.
        outputs: Vec<O>,
    },
    /// A timer of the policy went off.
    Policy(u64),
}

/// Damage to what lies on a disk now, done where the atlas permits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Damage {
    /// The sector cannot be read until it is rewritten.
    Latent,
    /// This bit of the sector, counted from its start, is flipped until it is rewritten.
    FlipBit(u32),
}

/// What a node holds on to. All zero when a node is idle; anything that grows is a leak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Reads in flight.
    pub reads: usize,
    /// Writes and trims in flight.
    pub changes: usize,
    /// Streams that are open or being opened.
    pub streams: usize,
    /// Bytes queued on streams and not yet sent.
    pub stream_bytes: u64,
    /// Bytes of memory its disk takes.
    pub disk_memory: u64,
}

/// The process of one node, without its machine.
#[derive(Default)]
pub(crate) struct Seat {
    /// Processes that died here so far.
    pub(crate) life: u32,
    /// Whether a process runs here; it may have panicked since.
    up: bool,
    paused: bool,
    /// Whether its present process heard that a write failed.
    write_failed: bool,
    /// What waits for a paused process.
    parked: Vec<Due>,
    /// When the machine wants to be woken, on its own clock.
    wake_at: Option<Instant>,
    /// The world time of the wake on the agenda, and its number.
    armed_at: Option<u64>,
    arming: u32,
}

/// Everything but the machines.
pub(crate) struct Core {
    pub(crate) ground: Ground,
    pub(crate) disks: Vec<SimDisk>,
    pub(crate) network: Network,
    pub(crate) streams: Streams,
    pub(crate) seats: Vec<Seat>,
    clocks: Vec<Clock>,
    clocks_touched: Vec<NodeId>,
    replicas: u16,
}

/// What came of something due.
enum Fired {
    Nothing,
    Policy(u64),
    Deliver(NodeId, Event),
}

impl Core {
    pub(crate) const fn is_replica(&self, node: NodeId) -> bool {
        node.0 < self.replicas
    }

    fn now(&self, node: NodeId) -> Now {
        self.clocks[usize::from(node.0)].now(self.ground.time)
    }

    /// Sees to it that a wake is on the agenda no later than the machine wants it.
    fn arm(&mut self, node: NodeId) {
        let seat = &mut self.seats[usize::from(node.0)];
        let Some(wake_at) = seat.wake_at else { return };
        let earliest = self.ground.time + TURNAROUND;
        let at = self.clocks[usize::from(node.0)].when(wake_at, self.ground.time).max(earliest);
        if seat.armed_at.is_none_or(|armed_at| at < armed_at) {
            seat.arming = seat.arming.wrapping_add(1);
            seat.armed_at = Some(at);
            self.ground.agenda.add(at, Due::Wake { node: node.0, arming: seat.arming });
        }
    }

    /// Counts what the policy did to clocks and arms the wakes anew that it moved.
    fn absorb_clock_changes(&mut self) {
        for node in std::mem::take(&mut self.clocks_touched) {
            for fault in std::mem::take(&mut self.clocks[usize::from(node.0)].done) {
                self.ground.node_fault(node, fault);
            }
            if self.seats[usize::from(node.0)].up {
                self.arm(node);
            }
        }
    }

    /// The node something due is delivered to, if any.
    fn receiver(&self, due: Due) -> Option<NodeId> {
        match due {
            Due::Wake { node, .. } | Due::Disk { node, .. } => Some(NodeId(node)),
            Due::Packet { slot, serial } => self.network.receiver(slot, serial),
            Due::Policy { .. } => None,
            _ => self.streams.receiver(due),
        }
    }

    fn fire(&mut self, due: Due) -> Fired {
        if let Some(node) = self.receiver(due) {
            let seat = &mut self.seats[usize::from(node.0)];
            if seat.paused {
                seat.parked.push(due);
                return Fired::Nothing;
            }
        }
        let Self { ground, disks, network, streams, seats, .. } = self;
        let heard = match due {
            Due::Policy { tag } => {
                ground.trace.policy(ground.time, tag);
                return Fired::Policy(tag);
            }
            Due::Wake { node, arming } => return self.on_wake(NodeId(node), arming),
            Due::Disk { node, op } => {
                let answer = disks[usize::from(node)].complete(ground, op);
                answer.map(|answer| (NodeId(node), event_of(answer)))
            }
            Due::Packet { slot, serial } => match network.arrive(ground, slot, serial) {
                Arrival::Packet { to, life, claim, packet } => {
                    let seat = &seats[usize::from(to.0)];
                    let alive = seat.up && seat.life == life;
                    alive.then_some((to, Event::Message { from: claim, packet }))
                }
                Arrival::Nothing => None,
            },
            Due::Connect { stream } => {
                let target = streams.receiver(due);
                let up = target.is_some_and(|node| seats[usize::from(node.0)].up);
                streams.on_connect(ground, network, stream, up)
            }
            Due::Connected { stream } => streams.on_connected(ground, network, stream),
            Due::Pump { stream, side } => streams.on_pump(ground, network, stream, side),
            Due::Sent { stream, side } => streams.on_sent(stream, side),
            Due::Closed { stream, side, reason } => streams.on_closed(stream, side, reason),
        };
        heard.map_or(Fired::Nothing, |(node, event)| Fired::Deliver(node, event))
    }

    /// A wake is due: delivered if the machine still wants it, moved if it wants it later.
    fn on_wake(&mut self, node: NodeId, arming: u32) -> Fired {
        let now = self.now(node).monotonic;
        let seat = &mut self.seats[usize::from(node.0)];
        if seat.arming != arming || seat.armed_at.is_none() {
            return Fired::Nothing;
        }
        seat.armed_at = None;
        match seat.wake_at {
            Some(wake_at) if wake_at <= now => Fired::Deliver(node, Event::Wake),
            _ => {
                self.arm(node);
                Fired::Nothing
            }
        }
    }
}

fn event_of(answer: crate::disk::Answer) -> Event {
    use crate::disk::Answer;
    match answer {
        Answer::Read(token, result) => Event::Read { token, result },
        Answer::Written(token, result) => Event::Written { token, result },
        Answer::Trimmed(token) => Event::Trimmed { token, result: Ok(()) },
    }
}

/// A world of machines that output `O`.
pub struct World<O> {
    core: Core,
    machines: Vec<Option<Node<O>>>,
    acting: Option<NodeId>,
}

impl<O: 'static> World<O> {
    /// An empty world: every node is down, every disk is blank, everything is healthy.
    pub fn new(options: WorldOptions, mut dice: Dice) -> Self {
        assert!(usize::from(options.replicas) <= REPLICAS_MAX, "a cluster has at most 6 replicas");
        let replicas = u16::from(options.replicas);
        let nodes = replicas.checked_add(options.clients).filter(|nodes| *nodes <= NODES_MAX);
        let nodes = nodes.expect("a world has at most 256 nodes");
        let mut atlas = Atlas::new(options.replicas, options.tolerated, &mut dice);
        atlas.set_chunk_size(options.chunk_size);
        let geometry = Geometry {
            superblock_size: options.superblock_size,
            headers_size: options.headers_size,
            segment_size: options.segment_size,
            tear_unit: options.tear_unit as usize,
        };
        // Monotonic clocks of different nodes have nothing to do with each other.
        let clock = |node: u16| Clock::new(1_000_000_000 * (1 + u64::from(node)));
        let core = Core {
            ground: Ground { time: 0, agenda: Agenda::default(), dice, atlas, trace: Trace::new() },
            disks: (0..nodes).map(|node| SimDisk::new(NodeId(node), geometry)).collect(),
            network: Network::new(replicas, nodes),
            streams: Streams::new(nodes),
            seats: (0..nodes).map(|_| Seat::default()).collect(),
            clocks: (0..nodes).map(clock).collect(),
            clocks_touched: Vec::new(),
            replicas,
        };
        Self { core, machines: (0..nodes).map(|_| None).collect(), acting: None }
    }

    // Time.

    /// The next thing that happens, or nothing when nothing ever will. Time jumps there.
    ///
    /// A machine that panics unwinds through this call. Its node is then down, as [`Self::acting`] tells;
    /// the world may be used on, once that node was given to [`Self::crash`].
    pub fn step(&mut self) -> Option<Step<O>> {
        self.core.absorb_clock_changes();
        loop {
            let (at, due) = self.core.ground.agenda.pop()?;
            assert!(at >= self.core.ground.time, "time goes back");
            self.core.ground.time = at;
            let what = match self.core.fire(due) {
                Fired::Nothing => continue,
                Fired::Policy(tag) => StepKind::Policy(tag),
                Fired::Deliver(node, event) => {
                    if self.machines[usize::from(node.0)].is_none() {
                        continue;
                    }
                    let (event, outputs) = self.deliver(node, event);
                    StepKind::Delivered { node, event, outputs }
                }
            };
            return Some(Step { at: Instant(at), what });
        }
    }

    /// World time: the true one, which no node knows.
    pub const fn time(&self) -> Instant {
        Instant(self.core.ground.time)
    }

    /// When the next thing is due, which may turn out to be nothing.
    pub fn next_at(&self) -> Option<Instant> {
        self.core.ground.agenda.next_at().map(Instant)
    }

    /// What a node's clocks say.
    pub fn now(&self, node: NodeId) -> Now {
        self.core.now(node)
    }

    /// Lets `step` return `Policy(tag)` after a while.
    pub fn schedule(&mut self, after: Duration, tag: u64) {
        let at = Instant(self.core.ground.time).after(after);
        self.core.ground.agenda.add(at.0, Due::Policy { tag });
    }

    /// Things on the agenda.
    pub fn agenda_len(&self) -> usize {
        self.core.ground.agenda.len()
    }

    fn deliver(&mut self, node: NodeId, event: Event) -> (Happening, Vec<O>) {
        let ground = &mut self.core.ground;
        let what = ground.trace.event(ground.time, node, &event);
        if let Event::Written { result: Err(WriteFault::Failed), .. } = event {
            self.core.seats[usize::from(node.0)].write_failed = true;
        }
        let mut outputs = Vec::new();
        self.act(node, |machine, now, io| machine.on(now, event, io, &mut outputs));
        (what, outputs)
    }

    /// Lets a machine run. It is out of its seat meanwhile: if it panics, it is gone.
    fn act<R>(
        &mut self,
        node: NodeId,
        run: impl FnOnce(&mut dyn Resident<O>, Now, &mut dyn Io) -> R,
    ) -> Option<R> {
        let mut machine = self.machines[usize::from(node.0)].take()?;
        let now = self.core.now(node);
        self.acting = Some(node);
        let result = run(&mut *machine, now, &mut Asks::new(&mut self.core, node));
        self.acting = None;
        self.core.seats[usize::from(node.0)].wake_at = machine.wake_at();
        self.core.arm(node);
        self.machines[usize::from(node.0)] = Some(machine);
        Some(result)
    }

    // Processes.

    /// Whether a node's present process heard that a write failed.
    pub fn write_failed(&self, node: NodeId) -> bool {
        self.core.seats[usize::from(node.0)].write_failed
    }

    /// Starts a process: at first, after a crash, or on a wiped disk. It is woken at once.
    pub fn start(&mut self, node: NodeId, machine: Node<O>) {
        let index = usize::from(node.0);
        assert!(!self.core.seats[index].up, "a process runs there already");
        let ground = &mut self.core.ground;
        ground.trace.line(ground.time, node, Happening::Start, Line::default());
        self.machines[index] = Some(machine);
        self.core.seats[index].up = true;
        self.core.seats[index].wake_at = Some(self.core.now(node).monotonic);
        self.core.arm(node);
    }

    /// Ends a process at once, as a power cut would. Also to be called for one that panicked.
    /// Does nothing when there is none.
    pub fn crash(&mut self, node: NodeId) {
        let index = usize::from(node.0);
        if !self.core.seats[index].up {
            return;
        }
        self.machines[index] = None;
        self.acting = self.acting.filter(|acting| *acting != node);
        let Core { ground, disks, network, streams, seats, .. } = &mut self.core;
        ground.trace.line(ground.time, node, Happening::Stop, Line::default());
        ground.node_fault(node, Fault::Crash);
        let seat = &mut seats[index];
        let parked = std::mem::take(&mut seat.parked);
        *seat = Seat { life: seat.life + 1, arming: seat.arming.wrapping_add(1), ..Seat::default() };
        disks[index].crash(ground);
        streams.crash(ground, network, node);
        // What waited for the dead process finds out now that it is gone.
        for due in parked {
            ground.agenda.add(ground.time, due);
        }
    }

    /// Stops a process where it stands: its events wait, its clocks run on.
    pub fn pause(&mut self, node: NodeId) {
        let seat = &mut self.core.seats[usize::from(node.0)];
        if seat.up && !seat.paused {
            seat.paused = true;
            self.core.ground.node_fault(node, Fault::Pause);
        }
    }

    /// Lets a paused process run on.
    pub fn resume(&mut self, node: NodeId) {
        let seat = &mut self.core.seats[usize::from(node.0)];
        seat.paused = false;
        for due in std::mem::take(&mut seat.parked) {
            self.core.ground.agenda.add(self.core.ground.time, due);
        }
    }

    /// Whether a process runs there, paused or not.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.machines[usize::from(node.0)].is_some()
    }

    /// Whether the process is paused.
    pub fn is_paused(&self, node: NodeId) -> bool {
        self.core.seats[usize::from(node.0)].paused
    }

    /// The node whose machine was running when a panic unwound.
    pub const fn acting(&self) -> Option<NodeId> {
        self.acting
    }

    /// A node's machine, for looking at it.
    pub fn machine(&mut self, node: NodeId) -> Option<&mut dyn Resident<O>> {
        self.machines[usize::from(node.0)].as_deref_mut()
    }

    /// A node's machine by its own type, if it is one.
    pub fn inspect<M: Resident<O>>(&self, node: NodeId) -> Option<&M> {
        let machine: &dyn Any = self.machines[usize::from(node.0)].as_deref()?;
        machine.downcast_ref()
    }

    /// Lets `run` work on a node's machine as if the world had called it. Returns what the machine told;
    /// nothing when the node is down.
    pub fn with_machine(
        &mut self,
        node: NodeId,
        run: impl FnOnce(&mut dyn Resident<O>, Now, &mut dyn Io, &mut Vec<O>),
    ) -> Option<Vec<O>> {
        let mut outputs = Vec::new();
        self.act(node, |machine, now, io| run(machine, now, io, &mut outputs))?;
        Some(outputs)
    }

    // Faults on request.

    /// The network: paths, partitions, rates.
    pub const fn network_mut(&mut self) -> &mut Network {
        &mut self.core.network
    }

    /// The network.
    pub const fn network(&self) -> &Network {
        &self.core.network
    }

    /// Puts a packet that nobody sent on its way to a replica.
    pub fn forge(&mut self, to: ReplicaId, claim: ReplicaId, after: Duration, packet: Packet) {
        let Core { ground, network, seats, .. } = &mut self.core;
        let life = seats[usize::from(to.0)].life;
        let delay = Instant::ZERO.after(after).0;
        network.forge(ground, (NodeId(u16::from(to.0)), life), claim, delay, packet);
    }

    /// Sends again what the path between two replicas kept of a class, each packet at some moment `within` that time. See
    /// [`Network::keep`].
    pub fn replay_kept(&mut self, from: NodeId, to: NodeId, class: usize, within: Duration) {
        assert!(self.core.is_replica(from) && self.core.is_replica(to), "only replicas exchange packets");
        let Core { ground, network, seats, .. } = &mut self.core;
        let life = seats[usize::from(to.0)].life;
        network.replay_kept(ground, (from, to), life, class, Instant::ZERO.after(within).0);
    }

    /// Breaks every stream of a node.
    pub fn reset_streams(&mut self, node: NodeId) {
        let Core { ground, network, streams, .. } = &mut self.core;
        streams.reset_all(ground, network, node);
    }

    /// A node's clocks, from this moment on.
    pub fn clock_mut(&mut self, node: NodeId) -> &mut Clock {
        self.core.clocks_touched.push(node);
        let clock = &mut self.core.clocks[usize::from(node.0)];
        clock.settle(self.core.ground.time);
        clock
    }

    /// A node's disk.
    pub fn disk(&self, node: NodeId) -> &SimDisk {
        &self.core.disks[usize::from(node.0)]
    }

    /// A node's disk, to set rates, stall, limit or heal it.
    pub fn disk_mut(&mut self, node: NodeId) -> &mut SimDisk {
        &mut self.core.disks[usize::from(node.0)]
    }

    /// Damages the sector at `place`, if the atlas permits. Tells whether it did.
    pub fn damage(&mut self, node: NodeId, place: Place, damage: Damage) -> bool {
        assert!(place.is_aligned(), "damage is done to a sector");
        let Core { ground, disks, .. } = &mut self.core;
        let disk = &mut disks[usize::from(node.0)];
        match damage {
            Damage::Latent => disk.damage_latent(ground, place),
            Damage::FlipBit(bit) => {
                assert!((bit as usize) < SECTOR_SIZE * 8, "the bit lies in the sector");
                disk.damage_bit(ground, place, bit)
            }
        }
    }

    /// Puts an empty disk into a node that is down. The atlas is not asked; see [`Atlas::lose_replica`].
    pub fn wipe(&mut self, node: NodeId) {
        assert!(!self.core.seats[usize::from(node.0)].up, "a disk is replaced while its node is down");
        self.core.disks[usize::from(node.0)].wipe();
        self.core.ground.node_fault(node, Fault::DiskLost);
    }

    /// The fault budget.
    pub const fn atlas_mut(&mut self) -> &mut Atlas {
        &mut self.core.ground.atlas
    }

    /// The luck of this world, for the policy's own draws.
    pub const fn dice_mut(&mut self) -> &mut Dice {
        &mut self.core.ground.dice
    }

    /// The luck of this world.
    pub const fn dice(&self) -> &Dice {
        &self.core.ground.dice
    }

    // What happened.

    /// Faults that took effect since this was last asked: the first few thousand; the census has all.
    pub fn take_faults(&mut self) -> Vec<FaultInjected> {
        self.core.ground.trace.take_faults()
    }

    /// A digest of everything that was delivered and asked so far.
    pub fn digest(&self) -> [u8; 32] {
        self.core.ground.trace.digest()
    }

    /// The sum over everything so far, before and after the latest thing was handled.
    pub const fn pulse(&self) -> Pulse {
        self.core.ground.trace.pulse
    }

    /// Counts of everything that happened so far.
    pub const fn census(&self) -> &Census {
        &self.core.ground.trace.census
    }

    /// What a node holds on to.
    pub fn resources(&self, node: NodeId) -> Resources {
        let disk = self.disk(node);
        let (reads, changes) = disk.in_flight();
        let (streams, stream_bytes) = self.core.streams.held(node);
        Resources { reads, changes, streams, stream_bytes, disk_memory: disk.memory() }
    }
}
