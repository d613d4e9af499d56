//! Expressions, with what PostgreSQL 15.18 says they are: `= ` and the value, or `! ` and the SQLSTATE.

use crate::rows::Database;

/// Where we answer otherwise, on purpose, and why.
const OTHERWISE: [(&str, &str, &str); 5] = [
    ("power(2.0, 0.5)", "= 1.414213562373095", "computed in DOUBLE"),
    ("'Infinity'::float8 > 1e308", "! 22003", "a DECIMAL has 38 digits"),
    ("'abc' LIKE 'abc\\'", "! 22025", "a pattern is looked at before the text is"),
    ("make_interval(days => 3)", "! 0A000", "arguments have no names"),
    ("'a' + 'b'", "! 42883", "no operator is as good as several"),
];

#[test]
fn expressions_are_what_they_are_to_postgresql() {
    let mut database = Database::new(false);
    let mut wrong = Vec::new();
    let mut lines = include_str!("values.txt").lines().filter(|line| !line.starts_with("# "));
    let mut used = 0;
    while let (Some(expression), Some(expected)) = (lines.next(), lines.next()) {
        let ours = match database.rows(&format!("SELECT {expression}")) {
            Ok(rows) => format!("= {}", rows.join(";")),
            Err(error) => format!("! {}", error.state().code()),
        };
        let otherwise = OTHERWISE.iter().find(|(other, ..)| *other == expression);
        used += usize::from(otherwise.is_some());
        // PostgreSQL writes truth in one letter.
        let expected = match (otherwise, expected) {
            (Some((_, ours, _)), _) => *ours,
            (None, "= t") => "= t",
            (None, other) => other,
        };
        if ours != expected {
            wrong.push(format!("{expression}\n  theirs {expected}\n  ours   {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(used, OTHERWISE.len(), "each exception is one");
}
