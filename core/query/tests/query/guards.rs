//! What a transaction saw must be so still when it commits: whatever it looked at, another one that changes it first makes
//! it fail, and one that changes something else does not.

use kimberlite_query::session::Session;
use kimberlite_row::SqlState;

use crate::rows::{Database, shown};

const SCHEMA: &str = "
    CREATE TABLE t (a int PRIMARY KEY, b int UNIQUE, c int);
    CREATE TABLE u (a int PRIMARY KEY, b int);
    CREATE TABLE log (n int);
    CREATE TABLE parent (id int PRIMARY KEY, x int);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE INDEX ON child (parent);
    CREATE VIEW v AS SELECT a, b FROM u;
    INSERT INTO t VALUES (1, 10, 0), (2, 20, 0), (3, 30, 0);
    INSERT INTO u VALUES (1, 1), (2, 2), (3, 3);
    INSERT INTO parent VALUES (1, 0), (2, 0);
    INSERT INTO child VALUES (1, 1), (2, 2);";

/// Runs `mine` in a transaction, `theirs` beside it, and commits; whether that succeeded.
fn commits(mine: &str, theirs: &str) -> bool {
    let mut database = Database::new(false);
    database.run(SCHEMA).expect("a schema");
    let session = Session::default();
    let (session, answer) = database.run_in(session, &format!("BEGIN; {mine}"));
    answer.expect(mine);
    database.run(theirs).expect(theirs);
    match database.run_in(session, "COMMIT").1 {
        Ok(_) => true,
        Err(error) if error.state() == SqlState::SerializationFailure => false,
        Err(error) => panic!("{mine} / {theirs}: {error:?}"),
    }
}

/// The first of `theirs` changes what `mine` saw, the second does not.
#[track_caller]
fn depends(mine: &str, theirs: &str, other: &str) {
    assert!(!commits(mine, theirs), "{mine} does not see that {theirs}");
    assert!(commits(mine, other), "{mine} is bothered by {other}");
}

#[test]
fn a_scan_guards_its_table() {
    depends(
        "INSERT INTO log SELECT count(*) FROM u",
        "INSERT INTO u VALUES (9, 9)",
        "INSERT INTO t VALUES (9, 9, 9)",
    );
}

#[test]
fn a_lookup_guards_its_key_and_nothing_else() {
    depends(
        "INSERT INTO log SELECT b FROM u WHERE a = 2",
        "UPDATE u SET b = 7 WHERE a = 2",
        "UPDATE u SET b = 7 WHERE a = 1",
    );
}

#[test]
fn a_lookup_that_found_nothing_guards_the_gap() {
    depends(
        "INSERT INTO log SELECT count(*) FROM u WHERE a = 5",
        "INSERT INTO u VALUES (5, 5)",
        "INSERT INTO u VALUES (6, 6)",
    );
}

#[test]
fn an_index_lookup_guards_its_range() {
    depends(
        "INSERT INTO log SELECT count(*) FROM t WHERE b = 20",
        "UPDATE t SET b = 21 WHERE a = 2",
        "UPDATE t SET b = 31 WHERE a = 3",
    );
}

#[test]
fn an_index_lookup_guards_the_rows_it_leads_to() {
    // The index holds nothing of `c`.
    depends(
        "INSERT INTO log SELECT c FROM t WHERE b = 20",
        "UPDATE t SET c = 7 WHERE a = 2",
        "UPDATE t SET c = 7 WHERE a = 3",
    );
    depends(
        "INSERT INTO log SELECT c FROM u, t WHERE t.b = u.b * 10 AND u.a = 2",
        "UPDATE t SET c = 7 WHERE a = 2",
        "UPDATE t SET c = 7 WHERE a = 3",
    );
}

#[test]
fn a_list_guards_its_values_alone() {
    depends(
        "INSERT INTO log SELECT sum(b) FROM u WHERE a IN (1, 3)",
        "UPDATE u SET b = 7 WHERE a = 3",
        "UPDATE u SET b = 7 WHERE a = 2",
    );
}

#[test]
fn a_subquery_is_a_read() {
    depends(
        "UPDATE t SET c = (SELECT b FROM u WHERE u.a = 3) WHERE a = 1",
        "UPDATE u SET b = 4 WHERE a = 3",
        "UPDATE u SET b = 4 WHERE a = 1",
    );
    depends(
        "INSERT INTO log VALUES (1); DELETE FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.b > 5)",
        "UPDATE u SET b = 6 WHERE a = 1",
        "INSERT INTO log VALUES (1)",
    );
}

#[test]
fn on_conflict_guards_the_keys_it_looked_up() {
    // A row that was there and was left alone must be there still.
    depends(
        "INSERT INTO log VALUES (1); INSERT INTO t VALUES (1, 99, 9) ON CONFLICT (a) DO NOTHING",
        "DELETE FROM t WHERE a = 1",
        "DELETE FROM t WHERE a = 2",
    );
    // A key that was free must be free still: else the answer would have been another.
    depends(
        "INSERT INTO t VALUES (7, 70, 7) ON CONFLICT (b) DO NOTHING",
        "INSERT INTO t VALUES (8, 70, 8)",
        "INSERT INTO t VALUES (8, 80, 8)",
    );
    depends(
        "INSERT INTO t VALUES (1, 10, 5) ON CONFLICT (a) DO UPDATE SET c = excluded.c",
        "UPDATE t SET c = 1 WHERE a = 1",
        "UPDATE t SET c = 1 WHERE a = 2",
    );
}

