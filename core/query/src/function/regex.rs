//! Regular expressions, PostgreSQL's kind: brought into the syntax of `regex-syntax` and run by its Pike machine, whose
//! time is bounded by pattern times text. Of several ways to match it takes the first, where POSIX takes the longest;
//! back references and looking ahead are refused.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState, Type, Value};
use regex_automata::nfa::thompson::pikevm::{Cache, PikeVM};
use regex_automata::nfa::thompson::{Config, WhichCaptures};
use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;

use super::{Function, G_BOOL, G_INT, G_TXT, Gives, INT, TXT, bad, f, int, string, too_long};
use crate::limits::{REGEX_BYTES_MAX, REGEX_NESTING_MAX, REGEX_WORK_MAX, TEXT_MAX};

type Answer = Result<Value, SqlError>;

/// A compiled pattern.
struct Regex {
    machine: PikeVM,
    cache: Cache,
}

/// What the flags of a call say.
#[allow(clippy::struct_excessive_bools, reason = "flags that have nothing to do with each other")]
#[derive(Clone, Copy, Default)]
struct Flags {
    all: bool,
    ignore_case: bool,
    /// `^` and `$` match at every line, and `.` does not match a line break.
    lines: bool,
    extended: bool,
}

impl Flags {
    fn of(value: Option<&Value>) -> Result<Self, SqlError> {
        let mut flags = Self::default();
        for flag in value.map_or("", string).chars() {
            match flag {
                'g' => flags.all = true,
                'i' => flags.ignore_case = true,
                'c' => flags.ignore_case = false,
                'n' | 'm' => flags.lines = true,
                's' => flags.lines = false,
                'x' => flags.extended = true,
                't' | 'e' => {}
                other => {
                    return Err(bad(format!("invalid regular expression option: \"{other}\"")));
                }
            }
        }
        Ok(flags)
    }
}

fn refused(what: impl core::fmt::Display) -> SqlError {
    SqlError::new(SqlState::InvalidRegularExpression, format!("invalid regular expression: {what}"))
}

