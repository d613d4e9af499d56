//! The trees of tables: any commands, checkpoints and restarts, against a map, with pages at hand and without.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kimberlite_store::{
    Address, CheckpointRoot, Direction, KeyRange, Miss, Page, PageRef, Pages, Progress, Scan, Shape,
    Snapshot, StepLimits, Stop, Store, WriteBatch, object_key,
};
use kimberlite_types::{LogPosition, ObjectId, Op, TenantId};

use crate::script::Script;

const TENANT: TenantId = TenantId(1);

/// Commands of one input at most.
const COMMANDS_MAX: u64 = 200;

/// Pages in memory; with a short memory, only those that the step asked for.
#[derive(Default)]
struct Disk {
    written: BTreeMap<Address, Box<[u8]>>,
    here: BTreeMap<Address, Page>,
}

impl Pages for Disk {
    fn page(&self, at: PageRef) -> Result<&Page, Miss> {
        self.here.get(&at.address).ok_or_else(|| Miss::of(at))
    }
}

impl Disk {
    /// Runs a step until it has its pages, none of which are at hand when it begins.
    fn run<T, E: Into<Stop>>(&mut self, mut step: impl FnMut(&dyn Pages) -> Result<T, E>) -> T {
        self.here.clear();
        loop {
            match step(self).map_err(Into::into) {
                Ok(done) => return done,
                Err(Stop::TooOld { .. }) => panic!("the horizon was never moved"),
                Err(Stop::Miss(miss)) => {
                    assert!(!miss.pages().is_empty(), "a miss names a page");
                    for at in miss.pages() {
                        let bytes = self.written[&at.address].clone();
                        let page = Page::decode(at, bytes).expect("what was written is sound");
                        assert!(
                            self.here.insert(at.address, page).is_none(),
                            "a page at hand is not missing"
                        );
                    }
                }
            }
        }
    }
}

/// The versions of a key: begin, end, value.
type Versions = Vec<(u64, u64, Vec<u8>)>;

fn at(op: u64) -> LogPosition {
    LogPosition { op: Op(op), index: 0 }
}

/// Each byte that begins a step says what is done next.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let shape = Shape::new(4096).expect("a size of pages");
    let (mut store, mut disk) = (Store::new(shape), Disk::default());
    let mut model: BTreeMap<Vec<u8>, Versions> = BTreeMap::new();
    let (mut op, mut root, mut since) = (0, None, Vec::new());
    while !script.is_over() && op < COMMANDS_MAX {
        match script.below(8) {
            0..=3 => {
                op += 1;
                let mut batch = WriteBatch::new(shape, TENANT, at(op));
                for _ in 0..=script.below(24) {
                    let (key, value) = (key(&mut script), value(&mut script));
                    match &value {
                        Some(value) => batch.put(&key, value).expect("within limits"),
                        None => batch.delete(&key).expect("within limits"),
                    }
                    write(model.entry(key).or_default(), op, value);
                }
                let draft = disk.run(|pages| store.plan(&batch, pages));
                store.install(draft);
                since.push(batch);
            }
            4 => {
                let checkpoint = store.checkpoint();
                for sealed in &checkpoint.pages {
                    disk.written.insert(sealed.at.address, sealed.page.bytes().into());
                }
                root = Some(checkpoint.root.encode());
                since.clear();
            }
            5 => {
                store = root.as_ref().map_or_else(
                    || Store::new(shape),
                    |root| {
                        let root = CheckpointRoot::decode(root).expect("our own root");
                        disk.run(|pages| {
                            Store::open(&root, pages).map(|(store, _)| store).map_err(|error| match error {
                                kimberlite_store::OpenError::Miss(miss) => Stop::Miss(miss),
                                kimberlite_store::OpenError::Malformed => panic!("our own directory"),
                            })
                        })
                    },
                );
                for batch in &since {
                    let draft = disk.run(|pages| store.plan(batch, pages));
                    store.install(draft);
                }
            }
            6 => get(&mut script, &store, &mut disk, &model, op),
            _ => scan(&mut script, &store, &mut disk, &model, op),
        }
    }
    scan(&mut script, &store, &mut disk, &model, op);
}

