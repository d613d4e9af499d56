//! Disk asks: from places to files, and from transfers to promises.
//!
//! - A `Written` with `Ok` is given only after the kernel has said that the data is durable: one or two
//!   writes to a file are each written with `RWF_DSYNC`; more of them in one round are written plainly and
//!   covered by one `fdatasync` that is submitted after all of them completed.
//! - A transfer that comes up short is continued; a transfer that crosses the end of a segment goes on in
//!   the next one. An error is never retried, except `EINTR` and `EAGAIN`, with which nothing was tried.
//! - A write into a segment that does not exist waits until the segment is complete and durable. The next
//!   segment is ordered when a quarter of one is used, so that this wait is rare and a log that is hardly used is small.
//! - A directory opened for reading has no thread that makes segments, and whoever asks for a write has a bug.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use kimberlite_io::{Buf, Event, Frame, Place, ReadFault, Token, WriteFault, Zone};
use kimberlite_types::limits::SECTOR_SIZE;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::desk::Desk;
use crate::directory::{Access, DataDirectory, Geometry};
use crate::error::OpenError;
use crate::ring::{Completion, Purpose, Target};
use crate::segments::SegmentMaker;
use crate::stats::DriverNote;
use crate::waker::Waker;

/// Writes to one file in one round that are made durable one by one. More of them share one `fdatasync`.
const DURABLE_WRITES_MAX: usize = 2;

/// The next segment is ordered by the first write that reaches behind this part of one. What is left takes far longer
/// to fill than a segment takes to make: zeros are written at the disk's full bandwidth, prepares are hashed first.
const USED_BEFORE_NEXT: u64 = 4;

/// Segment files kept open. Idle ones beyond that are closed, the least recently used first.
const SEGMENTS_OPEN_MAX: usize = 64;

/// Steps in which space for the grid is allocated, in bytes.
const GRID_STEP: u64 = 1 << 20;

/// One ask, counted up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AskId(u64);

/// One group of writes that share an `fdatasync`, counted up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BatchId(u64);

/// A file of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FileId {
    Superblock,
    Headers,
    Grid,
    Segment(u64),
}

enum Kind {
    /// The buffer is in the ring while the read is in flight.
    Read,
    Write {
        data: Frame,
        /// The group it is written with, if it was not written durably by itself.
        batch: Option<BatchId>,
    },
    Trim,
}

struct Ask {
    token: Token,
    kind: Kind,
    at: Place,
    len: u64,
    /// Bytes done. The next transfer starts there.
    done: u64,
    /// Where the transfer in flight ends, counted like `done`.
    piece_end: u64,
}

struct Batch {
    file: FileId,
    /// Writes in flight.
    left: usize,
    /// Writes that completed and wait for the sync.
    written: Vec<AskId>,
}

enum Segment {
    /// Being made; these writes wait for it.
    Ordered { parked: Vec<AskId> },
    /// Could not be made ahead of need. Ordered again when something is written to it.
    Refused,
    /// Complete.
    Ready {
        /// Whether anything was asked of it: made ahead of need, it does not exist for the core yet.
        in_use: bool,
        /// Bytes of its file. Less than a segment only where it was cut short and must stay so; the rest reads
        /// as zeros.
        size: u64,
        open: Option<Target>,
        last_used: u64,
    },
}

/// One piece of an ask: the part of it that lies in one file.
struct Piece {
    file: FileId,
    offset: u64,
    len: u64,
}

/// The data directory in use.
pub(crate) struct Data {
    /// None if the directory was opened for reading.
    maker: Option<SegmentMaker>,
    superblock: Target,
    headers: Target,
    grid: Target,
    /// Where the space allocated for the grid ends.
    grid_allocated: u64,
    segments: BTreeMap<u64, Segment>,
    open_segments: usize,
    uses: u64,
    asks: HashMap<AskId, Ask>,
    batches: HashMap<BatchId, Batch>,
    names: u64,
    tokens: BTreeSet<Token>,
    /// Writes and trims in flight: zone and start, to end.
    busy: BTreeMap<(Zone, u64), u64>,
    /// Writes to be submitted in this round.
    queued: Vec<AskId>,
    direct: bool,
    geometry: Geometry,
    /// Last, so that the lock outlives everything else.
    directory: DataDirectory,
}

