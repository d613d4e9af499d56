//! The second phase: a core that suffices is healed, all else stays broken, and the core must converge.
//!
//! A core is at least a view-change quorum. What it needs it may lack: a damaged prepare whose only intact copy
//! lies outside, or an op of which it cannot tell whether it was committed. Then, and only then, the core is
//! widened; a core that lacks nothing and makes no progress is a failure, and so is one that has all replicas.

use std::fmt::Write as _;
use std::time::Duration;

use kimberlite_io_sim::{DiskRates, Link, NodeId};
use kimberlite_runtime::Node;
use kimberlite_types::{Instant, Op, ReplicaId};
use kimberlite_vsr::Status;

use crate::checker::Observation;
use crate::cluster::Cluster;
use crate::failure::{Failure, FailureKind};
use crate::run::{Run, Tick};
use crate::sql::SqlWork;

/// How often the second phase is looked at, in virtual time.
const WATCH: Duration = Duration::from_millis(50);

/// A standstill that may have a cause which shows only now and then.
const NO_VIEW: &str = "no view begins";

/// Questions of the second phase.
const ORDER: u64 = 900;
const EXTRA: u64 = 901;
const REST: u64 = 902;

/// The second phase.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// The healed replicas.
    pub(crate) core: Vec<ReplicaId>,
    /// Those that may yet be healed, next one last.
    spare: Vec<ReplicaId>,
    deadline: Instant,
    /// What the core was last seen to lack since it was widened last. Only a primary that waits can tell, so it does
    /// not show while the turn is at a replica outside the core.
    lacked: Option<&'static str>,
}

/// Why the core has not converged.
struct Reason {
    class: &'static str,
    /// Whether replicas outside the core may have what is missing.
    lacking: bool,
}

impl Run {
    /// Chooses and heals a core, breaks the rest for good, and lets every client ask once more.
    pub(crate) fn begin_liveness(&mut self) -> Result<(), Failure> {
        self.end_play();
        let quorums = self.config.config(ReplicaId(0)).quorums();
        let needed = usize::from(quorums.view_change.max(quorums.replication));
        let mut able: Vec<ReplicaId> =
            self.cluster.replicas().filter(|replica| self.doomed & (1 << replica.0) == 0).collect();
        for last in (1..able.len()).rev() {
            let other = self.draw(ORDER, last as u64 + 1) as usize;
            able.swap(last, other);
        }
        assert!(able.len() >= needed, "disks die within the budget");
        // A story ends with everybody in it.
        let extra = match self.play {
            Some(_) => able.len() - needed,
            None => self.draw(EXTRA, (able.len() - needed) as u64 + 1) as usize,
        };
        let spare = able.split_off(needed + extra);
        let deadline = self.now().after(self.config.liveness);
        self.heal_network();
        self.observe(&Observation::Healed { core: &able })?;
        self.liveness = Some(Liveness { core: able.clone(), spare, deadline, lacked: None });
        for replica in self.cluster.replicas() {
            if !able.contains(&replica) {
                self.exclude(replica)?;
            }
        }
        for replica in able {
            self.include(replica)?;
        }
        self.revive_clients()?;
        self.schedule(WATCH, Tick::Watch);
        Ok(())
    }

    fn heal_network(&mut self) {
        let network = self.cluster.world.network_mut();
        network.heal();
        network.set_replica_links(Link::HEALTHY);
        network.set_client_links(Link::HEALTHY);
    }

    /// Leaves a replica out: down for good, or cut off for good.
    fn exclude(&mut self, replica: ReplicaId) -> Result<(), Failure> {
        let doomed = self.doomed & (1 << replica.0) != 0;
        if doomed || self.draw(REST, 2) == 0 {
            return self.crash_replica(replica);
        }
        self.cluster.world.network_mut().isolate(Cluster::node_of(replica));
        Ok(())
    }

    /// Ends all faults of a replica but the damage that is on its disk already.
    fn include(&mut self, replica: ReplicaId) -> Result<(), Failure> {
        let node = Cluster::node_of(replica);
        let disk = self.cluster.world.disk_mut(node);
        disk.rates = DiskRates::HEALTHY;
        disk.limit(None);
        self.cluster.world.clock_mut(node).heal();
        self.cluster.world.resume(node);
        if !self.cluster.world.is_up(node) {
            self.start_replica(replica)?;
        }
        Ok(())
    }

    fn revive_clients(&mut self) -> Result<(), Failure> {
        self.workload.stop_after(u32::from(self.config.work.clients));
        for client in 0..self.config.clients() {
            let node = self.cluster.client_node(client);
            self.cluster.world.clock_mut(node).heal();
            self.cluster.world.resume(node);
            if !self.cluster.world.is_up(node) {
                self.cluster.start_client(client);
            }
            if client < self.config.work.clients {
                self.ask_next(client)?;
            }
        }
        self.workload.stop_after(0);
        self.close_sql();
        Ok(())
    }

    /// Looks whether the core converged; if time is up, says why not. Tells whether the run is over.
    pub(crate) fn watch(&mut self) -> Result<bool, Failure> {
        let Some(mut reason) = self.unconverged() else { return Ok(true) };
        let liveness = self.liveness.as_mut().expect("only the second phase is watched");
        if reason.lacking {
            liveness.lacked = Some(reason.class);
        } else if let (NO_VIEW, Some(class)) = (reason.class, liveness.lacked) {
            reason = Reason { class, lacking: true };
        }
        if self.cluster.world.time() < liveness.deadline {
            self.schedule(WATCH, Tick::Watch);
            return Ok(false);
        }
        if reason.lacking
            && let Some(replica) = liveness.spare.pop()
        {
            liveness.core.push(replica);
            liveness.lacked = None;
            liveness.deadline = self.cluster.world.time().after(self.config.liveness);
            self.widen(replica)?;
            self.schedule(WATCH, Tick::Watch);
            return Ok(false);
        }
        let seen = self.explain(&reason);
        Err(Failure::new(FailureKind::Stuck, "core", reason.class, seen, None))
    }

