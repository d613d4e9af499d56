//! Answers that must agree with each other, whatever the rows and the condition.

use proptest::prelude::*;

use crate::generate::{Choices, SCHEMA};
use crate::rows::Database;

fn filled(choices: &mut Choices<'_>) -> Database {
    let mut database = Database::new(false);
    database.run(SCHEMA).expect("a schema");
    for insert in choices.inserts() {
        database.run(&insert).expect("a row");
    }
    database
}

fn one(database: &mut Database, sql: &str) -> String {
    match database.rows(sql) {
        Ok(rows) => rows.join(";"),
        Err(error) => panic!("{sql}\n{error:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Ternary logic partitioning: a row passes a condition, or its negation, or neither is known (Rigger and Su, 2020).
    #[test]
    fn each_row_passes_one_of_three(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut choices = Choices::new(&bytes);
        let mut database = filled(&mut choices);
        let (from, columns) = choices.from();
        let p = choices.condition(3, columns);
        let mut count = |condition: &str| -> u64 {
            one(&mut database, &format!("SELECT count(*) FROM {from} {condition}")).parse().expect("a count")
        };
        let parts = count(&format!("WHERE {p}"))
            + count(&format!("WHERE NOT ({p})"))
            + count(&format!("WHERE ({p}) IS NULL"));
        prop_assert_eq!(parts, count(""), "{} / {}", from, p);
    }

    /// A condition that the planner may use to skip rows counts as many as one that it must compute for each (`NoREC`, Rigger
    /// and Su, 2020).
    #[test]
    fn a_filter_counts_what_a_projection_counts(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut choices = Choices::new(&bytes);
        let mut database = filled(&mut choices);
        let (from, columns) = choices.from();
        let p = choices.condition(3, columns);
        let filtered = one(&mut database, &format!("SELECT count(*) FROM {from} WHERE {p}"));
        let computed = one(
            &mut database,
            &format!("SELECT coalesce(sum(n), 0) FROM (SELECT CASE WHEN {p} THEN 1 ELSE 0 END AS n FROM {from}) AS q"),
        );
        prop_assert_eq!(filtered, computed, "{} / {}", from, p);
    }

    /// Whether pages are there or not, and whether the planner had a hand in it or not.
    #[test]
    fn misses_and_plans_change_no_answer(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        let mut all: Vec<Vec<Option<String>>> = Vec::new();
        for (miss, as_bound) in [(false, false), (true, false), (false, true)] {
            let mut choices = Choices::new(&bytes);
            let mut database = filled(&mut choices);
            database.memory.forget(miss);
            database.as_bound = as_bound;
            let mut answers = Vec::new();
            for _ in 0..4 {
                for sql in [choices.query(), choices.change()] {
                    let outcome = database.outcome(&sql);
                    // Some subqueries are run only where the planner has put them.
                    let unable = as_bound && outcome == Err("0A000");
                    answers.push(if unable { None } else { Some(format!("{sql}\n{outcome:?}")) });
                }
            }
            all.push(answers);
        }
        prop_assert_eq!(&all[0], &all[1], "a miss changes nothing");
        for (planned, bound) in all[0].iter().zip(&all[2]).filter(|(_, bound)| bound.is_some()) {
            prop_assert_eq!(planned, bound, "the planner changes nothing");
        }
    }
}
