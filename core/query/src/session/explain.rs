//! EXPLAIN: a plan as lines.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{Type, Value};

use super::Answer;
use crate::bind::Output;
use crate::plan::{JoinKind, Plan, SetOp};

/// The lines of a plan, below that of what is done with its rows; inputs are indented below.
pub(super) fn lines(plan: &Plan, above: Option<String>) -> Vec<String> {
    let depth = usize::from(above.is_some());
    let mut out: Vec<String> = above.into_iter().collect();
    describe(plan, depth, &mut out);
    out
}

/// Lines as an answer.
pub(super) fn answer(lines: Vec<String>) -> Answer {
    Answer {
        tag: "EXPLAIN".to_string(),
        columns: [Output { name: "QUERY PLAN".to_string(), kind: Type::Text }].into(),
        rows: lines.into_iter().map(|line| [Value::from(line)].into()).collect(),
        notices: Vec::new(),
    }
}

fn describe(plan: &Plan, depth: usize, out: &mut Vec<String>) {
    let line = match plan {
        Plan::Values(rows, _) => format!("Values ({} rows)", rows.len()),
        Plan::Scan(scan) => {
            let by = match scan.index {
                Some(at) => {
                    format!("Index Scan using {} on {}", scan.table.indexes[at].name, scan.table.name)
                }
                None if !scan.range.equal.is_empty()
                    || scan.range.low.is_some()
                    || scan.range.high.is_some()
                    || !scan.range.any.is_empty() =>
                {
                    format!("Key Scan on {}", scan.table.name)
                }
                None => format!("Seq Scan on {}", scan.table.name),
            };
            let by = if scan.versions { format!("{by}, all versions") } else { by };
            let past = scan.at.map_or_else(String::new, |at| format!(" as of {at}"));
            let alias =
                if scan.alias == scan.table.name { String::new() } else { format!(" {}", scan.alias) };
            let listed = match scan.range.any.len() {
                0 => String::new(),
                count => format!(" ({count} values)"),
            };
            format!("{by}{alias}{listed}{past}")
        }
        Plan::Stream(stream) => {
            let bounds = usize::from(stream.low.is_some()) + usize::from(stream.high.is_some());
            let past = stream.at.map_or_else(String::new, |at| format!(" as of {at}"));
            format!("Stream Scan ({bounds} bounds of its offset){past}")
        }
        Plan::Function(function, ..) => format!("Function Scan ({function:?})"),
        Plan::Filter(_, conditions) => format!("Filter ({} conditions)", conditions.len()),
        Plan::Project(..) => return describe(plan.inputs()[0], depth, out),
        Plan::Join(kind, _, _, on) => {
            let equal =
                on.iter().any(|e| matches!(e, crate::expr::Expr::Compare(crate::expr::Comparison::Eq, ..)));
            let how = if equal { "Hash" } else { "Nested Loop" };
            let kind = match kind {
                JoinKind::Inner => "",
                JoinKind::Left => " Left",
                JoinKind::Full => " Full",
                JoinKind::Semi => " Semi",
                JoinKind::Anti => " Anti",
            };
            format!("{how}{kind} Join")
        }
        Plan::Lateral(_, right, keep, _) => {
            let kind = if *keep { "Left " } else { "" };
            let lookup = matches!(&**right, Plan::Filter(input, _) if matches!(**input, Plan::Scan(_)));
            format!("{} {kind}Join", if lookup { "Lookup" } else { "Lateral" })
        }
        Plan::Aggregate(_, groups, ..) if groups.is_empty() => "Aggregate".to_string(),
        Plan::Aggregate(..) => "Hash Aggregate".to_string(),
        Plan::Window(..) => "Window".to_string(),
        Plan::Sort(..) => "Sort".to_string(),
        Plan::Limit(..) => "Limit".to_string(),
        Plan::Distinct(..) => "Distinct".to_string(),
        Plan::DistinctOn(..) => "Unique".to_string(),
        Plan::SetOp(op, all, ..) => {
            let name = match op {
                SetOp::Union => "Union",
                SetOp::Intersect => "Intersect",
                SetOp::Except => "Except",
            };
            format!("{name}{}", if *all { " All" } else { "" })
        }
        Plan::Slot(slot, _) => format!("Kept Rows {slot}"),
        Plan::With(..) => "With".to_string(),
        Plan::Recursive(..) => "Recursive Union".to_string(),
    };
    out.push(format!("{}{line}", "  ".repeat(depth)));
    plan.inputs().into_iter().for_each(|input| describe(input, depth + 1, out));
}
