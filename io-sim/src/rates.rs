//! How fast a disk is, how often it fails, what a power cut leaves, and which failures can be asked for.

use serde::{Deserialize, Serialize};

/// How fast a disk is and how often it fails. Times in nanoseconds, rates in parts of 1,000,000 operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRates {
    /// The shortest read.
    pub read_min: u64,
    /// The mean of what a read takes beyond that, exponentially distributed.
    pub read_mean: u64,
    /// The shortest write.
    pub write_min: u64,
    /// The mean of what a write takes beyond that.
    pub write_mean: u64,
    /// Times are multiplied by this: 1 for a healthy disk.
    pub slow_factor: u32,
    /// A read fails once, where the atlas permits: whoever asked may take the content for lost.
    pub read_error_ppm: u32,
    /// A sector of a read becomes unreadable until it is rewritten.
    pub latent_error_ppm: u32,
    /// Bits of a sector of a read have changed for good.
    pub bit_rot_ppm: u32,
    /// A read answers with what lies elsewhere in the zone.
    pub misdirected_read_ppm: u32,
    /// A write fails and leaves an arbitrary subset.
    pub write_error_ppm: u32,
    /// A write fails at its flush and leaves an arbitrary subset.
    pub sync_error_ppm: u32,
    /// A write reports success and is lost.
    pub phantom_write_ppm: u32,
    /// A write reports success and lands elsewhere in the zone.
    pub misdirected_write_ppm: u32,
    /// A write finds no space.
    pub no_space_ppm: u32,
    /// A disk stands still for a while before an operation.
    pub stall_ppm: u32,
    /// How long, on average.
    pub stall_mean: u64,
}

impl DiskRates {
    /// A healthy solid-state disk: reads in about 0.1 ms, durable writes in about 0.3 ms, no faults.
    pub const HEALTHY: Self = Self {
        read_min: 50_000,
        read_mean: 50_000,
        write_min: 100_000,
        write_mean: 200_000,
        slow_factor: 1,
        read_error_ppm: 0,
        latent_error_ppm: 0,
        bit_rot_ppm: 0,
        misdirected_read_ppm: 0,
        write_error_ppm: 0,
        sync_error_ppm: 0,
        phantom_write_ppm: 0,
        misdirected_write_ppm: 0,
        no_space_ppm: 0,
        stall_ppm: 0,
        stall_mean: 0,
    };
}

impl Default for DiskRates {
    fn default() -> Self {
        Self::HEALTHY
    }
}

/// What a power cut leaves of the writes in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Keep {
    /// Luck decides for each write: nothing, all of it, a front part, or an arbitrary subset of its units.
    #[default]
    Luck,
    /// Nothing of any write.
    Nothing,
    /// Every write, whole, though nobody heard that it was durable.
    Everything,
    /// Of each write every unit by its own luck: about half of them.
    Half,
}

/// A fault asked for by name, for the next operation it fits. Content faults are only done where the
/// atlas permits them; then they stay asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The next write fails.
    WriteError,
    /// The next write fails at its flush.
    SyncError,
    /// The next write is lost and reports success.
    PhantomWrite,
    /// The next write lands elsewhere and reports success.
    MisdirectedWrite,
    /// The next read fails.
    ReadError,
    /// The next read answers with what lies elsewhere.
    MisdirectedRead,
}
