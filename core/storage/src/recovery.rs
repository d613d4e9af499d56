//! Opens a data directory: superblock, ring, segments, and then the ops that must be made sure of.
//!
//! ```text
//! Copies → Mend → Ring → Walk → Settle → open
//! ```
//!
//! - **Copies**: the four copies of the superblock are read; **Mend**: those that differ are written again, one at a time.
//! - **Ring**: read whole, in large reads; one that fails is read again sector by sector.
//! - **Walk**: a sealed segment costs one sector, the head of its footer. The unsealed rest is walked prepare by
//!   prepare, and each op is decided by the table in [`decision`](crate::decision). Where the log that
//!   can be walked does not lead up to the adopted headers, there is a hole: of what stands in front of it
//!   only what is proven to be committed is kept, and the walk goes on at the adopted headers. Behind those, where an op
//!   is lost together with its header, there is a gap: it is searched for the next op of this log that is
//!   known, by its slot or by itself, and the walk goes on there. An op of the log view is always of
//!   this log, because a view has one primary, which proposes each op once.
//!   The walk ends: the op it looks for only grows, but for one step back, to the adopted headers behind the hole; and a
//!   hole is opened once.
//! - **Settle**: what is held but not named by the ring is written again, prepare and slot, because what a
//!   read shows need not be durable; bad slots that no op owns are reserved again.

mod search;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use kimberlite_io::{Buf, Io, Place, ReadFault, sectors};
use kimberlite_probe::mutant;
use kimberlite_types::limits::{PIPELINE_MAX, SECTOR_SIZE, SUPERBLOCK_COPIES};
use kimberlite_types::{Config, Op, View};
use kimberlite_wire::message::{HEADERS_MAX, Mark};
use kimberlite_wire::{Prepare, PrepareHeader};

use crate::asks::{Asks, ReadFor};
use crate::decision::{Copy, Expect, Says, Verdict, decide};
use crate::footer::{Footer, FooterHead, offset};
use crate::journal::{Journal, State};
use crate::ring::Slot;
use crate::scout::{Scout, Seen, places_after};
use crate::superblock::{Choice, CopyFault, Superblock, choose, copy_offset};
use crate::view::write_copy;
use crate::{CheckpointName, Damage, HaltReason, Output, Recovered};
use search::{Scan, Search};

/// Bytes of the ring in one read.
const RING_READ: u64 = 1 << 20;

/// The stage an open is in.
#[derive(Debug)]
enum Stage {
    Copies { left: usize },
    Mend { left: VecDeque<usize> },
    Ring { left: usize },
    Walk,
    Settle { reading: usize },
}

/// An open under way.
#[derive(Debug)]
pub(crate) struct Opening {
    config: Config,
    stage: Stage,
    copies: [Result<(Superblock, kimberlite_crypto::Checksum), CopyFault>; SUPERBLOCK_COPIES],
    superblock: Option<Superblock>,
    scout: Scout,
    /// The op that is being looked for.
    cursor: Op,
    /// The op before it; none behind a hole.
    parent: Option<PrepareHeader>,
    /// Whether the log is known without a hole so far.
    solid: bool,
    /// The first and the last op of the hole in front of the adopted headers, if there was one. It is opened once: what is
    /// left in front of them then is proven, or of their log.
    hole: Option<(Op, Op)>,
    /// The segment whose footer was looked for last.
    footer_asked: Option<u64>,
    /// Whether the footer that is being read is that of the segment behind the one that is walked.
    peeking: bool,
    /// The footer behind the segment that is walked: it tells where that one ends.
    next_footer: Option<FooterHead>,
    /// Places where the op at the cursor may still stand, and what stood at those looked at.
    tries: VecDeque<u64>,
    seen: Copy,
    /// The highest commit seen in what was kept.
    commit: Op,
    /// What the ops in front of the adopted headers themselves prove to be committed: what stands up to here
    /// is of every log.
    proven: Op,
    /// The search of a hole or a gap, while it lasts.
    scan: Option<Scan>,
    /// The op behind a gap that is known, and the walk's new start.
    anchor: Option<PrepareHeader>,
    /// The first op behind a gap's first that its slot denies. Nothing behind it was acknowledged, and the walk must not
    /// begin anew there: once the gap is repaired, that op would end the log in front of what was kept.
    denied: Op,
    /// The first and the last op lost in gaps.
    gap: Option<(Op, Op)>,
    /// Ops that are lost together with their headers and begin a gap, or the unknown end; and where they should stand.
    lost: Vec<(Op, Place)>,
    /// Ops that are held and that the ring does not name.
    settle: VecDeque<Op>,
    /// Whether ops behind the head may have been held, and how far the doubt goes.
    end_unknown: bool,
    doubt_until: Op,
    /// Footers being built again.
    footers: usize,
    /// The checkpoint that the superblock names: its op is committed.
    checkpoint: Option<CheckpointName>,
}

