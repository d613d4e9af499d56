//! SQL, through the query layer over a kernel's tables, against SQLite in the same process.
//!
//! Both sides run prepared statements. What is durable is durable on both: SQLite writes ahead (`journal_mode = WAL`,
//! `synchronous = FULL`) with a sync for each commit; ours writes each prepare of the hash-chained log and then its header,
//! with a sync for each, as a node does.

mod engine;
mod hot;
mod joins;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use kimberlite_row::Value;
use kmb::{Failure, Temporary};
use rusqlite::{Connection, params};

use crate::arguments::{Sql as Asked, SqlPart};
use crate::figures::{Aim, Report, Series};
use crate::setting::Setting;
use engine::Engine;

/// Rows of one transaction.
const BATCH: i64 = 1_000;
/// Rows that are read by key in one measurement.
const GETS: i64 = 50_000;
/// Rows that are inserted in one measurement.
const INSERTS: i64 = 20_000;
/// Rows of the table whose rows are updated again and again.
const UPDATED: i64 = 10_000;
/// Scans of that table in one measurement.
const SCANS: u32 = 20;
/// How many commits a recent position lies in the past.
const RECENT: u64 = 10;

const NOTE: &str = "a note of eighty bytes, as long as an address or a short comment would often be.";
const TABLE: &str =
    "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT NOT NULL, score INTEGER NOT NULL, note TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO t VALUES ($1, $2, $3, $4)";
const POINT: &str = "SELECT id, name, score, note FROM t WHERE id = $1";
const SUM: &str = "SELECT sum(score) FROM t WHERE score < 500";
const GROUPS: &str = "SELECT score % 10, count(*), sum(id) FROM t GROUP BY score % 10 ORDER BY 1";
const RANGE: &str = "UPDATE t SET score = score + 1 WHERE id >= $1 AND id < $2";

/// Runs the command.
pub(crate) fn measure(setting: &Setting, asked: &Asked) -> Result<Vec<Report>, Failure> {
    let mut reports = Vec::new();
    let wanted = |part| asked.parts.is_empty() || asked.parts.contains(&part);
    if wanted(SqlPart::Point) || wanted(SqlPart::Scan) {
        reports.push(reads(setting, asked, &wanted)?);
    }
    if wanted(SqlPart::Insert) {
        reports.push(inserts(setting)?);
    }
    if wanted(SqlPart::Update) {
        reports.push(updates(setting, asked.versions)?);
    }
    if wanted(SqlPart::Join) {
        reports.push(joins::measure(setting)?);
    }
    if wanted(SqlPart::Hot) {
        reports.push(hot::measure(setting, asked.clients)?);
    }
    Ok(reports)
}

fn failed(error: &rusqlite::Error) -> Failure {
    Failure::failed(format!("SQLite: {error}"))
}

/// The same on both sides, in turn.
#[derive(Default)]
struct Pair {
    ours: Series,
    theirs: Series,
    ratio: Series,
}

/// What is measured per second.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn rate(count: i64, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

impl Pair {
    fn add(
        &mut self,
        count: i64,
        ours: impl FnOnce() -> Result<i64, Failure>,
        theirs: impl FnOnce() -> Result<i64, Failure>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let said = ours()?;
        let ours = rate(count, begun);
        let begun = Instant::now();
        let other = theirs()?;
        let theirs = rate(count, begun);
        if said != other {
            return Err(Failure::failed(format!("one side says {said}, the other {other}")));
        }
        self.ours.push(ours);
        self.theirs.push(theirs);
        self.ratio.push(ours / theirs);
        Ok(())
    }

    fn tell(self, report: &mut Report, name: &str, (ours, theirs): (&str, &str), aim: Option<Aim>) {
        report.row(format!("{name}: {ours}"), "/s", self.ours);
        report.row(format!("{name}: {theirs}"), "/s", self.theirs);
        let ratio = format!("{name}: ratio");
        match aim {
            Some(aim) => report.aimed(ratio, "", self.ratio, aim),
            None => report.row(ratio, "", self.ratio),
        }
    }
}

