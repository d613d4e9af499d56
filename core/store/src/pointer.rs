//! Addresses, pointers, and pages that may be missing.

use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_types::{LogPosition, Op, TenantId};

use crate::page::Page;

/// The place of a page: its number, counted from 0. Its bytes begin at the number times the size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

/// Set in the address of a page that has no place yet.
const TEMPORARY: u64 = 1 << 63;

impl Address {
    pub(crate) const fn of_temporary(id: u32) -> Self {
        Self(TEMPORARY | id as u64)
    }

    /// The id of a page that has no place yet.
    pub(crate) const fn temporary(self) -> Option<u32> {
        if self.0 & TEMPORARY != 0 { Some(self.0 as u32) } else { None }
    }

    /// Whether a written page may have this address.
    pub(crate) const fn is_place(self) -> bool {
        self.0 < crate::shape::PAGES_MAX
    }
}

/// What a parent knows of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Where it is.
    pub address: Address,
    /// BLAKE3 over its page; zeros while it has no place.
    pub digest: Checksum,
    /// The greatest `begin` (current tree) or `end` (history tree) of the entries below it.
    pub max: LogPosition,
    /// Entries below it.
    pub entries: u64,
}

/// One of a tenant's two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tree {
    /// The newest version of each key, by key.
    Current,
    /// Versions that ended, by key and end.
    History,
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Entries of a tree.
    Leaf(Tree),
    /// Children of a tree.
    Branch(Tree),
    /// A part of a value.
    Value,
    /// Where the parts of a value are.
    ValueIndex,
}

impl PageKind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Leaf(Tree::Current),
        Self::Branch(Tree::Current),
        Self::Leaf(Tree::History),
        Self::Branch(Tree::History),
        Self::Value,
        Self::ValueIndex,
    ];

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Leaf(Tree::Current) => 1,
            Self::Branch(Tree::Current) => 2,
            Self::Leaf(Tree::History) => 3,
            Self::Branch(Tree::History) => 4,
            Self::Value => 5,
            Self::ValueIndex => 6,
        }
    }

    pub(crate) const fn of(tree: Tree, level: u8) -> Self {
        if level == 0 { Self::Leaf(tree) } else { Self::Branch(tree) }
    }

    pub(crate) const fn of_value(level: u8) -> Self {
        if level == 0 { Self::Value } else { Self::ValueIndex }
    }
}

/// The tenant in the header of pages that belong to the store itself.
pub(crate) const NO_TENANT: TenantId = TenantId(u64::MAX);

/// A page as its parent names it: enough to fetch it from a disk or a peer and to know it when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRef {
    /// Where it is.
    pub address: Address,
    /// BLAKE3 over its bytes.
    pub digest: Checksum,
    /// Whose it is; 2^64 - 1 for the store's own.
    pub tenant: TenantId,
    /// What it holds.
    pub kind: PageKind,
    /// Its level above the leaves.
    pub level: u8,
    /// What it says of itself, too: [`Pointer::max`]. Zero for pages of values.
    pub max: LogPosition,
    /// [`Pointer::entries`]; for pages of values, bytes used behind the header.
    pub entries: u64,
}

impl PageRef {
    pub(crate) fn of(pointer: &Pointer, tenant: TenantId, tree: Tree, level: u8) -> Self {
        Self {
            address: pointer.address,
            digest: pointer.digest,
            tenant,
            kind: PageKind::of(tree, level),
            level,
            max: pointer.max,
            entries: pointer.entries,
        }
    }
}

/// Pages that were written. A page that is not at hand is named in the [`Miss`].
///
/// What is handed out was made by [`Page::decode`] for this very reference, or by a checkpoint; an address alone does
/// not name a page, as it is used again. That a page goes missing at any time is fine.
pub trait Pages {
    /// The page, if it is at hand.
    fn page(&self, at: PageRef) -> Result<&Page, Miss>;
}

/// Pages that are missing: fetch them, keep them at hand, and run the step again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Miss {
    pages: Vec<PageRef>,
}

impl Miss {
    /// One page is missing.
    pub fn of(at: PageRef) -> Self {
        Self { pages: alloc::vec![at] }
    }

    /// The pages, each once.
    pub fn pages(&self) -> &[PageRef] {
        &self.pages
    }

    /// All of these are missing.
    pub(crate) fn of_all(mut pages: Vec<PageRef>) -> Self {
        pages.sort_by_key(|page| page.address);
        pages.dedup_by_key(|page| page.address);
        Self { pages }
    }

    pub(crate) fn into_pages(self) -> Vec<PageRef> {
        self.pages
    }
}

/// The least position.
pub(crate) const POSITION_MIN: LogPosition = LogPosition { op: Op(0), index: 0 };

/// A position that is never reached.
pub(crate) const POSITION_MAX: LogPosition = LogPosition { op: Op(u64::MAX), index: u32::MAX };

/// The position after this one, as positions are ordered.
pub(crate) fn after(position: LogPosition) -> LogPosition {
    match position.index.checked_add(1) {
        Some(index) => LogPosition { index, ..position },
        None => LogPosition { op: Op(position.op.0.saturating_add(1)), index: 0 },
    }
}
