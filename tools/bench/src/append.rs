//! Appends: how many a second, and how long one takes, beside what the device allows.

use std::time::Duration;

use kmb::Failure;

use crate::arguments::{Append, Shape};
use crate::cluster::{Cluster, RECORD_SIZE, Until, per};
use crate::figures::{Aim, Report, Series};
use crate::floor::{Floor, Pattern};
use crate::postgres::{CLIENTS as POSTGRES_CLIENTS, Postgres};
use crate::setting::{Setting, own_time};

/// What is appended by whom, and what was found.
struct Case {
    nodes: u8,
    clients: u16,
    shape: Shape,
    records: Series,
    p50: Series,
    p99: Series,
    max: Series,
    nodes_time: Series,
    client_time: Series,
    floor: Series,
    of_floor: Series,
    peer: Series,
    of_peer: Series,
}

impl Case {
    fn new(nodes: u8, clients: u16, shape: Shape) -> Self {
        let none = Series::default;
        Self {
            nodes,
            clients,
            shape,
            records: none(),
            p50: none(),
            p99: none(),
            max: none(),
            nodes_time: none(),
            client_time: none(),
            floor: none(),
            of_floor: none(),
            peer: none(),
            of_peer: none(),
        }
    }

    fn name(&self) -> String {
        let nodes = if self.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", self.nodes) };
        let clients =
            if self.clients == 1 { "1 client".to_owned() } else { format!("{} clients", self.clients) };
        format!("append: {nodes}, {clients}, {}", self.shape.name())
    }

    /// What the device must do for one request that is alone.
    const fn pattern(&self) -> Pattern {
        match (self.nodes, self.shape) {
            (1, Shape::Small) => Pattern::Two,
            (1, Shape::Full) => Pattern::Append1024,
            (_, Shape::Small) => Pattern::TwiceThree,
            (_, Shape::Full) => Pattern::ThreeLarge,
        }
    }

    fn measure(&mut self, setting: &Setting, cluster: &Cluster, floor: &mut Floor) -> Result<(), Failure> {
        let slice = (setting.seconds / 3).max(Duration::from_millis(50));
        let before = floor.measure(self.pattern(), slice)?;
        let (nodes_before, client_before) = (cluster.processor_time()?, own_time());
        let found = cluster.append(setting, self.clients, self.shape, Until::Time(setting.seconds))?;
        let nodes_time = cluster.processor_time()?.saturating_sub(nodes_before);
        let client_time = own_time().saturating_sub(client_before);
        let after = floor.measure(self.pattern(), slice)?;
        let floor = f64::midpoint(before, after);
        let requests = per(found.acknowledged, found.elapsed);
        self.records.push(requests * f64::from(self.shape.records()));
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        self.p50.push(millis(found.latencies.percentile(50)));
        self.p99.push(millis(found.latencies.percentile(99)));
        self.max.push(millis(found.latencies.max()));
        let each = |time: Duration| 1e6 / per(found.acknowledged, time);
        self.nodes_time.push(each(nodes_time));
        self.client_time.push(each(client_time));
        self.floor.push(floor);
        self.of_floor.push(match self.shape {
            Shape::Small => requests / floor,
            // A request's records, without their lengths, against the bytes the device takes.
            Shape::Full => {
                requests * f64::from(self.shape.records()) * f64::from(RECORD_SIZE)
                    / floor
                    / f64::from(1 << 20)
            }
        });
        Ok(())
    }

    /// PostgreSQL in its turn.
    fn measure_peer(&mut self, setting: &Setting, postgres: &Postgres) -> Result<(), Failure> {
        let rate = postgres.insert(self.clients, setting.seconds)?;
        let ours = self.records.last();
        self.peer.push(rate);
        self.of_peer.push(ours / rate);
        Ok(())
    }

    fn report(self) -> Report {
        let mut report = Report::new(self.name());
        let pattern = self.pattern();
        match (self.shape, self.nodes) {
            (Shape::Full, 1) => report.aimed("records", "/s", self.records, Aim::AtLeast(1_000_000.0)),
            (Shape::Full, 3) => report.aimed("records", "/s", self.records, Aim::AtLeast(600_000.0)),
            _ => report.row("records", "/s", self.records),
        }
        report.row("latency, p50", "ms", self.p50);
        report.row("latency, p99", "ms", self.p99);
        report.row("latency, max", "ms", self.max);
        report.row("processor time of all nodes, a request", "us", self.nodes_time);
        report.row("processor time of the clients, a request", "us", self.client_time);
        report.row(format!("floor: {}", pattern.name()), "/s", self.floor);
        let what = match self.shape {
            Shape::Small => "requests for each of the floor's",
            Shape::Full => "bytes of records for each of the floor's",
        };
        match (self.nodes, self.clients, self.shape) {
            (1, 1, Shape::Small) => report.aimed(what, "", self.of_floor, Aim::AtLeast(0.8)),
            _ => report.row(what, "", self.of_floor),
        }
        if !self.peer.is_empty() {
            report.row("PostgreSQL, prepared single-row inserts", "/s", self.peer);
            report.aimed(
                "records for each row of PostgreSQL's",
                "",
                self.of_peer,
                Aim::AtLeast(aim_of(self.clients)),
            );
        }
        report
    }
}

/// How far ahead of PostgreSQL it should be: three times where requests can share a write.
const fn aim_of(clients: u16) -> f64 {
    if clients == 1 { 1.0 } else { 3.0 }
}

/// Runs the command.
pub(crate) fn measure(setting: &Setting, append: &Append) -> Result<Vec<Report>, Failure> {
    let postgres = if append.postgres {
        setting.step("append: making a PostgreSQL cluster")?;
        Some(Postgres::start(setting.dir())?)
    } else {
        None
    };
    setting.step("append: making files")?;
    let mut floor = Floor::make(setting.dir())?;
    let clients = append.clients();
    let mut cases: Vec<Case> = Vec::new();
    for nodes in &append.nodes {
        for shape in &append.shape {
            cases.extend(clients.iter().map(|clients| Case::new(*nodes, *clients, *shape)));
        }
    }
    for round in 1..=setting.repetitions {
        for nodes in &append.nodes {
            setting.step(&format!("append: starting {nodes} nodes"))?;
            // A new one for each round, so that the disk does not fill.
            let cluster = Cluster::start(setting, *nodes)?;
            for case in cases.iter_mut().filter(|case| case.nodes == *nodes) {
                setting.step(&format!("{}, {round} of {}", case.name(), setting.repetitions))?;
                case.measure(setting, &cluster, &mut floor)?;
                if let Some(postgres) = &postgres
                    && (case.nodes, case.shape) == (1, Shape::Small)
                    && POSTGRES_CLIENTS.contains(&case.clients)
                {
                    setting.step(&format!("PostgreSQL: {} clients", case.clients))?;
                    case.measure_peer(setting, postgres)?;
                }
            }
        }
    }
    Ok(cases.into_iter().map(Case::report).collect())
}
