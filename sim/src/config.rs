//! All that distinguishes one run from another, as data: what is printed, stored in bundles and replayed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use kimberlite_io_sim::{DiskRates, Link, WorldOptions};
use kimberlite_types::{ClusterId, Config, Layout, ReplicaId, Timing};
use serde::{Deserialize, Serialize};

use crate::sql::SqlPlan;

/// The cluster of every run.
pub const CLUSTER: ClusterId = ClusterId(0x006b_696d_6265_726c_6974_652d_7369_6d75);

/// What the links of a run are authenticated with.
pub(crate) const SECRET: [u8; 32] = *b"the secret of a simulated world.";

/// Clients of a run at most.
pub(crate) const CLIENTS_MAX: u16 = 16;

/// Requests of a run at most.
pub(crate) const REQUESTS_MAX: u32 = 100_000;

/// The longest phase of a run in virtual time.
pub(crate) const PHASE_MAX: Duration = Duration::from_hours(1);

/// Events of one run at most.
pub(crate) const EVENTS_MAX: u64 = 100_000_000;

/// Slots of a header ring, client sessions and bytes of a segment at most: a bundle may ask for no more memory.
const RING_SLOTS_MAX: u32 = 1 << 16;
const SESSIONS_MAX: u32 = 1 << 16;
const SEGMENT_SIZE_MAX: u64 = 64 << 20;

/// Tenants, and streams of each, at most.
pub(crate) const NAMES_MAX: u64 = 64;

/// Plots to choose from, and the patience of clients, at most.
const PLOTS_MAX: usize = 16;
const PATIENCE_MAX: u32 = 1_000;

/// A kind of fault that the policy brings about now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// Paths are blocked: an even split, one node alone, one direction only.
    Partition,
    /// Paths hold everything back for a while, or are clogged and unclogged node by node.
    Clog,
    /// Replicas crash, alone, several, or all at once; some crash again right after the restart.
    Crash,
    /// A process stands still.
    Pause,
    /// A clock jumps, drifts or freezes.
    Clock,
    /// What lies on a disk rots or cannot be read.
    Damage,
    /// A disk stands still.
    Stall,
    /// A disk is slow.
    Slow,
    /// A disk is full, and has room again later.
    Full,
    /// A disk fails a write: the replica is gone for good.
    Death,
    /// A client crashes and comes back as another.
    ClientCrash,
    /// All byte streams of a node break.
    Reset,
    /// Several faults in a row, aimed at who leads and at who holds what: see [`Plot`].
    Plot,
    /// Pages of checkpoints rot, are written elsewhere or read wrongly, or the power goes while they are written.
    Grid,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Partition,
        Self::Clog,
        Self::Crash,
        Self::Pause,
        Self::Clock,
        Self::Damage,
        Self::Stall,
        Self::Slow,
        Self::Full,
        Self::Death,
        Self::ClientCrash,
        Self::Reset,
        Self::Plot,
        Self::Grid,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Clog => "clog",
            Self::Crash => "crash",
            Self::Pause => "pause",
            Self::Clock => "clock",
            Self::Damage => "damage",
            Self::Stall => "stall",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::Death => "death",
            Self::ClientCrash => "client_crash",
            Self::Reset => "reset",
            Self::Plot => "plot",
            Self::Grid => "grid",
        }
    }
}

/// Several faults that fit together, as somebody would bring them about who knows the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Plot {
    /// The primary is cut off from its peers, alone or with some of them, until another has committed something; then,
    /// perhaps, that one is, in the same moment.
    Depose,
    /// The same, until those cut off are further behind than the headers that replicas keep in memory.
    Outrun,
    /// The primary gathers prepares that nobody else has and votes for the next one, which gets them over paths that
    /// lose packets, each at a rate of its own; then who holds most is cut off, and the new primary crashes.
    Thin,
    /// All who hold what was just committed crash, and one of them comes back first, with the end of its log damaged.
    Forget,
}

/// How often something happens and how long it lasts, both on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Every {
    /// From one to the next.
    pub mean: Duration,
    /// From its beginning to its end, where it has one.
    pub last: Duration,
}

