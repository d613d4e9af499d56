//! The pages at hand, and which of them go when there are too many.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::cell::Cell;

use kimberlite_crypto::Checksum;
use kimberlite_store::{Address, PAGE_SIZE, Page, PageRef};

use crate::{PageName, Waiter};

/// One page.
#[derive(Debug)]
struct Slot {
    digest: Checksum,
    page: Page,
    /// Whether it was asked for since the hand came by. The one thing in the core that reading changes: it says nothing
    /// but which pages are at hand later.
    asked: Cell<bool>,
    /// Whether it is not durable yet.
    unwritten: bool,
    /// Waiters that need it.
    pins: u32,
}

/// Looks of the hand for one page that comes in. More pages go than come, as long as any can.
const LOOKS_MAX: usize = 8;

/// Pages by place. Which one goes is found by the clock algorithm (F. J. Corbató, 1968): a hand goes round, spares what was
/// asked for since it came by, and takes the first that was not.
#[derive(Debug)]
pub(super) struct Cache {
    pages_max: usize,
    slots: BTreeMap<Address, Slot>,
    /// All places, those first which the hand comes to next.
    clock: VecDeque<Address>,
    pins: BTreeMap<Waiter, BTreeSet<Address>>,
}

impl Cache {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            pages_max: (bytes / PAGE_SIZE as u64) as usize,
            slots: BTreeMap::new(),
            clock: VecDeque::new(),
            pins: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, at: &PageRef) -> Option<&Page> {
        let slot = self.slots.get(&at.address).filter(|slot| slot.digest == at.digest)?;
        slot.asked.set(true);
        Some(&slot.page)
    }

    /// The bytes of a page, if it is at hand.
    pub(super) fn bytes(&self, name: &PageName) -> Option<&[u8]> {
        let slot = self.slots.get(&name.address).filter(|slot| slot.digest == name.digest)?;
        Some(slot.page.bytes())
    }

    /// Keeps a page for a waiter, if it is at hand.
    pub(super) fn pin(&mut self, at: &PageRef, waiter: Waiter) -> bool {
        if self.get(at).is_none() {
            return false;
        }
        self.pin_place(at.address, waiter);
        true
    }

    fn pin_place(&mut self, address: Address, waiter: Waiter) {
        if self.pins.entry(waiter).or_default().insert(address) {
            self.slots.get_mut(&address).expect("what is pinned is at hand").pins += 1;
        }
    }

    /// Takes a page that was read, for those who wait for it.
    pub(super) fn insert(&mut self, at: &PageRef, page: Page, waiters: &[Waiter]) {
        // While it was read, its place may have been given to another page.
        if self.slots.get(&at.address).is_some_and(|slot| slot.unwritten) {
            kimberlite_probe::reachable!("grid.reads_what_is_replaced");
            return;
        }
        self.set(at, page, false);
        for waiter in waiters {
            self.pin_place(at.address, *waiter);
        }
        self.make_room(LOOKS_MAX);
    }

    /// Takes a page of a checkpoint that is not durable yet.
    pub(super) fn put(&mut self, at: &PageRef, page: Page) {
        self.set(at, page, true);
    }

    fn set(&mut self, at: &PageRef, page: Page, unwritten: bool) {
        let pins = if let Some(slot) = self.slots.get(&at.address) {
            slot.pins
        } else {
            self.clock.push_back(at.address);
            0
        };
        let slot = Slot { digest: at.digest, page, asked: Cell::new(true), unwritten, pins };
        self.slots.insert(at.address, slot);
    }

    /// The bytes of a page that is to be written.
    pub(super) fn unwritten(&self, address: Address) -> &[u8] {
        let slot = self.slots.get(&address).filter(|slot| slot.unwritten);
        slot.expect("a page stays at hand until it is durable").page.bytes()
    }

    /// Pages are durable.
    pub(super) fn written(&mut self, places: impl Iterator<Item = Address>) {
        for address in places {
            if let Some(slot) = self.slots.get_mut(&address) {
                slot.unwritten = false;
            }
        }
        self.make_room(2 * self.clock.len());
    }

    pub(super) fn release(&mut self, waiter: Waiter) {
        for address in self.pins.remove(&waiter).unwrap_or_default() {
            self.slots.get_mut(&address).expect("what is pinned is at hand").pins -= 1;
        }
        self.make_room(2 * self.clock.len());
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.clock.clear();
        self.pins.clear();
    }

    /// Lets pages go until no more are at hand than may be, or the hand has looked often enough: twice round, it has found
    /// all that can go.
    fn make_room(&mut self, mut looks: usize) {
        while self.slots.len() > self.pages_max && looks > 0 {
            looks -= 1;
            let Some(address) = self.clock.pop_front() else { return };
            let slot = &self.slots[&address];
            if slot.unwritten || slot.pins > 0 || slot.asked.replace(false) {
                self.clock.push_back(address);
            } else {
                kimberlite_probe::reachable!("grid.evicts");
                self.slots.remove(&address);
            }
        }
        kimberlite_probe::sometimes!("grid.holds_more_than_fits", self.slots.len() > self.pages_max);
    }
}
