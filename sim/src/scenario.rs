//! Named experiments.

use kimberlite_io_sim::Fault;

use crate::cells::{Cell, State};
use crate::contract::{Contract, Marks};

/// What may break in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// Every family.
    Default,
    /// Nothing.
    Calm,
    /// Processes and clocks.
    Crashes,
    /// Links, partitions, clogs, streams.
    Network,
    /// Disks.
    Storage,
    /// One replica: crashes, clocks, streams and slow disks, but no damage, since it has no peer.
    Solo,
    /// Every family, and somebody who knows the protocol: faults in a row that fit together.
    Plots,
    /// Every family, and clients that speak SQL in each run.
    Sql,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Default,
        Self::Calm,
        Self::Crashes,
        Self::Network,
        Self::Storage,
        Self::Solo,
        Self::Plots,
        Self::Sql,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Calm => "calm",
            Self::Crashes => "crashes",
            Self::Network => "network",
            Self::Storage => "storage",
            Self::Solo => "solo",
            Self::Plots => "plots",
            Self::Sql => "sql",
        }
    }

    /// One sentence for people.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Default => "every family of faults, each on or off by the seed",
            Self::Calm => "no faults: everything must be committed and agreed on",
            Self::Crashes => "crashes with torn writes, crash loops, pauses, clocks, client crashes",
            Self::Network => "loss, duplicates, replays, corruption, partitions, clogs, broken streams",
            Self::Storage => "rot, unreadable sectors, lost and strayed writes, full, slow and dead disks",
            Self::Solo => "a single replica that crashes, stalls, runs out of space and loses clients",
            Self::Plots => "faults in a row, aimed at who leads and at who holds what, beside a few by luck",
            Self::Sql => {
                "every family of faults, and clients that speak SQL: transactions, queries, time travel"
            }
        }
    }

    /// The scenario of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// What a swarm of at least [`Self::SWARM_MIN`] seeds must have seen, or it showed nothing.
    pub const fn contract(self) -> Contract {
        match self {
            Self::Default => {
                Contract { counts: DEFAULT_COUNTS, marks: Marks::Common, cells: DEFAULT_CELLS, clauses: &[] }
            }
            Self::Calm => Contract {
                counts: &[("ops_committed", 5_000), ("segments_sealed", 500), ("requests_done", 5_000)],
                marks: Marks::These(CALM_MARKS),
                cells: &[],
                clauses: &[],
            },
            Self::Crashes => Contract {
                counts: &[
                    ("crashes", 300),
                    ("view_changes", 150),
                    ("torn_writes", 100),
                    ("segments_sealed", 500),
                ],
                marks: Marks::These(CRASHES_MARKS),
                cells: CRASHES_CELLS,
                clauses: &[],
            },
            Self::Network => Contract {
                counts: &[
                    ("partitions", 200),
                    ("view_changes", 80),
                    ("redirects", 100),
                    ("segments_sealed", 500),
                ],
                marks: Marks::These(NETWORK_MARKS),
                cells: NETWORK_CELLS,
                clauses: &[],
            },
            Self::Storage => Contract {
                counts: &[
                    ("storage_faults", 1_000),
                    ("storage_delays", 500),
                    ("repairs", 300),
                    ("damage_found", 300),
                    ("segments_sealed", 500),
                ],
                marks: Marks::These(STORAGE_MARKS),
                cells: STORAGE_CELLS,
                clauses: &[],
            },
            Self::Solo => Contract {
                counts: &[("crashes", 200), ("torn_writes", 50), ("segments_sealed", 500)],
                marks: Marks::These(SOLO_MARKS),
                cells: SOLO_CELLS,
                clauses: &[],
            },
            Self::Plots => Contract {
                counts: &[
                    ("crashes", 100),
                    ("view_changes", 500),
                    ("ops_committed", 5_000),
                    ("queries_answered", 200),
                ],
                marks: Marks::These(PLOTS_MARKS),
                cells: PLOTS_CELLS,
                clauses: &[],
            },
            Self::Sql => Contract {
                counts: SQL_COUNTS,
                marks: Marks::These(SQL_MARKS),
                cells: SQL_CELLS,
                clauses: SQL_CLAUSES,
            },
        }
    }

    /// Seeds from which on a swarm has to reach its minimum.
    pub const SWARM_MIN: u64 = 100;
}