/// What breaks, and how often. What is off is absent or zero.
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each with a name of its own")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultPlan {
    /// Kinds of faults by timer.
    pub families: BTreeMap<Family, Every>,
    /// Paths between replicas.
    pub replica_link: Link,
    /// Paths between clients and replicas.
    pub client_link: Link,
    /// Disks of replicas.
    pub disk: DiskRates,
    /// How many replicas may lose any one piece of data.
    pub tolerated: u8,
    /// Whether the header ring may be damaged.
    pub damage_headers: bool,
    /// Whether the log may be damaged.
    pub damage_log: bool,
    /// Whether one copy of each superblock may be damaged.
    pub damage_superblock: bool,
    /// Whether a partition may block one direction only.
    pub asymmetric: bool,
    /// Whether clients may be cut off, too.
    pub partition_clients: bool,
    /// Of 1,000,000 crashes, how many take several replicas.
    pub crash_several_ppm: u32,
    /// Of 1,000,000 restarts, how many end in another crash soon.
    pub crash_loop_ppm: u32,
    /// The most a clock drifts, in parts of 1,000,000.
    pub drift_ppm_max: u32,
    /// What [`Family::Plot`] chooses from.
    pub plots: Vec<Plot>,
}

impl FaultPlan {
    /// Nothing breaks.
    pub fn none() -> Self {
        Self {
            families: BTreeMap::new(),
            replica_link: Link::HEALTHY,
            client_link: Link::HEALTHY,
            disk: DiskRates::HEALTHY,
            tolerated: 0,
            damage_headers: false,
            damage_log: false,
            damage_superblock: false,
            asymmetric: false,
            partition_clients: false,
            crash_several_ppm: 0,
            crash_loop_ppm: 0,
            drift_ppm_max: 0,
            plots: Vec::new(),
        }
    }
}

/// What clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkPlan {
    /// Clients, at least 1.
    pub clients: u16,
    /// Commands and queries of all clients together.
    pub requests: u32,
    /// Tenants.
    pub tenants: u64,
    /// Streams of each tenant.
    pub streams: u64,
    /// A client's wait between two requests, on average.
    pub think: Duration,
    /// Requests a client keeps open at once.
    pub open_max: u32,
    /// Of 1,000,000 requests, how many are queries.
    pub query_ppm: u32,
    /// Of 1,000,000 commands, how many have to be refused.
    pub refused_ppm: u32,
    /// Of 1,000,000 appends, how many name the offset they expect.
    pub expected_ppm: u32,
    /// Of 1,000,000 appends, how many are about as large as may be.
    pub huge_ppm: u32,
    /// Records of an append at most.
    pub records_max: u32,
    /// Bytes of an ordinary record at most.
    pub record_size_max: u32,
    /// When a client gives a request up; none: never.
    pub give_up: Option<Duration>,
    /// How many of the clients, the last ones, only ask queries.
    pub readers: u16,
    /// What a replica waits for its primary, this many times, is what a client waits for an answer before it turns elsewhere.
    pub patience: u32,
    /// The same for those who only ask queries.
    pub patience_reading: u32,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Replicas, 1 to 6.
    pub replicas: u8,
    /// How data directories are laid out.
    pub layout: Layout,
    /// How long replicas wait.
    pub timing: Timing,
    /// Prepares in flight.
    pub pipeline_max: u8,
    /// Client sessions kept.
    pub sessions_max: u32,
    /// The unit in which disks tear a write: 512 or 4,096 bytes.
    pub tear_unit: u32,
    /// What clients ask.
    pub work: WorkPlan,
    /// What clients that speak SQL say, if there are any.
    pub sql: Option<SqlPlan>,
    /// What breaks.
    pub faults: FaultPlan,
    /// The longest first phase, in virtual time.
    pub safety: Duration,
    /// The longest second phase, in virtual time.
    pub liveness: Duration,
    /// Events after which a run counts as stuck.
    pub events_max: u64,
}

impl RunConfig {
    /// All clients: those that speak SQL are the last ones.
    pub fn clients(&self) -> u16 {
        self.work.clients + self.sql.as_ref().map_or(0, |sql| sql.clients)
    }

    /// The configuration of one replica.
    pub const fn config(&self, replica: ReplicaId) -> Config {
        Config {
            cluster: CLUSTER,
            replica,
            replicas: self.replicas,
            layout: self.layout,
            timing: self.timing,
            pipeline_max: self.pipeline_max,
            sessions_max: self.sessions_max,
        }
    }

