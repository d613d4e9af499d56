//! Power cuts at every ask: a short story is lived once to count what each replica asks of its disk and of the network, and
//! then once more for each of these asks, with the power cut right there.
//!
//! What a power cut leaves is tried as well: nothing, all, or half of what was being written. Either the replica
//! alone loses its power, or all of them at the same moment. It starts again, the cluster heals, and every checker looks.
//! Luck finds the rare moments that nobody thought of; this finds those that luck meets too rarely.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kimberlite_io::{CrashAt, Place, Zone};
use kimberlite_io_sim::{Concern, Damage, Dice, Keep, NodeId};
use kimberlite_store::PAGE_SIZE;
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{Layout, ReplicaId, Timing};
use serde::Serialize;

use crate::cluster::Cluster;
use crate::config::{FaultPlan, RunConfig, WorkPlan};
use crate::failure::Failure;
use crate::run::{Outcome, Report, Run, Tick, run_play};

/// How long a replica without power stays down.
const DOWN: Duration = Duration::from_millis(10);

/// The luck of every story: what differs between two runs of one is the power cut alone.
const SEED: u64 = 11;

/// A cluster's short life, always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Story {
    /// Clients append and read.
    Append,
    /// The primary is cut off in the midst of it, and comes back.
    ViewChange,
    /// All replicas lose their power in the midst of it, and start again.
    Restart,
    /// Prepares of one replica rot, it starts again and is repaired.
    Repair,
    /// The log rolls over into further segments, which are sealed.
    Rollover,
    /// Checkpoints are taken, and all replicas start again from theirs.
    Checkpoint,
    /// The pages of one replica's checkpoint rot, it starts again and gets them from the others.
    Mend,
    /// The pages of all checkpoints rot, all replicas start again and make their states anew from the log.
    Rebuild,
}

impl Story {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Append,
        Self::ViewChange,
        Self::Restart,
        Self::Repair,
        Self::Rollover,
        Self::Checkpoint,
        Self::Mend,
        Self::Rebuild,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::ViewChange => "view-change",
            Self::Restart => "restart",
            Self::Repair => "repair",
            Self::Rollover => "rollover",
            Self::Checkpoint => "checkpoint",
            Self::Mend => "mend",
            Self::Rebuild => "rebuild",
        }
    }

    /// One sentence for people.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Append => "clients create a stream, append to it and read from it",
            Self::ViewChange => "the primary is cut off while clients append, and comes back",
            Self::Restart => "all replicas lose their power while clients append, and start again",
            Self::Repair => "prepares of one replica rot, it starts again and is repaired by the others",
            Self::Rollover => "the log rolls over into further segments, which are sealed",
            Self::Checkpoint => "checkpoints are taken, and all replicas start again from theirs",
            Self::Mend => "the pages of one replica's checkpoint rot, and come from the others",
            Self::Rebuild => "the pages of all checkpoints rot, and states are made anew from the log",
        }
    }

    /// The story of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|story| story.name() == name)
    }

    /// Whether so many replicas can live it: a lone one has nobody to take over or to repair it.
    pub const fn fits(self, replicas: u8) -> bool {
        replicas > 1 || !matches!(self, Self::ViewChange | Self::Repair | Self::Mend)
    }

    fn config(self, replicas: u8) -> RunConfig {
        let mut config = RunConfig {
            replicas,
            layout: Layout::SMALL,
            timing: Timing {
                heartbeat: Duration::from_millis(20),
                view_change: Duration::from_millis(60),
                resend: Duration::from_millis(20),
                abdicate: Duration::from_millis(120),
            },
            pipeline_max: 4,
            sessions_max: 8,
            tear_unit: 512,
            work: WorkPlan {
                clients: 2,
                requests: 12,
                tenants: 1,
                streams: 1,
                think: Duration::from_millis(4),
                open_max: 2,
                query_ppm: 200_000,
                refused_ppm: 0,
                expected_ppm: 200_000,
                huge_ppm: 0,
                records_max: 2,
                record_size_max: 128,
                give_up: None,
                readers: 0,
                patience: 3,
                patience_reading: 3,
            },
            sql: None,
            faults: FaultPlan::none(),
            safety: Duration::from_secs(10),
            liveness: Duration::from_secs(20),
            events_max: 300_000,
        };
        match self {
            Self::Append | Self::ViewChange | Self::Restart => {}
            Self::Repair => {
                config.faults.tolerated = config.tolerable();
                config.faults.damage_log = true;
            }
            Self::Rollover | Self::Checkpoint | Self::Mend | Self::Rebuild => {
                config.layout = Layout {
                    ring_slots: 24,
                    segment_size: 28 << 10,
                    segment_ops_max: 4,
                    prepare_size_max: 8 << 10,
                };
                config.work.requests = 18;
                config.work.query_ppm = 0;
                config.work.record_size_max = 1_024;
            }
        }
        config
    }

    /// What happens, one after the other: once so many requests have an outcome, and so long after that.
    const fn deeds(self) -> &'static [(u64, Duration, Deed)] {
        const fn at(requests: u64, millis: u64, deed: Deed) -> (u64, Duration, Deed) {
            (requests, Duration::from_millis(millis), deed)
        }
        match self {
            Self::Append | Self::Rollover => &[],
            Self::ViewChange => const { &[at(4, 0, Deed::IsolatePrimary), at(0, 110, Deed::Rejoin)] },
            Self::Restart => const { &[at(6, 1, Deed::CrashAll), at(0, 4, Deed::StartAll)] },
            Self::Repair => const { &[at(7, 1, Deed::RotBackup), at(0, 4, Deed::StartAll)] },
            Self::Checkpoint => const { &[at(9, 1, Deed::CrashAll), at(0, 4, Deed::StartAll)] },
            Self::Mend => const { &[at(9, 1, Deed::RotBackupsGrid), at(0, 4, Deed::StartAll)] },
            Self::Rebuild => const { &[at(9, 1, Deed::RotAllGrids), at(0, 4, Deed::StartAll)] },
        }
    }
}

