//! `kmb torture`: kills nodes with `kill -9`, again and again, while records are appended. Then checks that every
//! acknowledged record is there once, in order, on every node.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use clap::Args;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{ClusterId, Rng, Streams};

use crate::address::{Name, name};
use crate::connection::{Connection, Options};
use crate::dev::{Plan, own_program};
use crate::format::LayoutName;
use crate::load::{self, Acknowledged};
use crate::output::{say, thousands};
use crate::signals::{Stop, on_signal};
use crate::{Failure, failure::Kind, random, read, status, verify, walk};

/// How long a cluster may take to come back to where all is well.
const HEAL_PATIENCE: Duration = Duration::from_mins(2);

/// What `kmb torture` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  kmb torture --kills 50 --nodes 3

Every third victim is the primary. Exit codes: 0 nothing was lost, 1 something was (the directory is kept).")]
pub(crate) struct Torture {
    /// How often a node is killed
    #[arg(long, value_name = "N", default_value_t = 50)]
    kills: u32,
    /// How many nodes, 1 to 6
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=REPLICAS_MAX as i64))]
    nodes: u8,
    /// Sessions that append
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Where the data goes; kept at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Decides victims and waits
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Tiny segments, so that they seal after a few dozen ops
    #[arg(long)]
    small: bool,
}

/// Nodes as child processes. All are killed when this is dropped.
struct Fleet {
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
    fn start(plan: Plan) -> Result<Self, Failure> {
        let mut fleet = Self { program: own_program()?, nodes: Vec::new(), plan };
        for node in 0..fleet.plan.clients.len() {
            let child = fleet.spawn(node)?;
            fleet.nodes.push(child);
        }
        Ok(fleet)
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

    fn kill(&mut self, node: usize) -> Result<(), Failure> {
        let child = &mut self.nodes[node];
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::failed(format!(
                "node {node} ended by itself ({status}); see {}/node{node}.log",
                self.plan.dir.display()
            )));
        }
        child.kill().and_then(|()| child.wait()).map_err(|error| Failure::on(&self.program, &error))?;
        Ok(())
    }

    fn restart(&mut self, node: usize) -> Result<(), Failure> {
        self.nodes[node] = self.spawn(node)?;
        Ok(())
    }

    /// Ends all nodes cleanly.
    fn stop(&mut self) -> Result<(), Failure> {
        for node in &mut self.nodes {
            drop(node.stdin.take());
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let status = node.wait().map_err(|error| Failure::on(&self.program, &error))?;
            if !status.success() {
                return Err(Failure::failed(format!(
                    "node {index} did not stop cleanly ({status}); see {}/node{index}.log",
                    self.plan.dir.display()
                )));
            }
        }
        Ok(())
    }
}

/// Runs the command.
pub(crate) fn run(args: &Torture) -> Result<(), Failure> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => env::temp_dir().join(format!("kimberlite-torture-{:016x}", random::number()?)),
    };
    let seed = match args.seed {
        Some(seed) => seed,
        None => random::number()?,
    };
    let plan = plan(dir, args.nodes)?;
    say(&format!("{} nodes, {} kills, seed {seed}, data in {}", args.nodes, args.kills, plan.dir.display()))?;
    plan.format(if args.small { LayoutName::Small } else { LayoutName::Production })?;
    let ordeal = Ordeal {
        kills: args.kills,
        clients: args.clients,
        rng: Streams::new(seed).stream("torture", 0),
        stream: name("torture").map_err(Failure::usage)?,
        tenant: name("default").map_err(Failure::usage)?,
        acknowledged: Arc::default(),
        fleet: Fleet::start(plan.clone())?,
        plan: plan.clone(),
    };
    ordeal.run().map_err(|failure| {
        Failure::new(failure.kind(), format!("{failure} (seed {seed}, kept: {})", plan.dir.display()))
    })?;
    if args.dir.is_none() {
        fs::remove_dir_all(&plan.dir).map_err(|error| Failure::on(&plan.dir, &error))?;
    }
    Ok(())
}

/// The ports of nodes are drawn from here: below those that the kernel gives to outgoing connections, so that
/// none of them takes the port of a node that is down.
const PORTS: std::ops::Range<u64> = 10_000..32_000;

/// How many ports are tried.
const PORT_TRIES: u32 = 1000;

/// A plan with ports that nobody uses at the moment.
fn plan(dir: PathBuf, nodes: u8) -> Result<Plan, Failure> {
    let mut luck = Streams::new(random::number()?).stream("ports", 0);
    let mut addresses = Vec::new();
    for _ in 0..PORT_TRIES {
        if addresses.len() == 2 * usize::from(nodes) {
            break;
        }
        let port = luck.between(PORTS.start, PORTS.end - 1) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if !addresses.contains(&address) && TcpListener::bind(address).is_ok() {
            addresses.push(address);
        }
    }
    if addresses.len() < 2 * usize::from(nodes) {
        return Err(Failure::new(Kind::Io, "no free ports on 127.0.0.1"));
    }
    let replicas = addresses.split_off(usize::from(nodes));
    Ok(Plan { dir, clients: addresses, replicas })
}

struct Ordeal {
    kills: u32,
    clients: u16,
    rng: Rng,
    stream: Name,
    tenant: Name,
    acknowledged: Arc<AtomicU64>,
    fleet: Fleet,
    plan: Plan,
}

