//! Queries: SELECT, set operations, VALUES, common table expressions, ORDER BY and LIMIT.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::{SqlError, SqlState, Type, Value};
use sqlparser::ast;

use super::call::with_options;
use super::{Binder, Cte, Scope, Typed, folded, last_part, unsupported};
use crate::expr::{Col, Expr};
use crate::plan::{Plan, SetOp, SortKey};

/// A column of a result.
#[derive(Clone, PartialEq, Debug)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Type,
}

/// A select item with what ORDER BY may call it.
struct Item {
    name: String,
    typed: Typed,
    col: Col,
}

impl Binder<'_> {
    /// Binds a query; the plan's columns are those of the result, in order.
    pub fn query(&mut self, query: &ast::Query) -> Result<(Plan, Vec<Output>), SqlError> {
        self.deeper(|binder| binder.query_here(query))
    }

    fn query_here(&mut self, query: &ast::Query) -> Result<(Plan, Vec<Output>), SqlError> {
        let known = self.ctes.len();
        let mut with = Vec::new();
        let result = (|| {
            if let Some(list) = &query.with {
                for cte in &list.cte_tables {
                    with.push(self.cte(cte, list.recursive)?);
                }
            }
            let order: &[ast::OrderByExpr] = match &query.order_by {
                Some(ast::OrderBy { kind: ast::OrderByKind::Expressions(list), .. }) => list,
                Some(_) => return Err(unsupported("ORDER BY ALL")),
                None => &[],
            };
            let limit = self.limit(query)?;
            match &*query.body {
                ast::SetExpr::Select(select) => self.select(select, order, limit),
                body => {
                    let (plan, output) = self.set_expr(body)?;
                    let keys = self.output_order(order, &output, &plan.columns())?;
                    Ok((wrap(plan, keys, limit), output))
                }
            }
        })();
        self.ctes.truncate(known);
        let (plan, output) = result?;
        Ok((if with.is_empty() { plan } else { Plan::With(with, Box::new(plan)) }, output))
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
            let (first, first_out) = self.set_expr(left)?;
            let columns = rename(&first_out)?;
            self.slots += 1;
            let working = self.slots - 1;
            self.ctes.push(Cte { name: name.clone(), slot: working, columns: columns.clone() });
            let (step, step_out) = self.set_expr(right)?;
            self.ctes.pop();
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
            let plan = {
                let keys = Vec::new();
                let limit = self.limit(&cte.query)?;
                wrap(plan, keys, limit)
            };
            self.ctes.push(Cte { name, slot, columns });
            return Ok((slot, plan, out));
        }
        let (plan, output) = self.query(&cte.query)?;
        let columns = rename(&output)?;
        let out = plan.columns();
        self.ctes.push(Cte { name, slot, columns });
        Ok((slot, plan, out))
    }

    /// The common table expression of that name, as a plan.
    pub(super) fn cte_plan(&mut self, name: &str) -> Option<(Plan, Vec<(String, Type, Col)>)> {
        let cte = self.ctes.iter().rev().find(|c| c.name == name)?.clone();
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
        let mut bind = |expr: Option<&ast::Expr>| -> Result<Option<Expr>, SqlError> {
            let Some(expr) = expr else { return Ok(None) };
            if matches!(expr, ast::Expr::Identifier(i) if i.value.eq_ignore_ascii_case("all")) {
                return Ok(None);
            }
            // LIMIT sees no column.
            let saved = core::mem::take(&mut self.scopes);
            let typed = self.expr(expr);
            self.scopes = saved;
            let typed = typed?;
            self.coerce(typed, &Type::BigInt, Willing::Assignment).map(Some)
        };
        Ok((bind(limit)?, bind(offset)?, ties))
    }

    fn set_expr(&mut self, body: &ast::SetExpr) -> Result<(Plan, Vec<Output>), SqlError> {
        self.deeper(|binder| match body {
            ast::SetExpr::Select(select) => binder.select(select, &[], (None, None, false)),
            ast::SetExpr::Query(query) => binder.query(query),
            ast::SetExpr::Values(values) => binder.values(values),
            ast::SetExpr::SetOperation { op, set_quantifier, left, right } => {
                binder.set_operation(op, set_quantifier, left, right)
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
        for row in &values.rows {
            rows.push(row.content.iter().map(|e| self.expr(e)).collect::<Result<_, _>>()?);
        }
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
        op: &ast::SetOperator,
        quantifier: &ast::SetQuantifier,
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
                let expr = match place(&key.expr, output.len())? {
                    Some(at) => Expr::Col(cols[at]),
                    None => binder.expr(&key.expr)?.expr,
                };
                keys.push(with_options(expr, &key.options));
            }
            Ok(keys)
        })?;
        Ok(keys)
    }

    #[allow(
        clippy::too_many_lines,
        reason = "the clauses of SELECT in the order in which they are worked off"
    )]
    fn select(
        &mut self,
        select: &ast::Select,
        order: &[ast::OrderByExpr],
        limit: (Option<Expr>, Option<Expr>, bool),
    ) -> Result<(Plan, Vec<Output>), SqlError> {
        if select.into.is_some() || select.top.is_some() || select.qualify.is_some() {
            return Err(unsupported("this clause of SELECT"));
        }
        let (mut plan, columns) = self.from_list(&select.from)?;
        let mut named_windows = Vec::new();
        for definition in &select.named_window {
            if let ast::NamedWindowExpr::WindowSpec(spec) = &definition.1 {
                named_windows.push((folded(&definition.0), spec.clone()));
            }
        }
        let scope = Scope { columns, named_windows, ..Scope::default() };
        let ((), scope) = self.within(scope, |binder| {
            if let Some(condition) = &select.selection {
                binder.scope().aggregates_allowed = Some("WHERE");
                let condition = binder.condition(condition, "WHERE")?;
                let old = core::mem::replace(&mut plan, Plan::one_row());
                plan = Plan::Filter(Box::new(old), [condition].into());
            }
            Ok(())
        })?;
        let mut keys: Vec<SortKey> = Vec::new();
        let mut items: Vec<Item> = Vec::new();
        let mut distinct_on: Vec<Expr> = Vec::new();
        let mut having = None;
        let mut groups: Vec<(Expr, Type)> = Vec::new();
        let mut sets: Vec<Vec<usize>> = Vec::new();
        let mut grouped = false;
        let scope = Scope { aggregates_allowed: None, windows_allowed: true, ..scope };
        let ((), mut scope) = self.within(scope, |binder| {
            for item in &select.projection {
                binder.item(item, &mut items)?;
            }
            binder.scope().windows_allowed = false;
            grouped = binder.group_by(&select.group_by, &items, &mut groups, &mut sets)?;
            if let Some(condition) = &select.having {
                having = Some(binder.condition(condition, "HAVING")?);
                grouped = true;
            }
            binder.scope().windows_allowed = true;
            for key in order {
                let expr = binder.select_order(&key.expr, &items)?;
                keys.push(with_options(expr, &key.options));
            }
            if let Some(ast::Distinct::On(list)) = &select.distinct {
                for expr in list {
                    distinct_on.push(binder.select_order(expr, &items)?);
                }
            }
            Ok(())
        })?;
        grouped |= !scope.calls.is_empty() || !scope.groupings.is_empty();
        if grouped {
            plan = self.grouped(
                plan,
                &mut scope,
                groups,
                sets,
                &mut items,
                &mut keys,
                &mut distinct_on,
                &mut having,
            )?;
            if let Some(having) = having {
                plan = Plan::Filter(Box::new(plan), [having].into());
            }
        }
        for (function, args, col) in core::mem::take(&mut scope.series) {
            let series = Plan::Function(function, args, [col].into(), None);
            plan = Plan::Lateral(Box::new(plan), Box::new(series), false, Vec::new());
        }
        if !scope.windows.is_empty() {
            plan = Plan::Window(Box::new(plan), core::mem::take(&mut scope.windows));
        }
        let output: Vec<Output> =
            items.iter().map(|i| Output { name: i.name.clone(), kind: i.typed.kind.clone() }).collect();
        let cols: Vec<Col> = items.iter().map(|i| i.col).collect();
        let mut list: Vec<(Expr, Col)> = items.into_iter().map(|i| (i.typed.expr, i.col)).collect();
        // Sort keys that are select items, and those that need columns of their own.
        let width = list.len();
        for key in &mut keys {
            self.as_column(&mut key.expr, &mut list);
        }
        for expr in &mut distinct_on {
            self.as_column(expr, &mut list);
        }
        let distinct = matches!(select.distinct, Some(ast::Distinct::Distinct));
        if distinct && list.len() > width {
            return Err(SqlError::new(
                SqlState::InvalidColumnReference,
                "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
            ));
        }
        let extra = list.len() > width;
        plan = Plan::Project(Box::new(plan), list);
        if distinct {
            plan = Plan::Distinct(Box::new(plan), cols.clone());
        }
        if distinct_on.is_empty() {
            plan = wrap(plan, keys, limit);
        } else {
            // Rows of a group come together; the order asked for starts with the same expressions.
            let mut group_keys: Vec<SortKey> = distinct_on
                .iter()
                .map(|expr| SortKey { expr: expr.clone(), descending: false, nulls_first: false })
                .collect();
            if keys.len() >= distinct_on.len() {
                group_keys.clone_from(&keys);
            } else {
                group_keys.extend(keys.iter().cloned());
            }
            plan = Plan::DistinctOn(Box::new(Plan::Sort(Box::new(plan), group_keys)), distinct_on);
            plan = wrap(plan, Vec::new(), limit);
        }
        if extra {
            let list = cols.iter().map(|c| (Expr::Col(*c), self.col())).collect();
            plan = Plan::Project(Box::new(plan), list);
        }
        Ok((plan, output))
    }

    /// Makes an expression a column of the projection.
    fn as_column(&mut self, expr: &mut Expr, list: &mut Vec<(Expr, Col)>) {
        if let Expr::Col(col) = expr
            && list.iter().any(|(_, c)| c == col)
        {
            return;
        }
        if let Some((_, col)) = list.iter().find(|(e, _)| e == expr) {
            *expr = Expr::Col(*col);
            return;
        }
        let col = self.col();
        list.push((core::mem::replace(expr, Expr::Col(col)), col));
    }

    fn item(&mut self, item: &ast::SelectItem, items: &mut Vec<Item>) -> Result<(), SqlError> {
        match item {
            ast::SelectItem::UnnamedExpr(expr) => {
                let typed = self.expr(expr)?;
                let name = name_of(expr);
                let col = self.col();
                items.push(Item { name, typed, col });
            }
            ast::SelectItem::ExprWithAlias { expr, alias } => {
                let typed = self.expr(expr)?;
                let col = self.col();
                items.push(Item { name: folded(alias), typed, col });
            }
            ast::SelectItem::Wildcard(_) => {
                if self.scope().columns.is_empty() {
                    return Err(SqlError::new(
                        SqlState::SyntaxError,
                        "SELECT * with no tables specified is not valid",
                    ));
                }
                self.star(None, items)?;
            }
            ast::SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                self.star(Some(last_part(name)), items)?;
            }
            _ => return Err(unsupported("this select item")),
        }
        Ok(())
    }

    fn star(&mut self, table: Option<String>, items: &mut Vec<Item>) -> Result<(), SqlError> {
        let mut found = false;
        for column in self.scope().columns.clone() {
            let fits = match &table {
                Some(table) => column.table.as_ref() == Some(table),
                None => !column.merged,
            };
            if fits {
                found = true;
                let expr = match &column.both {
                    Some(both) if table.is_none() => (**both).clone(),
                    _ => Expr::Col(column.col),
                };
                let col = self.col();
                items.push(Item { name: column.name, typed: Typed { expr, kind: column.kind }, col });
            }
        }
        match table {
            Some(table) if !found => Err(SqlError::new(
                SqlState::UndefinedTable,
                format!("missing FROM-clause entry for table \"{table}\""),
            )),
            _ => Ok(()),
        }
    }

    /// RETURNING: items over the columns in sight.
    pub fn returning(&mut self, list: &[ast::SelectItem]) -> Result<Vec<(String, Typed)>, SqlError> {
        let mut items = Vec::new();
        for item in list {
            self.item(item, &mut items)?;
        }
        Ok(items.into_iter().map(|i| (i.name, i.typed)).collect())
    }

    /// An ORDER BY or DISTINCT ON expression: a place, an output name, or anything over the input.
    fn select_order(&mut self, expr: &ast::Expr, items: &[Item]) -> Result<Expr, SqlError> {
        if let Some(at) = place(expr, items.len())? {
            return Ok(items[at].typed.expr.clone());
        }
        if let ast::Expr::Identifier(ident) = expr {
            let name = folded(ident);
            let mut named = items.iter().filter(|i| i.name == name);
            if let Some(first) = named.next() {
                if named.any(|other| other.typed.expr != first.typed.expr) {
                    return Err(SqlError::new(
                        SqlState::AmbiguousColumn,
                        format!("ORDER BY \"{name}\" is ambiguous"),
                    ));
                }
                return Ok(first.typed.expr.clone());
            }
        }
        Ok(self.expr(expr)?.expr)
    }

    /// GROUP BY; true if there is one.
    fn group_by(
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
        if let Some(at) = place(expr, items.len())? {
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
    fn grouped(
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
                use crate::expr::Arithmetic::{Add, Div, Mul, Rem};
                let bit = op(Rem, op(Div, whole.clone(), 1 << place), 2);
                sum = Expr::Arithmetic(Add, Box::new(op(Mul, sum, 2)), Box::new(bit), Type::BigInt);
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
            args.iter_mut().for_each(|e| regroup(e, &list));
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
    crate::optimize::expressions_mut(plan, &mut |e| regroup(e, groups));
    plan.inputs_mut().into_iter().for_each(|input| regroup_plan(input, groups));
}

fn replace_col(expr: &mut Expr, col: Col, with: &Expr) {
    if *expr == Expr::Col(col) {
        *expr = with.clone();
        return;
    }
    expr.parts_mut(&mut |part| replace_col(part, col, with));
}

fn wrap(plan: Plan, keys: Vec<SortKey>, (limit, offset, ties): (Option<Expr>, Option<Expr>, bool)) -> Plan {
    let ties = ties.then(|| keys.clone());
    let plan = if keys.is_empty() { plan } else { Plan::Sort(Box::new(plan), keys) };
    if limit.is_none() && offset.is_none() { plan } else { Plan::Limit(Box::new(plan), limit, offset, ties) }
}

/// A literal that means a place in the select list.
fn place(expr: &ast::Expr, width: usize) -> Result<Option<usize>, SqlError> {
    let ast::Expr::Value(value) = expr else { return Ok(None) };
    let ast::Value::Number(digits, _) = &value.value else { return Ok(None) };
    match digits.parse::<usize>() {
        Ok(at) if (1..=width).contains(&at) => Ok(Some(at - 1)),
        _ => Err(SqlError::new(
            SqlState::InvalidColumnReference,
            format!("ORDER BY or GROUP BY position {digits} is not in select list"),
        )),
    }
}

/// What a select item without an alias is called.
fn name_of(expr: &ast::Expr) -> String {
    match expr {
        ast::Expr::Identifier(ident) => folded(ident),
        ast::Expr::CompoundIdentifier(idents) => idents.last().map(folded).unwrap_or_default(),
        ast::Expr::Function(function) => last_part(&function.name),
        ast::Expr::Nested(inner) => name_of(inner),
        ast::Expr::Case { .. } => "case".to_string(),
        ast::Expr::Exists { .. } => "exists".to_string(),
        ast::Expr::Cast { expr, .. } => match name_of(expr).as_str() {
            "?column?" => "?column?".to_string(),
            name => name.to_string(),
        },
        ast::Expr::Array(_) => "array".to_string(),
        ast::Expr::Substring { .. } => "substring".to_string(),
        ast::Expr::Extract { .. } => "extract".to_string(),
        ast::Expr::Trim { .. } => "btrim".to_string(),
        ast::Expr::Position { .. } => "position".to_string(),
        _ => "?column?".to_string(),
    }
}

pub(super) fn known_type(kind: &Type) -> Type {
    if *kind == Type::Unknown { Type::Text } else { kind.clone() }
}

/// Whether a query names a table; on its text, as a word.
fn mentions(body: &ast::SetExpr, name: &str) -> bool {
    let text = body.to_string().to_lowercase();
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
}
