//! What a replica holds on to, counted.

use crate::reads::READS_MAX;
use crate::repair::{AHEAD_MAX, FETCHING_MAX, MENDING_MAX, SERVING_MAX, WANTED_MAX};
use crate::replica::{Replica, WAITING_MAX};
use kimberlite_types::limits::PIPELINE_MAX;

/// How much a replica holds on to, by kind. All zero at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Ops proposed and not yet committed.
    pub in_flight: usize,
    /// Requests not yet proposed.
    pub waiting: usize,
    /// Reads not yet confirmed.
    pub reads: usize,
    /// Ops wanted from peers.
    pub wanted: usize,
    /// Reads from the journal for execution.
    pub fetching: usize,
    /// Reads from the journal for peers.
    pub serving: usize,
    /// Repairs handed to the journal and not yet durable.
    pub mending: usize,
    /// Prepares that arrived before their parents.
    pub ahead: usize,
}

impl Load {
    /// The most of each kind there ever is. Execution always finds room for what it needs next, beyond
    /// what other repairs may take.
    pub const MAX: Self = Self {
        in_flight: PIPELINE_MAX,
        waiting: WAITING_MAX,
        reads: READS_MAX,
        wanted: WANTED_MAX,
        fetching: FETCHING_MAX,
        serving: SERVING_MAX,
        mending: MENDING_MAX + FETCHING_MAX,
        ahead: AHEAD_MAX,
    };

    /// Every kind by name.
    pub fn kinds(&self) -> [(&'static str, usize); 8] {
        let Self { in_flight, waiting, reads, wanted, fetching, serving, mending, ahead } = *self;
        [
            ("ops in flight", in_flight),
            ("requests waiting", waiting),
            ("reads unconfirmed", reads),
            ("ops wanted", wanted),
            ("ops fetched for execution", fetching),
            ("ops fetched for peers", serving),
            ("repairs on their way", mending),
            ("prepares without their parent", ahead),
        ]
    }
}

impl Replica {
    /// What this replica holds on to.
    pub fn load(&self) -> Load {
        let mut load = self.repair.load();
        load.in_flight = self.in_flight();
        load.waiting = self.waiting();
        load.reads = self.reads.unconfirmed();
        load
    }
}
