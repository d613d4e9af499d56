//! Clients of a node that all increment one row, beside clients that increment rows of their own.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use kimberlite_types::TenantId;
use kimberlite_wire::client::{SqlAnswer, SqlRows, Statement};
use kimberlite_wire::command::{Command, Refusal};
use kmb::connection::Options;
use kmb::{Connection, Failure};

use crate::cluster::{Cluster, per};
use crate::figures::{Aim, Report, Series};
use crate::setting::Setting;

const TENANT: TenantId = TenantId(77);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);

fn run(connection: &mut Connection, text: &str) -> Result<SqlRows, Failure> {
    let statement = Statement { tenant: TENANT, in_block: false, text: text.to_owned() };
    let SqlAnswer { result, .. } = connection.statement(statement)?;
    result.map_err(|failure| Failure::failed(format!("{failure:?}: {text}")))
}

fn open(nodes: &[SocketAddr]) -> Result<Connection, Failure> {
    Connection::open(nodes, Options { give_up_after: Some(PATIENCE), ..Options::default() })
}

/// Each client increments the row that `row` gives it, for a while. Answers how often it was done, per second.
fn increments(
    nodes: &[SocketAddr],
    clients: u16,
    time: Duration,
    row: impl Fn(u16) -> u16 + Sync,
) -> Result<(u64, f64), Failure> {
    let begun = Instant::now();
    let done = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                let row = row(client);
                scope.spawn(move || -> Result<u64, Failure> {
                    let mut connection = open(nodes)?;
                    let text = format!("UPDATE hot SET n = n + 1 WHERE id = {row}");
                    let mut count = 0;
                    while begun.elapsed() < time {
                        run(&mut connection, &text)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("clients do not panic")).sum::<Result<u64, _>>()
    })?;
    Ok((done, per(done, begun.elapsed())))
}

fn count_of(connection: &mut Connection, which: &str) -> Result<u64, Failure> {
    let rows = run(connection, &format!("SELECT sum(n) FROM hot WHERE {which}"))?;
    let cell = rows.rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
    cell.ok_or_else(|| Failure::failed("a sum is no number"))
}

pub(super) fn measure(setting: &Setting, clients: u16) -> Result<Report, Failure> {
    setting.step("sql: a node for its clients")?;
    let cluster = Cluster::start(setting, 1)?;
    let nodes = cluster.fleet.plan().clients.clone();
    let mut connection = open(&nodes)?;
    let verdict = connection.submit(TENANT, &Command::CreateTenant { name: "bench" })?;
    match verdict.result {
        Ok(_) | Err(Refusal::TenantExists) => {}
        Err(refusal) => return Err(Failure::failed(format!("no tenant: {refusal}"))),
    }
    run(&mut connection, "CREATE TABLE hot (id INT PRIMARY KEY, n BIGINT NOT NULL)")?;
    for row in 0..=clients {
        run(&mut connection, &format!("INSERT INTO hot VALUES ({row}, 0)"))?;
    }
    let (mut own, mut hot, mut ratio) = (Series::default(), Series::default(), Series::default());
    let (mut own_done, mut hot_done) = (0, 0);
    for round in 1..=setting.repetitions {
        setting.step(&format!("sql: {clients} clients, {round} of {}", setting.repetitions))?;
        let (done, rate) = increments(&nodes, clients, setting.seconds, |client| client + 1)?;
        own_done += done;
        own.push(rate);
        let (done, hot_rate) = increments(&nodes, clients, setting.seconds, |_| 0)?;
        hot_done += done;
        hot.push(hot_rate);
        ratio.push(hot_rate / rate);
    }
    for (which, wanted) in [("id = 0", hot_done), ("id > 0", own_done)] {
        let found = count_of(&mut connection, which)?;
        if found != wanted {
            return Err(Failure::failed(format!(
                "{wanted} increments were answered, {found} are there ({which})"
            )));
        }
    }
    let mut report = Report::new(format!("sql: {clients} clients of a node, autocommitted UPDATEs"));
    report.row("each a row of its own", "/s", own);
    report.row("all the same row", "/s", hot);
    report.aimed("the same row: ratio", "", ratio, Aim::AtLeast(0.5));
    report.note("each increment that was answered is in the sums, and no other");
    Ok(report)
}
