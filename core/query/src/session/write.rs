//! INSERT, UPDATE, DELETE: a program that gives rows, and how they become writes.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::check::{Stop, check, find};
use kimberlite_row::fact::{RowId, Rows, Write, provisional};
use kimberlite_row::schema::{Action, ColumnId, Identity};
use kimberlite_row::{Catalogue, Row, SqlError, SqlState, Table, Type, Value};
use kimberlite_types::LogPosition;
use sqlparser::ast;

use crate::bind::{Binder, Output, Scope, Typed, Visible, folded, last_part, near, unsupported};
use crate::eval::{Scope as Seen, Shared};
use crate::exec::{Program, compile, compile_expression};
use crate::expr::{Col, Expr};
use crate::optimize::optimize;
use crate::plan::Plan;

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
    /// DO UPDATE: places with new values, and the condition, over the row and what was to be inserted.
    update: Option<(Vec<(usize, Expr)>, Option<Expr>)>,
}

/// A bound statement that writes.
#[derive(Debug)]
pub struct WritePlan {
    /// Gives the rows.
    pub program: Arc<Program>,
    /// The table.
    pub table: Arc<Table>,
    kind: Kind,
    checks: Vec<(String, Expr)>,
    generated: Vec<(usize, Expr)>,
    returning: Option<Vec<Expr>>,
    /// Columns of the answer.
    pub output: Vec<Output>,
}

/// What a statement that writes comes to.
#[derive(Debug, Default)]
pub struct Written {
    /// Its writes, with those of cascades.
    pub writes: Vec<Write>,
    /// Rows it counts.
    pub count: u64,
    /// Rows of RETURNING.
    pub rows: Vec<Row>,
    /// Provisional keys given so far.
    pub fresh: u32,
}

fn target(binder: &Binder<'_>, name: &ast::ObjectName) -> Result<Arc<Table>, SqlError> {
    let bare = last_part(name);
    match binder.catalogue.named(&bare) {
        Some(kimberlite_row::Object::Table(table)) => Ok(table.clone()),
        Some(other) => Err(SqlError::new(
            SqlState::WrongObjectType,
            format!("cannot change {} \"{bare}\"", other.kind()),
        )),
        None => {
            let error =
                SqlError::new(SqlState::UndefinedTable, format!("relation \"{bare}\" does not exist"));
            Err(
                match near(
                    &bare,
                    binder.catalogue.objects().map(kimberlite_row::Object::name).collect::<Vec<_>>(),
                ) {
                    Some(near) => error.hint(format!("Perhaps you meant the table \"{near}\".")),
                    None => error,
                },
            )
        }
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
pub fn default_of(binder: &mut Binder<'_>, table: &Table, at: usize) -> Result<Expr, SqlError> {
    let column = &table.columns[at];
    let Some(text) = &column.default else { return Ok(Expr::NULL) };
    let expr = crate::parse::expression(text)?;
    let (typed, _) = binder.within(Scope::default(), |binder| binder.expr(&expr))?;
    binder.coerce(typed, &column.kind, Willing::Assignment)
}

/// Visible columns of a table under new names of the plan.
fn own_columns(binder: &mut Binder<'_>, table: &Table, name: &str) -> (Vec<Visible>, Vec<Col>) {
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
    let (visible, cols) = own_columns(binder, table, &table.name);
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
) -> Result<(Option<Vec<Expr>>, Vec<Output>), SqlError> {
    let Some(list) = list else { return Ok((None, Vec::new())) };
    let (items, _) = binder.within(Binder::scope_of(visible), |binder| binder.returning(list))?;
    let mut exprs = Vec::new();
    let mut output = Vec::new();
    for (name, typed) in items {
        let mut expr = typed.expr;
        compile_expression(&mut expr, layout)?;
        exprs.push(expr);
        output.push(Output { name, kind: typed.kind });
    }
    Ok((Some(exprs), output))
}

fn finish(binder: &mut Binder<'_>, plan: Plan) -> Result<Arc<Program>, SqlError> {
    let plan = optimize(plan);
    let mut slots = binder.slots;
    compile(plan, &mut slots).map(Arc::new)
}

/// Binds INSERT.
pub fn insert(binder: &mut Binder<'_>, insert: &ast::Insert) -> Result<WritePlan, SqlError> {
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
    let alias = insert.table_alias.as_ref().map_or_else(|| table.name.clone(), |a| folded(&a.alias));
    let conflict = match &insert.on {
        None => None,
        Some(ast::OnInsert::OnConflict(on)) => Some(conflict(binder, &table, &alias, on)?),
        Some(_) => return Err(unsupported("ON DUPLICATE KEY")),
    };
    let (mut visible, layout) = own_columns(binder, &table, &alias);
    visible.iter_mut().zip(&layout).for_each(|(v, c)| v.col = *c);
    let (returning, output) = returning(binder, insert.returning.as_ref(), visible, &layout)?;
    let (checks, generated) = rules(binder, &table)?;
    let program = finish(binder, plan)?;
    Ok(WritePlan { program, table, kind: Kind::Insert(conflict), checks, generated, returning, output })
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

fn conflict(
    binder: &mut Binder<'_>,
    table: &Table,
    alias: &str,
    on: &ast::OnConflict,
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
            excluded.iter_mut().for_each(|c| c.merged = true);
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
                compile_expression(&mut expr, &layout)?;
                compiled.push((at, expr));
            }
            let condition = match condition {
                Some(mut expr) => {
                    compile_expression(&mut expr, &layout)?;
                    Some(expr)
                }
                None => None,
            };
            Some((compiled, condition))
        }
    };
    Ok(Conflict { keys, update })
}

