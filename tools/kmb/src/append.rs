//! `kmb append`: lines in, records on the log.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kimberlite_client::{ClientError, Output};
use kimberlite_io_real::Waker;
use kimberlite_types::ClusterId;
use kimberlite_types::limits::{BATCH_RECORDS_MAX, COMMAND_SIZE_LIMIT};
use kimberlite_wire::client::{Answer, Query};
use kimberlite_wire::command::{Command, Outcome, RecordsBuilder, Refusal};
use serde_json::json;

use crate::address::{Cluster, Name, name};
use crate::connection::{Connection, Options};
use crate::output::{say, thousands};
use crate::{Failure, failure::Kind, streams};

/// Bytes of a command that are not records: its kind, stream, expected offset, count and size.
const COMMAND_HEAD_MAX: usize = 64;

/// Bytes of records in one command, at first. Halved when the cluster says that it is too large.
const BATCH_BYTES_MAX: usize = COMMAND_SIZE_LIMIT as usize - COMMAND_HEAD_MAX;

/// Bytes read from the input at once.
const READ_SIZE: usize = 256 << 10;

/// Reads that may wait to be appended; then the input waits.
const READS_AHEAD: usize = 8;

/// What `kmb append` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb append --stream readme --file README.md
  journalctl -f | kmb append --stream journal --nodes 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400

Each line becomes one record, without its line feed. What is appended is durable on a majority of the nodes
when it is counted. A lost connection or node only delays: every record is appended exactly once. The stream
and its tenant are made if they do not exist; --no-create refuses instead. A stream or tenant is a number, or
a name that stands for one. Exit codes: 0 all appended, 1 refused, 2 wrong usage, 3 no answer in time,
5 I/O error.")]
pub(crate) struct Append {
    /// The stream: a name or a number
    #[arg(long, value_name = "STREAM", value_parser = name)]
    stream: Name,
    /// The tenant: a name or a number
    #[arg(long, value_name = "TENANT", value_parser = name, default_value = "default")]
    tenant: Name,
    #[command(flatten)]
    cluster: Cluster,
    /// Read the records from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Records in one command at most
    #[arg(long, value_name = "N", default_value_t = BATCH_RECORDS_MAX,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_RECORDS_MAX)))]
    batch: u32,
    /// Sessions that append side by side; with more than one, batches may change places
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Refuse if the stream does not exist
    #[arg(long)]
    no_create: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Append) -> Result<(), Failure> {
    let (input, size) = open_input(args)?;
    let mut connection = Connection::open(
        &args.cluster.nodes,
        Options {
            cluster: args.cluster.id.unwrap_or(ClusterId::UNNAMED),
            sessions: usize::from(args.clients),
            give_up_after: Some(args.cluster.timeout),
        },
    )?;
    let order =
        Order { stream: &args.stream, tenant: &args.tenant, batch: args.batch, clients: args.clients };
    prepare(&mut connection, &args.tenant, &args.stream, !args.no_create)?;
    let (summary, result) = append(&mut connection, &order, input, size);
    report(&summary, &order, args.json)?;
    result
}

/// Where lines go, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) stream: &'a Name,
    pub(crate) tenant: &'a Name,
    /// Records in one command at most.
    pub(crate) batch: u32,
    /// Sessions of the connection, each with one command under way.
    pub(crate) clients: u16,
}

/// What was appended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) records: u64,
    /// The lowest and the highest offset.
    pub(crate) first: Option<u64>,
    pub(crate) last: Option<u64>,
    pub(crate) elapsed: Duration,
}

/// Appends the lines of `input` to a stream that exists. `size` is how many bytes it has, if that is known. What
/// was appended is answered even when not all was.
pub(crate) fn append(
    connection: &mut Connection,
    order: &Order<'_>,
    input: Box<dyn Read + Send>,
    size: Option<u64>,
) -> (Summary, Result<(), Failure>) {
    let (send, lines) = sync_channel(READS_AHEAD);
    let waker = connection.waker();
    std::thread::spawn(move || read_lines(input, &send, &waker));
    let mut work = Work::new(*order, connection, lines, progress_bar(size));
    let begun = Instant::now();
    let result = work.run();
    work.bar.finish_and_clear();
    (Summary { elapsed: begun.elapsed(), ..work.summary }, result)
}

