//! `kmb dev`: a whole cluster on this machine, each node a process of its own.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use clap::Args;
use kimberlite_types::limits::REPLICAS_MAX;

use crate::address::{CLIENT_PORT, NODES_DEFAULT, REPLICA_PORT_STEP};
use crate::format::{self, Identity, LayoutName, draw_cluster};
use crate::node_file::NodeFile;
use crate::output::{Colour, paint, say, takes_colour};
use crate::signals::{Stop, on_signal};
use crate::{Failure, random};

/// How long nodes that were asked to stop may take before they are killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A node that fails within this time could not start.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether a node has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One colour for each node.
const COLOURS: [Colour; REPLICAS_MAX] =
    [Colour::Cyan, Colour::Magenta, Colour::Yellow, Colour::Blue, Colour::Green, Colour::Red];

/// What `kmb dev` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb dev
  kmb dev --dir ./cluster --base-port 9000

Formats what is not formatted yet, runs the nodes and shows their logs until Ctrl-C. Without --dir the data is
temporary and removed at the end. A node that ends is not started again; the line to do so is printed.
Exit codes: 0 stopped by Ctrl-C, 1 a node could not start or all have ended, 2 wrong usage, 5 I/O error.")]
pub(crate) struct Dev {
    /// Where the data goes, one directory per node; kept at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many nodes, 1 to 6
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=REPLICAS_MAX as i64))]
    nodes: u8,
    /// The first port: node I listens for clients on it plus I, and for other nodes 10 above that
    #[arg(long, value_name = "PORT", default_value_t = CLIENT_PORT,
          value_parser = clap::value_parser!(u16).range(1..=65_500))]
    base_port: u16,
    /// Tiny segments, so that they seal after a few dozen ops
    #[arg(long, hide = true)]
    small: bool,
}

/// The addresses and directories of a cluster on this machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Holds a directory for each node, and what they share.
    pub dir: PathBuf,
    /// Where clients connect to, by replica.
    pub clients: Vec<SocketAddr>,
    /// Where replicas connect to, by replica.
    pub replicas: Vec<SocketAddr>,
}

impl Plan {
    /// `nodes` nodes on ports from `base_port` on.
    fn new(dir: PathBuf, nodes: u8, base_port: u16) -> Self {
        let addresses = |first: u16| {
            (0..u16::from(nodes)).map(|index| SocketAddr::from(([127, 0, 0, 1], first + index))).collect()
        };
        Self { dir, clients: addresses(base_port), replicas: addresses(base_port + REPLICA_PORT_STEP) }
    }

    /// Where a node's data is.
    pub fn data(&self, node: usize) -> PathBuf {
        self.dir.join(format!("node{node}"))
    }

    /// Formats the nodes whose directories are blank.
    pub fn format(&self, layout: LayoutName) -> Result<(), Failure> {
        fs::create_dir_all(&self.dir).map_err(|error| Failure::on(&self.dir, &error))?;
        let nodes = self.clients.len();
        let mut cluster = None;
        for node in (0..nodes).filter(|node| !format::is_blank(&self.data(*node))) {
            let file = NodeFile::read(&self.data(node))?;
            if usize::from(file.replicas) != nodes {
                return Err(Failure::usage(format!(
                    "{} holds a cluster of {} nodes; give --nodes {}",
                    self.dir.display(),
                    file.replicas,
                    file.replicas
                )));
            }
            cluster = Some(file.config()?.cluster);
        }
        let cluster = match cluster {
            Some(cluster) => cluster,
            None => draw_cluster()?,
        };
        for node in (0..nodes).filter(|node| format::is_blank(&self.data(*node))) {
            let secret = self.dir.join("link.secret");
            format::format(
                &self.data(node),
                &Identity::of(node as u8, nodes as u8, cluster, secret, layout),
            )?;
        }
        Ok(())
    }

    /// What follows `kmb` to start a node.
    pub(crate) fn start_args(&self, node: usize) -> Vec<String> {
        let list = |addresses: &[SocketAddr]| {
            addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
        };
        let mut args = vec!["start".to_owned(), "--data".to_owned(), self.data(node).display().to_string()];
        if self.clients.len() > 1 {
            args.extend(["--cluster".to_owned(), list(&self.replicas)]);
        }
        args.extend(["--clients".to_owned(), list(&self.clients)]);
        args
    }

    /// The nodes as `--nodes` takes them.
    fn nodes_option(&self) -> String {
        let nodes = self.clients.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        if nodes == NODES_DEFAULT { String::new() } else { format!(" --nodes {nodes}") }
    }
}

