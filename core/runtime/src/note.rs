//! What a node tells whoever watches it: metrics and logs in production, checkers in simulation.

use alloc::vec::Vec;
use core::fmt;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Conn, Place};
use kimberlite_kernel::{Applied, StateDigest};
use kimberlite_storage::Damage;
use kimberlite_types::{Op, View};
use kimberlite_wire::message::Mark;
use kimberlite_wire::{Malformed, Prepare, PrepareHeader};

/// One thing worth telling.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the common one, and is moved once")]
pub enum Note {
    /// The journal is open; what is committed is being replayed.
    Opened {
        /// The durable view.
        view: View,
        /// The view whose log this is.
        log_view: View,
        /// The last headers of the log, up to its head, and what is held of each.
        tail: Vec<(PrepareHeader, Mark)>,
        /// What is known to be committed.
        commit: Op,
        /// Whether the head is certain.
        head_certain: bool,
        /// The last op that this replica may have held and knows to have lost; the head if there is none behind it.
        doubt_until: Op,
    },
    /// The state was opened from a checkpoint: ops are executed from the next one on.
    Restored {
        /// The op that it was taken after.
        op: Op,
        /// The checksum of that op's prepare.
        checksum: Checksum,
        /// The state.
        digest: StateDigest,
    },
    /// A checkpoint is lost, and the state with it: it is made anew from the log, from the first op on.
    Rebuilds {
        /// The op that the checkpoint was taken after, or the last one executed.
        op: Op,
        /// Why.
        why: CheckpointLost,
    },
    /// A checkpoint is durable: a restart begins with it.
    Checkpoint {
        /// The op that it was taken after.
        op: Op,
        /// Covers all its pages, by digests.
        digest: Checksum,
    },
    /// A page that was lost came from a peer, and stands in its place again.
    PageMended {
        /// Where.
        place: Place,
    },
    /// From consensus.
    Consensus(kimberlite_vsr::Note),
    /// An op was executed.
    Committed {
        /// The op.
        prepare: Prepare,
        /// What became of its entries.
        applied: Applied,
        /// The state after it.
        digest: StateDigest,
    },
    /// This replica held a prepare and its ring entry durably.
    Durable {
        /// The op.
        op: Op,
        /// The prepare.
        checksum: Checksum,
    },
    /// A segment is complete and never changes again.
    Sealed {
        /// The segment, counted from 0.
        segment: u64,
    },
    /// A damaged prepare was written again.
    Repaired {
        /// The op.
        op: Op,
        /// Where it stands.
        place: Place,
    },
    /// Something on disk is not what it should be.
    Damaged {
        /// Where.
        place: Place,
        /// What.
        what: Damage,
        /// The op it belongs to, if that is known.
        op: Option<Op>,
    },
    /// The disk is full; the node waits for room and keeps reading.
    Full,
    /// The disk has room again.
    Room,
    /// A client sent what is no frame; its stream was closed.
    ClientMalformed {
        /// The stream.
        conn: Conn,
        /// What is wrong.
        why: Malformed,
    },
    /// The node has stopped for good.
    Halted(HaltReason),
}

/// Why a checkpoint cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointLost {
    /// A page cannot be read, or is not what its parent names.
    Page {
        /// Where it stands.
        place: Place,
    },
    /// It is none that this release with this configuration takes.
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

impl fmt::Display for CheckpointLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page { place } => write!(f, "the page at {place} is damaged"),
            Self::Malformed { what } => f.write_str(what),
        }
    }
}

/// Why a node stopped. `Display` says what the operator can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltReason {
    /// The journal could not go on.
    Storage(kimberlite_storage::HaltReason),
    /// A lone node found damage in its log. It has nobody to repair it from and invents nothing.
    Damaged {
        /// The op that is damaged, as far as known.
        op: Op,
        /// Where it stands.
        place: Place,
    },
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(reason) => reason.fmt(f),
            Self::Damaged { op, place } => write!(
                f,
                "the log is damaged at {place} (op {op}) and this cluster has no other replica to repair it \
                 from: restore the data directory from a copy; `kmb verify` names every damaged place"
            ),
        }
    }
}

impl core::error::Error for HaltReason {}
