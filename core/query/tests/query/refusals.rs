//! Refusals: the SQLSTATE, the place in the text, and the name that was perhaps meant.

use kimberlite_row::SqlError;

use crate::rows::Database;

fn refusal(sql: &str) -> SqlError {
    let mut database = Database::new(false);
    database
        .run(
            "CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL, age int CHECK (age > 0));
             CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES people, name text UNIQUE);
             CREATE VIEW adults AS SELECT * FROM people WHERE age > 17;
             CREATE SEQUENCE numbers;",
        )
        .expect("a schema");
    match database.run(sql) {
        Err(error) => error,
        Ok(answer) => panic!("{sql} is answered: {answer:?}"),
    }
}

/// A refusal with this SQLSTATE, at the place marked by `^` below the text (or nowhere), with a word in its hint.
#[track_caller]
fn refused(sql: &str, state: &str, at: Option<&str>, hint: &str) {
    let error = refusal(sql);
    let parts = error.parts();
    assert_eq!(error.state().code(), state, "{sql}: {}", parts.message);
    let expected =
        at.map(|word| u32::try_from(sql.find(word).expect("a word of the text")).expect("short") + 1);
    assert_eq!(parts.position, expected, "{sql}: {}", parts.message);
    match &parts.hint {
        Some(given) => assert!(!hint.is_empty() && given.contains(hint), "{sql}: hint {given}"),
        None => assert!(hint.is_empty(), "{sql}: no hint"),
    }
}

#[test]
fn unknown_names_are_refused_where_they_stand() {
    refused("SELECT nmae FROM people", "42703", Some("nmae"), "name");
    refused("SELECT people.nmae FROM people", "42703", Some("people.nmae"), "name");
    refused("SELECT zzzzzzzz FROM people", "42703", Some("zzzzzzzz"), "");
    refused("SELECT * FROM poeple", "42P01", Some("poeple"), "people");
    refused("SELECT * FROM nothing_like_it", "42P01", Some("nothing_like_it"), "");
    refused("SELECT pets.name FROM people", "42P01", Some("pets.name"), "");
    refused("SELECT lenght('a')", "42883", None, "length");
    refused("SELECT id FROM people, pets", "42702", Some("id"), "");
    refused("INSERT INTO people (nmae) VALUES ('a')", "42703", None, "name");
    refused("UPDATE people SET aeg = 1", "42703", None, "age");
    refused("DROP TABLE peple", "42P01", None, "people");
}

#[test]
fn schemas_are_public_or_made() {
    for sql in [
        "SELECT count(*) FROM public.people",
        "SELECT count(*) FROM kimberlite.public.people",
        "INSERT INTO public.people VALUES (1, 'a', 1)",
        "CREATE TABLE public.t (id int REFERENCES public.people)",
        "CREATE SCHEMA IF NOT EXISTS public",
        "DROP SCHEMA IF EXISTS other",
        "SET search_path TO \"$user\", public",
        "ALTER VIEW adults RENAME TO old",
        "DROP VIEW public.adults",
    ] {
        let mut database = Database::new(false);
        let schema =
            "CREATE TABLE people (id int PRIMARY KEY, name text, age int); CREATE VIEW adults AS SELECT 1";
        database.run(schema).expect("a schema");
        database.run(sql).expect(sql);
    }
    refused("SELECT * FROM other.people", "42P01", Some("people"), "public");
    refused("INSERT INTO other.people VALUES (1)", "42P01", None, "public");
    refused("COPY other.people TO STDOUT", "42P01", None, "public");
    refused("CREATE TABLE other.t (id int)", "3F000", None, "public");
    refused("DROP TABLE other.people", "3F000", None, "public");
    refused("ALTER TABLE other.people ADD x int", "3F000", None, "public");
    refused("TRUNCATE other.people", "3F000", None, "public");
    refused("CREATE INDEX ON other.people (age)", "3F000", None, "public");
    refused("CREATE SCHEMA public", "42P06", None, "");
    refused("DROP SCHEMA other", "3F000", None, "public");
    refused("CREATE SCHEMA o; CREATE TABLE o.t (a int); DROP SCHEMA o", "2BP01", None, "CASCADE");
    refused("CREATE SCHEMA o; CREATE SCHEMA o", "42P06", None, "");
    refused("DROP SCHEMA public CASCADE", "0A000", None, "one by one");
    refused("SET search_path TO other", "0A000", None, "");
    refused("GRANT SELECT ON people TO someone", "0A000", None, "no roles");
    refused("REVOKE ALL ON people FROM someone", "0A000", None, "no roles");
    refused("COMMENT ON TABLE poeple IS 'x'", "42P01", None, "people");
    refused("COMMENT ON COLUMN people.nmae IS 'x'", "42703", None, "");
}

