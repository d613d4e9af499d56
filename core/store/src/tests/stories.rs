//! What single operations cost and refuse.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use kimberlite_types::{ObjectId, TenantId};

use super::check::check;
use super::disk::{Disk, Memory};
use super::model::at;
use crate::{
    BATCH_WRITES_MAX, Direction, KeyRange, Progress, Scan, Shape, Snapshot, StepLimits, Stop, Store, Tree,
    VALUE_SIZE_MAX, WriteBatch, WriteError, object_key, object_prefix,
};

const TENANT: TenantId = TenantId(1);
const TABLE: ObjectId = ObjectId(5);

fn key(n: u64) -> Vec<u8> {
    object_key(TABLE, &n.to_be_bytes())
}

fn write(
    store: &mut Store,
    disk: &mut Disk,
    op: u64,
    rows: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
) {
    let mut batch = WriteBatch::new(store.shape(), TENANT, at(op));
    for (key, value) in rows {
        match value {
            Some(value) => batch.put(&key, &value).expect("within limits"),
            None => batch.delete(&key).expect("within limits"),
        }
    }
    let draft = disk.run(|pages| store.plan(&batch, pages)).expect("no snapshot");
    store.install(draft);
}

/// A table of `rows` rows, written in batches of 1,000 in ascending order, after a checkpoint.
fn table(rows: u64, memory: Memory) -> (Store, Disk) {
    let (mut store, mut disk) = (Store::new(Shape::default()), Disk::new(memory));
    for (batch, from) in (0..rows).step_by(1_000).enumerate() {
        let keys = from..(from + 1_000).min(rows);
        write(&mut store, &mut disk, batch as u64 + 1, keys.map(|n| (key(n), Some(vec![7; 100]))));
    }
    let checkpoint = store.checkpoint();
    disk.write(&checkpoint);
    (store, disk)
}

/// Rows of a scan of the whole table, and the pages it touched.
fn scan(store: &Store, disk: &mut Disk, snapshot: Snapshot) -> (usize, usize) {
    disk.touched.store(0, Ordering::Relaxed);
    let mut scan = Scan::of_prefix(TENANT, &object_prefix(TABLE), snapshot, Direction::Forward);
    let mut rows = 0;
    loop {
        let progress = store
            .scan(&mut scan, StepLimits::default(), disk, |_| {
                rows += 1;
                ControlFlow::Continue(())
            })
            .expect("all at hand");
        if progress == Progress::Done {
            return (rows, disk.touched.load(Ordering::Relaxed));
        }
    }
}

#[test]
fn rows_in_ascending_order_fill_their_pages() {
    let (store, mut disk) = table(20_000, Memory::Whole);
    check(&store, &mut disk);
    // 100 bytes of value, 18 and a byte or two of key: 67 rows in 8,112 bytes.
    let leaves = store.pages() - store.free_pages();
    assert!(leaves <= 20_000 / 66 + 8, "{leaves} pages");
}

#[test]
fn the_present_does_not_pay_for_the_past() {
    let (mut store, mut disk) = table(2_000, Memory::Whole);
    let (rows, fresh) = scan(&store, &mut disk, Snapshot::Present);
    assert_eq!(rows, 2_000);
    let mut op = 10;
    for round in 0..20u8 {
        for from in (0..2_000).step_by(1_000) {
            op += 1;
            write(&mut store, &mut disk, op, (from..from + 1_000).map(|n| (key(n), Some(vec![round; 100]))));
        }
        let checkpoint = store.checkpoint();
        disk.write(&checkpoint);
    }
    check(&store, &mut disk);
    assert_eq!(store.entries(TENANT, Tree::History), 40_000);
    let (rows, old) = scan(&store, &mut disk, Snapshot::Present);
    assert_eq!((rows, old), (2_000, fresh), "as many pages as when it was fresh");
    let (rows, newest) = scan(&store, &mut disk, Snapshot::At(at(op)));
    assert_eq!((rows, newest), (2_000, fresh), "the newest position is the present");
    // A little further on, nothing of the table ended since: the history is skipped at its root.
    op += 1;
    write(&mut store, &mut disk, op, [(object_key(ObjectId(9), b"x"), Some(Vec::new()))].into_iter());
    let checkpoint = store.checkpoint();
    disk.write(&checkpoint);
    let (rows, recent) = scan(&store, &mut disk, Snapshot::At(at(op - 1)));
    assert_eq!(rows, 2_000);
    assert!(recent <= fresh + 4, "{recent} pages, not {fresh}");
}

