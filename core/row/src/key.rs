//! Keys: values as bytes whose order, byte by byte, is the order of the values.
//!
//! The encoding of each value says where it ends, so values of several columns just follow each other, and no key is the
//! beginning of another one with the same columns. Equal values have one encoding: what they differ in for display (the
//! zeros at the end of a DECIMAL, the sign of a zero, how an INTERVAL is divided) is not in a key but in its row.
//!
//! # Encodings
//!
//! A value begins with a byte that says its kind:
//!
//! ```text
//! 01        NULL, if it comes first                f0        NULL, if it comes last
//! 10 11     false, true
//! 20..30    integer: 28 is 0; 28+n a positive one of n bytes; 28-n a negative one of n bytes. As few bytes as will do,
//!           the highest first; of a negative integer v, those of -1-v, inverted
//! 38        decimal: 00 negative, 01 zero, 02 positive; unless zero, the exponent e plus 64, and the digits d in pairs,
//!           each plus 1, then 00: the number is 0.ddd times 10^e. All of it inverted if the number is negative
//! 40 41     real, double: 4 or 8 bytes, the highest first; the sign bit inverted, of a negative number all bits
//! 48 49     text, bytes: 00 is written 00 ff; then 00 01
//! 50        date: 4 bytes, the highest first, sign inverted
//! 51 52 53  time, timestamp, timestamp with time zone: 8 bytes likewise
//! 58        interval: its length in microseconds, 16 bytes likewise
//! 60        uuid: 16 bytes
//! 68        json: 00 null; 01 text; 02 number as a decimal; 03 boolean; 04 array, 05 object: elements or members, four
//!           bytes, then each; a member's name is its size, four bytes, and its bytes
//! 70        array: its elements, NULL last; then 00
//! ```
//!
//! Of a column that descends, all bits are inverted.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::datetime::Interval;
use crate::json::{DEPTH_MAX, Key};
use crate::schema::IndexColumn;
use crate::{Decimal, Json, SCALE_MAX, Value};

const NULL_FIRST: u8 = 0x01;
const BOOL: u8 = 0x10;
const INT: u8 = 0x28;
const DECIMAL: u8 = 0x38;
const REAL: u8 = 0x40;
const DOUBLE: u8 = 0x41;
const TEXT: u8 = 0x48;
const BYTES: u8 = 0x49;
const DATE: u8 = 0x50;
const TIME: u8 = 0x51;
const TIMESTAMP: u8 = 0x52;
const TIMESTAMP_TZ: u8 = 0x53;
const INTERVAL: u8 = 0x58;
const UUID: u8 = 0x60;
const JSON: u8 = 0x68;
const ARRAY: u8 = 0x70;
const NULL_LAST: u8 = 0xf0;

const NEGATIVE: u8 = 0;
const ZERO: u8 = 1;
const POSITIVE: u8 = 2;
const EXPONENT_BIAS: i32 = 64;

/// Microseconds of a day, and days of a month, as intervals are compared.
const DAY: i128 = 86_400_000_000;
const MONTH: i128 = 30 * DAY;

/// Which way a column of a key runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyOrder {
    /// Larger values come first.
    pub descending: bool,
    /// NULL comes before all other values, else behind them, whichever way these run.
    pub nulls_first: bool,
}

impl KeyOrder {
    /// As values compare: ascending, NULL last. The order of primary keys.
    pub const ASCENDING: Self = Self { descending: false, nulls_first: false };

    fn mask(self) -> u8 {
        if self.descending { 0xff } else { 0 }
    }

    /// What NULL is written as, before it is inverted.
    fn null(self) -> u8 {
        if self.nulls_first != self.descending { NULL_FIRST } else { NULL_LAST }
    }
}

impl From<&IndexColumn> for KeyOrder {
    fn from(column: &IndexColumn) -> Self {
        Self { descending: column.descending, nulls_first: column.nulls_first }
    }
}

/// Bytes that are no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the encoding of a value")
    }
}

/// Appends the encoding of one value.
pub fn encode(value: &Value, order: KeyOrder, to: &mut Vec<u8>) {
    let start = to.len();
    write(value, order.null(), to);
    if order.descending {
        for byte in &mut to[start..] {
            *byte = !*byte;
        }
    }
}