/// This very program.
pub(crate) fn own_program() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(|error| Failure::on(Path::new("/proc/self/exe"), &error))
}

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// A name that nobody else uses, below the directory for temporary files. Nothing is made yet.
    pub fn new(command: &str) -> Result<Self, Failure> {
        Self::below(&env::temp_dir(), command)
    }

    /// A name that nobody else uses, below `parent`. Nothing is made yet.
    pub fn below(parent: &Path, command: &str) -> Result<Self, Failure> {
        Ok(Self(parent.join(format!("kimberlite-{command}-{:016x}", random::number()?))))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves the directory where it is.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("kmb: {} could not be removed: {error}", self.0.display());
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Dev) -> Result<(), Failure> {
    let (dir, _temporary) = if let Some(dir) = &args.dir {
        (dir.clone(), None)
    } else {
        let temporary = Temporary::new("dev")?;
        (temporary.path().to_path_buf(), Some(temporary))
    };
    let stop = Stop::default();
    on_signal(&stop, [])?;
    let plan = Plan::new(dir, args.nodes, args.base_port);
    plan.format(if args.small { LayoutName::Small } else { LayoutName::Production })?;
    let program = own_program()?;
    let (send, lines) = channel();
    let mut nodes = Vec::new();
    for node in 0..plan.clients.len() {
        nodes.push(Some(spawn(&program, &plan, node, &send)?));
    }
    drop(send);
    introduce(&plan, &nodes, args.dir.is_some())?;
    let result = watch(&plan, &mut nodes, &lines, &stop);
    end(&mut nodes, &lines);
    result
}

fn spawn(program: &Path, plan: &Plan, node: usize, send: &Sender<String>) -> Result<Child, Failure> {
    let mut child = Command::new(program)
        .args(plan.start_args(node))
        .arg("--stop-with-stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::on(program, &error))?;
    let prefix = paint(&format!("node{node} |"), COLOURS[node], takes_colour());
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
        child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>),
    ];
    for output in outputs.into_iter().flatten() {
        let (send, prefix) = (send.clone(), prefix.clone());
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(io::Result::ok) {
                if send.send(format!("{prefix} {line}")).is_err() {
                    return;
                }
            }
        });
    }
    Ok(child)
}

fn introduce(plan: &Plan, nodes: &[Option<Child>], kept: bool) -> Result<(), Failure> {
    let nodes_option = plan.nodes_option();
    let kept = if kept { "kept at the end" } else { "removed at the end" };
    say(&format!("{} nodes, data in {} ({kept})\n", nodes.len(), plan.dir.display()))?;
    for (node, child) in nodes.iter().enumerate() {
        if let Some(child) = child {
            say(&format!("  node{node}  clients on {}, process {}", plan.clients[node], child.id()))?;
        }
    }
    say(&format!(
        "\nIn another terminal:\n  append   kmb append --stream readme --file README.md{nodes_option}\n  read     \
         kmb read --stream readme{nodes_option}\n  status   kmb status{nodes_option}\n  kill     kill -9 \
         {}\n\nAfter Ctrl-C, with --dir:\n  verify   kmb verify {}\n",
        nodes[0].as_ref().map_or(0, Child::id),
        plan.data(0).display(),
    ))
}

/// Shows the logs until it is asked to stop, or all nodes have ended.
fn watch(
    plan: &Plan,
    nodes: &mut [Option<Child>],
    lines: &Receiver<String>,
    stop: &Stop,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut looked = begun;
    while !stop.is_asked() {
        match lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => say(&line)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK_EVERY),
        }
        if looked.elapsed() < LOOK_EVERY {
            continue;
        }
        looked = Instant::now();
        for (index, node) in nodes.iter_mut().enumerate() {
            if let Some(child) = node
                && let Ok(Some(status)) = child.try_wait()
            {
                *node = None;
                // Ctrl-C reaches the nodes as well.
                let failed = status.code().is_some_and(|code| code != 0);
                if !stop.is_asked() && failed && begun.elapsed() < START_PATIENCE {
                    return Err(Failure::failed(format!("node{index} could not start, see above")));
                }
                if !stop.is_asked() {
                    farewell(plan, index, status)?;
                }
            }
        }
        if nodes.iter().all(Option::is_none) && !stop.is_asked() {
            // What they said last comes before the reason to end.
            lines.try_iter().try_for_each(|line| say(&line))?;
            return Err(Failure::failed("all nodes have ended"));
        }
    }
    Ok(())
}

fn farewell(plan: &Plan, node: usize, status: ExitStatus) -> Result<(), Failure> {
    say(&format!(
        "node{node} ended ({status}); start it again in another terminal with\n  kmb {}",
        plan.start_args(node).join(" ")
    ))
}

/// Ends all nodes: their standard input ends, and those that do not follow are killed.
fn end(nodes: &mut [Option<Child>], lines: &Receiver<String>) {
    for child in nodes.iter_mut().flatten() {
        drop(child.stdin.take());
    }
    let until = Instant::now() + STOP_PATIENCE;
    for child in nodes.iter_mut().flatten() {
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        if matches!(child.try_wait(), Ok(None)) {
            // Nothing that was acknowledged depends on a clean end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
    for line in lines.try_iter() {
        let _ = writeln!(io::stdout().lock(), "{line}");
    }
}