impl Opening {
    /// Begins: asks for the copies of the superblock.
    pub(crate) fn start(config: &Config, asks: &mut Asks, io: &mut dyn Io) -> Self {
        for copy in 0..SUPERBLOCK_COPIES {
            let len = kimberlite_types::limits::SUPERBLOCK_COPY_SIZE;
            asks.read(io, Place::superblock(copy_offset(copy)), len, ReadFor::Superblock { copy });
        }
        Self {
            config: *config,
            stage: Stage::Copies { left: SUPERBLOCK_COPIES },
            copies: [const { Err(CopyFault::Blank) }; SUPERBLOCK_COPIES],
            superblock: None,
            scout: Scout::new(config.layout),
            cursor: Op(1),
            parent: Some(PrepareHeader::root(config.cluster)),
            solid: true,
            hole: None,
            footer_asked: None,
            peeking: false,
            next_footer: None,
            tries: VecDeque::new(),
            seen: Copy::Alien,
            commit: Op::ZERO,
            proven: Op::ZERO,
            scan: None,
            anchor: None,
            denied: Op(u64::MAX),
            gap: None,
            lost: Vec::new(),
            settle: VecDeque::new(),
            end_unknown: false,
            doubt_until: Op::ZERO,
            footers: 0,
            checkpoint: None,
        }
    }

    fn superblock(&self) -> &Superblock {
        self.superblock.as_ref().expect("the superblock was chosen before the ring was read")
    }

    fn adopted(&self) -> (Op, Op) {
        let headers = &self.superblock().state.headers;
        (headers[0].op, headers[headers.len() - 1].op)
    }

    // ── Superblock ──────────────────────────────────────────────────────────────────────────────────────

    /// A copy of the superblock was read.
    pub(crate) fn on_copy(
        &mut self,
        copy: usize,
        result: Result<Buf, ReadFault>,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) -> Result<(), HaltReason> {
        let Stage::Copies { left } = &mut self.stage else { panic!("copies are read first") };
        self.copies[copy] = match result {
            Ok(bytes) => Superblock::decode(&bytes),
            Err(ReadFault::Absent) => Err(CopyFault::Blank),
            Err(ReadFault::Failed) => Err(CopyFault::Damaged),
        };
        *left -= 1;
        if *left > 0 {
            return Ok(());
        }
        let Choice { superblock, mend } = choose(&self.copies)?;
        superblock.check(&self.config)?;
        for copy in &mend {
            out.push(Output::Damaged {
                place: Place::superblock(copy_offset(*copy)),
                what: Damage::Superblock,
                op: None,
            });
        }
        self.commit = superblock.state.commit;
        self.checkpoint = superblock.checkpoint;
        self.superblock = Some(superblock);
        self.stage = Stage::Mend { left: mend.into() };
        self.mend_next(asks, io);
        Ok(())
    }

