//! What all parts of the driver work on.

use std::collections::VecDeque;

use kimberlite_io::Event;

use crate::ring::Ring;
use crate::stats::Ledger;

/// The ring, the events that wait to be handed over, and the counters.
pub(crate) struct Desk {
    pub(crate) ring: Ring,
    pub(crate) events: VecDeque<Event>,
    pub(crate) ledger: Ledger,
}
