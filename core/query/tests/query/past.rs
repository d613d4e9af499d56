//! Statements that are asked of the past. Here the first commit is at position 2, and position n is n
//! seconds behind 1970.

use crate::rows::Database;

fn database() -> Database {
    let mut database = Database::new(false);
    let sql = "CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'old'); UPDATE t SET v = 'new';
        CREATE VIEW w AS SELECT v, extract(epoch FROM now())::int AS at FROM t; CREATE TABLE late (id int);";
    database.run(sql).expect("a history");
    database
}

#[test]
fn a_whole_statement_is_asked_of_the_past() {
    let mut database = database();
    for (sql, expected) in [
        ("SELECT v, extract(epoch FROM now())::int FROM t", "new,1600000000"),
        ("SELECT v, extract(epoch FROM now())::int FROM t AT POSITION 3", "old,3"),
        ("AT POSITION 3 SELECT v, extract(epoch FROM now())::int FROM t", "old,3"),
        (
            "SELECT a.v || b.v FROM t a, t b WHERE a.id = b.id AS OF TIMESTAMP '1970-01-01 00:00:03.5+00'",
            "oldold",
        ),
        ("SELECT max(v) FROM t GROUP BY id HAVING count(*) = 1 ORDER BY 1 AT POSITION 3", "old"),
        ("WITH a AS (SELECT v FROM t) SELECT v FROM a AT POSITION 3", "old"),
        ("SELECT v FROM t WHERE v = (SELECT max(v) FROM t) AT POSITION 3", "old"),
        ("TABLE t AT POSITION 3", "1,old"),
        ("SELECT current_date AT POSITION 3", "1970-01-01"),
        // One table's version goes before that of the statement, and reaches into a view.
        ("SELECT a.v || b.v FROM t FOR SYSTEM_TIME AS OF AT POSITION 3 a JOIN t b ON a.id = b.id", "oldnew"),
        ("SELECT v, at FROM w AT POSITION 5", "new,5"),
    ] {
        assert_eq!(database.rows(sql), Ok(vec![expected.into()]), "{sql}");
    }
    database.run("CREATE TABLE kept AS SELECT v FROM t AT POSITION 3").expect("a copy");
    database.run("INSERT INTO kept SELECT v FROM t AT POSITION 4").expect("more of it");
    let view = database.run("CREATE VIEW then AS SELECT v FROM t AT POSITION 3");
    assert_eq!(view.map_err(|error| error.state().code()).err(), Some("0A000"), "a view is of its own time");
    assert_eq!(database.rows("SELECT v FROM kept ORDER BY v"), Ok(vec!["new".into(), "old".into()]));
    database.run("EXPLAIN SELECT v FROM t AT POSITION 3").expect("a plan");
}

#[test]
fn what_was_not_yet_or_is_not_kept_is_refused() {
    for (sql, state) in [
        ("SELECT * FROM t AT POSITION 99", "22023"),
        ("SELECT * FROM t AS OF TIMESTAMP '2200-01-01'", "22023"),
        ("SELECT * FROM t AS OF TIMESTAMP '1969-01-01'", "72000"),
        ("SELECT * FROM late AT POSITION 3", "42P01"),
        ("SELECT * FROM t AS OF TIMESTAMP 'yesterday noon'", "22007"),
        ("SELECT * FROM t FOR SYSTEM_TIME AS OF (SELECT now())", "42601"),
        ("SELECT * FROM t FOR SYSTEM_TIME AS OF now()", "42601"),
    ] {
        let refused = database().rows(sql).map_err(|error| error.state().code());
        assert_eq!(refused, Err(state), "{sql}");
    }
}

/// What became of three rows: one was changed and deleted and came again, one stays, one moved to another key.
fn lives(miss: bool) -> Database {
    let mut database = Database::new(miss);
    let sql =
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');
        UPDATE t SET v = 'aa' WHERE id = 1; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'again');
        UPDATE t SET id = 4 WHERE id = 3; ALTER TABLE t ADD COLUMN w int DEFAULT 7;
        CREATE VIEW ended AS SELECT id, v FROM HISTORY OF t WHERE ended_by = 'DELETE';";
    database.run(sql).expect("a history");
    database
}

