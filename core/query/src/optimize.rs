//! The planner: conditions move down to where their columns are made, inner joins are put in a greedy order along their
//! equalities, EXISTS and IN become semi-joins, scans take the key or index that fits most, columns nobody reads are not
//! carried.
#![allow(clippy::cast_precision_loss, reason = "estimates of rows")]

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use kimberlite_row::Value;

use crate::expr::{Ask, Col, Comparison, Expr};
use crate::plan::{
    Access, Aggregate, AggregateCall, JoinKind, Plan, STREAM_OFFSET, ScanPlan, SetOp, SortKey, StreamPlan,
};
use crate::statistics::Statistics;

/// Plans a statement.
pub fn optimize(plan: Plan, known: &mut Statistics<'_>) -> Plan {
    let mut plan = improve(plan, known);
    let mut read: BTreeSet<Col> = plan.columns().into_iter().collect();
    plan.read_columns(&mut |c| {
        read.insert(c);
    });
    prune(&mut plan, &read);
    plan
}

fn each_subquery(expr: &mut Expr, change: &mut dyn FnMut(&mut Plan)) {
    if let Expr::Subquery(_, plan) = expr {
        change(plan);
    }
    expr.parts_mut(&mut |part| each_subquery(part, change));
}

fn prune(plan: &mut Plan, read: &BTreeSet<Col>) {
    if let Plan::Scan(scan) = plan {
        scan.columns.retain(|(col, _)| read.contains(col));
    }
    if let Plan::Stream(stream) = plan {
        stream.columns.retain(|(col, _)| read.contains(col));
    }
    plan.expressions_mut(&mut |e| each_subquery(e, &mut |plan| prune(plan, read)));
    plan.inputs_mut().into_iter().for_each(|input| prune(input, read));
}

fn improve(mut plan: Plan, known: &mut Statistics<'_>) -> Plan {
    plan.expressions_mut(&mut |e| {
        each_subquery(e, &mut |plan| {
            let old = core::mem::replace(plan, Plan::one_row());
            *plan = improve(old, known);
        });
    });
    push(plan, Vec::new(), known)
}

fn improve_inputs(mut plan: Plan, known: &mut Statistics<'_>) -> Plan {
    for input in plan.inputs_mut() {
        let old = core::mem::replace(input, Plan::one_row());
        *input = improve(old, known);
    }
    plan
}

fn filter(plan: Plan, conditions: Vec<Expr>) -> Plan {
    if conditions.is_empty() {
        return plan;
    }
    // A comparison of a semi-join is made before what is left.
    let mut plan = plan;
    let mut left = Vec::new();
    for condition in conditions {
        match semi(plan, condition) {
            (joined, None) => plan = joined,
            (same, Some(condition)) => {
                plan = same;
                left.push(condition);
            }
        }
    }
    if left.is_empty() { plan } else { Plan::Filter(Box::new(plan), left) }
}

fn covers(columns: &[Col], expr: &Expr) -> bool {
    let mut all = true;
    expr.columns(&mut |c| all &= columns.contains(&c));
    all
}

fn touches_any(expr: &Expr) -> bool {
    let mut any = false;
    expr.columns(&mut |_| any = true);
    any
}

fn touches(columns: &[Col], expr: &Expr) -> bool {
    let mut any = false;
    expr.columns(&mut |c| any |= columns.contains(&c));
    any
}

/// Turns a correlated EXISTS or IN into a semi-join, NOT EXISTS into an anti-join.
fn semi(left: Plan, condition: Expr) -> (Plan, Option<Expr>) {
    let (inner, anti) = match &condition {
        Expr::Not(inner) => (&**inner, true),
        other => (other, false),
    };
    let Expr::Subquery(ask, sub) = inner else { return (left, Some(condition)) };
    let columns = left.columns();
    let mut tied = false;
    sub.free_columns(&mut |c| tied |= columns.contains(&c));
    if !tied {
        return (left, Some(condition));
    }
    let (body, output) = match &**sub {
        Plan::Project(body, list) => (&**body, list.first().map(|c| c.0.clone())),
        other => (other, other.columns().first().map(|c| Expr::Col(*c))),
    };
    let Plan::Filter(source, conditions) = body else { return (left, Some(condition)) };
    let mut source_free = false;
    source.free_columns(&mut |c| source_free |= columns.contains(&c));
    if source_free || conditions.iter().any(Expr::has_subquery) {
        return (left, Some(condition));
    }
    let mut on = conditions.clone();
    match (&**ask, output) {
        (Ask::Exists, _) => {}
        (Ask::Quantified { left: operands, comparison: Comparison::Eq, all: false }, Some(output))
            if !anti && operands.len() == 1 && !output.has_subquery() && !operands[0].has_subquery() =>
        {
            on.push(Expr::Compare(Comparison::Eq, Box::new(operands[0].clone()), Box::new(output)));
        }
        _ => return (left, Some(condition)),
    }
    let kind = if anti { JoinKind::Anti } else { JoinKind::Semi };
    (Plan::Join(kind, Box::new(left), source.clone(), on), None)
}

