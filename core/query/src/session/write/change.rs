//! UPDATE and DELETE.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::{SqlError, Table};
use sqlparser::ast;

use super::{Kind, WritePlan, assignments, returning, rules, target};
use crate::bind::{Binder, Visible, unsupported};
use crate::expr::{Col, Expr};
use crate::plan::Plan;

/// A scan of the target that also gives each row's identity.
fn target_scan(
    binder: &mut Binder<'_>,
    table: &Arc<Table>,
    alias: Option<&ast::TableAlias>,
) -> Result<(Plan, Vec<Visible>, Vec<Col>), SqlError> {
    let (mut plan, visible) = binder.scan(table, None, alias)?;
    let (hidden, version) = (binder.col(), binder.col());
    let mut layout = plan.columns();
    if let Plan::Scan(scan) = &mut plan {
        scan.identity = Some((hidden, version));
    }
    layout.extend([hidden, version]);
    Ok((plan, visible, layout))
}

/// Binds UPDATE.
pub(super) fn update(binder: &mut Binder<'_>, update: &ast::Update) -> Result<WritePlan, SqlError> {
    let ast::TableFactor::Table { name, alias, .. } = &update.table.relation else {
        return Err(unsupported("this target"));
    };
    let table = target(binder, name)?;
    let (scan, visible, layout) = target_scan(binder, &table, alias.as_ref())?;
    let empty = Vec::new();
    let from = match &update.from {
        None => &empty,
        Some(ast::UpdateTableFromKind::BeforeSet(list) | ast::UpdateTableFromKind::AfterSet(list)) => list,
    };
    let (mut plan, all) = binder.beside(scan, visible, from)?;
    let others: Vec<Col> = plan.columns().into_iter().filter(|c| !layout.contains(c)).collect();
    let ((condition, set), _) = binder.within(Binder::scope_of(all.clone()), |binder| {
        let condition = match &update.selection {
            Some(expr) => Some(binder.condition(expr, "WHERE")?),
            None => None,
        };
        Ok((condition, assignments(binder, &table, &update.assignments)?))
    })?;
    if let Some(condition) = condition {
        plan = Plan::Filter(Box::new(plan), [condition].into());
    }
    let mut list: Vec<(Expr, Col)> = Vec::new();
    for col in layout.iter().chain(&others) {
        list.push((Expr::Col(*col), binder.col()));
    }
    let mut places = Vec::new();
    for (at, expr) in set {
        places.push(at);
        list.push((expr, binder.col()));
    }
    let plan = Plan::Project(Box::new(plan), list);
    let mut seen = layout[..table.columns.len()].to_vec();
    seen.extend(&others);
    let mut late = Vec::new();
    let (returning, output) = returning(binder, update.returning.as_ref(), all, &seen, &mut late)?;
    let (checks, generated) = rules(binder, &table)?;
    Ok(WritePlan {
        source: plan,
        table,
        kind: Kind::Update(places),
        checks,
        generated,
        returning,
        late,
        output,
    })
}

/// Binds DELETE.
pub(super) fn delete(binder: &mut Binder<'_>, delete: &ast::Delete) -> Result<WritePlan, SqlError> {
    let (ast::FromTable::WithFromKeyword(list) | ast::FromTable::WithoutKeyword(list)) = &delete.from;
    let [ast::TableWithJoins { relation: ast::TableFactor::Table { name, alias, .. }, joins }] = &list[..]
    else {
        return Err(unsupported("this target"));
    };
    if !joins.is_empty() {
        return Err(unsupported("a join as target"));
    }
    let table = target(binder, name)?;
    let (scan, visible, layout) = target_scan(binder, &table, alias.as_ref())?;
    let (mut plan, all) = binder.beside(scan, visible, delete.using.as_deref().unwrap_or(&[]))?;
    let others: Vec<Col> = plan.columns().into_iter().filter(|c| !layout.contains(c)).collect();
    if let Some(expr) = &delete.selection {
        let (condition, _) =
            binder.within(Binder::scope_of(all.clone()), |binder| binder.condition(expr, "WHERE"))?;
        plan = Plan::Filter(Box::new(plan), [condition].into());
    }
    let list = layout.iter().chain(&others).map(|c| (Expr::Col(*c), binder.col())).collect();
    let plan = Plan::Project(Box::new(plan), list);
    let mut seen = layout[..table.columns.len()].to_vec();
    seen.extend(&others);
    let mut late = Vec::new();
    let (returning, output) = returning(binder, delete.returning.as_ref(), all, &seen, &mut late)?;
    Ok(WritePlan {
        source: plan,
        table,
        kind: Kind::Delete,
        checks: Vec::new(),
        generated: Vec::new(),
        returning,
        late,
        output,
    })
}
