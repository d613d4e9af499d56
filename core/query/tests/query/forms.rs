//! Forms of statements, with what PostgreSQL 15.18 answers.

use crate::rows::Database;

/// Each text is run in the same database: rows joined by `;`, or `! ` and the SQLSTATE.
fn answers(texts: &[(&str, &str)]) {
    let mut database = Database::new(false);
    for (sql, expected) in texts {
        let ours = match database.rows(sql) {
            Ok(rows) => rows.join(";"),
            Err(error) => format!("! {}", error.state().code()),
        };
        assert_eq!(ours, *expected, "{sql}");
    }
}

#[test]
fn aggregates_and_rows_stand_where_they_may() {
    answers(&[
        ("CREATE TABLE t (a int, b int)", ""),
        ("INSERT INTO t VALUES (1, 2), (3, 4)", ""),
        ("SELECT 1 FROM t, LATERAL (SELECT max(t.a) FROM t u) s", "! 42803"),
        ("SELECT * FROM t, generate_series(1, max(t.a)) s", "! 42803"),
        ("SELECT * FROM generate_series(1, count(*)) s", "! 42803"),
        ("VALUES (count(*))", "! 42803"),
        ("SELECT 1 LIMIT count(*)", "! 42803"),
        ("VALUES (generate_series(1, 2))", "! 0A000"),
        ("SELECT a FROM t WHERE generate_series(1, 2) = a", "! 0A000"),
        ("SELECT count(generate_series(1, 2)) FROM t", "! 0A000"),
        ("SELECT (SELECT sum(t.a)) FROM t", "4"),
        ("SELECT min(a) WITHIN GROUP (ORDER BY a) FROM t", "! 42809"),
        ("SELECT string_agg(DISTINCT a::text, ',' ORDER BY b) FROM t", "! 42P10"),
        ("SELECT string_agg(DISTINCT a::text, ',' ORDER BY a::text DESC) FROM t", "3,1"),
        ("SELECT rank() FROM t", "! 42809"),
        ("SELECT concat()", "! 42883"),
        ("SELECT regr_count(NULL, 1), covar_pop(NULL, NULL)", "0,null"),
    ]);
}

#[test]
fn places_and_stars_mean_what_they_mean_to_postgresql() {
    answers(&[
        ("CREATE TABLE t (a int, b int)", ""),
        ("INSERT INTO t VALUES (1, 2), (3, 4)", ""),
        ("SELECT u.* FROM t, LATERAL (SELECT t.* LIMIT 1) u ORDER BY 1", "1,2;3,4"),
        ("SELECT a FROM t ORDER BY 'x'", "! 42601"),
        ("SELECT a FROM t ORDER BY 1.5", "! 42601"),
        ("SELECT a FROM t ORDER BY -1", "! 42P10"),
        ("SELECT count(*) FROM t GROUP BY NULL", "! 42601"),
        ("SELECT a FROM t FETCH FIRST 1 ROW WITH TIES", "! 42601"),
        ("CREATE TABLE none ()", ""),
        ("SELECT * FROM none", ""),
        ("SELECT *", "! 42601"),
        // What is NULL in any case is not computed, and neither is what stands beside what never holds.
        ("SELECT count(*) FROM t WHERE NOT 1 / (a - 1) <= NULL", "0"),
        ("SELECT count(*) FROM t WHERE 1 / (a - 1) = 1 AND false", "0"),
        ("SELECT a FROM t WHERE 1 / (a - 1) = 1 OR true ORDER BY a", "1;3"),
        ("SELECT lead(NULL, 1, false) OVER (ORDER BY a) FROM t", "null;f"),
        ("SELECT row_number() OVER (ROWS BETWEEN '1' PRECEDING AND CURRENT ROW) FROM t", "1;2"),
        ("SELECT overlay('abc' PLACING 'X' FROM 0 FOR 1)", "! 22011"),
        ("SELECT overlay('abc' PLACING 'XY' FROM 2 FOR -1)", "aXYabc"),
        ("SELECT make_time(22, 64, 23)", "! 22008"),
        ("SELECT date_part('HOUR', date '2000-01-01')", "0"),
    ]);
}

#[test]
fn windows_leave_the_rows_in_their_order() {
    answers(&[
        ("CREATE TABLE t (a int, b int)", ""),
        ("INSERT INTO t VALUES (1, 2), (3, 1), (2, 2), (4, 1)", ""),
        ("SELECT a, row_number() OVER (ORDER BY a DESC) FROM t", "4,1;3,2;2,3;1,4"),
        ("SELECT a, b, sum(a) OVER (PARTITION BY b ORDER BY a) FROM t", "3,1,3;4,1,7;1,2,1;2,2,3"),
        ("SELECT a, rank() OVER (ORDER BY a), sum(a) OVER (ORDER BY b) FROM t", "1,1,10;2,2,10;3,3,7;4,4,7"),
        ("SELECT a, rank() OVER (ORDER BY b), sum(a) OVER () FROM t", "3,1,10;4,1,10;1,3,10;2,3,10"),
        ("SELECT a, row_number() OVER (ORDER BY a DESC) FROM t ORDER BY b, a", "3,2;4,1;1,4;2,3"),
    ]);
}