/// A key that looks like luck.
fn scattered(n: i64) -> i64 {
    (n.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1).cast_signed()
}

fn values(n: i64) -> Vec<Value> {
    vec![Value::Int(n), Value::from(format!("name {n}")), Value::Int(n % 1_000), Value::text(NOTE)]
}

/// Puts rows in, a block of [`BATCH`] prepared statements at a time.
fn fill(engine: &mut Engine, rows: std::ops::Range<i64>) -> Result<i64, Failure> {
    let (insert, begin, commit) =
        (Engine::prepare(INSERT)?, Engine::prepare("BEGIN")?, Engine::prepare("COMMIT")?);
    let mut from = rows.start;
    while from < rows.end {
        let to = (from + BATCH).min(rows.end);
        engine.execute(&begin, Vec::new())?;
        for n in from..to {
            engine.execute(&insert, values(n))?;
        }
        engine.execute(&commit, Vec::new())?;
        from = to;
    }
    Ok(rows.end - rows.start)
}

/// SQLite with the same table.
struct Lite(Connection);

impl Lite {
    /// In memory, or in a file that is durable at each commit.
    fn new(dir: Option<&Path>) -> Result<Self, Failure> {
        let made = || {
            let connection = match dir {
                None => Connection::open_in_memory()?,
                Some(dir) => Connection::open(dir.join("sqlite"))?,
            };
            let mode = if dir.is_some() { "WAL" } else { "OFF" };
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = {mode}; PRAGMA synchronous = FULL; PRAGMA cache_size = -4000000;
                 CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL, score INTEGER NOT NULL, note TEXT NOT NULL)",
            ))?;
            Ok(Self(connection))
        };
        made().map_err(|error| failed(&error))
    }

    fn fill(&mut self, rows: std::ops::Range<i64>) -> Result<i64, Failure> {
        let mut filled = || {
            let mut from = rows.start;
            while from < rows.end {
                let to = (from + BATCH).min(rows.end);
                let transaction = self.0.transaction()?;
                {
                    let mut insert = transaction.prepare_cached(INSERT)?;
                    for n in from..to {
                        insert.execute(params![n, format!("name {n}"), n % 1_000, NOTE])?;
                    }
                }
                transaction.commit()?;
                from = to;
            }
            Ok(rows.end - rows.start)
        };
        filled().map_err(|error| failed(&error))
    }

    fn points(&self, keys: impl Iterator<Item = i64>) -> Result<i64, Failure> {
        let read = || {
            let mut select = self.0.prepare_cached(POINT)?;
            let mut sum = 0;
            for key in keys {
                sum += select.query_row([key], |row| {
                    black_box((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(3)?));
                    row.get::<_, i64>(2)
                })?;
            }
            Ok(sum)
        };
        read().map_err(|error| failed(&error))
    }

    /// The sum of all integers of an answer.
    fn total(&self, text: &str) -> Result<i64, Failure> {
        let read = || {
            let mut select = self.0.prepare_cached(text)?;
            let width = select.column_count();
            let mut rows = select.query([])?;
            let mut sum = 0;
            while let Some(row) = rows.next()? {
                for at in 0..width {
                    sum += row.get::<_, i64>(at)?;
                }
            }
            Ok(sum)
        };
        read().map_err(|error| failed(&error))
    }

    fn update(&mut self, rows: std::ops::Range<i64>) -> Result<i64, Failure> {
        let updated = || {
            let mut count = 0;
            for from in rows.step_by(BATCH as usize) {
                count += self.0.prepare_cached(RANGE)?.execute([from, from + BATCH])?;
            }
            Ok(count as i64)
        };
        updated().map_err(|error| failed(&error))
    }
}

/// The sum of all integers of an answer.
fn total(engine: &mut Engine, prepared: &engine::Prepared) -> Result<i64, Failure> {
    let answer = engine.execute(prepared, Vec::new())?;
    Ok(answer.rows.iter().flatten().map(whole).sum())
}

fn whole(value: &Value) -> i64 {
    match value {
        Value::Int(n) => *n,
        Value::Decimal(n) => n.to_string().parse().unwrap_or_default(),
        _ => 0,
    }
}

