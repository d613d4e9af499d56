//! What the runs of a swarm came to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kimberlite_sim::{Evidence, Missing, Scenario, What, without_numbers};

use super::line::{Ended, Failed, Line};
use crate::Verdict;
use crate::told::float;

/// Failures with one fingerprint.
pub(super) struct Group {
    pub(super) text: String,
    pub(super) seeds: u64,
    /// Events until the failure, and the seed, of the one that fails after the fewest.
    pub(super) fastest: (u64, u64),
    pub(super) bundles: Vec<PathBuf>,
}

/// Runs that were excused for the same reason.
pub(super) struct Excuse {
    pub(super) seeds: u64,
    /// One of them.
    pub(super) example: u64,
}

/// What a swarm found so far.
#[derive(Default)]
pub(super) struct Sum {
    pub(super) seeds: u64,
    pub(super) passed: u64,
    pub(super) excused: u64,
    pub(super) failed: u64,
    /// By fingerprint.
    pub(super) failures: BTreeMap<String, Group>,
    /// By reason, without what differs from seed to seed.
    pub(super) excuses: BTreeMap<String, Excuse>,
    pub(super) evidence: Evidence,
    pub(super) compared: BTreeMap<String, u64>,
    pub(super) events: u64,
    pub(super) virtual_seconds: f64,
    /// Of each seed.
    cpu_seconds: Vec<f64>,
    pub(super) memory_max: u64,
}

impl Sum {
    /// Adds a run.
    pub(super) fn take(&mut self, line: Line) {
        let Line { seed, outcome, failure, excuse, bundle, .. } = line;
        self.seeds += 1;
        self.events += line.events;
        self.virtual_seconds += Duration::from_nanos(line.virtual_ns).as_secs_f64();
        self.cpu_seconds.push(line.cpu_seconds);
        self.memory_max = self.memory_max.max(line.memory_bytes);
        for (name, count) in &line.counts {
            self.evidence.count(What::Count, name, *count);
        }
        for (name, count) in &line.marks {
            self.evidence.count(What::Mark, name, *count);
        }
        for (fault, states) in &line.cells {
            for (state, count) in states {
                self.evidence.count(What::Cell, &format!("{fault}@{state}"), *count);
            }
        }
        for (name, count) in &line.grammar {
            self.evidence.count(What::Clause, name, *count);
        }
        for (name, compared) in line.compared {
            *self.compared.entry(name).or_default() += compared;
        }
        match outcome {
            Ended::Passed => self.passed += 1,
            Ended::Excused => {
                self.excused += 1;
                let reason = without_numbers(&excuse.unwrap_or_default());
                self.excuses.entry(reason).or_insert(Excuse { seeds: 0, example: seed }).seeds += 1;
            }
            Ended::Failed => {
                self.failed += 1;
                if let Some(failure) = failure {
                    self.group(seed, failure, bundle);
                }
            }
        }
    }

    /// Files a failure under its fingerprint.
    fn group(&mut self, seed: u64, failure: Failed, bundle: Option<PathBuf>) {
        let Failed { fingerprint, text, event } = failure;
        let group = self.failures.entry(fingerprint).or_insert_with(|| Group {
            text: text.clone(),
            seeds: 0,
            fastest: (event, seed),
            bundles: Vec::new(),
        });
        group.seeds += 1;
        if event < group.fastest.0 {
            group.fastest = (event, seed);
            group.text = text;
        }
        group.bundles.extend(bundle);
    }

    /// Bundles kept of the failures with this fingerprint.
    pub(super) fn bundles(&self, fingerprint: &str) -> usize {
        self.failures.get(fingerprint).map_or(0, |group| group.bundles.len())
    }

    /// Groups of failures, the one that fails fastest first.
    pub(super) fn by_speed(&self) -> Vec<(&String, &Group)> {
        let mut groups: Vec<_> = self.failures.iter().collect();
        groups.sort_by_key(|(fingerprint, group)| (group.fastest, *fingerprint));
        groups
    }

    /// What the scenario's contract asks for and the runs did not show.
    pub(super) fn missing(&self, scenario: Scenario) -> Vec<Missing> {
        scenario.contract().missing(&self.evidence)
    }

    /// Whether there were enough seeds for what is missing to count.
    pub(super) const fn is_judged(&self) -> bool {
        self.seeds >= Scenario::SWARM_MIN
    }

