//! What a checker sees of a run, and what it says.
//!
//! Checkers read; they never draw luck and never change a run. They see what replicas note, what clients
//! ask and hear, when processes start and crash, and at the end the disks themselves.

use std::fmt;

use kimberlite_io::Zone;
use kimberlite_io_sim::Resources;
use kimberlite_runtime::{Node, Note};
use kimberlite_types::{Config, Instant, Op, ReplicaId, SessionId, TenantId};
use kimberlite_wire::client::{Answer, Query, SqlAnswer};
use kimberlite_wire::command::Verdict;
use serde::{Deserialize, Serialize};

use crate::sql::Deed;

/// One thing that happened.
#[derive(Debug)]
pub enum Observation<'a> {
    /// A replica's process starts, on the disk it had.
    Started {
        /// Which.
        replica: ReplicaId,
    },
    /// A replica's process dies without a word.
    Crashed {
        /// Which.
        replica: ReplicaId,
    },
    /// A replica said something.
    Note {
        /// Which.
        replica: ReplicaId,
        /// What.
        note: &'a Note,
    },
    /// A replica is about to hear that a write failed, and what is on its disk is not known any more.
    WriteFailed {
        /// Which.
        replica: ReplicaId,
    },
    /// A replica's disk did damage to pages of checkpoints, or read them wrongly.
    GridHarmed {
        /// Which.
        replica: ReplicaId,
    },
    /// A client was given a command to have done once.
    Submitted {
        /// The client, counted from 0.
        client: u16,
        /// The client's name for it, unique for the client.
        ticket: u64,
        /// The tenant.
        tenant: TenantId,
        /// The encoded command.
        command: &'a [u8],
    },
    /// A client heard the final word on a command: from here on it counts as acknowledged.
    Done {
        /// The client.
        client: u16,
        /// Its name for the command.
        ticket: u64,
        /// The word.
        verdict: Verdict,
    },
    /// A client was given a query.
    Asked {
        /// The client.
        client: u16,
        /// Its name for the query.
        ticket: u64,
        /// The query.
        query: &'a Query,
    },
    /// A client heard an answer.
    Answered {
        /// The client.
        client: u16,
        /// Its name for the query.
        ticket: u64,
        /// The answer.
        answer: &'a Answer,
    },
    /// A client gave up on a ticket: its outcome is unknown.
    Failed {
        /// The client.
        client: u16,
        /// Its name for the command or query.
        ticket: u64,
    },
    /// A client that speaks SQL says a statement.
    Stated {
        /// The client.
        client: u16,
        /// Its name for the statement.
        ticket: u64,
        /// Whose tables it is about.
        tenant: TenantId,
        /// What it is about.
        deed: &'a Deed,
        /// Whether it belongs to a transaction block that the client has open.
        in_block: bool,
    },
    /// It heard what became of the statement.
    Ran {
        /// The client.
        client: u16,
        /// Its name for the statement.
        ticket: u64,
        /// The answer.
        answer: &'a SqlAnswer,
    },
    /// It will never hear. What was not even sent was not done.
    Lost {
        /// The client.
        client: u16,
        /// Its name for the statement.
        ticket: u64,
        /// Whether it was sent.
        sent: bool,
    },
    /// A client has a session from here on.
    Registered {
        /// The client.
        client: u16,
        /// Its session.
        session: SessionId,
    },
    /// A client was told that its session is gone.
    Evicted {
        /// The client.
        client: u16,
    },
    /// The second phase begins, or more replicas are drawn into it: nothing breaks any more.
    Healed {
        /// The replicas that are healed.
        core: &'a [ReplicaId],
    },
}

/// How the world stands between two events, looked at now and then.
pub struct Sample<'a> {
    /// The configuration all replicas share (but for their own index).
    pub config: Config,
    /// The running replicas, by index; none for one that is down.
    pub nodes: Vec<Option<&'a Node>>,
    /// What the world holds for each replica.
    pub held: Vec<Resources>,
}

/// How the world stands at the end of a run.
pub struct End<'a> {
    /// The configuration all replicas share (but for their own index).
    pub config: Config,
    /// The running replicas, by index; none for one that is down.
    pub nodes: Vec<Option<&'a Node>>,
    /// Reads a replica's disk as a power cut would leave it, without injected damage. Never-written places read
    /// as zeros.
    pub disk: &'a dyn Fn(ReplicaId, Zone, u64, usize) -> Vec<u8>,
    /// Reads a replica's disk as the replica itself would, if it can be read: with all injected damage.
    pub seen: &'a dyn Fn(ReplicaId, Zone, u64, usize) -> Option<Vec<u8>>,
    /// What the world holds for each replica.
    pub held: Vec<Resources>,
    /// Replicas that were healed and had to converge: all of them up, faultless and connected.
    pub core: Vec<ReplicaId>,
}

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The checker.
    pub checker: String,
    /// The rule, a short fixed phrase: part of the failure's fingerprint.
    pub rule: String,
    /// What was seen, for people.
    pub seen: String,
    /// The replica concerned, if one is.
    pub replica: Option<ReplicaId>,
    /// The op concerned, if one is.
    pub op: Option<Op>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.checker, self.rule, self.seen)
    }
}

impl std::error::Error for Violation {}

/// One family of rules.
pub trait Checker {
    /// Its name, for `--help`, reports and fingerprints.
    fn name(&self) -> &'static str;

    /// One sentence for each rule it holds.
    fn rules(&self) -> &'static [&'static str];

    /// Sees one thing happen.
    fn observe(&mut self, at: Instant, seen: &Observation<'_>) -> Result<(), Violation>;

    /// Looks at what replicas do not say.
    fn sample(&mut self, _at: Instant, _sample: &Sample<'_>) -> Result<(), Violation> {
        Ok(())
    }

    /// Looks at the end of a run whose liveness phase converged.
    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation>;

    /// How much it has compared so far, so that a check that never looked at anything shows.
    fn compared(&self) -> u64;

    /// How much it left undecided, because it was beyond a limit of the check.
    fn skipped(&self) -> u64 {
        0
    }
}