fn points(engine: &mut Engine, keys: impl Iterator<Item = i64>) -> Result<i64, Failure> {
    let select = Engine::prepare(POINT)?;
    let mut sum = 0;
    for key in keys {
        let answer = engine.execute(&select, vec![Value::Int(key)])?;
        sum += whole(&answer.rows[0][2]);
        black_box(&answer);
    }
    Ok(sum)
}

fn reads(setting: &Setting, asked: &Asked, wanted: &dyn Fn(SqlPart) -> bool) -> Result<Report, Failure> {
    setting.step("sql: filling both")?;
    let mut ours = Engine::new(None)?;
    ours.run(TABLE)?;
    fill(&mut ours, 0..asked.rows)?;
    let mut theirs = Lite::new(None)?;
    theirs.fill(0..asked.rows)?;
    let (mut point, mut sum, mut groups) = (Pair::default(), Pair::default(), Pair::default());
    for round in 1..=setting.repetitions {
        setting.step(&format!("sql: reads, {round} of {}", setting.repetitions))?;
        if wanted(SqlPart::Point) {
            let keys = || (0..GETS).map(|n| scattered(n + i64::from(round) * GETS) % asked.rows);
            point.add(GETS, || points(&mut ours, keys()), || theirs.points(keys()))?;
        }
        if wanted(SqlPart::Scan) {
            let select = Engine::prepare(SUM)?;
            sum.add(asked.rows, || total(&mut ours, &select), || theirs.total(SUM))?;
            let select = Engine::prepare(GROUPS)?;
            groups.add(asked.rows, || total(&mut ours, &select), || theirs.total(GROUPS))?;
        }
    }
    let mut report = Report::new(format!("sql: {} rows of about 110 bytes, in memory", asked.rows));
    let sides = ("ours", "SQLite");
    if wanted(SqlPart::Point) {
        point.tell(&mut report, "prepared point SELECT", sides, Some(Aim::AtLeast(1.0)));
    }
    if wanted(SqlPart::Scan) {
        sum.tell(&mut report, "scan with a filter and a sum, rows", sides, Some(Aim::AtLeast(1.0)));
        groups.tell(&mut report, "scan into ten groups, rows", sides, None);
    }
    Ok(report)
}

/// A text that inserts many rows by one statement.
fn text_of(rows: std::ops::Range<i64>) -> String {
    let rows: Vec<String> = rows.map(|n| format!("({n}, 'name {n}', {}, '{NOTE}')", n % 1_000)).collect();
    format!("INSERT INTO t VALUES {}", rows.join(", "))
}

fn inserts(setting: &Setting) -> Result<Report, Failure> {
    let (mut blocks, mut texts) = (Pair::default(), Pair::default());
    for round in 1..=setting.repetitions {
        setting.step(&format!("sql: inserts, {round} of {}", setting.repetitions))?;
        let dir = Temporary::below(setting.dir(), "sql")?;
        std::fs::create_dir_all(dir.path()).map_err(|error| Failure::on(dir.path(), &error))?;
        let mut ours = Engine::new(Some(dir.path()))?;
        ours.run(TABLE)?;
        let mut theirs = Lite::new(Some(dir.path()))?;
        blocks.add(INSERTS, || fill(&mut ours, 0..INSERTS), || theirs.fill(0..INSERTS))?;
        let all: Vec<String> =
            (INSERTS..INSERTS * 2).step_by(BATCH as usize).map(|from| text_of(from..from + BATCH)).collect();
        texts.add(
            INSERTS,
            || {
                all.iter().try_for_each(|text| ours.run(text).map(drop))?;
                Ok(0)
            },
            || {
                let run = || all.iter().try_for_each(|text| theirs.0.execute_batch(text));
                run().map_err(|error| failed(&error))?;
                Ok(0)
            },
        )?;
    }
    let mut report = Report::new(
        "sql: inserts of 1,000 rows a commit, durable; ours hash-chained, SQLite with WAL and synchronous = FULL",
    );
    let sides = ("ours", "SQLite");
    blocks.tell(&mut report, "blocks of prepared statements, rows", sides, Some(Aim::AtLeast(0.5)));
    texts.tell(&mut report, "statements of 1,000 rows, rows", sides, None);
    Ok(report)
}

