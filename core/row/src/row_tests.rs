//! Keys and rows as bytes.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use crate::codec::{Layout, Malformed as MalformedRow};
use crate::json::Key;
use crate::key::{self, KeyOrder};
use crate::schema::{Column, ColumnId, ObjectId, Table};
use crate::{Decimal, Interval, Json, Type, Value};

fn number() -> impl Strategy<Value = Decimal> {
    let coefficient = prop_oneof![
        (-2_000i128..2_000),
        any::<i64>().prop_map(i128::from),
        (-(10i128.pow(38) - 1)..10i128.pow(38)),
        (0u32..38, -9i128..10).prop_map(|(power, digit)| digit * 10i128.pow(power)),
    ];
    (coefficient, 0u8..=38)
        .prop_filter_map("too wide", |(coefficient, scale)| Decimal::new(coefficient, scale))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ab\u{0}\u{1}\u{ff}]{0,6}", "\\PC{0,12}"]
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        number().prop_map(Json::Number),
        text().prop_map(Json::Text),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec_of(inner.clone(), 0..4).prop_map(Json::Array),
            vec_of((text(), inner), 0..4).prop_map(|members| {
                Json::Object(
                    members.into_iter().map(|(key, value)| (Key(key), value)).collect::<BTreeMap<_, _>>(),
                )
            }),
        ]
    })
}

fn int() -> impl Strategy<Value = i64> {
    prop_oneof![
        -300i64..300,
        any::<i64>(),
        (0u32..63).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| -1 << bit)
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let flat = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        int().prop_map(Value::Int),
        number().prop_map(Value::Decimal),
        any::<f32>().prop_map(Value::real),
        prop_oneof![any::<f64>(), Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::INFINITY)]
            .prop_map(Value::double),
        text().prop_map(Value::text),
        vec_of(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..8)
            .prop_map(|bytes| Value::Bytes(Arc::from(bytes))),
        any::<i32>().prop_map(Value::Date),
        int().prop_map(Value::Time),
        int().prop_map(Value::Timestamp),
        int().prop_map(Value::TimestampTz),
        (prop_oneof![-3i32..3, any::<i32>()], prop_oneof![-90i32..90, any::<i32>()], int())
            .prop_map(|(months, days, micros)| Value::Interval(Interval { months, days, micros })),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        json().prop_map(|json| Value::Json(Arc::new(json))),
    ];
    let flat = flat.boxed();
    prop_oneof![9 => flat.clone(), 1 => vec_of(flat, 0..4).prop_map(|items| Value::Array(Arc::from(items)))]
}

/// Two values of one kind, or nearly so: those of which order and equality are interesting.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    prop_oneof![
        (value(), value()),
        (int(), int()).prop_map(|(a, b)| (Value::Int(a), Value::Int(b))),
        (number(), number()).prop_map(|(a, b)| (Value::Decimal(a), Value::Decimal(b))),
        (number(), 0u8..4).prop_map(|(a, more)| {
            let same = a.rescaled((a.scale() + more).min(38)).unwrap_or(a);
            (Value::Decimal(a), Value::Decimal(same))
        }),
        (any::<f64>(), any::<f64>()).prop_map(|(a, b)| (Value::double(a), Value::double(b))),
        (any::<f32>(), any::<f32>()).prop_map(|(a, b)| (Value::real(a), Value::real(b))),
        (text(), text()).prop_map(|(a, b)| (Value::text(a), Value::text(b))),
        (json(), json()).prop_map(|(a, b)| (Value::Json(Arc::new(a)), Value::Json(Arc::new(b)))),
        (vec_of(int(), 0..4), vec_of(int(), 0..4)).prop_map(|(a, b)| {
            let array = |items: Vec<i64>| {
                let items =
                    items.into_iter().map(|item| if item == 7 { Value::Null } else { Value::Int(item) });
                Value::Array(items.collect())
            };
            (array(a), array(b))
        }),
    ]
}

fn order() -> impl Strategy<Value = KeyOrder> {
    (any::<bool>(), any::<bool>()).prop_map(|(descending, nulls_first)| KeyOrder { descending, nulls_first })
}