/// What the story itself does to a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    IsolatePrimary,
    Rejoin,
    CrashAll,
    /// A backup loses its power, and some sectors of its log rot.
    RotBackup,
    /// A backup loses its power, and all of its grid rots.
    RotBackupsGrid,
    /// All replicas lose their power, and all of their grids rot.
    RotAllGrids,
    StartAll,
}

/// Who loses power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outage {
    /// The replica that was about to ask.
    One,
    /// Every replica at that moment.
    All,
}

/// One power cut of one story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrashPoint {
    /// The story.
    pub story: Story,
    /// How many replicas live it.
    pub replicas: u8,
    /// Whose ask is counted.
    pub replica: ReplicaId,
    /// The ask that is not made any more, counted from 1 over all lives of that replica.
    pub ask: u64,
    /// What is left of the writes in flight.
    pub keep: Keep,
    /// Who loses power.
    pub outage: Outage,
}

impl CrashPoint {
    /// The name of what is left, on the command line.
    pub const fn keep_name(keep: Keep) -> &'static str {
        match keep {
            Keep::Luck => "luck",
            Keep::Nothing => "nothing",
            Keep::Everything => "everything",
            Keep::Half => "half",
        }
    }
}

impl fmt::Display for CrashPoint {
    /// The command that runs it again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { story, replicas, replica, ask, keep, outage } = self;
        let (story, keep) = (story.name(), Self::keep_name(*keep));
        let outage = match outage {
            Outage::One => "one",
            Outage::All => "all",
        };
        write!(
            f,
            "vopr crash-at {story} --replicas {replicas} --replica {replica} --ask {ask} --keep {keep} --outage {outage}"
        )
    }
}