/// Updates all rows, by ranges.
fn update(engine: &mut Engine, table: &str, count: i64) -> Result<i64, Failure> {
    let update = Engine::prepare(&RANGE.replace("UPDATE t", &format!("UPDATE {table}")))?;
    for from in (0..count).step_by(BATCH as usize) {
        engine.execute(&update, vec![Value::Int(from), Value::Int(from + BATCH)])?;
    }
    Ok(count)
}

fn updates(setting: &Setting, versions: u32) -> Result<Report, Failure> {
    let mut ours = Engine::new(None)?;
    let mut theirs = Lite::new(None)?;
    theirs.fill(0..UPDATED)?;
    let copy = |engine: &mut Engine, table: &str| -> Result<(), Failure> {
        engine.run(&TABLE.replace("TABLE t", &format!("TABLE {table}")))?;
        for from in (0..UPDATED).step_by(BATCH as usize) {
            engine.run(&text_of(from..from + BATCH).replace("INTO t", &format!("INTO {table}")))?;
        }
        Ok(())
    };
    copy(&mut ours, "t")?;
    let mut peers = Pair::default();
    for round in 1..=versions {
        if round % 10 == 1 {
            setting.step(&format!("sql: update {round} of {versions}"))?;
        }
        peers.add(UPDATED, || update(&mut ours, "t", UPDATED), || theirs.update(0..UPDATED))?;
    }
    let (mut scans, mut past, mut rates) = (Pair::default(), Pair::default(), Pair::default());
    for round in 1..=setting.repetitions {
        setting.step(&format!("sql: updated rows, {round} of {}", setting.repetitions))?;
        let fresh = format!("fresh{round}");
        copy(&mut ours, &fresh)?;
        // One update and a few commits before the scans, so that a recent position differs from the present.
        let before = ours.last_op();
        update(&mut ours, "t", UPDATED)?;
        let recent = before + u64::try_from(UPDATED / BATCH).unwrap_or(0) - RECENT.min(5);
        let present = Engine::prepare("SELECT sum(length(name)), sum(id) FROM t")?;
        let fresh_scan = Engine::prepare(&format!("SELECT sum(length(name)), sum(id) FROM {fresh}"))?;
        let past_scan =
            Engine::prepare(&format!("SELECT sum(length(name)), sum(id) FROM t AT POSITION {recent}"))?;
        let mut often = |prepared: &engine::Prepared| -> Result<i64, Failure> {
            let mut sum = 0;
            for _ in 0..SCANS {
                sum = total(&mut ours, prepared)?;
            }
            Ok(sum)
        };
        let count = UPDATED * i64::from(SCANS);
        let engine = std::cell::RefCell::new(&mut often);
        scans.add(count, || (engine.borrow_mut())(&present), || (engine.borrow_mut())(&fresh_scan))?;
        past.add(count, || (engine.borrow_mut())(&past_scan), || (engine.borrow_mut())(&present))?;
        let engine = std::cell::RefCell::new(&mut ours);
        rates.add(
            UPDATED,
            || update(*engine.borrow_mut(), "t", UPDATED),
            || update(*engine.borrow_mut(), &fresh, UPDATED),
        )?;
    }
    let mut report = Report::new(format!("sql: {UPDATED} rows, each updated {versions} times, in memory"));
    scans.tell(&mut report, "scan, rows", ("updated", "fresh"), Some(Aim::AtLeast(1.0 / 1.2)));
    past.tell(&mut report, "scan of a recent past, rows", ("past", "present"), Some(Aim::AtLeast(0.5)));
    rates.tell(
        &mut report,
        "updates of 1,000 rows a commit, rows",
        ("updated", "fresh"),
        Some(Aim::AtLeast(0.5)),
    );
    peers.tell(&mut report, "the same beside SQLite, rows", ("ours", "SQLite"), None);
    Ok(report)
}