fn substitute(expr: &mut Expr, list: &[(Expr, Col)]) {
    if let Expr::Col(col) = expr {
        if let Some((definition, _)) = list.iter().find(|(_, c)| c == col) {
            *expr = definition.clone();
        }
        return;
    }
    expr.parts_mut(&mut |part| substitute(part, list));
}

/// Whether conditions over these definitions may be computed below them.
fn movable(condition: &Expr, list: &[(Expr, Col)]) -> bool {
    if condition.is_volatile() {
        return false;
    }
    let mut fine = true;
    condition.columns(&mut |c| {
        if let Some((definition, _)) = list.iter().find(|(_, col)| *col == c) {
            fine &= !definition.is_volatile();
        }
    });
    fine
}

#[allow(clippy::too_many_lines, reason = "one arm per node")]
fn push(plan: Plan, mut conditions: Vec<Expr>, known: &mut Statistics<'_>) -> Plan {
    match plan {
        Plan::Filter(input, more) => {
            let mut all = Vec::new();
            for condition in more {
                condition.conjuncts(&mut all);
            }
            all.append(&mut conditions);
            // What never holds is all that is asked: the others are not computed.
            let never = |c: &Expr| matches!(c, Expr::Const(Value::Null | Value::Bool(false)));
            if let Some(at) = all.iter().position(never) {
                all = [all.swap_remove(at)].into();
            }
            let all = all.into_iter().flat_map(factored).collect();
            push(*input, all, known)
        }
        Plan::Join(JoinKind::Inner, ..) => {
            let (mut relations, mut all) = (Vec::new(), conditions);
            flatten(plan, &mut relations, &mut all);
            order(relations, all, known)
        }
        Plan::Join(kind @ (JoinKind::Left | JoinKind::Full), left, right, on) => {
            outer_join(kind, *left, *right, on, conditions, known)
        }
        Plan::Join(kind, left, right, on) => {
            Plan::Join(kind, Box::new(push(*left, conditions, known)), Box::new(improve(*right, known)), on)
        }
        Plan::Lateral(left, right, keep, on) => {
            let columns = left.columns();
            let (below, above): (Vec<_>, Vec<_>) =
                conditions.into_iter().partition(|c| covers(&columns, c) && !c.is_volatile());
            filter(
                Plan::Lateral(
                    Box::new(push(*left, below, known)),
                    Box::new(improve(*right, known)),
                    keep,
                    on,
                ),
                above,
            )
        }
        Plan::Project(input, list) => {
            let (below, above): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|c| movable(c, &list));
            let below = below
                .into_iter()
                .map(|mut c| {
                    substitute(&mut c, &list);
                    c
                })
                .collect();
            filter(Plan::Project(Box::new(push(*input, below, known)), list), above)
        }
        Plan::Aggregate(input, groups, calls, sets, grouping) => {
            let group_cols: Vec<Col> = groups.iter().map(|g| g.1).collect();
            let single = sets.len() == 1 && !groups.is_empty();
            let (below, above): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|c| {
                single && touches(&group_cols, c) && covers(&group_cols, c) && movable(c, &groups)
            });
            let below = below
                .into_iter()
                .map(|mut c| {
                    substitute(&mut c, &groups);
                    c
                })
                .collect();
            let mut input = push(*input, below, known);
            if groups.is_empty() && sets.len() == 1 && calls.len() == 1 && is_first(&input, &calls[0].0) {
                let one = Some(Expr::Const(Value::Int(1)));
                input = Plan::Limit(Box::new(input), one, None, None);
            }
            filter(Plan::Aggregate(Box::new(input), groups, calls, sets, grouping), above)
        }
        Plan::Sort(input, keys) => {
            let (below, above): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|c| !c.is_volatile());
            let input = push(*input, below, known);
            // What comes in this order need not be sorted.
            let sorted = if is_sorted(&input, &keys) { input } else { Plan::Sort(Box::new(input), keys) };
            filter(sorted, above)
        }
        Plan::SetOp(op, all, left, right, cols) => {
            let movable = |c: &Expr| !c.is_volatile() && touches_any(c);
            let (below, above): (Vec<_>, Vec<_>) = conditions.into_iter().partition(movable);
            let on = |of: fn(&(Col, Col, Col)) -> Col| -> Vec<Expr> {
                let list: Vec<(Expr, Col)> = cols.iter().map(|c| (Expr::Col(of(c)), c.2)).collect();
                let mut below = below.clone();
                for condition in &mut below {
                    substitute(condition, &list);
                }
                below
            };
            // What is taken away from the left side need not be less.
            let other = if op == SetOp::Except { Vec::new() } else { on(|c| c.1) };
            let (left, right) = (push(*left, on(|c| c.0), known), push(*right, other, known));
            filter(Plan::SetOp(op, all, Box::new(left), Box::new(right), cols), above)
        }
        Plan::Distinct(input, cols) => {
            let (below, above): (Vec<_>, Vec<_>) =
                conditions.into_iter().partition(|c| covers(&cols, c) && !c.is_volatile());
            filter(Plan::Distinct(Box::new(push(*input, below, known)), cols), above)
        }
        Plan::With(list, rest) => {
            let list =
                list.into_iter().map(|(slot, plan, cols)| (slot, improve(plan, known), cols)).collect();
            in_place(list, push(*rest, conditions, known))
        }
        Plan::Scan(mut scan) => {
            choose(&mut scan, &conditions);
            scan.rows = known.estimate(&scan);
            filter(Plan::Scan(scan), conditions)
        }
        Plan::Stream(mut stream) => {
            bound_offsets(&mut stream, &conditions);
            filter(Plan::Stream(stream), conditions)
        }
        other => filter(improve_inputs(other, known), conditions),
    }
}

