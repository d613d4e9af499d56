//! The newest headers of the log, and what this replica holds of each.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_probe::mutant;
use kimberlite_types::Op;
use kimberlite_types::limits::HEADER_WINDOW;
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::message::{HEADERS_MAX, Mark};

/// What this replica holds of an op that its log names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Only the header. Never acknowledged.
    Missing,
    /// The copy on disk is damaged; it may have been acknowledged.
    Damaged,
    /// The prepare, on its way to the disk. Not acknowledged yet.
    Writing,
    /// The prepare, durably.
    Durable,
}

impl Held {
    /// What a `DoViewChange` says of it.
    pub(crate) fn mark(self) -> Mark {
        match self {
            Self::Missing => Mark::Nack,
            Self::Damaged if mutant!(CorruptNacked) => Mark::Nack,
            Self::Damaged => Mark::Unknown,
            Self::Writing | Self::Durable => Mark::Present,
        }
    }

    /// Whether the prepare is to be had from a peer.
    pub(crate) const fn is_lacking(self) -> bool {
        matches!(self, Self::Missing | Self::Damaged)
    }
}

/// One op of the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) header: PrepareHeader,
    pub(crate) held: Held,
}

/// The window: headers without gaps, each the parent of the next, the last being the head of the log.
/// Never empty: the root stands in it while the log is short.
pub(crate) struct Log {
    slots: VecDeque<Slot>,
}

impl Log {
    pub(crate) fn new(headers: &[(PrepareHeader, Mark)]) -> Self {
        assert!(!headers.is_empty(), "a log has at least its root");
        let slots = headers
            .iter()
            .map(|(header, mark)| {
                let held = match mark {
                    Mark::Present => Held::Durable,
                    Mark::Nack => Held::Missing,
                    Mark::Unknown => Held::Damaged,
                };
                Slot { header: *header, held }
            })
            .collect();
        let log = Self { slots };
        log.check();
        log
    }

    pub(crate) fn head(&self) -> &PrepareHeader {
        &self.slots.back().expect("never empty").header
    }

    /// The lowest op of the window.
    pub(crate) fn first(&self) -> Op {
        self.slots.front().expect("never empty").header.op
    }

    pub(crate) fn get(&self, op: Op) -> Option<&Slot> {
        let index = op.0.checked_sub(self.first().0)?;
        self.slots.get(usize::try_from(index).ok()?)
    }

    fn get_mut(&mut self, op: Op) -> Option<&mut Slot> {
        let index = op.0.checked_sub(self.first().0)?;
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    /// Whether the log names this very prepare at this op, as far as the window reaches.
    pub(crate) fn names(&self, op: Op, checksum: &Checksum) -> bool {
        self.get(op).is_some_and(|slot| slot.header.checksum == *checksum)
    }

    pub(crate) fn set_held(&mut self, op: Op, checksum: &Checksum, held: Held) {
        if let Some(slot) = self.get_mut(op)
            && slot.header.checksum == *checksum
        {
            slot.held = held;
        }
    }

    /// Adds the next op.
    pub(crate) fn push(&mut self, header: PrepareHeader, held: Held) {
        assert!(header.op == self.head().op.next(), "the log grows by one op at a time");
        assert!(header.parent == self.head().checksum, "an op names its parent");
        self.slots.push_back(Slot { header, held });
        if self.slots.len() > HEADER_WINDOW {
            self.slots.pop_front();
        }
    }

    /// Whether `headers` continue or overlap this log, so that nothing between them is unknown.
    fn connects(&self, headers: &[PrepareHeader]) -> bool {
        let first = headers.first().expect("a view's log has at least one header");
        self.names(first.op.previous(), &first.parent)
            || headers.iter().any(|header| self.names(header.op, &header.checksum))
    }

    /// Makes `headers` the end of this log. What was held under the same checksum still is; `otherwise` is
    /// said of the rest. If they do not connect, the window holds nothing else from here on: what stood in
    /// front of them is older than a pipeline, and what of it is not committed belongs to another log.
    pub(crate) fn adopt(&mut self, headers: &[PrepareHeader], committed: Op, otherwise: impl Fn(Op) -> Held) {
        let first = headers[0].op;
        let connects = self.connects(headers);
        // Behind a gap the window may hold nothing but what the new log replaces.
        let same = |header: &PrepareHeader| self.get(header.op).is_none_or(|slot| slot.header == *header);
        assert!(
            headers.iter().filter(|header| header.op <= committed).all(same),
            "what is committed here is in every later log"
        );
        kimberlite_probe::sometimes!("log.adopts_with_hole", !connects);
        let mut slots: VecDeque<Slot> =
            self.slots.iter().copied().filter(|slot| connects && slot.header.op < first).collect();
        for header in headers {
            let held = match self.get(header.op) {
                Some(slot) if slot.header.checksum == header.checksum => slot.held,
                _ if header.op == Op::ZERO => Held::Durable,
                _ => otherwise(header.op),
            };
            slots.push_back(Slot { header: *header, held });
        }
        while slots.len() > HEADER_WINDOW {
            slots.pop_front();
        }
        self.slots = slots;
        self.check();
    }

    /// The last headers, as `StartView` and the superblock carry them.
    pub(crate) fn tail(&self) -> Vec<PrepareHeader> {
        self.last(HEADERS_MAX).map(|slot| slot.header).collect()
    }

    /// The last headers and their marks, as `DoViewChange` carries them.
    pub(crate) fn marks(&self) -> Vec<(PrepareHeader, Mark)> {
        self.last(HEADERS_MAX).map(|slot| (slot.header, slot.held.mark())).collect()
    }

    fn last(&self, count: usize) -> impl Iterator<Item = &Slot> {
        self.slots.iter().skip(self.slots.len().saturating_sub(count))
    }

    /// Every op of the window.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// Every op of the window after `op`.
    pub(crate) fn after(&self, op: Op) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| slot.header.op > op)
    }

    /// Ops of the window on their way to the disk.
    pub(crate) fn writing(&self) -> usize {
        self.slots.iter().filter(|slot| slot.held == Held::Writing).count()
    }

    fn check(&self) {
        let mut previous: Option<&PrepareHeader> = None;
        for slot in &self.slots {
            if let Some(previous) = previous {
                assert!(slot.header.op == previous.op.next(), "headers have no gaps");
                assert!(slot.header.parent == previous.checksum, "headers form a chain");
            }
            previous = Some(&slot.header);
        }
    }
}
