//! Walks the whole log, read-only, and checks everything that can be checked without a peer.
//!
//! Every prepare: both checksums, cluster, op, parent, place, time, and each entry's place in the hash
//! chain. The log is read in large pieces, several ahead of the walk; where one cannot be read, the prepares in
//! it are read one by one. Where no further prepare is found, superblock and ring tell the end of the log from a
//! prepare that is lost, and both from one that was never received. Behind one that was not received, every op that
//! this replica holds for certain is checked one by one; its entries' hashes cannot be, for lack of the one before.
//!
//! A verifier with helpers walks by headers alone and hands out what they stand for, as [`Check`]s. Helpers can only say that
//! all is well so far: at the first doubt, be it a check that fails or a place where no next op is found, the walk goes
//! back to what is verified and goes on from there by itself. So both kinds come to the same verdict by the same code.
//!
//! | module | holds |
//! |---|---|
//! | `ahead` | pieces of the log, read ahead of the walk |
//! | `checks` | what helpers do |
//! | `behind` | what stands behind an op that was not received |

mod ahead;
mod behind;
mod checks;

use alloc::vec::Vec;
use core::fmt;

use kimberlite_crypto::{ChainHash, Checksum};
use kimberlite_io::{Buf, Event, Io, Machine, Place, ReadFault};
use kimberlite_types::limits::{SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{Config, Instant, Now, Op, View, WallTime};
use kimberlite_wire::{Prepare, PrepareHeader, UncheckedPrepare};
use serde::{Deserialize, Serialize};

use crate::HaltReason;
use crate::asks::{Asks, ReadFor};
use crate::decision::{Expect, Says};
use crate::footer::{self, Footer, FooterHead};
use crate::ring::{Ring, Slot};
use crate::scout::{Scout, Seen, places_after};
use crate::superblock::{Copies, CopyFault, Superblock, choose, copy_offset};
use ahead::{Ahead, AtHand};
use checks::{Checks, Progress, Standing};

pub use checks::{Check, Checked};

/// Bytes of the ring in one read.
const RING_READ: usize = 1 << 20;
/// Progress is told every so many bytes.
const PROGRESS_BYTES: u64 = 64 << 20;

/// All that can happen to a [`Verifier`].
#[derive(Clone, Debug)]
pub enum VerifyInput {
    /// Begin. The first input, once.
    Start,
    /// An answer to one of its asks.
    Event(Event),
    /// An answer to one of its checks. They may be answered in any order.
    Checked(Checked),
}

/// What a [`Verifier`] tells its parent. The last output is neither `Progress` nor `Check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyOutput {
    /// So much was verified.
    Progress(Totals),
    /// To be run by a helper, whose answer is an input. Only a verifier with helpers says this.
    Check(Check),
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
    /// The walk with helpers has come to where it must go on alone, and waits for them.
    Settle,
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
    ahead: Ahead,
    /// What helpers check; none: there are none, or none any more.
    checks: Option<Checks>,
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

/// What stands at the first of the places.
enum Stands {
    Unchecked(UncheckedPrepare),
    Whole(Prepare),
    Nothing,
}

impl Verifier {
    /// A machine that verifies the log of this replica. Send [`VerifyInput::Start`] first.
    pub fn new(config: Config) -> Self {
        Self::of(config, None)
    }

    /// The same, with helpers that run its checks: [`VerifyOutput::Check`] and [`VerifyInput::Checked`]. A check that is
    /// never answered keeps it waiting for ever.
    pub fn with_helpers(config: Config) -> Self {
        Self::of(config, Some(Checks::new()))
    }

    /// The same with checks of about so many bytes, of which so many may be outstanding.
    #[cfg(test)]
    pub(crate) fn with_checks_of(config: Config, check_bytes: u64, outstanding_bytes: u64) -> Self {
        Self::of(config, Some(Checks::of(check_bytes, outstanding_bytes)))
    }

    fn of(config: Config, checks: Option<Checks>) -> Self {
        let root = PrepareHeader::root(config.cluster);
        Self {
            stage: Stage::New,
            asks: Asks::default(),
            copies: [const { Err(CopyFault::Blank) }; SUPERBLOCK_COPIES],
            superblock: None,
            ring: Ring::unread(config.cluster, &config.layout),
            scout: Scout::new(config.layout),
            ahead: Ahead::new(config.layout),
            checks,
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
        self.ahead.clear();
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
            ReadFor::Ring { offset, len } => {
                let mut more = 0;
                match result {
                    Ok(bytes) => self.ring.load(offset, &bytes),
                    // Sector by sector, so that one that cannot be read hides no other.
                    Err(_) if len > SECTOR_SIZE => more = self.read_ring(offset, len, SECTOR_SIZE, io),
                    Err(_) => {}
                }
                let Stage::Ring { left } = &mut self.stage else { panic!("the ring is read second") };
                *left = *left + more - 1;
                if *left == 0 {
                    self.stage = Stage::Walk;
                    self.next_op();
                    self.walk(None, io, out);
                }
            }
            ReadFor::Ahead { offset } => {
                self.ahead.on_read(offset, result);
                if matches!(self.stage, Stage::Walk) && !self.scouting {
                    self.walk(None, io, out);
                }
            }
            ReadFor::Walk => {
                if let Some(seen) = self.scout.on_read(result, &mut self.asks, io) {
                    self.scouting = false;
                    match self.stage {
                        Stage::Behind { .. } => self.look_behind(Some(seen), io, out),
                        _ => self.walk(Some(stands(seen)), io, out),
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
        let size = self.config.layout.ring_size() as usize;
        let left = self.read_ring(0, size, RING_READ, io);
        self.stage = Stage::Ring { left };
    }

    /// Asks for `len` bytes of the ring, in reads of `part` bytes. Answers how many those are.
    fn read_ring(&mut self, offset: u64, len: usize, part: usize, io: &mut dyn Io) -> usize {
        let mut asked = 0;
        for start in (0..len).step_by(part) {
            let offset = offset + start as u64;
            let len = part.min(len - start);
            self.asks.read(io, Place::headers(offset), len, ReadFor::Ring { offset, len });
            asked += 1;
        }
        asked
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
        let op = self.parent.op.next();
        // Most slots say what is known, and then it does not matter whether they are intact.
        if self.ring.says_place(op) != self.tries[0]
            && let Slot::Header(named) = self.ring.slot(op)
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
    fn walk(&mut self, mut stands: Option<Stands>, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        loop {
            if let Some(stands) = stands.take() {
                self.judge(stands, io, out);
                if !matches!(self.stage, Stage::Walk) {
                    return;
                }
            }
            if self.checks.as_ref().is_some_and(Checks::is_enough) {
                return;
            }
            let place = self.tries[0];
            let segment = place / self.config.layout.segment_size;
            if place.is_multiple_of(self.config.layout.segment_size) && self.segment != Some(segment) {
                self.hand_out(out);
                self.segment = Some(segment);
                self.stage = Stage::End { segment };
                self.look_up_end(segment, io);
                return;
            }
            self.ahead.read(place, &mut self.asks, io);
            stands = match self.ahead.at_hand(place) {
                AtHand::Unchecked(prepare) => Some(self.maybe_checked(prepare)),
                AtHand::Nothing => Some(Stands::Nothing),
                AtHand::Coming => return self.hand_out(out),
                AtHand::Never if self.checks.is_some() => {
                    self.settle(out);
                    if !matches!(self.stage, Stage::Walk) {
                        return;
                    }
                    None
                }
                AtHand::Never => {
                    let seen = self.scout.look(place, &mut self.asks, io);
                    if seen.is_none() {
                        self.scouting = true;
                        return;
                    }
                    seen.map(self::stands)
                }
            };
        }
    }

    /// Who walks alone checks at once.
    fn maybe_checked(&self, prepare: UncheckedPrepare) -> Stands {
        if self.checks.is_some() {
            Stands::Unchecked(prepare)
        } else {
            prepare.check().map_or(Stands::Nothing, Stands::Whole)
        }
    }

    /// Judges what stands at the first of the places.
    fn judge(&mut self, stands: Stands, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        let expect = self.expect();
        self.tries.remove(0);
        match stands {
            Stands::Whole(prepare) if self.stands_right(&expect, &prepare.header) => {
                let header = prepare.header;
                let finding = if header.timestamp <= self.parent.timestamp {
                    Some(Wrong::Time)
                } else {
                    prepare.verify_chain(&self.parent.chain).err().map(|_| Wrong::Chain)
                };
                match finding {
                    None => {
                        self.take(&header);
                        self.tell(self.totals, out);
                    }
                    Some(what) => self.report(header.place, what, out),
                }
            }
            Stands::Unchecked(prepare) if self.stands_right(&expect, prepare.header()) => {
                if prepare.header().timestamp > self.parent.timestamp {
                    self.give(prepare, out);
                } else {
                    self.settle(out);
                }
            }
            _ if !self.tries.is_empty() => {}
            _ if self.checks.is_some() => self.settle(out),
            _ => self.end(&expect, io, out),
        }
    }

    fn stands_right(&self, expect: &Expect, header: &PrepareHeader) -> bool {
        expect.accepts(header)
            && (header.place, header.index) == self.parent.next_place(header.size, &self.config.layout)
    }

    /// The op is in order: the walk goes on behind it.
    fn take(&mut self, header: &PrepareHeader) {
        self.parent = *header;
        self.totals = Totals {
            op: header.op,
            entries: self.totals.entries + u64::from(header.entries),
            bytes: self.totals.bytes + u64::from(header.size),
            checksum: header.checksum,
            chain: header.chain,
            timestamp: header.timestamp,
        };
        self.next_op();
    }

    fn tell(&mut self, verified: Totals, out: &mut Vec<VerifyOutput>) {
        if verified.bytes >= self.told + PROGRESS_BYTES {
            self.told = verified.bytes;
            out.push(VerifyOutput::Progress(verified));
        }
    }

    // ── With helpers ────────────────────────────────────────────────────────────────────────────────────

    /// The header is in order; the rest is for a helper to check.
    fn give(&mut self, prepare: UncheckedPrepare, out: &mut Vec<VerifyOutput>) {
        let Self { parent, totals, segment, ends, .. } = *self;
        let from = Standing { parent, totals, segment, ends };
        let header = *prepare.header();
        self.take(&header);
        let checks = self.checks.as_mut().expect("there are helpers");
        checks.add(prepare, &from, self.totals);
        out.extend(checks.full().map(VerifyOutput::Check));
    }

    /// The walk does not go on at once: helpers may have what there is.
    fn hand_out(&mut self, out: &mut Vec<VerifyOutput>) {
        let check = self.checks.as_mut().and_then(Checks::flush);
        out.extend(check.map(VerifyOutput::Check));
    }

    /// What stands here is for the walk alone to judge, once the helpers are done.
    fn settle(&mut self, out: &mut Vec<VerifyOutput>) {
        self.hand_out(out);
        self.stage = Stage::Settle;
        self.settled();
    }

    fn settled(&mut self) {
        if self.checks.as_ref().is_some_and(Checks::is_done) {
            self.checks = None;
            self.stage = Stage::Walk;
            self.next_op();
        }
    }

    fn on_checked(&mut self, checked: Checked, io: &mut dyn Io, out: &mut Vec<VerifyOutput>) {
        let Some(checks) = &mut self.checks else { return };
        match checks.on_checked(checked) {
            Progress::Verified(verified) => {
                if let Some(totals) = verified {
                    self.tell(totals, out);
                }
                if matches!(self.stage, Stage::Settle) {
                    self.settled();
                }
            }
            Progress::Doubt(Standing { parent, totals, segment, ends }) => {
                self.checks = None;
                self.asks.forget();
                self.ahead.clear();
                (self.parent, self.totals, self.segment, self.ends) = (parent, totals, segment, ends);
                self.stage = Stage::Walk;
                self.next_op();
            }
        }
        if matches!(self.stage, Stage::Walk) {
            self.walk(None, io, out);
        }
    }

    // ── The end ─────────────────────────────────────────────────────────────────────────────────────────

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
}

fn stands(seen: Seen) -> Stands {
    match seen {
        Seen::Whole(prepare) => Stands::Whole(prepare),
        Seen::Broken | Seen::Absent => Stands::Nothing,
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
            VerifyInput::Checked(checked) => self.on_checked(checked, io, out),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }
}
