//! FROM: tables, views, subqueries, functions, joins; the past; the information schema.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::check::Stop;
use kimberlite_row::fact::HISTORY_COLUMNS;
use kimberlite_row::{Catalogue, Object, SqlError, SqlState, Table, Type, Value};
use kimberlite_types::LogPosition;
use sqlparser::ast;

use super::call::table_function;
use super::query::known_type;
use super::{
    Binder, NO_SCHEMA, Scope, Typed, Visible, bare, folded, has_schema, last_part, near, parts, row_name,
    split, unsupported,
};
use crate::dialect::{AS_OF_POSITION, AS_OF_TIME, HISTORY_OF};
use crate::expr::{Col, Comparison, Expr};
use crate::plan::{Access, JoinKind, Plan, STREAM_COLUMNS, ScanPlan, StreamPlan};

/// Answers what the past was like. A miss inside is kept by whoever answers, and the statement is bound again.
pub trait TimeTravel {
    /// The schema at a position, and the position's time; refuses positions in the future or below what is kept.
    fn at_position(&self, position: u64) -> Result<(LogPosition, Arc<Catalogue>, i64), Stop>;
    /// The schema at a time (microseconds since 1970), with the position.
    fn at_time(&self, micros: i64) -> Result<(LogPosition, Arc<Catalogue>, i64), Stop>;
}

/// A snapshot of the past.
#[derive(Clone, Debug)]
pub(super) struct Past {
    at: LogPosition,
    catalogue: Arc<Catalogue>,
    /// What `now()` was.
    time: i64,
}

/// Whether a subquery in these conditions looks at one of these columns.
fn asks_of(conditions: &[Expr], columns: &[Col]) -> bool {
    let mut asks = false;
    for condition in conditions {
        condition.any(&mut |part| {
            if let Expr::Subquery(_, plan) = part {
                plan.free_columns(&mut |col| asks |= columns.contains(&col));
            }
            asks
        });
    }
    asks
}

/// Whether the conditions of a full join have an equality of its sides among them, or are no conditions.
fn joinable(on: &[Expr], (left, right): &(Vec<Col>, Vec<Col>)) -> bool {
    let of = |expr: &Expr, columns: &[Col], others: &[Col]| {
        let (mut some, mut all) = (false, true);
        expr.columns(&mut |col| {
            some |= columns.contains(&col);
            all &= !others.contains(&col);
        });
        some && all
    };
    let constant = on.iter().all(|condition| matches!(condition, Expr::Const(_)));
    constant
        || on.iter().any(|condition| match condition {
            Expr::Compare(Comparison::Eq, a, b) => {
                of(a, left, right) && of(b, right, left) || of(a, right, left) && of(b, left, right)
            }
            _ => false,
        })
}

/// The version that a query in WITH stands for.
fn version_of(with: &ast::With) -> Option<ast::TableVersion> {
    let first = with.cte_tables.first()?;
    let ast::SetExpr::Select(select) = &*first.query.body else { return None };
    let [ast::SelectItem::UnnamedExpr(value)] = &select.projection[..] else { return None };
    match first.alias.name.value.as_str() {
        AS_OF_TIME => Some(ast::TableVersion::ForSystemTimeAsOf(value.clone())),
        AS_OF_POSITION => Some(ast::TableVersion::VersionAsOf(value.clone())),
        _ => None,
    }
}

