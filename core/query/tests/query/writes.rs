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

#[test]
fn what_stands_behind_with_writes() {
    let answers = same_with_misses(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b');",
        &[
            "WITH new AS (SELECT 3 AS id, 'c' AS v) INSERT INTO t SELECT * FROM new RETURNING id",
            "WITH old AS (SELECT 2 AS id) UPDATE t SET v = 'B' FROM old WHERE t.id = old.id",
            "WITH old AS (SELECT min(id) AS id FROM t) DELETE FROM t USING old WHERE t.id = old.id RETURNING v",
            "WITH a AS (SELECT 1), a AS (SELECT 2) SELECT 1",
            "SELECT id, v FROM t ORDER BY id",
        ],
    );
    assert_eq!(answers[0], ["3"]);
    assert_eq!(answers[1], ["UPDATE 1"]);
    assert_eq!(answers[2], ["a"]);
    assert_eq!(answers[3], ["42712"]);
    assert_eq!(answers[4], ["2,B", "3,c"]);
}

#[test]
fn subqueries_are_asked_before_the_rows_are_written() {
    let answers = same_with_misses(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10), (2, 20);",
        &[
            "DELETE FROM t WHERE id = 1 RETURNING id, (SELECT count(*) FROM t)",
            "INSERT INTO t VALUES (2, 0) ON CONFLICT (id) DO UPDATE SET v = (SELECT sum(v) FROM t) + EXCLUDED.v + 1",
            "UPDATE t SET (id, v) = (SELECT 5, max(v) + 1 FROM t)",
            "UPDATE t SET (id, v) = ROW(6, v + 1) RETURNING id IN (SELECT id FROM t), v",
            "UPDATE t SET (id, v) = (SELECT 5)",
            "DELETE FROM t RETURNING (SELECT t.v)",
            "SELECT * FROM t",
        ],
    );
    assert_eq!(answers[0], ["1,2"]);
    assert_eq!(answers[3], ["f,23"]);
    assert_eq!(answers[4], ["42601"]);
    assert_eq!(answers[5], ["0A000"]);
    assert_eq!(answers[6], ["6,23"]);
}

#[test]
fn a_sequence_is_set() {
    let answers = same_with_misses(
        "CREATE SEQUENCE s MAXVALUE 100; CREATE TABLE t (v int); INSERT INTO t VALUES (7);",
        &[
            "SELECT lastval()",
            "SELECT setval('s', 50), nextval('s'), lastval()",
            "SELECT setval('s', v, false), nextval('s') FROM t",
            "SELECT setval('s', 101)",
            "SELECT setval('s', NULL)",
            "SELECT currval('s')",
        ],
    );
    assert_eq!(answers, [["55000"], ["50,51,51"], ["7,7"], ["22003"], ["null"], ["7"]]);
}

