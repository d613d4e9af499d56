//! How a page looks, byte by byte. All integers are little-endian.
//!
//! # Every page
//!
//! ```text
//!  at size
//!   0   4  magic "kbpg"
//!   4   1  version of the layout: 1
//!   5   1  kind: 1 current leaf, 2 current branch, 3 history leaf, 4 history branch, 5 value, 6 value index
//!   6   1  level: 0 for leaves and values, else one more than the children's
//!   7   1  cipher: 0 none
//!   8   4  key epoch, 0 without a cipher
//!  12   2  cells
//!  14   2  size of the prefix
//!  16   8  tenant; 2^64 - 1 for what belongs to the store itself
//!  24  24  nonce, zeros without a cipher
//!  48  16  tag, zeros without a cipher
//!  64   4  bytes used behind the header
//!  68  12  zeros
//!  80      prefix, slots, cells; zeros to the end of the page
//! ```
//!
//! # Pages of trees
//!
//! The *prefix* is what all keys of the page have in common: as much of the first key as the last key begins with.
//! A *slot* is the offset of a cell from the start of the page, two bytes; slots are in the order of the keys. Cells
//! follow each other in the same order without gaps, so there is one way to write given entries.
//!
//! ```text
//! leaf cell                              branch cell
//!   2   size of the rest of the key        2   size of the rest of the key
//!   2   size of the value, or 0xffff       8   address of the child
//!  12   begin                             32   digest of the child (BLAKE3 of its page)
//!  12   end (history alone)               12   max: the greatest begin (current) or end (history) below it
//!   n   rest of the key                    8   entries below it
//!   m   value, or 48 bytes that say       12   end of the separator (history alone)
//!       where it is                        n   rest of the separator
//! ```
//!
//! A position is eight bytes of op and four of index. The first separator of a branch is what the branch's own
//! separator was or a later key, or nothing where the second one came to lie in front of it; it is not looked at when a
//! key is searched.
//!
//! # Values in pages of their own
//!
//! ```text
//! in the leaf                  value page                       value index
//!   4  length                    used bytes of the value          cells of 40 bytes: address 8, digest 32
//!   1  level of the root
//!   3  zeros
//!   8  address of the root
//!  32  digest of the root
//! ```
//!
//! All value pages but the last of a value are full, and so are all indexes but the last of a level.
//!
//! # In memory
//!
//! A page that was not yet written has the same bytes, but its address is a *temporary* one (the highest bit is set),
//! and pointers to such a page have a digest of zeros.

use kimberlite_crypto::Checksum;
use kimberlite_types::{LogPosition, Op};

use crate::pointer::{Address, Pointer};

pub(crate) const MAGIC: [u8; 4] = *b"kbpg";
pub(crate) const VERSION: u8 = 1;

/// Bytes of a page's header.
pub const HEADER_SIZE: usize = 80;

pub(crate) const SLOT_SIZE: usize = 2;
pub(crate) const POSITION_SIZE: usize = 12;
pub(crate) const POINTER_SIZE: usize = 60;
pub(crate) const CURRENT_LEAF_FIXED: usize = 4 + POSITION_SIZE;
pub(crate) const HISTORY_LEAF_FIXED: usize = 4 + 2 * POSITION_SIZE;
pub(crate) const CURRENT_BRANCH_FIXED: usize = 2 + POINTER_SIZE;
pub(crate) const HISTORY_BRANCH_FIXED: usize = 2 + POINTER_SIZE + POSITION_SIZE;

/// Bytes of a leaf that say where a value is.
pub(crate) const BLOB_REF_SIZE: usize = 48;

/// Bytes of a child in a value index.
pub(crate) const BLOB_CELL_SIZE: usize = 40;

/// The size of a value that stands elsewhere.
pub(crate) const ELSEWHERE: u16 = u16::MAX;

/// Offsets in the header.
pub(crate) mod at {
    pub(crate) const VERSION: usize = 4;
    pub(crate) const KIND: usize = 5;
    pub(crate) const LEVEL: usize = 6;
    pub(crate) const CIPHER: usize = 7;
    pub(crate) const COUNT: usize = 12;
    pub(crate) const PREFIX: usize = 14;
    pub(crate) const TENANT: usize = 16;
    pub(crate) const NONCE: usize = 24;
    pub(crate) const USED: usize = 64;
    pub(crate) const RESERVED: usize = 68;
}

/// Some bytes at a place: read at once, not copied one range to another.
#[inline]
fn chunk_at<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..].first_chunk().expect("a page was checked when it came, or built here")
}

#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*chunk_at(bytes, at))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*chunk_at(bytes, at))
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*chunk_at(bytes, at))
}

#[inline]
pub(crate) fn position_at(bytes: &[u8], at: usize) -> LogPosition {
    LogPosition { op: Op(u64_at(bytes, at)), index: u32_at(bytes, at + 8) }
}

#[inline]
pub(crate) fn put_position(bytes: &mut [u8], at: usize, position: LogPosition) {
    bytes[at..at + 8].copy_from_slice(&position.op.0.to_le_bytes());
    bytes[at + 8..at + 12].copy_from_slice(&position.index.to_le_bytes());
}

#[inline]
pub(crate) fn checksum_at(bytes: &[u8], at: usize) -> Checksum {
    Checksum::from_bytes(*chunk_at(bytes, at))
}

#[inline]
pub(crate) fn pointer_at(bytes: &[u8], at: usize) -> Pointer {
    Pointer {
        address: Address(u64_at(bytes, at)),
        digest: checksum_at(bytes, at + 8),
        max: position_at(bytes, at + 40),
        entries: u64_at(bytes, at + 52),
    }
}

#[inline]
pub(crate) fn put_pointer(bytes: &mut [u8], at: usize, pointer: &Pointer) {
    bytes[at..at + 8].copy_from_slice(&pointer.address.0.to_le_bytes());
    bytes[at + 8..at + 40].copy_from_slice(pointer.digest.as_bytes());
    put_position(bytes, at + 40, pointer.max);
    bytes[at + 52..at + 60].copy_from_slice(&pointer.entries.to_le_bytes());
}

/// Where a value is that does not stand beside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobRef {
    /// Bytes of the value. Never 0.
    pub(crate) length: u32,
    /// The level of the root of its pages.
    pub(crate) level: u8,
    pub(crate) address: Address,
    pub(crate) digest: Checksum,
}

impl BlobRef {
    /// Reads the 48 bytes at `at`; `None` if the zeros are not zeros.
    pub(crate) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        if bytes[at + 5..at + 8] != [0; 3] {
            return None;
        }
        Some(Self {
            length: u32_at(bytes, at),
            level: bytes[at + 4],
            address: Address(u64_at(bytes, at + 8)),
            digest: checksum_at(bytes, at + 16),
        })
    }

    pub(crate) fn write(&self, bytes: &mut [u8], at: usize) {
        bytes[at..at + 4].copy_from_slice(&self.length.to_le_bytes());
        bytes[at + 4] = self.level;
        bytes[at + 5..at + 8].fill(0);
        bytes[at + 8..at + 16].copy_from_slice(&self.address.0.to_le_bytes());
        bytes[at + 16..at + 48].copy_from_slice(self.digest.as_bytes());
    }
}
