//! The binder: names to columns, operators and functions to code, types everywhere.

mod call;
mod expr;
mod from;
mod group;
mod operator;
mod query;
mod routine;
mod select;
mod star;
mod system;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::{Willing, castable};
use kimberlite_row::{Catalogue, ObjectId, SqlError, SqlState, Type, Value, text};
use sqlparser::ast;

pub use from::{TimeTravel, unknown};
pub use query::{Output, known_type};

use crate::expr::{Col, Expr};
use crate::limits::NESTING_MAX;
use crate::plan::{AggregateCall, Plan, TableFunction, WindowCall};

/// An expression with its type.
#[derive(Clone, PartialEq, Debug)]
pub struct Typed {
    /// The expression.
    pub expr: Expr,
    /// Its type.
    pub kind: Type,
}

/// A column with its name and type, of something that has no table.
type NamedColumn = (String, Type, Col);

/// A column that a name can mean.
#[derive(Clone, Debug)]
pub struct Visible {
    /// The table or alias it belongs to.
    pub table: Option<String>,
    /// Its name.
    pub name: String,
    /// What it is in the plan.
    pub col: Col,
    /// Its type.
    pub kind: Type,
    /// Not part of `*`, and not found by its bare name: the other side of USING.
    pub merged: bool,
    /// Where it comes from, if from a table: with the columns that make its rows unique.
    pub key: Option<Arc<Vec<Col>>>,
    /// `COALESCE` of both sides of a full join's USING column.
    pub both: Option<Box<Expr>>,
}

/// The names visible in one query.
#[allow(clippy::struct_excessive_bools, reason = "what may stand in a clause, each for itself")]
#[derive(Clone, Debug, Default)]
pub struct Scope {
    columns: Vec<Visible>,
    /// Whether there is something that `*` can mean, even if it has no columns.
    from: bool,
    /// Where aggregates may stand: the calls found so far.
    calls: Vec<(AggregateCall, Col)>,
    windows: Vec<(WindowCall, Col)>,
    named_windows: Vec<(String, ast::WindowSpec)>,
    series: Vec<(TableFunction, Vec<Expr>, Col)>,
    groupings: Vec<(Vec<Expr>, Col)>,
    aggregates_allowed: Option<&'static str>,
    windows_allowed: bool,
    /// Whether functions that give rows may stand here.
    series_allowed: bool,
    inside_aggregate: bool,
}

/// A common table expression in sight.
#[derive(Clone, Debug)]
struct Cte {
    name: String,
    slot: usize,
    columns: Vec<(String, Type)>,
    /// How often a recursive query has named itself so far; none for other queries.
    recursive: Option<usize>,
}

/// Binds one statement.
pub struct Binder<'a> {
    /// The schema it is bound under.
    pub catalogue: &'a Catalogue,
    /// The text, for positions in errors.
    pub text: &'a str,
    /// Answers what positions and times mean.
    pub travel: Option<&'a dyn TimeTravel>,
    /// Types of `$n`; unknown until inferred.
    pub params: Vec<Type>,
    /// Objects the statement reads.
    pub reads: Vec<ObjectId>,
    /// Sequences the statement takes numbers from.
    pub sequences: Vec<ObjectId>,
    /// Tables that were read in the past.
    pub past: bool,
    /// Whether it was bound to what the catalogue as a whole holds, or to the state of something in it.
    pub whole: bool,
    /// The time of the transaction.
    pub now: i64,
    /// The name of the user.
    pub user: String,
    /// Slots taken.
    pub slots: usize,
    next: Col,
    scopes: Vec<Scope>,
    ctes: Vec<Cte>,
    /// What the arguments of the function stand for whose expression is bound.
    arguments: Vec<(String, Typed)>,
    depth: usize,
    statement_at: Option<from::Past>,
    missed: Option<kimberlite_row::fact::Miss>,
}

/// The text of a name: folded to lower case unless quoted.
pub fn folded(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// The parts of a name.
pub fn parts(name: &ast::ObjectName) -> Vec<String> {
    name.0
        .iter()
        .map(|part| match part {
            ast::ObjectNamePart::Identifier(ident) => folded(ident),
            ast::ObjectNamePart::Function(function) => folded(&function.name),
        })
        .collect()
}

/// The schema that is always there.
pub const PUBLIC: &str = "public";
/// The one database there is.
pub const DATABASE: &str = "kimberlite";

/// A part of a name as the catalogue keeps it: quoted if it could be taken for more than one part.
fn written(part: &str) -> String {
    if part.contains(['.', '"']) { format!("\"{}\"", part.replace('"', "\"\"")) } else { part.into() }
}

/// The name under which the catalogue keeps an object: that of its schema comes first, if it is not `public`.
pub fn kept(schema: &str, name: &str) -> String {
    if schema == PUBLIC { written(name) } else { format!("{}.{}", written(schema), written(name)) }
}

/// What the names of all objects of a schema begin with.
pub fn prefix(schema: &str) -> String {
    format!("{}.", written(schema))
}

/// The parts of a name in a text, between points that are not quoted; what is not quoted is folded if asked for.
pub fn parts_of(text: &str, fold: bool) -> Vec<String> {
    let mut parts = Vec::from([String::new()]);
    let (mut quoted, mut rest) = (false, text.chars().peekable());
    while let Some(c) = rest.next() {
        let last = parts.len() - 1;
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                parts[last].push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c if fold && !quoted => parts[last].extend(c.to_lowercase()),
            c => parts[last].push(c),
        }
    }
    parts
}

