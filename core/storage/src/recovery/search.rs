//! The search of holes and gaps: what the walk cannot reach, because it stands behind a damaged prepare whose size nobody
//! knows.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kimberlite_io::{Place, sectors};
use kimberlite_probe::mutant;
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{Layout, Op};
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::message::Mark;
use kimberlite_wire::prepare::segment_room;

use super::Opening;
use crate::journal::{Journal, State};
use crate::ring::Slot;
use crate::scout::Seen;

/// A search, sector by sector: what cannot be walked to may stand there all the same, behind a damaged prepare
/// whose size nobody knows.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) what: Search,
    /// Where to look next.
    pub(super) place: u64,
    /// Where to stop: where the adopted headers or the next known op begin, or as far as a lost one can reach.
    pub(super) end: u64,
    /// What was found, by op.
    pub(super) found: BTreeMap<Op, Vec<PrepareHeader>>,
}

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The hole in front of the adopted headers, whole.
    Hole,
    /// The gap behind a lost op, up to the first op of the log.
    Gap,
}

impl Opening {
    /// The log does not lead up to the adopted headers. What stands in front of them may be what a view change
    /// cut elsewhere; only what is proven to be committed is kept. The rest of the hole is searched.
    pub(super) fn open_hole(&mut self, journal: &mut Journal) {
        let first = self.superblock().state.headers[0];
        let mut proven = self.proven;
        if mutant!(HoleFrontTrusted, self.cursor.previous() > proven) {
            proven = self.cursor.previous();
        }
        // What contradicts the adopted headers was dropped the first time, or is proven to be committed: then those cannot be.
        assert_eq!(self.hole, None, "a hole in front of op {} is opened once", first.op);
        self.hole = Some((proven.next(), first.op.previous()));
        self.solid = false;
        // The search begins behind what is proven: where the walk went astray, an older log led it.
        let place = match journal.entry(proven) {
            Some(entry) => entry.header.end(),
            None => journal.sealed_count() * self.config.layout.segment_size,
        };
        let mut found: BTreeMap<Op, Vec<PrepareHeader>> = BTreeMap::new();
        for header in journal.drop_between(proven, first.op) {
            kimberlite_probe::reachable!("open.hole");
            found.entry(header.op).or_default().push(header);
        }
        journal.doubt_ring(proven, first.op);
        self.settle.retain(|op| *op <= proven || *op >= first.op);
        self.scan = Some(Scan { what: Search::Hole, place, end: first.place, found });
    }

    /// An op behind the adopted headers is lost together with its header. The search goes up to the next op that its slot
    /// names; without one, as far as ops that may have been acknowledged can reach.
    pub(super) fn open_gap(&mut self, place: Place, journal: &Journal) {
        let Layout { ring_slots, prepare_size_max, segment_size, .. } = self.config.layout;
        let log_view = self.superblock().state.log_view;
        let last = journal.ring.doubt_behind(self.cursor.previous(), log_view);
        self.solid = false;
        kimberlite_probe::reachable!("open.gap");
        self.lost.push((self.cursor, place));
        self.denied = journal.ring.denied_behind(self.cursor, log_view);
        let named = journal.ring.lowest_behind(self.cursor, log_view);
        self.anchor = named.filter(|header| header.op < self.denied && journal.fits_segment(header));
        // Prepares leave at most half of a segment unused: the next one did not fit.
        let ops = (last.0 - self.cursor.0 + 1).min(u64::from(ring_slots));
        let reach =
            ops.saturating_mul(2 * sectors(u64::from(prepare_size_max))).saturating_add(2 * segment_size);
        let end = self.anchor.map_or(place.offset.saturating_add(reach), |anchor| anchor.place);
        self.scan = Some(Scan { what: Search::Gap, place: place.offset, end, found: BTreeMap::new() });
    }

