//! Which seeds a swarm runs, and running them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use kimberlite_sim::{Failure, FailureKind, Luck, Outcome, Report, RunConfig, Scenario, rules, run};

use crate::arguments::Overrides;
use crate::one::configuration;
use crate::processor::cpu_seconds;
use crate::{Complaint, told};

/// Of how many seeds one is run twice.
const TWICE_EVERY: u64 = 10;

/// The place of a failure that says that the same seed gave two runs.
pub(super) const NOT_DETERMINISTIC: &str = "determinism";

/// Shards of one swarm at most.
const SHARDS_MAX: u64 = 10_000;

/// One part of a swarm: every `of`-th seed, from the `index`-th on, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    index: u64,
    of: u64,
}

impl Shard {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { index: 1, of: 1 };
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if index >= 1 && index <= of && of <= SHARDS_MAX => Ok(Self { index, of }),
            _ => Err("a shard is written i/n with 1 <= i <= n, as in 2/8".to_owned()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// When a swarm ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// After so many seeds, all shards together.
    Seeds(u64),
    /// No seed is begun after this.
    Time(Instant),
}

/// A swarm, as it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    pub(super) start: u64,
    pub(super) until: Until,
    pub(super) shard: Shard,
    pub(super) jobs: Option<u16>,
    pub(super) overrides: Overrides,
    pub(super) check_determinism: bool,
}

impl Plan {
    /// The `index`-th seed of this shard.
    pub(super) const fn seed(&self, index: u64) -> u64 {
        self.start.wrapping_add(self.shard.index - 1).wrapping_add(index.wrapping_mul(self.shard.of))
    }

    /// Seeds of this shard; as many as there are where time ends the swarm.
    pub(super) const fn count(&self) -> u64 {
        match self.until {
            Until::Seeds(seeds) => (seeds + self.shard.of - self.shard.index) / self.shard.of,
            Until::Time(_) => u64::MAX,
        }
    }

    /// The number of the next seed, if there is to be one. A number that was drawn is run, so that none is missing
    /// among those before the last.
    fn draw(&self, next: &AtomicU64) -> Option<u64> {
        if let Until::Time(ends) = self.until
            && Instant::now() >= ends
        {
            return None;
        }
        Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < self.count())
    }
}

/// One seed, run.
pub(super) struct Done {
    pub(super) index: u64,
    pub(super) seed: u64,
    pub(super) config: RunConfig,
    pub(super) report: Report,
    /// Time of this thread's processor.
    pub(super) cpu_seconds: f64,
    pub(super) wall_seconds: f64,
}

/// Runs the seeds of a plan from the `first` on and hands each to `take`, in their order.
pub(super) fn each(
    plan: &Plan,
    first: u64,
    mut take: impl FnMut(Done) -> Result<(), Complaint>,
) -> Result<(), Complaint> {
    let jobs = plan.jobs.map_or_else(|| thread::available_parallelism().map_or(1, Into::into), usize::from);
    let next = AtomicU64::new(first);
    let (sender, receiver) = mpsc::sync_channel(4 * jobs);
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(index) = plan.draw(next) {
                    // Nobody listens any more when the swarm was given up.
                    if sender.send(one(plan, index)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut expected = first;
        for result in receiver {
            let done: Done = result?;
            waiting.insert(done.index, done);
            while let Some(done) = waiting.remove(&expected) {
                expected += 1;
                take(done)?;
            }
        }
        assert!(waiting.is_empty(), "no seed is missing");
        Ok(())
    })
}

fn one(plan: &Plan, index: u64) -> Result<Done, Complaint> {
    let seed = plan.seed(index);
    let config = configuration(plan.scenario, seed, plan.overrides)?;
    let (began, cpu_began) = (Instant::now(), cpu_seconds());
    let (mut report, _) = run(&config, seed, Luck::Free, rules);
    let (wall_seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu_began);
    if plan.check_determinism && index.is_multiple_of(TWICE_EVERY) {
        let (again, _) = run(&config, seed, Luck::Free, rules);
        if again != report {
            report.outcome = Outcome::Failed(Failure {
                kind: FailureKind::Violation,
                place: NOT_DETERMINISTIC.to_owned(),
                rule: "the same seed gives the same run".to_owned(),
                seen: format!("{} and {}", told::hex(&report.digest), told::hex(&again.digest)),
                replica: None,
                event: report.events,
                at: report.at,
            });
        }
    }
    Ok(Done { index, seed, config, report, cpu_seconds, wall_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shard: &str, seeds: u64) -> Plan {
        Plan {
            scenario: Scenario::Calm,
            start: 100,
            until: Until::Seeds(seeds),
            shard: shard.parse().unwrap(),
            jobs: None,
            overrides: Overrides::default(),
            check_determinism: false,
        }
    }

    #[test]
    fn the_shards_of_a_swarm_are_all_of_its_seeds_each_once() {
        for seeds in 1..20 {
            let mut all: Vec<u64> = (1..=4)
                .map(|index| plan(&format!("{index}/4"), seeds))
                .flat_map(|plan| (0..plan.count()).map(move |index| plan.seed(index)))
                .collect();
            all.sort_unstable();
            assert_eq!(all, (100..100 + seeds).collect::<Vec<_>>());
        }
        assert_eq!(plan("1/1", 7).count(), 7);
    }

    #[test]
    fn a_shard_that_is_none_is_refused_with_an_example() {
        for text in ["", "3", "0/4", "5/4", "1/0", "a/b", "1/4/2", "-1/4"] {
            assert!(Shard::from_str(text).unwrap_err().contains("2/8"), "{text}");
        }
        assert_eq!(Shard::from_str("2/8").unwrap().to_string(), "2/8");
    }
}
