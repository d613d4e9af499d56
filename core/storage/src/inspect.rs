//! Decodes what is on disk into plain structs, for people and tools. Bytes come from anywhere.

use alloc::vec::Vec;

use kimberlite_crypto::{ChainHash, Checksum};
use kimberlite_store::CheckpointRoot;
use kimberlite_types::limits::PREPARE_HEADER_SIZE;
use kimberlite_types::{ClusterId, Layout, Op, ReplicaId, View, WallTime};
use kimberlite_wire::PrepareHeader;
use serde::Serialize;

use crate::ViewState;
use crate::footer::Footer;
use crate::ring::{Slot, decode_slot};
use crate::superblock::{CopyFault, Superblock};

pub use crate::footer::{offset as footer_offset, size_max as footer_size_max};
pub use crate::superblock::copy_offset as superblock_offset;

/// One copy of the superblock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::large_enum_variant, reason = "there are four, and the large one is the common one")]
pub enum SuperblockCopy {
    /// Nothing was ever written there.
    Blank,
    /// Unreadable, or not what was written.
    Damaged,
    /// Intact, of another format.
    Version(u16),
    /// Intact.
    Intact(SuperblockFields),
}

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SuperblockFields {
    /// Its checksum, the same in all copies.
    pub checksum: Checksum,
    /// Counts superblocks from 0.
    pub sequence: u64,
    /// The checksum of the superblock before; zero in the first.
    pub parent: Checksum,
    /// The cluster.
    pub cluster: ClusterId,
    /// Which replica this is.
    pub replica: ReplicaId,
    /// Replicas in the cluster.
    pub replicas: u8,
    /// The layout of the data directory.
    pub layout: Layout,
    /// What the replica promised.
    pub state: ViewState,
    /// Its last checkpoint, if there is one.
    pub checkpoint: Option<CheckpointFields>,
}

/// A checkpoint, as a superblock names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointFields {
    /// The op whose state it is.
    pub op: Op,
    /// The checksum of its prepare.
    pub checksum: Checksum,
    /// Counts checkpoints from 1.
    pub number: u64,
    /// The digest that covers all its pages.
    pub digest: Checksum,
    /// What its pages are found by.
    #[serde(skip)]
    pub root: CheckpointRoot,
}

/// Decodes one copy of the superblock: `SUPERBLOCK_COPY_SIZE` bytes, or what could be read of them.
pub fn superblock(copy: &[u8]) -> SuperblockCopy {
    match Superblock::decode(copy) {
        Ok((superblock, checksum)) => SuperblockCopy::Intact(SuperblockFields {
            checksum,
            sequence: superblock.sequence,
            parent: superblock.parent,
            cluster: superblock.cluster,
            replica: superblock.replica,
            replicas: superblock.replicas,
            layout: superblock.layout,
            state: superblock.state,
            checkpoint: superblock.checkpoint.map(|name| CheckpointFields {
                op: name.op,
                checksum: name.checksum,
                number: name.root.sequence(),
                digest: name.root.digest(),
                root: name.root,
            }),
        }),
        Err(CopyFault::Blank) => SuperblockCopy::Blank,
        Err(CopyFault::Version(found)) => SuperblockCopy::Version(found),
        Err(CopyFault::Damaged) => SuperblockCopy::Damaged,
    }
}

/// One slot of the header ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RingSlot {
    /// No prepare has come by yet.
    Reserved,
    /// This op was sealed; its header was lost with the slot.
    Sealed(Op),
    /// Unreadable, or not what was written.
    Bad,
    /// The header of a prepare that was durable.
    Header(PrepareHeader),
}

/// Decodes the slots in `bytes`, whose first slot has the number `first`. A last part shorter than a slot is ignored.
pub fn ring(bytes: &[u8], first: u32, cluster: ClusterId, layout: &Layout) -> Vec<RingSlot> {
    (first..layout.ring_slots)
        .zip(bytes.chunks_exact(PREPARE_HEADER_SIZE))
        .map(|(slot, bytes)| match decode_slot(bytes, cluster, slot, layout.ring_slots) {
            Slot::Header(header) => RingSlot::Header(header),
            Slot::Reserved => RingSlot::Reserved,
            Slot::Sealed(op) => RingSlot::Sealed(op),
            Slot::Bad => RingSlot::Bad,
        })
        .collect()
}

/// The footer of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FooterFields {
    /// The segment, counted from 0.
    pub segment: u64,
    /// Its first op.
    pub first: Op,
    /// The checksum of the op before.
    pub parent: Checksum,
    /// The chain hash of the last entry in the segment.
    pub chain: ChainHash,
    /// The header of its last prepare.
    pub last: PrepareHeader,
    /// Its prepares, in order.
    pub prepares: Vec<FooterRow>,
}

/// One prepare of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FooterRow {
    /// The op.
    pub op: Op,
    /// Its checksum.
    pub checksum: Checksum,
    /// Where it stands in the log zone, in bytes.
    pub place: u64,
    /// Bytes of header and body.
    pub size: u32,
    /// Entries in it.
    pub entries: u32,
    /// When it was proposed.
    pub timestamp: WallTime,
    /// The view that proposed it.
    pub view: View,
}

/// Decodes the footer of `segment` from the bytes at [`footer_offset`]. None when it is damaged, or not there.
pub fn footer(bytes: &[u8], segment: u64, cluster: ClusterId, layout: &Layout) -> Option<FooterFields> {
    let footer = Footer::decode(bytes, cluster, segment, layout)?;
    let prepares = (footer.head.first.0..)
        .zip(footer.rows())
        .map(|(op, row)| FooterRow {
            op: Op(op),
            checksum: row.checksum,
            place: row.place,
            size: row.size,
            entries: row.entries,
            timestamp: row.timestamp,
            view: row.view,
        })
        .collect();
    Some(FooterFields {
        segment,
        first: footer.head.first,
        parent: footer.head.parent,
        chain: footer.head.last.chain,
        last: footer.head.last,
        prepares,
    })
}
