//! What the planner makes of queries, as EXPLAIN shows it.

use std::sync::Arc;

use kimberlite_query::parse::statements;
use kimberlite_query::session::{Answer, Running, Step};
use kimberlite_row::check::Stop;
use kimberlite_row::{SqlError, Value};
use sqlparser::ast::Statement;

use crate::rows::{Database, shown};

impl Database {
    /// Runs a statement that was parsed before, with parameters.
    fn again(
        &mut self,
        (statement, text): &(Arc<Statement>, Arc<str>),
        params: Vec<Value>,
    ) -> Result<Answer, SqlError> {
        let mut running = Running::new(statement.clone(), text.clone(), params, 1_600_000_000_000_000, 1);
        loop {
            match self.session.step(&mut running, &self.memory) {
                Ok(Step::More) | Err(Stop::Miss(_)) => {}
                Ok(Step::Done(answer)) => return Ok(answer),
                Ok(Step::Commit(facts, answer)) => return self.memory.commit(facts).map(|()| answer),
                Err(Stop::Refused(error)) => return Err(error),
            }
        }
    }
}

#[track_caller]
fn plan(sql: &str, expected: &[&str]) {
    let mut database = Database::new(false);
    database
        .run(
            "CREATE TABLE t (a int PRIMARY KEY, b int, c int);
             CREATE INDEX by_b ON t (b, c);
             CREATE TABLE u (x int PRIMARY KEY, y int, z int);
             CREATE UNIQUE INDEX by_y ON u (y);
             CREATE TABLE w (k int, l int, m int, PRIMARY KEY (k, l));",
        )
        .expect("a schema");
    let rows = database.rows(&format!("EXPLAIN {sql}")).expect(sql);
    assert_eq!(rows, expected, "{sql}");
}

#[test]
fn an_equality_with_the_key_is_a_lookup() {
    plan("SELECT * FROM t WHERE a = 1", &["Filter (1 conditions)", "  Key Scan on t"]);
    plan("SELECT * FROM t WHERE 1 + 2 = a AND b > 2", &["Filter (2 conditions)", "  Key Scan on t"]);
    plan("SELECT * FROM w WHERE k = 1 AND l > 5", &["Filter (2 conditions)", "  Key Scan on w"]);
}

#[test]
fn a_condition_on_later_columns_alone_is_no_lookup() {
    plan("SELECT * FROM w WHERE l = 1", &["Filter (1 conditions)", "  Seq Scan on w"]);
    plan("SELECT * FROM t WHERE c = 1", &["Filter (1 conditions)", "  Seq Scan on t"]);
    plan("SELECT * FROM t WHERE b + 1 = 2", &["Filter (1 conditions)", "  Seq Scan on t"]);
}

#[test]
fn an_index_is_taken_where_it_fits_more() {
    plan("SELECT * FROM t WHERE b = 1 AND c = 2", &["Filter (2 conditions)", "  Index Scan using by_b on t"]);
    plan("SELECT * FROM t WHERE b = 1 AND a > 2", &["Filter (2 conditions)", "  Index Scan using by_b on t"]);
    plan("SELECT * FROM t WHERE b = 1 AND a = 2", &["Filter (2 conditions)", "  Key Scan on t"]);
    plan(
        "SELECT * FROM u WHERE y BETWEEN 1 AND 5",
        &["Filter (2 conditions)", "  Index Scan using by_y on u"],
    );
}

#[test]
fn conditions_move_to_where_their_columns_are_made() {
    plan(
        "SELECT * FROM (SELECT a + 1 AS n, b FROM t) AS q WHERE q.b = 3",
        &["Filter (1 conditions)", "  Index Scan using by_b on t"],
    );
    plan(
        "SELECT * FROM (SELECT b, count(*) FROM t GROUP BY b) AS q WHERE q.b = 3",
        &["Hash Aggregate", "  Filter (1 conditions)", "    Index Scan using by_b on t"],
    );
    // A condition on the count stays above.
    plan(
        "SELECT * FROM (SELECT b, count(*) AS n FROM t GROUP BY b) AS q WHERE q.n = 3",
        &["Filter (1 conditions)", "  Hash Aggregate", "    Seq Scan on t"],
    );
}

