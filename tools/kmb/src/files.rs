//! Which byte of which file a place of the waist is, for people.

use std::fmt;

use kimberlite_io::{Place, Zone};
use kimberlite_io_real::Geometry;

/// A byte of a file in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileByte {
    /// The file's path within the data directory.
    pub(crate) name: String,
    /// Bytes from its start.
    pub(crate) offset: u64,
}

impl fmt::Display for FileByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte {}", self.name, self.offset)
    }
}

/// Where a place is on disk.
pub(crate) fn locate(place: Place, geometry: &Geometry) -> FileByte {
    let Place { zone, offset } = place;
    match zone {
        Zone::Superblock => FileByte { name: "superblock".to_owned(), offset },
        Zone::Headers => FileByte { name: "headers".to_owned(), offset },
        Zone::Grid => FileByte { name: "grid".to_owned(), offset },
        Zone::Log => FileByte {
            name: segment_name(offset / geometry.segment_size),
            offset: offset % geometry.segment_size,
        },
    }
}

/// The path of a segment within the data directory.
pub(crate) fn segment_name(segment: u64) -> String {
    format!("log/{segment:08}.segment")
}
