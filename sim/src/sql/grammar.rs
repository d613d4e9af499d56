//! Conditions over the table `data`, drawn at random; as text, and what they come to by a second, plain evaluation.
//!
//! The evaluation is SQL's three-valued logic written down anew: it calls nothing of the query layer.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// Conditions nest at most this deep.
const DEPTH_MAX: u64 = 3;

/// Numbers that columns and constants have, less than.
pub(crate) const NUMBERS: u64 = 8;

/// The texts of the column `s`: some are beginnings of others.
pub(crate) const TEXTS: [&str; 6] = ["", "a", "ab", "abc", "b", "zz"];

/// Asks for a number below a bound.
pub(crate) type Ask<'a> = dyn FnMut(u64) -> u64 + 'a;

/// A row of `data`, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataRow {
    /// The key.
    pub id: i64,
    /// A number.
    pub a: Option<i64>,
    /// Another.
    pub b: Option<i64>,
    /// A text.
    pub s: Option<String>,
}

/// A column of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The key.
    Id,
    /// A number.
    A,
    /// Another.
    B,
}

impl Column {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Its value.
    pub const fn of(self, row: &DataRow) -> Option<i64> {
        match self {
            Self::Id => Some(row.id),
            Self::A => row.a,
            Self::B => row.b,
        }
    }
}

/// How two things are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `=`
    Equal,
    /// `<>`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

impl Compare {
    const ALL: [Self; 6] = [Self::Equal, Self::Unequal, Self::Less, Self::AtMost, Self::More, Self::AtLeast];

    const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Unequal => "<>",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
        }
    }

    fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Unequal => left != right,
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::More => left > right,
            Self::AtLeast => left >= right,
        }
    }
}

