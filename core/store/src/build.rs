//! Writes pages: the same entries give the same bytes, wherever they came from.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use kimberlite_crypto::Checksum;
use kimberlite_types::{LogPosition, TenantId};

use crate::layout::{
    BLOB_CELL_SIZE, BLOB_REF_SIZE, CURRENT_BRANCH_FIXED, CURRENT_LEAF_FIXED, ELSEWHERE, HEADER_SIZE,
    HISTORY_BRANCH_FIXED, HISTORY_LEAF_FIXED, MAGIC, POSITION_SIZE, SLOT_SIZE, VERSION, at, put_pointer,
    put_position,
};
use crate::page::{Key, Page, Stored};
use crate::pointer::{Address, PageKind, Pointer, Tree};
use crate::shape::Shape;

/// An entry of a leaf to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafItem<'p> {
    pub(crate) key: Key<'p>,
    pub(crate) rank: LogPosition,
    pub(crate) begin: LogPosition,
    pub(crate) value: Stored<'p>,
}

/// A child of a branch to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BranchItem<'p> {
    pub(crate) key: Key<'p>,
    pub(crate) rank: LogPosition,
    pub(crate) pointer: Pointer,
}

/// What pages are cut by: keys and sizes.
pub(crate) trait Item {
    fn key(&self) -> &Key<'_>;
    /// Bytes of the cell and its slot, with the whole key.
    fn size(&self, tree: Tree) -> usize;
}

impl Item for LeafItem<'_> {
    #[inline]
    fn key(&self) -> &Key<'_> {
        &self.key
    }

    #[inline]
    fn size(&self, tree: Tree) -> usize {
        let fixed = match tree {
            Tree::Current => CURRENT_LEAF_FIXED,
            Tree::History => HISTORY_LEAF_FIXED,
        };
        let value = match self.value {
            Stored::Inline(bytes) => bytes.len(),
            Stored::Elsewhere(_) => BLOB_REF_SIZE,
        };
        SLOT_SIZE + fixed + self.key.len() + value
    }
}

impl Item for BranchItem<'_> {
    #[inline]
    fn key(&self) -> &Key<'_> {
        &self.key
    }

    #[inline]
    fn size(&self, tree: Tree) -> usize {
        let fixed = match tree {
            Tree::Current => CURRENT_BRANCH_FIXED,
            Tree::History => HISTORY_BRANCH_FIXED,
        };
        SLOT_SIZE + fixed + self.key.len()
    }
}

/// How entries that do not fit in one page are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Over as few pages as will do, about equally.
    Evenly,
    /// Entries were added behind all others of their object, and more will come: what is in front of this index fills
    /// its pages from the left, what is behind it stands in the last of these if it fits and else apart.
    Appended(usize),
}

/// What the keys of sorted items begin with alike.
fn prefix_of<I: Item>(items: &[I]) -> usize {
    match items {
        [] => 0,
        [first, .., last] => first.key().common(last.key()),
        [only] => only.key().len(),
    }
}

/// The bytes that the items would use in one page.
pub(crate) fn used_by<I: Item>(tree: Tree, items: &[I]) -> usize {
    let prefix = prefix_of(items);
    prefix + items.iter().map(|item| item.size(tree) - prefix).sum::<usize>()
}

/// Cuts sorted items into ranges that fit a page each. No range is empty.
///
/// Sizes are reckoned with the prefix that all items share; a page's own may be longer, never shorter.
pub(crate) fn cut<I: Item>(shape: Shape, tree: Tree, items: &[I], spread: Spread) -> Vec<Range<usize>> {
    if items.is_empty() {
        return Vec::new();
    }
    let prefix = prefix_of(items);
    let capacity = shape.capacity() - prefix;
    let sizes: Vec<usize> = items.iter().map(|item| item.size(tree) - prefix).collect();
    if sizes.iter().sum::<usize>() <= capacity {
        return core::iter::once(0..items.len()).collect();
    }
    match spread {
        Spread::Evenly => evenly(&sizes, 0..items.len(), capacity),
        Spread::Appended(end) => {
            let mut ranges = filled(&sizes, end, capacity);
            let last = ranges.last().cloned().unwrap_or(0..0);
            let tail = end..items.len();
            if sizes[last.start..].iter().sum::<usize>() <= capacity {
                ranges.pop();
                ranges.push(last.start..items.len());
            } else if !tail.is_empty() {
                ranges.extend(evenly(&sizes, tail, capacity));
            }
            ranges
        }
    }
}

fn filled(sizes: &[usize], end: usize, capacity: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (index, size) in sizes[..end].iter().enumerate() {
        if sum + size > capacity {
            ranges.push(start..index);
            (start, sum) = (index, 0);
        }
        sum += size;
    }
    if start < end {
        ranges.push(start..end);
    }
    ranges
}

