//! Starting again on a log of many ops: from the start of the process until all of it is executed.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use kimberlite_types::{ReplicaId, TenantId};
use kimberlite_wire::client::{Answer, Query, SqlAnswer, SqlRows, Statement, Status};
use kimberlite_wire::command::{Command, Refusal};
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
    let mut reports = vec![report];
    if restart.rows > 0 {
        reports.push(table(setting, restart.rows)?);
    }
    Ok(reports)
}

/// The tenant of the table.
const TENANT: TenantId = TenantId(77);

/// Rows of one INSERT.
const BLOCK: u64 = 5_000;

/// A table of many rows on a node that is killed and started again.
fn table(setting: &Setting, rows: u64) -> Result<Report, Failure> {
    setting.step("restart: filling a table")?;
    let mut cluster = Cluster::start(setting, 1)?;
    let mut client = cluster.connect()?;
    match client.submit(TENANT, &Command::CreateTenant { name: "bench" })?.result {
        Ok(_) | Err(Refusal::TenantExists) => {}
        Err(refusal) => return Err(Failure::failed(format!("no tenant: {refusal}"))),
    }
    run(&mut client, "CREATE TABLE t (id INT PRIMARY KEY, name TEXT NOT NULL, n INT NOT NULL)")?;
    for first in (1..=rows).step_by(BLOCK as usize) {
        let last = (first + BLOCK - 1).min(rows);
        let text = format!(
            "INSERT INTO t SELECT i, 'the name of row ' || i, i * 7 % 1000 FROM generate_series({first}, {last}) AS g(i)"
        );
        run(&mut client, &text)?;
    }
    let checkpoint = status(&mut client)?.checkpoint;
    let none = Series::default;
    let (mut first, mut scan, mut again) = (none(), none(), none());
    for round in 1..=setting.repetitions {
        setting.step(&format!("restart: with a table, {round} of {}", setting.repetitions))?;
        cluster.fleet.kill(0)?;
        let begun = Instant::now();
        cluster.fleet.restart(0)?;
        let address = cluster.fleet.plan().clients[0];
        while TcpStream::connect(address).is_err() {
            look_again(begun, "does not listen")?;
        }
        let by_key = format!("SELECT n FROM t WHERE id = {}", rows / 2);
        let mut client = loop {
            // While the node executes its log it may be silent for so long that a client gives it up.
            let mut client = cluster.connect()?;
            if run(&mut client, &by_key).is_ok() {
                break client;
            }
            look_again(begun, "does not answer")?;
        };
        first.push(begun.elapsed().as_secs_f64());
        for series in [&mut scan, &mut again] {
            let begun = Instant::now();
            let found = run(&mut client, "SELECT count(*), sum(n) FROM t")?;
            if found.rows[0][0].as_deref() != Some(&*rows.to_string()) {
                return Err(Failure::failed(format!("{:?} of {rows} rows are there", found.rows)));
            }
            series.push(begun.elapsed().as_secs_f64());
        }
    }
    let held = checkpoint.map_or("no checkpoint".to_owned(), |held| {
        format!("a checkpoint of {} pages, {} bytes", held.pages, held.bytes)
    });
    let mut report = Report::new(format!("restart: a killed node with a table of {rows} rows and {held}"));
    report.row("from its start to an answer by key", "s", first);
    report.row("the first look at all rows behind it", "s", scan);
    report.row("the same once more", "s", again);
    Ok(report)
}

fn run(client: &mut Connection, text: &str) -> Result<SqlRows, Failure> {
    let statement = Statement { tenant: TENANT, in_block: false, text: text.to_owned() };
    let SqlAnswer { result, .. } = client.statement(statement)?;
    result.map_err(|failure| Failure::failed(format!("{}: {text}", failure.message)))
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
