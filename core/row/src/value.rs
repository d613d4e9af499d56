//! Values and their order.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::hash::{Hash, Hasher};

use crate::datetime::Interval;
use crate::{Decimal, Json};

/// One SQL value. The three integer types share a variant (the column's type bounds the range), as do all kinds of text.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// NULL.
    #[default]
    Null,
    /// `BOOLEAN`.
    Bool(bool),
    /// `SMALLINT`, `INTEGER`, `BIGINT`.
    Int(i64),
    /// `DECIMAL`.
    Decimal(Decimal),
    /// `REAL`. There is one NaN.
    Real(f32),
    /// `DOUBLE PRECISION`. There is one NaN.
    Double(f64),
    /// `TEXT`, `VARCHAR`, and `CHAR` without the blanks at its end.
    Text(Arc<str>),
    /// `BYTEA`.
    Bytes(Arc<[u8]>),
    /// `DATE`: days since 1970-01-01; the extremes are the infinities.
    Date(i32),
    /// `TIME`: microseconds since midnight, up to 24:00.
    Time(i64),
    /// `TIMESTAMP`: microseconds since 1970-01-01; the extremes are the infinities.
    Timestamp(i64),
    /// `TIMESTAMPTZ`: microseconds since 1970-01-01 UTC; the extremes are the infinities.
    TimestampTz(i64),
    /// `INTERVAL`.
    Interval(Interval),
    /// `UUID`.
    Uuid([u8; 16]),
    /// `JSONB`.
    Json(Arc<Json>),
    /// A one-dimensional array whose elements are of one type.
    Array(Arc<[Value]>),
}

/// A row: one value per column, in the order of the table's columns.
pub type Row = Vec<Value>;

impl Value {
    /// Text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    /// A double, with the one NaN there is and without a negative zero's twin (they are equal and both kept).
    pub fn double(value: f64) -> Self {
        Self::Double(if value.is_nan() { f64::NAN } else { value })
    }

    /// A single, with the one NaN there is.
    pub fn real(value: f32) -> Self {
        Self::Real(if value.is_nan() { f32::NAN } else { value })
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Bytes it takes in memory, about.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Text(text) => text.len() + 16,
                Self::Bytes(bytes) => bytes.len() + 16,
                Self::Array(items) => items.iter().map(Self::size).sum::<usize>() + 16,
                Self::Json(json) => json.text().len() * 2,
                _ => 0,
            }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) => 1,
            Self::Decimal(_) => 2,
            Self::Real(_) => 3,
            Self::Double(_) => 4,
            Self::Text(_) => 5,
            Self::Bytes(_) => 6,
            Self::Date(_) => 7,
            Self::Time(_) => 8,
            Self::Timestamp(_) => 9,
            Self::TimestampTz(_) => 10,
            Self::Interval(_) => 11,
            Self::Uuid(_) => 12,
            Self::Json(_) => 13,
            Self::Array(_) => 14,
            Self::Null => 15,
        }
    }
}

/// Orders doubles: equal zeros, NaN above all.
pub fn compare_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of an ascending index: within a type as SQL compares (text by bytes, the C collation), NULL last, NaN the
/// largest number. Values of different types are ordered by their type, so that the order is total.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b))
            | (Self::Time(a), Self::Time(b))
            | (Self::Timestamp(a), Self::Timestamp(b))
            | (Self::TimestampTz(a), Self::TimestampTz(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Real(a), Self::Real(b)) => compare_doubles(f64::from(*a), f64::from(*b)),
            (Self::Double(a), Self::Double(b)) => compare_doubles(*a, *b),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Interval(a), Self::Interval(b)) => a.length().cmp(&b.length()),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (Self::Json(a), Self::Json(b)) => a.cmp(b),
            (Self::Array(a), Self::Array(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// Equal values have equal hashes.
impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Null => state.write_u8(0),
            Self::Bool(value) => state.write_u8(1 + u8::from(*value)),
            Self::Int(value) | Self::Time(value) | Self::Timestamp(value) | Self::TimestampTz(value) => {
                state.write_i64(*value);
            }
            Self::Decimal(value) => {
                let value = value.normalized();
                state.write_i128(value.coefficient());
                state.write_u8(value.scale());
            }
            Self::Real(value) => hash_double(f64::from(*value), state),
            Self::Double(value) => hash_double(*value, state),
            Self::Text(text) => state.write(text.as_bytes()),
            Self::Bytes(bytes) => state.write(bytes),
            Self::Date(days) => state.write_i32(*days),
            Self::Interval(span) => state.write_i128(span.length()),
            Self::Uuid(uuid) => state.write(uuid),
            Self::Json(json) => {
                // Numbers that differ in scale are equal, so their texts may not be hashed: the kind is enough.
                state.write(json.kind().as_bytes());
                if let Json::Text(text) = &**json {
                    state.write(text.as_bytes());
                }
            }
            Self::Array(items) => items.iter().for_each(|item| item.hash(state)),
        }
    }
}

fn hash_double<H: Hasher>(value: f64, state: &mut H) {
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    state.write_u64(if value == 0.0 { 0 } else { value.to_bits() });
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::text(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Arc::from(value))
    }
}

impl From<Decimal> for Value {
    fn from(value: Decimal) -> Self {
        Self::Decimal(value)
    }
}
