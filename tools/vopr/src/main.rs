//! `vopr`: seeded simulation of whole clusters on the command line.
//!
//! | module | holds |
//! |---|---|
//! | `arguments` | what can be asked |
//! | `crash_at` | power cuts at every ask of short stories |
//! | `one` | `run` |
//! | `bundles` | `replay`, `show` and `minimize` of simulated failures |
//! | `flights` | `replay` and `show` of recordings of nodes |
//! | `power` | how fast planted bugs are found, in a build that holds them |
//! | `processor` | time on a processor |
//! | `swarm` | many seeds on several threads |
//! | `timeline` | what happens, line by line |
//! | `told` | reports for people and machines |
//! | `lists` | what there is: scenarios, rules and marks |
#![forbid(unsafe_code)]

mod arguments;
mod bundles;
#[cfg(feature = "mutants")]
mod campaign;
mod crash_at;
mod flights;
mod lists;
mod one;
mod power;
mod processor;
mod swarm;
mod timeline;
mod told;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser as _;

/// What a call came to: the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Everything passed.
    Passed = 0,
    /// A failure was found.
    Failed = 1,
    /// The call made no sense. Also what the parser of arguments exits with.
    Usage = 2,
    /// The runs showed nothing: too little happened in them.
    Vacuous = 3,
    /// No run failed, and none passed.
    Excused = 4,
    /// A file could not be read or written.
    Io = 5,
}

/// Why a call came to nothing.
#[derive(Debug)]
struct Complaint {
    verdict: Verdict,
    text: String,
}

impl Complaint {
    fn io(what: &str, path: &std::path::Path, error: &impl std::fmt::Display) -> Self {
        Self { verdict: Verdict::Io, text: format!("cannot {what} {}: {error}", path.display()) }
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(run) => one::run(&run),
        Command::Replay(replay) => bundles::replay(&replay),
        Command::Show(show) => bundles::show(&show),
        Command::Minimize(minimize) => bundles::minimize(&minimize),
        Command::Swarm(swarm) => swarm::swarm(&swarm),
        Command::CrashAt(crash_at) => crash_at::run(&crash_at),
        Command::Marks(marks) => swarm::marks(&marks),
        Command::Power(power) => power::power(&power),
        Command::Scenarios(list) => Ok(lists::scenarios(&list)),
        Command::Invariants(list) => Ok(lists::invariants(&list)),
    };
    let verdict = result.unwrap_or_else(|complaint| {
        eprintln!("error: {}", complaint.text);
        complaint.verdict
    });
    ExitCode::from(verdict as u8)
}
