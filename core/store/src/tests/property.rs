//! Random commands against the model, told to three replicas that differ in what they have at hand.

use std::ops::ControlFlow;

use kimberlite_types::{LogPosition, ObjectId, TenantId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use kimberlite_crypto::checksum;

use super::check::check;
use super::disk::{Disk, Memory};
use super::model::{Model, at};
use crate::build::{BranchItem, LeafItem, branch, leaf};
use crate::page::{Key, Stored};
use crate::pointer::{POSITION_MIN, Pointer, Tree};
use crate::{
    Checkpoint, Direction, KeyRange, Progress, PruneFrom, Scan, Shape, Snapshot, StepLimits, Stop, Store,
    VersionScan, WriteBatch, object_key,
};

const TENANT: TenantId = TenantId(7);
const OTHER: TenantId = TenantId(3);

#[derive(Clone, Debug)]
enum Act {
    /// One command: puts and deletes; cut into batches of one position if told so.
    Write(Vec<(Vec<u8>, Option<Vec<u8>>)>, bool),
    /// Ascending keys of one object, as inserts of rows come.
    Append(u32, u16),
    /// All of these keys of an object go.
    DeleteRange(u32, u16, u16),
    Checkpoint,
    /// Forget all and open the last checkpoint; what came later is installed again.
    Restart,
    /// The horizon moves to this part of all positions, and what is behind it is pruned.
    Retain(Index),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let rest = prop_oneof![
        4 => (0u16..400).prop_map(|n| n.to_be_bytes().to_vec()),
        2 => vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..5),
        1 => (0u8..4, 600usize..920).prop_map(|(n, size)| {
            let mut key = vec![b'k'; size];
            key.push(n);
            key.truncate(920);
            key
        }),
    ];
    (1u32..4, rest).prop_map(|(object, rest)| object_key(ObjectId(object), &rest))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let sized =
        |sizes: std::ops::Range<usize>| (sizes, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]);
    prop_oneof![
    8 => sized(0..120),
    4 => sized(300..1100),
    2 => sized(1100..9000),
        ]
}

fn act() -> impl Strategy<Value = Act> {
    let write = (key(), prop_oneof![3 => value().prop_map(Some), 1 => Just(None)]);
    prop_oneof![
        8 => (vec(write, 0..40), any::<bool>()).prop_map(|(writes, cut)| Act::Write(writes, cut)),
        3 => (1u32..4, 1u16..120).prop_map(|(object, count)| Act::Append(object, count)),
        2 => (1u32..4, 0u16..400, 0u16..300).prop_map(|(object, from, count)| Act::DeleteRange(object, from, count)),
        3 => Just(Act::Checkpoint),
        1 => Just(Act::Restart),
        1 => any::<Index>().prop_map(Act::Retain),
    ]
}

/// Keys, begins, values.
type Rows = Vec<(Vec<u8>, LogPosition, Vec<u8>)>;

/// One replica.
struct Replica {
    store: Store,
    disk: Disk,
    checkpoints: Vec<Checkpoint>,
    /// What was done since the last checkpoint.
    since: Vec<Done>,
}

#[derive(Clone, Debug)]
enum Done {
    Write(TenantId, LogPosition, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Retain(LogPosition),
}

impl Replica {
    fn new(memory: Memory) -> Self {
        let shape = Shape::new(4096).expect("a size of pages");
        Self { store: Store::new(shape), disk: Disk::new(memory), checkpoints: Vec::new(), since: Vec::new() }
    }

    fn redo(&mut self, done: &Done) {
        match done {
            Done::Write(tenant, position, writes) => {
                let mut batch = WriteBatch::new(self.store.shape(), *tenant, *position);
                for (key, value) in writes {
                    match value {
                        Some(value) => batch.put(key, value).expect("within limits"),
                        None => batch.delete(key).expect("within limits"),
                    }
                }
                let draft =
                    self.disk.run(|pages| self.store.plan(&batch, pages)).expect("writes need no snapshot");
                self.store.install(draft);
            }
            Done::Retain(horizon) => {
                self.store.retain_from(TENANT, *horizon);
                let mut from = PruneFrom::default();
                loop {
                    let (draft, next) = self
                        .disk
                        .run(|pages| self.store.plan_prune(TENANT, &from, pages))
                        .expect("pruning needs no snapshot");
                    self.store.install(draft);
                    let Some(next) = next else { break };
                    from = next;
                }
            }
        }
    }

