//! Calls: scalar functions, aggregates, window functions, and the functions that are syntax in disguise.
#![allow(clippy::match_same_arms, reason = "tables of cases keep one case per line")]

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::{Object, SqlError, SqlState, Type, Value};
use sqlparser::ast;

use super::{Binder, PUBLIC, Typed, kept, last_part, near, parts_of, unsupported};
use crate::dialect::EXCLUDES;
use crate::expr::{Ask, Comparison, Expr};
use crate::function::{self, Arg, Function, Gives};
use crate::plan::{
    Aggregate, AggregateCall, Exclude, FrameBound, FrameUnit, PairStatistic, SortKey, TableFunction,
    WindowCall, WindowFunction,
};

/// Names of aggregates, to find near ones.
const AGGREGATES: [&str; 12] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "string_agg",
    "array_agg",
    "json_agg",
    "stddev",
    "variance",
];

fn aggregate_of(name: &str) -> Option<Aggregate> {
    Some(match name {
        "count" => Aggregate::Count,
        "sum" => Aggregate::Sum,
        "avg" => Aggregate::Avg,
        "min" => Aggregate::Min,
        "max" => Aggregate::Max,
        "bool_and" | "every" => Aggregate::BoolAnd,
        "bool_or" => Aggregate::BoolOr,
        "string_agg" => Aggregate::StringAgg,
        "array_agg" => Aggregate::ArrayAgg,
        "json_agg" | "jsonb_agg" => Aggregate::JsonAgg,
        "json_object_agg" | "jsonb_object_agg" => Aggregate::JsonObjectAgg,
        "variance" | "var_samp" => Aggregate::Variance { sample: true, root: false },
        "var_pop" => Aggregate::Variance { sample: false, root: false },
        "stddev" | "stddev_samp" => Aggregate::Variance { sample: true, root: true },
        "stddev_pop" => Aggregate::Variance { sample: false, root: true },
        "bit_and" => Aggregate::BitAnd,
        "bit_or" => Aggregate::BitOr,
        "bit_xor" => Aggregate::BitXor,
        "percentile_cont" => Aggregate::Percentile { continuous: true },
        "percentile_disc" => Aggregate::Percentile { continuous: false },
        "mode" => Aggregate::Mode,
        "corr" => Aggregate::Pair(PairStatistic::Corr),
        "covar_pop" => Aggregate::Pair(PairStatistic::CovarPop),
        "covar_samp" => Aggregate::Pair(PairStatistic::CovarSamp),
        "regr_count" => Aggregate::Pair(PairStatistic::Count),
        "regr_slope" => Aggregate::Pair(PairStatistic::Slope),
        "regr_intercept" => Aggregate::Pair(PairStatistic::Intercept),
        "regr_r2" => Aggregate::Pair(PairStatistic::R2),
        "regr_avgx" => Aggregate::Pair(PairStatistic::AverageX),
        "regr_avgy" => Aggregate::Pair(PairStatistic::AverageY),
        "regr_sxx" => Aggregate::Pair(PairStatistic::SquaresX),
        "regr_syy" => Aggregate::Pair(PairStatistic::SquaresY),
        "regr_sxy" => Aggregate::Pair(PairStatistic::Products),
        _ => return None,
    })
}

/// The function of that name that stands over a window alone, and its type; unknown if it is that of its argument.
fn of_window(name: &str) -> Option<(WindowFunction, Type)> {
    Some(match name {
        "row_number" => (WindowFunction::RowNumber, Type::BigInt),
        "rank" => (WindowFunction::Rank, Type::BigInt),
        "dense_rank" => (WindowFunction::DenseRank, Type::BigInt),
        "percent_rank" => (WindowFunction::PercentRank, Type::Double),
        "cume_dist" => (WindowFunction::CumeDist, Type::Double),
        "ntile" => (WindowFunction::Ntile, Type::Integer),
        "lag" => (WindowFunction::Shift(false), Type::Unknown),
        "lead" => (WindowFunction::Shift(true), Type::Unknown),
        "first_value" => (WindowFunction::FirstValue, Type::Unknown),
        "last_value" => (WindowFunction::LastValue, Type::Unknown),
        "nth_value" => (WindowFunction::NthValue, Type::Unknown),
        _ => return None,
    })
}

/// The function that gives rows of that name.
pub(super) fn table_function(name: &str) -> Option<TableFunction> {
    Some(match name {
        "generate_series" => TableFunction::Series,
        "unnest" => TableFunction::Unnest,
        "json_array_elements" | "jsonb_array_elements" => TableFunction::JsonElements,
        "json_array_elements_text" | "jsonb_array_elements_text" => TableFunction::JsonElementsText,
        "json_each" | "jsonb_each" => TableFunction::JsonEach,
        "json_each_text" | "jsonb_each_text" => TableFunction::JsonEachText,
        "json_object_keys" | "jsonb_object_keys" => TableFunction::JsonKeys,
        "string_to_table" => TableFunction::StringToTable,
        "regexp_matches" => TableFunction::Regex { split: false },
        "regexp_split_to_table" => TableFunction::Regex { split: true },
        "generate_subscripts" => TableFunction::Subscripts,
        _ => return None,
    })
}

