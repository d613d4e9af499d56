//! Walks the whole log, read-only, and checks everything that can be checked without a peer.
//!
//! Every prepare: both checksums, cluster, op, parent, place, time, and each entry's place in the hash
//! chain. The log is read in large pieces, several ahead of the walk; where one cannot be read, the prepares in
//! it are read one by one. Where no further prepare is found, superblock and ring tell the end of the log from a
//! prepare that is lost, and both from one that was never received. Behind one that was not received, every op that
//! this replica holds for certain is checked one by one; its entries' hashes cannot be, for lack of the one before.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use kimberlite_crypto::{ChainHash, Checksum};
use kimberlite_io::{Buf, Event, Frame, Io, Machine, Place, ReadFault, sectors};
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{Config, Instant, Layout, Now, Op, View, WallTime};
use kimberlite_wire::prepare::segment_room;
use kimberlite_wire::{Prepare, PrepareHeader};
use serde::{Deserialize, Serialize};

use crate::HaltReason;
use crate::asks::{Asks, ReadFor};
use crate::decision::{Expect, Says};
use crate::footer::{self, Footer, FooterHead};
use crate::ring::{Ring, Slot};
use crate::scout::{Scout, Seen, places_after};
use crate::superblock::{Copies, CopyFault, Superblock, choose, copy_offset};

/// Bytes of the log in one read. A prepare that spans two pieces is copied together, so a piece holds several of the
/// largest.
const PIECE: u64 = 4 << 20;
/// Pieces that are read ahead of the walk, the one it stands in included: 8 MiB in memory. A prepare spans
/// at most two.
const PIECES_AHEAD: usize = 2;
/// Progress is told every so many bytes.
const PROGRESS_BYTES: u64 = 64 << 20;

/// All that can happen to a [`Verifier`].
#[derive(Clone, Debug)]
pub enum VerifyInput {
    /// Begin. The first input, once.
    Start,
    /// An answer to one of its asks.
    Event(Event),
}

/// What a [`Verifier`] tells its parent. The last output is never `Progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyOutput {
    /// So much was verified.
    Progress(Totals),
    /// The log is whole up to its end.
    Whole(Totals),
    /// All that this replica was given is whole; it stopped before it had received all of the log.
    Behind(Totals, Missing),
    /// The log is whole up to this place, and not there; or a prepare behind those not received is damaged.
    Broken(Totals, Finding),
    /// The data directory cannot be opened.
    Refused(HaltReason),
}

/// How much was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The last verified op; as many prepares were verified.
    pub op: Op,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of the prepares, without padding.
    pub bytes: u64,
    /// The checksum of the last verified op.
    pub checksum: Checksum,
    /// The chain hash of the last entry so far.
    pub chain: ChainHash,
    /// When the last verified op was proposed.
    pub timestamp: WallTime,
}

/// Ops of the log that this replica knows of and never had: nothing that it acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The first of them, the op behind the last verified one.
    pub first: Op,
    /// The last op of the log that this replica knows of for certain.
    pub last: Op,
    /// How many ops from the first to the last were not received, or cannot be told from an older log's.
    pub ops: u64,
}

/// The first place where the log is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// The op that should stand there.
    pub op: Op,
    /// What is wrong.
    pub what: Wrong,
}

/// What is wrong with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wrong {
    /// The op was durable here, and its prepare is not readable or not whole.
    Damaged,
    /// Neither prepare nor ring tell whether the log goes on.
    EndUnknown,
    /// The time of the prepare is not after its parent's.
    Time,
    /// An entry's place, time or hash does not continue the chain.
    Chain,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "the prepare is damaged; a running replica fetches it from a peer",
            Self::EndUnknown => {
                "prepare and ring are damaged; whether the log goes on is for the other replicas to say"
            }
            Self::Time => "the prepare is not later than its parent",
            Self::Chain => "the hash chain is broken",
        })
    }
}

#[derive(Debug)]
enum Stage {
    New,
    Superblock {
        left: usize,
    },
    Ring {
        left: usize,
    },
    Walk,
    /// A footer is being read: that of the segment to be walked, or the one behind it.
    End {
        segment: u64,
    },
    Locate {
        behind: u64,
    },
    /// What stands behind an op that was not received is looked at: these headers' prepares, the next one last.
    Behind {
        missing: Missing,
        held: Vec<PrepareHeader>,
    },
    Over,
}

