//! `kmb load`: appends records that describe themselves, and keeps a journal of what was acknowledged, so
//! that whoever breaks the cluster meanwhile can check that nothing was lost.
//!
//! A record is `run/client/sequence` and padding; a client's records are numbered from 0 without gaps, and it
//! appends the next one only when the last one was acknowledged. A line of the journal is `client sequence
//! offset`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use kimberlite_client::Output;
use kimberlite_types::ClusterId;
use kimberlite_types::limits::BATCH_RECORDS_MAX;
use kimberlite_wire::command::{Command, Outcome, RecordsBuilder};
use serde_json::json;

use crate::address::{Cluster, Name, name, seconds};
use crate::connection::{Connection, Options};
use crate::histogram::Histogram;
use crate::output::{per_second, say, thousands};
use crate::signals::{Stop, on_signal};
use crate::{Failure, append, random};

/// How long the last acknowledgements are waited for.
const LAST_PATIENCE: Duration = Duration::from_mins(2);

/// How long a wait may last before it is looked whether the load should end.
const SOON: Duration = Duration::from_millis(200);

/// What `kmb load` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kmb load --stream load --clients 8 --seconds 10 --journal acknowledged.txt")]
pub(crate) struct Load {
    /// The stream: a name or a number
    #[arg(long, value_name = "STREAM", value_parser = name, default_value = "load")]
    stream: Name,
    /// The tenant: a name or a number
    #[arg(long, value_name = "TENANT", value_parser = name, default_value = "default")]
    tenant: Name,
    #[command(flatten)]
    cluster: Cluster,
    /// Sessions, each appending one record at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Stop after this long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Stop after this many requests
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Records in a request
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_RECORDS_MAX)))]
    batch: u32,
    /// Bytes of a record at least
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,
    /// Where to write what was acknowledged
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Requests that were acknowledged.
    pub acknowledged: u64,
    /// Commands whose outcome is unknown: their session was evicted.
    pub unknown: u64,
    /// From the first request to the last acknowledgement.
    pub elapsed: Duration,
    /// From each request to its acknowledgement.
    pub latencies: Histogram,
}

/// How a load runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The client addresses of all nodes, in the order of their replica numbers.
    pub nodes: Vec<std::net::SocketAddr>,
    /// The cluster, or [`ClusterId::UNNAMED`].
    pub cluster: ClusterId,
    /// Whose stream it is. Made if it does not exist.
    pub tenant: Name,
    /// Where records go. Made if it does not exist.
    pub stream: Name,
    /// Sessions, each with one request at a time.
    pub clients: u16,
    /// Records in a request. The first describes itself, and the others repeat it.
    pub batch: u32,
    /// Bytes of a record at least.
    pub size: usize,
    /// When to stop.
    pub duration: Option<Duration>,
    /// After how many requests to stop.
    pub count: Option<u64>,
    /// Where to write what was acknowledged.
    pub journal: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Load) -> Result<(), Failure> {
    let stop = Stop::default();
    on_signal(&stop, [])?;
    let plan = Plan {
        nodes: args.cluster.nodes.clone(),
        cluster: args.cluster.id.unwrap_or(ClusterId::UNNAMED),
        tenant: args.tenant.clone(),
        stream: args.stream.clone(),
        clients: args.clients,
        batch: args.batch,
        size: args.size,
        duration: args.seconds,
        count: args.count,
        journal: args.journal.clone(),
    };
    let summary = load(&plan, &stop, &Arc::default())?;
    let seconds = summary.elapsed.as_secs_f64();
    let records = summary.acknowledged * u64::from(args.batch);
    let rate = per_second(records, summary.elapsed);
    let [p50, p99] = [50, 99].map(|percent| summary.latencies.percentile(percent));
    let max = summary.latencies.max();
    if args.json {
        let micros = |time: Duration| time.as_micros() as u64;
        let report = json!({ "acknowledged": records, "unknown": summary.unknown,
                             "seconds": seconds, "per_second": rate, "p50_us": micros(p50),
                             "p99_us": micros(p99), "max_us": micros(max) });
        return say(&report.to_string());
    }
    say(&format!(
        "{} records acknowledged in {seconds:.1} s by {} clients: {} a second; {} requests of unknown outcome; \
         a request took {p50:.1?} (p50), {p99:.1?} (p99), {max:.1?} (max)",
        thousands(records),
        args.clients,
        thousands(rate),
        summary.unknown
    ))
}

