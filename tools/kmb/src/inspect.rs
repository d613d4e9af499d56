//! `kmb inspect`: what stands in a data directory, as text or JSON.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kimberlite_io::Place;
use kimberlite_kernel::EntryVerdict;
use kimberlite_storage::inspect::{RingSlot, SuperblockCopy, ring, superblock, superblock_offset};
use kimberlite_types::limits::{SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{LogPosition, Op};
use kimberlite_wire::command::{Command, Outcome};
use kimberlite_wire::{Entry, Prepare, PrepareHeader};
use serde_json::{Value, json};

use crate::checkpoint;
use crate::output::print;
use crate::read::{as_json as record_json, hex};
use crate::walk::{Replay, Stopped};
use crate::{Failure, files};

/// What `kmb inspect` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb inspect ./data
  kmb inspect ./data ring
  kmb inspect ./data records --json --from 100 --limit 10

Shows what stands on disk and changes nothing. The node must be stopped; prepares at the end of the log may
not be committed. Exit codes: 0 shown, 1 refused, 2 wrong usage, 5 I/O error.")]
pub(crate) struct Inspect {
    /// The data directory
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// What to show
    #[arg(value_name = "PART", value_enum, default_value_t = Part::Superblock)]
    part: Part,
    /// Begin at this op (headers, records)
    #[arg(long, value_name = "OP", default_value_t = 0)]
    from: u64,
    /// Stop after this many ops (headers, records)
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// The parts of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The four copies of the superblock
    Superblock,
    /// The ring of headers of the newest ops
    Ring,
    /// The checkpoint from which a restart begins, with all of its pages
    Checkpoint,
    /// The header of every prepare in the log
    Headers,
    /// Every entry of the log, with its records
    Records,
}

/// Runs the command.
pub(crate) fn run(args: &Inspect) -> Result<(), Failure> {
    let stopped = Stopped::open(&args.data)?;
    match args.part {
        Part::Superblock => superblocks(args, &stopped),
        Part::Ring => slots(args, &stopped),
        Part::Checkpoint => the_checkpoint(args, &stopped),
        Part::Headers => headers(args, &stopped),
        Part::Records => records(args, &stopped),
    }
}

/// Prints the value, or the text. Answers whether anybody still reads.
fn show(args: &Inspect, value: &Value, text: impl FnOnce() -> String) -> Result<bool, Failure> {
    let line = if args.json { value.to_string() } else { text() };
    print(format!("{line}\n").as_bytes())
}

fn superblocks(args: &Inspect, stopped: &Stopped) -> Result<(), Failure> {
    for copy in 0..SUPERBLOCK_COPIES {
        let bytes = stopped.read(Place::superblock(superblock_offset(copy)), SUPERBLOCK_COPY_SIZE)?;
        let (value, text) = match superblock(&bytes) {
            SuperblockCopy::Intact(fields) => {
                let head = fields.state.head();
                let value = json!({
                    "copy": copy, "state": "intact", "sequence": fields.sequence,
                    "checksum": hex(fields.checksum.as_bytes()), "parent": hex(fields.parent.as_bytes()),
                    "cluster": fields.cluster.to_string(), "replica": fields.replica,
                    "replicas": fields.replicas, "view": fields.state.view,
                    "log_view": fields.state.log_view, "commit": fields.state.commit, "head": head.op,
                    "layout": serde_json::to_value(fields.layout).expect("plain numbers"),
                    "checkpoint": fields.checkpoint.map(|checkpoint| json!({
                        "op": checkpoint.op, "number": checkpoint.number, "digest": hex(checkpoint.digest.as_bytes()),
                    })),
                });
                let checkpoint = fields.checkpoint.map_or_else(
                    || "no checkpoint".to_owned(),
                    |it| {
                        format!(
                            "checkpoint {} of op {}, digest {}",
                            it.number,
                            it.op,
                            hex(it.digest.as_bytes())
                        )
                    },
                );
                let text = format!(
                    "copy {copy}: intact, sequence {}, checksum {}\n  cluster {}, replica {} of {}\n  view {}, \
                     log view {}, committed {}, head of the adopted log {}\n  {checkpoint}\n  {:?}",
                    fields.sequence,
                    hex(fields.checksum.as_bytes()),
                    fields.cluster,
                    fields.replica,
                    fields.replicas,
                    fields.state.view,
                    fields.state.log_view,
                    fields.state.commit,
                    head.op,
                    fields.layout,
                );
                (value, text)
            }
            SuperblockCopy::Version(found) => (
                json!({ "copy": copy, "state": "version", "version": found }),
                format!("copy {copy}: of format {found}, which this release does not read"),
            ),
            SuperblockCopy::Blank => {
                (json!({ "copy": copy, "state": "blank" }), format!("copy {copy}: blank"))
            }
            SuperblockCopy::Damaged => {
                (json!({ "copy": copy, "state": "damaged" }), format!("copy {copy}: damaged"))
            }
        };
        show(args, &value, || text)?;
    }
    Ok(())
}

fn slots(args: &Inspect, stopped: &Stopped) -> Result<(), Failure> {
    let layout = stopped.config.layout;
    let bytes = stopped.read(Place::headers(0), layout.ring_size() as usize)?;
    let mut reserved = 0;
    for (slot, content) in ring(&bytes, 0, stopped.config.cluster, &layout).into_iter().enumerate() {
        let (mut value, text) = match content {
            RingSlot::Reserved => {
                reserved += 1;
                if !args.json {
                    continue;
                }
                (json!({ "state": "reserved" }), String::new())
            }
            RingSlot::Sealed(op) => (
                json!({ "state": "sealed", "op": op.0 }),
                format!("op {op}, which is sealed; its header is lost"),
            ),
            RingSlot::Bad => (json!({ "state": "bad" }), "bad".to_owned()),
            RingSlot::Header(header) => {
                let mut value = header_json(&header, stopped);
                value["state"] = json!("header");
                (value, header_text(&header, stopped))
            }
        };
        value["slot"] = json!(slot);
        if !show(args, &value, || format!("slot {slot}: {text}"))? {
            return Ok(());
        }
    }
    if !args.json && reserved > 0 {
        print(format!("{reserved} slots not used yet\n").as_bytes())?;
    }
    Ok(())
}

/// The newest op that the ring names.
fn newest(stopped: &Stopped) -> Result<Op, Failure> {
    let layout = stopped.config.layout;
    let bytes = stopped.read(Place::headers(0), layout.ring_size() as usize)?;
    let ops = ring(&bytes, 0, stopped.config.cluster, &layout).into_iter().filter_map(|slot| match slot {
        RingSlot::Header(header) => Some(header.op),
        RingSlot::Sealed(op) => Some(op),
        RingSlot::Reserved | RingSlot::Bad => None,
    });
    Ok(ops.max().unwrap_or_default())
}

fn the_checkpoint(args: &Inspect, stopped: &Stopped) -> Result<(), Failure> {
    let Some(checked) = checkpoint::check(stopped)? else {
        return show(args, &Value::Null, || "no checkpoint yet: a restart executes the whole log".to_owned())
            .map(drop);
    };
    let end = newest(stopped)?;
    show(args, &checked.json(end, stopped), || format!("checkpoint {}", checked.text(end)))?;
    checked.trouble(stopped).map_or(Ok(()), |trouble| Err(Failure::failed(trouble)))
}

fn header_json(header: &PrepareHeader, stopped: &Stopped) -> Value {
    let file = files::locate(Place::log(header.place), &stopped.geometry());
    json!({
        "op": header.op, "view": header.view, "commit": header.commit, "entries": header.entries,
        "size": header.size, "timestamp": header.timestamp, "proposer": header.proposer,
        "checksum": hex(header.checksum.as_bytes()), "parent": hex(header.parent.as_bytes()),
        "chain": hex(header.chain.as_bytes()), "file": file.name, "offset": file.offset,
    })
}

fn header_text(header: &PrepareHeader, stopped: &Stopped) -> String {
    let file = files::locate(Place::log(header.place), &stopped.geometry());
    format!(
        "op {} of view {} by replica {}: {} entries, {} bytes at {file}, checksum {}…",
        header.op,
        header.view,
        header.proposer,
        header.entries,
        header.size,
        &hex(header.checksum.as_bytes())[..16],
    )
}

fn headers(args: &Inspect, stopped: &Stopped) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    for prepare in stopped.prepares() {
        let header = prepare?.header;
        if header.op < Op(args.from) {
            continue;
        }
        if left == 0 || !show(args, &header_json(&header, stopped), || header_text(&header, stopped))? {
            return Ok(());
        }
        left -= 1;
    }
    Ok(())
}

