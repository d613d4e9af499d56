//! The journal: which prepares the log names, and how far each has come on its way to disk.
//!
//! A prepare goes `Writing → Written → Ringing → Ringed → Durable`. Three rules hold the promise behind
//! `Durable`:
//!
//! 1. a slot of the ring is written only when its prepare is durable;
//! 2. behind the adopted head, slots are issued, and `Durable` is said, in the order of ops, so that an op
//!    whose slot does not name it proves that nothing behind it was acknowledged;
//! 3. a slot passes from op `n - slots` to op `n` only when the segment of `n - slots` is sealed.
//!
//! Up to the adopted head ops are independent of each other: their headers are known from the superblock, or they are
//! committed and fill a hole that the ring names op by op.
//!
//! What stands in a hole, or was dropped from the log, is [`doubtful`](crate::doubtful). How the log of a later view takes over is
//! in `adopting`, and what happens to segments in `sealing`.

mod adopting;
mod sealing;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Io, Place, sectors};
use kimberlite_probe::mutant;
use kimberlite_types::limits::PIPELINE_MAX;
use kimberlite_types::{Config, Layout, Op};
use kimberlite_wire::message::Mark;
use kimberlite_wire::prepare::segment_room;
use kimberlite_wire::{Prepare, PrepareHeader};

use crate::asks::{Asks, WriteFor};
use crate::doubtful::Doubtful;
use crate::ring::{Ring, Slot};
use crate::{FetchError, Output, ViewState};

/// Writes of prepares in flight at most: new ones, two pipelines of them, as many repairs, and what execution needs next.
/// Only a disk that stands still while views change has more to do.
pub(crate) const WRITES_MAX: usize = 5 * PIPELINE_MAX;

/// How far a prepare has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The journal names it and does not hold it: never held, or damaged.
    Missing(Mark),
    /// Its write is queued or in flight.
    Writing,
    /// It is durable; its slot was not issued yet.
    Written,
    /// Its slot is on its way.
    Ringing,
    /// Its slot is durable, and an earlier one is not yet.
    Ringed,
    /// Said to be durable.
    Durable,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) header: PrepareHeader,
    pub(crate) state: State,
    /// Whether the write in progress replaces a damaged copy.
    repair: bool,
}

/// The index of the log's unsealed part, the queue of writes, and the ring.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) layout: Layout,
    /// Whether there is no peer.
    alone: bool,
    root: PrepareHeader,
    index: BTreeMap<Op, Entry>,
    head: PrepareHeader,
    /// What the disk may hold and the log does not name.
    pub(crate) doubtful: Doubtful,
    /// First and last op of the adopted headers.
    adopted: (Op, Op),
    /// The last op behind the adopted head whose slot was issued; rule 2.
    issued: Op,
    /// The last op behind the adopted head that was said to be durable; rule 2.
    said: Op,
    /// Ops on their way.
    unsettled: BTreeSet<Op>,
    queue: VecDeque<Prepare>,
    writing: BTreeMap<(Op, Checksum), Prepare>,
    pub(crate) ring: Ring,
    /// The first op of each sealed segment.
    sealed: Vec<Op>,
    /// The last sealed prepare; the root if there is none.
    sealed_tail: PrepareHeader,
    /// Whether a footer is on its way.
    sealing: bool,
    /// Ops up to here are committed as this journal names them.
    pub(crate) committed: Op,
    /// When it was opened, ops up to here may have been held and be lost without a trace. Zero: none.
    pub(crate) doubt_until: Op,
    /// Whether the log is being opened: what was kept owns its slots, and nobody hears of it yet.
    pub(crate) settling: bool,
}

impl Journal {
    pub(crate) fn new(config: &Config) -> Self {
        let root = PrepareHeader::root(config.cluster);
        Self {
            layout: config.layout,
            alone: config.replicas == 1,
            root,
            index: BTreeMap::new(),
            head: root,
            doubtful: Doubtful::new(&config.layout),
            adopted: (Op::ZERO, Op::ZERO),
            issued: Op::ZERO,
            said: Op::ZERO,
            unsettled: BTreeSet::new(),
            queue: VecDeque::new(),
            writing: BTreeMap::new(),
            ring: Ring::unread(config.cluster, &config.layout),
            sealed: Vec::new(),
            sealed_tail: root,
            sealing: false,
            committed: Op::ZERO,
            doubt_until: Op::ZERO,
            settling: false,
        }
    }

