//! Superblock, journal and grid of one replica, as message-driven machines over the waist.
//!
//! | module | holds |
//! |---|---|
//! | `contract` | what goes into [`Storage`] and what comes out |
//! | `storage` | the machine: routes inputs and answers to the parts |
//! | `superblock`, `view` | four copies of who this replica is and what it promised; how they are written |
//! | `ring` | the header ring: what was acknowledged |
//! | `journal` | the append path: prepare, then slot, then `Durable` |
//! | `grid` | pages of checkpoints: written, read back when they are wanted, kept at hand as far as there is room, given to peers that lost them |
//! | `survey` | all pages of a checkpoint, for whoever checks them |
//! | `doubtful` | what the disk may hold and the log does not name |
//! | `footer`, `sealed` | segments that never change again, and finding prepares in them |
//! | `window` | large reads for fetches that follow each other |
//! | `recovery`, `decision`, `scout` | opening: the walk, the search of what it cannot reach, the table it decides by, and its reads |
//! | `format`, `verify`, [`inspect`] | making, checking and looking at a data directory |
//! | `asks` | asks in flight; a full disk is waited out here |
//!
//! **What it promises.** [`Output::Durable`] is said when the prepare and its ring entry survive a power cut, so
//! after any crash, and after one fault at rest on top, that op is there or is known to be damaged: it is
//! never denied and never cut off. [`Output::ViewDurable`] never goes back. A fetched prepare is verified or
//! is an error. Nothing is acknowledged that was read and not written again when it might not be durable. A checkpoint is
//! named once all its pages are durable, and the one before is whole until then. A page at hand is the one that its
//! parent names.
//!
//! **What it leaves out.** What to do about damage is for consensus: storage names it, and takes the
//! prepare again when it comes. Which ops are committed it is told, by [`Input::Committed`]; it must mean
//! the ops as this journal names them. What is in a page, and which one is needed next, is for the kernel.
//!
//! The log of every replica stands at the same places: `header.place` says where. A segment holds
//! whole prepares and, at its end, its footer.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod asks;
mod bytes;
mod contract;
mod decision;
mod doubtful;
mod footer;
mod format;
mod grid;
pub mod inspect;
mod journal;
mod recovery;
mod ring;
mod scout;
mod sealed;
mod storage;
mod superblock;
mod survey;
mod verify;
mod view;
mod window;

pub use contract::{
    CheckpointName, Damage, FetchError, HaltReason, Input, NewCheckpoint, Output, PageName, Recovered,
    ViewState, Waiter,
};
pub use format::{FormatError, FormatInput, FormatOutput, Formatter};
pub use grid::{PagesAtHand, page_place};
pub use kimberlite_store::{Address, PAGE_SIZE, PageRef};
pub use storage::Storage;
pub use survey::CheckpointSurvey;
pub use verify::{Check, Checked, Finding, Missing, Totals, Verifier, VerifyInput, VerifyOutput, Wrong};

#[cfg(test)]
mod tests;
