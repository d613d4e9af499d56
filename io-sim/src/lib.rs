//! The fake machine: nodes that are real, in a world that breaks on request.
//!
//! A [`World`] is a discrete-event simulation in virtual time: virtual disks, a network, byte streams,
//! clocks and processes, all behind the waist of `kimberlite-io`. Time jumps from one event to the next;
//! nothing real is read. Every choice is drawn from [`Dice`], one stream per concern, and may be recorded
//! and replayed as data. What happened is in a rolling digest and a census.
//!
//! # What it promises
//!
//! - The same seed, options, machines and calls give the same [`World::digest`], on every platform.
//! - Every ask is checked against the rules of the waist; a machine that breaks one panics.
//! - What was acknowledged as written survives every crash. What was not is kept in arbitrary part.
//! - Content is damaged only where the [`Atlas`] permits, and only over the pristine image, which
//!   [`SimDisk::heal`] brings back. Tears at a crash and after a failed write are outside the budget.
//! - A fault is counted when it takes effect, not when it is configured.
//!
//! # What it leaves out
//!
//! Which faults come when, how large a cluster is, what clients ask and what must hold: that is policy, and
//! lives in `sim`. Bytes are never interpreted here.
#![forbid(unsafe_code)]

mod agenda;
mod asks;
mod atlas;
mod census;
mod clock;
mod dice;
mod disk;
mod ground;
mod image;
mod network;
mod rates;
mod steer;
mod streams;
mod trace;
mod world;

pub use atlas::Atlas;
pub use census::{Census, Fault, FaultInjected, Happening};
pub use clock::{Clock, EPOCH};
pub use dice::{Concern, DecisionLog, Dice, Divergence, Fate};
pub use disk::SimDisk;
pub use network::{Keeper, Link, Network};
pub use rates::{DiskFault, DiskRates, Keep};
pub use trace::Pulse;
pub use world::{Damage, Node, NodeId, Resident, Resources, Step, StepKind, World, WorldOptions};
