//! Statements from anywhere, and statements that must say the same whichever way they are run.

use kimberlite_query::parse;

use crate::generate::{Choices, SCHEMA};
use crate::rows::Database;

/// Statements of one input at most.
const STATEMENTS_MAX: usize = 24;

/// The bytes are a text: reading and running it ends in answers or refusals, and what a statement was read as is read from
/// its own text again.
pub(crate) fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(statements) = parse::statements(&text) {
        for statement in statements {
            let shown = statement.to_string();
            if let Ok(again) = parse::statements(&shown) {
                let again: Vec<String> = again.iter().map(ToString::to_string).collect();
                assert_eq!(again, [shown], "a statement says the same again");
            }
        }
    }
    let mut database = Database::new(false);
    database.run(SCHEMA).expect("a schema");
    database.run("INSERT INTO t VALUES (1, 2, 'a', 0.5), (2, NULL, NULL, NULL)").expect("rows");
    database.run("SET work_rows_max = 20000; SET memory_bytes_max = 1000000").expect("known settings");
    for statement in text.split_inclusive(';').take(STATEMENTS_MAX) {
        let _refused = database.run(statement);
    }
}

/// The bytes are choices among rows and statements: these answer the same when every page is missing at first, and when
/// the planner is left out.
pub(crate) fn differential(bytes: &[u8]) {
    let (plain, missed, bound) =
        (outcomes(bytes, false, false), outcomes(bytes, true, false), outcomes(bytes, false, true));
    assert_eq!(plain, missed, "a miss changes no answer");
    for (planned, bound) in plain.iter().zip(&bound) {
        // Some subqueries are run only where the planner has put them.
        if !bound.ends_with("Err(\"0A000\")") {
            assert_eq!(planned, bound, "the planner changes no answer");
        }
    }
}

fn outcomes(bytes: &[u8], miss: bool, as_bound: bool) -> Vec<String> {
    let mut choices = Choices::new(bytes);
    let mut database = Database::new(false);
    database.run(SCHEMA).expect("a schema");
    for insert in choices.inserts() {
        database.run(&insert).expect("a row");
    }
    database.memory.forget(miss);
    database.as_bound = as_bound;
    let mut out = Vec::new();
    while out.len() < STATEMENTS_MAX && !choices.is_over() {
        for sql in [choices.query(), choices.change()] {
            let outcome = database.outcome(&sql);
            out.push(format!("{sql}\n{outcome:?}"));
        }
    }
    out
}
