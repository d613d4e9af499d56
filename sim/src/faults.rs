//! When something breaks, what, and when it ends: the policy of the first phase.

use std::time::Duration;

use kimberlite_io::{Place, Zone};
use kimberlite_io_sim::{Damage, DiskFault, NodeId};
use kimberlite_types::ReplicaId;
use kimberlite_types::limits::SECTOR_SIZE;

use crate::choice::Chosen;
use crate::cluster::Cluster;
use crate::config::{Every, Family};
use crate::failure::Failure;
use crate::run::{Ambush, Run, Tick};

/// What is drawn for a fault. Each has a lane of its own in each family.
#[derive(Clone, Copy)]
pub(crate) enum Question {
    When,
    Whom,
    How,
    Long,
    Where,
    Again,
    Detail,
    Ambush,
}

pub(crate) const fn lane(family: Family, question: Question) -> u64 {
    family as u64 * 8 + question as u64
}

/// How long a process runs before a crash loop takes it again, on average.
const LOOP_MEAN: Duration = Duration::from_millis(15);

/// Sectors damaged at a restart, less than.
const ROT_WHILE_DOWN_MAX: u64 = 6;

/// Sectors of the grid damaged at once, and while a replica is down, at most.
const GRID_SECTORS_MAX: u64 = 12;

/// Sectors tried before damage is given up.
const DAMAGE_TRIES: u32 = 6;

impl Run {
    /// Sets the first timer of every family.
    pub(crate) fn begin_faults(&mut self) {
        for family in Family::ALL {
            self.again(family);
        }
    }

    fn every(&self, family: Family) -> Option<Every> {
        self.config.faults.families.get(&family).copied()
    }

    fn again(&mut self, family: Family) {
        if let Some(every) = self.every(family) {
            let wait = self.wait(lane(family, Question::When), every.mean);
            self.schedule(wait, Tick::Family(family));
        }
    }

    /// How long the fault that just began lasts.
    fn lasting(&mut self, family: Family) -> Duration {
        let mean = self.every(family).map_or(Duration::ZERO, |every| every.last);
        self.wait(lane(family, Question::Long), mean)
    }

    fn ask(&mut self, family: Family, question: Question, bound: u64) -> u64 {
        self.draw(lane(family, question), bound)
    }

    fn any_replica(&mut self, family: Family) -> ReplicaId {
        ReplicaId(self.ask(family, Question::Whom, u64::from(self.config.replicas)) as u8)
    }

    /// The primary as often as any other: faults matter most there.
    fn some_replica(&mut self, family: Family) -> ReplicaId {
        let primary = self.cluster.primary();
        match (self.ask(family, Question::Detail, 2), primary) {
            (0, Some(primary)) => primary,
            _ => self.any_replica(family),
        }
    }

    fn any_node(&mut self, family: Family) -> NodeId {
        let nodes = self.cluster.nodes().count() as u64;
        NodeId(self.ask(family, Question::Whom, nodes) as u16)
    }

    /// Something is due in the first phase.
    pub(crate) fn on_fault_tick(&mut self, tick: Tick) -> Result<(), Failure> {
        match tick {
            Tick::Family(family) => {
                self.choose(Chosen::Strike(family), |run| run.strike(family)).unwrap_or(Ok(()))?;
                self.again(family);
            }
            Tick::Restart(node) => self.restart(node)?,
            Tick::CrashAgain(node) => {
                if let Some(replica) = self.cluster.replica_on(node) {
                    self.crash_for_a_while(replica)?;
                }
            }
            Tick::Plot(number) => self.on_plot_tick(number)?,
            Tick::Resume(node) => self.cluster.world.resume(node),
            Tick::Rejoin(number) if number == self.partitions => self.cluster.world.network_mut().heal(),
            Tick::Room(node) => self.cluster.world.disk_mut(node).limit(None),
            Tick::Fast(node) => self.cluster.world.disk_mut(node).rates.slow_factor = 1,
            // A later partition took the place of this one.
            Tick::Rejoin(_) => {}
            Tick::Client(_) | Tick::Watch | Tick::Deed => panic!("not a fault"),
        }
        Ok(())
    }

