//! Sources: where a pipeline's rows come from. The only part that sees pages.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::fact::{KeyRange, Miss, RowId, Rows, Scan};
use kimberlite_row::{Decimal, Json, Row, SqlError, SqlState, Value};
use kimberlite_types::LogPosition;

use super::batch::{Batch, Flat};
use super::hash::Keys;
use super::stream::{Streamed, Streaming};
use super::{ApplySource, Asked, Execution, Inner, RecursiveSource, Source, ranges_of};
use crate::eval::{Kept, Scope, answer_of, compare};
use crate::expr::{Arithmetic, Ask};
use crate::limits::{BATCH_ROWS, RECURSION_ROWS_MAX, SCAN_BATCH_ROWS, SCAN_ROWS_MAX, SERIES_MAX};
use crate::plan::TableFunction;

/// What a step read from pages.
#[derive(Debug)]
#[allow(private_interfaces, reason = "what was read is handed on, not looked into")]
pub enum Read {
    /// Nothing was needed.
    Nothing,
    /// Rows.
    Rows(Found),
    /// What a step of a stream found.
    Stream(Streamed),
    /// What a nested execution read.
    Inner(Box<Read>),
}

/// What a step of a scan found.
#[derive(Debug)]
pub(crate) struct Found {
    rows: Flat,
    /// How many were looked at for them.
    seen: u64,
    /// Those an index led to, if they are to be guarded.
    ids: Vec<RowId>,
    /// Ranges that it came to the end of.
    over: usize,
    /// Behind which key to go on in the next one; `None` at its start.
    last: Option<Vec<u8>>,
}

/// Where a source is.
#[derive(Debug, Default)]
pub(crate) enum Cursor {
    /// Before its first row.
    #[default]
    Start,
    /// In a scan, behind a key.
    Scan(Box<Scanning>),
    /// In a stream.
    Stream(Box<Streaming>),
    /// In a slot or list.
    Next(usize),
    /// In a series: the next value, the last, the step.
    Series(Value, Value, Value, u64),
    /// In rows that a function gave.
    Given(Vec<Row>, usize),
    /// At a row of the input, in its subquery.
    Apply(ApplyState),
    /// In a recursive query.
    Recursive(Recursion),
}

/// How far a scan has come.
#[derive(Debug)]
pub(crate) struct Scanning {
    /// Those that are left; never none.
    ranges: VecDeque<KeyRange>,
    /// What its tests compare with.
    values: Vec<Value>,
    after: Option<Vec<u8>>,
    /// Rows of the next batch: the first ones are small, for whoever wants few.
    batch: usize,
    /// Whether the rows that an index leads to are to be guarded.
    guarded: bool,
}

/// How far a subquery per row has come.
#[derive(Debug, Default)]
pub(crate) struct ApplyState {
    row: usize,
    inner: Option<Inner>,
    left: Vec<Value>,
    gathered: Vec<Row>,
    found: bool,
    known: Keys,
    answers: Vec<Value>,
}

/// How far a recursive query has come.
#[derive(Debug)]
pub(crate) struct Recursion {
    inner: Inner,
    first: bool,
    seen: Keys,
    working: Vec<Row>,
    total: usize,
}

