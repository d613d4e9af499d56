//! Values as text, and back: what a client sees and sends (PostgreSQL's output and input functions).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::datetime::{self, TimeError};
use crate::{Decimal, Json, SqlError, SqlState, Type, Value};

/// The text of a value of a type; `None` for NULL.
pub fn output(value: &Value, kind: &Type) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => if *value { "t" } else { "f" }.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Decimal(value) => value.to_string(),
        Value::Real(value) => real_text(*value),
        Value::Double(value) => double_text(*value),
        Value::Text(text) => match kind {
            Type::Char(length) => {
                let missing = (*length as usize).saturating_sub(text.chars().count());
                let mut padded = text.to_string();
                padded.extend(core::iter::repeat_n(' ', missing));
                padded
            }
            _ => text.to_string(),
        },
        Value::Bytes(bytes) => {
            let mut out = String::from("\\x");
            for byte in bytes.iter() {
                let _ = write!(out, "{byte:02x}");
            }
            out
        }
        Value::Date(days) => datetime::date_text(*days),
        Value::Time(micros) => datetime::time_text(*micros),
        Value::Timestamp(stamp) => datetime::timestamp_text(*stamp, false),
        Value::TimestampTz(stamp) => datetime::timestamp_text(*stamp, true),
        Value::Interval(span) => datetime::interval_text(*span),
        Value::Uuid(uuid) => uuid_text(uuid),
        Value::Json(json) => json.text(),
        Value::Array(items) => {
            let element = match kind {
                Type::Array(element) => element,
                other => other,
            };
            array_text(items, element)
        }
    })
}

/// Shortest digits that read back as the same number; an exponent outside `1e-4 .. 1e15`.
pub fn double_text(value: f64) -> String {
    shortest(value.is_nan(), value.is_infinite(), value < 0.0, &format!("{value:e}"), 15)
}

/// As [`double_text`], with an exponent from `1e6` on.
pub fn real_text(value: f32) -> String {
    shortest(value.is_nan(), value.is_infinite(), value < 0.0, &format!("{value:e}"), 6)
}

