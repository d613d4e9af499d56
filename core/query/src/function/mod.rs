//! Scalar functions: a table of names, argument types and code.
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "conversions between numbers that SQL asks for; each is bounded where it stands"
)]
#![allow(clippy::unnecessary_wraps, reason = "the code of all functions of a table has one signature")]

mod array;
mod bytes;
mod calendar;
mod json;
mod math;
mod picture;
mod precise;
mod regex;
mod text;
mod time;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kimberlite_row::{Decimal, Json, SqlError, SqlState, Type, Value};

pub use text::{Pattern, like};
pub use time::{extract, truncate};

/// What an argument may be.
#[derive(Clone, PartialEq, Debug)]
pub enum Arg {
    /// This type, or what is cast to it without being asked.
    Is(Type),
    /// Any type, as it is.
    Any,
    /// Any array.
    AnyArray,
    /// The element type of the array that is the first argument.
    Element,
}

/// What a function gives.
#[derive(Clone, PartialEq, Debug)]
pub enum Gives {
    /// This type.
    Is(Type),
    /// The type of that argument.
    Same(usize),
    /// The element type of that argument.
    ElementOf(usize),
    /// An array of that argument's type.
    ArrayOf(usize),
    /// An array of text.
    Texts,
}

/// A scalar function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    pub args: &'static [Arg],
    /// Arguments that may be left out, at the end.
    pub optional: usize,
    /// Whether the last argument may be repeated.
    pub variadic: bool,
    /// Its result.
    pub gives: Gives,
    /// Whether one NULL makes the result NULL.
    pub strict: bool,
    /// Whether it gives something else each time.
    pub volatile: bool,
    /// Its code.
    pub run: fn(&[Value], &Type) -> Result<Value, SqlError>,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

type Run = fn(&[Value], &Type) -> Result<Value, SqlError>;

const fn f(name: &'static str, args: &'static [Arg], gives: Gives, run: Run) -> Function {
    Function { name, args, optional: 0, variadic: false, gives, strict: true, volatile: false, run }
}

impl Function {
    const fn optional(mut self, count: usize) -> Self {
        self.optional = count;
        self
    }
    const fn variadic(mut self) -> Self {
        self.variadic = true;
        self
    }
    const fn lenient(mut self) -> Self {
        self.strict = false;
        self
    }

    /// Whether it takes so many arguments.
    pub fn takes(&self, count: usize) -> bool {
        let most = if self.variadic { usize::MAX } else { self.args.len() };
        count + self.optional >= self.args.len() - usize::from(self.variadic) && count <= most
    }

    /// What its argument at a place may be.
    pub fn arg(&self, at: usize) -> &'static Arg {
        &self.args[at.min(self.args.len() - 1)]
    }
}

const INT: Arg = Arg::Is(Type::Integer);
const BIG: Arg = Arg::Is(Type::BigInt);
const DEC: Arg = Arg::Is(Type::Decimal(None));
const DBL: Arg = Arg::Is(Type::Double);
const TXT: Arg = Arg::Is(Type::Text);
const JSN: Arg = Arg::Is(Type::Jsonb);
const DAT: Arg = Arg::Is(Type::Date);
const TIM: Arg = Arg::Is(Type::Time);
const TST: Arg = Arg::Is(Type::Timestamp);
const TSZ: Arg = Arg::Is(Type::TimestampTz);
const SPN: Arg = Arg::Is(Type::Interval);
const BYT: Arg = Arg::Is(Type::Bytea);
const G_INT: Gives = Gives::Is(Type::Integer);
const G_BIG: Gives = Gives::Is(Type::BigInt);
const G_DEC: Gives = Gives::Is(Type::Decimal(None));
const G_DBL: Gives = Gives::Is(Type::Double);
const G_TXT: Gives = Gives::Is(Type::Text);
const G_BOOL: Gives = Gives::Is(Type::Bool);
const G_JSN: Gives = Gives::Is(Type::Jsonb);
const G_TST: Gives = Gives::Is(Type::Timestamp);
const G_TSZ: Gives = Gives::Is(Type::TimestampTz);
const G_SPN: Gives = Gives::Is(Type::Interval);
const G_DAT: Gives = Gives::Is(Type::Date);

/// All tables.
fn tables() -> [&'static [Function]; 7] {
    [math::TABLE, text::TABLE, bytes::TABLE, regex::TABLE, time::TABLE, json::TABLE, array::TABLE]
}

/// The functions of a name.
pub fn named(name: &str) -> Vec<&'static Function> {
    tables().into_iter().flatten().filter(|function| function.name == name).collect()
}

/// The root of a variance, with as many places as that has.
pub fn deviation(variance: Decimal) -> Result<Value, SqlError> {
    math::root_alike(variance)
}

/// What `regexp_matches` and `regexp_split_to_table` give.
pub fn regex_rows(split: bool, given: &[Value]) -> Result<Vec<Value>, SqlError> {
    if split { regex::split(given) } else { regex::matches(given) }
}

/// All names, to find near ones.
pub fn names() -> Vec<&'static str> {
    tables().into_iter().flatten().map(|function| function.name).collect()
}

fn int(value: &Value) -> i64 {
    value.as_int().unwrap_or(0)
}

fn double(value: &Value) -> f64 {
    match value {
        Value::Double(value) => *value,
        Value::Real(value) => f64::from(*value),
        Value::Int(value) => *value as f64,
        Value::Decimal(value) => value.to_f64(),
        _ => 0.0,
    }
}

fn decimal(value: &Value) -> Decimal {
    match value {
        Value::Decimal(value) => *value,
        Value::Int(value) => Decimal::from(*value),
        _ => Decimal::ZERO,
    }
}

fn string(value: &Value) -> &str {
    value.as_text().unwrap_or("")
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, message)
}

fn too_long() -> SqlError {
    SqlError::new(SqlState::ProgramLimitExceeded, "requested length too large")
}

/// The text of any value, for functions that take any.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(format!("{value}")),
        other => kimberlite_row::text::output(other, &Type::Text),
    }
}

/// A value as JSON.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::Number(Decimal::from(*value)),
        Value::Decimal(value) => Json::Number(*value),
        Value::Json(json) => (**json).clone(),
        Value::Array(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Real(_) | Value::Double(_) => {
            let text = text_of(value).unwrap_or_default();
            Decimal::parse(&text).map_or(Json::Text(text), Json::Number)
        }
        Value::Timestamp(_) | Value::TimestampTz(_) => {
            let mut text = text_of(value).unwrap_or_default().replacen(' ', "T", 1);
            if matches!(value, Value::TimestampTz(_)) {
                text.push_str(":00");
            }
            Json::Text(text)
        }
        other => Json::Text(text_of(other).unwrap_or_default()),
    }
}
