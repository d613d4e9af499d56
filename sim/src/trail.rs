//! Every event of a run in a few bytes, and its faults in words: what a later run is held against.

use kimberlite_io_sim::{FaultInjected, Happening, NodeId, Pulse};
use kimberlite_types::Instant;
use serde::{Deserialize, Serialize};

/// Events a trail keeps: 4 bytes each that no compression makes smaller. Behind them the checkpoints must do.
const EVENTS_MAX: usize = 4 << 20;

/// Faults told one by one at most; the census has all.
pub(crate) const FAULTS_MAX: usize = 16 << 10;

/// The node of an event that is the policy's.
const POLICY: u8 = u8::MAX;

/// Names of the policy's timers, by kind.
const TICKS: [&str; 9] =
    ["client", "fault", "restart", "crash again", "resume", "rejoin", "room", "fast", "watch"];

/// Every event of a run: where, what kind, and two bytes of the sum over all there was, before and after it was
/// handled. Two runs that part are told apart at the event, but for one case in 65,536, which shows with the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    nodes: Vec<u8>,
    kinds: Vec<u8>,
    heard: Vec<u16>,
    asked: Vec<u16>,
    /// Known while the run is at hand; not part of a bundle.
    #[serde(skip)]
    times: Times,
}

/// Times of events. Two trails are equal whether or not they are known.
#[derive(Clone, Debug, Default)]
struct Times(Vec<Instant>);

impl PartialEq for Times {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Times {}

/// Where two runs part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parting {
    /// The number of the first event that differs, counted from 1.
    pub event: u64,
    /// When it comes now, in nanoseconds of virtual time.
    pub at_ns: u64,
    /// The node that hears it now; none when it is the policy's, or when the run has ended before.
    pub node: Option<u16>,
    /// What differs.
    pub what: String,
}

impl Trail {
    pub(crate) fn push(&mut self, at: Instant, node: NodeId, kind: Happening, pulse: Pulse) {
        self.entry(at, u8::try_from(node.0).unwrap_or(POLICY - 1), kind as u8, pulse);
    }

    pub(crate) fn push_policy(&mut self, at: Instant, kind: u8, pulse: Pulse) {
        self.entry(at, POLICY, kind, pulse);
    }

    fn entry(&mut self, at: Instant, node: u8, kind: u8, pulse: Pulse) {
        if self.nodes.len() < EVENTS_MAX {
            self.nodes.push(node);
            self.kinds.push(kind);
            self.heard.push((pulse.heard >> 48) as u16);
            self.asked.push((pulse.asked >> 48) as u16);
            self.times.0.push(at);
        }
    }

    /// Events it knows.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether its parts fit together. Read from a file, they may not.
    pub(crate) fn is_sound(&self) -> bool {
        let len = self.nodes.len();
        len <= EVENTS_MAX && [self.kinds.len(), self.heard.len(), self.asked.len()] == [len; 3]
    }

    fn name(&self, index: usize) -> String {
        let kind = usize::from(self.kinds[index]);
        if self.nodes[index] == POLICY {
            return format!("a timer of the policy ({})", TICKS.get(kind).unwrap_or(&"unknown"));
        }
        let kind = Happening::ALL.get(kind).map_or("unknown", |kind| kind.name());
        format!("{kind} at node {}", self.nodes[index])
    }

    /// Where `now`, a run of this program, first differs from this one.
    pub(crate) fn parting(&self, now: &Self) -> Option<Parting> {
        let both = self.len().min(now.len());
        let same = |index: usize| {
            (self.nodes[index], self.kinds[index], self.heard[index], self.asked[index])
                == (now.nodes[index], now.kinds[index], now.heard[index], now.asked[index])
        };
        let index = (0..both).find(|index| !same(*index));
        if index.is_none() && self.len() == now.len() {
            return None;
        }
        let index = index.unwrap_or(both);
        let what = if index >= now.len() {
            format!("the run is over; then came {}", self.name(index))
        } else if index >= self.len() {
            format!("the recorded run was over; now comes {}", now.name(index))
        } else if (self.nodes[index], self.kinds[index]) != (now.nodes[index], now.kinds[index]) {
            format!("now {}, then {}", now.name(index), self.name(index))
        } else if self.heard[index] != now.heard[index] {
            format!("{}, but with another content or at another time", now.name(index))
        } else {
            format!("{}: it hears the same and asks for something else", now.name(index))
        };
        let node = now.nodes.get(index).filter(|node| **node != POLICY).map(|node| u16::from(*node));
        let at = now.times.0.get(index).or(now.times.0.last()).copied().unwrap_or_default();
        Some(Parting { event: index as u64 + 1, at_ns: at.0, node, what })
    }
}

/// A fault that took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The number of the event with which it showed.
    pub event: u64,
    /// When, in nanoseconds of virtual time.
    pub at_ns: u64,
    /// Whose disk, clock or process; the receiver of a packet or stream.
    pub node: u16,
    /// The other end, for the network.
    pub peer: Option<u16>,
    /// What, and where on the disk.
    pub what: String,
}

impl Seen {
    pub(crate) fn of(event: u64, fault: &FaultInjected) -> Self {
        let what = match fault.place {
            Some(place) => format!("{} at {place}", fault.fault.name()),
            None => fault.fault.name().to_owned(),
        };
        Self { event, at_ns: fault.at.0, node: fault.node.0, peer: fault.peer.map(|peer| peer.0), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(sums: &[(u64, u64)]) -> Trail {
        let mut trail = Trail::default();
        for (number, (heard, asked)) in sums.iter().enumerate() {
            let pulse = Pulse { heard: heard << 48, asked: asked << 48 };
            trail.push(Instant(number as u64), NodeId(2), Happening::Wake, pulse);
        }
        trail
    }

    #[test]
    fn the_first_event_that_differs_is_named_with_what_differs() {
        let then = trail(&[(1, 2), (3, 4), (5, 6)]);
        assert_eq!(then.parting(&then), None);
        let parting = |sums: &[(u64, u64)]| then.parting(&trail(sums)).unwrap();
        let found = parting(&[(1, 2), (3, 9), (5, 6)]);
        assert_eq!((found.event, found.node, found.at_ns), (2, Some(2), 1));
        assert!(found.what.contains("asks for something else"), "{}", found.what);
        assert!(parting(&[(1, 2), (3, 4), (7, 6)]).what.contains("another content"));
        assert!(parting(&[(1, 2)]).what.contains("the run is over"));
        assert_eq!(parting(&[(1, 2), (3, 4), (5, 6), (0, 0)]).event, 4);
        let mut other = trail(&[(1, 2)]);
        other.push_policy(Instant(1), 1, Pulse::default());
        let found = then.parting(&other).unwrap();
        assert_eq!(found.node, None);
        assert!(found.what.contains("a timer of the policy (fault), then wake at node 2"), "{}", found.what);
    }

    #[test]
    fn parts_of_different_lengths_are_not_sound() {
        let mut trail = trail(&[(1, 2)]);
        assert!(trail.is_sound());
        trail.asked.clear();
        assert!(!trail.is_sound());
    }
}
