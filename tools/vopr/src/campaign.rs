//! Campaigns: seed after seed with one planted bug, until a run fails that passes without it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use indicatif::ProgressBar;
use kimberlite_probe::Mutant;
use kimberlite_sim::{Failure, Luck, Outcome, Scenario, draw, rules, run, run_planted};

use crate::processor::cpu_seconds;

/// What a campaign is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) mutant: Mutant,
    /// The first seed, and how many at most.
    pub(crate) start: u64,
    pub(crate) seeds: u64,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Campaign {
    pub(crate) plan: Plan,
    pub(crate) effort: Effort,
    /// Seeds in which the planted line ran, and in which it made a difference.
    pub(crate) reached: u64,
    pub(crate) triggered: u64,
    /// Seeds that fail without the planted bug as well: they show nothing.
    pub(crate) void: Vec<u64>,
    pub(crate) found: Option<(u64, Failure)>,
}

/// What it took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
    pub(crate) seeds: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) virtual_seconds: f64,
}

impl Effort {
    fn add(&mut self, cpu_seconds: f64, virtual_ns: u64) {
        self.seeds += 1;
        self.cpu_seconds += cpu_seconds;
        self.virtual_seconds += std::time::Duration::from_nanos(virtual_ns).as_secs_f64();
    }
}

/// What runs without a planted bug came to.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    pub(crate) effort: Effort,
    pub(crate) alarms: BTreeMap<u64, Failure>,
}

/// Runs seeds until one shows the bug.
pub(crate) fn hunt(plan: Plan) -> Campaign {
    let (mut reached, mut triggered) = (0, 0);
    let (mut effort, mut void) = (Effort::default(), Vec::new());
    for seed in (0..plan.seeds).map(|index| plan.start.wrapping_add(index)) {
        let config = draw(plan.scenario, seed);
        let began = cpu_seconds();
        let (report, sight) = run_planted(&config, seed, rules, plan.mutant);
        effort.add(cpu_seconds() - began, report.at.0);
        reached += u64::from(sight.reached > 0);
        triggered += u64::from(sight.triggered > 0);
        if let Outcome::Failed(failure) = report.outcome {
            let (clean, _) = run(&config, seed, Luck::Free, rules);
            if !matches!(clean.outcome, Outcome::Failed(_)) {
                return Campaign { plan, effort, reached, triggered, void, found: Some((seed, failure)) };
            }
            void.push(seed);
        }
    }
    Campaign { plan, effort, reached, triggered, void, found: None }
}

/// Runs seeds without a planted bug.
pub(crate) fn baseline(scenario: Scenario, seeds: &[u64], jobs: usize, bar: &ProgressBar) -> Baseline {
    let sum = Mutex::new(Baseline::default());
    side_by_side(jobs, seeds, |seed| {
        let config = draw(scenario, *seed);
        let began = cpu_seconds();
        let (report, _) = run(&config, *seed, Luck::Free, rules);
        let mut sum = sum.lock().expect("no worker panics");
        sum.effort.add(cpu_seconds() - began, report.at.0);
        if let Outcome::Failed(failure) = report.outcome {
            sum.alarms.insert(*seed, failure);
        }
        bar.inc(1);
    });
    sum.into_inner().expect("no worker panics")
}

/// Does something for each item, `jobs` at a time.
pub(crate) fn side_by_side<T: Sync>(jobs: usize, items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..jobs.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_found_in_a_seed_that_passes_without_it_and_nothing_is_found_without_one() {
        let plan = Plan { scenario: Scenario::Calm, mutant: Mutant::CommitQuorumShort, start: 0, seeds: 20 };
        let campaign = hunt(plan);
        let (seed, failure) = campaign.found.expect("an early commit shows at once");
        assert_eq!((failure.place.as_str(), campaign.effort.seeds), ("durability", seed + 1));
        assert!(campaign.triggered > 0 && campaign.triggered <= campaign.reached);
        let clean = baseline(Scenario::Calm, &[seed], 1, &ProgressBar::hidden());
        assert_eq!((clean.effort.seeds, clean.alarms.len()), (1, 0));
    }

    #[test]
    fn a_bug_that_is_never_reached_is_missed_and_says_so() {
        let plan =
            Plan { scenario: Scenario::Calm, mutant: Mutant::FailedWriteSwallowed, start: 0, seeds: 3 };
        let campaign = hunt(plan);
        assert!(campaign.found.is_none() && campaign.reached == 0 && campaign.effort.seeds == 3);
    }
}
