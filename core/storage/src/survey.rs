//! All pages of a checkpoint, one after the other: for whoever makes sure that they are whole.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kimberlite_store::{
    Address, CheckpointRoot, Malformed, Miss, OpenError, PAGE_SIZE, Page, PageRef, Pages, Part, Store,
};

/// Finds the pages of a checkpoint. Whoever holds it reads them: it asks nothing itself.
///
/// First come those of the directory and of what stands beside it, then, of each tree, parents before their children, so that no more
/// wait than one path has siblings. What is not whole is passed over, with all below it.
#[derive(Debug)]
pub struct CheckpointSurvey {
    root: CheckpointRoot,
    /// Pages of the directory that were taken.
    front: BTreeMap<Address, Page>,
    /// Pages of the directory that are wanted.
    wanted: Vec<PageRef>,
    store: Option<Store>,
    parts: Vec<Part>,
    pages: u64,
    /// Whether the directory cannot be read, and with it nothing else.
    is_lost: bool,
}

/// Pages of the directory.
struct Front<'a>(&'a BTreeMap<Address, Page>);

impl Pages for Front<'_> {
    fn page(&self, at: PageRef) -> Result<&Page, Miss> {
        self.0.get(&at.address).ok_or_else(|| Miss::of(at))
    }
}

impl CheckpointSurvey {
    /// Of the checkpoint with this root.
    pub const fn new(root: CheckpointRoot) -> Self {
        Self {
            root,
            front: BTreeMap::new(),
            wanted: Vec::new(),
            store: None,
            parts: Vec::new(),
            pages: 0,
            is_lost: false,
        }
    }

    /// The page that is to be read next, until there are no more.
    pub fn next_page(&mut self) -> Option<PageRef> {
        if self.store.is_none() && self.wanted.is_empty() && !self.is_lost {
            match Store::open(&self.root, &Front(&self.front)) {
                Ok((store, _)) => {
                    self.parts = store.roots_written();
                    self.store = Some(store);
                    self.front.clear();
                }
                Err(OpenError::Miss(miss)) => self.wanted = miss.pages().to_vec(),
                Err(OpenError::Malformed) => self.is_lost = true,
            }
        }
        self.wanted.last().copied().or_else(|| self.parts.last().map(|part| *part.at()))
    }

    /// Takes the page that was to be read next; fails if its bytes are none or others.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if let Some(at) = self.wanted.pop() {
            let page = Page::decode(&at, Box::from(bytes)).inspect_err(|_| {
                self.is_lost = true;
                self.wanted.clear();
            })?;
            self.front.insert(at.address, page);
        } else if let (Some(part), Some(store)) = (self.parts.pop(), &self.store) {
            let page = Page::decode(part.at(), Box::from(bytes))?;
            self.parts.extend(store.below(&part, &page));
        }
        self.pages += 1;
        Ok(())
    }

    /// Pages that were whole so far.
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Bytes of these.
    pub const fn bytes(&self) -> u64 {
        self.pages * PAGE_SIZE as u64
    }

    /// Places of the grid that are in use: as many as there are pages. None before the directory was read.
    pub fn places(&self) -> Option<u64> {
        self.store.as_ref().map(|store| store.pages() - store.free_pages())
    }

    /// Whether the directory is none of this release, or not whole.
    pub const fn is_lost(&self) -> bool {
        self.is_lost
    }
}
