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
