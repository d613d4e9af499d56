//! From what a command writes to the pages that will hold it.
//!
//! A batch is merged into a tree in one pass from the root: each page that a write falls on is written anew, once,
//! whatever the number of writes; its parent takes the new pages in its place. Nothing is changed here: the outcome is
//! a [`Draft`], and all missing pages of a level are named at once.

use alloc::vec::Vec;
use core::fmt;

use kimberlite_types::{LogPosition, TenantId};

use crate::batch::WriteBatch;
use crate::build::{self, BranchItem, LeafItem, Splice, Spread};
use crate::object::same_object;
use crate::page::{Key, LeafCell, Page, Stored};
use crate::pointer::{Address, Miss, POSITION_MIN, PageRef, Pages, Pointer, Tree};
use crate::shape::LEVELS_MAX;
use crate::store::{Root, Store};

/// What a batch makes of the trees: new pages and new roots. Made by [`Store::plan`], used up by [`Store::install`].
pub struct Draft {
    pub(crate) installed: u64,
    pub(crate) tenant: TenantId,
    pub(crate) position: LogPosition,
    pub(crate) current: Option<Root>,
    pub(crate) history: Option<Root>,
    /// Versions that end.
    pub(crate) ended: usize,
    /// New pages; `None` for one that was replaced again.
    pub(crate) built: Vec<Option<Page>>,
    /// Temporary ids whose pages are replaced.
    pub(crate) dropped: Vec<u32>,
    /// Places whose pages are replaced.
    pub(crate) left: Vec<Address>,
}

impl Draft {
    /// How many versions end by it: keys that were there before, and are replaced or deleted.
    pub fn ended(&self) -> usize {
        self.ended
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({} at {}, {} pages)", self.tenant, self.position, self.built.len())
    }
}

/// One change of a tree.
pub(crate) struct Edit<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) rank: LogPosition,
    pub(crate) change: Change<'a>,
}

/// What becomes of an entry.
pub(crate) enum Change<'a> {
    /// It is this.
    Put { begin: LogPosition, value: Given<'a> },
    /// It is not.
    Remove,
}

/// A value on its way into a leaf.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a> {
    /// New; it may be too large for a leaf.
    New(&'a [u8]),
    /// As it stood in another leaf.
    Moved(Stored<'a>),
}

/// A page is missing; the planner knows which.
pub(crate) struct Missed;

/// What became of a page.
enum Outcome {
    /// Nothing changed.
    Same,
    /// These stand in its place.
    Kids(Vec<Kid>),
}

/// A page in place of another one.
struct Kid {
    /// `None`: the separator that the replaced page had.
    separator: Option<(Vec<u8>, LogPosition)>,
    pointer: Pointer,
    /// Its index among the draft's pages.
    built: usize,
    /// It lost something and is nearly empty.
    small: bool,
}

/// A child of a branch that is being written anew.
struct Child<'a> {
    key: Separator<'a>,
    rank: LogPosition,
    pointer: Pointer,
    built: Option<usize>,
    small: bool,
}

enum Separator<'a> {
    Old(Key<'a>),
    New(Vec<u8>),
}

impl Child<'_> {
    fn key(&self) -> Key<'_> {
        match &self.key {
            Separator::Old(key) => *key,
            Separator::New(bytes) => Key::whole(bytes),
        }
    }

    fn item(&self) -> BranchItem<'_> {
        BranchItem { key: self.key(), rank: self.rank, pointer: self.pointer }
    }
}

pub(crate) struct Planner<'a> {
    pub(crate) store: &'a Store,
    pub(crate) pages: &'a dyn Pages,
    pub(crate) tenant: TenantId,
    pub(crate) position: LogPosition,
    pub(crate) built: Vec<Option<Page>>,
    dropped: Vec<u32>,
    left: Vec<Address>,
    missing: Vec<PageRef>,
    /// Versions that this command ends, in the order of their keys.
    past: Vec<Edit<'a>>,
    ended: usize,
    items: Vec<LeafItem<'a>>,
}

