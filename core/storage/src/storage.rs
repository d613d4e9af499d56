//! The machine: routes inputs and answers to the parts.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Buf, Event, Frame, Io, Machine, Place, ReadFault, sectors};
use kimberlite_probe::mutant;
use kimberlite_store::{Page, PageRef};
use kimberlite_types::limits::PIPELINE_MAX;
use kimberlite_types::{Config, Instant, Now, Op};
use kimberlite_wire::message::Mark;
use kimberlite_wire::{Prepare, PrepareHeader};

use crate::asks::{Asks, ReadFor, WriteFor};
use crate::footer::Row;
use crate::grid::{Grid, PagesAtHand};
use crate::journal::{Entry, Journal, State};
use crate::recovery::Opening;
use crate::sealed::{Found, Shelf, Waiting};
use crate::superblock::Superblock;
use crate::view::ViewKeeper;
use crate::window::{Way, Window};
use crate::{CheckpointName, Damage, FetchError, HaltReason, Input, Output, PageName, ViewState};

/// Missing ops named in answer to one survey: as many as are repaired at once.
const SURVEY_MAX: usize = PIPELINE_MAX;

#[derive(Debug)]
enum Phase {
    New,
    Opening(Box<Opening>),
    Open,
    Halted,
}

/// A fetch whose read is in flight.
#[derive(Clone, Copy, Debug)]
struct Fetching {
    op: Op,
    asked: Option<Checksum>,
    /// What must be there.
    expected: Checksum,
    place: Place,
    /// Bytes, in whole sectors.
    len: u64,
}

/// An append that waits for a view.
#[derive(Debug)]
struct Waits {
    prepare: Prepare,
    /// Whether another view was asked for since: then it may not connect any more, and is dropped.
    outdated: bool,
}

/// Superblock, journal and grid of one replica.
#[derive(Debug)]
pub struct Storage {
    config: Config,
    phase: Phase,
    asks: Asks,
    journal: Journal,
    view: ViewKeeper,
    shelf: Shelf,
    fetches: BTreeMap<u64, Fetching>,
    window: Window,
    grid: Grid,
    fetch_next: u64,
    waiting: VecDeque<Waits>,
}

impl Storage {
    /// A machine that has not opened its data directory yet. Send [`Input::Start`] first.
    pub fn new(config: Config) -> Self {
        Self {
            phase: Phase::New,
            asks: Asks::default(),
            journal: Journal::new(&config),
            view: ViewKeeper::new(Superblock::initial(&config)),
            shelf: Shelf::new(config.cluster),
            fetches: BTreeMap::new(),
            window: Window::new(config.layout),
            grid: Grid::new(&config),
            fetch_next: 0,
            waiting: VecDeque::new(),
            config,
        }
    }

    /// The head of the log: the last op the journal names, durable or not. The root while it is not open.
    pub fn head(&self) -> &PrepareHeader {
        self.journal.head()
    }

    /// The header of a recent op: one not sealed yet, or one of the last few. None for ops the journal does
    /// not name, and for ops so old that only the disk knows them.
    pub fn header(&self, op: Op) -> Option<PrepareHeader> {
        self.journal.entry(op).map(|entry| entry.header)
    }

    /// The view that is durable.
    pub fn view_state(&self) -> &ViewState {
        self.view.state()
    }

    /// Inputs that were accepted and not answered yet: appends, fetches and views.
    pub fn pending(&self) -> usize {
        self.journal.pending()
            + self.waiting.len()
            + self.fetches.len()
            + self.shelf.pending()
            + self.view.pending()
            + self.grid.pending()
    }

