//! `kmb start`: one node.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use kimberlite_bundle::Ended;
use kimberlite_io::{Event, Machine as _};
use kimberlite_io_real::{DataDirectory, Driver, Geometry, Options, Waker};
use kimberlite_runtime::{HaltReason, Node, Note};
use kimberlite_types::{Config, Op};
use kimberlite_wire::framing_of;
use serde_json::json;

use crate::address::{CLIENT_PORT, resolve};
use crate::format::{self, Identity};
use crate::log::{self, Level, Line, Log};
use crate::node_file::{self, NodeFile};
use crate::record::{Record, Recorder};
use crate::signals::{Stop, on_signal};
use crate::{Failure, files, random};

/// How often a busy node says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What `kmb start` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb start --data ./data --format
  kmb start --data ./data1 --cluster 10.0.0.1:7410,10.0.0.2:7410,10.0.0.3:7410 --listen 10.0.0.2:7400
  kmb start --data ./data --record today.kmb --record-limit 4GiB

The node runs until it gets SIGTERM or SIGINT (Ctrl-C). Exit codes: 0 stopped, 1 halted or refused to start,
2 wrong usage, 5 I/O error.")]
pub(crate) struct Start {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where clients connect to [default: this replica's entry of --clients, or 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR", value_parser = resolve)]
    listen: Option<SocketAddr>,
    /// Where the replicas of the cluster connect to each other, in the order of their numbers
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', value_parser = resolve)]
    cluster: Vec<SocketAddr>,
    /// Where clients connect to each replica, in the same order
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', value_parser = resolve)]
    clients: Vec<SocketAddr>,
    /// Format the data directory first if it does not exist or is empty
    #[arg(long)]
    format: bool,
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    record: Record,
    /// How the log is written to standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = log::Format::Human)]
    log: log::Format,
    /// Log every op
    #[arg(long, short)]
    verbose: bool,
    /// Stop when standard input ends: whoever started this node is gone
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

/// Runs a node until it is asked to stop or halts.
pub(crate) fn run(args: &Start) -> Result<(), Failure> {
    if args.format && format::is_blank(&args.data) {
        format::format(&args.data, &args.identity)?;
    }
    let file = NodeFile::read(&args.data)?;
    let config = file.config()?;
    args.identity.check(&args.data, &config)?;
    let (replica_listen, client_listen) = addresses(args, &config)?;
    let secret = node_file::read_own_secret(&args.data)?;
    let directory = DataDirectory::open(&args.data)?;
    let geometry = directory.geometry();
    format::check_geometry(&args.data, geometry, &config)?;

    let log = Log::new(args.log, args.verbose, config.replica);
    let mut driver = Driver::open(Options {
        data: Some(directory),
        replica_listen,
        client_listen: Some(client_listen),
        replica: (config.replicas > 1).then_some(config.replica),
        peers: args.cluster.clone(),
        address_book: Vec::new(),
        framing: Some(framing_of),
    })?;
    let stop = Stop::default();
    on_signal(&stop, [driver.waker()])?;
    if args.stop_with_stdin {
        stop_with_stdin(&stop, driver.waker());
    }
    announce(&log, &driver, &config, args);
    let seed = random::number()?;
    let recorder = Recorder::begin(&args.record, config, &secret, seed, driver.now())?;
    let node = Node::new(config, &secret, seed);
    drop(secret);
    Running { driver, node, recorder, log, geometry, progress: Progress::new() }.until(&stop)
}

fn addresses(args: &Start, config: &Config) -> Result<(Option<SocketAddr>, SocketAddr), Failure> {
    let replicas = usize::from(config.replicas);
    let own = usize::from(config.replica.0);
    if !args.clients.is_empty() && args.clients.len() != replicas {
        return Err(Failure::usage(format!(
            "--clients names {} addresses, the cluster of this data directory has {replicas} replicas",
            args.clients.len()
        )));
    }
    let replica_listen = match (replicas, args.cluster.len()) {
        (1, 0 | 1) => None,
        (_, named) if named == replicas => Some(args.cluster[own]),
        (_, 0) => {
            return Err(Failure::usage(format!(
                "this is replica {own} of {replicas}: give the replicas' addresses with --cluster A,B,C"
            )));
        }
        (_, named) => {
            return Err(Failure::usage(format!(
                "--cluster names {named} addresses, the cluster of this data directory has {replicas} replicas"
            )));
        }
    };
    let default = SocketAddr::from(([127, 0, 0, 1], CLIENT_PORT));
    let client_listen = args.listen.or_else(|| args.clients.get(own).copied()).unwrap_or(default);
    Ok((replica_listen, client_listen))
}

fn stop_with_stdin(stop: &Stop, waker: Waker) {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while stdin.read(&mut sink).is_ok_and(|count| count > 0) {}
        stop.ask();
        waker.wake();
    });
}

