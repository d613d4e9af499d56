//! Statements that write: what follows what, and that misses change nothing.

use crate::rows::{Database, shown};

/// Runs statements with all pages there, and again with every first touch missing: the same answers, the same rows.
#[track_caller]
fn same_with_misses(setup: &str, sql: &[&str]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for miss in [false, true] {
        let mut database = Database::new(miss);
        database.run(setup).expect("a setup");
        let before = database.memory.misses.get();
        let mut answers = Vec::new();
        for statement in sql {
            answers.push(match database.run(statement) {
                Ok(answer) if answer.columns.is_empty() => vec![answer.tag],
                Ok(answer) => shown(&answer),
                Err(error) => vec![error.state().code().to_string()],
            });
        }
        assert_eq!(miss, database.memory.misses.get() > before, "misses where they were asked for");
        all.push(answers);
    }
    let with = all.pop().expect("two runs");
    assert_eq!(all[0], with, "a miss changes nothing");
    with
}

#[test]
fn referring_rows_follow_each_its_own_parent() {
    let setup = "CREATE TABLE p (id int PRIMARY KEY);
        CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON UPDATE CASCADE ON DELETE SET NULL);
        INSERT INTO p VALUES (1), (2), (3); INSERT INTO c VALUES (10, 1), (20, 2), (30, 3);";
    let shown = "SELECT id, p FROM c ORDER BY id";
    let answers = same_with_misses(
        setup,
        &[
            "UPDATE p SET id = id + 100",
            shown,
            "UPDATE p SET id = 206 - id WHERE id < 103",
            shown,
            "DELETE FROM p WHERE id = 103",
            shown,
        ],
    );
    assert_eq!(answers[1], ["10,101", "20,102", "30,103"]);
    assert_eq!(answers[2], ["UPDATE 2"]);
    assert_eq!(answers[3], ["10,105", "20,104", "30,103"]);
    assert_eq!(answers[5], ["10,105", "20,104", "30,null"]);
}

#[test]
fn two_keys_are_exchanged_and_what_refers_goes_along() {
    let setup = "CREATE TABLE p (id int PRIMARY KEY);
        CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON UPDATE CASCADE);
        INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (10, 1), (20, 2);";
    let answers = same_with_misses(setup, &["UPDATE p SET id = 3 - id", "SELECT id, p FROM c ORDER BY id"]);
    assert_eq!(answers[1], ["10,2", "20,1"]);
}

#[test]
fn a_row_that_refers_twice_follows_twice() {
    let setup = "CREATE TABLE p (id int PRIMARY KEY);
        CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES p ON DELETE SET NULL,
            b int REFERENCES p ON DELETE SET NULL);
        INSERT INTO p VALUES (1); INSERT INTO c VALUES (10, 1, 1);";
    let answers = same_with_misses(setup, &["DELETE FROM p", "SELECT * FROM c"]);
    assert_eq!(answers, [vec!["DELETE 1"], vec!["10,null,null"]]);
}

#[test]
fn a_tree_goes_with_its_root() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t ON DELETE CASCADE);
        INSERT INTO t VALUES (1, NULL), (2, 1), (3, 2), (4, 3), (5, NULL);";
    let answers = same_with_misses(setup, &["DELETE FROM t WHERE id = 1", "SELECT id FROM t"]);
    assert_eq!(answers[1], ["5"]);
}

#[test]
fn on_conflict_sees_what_the_statement_itself_wrote() {
    let setup =
        "CREATE TABLE t (a int PRIMARY KEY, b int UNIQUE, n int DEFAULT 0); INSERT INTO t VALUES (1, 1, 1);";
    let answers = same_with_misses(
        setup,
        &[
            "INSERT INTO t VALUES (2, 2), (2, 3), (3, 2) ON CONFLICT DO NOTHING",
            "INSERT INTO t VALUES (5, 5), (5, 6) ON CONFLICT (a) DO UPDATE SET n = 9",
            "INSERT INTO t (a, b) SELECT g, g FROM generate_series(1, 30) g
                ON CONFLICT (a) DO UPDATE SET n = t.n + 1 WHERE t.a < 2 RETURNING a",
            "SELECT a, b, n FROM t WHERE a < 4 ORDER BY a",
            "UPDATE t SET b = b + 1",
            "SELECT sum(b) FROM t",
        ],
    );
    assert_eq!(answers[0], ["INSERT 0 1"]);
    assert_eq!(answers[1], ["21000"]);
    assert_eq!(answers[2].len(), 29);
    assert_eq!(answers[3], ["1,1,2", "2,2,0", "3,3,0"]);
    assert_eq!(answers[5], ["495"]);
}

#[test]
fn a_transaction_that_misses_counts_and_numbers_once() {
    let setup = "CREATE TABLE t (id serial PRIMARY KEY, x int); INSERT INTO t (x) SELECT * FROM generate_series(1, 20);";
    let answers = same_with_misses(
        setup,
        &[
            "BEGIN",
            "INSERT INTO t (x) SELECT x FROM t RETURNING id",
            "UPDATE t SET x = x + (SELECT count(*) FROM t) WHERE id > 38 RETURNING x",
            "DELETE FROM t WHERE id <= 38",
            "COMMIT",
            "SELECT id, x FROM t ORDER BY id",
        ],
    );
    assert_eq!(answers[1].first().map(String::as_str), Some("21"));
    assert_eq!(answers[5], ["39,59", "40,60"]);
}

#[test]
fn many_writes_are_checked_in_parts() {
    // The two that clash lie in parts of their own.
    let setup = "CREATE TABLE t (a int PRIMARY KEY, b int UNIQUE);";
    let answers = same_with_misses(
        setup,
        &[
            "INSERT INTO t SELECT g, g % 2999 FROM generate_series(0, 2999) g",
            "INSERT INTO t SELECT g, g FROM generate_series(0, 2999) g",
            "INSERT INTO t SELECT g + 5000, CASE g WHEN 2500 THEN 17 ELSE g + 5000 END FROM generate_series(0, 2999) g",
        ],
    );
    assert_eq!(answers, [vec!["23505"], vec!["INSERT 0 3000"], vec!["23505"]]);
}

#[test]
fn a_constraint_that_comes_later_is_checked_on_all_rows() {
    let setup = "CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t SELECT g, g FROM generate_series(1, 600) g;";
    let answers = same_with_misses(
        setup,
        &[
            "ALTER TABLE t ADD CHECK (b < 600)",
            "ALTER TABLE t ADD CHECK (b <= 600)",
            "CREATE UNIQUE INDEX ON t (b)",
            "INSERT INTO t VALUES (601, 601)",
            "SELECT count(*) FROM t",
        ],
    );
    assert_eq!(
        answers,
        [vec!["23514"], vec!["ALTER TABLE"], vec!["CREATE INDEX"], vec!["23514"], vec!["600"]]
    );
}
