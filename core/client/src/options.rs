//! What the parent decides for a client.

use core::time::Duration;

use kimberlite_io::Conn;
use kimberlite_types::ClusterId;
use kimberlite_types::limits::REPLICAS_MAX;

/// How a client behaves. Read when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The cluster. Frames of another are malformed. [`ClusterId::UNNAMED`] takes the first node's word for it.
    pub cluster: ClusterId,
    /// Replicas in the cluster, 1 to 6; replica `i` is reached at `Address(i)`.
    pub replicas: u8,
    /// A request or query that is not answered for this long after it was sent is sent again, to another
    /// replica.
    pub request_timeout: Duration,
    /// A connection that is not open after this long is given up.
    pub connect_timeout: Duration,
    /// The first wait before a replica that failed, or asked for patience, is tried again. Doubles with each
    /// failure in a row; half of every wait is drawn at random.
    pub backoff_min: Duration,
    /// The longest such wait.
    pub backoff_max: Duration,
    /// A command or query that is not answered for this long after it was submitted fails. None: never.
    pub give_up_after: Option<Duration>,
    /// Decides all luck of this client. Clients of one cluster should have different seeds, so that they do
    /// not wait in step.
    pub seed: u64,
    /// The id of the first connection; later ones count up. Clients that share a driver need distinct ranges.
    pub first_conn: u64,
}

impl ClientOptions {
    /// For a local network.
    pub const fn new(cluster: ClusterId, replicas: u8, seed: u64) -> Self {
        Self {
            cluster,
            replicas,
            request_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            give_up_after: None,
            seed,
            first_conn: 1,
        }
    }

    /// These are the program's own numbers: one that makes no sense is a bug.
    pub(crate) fn check(&self) {
        assert!(
            (1..=REPLICAS_MAX).contains(&usize::from(self.replicas)),
            "a cluster has 1 to {REPLICAS_MAX} replicas"
        );
        assert!(!self.request_timeout.is_zero(), "a request is given time to be answered");
        assert!(!self.connect_timeout.is_zero(), "a connection is given time to open");
        assert!(!self.backoff_min.is_zero(), "a client that does not wait is a flood");
        assert!(self.backoff_min <= self.backoff_max, "waits grow");
        assert!(self.first_conn < Conn::ACCEPTED / 2, "there is room for the ids of opened connections");
    }
}
