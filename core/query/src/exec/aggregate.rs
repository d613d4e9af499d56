//! Aggregate functions: one state per group and call.
#![allow(clippy::match_same_arms, reason = "tables of cases keep one case per line")]
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts of rows, which memory bounds; averages of DOUBLE are as exact as DOUBLE"
)]

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::slice;

use kimberlite_row::cast::decimal_error;
use kimberlite_row::json::Key;
use kimberlite_row::text::out_of_range;
use kimberlite_row::{Decimal, Interval, Json, Row, SqlError, SqlState, Type, Value};

use super::batch::Batch;
use super::hash::Keys;
use crate::eval::Scope;
use crate::exec::sort::compare_keys;
use crate::expr::{Arithmetic, Expr};
use crate::function::{text_of, to_json};
use crate::plan::{Aggregate, AggregateCall, PairStatistic};

/// The state of one call in one group.
#[derive(Clone, Debug, Default)]
pub struct State {
    count: i64,
    whole: i128,
    sum: Value,
    best: Value,
    square: f64,
    total: f64,
    pair: [f64; 5],
    text: String,
    items: Vec<Value>,
    members: BTreeMap<Key, Json>,
    /// Rows that wait for their order, or arguments already seen.
    waiting: Vec<(Vec<Value>, Row)>,
    seen: Keys,
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Int(n) => *n as f64,
        Value::Decimal(n) => n.to_f64(),
        Value::Real(n) => f64::from(*n),
        Value::Double(n) => *n,
        _ => 0.0,
    }
}

impl State {
    /// Takes a row.
    pub fn add(
        &mut self,
        call: &AggregateCall,
        row: &[Value],
        scope: &mut Scope<'_>,
    ) -> Result<(), SqlError> {
        if let Some(filter) = &call.filter
            && !filter.holds(row, scope)?
        {
            return Ok(());
        }
        if !call.distinct && call.order.is_empty() {
            // Nothing is kept of a row but what it adds.
            match &call.arguments[..] {
                [] => return self.take(call, &[]),
                [Expr::At(at)] => return self.take(call, slice::from_ref(&row[*at])),
                [argument] => return self.take(call, slice::from_ref(&argument.eval(row, scope)?)),
                _ => {}
            }
        }
        let mut arguments = Vec::with_capacity(call.arguments.len());
        for argument in &call.arguments {
            arguments.push(argument.eval(row, scope)?);
        }
        if call.distinct
            && !arguments.first().is_some_and(Value::is_null)
            && !self.seen.insert(arguments.clone()).1
        {
            return Ok(());
        }
        if call.order.is_empty() {
            return self.take(call, &arguments);
        }
        let mut key = Vec::with_capacity(call.order.len());
        for part in &call.order {
            key.push(part.expr.eval(row, scope)?);
        }
        scope.shared.hold(key.iter().chain(&arguments).map(Value::size).sum())?;
        self.waiting.push((key, arguments));
        Ok(())
    }

    /// Takes the rows of a batch.
    pub(super) fn add_all(
        &mut self,
        call: &AggregateCall,
        batch: &Batch,
        scope: &mut Scope<'_>,
    ) -> Result<(), SqlError> {
        let plain = call.filter.is_none() && !call.distinct && call.order.is_empty();
        let ([Expr::At(at)], Aggregate::Sum | Aggregate::Avg, true) =
            (&call.arguments[..], call.function, plain)
        else {
            return batch.try_each(|row| self.add(call, row, scope));
        };
        batch.try_each(|row| match &row[*at] {
            Value::Int(n) => {
                self.count += 1;
                self.whole += i128::from(*n);
                Ok(())
            }
            value => self.take(call, slice::from_ref(value)),
        })
    }

    /// One pair more, as Youngs and Cramer have it.
    fn add_pair(&mut self, y: f64, x: f64) {
        self.count += 1;
        let [sum_x, sum_y, xx, yy, xy] = &mut self.pair;
        (*sum_x, *sum_y) = (*sum_x + x, *sum_y + y);
        if self.count > 1 {
            let n = self.count as f64;
            let (apart_x, apart_y) = (x * n - *sum_x, y * n - *sum_y);
            let scale = 1.0 / (n * (n - 1.0));
            *xx += apart_x * apart_x * scale;
            *yy += apart_y * apart_y * scale;
            *xy += apart_x * apart_y * scale;
        }
    }