/// Appends the encodings of values, all ascending: a primary key, or the first columns of one.
pub fn encode_all(values: &[Value], to: &mut Vec<u8>) {
    for value in values {
        encode(value, KeyOrder::ASCENDING, to);
    }
}

/// Takes one value from the front of `bytes`. What comes out equals what was encoded, and need not look the same.
pub fn decode(bytes: &mut &[u8], order: KeyOrder) -> Result<Value, Malformed> {
    let mut reader = Reader { bytes, mask: order.mask() };
    let value = reader.value(order.null(), 0)?;
    *bytes = reader.bytes;
    Ok(value)
}

/// How many bytes at the front of `bytes` one value takes.
pub fn size_of_first(bytes: &[u8], order: KeyOrder) -> Result<usize, Malformed> {
    let mut rest = bytes;
    decode(&mut rest, order)?;
    Ok(bytes.len() - rest.len())
}

fn write(value: &Value, null: u8, to: &mut Vec<u8>) {
    match value {
        Value::Null => to.push(null),
        Value::Bool(value) => to.push(BOOL + u8::from(*value)),
        Value::Int(value) => write_int(*value, to),
        Value::Decimal(number) => {
            to.push(DECIMAL);
            write_decimal(*number, to);
        }
        Value::Real(value) => {
            to.push(REAL);
            let value = if value.is_nan() { f32::NAN.abs() } else { *value + 0.0 };
            let bits = value.to_bits();
            let bits = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
            to.extend_from_slice(&bits.to_be_bytes());
        }
        Value::Double(value) => {
            to.push(DOUBLE);
            let value = if value.is_nan() { f64::NAN.abs() } else { *value + 0.0 };
            let bits = value.to_bits();
            let bits = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
            to.extend_from_slice(&bits.to_be_bytes());
        }
        Value::Text(text) => {
            to.push(TEXT);
            write_escaped(text.as_bytes(), to);
        }
        Value::Bytes(bytes) => {
            to.push(BYTES);
            write_escaped(bytes, to);
        }
        Value::Date(days) => {
            to.push(DATE);
            to.extend_from_slice(&(*days as u32 ^ 1 << 31).to_be_bytes());
        }
        Value::Time(micros) => write_i64(TIME, *micros, to),
        Value::Timestamp(micros) => write_i64(TIMESTAMP, *micros, to),
        Value::TimestampTz(micros) => write_i64(TIMESTAMP_TZ, *micros, to),
        Value::Interval(span) => {
            to.push(INTERVAL);
            to.extend_from_slice(&(span.length() as u128 ^ 1 << 127).to_be_bytes());
        }
        Value::Uuid(uuid) => {
            to.push(UUID);
            to.extend_from_slice(uuid);
        }
        Value::Json(json) => {
            to.push(JSON);
            write_json(json, to);
        }
        Value::Array(items) => {
            to.push(ARRAY);
            for item in &**items {
                write(item, NULL_LAST, to);
            }
            to.push(0);
        }
    }
}

fn write_i64(tag: u8, value: i64, to: &mut Vec<u8>) {
    to.push(tag);
    to.extend_from_slice(&(value as u64 ^ 1 << 63).to_be_bytes());
}

/// Bytes that a magnitude takes.
fn width(magnitude: u64) -> usize {
    8 - magnitude.leading_zeros() as usize / 8
}

fn write_int(value: i64, to: &mut Vec<u8>) {
    if value >= 0 {
        let size = width(value as u64);
        to.push(INT + size as u8);
        to.extend_from_slice(&value.to_be_bytes()[8 - size..]);
    } else {
        // -1 takes a byte, too: its magnitude is 0.
        let size = width(!value as u64).max(1);
        to.push(INT - size as u8);
        to.extend_from_slice(&value.to_be_bytes()[8 - size..]);
    }
}

