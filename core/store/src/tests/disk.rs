//! Pages in memory, at hand or not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Address, Checkpoint, Miss, Page, PageRef, Pages, Stop};

/// How much of what was written is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// All of it.
    Whole,
    /// Nothing when an operation begins; each page only once it was named in a miss and decoded from its bytes.
    None,
    /// As `None`, and only the first page of a miss is fetched.
    OneByOne,
}

pub(crate) struct Disk {
    memory: Memory,
    written: BTreeMap<Address, Box<[u8]>>,
    here: BTreeMap<Address, Page>,
    /// Pages handed out.
    pub(crate) touched: AtomicUsize,
    /// Misses answered.
    pub(crate) rounds: usize,
}

impl Pages for Disk {
    fn page(&self, at: PageRef) -> Result<&Page, Miss> {
        let page = self.here.get(&at.address).ok_or_else(|| Miss::of(at))?;
        assert_eq!(kimberlite_crypto::checksum(page.bytes()), at.digest, "a stale page is asked for");
        self.touched.fetch_add(1, Ordering::Relaxed);
        Ok(page)
    }
}

impl Disk {
    pub(crate) fn new(memory: Memory) -> Self {
        Self {
            memory,
            written: BTreeMap::new(),
            here: BTreeMap::new(),
            touched: AtomicUsize::new(0),
            rounds: 0,
        }
    }

    pub(crate) fn write(&mut self, checkpoint: &Checkpoint) {
        for sealed in &checkpoint.pages {
            self.written.insert(sealed.at.address, sealed.page.bytes().into());
            if self.memory == Memory::Whole {
                self.here.insert(sealed.at.address, sealed.page.clone());
            } else {
                self.here.remove(&sealed.at.address);
            }
        }
    }

    pub(crate) fn fetch(&mut self, at: &PageRef) {
        let bytes = self.written.get(&at.address).expect("what is asked for was written");
        let page = Page::decode(at, bytes.clone()).expect("what was written is sound");
        assert!(self.here.insert(at.address, page).is_none(), "a page at hand is not missing");
    }

    /// Runs an operation until it has all its pages.
    pub(crate) fn run<T, E: Into<Stop>>(
        &mut self,
        mut operation: impl FnMut(&dyn Pages) -> Result<T, E>,
    ) -> Result<T, Stop> {
        if self.memory != Memory::Whole {
            self.here.clear();
        }
        for _ in 0..100_000 {
            let miss = match operation(self) {
                Ok(done) => return Ok(done),
                Err(error) => match error.into() {
                    Stop::Miss(miss) => miss,
                    stop @ Stop::TooOld { .. } => return Err(stop),
                },
            };
            self.rounds += 1;
            assert_ne!(self.memory, Memory::Whole, "{miss:?} while all is at hand");
            assert!(!miss.pages().is_empty(), "a miss names a page");
            let most = if self.memory == Memory::None { usize::MAX } else { 1 };
            for at in miss.pages().iter().take(most) {
                self.fetch(at);
            }
        }
        panic!("an operation does not end");
    }

    pub(crate) fn get(&mut self, at: &PageRef) -> Page {
        if let Some(page) = self.here.get(&at.address) {
            return page.clone();
        }
        Page::decode(at, self.written[&at.address].clone()).expect("what was written is sound")
    }
}
