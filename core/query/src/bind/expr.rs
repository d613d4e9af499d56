//! Expressions.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::{Decimal, SqlError, SqlState, Type, Value, datetime, text};
use sqlparser::ast;

use super::{Binder, Typed, Visible, folded, near, operator, unsupported};
use crate::expr::{Ask, Comparison, Expr};

fn boolean(expr: Expr) -> Typed {
    Typed { expr, kind: Type::Bool }
}

fn not_if(negated: bool, expr: Expr) -> Typed {
    boolean(if negated { Expr::Not(Box::new(expr)) } else { expr })
}

fn unwrapped(expr: &ast::Expr) -> &ast::Expr {
    match expr {
        ast::Expr::Nested(inner) => unwrapped(inner),
        other => other,
    }
}

impl Binder<'_> {
    /// Binds an expression.
    pub fn expr(&mut self, expr: &ast::Expr) -> Result<Typed, SqlError> {
        self.deeper(|binder| binder.expr_here(expr))
    }

    #[allow(clippy::too_many_lines, reason = "one arm per form of an expression")]
    fn expr_here(&mut self, expr: &ast::Expr) -> Result<Typed, SqlError> {
        use ast::Expr as E;
        match expr {
            E::Identifier(ident) => self.identifier(ident),
            E::CompoundIdentifier(idents) => self.compound(idents),
            E::Value(value) => self.literal(&value.value),
            E::Nested(inner) | E::Collate { expr: inner, .. } => self.expr(inner),
            E::BinaryOp { left, op: ast::BinaryOperator::Overlaps, right } => self.overlaps(left, right),
            E::BinaryOp { left, op, right } => self.binary_expr(left, op, right),
            E::UnaryOp { op, expr } => self.unary(*op, expr),
            E::IsNull(inner) => self.is_null(inner, false),
            E::IsNotNull(inner) => self.is_null(inner, true),
            E::IsTrue(e) => self.is(e, true, false),
            E::IsNotTrue(e) => self.is(e, true, true),
            E::IsFalse(e) => self.is(e, false, false),
            E::IsNotFalse(e) => self.is(e, false, true),
            E::IsUnknown(e) | E::IsNotUnknown(e) => {
                let inner = self.condition(e, "IS UNKNOWN")?;
                Ok(not_if(matches!(expr, E::IsNotUnknown(_)), Expr::IsNull(Box::new(inner))))
            }
            E::IsDistinctFrom(a, b) => self.distinct(a, b, true),
            E::IsNotDistinctFrom(a, b) => self.distinct(a, b, false),
            E::In { expr, target, negated, .. } => self.in_expr(expr, target, *negated),
            E::Between { expr, negated, low, high } => {
                if let Some(value) = self.row(expr)? {
                    let row = "this comparison of rows";
                    let low = self.row(low)?.ok_or_else(|| unsupported(row))?;
                    let high = self.row(high)?.ok_or_else(|| unsupported(row))?;
                    let above = self.compare_rows(Comparison::Ge, value.clone(), low)?;
                    let below = self.compare_rows(Comparison::Le, value, high)?;
                    return Ok(not_if(*negated, Expr::And([above, below].into())));
                }
                let value = self.expr(expr)?;
                let (low, high) = (self.expr(low)?, self.expr(high)?);
                let above = self.compare(Comparison::Ge, value.clone(), low)?;
                let below = self.compare(Comparison::Le, value, high)?;
                Ok(not_if(*negated, Expr::And([above, below].into())))
            }
            E::Like { negated, expr, pattern, any, .. } if patterns(pattern, *any).is_some() => {
                self.like_each("like", *negated, expr, patterns(pattern, *any))
            }
            E::ILike { negated, expr, pattern, any, .. } if patterns(pattern, *any).is_some() => {
                self.like_each("ilike", *negated, expr, patterns(pattern, *any))
            }
            E::Like { negated, expr, pattern, escape_char, any: false } => {
                self.like("like", *negated, expr, pattern, escape_char.as_deref())
            }
            E::ILike { negated, expr, pattern, escape_char, any: false } => {
                self.like("ilike", *negated, expr, pattern, escape_char.as_deref())
            }
            E::SimilarTo { negated, expr, pattern, escape_char } => {
                self.like("similar_to", *negated, expr, pattern, escape_char.as_deref())
            }
            E::AnyOp { left, compare_op, right, .. } => self.quantified(left, compare_op, right, false),
            E::AllOp { left, compare_op, right } => self.quantified(left, compare_op, right, true),
            E::Cast { expr, data_type, kind: ast::CastKind::Cast | ast::CastKind::DoubleColon, .. } => {
                let kind = Self::type_of(data_type)?;
                if let (Some([]), Type::Array(_)) = (elements(expr), &kind) {
                    return Ok(Typed { expr: Expr::Array(Vec::new()), kind });
                }
                let inner = self.expr(expr)?;
                if matches!(data_type, ast::DataType::Regclass) {
                    return Ok(Typed {
                        expr: self.coerce(inner, &Type::Text, Willing::Explicit)?,
                        kind: Type::Text,
                    });
                }
                Ok(Typed { expr: self.coerce(inner, &kind, Willing::Explicit)?, kind })
            }
            E::TypedString(typed) => {
                let kind = Self::type_of(&typed.data_type)?;
                let Some(literal) = string_of(&typed.value.value) else {
                    return Err(unsupported("this literal"));
                };
                Ok(Typed { expr: Expr::Const(text::parse(&literal, &kind)?), kind })
            }
            E::Interval(interval) => Self::interval(interval),
            E::Extract { field, expr, .. } => {
                let field = Typed {
                    expr: Expr::Const(Value::from(
                        field.to_string().to_lowercase().trim_matches(['\'', '"']),
                    )),
                    kind: Type::Text,
                };
                let value = self.expr(expr)?;
                self.apply_function("extract", [field, value].into())
            }
            E::Ceil { expr, .. } => self.function_of("ceil", &[expr]),
            E::Floor { expr, .. } => self.function_of("floor", &[expr]),
            E::Position { expr, r#in } => self.function_of("position", &[r#in, expr]),
            E::Substring { expr, substring_from, substring_for, .. } => {
                let one = ast::Expr::Value(ast::Value::Number("1".to_string(), false).into());
                let mut args: Vec<&ast::Expr> = [&**expr, substring_from.as_deref().unwrap_or(&one)].into();
                args.extend(substring_for.as_deref());
                self.function_of("substring", &args)
            }
            E::Trim { expr, trim_where, trim_what, trim_characters } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                let mut args: Vec<&ast::Expr> = [&**expr].into();
                args.extend(trim_what.as_deref());
                args.extend(trim_characters.iter().flatten());
                self.function_of(name, &args)
            }
            E::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                let mut args: Vec<&ast::Expr> = [&**expr, &**overlay_what, &**overlay_from].into();
                args.extend(overlay_for.as_deref());
                self.function_of("overlay", &args)
            }
            E::AtTimeZone { timestamp, time_zone } => {
                let (zone, value) = (self.expr(time_zone)?, self.expr(timestamp)?);
                self.at_time_zone(&zone, value)
            }
            E::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            E::Exists { subquery, negated } => {
                let (plan, _) = self.subplan(subquery)?;
                Ok(not_if(*negated, Expr::Subquery(Box::new(Ask::Exists), Box::new(plan))))
            }
            E::Subquery(query) => {
                let (plan, output) = self.subplan(query)?;
                let [column] = &output[..] else {
                    return Err(SqlError::new(SqlState::SyntaxError, "subquery must return only one column"));
                };
                let kind = column.kind.clone();
                Ok(Typed { expr: Expr::Subquery(Box::new(Ask::Scalar), Box::new(plan)), kind })
            }
            E::Function(function) => self.call(function),
            E::Array(array) => self.array(&array.elem),
            E::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            E::Tuple(_) => Err(unsupported("a row as a value")),
            other => {
                let mut shown = other.to_string();
                shown.truncate(shown.char_indices().nth(60).map_or(shown.len(), |(at, _)| at));
                Err(unsupported(format!("the expression {shown}")))
            }
        }
    }

    /// One of the columns of a subquery that gives one row.
    pub fn one_of(&mut self, query: &ast::Query, which: usize, width: usize) -> Result<Typed, SqlError> {
        let (plan, output) = self.subplan(query)?;
        if output.len() != width {
            return Err(SqlError::new(
                SqlState::SyntaxError,
                "number of columns does not match number of values",
            ));
        }
        let kind = output[which].kind.clone();
        let list = Vec::from([(Expr::Col(plan.columns()[which]), self.col())]);
        let plan = crate::plan::Plan::Project(Box::new(plan), list);
        Ok(Typed { expr: Expr::Subquery(Box::new(Ask::Scalar), Box::new(plan)), kind })
    }

    /// `timestamp AT TIME ZONE zone`: the only zone is UTC.
    pub(super) fn at_time_zone(&mut self, zone: &Typed, value: Typed) -> Result<Typed, SqlError> {
        let utc = ["utc", "gmt", "z", "zulu", "uct", "etc/utc", "universal", "+00", "00:00", "+00:00"];
        match &zone.expr {
            Expr::Const(Value::Text(name)) if utc.contains(&name.to_lowercase().as_str()) => {
                let kind = if value.kind == Type::TimestampTz { Type::Timestamp } else { Type::TimestampTz };
                Ok(Typed { expr: self.coerce(value, &kind, Willing::Explicit)?, kind })
            }
            _ => Err(unsupported("a time zone other than UTC")),
        }
    }

    fn function_of(&mut self, name: &str, args: &[&ast::Expr]) -> Result<Typed, SqlError> {
        let args = args.iter().map(|e| self.expr(e)).collect::<Result<_, _>>()?;
        self.apply_function(name, args)
    }

    /// Finds a column by name: in the query, then in the enclosing ones.
    pub(super) fn find(&mut self, table: Option<&str>, name: &str) -> Result<Option<Visible>, SqlError> {
        for scope in self.scopes.iter().rev() {
            let mut found: Option<&Visible> = None;
            for column in &scope.columns {
                let fits = column.name == name
                    && match table {
                        Some(table) => column.table.as_deref() == Some(table),
                        None => !column.merged,
                    };
                if !fits {
                    continue;
                }
                if found.is_some() {
                    return Err(SqlError::new(
                        SqlState::AmbiguousColumn,
                        format!("column reference \"{name}\" is ambiguous"),
                    ));
                }
                found = Some(column);
            }
            if let Some(found) = found {
                return Ok(Some(found.clone()));
            }
        }
        Ok(None)
    }

    fn unknown_column(&self, table: Option<&ast::Ident>, ident: &ast::Ident) -> SqlError {
        let name = folded(ident);
        let first = table.unwrap_or(ident);
        let table = table.map(folded);
        let table = table.as_deref();
        let known =
            |t: &str| self.scopes.iter().any(|s| s.columns.iter().any(|c| c.table.as_deref() == Some(t)));
        let error = match table {
            Some(table) if !known(table) => SqlError::new(
                SqlState::UndefinedTable,
                format!("missing FROM-clause entry for table \"{table}\""),
            ),
            Some(table) => {
                SqlError::new(SqlState::UndefinedColumn, format!("column {table}.{name} does not exist"))
            }
            None => SqlError::new(SqlState::UndefinedColumn, format!("column \"{name}\" does not exist")),
        };
        let names = self.scopes.iter().flat_map(|s| s.columns.iter().map(|c| c.name.as_str()));
        let known = table.is_none_or(known);
        let error = match near(&name, names).filter(|_| known) {
            Some(near) => error.hint(format!("Perhaps you meant to reference the column \"{near}\".")),
            None => error,
        };
        error.at(self.position(first))
    }

    fn visible(column: Visible) -> Typed {
        match column.both {
            Some(both) => Typed { expr: *both, kind: column.kind },
            None => Typed { expr: Expr::Col(column.col), kind: column.kind },
        }
    }

    fn identifier(&mut self, ident: &ast::Ident) -> Result<Typed, SqlError> {
        let name = folded(ident);
        if let Some(column) = self.find(None, &name).map_err(|e| e.at(self.position(ident)))? {
            return Ok(Self::visible(column));
        }
        if let Some(typed) = self.argument_named(&name) {
            return Ok(typed);
        }
        if ident.quote_style.is_none()
            && let Some(typed) = self.bare_function(&name)
        {
            return Ok(typed);
        }
        Err(self.unknown_column(None, ident))
    }

    fn compound(&mut self, idents: &[ast::Ident]) -> Result<Typed, SqlError> {
        let [.., table, column] = idents else { return Err(unsupported("this name")) };
        let name = folded(table);
        match self.find(Some(&name), &folded(column))? {
            Some(column) => Ok(Self::visible(column)),
            None => Err(self.unknown_column(Some(table), column)),
        }
    }

    fn literal(&mut self, value: &ast::Value) -> Result<Typed, SqlError> {
        Ok(match value {
            ast::Value::Null => Typed { expr: Expr::NULL, kind: Type::Unknown },
            ast::Value::Boolean(value) => boolean(Expr::Const(Value::Bool(*value))),
            ast::Value::Number(digits, _) => number(digits)?,
            ast::Value::HexStringLiteral(_) => return Err(unsupported("a bit string")),
            ast::Value::Placeholder(name) => {
                let at: usize = name
                    .strip_prefix('$')
                    .and_then(|n| n.parse().ok())
                    .filter(|n| (1..=65_535).contains(n))
                    .ok_or_else(|| {
                        SqlError::new(SqlState::SyntaxError, format!("\"{name}\" is no parameter"))
                    })?;
                if let Some(argument) = self.argument(at - 1) {
                    return Ok(argument);
                }
                self.param(at - 1, &Type::Unknown);
                let kind = self.params[at - 1].clone();
                Typed { expr: Expr::Param(at - 1), kind }
            }
            other => match string_of(other) {
                Some(text) => Typed { expr: Expr::Const(Value::from(text)), kind: Type::Unknown },
                None => return Err(unsupported("this literal")),
            },
        })
    }

    /// The row of a table in sight that is named like a column, if no column is.
    fn whole_row(&mut self, name: &str) -> Option<Vec<Typed>> {
        let of = |column: &&Visible| column.table.as_deref() == Some(name);
        let scope = self.scopes.iter().rev().find(|scope| scope.columns.iter().any(|c| of(&c)))?;
        let row = scope.columns.iter().filter(of).cloned().map(Self::visible).collect();
        matches!(self.find(None, name), Ok(None)).then_some(row)
    }

    fn row(&mut self, expr: &ast::Expr) -> Result<Option<Vec<Typed>>, SqlError> {
        match unwrapped(expr) {
            ast::Expr::Tuple(list) => list.iter().map(|e| self.expr(e)).collect::<Result<_, _>>().map(Some),
            ast::Expr::Function(f) if super::last_part(&f.name) == "row" => match &f.args {
                ast::FunctionArguments::List(list) => {
                    let mut row = Vec::new();
                    for arg in &list.args {
                        if let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)) = arg {
                            row.push(self.expr(e)?);
                        }
                    }
                    Ok(Some(row))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn binary_expr(
        &mut self,
        left: &ast::Expr,
        op: &ast::BinaryOperator,
        right: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        if matches!(op, ast::BinaryOperator::And | ast::BinaryOperator::Or) {
            return self.junction(left, op, right);
        }
        if let Some(comparison) = operator::comparison(op) {
            if let ast::Expr::Subquery(query) = right
                && let Some(row) = self.row(left)?
            {
                return self.in_query(row, query, comparison, false);
            }
            if let Some(a) = self.row(left)? {
                let b = self.row(right)?.ok_or_else(|| unsupported("this comparison of rows"))?;
                return Ok(boolean(self.compare_rows(comparison, a, b)?));
            }
        }
        // A chain of operators leans to the left: it is walked, not nested.
        let mut chain: Vec<(&ast::BinaryOperator, &ast::Expr)> = [(op, right)].into();
        let mut at = left;
        while let ast::Expr::BinaryOp { left, op, right } = at
            && operator::comparison(op).is_none()
            && !matches!(op, ast::BinaryOperator::And | ast::BinaryOperator::Or)
        {
            chain.push((op, right));
            at = left;
        }
        let mut value = self.expr(at)?;
        for (op, right) in chain.into_iter().rev() {
            let right = self.expr(right)?;
            value = self.binary(op, value, right)?;
        }
        Ok(value)
    }

    /// Long chains of AND and OR lean to the left: they are walked, not nested.
    fn junction(
        &mut self,
        left: &ast::Expr,
        op: &ast::BinaryOperator,
        right: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let mut parts: Vec<&ast::Expr> = [right].into();
        let mut at = left;
        while let ast::Expr::BinaryOp { left, op: inner, right } = at
            && inner == op
        {
            parts.push(right);
            at = left;
        }
        parts.push(at);
        let and = *op == ast::BinaryOperator::And;
        let what = if and { "AND" } else { "OR" };
        let list = parts.into_iter().rev().map(|e| self.condition(e, what)).collect::<Result<Vec<_>, _>>()?;
        Ok(boolean(if and { Expr::And(list) } else { Expr::Or(list) }))
    }

    fn unary(&mut self, op: ast::UnaryOperator, expr: &ast::Expr) -> Result<Typed, SqlError> {
        use ast::UnaryOperator as U;
        match op {
            U::Not => {
                let inner = self.condition(expr, "NOT")?;
                Ok(not_if(true, inner))
            }
            U::Plus => {
                let inner = self.expr(expr)?;
                if inner.kind == Type::Unknown {
                    let expr = self.coerce(inner, &Type::Double, Willing::Implicit)?;
                    return Ok(Typed { expr, kind: Type::Double });
                }
                if inner.kind.is_number() {
                    return Ok(inner);
                }
                Err(SqlError::new(
                    SqlState::UndefinedFunction,
                    format!("operator does not exist: + {}", inner.kind.name()),
                ))
            }
            U::Minus => {
                // The smallest number of a type has no positive twin: a sign belongs to its literal.
                if let Some(literal) = negated(expr) {
                    return number(&literal);
                }
                let inner = self.expr(expr)?;
                let kind = inner.kind.clone();
                if kind == Type::Unknown {
                    return Err(SqlError::new(
                        SqlState::AmbiguousFunction,
                        "operator is not unique: - unknown",
                    )
                    .hint("Could not choose a best candidate operator. You might need to add explicit type casts."));
                }
                if !kind.is_number() && kind != Type::Interval {
                    return Err(SqlError::new(
                        SqlState::UndefinedFunction,
                        format!("operator does not exist: - {}", kind.name()),
                    ));
                }
                let inner = self.coerce(inner, &kind, Willing::Implicit)?;
                let kind = kind.base();
                Ok(Typed { expr: Expr::Negate(Box::new(inner), kind.clone()), kind })
            }
            U::PGAbs => self.function_of("abs", &[expr]),
            U::PGSquareRoot => {
                let inner = self.expr(expr)?;
                let inner = self.coerce(inner, &Type::Double, Willing::Implicit)?;
                self.apply_function("sqrt", [Typed { expr: inner, kind: Type::Double }].into())
            }
            U::PGCubeRoot => self.function_of("cbrt", &[expr]),
            U::BitwiseNot => {
                let inner = self.expr(expr)?;
                let kind = inner.kind.clone();
                let inner = self.coerce(inner, &Type::BigInt, Willing::Implicit)?;
                let function = crate::function::named("bit_not_of").into_iter().next();
                function.map_or_else(
                    || Err(unsupported("~")),
                    |f| Ok(Typed { expr: Expr::Call(f, [inner].into(), kind.clone()), kind }),
                )
            }
            other => Err(unsupported(format!("operator {other}"))),
        }
    }

    fn is_null(&mut self, expr: &ast::Expr, negated: bool) -> Result<Typed, SqlError> {
        let whole = match unwrapped(expr) {
            ast::Expr::Identifier(ident) => self.whole_row(&folded(ident)),
            _ => None,
        };
        if let Some(row) = whole.map_or_else(|| self.row(expr), |row| Ok(Some(row)))? {
            // A row is NULL when all of it is, and not NULL when none of it is.
            let all = row.into_iter().map(|t| not_if(negated, Expr::IsNull(Box::new(t.expr))).expr).collect();
            return Ok(boolean(Expr::And(all)));
        }
        let inner = self.expr(expr)?.expr;
        Ok(not_if(negated, Expr::IsNull(Box::new(inner))))
    }

    fn is(&mut self, expr: &ast::Expr, wanted: bool, negated: bool) -> Result<Typed, SqlError> {
        let inner = self.condition(expr, "IS TRUE")?;
        Ok(not_if(negated, Expr::Is(wanted, Box::new(inner))))
    }

    fn distinct(&mut self, a: &ast::Expr, b: &ast::Expr, distinct: bool) -> Result<Typed, SqlError> {
        if let Some(left) = self.row(a)? {
            let right = self.row(b)?.filter(|right| right.len() == left.len());
            let right = right.ok_or_else(|| unsupported("this comparison of rows"))?;
            let mut any = Vec::new();
            for (a, b) in left.into_iter().zip(right) {
                any.push(self.distinct_values(a, b, true)?.expr);
            }
            return Ok(not_if(!distinct, Expr::Or(any)));
        }
        let (a, b) = (self.expr(a)?, self.expr(b)?);
        self.distinct_values(a, b, distinct)
    }

    fn distinct_values(&mut self, a: Typed, b: Typed, distinct: bool) -> Result<Typed, SqlError> {
        let kind = Self::common(&a.kind, &b.kind, "IS DISTINCT FROM")?.base();
        let a = self.coerce(a, &kind, Willing::Implicit)?;
        let b = self.coerce(b, &kind, Willing::Implicit)?;
        Ok(boolean(Expr::Distinct(distinct, Box::new(a), Box::new(b))))
    }

    fn in_expr(
        &mut self,
        expr: &ast::Expr,
        target: &ast::InTarget,
        negated: bool,
    ) -> Result<Typed, SqlError> {
        match target {
            ast::InTarget::Subquery(query) => {
                let left = match self.row(expr)? {
                    Some(row) => row,
                    None => [self.expr(expr)?].into(),
                };
                let found = self.in_query(left, query, Comparison::Eq, false)?;
                Ok(not_if(negated, found.expr))
            }
            ast::InTarget::List(list) => {
                if let Some(row) = self.row(expr)? {
                    let mut any = Vec::new();
                    for item in list {
                        let other = self.row(item)?.ok_or_else(|| unsupported("this IN list"))?;
                        any.push(self.compare_rows(Comparison::Eq, row.clone(), other)?);
                    }
                    return Ok(not_if(negated, Expr::Or(any)));
                }
                let left = self.expr(expr)?;
                let items = list.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>, _>>()?;
                let mut common = Ok(left.kind.clone());
                for item in items.iter().filter(|item| item.kind != Type::Unknown) {
                    common = common.and_then(|kind| match kind {
                        Type::Unknown => Ok(item.kind.clone()),
                        kind => Self::common(&kind, &item.kind, "="),
                    });
                }
                let Ok(kind) = common else {
                    // No type fits all of them: each is compared for itself.
                    let any = items
                        .into_iter()
                        .map(|item| self.compare(Comparison::Eq, left.clone(), item))
                        .collect::<Result<Vec<_>, _>>()?;
                    return Ok(not_if(negated, Expr::Or(any)));
                };
                let kind = if kind == Type::Unknown { Type::Text } else { kind.base() };
                let left = self.coerce(left, &kind, Willing::Implicit)?;
                let items = items
                    .into_iter()
                    .map(|item| self.coerce(item, &kind, Willing::Implicit))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(not_if(negated, Expr::InList(Box::new(left), items)))
            }
            _ => Err(unsupported("this form of IN")),
        }
    }

    /// `row op ANY (query)`.
    fn in_query(
        &mut self,
        left: Vec<Typed>,
        query: &ast::Query,
        op: Comparison,
        all: bool,
    ) -> Result<Typed, SqlError> {
        let (plan, output) = self.subplan(query)?;
        if output.len() != left.len() {
            let what = if output.len() > left.len() { "many" } else { "few" };
            return Err(SqlError::new(SqlState::SyntaxError, format!("subquery has too {what} columns")));
        }
        let mut operands = Vec::new();
        let mut casts = Vec::new();
        let columns = plan.columns();
        for (left, (column, col)) in left.into_iter().zip(output.iter().zip(columns)) {
            let kind = Self::common(&left.kind, &column.kind, op.sign())?.base();
            operands.push(self.coerce(left, &kind, Willing::Implicit)?);
            let right = Typed { expr: Expr::Col(col), kind: column.kind.clone() };
            casts.push(self.coerce(right, &kind, Willing::Implicit)?);
        }
        let plain = casts.iter().all(|e| matches!(e, Expr::Col(_)));
        let plan = if plain {
            plan
        } else {
            let list = casts.into_iter().map(|e| (e, self.col())).collect();
            crate::plan::Plan::Project(Box::new(plan), list)
        };
        let ask = Ask::Quantified { left: operands, comparison: op, all };
        Ok(boolean(Expr::Subquery(Box::new(ask), Box::new(plan))))
    }

    fn quantified(
        &mut self,
        left: &ast::Expr,
        op: &ast::BinaryOperator,
        right: &ast::Expr,
        all: bool,
    ) -> Result<Typed, SqlError> {
        let Some(comparison) = operator::comparison(op) else {
            let items = elements(right).ok_or_else(|| unsupported("this operator with ANY or ALL"))?;
            let left = self.expr(left)?;
            let mut list = Vec::new();
            for item in items {
                let item = self.expr(item)?;
                let found = self.binary(op, left.clone(), item)?;
                list.push(self.boolean(found, "ANY/ALL")?);
            }
            return Ok(boolean(if all { Expr::And(list) } else { Expr::Or(list) }));
        };
        if let ast::Expr::Subquery(query) = unwrapped(right) {
            let left = match self.row(left)? {
                Some(row) => row,
                None => [self.expr(left)?].into(),
            };
            return self.in_query(left, query, comparison, all);
        }
        let (left, right) = (self.expr(left)?, self.expr(right)?);
        let element = match &right.kind {
            Type::Array(element) => (**element).clone(),
            Type::Unknown => left.kind.clone(),
            other => {
                return Err(SqlError::new(
                    SqlState::WrongObjectType,
                    format!("op ANY/ALL requires an array on the right side, not {}", other.name()),
                ));
            }
        };
        let kind = Self::common(&left.kind, &element, comparison.sign())?.base();
        let left = self.coerce(left, &kind, Willing::Implicit)?;
        let right = self.coerce(right, &Type::Array(Box::new(kind)), Willing::Implicit)?;
        Ok(boolean(Expr::AnyOf(Box::new(left), comparison, Box::new(right), all)))
    }

    fn like(
        &mut self,
        name: &str,
        negated: bool,
        expr: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::Expr>,
    ) -> Result<Typed, SqlError> {
        let mut args: Vec<&ast::Expr> = [expr, pattern].into();
        args.extend(escape);
        let found = self.function_of(name, &args)?;
        Ok(not_if(negated, found.expr))
    }

    /// `LIKE ANY (ARRAY[…])` or `ALL`: one pattern after the other.
    fn like_each(
        &mut self,
        name: &str,
        negated: bool,
        expr: &ast::Expr,
        patterns: Option<(&[ast::Expr], bool)>,
    ) -> Result<Typed, SqlError> {
        let (patterns, all) = patterns.unwrap_or_default();
        let each = patterns.iter().map(|pattern| self.like(name, negated, expr, pattern, None));
        let list = each.map(|found| found.map(|typed| typed.expr)).collect::<Result<Vec<_>, _>>()?;
        Ok(boolean(if all { Expr::And(list) } else { Expr::Or(list) }))
    }

    fn interval(interval: &ast::Interval) -> Result<Typed, SqlError> {
        let ast::Expr::Value(value) = unwrapped(&interval.value) else {
            return Err(unsupported("an interval that is no literal"));
        };
        let literal = match &value.value {
            ast::Value::Number(digits, _) => digits.clone(),
            other => string_of(other).ok_or_else(|| unsupported("this interval"))?,
        };
        let unit = interval.leading_field.as_ref().map(|f| f.to_string().to_lowercase());
        let unit = interval.last_field.as_ref().map(|f| f.to_string().to_lowercase()).or(unit);
        let span = datetime::parse_interval(&literal, unit.as_deref()).map_err(|_| {
            SqlError::new(
                SqlState::InvalidDatetimeFormat,
                format!("invalid input syntax for type interval: \"{literal}\""),
            )
        })?;
        let span = unit.map_or(span, |unit| datetime::down_to(span, &unit));
        Ok(Typed { expr: Expr::Const(Value::Interval(span)), kind: Type::Interval })
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        arms: &[ast::CaseWhen],
        rest: Option<&ast::Expr>,
    ) -> Result<Typed, SqlError> {
        let operand = operand.map(|e| self.expr(e)).transpose()?;
        let mut conditions = Vec::new();
        let mut results = Vec::new();
        for arm in arms {
            conditions.push(match &operand {
                None => self.condition(&arm.condition, "CASE/WHEN")?,
                Some(operand) => {
                    let value = self.expr(&arm.condition)?;
                    self.compare(Comparison::Eq, operand.clone(), value)?
                }
            });
            results.push(self.expr(&arm.result)?);
        }
        results.push(match rest {
            Some(rest) => self.expr(rest)?,
            None => Typed { expr: Expr::NULL, kind: Type::Unknown },
        });
        let kinds: Vec<Type> = results.iter().map(|r| r.kind.clone()).collect();
        let kind = Self::unify(&kinds, "CASE")?;
        let mut results = results
            .into_iter()
            .map(|r| self.coerce(r, &kind, Willing::Implicit))
            .collect::<Result<Vec<_>, _>>()?;
        let rest = results.pop().unwrap_or(Expr::NULL);
        let arms = conditions.into_iter().zip(results).collect();
        Ok(Typed { expr: Expr::Case(arms, Box::new(rest)), kind })
    }

    fn array(&mut self, items: &[ast::Expr]) -> Result<Typed, SqlError> {
        let items = items.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>, _>>()?;
        if items.is_empty() {
            let message = "cannot determine type of empty array";
            return Err(SqlError::new(SqlState::IndeterminateDatatype, message)
                .hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
        }
        let kinds: Vec<Type> = items.iter().map(|i| i.kind.clone()).collect();
        let kind = Self::unify(&kinds, "ARRAY")?;
        let items =
            items.into_iter().map(|i| self.coerce(i, &kind, Willing::Implicit)).collect::<Result<_, _>>()?;
        Ok(Typed { expr: Expr::Array(items), kind: Type::Array(Box::new(kind)) })
    }

    /// `(a, b) OVERLAPS (c, d)`: spans of time, each from a beginning to an end or for an interval.
    fn overlaps(&mut self, left: &ast::Expr, right: &ast::Expr) -> Result<Typed, SqlError> {
        let mut args = Vec::new();
        for side in [left, right] {
            let ast::Expr::Tuple(pair) = side else {
                return Err(unsupported("OVERLAPS of other than pairs"));
            };
            let [start, end] = &pair[..] else { return Err(unsupported("OVERLAPS of other than pairs")) };
            args.push(self.expr(start)?);
            let mut last = self.expr(end)?;
            if last.kind == Type::Interval {
                last = self.expr(&ast::Expr::BinaryOp {
                    left: Box::new(start.clone()),
                    op: ast::BinaryOperator::Plus,
                    right: Box::new(end.clone()),
                })?;
            }
            args.push(last);
        }
        self.apply_function("overlaps", args)
    }

    fn access(&mut self, root: &ast::Expr, chain: &[ast::AccessExpr]) -> Result<Typed, SqlError> {
        let mut value = self.expr(root)?;
        for step in chain {
            if let ast::AccessExpr::Subscript(ast::Subscript::Slice {
                lower_bound,
                upper_bound,
                stride: None,
            }) = step
                && matches!(value.kind, Type::Array(_))
            {
                let mut args = Vec::from([value]);
                for (bound, open) in [(lower_bound, 1), (upper_bound, i64::from(i32::MAX))] {
                    args.push(match bound {
                        Some(bound) => self.expr(bound)?,
                        None => Typed { expr: Expr::Const(Value::Int(open)), kind: Type::Integer },
                    });
                }
                value = self.apply_function("array_slice_of", args)?;
                continue;
            }
            let ast::AccessExpr::Subscript(ast::Subscript::Index { index }) = step else {
                return Err(unsupported("this access to a part of a value"));
            };
            let index = self.expr(index)?;
            value = match value.kind.clone() {
                Type::Array(element) => {
                    let index = self.coerce(index, &Type::Integer, Willing::Implicit)?;
                    Typed { expr: Expr::Subscript(Box::new(value.expr), Box::new(index)), kind: *element }
                }
                Type::Jsonb => self.apply_function("->", [value, index].into())?,
                other => {
                    return Err(SqlError::new(
                        SqlState::DatatypeMismatch,
                        format!(
                            "cannot subscript type {} because it does not support subscripting",
                            other.name()
                        ),
                    ));
                }
            };
        }
        Ok(value)
    }
}

/// The elements of `ARRAY[…]`.
fn elements(expr: &ast::Expr) -> Option<&[ast::Expr]> {
    match unwrapped(expr) {
        ast::Expr::Array(array) => Some(&array.elem),
        _ => None,
    }
}

/// The patterns behind `LIKE ANY` or `LIKE ALL`, and whether all must fit; the parser takes ALL for a function.
fn patterns(pattern: &ast::Expr, any: bool) -> Option<(&[ast::Expr], bool)> {
    if any {
        return elements(pattern).map(|list| (list, false));
    }
    let ast::Expr::Function(function) = pattern else { return None };
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    match &list.args[..] {
        [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr))]
            if super::last_part(&function.name) == "all" =>
        {
            elements(expr).map(|list| (list, true))
        }
        _ => None,
    }
}

