//! Stages: what happens to rows on their way. They never see a page.

use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::{Row, SqlError, SqlState, Value};

use super::hash::Keys;
use super::sort::{compare_keys, key_of};
use super::{Built, Stage};
use crate::eval::{Kept, Scope};
use crate::limits::STEP_ROWS_MAX;
use crate::plan::{JoinKind, SetOp};

/// What a stage remembers between batches.
#[derive(Debug)]
pub(crate) enum State {
    /// Nothing.
    None,
    /// In a join: how many partners of the left row at hand were looked at, whether one fitted, and the right rows that found
    /// one (full join).
    Joining(usize, bool, Vec<bool>),
    /// Rows to skip and to give; unknown before the first batch; the key of the last row for ties.
    Limit(Option<(u64, u64)>, Vec<Value>),
    /// Rows seen.
    Seen(Keys),
    /// The last key (DISTINCT ON).
    Last(Option<Vec<Value>>),
    /// How often each right row is left to be matched.
    Counts(Keys, Vec<u64>, bool),
}

/// Whether all conditions hold for a row.
pub(super) fn all_hold(
    conditions: &[crate::expr::Expr],
    row: &[Value],
    scope: &mut Scope<'_>,
) -> Result<bool, SqlError> {
    for condition in conditions {
        if !condition.holds(row, scope)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl State {
    pub(super) fn new(stage: &Stage) -> Self {
        match stage {
            Stage::HashJoin { .. } | Stage::LoopJoin { .. } => Self::Joining(0, false, Vec::new()),
            Stage::Limit { .. } => Self::Limit(None, Vec::new()),
            Stage::Distinct(_) => Self::Seen(Keys::default()),
            Stage::DistinctOn(_) => Self::Last(None),
            Stage::SetProbe { .. } => Self::Counts(Keys::default(), Vec::new(), false),
            _ => Self::None,
        }
    }

    /// Takes a batch and leaves what goes on; true when no more rows are wanted.
    #[allow(clippy::too_many_lines, reason = "one arm per stage")]
    pub(super) fn push(
        &mut self,
        stage: &Stage,
        batch: &mut Vec<Row>,
        scope: &mut Scope<'_>,
    ) -> Result<bool, SqlError> {
        match stage {
            Stage::HashJoin { .. } | Stage::LoopJoin { .. } => Ok(false),
            Stage::Filter(conditions) => {
                let mut error = None;
                batch.retain(|row| {
                    error.is_none()
                        && all_hold(conditions, row, scope).unwrap_or_else(|e| {
                            error = Some(e);
                            false
                        })
                });
                error.map_or(Ok(false), Err)
            }
            Stage::Project(list) => {
                for row in batch.iter_mut() {
                    let mut new = Vec::with_capacity(list.len());
                    for expr in list {
                        new.push(expr.eval(row, scope)?);
                    }
                    *row = new;
                }
                Ok(false)
            }
            Stage::Pick(places) => {
                for row in batch.iter_mut() {
                    *row = places.iter().map(|at| row[*at].clone()).collect();
                }
                Ok(false)
            }
            Stage::Limit { limit, offset, ties } => {
                self.limit(limit.as_ref(), offset.as_ref(), ties.as_deref(), batch, scope)
            }
            Stage::Distinct(places) => {
                let Self::Seen(seen) = self else { return Ok(false) };
                let mut size = 0;
                batch.retain(|row| {
                    let key: Vec<Value> = places.iter().map(|at| row[*at].clone()).collect();
                    let bytes: usize = key.iter().map(Value::size).sum();
                    let new = seen.insert(key).1;
                    size += if new { bytes } else { 0 };
                    new
                });
                scope.shared.hold(size)?;
                Ok(false)
            }
            Stage::DistinctOn(keys) => {
                let mut out = Vec::new();
                for row in batch.drain(..) {
                    let mut key = Vec::with_capacity(keys.len());
                    for part in keys {
                        key.push(part.eval(&row, scope)?);
                    }
                    let Self::Last(last) = self else { return Ok(false) };
                    if last.as_ref() != Some(&key) {
                        *last = Some(key);
                        out.push(row);
                    }
                }
                *batch = out;
                Ok(false)
            }
            Stage::SetProbe { slot, op, all, left, right } => {
                let kept = scope.slots.get(*slot).and_then(Clone::clone).unwrap_or_default();
                let Self::Counts(keys, counts, ready) = self else { return Ok(false) };
                if !*ready {
                    *ready = true;
                    for row in &kept.rows {
                        let (number, new) = keys.insert(right.iter().map(|at| row[*at].clone()).collect());
                        if new {
                            counts.push(0);
                        }
                        counts[number] += 1;
                    }
                }
                let mut out = Vec::new();
                for row in batch.drain(..) {
                    let row: Row = left.iter().map(|at| row[*at].clone()).collect();
                    let found = keys.find(&row);
                    let matched = found.is_some_and(|n| counts[n] > 0);
                    if let (true, Some(number)) = (*all && matched, found) {
                        counts[number] -= 1;
                    }
                    if matched == (*op == SetOp::Intersect) {
                        out.push(row);
                    }
                }
                *batch = out;
                Ok(false)
            }
        }
    }

    /// Joins rows from the front of a batch with the right side, until the batch is empty or enough was done for one step.
    pub(super) fn join(
        &mut self,
        stage: &Stage,
        batch: &mut Vec<Row>,
        builds: &[Option<Arc<Built>>],
        scope: &mut Scope<'_>,
    ) -> Result<Vec<Row>, SqlError> {
        let (Stage::HashJoin { slot, kind, right_width, .. }
        | Stage::LoopJoin { slot, kind, right_width, .. }) = stage
        else {
            return Ok(Vec::new());
        };
        let kept = scope.slots.get(*slot).and_then(Clone::clone).unwrap_or_default();
        let built = builds.get(*slot).and_then(Clone::clone).unwrap_or_default();
        let Self::Joining(from, found, matched) = self else { return Ok(Vec::new()) };
        let (right, mut out) = (&kept.rows, Vec::new());
        let (mut taken, mut looked_at) = (0, 0);
        for row in batch.iter_mut() {
            if looked_at > STEP_ROWS_MAX {
                break;
            }
            let (partners, on): (Option<&[u32]>, _) = match stage {
                Stage::HashJoin { keys, rest, .. } => {
                    let key = keys.iter().map(|part| part.eval(row, scope)).collect::<Result<Vec<_>, _>>()?;
                    let partners = match built.keys.find(&key) {
                        Some(number) if !key.iter().any(Value::is_null) => &built.rows[number][..],
                        _ => &[],
                    };
                    (Some(partners), rest.as_ref())
                }
                Stage::LoopJoin { on, .. } => (None, on.as_ref()),
                _ => (Some(&[]), None),
            };
            let count = partners.map_or(right.len(), <[u32]>::len);
            let end = count.min(*from + (STEP_ROWS_MAX + 1 - looked_at));
            looked_at += end - *from;
            scope.shared.work((end - *from) as u64)?;
            let once = matches!(kind, JoinKind::Semi | JoinKind::Anti);
            for number in *from..end {
                let at = partners.map_or(number, |partners| partners[number] as usize);
                let mut pair = Vec::with_capacity(row.len() + right_width);
                pair.extend_from_slice(row);
                pair.extend_from_slice(&right[at]);
                if let Some(on) = on
                    && !on.holds(&pair, scope)?
                {
                    continue;
                }
                *found = true;
                if once {
                    break;
                }
                if *kind == JoinKind::Full {
                    matched.resize(right.len(), false);
                    matched[at] = true;
                }
                out.push(pair);
            }
            if end < count && !(once && *found) {
                // The others wait for the next step.
                *from = end;
                break;
            }
            let mut row = core::mem::take(row);
            match kind {
                JoinKind::Semi if *found => out.push(row),
                JoinKind::Anti if !*found => out.push(row),
                JoinKind::Left | JoinKind::Full if !*found => {
                    row.resize(row.len() + right_width, Value::Null);
                    out.push(row);
                }
                _ => {}
            }
            (*from, *found) = (0, false);
            taken += 1;
        }
        batch.drain(..taken);
        Ok(out)
    }

    fn limit(
        &mut self,
        limit: Option<&crate::expr::Expr>,
        offset: Option<&crate::expr::Expr>,
        ties: Option<&[crate::plan::SortKey]>,
        batch: &mut Vec<Row>,
        scope: &mut Scope<'_>,
    ) -> Result<bool, SqlError> {
        let Self::Limit(state, last) = self else { return Ok(false) };
        if state.is_none() {
            let mut count = |e: Option<&crate::expr::Expr>,
                             state: SqlState,
                             name: &str|
             -> Result<Option<u64>, SqlError> {
                match e.map(|e| e.eval(&[], scope)).transpose()? {
                    None | Some(Value::Null) => Ok(None),
                    Some(value) => {
                        value.as_int().and_then(|n| u64::try_from(n).ok()).map(Some).ok_or_else(|| {
                            SqlError::new(state, alloc::format!("{name} must not be negative"))
                        })
                    }
                }
            };
            let skip = count(offset, SqlState::InvalidOffset, "OFFSET")?.unwrap_or(0);
            let give = count(limit, SqlState::InvalidLimit, "LIMIT")?.unwrap_or(u64::MAX);
            *state = Some((skip, give));
        }
        let Some((skip, give)) = state else { return Ok(false) };
        let skipped = (*skip).min(batch.len() as u64);
        batch.drain(..skipped as usize);
        *skip -= skipped;
        if (batch.len() as u64) < *give {
            *give -= batch.len() as u64;
            if let (Some(order), Some(row)) = (ties, batch.last()) {
                *last = key_of(order, row, scope)?;
            }
            return Ok(false);
        }
        let mut keep = *give as usize;
        if let Some(order) = ties {
            if keep > 0 {
                *last = key_of(order, &batch[keep - 1], scope)?;
            }
            while keep < batch.len() && !last.is_empty() {
                let key = key_of(order, &batch[keep], scope)?;
                if compare_keys(&key, last, order).is_ne() {
                    break;
                }
                keep += 1;
            }
            let ended = keep < batch.len();
            batch.truncate(keep);
            *give = 0;
            return Ok(ended);
        }
        batch.truncate(keep);
        *give = 0;
        Ok(true)
    }

    /// What comes behind the last batch: right rows of a full join without a partner.
    pub(super) fn finish(&mut self, stage: &Stage, slots: &[Option<Arc<Kept>>]) -> Vec<Row> {
        let (
            Self::Joining(_, _, matched),
            Stage::HashJoin { slot, left_width, kind: JoinKind::Full, .. }
            | Stage::LoopJoin { slot, left_width, kind: JoinKind::Full, .. },
        ) = (&*self, stage)
        else {
            return Vec::new();
        };
        let Some(Some(kept)) = slots.get(*slot) else { return Vec::new() };
        kept.rows
            .iter()
            .enumerate()
            .filter(|(at, _)| !matched.get(*at).copied().unwrap_or(false))
            .map(|(_, right)| {
                let mut row = alloc::vec![Value::Null; *left_width];
                row.extend_from_slice(right);
                row
            })
            .collect()
    }
}