const fn cell(fault: Fault, state: State) -> Cell {
    Cell { fault, state }
}

/// Each is a fraction of what a hundred seeds show, so that a swarm by another hundred seeds shows it as well.
const DEFAULT_COUNTS: &[(&str, u64)] = &[
    ("crashes", 200),
    ("client_crashes", 50),
    ("torn_writes", 100),
    ("pauses", 20),
    ("partitions", 200),
    ("clogs", 50),
    ("clock_faults", 20),
    ("storage_faults", 500),
    ("storage_delays", 500),
    ("view_changes", 200),
    ("ops_committed", 5_000),
    ("segments_sealed", 500),
    ("repairs", 200),
    ("damage_found", 200),
    ("checkpoints", 1_500),
    ("pages_mended", 100),
    ("rebuilds", 10),
    ("catch_ups", 50),
    ("redirects", 100),
    ("requests_done", 5_000),
    ("requests_refused", 50),
    ("queries_answered", 200),
];

/// What each kind of fault must hit where any of them may happen. Each was seen in at least thirty of three hundred
/// seeds; silent faults are rarer, and the contract of `storage` names some.
const DEFAULT_CELLS: &[Cell] = &[
    cell(Fault::Crash, State::Opening),
    cell(Fault::Crash, State::ViewChange),
    cell(Fault::Crash, State::Adopting),
    cell(Fault::Crash, State::Primary),
    cell(Fault::Crash, State::Backup),
    cell(Fault::Crash, State::InFlight),
    cell(Fault::Crash, State::Repairing),
    cell(Fault::Crash, State::CatchingUp),
    cell(Fault::Crash, State::Checkpointing),
    cell(Fault::WriteTorn, State::Checkpointing),
    cell(Fault::WriteTorn, State::Opening),
    cell(Fault::WriteTorn, State::ViewChange),
    cell(Fault::WriteTorn, State::Adopting),
    cell(Fault::WriteTorn, State::Primary),
    cell(Fault::WriteTorn, State::Backup),
    cell(Fault::WriteTorn, State::InFlight),
    cell(Fault::WriteTorn, State::Repairing),
    cell(Fault::WriteTorn, State::CatchingUp),
    cell(Fault::PathBlocked, State::Down),
    cell(Fault::PathBlocked, State::Opening),
    cell(Fault::PathBlocked, State::ViewChange),
    cell(Fault::PathBlocked, State::Adopting),
    cell(Fault::PathBlocked, State::Primary),
    cell(Fault::PathBlocked, State::Backup),
    cell(Fault::PathBlocked, State::InFlight),
    cell(Fault::PathBlocked, State::Repairing),
    cell(Fault::PathBlocked, State::CatchingUp),
    cell(Fault::PathClogged, State::ViewChange),
    cell(Fault::PathClogged, State::Primary),
    cell(Fault::PathClogged, State::Backup),
    cell(Fault::PathClogged, State::InFlight),
    cell(Fault::PathClogged, State::Repairing),
    cell(Fault::PacketLost, State::ViewChange),
    cell(Fault::PacketLost, State::Adopting),
    cell(Fault::PacketLost, State::Primary),
    cell(Fault::PacketLost, State::Backup),
    cell(Fault::PacketLost, State::Repairing),
    cell(Fault::PacketReplayed, State::ViewChange),
    cell(Fault::PacketReplayed, State::Adopting),
    cell(Fault::PacketReplayed, State::Primary),
    cell(Fault::PacketReplayed, State::Backup),
    cell(Fault::PacketReplayed, State::Repairing),
    cell(Fault::PacketHeadCorrupted, State::ViewChange),
    cell(Fault::PacketHeadCorrupted, State::Primary),
    cell(Fault::PacketHeadCorrupted, State::Backup),
    cell(Fault::StreamReset, State::ViewChange),
    cell(Fault::StreamReset, State::Primary),
    cell(Fault::StreamReset, State::Backup),
    cell(Fault::ReadError, State::Opening),
    cell(Fault::ReadError, State::ViewChange),
    cell(Fault::ReadError, State::Backup),
    cell(Fault::ReadError, State::Repairing),
    cell(Fault::ReadError, State::CatchingUp),
    cell(Fault::LatentError, State::Down),
    cell(Fault::LatentError, State::Opening),
    cell(Fault::LatentError, State::ViewChange),
    cell(Fault::LatentError, State::Primary),
    cell(Fault::LatentError, State::Backup),
    cell(Fault::LatentError, State::InFlight),
    cell(Fault::LatentError, State::Repairing),
    cell(Fault::LatentError, State::CatchingUp),
    cell(Fault::BitRot, State::Down),
    cell(Fault::BitRot, State::Opening),
    cell(Fault::BitRot, State::ViewChange),
    cell(Fault::BitRot, State::Primary),
    cell(Fault::BitRot, State::Backup),
    cell(Fault::BitRot, State::InFlight),
    cell(Fault::BitRot, State::Repairing),
    cell(Fault::BitRot, State::CatchingUp),
    cell(Fault::DiskFull, State::Primary),
    cell(Fault::DiskFull, State::Backup),
    cell(Fault::DiskFull, State::InFlight),
    cell(Fault::DiskStalled, State::Opening),
    cell(Fault::DiskStalled, State::ViewChange),
    cell(Fault::DiskStalled, State::Adopting),
    cell(Fault::DiskStalled, State::Primary),
    cell(Fault::DiskStalled, State::Backup),
    cell(Fault::DiskStalled, State::InFlight),
    cell(Fault::Pause, State::ViewChange),
    cell(Fault::Pause, State::Primary),
    cell(Fault::Pause, State::Backup),
    cell(Fault::Pause, State::InFlight),
    cell(Fault::ClockJump, State::ViewChange),
    cell(Fault::ClockJump, State::Primary),
    cell(Fault::ClockJump, State::Backup),
    cell(Fault::ClockJump, State::InFlight),
];

