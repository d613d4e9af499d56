//! Evaluation of bound expressions, with SQL's three-valued logic.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::{cast, decimal_error};
use kimberlite_row::datetime::{self, DAY};
use kimberlite_row::fact::{KeyRange, RowId};
use kimberlite_row::text::{integer, out_of_range};
use kimberlite_row::{ObjectId, Row, Sequence, SqlError, SqlState, Type, Value};
use kimberlite_types::{Offset, Rng, StreamId, Streams};

use crate::expr::{Arithmetic, Ask, Comparison, Expr};
use crate::limits::{MEMORY_BYTES_MAX, WORK_ROWS_MAX};

/// Rows kept while a statement runs, and what was asked of them.
#[derive(Debug, Default)]
pub struct Kept {
    /// The rows.
    pub rows: Vec<Row>,
    /// The first columns' values, sorted, for `IN`; made when first asked for.
    pub set: Option<(Vec<Value>, bool)>,
}

/// What lives as long as the statement, and what it changes outside of rows.
#[derive(Debug)]
pub struct Shared {
    /// Values of `$n`.
    pub params: Vec<Value>,
    /// The time of the transaction, in microseconds since 1970.
    pub now: i64,
    /// Luck, from the seed the statement came with; made when it is first asked for.
    pub rng: Option<Rng>,
    /// The seed.
    pub seed: u64,
    /// Sequences it took numbers from.
    pub sequences: BTreeMap<ObjectId, Sequence>,
    /// What `currval` says in this session.
    pub current: BTreeMap<ObjectId, i64>,
    /// The last of them.
    pub last_sequence: Option<ObjectId>,
    /// Ranges of tables and indexes that were read at the statement's own snapshot.
    pub read: Vec<(ObjectId, Option<ObjectId>, KeyRange)>,
    /// Rows that an index led to: what it holds of them says nothing of their other columns.
    pub read_rows: Vec<(ObjectId, RowId)>,
    /// Streams that were read to the end, and where that was.
    pub read_streams: Vec<(StreamId, Offset)>,
    /// Whether something may follow from what is read, so that it is to be guarded.
    pub guarding: bool,
    /// Bytes of rows in memory.
    pub memory: usize,
    /// And how many there may be.
    pub memory_max: usize,
    /// Rows that went from stage to stage.
    pub work: u64,
    /// And how many there may be.
    pub work_max: u64,
}

impl Shared {
    /// Of a statement without parameters and sequences.
    pub fn new(now: i64, seed: u64) -> Self {
        Self {
            params: Vec::new(),
            now,
            rng: None,
            seed,
            sequences: BTreeMap::new(),
            current: BTreeMap::new(),
            last_sequence: None,
            read: Vec::new(),
            read_rows: Vec::new(),
            read_streams: Vec::new(),
            guarding: true,
            memory: 0,
            memory_max: MEMORY_BYTES_MAX,
            work: 0,
            work_max: WORK_ROWS_MAX,
        }
    }

    /// Notes a range that was read. Beyond a limit, ranges of a table become the whole table.
    pub fn note(&mut self, table: ObjectId, index: Option<ObjectId>, range: &KeyRange) {
        let whole = (table, None, KeyRange::ALL);
        if !self.guarding || self.read.contains(&whole) {
            return;
        }
        if *range == KeyRange::ALL || self.read.len() >= crate::limits::RANGES_MAX {
            self.read.retain(|(id, ..)| *id != table);
            self.read.push(whole);
            return;
        }
        let this = (table, index, range.clone());
        if !self.read.contains(&this) {
            self.read.push(this);
        }
    }

    /// Notes rows that an index led to. Beyond a limit, they become the whole table.
    pub fn note_rows(&mut self, table: ObjectId, rows: Vec<RowId>) {
        if !self.guarding || self.read.contains(&(table, None, KeyRange::ALL)) {
            return;
        }
        self.read_rows.extend(rows.into_iter().map(|id| (table, id)));
        if self.read_rows.len() > crate::limits::ROWS_GUARDED_MAX {
            self.read_rows.retain(|(id, _)| *id != table);
            self.note(table, None, &KeyRange::ALL);
        }
    }