/// The schema and the own name of what the catalogue keeps under a name.
pub fn split(name: &str) -> (String, String) {
    let mut parts = parts_of(name, false);
    let own = parts.pop().unwrap_or_default();
    (parts.pop().unwrap_or_else(|| PUBLIC.to_string()), own)
}

/// The own name of what the catalogue keeps under a name.
pub fn bare(name: &str) -> String {
    split(name).1
}

/// Whether there is a schema of the name.
pub fn has_schema(catalogue: &Catalogue, schema: &str) -> bool {
    schema == PUBLIC || catalogue.named(&prefix(schema)).is_some()
}

/// There is no schema of the name.
pub fn no_schema(schema: &str) -> SqlError {
    SqlError::new(SqlState::InvalidSchemaName, format!("schema \"{schema}\" does not exist")).hint(NO_SCHEMA)
}

/// What to do when a schema is not there.
pub const NO_SCHEMA: &str =
    "CREATE SCHEMA makes one, and public is always there; a tenant is a database of its own.";

/// The name under which the catalogue keeps what a statement names.
pub fn own_name(name: &ast::ObjectName) -> Result<String, SqlError> {
    let mut all = parts(name);
    if all.len() == 3 && all[0] == DATABASE {
        all.remove(0);
    }
    match &all[..] {
        [own] => Ok(kept(PUBLIC, own)),
        [schema, own] => Ok(kept(schema, own)),
        [first, ..] => Err(no_schema(first)),
        [] => Ok(String::new()),
    }
}

/// The same, for a table or view that a statement reads or writes rows of.
pub fn row_name(name: &ast::ObjectName) -> Result<String, SqlError> {
    own_name(name).map_err(|_| {
        let message = format!("relation \"{}\" does not exist", parts(name).join("."));
        SqlError::new(SqlState::UndefinedTable, message).hint(NO_SCHEMA)
    })
}

/// The last part of a name, the others having been looked at.
pub fn last_part(name: &ast::ObjectName) -> String {
    parts(name).pop().unwrap_or_default()
}

/// Names that look alike: at most two letters off.
pub fn near<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for other in names {
        let distance = distance(name, other);
        if distance <= 2
            && distance < name.chars().count().max(2)
            && best.is_none_or(|(least, _)| distance < least)
        {
            best = Some((distance, other));
        }
    }
    best.map(|(_, name)| name.to_string())
}

fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above + 1).min(row[j] + 1).min(corner + usize::from(x != y));
            corner = above;
        }
    }
    row[b.len()]
}

/// A refusal of something that exists elsewhere.
pub fn unsupported(what: impl AsRef<str>) -> SqlError {
    SqlError::new(SqlState::FeatureNotSupported, format!("{} is not supported", what.as_ref()))
}

impl<'a> Binder<'a> {
    /// A binder for a statement.
    pub fn new(catalogue: &'a Catalogue, text: &'a str, now: i64) -> Self {
        Self {
            catalogue,
            text,
            travel: None,
            params: Vec::new(),
            reads: Vec::new(),
            sequences: Vec::new(),
            past: false,
            whole: false,
            now,
            user: "kimberlite".to_string(),
            slots: 0,
            next: 1,
            scopes: Vec::new(),
            ctes: Vec::new(),
            arguments: Vec::new(),
            depth: 0,
            statement_at: None,
            missed: None,
        }
    }

    /// A new column.
    pub fn col(&mut self) -> Col {
        self.next += 1;
        self.next - 1
    }

