//! INSERT, UPDATE, DELETE: a program that gives rows, and how they become writes.

mod apply;
mod change;
mod insert;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::schema::{ColumnId, Identity};
use kimberlite_row::{SqlError, SqlState, Table};
use sqlparser::ast;

use crate::bind::{
    Binder, Output, Scope, Typed, Visible, bare, last_part, near, row_name, unknown, unsupported,
};
use crate::exec::{LateQuery, compile_expression, compile_late};
use crate::expr::{Col, Expr};
use crate::plan::Plan;

pub(in crate::session) use apply::Writing;
use change::{delete, update};
use insert::insert;

/// What a bound statement is: the plan of its rows, the columns of its answer, and what is written.
pub(in crate::session) type Bound = (Plan, Vec<Output>, Option<WritePlan>);

/// The statement that writes behind WITH, if the query is one.
pub(in crate::session) fn behind_with(query: &ast::Query) -> Option<&ast::Statement> {
    match &*query.body {
        ast::SetExpr::Insert(inner) | ast::SetExpr::Update(inner) | ast::SetExpr::Delete(inner) => {
            Some(inner)
        }
        _ => None,
    }
}

/// Binds a query or a statement that writes.
pub(in crate::session) fn statement(
    binder: &mut Binder<'_>,
    statement: &ast::Statement,
) -> Result<Bound, SqlError> {
    let plan = match statement {
        ast::Statement::Query(query) => {
            if let Some(inner) = behind_with(query) {
                let ((plan, output, writing), with) =
                    binder.with(query.with.as_ref(), |binder| self::statement(binder, inner))?;
                let plan = if with.is_empty() { plan } else { Plan::With(with, Box::new(plan)) };
                return Ok((plan, output, writing));
            }
            return binder.query(query).map(|(plan, output)| (plan, output, None));
        }
        ast::Statement::Insert(insert) => self::insert(binder, insert)?,
        ast::Statement::Update(update) => self::update(binder, update)?,
        ast::Statement::Delete(delete) => self::delete(binder, delete)?,
        _ => return Err(unsupported("this statement")),
    };
    Ok(plan.taken_apart())
}

/// What happens to each row of the program.
#[derive(Debug)]
enum Kind {
    Insert(Option<Conflict>),
    Update(Vec<usize>),
    Delete,
}

/// ON CONFLICT.
#[derive(Debug)]
struct Conflict {
    /// Columns of the keys that may conflict.
    keys: Vec<Vec<ColumnId>>,
    /// What DO UPDATE does; nothing is done without it.
    update: Option<ConflictUpdate>,
}

/// DO UPDATE, over the row that is there and what was to be inserted.
#[derive(Debug)]
struct ConflictUpdate {
    /// Places with new values.
    set: Vec<(usize, Expr)>,
    condition: Option<Expr>,
}

/// A bound statement that writes.
#[derive(Debug)]
pub(in crate::session) struct WritePlan {
    /// Gives the rows.
    pub source: Plan,
    /// The table.
    pub table: Arc<Table>,
    kind: Kind,
    checks: Vec<(String, Expr)>,
    generated: Vec<(usize, Expr)>,
    returning: Option<Vec<Expr>>,
    /// Subqueries of RETURNING and DO UPDATE.
    pub late: Vec<LateQuery>,
    /// Columns of the answer.
    pub output: Vec<Output>,
}

fn target(binder: &Binder<'_>, name: &ast::ObjectName) -> Result<Arc<Table>, SqlError> {
    let kept = row_name(name)?;
    match binder.catalogue.named(&kept) {
        Some(kimberlite_row::Object::Table(table)) => Ok(table.clone()),
        Some(kimberlite_row::Object::View(_)) => {
            Err(unsupported(format!("writing through the view \"{kept}\""))
                .hint("Write to the table that it reads."))
        }
        Some(other) => Err(SqlError::new(
            SqlState::WrongObjectType,
            format!("cannot change {} \"{kept}\"", other.kind()),
        )),
        None => Err(unknown(&kept, binder.catalogue)),
    }
}

