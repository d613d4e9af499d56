//! How values and types are serialised as parts of facts. Facts come from outside, so nothing nests without a bound: serde
//! follows a type into itself as far as the bytes say, and the stack would end first.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::codec::{TEXT_SIZE_SMALL, decode_value, encode_int, encode_small_text, encode_value};
use crate::{Type, Value};

/// Dimensions of an array's type: as many as PostgreSQL's `MAXDIM`.
pub const DIMENSIONS_MAX: u8 = 6;

/// A value is a list of bytes: its encoding as in a row, whose reader bounds depths and sizes.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Self::Int(value) = self {
            let (bytes, size) = encode_int(*value);
            return serializer.serialize_bytes(&bytes[..size]);
        }
        let size = match self {
            Self::Text(text) => {
                let mut small = [0; TEXT_SIZE_SMALL + 2];
                if let Some(size) = encode_small_text(text, &mut small) {
                    return serializer.serialize_bytes(&small[..size]);
                }
                text.len()
            }
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        let mut bytes = Vec::with_capacity(size + 12);
        encode_value(self, &mut bytes);
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Encoded;
        impl Visitor<'_> for Encoded {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the encoding of a value")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Value, E> {
                decode_value(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Encoded)
    }
}

/// A type that is no array.
#[derive(serde::Serialize, serde::Deserialize)]
enum Element {
    Bool,
    SmallInt,
    Integer,
    BigInt,
    Decimal(Option<(u8, u8)>),
    Real,
    Double,
    Text,
    Varchar(Option<u32>),
    Char(u32),
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Jsonb,
    Unknown,
}

/// A type is its number of dimensions and the type of its elements.
impl Serialize for Type {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut element, mut dimensions) = (self, 0u8);
        while let Self::Array(inner) = element {
            (element, dimensions) = (inner, dimensions.saturating_add(1));
        }
        let element = match element {
            Self::Bool => Element::Bool,
            Self::SmallInt => Element::SmallInt,
            Self::Integer => Element::Integer,
            Self::BigInt => Element::BigInt,
            Self::Decimal(size) => Element::Decimal(*size),
            Self::Real => Element::Real,
            Self::Double => Element::Double,
            Self::Text => Element::Text,
            Self::Varchar(length) => Element::Varchar(*length),
            Self::Char(length) => Element::Char(*length),
            Self::Bytea => Element::Bytea,
            Self::Date => Element::Date,
            Self::Time => Element::Time,
            Self::Timestamp => Element::Timestamp,
            Self::TimestampTz => Element::TimestampTz,
            Self::Interval => Element::Interval,
            Self::Uuid => Element::Uuid,
            Self::Jsonb => Element::Jsonb,
            Self::Unknown | Self::Array(_) => Element::Unknown,
        };
        (dimensions, element).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Type {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (dimensions, element) = <(u8, Element)>::deserialize(deserializer)?;
        if dimensions > DIMENSIONS_MAX {
            return Err(D::Error::custom("a type of too many dimensions"));
        }
        let element = match element {
            Element::Bool => Self::Bool,
            Element::SmallInt => Self::SmallInt,
            Element::Integer => Self::Integer,
            Element::BigInt => Self::BigInt,
            Element::Decimal(size) => Self::Decimal(size),
            Element::Real => Self::Real,
            Element::Double => Self::Double,
            Element::Text => Self::Text,
            Element::Varchar(length) => Self::Varchar(length),
            Element::Char(length) => Self::Char(length),
            Element::Bytea => Self::Bytea,
            Element::Date => Self::Date,
            Element::Time => Self::Time,
            Element::Timestamp => Self::Timestamp,
            Element::TimestampTz => Self::TimestampTz,
            Element::Interval => Self::Interval,
            Element::Uuid => Self::Uuid,
            Element::Jsonb => Self::Jsonb,
            Element::Unknown => Self::Unknown,
        };
        Ok((0..dimensions).fold(element, |inner, _| Self::Array(Box::new(inner))))
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;
    use crate::json::{DEPTH_MAX, Json};

    #[test]
    fn values_and_types_survive_their_encoding() {
        for value in [
            Value::Null,
            Value::Int(-7),
            Value::text("seven"),
            Value::Array(Arc::from([Value::Bool(true), Value::Null])),
            Value::Json(Arc::new(Json::Array([Json::Null, Json::Bool(true)].into()))),
        ] {
            let bytes = postcard::to_allocvec(&value).unwrap();
            assert_eq!(postcard::from_bytes::<Value>(&bytes).unwrap(), value);
        }
        let array = Type::Array(Box::new(Type::Array(Box::new(Type::Decimal(Some((9, 2)))))));
        for kind in [Type::Bool, Type::Jsonb, Type::Varchar(Some(3)), array] {
            let bytes = postcard::to_allocvec(&kind).unwrap();
            assert_eq!(postcard::from_bytes::<Type>(&bytes).unwrap(), kind);
        }
    }

    #[test]
    fn what_nests_too_deep_is_refused_before_the_stack_ends() {
        let deep = |depth: usize| {
            let mut value = Value::Null;
            for _ in 0..depth {
                value = Value::Array(Arc::from([value]));
            }
            postcard::to_allocvec(&value).unwrap()
        };
        assert!(postcard::from_bytes::<Value>(&deep(DEPTH_MAX)).is_ok());
        assert!(postcard::from_bytes::<Value>(&deep(DEPTH_MAX + 2)).is_err());
        // An array of one array of one array…, as many as fit into a command.
        let mut bytes = postcard::to_allocvec(&(1u32 << 20)).unwrap();
        bytes.resize(bytes.len() + (1 << 20), 1);
        bytes.iter_mut().skip(3).step_by(2).for_each(|kind| *kind = 16);
        assert!(postcard::from_bytes::<Value>(&bytes).is_err());
        assert!(postcard::from_bytes::<Type>(&[DIMENSIONS_MAX, 0]).is_ok());
        assert!(postcard::from_bytes::<Type>(&[DIMENSIONS_MAX + 1, 0]).is_err());
    }
}