/// What a cluster in which nothing breaks does all the time.
const CALM_MARKS: &[&str] = &[
    "normal.prepare_again",
    "normal.ack_in_durable_view",
    "normal.commit_learnt",
    "repair.serves_from_memory",
    "journal.seals",
    "kernel.refuses",
    "node.not_primary",
    "node.redirects",
    "node.knows_no_primary",
    "client.redirected",
    "client.later_too_often",
    "client.sends_again",
];

/// What processes that die and come back lead to.
const CRASHES_MARKS: &[&str] = &[
    "replica.opens_as_backup",
    "replica.opens_after_vote",
    "replica.opens_as_old_primary",
    "replica.cache_gives_newest_up",
    "merge.needs_quorum",
    "merge.mixed_logs",
    "merge.keeps_uncommitted",
    "view_change.tries_again",
    "view_change.loses_patience",
    "view_change.joins",
    "view_change.quorum_agrees",
    "view_change.vote_is_durable",
    "view_change.votes_for_itself",
    "view_change.votes",
    "view_change.vote_is_late",
    "view_change.not_led_again",
    "view_change.chooses_log",
    "view_change.adopts_and_lacks",
    "view_change.inherits",
    "view_change.hears_later_primary",
    "view_change.tells_view",
    "superblock.newest_alone",
    "superblock.three_intact",
    "superblock.four_intact",
    "superblock.lost",
    "open.mends_superblock",
    "open.knows_segment_end",
    "open.skips_sealed_segment",
    "open.settles",
    "open.keep",
    "open.settle",
    "open.torn",
    "journal.mends",
    "journal.believes",
    "journal.tells_gap",
    "journal.slot_waits_for_order",
    "journal.adopts_with_hole",
    "journal.seals",
    "client.redirected",
    "client.later_too_often",
    "client.connect_times_out",
    "client.request_times_out",
    "client.sends_again",
];

