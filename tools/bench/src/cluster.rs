//! Nodes as processes of the program that is measured, on loopback, and what is appended to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kimberlite_types::ClusterId;
use kmb::connection::Options;
use kmb::fleet::Fleet;
use kmb::load::{self, Summary};
use kmb::{Connection, Failure, LayoutName, Name, Plan, Temporary};

use crate::arguments::Shape;
use crate::setting::Setting;

/// Bytes of a record.
pub(crate) const RECORD_SIZE: u32 = 128;

/// Records in a request of [`Shape::Full`].
pub(crate) const BATCH: u32 = 8000;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_mins(1);

impl Shape {
    /// Records in a request.
    pub(crate) const fn records(self) -> u32 {
        match self {
            Self::Small => 1,
            Self::Full => BATCH,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "one record of 128 bytes a request",
            Self::Full => "8,000 records of 128 bytes a request",
        }
    }
}

/// How much is appended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Time(Duration),
    Requests(u64),
}

/// A cluster of its own. All is removed when it is dropped.
pub(crate) struct Cluster {
    /// First, so that the nodes end before their data goes.
    pub(crate) fleet: Fleet,
    dir: Temporary,
}

impl Cluster {
    /// Formats and starts `nodes` nodes and waits until they are one cluster.
    pub(crate) fn start(setting: &Setting, nodes: u8) -> Result<Self, Failure> {
        let dir = Temporary::below(setting.dir(), "nodes")?;
        let plan = Plan::on_free_ports(dir.path().to_path_buf(), nodes)?;
        plan.format(LayoutName::Production)?;
        let mut fleet = Fleet::of(plan, setting.kmb()?);
        fleet.start()?;
        let mut cluster = Self { fleet, dir };
        cluster.heal()?;
        Ok(cluster)
    }

    /// A client of it.
    pub(crate) fn connect(&self) -> Result<Connection, Failure> {
        let options = Options { give_up_after: Some(PATIENCE), ..Options::default() };
        Connection::open(&self.fleet.plan().clients, options)
    }

    /// Waits until all nodes have all there is.
    pub(crate) fn heal(&mut self) -> Result<(), Failure> {
        let mut watcher = self.connect()?;
        self.fleet.heal(&mut watcher).map(drop)
    }

    /// The time that the nodes' threads have run.
    pub(crate) fn processor_time(&self) -> Result<Duration, Failure> {
        (0..self.fleet.plan().clients.len()).map(|node| processor_time(self.fleet.process(node))).sum()
    }

    /// The directory of a node's data.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.fleet.plan().data(node)
    }

    /// Appends with real clients in this process.
    pub(crate) fn append(
        &self,
        setting: &Setting,
        clients: u16,
        shape: Shape,
        until: Until,
    ) -> Result<Summary, Failure> {
        let (duration, count) = match until {
            Until::Time(duration) => (Some(duration), None),
            Until::Requests(count) => (None, Some(count)),
        };
        let plan = load::Plan {
            nodes: self.fleet.plan().clients.clone(),
            cluster: ClusterId::UNNAMED,
            tenant: Name::new("default")?,
            stream: Name::new("bench")?,
            clients,
            batch: shape.records(),
            size: RECORD_SIZE as usize,
            duration,
            count,
            journal: None,
        };
        let summary = load::load(&plan, setting.stop(), &std::sync::Arc::default())?;
        // What was interrupted was not measured.
        setting.go_on()?;
        if summary.unknown > 0 {
            let unknown = summary.unknown;
            return Err(Failure::failed(format!(
                "{unknown} requests had no answer; see {}",
                self.dir.path().display()
            )));
        }
        Ok(summary)
    }
}

/// The time that a process's threads have run, to the nanosecond (`/proc/N/task/*/schedstat`).
pub(crate) fn processor_time(process: u32) -> Result<Duration, Failure> {
    let tasks = format!("/proc/{process}/task");
    let tasks = Path::new(&tasks);
    let mut nanos = 0;
    for task in fs::read_dir(tasks).map_err(|error| Failure::on(tasks, &error))?.flatten() {
        let path = task.path().join("schedstat");
        // A thread may have ended meanwhile.
        let text = fs::read_to_string(&path).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// A fraction of two counts as people count.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn per(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
