//! What is too deep, too long, too much or without end is refused by name, in a time that can be waited for.
#![allow(clippy::disallowed_types, reason = "how long a refusal takes is what is tested")]

use std::time::{Duration, Instant};

use crate::rows::Database;

/// No refusal takes longer, on a slow machine and in a build for tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stack that a thread has at least which runs statements.
const STACK: usize = 8 << 20;

fn outcome(sql: &str) -> Result<Vec<String>, &'static str> {
    let start = Instant::now();
    let run = || {
        let mut database = Database::new(false);
        database.run("SET work_rows_max = 3000000; SET memory_bytes_max = 50000000").expect("known settings");
        database.rows(sql).map_err(|error| error.state().code())
    };
    let outcome = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run);
        thread.expect("a thread").join().expect("no panic")
    });
    assert!(start.elapsed() < PATIENCE, "{} took {:?}", &sql[..sql.len().min(80)], start.elapsed());
    outcome
}

#[track_caller]
fn refused(sql: &str, state: &str) {
    assert_eq!(outcome(sql), Err(state), "{}", &sql[..sql.len().min(80)]);
}

#[test]
fn what_nests_too_deep_is_refused() {
    let deep = |open: &str, inner: &str, close: &str| {
        format!("SELECT {}{inner}{}", open.repeat(5000), close.repeat(5000))
    };
    refused(&deep("(", "1", ")"), "54001");
    refused(&deep("NOT ", "true", ""), "54001");
    refused(&deep("- ", "1", ""), "54001");
    refused(&deep("abs(", "1", ")"), "54001");
    refused(&deep("CASE WHEN true THEN ", "1", " END"), "54001");
    refused(&deep("(SELECT ", "1", ")"), "54001");
    refused(&deep("ARRAY[", "1", "]"), "54001");
    refused(&deep("CAST(", "1", " AS int)"), "54001");
    refused(
        &format!("SELECT * FROM {}(SELECT 1){}", "(SELECT * FROM ".repeat(2000), ")".repeat(2000)),
        "54001",
    );
}

#[test]
fn what_nests_to_the_limit_is_answered() {
    let depth = 100;
    assert_eq!(outcome(&format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth))), Ok(vec!["1".into()]));
}

#[test]
fn chains_that_are_too_long_are_refused() {
    for (link, first, state) in [
        ("1 + ", "1", "54001"),
        ("true OR ", "true", "54001"),
        ("'a' || ", "'b'", "54001"),
        ("1 UNION SELECT ", "1", "54001"),
    ] {
        refused(&format!("SELECT {}{first}", link.repeat(100_000)), state);
    }
}

#[test]
fn long_lists_are_answered() {
    let list: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
    assert_eq!(
        outcome(&format!("SELECT 99999 IN ({0}), -1 IN ({0})", list.join(","))),
        Ok(vec!["t,f".into()])
    );
}

#[test]
fn ten_million_bytes_are_read_or_refused() {
    let text = "x".repeat(10_000_000);
    assert_eq!(outcome(&format!("SELECT length('{text}')")), Ok(vec!["10000000".into()]));
    refused(&format!("SELECT {text}"), "42703");
    refused(&format!("SELECT {}", "(".repeat(4_000_000)), "54001");
    refused(&format!("SELECT {}", "(".repeat(10_000_000)), "54000");
    refused(&format!("SELECT {}", "1,".repeat(500_000)), "42601");
    refused(&" ".repeat(17_000_000), "54000");
    refused(&"1,".repeat(3_000_000), "54000");
}

#[test]
fn a_recursion_without_end_is_refused() {
    refused("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n FROM r) SELECT count(*) FROM r", "57014");
    refused("WITH RECURSIVE r AS (SELECT 1 AS n UNION SELECT n + 1 FROM r) SELECT count(*) FROM r", "57014");
    refused(
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n FROM r, generate_series(1, 9)) SELECT count(*) FROM r",
        "57014",
    );
    assert_eq!(
        outcome(
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 10000) SELECT max(n) FROM r"
        ),
        Ok(vec!["10000".into()])
    );
}

#[test]
fn a_join_of_everything_with_everything_is_refused() {
    let series = "generate_series(1, 100000)";
    refused(&format!("SELECT count(*) FROM {series} a, {series} b, {series} c"), "57014");
    // All on one key: a hash join that is one long loop.
    refused(&format!("SELECT count(*) FROM {series} a(x), {series} b(y) WHERE x % 1 = y % 1"), "57014");
    refused(&format!("SELECT * FROM {series} a, {series} b"), "53200");
}

#[test]
fn what_does_not_fit_in_memory_is_refused() {
    refused("SELECT repeat('x', 100) FROM generate_series(1, 1000000) s ORDER BY 1", "53200");
    refused("SELECT array_agg(repeat('x', 1000)) FROM generate_series(1, 1000000)", "53200");
    refused("SELECT string_agg(repeat('x', 1000), '') FROM generate_series(1, 1000000)", "54000");
    refused("SELECT repeat('x', 1000000000)", "54000");
    refused("SELECT n, count(*), sum(n) FROM generate_series(1, 500000) n GROUP BY n", "53200");
}

#[test]
fn a_join_stops_between_its_pairs() {
    use kimberlite_query::parse::statements;
    use kimberlite_query::session::{Running, Session, Step};
    let database = Database::new(false);
    let sql = "SELECT count(*) FROM generate_series(1, 3000) a, generate_series(1, 3000) b";
    let statement = statements(sql).expect("a statement").remove(0);
    let mut running = Running::new(statement, sql, Vec::new(), 0, 0);
    let mut session = Session::default();
    let mut steps = 0;
    let answer = loop {
        steps += 1;
        match session.step(&mut running, &database.memory).expect("nothing is refused") {
            Step::More => {}
            Step::Done(answer) => break answer,
            Step::Commit(..) => panic!("nothing is written"),
        }
    };
    assert_eq!(crate::rows::shown(&answer), ["9000000"]);
    assert!(steps > 9_000_000 / (1 << 17), "{steps} steps are too long ones");
}

#[test]
fn settings_lower_limits_and_never_raise_them() {
    let mut database = Database::new(false);
    database.run("SET work_rows_max = 10").expect("a known setting");
    assert_eq!(database.outcome("SELECT count(*) FROM generate_series(1, 100)"), Err("57014"));
    database.run("RESET work_rows_max; SET memory_bytes_max = 1000").expect("known settings");
    assert_eq!(database.outcome("SELECT * FROM generate_series(1, 100) s ORDER BY 1"), Err("53200"));
    database.run("SET memory_bytes_max = 99999999999999").expect("a known setting");
    let pieces = "SELECT * FROM generate_series(1, 1200) s, (SELECT repeat('x', 1000000)) AS p ORDER BY s";
    assert_eq!(database.outcome(pieces), Err("53200"));
}
