//! The hash chain through the entries of the log.
//!
//! Each entry stores the chain hash of the entry before it, and its own is
//!
//! ```text
//! SHA-256( 19 ‖ "kimberlite.entry.v1" ‖ previous chain hash (32) ‖ the entry's stored bytes )
//!          └ one byte: the length of the tag
//! ```
//!
//! So the last chain hash commits to every byte of every entry and to their order. The tag keeps a
//! chain hash from ever equalling a digest made for another purpose: a Merkle node begins with a
//! byte 0 or 1, and no other tag of this project is a prefix of this one.
//!
//! The chain covers bytes *as stored*, thus sealed payloads while they are sealed: destroying a key
//! erases data and leaves the chain valid.

use crate::bytes::digest;
use crate::hash::Sha256;

/// The domain of entry hashes. A new entry format gets a new tag.
const ENTRY_TAG: &[u8] = b"kimberlite.entry.v1";

/// Bytes that SHA-256 takes at once.
const BLOCK: usize = 64;

/// What [`ChainHash::GENESIS`] is the SHA-256 of.
#[cfg(test)]
pub(crate) const GENESIS_TAG: &[u8] = b"kimberlite.genesis.v1";

digest! {
    /// The hash of an entry and, through its predecessor's, of the whole log up to it.
    ChainHash
}

impl ChainHash {
    /// The chain hash of an empty log: SHA-256 of the ASCII text `kimberlite.genesis.v1`. A digest of
    /// words rather than zeros, so that a forgotten field cannot pass for the start of a log.
    pub const GENESIS: Self = Self(GENESIS_BYTES);

    /// The chain hash of the entry that follows `previous`.
    ///
    /// `entry` is the entry's stored bytes, in as many parts as the caller has them: only the joined
    /// bytes count, so the entry's format must fix where each field ends.
    #[must_use]
    pub fn link(previous: &ChainHash, entry: &[&[u8]]) -> ChainHash {
        const { assert!(ENTRY_TAG.len() == 19, "the tag's length is part of the format") };
        // SHA-256 takes whole blocks from where they are and copies parts of one, so the first block is put together here.
        let mut block = [0; BLOCK];
        block[0] = 19;
        block[1..20].copy_from_slice(ENTRY_TAG);
        block[20..52].copy_from_slice(&previous.0);
        let (first, others) =
            entry.split_first().map_or((&[][..], &[][..]), |(first, others)| (*first, others));
        let (begin, rest) = first.split_at(first.len().min(BLOCK - 52));
        block[52..52 + begin.len()].copy_from_slice(begin);
        let mut hasher = Sha256::new();
        hasher.update(&block[..52 + begin.len()]);
        hasher.update(rest);
        for part in others {
            hasher.update(part);
        }
        Self(*hasher.finish().as_bytes())
    }
}

/// The bytes of [`ChainHash::GENESIS`]; a test computes them again.
const GENESIS_BYTES: [u8; 32] = [
    0xf8, 0x94, 0xf0, 0x17, 0xc3, 0x2b, 0x1d, 0xa2, 0x2f, 0xc6, 0x16, 0x7b, 0xb1, 0x77, 0x65, 0x80, 0xbd,
    0xa7, 0xfc, 0x22, 0x2b, 0xa4, 0x11, 0x7e, 0x3b, 0xb4, 0x35, 0xd6, 0xf4, 0xcc, 0x45, 0xf9,
];
