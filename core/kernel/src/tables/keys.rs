//! Where things stand in a tenant's trees.
//!
//! ```text
//! table, key columns or 16 hidden bytes     -> the row, by column id
//! index, columns, key of the row            -> nothing
//! CATALOGUE                                 -> the next free object id
//! CATALOGUE, object                         -> the object
//! TIMES, microseconds, sign inverted        -> nothing: the position is where the entry begins
//! ```
//!
//! Objects have ids from 1 to below [`OBJECT_ID_LIMIT`]; what the kernel keeps for itself stands behind them.

use alloc::vec::Vec;
use core::ops::Bound;

use kimberlite_row::fact::{Hidden, KeyRange, RowId};
use kimberlite_row::key::{KeyOrder, encode, encode_all, size_of_first};
use kimberlite_row::{Index, ObjectId, Row, Table, Value};
use kimberlite_store::{OBJECT_SIZE, behind_prefix, object_key, object_prefix};

/// Ids of objects stay below it.
pub const OBJECT_ID_LIMIT: u32 = 0xffff_ff00;

/// Under which the objects of the catalogue stand.
pub(super) const CATALOGUE: ObjectId = ObjectId(OBJECT_ID_LIMIT);

/// Under which the times of commands stand.
pub(super) const TIMES: ObjectId = ObjectId(OBJECT_ID_LIMIT + 1);

/// What non-null values begin with, whichever way a column runs: this or more, and less than [`BEHIND_VALUES`].
const FIRST_VALUE: u8 = 0x10;
const BEHIND_VALUES: u8 = 0xf0;

/// The key of a row.
pub(super) fn row_key(table: ObjectId, id: &RowId) -> Vec<u8> {
    match id {
        RowId::Key(values) => key_of(table, values),
        RowId::Hidden(hidden) => [&object_prefix(table)[..], hidden].concat(),
    }
}

/// The key of the row with a primary key.
pub(super) fn key_of(table: ObjectId, values: &[Value]) -> Vec<u8> {
    let mut key = Vec::with_capacity(16 * (values.len() + 1));
    key.extend_from_slice(&object_prefix(table));
    encode_all(values, &mut key);
    key
}

/// The hidden key in the key of a row.
pub(super) fn hidden_of(table: &Table, key: &[u8]) -> Option<Hidden> {
    let hidden = || key[OBJECT_SIZE..].try_into().expect("a hidden key is of one size");
    table.primary_key.is_none().then(hidden)
}

/// The key of a row's entry in an index.
pub(super) fn index_key(table: &Table, index: &Index, row: &Row, row_key: &[u8]) -> Vec<u8> {
    let mut key = object_prefix(index.id).to_vec();
    for column in &index.columns {
        let place = table.place(column.column).expect("an index is of columns of its table");
        encode(&row[place], KeyOrder::from(column), &mut key);
    }
    key.extend_from_slice(&row_key[OBJECT_SIZE..]);
    key
}

/// Appends the key of the row that an index entry leads to.
pub(super) fn row_key_of_entry(table: &Table, index: &Index, entry: &[u8], to: &mut Vec<u8>) {
    let mut rest = &entry[OBJECT_SIZE..];
    for column in &index.columns {
        let size = size_of_first(rest, column.into()).expect("the kernel wrote this entry");
        rest = &rest[size..];
    }
    to.extend_from_slice(&object_prefix(table.id));
    to.extend_from_slice(rest);
}

/// The key of an object of the catalogue.
pub(super) fn object_of_catalogue(id: ObjectId) -> Vec<u8> {
    object_key(CATALOGUE, &id.0.to_be_bytes())
}

/// The key of a command's time.
pub(super) fn time_key(micros: i64) -> Vec<u8> {
    object_key(TIMES, &(micros.cast_unsigned() ^ 1 << 63).to_be_bytes())
}

/// The time in such a key.
pub(super) fn time_in(key: &[u8]) -> i64 {
    let bytes = key[OBJECT_SIZE..].try_into().expect("a time has eight bytes");
    (u64::from_be_bytes(bytes) ^ 1 << 63).cast_signed()
}

/// Keys from the first on and below the second, to the end without one.
pub(super) type Interval = (Vec<u8>, Option<Vec<u8>>);

/// All keys of an object.
pub(super) fn all_of(object: ObjectId) -> Interval {
    let prefix = object_prefix(object).to_vec();
    let behind = behind_prefix(&prefix);
    (prefix, behind)
}

/// Which way the columns of a table's key run, or of an index of it.
pub(super) fn orders(table: &Table, index: Option<&Index>) -> Vec<KeyOrder> {
    match index {
        Some(index) => index.columns.iter().map(KeyOrder::from).collect(),
        None => {
            alloc::vec![KeyOrder::ASCENDING; table.primary_key.as_ref().map_or(0, |key| key.columns.len())]
        }
    }
}