impl Ordeal {
    fn run(mut self) -> Result<(), Failure> {
        let journal = self.plan.dir.join("acknowledged.txt");
        let stop = Stop::default();
        on_signal(&stop, None)?;
        let mut watcher = Connection::open(
            &self.plan.clients,
            Options { give_up_after: Some(Duration::from_secs(5)), ..Options::default() },
        )?;
        self.heal(&mut watcher)?;
        let load = self.load(&journal, &stop);
        let killed = self.kill_all(&mut watcher, &stop);
        stop.ask();
        let summary = load.join().map_err(|_| Failure::failed("the load panicked"))?;
        killed?;
        let summary = summary?;
        self.heal(&mut watcher)?;
        say(&format!(
            "{} records acknowledged in {:.1} s, {} of unknown outcome; checking",
            thousands(summary.acknowledged),
            summary.elapsed.as_secs_f64(),
            summary.unknown
        ))?;
        let journal = load::read_journal(&journal)?;
        self.check_served(&mut watcher, &journal)?;
        self.fleet.stop()?;
        self.check_stored(&journal)
    }

    fn load(
        &self,
        journal: &std::path::Path,
        stop: &Stop,
    ) -> thread::JoinHandle<Result<load::Summary, Failure>> {
        let plan = load::Plan {
            nodes: self.plan.clients.clone(),
            cluster: ClusterId::UNNAMED,
            tenant: self.tenant.clone(),
            stream: self.stream.clone(),
            clients: self.clients,
            size: 100,
            duration: None,
            count: None,
            journal: Some(journal.to_path_buf()),
        };
        let (stop, acknowledged) = (stop.clone(), Arc::clone(&self.acknowledged));
        thread::spawn(move || load::load(&plan, &stop, &acknowledged))
    }

    fn kill_all(&mut self, watcher: &mut Connection, stop: &Stop) -> Result<(), Failure> {
        for kill in 1..=self.kills {
            if stop.is_asked() {
                return Err(Failure::failed("the load ended early, or the test was interrupted"));
            }
            self.await_progress()?;
            thread::sleep(Duration::from_millis(self.rng.between(0, 300)));
            let nodes = self.plan.clients.len() as u64;
            let primary = self.heal(watcher)?;
            let victim = if kill % 3 == 0 { primary } else { self.rng.below(nodes) as usize };
            let begun = Instant::now();
            self.fleet.kill(victim)?;
            thread::sleep(Duration::from_millis(self.rng.between(0, 800)));
            self.fleet.restart(victim)?;
            self.heal(watcher)?;
            let word = if victim == primary { ", the primary" } else { "" };
            say(&format!(
                "kill {kill}: node {victim}{word}; healed after {:.1} s, {} acknowledged so far",
                begun.elapsed().as_secs_f64(),
                thousands(self.acknowledged.load(Ordering::Relaxed))
            ))?;
        }
        Ok(())
    }

    /// Waits until records are acknowledged.
    fn await_progress(&self) -> Result<(), Failure> {
        let before = self.acknowledged.load(Ordering::Relaxed);
        let begun = Instant::now();
        while self.acknowledged.load(Ordering::Relaxed) < before + 20 {
            if begun.elapsed() > HEAL_PATIENCE {
                return Err(Failure::failed("nothing is acknowledged any more"));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until all nodes are in one view, nothing on their disks is damaged, and each has what the primary
    /// had committed when it was asked. Answers the primary.
    fn heal(&mut self, watcher: &mut Connection) -> Result<usize, Failure> {
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
            for (index, node) in self.fleet.nodes.iter_mut().enumerate() {
                if let Ok(Some(status)) = node.try_wait() {
                    return Err(Failure::failed(format!("node {index} ended by itself ({status})")));
                }
            }
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

    /// What the cluster answers.
    fn check_served(&self, watcher: &mut Connection, journal: &[Acknowledged]) -> Result<(), Failure> {
        let mut records = Vec::new();
        read::read(watcher, &self.tenant, &self.stream, 0, None, |_, record| {
            records.push(record.to_vec());
            Ok(true)
        })?;
        load::check(&records, journal)
            .map_err(|wrong| Failure::failed(format!("the cluster's answer: {wrong}")))?;
        say(&format!(
            "served: {} records, all that was acknowledged among them",
            thousands(records.len() as u64)
        ))
    }

    /// What each node has on disk.
    fn check_stored(&self, journal: &[Acknowledged]) -> Result<(), Failure> {
        for node in 0..self.plan.clients.len() {
            let data = self.plan.data(node);
            let verdict = verify::verify(&data, |_| {})?;
            if let Some(finding) = verdict.finding {
                return Err(Failure::failed(format!("node {node}: op {}: {}", finding.op, finding.what)));
            }
            if let Some(missing) = verdict.missing {
                let said = format!("node {node}: {} ops from {} on are missing", missing.ops, missing.first);
                return Err(Failure::failed(said));
            }
            let (records, head) = walk::stream(&data, &self.tenant, &self.stream)?;
            if head != verdict.totals.op {
                return Err(Failure::failed(format!(
                    "node {node}: the walk ends at op {head}, verification at {}",
                    verdict.totals.op
                )));
            }
            load::check(&records, journal)
                .map_err(|wrong| Failure::failed(format!("node {node} on disk: {wrong}")))?;
            say(&format!(
                "node {node}: whole up to op {head}, {} records, head hash {}",
                thousands(records.len() as u64),
                read::hex(verdict.totals.chain.as_bytes())
            ))?;
        }
        Ok(())
    }
}