    pub(crate) fn head(&self) -> &PrepareHeader {
        &self.head
    }

    pub(crate) fn entry(&self, op: Op) -> Option<&Entry> {
        self.index.get(&op)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.index.values()
    }

    /// Whether the journal names this prepare and does not hold it.
    pub(crate) fn lacks(&self, op: Op, checksum: Checksum) -> bool {
        let entry = self.index.get(&op).filter(|entry| entry.header.checksum == checksum);
        entry.is_some_and(|entry| matches!(entry.state, State::Missing(_)))
    }

    pub(crate) fn sealed_through(&self) -> Op {
        self.sealed_tail.op
    }

    /// Segments that are sealed: the next one to seal has this number.
    pub(crate) fn sealed_count(&self) -> u64 {
        self.sealed.len() as u64
    }

    /// The sealed segment that holds `op`, and the last op of that segment.
    pub(crate) fn sealed_segment(&self, op: Op) -> Option<(u64, Op)> {
        if op == Op::ZERO || op > self.sealed_through() {
            return None;
        }
        let behind = self.sealed.partition_point(|first| *first <= op);
        let last = self.sealed.get(behind).map_or(self.sealed_through(), |next| next.previous());
        Some((behind as u64 - 1, last))
    }

    /// The first op of a sealed segment.
    pub(crate) fn sealed_first(&self, segment: u64) -> Op {
        self.sealed[usize::try_from(segment).expect("segments fit in memory")]
    }

    /// A prepare on its way to disk.
    pub(crate) fn in_memory(&self, op: Op, checksum: Checksum) -> Option<&Prepare> {
        self.writing.get(&(op, checksum))
    }

    /// Ops on their way, and repairs of sealed ones.
    pub(crate) fn pending(&self) -> usize {
        let sealed = self.writing.keys().filter(|(op, _)| !self.unsettled.contains(op)).count();
        self.unsettled.len() + sealed
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty() && self.ring.is_quiet() && !self.sealing
    }

    // ── Opening ─────────────────────────────────────────────────────────────────────────────────────────

    /// Takes an op that the open found, and makes it the head.
    pub(crate) fn found(&mut self, header: PrepareHeader, state: State) {
        assert!(matches!(state, State::Durable | State::Missing(_)), "an op is found held or missing");
        self.index.insert(header.op, Entry { header, state, repair: false });
        self.head = header;
    }

    /// Takes a sealed segment that the open found. Answers nothing: its prepares are not looked at.
    pub(crate) fn found_sealed(&mut self, first: Op, last: PrepareHeader) {
        assert!(first == self.sealed_through().next(), "segments are sealed in order");
        self.sealed.push(first);
        self.sealed_tail = last;
        self.doubtful.forget_through(last.op);
        if last.op > self.head.op {
            self.head = last;
        }
    }

    /// The walk is over. From here on the ops in `settle` are on their way, and the others are durable.
    pub(crate) fn begin_settling(&mut self, state: &ViewState, settle: &[Op]) {
        self.adopted = (state.headers[0].op, state.head().op);
        assert!(self.head.op >= self.adopted.1, "an adopted op never ends the log");
        // Rule 2: an op that is not held and that its slot denies lets nothing behind it be acknowledged.
        self.issued = self.first_denied().map_or(self.head.op, Op::previous);
        self.said = self.issued;
        self.settling = true;
        for op in settle {
            self.index.get_mut(op).expect("what is settled was found").state = State::Writing;
            self.unsettled.insert(*op);
        }
        self.prune();
    }

    /// The first missing op behind the adopted ones that its slot denies.
    fn first_denied(&self) -> Option<Op> {
        let mut behind = self.index.range(self.adopted.1.next()..);
        behind
            .find(|(op, entry)| matches!(entry.state, State::Missing(_)) && self.is_denied(**op))
            .map(|(op, _)| *op)
    }

