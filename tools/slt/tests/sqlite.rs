//! The simulator's statements against SQLite: one client says them to a cluster in which nothing breaks, and the same
//! statements, in the same order, are run by SQLite. What both speak is the whole grammar but for looks at the past.

use kimberlite_sim::sql::{Deed, Theme, When};
use kimberlite_sim::{Checker, End, Luck, Observation, Outcome, RunConfig, Scenario, Violation, draw, run};
use kimberlite_types::Instant;
use kimberlite_wire::client::{SqlAnswer, SqlRows};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// Answers that this test compares at least.
const COMPARED_MIN: u64 = 1_500;

/// Does as the cluster is told, and compares what comes out.
struct Twin {
    sqlite: Connection,
    open: Option<Deed>,
    /// A connection was lost.
    over: bool,
    compared: u64,
}

impl Twin {
    fn rows(&self, text: &str) -> rusqlite::Result<Vec<Vec<Option<String>>>> {
        let mut statement = self.sqlite.prepare(text)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let cell = |at| {
                Ok(match row.get_ref(at)? {
                    ValueRef::Null => None,
                    ValueRef::Integer(number) => Some(number.to_string()),
                    ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                    other => panic!("neither a number nor a text: {other:?}"),
                })
            };
            found.push((0..columns).map(cell).collect::<rusqlite::Result<_>>()?);
        }
        Ok(found)
    }

    /// What differs, if anything does.
    fn compare(&mut self, deed: &Deed, answer: &SqlAnswer) -> Option<String> {
        let text = deed.text();
        let SqlRows { tag, rows, .. } = match &answer.result {
            Ok(rows) => rows,
            // A statement of a block that failed already; SQLite goes on in such a block, so it must not hear of it.
            Err(failure) if failure.code.as_str() == "25P02" => return None,
            Err(failure) => {
                let twin = self.sqlite.execute(&text, []);
                let same = failure.code.as_str() == "23505" && twin.is_err();
                return (!same).then(|| format!("{failure:?} and {twin:?} to \"{text}\""));
            }
        };
        match deed {
            Deed::Look(_, When::Position(_) | When::Time(_)) => return None,
            // The block had failed.
            Deed::Commit if tag == "ROLLBACK" => {
                self.sqlite.execute_batch("ROLLBACK").expect("a block is open");
                return None;
            }
            Deed::Look(..) | Deed::Read(_) | Deed::Add { returning: true, .. } => {
                let twin = self.rows(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                self.compared += 1;
                return (twin != *rows).then(|| format!("{rows:?} and {twin:?} to \"{text}\""));
            }
            _ => {}
        }
        let twin = self.sqlite.execute(&text, []).unwrap_or_else(|error| panic!("{text}: {error}"));
        let counts = matches!(
            deed,
            Deed::Append { .. }
                | Deed::Add { .. }
                | Deed::Insert { .. }
                | Deed::Update { .. }
                | Deed::Delete { .. }
        );
        self.compared += u64::from(counts);
        let count = tag.rsplit(' ').next().and_then(|count| count.parse().ok());
        (counts && count != Some(twin)).then(|| format!("{tag} and {twin} rows to \"{text}\""))
    }
}

impl Checker for Twin {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn rules(&self) -> &'static [&'static str] {
        &["SQLite says the same"]
    }

    fn observe(&mut self, _: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Stated { deed, .. } => self.open = Some((*deed).clone()),
            Observation::Ran { answer, .. } if !self.over => {
                let deed = self.open.take().expect("one statement is open");
                if let Some(seen) = self.compare(&deed, answer) {
                    let (checker, rule) = (self.name().to_owned(), self.rules()[0].to_owned());
                    return Err(Violation { checker, rule, seen, replica: None, op: None });
                }
            }
            // Turned away, and given up before it was sent; or nobody knows, and there is nothing to compare any more.
            Observation::Lost { sent, .. } => {
                self.open = None;
                self.over |= *sent;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

fn twin(_: &RunConfig) -> Vec<Box<dyn Checker>> {
    let sqlite = Connection::open_in_memory().expect("memory is there");
    vec![Box::new(Twin { sqlite, open: None, over: false, compared: 0 })]
}

#[test]
fn sqlite_says_the_same_to_all_that_both_speak() {
    let (mut clauses, mut compared) = (std::collections::BTreeSet::new(), 0);
    for seed in 0..12 {
        let mut config = draw(Scenario::Calm, seed);
        config.sql = draw(Scenario::Sql, seed).sql;
        config.work.requests = 0;
        let sql = config.sql.as_mut().expect("clients speak SQL");
        (sql.clients, sql.tenants, sql.statements) = (1, 1, 300);
        (sql.savepoint_ppm, sql.block_max, sql.large_ppm) = (200_000, 6, 0);
        sql.think = std::time::Duration::from_millis(2);
        // It has no past, and no function that gives numbers.
        let both = |theme: &Theme| !matches!(theme, Theme::Travel | Theme::Bulk);
        sql.themes = Theme::ALL.into_iter().filter(both).map(|theme| (theme, 2)).collect();
        sql.themes.extend([(Theme::Queries, 6), (Theme::Changes, 6)]);
        let (report, _) = run(&config, seed, Luck::Free, twin);
        assert_eq!(report.outcome, Outcome::Passed, "seed {seed}");
        compared += report.compared[0].1;
        clauses.extend(report.grammar.iter().map(|(clause, _)| clause));
    }
    assert!(compared > COMPARED_MIN, "{compared}");
    for wanted in Scenario::Sql.contract().clauses.iter().filter(|clause| !clause.contains("AT POSITION")) {
        assert!(clauses.contains(*wanted) || *wanted == "AS OF TIMESTAMP", "{wanted} was never said");
    }
}
