//! What can be asked on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use kimberlite_probe::Mutant;
use kimberlite_sim::Scenario;

use crate::crash_at::CrashAt;
use crate::swarm::Shard;

const CODES: &str = "Exit codes: 0 passed, 1 a failure was found, 2 usage, 3 vacuous (too little happened), \
                     4 excused runs only, 5 a file could not be read or written.";

/// Names of similar spelling that are shown at most.
const NEAR_MAX: usize = 6;

/// Seeded simulation of whole Kimberlite clusters.
#[derive(Debug, Parser)]
#[command(name = "vopr", version, about, after_help = CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one seed and tell everything about it
    #[command(after_help = "Example: vopr run storage --seed 42")]
    Run(Run),
    /// Run many seeds, group their failures, keep a bundle of each
    #[command(after_help = "Example: vopr swarm default --seeds 1000 --jobs 4 --bundles failures\n\n\
        vopr swarm --for 10m --resume nightly\n\
        vopr swarm --seeds 100000 --shard 2/8 --jsonl part-2.jsonl")]
    Swarm(Swarm),
    /// Run a bundle again and compare: a simulated failure, or the recording of a node
    #[command(after_help = "Example: vopr replay failures/default-42.kmb\n\n\
                            A failure that happens again exits with 1. A recording that is lived again exactly exits \
                            with 0, one that is not with 1.")]
    Replay(Replay),
    /// Cut the power at every ask of short stories, and see what is left
    #[command(after_help = "Example: vopr crash-at restart --replicas 3")]
    CrashAt(CrashAt),
    /// Tell what is in a bundle
    #[command(after_help = "Example: vopr show failures/default-42.kmb --faults 500")]
    Show(Show),
    /// Make a simulated failure smaller: fewer faults, requests, clients, replicas, events
    #[command(after_help = "Example: vopr minimize failures/default-42.kmb -o small.kmb --for 5m")]
    Minimize(Minimize),
    /// Measure how fast planted bugs are found
    #[command(
        after_help = "Example: vopr power --mutant corrupt-nacked --mutant ack-before-durable --campaigns 5"
    )]
    Power(Power),
    /// List the scenarios
    #[command(after_help = "Example: vopr scenarios --json")]
    Scenarios(List),
    /// List the rules that every run is held against
    #[command(after_help = "Example: vopr invariants")]
    Invariants(List),
    /// List the marks in the code, or run a swarm and tell which were reached, those never reached first
    #[command(after_help = "Example: vopr marks default --seeds 500")]
    Marks(Marks),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The scenario
    #[arg(default_value = "default", value_parser = scenario)]
    pub(crate) scenario: Scenario,
    /// The seed
    #[arg(long)]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Tell what happens on standard error, line by line
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Switch on a planted bug, in a build that holds them: see `vopr power --list`
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    pub(crate) mutant: Option<Mutant>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// Where the bundle of a failure is written
    #[arg(long, value_name = "DIR", default_value = "vopr-failures")]
    pub(crate) bundles: PathBuf,
}

/// Parts of the drawn configuration that are set by hand.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Overrides {
    /// Replicas, 1 to 6, instead of the number drawn
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=6))]
    pub(crate) replicas: Option<u8>,
    /// Clients, 1 to 16, instead of the number drawn
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) clients: Option<u16>,
    /// Requests of all clients together, instead of the number drawn
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) requests: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Swarm {
    /// The scenario
    #[arg(default_value = "default", value_parser = scenario)]
    pub(crate) scenario: Scenario,
    /// How many seeds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// Instead of a number of seeds, how long to begin new ones: 90s, 10m, 8h
    #[arg(long = "for", value_name = "TIME", value_parser = duration, conflicts_with = "seeds")]
    pub(crate) lasts: Option<Duration>,
    /// Run only every n-th seed, from the i-th on: all shards from 1/n to n/n together run each seed once
    #[arg(long, value_name = "i/n", default_value_t = Shard::WHOLE)]
    pub(crate) shard: Shard,
    /// Write results to this directory as they come; if it holds results of this very swarm, go on behind them
    #[arg(long, value_name = "DIR")]
    pub(crate) resume: Option<PathBuf>,
    /// Write one JSON line for each seed, in the order of the seeds, to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) jsonl: Option<PathBuf>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub(crate) start: u64,
    /// Threads, each with one world at a time; as many as there are processors unless given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
    /// Print one JSON line for each seed, in the order of the seeds, and one for the whole
    #[arg(long)]
    pub(crate) json: bool,
    /// Where bundles of failures are written
    #[arg(long, value_name = "DIR", default_value = "vopr-failures")]
    pub(crate) bundles: PathBuf,
    /// Bundles written for each fingerprint at most
    #[arg(long, default_value_t = 3)]
    pub(crate) bundles_max: usize,
    /// Run every tenth seed twice and compare the digests
    #[arg(long)]
    pub(crate) check_determinism: bool,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
}

