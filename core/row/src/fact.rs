//! What a statement becomes: facts, under guards; and what may be read to plan it.
//!
//! The query layer reads rows at a position through [`Rows`] and returns [`Facts`]. It never applies them: the kernel
//! checks the guards, then the constraints ([`crate::check`]), then installs.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use kimberlite_types::{LogPosition, Offset, Op, StreamId, TenantId};
use serde::{Deserialize, Serialize};

use crate::codec::Projection;
use crate::schema::{Index, Object, ObjectId, SchemaVersion, Table};
use crate::{Catalogue, Row, Type, Value};

/// Pages that are not there. The step that got this is dropped, the pages are fetched, the step runs again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Miss {
    /// Opaque names of the pages, as the store gave them; may be many.
    pub pages: Vec<u64>,
    /// Ops of the log whose records are wanted.
    pub ops: Vec<Op>,
}

impl Miss {
    /// Of pages.
    pub const fn of_pages(pages: Vec<u64>) -> Self {
        Self { pages, ops: Vec::new() }
    }

    /// Of ops of the log.
    pub const fn of_ops(ops: Vec<Op>) -> Self {
        Self { pages: Vec::new(), ops }
    }
}

/// Which rows of a table or index: those whose first columns equal `equal` and whose next column lies between the bounds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyRange {
    /// Values of the first key columns.
    pub equal: Vec<Value>,
    /// Bound of the next column, in the order of values (NULL is the largest).
    pub low: Bound<Value>,
    /// Bound of the next column.
    pub high: Bound<Value>,
}

impl KeyRange {
    /// Everything.
    pub const ALL: Self = Self { equal: Vec::new(), low: Bound::Unbounded, high: Bound::Unbounded };

    /// The rows whose first columns have these values.
    pub fn equal(values: Vec<Value>) -> Self {
        Self { equal: values, ..Self::ALL }
    }

    /// Whether a key lies within.
    pub fn holds(&self, key: &[Value]) -> bool {
        let Some((first, rest)) = key.split_at_checked(self.equal.len()) else { return false };
        if first != self.equal {
            return false;
        }
        let Some(next) = rest.first() else { return true };
        let above = match &self.low {
            Bound::Included(low) => next >= low,
            Bound::Excluded(low) => next > low,
            Bound::Unbounded => true,
        };
        above
            && match &self.high {
                Bound::Included(high) => next <= high,
                Bound::Excluded(high) => next < high,
                Bound::Unbounded => true,
            }
    }
}

/// A scan: the rows of a table at a position, by its key or by one of its indexes.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// The table as it is at the position.
    pub table: &'a Table,
    /// By which index; by the table's key if none.
    pub index: Option<&'a Index>,
    /// The snapshot.
    pub at: LogPosition,
    /// Which keys: of the index, or of the primary key. Of a table without a primary key, [`KeyRange::ALL`].
    pub range: &'a KeyRange,
    /// Start behind this key, which an earlier call of the same scan gave.
    pub after: Option<&'a [u8]>,
    /// Reads the columns that are looked at; what the others hold is not told. All of them without.
    pub reader: Option<&'a Projection>,
}

/// The key the machine gave a row of a table without a primary key.
pub type Hidden = [u8; 16];

/// Where a scan may go on, in two parts, one behind the other: opaque.
#[derive(Clone, Copy, Debug)]
pub struct FoundKey<'a>(pub &'a [u8], pub &'a [u8]);

impl FoundKey<'_> {
    /// In one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        [self.0, self.1].concat()
    }
}

impl<'a> From<&'a [u8]> for FoundKey<'a> {
    fn from(whole: &'a [u8]) -> Self {
        Self(whole, &[])
    }
}

/// A row that a scan found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Where to go on from.
    pub key: FoundKey<'a>,
    /// The hidden key, if the table has no primary key.
    pub hidden: Option<Hidden>,
    /// The position of the command that wrote this version.
    pub version: LogPosition,
    /// One value per column of the table; columns added later are filled in.
    pub row: &'a [Value],
}

/// A scan of the records of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamScan {
    /// Which stream.
    pub stream: StreamId,
    /// The first record that is wanted.
    pub from: Offset,
    /// The snapshot.
    pub at: LogPosition,
    /// Whether times and payloads are wanted, which stand in the log.
    pub whole: bool,
}