impl Binder<'_> {
    /// The FROM clause: comma-separated tables are joined without a condition.
    #[allow(clippy::wrong_self_convention, reason = "FROM is a clause here")]
    pub(super) fn from_list(
        &mut self,
        from: &[ast::TableWithJoins],
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        let mut all: Option<(Plan, Vec<Visible>)> = None;
        for item in from {
            let left = all.as_ref().map_or(&[][..], |(_, columns)| columns);
            let (plan, columns) = self.joins(item, left)?;
            all = Some(match all {
                None => (plan, columns),
                Some((left, mut known)) => {
                    Self::check_names(&known, &columns)?;
                    known.extend(columns);
                    (Self::pair(left, plan, JoinKind::Inner, Vec::new()), known)
                }
            });
        }
        Ok(all.unwrap_or_else(|| (Plan::one_row(), Vec::new())))
    }

    fn check_names(known: &[Visible], new: &[Visible]) -> Result<(), SqlError> {
        for column in new {
            if let Some(table) = &column.table
                && known.iter().any(|c| c.table.as_ref() == Some(table))
            {
                return Err(SqlError::new(
                    SqlState::DuplicateAlias,
                    format!("table name \"{table}\" specified more than once"),
                ));
            }
        }
        Ok(())
    }

    /// A join; a right side that looks at the left one is run once per left row.
    fn pair(left: Plan, right: Plan, kind: JoinKind, on: Vec<Expr>) -> Plan {
        let columns = left.columns();
        if kind == JoinKind::Left && asks_of(&on, &[&columns[..], &right.columns()].concat()) {
            // What is asked for each pair of rows: the right side is filtered for each left row.
            let right = Plan::Filter(Box::new(right), on);
            return Plan::Lateral(Box::new(left), Box::new(right), true, Vec::new());
        }
        let mut tied = false;
        right.free_columns(&mut |c| tied |= columns.contains(&c));
        if tied && matches!(kind, JoinKind::Inner | JoinKind::Left) {
            return Plan::Lateral(Box::new(left), Box::new(right), kind == JoinKind::Left, on);
        }
        Plan::Join(kind, Box::new(left), Box::new(right), on)
    }

    fn joins(
        &mut self,
        item: &ast::TableWithJoins,
        lateral: &[Visible],
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        use ast::JoinOperator as J;

        let (mut plan, mut columns) = self.factor(&item.relation, lateral)?;
        for join in &item.joins {
            let in_sight: Vec<Visible> = lateral.iter().chain(&columns).cloned().collect();
            let (right, right_columns) = self.factor(&join.relation, &in_sight)?;
            let (kind, constraint) = match &join.join_operator {
                J::Join(c) | J::Inner(c) | J::CrossJoin(c) => (JoinKind::Inner, c),
                J::Left(c) | J::LeftOuter(c) => (JoinKind::Left, c),
                J::FullOuter(c) => (JoinKind::Full, c),
                J::Right(c) | J::RightOuter(c) => {
                    // A right join is a left join seen from the other side; names keep their order.
                    let (on, columns_new) =
                        self.constraint(c, columns, right_columns, JoinKind::Left, true)?;
                    columns = columns_new;
                    plan = Self::pair(right, plan, JoinKind::Left, on);
                    continue;
                }
                _ => return Err(unsupported("this kind of join")),
            };
            let sides = (plan.columns(), right.columns());
            let (on, all) = self.constraint(constraint, columns, right_columns, kind, false)?;
            if kind == JoinKind::Full && !joinable(&on, &sides) {
                let message =
                    "FULL JOIN is only supported with merge-joinable or hash-joinable join conditions";
                return Err(SqlError::new(SqlState::FeatureNotSupported, message)
                    .hint("One condition must be an equality of both sides."));
            }
            columns = all;
            plan = Self::pair(plan, right, kind, on);
        }
        Ok((plan, columns))
    }

    fn constraint(
        &mut self,
        constraint: &ast::JoinConstraint,
        left: Vec<Visible>,
        right: Vec<Visible>,
        kind: JoinKind,
        right_wins: bool,
    ) -> Result<(Vec<Expr>, Vec<Visible>), SqlError> {
        Self::check_names(&left, &right)?;
        let mut together = None;
        let names: Vec<String> = match constraint {
            ast::JoinConstraint::On(condition) => {
                let columns: Vec<Visible> = left.into_iter().chain(right).collect();
                let scope =
                    Scope { columns, aggregates_allowed: Some("JOIN conditions"), ..Scope::default() };
                let (on, scope) = self.within(scope, |binder| binder.condition(condition, "JOIN/ON"))?;
                let mut list = Vec::new();
                on.conjuncts(&mut list);
                return Ok((list, scope.columns));
            }
            ast::JoinConstraint::None => return Ok((Vec::new(), left.into_iter().chain(right).collect())),
            ast::JoinConstraint::Using(names) => names.iter().map(last_part).collect(),
            ast::JoinConstraint::Natural => left
                .iter()
                .filter(|l| !l.merged && right.iter().any(|r| r.name == l.name && !r.merged))
                .map(|l| l.name.clone())
                .collect(),
            ast::JoinConstraint::UsingAlias(names, alias) => {
                together = Some(folded(alias));
                names.iter().map(last_part).collect()
            }
        };
        let (mut left, mut right) = (left, right);
        let mut on = Vec::new();
        let mut first = Vec::new();
        for name in names {
            let missing = || {
                SqlError::new(
                    SqlState::UndefinedColumn,
                    format!(
                        "column \"{name}\" specified in USING clause does not exist in one of the tables"
                    ),
                )
            };
            for (side, columns) in [("left", &left), ("right", &right)] {
                if columns.iter().filter(|c| c.name == name && !c.merged).count() > 1 {
                    return Err(SqlError::new(
                        SqlState::AmbiguousColumn,
                        format!("common column name \"{name}\" appears more than once in {side} table"),
                    ));
                }
            }
            let l = left.iter().position(|c| c.name == name && !c.merged).ok_or_else(missing)?;
            let r = right.iter().position(|c| c.name == name && !c.merged).ok_or_else(missing)?;
            let (a, b) = (left[l].clone(), right[r].clone());
            let typed = |c: &Visible| Typed {
                expr: c.both.as_ref().map_or(Expr::Col(c.col), |both| (**both).clone()),
                kind: c.kind.clone(),
            };
            on.push(self.compare(Comparison::Eq, typed(&a), typed(&b))?);
            left[l].merged = true;
            right[r].merged = true;
            // The merged column comes first and belongs to no table.
            let source = if right_wins { &b } else { &a };
            let both = match kind {
                JoinKind::Full => Some(Box::new(Expr::Coalesce([typed(&a).expr, typed(&b).expr].into()))),
                _ => source.both.clone(),
            };
            first.push(Visible {
                table: None,
                name,
                col: source.col,
                kind: source.kind.clone(),
                merged: false,
                key: None,
                both,
            });
        }
        // Under the alias they are seen by their names alone, and `*` shows them once.
        let aliased: Vec<Visible> = together
            .iter()
            .flat_map(|alias| {
                first.iter().map(|column| Visible {
                    table: Some(alias.clone()),
                    merged: true,
                    ..column.clone()
                })
            })
            .collect();
        first.extend(left);
        first.extend(right);
        Self::check_names(&first, &aliased)?;
        first.extend(aliased);
        Ok((on, first))
    }

    fn factor(
        &mut self,
        factor: &ast::TableFactor,
        lateral: &[Visible],
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        match factor {
            ast::TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
                self.function_factor(name, &args.args, alias.as_ref(), *with_ordinality, lateral)
            }
            ast::TableFactor::Function { name, args, alias, with_ordinality, .. } => {
                self.function_factor(name, args, alias.as_ref(), *with_ordinality, lateral)
            }
            ast::TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
                let args: Vec<ast::FunctionArg> = array_exprs
                    .iter()
                    .map(|e| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e.clone())))
                    .collect();
                let name = ast::ObjectName::from([ast::Ident::new("unnest")].to_vec());
                self.function_factor(&name, &args, alias.as_ref(), *with_ordinality, lateral)
            }
            ast::TableFactor::Table { name, alias, version, .. } => {
                self.named(name, alias.as_ref(), version.as_ref())
            }
            ast::TableFactor::Derived { lateral: is_lateral, subquery, alias, .. } => {
                let columns = if *is_lateral { lateral.to_vec() } else { Vec::new() };
                let aggregates_allowed = Some("FROM clause of their own query level");
                let scope = Scope { columns, aggregates_allowed, ..Scope::default() };
                let ((plan, output), _) = self.within(scope, |binder| binder.subplan(subquery))?;
                let cols = plan.columns();
                let columns =
                    output.into_iter().zip(cols).map(|(o, col)| (o.name, known_type(&o.kind), col)).collect();
                let visible = aliased(None, columns, alias.as_ref())?;
                Ok((plan, visible))
            }
            ast::TableFactor::NestedJoin { table_with_joins, alias } => {
                let (plan, mut columns) = self.joins(table_with_joins, lateral)?;
                if let Some(alias) = alias {
                    let list =
                        columns.drain(..).filter(|c| !c.merged).map(|c| (c.name, c.kind, c.col)).collect();
                    columns = aliased(None, list, Some(alias))?;
                }
                Ok((plan, columns))
            }
            _ => Err(unsupported("this table expression")),
        }
    }

    fn function_factor(
        &mut self,
        name: &ast::ObjectName,
        args: &[ast::FunctionArg],
        alias: Option<&ast::TableAlias>,
        ordinality: bool,
        lateral: &[Visible],
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        let name = last_part(name);
        let aggregates_allowed = Some("functions in FROM");
        let scope = Scope { columns: lateral.to_vec(), aggregates_allowed, ..Scope::default() };
        let (typed, _) = self.within(scope, |binder| {
            let mut typed = Vec::new();
            for arg in args {
                match arg {
                    ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => {
                        typed.push(binder.expr(expr)?);
                    }
                    _ => return Err(unsupported("this form of argument")),
                }
            }
            Ok(typed)
        })?;
        if name == "stream" {
            return self.stream(typed, alias, ordinality);
        }
        let Some(function) = table_function(&name) else {
            // A scalar function gives one row.
            let one = self.apply_function(&name, typed)?;
            let col = self.col();
            let plan = Plan::Values([[one.expr].into()].into(), [col].into());
            return Ok((plan, aliased(Some(&name), [(name.clone(), one.kind, col)].into(), alias)?));
        };
        let (args, columns) = self.table_arguments(&function, &name, typed)?;
        let single = columns.len() == 1;
        let mut columns: Vec<(String, Type, Col)> =
            columns.into_iter().map(|(name, kind)| (name, kind, self.col())).collect();
        let cols = columns.iter().map(|c| c.2).collect();
        let ordinal = ordinality.then(|| self.col());
        if let Some(col) = ordinal {
            columns.push(("ordinality".to_string(), Type::BigInt, col));
        }
        // A function of one column gives its alias to the column, too.
        if let (true, Some(alias)) = (single, alias)
            && alias.columns.is_empty()
        {
            columns[0].0 = folded(&alias.name);
        }
        Ok((Plan::Function(function, args, cols, ordinal), aliased(Some(&name), columns, alias)?))
    }

    /// `stream('visits')`: the records of a stream of the log.
    fn stream(
        &mut self,
        arguments: Vec<Typed>,
        alias: Option<&ast::TableAlias>,
        ordinality: bool,
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        let Ok([name]) = <[Typed; 1]>::try_from(arguments) else {
            let message = "stream takes one argument, the name of a stream";
            return Err(
                SqlError::new(SqlState::UndefinedFunction, message).hint("For example stream('visits').")
            );
        };
        if ordinality {
            return Err(unsupported("WITH ORDINALITY of a stream").hint("Its offset counts its records."));
        }
        let name = self.coerce(name, &Type::Text, Willing::Implicit)?;
        let columns: Vec<(Col, usize)> = (0..STREAM_COLUMNS.len()).map(|at| (self.col(), at)).collect();
        let list = STREAM_COLUMNS.iter().zip(&columns);
        let list = list.map(|((name, kind), (col, _))| ((*name).to_string(), kind.clone(), *col)).collect();
        let visible = aliased(Some("stream"), list, alias)?;
        let at = self.statement_at.as_ref().map(|past| past.at);
        let plan = StreamPlan { name, columns, at, low: None, high: None };
        Ok((Plan::Stream(Box::new(plan)), visible))
    }

    /// A miss is kept for whoever runs the binder.
    fn stopped<T>(&mut self, result: Result<T, Stop>) -> Result<T, SqlError> {
        result.map_err(|stop| match stop {
            Stop::Refused(error) => error,
            Stop::Miss(miss) => {
                self.missed = Some(miss);
                SqlError::new(SqlState::FeatureNotSupported, "pages are missing")
            }
        })
    }

    /// Binds, and tells a miss from a refusal.
    pub fn bound<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, Stop> {
        let result = run(self);
        match self.missed.take() {
            Some(miss) => Err(Stop::Miss(miss)),
            None => result.map_err(Stop::Refused),
        }
    }

    fn past(&mut self, version: &ast::TableVersion) -> Result<Past, SqlError> {
        let Some(travel) = self.travel else { return Err(unsupported("reading the past here")) };
        let constant = |binder: &mut Self, expr: &ast::Expr, kind: &Type| -> Result<Value, SqlError> {
            let saved = core::mem::take(&mut binder.scopes);
            let typed = binder.expr(expr);
            binder.scopes = saved;
            let typed = typed.map_err(|_| SqlError::new(SqlState::SyntaxError, "AS OF takes a constant"))?;
            let value = binder.coerce(typed, kind, Willing::Explicit)?;
            match value {
                Expr::Const(value) if !value.is_null() => Ok(value),
                _ => Err(SqlError::new(SqlState::SyntaxError, "AS OF takes a constant")),
            }
        };
        let (at, catalogue, time) = match version {
            ast::TableVersion::ForSystemTimeAsOf(expr) | ast::TableVersion::TimestampAsOf(expr) => {
                match constant(self, expr, &Type::TimestampTz)? {
                    Value::TimestampTz(micros) => self.stopped(travel.at_time(micros))?,
                    _ => return Err(SqlError::new(SqlState::SyntaxError, "AS OF takes a timestamp")),
                }
            }
            ast::TableVersion::VersionAsOf(expr) => match constant(self, expr, &Type::BigInt)? {
                Value::Int(n) if n >= 0 => self.stopped(travel.at_position(n.cast_unsigned()))?,
                _ => {
                    return Err(SqlError::new(SqlState::InvalidParameterValue, "a position is not negative"));
                }
            },
            _ => return Err(unsupported("this form of AS OF")),
        };
        self.past = true;
        Ok(Past { at, catalogue, time })
    }

    /// Binds a query, all of it at a position or time of the past if it says so in WITH; there `now()` is what it was.
    pub(super) fn travelled<T>(
        &mut self,
        query: &ast::Query,
        run: impl FnOnce(&mut Self, Option<&ast::With>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let Some((with, version)) = query.with.as_ref().and_then(|with| Some((with, version_of(with)?)))
        else {
            return run(self, query.with.as_ref());
        };
        let past = self.past(&version)?;
        let saved = self.statement_at.replace(past);
        let mut with = with.clone();
        with.cte_tables.remove(0);
        let result = run(self, Some(&with).filter(|with| !with.cte_tables.is_empty()));
        self.statement_at = saved;
        result
    }

    /// The time of the transaction, or of the past that is asked of.
    pub(super) fn now(&self) -> Expr {
        match &self.statement_at {
            Some(past) => Expr::Const(Value::TimestampTz(past.time)),
            None => Expr::Now,
        }
    }

    fn named(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<&ast::TableAlias>,
        version: Option<&ast::TableVersion>,
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        let all = parts(name);
        let bare = all.last().cloned().unwrap_or_default();
        let schema = (all.len() > 1).then(|| all[all.len() - 2].clone());
        if all.first().is_some_and(|first| first == HISTORY_OF) {
            let of = ast::ObjectName(name.0[1..].to_vec());
            return self.history(&of, &row_name(&of)?, alias, version);
        }
        if schema.is_none()
            && let Some((plan, columns)) = self.cte_plan(&bare)
        {
            return Ok((plan, aliased(Some(&bare), columns, alias)?));
        }
        if matches!(schema.as_deref(), Some("information_schema" | "pg_catalog")) || bare.starts_with("pg_") {
            let schema = schema.as_deref().unwrap_or("pg_catalog");
            if let Some((plan, columns)) = self.system(schema, &bare) {
                self.whole = true;
                return Ok((plan, aliased(Some(&bare), columns, alias)?));
            }
        }
        let past = match version {
            Some(version) => Some(self.past(version)?),
            None => self.statement_at.clone(),
        };
        let catalogue = past.as_ref().map_or(self.catalogue, |p| &p.catalogue);
        let position = name.0.last().and_then(|p| p.as_ident()).and_then(|i| self.position(i));
        let kept = row_name(name).map_err(|error| error.at(position))?;
        match catalogue.named(&kept) {
            Some(Object::Table(table)) => {
                let table = table.clone();
                self.reads.push(table.id);
                let (plan, visible) = self.scan(&table, past.map(|p| p.at), alias)?;
                Ok((plan, visible))
            }
            Some(Object::View(view)) => {
                let view = view.clone();
                self.reads.push(view.id);
                let query = crate::parse::query(&view.query)?;
                let saved = (
                    core::mem::take(&mut self.scopes),
                    core::mem::take(&mut self.ctes),
                    self.statement_at.clone(),
                );
                if let Some(past) = past {
                    self.statement_at = Some(past);
                }
                let bound = self.subplan(&query);
                (self.scopes, self.ctes, self.statement_at) = saved;
                let (plan, output) = bound?;
                let cols = plan.columns();
                let columns = output
                    .into_iter()
                    .zip(cols)
                    .enumerate()
                    .map(|(at, (o, col))| {
                        (view.columns.get(at).unwrap_or(&o.name).clone(), known_type(&o.kind), col)
                    })
                    .collect();
                Ok((plan, aliased(Some(&bare), columns, alias)?))
            }
            Some(Object::Sequence(sequence)) => {
                self.whole = true;
                let cols = [self.col(), self.col()];
                let row = [
                    Expr::Const(Value::Int(sequence.last.unwrap_or(sequence.start))),
                    Expr::Const(Value::Bool(sequence.last.is_some())),
                ];
                let columns = [
                    ("last_value".to_string(), Type::BigInt, cols[0]),
                    ("is_called".to_string(), Type::Bool, cols[1]),
                ];
                Ok((
                    Plan::Values([row.into()].into(), cols.into()),
                    aliased(Some(&bare), columns.into(), alias)?,
                ))
            }
            Some(Object::Schema(_) | Object::Function(_)) | None => {
                Err(unknown(&kept, catalogue).at(position))
            }
        }
    }

    /// `HISTORY OF t`: every version of the rows of a table, with when and by what it began and ended.
    fn history(
        &mut self,
        name: &ast::ObjectName,
        kept: &str,
        alias: Option<&ast::TableAlias>,
        version: Option<&ast::TableVersion>,
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        let past = match version {
            Some(version) => Some(self.past(version)?),
            None => self.statement_at.clone(),
        };
        let catalogue = past.as_ref().map_or(self.catalogue, |past| &past.catalogue);
        let position = name.0.last().and_then(|part| part.as_ident()).and_then(|ident| self.position(ident));
        let table = match catalogue.named(kept) {
            Some(Object::Table(table)) => table.clone(),
            Some(_) => {
                let message = format!("\"{kept}\" is not a table");
                return Err(SqlError::new(SqlState::WrongObjectType, message)
                    .hint("Only the rows of tables have a history.")
                    .at(position));
            }
            None => {
                return Err(unknown(kept, catalogue)
                    .hint("The history of a table that was dropped is asked AT POSITION or AS OF TIMESTAMP.")
                    .at(position));
            }
        };
        self.reads.push(table.id);
        let (mut plan, mut visible) = self.scan(&table, past.map(|past| past.at), alias)?;
        let names = table.columns.iter().map(|column| column.name.clone());
        let names = names.chain(HISTORY_COLUMNS.iter().map(|(name, _)| (*name).to_string()));
        let kinds = table.columns.iter().map(|column| column.kind.clone());
        let kinds = kinds.chain(HISTORY_COLUMNS.iter().map(|(_, kind)| kind.clone()));
        if let Plan::Scan(scan) = &mut plan {
            scan.versions = true;
            let more = table.columns.len()..table.columns.len() + HISTORY_COLUMNS.len();
            scan.columns.extend(more.map(|at| (self.col(), at)));
            // A key has many versions: no column follows from it.
            let columns = scan.columns.iter().map(|(col, _)| *col);
            let list = names.zip(kinds).zip(columns).map(|((name, kind), col)| (name, kind, col)).collect();
            visible = aliased(Some(&bare(&table.name)), list, alias)?;
        }
        Ok((plan, visible))
    }

    /// A scan of a table.
    pub fn scan(
        &mut self,
        table: &Arc<Table>,
        at: Option<LogPosition>,
        alias: Option<&ast::TableAlias>,
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        let columns: Vec<(Col, usize)> = (0..table.columns.len()).map(|at| (self.col(), at)).collect();
        let list = table
            .columns
            .iter()
            .zip(&columns)
            .map(|(c, (col, _))| (c.name.clone(), c.kind.clone(), *col))
            .collect();
        let mut visible = aliased(Some(&bare(&table.name)), list, alias)?;
        if let Some(places) = table.key_places() {
            let key: Arc<Vec<Col>> = Arc::new(places.iter().map(|at| columns[*at].0).collect());
            for column in &mut visible {
                column.key = Some(key.clone());
            }
        }
        let alias = alias.map_or_else(|| bare(&table.name), |a| folded(&a.name));
        let scan = ScanPlan {
            table: table.clone(),
            alias,
            columns,
            identity: None,
            at,
            versions: false,
            index: None,
            range: Access::default(),
            rows: crate::statistics::ROWS_UNKNOWN,
        };
        Ok((Plan::Scan(Box::new(scan)), visible))
    }

    /// Columns in sight for a statement that writes.
    pub fn scope_of(columns: Vec<Visible>) -> Scope {
        Scope { columns, from: true, aggregates_allowed: Some("this statement"), ..Scope::default() }
    }

    /// FROM or USING of a statement that writes, next to its target.
    pub fn beside(
        &mut self,
        target: Plan,
        visible: Vec<Visible>,
        from: &[ast::TableWithJoins],
    ) -> Result<(Plan, Vec<Visible>), SqlError> {
        if from.is_empty() {
            return Ok((target, visible));
        }
        let (plan, columns) = self.from_list(from)?;
        Self::check_names(&visible, &columns)?;
        let mut all = visible;
        all.extend(columns);
        Ok((Plan::Join(JoinKind::Inner, Box::new(target), Box::new(plan), Vec::new()), all))
    }
}

