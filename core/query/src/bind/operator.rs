//! Operators: which code and which type.
#![allow(clippy::match_same_arms, reason = "tables of cases keep one case per line")]

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use kimberlite_row::cast::{Willing, castable};
use kimberlite_row::{SqlError, SqlState, Type, Value};
use sqlparser::ast::BinaryOperator as Op;

use super::{Binder, Typed, unsupported};
use crate::expr::{Arithmetic, Comparison, Expr};
use crate::function;

/// The comparison an operator is.
pub(super) fn comparison(op: &Op) -> Option<Comparison> {
    Some(match op {
        Op::Eq => Comparison::Eq,
        Op::NotEq => Comparison::Ne,
        Op::Lt => Comparison::Lt,
        Op::LtEq => Comparison::Le,
        Op::Gt => Comparison::Gt,
        Op::GtEq => Comparison::Ge,
        _ => return None,
    })
}

fn no_operator(op: &str, left: &Type, right: &Type) -> SqlError {
    SqlError::new(
        SqlState::UndefinedFunction,
        format!("operator does not exist: {} {op} {}", left.name(), right.name()),
    )
    .hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
}

/// Spaces at the end of a literal do not count beside CHAR, which is kept without them.
fn blank_padded(mut a: Typed, mut b: Typed) -> (Typed, Typed) {
    let kinds = [a.kind.clone(), b.kind.clone()];
    for (this, other) in [(&mut a, &kinds[1]), (&mut b, &kinds[0])] {
        if let (Expr::Const(Value::Text(text)), Type::Unknown, Type::Char(_)) =
            (&this.expr, &this.kind, other)
        {
            this.expr = Expr::Const(Value::text(text.trim_end_matches(' ')));
        }
    }
    (a, b)
}

