//! Functions of text, and LIKE.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState, Type, Value};

use super::{
    Arg, BIG, BYT, DEC, Function, G_BOOL, G_INT, G_TXT, Gives, INT, TXT, bad, f, int, string, text_of,
    too_long,
};
use crate::limits::TEXT_MAX;

type Answer = Result<Value, SqlError>;

fn text(text: impl Into<String>) -> Answer {
    Ok(Value::from(text.into()))
}

/// A LIKE pattern, cut into its parts.
#[derive(Clone, PartialEq, Debug)]
enum Piece {
    /// This character.
    Char(char),
    /// `_`.
    One,
    /// `%`.
    Many,
}

/// A compiled LIKE pattern.
#[derive(Clone, PartialEq, Debug)]
pub struct Pattern(Vec<Piece>);

impl Pattern {
    /// Reads a pattern; without an escape character nothing is escaped.
    pub fn new(pattern: &str, escape: Option<char>) -> Result<Self, SqlError> {
        let mut pieces = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                c if Some(c) == escape => Piece::Char(chars.next().ok_or_else(|| {
                    SqlError::new(
                        SqlState::InvalidEscapeSequence,
                        "LIKE pattern must not end with escape character",
                    )
                })?),
                '_' => Piece::One,
                '%' => Piece::Many,
                c => Piece::Char(c),
            });
        }
        Ok(Self(pieces))
    }

    /// Whether a text fits. Takes at most pattern times text steps.
    pub fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut p, mut t) = (0, 0);
        // Where the last `%` stands, and how much of the text it has taken.
        let mut back: Option<(usize, usize)> = None;
        while t < text.len() {
            match self.0.get(p) {
                Some(Piece::Many) => {
                    back = Some((p, t));
                    p += 1;
                }
                Some(Piece::One) => {
                    p += 1;
                    t += 1;
                }
                Some(Piece::Char(c)) if *c == text[t] => {
                    p += 1;
                    t += 1;
                }
                _ => match back {
                    Some((star, from)) => {
                        back = Some((star, from + 1));
                        p = star + 1;
                        t = from + 1;
                    }
                    None => return false,
                },
            }
        }
        self.0[p..].iter().all(|piece| *piece == Piece::Many)
    }
}

/// `text LIKE pattern`.
pub fn like(text: &str, pattern: &str, escape: Option<char>, ignore_case: bool) -> Result<bool, SqlError> {
    if ignore_case {
        return Ok(Pattern::new(&pattern.to_lowercase(), escape)?.fits(&text.to_lowercase()));
    }
    Ok(Pattern::new(pattern, escape)?.fits(text))
}

fn escape_of(v: &[Value]) -> Result<Option<char>, SqlError> {
    match v.get(2) {
        None => Ok(Some('\\')),
        Some(escape) => {
            let mut chars = string(escape).chars();
            let first = chars.next();
            if chars.next().is_some() {
                return Err(SqlError::new(SqlState::InvalidEscapeSequence, "invalid escape string")
                    .hint("Escape string must be empty or one character."));
            }
            Ok(first)
        }
    }
}

fn substring(v: &[Value], _: &Type) -> Answer {
    let start = int(&v[1]);
    let end = match v.get(2) {
        Some(length) if int(length) < 0 => {
            return Err(SqlError::new(SqlState::SubstringError, "negative substring length not allowed"));
        }
        Some(length) => start.saturating_add(int(length)),
        None => i64::MAX,
    };
    let skip = start.max(1) - 1;
    let take = (end - 1 - skip).max(0);
    text(string(&v[0]).chars().skip(skip as usize).take(take as usize).collect::<String>())
}

fn trimmed(v: &[Value], front: bool, back: bool) -> Answer {
    let set: Vec<char> = v.get(1).map_or_else(|| [' '].into(), |s| string(s).chars().collect());
    let mut kept = string(&v[0]);
    if front {
        kept = kept.trim_start_matches(&set[..]);
    }
    if back {
        kept = kept.trim_end_matches(&set[..]);
    }
    text(kept)
}

