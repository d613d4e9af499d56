//! The pages of a checkpoint, one from the other: for whoever looks at all of them.

use alloc::vec::Vec;

use crate::blob::{child_of, root_of};
use crate::layout::BlobRef;
use crate::page::Page;
use crate::pointer::{PageKind, PageRef, Tree};
use crate::store::Store;

/// A page that a checkpoint has, and what it takes to find those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    at: PageRef,
    /// The value that it is a part of.
    blob: Option<BlobRef>,
}

impl Part {
    /// The page, as its parent names it.
    pub const fn at(&self) -> &PageRef {
        &self.at
    }
}

impl Store {
    /// The roots of all trees that were written. Directory and companion, which are read when a store is opened, are not
    /// among them.
    pub fn roots_written(&self) -> Vec<Part> {
        let trees = [Tree::Current, Tree::History];
        let roots = self.tenants.iter().flat_map(|(tenant, roots)| {
            trees.into_iter().filter_map(|tree| {
                let root = roots.of(tree).filter(|root| root.pointer.address.is_place())?;
                Some(Part { at: PageRef::of(&root.pointer, *tenant, tree, root.level), blob: None })
            })
        });
        roots.collect()
    }

    /// The pages that a written page names.
    pub fn below(&self, part: &Part, page: &Page) -> Vec<Part> {
        let Part { at, blob } = part;
        let value = |blob: BlobRef| Part { at: root_of(self.shape, at.tenant, &blob), blob: Some(blob) };
        match (at.kind, blob) {
            (PageKind::Leaf(_), _) => {
                let cells = (0..page.count()).filter_map(|index| page.blob_ref_at(index));
                cells.filter_map(|cell| BlobRef::read(page.bytes(), cell)).map(value).collect()
            }
            (PageKind::Branch(tree), _) => {
                let children = (0..page.count()).map(|index| page.child(index));
                let at = |child| PageRef::of(&child, at.tenant, tree, at.level.saturating_sub(1));
                children.map(|child| Part { at: at(child), blob: None }).collect()
            }
            (PageKind::ValueIndex, Some(blob)) => {
                (0..page.count()).map(|index| value(child_of(self.shape, page, blob, index))).collect()
            }
            (PageKind::Value | PageKind::ValueIndex, _) => Vec::new(),
        }
    }
}
