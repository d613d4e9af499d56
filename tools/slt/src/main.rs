//! Runs sqllogictest files: `slt [--miss-every-page] PATH…`.
//!
//! Each file gets a database of its own. Exit codes: 0 every record passed, 1 some failed, 2 wrong usage.

mod exceptions;
mod node;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use kimberlite_query::parse::statements;
use kimberlite_query::session::{Answer, Running, Session, Step, reindex_target};
use kimberlite_row::check::Stop;
use kimberlite_row::{SqlError, Value, text};
use node::Node;
use sqllogictest::{
    DBOutput, DefaultColumnType, Normalizer, QueryExpect, Record, RecordOutput, Runner, default_validator,
};

/// Runs sqllogictest files against the query layer over the tables of a kernel, each commit through its log.
#[allow(clippy::struct_excessive_bools, reason = "options of a command line")]
#[derive(Parser)]
#[command(name = "cargo xtask slt")]
struct Arguments {
    /// Files, and folders of files that end in .slt or .test.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Write all pages at each commit, and make their first touch in each statement miss: the answers must be the same.
    #[arg(long)]
    miss_every_page: bool,
    /// Print every record that failed, with its reason.
    #[arg(long, short)]
    verbose: bool,
    /// Print the reasons, with how often each was met.
    #[arg(long)]
    reasons: bool,
    /// Print the slowest records of each file.
    #[arg(long)]
    slowest: bool,
}

struct Database {
    session: Session,
    node: Node,
    time: i64,
    slowest: std::sync::Arc<std::sync::Mutex<(Duration, String)>>,
    /// The column types the next record expects: a truth value in a column of integers is 1 or 0.
    expected: std::sync::Arc<std::sync::Mutex<Vec<DefaultColumnType>>>,
}

impl Database {
    fn one(&mut self, sql: &str) -> Result<Option<Answer>, SqlError> {
        if let Some(name) = reindex_target(sql) {
            loop {
                match self.session.reindex(&name, &self.node.rows()) {
                    Ok(()) => return Ok(None),
                    Err(Stop::Miss(_)) => self.node.fetch(),
                    Err(Stop::Refused(error)) => return Err(error),
                }
            }
        }
        let mut last = None;
        for statement in statements(sql)? {
            self.time += 1000;
            self.node.forget_pages();
            let mut running = Running::new(statement, sql, Vec::new(), self.time, self.time.cast_unsigned());
            last = Some(loop {
                match self.session.step(&mut running, &self.node.rows()) {
                    Ok(Step::More) => {}
                    Err(Stop::Miss(_)) => self.node.fetch(),
                    Ok(Step::Done(answer)) => break answer,
                    Ok(Step::Commit(facts, answer)) => {
                        self.node.commit(&facts, self.time)?;
                        break answer;
                    }
                    Err(Stop::Refused(error)) => return Err(error),
                }
            });
        }
        Ok(last)
    }
}

impl sqllogictest::DB for Database {
    type Error = SqlError;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, SqlError> {
        let start = Instant::now();
        let answer = self.one(sql);
        let took = start.elapsed();
        if let Ok(mut slowest) = self.slowest.lock()
            && slowest.0 < took
        {
            *slowest = (took, sql.to_owned());
        }
        let Some(answer) = answer? else { return Ok(DBOutput::StatementComplete(0)) };
        if answer.columns.is_empty() {
            let count = answer.tag.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            return Ok(DBOutput::StatementComplete(count));
        }
        let expected = self.expected.lock().map(|types| types.clone()).unwrap_or_default();
        let rows = answer
            .rows
            .iter()
            .map(|row| {
                row.iter()
                    .zip(&*answer.columns)
                    .enumerate()
                    .map(|(at, (value, column))| match text::output(value, &column.kind) {
                        _ if expected.get(at) == Some(&DefaultColumnType::Integer)
                            && matches!(value, Value::Bool(_)) =>
                        {
                            if *value == Value::Bool(true) { "1" } else { "0" }.to_owned()
                        }
                        None => "NULL".to_owned(),
                        Some(text) if text.is_empty() => "(empty)".to_owned(),
                        Some(text) => text,
                    })
                    .collect()
            })
            .collect();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; answer.columns.len()], rows })
    }

    fn engine_name(&self) -> &'static str {
        "postgresql"
    }

    fn error_sql_state(error: &SqlError) -> Option<String> {
        Some(error.state().code().to_owned())
    }
}

/// Whether the query at hand asks for no order: its rows are compared without one if they do not stand as in the file.
static UNORDERED: AtomicBool = AtomicBool::new(false);
/// Queries that passed in another order than the file's.
static REORDERED: AtomicUsize = AtomicUsize::new(0);

/// Whether a query leaves the order of its rows open, as SQL has it where nothing says ORDER BY.
fn asks_for_no_order(sql: &str) -> bool {
    !sql.to_lowercase()
        .split_whitespace()
        .collect::<Vec<_>>()
        .windows(2)
        .any(|pair| pair[0].ends_with("order") && pair[1] == "by")
}

/// The crate's own comparison; rows in another order are right where the query asks for none, and counted.
fn valid(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    if default_validator(normalizer, actual, expected) {
        return true;
    }
    if !UNORDERED.load(Ordering::Relaxed) {
        return false;
    }
    let mut ours: Vec<String> =
        actual.iter().map(|row| row.iter().map(normalizer).collect::<Vec<_>>().join(" ")).collect();
    let mut theirs: Vec<String> = expected.iter().map(normalizer).collect();
    ours.sort();
    theirs.sort();
    let same = ours == theirs;
    REORDERED.fetch_add(usize::from(same), Ordering::Relaxed);
    same
}

