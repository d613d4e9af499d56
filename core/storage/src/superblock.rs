//! The superblock.

/// The format this build writes.
pub const SUPERBLOCK_VERSION: u16 = 1;
