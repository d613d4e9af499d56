//! The conformance suite: what a driver promises, as cases it must pass.
//!
//! Both drivers pass the same cases, so a machine cannot tell them apart by anything but speed and luck.
//! The suite knows no driver: it makes machines, and a [`Bench`] runs them. It is part of the crate
//! without a feature gate, because it is plain code over the public contract and costs nothing unused.
//!
//! What is left out: what happens when disks and networks break. That is the simulator's own subject.
//!
//! # Hooking up a driver
//!
//! A bench is made fresh for each case. A driver's test reads like this:
//!
//! ```no_run
//! # use core::time::Duration;
//! # use kimberlite_io::conformance::{self, *};
//! # use kimberlite_io::{Asked, Event, Framing, Machine};
//! # use kimberlite_types::{Instant, Now};
//! # struct MyBench;
//! # struct Nodes(Vec<Box<dyn Machine<Input = Event, Output = Verdict>>>);
//! # impl MyBench {
//! #     fn new() -> Self { Self }
//! #     fn clock(&self) -> Instant { Instant::ZERO }
//! #     fn start(&self, machines: Vec<MachineFactory>, _: Framing) -> Nodes {
//! #         Nodes(machines.into_iter().map(|machine| machine(Now::default())).collect())
//! #     }
//! # }
//! # impl Nodes {
//! #     fn step(&mut self) -> (usize, Vec<Verdict>) {
//! #         let mut said = Vec::new();
//! #         self.0[0].on(Now::default(), Event::Wake, &mut Asked::new(), &mut said);
//! #         (0, said)
//! #     }
//! # }
//! impl Bench for MyBench {
//!     fn geometry(&self) -> Geometry {
//!         Geometry { superblock_size: 64 << 10, headers_size: 64 << 10, segment_size: 4 << 20 }
//!     }
//!     fn phase(&mut self, machines: Vec<MachineFactory>, limit: Duration) -> Vec<Verdict> {
//!         let mut verdicts = Verdicts::new(machines.len());
//!         let mut nodes = self.start(machines, conformance::FRAMING); // on the disks of the last phase
//!         let end = self.clock().after(limit);
//!         while !verdicts.complete() && self.clock() < end {
//!             let (node, said) = nodes.step(); // `wake_at`, one event, `on`, and what it put out
//!             for verdict in said {
//!                 verdicts.hear(node, verdict);
//!             }
//!         }
//!         verdicts.finish() // dropping `nodes` is the kill
//!     }
//! }
//!
//! // In a test. A bench that starts `watched(machine)` checks the rules of the waist as well.
//! for case in conformance::cases() {
//!     case.run(&mut MyBench::new()).unwrap_or_else(|why| panic!("{}: {why}", case.name));
//! }
//! ```

mod actor;
mod cases;
mod content;
mod disk;
mod echo;
#[cfg(test)]
mod loopback;
mod message;
mod stream;
#[cfg(test)]
mod tests;
mod time;
mod watched;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_types::Now;
use kimberlite_types::limits::SECTOR_SIZE;

use crate::{Event, Machine};

pub use cases::cases;
pub use content::{FRAMING, frame_head};
pub use echo::Echo;
pub use watched::watched;

/// What a machine of the suite says, usually once. It keeps running afterwards, because its peers may
/// still need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All it waited for has happened. It may still find fault later.
    Passed,
    /// The driver broke a promise: this one.
    Failed(String),
}

/// Makes the machine of one node, on the thread that will run it. Told the time when the node starts.
pub type MachineFactory = Box<dyn FnOnce(Now) -> Box<dyn Machine<Input = Event, Output = Verdict>> + Send>;

/// Sizes of a node's disk, in bytes, as the driver under test was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the superblock zone, at least [`Geometry::ZONE_SIZE_MIN`].
    pub superblock_size: u64,
    /// Size of the header ring, at least [`Geometry::ZONE_SIZE_MIN`].
    pub headers_size: u64,
    /// Size of one segment of the log, at least [`Geometry::SEGMENT_SIZE_MIN`].
    pub segment_size: u64,
}

