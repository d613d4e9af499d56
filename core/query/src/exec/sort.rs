//! Sorting: stable, so that equal rows keep the order in which they came.

use alloc::vec::Vec;
use core::cmp::Ordering;

use kimberlite_row::{Row, SqlError, Value};

use crate::eval::Scope;
use crate::plan::SortKey;

/// Compares keys part by part.
pub(crate) fn compare_keys(a: &[Value], b: &[Value], order: &[SortKey]) -> Ordering {
    for ((a, b), key) in a.iter().zip(b).zip(order) {
        let part = match (a.is_null(), b.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => {
                if key.nulls_first {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (false, true) => {
                if key.nulls_first {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (false, false) if key.descending => b.cmp(a),
            (false, false) => a.cmp(b),
        };
        if part.is_ne() {
            return part;
        }
    }
    Ordering::Equal
}

/// The key of a row.
pub(crate) fn key_of(
    order: &[SortKey],
    row: &[Value],
    scope: &mut Scope<'_>,
) -> Result<Vec<Value>, SqlError> {
    order.iter().map(|key| key.expr.eval(row, scope)).collect()
}

/// Sorts rows with their keys.
pub(crate) fn sorted(mut rows: Vec<(Vec<Value>, Row)>, order: &[SortKey]) -> Vec<(Vec<Value>, Row)> {
    rows.sort_by(|a, b| compare_keys(&a.0, &b.0, order));
    rows
}
