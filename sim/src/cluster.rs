//! A cluster in a world: shipped nodes, shipped clients, and what it takes to start and stop them.

use std::any::Any;

use kimberlite_client::{Client, ClientOptions};
use kimberlite_io::{CrashAt, Event, Io, Machine, Place, Zone};
use kimberlite_io_sim::{Concern, Dice, NodeId, Resources, World};
use kimberlite_runtime::{Node, Note};
use kimberlite_storage::{FormatInput, FormatOutput, Formatter};
use kimberlite_types::{Instant, Now, ReplicaId};

use crate::config::{CLUSTER, Family, RunConfig, SECRET};
use crate::plots::is_worth_keeping;

/// What the machines of a run tell.
#[derive(Debug)]
pub(crate) enum Told {
    Node(Note),
    Client(kimberlite_client::Output),
    Formatter(FormatOutput),
}

/// A replica's process.
struct Server {
    node: Node,
    notes: Vec<Note>,
    /// What it asks is counted, and cut short, if so.
    power: Option<CrashAt>,
}

impl Machine for Server {
    type Input = Event;
    type Output = Told;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Told>) {
        match &mut self.power {
            None => self.node.on(now, event, io, &mut self.notes),
            Some(power) => self.node.on(now, event, &mut power.wrap(io), &mut self.notes),
        }
        out.extend(self.notes.drain(..).map(Told::Node));
    }

    fn wake_at(&self) -> Option<Instant> {
        self.node.wake_at()
    }
}

/// A client's process.
struct User {
    client: Client,
    said: Vec<kimberlite_client::Output>,
}

impl User {
    fn take(&mut self, now: Now, input: kimberlite_client::Input, io: &mut dyn Io, out: &mut Vec<Told>) {
        self.client.on(now, input, io, &mut self.said);
        out.extend(self.said.drain(..).map(Told::Client));
    }
}

impl Machine for User {
    type Input = Event;
    type Output = Told;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Told>) {
        self.take(now, kimberlite_client::Input::Event(event), io, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.client.wake_at()
    }
}

/// The process that prepares an empty disk.
struct Formatting {
    formatter: Formatter,
    started: bool,
    said: Vec<FormatOutput>,
}

impl Machine for Formatting {
    type Input = Event;
    type Output = Told;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Told>) {
        let input = if self.started { FormatInput::Event(event) } else { FormatInput::Start };
        self.started = true;
        self.formatter.on(now, input, io, &mut self.said);
        out.extend(self.said.drain(..).map(Told::Formatter));
    }

    fn wake_at(&self) -> Option<Instant> {
        self.formatter.wake_at()
    }
}

/// Bytes of the log that a plan without damage to the log puts off limits: more than a run writes.
const LOG_PROTECTED: u64 = 128 << 20;

/// Replicas and clients of one run, and the world they live in.
pub(crate) struct Cluster {
    pub(crate) world: World<Told>,
    replicas: u8,
    config: RunConfig,
    /// Processes started so far, by node: each life gets a seed of its own.
    lives: Vec<u32>,
    /// By replica, while it is down: how its asks are counted in the next life, if they are.
    power: Vec<Option<CrashAt>>,
}

impl Cluster {
    /// A cluster whose disks are formatted and whose processes are down. Faults are not configured yet.
    pub(crate) fn new(config: &RunConfig, dice: Dice) -> Self {
        let mut cluster = Self {
            world: World::new(config.world(), dice),
            replicas: config.replicas,
            lives: vec![0; usize::from(config.replicas) + usize::from(config.clients())],
            power: vec![None; usize::from(config.replicas)],
            config: config.clone(),
        };
        for replica in 0..config.replicas {
            cluster.format(ReplicaId(replica));
        }
        cluster
    }

    /// The node a replica lives on.
    pub(crate) const fn node_of(replica: ReplicaId) -> NodeId {
        NodeId(replica.0 as u16)
    }

    /// The node a client lives on.
    pub(crate) fn client_node(&self, client: u16) -> NodeId {
        NodeId(u16::from(self.replicas) + client)
    }