    fn take(&mut self, call: &AggregateCall, arguments: &[Value]) -> Result<(), SqlError> {
        let value = arguments.first().unwrap_or(&Value::Null);
        match (call.function, value) {
            (Aggregate::Sum | Aggregate::Avg, Value::Int(n)) => {
                self.count += 1;
                self.whole += i128::from(*n);
                return Ok(());
            }
            (Aggregate::Count, Value::Int(_)) => {
                self.count += 1;
                return Ok(());
            }
            _ => {}
        }
        match call.function {
            Aggregate::CountAll => self.count += 1,
            Aggregate::ArrayAgg => self.items.push(value.clone()),
            Aggregate::JsonAgg => self.items.push(Value::Json(Arc::new(to_json(value)))),
            Aggregate::JsonObjectAgg => {
                let key = text_of(value).ok_or_else(|| {
                    SqlError::new(SqlState::InvalidParameterValue, "field name must not be null")
                })?;
                self.count += 1;
                self.members.insert(Key(key), to_json(&arguments[1]));
            }
            _ if value.is_null() => {}
            Aggregate::Count => self.count += 1,
            Aggregate::Sum | Aggregate::Avg => {
                self.count += 1;
                self.sum(value)?;
            }
            Aggregate::Min => {
                if self.best.is_null() || *value < self.best || later_digits(value, &self.best) {
                    self.best = value.clone();
                }
            }
            Aggregate::Max => {
                if self.best.is_null() || *value > self.best || later_digits(value, &self.best) {
                    self.best = value.clone();
                }
            }
            Aggregate::BoolAnd => {
                self.best = Value::Bool(*value == Value::Bool(true) && self.best != Value::Bool(false));
            }
            Aggregate::BoolOr => {
                self.best = Value::Bool(*value == Value::Bool(true) || self.best == Value::Bool(true));
            }
            Aggregate::BitAnd | Aggregate::BitOr | Aggregate::BitXor => {
                let n = value.as_int().unwrap_or(0);
                self.best = Value::Int(match (&self.best, call.function) {
                    (Value::Int(old), Aggregate::BitAnd) => old & n,
                    (Value::Int(old), Aggregate::BitOr) => old | n,
                    (Value::Int(old), _) => old ^ n,
                    _ => n,
                });
            }
            Aggregate::StringAgg => {
                if self.count > 0 {
                    self.text.push_str(arguments.get(1).and_then(Value::as_text).unwrap_or(""));
                }
                self.count += 1;
                self.text.push_str(value.as_text().unwrap_or(""));
                if self.text.len() > crate::limits::TEXT_MAX {
                    return Err(SqlError::new(SqlState::ProgramLimitExceeded, "the text is too long"));
                }
            }
            Aggregate::Variance { .. } => {
                // Youngs and Cramer, "Some results relevant to choice of sum and sum-of-product algorithms": what
                // PostgreSQL computes, to the last bit.
                self.count += 1;
                let x = number(value);
                self.total += x;
                if self.count > 1 {
                    let n = self.count as f64;
                    let apart = x * n - self.total;
                    self.square += apart * apart / (n * (n - 1.0));
                }
                self.sum(value)?;
                if let Value::Int(_) | Value::Decimal(_) = value {
                    let exact = to_decimal(value);
                    let square = exact.mul(exact).map_err(decimal_error)?;
                    self.best = match &self.best {
                        Value::Decimal(old) => Value::Decimal(old.add(square).map_err(decimal_error)?),
                        _ => Value::Decimal(square),
                    };
                }
            }
            Aggregate::Percentile { .. } | Aggregate::Mode => self.items.push(value.clone()),
            Aggregate::Pair(_) => {
                if arguments[1].is_null() {
                    return Ok(());
                }
                let (y, x) = (number(value), number(&arguments[1]));
                self.add_pair(y, x);
            }
        }
        Ok(())
    }

