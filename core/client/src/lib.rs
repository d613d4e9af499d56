//! The client machine: sessions, retries, timeouts and redirects over the waist. The same code runs in
//! the tools and in the simulator.
//!
//! A [`Client`] holds one session and hands the cluster one command at a time; what is submitted
//! meanwhile waits in order. Queries go beside it. It keeps a connection to the replica that it takes for the
//! primary, and finds another when that one closes, falls silent, talks nonsense, or names another.
//!
//! # Promises
//!
//! - **Once.** A command keeps its session and number over every resend and reconnection, so the cluster
//!   executes it at most once; [`Output::Done`] says what became of it. If that cannot be known,
//!   because the session was evicted or the parent's patience ended, the command is [`Output::Failed`],
//!   and the client never executes it again on its own.
//! - **In order.** Commands are executed in the order in which they were submitted, each after the one
//!   before it was done or failed.
//! - **Bounded.** Commands that wait, queries in flight and redirects in a row have named limits, and every
//!   wait for a broken or busy node is a backoff with jitter.
//! - Nothing that a node sends makes it panic: a connection that carries malformed bytes is closed, and an
//!   answer to nothing that was asked is counted and dropped.
//!
//! # What is left out
//!
//! Names and addresses (the driver's address book: `Address(i)` is the client port of replica `i`),
//! authentication, and blocking: that is a few lines on top, in the tools.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
mod drive;
pub mod limits;
mod options;
mod route;
mod task;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientError, Disconnect, Input, Output};
pub use options::ClientOptions;
