//! Answers for people and programs.

use std::fmt::Write as _;

use clap::ValueEnum;
use kimberlite_wire::client::{SqlFailure, SqlRows};
use serde_json::{Map, Value, json};
use unicode_width::UnicodeWidthStr as _;

/// How answers are written.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Aligned columns
    Table,
    /// Comma-separated values with a line of names; NULL is empty, an empty text is `""`
    Csv,
    /// One object for each row, or with the tag of a statement that gives none
    Json,
}

/// An answer, as text that ends in a line feed or is empty.
pub(super) fn rows(answer: &SqlRows, format: Format, expanded: bool) -> String {
    let given = !answer.columns.is_empty();
    match format {
        Format::Table if given && expanded => records(answer),
        Format::Table if given => table(answer),
        Format::Table if answer.tag.is_empty() => String::new(),
        Format::Table => format!("{}\n", answer.tag),
        Format::Csv if given => csv(answer),
        Format::Csv => String::new(),
        Format::Json if given => json_lines(answer),
        Format::Json if answer.tag.is_empty() => String::new(),
        Format::Json => format!("{}\n", json!({ "tag": answer.tag })),
    }
}

/// Control characters would move the terminal's cursor, or worse.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn is_number(kind: &str) -> bool {
    matches!(kind, "smallint" | "integer" | "bigint" | "real" | "double precision")
        || kind.starts_with("numeric")
}

fn cell(value: Option<&String>) -> String {
    value.map_or(String::new(), |text| visible(text))
}

fn counted(count: usize) -> String {
    if count == 1 { "(1 row)".to_owned() } else { format!("({count} rows)") }
}

