//! The log of a later view takes over: what stays of the one before, what goes, and what becomes doubtful.

use alloc::vec::Vec;

use kimberlite_probe::mutant;
use kimberlite_types::Op;
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::message::Mark;

use super::{Entry, Journal, State};
use crate::Output;
use crate::ring::Slot;

impl Journal {
    /// Takes the headers of a durable view as the end of the log. What stands in front of them and does not
    /// lead up to them is of another log: only what this journal knows to be committed is kept of it. The view's
    /// own commit number says nothing about it: that counts ops as the new log names them.
    pub(crate) fn adopt(&mut self, headers: &[PrepareHeader], out: &mut Vec<Output>) {
        let (first, last) = (headers[0], headers[headers.len() - 1]);
        assert!(last.op >= self.sealed_through(), "a sealed op is committed, so every later log holds it");
        self.drop_from(last.op.next());
        if !self.leads_to(headers) {
            kimberlite_probe::reachable!("journal.adopts_with_hole");
            for header in self.drop_between(self.committed, first.op) {
                self.doubtful.insert(header);
            }
        }
        for header in headers.iter().filter(|header| header.op > Op::ZERO) {
            match self.index.get(&header.op) {
                Some(entry) if entry.header == *header => {}
                Some(_) if mutant!(ConflictNotCompared) => {}
                Some(_) if header.op <= self.sealed_through() => {
                    panic!("a sealed op is committed, so every later log holds it")
                }
                None if header.op <= self.sealed_through() => {}
                _ => {
                    // A doubtful op was held: it is no nack, and its copy is still there to be fetched.
                    let doubtful = self.doubtful.get(header.op, header.checksum).is_some();
                    let may_be_lost = header.op <= self.doubt_until || doubtful;
                    let mark = if may_be_lost { Mark::Unknown } else { Mark::Nack };
                    kimberlite_probe::sometimes!("journal.adopts_doubtful", may_be_lost);
                    self.doubtful.decide(header.op, header.checksum);
                    self.drop_one(header.op);
                    let entry = Entry { header: *header, state: State::Missing(mark), repair: false };
                    self.index.insert(header.op, entry);
                }
            }
        }
        self.head = last;
        // What may have been held behind the new head is cut now.
        self.doubt_until = self.doubt_until.min(last.op);
        self.adopted = (first.op, last.op);
        self.issued = last.op;
        self.said = last.op;
        self.forget_dropped_writes();
        self.name_again();
        self.name_sealed(headers);
        self.advance(out);
        self.tell_hole(out);
    }

    /// Names what is held where the slot is bad, left so while a newer op might have owned it; or where it names
    /// another header of the same op: in front of the adopted headers that proved nothing, but now it would deny the op.
    fn name_again(&mut self) {
        let head = self.head.op.0;
        let slots = u64::from(self.layout.ring_slots);
        let unnamed: Vec<PrepareHeader> = self
            .index
            .range(self.sealed_tail.op.next()..)
            .map(|(_, entry)| entry)
            .filter(|entry| entry.state == State::Durable && entry.header.op.0 + slots > head)
            .filter(|entry| self.ring.is_bad(entry.header.op) || self.is_misnamed(&entry.header))
            .map(|entry| entry.header)
            .collect();
        for header in &unnamed {
            self.ring.set(header);
        }
    }

    /// Whether the slot of an op names another header of it.
    fn is_misnamed(&self, header: &PrepareHeader) -> bool {
        let misnamed = matches!(self.ring.slot(header.op), Slot::Header(named) if named.op == header.op && named != *header);
        kimberlite_probe::sometimes!("journal.finds_misnamed_op", misnamed);
        misnamed
    }

    /// Names the sealed ops of a log that is adopted where their slots were damaged, and reserved once they were sealed,
    /// or name another header: what was held must not be denied, should its footer be lost.
    fn name_sealed(&mut self, headers: &[PrepareHeader]) {
        let sealed = self.sealed_tail.op;
        for header in headers.iter().filter(|header| header.op > Op::ZERO && header.op <= sealed) {
            let unnamed = match self.ring.slot(header.op) {
                Slot::Reserved | Slot::Bad => true,
                Slot::Sealed(op) => op == header.op,
                Slot::Header(_) => false,
            };
            if unnamed || self.is_misnamed(header) {
                kimberlite_probe::reachable!("journal.names_sealed_op_again");
                self.ring.set(header);
            }
        }
    }

    /// Whether the journal names the parent of the first of these headers, or one of themselves.
    fn leads_to(&self, headers: &[PrepareHeader]) -> bool {
        let first = headers[0];
        let parent = self.index.get(&first.op.previous());
        let names =
            |header: &PrepareHeader| self.index.get(&header.op).is_some_and(|entry| entry.header == *header);
        self.sealed_leads_to(&first)
            || first.op == Op::ZERO
            || parent.is_some_and(|entry| entry.header.checksum == first.parent)
            || headers.iter().any(names)
    }

    /// Drops the ops behind `kept` and in front of `first` that are not sealed: a hole, which the parent fills. Answers
    /// what was held of them.
    pub(crate) fn drop_between(&mut self, kept: Op, first: Op) -> Vec<PrepareHeader> {
        let mut held = Vec::new();
        let from = kept.max(self.sealed_through()).next();
        let gone: Vec<Op> =
            self.index.range(from..).map(|(op, _)| *op).take_while(|op| *op < first).collect();
        for op in gone {
            let entry = self.index[&op];
            let was_held = match entry.state {
                State::Missing(mark) => mark == Mark::Unknown,
                State::Writing => entry.repair,
                State::Written | State::Ringing | State::Ringed | State::Durable => true,
            };
            if was_held {
                held.push(entry.header);
            }
            self.drop_one(op);
        }
        self.forget_dropped_writes();
        held
    }

    /// Whether the last sealed prepare is this one's parent.
    pub(crate) fn sealed_leads_to(&self, child: &PrepareHeader) -> bool {
        self.sealed_tail.op == child.op.previous() && self.sealed_tail.checksum == child.parent
    }

    /// Names the ops of a hole that the ring names and that nothing else is known of. What a slot says was durable once.
    pub(crate) fn doubt_ring(&mut self, kept: Op, first: Op) {
        let from = kept.max(self.sealed_through()).next();
        let from = from.max(Op(first.0.saturating_sub(u64::from(self.layout.ring_slots))));
        for op in (from.0..first.0).map(Op) {
            if let Slot::Header(header) = self.ring.slot(op)
                && header.op == op
                && !self.index.contains_key(&op)
                && self.fits_segment(&header)
            {
                self.doubtful.insert(header);
            }
        }
    }
}
