//! Bound expressions: every name is resolved, every type known, every cast written out.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::{ObjectId, Type, Value};

use crate::function::Function;
use crate::plan::Plan;

/// A column of some node of a plan; unique in the statement.
pub type Col = u32;

/// What an arithmetic operator does; both sides are of the type it works in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Arithmetic {
    /// `+`.
    Add,
    /// `-`.
    Sub,
    /// `*`.
    Mul,
    /// `/`.
    Div,
    /// `%`.
    Rem,
}

/// A comparison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Comparison {
    /// `=`.
    Eq,
    /// `<>`.
    Ne,
    /// `<`.
    Lt,
    /// `<=`.
    Le,
    /// `>`.
    Gt,
    /// `>=`.
    Ge,
}

impl Comparison {
    /// Whether an order fits.
    #[inline]
    pub fn holds(self, order: core::cmp::Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
        }
    }

    /// The comparison with its sides exchanged.
    pub fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            same => same,
        }
    }

    /// As SQL writes it.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

/// What a subquery in an expression asks.
#[derive(Clone, PartialEq, Debug)]
pub enum Ask {
    /// Its one value.
    Scalar,
    /// Whether it has a row.
    Exists,
    /// Whether the comparison holds for some row (`ANY`, `IN`) or for all; the operands are compared with its columns.
    Quantified {
        /// The left side.
        left: Vec<Expr>,
        /// The comparison.
        comparison: Comparison,
        /// `ALL` instead of `ANY`.
        all: bool,
    },
    /// All its values, as an array.
    Array,
}

/// A bound expression.
#[derive(Clone, PartialEq, Debug)]
pub enum Expr {
    /// A constant.
    Const(Value),
    /// A column, by name of the plan. Before compilation only.
    Col(Col),
    /// A value of the row at hand. After compilation only.
    At(usize),
    /// A value of the row the enclosing query is at. After compilation only.
    Outer(usize),
    /// `$n`, counted from 0.
    Param(usize),
    /// A cast.
    Cast(Box<Expr>, Type, Type, bool),
    /// Arithmetic in one type.
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>, Type),
    /// `-x` in one type.
    Negate(Box<Expr>, Type),
    /// A comparison of one type.
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// `IS [NOT] DISTINCT FROM`; true asks for distinct.
    Distinct(bool, Box<Expr>, Box<Expr>),
    /// All of them.
    And(Vec<Expr>),
    /// One of them.
    Or(Vec<Expr>),
    /// Not.
    Not(Box<Expr>),
    /// `IS NULL`.
    IsNull(Box<Expr>),
    /// `IS TRUE` or `IS FALSE`.
    Is(bool, Box<Expr>),
    /// `CASE`: conditions with results, and the rest.
    Case(Vec<(Expr, Expr)>, Box<Expr>),
    /// The first that is not NULL.
    Coalesce(Vec<Expr>),
    /// `IN (list)`: NULL counts.
    InList(Box<Expr>, Vec<Expr>),
    /// `IN (constants)`, sorted; whether NULL was among them.
    InSet(Box<Expr>, Arc<[Value]>, bool),
    /// A function.
    Call(&'static Function, Vec<Expr>, Type),
    /// `ARRAY[…]`.
    Array(Vec<Expr>),
    /// `a[i]`.
    Subscript(Box<Expr>, Box<Expr>),
    /// `x op ANY (array)` or `ALL`.
    AnyOf(Box<Expr>, Comparison, Box<Expr>, bool),
    /// `nextval` of a sequence.
    NextValue(ObjectId),
    /// `currval` of a sequence.
    CurrentValue(ObjectId),
    /// `lastval`.
    LastValue,
    /// `setval` of a sequence: the number, and whether it counts as taken.
    SetValue(ObjectId, Box<Expr>, Box<Expr>),
    /// The time of the transaction.
    Now,
    /// A random number below 1.
    Random,
    /// A random UUID of version 4.
    RandomUuid,
    /// A subquery. Before compilation only.
    Subquery(Box<Ask>, Box<Plan>),
    /// The answer of a subquery that does not depend on the row. After compilation only.
    Answer(Box<Ask>, usize),
    /// Whether it is the aggregate's row of this grouping set: bits of `GROUPING()`.
    Grouping(Vec<u32>),
}