impl Geometry {
    /// The smallest fixed zone the cases fit in: 8 sectors.
    pub const ZONE_SIZE_MIN: u64 = 8 * SECTOR_SIZE as u64;
    /// The smallest segment the cases fit in: 1 MiB, 64 concurrent writes of up to 4 sectors.
    pub const SEGMENT_SIZE_MIN: u64 = 1 << 20;

    fn check(&self) {
        let zone = self.superblock_size.min(self.headers_size);
        assert!(zone >= Self::ZONE_SIZE_MIN, "a fixed zone of {zone} bytes is too small for the cases");
        let segment = self.segment_size;
        assert!(segment >= Self::SEGMENT_SIZE_MIN, "a segment of {segment} bytes is too small for the cases");
        let sizes = [self.superblock_size, self.headers_size, segment];
        assert!(sizes.iter().all(|size| size.is_multiple_of(SECTOR_SIZE as u64)), "sizes are whole sectors");
    }
}

/// A driver and the small world it runs in, implemented by the driver's tests. Made fresh for each case:
/// disks formatted and empty, fixed zones full of zeros.
///
/// The world is kind: nothing fails that a case did not make fail. Messages between replicas may still
/// vanish, be late or doubled; streams are not reset.
pub trait Bench {
    /// The sizes of every node's disk.
    fn geometry(&self) -> Geometry;

    /// Runs one phase and returns a verdict per machine: when all have passed or one failed, when `limit` has
    /// gone by on the driver's clock, or when nothing can happen any more.
    ///
    /// Machine `i` runs as replica `i` on the disk that node `i` had in the phase before. Replicas reach
    /// each other by `ReplicaId`, with heads that [`FRAMING`] reads. `Address(i)` is the client port of
    /// node `i`, and nobody listens there if the phase has no machine `i`. A machine is asked for its
    /// `wake_at` right after it was made. At the end every process is killed: no close, no flush.
    fn phase(&mut self, machines: Vec<MachineFactory>, limit: Duration) -> Vec<Verdict>;
}

/// One promise, and the machines that check it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Names the case, for reports.
    pub name: &'static str,
    /// The promise, in one sentence.
    pub claim: &'static str,
    /// Run one after the other on the same disks.
    pub phases: Vec<Phase>,
}

/// One life of all nodes of a case.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Makes the machines, for disks of the given sizes.
    pub machines: fn(Geometry) -> Vec<MachineFactory>,
    /// How long they may take.
    pub limit: Duration,
}

impl Case {
    /// Runs the case on a fresh bench. `Err` says which phase and node found fault, and what.
    pub fn run(&self, bench: &mut dyn Bench) -> Result<(), String> {
        let geometry = bench.geometry();
        geometry.check();
        for (number, phase) in self.phases.iter().enumerate() {
            let machines = (phase.machines)(geometry);
            let nodes = machines.len();
            let verdicts = bench.phase(machines, phase.limit);
            assert!(verdicts.len() == nodes, "{} verdicts of {nodes} machines", verdicts.len());
            for (node, verdict) in verdicts.into_iter().enumerate() {
                if let Verdict::Failed(why) = verdict {
                    return Err(format!("phase {number}, node {node}: {why}. Promised: {}", self.claim));
                }
            }
        }
        Ok(())
    }
}

/// Collects what the machines of a phase say, for a [`Bench`].
#[derive(Clone, Debug)]
pub struct Verdicts(Vec<Option<Verdict>>);

impl Verdicts {
    /// Of `nodes` machines that have not spoken.
    pub fn new(nodes: usize) -> Self {
        Self(vec![None; nodes])
    }

    /// Machine `node` said `verdict`. The first failure stands; a failure overrides an earlier pass.
    pub fn hear(&mut self, node: usize, verdict: Verdict) {
        let slot = &mut self.0[node];
        if !matches!(slot, Some(Verdict::Failed(_))) {
            *slot = Some(verdict);
        }
    }

    /// Whether every machine has spoken, or one has failed: the phase may end.
    pub fn complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
            || self.0.iter().any(|verdict| matches!(verdict, Some(Verdict::Failed(_))))
    }

    /// The verdicts. A machine that said nothing failed.
    pub fn finish(self) -> Vec<Verdict> {
        let silent = || Verdict::Failed("what it waited for did not happen in time".into());
        self.0.into_iter().map(|verdict| verdict.unwrap_or_else(silent)).collect()
    }
}
