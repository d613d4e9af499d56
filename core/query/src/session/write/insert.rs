//! INSERT, with ON CONFLICT.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kimberlite_row::schema::{ColumnId, Identity};
use kimberlite_row::{SqlError, SqlState, Table};
use sqlparser::ast;

use super::{
    Conflict, ConflictUpdate, Kind, WritePlan, assign, assignments, default_of, is_default, own_columns,
    place, returning, rules, target,
};
use crate::bind::{Binder, Typed, bare, folded, last_part, unsupported};
use crate::exec::{LateQuery, compile_late};
use crate::expr::{Col, Expr};
use crate::plan::Plan;

/// Binds INSERT.
#[allow(clippy::too_many_lines, reason = "the parts of INSERT, in order")]
pub(super) fn insert(binder: &mut Binder<'_>, insert: &ast::Insert) -> Result<WritePlan, SqlError> {
    let ast::TableObject::TableName(name) = &insert.table else { return Err(unsupported("this target")) };
    let table = target(binder, name)?;
    let places: Vec<usize> = if insert.columns.is_empty() {
        (0..table.columns.len()).collect()
    } else {
        let mut places = Vec::new();
        for column in &insert.columns {
            let at = place(&table, &last_part(column))?;
            if places.contains(&at) {
                return Err(SqlError::new(
                    SqlState::DuplicateColumn,
                    format!("column \"{}\" specified more than once", table.columns[at].name),
                ));
            }
            places.push(at);
        }
        places
    };
    let defaults =
        (0..table.columns.len()).map(|at| default_of(binder, &table, at)).collect::<Result<Vec<_>, _>>()?;
    let overriding = insert.overriding.is_some();
    let given = |at: usize| -> Result<(), SqlError> {
        let column = &table.columns[at];
        if column.generated.is_some() || column.identity == Some(Identity::Always) && !overriding {
            return Err(SqlError::new(
                SqlState::GeneratedAlways,
                format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name),
            )
            .hint("Use OVERRIDING SYSTEM VALUE to override."));
        }
        Ok(())
    };
    let too_many = || SqlError::new(SqlState::SyntaxError, "INSERT has more expressions than target columns");
    let few = |count: usize| !insert.columns.is_empty() && count < places.len();
    let too_few = || SqlError::new(SqlState::SyntaxError, "INSERT has more target columns than expressions");
    let cols: Vec<Col> = table.columns.iter().map(|_| binder.col()).collect();
    let plan = match insert.source.as_deref() {
        None => Plan::Values([defaults].into(), cols.clone()),
        Some(ast::Query { body, with: None, order_by: None, limit_clause: None, fetch: None, .. })
            if matches!(**body, ast::SetExpr::Values(_)) =>
        {
            let ast::SetExpr::Values(values) = &**body else { return Err(unsupported("this source")) };
            let mut rows = Vec::new();
            let width = values.rows.first().map_or(0, |r| r.content.len());
            for row in &values.rows {
                if row.content.len() != width {
                    return Err(SqlError::new(
                        SqlState::SyntaxError,
                        "VALUES lists must all be the same length",
                    ));
                }
                if row.content.len() > places.len() {
                    return Err(too_many());
                }
                if few(row.content.len()) {
                    return Err(too_few());
                }
                let mut full = defaults.clone();
                for (cell, at) in row.content.iter().zip(&places) {
                    if is_default(cell) {
                        continue;
                    }
                    given(*at)?;
                    let typed = binder.expr(cell)?;
                    full[*at] = assign(binder, typed, &table, *at)?;
                }
                rows.push(full);
            }
            Plan::Values(rows, cols.clone())
        }
        Some(query) => {
            let (plan, output) = binder.query(query)?;
            if output.len() > places.len() {
                return Err(too_many());
            }
            if few(output.len()) {
                return Err(too_few());
            }
            let mut full = defaults;
            for ((col, out), at) in plan.columns().into_iter().zip(output).zip(&places) {
                given(*at)?;
                full[*at] = assign(binder, Typed { expr: Expr::Col(col), kind: out.kind }, &table, *at)?;
            }
            Plan::Project(Box::new(plan), full.into_iter().zip(cols.iter().copied()).collect())
        }
    };
    let alias = insert.table_alias.as_ref().map_or_else(|| bare(&table.name), |a| folded(&a.alias));
    let mut late = Vec::new();
    let conflict = match &insert.on {
        None => None,
        Some(ast::OnInsert::OnConflict(on)) => Some(conflict(binder, &table, &alias, on, &mut late)?),
        Some(_) => return Err(unsupported("ON DUPLICATE KEY")),
    };
    let (mut visible, layout) = own_columns(binder, &table, &alias);
    visible.iter_mut().zip(&layout).for_each(|(v, c)| v.col = *c);
    let (returning, output) = returning(binder, insert.returning.as_ref(), visible, &layout, &mut late)?;
    let (checks, generated) = rules(binder, &table)?;
    Ok(WritePlan {
        source: plan,
        table,
        kind: Kind::Insert(conflict),
        checks,
        generated,
        returning,
        late,
        output,
    })
}

