//! Planted bugs are found: for each a seed that shows it, and passes without it.
//!
//! The seeds stand in `mutants.txt`. A seed is no fixed history: after a change to the code it may lead elsewhere, so the
//! search goes on from there for a few seeds more. `vopr power` measures how long it takes from anywhere.
#![cfg(feature = "mutants")]

use std::collections::BTreeMap;

use kimberlite_probe::Mutant;
use kimberlite_sim::{Luck, Outcome, Scenario, draw, rules, run, run_planted};

/// Seeds tried, from the known one on.
const TRIES: u64 = 60;

/// How a search from a seed ended.
fn search(mutant: Mutant, scenario: Scenario, first: u64) -> Option<u64> {
    (first..first + TRIES).find(|seed| {
        let config = draw(scenario, *seed);
        let (report, sight) = run_planted(&config, *seed, rules, mutant);
        if !matches!(report.outcome, Outcome::Failed(_)) {
            return false;
        }
        let (clean, _) = run(&config, *seed, Luck::Free, rules);
        let shows = !matches!(clean.outcome, Outcome::Failed(_));
        assert!(!shows || sight.triggered > 0, "{mutant:?}, seed {seed}: a failure nothing led to");
        shows
    })
}

#[test]
fn every_planted_bug_is_found_from_its_known_seed_on() {
    let list = include_str!("mutants.txt");
    let seeds: BTreeMap<&str, (u64, Scenario)> = list
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let (name, seed) = (words.next().expect("a name"), words.next().expect("a seed"));
            let scenario = words.next().map_or(Some(Scenario::Default), Scenario::named);
            (name, (seed.parse().expect("a number"), scenario.expect("a scenario")))
        })
        .collect();
    for name in seeds.keys() {
        assert!(Mutant::named(name).is_some(), "mutants.txt names {name}, which is not planted");
    }
    let mut lost = Vec::new();
    for mutant in Mutant::ALL {
        let name = mutant.name();
        let (first, scenario) =
            *seeds.get(name).unwrap_or_else(|| panic!("mutants.txt has no seed for {name}"));
        if search(*mutant, scenario, first).is_none() {
            lost.push(name);
        }
    }
    assert!(
        lost.is_empty(),
        "not found in {TRIES} seeds from the known one on: {}; `vopr power --mutant NAME` finds new seeds",
        lost.join(", ")
    );
}
