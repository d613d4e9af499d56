//! What may be said when, and what a second fault must not undo.

use kimberlite_io::Place;
use kimberlite_types::{Op, View};
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::message::Mark;

use super::disk::{Ask, Author, Node, config};
use crate::{FetchError, Input, Output, ViewState};

fn state(view: u64, headers: Vec<PrepareHeader>) -> ViewState {
    ViewState { view: View(view), log_view: View(view), commit: Op(0), headers }
}

fn slot_place(op: u64) -> Place {
    Place::headers(op % u64::from(config().layout.ring_slots) * 512)
}

/// Answers the write at this place.
fn answer_at(node: &mut Node, place: Place) {
    let found = node.platter.asks.iter().position(|ask| matches!(ask, Ask::Write(_, at, _) if *at == place));
    node.answer(found.expect("that write is in flight"));
}

#[test]
fn durable_is_said_in_the_order_of_ops_whichever_slot_lands_first() {
    let mut node = Node::fresh(31);
    let log = Author::new().log(0, 8);
    node.append_all(&log[..6]);
    node.out.clear();
    for prepare in &log[6..] {
        node.input(Input::Append(prepare.clone()));
    }
    answer_at(&mut node, Place::log(log[7].header.place));
    assert_eq!(node.platter.asks.len(), 1, "the slot of 8 waits until 7 is durable");
    answer_at(&mut node, Place::log(log[6].header.place));
    answer_at(&mut node, Place::headers(4096));
    assert_eq!(node.durable(), [] as [u64; 0], "a second fault could still cut 7, and 8 with it");
    answer_at(&mut node, Place::headers(0));
    assert_eq!(node.durable(), [7, 8]);
}

#[test]
fn a_slot_damaged_at_rest_does_not_make_a_later_torn_tail_unknown() {
    let mut node = Node::fresh(32);
    let log = Author::new().log(0, 5);
    node.append_all(&log[..3]);
    node.platter.spoil(slot_place(12));
    node.platter.flip(slot_place(5), 3);
    assert!(node.reopen().head_certain());
    node.append_all(&log[3..4]);
    node.input(Input::Append(log[4].clone()));
    node.platter.cut_power(|| false);
    let recovered = node.reopen();
    assert!(recovered.head_certain());
    assert_eq!(recovered.headers.last().unwrap().0.op, Op(4));
    assert!(!node.out.iter().any(|output| matches!(output, Output::Damaged { .. })), "all slots were healed");
}

#[test]
fn what_may_have_been_held_is_not_called_missing_after_adoption() {
    let mut node = Node::fresh(33);
    let log = Author::new().log(0, 4);
    node.append_all(&log);
    let place = Place::log(log[3].header.place);
    node.platter.spoil(place);
    node.platter.flip(slot_place(4), 40);
    assert!(!node.reopen().head_certain());
    let headers: Vec<PrepareHeader> = log.iter().map(|prepare| prepare.header).collect();
    node.input(Input::PersistView(state(1, headers)));
    node.run();
    assert_eq!(node.fetch(4), Err(FetchError::Damaged { checksum: Some(log[3].header.checksum), place }));
    let recovered = node.reopen();
    assert!(recovered.head_certain(), "the adopted headers say where the log ends");
    assert_eq!(recovered.headers.last(), Some(&(log[3].header, Mark::Unknown)));
    node.input(Input::Append(log[3].clone()));
    node.run();
    assert_eq!(node.fetch(4).as_ref(), Ok(&log[3]));
}

