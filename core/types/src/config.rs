//! What an operator decides: who is in the cluster, how a data directory is laid out, how long to wait.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{
    COMMAND_SIZE_LIMIT, ENTRY_HEADER_SIZE, PIPELINE_MAX, PREPARE_HEADER_SIZE, PREPARE_SIZE_LIMIT,
    REPLICAS_MAX, SECTOR_SIZE,
};
use crate::{ClusterId, Quorums, ReplicaId, View};

/// How a data directory is laid out. Chosen when it is formatted, stored in the superblock, fixed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Slots of the header ring: one per op, by `op mod ring_slots`. At least twice `segment_ops_max`.
    pub ring_slots: u32,
    /// Bytes of one segment of the log, footer included. A multiple of the sector.
    pub segment_size: u64,
    /// Prepares in one segment at most, so that its footer is durable before the ring comes round.
    pub segment_ops_max: u32,
    /// Bytes of one prepare at most, header included. A multiple of the sector.
    pub prepare_size_max: u32,
}

impl Layout {
    /// For production: 32 MiB segments of at most 8,000 prepares, 1 MiB + 64 KiB prepares, an 8 MiB ring.
    pub const PRODUCTION: Self = Self {
        ring_slots: 16_384,
        segment_size: 32 << 20,
        segment_ops_max: 8_000,
        prepare_size_max: PREPARE_SIZE_LIMIT,
    };

    /// For simulation: everything small, so that segments roll over and the ring comes round in seconds.
    pub const SMALL: Self =
        Self { ring_slots: 64, segment_size: 256 << 10, segment_ops_max: 24, prepare_size_max: 64 << 10 };

    /// The largest command a client may send under this layout, in bytes.
    pub const fn command_size_max(&self) -> u32 {
        let room = self.prepare_size_max - (PREPARE_HEADER_SIZE + ENTRY_HEADER_SIZE) as u32;
        if room < COMMAND_SIZE_LIMIT { room } else { COMMAND_SIZE_LIMIT }
    }

    /// Ops after which a checkpoint of the state is due: as many as one segment may hold. Of the size of production, 8,000:
    /// a restart applies them again within half a second.
    pub const fn checkpoint_ops(&self) -> u64 {
        self.segment_ops_max as u64
    }

    /// Bytes of prepares after which one is due: eight segments. Of the size of production, 256 MiB: a restart reads and
    /// applies them again within three seconds.
    pub const fn checkpoint_bytes(&self) -> u64 {
        8 * self.segment_size
    }

    /// Bytes of pages of tables that a node keeps at hand besides those that it needs right now: two segments. Of the size of
    /// production, 64 MiB.
    pub const fn page_cache_bytes(&self) -> u64 {
        2 * self.segment_size
    }

    /// Bytes of the header ring on disk.
    pub const fn ring_size(&self) -> u64 {
        self.ring_slots as u64 * PREPARE_HEADER_SIZE as u64
    }

    /// Whether the numbers fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sector = SECTOR_SIZE as u64;
        let slots_per_sector = (SECTOR_SIZE / PREPARE_HEADER_SIZE) as u32;
        let fault = if !self.ring_slots.is_multiple_of(slots_per_sector) || self.ring_slots == 0 {
            Some("ring_slots must be a positive multiple of 8")
        } else if !self.segment_size.is_multiple_of(sector) {
            Some("segment_size must be a multiple of 4096")
        } else if !u64::from(self.prepare_size_max).is_multiple_of(sector)
            || self.prepare_size_max < 2 * SECTOR_SIZE as u32
            || self.prepare_size_max > PREPARE_SIZE_LIMIT
        {
            Some("prepare_size_max must be a multiple of 4096 from 8192 to 1114112")
        } else if self.segment_ops_max == 0
            || self.ring_slots < 2 * (self.segment_ops_max + PIPELINE_MAX as u32)
        {
            Some("ring_slots must be at least twice segment_ops_max and the pipeline")
        } else if self.segment_size
            < 2 * u64::from(self.prepare_size_max) + 256 * u64::from(self.segment_ops_max) + 2 * sector
        {
            Some("segment_size must hold two prepares and the footer")
        } else {
            None
        };
        fault.map_or(Ok(()), |reason| Err(ConfigError { reason }))
    }
}

/// How long a replica waits. All are read at start; a cluster's members should agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// An idle primary says `Commit` this often.
    pub heartbeat: Duration,
    /// A backup that heard nothing for this long (plus up to half of it at random) asks for a view change.
    pub view_change: Duration,
    /// An unanswered message is sent again after this long.
    pub resend: Duration,
    /// A primary that no quorum answered for this long falls silent, so that others may take over.
    pub abdicate: Duration,
}

impl Timing {
    /// For a local network: a failed primary is replaced within about a second.
    pub const PRODUCTION: Self = Self {
        heartbeat: Duration::from_millis(50),
        view_change: Duration::from_millis(500),
        resend: Duration::from_millis(100),
        abdicate: Duration::from_secs(1),
    };
}

/// One replica's configuration. Holds no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The cluster this replica belongs to.
    pub cluster: ClusterId,
    /// Which replica this is.
    pub replica: ReplicaId,
    /// Replicas in the cluster, 1 to 6.
    pub replicas: u8,
    /// The layout of the data directory.
    pub layout: Layout,
    /// How long to wait.
    pub timing: Timing,
    /// Prepares in flight, 1 to [`PIPELINE_MAX`].
    pub pipeline_max: u8,
    /// Client sessions kept; the one idle for the longest in log order is evicted for a new one.
    pub sessions_max: u32,
}

impl Config {
    /// The quorums of this cluster.
    pub const fn quorums(&self) -> Quorums {
        Quorums::of(self.replicas)
    }

    /// The primary of a view.
    pub fn primary(&self, view: View) -> ReplicaId {
        let index = view.0 % u64::from(self.replicas);
        ReplicaId(u8::try_from(index).expect("replicas fit in a byte"))
    }

    /// Every replica but this one.
    pub fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.replica.0;
        (0..self.replicas).filter(move |r| *r != me).map(ReplicaId)
    }

    /// Whether the numbers make sense together.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.layout.check()?;
        let fault = if self.replicas == 0 || usize::from(self.replicas) > REPLICAS_MAX {
            Some("a cluster has 1 to 6 replicas")
        } else if self.replica.0 >= self.replicas {
            Some("the replica's index must be below the number of replicas")
        } else if self.pipeline_max == 0 || usize::from(self.pipeline_max) > PIPELINE_MAX {
            Some("pipeline_max must be 1 to 8")
        } else if self.sessions_max == 0 {
            Some("sessions_max must be at least 1")
        } else {
            None
        };
        fault.map_or(Ok(()), |reason| Err(ConfigError { reason }))
    }
}

/// A configuration that does not make sense, with what would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// What must hold.
    pub reason: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_layouts_make_sense() {
        assert_eq!(Layout::PRODUCTION.check(), Ok(()));
        assert_eq!(Layout::SMALL.check(), Ok(()));
    }

    #[test]
    fn a_ring_smaller_than_two_segments_is_refused() {
        let layout = Layout { ring_slots: 32, ..Layout::SMALL };
        assert!(layout.check().unwrap_err().reason.contains("ring_slots"));
    }
}