impl Cursor {
    /// Reads for one step.
    pub(super) fn read(&self, source: &Source, rows: &dyn Rows, at: LogPosition) -> Result<Read, Miss> {
        match (self, source) {
            (Self::Scan(scanning), Source::Scan(scan)) => {
                let Scanning { ranges, values, after, batch: most, guarded } = &**scanning;
                let table = &scan.table;
                let index = scan.index.map(|at| &table.indexes[at]);
                let at = scan.at.unwrap_or(at);
                let reader = Some(&scan.reader);
                let mut batch = Flat::new(scan.places.len() + if scan.identity { 2 } else { 0 });
                let (mut last, mut seen, mut ids, mut over) = (None, 0, Vec::new(), 0);
                // The times of each version are searched for.
                let looked_at_max = if scan.versions { BATCH_ROWS } else { SCAN_ROWS_MAX } as u64;
                for (number, range) in ranges.iter().enumerate() {
                    let after = after.as_deref().filter(|_| number == 0);
                    let request = Scan { table, index, at, range, after, reader };
                    let mut each = |found: kimberlite_row::fact::Found<'_>| {
                        seen += 1;
                        if *guarded {
                            ids.push(RowId::of(table, found.row, found.hidden));
                        }
                        let fits = scan.tests.iter().zip(values).all(|(test, value)| {
                            match (&found.row[scan.places[test.place]], value) {
                                (Value::Int(found), Value::Int(value)) => {
                                    test.comparison.holds(found.cmp(value))
                                }
                                (found, value) => {
                                    compare(found, value).is_some_and(|order| test.comparison.holds(order))
                                }
                            }
                        });
                        if fits {
                            batch.expect_rows(*most);
                            if scan.identity {
                                let row = scan.places.iter().map(|at| found.row[*at].clone());
                                let hidden = found.hidden;
                                let hidden =
                                    hidden.map_or(Value::Null, |key| Value::Bytes(Arc::from(&key[..])));
                                // Its version is told by what it holds.
                                batch.push(row.chain([hidden, Value::Null]));
                            } else {
                                batch.push_picked(found.row, &scan.places);
                            }
                        }
                        let more = batch.len() < *most && seen < looked_at_max;
                        if !more {
                            last = Some(found.key.to_vec());
                        }
                        more
                    };
                    if scan.versions {
                        rows.history(&request, &mut each)?;
                    } else {
                        rows.scan(&request, &mut each)?;
                    }
                    if last.is_some() {
                        break;
                    }
                    over += 1;
                    if batch.len() >= *most || over >= BATCH_ROWS {
                        break;
                    }
                }
                Ok(Read::Rows(Found { rows: batch, seen, ids, over, last }))
            }
            (Self::Stream(streaming), Source::Stream(stream)) => {
                streaming.read(stream, rows, at).map(Read::Stream)
            }
            (
                Self::Apply(ApplyState { inner: Some(inner), .. }) | Self::Recursive(Recursion { inner, .. }),
                _,
            ) => inner.read(rows, at).map(|read| Read::Inner(Box::new(read))),
            _ => Ok(Read::Nothing),
        }
    }

    /// Takes what was read and gives rows; false at the end.
    pub(super) fn advance(
        &mut self,
        source: &Source,
        read: Read,
        scope: &mut Scope<'_>,
    ) -> Result<(bool, Batch), SqlError> {
        if let Source::Scan(scan) = source {
            if let (Self::Scan(scanning), Read::Rows(Found { rows, seen, ids, over, last })) =
                (&mut *self, read)
            {
                scope.shared.work(seen - rows.len() as u64)?;
                scope.shared.note_rows(scan.table.id, ids);
                scanning.ranges.drain(..over);
                scanning.after = last;
                // An index leads to another place for each row, so that a batch needs many pages at once.
                let most = if scan.index.is_some() { BATCH_ROWS } else { SCAN_BATCH_ROWS };
                scanning.batch = (scanning.batch * 4).min(most);
                return Ok((!scanning.ranges.is_empty(), Batch::Flat(rows)));
            }
            let ranges: VecDeque<KeyRange> = ranges_of(scan, scope)?.into();
            if ranges.is_empty() {
                return Ok((false, Batch::Rows(Vec::new())));
            }
            if scan.at.is_none() {
                let index = scan.index.map(|at| scan.table.indexes[at].id);
                for range in &ranges {
                    scope.shared.note(scan.table.id, index, range);
                }
            }
            let mut values = Vec::with_capacity(scan.tests.len());
            for test in &scan.tests {
                values.push(test.value.eval(&[], scope)?);
            }
            let guarded = scan.index.is_some() && scan.at.is_none() && scope.shared.guarding;
            let scanning = Scanning { ranges, values, after: None, batch: 64, guarded };
            *self = Self::Scan(Box::new(scanning));
            return Ok((true, Batch::Rows(Vec::new())));
        }
        let mut batch = Vec::new();
        let more = self.advance_rows(source, read, &mut batch, scope)?;
        Ok((more, Batch::Rows(batch)))
    }

    fn advance_rows(
        &mut self,
        source: &Source,
        read: Read,
        batch: &mut Vec<Row>,
        scope: &mut Scope<'_>,
    ) -> Result<bool, SqlError> {
        match source {
            // It gives its rows in one piece.
            Source::Scan(_) => Ok(false),
            Source::Stream(stream) => {
                if let (Self::Stream(streaming), Read::Stream(streamed)) = (&mut *self, read) {
                    let (more, rows) = streaming.advance(stream, streamed, scope)?;
                    *batch = rows;
                    return Ok(more);
                }
                let Some(streaming) = stream.begin(scope)? else { return Ok(false) };
                *self = Self::Stream(Box::new(streaming));
                Ok(true)
            }
            Source::Values(list) => {
                for row in list {
                    batch.push(row.iter().map(|e| e.eval(&[], scope)).collect::<Result<_, _>>()?);
                }
                Ok(false)
            }
            Source::Slot(slot, places) => {
                let from = if let Self::Next(from) = self { *from } else { 0 };
                let Some(kept) = scope.slots.get(*slot).and_then(Option::as_ref) else { return Ok(false) };
                let end = (from + BATCH_ROWS).min(kept.rows.len());
                batch.extend(kept.rows[from..end].iter().map(|row| match places {
                    None => row.clone(),
                    Some(places) => places.iter().map(|at| row[*at].clone()).collect(),
                }));
                *self = Self::Next(end);
                Ok(end < kept.rows.len())
            }
            Source::Function(function, arguments, ordinal) => {
                let given = match self {
                    Self::Series(.., count) => *count,
                    Self::Given(_, at) => *at as u64,
                    _ => 0,
                };
                let more = self.function(function, arguments, batch, scope)?;
                if *ordinal {
                    for (row, number) in batch.iter_mut().zip(given + 1..) {
                        row.push(Value::Int(number.cast_signed()));
                    }
                }
                Ok(more)
            }
            Source::Apply(apply) => {
                if !matches!(self, Self::Apply(_)) {
                    *self = Self::Apply(ApplyState::default());
                }
                match self {
                    Self::Apply(state) => state.advance(apply, read, batch, scope),
                    _ => Ok(false),
                }
            }
            Source::Recursive(recursive) => {
                if let Self::Recursive(state) = self {
                    return state.advance(recursive, read, batch, scope);
                }
                let outer = values(&recursive.first_outer, &[], scope)?;
                *self = Self::Recursive(Recursion {
                    inner: Box::new(Execution::new(recursive.first.clone(), outer, scope.slots.to_vec())),
                    first: true,
                    seen: Keys::default(),
                    working: Vec::new(),
                    total: 0,
                });
                Ok(true)
            }
        }
    }

    fn function(
        &mut self,
        function: &TableFunction,
        arguments: &[crate::expr::Expr],
        batch: &mut Vec<Row>,
        scope: &mut Scope<'_>,
    ) -> Result<bool, SqlError> {
        match self {
            Self::Series(next, last, step, count) => {
                for _ in 0..BATCH_ROWS {
                    if next.is_null() || series_over(next, last, step) {
                        return Ok(false);
                    }
                    *count += 1;
                    if *count > SERIES_MAX {
                        return Err(too_long());
                    }
                    let behind = series_next(next, step);
                    batch.push([core::mem::replace(next, behind)].into());
                }
                Ok(true)
            }
            Self::Given(rows, at) => {
                let end = (*at + BATCH_ROWS).min(rows.len());
                batch.extend_from_slice(&rows[*at..end]);
                *at = end;
                Ok(end < rows.len())
            }
            _ => {
                let given = values(arguments, &[], scope)?;
                if *function == TableFunction::Series {
                    let Some([first, last, step]) = series(&given)? else { return Ok(false) };
                    *self = Self::Series(first, last, step, 0);
                    return Ok(true);
                }
                if let TableFunction::Together(functions) = function {
                    *self = Self::Given(together(functions, &given, scope)?, 0);
                    return Ok(true);
                }
                *self = Self::Given(table_rows(function, &given)?, 0);
                Ok(true)
            }
        }
    }
}