/// As few ranges as will do. A cell is a quarter of a page at most, so twice as many as the bytes need always do.
fn evenly(sizes: &[usize], range: Range<usize>, capacity: usize) -> Vec<Range<usize>> {
    let total: usize = sizes[range.clone()].iter().sum();
    let least = total.div_ceil(capacity).max(1);
    for count in least..=2 * least {
        let mut ranges = Vec::with_capacity(count);
        let (mut start, mut sum, mut done) = (range.start, 0, 0);
        for index in range.clone() {
            sum += sizes[index];
            done += sizes[index];
            let last = ranges.len() + 1 == count;
            if !last && done * count >= total * (ranges.len() + 1) || index + 1 == range.end {
                if sum > capacity {
                    break;
                }
                ranges.push(start..index + 1);
                (start, sum) = (index + 1, 0);
            }
        }
        if start == range.end {
            return ranges;
        }
    }
    unreachable!("cells of a quarter of a page fit when there are twice as many pages as bytes need")
}

/// The shortest separator between two neighbours: more than the left one, and not more than the right one.
pub(crate) fn separator(left: &LeafItem<'_>, right: &LeafItem<'_>) -> (Vec<u8>, LogPosition) {
    let common = left.key.common(&right.key);
    if common == right.key.len() {
        // Only one key's versions agree in all of the right key: keys are in order.
        return (right.key.first(common), right.rank);
    }
    (right.key.first(common + 1), crate::pointer::POSITION_MIN)
}

fn blank(shape: Shape, tenant: TenantId, kind: PageKind, level: u8) -> Box<[u8]> {
    let mut bytes = vec![0; shape.page_size()].into_boxed_slice();
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[at::VERSION] = VERSION;
    bytes[at::KIND] = kind.code();
    bytes[at::LEVEL] = level;
    bytes[at::TENANT..at::TENANT + 8].copy_from_slice(&tenant.0.to_le_bytes());
    bytes
}

/// Writes header, prefix and slots of a page of a tree, and hands each cell's place to `cell`, which writes the cell
/// and says where it ends.
fn tree_page<I: Item>(
    mut bytes: Box<[u8]>,
    items: &[I],
    cell: impl Fn(&mut [u8], usize, &I, usize) -> usize,
) -> Page {
    let prefix = prefix_of(items);
    let slots = HEADER_SIZE + prefix;
    let mut next = slots + items.len() * SLOT_SIZE;
    bytes[at::COUNT..at::COUNT + 2].copy_from_slice(&(items.len() as u16).to_le_bytes());
    bytes[at::PREFIX..at::PREFIX + 2].copy_from_slice(&(prefix as u16).to_le_bytes());
    if let Some(first) = items.first() {
        bytes[HEADER_SIZE..slots].copy_from_slice(&first.key().first(prefix));
    }
    for (index, item) in items.iter().enumerate() {
        let slot = slots + index * SLOT_SIZE;
        bytes[slot..slot + 2].copy_from_slice(&(next as u16).to_le_bytes());
        next = cell(&mut bytes, next, item, prefix);
    }
    let used = (next - HEADER_SIZE) as u32;
    bytes[at::USED..at::USED + 4].copy_from_slice(&used.to_le_bytes());
    Page::built(bytes)
}

#[inline]
fn put_key(bytes: &mut [u8], cell: usize, fixed: usize, key: &Key<'_>, prefix: usize) -> usize {
    let size = key.len() - prefix;
    bytes[cell..cell + 2].copy_from_slice(&(size as u16).to_le_bytes());
    let end = cell + fixed + size;
    key.write_rest(prefix, &mut bytes[cell + fixed..end]);
    end
}

/// A leaf of these entries, which fit.
pub(crate) fn leaf(shape: Shape, tenant: TenantId, tree: Tree, items: &[LeafItem<'_>]) -> Page {
    tree_page(blank(shape, tenant, PageKind::Leaf(tree), 0), items, |bytes, cell, item, prefix| {
        put_leaf_cell(bytes, cell, tree, item, prefix)
    })
}

fn put_leaf_cell(bytes: &mut [u8], cell: usize, tree: Tree, item: &LeafItem<'_>, prefix: usize) -> usize {
    let fixed = match tree {
        Tree::Current => CURRENT_LEAF_FIXED,
        Tree::History => HISTORY_LEAF_FIXED,
    };
    put_position(bytes, cell + 4, item.begin);
    if tree == Tree::History {
        put_position(bytes, cell + 4 + POSITION_SIZE, item.rank);
    }
    let value = put_key(bytes, cell, fixed, &item.key, prefix);
    let (size, end) = match item.value {
        Stored::Inline(inline) => {
            let end = value + inline.len();
            bytes[value..end].copy_from_slice(inline);
            (inline.len() as u16, end)
        }
        Stored::Elsewhere(blob) => {
            blob.write(bytes, value);
            (ELSEWHERE, value + BLOB_REF_SIZE)
        }
    };
    bytes[cell + 2..cell + 4].copy_from_slice(&size.to_le_bytes());
    end
}

/// A change of a leaf, in the order of its entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Splice<'p> {
    /// The entry that goes, or in front of which another one comes.
    pub(crate) at: usize,
    pub(crate) removed: bool,
    pub(crate) added: Option<LeafItem<'p>>,
}