/// A query of WITH that a limit alone looks at is read where it stands, as far as the limit asks: a recursion without end
/// can be read so. One more reader keeps it apart.
fn in_place(mut list: Vec<(usize, Plan, Vec<Col>)>, rest: Plan) -> Plan {
    if list.len() == 1
        && limited(&rest, list[0].0, false)
        && let Some((_, plan, cols)) = list.pop()
    {
        return in_slot(rest, plan, &cols);
    }
    Plan::With(list, Box::new(rest))
}

/// Whether nothing stands between a slot and a limit but a projection.
fn limited(plan: &Plan, wanted: usize, below: bool) -> bool {
    match plan {
        Plan::Limit(input, _, _, None) => limited(input, wanted, true),
        Plan::Project(input, items) => {
            !items.iter().any(|(item, _)| item.is_volatile()) && limited(input, wanted, below)
        }
        Plan::Slot(slot, _) => below && *slot == wanted,
        _ => false,
    }
}

/// Such a plan with another one in place of the slot.
fn in_slot(plan: Plan, with: Plan, cols: &[Col]) -> Plan {
    match plan {
        Plan::Limit(input, limit, offset, ties) => {
            Plan::Limit(Box::new(in_slot(*input, with, cols)), limit, offset, ties)
        }
        Plan::Project(input, items) => Plan::Project(Box::new(in_slot(*input, with, cols)), items),
        Plan::Slot(_, columns) => {
            let items = columns.into_iter().map(|(place, col)| (Expr::Col(cols[place]), col)).collect();
            Plan::Project(Box::new(with), items)
        }
        other => other,
    }
}

/// Begins and ends the read of a stream where conditions say so; they are held against each record still.
fn bound_offsets(stream: &mut StreamPlan, conditions: &[Expr]) {
    let own: Vec<Col> = stream.columns.iter().map(|column| column.0).collect();
    let offset = stream.columns.iter().find(|(_, place)| *place == STREAM_OFFSET).map(|(col, _)| *col);
    for condition in conditions {
        let Expr::Compare(comparison, a, b) = condition else { continue };
        let (comparison, value) = match (&**a, &**b) {
            (Expr::Col(col), value) if Some(*col) == offset => (*comparison, value),
            (value, Expr::Col(col)) if Some(*col) == offset => (comparison.flipped(), value),
            _ => continue,
        };
        if touches(&own, value) || value.is_volatile() || value.has_subquery() {
            continue;
        }
        let inclusive = matches!(comparison, Comparison::Eq | Comparison::Ge | Comparison::Le);
        if matches!(comparison, Comparison::Eq | Comparison::Gt | Comparison::Ge) && stream.low.is_none() {
            stream.low = Some((value.clone(), inclusive));
        }
        if matches!(comparison, Comparison::Eq | Comparison::Lt | Comparison::Le) && stream.high.is_none() {
            stream.high = Some((value.clone(), inclusive));
        }
    }
}