impl Data {
    /// Opens the files of `directory`.
    pub(crate) fn open(directory: DataDirectory, desk: &mut Desk, waker: Waker) -> Result<Self, OpenError> {
        let geometry = directory.geometry();
        let direct = directory.wants_direct_io() && directory.takes_direct_io()?;
        if directory.wants_direct_io() && !direct {
            desk.ledger.note(DriverNote::DirectIoUnavailable { path: directory.path().to_path_buf() });
        }
        let superblock = directory.open_zone("superblock", geometry.superblock_size, direct)?;
        let headers = directory.open_zone("headers", geometry.headers_size, direct)?;
        let (grid, grid_size) = directory.open_grid(direct)?;
        let ready =
            |(number, size)| (number, Segment::Ready { in_use: true, size, open: None, last_used: 0 });
        let cut = |segment, size| desk.ledger.note(DriverNote::SegmentCut { segment, size });
        let segments = directory.segments(cut)?.into_iter().map(ready).collect();
        let path = directory.path().to_path_buf();
        let maker = match directory.access() {
            Access::Read => None,
            Access::Write => Some(
                SegmentMaker::start(path, geometry.segment_size, direct, waker)
                    .map_err(|error| OpenError::Resources { error })?,
            ),
        };
        Ok(Self {
            maker,
            superblock: desk.ring.take_file(superblock),
            headers: desk.ring.take_file(headers),
            grid: desk.ring.take_file(grid),
            grid_allocated: grid_size,
            segments,
            open_segments: 0,
            uses: 0,
            asks: HashMap::new(),
            batches: HashMap::new(),
            names: 0,
            tokens: BTreeSet::new(),
            busy: BTreeMap::new(),
            queued: Vec::new(),
            direct,
            geometry,
            directory,
        })
    }

    /// Asks for a read.
    pub(crate) fn read(&mut self, desk: &mut Desk, token: Token, at: Place, buf: Buf) {
        assert!((buf.as_ptr() as usize).is_multiple_of(SECTOR_SIZE), "a read goes to a sector boundary");
        let id = self.take_ask(token, Kind::Read, at, buf.len() as u64);
        self.step_read(desk, id, buf);
    }

    /// Asks for a write. It is submitted with the others of this round, see [`Self::flush`].
    pub(crate) fn write(&mut self, token: Token, at: Place, data: Frame) {
        assert!(
            (data.as_ptr() as usize).is_multiple_of(SECTOR_SIZE),
            "a write comes from a sector boundary in memory"
        );
        let len = data.len() as u64;
        self.assert_writable(at);
        let id = self.take_ask(token, Kind::Write { data, batch: None }, at, len);
        self.claim(at, len);
        self.queued.push(id);
    }

    /// Asks for a trim.
    pub(crate) fn trim(&mut self, desk: &mut Desk, token: Token, at: Place, len: u64) {
        self.assert_writable(at);
        let id = self.take_ask(token, Kind::Trim, at, len);
        self.claim(at, len);
        self.step_trim(desk, id);
    }

    /// Submits the writes of this round, grouped by file.
    pub(crate) fn flush(&mut self, desk: &mut Desk) {
        while !self.queued.is_empty() {
            let mut by_file: BTreeMap<FileId, Vec<AskId>> = BTreeMap::new();
            for id in std::mem::take(&mut self.queued) {
                let piece = self.piece(id);
                if let FileId::Segment(number) = piece.file
                    && !self.enter_segment(number, id)
                {
                    continue;
                }
                by_file.entry(piece.file).or_default().push(id);
            }
            for (file, ids) in by_file {
                self.submit_writes(desk, file, &ids);
            }
        }
        self.close_idle_segments(desk);
    }

    /// Takes the completion of a disk operation.
    pub(crate) fn on_completion(&mut self, desk: &mut Desk, completion: Completion) {
        match completion.purpose {
            Purpose::Read(id) => self.on_read(desk, id, completion.load.into_buf(), completion.result),
            Purpose::Write(id) => self.on_write(desk, id, completion.result),
            Purpose::Sync(batch) => self.on_sync(desk, batch, completion.result),
            Purpose::Trim(id) => self.on_trim(desk, id, completion.result),
            _ => unreachable!("only disk operations are routed here"),
        }
    }

