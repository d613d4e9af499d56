//! What the planner knows of sizes: pointers of the trees count the entries below them, so the rows of a range are counted
//! exactly for two paths from the root.

use alloc::vec::Vec;

use kimberlite_row::fact::{KeyRange, Miss, Rows, Scan};
use kimberlite_row::{Index, Value};
use kimberlite_types::LogPosition;

use crate::expr::Expr;
use crate::plan::{ScanPlan, key_range};

/// Rows of a table of which nothing is known.
pub const ROWS_UNKNOWN: f64 = 1000.0;

/// Asks for sizes while a statement is planned.
pub struct Statistics<'a> {
    rows: Option<(&'a dyn Rows, LogPosition)>,
    missed: Option<Miss>,
}

impl<'a> Statistics<'a> {
    /// Of these rows.
    pub fn of(rows: &'a dyn Rows, at: LogPosition) -> Self {
        Self { rows: Some((rows, at)), missed: None }
    }

    /// Nothing is known.
    pub fn none() -> Self {
        Self { rows: None, missed: None }
    }

    /// Pages that were missing: plan again when they are there.
    pub fn missed(self) -> Option<Miss> {
        self.missed
    }

    fn count(&mut self, scan: &ScanPlan, index: Option<&Index>, range: &KeyRange) -> Option<f64> {
        let (rows, at) = self.rows?;
        if self.missed.is_some() {
            return None;
        }
        let request = Scan { table: &scan.table, index, at, range, after: None, reader: None };
        match rows.count(&request) {
            #[expect(clippy::cast_precision_loss, reason = "estimates of rows")]
            Ok(count) => count.map(|count| count as f64),
            Err(miss) => {
                self.missed = Some(miss);
                None
            }
        }
    }

    /// Rows that a scan gives, about; exactly, if its range is of constants.
    pub(crate) fn estimate(&mut self, scan: &ScanPlan) -> f64 {
        let range = &scan.range;
        let index = scan.index.map(|at| &scan.table.indexes[at]);
        let width = match index {
            Some(index) => index.unique.then_some(index.columns.len()),
            None => scan.table.primary_key.as_ref().map(|key| key.columns.len()),
        };
        #[expect(clippy::cast_precision_loss, reason = "estimates of rows")]
        let times = range.any.len().max(1) as f64;
        let fixed = range.equal.len() + usize::from(!range.any.is_empty());
        if width.is_some_and(|width| fixed >= width) {
            return times;
        }
        if let Some(ranges) = constant_ranges(scan) {
            let counts: Option<Vec<f64>> =
                ranges.iter().map(|range| self.count(scan, index, range)).collect();
            if let Some(counts) = counts {
                return counts.into_iter().sum::<f64>().max(1.0);
            }
        }
        let all = self.count(scan, None, &KeyRange::ALL).unwrap_or(ROWS_UNKNOWN);
        let bounds = usize::from(range.low.is_some()) + usize::from(range.high.is_some());
        let part = (0..fixed).fold(1.0, |part, _| part * 0.05) * (0..bounds).fold(1.0, |part, _| part * 0.4);
        (all * part * times).clamp(1.0, all.max(1.0))
    }
}

/// The ranges of a scan, if they are known as it is planned.
fn constant_ranges(scan: &ScanPlan) -> Option<Vec<KeyRange>> {
    let known = |expr: &Expr| match expr {
        Expr::Const(value) => Some(value.clone()),
        _ => None,
    };
    let range = &scan.range;
    let equal: Vec<Value> = range.equal.iter().map(known).collect::<Option<_>>()?;
    if !range.any.is_empty() {
        let mut any: Vec<Value> = range.any.iter().map(known).collect::<Option<_>>()?;
        any.sort();
        any.dedup();
        let with = |value| key_range(equal.iter().cloned().chain([value]).collect(), None, None);
        return Some(any.into_iter().filter_map(with).collect());
    }
    let bound = |bound: &Option<(Expr, bool)>| match bound {
        None => Some(None),
        Some((expr, inclusive)) => known(expr).map(|value| Some((value, *inclusive))),
    };
    let (low, high) = (bound(&range.low)?, bound(&range.high)?);
    Some(key_range(equal, low, high).into_iter().collect())
}
