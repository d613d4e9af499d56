//! One entry of a recording, and the block that carries it.
//!
//! ```text
//!  0   4  bytes of the payload, little-endian
//!  4   4  the same, every bit turned over: a size that rotted is told from a file that ends early
//!  8  16  the first half of BLAKE3 over (hash before, bytes 0 to 8, payload)
//! 24      the payload: postcard of `Entry`
//! ```
//!
//! The hash before is the whole hash of the previous block; that of the first block is the hash in the head. So the hash
//! of a block covers all of the file up to its end.

use kimberlite_io::{EffectDigest, Event, Step};
use kimberlite_types::{Now, Op};
use serde::{Deserialize, Serialize};

/// Bytes of a block's own head.
pub(crate) const BLOCK_HEAD_SIZE: usize = 24;

/// Bytes of a payload at most. The largest event is a read of the whole header ring, 8 MiB in production.
pub(crate) const PAYLOAD_SIZE_MAX: usize = 64 << 20;

/// What a recording holds, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The node is about to handle this.
    Event(Step),
    /// How the node stood before the next event.
    Standing(Standing),
    /// The recording ended, here, on purpose.
    Ended {
        /// Why.
        why: Ended,
        /// How the node stood then.
        standing: Standing,
        /// Everything it had asked for.
        asks: EffectDigest,
    },
}

/// An entry that holds an event of someone else's. The same bytes as [`Entry`].
#[derive(Serialize)]
pub(crate) enum EntryRef<'a> {
    Event { now: Now, event: &'a Event, before: EffectDigest },
    Standing(Standing),
    Ended { why: Ended, standing: Standing, asks: EffectDigest },
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Events handled so far.
    pub events: u64,
    /// What is committed.
    pub commit: Op,
    /// The digest of its state.
    pub state: [u8; 32],
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// The node was asked to stop.
    Stopped,
    /// The node halted by itself.
    Halted,
    /// The recording reached its limit; the node went on.
    Limit,
}

impl Ended {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "the node was stopped",
            Self::Halted => "the node halted",
            Self::Limit => "the limit of the recording was reached; the node went on",
        }
    }
}

/// The first half of a block's head.
pub(crate) fn sizes(payload: usize) -> [u8; 8] {
    let size = u32::try_from(payload).expect("payloads are bounded");
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    bytes[4..].copy_from_slice(&(!size).to_le_bytes());
    bytes
}

/// The size in a block's head, if its two halves agree.
pub(crate) fn size_in(head: &[u8; BLOCK_HEAD_SIZE]) -> Option<usize> {
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let size = number(0);
    (size == !number(4) && size as usize <= PAYLOAD_SIZE_MAX).then_some(size as usize)
}

/// The hash of a block.
pub(crate) fn chain(before: &[u8; 32], sizes: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(sizes);
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_io::{Conn, Frame};

    #[test]
    fn an_entry_is_the_same_bytes_whoever_owns_its_event() {
        let event = Event::Received { conn: Conn(4), data: Frame::copy_from(b"abc") };
        let step = Step { now: Now::default(), event: event.clone(), before: EffectDigest(77) };
        let borrowed = EntryRef::Event { now: step.now, event: &event, before: step.before };
        let bytes = postcard::to_allocvec(&borrowed).unwrap();
        assert_eq!(bytes, postcard::to_allocvec(&Entry::Event(step)).unwrap());
        let standing = Standing { events: 3, commit: Op(2), state: [9; 32] };
        let same = |borrowed: &EntryRef<'_>, owned: &Entry| {
            assert_eq!(postcard::to_allocvec(borrowed), postcard::to_allocvec(owned));
        };
        same(&EntryRef::Standing(standing), &Entry::Standing(standing));
        let (why, asks) = (Ended::Limit, EffectDigest(5));
        same(&EntryRef::Ended { why, standing, asks }, &Entry::Ended { why, standing, asks });
    }
}
