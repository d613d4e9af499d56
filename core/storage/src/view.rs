//! Keeps the superblock: writes its copies in two halves, one superblock at a time.

use alloc::vec::Vec;

use kimberlite_io::{Io, Place};
use kimberlite_wire::message::HEADERS_MAX;

use crate::ViewState;
use crate::asks::{Asks, WriteFor};
use crate::superblock::{Superblock, copy_offset};

/// The copies that are written first, and those that are written when the first are durable.
const HALVES: [[usize; 2]; 2] = [[0, 1], [2, 3]];

#[derive(Debug)]
struct Writing {
    superblock: Superblock,
    half: usize,
    left: usize,
}

/// The superblock that is durable, the one on its way, and the state that comes after that.
#[derive(Debug)]
pub(crate) struct ViewKeeper {
    durable: Superblock,
    writing: Option<Writing>,
    queued: Option<ViewState>,
}

impl ViewKeeper {
    pub(crate) fn new(durable: Superblock) -> Self {
        Self { durable, writing: None, queued: None }
    }

    /// The durable state.
    pub(crate) fn state(&self) -> &ViewState {
        &self.durable.state
    }

    /// Whether a state is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    /// States on their way: at most one being written and one queued.
    pub(crate) fn pending(&self) -> usize {
        usize::from(self.writing.is_some()) + usize::from(self.queued.is_some())
    }

    /// Takes a state: begins to write it, or lets it supersede the one that is queued.
    pub(crate) fn persist(&mut self, state: ViewState, asks: &mut Asks, io: &mut dyn Io) {
        let latest = match (&self.queued, &self.writing) {
            (Some(queued), _) => queued,
            (None, Some(writing)) => &writing.superblock.state,
            (None, None) => &self.durable.state,
        };
        assert!(state.view >= latest.view && state.log_view >= latest.log_view, "views never go back");
        assert!(state.log_view <= state.view, "a log is adopted in a view that was entered");
        assert!(
            !state.headers.is_empty() && state.headers.len() <= HEADERS_MAX,
            "1 to {HEADERS_MAX} headers"
        );
        assert!(
            state
                .headers
                .windows(2)
                .all(|pair| pair[1].op == pair[0].op.next() && pair[1].parent == pair[0].checksum),
            "adopted headers chain"
        );
        let state = ViewState { commit: state.commit.max(latest.commit), ..state };
        if self.writing.is_some() {
            self.queued = Some(state);
        } else {
            self.begin(state, asks, io);
        }
    }

    fn begin(&mut self, state: ViewState, asks: &mut Asks, io: &mut dyn Io) {
        let superblock = self.durable.next(state);
        self.write_half(superblock, 0, asks, io);
    }

    fn write_half(&mut self, superblock: Superblock, half: usize, asks: &mut Asks, io: &mut dyn Io) {
        let copies = HALVES[half];
        write_copies(&superblock, &copies, asks, io);
        self.writing = Some(Writing { superblock, half, left: copies.len() });
    }

    /// A copy is durable. Answers the state that was durable before, when that makes a new one durable.
    pub(crate) fn copy_written(&mut self, asks: &mut Asks, io: &mut dyn Io) -> Option<ViewState> {
        let mut writing = self.writing.take().expect("copies are written for a state on its way");
        writing.left -= 1;
        if writing.left > 0 {
            self.writing = Some(writing);
            return None;
        }
        if writing.half + 1 < HALVES.len() {
            self.write_half(writing.superblock, writing.half + 1, asks, io);
            return None;
        }
        let before = core::mem::replace(&mut self.durable, writing.superblock);
        assert!(self.durable.sequence == before.sequence + 1, "superblocks follow one another");
        Some(before.state)
    }

    /// Begins the queued state, if there is one. To be asked when a state has become durable.
    pub(crate) fn begin_queued(&mut self, asks: &mut Asks, io: &mut dyn Io) {
        if let Some(state) = self.queued.take() {
            self.begin(state, asks, io);
        }
    }
}

/// Writes these copies of a superblock.
pub(crate) fn write_copies(superblock: &Superblock, copies: &[usize], asks: &mut Asks, io: &mut dyn Io) {
    let data = superblock.encode().0.freeze();
    let copies: Vec<usize> = copies.to_vec();
    for copy in copies {
        asks.write(io, Place::superblock(copy_offset(copy)), data.clone(), WriteFor::Superblock { copy });
    }
}
