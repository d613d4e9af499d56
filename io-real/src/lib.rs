//! The real machine: the driver behind the waist, on io_uring.
//!
//! A [`Driver`] implements `kimberlite_io`'s `Disk` and `Net`. The caller owns the loop: it takes an event
//! with [`Driver::next`], hands it to its machine together with the driver, and asks the machine when it
//! wants to be woken. What the machine asks is gathered and given to the kernel when the events run out.
//!
//! # Promises
//!
//! - One thread. (A second one makes log segments ahead of need and touches nothing else.)
//! - `Written` with `Ok` means that the kernel has said so: the bytes, the file's length and its name are
//!   durable. After an error nothing is tried again.
//! - On a directory opened for reading ([`DataDirectory::open_read_only`]) nothing is ever changed.
//! - Memory and descriptors that the kernel uses are owned by the operation until it completes.
//! - Bytes from outside, in any order and amount, drop a connection at worst. Queues and connections are
//!   bounded by named limits.
//! - Broken rules of the waist (unaligned or overlapping writes, tokens used twice) end the process.
//!
//! # Left out
//!
//! It looks into no message: where one ends is told by the `Framing` it is opened with, and who sent it is
//! a claim. It encrypts nothing; it knows no cluster. It runs on Linux only.
//!
//! # Map
//!
//! - `driver`: the loop and the routing of completions; `desk`: what all parts work on
//! - `ring`: submission and completion; the only `unsafe` of the workspace
//! - `directory`: the files of a data directory; `segments`: the thread that makes more of them
//! - `disk`: asks to the disk; `links`, `inbound`: messages out and in; `streams`: clients
//! - `sockets`, `clock`, `descriptors`, `waker`, `stats`, `error`: what their names say
#![cfg(target_os = "linux")]

mod clock;
mod descriptors;
mod desk;
mod directory;
mod disk;
mod driver;
mod error;
mod inbound;
mod links;
mod ring;
mod segments;
mod sockets;
mod stats;
mod streams;
mod waker;

pub use directory::{DIRECTORY_VERSION, DataDirectory, Geometry};
pub use driver::{Driver, Options};
pub use error::{DriverError, OpenError, UringRefusal};
pub use stats::{DriverNote, Stats};
pub use waker::Waker;
