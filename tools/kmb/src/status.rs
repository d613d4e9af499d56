//! `kmb status`: how each node stands.

use std::net::SocketAddr;

use clap::Args;
use kimberlite_client::Output;
use kimberlite_types::{ClusterId, ReplicaId};
use kimberlite_wire::client::{Answer, CheckpointStatus, Query, Status as NodeStatus};
use serde_json::{Value, json};

use crate::address::Cluster;
use crate::connection::{Connection, Options};
use crate::output::{Colour, paint, say, takes_colour, thousands};
use crate::{Failure, failure::Kind};

/// What `kmb status` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb status
  kmb status --nodes 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400 --timeout 2 --json

`lag` is how many committed ops a node has not executed yet; `faulty` counts ops that are damaged on its disk
and not yet repaired; `checkpoint` is from where a restart executes on. Exit codes: 0 at least one node answered, 2 wrong usage, 3 none did.")]
pub(crate) struct Status {
    #[command(flatten)]
    cluster: Cluster,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One row: a node's address, and its word or why there is none.
pub(crate) type Row = (SocketAddr, Result<NodeStatus, Failure>);

/// Runs the command.
pub(crate) fn run(args: &Status) -> Result<(), Failure> {
    let mut connection = Connection::open(
        &args.cluster.nodes,
        Options {
            cluster: args.cluster.id.unwrap_or(ClusterId::UNNAMED),
            sessions: 1,
            give_up_after: Some(args.cluster.timeout.min(STATUS_PATIENCE)),
        },
    )?;
    let mut rows = ask_all(&mut connection)?;
    let members = members(&rows);
    if let Some(members) = members {
        rows.truncate(members);
    }
    if args.json {
        say(&as_json(&rows).to_string())?;
    } else {
        table(&rows).iter().try_for_each(|line| say(line))?;
    }
    if rows.iter().all(|(_, status)| status.is_err()) {
        return Err(Failure::new(Kind::Unreachable, "no node answered; are they running? give --nodes"));
    }
    Ok(())
}

/// How long a node may take to say how it stands; it needs nobody else for that.
const STATUS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Asks every node.
pub(crate) fn ask_all(connection: &mut Connection) -> Result<Vec<Row>, Failure> {
    let nodes = connection.nodes().to_vec();
    let tickets: Vec<u64> = (0..nodes.len())
        .map(|index| connection.begin_query(0, Query::Status, Some(ReplicaId(index as u8))))
        .collect();
    let mut rows: Vec<Option<Result<NodeStatus, Failure>>> = nodes.iter().map(|_| None).collect();
    while rows.iter().any(Option::is_none) {
        let Some((_, output)) = connection.wait(None)? else { continue };
        let (ticket, result) = match output {
            Output::Answered { ticket, answer: Answer::Status(status) } => (ticket, Ok(status)),
            Output::Failed { ticket, why } => (ticket, Err(connection.explain(why))),
            _ => continue,
        };
        if let Some(index) = tickets.iter().position(|asked| *asked == ticket) {
            rows[index] = Some(result);
        }
    }
    Ok(nodes.into_iter().zip(rows.into_iter().flatten()).collect())
}

/// How many replicas the cluster has, if a primary was among those who answered.
fn members(rows: &[Row]) -> Option<usize> {
    rows.iter()
        .filter_map(|(_, status)| status.as_ref().ok())
        .map(|status| status.peers.len())
        .find(|members| *members > 0)
}

fn commit_max(rows: &[Row]) -> u64 {
    rows.iter()
        .filter_map(|(_, status)| status.as_ref().ok())
        .map(|status| status.commit.0)
        .max()
        .unwrap_or(0)
}

pub(crate) fn table(rows: &[Row]) -> Vec<String> {
    let commit = commit_max(rows);
    let colour = takes_colour();
    let mut lines = vec![format!(
        "{:>7}  {:<21}  {:<11}  {:>6}  {:>7}  {:>12}  {:>12}  {:>8}  {:>6}  {}",
        "replica", "address", "state", "view", "primary", "op", "commit", "lag", "faulty", "checkpoint"
    )];
    for (index, (address, status)) in rows.iter().enumerate() {
        lines.push(match status {
            Ok(status) => {
                let leads = status.primary == status.replica && status.state == "normal";
                let tint = if leads { Colour::Green } else { Colour::Blue };
                let state = paint(&format!("{:<11}", status.state), tint, colour);
                let misplaced = if usize::from(status.replica.0) == index {
                    ""
                } else {
                    "  (list the nodes in the order of their replica numbers)"
                };
                format!(
                    "{:>7}  {:<21}  {state}  {:>6}  {:>7}  {:>12}  {:>12}  {:>8}  {:>6}  {}{misplaced}",
                    status.replica,
                    address.to_string(),
                    status.view,
                    status.primary,
                    thousands(status.op.0),
                    thousands(status.commit.0),
                    thousands(commit - status.commit.0),
                    status.faulty,
                    checkpoint_text(status),
                )
            }
            Err(failure) => {
                let state = paint(&format!("{:<11}", "unreachable"), Colour::Red, colour);
                format!("{index:>7}  {:<21}  {state}  {failure}", address.to_string())
            }
        });
    }
    lines
}

/// A checkpoint, in a word.
fn checkpoint_text(status: &NodeStatus) -> String {
    let Some(CheckpointStatus { op, pages, bytes }) = status.checkpoint else { return "none".to_owned() };
    let age = thousands(status.commit.0.saturating_sub(op.0));
    format!("op {} ({age} ops ago), {} pages, {} bytes", thousands(op.0), thousands(pages), thousands(bytes))
}

pub(crate) fn as_json(rows: &[Row]) -> Value {
    let commit = commit_max(rows);
    let nodes: Vec<Value> = rows
        .iter()
        .map(|(address, status)| match status {
            Ok(status) => json!({
                "address": address.to_string(), "replica": status.replica, "state": status.state,
                "view": status.view, "primary": status.primary, "op": status.op, "commit": status.commit,
                "lag": commit - status.commit.0, "faulty": status.faulty,
                "checkpoint": status.checkpoint.map(|CheckpointStatus { op, pages, bytes }| json!({
                    "op": op, "pages": pages, "bytes": bytes, "age": status.commit.0.saturating_sub(op.0),
                })),
            }),
            Err(failure) => json!({ "address": address.to_string(), "error": failure.to_string() }),
        })
        .collect();
    json!({ "nodes": nodes })
}