    /// Takes the segments that were made in the background.
    pub(crate) fn on_segments(&mut self, desk: &mut Desk) {
        while let Some((number, result)) = self.maker.as_ref().and_then(SegmentMaker::made) {
            let Some(Segment::Ordered { parked }) = self.segments.remove(&number) else {
                unreachable!("a segment is made only when ordered, and once per order")
            };
            match result {
                Ok(()) => {
                    desk.ledger.stats.segments_created += 1;
                    let in_use = !parked.is_empty();
                    let size = self.geometry.segment_size;
                    self.segments.insert(number, Segment::Ready { in_use, size, open: None, last_used: 0 });
                    self.queued.extend(parked);
                }
                Err(error) => {
                    desk.ledger
                        .note(DriverNote::SegmentFailed { segment: number, reason: error.to_string() });
                    self.segments.insert(number, Segment::Refused);
                    let fault = fault_of(error.raw_os_error());
                    for id in parked {
                        self.finish(desk, id, Err(fault));
                    }
                }
            }
        }
    }

    fn assert_writable(&self, at: Place) {
        let access = self.directory.access();
        assert!(access == Access::Write, "a directory that was opened for reading is not written to: {at}");
    }

    /// Orders a segment from the thread that makes them.
    fn order(&self, segment: u64) {
        self.maker.as_ref().expect("only writes need segments").order(segment);
    }

    fn take_ask(&mut self, token: Token, kind: Kind, at: Place, len: u64) -> AskId {
        assert!(
            at.is_aligned() && len.is_multiple_of(SECTOR_SIZE as u64),
            "asks are whole sectors: {at}+{len:#x}"
        );
        assert!(len > 0, "an ask has at least one sector: {at}");
        if let Some(size) = self.fixed_size(at.zone)
            && !matches!(kind, Kind::Read)
        {
            assert!(
                at.offset + len <= size,
                "a zone of fixed size is not written past its end: {at}+{len:#x}"
            );
        }
        assert!(self.tokens.insert(token), "a token names one ask in flight: {token:?}");
        let id = AskId(self.name());
        self.asks.insert(id, Ask { token, kind, at, len, done: 0, piece_end: 0 });
        id
    }

