//! The machine: routes inputs to the parts.

use alloc::vec::Vec;

use kimberlite_io::{Io, Machine};
use kimberlite_types::{Config, Instant, Now, Op};
use kimberlite_wire::PrepareHeader;

use crate::{Input, Output};

/// Superblock and journal of one replica.
#[derive(Debug)]
pub struct Storage {
    config: Config,
    head: PrepareHeader,
}

impl Storage {
    /// A machine that has not opened its data directory yet. Send [`Input::Start`] first.
    pub fn new(config: Config) -> Self {
        Self { head: PrepareHeader::root(config.cluster), config }
    }

    /// The head of the log: the last op the journal names, durable or not. The root while it is not open.
    pub fn head(&self) -> &PrepareHeader {
        &self.head
    }

    /// The header of a recent op: one not sealed yet, or one of the last few. None for ops the journal does
    /// not name, and for ops so old that only the disk knows them.
    pub fn header(&self, op: Op) -> Option<PrepareHeader> {
        let _ = (op, self.config);
        None
    }

    /// Inputs that were accepted and not answered yet: appends, fetches and a view.
    pub fn pending(&self) -> usize {
        0
    }

    /// Asks to the disk that were not answered yet.
    pub fn in_flight(&self) -> usize {
        0
    }
}

impl Machine for Storage {
    type Input = Input;
    type Output = Output;

    fn on(&mut self, _: Now, _: Input, _: &mut dyn Io, _: &mut Vec<Output>) {}

    fn wake_at(&self) -> Option<Instant> {
        None
    }
}