/// Gives the direct parts of an expression, borrowed one way or the other: the one list of which variant holds what.
macro_rules! parts_of {
    ($expr:expr, $each:expr, $iter:ident, $borrow:ident) => {
        match $expr {
            Self::Const(_)
            | Self::Col(_)
            | Self::At(_)
            | Self::Outer(_)
            | Self::Param(_)
            | Self::NextValue(_)
            | Self::CurrentValue(_)
            | Self::LastValue
            | Self::Now
            | Self::Random
            | Self::RandomUuid
            | Self::Grouping(_) => {}
            Self::Cast(a, ..)
            | Self::Negate(a, _)
            | Self::Not(a)
            | Self::IsNull(a)
            | Self::Is(_, a)
            | Self::InSet(a, ..) => $each(a),
            Self::Arithmetic(_, a, b, _)
            | Self::Compare(_, a, b)
            | Self::Distinct(_, a, b)
            | Self::SetValue(_, a, b)
            | Self::Subscript(a, b)
            | Self::AnyOf(a, _, b, _) => {
                $each(a);
                $each(b);
            }
            Self::And(list)
            | Self::Or(list)
            | Self::Coalesce(list)
            | Self::Call(_, list, _)
            | Self::Array(list) => list.$iter().for_each($each),
            Self::Case(arms, rest) => {
                for (condition, result) in arms {
                    $each(condition);
                    $each(result);
                }
                $each(rest);
            }
            Self::InList(a, list) => {
                $each(a);
                list.$iter().for_each($each);
            }
            Self::Subquery(ask, _) | Self::Answer(ask, _) => {
                if let Ask::Quantified { left, .. } = ask.$borrow() {
                    left.$iter().for_each($each);
                }
            }
        }
    };
}

impl Expr {
    /// A boolean constant.
    pub const TRUE: Self = Self::Const(Value::Bool(true));
    /// NULL.
    pub const NULL: Self = Self::Const(Value::Null);

    /// Gives each direct part.
    pub fn parts<'a>(&'a self, each: &mut dyn FnMut(&'a Expr)) {
        parts_of!(self, each, iter, as_ref);
    }

    /// Gives each direct part, to change it.
    pub fn parts_mut(&mut self, each: &mut dyn FnMut(&mut Expr)) {
        parts_of!(self, each, iter_mut, as_mut);
    }

    /// Gives every column it reads, those of its subqueries' outer references included.
    pub fn columns(&self, each: &mut dyn FnMut(Col)) {
        if let Self::Col(col) = self {
            each(*col);
        }
        if let Self::Subquery(_, plan) = self {
            plan.free_columns(each);
        }
        self.parts(&mut |part| part.columns(each));
    }

    /// Whether a part, however deep, fits; subqueries are not entered.
    pub fn any(&self, fits: &mut dyn FnMut(&Expr) -> bool) -> bool {
        if fits(self) {
            return true;
        }
        let mut found = false;
        self.parts(&mut |part| found = found || part.any(fits));
        found
    }

    /// Whether it holds a subquery.
    pub fn has_subquery(&self) -> bool {
        self.any(&mut |e| matches!(e, Self::Subquery(..)))
    }

    /// Whether it may give something else each time, subqueries included.
    pub fn is_volatile(&self) -> bool {
        self.any(&mut |e| matches!(e, Self::Subquery(..)) || e.is_volatile_itself())
    }

    /// Whether it may give something else each time, its parts aside.
    pub fn is_volatile_itself(&self) -> bool {
        match self {
            Self::NextValue(_)
            | Self::CurrentValue(_)
            | Self::LastValue
            | Self::SetValue(..)
            | Self::Random
            | Self::RandomUuid => true,
            Self::Call(function, ..) => function.volatile,
            _ => false,
        }
    }

    /// Splits at AND.
    pub fn conjuncts(self, out: &mut Vec<Expr>) {
        match self {
            Self::And(list) => list.into_iter().for_each(|e| e.conjuncts(out)),
            Self::Const(Value::Bool(true)) => {}
            other => out.push(other),
        }
    }

    /// All of them, as one condition.
    pub fn all(mut list: Vec<Expr>) -> Option<Expr> {
        match list.len() {
            0 => None,
            1 => list.pop(),
            _ => Some(Self::And(list)),
        }
    }
}