/// Where acknowledgements are written.
struct Journal(Option<(PathBuf, BufWriter<File>)>);

impl Journal {
    fn create(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = File::create(path).map_err(|error| Failure::on(path, &error))?;
        Ok(Self(Some((path.to_path_buf(), BufWriter::new(file)))))
    }

    fn write(&mut self, client: usize, sequence: u64, offset: u64) -> Result<(), Failure> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        writeln!(file, "{client} {sequence} {offset}").map_err(|error| Failure::on(path, &error))
    }

    fn finish(self) -> Result<(), Failure> {
        let Some((path, mut file)) = self.0 else { return Ok(()) };
        file.flush().map_err(|error| Failure::on(&path, &error))
    }
}

/// The record of a client with this number.
pub(crate) fn record(run: u64, client: usize, sequence: u64, size: usize) -> Vec<u8> {
    let mut record = format!("{run:016x}/{client}/{sequence}/").into_bytes();
    record.resize(record.len().max(size), b'.');
    record
}

/// The client and the number of a record, if it is one of ours.
pub(crate) fn parse(record: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(record).ok()?;
    let mut parts = text.split('/');
    parts.next()?;
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Appends until the plan or `stop` says to end. `acknowledged` counts along.
pub fn load(plan: &Plan, stop: &Stop, acknowledged: &Arc<AtomicU64>) -> Result<Summary, Failure> {
    let clients = usize::from(plan.clients);
    let mut connection = Connection::open(
        &plan.nodes,
        Options { cluster: plan.cluster, sessions: clients, give_up_after: None },
    )?;
    append::prepare(&mut connection, &plan.tenant, &plan.stream, true)?;
    let mut journal = Journal::create(plan.journal.as_deref())?;
    let run = random::number()?;
    let begun = Instant::now();
    let mut next = vec![0; clients];
    let mut flying: HashMap<u64, (usize, u64, Instant)> = HashMap::new();
    let mut records = RecordsBuilder::default();
    let mut begin = |connection: &mut Connection, client: usize, sequence: u64, now: Instant| {
        records.clear();
        let record = record(run, client, sequence, plan.size);
        (0..plan.batch).for_each(|_| records.push(&record));
        let command =
            Command::AppendBatch { stream: plan.stream.stream(), expected: None, records: records.records() };
        (connection.begin(client, plan.tenant.tenant(), command.encode()), (client, sequence, now))
    };
    flying.extend((0..clients).map(|client| begin(&mut connection, client, 0, Instant::now())));
    let mut summary = Summary::default();
    let mut ended: Option<Instant> = None;
    let mut now = Instant::now();
    // Nothing that is waited for comes later than this, or it is looked whether to stop.
    let mut soon = connection.now().after(SOON);
    while !flying.is_empty() {
        let over = stop.is_asked()
            || plan.duration.is_some_and(|duration| now.duration_since(begun) >= duration)
            || plan.count.is_some_and(|count| summary.acknowledged + flying.len() as u64 >= count);
        if over && ended.is_none() {
            ended = Some(now);
        }
        if ended.is_some_and(|ended| now.duration_since(ended) > LAST_PATIENCE) {
            journal.finish()?;
            return Err(Failure::new(
                crate::failure::Kind::Unreachable,
                format!("{} appends were not answered within {} s", flying.len(), LAST_PATIENCE.as_secs()),
            ));
        }
        let said = connection.wait(Some(soon))?;
        now = Instant::now();
        let (ticket, offset) = match said {
            Some((_, Output::Done { ticket, verdict })) => match verdict.result {
                Ok(Outcome::Appended { first, .. }) => (ticket, Some(first.0)),
                other => return Err(Failure::failed(format!("an append ended as {other:?}"))),
            },
            Some((_, Output::Failed { ticket, why })) if why.is_outcome_unknown() => (ticket, None),
            Some((_, Output::Failed { why, .. })) => return Err(connection.explain(why)),
            Some(_) => continue,
            None => {
                soon = connection.now().after(SOON);
                continue;
            }
        };
        let Some((client, sequence, asked)) = flying.remove(&ticket) else { continue };
        match offset {
            Some(offset) => {
                summary.latencies.add(now.duration_since(asked));
                journal.write(client, sequence, offset)?;
                summary.acknowledged += 1;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            None => summary.unknown += 1,
        }
        if ended.is_none() {
            next[client] = sequence + 1;
            let (ticket, what) = begin(&mut connection, client, sequence + 1, now);
            flying.insert(ticket, what);
        }
    }
    summary.elapsed = begun.elapsed();
    journal.finish()?;
    Ok(summary)
}

/// An acknowledged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) client: usize,
    pub(crate) sequence: u64,
    pub(crate) offset: u64,
}

/// Reads a journal.
pub(crate) fn read_journal(path: &Path) -> Result<Vec<Acknowledged>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::on(path, &error))?;
    let parse = |line: &str| {
        let mut parts = line.split(' ').map(str::parse::<u64>);
        let mut part = || parts.next()?.ok();
        Some(Acknowledged { client: part()? as usize, sequence: part()?, offset: part()? })
    };
    text.lines()
        .map(|line| parse(line).ok_or_else(|| Failure::failed(format!("{}: {line}", path.display()))))
        .collect()
}

