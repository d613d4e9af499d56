//! A machine that does what it is told and remembers what it heard.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::time::Duration;

use kimberlite_io::{
    Address, Buf, Conn, Event, Frame, Io, Machine, Packet, Place, ReadFault, Token, WriteFault,
};
use kimberlite_io_sim::{DecisionLog, Dice, NodeId, StepKind, World, WorldOptions};
use kimberlite_types::limits::{FRAME_HEADER_SIZE, SECTOR_SIZE};
use kimberlite_types::{Instant, Now, ReplicaId};

pub(crate) const SECTOR: u64 = SECTOR_SIZE as u64;

/// Remembers every event. Wakes only when told.
#[derive(Default)]
pub(crate) struct Scribe {
    pub(crate) heard: Vec<(Now, Event)>,
    pub(crate) wake_at: Option<Instant>,
    /// Grants every received byte again.
    pub(crate) grants: bool,
    /// Panics at the next event.
    pub(crate) panics: bool,
}

impl Machine for Scribe {
    type Input = Event;
    type Output = u64;

    fn on(&mut self, now: Now, input: Event, io: &mut dyn Io, out: &mut Vec<u64>) {
        assert!(!self.panics, "told to panic");
        if self.wake_at.is_some_and(|wake_at| wake_at <= now.monotonic) {
            self.wake_at = None;
        }
        if let (true, Event::Received { conn, data }) = (self.grants, &input) {
            io.grant(*conn, data.len() as u32);
        }
        self.heard.push((now, input));
        out.push(self.heard.len() as u64);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }
}

/// Sends every message back, and a new one with every wake; writes and reads its disk in between.
pub(crate) struct Echo {
    pub(crate) me: u8,
    pub(crate) replicas: u8,
    pub(crate) every: Duration,
    pub(crate) wake_at: Instant,
    pub(crate) round: u64,
    pub(crate) pending: bool,
    pub(crate) body: usize,
}

impl Echo {
    pub(crate) fn new(me: u8, replicas: u8) -> Self {
        let every = Duration::from_millis(3);
        Self { me, replicas, every, wake_at: Instant::ZERO, round: 0, pending: false, body: 256 }
    }
}

impl Machine for Echo {
    type Input = Event;
    type Output = u64;

