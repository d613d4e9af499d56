//! Checkpoints: dirty pages get their places and digests, and a root names all that there is.
//!
//! Places are taken in tree order: tenants by number, the current tree before the history, children before their
//! parent from the lowest key to the highest. The lowest free place is taken first. A page that was left since the last
//! checkpoint is free for the next one, not for this one: until this one is durable, the last one needs it.
//!
//! # The directory
//!
//! The roots of all tenants and the free set are one sequence of bytes, stored as values are and written whole. What
//! else belongs to the same state, and is nothing to the store, stands beside it as another such sequence, its
//! *companion*: it is written, named and freed with the directory.
//!
//! ```text
//!  at size
//!   0   8  checkpoint's number, from 1
//!   8   8  pages of the file
//!  16   4  tenants
//!  20   4  zeros
//!  24  48  where the companion is, as values are named; zeros if there is none
//!  72      for each tenant, by number, 168 bytes:
//!            8  tenant
//!           12  horizon
//!           12  newest position
//!           68  current tree: level of its root, or 255 if it is empty; 7 zeros; pointer
//!           68  history tree
//!          then the free set: 8 bytes for each 64 pages, the lowest bit first; a set bit is a page that the next
//!          checkpoint may write to
//! ```
//!
//! # The root
//!
//! ```text
//!   0   4  magic "kbcp"
//!   4   1  version of the layout: 2
//!   5   1  level of the directory's root
//!   6   2  zeros
//!   8   4  size of pages
//!  12   4  bytes of the directory
//!  16   8  number
//!  24   8  address of the directory's root
//!  32  32  digest of the directory's root
//! ```

use alloc::vec::Vec;
use core::fmt;

use kimberlite_crypto::{Checksum, checksum};
use kimberlite_probe::mutant;
use kimberlite_types::TenantId;

use crate::blob::{child_of, gather_written};
use crate::build;
use crate::free_set::FreeSet;
use crate::layout::{
    BLOB_CELL_SIZE, BLOB_REF_SIZE, BlobRef, POINTER_SIZE, POSITION_SIZE, checksum_at, pointer_at,
    position_at, put_pointer, put_position, u32_at, u64_at,
};
use crate::page::Page;
use crate::pointer::{Address, Miss, NO_TENANT, POSITION_MIN, PageRef, Pages, Pointer, Tree};
use crate::shape::{LEVELS_MAX, Shape, TENANTS_MAX};
use crate::store::{Root, Roots, Store};

/// Bytes of a checkpoint's root.
pub const CHECKPOINT_ROOT_SIZE: usize = 64;

const MAGIC: [u8; 4] = *b"kbcp";
const VERSION: u8 = 2;
const COMPANION_AT: usize = 24;
const DIRECTORY_HEAD: usize = COMPANION_AT + BLOB_REF_SIZE;
const ROOT_SIZE: usize = 8 + POINTER_SIZE;
const TENANT_SIZE: usize = 8 + 2 * POSITION_SIZE + 2 * ROOT_SIZE;
const NO_ROOT: u8 = u8::MAX;

/// Names all pages of a checkpoint, by digests down to the last value. Stands in the superblock; equal roots are
/// equal stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointRoot {
    page_size: u32,
    sequence: u64,
    directory: BlobRef,
}

/// A page that got its place: to be written there, and to be at hand or read back from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The page as its parent names it.
    pub at: PageRef,
    /// The page.
    pub page: Page,
}

/// What a checkpoint writes. It is durable when all pages are, and then the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its root.
    pub root: CheckpointRoot,
    /// Its pages that earlier checkpoints do not have, children before parents.
    pub pages: Vec<Sealed>,
}

/// A store cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Pages of the directory are missing.
    Miss(Miss),
    /// The root or the directory is none of this version.
    Malformed,
}

impl From<Miss> for OpenError {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Miss(miss) => write!(f, "{} pages of the directory are missing", miss.pages().len()),
            Self::Malformed => f.write_str("no checkpoint of this version"),
        }
    }
}

impl CheckpointRoot {
    /// Which checkpoint it is, from 1.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes of each of its pages.
    pub fn page_size(&self) -> usize {
        self.page_size as usize
    }

