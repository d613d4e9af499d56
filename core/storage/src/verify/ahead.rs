//! Pieces of the log, read ahead of the walk into memory that is used again.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;

use kimberlite_io::{Buf, Frame, Io, Place, ReadFault, sectors};
use kimberlite_types::Layout;
use kimberlite_types::limits::PREPARE_HEADER_SIZE;
use kimberlite_wire::prepare::segment_room;
use kimberlite_wire::{PrepareHeader, UncheckedPrepare};

use crate::asks::{Asks, ReadFor};

/// Bytes of the log in one read. A prepare that spans two pieces is copied together, so a piece holds more than one of the
/// largest.
const PIECE: u64 = 2 << 20;
/// Pieces that are read ahead of the walk, the one it stands in included: 12 MiB in memory. A walk with helpers has
/// passed a piece as soon as it is there, so several others must be on their way by then.
const PIECES_AHEAD: usize = 6;
/// Memory behind the walk that is kept to be used again when whoever checks it has let go of it: as many pieces as helpers may hold,
/// and as many prepares that were copied together. New memory costs more than filling it: each of its pages faults.
const SPENT_MAX: usize = 8;

/// What the pieces at hand show at a place.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is made and looked at")]
pub(super) enum AtHand {
    /// A prepare with an intact header that belongs there.
    Unchecked(UncheckedPrepare),
    /// Anything else.
    Nothing,
    /// A piece is still being read.
    Coming,
    /// A piece could not be read.
    Never,
}

/// The pieces around the walk.
#[derive(Debug)]
pub(super) struct Ahead {
    layout: Layout,
    /// Pieces at hand, by offset; none: could not be read.
    pieces: BTreeMap<u64, Option<Frame>>,
    asked: BTreeSet<u64>,
    /// Memory for pieces.
    spent: Pool,
    /// Memory for prepares that span two pieces.
    joined: Pool,
}

/// Memory of one size, to be used again.
#[derive(Debug)]
struct Pool {
    len: usize,
    /// Each may still be looked at by others.
    spent: VecDeque<Frame>,
}

impl Pool {
    fn new(len: usize) -> Self {
        Self { len, spent: VecDeque::new() }
    }

    /// Takes memory back, in place of the oldest where there is enough.
    fn keep(&mut self, frame: Frame) {
        if frame.len() == self.len {
            self.spent.push_back(frame);
            if self.spent.len() > SPENT_MAX {
                self.spent.pop_front();
            }
        }
    }

    /// Memory that nobody looks at any more, or new.
    fn take(&mut self) -> Buf {
        for _ in 0..self.spent.len() {
            let Some(frame) = self.spent.pop_front() else { break };
            match frame.reclaim() {
                Ok(buf) => return buf,
                Err(frame) => self.spent.push_back(frame),
            }
        }
        Buf::zeroed(self.len)
    }
}

impl Ahead {
    pub(super) fn new(layout: Layout) -> Self {
        let joined = sectors(u64::from(layout.prepare_size_max)) as usize;
        Self {
            layout,
            pieces: BTreeMap::new(),
            asked: BTreeSet::new(),
            spent: Pool::new(PIECE as usize),
            joined: Pool::new(joined),
        }
    }

    /// Forgets everything, what was asked for included.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.layout);
    }

    /// A piece was read, or could not be.
    pub(super) fn on_read(&mut self, offset: u64, result: Result<Buf, ReadFault>) {
        self.asked.remove(&offset);
        self.pieces.insert(offset, result.ok().map(Buf::freeze));
    }

    /// Asks for the piece that holds `place` and those behind it, and forgets those in front of it.
    pub(super) fn read(&mut self, place: u64, asks: &mut Asks, io: &mut dyn Io) {
        let mut piece = piece_of(place, &self.layout);
        while let Some(oldest) = self.pieces.first_entry()
            && *oldest.key() < piece
        {
            if let Some(frame) = oldest.remove() {
                self.spent.keep(frame);
            }
        }
        for _ in 0..PIECES_AHEAD {
            if !self.pieces.contains_key(&piece) && self.asked.insert(piece) {
                let len = (piece_end(piece, &self.layout) - piece) as usize;
                let buf = if len == self.spent.len { self.spent.take() } else { Buf::zeroed(len) };
                asks.read_into(io, Place::log(piece), buf, ReadFor::Ahead { offset: piece });
            }
            piece = piece_after(piece, &self.layout);
        }
    }

    /// What stands at `place`, if the pieces at hand hold it.
    pub(super) fn at_hand(&mut self, place: u64) -> AtHand {
        let layout = &self.layout;
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
        let Ok(header) = PrepareHeader::decode(&rest) else { return AtHand::Nothing };
        let len = sectors(u64::from(header.size));
        let segment = place / layout.segment_size;
        let room_end = segment * layout.segment_size + segment_room(layout);
        if header.place != place || header.size > layout.prepare_size_max || place + len > room_end {
            return AtHand::Nothing;
        }
        if len as usize <= rest.len() {
            return unchecked(header, &rest);
        }
        let mut parts = vec![rest];
        let mut done = parts[0].len();
        let mut next = piece_end(piece, layout);
        while done < len as usize {
            let frame = match self.pieces.get(&next) {
                None => return AtHand::Coming,
                Some(None) => return AtHand::Never,
                Some(Some(frame)) => frame,
            };
            let part = frame.slice(0..frame.len().min(len as usize - done));
            done += part.len();
            parts.push(part);
            next = piece_end(next, layout);
        }
        let mut whole = self.joined.take();
        let mut done = 0;
        for part in parts {
            whole[done..done + part.len()].copy_from_slice(&part);
            done += part.len();
        }
        let whole = whole.freeze();
        self.joined.keep(whole.clone());
        unchecked(header, &whole.slice(0..done))
    }
}

fn unchecked(header: PrepareHeader, bytes: &Frame) -> AtHand {
    UncheckedPrepare::new(header, bytes).map_or(AtHand::Nothing, AtHand::Unchecked)
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