fn table(answer: &SqlRows) -> String {
    let names: Vec<String> = answer.columns.iter().map(|column| visible(&column.name)).collect();
    let cells: Vec<Vec<String>> =
        answer.rows.iter().map(|row| row.iter().map(|value| cell(value.as_ref())).collect()).collect();
    let width = |at: usize| {
        let widest = cells.iter().map(|row| row[at].width()).max().unwrap_or(0);
        widest.max(names[at].width())
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |parts: Vec<String>, between: &str| {
        out.push_str(parts.join(between).trim_end());
        out.push('\n');
    };
    let centered = names.iter().zip(&widths).map(|(name, width)| {
        let left = (width - name.width()) / 2;
        format!(" {}{name}{} ", " ".repeat(left), " ".repeat(width - name.width() - left))
    });
    line(centered.collect(), "|");
    line(widths.iter().map(|width| "-".repeat(width + 2)).collect(), "+");
    for row in &cells {
        let padded = row.iter().zip(&widths).zip(&answer.columns).map(|((cell, width), column)| {
            let blank = " ".repeat(width - cell.width());
            if is_number(&column.kind) { format!(" {blank}{cell} ") } else { format!(" {cell}{blank} ") }
        });
        line(padded.collect(), "|");
    }
    out + &counted(cells.len()) + "\n"
}

/// One line for each cell.
fn records(answer: &SqlRows) -> String {
    let names: Vec<String> = answer.columns.iter().map(|column| visible(&column.name)).collect();
    let width = names.iter().map(|name| name.width()).max().unwrap_or(0);
    let mut out = String::new();
    for (number, row) in answer.rows.iter().enumerate() {
        let _ = writeln!(out, "-[ RECORD {} ]{}", number + 1, "-".repeat(width));
        for (name, value) in names.iter().zip(row) {
            let line = format!("{name}{} | {}", " ".repeat(width - name.width()), cell(value.as_ref()));
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out + &counted(answer.rows.len()) + "\n"
}

fn csv(answer: &SqlRows) -> String {
    let quoted = |text: &str| {
        if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let names: Vec<String> = answer.columns.iter().map(|column| quoted(&column.name)).collect();
    let mut out = names.join(",") + "\n";
    for row in &answer.rows {
        let cells: Vec<String> =
            row.iter().map(|value| value.as_deref().map_or(String::new(), quoted)).collect();
        out += &cells.join(",");
        out.push('\n');
    }
    out
}

fn json_lines(answer: &SqlRows) -> String {
    let mut out = String::new();
    for row in &answer.rows {
        let cells = answer.columns.iter().zip(row);
        let object: Map<String, Value> = cells
            .map(|(column, value)| (column.name.clone(), json_of(value.as_ref(), &column.kind)))
            .collect();
        let _ = writeln!(out, "{}", Value::Object(object));
    }
    out
}

/// Integers, floats, truth values and JSON as what they are; the rest as text, which loses nothing.
fn json_of(value: Option<&String>, kind: &str) -> Value {
    let Some(text) = value else { return Value::Null };
    let read = match kind {
        "boolean" => Some(Value::Bool(text == "t")),
        "smallint" | "integer" | "bigint" => text.parse::<i64>().ok().map(Value::from),
        "real" | "double precision" => {
            text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
        }
        "jsonb" => serde_json::from_str(text).ok(),
        _ => None,
    };
    read.unwrap_or_else(|| Value::from(text.as_str()))
}

/// A failure for a person, with the place in the statement.
pub(super) fn failure(failure: &SqlFailure, statement: &str) -> String {
    let mut out = format!("ERROR {}: {}", failure.code.as_str(), visible(&failure.message));
    if let Some(place) = failure.position.and_then(|position| place(statement, position)) {
        let _ = write!(out, "\n{place}");
    }
    for (name, more) in [("DETAIL", &failure.detail), ("HINT", &failure.hint)] {
        if let Some(more) = more {
            let _ = write!(out, "\n{name}: {}", visible(more));
        }
    }
    out
}

/// A failure for a program.
pub(super) fn failure_json(failure: &SqlFailure) -> Value {
    json!({ "error": {
        "sqlstate": failure.code.as_str(), "message": failure.message, "position": failure.position,
        "detail": failure.detail, "hint": failure.hint,
    }})
}

/// The line of a statement that holds a character, counted from 1, with a caret below it.
fn place(statement: &str, position: u32) -> Option<String> {
    let before: String = statement.chars().take(position.checked_sub(1)? as usize).collect();
    let line = statement.lines().nth(before.matches('\n').count())?;
    let head = format!("LINE {}: ", before.matches('\n').count() + 1);
    let column = visible(before.rsplit('\n').next()?).width() + head.len();
    Some(format!("{head}{}\n{}^", visible(line), " ".repeat(column)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_wire::client::SqlColumn;
    use kimberlite_wire::command::SqlCode;

    fn answer() -> SqlRows {
        let column = |name: &str, kind: &str| SqlColumn { name: name.to_owned(), kind: kind.to_owned() };
        let text = |text: &str| Some(text.to_owned());
        SqlRows {
            tag: "SELECT 2".to_owned(),
            columns: vec![column("id", "integer"), column("name", "text"), column("ok", "boolean")],
            rows: vec![vec![text("1"), text("a,\"b\"\n"), text("t")], vec![text("12"), text(""), None]],
            notices: Vec::new(),
        }
    }

    #[test]
    fn answers_are_aligned_or_for_programs() {
        let table =
            " id |  name   | ok\n----+---------+----\n  1 | a,\"b\"\\n | t\n 12 |         |\n(2 rows)\n";
        assert_eq!(rows(&answer(), Format::Table, false), table);
        let csv = "id,name,ok\n1,\"a,\"\"b\"\"\n\",t\n12,\"\",\n";
        assert_eq!(rows(&answer(), Format::Csv, false), csv);
        let json =
            "{\"id\":1,\"name\":\"a,\\\"b\\\"\\n\",\"ok\":true}\n{\"id\":12,\"name\":\"\",\"ok\":null}\n";
        assert_eq!(rows(&answer(), Format::Json, false), json);
        assert!(rows(&answer(), Format::Table, true).starts_with("-[ RECORD 1 ]----\nid   | 1\n"));
        let done = SqlRows { tag: "BEGIN".to_owned(), ..SqlRows::default() };
        assert_eq!(rows(&done, Format::Table, false), "BEGIN\n");
        assert_eq!(rows(&done, Format::Json, false), "{\"tag\":\"BEGIN\"}\n");
    }

    #[test]
    fn a_failure_points_at_its_place() {
        let told = SqlFailure {
            code: SqlCode::new("42703").unwrap(),
            message: "column \"c\" does not exist".to_owned(),
            position: Some(12),
            detail: None,
            hint: Some("Try another.".to_owned()),
        };
        let shown = failure(&told, "SELECT a,\n c FROM t");
        let wanted =
            "ERROR 42703: column \"c\" does not exist\nLINE 2:  c FROM t\n         ^\nHINT: Try another.";
        assert_eq!(shown, wanted);
        for position in [0, 99] {
            failure(&SqlFailure { position: Some(position), ..told.clone() }, "SELECT");
        }
    }
}