/// How often each replica asks for something while it lives the story with nobody's power cut, which must pass.
pub fn asks_of(story: Story, replicas: u8) -> Result<Vec<u64>, Failure> {
    let (report, play) = live(story, replicas, None);
    match report.outcome {
        Outcome::Passed => Ok(play.map(|play| play.asked).unwrap_or_default()),
        Outcome::Excused(why) => panic!("a story breaks nothing that would excuse it: {why}"),
        Outcome::Failed(failure) => Err(failure),
    }
}

/// What a story comes to with nobody's power cut.
pub fn told(story: Story, replicas: u8) -> Report {
    live(story, replicas, None).0
}

/// Every power cut of a story in which the replicas ask so often: at each ask, with all that may be left, of one
/// replica and, where there are several, of all.
pub fn crash_points(story: Story, replicas: u8, asked: &[u64]) -> Vec<CrashPoint> {
    let outages: &[Outage] = if replicas == 1 { &[Outage::One] } else { &[Outage::One, Outage::All] };
    let mut points = Vec::new();
    for (replica, asked) in (0..).map(ReplicaId).zip(asked) {
        for ask in 1..=*asked {
            for keep in [Keep::Nothing, Keep::Everything, Keep::Half] {
                for outage in outages.iter().copied() {
                    points.push(CrashPoint { story, replicas, replica, ask, keep, outage });
                }
            }
        }
    }
    points
}

/// Lives the story with this power cut, which must be one of [`crash_points`].
pub fn crash_at(point: &CrashPoint) -> Report {
    let (report, play) = live(point.story, point.replicas, Some(*point));
    let was_cut = play.is_some_and(|play| play.point.is_none());
    assert!(was_cut || report.outcome != Outcome::Passed, "{point}: the story has no such ask");
    report
}

fn live(story: Story, replicas: u8, point: Option<CrashPoint>) -> (Report, Option<Play>) {
    assert!(story.fits(replicas), "{} needs more than {replicas} replicas", story.name());
    let play = Play { deeds: story.deeds(), armed: false, point, asked: Vec::new() };
    run_play(&story.config(replicas), Dice::free(SEED), crate::rules, play)
}

/// A story while it is lived.
#[derive(Debug)]
pub(crate) struct Play {
    /// What is still to happen.
    deeds: &'static [(u64, Duration, Deed)],
    /// Whether the timer of the next deed is set.
    armed: bool,
    /// The power cut that is still to come.
    point: Option<CrashPoint>,
    /// How often each replica had asked for something when the story was over.
    asked: Vec<u64>,
}

impl Play {
    pub(crate) const fn is_over(&self) -> bool {
        self.deeds.is_empty()
    }
}

impl Run {
    /// Counts from here on.
    pub(crate) fn begin_play(&mut self) {
        let Some(play) = &self.play else { return };
        let point = play.point;
        for replica in self.cluster.replicas() {
            let at = point.filter(|point| point.replica == replica).map(|point| point.ask);
            self.cluster.count_asks(replica, at.map_or(CrashAt::never(), CrashAt::at));
        }
    }

    /// Sets the timer of the next deed when it is its turn.
    pub(crate) fn go_on_with_play(&mut self) {
        let Some(play) = &mut self.play else { return };
        let Some((requests, wait, _)) = play.deeds.first() else { return };
        if !play.armed && self.workload.done + self.workload.answered >= *requests {
            play.armed = true;
            let wait = *wait;
            self.schedule(wait, Tick::Deed);
        }
    }