fn side(v: &[Value], left: bool) -> Answer {
    let count = string(&v[0]).chars().count() as i64;
    let n = int(&v[1]);
    let take = if n >= 0 { n.min(count) } else { (count + n).max(0) };
    let skip = if left { 0 } else { count - take };
    text(string(&v[0]).chars().skip(skip as usize).take(take as usize).collect::<String>())
}

fn pad(v: &[Value], left: bool) -> Answer {
    let (source, length) = (string(&v[0]), int(&v[1]).max(0) as usize);
    if length > TEXT_MAX {
        return Err(too_long());
    }
    let fill: Vec<char> = v.get(2).map_or_else(|| [' '].into(), |s| string(s).chars().collect());
    let count = source.chars().count();
    if count >= length || fill.is_empty() {
        return text(source.chars().take(length).collect::<String>());
    }
    let padding: String = fill.iter().cycle().take(length - count).collect();
    text(if left { padding + source } else { source.to_string() + &padding })
}

fn repeat(v: &[Value], _: &Type) -> Answer {
    let count = int(&v[1]).max(0) as usize;
    if string(&v[0]).len().saturating_mul(count) > TEXT_MAX {
        return Err(too_long());
    }
    text(string(&v[0]).repeat(count))
}

fn split_part(v: &[Value], _: &Type) -> Answer {
    let (source, by, at) = (string(&v[0]), string(&v[1]), int(&v[2]));
    if at == 0 {
        return Err(bad("field position must not be zero"));
    }
    let parts: Vec<&str> = if by.is_empty() { [source].into() } else { source.split(by).collect() };
    let place = if at > 0 { at - 1 } else { parts.len() as i64 + at };
    text(usize::try_from(place).ok().and_then(|at| parts.get(at)).copied().unwrap_or(""))
}

fn position(v: &[Value], _: &Type) -> Answer {
    let (source, part) = (string(&v[0]), string(&v[1]));
    Ok(Value::Int(source.find(part).map_or(0, |at| source[..at].chars().count() as i64 + 1)))
}

fn initcap(v: &[Value], _: &Type) -> Answer {
    let mut out = String::new();
    let mut inside = false;
    for c in string(&v[0]).chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric();
    }
    text(out)
}

fn translate(v: &[Value], _: &Type) -> Answer {
    let from: Vec<char> = string(&v[1]).chars().collect();
    let to: Vec<char> = string(&v[2]).chars().collect();
    text(
        string(&v[0])
            .chars()
            .filter_map(|c| match from.iter().position(|f| *f == c) {
                None => Some(c),
                Some(at) => to.get(at).copied(),
            })
            .collect::<String>(),
    )
}

fn chr(v: &[Value], _: &Type) -> Answer {
    let code = u32::try_from(int(&v[0])).ok().filter(|c| *c != 0).and_then(char::from_u32);
    code.map_or_else(
        || Err(SqlError::new(SqlState::ProgramLimitExceeded, "requested character not valid")),
        text,
    )
}

fn concat(v: &[Value], _: &Type) -> Answer {
    text(v.iter().filter_map(text_of_any).collect::<String>())
}

/// As `concat` shows values: booleans are `t` and `f`.
fn text_of_any(value: &Value) -> Option<String> {
    kimberlite_row::text::output(value, &Type::Text)
}

fn concat_ws(v: &[Value], _: &Type) -> Answer {
    if v[0].is_null() {
        return Ok(Value::Null);
    }
    text(v[1..].iter().filter_map(text_of_any).collect::<Vec<_>>().join(string(&v[0])))
}

fn overlay(v: &[Value], _: &Type) -> Answer {
    let source: Vec<char> = string(&v[0]).chars().collect();
    if int(&v[2]) < 1 {
        return Err(SqlError::new(SqlState::SubstringError, "negative substring length not allowed"));
    }
    let start = (int(&v[2]) - 1) as usize;
    let length = v.get(3).map_or(string(&v[1]).chars().count() as i64, int);
    let mut out: String = source.iter().take(start).collect();
    out.push_str(string(&v[1]));
    // A negative length goes back, and what it passes stands twice.
    let rest = usize::try_from((start as i64).saturating_add(length)).unwrap_or(0);
    out.extend(source.iter().skip(rest));
    text(out)
}