/// Whether a statement that gives no rows was done: it answers its tag, and else the SQLSTATE.
fn done(answer: &[String]) -> bool {
    answer.iter().all(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
}

#[test]
fn a_sequence_is_altered() {
    let answers = same_with_misses(
        "CREATE SEQUENCE s; CREATE TABLE t (id serial, v int); INSERT INTO t (v) VALUES (7);",
        &[
            "SELECT nextval('s'), nextval('s')",
            "ALTER SEQUENCE s INCREMENT BY 5",
            "SELECT nextval('s')",
            "ALTER SEQUENCE s RESTART WITH 100 MAXVALUE 101 INCREMENT 1 CYCLE",
            "SELECT nextval('s'), nextval('s'), nextval('s')",
            "ALTER SEQUENCE IF EXISTS s RESTART",
            "SELECT nextval('s' || '')",
            "ALTER SEQUENCE t_id_seq RENAME TO numbers",
            "INSERT INTO t (v) VALUES (8) RETURNING id",
            "SELECT nextval('numbers')",
            "ALTER SEQUENCE IF EXISTS nosuch RESTART",
        ],
    );
    let altered = ["ALTER SEQUENCE"];
    let renamed = ["ALTER TABLE"];
    assert_eq!(
        answers,
        [["1,2"], altered, ["7"], altered, ["100,101,1"], altered, ["1"], renamed, ["2"], ["3"], altered]
    );
}

#[test]
fn schemas_hold_names_of_their_own() {
    let answers = same_with_misses(
        "CREATE SCHEMA s; CREATE SCHEMA IF NOT EXISTS s; CREATE SCHEMA \"a.b\";
         CREATE TABLE t (id int PRIMARY KEY, v text);
         CREATE TABLE s.t (id serial PRIMARY KEY, n int UNIQUE CHECK (t.n > 0), CONSTRAINT low CHECK (n < 100));
         CREATE TABLE \"a.b\".t (id int); CREATE TABLE \"a.b.t\" (x int); INSERT INTO \"a.b.t\" VALUES (5);
         CREATE VIEW s.v AS SELECT n FROM s.t; CREATE SEQUENCE s.q;",
        &[
            "INSERT INTO s.t (n) VALUES (7), (8)",
            "SELECT s.t.id, t.n, v.n FROM s.t, s.v WHERE t.n = v.n ORDER BY 1",
            "SELECT count(*) FROM t",
            "INSERT INTO s.t (n) VALUES (7)",
            "UPDATE s.t SET n = 9 WHERE t.n = 8 RETURNING t.id",
            "ALTER TABLE s.t ALTER COLUMN n TYPE bigint",
            "SELECT nextval('s.q'), nextval('S.\"q\"'), nextval('s.t_id_seq')",
            "DROP VIEW s.v",
            "ALTER TABLE s.t ALTER COLUMN n TYPE bigint",
            "ALTER TABLE s.t RENAME TO u",
            "ALTER TABLE s.u DROP CONSTRAINT t_n_key",
            "CREATE INDEX i ON s.u (n)",
            "CREATE TABLE s.c AS SELECT n FROM s.u",
            "SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2",
            "SELECT schema_name FROM information_schema.schemata ORDER BY 1",
            "SELECT count(*) FROM HISTORY OF s.u WHERE n = 7",
            "TABLE \"a.b.t\"",
            "DROP SCHEMA s",
            "DROP INDEX s.i",
            "DROP SCHEMA s, \"a.b\" CASCADE",
            "SELECT * FROM s.c",
            "SELECT x FROM \"a.b.t\"",
        ],
    );
    assert_eq!(answers[1], ["1,7,7", "2,8,8"]);
    assert_eq!(answers[2..5], [["0"], ["23505"], ["2"]]);
    assert_eq!(answers[5], ["0A000"], "a view reads it");
    assert_eq!(answers[6], ["1,2,3"]);
    assert_eq!(answers[13], ["a.b,t", "public,a.b.t", "public,t", "s,c", "s,u"]);
    assert_eq!(answers[14], ["a.b", "public", "s"]);
    assert_eq!(answers[15..18], [["1"], ["5"], ["2BP01"]]);
    assert_eq!(answers[20..], [["42P01"], ["5"]]);
    assert!(answers[7..13].iter().chain(&answers[18..20]).all(|answer| done(answer)), "{answers:?}");
}

#[test]
fn functions_are_expressions_over_their_arguments() {
    let answers = same_with_misses(
        "CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2), (3, 4);
         CREATE FUNCTION plus(INT, INT) RETURNS int LANGUAGE sql AS $$select $1 + $2$$;
         CREATE FUNCTION plus(x text, y text) RETURNS text LANGUAGE sql AS 'select x || y';
         CREATE FUNCTION twice(a float) RETURNS float LANGUAGE sql RETURN a * 2;
         CREATE FUNCTION nothing() RETURNS int LANGUAGE sql AS 'select plus(1, 1) + 1';
         CREATE FUNCTION most(low int) RETURNS int LANGUAGE sql STRICT AS 'select max(b) from t where a >= low';
         CREATE VIEW v AS SELECT twice(a) AS d FROM t;",
        &[
            "SELECT plus(a, b), plus(a::text, 'x'), twice(b) FROM t ORDER BY a",
            "SELECT nothing(), most(2), most(9), most(NULL)",
            "SELECT sum(plus(a, b)), plus(min(a), max(b)) FROM t GROUP BY twice(a) ORDER BY twice(a)",
            "SELECT d FROM v ORDER BY d",
            "SELECT plus(1)",
            "SELECT plus(1, nosuch)",
            "CREATE FUNCTION wrong(INT) RETURNS int LANGUAGE sql AS 'select nosuch'",
            "CREATE FUNCTION plus(INT, INT) RETURNS int LANGUAGE sql AS 'select 1'",
            "CREATE OR REPLACE FUNCTION plus(INT, INT) RETURNS int LANGUAGE sql AS 'select $1 - $2'",
            "SELECT nothing()",
            "DROP FUNCTION plus",
            "DROP FUNCTION twice",
            "DROP FUNCTION plus(int, int)",
            "SELECT nothing()",
            "DROP FUNCTION IF EXISTS nosuch",
        ],
    );
    assert_eq!(answers[0], ["3,1x,4", "7,3x,8"]);
    assert_eq!(answers[1], ["3,4,null,null"]);
    assert_eq!(answers[2], ["3,3", "7,7"]);
    assert_eq!(answers[3], ["2", "6"]);
    assert_eq!(answers[4..8], [["42883"], ["42703"], ["42703"], ["42723"]]);
    assert_eq!(answers[9], ["1"]);
    assert_eq!(answers[10..12], [["42725"], ["2BP01"]]);
    assert_eq!(answers[13], ["42883"]);
}

#[test]
fn an_index_on_an_expression_holds_the_columns_it_reads() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, a text, b int);
        INSERT INTO t SELECT g, 'N' || g, g % 7 FROM generate_series(1, 100) g;";
    let answers = same_with_misses(
        setup,
        &[
            "CREATE INDEX lowered ON t (lower(a))",
            "CREATE INDEX summed ON t ((b + id), b)",
            "CREATE INDEX some ON t (b) WHERE id > 50",
            "UPDATE t SET a = 'M' WHERE id = 5",
            "SELECT id FROM t WHERE a = 'M'",
            "SELECT id FROM t WHERE lower(a) = 'n7'",
            "SELECT count(*) FROM t WHERE b = 3",
            "CREATE INDEX lowered ON t (b)",
            "DROP INDEX lowered",
            "DROP INDEX summed, some",
            "CREATE OR REPLACE VIEW v AS SELECT id, a FROM t",
            "CREATE OR REPLACE VIEW v AS SELECT id + 1 AS id, a, b FROM t",
            "SELECT * FROM v WHERE id = 6",
            "CREATE TABLE u AS TABLE t",
            "TABLE u UNION TABLE t ORDER BY 1 LIMIT 1",
            "COMMENT ON COLUMN t.a IS 'a name'",
        ],
    );
    assert_eq!(answers[4..7], [["5"], ["7"], ["14"]]);
    assert_eq!(answers[7], ["42P07"]);
    assert_eq!(answers[12], ["6,M,5"]);
    assert_eq!(answers[14], ["1,N1,1"]);
    assert!(answers[15] == ["COMMENT"], "{answers:?}");
}