/// Verifies the log of one replica.
#[derive(Debug)]
pub struct Verifier {
    config: Config,
    stage: Stage,
    asks: Asks,
    copies: Copies,
    superblock: Option<Superblock>,
    ring: Ring,
    scout: Scout,
    /// Pieces of the log at hand, by offset; none: could not be read.
    pieces: BTreeMap<u64, Option<Frame>>,
    asked: BTreeSet<u64>,
    parent: PrepareHeader,
    /// Places where the next op may still stand.
    tries: Vec<u64>,
    /// The segment whose end was looked up last.
    segment: Option<u64>,
    /// The last op of that segment and its checksum, if a footer tells.
    ends: Option<(Op, Checksum)>,
    scouting: bool,
    totals: Totals,
    told: u64,
}

impl Verifier {
    /// A machine that verifies the log of this replica. Send [`VerifyInput::Start`] first.
    pub fn new(config: Config) -> Self {
        let root = PrepareHeader::root(config.cluster);
        Self {
            stage: Stage::New,
            asks: Asks::default(),
            copies: [const { Err(CopyFault::Blank) }; SUPERBLOCK_COPIES],
            superblock: None,
            ring: Ring::unread(config.cluster, &config.layout),
            scout: Scout::new(config.layout),
            pieces: BTreeMap::new(),
            asked: BTreeSet::new(),
            parent: root,
            tries: Vec::new(),
            segment: None,
            ends: None,
            scouting: false,
            totals: Totals {
                op: Op::ZERO,
                entries: 0,
                bytes: 0,
                checksum: root.checksum,
                chain: root.chain,
                timestamp: root.timestamp,
            },
            told: 0,
            config,
        }
    }

    fn over(&mut self, output: VerifyOutput, out: &mut Vec<VerifyOutput>) {
        self.stage = Stage::Over;
        self.asks.forget();
        self.pieces.clear();
        out.push(output);
    }

    fn on_read(
        &mut self,
        purpose: ReadFor,
        result: Result<Buf, ReadFault>,
        io: &mut dyn Io,
        out: &mut Vec<VerifyOutput>,
    ) {
        match purpose {
            ReadFor::Superblock { copy } => {
                self.copies[copy] = match result {
                    Ok(bytes) => Superblock::decode(&bytes),
                    Err(ReadFault::Absent) => Err(CopyFault::Blank),
                    Err(ReadFault::Failed) => Err(CopyFault::Damaged),
                };
                self.after_copy(io, out);
            }
            ReadFor::Ring { offset, .. } => {
                if let Ok(bytes) = result {
                    self.ring.load(offset, &bytes);
                }
                let Stage::Ring { left } = &mut self.stage else { panic!("the ring is read second") };
                *left -= 1;
                if *left == 0 {
                    self.stage = Stage::Walk;
                    self.next_op();
                    self.walk(None, io, out);
                }
            }
            ReadFor::Ahead { offset } => {
                self.asked.remove(&offset);
                self.pieces.insert(offset, result.ok().map(Buf::freeze));
                if matches!(self.stage, Stage::Walk) && !self.scouting {
                    self.walk(None, io, out);
                }
            }
            ReadFor::Walk => {
                if let Some(seen) = self.scout.on_read(result, &mut self.asks, io) {
                    self.scouting = false;
                    match self.stage {
                        Stage::Behind { .. } => self.look_behind(Some(seen), io, out),
                        _ => self.walk(Some(seen), io, out),
                    }
                }
            }
            ReadFor::FooterHead { segment } => self.on_footer_head(segment, result, io, out),
            ReadFor::Footer { segment } => self.located(segment, result, out),
            _ => panic!("a verifier reads superblock, ring and log"),
        }
    }

    fn after_copy(&mut self, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        let Stage::Superblock { left } = &mut self.stage else { panic!("copies are read first") };
        *left -= 1;
        if *left > 0 {
            return;
        }
        let chosen = choose(&self.copies).and_then(|choice| {
            choice.superblock.check(&self.config)?;
            Ok(choice.superblock)
        });
        match chosen {
            Ok(superblock) => self.superblock = Some(superblock),
            Err(reason) => return self.over(VerifyOutput::Refused(reason), out),
        }
        // Sector by sector, so that one that cannot be read hides no other.
        let size = self.config.layout.ring_size();
        let mut left = 0;
        for offset in (0..size).step_by(SECTOR_SIZE) {
            self.asks.read(
                io,
                Place::headers(offset),
                SECTOR_SIZE,
                ReadFor::Ring { offset, len: SECTOR_SIZE },
            );
            left += 1;
        }
        self.stage = Stage::Ring { left };
    }

