//! The simulated world passes the conformance suite, whatever its luck.

use std::time::Duration;

use kimberlite_io::conformance::{self, Bench, Geometry, MachineFactory, Verdict, Verdicts, watched};
use kimberlite_io::{Event, Io, Machine};
use kimberlite_io_sim::{Dice, DiskRates, Fault, Link, NodeId, StepKind, World, WorldOptions};
use kimberlite_types::{Instant, Now};

/// Nodes of every world: as many as the largest phase has.
const NODES: u8 = 2;

/// A machine of the suite. A world wants machines by their type.
struct Member(Box<dyn Machine<Input = Event, Output = Verdict>>);

impl Machine for Member {
    type Input = Event;
    type Output = Verdict;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Verdict>) {
        self.0.on(now, event, io, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.0.wake_at()
    }
}

/// One world for all phases of a case.
struct SimBench {
    world: World<Verdict>,
    geometry: Geometry,
}

impl SimBench {
    /// A world in which nothing is ever wrong.
    fn calm(seed: u64) -> Self {
        let geometry = Geometry { superblock_size: 64 << 10, headers_size: 64 << 10, segment_size: 2 << 20 };
        let options = WorldOptions {
            superblock_size: geometry.superblock_size,
            headers_size: Some(geometry.headers_size),
            segment_size: geometry.segment_size,
            ..WorldOptions::new(NODES, 0)
        };
        Self { world: World::new(options, Dice::free(seed)), geometry }
    }

    /// A world that does everything a machine must live with and that leaves content alone: messages are
    /// lost, doubled, late and overtaken, streams are cut and stand still, disks are slow and stand still.
    fn rough(seed: u64) -> Self {
        let mut bench = Self::calm(seed);
        let link = Link {
            tail_ppm: 100_000,
            tail_factor: 20,
            loss_ppm: 50_000,
            duplicate_ppm: 100_000,
            replay_ppm: 100_000,
            stall_ppm: 20_000,
            stall_mean: 5_000_000,
            cut_ppm: 500_000,
            ..Link::HEALTHY
        };
        bench.world.network_mut().set_replica_links(link);
        for node in 0..NODES {
            bench.world.disk_mut(NodeId(node.into())).rates =
                DiskRates { slow_factor: 4, stall_ppm: 20_000, stall_mean: 10_000_000, ..DiskRates::HEALTHY };
        }
        bench
    }

    fn faults(&self, fault: Fault) -> u64 {
        self.world.census().faults(fault)
    }
}

impl Bench for SimBench {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn phase(&mut self, machines: Vec<MachineFactory>, limit: Duration) -> Vec<Verdict> {
        let world = &mut self.world;
        let mut verdicts = Verdicts::new(machines.len());
        let end = world.time().after(limit);
        for (index, machine) in machines.into_iter().enumerate() {
            let node = NodeId(index as u16);
            world.start(node, Box::new(Member(watched(machine)(world.now(node)))));
        }
        while !verdicts.complete() && world.next_at().is_some_and(|at| at < end) {
            let Some(step) = world.step() else { break };
            if let StepKind::Delivered { node, outputs, .. } = step.what {
                for verdict in outputs {
                    verdicts.hear(usize::from(node.0), verdict);
                }
            }
        }
        (0..NODES).for_each(|node| world.crash(NodeId(node.into())));
        verdicts.finish()
    }
}

#[test]
fn every_case_passes_in_a_calm_world() {
    for seed in 0..4 {
        for case in conformance::cases() {
            let mut bench = SimBench::calm(seed);
            assert_eq!(case.run(&mut bench), Ok(()), "{}, seed {seed}", case.name);
        }
    }
}

#[test]
fn every_case_passes_where_everything_is_late_cut_and_doubled() {
    const ROUGH: [Fault; 9] = [
        Fault::PacketLost,
        Fault::PacketDuplicated,
        Fault::PacketReplayed,
        Fault::PacketDelayed,
        Fault::StreamStalled,
        Fault::StreamCut,
        Fault::DiskStalled,
        Fault::DiskSlow,
        Fault::Crash,
    ];
    const DAMAGE: [Fault; 4] =
        [Fault::PacketBodyCorrupted, Fault::StreamCorrupted, Fault::StreamReset, Fault::BitRot];
    let mut struck = [0; ROUGH.len()];
    for seed in 100..112 {
        for case in conformance::cases() {
            let mut bench = SimBench::rough(seed);
            assert_eq!(case.run(&mut bench), Ok(()), "{}, seed {seed}", case.name);
            for (count, fault) in struck.iter_mut().zip(ROUGH) {
                *count += bench.faults(fault);
            }
            assert_eq!(DAMAGE.map(|fault| bench.faults(fault)), [0; DAMAGE.len()], "that world is kind");
        }
    }
    for (count, fault) in struck.iter().zip(ROUGH) {
        assert!(*count > 0, "{} never struck", fault.name());
    }
}

#[test]
fn a_case_runs_the_same_way_twice() {
    for case in conformance::cases() {
        let digest = |seed| {
            let mut bench = SimBench::rough(seed);
            assert_eq!(case.run(&mut bench), Ok(()), "{}", case.name);
            bench.world.digest()
        };
        assert_eq!(digest(7), digest(7), "{}", case.name);
    }
}