fn write_decimal(number: Decimal, to: &mut Vec<u8>) {
    let mut magnitude = number.coefficient().unsigned_abs();
    if magnitude == 0 {
        return to.push(ZERO);
    }
    to.push(if number.is_negative() { NEGATIVE } else { POSITIVE });
    let start = to.len();
    let digits = magnitude.ilog10() + 1;
    let exponent = digits as i32 - i32::from(number.scale());
    to.push((exponent + EXPONENT_BIAS) as u8);
    while magnitude.is_multiple_of(10) {
        magnitude /= 10;
    }
    let digits = magnitude.ilog10() + 1;
    if !digits.is_multiple_of(2) {
        // At most 38 digits, so one more fits.
        magnitude *= 10;
    }
    let mut pairs = digits.div_ceil(2);
    while pairs > 0 {
        pairs -= 1;
        to.push((magnitude / 100u128.pow(pairs) % 100) as u8 + 1);
    }
    to.push(0);
    if number.is_negative() {
        for byte in &mut to[start..] {
            *byte = !*byte;
        }
    }
}

fn write_escaped(bytes: &[u8], to: &mut Vec<u8>) {
    to.reserve(bytes.len() + 2);
    for part in bytes.split_inclusive(|byte| *byte == 0) {
        to.extend_from_slice(part);
        if part.last() == Some(&0) {
            to.push(0xff);
        }
    }
    to.extend_from_slice(&[0, 1]);
}

