//! Functions of JSON; the operators are functions with names of their own.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::json::Key;
use kimberlite_row::{Json, SqlError, SqlState, Type, Value};

use super::{
    Arg, Function, G_BOOL, G_INT, G_JSN, G_TXT, INT, JSN, TXT, bad, f, int, string, text_of, to_json,
};

type Answer = Result<Value, SqlError>;

fn json(value: &Value) -> &Json {
    match value {
        Value::Json(json) => json,
        _ => &Json::Null,
    }
}

fn wrap(json: Json) -> Value {
    Value::Json(Arc::new(json))
}

fn some(json: Option<&Json>) -> Answer {
    Ok(json.map_or(Value::Null, |json| wrap(json.clone())))
}

/// Text of a member: strings bare, `null` as NULL.
fn plain(json: Option<&Json>) -> Answer {
    Ok(match json {
        None | Some(Json::Null) => Value::Null,
        Some(Json::Text(text)) => Value::text(text),
        Some(other) => Value::from(other.text()),
    })
}

fn follow<'a>(mut at: &'a Json, path: &[Value]) -> Option<&'a Json> {
    for step in path {
        let step = string(step);
        at = match at {
            Json::Array(_) => at.element(step.parse().ok()?)?,
            _ => at.member(step)?,
        };
    }
    Some(at)
}