    fn strike(&mut self, family: Family) -> Result<(), Failure> {
        match family {
            Family::Partition => self.partition(),
            Family::Clog => self.clog(),
            Family::Crash => self.crash()?,
            Family::Pause => {
                let node = self.any_node(family);
                self.cluster.world.pause(node);
                let wait = self.lasting(family);
                self.schedule(wait, Tick::Resume(node));
            }
            Family::Clock => self.confuse_clock(),
            Family::Damage => self.damage(),
            Family::Stall => {
                let node = Cluster::node_of(self.some_replica(family));
                let wait = self.lasting(family);
                let until = self.now().after(wait);
                self.cluster.world.disk_mut(node).stall(until);
            }
            Family::Slow => {
                let node = Cluster::node_of(self.some_replica(family));
                let factor = 2 + self.ask(family, Question::How, 30) as u32;
                self.cluster.world.disk_mut(node).rates.slow_factor = factor;
                let wait = self.lasting(family);
                self.schedule(wait, Tick::Fast(node));
            }
            Family::Full => {
                let node = Cluster::node_of(self.some_replica(family));
                self.cluster.world.disk_mut(node).limit(Some(0));
                let wait = self.lasting(family);
                self.schedule(wait, Tick::Room(node));
            }
            Family::Death => self.kill_disk(),
            Family::ClientCrash => {
                let client = self.ask(family, Question::Whom, u64::from(self.config.clients())) as u16;
                self.crash_client(client)?;
                let wait = self.lasting(family);
                let node = self.cluster.client_node(client);
                self.schedule(wait, Tick::Restart(node));
            }
            Family::Reset => {
                let node = self.any_node(family);
                self.cluster.world.reset_streams(node);
            }
            Family::Plot => self.strike_plot()?,
            Family::Grid => self.harm_grid(),
        }
        Ok(())
    }

    // Network.

    fn partition(&mut self) {
        let family = Family::Partition;
        self.tally.counts.partitions += 1;
        self.partitions = self.partitions.wrapping_add(1);
        self.cluster.world.network_mut().heal();
        let both = !(self.config.faults.asymmetric && self.ask(family, Question::Detail, 2) == 0);
        let clients = self.config.faults.partition_clients;
        let mode = self.ask(family, Question::How, 4);
        let (left, right): (Vec<NodeId>, Vec<NodeId>) = if mode == 0 {
            let lonely = Cluster::node_of(self.some_replica(family));
            self.cluster.nodes().partition(|node| *node == lonely)
        } else if mode == 1 && clients {
            // One client does not reach some replicas that reach each other.
            let client = self.ask(family, Question::Whom, u64::from(self.config.clients())) as u16;
            let client = self.cluster.client_node(client);
            let sides: Vec<NodeId> = self.cluster.replicas().map(Cluster::node_of).collect();
            let cut = sides.into_iter().filter(|_| self.ask(family, Question::Where, 2) == 0).collect();
            (vec![client], cut)
        } else {
            let all: Vec<NodeId> = self.cluster.nodes().collect();
            all.into_iter().partition(|_| self.ask(family, Question::Where, 2) == 0)
        };
        let cluster = &self.cluster;
        let affected = |nodes: Vec<NodeId>| -> Vec<NodeId> {
            nodes.into_iter().filter(|node| clients || cluster.replica_on(*node).is_some()).collect()
        };
        let (left, right) = (affected(left), affected(right));
        let network = self.cluster.world.network_mut();
        network.block(&left, &right);
        if both {
            network.block(&right, &left);
        }
        let wait = self.lasting(family);
        self.schedule(wait, Tick::Rejoin(self.partitions));
    }

    /// Clogs some paths; or all paths of some nodes, which are then let go one after the other.
    fn clog(&mut self) {
        let family = Family::Clog;
        self.tally.counts.clogs += 1;
        let nodes: Vec<NodeId> = self.cluster.nodes().collect();
        let now = self.now();
        if self.ask(family, Question::How, 2) == 0 {
            for _ in 0..=self.ask(family, Question::Detail, 6) {
                let (from, to) = (self.any_node(family), self.any_node(family));
                let until = now.after(self.lasting(family));
                if from != to {
                    self.cluster.world.network_mut().clog(from, to, until);
                }
            }
            return;
        }
        for node in &nodes {
            if self.ask(family, Question::Where, 2) == 0 {
                continue;
            }
            let until = now.after(self.lasting(family));
            let network = self.cluster.world.network_mut();
            for other in nodes.iter().filter(|other| *other != node) {
                network.clog(*node, *other, until);
                network.clog(*other, *node, until);
            }
        }
    }

    // Processes.

    fn crash(&mut self) -> Result<(), Failure> {
        let family = Family::Crash;
        let several = self.chance(lane(family, Question::How), self.config.faults.crash_several_ppm);
        let replica = self.some_replica(family);
        if self.ask(family, Question::Ambush, 4) > 0 {
            self.ambush = Some(Ambush { replica, all: several, zone: None });
            return Ok(());
        }
        if !several {
            return self.crash_for_a_while(replica);
        }
        // Everybody, or a random part.
        let all = self.ask(family, Question::Detail, 2) == 0;
        for replica in self.cluster.replicas() {
            if all || self.ask(family, Question::Where, 2) == 0 {
                self.crash_for_a_while(replica)?;
            }
        }
        Ok(())
    }