/// What faults must hit there.
const CRASHES_CELLS: &[Cell] = &[
    cell(Fault::Crash, State::Opening),
    cell(Fault::Crash, State::ViewChange),
    cell(Fault::Crash, State::Adopting),
    cell(Fault::Crash, State::Primary),
    cell(Fault::Crash, State::Backup),
    cell(Fault::Crash, State::InFlight),
    cell(Fault::Crash, State::CatchingUp),
    cell(Fault::WriteTorn, State::ViewChange),
    cell(Fault::WriteTorn, State::Adopting),
    cell(Fault::WriteTorn, State::Primary),
    cell(Fault::WriteTorn, State::Backup),
    cell(Fault::WriteTorn, State::InFlight),
    cell(Fault::Pause, State::ViewChange),
    cell(Fault::Pause, State::Primary),
    cell(Fault::Pause, State::Backup),
    cell(Fault::Pause, State::InFlight),
    cell(Fault::ClockJump, State::Primary),
    cell(Fault::ClockJump, State::Backup),
];

/// What links that break lead to.
const NETWORK_MARKS: &[&str] = &[
    "replica.opens_as_backup",
    "replica.opens_as_old_primary",
    "replica.malformed",
    "merge.needs_quorum",
    "merge.keeps_uncommitted",
    "view_change.tries_again",
    "view_change.loses_patience",
    "view_change.joins",
    "view_change.quorum_agrees",
    "view_change.primary_resigns",
    "view_change.vote_is_durable",
    "view_change.votes_for_itself",
    "view_change.votes",
    "view_change.vote_is_late",
    "view_change.chooses_log",
    "view_change.adopts_and_lacks",
    "view_change.inherits",
    "view_change.hears_later_primary",
    "view_change.tells_view",
    "normal.requests_gather",
    "normal.pipeline_is_full",
    "normal.group_commits",
    "normal.prepare_again",
    "normal.prepare_ahead",
    "normal.ack_in_durable_view",
    "normal.durable_too_late",
    "normal.acked_out_of_order",
    "normal.commit_learnt",
    "normal.not_heard",
    "normal.falls_silent",
    "normal.resends",
    "kernel.refuses",
    "kernel.offset_mismatch",
    "node.not_primary",
    "node.filters_duplicate",
    "node.redirects",
    "node.knows_no_primary",
    "node.sends_clients_away",
    "client.redirected",
    "client.later_too_often",
    "client.connect_times_out",
    "client.request_times_out",
    "client.sends_again",
];

/// What faults must hit there.
const NETWORK_CELLS: &[Cell] = &[
    cell(Fault::PathBlocked, State::ViewChange),
    cell(Fault::PathBlocked, State::Adopting),
    cell(Fault::PathBlocked, State::Primary),
    cell(Fault::PathBlocked, State::Backup),
    cell(Fault::PathBlocked, State::InFlight),
    cell(Fault::PathBlocked, State::Repairing),
    cell(Fault::PathClogged, State::ViewChange),
    cell(Fault::PathClogged, State::Primary),
    cell(Fault::PathClogged, State::Backup),
    cell(Fault::PathClogged, State::InFlight),
    cell(Fault::PacketLost, State::Primary),
    cell(Fault::PacketLost, State::Backup),
    cell(Fault::PacketLost, State::InFlight),
    cell(Fault::PacketDuplicated, State::ViewChange),
    cell(Fault::PacketDuplicated, State::Primary),
    cell(Fault::PacketDuplicated, State::Backup),
    cell(Fault::PacketDuplicated, State::InFlight),
    cell(Fault::PacketReplayed, State::Primary),
    cell(Fault::PacketReplayed, State::Backup),
    cell(Fault::PacketReplayed, State::InFlight),
    cell(Fault::PacketHeadCorrupted, State::Primary),
    cell(Fault::PacketHeadCorrupted, State::Backup),
    cell(Fault::PacketHeadCorrupted, State::InFlight),
    cell(Fault::PacketBodyCorrupted, State::Primary),
    cell(Fault::PacketBodyCorrupted, State::Backup),
    cell(Fault::StreamReset, State::Primary),
    cell(Fault::StreamReset, State::Backup),
    cell(Fault::StreamReset, State::InFlight),
    cell(Fault::StreamCut, State::ViewChange),
    cell(Fault::StreamCut, State::Primary),
    cell(Fault::StreamCut, State::Backup),
    cell(Fault::StreamCut, State::InFlight),
    cell(Fault::StreamCorrupted, State::Primary),
];

