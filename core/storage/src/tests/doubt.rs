//! What is not known for sure: ops in a hole, whose copies may be the last ones, and how far a lost end may have gone.

use kimberlite_io::{Place, sectors};
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SECTOR_SIZE};
use kimberlite_types::{Op, View};
use kimberlite_wire::message::Mark;
use kimberlite_wire::{Prepare, PrepareHeader};

use super::disk::{Ask, Author, Node, config};
use crate::{FetchError, Input, Output, Recovered, Storage, ViewState};

fn slot_place(op: u64) -> Place {
    Place::headers(op % u64::from(config().layout.ring_slots) * 512)
}

/// Adopts these prepares' headers as the end of the log.
fn adopt(node: &mut Node, view: u64, log: &[Prepare]) {
    let headers: Vec<PrepareHeader> = log.iter().map(|prepare| prepare.header).collect();
    node.input(Input::PersistView(ViewState {
        view: View(view),
        log_view: View(view),
        commit: Op::ZERO,
        headers,
    }));
    node.run();
}

/// Appends prepares that nobody says are committed.
fn append(node: &mut Node, log: &[Prepare]) {
    for prepare in log {
        node.input(Input::Append(prepare.clone()));
        node.run();
    }
}

fn ops(recovered: &Recovered) -> Vec<u64> {
    recovered.headers.iter().map(|(header, _)| header.op.0).collect()
}

/// A node that held five ops and adopted a log that it does not know to lead up from them.
fn with_hole(seed: u64) -> (Node, Vec<Prepare>) {
    let mut node = Node::fresh(seed);
    let log = Author::new().log(0, 40);
    append(&mut node, &log[..5]);
    adopt(&mut node, 1, &log[31..40]);
    (node, log)
}