fn place(table: &Table, name: &str) -> Result<usize, SqlError> {
    table.place_of(name).ok_or_else(|| {
        let error = SqlError::new(
            SqlState::UndefinedColumn,
            format!("column \"{name}\" of relation \"{}\" does not exist", table.name),
        );
        match near(name, table.columns.iter().map(|c| c.name.as_str())) {
            Some(near) => error.hint(format!("Perhaps you meant the column \"{near}\".")),
            None => error,
        }
    })
}

fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}

/// The default of a column, as an expression.
pub(in crate::session) fn default_of(
    binder: &mut Binder<'_>,
    table: &Table,
    at: usize,
) -> Result<Expr, SqlError> {
    let column = &table.columns[at];
    let Some(text) = &column.default else { return Ok(Expr::NULL) };
    let expr = crate::parse::expression(text)?;
    let (typed, _) = binder.within(Scope::default(), |binder| binder.expr(&expr))?;
    binder.coerce(typed, &column.kind, Willing::Assignment)
}

/// Visible columns of a table under new names of the plan.
pub(in crate::session) fn own_columns(
    binder: &mut Binder<'_>,
    table: &Table,
    name: &str,
) -> (Vec<Visible>, Vec<Col>) {
    let cols: Vec<Col> = table.columns.iter().map(|_| binder.col()).collect();
    let visible = table
        .columns
        .iter()
        .zip(&cols)
        .map(|(c, col)| Visible {
            table: Some(name.into()),
            name: c.name.clone(),
            col: *col,
            kind: c.kind.clone(),
            merged: false,
            key: None,
            both: None,
        })
        .collect();
    (visible, cols)
}

/// CHECK constraints and generated columns, over the rows of the table.
#[allow(clippy::type_complexity, reason = "two lists of named expressions")]
fn rules(
    binder: &mut Binder<'_>,
    table: &Table,
) -> Result<(Vec<(String, Expr)>, Vec<(usize, Expr)>), SqlError> {
    let (visible, cols) = own_columns(binder, table, &bare(&table.name));
    let mut checks = Vec::new();
    let mut generated = Vec::new();
    for rule in &table.checks {
        let parsed = crate::parse::expression(&rule.expression)?;
        let scope = Binder::scope_of(visible.clone());
        let (mut expr, _) = binder.within(scope, |binder| binder.condition(&parsed, "CHECK"))?;
        compile_expression(&mut expr, &cols)?;
        checks.push((rule.name.clone(), expr));
    }
    for (at, column) in table.columns.iter().enumerate() {
        let Some(text) = &column.generated else { continue };
        let parsed = crate::parse::expression(text)?;
        let scope = Binder::scope_of(visible.clone());
        let (typed, _) = binder.within(scope, |binder| binder.expr(&parsed))?;
        let mut expr = binder.coerce(typed, &column.kind, Willing::Assignment)?;
        compile_expression(&mut expr, &cols)?;
        generated.push((at, expr));
    }
    Ok((checks, generated))
}

fn returning(
    binder: &mut Binder<'_>,
    list: Option<&Vec<ast::SelectItem>>,
    visible: Vec<Visible>,
    layout: &[Col],
    late: &mut Vec<LateQuery>,
) -> Result<(Option<Vec<Expr>>, Vec<Output>), SqlError> {
    let Some(list) = list else { return Ok((None, Vec::new())) };
    let (items, _) = binder.within(Binder::scope_of(visible), |binder| binder.returning(list))?;
    let mut exprs = Vec::new();
    let mut output = Vec::new();
    for (name, typed) in items {
        let mut expr = typed.expr;
        compile_late(&mut expr, layout, late, &mut binder.slots)?;
        exprs.push(expr);
        output.push(Output { name, kind: typed.kind });
    }
    Ok((Some(exprs), output))
}

