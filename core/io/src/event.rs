//! All that can ever happen to a machine.

use kimberlite_types::ReplicaId;
use kimberlite_types::limits::FRAME_HEADER_SIZE;
use serde::{Deserialize, Serialize};

use crate::{Buf, Conn, Frame, Token};

/// One message between replicas: a head of fixed size and a body, possibly empty. The driver looks at
/// neither; `wire` says what they mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// The frame header, [`FRAME_HEADER_SIZE`] bytes.
    #[serde(with = "head_bytes")]
    pub head: [u8; FRAME_HEADER_SIZE],
    /// The body. In one that arrived it starts on a sector boundary and is followed by zeros up to the
    /// next one, in memory, so that a prepare goes from the network to the disk without a copy.
    pub body: Frame,
}

/// What the world tells a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Time passed. Early and extra wakes are harmless.
    Wake,
    /// Answer to `Disk::read`.
    Read {
        /// The ask.
        token: Token,
        /// The bytes, all of them, or why not.
        result: Result<Buf, ReadFault>,
    },
    /// Answer to `Disk::write`. `Ok` means the data survives a power cut.
    Written {
        /// The ask.
        token: Token,
        /// Whether it was written.
        result: Result<(), WriteFault>,
    },
    /// Answer to `Disk::trim`.
    Trimmed {
        /// The ask.
        token: Token,
        /// Whether it was trimmed.
        result: Result<(), WriteFault>,
    },
    /// A message arrived on a link between replicas. `from` is a claim until the frame is authenticated.
    Message {
        /// The claimed sender.
        from: ReplicaId,
        /// The message.
        packet: Packet,
    },
    /// A byte stream is open: one that was asked for, or one the other side opened.
    Opened {
        /// The stream.
        conn: Conn,
    },
    /// Bytes arrived, in order, cut anywhere. They count against the granted credit.
    Received {
        /// The stream.
        conn: Conn,
        /// At least one byte.
        data: Frame,
    },
    /// Everything handed to `Net::stream` so far has left this process. One may stand for several calls;
    /// none comes twice for the same bytes.
    Sent {
        /// The stream.
        conn: Conn,
    },
    /// The stream is gone; nothing more is heard of it.
    Closed {
        /// The stream.
        conn: Conn,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a read gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadFault {
    /// At least a part of the place was never written, or is trimmed, or lies past the end of a fixed zone.
    /// In the log and the grid such a part may answer zeros as well, and the other after a restart:
    /// see [`Disk::read`](crate::Disk::read).
    Absent,
    /// The disk could not read it. The place may still be written.
    Failed,
}

/// Why a write did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteFault {
    /// The disk is full. The place holds, sector by sector, what it held before or what was to be written.
    /// The same write may be asked again when there is room; until one was `Written`, nothing is promised
    /// of the place.
    NoSpace,
    /// The disk failed. What is there now is unknown. Never asked again: the node halts.
    Failed,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseReason {
    /// The other side finished.
    Ended,
    /// It broke: reset, unreachable, timed out.
    Broken,
    /// The connection could not be opened.
    Refused,
}

mod head_bytes {
    use super::FRAME_HEADER_SIZE;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        head: &[u8; FRAME_HEADER_SIZE],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(head)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; FRAME_HEADER_SIZE], D::Error> {
        let bytes: &[u8] = <&[u8]>::deserialize(deserializer)?;
        bytes.try_into().map_err(|_| D::Error::invalid_length(bytes.len(), &"a frame header"))
    }
}