#[test]
fn a_cascade_guards_the_rows_that_refer() {
    depends(
        "DELETE FROM parent WHERE id = 1",
        "INSERT INTO child VALUES (9, 1)",
        "INSERT INTO child VALUES (9, 2)",
    );
}

#[test]
fn written_rows_are_guarded_by_their_version() {
    depends(
        "UPDATE u SET b = 5 WHERE a = 1",
        "UPDATE u SET b = 6 WHERE a = 1",
        "UPDATE u SET b = 6 WHERE a = 2",
    );
}

#[test]
fn a_statement_is_bound_under_a_schema() {
    depends(
        "INSERT INTO u VALUES (9, 9)",
        "ALTER TABLE u ADD COLUMN z int",
        "ALTER TABLE t ADD COLUMN z int",
    );
    depends("INSERT INTO log SELECT a FROM v", "DROP VIEW v", "DROP INDEX child_parent_idx");
}

#[test]
fn a_new_constraint_guards_the_rows_it_was_checked_on() {
    depends(
        "ALTER TABLE u ADD CONSTRAINT small CHECK (b < 5)",
        "INSERT INTO u VALUES (9, 4)",
        "INSERT INTO t VALUES (9, 9, 9)",
    );
    depends(
        "ALTER TABLE u ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES t (a)",
        "INSERT INTO t VALUES (9, 9, 9)",
        "INSERT INTO log VALUES (9)",
    );
}

#[test]
fn what_was_read_before_a_rollback_to_a_savepoint_stays_read() {
    depends(
        "SAVEPOINT s; SELECT b FROM u WHERE a = 1; ROLLBACK TO s; INSERT INTO log VALUES (1)",
        "UPDATE u SET b = 5 WHERE a = 1",
        "UPDATE u SET b = 5 WHERE a = 2",
    );
}

#[test]
fn a_refusal_is_a_read() {
    let mut database = Database::new(false);
    database.run(SCHEMA).expect("a schema");
    let (session, answer) =
        database.run_in(Session::default(), "BEGIN; INSERT INTO log VALUES (1); SAVEPOINT s");
    answer.expect("a transaction");
    let (session, answer) = database.run_in(session, "SELECT 1 / (b - 1) FROM u WHERE a = 1");
    assert_eq!(answer.expect_err("b is 1").state(), SqlState::DivisionByZero);
    let (session, answer) = database.run_in(session, "ROLLBACK TO s");
    answer.expect("the savepoint is there");
    database.run("UPDATE u SET b = 5 WHERE a = 1").expect("nobody else writes it");
    let answer = database.run_in(session, "COMMIT").1;
    assert_eq!(answer.expect_err("it would not be refused now").state(), SqlState::SerializationFailure);
}

#[test]
fn what_a_transaction_made_itself_is_not_guarded() {
    let mut database = Database::new(false);
    database
        .run(
            "BEGIN; CREATE TABLE t (a int PRIMARY KEY, b int); ALTER TABLE t ADD COLUMN c int DEFAULT 7;
             INSERT INTO t VALUES (1, 1, 1); UPDATE t SET b = 2; CREATE INDEX ON t (b); DELETE FROM t WHERE a = 2;
             INSERT INTO t (a) VALUES (2); COMMIT",
        )
        .expect("the transaction is alone");
    assert_eq!(database.rows("SELECT * FROM t ORDER BY a").expect("rows"), ["1,2,1", "2,null,7"]);
}

#[test]
fn rows_written_before_come_in_order_with_the_others() {
    let mut database = Database::new(false);
    database.run(SCHEMA).expect("a schema");
    let mut session = Session::default();
    for text in [
        "BEGIN; INSERT INTO t VALUES (0, 25, 1), (9, 5, 1); UPDATE t SET b = 1 WHERE a = 3; UPDATE t SET c = 4 WHERE a = 2",
        "DELETE FROM t WHERE a = 1; CREATE TABLE seen (n int, a int)",
    ] {
        let (next, answer) = database.run_in(session, text);
        answer.expect(text);
        session = next;
    }
    for (query, expected) in [
        ("SELECT a FROM t ORDER BY a", vec!["0", "2", "3", "9"]),
        ("SELECT b FROM t WHERE b > 0 ORDER BY b", vec!["1", "5", "20", "25"]),
        ("SELECT a FROM t ORDER BY a LIMIT 2", vec!["0", "2"]),
        ("SELECT min(a) FROM t", vec!["0"]),
        ("SELECT a FROM t WHERE a IN (9, 1, 2, 0)", vec!["0", "2", "9"]),
    ] {
        let (next, answer) = database.run_in(session, query);
        session = next;
        let rows = shown(&answer.expect(query));
        assert_eq!(rows, expected, "{query}");
    }
}