/// `(a AND b) OR (a AND c)` also says `a`: what all branches share is a condition of its own.
fn factored(condition: Expr) -> Vec<Expr> {
    let Expr::Or(branches) = &condition else { return [condition].into() };
    let mut parts: Vec<Vec<Expr>> = Vec::new();
    for branch in branches {
        let mut list = Vec::new();
        branch.clone().conjuncts(&mut list);
        parts.push(list);
    }
    let Some((first, rest)) = parts.split_first() else { return [condition].into() };
    let shared: Vec<Expr> = first
        .iter()
        .filter(|e| rest.iter().all(|list| list.contains(e)) && !e.is_volatile())
        .cloned()
        .collect();
    shared.into_iter().chain([condition]).collect()
}

fn outer_join(
    kind: JoinKind,
    left: Plan,
    right: Plan,
    on: Vec<Expr>,
    conditions: Vec<Expr>,
    known: &mut Statistics<'_>,
) -> Plan {
    let (left_cols, right_cols) = (left.columns(), right.columns());
    let mut conjuncts = Vec::new();
    for condition in on {
        condition.conjuncts(&mut conjuncts);
    }
    if kind == JoinKind::Full {
        return filter(
            Plan::Join(kind, Box::new(improve(left, known)), Box::new(improve(right, known)), conjuncts),
            conditions,
        );
    }
    // A condition that no row of NULLs passes makes the join an inner one.
    if conditions.iter().any(|c| touches(&right_cols, c) && rejects_null(c, &right_cols)) {
        conjuncts.extend(conditions);
        let joined = Plan::Join(JoinKind::Inner, Box::new(left), Box::new(right), Vec::new());
        return push(joined, conjuncts, known);
    }
    let (below, above): (Vec<_>, Vec<_>) = conditions
        .into_iter()
        .partition(|c| !touches(&right_cols, c) && touches(&left_cols, c) && !c.is_volatile());
    let (right_only, on): (Vec<_>, Vec<_>) = conjuncts
        .into_iter()
        .partition(|c| !touches(&left_cols, c) && touches(&right_cols, c) && !c.is_volatile());
    let (left, right) = (push(left, below, known), push(right, right_only, known));
    let joined = match looked_up(estimate(&left), right, &on, known) {
        (right, true) => Plan::Lateral(Box::new(left), Box::new(right), true, Vec::new()),
        (right, false) => Plan::Join(kind, Box::new(left), Box::new(right), on),
    };
    filter(joined, above)
}

fn rejects_null(condition: &Expr, columns: &[Col]) -> bool {
    match condition {
        Expr::Compare(_, a, b) => [a, b].into_iter().any(|side| strict_on(side, columns)),
        Expr::And(list) => list.iter().any(|e| rejects_null(e, columns)),
        Expr::Not(inner) => matches!(&**inner, Expr::IsNull(e) if strict_on(e, columns)),
        Expr::InSet(inner, ..) | Expr::InList(inner, _) => strict_on(inner, columns),
        _ => false,
    }
}

/// Whether NULL in these columns makes it NULL.
fn strict_on(expr: &Expr, columns: &[Col]) -> bool {
    match expr {
        Expr::Col(col) => columns.contains(col),
        Expr::Cast(inner, ..) | Expr::Negate(inner, _) => strict_on(inner, columns),
        Expr::Arithmetic(_, a, b, _) => strict_on(a, columns) || strict_on(b, columns),
        _ => false,
    }
}

