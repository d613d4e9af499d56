//! Where asks point: places on disk, connections, addresses.

use core::fmt;

use kimberlite_types::limits::SECTOR_SIZE;
use serde::{Deserialize, Serialize};

/// Names one ask, so that its answer can be recognised. Chosen by the asking machine, unique among its asks in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

/// One linear space of a data directory. The core never names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Zone {
    /// Four copies of the superblock. Fixed size.
    Superblock,
    /// The ring of prepare headers. Fixed size, formatted before first use.
    Headers,
    /// The journal: grows by segments.
    Log,
    /// Blocks of tables and indexes: grows.
    Grid,
}

/// A place on disk: a zone and an offset in bytes from its start, a multiple of the sector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The zone.
    pub zone: Zone,
    /// Bytes from the start of the zone.
    pub offset: u64,
}

impl Place {
    /// A place in the superblock zone.
    pub const fn superblock(offset: u64) -> Self {
        Self { zone: Zone::Superblock, offset }
    }

    /// A place in the header ring.
    pub const fn headers(offset: u64) -> Self {
        Self { zone: Zone::Headers, offset }
    }

    /// A place in the log.
    pub const fn log(offset: u64) -> Self {
        Self { zone: Zone::Log, offset }
    }

    /// A place in the grid.
    pub const fn grid(offset: u64) -> Self {
        Self { zone: Zone::Grid, offset }
    }

    /// Whether the offset is a whole number of sectors.
    pub const fn is_aligned(&self) -> bool {
        self.offset.is_multiple_of(SECTOR_SIZE as u64)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = match self.zone {
            Zone::Superblock => "superblock",
            Zone::Headers => "headers",
            Zone::Log => "log",
            Zone::Grid => "grid",
        };
        write!(f, "{zone}+{:#x}", self.offset)
    }
}

/// `bytes` rounded up to whole sectors.
pub const fn sectors(bytes: u64) -> u64 {
    bytes.next_multiple_of(SECTOR_SIZE as u64)
}

/// A byte stream to or from an external client. Ids of accepted streams have [`Conn::ACCEPTED`] set and are
/// given by the driver; ids of opened ones are chosen by the machine without it. Never reused within one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conn(pub u64);

impl Conn {
    /// The bit that tells accepted streams from opened ones.
    pub const ACCEPTED: u64 = 1 << 63;

    /// Whether the other side opened this stream.
    pub const fn is_accepted(self) -> bool {
        self.0 & Self::ACCEPTED != 0
    }
}

/// An index into the address book the driver was opened with: for a client, replica `i`'s client port is `Address(i)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(pub u16);