#[test]
fn syntax_is_refused_where_it_breaks() {
    refused("SELECT FROM WHERE", "42601", Some("WHERE"), "");
    refused("SELEC 1", "42601", Some("SELEC"), "");
    refused("SELECT 'abc", "42601", Some("'abc"), "");
}

#[test]
fn types_that_do_not_fit_are_refused() {
    for (sql, state) in [
        ("SELECT name + 1 FROM people", "42883"),
        ("SELECT * FROM people WHERE name", "42804"),
        ("SELECT * FROM people WHERE age", "42804"),
        ("SELECT CASE WHEN true THEN 1 ELSE 'a' END", "22P02"),
        ("SELECT 1 UNION SELECT true", "42804"),
        ("SELECT 1, 2 UNION SELECT 1", "42601"),
        ("SELECT sum(name) FROM people", "42883"),
        ("INSERT INTO people VALUES (true, 'a', 1)", "42804"),
        ("SELECT ARRAY[1, true]", "42804"),
    ] {
        assert_eq!(refusal(sql).state().code(), state, "{sql}");
    }
}

#[test]
fn aggregates_and_windows_stand_where_they_may() {
    for (sql, state) in [
        ("SELECT name, count(*) FROM people", "42803"),
        ("SELECT * FROM people WHERE count(*) > 1", "42803"),
        ("SELECT sum(count(*)) FROM people", "42803"),
        ("SELECT name FROM people GROUP BY count(*)", "42803"),
        ("SELECT * FROM people WHERE row_number() OVER () = 1", "42P20"),
        ("SELECT name FROM people GROUP BY name ORDER BY age", "42803"),
        ("SELECT DISTINCT name FROM people ORDER BY age", "42P10"),
        ("SELECT name FROM people ORDER BY 2", "42P10"),
        ("SELECT name FROM people LIMIT -1", "2201W"),
        ("SELECT name FROM people LIMIT age", "42703"),
        ("SELECT (SELECT 1, 2)", "42601"),
        ("SELECT (SELECT g FROM generate_series(1, 2) g)", "21000"),
    ] {
        assert_eq!(refusal(sql).state().code(), state, "{sql}");
    }
}