#[test]
fn the_history_of_a_table_is_every_version_of_its_rows() {
    for miss in [false, true] {
        let mut database = lives(miss);
        let span = "begin_position, end_position, operation, ended_by";
        for (sql, expected) in [
            (
                format!("SELECT id, v, {span} FROM HISTORY OF t WHERE id = 1"),
                &["1,a,3,4,INSERT,UPDATE", "1,aa,4,5,UPDATE,DELETE", "1,again,6,null,INSERT,null"][..],
            ),
            (
                "SELECT extract(epoch FROM begin_time)::int, extract(epoch FROM end_time)::int
                    FROM history of t AS h WHERE h.v = 'aa'"
                    .into(),
                &["4,5"],
            ),
            ("SELECT * FROM HISTORY OF t WHERE id = 2".into(), &["2,b,7,3,1970-01-01 00:00:03+00,null,null,INSERT,null"]),
            (format!("SELECT id, {span} FROM HISTORY OF t WHERE id >= 3"), &["3,3,7,INSERT,DELETE", "4,7,null,INSERT,null"]),
            // At a position, what ended later still holds, and what began later is not there.
            (format!("SELECT v, {span} FROM HISTORY OF t WHERE id = 1 AT POSITION 4"), &["a,3,4,INSERT,UPDATE", "aa,4,null,UPDATE,null"]),
            (format!("SELECT v, {span} FROM HISTORY OF t AT POSITION 3 WHERE id = 1"), &["a,3,null,INSERT,null"]),
            ("SELECT count(*) FROM t, HISTORY OF t AS h WHERE t.id = h.id".into(), &["5"]),
            ("SELECT id, count(*) FROM HISTORY OF t GROUP BY id ORDER BY id".into(), &["1,3", "2,1", "3,1", "4,1"]),
            ("SELECT * FROM ended ORDER BY id".into(), &["1,aa", "3,c"]),
            ("SELECT (SELECT max(begin_position) FROM HISTORY OF t h WHERE h.id = t.id) FROM t ORDER BY id".into(), &["6", "3", "7"]),
        ] {
            let expected: Vec<String> = expected.iter().map(|row| (*row).to_string()).collect();
            assert_eq!(database.rows(&sql), Ok(expected), "{sql}");
        }
        assert_eq!(database.memory.misses.get() > 0, miss);
    }
}

#[test]
fn a_history_is_read_and_never_written() {
    for (sql, state) in [
        ("SELECT * FROM HISTORY OF w", "42809"),
        ("SELECT * FROM HISTORY OF nothing", "42P01"),
        ("SELECT id FROM HISTORY OF t GROUP BY v", "42803"),
        ("DELETE FROM HISTORY OF t", "42601"),
        ("UPDATE HISTORY OF t SET v = ''", "42601"),
        ("DROP TABLE HISTORY OF t", "42601"),
        ("TRUNCATE w, HISTORY OF t", "42601"),
    ] {
        let refused = database().rows(sql).map_err(|error| error.state().code());
        assert_eq!(refused, Err(state), "{sql}");
    }
    // A column or table may be called so.
    let mut database = database();
    database.run("CREATE TABLE history (history int); INSERT INTO history VALUES (1)").expect("a table");
    assert_eq!(database.rows("SELECT history FROM history"), Ok(vec!["1".into()]));
}

#[test]
fn what_was_read_of_a_history_guards_the_range() {
    let mut database = lives(false);
    let session = std::mem::take(&mut database.session);
    let (session, begun) = database.run_in(
        session,
        "BEGIN; INSERT INTO t SELECT 9, v FROM HISTORY OF t WHERE id = 1 AND ended_by = 'UPDATE'",
    );
    begun.expect("a block");
    database.run("UPDATE t SET v = 'other' WHERE id = 1").expect("another session");
    let (_, ended) = database.run_in(session, "COMMIT");
    assert_eq!(ended.map(|_| ()).map_err(|error| error.state().code()), Err("40001"));
}