#[test]
fn a_left_join_is_an_inner_one_where_no_row_of_nulls_passes() {
    let left = "SELECT * FROM t LEFT JOIN u ON t.c = u.z";
    plan(left, &["Hash Left Join", "  Seq Scan on t", "  Seq Scan on u"]);
    plan(
        &format!("{left} WHERE u.z IS NULL"),
        &["Filter (1 conditions)", "  Hash Left Join", "    Seq Scan on t", "    Seq Scan on u"],
    );
    plan(
        &format!("{left} WHERE u.z > 1"),
        &["Hash Join", "  Filter (1 conditions)", "    Seq Scan on u", "  Seq Scan on t"],
    );
}

#[test]
fn subqueries_become_joins() {
    plan(
        "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.z = t.c)",
        &["Hash Semi Join", "  Seq Scan on t", "  Seq Scan on u"],
    );
    plan(
        "SELECT * FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.z = t.c)",
        &["Hash Anti Join", "  Seq Scan on t", "  Seq Scan on u"],
    );
    plan(
        "SELECT * FROM t WHERE c IN (SELECT z FROM u)",
        // Its values are looked up in a set.
        &["Filter (1 conditions)", "  Seq Scan on t"],
    );
}

#[test]
fn joins_begin_with_the_smallest() {
    plan(
        "SELECT * FROM t, u WHERE t.c = u.z AND u.x = 1",
        &["Hash Join", "  Filter (1 conditions)", "    Key Scan on u", "  Seq Scan on t"],
    );
    // No cross join where an equality connects.
    plan(
        "SELECT * FROM t, u, w WHERE t.c = w.m AND w.m = u.z",
        &["Hash Join", "  Hash Join", "    Seq Scan on t", "    Seq Scan on w", "  Seq Scan on u"],
    );
}

#[test]
fn what_all_branches_share_is_a_condition_of_its_own() {
    plan(
        "SELECT * FROM t WHERE (a = 1 AND b > 2) OR (a = 1 AND c > 3)",
        &["Filter (2 conditions)", "  Key Scan on t"],
    );
}

#[test]
fn writes_show_their_plan() {
    plan("DELETE FROM t WHERE a = 1", &["Delete on t", "  Filter (1 conditions)", "    Key Scan on t"]);
    plan("INSERT INTO t SELECT * FROM u", &["Insert on t", "  Seq Scan on u"]);
}

#[test]
fn a_list_of_values_is_looked_up_one_by_one() {
    for list in ["a IN (1, 2, 2)", "a = 1 OR 2 = a OR a = 2"] {
        plan(
            &format!("SELECT * FROM t WHERE {list}"),
            &["Filter (1 conditions)", "  Key Scan on t (3 values)"],
        );
    }
    plan(
        "SELECT * FROM w WHERE k = 1 AND l IN (2, 3)",
        &["Filter (2 conditions)", "  Key Scan on w (2 values)"],
    );
    plan(
        "SELECT * FROM t WHERE b IN (2, 3)",
        &["Filter (1 conditions)", "  Index Scan using by_b on t (2 values)"],
    );
    plan("SELECT * FROM t WHERE a = 1 OR b = 2", &["Filter (1 conditions)", "  Seq Scan on t"]);
}

#[test]
fn few_rows_look_up_their_partners() {
    plan(
        "SELECT * FROM t, u WHERE t.b = u.z AND u.x = 1",
        &[
            "Lookup Join",
            "  Filter (1 conditions)",
            "    Key Scan on u",
            "  Filter (1 conditions)",
            "    Index Scan using by_b on t",
        ],
    );
    plan(
        "SELECT * FROM u LEFT JOIN t ON t.b = u.z WHERE u.x = 1",
        &[
            "Lookup Left Join",
            "  Filter (1 conditions)",
            "    Key Scan on u",
            "  Filter (1 conditions)",
            "    Index Scan using by_b on t",
        ],
    );
    // Of as many as there are, each is read once.
    plan("SELECT * FROM t, u WHERE t.b = u.z", &["Hash Join", "  Seq Scan on t", "  Seq Scan on u"]);
}

