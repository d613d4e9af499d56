//! Keeps the superblock: writes its copies one after another, one superblock at a time.

use kimberlite_io::{Io, Place};
use kimberlite_probe::mutant;
use kimberlite_types::limits::SUPERBLOCK_COPIES;
use kimberlite_wire::message::HEADERS_MAX;

use crate::ViewState;
use crate::asks::{Asks, WriteFor};
use crate::superblock::{Superblock, copy_offset};

#[derive(Debug)]
struct Writing {
    superblock: Superblock,
    /// The copy that is being written; those before it are durable.
    copy: usize,
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
            kimberlite_probe::reachable!("view.queued");
            self.queued = Some(state);
        } else {
            self.begin(state, asks, io);
        }
    }

    fn begin(&mut self, state: ViewState, asks: &mut Asks, io: &mut dyn Io) {
        let superblock = self.durable.next(state);
        write_copy(&superblock, 0, asks, io);
        self.writing = Some(Writing { superblock, copy: 0 });
    }

    /// A copy is durable. Answers the state that was durable before, when that makes a new one durable.
    pub(crate) fn copy_written(
        &mut self,
        copy: usize,
        asks: &mut Asks,
        io: &mut dyn Io,
    ) -> Option<ViewState> {
        let mut writing = self.writing.take().expect("copies are written for a state on its way");
        assert!(writing.copy == copy, "copies are written one after another");
        writing.copy += 1;
        if writing.copy < SUPERBLOCK_COPIES {
            write_copy(&writing.superblock, writing.copy, asks, io);
            self.writing = Some(writing);
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

/// Writes one copy of a superblock. The next waits until it is durable.
pub(crate) fn write_copy(superblock: &Superblock, copy: usize, asks: &mut Asks, io: &mut dyn Io) {
    let (mut data, _) = superblock.encode();
    if mutant!(LogViewWithoutHeaders, superblock.state.headers.len() > 1) {
        let mut bare = superblock.clone();
        bare.state.headers.truncate(1);
        (data, _) = bare.encode();
    }
    asks.write(io, Place::superblock(copy_offset(copy)), data.freeze(), WriteFor::Superblock { copy });
}
