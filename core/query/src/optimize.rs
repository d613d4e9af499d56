//! The planner: conditions move down to where their columns are made, inner joins are put in a greedy order along their
//! equalities, EXISTS and IN become semi-joins, scans take the key or index that fits most, columns nobody reads are not
//! carried.
#![allow(clippy::cast_precision_loss, reason = "estimates of rows")]

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use kimberlite_row::Value;

use crate::expr::{Ask, Col, Comparison, Expr};
use crate::plan::{Access, JoinKind, Plan, ScanPlan};

/// Plans a statement. `kept` are columns that are read from outside.
pub fn optimize(plan: Plan) -> Plan {
    let mut plan = improve(plan);
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
    plan.expressions_mut(&mut |e| each_subquery(e, &mut |plan| prune(plan, read)));
    plan.inputs_mut().into_iter().for_each(|input| prune(input, read));
}

fn improve(mut plan: Plan) -> Plan {
    plan.expressions_mut(&mut |e| {
        each_subquery(e, &mut |plan| {
            let old = core::mem::replace(plan, Plan::one_row());
            *plan = improve(old);
        });
    });
    push(plan, Vec::new())
}

fn improve_inputs(mut plan: Plan) -> Plan {
    for input in plan.inputs_mut() {
        let old = core::mem::replace(input, Plan::one_row());
        *input = improve(old);
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

fn push(plan: Plan, mut conditions: Vec<Expr>) -> Plan {
    match plan {
        Plan::Filter(input, more) => {
            let mut all = Vec::new();
            for condition in more {
                condition.conjuncts(&mut all);
            }
            all.append(&mut conditions);
            let all = all.into_iter().flat_map(factored).collect();
            push(*input, all)
        }
        Plan::Join(JoinKind::Inner, ..) => {
            let (mut relations, mut all) = (Vec::new(), conditions);
            flatten(plan, &mut relations, &mut all);
            order(relations, all)
        }
        Plan::Join(kind @ (JoinKind::Left | JoinKind::Full), left, right, on) => {
            outer_join(kind, *left, *right, on, conditions)
        }
        Plan::Join(kind, left, right, on) => {
            Plan::Join(kind, Box::new(push(*left, conditions)), Box::new(improve(*right)), on)
        }
        Plan::Lateral(left, right, keep, on) => {
            let columns = left.columns();
            let (below, above): (Vec<_>, Vec<_>) =
                conditions.into_iter().partition(|c| covers(&columns, c) && !c.is_volatile());
            filter(Plan::Lateral(Box::new(push(*left, below)), Box::new(improve(*right)), keep, on), above)
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
            filter(Plan::Project(Box::new(push(*input, below)), list), above)
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
            filter(Plan::Aggregate(Box::new(push(*input, below)), groups, calls, sets, grouping), above)
        }
        Plan::Sort(input, keys) => {
            let (below, above): (Vec<_>, Vec<_>) = conditions.into_iter().partition(|c| !c.is_volatile());
            filter(Plan::Sort(Box::new(push(*input, below)), keys), above)
        }
        Plan::With(list, rest) => {
            let list = list.into_iter().map(|(slot, plan, cols)| (slot, improve(plan), cols)).collect();
            Plan::With(list, Box::new(push(*rest, conditions)))
        }
        Plan::Scan(mut scan) => {
            choose(&mut scan, &conditions);
            filter(Plan::Scan(scan), conditions)
        }
        other => filter(improve_inputs(other), conditions),
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

fn outer_join(kind: JoinKind, left: Plan, right: Plan, on: Vec<Expr>, conditions: Vec<Expr>) -> Plan {
    let (left_cols, right_cols) = (left.columns(), right.columns());
    let mut conjuncts = Vec::new();
    for condition in on {
        condition.conjuncts(&mut conjuncts);
    }
    if kind == JoinKind::Full {
        return filter(
            Plan::Join(kind, Box::new(improve(left)), Box::new(improve(right)), conjuncts),
            conditions,
        );
    }
    // A condition that no row of NULLs passes makes the join an inner one.
    if conditions.iter().any(|c| touches(&right_cols, c) && rejects_null(c, &right_cols)) {
        conjuncts.extend(conditions);
        return push(Plan::Join(JoinKind::Inner, Box::new(left), Box::new(right), Vec::new()), conjuncts);
    }
    let (below, above): (Vec<_>, Vec<_>) = conditions
        .into_iter()
        .partition(|c| !touches(&right_cols, c) && touches(&left_cols, c) && !c.is_volatile());
    let (right_only, on): (Vec<_>, Vec<_>) = conjuncts
        .into_iter()
        .partition(|c| !touches(&left_cols, c) && touches(&right_cols, c) && !c.is_volatile());
    filter(Plan::Join(kind, Box::new(push(left, below)), Box::new(push(right, right_only)), on), above)
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
        Plan::Scan(scan) => scan_estimate(scan),
        Plan::Filter(input, conditions) => {
            let base = estimate(input);
            let kept: f64 = conditions.iter().map(selectivity).product();
            (base * kept).max(1.0)
        }
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

fn scan_estimate(scan: &ScanPlan) -> f64 {
    let table = &scan.table;
    let unique_width = match scan.index {
        Some(at) => table.indexes[at].unique.then(|| table.indexes[at].columns.len()),
        None => table.primary_key.as_ref().map(|key| key.columns.len()),
    };
    if unique_width == Some(scan.range.equal.len()) { 1.0 } else { 1000.0 }
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
fn order(relations: Vec<Plan>, conditions: Vec<Expr>) -> Plan {
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
        relations.into_iter().zip(own).map(|(relation, own)| Some(push(relation, own))).collect();
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
            Some(left) => filter(Plan::Join(JoinKind::Inner, Box::new(left), Box::new(relation), on), late),
        });
    }
    filter(plan.unwrap_or_else(Plan::one_row), last)
}

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
    let access = |places: &[usize]| {
        let mut access = Access::default();
        for place in places {
            let Some(col) = column_at(*place) else { break };
            if let Some((_, value)) = compared(col).find(|(c, _)| *c == Comparison::Eq) {
                access.equal.push(value);
                continue;
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
        let full = unique && access.equal.len() == width;
        let bounds = usize::from(access.low.is_some()) + usize::from(access.high.is_some());
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
    for (at, index) in table.indexes.iter().enumerate() {
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
