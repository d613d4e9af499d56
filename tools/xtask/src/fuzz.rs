//! Fuzzing: builds the targets in `fuzz/`, runs each for its share of the time, and says what came of it.
//!
//! The work is libFuzzer's, through `cargo fuzz` and a nightly toolchain. The core has no `unsafe`, so no sanitizer is
//! linked in: without one an execution takes half the time, and what is looked for here is panics.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// Memory of one fuzzer process at most, in MiB. A bundle may unpack to 512.
const MEMORY_MAX_MB: u32 = 2_048;

/// One execution may take so long, in seconds, before it counts as a hang.
const HANG_AFTER_SECS: u32 = 25;

/// Bytes of an input at most: what the bodies read of one.
const INPUT_MAX: u32 = 64 << 10;

/// What is asked of a round of fuzzing.
#[derive(Clone, Debug)]
pub struct FuzzOptions {
    /// Targets by name; empty for all.
    pub targets: Vec<String>,
    /// How long all of it may take, builds aside.
    pub time: Duration,
    /// Fuzzers that run at the same time.
    pub jobs: usize,
}

/// Why nothing was fuzzed. `Display` says what to do.
#[derive(Debug)]
pub enum FuzzError {
    /// A tool is not installed.
    NotInstalled {
        /// Which.
        what: &'static str,
        /// The command that installs it.
        install: &'static str,
    },
    /// There is no target of that name.
    NoTarget {
        /// The name.
        name: String,
        /// Those there are, the nearest first.
        near: Vec<String>,
    },
    /// The targets do not build.
    Build,
    /// A folder or process could not be used.
    Io(PathBuf, io::Error),
}

impl std::fmt::Display for FuzzError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotInstalled { what, install } => write!(f, "{what} is not installed: run `{install}`"),
            Self::NoTarget { name, near } => {
                write!(f, "there is no target `{name}`; there are {}", near.join(", "))
            }
            Self::Build => f.write_str("the fuzz targets do not build; the compiler's messages are above"),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for FuzzError {}

/// What came of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FuzzReport {
    /// Its name.
    pub target: String,
    /// Executions, those of the corpus included.
    pub executions: u64,
    /// Executions in a second, on average.
    pub per_second: u64,
    /// Edges of the program that were covered.
    pub coverage: u64,
    /// Inputs in the corpus at the end that add coverage.
    pub corpus: u64,
    /// Inputs that break it, written in this round.
    pub crashes: Vec<PathBuf>,
    /// Whether the fuzzer ended by itself and with success.
    pub ended_well: bool,
}

impl FuzzReport {
    /// As an object.
    pub fn to_json(&self) -> Value {
        json!({
            "target": self.target,
            "executions": self.executions,
            "per_second": self.per_second,
            "coverage": self.coverage,
            "corpus": self.corpus,
            "crashes": self.crashes,
            "passed": self.passed(),
        })
    }

    /// Whether nothing was found.
    pub fn passed(&self) -> bool {
        self.ended_well && self.crashes.is_empty()
    }
}

/// The reports as a table for people.
pub fn table(reports: &[FuzzReport]) -> String {
    let mut text = format!(
        "{:32} {:>12} {:>9} {:>9} {:>7}  found\n",
        "target", "executions", "per sec", "coverage", "corpus"
    );
    for report in reports {
        let FuzzReport { target, executions, per_second, coverage, corpus, .. } = report;
        let found = match report.crashes.len() {
            0 if report.ended_well => "nothing".to_owned(),
            0 => "the fuzzer failed: see its log".to_owned(),
            count => format!("{count} inputs that break it"),
        };
        writeln!(text, "{target:32} {executions:>12} {per_second:>9} {coverage:>9} {corpus:>7}  {found}")
            .expect("strings grow");
        for crash in &report.crashes {
            let crash = crash.display();
            writeln!(text, "    cargo run -p fuzzing -- run {target} {crash}").expect("strings grow");
        }
    }
    text
}

/// The targets that `fuzz/Cargo.toml` lists.
pub fn targets(root: &Path) -> Result<Vec<String>, FuzzError> {
    let manifest = root.join("fuzz/Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|error| FuzzError::Io(manifest, error))?;
    Ok(bins(&text))
}

/// The names below `[[bin]]` in a manifest.
fn bins(manifest: &str) -> Vec<String> {
    let mut in_bin = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_bin = line == "[[bin]]";
        } else if in_bin && let Some(name) = line.strip_prefix("name = \"") {
            names.extend(name.strip_suffix('"').map(str::to_owned));
        }
    }
    names
}

