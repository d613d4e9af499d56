//! Rows as bytes: values by the id of their column, so that a table may get and lose columns without touching a row.
//!
//! # Layout
//!
//! ```text
//! 1      version of the layout: 1
//! n      number of columns
//!        for each column, by ascending id:
//! 1        kind (5 bits) and, above it, how far its id is from the one before, less 1 (3 bits; the first counts from -1);
//!          7: the rest of the distance, less 8, follows as a number
//! n        the value
//! ```
//!
//! Numbers are in groups of seven bits, the lowest first, with a set high bit on all but the last byte; signed ones are
//! turned to 0, -1, 1, -2… first. Kinds and their values:
//!
//! ```text
//!  0 NULL   1 false   2 true          9 date: signed number
//!  3 integer: signed number          10 time, 11 timestamp, 12 timestamp with time zone: 8 bytes
//!  4 decimal: scale, signed number   13 interval: months, days, microseconds, signed numbers
//!  5 real: 4 bytes                   14 uuid: 16 bytes
//!  6 double: 8 bytes                 15 json: kind 0 null, 1 text, 2 number, 3 false, 4 true, 5 array, 6 object
//!  7 text: size, bytes               16 array: number of elements, each a byte of kind and its value
//!  8 bytes: size, bytes
//! ```
//!
//! A column that was added to a table later has no value in older rows: what it holds there is told by the table
//! ([`Column::missing`](crate::Column::missing)), through the [`Layout`]. A column that was dropped is passed over.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::datetime::Interval;
use crate::json::{DEPTH_MAX, Key};
use crate::schema::{COLUMNS_MAX, ColumnId, Table};
use crate::{Decimal, Json, Row, SqlError, Value, text};

/// Bytes of the largest encoded row.
pub const ROW_SIZE_MAX: usize = 512 << 10;

const VERSION: u8 = 1;
const FAR: u32 = 7;

/// Bytes that are no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the encoding of a row")
    }
}

/// A row of more than [`ROW_SIZE_MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Its bytes.
    pub size: usize,
}

/// Where the columns of a table stand in a row, made once for many rows.
#[derive(Clone, Debug)]
pub struct Layout {
    /// By ascending id: the column, its place, and what rows hold that do not know it.
    columns: Vec<(ColumnId, usize, Value)>,
}

impl Layout {
    /// The layout of a table's rows as its columns are now. An error if a column's missing value is none of its type.
    pub fn of(table: &Table) -> Result<Self, SqlError> {
        let mut columns = Vec::with_capacity(table.columns.len());
        for (place, column) in table.columns.iter().enumerate() {
            let missing = match &column.missing {
                Some(missing) => text::parse(missing, &column.kind)?,
                None => Value::Null,
            };
            columns.push((column.id, place, missing));
        }
        columns.sort_by_key(|column| column.0);
        Ok(Self { columns })
    }

    /// Columns of a row.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether rows have no columns.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Appends the encoding of a row with a value for each column, in the order of the table's columns.
    pub fn encode(&self, row: &[Value], to: &mut Vec<u8>) -> Result<(), TooLarge> {
        assert_eq!(row.len(), self.columns.len(), "a row has a value for each column");
        let start = to.len();
        self.put_head(to);
        let mut next = 0;
        for (id, place, _) in &self.columns {
            let value = &row[*place];
            put_column(*id, &mut next, kind_of(value), to);
            put_value(value, to);
        }
        let size = to.len() - start;
        if size > ROW_SIZE_MAX { Err(TooLarge { size }) } else { Ok(()) }
    }

    /// Appends a row whose values are given by place, each by its kind and the bytes behind that; `None` if one is not.
    pub(crate) fn encode_with<'b>(
        &self,
        value: impl Fn(usize) -> Option<(u8, &'b [u8])>,
        to: &mut Vec<u8>,
    ) -> Option<()> {
        let start = to.len();
        self.put_head(to);
        let mut next = 0;
        for (id, place, _) in &self.columns {
            let (kind, rest) = value(*place)?;
            put_column(*id, &mut next, kind, to);
            to.extend_from_slice(rest);
        }
        (to.len() - start <= ROW_SIZE_MAX).then_some(())
    }

    fn put_head(&self, to: &mut Vec<u8>) {
        to.push(VERSION);
        put_number(u128::from(self.columns.len() as u32), to);
    }