/// Two streams: three visits, and letters of which one is large.
fn streams(miss: bool) -> Database {
    let mut database = Database::new(miss);
    database.run("CREATE TABLE patient (id int PRIMARY KEY, name text); INSERT INTO patient VALUES (1, 'Ada'), (2, 'Grace')").expect("tables");
    let visits = [(2, "1"), (3, "2"), (3, "1")].map(|(op, text)| (op, text.as_bytes().to_vec()));
    database.memory.streams.push(("visits".to_string(), visits.to_vec()));
    let letters = (0..3000).map(|n| (1 + n / 1000, n.to_string().into_bytes())).collect();
    database.memory.streams.push(("letters".to_string(), letters));
    database
}

#[test]
fn a_stream_of_the_log_is_a_table() {
    for miss in [false, true] {
        let mut database = streams(miss);
        for (sql, expected) in [
            ("SELECT * FROM stream('visits') LIMIT 1", &[r"7,visits,0,2,1970-01-01 00:00:02+00,\x31"][..]),
            ("SELECT offset, position FROM stream('visits') WHERE offset > 0", &["1,3", "2,3"]),
            (
                "SELECT v.offset, name FROM stream('visits') v JOIN patient ON id = convert_from(payload, 'UTF8')::int ORDER BY 1",
                &["0,Ada", "1,Grace", "2,Ada"],
            ),
            ("SELECT count(*) FROM stream('visits') AT POSITION 2", &["1"]),
            (
                "SELECT count(*), min(offset), max(convert_from(payload, 'UTF8')) FROM stream('letters')",
                &["3000,0,999"],
            ),
            (
                "SELECT sum(convert_from(payload, 'UTF8')::int) FROM stream('letters') WHERE offset >= 2990 AND 2995 > offset",
                &["14960"],
            ),
            ("SELECT payload FROM stream('letters') WHERE offset = 2999", &[r"\x32393939"]),
            ("SELECT count(*) FROM stream('letters') WHERE offset < -1 OR offset = 7.5", &["0"]),
            ("SELECT count(*) FROM stream('letters') WHERE offset > -5 AND offset <= 1.5", &["2"]),
            ("SELECT count(*) FROM stream('0')", &["3"]),
            ("SELECT count(*) FROM stream(NULL)", &["0"]),
            (
                "SELECT n, count(*) FROM (VALUES ('visits'), ('letters')) s (n), LATERAL stream(n) GROUP BY n ORDER BY n",
                &["letters,3000", "visits,3"],
            ),
        ] {
            let expected: Vec<String> = expected.iter().map(|row| (*row).to_string()).collect();
            assert_eq!(database.rows(sql), Ok(expected), "{sql}");
        }
        assert_eq!(database.memory.misses.get() > 0, miss);
        let unknown = database.rows("SELECT * FROM stream('visit')").expect_err("there is none");
        assert_eq!(
            (
                unknown.state().code(),
                unknown.parts().hint.as_ref().is_some_and(|hint| hint.contains("visits"))
            ),
            ("42704", true)
        );
        for (sql, state) in
            [("SELECT * FROM stream()", "42883"), ("SELECT * FROM stream('visits') WITH ORDINALITY", "0A000")]
        {
            assert_eq!(database.rows(sql).map_err(|error| error.state().code()), Err(state), "{sql}");
        }
    }
}

#[test]
fn what_was_read_of_a_stream_to_its_end_guards_it() {
    for (condition, outcome) in [("true", Err("40001")), ("offset < 2", Ok(())), ("offset < 9", Err("40001"))]
    {
        let mut database = streams(false);
        let session = std::mem::take(&mut database.session);
        let sql = format!(
            "BEGIN; INSERT INTO patient SELECT 10 + offset, 'x' FROM stream('visits') WHERE {condition}"
        );
        let (session, begun) = database.run_in(session, &sql);
        begun.expect("a block");
        database.memory.streams[0].1.push((4, b"late".to_vec()));
        let (_, ended) = database.run_in(session, "COMMIT");
        assert_eq!(ended.map(|_| ()).map_err(|error| error.state().code()), outcome, "{condition}");
    }
}
