//! What every part of a world stands on: time, luck, the agenda, the fault budget and the trace.

use kimberlite_io::Place;

use crate::NodeId;
use crate::agenda::Agenda;
use crate::atlas::Atlas;
use crate::census::Fault;
use crate::dice::Dice;
use crate::trace::Trace;

pub(crate) struct Ground {
    /// World time, in nanoseconds since the start.
    pub(crate) time: u64,
    pub(crate) agenda: Agenda,
    pub(crate) dice: Dice,
    pub(crate) atlas: Atlas,
    pub(crate) trace: Trace,
}

impl Ground {
    pub(crate) fn node_fault(&mut self, node: NodeId, fault: Fault) {
        self.trace.node_fault(self.time, node, fault);
    }

    pub(crate) fn disk_fault(&mut self, node: NodeId, fault: Fault, place: Place) {
        self.trace.disk_fault(self.time, node, fault, place);
    }

    pub(crate) fn path_fault(&mut self, from: NodeId, to: NodeId, fault: Fault) {
        self.trace.path_fault(self.time, from, to, fault);
    }
}
