//! The size of pages, and the limits that follow from it.

use kimberlite_types::limits::SECTOR_SIZE;

use crate::layout::{
    BLOB_CELL_SIZE, BLOB_REF_SIZE, HEADER_SIZE, HISTORY_BRANCH_FIXED, HISTORY_LEAF_FIXED, SLOT_SIZE,
};

/// Bytes of a page unless a store is made with another [`Shape`]. A leaf holds about 60 rows of 100 bytes, a branch
/// about 100 children: three levels hold half a million such rows, four hold fifty million.
pub const PAGE_SIZE: usize = 8 << 10;

/// Bytes of the largest page: offsets within a page are 16 bits wide.
pub const PAGE_SIZE_MAX: usize = 64 << 10;

/// Bytes of the largest value: a row of 512 KiB and an eighth on top for its encoding.
pub const VALUE_SIZE_MAX: usize = (512 << 10) + (64 << 10);

/// Writes in one [`WriteBatch`](crate::WriteBatch). A command of 1 MiB holds 8,000 rows of 128 bytes; one with more
/// writes is cut into several batches of one position.
pub const BATCH_WRITES_MAX: usize = 8_192;

/// Bytes of keys and values in one batch: a command of 1 MiB with four index entries for each row, or seven rows of the
/// largest size.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Levels of one tree. A branch has two children at least, but half full ones of the smallest pages and the longest
/// keys have four: 4^32 leaves are more than there are addresses.
pub const LEVELS_MAX: u8 = 32;

/// Leaves named at once when a scan misses one: 8 x 8 KiB is one read of 64 KiB when they stand side by side.
pub const READ_AHEAD_MAX: usize = 8;

/// Tenants of one store. The directory is written whole at each checkpoint: 65,536 x 192 bytes are 12 MiB.
pub const TENANTS_MAX: usize = 65_536;

/// Pages of one store: a free set of 2^32 bits is 512 MiB, for 32 TiB of pages of 8 KiB.
pub const PAGES_MAX: u64 = 1 << 32;

/// A page holds four of the largest cells at least.
const CELLS_MIN: usize = 4;

/// How large the pages of a store are. The same on every replica and for the life of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    page_size: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { page_size: PAGE_SIZE }
    }
}

impl Shape {
    /// Pages of `page_size` bytes: a multiple of 4 KiB, up to [`PAGE_SIZE_MAX`]. `None` for other sizes.
    pub const fn new(page_size: usize) -> Option<Self> {
        if page_size == 0 || !page_size.is_multiple_of(SECTOR_SIZE) || page_size > PAGE_SIZE_MAX {
            return None;
        }
        Some(Self { page_size })
    }

    /// Bytes of a page.
    pub const fn page_size(self) -> usize {
        self.page_size
    }

    /// Bytes of a page behind its header.
    pub const fn capacity(self) -> usize {
        self.page_size - HEADER_SIZE
    }

    /// Bytes of the longest key: four cells of a history tree's branch, or of its leaf with the value elsewhere, fit in
    /// one page. 1,948 with pages of 8 KiB.
    pub const fn key_size_max(self) -> usize {
        const LEAF: usize = HISTORY_LEAF_FIXED + BLOB_REF_SIZE;
        const FIXED: usize = if LEAF > HISTORY_BRANCH_FIXED { LEAF } else { HISTORY_BRANCH_FIXED };
        self.capacity() / CELLS_MIN - FIXED - SLOT_SIZE
    }

    /// Whether a value stands in the leaf beside its key, or in pages of its own. The same for both trees, so that a
    /// value moves from the current tree to the history as it is.
    pub(crate) const fn is_inline(self, key_size: usize, value_size: usize) -> bool {
        HISTORY_LEAF_FIXED + SLOT_SIZE + key_size + value_size <= self.capacity() / CELLS_MIN
    }

    /// A page with fewer bytes than this is joined with a neighbour when something was taken out of it.
    pub(crate) const fn merge_below(self) -> usize {
        self.capacity() / 3
    }

    /// Children of a page that lists the pages of a value.
    pub(crate) const fn blob_fanout(self) -> usize {
        self.capacity() / BLOB_CELL_SIZE
    }

    /// Bytes of a value below one page of level `level` of its pages.
    pub(crate) const fn blob_span(self, level: u8) -> u64 {
        let mut span = self.capacity() as u64;
        let mut at = 0;
        while at < level {
            span = span.saturating_mul(self.blob_fanout() as u64);
            at += 1;
        }
        span
    }

    /// The level of the root of the pages that hold `length` bytes.
    pub(crate) const fn blob_level(self, length: u32) -> u8 {
        let mut level = 0;
        while self.blob_span(level) < length as u64 {
            level += 1;
        }
        level
    }
}