#[test]
fn recursions_are_read_as_far_as_they_are_asked_for() {
    answers(&[
        ("WITH RECURSIVE t (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT * FROM t LIMIT 3", "1;2;3"),
        (
            "WITH RECURSIVE t (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT x * 2 FROM t OFFSET 2 LIMIT 2",
            "6;8",
        ),
        (
            "WITH RECURSIVE t (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t ORDER BY 1) SELECT * FROM t",
            "! 0A000",
        ),
        (
            "WITH RECURSIVE t (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t LIMIT 3) SELECT * FROM t",
            "! 0A000",
        ),
        ("WITH RECURSIVE t (x) AS (SELECT 1 UNION ALL SELECT a.x FROM t a, t b) SELECT * FROM t", "! 42P19"),
        ("WITH RECURSIVE t (x) AS (SELECT 1 UNION ALL SELECT max(x) FROM t) SELECT * FROM t", "! 42P19"),
        ("CREATE RECURSIVE VIEW nums (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM nums WHERE n < 3", ""),
        ("SELECT * FROM nums", "1;2;3"),
        ("CREATE VIEW IF NOT EXISTS v AS SELECT 1", "! 42601"),
    ]);
}

#[test]
fn a_table_is_made_like_another() {
    answers(&[
        (
            "CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 7 CHECK (a > 0), b int GENERATED ALWAYS AS (a + 1) STORED,
             c text UNIQUE NOT NULL)",
            "",
        ),
        ("CREATE INDEX ON t (a)", ""),
        ("CREATE TABLE plain (LIKE t)", ""),
        ("INSERT INTO plain VALUES (1, -1, 5, 'x'), (1, NULL, 6, 'x')", ""),
        ("INSERT INTO plain (id) VALUES (2)", "! 23502"),
        ("CREATE TABLE whole (LIKE t INCLUDING ALL, more int)", ""),
        ("INSERT INTO whole (id, c) VALUES (1, 'x')", ""),
        ("SELECT * FROM whole", "1,7,8,x,null"),
        ("INSERT INTO whole (id, c) VALUES (1, 'y')", "! 23505"),
        ("INSERT INTO whole (id, c) VALUES (2, 'x')", "! 23505"),
        ("INSERT INTO whole (id, a, c) VALUES (2, -1, 'y')", "! 23514"),
        ("SELECT indexname FROM pg_indexes WHERE tablename = 'whole' ORDER BY 1", "whole_a_idx;whole_c_key;whole_pkey"),
        ("CREATE TABLE most (LIKE t INCLUDING ALL EXCLUDING DEFAULTS)", ""),
        ("INSERT INTO most (id, c) VALUES (1, 'x') RETURNING a, b", "null,null"),
        ("CREATE TABLE bad (LIKE t INCLUDING NOTHING)", "! 42601"),
        ("CREATE TABLE bad (LIKE nothing)", "! 42P01"),
    ]);
}

#[test]
fn sequences_are_named_by_what_there_is() {
    answers(&[
        ("CREATE SEQUENCE numbers", ""),
        ("SELECT nextval(NULL), currval(NULL)", "null,null"),
        ("SELECT nextval('number')", "! 42P01"),
    ]);
    let mut database = Database::new(false);
    database
        .run(
            "CREATE SEQUENCE numbers; CREATE FUNCTION twice(int) RETURNS int LANGUAGE SQL AS 'SELECT $1 * 2'",
        )
        .expect("a schema");
    for (sql, near) in
        [("SELECT nextval('numbres')", "numbers"), ("SELECT twoce(1)", "twice"), ("SELECT coumt(1)", "count")]
    {
        let error = database.run(sql).expect_err(sql);
        assert!(error.parts().hint.as_ref().is_some_and(|hint| hint.contains(near)), "{sql}");
    }
}

#[test]
fn what_was_left_undone_is_told() {
    let mut database = Database::new(false);
    database.run("CREATE TABLE t (a int); CREATE SEQUENCE s").expect("a schema");
    for (sql, notice) in [
        ("CREATE TABLE IF NOT EXISTS t (a int)", "relation \"t\" already exists, skipping"),
        ("CREATE TABLE IF NOT EXISTS t AS SELECT 1", "relation \"t\" already exists, skipping"),
        ("CREATE SEQUENCE IF NOT EXISTS s", "relation \"s\" already exists, skipping"),
        ("DROP TABLE IF EXISTS u", "table \"u\" does not exist, skipping"),
        ("DROP INDEX IF EXISTS u", "index \"u\" does not exist, skipping"),
        ("ALTER TABLE IF EXISTS u ADD x int", "relation \"u\" does not exist, skipping"),
    ] {
        let answer = database.run(sql).expect(sql);
        assert_eq!(answer.notices, [notice], "{sql}");
    }
    assert!(database.run("CREATE TABLE IF NOT EXISTS u (a int)").expect("made").notices.is_empty());
}