    /// The pages at hand. What a step asks of them and they do not have is to be had with [`Input::Want`].
    pub const fn pages(&self) -> PagesAtHand<'_> {
        self.grid.at_hand()
    }

    /// A page, if it is at hand.
    pub fn page(&self, at: &PageRef) -> Option<&Page> {
        self.grid.page(at)
    }

    /// Whether a checkpoint is being written.
    pub const fn is_checkpointing(&self) -> bool {
        self.grid.is_writing()
    }

    /// Whether this page is still wanted of peers.
    pub fn is_asked_of_peers(&self, page: &PageName) -> bool {
        self.grid.is_asked(page)
    }

    /// The checkpoint that the superblock names.
    pub fn checkpoint(&self) -> Option<&CheckpointName> {
        self.view.checkpoint()
    }

    /// Asks to the disk that were not answered yet.
    pub fn in_flight(&self) -> usize {
        self.asks.in_flight()
    }

    /// Whether the data directory is open.
    pub const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    fn halt(&mut self, reason: HaltReason, out: &mut Vec<Output>) {
        self.phase = Phase::Halted;
        self.asks.forget();
        out.push(Output::Halted(reason));
    }

    fn on_event(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Output>) {
        match event {
            Event::Read { token, result } => {
                if let Some(purpose) = self.asks.take_read(token) {
                    self.on_read(purpose, result, io, out);
                }
            }
            Event::Written { token, result } => {
                match self.asks.take_write(now.monotonic, token, result, out) {
                    Ok(Some(purpose)) => self.on_written(purpose, io, out),
                    Ok(None) => {}
                    Err(reason) => self.halt(reason, out),
                }
            }
            // Nothing else is an answer to storage.
            Event::Wake
            | Event::Trimmed { .. }
            | Event::Message { .. }
            | Event::Opened { .. }
            | Event::Received { .. }
            | Event::Sent { .. }
            | Event::Closed { .. } => {}
        }
    }

    fn on_read(
        &mut self,
        purpose: ReadFor,
        result: Result<Buf, ReadFault>,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let Self { phase, asks, journal, shelf, .. } = self;
        if let Phase::Opening(opening) = phase {
            match purpose {
                ReadFor::Superblock { copy } => {
                    if let Err(reason) = opening.on_copy(copy, result, asks, io, out) {
                        self.halt(reason, out);
                    }
                }
                ReadFor::Ring { offset, len } => {
                    opening.on_ring((offset, len), result, journal, asks, io, out);
                }
                ReadFor::FooterHead { segment } => {
                    opening.on_footer_head(segment, result, journal, asks, io, out);
                }
                ReadFor::Walk => opening.on_walk(result, journal, asks, io, out),
                ReadFor::Settle { op, .. } => opening.on_settle(op, result, journal, asks, io, out),
                ReadFor::Footer { .. }
                | ReadFor::Window
                | ReadFor::Fetch { .. }
                | ReadFor::Ahead { .. }
                | ReadFor::Page(_)
                | ReadFor::Peer { .. } => {
                    panic!("nothing is fetched while the data directory is being opened")
                }
            }
            return;
        }
        match purpose {
            ReadFor::Fetch { id } => self.on_fetched(id, result, io, out),
            ReadFor::Window => {
                for id in self.window.arrived(result) {
                    let Fetching { place, len, .. } = self.fetches[&id];
                    let bytes = self.window.part(place.offset, len);
                    self.on_part(id, bytes.as_ref(), io, out);
                }
            }
            ReadFor::Footer { segment } => {
                let found = shelf.on_footer(segment, result, journal, asks, io, out);
                self.on_found(found, io, out);
            }
            ReadFor::Walk => {
                let found = shelf.on_walk(result, journal, asks, io);
                self.on_found(found, io, out);
            }
            ReadFor::Page(name) => self.grid.on_read(name, result, asks, io, out),
            ReadFor::Peer { to, page } => self.grid.on_read_for_peer(to, page, result, out),
            ReadFor::Superblock { .. }
            | ReadFor::Ring { .. }
            | ReadFor::FooterHead { .. }
            | ReadFor::Ahead { .. }
            | ReadFor::Settle { .. } => panic!("these are read while the data directory is being opened"),
        }
    }

    fn on_written(&mut self, purpose: WriteFor, io: &mut dyn Io, out: &mut Vec<Output>) {
        match purpose {
            WriteFor::Prepare { op, checksum } => self.journal.prepare_written(op, checksum, out),
            WriteFor::Ring { sector } => self.journal.ring_written(sector, out),
            WriteFor::Footer { segment } => {
                if let Phase::Opening(opening) = &mut self.phase
                    && segment < self.journal.sealed_count()
                {
                    opening.on_footer_written();
                }
                self.journal.footer_written(segment, out);
            }
            WriteFor::Pages { first, count } => {
                self.grid.on_written(first, count, &mut self.view, &mut self.asks, io);
            }
            WriteFor::Mend { address } => {
                self.grid.on_mended(address, &mut self.view, &mut self.asks, io, out);
            }
            WriteFor::Superblock { copy } => match &mut self.phase {
                Phase::Opening(opening) => opening.mend_next(&mut self.asks, io),
                _ => self.on_copy_written(copy, io, out),
            },
        }
    }

    /// A copy of the superblock is durable, and perhaps a view with it.
    fn on_copy_written(&mut self, copy: usize, io: &mut dyn Io, out: &mut Vec<Output>) {
        let Some(changed) = self.view.copy_written(copy, &mut self.asks, io) else { return };
        if changed.checkpoint {
            self.grid.named(self.view.checkpoint(), out);
        }
        if let Some(before) = changed.view {
            let state = self.view.state();
            if before.log_view != state.log_view || before.headers != state.headers {
                self.journal.adopt(&state.headers, out);
            }
            if !mutant!(SuperblockNotAwaited) {
                out.push(Output::ViewDurable { view: state.view, log_view: state.log_view });
            }
        }
        self.view.begin_queued(&mut self.asks, io);
        if !self.view.is_busy() {
            for waits in core::mem::take(&mut self.waiting) {
                kimberlite_probe::sometimes!(
                    "storage.append_is_outdated",
                    waits.outdated && !self.journal.connects(&waits.prepare.header)
                );
                if !waits.outdated || self.journal.connects(&waits.prepare.header) {
                    self.append(waits.prepare, io, out);
                }
            }
        }
    }

    fn append(&mut self, prepare: Prepare, io: &mut dyn Io, out: &mut Vec<Output>) {
        let op = prepare.header.op;
        if op <= self.journal.sealed_through() && self.journal.entry(op).is_none() {
            let found = self.shelf.find(Waiting::Repair(prepare), &self.journal, &mut self.asks, io);
            self.on_found(found.into_iter().collect(), io, out);
        } else {
            self.journal.append(prepare, &mut self.asks, io, out);
        }
    }

    fn fetch(&mut self, op: Op, asked: Option<Checksum>, io: &mut dyn Io, out: &mut Vec<Output>) {
        let Some(entry) = self.journal.entry(op) else {
            if op > Op::ZERO && op <= self.journal.sealed_through() {
                let waiting = Waiting::Fetch { op, checksum: asked };
                let found = self.shelf.find(waiting, &self.journal, &mut self.asks, io);
                self.on_found(found.into_iter().collect(), io, out);
            } else if let Some(header) =
                asked.and_then(|asked| self.journal.doubtful.readable(op, asked)).or_else(|| {
                    let any = self.journal.doubtful.any_at(op).filter(|_| asked.is_none());
                    any.filter(|_| mutant!(DoubtVouchedFor))
                })
            {
                kimberlite_probe::reachable!("storage.reads_doubtful");
                self.read_prepare(op, asked, &Row::of(&header), io, out);
            } else {
                out.push(Output::Fetched { op, checksum: asked, result: Err(FetchError::Missing) });
            }
            return;
        };
        let own = entry.header.checksum;
        let other = asked.filter(|asked| *asked != own);
        if let Some(header) = other.and_then(|other| self.journal.doubtful.readable(op, other)) {
            kimberlite_probe::reachable!("storage.reads_other_doubtful");
            self.read_prepare(op, asked, &Row::of(&header), io, out);
            return;
        }
        let result = if other.is_some() {
            kimberlite_probe::reachable!("storage.superseded");
            Err(FetchError::Superseded)
        } else if let Some(prepare) = self.journal.in_memory(op, own) {
            Ok(prepare.clone())
        } else {
            match entry.state {
                State::Missing(_) if self.journal.doubtful.readable(op, own).is_some() => {
                    self.read_prepare(op, asked, &Row::of(&entry.header), io, out);
                    return;
                }
                State::Missing(Mark::Unknown) => {
                    Err(FetchError::Damaged { checksum: Some(own), place: Place::log(entry.header.place) })
                }
                State::Missing(_) => Err(FetchError::Missing),
                _ => {
                    let row = Row::of(&entry.header);
                    self.read_prepare(op, asked, &row, io, out);
                    return;
                }
            }
        };
        out.push(Output::Fetched { op, checksum: asked, result });
    }

    fn read_prepare(
        &mut self,
        op: Op,
        asked: Option<Checksum>,
        row: &Row,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let (place, len) = (Place::log(row.place), sectors(u64::from(row.size)));
        let id = self.fetch_next;
        self.fetch_next += 1;
        self.fetches.insert(id, Fetching { op, asked, expected: row.checksum, place, len });
        match self.window.way(id, row.place, len) {
            Way::Here(bytes) => self.on_part(id, Some(&bytes), io, out),
            Way::Coming => {}
            Way::Ahead(len) => self.asks.read(io, place, len, ReadFor::Window),
            Way::Alone => self.asks.read(io, place, len as usize, ReadFor::Fetch { id }),
        }
    }

    /// Answers a fetch with its part of a window; if what is expected is not there, it is read alone.
    fn on_part(&mut self, id: u64, bytes: Option<&Frame>, io: &mut dyn Io, out: &mut Vec<Output>) {
        let Fetching { expected, place, len, .. } = self.fetches[&id];
        match bytes.and_then(|bytes| expect(bytes, expected)) {
            Some(prepare) => self.answer_fetch(id, Some(prepare), io, out),
            None => self.asks.read(io, place, len as usize, ReadFor::Fetch { id }),
        }
    }

    fn on_fetched(
        &mut self,
        id: u64,
        result: Result<Buf, ReadFault>,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let expected = self.fetches[&id].expected;
        let prepare = result.ok().and_then(|bytes| expect(&bytes.freeze(), expected));
        self.answer_fetch(id, prepare, io, out);
    }

    fn answer_fetch(&mut self, id: u64, prepare: Option<Prepare>, io: &mut dyn Io, out: &mut Vec<Output>) {
        let Fetching { op, asked, expected, place, .. } =
            self.fetches.remove(&id).expect("a fetch is answered once");
        let prepare = prepare.or_else(|| self.journal.in_memory(op, expected).cloned());
        let result = prepare.ok_or_else(|| {
            // What stood in a hole may have been overwritten since: that is no damage to be told of.
            let durable = |entry: &Entry| entry.header.checksum == expected && entry.state == State::Durable;
            if !self.journal.entry(op).is_some_and(durable)
                && self.journal.doubtful.readable(op, expected).is_some()
            {
                self.journal.doubtful.damaged(op, expected);
                return FetchError::Damaged { checksum: Some(expected), place };
            }
            // While it was read, the op may have been replaced, or written again.
            match self.journal.entry(op) {
                Some(entry) if entry.header.checksum != expected => return FetchError::Superseded,
                None if op > self.journal.sealed_through() => return FetchError::Missing,
                _ => {}
            }
            out.push(Output::Damaged { place, what: Damage::Prepare, op: Some(op) });
            kimberlite_probe::reachable!("storage.finds_damage");
            let damaged = FetchError::Damaged { checksum: Some(expected), place };
            if asked.is_some() {
                // Whoever asked knows what is damaged; that it is of the own log is said besides.
                out.push(Output::Fetched { op, checksum: None, result: Err(damaged) });
            }
            damaged
        });
        match &result {
            Err(FetchError::Damaged { .. }) => self.journal.damaged(op, expected),
            // Believed to be of this log, and intact: it is made sure of, like one that a peer sent.
            Ok(prepare) if self.journal.lacks(op, expected) => {
                kimberlite_probe::reachable!("storage.keeps_believed");
                self.journal.append(prepare.clone(), &mut self.asks, io, out);
            }
            _ => {}
        }
        out.push(Output::Fetched { op, checksum: asked, result });
    }

    /// Footers were found for those who waited.
    fn on_found(&mut self, found: Vec<Found>, io: &mut dyn Io, out: &mut Vec<Output>) {
        for (waiting, row) in found {
            match (waiting, row) {
                (Waiting::Fetch { op, checksum }, Some(row)) => {
                    if checksum.is_some_and(|asked| asked != row.checksum) {
                        out.push(Output::Fetched { op, checksum, result: Err(FetchError::Superseded) });
                    } else if let Some(prepare) = self.journal.in_memory(op, row.checksum) {
                        out.push(Output::Fetched { op, checksum, result: Ok(prepare.clone()) });
                    } else {
                        self.read_prepare(op, checksum, &row, io, out);
                    }
                }
                (Waiting::Fetch { op, checksum }, None) => {
                    let (segment, _) = self.journal.sealed_segment(op).expect("the op is sealed");
                    let place = Place::log(segment * self.config.layout.segment_size);
                    let result = Err(FetchError::Damaged { checksum: None, place });
                    out.push(Output::Fetched { op, checksum, result });
                }
                // Only the sealed prepare itself is written over a damaged copy of it. When footer and prepare
                // are both lost, its place is as the parent vouches for it.
                (Waiting::Repair(prepare), row) => {
                    let header = prepare.header;
                    let segment = self.journal.sealed_segment(header.op).map(|(segment, _)| segment);
                    let inside = segment == Some(header.place / self.config.layout.segment_size);
                    if inside && row.is_none_or(|row| row.checksum == header.checksum) {
                        if row.is_none() {
                            self.shelf.mend(&header, &self.config.layout);
                        }
                        self.journal.repair_sealed(prepare, &mut self.asks, io);
                    }
                }
            }
        }
    }

    /// Tells the parent which ops keep segments from sealing.
    fn survey(&self, out: &mut Vec<Output>) {
        for (op, checksum, place) in self.journal.lacking().take(SURVEY_MAX) {
            let result = Err(FetchError::Damaged { checksum, place });
            out.push(Output::Fetched { op, checksum: None, result });
        }
    }

    /// Ops that are missing here, from the sealed part up to the head: damaged, or in a hole and named by the op above.
    pub fn lacking(&self) -> impl Iterator<Item = Op> + '_ {
        self.journal.lacking().map(|(op, ..)| op)
    }

    /// After every input: queued writes, seals, and the end of an open.
    fn settle(&mut self, io: &mut dyn Io, out: &mut Vec<Output>) {
        match &mut self.phase {
            Phase::New | Phase::Halted => {}
            Phase::Opening(opening) => {
                self.journal.pump(&mut self.asks, io);
                if let Some((superblock, recovered)) = opening.finish(&mut self.journal) {
                    self.view = ViewKeeper::new(superblock);
                    self.phase = Phase::Open;
                    out.push(Output::Opened(Box::new(recovered)));
                    self.journal.tell_hole(out);
                    self.journal.seal_ready(&mut self.asks, io);
                }
            }
            Phase::Open => {
                self.journal.seal_ready(&mut self.asks, io);
                self.journal.pump(&mut self.asks, io);
            }
        }
    }
}