fn flatten(plan: Plan, relations: &mut Vec<Plan>, conditions: &mut Vec<Expr>) {
    match plan {
        Plan::Join(JoinKind::Inner, left, right, on) => {
            for condition in on {
                condition.conjuncts(conditions);
            }
            flatten(*left, relations, conditions);
            flatten(*right, relations, conditions);
        }
        Plan::Filter(input, more) if matches!(*input, Plan::Join(JoinKind::Inner, ..)) => {
            for condition in more {
                condition.conjuncts(conditions);
            }
            flatten(*input, relations, conditions);
        }
        other => relations.push(other),
    }
}

/// Rows a plan may give. Without statistics: a table has 1000, a condition keeps a part.
fn estimate(plan: &Plan) -> f64 {
    match plan {
        Plan::Values(rows, _) => rows.len() as f64,
        Plan::Scan(scan) => scan.rows,
        Plan::Filter(input, conditions) => {
            let mut parts: Vec<f64> = conditions.iter().map(selectivity).collect();
            if let Plan::Scan(scan) = &**input {
                // What its range says is counted there.
                let Access { equal, low, high, any } = &scan.range;
                let bounds = usize::from(low.is_some()) + usize::from(high.is_some());
                let said = equal.len() + bounds + usize::from(!any.is_empty());
                parts.sort_by(f64::total_cmp);
                parts.drain(..said.min(parts.len()));
            }
            (estimate(input) * parts.into_iter().product::<f64>()).max(1.0)
        }
        Plan::Lateral(left, right, ..) => estimate(left) * estimate(right).max(1.0),
        Plan::Project(input, _) | Plan::Sort(input, _) | Plan::Window(input, _) => estimate(input),
        Plan::Aggregate(_, groups, ..) if groups.is_empty() => 1.0,
        Plan::Aggregate(input, ..) | Plan::Distinct(input, _) | Plan::DistinctOn(input, _) => {
            (estimate(input) / 5.0).max(1.0)
        }
        Plan::Limit(input, limit, ..) => match limit {
            Some(Expr::Const(Value::Int(n))) => estimate(input).min(*n as f64),
            _ => estimate(input),
        },
        Plan::Join(_, left, right, on) => {
            if on.is_empty() {
                estimate(left) * estimate(right)
            } else {
                estimate(left).max(estimate(right))
            }
        }
        _ => 1000.0,
    }
}

fn selectivity(condition: &Expr) -> f64 {
    match condition {
        Expr::Compare(Comparison::Eq, ..) => 0.05,
        Expr::Compare(Comparison::Ne, ..) => 0.95,
        Expr::Compare(..) => 0.4,
        Expr::InSet(_, list, _) => (list.len() as f64 * 0.05).min(0.8),
        Expr::InList(_, list) => (list.len() as f64 * 0.05).min(0.8),
        Expr::Or(list) => list.iter().map(selectivity).sum::<f64>().min(0.9),
        _ => 0.5,
    }
}

/// Joins relations in a greedy order: start with the smallest, go on with the smallest that an equality connects.
fn order(relations: Vec<Plan>, conditions: Vec<Expr>, known: &mut Statistics<'_>) -> Plan {
    let columns: Vec<Vec<Col>> = relations.iter().map(Plan::columns).collect();
    let owner = |c: Col| columns.iter().position(|list| list.contains(&c));
    let mut own: Vec<Vec<Expr>> = relations.iter().map(|_| Vec::new()).collect();
    // Which relations each condition needs; those without one of these are for the end.
    let mut waiting: Vec<(BTreeSet<usize>, Expr)> = Vec::new();
    let mut last = Vec::new();
    for condition in conditions {
        let mut needs = BTreeSet::new();
        condition.columns(&mut |c| needs.extend(owner(c)));
        match needs.len() {
            _ if condition.is_volatile() => last.push(condition),
            0 => last.push(condition),
            1 => own[needs.into_iter().next().unwrap_or(0)].push(condition),
            _ => waiting.push((needs, condition)),
        }
    }
    let mut parts: Vec<Option<Plan>> =
        relations.into_iter().zip(own).map(|(relation, own)| Some(push(relation, own, known))).collect();
    let sizes: Vec<f64> = parts.iter().flatten().map(estimate).collect();
    let smaller = |a: &usize, b: &usize| sizes[*a].total_cmp(&sizes[*b]).then(a.cmp(b));
    let mut joined: BTreeSet<usize> = BTreeSet::new();
    let mut plan: Option<Plan> = None;
    for _ in 0..parts.len() {
        let open = || (0..sizes.len()).filter(|at| !joined.contains(at));
        let connected = |at: &usize| {
            waiting.iter().any(|(needs, condition)| {
                matches!(condition, Expr::Compare(Comparison::Eq, ..))
                    && needs.contains(at)
                    && needs.iter().all(|n| n == at || joined.contains(n))
            })
        };
        let Some(next) = open().filter(connected).min_by(smaller).or_else(|| open().min_by(smaller)) else {
            break;
        };
        joined.insert(next);
        let Some(relation) = parts[next].take() else { break };
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(needs, _)| needs.is_subset(&joined));
        waiting = rest;
        let (late, on): (Vec<Expr>, Vec<Expr>) =
            ready.into_iter().map(|(_, c)| c).partition(Expr::has_subquery);
        plan = Some(match plan {
            None => relation,
            Some(left) => {
                let joined = match looked_up(estimate(&left), relation, &on, known) {
                    (right, true) => Plan::Lateral(Box::new(left), Box::new(right), false, Vec::new()),
                    (right, false) => Plan::Join(JoinKind::Inner, Box::new(left), Box::new(right), on),
                };
                filter(joined, late)
            }
        });
    }
    filter(plan.unwrap_or_else(Plan::one_row), last)
}