    /// Whether the slot of an op is intact and names neither this op of the log nor a later one.
    fn is_denied(&self, op: Op) -> bool {
        match self.ring.slot(op) {
            Slot::Bad => false,
            Slot::Reserved => true,
            Slot::Header(named) if named.op == op => {
                self.index.get(&op).is_some_and(|entry| entry.header != named)
            }
            Slot::Header(PrepareHeader { op: named, .. }) | Slot::Sealed(named) => named < op,
        }
    }

    /// A prepare that was found, but cannot be made sure of now: its slot is not free. It can still be fetched.
    pub(crate) fn disown(&mut self, op: Op, mark: Mark) {
        let entry = self.index.get_mut(&op).expect("what is disowned was found");
        entry.state = State::Missing(mark);
        self.doubtful.insert(entry.header);
    }

    /// What was read of an op that is to be settled.
    pub(crate) fn settle(&mut self, op: Op, prepare: Option<Prepare>, asks: &mut Asks, io: &mut dyn Io) {
        match prepare {
            Some(prepare) => self.enqueue(prepare, asks, io),
            None => self.lose(op),
        }
    }

    // ── Appending ───────────────────────────────────────────────────────────────────────────────────────

    /// Whether a prepare could be appended: an append that waited for a view may not connect any more.
    pub(crate) fn connects(&self, header: &PrepareHeader) -> bool {
        let contradicts = header.op >= self.adopted.0
            && header.op <= self.adopted.1
            && self.index.get(&header.op).is_some_and(|entry| entry.header != *header);
        !contradicts
            && (header.op <= self.head.op
                || (header.op == self.head.op.next() && header.parent == self.head.checksum))
    }

    /// Takes a prepare that is not sealed.
    pub(crate) fn append(
        &mut self,
        prepare: Prepare,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let header = prepare.header;
        assert!(header.cluster == self.root.cluster, "a prepare of another cluster never gets here");
        assert!(
            header.op > Op::ZERO && header.op <= self.head.op.next(),
            "appends leave no hole behind the head"
        );
        assert!(header.size <= self.layout.prepare_size_max, "a prepare fits the layout");
        match self.index.get(&header.op).copied() {
            Some(entry) if entry.header == header => match entry.state {
                State::Durable => out.push(Output::Durable { op: header.op, checksum: header.checksum }),
                State::Missing(mark) => {
                    kimberlite_probe::sometimes!("journal.mends", mark == Mark::Unknown);
                    self.begin(prepare, mark == Mark::Unknown, asks, io, out);
                }
                State::Writing | State::Written | State::Ringing | State::Ringed => {}
            },
            Some(_) => {
                self.replace(header.op);
                kimberlite_probe::reachable!("journal.replaces");
                self.begin(prepare, false, asks, io, out);
            }
            None => self.begin(prepare, false, asks, io, out),
        }
    }

    /// Drops an op that a committed prepare contradicts, and what stands on it.
    fn replace(&mut self, op: Op) {
        let adopted = op >= self.adopted.0 && op <= self.adopted.1;
        assert!(!adopted, "a durable adoption is only undone by another");
        assert!(op > self.sealed_through(), "a sealed op is committed and never replaced");
        if op > self.adopted.1 {
            self.drop_from(op);
            return;
        }
        // In front of the adopted headers only what chains to the wrong op goes.
        let mut here = op;
        let mut wrong = Checksum::ZERO;
        while let Some(entry) = self.index.get(&here).copied() {
            if here >= self.adopted.0 || (here != op && entry.header.parent != wrong) {
                break;
            }
            wrong = entry.header.checksum;
            self.drop_one(here);
            here = here.next();
        }
        self.forget_dropped_writes();
    }

    /// Drops every op from `op` on.
    fn drop_from(&mut self, op: Op) {
        for (gone, _) in self.index.split_off(&op) {
            self.unsettled.remove(&gone);
        }
        self.doubtful.forget_from(op);
        self.head = match self.index.last_key_value() {
            Some((_, entry)) if entry.header.op >= self.sealed_through() => entry.header,
            _ => self.sealed_tail,
        };
        self.issued = self.issued.min(op.previous());
        self.said = self.said.min(op.previous());
        self.forget_dropped_writes();
    }

    fn drop_one(&mut self, op: Op) {
        self.index.remove(&op);
        self.unsettled.remove(&op);
    }