fn assignments(
    binder: &mut Binder<'_>,
    table: &Table,
    list: &[ast::Assignment],
) -> Result<Vec<(usize, Expr)>, SqlError> {
    let mut set: Vec<(usize, Expr)> = Vec::new();
    for assignment in list {
        let pairs: Vec<(String, &ast::Expr)> = match (&assignment.target, &assignment.value) {
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
            let at = place(table, &name)?;
            if set.iter().any(|(known, _)| *known == at) {
                return Err(SqlError::new(
                    SqlState::SyntaxError,
                    format!("multiple assignments to same column \"{name}\""),
                ));
            }
            let expr = if is_default(value) {
                default_of(binder, table, at)?
            } else {
                if table.columns[at].generated.is_some()
                    || table.columns[at].identity == Some(Identity::Always)
                {
                    return Err(SqlError::new(
                        SqlState::GeneratedAlways,
                        format!("column \"{name}\" can only be updated to DEFAULT"),
                    ));
                }
                let typed = binder.expr(value)?;
                assign(binder, typed, table, at)?
            };
            set.push((at, expr));
        }
    }
    Ok(set)
}

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
pub fn update(binder: &mut Binder<'_>, update: &ast::Update) -> Result<WritePlan, SqlError> {
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
    let (returning, output) = returning(binder, update.returning.as_ref(), all, &seen)?;
    let (checks, generated) = rules(binder, &table)?;
    let program = finish(binder, plan)?;
    Ok(WritePlan { program, table, kind: Kind::Update(places), checks, generated, returning, output })
}

/// Binds DELETE.
pub fn delete(binder: &mut Binder<'_>, delete: &ast::Delete) -> Result<WritePlan, SqlError> {
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
    let (returning, output) = returning(binder, delete.returning.as_ref(), all, &seen)?;
    let program = finish(binder, plan)?;
    Ok(WritePlan {
        program,
        table,
        kind: Kind::Delete,
        checks: Vec::new(),
        generated: Vec::new(),
        returning,
        output,
    })
}

struct Work<'a> {
    plan: &'a WritePlan,
    catalogue: &'a Catalogue,
    rows: &'a dyn Rows,
    at: LogPosition,
    shared: &'a mut Shared,
    out: Written,
    /// The rows of the target as the statement has left them so far.
    state: BTreeMap<RowId, usize>,
}

fn eval(expr: &Expr, row: &[Value], shared: &mut Shared) -> Result<Value, SqlError> {
    expr.eval(row, &mut Seen { outer: &[], slots: &[], shared })
}