    /// Reads a row; each column has a value, in the order of the table's columns.
    pub fn decode(&self, bytes: &[u8]) -> Result<Row, Malformed> {
        let mut row = Vec::new();
        self.decode_into(bytes, |_| true, &mut row)?;
        Ok(row)
    }

    /// Reads the columns at the wanted places of a row into `row`, which is made as long as the table has columns; other
    /// places hold NULL, and their values are passed over.
    pub fn decode_into(
        &self,
        bytes: &[u8],
        wanted: impl Fn(usize) -> bool,
        row: &mut Row,
    ) -> Result<(), Malformed> {
        row.clear();
        row.resize(self.columns.len(), Value::Null);
        self.read(bytes, self.columns.len(), wanted, row).map(drop)
    }

    /// Which columns are to be read of many rows: those at these places, or all. Places behind those of the table are kept
    /// in mind, and not read.
    pub fn projection(self, places: Option<&[usize]>) -> Projection {
        let wanted: Vec<bool> = match places {
            None => alloc::vec![true; self.columns.len()],
            Some(places) => {
                let behind = places.iter().max().map_or(0, |place| place + 1);
                let mut wanted = alloc::vec![false; self.columns.len().max(behind)];
                for place in places {
                    wanted[*place] = true;
                }
                wanted
            }
        };
        let until = self.columns.iter().rposition(|(_, place, _)| wanted[*place]).map_or(0, |last| last + 1);
        let mut plain = Vec::new();
        if self.columns.iter().zip(0..).all(|((id, ..), number)| id.0 == number) {
            plain.extend(self.columns[..until].iter().map(|(_, place, _)| wanted[*place].then_some(*place)));
        }
        Projection { layout: self, wanted, until, plain }
    }

    /// Reads the wanted ones of the first `until` columns, by id. Answers whether the row ends there.
    fn read(
        &self,
        bytes: &[u8],
        until: usize,
        wanted: impl Fn(usize) -> bool,
        row: &mut [Value],
    ) -> Result<bool, Malformed> {
        let columns = &self.columns[..until];
        let whole = until == self.columns.len();
        let mut reader = Reader { bytes };
        if reader.byte()? != VERSION {
            return Err(Malformed);
        }
        let count = reader.number()?;
        if count > COLUMNS_MAX as u128 {
            return Err(Malformed);
        }
        let (mut next, mut at) = (0u32, 0);
        for _ in 0..count as usize {
            if at == columns.len() && !whole {
                return Ok(false);
            }
            let head = reader.byte()?;
            let kind = head & 0x1f;
            // Mostly each column is there, and no other.
            if head >> 5 == 0
                && let Some((column, place, _)) = columns.get(at)
                && column.0 == next
            {
                at += 1;
                next = next.checked_add(1).ok_or(Malformed)?;
                if wanted(*place) {
                    reader.take(kind, &mut row[*place])?;
                } else {
                    reader.pass(kind)?;
                }
                continue;
            }
            let mut gap = u32::from(head >> 5);
            if gap == FAR {
                let more = u32::try_from(reader.number()?).map_err(|_| Malformed)?;
                gap = gap.checked_add(more).ok_or(Malformed)?;
            }
            let id = next.checked_add(gap).ok_or(Malformed)?;
            next = id.checked_add(1).ok_or(Malformed)?;
            while let Some((_, place, missing)) = columns.get(at).filter(|(column, ..)| column.0 < id) {
                row[*place].clone_from(missing);
                at += 1;
            }
            match columns.get(at).filter(|(column, ..)| column.0 == id) {
                Some((_, place, _)) => {
                    at += 1;
                    if wanted(*place) {
                        reader.take(kind, &mut row[*place])?;
                    } else {
                        reader.pass(kind)?;
                    }
                }
                None => reader.pass(kind)?,
            }
        }
        for (_, place, missing) in &columns[at..] {
            row[*place].clone_from(missing);
        }
        if reader.bytes.is_empty() { Ok(true) } else { Err(Malformed) }
    }
}

/// Some columns of rows, read without what stands behind them.
#[derive(Clone, Debug)]
pub struct Projection {
    layout: Layout,
    /// By place.
    wanted: Vec<bool>,
    /// Columns behind these, by id, are not looked at.
    until: usize,
    /// Where each of these goes, if it is wanted; nothing if ids are missing among them.
    plain: Vec<Option<usize>>,
}