    /// The digest that covers everything.
    pub fn digest(&self) -> Checksum {
        self.directory.digest
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; CHECKPOINT_ROOT_SIZE] {
        let mut bytes = [0; CHECKPOINT_ROOT_SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.directory.level;
        bytes[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.directory.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.directory.address.0.to_le_bytes());
        bytes[32..].copy_from_slice(self.directory.digest.as_bytes());
        bytes
    }

    /// Reads what [`CheckpointRoot::encode`] wrote; `None` for other bytes.
    pub fn decode(bytes: &[u8; CHECKPOINT_ROOT_SIZE]) -> Option<Self> {
        let page_size = u32_at(bytes, 8);
        let shape = Shape::new(page_size as usize)?;
        let directory = BlobRef {
            length: u32_at(bytes, 12),
            level: bytes[5],
            address: Address(u64_at(bytes, 24)),
            digest: checksum_at(bytes, 32),
        };
        let sound = bytes[..4] == MAGIC
            && bytes[4] == VERSION
            && bytes[6..8] == [0; 2]
            && directory.length as usize >= DIRECTORY_HEAD
            && directory.level == shape.blob_level(directory.length)
            && directory.address.is_place();
        sound.then_some(Self { page_size, sequence: u64_at(bytes, 16), directory })
    }
}

impl Store {
    /// A checkpoint without a companion.
    pub fn checkpoint(&mut self) -> Checkpoint {
        self.checkpoint_with(&[])
    }

    /// Gives every dirty page its place, and hands out all pages that must be written. From now on the store asks
    /// `Pages` for them. Two stores that installed the same batches, with the same checkpoints in between, hand out the
    /// same bytes. The companion's bytes come back from [`Store::open`].
    ///
    /// Cost: one BLAKE3 over each dirty page, the directory and the companion.
    pub fn checkpoint_with(&mut self, companion: &[u8]) -> Checkpoint {
        let mut pages = Vec::with_capacity(self.dirty_pages() + 1);
        if mutant!(PlaceReusedEarly, !self.left.is_empty() || !self.directory.is_empty()) {
            let left = core::mem::take(&mut self.left);
            left.into_iter()
                .chain(core::mem::take(&mut self.directory))
                .for_each(|place| self.free.give(place));
        }
        let tenants: Vec<TenantId> = self.tenants.keys().copied().collect();
        for tenant in tenants {
            for tree in [Tree::Current, Tree::History] {
                if let Some(root) = self.roots(tenant).of(tree) {
                    let pointer = self.seal(tenant, tree, root.level, &root.pointer, &mut pages);
                    let roots = self.tenants.get_mut(&tenant).expect("tenants stay");
                    *roots.of_mut(tree) = Some(Root { pointer, level: root.level });
                }
            }
        }
        assert!(self.dirty.iter().all(Option::is_none), "every page is below a root or was dropped");
        self.dirty.clear();
        self.idle.clear();
        self.sequence += 1;
        let directory = self.seal_directory(companion, &mut pages);
        let root =
            CheckpointRoot { page_size: self.shape.page_size() as u32, sequence: self.sequence, directory };
        Checkpoint { root, pages }
    }

    /// Seals what is at and below a pointer, children first.
    fn seal(
        &mut self,
        tenant: TenantId,
        tree: Tree,
        level: u8,
        pointer: &Pointer,
        pages: &mut Vec<Sealed>,
    ) -> Pointer {
        let Some(id) = pointer.address.temporary() else { return *pointer };
        let mut page = self.dirty[id as usize].take().expect("a pointer leads to a page");
        if level == 0 {
            for index in 0..page.count() {
                let Some(at) = page.blob_ref_at(index) else { continue };
                let blob = BlobRef::read(page.bytes(), at).expect("built here");
                self.seal_blob(tenant, &blob, pages).write(page.bytes_mut(), at);
            }
        } else {
            for index in 0..page.count() {
                let child = page.child(index);
                if child.address.temporary().is_some() {
                    let sealed = self.seal(tenant, tree, level - 1, &child, pages);
                    let at = page.child_at(index);
                    put_pointer(page.bytes_mut(), at, &sealed);
                }
            }
        }
        let sealed = Pointer { address: self.free.take(), digest: checksum(page.bytes()), ..*pointer };
        pages.push(Sealed { at: PageRef::of(&sealed, tenant, tree, level), page });
        sealed
    }

