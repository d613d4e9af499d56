//! Functions of arrays, and what does not fit elsewhere.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState, Type, Value};

use super::{Arg, Function, G_BOOL, G_INT, G_TXT, Gives, INT, TXT, f, int, string, text_of};

type Answer = Result<Value, SqlError>;

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

fn array(items: impl IntoIterator<Item = Value>) -> Answer {
    Ok(Value::Array(items.into_iter().collect::<Vec<_>>().into()))
}

fn length(v: &[Value], _: &Type) -> Answer {
    let count = items(&v[0]).len();
    Ok(if int(&v[1]) == 1 && count > 0 { Value::Int(count as i64) } else { Value::Null })
}

fn to_string(v: &[Value], _: &Type) -> Answer {
    let shown: Vec<String> = items(&v[0])
        .iter()
        .filter_map(|item| text_of(item).or_else(|| v.get(2).map(|null| string(null).to_string())))
        .collect();
    Ok(Value::from(shown.join(string(&v[1]))))
}

/// A text cut at a delimiter (NULL: between all characters), with what stands for NULL.
fn string_to_array(v: &[Value], _: &Type) -> Answer {
    if v[0].is_null() {
        return Ok(Value::Null);
    }
    let text = string(&v[0]);
    let null = v.get(2).and_then(Value::as_text);
    let item = |part: &str| if Some(part) == null { Value::Null } else { Value::text(part) };
    if text.is_empty() {
        return array([]);
    }
    match v[1].as_text() {
        None => array(text.chars().map(|c| item(c.encode_utf8(&mut [0; 4])))),
        Some("") => array([item(text)]),
        Some(by) => array(text.split(by).map(item)),
    }
}

const ARR: Arg = Arg::AnyArray;
const ELM: Arg = Arg::Element;

pub(super) static TABLE: &[Function] = &[
    f("array_length", &[ARR, INT], G_INT, length),
    f("array_upper", &[ARR, INT], G_INT, length),
    f("array_lower", &[ARR, INT], G_INT, |v, k| {
        Ok(if length(v, k)?.is_null() { Value::Null } else { Value::Int(1) })
    }),
    f("array_ndims", &[ARR], G_INT, |v, _| {
        Ok(if items(&v[0]).is_empty() { Value::Null } else { Value::Int(1) })
    }),
    f("cardinality", &[ARR], G_INT, |v, _| Ok(Value::Int(items(&v[0]).len() as i64))),
    f("array_append", &[ARR, ELM], Gives::Same(0), |v, _| array(items(&v[0]).iter().chain([&v[1]]).cloned()))
        .lenient(),
    f("array_prepend", &[Arg::Any, ARR], Gives::Same(1), |v, _| {
        array([&v[0]].into_iter().chain(items(&v[1])).cloned())
    })
    .lenient(),
    f("array_cat", &[ARR, ARR], Gives::Same(0), |v, _| {
        array(items(&v[0]).iter().chain(items(&v[1])).cloned())
    })
    .lenient(),
    f("array_remove", &[ARR, ELM], Gives::Same(0), |v, _| {
        if v[0].is_null() {
            return Ok(Value::Null);
        }
        array(items(&v[0]).iter().filter(|i| **i != v[1]).cloned())
    })
    .lenient(),
    f("array_replace", &[ARR, ELM, ELM], Gives::Same(0), |v, _| {
        if v[0].is_null() {
            return Ok(Value::Null);
        }
        array(items(&v[0]).iter().map(|i| if *i == v[1] { v[2].clone() } else { i.clone() }))
    })
    .lenient(),
    f("array_position", &[ARR, ELM], G_INT, |v, _| {
        Ok(items(&v[0]).iter().position(|i| *i == v[1]).map_or(Value::Null, |at| Value::Int(at as i64 + 1)))
    })
    .lenient(),
    f("array_to_string", &[ARR, TXT, TXT], G_TXT, to_string).optional(1),
    f("string_to_array", &[TXT, TXT, TXT], Gives::Texts, string_to_array).optional(1).lenient(),
    f("array_slice_of", &[ARR, INT, INT], Gives::Same(0), |v, _| {
        let end = usize::try_from(int(&v[2])).unwrap_or(0).min(items(&v[0]).len());
        let start = usize::try_from(int(&v[1]).max(1) - 1).unwrap_or(usize::MAX).min(end);
        array(items(&v[0])[start..end].iter().cloned())
    }),
    f("trim_array", &[ARR, INT], Gives::Same(0), |v, _| {
        let count = items(&v[0]).len();
        match usize::try_from(int(&v[1])) {
            Ok(cut) if cut <= count => array(items(&v[0])[..count - cut].iter().cloned()),
            _ => Err(SqlError::new(
                SqlState::ArraySubscript,
                alloc::format!("number of elements to trim must be between 0 and {count}"),
            )),
        }
    }),
    f("array_dims", &[ARR], G_TXT, |v, _| {
        let count = items(&v[0]).len();
        Ok(if count == 0 { Value::Null } else { Value::from(alloc::format!("[1:{count}]")) })
    }),
    f("array_contains", &[ARR, ARR], G_BOOL, |v, _| {
        Ok(Value::Bool(items(&v[1]).iter().all(|i| !i.is_null() && items(&v[0]).contains(i))))
    }),
    f("array_overlap", &[ARR, ARR], G_BOOL, |v, _| {
        Ok(Value::Bool(items(&v[1]).iter().any(|i| !i.is_null() && items(&v[0]).contains(i))))
    }),
    f("version", &[], G_TXT, |_, _| Ok(Value::text("PostgreSQL 15.0 (Kimberlite)"))),
    f("current_database", &[], G_TXT, |_, _| Ok(Value::text("kimberlite"))),
    f("current_schema", &[], G_TXT, |_, _| Ok(Value::text("public"))),
    f("pg_backend_pid", &[], G_INT, |_, _| Ok(Value::Int(1))),
];
