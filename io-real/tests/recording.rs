//! Lives recorded on the real driver are lived again elsewhere: in a replay, and in a simulated world.

mod common;

use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use common::SECTOR;
use common::bench::RealBench;
use kimberlite_io::conformance::{self, Bench, Case, Geometry, MachineFactory, Phase, Verdict, frame_head};
use kimberlite_io::{
    Buf, EffectDigest, Event, Frame, Io, Machine, Packet, Place, Recorder, Recording, Token, Zone, sectors,
};
use kimberlite_io_sim::{Dice, NodeId, World, WorldOptions};
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{Instant, Now, ReplicaId};

type AnyMachine = Box<dyn Machine<Input = Event, Output = Verdict>>;

/// A machine that writes its life down, and sends it home when its process ends.
struct Recorded {
    machine: AnyMachine,
    recorder: Recorder,
    life: Life,
    home: Sender<Life>,
}

/// What is known of a life when it is over.
#[derive(Clone, Default)]
struct Life {
    node: usize,
    recording: Recording,
    said: Vec<Verdict>,
}

impl Machine for Recorded {
    type Input = Event;
    type Output = Verdict;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Verdict>) {
        self.life.recording.steps.push(self.recorder.heard(now, &event));
        let said_before = out.len();
        self.machine.on(now, event, &mut self.recorder.wrap(io), out);
        self.life.said.extend_from_slice(&out[said_before..]);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.machine.wake_at()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.life.recording.end = Some(self.recorder.digest());
        if self.home.send(std::mem::take(&mut self.life)).is_err() {
            // The test has failed already and wants no lives any more.
        }
    }
}

/// `machine`, recorded. The opening of its life is the time.
fn recorded(node: usize, machine: MachineFactory, home: Sender<Life>) -> MachineFactory {
    Box::new(move |opened| {
        let opening = postcard::to_allocvec(&opened).expect("a time has a form");
        let life = Life { node, recording: Recording::new(opening), said: Vec::new() };
        Box::new(Recorded { machine: machine(opened), recorder: Recorder::new(), life, home })
    })
}

/// A bench that keeps the lives of all its machines, by phase and node.
struct Chronicle<B> {
    bench: B,
    lives: Vec<Vec<Life>>,
}

impl<B: Bench> Bench for Chronicle<B> {
    fn geometry(&self) -> Geometry {
        self.bench.geometry()
    }

    fn phase(&mut self, machines: Vec<MachineFactory>, limit: Duration) -> Vec<Verdict> {
        let (home, lives): (Sender<Life>, Receiver<Life>) = mpsc::channel();
        let machines = machines
            .into_iter()
            .enumerate()
            .map(|(node, machine)| recorded(node, machine, home.clone()))
            .collect();
        let verdicts = self.bench.phase(machines, limit);
        drop(home);
        let mut lives: Vec<Life> = lives.iter().collect();
        lives.sort_by_key(|life| life.node);
        self.lives.push(lives);
        verdicts
    }
}

/// Runs `case` on the real driver. Returns the lives that came of it, by phase and node.
fn run(case: &Case) -> Vec<Vec<Life>> {
    let mut bench = Chronicle { bench: RealBench::new(), lives: Vec::new() };
    assert_eq!(case.run(&mut bench), Ok(()), "{}", case.name);
    bench.lives
}

/// A machine behind a box, for whoever wants one by its type.
struct Boxed(AnyMachine);

impl Machine for Boxed {
    type Input = Event;
    type Output = Verdict;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Verdict>) {
        self.0.on(now, event, io, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.0.wake_at()
    }
}

/// A recording as it comes back from a file.
fn through_bytes(recording: &Recording) -> Recording {
    let bytes = postcard::to_allocvec(recording).expect("a recording has a form");
    let read = postcard::from_bytes(&bytes).expect("it is read back");
    assert_eq!(*recording, read);
    read
}