    /// Writes the next copy of the superblock again, or goes on to the ring.
    pub(crate) fn mend_next(&mut self, asks: &mut Asks, io: &mut dyn Io) {
        let Stage::Mend { left } = &mut self.stage else { panic!("copies are mended second") };
        match left.pop_front() {
            Some(copy) => {
                kimberlite_probe::reachable!("open.mends_superblock");
                write_copy(self.superblock(), copy, asks, io);
            }
            None => self.read_ring(asks, io),
        }
    }

    fn read_ring(&mut self, asks: &mut Asks, io: &mut dyn Io) {
        let size = self.config.layout.ring_size();
        let mut left = 0;
        for offset in (0..size).step_by(RING_READ as usize) {
            let len = RING_READ.min(size - offset) as usize;
            asks.read(io, Place::headers(offset), len, ReadFor::Ring { offset, len });
            left += 1;
        }
        self.stage = Stage::Ring { left };
    }

    // ── Ring ────────────────────────────────────────────────────────────────────────────────────────────

    /// A part of the ring was read.
    pub(crate) fn on_ring(
        &mut self,
        (offset, len): (u64, usize),
        result: Result<Buf, ReadFault>,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let Stage::Ring { left } = &mut self.stage else { panic!("the ring is read third") };
        *left -= 1;
        match result {
            Ok(bytes) => journal.ring.load(offset, &bytes),
            Err(_) if len > SECTOR_SIZE => {
                kimberlite_probe::reachable!("open.reads_ring_by_sector");
                for part in (offset..offset + len as u64).step_by(SECTOR_SIZE) {
                    asks.read(
                        io,
                        Place::headers(part),
                        SECTOR_SIZE,
                        ReadFor::Ring { offset: part, len: SECTOR_SIZE },
                    );
                    *left += 1;
                }
            }
            // What was not read stays zero, which no slot ever is: bad.
            Err(_) => {
                kimberlite_probe::reachable!("open.ring_sector_lost");
            }
        }
        if *left == 0 {
            for offset in journal.ring.survey() {
                out.push(Output::Damaged { place: Place::headers(offset), what: Damage::RingSlot, op: None });
            }
            journal.ring.distrust(self.adopted().1, self.superblock().state.log_view);
            self.stage = Stage::Walk;
            self.next_op(journal);
            self.walk(None, journal, asks, io, out);
        }
    }

    // ── Walk ────────────────────────────────────────────────────────────────────────────────────────────

    /// What the op at the cursor must look like.
    fn expect(&self) -> Expect {
        let state = &self.superblock().state;
        let known = state.headers.iter().chain(&self.anchor).find(|header| header.op == self.cursor);
        if let Some(header) = known {
            return Expect::Adopted(*header);
        }
        let parent = self.parent.expect("behind a hole stand the adopted headers");
        let (_, last) = self.adopted();
        Expect::After(parent, if self.cursor > last { state.log_view } else { View::ZERO })
    }

    /// Whether the header of the op at the cursor is known, whatever stands in its place: it was adopted, or the walk
    /// began anew there.
    fn is_known(&self) -> bool {
        let (first, last) = self.adopted();
        (self.cursor >= first && self.cursor <= last)
            || self.anchor.is_some_and(|anchor| anchor.op == self.cursor)
    }

    /// Lists the places where the op at the cursor may stand.
    fn next_op(&mut self, journal: &mut Journal) {
        self.seen = Copy::Alien;
        let (first, _) = self.adopted();
        let expect = self.expect();
        self.tries = match &expect {
            Expect::Adopted(header) => VecDeque::from([header.place]),
            Expect::After(parent, _) => self.places(parent, &expect, journal),
        };
        if let (Expect::Adopted(header), Some(parent)) = (&expect, self.parent)
            && self.cursor == first
            && header.parent != parent.checksum
        {
            kimberlite_probe::reachable!("open.front_is_of_other_log");
            // The op in front stands on another log than the adopted one.
            self.open_hole(journal);
        }
    }