    /// What the next op must look like.
    fn expect(&self) -> Expect {
        let state = &self.superblock.as_ref().expect("the superblock was chosen").state;
        let op = self.parent.op.next();
        if let Some(header) = state.headers.iter().find(|header| header.op == op) {
            return Expect::Adopted(*header);
        }
        let behind = op > state.head().op;
        Expect::After(self.parent, if behind { state.log_view } else { View::ZERO })
    }

    /// Lists the places where the next op may stand. An older log may have left an op of the same number
    /// and parent behind the last one of a segment; footers and ring tell it from the real one.
    fn next_op(&mut self) {
        let layout = &self.config.layout;
        if self.ends == Some((self.parent.op, self.parent.checksum)) {
            self.tries = alloc::vec![(self.parent.place / layout.segment_size + 1) * layout.segment_size];
            return;
        }
        self.tries = places_after(&self.parent, layout);
        if let Slot::Header(named) = self.ring.slot(self.parent.op.next())
            && self.stands_right(&self.expect(), &named)
        {
            // A stable sort: the named place first, the others as they were.
            self.tries.sort_by_key(|place| *place != named.place);
        }
    }

    /// Asks where a segment ends.
    fn look_up_end(&mut self, segment: u64, io: &mut dyn Io) {
        let place = Place::log(footer::offset(segment, &self.config.layout));
        self.asks.read(io, place, SECTOR_SIZE, ReadFor::FooterHead { segment });
    }

    fn on_footer_head(
        &mut self,
        found: u64,
        result: Result<Buf, ReadFault>,
        io: &mut dyn Io,
        out: &mut Vec<VerifyOutput>,
    ) {
        let Stage::End { segment } = self.stage else { panic!("a footer is read before its segment") };
        let (cluster, layout) = (self.config.cluster, self.config.layout);
        let head = result.ok().and_then(|bytes| FooterHead::decode(&bytes, cluster, found, &layout));
        self.ends = head.map(|head| {
            let own = found == segment;
            if own { (head.last.op, head.last.checksum) } else { (head.first.previous(), head.parent) }
        });
        if self.ends.is_none() && found == segment {
            self.look_up_end(segment + 1, io);
        } else {
            self.stage = Stage::Walk;
            self.walk(None, io, out);
        }
    }

    /// Walks as far as the pieces at hand reach, with what the scout saw.
    fn walk(&mut self, mut seen: Option<Seen>, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        loop {
            if let Some(seen) = seen.take() {
                self.judge(&seen, io, out);
                if !matches!(self.stage, Stage::Walk) {
                    return;
                }
            }
            let place = self.tries[0];
            let segment = place / self.config.layout.segment_size;
            if place.is_multiple_of(self.config.layout.segment_size) && self.segment != Some(segment) {
                self.segment = Some(segment);
                self.stage = Stage::End { segment };
                self.look_up_end(segment, io);
                return;
            }
            self.read_ahead(place, io);
            seen = match self.at_hand(place) {
                AtHand::Seen(seen) => Some(seen),
                AtHand::Coming => return,
                AtHand::Never => {
                    let seen = self.scout.look(place, &mut self.asks, io);
                    if seen.is_none() {
                        self.scouting = true;
                        return;
                    }
                    seen
                }
            };
        }
    }

    /// Judges what stands at the first of the places.
    fn judge(&mut self, seen: &Seen, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        let expect = self.expect();
        self.tries.remove(0);
        match seen {
            Seen::Whole(prepare) if self.stands_right(&expect, &prepare.header) => {
                let header = prepare.header;
                let finding = if header.timestamp <= self.parent.timestamp {
                    Some(Wrong::Time)
                } else {
                    prepare.verify_chain(&self.parent.chain).err().map(|_| Wrong::Chain)
                };
                match finding {
                    None => self.take(&header, out),
                    Some(what) => self.report(header.place, what, out),
                }
            }
            _ if !self.tries.is_empty() => {}
            _ => self.end(&expect, io, out),
        }
    }

