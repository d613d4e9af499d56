//! The words every other crate speaks: ids, time, limits, configuration and seeded streams.
//!
//! Ids are newtypes, so that a stream can never be passed where a tenant is meant, and an index never
//! where a count is meant. Nothing here allocates on a hot path, reads a clock or draws luck: a
//! [`Rng`] is always made from a seed that was handed in.
//!
//! What is left out: bytes on the wire and on disk (`wire`), hashes (`crypto`), what a machine may ask
//! of the world (`io`).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod ids;
pub mod limits;
mod quorum;
mod rng;
mod time;

pub use config::{Config, ConfigError, Layout, Timing};
pub use ids::{
    ClusterId, LogPosition, ObjectId, Offset, Op, ReplicaId, RequestNumber, SessionId, StreamId, TenantId,
    View,
};
pub use quorum::Quorums;
pub use rng::{Rng, Streams};
pub use time::{Instant, Now, WallTime};