fn hidden_of(value: &Value) -> Option<[u8; 16]> {
    match value {
        Value::Bytes(bytes) => <[u8; 16]>::try_from(&bytes[..]).ok(),
        _ => None,
    }
}

/// CHECK constraints of a table, over its rows.
pub fn checks(binder: &mut Binder<'_>, table: &Table) -> Result<Vec<(String, Expr)>, SqlError> {
    rules(binder, table).map(|rules| rules.0)
}

impl WritePlan {
    /// The command tag.
    pub fn tag(&self, count: u64) -> String {
        match self.kind {
            Kind::Insert(_) => format!("INSERT 0 {count}"),
            Kind::Update(_) => format!("UPDATE {count}"),
            Kind::Delete => format!("DELETE {count}"),
        }
    }

    /// Turns the program's rows into writes: reads what conflicts and cascades, checks, changes nothing.
    pub fn writes(
        &self,
        given: &[Row],
        catalogue: &Catalogue,
        rows: &dyn Rows,
        at: LogPosition,
        fresh: u32,
        shared: &mut Shared,
    ) -> Result<Written, Stop> {
        let mut work =
            Work { plan: self, catalogue, rows, at, shared, out: Written::default(), state: BTreeMap::new() };
        work.out.fresh = fresh;
        match &self.kind {
            Kind::Insert(conflict) => {
                for row in given {
                    work.insert(row.clone(), conflict.as_ref())?;
                }
            }
            Kind::Update(places) => work.update(given, places)?,
            Kind::Delete => work.delete(given)?,
        }
        work.cascade()?;
        check(catalogue, &work.out.writes, rows, at)?;
        Ok(work.out)
    }
}

