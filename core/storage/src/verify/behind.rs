//! What stands behind an op that this replica was not given: all that it holds for certain is looked at.

use alloc::vec::Vec;

use kimberlite_io::{Io, Place};
use kimberlite_types::Op;
use kimberlite_types::limits::PREPARE_HEADER_SIZE;
use kimberlite_wire::PrepareHeader;

use super::{Finding, Missing, Stage, Verifier, VerifyOutput, Wrong};
use crate::decision::{Expect, Says};
use crate::ring::Slot;
use crate::scout::Seen;

impl Verifier {
    /// Lists the ops behind the one that was not received which this replica holds, or may have held: adopted ones
    /// that their slots do not deny, and those that their slots name and that are linked to such ones in an unbroken
    /// row. What else the ring names may be of an older log.
    pub(super) fn begin_behind(&mut self, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        let state = &self.superblock.as_ref().expect("the superblock was chosen").state;
        let (first, head) = (self.parent.op.next(), *state.head());
        let mut held = Vec::new();
        // Up from the head, as the log went on there.
        let mut tip = head;
        while head.op >= first
            && let Slot::Header(header) = self.ring.slot(tip.op.next())
            && Expect::After(tip, state.log_view).accepts(&header)
        {
            held.push(header);
            tip = header;
        }
        held.reverse();
        let last = tip.op.max(state.commit);
        // Down from the head.
        let (mut child, mut lost) = (None, None);
        // Each slot is asked once, about the newest op that it may name: there are no more witnesses than that.
        let oldest = first.0.max((head.op.0 + 1).saturating_sub(u64::from(self.config.layout.ring_slots)));
        for op in (oldest..=head.op.0).rev().map(Op) {
            let slot = self.ring.slot(op);
            let adopted = state.headers.iter().find(|header| header.op == op);
            let says = adopted.map(|header| Expect::Adopted(*header).ask(&slot));
            child = match (adopted, slot) {
                (Some(header), _) => {
                    if says != Some(Says::Other) {
                        held.push(*header);
                    }
                    Some(*header)
                }
                (None, Slot::Header(header)) if child.is_some_and(|child| is_parent(&header, &child)) => {
                    held.push(header);
                    Some(header)
                }
                (None, slot) => {
                    let held = match slot {
                        Slot::Header(later) => later.op > op,
                        Slot::Sealed(sealed) => sealed >= op,
                        Slot::Bad => true,
                        Slot::Reserved => false,
                    };
                    if held {
                        lost = Some(op);
                    }
                    None
                }
            };
        }
        if let Some(op) = lost {
            // It was held, or may have been, and where is known no more.
            let slot = op.0 % u64::from(self.config.layout.ring_slots);
            let place = Place::headers(slot * PREPARE_HEADER_SIZE as u64);
            let finding = Finding { place, op, what: Wrong::Damaged };
            return self.over(VerifyOutput::Broken(self.totals, finding), out);
        }
        let ops = last.0 - self.parent.op.0 - held.len() as u64;
        self.stage = Stage::Behind { missing: Missing { first, last, ops }, held };
        self.look_behind(None, io, out);
    }

    /// Looks at one prepare after the other, the lowest op first.
    pub(super) fn look_behind(
        &mut self,
        mut seen: Option<Seen>,
        io: &mut dyn Io,
        out: &mut Vec<VerifyOutput>,
    ) {
        let Stage::Behind { missing, held } = &mut self.stage else {
            panic!("prepares behind a gap are looked at behind a gap")
        };
        while let Some(header) = held.last().copied() {
            if seen.is_none() {
                seen = self.scout.look(header.place, &mut self.asks, io);
            }
            match seen.take() {
                None => return,
                Some(Seen::Whole(prepare)) if prepare.header == header => held.pop(),
                Some(_) => {
                    let finding =
                        Finding { place: Place::log(header.place), op: header.op, what: Wrong::Damaged };
                    return self.over(VerifyOutput::Broken(self.totals, finding), out);
                }
            };
        }
        let missing = *missing;
        self.over(VerifyOutput::Behind(self.totals, missing), out);
    }
}

/// Whether `child` names this op as the one before it.
fn is_parent(header: &PrepareHeader, child: &PrepareHeader) -> bool {
    header.op.next() == child.op && header.checksum == child.parent
}
