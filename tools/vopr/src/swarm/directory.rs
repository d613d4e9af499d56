//! A swarm on disk: it writes each result as it comes, so one that was killed can go on.
//!
//! ```text
//! DIR/swarm.json    which swarm it is, of which build: refused by name if that is another
//! DIR/seeds.jsonl   one line for each seed, in their order; a line that was cut short is dropped
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use kimberlite_sim::Identity;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::inside;
use super::seeds::Plan;
use crate::{Complaint, Verdict};

/// The format of a directory that this build writes and reads.
const FORMAT: u16 = 1;

const HEADER: &str = "swarm.json";
const LINES: &str = "seeds.jsonl";

/// Which swarm it is. How many seeds it has and how many threads may change from one call to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    format: u16,
    scenario: String,
    start: u64,
    shard: String,
    replicas: Option<u8>,
    clients: Option<u16>,
    requests: Option<u32>,
    check_determinism: bool,
    build: Identity,
    /// Of the program's own file: two builds of one commit may differ.
    program: String,
}

/// Only the first field: what other formats have, too.
#[derive(Deserialize)]
struct AnyFormat {
    format: u16,
}

impl Header {
    /// Of the swarm that is asked for now.
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            format: FORMAT,
            scenario: plan.scenario.name().to_owned(),
            start: plan.start,
            shard: plan.shard.to_string(),
            replicas: plan.overrides.replicas,
            clients: plan.overrides.clients,
            requests: plan.overrides.requests,
            check_determinism: plan.check_determinism,
            build: Identity::current(),
            program: program(),
        }
    }

    /// Where another one differs: what, there, here.
    fn differences(&self, other: &Self) -> Vec<(&'static str, String, String)> {
        let pairs = [
            ("scenario", other.scenario.clone(), self.scenario.clone()),
            ("start", other.start.to_string(), self.start.to_string()),
            ("shard", other.shard.clone(), self.shard.clone()),
            ("replicas", drawn(other.replicas), drawn(self.replicas)),
            ("clients", drawn(other.clients), drawn(self.clients)),
            ("requests", drawn(other.requests), drawn(self.requests)),
            ("check of determinism", other.check_determinism.to_string(), self.check_determinism.to_string()),
            ("program", other.program.clone(), self.program.clone()),
        ];
        let mut all: Vec<_> = pairs.into_iter().filter(|(_, there, here)| there != here).collect();
        all.extend(other.build.differences(&self.build));
        all
    }
}

fn drawn<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "drawn".to_owned(), |value| value.to_string())
}

/// The hash of this program's own file.
fn program() -> String {
    std::env::current_exe().and_then(fs::read).map_or_else(
        |_| "unknown".to_owned(),
        |bytes| kimberlite_crypto::checksum(&bytes).to_string()[..16].to_owned(),
    )
}

/// A directory that is being written.
pub(super) struct Directory {
    path: PathBuf,
    lines: File,
}

impl Directory {
    /// Opens a directory, or begins one. Answers the lines that it holds.
    pub(super) fn open(path: &Path, header: &Header) -> Result<(Self, Vec<Value>), Complaint> {
        fs::create_dir_all(path).map_err(|error| Complaint::io("create", path, &error))?;
        let at = inside(path, LINES);
        let lines = OpenOptions::new().read(true).append(true).create(true).open(&at);
        let lines = lines.map_err(|error| Complaint::io("open", &at, &error))?;
        match lines.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("another swarm is writing {}", path.display());
                return Err(Complaint { verdict: Verdict::Usage, text });
            }
            Err(TryLockError::Error(error)) => return Err(Complaint::io("lock", &at, &error)),
        }
        let is_new = check_header(path, header)?;
        let text = fs::read(&at).map_err(|error| Complaint::io("read", &at, &error))?;
        if is_new && !text.is_empty() {
            return Err(unreadable(Some(path), "it has results and no swarm.json"));
        }
        // A line without its end was cut short when the swarm was killed: that seed is run again.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        lines.set_len(whole as u64).map_err(|error| Complaint::io("write", &at, &error))?;
        let mut values = Vec::new();
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let value = serde_json::from_slice(line);
            values.push(value.map_err(|error| unreadable(Some(path), &error.to_string()))?);
        }
        Ok((Self { path: at, lines }, values))
    }

    /// Adds a line.
    pub(super) fn append(&mut self, value: &Value) -> Result<(), Complaint> {
        let line = format!("{value}\n");
        self.lines.write_all(line.as_bytes()).map_err(|error| Complaint::io("write", &self.path, &error))
    }
}

/// Holds the header on disk against the one of this call, or writes it. Answers whether it is new.
fn check_header(path: &Path, header: &Header) -> Result<bool, Complaint> {
    let at = inside(path, HEADER);
    let text = match fs::read(&at) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = serde_json::to_string_pretty(header).expect("a header is JSON");
            // Written beside and renamed, so that a header is whole or not there.
            let beside = inside(path, "swarm.json.new");
            fs::write(&beside, text).map_err(|error| Complaint::io("write", &beside, &error))?;
            fs::rename(&beside, &at).map_err(|error| Complaint::io("write", &at, &error))?;
            return Ok(true);
        }
        Err(error) => return Err(Complaint::io("read", &at, &error)),
    };
    let refuse = |text: String| Complaint { verdict: Verdict::Usage, text };
    match serde_json::from_slice(&text) {
        Ok(AnyFormat { format: FORMAT }) => {}
        Ok(AnyFormat { format }) => {
            let text = format!("{} has format {format}, this program reads {FORMAT}", path.display());
            return Err(refuse(text));
        }
        Err(error) => return Err(unreadable(Some(path), &format!("{HEADER}: {error}"))),
    }
    let there: Header = serde_json::from_slice(&text)
        .map_err(|error| unreadable(Some(path), &format!("{HEADER}: {error}")))?;
    let differences: Vec<String> = header
        .differences(&there)
        .into_iter()
        .map(|(what, there, here)| format!("{what}: {there} there, {here} here"))
        .collect();
    if differences.is_empty() {
        return Ok(false);
    }
    Err(refuse(format!(
        "{} holds another swarm ({}); name another directory, or remove it",
        path.display(),
        differences.join("; ")
    )))
}

/// A directory holds something that no swarm wrote.
pub(super) fn unreadable(path: Option<&Path>, why: &str) -> Complaint {
    let path = path.unwrap_or(Path::new("the directory"));
    Complaint { verdict: Verdict::Io, text: format!("cannot resume from {}: {why}", path.display()) }
}
