//! An entry: one command, at one place in the log, linked into the hash chain.
//!
//! ```text
//!   0  previous entry hash [32]
//!  32  size u32 (header and command)   36  crc32 u32 of the command   40  op u64   48  index u32
//!  52  cipher u8   53  zero [3]        56  key epoch u32              60  session index u32
//!  64  session op u64   72  request number u64   80  tenant u64   88  timestamp u64
//!  96  nonce [24]                      120  tag [16]
//! 136  command, then zeros up to a multiple of 8
//! ```
//!
//! The hash of an entry is SHA-256 over a domain tag, the previous hash and everything from byte 32 to
//! the end of the command, so the chain covers every field. The last hash of a prepare stands in
//! the prepare's header. `cipher`, `key epoch`, `nonce` and `tag` are for sealed payloads; while
//! the cipher is none they are zero.

use kimberlite_crypto::{ChainHash, crc32};
use kimberlite_types::limits::ENTRY_HEADER_SIZE;
use kimberlite_types::{LogPosition, Op, RequestNumber, SessionId, TenantId, WallTime};

use crate::Malformed;
use crate::layout::{bytes_at, is_zero, put, put_u32, put_u64, u32_at, u64_at};

/// Entries start at multiples of this within a prepare's body.
pub const ENTRY_ALIGNMENT: usize = 8;

/// What the primary adds to a request to make an entry of it; place and time come from the prepare.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// The client's session, or none for a registration.
    pub session: SessionId,
    /// The client's counter.
    pub request: RequestNumber,
    /// The tenant the command is for.
    pub tenant: TenantId,
    /// The encoded command.
    pub command: &'a [u8],
}

/// The fixed part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// The hash of the entry before this one in the whole log.
    pub previous: ChainHash,
    /// Where this entry stands.
    pub position: LogPosition,
    /// The client's session.
    pub session: SessionId,
    /// The client's counter.
    pub request: RequestNumber,
    /// The tenant.
    pub tenant: TenantId,
    /// The prepare's timestamp.
    pub timestamp: WallTime,
    /// CRC-32 of the command.
    pub crc: u32,
}

/// An entry read from a prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The fixed part.
    pub header: EntryHeader,
    /// The encoded command.
    pub command: &'a [u8],
    /// The bytes the hash covers.
    hashed: &'a [u8],
}

impl Entry<'_> {
    /// This entry's hash: the next entry's `previous`.
    pub fn hash(&self) -> ChainHash {
        ChainHash::link(&self.header.previous, &[self.hashed])
    }
}

/// Bytes an entry takes in a body.
pub const fn entry_size(command: usize) -> usize {
    (ENTRY_HEADER_SIZE + command).next_multiple_of(ENTRY_ALIGNMENT)
}

/// Writes an entry at the start of `body` and returns its hash. `body` is zeroed and long enough.
pub(crate) fn write(
    body: &mut [u8],
    entry: &NewEntry<'_>,
    position: LogPosition,
    timestamp: WallTime,
    previous: &ChainHash,
) -> ChainHash {
    let size = ENTRY_HEADER_SIZE + entry.command.len();
    put(body, 0, previous.as_bytes());
    put_u32(body, 32, size as u32);
    put_u32(body, 36, crc32(entry.command));
    put_u64(body, 40, position.op.0);
    put_u32(body, 48, position.index);
    put_u32(body, 60, entry.session.0.index);
    put_u64(body, 64, entry.session.0.op.0);
    put_u64(body, 72, entry.request.0);
    put_u64(body, 80, entry.tenant.0);
    put_u64(body, 88, timestamp.0);
    put(body, ENTRY_HEADER_SIZE, entry.command);
    ChainHash::link(previous, &[&body[32..size]])
}

/// Reads the entry at the start of `body`. Answers it and the bytes behind it.
pub(crate) fn read(body: &[u8]) -> Result<(Entry<'_>, &[u8]), Malformed> {
    if body.len() < ENTRY_HEADER_SIZE {
        return Err(Malformed::Short);
    }
    let size = u32_at(body, 32) as usize;
    let padded = size.checked_next_multiple_of(ENTRY_ALIGNMENT).ok_or(Malformed::Size)?;
    if size < ENTRY_HEADER_SIZE || padded > body.len() {
        return Err(Malformed::Size);
    }
    // No cipher is in use yet, so every sealing field must be zero.
    if !is_zero(&body[52..60]) || !is_zero(&body[96..ENTRY_HEADER_SIZE]) || !is_zero(&body[size..padded]) {
        return Err(Malformed::Reserved);
    }
    let command = &body[ENTRY_HEADER_SIZE..size];
    let header = EntryHeader {
        previous: ChainHash::from_bytes(bytes_at(body, 0)),
        position: LogPosition { op: Op(u64_at(body, 40)), index: u32_at(body, 48) },
        session: SessionId(LogPosition { op: Op(u64_at(body, 64)), index: u32_at(body, 60) }),
        request: RequestNumber(u64_at(body, 72)),
        tenant: TenantId(u64_at(body, 80)),
        timestamp: WallTime(u64_at(body, 88)),
        crc: u32_at(body, 36),
    };
    if header.crc != crc32(command) {
        return Err(Malformed::BodyChecksum);
    }
    Ok((Entry { header, command, hashed: &body[32..size] }, &body[padded..]))
}
