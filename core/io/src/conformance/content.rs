//! What the machines of the suite send, queue and write: bytes that tell where they belong.

use alloc::format;
use alloc::string::String;

use kimberlite_types::ReplicaId;
use kimberlite_types::limits::{FRAME_BODY_SIZE_LIMIT, FRAME_HEADER_SIZE};

use crate::{Buf, Frame, FrameShape, Framing};

/// The first bytes of every head of the suite.
const MAGIC: [u8; 8] = *b"kmb-conf";

/// How a driver under test reads the heads of the suite's messages.
pub const FRAMING: Framing = |head| {
    if head[..8] != MAGIC {
        return Err("not a head of the conformance suite");
    }
    let body_size = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    if body_size > FRAME_BODY_SIZE_LIMIT {
        return Err("the body is larger than the limit");
    }
    Ok(FrameShape { sender: ReplicaId(head[8]), body_size })
};

/// The head of message `number` from `sender` with a body of `body_size` bytes: magic (8 bytes), sender
/// (1), zeros (3), body size (4), number (8), and a pattern of the number to the end.
pub fn frame_head(sender: ReplicaId, body_size: u32, number: u64) -> [u8; FRAME_HEADER_SIZE] {
    let mut head = [0; FRAME_HEADER_SIZE];
    head[..8].copy_from_slice(&MAGIC);
    head[8] = sender.0;
    head[12..16].copy_from_slice(&body_size.to_le_bytes());
    head[16..24].copy_from_slice(&number.to_le_bytes());
    fill(number, 24, &mut head[24..]);
    head
}

/// The number in a head.
pub(super) fn number_of(head: &[u8; FRAME_HEADER_SIZE]) -> u64 {
    head[16..24].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Fills `bytes`, which start at `position` of the endless sequence `seed`.
pub(super) fn fill(seed: u64, position: u64, bytes: &mut [u8]) {
    for (byte, at) in bytes.iter_mut().zip(position..) {
        *byte = pattern(seed, at);
    }
}

/// `len` bytes of the sequence `seed`, from `position`.
pub(super) fn content(seed: u64, position: u64, len: usize) -> Frame {
    let mut buf = Buf::zeroed(len);
    fill(seed, position, &mut buf);
    buf.freeze()
}

/// Whether `bytes` are the sequence `seed` from `position`, or where they first differ.
pub(super) fn check(seed: u64, position: u64, bytes: &[u8]) -> Result<(), String> {
    match bytes.iter().zip(position..).find(|(byte, at)| **byte != pattern(seed, *at)) {
        None => Ok(()),
        Some((_, at)) => Err(format!("other bytes than were handed over, from byte {at}")),
    }
}

/// Byte `at` of the sequence `seed`. Mixed as in SplitMix64 (Steele, Lea, Flood 2014), so that no two
/// places look alike.
fn pattern(seed: u64, at: u64) -> u8 {
    let mut mixed = (seed << 48 ^ at).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 56) as u8
}
