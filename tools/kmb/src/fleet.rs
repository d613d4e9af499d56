//! A cluster of child processes of this program, to be killed and started again.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kimberlite_types::Streams;
use rustix::process::{Pid, Signal, kill_process};

use crate::dev::{Plan, own_program};
use crate::failure::Kind;
use crate::{Connection, Failure, random, status};

/// How long a cluster may take to come back to where all is well.
pub const HEAL_PATIENCE: Duration = Duration::from_mins(2);

/// How long a node that was asked to stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// The ports of nodes are drawn from here, as far as it lies below those that the kernel gives to outgoing
/// connections, so that none of them takes the port of a node that is down.
const PORTS: Range<u64> = 10_000..32_000;

/// How many ports are tried.
const PORT_TRIES: u32 = 1000;

/// Where the kernel says which ports it gives to outgoing connections.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// [`PORTS`] without those that outgoing connections get, unless they get all of them.
fn ports() -> Range<u64> {
    let first = fs::read_to_string(OUTGOING).ok();
    let first = first.and_then(|range| range.split_whitespace().next()?.parse().ok());
    let end = first.filter(|first| *first > PORTS.start).unwrap_or(PORTS.end);
    PORTS.start..end.min(PORTS.end)
}

impl Plan {
    /// `nodes` nodes on ports that nobody uses at the moment.
    pub fn on_free_ports(dir: PathBuf, nodes: u8) -> Result<Self, Failure> {
        let mut luck = Streams::new(random::number()?).stream("ports", 0);
        let ports = ports();
        let mut addresses = Vec::new();
        for _ in 0..PORT_TRIES {
            if addresses.len() == 2 * usize::from(nodes) {
                break;
            }
            let port = luck.between(ports.start, ports.end - 1) as u16;
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if !addresses.contains(&address) && TcpListener::bind(address).is_ok() {
                addresses.push(address);
            }
        }
        if addresses.len() < 2 * usize::from(nodes) {
            return Err(Failure::new(Kind::Io, "no free ports on 127.0.0.1"));
        }
        let replicas = addresses.split_off(usize::from(nodes));
        Ok(Self { dir, clients: addresses, replicas })
    }
}

/// Nodes as child processes. All are killed when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    plan: Plan,
    program: PathBuf,
    nodes: Vec<Child>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl Fleet {
    /// Nodes of this very program. They do not run yet.
    pub(crate) fn new(plan: Plan) -> Result<Self, Failure> {
        Ok(Self::of(plan, own_program()?))
    }

    /// Nodes of the `kmb` at `program`. They do not run yet.
    pub fn of(plan: Plan, program: PathBuf) -> Self {
        Self { program, nodes: Vec::new(), plan }
    }

    /// The number of a node's process.
    pub fn process(&self, node: usize) -> u32 {
        self.nodes[node].id()
    }

    /// Starts all nodes; they are formatted.
    pub fn start(&mut self) -> Result<(), Failure> {
        assert!(self.nodes.is_empty(), "a fleet starts once");
        for node in 0..self.plan.clients.len() {
            let child = self.spawn(node)?;
            self.nodes.push(child);
        }
        Ok(())
    }

    /// Where the nodes are.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Starts a node; what it says is appended to `nodeN.log`.
    fn spawn(&self, node: usize) -> Result<Child, Failure> {
        let path = self.plan.dir.join(format!("node{node}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let (out, err) =
            log.and_then(|log| Ok((log.try_clone()?, log))).map_err(|error| Failure::on(&path, &error))?;
        Command::new(&self.program)
            .args(self.plan.start_args(node))
            .args(["--log", "json", "--stop-with-stdin"])
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| Failure::on(&self.program, &error))
    }

    /// Kills a running node with SIGKILL. Answers the number its process had.
    pub fn kill(&mut self, node: usize) -> Result<u32, Failure> {
        self.check_running(node)?;
        let child = &mut self.nodes[node];
        let process = child.id();
        child.kill().and_then(|()| child.wait()).map_err(|error| Failure::on(&self.program, &error))?;
        Ok(process)
    }

    /// Starts a node that was killed.
    pub fn restart(&mut self, node: usize) -> Result<(), Failure> {
        self.nodes[node] = self.spawn(node)?;
        Ok(())
    }

    /// Ends all nodes cleanly, with SIGTERM.
    pub fn stop(&mut self) -> Result<(), Failure> {
        for index in 0..self.nodes.len() {
            self.check_running(index)?;
            kill_process(Pid::from_child(&self.nodes[index]), Signal::TERM)
                .map_err(|error| Failure::on(&self.program, &error.into()))?;
        }
        let until = Instant::now() + STOP_PATIENCE;
        for index in 0..self.nodes.len() {
            let status = loop {
                let ended = self.nodes[index].try_wait();
                if let Some(status) = ended.map_err(|error| Failure::on(&self.program, &error))? {
                    break status;
                }
                if Instant::now() >= until {
                    return Err(self.about(index, "does not stop"));
                }
                thread::sleep(Duration::from_millis(5));
            };
            if !status.success() {
                return Err(self.about(index, &format!("did not stop cleanly ({status})")));
            }
        }
        Ok(())
    }

    fn check_running(&mut self, node: usize) -> Result<(), Failure> {
        match self.nodes[node].try_wait() {
            Ok(Some(status)) => Err(self.about(node, &format!("ended by itself ({status})"))),
            _ => Ok(()),
        }
    }

    fn about(&self, node: usize, what: &str) -> Failure {
        Failure::failed(format!("node {node} {what}; see {}/node{node}.log", self.plan.dir.display()))
    }

    /// Waits until all nodes are in one view, nothing on their disks is damaged, and each has what the primary
    /// had committed when it was asked. Answers the primary.
    pub fn heal(&mut self, watcher: &mut Connection) -> Result<usize, Failure> {
        let begun = Instant::now();
        let mut wanted = None;
        loop {
            let rows = status::ask_all(watcher)?;
            let known: Vec<_> = rows.iter().filter_map(|(_, status)| status.as_ref().ok()).collect();
            let normal = known.len() == rows.len()
                && known.iter().all(|status| status.state == "normal" && status.view == known[0].view);
            if normal {
                let target = *wanted.get_or_insert_with(|| known.iter().map(|status| status.commit).max());
                let whole = known.iter().all(|status| status.faulty == 0 && Some(status.commit) >= target);
                if whole {
                    return Ok(usize::from(known[0].primary.0));
                }
            }
            (0..self.nodes.len()).try_for_each(|node| self.check_running(node))?;
            if begun.elapsed() > HEAL_PATIENCE {
                let states: Vec<String> = rows
                    .iter()
                    .map(|(address, status)| match status {
                        Ok(status) => format!("{address}: {status:?}"),
                        Err(failure) => format!("{address}: {failure}"),
                    })
                    .collect();
                return Err(Failure::failed(format!("the cluster does not heal: {}", states.join("; "))));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}