fn steps(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

fn has(json: &Json, key: &str) -> bool {
    match json {
        Json::Object(members) => members.contains_key(&Key(key.to_string())),
        Json::Array(items) => items.iter().any(|item| *item == Json::Text(key.to_string())),
        Json::Text(text) => text == key,
        _ => false,
    }
}

fn concat(v: &[Value], _: &Type) -> Answer {
    let list = |json: &Json| match json {
        Json::Array(items) => items.clone(),
        other => [other.clone()].into(),
    };
    Ok(wrap(match (json(&v[0]), json(&v[1])) {
        (Json::Object(a), Json::Object(b)) => {
            let mut all = a.clone();
            all.extend(b.clone());
            Json::Object(all)
        }
        (a, b) => Json::Array(list(a).into_iter().chain(list(b)).collect()),
    }))
}

fn without(v: &[Value], _: &Type) -> Answer {
    let mut kept = json(&v[0]).clone();
    match (&mut kept, &v[1]) {
        (Json::Object(members), Value::Text(key)) => {
            members.remove(&Key(key.to_string()));
        }
        (Json::Array(items), Value::Text(key)) => items.retain(|item| *item != Json::Text(key.to_string())),
        (Json::Array(items), Value::Int(at)) => {
            let at = if *at < 0 { at + items.len() as i64 } else { *at };
            if let Ok(at) = usize::try_from(at)
                && at < items.len()
            {
                items.remove(at);
            }
        }
        _ => return Err(bad("cannot delete from scalar")),
    }
    Ok(wrap(kept))
}

fn set_in(at: &mut Json, path: &[Value], new: Option<&Json>, create: bool) {
    let Some((step, rest)) = path.split_first() else { return };
    let step = string(step);
    match at {
        Json::Object(members) => {
            let key = Key(step.to_string());
            if rest.is_empty() {
                match new {
                    None => {
                        members.remove(&key);
                    }
                    Some(new) if create || members.contains_key(&key) => {
                        members.insert(key, new.clone());
                    }
                    Some(_) => {}
                }
            } else if let Some(member) = members.get_mut(&key) {
                set_in(member, rest, new, create);
            }
        }
        Json::Array(items) => {
            let Ok(place) = step.parse::<i64>() else { return };
            let place = if place < 0 { place + items.len() as i64 } else { place };
            let inside = usize::try_from(place).ok().filter(|at| *at < items.len());
            match (inside, new) {
                (Some(at), None) if rest.is_empty() => {
                    items.remove(at);
                }
                (Some(at), Some(new)) if rest.is_empty() => items[at] = new.clone(),
                (Some(at), new) => set_in(&mut items[at], rest, new, create),
                (None, Some(new)) if create && rest.is_empty() => {
                    if place < 0 {
                        items.insert(0, new.clone());
                    } else {
                        items.push(new.clone());
                    }
                }
                _ => {}
            }
        }
        _ => {}
    }
}

fn set(v: &[Value], _: &Type) -> Answer {
    let mut changed = json(&v[0]).clone();
    set_in(&mut changed, steps(&v[1]), Some(json(&v[2])), !matches!(v.get(3), Some(Value::Bool(false))));
    Ok(wrap(changed))
}

/// Puts a new value in front of the element that a path leads to, or behind it; a member must be new.
fn insert_in(at: &mut Json, path: &[Value], new: &Json, behind: bool) -> Result<(), SqlError> {
    let Some((step, rest)) = path.split_first() else { return Ok(()) };
    let step = string(step);
    match at {
        Json::Object(members) => {
            let key = Key(step.to_string());
            match members.get_mut(&key) {
                Some(member) if !rest.is_empty() => insert_in(member, rest, new, behind),
                Some(_) => Err(bad("cannot replace existing key")
                    .hint("Try using the function jsonb_set to replace key value.")),
                None if rest.is_empty() => {
                    members.insert(key, new.clone());
                    Ok(())
                }
                None => Ok(()),
            }
        }
        Json::Array(items) => {
            let Ok(place) = step.parse::<i64>() else {
                return Err(SqlError::new(
                    SqlState::InvalidTextRepresentation,
                    alloc::format!("path element at position 1 is not an integer: \"{step}\""),
                ));
            };
            let count = items.len() as i64;
            let place = if place < 0 { place + count } else { place };
            if !rest.is_empty() {
                let inside = usize::try_from(place).ok().and_then(|at| items.get_mut(at));
                return inside.map_or(Ok(()), |item| insert_in(item, rest, new, behind));
            }
            let place = (place + i64::from(behind && (0..count).contains(&place))).clamp(0, count);
            items.insert(place as usize, new.clone());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn insert(v: &[Value], _: &Type) -> Answer {
    let mut changed = json(&v[0]).clone();
    insert_in(&mut changed, steps(&v[1]), json(&v[2]), matches!(v.get(3), Some(Value::Bool(true))))?;
    Ok(wrap(changed))
}

/// Keys and values in turn, all of them text.
fn pairs(v: &[Value], _: &Type) -> Answer {
    let list = steps(&v[0]);
    if !list.len().is_multiple_of(2) {
        return Err(SqlError::new(SqlState::ArraySubscript, "array must have even number of elements"));
    }
    let mut members = BTreeMap::new();
    for pair in list.chunks(2) {
        let key = pair[0].as_text().ok_or_else(|| bad("null value not allowed for object key"))?;
        members.insert(Key(key.to_string()), to_json(&pair[1]));
    }
    Ok(wrap(Json::Object(members)))
}

fn object(v: &[Value], _: &Type) -> Answer {
    if !v.len().is_multiple_of(2) {
        return Err(bad("argument list must have even number of elements"));
    }
    let mut members = BTreeMap::new();
    for pair in v.chunks(2) {
        let key = text_of(&pair[0]).ok_or_else(|| bad("argument 1: key must not be null"))?;
        members.insert(Key(key), to_json(&pair[1]));
    }
    Ok(wrap(Json::Object(members)))
}

fn strip(json: &Json) -> Json {
    match json {
        Json::Object(members) => Json::Object(
            members.iter().filter(|(_, v)| **v != Json::Null).map(|(k, v)| (k.clone(), strip(v))).collect(),
        ),
        Json::Array(items) => Json::Array(items.iter().map(strip).collect()),
        other => other.clone(),
    }
}

fn pretty(json: &Json, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    };
    match json {
        Json::Array(items) if !items.is_empty() => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                pretty(item, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        Json::Object(members) if !members.is_empty() => {
            out.push('{');
            for (at, (key, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                kimberlite_row::json::quote(&key.0, out);
                out.push_str(": ");
                pretty(value, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        other => out.push_str(&other.text()),
    }
}

fn length(v: &[Value], _: &Type) -> Answer {
    match json(&v[0]) {
        Json::Array(items) => Ok(Value::Int(items.len() as i64)),
        _ => Err(SqlError::new(SqlState::InvalidParameterValue, "cannot get array length of a non-array")),
    }
}

const ANY: Arg = Arg::Any;
const TEXTS: Arg = Arg::AnyArray;

pub(super) static TABLE: &[Function] = &[
    f("->", &[JSN, TXT], G_JSN, |v, _| some(json(&v[0]).member(string(&v[1])))),
    f("->", &[JSN, INT], G_JSN, |v, _| some(json(&v[0]).element(int(&v[1])))),
    f("->>", &[JSN, TXT], G_TXT, |v, _| plain(json(&v[0]).member(string(&v[1])))),
    f("->>", &[JSN, INT], G_TXT, |v, _| plain(json(&v[0]).element(int(&v[1])))),
    f("#>", &[JSN, TEXTS], G_JSN, |v, _| some(follow(json(&v[0]), steps(&v[1])))),
    f("#>>", &[JSN, TEXTS], G_TXT, |v, _| plain(follow(json(&v[0]), steps(&v[1])))),
    f("@>", &[JSN, JSN], G_BOOL, |v, _| Ok(Value::Bool(json(&v[0]).contains(json(&v[1]))))),
    f("<@", &[JSN, JSN], G_BOOL, |v, _| Ok(Value::Bool(json(&v[1]).contains(json(&v[0]))))),
    f("?", &[JSN, TXT], G_BOOL, |v, _| Ok(Value::Bool(has(json(&v[0]), string(&v[1]))))),
    f("?|", &[JSN, TEXTS], G_BOOL, |v, _| {
        Ok(Value::Bool(steps(&v[1]).iter().any(|k| has(json(&v[0]), string(k)))))
    }),
    f("?&", &[JSN, TEXTS], G_BOOL, |v, _| {
        Ok(Value::Bool(steps(&v[1]).iter().all(|k| has(json(&v[0]), string(k)))))
    }),
    f("jsonb_concat", &[JSN, JSN], G_JSN, concat),
    f("jsonb_delete", &[JSN, TXT], G_JSN, without),
    f("jsonb_delete", &[JSN, INT], G_JSN, without),
    f("#-", &[JSN, TEXTS], G_JSN, |v, _| {
        let mut changed = json(&v[0]).clone();
        set_in(&mut changed, steps(&v[1]), None, false);
        Ok(wrap(changed))
    }),
    f("jsonb_set", &[JSN, TEXTS, JSN, Arg::Is(Type::Bool)], G_JSN, set).optional(1),
    f("jsonb_typeof", &[JSN], G_TXT, |v, _| Ok(Value::text(json(&v[0]).kind()))),
    f("json_typeof", &[JSN], G_TXT, |v, _| Ok(Value::text(json(&v[0]).kind()))),
    f("jsonb_array_length", &[JSN], G_INT, length),
    f("json_array_length", &[JSN], G_INT, length),
    f("to_json", &[ANY], G_JSN, |v, _| Ok(wrap(to_json(&v[0])))),
    f("to_jsonb", &[ANY], G_JSN, |v, _| Ok(wrap(to_json(&v[0])))),
    f("jsonb_build_object", &[ANY], G_JSN, object).variadic().lenient(),
    f("json_build_object", &[ANY], G_JSN, object).variadic().lenient(),
    f("jsonb_build_array", &[ANY], G_JSN, |v, _| {
        Ok(wrap(Json::Array(v.iter().map(to_json).collect::<Vec<_>>())))
    })
    .variadic()
    .lenient(),
    f("json_build_array", &[ANY], G_JSN, |v, _| {
        Ok(wrap(Json::Array(v.iter().map(to_json).collect::<Vec<_>>())))
    })
    .variadic()
    .lenient(),
    f("jsonb_extract_path", &[JSN, TXT], G_JSN, |v, _| some(follow(json(&v[0]), &v[1..]))).variadic(),
    f("jsonb_extract_path_text", &[JSN, TXT], G_TXT, |v, _| plain(follow(json(&v[0]), &v[1..]))).variadic(),
    f("json_extract_path", &[JSN, TXT], G_JSN, |v, _| some(follow(json(&v[0]), &v[1..]))).variadic(),
    f("json_extract_path_text", &[JSN, TXT], G_TXT, |v, _| plain(follow(json(&v[0]), &v[1..]))).variadic(),
    f("array_to_json", &[TEXTS], G_JSN, |v, _| Ok(wrap(to_json(&v[0])))),
    f("json_strip_nulls", &[JSN], G_JSN, |v, _| Ok(wrap(strip(json(&v[0]))))),
    f("jsonb_insert", &[JSN, TEXTS, JSN, Arg::Is(Type::Bool)], G_JSN, insert).optional(1),
    f("jsonb_object", &[TEXTS], G_JSN, pairs),
    f("json_object", &[TEXTS], G_JSN, pairs),
    f("jsonb_strip_nulls", &[JSN], G_JSN, |v, _| Ok(wrap(strip(json(&v[0]))))),
    f("jsonb_pretty", &[JSN], G_TXT, |v, _| {
        let mut out = String::new();
        pretty(json(&v[0]), 0, &mut out);
        Ok(Value::from(out))
    }),
];