    /// Where the successor of `parent` may stand. An older log may have left an op of the same number and parent at the
    /// other place; so where a footer or the ring knows, only or first what they say.
    fn places(&self, parent: &PrepareHeader, expect: &Expect, journal: &Journal) -> VecDeque<u64> {
        let layout = &self.config.layout;
        let next = (parent.place / layout.segment_size + 1) * layout.segment_size;
        let ended = parent.op > Op::ZERO && parent.op == journal.sealed_through();
        let begins = self.next_footer.is_some_and(|head| {
            head.first == self.cursor && head.parent == parent.checksum && parent.op > Op::ZERO
        });
        if self.solid && (ended || begins) {
            kimberlite_probe::reachable!("open.knows_segment_end");
            return VecDeque::from([next]);
        }
        let mut places = places_after(parent, layout);
        if let Slot::Header(named) = journal.ring.slot(self.cursor)
            && self.stands_right(expect, &named)
        {
            // A stable sort: the named place first, the others as they were.
            places.sort_by_key(|place| *place != named.place);
        }
        places.into()
    }

    /// The walking scout's read came back.
    pub(crate) fn on_walk(
        &mut self,
        result: Result<Buf, ReadFault>,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        if let Some(seen) = self.scout.on_read(result, asks, io) {
            self.walk(Some(seen), journal, asks, io, out);
        }
    }

    /// The head of a footer was read.
    pub(crate) fn on_footer_head(
        &mut self,
        segment: u64,
        result: Result<Buf, ReadFault>,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let layout = self.config.layout;
        let head =
            result.ok().and_then(|bytes| FooterHead::decode(&bytes, self.config.cluster, segment, &layout));
        if core::mem::take(&mut self.peeking) {
            self.next_footer = head;
            self.walk(None, journal, asks, io, out);
            return;
        }
        let follows = |head: &FooterHead| {
            head.first == self.cursor && self.parent.is_some_and(|parent| parent.checksum == head.parent)
        };
        if let Some(head) = head.filter(follows) {
            kimberlite_probe::reachable!("open.skips_sealed_segment");
            self.take_sealed(&head, journal, asks, io, out);
            self.next_op(journal);
            self.walk(None, journal, asks, io, out);
        } else {
            self.peeking = true;
            let at = Place::log(offset(segment + 1, &layout));
            asks.read(io, at, SECTOR_SIZE, ReadFor::FooterHead { segment: segment + 1 });
        }
    }

    /// A segment is sealed: so were all before it, and their footers are built again if they were lost.
    fn take_sealed(
        &mut self,
        head: &FooterHead,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        for headers in journal.unsealed_segments(self.cursor.previous()) {
            let footer = Footer::of(&headers, &self.config.layout);
            let place = Place::log(offset(footer.head.segment, &self.config.layout));
            out.push(Output::Damaged { place, what: Damage::Footer, op: Some(headers[0].op) });
            kimberlite_probe::reachable!("open.rebuilds_footer");
            journal.write_footer(&footer, asks, io);
            journal.found_sealed(headers[0].op, footer.head.last);
            self.settle.retain(|op| *op > footer.head.last.op);
            self.footers += 1;
        }
        journal.found_sealed(head.first, head.last);
        // The last few headers are wanted by view changes; the ring still has them, unless it is damaged.
        let mut known: Vec<PrepareHeader> = alloc::vec![head.last];
        while known.len() < HEADERS_MAX {
            let child = known[known.len() - 1];
            match journal.ring.slot(child.op.previous()) {
                Slot::Header(header) if header.checksum == child.parent && header.op >= head.first => {
                    known.push(header);
                }
                _ => break,
            }
        }
        for header in known.into_iter().rev() {
            journal.found(header, State::Durable);
        }
        self.commit = self.commit.max(head.last.op);
        self.proven = self.proven.max(head.last.op);
        self.parent = Some(head.last);
        self.cursor = head.last.op.next();
    }

