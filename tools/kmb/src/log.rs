//! What a node has to tell, as lines for people or for programs.

use std::fmt;
use std::io::{self, Write as _};

use clap::ValueEnum;
use kimberlite_io_real::{DriverNote, Geometry};
use kimberlite_runtime::Note;
use kimberlite_storage::Damage;
use kimberlite_types::{Op, ReplicaId};
use serde_json::{Map, Value, json};

use crate::files;
use crate::output::{Colour, now, paint, takes_colour};

/// How a node's log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people
    Human,
    /// One JSON object per line
    Json,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Every step; shown when asked for.
    Detail,
    /// The course of things.
    Info,
    /// Something is wrong and is being dealt with.
    Warn,
    /// Something is wrong and stays so.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Detail => "detail",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Self::Detail => Colour::Grey,
            Self::Info => Colour::Green,
            Self::Warn => Colour::Yellow,
            Self::Error => Colour::Red,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) level: Level,
    /// The name of the kind of line, for programs.
    pub(crate) event: &'static str,
    pub(crate) text: String,
    /// A JSON object.
    pub(crate) fields: Value,
}

impl Line {
    pub(crate) fn new(level: Level, event: &'static str, text: impl Into<String>, fields: Value) -> Self {
        Self { level, event, text: text.into(), fields }
    }
}

/// Writes lines to standard output. A reader that goes away does not stop the node.
#[derive(Debug)]
pub(crate) struct Log {
    format: Format,
    least: Level,
    replica: ReplicaId,
    colour: bool,
}

impl Log {
    pub(crate) fn new(format: Format, verbose: bool, replica: ReplicaId) -> Self {
        let least = if verbose { Level::Detail } else { Level::Info };
        Self { format, least, replica, colour: format == Format::Human && takes_colour() }
    }

    pub(crate) fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Whether a note becomes a line. Every op makes two notes that nobody is told unless every step is asked for,
    /// and making their lines takes longer than executing the op.
    pub(crate) fn tells(&self, note: &Note) -> bool {
        self.least <= Level::Detail || !matches!(note, Note::Committed { .. } | Note::Durable { .. })
    }

    pub(crate) fn write(&self, line: &Line) {
        if line.level < self.least {
            return;
        }
        let text = match self.format {
            Format::Human => {
                let time = now();
                let time = paint(&time[11..time.len() - 1], Colour::Grey, self.colour);
                let level = paint(&format!("{:5}", line.level.name()), line.level.colour(), self.colour);
                format!("{time} {level} replica {}: {}\n", self.replica, line.text)
            }
            Format::Json => {
                let mut object = Map::new();
                object.insert("time".into(), json!(now()));
                object.insert("level".into(), json!(line.level.name()));
                object.insert("replica".into(), json!(self.replica));
                object.insert("event".into(), json!(line.event));
                object.insert("text".into(), json!(line.text));
                if let Value::Object(fields) = &line.fields {
                    object.extend(fields.clone());
                }
                format!("{}\n", Value::Object(object))
            }
        };
        // Whoever read the log is gone, or its disk is full: neither is a reason to stop serving.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }
}

/// What a damaged part is called.
pub(crate) fn damage_name(damage: Damage) -> &'static str {
    match damage {
        Damage::Superblock => "copy of the superblock",
        Damage::RingSlot => "slot of the header ring",
        Damage::Prepare => "prepare",
        Damage::Footer => "segment footer",
        Damage::Page => "page of a checkpoint",
    }
}

/// The line of a node's note.
pub(crate) fn of_note(note: &Note, geometry: &Geometry) -> Line {
    let file = |place| files::locate(place, geometry);
    match note {
        Note::Opened { view, log_view, tail, commit, head_certain, doubt_until } => {
            let op = tail.last().map_or(Op::ZERO, |(header, _)| header.op);
            let uncertain = if *head_certain { "" } else { "; the end of its log is uncertain" };
            Line::new(
                Level::Info,
                "opened",
                format!("journal open: op {op}, of which {commit} committed, view {view}{uncertain}"),
                json!({ "view": view, "log_view": log_view, "op": op, "commit": commit,
                        "head_certain": head_certain, "doubt_until": doubt_until }),
            )
        }
        Note::Restored { op, .. } => Line::new(
            Level::Info,
            "restored",
            format!("state as of op {op}, from its checkpoint"),
            json!({ "op": op }),
        ),
        Note::Rebuilds { op, why } => Line::new(
            Level::Warn,
            "rebuilds",
            format!("the checkpoint is lost (op {op}): {why}; the state is made anew from the log"),
            json!({ "op": op, "why": why.to_string() }),
        ),
        Note::Checkpoint { op, digest } => Line::new(
            Level::Detail,
            "checkpoint",
            format!("the checkpoint of op {op} is durable"),
            json!({ "op": op, "digest": digest.to_string() }),
        ),
        Note::Consensus(note) => of_consensus(note),
        Note::Committed { prepare, applied, .. } => {
            let (op, entries) = (applied.op, applied.verdicts.len());
            Line::new(
                Level::Detail,
                "committed",
                format!("committed op {op}: {entries} entries, {} bytes", prepare.header.size),
                json!({ "op": op, "entries": entries, "bytes": prepare.header.size }),
            )
        }
        Note::Durable { op, .. } => {
            Line::new(Level::Detail, "durable", format!("op {op} is durable here"), json!({ "op": op }))
        }
        Note::Sealed { segment } => Line::new(
            Level::Info,
            "sealed",
            format!("segment {segment} is sealed"),
            json!({ "segment": segment }),
        ),
        Note::Repaired { op, place } => {
            let file = file(*place);
            Line::new(
                Level::Info,
                "repaired",
                format!("repaired: op {op} is written again at {file}"),
                json!({ "op": op, "file": file.name, "offset": file.offset }),
            )
        }
        Note::PageMended { place } => {
            let file = file(*place);
            Line::new(
                Level::Info,
                "page_mended",
                format!("repaired: a page of tables that a peer gave is written again at {file}"),
                json!({ "file": file.name, "offset": file.offset }),
            )
        }
        Note::Damaged { place, what, op } => {
            let file = file(*place);
            let of = op.map(|op| format!(" of op {op}")).unwrap_or_default();
            Line::new(
                Level::Warn,
                "damaged",
                format!("damaged {}{of} at {file}", damage_name(*what)),
                json!({ "what": damage_name(*what), "op": op, "file": file.name, "offset": file.offset }),
            )
        }
        Note::Full => Line::new(
            Level::Error,
            "full",
            "the disk is full; appends wait until there is room, reads go on",
            json!({}),
        ),
        Note::Room => Line::new(Level::Info, "room", "the disk has room again", json!({})),
        Note::ClientMalformed { conn: _, why } => Line::new(
            Level::Warn,
            "client_malformed",
            format!("a client was disconnected: what it sent is {}", why.reason()),
            json!({ "why": why.reason() }),
        ),
        Note::Halted(reason) => Line::new(
            Level::Error,
            "halted",
            format!("halted: {reason}"),
            json!({ "why": reason.to_string() }),
        ),
    }
}