    /// Notes a write or trim in flight and checks that it overlaps no other.
    fn claim(&mut self, at: Place, len: u64) {
        let end = at.offset + len;
        let before = self.busy.range(..(at.zone, end)).next_back();
        if let Some(((zone, start), busy_end)) = before {
            assert!(
                *zone != at.zone || *busy_end <= at.offset,
                "no write overlaps one in flight: {at}+{len:#x} and {start:#x}..{busy_end:#x}"
            );
        }
        self.busy.insert((at.zone, at.offset), end);
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn fixed_size(&self, zone: Zone) -> Option<u64> {
        match zone {
            Zone::Superblock => Some(self.geometry.superblock_size),
            Zone::Headers => Some(self.geometry.headers_size),
            Zone::Log | Zone::Grid => None,
        }
    }

    /// The part of what is left of an ask that lies in one file.
    fn piece(&self, id: AskId) -> Piece {
        let ask = &self.asks[&id];
        let (at, left) = (ask.at.offset + ask.done, ask.len - ask.done);
        match ask.at.zone {
            Zone::Superblock => Piece { file: FileId::Superblock, offset: at, len: left },
            Zone::Headers => Piece { file: FileId::Headers, offset: at, len: left },
            Zone::Grid => Piece { file: FileId::Grid, offset: at, len: left },
            Zone::Log => {
                let size = self.geometry.segment_size;
                let offset = at % size;
                Piece { file: FileId::Segment(at / size), offset, len: left.min(size - offset) }
            }
        }
    }

    /// Whether a write may go into a segment now. If not, it is parked and will be queued again.
    fn enter_segment(&mut self, number: u64, id: AskId) -> bool {
        let enters = match self.segments.get_mut(&number) {
            Some(Segment::Ready { in_use, .. }) => {
                *in_use = true;
                true
            }
            Some(Segment::Ordered { parked }) => {
                parked.push(id);
                false
            }
            None | Some(Segment::Refused) => {
                self.segments.insert(number, Segment::Ordered { parked: vec![id] });
                self.order(number);
                false
            }
        };
        let next = number + 1;
        let piece = self.piece(id);
        let used = piece.offset + piece.len > self.geometry.segment_size / USED_BEFORE_NEXT;
        if used && let Entry::Vacant(vacant) = self.segments.entry(next) {
            vacant.insert(Segment::Ordered { parked: Vec::new() });
            self.order(next);
        }
        enters
    }

    /// The open file, or `None` if there is no such segment (yet).
    fn target(&mut self, desk: &mut Desk, file: FileId) -> Result<Option<&Target>, io::Error> {
        let number = match file {
            FileId::Superblock => return Ok(Some(&self.superblock)),
            FileId::Headers => return Ok(Some(&self.headers)),
            FileId::Grid => return Ok(Some(&self.grid)),
            FileId::Segment(number) => number,
        };
        let Some(Segment::Ready { in_use: true, open, last_used, .. }) = self.segments.get_mut(&number)
        else {
            return Ok(None);
        };
        self.uses += 1;
        *last_used = self.uses;
        if open.is_none() {
            let file = self.directory.open_segment(number, self.direct)?;
            *open = Some(desk.ring.take_file(file));
            self.open_segments += 1;
        }
        Ok(open.as_ref())
    }

    /// Closes segments that nothing is in flight on, the least recently used first, down to the limit.
    fn close_idle_segments(&mut self, desk: &mut Desk) {
        if self.open_segments <= SEGMENTS_OPEN_MAX {
            return;
        }
        let syncing: BTreeSet<_> = self.batches.values().map(|batch| batch.file).collect();
        let mut idle: Vec<_> = self
            .segments
            .iter()
            .filter_map(|(number, segment)| match segment {
                Segment::Ready { open: Some(target), last_used, .. }
                    if target.is_idle() && !syncing.contains(&FileId::Segment(*number)) =>
                {
                    Some((*last_used, *number))
                }
                _ => None,
            })
            .collect();
        idle.sort_unstable();
        for (_, number) in idle.into_iter().take(self.open_segments - SEGMENTS_OPEN_MAX) {
            if let Some(Segment::Ready { open, .. }) = self.segments.get_mut(&number)
                && let Some(target) = open.take()
            {
                desk.ring.drop_file(&target);
                self.open_segments -= 1;
            }
        }
    }

    /// Whether a piece begins where its file was cut short, so that it is missing.
    fn is_cut(&self, piece: &Piece) -> bool {
        let FileId::Segment(number) = piece.file else { return false };
        matches!(self.segments.get(&number), Some(Segment::Ready { size, .. }) if piece.offset >= *size)
    }

    fn step_read(&mut self, desk: &mut Desk, id: AskId, mut buf: Buf) {
        let mut piece = self.piece(id);
        while self.is_cut(&piece) {
            let ask = self.asks.get_mut(&id).expect("the ask is in flight");
            let end = ask.done + piece.len;
            buf[ask.done as usize..end as usize].fill(0);
            ask.done = end;
            if ask.done == ask.len {
                return self.finish_read(desk, id, Ok(buf));
            }
            piece = self.piece(id);
        }
        let ask = self.asks.get_mut(&id).expect("the ask is in flight");
        let done = ask.done;
        ask.piece_end = done + piece.len;
        match self.target(desk, piece.file) {
            Ok(Some(target)) => {
                desk.ring.read(
                    Purpose::Read(id),
                    target,
                    piece.offset,
                    buf,
                    done as usize,
                    piece.len as usize,
                );
            }
            Ok(None) => self.finish_read(desk, id, Err(ReadFault::Absent)),
            Err(error) => {
                desk.ledger.note(DriverNote::DiskFault { reason: format!("open for reading: {error}") });
                self.finish_read(desk, id, Err(ReadFault::Failed));
            }
        }
    }

    fn on_read(&mut self, desk: &mut Desk, id: AskId, buf: Buf, result: Result<usize, Errno>) {
        let ask = self.asks.get_mut(&id).expect("the ask is in flight");
        match result {
            Ok(0) => self.finish_read(desk, id, Err(ReadFault::Absent)),
            Ok(bytes) => {
                ask.done += bytes as u64;
                if ask.done == ask.len {
                    self.finish_read(desk, id, Ok(buf));
                } else {
                    self.step_read(desk, id, buf);
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => self.step_read(desk, id, buf),
            Err(error) => {
                let reason = format!("read {}: {error}", ask.at);
                desk.ledger.note(DriverNote::DiskFault { reason });
                self.finish_read(desk, id, Err(ReadFault::Failed));
            }
        }
    }

    fn finish_read(&mut self, desk: &mut Desk, id: AskId, result: Result<Buf, ReadFault>) {
        let ask = self.asks.remove(&id).expect("the ask is in flight");
        self.tokens.remove(&ask.token);
        match &result {
            Ok(buf) => {
                desk.ledger.stats.reads += 1;
                desk.ledger.stats.bytes_read += buf.len() as u64;
            }
            Err(ReadFault::Failed) => desk.ledger.stats.disk_faults += 1,
            Err(ReadFault::Absent) => {}
        }
        desk.events.push_back(Event::Read { token: ask.token, result });
    }

    /// Submits the next pieces of several writes to one file.
    fn submit_writes(&mut self, desk: &mut Desk, file: FileId, ids: &[AskId]) {
        let mut ready = Vec::new();
        for id in ids {
            match self.make_room(desk, file, *id) {
                Ok(()) => ready.push(*id),
                Err(fault) => self.finish(desk, *id, Err(fault)),
            }
        }
        // A write that goes on in another file must be durable in this one before it does.
        let (whole, crossing): (Vec<_>, Vec<_>) = ready.into_iter().partition(|id| {
            let ask = &self.asks[id];
            self.piece(*id).len == ask.len - ask.done
        });
        for id in crossing {
            self.step_write(desk, id);
        }
        if whole.len() > DURABLE_WRITES_MAX {
            let name = BatchId(self.name());
            for id in &whole {
                let Kind::Write { batch, .. } = &mut self.asks.get_mut(id).expect("in flight").kind else {
                    unreachable!("only writes are queued")
                };
                *batch = Some(name);
            }
            self.batches.insert(name, Batch { file, left: whole.len(), written: Vec::new() });
        }
        for id in whole {
            self.step_write(desk, id);
        }
    }

    /// Opens the file of a write and, for the grid, allocates the space it grows into.
    fn make_room(&mut self, desk: &mut Desk, file: FileId, id: AskId) -> Result<(), WriteFault> {
        let piece = self.piece(id);
        let end = piece.offset + piece.len;
        if file == FileId::Grid && end > self.grid_allocated {
            // The size stays, so that a read past what was written finds the end of the file. Allocating
            // a step is a few microseconds; the kernel only notes the extent.
            let until = end.next_multiple_of(GRID_STEP);
            let len = until - self.grid_allocated;
            match fallocate(self.grid.descriptor(), FallocateFlags::KEEP_SIZE, self.grid_allocated, len) {
                Ok(()) => self.grid_allocated = until,
                Err(error) => {
                    desk.ledger.note(DriverNote::DiskFault { reason: format!("grow the grid: {error}") });
                    return Err(fault_of(Some(error.raw_os_error())));
                }
            }
        }
        match self.target(desk, file) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => unreachable!("a write enters a segment only when it is ready"),
            Err(error) => {
                desk.ledger.note(DriverNote::DiskFault { reason: format!("open for writing: {error}") });
                Err(fault_of(error.raw_os_error()))
            }
        }
    }

    fn step_write(&mut self, desk: &mut Desk, id: AskId) {
        let piece = self.piece(id);
        let ask = self.asks.get_mut(&id).expect("the ask is in flight");
        ask.piece_end = ask.done + piece.len;
        let Kind::Write { data, batch } = &ask.kind else { unreachable!("a write was asked") };
        let part = data.slice(ask.done as usize..ask.piece_end as usize);
        let durable = batch.is_none();
        match self.target(desk, piece.file) {
            Ok(Some(target)) => desk.ring.write(Purpose::Write(id), target, piece.offset, part, durable),
            _ => unreachable!(
                "the file was opened before its writes were submitted, and stays open until they are done"
            ),
        }
    }

    fn on_write(&mut self, desk: &mut Desk, id: AskId, result: Result<usize, Errno>) {
        let ask = self.asks.get_mut(&id).expect("the ask is in flight");
        let Kind::Write { batch, .. } = ask.kind else { unreachable!("a write was asked") };
        match result {
            Err(Errno::INTR | Errno::AGAIN) => return self.step_write(desk, id),
            Ok(bytes) if bytes > 0 => {
                ask.done += bytes as u64;
                if ask.done < ask.piece_end {
                    return self.step_write(desk, id);
                }
                match batch {
                    Some(_) => {}
                    None if ask.done == ask.len => self.finish(desk, id, Ok(())),
                    None => self.queued.push(id),
                }
            }
            failed => {
                let fault = match failed {
                    Err(error) => fault_of(Some(error.raw_os_error())),
                    Ok(_) => WriteFault::Failed, // A write that takes nothing and names no reason.
                };
                let reason = format!("write {}: {failed:?}", ask.at);
                desk.ledger.note(DriverNote::DiskFault { reason });
                self.finish(desk, id, Err(fault));
            }
        }
        let Some(name) = batch else { return };
        let written = self.asks.contains_key(&id);
        let batch = self.batches.get_mut(&name).expect("a batch lasts until its sync");
        batch.left -= 1;
        if written {
            batch.written.push(id);
        }
        if batch.left > 0 {
            return;
        }
        if batch.written.is_empty() {
            self.batches.remove(&name);
            return;
        }
        let file = batch.file;
        match self.target(desk, file) {
            Ok(Some(target)) => desk.ring.sync(Purpose::Sync(name), target),
            _ => unreachable!("a file stays open while a batch needs it"),
        }
        desk.ledger.stats.syncs += 1;
    }

    fn on_sync(&mut self, desk: &mut Desk, name: BatchId, result: Result<usize, Errno>) {
        let batch = self.batches.remove(&name).expect("a batch lasts until its sync");
        // An interrupted sync may have lost the one report of an error, so it is not asked again either.
        let result = result.map(|_| ()).map_err(|error| {
            desk.ledger.note(DriverNote::DiskFault { reason: format!("sync {:?}: {error}", batch.file) });
            fault_of(Some(error.raw_os_error()))
        });
        for id in batch.written {
            self.finish(desk, id, result);
        }
    }

    fn step_trim(&mut self, desk: &mut Desk, id: AskId) {
        loop {
            let piece = self.piece(id);
            let ask = self.asks.get_mut(&id).expect("the ask is in flight");
            ask.piece_end = ask.done + piece.len;
            match self.target(desk, piece.file) {
                Ok(Some(target)) => {
                    return desk.ring.punch(Purpose::Trim(id), target, piece.offset, piece.len);
                }
                Ok(None) => {} // What was never written holds nothing to give back.
                Err(error) => {
                    desk.ledger.note(DriverNote::DiskFault { reason: format!("open for trimming: {error}") });
                    return self.finish(desk, id, Err(WriteFault::Failed));
                }
            }
            let ask = self.asks.get_mut(&id).expect("the ask is in flight");
            ask.done = ask.piece_end;
            if ask.done == ask.len {
                return self.finish(desk, id, Ok(()));
            }
        }
    }

    fn on_trim(&mut self, desk: &mut Desk, id: AskId, result: Result<usize, Errno>) {
        let ask = self.asks.get_mut(&id).expect("the ask is in flight");
        match result {
            Err(Errno::INTR | Errno::AGAIN) => self.step_trim(desk, id),
            Err(error) => {
                desk.ledger.note(DriverNote::DiskFault { reason: format!("trim {}: {error}", ask.at) });
                self.finish(desk, id, Err(fault_of(Some(error.raw_os_error()))));
            }
            Ok(_) => {
                ask.done = ask.piece_end;
                if ask.done == ask.len {
                    self.finish(desk, id, Ok(()));
                } else {
                    self.step_trim(desk, id);
                }
            }
        }
    }

    /// Answers a write or trim.
    fn finish(&mut self, desk: &mut Desk, id: AskId, result: Result<(), WriteFault>) {
        let ask = self.asks.remove(&id).expect("an ask is answered once");
        self.tokens.remove(&ask.token);
        self.busy.remove(&(ask.at.zone, ask.at.offset));
        let token = ask.token;
        if result.is_err() {
            desk.ledger.stats.disk_faults += 1;
        }
        desk.events.push_back(match ask.kind {
            Kind::Write { .. } => {
                if result.is_ok() {
                    desk.ledger.stats.writes += 1;
                    desk.ledger.stats.bytes_written += ask.len;
                }
                Event::Written { token, result }
            }
            Kind::Trim => Event::Trimmed { token, result },
            Kind::Read => unreachable!("reads are answered with their buffer"),
        });
    }
}

/// What an error of a write means to the core.
fn fault_of(error: Option<i32>) -> WriteFault {
    match error {
        Some(libc::ENOSPC | libc::EDQUOT) => WriteFault::NoSpace,
        _ => WriteFault::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_disk_may_be_asked_again() {
        assert_eq!(fault_of(Some(libc::ENOSPC)), WriteFault::NoSpace);
        assert_eq!(fault_of(Some(libc::EDQUOT)), WriteFault::NoSpace);
        for error in [libc::EIO, libc::EROFS, libc::EINVAL, libc::EFBIG] {
            assert_eq!(fault_of(Some(error)), WriteFault::Failed);
        }
        assert_eq!(fault_of(None), WriteFault::Failed);
    }
}