fn series_over(next: &Value, last: &Value, step: &Value) -> bool {
    let down = match step {
        Value::Int(n) => *n < 0,
        Value::Decimal(n) => n.is_negative(),
        Value::Interval(span) => span.length() < 0,
        _ => false,
    };
    if down { next < last } else { next > last }
}

fn too_long() -> SqlError {
    SqlError::new(SqlState::ProgramLimitExceeded, "generate_series gives too many rows")
}

fn series_next(value: &Value, step: &Value) -> Value {
    let kind = match value {
        Value::Int(_) => kimberlite_row::Type::BigInt,
        _ => kimberlite_row::Type::Decimal(None),
    };
    crate::eval::arithmetic(Arithmetic::Add, value, step, &kind).unwrap_or(Value::Null)
}

/// First, last and step of a series; none if one is NULL.
fn series(given: &[Value]) -> Result<Option<[Value; 3]>, SqlError> {
    if given.iter().any(Value::is_null) {
        return Ok(None);
    }
    let step = given.get(2).cloned().unwrap_or(match &given[0] {
        Value::Decimal(_) => Value::Decimal(Decimal::from(1)),
        _ => Value::Int(1),
    });
    let zero = match &step {
        Value::Int(n) => *n == 0,
        Value::Decimal(n) => n.is_zero(),
        Value::Interval(span) => span.length() == 0,
        _ => false,
    };
    if zero {
        return Err(SqlError::new(SqlState::InvalidParameterValue, "step size cannot equal zero"));
    }
    Ok(Some([given[0].clone(), given[1].clone(), step]))
}