/// The targets of these names, or all.
fn chosen(all: Vec<String>, wanted: &[String]) -> Result<Vec<String>, FuzzError> {
    let strange = wanted.iter().find(|name| !all.contains(name));
    if let Some(name) = strange {
        let mut near = all;
        // Those that share the longest part with it come first.
        near.sort_by_key(|other| std::cmp::Reverse(shared(name, other)));
        return Err(FuzzError::NoTarget { name: name.clone(), near });
    }
    Ok(if wanted.is_empty() { all } else { wanted.to_vec() })
}

/// How many letters of `a`, in order, are in `b`.
fn shared(a: &str, b: &str) -> usize {
    let mut rest = b.chars();
    a.chars()
        .filter(|letter| rest.clone().any(|other| other == *letter) && rest.any(|other| other == *letter))
        .count()
}

/// A command of the nightly toolchain, whatever toolchain runs this.
fn nightly(root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly"]).current_dir(root);
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "CARGO_MANIFEST_DIR"] {
        command.env_remove(variable);
    }
    command
}

fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Whether what fuzzing needs is installed.
pub fn check_tools(root: &Path) -> Result<(), FuzzError> {
    if !works(nightly(root).args(["rustc", "--version"])) {
        let install = "rustup toolchain install nightly --profile minimal";
        return Err(FuzzError::NotInstalled { what: "a nightly toolchain", install });
    }
    if !works(nightly(root).args(["cargo", "fuzz", "--version"])) {
        let install = "cargo install cargo-fuzz --locked";
        return Err(FuzzError::NotInstalled { what: "cargo-fuzz", install });
    }
    Ok(())
}

/// Builds the targets and fuzzes each.
pub fn fuzz(root: &Path, options: &FuzzOptions) -> Result<Vec<FuzzReport>, FuzzError> {
    let chosen = chosen(targets(root)?, &options.targets)?;
    check_tools(root)?;
    let built = nightly(root).args(["cargo", "fuzz", "build", "--sanitizer", "none"]).status();
    if !built.is_ok_and(|status| status.success()) {
        return Err(FuzzError::Build);
    }
    let jobs = options.jobs.clamp(1, chosen.len());
    // So many turns follow one another; each takes its share of the time, and at least a second.
    let turns = chosen.len().div_ceil(jobs);
    let share = (options.time.as_secs() / turns as u64).max(1);
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(target) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    eprintln!("fuzzing {target} for {share} s");
                    let report = fuzz_one(root, target, share);
                    reports.lock().expect("no thread panics").push(report);
                }
            });
        }
    });
    let mut reports =
        reports.into_inner().expect("no thread panics").into_iter().collect::<Result<Vec<_>, _>>()?;
    reports.sort_by_key(|report| chosen.iter().position(|target| *target == report.target));
    Ok(reports)
}

fn made(folder: PathBuf) -> Result<PathBuf, FuzzError> {
    match fs::create_dir_all(&folder) {
        Ok(()) => Ok(folder),
        Err(error) => Err(FuzzError::Io(folder, error)),
    }
}

fn fuzz_one(root: &Path, target: &str, share: u64) -> Result<FuzzReport, FuzzError> {
    let found = made(root.join("fuzz/corpus").join(target))?;
    let artifacts = made(root.join("fuzz/artifacts").join(target))?;
    let seeds = root.join("seeds/corpus").join(target);
    let before = files(&artifacts);
    let log = artifacts.with_extension("log");
    let output = File::create(&log).map_err(|error| FuzzError::Io(log.clone(), error))?;
    let mut command = nightly(root);
    command.args(["cargo", "fuzz", "run", "--sanitizer", "none", target]).arg(&found);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.arg("--").args([
        format!("-max_total_time={share}"),
        format!("-rss_limit_mb={MEMORY_MAX_MB}"),
        format!("-timeout={HANG_AFTER_SECS}"),
        format!("-max_len={INPUT_MAX}"),
        "-print_final_stats=1".to_owned(),
    ]);
    let errors = output.try_clone().map_err(|error| FuzzError::Io(log.clone(), error))?;
    let status = command.stdin(Stdio::null()).stdout(output).stderr(errors).status();
    let ended_well = status.map_err(|error| FuzzError::Io(PathBuf::from("rustup"), error))?.success();
    let text = fs::read(&log).map_err(|error| FuzzError::Io(log, error))?;
    let mut report = parse(&String::from_utf8_lossy(&text));
    target.clone_into(&mut report.target);
    report.ended_well = ended_well;
    report.crashes = files(&artifacts).into_iter().filter(|file| !before.contains(file)).collect();
    report.crashes =
        report.crashes.iter().map(|file| file.strip_prefix(root).unwrap_or(file).to_owned()).collect();
    Ok(report)
}