fn records(args: &Inspect, stopped: &Stopped) -> Result<(), Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut replay = Replay::new(&stopped.config);
    for prepare in stopped.prepares() {
        if left == 0 {
            return Ok(());
        }
        let prepare = prepare?;
        let applied = replay.apply(&prepare)?;
        if prepare.header.op < Op(args.from) {
            continue;
        }
        left -= 1;
        if !entries(args, &prepare, &applied.verdicts)? {
            return Ok(());
        }
    }
    Ok(())
}

fn entries(args: &Inspect, prepare: &Prepare, verdicts: &[EntryVerdict]) -> Result<bool, Failure> {
    for (index, entry) in prepare.entries().enumerate() {
        let position = LogPosition { op: prepare.header.op, index: index as u32 };
        let entry = entry
            .map_err(|why| Failure::failed(format!("entry {position} cannot be read: {}", why.reason())))?;
        let (value, text) = entry_views(position, &entry, &verdicts[index]);
        if !show(args, &value, || text)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn entry_views(position: LogPosition, entry: &Entry<'_>, verdict: &EntryVerdict) -> (Value, String) {
    let header = &entry.header;
    let (mut value, mut text) = match Command::decode(entry.command) {
        Ok(Command::Register) => (json!({ "command": "register" }), "register a session".to_owned()),
        Ok(Command::CreateTenant { name }) => (
            json!({ "command": "create_tenant", "name": name }),
            format!("create tenant {} `{name}`", header.tenant),
        ),
        Ok(Command::CreateStream { stream, name }) => (
            json!({ "command": "create_stream", "stream": stream, "name": name }),
            format!("create stream {stream} `{name}` of tenant {}", header.tenant),
        ),
        Ok(Command::AppendBatch { stream, expected, records }) => {
            let first = match verdict.verdict.result {
                Ok(Outcome::Appended { first, .. }) => Some(first.0),
                _ => None,
            };
            let shown: Vec<Value> = records
                .iter()
                .zip(first.unwrap_or(0)..)
                .map(|(record, offset)| record_json(offset, record))
                .collect();
            let mut lines = String::new();
            for record in &shown {
                let offset = if first.is_some() { format!("@{}", record["offset"]) } else { "-".to_owned() };
                let content = record["text"].as_str().or(record["hex"].as_str()).unwrap_or_default();
                lines.extend(["\n  ", &offset, "  ", content]);
            }
            (
                json!({ "command": "append", "stream": stream, "expected": expected, "records": shown }),
                format!(
                    "append {} records to stream {stream} of tenant {}{lines}",
                    records.count(),
                    header.tenant
                ),
            )
        }
        Ok(Command::Facts { facts, reply }) => (
            json!({ "command": "facts", "facts_size": facts.len(), "reply_size": reply.len() }),
            format!(
                "change tables of tenant {}: {} bytes of facts, {} bytes of reply",
                header.tenant,
                facts.len(),
                reply.len()
            ),
        ),
        Ok(Command::Stage { number, facts }) => (
            json!({ "command": "stage", "piece": number, "facts_size": facts.len() }),
            format!("keep piece {number} of facts of tenant {}: {} bytes", header.tenant, facts.len()),
        ),
        Ok(Command::Commit { pieces, reply, .. }) => (
            json!({ "command": "commit", "pieces": pieces, "reply_size": reply.len() }),
            format!("change tables of tenant {} by {pieces} pieces of facts", header.tenant),
        ),
        Err(why) => (
            json!({ "command": "malformed", "why": why.reason() }),
            format!("a command that cannot be read: {}", why.reason()),
        ),
    };
    value["position"] = json!(position.to_string());
    value["session"] = json!(header.session.to_string());
    value["request"] = json!(header.request);
    value["tenant"] = json!(header.tenant);
    value["timestamp"] = json!(header.timestamp);
    value["hash"] = json!(hex(entry.hash().as_bytes()));
    value["duplicate"] = json!(verdict.duplicate);
    if let Err(refusal) = verdict.verdict.result {
        value["refused"] = json!(refusal.to_string());
        text = format!("{text}\n  refused: {refusal}");
    }
    if verdict.duplicate {
        text = format!("{text}\n  a duplicate; it changed nothing");
    }
    (value, format!("{position}  session {} request {}: {text}", header.session, header.request))
}
