//! What clients ask to be done, and what became of it. Commands are stored in entries, outcomes in
//! sessions; both are postcard, and a variant's number is part of the format: new ones go at the end.

use alloc::vec::Vec;
use core::fmt;

use kimberlite_crypto::checksum;
use kimberlite_types::limits::{BATCH_RECORDS_MAX, NAME_SIZE_MAX};
use kimberlite_types::{LogPosition, Offset, SessionId, StreamId};
use serde::{Deserialize, Serialize};

use crate::Malformed;

/// Something to be done once. The tenant it is for stands beside it in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command<'a> {
    /// Begin a session. The only command without one.
    Register,
    /// Make the tenant exist.
    CreateTenant {
        /// For people; 1 to 255 bytes.
        name: &'a str,
    },
    /// Make a stream of the tenant exist, empty.
    CreateStream {
        /// The stream, unique within its tenant.
        stream: StreamId,
        /// For people; 1 to 255 bytes.
        name: &'a str,
    },
    /// Append records to a stream, all or none.
    AppendBatch {
        /// The stream.
        stream: StreamId,
        /// Refuse unless the first record gets this offset.
        expected: Option<Offset>,
        /// The records.
        #[serde(borrow)]
        records: Records<'a>,
    },
    /// Change the tenant's tables as a statement or a transaction was planned, if what it was planned on still holds.
    Facts {
        /// What changes, and what must still hold: postcard of `Facts` of the crate `row`.
        #[serde(serialize_with = "whole::serialize")]
        facts: &'a [u8],
        /// What the client is told when the facts are installed, as whoever planned them encoded it. It stands in the log
        /// with them, so that a retry gets the same answer.
        #[serde(serialize_with = "whole::serialize")]
        reply: &'a [u8],
    },
    /// Keep a piece of facts that are too many for one command until [`Command::Commit`]. The first one drops what the session
    /// had staged before; so does everything else that the session asks.
    Stage {
        /// Which piece it is, from 0 on.
        number: u32,
        /// A part of the facts, which is facts by itself: postcard of `Facts` of the crate `row`.
        #[serde(serialize_with = "whole::serialize")]
        facts: &'a [u8],
    },
    /// Do what [`Command::Facts`] does with the facts that the session has staged, in the order of the pieces.
    Commit {
        /// How many pieces there are.
        pieces: u32,
        /// What [`staged_digest`] makes of them.
        digest: [u8; 32],
        /// What the client is told, as beside facts.
        #[serde(serialize_with = "whole::serialize")]
        reply: &'a [u8],
    },
}

impl<'a> Command<'a> {
    /// The bytes of this command.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("our own commands encode")
    }

    /// Reads a command and checks its bounds.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (command, rest): (Self, _) = postcard::take_from_bytes(bytes).map_err(|_| Malformed::Body)?;
        if !rest.is_empty() {
            return Err(Malformed::Size);
        }
        match &command {
            Self::Register | Self::Facts { .. } | Self::Stage { .. } | Self::Commit { .. } => {}
            Self::CreateTenant { name } | Self::CreateStream { name, .. } => {
                if name.is_empty() || name.len() > NAME_SIZE_MAX {
                    return Err(Malformed::Size);
                }
            }
            Self::AppendBatch { records, .. } => records.check()?,
        }
        Ok(command)
    }
}

/// Records, packed: each is its length as a little-endian u32 and its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records<'a> {
    count: u32,
    #[serde(serialize_with = "whole::serialize")]
    packed: &'a [u8],
}

/// Bytes encoded as a whole. Serde takes a list of bytes for any other list and goes through it byte by byte; the
/// encoding is the same.
mod whole {
    use alloc::vec::Vec;
    use core::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(
        bytes: &impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes.as_ref())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Whole)
    }
}

impl<'a> Records<'a> {
    /// Records that a [`RecordsBuilder`] packed.
    pub fn new(builder: &'a RecordsBuilder) -> Self {
        Self { count: builder.count, packed: &builder.packed }
    }

