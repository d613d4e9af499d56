//! Reports, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use kimberlite_sim::sql::Theme;
use kimberlite_sim::{Outcome, Report, RunConfig};
use serde_json::{Map, Value, json};

/// One word for how a run ended.
pub(crate) const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Excused(_) => "excused",
        Outcome::Failed(_) => "failed",
    }
}

/// A run as one JSON object.
pub(crate) fn json_of(
    scenario: &str,
    seed: u64,
    config: &RunConfig,
    report: &Report,
    seconds: f64,
    bundle: Option<&str>,
) -> Value {
    let counts = |pairs: &[(&str, u64)]| -> Value {
        Value::Object(
            pairs.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect::<Map<_, _>>(),
        )
    };
    let (failure, excuse) = match &report.outcome {
        Outcome::Passed => (Value::Null, Value::Null),
        Outcome::Excused(why) => (Value::Null, json!(why)),
        Outcome::Failed(failure) => (
            json!({
                "kind": failure.kind.name(),
                "place": failure.place,
                "rule": failure.rule,
                "seen": failure.seen,
                "replica": failure.replica,
                "event": failure.event,
                "at_ns": failure.at.0,
                "fingerprint": failure.fingerprint().to_string(),
                "text": failure.to_string(),
            }),
            Value::Null,
        ),
    };
    let marks: Vec<_> = report.marks.iter().map(|(mark, count)| (mark.name, count)).collect();
    let mut cells: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (cell, count) in report.cells.iter() {
        cells.entry(cell.fault.name()).or_default().insert(cell.state.name().to_owned(), json!(count));
    }
    let grammar: Map<String, Value> =
        report.grammar.iter().map(|(clause, count)| (clause, json!(count))).collect();
    json!({
        "scenario": scenario,
        "seed": seed,
        "outcome": word(&report.outcome),
        "failure": failure,
        "excuse": excuse,
        "bundle": bundle,
        "digest": hex(&report.digest),
        "events": report.events,
        "virtual_ns": report.at.0,
        "wall_seconds": seconds,
        "memory_bytes": report.memory,
        "counts": counts(&report.counts.iter().collect::<Vec<_>>()),
        "census": counts(&report.census),
        "marks": counts(&marks.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>()),
        "cells": cells,
        "grammar": grammar,
        "compared": counts(&report.compared),
        "skipped": counts(&report.skipped),
        "config": config,
    })
}

/// A run for people.
pub(crate) fn text_of(
    scenario: &str,
    seed: u64,
    config: &RunConfig,
    report: &Report,
    seconds: f64,
) -> String {
    let mut text = String::new();
    let faults: Vec<&str> = config.faults.families.keys().map(|family| family.name()).collect();
    let mut line = |name: &str, value: String| writeln!(text, "{name:<12} {value}").expect("strings grow");
    line("run", format!("{scenario}, seed {seed}"));
    line(
        "cluster",
        format!(
            "{} replicas, {} clients, {} requests, pipeline {}, {} sessions",
            config.replicas,
            config.work.clients,
            config.work.requests,
            config.pipeline_max,
            config.sessions_max
        ),
    );
    line("layout", format!("{:?}", config.layout));
    if let Some(sql) = spoken(config) {
        line("sql", sql);
    }
    line("faults", if faults.is_empty() { "by rate only".to_owned() } else { faults.join(", ") });
    line("protocol", pairs(report.counts.iter()));
    line("world", pairs(report.census.iter().copied()));
    line("compared", pairs(report.compared.iter().copied()));
    if !report.skipped.is_empty() {
        line("skipped", pairs(report.skipped.iter().copied()));
    }
    let clauses: Vec<(String, u64)> =
        report.grammar.iter().filter(|(clause, _)| !clause.contains(" + ")).collect();
    if !clauses.is_empty() {
        line("grammar", pairs(clauses.iter().map(|(clause, count)| (clause.as_str(), *count))));
    }
    let virtual_seconds = Duration::from_nanos(report.at.0).as_secs_f64();
    line(
        "effort",
        format!(
            "{} events, {virtual_seconds:.3} s virtual, {seconds:.3} s real, {} KiB at the end",
            report.events,
            report.memory >> 10
        ),
    );
    line("digest", hex(&report.digest));
    match &report.outcome {
        Outcome::Passed => line("outcome", "passed".to_owned()),
        Outcome::Excused(why) => line("outcome", format!("excused: {why}")),
        Outcome::Failed(failure) => {
            line("outcome", format!("FAILED {failure}"));
            line("fingerprint", failure.fingerprint().to_string());
        }
    }
    text
}

/// What clients that speak SQL say, on one line.
pub(crate) fn spoken(config: &RunConfig) -> Option<String> {
    let sql = config.sql.as_ref()?;
    let theme = |(theme, weight): (&Theme, &u32)| format!("{} {weight}", theme.name());
    let themes: Vec<String> = sql.themes.iter().map(theme).collect();
    Some(format!(
        "{} more clients, {} statements, {} tenants; {}",
        sql.clients,
        sql.statements,
        sql.tenants,
        themes.join(", ")
    ))
}

/// Counts that are not zero, on one line.
fn pairs<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let shown: Vec<String> =
        counts.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "fifteen digits are enough for a report")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings grow");
        text
    })
}
