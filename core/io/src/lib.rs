//! The waist: what a machine is, what it may ask of the world, and what it may hear.
//!
//! Every component of Kimberlite that does I/O is a [`Machine`]: it is handed one input at a time together
//! with the time, asks through [`Io`], and never waits. The world answers later with an [`Event`]. After
//! a machine was opened with its configuration, a seed and the time, what is not in an `Event` it cannot
//! know, and what is not in `Io` it cannot do. So a machine's life is its opening plus its list of
//! `(now, event)`, and can be recorded on one driver and replayed on another.
//!
//! Two drivers implement [`Io`]: `io-real` (io_uring) and `io-sim` (a seeded world that breaks). Both
//! pass the same [`conformance`] suite. There is no second I/O trait; what stacks on a driver wraps it for
//! one call: [`Ordered`] asserts the rules below, [`Recorder`] writes a life down, [`Asked`] only remembers.
//!
//! # The rules of the waist
//!
//! - Asks are answered exactly once, by an event that carries their [`Token`], unless the process dies.
//! - Between disk asks, order is expressed by waiting for the answer; everything else may be reordered.
//! - No write may overlap a write or trim in flight.
//! - [`Event::Written`] with `Ok` means: survives a power cut. A write that failed is never asked again.
//! - The content of a failed read cannot be looked at. What was never written reads zeros or
//!   `Absent`.
//! - Messages between replicas may vanish, be late, doubled, reordered or altered; the sender is a claim.
//! - Streams to clients are ordered, but may be cut at any byte, stall, or be reset.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod asked;
pub mod conformance;
mod crash_at;
mod event;
mod frame;
mod framing;
mod machine;
mod ordered;
mod place;
mod recorded;

pub use asked::{Ask, Asked};
pub use crash_at::CrashAt;
pub use event::{CloseReason, Event, Packet, ReadFault, WriteFault};
pub use frame::{Buf, Frame, LARGE_PAGE};
pub use framing::{FrameShape, Framing};
pub use machine::{Disk, Io, Machine, Net};
pub use ordered::Ordered;
pub use place::{Address, Conn, Place, Token, Zone, sectors};
pub use recorded::{Divergence, EffectDigest, Recorder, Recording, Replayer, Step};