/// Words that are no names, as PostgreSQL has them.
const RESERVED: &str = "all analyse analyze and any array as asc asymmetric authorization between bigint binary bit \
    boolean both case cast char character check coalesce collate collation column concurrently constraint create cross \
    current_catalog current_date current_role current_schema current_time current_timestamp current_user dec decimal \
    default deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full \
    grant greatest group grouping having ilike in initially inner inout int integer intersect interval into is isnull join \
    lateral leading least left like limit localtime localtimestamp national natural nchar none normalize not notnull null \
    nullif numeric offset on only or order out outer overlaps overlay placing position precision primary real references \
    returning right row select session_user setof similar smallint some substring symmetric table tablesample then time \
    timestamp to trailing treat trim true union unique user using values varchar variadic verbose when where window with \
    xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable";

fn quote_ident(v: &[Value], _: &Type) -> Answer {
    let name = string(&v[0]);
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let reserved = RESERVED.split(' ').any(|word| word == name);
    text(if plain && !reserved { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) })
}

fn quote_literal(v: &[Value], _: &Type) -> Answer {
    let shown = text_of(&v[0]).unwrap_or_default().replace('\'', "''");
    if shown.contains('\\') {
        return text(format!("E'{}'", shown.replace('\\', "\\\\")));
    }
    text(format!("'{shown}'"))
}

fn format_text(v: &[Value], kind: &Type) -> Answer {
    if v[0].is_null() {
        return Ok(Value::Null);
    }
    let (mut out, mut next) = (String::new(), 1);
    let mut chars = string(&v[0]).chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = chars.next().ok_or_else(|| bad("unterminated format() type specifier"))?;
        if directive == '%' {
            out.push('%');
            continue;
        }
        let argument = v.get(next).ok_or_else(|| bad("too few arguments for format()"))?;
        next += 1;
        let shown = Value::from(text_of_any(argument).unwrap_or_default());
        match directive {
            's' => out.push_str(string(&shown)),
            'I' => out.push_str(string(&quote_ident(&[shown], kind)?)),
            'L' if argument.is_null() => out.push_str("NULL"),
            'L' => out.push_str(string(&quote_literal(&[shown], kind)?)),
            other => return Err(bad(format!("unrecognized format() type specifier \"{other}\""))),
        }
    }
    text(out)
}

fn length_of(v: &Value) -> usize {
    match v {
        Value::Bytes(bytes) => bytes.len(),
        Value::Text(text) => text.len(),
        _ => 0,
    }
}

fn md5(v: &[Value], _: &Type) -> Answer {
    use md5::Digest as _;
    let bytes = match &v[0] {
        Value::Bytes(bytes) => &bytes[..],
        other => string(other).as_bytes(),
    };
    let digits = md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    text(digits.concat())
}

