//! Keys and rows as bytes from anywhere.

use kimberlite_row::codec::Layout;
use kimberlite_row::key::{self, KeyOrder};
use kimberlite_row::schema::{Column, ColumnId, Table};
use kimberlite_row::{ObjectId, Type, Value};

use crate::script::Script;

/// The first byte says which way the columns run; the others are two keys, one after the other.
pub(crate) fn keys(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let order = KeyOrder { descending: script.flag(), nulls_first: script.flag() };
    let mut rest = script.rest();
    let mut known: Option<(Value, Vec<u8>)> = None;
    while let Ok(value) = key::decode(&mut rest, order) {
        let mut own = Vec::new();
        key::encode(&value, order, &mut own);
        let mut again = &own[..];
        assert_eq!(key::decode(&mut again, order).as_ref(), Ok(&value), "a value says the same again");
        assert!(again.is_empty(), "an encoding ends with its value");
        if let Some((other, bytes)) = &known {
            let expected = match (other.is_null(), value.is_null()) {
                (true, false) | (false, true) => {
                    if other.is_null() == order.nulls_first {
                        std::cmp::Ordering::Less
                    } else {
                        std::cmp::Ordering::Greater
                    }
                }
                _ if order.descending => value.cmp(other),
                _ => other.cmp(&value),
            };
            assert_eq!(bytes.cmp(&own), expected, "encodings are in the order of their values");
        }
        known = Some((value, own));
    }
}

/// The first bytes say which columns the table has; the others are a row.
pub(crate) fn rows(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut id = 0;
    let columns = (0..script.below(8)).map(|_| {
        id += 1 + script.below(10) as u32;
        column(id, script.flag())
    });
    let layout = layout_of(columns.collect());
    let bytes = script.rest();
    let mut few = Vec::new();
    let passed = layout.decode_into(bytes, |_| false, &mut few);
    let Ok(row) = layout.decode(bytes) else { return };
    assert!(passed.is_ok(), "what can be read can be passed over");
    let mut own = Vec::new();
    layout.encode(&row, &mut own).expect("it came out of fewer bytes");
    let again = layout.decode(&own).expect("our own encoding");
    assert_eq!(format!("{again:?}"), format!("{row:?}"), "a row says the same again");
}

fn layout_of(columns: Vec<Column>) -> Layout {
    let table = Table {
        id: ObjectId(1),
        name: "t".to_owned(),
        version: 1,
        columns,
        next_column: 100,
        primary_key: None,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
    };
    Layout::of(&table).expect("7 is an integer")
}

/// Of a table with columns 1 to `count`.
pub(crate) fn layout(count: usize) -> Layout {
    layout_of((1..=count as u32).map(|id| column(id, true)).collect())
}

fn column(id: u32, old: bool) -> Column {
    Column {
        id: ColumnId(id),
        name: id.to_string(),
        kind: Type::Integer,
        not_null: false,
        default: None,
        missing: (!old).then(|| "7".to_owned()),
        identity: None,
        owns: None,
        generated: None,
    }
}