fn shortest(nan: bool, infinite: bool, negative: bool, scientific: &str, exponent_max: i32) -> String {
    if nan {
        return "NaN".to_string();
    }
    if infinite {
        return if negative { "-Infinity" } else { "Infinity" }.to_string();
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if exponent < -4 || exponent >= exponent_max {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{point}{rest}e{exponent_sign}{:02}", exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        format!("{sign}{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn array_text(items: &[Value], element: &Type) -> String {
    let mut out = String::from("{");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match output(item, element) {
            None => out.push_str("NULL"),
            Some(text) if matches!(item, Value::Array(_)) => out.push_str(&text),
            Some(text) => {
                let special = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ',' | '"' | '\\');
                if text.is_empty() || text.contains(special) || text.eq_ignore_ascii_case("null") {
                    out.push('"');
                    for c in text.chars() {
                        if matches!(c, '"' | '\\') {
                            out.push('\\');
                        }
                        out.push(c);
                    }
                    out.push('"');
                } else {
                    out.push_str(&text);
                }
            }
        }
    }
    out.push('}');
    out
}

fn invalid(kind: &Type, text: &str) -> SqlError {
    SqlError::new(
        SqlState::InvalidTextRepresentation,
        format!("invalid input syntax for type {}: \"{text}\"", kind.base().name()),
    )
}

/// A number does not fit the type.
pub fn out_of_range(kind: &Type) -> SqlError {
    SqlError::new(SqlState::NumericValueOutOfRange, format!("{} out of range", kind.base().name()))
}

/// The bounds of an integer type.
pub fn integer_bounds(kind: &Type) -> (i64, i64) {
    match kind {
        Type::SmallInt => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Type::Integer => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}

/// An integer that must fit its type.
pub fn integer(value: i64, kind: &Type) -> Result<Value, SqlError> {
    let (low, high) = integer_bounds(kind);
    if (low..=high).contains(&value) { Ok(Value::Int(value)) } else { Err(out_of_range(kind)) }
}

/// Reads the text of a value of a type, its length and precision included.
pub fn parse(text: &str, kind: &Type) -> Result<Value, SqlError> {
    let trimmed = text.trim();
    match kind {
        Type::Bool => parse_bool(trimmed).map(Value::Bool).ok_or_else(|| invalid(kind, text)),
        Type::SmallInt | Type::Integer | Type::BigInt => parse_integer(trimmed, text, kind),
        Type::Decimal(size) => {
            let Some(number) = Decimal::parse(trimmed) else {
                let digits = trimmed.bytes().filter(u8::is_ascii_digit).count();
                let shaped = !trimmed.is_empty()
                    && digits > 0
                    && trimmed
                        .bytes()
                        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
                return Err(if shaped { too_wide() } else { invalid(kind, text) });
            };
            fit_decimal(number, *size)
        }
        Type::Real => {
            let value = parse_float(trimmed).ok_or_else(|| invalid(kind, text))?;
            let single: f32 = trimmed.parse().unwrap_or(value as f32);
            if single.is_infinite() && value.is_finite() || single == 0.0 && value != 0.0 {
                return Err(out_of_range_text(text, kind));
            }
            Ok(Value::real(single))
        }
        Type::Double => {
            let value = parse_float(trimmed).ok_or_else(|| invalid(kind, text))?;
            let written = trimmed.bytes().any(|b| matches!(b, b'1'..=b'9'));
            if value.is_infinite() && written || value == 0.0 && written && !exponent_only(trimmed) {
                return Err(out_of_range_text(text, kind));
            }
            Ok(Value::double(value))
        }
        Type::Text | Type::Unknown => Ok(Value::text(text)),
        Type::Varchar(length) => fit_text(text, *length, kind, false),
        Type::Char(length) => fit_text(text, Some(*length), kind, false),
        Type::Bytea => parse_bytes(text).map(Value::Bytes).ok_or_else(|| invalid(kind, text)),
        Type::Date => datetime::parse_date(text).map(Value::Date).map_err(|e| time_error(e, text, kind)),
        Type::Time => datetime::parse_time(text).map(Value::Time).map_err(|e| time_error(e, text, kind)),
        Type::Timestamp => datetime::parse_timestamp(text, false)
            .map(Value::Timestamp)
            .map_err(|e| time_error(e, text, kind)),
        Type::TimestampTz => datetime::parse_timestamp(text, true)
            .map(Value::TimestampTz)
            .map_err(|e| time_error(e, text, kind)),
        Type::Interval => {
            datetime::parse_interval(text, None).map(Value::Interval).map_err(|e| time_error(e, text, kind))
        }
        Type::Uuid => parse_uuid(trimmed).map(Value::Uuid).ok_or_else(|| invalid(kind, text)),
        Type::Jsonb => Json::parse(text).map(|json| Value::Json(Arc::new(json))).ok_or_else(|| {
            SqlError::new(SqlState::InvalidTextRepresentation, "invalid input syntax for type json")
        }),
        Type::Array(element) => parse_array(trimmed, element),
    }
}

/// Whether the digits before the exponent are all zero, so that zero is right.
fn exponent_only(text: &str) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or("");
    !mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'))
}

fn out_of_range_text(text: &str, kind: &Type) -> SqlError {
    SqlError::new(
        SqlState::NumericValueOutOfRange,
        format!("\"{text}\" is out of range for type {}", kind.name()),
    )
}

fn time_error(error: TimeError, text: &str, kind: &Type) -> SqlError {
    match error {
        TimeError::Syntax => SqlError::new(
            SqlState::InvalidDatetimeFormat,
            format!("invalid input syntax for type {}: \"{text}\"", kind.name()),
        ),
        TimeError::Range => SqlError::new(
            SqlState::DatetimeFieldOverflow,
            format!("date/time field value out of range: \"{text}\""),
        ),
    }
}

/// A number of more digits than this form holds.
pub fn too_wide() -> SqlError {
    SqlError::new(SqlState::NumericValueOutOfRange, "a number of more than 38 digits is not supported")
}

/// Fits a number into `DECIMAL(precision, scale)`.
pub fn fit_decimal(number: Decimal, size: Option<(u8, u8)>) -> Result<Value, SqlError> {
    match size {
        None => Ok(Value::Decimal(number)),
        Some((precision, scale)) => number.fitted(precision, scale).map(Value::Decimal).ok_or_else(|| {
            SqlError::new(SqlState::NumericValueOutOfRange, "numeric field overflow").detail(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
                i32::from(precision) - i32::from(scale)
            ))
        }),
    }
}

/// Fits a text into `VARCHAR(n)` or `CHAR(n)`: an explicit cast cuts, an assignment refuses unless blanks are cut.
pub fn fit_text(text: &str, length: Option<u32>, kind: &Type, explicit: bool) -> Result<Value, SqlError> {
    let mut kept = text;
    if let Some(length) = length
        && let Some((cut, _)) = text.char_indices().nth(length as usize)
    {
        if !explicit && text[cut..].contains(|c| c != ' ') {
            return Err(SqlError::new(
                SqlState::StringDataRightTruncation,
                format!("value too long for type {}", kind.name()),
            ));
        }
        kept = &text[..cut];
    }
    if matches!(kind, Type::Char(_)) {
        kept = kept.trim_end_matches(' ');
    }
    Ok(Value::text(kept))
}

fn parse_bool(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    if lower.is_empty() {
        return None;
    }
    let starts = |word: &str| word.starts_with(&lower);
    if starts("true") || starts("yes") || lower == "on" || lower == "1" {
        Some(true)
    } else if starts("false") || starts("no") || (lower.len() > 1 && starts("off")) || lower == "0" {
        Some(false)
    } else {
        None
    }
}

fn parse_integer(trimmed: &str, text: &str, kind: &Type) -> Result<Value, SqlError> {
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid(kind, text));
    }
    let value: i64 = trimmed.parse().map_err(|_| out_of_range_int(text, kind))?;
    integer(value, kind).map_err(|_| out_of_range_int(text, kind))
}