/// A fresh machine, opened as the recorded one was.
fn opened_like(recording: &Recording, machine: MachineFactory) -> Boxed {
    let opened: Now = postcard::from_bytes(&recording.opening).expect("the opening is a time");
    Boxed(machine(opened))
}

#[test]
fn every_life_of_the_suite_on_the_real_driver_replays_bit_for_bit() {
    let mut asking_lives = 0;
    for case in conformance::cases() {
        let geometry = RealBench::new().geometry();
        for (phase, lives) in case.phases.iter().zip(run(&case)) {
            let machines = (phase.machines)(geometry);
            assert_eq!(lives.len(), machines.len(), "{}: every machine has a life", case.name);
            for (life, machine) in lives.into_iter().zip(machines) {
                let recording = through_bytes(&life.recording);
                let mut machine = opened_like(&recording, machine);
                let mut said = Vec::new();
                assert_eq!(recording.replay(&mut machine, &mut said), Ok(()), "{}", case.name);
                assert_eq!(said, life.said, "{}", case.name);
                asking_lives += u64::from(recording.end != Some(EffectDigest::EMPTY));
            }
        }
    }
    assert!(asking_lives > 20, "only {asking_lives} lives asked for anything");
}

#[test]
fn a_life_that_was_tampered_with_does_not_replay() {
    let case = find("messages_arrive_whole");
    let [life, _] = &run(&case)[0][..] else { panic!("two nodes") };
    let machine = || (case.phases[0].machines)(RealBench::new().geometry()).remove(0);
    let replay =
        |recording: &Recording| recording.replay(&mut opened_like(recording, machine()), &mut Vec::new());
    assert_eq!(replay(&life.recording), Ok(()));
    // Without the first message the sender never sends the second one.
    let mut shorter = life.recording.clone();
    let message = shorter.steps.iter().position(|step| matches!(step.event, Event::Message { .. }));
    shorter.steps.remove(message.expect("one arrived"));
    replay(&shorter).expect_err("another life asks for other things");
}

fn find(name: &str) -> Case {
    conformance::cases().into_iter().find(|case| case.name == name).expect("a case of that name")
}

/// Keeps what it is sent: writes every message to the log with the time it came, reads it back, and returns what
/// it read. One message at a time; those that come meanwhile are dropped.
#[derive(Default)]
struct Keeper {
    kept: u64,
    busy: Option<u32>,
    up: bool,
}

/// Bytes of the log that one message takes.
const SLOT: u64 = 4 * SECTOR;

impl Machine for Keeper {
    type Input = Event;
    type Output = Verdict;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Verdict>) {
        if !self.up {
            self.up = true;
            out.push(Verdict::Passed);
        }
        let at = Place::log(self.kept * SLOT);
        match event {
            Event::Message { packet, .. } if self.busy.is_none() => {
                let len = packet.body.len();
                self.busy = Some(len as u32);
                let mut slot = Buf::zeroed(SECTOR_SIZE + sectors(len as u64) as usize);
                slot[..8].copy_from_slice(&now.wall.0.to_le_bytes());
                slot[8..16].copy_from_slice(&now.monotonic.0.to_le_bytes());
                slot[SECTOR_SIZE..][..len].copy_from_slice(&packet.body);
                io.write(Token(self.kept), at, slot.freeze());
            }
            Event::Written { token, result: Ok(()) } => {
                let len = sectors(self.busy.expect("a message is being kept").into());
                io.read(token, Place::log(at.offset + SECTOR), Buf::zeroed(len as usize));
            }
            Event::Read { result: Ok(bytes), .. } => {
                let len = self.busy.take().expect("a message is being kept");
                let head = frame_head(ReplicaId(1), len, self.kept);
                io.send(ReplicaId(0), Packet { head, body: bytes.freeze().slice(0..len as usize) });
                self.kept += 1;
            }
            Event::Written { .. } | Event::Read { .. } => {
                out.push(Verdict::Failed("the disk of a kind world failed".into()));
            }
            _ => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        (!self.up).then_some(Instant::ZERO)
    }
}

