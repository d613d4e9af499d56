//! What there is: scenarios, rules and marks.

use kimberlite_sim::{Marks, Scenario, broken_by, draw, mark, rules};
use serde_json::{Map, Value, json};

use crate::Verdict;
use crate::arguments::List;

/// Lists the scenarios.
pub(crate) fn scenarios(list: &List) -> Verdict {
    for scenario in Scenario::ALL {
        let (name, summary, contract) = (scenario.name(), scenario.summary(), scenario.contract());
        let cells: Vec<String> = contract.cells.iter().map(|cell| cell.name()).collect();
        if list.json {
            let counts: Map<String, Value> =
                contract.counts.iter().map(|(name, least)| ((*name).to_owned(), json!(least))).collect();
            let contract = json!({ "counts": counts, "marks": contract.marks(), "cells": cells, "clauses": contract.clauses });
            println!("{}", json!({ "name": name, "summary": summary, "contract": contract }));
        } else {
            let counts: Vec<String> =
                contract.counts.iter().map(|(name, least)| format!("{least} {name}")).collect();
            let marks = match contract.marks {
                Marks::Common => format!("all {} marks that are not rare", contract.marks().len()),
                Marks::These(names) => format!("{} marks", names.len()),
            };
            println!("{name:<10} {summary}");
            println!(
                "{:<10} {} seeds must show: {}; {marks}; {} fault x state cells",
                "",
                Scenario::SWARM_MIN,
                counts.join(", "),
                cells.len()
            );
        }
    }
    Verdict::Passed
}

/// Lists the rules by checker, and what breaks each.
pub(crate) fn invariants(list: &List) -> Verdict {
    for checker in rules(&draw(Scenario::Default, 0)) {
        let (name, rules) = (checker.name(), checker.rules());
        if list.json {
            let rules: Vec<Value> = rules
                .iter()
                .map(|rule| json!({ "rule": rule, "broken_by": broken_by(name, rule) }))
                .collect();
            println!("{}", json!({ "checker": name, "rules": rules }));
        } else {
            println!("{name}");
            for rule in rules {
                println!("  {rule}");
                for test in broken_by(name, rule) {
                    println!("      broken by {test}");
                }
            }
        }
    }
    Verdict::Passed
}

/// Lists the marks by file.
pub(crate) fn marks(as_json: bool) {
    let mut file = "";
    for mark in mark::ALL {
        let (name, kind, meaning) = (mark.name, mark.kind.name(), mark.meaning);
        if as_json {
            let value = json!({
                "name": name, "kind": kind, "rare": mark.rare, "file": mark.file, "meaning": meaning,
            });
            println!("{value}");
            continue;
        }
        if mark.file != file {
            file = mark.file;
            println!("{file}");
        }
        let rare = if mark.rare { " (rare)" } else { "" };
        println!("  {kind:<11} {name:<36} {meaning}{rare}");
    }
}