    /// The replica on a node, if one lives there.
    pub(crate) fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        (node.0 < u16::from(self.replicas)).then_some(ReplicaId(node.0 as u8))
    }

    /// The client on a node, if one lives there.
    pub(crate) fn client_on(&self, node: NodeId) -> Option<u16> {
        node.0.checked_sub(u16::from(self.replicas))
    }

    pub(crate) fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.replicas).map(ReplicaId)
    }

    /// All nodes: replicas first.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.lives.len() as u16).map(NodeId)
    }

    fn format(&mut self, replica: ReplicaId) {
        let node = Self::node_of(replica);
        let formatter = Formatter::new(self.config.config(replica));
        self.world.start(node, Box::new(Formatting { formatter, started: false, said: Vec::new() }));
        'formatting: loop {
            let step = self.world.step().expect("a disk that is being formatted answers");
            let kimberlite_io_sim::StepKind::Delivered { outputs, .. } = step.what else { continue };
            for told in outputs {
                let Told::Formatter(said) = told else { continue };
                assert!(said == FormatOutput::Done, "a healthy empty disk is formatted: {said:?}");
                break 'formatting;
            }
        }
        // The process ends; a crash is how a world ends one, and nothing is in flight that it could tear.
        self.world.crash(node);
    }

    /// Sets what breaks by rate, and what may be damaged.
    pub(crate) fn configure_faults(&mut self) {
        let faults = &self.config.faults;
        self.world.network_mut().set_replica_links(faults.replica_link);
        self.world.network_mut().set_client_links(faults.client_link);
        for replica in self.replicas() {
            self.world.disk_mut(Self::node_of(replica)).rates = faults.disk;
        }
        if !faults.plots.is_empty() {
            self.world.network_mut().keep(is_worth_keeping);
        }
        let atlas = self.world.atlas_mut();
        if faults.damage_headers && faults.damage_log {
            // A ring slot and the prepare it names are one piece: lost here and there, they are two copies lost.
            atlas.couple();
        }
        if faults.families.contains_key(&Family::Grid) {
            atlas.free_grid();
        }
        if !faults.damage_headers {
            atlas.protect(Place::headers(0), self.config.layout.ring_size());
        }
        if !faults.damage_log {
            atlas.protect(Place::log(0), LOG_PROTECTED);
        }
        if !faults.damage_superblock {
            // Taking the permission back draws nothing, so the dice are lent a stream of their own.
            atlas.allow_superblock(false, &mut Dice::free(0));
        }
    }

    fn machine_seed(&mut self, node: NodeId) -> u64 {
        self.lives[usize::from(node.0)] += 1;
        self.world.dice_mut().word(Concern::Machine, u64::from(node.0))
    }

    pub(crate) fn start_replica(&mut self, replica: ReplicaId) {
        let node = Self::node_of(replica);
        let seed = self.machine_seed(node);
        let server = Server {
            node: Node::new(self.config.config(replica), &SECRET, seed),
            notes: Vec::new(),
            power: self.power[usize::from(replica.0)],
        };
        self.world.start(node, Box::new(server));
    }

    pub(crate) fn crash_replica(&mut self, replica: ReplicaId) {
        self.power[usize::from(replica.0)] = self.power(replica);
        self.world.crash(Self::node_of(replica));
    }

    /// Counts what a replica that is down asks from its next life on.
    pub(crate) fn count_asks(&mut self, replica: ReplicaId, power: CrashAt) {
        self.power[usize::from(replica.0)] = Some(power);
    }

    fn power(&self, replica: ReplicaId) -> Option<CrashAt> {
        match self.world.inspect::<Server>(Self::node_of(replica)) {
            Some(server) => server.power,
            None => self.power[usize::from(replica.0)],
        }
    }

    /// How often a replica asked for something, if that is counted.
    pub(crate) fn asked(&self, replica: ReplicaId) -> u64 {
        self.power(replica).map_or(0, |power| power.asked())
    }

    /// Whether a replica's power went out in the call that has just returned.
    pub(crate) fn is_cut(&self, replica: ReplicaId) -> bool {
        self.power(replica).is_some_and(|power| power.is_cut())
    }

    pub(crate) fn start_client(&mut self, client: u16) {
        let node = self.client_node(client);
        let seed = self.machine_seed(node);
        let view_change = self.config.timing.view_change;
        let work = &self.config.work;
        let patience = if client + work.readers >= work.clients && client < work.clients {
            work.patience_reading
        } else {
            work.patience
        };
        let options = ClientOptions {
            request_timeout: view_change * patience,
            connect_timeout: view_change,
            backoff_min: view_change / 16,
            backoff_max: view_change * 2,
            give_up_after: work.give_up,
            ..ClientOptions::new(CLUSTER, self.replicas, seed)
        };
        let user = User { client: Client::new(options), said: Vec::new() };
        self.world.start(node, Box::new(user));
    }

    /// Hands a request to a client. Returns what it says at once; nothing when it is down.
    pub(crate) fn ask(&mut self, client: u16, input: kimberlite_client::Input) -> Option<Vec<Told>> {
        let node = self.client_node(client);
        self.world.with_machine(node, |machine, now, io, out| {
            let machine: &mut dyn Any = machine;
            let user: &mut User = machine.downcast_mut().expect("a client lives on a client's node");
            user.take(now, input, io, out);
        })
    }

    /// The node of a replica that is up.
    pub(crate) fn node(&self, replica: ReplicaId) -> Option<&Node> {
        self.world.inspect::<Server>(Self::node_of(replica)).map(|server| &server.node)
    }

    /// What the world holds for each replica.
    pub(crate) fn held(&self) -> Vec<Resources> {
        self.replicas().map(|replica| self.world.resources(Self::node_of(replica))).collect()
    }

    /// The working primary of the newest view, if there is one.
    pub(crate) fn primary(&self) -> Option<ReplicaId> {
        self.replicas()
            .filter_map(|replica| self.node(replica).map(|node| (replica, node.replica())))
            .filter(|(_, vsr)| vsr.is_primary())
            .max_by_key(|(_, vsr)| vsr.view())
            .map(|(replica, _)| replica)
    }

    /// A disk as a power cut would leave it, without injected damage.
    pub(crate) fn pristine(&self, replica: ReplicaId, zone: Zone, offset: u64, len: usize) -> Vec<u8> {
        self.world.disk(Self::node_of(replica)).peek_pristine(zone, offset, len)
    }

    /// A disk as its replica would read it, if no sector of it is beyond reading.
    pub(crate) fn seen(&self, replica: ReplicaId, zone: Zone, offset: u64, len: usize) -> Option<Vec<u8>> {
        let disk = self.world.disk(Self::node_of(replica));
        (!disk.is_unreadable(zone, offset, len)).then(|| disk.peek(zone, offset, len))
    }
}
