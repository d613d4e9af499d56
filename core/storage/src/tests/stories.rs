//! One claim, one story.

use kimberlite_io::Place;
use kimberlite_types::{Op, View};
use kimberlite_wire::message::Mark;
use kimberlite_wire::{Prepare, PrepareHeader};

use super::disk::{Author, Node, Platter, config, format};
use crate::{Damage, FetchError, HaltReason, Input, Output, ViewState};

fn marks(recovered: &crate::Recovered) -> Vec<(u64, Mark)> {
    recovered.headers.iter().map(|(header, mark)| (header.op.0, *mark)).collect()
}

fn slot_place(op: u64) -> Place {
    Place::headers(op % u64::from(config().layout.ring_slots) * 512)
}

fn state(view: u64, log_view: u64, headers: Vec<PrepareHeader>) -> ViewState {
    ViewState { view: View(view), log_view: View(log_view), commit: Op(0), headers }
}

#[test]
fn a_fresh_directory_opens_with_the_root_alone() {
    let mut node = Node::on(format(), 1);
    let recovered = node.open();
    assert_eq!(marks(&recovered), [(0, Mark::Present)]);
    assert!(recovered.head_certain() && recovered.unknown.is_empty());
    assert_eq!(recovered.view_state, ViewState::initial(config().cluster));
}

