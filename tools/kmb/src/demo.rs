//! `kmb demo`: a cluster's life in one command. Three nodes get a file, lose their primary, get it back, and hold
//! the same log to the last byte; each of these is checked, not only shown.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use kimberlite_types::Op;
use kimberlite_types::limits::BATCH_RECORDS_MAX;
use kimberlite_wire::client::{Answer, Query};
use serde_json::{Value, json};

use crate::address::{Name, name};
use crate::append::{self, Order};
use crate::connection::{Connection, Options};
use crate::dev::{Plan, Temporary};
use crate::fleet::Fleet;
use crate::format::{self, LayoutName};
use crate::output::{Colour, paint, per_second, say, takes_colour, thousands};
use crate::signals::{Stop, on_signal};
use crate::{Failure, read, status, verify, walk};

/// How many nodes: the fewest that survive the loss of one.
const NODES: u8 = 3;

/// The stream that the file goes to.
const STREAM: &str = "demo";

/// What is appended while the former primary is down.
const AFTER_THE_KILL: &[u8] = b"appended after the primary was killed\nappended before it came back\n";

/// How long an append or read may take; a new primary is found much sooner.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a node may take to say how it stands.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// What `kmb demo` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb demo README.md
  kmb demo README.md --dir ./demo --json

Starts three nodes as processes of their own, on free ports of this machine, appends the file to stream `demo`,
kills the primary with SIGKILL, appends two more records without it, starts it again, reads everything back and
compares it with the file, stops the nodes and verifies what each has on disk. Each line tells how long its
step took. Without --dir the data is temporary: it is removed at the end, and kept only if a step failed.
Exit codes: 0 every step held, 1 one did not, 2 wrong usage, 5 FILE could not be read.")]
pub(crate) struct Demo {
    /// The file to append, one record per line
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the data goes, one directory per node; kept at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Demo) -> Result<(), Failure> {
    let content = fs::read(&args.file).map_err(|error| Failure::on(&args.file, &error))?;
    let (dir, temporary) = match &args.dir {
        Some(dir) if !format::is_blank(dir) => {
            return Err(Failure::failed(format!("{} is not an empty directory", dir.display())));
        }
        Some(dir) => (dir.clone(), None),
        None => {
            let temporary = Temporary::new("demo")?;
            (temporary.path().to_path_buf(), Some(temporary))
        }
    };
    let stop = Stop::default();
    let mut story = Story::new(args, content, Plan::on_free_ports(dir.clone(), NODES)?, &stop)?;
    on_signal(&stop, [story.client.waker(), story.watcher.waker()])?;
    let result = story.run(temporary.is_none()).map_err(|failure| {
        // Ctrl-C reaches the nodes as well; that they ended is not what happened.
        if stop.is_asked() { Failure::failed("interrupted") } else { failure }
    });
    let Story { json, fleet, mut report, .. } = story;
    drop(fleet);
    let result = result.map_err(|failure| match temporary {
        Some(temporary) if !stop.is_asked() => {
            temporary.keep();
            Failure::failed(format!("{failure} (kept: {})", dir.display()))
        }
        _ => Failure::failed(failure.to_string()),
    });
    if json {
        report["held"] = json!(result.is_ok());
        report["failed"] = json!(result.as_ref().err().map(Failure::to_string));
        say(&report.to_string())?;
    }
    result
}

/// A stretch of the demonstration: does it and says in a line what was done.
type Step = fn(&mut Story) -> Result<String, Failure>;

/// The demonstration, as far as it has come.
struct Story {
    file: PathBuf,
    content: Vec<u8>,
    json: bool,
    tenant: Name,
    stream: Name,
    fleet: Fleet,
    client: Connection,
    watcher: Connection,
    primary: usize,
    victim: usize,
    heads: Vec<Head>,
    /// What `--json` prints.
    report: Value,
}

/// The end of a node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    op: Op,
    hash: String,
}

impl Story {
    fn new(args: &Demo, content: Vec<u8>, plan: Plan, stop: &Stop) -> Result<Self, Failure> {
        let connect = |patience| -> Result<Connection, Failure> {
            let options = Options { give_up_after: Some(patience), ..Options::default() };
            Ok(Connection::open(&plan.clients, options)?.ends_with(stop))
        };
        Ok(Self {
            file: args.file.clone(),
            content,
            json: args.json,
            tenant: name("default").map_err(Failure::usage)?,
            stream: name(STREAM).map_err(Failure::usage)?,
            client: connect(PATIENCE)?,
            watcher: connect(STATUS_PATIENCE)?,
            fleet: Fleet::new(plan)?,
            primary: 0,
            victim: 0,
            heads: Vec::new(),
            report: json!({ "steps": [] }),
        })
    }

