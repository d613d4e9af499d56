//! The node: propose → replicate → commit → apply → reply.
//!
//! [`Node`] is the machine that a driver runs. It owns the parts and carries values between them; the parts
//! never call each other:
//!
//! ```text
//!   clients ──requests──▶ vsr ──Append, PersistView, Fetch──▶ storage ──▶ disk
//!      ▲                   │ ▲                                  │
//!      │                   │ └──Durable, ViewDurable, Fetched───┘
//!   verdicts ◀── kernel ◀──┘ Commit
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `node` | the routing |
//! | `applying` | the state, what is applied to it next, and its checkpoints |
//! | `clients` | byte streams of clients: frames in, replies out |
//! | `pages` | pages of checkpoints that are lost here, asked of peers |
//! | `reads` | queries, once they are confirmed |
//! | `sql` | statements of SQL: sessions, plans, and what becomes of their facts |
//! | `note` | what a node tells whoever watches it |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod applying;
mod clients;
mod node;
mod note;
mod pages;
mod reads;
mod sql;

pub use node::Node;
pub use note::{CheckpointLost, HaltReason, Note};