impl Projection {
    /// Reads the columns of a row into their places. What is not read is left as it was, except that it may be overwritten by
    /// what older rows hold; `row` has as many places as the table has columns.
    pub fn read(&self, bytes: &[u8], row: &mut [Value]) -> Result<(), Malformed> {
        if self.until == 0 || self.read_plain(bytes, row)? {
            return Ok(());
        }
        self.layout.read(bytes, self.until, |place| self.wanted[place], row).map(drop)
    }

    /// Reads a row that has all of its columns, as most have. Answers whether it was one; if not, anything may be in its
    /// places.
    #[inline]
    fn read_plain(&self, bytes: &[u8], row: &mut [Value]) -> Result<bool, Malformed> {
        let [VERSION, count @ 0..=0x7f, columns @ ..] = bytes else { return Ok(false) };
        let whole = self.until == self.layout.columns.len();
        if self.plain.is_empty()
            || usize::from(*count) < self.until
            || whole && usize::from(*count) > self.until
        {
            return Ok(false);
        }
        let mut reader = Reader { bytes: columns };
        for place in &self.plain {
            let head = reader.byte()?;
            if head >> 5 != 0 {
                return Ok(false);
            }
            match place {
                Some(place) => reader.take(head, &mut row[*place])?,
                None => reader.pass(head)?,
            }
        }
        if whole && !reader.bytes.is_empty() { Err(Malformed) } else { Ok(true) }
    }

    /// Whether a place is looked at.
    pub fn wants(&self, place: usize) -> bool {
        self.wanted.get(place) == Some(&true)
    }

    /// A row to read into.
    pub fn row(&self) -> Row {
        alloc::vec![Value::Null; self.layout.len()]
    }
}

/// Appends one value: a byte of kind, then as in a row.
pub fn encode_value(value: &Value, to: &mut Vec<u8>) {
    to.push(kind_of(value));
    put_value(value, to);
}

/// What [`encode_value`] writes of an integer: the first so many of these bytes.
pub(crate) fn encode_int(value: i64) -> ([u8; 11], usize) {
    let (mut bytes, mut size) = ([0; 11], 1);
    bytes[0] = 3;
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        bytes[size] = rest as u8 | 0x80;
        rest >>= 7;
        size += 1;
    }
    bytes[size] = rest as u8;
    (bytes, size + 1)
}

/// Reads what [`encode_value`] wrote, and nothing else.
pub fn decode_value(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut reader = Reader { bytes };
    let kind = reader.byte()?;
    let value = reader.value(kind, 0)?;
    if reader.bytes.is_empty() { Ok(value) } else { Err(Malformed) }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(false) => 1,
        Value::Bool(true) => 2,
        Value::Int(_) => 3,
        Value::Decimal(_) => 4,
        Value::Real(_) => 5,
        Value::Double(_) => 6,
        Value::Text(_) => 7,
        Value::Bytes(_) => 8,
        Value::Date(_) => 9,
        Value::Time(_) => 10,
        Value::Timestamp(_) => 11,
        Value::TimestampTz(_) => 12,
        Value::Interval(_) => 13,
        Value::Uuid(_) => 14,
        Value::Json(_) => 15,
        Value::Array(_) => 16,
    }
}

/// The longest text whose size is one byte.
pub(crate) const TEXT_SIZE_SMALL: usize = 0x7f;

/// The encoding of a short text, and how long it is.
pub(crate) fn encode_small_text(text: &str, to: &mut [u8; TEXT_SIZE_SMALL + 2]) -> Option<usize> {
    let size = text.len();
    if size > TEXT_SIZE_SMALL {
        return None;
    }
    (to[0], to[1]) = (7, size as u8);
    to[2..2 + size].copy_from_slice(text.as_bytes());
    Some(2 + size)
}

/// Appends the byte in front of a value, and how far its column is from the one before.
fn put_column(id: ColumnId, next: &mut u32, kind: u8, to: &mut Vec<u8>) {
    let gap = id.0 - *next;
    to.push(kind | (gap.min(FAR) << 5) as u8);
    if gap >= FAR {
        put_number(u128::from(gap - FAR), to);
    }
    *next = id.0 + 1;
}

fn put_number(mut value: u128, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_signed(value: i128, to: &mut Vec<u8>) {
    put_number((value << 1 ^ value >> 127) as u128, to);
}

fn put_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    put_number(bytes.len() as u128, to);
    to.extend_from_slice(bytes);
}

