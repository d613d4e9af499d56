//! `cargo xtask`: the command line over the library.
//!
//! Exit codes: 0 clean, 1 violations or inputs that break a target were found, 2 wrong usage, a missing tool or a tree
//! that cannot be read.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use xtask::fuzz::{self, FuzzOptions, FuzzReport};
use xtask::{LoadError, LongFile, Violation, Workspace, find_root, rules::length, tidy};

/// Repository chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Hold the tree against its own rules. Exits with 0 if clean, 1 if not, 2 if it could not look.
    Tidy(TidyArguments),
    /// Fuzz the targets of `fuzz/`. Exits with 0 if nothing was found, 1 if something was, 2 if it could not start.
    #[command(after_help = FUZZ_HELP)]
    Fuzz(FuzzArguments),
    /// Run sqllogictest files against the query layer: `cargo xtask slt [--miss-every-page] PATH…`.
    #[command(disable_help_flag = true)]
    Slt {
        /// Passed on to the runner; `--help` lists its options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

const FUZZ_HELP: &str = "\
Examples:
  cargo xtask fuzz --for 10m --jobs 2      all targets, each for its share
  cargo xtask fuzz frame superblock --for 1m

It starts from seeds/corpus, and keeps what adds coverage in fuzz/corpus and what breaks a target in fuzz/artifacts;
both are yours alone. `cargo run -p fuzzing -- run TARGET FILE` repeats a crash on the stable toolchain.";

#[derive(Args)]
struct FuzzArguments {
    /// Targets; all, if none is named.
    targets: Vec<String>,
    /// How long all of it takes, builds aside: 90s, 10m, 2h.
    #[arg(long = "for", value_name = "TIME", default_value = "5m", value_parser = fuzz::duration)]
    time: Duration,
    /// Fuzzers that run at the same time.
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: usize,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TidyArguments {
    /// Also list the files that have grown long; they are no violation.
    #[arg(long)]
    report: bool,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Look at the workspace at or above this folder, instead of this one.
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
}

fn main() -> ExitCode {
    match Arguments::parse().chore {
        Chore::Tidy(arguments) => run_tidy(&arguments),
        Chore::Fuzz(arguments) => run_fuzz(arguments),
        Chore::Slt { arguments } => run_slt(&arguments),
    }
}

/// The runner is a program of its own, so that the tidy rules build without the query layer.
fn run_slt(arguments: &[String]) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "slt", "--"])
        .args(arguments)
        .status();
    match status {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2)),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_fuzz(arguments: FuzzArguments) -> ExitCode {
    let FuzzArguments { targets, time, jobs, json } = arguments;
    let reports = root(None).map_err(|error| error.to_string()).and_then(|root| {
        fuzz::fuzz(&root, &FuzzOptions { targets, time, jobs }).map_err(|error| error.to_string())
    });
    let reports = match reports {
        Ok(reports) => reports,
        Err(error) => {
            eprintln!("xtask: {error}");
            return ExitCode::from(2);
        }
    };
    let passed = reports.iter().all(FuzzReport::passed);
    let text = if json {
        let reports: Vec<_> = reports.iter().map(FuzzReport::to_json).collect();
        format!("{:#}\n", json!({ "passed": passed, "targets": reports }))
    } else {
        fuzz::table(&reports)
    };
    let _gone = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(!passed))
}

fn run_tidy(arguments: &TidyArguments) -> ExitCode {
    let workspace = match load(arguments.root.as_ref()) {
        Ok(workspace) => workspace,
        Err(error) => {
            eprintln!("xtask: {error}");
            return ExitCode::from(2);
        }
    };
    let violations = tidy(&workspace);
    let long = if arguments.report { Some(length::report(&workspace.texts)) } else { None };
    let text = if arguments.json {
        as_json(&violations, long.as_deref())
    } else {
        as_lines(&violations, long.as_deref(), workspace.paths.len())
    };
    // A reader that went away (`| head`) is no reason to change the verdict.
    let _gone = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(!violations.is_empty()))
}

fn load(given: Option<&PathBuf>) -> Result<Workspace, LoadError> {
    Workspace::load(&root(given)?)
}

/// Cargo names this package's folder when it starts us; by hand, the current folder is meant.
fn root(root: Option<&PathBuf>) -> Result<PathBuf, LoadError> {
    let start = match root {
        Some(root) => root.clone(),
        None => std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from),
    };
    let start = start.canonicalize().map_err(|error| LoadError::Read(start, error))?;
    find_root(&start)
}

fn as_json(violations: &[Violation], long: Option<&[LongFile]>) -> String {
    let mut answer = json!({
        "clean": violations.is_empty(),
        "violations": violations.iter().map(Violation::to_json).collect::<Vec<_>>(),
    });
    if let Some(long) = long {
        answer["long_files"] =
            long.iter().map(|file| json!({ "file": file.file, "lines": file.lines })).collect();
    }
    format!("{answer:#}\n")
}

fn as_lines(violations: &[Violation], long: Option<&[LongFile]>, files: usize) -> String {
    let mut lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    if let Some(long) = long {
        lines.push(format!("{} files of more than {} lines", long.len(), length::LINES_MAX));
        lines.extend(long.iter().map(|file| format!("{:>7} {}", file.lines, file.file)));
    }
    lines.push(match violations.len() {
        0 => format!("tidy: {files} files, clean"),
        1 => format!("tidy: {files} files, 1 violation"),
        count => format!("tidy: {files} files, {count} violations"),
    });
    lines.join("\n") + "\n"
}
