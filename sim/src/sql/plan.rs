//! What distinguishes one run's SQL from another's.

use std::collections::BTreeMap;
use std::time::Duration;

use kimberlite_types::TenantId;
use serde::{Deserialize, Serialize};

/// Clients that speak SQL, at most.
pub(crate) const SQL_CLIENTS_MAX: u16 = 8;

/// Statements of a run at most.
pub(crate) const STATEMENTS_MAX: u32 = 100_000;

/// Tenants with tables, at most.
const TENANTS_MAX: u64 = 8;

/// Lists, and keys of `data`, at most.
const KEYS_MAX: u64 = 1_000;

/// Bytes of filler in one statement at most.
const FILLER_MAX: usize = 1 << 20;

/// The first tenant with tables: those with streams count from 1.
const FIRST_TENANT: u64 = 101;

/// What statements are about. Each is on or off in a run, with a weight of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Theme {
    /// Appending to a list that is a text.
    Cells,
    /// Appending to a list that is some rows.
    Entries,
    /// Reading lists.
    Reads,
    /// Adding to numbers that everybody adds to.
    Counters,
    /// Inserting, updating and deleting.
    Changes,
    /// Queries of the grammar.
    Queries,
    /// Reading the past, by position and by time.
    Travel,
    /// Making and dropping indexes.
    Indexes,
    /// Transaction blocks: several statements of the others.
    Blocks,
    /// Writing more rows than a command holds.
    Bulk,
}

impl Theme {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Cells,
        Self::Entries,
        Self::Reads,
        Self::Counters,
        Self::Changes,
        Self::Queries,
        Self::Travel,
        Self::Indexes,
        Self::Blocks,
        Self::Bulk,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cells => "cells",
            Self::Entries => "entries",
            Self::Reads => "reads",
            Self::Counters => "counters",
            Self::Changes => "changes",
            Self::Queries => "queries",
            Self::Travel => "travel",
            Self::Indexes => "indexes",
            Self::Blocks => "blocks",
            Self::Bulk => "bulk",
        }
    }
}

/// What clients that speak SQL say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlPlan {
    /// Clients, at least 1.
    pub clients: u16,
    /// Statements of all clients together, without those that make the tables.
    pub statements: u32,
    /// Tenants with tables; clients are dealt out to them in turn.
    pub tenants: u64,
    /// A client's wait between two statements, on average.
    pub think: Duration,
    /// What statements are about, and how often; themes that are off are absent.
    pub themes: BTreeMap<Theme, u32>,
    /// Lists of each kind.
    pub lists: u64,
    /// Keys of `data`.
    pub keys: u64,
    /// Statements of a transaction block at most.
    pub block_max: u64,
    /// Of 1,000,000 statements in a block, how many are about savepoints.
    pub savepoint_ppm: u32,
    /// Of 1,000,000 blocks, how many are given up at their end.
    pub rollback_ppm: u32,
    /// Of 1,000,000 appended elements, how many come with filler.
    pub large_ppm: u32,
    /// Bytes of that filler at most.
    pub large_size: u32,
}

impl SqlPlan {
    /// The tenant of a client, counted among those that speak SQL.
    pub const fn tenant(&self, hand: u16) -> TenantId {
        TenantId(FIRST_TENANT + hand as u64 % self.tenants)
    }

    /// What does not make sense, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.clients == 0 || self.clients > SQL_CLIENTS_MAX {
            Some("a run that speaks SQL has 1 to 8 clients that do")
        } else if self.statements > STATEMENTS_MAX {
            Some("a run has at most 100,000 statements")
        } else if !(1..=TENANTS_MAX).contains(&self.tenants) {
            Some("a run has 1 to 8 tenants with tables")
        } else if !(1..=KEYS_MAX).contains(&self.lists) || !(1..=KEYS_MAX).contains(&self.keys) {
            Some("a run has 1 to 1,000 lists and keys")
        } else if self.think.is_zero() || self.think > crate::config::PHASE_MAX {
            Some("clients think for some time, and at most an hour")
        } else if self.large_size as usize > FILLER_MAX || self.block_max == 0 || self.block_max > 1_000 {
            Some("a filler has at most 1 MiB, and a block 1 to 1,000 statements")
        } else if [self.savepoint_ppm, self.rollback_ppm, self.large_ppm].iter().any(|ppm| *ppm > 1_000_000) {
            Some("parts of a million are at most a million")
        } else {
            None
        }
    }
}
