//! Superblock and journal of one replica, as a message-driven machine.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod asks;
mod bytes;
mod contract;
mod decision;
mod footer;
mod format;
mod journal;
mod recovery;
mod ring;
mod scout;
mod sealed;
mod storage;
mod superblock;
mod view;

pub use contract::{Damage, FetchError, HaltReason, Input, Output, Recovered, ViewState};
pub use format::{FormatError, FormatInput, FormatOutput, Formatter};
pub use storage::Storage;

#[cfg(test)]
mod tests;
