//! `kmb streams`: the streams of a tenant, and those whose names are near to one that does not exist.

use clap::Args;
use kimberlite_types::{ClusterId, StreamId};
use kimberlite_wire::client::{Answer, ListedStream, Query, STREAMS_ANSWERED_MAX};
use kimberlite_wire::command::Refusal;
use serde_json::json;

use crate::Failure;
use crate::address::{Cluster, Name, name};
use crate::connection::{Connection, Options};
use crate::output::{print, thousands};

/// Names of similar spelling that are shown at most.
const NEAR_MAX: usize = 3;
/// How much of a name may differ to be near: of ten letters, four.
const NEAR_LEAST: f64 = 0.6;

/// What `kmb streams` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb streams
  kmb streams --tenant clinic --json

Prints one stream per line: its name and how many records it holds; with --json one object per line. What is
shown is confirmed by a majority of the nodes to be the latest; streams made while a long list is read may be missing.
Exit codes: 0 listed, 1 refused, 2 wrong usage, 3 no answer in time, 5 I/O error.")]
pub(crate) struct Streams {
    /// The tenant: a name or a number
    #[arg(long, value_name = "TENANT", value_parser = name, default_value = "default")]
    tenant: Name,
    #[command(flatten)]
    cluster: Cluster,
    /// Print one JSON object per stream
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Streams) -> Result<(), Failure> {
    let mut connection = Connection::open(
        &args.cluster.nodes,
        Options {
            cluster: args.cluster.id.unwrap_or(ClusterId::UNNAMED),
            sessions: 1,
            give_up_after: Some(args.cluster.timeout),
        },
    )?;
    each(&mut connection, &args.tenant, |stream| {
        let ListedStream { id, name, end } = stream;
        let line = if args.json {
            json!({ "stream": name, "id": id.0, "records": end.0 }).to_string()
        } else {
            format!("{name}  {} records", thousands(end.0))
        };
        print(format!("{line}\n").as_bytes()).map(|_| ())
    })
}

/// Hands every stream of a tenant to `take`, by number.
fn each(
    connection: &mut Connection,
    tenant: &Name,
    mut take: impl FnMut(&ListedStream) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut from = StreamId(0);
    loop {
        let tenant_id = tenant.tenant();
        let query = Query::Streams { tenant: tenant_id, from, streams_max: STREAMS_ANSWERED_MAX };
        let (streams, more) = match connection.query(query)? {
            Answer::Streams { streams, more } => (streams, more),
            Answer::Refused(refusal) => {
                return Err(Failure::failed(format!("tenant `{}`: {refusal}", tenant.text)));
            }
            other => {
                return Err(Failure::failed(format!(
                    "the node gave an answer to another question: {other:?}"
                )));
            }
        };
        for stream in &streams {
            take(stream)?;
        }
        match streams.last() {
            Some(last) if more && last.id.0 < u64::MAX => from = StreamId(last.id.0 + 1),
            _ => return Ok(()),
        }
    }
}

/// The failure of a command that named a stream and was refused. Where the stream does not exist, those that may have been
/// meant are listed.
pub(crate) fn refused(
    connection: &mut Connection,
    tenant: &Name,
    stream: &Name,
    refusal: Refusal,
) -> Failure {
    let mut names = Vec::new();
    if refusal == Refusal::NoStream {
        // The refusal is what counts: when they cannot be listed, it is told without them.
        let _ = each(connection, tenant, |listed| {
            names.push(listed.name.clone());
            Ok(())
        });
    }
    let near = match nearest(&stream.text, &names) {
        near if near.is_empty() => String::new(),
        near => format!("; near: {}", near.join(", ")),
    };
    Failure::failed(format!("stream `{}` of tenant `{}`: {refusal}{near}", stream.text, tenant.text))
}

/// The names that are near to a misspelt one, nearest first.
fn nearest<'a>(text: &str, names: &'a [String]) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> = names
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(text, known), known.as_str()))
        .filter(|(alike, _)| *alike >= NEAR_LEAST)
        .collect();
    near.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    near.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names: Vec<String> = ["visits", "vists", "payments", "visitors"].map(str::to_owned).into();
        assert_eq!(nearest("visit", &names), ["visits", "visitors", "vists"]);
        assert_eq!(nearest("paiments", &names), ["payments"]);
        assert!(nearest("x", &names).is_empty() && nearest("", &names).is_empty());
    }
}