#[test]
fn when_every_footer_is_lost_the_log_is_walked_and_the_ring_still_guards_its_end() {
    let mut node = Node::fresh(34);
    let log = Author::new().log(0, 80);
    node.append_all(&log);
    let layout = config().layout;
    for segment in 0..=log[79].header.place / layout.segment_size {
        node.platter.spoil(Place::log(crate::footer::offset(segment, &layout)));
    }
    let recovered = node.reopen();
    assert_eq!(recovered.headers.last(), Some(&(log[79].header, Mark::Present)));
    node.platter.flip(Place::log(log[77].header.place), 600);
    let recovered = node.reopen();
    assert_eq!(recovered.headers[6], (log[77].header, Mark::Unknown));
    assert_eq!(recovered.headers.last(), Some(&(log[79].header, Mark::Present)));
    for prepare in log[..77].iter().chain(&log[78..]) {
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
}

#[test]
fn an_append_that_waited_for_a_view_is_dropped_when_the_next_view_takes_its_parent() {
    let mut node = Node::fresh(35);
    let mut author = Author::new();
    let log = author.log(0, 4);
    node.append_all(&log);
    let next = author.next(1, 100, 1);
    let header = |op: usize| log[op - 1].header;
    node.input(Input::PersistView(state(1, (1..=4).map(header).collect())));
    node.input(Input::Append(next));
    node.input(Input::PersistView(state(2, (1..=3).map(header).collect())));
    node.run();
    assert_eq!(node.storage.head(), &header(3));
    assert_eq!(node.storage.pending(), 0);
    let views: Vec<View> = node
        .out
        .iter()
        .filter_map(|output| match output {
            Output::ViewDurable { view, .. } => Some(*view),
            _ => None,
        })
        .collect();
    assert_eq!(views, [View(1), View(2)]);
}

#[test]
fn a_queued_view_is_superseded_by_a_newer_one() {
    let mut node = Node::fresh(36);
    let root = PrepareHeader::root(config().cluster);
    for view in 1..=3 {
        node.input(Input::PersistView(ViewState { view: View(view), ..state(0, vec![root]) }));
    }
    node.run();
    let said = node.out.iter().filter(|output| matches!(output, Output::ViewDurable { .. })).count();
    assert_eq!((said, node.storage.view_state().view), (2, View(3)));
}

#[test]
fn a_misdirected_write_is_never_taken_for_the_prepare_it_hit() {
    let mut node = Node::fresh(37);
    let log = Author::new().log(0, 3);
    node.append_all(&log);
    // Op 1 fits one sector, and so does what hits it.
    let hit = Place::log(log[0].header.place);
    let mut fork = Author::new();
    let stray = fork.next(0, 50, 99);
    node.platter.put(hit, &stray.sectors());
    assert_eq!(
        node.fetch(1),
        Err(FetchError::Damaged { checksum: Some(log[0].header.checksum), place: hit })
    );
    let elsewhere = log[1].sectors();
    node.platter.put(hit, &elsewhere[..4096]);
    let recovered = node.reopen();
    assert_eq!(recovered.headers[1], (log[0].header, Mark::Unknown));
    assert_eq!(recovered.headers[3], (log[2].header, Mark::Present));
}

#[test]
fn writes_to_one_place_follow_one_another() {
    let mut node = Node::fresh(38);
    let mut author = Author::new();
    let log = author.log(0, 2);
    node.append_all(&log);
    let mut fork = author.clone();
    let (first, second) = (author.next(0, 6000, 1), fork.next(1, 200, 2));
    node.input(Input::Append(first.clone()));
    node.input(Input::Append(second.clone()));
    assert_eq!(node.platter.asks.len(), 1, "the platter asserts that no writes overlap");
    node.input(Input::Append(first.clone()));
    assert_eq!(node.platter.asks.len(), 1, "the write in flight is the one that is wanted again");
    node.out.clear();
    node.run();
    assert_eq!(node.durable(), [3]);
    assert_eq!(node.fetch(3), Ok(first));
}

#[test]
fn the_journal_answers_from_memory_while_a_prepare_is_being_written() {
    let mut node = Node::fresh(39);
    let log = Author::new().log(0, 1);
    node.input(Input::Append(log[0].clone()));
    node.out.clear();
    node.input(Input::Fetch { op: Op(1), checksum: None });
    assert!(matches!(&node.out[..], [Output::Fetched { result: Ok(prepare), .. }] if *prepare == log[0]));
    node.out.clear();
    let root = PrepareHeader::root(config().cluster);
    node.input(Input::Fetch { op: Op(1), checksum: Some(root.checksum) });
    assert!(matches!(&node.out[..], [Output::Fetched { result: Err(FetchError::Superseded), .. }]));
}