/// What disks that lie, rot and stall lead to.
const STORAGE_MARKS: &[&str] = &[
    "repair.looks_again",
    "repair.taken_on_word",
    "repair.taken_by_checksum",
    "repair.asks_for_gap",
    "repair.serves_from_memory",
    "repair.has_none_to_serve",
    "repair.serves_from_journal",
    "repair.executes_from_disk",
    "repair.serves_in_doubt",
    "repair.finds_at_home",
    "repair.finds_damage",
    "repair.lost_old_op",
    "superblock.newest_alone",
    "superblock.three_intact",
    "superblock.four_intact",
    "superblock.lost",
    "open.mends_superblock",
    "open.reads_ring_by_sector",
    "open.ring_sector_lost",
    "open.knows_segment_end",
    "open.scans_over_damage",
    "open.skips_sealed_segment",
    "open.rebuilds_footer",
    "open.reserves_bad_slot",
    "open.settles",
    "open.keep",
    "open.settle",
    "open.faulty",
    "open.torn",
    "open.adopted_missing",
    "scout.looks_closer",
    "scout.reads_rest",
    "journal.mends",
    "journal.believes",
    "journal.tells_gap",
    "journal.mends_sealed",
    "grid.takes_from_peer",
    "grid.serves_page",
    "journal.slot_waits_for_order",
    "journal.adopts_with_hole",
    "journal.seals",
    "shelf.has_footer",
    "shelf.footer_is_broken",
    "shelf.rebuilds",
    "storage.finds_damage",
    "storage.keeps_believed",
    "disk.room",
    "disk.full",
];

/// What faults must hit there.
const STORAGE_CELLS: &[Cell] = &[
    cell(Fault::Crash, State::Opening),
    cell(Fault::Crash, State::ViewChange),
    cell(Fault::Crash, State::Adopting),
    cell(Fault::Crash, State::Primary),
    cell(Fault::Crash, State::Backup),
    cell(Fault::Crash, State::InFlight),
    cell(Fault::Crash, State::Repairing),
    cell(Fault::Crash, State::CatchingUp),
    cell(Fault::LatentError, State::Down),
    cell(Fault::LatentError, State::Opening),
    cell(Fault::LatentError, State::ViewChange),
    cell(Fault::LatentError, State::Primary),
    cell(Fault::LatentError, State::Backup),
    cell(Fault::LatentError, State::InFlight),
    cell(Fault::LatentError, State::Repairing),
    cell(Fault::LatentError, State::CatchingUp),
    cell(Fault::BitRot, State::Down),
    cell(Fault::BitRot, State::Opening),
    cell(Fault::BitRot, State::ViewChange),
    cell(Fault::BitRot, State::Primary),
    cell(Fault::BitRot, State::Backup),
    cell(Fault::BitRot, State::InFlight),
    cell(Fault::BitRot, State::CatchingUp),
    cell(Fault::ReadError, State::Opening),
    cell(Fault::ReadError, State::Backup),
    cell(Fault::ReadError, State::InFlight),
    cell(Fault::ReadError, State::Repairing),
    cell(Fault::ReadError, State::CatchingUp),
    cell(Fault::PhantomWrite, State::Backup),
    cell(Fault::PhantomWrite, State::InFlight),
    cell(Fault::MisdirectedWrite, State::InFlight),
    cell(Fault::MisdirectedRead, State::Opening),
    cell(Fault::DiskFull, State::Primary),
    cell(Fault::DiskFull, State::Backup),
    cell(Fault::DiskFull, State::InFlight),
    cell(Fault::DiskStalled, State::Opening),
    cell(Fault::DiskStalled, State::ViewChange),
    cell(Fault::DiskStalled, State::Primary),
    cell(Fault::DiskStalled, State::Backup),
    cell(Fault::DiskStalled, State::InFlight),
    cell(Fault::DiskStalled, State::CatchingUp),
    cell(Fault::DiskSlow, State::Primary),
    cell(Fault::DiskSlow, State::Backup),
    cell(Fault::DiskSlow, State::InFlight),
    cell(Fault::WriteTorn, State::Opening),
    cell(Fault::WriteTorn, State::ViewChange),
    cell(Fault::WriteTorn, State::Adopting),
    cell(Fault::WriteTorn, State::Primary),
    cell(Fault::WriteTorn, State::Backup),
    cell(Fault::WriteTorn, State::InFlight),
];