#[test]
fn keys_go_and_come() {
    let answers = same_with_misses(
        "CREATE TABLE t (a int PRIMARY KEY, b int UNIQUE, c text);
         INSERT INTO t VALUES (1, 2, 'x'), (2, 3, 'y');",
        &[
            "ALTER TABLE t ALTER COLUMN a TYPE bigint",
            "INSERT INTO t VALUES (2, 9, 'z')",
            "INSERT INTO t VALUES (5000000000, 4, 'z')",
            "ALTER TABLE t ADD COLUMN n serial",
            "SELECT a, n FROM t ORDER BY a",
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
            "INSERT INTO t VALUES (2, 9, 'w')",
            "ALTER TABLE t DROP COLUMN a",
            "ALTER TABLE t ADD COLUMN d int PRIMARY KEY DEFAULT 1",
            "ALTER TABLE t ADD PRIMARY KEY (b)",
            "ALTER TABLE t DROP COLUMN b",
            "SELECT c, n FROM t ORDER BY c",
            "CREATE INDEX i ON t (c)",
            "ALTER INDEX i RENAME TO j",
            "DROP INDEX j",
            "CHECKPOINT",
            "VACUUM ANALYZE t",
        ],
    );
    assert_eq!(answers[1], ["23505"]);
    assert_eq!(answers[4], ["1,1", "2,2", "5000000000,3"]);
    assert_eq!(answers[8], ["23505"], "one key for all rows");
    assert_eq!(answers[11].len(), 4);
    assert!(answers[5..8].iter().chain(&answers[12..]).all(|answer| done(answer)), "{answers:?}");
}