    fn stands_right(&self, expect: &Expect, header: &PrepareHeader) -> bool {
        expect.accepts(header)
            && (header.place, header.index) == self.parent.next_place(header.size, &self.config.layout)
    }

    fn take(&mut self, header: &PrepareHeader, out: &mut Vec<VerifyOutput>) {
        self.parent = *header;
        self.totals = Totals {
            op: header.op,
            entries: self.totals.entries + u64::from(header.entries),
            bytes: self.totals.bytes + u64::from(header.size),
            checksum: header.checksum,
            chain: header.chain,
            timestamp: header.timestamp,
        };
        if self.totals.bytes >= self.told + PROGRESS_BYTES {
            self.told = self.totals.bytes;
            out.push(VerifyOutput::Progress(self.totals));
        }
        self.next_op();
    }

    /// No place holds the next op: is it lost, or does the log end here?
    fn end(&mut self, expect: &Expect, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        let state = &self.superblock.as_ref().expect("the superblock was chosen").state;
        let op = expect.op();
        let slot = self.ring.slot(op);
        let says = expect.ask(&slot);
        let place = match (expect, slot) {
            (Expect::Adopted(header), _) => header.place,
            (_, Slot::Header(header)) if says == Says::Names => header.place,
            _ => places_after(&self.parent, &self.config.layout)[0],
        };
        let needed = op <= state.head().op || op <= state.commit;
        match says {
            Says::Names => self.report(place, Wrong::Damaged, out),
            Says::Later => self.locate(place, io),
            // A lone replica has nobody to receive from.
            Says::Other if needed && self.config.replicas > 1 => self.begin_behind(io, out),
            Says::Other | Says::Bad if needed => self.report(place, Wrong::Damaged, out),
            Says::Bad => self.report(place, Wrong::EndUnknown, out),
            Says::Other => self.over(VerifyOutput::Whole(self.totals), out),
        }
    }

    /// A sealed op is lost: the footer of the segment says whether it stood there or started the next one.
    fn locate(&mut self, behind: u64, io: &mut dyn Io) {
        let layout = &self.config.layout;
        let segment = behind / layout.segment_size;
        let place = Place::log(footer::offset(segment, layout));
        self.asks.read(io, place, footer::size_max(layout) as usize, ReadFor::Footer { segment });
        self.stage = Stage::Locate { behind };
    }

    fn located(&mut self, segment: u64, result: Result<Buf, ReadFault>, out: &mut Vec<VerifyOutput>) {
        let Stage::Locate { behind } = self.stage else { panic!("a footer is read to locate an op") };
        let layout = &self.config.layout;
        let footer =
            result.ok().and_then(|bytes| Footer::decode(&bytes, self.config.cluster, segment, layout));
        let place = match footer.map(|footer| footer.row(self.parent.op.next()).map(|row| row.place)) {
            None => behind,
            Some(Some(place)) => place,
            Some(None) => (segment + 1) * layout.segment_size,
        };
        self.report(place, Wrong::Damaged, out);
    }

    fn report(&mut self, place: u64, what: Wrong, out: &mut Vec<VerifyOutput>) {
        let finding = Finding { place: Place::log(place), op: self.parent.op.next(), what };
        self.over(VerifyOutput::Broken(self.totals, finding), out);
    }

    // ── Behind an op that was not received ───────────────────────────────────────────────────────────────

