//! GROUP BY: grouping sets, and what may stand beside them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState, Type, Value};
use sqlparser::ast;

use super::select::{Item, place};
use super::{Binder, Scope, folded, unsupported};
use crate::expr::{Arithmetic, Col, Expr};
use crate::limits::GROUPING_MAX;
use crate::plan::{Plan, SortKey};

impl Binder<'_> {
    /// GROUP BY; true if there is one.
    pub(super) fn group_by(
        &mut self,
        clause: &ast::GroupByExpr,
        items: &[Item],
        groups: &mut Vec<(Expr, Type)>,
        sets: &mut Vec<Vec<usize>>,
    ) -> Result<bool, SqlError> {
        let ast::GroupByExpr::Expressions(list, _) = clause else { return Err(unsupported("GROUP BY ALL")) };
        if list.is_empty() {
            return Ok(false);
        }
        self.scope().aggregates_allowed = Some("GROUP BY");
        // Each element gives some sets; all are combined with all.
        let mut product: Vec<Vec<usize>> = [Vec::new()].into();
        for expr in list {
            let element: Vec<Vec<usize>> = match expr {
                ast::Expr::Rollup(parts) => {
                    let places = self.group_parts(parts, items, groups)?;
                    (0..=places.len()).rev().map(|n| places[..n].concat()).collect()
                }
                ast::Expr::Cube(parts) => {
                    let places = self.group_parts(parts, items, groups)?;
                    if places.len() > 10 {
                        return Err(SqlError::new(
                            SqlState::TooManyColumns,
                            "CUBE is limited to 10 elements",
                        ));
                    }
                    (0..1usize << places.len())
                        .rev()
                        .map(|bits| {
                            let chosen = |at: &usize| bits >> (places.len() - 1 - at) & 1 == 1;
                            (0..places.len()).filter(chosen).flat_map(|at| places[at].clone()).collect()
                        })
                        .collect()
                }
                ast::Expr::GroupingSets(parts) => self.group_parts(parts, items, groups)?,
                ast::Expr::Tuple(parts) => {
                    let mut set = Vec::new();
                    for part in parts {
                        set.push(self.group_place(part, items, groups)?);
                    }
                    [set].into()
                }
                other => [[self.group_place(other, items, groups)?].into()].into(),
            };
            product = product
                .iter()
                .flat_map(|set| element.iter().map(move |more| [&set[..], &more[..]].concat()))
                .collect();
            if product.len() > 4096 {
                return Err(SqlError::new(
                    SqlState::ProgramLimitExceeded,
                    "too many grouping sets present (maximum 4096)",
                ));
            }
        }
        self.scope().aggregates_allowed = None;
        *sets = product;
        Ok(true)
    }

    fn group_parts(
        &mut self,
        parts: &[Vec<ast::Expr>],
        items: &[Item],
        groups: &mut Vec<(Expr, Type)>,
    ) -> Result<Vec<Vec<usize>>, SqlError> {
        parts
            .iter()
            .map(|part| {
                part.iter().map(|e| self.group_place(e, items, groups)).collect::<Result<Vec<_>, _>>()
            })
            .collect()
    }

    fn group_place(
        &mut self,
        expr: &ast::Expr,
        items: &[Item],
        groups: &mut Vec<(Expr, Type)>,
    ) -> Result<usize, SqlError> {
        let mut typed = None;
        if let Some(at) = place(expr, items.len(), "GROUP BY")? {
            typed = Some(items[at].typed.clone());
        } else if let ast::Expr::Identifier(ident) = expr {
            // A column of the input wins over an output name.
            let name = folded(ident);
            let input = self.scope().columns.iter().any(|c| c.name == name && !c.merged);
            if !input {
                typed = items.iter().find(|i| i.name == name).map(|i| i.typed.clone());
            }
        }
        let typed = match typed {
            Some(typed) => typed,
            None => self.expr(expr)?,
        };
        let calls: Vec<Col> = self.scope().calls.iter().map(|c| c.1).collect();
        let mut aggregated = false;
        typed.expr.columns(&mut |c| aggregated |= calls.contains(&c));
        if aggregated {
            return Err(SqlError::new(
                SqlState::GroupingError,
                "aggregate functions are not allowed in GROUP BY",
            ));
        }
        if let Some(at) = groups.iter().position(|g| g.0 == typed.expr) {
            return Ok(at);
        }
        groups.push((typed.expr, typed.kind));
        Ok(groups.len() - 1)
    }

    #[allow(clippy::too_many_arguments, reason = "all parts of a SELECT that see groups")]
    pub(super) fn grouped(
        &mut self,
        plan: Plan,
        scope: &mut Scope,
        groups: Vec<(Expr, Type)>,
        mut sets: Vec<Vec<usize>>,
        items: &mut [Item],
        keys: &mut [SortKey],
        distinct_on: &mut [Expr],
        having: &mut Option<Expr>,
    ) -> Result<Plan, SqlError> {
        let mut list: Vec<(Expr, Col)> = groups.into_iter().map(|(expr, _)| (expr, self.col())).collect();
        if sets.is_empty() {
            sets.push(Vec::new());
        }
        // Columns that depend on a primary key that is grouped by go along with it.
        for column in &scope.columns {
            let Some(key) = &column.key else { continue };
            let whole = key.iter().all(|k| list.iter().any(|(e, _)| *e == Expr::Col(*k)));
            if whole && sets.len() == 1 && !list.iter().any(|(e, _)| *e == Expr::Col(column.col)) {
                list.push((Expr::Col(column.col), self.col()));
                sets[0].push(list.len() - 1);
            }
        }
        let grouping = (!scope.groupings.is_empty()).then(|| self.col());
        if grouping.is_some() && list.len() > GROUPING_MAX {
            return Err(SqlError::new(
                SqlState::TooManyColumns,
                format!("GROUPING is limited to {GROUPING_MAX} grouping expressions"),
            ));
        }
        // GROUPING(a, b): the bits of a and b among those of all.
        let mut bits: Vec<(Col, Expr)> = Vec::new();
        for (args, col) in core::mem::take(&mut scope.groupings) {
            let whole = Expr::Col(grouping.unwrap_or(0));
            let mut sum = Expr::Const(Value::Int(0));
            for arg in &args {
                let Some(at) = list.iter().position(|(e, _)| e == arg) else {
                    return Err(SqlError::new(
                        SqlState::GroupingError,
                        "arguments to GROUPING must be grouping expressions of the associated query level",
                    ));
                };
                let place = (list.len() - 1 - at) as u32;
                let op = |op, a: Expr, b: i64| {
                    Expr::Arithmetic(op, Box::new(a), Box::new(Expr::Const(Value::Int(b))), Type::BigInt)
                };
                let bit = op(Arithmetic::Rem, op(Arithmetic::Div, whole.clone(), 1 << place), 2);
                sum = Expr::Arithmetic(
                    Arithmetic::Add,
                    Box::new(op(Arithmetic::Mul, sum, 2)),
                    Box::new(bit),
                    Type::BigInt,
                );
            }
            bits.push((col, sum));
        }
        let calls = core::mem::take(&mut scope.calls);
        let input: Vec<Col> = plan.columns();
        let check = |expr: &mut Expr, scope: &Scope| -> Result<(), SqlError> {
            regroup(expr, &list);
            for (col, sum) in &bits {
                replace_col(expr, *col, sum);
            }
            let mut bad = None;
            expr.columns(&mut |c| {
                if bad.is_none() && input.contains(&c) {
                    bad = Some(c);
                }
            });
            match bad {
                None => Ok(()),
                Some(col) => {
                    let name = scope.columns.iter().find(|c| c.col == col).map_or_else(String::new, |c| {
                        match &c.table {
                            Some(table) => format!("{table}.{}", c.name),
                            None => c.name.clone(),
                        }
                    });
                    Err(SqlError::new(
                        SqlState::GroupingError,
                        format!(
                            "column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function"
                        ),
                    ))
                }
            }
        };
        for item in items.iter_mut() {
            check(&mut item.typed.expr, scope)?;
        }
        for expr in keys.iter_mut().map(|k| &mut k.expr).chain(distinct_on).chain(having) {
            check(expr, scope)?;
        }
        let mut windows = core::mem::take(&mut scope.windows);
        for (call, _) in &mut windows {
            let inner = match &mut call.function {
                crate::plan::WindowFunction::Aggregate(inner) => Some(inner),
                _ => None,
            };
            let aggregate = inner.into_iter().flat_map(|i| i.arguments.iter_mut().chain(&mut i.filter));
            let order = call.order.iter_mut().map(|k| &mut k.expr);
            for expr in call.arguments.iter_mut().chain(&mut call.partition).chain(order).chain(aggregate) {
                check(expr, scope)?;
            }
        }
        scope.windows = windows;
        for (_, args, _) in &mut scope.series {
            for arg in args {
                regroup(arg, &list);
            }
        }
        Ok(Plan::Aggregate(Box::new(plan), list, calls, sets, grouping))
    }
}

/// Replaces what is grouped by with the group's column.
fn regroup(expr: &mut Expr, groups: &[(Expr, Col)]) {
    if let Some((_, col)) = groups.iter().find(|(group, _)| group == expr) {
        *expr = Expr::Col(*col);
        return;
    }
    if let Expr::Subquery(_, plan) = expr {
        regroup_plan(plan, groups);
    }
    expr.parts_mut(&mut |part| regroup(part, groups));
}

/// In a subquery, columns of the grouped query become its group columns.
fn regroup_plan(plan: &mut Plan, groups: &[(Expr, Col)]) {
    plan.expressions_mut(&mut |e| regroup(e, groups));
    for input in plan.inputs_mut() {
        regroup_plan(input, groups);
    }
}

fn replace_col(expr: &mut Expr, col: Col, with: &Expr) {
    if *expr == Expr::Col(col) {
        *expr = with.clone();
        return;
    }
    expr.parts_mut(&mut |part| replace_col(part, col, with));
}