fn assign(binder: &mut Binder<'_>, typed: Typed, table: &Table, at: usize) -> Result<Expr, SqlError> {
    let column = &table.columns[at];
    let (kind, name) = (typed.kind.clone(), column.name.clone());
    binder.coerce(typed, &column.kind, Willing::Assignment).map_err(|error| {
        if error.state() == SqlState::DatatypeMismatch {
            SqlError::new(
                SqlState::DatatypeMismatch,
                format!(
                    "column \"{name}\" is of type {} but expression is of type {}",
                    column.kind.name(),
                    kind.name()
                ),
            )
            .hint("You will need to rewrite or cast the expression.")
        } else {
            error
        }
    })
}

/// The place of a column that has no assignment yet.
fn open_place(table: &Table, set: &[(usize, Expr)], name: &str) -> Result<usize, SqlError> {
    let at = place(table, name)?;
    if set.iter().any(|(known, _)| *known == at) {
        return Err(SqlError::new(
            SqlState::SyntaxError,
            format!("multiple assignments to same column \"{name}\""),
        ));
    }
    Ok(at)
}

fn settable(table: &Table, at: usize) -> Result<(), SqlError> {
    let column = &table.columns[at];
    if column.generated.is_some() || column.identity == Some(Identity::Always) {
        return Err(SqlError::new(
            SqlState::GeneratedAlways,
            format!("column \"{}\" can only be updated to DEFAULT", column.name),
        ));
    }
    Ok(())
}

/// The values of `ROW(…)`.
fn row_items(expr: &ast::Expr) -> Option<Vec<&ast::Expr>> {
    let ast::Expr::Function(function) = expr else { return None };
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    let items = list.args.iter().map(|arg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    (last_part(&function.name) == "row").then(|| items.collect::<Option<_>>()).flatten()
}

fn assignments(
    binder: &mut Binder<'_>,
    table: &Table,
    list: &[ast::Assignment],
) -> Result<Vec<(usize, Expr)>, SqlError> {
    let mut set: Vec<(usize, Expr)> = Vec::new();
    for assignment in list {
        if let (ast::AssignmentTarget::Tuple(names), ast::Expr::Subquery(query)) =
            (&assignment.target, &assignment.value)
        {
            for (which, name) in names.iter().enumerate() {
                let at = open_place(table, &set, &last_part(name))?;
                settable(table, at)?;
                let typed = binder.one_of(query, which, names.len())?;
                set.push((at, assign(binder, typed, table, at)?));
            }
            continue;
        }
        let row = row_items(&assignment.value);
        let pairs: Vec<(String, &ast::Expr)> = match (&assignment.target, &assignment.value) {
            (ast::AssignmentTarget::Tuple(names), _)
                if row.as_ref().is_some_and(|row| row.len() == names.len()) =>
            {
                names.iter().map(last_part).zip(row.unwrap_or_default()).collect()
            }
            (ast::AssignmentTarget::ColumnName(name), value) => [(last_part(name), value)].into(),
            (ast::AssignmentTarget::Tuple(names), ast::Expr::Tuple(values))
                if names.len() == values.len() =>
            {
                names.iter().map(last_part).zip(values).collect()
            }
            (ast::AssignmentTarget::Tuple(names), value) if names.len() == 1 => {
                [(last_part(&names[0]), value)].into()
            }
            _ => return Err(unsupported("this assignment to several columns")),
        };
        for (name, value) in pairs {
            let at = open_place(table, &set, &name)?;
            let expr = if is_default(value) {
                default_of(binder, table, at)?
            } else {
                settable(table, at)?;
                let typed = binder.expr(value)?;
                assign(binder, typed, table, at)?
            };
            set.push((at, expr));
        }
    }
    Ok(set)
}

/// CHECK constraints of a table, over its rows.
pub(in crate::session) fn checks(
    binder: &mut Binder<'_>,
    table: &Table,
) -> Result<Vec<(String, Expr)>, SqlError> {
    rules(binder, table).map(|rules| rules.0)
}