/// The rows of several functions side by side.
fn together(
    functions: &[(TableFunction, usize)],
    mut given: &[Value],
    scope: &mut Scope<'_>,
) -> Result<Vec<Row>, SqlError> {
    let mut lists: Vec<Vec<Row>> = Vec::new();
    for (function, count) in functions {
        let (own, rest) = given.split_at(*count);
        given = rest;
        let mut rows = Vec::new();
        if *function == TableFunction::Series {
            let mut at = series(own)?;
            while let Some([next, last, step]) =
                at.take().filter(|[next, last, step]| !next.is_null() && !series_over(next, last, step))
            {
                scope.shared.hold(next.size())?;
                let behind = series_next(&next, &step);
                rows.push([next].into());
                at = Some([behind, last, step]);
            }
        } else {
            rows = table_rows(function, own)?;
        }
        lists.push(rows);
    }
    let length = lists.iter().map(Vec::len).max().unwrap_or(0);
    let mut out: Vec<Row> = (0..length).map(|_| Row::new()).collect();
    for list in lists {
        let mut values = list.into_iter().map(|mut row| row.pop().unwrap_or_default());
        for row in &mut out {
            row.push(values.next().unwrap_or_default());
        }
    }
    Ok(out)
}

fn values(list: &[crate::expr::Expr], row: &[Value], scope: &mut Scope<'_>) -> Result<Vec<Value>, SqlError> {
    list.iter().map(|e| e.eval(row, scope)).collect()
}

fn table_rows(function: &TableFunction, given: &[Value]) -> Result<Vec<Row>, SqlError> {
    let wrap = |json: &Json| Value::Json(Arc::new(json.clone()));
    let plain = |json: &Json| match json {
        Json::Null => Value::Null,
        Json::Text(text) => Value::text(text),
        other => Value::from(other.text()),
    };
    let refuse = |what: &str| SqlError::new(SqlState::InvalidParameterValue, what.to_string());
    Ok(match (function, given.first()) {
        (_, None | Some(Value::Null)) => Vec::new(),
        (TableFunction::Unnest, Some(_)) => {
            let lists: Vec<&[Value]> =
                given.iter().map(|v| if let Value::Array(items) = v { &items[..] } else { &[] }).collect();
            let length = lists.iter().map(|l| l.len()).max().unwrap_or(0);
            (0..length)
                .map(|at| lists.iter().map(|l| l.get(at).cloned().unwrap_or_default()).collect())
                .collect()
        }
        (TableFunction::Regex { .. }, Some(_)) if given.iter().any(Value::is_null) => Vec::new(),
        (TableFunction::Regex { split }, Some(_)) => {
            crate::function::regex_rows(*split, given)?.into_iter().map(|value| [value].into()).collect()
        }
        (TableFunction::Subscripts, Some(Value::Array(items))) => match given.get(1) {
            Some(Value::Int(1)) => (1..=i64::try_from(items.len()).unwrap_or(i64::MAX))
                .map(|at| [Value::Int(at)].into())
                .collect(),
            _ => Vec::new(),
        },
        (TableFunction::StringToTable, Some(text)) => {
            let by = given.get(1).and_then(Value::as_text).unwrap_or("");
            let text = text.as_text().unwrap_or("");
            if by.is_empty() {
                [[Value::text(text)].into()].into()
            } else {
                text.split(by).map(|part| [Value::text(part)].into()).collect()
            }
        }
        (function, Some(Value::Json(json))) => match (function, &**json) {
            (TableFunction::JsonElements, Json::Array(items)) => {
                items.iter().map(|i| [wrap(i)].into()).collect()
            }
            (TableFunction::JsonElementsText, Json::Array(items)) => {
                items.iter().map(|i| [plain(i)].into()).collect()
            }
            (TableFunction::JsonElements | TableFunction::JsonElementsText, _) => {
                return Err(refuse("cannot extract elements from an object"));
            }
            (TableFunction::JsonEach, Json::Object(members)) => {
                members.iter().map(|(k, v)| [Value::text(&k.0), wrap(v)].into()).collect()
            }
            (TableFunction::JsonEachText, Json::Object(members)) => {
                members.iter().map(|(k, v)| [Value::text(&k.0), plain(v)].into()).collect()
            }
            (TableFunction::JsonKeys, Json::Object(members)) => {
                members.keys().map(|k| [Value::text(&k.0)].into()).collect()
            }
            _ => return Err(refuse("cannot deconstruct a scalar")),
        },
        _ => Vec::new(),
    })
}

