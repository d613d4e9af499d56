//! Functions of byte strings: encodings, digests, parts.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState, Type, Value};
use sha2::Digest as _;

use super::{Arg, BYT, Function, G_BIG, G_INT, G_TXT, Gives, INT, TXT, bad, f, int, string};

type Answer = Result<Value, SqlError>;

const G_BYT: Gives = Gives::Is(Type::Bytea);

fn bytes(value: &Value) -> &[u8] {
    if let Value::Bytes(bytes) = value { bytes } else { &[] }
}

fn given(bytes: impl Into<Vec<u8>>) -> Answer {
    Ok(Value::Bytes(bytes.into().into()))
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Characters of a line in base64.
const LINE: usize = 76;

fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut width = 0;
    for chunk in bytes.chunks(3) {
        // The break comes in front of what would follow a full line.
        if width == LINE {
            out.push('\n');
            width = 0;
        }
        let part = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let word = part(0) << 16 | part(1) << 8 | part(2);
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
        width += 4;
    }
    out
}

fn of_base64(text: &str) -> Answer {
    let (mut out, mut word, mut count, mut ends) = (Vec::new(), 0_u32, 0, 0);
    for c in text.bytes().filter(|c| !c.is_ascii_whitespace()) {
        let value = match LETTERS.iter().position(|letter| *letter == c) {
            Some(value) if ends == 0 => value as u32,
            None if c == b'=' && count >= 2 => {
                ends += 1;
                0
            }
            _ if c == b'=' => return Err(bad("unexpected \"=\" while decoding base64 sequence")),
            _ => {
                let sign = char::from(c);
                return Err(bad(format!("invalid symbol \"{sign}\" found while decoding base64 sequence")));
            }
        };
        word = word << 6 | value;
        count += 1;
        if count == 4 {
            out.extend_from_slice(&word.to_be_bytes()[1..4 - ends.min(2)]);
            (word, count) = (0, 0);
        }
    }
    if count != 0 {
        return Err(bad("invalid base64 end sequence")
            .hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    given(out)
}

fn encode(v: &[Value], _: &Type) -> Answer {
    let bytes = bytes(&v[0]);
    Ok(Value::from(match string(&v[1]).to_ascii_lowercase().as_str() {
        "hex" => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat(),
        "base64" => to_base64(bytes),
        "escape" => bytes
            .iter()
            .map(|byte| match byte {
                b'\\' => "\\\\".to_string(),
                0 | 0x80.. => format!("\\{byte:03o}"),
                byte => char::from(*byte).to_string(),
            })
            .collect::<String>(),
        other => return Err(bad(format!("unrecognized encoding: \"{other}\""))),
    }))
}

fn decode(v: &[Value], _: &Type) -> Answer {
    match string(&v[1]).to_ascii_lowercase().as_str() {
        "hex" => kimberlite_row::text::parse(&format!("\\x{}", string(&v[0])), &Type::Bytea),
        "base64" => of_base64(string(&v[0])),
        "escape" => kimberlite_row::text::parse(string(&v[0]), &Type::Bytea),
        other => Err(bad(format!("unrecognized encoding: \"{other}\""))),
    }
}

/// Text is UTF-8, so that is what it is converted to and from.
fn check_encoding(name: &Value) -> Result<(), SqlError> {
    let plain: String = string(name).chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" => Ok(()),
        "" => Err(bad("invalid encoding name")),
        _ => Err(SqlError::new(
            SqlState::FeatureNotSupported,
            format!("encoding \"{}\" is not supported", string(name)),
        )
        .hint("Texts are UTF8.")),
    }
}

fn convert_from(v: &[Value], _: &Type) -> Answer {
    check_encoding(&v[1])?;
    match core::str::from_utf8(bytes(&v[0])) {
        Ok(text) if !text.contains('\0') => Ok(Value::text(text)),
        _ => Err(SqlError::new(
            SqlState::CharacterNotInRepertoire,
            "invalid byte sequence for encoding \"UTF8\"",
        )),
    }
}

fn substring(v: &[Value], _: &Type) -> Answer {
    let (source, start) = (bytes(&v[0]), int(&v[1]));
    let end = match v.get(2).map(int) {
        Some(length) if length < 0 => {
            return Err(SqlError::new(SqlState::SubstringError, "negative substring length not allowed"));
        }
        Some(length) => start.saturating_add(length),
        None => i64::MAX,
    };
    let place = |at: i64| usize::try_from(at.max(1) - 1).unwrap_or(usize::MAX).min(source.len());
    let (from, to) = (place(start), place(end));
    given(&source[from..to.max(from)])
}

fn overlay(v: &[Value], _: &Type) -> Answer {
    let (source, part, start) = (bytes(&v[0]), bytes(&v[1]), int(&v[2]));
    if start <= 0 {
        return Err(SqlError::new(SqlState::SubstringError, "negative substring length not allowed"));
    }
    let length = v.get(3).map_or(part.len() as i64, int).max(0);
    let place = |at: i64| usize::try_from(at).unwrap_or(usize::MAX).min(source.len());
    let (from, to) = (place(start - 1), place((start - 1).saturating_add(length)));
    given([&source[..from], part, &source[to..]].concat())
}

fn trimmed(v: &[Value], front: bool, back: bool) -> Answer {
    let (mut kept, set) = (bytes(&v[0]), bytes(&v[1]));
    while front
        && let Some((first, rest)) = kept.split_first()
        && set.contains(first)
    {
        kept = rest;
    }
    while back
        && let Some((last, rest)) = kept.split_last()
        && set.contains(last)
    {
        kept = rest;
    }
    given(kept)
}

/// The byte and the bit in it that an index stands for.
fn place(v: &[Value], bits: i64) -> Result<usize, SqlError> {
    let count = bytes(&v[0]).len() as i64 * bits;
    let at = int(&v[1]);
    usize::try_from(at).ok().filter(|_| at < count).ok_or_else(|| {
        SqlError::new(SqlState::ArraySubscript, format!("index {at} out of valid range, 0..{}", count - 1))
    })
}

pub(super) static TABLE: &[Function] = &[
    f("encode", &[BYT, TXT], G_TXT, encode),
    f("decode", &[TXT, TXT], G_BYT, decode),
    f("convert_from", &[BYT, TXT], G_TXT, convert_from),
    f("convert_to", &[TXT, TXT], G_BYT, |v, _| {
        check_encoding(&v[1])?;
        given(string(&v[0]).as_bytes())
    }),
    f("sha224", &[BYT], G_BYT, |v, _| given(sha2::Sha224::digest(bytes(&v[0])).to_vec())),
    f("sha256", &[BYT], G_BYT, |v, _| given(sha2::Sha256::digest(bytes(&v[0])).to_vec())),
    f("sha384", &[BYT], G_BYT, |v, _| given(sha2::Sha384::digest(bytes(&v[0])).to_vec())),
    f("sha512", &[BYT], G_BYT, |v, _| given(sha2::Sha512::digest(bytes(&v[0])).to_vec())),
    f("substring", &[BYT, INT, INT], G_BYT, substring).optional(1),
    f("substr", &[BYT, INT, INT], G_BYT, substring).optional(1),
    f("overlay", &[BYT, BYT, INT, INT], G_BYT, overlay).optional(1),
    f("position", &[BYT, BYT], G_INT, |v, _| {
        let (source, part) = (bytes(&v[0]), bytes(&v[1]));
        let found = (0..=source.len()).find(|at| source[*at..].starts_with(part));
        Ok(Value::Int(found.map_or(0, |at| at as i64 + 1)))
    }),
    f("btrim", &[BYT, BYT], G_BYT, |v, _| trimmed(v, true, true)),
    f("ltrim", &[BYT, BYT], G_BYT, |v, _| trimmed(v, true, false)),
    f("rtrim", &[BYT, BYT], G_BYT, |v, _| trimmed(v, false, true)),
    f("bit_length", &[BYT], G_INT, |v, _| Ok(Value::Int(bytes(&v[0]).len() as i64 * 8))),
    f("bit_count", &[BYT], G_BIG, |v, _| {
        Ok(Value::Int(bytes(&v[0]).iter().map(|byte| i64::from(byte.count_ones())).sum()))
    }),
    f("get_byte", &[BYT, INT], G_INT, |v, _| Ok(Value::Int(i64::from(bytes(&v[0])[place(v, 1)?])))),
    f("set_byte", &[BYT, INT, INT], G_BYT, |v, _| {
        let (at, mut changed) = (place(v, 1)?, bytes(&v[0]).to_vec());
        changed[at] = (int(&v[2]) & 0xff) as u8;
        given(changed)
    }),
    f("get_bit", &[BYT, Arg::Is(Type::BigInt)], G_INT, |v, _| {
        let at = place(v, 8)?;
        Ok(Value::Int(i64::from(bytes(&v[0])[at / 8] >> (at % 8) & 1)))
    }),
    f("set_bit", &[BYT, Arg::Is(Type::BigInt), INT], G_BYT, |v, _| {
        let (at, mut changed) = (place(v, 8)?, bytes(&v[0]).to_vec());
        let mask = 1 << (at % 8);
        match int(&v[2]) {
            0 => changed[at / 8] &= !mask,
            1 => changed[at / 8] |= mask,
            _ => return Err(bad("new bit must be 0 or 1")),
        }
        given(changed)
    }),
];
