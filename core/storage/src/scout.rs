//! Looks at prepares in the log, one after the other, by large reads.
//!
//! A scout is asked about one place at a time. It keeps the bytes of its last read, so a walk costs one
//! read for as many prepares as fit in it. When a large read fails, the place is read alone: first
//! its header, then as much as that says; so one bad sector takes no neighbour with it.

use alloc::vec::Vec;

use kimberlite_io::{Buf, Frame, Io, Place, ReadFault, sectors};
use kimberlite_types::Layout;
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_wire::prepare::segment_room;
use kimberlite_wire::{Prepare, PrepareHeader};

use crate::asks::{Asks, ReadFor};

/// What stands at a place.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is made and looked at")]
pub(crate) enum Seen {
    /// A whole prepare that says it belongs there.
    Whole(Prepare),
    /// Anything else.
    Broken,
    /// Nothing was ever written there: the log's files end in front of it.
    Absent,
}

/// One look at one place.
#[derive(Clone, Copy, Debug)]
struct Look {
    place: u64,
    /// Bytes asked for last; none when the chunk at hand is tried first.
    asked: Option<usize>,
    /// Whether large reads have failed here.
    careful: bool,
}

/// Walks the log for someone.
#[derive(Debug)]
pub(crate) struct Scout {
    layout: Layout,
    chunk: Option<(u64, Frame)>,
    look: Option<Look>,
}

impl Scout {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, chunk: None, look: None }
    }

    /// Looks at `place`. Answers at once when the bytes are at hand; otherwise a read was asked, whose
    /// answer goes to [`Scout::on_read`].
    pub(crate) fn look(&mut self, place: u64, asks: &mut Asks, io: &mut dyn Io) -> Option<Seen> {
        assert!(self.look.is_none(), "a scout looks at one place at a time");
        self.look = Some(Look { place, asked: None, careful: false });
        self.judge(asks, io)
    }

    /// The read came back.
    pub(crate) fn on_read(
        &mut self,
        result: Result<Buf, ReadFault>,
        asks: &mut Asks,
        io: &mut dyn Io,
    ) -> Option<Seen> {
        let look = self.look.as_mut().expect("a read was asked for a look");
        match result {
            Ok(buf) => {
                self.chunk = Some((look.place, buf.freeze()));
                self.judge(asks, io)
            }
            Err(_) if !look.careful && look.asked != Some(SECTOR_SIZE) => {
                kimberlite_probe::reachable!("scout.looks_closer");
                look.careful = true;
                look.asked = Some(SECTOR_SIZE);
                asks.read(io, Place::log(look.place), SECTOR_SIZE, ReadFor::Walk);
                None
            }
            Err(fault) => {
                self.look = None;
                Some(if fault == ReadFault::Absent { Seen::Absent } else { Seen::Broken })
            }
        }
    }

    /// Looks into the bytes at hand, or asks for more.
    fn judge(&mut self, asks: &mut Asks, io: &mut dyn Io) -> Option<Seen> {
        let look = self.look.as_mut().expect("there is a place to look at");
        let place = look.place;
        // Bytes from there to the end of the segment's room for prepares.
        let segment = place / self.layout.segment_size;
        let end = segment * self.layout.segment_size + segment_room(&self.layout);
        let room = end.saturating_sub(place) as usize;
        if room == 0 {
            self.look = None;
            return Some(Seen::Broken);
        }
        let at_hand = self.chunk.as_ref().and_then(|(start, frame)| {
            let offset = usize::try_from(place.checked_sub(*start)?).ok()?;
            (offset + SECTOR_SIZE <= frame.len()).then(|| frame.slice(offset..frame.len()))
        });
        let Some(bytes) = at_hand else {
            let len = room.min(self.layout.prepare_size_max as usize);
            look.asked = Some(len);
            asks.read(io, Place::log(place), len, ReadFor::Walk);
            return None;
        };
        let seen = match PrepareHeader::decode(&bytes) {
            Ok(header) if header.place == place && header.size <= self.layout.prepare_size_max => {
                let len = sectors(u64::from(header.size)) as usize;
                if len > bytes.len() && len <= room && look.asked != Some(len) {
                    kimberlite_probe::reachable!("scout.reads_rest");
                    look.asked = Some(len);
                    look.careful = true;
                    asks.read(io, Place::log(place), len, ReadFor::Walk);
                    return None;
                }
                Prepare::parse(&bytes).map_or(Seen::Broken, Seen::Whole)
            }
            _ => Seen::Broken,
        };
        self.look = None;
        Some(seen)
    }

    /// Forgets the bytes at hand: the log may change from here on.
    pub(crate) fn rest(&mut self) {
        self.chunk = None;
    }
}

/// The places where the successor of `parent` may stand, in the order in which to look.
pub(crate) fn places_after(parent: &PrepareHeader, layout: &Layout) -> Vec<u64> {
    let (behind, _) = parent.next_place(1, layout);
    let next = (parent.place / layout.segment_size + 1) * layout.segment_size;
    if parent.op.0 == 0 {
        alloc::vec![0]
    } else if behind == next {
        alloc::vec![next]
    } else {
        alloc::vec![behind, next]
    }
}