    fn tell(&mut self, done: Done) {
        self.redo(&done);
        self.since.push(done);
    }

    fn checkpoint(&mut self) {
        let checkpoint = self.store.checkpoint();
        self.disk.write(&checkpoint);
        self.checkpoints.push(checkpoint);
        self.since.clear();
    }

    fn restart(&mut self) {
        self.store = match self.checkpoints.last() {
            None => Store::new(self.store.shape()),
            Some(checkpoint) => {
                let root = crate::CheckpointRoot::decode(&checkpoint.root.encode()).expect("our own root");
                self.disk
                    .run(|pages| {
                        Store::open(&root, pages).map(|(store, _)| store).map_err(|error| match error {
                            crate::OpenError::Miss(miss) => Stop::Miss(miss),
                            crate::OpenError::Malformed => panic!("our own directory"),
                        })
                    })
                    .expect("opening needs no snapshot")
            }
        };
        for done in self.since.clone() {
            self.redo(&done);
        }
    }

    fn scan(&mut self, scan: &Scan, limits: StepLimits) -> Result<Rows, Stop> {
        let mut scan = scan.clone();
        let mut rows = Vec::new();
        loop {
            let before = rows.len();
            let mut step = scan.clone();
            let progress = self.disk.run(|pages| {
                assert_eq!(rows.len(), before, "nothing was visited in a step that missed");
                step = scan.clone();
                self.store.scan(&mut step, limits, pages, |row| {
                    assert!(rows.len() < 100_000, "no end");
                    rows.push((row.key.to_vec(), row.begin, row.value.to_vec()));
                    ControlFlow::Continue(())
                })
            })?;
            assert!(rows.len() - before <= limits.rows as usize);
            if progress == Progress::Done {
                return Ok(rows);
            }
            assert_ne!(step, scan, "a step gets on");
            assert!(rows.len() < 100_000, "no end of {step:?}");
            scan = step;
        }
    }
}

/// The last positions, some in between, and those around the horizon.
fn positions(newest: u64, horizon: LogPosition) -> Vec<LogPosition> {
    let mut all: Vec<LogPosition> = [newest + 1, newest, newest.saturating_sub(1), newest / 2, newest / 3, 0]
        .into_iter()
        .flat_map(|op| [at(op), LogPosition { index: at(op).index + 1, ..at(op) }])
        .chain([horizon])
        .collect();
    all.dedup();
    all
}

fn compare(
    replica: &mut Replica,
    model: &Model,
    newest: u64,
    bounds: &[(Vec<u8>, Vec<u8>)],
    limits: StepLimits,
) {
    let horizon = replica.store.horizon(TENANT);
    let keys: Vec<Vec<u8>> = model.keys().cloned().collect();
    let few: Vec<&Vec<u8>> = keys.iter().step_by(1 + keys.len() / 24).collect();
    let mut snapshots = vec![Snapshot::Present];
    snapshots.extend(positions(newest, horizon).into_iter().map(Snapshot::At));
    for snapshot in snapshots {
        let seen = match snapshot {
            Snapshot::Present => None,
            Snapshot::At(at) => Some(at),
        };
        let too_old = seen.is_some_and(|seen| seen < horizon);
        for key in few.iter().copied().chain(bounds.iter().map(|(low, _)| low)) {
            let store = &replica.store;
            let got = replica.disk.run(|pages| {
                store.get(TENANT, key, snapshot, pages).map(|found| {
                    found.map(|version| (version.begin, version.end, version.value.into_owned()))
                })
            });
            if too_old {
                assert_eq!(got, Err(Stop::TooOld { horizon }));
                continue;
            }
            let expected =
                model.get(key, seen).map(|version| (version.begin, version.end, version.value.clone()));
            assert_eq!(got, Ok(expected), "{key:?} at {snapshot:?}");
        }
        for (low, high) in bounds {
            let high = (!high.is_empty()).then_some(high);
            for direction in [Direction::Forward, Direction::Backward] {
                let scan =
                    Scan { tenant: TENANT, snapshot, direction, low: low.clone(), high: high.cloned() };
                let got = replica.scan(&scan, limits);
                if too_old {
                    assert_eq!(got, Err(Stop::TooOld { horizon }));
                    continue;
                }
                let mut expected = model.scan(low, high.map(Vec::as_slice), seen);
                if direction == Direction::Backward {
                    expected.reverse();
                }
                let got = got.expect("not too old");
                let short = |rows: &[(Vec<u8>, LogPosition, Vec<u8>)]| {
                    rows.iter()
                        .map(|(key, begin, value)| (key.clone(), *begin, value.len()))
                        .collect::<Vec<_>>()
                };
                assert!(got == expected, "{scan:?}: {:?}, not {:?}", short(&got), short(&expected));
            }
        }
    }
    guards(replica, model, newest, bounds);
    walks(replica, model, horizon);
    versions(replica, model, horizon, bounds, limits);
    for key in few {
        let store = &replica.store;
        let mut seen = Vec::new();
        replica
            .disk
            .run(|pages| {
                seen.clear();
                let limits = StepLimits { rows: u32::MAX, pages: u32::MAX };
                let mut progress = Progress::More;
                while progress == Progress::More {
                    let from = seen.last().and_then(|version: &super::model::Past| version.end);
                    let from = from.unwrap_or(horizon);
                    progress = store.history_of(TENANT, key, from, limits, pages, |version| {
                        let (begin, end) = (version.begin, version.end);
                        seen.push(super::model::Past { begin, end, value: version.value.into_owned() });
                        ControlFlow::Continue(())
                    })?;
                }
                Ok::<(), Stop>(())
            })
            .expect("the horizon is not too old");
        assert!(seen == model.history(key, horizon), "the history of {key:?}");
    }
}

/// What a walk shows is every version, save that the model forgets what ended in front of the horizon.
fn walks(replica: &mut Replica, model: &Model, horizon: LogPosition) {
    let store = &replica.store;
    let mut shown = Vec::new();
    let walked = replica.disk.run(|pages| {
        shown.clear();
        for tree in [crate::Tree::Current, crate::Tree::History] {
            store.walk(TENANT, tree, pages, |key, version| {
                let (begin, end) = (version.begin, version.end);
                let value = version.value.into_owned();
                if end.is_none_or(|end| end > horizon) {
                    shown.push((key.to_vec(), super::model::Past { begin, end, value }));
                }
            })?;
        }
        Ok::<(), crate::Miss>(())
    });
    walked.expect("a walk needs no snapshot");
    shown.sort_by(|a, b| (&a.0, a.1.begin).cmp(&(&b.0, b.1.begin)));
    let expected = model
        .keys()
        .flat_map(|key| model.history(key, horizon).into_iter().map(move |version| (key.clone(), version)));
    assert!(shown.into_iter().eq(expected), "a walk shows every version once");
}

/// A scan of versions shows every one in a range once, and what stands in front of it and behind it; but what ended in front
/// of the horizon may be gone.
fn versions(
    replica: &mut Replica,
    model: &Model,
    horizon: LogPosition,
    bounds: &[(Vec<u8>, Vec<u8>)],
    limits: StepLimits,
) {
    for (low, high) in bounds {
        let high = (!high.is_empty()).then(|| high.clone());
        let mut scan = VersionScan::new(TENANT, low.clone(), high.clone());
        let (mut shown, mut progress) = (Vec::new(), Progress::More);
        while progress == Progress::More {
            let before = shown.len();
            let mut step = scan.clone();
            let store = &replica.store;
            let stepped = replica.disk.run(|pages| {
                assert_eq!(shown.len(), before, "nothing was visited in a step that missed");
                step = scan.clone();
                store.versions(&mut step, limits, pages, |version| {
                    let (begin, end) = (version.begin, version.end);
                    if end.is_none_or(|end| end > horizon) {
                        let replaces = version.replaces && begin > horizon;
                        let past = super::model::Past { begin, end, value: version.value.to_vec() };
                        shown.push((version.key.to_vec(), past, replaces, version.replaced));
                    }
                    ControlFlow::Continue(())
                })
            });
            progress = stepped.expect("pages come");
            assert!(shown.len() - before <= limits.rows as usize);
            scan = step;
        }
        let mut expected = Vec::new();
        let inside = |key: &&Vec<u8>| *key >= low && high.as_ref().is_none_or(|high| *key < high);
        for key in model.keys().filter(inside) {
            let all = model.history(key, LogPosition::default());
            for (at, past) in
                all.iter().enumerate().filter(|(_, past)| past.end.is_none_or(|end| end > horizon))
            {
                let replaces = past.begin > horizon && at > 0 && all[at - 1].end == Some(past.begin);
                let replaced = all.get(at + 1).is_some_and(|next| Some(next.begin) == past.end);
                expected.push((key.clone(), past.clone(), replaces, replaced));
            }
        }
        assert!(shown == expected, "versions from {low:?} to {high:?}");
    }
}

fn guards(replica: &mut Replica, model: &Model, newest: u64, bounds: &[(Vec<u8>, Vec<u8>)]) {
    let horizon = replica.store.horizon(TENANT);
    let store = &replica.store;
    for (low, high) in bounds {
        let high = (!high.is_empty()).then_some(high.as_slice());
        let range = KeyRange { low, high };
        let count = replica.disk.run(|pages| store.count(TENANT, range, pages)).expect("no snapshot");
        assert_eq!(count, model.scan(low, high, None).len() as u64);
        for since in positions(newest, horizon) {
            let changed = replica.disk.run(|pages| store.changed_since(TENANT, range, since, pages));
            let expected = if since < horizon {
                Err(Stop::TooOld { horizon })
            } else {
                Ok(model.changed_since(low, high, since))
            };
            assert_eq!(changed, expected, "{range:?} since {since}");
        }
    }
}

fn run(acts: Vec<Act>, bounds: &[(Vec<u8>, Vec<u8>)], limits: StepLimits) {
    let mut replicas = [Memory::Whole, Memory::None, Memory::OneByOne].map(Replica::new);
    let mut model = Model::default();
    let mut op = 0;
    let mut restarts = 0;
    let mut log: Vec<Option<Done>> = Vec::new();
    for act in acts {
        op += 1;
        let done: Vec<Done> = match act {
            Act::Write(mut writes, cut) => {
                // What one batch may hold.
                let mut left = crate::BATCH_BYTES_MAX;
                writes.retain(|(key, value)| {
                    let size = key.len() + value.as_ref().map_or(0, Vec::len);
                    let fits = size <= left;
                    left -= if fits { size } else { 0 };
                    fits
                });
                let size = if cut { writes.len().div_ceil(2).max(1) } else { writes.len().max(1) };
                writes.chunks(size).map(|part| Done::Write(TENANT, at(op), part.to_vec())).collect()
            }
            Act::Append(object, count) => {
                let keys = (0..u64::from(count))
                    .map(|n| object_key(ObjectId(object), &(op << 20 | n).to_be_bytes()));
                vec![Done::Write(TENANT, at(op), keys.map(|key| (key, Some(vec![1; 100]))).collect())]
            }
            Act::DeleteRange(object, from, count) => {
                let keys = (from..from + count).map(|n| object_key(ObjectId(object), &n.to_be_bytes()));
                vec![Done::Write(TENANT, at(op), keys.map(|key| (key, None)).collect())]
            }
            Act::Retain(part) => vec![Done::Retain(at(part.index(op as usize) as u64))],
            Act::Checkpoint => {
                replicas.iter_mut().for_each(Replica::checkpoint);
                log.push(None);
                Vec::new()
            }
            Act::Restart => {
                // One of them; the others stay up.
                restarts += 1;
                replicas[restarts % 3].restart();
                Vec::new()
            }
        };
        for done in done {
            if let Done::Write(_, position, writes) = &done {
                for (key, value) in writes {
                    model.apply(*position, key, value.as_deref());
                }
            }
            for replica in &mut replicas {
                replica.tell(done.clone());
            }
            log.push(Some(done));
        }
        // Another tenant writes the same keys and must not be seen.
        let strange =
            Done::Write(OTHER, at(op), vec![(object_key(ObjectId(1), &[0, 5]), Some(vec![9; op as usize]))]);
        for replica in &mut replicas {
            replica.tell(strange.clone());
        }
        log.push(Some(strange));
    }
    for replica in &mut replicas {
        check(&replica.store, &mut replica.disk);
        compare(replica, &model, op, bounds, limits);
    }
    replicas.iter_mut().for_each(Replica::checkpoint);
    log.push(None);
    for replica in &mut replicas {
        check(&replica.store, &mut replica.disk);
        compare(replica, &model, op, bounds, limits);
    }
    let [whole, none, one_by_one] = &replicas;
    assert!(whole.checkpoints == none.checkpoints, "what is at hand does not change a byte");
    assert!(whole.checkpoints == one_by_one.checkpoints, "what is at hand does not change a byte");
    // Drop the store and build it again from the log.
    let mut again = Replica::new(Memory::Whole);
    for done in log {
        match done {
            Some(done) => again.tell(done),
            None => again.checkpoint(),
        }
    }
    assert!(whole.checkpoints == again.checkpoints, "the log alone says what the pages are");
}

fn bounds() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    vec(
        (prop_oneof![1 => Just(Vec::new()), 3 => key()], prop_oneof![1 => Just(Vec::new()), 3 => key()]),
        1..4,
    )
}

