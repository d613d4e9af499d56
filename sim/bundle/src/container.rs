//! The head of every `.kmb` file, and the body of those that are written at once.
//!
//! ```text
//!  0   8  magic, "KMBUNDLE"
//!  8   2  format version, little-endian
//! 10   2  kind: 1 a simulated failure, 2 a recording of a node
//! 12   4  bytes of the body, little-endian
//! 16  32  BLAKE3 over all other bytes of the head and the body
//! 48  48  who wrote it: version and commit, UTF-8, filled up with zeros
//! 96      the body: zstd of postcard
//! ```
//!
//! The first 16 bytes and the writer keep their places in every format, so that a file of another one can be refused
//! by name. A failure ends with its body. A recording goes on with blocks, each of which carries the hash on; its body
//! is how the node was opened.

use std::fmt;
use std::io::Read as _;

use crate::Identity;

/// The first bytes of every file.
pub const MAGIC: [u8; 8] = *b"KMBUNDLE";

/// The format this program writes and reads.
pub const FORMAT_VERSION: u16 = 4;

/// Bytes of the head.
pub const HEAD_SIZE: usize = 96;

/// Bytes of a file with a simulated failure at most. Decisions take a byte or two each, packed; a run has at most some
/// millions.
pub const FILE_SIZE_MAX: usize = 64 << 20;

/// Bytes of a body, unpacked, at most.
pub const BODY_SIZE_MAX: usize = 256 << 20;

/// The largest window a body may ask its reader to hold: 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// Compresses well and fast; decisions are small numbers. Its window is 2 MiB.
const ZSTD_LEVEL: i32 = 6;

/// Where the writer stands, and how long it may be.
const WRITER_AT: usize = 48;
const WRITER_SIZE: usize = 48;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A simulated failure.
    Failure = 1,
    /// A recording of a node.
    Recording = 2,
}

impl Kind {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failure => "a simulated failure",
            Self::Recording => "a recording of a node",
        }
    }
}

/// Why bytes are no `.kmb` file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// It does not begin like one.
    Magic,
    /// It is shorter or longer than it says.
    Size,
    /// It exceeds a limit: which, in bytes.
    TooLarge(usize),
    /// It has another format.
    Version {
        /// Which.
        found: u16,
        /// Who wrote it.
        writer: String,
    },
    /// It is of a kind that this program does not know.
    UnknownKind(u16),
    /// It is of another kind than was asked for.
    Kind(Kind),
    /// Its hash does not match: it was damaged.
    Hash,
    /// Its content does not unpack.
    Compression,
    /// Its content does not decode.
    Content,
    /// It was run with a planted bug of this name, which this program does not hold.
    Planted(String),
    /// It decodes to something that makes no sense.
    Sense(&'static str),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a .kmb file: it does not begin with KMBUNDLE"),
            Self::Size => f.write_str("it is cut short or has bytes behind its end"),
            Self::TooLarge(limit) => write!(f, "it exceeds the limit of {limit} bytes"),
            Self::Version { found, writer } => write!(
                f,
                "it has format {found}, written by Kimberlite {writer}; this is Kimberlite {}, which reads format \
                 {FORMAT_VERSION}: use the release that wrote it",
                Identity::current().short()
            ),
            Self::UnknownKind(found) => write!(f, "it is of kind {found}, which this release does not know"),
            Self::Kind(kind) => write!(f, "it is {}, which this command has no use for", kind.name()),
            Self::Hash => f.write_str("it is damaged: its hash does not match"),
            Self::Compression => f.write_str("its content does not unpack"),
            Self::Content => f.write_str("its content does not decode"),
            Self::Planted(name) => write!(
                f,
                "it was run with the planted bug {name}, which this build does not hold; one that holds them all: cargo \
                 build --release -p vopr --features mutants"
            ),
            Self::Sense(reason) => write!(f, "its content makes no sense: {reason}"),
        }
    }
}

impl std::error::Error for FormatError {}

/// A head that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the file holds.
    pub kind: Kind,
    /// Bytes of the body.
    pub size: u32,
    /// Who wrote it: version and commit.
    pub writer: String,
    /// The hash over head and body.
    pub hash: [u8; 32],
}

impl Head {
    /// Reads the head at the start of `file`. Its hash is not verified yet.
    pub fn read(file: &[u8]) -> Result<Self, FormatError> {
        if !file.starts_with(&MAGIC) {
            return Err(FormatError::Magic);
        }
        let number = |at: usize| Some(u16::from_le_bytes([*file.get(at)?, *file.get(at + 1)?]));
        let found = number(8).ok_or(FormatError::Size)?;
        if found != FORMAT_VERSION {
            return Err(FormatError::Version { found, writer: writer_in(file) });
        }
        let head: &[u8; HEAD_SIZE] = file.first_chunk().ok_or(FormatError::Size)?;
        let kind = match number(10) {
            Some(1) => Kind::Failure,
            Some(2) => Kind::Recording,
            other => return Err(FormatError::UnknownKind(other.unwrap_or_default())),
        };
        let size = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        let mut hash = [0; 32];
        hash.copy_from_slice(&head[16..WRITER_AT]);
        Ok(Self { kind, size, writer: writer_in(file), hash })
    }