#[test]
fn tables_are_made_of_queries() {
    let answers = same_with_misses(
        "CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b');",
        &[
            "CREATE TABLE a (x, y) AS SELECT id, v FROM t WHERE id > 1",
            "SELECT x, y FROM a",
            "CREATE TABLE b AS SELECT * FROM t WITH NO DATA",
            "SELECT count(*) FROM b",
            "SELECT id INTO c FROM t",
            "TABLE c ORDER BY id",
        ],
    );
    assert_eq!(answers[1], ["2,b"]);
    assert_eq!(answers[3], ["0"]);
    assert_eq!(answers[5], ["1", "2"]);
}

#[test]
fn what_writes_inside_of_with_reads_what_was_before_all_of_it() {
    let answers = same_with_misses(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE kept (id int PRIMARY KEY, v text);
         INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');",
        &[
            "WITH gone AS (DELETE FROM t WHERE id < 3 RETURNING *) INSERT INTO kept SELECT * FROM gone RETURNING id",
            "WITH n(n) AS (SELECT 9), new(x) AS (INSERT INTO t SELECT n, 'z' FROM n RETURNING id)
             SELECT x, (SELECT count(*) FROM t) FROM new",
            "WITH a AS (UPDATE t SET v = 'A'), b AS (UPDATE kept SET v = v || '!' RETURNING v) SELECT max(v) FROM b",
            "WITH a AS (UPDATE t SET v = 'B') UPDATE t SET v = 'C'",
            "SELECT id, v FROM t ORDER BY id",
            "SELECT id, v FROM kept ORDER BY id",
        ],
    );
    assert_eq!(answers[0], ["1", "2"]);
    assert_eq!(answers[1], ["9,1"]);
    assert_eq!(answers[2], ["b!"]);
    assert_eq!(answers[3], ["21000"]);
    assert_eq!(answers[4], ["3,A", "9,A"]);
    assert_eq!(answers[5], ["1,a!", "2,b!"]);
}

#[test]
fn merge_does_what_its_clauses_say() {
    let answers = same_with_misses(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10), (2, 20), (3, 30);
         CREATE TABLE s (id int, v int); INSERT INTO s VALUES (1, 1), (2, 0), (4, 4), (5, NULL);",
        &[
            "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED AND s.v = 0 THEN DELETE
             WHEN MATCHED THEN UPDATE SET v = t.v + s.v WHEN NOT MATCHED AND s.v > 0 THEN INSERT VALUES (s.id, s.v)",
            "SELECT id, v FROM t ORDER BY id",
            "MERGE INTO t AS x USING (VALUES (3), (3)) AS y (id) ON x.id = y.id WHEN MATCHED THEN UPDATE SET v = 0",
            "MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DO NOTHING",
            "SELECT count(*) FROM t",
        ],
    );
    assert_eq!(answers[0], ["MERGE 3"]);
    assert_eq!(answers[1], ["1,11", "3,30", "4,4"]);
    assert_eq!(answers[2], ["21000"]);
    assert_eq!(answers[3], ["MERGE 0"]);
    assert_eq!(answers[4], ["3"]);
}

