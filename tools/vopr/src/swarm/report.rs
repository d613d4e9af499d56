//! A swarm's report, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kimberlite_sim::{Evidence, Fault, Missing, Scenario, State, Sum as Seen, mark};
use serde_json::{Value, json};

use super::seeds::Plan;
use super::sum::Sum;
use crate::Verdict;
use crate::told::float;

/// Missing things named in full at most; the rest is a number.
const MISSING_SHOWN_MAX: usize = 40;

macro_rules! say {
    ($text:expr, $($words:tt)*) => {
        writeln!($text, $($words)*).expect("strings grow")
    };
}

/// The report for people.
pub(super) fn text(sum: &Sum, plan: &Plan, wall: f64) -> String {
    let mut text = census(sum);
    let compared: Vec<String> = sum.compared.iter().map(|(name, count)| format!("{name} {count}")).collect();
    say!(text, "\ncompared: {}", compared.join(", "));
    let evidence = &sum.evidence;
    let reached = mark::ALL.iter().filter(|mark| evidence.marks.contains_key(mark.name)).count();
    say!(text, "reached: {reached} of {} marks, {} fault x state cells", to_reach(), evidence.cells.len());
    if !evidence.grammar.is_empty() {
        let (pairs, clauses): (Vec<_>, Vec<_>) =
            evidence.grammar.keys().partition(|name| name.contains(" + "));
        say!(
            text,
            "grammar: {} clauses of SQL, {} pairs of them in one statement",
            clauses.len(),
            pairs.len()
        );
    }
    say!(text, "{}", effort(sum, wall));
    for (reason, excuse) in &sum.excuses {
        say!(text, "\nexcused: {} seeds, {} among them: {reason}", excuse.seeds, excuse.example);
    }
    for (fingerprint, group) in sum.by_speed() {
        let (event, seed) = group.fastest;
        say!(text, "\n{fingerprint}  {} seeds, fastest {seed} after {event} events", group.seeds);
        say!(text, "  {}", group.text);
        for bundle in &group.bundles {
            say!(text, "  {}", bundle.display());
        }
    }
    let missing = sum.missing(plan.scenario);
    if !missing.is_empty() {
        let word = if sum.is_judged() { "vacuous: never seen:" } else { "not yet seen:" };
        say!(text, "\n{word} {}", list(&missing));
    }
    say!(
        text,
        "\n{} {} {}: {} passed, {} excused, {} failed",
        sum.seeds,
        plan.scenario.name(),
        if sum.seeds == 1 { "seed" } else { "seeds" },
        sum.passed,
        sum.excused,
        sum.failed
    );
    text
}

/// Marks that are to be reached.
fn to_reach() -> usize {
    mark::ALL.iter().filter(|mark| mark.kind.is_to_be_reached()).count()
}

fn list(missing: &[Missing]) -> String {
    let mut names: Vec<String> = missing.iter().take(MISSING_SHOWN_MAX).map(ToString::to_string).collect();
    if missing.len() > MISSING_SHOWN_MAX {
        names.push(format!("and {} more (vopr marks --seeds shows all)", missing.len() - MISSING_SHOWN_MAX));
    }
    names.join(", ")
}

/// What happened, in all and in a hundred seeds.
fn census(sum: &Sum) -> String {
    let mut text = String::new();
    let head = format!("{:<18} {:>9} {:>9}", "", "in all", "per 100");
    say!(text, "{head}   {head}");
    let names: Vec<&str> = kimberlite_sim::Counts::default().iter().map(|(name, _)| name).collect();
    for row in names.chunks(2) {
        let cells: Vec<String> = row
            .iter()
            .map(|name| {
                let total = sum.total(name);
                format!("{name:<18} {total:>9} {:>9.1}", sum.per_hundred(total))
            })
            .collect();
        say!(text, "{}", cells.join("   "));
    }
    text
}

/// Commands with a final word, and statements with an answer.
fn operations(sum: &Sum) -> u64 {
    sum.total("requests_done") + sum.total("sql_answered")
}

/// What it cost, and what it was worth.
fn effort(sum: &Sum, wall: f64) -> String {
    let (median, most) = sum.cpu_median_and_max();
    let cpu = sum.cpu_total().max(1e-9);
    format!(
        "effort: {:.1} CPU-seconds in {wall:.1} s; a seed takes {median:.3} CPU-seconds (median), {most:.3} (most); \
         per CPU-second {:.0} client operations, {:.1} simulated seconds, {:.0} events; {} KiB in the largest world",
        sum.cpu_total(),
        float(operations(sum)) / cpu,
        sum.virtual_seconds / cpu,
        float(sum.events) / cpu,
        sum.memory_max >> 10
    )
}