/// Arguments of a function that gives rows, and its columns.
type TableCall = (Vec<Expr>, Vec<(String, Type)>);

impl Binder<'_> {
    /// The arguments of a call; `*` is none.
    fn arguments(&mut self, function: &ast::Function) -> Result<Vec<Typed>, SqlError> {
        let mut args = Vec::new();
        match &function.args {
            ast::FunctionArguments::None => {}
            ast::FunctionArguments::Subquery(query) => {
                let (plan, output) = self.subplan(query)?;
                let kind = output.first().map_or(Type::Unknown, |o| o.kind.clone());
                args.push(Typed { expr: Expr::Subquery(Box::new(Ask::Scalar), Box::new(plan)), kind });
            }
            ast::FunctionArguments::List(list) => {
                for arg in &list.args {
                    match arg {
                        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => {
                            args.push(self.expr(expr)?);
                        }
                        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard) => {}
                        _ => return Err(unsupported("this form of argument")),
                    }
                }
            }
        }
        Ok(args)
    }

    /// A function without parentheses.
    pub(super) fn bare_function(&mut self, name: &str) -> Option<Typed> {
        let now = self.now();
        let cast = |kind: Type| Typed {
            expr: Expr::Cast(Box::new(now.clone()), Type::TimestampTz, kind.clone(), true),
            kind,
        };
        Some(match name {
            "current_timestamp" => Typed { expr: now, kind: Type::TimestampTz },
            "localtimestamp" => cast(Type::Timestamp),
            "current_date" => cast(Type::Date),
            "localtime" | "current_time" => cast(Type::Time),
            "current_user" | "session_user" | "user" | "current_role" => {
                Typed { expr: Expr::Const(Value::text(&self.user)), kind: Type::Text }
            }
            "current_catalog" => Typed { expr: Expr::Const(Value::text("kimberlite")), kind: Type::Text },
            "current_schema" => Typed { expr: Expr::Const(Value::text("public")), kind: Type::Text },
            _ => return None,
        })
    }

    /// Binds a call.
    pub(super) fn call(&mut self, function: &ast::Function) -> Result<Typed, SqlError> {
        let name = last_part(&function.name);
        if let ast::FunctionArguments::Subquery(query) = &function.args
            && name == "array"
        {
            let (plan, output) = self.subplan(query)?;
            let kind = output.first().map_or(Type::Text, |o| o.kind.clone());
            let expr = Expr::Subquery(Box::new(Ask::Array), Box::new(plan));
            return Ok(Typed { expr, kind: Type::Array(Box::new(kind)) });
        }
        if function.over.is_some() {
            return self.window(&name, function);
        }
        if let Some(aggregate) = aggregate_of(&name) {
            return self.aggregate(aggregate, &name, function);
        }
        if name == "grouping" {
            let args = self.arguments(function)?.into_iter().map(|t| t.expr).collect();
            let col = self.col();
            self.scope().groupings.push((args, col));
            return Ok(Typed { expr: Expr::Col(col), kind: Type::Integer });
        }
        if matches!(function.args, ast::FunctionArguments::None)
            && let Some(typed) = self.bare_function(&name)
        {
            return Ok(typed);
        }
        let args = self.arguments(function)?;
        if function::named(&name).is_empty() && of_window(&name).is_some() {
            let message = format!("window function {name} requires an OVER clause");
            return Err(SqlError::new(SqlState::WrongObjectType, message));
        }
        if let Some(table) = table_function(&name) {
            return self.series(table, &name, args);
        }
        if function::named(&name).is_empty()
            && let Some(typed) = self.routine(&function.name, &args)?
        {
            return Ok(typed);
        }
        self.special(&name, args)
    }

    /// A function that gives rows, in a select list.
    fn series(&mut self, table: TableFunction, name: &str, args: Vec<Typed>) -> Result<Typed, SqlError> {
        let (args, kinds) = self.table_arguments(&table, name, args)?;
        let [kind] = &kinds[..] else { return Err(unsupported(format!("{name} in a select list"))) };
        if !self.scope().series_allowed {
            let message = "set-returning functions are not allowed here";
            return Err(SqlError::new(SqlState::FeatureNotSupported, message)
                .hint("They stand in FROM, or in the select list."));
        }
        let col = self.col();
        self.scope().series.push((table, args, col));
        Ok(Typed { expr: Expr::Col(col), kind: kind.1.clone() })
    }

    /// The arguments of a function that gives rows, with the names and types of its columns.
    pub(super) fn table_arguments(
        &mut self,
        table: &TableFunction,
        name: &str,
        args: Vec<Typed>,
    ) -> Result<TableCall, SqlError> {
        let named = |kind: Type| [(name.to_string(), kind)].to_vec();
        match table {
            TableFunction::Series => {
                if !(2..=3).contains(&args.len()) {
                    return Err(self.no_function(name, &args));
                }
                let kinds: Vec<Type> = args.iter().map(|a| a.kind.clone()).collect();
                if kinds[0].is_datetime() || kinds[1].is_datetime() {
                    let zone =
                        kinds[..2].contains(&Type::TimestampTz) || !kinds[..2].contains(&Type::Timestamp);
                    let kind = if zone { Type::TimestampTz } else { Type::Timestamp };
                    let mut out = Vec::new();
                    for (at, arg) in args.into_iter().enumerate() {
                        let to = if at == 2 { Type::Interval } else { kind.clone() };
                        out.push(self.coerce(arg, &to, Willing::Implicit)?);
                    }
                    return Ok((out, named(kind)));
                }
                let kind = match Self::unify(&kinds, "generate_series")?.base() {
                    Type::Text => Type::Integer,
                    kind @ (Type::Integer | Type::BigInt | Type::Decimal(_)) => kind,
                    Type::SmallInt => Type::Integer,
                    _ => return Err(self.no_function(name, &args)),
                };
                let out = args
                    .into_iter()
                    .map(|a| self.coerce(a, &kind, Willing::Implicit))
                    .collect::<Result<_, _>>()?;
                Ok((out, named(kind)))
            }
            TableFunction::Unnest => {
                let mut kinds = Vec::new();
                for arg in &args {
                    match &arg.kind {
                        Type::Array(element) => kinds.push((name.to_string(), (**element).clone())),
                        _ => return Err(self.no_function(name, &args)),
                    }
                }
                Ok((args.into_iter().map(|a| a.expr).collect(), kinds))
            }
            TableFunction::Subscripts => match &args[..] {
                [array, dimension] if matches!(array.kind, Type::Array(_)) && dimension.kind.is_integer() => {
                    Ok((args.into_iter().map(|a| a.expr).collect(), named(Type::Integer)))
                }
                _ => Err(self.no_function(name, &args)),
            },
            TableFunction::Regex { .. } if !(2..=3).contains(&args.len()) => {
                Err(self.no_function(name, &args))
            }
            _ => {
                let texts = matches!(table, TableFunction::StringToTable | TableFunction::Regex { .. });
                let to = if texts { Type::Text } else { Type::Jsonb };
                let out = args
                    .into_iter()
                    .map(|a| self.coerce(a, &to, Willing::Implicit))
                    .collect::<Result<_, _>>()?;
                let value = || ("value".to_string(), Type::Jsonb);
                let texts = || ("value".to_string(), Type::Text);
                let key = || ("key".to_string(), Type::Text);
                Ok((
                    out,
                    match table {
                        TableFunction::JsonElements => [value()].into(),
                        TableFunction::JsonElementsText => [texts()].into(),
                        TableFunction::JsonEach => [key(), value()].into(),
                        TableFunction::JsonEachText => [key(), texts()].into(),
                        TableFunction::Regex { split: false } => named(Type::Array(Box::new(Type::Text))),
                        _ => named(Type::Text),
                    },
                ))
            }
        }
    }

    fn sequence_named(&mut self, args: &[Typed]) -> Result<kimberlite_row::ObjectId, SqlError> {
        let folded = args.first().map(|arg| {
            let mut name = arg.expr.clone();
            let mut shared = crate::eval::Shared::new(self.now, 0);
            crate::eval::fold(&mut name, &mut shared);
            name
        });
        let Some(Expr::Const(Value::Text(name))) = &folded else {
            return Err(unsupported("a sequence whose name is not a literal"));
        };
        let mut parts = parts_of(name, true);
        let own = parts.pop().unwrap_or_default();
        let kept = kept(parts.last().map_or(PUBLIC, String::as_str), &own);
        match self.catalogue.named(&kept) {
            Some(Object::Sequence(sequence)) => {
                if !self.sequences.contains(&sequence.id) {
                    self.sequences.push(sequence.id);
                }
                Ok(sequence.id)
            }
            Some(_) => Err(SqlError::new(SqlState::WrongObjectType, format!("\"{kept}\" is not a sequence"))),
            None => Err(super::unknown(&kept, self.catalogue)),
        }
    }

    fn special(&mut self, name: &str, mut args: Vec<Typed>) -> Result<Typed, SqlError> {
        match (name, args.len()) {
            ("coalesce" | "greatest" | "least", 1..) => {
                let kinds: Vec<Type> = args.iter().map(|a| a.kind.clone()).collect();
                let kind = Self::unify(&kinds, &name.to_uppercase())?;
                let list = args
                    .into_iter()
                    .map(|a| self.coerce(a, &kind, Willing::Implicit))
                    .collect::<Result<Vec<_>, _>>()?;
                if name == "coalesce" {
                    return Ok(Typed { expr: Expr::Coalesce(list), kind });
                }
                let function = function::named(name).into_iter().next();
                function.map_or_else(
                    || Err(unsupported(name)),
                    |f| Ok(Typed { expr: Expr::Call(f, list, kind.clone()), kind }),
                )
            }
            ("concat" | "greatest" | "least", 0) | ("concat_ws", 1) => Err(self.no_function(name, &args)),
            ("nullif", 2) => {
                let b = args.remove(1);
                let a = args.remove(0);
                let kind = Self::left_of_equal(&a.kind, &b.kind)?;
                let equal = self.compare(Comparison::Eq, a.clone(), b)?;
                let value = self.coerce(a, &kind, Willing::Implicit)?;
                Ok(Typed { expr: Expr::Case([(equal, Expr::NULL)].into(), Box::new(value)), kind })
            }
            ("now" | "transaction_timestamp" | "statement_timestamp" | "clock_timestamp", 0) => {
                Ok(Typed { expr: self.now(), kind: Type::TimestampTz })
            }
            ("nextval" | "currval", 1) if args[0].expr == Expr::NULL => {
                Ok(Typed { expr: Expr::NULL, kind: Type::BigInt })
            }
            ("random", 0) => Ok(Typed { expr: Expr::Random, kind: Type::Double }),
            ("nextval", 1) => {
                Ok(Typed { expr: Expr::NextValue(self.sequence_named(&args)?), kind: Type::BigInt })
            }
            ("currval", 1) => {
                Ok(Typed { expr: Expr::CurrentValue(self.sequence_named(&args)?), kind: Type::BigInt })
            }
            ("lastval", 0) => Ok(Typed { expr: Expr::LastValue, kind: Type::BigInt }),
            ("setval", 2 | 3) => {
                let id = self.sequence_named(&args)?;
                let taken = match args.len() {
                    3 => self.coerce(args.remove(2), &Type::Bool, Willing::Implicit)?,
                    _ => Expr::TRUE,
                };
                let value = self.coerce(args.remove(1), &Type::BigInt, Willing::Implicit)?;
                let expr = Expr::SetValue(id, Box::new(value), Box::new(taken));
                Ok(Typed { expr, kind: Type::BigInt })
            }
            ("timezone", 2) => {
                let value = args.remove(1);
                self.at_time_zone(&args[0], value)
            }
            ("gen_random_uuid", 0) => Ok(Typed { expr: Expr::RandomUuid, kind: Type::Uuid }),
            ("pg_typeof", 1) => {
                Ok(Typed { expr: Expr::Const(Value::from(args[0].kind.name())), kind: Type::Text })
            }
            ("current_user" | "session_user", 0) => {
                Ok(Typed { expr: Expr::Const(Value::text(&self.user)), kind: Type::Text })
            }
            ("age", 1) => {
                let today = Expr::Cast(Box::new(self.now()), Type::TimestampTz, Type::Date, true);
                let today = Expr::Cast(Box::new(today), Type::Date, Type::Timestamp, true);
                args.insert(0, Typed { expr: today, kind: Type::Timestamp });
                self.apply_function("age", args)
            }
            _ => self.apply_function(name, args),
        }
    }

    fn no_function(&self, name: &str, args: &[Typed]) -> SqlError {
        let kinds: Vec<_> = args.iter().map(|a| a.kind.name()).collect();
        let error = SqlError::new(
            SqlState::UndefinedFunction,
            format!("function {name}({}) does not exist", kinds.join(", ")),
        );
        let own = self.catalogue.objects().filter_map(|object| match object {
            Object::Function(function) => Some(super::bare(function.name.split('(').next().unwrap_or(""))),
            _ => None,
        });
        let own: Vec<String> = own.collect();
        let known = function::names().into_iter().chain(AGGREGATES).chain(own.iter().map(String::as_str));
        // Of a short name, one letter is much.
        let close = |near: &String| near != name && super::distance(name, near) <= (name.len() / 3).max(1);
        match near(name, known).filter(close) {
            Some(near) => error.hint(format!("Perhaps you meant the function \"{near}\".")),
            None => error.hint("No function matches the given name and argument types. You might need to add explicit type casts."),
        }
    }

    /// Finds the function that fits best, and casts its arguments.
    pub(super) fn apply_function(&mut self, name: &str, args: Vec<Typed>) -> Result<Typed, SqlError> {
        let mut best: Option<(u32, &'static Function)> = None;
        for function in function::named(name).into_iter().filter(|f| f.takes(args.len())) {
            let mut cost = Some(0);
            for (at, arg) in args.iter().enumerate() {
                let fit = match function.arg(at) {
                    Arg::Any | Arg::Element => Some(0),
                    Arg::AnyArray => matches!(arg.kind, Type::Array(_) | Type::Unknown).then_some(0),
                    Arg::Is(kind) => Self::fit(&arg.kind, kind),
                };
                cost = cost.zip(fit).map(|(a, b)| a + b);
            }
            if let Some(cost) = cost
                && best.is_none_or(|(least, _)| cost < least)
            {
                best = Some((cost, function));
            }
        }
        let Some((_, function)) = best else {
            // A type is a function of one argument: its cast.
            return match (<[Typed; 1]>::try_from(args), cast_named(name)) {
                (Ok([arg]), Some(kind)) => {
                    let expr = self.coerce(arg, &kind, Willing::Explicit)?;
                    Ok(Typed { expr, kind })
                }
                (Ok(args), None) => Err(self.no_function(name, &args)),
                (Err(args), _) => Err(self.no_function(name, &args)),
            };
        };
        let kinds: Vec<Type> = args.iter().map(|a| a.kind.clone()).collect();
        // The type of elements is that of the array; without one, that of an element.
        let given = |(at, kind): (usize, &Type)| match (function.arg(at), kind) {
            (Arg::AnyArray, Type::Array(element)) => Some((**element).clone()),
            _ => None,
        };
        let single = |(at, kind): (usize, &Type)| {
            (*function.arg(at) == Arg::Element && *kind != Type::Unknown).then(|| kind.base())
        };
        let element = kinds.iter().enumerate().find_map(given);
        let element = element.or_else(|| kinds.iter().enumerate().find_map(single)).unwrap_or(Type::Text);
        let kinds: Vec<Type> = kinds
            .iter()
            .enumerate()
            .map(|(at, kind)| match (function.arg(at), kind) {
                (Arg::AnyArray, Type::Unknown) => Type::Array(Box::new(element.clone())),
                _ => kind.clone(),
            })
            .collect();
        let mut values = Vec::new();
        for (at, arg) in args.into_iter().enumerate() {
            let to = match function.arg(at) {
                Arg::Is(kind) => kind.clone(),
                Arg::Element => element.clone(),
                Arg::AnyArray if arg.kind == Type::Unknown => Type::Array(Box::new(element.clone())),
                _ if arg.kind == Type::Unknown => Type::Text,
                _ => arg.kind.clone(),
            };
            values.push(self.coerce(arg, &to, Willing::Implicit)?);
        }
        let kind_at = |at: usize| kinds.get(at).cloned().unwrap_or(Type::Text);
        let kind = match &function.gives {
            Gives::Is(kind) => kind.clone(),
            Gives::Same(at) => kind_at(*at),
            Gives::ElementOf(at) => match kind_at(*at) {
                Type::Array(element) => *element,
                other => other,
            },
            Gives::ArrayOf(at) => Type::Array(Box::new(kind_at(*at))),
            Gives::Texts => Type::Array(Box::new(Type::Text)),
        };
        Ok(Typed { expr: Expr::Call(function, values, kind.clone()), kind })
    }

    /// Sort keys.
    pub(super) fn sort_key(&mut self, key: &ast::OrderByExpr) -> Result<SortKey, SqlError> {
        let expr = self.expr(&key.expr)?.expr;
        Ok(with_options(expr, &key.options))
    }

    fn aggregate(
        &mut self,
        aggregate: Aggregate,
        name: &str,
        function: &ast::Function,
    ) -> Result<Typed, SqlError> {
        let scope = self.scope();
        if scope.inside_aggregate {
            return Err(SqlError::new(SqlState::GroupingError, "aggregate function calls cannot be nested"));
        }
        let windows = core::mem::replace(&mut scope.windows_allowed, false);
        let series = core::mem::replace(&mut scope.series_allowed, false);
        scope.inside_aggregate = true;
        let call = self.aggregate_call(aggregate, name, function);
        let scope = self.scope();
        scope.inside_aggregate = false;
        scope.windows_allowed = windows;
        scope.series_allowed = series;
        let call = call?;
        let level = self.level_of(&call);
        let col = self.col();
        let scope = &mut self.scopes[level];
        if scope.inside_aggregate {
            return Err(SqlError::new(SqlState::GroupingError, "aggregate function calls cannot be nested"));
        }
        if let Some(place) = scope.aggregates_allowed {
            return Err(SqlError::new(
                SqlState::GroupingError,
                format!("aggregate functions are not allowed in {place}"),
            ));
        }
        let kind = call.kind.clone();
        if let Some((_, col)) = scope.calls.iter().find(|(known, _)| *known == call) {
            return Ok(Typed { expr: Expr::Col(*col), kind });
        }
        scope.calls.push((call, col));
        Ok(Typed { expr: Expr::Col(col), kind })
    }

    /// The query an aggregate belongs to: the innermost one of which its arguments read a column.
    fn level_of(&self, call: &AggregateCall) -> usize {
        let mut cols = Vec::new();
        let order = call.order.iter().map(|key| &key.expr);
        for expr in call.arguments.iter().chain(&call.filter).chain(order) {
            expr.columns(&mut |col| cols.push(col));
        }
        let reads =
            |scope: &super::Scope| scope.columns.iter().any(|c| cols.contains(&c.col) || both(c, &cols));
        self.scopes.iter().rposition(reads).unwrap_or(self.scopes.len() - 1)
    }

    #[allow(clippy::too_many_lines, reason = "the parts of a call in order, and the table of types")]
    fn aggregate_call(
        &mut self,
        aggregate: Aggregate,
        name: &str,
        function: &ast::Function,
    ) -> Result<AggregateCall, SqlError> {
        let mut args = self.arguments(function)?;
        let (mut distinct, mut order) = (false, Vec::new());
        let mut star = false;
        if let ast::FunctionArguments::List(list) = &function.args {
            distinct = list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct);
            star = matches!(list.args[..], [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Wildcard)]);
            for clause in &list.clauses {
                match clause {
                    ast::FunctionArgumentClause::OrderBy(keys) => {
                        for key in keys {
                            order.push(self.sort_key(key)?);
                        }
                    }
                    _ => return Err(unsupported("this clause of an aggregate")),
                }
            }
        }
        let within = matches!(aggregate, Aggregate::Percentile { .. } | Aggregate::Mode);
        if within {
            let [key] = &function.within_group[..] else {
                return Err(SqlError::new(
                    SqlState::SyntaxError,
                    format!("WITHIN GROUP is required for {name}"),
                ));
            };
            let value = self.expr(&key.expr)?;
            order.push(with_options(value.expr.clone(), &key.options));
            args.insert(0, value);
        } else if !function.within_group.is_empty() {
            let message = format!("{name} is not an ordered-set aggregate, so it cannot have WITHIN GROUP");
            return Err(SqlError::new(SqlState::WrongObjectType, message));
        }
        if distinct && order.iter().any(|key| !args.iter().any(|arg| arg.expr == key.expr)) {
            let message = "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list";
            return Err(SqlError::new(SqlState::InvalidColumnReference, message));
        }
        let filter = match &function.filter {
            Some(filter) => Some(self.condition(filter, "FILTER")?),
            None => None,
        };
        let wanted = match aggregate {
            Aggregate::Count if star => 0,
            Aggregate::StringAgg
            | Aggregate::JsonObjectAgg
            | Aggregate::Pair(_)
            | Aggregate::Percentile { .. } => 2,
            _ => 1,
        };
        if args.len() != wanted || (star && aggregate != Aggregate::Count) {
            return Err(self.no_function(name, &args));
        }
        let argument_kind = args.first().map_or(Type::Unknown, |a| a.kind.clone());

        // The type the aggregate works in, and the one it gives.
        let (to, kind): (Option<Type>, Type) = match (aggregate, &argument_kind) {
            (Aggregate::Count | Aggregate::CountAll, _) => (None, Type::BigInt),
            (Aggregate::Sum, Type::SmallInt | Type::Integer) => (None, Type::BigInt),
            (Aggregate::Sum | Aggregate::Avg, Type::BigInt | Type::Decimal(_)) => (None, Type::Decimal(None)),
            (Aggregate::Avg, Type::SmallInt | Type::Integer) => (None, Type::Decimal(None)),
            (Aggregate::Sum, Type::Real) => (None, Type::Real),
            (Aggregate::Avg, Type::Real) => (Some(Type::Double), Type::Double),
            (Aggregate::Sum | Aggregate::Avg, Type::Double) => (None, Type::Double),
            (Aggregate::Sum | Aggregate::Avg, Type::Interval) => (None, Type::Interval),
            (Aggregate::Min | Aggregate::Max, Type::Bool | Type::Jsonb | Type::Uuid) => {
                return Err(self.no_function(name, &args));
            }
            (Aggregate::Min | Aggregate::Max, Type::Unknown | Type::Varchar(_)) => {
                (Some(Type::Text), Type::Text)
            }
            (Aggregate::Min | Aggregate::Max, kind) => (None, kind.clone()),
            (Aggregate::BoolAnd | Aggregate::BoolOr, Type::Bool | Type::Unknown) => {
                (Some(Type::Bool), Type::Bool)
            }
            (Aggregate::StringAgg, kind) if kind.is_text() || *kind == Type::Unknown => {
                (Some(Type::Text), Type::Text)
            }
            (Aggregate::ArrayAgg, Type::Array(_)) => {
                return Err(unsupported("an array of more than one dimension"));
            }
            (Aggregate::ArrayAgg, Type::Unknown) => (Some(Type::Text), Type::Array(Box::new(Type::Text))),
            (Aggregate::ArrayAgg, kind) => (None, Type::Array(Box::new(kind.clone()))),
            (Aggregate::JsonAgg | Aggregate::JsonObjectAgg, _) => (None, Type::Jsonb),
            (Aggregate::Variance { .. }, kind) if kind.is_integer() || matches!(kind, Type::Decimal(_)) => {
                (None, Type::Decimal(None))
            }
            (Aggregate::Variance { .. }, Type::Real | Type::Double) => (Some(Type::Double), Type::Double),
            (Aggregate::BitAnd | Aggregate::BitOr | Aggregate::BitXor, kind) if kind.is_integer() => {
                (None, kind.clone())
            }
            (Aggregate::Percentile { continuous: true }, kind) if kind.is_number() => {
                (Some(Type::Double), Type::Double)
            }
            (Aggregate::Percentile { continuous: false } | Aggregate::Mode, kind) => (None, kind.clone()),
            (Aggregate::Pair(statistic), kind) if kind.is_number() || *kind == Type::Unknown => {
                let gives = if statistic == PairStatistic::Count { Type::BigInt } else { Type::Double };
                (Some(Type::Double), gives)
            }
            _ => return Err(self.no_function(name, &args)),
        };
        let mut arguments = Vec::new();
        for (at, arg) in args.into_iter().enumerate() {
            let to = match (aggregate, at) {
                (Aggregate::StringAgg, 1) => Type::Text,
                (Aggregate::Percentile { .. } | Aggregate::Pair(_), 1) => Type::Double,
                (_, 0) => to.clone().unwrap_or_else(|| arg.kind.clone()),
                _ => arg.kind.clone(),
            };
            let to = if to == Type::Unknown { Type::Text } else { to };
            arguments.push(self.coerce(arg, &to, Willing::Implicit)?);
        }
        let function = if star { Aggregate::CountAll } else { aggregate };
        Ok(AggregateCall { function, arguments, distinct, filter, order, kind, argument_kind })
    }

    fn window(&mut self, name: &str, function: &ast::Function) -> Result<Typed, SqlError> {
        let scope = self.scope();
        if !scope.windows_allowed {
            return Err(SqlError::new(SqlState::WindowingError, "window functions are not allowed here"));
        }
        scope.windows_allowed = false;
        let call = self.window_call(name, function);
        self.scope().windows_allowed = true;
        let (call, kind) = call?;
        let col = self.col();
        self.scope().windows.push((call, col));
        Ok(Typed { expr: Expr::Col(col), kind })
    }

    #[allow(clippy::too_many_lines, reason = "the parts of a call in order, and the table of types")]
    fn window_call(&mut self, name: &str, function: &ast::Function) -> Result<(WindowCall, Type), SqlError> {
        let spec = match &function.over {
            Some(ast::WindowType::WindowSpec(spec)) => spec.clone(),
            Some(ast::WindowType::NamedWindow(name)) => self.named_window(name)?,
            None => return Err(unsupported("a window function without OVER")),
        };
        let base = match &spec.window_name {
            Some(name) => Some(self.named_window(name)?),
            None => None,
        };
        let (exclude, own) = excluded(&spec.partition_by);
        let partition = if own.is_empty() {
            base.as_ref().map_or(own, |base| excluded(&base.partition_by).1)
        } else {
            own
        };
        let order = if spec.order_by.is_empty() {
            base.as_ref().map_or(&spec.order_by, |b| &b.order_by)
        } else {
            &spec.order_by
        };
        let partition =
            partition.iter().map(|e| self.expr(e).map(|t| t.expr)).collect::<Result<Vec<_>, _>>()?;
        let mut keys = Vec::new();
        let mut key_kind = Type::Unknown;
        for key in order {
            let typed = self.expr(&key.expr)?;
            key_kind = typed.kind.clone();
            keys.push(with_options(typed.expr, &key.options));
        }
        let (mut unit, mut start, mut end) = (FrameUnit::Range, FrameBound::First, FrameBound::Current);
        if let Some(frame) = &spec.window_frame {
            unit = match frame.units {
                ast::WindowFrameUnits::Rows => FrameUnit::Rows,
                ast::WindowFrameUnits::Range => FrameUnit::Range,
                ast::WindowFrameUnits::Groups => FrameUnit::Groups,
            };
            start = self.frame_bound(&frame.start_bound, unit, &key_kind)?;
            end = match &frame.end_bound {
                Some(bound) => self.frame_bound(bound, unit, &key_kind)?,
                None => FrameBound::Current,
            };
            let far = |bound: &FrameBound| matches!(bound, FrameBound::Before(_) | FrameBound::Behind(_));
            if unit == FrameUnit::Range && keys.len() != 1 && (far(&start) || far(&end)) {
                let message = "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column";
                return Err(SqlError::new(SqlState::WindowingError, message));
            }
            if unit == FrameUnit::Groups && keys.is_empty() {
                let message = "GROUPS mode requires an ORDER BY clause";
                return Err(SqlError::new(SqlState::WindowingError, message));
            }
            if start == FrameBound::Last || end == FrameBound::First {
                return Err(SqlError::new(SqlState::WindowingError, "the frame starts behind its end"));
            }
        }
        if keys.is_empty() && unit != FrameUnit::Rows && spec.window_frame.is_none() {
            end = FrameBound::Last;
        }
        let plain = of_window(name);
        let (function, arguments, kind) = match (plain, aggregate_of(name)) {
            (Some((window, kind)), _) => {
                let mut args = self.arguments(function)?;
                let least = match window {
                    WindowFunction::Ntile
                    | WindowFunction::Shift(_)
                    | WindowFunction::FirstValue
                    | WindowFunction::LastValue => 1,
                    WindowFunction::NthValue => 2,
                    _ => 0,
                };
                if args.len() < least {
                    return Err(self.no_function(name, &args));
                }
                let mut kind = kind;
                if kind == Type::Unknown {
                    kind = args[0].kind.clone();
                    if args.len() == 3 {
                        kind = Self::unify(&[kind, args[2].kind.clone()], name)?;
                    }
                    kind = super::known_type(&kind);
                }
                let mut list = Vec::new();
                for (at, arg) in args.drain(..).enumerate() {
                    let to = match (&window, at) {
                        (WindowFunction::Ntile, _) | (_, 1) => Type::Integer,
                        _ => kind.clone(),
                    };
                    list.push(self.coerce(arg, &to, Willing::Implicit)?);
                }
                (window, list, kind)
            }
            (None, Some(aggregate)) => {
                let call = self.aggregate_call(aggregate, name, function)?;
                let kind = call.kind.clone();
                (WindowFunction::Aggregate(call), Vec::new(), kind)
            }
            (None, None) => {
                let args = self.arguments(function)?;
                return Err(self.no_function(name, &args));
            }
        };
        Ok((WindowCall { function, arguments, partition, order: keys, unit, start, end, exclude }, kind))
    }

    fn named_window(&mut self, ident: &ast::Ident) -> Result<ast::WindowSpec, SqlError> {
        let name = super::folded(ident);
        let found =
            self.scope().named_windows.iter().find(|(known, _)| *known == name).map(|(_, spec)| spec.clone());
        found.ok_or_else(|| {
            SqlError::new(SqlState::UndefinedObject, format!("window \"{name}\" does not exist"))
        })
    }

    fn frame_bound(
        &mut self,
        bound: &ast::WindowFrameBound,
        unit: FrameUnit,
        key: &Type,
    ) -> Result<FrameBound, SqlError> {
        let mut distance = |expr: &ast::Expr| -> Result<Expr, SqlError> {
            let to = match (unit, key) {
                (FrameUnit::Rows | FrameUnit::Groups, _) => {
                    // The parser makes an interval of a literal.
                    if let ast::Expr::Interval(ast::Interval { value, leading_field: None, .. }) = expr {
                        let typed = self.expr(value)?;
                        return self.coerce(typed, &Type::BigInt, Willing::Assignment);
                    }
                    Type::BigInt
                }
                (FrameUnit::Range, key) if key.is_datetime() => Type::Interval,
                (FrameUnit::Range, key) => key.clone(),
            };
            let typed = self.expr(expr)?;
            self.coerce(typed, &to, Willing::Assignment)
        };
        Ok(match bound {
            ast::WindowFrameBound::CurrentRow => FrameBound::Current,
            ast::WindowFrameBound::Preceding(None) => FrameBound::First,
            ast::WindowFrameBound::Following(None) => FrameBound::Last,
            ast::WindowFrameBound::Preceding(Some(expr)) => FrameBound::Before(distance(expr)?),
            ast::WindowFrameBound::Following(Some(expr)) => FrameBound::Behind(distance(expr)?),
        })
    }
}