/// The files of a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The numbers in a log of libFuzzer's: the last progress line, and the statistics at its end.
fn parse(log: &str) -> FuzzReport {
    let mut report = FuzzReport::default();
    for line in log.lines() {
        if let Some(statistic) = line.strip_prefix("stat::") {
            let (name, value) = statistic.split_once(':').unwrap_or_default();
            let value = value.trim().parse().unwrap_or(0);
            match name {
                "number_of_executed_units" => report.executions = value,
                "average_exec_per_sec" => report.per_second = value,
                _ => {}
            }
            continue;
        }
        // `#4096	pulse  cov: 1406 ft: 3000 corp: 52/3118b lim: 4096 exec/s: 1365 rss: 60Mb`
        let Some(progress) = line.strip_prefix('#') else { continue };
        let words: Vec<&str> = progress.split_whitespace().collect();
        let after = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
        if let Some(coverage) = after("cov:") {
            report.coverage = coverage.parse().unwrap_or(report.coverage);
        }
        if let Some(corpus) = after("corp:").and_then(|corpus| corpus.split('/').next()) {
            report.corpus = corpus.parse().unwrap_or(report.corpus);
        }
    }
    report
}

/// `90`, `90s`, `10m` or `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write 90s, 10m or 2h");
    let (number, unit) = match text.find(|letter: char| !letter.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3_600),
        _ => None,
    };
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_progress_line_and_the_statistics_are_read() {
        let log = "INFO: Seed: 7\n#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                   #4096\tpulse  cov: 1406 ft: 3000 corp: 52/3118b lim: 4096 exec/s: 1365 rss: 60Mb\n\
                   Done 5000 runs in 3 second(s)\nstat::number_of_executed_units: 5000\n\
                   stat::average_exec_per_sec:     1666\nstat::slowest_unit_time_sec: 0\n";
        let report = parse(log);
        assert_eq!(
            (report.executions, report.per_second, report.coverage, report.corpus),
            (5000, 1666, 1406, 52)
        );
        assert_eq!(parse("error: no such target"), FuzzReport::default());
    }

    #[test]
    fn a_round_passes_only_if_the_fuzzer_ended_well_and_wrote_nothing() {
        let good = FuzzReport { ended_well: true, ..FuzzReport::default() };
        assert!(good.passed());
        assert!(!FuzzReport { ended_well: false, ..good.clone() }.passed());
        let found = FuzzReport { crashes: vec!["fuzz/artifacts/frame/crash-1".into()], ..good };
        assert!(!found.passed());
        assert!(table(&[found]).contains("cargo run -p fuzzing -- run"));
    }

    #[test]
    fn targets_are_the_bins_of_the_manifest_and_a_strange_name_lists_the_near_ones_first() {
        let manifest = "[package]\nname = \"fuzz\"\n[[bin]]\nname = \"frame\"\npath = \"a.rs\"\n[[bin]]\nname = \"body\"\n";
        assert_eq!(bins(manifest), ["frame", "body"]);
        let all = || vec!["journal".to_owned(), "frame".to_owned()];
        assert_eq!(chosen(all(), &[]).unwrap(), all());
        assert_eq!(chosen(all(), &["frame".to_owned()]).unwrap(), ["frame"]);
        let Err(FuzzError::NoTarget { near, .. }) = chosen(all(), &["fram".to_owned()]) else {
            panic!("taken")
        };
        assert_eq!(near, ["frame", "journal"]);
    }

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        for (text, seconds) in [("90", 90), ("5s", 5), ("10m", 600), ("2h", 7_200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "0", "m", "1d", "-1s", "99999999999999999999h", "5124095576030432h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
