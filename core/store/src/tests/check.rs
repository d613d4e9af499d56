//! What must hold of all trees of a store, and of the places of its pages.

use std::collections::BTreeSet;

use kimberlite_types::{LogPosition, TenantId};

use super::disk::Disk;
use crate::blob::child_of;
use crate::build::{self, Splice};
use crate::layout::BlobRef;
use crate::page::{Page, Stored};
use crate::plan::leaf_item;
use crate::pointer::{POSITION_MIN, PageKind, PageRef, Pointer};
use crate::{Address, Store, Tree};

type Bound = Option<(Vec<u8>, LogPosition)>;

struct Walk<'a> {
    store: &'a Store,
    disk: &'a mut Disk,
    tenant: TenantId,
    tree: Tree,
    places: BTreeSet<Address>,
    dirty: BTreeSet<u32>,
    last: Bound,
}

/// Walks all trees: keys are in order and within their separators, pointers say what is below them, no page is in two
/// places, and every place of the file is in use once or free.
pub(crate) fn check(store: &Store, disk: &mut Disk) {
    let mut places = BTreeSet::new();
    let mut dirty = BTreeSet::new();
    for tenant in store.tenants().collect::<Vec<_>>() {
        for tree in [Tree::Current, Tree::History] {
            let mut walk = Walk { store, disk, tenant, tree, places, dirty, last: None };
            if let Some(root) = store.roots(tenant).of(tree) {
                walk.pointer(root.level, &root.pointer, &None, &None, true);
            }
            (places, dirty) = (walk.places, walk.dirty);
        }
    }
    assert_eq!(dirty.len(), store.dirty_pages(), "every dirty page is in a tree");
    let used = places.len() + store.left.len() + store.directory.len();
    assert_eq!(used as u64 + store.free_pages(), store.pages(), "every place is in use or free");
    for left in store.left.iter().chain(&store.directory) {
        assert!(places.insert(*left), "a place that was left is not in use");
    }
}

impl Walk<'_> {
    fn take(&mut self, address: Address) {
        match address.temporary() {
            Some(id) => assert!(self.dirty.insert(id), "a page is in two places"),
            None => assert!(self.places.insert(address), "a page is in two places"),
        }
    }

    fn pointer(&mut self, level: u8, pointer: &Pointer, low: &Bound, high: &Bound, root: bool) {
        self.take(pointer.address);
        let page = match pointer.address.temporary() {
            Some(id) => self.store.dirty_page(id).clone(),
            None => self.disk.get(&PageRef::of(pointer, self.tenant, self.tree, level)),
        };
        assert_eq!((page.max(), page.entries()), (pointer.max, pointer.entries));
        assert_eq!(page.kind(), PageKind::of(self.tree, level));
        assert!(page.count() > 0, "no page is empty");
        assert!(!root || level == 0 || page.count() > 1, "a root has children");
        if level == 0 {
            self.leaf(&page, low, high);
            return;
        }
        for index in 0..page.count() {
            let bound = |index: usize| Some((page.key(index).first(page.key(index).len()), page.rank(index)));
            let from = if index == 0 { low.clone() } else { bound(index) };
            let to = if index + 1 < page.count() { bound(index + 1) } else { high.clone() };
            self.pointer(level - 1, &page.child(index), &from, &to, false);
        }
    }

    fn leaf(&mut self, page: &Page, low: &Bound, high: &Bound) {
        for index in 0..page.count() {
            let key = page.key(index).first(page.key(index).len());
            let here = Some((key, page.rank(index)));
            assert!(low.is_none() || *low <= here, "in front of its separator");
            assert!(high.is_none() || here < *high, "behind the next separator");
            assert!(self.last < here, "out of order");
            self.last = here;
            if let Stored::Elsewhere(blob) = page.leaf_cell(index).value {
                self.blob(&blob);
            }
        }
    }

    fn blob(&mut self, blob: &BlobRef) {
        self.take(blob.address);
        if blob.level == 0 {
            return;
        }
        let page = if let Some(id) = blob.address.temporary() {
            self.store.dirty_page(id).clone()
        } else {
            let children = u64::from(blob.length).div_ceil(self.store.shape.blob_span(blob.level - 1));
            self.disk.get(&PageRef {
                address: blob.address,
                digest: blob.digest,
                tenant: self.tenant,
                kind: PageKind::ValueIndex,
                level: blob.level,
                max: POSITION_MIN,
                entries: children * 40,
            })
        };
        for index in 0..page.count() {
            self.blob(&child_of(self.store.shape, &page, blob, index));
        }
    }
}

/// A leaf that was spliced has the bytes of one that is built of its entries; checked whenever a test splices one.
pub(crate) fn is_built(tree: Tree, page: &Page, changes: &[Splice<'_>], spliced: &Page) {
    let mut items = Vec::new();
    let mut from = 0;
    for change in changes {
        items.extend((from..change.at).map(|index| leaf_item(page, index)));
        from = change.at + usize::from(change.removed);
        items.extend(change.added);
    }
    items.extend((from..page.count()).map(|index| leaf_item(page, index)));
    let tenant = TenantId(crate::layout::u64_at(page.bytes(), crate::layout::at::TENANT));
    let shape = crate::Shape::new(page.bytes().len()).expect("a page has the size of one");
    assert_eq!(&build::leaf(shape, tenant, tree, &items), spliced);
    assert_eq!(build::leaf(shape, tenant, tree, &items).bytes(), spliced.bytes());
}