    /// How many there are, at most [`BATCH_RECORDS_MAX`].
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The records in order.
    pub fn iter(&self) -> RecordIter<'a> {
        RecordIter { rest: self.packed }
    }

    /// Whether the packing holds `count` records, at least one, and nothing else.
    pub fn check(&self) -> Result<(), Malformed> {
        if self.count == 0 || self.count > BATCH_RECORDS_MAX {
            return Err(Malformed::Size);
        }
        let mut rest = self.packed;
        for _ in 0..self.count {
            let (length, after) = rest.split_first_chunk::<4>().ok_or(Malformed::Short)?;
            rest = after.get(u32::from_le_bytes(*length) as usize..).ok_or(Malformed::Short)?;
        }
        if rest.is_empty() { Ok(()) } else { Err(Malformed::Size) }
    }
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({} in {} bytes)", self.count, self.packed.len())
    }
}

impl<'a> IntoIterator for &Records<'a> {
    type Item = &'a [u8];
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Iterates over packed records; ends at the first that is cut short.
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, after) = self.rest.split_first_chunk::<4>()?;
        let (record, rest) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some(record)
    }
}

/// Packs records for an [`Command::AppendBatch`] or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsBuilder {
    count: u32,
    #[serde(with = "whole")]
    packed: Vec<u8>,
}

impl RecordsBuilder {
    /// Adds one record.
    pub fn push(&mut self, record: &[u8]) {
        self.count += 1;
        self.packed.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.packed.extend_from_slice(record);
    }

    /// How many were added.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes packed so far: each record and four more.
    pub fn size(&self) -> usize {
        self.packed.len()
    }

    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The records, in place.
    pub fn records(&self) -> Records<'_> {
        Records::new(self)
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.count = 0;
        self.packed.clear();
    }
}

/// The digest of pieces of staged facts: that of those in front, zero before the first one, with the checksum of the next.
pub fn staged_digest(before: [u8; 32], piece: &[u8]) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&before);
    both[32..].copy_from_slice(checksum(piece).as_bytes());
    *checksum(&both).as_bytes()
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A session began.
    Registered {
        /// Its id.
        session: SessionId,
    },
    /// The tenant exists.
    TenantCreated,
    /// The stream exists.
    StreamCreated,
    /// Records were appended.
    Appended {
        /// The offset of the first.
        first: Offset,
        /// How many.
        count: u32,
    },
    /// Tables were changed. What the client is told stands in the log, beside the facts.
    Written {
        /// Rows that were inserted, updated or deleted.
        rows: u32,
    },
    /// A piece of facts is kept.
    Staged {
        /// How many the session has.
        pieces: u32,
    },
}

/// The five characters of a condition of SQL: digits and capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[u8; 5]", into = "[u8; 5]")]
pub struct SqlCode([u8; 5]);

impl SqlCode {
    /// A code from its characters; `None` for others.
    pub fn new(code: &str) -> Option<Self> {
        Self::try_from(<[u8; 5]>::try_from(code.as_bytes()).ok()?).ok()
    }

    /// Its characters.
    pub const fn as_str(&self) -> &str {
        match core::str::from_utf8(&self.0) {
            Ok(code) => code,
            Err(_) => unreachable!(),
        }
    }
}

impl TryFrom<[u8; 5]> for SqlCode {
    type Error = &'static str;

    fn try_from(code: [u8; 5]) -> Result<Self, Self::Error> {
        let sound = code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        if sound { Ok(Self(code)) } else { Err("no SQLSTATE code") }
    }
}

impl From<SqlCode> for [u8; 5] {
    fn from(code: SqlCode) -> Self {
        code.0
    }
}

impl fmt::Debug for SqlCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a command did nothing. Part of the replicated result: every replica decides the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The bytes are no command, or break a limit.
    Malformed,
    /// No such session: it never was, or was evicted. Register anew; a retry of an old request is not safe.
    NoSession,
    /// An older request of the session than the last one; its reply is gone.
    Stale,
    /// The tenant does not exist.
    NoTenant,
    /// The tenant exists already.
    TenantExists,
    /// The stream does not exist.
    NoStream,
    /// The stream exists already.
    StreamExists,
    /// The stream's next offset is not the expected one.
    OffsetMismatch {
        /// The next offset.
        actual: Offset,
    },
    /// A limit on the number of tenants or streams.
    TooMany,
    /// What the facts were planned on has changed since: plan the statement again.
    Conflict,
    /// What the facts would make of the tables is not allowed.
    Sql {
        /// The condition.
        code: SqlCode,
    },
}