    fn run(&mut self, kept: bool) -> Result<(), Failure> {
        let begun = Instant::now();
        if !self.json {
            let kept = if kept { "kept" } else { "removed" };
            say(&format!(
                "{NODES} nodes, data in {} ({kept} at the end)\n",
                self.fleet.plan().dir.display()
            ))?;
        }
        let steps: [(&str, Step); 11] = [
            ("start", Self::start),
            ("append", Self::append),
            ("status", Self::status),
            ("kill", Self::kill),
            ("fail over", Self::fail_over),
            ("restart", Self::restart),
            ("read", Self::read),
            ("stop", Self::stop),
            ("verify node 0", |story| story.verify(0)),
            ("verify node 1", |story| story.verify(1)),
            ("verify node 2", |story| story.verify(2)),
        ];
        for (name, step) in steps {
            self.step(name, step)?;
        }
        self.step("compare", Self::compare)?;
        if !self.json {
            let held = paint("every step held", Colour::Green, takes_colour());
            say(&format!("\n{held}, in {:.2} s", begun.elapsed().as_secs_f64()))?;
        }
        Ok(())
    }

    fn step(&mut self, name: &str, step: Step) -> Result<(), Failure> {
        let begun = Instant::now();
        let result = step(self);
        let seconds = begun.elapsed().as_secs_f64();
        if let Some(steps) = self.report["steps"].as_array_mut() {
            steps.push(json!({ "step": name, "seconds": seconds, "held": result.is_ok() }));
        }
        let text =
            result.map_err(|failure| Failure::new(failure.kind(), format!("step `{name}`: {failure}")))?;
        if self.json { Ok(()) } else { say(&format!("{seconds:>7.2} s  {text}")) }
    }

    fn start(&mut self) -> Result<String, Failure> {
        self.fleet.plan().format(LayoutName::Production)?;
        self.fleet.start()?;
        self.primary = self.fleet.heal(&mut self.watcher)?;
        Ok(format!("formatted and started {NODES} nodes; node {} is the primary", self.primary))
    }

    fn append(&mut self) -> Result<String, Failure> {
        append::prepare(&mut self.client, &self.tenant, &self.stream, true)?;
        let summary = self.append_lines(self.content.clone())?;
        let bytes = self.content.len() as u64;
        let rate = per_second(bytes, summary.elapsed);
        self.report["file"] = json!({ "name": self.file.display().to_string(), "records": summary.records,
            "bytes": bytes, "append_seconds": summary.elapsed.as_secs_f64() });
        Ok(format!(
            "appended {}: {} records, {} bytes, {} kB/s, durable on a majority",
            self.file.display(),
            thousands(summary.records),
            thousands(bytes),
            thousands(rate / 1000)
        ))
    }

    fn append_lines(&mut self, lines: Vec<u8>) -> Result<append::Summary, Failure> {
        let wanted = records_of(&lines).len() as u64;
        let order =
            Order { stream: &self.stream, tenant: &self.tenant, batch: BATCH_RECORDS_MAX, clients: 1 };
        let size = Some(lines.len() as u64);
        let (summary, result) = append::append(&mut self.client, &order, Box::new(Cursor::new(lines)), size);
        result?;
        if summary.records != wanted {
            return Err(Failure::failed(format!("{} of {wanted} records appended", summary.records)));
        }
        Ok(summary)
    }

    fn status(&mut self) -> Result<String, Failure> {
        // A backup learns what is committed a moment after it was acknowledged.
        self.primary = self.fleet.heal(&mut self.watcher)?;
        let rows = status::ask_all(&mut self.watcher)?;
        self.report["status"] = status::as_json(&rows)["nodes"].take();
        let table = status::table(&rows);
        Ok(format!("all {NODES} nodes answer\n           {}", table.join("\n           ")))
    }

    fn kill(&mut self) -> Result<String, Failure> {
        self.victim = self.primary;
        let process = self.fleet.kill(self.victim)?;
        self.report["killed"] = json!(self.victim);
        Ok(format!("killed the primary: node {}, process {process}, SIGKILL", self.victim))
    }

    fn fail_over(&mut self) -> Result<String, Failure> {
        let summary = self.append_lines(AFTER_THE_KILL.to_vec())?;
        let (primary, view) = match self.client.query(Query::Status)? {
            Answer::Status(status) => (usize::from(status.primary.0), status.view),
            other => {
                return Err(Failure::failed(format!(
                    "the node gave an answer to another question: {other:?}"
                )));
            }
        };
        if primary == self.victim {
            return Err(Failure::failed(format!(
                "node {primary} was killed and is still called the primary"
            )));
        }
        self.report["new_primary"] = json!(primary);
        Ok(format!("node {primary} took over, view {view}; appended {} more records", summary.records))
    }

    fn restart(&mut self) -> Result<String, Failure> {
        self.fleet.restart(self.victim)?;
        self.fleet.heal(&mut self.watcher)?;
        Ok(format!("started node {} again; it has caught up", self.victim))
    }

    fn read(&mut self) -> Result<String, Failure> {
        let mut records = Vec::new();
        read::read(&mut self.client, &self.tenant, &self.stream, 0, None, |_, record| {
            records.push(record.to_vec());
            Ok(true)
        })?;
        self.compare_with_file(&records)?;
        Ok(format!(
            "read {} records back: the file byte for byte, and the two",
            thousands(records.len() as u64)
        ))
    }

