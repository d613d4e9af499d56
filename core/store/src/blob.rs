//! Values too large for a leaf: pages of their own, below a tree of indexes.
//!
//! Such a value is written once. When its version ends, the history takes over the reference, and no page of the value
//! is touched.

use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_types::TenantId;

use crate::build;
use crate::layout::{BLOB_CELL_SIZE, BlobRef};
use crate::page::Page;
use crate::plan::{Missed, Planner};
use crate::pointer::{Address, Miss, POSITION_MIN, PageKind, PageRef, Pages};
use crate::shape::Shape;
use crate::store::Store;

/// The page at the root of the `length` bytes that a reference means.
pub(crate) fn root_of(shape: Shape, tenant: TenantId, blob: &BlobRef) -> PageRef {
    let used = if blob.level == 0 {
        u64::from(blob.length)
    } else {
        u64::from(blob.length).div_ceil(shape.blob_span(blob.level - 1)) * BLOB_CELL_SIZE as u64
    };
    PageRef {
        address: blob.address,
        digest: blob.digest,
        tenant,
        kind: PageKind::of_value(blob.level),
        level: blob.level,
        max: POSITION_MIN,
        entries: used,
    }
}

/// A child of an index, with the bytes of the value below it.
pub(crate) fn child_of(shape: Shape, page: &Page, blob: &BlobRef, index: usize) -> BlobRef {
    let span = shape.blob_span(blob.level - 1);
    let length = (u64::from(blob.length) - index as u64 * span).min(span) as u32;
    let (address, digest) = page.value_child(index);
    BlobRef { length, level: blob.level - 1, address, digest }
}

impl Store {
    fn blob_page<'a>(
        &'a self,
        pages: &'a dyn Pages,
        tenant: TenantId,
        blob: &BlobRef,
    ) -> Result<&'a Page, Miss> {
        match blob.address.temporary() {
            Some(id) => Ok(self.dirty_page(id)),
            None => read_blob_page(self.shape, pages, tenant, blob),
        }
    }

    /// Appends the value to `to`. On a miss, `to` is as it was.
    pub(crate) fn gather(
        &self,
        pages: &dyn Pages,
        tenant: TenantId,
        blob: &BlobRef,
        to: &mut Vec<u8>,
    ) -> Result<(), Miss> {
        let before = to.len();
        let mut missing = Vec::new();
        gather(self.shape, blob, to, &mut missing, &mut |blob| self.blob_page(pages, tenant, blob));
        if missing.is_empty() {
            return Ok(());
        }
        to.truncate(before);
        Err(Miss::of_all(missing))
    }
}

fn read_blob_page<'a>(
    shape: Shape,
    pages: &'a dyn Pages,
    tenant: TenantId,
    blob: &BlobRef,
) -> Result<&'a Page, Miss> {
    let at = root_of(shape, tenant, blob);
    let page = pages.page(at)?;
    assert!(page.kind() == at.kind && page.level() == at.level, "`Pages` answered with another page");
    Ok(page)
}

/// The bytes of a value all of whose pages were written, and the places of these.
pub(crate) fn gather_written(
    shape: Shape,
    pages: &dyn Pages,
    tenant: TenantId,
    blob: &BlobRef,
) -> Result<(Vec<u8>, Vec<Address>), Miss> {
    let (mut bytes, mut missing, mut places) = (Vec::new(), Vec::new(), Vec::new());
    gather(shape, blob, &mut bytes, &mut missing, &mut |blob| {
        places.push(blob.address);
        read_blob_page(shape, pages, tenant, blob)
    });
    if missing.is_empty() { Ok((bytes, places)) } else { Err(Miss::of_all(missing)) }
}

/// Collects all misses of a level before it gives up.
fn gather<'a>(
    shape: Shape,
    blob: &BlobRef,
    to: &mut Vec<u8>,
    missing: &mut Vec<PageRef>,
    read: &mut dyn FnMut(&BlobRef) -> Result<&'a Page, Miss>,
) {
    match read(blob) {
        Err(miss) => missing.extend(miss.into_pages()),
        Ok(page) if blob.level == 0 => to.extend_from_slice(page.part()),
        Ok(page) => {
            for index in 0..page.count() {
                gather(shape, &child_of(shape, page, blob, index), to, missing, read);
            }
        }
    }
}

impl Planner<'_> {
    /// Pages for a value.
    pub(crate) fn build_blob(&mut self, bytes: &[u8]) -> BlobRef {
        let level = self.store.shape.blob_level(bytes.len() as u32);
        self.build_blob_at(bytes, level)
    }

    fn build_blob_at(&mut self, bytes: &[u8], level: u8) -> BlobRef {
        let (shape, tenant) = (self.store.shape, self.tenant);
        let page = if level == 0 {
            build::value_part(shape, tenant, bytes)
        } else {
            let children: Vec<(Address, Checksum)> = bytes
                .chunks(shape.blob_span(level - 1) as usize)
                .map(|part| self.build_blob_at(part, level - 1))
                .map(|child| (child.address, child.digest))
                .collect();
            build::value_index(shape, tenant, level, &children)
        };
        let address = self.next_address();
        self.built.push(Some(page));
        BlobRef { length: bytes.len() as u32, level, address, digest: Checksum::from_bytes([0; 32]) }
    }

    /// Gives up the pages of a value.
    pub(crate) fn leave_blob(&mut self, blob: &BlobRef) -> Result<(), Missed> {
        if blob.level > 0 {
            let (store, pages) = (self.store, self.pages);
            let page = store.blob_page(pages, self.tenant, blob).map_err(|miss| self.note_miss(miss))?;
            for index in 0..page.count() {
                self.leave_blob(&child_of(store.shape, page, blob, index))?;
            }
        }
        self.leave(blob.address);
        Ok(())
    }
}
