//! Bodies and hash chains, checked by whoever has a processor to spare.
//!
//! A header names the hash of the last entry so far, and each entry the hash of the one before it. So once headers are known
//! to follow each other, what a prepare holds can be checked without those in front of it, and prepares can be
//! checked side by side.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use kimberlite_crypto::{ChainHash, Checksum};
use kimberlite_types::Op;
use kimberlite_wire::{PrepareHeader, UncheckedPrepare};

use super::Totals;

/// Bytes of prepares that make a check, about: enough that handing it over costs nothing beside it, and so few that all
/// helpers end at about the same time.
const CHECK_BYTES: u64 = 512 << 10;
/// Bytes of prepares that are handed out and not yet checked, at most, but for the last check: the walk waits then. Each
/// may keep the piece in memory that it lies in.
const OUTSTANDING_BYTES: u64 = 8 << 20;

/// Prepares in a row, whose headers the walk has found to be in order. Whether their bodies are intact and carry the hash
/// chain on follows from these bytes alone, so any thread may find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    id: u64,
    /// The hash of the last entry in front of them.
    previous: ChainHash,
    prepares: Vec<UncheckedPrepare>,
}

impl Check {
    /// Does the work: the checksum of each body, of each command, and SHA-256 of each entry. Lets go of the memory before
    /// it answers.
    pub fn run(self) -> Checked {
        let Self { id, mut previous, prepares } = self;
        let whole = prepares.into_iter().all(|prepare| {
            let chain = prepare.header().chain;
            let before = mem::replace(&mut previous, chain);
            prepare.check().is_ok_and(|prepare| prepare.verify_chain(&before).is_ok())
        });
        Checked { id, whole }
    }
}

/// What a [`Check`] came to: an input of the [`Verifier`](super::Verifier) that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    id: u64,
    whole: bool,
}

/// Where a walk stood, with all it needs to go on from there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) parent: PrepareHeader,
    pub(super) totals: Totals,
    /// The segment whose end was looked up last.
    pub(super) segment: Option<u64>,
    /// The last op of that segment and its checksum, if a footer tells.
    pub(super) ends: Option<(Op, Checksum)>,
}

/// A check that is being filled, or that was handed out.
#[derive(Debug)]
struct Outstanding {
    id: u64,
    /// Where the walk stood in front of it.
    from: Standing,
    /// What is verified when it is whole, and all in front of it is.
    until: Totals,
    bytes: u64,
    whole: bool,
}

/// What came of an answer.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is made and looked at")]
pub(super) enum Progress {
    /// So much is verified; none: what is checked is not next.
    Verified(Option<Totals>),
    /// Something is wrong behind this place.
    Doubt(Standing),
}

/// Every check that is not answered.
#[derive(Debug)]
pub(super) struct Checks {
    check_bytes: u64,
    outstanding_bytes: u64,
    next: u64,
    filling: Option<(Outstanding, Check)>,
    /// In the order of the log.
    handed_out: VecDeque<Outstanding>,
}

impl Checks {
    pub(super) fn new() -> Self {
        Self::of(CHECK_BYTES, OUTSTANDING_BYTES)
    }

    pub(super) fn of(check_bytes: u64, outstanding_bytes: u64) -> Self {
        Self { check_bytes, outstanding_bytes, next: 0, filling: None, handed_out: VecDeque::new() }
    }

    /// Takes the prepare that the walk has come to. `from` is where it stood, `until` what is verified with it.
    pub(super) fn add(&mut self, prepare: UncheckedPrepare, from: &Standing, until: Totals) {
        let (next, size) = (&mut self.next, u64::from(prepare.header().size));
        let (outstanding, check) = self.filling.get_or_insert_with(|| {
            *next += 1;
            let (id, previous) = (*next, from.parent.chain);
            let outstanding = Outstanding { id, from: *from, until, bytes: 0, whole: false };
            (outstanding, Check { id, previous, prepares: Vec::new() })
        });
        outstanding.until = until;
        outstanding.bytes += size;
        check.prepares.push(prepare);
    }

    /// The check that is full.
    pub(super) fn full(&mut self) -> Option<Check> {
        let full = self.filling.as_ref().is_some_and(|(check, _)| check.bytes >= self.check_bytes);
        if full { self.flush() } else { None }
    }

    /// What is gathered, full or not.
    pub(super) fn flush(&mut self) -> Option<Check> {
        let (outstanding, check) = self.filling.take()?;
        self.handed_out.push_back(outstanding);
        Some(check)
    }

    /// Whether so much is handed out that the walk should wait.
    pub(super) fn is_enough(&self) -> bool {
        let bytes: u64 = self.handed_out.iter().map(|check| check.bytes).sum();
        bytes >= self.outstanding_bytes
    }

    /// Whether nothing is handed out.
    pub(super) fn is_done(&self) -> bool {
        self.handed_out.is_empty()
    }

    /// A check is answered. When one is not whole, what is in front of it may not be either: then all that is not verified
    /// is in doubt.
    pub(super) fn on_checked(&mut self, checked: Checked) -> Progress {
        let Some(first) = self.handed_out.front() else { return Progress::Verified(None) };
        if !checked.whole {
            return Progress::Doubt(first.from);
        }
        if let Some(check) = self.handed_out.iter_mut().find(|check| check.id == checked.id) {
            check.whole = true;
        }
        let mut verified = None;
        while self.handed_out.front().is_some_and(|check| check.whole) {
            verified = self.handed_out.pop_front().map(|check| check.until);
        }
        Progress::Verified(verified)
    }
}