    fn on(&mut self, now: Now, input: Event, io: &mut dyn Io, out: &mut Vec<u64>) {
        match input {
            Event::Wake if now.monotonic >= self.wake_at => {
                self.round += 1;
                for to in (0..self.replicas).filter(|to| *to != self.me) {
                    io.send(ReplicaId(to), packet(self.round as u8, self.body));
                }
                if !self.pending {
                    self.pending = true;
                    let place = Place::log(self.round % 64 * 2 * SECTOR);
                    io.write(
                        Token(self.round),
                        place,
                        Frame::copy_from(&[self.round as u8; 2 * SECTOR_SIZE]),
                    );
                }
                self.wake_at = now.monotonic.after(self.every);
            }
            Event::Message { from, packet } if packet.head[0] != 0 && from.0 < self.replicas => {
                let mut answer = packet;
                answer.head[0] = 0;
                io.send(from, answer);
            }
            Event::Written { token, result } => {
                let place = Place::log(token.0 % 64 * 2 * SECTOR);
                match result {
                    Ok(()) => io.read(token, place, Buf::zeroed(2 * SECTOR_SIZE)),
                    Err(_) => self.pending = false,
                }
            }
            Event::Read { token, .. } => {
                self.pending = false;
                out.push(token.0);
            }
            _ => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        Some(self.wake_at)
    }
}

pub(crate) fn packet(byte: u8, body: usize) -> Packet {
    let mut head = [0; FRAME_HEADER_SIZE];
    head[0] = byte | 1;
    Packet { head, body: Frame::copy_from(&vec![byte; body]) }
}

pub(crate) fn node(index: u16) -> NodeId {
    NodeId(index)
}

/// A world of scribes, all started, their first wakes heard.
pub(crate) fn scribes(options: WorldOptions, seed: u64) -> World<u64> {
    let mut world = World::new(options, Dice::free(seed));
    for index in 0..u16::from(options.replicas) + options.clients {
        world.start(node(index), Box::new(Scribe::default()));
    }
    settle(&mut world);
    for index in 0..u16::from(options.replicas) + options.clients {
        take(&mut world, node(index));
    }
    world
}

/// A world of echoes, all started.
pub(crate) fn echoes(options: WorldOptions, dice: Dice) -> World<u64> {
    let mut world = World::new(options, dice);
    for index in 0..options.replicas {
        world.start(node(u16::from(index)), Box::new(Echo::new(index, options.replicas)));
    }
    world
}

/// Runs until nothing is left to happen.
pub(crate) fn settle(world: &mut World<u64>) {
    while world.step().is_some() {}
}

/// Runs for a while of virtual time.
pub(crate) fn run_for(world: &mut World<u64>, time: Duration) {
    world.schedule(time, u64::MAX);
    while let Some(step) = world.step() {
        if matches!(step.what, StepKind::Policy(u64::MAX)) {
            return;
        }
    }
}

pub(crate) fn scribe(world: &mut World<u64>, node: NodeId) -> &mut Scribe {
    let machine: &mut dyn std::any::Any = world.machine(node).expect("the node is up");
    machine.downcast_mut().expect("a scribe lives there")
}

/// What a scribe heard since this was last asked.
pub(crate) fn take(world: &mut World<u64>, node: NodeId) -> Vec<Event> {
    std::mem::take(&mut scribe(world, node).heard).into_iter().map(|(_, event)| event).collect()
}

/// Asks for a scribe.
pub(crate) fn ask(world: &mut World<u64>, node: NodeId, run: impl FnOnce(&mut dyn Io)) {
    world.with_machine(node, |_, _, io, _| run(io)).expect("the node is up");
}

pub(crate) fn write(
    world: &mut World<u64>,
    node: NodeId,
    place: Place,
    data: &[u8],
) -> Result<(), WriteFault> {
    let data = Frame::copy_from(data);
    ask(world, node, |io| io.write(Token(1 << 40), place, data));
    settle(world);
    let heard = take(world, node);
    let [Event::Written { token: Token(1_099_511_627_776), result }] = heard[..] else {
        panic!("one answer to one write: {heard:?}")
    };
    result
}

pub(crate) fn read(
    world: &mut World<u64>,
    node: NodeId,
    place: Place,
    len: u64,
) -> Result<Vec<u8>, ReadFault> {
    ask(world, node, |io| io.read(Token(7), place, Buf::zeroed(len as usize)));
    settle(world);
    match take(world, node).pop() {
        Some(Event::Read { token: Token(7), result }) => result.map(|buf| buf.to_vec()),
        other => panic!("one answer to one read: {other:?}"),
    }
}

/// Connects client `client` to replica `replica` and returns both ends.
pub(crate) fn connect(world: &mut World<u64>, client: NodeId, replica: NodeId, conn: u64) -> (Conn, Conn) {
    ask(world, client, |io| io.connect(Conn(conn), Address(replica.0)));
    settle(world);
    assert_eq!(take(world, client), [Event::Opened { conn: Conn(conn) }]);
    match take(world, replica)[..] {
        [Event::Opened { conn: accepted }] => (Conn(conn), accepted),
        ref other => panic!("the replica accepts: {other:?}"),
    }
}

/// The bytes among what was heard on a stream, joined.
pub(crate) fn received(heard: &[Event], conn: Conn) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in heard {
        if let Event::Received { conn: on, data } = event
            && *on == conn
        {
            assert!(!data.is_empty());
            bytes.extend_from_slice(data);
        }
    }
    bytes
}

pub(crate) fn replay(seed: u64, log: DecisionLog) -> Dice {
    Dice::replaying(seed, log)
}
