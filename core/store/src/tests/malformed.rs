//! Bytes from outside are a page or an error that names it, and never more.

use kimberlite_crypto::{Checksum, checksum};
use kimberlite_types::{LogPosition, ObjectId, TenantId};
use proptest::prelude::*;

use super::model::at;
use crate::{
    Address, Checkpoint, CheckpointRoot, Malformed, OpenError, Page, PageRef, Pages, Shape, Store,
    WriteBatch, Wrong, object_key,
};

/// A checkpoint with a page of every kind.
fn checkpoint() -> Checkpoint {
    let mut store = Store::new(Shape::new(4096).expect("a size of pages"));
    for op in 1..4 {
        let mut batch = WriteBatch::new(store.shape(), TenantId(2), at(op));
        for n in 0..200u32 {
            batch.put(&object_key(ObjectId(1), &n.to_be_bytes()), &[op as u8; 60]).expect("within limits");
        }
        batch.put(&object_key(ObjectId(2), b"large"), &[op as u8; 9_000]).expect("within limits");
        let draft = store.plan(&batch, &Nothing).expect("all dirty");
        store.install(draft);
    }
    store.checkpoint()
}

struct Nothing;

impl Pages for Nothing {
    fn page(&self, at: PageRef) -> Result<&Page, crate::Miss> {
        Err(crate::Miss::of(at))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn any_bytes_are_a_page_or_an_error_that_names_it(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((prop_oneof![0usize..120, 0usize..4096], any::<u8>()), 1..6),
    ) {
        let pages = &*CHECKPOINT;
        let sealed = &pages.pages[which.index(pages.pages.len())];
        let mut bytes: Box<[u8]> = sealed.page.bytes().into();
        let own = Page::decode(&sealed.at, bytes.clone());
        prop_assert_eq!(own.as_ref(), Ok(&sealed.page));
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let changed = bytes[..] != *sealed.page.bytes();
        let plain = Page::decode(&sealed.at, bytes.clone());
        prop_assert_eq!(plain.is_err(), changed);
        // With a digest that vouches for them, as only a bug of ours could.
        let vouched = PageRef { digest: checksum(&bytes), ..sealed.at };
        match Page::decode(&vouched, bytes) {
            Err(Malformed { page, .. }) => prop_assert_eq!(page, sealed.at.address),
            Ok(page) => touch_all(&page),
        }
    }

    #[test]
    fn any_bytes_are_a_root_or_none(mut bytes in any::<[u8; 64]>(), start in 0usize..64) {
        let own = CHECKPOINT.root.encode();
        bytes[..start].copy_from_slice(&own[..start]);
        if let Some(root) = CheckpointRoot::decode(&bytes) {
            prop_assert_eq!(root.encode(), bytes);
        }
    }
}

static CHECKPOINT: std::sync::LazyLock<Checkpoint> = std::sync::LazyLock::new(checkpoint);

/// Everything that is read of a page can be.
fn touch_all(page: &Page) {
    let mut sum = 0;
    if page.kind() == crate::PageKind::Value {
        sum += page.part().len();
    } else if page.kind() == crate::PageKind::ValueIndex {
        sum += (0..page.count()).map(|index| page.value_child(index).0.0 as usize % 7).sum::<usize>();
    } else {
        for index in 0..page.count() {
            let key = page.key(index).first(page.key(index).len());
            assert_eq!(page.search(&key, page.rank(index)), Ok(index));
            if page.is_leaf() {
                sum += page.leaf_cell(index).tail.len();
            } else {
                sum += page.child(index).entries as usize % 7;
            }
        }
        assert!(page.max() <= LogPosition { op: kimberlite_types::Op(u64::MAX), index: u32::MAX });
    }
    assert!(sum < usize::MAX);
}

#[test]
fn what_is_wrong_is_said() {
    let pages = &*CHECKPOINT;
    let leaf = &pages.pages[0];
    let decode = |change: &dyn Fn(&mut [u8])| {
        let mut bytes: Box<[u8]> = leaf.page.bytes().into();
        change(&mut bytes);
        let at = PageRef { digest: checksum(&bytes), ..leaf.at };
        Page::decode(&at, bytes).map(drop).map_err(|malformed| malformed.wrong)
    };
    assert_eq!(decode(&|_| {}), Ok(()));
    assert_eq!(decode(&|bytes| bytes[0] = 0), Err(Wrong::Header));
    assert_eq!(decode(&|bytes| bytes[5] = 3), Err(Wrong::Stranger));
    assert_eq!(decode(&|bytes| bytes[16] ^= 1), Err(Wrong::Stranger));
    assert_eq!(decode(&|bytes| *bytes.last_mut().expect("bytes") = 1), Err(Wrong::Padding));
    assert_eq!(decode(&|bytes| bytes[12] ^= 1), Err(Wrong::Cell));
    let short = Page::decode(&leaf.at, vec![0; 100].into());
    assert_eq!(short, Err(Malformed { page: leaf.at.address, wrong: Wrong::Size }));
    let other = PageRef { digest: Checksum::from_bytes([1; 32]), ..leaf.at };
    let wrong = Page::decode(&other, leaf.page.bytes().into());
    assert_eq!(wrong, Err(Malformed { page: leaf.at.address, wrong: Wrong::Digest }));
}

struct One(PageRef, Page);

impl Pages for One {
    fn page(&self, at: PageRef) -> Result<&Page, crate::Miss> {
        if at == self.0 { Ok(&self.1) } else { Err(crate::Miss::of(at)) }
    }
}

proptest! {
    #[test]
    fn a_directory_of_any_bytes_is_a_store_or_malformed(
        changes in proptest::collection::vec((0usize..400, any::<u8>()), 0..4),
    ) {
        let pages = &*CHECKPOINT;
        let directory = pages.pages.last().expect("the directory comes last");
        let mut bytes: Box<[u8]> = directory.page.bytes().into();
        for (at, byte) in changes {
            bytes[80 + at % directory.page.used()] = byte;
        }
        let at = PageRef { digest: checksum(&bytes), ..directory.at };
        let page = Page::decode(&at, bytes).expect("any bytes are a value");
        let mut root = pages.root.encode();
        root[32..].copy_from_slice(at.digest.as_bytes());
        let root = CheckpointRoot::decode(&root).expect("only the digest changed");
        match Store::open(&root, &One(at, page)) {
            Ok((store, _)) => prop_assert!(store.pages() >= Address(0).0),
            // A companion that is named and not there, or the directory under another name.
            Err(OpenError::Miss(miss)) => prop_assert_eq!(miss.pages().len(), 1),
            Err(error) => prop_assert_eq!(error, OpenError::Malformed),
        }
    }
}