#[test]
fn a_guard_over_a_large_range_reads_its_edges_alone() {
    let (mut store, mut disk) = table(20_000, Memory::Whole);
    let since = at(20);
    let (low, high) = (key(3), key(19_990));
    let range = KeyRange { low: &low, high: Some(&high) };
    disk.touched.store(0, Ordering::Relaxed);
    assert_eq!(store.changed_since(TENANT, range, since, &disk), Ok(false));
    assert_eq!(disk.touched.load(Ordering::Relaxed), 0, "nothing changed at all: the root's pointer says so");
    write(&mut store, &mut disk, 21, [(key(19_995), Some(vec![1]))].into_iter());
    let checkpoint = store.checkpoint();
    disk.write(&checkpoint);
    assert_eq!(
        store.changed_since(TENANT, range, since, &disk),
        Ok(false),
        "a change behind the range is none"
    );
    write(&mut store, &mut disk, 22, [(key(19_989), None)].into_iter());
    assert_eq!(store.changed_since(TENANT, range, since, &disk), Ok(true), "a delete is a change");
    assert_eq!(store.changed_since(TENANT, range, at(22), &disk), Ok(false));
    disk.touched.store(0, Ordering::Relaxed);
    assert_eq!(store.count(TENANT, range, &disk), Ok(19_986));
    assert!(disk.touched.load(Ordering::Relaxed) <= 6);
}

#[test]
fn an_index_entry_whose_columns_stay_keeps_its_interval() {
    let (mut store, mut disk) = (Store::new(Shape::default()), Disk::new(Memory::None));
    let index = ObjectId(6);
    let (red, blue) = (object_key(index, b"red,1"), object_key(index, b"blue,1"));
    let row = |store: &mut Store, disk: &mut Disk, op, value: &[u8], old: Option<&[u8]>, new: &[u8]| {
        let mut batch = WriteBatch::new(store.shape(), TENANT, at(op));
        batch.put(&key(1), value).expect("within limits");
        batch.index(old, Some(new)).expect("within limits");
        let draft = disk.run(|pages| store.plan(&batch, pages)).expect("no snapshot");
        store.install(draft);
    };
    row(&mut store, &mut disk, 1, b"a", None, &red);
    row(&mut store, &mut disk, 2, b"b", Some(&red), &red);
    let begin = |store: &Store, key: &[u8]| {
        store
            .get(TENANT, key, Snapshot::Present, &Disk::new(Memory::Whole))
            .expect("no page is written")
            .map(|version| version.begin)
    };
    assert_eq!((begin(&store, &key(1)), begin(&store, &red)), (Some(at(2)), Some(at(1))));
    row(&mut store, &mut disk, 3, b"c", Some(&red), &blue);
    assert_eq!((begin(&store, &red), begin(&store, &blue)), (None, Some(at(3))));
    let disk = Disk::new(Memory::Whole);
    let then = store.get(TENANT, &red, Snapshot::At(at(2)), &disk).expect("all dirty").expect("it was there");
    assert_eq!((then.begin, then.end), (at(1), Some(at(3))));
}

#[test]
fn a_row_of_the_largest_size_goes_in_and_out_and_its_update_moves_no_page_of_it() {
    let (mut store, mut disk) = (Store::new(Shape::default()), Disk::new(Memory::None));
    let large: Vec<u8> = (0..VALUE_SIZE_MAX).map(|n| (n % 251) as u8).collect();
    write(&mut store, &mut disk, 1, [(key(1), Some(large.clone()))].into_iter());
    let first = store.checkpoint();
    assert!(first.pages.len() > VALUE_SIZE_MAX / 8192);
    disk.write(&first);
    write(&mut store, &mut disk, 2, [(key(1), Some(b"small".to_vec()))].into_iter());
    let second = store.checkpoint();
    disk.write(&second);
    assert!(second.pages.len() <= 4, "a leaf of each tree and the directory");
    check(&store, &mut disk);
    for (op, value) in [(1, &large[..]), (2, b"small")] {
        let got = disk.run(|pages| {
            let found = store.get(TENANT, &key(1), Snapshot::At(at(op)), pages)?;
            Ok::<_, Stop>(found.map(|version| version.value.into_owned()))
        });
        assert!(got == Ok(Some(value.to_vec())));
    }
    // What was never seen leaves its pages again.
    write(&mut store, &mut disk, 3, [(key(2), Some(large))].into_iter());
    write(&mut store, &mut disk, 3, [(key(2), None)].into_iter());
    assert_eq!(store.entries(TENANT, Tree::History), 1);
    check(&store, &mut disk);
}

