//! Fixed layouts: reading and writing integers at known places.

use core::fmt;

/// Foreign bytes that are not what they should be. Dropped and counted, never trusted, never fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than the fixed part, or than the size it names.
    Short,
    /// The first bytes name another protocol or format.
    Magic,
    /// A format of another release.
    Version {
        /// The version found.
        found: u16,
    },
    /// From another cluster.
    Cluster,
    /// The header's checksum does not match.
    HeaderChecksum,
    /// The body's checksum does not match.
    BodyChecksum,
    /// The authenticator does not match: not sent by whom it says.
    Authenticator,
    /// A size beyond its limit or smaller than its parts.
    Size,
    /// A number that stands for nothing here: an unknown command, cipher or kind.
    Unknown,
    /// Bytes that must be zero are not.
    Reserved,
    /// The hash chain does not continue.
    Chain,
    /// The body does not decode.
    Body,
}

impl Malformed {
    /// One phrase for notes and logs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Short => "too short",
            Self::Magic => "not a Kimberlite frame",
            Self::Version { .. } => "of another protocol version",
            Self::Cluster => "of another cluster",
            Self::HeaderChecksum => "header checksum mismatch",
            Self::BodyChecksum => "body checksum mismatch",
            Self::Authenticator => "not authenticated",
            Self::Size => "size out of bounds",
            Self::Unknown => "unknown command or kind",
            Self::Reserved => "reserved bytes are not zero",
            Self::Chain => "hash chain broken",
            Self::Body => "body does not decode",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => write!(f, "of another version ({found})"),
            other => f.write_str(other.reason()),
        }
    }
}

impl core::error::Error for Malformed {}

/// The `N` bytes at `at`. The caller has checked the length.
pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

macro_rules! integer {
    ($get:ident, $put:ident, $int:ty) => {
        pub(crate) fn $get(bytes: &[u8], at: usize) -> $int {
            <$int>::from_le_bytes(bytes_at(bytes, at))
        }

        pub(crate) fn $put(bytes: &mut [u8], at: usize, value: $int) {
            bytes[at..at + size_of::<$int>()].copy_from_slice(&value.to_le_bytes());
        }
    };
}

integer!(u16_at, put_u16, u16);
integer!(u32_at, put_u32, u32);
integer!(u64_at, put_u64, u64);
integer!(u128_at, put_u128, u128);

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Whether all bytes are zero. Looks at many at once: what pads a prepare is most of a sector.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    let any = |bytes: &[u8]| bytes.iter().fold(0, |seen, byte| seen | byte) != 0;
    !chunks.iter().any(|chunk| any(chunk)) && !any(rest)
}