impl ApplyState {
    fn advance(
        &mut self,
        apply: &ApplySource,
        read: Read,
        batch: &mut Vec<Row>,
        scope: &mut Scope<'_>,
    ) -> Result<bool, SqlError> {
        let Some(input) = scope.slots.get(apply.input).and_then(Clone::clone) else { return Ok(false) };
        let mut read = Some(read);
        // Rows whose answer is known, and subqueries that need no page, do not end a step.
        loop {
            if self.inner.is_none() {
                if batch.len() >= BATCH_ROWS {
                    return Ok(true);
                }
                let Some(row) = input.rows.get(self.row) else { return Ok(false) };
                let outer = values(&apply.outer, row, scope)?;
                if let Asked::Value(ask) = &apply.asked {
                    self.left = match ask {
                        Ask::Quantified { left, .. } => values(left, row, scope)?,
                        _ => Vec::new(),
                    };
                    if apply.repeatable {
                        let key = [&outer[..], &self.left].concat();
                        let (number, new) = self.known.insert(key);
                        if !new {
                            let mut full = row.clone();
                            full.push(self.answers[number].clone());
                            batch.push(full);
                            self.row += 1;
                            continue;
                        }
                    }
                }
                self.found = false;
                self.inner =
                    Some(Box::new(Execution::new(apply.program.clone(), outer, scope.slots.to_vec())));
                return Ok(true);
            }
            let Some(inner) = &mut self.inner else { return Ok(true) };
            match read.take() {
                Some(Read::Inner(read)) => inner.advance(*read, scope.shared)?,
                _ => return Ok(true),
            }
            let row = &input.rows[self.row];
            let enough = match &apply.asked {
                Asked::Value(Ask::Exists) => !inner.output.is_empty(),
                Asked::Value(Ask::Scalar) => self.gathered.len() + inner.output.len() > 1,
                _ => false,
            };
            let done = inner.is_done() || enough;
            let ready = core::mem::take(&mut inner.output);
            match &apply.asked {
                Asked::Value(ask) => {
                    self.gathered.extend(ready);
                    if done {
                        let value = answer_of(ask, &self.left, &self.gathered)?;
                        self.gathered.clear();
                        if apply.repeatable {
                            scope.shared.hold(value.size() + 64)?;
                            self.answers.push(value.clone());
                        }
                        let mut full = row.clone();
                        full.push(value);
                        batch.push(full);
                    }
                }
                Asked::Rows(keep, width, on) => {
                    for right in ready {
                        let mut full = row.clone();
                        full.extend(right);
                        let fits = match on {
                            Some(on) => on.holds(&full, scope)?,
                            None => true,
                        };
                        if fits {
                            self.found = true;
                            batch.push(full);
                        }
                    }
                    if done && *keep && !self.found {
                        let mut full = row.clone();
                        full.resize(full.len() + width, Value::Null);
                        batch.push(full);
                    }
                }
            }
            if done {
                self.inner = None;
                self.row += 1;
            } else {
                return Ok(true);
            }
        }
    }
}

impl Recursion {
    fn advance(
        &mut self,
        source: &RecursiveSource,
        read: Read,
        batch: &mut Vec<Row>,
        scope: &mut Scope<'_>,
    ) -> Result<bool, SqlError> {
        if let Read::Inner(read) = read {
            self.inner.advance(*read, scope.shared)?;
        }
        let places = if self.first { &source.first_places } else { &source.step_places };
        for row in core::mem::take(&mut self.inner.output) {
            let row: Row = places.iter().map(|at| row[*at].clone()).collect();
            if source.distinct && !self.seen.insert(row.clone()).1 {
                continue;
            }
            self.total += 1;
            if self.total > RECURSION_ROWS_MAX {
                return Err(SqlError::new(
                    SqlState::ProgramLimitExceeded,
                    "the recursive query gives more than 5,000,000 rows",
                )
                .hint("It may never end: use UNION instead of UNION ALL, or a condition on the depth."));
            }
            scope.shared.hold(row.iter().map(Value::size).sum())?;
            self.working.push(row.clone());
            batch.push(row);
        }
        if !self.inner.is_done() {
            return Ok(true);
        }
        if self.working.is_empty() {
            return Ok(false);
        }
        self.first = false;
        let mut slots = scope.slots.to_vec();
        super::set(&mut slots, source.slot, Kept { rows: core::mem::take(&mut self.working), set: None });
        let outer = values(&source.step_outer, &[], scope)?;
        *self.inner = Execution::new(source.step.clone(), outer, slots);
        Ok(true)
    }
}
