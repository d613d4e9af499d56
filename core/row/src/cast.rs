//! Casts between types, with PostgreSQL's rounding and refusals.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::datetime::DAY;
use crate::text::{fit_decimal, fit_text, integer, out_of_range, output, parse, too_wide};
use crate::{Decimal, DecimalError, Interval, Json, SqlError, SqlState, Type, Value};

/// How willing a cast is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Willing {
    /// In any expression, without being asked.
    Implicit,
    /// Where a value is stored in a column.
    Assignment,
    /// `CAST` and `::`.
    Explicit,
}

/// Whether there is a cast at this willingness (PostgreSQL's `pg_cast`, and text from and to everything).
pub fn castable(from: &Type, to: &Type, willing: Willing) -> bool {
    use Type::{Bool, Date, Integer, Interval, Jsonb, Time, Timestamp, TimestampTz, Unknown};
    if from.base() == to.base() || *from == Unknown || from.is_text() && to.is_text() {
        return true;
    }
    if let (Some(a), Some(b)) = (from.number_rank(), to.number_rank()) {
        return a <= b || willing >= Willing::Assignment;
    }
    if let (Type::Array(a), Type::Array(b)) = (from, to) {
        return castable(a, b, willing);
    }
    match (from, to) {
        (Date, Timestamp | TimestampTz) | (Timestamp, TimestampTz) | (Time, Interval) => true,
        (Timestamp | TimestampTz, Date | Time) | (TimestampTz, Timestamp) | (Interval, Time) => {
            willing >= Willing::Assignment
        }
        (Bool, Integer) | (Integer, Bool) => willing == Willing::Explicit,
        (Jsonb, Bool) => willing == Willing::Explicit,
        (Jsonb, to) if to.is_number() => willing == Willing::Explicit,
        (_, to) if to.is_text() => willing >= Willing::Assignment,
        (from, _) if from.is_text() => willing == Willing::Explicit,
        _ => false,
    }
}

/// What arithmetic on decimals refuses.
pub fn decimal_error(error: DecimalError) -> SqlError {
    match error {
        DecimalError::TooWide => too_wide(),
        DecimalError::DivisionByZero => SqlError::new(SqlState::DivisionByZero, "division by zero"),
    }
}

/// A double as an integer, rounded half to even.
fn whole(value: f64, to: &Type) -> Result<Value, SqlError> {
    let rounded = libm::rint(value);
    if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded) {
        return Err(out_of_range(to));
    }
    integer(rounded as i64, to)
}

fn number(value: &Value, to: &Type) -> Option<Result<Value, SqlError>> {
    Some(match (value, to) {
        (Value::Int(n), Type::SmallInt | Type::Integer | Type::BigInt) => integer(*n, to),
        (Value::Int(n), Type::Decimal(size)) => fit_decimal(Decimal::from(*n), *size),
        (Value::Int(n), Type::Real) => Ok(Value::real(*n as f32)),
        (Value::Int(n), Type::Double) => Ok(Value::double(*n as f64)),
        (Value::Decimal(n), Type::SmallInt | Type::Integer | Type::BigInt) => match n.to_i64() {
            Some(n) => integer(n, to),
            None => Err(out_of_range(to)),
        },
        (Value::Decimal(n), Type::Decimal(size)) => fit_decimal(*n, *size),
        (Value::Decimal(n), Type::Real) => Ok(Value::real(n.to_f64() as f32)),
        (Value::Decimal(n), Type::Double) => Ok(Value::double(n.to_f64())),
        (Value::Real(n), Type::SmallInt | Type::Integer | Type::BigInt) => whole(f64::from(*n), to),
        (Value::Real(n), Type::Decimal(size)) => match Decimal::from_f64(f64::from(*n), 6) {
            Some(n) => fit_decimal(n, *size),
            None => Err(too_wide()),
        },
        (Value::Real(_), Type::Real) | (Value::Double(_), Type::Double) => Ok(value.clone()),
        (Value::Real(n), Type::Double) => Ok(Value::double(f64::from(*n))),
        (Value::Double(n), Type::SmallInt | Type::Integer | Type::BigInt) => whole(*n, to),
        (Value::Double(n), Type::Decimal(size)) => match Decimal::from_f64(*n, 15) {
            Some(n) => fit_decimal(n, *size),
            None => Err(too_wide()),
        },
        (Value::Double(n), Type::Real) => {
            let single = *n as f32;
            if single.is_infinite() && n.is_finite() || single == 0.0 && *n != 0.0 {
                Err(out_of_range(to))
            } else {
                Ok(Value::real(single))
            }
        }
        _ => return None,
    })
}