fn key(script: &mut Script<'_>) -> Vec<u8> {
    let object = ObjectId(script.below(3) as u32);
    let mut key = object_key(object, script.bytes(4));
    if script.below(8) == 7 {
        key.resize(key.len() + 700, b'.');
    }
    key
}

fn value(script: &mut Script<'_>) -> Option<Vec<u8>> {
    let size = match script.below(8) {
        0 | 1 => return None,
        2..=5 => script.below(256),
        6 => script.below(2_000),
        _ => script.below(30_000),
    };
    Some(vec![script.byte(); size])
}

fn write(versions: &mut Versions, op: u64, value: Option<Vec<u8>>) {
    if let Some(last) = versions.last_mut().filter(|last| last.1 == u64::MAX) {
        if last.0 == op {
            versions.pop();
        } else {
            last.1 = op;
        }
    }
    versions.extend(value.map(|value| (op, u64::MAX, value)));
}

/// A snapshot, and the op it sees up to.
fn snapshot(script: &mut Script<'_>, op: u64) -> (Snapshot, u64) {
    let seen = op.saturating_sub(script.below(8) as u64);
    if seen == op { (Snapshot::Present, op) } else { (Snapshot::At(at(seen)), seen) }
}

fn seen(versions: &Versions, at: u64) -> Option<&(u64, u64, Vec<u8>)> {
    versions.iter().find(|version| version.0 <= at && at < version.1)
}

fn get(
    script: &mut Script<'_>,
    store: &Store,
    disk: &mut Disk,
    model: &BTreeMap<Vec<u8>, Versions>,
    op: u64,
) {
    let key = key(script);
    let (snapshot, at) = snapshot(script, op);
    let got = disk.run(|pages| {
        let found = store.get(TENANT, &key, snapshot, pages)?;
        Ok::<_, Stop>(found.map(|version| (version.begin.op.0, version.value.into_owned())))
    });
    let expected = model.get(&key).and_then(|versions| seen(versions, at));
    assert_eq!(
        got,
        expected.map(|(begin, _, value)| (*begin, value.clone())),
        "a key has the version it was given"
    );
}

fn scan(
    script: &mut Script<'_>,
    store: &Store,
    disk: &mut Disk,
    model: &BTreeMap<Vec<u8>, Versions>,
    op: u64,
) {
    let (low, high) = (key(script), key(script));
    let high = script.flag().then_some(high);
    let (snapshot, at_op) = snapshot(script, op);
    let direction = if script.flag() { Direction::Forward } else { Direction::Backward };
    let limits = StepLimits { rows: 1 + script.below(50) as u32, pages: 1 + script.below(10) as u32 };
    let inside = |key: &Vec<u8>| *key >= low && high.as_ref().is_none_or(|high| key < high);
    let mut expected: Vec<(Vec<u8>, u64)> = model
        .iter()
        .filter(|(key, _)| inside(key))
        .filter_map(|(key, versions)| seen(versions, at_op).map(|version| (key.clone(), version.0)))
        .collect();
    if direction == Direction::Backward {
        expected.reverse();
    }
    let mut scan = Scan { tenant: TENANT, snapshot, direction, low: low.clone(), high: high.clone() };
    let mut got = Vec::new();
    loop {
        let before = (scan.clone(), got.len());
        let (progress, next) = disk.run(|pages| {
            assert_eq!(got.len(), before.1, "a step that missed showed nothing");
            let mut next = scan.clone();
            let progress = store.scan(&mut next, limits, pages, |row| {
                got.push((row.key.to_vec(), row.begin.op.0));
                ControlFlow::Continue(())
            })?;
            Ok::<_, Stop>((progress, next))
        });
        if progress == Progress::Done {
            break;
        }
        assert_ne!(next, before.0, "a step gets on");
        scan = next;
    }
    assert_eq!(got, expected, "a scan shows what a position sees");
    let range = KeyRange { low: &low, high: high.as_deref() };
    let changed = disk.run(|pages| store.changed_since(TENANT, range, at(at_op), pages));
    let expected = model
        .iter()
        .filter(|(key, _)| inside(key))
        .flat_map(|(_, versions)| versions)
        .any(|version| version.0 > at_op || version.1 > at_op && version.1 != u64::MAX);
    assert_eq!(changed, expected, "a guard says whether anything changed");
}