    /// A footer was written again.
    pub(crate) fn on_footer_written(&mut self) {
        self.footers -= 1;
    }

    /// Walks on, with what was seen at the place looked at last.
    fn walk(
        &mut self,
        mut seen: Option<Seen>,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        loop {
            if self.scan.is_some() {
                if let Some(seen) = seen.take() {
                    self.scanned(&seen);
                }
                let Some(place) = self.scan_place() else {
                    let gap = self.scan.as_ref().is_some_and(|scan| scan.what == Search::Gap);
                    if !gap {
                        self.finish_scan(journal);
                    } else if self.finish_gap(journal) {
                        self.begin_settling(journal, asks, io);
                        return;
                    }
                    continue;
                };
                match self.scout.look(place, asks, io) {
                    Some(look) => seen = Some(look),
                    None => return,
                }
                continue;
            }
            if let Some(seen) = seen.take() {
                let done = self.judge(&seen, journal, out);
                if done {
                    self.begin_settling(journal, asks, io);
                    return;
                }
                if self.scan.is_some() {
                    continue;
                }
            }
            let place = *self.tries.front().expect("an op has a place to look at");
            let segment = place / self.config.layout.segment_size;
            let starts = place.is_multiple_of(self.config.layout.segment_size);
            if starts && self.solid && self.footer_asked != Some(segment) {
                self.footer_asked = Some(segment);
                let at = Place::log(offset(segment, &self.config.layout));
                asks.read(io, at, SECTOR_SIZE, ReadFor::FooterHead { segment });
                return;
            }
            self.tries.pop_front();
            match self.scout.look(place, asks, io) {
                Some(look) => seen = Some(look),
                None => return,
            }
        }
    }

    /// Judges one look. Answers whether the walk is over.
    fn judge(&mut self, seen: &Seen, journal: &mut Journal, out: &mut Vec<Output>) -> bool {
        let expect = self.expect();
        let header = match seen {
            Seen::Whole(prepare) if self.stands_right(&expect, &prepare.header) => Some(prepare.header),
            Seen::Whole(_) => None,
            Seen::Broken | Seen::Absent => {
                self.seen = Copy::Bad;
                None
            }
        };
        let copy = if header.is_some() { Copy::Fits } else { self.seen };
        if copy != Copy::Fits && !self.tries.is_empty() {
            return false;
        }
        let slot = journal.ring.slot(expect.op());
        let named = match slot {
            Slot::Header(named) if self.stands_right(&expect, &named) => Some(named),
            _ => None,
        };
        let says = match expect.ask(&slot) {
            Says::Names if named.is_none() => Says::Other,
            says => says,
        };
        let (mut verdict, _) = decide(self.is_known(), copy, says);
        let damaged = !self.is_known() && matches!(verdict, Verdict::Faulty | Verdict::Unknown);
        if mutant!(CorruptTailIsEnd, damaged) {
            verdict = Verdict::Cut;
        }
        match verdict {
            Verdict::Keep | Verdict::KeepAndSettle => {
                let header = header.expect("a prepare that is kept was seen");
                self.commit = self.commit.max(header.commit);
                if verdict == Verdict::KeepAndSettle {
                    self.settle.push_back(header.op);
                }
                self.take(header, State::Durable, journal)
            }
            Verdict::Faulty | Verdict::Lost => {
                let header = match expect {
                    Expect::Adopted(header) => header,
                    Expect::After(..) => named.expect("a faulty op is named by its slot"),
                };
                let place = Place::log(header.place);
                out.push(Output::Damaged { place, what: Damage::Prepare, op: Some(header.op) });
                self.take(header, State::Missing(Mark::Unknown), journal)
            }
            Verdict::Missing => {
                let Expect::Adopted(header) = expect else { panic!("only adopted ops can be missing") };
                self.take(header, State::Missing(Mark::Nack), journal)
            }
            Verdict::Cut => self.end(journal),
            Verdict::Unknown => {
                let parent = self.parent.expect("an unknown op stands behind a known one");
                let place = Place::log(parent.end());
                out.push(Output::Damaged { place, what: Damage::Prepare, op: Some(self.cursor) });
                let (_, last) = self.adopted();
                if self.cursor <= last {
                    return self.end(journal);
                }
                self.open_gap(place, journal);
                false
            }
        }
    }

