//! Many seeds on several threads. What is found does not depend on how many threads there are.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use kimberlite_sim::{
    Counts, Failure, FailureKind, Fingerprint, Luck, Outcome, Report, RunConfig, Scenario, rules, run,
};
use serde_json::json;

use crate::arguments::Swarm;
use crate::one::{configuration, keep};
use crate::{Complaint, Verdict, told};

/// Of how many seeds one is run twice.
const TWICE_EVERY: u64 = 10;

/// One seed, run.
struct Done {
    seed: u64,
    config: RunConfig,
    report: Report,
    seconds: f64,
}

/// Failures with one fingerprint.
struct Group {
    failure: Failure,
    seeds: u64,
    /// The seed that fails after the fewest events.
    fastest: (u64, u64),
    bundles: Vec<PathBuf>,
}

/// What a swarm found so far.
#[derive(Default)]
struct Sum {
    counts: Counts,
    passed: u64,
    excused: u64,
    failed: u64,
    groups: BTreeMap<Fingerprint, Group>,
    events: u64,
    seconds: f64,
    slowest: f64,
    memory_max: u64,
    compared: BTreeMap<&'static str, u64>,
}

/// Runs a swarm.
pub(crate) fn swarm(arguments: &Swarm) -> Result<Verdict, Complaint> {
    configuration(arguments.scenario, arguments.start, arguments.overrides)?;
    let began = Instant::now();
    let bar = bar(arguments);
    let mut sum = Sum::default();
    each_seed(arguments, |done| {
        sum.take(arguments, &done)?;
        bar.inc(1);
        if sum.failed > 0 {
            bar.set_message(format!("{} failed in {} ways", sum.failed, sum.groups.len()));
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    let missing = sum.missing(arguments);
    let verdict = sum.verdict(&missing);
    let wall = began.elapsed().as_secs_f64();
    if arguments.json {
        sum.print_json(arguments, &missing, verdict, wall);
    } else {
        sum.print(arguments, &missing, wall);
    }
    Ok(verdict)
}

/// A progress bar on standard error, if somebody looks.
fn bar(arguments: &Swarm) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left  {msg}");
    ProgressBar::new(arguments.seeds).with_style(style.expect("the template is well formed"))
}

/// Runs all seeds and hands each to `take` in the order of the seeds.
fn each_seed(
    arguments: &Swarm,
    mut take: impl FnMut(Done) -> Result<(), Complaint>,
) -> Result<(), Complaint> {
    let jobs =
        arguments.jobs.map_or_else(|| thread::available_parallelism().map_or(1, Into::into), usize::from);
    let next = AtomicU64::new(0);
    let (sender, receiver) = mpsc::sync_channel(4 * jobs);
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    // Nobody listens any more when the swarm was given up.
                    if index >= arguments.seeds || sender.send(one(arguments, index)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut expected = 0;
        for result in receiver {
            let done: Done = result?;
            waiting.insert(done.seed.wrapping_sub(arguments.start), done);
            while let Some(done) = waiting.remove(&expected) {
                expected += 1;
                take(done)?;
            }
        }
        Ok(())
    })
}

/// Runs one seed, some of them twice.
fn one(arguments: &Swarm, index: u64) -> Result<Done, Complaint> {
    let seed = arguments.start.wrapping_add(index);
    let config = configuration(arguments.scenario, seed, arguments.overrides)?;
    let began = Instant::now();
    let (mut report, _) = run(&config, seed, Luck::Free, rules);
    let seconds = began.elapsed().as_secs_f64();
    if arguments.check_determinism && index.is_multiple_of(TWICE_EVERY) {
        let (again, _) = run(&config, seed, Luck::Free, rules);
        if again != report {
            report.outcome = Outcome::Failed(Failure {
                kind: FailureKind::Violation,
                place: "determinism".to_owned(),
                rule: "the same seed gives the same run".to_owned(),
                seen: format!("{} and {}", told::hex(&report.digest), told::hex(&again.digest)),
                replica: None,
                event: report.events,
                at: report.at,
            });
        }
    }
    Ok(Done { seed, config, report, seconds })
}

impl Sum {
    fn take(&mut self, arguments: &Swarm, done: &Done) -> Result<(), Complaint> {
        let Done { seed, config, report, seconds } = done;
        self.counts.add(&report.counts);
        self.events += report.events;
        self.seconds += seconds;
        self.slowest = self.slowest.max(*seconds);
        self.memory_max = self.memory_max.max(report.memory);
        for (name, compared) in &report.compared {
            *self.compared.entry(name).or_default() += compared;
        }
        let mut bundle = None;
        match &report.outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Excused(_) => self.excused += 1,
            Outcome::Failed(failure) => {
                self.failed += 1;
                bundle = self.group(arguments, *seed, config, failure)?;
            }
        }
        if arguments.json {
            let name = arguments.scenario.name();
            let bundle = bundle.and_then(|path| path.to_str().map(ToOwned::to_owned));
            println!("{}", told::json_of(name, *seed, config, report, *seconds, bundle.as_deref()));
        }
        Ok(())
    }

    /// Files a failure under its fingerprint and keeps a bundle of the first few.
    fn group(
        &mut self,
        arguments: &Swarm,
        seed: u64,
        config: &RunConfig,
        failure: &Failure,
    ) -> Result<Option<PathBuf>, Complaint> {
        let group = self.groups.entry(failure.fingerprint()).or_insert_with(|| Group {
            failure: failure.clone(),
            seeds: 0,
            fastest: (u64::MAX, seed),
            bundles: Vec::new(),
        });
        group.seeds += 1;
        if failure.event < group.fastest.0 {
            group.fastest = (failure.event, seed);
            group.failure = failure.clone();
        }
        // A run that is not the same twice has no record that could be replayed.
        if group.bundles.len() >= arguments.bundles_max || failure.place == "determinism" {
            return Ok(None);
        }
        let path = keep(arguments.scenario, config, seed, &arguments.bundles)?;
        group.bundles.push(path.clone());
        Ok(Some(path))
    }

    /// What the scenario had to show and did not.
    fn missing(&self, arguments: &Swarm) -> Vec<&'static str> {
        if arguments.seeds < Scenario::SWARM_MIN {
            return Vec::new();
        }
        let counts: BTreeMap<&str, u64> = self.counts.iter().collect();
        let minimum = arguments.scenario.minimum().iter().copied();
        minimum.filter(|name| counts.get(name).is_none_or(|count| *count == 0)).collect()
    }

    const fn verdict(&self, missing: &[&str]) -> Verdict {
        if self.failed > 0 {
            Verdict::Failed
        } else if !missing.is_empty() {
            Verdict::Vacuous
        } else if self.passed == 0 {
            Verdict::Excused
        } else {
            Verdict::Passed
        }
    }

    /// Groups, the one that fails fastest first.
    fn by_speed(&self) -> Vec<(&Fingerprint, &Group)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(fingerprint, group)| (group.fastest, **fingerprint));
        groups
    }

    fn print(&self, arguments: &Swarm, missing: &[&str], wall: f64) {
        print!("{}", told::table_of(&self.counts));
        let compared: Vec<String> =
            self.compared.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("compared: {}", compared.join(", "));
        println!(
            "{} {}: {} passed, {} excused, {} failed; {} events, {wall:.1} s ({:.3} s a seed, slowest {:.3} s), \
             {} KiB in the largest world",
            arguments.seeds,
            arguments.scenario.name(),
            self.passed,
            self.excused,
            self.failed,
            self.events,
            self.seconds / arguments.seeds as f64,
            self.slowest,
            self.memory_max >> 10
        );
        for (fingerprint, group) in self.by_speed() {
            let (event, seed) = group.fastest;
            println!("\n{fingerprint}  {} seeds, fastest {seed} after {event} events", group.seeds);
            println!("  {}", group.failure);
            for bundle in &group.bundles {
                println!("  {}", bundle.display());
            }
        }
        if !missing.is_empty() {
            println!("vacuous: no {}", missing.join(", no "));
        }
    }

    fn print_json(&self, arguments: &Swarm, missing: &[&str], verdict: Verdict, wall: f64) {
        let groups: Vec<_> = self
            .by_speed()
            .into_iter()
            .map(|(fingerprint, group)| {
                json!({
                    "fingerprint": fingerprint.to_string(),
                    "seeds": group.seeds,
                    "fastest_seed": group.fastest.1,
                    "fastest_event": group.fastest.0,
                    "failure": group.failure.to_string(),
                    "bundles": group.bundles,
                })
            })
            .collect();
        let summary = json!({
            "summary": {
                "scenario": arguments.scenario.name(),
                "seeds": arguments.seeds,
                "start": arguments.start,
                "passed": self.passed,
                "excused": self.excused,
                "failed": self.failed,
                "missing": missing,
                "exit_code": verdict as u8,
                "events": self.events,
                "wall_seconds": wall,
                "counts": self.counts,
                "compared": self.compared,
                "failures": groups,
            }
        });
        println!("{summary}");
    }
}
