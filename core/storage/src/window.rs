//! Reads the log ahead of someone who fetches op after op, as a replica does that replays its log.
//!
//! A small read costs the disk nearly as much as a large one, so once fetches have followed each other for a
//! while, a window of the log is read at once and the next fetches are answered from it. Bytes from a window are
//! judged like those of a read of one's own: by the checksum that is expected. When they do not have it, or the
//! window cannot be read, the place is read alone. So one bad sector takes no neighbour with it, and what
//! was overwritten since the window was read is never mistaken for damage.

use alloc::vec::Vec;

use kimberlite_io::{Buf, Frame, ReadFault};
use kimberlite_types::Layout;
use kimberlite_wire::prepare::segment_room;

/// Bytes of a window. 64 prepares of one sector; a disk takes little longer for it than for one of them.
const WINDOW_SIZE: u64 = 256 << 10;

/// Fetches that follow each other before a window is read for the next: whoever wants a few ops is not made to
/// wait for many.
const FOLLOWS_MIN: u32 = 8;

/// How a fetch gets its bytes.
#[derive(Debug)]
pub(crate) enum Way {
    /// They are at hand.
    Here(Frame),
    /// They are being read; [`Window::arrived`] names the fetch.
    Coming,
    /// Read so many bytes from the fetch's place on, and tell [`Window::arrived`], which names the fetch.
    Ahead(usize),
    /// Read them alone.
    Alone,
}

#[derive(Debug, Default)]
enum Bytes {
    #[default]
    None,
    /// Being read, for these fetches.
    Coming(Vec<u64>),
    Here(Frame),
}

/// The part of the log at hand, and where the last fetch ended.
#[derive(Debug)]
pub(crate) struct Window {
    layout: Layout,
    start: u64,
    len: u64,
    bytes: Bytes,
    /// Behind the prepare that was fetched last.
    next: u64,
    /// Fetches in a row, each of what stands behind the one before.
    follows: u32,
}

impl Window {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, start: 0, len: 0, bytes: Bytes::None, next: 0, follows: 0 }
    }

    /// How the fetch `id` of the prepare at `place`, of `len` bytes in whole sectors, gets its bytes.
    pub(crate) fn way(&mut self, id: u64, place: u64, len: u64) -> Way {
        let size = self.layout.segment_size;
        let behind =
            place == self.next || (place.is_multiple_of(size) && place / size == self.next / size + 1);
        self.follows = if behind { self.follows.saturating_add(1) } else { 0 };
        self.next = place + len;
        let inside = place >= self.start && place + len <= self.start + self.len;
        match &mut self.bytes {
            Bytes::Coming(waiting) if inside => {
                waiting.push(id);
                Way::Coming
            }
            Bytes::Here(frame) if inside => {
                let start = (place - self.start) as usize;
                Way::Here(frame.slice(start..start + len as usize))
            }
            Bytes::Coming(_) => Way::Alone,
            Bytes::None | Bytes::Here(_) => self.look_ahead(id, place, len),
        }
    }

    fn look_ahead(&mut self, id: u64, place: u64, len: u64) -> Way {
        let segment = place / self.layout.segment_size;
        let room = (segment * self.layout.segment_size + segment_room(&self.layout)).saturating_sub(place);
        let window = WINDOW_SIZE.min(room);
        // A window that holds no second prepare of this size saves no read.
        if self.follows < FOLLOWS_MIN || window < 2 * len {
            return Way::Alone;
        }
        (self.start, self.len, self.bytes) = (place, window, Bytes::Coming(alloc::vec![id]));
        Way::Ahead(window as usize)
    }

    /// The window was read, or not. Answers the fetches that wait for it.
    pub(crate) fn arrived(&mut self, result: Result<Buf, ReadFault>) -> Vec<u64> {
        let bytes = if let Ok(buf) = result {
            Bytes::Here(buf.freeze())
        } else {
            // Here, at least, small reads come further.
            self.follows = 0;
            Bytes::None
        };
        match core::mem::replace(&mut self.bytes, bytes) {
            Bytes::Coming(waiting) => waiting,
            Bytes::None | Bytes::Here(_) => unreachable!("one window is read at a time"),
        }
    }

    /// The bytes of a fetch that waited, if the window came.
    pub(crate) fn part(&self, place: u64, len: u64) -> Option<Frame> {
        let Bytes::Here(frame) = &self.bytes else { return None };
        let start = (place - self.start) as usize;
        Some(frame.slice(start..start + len as usize))
    }
}