    fn compare_with_file(&self, records: &[Vec<u8>]) -> Result<(), Failure> {
        compare(records, &self.content).map_err(Failure::failed)
    }

    fn stop(&mut self) -> Result<String, Failure> {
        self.fleet.stop()?;
        Ok(format!("stopped {NODES} nodes, SIGTERM"))
    }

    fn verify(&mut self, node: usize) -> Result<String, Failure> {
        let data = self.fleet.plan().data(node);
        let verdict = verify::verify(&data, |_| {})?;
        if let Some(finding) = &verdict.finding {
            return Err(verify::damage(&data, finding, &verdict.geometry));
        }
        if let Some(warning) = verdict.warnings.first() {
            return Err(Failure::failed(warning.clone()));
        }
        let (records, walked) = self.stored(&data)?;
        let totals = verdict.totals;
        if walked != totals.op {
            return Err(Failure::failed(format!(
                "the walk ends at op {walked}, verification at {}",
                totals.op
            )));
        }
        let hash = read::hex(totals.chain.as_bytes());
        let text = format!(
            "node {node}: whole, {} records, {} bytes, {} kB/s, head hash {hash}",
            thousands(records),
            thousands(totals.bytes),
            thousands(per_second(totals.bytes, verdict.elapsed) / 1000),
        );
        let mut found = verify::as_json(&verdict);
        found["records"] = json!(records);
        self.report["nodes"][format!("node{node}")] = found;
        self.heads.push(Head { op: totals.op, hash });
        Ok(text)
    }

    /// Compares what stands on a stopped node's disk. Answers how many records it has, and its last op.
    fn stored(&self, data: &Path) -> Result<(u64, Op), Failure> {
        let (records, head) = walk::stream(data, &self.tenant, &self.stream)?;
        self.compare_with_file(&records)?;
        Ok((records.len() as u64, head))
    }

    fn compare(&mut self) -> Result<String, Failure> {
        let head = &self.heads[0];
        for (node, other) in self.heads.iter().enumerate() {
            if other != head {
                return Err(Failure::failed(format!(
                    "node {node} ends at op {} with {}, node 0 at op {} with {}",
                    other.op, other.hash, head.op, head.hash
                )));
            }
        }
        self.report["head_hash"] = json!(head.hash);
        Ok(format!("one head hash on all {NODES} nodes, at op {}", head.op))
    }
}

/// The lines of a file, as `kmb append` cuts them.
fn records_of(content: &[u8]) -> Vec<&[u8]> {
    let content = content.strip_suffix(b"\n").map_or((content, content.is_empty()), |rest| (rest, false));
    if content.1 { Vec::new() } else { content.0.split(|byte| *byte == b'\n').collect() }
}

/// Compares a stream with the file it was made from and what came after it: the bytes, not only the lines. Answers
/// what is wrong.
fn compare(records: &[Vec<u8>], content: &[u8]) -> Result<(), String> {
    let wanted = records_of(content).len();
    let more = records_of(AFTER_THE_KILL);
    if records.len() != wanted + more.len() {
        return Err(format!("{} records where {} were appended", records.len(), wanted + more.len()));
    }
    let (file, after) = records.split_at(wanted);
    let mut bytes = file.join(&b'\n');
    if content.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    if bytes != content {
        let at = bytes.iter().zip(content).take_while(|(one, other)| one == other).count();
        return Err(format!("what was read differs from the file at byte {at}"));
    }
    if after != more {
        return Err("the records appended after the primary was killed have changed".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(content: &[u8]) -> Vec<Vec<u8>> {
        records_of(content).into_iter().chain(records_of(AFTER_THE_KILL)).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_stream_compares_with_its_file_to_the_last_byte() {
        for content in ["", "\n", "\n\n", "one", "one\n", "one\n\ntwo", "one\r\n\n"] {
            assert_eq!(compare(&stream_of(content.as_bytes()), content.as_bytes()), Ok(()), "{content:?}");
        }
        assert!(records_of(b"").is_empty());
        assert_eq!(records_of(b"\n"), [b""]);
    }

    #[test]
    fn a_record_that_changed_is_missing_or_is_too_many_is_noticed() {
        let content = b"one\ntwo\nthree\n";
        let whole = stream_of(content);
        let mut changed = whole.clone();
        changed[1] = b"twe".to_vec();
        let mut missing = whole.clone();
        missing.remove(1);
        let mut last = whole.clone();
        last[4].push(b'!');
        let mut more = whole;
        more.push(b"four".to_vec());
        for (records, word) in [
            (changed, "byte 6"),
            (missing, "4 records where 5"),
            (last, "after the primary was killed"),
            (more, "6 records where 5"),
        ] {
            let wrong = compare(&records, content).unwrap_err();
            assert!(wrong.contains(word), "{wrong}");
        }
    }
}