    /// Lists the ops behind the one that was not received which this replica holds, or may have held: adopted ones
    /// that their slots do not deny, and those that their slots name and that are linked to such ones in an unbroken
    /// row. What else the ring names may be of an older log.
    fn begin_behind(&mut self, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
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
                    let passed_on = matches!(slot, Slot::Header(later) if later.op > op);
                    if passed_on || slot == Slot::Bad {
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
    fn look_behind(&mut self, mut seen: Option<Seen>, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
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

    // ── Reading ahead ───────────────────────────────────────────────────────────────────────────────────

    /// Asks for the piece that holds `place` and those behind it, and forgets those in front of it.
    fn read_ahead(&mut self, place: u64, io: &mut dyn Io) {
        let layout = self.config.layout;
        let mut piece = piece_of(place, &layout);
        self.pieces.retain(|offset, _| *offset >= piece);
        for _ in 0..PIECES_AHEAD {
            if !self.pieces.contains_key(&piece) && self.asked.insert(piece) {
                let len = piece_end(piece, &layout) - piece;
                self.asks.read(io, Place::log(piece), len as usize, ReadFor::Ahead { offset: piece });
            }
            piece = piece_after(piece, &layout);
        }
    }

    /// The prepare at `place`, if the pieces at hand hold it.
    fn at_hand(&self, place: u64) -> AtHand {
        let layout = &self.config.layout;
        let piece = piece_of(place, layout);
        let frame = match self.pieces.get(&piece) {
            None => return AtHand::Coming,
            Some(None) => return AtHand::Never,
            Some(Some(frame)) => frame,
        };
        let within = (place - piece) as usize;
        if within + PREPARE_HEADER_SIZE > frame.len() {
            return AtHand::Never;
        }
        let rest = frame.slice(within..frame.len());
        let Ok(header) = PrepareHeader::decode(&rest) else { return AtHand::Seen(Seen::Broken) };
        let len = sectors(u64::from(header.size));
        let segment = place / layout.segment_size;
        let room_end = segment * layout.segment_size + segment_room(layout);
        if header.place != place || header.size > layout.prepare_size_max || place + len > room_end {
            return AtHand::Seen(Seen::Broken);
        }
        if len as usize <= rest.len() {
            return AtHand::Seen(Prepare::parse(&rest).map_or(Seen::Broken, Seen::Whole));
        }
        let mut whole = Buf::zeroed(len as usize);
        let mut done = rest.len();
        whole[..done].copy_from_slice(&rest);
        let mut next = piece_end(piece, layout);
        while done < len as usize {
            let frame = match self.pieces.get(&next) {
                None => return AtHand::Coming,
                Some(None) => return AtHand::Never,
                Some(Some(frame)) => frame,
            };
            let part = frame.len().min(len as usize - done);
            whole[done..done + part].copy_from_slice(&frame[..part]);
            done += part;
            next = piece_end(next, layout);
        }
        AtHand::Seen(Prepare::parse(&whole.freeze()).map_or(Seen::Broken, Seen::Whole))
    }
}

/// Whether `child` names this op as the one before it.
fn is_parent(header: &PrepareHeader, child: &PrepareHeader) -> bool {
    header.op.next() == child.op && header.checksum == child.parent
}

#[expect(clippy::large_enum_variant, reason = "one at a time is made and looked at")]
enum AtHand {
    Seen(Seen),
    /// A piece is still being read.
    Coming,
    /// A piece could not be read.
    Never,
}

/// The piece that holds `place`: pieces are counted from the start of the segment.
fn piece_of(place: u64, layout: &Layout) -> u64 {
    let within = place % layout.segment_size;
    place - within % PIECE
}

/// The end of a piece: full length, or where the segment's room for prepares ends.
fn piece_end(piece: u64, layout: &Layout) -> u64 {
    let segment = piece / layout.segment_size;
    (piece + PIECE).min(segment * layout.segment_size + segment_room(layout))
}

fn piece_after(piece: u64, layout: &Layout) -> u64 {
    let segment = piece / layout.segment_size;
    let end = piece_end(piece, layout);
    if end == segment * layout.segment_size + segment_room(layout) {
        (segment + 1) * layout.segment_size
    } else {
        end
    }
}

impl Machine for Verifier {
    type Input = VerifyInput;
    type Output = VerifyOutput;

    fn on(&mut self, _: Now, input: VerifyInput, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        match input {
            VerifyInput::Start => {
                assert!(matches!(self.stage, Stage::New), "a log is verified once");
                for copy in 0..SUPERBLOCK_COPIES {
                    let place = Place::superblock(copy_offset(copy));
                    self.asks.read(io, place, SUPERBLOCK_COPY_SIZE, ReadFor::Superblock { copy });
                }
                self.stage = Stage::Superblock { left: SUPERBLOCK_COPIES };
            }
            VerifyInput::Event(Event::Read { token, result }) => {
                if let Some(purpose) = self.asks.take_read(token) {
                    self.on_read(purpose, result, io, out);
                }
            }
            VerifyInput::Event(_) => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }
}