    /// Notes that a stream was read to its end.
    pub fn note_stream(&mut self, stream: StreamId, end: Offset) {
        if self.guarding && !self.read_streams.contains(&(stream, end)) {
            self.read_streams.push((stream, end));
        }
    }

    /// Counts memory.
    pub fn hold(&mut self, bytes: usize) -> Result<(), SqlError> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.memory_max {
            return Err(SqlError::new(
                SqlState::OutOfMemory,
                format!("the statement needs more than {} bytes of rows in memory", self.memory_max),
            )
            .hint("Add a condition or a LIMIT, or an index that avoids the sort or join."));
        }
        Ok(())
    }

    /// Counts rows that a stage handled.
    pub fn work(&mut self, rows: u64) -> Result<(), SqlError> {
        self.work += rows;
        if self.work > self.work_max {
            return Err(SqlError::new(
                SqlState::QueryCanceled,
                format!("canceling statement: it handled more than {} rows", self.work_max),
            ));
        }
        Ok(())
    }
}

/// What an expression sees besides its row.
pub struct Scope<'a> {
    /// The row of the enclosing query.
    pub outer: &'a [Value],
    /// Answers of subqueries.
    pub slots: &'a [Option<Arc<Kept>>],
    /// The statement.
    pub shared: &'a mut Shared,
}

/// True, false or unknown.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        _ => None,
    }
}

fn logical(value: Option<bool>) -> Value {
    value.map_or(Value::Null, Value::Bool)
}

impl Expr {
    /// Whether a condition holds; NULL does not.
    pub fn holds(&self, row: &[Value], scope: &mut Scope<'_>) -> Result<bool, SqlError> {
        Ok(truth(&self.eval(row, scope)?) == Some(true))
    }