    /// Whether a header is the expected one and names the place where it must stand.
    fn stands_right(&self, expect: &Expect, header: &PrepareHeader) -> bool {
        expect.accepts(header)
            && match expect {
                Expect::Adopted(_) => true,
                Expect::After(parent, _) => {
                    (header.place, header.index) == parent.next_place(header.size, &self.config.layout)
                }
            }
    }

    /// Takes the op at the cursor and goes on to the next.
    fn take(&mut self, header: PrepareHeader, state: State, journal: &mut Journal) -> bool {
        journal.found(header, state);
        let in_checkpoint =
            self.checkpoint.is_some_and(|name| (name.op, name.checksum) == (header.op, header.checksum));
        if in_checkpoint {
            kimberlite_probe::reachable!("open.checkpoint_proves");
            self.commit = self.commit.max(header.op);
        }
        if self.solid && self.cursor < self.adopted().0 {
            self.proven = self.proven.max(header.commit);
            if in_checkpoint {
                self.proven = self.proven.max(header.op);
            }
        }
        self.parent = Some(header);
        self.cursor = header.op.next();
        self.next_op(journal);
        false
    }

    /// The log cannot be walked any further: it ends here, or a hole begins.
    fn end(&mut self, journal: &mut Journal) -> bool {
        let (first, last) = self.adopted();
        if self.cursor > last {
            return true;
        }
        assert!(self.cursor < first, "an adopted op never ends the log");
        self.open_hole(journal);
        false
    }

    // ── Settle ──────────────────────────────────────────────────────────────────────────────────────────

    fn begin_settling(&mut self, journal: &mut Journal, asks: &mut Asks, io: &mut dyn Io) {
        self.scout.rest();
        let slots = u64::from(self.config.layout.ring_slots);
        let head = journal.head().op;
        let sealed = journal.sealed_through();
        if self.end_unknown {
            let (_, last) = self.adopted();
            assert!(head >= last, "what is unknown stands behind the adopted headers");
            self.doubt_until = journal.ring.doubt_behind(head, self.superblock().state.log_view);
            kimberlite_probe::reachable!("open.end_is_uncertain");
            assert!(self.doubt_until > head, "the slot of an unknown op is bad, or passed on");
        }
        let lost = self.gap.map_or(Op::ZERO, |(_, last)| last);
        journal.doubt_until = self.doubt_until.max(lost);
        journal.committed = if self.solid { self.commit.min(head) } else { sealed };
        if !self.solid {
            // Behind a hole, slots still belong to the ops of the hole: what waits for such a slot was never
            // acknowledged, and is appended again when the hole is filled.
            for op in self.settle.iter().filter(|op| op.0 > slots + sealed.0) {
                kimberlite_probe::reachable!("open.disowns");
                let lost = matches!(journal.ring.slot(*op), Slot::Bad | Slot::Sealed(_));
                journal.disown(*op, if lost { Mark::Unknown } else { Mark::Nack });
            }
            self.settle.retain(|op| op.0 <= slots + sealed.0);
        }
        // An older op with the same slot as a newer one has passed it on.
        self.settle.retain(|op| op.0 + slots > head.0 && *op > sealed);
        let state = self.superblock().state.clone();
        journal.begin_settling(&state, self.settle.make_contiguous());
        if !self.end_unknown && self.solid {
            let owner = |slot: u32| {
                let back = (head.0 + slots - u64::from(slot)) % slots;
                head.0.checked_sub(back).map(Op).filter(|owner| *owner > Op::ZERO)
            };
            let bad: Vec<u32> = journal.ring.bad().collect();
            for slot in bad {
                let owner = owner(slot);
                let known = owner.and_then(|owner| {
                    let adopted = state.headers.iter().find(|header| header.op == owner).copied();
                    journal.entry(owner).map(|entry| entry.header).or(adopted)
                });
                match (owner, known) {
                    (Some(owner), _) if owner > sealed => {}
                    // Sealed, so it was held: a reserved slot would deny it, once its prepare and the footer are lost.
                    (_, Some(header)) => {
                        kimberlite_probe::reachable!("open.names_sealed_op_again");
                        journal.ring.set(&header);
                    }
                    (Some(owner), None) => {
                        kimberlite_probe::reachable!("open.seals_bad_slot");
                        journal.ring.seal(owner);
                    }
                    (None, None) => {
                        kimberlite_probe::reachable!("open.reserves_bad_slot");
                        journal.ring.reserve(slot);
                    }
                }
            }
        }
        self.stage = Stage::Settle { reading: 0 };
        journal.pump(asks, io);
        journal.seal_ready(asks, io);
        self.settle_more(journal, asks, io);
    }