fn put_decimal(number: Decimal, to: &mut Vec<u8>) {
    to.push(number.scale());
    put_signed(number.coefficient(), to);
}

fn put_value(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Int(value) => {
            let (bytes, size) = encode_int(*value);
            to.extend_from_slice(&bytes[1..size]);
        }
        Value::Decimal(number) => put_decimal(*number, to),
        Value::Real(value) => to.extend_from_slice(&value.to_bits().to_le_bytes()),
        Value::Double(value) => to.extend_from_slice(&value.to_bits().to_le_bytes()),
        Value::Text(text) => put_bytes(text.as_bytes(), to),
        Value::Bytes(bytes) => put_bytes(bytes, to),
        Value::Date(days) => put_signed(i128::from(*days), to),
        Value::Time(micros) | Value::Timestamp(micros) | Value::TimestampTz(micros) => {
            to.extend_from_slice(&micros.to_le_bytes());
        }
        Value::Interval(span) => {
            put_signed(i128::from(span.months), to);
            put_signed(i128::from(span.days), to);
            put_signed(i128::from(span.micros), to);
        }
        Value::Uuid(uuid) => to.extend_from_slice(uuid),
        Value::Json(json) => put_json(json, to),
        Value::Array(items) => {
            put_number(items.len() as u128, to);
            for item in &**items {
                to.push(kind_of(item));
                put_value(item, to);
            }
        }
    }
}

