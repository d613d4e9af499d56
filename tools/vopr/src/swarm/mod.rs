//! Many seeds on several threads. What is found does not depend on how many threads there are.
//!
//! | module | holds |
//! |---|---|
//! | `seeds` | which seeds, and running them |
//! | `line` | one run as a line of JSON, written and read |
//! | `sum` | what the runs came to |
//! | `report` | the sum, for people and machines |
//! | `directory` | a swarm on disk: what was killed can go on |
//!
//! The sum is made from lines alone, whether they were just written or read back; so a swarm that was killed and
//! resumed comes to the same as one that was not.

mod directory;
mod line;
mod report;
mod seeds;
mod sum;

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use kimberlite_sim::{Evidence, Outcome};

use crate::arguments::{Marks, Swarm};
use crate::one::{configuration, keep};
use crate::{Complaint, Verdict, lists};
use directory::{Directory, Header};
use line::Line;
use seeds::{Done, Plan, Until};
use sum::Sum;

pub(crate) use seeds::Shard;

/// Runs a swarm.
pub(crate) fn swarm(arguments: &Swarm) -> Result<Verdict, Complaint> {
    let plan = Plan {
        scenario: arguments.scenario,
        start: arguments.start,
        until: arguments
            .lasts
            .map_or(Until::Seeds(arguments.seeds), |lasts| Until::Time(Instant::now() + lasts)),
        shard: arguments.shard,
        jobs: arguments.jobs,
        overrides: arguments.overrides,
        check_determinism: arguments.check_determinism,
    };
    configuration(plan.scenario, plan.start, plan.overrides)?;
    let mut sum = Sum::default();
    let (mut directory, before) = match &arguments.resume {
        None => (None, Vec::new()),
        Some(path) => {
            let (directory, lines) = Directory::open(path, &Header::of(&plan))?;
            (Some(directory), lines)
        }
    };
    let first = before.len() as u64;
    for (index, value) in before.into_iter().enumerate() {
        let line =
            Line::read(&value).map_err(|why| directory::unreadable(arguments.resume.as_deref(), &why))?;
        if line.seed != plan.seed(index as u64) {
            let why = format!("line {} is not of seed {}", index + 1, plan.seed(index as u64));
            return Err(directory::unreadable(arguments.resume.as_deref(), &why));
        }
        sum.take(line);
    }
    let mut jsonl = match &arguments.jsonl {
        None => None,
        Some(path) => {
            let file = File::create(path).map_err(|error| Complaint::io("create", path, &error))?;
            Some((path.as_path(), file))
        }
    };
    let began = Instant::now();
    let bar = bar(&plan, arguments.lasts, first);
    seeds::each(&plan, first, |done| {
        let bundle = bundle_of(arguments, &sum, &done)?;
        let value = line::value(&plan, &done, bundle.as_deref());
        if let Some(directory) = &mut directory {
            directory.append(&value)?;
        }
        if let Some((path, file)) = &mut jsonl {
            writeln!(file, "{value}").map_err(|error| Complaint::io("write", path, &error))?;
        }
        if arguments.json {
            println!("{value}");
        }
        sum.take(Line::read(&value).expect("our own lines are read"));
        match arguments.lasts {
            None => bar.inc(1),
            Some(_) => bar.set_position(began.elapsed().as_secs()),
        }
        if sum.failed > 0 {
            bar.set_message(format!("{} failed in {} ways", sum.failed, sum.failures.len()));
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    let wall = began.elapsed().as_secs_f64();
    let verdict = sum.verdict(plan.scenario);
    if arguments.json {
        println!("{}", report::json(&sum, &plan, verdict, wall));
    } else {
        print!("{}", report::text(&sum, &plan, wall));
    }
    Ok(verdict)
}

/// Keeps the bundle of a failure, if it is one of the first with its fingerprint.
fn bundle_of(arguments: &Swarm, sum: &Sum, done: &Done) -> Result<Option<std::path::PathBuf>, Complaint> {
    let Outcome::Failed(failure) = &done.report.outcome else { return Ok(None) };
    // A run that is not the same twice has no record that could be replayed.
    let kept = sum.bundles(&failure.fingerprint().to_string());
    if kept >= arguments.bundles_max || failure.place == seeds::NOT_DETERMINISTIC {
        return Ok(None);
    }
    keep(None, arguments.scenario, &done.config, done.seed, &arguments.bundles).map(Some)
}

/// Lists the marks, or runs a swarm and tells which were reached.
pub(crate) fn marks(arguments: &Marks) -> Result<Verdict, Complaint> {
    let Some(seeds) = arguments.seeds else {
        lists::marks(arguments.json);
        return Ok(Verdict::Passed);
    };
    let plan = Plan {
        scenario: arguments.scenario,
        start: arguments.start,
        until: Until::Seeds(seeds),
        shard: Shard::WHOLE,
        jobs: arguments.jobs,
        overrides: crate::arguments::Overrides::default(),
        check_determinism: false,
    };
    let mut evidence = Evidence::default();
    let bar = bar(&plan, None, 0);
    seeds::each(&plan, 0, |done| {
        evidence.add(&done.report);
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    let missing = plan.scenario.contract().missing(&evidence);
    if arguments.json {
        println!("{}", report::marks_json(&evidence, plan.scenario));
    } else {
        print!("{}", report::marks_text(&evidence, plan.scenario));
    }
    let judged = seeds >= kimberlite_sim::Scenario::SWARM_MIN;
    Ok(if judged && !missing.is_empty() { Verdict::Vacuous } else { Verdict::Passed })
}

/// A progress bar on standard error, if somebody looks.
fn bar(plan: &Plan, lasts: Option<Duration>, first: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (template, length) = match (plan.until, lasts) {
        (Until::Seeds(_), _) => ("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left  {msg}", plan.count()),
        (Until::Time(_), lasts) => {
            ("{bar:40} {pos}/{len} s  {msg}", lasts.map_or(0, |lasts| lasts.as_secs()))
        }
    };
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    let bar = ProgressBar::new(length).with_style(style);
    if lasts.is_none() {
        bar.set_position(first);
        bar.reset_eta();
    }
    bar
}

/// Where a file of a swarm lies.
fn inside(directory: &Path, name: &str) -> std::path::PathBuf {
    directory.join(name)
}