/// What a lone replica goes through.
const SOLO_MARKS: &[&str] = &[
    "replica.opens_alone",
    "normal.commits_alone",
    "superblock.four_intact",
    "superblock.lost",
    "open.knows_segment_end",
    "open.skips_sealed_segment",
    "open.settles",
    "open.keep",
    "open.settle",
    "open.torn",
    "disk.room",
    "disk.full",
    "kernel.duplicate",
    "kernel.refuses",
    "kernel.offset_mismatch",
    "client.connect_times_out",
    "client.request_times_out",
    "client.sends_again",
];

/// What faults must hit there.
const SOLO_CELLS: &[Cell] = &[
    cell(Fault::Crash, State::Opening),
    cell(Fault::Crash, State::Primary),
    cell(Fault::Crash, State::InFlight),
    cell(Fault::WriteTorn, State::Opening),
    cell(Fault::WriteTorn, State::Primary),
    cell(Fault::WriteTorn, State::InFlight),
    cell(Fault::DiskFull, State::Primary),
    cell(Fault::DiskFull, State::InFlight),
    cell(Fault::DiskStalled, State::Opening),
    cell(Fault::DiskStalled, State::Primary),
    cell(Fault::DiskStalled, State::InFlight),
    cell(Fault::Pause, State::Primary),
    cell(Fault::StreamReset, State::Primary),
];

/// What faults that fit together lead to.
const PLOTS_MARKS: &[&str] =
    &["view_change.inherits", "view_change.adopts_and_lacks", "merge.mixed_logs", "replica.opens_in_doubt"];

/// What a hundred seeds come to whose clients speak SQL, and less.
const SQL_COUNTS: &[(&str, u64)] = &[
    ("sql_answered", 5_000),
    ("sql_refused", 200),
    ("sql_conflicts", 50),
    ("sql_blocks", 200),
    ("sql_commits", 1_000),
    ("sql_unknown", 50),
    ("sql_travels", 200),
    ("facts_overtaken", 50),
    ("facts_installed", 1_000),
    ("crashes", 200),
    ("view_changes", 200),
];

/// What statements lead to in the node.
const SQL_MARKS: &[&str] = &[
    "node.sends_clients_away",
    "sql.plans_again",
    "sql.waits_for_its_turn",
    "sql.block_is_overtaken",
    "sql.block_is_gone",
    "sql.outcome_is_unknown",
];

/// What they must be made of.
const SQL_CLAUSES: &[&str] = &[
    "SAVEPOINT",
    "ROLLBACK TO",
    "RELEASE",
    "ROLLBACK",
    "RETURNING",
    "ON CONFLICT",
    "INSERT from SELECT",
    "several VALUES",
    "DELETE",
    "CREATE INDEX",
    "DROP INDEX",
    "AT POSITION",
    "AS OF TIMESTAMP",
    "COUNT",
    "SUM of CASE",
    "UNION ALL of three parts",
    "GROUP BY",
    "HAVING",
    "ORDER BY LIMIT",
    "DISTINCT",
    "JOIN",
    "LEFT JOIN",
    "EXISTS",
    "NOT IN subquery",
    "UNION",
    "window",
    "AT POSITION + GROUP BY",
    "AT POSITION + JOIN",
    "IN with NULL + NOT",
    "AND + OR",
    "BETWEEN + UPDATE",
];

/// What faults must hit.
const SQL_CELLS: &[Cell] = &[cell(Fault::Crash, State::Primary), cell(Fault::StreamReset, State::Primary)];

/// What they must hit.
const PLOTS_CELLS: &[Cell] =
    &[cell(Fault::PathBlocked, State::Primary), cell(Fault::PathClogged, State::Primary)];
