//! `kmb verify`: checks the whole log in a data directory, and changes nothing in it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kimberlite_io::Machine as _;
use kimberlite_io_real::{DataDirectory, Driver, Geometry, Options};
use kimberlite_storage::{Finding, HaltReason, Missing, Totals, Verifier, VerifyInput, VerifyOutput};
use serde_json::{Value, json};

use crate::checkers::Checkers;
use crate::checkpoint::{self, Checked};
use crate::log::{self, Level};
use crate::node_file::NodeFile;
use crate::output::{Colour, paint, per_second, say, takes_colour, thousands};
use crate::read::hex;
use crate::walk::Stopped;
use crate::{Failure, files, format};

/// What `kmb verify` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb verify ./data
  kmb verify ./data --json

Walks the log from its first entry to its end: checksums, order, places, times and the hash chain; then all
pages of the checkpoint, from which a restart begins, by their digests. Two
replicas whose head hash is the same at the same op hold the same log, byte for byte. The node must be
stopped; its files are only read. A node that stopped before it had received all of the log is behind, not
damaged. Exit codes: 0 whole, or whole and behind (a warning says so), 1 damaged (the place is named), log or
checkpoint, or refused, 2 wrong usage, 5 I/O error.")]
pub(crate) struct Verify {
    /// The data directory
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How a directory was found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// How much was verified.
    pub totals: Totals,
    /// What is wrong, if anything is.
    pub finding: Option<Finding>,
    /// What was never received, if nothing is wrong with what was.
    pub(crate) missing: Option<Missing>,
    pub(crate) geometry: Geometry,
    /// How long it took, with opening the directory.
    pub elapsed: Duration,
    /// What a person should know beside that.
    pub(crate) warnings: Vec<String>,
    /// The checkpoint, if there is one.
    pub(crate) checkpoint: Option<Checked>,
    /// What is wrong with it, if anything is.
    pub(crate) trouble: Option<String>,
    /// The same as JSON.
    checkpoint_json: Value,
}

/// Runs the command.
pub(crate) fn run(args: &Verify) -> Result<(), Failure> {
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec}, op {msg}");
    bar.set_style(style.expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let verdict = verify(&args.data, |totals| {
        bar.set_position(totals.bytes);
        bar.set_message(thousands(totals.op.0));
    });
    bar.finish_and_clear();
    let verdict = verdict?;
    for warning in &verdict.warnings {
        eprintln!("kmb: {warning}");
    }
    if args.json {
        say(&as_json(&verdict).to_string())?;
    } else {
        say(&as_text(&args.data, &verdict))?;
    }
    match verdict.finding {
        None => verdict.trouble.map_or(Ok(()), |trouble| Err(Failure::failed(trouble))),
        Some(finding) => Err(damage(&args.data, &finding, &verdict.geometry)),
    }
}

/// Verifies the directory of a stopped node. Fails when it cannot be opened; damage is a verdict.
pub fn verify(data: &Path, mut progress: impl FnMut(&Totals)) -> Result<Verdict, Failure> {
    let begun = Instant::now();
    let config = NodeFile::read(data)?.config()?;
    let directory = DataDirectory::open_read_only(data)?;
    let geometry = directory.geometry();
    format::check_geometry(data, geometry, &config)?;
    let mut driver = Driver::open(Options { data: Some(directory), ..Options::default() })?;
    let checkers = Checkers::start(&driver.waker());
    let mut verifier = Verifier::with_helpers(config);
    let mut out = Vec::new();
    let mut warnings: Vec<String> = driver
        .take_notes()
        .iter()
        .map(log::of_driver)
        .filter(|line| line.level >= Level::Warn)
        .map(|line| line.text)
        .collect();
    verifier.on(driver.now(), VerifyInput::Start, &mut driver, &mut out);
    loop {
        for output in out.drain(..) {
            let (totals, finding, missing) = match output {
                VerifyOutput::Progress(totals) => {
                    progress(&totals);
                    continue;
                }
                VerifyOutput::Check(check) => {
                    checkers.run(check);
                    continue;
                }
                VerifyOutput::Whole(totals) => (totals, None, None),
                VerifyOutput::Behind(totals, missing) => (totals, None, Some(missing)),
                VerifyOutput::Broken(totals, finding) => (totals, Some(finding), None),
                VerifyOutput::Refused(reason) => return Err(refusal(reason)),
            };
            warnings.extend(missing.as_ref().map(behind));
            drop(driver);
            let stopped = Stopped::open(data)?;
            let checkpoint = checkpoint::check(&stopped)?;
            let trouble = checkpoint.as_ref().and_then(|checkpoint| checkpoint.trouble(&stopped));
            let checkpoint_json = checkpoint.as_ref().map(|checkpoint| checkpoint.json(totals.op, &stopped));
            return Ok(Verdict {
                totals,
                finding,
                missing,
                geometry,
                elapsed: begun.elapsed(),
                warnings,
                checkpoint,
                trouble,
                checkpoint_json: checkpoint_json.unwrap_or_default(),
            });
        }
        if let Some(checked) = checkers.answer() {
            verifier.on(driver.now(), VerifyInput::Checked(checked), &mut driver, &mut out);
            continue;
        }
        let (now, event) = driver.next(verifier.wake_at())?;
        verifier.on(now, VerifyInput::Event(event), &mut driver, &mut out);
    }
}

