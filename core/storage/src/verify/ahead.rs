//! Pieces of the log, read ahead of the walk into memory that is used again.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use kimberlite_io::{Buf, Frame, Io, Place, ReadFault, sectors};
use kimberlite_types::Layout;
use kimberlite_types::limits::PREPARE_HEADER_SIZE;
use kimberlite_wire::prepare::segment_room;
use kimberlite_wire::{PrepareHeader, UncheckedPrepare};

use crate::asks::{Asks, ReadFor};

/// Bytes of the log in one read. A prepare that spans two pieces is copied together, so a piece holds more than one of the
/// largest.
const PIECE: u64 = 2 << 20;
/// Pieces that are read ahead of the walk, the one it stands in included: 8 MiB in memory. A walk with helpers has
/// passed a piece as soon as it is there, so several others must be on their way by then.
const PIECES_AHEAD: usize = 4;
/// Pieces behind the walk whose memory is kept to be used again, if whoever checks them has let go of it by then.
const SPENT_MAX: usize = 4;

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
    spent: Vec<Frame>,
}

impl Ahead {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, pieces: BTreeMap::new(), asked: BTreeSet::new(), spent: Vec::new() }
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
            self.spent.extend(oldest.remove());
        }
        for _ in 0..PIECES_AHEAD {
            if !self.pieces.contains_key(&piece) && self.asked.insert(piece) {
                let len = (piece_end(piece, &self.layout) - piece) as usize;
                let buf = self.memory(len);
                asks.read_into(io, Place::log(piece), buf, ReadFor::Ahead { offset: piece });
            }
            piece = piece_after(piece, &self.layout);
        }
        let surplus = self.spent.len().saturating_sub(SPENT_MAX);
        self.spent.drain(..surplus);
    }

    /// Memory for a read: of a piece that nobody looks at any more, if there is one.
    fn memory(&mut self, len: usize) -> Buf {
        let mut held = Vec::new();
        let mut found = None;
        for frame in self.spent.drain(..) {
            match frame.reclaim() {
                Ok(buf) if found.is_none() && buf.len() == len => found = Some(buf),
                // Another one that is free stays for the next read.
                Ok(buf) => held.push(buf.freeze()),
                Err(frame) => held.push(frame),
            }
        }
        self.spent = held;
        found.unwrap_or_else(|| Buf::zeroed(len))
    }

    /// What stands at `place`, if the pieces at hand hold it.
    pub(super) fn at_hand(&self, place: u64) -> AtHand {
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
        unchecked(header, &whole.freeze())
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