impl Work<'_> {
    fn finish_row(&mut self, row: &mut Row) -> Result<(), SqlError> {
        for (at, expr) in &self.plan.generated {
            row[*at] = eval(expr, row, self.shared)?;
        }
        for (column, value) in self.plan.table.columns.iter().zip(row.iter()) {
            if column.not_null && value.is_null() {
                return Err(SqlError::new(
                    SqlState::NotNullViolation,
                    format!(
                        "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                        column.name, self.plan.table.name
                    ),
                ));
            }
        }
        for (name, expr) in &self.plan.checks {
            if eval(expr, row, self.shared)? == Value::Bool(false) {
                return Err(SqlError::new(
                    SqlState::CheckViolation,
                    format!(
                        "new row for relation \"{}\" violates check constraint \"{name}\"",
                        self.plan.table.name
                    ),
                ));
            }
        }
        Ok(())
    }

    fn give(&mut self, row: &[Value]) -> Result<(), SqlError> {
        self.out.count += 1;
        if let Some(list) = &self.plan.returning {
            let mut out = Vec::with_capacity(list.len());
            for expr in list {
                out.push(eval(expr, row, self.shared)?);
            }
            self.out.rows.push(out);
        }
        Ok(())
    }

    fn put(&mut self, id: RowId, before: Option<Row>, after: Option<Row>) {
        let table = self.plan.table.id;
        self.state.insert(id.clone(), self.out.writes.len());
        self.out.writes.push(Write { table, id, before, after });
    }

    /// The row that has one of these keys already: stored, or written by this statement.
    fn conflicting(&self, row: &Row, conflict: &Conflict) -> Result<Option<(RowId, Row)>, Stop> {
        let table = &self.plan.table;
        for key in &conflict.keys {
            let places = table.places(key);
            let values: Vec<Value> = places.iter().map(|at| row[*at].clone()).collect();
            if values.iter().any(Value::is_null) {
                continue;
            }
            for write in &self.out.writes {
                if let Some(after) = &write.after
                    && places.iter().zip(&values).all(|(at, value)| after[*at] == *value)
                {
                    return Ok(Some((write.id.clone(), after.clone())));
                }
            }
            let mut found = None;
            find(self.rows, self.at, table, key, &values, &mut |id, row| {
                if !self.state.contains_key(&id) {
                    found = Some((id, row.to_vec()));
                }
                found.is_none()
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn insert(&mut self, mut row: Row, conflict: Option<&Conflict>) -> Result<(), Stop> {
        self.finish_row(&mut row)?;
        if let Some(conflict) = conflict
            && let Some((id, old)) = self.conflicting(&row, conflict)?
        {
            let Some((set, condition)) = &conflict.update else { return Ok(()) };
            if self.state.contains_key(&id) {
                return Err(SqlError::new(
                    SqlState::CardinalityViolation,
                    "ON CONFLICT DO UPDATE command cannot affect row a second time",
                )
                .into());
            }
            let both: Row = old.iter().chain(&row).cloned().collect();
            if let Some(condition) = condition
                && eval(condition, &both, self.shared)? != Value::Bool(true)
            {
                return Ok(());
            }
            let mut new = old.clone();
            for (at, expr) in set {
                new[*at] = eval(expr, &both, self.shared)?;
            }
            self.finish_row(&mut new)?;
            self.give(&new)?;
            self.change(id, old, new);
            return Ok(());
        }
        let id = if self.plan.table.primary_key.is_some() {
            RowId::of(&self.plan.table, &row, None)
        } else {
            self.out.fresh += 1;
            RowId::Hidden(provisional(self.out.fresh))
        };
        if let (RowId::Key(key), true) = (&id, self.state.contains_key(&id)) {
            return Err(duplicate(&self.plan.table, key).into());
        }
        self.give(&row)?;
        self.put(id, None, Some(row));
        Ok(())
    }

    /// A changed row; a changed key makes it two writes.
    fn change(&mut self, id: RowId, old: Row, new: Row) {
        let new_id = match &id {
            RowId::Key(_) => RowId::of(&self.plan.table, &new, None),
            RowId::Hidden(_) => id.clone(),
        };
        if new_id == id {
            self.put(id, Some(old), Some(new));
        } else {
            self.put(id, Some(old), None);
            self.put(new_id, None, Some(new));
        }
    }

    fn update(&mut self, given: &[Row], places: &[usize]) -> Result<(), Stop> {
        let width = self.plan.table.columns.len();
        let mut seen = BTreeSet::new();
        let mut inserts: BTreeMap<RowId, Row> = BTreeMap::new();
        for row in given {
            let old: Row = row[..width].to_vec();
            let id = RowId::of(&self.plan.table, &old, hidden_of(&row[width]));
            // A row that several others fit is changed once.
            if !seen.insert(id.clone()) {
                continue;
            }
            let mut new = old.clone();
            let values = &row[row.len() - places.len()..];
            for (at, value) in places.iter().zip(values) {
                new[*at] = value.clone();
            }
            self.finish_row(&mut new)?;
            let others = &row[width + 2..row.len() - places.len()];
            let full: Row = new.iter().chain(others).cloned().collect();
            self.give(&full)?;
            let new_id = match &id {
                RowId::Key(_) => RowId::of(&self.plan.table, &new, None),
                RowId::Hidden(_) => id.clone(),
            };
            if new_id == id {
                self.put(id, Some(old), Some(new));
            } else {
                self.put(id, Some(old), None);
                if let Some(RowId::Key(key)) = inserts.insert(new_id.clone(), new).map(|_| new_id) {
                    return Err(duplicate(&self.plan.table, &key).into());
                }
            }
        }
        // Rows that take a key which another one has left.
        for (id, new) in inserts {
            match self.state.get(&id) {
                Some(at) if self.out.writes[*at].after.is_none() => {
                    let at = *at;
                    self.out.writes[at].after = Some(new);
                }
                Some(_) => {
                    let RowId::Key(key) = &id else { continue };
                    return Err(duplicate(&self.plan.table, key).into());
                }
                None => self.put(id, None, Some(new)),
            }
        }
        Ok(())
    }

    fn delete(&mut self, given: &[Row]) -> Result<(), Stop> {
        let width = self.plan.table.columns.len();
        for row in given {
            let old: Row = row[..width].to_vec();
            let id = RowId::of(&self.plan.table, &old, hidden_of(&row[width]));
            if self.state.contains_key(&id) {
                continue;
            }
            let full: Row = old.iter().chain(&row[width + 2..]).cloned().collect();
            self.give(&full)?;
            self.put(id, Some(old), None);
        }
        Ok(())
    }

    /// Follows foreign keys from rows that go or change their key.
    fn cascade(&mut self) -> Result<(), Stop> {
        let mut known: BTreeSet<(kimberlite_row::ObjectId, RowId)> =
            self.out.writes.iter().map(|w| (w.table, w.id.clone())).collect();
        let mut at = 0;
        while at < self.out.writes.len() {
            let write = self.out.writes[at].clone();
            at += 1;
            let Some(before) = &write.before else { continue };
            let Some(parent) = self.catalogue.table(write.table) else { continue };
            let children: Vec<_> = self
                .catalogue
                .children(write.table)
                .map(|(child, key)| (child.clone(), key.clone()))
                .collect();
            for (child, key) in children {
                let places = parent.places(&key.parent_columns);
                let old: Vec<Value> = places.iter().map(|p| before[*p].clone()).collect();
                let new: Option<Vec<Value>> =
                    write.after.as_ref().map(|row| places.iter().map(|p| row[*p].clone()).collect());
                if new.as_ref() == Some(&old) || old.iter().any(Value::is_null) {
                    continue;
                }
                // A row whose primary key changes is a delete and an insert: it still cascades as an update.
                let moved = new
                    .is_none()
                    .then(|| self.out.writes.iter().find(|w| w.table == write.table && w.before.is_none()))
                    .flatten()
                    .and_then(|w| w.after.as_ref())
                    .filter(|_| matches!(self.plan.kind, Kind::Update(_)))
                    .map(|row| places.iter().map(|p| row[*p].clone()).collect::<Vec<Value>>());
                let new = new.or(moved);
                let action = if new.is_some() { key.on_update } else { key.on_delete };
                if matches!(action, Action::NoAction | Action::Restrict) {
                    continue;
                }
                let mut found = Vec::new();
                find(self.rows, self.at, &child, &key.columns, &old, &mut |id, row| {
                    found.push((id, row.to_vec()));
                    true
                })?;
                let child_places = child.places(&key.columns);
                for (id, row) in found {
                    if !known.insert((child.id, id.clone())) {
                        continue;
                    }
                    let after = match (action, &new) {
                        (Action::Cascade, None) => None,
                        (Action::Cascade, Some(new)) => {
                            let mut changed = row.clone();
                            child_places.iter().zip(new).for_each(|(p, v)| changed[*p] = v.clone());
                            Some(changed)
                        }
                        (Action::SetDefault, _) => {
                            let mut changed = row.clone();
                            for p in &child_places {
                                changed[*p] = constant_default(&child, *p)?;
                            }
                            Some(changed)
                        }
                        _ => {
                            let mut changed = row.clone();
                            child_places.iter().for_each(|p| changed[*p] = Value::Null);
                            Some(changed)
                        }
                    };
                    self.out.writes.push(Write { table: child.id, id, before: Some(row), after });
                }
            }
        }
        Ok(())
    }
}

/// The default of a column, if it is a constant.
fn constant_default(table: &Table, at: usize) -> Result<Value, SqlError> {
    let catalogue = Catalogue::default();
    let mut binder = Binder::new(&catalogue, "", 0);
    match default_of(&mut binder, table, at)? {
        Expr::Const(value) => Ok(value),
        _ => Err(unsupported("ON DELETE SET DEFAULT with a default that is no constant")),
    }
}

fn duplicate(table: &Table, key: &[Value]) -> SqlError {
    let name = table.primary_key.as_ref().map_or("", |k| k.name.as_str());
    let shown: Vec<String> = key
        .iter()
        .map(|v| kimberlite_row::text::output(v, &Type::Text).unwrap_or_else(|| "null".into()))
        .collect();
    SqlError::new(
        SqlState::UniqueViolation,
        format!("duplicate key value violates unique constraint \"{name}\""),
    )
    .detail(format!("Key ({}) already exists.", shown.join(", ")))
}