    fn seal_blob(&mut self, tenant: TenantId, blob: &BlobRef, pages: &mut Vec<Sealed>) -> BlobRef {
        let Some(id) = blob.address.temporary() else { return *blob };
        let mut page = self.dirty[id as usize].take().expect("a reference leads to a page");
        if blob.level > 0 {
            for index in 0..page.count() {
                let child = self.seal_blob(tenant, &child_of(self.shape, &page, blob, index), pages);
                let at = Page::value_child_at(index);
                let bytes = page.bytes_mut();
                bytes[at..at + 8].copy_from_slice(&child.address.0.to_le_bytes());
                bytes[at + 8..at + BLOB_CELL_SIZE].copy_from_slice(child.digest.as_bytes());
            }
        }
        let sealed = BlobRef { address: self.free.take(), digest: checksum(page.bytes()), ..*blob };
        pages.push(Self::sealed_blob(tenant, &sealed, page));
        sealed
    }

    fn sealed_blob(tenant: TenantId, blob: &BlobRef, page: Page) -> Sealed {
        let at = PageRef {
            address: blob.address,
            digest: blob.digest,
            tenant,
            kind: page.kind(),
            level: blob.level,
            max: POSITION_MIN,
            entries: page.used() as u64,
        };
        Sealed { at, page }
    }

    /// Writes the companion to places of its own.
    fn seal_companion(
        &mut self,
        companion: &[u8],
        pages: &mut Vec<Sealed>,
    ) -> Option<(BlobRef, Vec<Address>)> {
        let shape = self.shape;
        let length = u32::try_from(companion.len()).expect("a companion stays below 4 GiB");
        if length == 0 {
            return None;
        }
        let places: Vec<Address> = (0..blob_pages(shape, length)).map(|_| self.free.take()).collect();
        let mut left = places.iter().copied();
        let sealed = seal_bytes(shape, companion, shape.blob_level(length), &mut left, pages);
        assert!(left.next().is_none(), "the companion has as many pages as places");
        Some((sealed, places))
    }

    /// Writes companion and directory to places of their own, and gives back all places that were left.
    fn seal_directory(&mut self, companion: &[u8], pages: &mut Vec<Sealed>) -> BlobRef {
        let shape = self.shape;
        let (companion, beside) = self.seal_companion(companion, pages).unzip();
        let mut places = Vec::new();
        let length = loop {
            let words = self.free.pages().div_ceil(64) as usize;
            let length = DIRECTORY_HEAD + self.tenants.len() * TENANT_SIZE + words * 8;
            let length =
                u32::try_from(length).expect("limits of tenants and pages keep the directory below 4 GiB");
            if places.len() as u64 >= blob_pages(shape, length) {
                break length;
            }
            // A place more may be a longer file, and so a longer directory.
            places.push(self.free.take());
        };
        for address in core::mem::take(&mut self.left) {
            self.free.give(address);
        }
        let mut taken = places.clone();
        taken.extend(beside.unwrap_or_default());
        for address in core::mem::replace(&mut self.directory, taken) {
            self.free.give(address);
        }
        let bytes = self.directory_bytes(companion.as_ref());
        assert_eq!(bytes.len(), length as usize, "giving places back changes bits, not their number");
        let mut places = places.into_iter();
        let sealed = seal_bytes(shape, &bytes, shape.blob_level(length), &mut places, pages);
        assert!(places.next().is_none(), "the directory has as many pages as places");
        sealed
    }

