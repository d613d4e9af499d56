//! Finds prepares of sealed segments, by their footers.
//!
//! A few footers are kept in memory. One that turns out damaged is built again by walking its segment; the
//! ring helps past a damaged prepare if it still names it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Buf, Io, Place, ReadFault};
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{ClusterId, Layout, Op};
use kimberlite_wire::prepare::footer_size;
use kimberlite_wire::{Prepare, PrepareHeader};

use crate::asks::{Asks, ReadFor};
use crate::footer::{self, Footer, Row};
use crate::journal::Journal;
use crate::ring::Slot;
use crate::scout::{Scout, Seen};
use crate::{Damage, Output};

/// Footers kept in memory: 4 x 512 KiB at most, for a few readers that walk the log side by side.
const FOOTERS_MAX: usize = 4;

/// Who waits for a footer.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    /// A fetch of this op.
    Fetch { op: Op, checksum: Option<Checksum> },
    /// A prepare to be written again.
    Repair(Prepare),
}

impl Waiting {
    fn op(&self) -> Op {
        match self {
            Self::Fetch { op, .. } => *op,
            Self::Repair(prepare) => prepare.header.op,
        }
    }
}

/// Someone who waited, with where the op stands; none when nobody can tell any more.
pub(crate) type Found = (Waiting, Option<Row>);

#[derive(Debug)]
struct Rebuild {
    segment: u64,
    last: Op,
    scout: Scout,
    next: Op,
    place: u64,
    headers: Vec<PrepareHeader>,
}

/// The footers at hand and those that are waited for.
#[derive(Debug)]
pub(crate) struct Shelf {
    cluster: ClusterId,
    /// The most recently used one last.
    footers: Vec<Footer>,
    loading: BTreeMap<u64, Vec<Waiting>>,
    /// Segments whose footer is to be built again, one at a time, the front one now.
    broken: Vec<u64>,
    rebuild: Option<Rebuild>,
    /// Of segments whose footer cannot be built yet: the prepares that were written again since it was lost. The walk
    /// may not come to them for long, and they are not to be asked of peers once more each time they are looked for.
    mended: BTreeMap<u64, BTreeMap<Op, Row>>,
}