/// The report for machines: one object.
pub(super) fn json(sum: &Sum, plan: &Plan, verdict: Verdict, wall: f64) -> Value {
    let failures: Vec<Value> = sum
        .by_speed()
        .into_iter()
        .map(|(fingerprint, group)| {
            json!({
                "fingerprint": fingerprint,
                "seeds": group.seeds,
                "fastest_seed": group.fastest.1,
                "fastest_event": group.fastest.0,
                "failure": group.text,
                "bundles": group.bundles,
            })
        })
        .collect();
    let excuses: Vec<Value> = sum
        .excuses
        .iter()
        .map(|(reason, excuse)| json!({"reason": reason, "seeds": excuse.seeds, "example": excuse.example}))
        .collect();
    let (median, most) = sum.cpu_median_and_max();
    let cpu = sum.cpu_total().max(1e-9);
    let missing: Vec<Value> = sum
        .missing(plan.scenario)
        .iter()
        .map(|one| json!({"what": one.what.name(), "name": one.name, "wanted": one.wanted, "had": one.had}))
        .collect();
    json!({
        "summary": {
            "scenario": plan.scenario.name(),
            "seeds": sum.seeds,
            "start": plan.start,
            "shard": plan.shard.to_string(),
            "passed": sum.passed,
            "excused": sum.excused,
            "failed": sum.failed,
            "missing": missing,
            "judged": sum.is_judged(),
            "exit_code": verdict as u8,
            "events": sum.events,
            "wall_seconds": wall,
            "cpu_seconds": sum.cpu_total(),
            "cpu_seconds_median": median,
            "cpu_seconds_max": most,
            "client_operations_per_cpu_second": float(operations(sum)) / cpu,
            "simulated_seconds_per_cpu_second": sum.virtual_seconds / cpu,
            "memory_bytes_max": sum.memory_max,
            "counts": seen(&sum.evidence.counts),
            "marks": seen(&sum.evidence.marks),
            "cells": seen(&sum.evidence.cells),
            "grammar": seen(&sum.evidence.grammar),
            "compared": sum.compared,
            "excuses": excuses,
            "failures": failures,
        }
    })
}

fn seen(sums: &BTreeMap<String, Seen>) -> Value {
    sums.iter().map(|(name, sum)| (name.clone(), json!({"count": sum.count, "seeds": sum.seeds}))).collect()
}

/// Marks and cells, those never seen first.
pub(super) fn marks_text(evidence: &Evidence, scenario: Scenario) -> String {
    let mut text = String::new();
    let wanted = scenario.contract().marks();
    let mut marks: Vec<_> = mark::ALL
        .iter()
        .filter(|mark| mark.kind.is_to_be_reached())
        .map(|mark| (evidence.marks.get(mark.name).copied().unwrap_or_default(), mark))
        .collect();
    marks.sort_by_key(|(seen, mark)| (seen.seeds, seen.count, mark.name));
    say!(text, "{:>7} {:>10}  mark (* this scenario must reach it)", "seeds", "count");
    for (Seen { count, seeds }, mark) in marks {
        let star = if wanted.contains(&mark.name) { "*" } else { " " };
        say!(text, "{seeds:>7} {count:>10}{star} {:<36} {} ({})", mark.name, mark.meaning, mark.file);
    }
    say!(text, "\nFaults by what the replica they hit was doing (* this scenario must hit it)");
    write!(text, "{:<22}", "").expect("strings grow");
    for state in State::ALL {
        write!(text, "{:>13}", state.name()).expect("strings grow");
    }
    text.push('\n');
    let wanted: Vec<String> = scenario.contract().cells.iter().map(|cell| cell.name()).collect();
    for fault in Fault::ALL {
        let mut row = String::new();
        let mut any = false;
        for state in State::ALL {
            let name = format!("{}@{}", fault.name(), state.name());
            let seen = evidence.cells.get(&name).copied().unwrap_or_default();
            let is_wanted = wanted.contains(&name);
            any |= seen.count > 0 || is_wanted;
            let star = if is_wanted { "*" } else { "" };
            let count =
                if seen.count == 0 && !is_wanted { ".".to_owned() } else { format!("{}{star}", seen.count) };
            write!(row, "{count:>13}").expect("strings grow");
        }
        if any {
            say!(text, "{:<22}{row}", fault.name());
        }
    }
    let wanted = scenario.contract().clauses;
    if !evidence.grammar.is_empty() || !wanted.is_empty() {
        say!(
            text,
            "\nClauses of SQL (* this scenario must say it); `--json` has the pairs in one statement, too"
        );
        let single = evidence.grammar.iter().filter(|(name, _)| !name.contains(" + "));
        for (name, Seen { count, seeds }) in single {
            let star = if wanted.contains(&name.as_str()) { "*" } else { " " };
            say!(text, "{seeds:>7} {count:>10}{star} {name}");
        }
    }
    let missing = scenario.contract().missing(evidence);
    if !missing.is_empty() {
        say!(text, "\nnever seen: {}", list(&missing));
    }
    text
}

/// The same for machines.
pub(super) fn marks_json(evidence: &Evidence, scenario: Scenario) -> Value {
    let wanted = scenario.contract().marks();
    let marks: Vec<Value> = mark::ALL
        .iter()
        .map(|mark| {
            let seen = evidence.marks.get(mark.name).copied().unwrap_or_default();
            json!({
                "name": mark.name, "kind": mark.kind.name(), "file": mark.file, "meaning": mark.meaning,
                "rare": mark.rare, "wanted": wanted.contains(&mark.name), "count": seen.count, "seeds": seen.seeds,
            })
        })
        .collect();
    let missing: Vec<String> =
        scenario.contract().missing(evidence).iter().map(ToString::to_string).collect();
    json!({
        "marks": marks,
        "cells": seen(&evidence.cells),
        "grammar": seen(&evidence.grammar),
        "missing": missing,
    })
}