/// Whether a plan gives its rows in this order anyway: those of a scan come in the order of its key or index.
fn is_sorted(plan: &Plan, keys: &[SortKey]) -> bool {
    match plan {
        Plan::Filter(input, _) => is_sorted(input, keys),
        Plan::Project(input, list) => {
            let mut below = keys.to_vec();
            for key in &mut below {
                substitute(&mut key.expr, list);
            }
            is_sorted(input, &below)
        }
        Plan::Scan(scan) if scan.range.any.is_empty() => {
            let table = &scan.table;
            let columns: Vec<(usize, bool, bool)> = match scan.index {
                Some(at) => table.indexes[at]
                    .columns
                    .iter()
                    .filter_map(|c| table.place(c.column).map(|at| (at, c.descending, c.nulls_first)))
                    .collect(),
                None => {
                    table.key_places().unwrap_or_default().into_iter().map(|at| (at, false, false)).collect()
                }
            };
            let fixed = scan.range.equal.len().min(columns.len());
            let (equal, mut order) = (&columns[..fixed], columns[fixed..].iter());
            keys.iter().all(|key| {
                let Expr::Col(col) = &key.expr else { return false };
                let Some((_, place)) = scan.columns.iter().find(|(c, _)| c == col) else { return false };
                // Of columns with one value each, any order is theirs.
                equal.iter().any(|(at, ..)| at == place)
                    || order.next().is_some_and(|(at, descending, nulls_first)| {
                        at == place
                            && *descending == key.descending
                            && (*nulls_first == key.nulls_first || table.columns[*at].not_null)
                    })
            })
        }
        _ => false,
    }
}

/// Whether the first row of a plan is what an aggregate looks for: the minimum in an ascending order, the maximum in a
/// descending one, with NULL behind all others.
fn is_first(plan: &Plan, call: &AggregateCall) -> bool {
    let descending = match call.function {
        Aggregate::Min => false,
        Aggregate::Max => true,
        _ => return false,
    };
    let [expr] = &call.arguments[..] else { return false };
    let key = SortKey { expr: expr.clone(), descending, nulls_first: false };
    call.filter.is_none() && call.order.is_empty() && is_sorted(plan, &[key])
}

/// What looking up a row by a key costs, in rows of a scan.
const LOOKUP_COST: f64 = 12.0;

/// Makes the right side of a join a lookup by its key or an index, once for each of so many left rows, if that looks at
/// fewer rows than reading all of it once; else gives it back as it was, and says false.
fn looked_up(left: f64, right: Plan, on: &[Expr], known: &mut Statistics<'_>) -> (Plan, bool) {
    let (scan, own) = match right {
        Plan::Scan(scan) => (scan, Vec::new()),
        Plan::Filter(input, own) => match *input {
            Plan::Scan(scan) => (scan, own),
            other => return (Plan::Filter(Box::new(other), own), false),
        },
        other => return (other, false),
    };
    let mut all = own.clone();
    all.extend(on.iter().filter(|c| !c.has_subquery() && !c.is_volatile()).cloned());
    let mut lookup = scan.clone();
    choose(&mut lookup, &all);
    lookup.rows = known.estimate(&lookup);
    let fixed = |scan: &ScanPlan| scan.range.equal.len() + usize::from(!scan.range.any.is_empty());
    let better = all.len() == own.len() + on.len()
        && fixed(&lookup) > fixed(&scan)
        && left * (LOOKUP_COST + lookup.rows) < scan.rows;
    if better {
        return (Plan::Filter(Box::new(Plan::Scan(lookup)), all), true);
    }
    let scan = Plan::Scan(scan);
    (if own.is_empty() { scan } else { Plan::Filter(Box::new(scan), own) }, false)
}