impl Shelf {
    pub(crate) fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            footers: Vec::new(),
            loading: BTreeMap::new(),
            broken: Vec::new(),
            rebuild: None,
            mended: BTreeMap::new(),
        }
    }

    pub(crate) fn pending(&self) -> usize {
        self.loading.values().map(Vec::len).sum()
    }

    /// Finds a sealed op. Answers at once when the footer is at hand.
    pub(crate) fn find(
        &mut self,
        waiting: Waiting,
        journal: &Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
    ) -> Option<Found> {
        let op = waiting.op();
        let (segment, _) = journal.sealed_segment(op).expect("only sealed ops are looked for here");
        if let Some(at) = self.footers.iter().position(|footer| footer.head.segment == segment) {
            kimberlite_probe::reachable!("shelf.has_footer");
            let footer = self.footers.remove(at);
            let row = footer.row(op).copied();
            self.footers.push(footer);
            return Some((waiting, row));
        }
        let queue = self.loading.entry(segment).or_default();
        queue.push(waiting);
        if queue.len() == 1 {
            let place = Place::log(footer::offset(segment, &journal.layout));
            let len = footer_size(&journal.layout) as usize;
            asks.read(io, place, len, ReadFor::Footer { segment });
        }
        None
    }

    /// A prepare is written again in a segment of which the footer is lost.
    pub(crate) fn mend(&mut self, header: &PrepareHeader, layout: &Layout) {
        let segment = header.place / layout.segment_size;
        if !self.mended.contains_key(&segment) && self.mended.len() == FOOTERS_MAX {
            self.mended.pop_first();
        }
        self.mended.entry(segment).or_default().insert(header.op, Row::of(header));
    }

    /// A footer was read.
    pub(crate) fn on_footer(
        &mut self,
        segment: u64,
        result: Result<Buf, ReadFault>,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) -> Vec<Found> {
        let first = journal.sealed_first(segment);
        let footer = result
            .ok()
            .and_then(|bytes| Footer::decode(&bytes, self.cluster, segment, &journal.layout))
            .filter(|footer| footer.head.first == first);
        if let Some(footer) = footer {
            return self.shelve(footer);
        }
        let place = Place::log(footer::offset(segment, &journal.layout));
        out.push(Output::Damaged { place, what: Damage::Footer, op: Some(first) });
        kimberlite_probe::reachable!("shelf.footer_is_broken");
        self.broken.push(segment);
        self.rebuild_next(journal, asks, io)
    }

    fn shelve(&mut self, footer: Footer) -> Vec<Found> {
        self.mended.remove(&footer.head.segment);
        let waiting = self.loading.remove(&footer.head.segment).unwrap_or_default();
        let found = waiting
            .into_iter()
            .map(|who| {
                let row = footer.row(who.op()).copied();
                (who, row)
            })
            .collect();
        if self.footers.len() == FOOTERS_MAX {
            self.footers.remove(0);
        }
        self.footers.push(footer);
        found
    }

    fn rebuild_next(&mut self, journal: &mut Journal, asks: &mut Asks, io: &mut dyn Io) -> Vec<Found> {
        let Some(segment) = self.broken.first().copied().filter(|_| self.rebuild.is_none()) else {
            return Vec::new();
        };
        let first = journal.sealed_first(segment);
        let (_, last) = journal.sealed_segment(first).expect("the segment is sealed");
        self.rebuild = Some(Rebuild {
            segment,
            last,
            scout: Scout::new(journal.layout),
            next: first,
            place: segment * journal.layout.segment_size,
            headers: Vec::new(),
        });
        self.step(None, journal, asks, io)
    }

    /// The rebuilding scout's read came back.
    pub(crate) fn on_walk(
        &mut self,
        result: Result<Buf, ReadFault>,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
    ) -> Vec<Found> {
        let rebuild = self.rebuild.as_mut().expect("the scout looks for a rebuild");
        match rebuild.scout.on_read(result, asks, io) {
            Some(seen) => self.step(Some(seen), journal, asks, io),
            None => Vec::new(),
        }
    }

    /// Walks on with what was seen.
    fn step(
        &mut self,
        mut seen: Option<Seen>,
        journal: &mut Journal,
        asks: &mut Asks,
        io: &mut dyn Io,
    ) -> Vec<Found> {
        let rebuild = self.rebuild.as_mut().expect("a rebuild is under way");
        loop {
            if let Some(seen) = seen.take() {
                let fits = |header: &PrepareHeader| {
                    header.op == rebuild.next
                        && header.place == rebuild.place
                        && rebuild.headers.last().is_none_or(|parent| parent.checksum == header.parent)
                };
                let header = match seen {
                    Seen::Whole(prepare) if fits(&prepare.header) => Some(prepare.header),
                    _ => match journal.ring.slot(rebuild.next) {
                        Slot::Header(header) if fits(&header) => Some(header),
                        _ => None,
                    },
                };
                let Some(header) = header else { break };
                rebuild.headers.push(header);
                rebuild.place = header.end();
                rebuild.next = rebuild.next.next();
            }
            if rebuild.next > rebuild.last {
                break;
            }
            match rebuild.scout.look(rebuild.place, asks, io) {
                Some(look) => seen = Some(look),
                None => return Vec::new(),
            }
        }
        self.finish(journal, asks, io)
    }

    /// Answers whoever waited: with a new footer, or, when a prepare and its footer are both lost, with as much as
    /// could be walked.
    fn finish(&mut self, journal: &mut Journal, asks: &mut Asks, io: &mut dyn Io) -> Vec<Found> {
        let rebuild = self.rebuild.take().expect("a rebuild is under way");
        self.broken.remove(0);
        let mut found = if rebuild.next > rebuild.last {
            let footer = Footer::of(&rebuild.headers, &journal.layout);
            let place = Place::log(footer::offset(rebuild.segment, &journal.layout));
            kimberlite_probe::reachable!("shelf.rebuilds");
            if !asks.overlaps(place, SECTOR_SIZE as u64) {
                journal.write_footer(&footer, asks, io);
            }
            self.shelve(footer)
        } else {
            kimberlite_probe::reachable!("shelf.rebuild_fails");
            let mended = self.mended.get(&rebuild.segment);
            let walked = |op: Op| {
                let passed = rebuild.headers.iter().find(|header| header.op == op).map(Row::of);
                passed.or_else(|| mended.and_then(|rows| rows.get(&op)).copied())
            };
            let mut waiting = self.loading.remove(&rebuild.segment).unwrap_or_default();
            if waiting.iter().all(|who| who.op() != rebuild.next) {
                // Nobody asked for the op that the walk cannot pass. The parent hears that it is damaged, too: when
                // it is written again, the next walk comes further.
                waiting.push(Waiting::Fetch { op: rebuild.next, checksum: None });
            }
            waiting
                .into_iter()
                .map(|who| {
                    let row = walked(who.op());
                    (who, row)
                })
                .collect()
        };
        found.append(&mut self.rebuild_next(journal, asks, io));
        found
    }
}
