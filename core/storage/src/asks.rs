//! Asks in flight, and writes that wait for room on a full disk.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Buf, Frame, Io, Place, Token, WriteFault};
use kimberlite_probe::mutant;
use kimberlite_store::Address;
use kimberlite_types::{Instant, Op, ReplicaId};

use crate::{HaltReason, Output, PageName};

/// A write that found the disk full is asked again after this long.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFor {
    /// One copy of the superblock.
    Superblock { copy: usize },
    /// A part of the ring, `len` bytes from `offset`.
    Ring { offset: u64, len: usize },
    /// The head of a segment's footer, at open.
    FooterHead { segment: u64 },
    /// A look at the log, by whoever walks it.
    Walk,
    /// A piece of the log, ahead of a verifier.
    Ahead { offset: u64 },
    /// A whole footer, to find a sealed prepare.
    Footer { segment: u64 },
    /// A window of the log, for fetches that follow each other.
    Window,
    /// A prepare to answer `Fetch`.
    Fetch { id: u64 },
    /// A prepare kept at open, to make it durable again.
    Settle { op: Op, checksum: Checksum },
    /// A page of the grid.
    Page(PageName),
    /// A page of the grid that a peer lost.
    Peer { to: ReplicaId, page: PageName },
}

/// What a write is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteFor {
    /// One copy of the superblock.
    Superblock { copy: usize },
    /// A sector of the ring.
    Ring { sector: u32 },
    /// A prepare.
    Prepare { op: Op, checksum: Checksum },
    /// The footer of a segment.
    Footer { segment: u64 },
    /// Pages of the grid that stand side by side.
    Pages { first: Address, count: u64 },
    /// A page of the grid that came from a peer.
    Mend { address: Address },
}

#[derive(Debug)]
struct Write {
    place: Place,
    data: Frame,
    purpose: WriteFor,
}

impl Write {
    fn overlaps(&self, place: Place, len: u64) -> bool {
        self.place.zone == place.zone
            && self.place.offset < place.offset + len
            && place.offset < self.place.offset + self.data.len() as u64
    }
}

/// All asks of one machine.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    next: u64,
    reads: BTreeMap<Token, ReadFor>,
    writes: BTreeMap<Token, Write>,
    /// Writes that found no room, in the order in which they did.
    stalled: Vec<Write>,
    retry_at: Option<Instant>,
    full: bool,
}

impl Asks {
    fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    /// Asks for `len` bytes at `place`.
    pub(crate) fn read(&mut self, io: &mut dyn Io, place: Place, len: usize, purpose: ReadFor) {
        self.read_into(io, place, Buf::zeroed(len), purpose);
    }

    /// Asks for as many bytes at `place` as `buf` has.
    pub(crate) fn read_into(&mut self, io: &mut dyn Io, place: Place, buf: Buf, purpose: ReadFor) {
        assert!(place.is_aligned() && !buf.is_empty(), "reads are whole sectors");
        let token = self.token();
        self.reads.insert(token, purpose);
        io.read(token, place, buf);
    }

    /// Asks for `data` to be written at `place`.
    pub(crate) fn write(&mut self, io: &mut dyn Io, place: Place, data: Frame, purpose: WriteFor) {
        let overlaps = self.overlaps(place, data.len() as u64);
        assert!(!overlaps || mutant!(OverlappingWrites), "no write overlaps one in flight");
        let token = self.token();
        self.writes.insert(token, Write { place, data: data.clone(), purpose });
        io.write(token, place, data);
    }

    /// Whether a write on its way touches this range.
    pub(crate) fn overlaps(&self, place: Place, len: u64) -> bool {
        self.writes.values().chain(&self.stalled).any(|write| write.overlaps(place, len))
    }

    /// Whether this write is on its way.
    pub(crate) fn is_writing(&self, purpose: WriteFor) -> bool {
        self.writes.values().chain(&self.stalled).any(|write| write.purpose == purpose)
    }

    /// A read was answered: what was it for? None if it is not ours.
    pub(crate) fn take_read(&mut self, token: Token) -> Option<ReadFor> {
        self.reads.remove(&token)
    }

    /// A write was answered. Answers what is durable now, if anything is; a full disk is waited out here.
    pub(crate) fn take_write(
        &mut self,
        now: Instant,
        token: Token,
        result: Result<(), WriteFault>,
        out: &mut Vec<Output>,
    ) -> Result<Option<WriteFor>, HaltReason> {
        let Some(write) = self.writes.remove(&token) else { return Ok(None) };
        match result {
            Ok(()) => {
                if self.full && self.stalled.is_empty() {
                    self.full = false;
                    kimberlite_probe::reachable!("disk.room");
                    out.push(Output::Room);
                }
                Ok(Some(write.purpose))
            }
            Err(fault) if fault == WriteFault::NoSpace || mutant!(FailedWriteAgain) => {
                if !self.full {
                    self.full = true;
                    out.push(Output::Full);
                }
                kimberlite_probe::reachable!("disk.full");
                self.stalled.push(write);
                self.retry_at = Some(now.after(RETRY_AFTER));
                Ok(None)
            }
            Err(WriteFault::Failed) if mutant!(FailedWriteSwallowed) => Ok(Some(write.purpose)),
            Err(_) => {
                kimberlite_probe::reachable!("disk.write_fails");
                Err(HaltReason::WriteFailed { place: write.place })
            }
        }
    }

    /// Asks again for the writes that found no room, when it is time.
    pub(crate) fn retry(&mut self, now: Instant, io: &mut dyn Io) {
        if self.retry_at.is_none_or(|at| now < at) {
            return;
        }
        self.retry_at = None;
        for write in core::mem::take(&mut self.stalled) {
            let token = self.token();
            io.write(token, write.place, write.data.clone());
            self.writes.insert(token, write);
        }
    }

    /// Prepares being written, or waiting for room.
    pub(crate) fn prepares(&self) -> usize {
        let prepare = |write: &&Write| matches!(write.purpose, WriteFor::Prepare { .. });
        self.writes.values().chain(&self.stalled).filter(prepare).count()
    }

    /// When the writes that found no room are to be asked again.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Asks without an answer.
    pub(crate) fn in_flight(&self) -> usize {
        self.reads.len() + self.writes.len()
    }

    /// Forgets everything: answers that still come are nobody's.
    pub(crate) fn forget(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}
