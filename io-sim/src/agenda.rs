//! What is going to happen, by time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use kimberlite_io::CloseReason;

/// One thing that is due. Small, because it moves through the heap; what it is about lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A node's timer, unless it was armed anew since.
    Wake { node: u16, arming: u32 },
    /// A disk operation of a node ends, unless it died.
    Disk { node: u16, op: u32 },
    /// A packet arrives, unless it was dropped.
    Packet { slot: u32, serial: u32 },
    /// A connection attempt reaches its target.
    Connect { stream: u32 },
    /// The opener hears that it is connected.
    Connected { stream: u32 },
    /// Bytes sent by one side may move on.
    Pump { stream: u32, side: u8 },
    /// One side's bytes have left.
    Sent { stream: u32, side: u8 },
    /// One side hears that the stream is gone.
    Closed { stream: u32, side: u8, reason: CloseReason },
    /// A timer of the policy.
    Policy { tag: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    /// Order of asking, which decides between things due at the same time.
    order: u64,
    due: Due,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    order: u64,
}

impl Agenda {
    /// Adds something to happen at world time `at`.
    pub(crate) fn add(&mut self, at: u64, due: Due) {
        self.order += 1;
        self.heap.push(Reverse(Entry { at, order: self.order, due }));
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Due)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.due))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}