/// The leaf that [`leaf`] would make of a leaf's entries and these changes, by copying what does not change in one
/// piece; `None` if the entries do not fit in one page, or if the first or last key changes, and maybe the prefix.
pub(crate) fn spliced(shape: Shape, tree: Tree, page: &Page, changes: &[Splice<'_>]) -> Option<Page> {
    let (count, prefix) = (page.count(), page.prefix().len());
    let (mut used, mut entries) = (page.used(), count);
    for Splice { at, removed, added } in changes {
        let is_inside = match (removed, added) {
            (true, Some(_)) => true,
            (true, None) => *at > 0 && at + 1 < count,
            (false, _) => *at > 0 && *at < count,
        };
        if !is_inside {
            return None;
        }
        if let Some(item) = added {
            used += item.size(tree) - prefix;
            entries += 1;
        }
        if *removed {
            used -= page.cells(*at..at + 1).len() + SLOT_SIZE;
            entries -= 1;
        }
    }
    if used > shape.capacity() {
        return None;
    }
    let mut bytes = vec![0; shape.page_size()].into_boxed_slice();
    let slots = HEADER_SIZE + prefix;
    bytes[..slots].copy_from_slice(&page.bytes()[..slots]);
    bytes[at::COUNT..at::COUNT + 2].copy_from_slice(&(entries as u16).to_le_bytes());
    bytes[at::USED..at::USED + 4].copy_from_slice(&(used as u32).to_le_bytes());
    let (mut slot, mut cell) = (slots, slots + entries * SLOT_SIZE);
    let mut from = 0;
    let copy = |bytes: &mut [u8], slot: &mut usize, cell: &mut usize, run: Range<usize>| {
        let cells = page.cells(run.clone());
        let shift = cells.start;
        for index in run {
            let place = page.cells(index..index + 1).start - shift + *cell;
            bytes[*slot..*slot + 2].copy_from_slice(&(place as u16).to_le_bytes());
            *slot += SLOT_SIZE;
        }
        let end = *cell + cells.len();
        bytes[*cell..end].copy_from_slice(&page.bytes()[cells]);
        *cell = end;
    };
    for change in changes {
        copy(&mut bytes, &mut slot, &mut cell, from..change.at);
        from = change.at + usize::from(change.removed);
        if let Some(item) = &change.added {
            bytes[slot..slot + 2].copy_from_slice(&(cell as u16).to_le_bytes());
            slot += SLOT_SIZE;
            cell = put_leaf_cell(&mut bytes, cell, tree, item, prefix);
        }
    }
    copy(&mut bytes, &mut slot, &mut cell, from..count);
    assert_eq!(cell, HEADER_SIZE + used, "cells take the bytes that were reckoned");
    Some(Page::built(bytes))
}

/// A branch of these children, which fit.
pub(crate) fn branch(
    shape: Shape,
    tenant: TenantId,
    tree: Tree,
    level: u8,
    items: &[BranchItem<'_>],
) -> Page {
    tree_page(blank(shape, tenant, PageKind::Branch(tree), level), items, |bytes, cell, item, prefix| {
        let fixed = match tree {
            Tree::Current => CURRENT_BRANCH_FIXED,
            Tree::History => {
                put_position(bytes, cell + HISTORY_BRANCH_FIXED - POSITION_SIZE, item.rank);
                HISTORY_BRANCH_FIXED
            }
        };
        put_pointer(bytes, cell + 2, &item.pointer);
        put_key(bytes, cell, fixed, &item.key, prefix)
    })
}

/// The same branch with other pointers to some of its children.
pub(crate) fn patched(page: &Page, changes: &[(usize, Pointer)]) -> Page {
    let mut page = page.clone();
    for (index, pointer) in changes {
        let at = page.child_at(*index);
        put_pointer(page.bytes_mut(), at, pointer);
    }
    page
}

/// A page with a part of a value.
pub(crate) fn value_part(shape: Shape, tenant: TenantId, part: &[u8]) -> Page {
    let mut bytes = blank(shape, tenant, PageKind::Value, 0);
    bytes[HEADER_SIZE..HEADER_SIZE + part.len()].copy_from_slice(part);
    bytes[at::USED..at::USED + 4].copy_from_slice(&(part.len() as u32).to_le_bytes());
    Page::built(bytes)
}

/// A page that says where the parts of a value are.
pub(crate) fn value_index(
    shape: Shape,
    tenant: TenantId,
    level: u8,
    children: &[(Address, Checksum)],
) -> Page {
    let mut bytes = blank(shape, tenant, PageKind::ValueIndex, level);
    for (index, (address, digest)) in children.iter().enumerate() {
        let at = Page::value_child_at(index);
        bytes[at..at + 8].copy_from_slice(&address.0.to_le_bytes());
        bytes[at + 8..at + BLOB_CELL_SIZE].copy_from_slice(digest.as_bytes());
    }
    bytes[at::COUNT..at::COUNT + 2].copy_from_slice(&(children.len() as u16).to_le_bytes());
    let used = (children.len() * BLOB_CELL_SIZE) as u32;
    bytes[at::USED..at::USED + 4].copy_from_slice(&used.to_le_bytes());
    Page::built(bytes)
}
