//! What of a run could have been left out: strikes of fault families, requests, faults by rate.
//!
//! Each has a decision of its own that says whether it happens: 1 in every run that is drawn, 0 where a record was made
//! smaller. A strike or a request decides more while it happens; those decisions are known by their places, so that
//! they are left out with it and the next strike finds its own.

use std::collections::BTreeMap;
use std::ops::Range;

use kimberlite_io_sim::{Concern, DecisionLog, Fate};
use kimberlite_types::Instant;

use crate::config::Family;

/// The gates of strikes and of requests, among the questions of the schedule. Clients' waits end far below.
const STRIKE_GATES: u64 = 2_000;
const REQUEST_GATES: u64 = 3_000;

/// Something that may happen or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// A family of faults strikes.
    Strike(Family),
    /// A client asks something.
    Request(u16),
    /// A fault by rate: what it is about, and which lane decides it.
    Rate(Concern, u64),
}

impl Chosen {
    /// The question that decides whether it happens.
    pub(crate) const fn gate(self) -> u64 {
        match self {
            Self::Strike(family) => STRIKE_GATES + family as u64,
            Self::Request(client) => REQUEST_GATES + client as u64,
            Self::Rate(_, key) => key,
        }
    }

    /// What it may decide while it happens.
    pub(crate) const fn concerns(self) -> &'static [Concern] {
        match self {
            Self::Strike(_) => &[Concern::Schedule, Concern::Crash],
            Self::Request(_) => &[Concern::Workload],
            Self::Rate(..) => &[],
        }
    }

    /// The concern of the gate.
    const fn concern(self) -> Concern {
        match self {
            Self::Strike(_) | Self::Request(_) => Concern::Schedule,
            Self::Rate(concern, _) => concern,
        }
    }
}

/// Something that happened in a run and might not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What.
    pub what: Chosen,
    /// The number of the event with which it happened; 0 for faults by rate.
    pub event: u64,
    /// When; zero for faults by rate.
    pub at: Instant,
    /// The place of the decision in its lane.
    pub index: u64,
    /// What was decided while it happened.
    pub decided: Vec<(Concern, u64, Range<u64>)>,
}

impl Choice {
    pub(crate) fn of_fate(fate: &Fate) -> Self {
        let what = Chosen::Rate(fate.concern, fate.key);
        Self { what, event: 0, at: Instant::ZERO, index: fate.index, decided: Vec::new() }
    }
}

/// The record of a run without some of its choices. Everything else keeps its decisions.
pub fn without<'a>(log: &DecisionLog, choices: impl IntoIterator<Item = &'a Choice>) -> DecisionLog {
    let mut gates: BTreeMap<(Concern, u64), Vec<(u64, u64)>> = BTreeMap::new();
    let mut cuts: BTreeMap<(Concern, u64), Vec<Range<u64>>> = BTreeMap::new();
    for choice in choices {
        gates.entry((choice.what.concern(), choice.what.gate())).or_default().push((choice.index, 0));
        for (concern, key, range) in &choice.decided {
            cuts.entry((*concern, *key)).or_default().push(range.clone());
        }
    }
    let mut log = log.clone();
    for ((concern, key), changes) in gates {
        log.set_at(concern, key, changes);
    }
    for ((concern, key), ranges) in cuts {
        log.cut(concern, key, &ranges);
    }
    log
}