pub(super) static TABLE: &[Function] = &[
    f("md5", &[TXT], G_TXT, md5),
    f("md5", &[BYT], G_TXT, md5),
    f("length", &[TXT], G_INT, |v, _| Ok(Value::Int(string(&v[0]).chars().count() as i64))),
    f("length", &[BYT], G_INT, |v, _| Ok(Value::Int(length_of(&v[0]) as i64))),
    f("char_length", &[TXT], G_INT, |v, _| Ok(Value::Int(string(&v[0]).chars().count() as i64))),
    f("character_length", &[TXT], G_INT, |v, _| Ok(Value::Int(string(&v[0]).chars().count() as i64))),
    f("octet_length", &[TXT], G_INT, |v, _| Ok(Value::Int(length_of(&v[0]) as i64))),
    f("octet_length", &[BYT], G_INT, |v, _| Ok(Value::Int(length_of(&v[0]) as i64))),
    f("bit_length", &[TXT], G_INT, |v, _| Ok(Value::Int(length_of(&v[0]) as i64 * 8))),
    f("upper", &[TXT], G_TXT, |v, _| text(string(&v[0]).to_uppercase())),
    f("lower", &[TXT], G_TXT, |v, _| text(string(&v[0]).to_lowercase())),
    f("initcap", &[TXT], G_TXT, initcap),
    f("btrim", &[TXT, TXT], G_TXT, |v, _| trimmed(v, true, true)).optional(1),
    f("ltrim", &[TXT, TXT], G_TXT, |v, _| trimmed(v, true, false)).optional(1),
    f("rtrim", &[TXT, TXT], G_TXT, |v, _| trimmed(v, false, true)).optional(1),
    f("substring", &[TXT, INT, INT], G_TXT, substring).optional(1),
    f("substr", &[TXT, INT, INT], G_TXT, substring).optional(1),
    f("position", &[TXT, TXT], G_INT, position),
    f("strpos", &[TXT, TXT], G_INT, position),
    f("replace", &[TXT, TXT, TXT], G_TXT, |v, _| {
        let (source, from, to) = (string(&v[0]), string(&v[1]), string(&v[2]));
        if from.is_empty() {
            return text(source);
        }
        let grown = source.matches(from).count().saturating_mul(to.len());
        if grown > TEXT_MAX { Err(too_long()) } else { text(source.replace(from, to)) }
    }),
    f("concat", &[Arg::Any], G_TXT, concat).variadic().lenient(),
    f("concat_ws", &[TXT, Arg::Any], G_TXT, concat_ws).variadic().lenient(),
    f("left", &[TXT, INT], G_TXT, |v, _| side(v, true)),
    f("right", &[TXT, INT], G_TXT, |v, _| side(v, false)),
    f("repeat", &[TXT, INT], G_TXT, repeat),
    f("reverse", &[TXT], G_TXT, |v, _| text(string(&v[0]).chars().rev().collect::<String>())),
    f("lpad", &[TXT, INT, TXT], G_TXT, |v, _| pad(v, true)).optional(1),
    f("rpad", &[TXT, INT, TXT], G_TXT, |v, _| pad(v, false)).optional(1),
    f("split_part", &[TXT, TXT, INT], G_TXT, split_part),
    f("ascii", &[TXT], G_INT, |v, _| {
        Ok(Value::Int(string(&v[0]).chars().next().map_or(0, |c| i64::from(c as u32))))
    }),
    f("chr", &[INT], G_TXT, chr),
    f("starts_with", &[TXT, TXT], G_BOOL, |v, _| Ok(Value::Bool(string(&v[0]).starts_with(string(&v[1]))))),
    f("translate", &[TXT, TXT, TXT], G_TXT, translate),
    f("to_hex", &[INT], G_TXT, |v, _| text(format!("{:x}", int(&v[0]) as i32))),
    f("to_hex", &[BIG], G_TXT, |v, _| text(format!("{:x}", int(&v[0])))),
    f("quote_ident", &[TXT], G_TXT, quote_ident),
    f("quote_literal", &[Arg::Any], G_TXT, quote_literal),
    f(
        "quote_nullable",
        &[Arg::Any],
        G_TXT,
        |v, k| if v[0].is_null() { text("NULL") } else { quote_literal(v, k) },
    )
    .lenient(),
    f("format", &[TXT, Arg::Any], G_TXT, format_text).variadic().lenient(),
    f("overlay", &[TXT, TXT, INT, INT], G_TXT, overlay).optional(1),
    f("like", &[TXT, TXT, TXT], G_BOOL, |v, _| {
        Ok(Value::Bool(like(string(&v[0]), string(&v[1]), escape_of(v)?, false)?))
    })
    .optional(1),
    f("ilike", &[TXT, TXT, TXT], G_BOOL, |v, _| {
        Ok(Value::Bool(like(string(&v[0]), string(&v[1]), escape_of(v)?, true)?))
    })
    .optional(1),
    f("textcat", &[TXT, TXT], G_TXT, |v, _| text([string(&v[0]), string(&v[1])].concat())),
    f("byteacat", &[BYT, BYT], Gives::Is(Type::Bytea), |v, _| match (&v[0], &v[1]) {
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&a[..], &b[..]].concat().into())),
        _ => Ok(Value::Null),
    }),
    f("to_char", &[DEC, TXT], G_TXT, |v, _| super::picture::to_char(&v[0], string(&v[1]))),
    f("to_number", &[TXT, TXT], Gives::Is(Type::Decimal(None)), |v, _| {
        super::picture::to_number(string(&v[0]), string(&v[1]))
    }),
];