    /// Goes on behind a gap. Answers whether there is nothing to go on with: then the log's end is not known.
    pub(super) fn finish_gap(&mut self, journal: &mut Journal) -> bool {
        let scan = self.scan.take().expect("a gap was searched");
        let first = scan.found.into_values().flatten().next();
        self.anchor = first.or(self.anchor);
        let Some(anchor) = self.anchor else {
            kimberlite_probe::reachable!("open.gap_has_no_end");
            self.end_unknown = true;
            return true;
        };
        kimberlite_probe::reachable!("open.goes_on_behind_gap");
        let (from, _) = self.gap.unwrap_or((self.cursor, self.cursor));
        self.gap = Some((from, anchor.op.previous()));
        assert!(anchor.op > self.cursor, "the walk goes on behind a gap");
        self.cursor = anchor.op;
        self.parent = None;
        self.next_op(journal);
        false
    }

    /// The next place of the hole to look at; none when it is searched.
    pub(super) fn scan_place(&mut self) -> Option<u64> {
        let layout = &self.config.layout;
        let scan = self.scan.as_mut().expect("a hole is being searched");
        if scan.place % layout.segment_size >= segment_room(layout) {
            scan.place = (scan.place / layout.segment_size + 1) * layout.segment_size;
        }
        (scan.place < scan.end).then_some(scan.place)
    }

    pub(super) fn scanned(&mut self, seen: &Seen) {
        let (first, _) = self.adopted();
        let range = self.proven.next()..first;
        let cluster = self.config.cluster;
        let log_view = self.superblock().state.log_view;
        let behind =
            self.cursor.next()..self.anchor.map_or(Op(self.denied.0.saturating_add(1)), |anchor| anchor.op);
        let scan = self.scan.as_mut().expect("a hole is being searched");
        match seen {
            Seen::Whole(prepare) => {
                let header = prepare.header;
                let here = header.cluster == cluster
                    && match scan.what {
                        Search::Hole => range.contains(&header.op),
                        Search::Gap => behind.contains(&header.op) && header.view == log_view,
                    };
                if here {
                    scan.found.entry(header.op).or_default().push(header);
                }
                scan.place = if here && scan.what == Search::Gap { scan.end } else { header.end() };
            }
            Seen::Broken => {
                kimberlite_probe::reachable!("open.scans_over_damage");
                scan.place += SECTOR_SIZE as u64;
            }
            Seen::Absent => scan.place = scan.end,
        }
    }

    /// Keeps what the adopted headers lead down to, parent by parent, and what may yet turn out to be of this
    /// log.
    pub(super) fn finish_scan(&mut self, journal: &mut Journal) {
        let mut found = self.scan.take().expect("a hole was searched").found;
        let mut child = self.superblock().state.headers[0];
        let mut kept = Vec::new();
        while child.op.previous() > self.proven {
            let op = child.op.previous();
            let here = found.get(&op).and_then(|here| here.iter().find(|it| it.checksum == child.parent));
            let (header, state) = match (here, journal.ring.slot(op)) {
                (Some(header), _) => (*header, State::Durable),
                // Damaged, but its slot still tells what it is and so what stands below it.
                (None, Slot::Header(named)) if named.op == op && named.checksum == child.parent => {
                    (named, State::Missing(Mark::Unknown))
                }
                _ => break,
            };
            child = header;
            kept.push((header, state));
        }
        for (header, state) in kept.into_iter().rev() {
            found.remove(&header.op);
            journal.found(header, state);
            let named = match journal.ring.slot(header.op) {
                Slot::Header(named) => named == header || named.op > header.op,
                Slot::Sealed(op) => op > header.op,
                Slot::Reserved | Slot::Bad => false,
            };
            if !named {
                self.settle.push_back(header.op);
            }
        }
        for header in found.into_values().flatten() {
            journal.doubtful.insert(header);
        }
        let below = journal.entry(child.op.previous()).map(|entry| entry.header.checksum);
        self.solid = below == Some(child.parent) || journal.sealed_leads_to(&child);
        kimberlite_probe::sometimes!("open.hole_closes", self.solid);
        self.cursor = self.adopted().0;
        self.parent = journal.entry(self.cursor.previous()).map(|entry| entry.header);
        self.next_op(journal);
    }
}