/// Whether a column that stands for two reads one of these.
fn both(column: &super::Visible, cols: &[crate::expr::Col]) -> bool {
    let mut reads = false;
    if let Some(both) = &column.both {
        both.columns(&mut |col| reads |= cols.contains(&col));
    }
    reads
}

/// A sort key with its options: NULL is the largest.
pub(super) fn with_options(expr: Expr, options: &ast::OrderByOptions) -> SortKey {
    let descending = match &options.sort {
        Some(ast::OrderBySort::Using(operator)) => last_part(operator) == ">",
        sort => matches!(sort, Some(ast::OrderBySort::Desc)),
    };
    SortKey { expr, descending, nulls_first: options.nulls_first.unwrap_or(descending) }
}

/// What the frame of a window leaves out, which stands in front of what its partitions have in common.
fn excluded(partition: &[ast::Expr]) -> (Exclude, &[ast::Expr]) {
    let Some((ast::Expr::Value(first), rest)) = partition.split_first() else {
        return (Exclude::Nothing, partition);
    };
    let ast::Value::SingleQuotedString(text) = &first.value else { return (Exclude::Nothing, partition) };
    match EXCLUDES.iter().find(|(marker, ..)| *marker == text.as_str()) {
        Some((.., exclude)) => (*exclude, rest),
        None => (Exclude::Nothing, partition),
    }
}

/// The type that a function of this name casts to.
fn cast_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int2" => Type::SmallInt,
        "int4" => Type::Integer,
        "int8" => Type::BigInt,
        "float4" => Type::Real,
        "float8" => Type::Double,
        "numeric" => Type::Decimal(None),
        "text" => Type::Text,
        "varchar" => Type::Varchar(None),
        "bytea" => Type::Bytea,
        "date" => Type::Date,
        "time" => Type::Time,
        "timestamp" => Type::Timestamp,
        "timestamptz" => Type::TimestampTz,
        "interval" => Type::Interval,
        "uuid" => Type::Uuid,
        "jsonb" | "json" => Type::Jsonb,
        _ => return None,
    })
}