    fn settle_more(&mut self, journal: &Journal, asks: &mut Asks, io: &mut dyn Io) {
        let Stage::Settle { reading } = &mut self.stage else { return };
        while *reading < PIPELINE_MAX
            && let Some(op) = self.settle.pop_front()
        {
            let header = journal.entry(op).expect("what is settled is in the index").header;
            let len = sectors(u64::from(header.size)) as usize;
            asks.read(io, Place::log(header.place), len, ReadFor::Settle { op, checksum: header.checksum });
            *reading += 1;
        }
    }

    /// An op that is to be settled was read.
    pub(crate) fn on_settle(
        &mut self,
        op: Op,
        result: Result<Buf, ReadFault>,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let Stage::Settle { reading } = &mut self.stage else { panic!("ops are settled last") };
        *reading -= 1;
        kimberlite_probe::reachable!("open.settles");
        let expected = journal.entry(op).expect("what is settled is in the index").header;
        let prepare = result
            .ok()
            .and_then(|bytes| Prepare::parse(&bytes.freeze()).ok())
            .filter(|prepare| prepare.header == expected);
        kimberlite_probe::sometimes!("open.settled_copy_is_gone", prepare.is_none());
        if prepare.is_none() {
            let place = Place::log(expected.place);
            out.push(Output::Damaged { place, what: Damage::Prepare, op: Some(op) });
        }
        journal.settle(op, prepare, asks, io);
        self.settle_more(journal, asks, io);
    }

    /// Whether everything that was found is sure: then the data directory is open.
    pub(crate) fn finish(&mut self, journal: &mut Journal) -> Option<(Superblock, Recovered)> {
        let done = matches!(self.stage, Stage::Settle { reading: 0 })
            && self.settle.is_empty()
            && self.footers == 0
            && journal.is_settled();
        if !done {
            return None;
        }
        journal.settling = false;
        let superblock = self.superblock.take().expect("the superblock was chosen");
        let mut unknown: Vec<(Op, Place)> = journal
            .entries()
            .filter(|entry| entry.state == State::Missing(Mark::Unknown))
            .map(|entry| (entry.header.op, Place::log(entry.header.place)))
            .collect();
        unknown.append(&mut self.lost);
        let (headers, head) = (journal.tail(), journal.head().op);
        let below = headers[0].0.op;
        let asked = Op((head.0 + 1).saturating_sub(HEADERS_MAX as u64));
        let gap = self.gap.filter(|_| below > asked);
        let recovered = Recovered {
            view_state: superblock.state.clone(),
            below_gap: if gap.is_some() { journal.named_between(asked, below) } else { Vec::new() },
            headers,
            commit: self.commit.min(head),
            doubt_until: self.doubt_until.max(head),
            gap: self.gap,
            unknown,
            checkpoint: superblock.checkpoint,
        };
        Some((superblock, recovered))
    }
}