/// A record of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Which one it is in its stream.
    pub offset: Offset,
    /// The op that appended it.
    pub op: Op,
    /// The time of the op in microseconds since 1970, and what was appended, if they were wanted.
    pub written: Option<(i64, &'a [u8])>,
}

/// Which position a time means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimePoint {
    /// The last command at or before it.
    At(LogPosition),
    /// Nothing later has been committed: it lies in the future.
    Future,
    /// It lies below what is kept.
    TooOld,
}

/// What [`Rows::history`] gives behind the columns of the table.
pub const HISTORY_COLUMNS: [(&str, Type); 6] = [
    ("begin_position", Type::BigInt),
    ("begin_time", Type::TimestampTz),
    ("end_position", Type::BigInt),
    ("end_time", Type::TimestampTz),
    ("operation", Type::Text),
    ("ended_by", Type::Text),
];

/// A version of a row as [`HISTORY_COLUMNS`] tell it: ops of the log, microseconds since 1970, and what the two commands did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetime {
    /// The op that wrote it, and its time.
    pub begin: (Op, Option<i64>),
    /// The op that replaced or deleted it, and its time; none while it holds.
    pub end: Option<(Op, Option<i64>)>,
    /// Whether it replaced another version of the row.
    pub replaces: bool,
    /// Whether it was replaced by another version, and not deleted.
    pub replaced: bool,
}

impl Lifetime {
    /// The values of the columns.
    pub fn values(&self) -> [Value; HISTORY_COLUMNS.len()] {
        let op = |op: Op| Value::Int(i64::try_from(op.0).unwrap_or(i64::MAX));
        let time = |time: Option<i64>| time.map_or(Value::Null, Value::TimestampTz);
        let (end, end_time, ended_by) = match self.end {
            Some((end, at)) => {
                (op(end), time(at), Value::text(if self.replaced { "UPDATE" } else { "DELETE" }))
            }
            None => (Value::Null, Value::Null, Value::Null),
        };
        let operation = Value::text(if self.replaces { "UPDATE" } else { "INSERT" });
        [op(self.begin.0), time(self.begin.1), end, end_time, operation, ended_by]
    }
}

/// What the query layer and the kernel read. All calls are repeatable: after a [`Miss`] the same call is made again.
pub trait Rows {
    /// The schema at a position.
    fn catalogue(&self, at: LogPosition) -> Result<Arc<Catalogue>, Miss>;
    /// The last position that can be read.
    fn last(&self) -> LogPosition;
    /// The position a time means, in microseconds since 1970 UTC.
    fn position_at(&self, micros: i64) -> Result<TimePoint, Miss>;
    /// The time of a position, in microseconds since 1970 UTC; `None` if nothing was committed there.
    fn time_of(&self, at: LogPosition) -> Result<Option<i64>, Miss>;
    /// How many rows or index entries lie in the range of a scan, about, if that is known without looking at each: what the
    /// planner goes by.
    fn count(&self, _scan: &Scan<'_>) -> Result<Option<u64>, Miss> {
        Ok(None)
    }
    /// Whether it is plain that no row has a key from the first to the last, or to the end without one: `false` says
    /// nothing.
    fn holds_none(
        &self,
        _table: &Table,
        _first: &[Value],
        _last: Option<&[Value]>,
        _at: LogPosition,
    ) -> Result<bool, Miss> {
        Ok(false)
    }

