//! Guards over ranges: has anything changed, and how much is there.

use alloc::vec::Vec;

use kimberlite_types::{LogPosition, TenantId};

use crate::page::Page;
use crate::pointer::{Miss, POSITION_MIN, PageRef, Pages, Pointer, Tree};
use crate::read::{Snapshot, Stop};
use crate::store::Store;

/// Keys from `low` on and below `high`, to the end without a `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRange<'k> {
    /// The first key of the range.
    pub low: &'k [u8],
    /// The first key behind it.
    pub high: Option<&'k [u8]>,
}

impl KeyRange<'_> {
    /// The entries of a page that may be in the range; of a branch, the children.
    fn of(&self, page: &Page) -> (usize, usize) {
        let high = |high: &[u8]| page.lower_bound(high, POSITION_MIN);
        let end = self.high.map_or(page.count(), high);
        if page.is_leaf() {
            return (page.lower_bound(self.low, POSITION_MIN), end);
        }
        // The first child may hold keys in front of its separator.
        (page.child_index(self.low, POSITION_MIN), end.max(1))
    }

    fn is_empty(&self) -> bool {
        self.high.is_some_and(|high| high <= self.low)
    }
}

impl Store {
    /// Whether a version of any key in the range began or ended behind `since`. Exact: no other key's change is taken
    /// for one of the range.
    ///
    /// Touches the pages at the two edges of the range in each tree, and only those with a change behind `since` below
    /// them: what is inside the range is answered by its parent's pointer.
    pub fn changed_since(
        &self,
        tenant: TenantId,
        range: KeyRange<'_>,
        since: LogPosition,
        pages: &dyn Pages,
    ) -> Result<bool, Stop> {
        self.check_horizon(tenant, Snapshot::At(since))?;
        if range.is_empty() {
            return Ok(false);
        }
        let mut missing = Vec::new();
        for tree in [Tree::Current, Tree::History] {
            let Some(root) = self.roots(tenant).of(tree) else { continue };
            let reader = Reader { store: self, pages, tenant, tree };
            if reader.changed(root.level, &root.pointer, &range, since, &mut missing) {
                return Ok(true);
            }
        }
        if missing.is_empty() { Ok(false) } else { Err(Miss::of_all(missing).into()) }
    }

    /// How many keys of the range have a newest version. Touches the pages at the two edges of the range.
    pub fn count(&self, tenant: TenantId, range: KeyRange<'_>, pages: &dyn Pages) -> Result<u64, Miss> {
        let Some(root) = self.roots(tenant).current.filter(|_| !range.is_empty()) else { return Ok(0) };
        let mut missing = Vec::new();
        let reader = Reader { store: self, pages, tenant, tree: Tree::Current };
        let count = reader.count(root.level, &root.pointer, &range, &mut missing);
        if missing.is_empty() { Ok(count) } else { Err(Miss::of_all(missing)) }
    }
}

struct Reader<'a> {
    store: &'a Store,
    pages: &'a dyn Pages,
    tenant: TenantId,
    tree: Tree,
}

impl<'a> Reader<'a> {
    fn read(&self, level: u8, pointer: &Pointer, missing: &mut Vec<PageRef>) -> Option<&'a Page> {
        match self.store.page(self.pages, self.tenant, self.tree, level, pointer) {
            Ok(page) => Some(page),
            Err(miss) => {
                missing.extend(miss.into_pages());
                None
            }
        }
    }

    /// Misses count as unchanged; the caller looks whether there were any.
    fn changed(
        &self,
        level: u8,
        pointer: &Pointer,
        range: &KeyRange<'_>,
        since: LogPosition,
        missing: &mut Vec<PageRef>,
    ) -> bool {
        if pointer.max <= since {
            return false;
        }
        let Some(page) = self.read(level, pointer, missing) else { return false };
        let (from, end) = range.of(page);
        if page.is_leaf() {
            return (from..end).any(|index| match self.tree {
                Tree::Current => page.leaf_cell(index).begin > since,
                Tree::History => page.rank(index) > since,
            });
        }
        (from + 1..end.saturating_sub(1)).any(|index| page.child_max(index) > since)
            || self.changed(level - 1, &page.child(from), range, since, missing)
            || end - 1 > from && self.changed(level - 1, &page.child(end - 1), range, since, missing)
    }

    fn count(&self, level: u8, pointer: &Pointer, range: &KeyRange<'_>, missing: &mut Vec<PageRef>) -> u64 {
        let Some(page) = self.read(level, pointer, missing) else { return 0 };
        let (from, end) = range.of(page);
        if page.is_leaf() {
            return end.saturating_sub(from) as u64;
        }
        let inside: u64 = (from + 1..end.saturating_sub(1)).map(|index| page.child_entries(index)).sum();
        let mut edges = self.count(level - 1, &page.child(from), range, missing);
        if end - 1 > from {
            edges += self.count(level - 1, &page.child(end - 1), range, missing);
        }
        inside + edges
    }
}