/// Checks a stream that one load alone has written against the load's journal: every acknowledged record
/// stands at its offset; no record stands there twice; each client's records are in order. Answers what is wrong.
pub(crate) fn check(records: &[Vec<u8>], journal: &[Acknowledged]) -> Result<(), String> {
    let mut last: HashMap<usize, u64> = HashMap::new();
    for (offset, record) in records.iter().enumerate() {
        let (client, sequence) =
            parse(record).ok_or_else(|| format!("offset {offset} holds a foreign record"))?;
        if let Some(before) = last.insert(client, sequence)
            && before >= sequence
        {
            return Err(format!("offset {offset}: client {client} has {sequence} after {before}"));
        }
    }
    for Acknowledged { client, sequence, offset } in journal {
        let found = usize::try_from(*offset).ok().and_then(|offset| records.get(offset));
        match found.and_then(|record| parse(record)) {
            Some(found) if found == (*client, *sequence) => {}
            Some((other, number)) => {
                return Err(format!(
                    "offset {offset} was acknowledged as {client}/{sequence} and holds {other}/{number}"
                ));
            }
            None => return Err(format!("{client}/{sequence} was acknowledged at {offset} and is not there")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(of: &[(usize, u64)]) -> Vec<Vec<u8>> {
        of.iter().map(|(client, sequence)| record(7, *client, *sequence, 40)).collect()
    }

    fn acknowledged(client: usize, sequence: u64, offset: u64) -> Acknowledged {
        Acknowledged { client, sequence, offset }
    }

    #[test]
    fn a_log_with_all_that_was_acknowledged_passes_even_if_it_holds_more() {
        let log = records(&[(0, 0), (1, 0), (0, 1)]);
        assert_eq!(check(&log, &[acknowledged(1, 0, 1), acknowledged(0, 0, 0)]), Ok(()));
    }

    #[test]
    fn what_is_lost_doubled_moved_or_out_of_order_is_noticed() {
        let journal = [acknowledged(0, 0, 0), acknowledged(0, 1, 1)];
        for (log, word) in [
            (records(&[(0, 0)]), "is not there"),
            (records(&[(0, 0), (1, 0), (0, 1)]), "holds 1/0"),
            (records(&[(0, 0), (0, 1), (0, 1)]), "has 1 after 1"),
            (records(&[(0, 1), (0, 0)]), "has 0 after 1"),
            (vec![b"else".to_vec()], "foreign"),
        ] {
            let wrong = check(&log, &journal).unwrap_err();
            assert!(wrong.contains(word), "{wrong}");
        }
    }
}
