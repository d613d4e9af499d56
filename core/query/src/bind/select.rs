//! SELECT: its list, its clauses in the order in which they are worked off.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState, Type};
use sqlparser::ast;

use super::call::with_options;
use super::query::{Output, wrap};
use super::{Binder, Scope, Typed, folded, last_part, unsupported};
use crate::expr::{Col, Expr};
use crate::plan::{Plan, SortKey, TableFunction, WindowCall};

/// A select item with what ORDER BY may call it.
pub(super) struct Item {
    pub name: String,
    pub typed: Typed,
    pub col: Col,
}

impl Binder<'_> {
    #[allow(
        clippy::too_many_lines,
        reason = "the clauses of SELECT in the order in which they are worked off"
    )]
    pub(super) fn select(
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
        let from = !select.from.is_empty();
        let scope = Scope { columns, from, named_windows, ..Scope::default() };
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
        let scope = Scope { aggregates_allowed: None, windows_allowed: true, series_allowed: true, ..scope };
        let ((), mut scope) = self.within(scope, |binder| {
            for item in &select.projection {
                binder.item(item, &mut items)?;
            }
            binder.scope().windows_allowed = false;
            grouped = binder.group_by(&select.group_by, &items, &mut groups, &mut sets)?;
            if let Some(condition) = &select.having {
                binder.scope().series_allowed = false;
                having = Some(binder.condition(condition, "HAVING")?);
                binder.scope().series_allowed = true;
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
        if !scope.calls.is_empty() && self.reads_itself(&select.from) {
            let message = "aggregate functions are not allowed in a recursive query's recursive term";
            return Err(SqlError::new(SqlState::InvalidRecursion, message));
        }
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
        plan = with_series(plan, core::mem::take(&mut scope.series));
        if !scope.windows.is_empty() {
            plan = Plan::Window(Box::new(plan), in_turn(core::mem::take(&mut scope.windows)));
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
            let among = |key: &SortKey| distinct_on.contains(&key.expr);
            let first = keys.iter().take_while(|key| among(key)).count();
            if keys.len() > first
                && distinct_on.iter().any(|e| !keys[..first].iter().any(|key| key.expr == *e))
            {
                return Err(SqlError::new(
                    SqlState::InvalidColumnReference,
                    "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                ));
            }
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

    /// Whether FROM names the recursive query that it is part of.
    fn reads_itself(&self, from: &[ast::TableWithJoins]) -> bool {
        let tables = from.iter().flat_map(|item| {
            core::iter::once(&item.relation).chain(item.joins.iter().map(|join| &join.relation))
        });
        tables.into_iter().any(|table| match table {
            ast::TableFactor::Table { name, args: None, .. } => {
                let name = last_part(name);
                self.ctes.iter().rev().find(|cte| cte.name == name).is_some_and(|cte| cte.recursive.is_some())
            }
            _ => false,
        })
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
                if !self.scope().from {
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
        // A table of an enclosing query is found by its name, as its columns are.
        let of = |scope: &Scope| scope.columns.iter().any(|c| c.table.is_some() && c.table == table);
        let outer = table.is_some().then(|| self.scopes.iter().rev().find(|scope| of(scope))).flatten();
        let columns = match outer {
            Some(scope) => scope.columns.clone(),
            None => self.scope().columns.clone(),
        };
        for column in columns {
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
        if let Some(at) = place(expr, items.len(), "ORDER BY")? {
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
}

/// Window calls in the order in which PostgreSQL works them off, which shows in that of the rows: those that sort by more
/// and later expressions come first, so that a later sort keeps what an earlier one did.
fn in_turn(calls: Vec<(WindowCall, Col)>) -> Vec<(WindowCall, Col)> {
    let mut seen: Vec<Expr> = Vec::new();
    let mut number = |expr: &Expr| {
        let known = seen.iter().position(|known| known == expr);
        known.unwrap_or_else(|| {
            seen.push(expr.clone());
            seen.len() - 1
        })
    };
    let mut keyed = Vec::new();
    for (call, col) in calls {
        let order: Vec<_> =
            call.order.iter().map(|k| (number(&k.expr), k.descending, k.nulls_first)).collect();
        let mut key: Vec<_> = call.partition.iter().map(|expr| (number(expr), false, false)).collect();
        key.extend(order);
        keyed.push((key, call, col));
    }
    // A longer key sorts before its own beginning.
    keyed.sort_by(|a, b| b.0.cmp(&a.0));
    keyed.into_iter().map(|(_, call, col)| (call, col)).collect()
}

/// The functions of a select list that give rows: side by side, unless one is an argument of another.
fn with_series(plan: Plan, series: Vec<(TableFunction, Vec<Expr>, Col)>) -> Plan {
    let own: Vec<Col> = series.iter().map(|(.., col)| *col).collect();
    let mut nested = false;
    for (_, args, _) in &series {
        for arg in args {
            arg.columns(&mut |col| nested |= own.contains(&col));
        }
    }
    let functions = if series.len() < 2 || nested {
        series
            .into_iter()
            .map(|(function, args, col)| Plan::Function(function, args, [col].into(), None))
            .collect()
    } else {
        let mut functions = Vec::new();
        let mut all = Vec::new();
        for (function, args, _) in series {
            functions.push((function, args.len()));
            all.extend(args);
        }
        Vec::from([Plan::Function(TableFunction::Together(functions.into()), all, own, None)])
    };
    functions
        .into_iter()
        .fold(plan, |plan, function| Plan::Lateral(Box::new(plan), Box::new(function), false, Vec::new()))
}

/// A literal that means a place in the select list.
pub(super) fn place(expr: &ast::Expr, width: usize, clause: &str) -> Result<Option<usize>, SqlError> {
    let (negative, value) = match expr {
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => (true, &**expr),
        other => (false, other),
    };
    let ast::Expr::Value(value) = value else { return Ok(None) };
    let ast::Value::Number(digits, _) = &value.value else {
        if negative || matches!(value.value, ast::Value::Placeholder(_)) {
            return Ok(None);
        }
        return Err(SqlError::new(SqlState::SyntaxError, format!("non-integer constant in {clause}")));
    };
    if digits.parse::<i32>().is_err() {
        return Err(SqlError::new(SqlState::SyntaxError, format!("non-integer constant in {clause}")));
    }
    match digits.parse::<usize>() {
        Ok(at) if !negative && (1..=width).contains(&at) => Ok(Some(at - 1)),
        _ => {
            let sign = if negative { "-" } else { "" };
            let message = format!("{clause} position {sign}{digits} is not in select list");
            Err(SqlError::new(SqlState::InvalidColumnReference, message))
        }
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
