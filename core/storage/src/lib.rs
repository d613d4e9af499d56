//! Superblock and journal of one replica, as a message-driven machine.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod contract;
mod storage;
mod superblock;

pub use contract::{Damage, FetchError, HaltReason, Input, Output, Recovered, ViewState};
pub use storage::Storage;