/// Casts a value. `from` is its static type; NULL stays NULL.
pub fn cast(value: &Value, from: &Type, to: &Type, explicit: bool) -> Result<Value, SqlError> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    if let Some(done) = number(value, to) {
        return done;
    }
    match (value, to) {
        (Value::Text(text), Type::Varchar(length)) => fit_text(text, *length, to, explicit),
        (Value::Text(text), Type::Char(length)) => fit_text(text, Some(*length), to, explicit),
        (Value::Text(_), Type::Text | Type::Unknown) => Ok(value.clone()),
        (Value::Text(text), _) => parse(text, to),
        (Value::Bool(b), to) if to.is_text() => {
            cast(&Value::text(if *b { "true" } else { "false" }), &Type::Text, to, explicit)
        }
        (Value::Bool(b), Type::Integer) => Ok(Value::Int(i64::from(*b))),
        (Value::Int(n), Type::Bool) => Ok(Value::Bool(*n != 0)),
        (Value::Date(days), Type::Timestamp) => date_stamp(*days).map(Value::Timestamp),
        (Value::Date(days), Type::TimestampTz) => date_stamp(*days).map(Value::TimestampTz),
        (Value::Timestamp(stamp) | Value::TimestampTz(stamp), Type::Date) => {
            Ok(Value::Date(stamp_date(*stamp)))
        }
        (Value::Timestamp(stamp) | Value::TimestampTz(stamp), Type::Time) => {
            Ok(Value::Time(stamp.rem_euclid(DAY)))
        }
        (Value::Timestamp(stamp), Type::TimestampTz) => Ok(Value::TimestampTz(*stamp)),
        (Value::TimestampTz(stamp), Type::Timestamp) => Ok(Value::Timestamp(*stamp)),
        (Value::Time(micros), Type::Interval) => {
            Ok(Value::Interval(Interval { micros: *micros, ..Interval::default() }))
        }
        (Value::Interval(span), Type::Time) => Ok(Value::Time(span.micros.rem_euclid(DAY))),
        (Value::Json(json), to) if to.is_number() || *to == Type::Bool => match &**json {
            Json::Number(n) if to.is_number() => {
                cast(&Value::Decimal(*n), &Type::Decimal(None), to, explicit)
            }
            Json::Bool(b) if *to == Type::Bool => Ok(Value::Bool(*b)),
            other => Err(SqlError::new(
                SqlState::InvalidParameterValue,
                format!("cannot cast jsonb {} to type {}", other.kind(), to.name()),
            )),
        },
        (Value::Array(items), Type::Array(element)) => {
            let inner = match from {
                Type::Array(inner) => inner,
                other => other,
            };
            let items: Vec<Value> =
                items.iter().map(|item| cast(item, inner, element, explicit)).collect::<Result<_, _>>()?;
            Ok(Value::Array(Arc::from(items)))
        }
        (_, to) if to.is_text() => {
            let text = output(value, from).unwrap_or_default();
            cast(&Value::from(text), &Type::Text, to, explicit)
        }
        _ if kind_fits(value, to) => Ok(value.clone()),
        _ => Err(SqlError::new(
            SqlState::CannotCoerce,
            format!("cannot cast type {} to {}", from.name(), to.name()),
        )),
    }
}

/// Whether a value is of the kind a column of that type holds.
pub fn kind_fits(value: &Value, kind: &Type) -> bool {
    match (value, kind) {
        (Value::Array(items), Type::Array(element)) => items.iter().all(|item| kind_fits(item, element)),
        (Value::Int(n), Type::SmallInt | Type::Integer | Type::BigInt) => integer(*n, kind).is_ok(),
        (Value::Decimal(_), Type::Decimal(None))
        | (Value::Null, _)
        | (Value::Bool(_), Type::Bool)
        | (Value::Real(_), Type::Real)
        | (Value::Double(_), Type::Double)
        | (Value::Text(_), Type::Text | Type::Varchar(None) | Type::Unknown)
        | (Value::Bytes(_), Type::Bytea)
        | (Value::Date(_), Type::Date)
        | (Value::Time(_), Type::Time)
        | (Value::Timestamp(_), Type::Timestamp)
        | (Value::TimestampTz(_), Type::TimestampTz)
        | (Value::Interval(_), Type::Interval)
        | (Value::Uuid(_), Type::Uuid)
        | (Value::Json(_), Type::Jsonb) => true,
        (Value::Decimal(n), Type::Decimal(Some((precision, scale)))) => {
            n.scale() == *scale && n.fitted(*precision, *scale).is_some()
        }
        (Value::Text(text), Type::Varchar(Some(length)) | Type::Char(length)) => {
            text.chars().count() <= *length as usize
        }
        _ => false,
    }
}

fn date_stamp(days: i32) -> Result<i64, SqlError> {
    match days {
        i32::MAX => Ok(i64::MAX),
        i32::MIN => Ok(i64::MIN),
        _ => i64::from(days).checked_mul(DAY).ok_or_else(|| {
            SqlError::new(SqlState::DatetimeFieldOverflow, "date out of range for timestamp".to_string())
        }),
    }
}

fn stamp_date(stamp: i64) -> i32 {
    match stamp {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        _ => stamp.div_euclid(DAY) as i32,
    }
}