    /// Crashes who was waited for, as soon as a write of theirs is under way.
    pub(crate) fn spring_ambush(&mut self, node: NodeId) -> Result<(), Failure> {
        let Some(Ambush { replica, all, zone }) = self.ambush else { return Ok(()) };
        if Cluster::node_of(replica) != node {
            return Ok(());
        }
        let disk = self.cluster.world.disk(node);
        if zone.map_or(disk.in_flight().1, |zone| disk.changes_in(zone)) == 0 {
            return Ok(());
        }
        self.ambush = None;
        if self.liveness.is_some() {
            return Ok(());
        }
        for other in self.cluster.replicas() {
            if all || other == replica {
                self.crash_for_a_while(other)?;
            }
        }
        Ok(())
    }

    fn crash_for_a_while(&mut self, replica: ReplicaId) -> Result<(), Failure> {
        let node = Cluster::node_of(replica);
        if self.cluster.world.is_up(node) {
            self.crash_replica(replica)?;
            let wait = self.lasting(Family::Crash);
            self.schedule(wait, Tick::Restart(node));
        }
        Ok(())
    }

    pub(crate) fn restart(&mut self, node: NodeId) -> Result<(), Failure> {
        if self.cluster.world.is_up(node) {
            return Ok(());
        }
        if let Some(client) = self.cluster.client_on(node) {
            self.cluster.start_client(client);
            return Ok(());
        }
        let replica = self.cluster.replica_on(node).expect("a node is a client's or a replica's");
        if self.dead & (1 << replica.0) != 0 {
            return Ok(());
        }
        if self.every(Family::Damage).is_some() {
            // Disks rot while nobody looks.
            for _ in 0..self.ask(Family::Damage, Question::Again, ROT_WHILE_DOWN_MAX) {
                self.damage_disk(node);
            }
        }
        if self.every(Family::Grid).is_some() {
            for _ in 0..self.ask(Family::Grid, Question::Again, GRID_SECTORS_MAX) {
                self.rot_grid(node);
            }
        }
        self.start_replica(replica)?;
        if self.chance(lane(Family::Crash, Question::Again), self.config.faults.crash_loop_ppm) {
            let wait = self.wait(lane(Family::Crash, Question::When), LOOP_MEAN);
            self.schedule(wait, Tick::CrashAgain(node));
        }
        Ok(())
    }

    fn confuse_clock(&mut self) {
        let family = Family::Clock;
        let node = self.any_node(family);
        let (how, size) = (self.ask(family, Question::How, 4), self.ask(family, Question::Detail, 36));
        let drift_max = self.config.faults.drift_ppm_max;
        let drift = self.ask(family, Question::Long, 2 * u64::from(drift_max) + 1) as i32;
        // From one nanosecond to a minute, evenly over orders of magnitude.
        let jump = 1_i64 << size;
        let clock = self.cluster.world.clock_mut(node);
        match how {
            0 => clock.jump(jump),
            1 => clock.jump(-jump),
            2 => clock.set_drift_ppm(drift - drift_max.cast_signed()),
            _ => clock.freeze(size % 2 == 0),
        }
    }

    // Disks.

    /// Lets a sector rot or become unreadable, where the budget permits: one that holds something.
    fn damage(&mut self) {
        let node = Cluster::node_of(self.any_replica(Family::Damage));
        self.damage_disk(node);
    }

    fn damage_disk(&mut self, node: NodeId) {
        let family = Family::Damage;
        let zones: Vec<Zone> = [
            (self.config.faults.damage_headers, Zone::Headers),
            (self.config.faults.damage_log, Zone::Log),
            (self.config.faults.damage_superblock, Zone::Superblock),
        ]
        .into_iter()
        .filter_map(|(on, zone)| on.then_some(zone))
        .collect();
        if zones.is_empty() {
            return;
        }
        for _ in 0..DAMAGE_TRIES {
            let zone = zones[self.ask(family, Question::Detail, zones.len() as u64) as usize];
            let disk = self.cluster.world.disk(node);
            let sectors = disk.extent(zone) / SECTOR_SIZE as u64;
            if sectors == 0 {
                continue;
            }
            // The end of the log is read again at every start, the rest hardly ever.
            let recent = 2 * self.config.layout.segment_size / SECTOR_SIZE as u64;
            let from = match (zone, self.ask(family, Question::Again, 2)) {
                (Zone::Log, 0) => sectors.saturating_sub(recent),
                _ => 0,
            };
            let sector = from + self.ask(family, Question::Where, sectors - from);
            let place = Place { zone, offset: sector * SECTOR_SIZE as u64 };
            let disk = self.cluster.world.disk(node);
            if disk.peek(zone, place.offset, SECTOR_SIZE).iter().all(|byte| *byte == 0) {
                continue;
            }
            let damage = match self.ask(family, Question::How, 2) {
                0 => Damage::Latent,
                _ => Damage::FlipBit(self.ask(family, Question::Long, SECTOR_SIZE as u64 * 8) as u32),
            };
            if self.cluster.world.damage(node, place, damage) {
                return;
            }
        }
    }