    /// Queued writes of dropped prepares are never begun; those in flight end and are ignored.
    fn forget_dropped_writes(&mut self) {
        let index = &self.index;
        let sealed = self.sealed_tail.op;
        let wanted = |op: Op, checksum: Checksum| {
            op <= sealed
                || index
                    .get(&op)
                    .is_some_and(|entry| entry.header.checksum == checksum && entry.state == State::Writing)
        };
        self.queue.retain(|prepare| wanted(prepare.header.op, prepare.header.checksum));
        self.writing.retain(|(op, checksum), _| wanted(*op, *checksum));
    }

    /// Names a prepare in the index and sets it on its way.
    fn begin(
        &mut self,
        prepare: Prepare,
        repair: bool,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let header = prepare.header;
        self.check_place(&header);
        if header.op == self.head.op.next() {
            assert!(header.parent == self.head.checksum, "a new prepare names the head as its parent");
            self.head = header;
        }
        let state = if mutant!(RingBeforePrepare) { State::Written } else { State::Writing };
        self.index.insert(header.op, Entry { header, state, repair });
        self.doubtful.decide(header.op, header.checksum);
        self.unsettled.insert(header.op);
        self.enqueue(prepare, asks, io);
        if header.op < self.head.op {
            let lowest = self.believe_below(&header);
            self.tell_gap(&lowest, out);
        }
    }

    /// Takes the doubtful ops that lead up to this one: its parent pointers prove that they are of this log. They
    /// are read, and written again, when they are asked for. Answers the lowest of them.
    fn believe_below(&mut self, child: &PrepareHeader) -> PrepareHeader {
        let mut child = *child;
        while child.op.previous() > self.sealed_through()
            && !self.index.contains_key(&child.op.previous())
            && let Some(header) = self.doubtful.get(child.op.previous(), child.parent)
        {
            let state = State::Missing(Mark::Unknown);
            kimberlite_probe::reachable!("journal.believes");
            self.index.insert(header.op, Entry { header, state, repair: false });
            child = header;
        }
        child
    }

    /// Tells the parent what is missing right below `child`, if anything is: its checksum is known, and what stands
    /// below it is not, until it has come. So a hole is filled from above, too, and not only as it is executed.
    fn tell_gap(&self, child: &PrepareHeader, out: &mut Vec<Output>) {
        let op = child.op.previous();
        if op > self.sealed_through() && !self.index.contains_key(&op) {
            let (checksum, place) = (Some(child.parent), Place::log(child.place));
            kimberlite_probe::reachable!("journal.tells_gap");
            let result = Err(FetchError::Damaged { checksum, place });
            out.push(Output::Fetched { op, checksum: None, result });
        }
    }

    /// Tells the parent of the first op that is missing below the adopted headers.
    pub(crate) fn tell_hole(&self, out: &mut Vec<Output>) {
        let Some(mut child) = self.index.get(&self.adopted.0).map(|entry| entry.header) else { return };
        while let Some(below) = self.index.get(&child.op.previous()) {
            if below.header.checksum != child.parent {
                return;
            }
            child = below.header;
        }
        self.tell_gap(&child, out);
    }

