//! Planning joins of 64 tables, as SQLite's select5.test asks for them.

use std::fmt::Write as _;
use std::time::Instant;

use kmb::Failure;
use rusqlite::Connection;

use super::engine::Engine;
use super::failed;
use crate::figures::{Aim, Report, Series};
use crate::setting::Setting;

/// Tables, and joined in one query.
const TABLES: usize = 64;
/// Rows of each.
const ROWS: usize = 10;

/// A number below `count`, from a counter.
fn drawn(state: &mut u64, count: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap_or(0) % count
}

fn shuffled(state: &mut u64) -> Vec<usize> {
    let mut all: Vec<usize> = (1..=TABLES).collect();
    for at in (1..all.len()).rev() {
        all.swap(at, drawn(state, at + 1));
    }
    all
}

/// A chain of equalities through all tables, each table and each condition in an order of its own.
fn query(state: &mut u64) -> String {
    let chain = shuffled(state);
    let mut conditions: Vec<String> =
        chain.windows(2).map(|pair| format!("a{} = b{}", pair[0], pair[1])).collect();
    conditions.push(format!("a{} = {}", chain[TABLES - 1], 1 + drawn(state, ROWS)));
    for at in (1..conditions.len()).rev() {
        conditions.swap(at, drawn(state, at + 1));
    }
    let shown: Vec<String> = shuffled(state).iter().map(|n| format!("x{n}")).collect();
    let from: Vec<String> = shuffled(state).iter().map(|n| format!("t{n}")).collect();
    format!("SELECT {} FROM {} WHERE {}", shown.join(", "), from.join(", "), conditions.join(" AND "))
}

fn tables() -> Vec<String> {
    let mut state = 7;
    let mut texts = Vec::new();
    for n in 1..=TABLES {
        texts.push(format!("CREATE TABLE t{n} (a{n} INTEGER PRIMARY KEY, b{n} INTEGER, x{n} VARCHAR(40))"));
        let mut order: Vec<usize> = (1..=ROWS).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, drawn(&mut state, at + 1));
        }
        let mut insert = format!("INSERT INTO t{n} VALUES ");
        for (at, b) in order.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(insert, "{comma}({}, {b}, 'table t{n} row {}')", at + 1, at + 1).expect("into memory");
        }
        texts.push(insert);
    }
    texts
}

pub(super) fn measure(setting: &Setting) -> Result<Report, Failure> {
    setting.step("sql: joins of 64 tables")?;
    let mut ours = Engine::new(None)?;
    let theirs = Connection::open_in_memory().map_err(|error| failed(&error))?;
    for text in tables() {
        ours.run(&text)?;
        theirs.execute_batch(&text).map_err(|error| failed(&error))?;
    }
    let (mut plans, mut runs, mut peer_plans, mut peer_runs) =
        (Series::default(), Series::default(), Series::default(), Series::default());
    let mut state = 1;
    for _ in 0..setting.repetitions.max(5) {
        let text = query(&mut state);
        let millis = |begun: Instant| begun.elapsed().as_secs_f64() * 1000.0;
        let begun = Instant::now();
        ours.run(&format!("EXPLAIN {text}"))?;
        plans.push(millis(begun));
        let begun = Instant::now();
        let rows = ours.run(&text)?.rows.len();
        runs.push(millis(begun));
        let begun = Instant::now();
        let mut prepared = theirs.prepare(&text).map_err(|error| failed(&error))?;
        peer_plans.push(millis(begun));
        let begun = Instant::now();
        let found = prepared.query_map([], |_| Ok(())).map_err(|error| failed(&error))?.count();
        peer_runs.push(millis(begun));
        if rows != found {
            return Err(Failure::failed(format!("we find {rows} rows, SQLite finds {found}: {text}")));
        }
    }
    let mut report = Report::new("sql: joins of 64 tables of 10 rows, chains of equalities");
    let slowest = plans.max();
    report.row("planning, with parsing", "ms", plans);
    report.aimed("planning, the slowest", "ms", slowest.into(), Aim::AtMost(100.0));
    report.row("planning and running", "ms", runs);
    report.row("SQLite: preparing", "ms", peer_plans);
    report.row("SQLite: running", "ms", peer_runs);
    Ok(report)
}