    /// Harms checkpoints: pages at rest, reads and writes of them, or the power while they are written. The log stays.
    fn harm_grid(&mut self) {
        let family = Family::Grid;
        let replica = self.some_replica(family);
        let node = Cluster::node_of(replica);
        let how = self.ask(family, Question::How, 8);
        let disk = self.cluster.world.disk_mut(node);
        match how {
            0 => disk.arm_in(Zone::Grid, DiskFault::ReadError),
            1 => disk.arm_in(Zone::Grid, DiskFault::MisdirectedRead),
            2 => disk.arm_in(Zone::Grid, DiskFault::PhantomWrite),
            3 => disk.arm_in(Zone::Grid, DiskFault::MisdirectedWrite),
            4 | 5 => self.ambush = Some(Ambush { replica, all: how == 5, zone: Some(Zone::Grid) }),
            _ => {
                for _ in 0..=self.ask(family, Question::Again, GRID_SECTORS_MAX) {
                    self.rot_grid(node);
                }
            }
        }
    }

    /// Damages a sector of the grid that holds something.
    fn rot_grid(&mut self, node: NodeId) {
        let family = Family::Grid;
        let sectors = self.cluster.world.disk(node).extent(Zone::Grid) / SECTOR_SIZE as u64;
        if sectors == 0 {
            return;
        }
        let offset = self.ask(family, Question::Where, sectors) * SECTOR_SIZE as u64;
        let damage = match self.ask(family, Question::Detail, 3) {
            0 => Damage::Latent,
            _ => Damage::FlipBit(self.ask(family, Question::Long, SECTOR_SIZE as u64 * 8) as u32),
        };
        self.cluster.world.damage(node, Place { zone: Zone::Grid, offset }, damage);
    }

    /// Lets the next write of a disk fail, which its node does not survive, if enough others remain.
    fn kill_disk(&mut self) {
        let family = Family::Death;
        let replica = self.any_replica(family);
        let bit = 1_u8 << replica.0;
        let budget = self.doomed.count_ones() < u32::from(self.config.deaths_max());
        if self.doomed & bit != 0 || !budget || !self.cluster.world.atlas_mut().lose_replica(replica) {
            return;
        }
        self.doomed |= bit;
        let fault = match self.ask(family, Question::How, 2) {
            0 => DiskFault::WriteError,
            _ => DiskFault::SyncError,
        };
        self.cluster.world.disk_mut(Cluster::node_of(replica)).arm(fault);
    }
}

#[cfg(test)]
mod tests {
    use kimberlite_io_sim::Concern;

    use super::*;
    use crate::run::{Luck, run};
    use crate::{Scenario, draw, rules};

    #[test]
    fn a_family_that_is_taken_away_does_not_shift_the_others() {
        let mut config = draw(Scenario::Calm, 1);
        let every = Every { mean: Duration::from_millis(300), last: Duration::from_millis(40) };
        for family in [Family::Partition, Family::Pause, Family::Reset] {
            config.faults.families.insert(family, every);
        }
        let waits = |config: &crate::RunConfig, family| {
            let (_, record) = run(config, 1, Luck::Recorded, rules);
            record.decisions.decisions(Concern::Schedule, lane(family, Question::When))
        };
        let mut fewer = config.clone();
        fewer.faults.families.remove(&Family::Pause);
        for family in [Family::Partition, Family::Reset] {
            let (with, without) = (waits(&config, family), waits(&fewer, family));
            let both = with.len().min(without.len());
            assert!(both > 2 && with[..both] == without[..both], "{}: {with:?}, {without:?}", family.name());
        }
        assert!(waits(&fewer, Family::Pause).is_empty() && !waits(&config, Family::Pause).is_empty());
    }
}
