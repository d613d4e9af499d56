//! Queries: set operations, VALUES, common table expressions, ORDER BY and LIMIT around a SELECT.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::{SqlError, SqlState, Type, Value};
use sqlparser::ast;

use super::call::with_options;
use super::select::place;
use super::{Binder, Cte, NamedColumn, Scope, Typed, folded, unsupported};
use crate::expr::{Col, Expr};
use crate::plan::{Plan, SetOp, SortKey};

/// The queries of WITH: slot, plan and columns of each.
type Named = Vec<(usize, Plan, Vec<Col>)>;

/// A column of a result.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Type,
}

impl Binder<'_> {
    /// Binds a query; the plan's columns are those of the result, in order.
    pub fn query(&mut self, query: &ast::Query) -> Result<(Plan, Vec<Output>), SqlError> {
        self.deeper(|binder| binder.query_here(query))
    }

    fn query_here(&mut self, query: &ast::Query) -> Result<(Plan, Vec<Output>), SqlError> {
        self.travelled(query, |binder, with| binder.query_now(query, with))
    }

    fn query_now(
        &mut self,
        query: &ast::Query,
        with: Option<&ast::With>,
    ) -> Result<(Plan, Vec<Output>), SqlError> {
        let ((plan, output), with) = self.with(with, |binder| {
            let order: &[ast::OrderByExpr] = match &query.order_by {
                Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(list), .. }) => list,
                Some(_) => return Err(unsupported("ORDER BY ALL")),
                None => &[],
            };
            let limit = binder.limit(query)?;
            if limit.2 && order.is_empty() {
                let message = "WITH TIES cannot be specified without ORDER BY clause";
                return Err(SqlError::new(SqlState::SyntaxError, message));
            }
            match &*query.body {
                ast::SetExpr::Select(select) => binder.select(select, order, limit),
                body => {
                    let (plan, output) = binder.set_expr(body)?;
                    let keys = binder.output_order(order, &output, &plan.columns())?;
                    Ok((wrap(plan, keys, limit), output))
                }
            }
        })?;
        Ok((if with.is_empty() { plan } else { Plan::With(with, Box::new(plan)) }, output))
    }

    /// Binds what stands behind WITH, with its queries in sight; gives them, too.
    pub fn with<T>(
        &mut self,
        list: Option<&ast::With>,
        run: impl FnOnce(&mut Self) -> Result<T, SqlError>,
    ) -> Result<(T, Named), SqlError> {
        let known = self.ctes.len();
        let mut with = Vec::new();
        let mut failed = Ok(());
        for (at, cte) in list.iter().flat_map(|list| &list.cte_tables).enumerate() {
            let earlier = list.iter().flat_map(|list| &list.cte_tables).take(at);
            if earlier.into_iter().any(|other| folded(&other.alias.name) == folded(&cte.alias.name)) {
                failed = Err(SqlError::new(
                    SqlState::DuplicateAlias,
                    format!("WITH query name \"{}\" specified more than once", folded(&cte.alias.name)),
                ));
                break;
            }
            match self.cte(cte, list.is_some_and(|list| list.recursive)) {
                Ok(cte) => with.push(cte),
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
        }
        let result = failed.and_then(|()| run(self));
        self.ctes.truncate(known);
        Ok((result?, with))
    }

    fn cte(&mut self, cte: &ast::Cte, recursive: bool) -> Result<(usize, Plan, Vec<Col>), SqlError> {
        let name = folded(&cte.alias.name);
        let names: Vec<String> = cte.alias.columns.iter().map(|c| folded(&c.name)).collect();
        let rename = |output: &[Output]| -> Result<Vec<(String, Type)>, SqlError> {
            if names.len() > output.len() {
                return Err(SqlError::new(
                    SqlState::InvalidColumnReference,
                    format!(
                        "table \"{name}\" has {} columns available but {} columns specified",
                        output.len(),
                        names.len()
                    ),
                ));
            }
            Ok(output
                .iter()
                .enumerate()
                .map(|(at, o)| (names.get(at).unwrap_or(&o.name).clone(), known_type(&o.kind)))
                .collect())
        };
        self.slots += 1;
        let slot = self.slots - 1;
        if recursive
            && let ast::SetExpr::SetOperation { op: ast::SetOperator::Union, set_quantifier, left, right } =
                &*cte.query.body
            && mentions(right, &name)
        {
            let limits = match &cte.query.limit_clause {
                Some(ast::LimitClause::LimitOffset { limit, offset, .. }) => {
                    (limit.is_some(), offset.is_some())
                }
                Some(ast::LimitClause::OffsetCommaLimit { .. }) => (true, true),
                None => (cte.query.fetch.is_some(), false),
            };
            let clauses =
                [(cte.query.order_by.is_some(), "ORDER BY"), (limits.1, "OFFSET"), (limits.0, "LIMIT")];
            if let Some((_, clause)) = clauses.iter().find(|(there, _)| *there) {
                return Err(SqlError::new(
                    SqlState::FeatureNotSupported,
                    format!("{clause} in a recursive query is not implemented"),
                )
                .hint("It may stand behind the query that reads it."));
            }
            let (first, first_out) = self.set_expr(left)?;
            let columns = rename(&first_out)?;
            self.slots += 1;
            let working = self.slots - 1;
            let recursive = Some(0);
            self.ctes.push(Cte { name: name.clone(), slot: working, columns: columns.clone(), recursive });
            let (step, step_out) = self.set_expr(right)?;
            if self.ctes.pop().and_then(|cte| cte.recursive).is_some_and(|uses| uses > 1) {
                let message =
                    format!("recursive reference to query \"{name}\" must not appear more than once");
                return Err(SqlError::new(SqlState::InvalidRecursion, message));
            }
            if step_out.len() != columns.len() {
                return Err(SqlError::new(
                    SqlState::SyntaxError,
                    "each UNION query must have the same number of columns",
                ));
            }
            let step_cols = step.columns();
            let mut list = Vec::new();
            for ((col, out), (_, kind)) in step_cols.iter().zip(&step_out).zip(&columns) {
                let typed = Typed { expr: Expr::Col(*col), kind: out.kind.clone() };
                list.push((self.coerce(typed, kind, Willing::Assignment)?, self.col()));
            }
            let step = Plan::Project(Box::new(step), list);
            let cols: Vec<(Col, Col, Col)> =
                first.columns().into_iter().zip(step.columns()).map(|(a, b)| (a, b, self.col())).collect();
            let out: Vec<Col> = cols.iter().map(|c| c.2).collect();
            let distinct = !matches!(set_quantifier, ast::SetQuantifier::All);
            let plan = Plan::Recursive(working, Box::new(first), Box::new(step), distinct, cols);
            self.ctes.push(Cte { name, slot, columns, recursive: None });
            return Ok((slot, plan, out));
        }
        let (plan, output) = self.query(&cte.query)?;
        let columns = rename(&output)?;
        let out = plan.columns();
        self.ctes.push(Cte { name, slot, columns, recursive: None });
        Ok((slot, plan, out))
    }

    /// Brings rows in sight that lie in the next slot.
    pub fn in_sight(&mut self, name: &str, columns: &[Output]) {
        let columns = columns.iter().map(|c| (c.name.clone(), known_type(&c.kind))).collect();
        self.ctes.push(Cte { name: name.to_string(), slot: self.slots, columns, recursive: None });
        self.slots += 1;
    }

    /// The common table expression of that name, as a plan.
    pub(super) fn cte_plan(&mut self, name: &str) -> Option<(Plan, Vec<NamedColumn>)> {
        let cte = self.ctes.iter_mut().rev().find(|c| c.name == name)?;
        cte.recursive = cte.recursive.map(|uses| uses + 1);
        let cte = cte.clone();
        let columns: Vec<(String, Type, Col)> =
            cte.columns.into_iter().map(|(name, kind)| (name, kind, self.col())).collect();
        let plan = Plan::Slot(cte.slot, columns.iter().enumerate().map(|(at, c)| (at, c.2)).collect());
        Some((plan, columns))
    }

    #[allow(clippy::type_complexity, reason = "limit, offset and whether ties count")]
    fn limit(&mut self, query: &ast::Query) -> Result<(Option<Expr>, Option<Expr>, bool), SqlError> {
        let (mut limit, mut offset, mut ties) = (None, None, false);
        match &query.limit_clause {
            Some(ast::LimitClause::LimitOffset { limit: l, offset: o, .. }) => {
                limit = l.as_ref();
                offset = o.as_ref().map(|o| &o.value);
            }
            Some(ast::LimitClause::OffsetCommaLimit { .. }) => {
                return Err(SqlError::new(SqlState::SyntaxError, "LIMIT #,# syntax is not supported")
                    .hint("Use separate LIMIT and OFFSET clauses."));
            }
            None => {}
        }
        let one = ast::Expr::Value(ast::Value::Number("1".to_string(), false).into());
        if let Some(fetch) = &query.fetch {
            limit = Some(fetch.quantity.as_ref().unwrap_or(&one));
            ties = fetch.with_ties;
        }
        let mut bind =
            |expr: Option<&ast::Expr>, what: &str, state: SqlState| -> Result<Option<Expr>, SqlError> {
                let Some(expr) = expr else { return Ok(None) };
                if matches!(expr, ast::Expr::Identifier(i) if i.value.eq_ignore_ascii_case("all")) {
                    return Ok(None);
                }
                // LIMIT sees no column.
                let saved = core::mem::take(&mut self.scopes);
                let scope = Scope { aggregates_allowed: Some("LIMIT"), ..Scope::default() };
                let typed = self.within(scope, |binder| binder.expr(expr));
                self.scopes = saved;
                let (typed, _) = typed?;
                let count = self.coerce(typed, &Type::BigInt, Willing::Assignment)?;
                match count {
                    // Also where no row is there to be counted.
                    Expr::Const(Value::Int(..0)) => {
                        Err(SqlError::new(state, format!("{what} must not be negative")))
                    }
                    count => Ok(Some(count)),
                }
            };
        Ok((
            bind(limit, "LIMIT", SqlState::InvalidLimit)?,
            bind(offset, "OFFSET", SqlState::InvalidOffset)?,
            ties,
        ))
    }

    fn set_expr(&mut self, body: &ast::SetExpr) -> Result<(Plan, Vec<Output>), SqlError> {
        self.deeper(|binder| match body {
            ast::SetExpr::Select(select) => binder.select(select, &[], (None, None, false)),
            ast::SetExpr::Query(query) => binder.query(query),
            ast::SetExpr::Values(values) => binder.values(values),
            ast::SetExpr::SetOperation { op, set_quantifier, left, right } => {
                binder.set_operation(*op, *set_quantifier, left, right)
            }
            ast::SetExpr::Table(table) => {
                let name = table.table_name.as_ref().map(folded).unwrap_or_default();
                let text = format!("SELECT * FROM \"{name}\"");
                let query = crate::parse::query(&text)?;
                binder.query(&query)
            }
            _ => Err(unsupported("a data-modifying statement in a query")),
        })
    }

    /// `VALUES (…), (…)`.
    pub fn values(&mut self, values: &ast::Values) -> Result<(Plan, Vec<Output>), SqlError> {
        let mut rows: Vec<Vec<Typed>> = Vec::new();
        let scope = Scope { aggregates_allowed: Some("VALUES"), ..Scope::default() };
        self.within(scope, |binder| {
            for row in &values.rows {
                rows.push(row.content.iter().map(|e| binder.expr(e)).collect::<Result<_, _>>()?);
            }
            Ok(())
        })?;
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            return Err(SqlError::new(SqlState::SyntaxError, "VALUES lists must all be the same length"));
        }
        let mut kinds = Vec::new();
        for at in 0..width {
            let column: Vec<Type> = rows.iter().map(|row| row[at].kind.clone()).collect();
            let all_unknown = column.iter().all(|k| *k == Type::Unknown);
            kinds.push(if all_unknown && rows.len() == 1 {
                Type::Unknown
            } else {
                Self::unify(&column, "VALUES")?
            });
        }
        let mut list = Vec::new();
        for row in rows {
            let row = row
                .into_iter()
                .zip(&kinds)
                .map(|(typed, kind)| self.coerce(typed, kind, Willing::Implicit))
                .collect::<Result<Vec<_>, _>>()?;
            list.push(row);
        }
        let cols: Vec<Col> = kinds.iter().map(|_| self.col()).collect();
        let output = kinds
            .into_iter()
            .enumerate()
            .map(|(at, kind)| Output { name: format!("column{}", at + 1), kind })
            .collect();
        Ok((Plan::Values(list, cols), output))
    }

    fn set_operation(
        &mut self,
        op: ast::SetOperator,
        quantifier: ast::SetQuantifier,
        left: &ast::SetExpr,
        right: &ast::SetExpr,
    ) -> Result<(Plan, Vec<Output>), SqlError> {
        let (op, name) = match op {
            ast::SetOperator::Union => (SetOp::Union, "UNION"),
            ast::SetOperator::Intersect => (SetOp::Intersect, "INTERSECT"),
            ast::SetOperator::Except | ast::SetOperator::Minus => (SetOp::Except, "EXCEPT"),
        };
        let all = matches!(quantifier, ast::SetQuantifier::All);
        let (left, left_out) = self.set_expr(left)?;
        let (right, right_out) = self.set_expr(right)?;
        if left_out.len() != right_out.len() {
            return Err(SqlError::new(
                SqlState::SyntaxError,
                format!("each {name} query must have the same number of columns"),
            ));
        }
        let mut output = Vec::new();
        for (l, r) in left_out.iter().zip(&right_out) {
            let kind = Self::unify(&[l.kind.clone(), r.kind.clone()], name)?;
            output.push(Output { name: l.name.clone(), kind });
        }
        let left = self.cast_columns(left, &left_out, &output)?;
        let right = self.cast_columns(right, &right_out, &output)?;
        let cols = left.columns().into_iter().zip(right.columns()).map(|(a, b)| (a, b, self.col())).collect();
        Ok((Plan::SetOp(op, all, Box::new(left), Box::new(right), cols), output))
    }

    /// Casts the columns of a plan; literals without a type are parsed where they stand.
    fn cast_columns(&mut self, mut plan: Plan, have: &[Output], want: &[Output]) -> Result<Plan, SqlError> {
        if have.iter().zip(want).all(|(h, w)| h.kind == w.kind) {
            return Ok(plan);
        }
        if let Plan::Project(_, list) = &mut plan {
            for ((expr, _), (have, want)) in list.iter_mut().zip(have.iter().zip(want)) {
                if have.kind == Type::Unknown {
                    let typed = Typed { expr: core::mem::replace(expr, Expr::NULL), kind: Type::Unknown };
                    *expr = self.coerce(typed, &want.kind, Willing::Implicit)?;
                }
            }
        }
        let mut list = Vec::new();
        for ((col, have), want) in plan.columns().into_iter().zip(have).zip(want) {
            let kind = if have.kind == Type::Unknown { want.kind.clone() } else { have.kind.clone() };
            let typed = Typed { expr: Expr::Col(col), kind };
            list.push((self.coerce(typed, &want.kind, Willing::Implicit)?, self.col()));
        }
        Ok(Plan::Project(Box::new(plan), list))
    }

    /// ORDER BY over a set operation: names and places of the output.
    fn output_order(
        &mut self,
        order: &[ast::OrderByExpr],
        output: &[Output],
        cols: &[Col],
    ) -> Result<Vec<SortKey>, SqlError> {
        let columns = output
            .iter()
            .zip(cols)
            .map(|(o, col)| super::Visible {
                table: None,
                name: o.name.clone(),
                col: *col,
                kind: o.kind.clone(),
                merged: false,
                key: None,
                both: None,
            })
            .collect();
        let scope = Scope { columns, ..Scope::default() };
        let (keys, _) = self.within(scope, |binder| {
            let mut keys = Vec::new();
            for key in order {
                let expr = match place(&key.expr, output.len(), "ORDER BY")? {
                    Some(at) => Expr::Col(cols[at]),
                    None if matches!(key.expr, ast::Expr::Identifier(_)) => binder.expr(&key.expr)?.expr,
                    None => {
                        let what = "ORDER BY an expression over UNION, INTERSECT or EXCEPT";
                        return Err(unsupported(what).hint("Put the query into FROM."));
                    }
                };
                keys.push(with_options(expr, &key.options));
            }
            Ok(keys)
        })?;
        Ok(keys)
    }
}

/// The sort and limit behind a query.
pub(super) fn wrap(
    plan: Plan,
    keys: Vec<SortKey>,
    (limit, offset, ties): (Option<Expr>, Option<Expr>, bool),
) -> Plan {
    let ties = ties.then(|| keys.clone());
    let plan = if keys.is_empty() { plan } else { Plan::Sort(Box::new(plan), keys) };
    if limit.is_none() && offset.is_none() { plan } else { Plan::Limit(Box::new(plan), limit, offset, ties) }
}

/// A type that a column can have: a literal whose type nothing tells is text.
pub fn known_type(kind: &Type) -> Type {
    if *kind == Type::Unknown { Type::Text } else { kind.clone() }
}

/// Whether a query names a table; on its text, as a word.
fn mentions(body: &ast::SetExpr, name: &str) -> bool {
    let text = body.to_string().to_lowercase();
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}