    /// Its value for a row.
    #[allow(clippy::too_many_lines, reason = "one arm per form of an expression")]
    pub fn eval(&self, row: &[Value], scope: &mut Scope<'_>) -> Result<Value, SqlError> {
        Ok(match self {
            Self::Const(value) => value.clone(),
            Self::At(at) => row[*at].clone(),
            Self::Outer(at) => scope.outer[*at].clone(),
            Self::Param(at) => scope.shared.params.get(*at).cloned().ok_or_else(|| {
                SqlError::new(SqlState::UndefinedParameter, format!("there is no parameter ${}", at + 1))
            })?,
            Self::Cast(inner, from, to, explicit) => cast(&inner.eval(row, scope)?, from, to, *explicit)?,
            Self::Arithmetic(op, a, b, kind) => {
                let (a, b) = (a.eval(row, scope)?, b.eval(row, scope)?);
                if a.is_null() || b.is_null() { Value::Null } else { arithmetic(*op, &a, &b, kind)? }
            }
            Self::Negate(inner, kind) => negate(&inner.eval(row, scope)?, kind)?,
            Self::Compare(comparison, a, b) => {
                // Columns and constants are compared where they stand.
                let order = match (&**a, &**b) {
                    (Self::At(a), Self::Const(b)) => compare(&row[*a], b),
                    (Self::At(a), Self::At(b)) => compare(&row[*a], &row[*b]),
                    (a, Self::Const(b)) => compare(&a.eval(row, scope)?, b),
                    (a, b) => compare(&a.eval(row, scope)?, &b.eval(row, scope)?),
                };
                logical(order.map(|order| comparison.holds(order)))
            }
            Self::Distinct(distinct, a, b) => {
                Value::Bool((a.eval(row, scope)? != b.eval(row, scope)?) == *distinct)
            }
            Self::And(list) => junction(list, false, row, scope)?,
            Self::Or(list) => junction(list, true, row, scope)?,
            Self::Not(inner) => logical(truth(&inner.eval(row, scope)?).map(|b| !b)),
            Self::IsNull(inner) => match &**inner {
                Self::At(at) => Value::Bool(row[*at].is_null()),
                inner => Value::Bool(inner.eval(row, scope)?.is_null()),
            },
            Self::Is(wanted, inner) => Value::Bool(truth(&inner.eval(row, scope)?) == Some(*wanted)),
            Self::Case(arms, rest) => {
                for (condition, result) in arms {
                    if condition.holds(row, scope)? {
                        return result.eval(row, scope);
                    }
                }
                rest.eval(row, scope)?
            }
            Self::Coalesce(list) => {
                for item in list {
                    let value = item.eval(row, scope)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Value::Null
            }
            Self::InList(inner, list) => {
                let value = inner.eval(row, scope)?;
                if value.is_null() {
                    return Ok(Value::Null);
                }
                let mut unknown = false;
                for item in list {
                    match compare(&value, &item.eval(row, scope)?) {
                        Some(order) if order.is_eq() => return Ok(Value::Bool(true)),
                        Some(_) => {}
                        None => unknown = true,
                    }
                }
                if unknown { Value::Null } else { Value::Bool(false) }
            }
            Self::InSet(inner, set, null) => {
                let value = inner.eval(row, scope)?;
                if value.is_null() {
                    Value::Null
                } else if set.binary_search(&value).is_ok() {
                    Value::Bool(true)
                } else if *null {
                    Value::Null
                } else {
                    Value::Bool(false)
                }
            }
            Self::Call(function, arguments, kind) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    let value = argument.eval(row, scope)?;
                    if function.strict && value.is_null() {
                        return Ok(Value::Null);
                    }
                    values.push(value);
                }
                (function.run)(&values, kind)?
            }
            Self::Array(list) => {
                let items: Vec<Value> = list.iter().map(|e| e.eval(row, scope)).collect::<Result<_, _>>()?;
                Value::Array(items.into())
            }
            Self::Subscript(array, at) => match (array.eval(row, scope)?, at.eval(row, scope)?) {
                (Value::Array(items), Value::Int(at)) => {
                    usize::try_from(at - 1).ok().and_then(|at| items.get(at)).cloned().unwrap_or_default()
                }
                _ => Value::Null,
            },
            Self::AnyOf(left, comparison, array, all) => {
                let (left, array) = (left.eval(row, scope)?, array.eval(row, scope)?);
                match array {
                    Value::Array(items) => quantified(&left, *comparison, items.iter(), *all),
                    _ => Value::Null,
                }
            }
            Self::NextValue(id) => next_value(*id, scope.shared)?,
            Self::CurrentValue(id) => match scope.shared.current.get(id) {
                Some(value) => Value::Int(*value),
                None => {
                    return Err(SqlError::new(
                        SqlState::ObjectNotInPrerequisiteState,
                        "currval of the sequence is not yet defined in this session",
                    ));
                }
            },
            Self::LastValue => {
                let last = scope.shared.last_sequence.and_then(|id| scope.shared.current.get(&id));
                Value::Int(*last.ok_or_else(|| {
                    SqlError::new(
                        SqlState::ObjectNotInPrerequisiteState,
                        "lastval is not yet defined in this session",
                    )
                })?)
            }
            Self::SetValue(id, value, taken) => {
                let (value, taken) = (value.eval(row, scope)?, taken.eval(row, scope)?);
                match (value, truth(&taken)) {
                    (Value::Int(value), Some(taken)) => set_value(*id, value, taken, scope.shared)?,
                    _ => Value::Null,
                }
            }
            Self::Now => Value::TimestampTz(scope.shared.now),
            Self::Random => Value::Double(random(scope.shared)),
            Self::RandomUuid => {
                let luck = luck(scope.shared);
                let (high, low) = (luck.next_u64(), luck.next_u64());
                // RFC 9562, section 5.4: version 4, variant 10.
                let high = high & !0xf000 | 0x4000;
                let low = low & !(0b11 << 62) | 0b10 << 62;
                Value::Uuid((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
            }
            Self::Answer(ask, slot) => answer(ask, *slot, row, scope)?,
            Self::Col(_) | Self::Subquery(..) | Self::Grouping(_) => {
                return Err(SqlError::new(
                    SqlState::FeatureNotSupported,
                    "this expression is not supported here",
                ));
            }
        })
    }
}

/// Luck, from the statement's seed.
fn luck(shared: &mut Shared) -> &mut Rng {
    let seed = shared.seed;
    shared.rng.get_or_insert_with(|| Streams::new(seed).stream("sql", 0))
}

/// A number of 53 bits below 1: as many as a DOUBLE holds.
#[allow(clippy::cast_precision_loss, reason = "53 bits are held exactly")]
fn random(shared: &mut Shared) -> f64 {
    (luck(shared).next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

fn junction(list: &[Expr], absorbing: bool, row: &[Value], scope: &mut Scope<'_>) -> Result<Value, SqlError> {
    let mut unknown = false;
    for part in list {
        match truth(&part.eval(row, scope)?) {
            Some(value) if value == absorbing => return Ok(Value::Bool(absorbing)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { Value::Null } else { Value::Bool(!absorbing) })
}

/// The order of two values, unless one is NULL.
pub fn compare(a: &Value, b: &Value) -> Option<core::cmp::Ordering> {
    if a.is_null() || b.is_null() { None } else { Some(a.cmp(b)) }
}

/// `left op ANY (items)` or `ALL`.
pub fn quantified<'a>(
    left: &Value,
    comparison: Comparison,
    items: impl Iterator<Item = &'a Value>,
    all: bool,
) -> Value {
    let mut unknown = false;
    for item in items {
        match compare(left, item).map(|order| comparison.holds(order)) {
            Some(holds) if holds != all => return Value::Bool(!all),
            Some(_) => {}
            None => unknown = true,
        }
    }
    if unknown { Value::Null } else { Value::Bool(all) }
}

/// Compares rows value by value: equality of all, or the order of the first that differs.
fn compare_rows(left: &[Value], comparison: Comparison, right: &[Value]) -> Option<bool> {
    let mut unknown = false;
    for (a, b) in left.iter().zip(right) {
        match compare(a, b) {
            None if matches!(comparison, Comparison::Eq | Comparison::Ne) => unknown = true,
            None => return None,
            Some(order) if order.is_ne() => return Some(comparison.holds(order)),
            Some(_) => {}
        }
    }
    if unknown { None } else { Some(comparison.holds(core::cmp::Ordering::Equal)) }
}

/// What a subquery's rows answer to what was asked.
pub fn answer_of(ask: &Ask, left: &[Value], rows: &[Row]) -> Result<Value, SqlError> {
    Ok(match ask {
        Ask::Exists => Value::Bool(!rows.is_empty()),
        Ask::Scalar => match rows {
            [] => Value::Null,
            [row] => row[0].clone(),
            _ => {
                return Err(SqlError::new(
                    SqlState::CardinalityViolation,
                    "more than one row returned by a subquery used as an expression",
                ));
            }
        },
        Ask::Array => Value::Array(rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>().into()),
        Ask::Quantified { comparison, all, .. } if left.len() == 1 => {
            quantified(&left[0], *comparison, rows.iter().map(|row| &row[0]), *all)
        }
        Ask::Quantified { comparison, all, .. } => {
            let mut unknown = false;
            for row in rows {
                match compare_rows(left, *comparison, row) {
                    Some(holds) if holds != *all => return Ok(Value::Bool(!*all)),
                    Some(_) => {}
                    None => unknown = true,
                }
            }
            if unknown { Value::Null } else { Value::Bool(*all) }
        }
    })
}

fn answer(ask: &Ask, slot: usize, row: &[Value], scope: &mut Scope<'_>) -> Result<Value, SqlError> {
    let Some(kept) = scope.slots.get(slot).and_then(Clone::clone) else {
        return Err(SqlError::new(SqlState::FeatureNotSupported, "this subquery is not supported here"));
    };
    let Ask::Quantified { left, comparison, all } = ask else { return answer_of(ask, &[], &kept.rows) };
    let left: Vec<Value> = left.iter().map(|e| e.eval(row, scope)).collect::<Result<_, _>>()?;
    // `= ANY` and `<> ALL` look the value up.
    let lookup = matches!((comparison, all), (Comparison::Eq, false) | (Comparison::Ne, true));
    if let (true, [value], Some((set, null))) = (lookup, &left[..], &kept.set) {
        if set.is_empty() && !null {
            return Ok(Value::Bool(*all));
        }
        return Ok(if value.is_null() {
            Value::Null
        } else if set.binary_search(value).is_ok() {
            Value::Bool(!*all)
        } else if *null {
            Value::Null
        } else {
            Value::Bool(*all)
        });
    }
    answer_of(ask, &left, &kept.rows)
}

fn next_value(id: ObjectId, shared: &mut Shared) -> Result<Value, SqlError> {
    let Some(sequence) = shared.sequences.get_mut(&id) else {
        return Err(SqlError::new(SqlState::UndefinedTable, "the sequence does not exist"));
    };
    let next = match sequence.last {
        None => sequence.start,
        Some(last) => match last
            .checked_add(sequence.step)
            .filter(|n| (sequence.low..=sequence.high).contains(n))
        {
            Some(next) => next,
            None if sequence.cycle => {
                if sequence.step > 0 {
                    sequence.low
                } else {
                    sequence.high
                }
            }
            None => {
                let (end, bound) =
                    if sequence.step > 0 { ("maximum", sequence.high) } else { ("minimum", sequence.low) };
                return Err(SqlError::new(
                    SqlState::SequenceLimit,
                    format!("nextval: reached {end} value of sequence \"{}\" ({bound})", sequence.name),
                ));
            }
        },
    };
    sequence.last = Some(next);
    shared.current.insert(id, next);
    shared.last_sequence = Some(id);
    Ok(Value::Int(next))
}

fn set_value(id: ObjectId, value: i64, taken: bool, shared: &mut Shared) -> Result<Value, SqlError> {
    let Some(sequence) = shared.sequences.get_mut(&id) else {
        return Err(SqlError::new(SqlState::UndefinedTable, "the sequence does not exist"));
    };
    let bounds = sequence.low..=sequence.high;
    // What comes next follows from what was last: a number that is still to be taken has one before it.
    let last = if taken { Some(value) } else { value.checked_sub(sequence.step) };
    if !bounds.contains(&value) || last.is_none() {
        return Err(SqlError::new(
            SqlState::NumericValueOutOfRange,
            format!(
                "setval: value {value} is out of bounds for sequence \"{}\" ({}..{})",
                sequence.name, sequence.low, sequence.high
            ),
        ));
    }
    sequence.last = if !taken && value == sequence.start { None } else { last };
    if taken {
        shared.current.insert(id, value);
    }
    Ok(Value::Int(value))
}

fn negate(value: &Value, kind: &Type) -> Result<Value, SqlError> {
    Ok(match value {
        Value::Int(n) => integer(n.checked_neg().ok_or_else(|| out_of_range(kind))?, kind)?,
        Value::Decimal(n) => Value::Decimal(n.negated()),
        Value::Real(n) => Value::Real(-n),
        Value::Double(n) => Value::Double(-n),
        Value::Interval(span) => Value::Interval(span.checked_neg().ok_or_else(interval_range)?),
        other => other.clone(),
    })
}

fn interval_range() -> SqlError {
    SqlError::new(SqlState::DatetimeFieldOverflow, "interval out of range")
}

fn stamp_range() -> SqlError {
    SqlError::new(SqlState::DatetimeFieldOverflow, "timestamp out of range")
}

fn division_by_zero() -> SqlError {
    SqlError::new(SqlState::DivisionByZero, "division by zero")
}

/// Arithmetic of two values; `kind` is the type of the result.
pub fn arithmetic(op: Arithmetic, a: &Value, b: &Value, kind: &Type) -> Result<Value, SqlError> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => {
            if *b == 0 && matches!(op, Arithmetic::Div | Arithmetic::Rem) {
                return Err(division_by_zero());
            }
            let result = match op {
                Arithmetic::Add => a.checked_add(*b),
                Arithmetic::Sub => a.checked_sub(*b),
                Arithmetic::Mul => a.checked_mul(*b),
                Arithmetic::Div => a.checked_div(*b),
                Arithmetic::Rem => Some(a.wrapping_rem(*b)),
            };
            integer(result.ok_or_else(|| out_of_range(kind))?, kind)
        }
        (Value::Decimal(a), Value::Decimal(b)) => match op {
            Arithmetic::Add => a.add(*b),
            Arithmetic::Sub => a.sub(*b),
            Arithmetic::Mul => a.mul(*b),
            Arithmetic::Div => a.div(*b),
            Arithmetic::Rem => a.rem(*b),
        }
        .map(Value::Decimal)
        .map_err(decimal_error),
        (Value::Double(a), Value::Double(b)) => floating(op, *a, *b).map(Value::double),
        (Value::Real(a), Value::Real(b)) => {
            let wide = floating(op, f64::from(*a), f64::from(*b))?;
            if (wide as f32).is_infinite() && wide.is_finite() && a.is_finite() && b.is_finite() {
                return Err(SqlError::new(SqlState::NumericValueOutOfRange, "value out of range: overflow"));
            }
            Ok(Value::real(wide as f32))
        }
        _ => times(op, a, b),
    }
}

fn floating(op: Arithmetic, a: f64, b: f64) -> Result<f64, SqlError> {
    if b == 0.0 && matches!(op, Arithmetic::Div | Arithmetic::Rem) && !a.is_nan() {
        return Err(division_by_zero());
    }
    let result = match op {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div => a / b,
        Arithmetic::Rem => libm::fmod(a, b),
    };
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(SqlError::new(SqlState::NumericValueOutOfRange, "value out of range: overflow"));
    }
    Ok(result)
}

/// Arithmetic of dates and times.
fn times(op: Arithmetic, a: &Value, b: &Value) -> Result<Value, SqlError> {
    use Arithmetic::{Add, Div, Mul, Sub};
    let signed = |span: &kimberlite_row::Interval| -> Result<kimberlite_row::Interval, SqlError> {
        if op == Sub { span.checked_neg().ok_or_else(interval_range) } else { Ok(*span) }
    };
    Ok(match (op, a, b) {
        (Add, Value::Date(day), Value::Int(n)) | (Add, Value::Int(n), Value::Date(day)) => {
            Value::Date(i32::try_from(i64::from(*day) + n).map_err(|_| stamp_range())?)
        }
        (Sub, Value::Date(day), Value::Int(n)) => {
            Value::Date(i32::try_from(i64::from(*day) - n).map_err(|_| stamp_range())?)
        }
        (Sub, Value::Date(a), Value::Date(b)) => Value::Int(i64::from(*a) - i64::from(*b)),
        (Add, Value::Date(day), Value::Time(time)) | (Add, Value::Time(time), Value::Date(day)) => {
            Value::Timestamp(i64::from(*day) * DAY + time)
        }
        (Add | Sub, Value::Date(day), Value::Interval(span)) => Value::Timestamp(
            datetime::add_interval(i64::from(*day) * DAY, signed(span)?).ok_or_else(stamp_range)?,
        ),
        (Add | Sub, Value::Timestamp(stamp), Value::Interval(span)) => {
            Value::Timestamp(datetime::add_interval(*stamp, signed(span)?).ok_or_else(stamp_range)?)
        }
        (Add | Sub, Value::TimestampTz(stamp), Value::Interval(span)) => {
            Value::TimestampTz(datetime::add_interval(*stamp, signed(span)?).ok_or_else(stamp_range)?)
        }
        (Add | Sub, Value::Time(time), Value::Interval(span)) => {
            Value::Time(time.wrapping_add(signed(span)?.micros).rem_euclid(DAY))
        }
        (
            Add,
            Value::Interval(_),
            Value::Date(_) | Value::Timestamp(_) | Value::TimestampTz(_) | Value::Time(_),
        ) => times(op, b, a)?,
        (Sub, Value::Timestamp(a), Value::Timestamp(b))
        | (Sub, Value::TimestampTz(a), Value::TimestampTz(b)) => {
            let micros = a.checked_sub(*b).ok_or_else(interval_range)?;
            Value::Interval(kimberlite_row::Interval {
                months: 0,
                days: (micros / DAY) as i32,
                micros: micros % DAY,
            })
        }
        (Sub, Value::Time(a), Value::Time(b)) => {
            Value::Interval(kimberlite_row::Interval { micros: a - b, ..kimberlite_row::Interval::default() })
        }
        (Add | Sub, Value::Interval(a), Value::Interval(b)) => {
            Value::Interval(a.checked_add(signed(b)?).ok_or_else(interval_range)?)
        }
        (Mul, Value::Interval(span), Value::Double(by)) | (Mul, Value::Double(by), Value::Interval(span)) => {
            Value::Interval(span.scaled(*by).ok_or_else(interval_range)?)
        }
        (Div, Value::Interval(span), Value::Double(by)) => {
            if *by == 0.0 {
                return Err(division_by_zero());
            }
            Value::Interval(span.scaled(1.0 / by).ok_or_else(interval_range)?)
        }
        _ => return Err(SqlError::new(SqlState::UndefinedFunction, "operator does not exist")),
    })
}

/// Whether NULL stands where it makes all of it NULL, so that nothing else in it is ever computed.
fn is_unknown(expr: &Expr) -> bool {
    match expr {
        Expr::Arithmetic(_, a, b, _) | Expr::Compare(_, a, b) => **a == Expr::NULL || **b == Expr::NULL,
        Expr::InList(inner, _) | Expr::InSet(inner, ..) => **inner == Expr::NULL,
        Expr::Call(function, arguments, _) => function.strict && arguments.contains(&Expr::NULL),
        _ => false,
    }
}

/// Folds parts without columns into constants; errors stay where they are, to be met when the row is.
pub fn fold(expr: &mut Expr, shared: &mut Shared) {
    expr.parts_mut(&mut |part| fold(part, shared));
    if matches!(expr, Expr::Const(_)) {
        return;
    }
    if is_unknown(expr) {
        *expr = Expr::NULL;
        return;
    }
    let decides = matches!(expr, Expr::Or(_));
    if let Expr::And(list) | Expr::Or(list) = expr
        && list.contains(&Expr::Const(Value::Bool(decides)))
    {
        *expr = Expr::Const(Value::Bool(decides));
        return;
    }
    let mut constant = true;
    let mut any = false;
    expr.parts(&mut |part| {
        any = true;
        constant &= matches!(part, Expr::Const(_));
    });
    let pure = match expr {
        Expr::Cast(..)
        | Expr::Arithmetic(..)
        | Expr::Negate(..)
        | Expr::Compare(..)
        | Expr::Distinct(..)
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::Is(..)
        | Expr::InSet(..)
        | Expr::Coalesce(_)
        | Expr::Array(_) => true,
        Expr::Call(function, ..) => !function.volatile,
        _ => false,
    };
    if constant && any && pure {
        let mut scope = Scope { outer: &[], slots: &[], shared };
        if let Ok(value) = expr.eval(&[], &mut scope) {
            *expr = Expr::Const(value);
            return;
        }
    }
    if let Expr::InList(left, list) = expr
        && list.len() > 8
        && list.iter().all(|item| matches!(item, Expr::Const(_)))
    {
        let mut values: Vec<Value> =
            list.iter().filter_map(|e| if let Expr::Const(v) = e { Some(v.clone()) } else { None }).collect();
        let null = values.iter().any(Value::is_null);
        values.retain(|v| !v.is_null());
        values.sort();
        values.dedup();
        let left = core::mem::replace(&mut **left, Expr::NULL);
        *expr = Expr::InSet(Box::new(left), values.into(), null);
    }
}