fn conflict(
    binder: &mut Binder<'_>,
    table: &Table,
    alias: &str,
    on: &ast::OnConflict,
    late: &mut Vec<LateQuery>,
) -> Result<Conflict, SqlError> {
    let mut all: Vec<(String, Vec<ColumnId>)> =
        table.primary_key.iter().map(|k| (k.name.clone(), k.columns.clone())).collect();
    for index in table.indexes.iter().filter(|i| i.unique) {
        all.push((index.name.clone(), index.columns.iter().map(|c| c.column).collect()));
    }
    let keys: Vec<Vec<ColumnId>> = match &on.conflict_target {
        None => all.into_iter().map(|k| k.1).collect(),
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            let name = last_part(name);
            all.into_iter().filter(|k| k.0 == name).map(|k| k.1).collect()
        }
        Some(ast::ConflictTarget::Columns { columns, .. }) => {
            let mut wanted = BTreeSet::new();
            for column in columns {
                wanted.insert(table.columns[place(table, &folded(column))?].id);
            }
            all.into_iter()
                .map(|k| k.1)
                .filter(|k| k.iter().copied().collect::<BTreeSet<_>>() == wanted)
                .collect()
        }
    };
    if keys.is_empty() && on.conflict_target.is_some() {
        return Err(SqlError::new(
            SqlState::InvalidColumnReference,
            "there is no unique or exclusion constraint matching the ON CONFLICT specification",
        ));
    }
    let update = match &on.action {
        ast::OnConflictAction::DoNothing => None,
        ast::OnConflictAction::DoUpdate(update) => {
            if on.conflict_target.is_none() {
                return Err(SqlError::new(
                    SqlState::SyntaxError,
                    "ON CONFLICT DO UPDATE requires inference specification or constraint name",
                ));
            }
            let (mut visible, mut layout) = own_columns(binder, table, alias);
            let (mut excluded, more) = own_columns(binder, table, "excluded");
            layout.extend(more);
            // A bare name means the row that is there.
            for column in &mut excluded {
                column.merged = true;
            }
            visible.append(&mut excluded);
            let scope = Binder::scope_of(visible);
            let ((set, condition), _) = binder.within(scope, |binder| {
                let set = assignments(binder, table, &update.assignments)?;
                let condition = match &update.selection {
                    Some(expr) => Some(binder.condition(expr, "WHERE")?),
                    None => None,
                };
                Ok((set, condition))
            })?;
            let mut compiled = Vec::new();
            for (at, mut expr) in set {
                compile_late(&mut expr, &layout, late, &mut binder.slots)?;
                compiled.push((at, expr));
            }
            let condition = match condition {
                Some(mut expr) => {
                    compile_late(&mut expr, &layout, late, &mut binder.slots)?;
                    Some(expr)
                }
                None => None,
            };
            Some(ConflictUpdate { set: compiled, condition })
        }
    };
    Ok(Conflict { keys, update })
}