    fn sum(&mut self, value: &Value) -> Result<(), SqlError> {
        self.sum = match (&self.sum, value) {
            (_, Value::Int(n)) => {
                self.whole += i128::from(*n);
                return Ok(());
            }
            (Value::Null, value) => value.clone(),
            (Value::Decimal(a), Value::Decimal(b)) => Value::Decimal(a.add(*b).map_err(decimal_error)?),
            (a, b) => crate::eval::arithmetic(Arithmetic::Add, a, b, &Type::Double)?,
        };
        Ok(())
    }

    /// The result.
    pub fn finish(&mut self, call: &AggregateCall, scope: &mut Scope<'_>) -> Result<Value, SqlError> {
        if !self.waiting.is_empty() {
            let mut waiting = core::mem::take(&mut self.waiting);
            waiting.sort_by(|a, b| compare_keys(&a.0, &b.0, &call.order));
            for (_, arguments) in &waiting {
                self.take(call, arguments)?;
            }
        }
        let none = self.count == 0;
        Ok(match call.function {
            Aggregate::CountAll | Aggregate::Count => Value::Int(self.count),
            Aggregate::Sum if none => Value::Null,
            Aggregate::Sum => match &self.sum {
                Value::Null if call.kind == Type::BigInt => {
                    Value::Int(i64::try_from(self.whole).map_err(|_| out_of_range(&Type::BigInt))?)
                }
                Value::Null => wide(self.whole)?,
                sum => sum.clone(),
            },
            Aggregate::Avg if none => Value::Null,
            Aggregate::Avg => match &self.sum {
                Value::Null => quotient(&wide(self.whole)?, self.count)?,
                Value::Double(sum) => Value::double(sum / self.count as f64),
                Value::Real(sum) => Value::double(f64::from(*sum) / self.count as f64),
                Value::Interval(sum) => {
                    Value::Interval(sum.scaled(1.0 / self.count as f64).unwrap_or(Interval::default()))
                }
                sum => quotient(sum, self.count)?,
            },
            Aggregate::Min
            | Aggregate::Max
            | Aggregate::BoolAnd
            | Aggregate::BoolOr
            | Aggregate::BitAnd
            | Aggregate::BitOr
            | Aggregate::BitXor => self.best.clone(),
            Aggregate::StringAgg if none => Value::Null,
            Aggregate::StringAgg => Value::text(&self.text),
            Aggregate::ArrayAgg if self.items.is_empty() => Value::Null,
            Aggregate::ArrayAgg => Value::Array(core::mem::take(&mut self.items).into()),
            Aggregate::JsonAgg if self.items.is_empty() => Value::Null,
            Aggregate::JsonAgg => {
                Value::Json(Arc::new(Json::Array(self.items.iter().map(to_json).collect())))
            }
            Aggregate::JsonObjectAgg if none => Value::Null,
            Aggregate::JsonObjectAgg => {
                Value::Json(Arc::new(Json::Object(core::mem::take(&mut self.members))))
            }
            Aggregate::Variance { sample, root } => self.variance(call, sample, root)?,
            Aggregate::Percentile { continuous } => self.percentile(call, continuous, scope)?,
            Aggregate::Mode => self.mode(),
            Aggregate::Pair(statistic) => self.pair(statistic),
        })
    }

    fn variance(&self, call: &AggregateCall, sample: bool, root: bool) -> Result<Value, SqlError> {
        let divisor = self.count - i64::from(sample);
        if divisor <= 0 {
            return Ok(Value::Null);
        }
        if call.kind == Type::Double {
            let variance = self.square / divisor as f64;
            return Ok(Value::double(if root { libm::sqrt(variance) } else { variance }));
        }
        // Exact: (n * sum of squares - square of the sum) / (n * divisor).
        let sum = match &self.sum {
            Value::Decimal(sum) => *sum,
            _ => to_decimal(&wide(self.whole)?),
        };
        let squares = to_decimal(&self.best);
        let n = Decimal::from(self.count);
        let above = n.mul(squares).and_then(|a| a.sub(sum.mul(sum)?)).map_err(decimal_error)?;
        let below = n.mul(Decimal::from(divisor)).map_err(decimal_error)?;
        if above.is_zero() {
            return Ok(Value::Decimal(Decimal::ZERO));
        }
        let variance = above.div(below).map_err(decimal_error)?;
        if root { crate::function::deviation(variance) } else { Ok(Value::Decimal(variance)) }
    }