    /// Whether a row of a table has this primary key.
    fn holds_key(&self, table: &Table, key: &[Value], at: LogPosition) -> Result<bool, Miss> {
        let range = KeyRange::equal(key.to_vec());
        let mut held = false;
        self.scan(&Scan { table, index: None, at, range: &range, after: None, reader: None }, &mut |_| {
            held = true;
            false
        })?;
        Ok(held)
    }
    /// The row of a table with this primary key.
    fn find(
        &self,
        table: &Table,
        key: Vec<Value>,
        at: LogPosition,
        reader: &Projection,
    ) -> Result<Option<Row>, Miss> {
        let (range, reader, mut row) = (KeyRange::equal(key), Some(reader), None);
        self.scan(&Scan { table, index: None, at, range: &range, after: None, reader }, &mut |found| {
            row = Some(found.row.to_vec());
            false
        })?;
        Ok(row)
    }
    /// Gives rows in key order until `each` answers `false` or there are no more.
    fn scan(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss>;
    /// Gives every version of the rows of a range of the table's key that a command at or before the position began, by key and
    /// then oldest first, until `each` answers `false` or there are no more. A row has [`HISTORY_COLUMNS`] behind those of the
    /// table, and places may name them. What ended behind the position still holds.
    fn history(&self, scan: &Scan<'_>, each: &mut dyn FnMut(Found<'_>) -> bool) -> Result<(), Miss>;
    /// Whose rows and streams these are.
    fn tenant(&self) -> TenantId;
    /// Shows the streams that there are: their names, and where each ends at the position.
    fn streams(&self, at: LogPosition, each: &mut dyn FnMut(StreamId, &str, Offset));
    /// Gives the records of a stream that ops up to the position appended, in order, until `each` answers `false`. Answers
    /// whether there are no more: those whose op is not at hand end it early, and are a miss if none came before.
    fn stream(&self, scan: &StreamScan, each: &mut dyn FnMut(Record<'_>) -> bool) -> Result<bool, Miss>;
}

/// Which row of a table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum RowId {
    /// By its primary key.
    Key(Vec<Value>),
    /// By its hidden key.
    Hidden(Hidden),
}

impl RowId {
    /// The identity of a row of a table.
    pub fn of(table: &Table, row: &[Value], hidden: Option<Hidden>) -> Self {
        match &table.primary_key {
            Some(key) => {
                let mut values = Vec::with_capacity(key.columns.len());
                values.extend(key.columns.iter().filter_map(|c| table.place(*c)).map(|at| row[at].clone()));
                Self::Key(values)
            }
            None => Self::Hidden(hidden.unwrap_or([0xFF; 16])),
        }
    }
}

/// A hidden key that stands for one the machine will give: `0xFF` twelve times and a count. Sorts behind all real ones.
pub fn provisional(count: u32) -> Hidden {
    let mut key = [0xFF; 16];
    key[12..].copy_from_slice(&count.to_be_bytes());
    key
}

/// The hidden key of the `count`th row that a command inserts without a primary key.
pub fn hidden_at(at: LogPosition, count: u32) -> Hidden {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&at.op.0.to_be_bytes());
    key[8..12].copy_from_slice(&at.index.to_be_bytes());
    key[12..].copy_from_slice(&count.to_be_bytes());
    key
}

/// The net change of one row: what is there before and after the command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Write {
    /// The table.
    pub table: ObjectId,
    /// The row. A row whose primary key changes is two writes.
    pub id: RowId,
    /// What was there; `None` for an insert.
    pub before: Option<Row>,
    /// What will be there; `None` for a delete.
    pub after: Option<Row>,
}

/// A change of the schema.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SchemaFact {
    /// Creates an object, or puts a changed one in its place.
    Put(Object),
    /// Removes an object, with its rows and indexes.
    Drop(ObjectId),
    /// A sequence gave numbers up to this one.
    Sequence(ObjectId, Option<i64>),
    /// All rows of a table go.
    Truncate(ObjectId),
}

/// What must still hold when the facts are installed. The first that fails is the answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Guard {
    /// The object is at this version.
    Schema(ObjectId, SchemaVersion),
    /// No object has this name.
    NameFree(String),
    /// The row has no version newer than this position.
    Version(ObjectId, RowId, LogPosition),
    /// No row of the table (or of this index of it) lies under this key.
    Absent(ObjectId, Option<ObjectId>, Vec<Value>),
    /// Nothing in this range of the table (or of this index of it) was written after this position.
    Unchanged(ObjectId, Option<ObjectId>, KeyRange, LogPosition),
    /// The stream ends at this offset: nothing was appended to it.
    StreamEnds(StreamId, Offset),
}

/// What a statement or a transaction becomes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// What must still hold.
    pub guards: Vec<Guard>,
    /// Changes of the schema, in order; before the writes.
    pub schema: Vec<SchemaFact>,
    /// The net writes, one per row, by table and key.
    pub writes: Vec<Write>,
}

impl Facts {
    /// Whether there is nothing to install.
    pub fn is_empty(&self) -> bool {
        self.schema.is_empty() && self.writes.is_empty()
    }
}