#[derive(Default)]
struct Count {
    passed: usize,
    total: usize,
    /// Records that PostgreSQL refuses as well: in neither of the others.
    excepted: usize,
}

/// Conditions that end a file for other engines are taken out: the crate would end it for all.
fn script(path: &Path) -> std::io::Result<String> {
    let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
    let mut out = String::new();
    let mut pending: Option<String> = None;
    for line in text.lines() {
        let bare = line.split('#').next().unwrap_or("").trim();
        let condition = bare.starts_with("onlyif ") || bare.starts_with("skipif ");
        if let Some(condition) = pending.take() {
            if bare == "halt" {
                let only = condition.starts_with("onlyif") && condition.contains("postgresql");
                let skip = condition.starts_with("skipif") && !condition.contains("postgresql");
                if only || skip {
                    out.push_str("halt\n");
                }
                continue;
            }
            out.push_str(&condition);
            out.push('\n');
        }
        if condition {
            pending = Some(bare.to_owned());
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

fn run(path: &Path, arguments: &Arguments, reasons: &mut BTreeMap<String, usize>) -> Result<Count, String> {
    let text = script(path).map_err(|error| error.to_string())?;
    let records = sqllogictest::parse::<DefaultColumnType>(&text).map_err(|error| error.to_string())?;
    let slowest = std::sync::Arc::new(std::sync::Mutex::new((Duration::ZERO, String::new())));
    let kept = slowest.clone();
    let expected = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = expected.clone();
    let miss = arguments.miss_every_page;
    let mut runner = Runner::new(|| {
        let slowest = kept.clone();
        let expected = told.clone();
        async move {
            Ok(Database {
                session: Session::default(),
                node: Node::new(miss),
                time: 1_600_000_000_000_000,
                slowest,
                expected,
            })
        }
    });
    runner.with_validator(valid);
    let mut count = Count::default();
    for record in records {
        let (location, sql) = match &record {
            Record::Statement { loc, sql, .. } | Record::Query { loc, sql, .. } => {
                (Some(loc.line()), sql.clone())
            }
            Record::Halt { .. } => break,
            _ => (None, String::new()),
        };
        if let (Record::Query { expected: QueryExpect::Results { types, .. }, .. }, Ok(mut expected)) =
            (&record, expected.lock())
        {
            expected.clone_from(types);
        }
        UNORDERED.store(asks_for_no_order(&sql), Ordering::Relaxed);
        let counted = location.is_some();
        count.total += usize::from(counted);
        match runner.run(record) {
            // Left out for this engine: neither passed nor failed.
            Ok(RecordOutput::Nothing) => count.total -= usize::from(counted),
            Ok(_) => count.passed += usize::from(counted),
            Err(error) => {
                let shown = error.to_string();
                if let Some(exception) = exceptions::of(path, &sql, &shown) {
                    *reasons.entry(exception.shown()).or_default() += 1;
                    count.total -= usize::from(counted);
                    count.excepted += 1;
                    continue;
                }
                let first = shown.lines().next().unwrap_or("").chars().take(160).collect::<String>();
                let reason = shown
                    .lines()
                    .find_map(|line| {
                        line.split_once("sql state")
                            .or_else(|| line.split_once("failed: "))
                            .map(|(_, rest)| rest)
                    })
                    .unwrap_or(&first)
                    .chars()
                    .take(90)
                    .collect::<String>();
                *reasons.entry(reason).or_default() += 1;
                if arguments.verbose {
                    println!(
                        "{}:{}: {}\n  {}",
                        path.display(),
                        location.unwrap_or(0),
                        sql.chars().take(600).collect::<String>(),
                        shown.chars().take(600).collect::<String>()
                    );
                }
            }
        }
    }
    if arguments.slowest
        && let Ok(slowest) = slowest.lock()
    {
        println!("  slowest: {:?} {}", slowest.0, slowest.1.chars().take(100).collect::<String>());
    }
    Ok(count)
}

fn files(path: &Path, out: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in &entries {
            files(entry, out);
        }
    } else if path.extension().is_some_and(|e| e == "slt" || e == "test") {
        out.push(path.to_owned());
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut list = Vec::new();
    arguments.paths.iter().for_each(|path| files(path, &mut list));
    if list.is_empty() {
        eprintln!("slt: no files");
        return ExitCode::from(2);
    }
    let mut all = Count::default();
    let mut reasons = BTreeMap::new();
    for path in &list {
        let start = Instant::now();
        match run(path, &arguments, &mut reasons) {
            Ok(count) => {
                println!(
                    "{:>7}/{:<7} {:>7.2?} {}",
                    count.passed,
                    count.total,
                    start.elapsed(),
                    path.display()
                );
                all.passed += count.passed;
                all.total += count.total;
                all.excepted += count.excepted;
            }
            Err(error) => {
                println!("      0/1       {}: {error}", path.display());
                all.total += 1;
            }
        }
        let _gone = std::io::stdout().flush();
    }
    println!("{:>7}/{:<7} all", all.passed, all.total);
    let reordered = REORDERED.load(Ordering::Relaxed);
    if reordered > 0 {
        println!("{reordered:>7} of these in another order than the file's: the queries ask for none");
    }
    if all.excepted > 0 {
        println!("{:>7} excepted: PostgreSQL refuses them, too (--reasons says which)", all.excepted);
    }
    if arguments.reasons {
        let mut list: Vec<_> = reasons.into_iter().collect();
        list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        list.iter().take(40).for_each(|(reason, count)| println!("{count:>7} {reason}"));
    }
    ExitCode::from(u8::from(all.passed != all.total))
}
