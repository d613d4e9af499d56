//! What the log means: sessions, tenants, streams and tables, as a function of the committed entries.
//!
//! A [`Kernel`] is handed every committed prepare once, in order ([`Kernel::apply`]), and nothing else, so
//! two kernels that applied the same log are the same. Each entry is *decided* against the state so far,
//! which changes nothing, and the decision is then *installed*, which cannot fail.
//!
//! # Promises
//!
//! - **Total.** Any command bytes give a decision. A refused command is a committed no-op; its
//!   [`Refusal`](kimberlite_wire::command::Refusal) is as much a part of the replicated result as success is.
//! - **At most once.** A request is executed only if its number is higher than the last of its session.
//!   The last verdict of each session is kept, so a retry gets the same answer and has no second effect.
//! - **Dense.** The offsets of a stream count from 0 without gaps: whatever is refused or a duplicate
//!   burns none.
//! - **The same state has the same [`StateDigest`]**, kept up to date at a few hashes per entry.
//!
//! - **A checkpoint is the state.** [`Kernel::checkpoint`] gives the pages of tables and all the rest, [`Kernel::open`] makes of
//!   them what there was; when one is due follows from what was applied ([`Kernel::is_checkpoint_due`]).
//!
//! # What is left out
//!
//! Disks, clocks and the records themselves: a stream is remembered as a list of [`Extent`]s that say
//! which entries of which ops hold its records, and [`records_of`] picks them out of a prepare. Whether
//! a prepare is what the cluster agreed on, and whether its entries parse and chain, was settled before.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod digest;
mod image;
mod kernel;
pub mod limits;
mod session;
pub mod staged;
mod stream;
pub mod tables;
#[cfg(test)]
mod tests;

pub use digest::StateDigest;
pub use image::OpenError;
pub use kernel::{Applied, Decision, EntryVerdict, Kernel};
pub use session::Lookup;
pub use stream::{Extent, Located, RecordsOf, StreamState, records_of};
