//! Where the nodes are, and what streams and tenants are called.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use clap::Args;
use kimberlite_crypto::checksum;
use kimberlite_types::{ClusterId, StreamId, TenantId};

use crate::Failure;
use crate::node_file::parse_cluster;

/// Where clients look for a cluster that they were not told of: the ports of `kmb dev`.
pub(crate) const NODES_DEFAULT: &str = "127.0.0.1:7400,127.0.0.1:7401,127.0.0.1:7402";

/// The first port of clients; replica `i` takes the `i`th after it.
pub(crate) const CLIENT_PORT: u16 = 7400;

/// The distance from a replica's client port to the port for its peers.
pub(crate) const REPLICA_PORT_STEP: u16 = 10;

/// Which cluster a client talks to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cluster {
    /// The client addresses of all nodes, in the order of their replica numbers
    #[arg(long, value_name = "A,B,C", env = "KMB_NODES", value_delimiter = ',', value_parser = resolve,
          default_value = NODES_DEFAULT)]
    pub(crate) nodes: Vec<SocketAddr>,
    /// Refuse any other cluster than this one
    #[arg(long = "cluster-id", value_name = "HEX", env = "KMB_CLUSTER", value_parser = parse_cluster)]
    pub(crate) id: Option<ClusterId>,
    /// Give up when there was no answer for this long
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// An address: numbers, or a name and a port.
pub(crate) fn resolve(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("{error}; give HOST:PORT"))?;
    // A name often has both; nodes listen on IPv4 unless told otherwise.
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().ok_or_else(|| format!("`{text}` has no address"))
}

/// A positive number of seconds, at most a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds, above 0 and at most 86400".to_owned()),
    }
}

/// A tenant or stream as people give it: a number, or a name that stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its number.
    pub(crate) id: u64,
    /// What it is called when it is made.
    pub(crate) text: String,
}

impl Name {
    /// Reads a number, or a name of 1 to 255 bytes. The same name always stands for the same number.
    pub fn new(text: &str) -> Result<Self, Failure> {
        name(text).map_err(|why| Failure::usage(format!("`{text}`: {why}")))
    }

    /// The tenant of this name.
    pub fn tenant(&self) -> TenantId {
        TenantId(self.id)
    }

    /// The stream of this name.
    pub fn stream(&self) -> StreamId {
        StreamId(self.id)
    }
}

/// The numbers of names: 48 bits of their BLAKE3 checksum and this bit, so that they stay apart from small
/// numbers given by hand and are exact in every JSON reader.
const NAMED: u64 = 1 << 48;

/// Reads a [`Name`]. The same name always stands for the same number.
pub(crate) fn name(text: &str) -> Result<Name, String> {
    if text.is_empty() || text.len() > kimberlite_types::limits::NAME_SIZE_MAX {
        return Err("a name has 1 to 255 bytes".to_owned());
    }
    let id = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| "a number below 2^64".to_owned())?
    } else {
        let sum = checksum(text.as_bytes());
        let head: [u8; 8] = sum.as_bytes()[..8].try_into().expect("a checksum has 32 bytes");
        u64::from_le_bytes(head) % NAMED + NAMED
    };
    Ok(Name { id, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_itself_and_a_name_for_a_number_of_its_own() {
        assert_eq!(name("17").unwrap().stream(), StreamId(17));
        let visits = name("visits").unwrap();
        assert_eq!(visits, name("visits").unwrap());
        assert_ne!(visits.id, name("visit").unwrap().id);
        assert!(visits.id >= NAMED && visits.id < 1 << 53);
        assert!(name("").is_err() && name("99999999999999999999").is_err());
    }

    #[test]
    fn addresses_may_be_names() {
        assert_eq!(resolve("127.0.0.1:7400").unwrap().port(), 7400);
        assert!(resolve("localhost:7400").unwrap().ip().is_loopback());
        assert!(resolve("7400").unwrap_err().contains("HOST:PORT"));
    }
}