#[test]
fn what_comes_in_order_is_not_sorted() {
    plan("SELECT * FROM t ORDER BY a LIMIT 3", &["Limit", "  Seq Scan on t"]);
    plan("SELECT a + 1 FROM t ORDER BY a", &["Seq Scan on t"]);
    plan("SELECT l FROM w WHERE k = 1 ORDER BY k DESC, l", &["Filter (1 conditions)", "  Key Scan on w"]);
    plan("SELECT * FROM t ORDER BY a DESC", &["Sort", "  Seq Scan on t"]);
    plan("SELECT * FROM w ORDER BY l", &["Sort", "  Seq Scan on w"]);
    plan(
        "SELECT * FROM t WHERE b = 1 ORDER BY c",
        &["Filter (1 conditions)", "  Index Scan using by_b on t"],
    );
    plan(
        "SELECT * FROM t WHERE b > 1 ORDER BY b NULLS FIRST",
        &["Sort", "  Filter (1 conditions)", "    Index Scan using by_b on t"],
    );
}

#[test]
fn a_minimum_in_order_is_the_first_row() {
    plan("SELECT min(a) FROM t", &["Aggregate", "  Limit", "    Seq Scan on t"]);
    plan("SELECT max(a) FROM t", &["Aggregate", "  Seq Scan on t"]);
    plan("SELECT min(a), max(a) FROM t", &["Aggregate", "  Seq Scan on t"]);
}

#[test]
fn conditions_move_into_both_sides_of_a_union() {
    plan(
        "SELECT * FROM (SELECT a FROM t UNION ALL SELECT x FROM u) AS q WHERE q.a = 3",
        &[
            "Union All",
            "  Filter (1 conditions)",
            "    Key Scan on t",
            "  Filter (1 conditions)",
            "    Key Scan on u",
        ],
    );
    plan(
        "SELECT * FROM (SELECT DISTINCT b FROM t) AS q WHERE q.b = 3",
        &["Distinct", "  Filter (1 conditions)", "    Index Scan using by_b on t"],
    );
}