fn announce(log: &Log, driver: &Driver, config: &Config, args: &Start) {
    let (replicas, clients) = driver.local_addresses();
    let shown = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    let peers = shown(replicas).map(|address| format!(", for replicas on {address}")).unwrap_or_default();
    let text = format!(
        "replica {} of {}, cluster {}, data in {}; listening for clients on {}{peers}",
        config.replica,
        config.replicas,
        config.cluster,
        args.data.display(),
        shown(clients).unwrap_or_default(),
    );
    let fields = json!({
        "cluster": config.cluster.to_string(), "replicas": config.replicas, "pid": std::process::id(),
        "clients": shown(clients), "peers": shown(driver.local_addresses().0),
    });
    log.write(&Line::new(Level::Info, "listening", text, fields));
}

/// When the node last said how far it is.
struct Progress {
    said_at: Instant,
    said: Op,
    committed: Op,
}

impl Progress {
    fn new() -> Self {
        Self { said_at: Instant::now(), said: Op::ZERO, committed: Op::ZERO }
    }

    /// A line, if there was progress and the last line is old enough.
    fn line(&mut self) -> Option<Line> {
        if self.committed == self.said || self.said_at.elapsed() < PROGRESS_EVERY {
            return None;
        }
        let ops = self.committed.0 - self.said.0;
        self.said = self.committed;
        self.said_at = Instant::now();
        let op = self.committed;
        Some(Line::new(
            Level::Info,
            "progress",
            format!("committed up to op {op}, {ops} ops since the last report"),
            json!({ "commit": op, "ops": ops }),
        ))
    }
}

/// A node at work.
struct Running {
    driver: Driver,
    node: Node,
    recorder: Recorder,
    log: Log,
    geometry: Geometry,
    progress: Progress,
}

impl Running {
    fn until(mut self, stop: &Stop) -> Result<(), Failure> {
        let mut notes = Vec::new();
        // The first event opens the journal; nothing else would come by itself.
        let (mut now, mut event) = (self.driver.now(), Event::Wake);
        loop {
            let Self { recorder, node, driver, .. } = &mut self;
            if let Some(line) = recorder.hand_over(node, (now, event), driver, &mut notes) {
                self.log.write(&line);
            }
            self.tell(&mut notes);
            if let Some(reason) = self.node.halted() {
                let halted = self.halted(reason);
                self.end_recording(Ended::Halted);
                return Err(halted);
            }
            if stop.is_asked() {
                let commit = self.node.replica().commit();
                let text = format!("stopped as asked, committed up to op {commit}");
                self.log.write(&Line::new(Level::Info, "stopped", text, json!({ "commit": commit })));
                self.end_recording(Ended::Stopped);
                return Ok(());
            }
            (now, event) = self.driver.next(self.node.wake_at())?;
        }
    }

    fn end_recording(self, why: Ended) {
        if let Some(line) = self.recorder.end(why, &self.node) {
            self.log.write(&line);
        }
    }

    fn tell(&mut self, notes: &mut Vec<Note>) {
        for note in notes.drain(..) {
            if let Note::Committed { applied, .. } = &note {
                self.progress.committed = applied.op;
            }
            if self.log.tells(&note) {
                self.log.write(&log::of_note(&note, &self.geometry));
            }
        }
        for note in self.driver.take_notes() {
            self.log.write(&log::of_driver(&note));
        }
        if let Some(line) = self.progress.line() {
            self.log.write(&line);
        }
    }

    fn halted(&self, reason: HaltReason) -> Failure {
        let place = match reason {
            HaltReason::Damaged { place, .. }
            | HaltReason::Storage(kimberlite_storage::HaltReason::WriteFailed { place }) => Some(place),
            HaltReason::Storage(_) => None,
        };
        let file = place.map(|place| format!(" (that is {})", files::locate(place, &self.geometry)));
        Failure::failed(format!(
            "replica {} halted: {reason}{}",
            self.log.replica(),
            file.unwrap_or_default()
        ))
    }
}