#[test]
fn a_companion_comes_back_and_its_places_are_used_again_one_checkpoint_later() {
    let (mut store, mut disk) =
        (Store::new(Shape::new(4096).expect("a size of pages")), Disk::new(Memory::None));
    let companion: Vec<u8> = (0..50_000_u32).map(|n| (n % 241) as u8).collect();
    let mut places = Vec::new();
    for round in 0..4 {
        write(&mut store, &mut disk, round + 1, [(key(round), Some(b"row".to_vec()))].into_iter());
        let checkpoint = store.checkpoint_with(&companion);
        disk.write(&checkpoint);
        places.push(checkpoint.pages.iter().map(|sealed| sealed.at.address).collect::<Vec<_>>());
        let open = |pages: &dyn crate::Pages| match Store::open(&checkpoint.root, pages) {
            Err(crate::OpenError::Miss(miss)) => Err(Stop::Miss(miss)),
            other => Ok(other.expect("what was written is a checkpoint")),
        };
        let (opened, bytes) = disk.run(open).expect("no snapshot");
        assert!(bytes == companion);
        assert_eq!((opened.pages(), opened.free.words()), (store.pages(), store.free.words()));
        assert_eq!(opened.directory.len(), store.directory.len());
        store = opened;
    }
    let used = |round: usize, by: usize| places[by].iter().any(|address| places[round].contains(address));
    assert!(
        !used(0, 1) && !used(1, 2) && !used(2, 3),
        "the last checkpoint stays whole until this one is durable"
    );
    assert!(used(0, 2) && used(1, 3));
}

#[test]
fn a_table_that_is_emptied_leaves_no_page_in_the_current_tree() {
    let (mut store, mut disk) = table(5_000, Memory::None);
    for (batch, from) in (0..5_000).step_by(1_000).enumerate() {
        write(&mut store, &mut disk, 10 + batch as u64, (from..from + 1_000).map(|n| (key(n), None)));
    }
    assert_eq!((store.entries(TENANT, Tree::Current), store.entries(TENANT, Tree::History)), (0, 5_000));
    assert!(store.roots(TENANT).current.is_none());
    check(&store, &mut disk);
}

#[test]
fn what_does_not_fit_is_refused() {
    let shape = Shape::default();
    let mut batch = WriteBatch::new(shape, TENANT, at(1));
    let max = shape.key_size_max();
    assert_eq!(batch.put(&vec![1; max + 1], b""), Err(WriteError::KeyTooLong { size: max + 1, max }));
    assert_eq!(
        batch.put(b"k", &vec![0; VALUE_SIZE_MAX + 1]),
        Err(WriteError::ValueTooLong { size: VALUE_SIZE_MAX + 1 })
    );
    for n in 0..BATCH_WRITES_MAX as u64 {
        batch.put(&key(n), b"").expect("within limits");
    }
    assert_eq!(batch.delete(b"k"), Err(WriteError::BatchFull));
}

#[test]
fn a_missing_table_is_named_in_few_rounds() {
    let (store, mut disk) = table(20_000, Memory::None);
    let mut batch = WriteBatch::new(store.shape(), TENANT, at(30));
    for n in (0..20_000).step_by(50) {
        batch.put(&key(n), b"new").expect("within limits");
    }
    disk.rounds = 0;
    disk.run(|pages| store.plan(&batch, pages)).expect("no snapshot");
    assert!(disk.rounds <= 3, "one round for each level, not {}", disk.rounds);
}

/// Keys that share much are small where they stand by themselves, and large beside others: two pages do not fit in one, and
/// wherever they are cut, one is small again.
#[test]
fn two_small_pages_that_do_not_fit_in_one_are_joined_once() {
    let (mut store, mut disk) = (Store::new(Shape::default()), Disk::new(Memory::Whole));
    let long = |letter: u8, n: u64| {
        let mut key = vec![letter; 400];
        key.extend_from_slice(&n.to_be_bytes());
        object_key(TABLE, &key)
    };
    let row = |letter| (0..200).map(move |n| (long(letter, n), Some(vec![1; 20])));
    write(&mut store, &mut disk, 1, row(b'a').chain(row(b'b')).chain(row(b'c')));
    for round in 0..190 {
        let gone = [b'a', b'b', b'c'].map(|letter| (long(letter, round), None));
        write(&mut store, &mut disk, 2 + round, gone.into_iter());
        check(&store, &mut disk);
    }
    assert_eq!(store.entries(TENANT, Tree::Current), 30);
}