#[test]
fn copy_reads_and_writes_lines() {
    let mut database = Database::new(true);
    database
        .run("CREATE TABLE t (a int PRIMARY KEY, b text NOT NULL, c date, d int GENERATED ALWAYS AS (a * 2) STORED, e int GENERATED ALWAYS AS IDENTITY); CREATE VIEW v AS SELECT a FROM t")
        .expect("a table");
    let tag = |answer: Result<kimberlite_query::session::Answer, kimberlite_row::SqlError>| {
        answer.map(|answer| answer.tag)
    };
    let text = "COPY t FROM STDIN;\n1\tone\\ttab\t2026-01-31\t5\n2\t\t\\N\t6\n\\.\n";
    assert_eq!(tag(database.run(text)), Ok("COPY 2".into()));
    let csv = "COPY t (b, a) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', NULL '-');\nb;a\n\"x;\ny\";3\nz;4\n\\.\n";
    assert_eq!(tag(database.run(csv)), Ok("COPY 2".into()));
    assert_eq!(tag(database.run("COPY t FROM STDIN;\n\\.\n")), Ok("COPY 0".into()));
    for (sql, lines) in [
        (
            "COPY t TO STDOUT",
            &["1\tone\\ttab\t2026-01-31\t5", "2\t\t\\N\t6", "3\tx;\\ny\t\\N\t1", "4\tz\t\\N\t2"][..],
        ),
        ("COPY t (b, c) TO STDOUT CSV HEADER", &["b,c", "one\ttab,2026-01-31", "\"\",", "\"x;\ny\",", "z,"]),
        (
            "COPY (SELECT d, b FROM t WHERE a > 2 ORDER BY a DESC) TO STDOUT (FORMAT csv, FORCE_QUOTE (d))",
            &["\"8\",z", "\"6\",\"x;\ny\""],
        ),
    ] {
        let answer = database.run(sql).expect(sql);
        let shown: Vec<&str> = answer.rows.iter().map(|row| row[0].as_text().unwrap_or("")).collect();
        let expected: Vec<&str> = lines.to_vec();
        assert_eq!(shown, expected, "{sql}");
    }
    for (sql, state, detail) in [
        ("COPY t (a, b) FROM STDIN;\n7\tx\n8\n\\.\n", "22P04", "COPY t, line 2"),
        ("COPY t (a, b) FROM STDIN;\n7\tx\ty\n", "22P04", "COPY t, line 1"),
        (
            "COPY t (a, b) FROM STDIN CSV HEADER;\na,b\n7,\"x\ny\"\nseven,x\n",
            "22P02",
            "COPY t, line 4, column a: \"seven\"",
        ),
        ("COPY t (a, b) FROM STDIN;\n7\t\\N\n", "23502", "COPY t, line 1, column b: null input"),
        ("COPY t (a, b) FROM STDIN;\n1\tagain\n", "23505", "Key (a)=(1) already exists."),
        ("COPY t (a, b) FROM STDIN CSV;\n7,\"open\n", "22P04", "COPY t, line 1"),
        ("COPY t (d) FROM STDIN;\n1\n", "42P10", "Generated columns cannot be used in COPY."),
        ("COPY t (x) FROM STDIN;\n1\n", "42703", ""),
        ("COPY v TO STDOUT", "42809", ""),
        ("COPY nothing TO STDOUT", "42P01", ""),
        ("COPY t FROM STDIN", "42601", ""),
        ("COPY t FROM '/etc/passwd'", "0A000", ""),
        ("COPY t TO PROGRAM 'cat'", "0A000", ""),
    ] {
        let refused = database.run(sql).expect_err(sql);
        let parts = refused.parts();
        assert_eq!((parts.state.code(), parts.detail.as_deref().unwrap_or("")), (state, detail), "{sql}");
    }
    assert_eq!(database.rows("SELECT count(*) FROM t"), Ok(vec!["4".into()]));
    database.run("BEGIN READ ONLY").expect("a block");
    assert_eq!(
        tag(database.run("COPY t FROM STDIN;\n9\tx\t\\N\t1\n")).map_err(|error| error.state().code()),
        Err("25006")
    );
}
