//! `kmb start --record`: the flight recorder of a node.
//!
//! Each event goes to the file in one write before the node hears of it, and is not synced: what the kernel has, it
//! keeps when the process aborts or is killed. A recording must never harm what it records: at its limit, or when its
//! file cannot be written, it ends with a line in the log, and the node goes on.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use kimberlite_bundle::{Ended, Flight, Gone, Identity, Opening};
use kimberlite_io::{Event, Io, Machine as _};
use kimberlite_runtime::{Node, Note};
use kimberlite_types::{Config, Now};
use serde_json::json;

use crate::Failure;
use crate::log::{Level, Line};

/// The smallest limit: an opening and some events.
const LIMIT_MIN: u64 = 64 << 10;

/// Whether and where a node is recorded.
#[derive(Args, Clone, Debug)]
pub(crate) struct Record {
    /// Record everything the node is told in this new file, for `vopr replay`; it holds clients' data, and no secret
    #[arg(long, value_name = "FILE.kmb")]
    record: Option<PathBuf>,
    /// End the recording at this size; the node goes on
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size, requires = "record")]
    record_limit: u64,
}

/// A size in bytes, such as `1GiB`, `200MiB` or a plain number.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" | "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        "TiB" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= LIMIT_MIN => Ok(bytes),
        Some(_) => Err(format!("a recording takes at least {LIMIT_MIN} bytes")),
        None => Err("a size is a number and a unit: 1GiB, 200MiB, 65536".to_owned()),
    }
}

/// A node's recorder, if it has one.
pub(crate) struct Recorder {
    flight: Option<(Flight<File>, PathBuf)>,
}

impl Recorder {
    /// Begins the recording that was asked for.
    pub(crate) fn begin(
        args: &Record,
        config: Config,
        secret: &[u8; 32],
        seed: u64,
        at: Now,
    ) -> Result<Self, Failure> {
        let Some(path) = &args.record else { return Ok(Self { flight: None }) };
        // Never over an older recording: it may be the only witness of what happened.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::failed(format!(
                "{} exists; a recording begins a new file: name another one or move it away",
                path.display()
            )),
            _ => Failure::on(path, &error),
        })?;
        let opening = Opening { identity: Identity::current(), config, seed, at };
        let flight = Flight::begin(file, &opening, secret, args.record_limit);
        let flight = flight.map_err(|error| Failure::on(path, &error))?;
        Ok(Self { flight: Some((flight, path.clone())) })
    }

    /// Lets `node` handle an event, which is written down first. Answers what there is to tell of the recording.
    pub(crate) fn hand_over(
        &mut self,
        node: &mut Node,
        (now, event): (Now, Event),
        io: &mut dyn Io,
        notes: &mut Vec<Note>,
    ) -> Option<Line> {
        let mut line = None;
        if let Some((flight, path)) = &mut self.flight
            && let Err(gone) = flight.heard(now, &event, || (node.replica().commit(), node.digest().0))
        {
            line = Some(over(path, &gone));
            self.flight = None;
        }
        match &mut self.flight {
            Some((flight, _)) => node.on(now, event, &mut flight.wrap(io), notes),
            None => node.on(now, event, io, notes),
        }
        line
    }

    /// Ends the recording with the node, and makes it durable. Answers what there is to tell.
    pub(crate) fn end(self, why: Ended, node: &Node) -> Option<Line> {
        let (flight, path) = self.flight?;
        let ended = flight.end(why, node.replica().commit(), node.digest().0);
        let result = ended.and_then(|file| file.sync_all().and_then(|()| file.metadata()));
        Some(match result {
            Ok(metadata) => Line::new(
                Level::Info,
                "recorded",
                format!("recorded in {}, {} KiB", path.display(), metadata.len() >> 10),
                json!({ "file": path, "bytes": metadata.len() }),
            ),
            Err(error) => over(&path, &Gone::Failed(error)),
        })
    }
}

/// The line that tells that a recording is over while its node goes on.
fn over(path: &Path, gone: &Gone) -> Line {
    let reason = match gone {
        Gone::Limit(_) => "limit",
        Gone::Failed(_) => "failed",
    };
    let text = format!("the recording in {} has ended: {gone}; the node goes on", path.display());
    Line::new(Level::Warn, "recording_ended", text, json!({ "file": path, "reason": reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_a_floor() {
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("65536"), Ok(65_536));
        assert!(size("1KiB").unwrap_err().contains("at least"));
        for text in ["", "GiB", "1GB", "-1MiB", "99999999999999999999", "9999999999TiB"] {
            assert!(size(text).unwrap_err().contains("1GiB"), "{text}");
        }
    }
}