/// Ends of keys of which many begin alike.
fn end() -> impl Strategy<Value = Vec<u8>> {
    let byte = || prop_oneof![3 => Just(0u8), 2 => Just(1), 1 => Just(255)];
    prop_oneof![
        3 => vec(byte(), 0..8),
        1 => any::<u16>().prop_map(|n| n.to_be_bytes().to_vec()),
        1 => vec(byte(), 4..6).prop_map(|end| [b"alike".as_slice(), &end].concat()),
    ]
}

/// A page finds what one who looks at all of its entries finds.
fn search(tree: Tree, level: u8, entries: &[(Vec<u8>, u64)], sought: &[(Vec<u8>, u64)], from: Index) {
    let shape = Shape::default();
    let page = if level == 0 {
        let mut items = Vec::new();
        for (key, rank) in entries {
            let (key, rank, value) = (Key::whole(key), at(*rank), Stored::Inline(&[7]));
            items.push(LeafItem { key, rank, begin: POSITION_MIN, value });
        }
        leaf(shape, TENANT, tree, &items)
    } else {
        let pointer = Pointer { address: crate::Address(1), digest: checksum(b""), max: at(1), entries: 1 };
        let mut items = Vec::new();
        for (key, rank) in entries {
            items.push(BranchItem { key: Key::whole(key), rank: at(*rank), pointer });
        }
        branch(shape, TENANT, tree, level, &items)
    };
    for (key, rank) in entries.iter().chain(sought) {
        let whole = (key.clone(), *rank);
        let expected = entries.binary_search(&whole);
        assert_eq!(page.search(key, at(*rank)), expected);
        let (Ok(place) | Err(place)) = expected;
        assert_eq!(page.search_from(from.index(place + 1), key, at(*rank)), expected);
    }
    if level == 0 && tree == Tree::History {
        for (index, (key, _)) in entries.iter().enumerate() {
            let edge = entries.iter().rposition(|(other, _)| other == key).expect("its own") + 1;
            assert_eq!(page.behind_key(index), edge);
            for (_, rank) in sought {
                let ended = entries[index..edge].iter().take_while(|(_, end)| end <= rank).count();
                assert_eq!(page.first_behind(index..edge, at(*rank)), index + ended);
            }
        }
    }
}