#[test]
fn views_show_what_they_showed() {
    answers(&[
        ("CREATE TABLE t (a int, b int)", ""),
        ("CREATE TABLE u (a int, c int)", ""),
        ("INSERT INTO t VALUES (1, 2)", ""),
        ("INSERT INTO u VALUES (1, 3)", ""),
        ("CREATE VIEW v AS SELECT * FROM t", ""),
        ("CREATE VIEW w AS SELECT * FROM t JOIN u USING (a)", ""),
        ("CREATE VIEW x AS SELECT u.*, t.b FROM t, u", ""),
        ("ALTER TABLE t ADD d int DEFAULT 9", ""),
        ("ALTER TABLE u ADD d int DEFAULT 8", ""),
        ("SELECT * FROM v", "1,2"),
        ("SELECT * FROM w", "1,2,3"),
        ("SELECT * FROM x", "1,3,2"),
        ("ALTER TABLE t DROP d", ""),
        ("ALTER TABLE t DROP b", "! 2BP01"),
        ("ALTER TABLE t RENAME b TO bb", "! 0A000"),
        ("SELECT * FROM v", "1,2"),
        ("ALTER TABLE t DROP b CASCADE", ""),
        ("SELECT * FROM v", "! 42P01"),
        ("SELECT viewname FROM pg_views", ""),
    ]);
}

#[test]
fn definitions_that_contradict_are_refused() {
    answers(&[
        (
            "CREATE TABLE g (a int GENERATED ALWAYS AS (1) STORED, b int GENERATED ALWAYS AS (a) STORED)",
            "! 42P17",
        ),
        ("CREATE TABLE t (a int)", ""),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)", ""),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 1)", "! 42710"),
        ("CREATE TABLE p (id int PRIMARY KEY)", ""),
        ("CREATE TABLE d (id int REFERENCES p INITIALLY DEFERRED)", "! 0A000"),
        ("CREATE TABLE d (id int REFERENCES p DEFERRABLE)", ""),
        ("CREATE TABLE n (a int) AS VALUES (1)", "! 42601"),
        ("CREATE SEQUENCE s AS smallint", ""),
        ("SELECT setval('s', 32767)", "32767"),
        ("SELECT nextval('s')", "! 2200H"),
        ("CREATE SEQUENCE s2 AS smallint MAXVALUE 40000", "! 22023"),
        ("CREATE SEQUENCE s2 AS text", "! 22023"),
        ("CREATE TABLE st (id int DEFAULT nextval('s'), v int)", ""),
        ("DROP SEQUENCE s", "! 2BP01"),
        ("DROP SEQUENCE s CASCADE", ""),
        ("INSERT INTO st (v) VALUES (1) RETURNING id", "null"),
        ("SELECT * FROM t FULL JOIN p ON t.a < p.id", "! 0A000"),
        ("SELECT * FROM t FULL JOIN p ON t.a = p.id AND t.a < 5", ""),
        ("SELECT row_number() OVER (ROWS BETWEEN NULL PRECEDING AND CURRENT ROW) FROM p", ""),
        ("INSERT INTO p VALUES (1)", ""),
        ("SELECT row_number() OVER (ROWS BETWEEN CURRENT ROW AND -1 FOLLOWING) FROM p", "! 22013"),
        ("SELECT rank() OVER (RANGE BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING) FROM p", "! 42P20"),
        ("SELECT ARRAY[]", "! 42P18"),
        ("SELECT ARRAY[]::int[]", "{}"),
        ("SELECT array_append(NULL, 1), array_remove(NULL, 1)", "{1},null"),
    ]);
}

#[test]
fn the_catalogue_is_read_as_tables() {
    answers(&[
        ("CREATE TABLE t (id serial PRIMARY KEY, a varchar(3), b char(2), c int[], d numeric(4,1))", ""),
        (
            "SELECT column_name, data_type FROM information_schema.columns ORDER BY ordinal_position",
            "id,integer;a,character varying;b,character;c,ARRAY;d,numeric",
        ),
        ("SELECT sequence_name, maximum_value FROM information_schema.sequences", "t_id_seq,2147483647"),
        ("SELECT column_name, ordinal_position FROM information_schema.key_column_usage", "id,1"),
        ("SELECT sequencename, last_value FROM pg_sequences", "t_id_seq,null"),
        ("SELECT nextval('t_id_seq')", "1"),
        ("SELECT last_value FROM pg_sequences", "1"),
    ]);
}