#[test]
fn constraints_are_refused_by_their_sqlstate() {
    for (sql, state) in [
        ("INSERT INTO people VALUES (1, NULL, 1)", "23502"),
        ("INSERT INTO people VALUES (1, 'a', 0)", "23514"),
        ("INSERT INTO people VALUES (1, 'a', 1), (1, 'b', 1)", "23505"),
        ("INSERT INTO pets VALUES (1, 99, 'x')", "23503"),
        ("INSERT INTO pets VALUES (1, NULL, 'x'), (2, NULL, 'x')", "23505"),
        ("INSERT INTO people VALUES (1)", "23502"),
        ("INSERT INTO people VALUES (1, 'a', 1, 2)", "42601"),
        ("INSERT INTO people (id, id) VALUES (1, 2)", "42701"),
        ("UPDATE people SET age = 1, age = 2", "42601"),
        ("INSERT INTO adults VALUES (1, 'a', 1)", "0A000"),
        ("UPDATE adults SET age = 1", "0A000"),
        ("DELETE FROM adults", "0A000"),
        ("DELETE FROM numbers", "42809"),
        ("INSERT INTO people VALUES (99999999999, 'a', 1)", "22003"),
        ("CREATE TABLE people (id int)", "42P07"),
        ("CREATE TABLE x (a int, a int)", "42701"),
        ("CREATE TABLE x (a nosuch)", "42704"),
        ("CREATE TABLE x (a int REFERENCES people (age))", "42830"),
        ("DROP TABLE people", "2BP01"),
        ("ALTER TABLE people DROP COLUMN nosuch", "42703"),
        ("DROP VIEW people", "42809"),
        ("CREATE TABLE x (a int CHECK (a > (SELECT 1)))", "0A000"),
        ("CREATE TABLE x (a int CHECK (a > sum(a)))", "42803"),
        ("CREATE TABLE x (a int CHECK (y.a > 1))", "42P01"),
        ("ALTER TABLE people ADD CHECK (nosuch > 1)", "42703"),
        ("ALTER TABLE people DROP CONSTRAINT people_pkey", "2BP01"),
        ("ALTER SEQUENCE people RESTART", "42809"),
        ("CREATE TABLE x () INHERITS (people)", "0A000"),
        ("CREATE TEMP TABLE x (a int) ON COMMIT DROP", "0A000"),
        ("CREATE MATERIALIZED VIEW x AS SELECT 1", "0A000"),
        ("CREATE UNIQUE INDEX ON people (lower(name))", "0A000"),
        ("CREATE UNIQUE INDEX ON people (name) WHERE age > 3", "0A000"),
        ("CREATE INDEX ON people (lower(nosuch))", "42703"),
        ("CREATE INDEX ON people (name) WHERE nosuch", "42703"),
        ("CREATE INDEX ON people (name) WHERE age", "42804"),
        ("CREATE INDEX ON people (count(name))", "42803"),
        ("CREATE INDEX ON people ((age + random()))", "42P17"),
        ("CREATE OR REPLACE VIEW adults AS SELECT id FROM people", "42P16"),
        ("CREATE OR REPLACE VIEW adults AS SELECT id, name, age::text FROM people", "42P16"),
        ("CREATE OR REPLACE VIEW adults AS SELECT id, name, age AS years FROM people", "42P16"),
        ("SELECT timestamp '2020-01-01' AT TIME ZONE 'America/New_York'", "0A000"),
        ("ALTER SEQUENCE nosuch RESTART", "42P01"),
        ("ALTER SEQUENCE numbers MAXVALUE 5 RESTART 9", "22023"),
        ("SELECT * FROM people p JOIN people q USING (id) NATURAL JOIN people r", "42702"),
    ] {
        assert_eq!(refusal(sql).state().code(), state, "{sql}");
    }
}

#[test]
fn transactions_are_refused_by_their_sqlstate() {
    for (sql, state) in [
        ("SAVEPOINT s", "25P01"),
        ("BEGIN; ROLLBACK TO nosuch", "3B001"),
        ("BEGIN READ ONLY; DELETE FROM people", "25006"),
        ("BEGIN READ ONLY; CREATE TABLE x (a int)", "25006"),
        ("EXECUTE nosuch", "26000"),
        ("PREPARE p AS SELECT 1; PREPARE p AS SELECT 1", "42P05"),
        ("SHOW nosuch", "42704"),
    ] {
        assert_eq!(refusal(sql).state().code(), state, "{sql}");
    }
    let mut database = Database::new(false);
    assert_eq!(database.outcome("BEGIN; SELECT 1 / 0"), Err("22012"));
    assert_eq!(database.outcome("SELECT 1"), Err("25P02"));
    assert_eq!(database.outcome("COMMIT"), Ok(("ROLLBACK".into(), Vec::new())));
}
