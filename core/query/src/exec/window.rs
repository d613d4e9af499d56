//! Window functions over rows that are all in memory: sort into partitions, then walk each.
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "places in a partition, which memory bounds far below any of these types"
)]

use alloc::vec::Vec;
use core::ops::Range;

use kimberlite_row::{Interval, Row, SqlError, SqlState, Type, Value};

use super::aggregate::State;
use super::sort::{compare_keys, key_of};
use crate::eval::{Scope, arithmetic};
use crate::expr::Arithmetic;
use crate::plan::{Exclude, FrameBound, FrameUnit, SortKey, WindowCall, WindowFunction};

/// Adds the value of one call to every row, and puts the rows into the order of its window.
pub(crate) fn add(rows: &mut Vec<Row>, call: &WindowCall, scope: &mut Scope<'_>) -> Result<(), SqlError> {
    let mut order: Vec<SortKey> = call
        .partition
        .iter()
        .map(|expr| SortKey { expr: expr.clone(), descending: false, nulls_first: false })
        .collect();
    let partition_width = order.len();
    order.extend(call.order.iter().cloned());
    let mut keyed: Vec<(Vec<Value>, usize)> = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        keyed.push((key_of(&order, row, scope)?, at));
    }
    keyed.sort_by(|a, b| compare_keys(&a.0, &b.0, &order));
    let mut values: Vec<(usize, Value)> = Vec::with_capacity(rows.len());
    let mut start = 0;
    while start < keyed.len() {
        let same =
            |other: &(Vec<Value>, usize)| other.0[..partition_width] == keyed[start].0[..partition_width];
        let end = start + keyed[start..].iter().take_while(|other| same(other)).count();
        let part = Partition { rows, keyed: &keyed[start..end], width: partition_width, call };
        part.walk(&mut values, scope)?;
        start = end;
    }
    let mut sorted = Vec::with_capacity(rows.len());
    for (at, value) in values {
        let mut row = core::mem::take(&mut rows[at]);
        row.push(value);
        sorted.push(row);
    }
    *rows = sorted;
    Ok(())
}

struct Partition<'a> {
    rows: &'a [Row],
    keyed: &'a [(Vec<Value>, usize)],
    width: usize,
    call: &'a WindowCall,
}