/// A number that is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Number {
    /// What a column holds.
    Of(Column),
    /// A constant, or NULL.
    Constant(Option<i64>),
    /// A sum.
    Sum(Box<Number>, Box<Number>),
    /// A difference.
    Difference(Box<Number>, Box<Number>),
    /// The first that is not NULL.
    Coalesce(Box<Number>, Box<Number>),
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Two numbers are compared.
    Numbers(Compare, Number, Number),
    /// The text is compared with another.
    Text(Compare, &'static str),
    /// The text begins with another.
    Begins(&'static str),
    /// A number is NULL, or is not.
    IsNull(Number, bool),
    /// The text is NULL, or is not.
    TextIsNull(bool),
    /// A number is one of some, or is not.
    In(Number, Vec<Option<i64>>, bool),
    /// A number lies between two, or does not.
    Between(Number, i64, i64, bool),
    /// `IS DISTINCT FROM`, or not.
    Distinct(Number, Number, bool),
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// Either.
    Or(Box<Condition>, Box<Condition>),
    /// The opposite.
    Not(Box<Condition>),
}

/// A constant, NULL now and then.
pub(crate) fn constant(ask: &mut Ask<'_>) -> Option<i64> {
    let drawn = ask(NUMBERS + 2);
    (drawn < NUMBERS).then_some(drawn.cast_signed())
}

impl Number {
    fn draw(ask: &mut Ask<'_>, depth: u64) -> Self {
        let column = |drawn| [Column::Id, Column::A, Column::A, Column::B][drawn as usize];
        match ask(if depth == 0 { 6 } else { 9 }) {
            0..=3 => Self::Of(column(ask(4))),
            4 | 5 => Self::Constant(constant(ask)),
            6 => Self::Sum(Box::new(Self::draw(ask, depth - 1)), Box::new(Self::draw(ask, depth - 1))),
            7 => Self::Difference(Box::new(Self::draw(ask, depth - 1)), Box::new(Self::draw(ask, depth - 1))),
            _ => Self::Coalesce(Box::new(Self::draw(ask, depth - 1)), Box::new(Self::draw(ask, depth - 1))),
        }
    }

    /// What it is in a row; NULL is none.
    pub fn of(&self, row: &DataRow) -> Option<i64> {
        match self {
            Self::Of(column) => column.of(row),
            Self::Constant(value) => *value,
            Self::Sum(left, right) => Some(left.of(row)? + right.of(row)?),
            Self::Difference(left, right) => Some(left.of(row)? - right.of(row)?),
            Self::Coalesce(left, right) => left.of(row).or_else(|| right.of(row)),
        }
    }

    fn clauses(&self, into: &mut BTreeSet<&'static str>) {
        match self {
            Self::Of(_) => {}
            Self::Constant(None) => drop(into.insert("NULL")),
            Self::Constant(Some(_)) => drop(into.insert("constant")),
            Self::Sum(left, right) | Self::Difference(left, right) | Self::Coalesce(left, right) => {
                into.insert(if matches!(self, Self::Coalesce(..)) { "COALESCE" } else { "arithmetic" });
                left.clauses(into);
                right.clauses(into);
            }
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(column) => f.write_str(column.name()),
            Self::Constant(None) => f.write_str("CAST(NULL AS INTEGER)"),
            Self::Constant(Some(value)) => write!(f, "{value}"),
            Self::Sum(left, right) => write!(f, "({left} + {right})"),
            Self::Difference(left, right) => write!(f, "({left} - {right})"),
            Self::Coalesce(left, right) => write!(f, "COALESCE({left}, {right})"),
        }
    }
}

/// `word` in front of which stands NOT, if so.
const fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

impl Condition {
    /// A condition by luck.
    pub(crate) fn draw(ask: &mut Ask<'_>) -> Self {
        let depth = ask(DEPTH_MAX);
        Self::drawn(ask, depth)
    }

    /// One that an index can answer: a column against constants.
    pub(crate) fn simple(ask: &mut Ask<'_>) -> Self {
        let column = Number::Of([Column::Id, Column::A, Column::A, Column::B][ask(4) as usize]);
        let value = ask(NUMBERS).cast_signed();
        match ask(5) {
            0 | 1 => Self::Numbers(Compare::Equal, column, Number::Constant(Some(value))),
            2 => Self::Between(column, value, value + ask(3).cast_signed(), false),
            3 => Self::IsNull(column, false),
            _ => {
                let compare = Compare::ALL[ask(6) as usize];
                Self::Numbers(compare, column, Number::Constant(Some(value)))
            }
        }
    }

    fn drawn(ask: &mut Ask<'_>, depth: u64) -> Self {
        let negated = ask(3) == 0;
        if depth > 0 {
            let inner = |ask: &mut Ask<'_>| Box::new(Self::drawn(ask, depth - 1));
            match ask(8) {
                0 | 1 => return Self::And(inner(ask), inner(ask)),
                2 | 3 => return Self::Or(inner(ask), inner(ask)),
                4 => return Self::Not(inner(ask)),
                _ => {}
            }
        }
        match ask(12) {
            0 => Self::Text(Compare::ALL[ask(6) as usize], TEXTS[ask(6) as usize]),
            1 => Self::Begins(TEXTS[ask(6) as usize]),
            2 => Self::IsNull(Number::draw(ask, depth), negated),
            3 => Self::TextIsNull(negated),
            4 | 5 => {
                let count = 1 + ask(3);
                let number = Number::draw(ask, depth);
                Self::In(number, (0..count).map(|_| constant(ask)).collect(), negated)
            }
            6 | 7 => {
                let low = ask(NUMBERS).cast_signed();
                Self::Between(Number::draw(ask, depth), low, low + ask(4).cast_signed(), negated)
            }
            8 => Self::Distinct(Number::draw(ask, depth), Number::draw(ask, depth), negated),
            _ => Self::Numbers(
                Compare::ALL[ask(6) as usize],
                Number::draw(ask, depth),
                Number::draw(ask, depth),
            ),
        }
    }

    /// Whether it holds of a row; none where SQL says NULL.
    pub fn of(&self, row: &DataRow) -> Option<bool> {
        let unless = |value: bool, negated: bool| value != negated;
        match self {
            Self::Numbers(compare, left, right) => Some(compare.holds(&left.of(row)?, &right.of(row)?)),
            Self::Text(compare, text) => Some(compare.holds(&row.s.as_deref()?, text)),
            Self::Begins(text) => Some(row.s.as_deref()?.starts_with(text)),
            Self::IsNull(number, negated) => Some(unless(number.of(row).is_none(), *negated)),
            Self::TextIsNull(negated) => Some(unless(row.s.is_none(), *negated)),
            Self::In(number, among, negated) => {
                let value = number.of(row)?;
                if among.contains(&Some(value)) {
                    return Some(!negated);
                }
                (!among.contains(&None)).then_some(*negated)
            }
            Self::Between(number, low, high, negated) => {
                let value = number.of(row)?;
                Some(unless((*low..=*high).contains(&value), *negated))
            }
            Self::Distinct(left, right, negated) => Some(unless(left.of(row) != right.of(row), *negated)),
            Self::And(left, right) => match (left.of(row), right.of(row)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(left, right) => match (left.of(row), right.of(row)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(inner) => inner.of(row).map(|holds| !holds),
        }
    }

    /// The condition that holds of `row`: this one, its opposite, or that it is NULL.
    pub(crate) fn clauses(&self, into: &mut BTreeSet<&'static str>) {
        match self {
            Self::Numbers(compare, left, right) => {
                into.insert(if *compare == Compare::Equal { "=" } else { "<" });
                left.clauses(into);
                right.clauses(into);
            }
            Self::Text(..) => drop(into.insert("text")),
            Self::Begins(_) => drop(into.insert("LIKE")),
            Self::IsNull(number, _) => {
                into.insert("IS NULL");
                number.clauses(into);
            }
            Self::TextIsNull(_) => drop(into.insert("IS NULL")),
            Self::In(number, among, _) => {
                into.insert(if among.contains(&None) { "IN with NULL" } else { "IN" });
                number.clauses(into);
            }
            Self::Between(number, ..) => {
                into.insert("BETWEEN");
                number.clauses(into);
            }
            Self::Distinct(left, right, _) => {
                into.insert("IS DISTINCT FROM");
                left.clauses(into);
                right.clauses(into);
            }
            Self::And(left, right) | Self::Or(left, right) => {
                into.insert(if matches!(self, Self::And(..)) { "AND" } else { "OR" });
                left.clauses(into);
                right.clauses(into);
            }
            Self::Not(inner) => {
                into.insert("NOT");
                inner.clauses(into);
            }
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers(compare, left, right) => write!(f, "{left} {} {right}", compare.sign()),
            Self::Text(compare, text) => write!(f, "s {} '{text}'", compare.sign()),
            Self::Begins(text) => write!(f, "s LIKE '{text}%'"),
            Self::IsNull(number, negated) => write!(f, "{number} IS {}NULL", not(*negated)),
            Self::TextIsNull(negated) => write!(f, "s IS {}NULL", not(*negated)),
            Self::In(number, among, negated) => {
                let mut list = String::new();
                for value in among {
                    let comma = if list.is_empty() { "" } else { ", " };
                    match value {
                        Some(value) => write!(list, "{comma}{value}")?,
                        None => write!(list, "{comma}NULL")?,
                    }
                }
                write!(f, "{number} {}IN ({list})", not(*negated))
            }
            Self::Between(number, low, high, negated) => {
                write!(f, "{number} {}BETWEEN {low} AND {high}", not(*negated))
            }
            Self::Distinct(left, right, negated) => {
                write!(f, "{left} IS {}DISTINCT FROM {right}", not(*negated))
            }
            Self::And(left, right) => write!(f, "({left} AND {right})"),
            Self::Or(left, right) => write!(f, "({left} OR {right})"),
            Self::Not(inner) => write!(f, "NOT ({inner})"),
        }
    }
}