fn refusal(reason: HaltReason) -> Failure {
    Failure::failed(reason.to_string())
}

fn behind(missing: &Missing) -> String {
    let Missing { first, last, ops } = missing;
    let (ops, is) = (thousands(*ops), if *ops == 1 { "op of the log was" } else { "ops of the log were" });
    format!("{ops} {is} not received yet, of {first} to {last}; a running replica fetches them from a peer")
}

pub(crate) fn damage(data: &Path, finding: &Finding, geometry: &Geometry) -> Failure {
    let Finding { place, op, what } = finding;
    let file = files::locate(*place, geometry);
    Failure::failed(format!("op {op} at {}, byte {}: {what}", data.join(&file.name).display(), file.offset))
}

fn as_text(data: &Path, verdict: &Verdict) -> String {
    let Verdict { totals, finding, missing, elapsed, .. } = verdict;
    let colour = takes_colour();
    let word = match (finding, missing) {
        (None, _) if verdict.trouble.is_some() => {
            paint("whole, but its checkpoint is damaged", Colour::Red, colour)
        }
        (None, None) => paint("whole", Colour::Green, colour),
        (None, Some(_)) => paint("whole, but behind", Colour::Yellow, colour),
        (Some(_), _) => paint("damaged", Colour::Red, colour),
    };
    let seconds = elapsed.as_secs_f64();
    let rate = per_second(totals.bytes, *elapsed) / 1_000_000;
    format!(
        "{}: {word}\n  verified   {} ops, {} entries, {} bytes in {seconds:.2} s ({rate} MB/s)\n  head       \
         op {}, checksum {}\n  head hash  {}\n  checkpoint {}",
        data.display(),
        thousands(totals.op.0),
        thousands(totals.entries),
        thousands(totals.bytes),
        totals.op,
        hex(totals.checksum.as_bytes()),
        hex(totals.chain.as_bytes()),
        verdict.checkpoint.as_ref().map_or("none".to_owned(), |checkpoint| checkpoint.text(totals.op)),
    )
}

pub(crate) fn as_json(verdict: &Verdict) -> Value {
    let Verdict { totals, finding, missing, geometry, elapsed, warnings, checkpoint_json, .. } = verdict;
    let finding = finding.map(|finding| {
        let file = files::locate(finding.place, geometry);
        json!({ "op": finding.op, "file": file.name, "offset": file.offset, "what": finding.what.to_string() })
    });
    json!({
        "whole": finding.is_none() && missing.is_none(), "ops": totals.op, "entries": totals.entries, "bytes": totals.bytes,
        "seconds": elapsed.as_secs_f64(), "checksum": hex(totals.checksum.as_bytes()),
        "head_hash": hex(totals.chain.as_bytes()), "damage": finding, "checkpoint": checkpoint_json,
        "not_received": missing.map_or(0, |missing| missing.ops), "warnings": warnings,
    })
}