#[test]
fn a_kept_plan_is_made_anew_when_what_it_was_bound_under_changes() {
    let mut database = Database::new(false);
    let parsed = |text: &str| {
        let statement = statements(text).expect(text).pop().expect(text);
        (Arc::new(statement), Arc::<str>::from(text))
    };
    let all = parsed("SELECT * FROM t WHERE a = $1");
    let insert = parsed("INSERT INTO t VALUES ($1, $2)");
    let last = parsed("SELECT last_value FROM s");
    let tables = parsed("SELECT count(*) FROM information_schema.tables WHERE table_name = 't'");
    database.run("CREATE TABLE t (a int PRIMARY KEY, b text); CREATE SEQUENCE s").expect("a schema");
    let columns = |database: &mut Database| {
        let answer = database.again(&all, vec![Value::Int(1)]).expect("an answer");
        answer.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(",")
    };
    assert_eq!(columns(&mut database), "a,b");
    database.run("BEGIN; ALTER TABLE t ADD COLUMN c int DEFAULT 7").expect("a transaction");
    assert_eq!(columns(&mut database), "a,b,c", "under the schema of the transaction");
    database.run("ROLLBACK").expect("it is open");
    assert_eq!(columns(&mut database), "a,b");
    database.run("BEGIN; ALTER TABLE t ADD COLUMN d int DEFAULT 8; COMMIT").expect("a transaction");
    assert_eq!(columns(&mut database), "a,b,d", "the same version as the one that was rolled back");
    database.run("ALTER TABLE t DROP COLUMN d").expect("it is there");
    for key in 1..4 {
        database.again(&insert, vec![Value::Int(key), Value::text("x")]).expect("a row");
        let rows = database.again(&all, vec![Value::Int(key)]).expect("a row");
        assert_eq!(shown(&rows), [format!("{key},x")]);
        database.run("SELECT nextval('s')").expect("a number");
        assert_eq!(shown(&database.again(&last, Vec::new()).expect("a row")), [key.to_string()]);
    }
    let duplicate = database.again(&insert, vec![Value::Int(1), Value::text("x")]);
    assert_eq!(duplicate.expect_err("it is there").state().code(), "23505");
    let one = |database: &mut Database| shown(&database.again(&all, vec![Value::Int(1)]).expect("a row"));
    assert_eq!(one(&mut database), ["1,x"]);
    assert_eq!(shown(&database.again(&tables, Vec::new()).expect("a row")), ["1"]);
    database.run("DROP TABLE t").expect("it is there");
    assert_eq!(shown(&database.again(&tables, Vec::new()).expect("a row")), ["0"]);
    let gone = database.again(&all, vec![Value::Int(1)]);
    assert_eq!(gone.expect_err("it is gone").state().code(), "42P01");
    database.run("CREATE TABLE t (b text, a int); INSERT INTO t VALUES ('y', 1)").expect("another table");
    assert_eq!(one(&mut database), ["y,1"]);
    // Parameters are bound as they come: without one there is none.
    assert!(database.again(&all, Vec::new()).is_err());
    assert_eq!(one(&mut database), ["y,1"]);
}

#[test]
fn a_kept_lookup_answers_as_the_first_one_did() {
    // The second one gives more than columns.
    let texts =
        ["SELECT m, l FROM w WHERE l = $2 AND k = $1", "SELECT m, l + 1 FROM w WHERE k = $1 AND l = $2"];
    for (miss, text) in [false, true].into_iter().flat_map(|miss| texts.map(|text| (miss, text))) {
        let mut database = Database::new(miss);
        database
            .run(
                "CREATE TABLE w (k int, l int, m text, PRIMARY KEY (k, l));
                 INSERT INTO w VALUES (1, 1, 'a'), (1, 2, 'b'), (2, 1, 'c')",
            )
            .expect("a table");
        let statement = statements(text).expect("a query").pop().expect("a query");
        let lookup = (Arc::new(statement), Arc::<str>::from(text));
        let ask = |database: &mut Database, k: Value, l: i64| match database
            .again(&lookup, vec![k, Value::Int(l)])
        {
            Ok(answer) => {
                let first = answer.rows.first().map_or("none", |row| row[0].as_text().unwrap_or("null"));
                assert_eq!(answer.columns.len(), 2);
                format!("{}: {first}", answer.tag)
            }
            Err(error) => error.state().code().to_string(),
        };
        let (found, none) = (|m: &str| format!("SELECT 1: {m}"), "SELECT 0: none");
        for _ in 0..2 {
            database.memory.forget(miss);
            assert_eq!(ask(&mut database, Value::Int(1), 2), found("b"));
            assert_eq!(ask(&mut database, Value::text(" 2"), 1), found("c"), "what comes as text is read");
            assert_eq!(ask(&mut database, Value::text("two"), 1), "22P02");
            assert_eq!(ask(&mut database, Value::Null, 1), none);
            assert_eq!(ask(&mut database, Value::Int(2), 2), none);
            database.run("BEGIN; UPDATE w SET m = 'own' WHERE k = 1 AND l = 2").expect("a block");
            assert_eq!(ask(&mut database, Value::Int(1), 2), found("own"));
            assert_eq!(ask(&mut database, Value::Int(1), 1), found("a"));
            database.run("ROLLBACK; SET work_rows_max = 0").expect("a block");
            assert_eq!(ask(&mut database, Value::Int(1), 2), "57014", "a limit that is set holds");
            database.run("RESET ALL").expect("a setting");
        }
    }
}