#[derive(Debug, Args)]
pub(crate) struct Marks {
    /// The scenario
    #[arg(default_value = "default", value_parser = scenario)]
    pub(crate) scenario: Scenario,
    /// Run so many seeds and count; without it the marks are only listed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub(crate) start: u64,
    /// Threads, each with one world at a time; as many as there are processors unless given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The bundle
    pub(crate) file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The bundle
    pub(crate) file: PathBuf,
    /// Print one JSON object, with all faults
    #[arg(long)]
    pub(crate) json: bool,
    /// Faults told one by one, the latest
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(crate) faults: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Minimize {
    /// The bundle of a simulated failure
    pub(crate) file: PathBuf,
    /// Where the smaller bundle is written [default: beside FILE, ending in .min.kmb]
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,
    /// How long to try at most: a number and `s`, `m` or `h`
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) limit: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Power {
    /// A planted bug to look for; all of them unless given. May be given several times
    #[arg(long = "mutant", value_name = "NAME", value_parser = mutant)]
    pub(crate) mutants: Vec<Mutant>,
    /// Seeds after which a campaign gives up
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seeds: u64,
    /// Campaigns for each planted bug, each with seeds of its own
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) campaigns: u64,
    /// The first seed of the first campaign
    #[arg(long, default_value_t = 0)]
    pub(crate) start: u64,
    /// The scenario
    #[arg(long, default_value = "default", value_parser = scenario)]
    pub(crate) scenario: Scenario,
    /// Threads, each with one world at a time; as many as there are processors unless given
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: Option<u16>,
    /// List the planted bugs, where they sit and what they do, and run nothing
    #[arg(long)]
    pub(crate) list: bool,
    /// Print one JSON line for each planted bug, and one for the whole
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time in words, such as `90s` or `10m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => 0,
    };
    match digits.parse::<u32>() {
        Ok(number) if unit > 0 && number > 0 => Ok(Duration::from_secs(u64::from(number) * unit)),
        _ => Err("a time is a number and a unit: 90s, 10m, 2h".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A scenario by name; an unknown one is answered with those of similar names.
fn scenario(name: &str) -> Result<Scenario, String> {
    let names = Scenario::ALL.map(Scenario::name);
    Scenario::named(name)
        .ok_or_else(|| format!("no such scenario; near: {}", nearest(name, &names).join(", ")))
}

/// The names that are near to a misspelt one; all, by nearness, when none is.
pub(crate) fn nearest<'a>(name: &str, names: &[&'a str]) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = names.iter().map(|known| (distance(name, known), *known)).collect();
    near.sort_unstable();
    let close: Vec<&str> =
        near.iter().filter(|(far, known)| *far <= 1 + known.len() / 2).map(|(_, name)| *name).collect();
    if close.is_empty() { near.into_iter().map(|(_, name)| name).collect() } else { close }
}

/// A planted bug by name; an unknown one is answered with those of similar names.
fn mutant(name: &str) -> Result<Mutant, String> {
    let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
    Mutant::named(name).ok_or_else(|| {
        let near = nearest(name, &names);
        let shown = near.len().min(NEAR_MAX);
        format!("no such planted bug; near: {}; all of them: vopr power --list", near[..shown].join(", "))
    })
}

/// Letters to insert, remove or change to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (at, other) in to.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = change.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_misspelt_scenario_is_answered_with_its_neighbours() {
        assert_eq!(scenario("storage"), Ok(Scenario::Storage));
        assert!(scenario("storge").unwrap_err().contains("near: storage"));
        assert!(scenario("crash").unwrap_err().contains("crashes"));
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert!(
            ["", "s", "0s", "5 parsecs", "-1s", "99999999999s"].iter().all(|text| duration(text).is_err())
        );
    }

    #[test]
    fn a_misspelt_mutant_is_answered_with_its_neighbours() {
        assert_eq!(mutant("corrupt-nacked"), Ok(Mutant::CorruptNacked));
        assert!(mutant("corupt-nack").unwrap_err().contains("near: corrupt-nacked"));
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example: vopr "), "{}", command.get_name());
        }
    }
}