    fn widen(&mut self, replica: ReplicaId) -> Result<(), Failure> {
        self.tally.counts.core_widened += 1;
        let core = self.liveness.as_ref().expect("the second phase").core.clone();
        self.observe(&Observation::Healed { core: &core })?;
        let clients = 0..self.config.clients();
        let others: Vec<NodeId> = core
            .into_iter()
            .map(Cluster::node_of)
            .chain(clients.map(|client| self.cluster.client_node(client)))
            .collect();
        let node = [Cluster::node_of(replica)];
        let network = self.cluster.world.network_mut();
        network.open(&node, &others);
        network.open(&others, &node);
        self.include(replica)
    }

    fn core(&self) -> impl Iterator<Item = (ReplicaId, Option<&Node>)> + Clone + '_ {
        let core = self.liveness.as_ref().map(|liveness| liveness.core.as_slice()).unwrap_or_default();
        core.iter().map(|replica| (*replica, self.cluster.node(*replica)))
    }

    /// Why the core has not converged; nothing if it has.
    fn unconverged(&self) -> Option<Reason> {
        let lacking = |class| Some(Reason { class, lacking: true });
        let stuck = |class| Some(Reason { class, lacking: false });
        let nodes: Vec<&Node> = self.core().filter_map(|(_, node)| node).collect();
        if nodes.len() < self.core().count() || nodes.iter().any(|node| node.halted().is_some()) {
            return stuck("a replica of the core is down");
        }
        let replicas = || nodes.iter().map(|node| node.replica());
        let quorum = usize::from(self.config.config(ReplicaId(0)).quorums().view_change);
        if replicas().filter(|vsr| vsr.status() != Status::Recovering).count() < quorum {
            return lacking("too few replicas of the core are certain of their log");
        }
        if replicas().any(|vsr| vsr.undecided().is_some()) {
            return lacking("whether an op was committed is undecided");
        }
        if !replicas().any(kimberlite_vsr::Replica::is_primary) {
            return stuck(NO_VIEW);
        }
        if let Some(op) = replicas().flat_map(kimberlite_vsr::Replica::wanted).next() {
            return if self.is_lost_to_core(op) {
                lacking("no replica of the core holds a prepare that is wanted")
            } else {
                stuck("a repair does not end")
            };
        }
        let first = nodes[0].replica();
        if replicas().any(|vsr| vsr.status() != Status::Normal || vsr.view() != first.view()) {
            return stuck("a replica of the core does not join the view");
        }
        if self.workload.open_total() + self.sql.as_ref().map_or(0, SqlWork::open_total) > 0 {
            return stuck("a request has no outcome");
        }
        let settled =
            |vsr: &kimberlite_vsr::Replica| vsr.commit() == vsr.op() && vsr.commit() == first.commit();
        if !replicas().all(settled) {
            return stuck("replicas of the core do not reach the same commit");
        }
        if nodes.iter().any(|node| node.digest() != nodes[0].digest()) {
            return stuck("replicas of the core have different states");
        }
        if nodes.iter().any(|node| node.storage().pending() + node.storage().in_flight() > 0) {
            return stuck("a journal of the core does not come to rest");
        }
        let busy = |node: &&Node| {
            let (requests, queries) = node.unanswered();
            node.replica().load() != kimberlite_vsr::Load::default() || requests + queries > 0
        };
        if nodes.iter().any(busy) {
            return stuck("a replica of the core does not come to rest");
        }
        None
    }

    /// Whether every replica of the core wants this op itself or has not come as far.
    fn is_lost_to_core(&self, op: Op) -> bool {
        self.core().filter_map(|(_, node)| node).all(|node| {
            let vsr = node.replica();
            vsr.op() < op || vsr.wanted().any(|wanted| wanted == op)
        })
    }

    fn explain(&self, reason: &Reason) -> String {
        let mut text = format!("{} within {:?}", reason.class, self.config.liveness);
        for (replica, node) in self.core() {
            let Some(node) = node else {
                write!(text, "; replica {replica}: down").expect("strings grow");
                continue;
            };
            let vsr = node.replica();
            let wanted: Vec<Op> = vsr.wanted().take(8).collect();
            write!(
                text,
                "; replica {replica}: {} in view {} (log {}), op {}, commit {} of {}, undecided {:?}, wanted \
                 {wanted:?}, in flight {}, waiting {}, journal {} + {}, unanswered {:?}, {:?}",
                vsr.status().name(),
                vsr.view(),
                vsr.log_view(),
                vsr.op(),
                vsr.commit(),
                vsr.commit_max(),
                vsr.undecided(),
                vsr.in_flight(),
                vsr.waiting(),
                node.storage().pending(),
                node.storage().in_flight(),
                node.unanswered(),
                vsr.load(),
            )
            .expect("strings grow");
        }
        // What each waits for, by name: a quorum, a prepare, a read.
        for (replica, node) in self.core() {
            let waits: Vec<String> = node
                .map(|node| node.replica().waits())
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect();
            if !waits.is_empty() {
                write!(text, "; replica {replica} waits for {}", waits.join(", ")).expect("strings grow");
            }
        }
        let sql = self.sql.iter().flat_map(SqlWork::open_by_client);
        for (client, tickets) in self.workload.open_by_client().chain(sql) {
            write!(text, "; client {client} waits for {tickets:?}").expect("strings grow");
        }
        text
    }
}