/// No object has this name; perhaps another one was meant.
pub fn unknown(name: &str, catalogue: &Catalogue) -> SqlError {
    let error = SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"));
    if !has_schema(catalogue, &split(name).0) {
        return error.hint(NO_SCHEMA);
    }
    match near(name, catalogue.objects().map(Object::name).collect::<Vec<_>>()) {
        Some(near) => error.hint(format!("Perhaps you meant the table \"{near}\".")),
        None => error,
    }
}

/// Names columns by table and alias.
fn aliased(
    table: Option<&str>,
    columns: Vec<(String, Type, Col)>,
    alias: Option<&ast::TableAlias>,
) -> Result<Vec<Visible>, SqlError> {
    let name = alias.map(|a| folded(&a.name)).or_else(|| table.map(ToString::to_string));
    let names: Vec<String> =
        alias.map_or_else(Vec::new, |a| a.columns.iter().map(|c| folded(&c.name)).collect());
    if names.len() > columns.len() {
        return Err(SqlError::new(
            SqlState::InvalidColumnReference,
            format!(
                "table \"{}\" has {} columns available but {} columns specified",
                name.unwrap_or_default(),
                columns.len(),
                names.len()
            ),
        ));
    }
    Ok(columns
        .into_iter()
        .enumerate()
        .map(|(at, (own, kind, col))| Visible {
            table: name.clone(),
            name: names.get(at).cloned().unwrap_or(own),
            col,
            kind,
            merged: false,
            key: None,
            both: None,
        })
        .collect())
}