/// An advanced regular expression in the syntax of `regex-syntax`.
fn translated(pattern: &str) -> Result<String, SqlError> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut bracket: Option<usize> = None;
    while let Some(c) = chars.next() {
        if let Some(place) = &mut bracket {
            *place += 1;
            match c {
                '^' if *place == 1 => {
                    // A negation is not yet a member: `[^]]` excludes a bracket.
                    *place = 0;
                    out.push('^');
                    if chars.peek() == Some(&']') {
                        chars.next();
                        out.push_str("\\]");
                        *place = 1;
                    }
                }
                ']' if *place > 1 => {
                    bracket = None;
                    out.push(']');
                }
                '[' if chars.peek() == Some(&':') => {
                    out.push('[');
                    for inner in chars.by_ref() {
                        out.push(inner);
                        if inner == ']' {
                            break;
                        }
                    }
                }
                '\\' => {
                    out.push('\\');
                    out.extend(chars.next());
                }
                ']' | '[' | '&' | '~' => {
                    out.push('\\');
                    out.push(c);
                }
                other => out.push(other),
            }
            continue;
        }
        match c {
            '[' => {
                bracket = Some(0);
                out.push('[');
            }
            '{' if !chars.peek().is_some_and(char::is_ascii_digit) => out.push_str("\\{"),
            '\\' => match chars.next() {
                Some('m') => out.push_str("\\b{start}"),
                Some('M') => out.push_str("\\b{end}"),
                Some('y') => out.push_str("\\b"),
                Some('Y') => out.push_str("\\B"),
                Some('Z') => out.push_str("\\z"),
                Some('1'..='9') => {
                    return Err(crate::bind::unsupported("a back reference in a regular expression"));
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => return Err(refused("it ends with a backslash")),
            },
            '(' => {
                out.push('(');
                let mut ahead = chars.clone();
                if ahead.next() == Some('?') && matches!(ahead.next(), Some('=' | '!' | '<')) {
                    return Err(crate::bind::unsupported("looking ahead or behind in a regular expression"));
                }
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

/// A pattern of SIMILAR TO in the syntax of `regex-syntax`: it must match all of the text.
fn similar(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::from("^(?:");
    let mut chars = pattern.chars();
    let mut bracket = false;
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(next) = chars.next() {
                    if next.is_ascii_punctuation() {
                        out.push('\\');
                    }
                    out.push(next);
                }
            }
            '[' | ']' => {
                bracket = c == '[';
                out.push(c);
            }
            c if bracket => out.push(c),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '.' | '^' | '$' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push_str(")$");
    out
}

impl Regex {
    fn new(pattern: &str, flags: Flags) -> Result<Self, SqlError> {
        Self::compiled(&translated(pattern)?, flags)
    }

    fn compiled(pattern: &str, flags: Flags) -> Result<Self, SqlError> {
        let syntax = syntax::Config::new()
            .case_insensitive(flags.ignore_case)
            .multi_line(flags.lines)
            .dot_matches_new_line(!flags.lines)
            .ignore_whitespace(flags.extended)
            .nest_limit(REGEX_NESTING_MAX);
        let config = Config::new().nfa_size_limit(Some(REGEX_BYTES_MAX)).which_captures(WhichCaptures::All);
        let machine =
            PikeVM::builder().syntax(syntax).thompson(config).build(pattern).map_err(|error| match error
                .size_limit()
            {
                Some(_) => SqlError::new(
                    SqlState::StatementTooComplex,
                    format!("a regular expression needs more than {REGEX_BYTES_MAX} bytes"),
                ),
                None => refused(first_line(&error)),
            })?;
        Ok(Self { cache: machine.create_cache(), machine })
    }

    fn affordable(&self, text: &str) -> Result<(), SqlError> {
        let work = self.machine.get_nfa().states().len().saturating_mul(text.len());
        if work > REGEX_WORK_MAX {
            return Err(SqlError::new(
                SqlState::StatementTooComplex,
                "the regular expression is too complex for so long a text",
            ));
        }
        Ok(())
    }

    fn fits(&mut self, text: &str) -> Result<bool, SqlError> {
        self.affordable(text)?;
        Ok(self.machine.is_match(&mut self.cache, text))
    }

    /// The matches, or only the first, with what their groups hold.
    fn matches(&mut self, text: &str, all: bool) -> Result<Vec<Captures>, SqlError> {
        self.affordable(text)?;
        let most = if all { usize::MAX } else { 1 };
        Ok(self.machine.captures_iter(&mut self.cache, text).take(most).collect())
    }
}

/// The sentence of an error without the picture of the pattern.
fn first_line(error: &impl core::fmt::Display) -> String {
    let shown = format!("{error}");
    shown.lines().last().unwrap_or("").trim_start_matches("error: ").into()
}

fn whole(found: &Captures) -> core::ops::Range<usize> {
    found.get_match().map_or(0..0, |found| found.range())
}

/// What REGEXP_MATCH gives for a match: its groups, or all of it if it has none.
fn groups(text: &str, found: &Captures) -> Value {
    let group =
        |at: usize| found.get_group(at).map_or(Value::Null, |span| Value::text(&text[span.start..span.end]));
    let count = found.group_len();
    let list: Vec<Value> = if count > 1 { (1..count).map(group).collect() } else { [group(0)].into() };
    Value::Array(list.into())
}

fn fits(v: &[Value], ignore_case: bool) -> Result<bool, SqlError> {
    Regex::new(string(&v[1]), Flags { ignore_case, ..Flags::default() })?.fits(string(&v[0]))
}

fn similar_to(v: &[Value], _: &Type) -> Answer {
    let escape = v.get(2).map_or(Some('\\'), |escape| string(escape).chars().next());
    let mut regex = Regex::compiled(&similar(string(&v[1]), escape), Flags::default())?;
    Ok(Value::Bool(regex.fits(string(&v[0]))?))
}

/// The place in the text that a character number (from 1) means.
fn from_character(text: &str, start: Option<&Value>) -> Result<usize, SqlError> {
    let start = start.map_or(1, int);
    if start < 1 {
        return Err(bad(format!("invalid value for parameter \"start\": {start}")));
    }
    let skipped = usize::try_from(start - 1).unwrap_or(usize::MAX);
    Ok(text.char_indices().nth(skipped).map_or(text.len(), |(at, _)| at))
}

/// Replaces the matches from the `nth`, or that one alone.
fn replaced(text: &str, regex: &mut Regex, with: &str, from: usize, (nth, all): (usize, bool)) -> Answer {
    let searched = &text[from..];
    let found = regex.matches(searched, all || nth > 1)?;
    let mut out = String::from(&text[..from]);
    let mut done = 0;
    let chosen = found.iter().enumerate().filter(|(at, _)| if all { *at + 1 >= nth } else { *at + 1 == nth });
    for (_, found) in chosen {
        let span = whole(found);
        out.push_str(&searched[done..span.start]);
        done = span.end;
        let mut chars = with.chars();
        while let Some(c) = chars.next() {
            let group = match c {
                '\\' => match chars.next() {
                    Some('&') => 0,
                    Some(digit @ '1'..='9') => digit as usize - '0' as usize,
                    Some('\\') | None => {
                        out.push('\\');
                        continue;
                    }
                    Some(other) => {
                        out.extend(['\\', other]);
                        continue;
                    }
                },
                c => {
                    out.push(c);
                    continue;
                }
            };
            if let Some(span) = found.get_group(group) {
                out.push_str(&searched[span.start..span.end]);
            }
        }
        if out.len() > TEXT_MAX {
            return Err(too_long());
        }
    }
    out.push_str(&searched[done..]);
    Ok(Value::from(out))
}

fn replace(v: &[Value], _: &Type) -> Answer {
    let flags = Flags::of(v.get(3))?;
    let mut regex = Regex::new(string(&v[1]), flags)?;
    replaced(string(&v[0]), &mut regex, string(&v[2]), 0, (1, flags.all))
}

fn replace_from(v: &[Value], _: &Type) -> Answer {
    let text = string(&v[0]);
    let from = from_character(text, v.get(3))?;
    let nth = v.get(4).map_or(1, int);
    if nth < 0 {
        return Err(bad(format!("invalid value for parameter \"n\": {nth}")));
    }
    let mut regex = Regex::new(string(&v[1]), Flags::of(v.get(5))?)?;
    let nth = usize::try_from(nth).unwrap_or(usize::MAX);
    replaced(text, &mut regex, string(&v[2]), from, (nth.max(1), nth == 0))
}

/// The groups of each match, or of the first unless the flags ask for all.
pub(super) fn matches(v: &[Value]) -> Result<Vec<Value>, SqlError> {
    let flags = Flags::of(v.get(2))?;
    let text = string(&v[0]);
    let found = Regex::new(string(&v[1]), flags)?.matches(text, flags.all)?;
    Ok(found.iter().map(|found| groups(text, found)).collect())
}

/// The parts between matches. An empty match at an end parts nothing.
pub(super) fn split(v: &[Value]) -> Result<Vec<Value>, SqlError> {
    let text = string(&v[0]);
    let found = Regex::new(string(&v[1]), Flags::of(v.get(2))?)?.matches(text, true)?;
    let mut out = Vec::new();
    let mut done = 0;
    for found in &found {
        let span = whole(found);
        if span.is_empty() && (span.start == done || span.end == text.len()) {
            continue;
        }
        out.push(Value::text(&text[done..span.start]));
        done = span.end;
    }
    out.push(Value::text(&text[done..]));
    Ok(out)
}

/// The `nth` match behind a start, in the text from there.
fn nth<'t>(
    v: &'t [Value],
    (start, which, flags): (Option<&Value>, Option<&Value>, Option<&Value>),
) -> Result<(usize, &'t str, Option<Captures>), SqlError> {
    let text = string(&v[0]);
    let from = from_character(text, start)?;
    let which = which.map_or(1, int);
    if which < 1 {
        return Err(bad(format!("invalid value for parameter \"n\": {which}")));
    }
    let found = Regex::new(string(&v[1]), Flags::of(flags)?)?.matches(&text[from..], which > 1)?;
    let at = usize::try_from(which - 1).unwrap_or(usize::MAX);
    Ok((from, &text[from..], found.into_iter().nth(at)))
}

fn substr(v: &[Value], _: &Type) -> Answer {
    let (_, text, found) = nth(v, (v.get(2), v.get(3), v.get(4)))?;
    Ok(found.map_or(Value::Null, |found| Value::text(&text[whole(&found)])))
}

fn instr(v: &[Value], _: &Type) -> Answer {
    let (from, text, found) = nth(v, (v.get(2), v.get(3), None))?;
    let before = string(&v[0])[..from].chars().count();
    Ok(Value::Int(found.map_or(0, |found| before + text[..whole(&found).start].chars().count() + 1) as i64))
}

fn count(v: &[Value], _: &Type) -> Answer {
    let text = string(&v[0]);
    let from = from_character(text, v.get(2))?;
    let found = Regex::new(string(&v[1]), Flags::of(v.get(3))?)?.matches(&text[from..], true)?;
    Ok(Value::Int(found.len() as i64))
}

/// `substring(text, pattern)`: the first group, or all that matched.
fn substring(v: &[Value], _: &Type) -> Answer {
    let text = string(&v[0]);
    let found = Regex::new(string(&v[1]), Flags::default())?.matches(text, false)?;
    let Some(found) = found.first() else { return Ok(Value::Null) };
    let span = if found.group_len() > 1 { found.get_group(1) } else { found.get_group(0) };
    Ok(span.map_or(Value::Null, |span| Value::text(&text[span.start..span.end])))
}

pub(super) static TABLE: &[Function] = &[
    f("~", &[TXT, TXT], G_BOOL, |v, _| fits(v, false).map(Value::Bool)),
    f("~*", &[TXT, TXT], G_BOOL, |v, _| fits(v, true).map(Value::Bool)),
    f("!~", &[TXT, TXT], G_BOOL, |v, _| fits(v, false).map(|fits| Value::Bool(!fits))),
    f("!~*", &[TXT, TXT], G_BOOL, |v, _| fits(v, true).map(|fits| Value::Bool(!fits))),
    f("similar_to", &[TXT, TXT, TXT], G_BOOL, similar_to).optional(1),
    f("regexp_like", &[TXT, TXT, TXT], G_BOOL, |v, _| {
        Ok(Value::Bool(Regex::new(string(&v[1]), Flags::of(v.get(2))?)?.fits(string(&v[0]))?))
    })
    .optional(1),
    f("regexp_replace", &[TXT, TXT, TXT, TXT], G_TXT, replace).optional(1),
    f("regexp_replace", &[TXT, TXT, TXT, INT, INT, TXT], G_TXT, replace_from).optional(2),
    f("regexp_match", &[TXT, TXT, TXT], Gives::Texts, |v, _| {
        Ok(matches(v)?.into_iter().next().unwrap_or_default())
    })
    .optional(1),
    f("regexp_split_to_array", &[TXT, TXT, TXT], Gives::Texts, |v, _| Ok(Value::Array(split(v)?.into())))
        .optional(1),
    f("regexp_count", &[TXT, TXT, INT, TXT], G_INT, count).optional(2),
    f("regexp_substr", &[TXT, TXT, INT, INT, TXT], G_TXT, substr).optional(3),
    f("regexp_instr", &[TXT, TXT, INT, INT], G_INT, instr).optional(2),
    f("substring", &[TXT, TXT], G_TXT, substring),
];
