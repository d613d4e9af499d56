//! Every version there is.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use kimberlite_types::TenantId;

use crate::cursor::{Cursor, Direction};
use crate::page::Stored;
use crate::pointer::{Miss, POSITION_MIN, Pages, Tree};
use crate::read::Version;
use crate::store::Store;

impl Store {
    /// Shows every version of one of a tenant's trees, by key and then by end: for whoever checks the whole of it. Takes
    /// time in proportion to the tree and needs all its pages at hand; after a [`Miss`] it begins anew.
    pub fn walk(
        &self,
        tenant: TenantId,
        tree: Tree,
        pages: &dyn Pages,
        mut visit: impl FnMut(&[u8], Version<'_>),
    ) -> Result<(), Miss> {
        let mut cursor = Cursor::new(self, pages, tenant, tree, Direction::Forward);
        let mut key = Vec::new();
        cursor.seek(&[], POSITION_MIN)?;
        while let Some((page, index)) = cursor.entry() {
            let cell = page.leaf_cell(index);
            let value = match cell.value {
                Stored::Inline(bytes) => Cow::Borrowed(bytes),
                Stored::Elsewhere(blob) => {
                    let mut bytes = Vec::with_capacity(blob.length as usize);
                    self.gather(pages, tenant, &blob, &mut bytes)?;
                    Cow::Owned(bytes)
                }
            };
            key.clear();
            page.key(index).append_to(&mut key);
            let end = (tree == Tree::History).then_some(cell.end);
            visit(&key, Version { begin: cell.begin, end, value });
            cursor.step()?;
        }
        Ok(())
    }
}