/// The keys of an object that a range holds, exactly: at most two intervals, in order, because NULL need not stand beside
/// the values it is compared with.
pub(super) fn intervals(object: ObjectId, orders: &[KeyOrder], range: &KeyRange) -> Vec<Interval> {
    if range.equal.len() > orders.len() {
        return Vec::new();
    }
    let mut prefix = object_prefix(object).to_vec();
    for (value, order) in range.equal.iter().zip(orders) {
        encode(value, *order, &mut prefix);
    }
    let next = orders.get(range.equal.len());
    let bounded = !matches!((&range.low, &range.high), (Bound::Unbounded, Bound::Unbounded));
    let (Some(order), true) = (next, bounded) else {
        let behind = behind_prefix(&prefix);
        return alloc::vec![(prefix, behind)];
    };
    let at = |value: &Value| {
        let mut key = prefix.clone();
        encode(value, *order, &mut key);
        key
    };
    let with = |byte: u8| {
        let mut key = prefix.clone();
        key.push(byte);
        key
    };
    let behind = |value: &Value| behind_prefix(&at(value)).expect("an encoding does not end in ff alone");
    let no_values = matches!(&range.low, Bound::Included(Value::Null) | Bound::Excluded(Value::Null));
    let null = !matches!(&range.low, Bound::Excluded(Value::Null))
        && matches!(&range.high, Bound::Unbounded | Bound::Included(Value::Null));
    // In the order of the bytes: of a column that descends, the high bound comes first.
    let (first, last) = if order.descending { (&range.high, &range.low) } else { (&range.low, &range.high) };
    let from = match first {
        Bound::Included(value) if !value.is_null() => at(value),
        Bound::Excluded(value) if !value.is_null() => behind(value),
        _ => with(FIRST_VALUE),
    };
    let until = match last {
        Bound::Included(value) if !value.is_null() => behind(value),
        Bound::Excluded(value) if !value.is_null() => at(value),
        _ => with(BEHIND_VALUES),
    };
    let mut all = Vec::new();
    if !no_values && from < until {
        all.push((from, Some(until)));
    }
    if null {
        all.push((at(&Value::Null), Some(behind(&Value::Null))));
        all.sort();
    }
    all
}

#[cfg(test)]
mod tests {
    use kimberlite_row::Decimal;
    use kimberlite_store::behind_prefix;

    use super::*;

    /// Of each value, whether the intervals hold its key must be whether the range holds the value.
    #[test]
    fn intervals_hold_what_the_range_holds() {
        let values: Vec<Value> = [Value::Null, Value::Bool(true), Value::Decimal(Decimal::ZERO)]
            .into_iter()
            .chain([-300, -1, 0, 1, 255, 256].map(Value::Int))
            .chain([Value::text(""), Value::text("a"), Value::text("\0"), Value::Uuid([0xff; 16])])
            .collect();
        let bounds = |value: &Value| {
            [Bound::Included(value.clone()), Bound::Excluded(value.clone()), Bound::Unbounded]
        };
        let object = ObjectId(7);
        for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let orders = [KeyOrder::ASCENDING, KeyOrder { descending, nulls_first }];
            for low in values.iter().flat_map(bounds) {
                for high in values.iter().flat_map(bounds) {
                    let range = KeyRange { equal: [Value::Int(3)].into(), low: low.clone(), high };
                    let intervals = intervals(object, &orders, &range);
                    assert!(intervals.is_sorted());
                    for first in [2, 3, 4] {
                        for value in &values {
                            let key = [Value::Int(first), value.clone()];
                            let mut bytes = object_prefix(object).to_vec();
                            encode(&key[0], orders[0], &mut bytes);
                            encode(&key[1], orders[1], &mut bytes);
                            bytes.push(9);
                            let held = intervals.iter().any(|(from, until)| {
                                *from <= bytes && until.as_ref().is_none_or(|until| bytes < *until)
                            });
                            assert_eq!(held, range.holds(&key), "{key:?} in {range:?}, {orders:?}");
                        }
                    }
                }
            }
        }
        assert_eq!(intervals(object, &[], &KeyRange::ALL), [all_of(object)]);
        assert_eq!(all_of(object).1, behind_prefix(&object_prefix(object)));
        assert!(intervals(object, &[], &KeyRange::equal([Value::Null].into())).is_empty());
    }

    #[test]
    fn times_sort_as_they_are() {
        let times = [i64::MIN, -1, 0, 1, i64::MAX];
        assert!(times.map(time_key).is_sorted());
        assert_eq!(times.map(|time| time_in(&time_key(time))), times);
    }
}