fn put_json(json: &Json, to: &mut Vec<u8>) {
    match json {
        Json::Null => to.push(0),
        Json::Text(text) => {
            to.push(1);
            put_bytes(text.as_bytes(), to);
        }
        Json::Number(number) => {
            to.push(2);
            put_decimal(*number, to);
        }
        Json::Bool(value) => to.push(3 + u8::from(*value)),
        Json::Array(items) => {
            to.push(5);
            put_number(items.len() as u128, to);
            for item in items {
                put_json(item, to);
            }
        }
        Json::Object(members) => {
            to.push(6);
            put_number(members.len() as u128, to);
            for (key, value) in members {
                put_bytes(key.0.as_bytes(), to);
                put_json(value, to);
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reader<'b> {
    pub(crate) bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.bytes.split_first().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(*first)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.bytes.split_first_chunk::<N>().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(*first)
    }

    /// A number in its shortest form.
    pub(crate) fn number(&mut self) -> Result<u128, Malformed> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u128::from(first));
        }
        let mut value = u128::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            // 18 groups of seven bits, and two bits of the nineteenth.
            if shift > 126 || shift == 126 && bits > 3 {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return if byte == 0 { Err(Malformed) } else { Ok(value) };
            }
            shift += 7;
        }
    }

    /// As [`Reader::number`], for the most frequent case.
    #[inline]
    pub(crate) fn int(&mut self) -> Result<i64, Malformed> {
        if let Some(bytes) = self.bytes.first_chunk::<8>() {
            let word = u64::from_le_bytes(*bytes);
            let last = !word & 0x8080_8080_8080_8080;
            if last != 0 {
                // All groups at once: those of seven bits are joined to such of 14, of 28, and of 56.
                let bits = last.trailing_zeros() + 1;
                let groups = word & u64::MAX >> (64 - bits);
                if bits > 8 && groups >> (bits - 8) == 0 {
                    return Err(Malformed);
                }
                let groups = groups & 0x7f7f_7f7f_7f7f_7f7f;
                let groups = groups & 0x007f_007f_007f_007f | (groups & 0x7f00_7f00_7f00_7f00) >> 1;
                let groups = groups & 0x0000_3fff_0000_3fff | (groups & 0x3fff_0000_3fff_0000) >> 2;
                let value = groups & 0x0000_0000_0fff_ffff | (groups & 0x0fff_ffff_0000_0000) >> 4;
                self.bytes = &self.bytes[bits as usize / 8..];
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 63 || shift > 0 && byte == 0 {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
        }
    }

    fn signed(&mut self) -> Result<i128, Malformed> {
        let value = self.number()?;
        Ok((value >> 1) as i128 ^ -((value & 1) as i128))
    }

    fn signed_as<T: TryFrom<i128>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.signed()?).map_err(|_| Malformed)
    }

    #[inline]
    pub(crate) fn sized(&mut self) -> Result<&'b [u8], Malformed> {
        let size = self.count()?;
        let (bytes, rest) = self.bytes.split_at_checked(size).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(bytes)
    }

    pub(crate) fn str(&mut self) -> Result<&'b str, Malformed> {
        core::str::from_utf8(self.sized()?).map_err(|_| Malformed)
    }

    /// A number of things that take a byte each at least.
    #[inline]
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        if let Some((first, rest)) = self.bytes.split_first()
            && *first < 0x80
        {
            self.bytes = rest;
            let count = usize::from(*first);
            return if count > rest.len() { Err(Malformed) } else { Ok(count) };
        }
        let count = self.number()?;
        if count > self.bytes.len() as u128 { Err(Malformed) } else { Ok(count as usize) }
    }

    fn decimal(&mut self) -> Result<Decimal, Malformed> {
        let scale = self.byte()?;
        Decimal::new(self.signed()?, scale).ok_or(Malformed)
    }

    /// Reads a value of a row. The most frequent kind is not taken through all others.
    #[inline]
    fn take(&mut self, kind: u8, to: &mut Value) -> Result<(), Malformed> {
        match (kind, &mut *to) {
            (3, Value::Int(to)) => *to = self.int()?,
            (3, to) => *to = Value::Int(self.int()?),
            (kind, to) => *to = self.value(kind, 0)?,
        }
        Ok(())
    }

    /// Passes over a value of a row. The most frequent kinds are not taken through all others.
    #[inline]
    fn pass(&mut self, kind: u8) -> Result<(), Malformed> {
        match kind {
            3 => self.int().map(drop),
            7 | 8 => self.sized().map(drop),
            kind => self.skip(kind, 0),
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value, Malformed> {
        Ok(match kind {
            0 => Value::Null,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Int(self.int()?),
            4 => Value::Decimal(self.decimal()?),
            5 => Value::real(f32::from_bits(u32::from_le_bytes(self.array()?))),
            6 => Value::double(f64::from_bits(u64::from_le_bytes(self.array()?))),
            7 => Value::Text(Arc::from(self.str()?)),
            8 => Value::Bytes(Arc::from(self.sized()?)),
            9 => Value::Date(self.signed_as()?),
            10 => Value::Time(i64::from_le_bytes(self.array()?)),
            11 => Value::Timestamp(i64::from_le_bytes(self.array()?)),
            12 => Value::TimestampTz(i64::from_le_bytes(self.array()?)),
            13 => Value::Interval(Interval {
                months: self.signed_as()?,
                days: self.signed_as()?,
                micros: self.signed_as()?,
            }),
            14 => Value::Uuid(self.array()?),
            15 => Value::Json(Arc::new(self.json(0)?)),
            16 => {
                if depth > DEPTH_MAX {
                    return Err(Malformed);
                }
                let count = self.count()?;
                let mut items = Vec::with_capacity(count.min(1024));
                for _ in 0..count {
                    let kind = self.byte()?;
                    items.push(self.value(kind, depth + 1)?);
                }
                Value::Array(Arc::from(items))
            }
            _ => return Err(Malformed),
        })
    }

    /// Passes over a value without making it.
    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Malformed> {
        match kind {
            3 => self.int().map(drop),
            7 | 8 => self.sized().map(drop),
            16 if depth <= DEPTH_MAX => {
                for _ in 0..self.count()? {
                    let kind = self.byte()?;
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            kind => self.value(kind, depth).map(drop),
        }
    }

    fn json(&mut self, depth: usize) -> Result<Json, Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed);
        }
        Ok(match self.byte()? {
            0 => Json::Null,
            1 => Json::Text(self.str()?.to_string()),
            2 => Json::Number(self.decimal()?),
            3 => Json::Bool(false),
            4 => Json::Bool(true),
            5 => {
                let count = self.count()?;
                let items: Result<_, _> = (0..count).map(|_| self.json(depth + 1)).collect();
                Json::Array(items?)
            }
            6 => {
                let mut members = BTreeMap::new();
                for _ in 0..self.count()? {
                    let key = Key(String::from(self.str()?));
                    if members.last_key_value().is_some_and(|(last, _)| *last >= key) {
                        return Err(Malformed);
                    }
                    let value = self.json(depth + 1)?;
                    members.insert(key, value);
                }
                Json::Object(members)
            }
            _ => return Err(Malformed),
        })
    }
}
