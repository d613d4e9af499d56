//! Nodes as child processes, and commands run against them. Everything is bounded in time; nothing outlives
//! the test, not even if the test is killed: a node's standard input ends then.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take: generous, for a small machine that also builds.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Expects success. Answers standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Expects this exit code and these words on standard error.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "`{word}` is missing: {self:?}");
        }
    }

    /// Expects success and lines of JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Vec<Value> {
        self.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kmb"));
    command.args(args).env_remove("KMB_NODES").env_remove("KMB_CLUSTER").env("NO_COLOR", "1");
    command
}

/// Runs `kmb` to its end.
#[track_caller]
pub(crate) fn kmb(args: &[&str]) -> Said {
    kmb_with(args, b"")
}

/// Runs `kmb` with this on its standard input.
#[track_caller]
pub(crate) fn kmb_with(args: &[&str], input: &[u8]) -> Said {
    let mut child =
        command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let feed = thread::spawn(move || {
        // A command that refuses does not read its input.
        let _ = stdin.write_all(&input);
    });
    let drain = |mut from: Box<dyn std::io::Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = drain(Box::new(child.stdout.take().unwrap()));
    let err = drain(Box::new(child.stderr.take().unwrap()));
    let status = ended(&mut child, args);
    feed.join().unwrap();
    Said { code: status.code().unwrap_or(-1), out: out.join().unwrap(), err: err.join().unwrap() }
}

#[track_caller]
fn ended(child: &mut Child, what: &[&str]) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("`kmb {}` does not end", what.join(" "));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A running `kmb start` or `kmb dev`.
pub(crate) struct Running {
    child: Child,
    args: Vec<String>,
    lines: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub(crate) fn spawn(args: &[&str]) -> Self {
        Self::start(command(args), args)
    }

    /// Runs another program, which may become `kmb`.
    pub(crate) fn spawn_program(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).env("NO_COLOR", "1");
        Self::start(command, args)
    }

    fn start(mut command: Command, args: &[&str]) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = collect(child.stdout.take().unwrap());
        let errors = collect(child.stderr.take().unwrap());
        Self { child, args: args.iter().map(ToString::to_string).collect(), lines, errors }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to stop and expects that it does.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert!(status.success(), "{status}: {:?} {:?}", self.lines(), self.errors());
    }

    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        ended(&mut self.child, &args)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap().clone()
    }

    /// All lines of the log of this kind so far.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let values = self.lines().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
        values.filter(|value: &Value| value["event"] == name).collect()
    }

    /// Waits for a line of the log of this kind.
    #[track_caller]
    pub(crate) fn awaits(&self, name: &str) -> Value {
        await_some(&format!("event `{name}`"), || self.events(name).into_iter().next())
    }
}

fn collect(from: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    lines
}

/// Waits until there is something.
#[track_caller]
pub(crate) fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A directory that goes away with the test.
pub(crate) fn temporary() -> TempDir {
    tempfile::Builder::new().prefix("kmb-test-").tempdir().unwrap()
}

/// A lone node on a port of the kernel's choice.
pub(crate) struct Lone {
    pub(crate) data: PathBuf,
    pub(crate) node: Running,
    pub(crate) address: String,
}

impl Lone {
    /// Starts the node of a formatted directory.
    #[track_caller]
    pub(crate) fn start(data: &Path) -> Self {
        let node = Running::spawn(&[
            "start",
            "--data",
            text(data),
            "--listen",
            "127.0.0.1:0",
            "--log",
            "json",
            "--stop-with-stdin",
        ]);
        let address = node.awaits("listening")["clients"].as_str().unwrap().to_owned();
        Self { data: data.to_path_buf(), node, address }
    }

    /// Formats a directory below `dir` and starts its node.
    #[track_caller]
    pub(crate) fn new(dir: &Path, layout: &str) -> Self {
        let data = dir.join("data");
        kmb(&["format", "--data", text(&data), "--layout", layout]).ok();
        Self::start(&data)
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A port such that nobody uses those at these distances from it at the moment. Below the range that the kernel
/// gives to outgoing connections, so that none of those takes the port of a node that is down.
pub(crate) fn free_ports(offsets: &[u16]) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 600) as u16 * 20;
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    await_some("a group of free ports", || {
        let base = 12_000 + (start + NEXT.fetch_add(20, Ordering::Relaxed)) % 18_000;
        offsets.iter().all(|offset| free(base + offset)).then_some(base)
    })
}

