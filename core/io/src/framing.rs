//! How a driver finds the end of a message on a byte stream between replicas, without knowing what it says.

use kimberlite_types::ReplicaId;
use kimberlite_types::limits::FRAME_HEADER_SIZE;

/// What a driver must know of a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameShape {
    /// The claimed sender.
    pub sender: ReplicaId,
    /// Bytes of body that follow, at most `limits::FRAME_BODY_SIZE_LIMIT`.
    pub body_size: u32,
}

/// Reads the shape of a frame from its header, or says why the connection must be dropped: wrong magic,
/// version or cluster, a bad header checksum, or a size beyond the limit. Handed to a driver by the
/// program that puts a node together; `wire` has the one implementation.
pub type Framing = fn(&[u8; FRAME_HEADER_SIZE]) -> Result<FrameShape, &'static str>;