#[test]
fn an_op_dropped_into_a_hole_is_fetched_by_its_checksum_and_held_again_when_it_is_appended() {
    let (mut node, log) = with_hole(41);
    for prepare in &log[..5] {
        let header = prepare.header;
        assert_eq!(node.fetch(header.op.0), Err(FetchError::Missing), "without its checksum it is not named");
        let other = PrepareHeader { op: header.op, ..log[10].header };
        assert_eq!(node.fetch_this(&other), Err(FetchError::Missing));
        assert_eq!(node.storage.header(header.op), None);
        assert_eq!(node.fetch_this(&header).as_ref(), Ok(prepare));
    }
    for prepare in &log {
        let header = prepare.header;
        let own = if header.op.0 <= 5 { node.fetch_this(&header).unwrap() } else { prepare.clone() };
        node.out.clear();
        node.input(Input::Append(own));
        node.run();
        assert_eq!(node.durable(), [header.op.0]);
        assert_eq!(node.fetch(header.op.0).as_ref(), Ok(prepare));
        node.input(Input::Committed(header.op));
        node.run();
    }
    let recovered = node.reopen();
    assert!(recovered.headers.iter().all(|(_, mark)| *mark == Mark::Present));
    for prepare in &log {
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
}

#[test]
fn after_a_reopen_with_the_hole_still_open_what_it_held_is_still_fetched_by_its_checksum() {
    let (mut node, log) = with_hole(42);
    for _ in 0..2 {
        let recovered = node.reopen();
        assert_eq!(ops(&recovered), (32..=40).collect::<Vec<_>>());
        assert_eq!(recovered.unknown, [], "what is doubtful is not counted as held");
        for prepare in &log[..5] {
            assert_eq!(node.fetch(prepare.header.op.0), Err(FetchError::Missing));
            assert_eq!(node.fetch_this(&prepare.header).as_ref(), Ok(prepare));
        }
        append(&mut node, &log[2..4]);
    }
}

#[test]
fn what_the_ring_names_in_a_hole_is_fetched_though_the_walk_did_not_get_there() {
    let (mut node, log) = with_hole(43);
    node.platter.spoil(Place::log(log[1].header.place));
    node.platter.flip(slot_place(2), 40);
    node.reopen();
    assert_eq!(node.fetch_this(&log[1].header), Err(FetchError::Missing), "both its witnesses are lost");
    for prepare in [&log[0], &log[2], &log[3], &log[4]] {
        assert_eq!(node.fetch_this(&prepare.header).as_ref(), Ok(prepare));
    }
}

#[test]
fn a_doubtful_op_whose_place_was_overwritten_is_damaged_and_never_another_prepare() {
    let mut node = Node::fresh(44);
    let mut author = Author::new();
    let shared = author.log(0, 3);
    let mut fork = author.clone();
    let wrong: Vec<Prepare> = (0..3).map(|n| author.next(0, 100, n)).collect();
    let long = fork.next(1, 12_000, 9);
    let right = fork.log(1, 20);
    append(&mut node, &shared);
    append(&mut node, &wrong);
    adopt(&mut node, 1, &right[11..20]);
    assert_eq!(node.fetch_this(&wrong[1].header).as_ref(), Ok(&wrong[1]));
    append(&mut node, std::slice::from_ref(&long));
    assert!(long.header.end() > wrong[2].header.place);
    for reopened in [false, true] {
        if reopened {
            node.reopen();
        } else {
            assert_eq!(node.fetch_this(&wrong[0].header), Err(FetchError::Superseded));
        }
        for prepare in &wrong[1..] {
            let (checksum, place) = (Some(prepare.header.checksum), Place::log(prepare.header.place));
            assert_eq!(node.fetch_this(&prepare.header), Err(FetchError::Damaged { checksum, place }));
            assert!(node.out.is_empty(), "the disk did nothing wrong");
        }
        assert_eq!(node.fetch_this(&long.header).as_ref(), Ok(&long));
    }
}

#[test]
fn a_later_log_that_names_a_doubtful_op_finds_it_and_one_that_ends_before_it_forgets_it() {
    let (mut node, log) = with_hole(45);
    adopt(&mut node, 2, &log[1..8]);
    for prepare in &log[1..5] {
        assert_eq!(node.storage.header(prepare.header.op), Some(prepare.header));
        assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
    }
    assert_eq!(node.fetch(6), Err(FetchError::Missing), "it was never held");
    let place = Place::log(log[4].header.place);
    node.platter.spoil(place);
    assert_eq!(
        node.fetch(5),
        Err(FetchError::Damaged { checksum: Some(log[4].header.checksum), place }),
        "it was held, so it is not missing"
    );
    append(&mut node, &log[4..5]);
    assert!(node.out.iter().any(|output| matches!(output, Output::Repaired { op: Op(5), .. })));
    assert_eq!(node.fetch(5).as_ref(), Ok(&log[4]));

    let (mut node, log) = with_hole(46);
    adopt(&mut node, 2, &log[..3]);
    for prepare in &log[3..5] {
        assert_eq!(node.fetch_this(&prepare.header), Err(FetchError::Missing));
    }
    assert_eq!(node.fetch(3).as_ref(), Ok(&log[2]));
}

#[test]
fn a_doubtful_op_that_is_appended_while_it_is_read_is_answered_from_memory() {
    let (mut node, log) = with_hole(47);
    let header = log[3].header;
    node.platter.spoil(Place::log(header.place));
    node.out.clear();
    node.input(Input::Fetch { op: header.op, checksum: Some(header.checksum) });
    node.input(Input::Append(log[3].clone()));
    node.answer(0);
    assert!(matches!(&node.out[..], [Output::Fetched { result: Ok(prepare), .. }] if *prepare == log[3]));
    node.run();
    assert_eq!(node.durable(), [4]);
}

/// Loses the prepare of an op, and with it the trace that its slot is.
fn lose(node: &mut Node, prepare: &Prepare) {
    node.platter.spoil(Place::log(prepare.header.place));
    node.platter.flip(slot_place(prepare.header.op.0), 40);
}

fn doubt(recovered: &Recovered) -> (u64, u64) {
    assert_eq!(recovered.head_certain(), recovered.head().op == recovered.doubt_until);
    (recovered.head().op.0, recovered.doubt_until.0)
}

#[test]
fn the_doubt_ends_at_the_first_intact_slot_that_does_not_name_its_op() {
    let mut node = Node::fresh(48);
    let log = Author::new().log(0, 5);
    append(&mut node, &log);
    assert_eq!(doubt(&node.reopen()), (5, 5));
    lose(&mut node, &log[4]);
    assert_eq!(doubt(&node.reopen()), (4, 5));
    // A slot of a later op that is bad, too, goes with it; one behind an intact slot does not.
    node.platter.flip(slot_place(6), 40);
    node.platter.flip(slot_place(8), 40);
    assert_eq!(doubt(&node.reopen()), (4, 6));
}

#[test]
fn a_bad_sector_of_the_ring_puts_its_ops_in_doubt_to_its_end() {
    let mut node = Node::fresh(49);
    let log = Author::new().log(0, 11);
    append(&mut node, &log[..10]);
    node.input(Input::Append(log[10].clone()));
    node.platter.cut_power(|| false);
    node.platter.spoil(slot_place(8));
    node.platter.spoil(Place::log(log[10].header.place));
    let recovered = node.reopen();
    assert_eq!(doubt(&recovered), (10, 15));
    assert_eq!(recovered.unknown, [(Op(11), Place::log(log[10].header.place))]);
}

/// The head, the gap, the ops in front of it, and those behind.
type Gap = (u64, Option<(u64, u64)>, Vec<u64>, Vec<u64>);

/// What an open says of a log with a gap.
fn gap(recovered: &Recovered) -> Gap {
    assert!(recovered.head_certain());
    let named = |headers: &[(PrepareHeader, Mark)]| headers.iter().map(|(header, _)| header.op.0).collect();
    let gap = recovered.gap.map(|(first, last)| (first.0, last.0));
    (recovered.head().op.0, gap, named(&recovered.below_gap), named(&recovered.headers))
}

#[test]
fn behind_a_lost_op_the_log_goes_on_where_a_slot_names_the_next_one() {
    let mut node = Node::fresh(50);
    let log = Author::new().log(0, 6);
    append(&mut node, &log);
    lose(&mut node, &log[3]);
    let expect = (6, Some((4, 4)), vec![0, 1, 2, 3], vec![5, 6]);
    for _ in 0..2 {
        let recovered = node.reopen();
        assert_eq!(gap(&recovered), expect, "opening takes nothing away");
        assert_eq!(recovered.unknown, [(Op(4), Place::log(log[3].header.place))]);
        node.out.clear();
        node.input(Input::Survey);
        assert!(
            matches!(&node.out[..], [Output::Fetched { op: Op(4), result: Err(FetchError::Damaged { checksum, .. }), .. }]
                if *checksum == Some(log[3].header.checksum)),
            "its child tells which prepare is lost"
        );
    }
    append(&mut node, &log[3..4]);
    assert_eq!(gap(&node.reopen()), (6, None, vec![], vec![0, 1, 2, 3, 4, 5, 6]));
}

#[test]
fn behind_a_lost_op_the_next_is_found_though_its_slot_is_lost_too() {
    let mut node = Node::fresh(55);
    let log = Author::new().log(0, 6);
    append(&mut node, &log);
    lose(&mut node, &log[3]);
    node.platter.flip(slot_place(5), 40);
    node.platter.flip(slot_place(6), 40);
    assert_eq!(gap(&node.reopen()), (6, Some((4, 4)), vec![0, 1, 2, 3], vec![5, 6]));
}

#[test]
fn what_an_older_view_left_behind_a_lost_op_is_not_taken_for_the_log() {
    let mut node = Node::fresh(56);
    let mut author = Author::new();
    let log = author.log(0, 4);
    let mut fork = author.clone();
    let older = author.log(0, 3);
    append(&mut node, &log);
    append(&mut node, &older);
    adopt(&mut node, 2, &log);
    let newer = fork.next(2, 100, 1);
    append(&mut node, std::slice::from_ref(&newer));
    lose(&mut node, &newer);
    node.platter.flip(slot_place(6), 40);
    node.platter.flip(slot_place(7), 40);
    let recovered = node.reopen();
    assert_eq!(doubt(&recovered), (4, 7));
    assert_eq!(recovered.gap, None);
}

#[test]
fn a_slot_of_an_older_log_ends_the_doubt() {
    let mut node = Node::fresh(51);
    let mut author = Author::new();
    let log = author.log(0, 4);
    let mut fork = author.clone();
    let older = author.log(0, 3);
    append(&mut node, &log);
    append(&mut node, &older);
    adopt(&mut node, 2, &log);
    let newer = fork.next(2, 100, 1);
    append(&mut node, std::slice::from_ref(&newer));
    lose(&mut node, &newer);
    assert_eq!(doubt(&node.reopen()), (4, 5), "the slots of 6 and 7 name ops of view 0");
}

#[test]
fn a_ring_that_is_lost_whole_puts_one_round_in_doubt() {
    let mut node = Node::fresh(52);
    let slots = u64::from(config().layout.ring_slots);
    for slot in (0..slots).step_by(8) {
        node.platter.spoil(slot_place(slot));
    }
    assert_eq!(doubt(&node.reopen()), (0, slots));
}

#[test]
fn a_sealed_op_that_is_lost_with_its_footer_leaves_a_gap_and_no_doubt() {
    let mut node = Node::fresh(53);
    let log = Author::new().log(0, 80);
    node.append_all(&log);
    let layout = config().layout;
    for segment in 0..=log[79].header.place / layout.segment_size {
        node.platter.spoil(Place::log(crate::footer::offset(segment, &layout)));
    }
    node.platter.spoil(Place::log(log[9].header.place));
    let recovered = node.reopen();
    assert_eq!((gap(&recovered).0, gap(&recovered).1), (80, Some((10, 10))));
    append(&mut node, &log[9..10]);
    assert_eq!(node.reopen().gap, None);
}

#[test]
fn a_sealed_op_whose_slot_was_damaged_first_is_never_cut_when_it_is_lost_with_its_footer() {
    let mut node = Node::fresh(59);
    let log = Author::new().log(0, 20);
    node.append_all(&log);
    let layout = config().layout;
    node.platter.flip(slot_place(3), 40);
    assert_eq!(doubt(&node.reopen()), (20, 20));
    let sector = node.platter.bytes(Place::headers(0), SECTOR_SIZE);
    let slot = &sector[3 * PREPARE_HEADER_SIZE..4 * PREPARE_HEADER_SIZE];
    assert_eq!(
        crate::inspect::ring(slot, 3, config().cluster, &layout)[0],
        crate::inspect::RingSlot::Sealed(Op(3))
    );
    for segment in 0..=log[19].header.place / layout.segment_size {
        node.platter.spoil(Place::log(crate::footer::offset(segment, &layout)));
    }
    node.platter.spoil(Place::log(log[2].header.place));
    let recovered = node.reopen();
    assert_eq!((gap(&recovered).0, gap(&recovered).1), (20, Some((3, 3))));
    append(&mut node, &log[2..3]);
    assert_eq!(node.reopen().gap, None);
}

#[test]
fn a_repaired_op_does_not_take_a_bad_slot_that_a_newer_one_may_own() {
    let mut node = Node::fresh(57);
    let log = Author::new().log(0, 80);
    node.append_all(&log);
    let layout = config().layout;
    let segment = |op: usize| log[op - 1].header.place / layout.segment_size;
    for segment in segment(43)..=segment(80) {
        node.platter.spoil(Place::log(crate::footer::offset(segment, &layout)));
    }
    // Ops 43 and 75 share a slot, which is lost like both their prepares.
    assert_eq!(layout.ring_slots, 32);
    node.platter.flip(slot_place(43), 40);
    node.platter.spoil(Place::log(log[42].header.place));
    node.platter.spoil(Place::log(log[74].header.place));
    assert_eq!(gap(&node.reopen()).1, Some((43, 75)));
    append(&mut node, &log[42..43]);
    assert_eq!(gap(&node.reopen()).1, Some((75, 75)), "op 75 was acknowledged: it is never cut");
    append(&mut node, &log[74..75]);
    assert_eq!(node.reopen().gap, None);
}

#[test]
fn an_adopted_op_is_missing_behind_the_doubt_and_unknown_within_it() {
    let mut node = Node::fresh(54);
    let log = Author::new().log(0, 8);
    append(&mut node, &log[..4]);
    lose(&mut node, &log[3]);
    node.platter.flip(slot_place(5), 40);
    assert_eq!(doubt(&node.reopen()), (3, 5));
    adopt(&mut node, 1, &log[..8]);
    for prepare in &log[3..5] {
        let header = prepare.header;
        let lost = FetchError::Damaged { checksum: Some(header.checksum), place: Place::log(header.place) };
        assert_eq!(node.fetch(header.op.0), Err(lost));
    }
    for op in 6..=8 {
        assert_eq!(node.fetch(op), Err(FetchError::Missing), "nothing behind the doubt was ever held");
    }
    append(&mut node, &log[3..]);
    assert_eq!(doubt(&node.reopen()), (8, 8));
}

/// Answers writes of prepares of these ops, and of nothing else; then the power goes.
fn written_when_the_power_goes(node: &mut Node, log: &[Prepare]) {
    for prepare in log {
        let place = Place::log(prepare.header.place);
        let asked = |ask: &Ask| matches!(ask, Ask::Write(_, at, _) if *at == place);
        let index = node.platter.asks.iter().position(asked).unwrap();
        node.answer(index);
    }
    node.platter.cut_power(|| false);
}

#[test]
fn the_log_does_not_go_on_behind_an_op_that_its_slot_denies() {
    let mut node = Node::fresh(58);
    let log = Author::new().log(0, 7);
    append(&mut node, &log[..4]);
    // Op 6 is written before op 5; neither was acknowledged.
    node.input(Input::Append(log[4].clone()));
    node.input(Input::Append(log[5].clone()));
    written_when_the_power_goes(&mut node, &log[5..6]);
    // A segment is written with zeros before: op 5 is a place that was never filled, not the end of the file.
    for offset in (log[4].header.place..log[4].header.end()).step_by(SECTOR_SIZE) {
        node.platter.put(Place::log(offset), &[0; SECTOR_SIZE]);
    }
    lose(&mut node, &log[3]);
    // Were op 6 the head, op 7 would be acknowledged on it; and once op 4 is back, op 5 would end the log.
    let recovered = node.reopen();
    assert_eq!((doubt(&recovered), recovered.gap), ((3, 4), None));
}

#[test]
fn what_follows_a_lost_op_without_a_slot_is_kept_and_its_slot_is_set() {
    let mut node = Node::fresh(59);
    let log = Author::new().log(0, 6);
    append(&mut node, &log[..4]);
    node.input(Input::Append(log[4].clone()));
    written_when_the_power_goes(&mut node, &log[4..5]);
    lose(&mut node, &log[3]);
    assert_eq!(gap(&node.reopen()), (5, Some((4, 4)), vec![0, 1, 2, 3], vec![5]));
    append(&mut node, &log[5..]);
    append(&mut node, &log[3..4]);
    node.platter.spoil(Place::log(log[4].header.place));
    assert_eq!(node.reopen().head().op, Op(6), "op 6 was acknowledged: it is never cut");
}

#[test]
fn nothing_is_durable_behind_an_op_that_waits_for_its_slot_since_a_crash() {
    let (mut node, log) = with_hole(60);
    let mut author = Author { head: log[39].header };
    let newer = author.log(1, 5);
    append(&mut node, &log[31..]);
    append(&mut node, &newer[..4]);
    node.platter.cut_power(|| false);
    assert_eq!(node.reopen().head().op, Op(44));
    for prepare in &log {
        append(&mut node, std::slice::from_ref(prepare));
        node.input(Input::Committed(prepare.header.op));
        node.run();
    }
    node.out.clear();
    append(&mut node, &newer[4..]);
    assert_eq!(node.durable(), [0; 0], "the slots of 41 to 44 still deny them");
    append(&mut node, &newer[..4]);
    assert_eq!(node.durable(), [41, 42, 43, 44, 45]);
    node.platter.spoil(Place::log(newer[0].header.place));
    assert_eq!(node.reopen().head().op, Op(45));
}

#[test]
fn an_op_that_is_lost_while_it_is_settled_does_not_end_the_log() {
    let mut node = Node::fresh(61);
    let log = Author::new().log(0, 7);
    append(&mut node, &log[..4]);
    node.input(Input::Append(log[4].clone()));
    node.input(Input::Append(log[5].clone()));
    written_when_the_power_goes(&mut node, &log[4..6]);
    node.storage = Storage::new(config());
    node.out.clear();
    node.input(Input::Start);
    let header = log[4].header;
    let len = sectors(u64::from(header.size)) as usize;
    let settles =
        |ask: &Ask| matches!(ask, Ask::Read(_, at, of) if *at == Place::log(header.place) && *of == len);
    while !node.platter.asks.iter().any(settles) {
        assert!(node.step(), "op 5 is read to be settled");
    }
    node.platter.spoil(Place::log(header.place));
    node.run();
    append(&mut node, &log[6..]);
    assert!(node.durable().contains(&7));
    assert_eq!(node.reopen().head().op, Op(7), "op 7 was acknowledged: it is never cut");
}

#[test]
fn an_adopted_op_whose_slot_names_what_it_replaced_is_named_and_never_denied() {
    let mut node = Node::fresh(58);
    let mut author = Author::new();
    let start = author.log(0, 4);
    let replaced = author.clone().next(0, 100, 7);
    let op = author.next(0, 100, 1);
    append(&mut node, &start);
    append(&mut node, std::slice::from_ref(&op));
    // A repaired copy reached the disk before the power went, and its slot did not.
    let slot = 5 * PREPARE_HEADER_SIZE..6 * PREPARE_HEADER_SIZE;
    let mut ring = node.platter.bytes(Place::headers(0), SECTOR_SIZE);
    assert_eq!(ring[slot.clone()], op.header.encode());
    ring[slot.clone()].copy_from_slice(&replaced.header.encode());
    node.platter.put(Place::headers(0), &ring);
    assert_eq!(doubt(&node.reopen()), (5, 5));
    adopt(&mut node, 1, &[start, vec![op.clone()]].concat());
    assert_eq!(node.platter.bytes(Place::headers(0), SECTOR_SIZE)[slot], op.header.encode());
    node.platter.spoil(Place::log(op.header.place));
    let recovered = node.reopen();
    assert_eq!(recovered.headers.last(), Some(&(op.header, Mark::Unknown)), "it was held");
}
