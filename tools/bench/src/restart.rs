//! Starting again on a log of many ops: from the start of the process until a client has its answer.

use std::time::{Duration, Instant};

use kimberlite_wire::client::{Answer, Query};
use kmb::connection::Options;
use kmb::{Connection, Failure, Name};

use crate::arguments::{Restart, Shape};
use crate::cluster::{Cluster, Until};
use crate::figures::{Report, Series};
use crate::setting::Setting;

/// How long a node may take to replay its log.
const PATIENCE: Duration = Duration::from_mins(30);

/// Runs the command.
pub(crate) fn measure(setting: &Setting, restart: &Restart) -> Result<Vec<Report>, Failure> {
    setting.step("restart: filling a log")?;
    let mut cluster = Cluster::start(setting, 1)?;
    // One client: each request is an op of its own.
    cluster.append(setting, 1, Shape::Small, Until::Requests(restart.ops))?;
    let mut empty = Cluster::start(setting, 1)?;
    let (mut whole, mut bare, mut replay) = (Series::default(), Series::default(), Series::default());
    let mut ops = 0;
    for round in 1..=setting.repetitions {
        setting.step(&format!("restart: {round} of {}", setting.repetitions))?;
        let nothing = again(&mut empty, None)?.1;
        let (replayed, took) = again(&mut cluster, Some(restart.ops))?;
        ops = replayed;
        whole.push(took.as_secs_f64());
        bare.push(nothing.as_secs_f64());
        replay.push(
            (took.as_secs_f64() - nothing.as_secs_f64()) * 100_000.0
                / f64::from(u32::try_from(ops).unwrap_or(u32::MAX)),
        );
    }
    let mut report = Report::new(format!("restart: a node with {ops} ops of one small record each"));
    report.row("from its start to the first answer", "s", whole);
    report.row("the same with an empty log", "s", bare);
    report.row("replay of 100,000 ops", "s", replay);
    Ok(vec![report])
}

/// Kills a node, starts it again and asks it until it answers. Tells its last op, and how long it took. `records` is
/// what it must hold.
fn again(cluster: &mut Cluster, records: Option<u64>) -> Result<(u64, Duration), Failure> {
    cluster.fleet.kill(0)?;
    let nodes = cluster.fleet.plan().clients.clone();
    let options = Options { give_up_after: Some(PATIENCE), ..Options::default() };
    let begun = Instant::now();
    cluster.fleet.restart(0)?;
    let mut client = Connection::open(&nodes, options)?;
    let (tenant, stream) = (Name::new("default")?.tenant(), Name::new("bench")?.stream());
    let answer = client.query(Query::StreamInfo { tenant, stream })?;
    let took = begun.elapsed();
    match (records, answer) {
        (None, Answer::Refused(_)) => {}
        (Some(records), Answer::Stream { end, .. }) if end.0 >= records => {}
        (_, other) => return Err(Failure::failed(format!("a node that started again answered {other:?}"))),
    }
    match client.query(Query::Status)? {
        Answer::Status(status) => Ok((status.commit.0, took)),
        other => Err(Failure::failed(format!("a node told its state as {other:?}"))),
    }
}