/// Sends messages to the keeper until enough came back.
struct Customer {
    served: u64,
    send_at: Instant,
}

/// Messages a customer wants back.
const ORDERS: u64 = 20;

impl Machine for Customer {
    type Input = Event;
    type Output = Verdict;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Verdict>) {
        if let Event::Message { packet, .. } = &event {
            let sound = !packet.body.is_empty() && packet.body.iter().all(|byte| *byte == packet.body[0]);
            if !sound {
                out.push(Verdict::Failed("the keeper returned what it was never sent".into()));
            }
            self.served += 1;
            if self.served == ORDERS {
                out.push(Verdict::Passed);
            }
        } else if now.monotonic < self.send_at {
            return;
        }
        self.send_at = now.monotonic.after(Duration::from_millis(50));
        let len = 1 + self.served as u32 * 600;
        let body = Frame::copy_from(&vec![1 + self.served as u8; len as usize]);
        io.send(ReplicaId(1), Packet { head: frame_head(ReplicaId(0), len, self.served), body });
    }

    fn wake_at(&self) -> Option<Instant> {
        Some(self.send_at)
    }
}

fn customer_and_keeper(_: Geometry) -> Vec<MachineFactory> {
    vec![
        Box::new(|_| Box::new(Customer { served: 0, send_at: Instant::ZERO })),
        Box::new(|_| Box::new(Keeper::default())),
    ]
}

/// Lives `recording` again on node 1 of a simulated world: the events are the recorded ones, the asks are the
/// world's to act out. Its own answers go nowhere. Returns the digest of all asks, and the world.
fn live_in_a_world(recording: &Recording) -> (EffectDigest, World<Verdict>) {
    /// Hears nothing. The recorded life is lived in its name.
    struct Nobody;
    impl Machine for Nobody {
        type Input = Event;
        type Output = Verdict;

        fn on(&mut self, _: Now, _: Event, _: &mut dyn Io, _: &mut Vec<Verdict>) {}

        fn wake_at(&self) -> Option<Instant> {
            None
        }
    }
    let node = NodeId(1);
    let mut world = World::new(WorldOptions::new(2, 0), Dice::free(3));
    world.start(node, Box::new(Nobody));
    let mut keeper = Keeper::default();
    let mut recorder = Recorder::new();
    for step in &recording.steps {
        while world.step().is_some() {}
        assert_eq!(recorder.digest(), step.before);
        let (now, event) = (step.now, step.event.clone());
        let lived = world.with_machine(node, |_, _, io, out| {
            keeper.on(now, event, &mut recorder.wrap(io), out);
        });
        lived.expect("the node is up");
    }
    while world.step().is_some() {}
    (recorder.digest(), world)
}

#[test]
fn a_life_on_the_real_disk_leaves_the_same_digest_and_the_same_bytes_in_a_simulated_world() {
    let limit = Duration::from_secs(10);
    let phases = vec![Phase { machines: customer_and_keeper, limit }];
    let case = Case { name: "keeper", claim: "What is kept comes back", phases };
    let mut bench = Chronicle { bench: RealBench::new(), lives: Vec::new() };
    assert_eq!(case.run(&mut bench), Ok(()));
    let recording = through_bytes(&bench.lives[0][1].recording);

    let (digest, world) = live_in_a_world(&recording);
    assert_eq!(Some(digest), recording.end);
    assert_eq!(recording.replay(&mut Keeper::default(), &mut Vec::new()), Ok(()));

    let real = bench.bench.read_log(1, ORDERS * SLOT);
    let simulated = world.disk(NodeId(1)).peek(Zone::Log, 0, (ORDERS * SLOT) as usize);
    assert!(real == simulated, "the two disks differ");
    assert_ne!(simulated[((ORDERS - 1) * SLOT + SECTOR) as usize], 0, "the last order was kept");
}