fn write_json(json: &Json, to: &mut Vec<u8>) {
    match json {
        Json::Null => to.push(0),
        Json::Text(text) => {
            to.push(1);
            write_escaped(text.as_bytes(), to);
        }
        Json::Number(number) => {
            to.push(2);
            write_decimal(*number, to);
        }
        Json::Bool(value) => to.extend_from_slice(&[3, u8::from(*value)]),
        Json::Array(items) => {
            to.push(4);
            to.extend_from_slice(&(items.len() as u32).to_be_bytes());
            for item in items {
                write_json(item, to);
            }
        }
        Json::Object(members) => {
            to.push(5);
            to.extend_from_slice(&(members.len() as u32).to_be_bytes());
            for (key, value) in members {
                to.extend_from_slice(&(key.0.len() as u32).to_be_bytes());
                to.extend_from_slice(key.0.as_bytes());
                write_json(value, to);
            }
        }
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    mask: u8,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.bytes.split_first().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(first ^ self.mask)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.bytes.split_first_chunk::<N>().ok_or(Malformed)?;
        self.bytes = rest;
        Ok(first.map(|byte| byte ^ self.mask))
    }

    fn value(&mut self, null: u8, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed);
        }
        Ok(match self.byte()? {
            tag if tag == null => Value::Null,
            BOOL => Value::Bool(false),
            0x11 => Value::Bool(true),
            tag @ 0x20..=0x30 => Value::Int(self.int(tag)?),
            DECIMAL => Value::Decimal(self.decimal()?),
            REAL => {
                let bits = u32::from_be_bytes(self.array()?);
                let value = f32::from_bits(if bits >> 31 == 1 { bits ^ 1 << 31 } else { !bits });
                Value::real(value)
            }
            DOUBLE => {
                let bits = u64::from_be_bytes(self.array()?);
                let value = f64::from_bits(if bits >> 63 == 1 { bits ^ 1 << 63 } else { !bits });
                Value::double(value)
            }
            TEXT => Value::Text(Arc::from(self.text()?.as_str())),
            BYTES => Value::Bytes(Arc::from(self.escaped()?)),
            DATE => Value::Date((u32::from_be_bytes(self.array()?) ^ 1 << 31) as i32),
            TIME => Value::Time(self.i64()?),
            TIMESTAMP => Value::Timestamp(self.i64()?),
            TIMESTAMP_TZ => Value::TimestampTz(self.i64()?),
            INTERVAL => Value::Interval(self.interval()?),
            UUID => Value::Uuid(self.array()?),
            JSON => Value::Json(Arc::new(self.json(0)?)),
            ARRAY => {
                let mut items = Vec::new();
                while self.bytes.first().ok_or(Malformed)? ^ self.mask != 0 {
                    items.push(self.value(NULL_LAST, depth + 1)?);
                }
                self.byte()?;
                Value::Array(Arc::from(items))
            }
            _ => return Err(Malformed),
        })
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        Ok((u64::from_be_bytes(self.array()?) ^ 1 << 63) as i64)
    }

    fn int(&mut self, tag: u8) -> Result<i64, Malformed> {
        let negative = tag < INT;
        let size = usize::from(tag.abs_diff(INT));
        let mut bytes = [if negative { 0xff } else { 0 }; 8];
        for byte in &mut bytes[8 - size..] {
            *byte = self.byte()?;
        }
        let value = i64::from_be_bytes(bytes);
        let fits = if negative {
            value < 0 && width(!value as u64).max(1) == size
        } else {
            value >= 0 && width(value as u64) == size
        };
        if fits { Ok(value) } else { Err(Malformed) }
    }

    fn decimal(&mut self) -> Result<Decimal, Malformed> {
        let sign = self.byte()?;
        let invert = match sign {
            ZERO => return Ok(Decimal::ZERO),
            NEGATIVE => 0xff,
            POSITIVE => 0,
            _ => return Err(Malformed),
        };
        let exponent = i32::from(self.byte()? ^ invert) - EXPONENT_BIAS;
        let (mut magnitude, mut digits, mut last) = (0u128, 0i32, 0u8);
        loop {
            let byte = self.byte()? ^ invert;
            if byte == 0 {
                break;
            }
            let pair = byte - 1;
            if pair > 99 || digits >= 38 || digits == 0 && pair < 10 {
                return Err(Malformed);
            }
            (magnitude, digits, last) = (magnitude * 100 + u128::from(pair), digits + 2, pair);
        }
        if last == 0 {
            return Err(Malformed);
        }
        if last.is_multiple_of(10) {
            (magnitude, digits) = (magnitude / 10, digits - 1);
        }
        let mut scale = digits - exponent;
        while scale < 0 {
            magnitude = magnitude.checked_mul(10).ok_or(Malformed)?;
            scale += 1;
        }
        let coefficient = i128::try_from(magnitude).map_err(|_| Malformed)?;
        let scale = u8::try_from(scale).ok().filter(|scale| *scale <= SCALE_MAX).ok_or(Malformed)?;
        Decimal::new(if invert == 0 { coefficient } else { -coefficient }, scale).ok_or(Malformed)
    }

    fn escaped(&mut self) -> Result<Vec<u8>, Malformed> {
        let mut bytes = Vec::new();
        loop {
            match self.byte()? {
                0 => match self.byte()? {
                    0xff => bytes.push(0),
                    1 => return Ok(bytes),
                    _ => return Err(Malformed),
                },
                byte => bytes.push(byte),
            }
        }
    }

    fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.escaped()?).map_err(|_| Malformed)
    }

    /// An interval of this length: as many months as fit, then days, then microseconds.
    fn interval(&mut self) -> Result<Interval, Malformed> {
        let length = (u128::from_be_bytes(self.array()?) ^ 1 << 127) as i128;
        let bounded = |value: i128| value.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        let months = bounded(length / MONTH);
        let rest = length - i128::from(months) * MONTH;
        let days = bounded(rest / DAY);
        let micros = i64::try_from(rest - i128::from(days) * DAY).map_err(|_| Malformed)?;
        Ok(Interval { months, days, micros })
    }

    fn json(&mut self, depth: usize) -> Result<Json, Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed);
        }
        Ok(match self.byte()? {
            0 => Json::Null,
            1 => Json::Text(self.text()?),
            2 => Json::Number(self.decimal()?),
            3 => match self.byte()? {
                0 => Json::Bool(false),
                1 => Json::Bool(true),
                _ => return Err(Malformed),
            },
            4 => {
                let count = self.count()?;
                let items: Result<_, _> = (0..count).map(|_| self.json(depth + 1)).collect();
                Json::Array(items?)
            }
            5 => {
                let count = self.count()?;
                let mut members = BTreeMap::new();
                for _ in 0..count {
                    let size = self.count()?;
                    let (name, rest) = self.bytes.split_at_checked(size).ok_or(Malformed)?;
                    self.bytes = rest;
                    let name = name.iter().map(|byte| byte ^ self.mask).collect();
                    let key = Key(String::from_utf8(name).map_err(|_| Malformed)?);
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

    /// A number of things that take a byte each at least.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = u32::from_be_bytes(self.array()?) as usize;
        if count > self.bytes.len() { Err(Malformed) } else { Ok(count) }
    }
}