    /// What it comes to.
    pub(super) fn verdict(&self, scenario: Scenario) -> Verdict {
        if self.failed > 0 {
            Verdict::Failed
        } else if self.is_judged() && !self.missing(scenario).is_empty() {
            Verdict::Vacuous
        } else if self.passed == 0 {
            Verdict::Excused
        } else {
            Verdict::Passed
        }
    }

    /// How often something was counted in all runs.
    pub(super) fn total(&self, name: &str) -> u64 {
        self.evidence.counts.get(name).map_or(0, |sum| sum.count)
    }

    /// How often a hundred seeds show what was counted so often.
    pub(super) fn per_hundred(&self, count: u64) -> f64 {
        float(count) * 100.0 / float(self.seeds.max(1))
    }

    /// Processor seconds of all runs together.
    pub(super) fn cpu_total(&self) -> f64 {
        self.cpu_seconds.iter().sum()
    }

    /// Processor seconds of a seed: the median and the most.
    pub(super) fn cpu_median_and_max(&self) -> (f64, f64) {
        let mut sorted = self.cpu_seconds.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.last() {
            Some(most) => (sorted[sorted.len() / 2], *most),
            None => (0.0, 0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn line(seed: u64, outcome: &str, more: &Value) -> Line {
        let mut value = json!({
            "seed": seed, "outcome": outcome, "failure": null, "excuse": null, "bundle": null,
            "events": 10, "virtual_ns": 2_000_000_000_u64, "cpu_seconds": float(seed), "memory_bytes": seed,
            "counts": {"crashes": 2}, "marks": {"merge.cuts": 1}, "cells": {"crash": {"primary": 1}},
            "compared": {"prefix": 3},
        });
        for (key, one) in more.as_object().expect("fields") {
            value[key] = one.clone();
        }
        Line::read(&value).unwrap()
    }

    #[test]
    fn failures_are_grouped_by_fingerprint_the_fastest_first_and_excuses_by_their_reason() {
        let mut sum = Sum::default();
        for (seed, fingerprint, event) in [(1, "a", 90), (2, "b", 70), (3, "a", 50), (4, "a", 80)] {
            let failure = json!({"failure": {"fingerprint": fingerprint, "text": seed.to_string(), "event": event},
                "bundle": format!("{seed}.kmb")});
            sum.take(line(seed, "failed", &failure));
        }
        for op in [5, 77] {
            sum.take(line(op, "excused", &json!({"excuse": format!("op {op} is damaged")})));
        }
        let groups: Vec<_> = sum
            .by_speed()
            .iter()
            .map(|(name, group)| (name.as_str(), group.fastest, group.text.clone()))
            .collect();
        assert_eq!(groups, [("a", (50, 3), "3".to_owned()), ("b", (70, 2), "2".to_owned())]);
        assert_eq!((sum.bundles("a"), sum.bundles("b"), sum.bundles("c")), (3, 1, 0));
        let excuses: Vec<_> =
            sum.excuses.iter().map(|(why, one)| (why.as_str(), one.seeds, one.example)).collect();
        assert_eq!(excuses, [("op # is damaged", 2, 5)]);
        assert_eq!(sum.verdict(Scenario::Calm), Verdict::Failed);
    }

    #[test]
    fn a_swarm_is_judged_by_its_contract_only_when_it_is_large_enough() {
        let mut sum = Sum::default();
        for seed in 0..Scenario::SWARM_MIN {
            assert_eq!(
                sum.verdict(Scenario::Default),
                if seed == 0 { Verdict::Excused } else { Verdict::Passed }
            );
            sum.take(line(seed, "passed", &json!({})));
        }
        assert_eq!(sum.verdict(Scenario::Default), Verdict::Vacuous);
        assert!(sum.missing(Scenario::Default).iter().any(|missing| missing.name == "merge.mixed_logs"));
        assert!(sum.missing(Scenario::Default).iter().all(|missing| missing.name != "merge.cuts"));
    }

    #[test]
    fn a_swarm_of_excused_runs_has_not_passed() {
        let mut sum = Sum::default();
        sum.take(line(1, "excused", &json!({"excuse": "it was alone"})));
        assert_eq!(sum.verdict(Scenario::Calm), Verdict::Excused);
        assert_eq!(sum.cpu_median_and_max(), (1.0, 1.0));
        assert!((sum.per_hundred(sum.total("crashes")) - 200.0).abs() < 1e-9);
    }
}
