//! A place in one tree, and the way to the next leaf.

use alloc::vec::Vec;

use kimberlite_types::{LogPosition, TenantId};

use crate::page::Page;
use crate::pointer::{Miss, PageRef, Pages, Tree};
use crate::shape::READ_AHEAD_MAX;
use crate::store::{Root, Store};

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Keys ascend.
    Forward,
    /// Keys descend.
    Backward,
}

/// Leaves that are looked up together. Of a scan that passes over most leaves each next one is cold: memory then answers
/// for all of them in the time it takes to answer for one.
const NEAR_MAX: usize = 8;

/// A leaf, and the way to it. Lives for one step: it holds pages.
pub(crate) struct Cursor<'a> {
    store: &'a Store,
    pages: &'a dyn Pages,
    tenant: TenantId,
    tree: Tree,
    root: Option<Root>,
    direction: Direction,
    /// Children whose greatest end is not behind this hold nothing that is sought.
    skip: Option<LogPosition>,
    /// Keys at or behind it (forward) or before it (backward) are not sought: no reading ahead there.
    ahead: Option<Vec<u8>>,
    path: Vec<(&'a Page, usize)>,
    /// The branch whose leaves were looked up together, and those that come next, the nearest one last.
    near_of: Option<&'a Page>,
    near: Vec<(usize, &'a Page)>,
    /// `None`: there is nothing further.
    pub(crate) leaf: Option<&'a Page>,
    /// The entry in the leaf; always one that is there.
    pub(crate) index: usize,
    /// Pages read so far.
    pub(crate) touched: u32,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(
        store: &'a Store,
        pages: &'a dyn Pages,
        tenant: TenantId,
        tree: Tree,
        direction: Direction,
    ) -> Self {
        Self {
            store,
            pages,
            tenant,
            tree,
            root: store.roots(tenant).of(tree),
            direction,
            skip: None,
            ahead: None,
            path: Vec::new(),
            near_of: None,
            near: Vec::new(),
            leaf: None,
            index: 0,
            touched: 0,
        }
    }

    /// Passes over what ended at or before `position`.
    pub(crate) fn skipping(mut self, position: LogPosition) -> Self {
        self.skip = Some(position);
        self
    }

    /// Reads ahead up to this key, or to the end of the tree without one.
    pub(crate) fn reading_ahead(mut self, until: Vec<u8>) -> Self {
        self.ahead = Some(until);
        self
    }

    /// The entry it is at.
    pub(crate) fn entry(&self) -> Option<(&'a Page, usize)> {
        self.leaf.map(|leaf| (leaf, self.index))
    }

    fn is_skipped(&self, page: &Page, index: usize) -> bool {
        self.skip.is_some_and(|skip| page.child_max(index) <= skip)
    }

    fn root_page(&mut self) -> Result<Option<&'a Page>, Miss> {
        self.path.clear();
        self.leaf = None;
        let Some(root) = self.root else { return Ok(None) };
        if self.skip.is_some_and(|skip| root.pointer.max <= skip) {
            return Ok(None);
        }
        self.touched += 1;
        self.store.page(self.pages, self.tenant, self.tree, root.level, &root.pointer).map(Some)
    }

    /// The child that the path leads to. A missing leaf is named together with those behind it.
    fn child(&mut self, page: &'a Page, index: usize) -> Result<&'a Page, Miss> {
        self.touched += 1;
        let level = page.level() - 1;
        if level == 0
            && let Some(leaf) = self.near_leaf(page, index)
        {
            return Ok(leaf);
        }
        let read =
            |index: usize| self.store.page(self.pages, self.tenant, self.tree, level, &page.child(index));
        read(index).map_err(|miss| {
            if level > 0 || self.ahead.is_none() {
                return miss;
            }
            let mut missing: Vec<PageRef> = miss.into_pages();
            let wanted = |index: &usize| !self.is_skipped(page, *index) && self.is_ahead(page, *index);
            let mut name = |index| {
                if let Err(miss) = read(index) {
                    missing.extend(miss.into_pages());
                }
            };
            match self.direction {
                Direction::Forward => {
                    (index + 1..page.count()).take(READ_AHEAD_MAX - 1).filter(wanted).for_each(&mut name);
                }
                Direction::Backward => {
                    (0..index).rev().take(READ_AHEAD_MAX - 1).filter(wanted).for_each(&mut name);
                }
            }
            Miss::of_all(missing)
        })
    }

    /// A leaf that is at hand, if leaves are looked up together; those behind it are looked up with it.
    fn near_leaf(&mut self, branch: &'a Page, index: usize) -> Option<&'a Page> {
        if self.skip.is_none() || self.ahead.is_none() || self.direction == Direction::Backward {
            return None;
        }
        if self.near_of.is_some_and(|of| core::ptr::eq(of, branch)) {
            while let Some((at, leaf)) = self.near.pop() {
                if at == index {
                    return Some(leaf);
                }
            }
        }
        let mut near = core::mem::take(&mut self.near);
        near.clear();
        let sought = |at: &usize| !self.is_skipped(branch, *at) && self.is_ahead(branch, *at);
        let wanted = (index..branch.count()).filter(|at| *at == index || sought(at));
        for at in wanted.take(NEAR_MAX) {
            match self.store.page(self.pages, self.tenant, self.tree, 0, &branch.child(at)) {
                Ok(leaf) => near.push((at, leaf)),
                // It is missed when its turn comes.
                Err(_) => break,
            }
        }
        // Nothing comes of it, but no look waits for the one before.
        core::hint::black_box(near.iter().fold(0, |sum, (_, leaf)| sum ^ leaf.look()));
        near.reverse();
        let leaf = near.pop().map(|(_, leaf)| leaf);
        (self.near_of, self.near) = (Some(branch), near);
        leaf
    }

    /// Whether a sibling of a missing leaf will be sought, too.
    fn is_ahead(&self, page: &Page, index: usize) -> bool {
        let Some(until) = &self.ahead else { return false };
        match self.direction {
            Direction::Forward => until.is_empty() || page.key(index).cmp_slice(until).is_lt(),
            Direction::Backward => page.key(index + 1).cmp_slice(until).is_gt(),
        }
    }

    /// Goes to the first entry that is not less.
    pub(crate) fn seek(&mut self, key: &[u8], rank: LogPosition) -> Result<(), Miss> {
        let Some(mut page) = self.root_page()? else { return Ok(()) };
        while !page.is_leaf() {
            let index = page.child_index(key, rank);
            self.path.push((page, index));
            if self.is_skipped(page, index) {
                return self.next_leaf();
            }
            page = self.child(page, index)?;
        }
        self.leaf = Some(page);
        self.go_to(page.lower_bound(key, rank))
    }

    /// Goes to the last entry that is less; of all there are without a bound.
    pub(crate) fn seek_before(&mut self, bound: Option<(&[u8], LogPosition)>) -> Result<(), Miss> {
        let Some(mut page) = self.root_page()? else { return Ok(()) };
        let below = |page: &Page| bound.map_or(page.count(), |(key, rank)| page.lower_bound(key, rank));
        while !page.is_leaf() {
            let index = below(page).saturating_sub(1);
            self.path.push((page, index));
            if self.is_skipped(page, index) {
                return self.next_leaf();
            }
            page = self.child(page, index)?;
        }
        self.leaf = Some(page);
        self.go_back_from(below(page))
    }

    /// Forward: goes to an entry of this leaf, or to the next leaf if it has no such entry.
    pub(crate) fn go_to(&mut self, index: usize) -> Result<(), Miss> {
        self.index = index;
        if self.leaf.is_some_and(|leaf| index < leaf.count()) { Ok(()) } else { self.next_leaf() }
    }

    /// Backward: goes to the entry in front of `index`, or to the leaf in front.
    pub(crate) fn go_back_from(&mut self, index: usize) -> Result<(), Miss> {
        match index.checked_sub(1) {
            Some(index) => {
                self.index = index;
                Ok(())
            }
            None => self.next_leaf(),
        }
    }

    /// Goes to the next entry in its direction.
    pub(crate) fn step(&mut self) -> Result<(), Miss> {
        match self.direction {
            Direction::Forward => self.go_to(self.index + 1),
            Direction::Backward => self.go_back_from(self.index),
        }
    }

    /// Goes to the next leaf in its direction that may hold something sought.
    pub(crate) fn next_leaf(&mut self) -> Result<(), Miss> {
        self.leaf = None;
        while let Some(&(page, index)) = self.path.last() {
            let next = match self.direction {
                Direction::Forward => Some(index + 1).filter(|next| *next < page.count()),
                Direction::Backward => index.checked_sub(1),
            };
            let Some(next) = next else {
                self.path.pop();
                continue;
            };
            if let Some(top) = self.path.last_mut() {
                top.1 = next;
            }
            if !self.is_skipped(page, next) {
                return self.descend(page, next);
            }
        }
        Ok(())
    }

    fn descend(&mut self, page: &'a Page, index: usize) -> Result<(), Miss> {
        let (mut page, mut index) = (page, index);
        loop {
            page = self.child(page, index)?;
            if page.is_leaf() {
                self.leaf = Some(page);
                self.index = match self.direction {
                    Direction::Forward => 0,
                    Direction::Backward => page.count() - 1,
                };
                return Ok(());
            }
            let mut indexes = 0..page.count();
            let wanted = |index: &usize| !self.is_skipped(page, *index);
            let found = match self.direction {
                Direction::Forward => indexes.find(wanted),
                Direction::Backward => indexes.rfind(wanted),
            };
            index = found.expect("a branch's greatest end is that of one of its children");
            self.path.push((page, index));
        }
    }
}