fn compare(a: &Value, b: &Value, order: KeyOrder) -> core::cmp::Ordering {
    use core::cmp::Ordering::{Equal, Greater, Less};
    match (a.is_null(), b.is_null()) {
        (true, true) => Equal,
        (true, false) => {
            if order.nulls_first {
                Less
            } else {
                Greater
            }
        }
        (false, true) => {
            if order.nulls_first {
                Greater
            } else {
                Less
            }
        }
        (false, false) if order.descending => b.cmp(a),
        (false, false) => a.cmp(b),
    }
}

fn encoded(value: &Value, order: KeyOrder) -> Vec<u8> {
    let mut bytes = Vec::new();
    key::encode(value, order, &mut bytes);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn keys_are_in_the_order_of_their_values((a, b) in pair(), order in order()) {
        let (left, right) = (encoded(&a, order), encoded(&b, order));
        prop_assert_eq!(left.cmp(&right), compare(&a, &b, order), "{:?} {:?}", a, b);
    }

    #[test]
    fn keys_of_several_columns_are_in_order_too(
        columns in vec_of((pair(), order(), any::<bool>()), 1..4),
    ) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut expected = core::cmp::Ordering::Equal;
        for ((a, b), order, same) in &columns {
            let b = if *same { a } else { b };
            key::encode(a, *order, &mut left);
            key::encode(b, *order, &mut right);
            expected = expected.then_with(|| compare(a, b, *order));
        }
        prop_assert_eq!(left.cmp(&right), expected);
        prop_assert!(left == right || !left.starts_with(&right) && !right.starts_with(&left));
    }

    #[test]
    fn a_key_says_its_values_again(values in vec_of((value(), order()), 0..4)) {
        let mut bytes = Vec::new();
        for (value, order) in &values {
            key::encode(value, *order, &mut bytes);
        }
        let mut rest = &bytes[..];
        for (value, order) in &values {
            let before = rest;
            let decoded = key::decode(&mut rest, *order).expect("our own encoding");
            prop_assert_eq!(&decoded, value);
            prop_assert_eq!(key::size_of_first(before, *order), Ok(before.len() - rest.len()));
            prop_assert_eq!(&before[..before.len() - rest.len()], &encoded(&decoded, *order)[..]);
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn bytes_from_anywhere_are_a_key_or_malformed(
        mut bytes in vec_of(any::<u8>(), 0..60),
        first in prop_oneof![Just(0x38u8), Just(0x68), Just(0x70), Just(0x58), Just(0x48), any::<u8>()],
        order in order(),
    ) {
        if let Some(byte) = bytes.first_mut() {
            *byte = if order.descending { !first } else { first };
        }
        let mut rest = &bytes[..];
        if let Ok(value) = key::decode(&mut rest, order) {
            // Whatever was accepted has a place in the order: it encodes, and to what equals it.
            let again = encoded(&value, order);
            prop_assert_eq!(key::decode(&mut &again[..], order), Ok(value));
        }
    }

    #[test]
    fn a_row_says_its_values_again(values in vec_of(value(), 0..12), gaps in vec_of(0u32..12, 12)) {
        let (layout, _) = layout(&values, &gaps);
        let mut bytes = Vec::new();
        layout.encode(&values, &mut bytes).expect("a small row");
        let row = layout.decode(&bytes).expect("our own encoding");
        prop_assert!(same(&row, &values), "{:?} {:?}", row, values);
        for cut in 0..bytes.len() {
            prop_assert_eq!(layout.decode(&bytes[..cut]), Err(MalformedRow));
        }
        bytes.push(0);
        prop_assert_eq!(layout.decode(&bytes), Err(MalformedRow));
    }

    #[test]
    fn columns_come_and_go_without_touching_a_row(
        values in vec_of(value(), 1..10),
        gaps in vec_of(0u32..9, 10),
        kept in vec_of(any::<bool>(), 10),
        wanted in vec_of(any::<bool>(), 10),
    ) {
        let (old, table) = layout(&values, &gaps);
        let mut bytes = Vec::new();
        old.encode(&values, &mut bytes).expect("a small row");
        let mut new = table.clone();
        let mut expected = Vec::new();
        new.columns.clear();
        for (at, column) in table.columns.iter().enumerate() {
            if kept[at] {
                new.columns.push(column.clone());
                expected.push(values[at].clone());
            }
        }
        // Added later, in front and behind; one has a default.
        new.columns.insert(0, column(1_000, Some("42")));
        expected.insert(0, Value::Int(42));
        new.columns.push(column(1_001, None));
        expected.push(Value::Null);
        let layout = Layout::of(&new).expect("42 is an integer");
        prop_assert!(same(&layout.decode(&bytes).expect("an older row"), &expected));
        let mut row = Vec::new();
        layout.decode_into(&bytes, |place| wanted.get(place).is_some_and(|wanted| *wanted), &mut row)
            .expect("an older row");
        for (place, value) in row.iter().enumerate() {
            if wanted.get(place) == Some(&true) {
                prop_assert!(same(core::slice::from_ref(value), &expected[place..=place]));
            }
        }
    }

    #[test]
    fn bytes_from_anywhere_are_a_row_or_malformed(bytes in vec_of(any::<u8>(), 0..80), count in 0u8..6) {
        let (layout, _) = layout(&vec![Value::Null; 5], &[0; 12]);
        let _ = layout.decode(&bytes);
        let mut headed = vec![1, count];
        headed.extend_from_slice(&bytes);
        if let Ok(row) = layout.decode(&headed) {
            let mut again = Vec::new();
            layout.encode(&row, &mut again).expect("a small row");
            prop_assert!(same(&layout.decode(&again).expect("our own encoding"), &row));
        }
    }
}

/// Equal, and shown alike.
fn same(a: &[Value], b: &[Value]) -> bool {
    alloc::format!("{a:?}") == alloc::format!("{b:?}")
}

fn column(id: u32, missing: Option<&str>) -> Column {
    Column {
        id: ColumnId(id),
        name: id.to_string(),
        kind: Type::Integer,
        not_null: false,
        default: None,
        missing: missing.map(ToString::to_string),
        identity: None,
        owns: None,
        generated: None,
    }
}

fn layout(values: &[Value], gaps: &[u32]) -> (Layout, Table) {
    let mut id = 0;
    let columns = values.iter().zip(gaps).map(|(_, gap)| {
        id += gap + 1;
        column(id, None)
    });
    let table = Table {
        id: ObjectId(1),
        name: "t".to_string(),
        version: 1,
        columns: columns.collect(),
        next_column: 2_000,
        primary_key: None,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
    };
    (Layout::of(&table).expect("no column has a default"), table)
}

#[test]
fn encodings_of_keys_are_these_bytes() {
    let ascending = KeyOrder::ASCENDING;
    let descending = KeyOrder { descending: true, nulls_first: true };
    let decimal = |text| Value::Decimal(Decimal::parse(text).expect("a number"));
    let golden: [(Value, KeyOrder, &[u8]); 14] = [
        (Value::Null, ascending, &[0xf0]),
        (Value::Null, KeyOrder { nulls_first: true, ..ascending }, &[0x01]),
        (Value::Null, descending, &[0x0f]),
        (Value::Bool(true), ascending, &[0x11]),
        (Value::Int(0), ascending, &[0x28]),
        (Value::Int(258), ascending, &[0x2a, 1, 2]),
        (Value::Int(-1), ascending, &[0x27, 0xff]),
        (Value::Int(-257), ascending, &[0x26, 0xfe, 0xff]),
        (Value::Int(1), descending, &[0xd6, 0xfe]),
        (decimal("12.50"), ascending, &[0x38, 2, 66, 13, 51, 0]),
        (decimal("-0.05"), ascending, &[0x38, 0, !63, !51, 0xff]),
        (Value::text("a\0"), ascending, &[0x48, b'a', 0, 0xff, 0, 1]),
        (Value::double(1.0), ascending, &[0x41, 0xbf, 0xf0, 0, 0, 0, 0, 0, 0]),
        (Value::Array(Arc::from([Value::Int(1), Value::Null])), ascending, &[0x70, 0x29, 1, 0xf0, 0]),
    ];
    for (value, order, bytes) in golden {
        assert_eq!(encoded(&value, order), bytes, "{value:?}");
    }
}

#[test]
fn a_row_is_these_bytes() {
    let values = [Value::Int(-2), Value::Null, Value::text("ab"), Value::Bool(true)];
    let (layout, _) = layout(&values, &[0, 0, 8, 0]);
    let mut bytes = Vec::new();
    layout.encode(&values, &mut bytes).expect("a small row");
    // Ids 1, 2, 11, 12; distances 1, 0, 8, 0.
    assert_eq!(bytes, [1, 4, 0x23, 3, 0x00, 0xe7, 1, 2, b'a', b'b', 0x02]);
}
