//! Types of SQL values.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

/// The type of a column or an expression.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Type {
    /// `BOOLEAN`.
    Bool,
    /// `SMALLINT`: 16 bits.
    SmallInt,
    /// `INTEGER`: 32 bits.
    Integer,
    /// `BIGINT`: 64 bits.
    BigInt,
    /// `DECIMAL(precision, scale)`; without both, any number of up to 38 digits.
    Decimal(Option<(u8, u8)>),
    /// `REAL`: IEEE 754 single.
    Real,
    /// `DOUBLE PRECISION`: IEEE 754 double.
    Double,
    /// `TEXT`.
    Text,
    /// `VARCHAR(n)`, in characters.
    Varchar(Option<u32>),
    /// `CHAR(n)`, in characters: blanks at the end do not count, are not stored, and are shown.
    Char(u32),
    /// `BYTEA`.
    Bytea,
    /// `DATE`.
    Date,
    /// `TIME` without time zone.
    Time,
    /// `TIMESTAMP` without time zone.
    Timestamp,
    /// `TIMESTAMP WITH TIME ZONE`.
    TimestampTz,
    /// `INTERVAL`.
    Interval,
    /// `UUID`.
    Uuid,
    /// `JSONB` (and `JSON`, which is kept as `JSONB`).
    Jsonb,
    /// A one-dimensional array.
    Array(Box<Type>),
    /// A bare literal or NULL whose context has not named a type yet; never that of a column.
    Unknown,
}

impl Type {
    /// Whether it is one of the three integer types.
    pub fn is_integer(&self) -> bool {
        matches!(self, Self::SmallInt | Self::Integer | Self::BigInt)
    }

    /// Whether it is a number.
    pub fn is_number(&self) -> bool {
        self.number_rank().is_some()
    }

    /// Where it stands in the order in which numbers widen.
    pub fn number_rank(&self) -> Option<u8> {
        Some(match self {
            Self::SmallInt => 0,
            Self::Integer => 1,
            Self::BigInt => 2,
            Self::Decimal(_) => 3,
            Self::Real => 4,
            Self::Double => 5,
            _ => return None,
        })
    }

    /// Whether it is text of any kind.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text | Self::Varchar(_) | Self::Char(_))
    }

    /// Whether it is a date, a time or a timestamp.
    pub fn is_datetime(&self) -> bool {
        matches!(self, Self::Date | Self::Time | Self::Timestamp | Self::TimestampTz)
    }

    /// The type without its length or precision.
    pub fn base(&self) -> Self {
        match self {
            Self::Decimal(_) => Self::Decimal(None),
            Self::Varchar(_) => Self::Text,
            other => other.clone(),
        }
    }

    /// Its name as PostgreSQL's `format_type` spells it.
    pub fn name(&self) -> String {
        match self {
            Self::Bool => "boolean".to_string(),
            Self::SmallInt => "smallint".to_string(),
            Self::Integer => "integer".to_string(),
            Self::BigInt => "bigint".to_string(),
            Self::Decimal(None) => "numeric".to_string(),
            Self::Decimal(Some((p, s))) => format!("numeric({p},{s})"),
            Self::Real => "real".to_string(),
            Self::Double => "double precision".to_string(),
            Self::Text => "text".to_string(),
            Self::Varchar(None) => "character varying".to_string(),
            Self::Varchar(Some(n)) => format!("character varying({n})"),
            Self::Char(n) => format!("character({n})"),
            Self::Bytea => "bytea".to_string(),
            Self::Date => "date".to_string(),
            Self::Time => "time without time zone".to_string(),
            Self::Timestamp => "timestamp without time zone".to_string(),
            Self::TimestampTz => "timestamp with time zone".to_string(),
            Self::Interval => "interval".to_string(),
            Self::Uuid => "uuid".to_string(),
            Self::Jsonb => "jsonb".to_string(),
            Self::Array(element) => format!("{}[]", element.name()),
            Self::Unknown => "unknown".to_string(),
        }
    }
}