impl Refusal {
    /// The SQLSTATE code (PostgreSQL 15, Appendix A, and class 57/25 for sessions).
    pub const fn sqlstate(&self) -> &str {
        match self {
            Self::Malformed => "22023",
            Self::NoSession | Self::Stale => "25P03",
            Self::NoTenant => "3D000",
            Self::TenantExists => "42P04",
            Self::NoStream => "42P01",
            Self::StreamExists => "42P07",
            Self::OffsetMismatch { .. } | Self::Conflict => "40001",
            Self::TooMany => "54000",
            Self::Sql { code } => code.as_str(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the command does not decode or breaks a limit"),
            Self::NoSession => f.write_str("no such session; it was evicted or never registered"),
            Self::Stale => f.write_str("a newer request of this session was already decided"),
            Self::NoTenant => f.write_str("the tenant does not exist; create it first"),
            Self::TenantExists => f.write_str("the tenant already exists"),
            Self::NoStream => f.write_str("the stream does not exist; create it first"),
            Self::StreamExists => f.write_str("the stream already exists"),
            Self::OffsetMismatch { actual } => {
                write!(f, "the stream's next offset is {actual}, not the expected one")
            }
            Self::TooMany => f.write_str("a limit on the number of tenants or streams is reached"),
            Self::Conflict => f.write_str("what the statement was planned on has changed; plan it again"),
            Self::Sql { code } => write!(f, "the tables refuse it (SQLSTATE {})", code.as_str()),
        }
    }
}

/// The final word on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Where the request was decided.
    pub position: LogPosition,
    /// What became of it.
    pub result: Result<Outcome, Refusal>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_their_encoding() {
        let mut builder = RecordsBuilder::default();
        for record in [b"one".as_slice(), b"", b"three"] {
            builder.push(record);
        }
        let records = builder.records();
        for command in [
            Command::Register,
            Command::CreateTenant { name: "clinic" },
            Command::CreateStream { stream: StreamId(7), name: "visits" },
            Command::AppendBatch { stream: StreamId(7), expected: Some(Offset(4)), records },
            Command::Facts { facts: b"facts", reply: b"" },
            Command::Stage { number: 3, facts: b"facts" },
            Command::Commit { pieces: 4, digest: [7; 32], reply: b"" },
        ] {
            assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
        assert_eq!(records.iter().collect::<Vec<_>>(), [b"one".as_slice(), b"", b"three"]);
    }

    #[test]
    fn a_condition_of_sql_is_five_capitals_and_digits() {
        let code = SqlCode::new("23505").unwrap();
        assert_eq!(Refusal::Sql { code }.sqlstate(), "23505");
        for wrong in ["2350", "235055", "2350a", "é2350"] {
            assert_eq!(SqlCode::new(wrong), None, "{wrong}");
        }
        let bytes = postcard::to_allocvec(&code).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(code));
        assert!(postcard::from_bytes::<SqlCode>(&[0xff; 5]).is_err());
    }

    #[test]
    fn records_are_encoded_as_any_list_of_bytes_is() {
        let mut builder = RecordsBuilder::default();
        builder.push(&[7; 300]);
        let as_list = postcard::to_allocvec(&(builder.count, &builder.packed)).unwrap();
        assert_eq!(postcard::to_allocvec(&builder.records()).unwrap(), as_list);
        assert_eq!(postcard::to_allocvec(&builder).unwrap(), as_list);
        assert_eq!(postcard::from_bytes(&as_list), Ok(builder.clone()));
        assert_eq!(postcard::from_bytes(&as_list), Ok(builder.records()));
    }

    #[test]
    fn records_that_lie_about_their_number_or_length_are_refused() {
        let packed = [3, 0, 0, 0, b'a', b'b', b'c'];
        assert_eq!(Records { count: 1, packed: &packed }.check(), Ok(()));
        for wrong in [
            Records { count: 0, packed: &[] },
            Records { count: 2, packed: &packed },
            Records { count: 1, packed: &packed[..6] },
            Records { count: 1, packed: &[255, 255, 255, 255] },
            Records { count: u32::MAX, packed: &packed },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_name_without_letters_or_with_too_many_is_refused() {
        let long = "x".repeat(NAME_SIZE_MAX + 1);
        for name in ["", long.as_str()] {
            assert_eq!(Command::decode(&Command::CreateTenant { name }.encode()), Err(Malformed::Size));
        }
    }
}
