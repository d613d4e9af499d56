//! Keeps the superblock: writes its copies one after another, one superblock at a time.

use kimberlite_io::{Io, Place};
use kimberlite_probe::mutant;
use kimberlite_types::limits::SUPERBLOCK_COPIES;
use kimberlite_wire::message::HEADERS_MAX;

use crate::asks::{Asks, WriteFor};
use crate::superblock::{Superblock, copy_offset};
use crate::{CheckpointName, ViewState};

#[derive(Debug)]
struct Writing {
    superblock: Superblock,
    /// The copy that is being written; those before it are durable.
    copy: usize,
    /// What was asked for: a view, a checkpoint, or both.
    view: bool,
    checkpoint: bool,
}

/// A superblock has become durable.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The view state before, if a view was asked for.
    pub(crate) view: Option<ViewState>,
    /// Whether a checkpoint was to be named, or none any more.
    pub(crate) checkpoint: bool,
}

/// The superblock that is durable, the one on its way, and what comes after that.
#[derive(Debug)]
pub(crate) struct ViewKeeper {
    durable: Superblock,
    writing: Option<Writing>,
    queued: Option<ViewState>,
    /// The checkpoint that is to be named, or none.
    #[expect(clippy::option_option, reason = "to name none is something to do, too")]
    naming: Option<Option<CheckpointName>>,
}

impl ViewKeeper {
    pub(crate) fn new(durable: Superblock) -> Self {
        Self { durable, writing: None, queued: None, naming: None }
    }

    /// The durable state.
    pub(crate) fn state(&self) -> &ViewState {
        &self.durable.state
    }

    /// The checkpoint that is durably named.
    pub(crate) fn checkpoint(&self) -> Option<&CheckpointName> {
        self.durable.checkpoint.as_ref()
    }

    /// Whether a view is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.queued.is_some() || self.writing.as_ref().is_some_and(|writing| writing.view)
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
        }
        self.queued = Some(state);
        self.begin_queued(asks, io);
    }

    /// Names a checkpoint whose pages are durable, or none.
    pub(crate) fn name(&mut self, checkpoint: Option<CheckpointName>, asks: &mut Asks, io: &mut dyn Io) {
        kimberlite_probe::sometimes!("view.naming_waits", self.writing.is_some());
        self.naming = Some(checkpoint);
        self.begin_queued(asks, io);
    }

    /// A copy is durable. Answers what changed, when that makes a new superblock durable.
    pub(crate) fn copy_written(&mut self, copy: usize, asks: &mut Asks, io: &mut dyn Io) -> Option<Changed> {
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
        Some(Changed { view: writing.view.then_some(before.state), checkpoint: writing.checkpoint })
    }

    /// Begins what is queued, if anything is and nothing is being written. To be asked when a superblock has become durable.
    pub(crate) fn begin_queued(&mut self, asks: &mut Asks, io: &mut dyn Io) {
        if self.writing.is_some() || (self.queued.is_none() && self.naming.is_none()) {
            return;
        }
        let (view, checkpoint) = (self.queued.is_some(), self.naming.is_some());
        kimberlite_probe::sometimes!("view.with_checkpoint", view && checkpoint);
        let state = self.queued.take().unwrap_or_else(|| self.durable.state.clone());
        let name = self.naming.take().unwrap_or(self.durable.checkpoint);
        let superblock = self.durable.next(state, name);
        write_copy(&superblock, 0, asks, io);
        self.writing = Some(Writing { superblock, copy: 0, view, checkpoint });
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