    /// Ops between the sealed part and the head that the journal names and does not hold; and of each hole the op at
    /// its upper end, which its child names. With their checksums and where they stand, or where their child does.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = (Op, Option<Checksum>, Place)> + '_ {
        let sealed = self.sealed_through();
        self.index.range(sealed.next()..).flat_map(move |(op, entry)| {
            let header = &entry.header;
            let below = op.previous();
            let hole = below > sealed && !self.index.contains_key(&below);
            let above = hole.then(|| (below, Some(header.parent), Place::log(header.place)));
            let missing = matches!(entry.state, State::Missing(_));
            let own = missing.then(|| (*op, Some(header.checksum), Place::log(header.place)));
            above.into_iter().chain(own)
        })
    }

    /// Whether a prepare with this header would stand in its segment's room, and may be read there.
    pub(crate) fn fits_segment(&self, header: &PrepareHeader) -> bool {
        let within = header.place % self.layout.segment_size;
        header.size <= self.layout.prepare_size_max
            && within + sectors(u64::from(header.size)) <= segment_room(&self.layout)
    }

    /// A log stands at the same places on every replica.
    fn check_place(&self, header: &PrepareHeader) {
        assert!(self.fits_segment(header), "a prepare stands in its segment's room");
        let parent = if header.op.0 == 1 {
            Some(self.root)
        } else if header.op == self.sealed_through().next() {
            Some(self.sealed_tail)
        } else {
            self.index.get(&header.op.previous()).map(|entry| entry.header)
        };
        let Some(parent) = parent.filter(|parent| parent.checksum == header.parent) else { return };
        let expected = parent.next_place(header.size, &self.layout);
        assert!((header.place, header.index) == expected, "a prepare stands where its parent ended");
    }

    /// Writes a prepare of a sealed segment again.
    pub(crate) fn repair_sealed(&mut self, prepare: Prepare, asks: &mut Asks, io: &mut dyn Io) {
        assert!(prepare.header.op <= self.sealed_through(), "the segment is sealed");
        self.enqueue(prepare, asks, io);
    }

    fn enqueue(&mut self, prepare: Prepare, asks: &mut Asks, io: &mut dyn Io) {
        let (op, checksum) = (prepare.header.op, prepare.header.checksum);
        if self.writing.insert((op, checksum), prepare.clone()).is_none()
            && !asks.is_writing(WriteFor::Prepare { op, checksum })
        {
            self.queue.push_back(prepare);
        }
        self.pump(asks, io);
    }

    /// Begins the queued writes that overlap neither one in flight nor one queued before them, as many as may be in
    /// flight, and writes dirty slots.
    pub(crate) fn pump(&mut self, asks: &mut Asks, io: &mut dyn Io) {
        let mut waiting: VecDeque<Prepare> = VecDeque::new();
        while !self.queue.is_empty() && asks.prepares() < WRITES_MAX {
            let Some(prepare) = self.queue.pop_front() else { break };
            let header = prepare.header;
            let place = Place::log(header.place);
            let len = sectors(u64::from(header.size));
            let behind = |other: &Prepare| {
                other.header.place < header.place + len && header.place < other.header.end()
            };
            let overlaps = asks.overlaps(place, len) || waiting.iter().any(behind);
            if overlaps && !mutant!(OverlappingWrites) {
                kimberlite_probe::reachable!("journal.write_waits");
                waiting.push_back(prepare);
            } else {
                let purpose = WriteFor::Prepare { op: header.op, checksum: header.checksum };
                asks.write(io, place, prepare.sectors(), purpose);
            }
        }
        waiting.append(&mut self.queue);
        self.queue = waiting;
        self.ring.pump(asks, io);
    }

    /// A prepare is durable.
    pub(crate) fn prepare_written(&mut self, op: Op, checksum: Checksum, out: &mut Vec<Output>) {
        let held = self.writing.remove(&(op, checksum));
        let is_sealed = op <= self.sealed_through();
        match self.index.get_mut(&op) {
            Some(entry) if entry.header.checksum == checksum && entry.state == State::Writing => {
                let written = held.expect("a prepare is held until it is written");
                assert!(written.header == entry.header, "what was written is what the journal names");
                entry.state = State::Written;
                if core::mem::take(&mut entry.repair) {
                    out.push(Output::Repaired { op, place: Place::log(entry.header.place) });
                }
            }
            // A sealed repair is held until it is written; a write that was dropped long before the seal is not.
            None if is_sealed => {
                if let Some(prepare) = held {
                    kimberlite_probe::reachable!("journal.mends_sealed");
                    out.push(Output::Repaired { op, place: Place::log(prepare.header.place) });
                    out.push(Output::Durable { op, checksum });
                }
            }
            // Dropped, or written twice.
            _ => {}
        }
        self.advance(out);
        let waits = self.index.get(&op).is_some_and(|entry| entry.state == State::Written);
        if waits && !self.slot_is_free(op) {
            out.push(Output::Stored { op });
        }
    }

    /// Whether the op that had this op's slot before is sealed; rule 3.
    fn slot_is_free(&self, op: Op) -> bool {
        let sealed = op.0 <= u64::from(self.layout.ring_slots) + self.sealed_tail.op.0;
        self.settling || sealed || mutant!(RingSlotReusedEarly)
    }

    /// Slots are durable.
    pub(crate) fn ring_written(&mut self, sector: u32, out: &mut Vec<Output>) {
        for (op, checksum) in self.ring.written(sector) {
            let named = matches!(self.ring.slot(op), Slot::Header(header) if header.op >= op);
            assert!(named, "a slot that was written names its op, or a later one by now");
            if let Some(entry) = self.index.get_mut(&op)
                && entry.header.checksum == checksum
                && entry.state == State::Ringing
            {
                entry.state = State::Ringed;
            }
        }
        self.advance(out);
    }

    /// Issues slots and says `Durable`, as far as the three rules allow.
    fn advance(&mut self, out: &mut Vec<Output>) {
        let last_adopted = self.adopted.1;
        let slots = u64::from(self.layout.ring_slots);
        let newest = self.head.op.max(self.doubt_until).0;
        self.pass_by();
        let unsettled: Vec<Op> = self.unsettled.iter().copied().collect();
        for op in unsettled {
            let slot_free = self.slot_is_free(op);
            let entry = self.index.get_mut(&op).expect("what is on its way is in the index");
            if entry.state == State::Written {
                let in_order = op <= last_adopted || op <= self.issued.next() || mutant!(RingOutOfOrder);
                kimberlite_probe::sometimes!("journal.slot_waits_for_order", !in_order);
                kimberlite_probe::sometimes!("journal.slot_waits_for_seal", !slot_free);
                if in_order && slot_free {
                    entry.state = State::Ringing;
                    self.issued = self.issued.max(op);
                    match self.ring.slot(op) {
                        // The slot was passed on in an earlier life, when this op was sealed; that proves as
                        // much about it as its own header there would, and the newer op needs the slot.
                        Slot::Header(PrepareHeader { op: newer, .. }) | Slot::Sealed(newer)
                            if newer > op && !mutant!(RingSlotTakenBack) =>
                        {
                            kimberlite_probe::reachable!("journal.slot_was_passed_on");
                            entry.state = State::Ringed;
                        }
                        // The slot may have been passed on, and is damaged. Were it to name this op, it would
                        // deny the newer one; left bad, it denies neither.
                        Slot::Bad if op.0 + slots <= newest => {
                            kimberlite_probe::reachable!("journal.leaves_slot_bad");
                            entry.state = State::Ringed;
                        }
                        _ => self.ring.set(&entry.header),
                    }
                }
            }
            if mutant!(RingNotAwaited, entry.state == State::Ringing) {
                entry.state = State::Ringed;
            }
            let in_order = op <= last_adopted || op <= self.said.next();
            if entry.state == State::Ringed && (in_order || mutant!(RingOutOfOrder)) {
                entry.state = State::Durable;
                self.said = self.said.max(op);
                self.unsettled.remove(&op);
                if !self.settling {
                    out.push(Output::Durable { op, checksum: entry.header.checksum });
                }
            }
            self.pass_by();
        }
        assert!(self.said <= self.issued, "nothing is said to be durable before its slot was issued");
        assert!(self.issued <= self.head.op, "slots are issued for ops of the log");
    }

    /// Goes past what stands behind the last op that was issued, or said to be durable, and is not on its way: it is held,
    /// or lost and known to be. What its slot denies has to come first.
    fn pass_by(&mut self) {
        let passes = |op: Op| !self.unsettled.contains(&op) && !self.is_denied(op);
        let mut issued = self.issued;
        while issued < self.head.op && passes(issued.next()) {
            issued = issued.next();
        }
        let mut said = self.said;
        while said < issued && passes(said.next()) {
            said = said.next();
        }
        (self.issued, self.said) = (issued, said);
    }

    /// A copy that was durable turned out to be damaged.
    pub(crate) fn damaged(&mut self, op: Op, checksum: Checksum) {
        if let Some(entry) = self.index.get_mut(&op)
            && entry.header.checksum == checksum
            && entry.state == State::Durable
        {
            entry.state = State::Missing(Mark::Unknown);
        }
    }

    /// An op that was to be settled cannot be read any more. What stands behind it is kept, so its slot must not go on to
    /// deny it.
    fn lose(&mut self, op: Op) {
        if op > self.adopted.1 && self.is_denied(op) {
            self.ring.spoil(op);
        }
        self.index.get_mut(&op).expect("what is settled is in the index").state =
            State::Missing(Mark::Unknown);
        self.unsettled.remove(&op);
    }
}