/// A few seconds' worth, unless the environment asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

proptest! {
    #[test]
    fn a_search_finds_what_is_there(
        ends in proptest::collection::btree_set((end(), 1u64..6), 1..60),
        sought in vec((end(), 0u64..7), 1..40),
        head in end(),
        from in any::<Index>(),
    ) {
        let with_head = |(end, rank): (Vec<u8>, u64)| ([&head[..], &end].concat(), rank);
        let mut sought: Vec<_> = sought.into_iter().flat_map(|one| [with_head(one.clone()), one]).collect();
        for entries in [ends.clone(), ends.into_iter().map(with_head).collect()] {
            let mut entries: Vec<_> = entries.into_iter().collect();
            search(Tree::History, 0, &entries, &sought, from);
            search(Tree::History, 1, &entries, &sought, from);
            // Of the current tree, each key is there once.
            entries.iter_mut().chain(&mut sought).for_each(|(_, rank)| *rank = 0);
            entries.dedup();
            search(Tree::Current, 0, &entries, &sought, from);
            search(Tree::Current, 1, &entries, &sought, from);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_store_says_what_its_model_says_and_replicas_have_the_same_bytes(
        acts in vec(act(), 1..30),
        bounds in bounds(),
        rows in 1u32..40,
        pages in 1u32..12,
    ) {
        run(acts, &bounds, StepLimits { rows, pages });
    }
}
