//! Starting again on a log of many ops: from the start of the process until all of it is executed.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use kimberlite_types::ReplicaId;
use kimberlite_wire::client::{Answer, Query, Status};
use kmb::{Connection, Failure};

use crate::arguments::{Restart, Shape};
use crate::cluster::{Cluster, Until};
use crate::figures::{Report, Series};
use crate::setting::Setting;

/// How long a node may take to replay its log.
const PATIENCE: Duration = Duration::from_mins(30);

/// How often it is looked whether a node is there, and how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Runs the command.
pub(crate) fn measure(setting: &Setting, restart: &Restart) -> Result<Vec<Report>, Failure> {
    setting.step("restart: filling a log")?;
    let mut cluster = Cluster::start(setting, 1)?;
    // One client: each request is an op of its own.
    cluster.append(setting, 1, Shape::Small, Until::Requests(restart.ops))?;
    let mut empty = Cluster::start(setting, 1)?;
    let none = Series::default;
    let (mut whole, mut bare, mut replay, mut processor) = (none(), none(), none(), none());
    let mut ops = 0;
    for round in 1..=setting.repetitions {
        setting.step(&format!("restart: {round} of {}", setting.repetitions))?;
        let (_, nothing, nothing_ran) = again(&mut empty)?;
        let (replayed, took, ran) = again(&mut cluster)?;
        ops = replayed;
        let all = 100_000.0 / f64::from(u32::try_from(ops).unwrap_or(u32::MAX));
        processor.push((ran.as_secs_f64() - nothing_ran.as_secs_f64()) * all);
        whole.push(took.as_secs_f64());
        bare.push(nothing.as_secs_f64());
        replay.push((took.as_secs_f64() - nothing.as_secs_f64()) * all);
    }
    let mut report = Report::new(format!("restart: a node with {ops} ops of one small record each"));
    report.row("from its start to the end of its log", "s", whole);
    report.row("the same with an empty log", "s", bare);
    report.row("replay of 100,000 ops", "s", replay);
    report.row("processor time of it", "s", processor);
    Ok(vec![report])
}

/// Ends a node, starts it again and asks it until it has executed all it had. Tells how many ops that were, how long
/// it took, and how much of that time the node's threads ran.
fn again(cluster: &mut Cluster) -> Result<(u64, Duration, Duration), Failure> {
    let wanted = status(&mut cluster.connect()?)?.commit;
    cluster.fleet.stop()?;
    let begun = Instant::now();
    cluster.fleet.restart(0)?;
    let address = cluster.fleet.plan().clients[0];
    while TcpStream::connect(address).is_err() {
        look_again(begun, "does not listen")?;
    }
    let mut client = cluster.connect()?;
    loop {
        let found = status(&mut client)?;
        if found.state == "normal" && found.commit >= wanted {
            return Ok((wanted.0, begun.elapsed(), cluster.processor_time()?));
        }
        look_again(begun, "does not come to the end of its log")?;
    }
}

fn look_again(begun: Instant, trouble: &str) -> Result<(), Failure> {
    if begun.elapsed() > PATIENCE {
        return Err(Failure::failed(format!("a node that was started again {trouble}")));
    }
    thread::sleep(LOOK_EVERY);
    Ok(())
}

fn status(client: &mut Connection) -> Result<Status, Failure> {
    match client.query_node(Query::Status, ReplicaId(0))? {
        Answer::Status(status) => Ok(status),
        other => Err(Failure::failed(format!("a node told its state as {other:?}"))),
    }
}
