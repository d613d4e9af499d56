//! Prepares that the disk may hold and that the log does not name.
//!
//! They stand in a hole, or stood in a log that a later one replaced. Nobody may take them for committed on this
//! replica's word; but a copy of theirs may be the last intact one of a committed op. So every one of them is
//! kept, under its op *and* checksum, until the segment of its op is sealed or a view change cuts the op: a
//! peer that knows the checksum gets it, and a child that is known to be of the log leads down to it.

use alloc::collections::BTreeMap;

use kimberlite_crypto::Checksum;
use kimberlite_types::{Layout, Op};
use kimberlite_wire::PrepareHeader;

/// Doubtful prepares for each slot of the ring at most. What was acknowledged fits in one round of it; older logs and what
/// was never acknowledged may leave several more.
const ROUNDS_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Held {
    header: PrepareHeader,
    /// Whether a read has shown that the copy is damaged. It still was held.
    damaged: bool,
}

/// The index of doubtful prepares.
#[derive(Debug)]
pub(crate) struct Doubtful {
    held: BTreeMap<(Op, Checksum), Held>,
    max: usize,
}

impl Doubtful {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { held: BTreeMap::new(), max: ROUNDS_MAX * layout.ring_slots as usize }
    }

    /// Takes one more. When there are too many, the highest goes: what is lowest is wanted first.
    pub(crate) fn insert(&mut self, header: PrepareHeader) {
        self.held.entry((header.op, header.checksum)).or_insert(Held { header, damaged: false });
        if self.held.len() > self.max {
            kimberlite_probe::reachable!("doubtful.has_too_many");
            self.held.pop_last();
        }
    }

    /// The header of this very prepare, if it was held.
    pub(crate) fn get(&self, op: Op, checksum: Checksum) -> Option<PrepareHeader> {
        self.held.get(&(op, checksum)).map(|held| held.header)
    }

    /// The header of this very prepare, if it was held and nothing is known against its copy.
    pub(crate) fn readable(&self, op: Op, checksum: Checksum) -> Option<PrepareHeader> {
        self.held.get(&(op, checksum)).filter(|held| !held.damaged).map(|held| held.header)
    }

    /// Any copy at this op that may be intact: what nobody may have by the op alone.
    pub(crate) fn any_at(&self, op: Op) -> Option<PrepareHeader> {
        self.held.iter().find(|((at, _), held)| *at == op && !held.damaged).map(|(_, held)| held.header)
    }

    /// A read has shown that the copy is damaged, or was written over.
    pub(crate) fn damaged(&mut self, op: Op, checksum: Checksum) {
        if let Some(held) = self.held.get_mut(&(op, checksum)) {
            kimberlite_probe::reachable!("doubtful.is_damaged");
            held.damaged = true;
        }
    }

    /// The log names another prepare at this op, durably: the others never can be wanted again.
    pub(crate) fn decide(&mut self, op: Op, checksum: Checksum) {
        self.held.retain(|(other, other_checksum), _| *other != op || *other_checksum == checksum);
    }

    /// Ops up to this one are sealed.
    pub(crate) fn forget_through(&mut self, sealed: Op) {
        self.held = self.held.split_off(&(sealed.next(), Checksum::ZERO));
    }

    /// Ops from this one on were cut.
    pub(crate) fn forget_from(&mut self, first: Op) {
        let _cut = self.held.split_off(&(first, Checksum::ZERO));
    }
}