fn report(summary: &Summary, order: &Order<'_>, as_json: bool) -> Result<(), Failure> {
    let Summary { records, first, last, elapsed } = summary;
    let seconds = elapsed.as_secs_f64();
    if as_json {
        let report = json!({
            "stream": order.stream.id, "tenant": order.tenant.id, "appended": records,
            "first": first, "last": last, "seconds": seconds,
        });
        return say(&report.to_string());
    }
    let (Some(first), Some(last)) = (first, last) else {
        return say(&format!("appended nothing to stream {}", order.stream.text));
    };
    say(&format!(
        "appended {} records to stream {} at offsets {first} to {last}, in {seconds:.2} s",
        thousands(*records),
        order.stream.text,
    ))
}

fn open_input(args: &Append) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    let Some(path) = &args.file else { return Ok((Box::new(io::stdin()), None)) };
    let file = File::open(path).map_err(|error| Failure::on(path, &error))?;
    let size = file.metadata().ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((Box::new(file), size))
}

/// Makes sure that the stream is there, and that it is the one that this name stands for.
pub(crate) fn prepare(
    connection: &mut Connection,
    tenant: &Name,
    stream: &Name,
    create: bool,
) -> Result<(), Failure> {
    let info = Query::StreamInfo { tenant: tenant.tenant(), stream: stream.stream() };
    match connection.query(info)? {
        Answer::Stream { name, .. } if stream.text.parse::<u64>().is_ok() || name == stream.text => Ok(()),
        Answer::Stream { name, .. } => Err(Failure::failed(format!(
            "the number of stream `{}` is taken by `{name}`; choose another name",
            stream.text
        ))),
        Answer::Refused(Refusal::NoTenant | Refusal::NoStream) if create => {
            let make = [
                Command::CreateTenant { name: &tenant.text },
                Command::CreateStream { stream: stream.stream(), name: &stream.text },
            ];
            for command in make {
                match connection.submit(tenant.tenant(), &command)?.result {
                    Ok(_) | Err(Refusal::TenantExists | Refusal::StreamExists) => {}
                    Err(refusal) => return Err(Failure::failed(refusal.to_string())),
                }
            }
            Ok(())
        }
        Answer::Refused(refusal) => Err(streams::refused(connection, tenant, stream, refusal)),
        other => Err(Failure::failed(format!("the node gave an answer to another question: {other:?}"))),
    }
}

/// What the thread that reads sends: lines, then the end.
type Lines = io::Result<Vec<Vec<u8>>>;

/// Cuts the input into lines. Ends with an empty list, or an error.
fn read_lines(mut input: Box<dyn Read + Send>, send: &SyncSender<Lines>, waker: &Waker) {
    let mut buffer = vec![0; READ_SIZE];
    let mut begun: Vec<u8> = Vec::new();
    loop {
        let lines = match input.read(&mut buffer) {
            Ok(0) if begun.is_empty() => Ok(Vec::new()),
            Ok(0) => Ok(vec![std::mem::take(&mut begun)]),
            Ok(count) => {
                let mut lines = Vec::new();
                let mut rest = &buffer[..count];
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    begun.extend_from_slice(&rest[..end]);
                    lines.push(std::mem::take(&mut begun));
                    rest = &rest[end + 1..];
                }
                begun.extend_from_slice(rest);
                if lines.is_empty() && begun.len() <= COMMAND_SIZE_LIMIT as usize {
                    continue;
                }
                // A line beyond all limits is handed on as it is, to be refused instead of filling the memory.
                if lines.is_empty() {
                    lines.push(std::mem::take(&mut begun));
                }
                Ok(lines)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let over = lines.as_ref().map_or(true, Vec::is_empty);
        if send.send(lines).is_err() {
            return;
        }
        waker.wake();
        if over {
            return;
        }
    }
}

fn progress_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {msg} records, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{spinner} {bytes} {bytes_per_sec}, {msg} records"),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Records under way, and what became of the others.
struct Work<'a> {
    connection: &'a mut Connection,
    order: Order<'a>,
    records_max: usize,
    bytes_max: usize,
    lines: Receiver<Lines>,
    /// Lines that wait, with their numbers from 1.
    waiting: VecDeque<(u64, Vec<u8>)>,
    line: u64,
    ended: bool,
    idle: Vec<usize>,
    flying: HashMap<u64, Batch>,
    bar: ProgressBar,
    summary: Summary,
}

/// Records of one command in flight.
struct Batch {
    lines: Vec<(u64, Vec<u8>)>,
}

impl<'a> Work<'a> {
    fn new(
        order: Order<'a>,
        connection: &'a mut Connection,
        lines: Receiver<Lines>,
        bar: ProgressBar,
    ) -> Self {
        Self {
            connection,
            order,
            records_max: order.batch as usize,
            bytes_max: BATCH_BYTES_MAX,
            lines,
            waiting: VecDeque::new(),
            line: 0,
            ended: false,
            idle: (0..usize::from(order.clients)).rev().collect(),
            flying: HashMap::new(),
            bar,
            summary: Summary::default(),
        }
    }

