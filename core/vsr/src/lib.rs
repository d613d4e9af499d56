//! Viewstamped Replication: agreement on one log among replicas that crash, and whose disks rot.
//!
//! After *Viewstamped Replication Revisited* (Liskov and Cowling, 2012) with the durable log and the
//! protocol-aware recovery of *Protocol-Aware Recovery for Consensus-Based Storage* (FAST '18).
//!
//! | module | holds |
//! |---|---|
//! | [`replica`](Replica) | the state, the inputs and outputs, the timers |
//! | `log` | the newest headers, and what this replica holds of each |
//! | `normal` | propose, acknowledge, commit, execute |
//! | `view_change` | leave a view, choose its log, adopt it |
//! | `merge` | the choice of the new log from `DoViewChange`s: a pure function |
//! | `repair` | fetch what is missing or damaged, serve others, catch up |
//! | `reads` | leadership rounds that confirm reads |
//! | `load` | what a replica holds on to, counted |
//! | `waits` | what a replica waits for, for people |
//!
//! It knows no disk: it says [`Output::Append`] and hears [`Input::Durable`]. It is handed the network
//! alone. Its parent (the runtime) carries values between it, the journal and the kernel.
//!
//! # What holds
//!
//! 1. `log_view <= view`, and neither ever goes back, not even through a restart: both are durable before
//!    anything is promised in them.
//! 2. A replica acknowledges an op only in the view it is in, when that op and its ring entry are durable.
//! 3. An op is committed when a replication quorum acknowledged it in one view, and all ops before it are.
//! 4. Every view-change quorum meets every replication quorum, so a committed op is in the log of every
//!    later view.
//! 5. An op is cut from the log only if so many replicas never held it that no replication quorum can have.
//! 6. A replica whose copy is damaged says so; it never claims not to have held the op.
//! 7. A suffix is overwritten only by prepares that are committed, or after the headers of the new log
//!    are durable together with `log_view`.
//! 8. A restarted primary never resumes its view: it may have proposed what it no longer remembers.
//!
//! Left out, and to come: state transfer of checkpoints, reconfiguration, standbys, signatures.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod load;
mod log;
mod merge;
mod normal;
mod reads;
mod repair;
mod replica;
mod view_change;
mod waits;

pub use load::Load;
pub use log::Held;
pub use merge::{Choice, Dvc, choose};
pub use replica::{
    Input, Lost, Misbehavior, Note, Output, Peer, Recovered, Replica, Request, Status, ViewState,
};
pub use waits::{Replicas, Waits};
