//! Tables as versions: copy-on-write B+trees over pages that may be missing.
//!
//! A [`Store`] holds two trees for each tenant. The *current* tree has the newest version of each key; the *history*
//! has the versions that ended, by key and end. A version is valid from the log position of the command that wrote it
//! to that of the command that replaced or deleted it: `begin <= p < end`. So a snapshot is a position: a reader at `p`
//! reads today's trees, and no old page is needed. Keys are opaque bytes that begin with an
//! [`ObjectId`](kimberlite_types::ObjectId).
//!
//! # Map
//!
//! | module | holds |
//! |---|---|
//! | `layout` | pages byte by byte |
//! | `shape` | the size of pages and all limits |
//! | `pointer`, `page` | what a parent knows of a page; a page that was checked |
//! | `build` | entries as pages: prefixes, cuts, separators |
//! | `batch`, `plan`, `blob`, `prune` | from writes to a [`Draft`] of new pages |
//! | `store` | roots and dirty pages; [`Store::install`] |
//! | `cursor`, `read`, `scan`, `versions`, `walk`, `guard` | one key, many keys, all versions, whether anything changed |
//! | `checkpoint`, `free_set` | places and digests; opening again |
//!
//! # What it promises
//!
//! - **What can miss cannot mutate, what mutates cannot miss.** [`Store::get`], [`Store::scan`], [`Store::plan`] and the
//!   others that take [`Pages`] take `&self`; on a [`Miss`] nothing has happened, and the same call may be made again.
//!   [`Store::install`] and [`Store::checkpoint`] need no page.
//! - **Same log, same bytes.** The shape of the trees depends on the sequence of batches alone: never on misses, on what
//!   is cached, or on memory. Places and digests are given at checkpoints in tree order, so two stores that installed
//!   the same batches with the same checkpoints in between have the same pages at the same places.
//! - **Bytes from outside are checked once**, by [`Page::decode`], against what the parent says of the page: digest, kind,
//!   level, greatest position, entries. What was decoded cannot make anything fail; what was not is absent.
//! - **Guards are exact.** [`Store::changed_since`] says whether any version in a range began or ended behind a position,
//!   for no more than two paths from the root in each tree.
//! - **The present does not pay for the past.** Reads of [`Snapshot::Present`], and of any position at or behind the newest
//!   one, do not touch the history.
//!
//! # What it leaves out
//!
//! Which rows and columns there are (`row`), what may be written (`kernel`), caching and disks (`storage`).
//! Uniqueness is not checked here: a unique index is an index whose entries with the same columns the kernel counts.
//!
//! # Size on disk
//!
//! With pages of 8 KiB, 8,112 bytes behind the header. A row of key k and value v takes 18 + k' + v bytes in the current
//! tree and 30 + k' + v in the history, where k' is what its key does not share with its page: for ascending 8-byte
//! keys, one or two bytes. Index entries have no value: 18 + k'. Values for which this is more than a quarter of a page
//! (2,028 bytes) take 48 bytes in the leaf and whole pages of their own, up to 512 KiB and an eighth. A branch takes
//! 64 + k' for each child (76 + k' in the history), about 1 % of what is below it.
//! Leaves are full when keys come in ascending order, and about 69 % full when they come in any order.
//!
//! # Splits and merges
//!
//! All writes of a batch that fall on a page are merged into it at once, and the page is cut into as few pages as will
//! do, of about the same size; but where all new entries stand behind those of their object, pages are filled from the
//! left, and what follows them stands apart. A page that lost something and is less than a third full is joined with
//! its right neighbour, or its left one if it is the last, as one page or two of the same size. An empty page is dropped,
//! and so is a root with one child. Separators are as short as they can be.
//!
//! # Cost
//!
//! | operation | pages read | pages written anew |
//! |---|---|---|
//! | get, present | levels | 0 |
//! | get, past | levels of both trees | 0 |
//! | scan step | levels, and each leaf | 0 |
//! | scan of the past | also: history leaves with an end behind the position | 0 |
//! | scan of versions | levels of both trees, and each leaf of them | 0 |
//! | guard | at most twice the levels of both trees | 0 |
//! | insert | levels | levels, and splits |
//! | update, delete | levels of both trees | levels of both trees |
//! | checkpoint | 0 | 0; hashes each dirty page once |
//!
//! A page that is written anew costs the copying of its entries: about 2 µs. A batch writes each page once.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod batch;
mod blob;
mod build;
mod checkpoint;
mod cursor;
mod free_set;
mod guard;
mod layout;
mod object;
mod page;
mod parts;
mod plan;
mod pointer;
mod prune;
mod read;
mod scan;
mod shape;
mod store;
#[cfg(test)]
mod tests;
mod versions;
mod walk;

pub use batch::{WriteBatch, WriteError};
pub use checkpoint::{CHECKPOINT_ROOT_SIZE, Checkpoint, CheckpointRoot, OpenError, Sealed};
pub use cursor::Direction;
pub use guard::KeyRange;
pub use layout::HEADER_SIZE;
pub use object::{OBJECT_SIZE, behind_prefix, object_key, object_prefix};
pub use page::{Key, Malformed, Page, Wrong};
pub use parts::Part;
pub use plan::Draft;
pub use pointer::{Address, Miss, PageKind, PageRef, Pages, Pointer, Tree};
pub use prune::{PRUNE_ENTRIES_MAX, PruneFrom};
pub use read::{Snapshot, Stop, Version};
pub use scan::{Progress, Row, Scan, StepLimits};
pub use shape::{
    BATCH_BYTES_MAX, BATCH_WRITES_MAX, LEVELS_MAX, PAGE_SIZE, PAGE_SIZE_MAX, PAGES_MAX, READ_AHEAD_MAX,
    Shape, TENANTS_MAX, VALUE_SIZE_MAX,
};
pub use store::Store;
pub use versions::{KeyVersion, VersionScan};
