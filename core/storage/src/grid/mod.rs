//! The grid: pages of checkpoints on the disk, and those of them that are at hand.
//!
//! **Writing.** The pages of a checkpoint are put at hand, written, those that stand side by side together, and only when
//! all are durable does the superblock name it. Until then the one before is named, and nothing of it is overwritten: the
//! store gives a page that was left at a checkpoint to the next one only, which is not begun before this one is
//! named. A page cannot leave the cache before it is durable.
//!
//! **Reading.** A step that misses pages is run again when they came. What it missed is pinned until it is over, so each
//! run has more of what it needs, and a cache smaller than what one step needs grows for that step. Bytes that are not
//! what the parent names are no page: they are told of as bad, and whoever waits runs its step again in any case. If it
//! still asks for the same page, that one is lost; if not, its place was taken by another meanwhile.
//!
//! **Mending.** Where there are peers, a page that cannot be read is asked of them before it is told of as bad
//! ([`Output::PageLost`]). What comes is held against what the parent names, as if it had been read; it is written to its place
//! again, and whoever waited goes on meanwhile. A place that a checkpoint gives to another page is not mended any more, and
//! a checkpoint does not write where one is being mended.

mod cache;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::cell::Cell;

use kimberlite_crypto::{Checksum, checksum};
use kimberlite_io::{Buf, Frame, Io, Place, ReadFault};
use kimberlite_probe::mutant;
use kimberlite_store::{Address, Miss, PAGE_SIZE, PAGES_MAX, Page, PageRef, Pages, Sealed};
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{Config, ReplicaId};

use crate::asks::{Asks, ReadFor, WriteFor};
use crate::view::ViewKeeper;
use crate::{CheckpointName, Damage, NewCheckpoint, Output, PageName, Waiter};
use cache::Cache;

/// Reads of pages in flight: enough to keep a disk busy with reads of 8 KiB.
const READS_MAX: usize = 32;
/// Writes of pages in flight: 8 x 256 KiB.
const WRITES_MAX: usize = 8;
/// Reads for peers in flight: who asks for more meanwhile asks again.
const SERVING_MAX: usize = 8;
/// Pages in one write: 256 KiB.
const WRITE_PAGES_MAX: usize = (256 << 10) / PAGE_SIZE;

const _: () = assert!(PAGE_SIZE.is_multiple_of(SECTOR_SIZE), "a page is whole sectors");

/// How a page is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is read for the first time, or waits for that.
    Read,
    /// It was read, and what came was not it: a read that fails or goes elsewhere need not do so again.
    ReadAgain,
    /// Peers are asked for it.
    Asked,
    /// Its place is given to another page: what is read is taken as it is.
    Replaced,
}

#[derive(Debug)]
struct Reading {
    at: PageRef,
    waiters: Vec<Waiter>,
    stage: Stage,
}

#[derive(Debug, Default)]
struct Waiting {
    left: BTreeSet<PageName>,
    bad: Vec<PageRef>,
}

/// A checkpoint on its way.
#[derive(Debug)]
struct Writing {
    name: CheckpointName,
    /// Pages that are not written yet: the first of those that stand side by side, and how many they are.
    queue: VecDeque<(Address, u64)>,
    /// Whether the superblock is being written.
    naming: bool,
}

/// Pages on the disk and at hand.
#[derive(Debug)]
pub(crate) struct Grid {
    cache: Cache,
    reading: BTreeMap<PageName, Reading>,
    /// Reads that wait for others to end.
    queue: VecDeque<PageName>,
    reads: usize,
    waiting: BTreeMap<Waiter, Waiting>,
    writing: Option<Writing>,
    writes: usize,
    /// Places at which a page that came from a peer is being written.
    mending: BTreeSet<Address>,
    /// Reads for peers.
    serving: usize,
    /// Whether there is anybody to ask for a page that is lost.
    has_peers: bool,
    /// Whether no checkpoint is to be named any more, once the writes in flight are over.
    dropping: bool,
}

/// The pages at hand, for one step. What is asked of it and missing is noted.
pub struct PagesAtHand<'a> {
    cache: &'a Cache,
    missed: Cell<Vec<PageRef>>,
}