    /// The sizes of the world.
    pub(crate) fn world(&self) -> WorldOptions {
        WorldOptions {
            tolerated: self.faults.tolerated,
            headers_size: Some(self.layout.ring_size()),
            segment_size: self.layout.segment_size,
            // Prepares lie within a segment: so no two replicas lose different parts of one.
            chunk_size: self.layout.segment_size,
            tear_unit: self.tear_unit,
            ..WorldOptions::new(self.replicas, self.clients())
        }
    }

    /// How many replicas may lose any one piece of data: each quorum that may have committed it keeps one intact
    /// copy.
    pub const fn tolerable(&self) -> u8 {
        self.config(ReplicaId(0)).quorums().replication - 1
    }

    /// Replicas that may be lost for good while the others still suffice.
    pub fn deaths_max(&self) -> u8 {
        let quorums = self.config(ReplicaId(0)).quorums();
        (self.replicas - quorums.view_change.max(quorums.replication)).min(self.faults.tolerated)
    }

    /// Whether the numbers make sense. Read from a file, they may be anything.
    pub fn check(&self) -> Result<(), ConfigFault> {
        self.config(ReplicaId(0)).check().map_err(|error| ConfigFault { reason: error.reason })?;
        let Self { work, faults, .. } = self;
        let ppm = [
            work.query_ppm,
            work.refused_ppm,
            work.expected_ppm,
            work.huge_ppm,
            faults.crash_several_ppm,
            faults.crash_loop_ppm,
        ];
        let positive =
            |every: &Every| !every.mean.is_zero() && every.mean <= PHASE_MAX && every.last <= PHASE_MAX;
        let Timing { heartbeat, view_change, resend, abdicate } = self.timing;
        let waits = [heartbeat, view_change, resend, abdicate];
        let reason = if work.clients == 0 || work.clients > CLIENTS_MAX {
            "a run has 1 to 16 clients"
        } else if self.layout.ring_slots > RING_SLOTS_MAX
            || self.layout.segment_size > SEGMENT_SIZE_MAX
            || self.sessions_max > SESSIONS_MAX
        {
            "a run has at most 65,536 ring slots and sessions, and segments of 64 MiB"
        } else if work.readers >= work.clients {
            "a client that writes is among them"
        } else if ![work.patience, work.patience_reading]
            .iter()
            .all(|times| (1..=PATIENCE_MAX).contains(times))
        {
            "clients wait for some time, and at most a thousand times as long as replicas"
        } else if faults.plots.len() > PLOTS_MAX {
            "a run has at most 16 plots to choose from"
        } else if work.requests > REQUESTS_MAX {
            "a run has at most 100,000 requests"
        } else if !(1..=NAMES_MAX).contains(&work.tenants) || !(1..=NAMES_MAX).contains(&work.streams) {
            "a run has 1 to 64 tenants of 1 to 64 streams"
        } else if work.records_max == 0 || work.open_max == 0 || work.record_size_max < 32 {
            "clients write records of at least 32 bytes"
        } else if work.records_max > 1_024 || work.record_size_max > self.layout.command_size_max() {
            "an ordinary record fits in a command"
        } else if work.give_up.is_some_and(|wait| wait.is_zero()) || work.think > PHASE_MAX {
            "clients think for at most an hour and give up after some time"
        } else if ppm.iter().any(|parts| *parts > 1_000_000) || faults.drift_ppm_max > 500_000 {
            "parts of a million are at most a million, and drift half of it"
        } else if ![512, 4_096].contains(&self.tear_unit) {
            "disks tear at 512 or 4,096 bytes"
        } else if faults.tolerated > self.replicas {
            "no more copies are lost than there are"
        } else if faults.disk.slow_factor == 0 || !faults.families.values().all(positive) {
            "faults come after some time and at most an hour apart"
        } else if waits.iter().any(Duration::is_zero) || waits.iter().any(|wait| *wait > PHASE_MAX) {
            "replicas wait for some time and at most an hour"
        } else if self.safety > PHASE_MAX || self.liveness > PHASE_MAX || self.events_max > EVENTS_MAX {
            "a phase takes at most an hour and a run at most 100,000,000 events"
        } else if let Some(reason) = self.sql.as_ref().and_then(SqlPlan::fault) {
            reason
        } else {
            return Ok(());
        };
        Err(ConfigFault { reason })
    }
}

/// A configuration that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// What must hold.
    pub reason: &'static str,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for ConfigFault {}