/// The addresses of three nodes for clients and for each other, in the pattern of `kmb dev`.
pub(crate) fn free_addresses() -> (u16, String, String) {
    let base = free_ports(&[0, 1, 2, 10, 11, 12]);
    let list = |first: u16| (0..3).map(|node| format!("127.0.0.1:{}", first + node)).collect::<Vec<_>>();
    (base, list(base).join(","), list(base + 10).join(","))
}

/// Three nodes with small segments.
pub(crate) struct Three {
    pub(crate) dir: TempDir,
    pub(crate) nodes: String,
    pub(crate) replicas: String,
    pub(crate) running: Vec<Option<Running>>,
    /// Where each life of a node is recorded, if they are.
    pub(crate) recordings: Option<Vec<(usize, PathBuf)>>,
}

impl Three {
    /// Formats three nodes and starts them.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let mut three = Self::formatted();
        three.start();
        three
    }

    /// As [`Self::new`], and each life of each node is recorded in a file of its own.
    #[track_caller]
    pub(crate) fn recorded() -> Self {
        let mut three = Self::formatted();
        three.recordings = Some(Vec::new());
        three.start();
        three
    }

    #[track_caller]
    fn formatted() -> Self {
        let dir = temporary();
        let (_, nodes, replicas) = free_addresses();
        let secret = dir.path().join("secret");
        let three = Self { nodes, replicas, running: vec![None, None, None], recordings: None, dir };
        for replica in ["0", "1", "2"] {
            let data = three.dir.path().join(format!("node{replica}"));
            kmb(&[
                "format",
                "--data",
                text(&data),
                "--replica",
                replica,
                "--replicas",
                "3",
                "--cluster-id",
                "c0ffee",
                "--secret-file",
                text(&secret),
                "--layout",
                "small",
            ])
            .ok();
        }
        three
    }

    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node{node}"))
    }

    /// Starts the nodes that do not run.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        for node in 0..3 {
            if self.running[node].is_none() {
                let data = self.data(node);
                let mut args = vec![
                    "start",
                    "--data",
                    text(&data),
                    "--cluster",
                    &self.replicas,
                    "--clients",
                    &self.nodes,
                    "--log",
                    "json",
                    "--stop-with-stdin",
                ];
                if let Some(recordings) = &mut self.recordings {
                    let path = self.dir.path().join(format!("life{}.kmb", recordings.len()));
                    recordings.push((node, path));
                    let (_, path) = recordings.last().unwrap();
                    args.extend(["--record", text(path)]);
                }
                self.running[node] = Some(Running::spawn(&args));
            }
        }
    }

    pub(crate) fn node(&self, node: usize) -> &Running {
        self.running[node].as_ref().unwrap()
    }

    /// Waits until all nodes take part, lack nothing and have executed everything. Answers the rows.
    #[track_caller]
    pub(crate) fn settled(&self) -> Vec<Value> {
        await_some("a settled cluster", || {
            let said = kmb(&["status", "--nodes", &self.nodes, "--json"]);
            let status: Value = serde_json::from_str(&said.out).ok()?;
            let rows = status["nodes"].as_array()?.clone();
            let well = |row: &Value| {
                row["state"] == "normal"
                    && row["lag"] == 0
                    && row["faulty"] == 0
                    && row["op"] == row["commit"]
                    && row["view"] == rows[0]["view"]
            };
            (rows.len() == 3 && rows.iter().all(well)).then_some(rows)
        })
    }

    /// Stops all nodes cleanly.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        for node in &mut self.running {
            if let Some(node) = node.take() {
                node.stop();
            }
        }
    }

    /// Verifies each stopped node. Answers the head hashes.
    #[track_caller]
    pub(crate) fn head_hashes(&self) -> Vec<String> {
        (0..3)
            .map(|node| {
                let found = kmb(&["verify", text(&self.data(node)), "--json"]).json();
                assert_eq!(found[0]["whole"], true, "{found:?}");
                found[0]["head_hash"].as_str().unwrap().to_owned()
            })
            .collect()
    }
}

/// `count` lines of some length.
pub(crate) fn lines(count: usize) -> String {
    let line =
        |line: usize| ["line ".to_owned(), line.to_string(), " of a story of records that stay\n".to_owned()];
    (0..count).flat_map(line).collect()
}