    /// Counts nesting.
    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        self.depth += 1;
        let result = if self.depth > NESTING_MAX {
            Err(SqlError::new(
                SqlState::StatementTooComplex,
                format!("expressions nest deeper than {NESTING_MAX}"),
            ))
        } else {
            run(self)
        };
        self.depth -= 1;
        result
    }

    /// The character an identifier starts at.
    fn position(&self, ident: &ast::Ident) -> Option<u32> {
        position(self.text, ident.span.start)
    }

    fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    /// Runs with a scope of its own and gives it back.
    pub fn within<T>(
        &mut self,
        scope: Scope,
        run: impl FnOnce(&mut Self) -> Result<T, SqlError>,
    ) -> Result<(T, Scope), SqlError> {
        self.scopes.push(scope);
        let result = run(self);
        let scope = self.scopes.pop().unwrap_or_default();
        result.map(|value| (value, scope))
    }

    /// A type by its SQL name.
    #[allow(clippy::match_same_arms, reason = "a table of names keeps one case per line")]
    pub fn type_of(kind: &ast::DataType) -> Result<Type, SqlError> {
        use ast::{CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};
        let length = |length: &Option<CharacterLength>| match length {
            Some(CharacterLength::IntegerLength { length, .. }) => Some(*length as u32),
            _ => None,
        };
        Ok(match kind {
            DataType::Bool | DataType::Boolean => Type::Bool,
            DataType::SmallInt(_) | DataType::Int2(_) | DataType::TinyInt(_) => Type::SmallInt,
            DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) | DataType::MediumInt(_) => {
                Type::Integer
            }
            DataType::BigInt(_) | DataType::Int8(_) => Type::BigInt,
            DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => match info {
                ExactNumberInfo::None => Type::Decimal(None),
                ExactNumberInfo::Precision(p) => decimal_type(*p, 0)?,
                ExactNumberInfo::PrecisionAndScale(p, s) => decimal_type(*p, *s)?,
            },
            DataType::Real | DataType::Float4 => Type::Real,
            DataType::Float(ExactNumberInfo::Precision(p)) if *p <= 24 => Type::Real,
            DataType::Float(_) | DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 => {
                Type::Double
            }
            DataType::Text | DataType::String(_) | DataType::Regclass => Type::Text,
            DataType::Varchar(n)
            | DataType::CharacterVarying(n)
            | DataType::CharVarying(n)
            | DataType::Nvarchar(n) => Type::Varchar(length(n)),
            DataType::Char(n) | DataType::Character(n) => Type::Char(length(n).unwrap_or(1)),
            DataType::Bytea => Type::Bytea,
            DataType::Date => Type::Date,
            DataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => Type::Time,
            DataType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => Type::Timestamp,
            DataType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => Type::TimestampTz,
            DataType::Interval { .. } => Type::Interval,
            DataType::Uuid => Type::Uuid,
            DataType::JSON | DataType::JSONB => Type::Jsonb,
            DataType::Array(
                ast::ArrayElemTypeDef::SquareBracket(inner, _) | ast::ArrayElemTypeDef::AngleBracket(inner),
            ) => match Self::type_of(inner)? {
                Type::Array(_) => return Err(unsupported("an array of more than one dimension")),
                inner => Type::Array(Box::new(inner)),
            },
            DataType::Custom(name, modifiers) => match (last_part(name).as_str(), &modifiers[..]) {
                ("name" | "oid" | "regtype" | "citext", _) => Type::Text,
                ("bpchar", _) => Type::Text,
                ("serial" | "serial4", _) => Type::Integer,
                ("bigserial" | "serial8", _) => Type::BigInt,
                ("smallserial" | "serial2", _) => Type::SmallInt,
                ("int128" | "hugeint", _) => Type::Decimal(Some((38, 0))),
                (other, _) => {
                    return Err(SqlError::new(
                        SqlState::UndefinedObject,
                        format!("type \"{other}\" does not exist"),
                    ));
                }
            },
            other => {
                return Err(SqlError::new(
                    SqlState::UndefinedObject,
                    format!("type \"{}\" does not exist", other.to_string().to_lowercase()),
                ));
            }
        })
    }

    /// The type of a parameter, once it is known.
    fn param(&mut self, at: usize, kind: &Type) {
        if self.params.len() <= at {
            self.params.resize(at + 1, Type::Unknown);
        }
        if self.params[at] == Type::Unknown {
            self.params[at] = kind.base();
        }
    }

    /// Casts an expression to a type, if it may be at this willingness.
    #[allow(clippy::match_same_arms, reason = "a table of pairs keeps one case per line")]
    pub fn coerce(&mut self, typed: Typed, to: &Type, willing: Willing) -> Result<Expr, SqlError> {
        let Typed { expr, kind } = typed;
        if kind == Type::Unknown {
            match &expr {
                Expr::Const(Value::Text(literal)) => {
                    if to.is_text() && willing == Willing::Explicit {
                        return Ok(Expr::Cast(Box::new(expr), Type::Text, to.clone(), true));
                    }
                    return text::parse(literal, to).map(Expr::Const);
                }
                Expr::Param(at) => {
                    self.param(*at, to);
                    return Ok(expr);
                }
                Expr::Const(Value::Null) => return Ok(expr),
                _ => {}
            }
        }
        if kind == *to || *to == Type::Unknown {
            return Ok(expr);
        }
        if !castable(&kind, to, willing) {
            let (state, verb) = match willing {
                Willing::Explicit => (SqlState::CannotCoerce, "cannot cast type"),
                _ => (SqlState::DatatypeMismatch, "an expression of type"),
            };
            let rest = if willing == Willing::Explicit { "to" } else { "does not fit type" };
            return Err(SqlError::new(state, format!("{verb} {} {rest} {}", kind.name(), to.name()))
                .hint("You will need to rewrite or cast the expression."));
        }
        // Widening within a variant changes nothing.
        let same = match (&kind, to) {
            (a, b) if a.is_integer() && b.is_integer() => a.number_rank() <= b.number_rank(),
            (Type::Decimal(_), Type::Decimal(None))
            | (Type::Varchar(_), Type::Text | Type::Varchar(None)) => true,
            (Type::Text, Type::Varchar(None)) => true,
            _ => false,
        };
        if same {
            return Ok(expr);
        }
        let explicit = willing == Willing::Explicit;
        if let Expr::Const(value) = &expr
            && let Ok(value) = kimberlite_row::cast::cast(value, &kind, to, explicit)
        {
            return Ok(Expr::Const(value));
        }
        Ok(Expr::Cast(Box::new(expr), kind, to.clone(), explicit))
    }

    /// The type that all of these can be cast to without being asked.
    pub fn unify(kinds: &[Type], what: &str) -> Result<Type, SqlError> {
        let mut best: Option<&Type> = None;
        for kind in kinds.iter().filter(|k| **k != Type::Unknown) {
            best = Some(match best {
                None => kind,
                Some(best) if best == kind || best.base() == kind.base() => {
                    // Different lengths: the type without one.
                    if best == kind || matches!(best, Type::Varchar(None) | Type::Decimal(None)) {
                        best
                    } else {
                        kind
                    }
                }
                Some(best) if castable(best, kind, Willing::Implicit) => kind,
                Some(best) if castable(kind, best, Willing::Implicit) => best,
                Some(best) => {
                    return Err(SqlError::new(
                        SqlState::DatatypeMismatch,
                        format!("{what} types {} and {} cannot be matched", best.name(), kind.name()),
                    ));
                }
            });
        }
        let Some(best) = best else { return Ok(Type::Text) };
        let exact = kinds.iter().all(|k| k == best);
        let real_with_others = *best == Type::Real && kinds.iter().any(|k| k.is_number() && *k != Type::Real);
        Ok(if real_with_others {
            Type::Double
        } else if exact {
            best.clone()
        } else {
            best.base()
        })
    }

    /// A condition: boolean.
    pub fn condition(&mut self, expr: &ast::Expr, what: &str) -> Result<Expr, SqlError> {
        let typed = self.expr(expr)?;
        self.boolean(typed, what)
    }

    fn boolean(&mut self, typed: Typed, what: &str) -> Result<Expr, SqlError> {
        if typed.kind != Type::Bool && typed.kind != Type::Unknown {
            return Err(SqlError::new(
                SqlState::DatatypeMismatch,
                format!("argument of {what} must be type boolean, not type {}", typed.kind.name()),
            ));
        }
        self.coerce(typed, &Type::Bool, Willing::Implicit)
    }

    /// A nested query that is an expression's part.
    fn subplan(&mut self, query: &ast::Query) -> Result<(Plan, Vec<query::Output>), SqlError> {
        self.deeper(|binder| binder.query(query))
    }
}

fn decimal_type(precision: u64, scale: i64) -> Result<Type, SqlError> {
    let refuse = |text: String| Err(SqlError::new(SqlState::InvalidParameterValue, text));
    if precision == 0 || precision > 1000 {
        return refuse(format!("NUMERIC precision {precision} must be between 1 and 1000"));
    }
    let Some(places) = u64::try_from(scale).ok().filter(|places| *places <= precision) else {
        return refuse(format!("NUMERIC scale {scale} must be between 0 and precision {precision}"));
    };
    if precision > 38 {
        return Err(unsupported("DECIMAL of more than 38 digits"));
    }
    Ok(Type::Decimal(Some((precision as u8, places as u8))))
}

/// The character of the text that stands at a line and column.
pub fn position(text: &str, at: sqlparser::tokenizer::Location) -> Option<u32> {
    if at.line == 0 {
        return None;
    }
    let before: usize =
        text.split('\n').take(at.line as usize - 1).map(|line| line.chars().count() + 1).sum();
    Some((before as u64 + at.column) as u32)
}
