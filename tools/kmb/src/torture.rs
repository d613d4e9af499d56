//! `kmb torture`: kills nodes with `kill -9`, again and again, while records are appended. Then checks that every
//! acknowledged record is there once, in order, on every node.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use clap::Args;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{ClusterId, Rng, Streams};

use crate::address::{Name, name};
use crate::connection::{Connection, Options};
use crate::dev::Plan;
use crate::fleet::{Fleet, HEAL_PATIENCE};
use crate::format::LayoutName;
use crate::load::{self, Acknowledged};
use crate::output::{say, thousands};
use crate::signals::{Stop, on_signal};
use crate::{Failure, random, read, verify, walk};

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
    let plan = Plan::on_free_ports(dir, args.nodes)?;
    say(&format!("{} nodes, {} kills, seed {seed}, data in {}", args.nodes, args.kills, plan.dir.display()))?;
    plan.format(if args.small { LayoutName::Small } else { LayoutName::Production })?;
    let mut fleet = Fleet::new(plan.clone())?;
    fleet.start()?;
    let ordeal = Ordeal {
        kills: args.kills,
        clients: args.clients,
        rng: Streams::new(seed).stream("torture", 0),
        stream: name("torture").map_err(Failure::usage)?,
        tenant: name("default").map_err(Failure::usage)?,
        acknowledged: Arc::default(),
        fleet,
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
        on_signal(&stop, [])?;
        let mut watcher = Connection::open(
            &self.plan.clients,
            Options { give_up_after: Some(Duration::from_secs(5)), ..Options::default() },
        )?;
        self.fleet.heal(&mut watcher)?;
        let load = self.load(&journal, &stop);
        let killed = self.kill_all(&mut watcher, &stop);
        stop.ask();
        let summary = load.join().map_err(|_| Failure::failed("the load panicked"))?;
        killed?;
        let summary = summary?;
        self.fleet.heal(&mut watcher)?;
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
            batch: 1,
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
            let primary = self.fleet.heal(watcher)?;
            let victim = if kill % 3 == 0 { primary } else { self.rng.below(nodes) as usize };
            let begun = Instant::now();
            self.fleet.kill(victim)?;
            thread::sleep(Duration::from_millis(self.rng.between(0, 800)));
            self.fleet.restart(victim)?;
            self.fleet.heal(watcher)?;
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