/// The text of a string literal.
pub(super) fn string_of(value: &ast::Value) -> Option<String> {
    Some(match value {
        ast::Value::SingleQuotedString(text)
        | ast::Value::EscapedStringLiteral(text)
        | ast::Value::UnicodeStringLiteral(text)
        | ast::Value::NationalStringLiteral(text) => text.clone(),
        ast::Value::DollarQuotedString(text) => text.value.clone(),
        _ => return None,
    })
}

/// The negation of a number that is written out, with as many signs as there are.
fn negated(expr: &ast::Expr) -> Option<String> {
    match unwrapped(expr) {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => Some(format!("-{digits}")),
            _ => None,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => {
            let inner = negated(expr)?;
            Some(inner.strip_prefix('-').map_or_else(|| format!("-{inner}"), String::from))
        }
        _ => None,
    }
}

fn number(digits: &str) -> Result<Typed, SqlError> {
    let plain = digits.replace('_', "");
    if let Ok(value) = plain.parse::<i64>() {
        let kind = if i32::try_from(value).is_ok() { Type::Integer } else { Type::BigInt };
        return Ok(Typed { expr: Expr::Const(Value::Int(value)), kind });
    }
    match Decimal::parse(&plain) {
        Some(value) => Ok(Typed { expr: Expr::Const(Value::Decimal(value)), kind: Type::Decimal(None) }),
        None => Err(text::too_wide()),
    }
}