impl Partition<'_> {
    fn len(&self) -> usize {
        self.keyed.len()
    }

    fn order_key(&self, at: usize) -> &[Value] {
        &self.keyed[at].0[self.width..]
    }

    fn row(&self, at: usize) -> &Row {
        &self.rows[self.keyed[at].1]
    }

    /// The peers of every row, as ranges by row.
    fn peers(&self) -> Vec<Range<usize>> {
        let mut peers = Vec::with_capacity(self.len());
        let mut start = 0;
        while start < self.len() {
            let mut end = start + 1;
            while end < self.len() && self.order_key(end) == self.order_key(start) {
                end += 1;
            }
            peers.extend((start..end).map(|_| start..end));
            start = end;
        }
        peers
    }

    fn walk(&self, out: &mut Vec<(usize, Value)>, scope: &mut Scope<'_>) -> Result<(), SqlError> {
        let peers = self.peers();
        // A frame that makes no sense is refused, even if nobody looks at it.
        if self.len() > 0 {
            self.frame(0, &peers, scope)?;
        }
        let mut dense = 0;
        // Frames that only grow share one state: running sums take one step per row.
        let mut running: Option<(State, Range<usize>)> = None;
        for at in 0..self.len() {
            dense += i64::from(peers[at].start == at);
            let value = match &self.call.function {
                WindowFunction::RowNumber => Value::Int(at as i64 + 1),
                WindowFunction::Rank => Value::Int(peers[at].start as i64 + 1),
                WindowFunction::DenseRank => Value::Int(dense),
                WindowFunction::PercentRank => Value::Double(if self.len() == 1 {
                    0.0
                } else {
                    peers[at].start as f64 / (self.len() - 1) as f64
                }),
                WindowFunction::CumeDist => Value::Double(peers[at].end as f64 / self.len() as f64),
                WindowFunction::Ntile => self.ntile(at, scope)?,
                WindowFunction::Shift(lead) => self.shift(at, *lead, scope)?,
                WindowFunction::FirstValue | WindowFunction::LastValue | WindowFunction::NthValue => {
                    let frame = self.frame(at, &peers, scope)?;
                    let mut places = frame.clone().filter(|place| self.keeps(*place, at, &peers));
                    let place = match &self.call.function {
                        WindowFunction::FirstValue => places.next(),
                        WindowFunction::LastValue => places.next_back(),
                        _ => match self.call.arguments[1].eval(self.row(at), scope)? {
                            Value::Int(n) if n > 0 => places.nth(n as usize - 1),
                            Value::Null => None,
                            _ => {
                                return Err(SqlError::new(
                                    SqlState::InvalidParameterValue,
                                    "argument of nth_value must be greater than zero",
                                ));
                            }
                        },
                    };
                    match place {
                        Some(place) => self.call.arguments[0].eval(self.row(place), scope)?,
                        None => Value::Null,
                    }
                }
                WindowFunction::Aggregate(call) if self.call.exclude != Exclude::Nothing => {
                    let frame = self.frame(at, &peers, scope)?;
                    scope.shared.work(frame.len() as u64 / 16 + 1)?;
                    let mut state = State::default();
                    for place in frame.filter(|place| self.keeps(*place, at, &peers)) {
                        state.add(call, self.row(place), scope)?;
                    }
                    state.finish(call, scope)?
                }
                WindowFunction::Aggregate(call) => {
                    let frame = self.frame(at, &peers, scope)?;
                    let (mut state, done) = match running.take() {
                        Some((state, done)) if done.start == frame.start && done.end <= frame.end => {
                            (state, done)
                        }
                        _ => (State::default(), frame.start..frame.start),
                    };
                    for place in done.end..frame.end {
                        state.add(call, self.row(place), scope)?;
                    }
                    scope.shared.work(frame.len() as u64 / 16 + 1)?;
                    let value = state.clone().finish(call, scope)?;
                    running = Some((state, frame));
                    value
                }
            };
            out.push((self.keyed[at].1, value));
        }
        Ok(())
    }

    /// Whether the frame of a row has this row of it.
    fn keeps(&self, place: usize, at: usize, peers: &[Range<usize>]) -> bool {
        match self.call.exclude {
            Exclude::Nothing => true,
            Exclude::Row => place != at,
            Exclude::Group => !peers[at].contains(&place),
            Exclude::Ties => place == at || !peers[at].contains(&place),
        }
    }

    fn ntile(&self, at: usize, scope: &mut Scope<'_>) -> Result<Value, SqlError> {
        let buckets = match self.call.arguments[0].eval(self.row(at), scope)? {
            Value::Int(n) if n > 0 => n as usize,
            Value::Null => return Ok(Value::Null),
            _ => {
                return Err(SqlError::new(
                    SqlState::InvalidParameterValue,
                    "argument of ntile must be greater than zero",
                ));
            }
        };
        let (small, larger) = (self.len() / buckets, self.len() % buckets);
        let border = larger * (small + 1);
        let bucket = if at < border { at / (small + 1) } else { larger + (at - border) / small.max(1) };
        Ok(Value::Int(bucket as i64 + 1))
    }

    fn shift(&self, at: usize, lead: bool, scope: &mut Scope<'_>) -> Result<Value, SqlError> {
        let offset = match self.call.arguments.get(1) {
            Some(offset) => match offset.eval(self.row(at), scope)? {
                Value::Int(n) => n,
                _ => return Ok(Value::Null),
            },
            None => 1,
        };
        let place = (at as i64).saturating_add(if lead { offset } else { offset.saturating_neg() });
        match usize::try_from(place).ok().filter(|place| *place < self.len()) {
            Some(place) => self.call.arguments[0].eval(self.row(place), scope),
            None => match self.call.arguments.get(2) {
                Some(default) => default.eval(self.row(at), scope),
                None => Ok(Value::Null),
            },
        }
    }

    fn frame(
        &self,
        at: usize,
        peers: &[Range<usize>],
        scope: &mut Scope<'_>,
    ) -> Result<Range<usize>, SqlError> {
        let start = self.bound(&self.call.start, at, peers, false, scope)?;
        let end = self.bound(&self.call.end, at, peers, true, scope)?;
        Ok(start..end.max(start))
    }

    /// Where a frame starts, or (as the place behind) ends.
    fn bound(
        &self,
        bound: &FrameBound,
        at: usize,
        peers: &[Range<usize>],
        end: bool,
        scope: &mut Scope<'_>,
    ) -> Result<usize, SqlError> {
        let (distance, back) = match bound {
            FrameBound::First => return Ok(0),
            FrameBound::Last => return Ok(self.len()),
            FrameBound::Current => {
                return Ok(match (self.call.unit, end) {
                    (FrameUnit::Rows, _) => at + usize::from(end),
                    (_, true) => peers[at].end,
                    (_, false) => peers[at].start,
                });
            }
            FrameBound::Before(distance) => (distance.eval(self.row(at), scope)?, true),
            FrameBound::Behind(distance) => (distance.eval(self.row(at), scope)?, false),
        };
        let refuse = || SqlError::new(SqlState::InvalidFrame, "frame offset must not be null or negative");
        if self.call.unit == FrameUnit::Range {
            if distance.is_null() || is_negative(&distance) {
                return Err(refuse());
            }
            return self.range_bound(at, &distance, back, end);
        }
        let count = distance.as_int().filter(|n| *n >= 0).ok_or_else(refuse)?;
        let count = usize::try_from(count).map_err(|_| refuse())?;
        if self.call.unit == FrameUnit::Rows {
            let place =
                if back { at as i64 - count as i64 } else { (at as i64).saturating_add(count as i64) };
            let place = place.saturating_add(i64::from(end)).clamp(0, self.len() as i64);
            return Ok(place as usize);
        }
        let mut group = peers[at].clone();
        for _ in 0..count {
            if back && group.start == 0 {
                return Ok(0);
            }
            if !back && group.end == self.len() {
                return Ok(self.len());
            }
            group = if back { peers[group.start - 1].clone() } else { peers[group.end].clone() };
        }
        Ok(if end { group.end } else { group.start })
    }

    fn range_bound(&self, at: usize, distance: &Value, back: bool, end: bool) -> Result<usize, SqlError> {
        let [key] = &self.call.order[..] else {
            return Err(SqlError::new(
                SqlState::WindowingError,
                "RANGE with offset requires exactly one ORDER BY column",
            ));
        };
        // A day and an interval make a time, and so all days are looked at as times.
        let days = matches!(distance, Value::Interval(_));
        let comparable = |value: &Value| match value {
            Value::Date(_) if days => {
                arithmetic(Arithmetic::Add, value, &Value::Interval(Interval::default()), &Type::Timestamp)
            }
            other => Ok(other.clone()),
        };
        let here = &self.order_key(at)[0];
        let border = if here.is_null() {
            Value::Null
        } else {
            let op = if back == key.descending { Arithmetic::Add } else { Arithmetic::Sub };
            arithmetic(op, here, distance, &Type::BigInt)?
        };
        let order = core::slice::from_ref(key);
        // The rows stand in the order of their keys.
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let there = comparable(&self.order_key(middle)[0])?;
            let comparison =
                compare_keys(core::slice::from_ref(&there), core::slice::from_ref(&border), order);
            if if end { comparison.is_le() } else { comparison.is_lt() } {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// Whether a distance points the other way.
fn is_negative(distance: &Value) -> bool {
    match distance {
        Value::Int(n) => *n < 0,
        Value::Decimal(n) => n.is_negative(),
        Value::Real(n) => *n < 0.0,
        Value::Double(n) => *n < 0.0,
        Value::Interval(span) => span.length() < 0,
        _ => false,
    }
}