fn out_of_range_int(text: &str, kind: &Type) -> SqlError {
    SqlError::new(
        SqlState::NumericValueOutOfRange,
        format!("value \"{text}\" is out of range for type {}", kind.name()),
    )
}

fn parse_float(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        "infinity" | "inf" | "+infinity" | "+inf" => Some(f64::INFINITY),
        "-infinity" | "-inf" => Some(f64::NEG_INFINITY),
        lower if lower.contains("inf") || lower.contains("nan") => None,
        lower => lower.parse().ok(),
    }
}

fn parse_bytes(text: &str) -> Option<Arc<[u8]>> {
    let mut out = Vec::new();
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits: Vec<u32> =
            hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        if !digits.len().is_multiple_of(2) {
            return None;
        }
        out.extend(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8));
        return Some(out.into());
    }
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next()? {
            b'\\' => out.push(b'\\'),
            first @ b'0'..=b'3' => {
                let (second, third) = (bytes.next()?, bytes.next()?);
                if !(b'0'..=b'7').contains(&second) || !(b'0'..=b'7').contains(&third) {
                    return None;
                }
                out.push((first - b'0') * 64 + (second - b'0') * 8 + (third - b'0'));
            }
            _ => return None,
        }
    }
    Some(out.into())
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut uuid = [0; 16];
    let mut count = 0;
    for c in inner.chars().filter(|c| *c != '-') {
        let digit = c.to_digit(16)? as u8;
        let slot = uuid.get_mut(count / 2)?;
        *slot = *slot * 16 + digit;
        count += 1;
    }
    (count == 32).then_some(uuid)
}

fn parse_array(text: &str, element: &Type) -> Result<Value, SqlError> {
    let malformed =
        || SqlError::new(SqlState::InvalidTextRepresentation, format!("malformed array literal: \"{text}\""));
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(malformed)?;
    let mut items = Vec::new();
    let mut chars = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Ok(Value::Array(items.into()));
    }
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let (mut item, mut quoted) = (String::new(), false);
        if chars.next_if_eq(&'"').is_some() {
            quoted = true;
            loop {
                match chars.next().ok_or_else(malformed)? {
                    '"' => break,
                    '\\' => item.push(chars.next().ok_or_else(malformed)?),
                    c => item.push(c),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if matches!(c, '{' | '}' | '"') {
                    return Err(malformed());
                }
                item.push(if c == '\\' { chars.next().ok_or_else(malformed)? } else { c });
            }
            item.truncate(item.trim_end().len());
            if item.is_empty() {
                return Err(malformed());
            }
        }
        let null = !quoted && item.eq_ignore_ascii_case("null");
        items.push(if null { Value::Null } else { parse(&item, element)? });
        match chars.next() {
            None => return Ok(Value::Array(items.into())),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}
