//! Bytes between replicas, between clients and nodes, and in the journal.
//!
//! | module | holds |
//! |---|---|
//! | [`header`] | the fixed 128-byte frame header, its checksums and its authenticator |
//! | [`prepare`] | a prepare: what one op of the log is, on the wire and on disk alike |
//! | [`entry`] | an entry: one command within a prepare, linked into the hash chain |
//! | [`message`] | what replicas say to each other |
//! | [`command`] | what clients ask to be done, and what became of it |
//! | [`client`] | the frames between a client and a node |
//! | `replay` | frames as a recording holds them: without anything that follows from the cluster's secret |
//!
//! Everything decoded here comes from outside: a decoder answers [`Malformed`] and never panics. Integers
//! are little-endian. Variable bodies are [postcard](https://postcard.jamesmunns.com/wire-format).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod client;
pub mod command;
pub mod entry;
pub mod header;
mod layout;
pub mod message;
pub mod prepare;
mod replay;

pub use entry::{Entry, EntryHeader, NewEntry};
pub use header::{Command as FrameCommand, FrameHeader, LinkKeys, framing_of};
pub use layout::Malformed;
pub use message::Message;
pub use prepare::{NewPrepare, Prepare, PrepareHeader, UncheckedPrepare};
pub use replay::{REPLAY_SECRET, Resealer};
