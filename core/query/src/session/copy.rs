//! COPY: TO is a query whose rows become lines, FROM an INSERT of the rows that its lines are.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::check::Stop;
use kimberlite_row::{Catalogue, Object, SqlError, SqlState, Table, Type, Value, text};
use sqlparser::ast;

use super::define::in_sql;
use super::{Answer, Running, Session, Stage, Step};
use crate::bind::{Output, folded, row_name, unknown, unsupported};
use crate::copy::{Format, malformed, records};

/// The name of the one column of lines that COPY TO answers with.
pub const COPY_COLUMN: &str = "copy";

/// What becomes of the answer of the statement that COPY stands for.
#[derive(Debug)]
pub(super) enum Copied {
    /// Its rows become lines.
    Out(Format),
    /// Its rows were written.
    In,
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// The table of COPY, and the columns that are copied: those named, or all that are not computed.
fn target<'c>(
    catalogue: &'c Catalogue,
    name: &ast::ObjectName,
    columns: &[ast::Ident],
    direction: &str,
) -> Result<(&'c Arc<Table>, Vec<String>), SqlError> {
    let bare = row_name(name)?;
    let table = match catalogue.named(&bare) {
        Some(Object::Table(table)) => table,
        Some(Object::View(_)) => {
            return Err(SqlError::new(
                SqlState::WrongObjectType,
                format!("cannot copy {direction} view \"{bare}\""),
            )
            .hint(if direction == "from" {
                "Try the COPY (SELECT ...) TO variant."
            } else {
                "Name a table."
            }));
        }
        Some(Object::Sequence(_)) => {
            return Err(SqlError::new(
                SqlState::WrongObjectType,
                format!("cannot copy {direction} sequence \"{bare}\""),
            ));
        }
        Some(Object::Schema(_) | Object::Function(_)) | None => return Err(unknown(&bare, catalogue)),
    };
    let mut names: Vec<String> = Vec::new();
    for name in columns.iter().map(folded) {
        let Some(column) = table.columns.iter().find(|column| column.name == name) else {
            return Err(SqlError::new(
                SqlState::UndefinedColumn,
                format!("column \"{name}\" of relation \"{bare}\" does not exist"),
            ));
        };
        if column.generated.is_some() {
            return Err(SqlError::new(
                SqlState::InvalidColumnReference,
                format!("column \"{name}\" is a generated column"),
            )
            .detail("Generated columns cannot be used in COPY."));
        }
        if names.contains(&name) {
            return Err(SqlError::new(
                SqlState::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        names.push(name);
    }
    if columns.is_empty() {
        let stored = table.columns.iter().filter(|column| column.generated.is_none());
        names.extend(stored.map(|column| column.name.clone()));
    }
    Ok((table, names))
}

/// A value that its column takes, checked here so that a refusal names its line.
fn cell(value: Option<String>, table: &Table, name: &str, line: usize) -> Result<ast::Expr, SqlError> {
    let column = table.columns.iter().find(|column| column.name == name);
    match (value, column) {
        (None, Some(column)) if column.not_null => {
            let message = format!(
                "null value in column \"{name}\" of relation \"{}\" violates not-null constraint",
                table.name
            );
            Err(SqlError::new(SqlState::NotNullViolation, message)
                .detail(format!("COPY {}, line {line}, column {name}: null input", table.name)))
        }
        (None, _) => Ok(ast::Expr::value(ast::Value::Null)),
        (Some(value), column) => {
            if let Some(column) = column {
                text::parse(&value, &column.kind).map_err(|error| {
                    let shown: String = value.chars().take(100).collect();
                    error.detail(format!("COPY {}, line {line}, column {name}: \"{shown}\"", table.name))
                })?;
            }
            Ok(ast::Expr::value(ast::Value::SingleQuotedString(value)))
        }
    }
}

/// The INSERT that the data are; none if there are no rows.
fn insert(
    table: &Table,
    names: &[String],
    format: &Format,
    data: &str,
) -> Result<Option<ast::Statement>, SqlError> {
    let mut rows = Vec::new();
    for (line, record) in records(format, data) {
        let at = |error: SqlError| error.detail(format!("COPY {}, line {line}", table.name));
        let values = format.values(record, names).map_err(at)?;
        if values.len() > names.len() {
            return Err(at(malformed("extra data after last expected column")));
        }
        if let Some(missing) = names.get(values.len()) {
            return Err(at(malformed(format!("missing data for column \"{missing}\""))));
        }
        let cells = values.into_iter().zip(names).map(|(value, name)| cell(value, table, name, line));
        rows.push(cells.collect::<Result<Vec<_>, _>>()?);
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let template = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES (NULL)",
        in_sql(&table.name),
        list(names)
    );
    let mut statement = crate::parse::statements(&template)?.pop();
    if let Some(ast::Statement::Insert(insert)) = &mut statement
        && let Some(query) = &mut insert.source
        && let ast::SetExpr::Values(values) = &mut *query.body
        && let Some(first) = values.rows.pop()
    {
        values.rows.extend(rows.into_iter().map(|row| {
            let mut full = first.clone();
            full.content = row;
            full
        }));
    }
    Ok(statement)
}

impl Session {
    /// Puts in place of COPY what it stands for.
    pub(super) fn copy(
        running: &mut Running,
        statement: &ast::Statement,
        catalogue: &Arc<Catalogue>,
    ) -> Result<Step, Stop> {
        let ast::Statement::Copy { source, to, target: place, options, legacy_options, payload } = statement
        else {
            return Err(unsupported("this").into());
        };
        match (to, place) {
            (true, ast::CopyTarget::Stdout) | (false, ast::CopyTarget::Stdin) => {}
            _ => {
                return Err(unsupported("COPY with a file or program of the server")
                    .hint("Use STDIN or STDOUT; `\\copy` of `kmb sql` reads and writes files of the client.")
                    .into());
            }
        }
        let format = Format::of(options, legacy_options)?;
        let direction = if *to { "from" } else { "to" };
        let (statement, copied) = match source {
            ast::CopySource::Query(query) => (ast::Statement::Query(query.clone()), Copied::Out(format)),
            ast::CopySource::Table { table_name, columns } => {
                let (table, names) = target(catalogue, table_name, columns, direction)?;
                for name in format.force_quote.iter().chain(&format.force_not_null).chain(&format.force_null)
                {
                    if !names.contains(name) {
                        let message = format!("column \"{name}\" is not copied");
                        return Err(SqlError::new(SqlState::InvalidColumnReference, message).into());
                    }
                }
                if *to {
                    let query = format!("SELECT {} FROM {}", list(&names), in_sql(&table.name));
                    (ast::Statement::Query(crate::parse::query(&query)?), Copied::Out(format))
                } else {
                    let Some(data) = payload else {
                        return Err(SqlError::new(
                            SqlState::SyntaxError,
                            "COPY FROM STDIN has no data",
                        )
                        .hint("They follow the statement, a semicolon and a line break, up to a line `\\.`.")
                        .into());
                    };
                    let Some(insert) = insert(table, &names, &format, &data.data)? else {
                        return Ok(Self::done(running, "COPY 0"));
                    };
                    (insert, Copied::In)
                }
            }
        };
        running.queue.pop_front();
        // The text of the statement is not what runs, so it gives no places in it, and its plan is not kept under it.
        running.queue.push_front((Arc::new(statement), Arc::from("")));
        running.direct = false;
        running.copied = Some(copied);
        running.stage = Stage::Begin;
        Ok(Step::More)
    }
}

/// What COPY answers.
pub(super) fn answer(copied: Copied, answer: Answer) -> Answer {
    let format = match copied {
        Copied::In => {
            let count = answer.tag.rsplit(' ').next().unwrap_or("0");
            return Answer { tag: format!("COPY {count}"), ..Answer::default() };
        }
        Copied::Out(format) => format,
    };
    let names: Vec<String> = answer.columns.iter().map(|column| column.name.clone()).collect();
    let count = answer.rows.len();
    let mut rows = Vec::with_capacity(count + usize::from(format.header));
    if format.header {
        let values: Vec<Option<String>> = names.iter().cloned().map(Some).collect();
        rows.push([Value::from(format.line(&values, &[]))].into());
    }
    for row in &answer.rows {
        let values: Vec<Option<String>> = row
            .iter()
            .zip(&*answer.columns)
            .map(|(value, column)| text::output(value, &column.kind))
            .collect();
        rows.push([Value::from(format.line(&values, &names))].into());
    }
    Answer {
        tag: format!("COPY {count}"),
        columns: [Output { name: COPY_COLUMN.to_string(), kind: Type::Text }].into(),
        rows,
        notices: answer.notices,
    }
}
