//! What the driver counts and what it has to tell people.

use std::net::SocketAddr;
use std::path::PathBuf;

use kimberlite_types::ReplicaId;

/// Counters since the driver was opened. They only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads answered with data.
    pub reads: u64,
    /// Bytes read from disk.
    pub bytes_read: u64,
    /// Writes answered with `Ok`.
    pub writes: u64,
    /// Bytes written to disk.
    pub bytes_written: u64,
    /// `fdatasync` calls, each covering several writes. Single writes need none.
    pub syncs: u64,
    /// Reads, writes and trims answered with a fault other than `Absent`.
    pub disk_faults: u64,
    /// Segments created.
    pub segments_created: u64,
    /// Messages sent to other replicas.
    pub messages_sent: u64,
    /// Messages received from other replicas.
    pub messages_received: u64,
    /// Messages dropped because a link's queue was full.
    pub link_queue_drops: u64,
    /// Messages lost because their link broke while they were being sent.
    pub link_send_losses: u64,
    /// Times a link to another replica came up, the first time included.
    pub link_ups: u64,
    /// Times a link broke or could not be opened.
    pub link_failures: u64,
    /// Inbound replica connections dropped because a frame was malformed.
    pub frames_malformed: u64,
    /// Why the last one was.
    pub last_malformed: Option<&'static str>,
    /// Replica connections accepted.
    pub replicas_accepted: u64,
    /// Inbound replica connections closed to make room for another.
    pub replicas_evicted: u64,
    /// Client connections accepted.
    pub clients_accepted: u64,
    /// Client connections closed at once because there were `CONNECTIONS_MAX`.
    pub clients_refused: u64,
    /// Streams closed because the other side did not read.
    pub slow_readers: u64,
    /// Receives asked for on streams. One that goes on brings many deliveries, so a stream of small messages adds few.
    pub stream_receives: u64,
    /// Bytes received on all sockets.
    pub bytes_received: u64,
    /// Bytes sent on all sockets.
    pub bytes_sent: u64,
    /// Accepts that failed, for instance for lack of descriptors.
    pub accept_failures: u64,
    /// Notes dropped because nobody took them.
    pub notes_dropped: u64,
}

/// Something a person may want to know. Nothing depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverNote {
    /// The file system refuses direct I/O; files go through the page cache instead.
    DirectIoUnavailable {
        /// The data directory.
        path: PathBuf,
    },
    /// A connection on the replica port was dropped.
    MalformedFrame {
        /// The other side.
        from: SocketAddr,
        /// What was wrong with what it sent.
        reason: &'static str,
    },
    /// Messages can be sent to this peer.
    LinkUp {
        /// The peer.
        peer: ReplicaId,
    },
    /// Messages cannot be sent to this peer for now.
    LinkDown {
        /// The peer.
        peer: ReplicaId,
    },
    /// A client did not read and was disconnected.
    SlowReader {
        /// Bytes that were queued for it.
        queued: u64,
    },
    /// A segment could not be prepared.
    SegmentFailed {
        /// Its number.
        segment: u64,
        /// What the kernel said.
        reason: String,
    },
    /// A segment's file was shorter than a segment; what stood there is lost. It was filled up with zeros, or, in a
    /// directory opened for reading, reads as if it were.
    SegmentCut {
        /// Its number.
        segment: u64,
        /// Bytes that were left of it.
        size: u64,
    },
    /// A disk operation failed.
    DiskFault {
        /// What was tried and what the kernel said.
        reason: String,
    },
    /// The process may open fewer descriptors than a full node needs; connections may fail.
    FewDescriptors {
        /// What it may open.
        limit: u64,
        /// What it may need.
        wanted: u64,
    },
    /// Connections cannot be accepted for now.
    AcceptFailed {
        /// What the kernel said.
        reason: String,
    },
}

/// Notes kept for the caller; when it does not take them, the newest are dropped and counted.
const NOTES_MAX: usize = 1024;

/// The counters and the notes nobody took yet.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) stats: Stats,
    notes: Vec<DriverNote>,
}

impl Ledger {
    pub(crate) fn note(&mut self, note: DriverNote) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        } else {
            self.stats.notes_dropped += 1;
        }
    }

    pub(crate) fn take_notes(&mut self) -> Vec<DriverNote> {
        std::mem::take(&mut self.notes)
    }
}
