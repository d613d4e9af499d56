//! Makes the checksums of altered bytes true again, so that what lies behind them is reached.

use kimberlite_crypto::checksum;
use kimberlite_types::limits::{
    FRAME_HEADER_SIZE, PREPARE_HEADER_SIZE, PREPARE_SIZE_LIMIT, SUPERBLOCK_COPY_SIZE,
};
use kimberlite_wire::header::{FRAME_MAGIC, PROTOCOL_VERSION};
use kimberlite_wire::prepare::{PREPARE_MAGIC, PREPARE_VERSION};

use crate::seat::CLUSTER;

/// Magic, version and checksum of a frame header.
pub(crate) fn frame_head(head: &mut [u8; FRAME_HEADER_SIZE]) {
    head[..4].copy_from_slice(&FRAME_MAGIC);
    head[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    let sum = checksum(&head[..112]);
    head[112..].copy_from_slice(&sum.as_bytes()[..16]);
}

/// One whole frame between client and node: its size, cluster and both checksums.
pub(crate) fn client_frame(frame: &mut [u8]) {
    let size = frame.len() as u32;
    let Some((head, body)) = frame.split_first_chunk_mut::<FRAME_HEADER_SIZE>() else { return };
    head[8..24].copy_from_slice(&CLUSTER.0.to_le_bytes());
    head[24..28].copy_from_slice(&size.to_le_bytes());
    head[64..96].copy_from_slice(checksum(body).as_bytes());
    frame_head(head);
}

/// A prepare in the memory it fills: marks, size and both checksums.
pub(crate) fn prepare(bytes: &mut [u8]) {
    if bytes.len() < PREPARE_HEADER_SIZE || bytes.len() > PREPARE_SIZE_LIMIT as usize {
        return;
    }
    let size = bytes.len() as u32;
    let (head, body) = bytes.split_at_mut(PREPARE_HEADER_SIZE);
    head[184..188].copy_from_slice(&size.to_le_bytes());
    head[32..64].copy_from_slice(checksum(body).as_bytes());
    prepare_header(head);
}

/// Marks and checksum of a prepare header.
pub(crate) fn prepare_header(head: &mut [u8]) {
    head[192..196].copy_from_slice(&PREPARE_MAGIC);
    head[196..198].copy_from_slice(&PREPARE_VERSION.to_le_bytes());
    let sum = checksum(&head[32..PREPARE_HEADER_SIZE]);
    head[..32].copy_from_slice(sum.as_bytes());
}

/// The checksum of a copy of the superblock.
pub(crate) fn superblock(copy: &mut [u8]) {
    assert_eq!(copy.len(), SUPERBLOCK_COPY_SIZE, "a copy is mended as a whole");
    let sum = checksum(&copy[32..]);
    copy[..32].copy_from_slice(sum.as_bytes());
}
