//! Fault × protocol-state cells: what each fault hit.
//!
//! A swarm that crashed a thousand replicas and never one that was adopting a log has shown little about adoption.
//! So each fault that takes effect on a replica is counted under what the replica was doing just before.

use kimberlite_io_sim::{Fault, FaultInjected};
use kimberlite_runtime::Node;
use kimberlite_types::ReplicaId;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_vsr::Status;

/// What a replica is doing. Several may hold at once: a backup that lacks an op, say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its process is down.
    Down,
    /// It reads its disk.
    Opening,
    /// It is not sure of the end of its log.
    Recovering,
    /// It changes the view.
    ViewChange,
    /// It makes the log of a view durable.
    Adopting,
    /// It leads.
    Primary,
    /// It follows.
    Backup,
    /// It holds ops that are not known to be committed.
    InFlight,
    /// It wants ops from peers.
    Repairing,
    /// It executes ops older than those it keeps headers of.
    CatchingUp,
    /// It writes a checkpoint.
    Checkpointing,
    /// It asks its peers for pages of its checkpoint.
    AskingPages,
    /// It makes its state anew from the log.
    Rebuilding,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Down,
        Self::Opening,
        Self::Recovering,
        Self::ViewChange,
        Self::Adopting,
        Self::Primary,
        Self::Backup,
        Self::InFlight,
        Self::Repairing,
        Self::CatchingUp,
        Self::Checkpointing,
        Self::AskingPages,
        Self::Rebuilding,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Opening => "opening",
            Self::Recovering => "recovering",
            Self::ViewChange => "view_change",
            Self::Adopting => "adopting",
            Self::Primary => "primary",
            Self::Backup => "backup",
            Self::InFlight => "in_flight",
            Self::Repairing => "repairing",
            Self::CatchingUp => "catching_up",
            Self::Checkpointing => "checkpointing",
            Self::AskingPages => "asking_pages",
            Self::Rebuilding => "rebuilding",
        }
    }

    /// Whether a node that is up is in this state.
    fn holds(self, node: &Node) -> bool {
        let vsr = node.replica();
        let status = vsr.status();
        match self {
            Self::Down => false,
            Self::Opening => status == Status::Opening,
            Self::Recovering => status == Status::Recovering,
            Self::ViewChange => status == Status::ViewChange,
            Self::Adopting => vsr.is_adopting(),
            Self::Primary => vsr.is_primary(),
            Self::Backup => status == Status::Normal && !vsr.is_primary(),
            Self::InFlight => status == Status::Normal && vsr.op() > vsr.commit_max(),
            Self::Repairing => vsr.wanted().next().is_some(),
            Self::CatchingUp => status != Status::Opening && vsr.is_catching_up(),
            Self::Checkpointing => node.storage().is_checkpointing(),
            Self::AskingPages => node.pages_asked() > 0,
            Self::Rebuilding => node.is_rebuilding(),
        }
    }
}

/// A fault, and what the replica it hit was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The fault.
    pub fault: Fault,
    /// What it hit.
    pub state: State,
}

impl Cell {
    /// The name in reports: `crash@primary`.
    pub fn name(self) -> String {
        format!("{}@{}", self.fault.name(), self.state.name())
    }
}

/// How often each cell was hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells(Box<[[u64; State::ALL.len()]; Fault::ALL.len()]>);

impl Default for Cells {
    fn default() -> Self {
        Self(Box::new([[0; State::ALL.len()]; Fault::ALL.len()]))
    }
}

impl Cells {
    /// How often this cell was hit.
    pub fn of(&self, cell: Cell) -> u64 {
        self.0[cell.fault as usize][cell.state as usize]
    }

    /// Every cell that was hit, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Cell, u64)> + '_ {
        let cells = Fault::ALL.iter().flat_map(|&fault| State::ALL.map(|state| Cell { fault, state }));
        cells.map(|cell| (cell, self.of(cell))).filter(|(_, count)| *count > 0)
    }
}

/// What replicas were doing when they were last seen, and what hit them.
#[derive(Debug)]
pub(crate) struct Tracker {
    pub(crate) cells: Cells,
    /// One bit for each state a replica is in.
    states: [u16; REPLICAS_MAX],
}

impl Default for Tracker {
    fn default() -> Self {
        Self { cells: Cells::default(), states: [1 << State::Down as u16; REPLICAS_MAX] }
    }
}

impl Tracker {
    /// Sees what a replica is doing from here on; none: it is down.
    pub(crate) fn see(&mut self, replica: ReplicaId, node: Option<&Node>) {
        let state = |node: &Node| {
            State::ALL
                .iter()
                .filter(|state| state.holds(node))
                .fold(0, |bits, state| bits | 1 << *state as u16)
        };
        self.states[usize::from(replica.0)] = node.map_or(1 << State::Down as u16, state);
    }

    /// Counts faults under what their replicas were doing when they were last seen. What happens on a path hits both
    /// of its ends.
    pub(crate) fn count(&mut self, faults: &[FaultInjected], replicas: u8) {
        for FaultInjected { node, peer, fault, .. } in faults {
            let ends = [Some(*node), peer.filter(|peer| peer != node)];
            for node in ends.into_iter().flatten().filter(|node| node.0 < u16::from(replicas)) {
                let states = self.states[usize::from(node.0)];
                for state in State::ALL.iter().filter(|state| states & 1 << **state as u16 != 0) {
                    self.cells.0[*fault as usize][*state as usize] += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_io_sim::NodeId;
    use kimberlite_types::Instant;

    #[test]
    fn states_are_numbered_as_they_are_listed_and_cells_have_names_of_their_own() {
        assert!(State::ALL.iter().enumerate().all(|(index, state)| *state as usize == index));
        let cell = Cell { fault: Fault::Crash, state: State::Adopting };
        assert_eq!(cell.name(), "crash@adopting");
    }

    #[test]
    fn a_fault_is_counted_at_both_ends_of_a_path_and_never_at_a_client() {
        let mut tracker = Tracker::default();
        let fault = |node, peer, fault| FaultInjected {
            at: Instant::ZERO,
            node: NodeId(node),
            peer: Some(NodeId(peer)),
            fault,
            place: None,
        };
        tracker.count(&[fault(0, 1, Fault::PacketLost), fault(2, 9, Fault::StreamReset)], 3);
        let down = |fault| Cell { fault, state: State::Down };
        assert_eq!(tracker.cells.of(down(Fault::PacketLost)), 2);
        assert_eq!(tracker.cells.of(down(Fault::StreamReset)), 1);
        assert_eq!(tracker.cells.iter().count(), 2);
    }
}
