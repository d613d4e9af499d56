//! The prompt: lines until a semicolon, and commands that begin with a backslash.

use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::split::{is_blank, split};
use super::{Format, Talk};
use crate::output::print;
use crate::{Failure, failure::Kind};

const HELP: &str = "\
Statements end with a semicolon and may span lines. Ctrl-C drops what was typed, Ctrl-D ends.
  \\d          tables and views               \\d NAME    a table's columns
  \\dt         tables                         \\timing    say how long statements take
  \\x          one line for each cell         \\q         end
  \\copy t FROM|TO 'file' [options]  rows of a table, or TO of a (query), from or to a file of this machine
";

const RELATIONS: &str = "SELECT table_name AS name, table_type AS kind FROM information_schema.tables";

/// Reads and runs until the end.
pub(super) fn run(talk: &mut Talk) -> Result<(), Failure> {
    let broken = |error: &ReadlineError| Failure::new(Kind::Io, format!("the terminal: {error}"));
    let mut editor = DefaultEditor::new().map_err(|error| broken(&error))?;
    let history = history();
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    print(b"Type \\? for help.\n")?;
    let mut text = String::new();
    loop {
        let state = if talk.in_block { "*" } else { "" };
        let sign = if text.is_empty() { '=' } else { '-' };
        let line = match editor.readline(&format!("{}{sign}{state}> ", talk.tenant.text)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                text.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(broken(&error)),
        };
        if text.is_empty() && line.trim_start().starts_with('\\') {
            let _ = editor.add_history_entry(line.trim());
            if line.trim() == "\\q" {
                break;
            }
            shown(talk.take(&line).map(drop));
            continue;
        }
        text += &line;
        text.push('\n');
        let (statements, rest) = split(&text);
        for statement in &statements {
            let _ = editor.add_history_entry(format!("{};", statement.trim()));
            if is_blank(statement) {
                continue;
            }
            shown(talk.take(statement).map(drop));
        }
        text = if is_blank(rest) { String::new() } else { rest.trim_start().to_owned() };
    }
    if let Some(path) = &history {
        let saved = path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(ReadlineError::from);
        if let Err(error) = saved.and_then(|()| editor.save_history(path)) {
            eprintln!("the history was not kept: {}: {error}", path.display());
        }
    }
    Ok(())
}

/// A failed statement does not end the prompt.
fn shown(result: Result<(), Failure>) {
    if let Err(failure) = result {
        eprintln!("{failure}");
    }
}

/// Where lines are remembered: in the user's state directory.
fn history() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    Some(state.or_else(home)?.join("kimberlite").join("sql_history"))
}

/// The prompt's own commands. Answers false when nothing is to follow.
pub(super) fn command(talk: &mut Talk, command: &str) -> Result<bool, Failure> {
    let (word, name) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let (name, format) = (name.trim(), talk.format);
    match word {
        "\\q" => Ok(false),
        "\\?" => print(HELP.as_bytes()),
        "\\timing" => {
            talk.timing = !talk.timing;
            print(format!("Timing is {}.\n", if talk.timing { "on" } else { "off" }).as_bytes())
        }
        "\\x" => {
            talk.expanded = !talk.expanded;
            print(format!("Expanded display is {}.\n", if talk.expanded { "on" } else { "off" }).as_bytes())
        }
        "\\d" | "\\dt" => {
            let query = match (word, name) {
                ("\\dt", _) => format!("{RELATIONS} WHERE table_type = 'BASE TABLE' ORDER BY 1"),
                (_, "") => format!("{RELATIONS} ORDER BY 1"),
                (_, name) => format!(
                    "SELECT column_name AS \"column\", data_type AS type, is_nullable AS nullable, \
                     column_default AS \"default\" FROM information_schema.columns WHERE table_name = '{}' \
                     ORDER BY ordinal_position",
                    name.trim_end_matches(';').replace('\'', "''")
                ),
            };
            talk.format = Format::Table;
            let result = talk.run(&query);
            talk.format = format;
            result
        }
        _ => Err(Failure::usage(format!("`{word}` is no command; \\? lists them"))),
    }
}