    /// The items come in the order asked for; the fraction is the last argument's constant.
    fn percentile(
        &self,
        call: &AggregateCall,
        continuous: bool,
        scope: &mut Scope<'_>,
    ) -> Result<Value, SqlError> {
        let fraction = match call.arguments.get(1) {
            Some(fraction) => number(&fraction.eval(&[], scope)?),
            None => return Ok(Value::Null),
        };
        if !(0.0..=1.0).contains(&fraction) {
            return Err(SqlError::new(
                SqlState::NumericValueOutOfRange,
                alloc::format!("percentile value {fraction} is not between 0 and 1"),
            ));
        }
        let Some(last) = self.items.len().checked_sub(1) else { return Ok(Value::Null) };
        if !continuous {
            let at = libm::ceil(fraction * self.items.len() as f64) as usize;
            return Ok(self.items[at.saturating_sub(1).min(last)].clone());
        }
        let place = fraction * last as f64;
        let below = libm::floor(place) as usize;
        let (low, high) = (number(&self.items[below]), number(&self.items[(below + 1).min(last)]));
        Ok(Value::double(low + (high - low) * (place - below as f64)))
    }

    fn mode(&self) -> Value {
        let mut counts: BTreeMap<&Value, usize> = BTreeMap::new();
        for item in &self.items {
            *counts.entry(item).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        counts.into_iter().find(|(_, count)| *count == most).map_or(Value::Null, |(item, _)| item.clone())
    }

    fn pair(&self, statistic: PairStatistic) -> Value {
        let n = self.count as f64;
        let [x, y, sxx, syy, sxy] = self.pair;
        if statistic == PairStatistic::Count {
            return Value::Int(self.count);
        }
        if self.count == 0 {
            return Value::Null;
        }
        let over = |a: f64, b: f64| if b == 0.0 { Value::Null } else { Value::double(a / b) };
        match statistic {
            PairStatistic::CovarPop => Value::double(sxy / n),
            PairStatistic::CovarSamp => over(sxy, n - 1.0),
            PairStatistic::Corr => over(sxy, libm::sqrt(sxx * syy)),
            PairStatistic::Slope => over(sxy, sxx),
            PairStatistic::Intercept if sxx == 0.0 => Value::Null,
            PairStatistic::Intercept => Value::double((y - x * sxy / sxx) / n),
            PairStatistic::R2 if sxx == 0.0 => Value::Null,
            PairStatistic::R2 if syy == 0.0 => Value::Double(1.0),
            PairStatistic::R2 => Value::double(sxy * sxy / (sxx * syy)),
            PairStatistic::AverageX => Value::double(x / n),
            PairStatistic::AverageY => Value::double(y / n),
            PairStatistic::SquaresX => Value::double(sxx),
            PairStatistic::SquaresY => Value::double(syy),
            PairStatistic::Products => Value::double(sxy),
            PairStatistic::Count => Value::Null,
        }
    }
}

/// Whether it is equal, and may be written otherwise: the last of equal numbers is the one that is shown.
fn later_digits(value: &Value, best: &Value) -> bool {
    matches!(value, Value::Decimal(_)) && value == best
}

fn to_decimal(value: &Value) -> Decimal {
    match value {
        Value::Decimal(n) => *n,
        Value::Int(n) => Decimal::from(*n),
        _ => Decimal::ZERO,
    }
}

fn wide(value: i128) -> Result<Value, SqlError> {
    Decimal::new(value, 0).map(Value::Decimal).ok_or_else(kimberlite_row::text::too_wide)
}

fn quotient(sum: &Value, count: i64) -> Result<Value, SqlError> {
    to_decimal(sum).div(Decimal::from(count)).map(Value::Decimal).map_err(decimal_error)
}
