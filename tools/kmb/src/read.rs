//! `kmb read`: records of a stream, in order.

use clap::Args;
use kimberlite_types::{ClusterId, Offset};
use kimberlite_wire::client::{Answer, Query};
use serde_json::{Value, json};

use crate::address::{Cluster, Name, name};
use crate::connection::{Connection, Options};
use crate::output::print;
use crate::{Failure, streams};

/// Records and bytes asked for at once. An answer holds at most a megabyte.
const PAGE_RECORDS: u32 = 65_536;
const PAGE_BYTES: u32 = 1 << 20;

/// What `kmb read` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  kmb read --stream readme
  kmb read --stream readme --from 10 --limit 5 --json

Prints one record per line; with --json one object per line, with the record as `text`, or as `hex` if it is
not UTF-8. What is read is confirmed by a majority of the nodes to be the latest.
Exit codes: 0 read, 1 refused or damaged, 2 wrong usage, 3 no answer in time, 5 I/O error.")]
pub(crate) struct Read {
    /// The stream: a name or a number
    #[arg(long, value_name = "STREAM", value_parser = name)]
    stream: Name,
    /// The tenant: a name or a number
    #[arg(long, value_name = "TENANT", value_parser = name, default_value = "default")]
    tenant: Name,
    #[command(flatten)]
    cluster: Cluster,
    /// The offset of the first record
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print one JSON object per record
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Read) -> Result<(), Failure> {
    let mut connection = Connection::open(
        &args.cluster.nodes,
        Options {
            cluster: args.cluster.id.unwrap_or(ClusterId::UNNAMED),
            sessions: 1,
            give_up_after: Some(args.cluster.timeout),
        },
    )?;
    read(&mut connection, &args.tenant, &args.stream, args.from, args.limit, |offset, record| {
        if args.json {
            print(format!("{}\n", as_json(offset, record)).as_bytes())
        } else {
            print(&[record, b"\n"].concat())
        }
    })
}

/// Hands records to `take` until there are no more, or it wants no more.
pub(crate) fn read(
    connection: &mut Connection,
    tenant: &Name,
    stream: &Name,
    from: u64,
    limit: Option<u64>,
    mut take: impl FnMut(u64, &[u8]) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut next = from;
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0 {
        let answer = connection.query(Query::ReadEvents {
            tenant: tenant.tenant(),
            stream: stream.stream(),
            from: Offset(next),
            records_max: u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_RECORDS),
            bytes_max: PAGE_BYTES,
        })?;
        let (records, end) = match &answer {
            Answer::Events { records, end, .. } => (records, end.0),
            Answer::Refused(refusal) => {
                return Err(streams::refused(connection, tenant, stream, *refusal));
            }
            Answer::Damaged { op } => {
                return Err(Failure::failed(format!(
                    "record {next} is damaged on the node's disk (op {op}) and it has no peer to repair it \
                     from; `kmb verify` names the place"
                )));
            }
            other => {
                return Err(Failure::failed(format!(
                    "the node gave an answer to another question: {other:?}"
                )));
            }
        };
        for record in &records.records() {
            if !take(next, record)? {
                return Ok(());
            }
            next += 1;
            left -= 1;
        }
        if records.is_empty() || next >= end {
            return Ok(());
        }
    }
    Ok(())
}

/// A record as JSON: text if it is UTF-8, otherwise hexadecimal.
pub(crate) fn as_json(offset: u64, record: &[u8]) -> Value {
    match std::str::from_utf8(record) {
        Ok(text) => json!({ "offset": offset, "text": text }),
        Err(_) => json!({ "offset": offset, "hex": hex(record) }),
    }
}

/// Two digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_text_if_it_can_be() {
        assert_eq!(as_json(3, "größe".as_bytes()), json!({ "offset": 3, "text": "größe" }));
        assert_eq!(as_json(4, &[0xff, 0x00]), json!({ "offset": 4, "hex": "ff00" }));
    }
}