/// Values of a list that are looked up one by one; of a longer one, all rows are looked at.
const LISTED_MAX: usize = 256;

/// Takes the key or index whose leading columns the conditions fix or bound best.
fn choose(scan: &mut ScanPlan, conditions: &[Expr]) {
    let own: Vec<Col> = scan.columns.iter().map(|c| c.0).collect();
    let column_at = |place: usize| scan.columns.iter().find(|c| c.1 == place).map(|c| c.0);
    let usable = |e: &Expr| !touches(&own, e) && !e.is_volatile() && !e.has_subquery();
    let compared = |col: Col| {
        conditions.iter().filter_map(move |c| match c {
            Expr::Compare(comparison, a, b) => match (&**a, &**b) {
                (Expr::Col(a), b) if *a == col && usable(b) => Some((*comparison, b.clone())),
                (a, Expr::Col(b)) if *b == col && usable(a) => Some((comparison.flipped(), a.clone())),
                _ => None,
            },
            _ => None,
        })
    };
    // `col IN (…)` and `col = … OR col = …`.
    let listed = |col: Col| {
        conditions.iter().find_map(|c| {
            let of = |e: &Expr| matches!(e, Expr::Col(c) if *c == col);
            let list: Vec<Expr> = match c {
                Expr::InList(left, list) if of(left) => list.clone(),
                Expr::InSet(left, set, _) if of(left) => set.iter().cloned().map(Expr::Const).collect(),
                Expr::Or(branches) => {
                    let value = |branch: &Expr| match branch {
                        Expr::Compare(Comparison::Eq, a, b) if of(a) => Some((**b).clone()),
                        Expr::Compare(Comparison::Eq, a, b) if of(b) => Some((**a).clone()),
                        _ => None,
                    };
                    branches.iter().map(value).collect::<Option<_>>()?
                }
                _ => return None,
            };
            (!list.is_empty() && list.len() <= LISTED_MAX && list.iter().all(usable)).then_some(list)
        })
    };
    let access = |places: &[usize]| {
        let mut access = Access::default();
        for place in places {
            let Some(col) = column_at(*place) else { break };
            if let Some((_, value)) = compared(col).find(|(c, _)| *c == Comparison::Eq) {
                access.equal.push(value);
                continue;
            }
            if let Some(list) = listed(col) {
                access.any = list;
                break;
            }
            for (comparison, value) in compared(col) {
                match comparison {
                    Comparison::Gt | Comparison::Ge if access.low.is_none() => {
                        access.low = Some((value, comparison == Comparison::Ge));
                    }
                    Comparison::Lt | Comparison::Le if access.high.is_none() => {
                        access.high = Some((value, comparison == Comparison::Le));
                    }
                    _ => {}
                }
            }
            break;
        }
        access
    };
    let score = |access: &Access, width: usize, unique: bool, key: bool| {
        let listed = usize::from(!access.any.is_empty());
        let full = unique && access.equal.len() + listed == width;
        let bounds = usize::from(access.low.is_some()) + usize::from(access.high.is_some()) + listed * 2;
        access.equal.len() * 10
            + bounds * 3
            + usize::from(full) * 1000
            + usize::from(key && access.equal.len() + bounds > 0)
    };
    let table = scan.table.clone();
    let mut best = 0;
    if let Some(places) = table.key_places() {
        let found = access(&places);
        best = score(&found, places.len(), true, true);
        scan.range = found;
        scan.index = None;
    }
    // An index leads to the rows that hold.
    let indexes = if scan.versions { &[][..] } else { &table.indexes[..] };
    for (at, index) in indexes.iter().enumerate() {
        let places: Vec<usize> = index.columns.iter().filter_map(|c| table.place(c.column)).collect();
        let found = access(&places);
        let points = score(&found, places.len(), index.unique, false);
        if points > best {
            best = points;
            scan.range = found;
            scan.index = Some(at);
        }
    }
}