impl Binder<'_> {
    /// The type in which two values are compared.
    pub(super) fn common(a: &Type, b: &Type, op: &str) -> Result<Type, SqlError> {
        let refuse = || no_operator(op, a, b);
        if *a == Type::Unknown || *b == Type::Unknown || a.base() == b.base() || a.is_text() && b.is_text() {
            return Self::unify(&[a.clone(), b.clone()], op).map(|kind| match kind {
                Type::Char(_) | Type::Varchar(_) => Type::Text,
                kind => kind,
            });
        }
        let kind = Self::unify(&[a.clone(), b.clone()], op).map_err(|_| refuse())?;
        if kind.is_text() { Err(refuse()) } else { Ok(kind) }
    }

    /// The type in which the left side of `a = b` is compared: its own, where there is an operator for the two.
    pub(super) fn left_of_equal(a: &Type, b: &Type) -> Result<Type, SqlError> {
        let real = |kind: &Type| matches!(kind, Type::Real | Type::Double);
        let alike = a.base() == b.base()
            || a.is_integer() && b.is_integer()
            || a.is_text() && b.is_text()
            || real(a) && real(b)
            || a.is_datetime() && b.is_datetime();
        if *a != Type::Unknown && (alike || *b == Type::Unknown) {
            return Ok(a.clone());
        }
        Ok(match Self::common(a, b, "=")? {
            Type::Real if *a != Type::Unknown => Type::Double,
            kind => kind,
        })
    }

    /// `a op b` for a comparison.
    pub(super) fn compare(&mut self, comparison: Comparison, a: Typed, b: Typed) -> Result<Expr, SqlError> {
        let (a, b) = blank_padded(a, b);
        let kind = Self::common(&a.kind, &b.kind, comparison.sign())?;
        let a = self.coerce(a, &kind.base(), Willing::Implicit)?;
        let b = self.coerce(b, &kind.base(), Willing::Implicit)?;
        Ok(Expr::Compare(comparison, Box::new(a), Box::new(b)))
    }

    /// Compares rows of values.
    pub(super) fn compare_rows(
        &mut self,
        op: Comparison,
        a: Vec<Typed>,
        b: Vec<Typed>,
    ) -> Result<Expr, SqlError> {
        if a.len() != b.len() {
            return Err(SqlError::new(SqlState::SyntaxError, "unequal number of entries in row expressions"));
        }
        let pairs: Vec<(Typed, Typed)> = a.into_iter().zip(b).collect();
        match op {
            Comparison::Eq | Comparison::Ne => {
                let mut all = Vec::new();
                for (a, b) in pairs {
                    all.push(self.compare(Comparison::Eq, a, b)?);
                }
                let all = Expr::And(all);
                Ok(if op == Comparison::Eq { all } else { Expr::Not(Box::new(all)) })
            }
            _ => {
                // a1 < b1, or a1 = b1 and the rest.
                let strict = match op {
                    Comparison::Le => Comparison::Lt,
                    Comparison::Ge => Comparison::Gt,
                    other => other,
                };
                let mut result: Option<Expr> = None;
                for (a, b) in pairs.into_iter().rev() {
                    result = Some(match result {
                        None => self.compare(op, a, b)?,
                        Some(rest) => {
                            let first = self.compare(strict, a.clone(), b.clone())?;
                            let equal = self.compare(Comparison::Eq, a, b)?;
                            Expr::Or([first, Expr::And([equal, rest].into())].into())
                        }
                    });
                }
                Ok(result.unwrap_or(Expr::TRUE))
            }
        }
    }

    /// Any other binary operator.
    pub(super) fn binary(&mut self, op: &Op, a: Typed, b: Typed) -> Result<Typed, SqlError> {
        if let Some(op) = comparison(op) {
            return Ok(Typed { expr: self.compare(op, a, b)?, kind: Type::Bool });
        }
        let arithmetic = match op {
            Op::Plus => Some(Arithmetic::Add),
            Op::Minus => Some(Arithmetic::Sub),
            Op::Multiply => Some(Arithmetic::Mul),
            Op::Divide => Some(Arithmetic::Div),
            Op::Modulo => Some(Arithmetic::Rem),
            _ => None,
        };
        if let Some(arithmetic) = arithmetic {
            if *op == Op::Minus && a.kind == Type::Jsonb {
                return self.apply_function("jsonb_delete", [a, b].into());
            }
            return self.arithmetic(arithmetic, a, b);
        }
        let json =
            |name: &str, binder: &mut Self, a: Typed, b: Typed| binder.apply_function(name, [a, b].into());
        match op {
            Op::StringConcat => self.concat(a, b),
            Op::BitwiseAnd => self.bits("bit_and_of", a, b),
            Op::BitwiseOr => self.bits("bit_or_of", a, b),
            Op::BitwiseXor | Op::PGBitwiseXor => self.bits("bit_xor_of", a, b),
            Op::PGBitwiseShiftLeft => self.bits("shift_left_of", a, b),
            Op::PGBitwiseShiftRight => self.bits("shift_right_of", a, b),
            Op::PGExp => {
                let exact =
                    matches!(a.kind, Type::Decimal(_)) && !matches!(b.kind, Type::Double | Type::Real);
                let kind = if exact { Type::Decimal(None) } else { Type::Double };
                let a = Typed { expr: self.coerce(a, &kind, Willing::Assignment)?, kind: kind.clone() };
                let b = Typed { expr: self.coerce(b, &kind, Willing::Assignment)?, kind };
                self.apply_function("power", [a, b].into())
            }
            Op::Arrow => json("->", self, a, b),
            Op::LongArrow => json("->>", self, a, b),
            Op::HashArrow => json("#>", self, a, b),
            Op::HashLongArrow => json("#>>", self, a, b),
            Op::HashMinus => json("#-", self, a, b),
            Op::Question => json("?", self, a, b),
            Op::QuestionPipe => json("?|", self, a, b),
            Op::QuestionAnd => json("?&", self, a, b),
            Op::AtArrow if matches!(a.kind, Type::Array(_)) => json("array_contains", self, a, b),
            Op::AtArrow => json("@>", self, a, b),
            Op::ArrowAt if matches!(b.kind, Type::Array(_)) => json("array_contains", self, b, a),
            Op::ArrowAt => json("<@", self, a, b),
            Op::PGOverlap => json("array_overlap", self, a, b),
            Op::PGLikeMatch => json("like", self, a, b),
            Op::PGILikeMatch => json("ilike", self, a, b),
            Op::PGNotLikeMatch | Op::PGNotILikeMatch => {
                let name = if *op == Op::PGNotLikeMatch { "like" } else { "ilike" };
                let typed = self.apply_function(name, [a, b].into())?;
                Ok(Typed { expr: Expr::Not(Box::new(typed.expr)), kind: Type::Bool })
            }
            Op::PGRegexMatch => json("~", self, a, b),
            Op::PGRegexIMatch => json("~*", self, a, b),
            Op::PGRegexNotMatch => json("!~", self, a, b),
            Op::PGRegexNotIMatch => json("!~*", self, a, b),
            Op::PGStartsWith => json("starts_with", self, a, b),
            Op::Xor => {
                let differ = self.compare(Comparison::Ne, a, b)?;
                Ok(Typed { expr: differ, kind: Type::Bool })
            }
            other => Err(unsupported(format!("operator {other}"))),
        }
    }

    fn bits(&mut self, name: &str, a: Typed, b: Typed) -> Result<Typed, SqlError> {
        let kind = if a.kind == Type::Unknown { b.kind.clone() } else { a.kind.clone() };
        if !kind.is_integer() && kind != Type::Unknown {
            return Err(no_operator(name, &a.kind, &b.kind));
        }
        let wide = if a.kind == Type::BigInt || (b.kind == Type::BigInt && !name.starts_with("shift")) {
            Type::BigInt
        } else {
            kind
        };
        let function = function::named(name).into_iter().next();
        let a = self.coerce(a, &Type::BigInt, Willing::Implicit)?;
        let b = self.coerce(b, &Type::BigInt, Willing::Implicit)?;
        match function {
            Some(function) => {
                Ok(Typed { expr: Expr::Call(function, [a, b].into(), wide.clone()), kind: wide })
            }
            None => Err(unsupported(name)),
        }
    }

    fn concat(&mut self, a: Typed, b: Typed) -> Result<Typed, SqlError> {
        if a.kind == Type::Jsonb && matches!(b.kind, Type::Jsonb | Type::Unknown)
            || b.kind == Type::Jsonb && a.kind == Type::Unknown
        {
            return self.apply_function("jsonb_concat", [a, b].into());
        }
        if a.kind == Type::Bytea || b.kind == Type::Bytea {
            return self.apply_function("byteacat", [a, b].into());
        }
        match (&a.kind, &b.kind) {
            (Type::Array(_), Type::Array(_) | Type::Unknown) => {
                return self.apply_function("array_cat", [a, b].into());
            }
            (Type::Array(_), _) => return self.apply_function("array_append", [a, b].into()),
            (_, Type::Array(_)) => return self.apply_function("array_prepend", [a, b].into()),
            _ => {}
        }
        let text = |k: &Type| k.is_text() || *k == Type::Unknown;
        if !text(&a.kind) && !text(&b.kind) {
            return Err(no_operator("||", &a.kind, &b.kind));
        }
        let a = Typed { expr: self.coerce(a, &Type::Text, Willing::Explicit)?, kind: Type::Text };
        let b = Typed { expr: self.coerce(b, &Type::Text, Willing::Explicit)?, kind: Type::Text };
        self.apply_function("textcat", [a, b].into())
    }

    fn arithmetic(&mut self, op: Arithmetic, mut a: Typed, mut b: Typed) -> Result<Typed, SqlError> {
        let sign = match op {
            Arithmetic::Add => "+",
            Arithmetic::Sub => "-",
            Arithmetic::Mul => "*",
            Arithmetic::Div => "/",
            Arithmetic::Rem => "%",
        };
        // A bare literal takes the type of the other side, or an interval beside a time.
        for (this, other) in [(0, 1), (1, 0)] {
            let kinds = [a.kind.clone(), b.kind.clone()];
            if kinds[this] == Type::Unknown && kinds[other] != Type::Unknown {
                let kind = match (&kinds[other], op) {
                    (Type::Date, Arithmetic::Sub) => Type::Date,
                    (Type::Timestamp | Type::TimestampTz, Arithmetic::Sub) if this == 0 => {
                        kinds[other].clone()
                    }
                    (Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz, _) => Type::Interval,
                    (Type::Interval, Arithmetic::Mul | Arithmetic::Div) => Type::Double,
                    (kind, _) => kind.base(),
                };
                let side = if this == 0 { &mut a } else { &mut b };
                let taken = core::mem::replace(side, Typed { expr: Expr::NULL, kind: Type::Unknown });
                let expr = self.coerce(taken, &kind, Willing::Implicit)?;
                *side = Typed { expr, kind };
            }
        }
        if a.kind == Type::Unknown && b.kind == Type::Unknown {
            let null = |t: &Typed| t.expr == Expr::NULL || matches!(t.expr, Expr::Param(_));
            if !null(&a) && !null(&b) {
                return Err(no_operator(sign, &a.kind, &b.kind));
            }
            a = Typed { expr: self.coerce(a, &Type::Integer, Willing::Implicit)?, kind: Type::Integer };
            b = Typed { expr: self.coerce(b, &Type::Integer, Willing::Implicit)?, kind: Type::Integer };
        }
        if a.kind.is_number() && b.kind.is_number() {
            let mut kind = Self::unify(&[a.kind.clone(), b.kind.clone()], sign)?.base();
            if op == Arithmetic::Rem && matches!(kind, Type::Double | Type::Real) {
                return Err(no_operator(sign, &a.kind, &b.kind));
            }
            if kind == Type::Real && (a.kind != Type::Real || b.kind != Type::Real) {
                kind = Type::Double;
            }
            let a = self.coerce(a, &kind, Willing::Implicit)?;
            let b = self.coerce(b, &kind, Willing::Implicit)?;
            return Ok(Typed { expr: Expr::Arithmetic(op, Box::new(a), Box::new(b), kind.clone()), kind });
        }
        let kind = match (op, &a.kind, &b.kind) {
            (Arithmetic::Add | Arithmetic::Sub, Type::Date, k) if k.is_integer() => Type::Date,
            (Arithmetic::Add, k, Type::Date) if k.is_integer() => Type::Date,
            (Arithmetic::Sub, Type::Date, Type::Date) => Type::Integer,
            (Arithmetic::Add, Type::Date, Type::Time) | (Arithmetic::Add, Type::Time, Type::Date) => {
                Type::Timestamp
            }
            (Arithmetic::Add | Arithmetic::Sub, Type::Date, Type::Interval) => Type::Timestamp,
            (Arithmetic::Add, Type::Interval, Type::Date) => Type::Timestamp,
            (
                Arithmetic::Add | Arithmetic::Sub,
                k @ (Type::Timestamp | Type::TimestampTz | Type::Time),
                Type::Interval,
            )
            | (Arithmetic::Add, Type::Interval, k @ (Type::Timestamp | Type::TimestampTz | Type::Time)) => {
                k.clone()
            }
            (Arithmetic::Add | Arithmetic::Sub, Type::Interval, Type::Interval) => Type::Interval,
            (Arithmetic::Sub, Type::Time, Type::Time) => Type::Interval,
            (Arithmetic::Sub, x, y) if x.is_datetime() && y.is_datetime() => {
                let kind = Self::common(x, y, sign)?;
                a = Typed { expr: self.coerce(a, &kind, Willing::Implicit)?, kind: kind.clone() };
                b = Typed { expr: self.coerce(b, &kind, Willing::Implicit)?, kind };
                Type::Interval
            }
            (Arithmetic::Mul | Arithmetic::Div, Type::Interval, k) if k.is_number() => {
                b = Typed { expr: self.coerce(b, &Type::Double, Willing::Implicit)?, kind: Type::Double };
                Type::Interval
            }
            (Arithmetic::Mul, k, Type::Interval) if k.is_number() => {
                a = Typed { expr: self.coerce(a, &Type::Double, Willing::Implicit)?, kind: Type::Double };
                Type::Interval
            }
            _ => return Err(no_operator(sign, &a.kind, &b.kind)),
        };
        Ok(Typed { expr: Expr::Arithmetic(op, Box::new(a.expr), Box::new(b.expr), kind.clone()), kind })
    }

    /// Whether a value of one type may stand where the other is expected, and how well it fits.
    pub(super) fn fit(from: &Type, to: &Type) -> Option<u32> {
        if from == to || from.base() == to.base() {
            return Some(0);
        }
        if *from == Type::Unknown {
            // Text first, then the preferred type of each category.
            let preferred = matches!(to, Type::Double | Type::Bool | Type::TimestampTz | Type::Interval);
            return Some(if to.is_text() { 1 } else { 3 - u32::from(preferred) });
        }
        if from.is_text() && to.is_text() {
            return Some(1);
        }
        if !castable(from, to, Willing::Implicit) {
            return None;
        }
        match (from.number_rank(), to.number_rank()) {
            // Doubles are preferred among what a whole number can become.
            (Some(a), Some(b)) if a < 3 && b == 5 => Some(2),
            (Some(a), Some(b)) => Some(1 + u32::from(b - a)),
            _ => Some(if matches!(to, Type::TimestampTz) { 1 } else { 3 }),
        }
    }
}