    fn run(&mut self) -> Result<(), Failure> {
        loop {
            self.take_lines()?;
            while !self.waiting.is_empty()
                && let Some(session) = self.idle.pop()
            {
                self.send(session)?;
            }
            if self.ended && self.waiting.is_empty() && self.flying.is_empty() {
                return Ok(());
            }
            if let Some((session, output)) = self.connection.wait(None)? {
                self.on_output(session, &output)?;
            }
        }
    }

    /// Takes lines that were read, as long as fewer wait than one command holds.
    fn take_lines(&mut self) -> Result<(), Failure> {
        let mut bytes: usize = self.waiting.iter().map(|(_, line)| line.len()).sum();
        while !self.ended && self.waiting.len() < self.records_max && bytes < self.bytes_max {
            match self.lines.try_recv() {
                Ok(Ok(lines)) if lines.is_empty() => self.ended = true,
                Ok(Ok(lines)) => {
                    for line in lines {
                        self.line += 1;
                        bytes += line.len();
                        self.waiting.push_back((self.line, line));
                    }
                }
                Ok(Err(error)) => return Err(Failure::new(Kind::Io, format!("the input: {error}"))),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.ended = true,
            }
        }
        Ok(())
    }

    /// Hands a session as many lines as one command holds.
    fn send(&mut self, session: usize) -> Result<(), Failure> {
        let mut records = RecordsBuilder::default();
        let mut lines = Vec::new();
        while lines.len() < self.records_max
            && let Some((_, line)) = self.waiting.front()
            && (records.size() + line.len() + 4 <= self.bytes_max)
        {
            records.push(line);
            lines.extend(self.waiting.pop_front());
        }
        if lines.is_empty() {
            let (number, line) = &self.waiting[0];
            return Err(Failure::failed(format!(
                "line {number} has {} bytes, and the cluster takes records of at most {} bytes; it and the \
                 lines after it were not appended",
                line.len(),
                self.bytes_max - 4
            )));
        }
        let append = Command::AppendBatch {
            stream: self.order.stream.stream(),
            expected: None,
            records: records.records(),
        };
        let ticket = self.connection.begin(session, self.order.tenant.tenant(), append.encode());
        self.flying.insert(ticket, Batch { lines });
        Ok(())
    }

    fn on_output(&mut self, session: usize, output: &Output) -> Result<(), Failure> {
        match output {
            Output::Done { ticket, verdict } => {
                let Some(batch) = self.flying.remove(ticket) else { return Ok(()) };
                match verdict.result {
                    Ok(Outcome::Appended { first, count }) => {
                        self.count(&batch, first.0, u64::from(count));
                        self.idle.push(session);
                        Ok(())
                    }
                    Ok(other) => Err(Failure::failed(format!("an append ended as {other:?}"))),
                    Err(refusal) => Err(Failure::failed(refusal.to_string())),
                }
            }
            Output::Failed { ticket, why: ClientError::TooLarge } => {
                let Some(batch) = self.flying.remove(ticket) else { return Ok(()) };
                let size: usize = batch.lines.iter().map(|(_, line)| line.len() + 4).sum();
                self.bytes_max = self.bytes_max.min(size / 2).max(5);
                for line in batch.lines.into_iter().rev() {
                    self.waiting.push_front(line);
                }
                self.idle.push(session);
                Ok(())
            }
            Output::Failed { ticket, why } if self.flying.contains_key(ticket) => {
                let failure = self.connection.explain(*why);
                let unsure: usize = self.flying.values().map(|batch| batch.lines.len()).sum();
                let note = if why.is_outcome_unknown() {
                    format!("; of {unsure} records in flight it is not known whether they were appended")
                } else {
                    String::new()
                };
                Err(Failure::new(failure.kind(), format!("{failure}{note}")))
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, batch: &Batch, first: u64, count: u64) {
        let summary = &mut self.summary;
        summary.records += count;
        summary.first = Some(summary.first.map_or(first, |known| known.min(first)));
        let last = first + count - 1;
        summary.last = Some(summary.last.map_or(last, |known| known.max(last)));
        let read: usize = batch.lines.iter().map(|(_, line)| line.len() + 1).sum();
        self.bar.inc(read as u64);
        self.bar.set_message(thousands(summary.records));
    }
}
