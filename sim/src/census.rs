//! What happened in a run, in the words of the protocol: counts by name.

use std::collections::BTreeMap;

use kimberlite_io_sim::{Census, Fault, NodeId, World};
use kimberlite_runtime::Note;
use kimberlite_types::{Op, ReplicaId, View};
use kimberlite_vsr::Status;
use kimberlite_wire::command::{Outcome, Refusal};
use serde::{Deserialize, Serialize};

macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// How often things happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counts {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Counts {
            /// All counts by name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }

            /// Adds another run's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counts! {
    /// Processes of replicas that died.
    crashes,
    /// Processes of clients that died.
    client_crashes,
    /// Writes that a crash left in part.
    torn_writes,
    /// Processes that stood still.
    pauses,
    /// Partitions that were put in place.
    partitions,
    /// Times that paths were clogged.
    clogs,
    /// Clocks that jumped, drifted or froze.
    clock_faults,
    /// Content on disk that was damaged, lost or misplaced.
    storage_faults,
    /// Operations that found a disk full, stalled or slow.
    storage_delays,
    /// Disks that died for good.
    deaths,
    /// Views after the first that began.
    view_changes,
    /// Replicas that opened their journal and were sure of its head.
    opened_certain,
    /// Replicas that opened their journal and were not sure of its head.
    opened_uncertain,
    /// Ops committed by the cluster.
    ops_committed,
    /// Commits of all replicas together.
    commits,
    /// Segments sealed by all replicas together.
    segments_sealed,
    /// Prepares written again from a peer's copy.
    repairs,
    /// Checkpoints that were durable, of all replicas together.
    checkpoints,
    /// Lost pages of checkpoints written again from a peer's copy.
    pages_mended,
    /// States made anew from the log, as the checkpoint was lost.
    rebuilds,
    /// Damaged places that replicas found.
    damage_found,
    /// Replicas seen to execute more committed ops than anybody keeps headers of.
    catch_ups,
    /// Frames that replicas dropped.
    malformed,
    /// Frames of clients that were dropped with their stream.
    client_malformed,
    /// Misbehaviour that replicas reported of each other.
    misbehaved,
    /// Times a replica found its disk full.
    full,
    /// Sessions that clients began.
    registrations,
    /// Sessions that clients lost.
    evictions,
    /// Redirects that clients followed.
    redirects,
    /// Commands with a final word.
    requests_done,
    /// Of these, refused.
    requests_refused,
    /// Queries answered.
    queries_answered,
    /// Requests and queries whose outcome stayed unknown.
    requests_failed,
    /// Replicas that the second phase needed beyond its first choice.
    core_widened,
    /// Statements of SQL answered.
    sql_answered,
    /// Of these, refused.
    sql_refused,
    /// Of these, because the transaction was overtaken.
    sql_conflicts,
    /// Transaction blocks that came to their COMMIT.
    sql_blocks,
    /// Of these and of single statements that write, those that were committed.
    sql_commits,
    /// Statements whose outcome stayed unknown.
    sql_unknown,
    /// Looks at the past that were answered.
    sql_travels,
    /// Facts that were overtaken, and so planned again or told to begin again.
    facts_overtaken,
    /// Facts that were installed.
    facts_installed,
}

/// Counts while a run goes on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    newest_view: View,
    newest_op: Op,
    committed: BTreeMap<ReplicaId, Op>,
}

impl Tally {
    pub(crate) fn note(&mut self, replica: ReplicaId, note: &Note) {
        let counts = &mut self.counts;
        match note {
            Note::Opened { head_certain: true, .. } => counts.opened_certain += 1,
            Note::Opened { head_certain: false, .. } => counts.opened_uncertain += 1,
            Note::Consensus(note) => match note {
                kimberlite_vsr::Note::View { view, status: Status::Normal, .. }
                    if *view > self.newest_view =>
                {
                    self.newest_view = *view;
                    counts.view_changes += 1;
                }
                kimberlite_vsr::Note::Malformed { .. } => counts.malformed += 1,
                kimberlite_vsr::Note::Misbehaved { .. } => counts.misbehaved += 1,
                _ => {}
            },
            Note::Committed { prepare, applied, .. } => {
                let op = prepare.header.op;
                counts.commits += 1;
                if op > self.newest_op {
                    self.newest_op = op;
                    counts.ops_committed = op.0;
                    for said in &applied.verdicts {
                        counts.facts_overtaken += u64::from(said.verdict.result == Err(Refusal::Conflict));
                        let installed = matches!(said.verdict.result, Ok(Outcome::Written { .. }));
                        counts.facts_installed += u64::from(installed && !said.duplicate);
                    }
                }
                self.committed.insert(replica, op);
            }
            Note::Sealed { .. } => counts.segments_sealed += 1,
            Note::Repaired { .. } => counts.repairs += 1,
            Note::Checkpoint { .. } => counts.checkpoints += 1,
            Note::PageMended { .. } => counts.pages_mended += 1,
            Note::Rebuilds { .. } => counts.rebuilds += 1,
            Note::Damaged { .. } => counts.damage_found += 1,
            Note::Full => counts.full += 1,
            Note::ClientMalformed { .. } => counts.client_malformed += 1,
            _ => {}
        }
    }

    /// Takes over what the world counted.
    pub(crate) fn absorb(&mut self, census: &Census) {
        use Fault as F;
        let sum = |faults: &[Fault]| faults.iter().map(|fault| census.faults(*fault)).sum();
        self.counts.torn_writes = census.faults(F::WriteTorn);
        self.counts.clock_faults = sum(&[F::ClockJump, F::ClockDrift, F::ClockFreeze]);
        self.counts.pauses = census.faults(F::Pause);
        self.counts.storage_faults = sum(&[
            F::LatentError,
            F::BitRot,
            F::MisdirectedWrite,
            F::MisdirectedRead,
            F::PhantomWrite,
            F::ReadError,
            F::WriteError,
            F::SyncError,
        ]);
        self.counts.storage_delays = sum(&[F::DiskFull, F::DiskStalled, F::DiskSlow]);
    }
}

/// What a node of a world holds in memory at the end of a run, in bytes, disks included.
pub(crate) fn memory<O: 'static>(world: &World<O>, nodes: impl Iterator<Item = NodeId>) -> u64 {
    nodes.map(|node| world.resources(node)).map(|held| held.disk_memory + held.stream_bytes).sum()
}