    pub(crate) fn on_deed(&mut self) -> Result<(), Failure> {
        let play = self.play.as_mut().expect("only a story has deeds");
        let ((_, _, deed), rest) = play.deeds.split_first().expect("a timer was set for it");
        play.deeds = rest;
        play.armed = false;
        let primary = self.cluster.primary().unwrap_or(ReplicaId(0));
        match deed {
            Deed::IsolatePrimary => self.cluster.world.network_mut().isolate(Cluster::node_of(primary)),
            Deed::Rejoin => self.cluster.world.network_mut().heal(),
            Deed::CrashAll => self.cluster.replicas().try_for_each(|replica| self.crash_replica(replica))?,
            Deed::RotBackup => {
                let backup = self.cluster.replicas().find(|replica| *replica != primary);
                let backup = backup.expect("a lone replica does not live this story");
                self.crash_replica(backup)?;
                self.rot(backup);
            }
            Deed::RotBackupsGrid => {
                let backup = self.cluster.replicas().find(|replica| *replica != primary);
                let backup = backup.expect("a lone replica does not live this story");
                self.crash_replica(backup)?;
                self.rot_all_of_grid(backup);
            }
            Deed::RotAllGrids => {
                for replica in self.cluster.replicas() {
                    self.crash_replica(replica)?;
                    self.rot_all_of_grid(replica);
                }
            }
            Deed::StartAll => {
                for replica in self.cluster.replicas() {
                    if !self.cluster.world.is_up(Cluster::node_of(replica)) {
                        self.start_replica(replica)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Damages every page of a replica's checkpoints: the log holds all that stands there.
    fn rot_all_of_grid(&mut self, replica: ReplicaId) {
        let node = Cluster::node_of(replica);
        self.cluster.world.atlas_mut().free_grid();
        let end = self.cluster.world.disk(node).extent(Zone::Grid);
        for (number, sector) in (0..end).step_by(PAGE_SIZE).enumerate() {
            let damage = if number % 2 == 0 { Damage::Latent } else { Damage::FlipBit(4_321) };
            self.cluster.world.damage(node, Place::grid(sector), damage);
        }
    }

    /// Damages every third sector of a replica's log: they are the only copies that ever are.
    fn rot(&mut self, replica: ReplicaId) {
        let node = Cluster::node_of(replica);
        let end = self.cluster.world.disk(node).extent(Zone::Log);
        self.cluster.world.atlas_mut().allow_only(Place::log(0), end.max(1), &[replica]);
        let written = |sector: &u64| {
            let bytes = self.cluster.world.disk(node).peek(Zone::Log, *sector, SECTOR_SIZE);
            bytes.iter().any(|byte| *byte != 0)
        };
        let sectors: Vec<u64> = (0..end).step_by(SECTOR_SIZE).filter(written).collect();
        for (number, sector) in sectors.into_iter().step_by(3).enumerate() {
            let damage = if number % 2 == 0 { Damage::Latent } else { Damage::FlipBit(4_321) };
            self.cluster.world.damage(node, Place::log(sector), damage);
        }
    }

    /// Ends the replicas that lost their power in the call of this node that has just returned.
    pub(crate) fn cut_power(&mut self, node: NodeId) -> Result<(), Failure> {
        let Some(Play { point: Some(point), .. }) = self.play else { return Ok(()) };
        if node != Cluster::node_of(point.replica) || !self.cluster.is_cut(point.replica) {
            return Ok(());
        }
        self.play.as_mut().expect("it was just looked at").point = None;
        let all: Vec<ReplicaId> = match point.outage {
            Outage::One => vec![point.replica],
            Outage::All => self.cluster.replicas().collect(),
        };
        for replica in all {
            let node = Cluster::node_of(replica);
            // So that each ask has luck of its own.
            for _ in 0..point.ask % 97 {
                self.cluster.world.dice_mut().draw(Concern::Crash, u64::from(node.0), 2);
            }
            self.cluster.world.disk_mut(node).keep = point.keep;
            self.crash_replica(replica)?;
            self.cluster.world.disk_mut(node).keep = Keep::Luck;
            self.cluster.count_asks(replica, CrashAt::never());
            self.schedule(DOWN, Tick::Restart(node));
        }
        Ok(())
    }

    /// The story is over: what was asked until now is what it takes.
    pub(crate) fn end_play(&mut self) {
        let asked: BTreeMap<ReplicaId, u64> =
            self.cluster.replicas().map(|replica| (replica, self.cluster.asked(replica))).collect();
        if let Some(play) = &mut self.play {
            play.asked = asked.into_values().collect();
        }
    }
}
