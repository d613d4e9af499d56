//! Finds out which test breaks which rule, for `vopr invariants`.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    rules_broken_by();
}

/// Writes `RULES_BROKEN_BY`: for each rule of a checker, the tests in which a broken history breaks it. Read off the
/// checkers' own sources, where a rule is a constant and its tests name it: so the table cannot be wrong for long.
fn rules_broken_by() {
    println!("cargo:rerun-if-changed=src/checkers");
    let mut rows = String::new();
    let mut files: Vec<_> = fs::read_dir("src/checkers")
        .expect("the checkers are there")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    for path in files {
        let text = fs::read_to_string(&path).expect("sources are text");
        let Some((code, tests)) = text.split_once("\nmod tests {") else { continue };
        let consts = string_constants(code);
        let Some((_, checker)) = consts.iter().find(|(name, _)| *name == "NAME") else { continue };
        let module = path.file_stem().and_then(|stem| stem.to_str()).expect("modules have names");
        for (name, rule) in consts.iter().filter(|(name, _)| *name != "NAME") {
            let breaking: Vec<String> = tests_in(tests)
                .filter(|(_, body)| names(body, name))
                .map(|(test, _)| format!("checkers::{module}::tests::{test}"))
                .collect();
            writeln!(rows, "    ({checker:?}, {rule:?}, &{breaking:?}),").expect("strings grow");
        }
    }
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("rules_broken_by.rs");
    let table = format!("pub(crate) const RULES_BROKEN_BY: &[(&str, &str, &[&str])] = &[\n{rows}];\n");
    fs::write(out, table).expect("the output folder can be written");
}

/// Constants whose value is a string: name and value.
fn string_constants(code: &str) -> Vec<(&str, &str)> {
    code.split("\nconst ")
        .skip(1)
        .filter_map(|rest| {
            let (name, rest) = rest.split_once(": &str =")?;
            let value = rest.trim_start().strip_prefix('"')?;
            Some((name, value.split_once('"')?.0))
        })
        .collect()
}

/// The tests of a module, each with its body.
fn tests_in(tests: &str) -> impl Iterator<Item = (&str, &str)> {
    tests.split("#[test]\n").skip(1).filter_map(|rest| {
        let body = rest.split_once("\n    }\n").map_or(rest, |(body, _)| body);
        let (name, _) = body.trim_start().strip_prefix("fn ")?.split_once('(')?;
        Some((name, body))
    })
}

/// Whether a text holds this word.
fn names(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).any(|part| part == word)
}