    fn directory_bytes(&self, companion: Option<&BlobRef>) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.free.pages().to_le_bytes());
        bytes.extend_from_slice(&(self.tenants.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4 + BLOB_REF_SIZE]);
        if let Some(companion) = companion {
            companion.write(&mut bytes, COMPANION_AT);
        }
        for (tenant, roots) in &self.tenants {
            let mut entry = [0; TENANT_SIZE];
            entry[..8].copy_from_slice(&tenant.0.to_le_bytes());
            put_position(&mut entry, 8, roots.horizon);
            put_position(&mut entry, 20, roots.newest);
            for (at, root) in [(32, roots.current), (32 + ROOT_SIZE, roots.history)] {
                entry[at] = root.map_or(NO_ROOT, |root| root.level);
                if let Some(root) = root {
                    put_pointer(&mut entry, at + 8, &root.pointer);
                }
            }
            bytes.extend_from_slice(&entry);
        }
        for word in self.free.words() {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Opens the store that a checkpoint left, as it was behind [`Store::checkpoint_with`], and gives its companion, which
    /// is empty if there is none. Reads directory and companion alone.
    pub fn open(root: &CheckpointRoot, pages: &dyn Pages) -> Result<(Self, Vec<u8>), OpenError> {
        let shape = Shape::new(root.page_size as usize).ok_or(OpenError::Malformed)?;
        let (bytes, directory) = gather_written(shape, pages, NO_TENANT, &root.directory)?;
        let mut store = Self::new(shape);
        store.directory = directory;
        store.sequence = root.sequence;
        store.read_directory(&bytes).ok_or(OpenError::Malformed)?;
        let companion = read_companion(shape, &bytes).ok_or(OpenError::Malformed)?;
        let Some(companion) = companion else { return Ok((store, Vec::new())) };
        let (bytes, places) = gather_written(shape, pages, NO_TENANT, &companion)?;
        if places.iter().any(|address| address.0 >= store.pages()) {
            return Err(OpenError::Malformed);
        }
        store.directory.extend(places);
        Ok((store, bytes))
    }

    fn read_directory(&mut self, bytes: &[u8]) -> Option<()> {
        let head = bytes.get(..DIRECTORY_HEAD)?;
        let (tenants, pages) = (u32_at(head, 16) as usize, u64_at(head, 8));
        if u64_at(head, 0) != self.sequence || tenants > TENANTS_MAX || head[20..COMPANION_AT] != [0; 4] {
            return None;
        }
        let (entries, words) = bytes[DIRECTORY_HEAD..].split_at_checked(tenants * TENANT_SIZE)?;
        for entry in entries.chunks_exact(TENANT_SIZE) {
            let tenant = TenantId(u64_at(entry, 0));
            let roots = Roots {
                horizon: position_at(entry, 8),
                newest: position_at(entry, 20),
                current: read_root(entry, 32)?,
                history: read_root(entry, 32 + ROOT_SIZE)?,
            };
            let ordered = self.tenants.last_key_value().is_none_or(|(last, _)| *last < tenant);
            if !ordered || tenant == NO_TENANT || roots.horizon > roots.newest {
                return None;
            }
            self.tenants.insert(tenant, roots);
        }
        if !words.len().is_multiple_of(8) {
            return None;
        }
        let words = words.chunks_exact(8).map(|word| u64_at(word, 0)).collect();
        self.free = FreeSet::of_words(words, pages)?;
        if self.directory.iter().any(|address| address.0 >= pages) {
            return None;
        }
        Some(())
    }
}

/// `None` if it is malformed; `Some(None)` if there is no companion.
#[expect(clippy::option_option, reason = "to have no companion is no error")]
fn read_companion(shape: Shape, directory: &[u8]) -> Option<Option<BlobRef>> {
    if directory[COMPANION_AT..DIRECTORY_HEAD] == [0; BLOB_REF_SIZE] {
        return Some(None);
    }
    let companion = BlobRef::read(directory, COMPANION_AT)?;
    let sound = companion.length > 0
        && companion.level == shape.blob_level(companion.length)
        && companion.address.is_place();
    sound.then_some(Some(companion))
}

/// `None` if it is malformed; `Some(None)` if the tree is empty.
#[expect(clippy::option_option, reason = "an empty tree is no error")]
fn read_root(entry: &[u8], at: usize) -> Option<Option<Root>> {
    let (level, rest) = (entry[at], &entry[at + 1..at + ROOT_SIZE]);
    if level == NO_ROOT {
        return rest.iter().all(|byte| *byte == 0).then_some(None);
    }
    let pointer = pointer_at(entry, at + 8);
    let sound =
        level <= LEVELS_MAX && rest[..7] == [0; 7] && pointer.address.is_place() && pointer.entries > 0;
    sound.then_some(Some(Root { pointer, level }))
}

/// Pages of a value of this length.
fn blob_pages(shape: Shape, length: u32) -> u64 {
    (0..=shape.blob_level(length)).map(|level| u64::from(length).div_ceil(shape.blob_span(level))).sum()
}

/// Writes the store's own bytes as a value, to the places that are given.
fn seal_bytes(
    shape: Shape,
    bytes: &[u8],
    level: u8,
    places: &mut impl Iterator<Item = Address>,
    pages: &mut Vec<Sealed>,
) -> BlobRef {
    let page = if level == 0 {
        build::value_part(shape, NO_TENANT, bytes)
    } else {
        let mut children: Vec<(Address, Checksum)> = Vec::new();
        for part in bytes.chunks(shape.blob_span(level - 1) as usize) {
            let child = seal_bytes(shape, part, level - 1, places, pages);
            children.push((child.address, child.digest));
        }
        build::value_index(shape, NO_TENANT, level, &children)
    };
    let address = places.next().expect("as many places were taken as there are pages");
    let sealed = BlobRef { length: bytes.len() as u32, level, address, digest: checksum(page.bytes()) };
    pages.push(Store::sealed_blob(NO_TENANT, &sealed, page));
    sealed
}
