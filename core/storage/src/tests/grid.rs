//! Checkpoints on a disk that answers in any order and loses power at any moment.

use kimberlite_crypto::Checksum;
use kimberlite_io::Frame;
use kimberlite_store::{
    Checkpoint, CheckpointRoot, Miss, OpenError, PAGE_SIZE, PageRef, Shape, Snapshot, Stop, Store,
    WriteBatch, object_key,
};
use kimberlite_types::{LogPosition, ObjectId, Op, ReplicaId, Rng, Streams, TenantId, View};

use super::disk::{Node, config, format};
use crate::{
    CheckpointName, CheckpointSurvey, Input, NewCheckpoint, Output, PageName, PagesAtHand, ViewState, Waiter,
    page_place,
};

const TENANT: TenantId = TenantId(3);
const US: Waiter = Waiter(1);
const OTHERS: Waiter = Waiter(2);

fn key(n: u64) -> Vec<u8> {
    object_key(ObjectId(1), &n.to_be_bytes())
}

/// Runs a step until it has its pages; gives the page that is lost, if one is.
fn stepped<T>(
    node: &mut Node,
    mut step: impl FnMut(&PagesAtHand<'_>) -> Result<T, Miss>,
) -> Result<T, PageRef> {
    let mut lost: Vec<PageRef> = Vec::new();
    loop {
        let pages = node.storage.pages();
        let done = step(&pages);
        let missed = pages.missed();
        if let Ok(done) = done {
            node.input(Input::Release(US));
            return Ok(done);
        }
        if let Some(page) = missed.iter().find(|page| lost.contains(page)) {
            return Err(*page);
        }
        node.out.clear();
        node.input(Input::Want { waiter: US, pages: missed });
        node.run();
        // Nobody else has what is lost.
        for page in asked(node) {
            node.input(Input::FromPeer { page, bytes: None });
        }
        let came = node.out.iter().find_map(|output| match output {
            Output::Pages { waiter: US, bad } => Some(bad.clone()),
            _ => None,
        });
        lost = came.expect("whoever wants pages is answered");
    }
}

/// The pages that peers are asked for.
fn asked(node: &Node) -> Vec<PageName> {
    let lost = |output: &Output| if let Output::PageLost { page } = output { Some(*page) } else { None };
    node.out.iter().filter_map(lost).collect()
}

/// The store that a checkpoint holds, and its companion.
fn open_store(node: &mut Node, root: &CheckpointRoot) -> Result<(Store, Vec<u8>), PageRef> {
    stepped(node, |pages| match Store::open(root, pages) {
        Err(OpenError::Miss(miss)) => Err(miss),
        other => Ok(other.expect("pages that were checked are a checkpoint")),
    })
}

/// Writes rows `from..to`, each with `op` as its value.
fn write_rows(node: &mut Node, store: &mut Store, op: u64, from: u64, to: u64) {
    let mut batch = WriteBatch::new(store.shape(), TENANT, LogPosition { op: Op(op), index: 0 });
    for n in from..to {
        batch.put(&key(n), &[op as u8; 200]).expect("within limits");
    }
    let draft = stepped(node, |pages| store.plan(&batch, pages)).expect("the disk is whole");
    store.install(draft);
}

fn new(op: u64, pages: Checkpoint) -> Input {
    let checksum = Checksum::from_bytes([op as u8; 32]);
    Input::Checkpoint(Box::new(NewCheckpoint { op: Op(op), checksum, pages }))
}

fn is_durable(node: &Node, op: u64) -> bool {
    node.out.iter().any(|output| matches!(output, Output::CheckpointDurable { op: named } if named.0 == op))
}

/// A value of the checkpoint after `op`: row `n`.
fn row(node: &mut Node, store: &Store, n: u64) -> Option<u8> {
    let found = stepped(node, |pages| match store.get(TENANT, &key(n), Snapshot::Present, pages) {
        Err(Stop::Miss(miss)) => Err(miss),
        other => Ok(other.expect("the present is never too old").map(|version| version.value[0])),
    });
    found.expect("the disk is whole")
}

/// What row `n` is after `op`, as `life` writes it: op `k` writes rows from `10 k` to `10 k + 60`.
fn expected(op: u64, n: u64) -> Option<u8> {
    (1..=op).rev().find(|k| (10 * k..10 * k + 60).contains(&n)).map(|k| k as u8)
}

#[test]
fn whenever_the_power_goes_the_checkpoint_that_is_named_is_whole() {
    let mut named_before = 0;
    for seed in 0..60 {
        let mut rng: Rng = Streams::new(seed).stream("grid", 0);
        let mut node = Node::fresh(seed);
        let (mut store, mut op, mut durable) = (Store::new(Shape::default()), 0, 0);
        for _ in 0..12 {
            op += 1;
            write_rows(&mut node, &mut store, op, 10 * op, 10 * op + 60);
            let companion = vec![op as u8; 20_000];
            node.out.clear();
            node.input(new(op, store.checkpoint_with(&companion)));
            let crashes = rng.chance_ppm(500_000);
            let steps = if crashes { rng.below(16) } else { u64::MAX };
            for _ in 0..steps {
                if !node.step() {
                    break;
                }
            }
            if is_durable(&node, op) {
                durable = op;
            }
            assert!(crashes || durable == op);
            if !crashes {
                continue;
            }
            let found = node.crash().checkpoint;
            let held = found.map_or(0, |name| name.op.0);
            // What was said to be durable is there; what was not may be.
            assert!(held == durable || held == op, "seed {seed}: op {held} of {durable} and {op}");
            named_before += u64::from(held < op);
            (store, op, durable) = (Store::new(Shape::default()), held, held);
            if let Some(CheckpointName { checksum, root, .. }) = found {
                assert_eq!(checksum, Checksum::from_bytes([held as u8; 32]));
                let (opened, companion) = open_store(&mut node, &root).expect("what is named is whole");
                assert!(companion == vec![held as u8; 20_000]);
                store = opened;
                for n in (10..10 * held + 60).step_by(7) {
                    assert_eq!(
                        row(&mut node, &store, n),
                        expected(held, n),
                        "seed {seed}, row {n} at op {held}"
                    );
                }
            }
        }
    }
    assert!(named_before > 50, "many cuts fall before the name is durable: {named_before}");
}

/// A node with one checkpoint of this many pages of rows, or more, durable.
fn one_checkpoint(rows: u64) -> (Node, Store, CheckpointRoot, Vec<PageRef>) {
    let mut node = Node::fresh(5);
    let mut store = Store::new(Shape::default());
    write_rows(&mut node, &mut store, 1, 0, rows);
    let checkpoint = store.checkpoint_with(b"what else there is");
    let (root, pages) = (checkpoint.root, checkpoint.pages.iter().map(|sealed| sealed.at).collect());
    node.input(new(1, checkpoint));
    node.run();
    assert!(is_durable(&node, 1));
    (node, store, root, pages)
}

#[test]
fn a_page_that_is_not_what_its_parent_names_is_told_of_and_never_given() {
    for unreadable in [false, true] {
        let (mut node, store, root, pages) = one_checkpoint(100);
        let leaf = pages[0];
        if unreadable {
            node.platter.spoil(page_place(leaf.address));
        } else {
            node.platter.flip(page_place(leaf.address), PAGE_SIZE - 1);
        }
        // It is at hand still, and nothing is read.
        assert_eq!(row(&mut node, &store, 0), Some(1));
        node.reopen();
        let (store, _) = open_store(&mut node, &root).expect("the directory is whole");
        let read = stepped(&mut node, |pages| {
            store.get(TENANT, &key(0), Snapshot::Present, pages).map(|_| ()).map_err(|stop| match stop {
                Stop::Miss(miss) => miss,
                Stop::TooOld { .. } => unreachable!("the present is never too old"),
            })
        });
        assert_eq!(read, Err(leaf));
        let told = |output: &Output| matches!(output, Output::Damaged { place, .. } if *place == page_place(leaf.address));
        assert!(node.out.iter().any(told));
        assert!(node.storage.page(&leaf).is_none());
    }
}

#[test]
fn no_more_pages_are_at_hand_than_fit_but_for_those_that_a_step_needs() {
    let fit = (config().layout.page_cache_bytes() / PAGE_SIZE as u64) as usize;
    let (mut node, _, _, pages) = one_checkpoint(4_000);
    assert!(pages.len() > 3 * fit, "{} pages", pages.len());
    let at_hand = |node: &Node| pages.iter().filter(|at| node.storage.page(at).is_some()).count();
    assert_eq!(at_hand(&node), fit, "all were written, and what is over went");
    let wanted: Vec<PageRef> = pages.iter().take(2 * fit).copied().collect();
    node.out.clear();
    node.input(Input::Want { waiter: US, pages: wanted.clone() });
    node.run();
    assert!(
        wanted.iter().all(|at| node.storage.page(at).is_some()),
        "what is wanted stays until it is released"
    );
    node.input(Input::Release(US));
    assert_eq!(at_hand(&node), fit);
}

#[test]
fn a_checkpoint_that_is_dropped_on_its_way_is_named_by_nothing_and_its_places_are_written_anew() {
    for steps in 0..20 {
        let (mut node, mut store, ..) = one_checkpoint(500);
        write_rows(&mut node, &mut store, 2, 0, 2_000);
        node.input(new(2, store.checkpoint_with(b"second")));
        for _ in 0..steps {
            node.step();
        }
        node.out.clear();
        node.input(Input::DropCheckpoint);
        node.run();
        assert_eq!(node.out.iter().filter(|output| matches!(output, Output::CheckpointDropped)).count(), 1);
        assert!(node.storage.checkpoint().is_none() && node.storage.pending() == 0);
        let mut again = Store::new(Shape::default());
        write_rows(&mut node, &mut again, 1, 0, 500);
        let checkpoint = again.checkpoint_with(b"what else there is");
        let root = checkpoint.root;
        node.input(new(1, checkpoint));
        node.run();
        assert!(is_durable(&node, 1));
        assert_eq!(node.reopen().checkpoint.map(|name| name.root), Some(root));
        open_store(&mut node, &root).expect("what is named is whole");
    }
}

#[test]
fn a_view_does_not_wait_for_pages_and_a_checkpoint_is_named_beside_it() {
    for steps in 0..16 {
        let mut node = Node::on(format(), steps);
        node.open();
        let mut store = Store::new(Shape::default());
        write_rows(&mut node, &mut store, 1, 0, 200);
        node.input(new(1, store.checkpoint()));
        for _ in 0..steps {
            node.step();
        }
        let state = ViewState::initial(config().cluster);
        node.input(Input::PersistView(ViewState { view: View(3), log_view: View(3), ..state }));
        node.run();
        let view = |output: &Output| matches!(output, Output::ViewDurable { view: View(3), .. });
        assert_eq!(node.out.iter().filter(|output| view(output)).count(), 1);
        assert!(is_durable(&node, 1));
        let recovered = node.reopen();
        assert_eq!(recovered.view_state.view, View(3));
        assert_eq!(recovered.checkpoint.map(|name| name.op), Some(Op(1)));
    }
}

/// A node that wants a page which rotted, and asked its peers for it; with the page as it was.
fn one_lost(pages_of: u64) -> (Node, Store, PageRef, Frame) {
    let (mut node, _, root, pages) = one_checkpoint(pages_of);
    let leaf = pages[0];
    let bytes = Frame::copy_from(node.storage.page(&leaf).expect("it was just written").bytes());
    node.platter.flip(page_place(leaf.address), PAGE_SIZE - 1);
    node.reopen();
    let (store, _) = open_store(&mut node, &root).expect("the directory is whole");
    node.out.clear();
    node.input(Input::Want { waiter: OTHERS, pages: vec![leaf] });
    node.run();
    assert_eq!(asked(&node), [PageName::of(&leaf)], "it was read twice, and peers are asked");
    assert!(node.storage.is_asked_of_peers(&PageName::of(&leaf)));
    (node, store, leaf, bytes)
}

fn came(node: &Node) -> Vec<Vec<PageRef>> {
    let pages =
        |output: &Output| if let Output::Pages { bad, .. } = output { Some(bad.clone()) } else { None };
    node.out.iter().filter_map(pages).collect()
}

#[test]
fn a_page_that_a_peer_gives_is_taken_if_it_is_the_one_and_stands_in_its_place_again() {
    let (mut node, _, leaf, bytes) = one_lost(100);
    assert!(came(&node).is_empty(), "whoever waits goes on waiting");
    node.input(Input::FromPeer { page: PageName::of(&leaf), bytes: Some(bytes) });
    assert_eq!(came(&node), [vec![]], "it need not be written first");
    assert!(node.storage.page(&leaf).is_some());
    node.run();
    let mended = |output: &Output| matches!(output, Output::PageMended { place } if *place == page_place(leaf.address));
    assert!(node.out.iter().any(mended));
    assert_eq!(node.storage.pending(), 0);
    let root = node.reopen().checkpoint.expect("it is named as before").root;
    let (store, _) = open_store(&mut node, &root).expect("the directory is whole");
    assert_eq!(row(&mut node, &store, 0), Some(1));

    let (mut node, _, leaf, mut bytes) = one_lost(100);
    let mut other = bytes.to_vec();
    other[PAGE_SIZE - 1] ^= 1;
    bytes = Frame::copy_from(&other);
    node.input(Input::FromPeer { page: PageName::of(&leaf), bytes: Some(bytes) });
    assert_eq!(came(&node), [vec![leaf]], "what is another page is none");
    node.run();
    assert!(node.storage.page(&leaf).is_none());
}

#[test]
fn a_checkpoint_waits_for_a_place_that_is_mended_and_takes_one_away_that_is_asked_for() {
    for given in [true, false] {
        let (mut node, _, leaf, bytes) = one_lost(100);
        let name = PageName::of(&leaf);
        if given {
            node.input(Input::FromPeer { page: name, bytes: Some(bytes.clone()) });
            node.input(Input::Release(OTHERS));
        }
        // Another store begins at the first place.
        let mut other = Store::new(Shape::default());
        write_rows(&mut node, &mut other, 7, 0, 200);
        let checkpoint = other.checkpoint();
        let root = checkpoint.root;
        assert!(checkpoint.pages.iter().any(|sealed| sealed.at.address == leaf.address));
        node.input(new(2, checkpoint));
        if !given {
            assert_eq!(came(&node), [vec![leaf]], "whoever waits looks again whether it needs it");
            assert!(!node.storage.is_asked_of_peers(&name));
            node.input(Input::FromPeer { page: name, bytes: Some(bytes) });
        }
        node.run();
        assert!(is_durable(&node, 2) && node.storage.pending() == 0);
        assert_eq!(node.reopen().checkpoint.map(|name| name.root), Some(root));
        let (store, _) = open_store(&mut node, &root).expect("all of it is whole");
        assert!((0..200).step_by(9).all(|n| row(&mut node, &store, n) == Some(7)));
    }
}

#[test]
fn a_peer_gets_the_page_it_names_and_no_other() {
    let (mut node, _, _, pages) = one_checkpoint(100);
    let peer = ReplicaId(2);
    let served = |node: &mut Node, page: PageName| {
        node.out.clear();
        node.input(Input::Serve { to: peer, page });
        node.run();
        node.out.drain(..).find_map(|output| match output {
            Output::Served { to, page: said, bytes } if to == peer && said == page => Some(bytes),
            _ => None,
        })
    };
    let page = PageName::of(&pages[0]);
    let at_hand = served(&mut node, page).expect("an answer").expect("it is at hand");
    node.reopen();
    let read = served(&mut node, page).expect("an answer").expect("it is on the disk");
    assert!(at_hand == read && kimberlite_crypto::checksum(&read) == page.digest);
    let other = PageName { digest: pages[1].digest, ..page };
    assert_eq!(served(&mut node, other), Some(None));
    for address in [kimberlite_store::PAGES_MAX, u64::MAX] {
        let nowhere = PageName { address: kimberlite_store::Address(address), ..page };
        assert_eq!(served(&mut node, nowhere), Some(None));
    }
    node.platter.flip(page.place(), 9);
    node.reopen();
    assert_eq!(served(&mut node, page), Some(None), "a damaged page is not given");
}

/// Reads all pages of a checkpoint from the disk; gives how many are whole, how many places are in use, and which are not whole.
fn surveyed(node: &Node, root: CheckpointRoot) -> (u64, Option<u64>, Vec<PageRef>) {
    let (mut survey, mut bad) = (CheckpointSurvey::new(root), Vec::new());
    while let Some(at) = survey.next_page() {
        if survey.take(&node.platter.bytes(page_place(at.address), PAGE_SIZE)).is_err() {
            bad.push(at);
        }
    }
    (survey.pages(), survey.places(), bad)
}

#[test]
fn a_survey_comes_by_each_page_of_a_checkpoint_once_and_names_what_is_not_whole() {
    let (mut node, mut store, _, _) = one_checkpoint(3_000);
    for op in 2..6 {
        // Large values, and pages that are left again.
        let mut batch = WriteBatch::new(store.shape(), TENANT, LogPosition { op: Op(op), index: 0 });
        batch.put(&key(op), &vec![op as u8; 50_000]).expect("within limits");
        batch.put(&key(700 + op), &[1; 100]).expect("within limits");
        let draft = stepped(&mut node, |pages| store.plan(&batch, pages)).expect("the disk is whole");
        store.install(draft);
        node.input(new(op, store.checkpoint_with(&vec![3; 30_000])));
        node.run();
    }
    let root = node.reopen().checkpoint.expect("the last one").root;
    let (pages, places, bad) = surveyed(&node, root);
    assert!(bad.is_empty() && pages > 100 && Some(pages) == places, "{pages} pages, {places:?} places");
    let (found, _) = open_store(&mut node, &root).expect("the directory is whole");
    let leaf = found.roots_written()[0];
    node.platter.flip(page_place(leaf.at().address), 700);
    let (fewer, _, bad) = surveyed(&node, root);
    assert!(bad == [*leaf.at()] && fewer < pages, "what is below the page is passed over");
    node.platter.flip(page_place(kimberlite_store::Address(0)), 1);
    let mut survey = CheckpointSurvey::new(root);
    survey.next_page().expect("the root of the directory");
    assert!(survey.take(&[0; PAGE_SIZE]).is_err() && survey.next_page().is_none() && survey.is_lost());
}
