//! Power cuts at every ask of short stories.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use kimberlite_sim::{
    CrashPoint, Failure, Fingerprint, Keep, Outage, Outcome, Report, Story, asks_of, crash_at, crash_points,
};
use kimberlite_types::ReplicaId;
use serde_json::{Value, json};

use crate::arguments::nearest;
use crate::{Complaint, Verdict};

/// Failures told in full for each fingerprint.
const TOLD_MAX: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct CrashAt {
    /// The story: append, view-change, restart, repair or rollover; all of them unless one is named
    #[arg(value_parser = story)]
    story: Option<Story>,
    /// How many replicas live it
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=6))]
    replicas: u8,
    /// Cut the power at asks of this replica only
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=5))]
    replica: Option<u8>,
    /// Cut the power at this ask only, counted from 1
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    ask: Option<u64>,
    /// Try only this of what a power cut can leave of the writes in flight
    #[arg(long)]
    keep: Option<Left>,
    /// Let only the asking replica lose power, or only all together
    #[arg(long)]
    outage: Option<Extent>,
    /// Try every so-manieth power cut only
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    stride: u32,
    /// Threads; as many as there are processors unless given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Print one JSON line for each power cut that failed, and one for each story
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Left {
    Nothing,
    Everything,
    Half,
}

impl Left {
    const fn keep(self) -> Keep {
        match self {
            Self::Nothing => Keep::Nothing,
            Self::Everything => Keep::Everything,
            Self::Half => Keep::Half,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Extent {
    One,
    All,
}

impl Extent {
    const fn outage(self) -> Outage {
        match self {
            Self::One => Outage::One,
            Self::All => Outage::All,
        }
    }
}

/// A story by name; an unknown one is answered with those of similar names.
fn story(name: &str) -> Result<Story, String> {
    let names = Story::ALL.map(Story::name);
    Story::named(name).ok_or_else(|| format!("no such story; near: {}", nearest(name, &names).join(", ")))
}

/// What the power cuts of one story came to.
struct Told {
    story: Story,
    asked: Vec<u64>,
    run: usize,
    failed: Vec<(CrashPoint, Failure)>,
    seconds: f64,
}

/// Cuts the power everywhere that was asked for.
pub(crate) fn run(arguments: &CrashAt) -> Result<Verdict, Complaint> {
    let usage = |text: String| Complaint { verdict: Verdict::Usage, text };
    if let Some(story) = arguments.story
        && !story.fits(arguments.replicas)
    {
        return Err(usage(format!("the story {} needs more than one replica", story.name())));
    }
    if arguments.replica.is_some_and(|replica| replica >= arguments.replicas) {
        return Err(usage(format!(
            "replicas are counted from 0: the last of them is {}",
            arguments.replicas - 1
        )));
    }
    let stories = Story::ALL.into_iter().filter(|story| arguments.story.is_none_or(|only| only == *story));
    let mut verdict = Verdict::Vacuous;
    for story in stories.filter(|story| story.fits(arguments.replicas)) {
        let told = tell(arguments, story)?;
        verdict = match (told.failed.is_empty(), told.run, verdict) {
            (false, ..) | (.., Verdict::Failed) => Verdict::Failed,
            (true, 0, before) => before,
            (true, ..) => Verdict::Passed,
        };
        told.print(arguments);
    }
    if verdict == Verdict::Vacuous {
        return Err(Complaint { verdict, text: "there is no such ask: the story has fewer".to_owned() });
    }
    Ok(verdict)
}

fn tell(arguments: &CrashAt, story: Story) -> Result<Told, Complaint> {
    let began = Instant::now();
    let asked = asks_of(story, arguments.replicas).map_err(|failure| Complaint {
        verdict: Verdict::Failed,
        text: format!("the story {} fails without any power cut: {failure}", story.name()),
    })?;
    let points: Vec<CrashPoint> = crash_points(story, arguments.replicas, &asked)
        .into_iter()
        .filter(|point| arguments.replica.is_none_or(|replica| point.replica == ReplicaId(replica)))
        .filter(|point| arguments.ask.is_none_or(|ask| point.ask == ask))
        .filter(|point| arguments.keep.is_none_or(|left| point.keep == left.keep()))
        .filter(|point| arguments.outage.is_none_or(|extent| point.outage == extent.outage()))
        .step_by(arguments.stride as usize)
        .collect();
    let bar = bar(story, points.len());
    let mut failed = BTreeMap::new();
    each_point(arguments, &points, |index, report| {
        bar.inc(1);
        let failure = match report.outcome {
            Outcome::Passed => return,
            Outcome::Failed(failure) => failure,
            Outcome::Excused(why) => panic!("a story breaks nothing that would excuse it: {why}"),
        };
        failed.insert(index, (points[index], failure));
        bar.set_message(format!("{} failed", failed.len()));
    });
    bar.finish_and_clear();
    let failed = failed.into_values().collect();
    Ok(Told { story, asked, run: points.len(), failed, seconds: began.elapsed().as_secs_f64() })
}

/// Runs all points on several threads; their order does not matter.
fn each_point(arguments: &CrashAt, points: &[CrashPoint], mut take: impl FnMut(usize, Report)) {
    let jobs =
        arguments.jobs.map_or_else(|| thread::available_parallelism().map_or(1, Into::into), usize::from);
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::sync_channel(4 * jobs);
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(point) = points.get(index) else { return };
                    if sender.send((index, crash_at(point))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (index, report) in receiver {
            take(index, report);
        }
    });
}

/// A progress bar on standard error, if somebody looks.
fn bar(story: Story, points: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{prefix:<12}{bar:40} {pos}/{len} power cuts, {per_sec}, {eta} left  {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    ProgressBar::new(points as u64).with_style(style).with_prefix(story.name())
}

impl Told {
    fn print(&self, arguments: &CrashAt) {
        if arguments.json {
            self.print_json(arguments.replicas);
            return;
        }
        let Self { story, asked, run, failed, seconds } = self;
        println!(
            "{:<12} {} replicas, asks {asked:?}: {run} power cuts, {} failed, {seconds:.1} s",
            story.name(),
            arguments.replicas,
            failed.len()
        );
        let mut groups: BTreeMap<Fingerprint, Vec<&(CrashPoint, Failure)>> = BTreeMap::new();
        for failure in failed {
            groups.entry(failure.1.fingerprint()).or_default().push(failure);
        }
        for (fingerprint, group) in groups {
            println!("  {fingerprint}: {} power cuts; {}", group.len(), group[0].1);
            for (point, _) in group.iter().take(TOLD_MAX) {
                println!("    {point}");
            }
        }
    }

    fn print_json(&self, replicas: u8) {
        for (point, failure) in &self.failed {
            let mut line = json_of(point);
            line["fingerprint"] = json!(failure.fingerprint().to_string());
            line["failure"] = json!(failure.to_string());
            println!("{line}");
        }
        let Self { story, asked, run, failed, seconds } = self;
        println!(
            "{}",
            json!({
                "story": story.name(),
                "replicas": replicas,
                "asked": asked,
                "power_cuts": run,
                "failed": failed.len(),
                "wall_seconds": seconds,
            })
        );
    }
}

fn json_of(point: &CrashPoint) -> Value {
    json!({
        "story": point.story.name(),
        "replicas": point.replicas,
        "replica": point.replica,
        "ask": point.ask,
        "keep": CrashPoint::keep_name(point.keep),
        "outage": point.outage,
        "again": point.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_story_is_answered_with_its_neighbours() {
        assert_eq!(story("rollover"), Ok(Story::Rollover));
        assert!(story("restrt").unwrap_err().contains("near: restart"));
    }
}