    /// Unpacks the body of the file whose head this is, once its hash is verified.
    pub fn open(&self, head: &[u8], body: &[u8], content_max: usize) -> Result<Vec<u8>, FormatError> {
        if hash(head, body) != self.hash {
            return Err(FormatError::Hash);
        }
        decompress(body, content_max)
    }
}

/// Who wrote a file, as far as it tells. The first format did not.
fn writer_in(file: &[u8]) -> String {
    let field = file.get(WRITER_AT..WRITER_AT + WRITER_SIZE).unwrap_or_default();
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(text) {
        Ok(text) if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
            text.to_owned()
        }
        _ => "of unknown version".to_owned(),
    }
}

fn hash(head: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head[..16]);
    hasher.update(&head[WRITER_AT..HEAD_SIZE]);
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// Head and body of a file with this content.
pub fn pack(kind: Kind, content: &[u8]) -> Vec<u8> {
    let body = zstd::bulk::compress(content, ZSTD_LEVEL).expect("memory can be compressed");
    let mut file = vec![0; HEAD_SIZE];
    file[..8].copy_from_slice(&MAGIC);
    file[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    file[10..12].copy_from_slice(&(kind as u16).to_le_bytes());
    file[12..16].copy_from_slice(&u32::try_from(body.len()).expect("bodies are bounded").to_le_bytes());
    let writer = Identity::current().short();
    let len = writer.len().min(WRITER_SIZE);
    file[WRITER_AT..WRITER_AT + len].copy_from_slice(&writer.as_bytes()[..len]);
    let hash = hash(&file, &body);
    file[16..WRITER_AT].copy_from_slice(&hash);
    file.extend_from_slice(&body);
    file
}

/// The content of a file of this kind that ends with its body.
pub fn unpack(file: &[u8], kind: Kind) -> Result<Vec<u8>, FormatError> {
    let head = Head::read(file)?;
    if head.kind != kind {
        return Err(FormatError::Kind(head.kind));
    }
    if file.len() > FILE_SIZE_MAX {
        return Err(FormatError::TooLarge(FILE_SIZE_MAX));
    }
    let (bytes, body) = file.split_at(HEAD_SIZE);
    if body.len() != head.size as usize {
        return Err(FormatError::Size);
    }
    head.open(bytes, body, BODY_SIZE_MAX)
}

/// Unpacks up to a limit. What grows is what really comes out, whatever the frame says about itself.
fn decompress(body: &[u8], content_max: usize) -> Result<Vec<u8>, FormatError> {
    let mut decoder = zstd::stream::read::Decoder::new(body).map_err(|_| FormatError::Compression)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(|_| FormatError::Compression)?;
    let mut content = Vec::new();
    decoder.take(content_max as u64 + 1).read_to_end(&mut content).map_err(|_| FormatError::Compression)?;
    if content.len() > content_max { Err(FormatError::TooLarge(content_max)) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_content_back_and_any_changed_bit_or_length_is_refused() {
        let file = pack(Kind::Failure, b"what happened");
        assert_eq!(unpack(&file, Kind::Failure).as_deref(), Ok(&b"what happened"[..]));
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&damaged, Kind::Failure).is_err(), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(unpack(&file[..len], Kind::Failure).is_err(), "{len} bytes");
        }
        let longer = [&file[..], &[0]].concat();
        assert_eq!(unpack(&longer, Kind::Failure), Err(FormatError::Size));
        assert_eq!(unpack(&file, Kind::Recording), Err(FormatError::Kind(Kind::Failure)));
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let mut file = pack(Kind::Failure, b"");
        file[8] = 9;
        let error = unpack(&file, Kind::Failure).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("format 9") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
        let first = [&MAGIC[..], &[1, 0, 1, 0], &[0xff; 60]].concat();
        let text = unpack(&first, Kind::Failure).unwrap_err().to_string();
        assert!(text.contains("format 1, written by Kimberlite of unknown version"), "{text}");
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let body = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
        assert!(body.len() < 1 << 10);
        assert_eq!(decompress(&body, 1 << 16), Err(FormatError::TooLarge(1 << 16)));
        assert_eq!(decompress(&body, 1 << 20).map(|content| content.len()), Ok(1 << 20));
    }

    #[test]
    fn a_window_larger_than_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(WINDOW_LOG_MAX + 2).unwrap();
        std::io::Write::write_all(&mut encoder, &vec![7; 64 << 20]).unwrap();
        let body = encoder.finish().unwrap();
        assert_eq!(decompress(&body, 128 << 20), Err(FormatError::Compression));
    }
}