fn of_consensus(note: &kimberlite_vsr::Note) -> Line {
    use kimberlite_vsr::Note;
    match note {
        Note::View { view, log_view, status, primary } => Line::new(
            Level::Info,
            "view",
            format!("view {view}, {}; its primary is replica {primary}", status.name()),
            json!({ "view": view, "log_view": log_view, "status": status.name(), "primary": primary }),
        ),
        Note::Repaired { op, from } => Line::new(
            Level::Info,
            "fetched",
            format!("op {op} was missing or damaged and came from replica {from}"),
            json!({ "op": op, "from": from }),
        ),
        Note::Malformed { from, why } => Line::new(
            Level::Warn,
            "malformed",
            format!("dropped a message that claims to be from replica {from}: {}", why.reason()),
            json!({ "from": from, "why": why.reason() }),
        ),
        Note::Misbehaved { from, what } => Line::new(
            Level::Error,
            "misbehaved",
            format!("replica {from} broke the protocol: {what:?}"),
            json!({ "from": from, "what": format!("{what:?}") }),
        ),
    }
}

/// The line of a driver's note.
pub(crate) fn of_driver(note: &DriverNote) -> Line {
    let line =
        |level, event, text: fmt::Arguments<'_>, fields| Line::new(level, event, text.to_string(), fields);
    match note {
        DriverNote::DirectIoUnavailable { path } => line(
            Level::Info,
            "direct_io_unavailable",
            format_args!("no direct I/O on the file system of {}; the page cache is used", path.display()),
            json!({ "path": path.display().to_string() }),
        ),
        DriverNote::MalformedFrame { from, reason } => line(
            Level::Warn,
            "replica_malformed",
            format_args!("dropped a connection on the replicas' port from {from}: {reason}"),
            json!({ "from": from.to_string(), "why": reason }),
        ),
        DriverNote::LinkUp { peer } => {
            line(Level::Info, "link_up", format_args!("connected to replica {peer}"), json!({ "peer": peer }))
        }
        DriverNote::LinkDown { peer } => line(
            Level::Warn,
            "link_down",
            format_args!("lost the connection to replica {peer}"),
            json!({ "peer": peer }),
        ),
        DriverNote::SlowReader { queued } => line(
            Level::Warn,
            "slow_reader",
            format_args!("disconnected a client that does not read: {queued} bytes were waiting for it"),
            json!({ "queued": queued }),
        ),
        DriverNote::SegmentFailed { segment, reason } => line(
            Level::Error,
            "segment_failed",
            format_args!("segment {segment} could not be made: {reason}"),
            json!({ "segment": segment, "why": reason }),
        ),
        DriverNote::SegmentCut { segment, size } => {
            let name = files::segment_name(*segment);
            line(
                Level::Warn,
                "segment_cut",
                format_args!(
                    "{name} was cut short after {size} bytes; what is missing reads as zeros and counts as damaged"
                ),
                json!({ "segment": segment, "file": name, "size": size }),
            )
        }
        DriverNote::DiskFault { reason } => {
            line(Level::Error, "disk_fault", format_args!("disk fault: {reason}"), json!({ "why": reason }))
        }
        DriverNote::FewDescriptors { limit, wanted } => line(
            Level::Warn,
            "few_descriptors",
            format_args!(
                "only {limit} files may be open, {wanted} may be needed; raise the limit (ulimit -n)"
            ),
            json!({ "limit": limit, "wanted": wanted }),
        ),
        DriverNote::AcceptFailed { reason } => line(
            Level::Warn,
            "accept_failed",
            format_args!("connections cannot be accepted for now: {reason}"),
            json!({ "why": reason }),
        ),
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_crypto::Checksum;

    use super::*;

    #[test]
    fn what_every_op_says_is_told_only_when_every_step_is_asked_for() {
        let routine = Note::Durable { op: Op(1), checksum: Checksum::ZERO };
        let geometry = Geometry { superblock_size: 4096, headers_size: 4096, segment_size: 4096 };
        assert_eq!(of_note(&routine, &geometry).level, Level::Detail);
        for (verbose, op, full) in [(false, false, true), (true, true, true)] {
            let log = Log::new(Format::Json, verbose, ReplicaId(0));
            assert_eq!((log.tells(&routine), log.tells(&Note::Full)), (op, full));
        }
    }
}