impl Store {
    /// What `batch` makes of the trees. The same for the same trees, whatever is at hand: misses cost time alone.
    ///
    /// Touches a path from the root for each write in each tree: with four levels, eight pages for an update and four for
    /// an insert, less what writes share. Pages that get less than a third full also touch a neighbour.
    pub fn plan(&self, batch: &WriteBatch, pages: &dyn Pages) -> Result<Draft, Miss> {
        assert_eq!(batch.shape(), self.shape, "a batch is for stores of its shape");
        let roots = self.roots(batch.tenant());
        assert!(roots.newest <= batch.position(), "commands are planned in the order of the log");
        let writes = batch.net();
        let edits: Vec<Edit<'_>> = writes
            .iter()
            .map(|&(key, value)| Edit {
                key,
                rank: POSITION_MIN,
                change: match value {
                    Some(value) => Change::Put { begin: batch.position(), value: Given::New(value) },
                    None => Change::Remove,
                },
            })
            .collect();
        let mut planner = Planner::new(self, pages, batch.tenant(), batch.position());
        let current = planner.tree(Tree::Current, &edits);
        let past = core::mem::take(&mut planner.past);
        planner.ended = past.len();
        let roots = current.and_then(|current| Ok((current, planner.tree(Tree::History, &past)?)));
        planner.finish(roots.ok())
    }
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        store: &'a Store,
        pages: &'a dyn Pages,
        tenant: TenantId,
        position: LogPosition,
    ) -> Self {
        Self {
            store,
            pages,
            tenant,
            position,
            built: Vec::new(),
            dropped: Vec::new(),
            left: Vec::new(),
            missing: Vec::new(),
            past: Vec::new(),
            ended: 0,
            items: Vec::new(),
        }
    }

    /// The draft with these roots of the current tree and the history; the miss without.
    pub(crate) fn finish(self, roots: Option<(Option<Root>, Option<Root>)>) -> Result<Draft, Miss> {
        let Some((current, history)) = roots else { return Err(Miss::of_all(self.missing)) };
        Ok(Draft {
            installed: self.store.installed,
            tenant: self.tenant,
            position: self.position,
            current,
            history,
            ended: self.ended,
            dropped: self.dropped,
            left: self.left,
            built: self.built,
        })
    }

    pub(crate) fn note_miss(&mut self, miss: Miss) -> Missed {
        self.missing.extend(miss.into_pages());
        Missed
    }

    fn read(&mut self, tree: Tree, level: u8, pointer: &Pointer) -> Result<&'a Page, Missed> {
        self.store.page(self.pages, self.tenant, tree, level, pointer).map_err(|miss| self.note_miss(miss))
    }

    /// The address of the next page to be built.
    pub(crate) fn next_address(&self) -> Address {
        Address::of_temporary(self.store.future_id(self.built.len()))
    }

    /// Gives up the page at an address, for another in its place or for none.
    pub(crate) fn leave(&mut self, address: Address) {
        match address.temporary() {
            Some(id) => self.dropped.push(id),
            None => self.left.push(address),
        }
    }

    fn add(&mut self, page: Page, separator: Option<(Vec<u8>, LogPosition)>, small: bool) -> Kid {
        let pointer = Pointer {
            address: self.next_address(),
            digest: kimberlite_crypto::Checksum::from_bytes([0; 32]),
            max: page.max(),
            entries: page.entries(),
        };
        let built = self.built.len();
        self.built.push(Some(page));
        Kid { separator, pointer, built, small }
    }

    /// Takes a page of this draft out of it again.
    fn unbuild(&mut self, index: usize) -> Page {
        self.dropped.push(self.store.future_id(index));
        self.built[index].take().expect("a page is replaced once")
    }

    /// Makes edits, in the order of their keys, in one tree.
    pub(crate) fn tree(&mut self, tree: Tree, edits: &[Edit<'a>]) -> Result<Option<Root>, Missed> {
        let root = self.store.roots(self.tenant).of(tree);
        if edits.is_empty() {
            return Ok(root);
        }
        let (outcome, mut level) = match root {
            None => (self.leaf(tree, None, edits)?, 0),
            Some(root) => (self.node(tree, root.level, &root.pointer, edits)?, root.level),
        };
        let mut kids = match outcome {
            Outcome::Same => return Ok(root),
            Outcome::Kids(kids) => kids,
        };
        while kids.len() > 1 {
            level += 1;
            assert!(
                level < LEVELS_MAX,
                "a tree of that many levels has more leaves than there are addresses"
            );
            let children = kids.into_iter().map(|kid| {
                let (key, rank) = kid.separator.unwrap_or_default();
                let built = Some(kid.built);
                Child { key: Separator::New(key), rank, pointer: kid.pointer, built, small: false }
            });
            kids = self.branches(tree, level, &children.collect::<Vec<_>>(), 0);
        }
        let Some(top) = kids.pop() else { return Ok(None) };
        self.collapse(tree, level, &top).map(Some)
    }

    /// A branch with one child is no root: the child is.
    fn collapse(&mut self, tree: Tree, mut level: u8, top: &Kid) -> Result<Root, Missed> {
        let (mut pointer, mut built) = (top.pointer, Some(top.built));
        while level > 0 {
            let page = match built {
                Some(index) => self.built[index].as_ref().expect("a root is not replaced"),
                None => self.read(tree, level, &pointer)?,
            };
            if page.count() > 1 {
                break;
            }
            let child = page.child(0);
            match built {
                Some(index) => drop(self.unbuild(index)),
                None => self.leave(pointer.address),
            }
            built = (0..self.built.len()).find(|&index| {
                child.address == Address::of_temporary(self.store.future_id(index))
                    && self.built[index].is_some()
            });
            (pointer, level) = (child, level - 1);
        }
        Ok(Root { pointer, level })
    }

    fn node(
        &mut self,
        tree: Tree,
        level: u8,
        pointer: &Pointer,
        edits: &[Edit<'a>],
    ) -> Result<Outcome, Missed> {
        let page = self.read(tree, level, pointer)?;
        if level == 0 {
            return self.leaf(tree, Some((page, pointer)), edits);
        }
        let mut outcomes: Vec<(usize, Vec<Kid>)> = Vec::new();
        let mut missed = false;
        let mut rest = edits;
        while let Some(first) = rest.first() {
            let index = page.child_index(first.key, first.rank);
            let here = if index + 1 == page.count() {
                rest.len()
            } else {
                let (next, rank) = (page.key(index + 1), page.rank(index + 1));
                rest.partition_point(|edit| {
                    next.cmp_slice(edit.key).then_with(|| rank.cmp(&edit.rank)).is_gt()
                })
            };
            assert!(here > 0, "an edit belongs below the child that it was found to belong to");
            match self.node(tree, level - 1, &page.child(index), &rest[..here]) {
                Ok(Outcome::Kids(kids)) => outcomes.push((index, kids)),
                Ok(Outcome::Same) => {}
                // The others may miss pages of their own.
                Err(Missed) => missed = true,
            }
            rest = &rest[here..];
        }
        if missed {
            return Err(Missed);
        }
        if outcomes.is_empty() {
            return Ok(Outcome::Same);
        }
        let in_place = |(_, kids): &(usize, Vec<Kid>)| matches!(kids.as_slice(), [kid] if !kid.small);
        if outcomes.iter().all(in_place) {
            let changes: Vec<(usize, Pointer)> =
                outcomes.iter().map(|(index, kids)| (*index, kids[0].pointer)).collect();
            let patched = build::patched(page, &changes);
            self.leave(pointer.address);
            return Ok(Outcome::Kids(alloc::vec![self.add(patched, None, false)]));
        }
        let mut children = Self::children(page, outcomes);
        self.join_small(tree, level - 1, &mut children)?;
        self.leave(pointer.address);
        Ok(Outcome::Kids(self.branches(tree, level, &children, page.count())))
    }

    /// The children of a branch, with some of them replaced.
    fn children(page: &'a Page, outcomes: Vec<(usize, Vec<Kid>)>) -> Vec<Child<'a>> {
        let mut outcomes = outcomes.into_iter().peekable();
        let mut children = Vec::with_capacity(page.count() + 8);
        for index in 0..page.count() {
            let old = |pointer, built, small| Child {
                key: Separator::Old(page.key(index)),
                rank: page.rank(index),
                pointer,
                built,
                small,
            };
            let Some((_, kids)) = outcomes.next_if(|(at, _)| *at == index) else {
                children.push(old(page.child(index), None, false));
                continue;
            };
            children.extend(kids.into_iter().map(|kid| match kid.separator {
                None => old(kid.pointer, Some(kid.built), kid.small),
                Some((key, rank)) => Child {
                    key: Separator::New(key),
                    rank,
                    pointer: kid.pointer,
                    built: Some(kid.built),
                    small: kid.small,
                },
            }));
        }
        children
    }

    /// Joins nearly empty children with a neighbour, the right one if there is one.
    fn join_small(&mut self, tree: Tree, level: u8, children: &mut Vec<Child<'a>>) -> Result<(), Missed> {
        let mut missed = false;
        let mut index = 0;
        while index < children.len() && children.len() > 1 {
            if !children[index].small {
                index += 1;
                continue;
            }
            let left = if index + 1 < children.len() { index } else { index - 1 };
            if let Ok(mut joined) = self.join(tree, level, &children[left], &children[left + 1]) {
                if joined.len() > 1 {
                    // They are as even as their entries allow: to join them again would cut them again, for ever.
                    for child in &mut joined {
                        child.small = false;
                    }
                }
                children.splice(left..left + 2, joined);
                index = left;
            } else {
                // The others may miss pages of their own.
                missed = true;
                index += 1;
            }
        }
        if missed { Err(Missed) } else { Ok(()) }
    }

    /// Writes two neighbours anew, as one page if they fit in one.
    fn join(
        &mut self,
        tree: Tree,
        level: u8,
        left: &Child<'a>,
        right: &Child<'a>,
    ) -> Result<Vec<Child<'a>>, Missed> {
        // Read both before one is taken out of the draft: a miss leaves the draft as it was.
        let here = [left, right].map(|child| match child.built {
            Some(_) => Ok(()),
            None => self.read(tree, level, &child.pointer).map(|_| ()),
        });
        for here in here {
            here?;
        }
        let taken = [left, right].map(|child| {
            let Some(index) = child.built else {
                self.leave(child.pointer.address);
                return Err(child.pointer);
            };
            Ok(self.unbuild(index))
        });
        let [a, b] = &taken;
        let a = self.taken(tree, level, a);
        let b = self.taken(tree, level, b);
        let kids = if level == 0 {
            let items: Vec<LeafItem<'_>> = [a, b].into_iter().flat_map(leaf_items).collect();
            self.leaves(tree, &items, Spread::Evenly, usize::MAX)
        } else {
            let mut items: Vec<BranchItem<'_>> = [a, b].into_iter().flat_map(branch_items).collect();
            // The first separator of a branch is not a bound; what its parent says is.
            items[a.count()].key = right.key();
            items[a.count()].rank = right.rank;
            self.branch_pages(tree, level, items, usize::MAX)
        };
        let key = match &left.key {
            Separator::Old(key) => Separator::Old(*key),
            Separator::New(bytes) => Separator::New(bytes.clone()),
        };
        let mut first = Some((key, left.rank));
        Ok(kids
            .into_iter()
            .map(|kid| {
                let (key, rank) = match kid.separator {
                    None => first.take().expect("one page of several keeps the separator"),
                    Some((key, rank)) => (Separator::New(key), rank),
                };
                Child { key, rank, pointer: kid.pointer, built: Some(kid.built), small: kid.small }
            })
            .collect())
    }

    fn taken<'t>(&self, tree: Tree, level: u8, taken: &'t Result<Page, Pointer>) -> &'t Page
    where
        'a: 't,
    {
        match taken {
            Ok(page) => page,
            Err(pointer) => self
                .store
                .page(self.pages, self.tenant, tree, level, pointer)
                .expect("a page stays at hand during a step"),
        }
    }

    /// Branches over these children; `before` is how many there were.
    fn branches(&mut self, tree: Tree, level: u8, children: &[Child<'_>], before: usize) -> Vec<Kid> {
        let items: Vec<BranchItem<'_>> = children.iter().map(Child::item).collect();
        self.branch_pages(tree, level, items, before)
    }

    fn branch_pages(
        &mut self,
        tree: Tree,
        level: u8,
        mut items: Vec<BranchItem<'_>>,
        before: usize,
    ) -> Vec<Kid> {
        let (shape, tenant) = (self.store.shape, self.tenant);
        let shrunk = items.len() < before;
        // The first separator bounds nothing: keys that came in front of it may have made the next one.
        if let [first, second, ..] = &mut items[..]
            && first.key.cmp(&second.key).then_with(|| first.rank.cmp(&second.rank)).is_ge()
        {
            (first.key, first.rank) = (Key::whole(&[]), POSITION_MIN);
        }
        build::cut(shape, tree, &items, Spread::Evenly)
            .into_iter()
            .map(|range| {
                let first = &items[range.start];
                let separator = (range.start > 0).then(|| (first.key.first(first.key.len()), first.rank));
                let page = build::branch(shape, tenant, tree, level, &items[range]);
                let small = shrunk && page.used() < shape.merge_below();
                self.add(page, separator, small)
            })
            .collect()
    }

    /// Leaves of these items; `before` is how many bytes they used before.
    fn leaves(&mut self, tree: Tree, items: &[LeafItem<'_>], spread: Spread, before: usize) -> Vec<Kid> {
        let (shape, tenant) = (self.store.shape, self.tenant);
        let ranges = build::cut(shape, tree, items, spread);
        let shrunk = ranges.len() == 1 && build::used_by(tree, items) < before;
        ranges
            .into_iter()
            .map(|range| {
                let separator =
                    (range.start > 0).then(|| build::separator(&items[range.start - 1], &items[range.start]));
                let page = build::leaf(shape, tenant, tree, &items[range]);
                let small = shrunk && page.used() < shape.merge_below();
                self.add(page, separator, small)
            })
            .collect()
    }

    /// Merges edits into a leaf.
    fn leaf(
        &mut self,
        tree: Tree,
        old: Option<(&'a Page, &Pointer)>,
        edits: &[Edit<'a>],
    ) -> Result<Outcome, Missed> {
        let page = old.map(|(page, _)| page);
        let count = page.map_or(0, Page::count);
        let mut changes: Vec<Splice<'a>> = Vec::with_capacity(edits.len());
        let (mut from, mut appended) = (0, true);
        for edit in edits {
            let found = page.map_or(Err(0), |page| page.search_from(from, edit.key, edit.rank));
            let (Ok(at) | Err(at)) = found;
            from = at;
            if let (Ok(_), Some(page)) = (found, page) {
                self.replaced(tree, edit, &page.leaf_cell(at))?;
                from += 1;
            }
            let added = match &edit.change {
                Change::Remove => None,
                Change::Put { begin, value } => {
                    let value = self.stored(edit.key.len(), *value);
                    Some(LeafItem { key: Key::whole(edit.key), rank: edit.rank, begin: *begin, value })
                }
            };
            if added.is_none() && found.is_err() {
                continue;
            }
            if found.is_err() {
                appended &= page.is_none_or(|page| at == count || !same_object(&page.key(at), edit.key));
            }
            changes.push(Splice { at, removed: found.is_ok(), added });
        }
        if changes.is_empty() {
            return Ok(Outcome::Same);
        }
        let kids = self.changed_leaf(tree, page, &changes, appended);
        if let Some((_, pointer)) = old {
            self.leave(pointer.address);
        }
        Ok(Outcome::Kids(kids))
    }

    /// The leaves that stand in place of one.
    fn changed_leaf(
        &mut self,
        tree: Tree,
        page: Option<&'a Page>,
        changes: &[Splice<'a>],
        appended: bool,
    ) -> Vec<Kid> {
        let shape = self.store.shape;
        if let Some(page) = page
            && let Some(spliced) = build::spliced(shape, tree, page, changes)
        {
            #[cfg(test)]
            crate::tests::check::is_built(tree, page, changes, &spliced);
            let small = spliced.used() < page.used() && spliced.used() < shape.merge_below();
            return alloc::vec![self.add(spliced, None, small)];
        }
        let mut items = core::mem::take(&mut self.items);
        items.clear();
        let old = |range: core::ops::Range<usize>| {
            page.into_iter().flat_map(move |page| range.clone().map(move |index| leaf_item(page, index)))
        };
        // Behind the last new entry.
        let (mut from, mut end) = (0, 0);
        for change in changes {
            items.extend(old(from..change.at));
            from = change.at + usize::from(change.removed);
            items.extend(change.added);
            if !change.removed {
                end = items.len();
            }
        }
        items.extend(old(from..page.map_or(0, Page::count)));
        let spread = if appended && end > 0 { Spread::Appended(end) } else { Spread::Evenly };
        let kids = self.leaves(tree, &items, spread, page.map_or(0, Page::used));
        self.items = items;
        kids
    }

    /// An entry that is replaced or removed: the version goes on in the history, or is no more.
    fn replaced(&mut self, tree: Tree, edit: &Edit<'a>, old: &LeafCell<'a>) -> Result<(), Missed> {
        if tree == Tree::History {
            // The end of a version is the position of one command, and a command ends a version of a key once.
            assert!(matches!(edit.change, Change::Remove), "a version ends once");
            return self.discard(&old.value);
        }
        assert!(old.begin <= self.position, "commands are installed in the order of the log");
        if old.begin == self.position {
            // Written by the same command: no snapshot ever saw it.
            return self.discard(&old.value);
        }
        let change = Change::Put { begin: old.begin, value: Given::Moved(old.value) };
        self.past.push(Edit { key: edit.key, rank: self.position, change });
        Ok(())
    }

    fn discard(&mut self, value: &Stored<'_>) -> Result<(), Missed> {
        match value {
            Stored::Inline(_) => Ok(()),
            Stored::Elsewhere(blob) => self.leave_blob(blob),
        }
    }

    fn stored(&mut self, key_size: usize, value: Given<'a>) -> Stored<'a> {
        match value {
            Given::Moved(stored) => stored,
            Given::New(bytes) if self.store.shape.is_inline(key_size, bytes.len()) => Stored::Inline(bytes),
            Given::New(bytes) => Stored::Elsewhere(self.build_blob(bytes)),
        }
    }
}

#[inline]
pub(crate) fn leaf_item(page: &Page, index: usize) -> LeafItem<'_> {
    let cell = page.leaf_cell(index);
    LeafItem {
        key: Key { head: page.prefix(), tail: cell.tail },
        rank: cell.end,
        begin: cell.begin,
        value: cell.value,
    }
}

fn leaf_items(page: &Page) -> impl Iterator<Item = LeafItem<'_>> {
    (0..page.count()).map(move |index| leaf_item(page, index))
}

fn branch_items(page: &Page) -> impl Iterator<Item = BranchItem<'_>> {
    (0..page.count()).map(move |index| BranchItem {
        key: page.key(index),
        rank: page.rank(index),
        pointer: page.child(index),
    })
}