impl PagesAtHand<'_> {
    /// What was asked for and is not at hand, each page once.
    pub fn missed(self) -> Vec<PageRef> {
        let mut missed = self.missed.take();
        missed.sort_by_key(|at| (at.address, at.digest));
        missed.dedup();
        missed
    }
}

impl Pages for PagesAtHand<'_> {
    fn page(&self, at: PageRef) -> Result<&Page, Miss> {
        self.cache.get(&at).ok_or_else(|| {
            let mut missed = self.missed.take();
            missed.push(at);
            self.missed.set(missed);
            Miss::of(at)
        })
    }
}

/// Where a page stands.
pub const fn page_place(address: Address) -> Place {
    Place::grid(address.0 * PAGE_SIZE as u64)
}

/// The page that its parent names, if these are its bytes.
fn page_of(at: &PageRef, bytes: &[u8]) -> Option<Page> {
    let bytes: Box<[u8]> = Box::from(bytes);
    let own = || checksum(&bytes);
    let digest = if mutant!(PageUnchecked, own() != at.digest) { own() } else { at.digest };
    Page::decode(&PageRef { digest, ..*at }, bytes).ok()
}

impl Grid {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            cache: Cache::new(config.layout.page_cache_bytes()),
            mending: BTreeSet::new(),
            serving: 0,
            has_peers: config.replicas > 1,
            reading: BTreeMap::new(),
            queue: VecDeque::new(),
            reads: 0,
            waiting: BTreeMap::new(),
            writing: None,
            writes: 0,
            dropping: false,
        }
    }

    pub(crate) const fn at_hand(&self) -> PagesAtHand<'_> {
        PagesAtHand { cache: &self.cache, missed: Cell::new(Vec::new()) }
    }

    pub(crate) fn page(&self, at: &PageRef) -> Option<&Page> {
        self.cache.get(at)
    }

    /// Waiters, a checkpoint, and peers, that were not answered, and pages that are being mended.
    pub(crate) fn pending(&self) -> usize {
        self.waiting.len()
            + usize::from(self.writing.is_some())
            + usize::from(self.dropping)
            + self.mending.len()
            + self.serving
    }

    // ── Reading ─────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn want(
        &mut self,
        waiter: Waiter,
        pages: &[PageRef],
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        assert!(!pages.is_empty(), "a step that misses nothing is not run again");
        let mut waiting = Waiting::default();
        for at in pages {
            if self.cache.pin(at, waiter) {
                continue;
            }
            let name = PageName::of(at);
            let reading = self.reading.entry(name).or_insert_with(|| {
                self.queue.push_back(name);
                Reading { at: *at, waiters: Vec::new(), stage: Stage::Read }
            });
            reading.waiters.push(waiter);
            waiting.left.insert(name);
        }
        if waiting.left.is_empty() {
            kimberlite_probe::reachable!("grid.came_meanwhile");
            out.push(Output::Pages { waiter, bad: Vec::new() });
            return;
        }
        let before = self.waiting.insert(waiter, waiting);
        assert!(before.is_none(), "a waiter waits for one answer");
        self.read_more(asks, io);
    }

    fn read_more(&mut self, asks: &mut Asks, io: &mut dyn Io) {
        while self.reads < READS_MAX
            && let Some(name) = self.queue.pop_front()
        {
            asks.read(io, name.place(), PAGE_SIZE, ReadFor::Page(name));
            self.reads += 1;
        }
        kimberlite_probe::sometimes!("grid.reads_wait", !self.queue.is_empty());
    }

    pub(crate) fn on_read(
        &mut self,
        name: PageName,
        result: Result<Buf, ReadFault>,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        self.reads -= 1;
        let Some(reading) = self.reading.get_mut(&name) else {
            // Nobody wants it any more, as what names it was dropped.
            self.read_more(asks, io);
            return;
        };
        let page = result.ok().and_then(|bytes| page_of(&reading.at, &bytes));
        let bad = page.is_none();
        kimberlite_probe::sometimes!("grid.reads_page", !bad);
        let again = bad && reading.stage == Stage::Read;
        if again {
            kimberlite_probe::reachable!("grid.reads_again");
            reading.stage = Stage::ReadAgain;
            self.queue.push_back(name);
        }
        self.read_more(asks, io);
        if again {
            return;
        }
        if bad {
            kimberlite_probe::reachable!("grid.finds_damage");
            out.push(Output::Damaged { place: name.place(), what: Damage::Page, op: None });
        }
        match self.reading.get_mut(&name) {
            Some(reading) if bad && self.has_peers && reading.stage != Stage::Replaced => {
                reading.stage = Stage::Asked;
                out.push(Output::PageLost { page: name });
            }
            _ => self.come(name, page, out),
        }
    }

    /// A page came, or cannot be had: tells those who wait for it.
    fn come(&mut self, name: PageName, page: Option<Page>, out: &mut Vec<Output>) {
        let Some(Reading { at, waiters, .. }) = self.reading.remove(&name) else { return };
        let bad = page.is_none();
        if let Some(page) = page {
            self.cache.insert(&at, page, &waiters);
        }
        for waiter in waiters {
            let Some(waiting) = self.waiting.get_mut(&waiter) else { continue };
            waiting.left.remove(&name);
            if bad {
                waiting.bad.push(at);
            }
            if waiting.left.is_empty() {
                let Waiting { bad, .. } = self.waiting.remove(&waiter).expect("it was found");
                out.push(Output::Pages { waiter, bad });
            }
        }
    }

    /// Peers gave a page that is lost here, or nobody has it.
    pub(crate) fn take_from_peer(
        &mut self,
        name: PageName,
        bytes: Option<Frame>,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        let asked = |reading: &&Reading| reading.stage == Stage::Asked;
        let Some(reading) = self.reading.get(&name).filter(asked) else { return };
        let page = bytes.and_then(|bytes| page_of(&reading.at, &bytes));
        kimberlite_probe::sometimes!("grid.takes_from_peer", page.is_some());
        if let Some(page) = &page {
            let bytes = Buf::copy_from(page.bytes()).freeze();
            asks.write(io, name.place(), bytes, WriteFor::Mend { address: name.address });
            self.mending.insert(name.address);
        }
        self.come(name, page, out);
    }

    /// Whether a checkpoint is on its way.
    pub(crate) const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether this page is still wanted of peers.
    pub(crate) fn is_asked(&self, name: &PageName) -> bool {
        self.reading.get(name).is_some_and(|reading| reading.stage == Stage::Asked)
    }

    // ── For peers ───────────────────────────────────────────────────────────────────────────────────────

    /// A peer asks for a page.
    pub(crate) fn serve(
        &mut self,
        to: ReplicaId,
        page: PageName,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        if let Some(bytes) = self.cache.bytes(&page) {
            kimberlite_probe::reachable!("grid.serves_at_hand");
            out.push(Output::Served { to, page, bytes: Some(Frame::copy_from(bytes)) });
        } else if page.address.0 >= PAGES_MAX {
            out.push(Output::Served { to, page, bytes: None });
        } else if self.serving < SERVING_MAX {
            self.serving += 1;
            asks.read(io, page.place(), PAGE_SIZE, ReadFor::Peer { to, page });
        }
    }

    pub(crate) fn on_read_for_peer(
        &mut self,
        to: ReplicaId,
        page: PageName,
        result: Result<Buf, ReadFault>,
        out: &mut Vec<Output>,
    ) {
        self.serving -= 1;
        let bytes = result.ok().map(Buf::freeze).filter(|bytes| checksum(bytes) == page.digest);
        kimberlite_probe::sometimes!("grid.serves_page", bytes.is_some());
        kimberlite_probe::sometimes!("grid.has_no_such_page", bytes.is_none());
        out.push(Output::Served { to, page, bytes });
    }

    pub(crate) fn release(&mut self, waiter: Waiter) {
        self.waiting.remove(&waiter);
        self.cache.release(waiter);
    }

    // ── Writing ─────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn write(
        &mut self,
        new: NewCheckpoint,
        view: &mut ViewKeeper,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        assert!(
            self.writing.is_none() && !self.dropping,
            "a checkpoint is begun when the one before is durable"
        );
        let NewCheckpoint { op, checksum, pages } = new;
        assert_eq!(pages.root.page_size(), PAGE_SIZE, "all pages have one size");
        let mut places: Vec<Address> = pages.pages.iter().map(|sealed| sealed.at.address).collect();
        places.sort();
        let mut queue: VecDeque<(Address, u64)> = VecDeque::new();
        for address in places {
            match queue.back_mut() {
                Some((first, count)) if first.0 + *count == address.0 && *count < WRITE_PAGES_MAX as u64 => {
                    *count += 1;
                }
                _ => queue.push_back((address, 1)),
            }
        }
        for Sealed { at, page } in pages.pages {
            self.cache.put(&at, page);
            self.replace(at.address, out);
        }
        self.writing =
            Some(Writing { name: CheckpointName { op, checksum, root: pages.root }, queue, naming: false });
        self.write_more(view, asks, io);
    }

    /// A place is given to another page: what stood there is of no use to anybody, and is not written again.
    fn replace(&mut self, address: Address, out: &mut Vec<Output>) {
        let name_of = |address| PageName { address, digest: Checksum::ZERO };
        let here = name_of(address)..name_of(Address(address.0 + 1));
        let mut asked = Vec::new();
        for (name, reading) in self.reading.range_mut(here) {
            if reading.stage == Stage::Asked {
                asked.push(*name);
            }
            reading.stage = Stage::Replaced;
        }
        for name in asked {
            kimberlite_probe::reachable!("grid.asks_for_what_is_replaced");
            self.come(name, None, out);
        }
    }

    fn write_more(&mut self, view: &mut ViewKeeper, asks: &mut Asks, io: &mut dyn Io) {
        if self.dropping {
            if self.writes == 0 && self.mending.is_empty() {
                view.name(None, asks, io);
            }
            return;
        }
        let Some(writing) = &mut self.writing else { return };
        while self.writes < WRITES_MAX
            && let Some((first, count)) = writing.queue.front().copied()
        {
            if self.mending.range(first..Address(first.0 + count)).next().is_some() {
                kimberlite_probe::reachable!("grid.waits_for_mending");
                break;
            }
            writing.queue.pop_front();
            let mut bytes = Buf::zeroed(count as usize * PAGE_SIZE);
            for (index, part) in bytes.chunks_exact_mut(PAGE_SIZE).enumerate() {
                part.copy_from_slice(self.cache.unwritten(Address(first.0 + index as u64)));
            }
            asks.write(io, page_place(first), bytes.freeze(), WriteFor::Pages { first, count });
            self.writes += 1;
        }
        let written = self.writes == 0 && writing.queue.is_empty();
        if !writing.naming && (written || mutant!(CheckpointNamedEarly, !written)) {
            writing.naming = true;
            view.name(Some(writing.name), asks, io);
        }
    }

    pub(crate) fn on_written(
        &mut self,
        first: Address,
        count: u64,
        view: &mut ViewKeeper,
        asks: &mut Asks,
        io: &mut dyn Io,
    ) {
        self.writes -= 1;
        self.cache.written((first.0..first.0 + count).map(Address));
        self.write_more(view, asks, io);
    }

    /// A page that came from a peer stands in its place again.
    pub(crate) fn on_mended(
        &mut self,
        address: Address,
        view: &mut ViewKeeper,
        asks: &mut Asks,
        io: &mut dyn Io,
        out: &mut Vec<Output>,
    ) {
        self.mending.remove(&address);
        out.push(Output::PageMended { place: page_place(address) });
        self.write_more(view, asks, io);
    }

    /// The superblock names another checkpoint, or none.
    pub(crate) fn named(&mut self, name: Option<&CheckpointName>, out: &mut Vec<Output>) {
        match (name, &self.writing) {
            (None, _) if self.dropping => {
                self.dropping = false;
                out.push(Output::CheckpointDropped);
            }
            (Some(name), Some(writing)) if *name == writing.name => {
                self.writing = None;
                out.push(Output::CheckpointDurable { op: name.op });
            }
            // It became durable when it was of no use any more.
            (Some(_), None) if self.dropping => {}
            _ => unreachable!("one checkpoint is on its way at a time"),
        }
    }

    /// Names none any more. What was on its way is given up; writes in flight are waited for, as their places are needed.
    pub(crate) fn drop_checkpoint(&mut self, view: &mut ViewKeeper, asks: &mut Asks, io: &mut dyn Io) {
        assert!(!self.dropping, "it is dropped once");
        self.dropping = true;
        self.writing = None;
        self.waiting.clear();
        self.reading.clear();
        self.queue.clear();
        self.cache.clear();
        self.write_more(view, asks, io);
    }
}