/// The prepare with this checksum, if that is what stands there.
fn expect(bytes: &Frame, expected: Checksum) -> Option<Prepare> {
    let right = |prepare: &Prepare| prepare.header.checksum == expected || mutant!(MisdirectedAccepted);
    Prepare::parse(bytes).ok().filter(right)
}

impl Machine for Storage {
    type Input = Input;
    type Output = Output;

    fn on(&mut self, now: Now, input: Input, io: &mut dyn Io, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Halted) {
            return;
        }
        let needs_open = matches!(
            input,
            Input::Append(_)
                | Input::PersistView(_)
                | Input::Fetch { .. }
                | Input::Committed(_)
                | Input::Survey
                | Input::Checkpoint(_)
                | Input::DropCheckpoint
                | Input::Want { .. }
                | Input::FromPeer { .. }
                | Input::Serve { .. }
        );
        assert!(!needs_open || self.is_open(), "nothing is asked of a data directory that is not open");
        match input {
            Input::Start => {
                assert!(matches!(self.phase, Phase::New), "a data directory is opened once");
                self.phase = Phase::Opening(Box::new(Opening::start(&self.config, &mut self.asks, io)));
            }
            Input::Event(event) => self.on_event(now, event, io, out),
            Input::Append(prepare) => {
                let busy = self.view.is_busy();
                if busy && !mutant!(SuffixOverwrittenEarly, self.journal.connects(&prepare.header)) {
                    kimberlite_probe::reachable!("storage.append_waits_for_view");
                    self.waiting.push_back(Waits { prepare, outdated: false });
                } else {
                    self.append(prepare, io, out);
                }
            }
            Input::PersistView(state) => {
                self.waiting.iter_mut().for_each(|waits| waits.outdated = true);
                if mutant!(SuperblockNotAwaited) {
                    out.push(Output::ViewDurable { view: state.view, log_view: state.log_view });
                }
                self.view.persist(state, &mut self.asks, io);
            }
            Input::Fetch { op, checksum } => self.fetch(op, checksum, io, out),
            Input::Committed(op) => {
                self.journal.committed = self.journal.committed.max(op);
            }
            Input::Survey => self.survey(out),
            Input::Checkpoint(new) => self.grid.write(*new, &mut self.view, &mut self.asks, io, out),
            Input::DropCheckpoint => self.grid.drop_checkpoint(&mut self.view, &mut self.asks, io),
            Input::Want { waiter, pages } => self.grid.want(waiter, &pages, &mut self.asks, io, out),
            Input::Release(waiter) => self.grid.release(waiter),
            Input::FromPeer { page, bytes } => self.grid.take_from_peer(page, bytes, &mut self.asks, io, out),
            Input::Serve { to, page } => self.grid.serve(to, page, &mut self.asks, io, out),
            Input::Wake => {}
        }
        self.asks.retry(now.monotonic, io);
        self.settle(io, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.asks.wake_at()
    }
}

#[cfg(test)]
impl Storage {
    /// When it wants to be woken, which it must want.
    pub(crate) fn wake_at_for_test(&self) -> u64 {
        self.wake_at().expect("a wake is wanted").0
    }
}