#[test]
fn what_was_appended_is_read_back_after_segments_rolled_over_and_the_ring_came_round() {
    let mut node = Node::fresh(2);
    let log = Author::new().log(0, 100);
    node.append_all(&log);
    assert_eq!(node.durable(), (1..=100).collect::<Vec<_>>());
    let sealed = node.out.iter().filter(|output| matches!(output, Output::Sealed { .. })).count();
    assert!(sealed > 10, "{sealed} segments sealed");
    for prepare in &log {
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
    let recovered = node.reopen();
    assert_eq!(recovered.headers.last().unwrap().0, log[99].header);
    assert_eq!(recovered.headers.len(), 9);
    for prepare in &log {
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
    assert_eq!((node.storage.pending(), node.storage.in_flight()), (0, 0));
}

#[test]
fn a_torn_tail_is_cut_and_a_damaged_prepare_behind_which_the_log_goes_on_is_unknown() {
    let mut node = Node::fresh(3);
    let log = Author::new().log(0, 5);
    for prepare in &log[..4] {
        node.input(Input::Append(prepare.clone()));
    }
    node.run();
    node.input(Input::Append(log[4].clone()));
    node.platter.cut_power(|| false);
    node.platter.flip(Place::log(log[2].header.place), 700);
    let recovered = node.reopen();
    let expected =
        [(0, Mark::Present), (1, Mark::Present), (2, Mark::Present), (3, Mark::Unknown), (4, Mark::Present)];
    assert_eq!(marks(&recovered), expected);
    assert!(recovered.head_certain());
    assert_eq!(recovered.unknown, [(Op(3), Place::log(log[2].header.place))]);
}

#[test]
fn a_lost_prepare_beside_a_lost_slot_leaves_the_end_of_the_log_unknown() {
    let mut node = Node::fresh(4);
    let log = Author::new().log(0, 4);
    node.append_all(&log);
    node.platter.spoil(Place::log(log[3].header.place));
    node.platter.flip(slot_place(4), 40);
    let recovered = node.reopen();
    assert!(!recovered.head_certain());
    assert_eq!(marks(&recovered).last(), Some(&(3, Mark::Present)));
    assert_eq!(recovered.unknown, [(Op(4), Place::log(log[3].header.place))]);
}

#[test]
fn a_damaged_slot_beside_a_whole_prepare_costs_nothing_and_is_written_again() {
    let mut node = Node::fresh(5);
    let log = Author::new().log(0, 4);
    node.append_all(&log);
    node.platter.spoil(slot_place(4));
    node.reopen();
    node.platter.flip(Place::log(log[3].header.place), 600);
    let recovered = node.reopen();
    assert_eq!(marks(&recovered).last(), Some(&(4, Mark::Unknown)));
}

#[test]
fn damaged_prepares_are_repaired_sealed_or_not() {
    let mut node = Node::fresh(6);
    let log = Author::new().log(0, 30);
    node.append_all(&log);
    for op in [3, 17, 30] {
        let header = log[op - 1].header;
        let place = Place::log(header.place);
        node.platter.spoil(place);
        let damaged = FetchError::Damaged { checksum: Some(header.checksum), place };
        assert_eq!(node.fetch(op as u64), Err(damaged), "op {op}");
        node.out.clear();
        node.input(Input::Append(log[op - 1].clone()));
        node.run();
        assert_eq!(node.durable(), [op as u64]);
        assert!(node.out.iter().any(|output| matches!(output, Output::Repaired { .. })));
        assert_eq!(node.fetch(op as u64).as_ref(), Ok(&log[op - 1]));
    }
}

fn footer_place(segment: u64) -> Place {
    Place::log(crate::footer::offset(segment, &config().layout))
}

#[test]
fn a_footer_found_bad_at_open_is_built_again() {
    let mut node = Node::fresh(7);
    let log = Author::new().log(0, 60);
    node.append_all(&log);
    let (bad, good) = (footer_place(2), footer_place(3));
    assert!(node.platter.has(bad) && node.platter.has(good));
    node.platter.flip(bad, 100);
    node.reopen();
    let found = |output: &Output| matches!(output, Output::Damaged { place, what: Damage::Footer, .. } if *place == bad);
    assert!(node.out.iter().any(found));
    node.reopen();
    assert!(!node.out.iter().any(found), "it was repaired");
    for prepare in &log {
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
}

#[test]
fn a_footer_found_bad_later_is_built_again() {
    let mut node = Node::fresh(8);
    let log = Author::new().log(0, 60);
    node.append_all(&log);
    node.reopen();
    node.platter.spoil(Place::log(footer_place(1).offset + 4096));
    let first = log.iter().find(|prepare| prepare.header.place == config().layout.segment_size).unwrap();
    assert_eq!(node.fetch(first.header.op.0).as_ref(), Ok(first));
    assert!(node.platter.unreadable.is_empty(), "the table was written again");
}

#[test]
fn what_is_written_again_in_a_segment_without_a_footer_is_read_from_there() {
    let mut node = Node::fresh(17);
    let log = Author::new().log(0, 160);
    node.append_all(&log);
    // The ring has come round, so it does not help past the damaged ones.
    let segment: Vec<&Prepare> =
        log.iter().filter(|prepare| prepare.header.place < config().layout.segment_size).collect();
    let (first, last) = (segment[0], segment[segment.len() - 1]);
    assert!(segment.len() >= 4);
    node.reopen();
    node.platter.spoil(footer_place(0));
    for prepare in [first, segment[1], last] {
        node.platter.spoil(Place::log(prepare.header.place));
    }
    let op = last.header.op.0;
    assert!(matches!(node.fetch(op), Err(FetchError::Damaged { checksum: None, .. })));
    node.input(Input::Append(last.clone()));
    node.run();
    assert_eq!(node.fetch(op).as_ref(), Ok(last), "though the walk does not come so far");
    for prepare in &segment[..2] {
        assert!(node.fetch(prepare.header.op.0).is_err());
        node.input(Input::Append((*prepare).clone()));
        node.run();
    }
    for prepare in segment {
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
    assert!(node.platter.has(footer_place(0)), "it was built again");
}

#[test]
fn adoption_cuts_what_is_behind_it_and_names_what_is_missing() {
    let mut node = Node::fresh(9);
    let mut author = Author::new();
    let log = author.log(0, 6);
    let mut other = Author::new();
    let _ = other.log(0, 4);
    let new = other.next(3, 3000, 9);
    node.append_all(&log);
    let headers: Vec<PrepareHeader> = log[1..4].iter().map(|p| p.header).chain([new.header]).collect();
    node.out.clear();
    node.input(Input::PersistView(state(3, 3, headers.clone())));
    node.input(Input::Append(new.clone()));
    assert_eq!(node.storage.head().op, Op(6), "nothing changes before the view is durable");
    while !node.out.iter().any(|output| matches!(output, Output::ViewDurable { .. })) {
        assert!(node.step());
    }
    let mut before = Node::on(node.platter.clone(), 1);
    let recovered = before.open();
    assert_eq!(marks(&recovered).last(), Some(&(5, Mark::Nack)), "adopted and never held");
    node.run();
    assert_eq!(node.durable(), [5]);
    assert_eq!(node.storage.head(), &new.header);
    let recovered = node.reopen();
    assert_eq!(marks(&recovered).last(), Some(&(5, Mark::Present)));
    assert_eq!(recovered.view_state.headers, headers);
    assert_eq!(node.fetch(5), Ok(new));
    assert_eq!(node.fetch(6), Err(FetchError::Missing));
}

#[test]
fn a_view_alone_leaves_the_journal_alone() {
    let mut node = Node::fresh(10);
    let log = Author::new().log(0, 6);
    node.append_all(&log);
    let initial = ViewState::initial(config().cluster);
    node.input(Input::PersistView(ViewState { view: View(4), ..initial }));
    node.run();
    assert_eq!(node.storage.head().op, Op(6));
    let recovered = node.reopen();
    assert_eq!((recovered.view_state.view, recovered.headers.last().unwrap().0.op), (View(4), Op(6)));
}

#[test]
fn a_replica_that_was_away_for_long_fills_the_hole() {
    let mut node = Node::fresh(11);
    let log = Author::new().log(0, 90);
    node.append_all(&log[..10]);
    let headers: Vec<PrepareHeader> = log[81..90].iter().map(|prepare| prepare.header).collect();
    node.input(Input::PersistView(state(2, 2, headers)));
    node.run();
    assert_eq!(node.storage.head(), &log[89].header);
    node.input(Input::Append(log[85].clone()));
    node.run();
    for op in [11, 12, 14] {
        node.input(Input::Append(log[op - 1].clone()));
    }
    node.run();
    let recovered = node.reopen();
    assert_eq!(recovered.headers.len(), 9);
    assert!(recovered.head_certain());
    assert_eq!(
        recovered.headers.iter().filter(|(_, mark)| *mark == Mark::Present).count(),
        0,
        "{recovered:?}"
    );
    // In front of a hole only what the log itself proves to be committed is sure to be of the adopted log.
    let proven = log[11].header.commit.0 as usize;
    assert_eq!(proven, 7);
    for op in 1..=proven {
        assert_eq!(node.fetch(op as u64).as_ref(), Ok(&log[op - 1]));
    }
    for op in [8, 10, 11, 12, 14] {
        assert_eq!(node.fetch(op), Err(FetchError::Missing));
    }
    for prepare in &log[proven..] {
        node.input(Input::Append(prepare.clone()));
        node.run();
        node.input(Input::Committed(prepare.header.op));
        node.run();
    }
    let recovered = node.reopen();
    assert!(recovered.headers.iter().all(|(_, mark)| *mark == Mark::Present));
    for prepare in &log {
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
}

#[test]
fn an_op_in_front_of_the_adopted_log_that_is_not_its_parent_is_dropped() {
    let mut node = Node::fresh(16);
    let mut author = Author::new();
    let shared = author.log(0, 4);
    let mut fork = author.clone();
    let wrong = author.log(0, 3);
    let right = fork.log(2, 12);
    node.append_all(&shared);
    for prepare in &wrong {
        node.input(Input::Append(prepare.clone()));
    }
    node.run();
    // The adopted headers begin at op 6, whose parent is another op 5 than the one held.
    let headers: Vec<PrepareHeader> = right[1..10].iter().map(|prepare| prepare.header).collect();
    node.input(Input::PersistView(state(2, 2, headers.clone())));
    node.run();
    assert_eq!(node.fetch(5), Err(FetchError::Missing));
    let recovered = node.reopen();
    assert_eq!(node.fetch(5), Err(FetchError::Missing));
    assert_eq!(recovered.headers.iter().map(|(header, _)| *header).collect::<Vec<_>>(), headers);
    for prepare in &right {
        node.input(Input::Append(prepare.clone()));
        node.run();
        node.input(Input::Committed(prepare.header.op));
    }
    node.reopen();
    for prepare in shared.iter().chain(&right) {
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
}

#[test]
fn a_committed_prepare_replaces_another() {
    let mut node = Node::fresh(12);
    let mut author = Author::new();
    let log = author.log(0, 3);
    let mut fork = author.clone();
    let wrong = author.log(0, 3);
    let right = fork.next(1, 5000, 1);
    node.append_all(&log);
    for prepare in &wrong {
        node.input(Input::Append(prepare.clone()));
    }
    node.step();
    node.out.clear();
    node.input(Input::Append(right.clone()));
    assert_eq!(node.storage.head(), &right.header);
    node.run();
    assert_eq!(node.durable(), [4]);
    let recovered = node.reopen();
    assert_eq!(recovered.headers.last().unwrap(), &(right.header, Mark::Present));
}

#[test]
fn a_full_disk_loses_nothing_and_reads_go_on() {
    let mut node = Node::fresh(13);
    let log = Author::new().log(0, 3);
    node.append_all(&log[..1]);
    node.out.clear();
    node.platter.room = Some(0);
    node.input(Input::Append(log[1].clone()));
    node.input(Input::Append(log[2].clone()));
    node.run();
    assert_eq!(node.out.iter().filter(|output| matches!(output, Output::Full)).count(), 1);
    assert_eq!(node.fetch(1).as_ref(), Ok(&log[0]));
    node.now = node.storage.wake_at_for_test();
    node.input(Input::Wake);
    node.run();
    assert!(!node.out.iter().any(|output| matches!(output, Output::Full)), "said once");
    node.platter.room = None;
    node.now = node.storage.wake_at_for_test();
    node.input(Input::Wake);
    node.run();
    assert!(node.out.iter().any(|output| matches!(output, Output::Room)));
    assert_eq!(node.durable(), [2, 3]);
}

#[test]
fn a_failed_write_halts_for_good() {
    let mut node = Node::fresh(14);
    let log = Author::new().log(0, 2);
    node.platter.broken = true;
    node.input(Input::Append(log[0].clone()));
    node.run();
    let place = Place::log(0);
    assert!(
        matches!(node.out.last(), Some(Output::Halted(HaltReason::WriteFailed { place: at })) if *at == place)
    );
    node.out.clear();
    node.input(Input::Append(log[1].clone()));
    assert!(node.out.is_empty() && node.platter.asks.is_empty());
}

fn halted(platter: Platter) -> Option<HaltReason> {
    let mut node = Node::on(platter, 1);
    node.input(Input::Start);
    node.run();
    node.out.iter().find_map(|output| match output {
        Output::Halted(reason) => Some(*reason),
        _ => None,
    })
}

#[test]
fn a_directory_that_is_not_ours_is_refused() {
    assert_eq!(halted(Platter::default()), Some(HaltReason::NotFormatted));
    let mut platter = format();
    for copy in 0..3 {
        platter.flip(Place::superblock(copy * 16384), 5000);
    }
    assert_eq!(halted(platter), Some(HaltReason::SuperblockLost { copies: 1 }));
}

#[test]
fn two_damaged_superblocks_are_written_again() {
    let mut platter = format();
    platter.flip(Place::superblock(0), 5000);
    platter.spoil(Place::superblock(3 * 16384));
    let mut node = Node::on(platter, 15);
    node.open();
    let damaged = |output: &&Output| matches!(output, Output::Damaged { what: Damage::Superblock, .. });
    assert_eq!(node.out.iter().filter(damaged).count(), 2);
    node.reopen();
    assert_eq!(node.out.iter().filter(damaged).count(), 0);
}
