//! What a verifier finds, and what an inspector shows.

use kimberlite_io::{Event, Machine, Place};
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{Config, Now, Op, ReplicaId, View};
use kimberlite_wire::{Prepare, PrepareHeader};

use super::disk::{Ask, Author, Node, Platter, config};
use crate::inspect::{self, RingSlot, SuperblockCopy};
use crate::superblock::{Superblock, copy_offset};
use crate::{Finding, Input, Missing, Verifier, VerifyInput, VerifyOutput, ViewState, Wrong};

fn verify(platter: &mut Platter) -> VerifyOutput {
    verify_as(config(), platter)
}

/// Alone, and with helpers that answer in several orders: all must come to the same verdict.
fn verify_as(config: Config, platter: &mut Platter) -> VerifyOutput {
    let alone = verdict(Verifier::new(config), platter, |_| 0);
    // Checks of one prepare and of several, few and many outstanding; answered first to last, and last to first.
    for (check_bytes, outstanding_bytes) in [(1, 1), (1, 20_000), (5_000, 12_000), (1 << 20, 1 << 20)] {
        for newest_first in [false, true] {
            let helped = Verifier::with_checks_of(config, check_bytes, outstanding_bytes);
            let order = |waiting: usize| if newest_first { waiting - 1 } else { 0 };
            assert_eq!(verdict(helped, platter, order), alone, "with checks of {check_bytes} bytes");
        }
    }
    alone
}

/// Reads are answered before checks are, as long as there are any.
fn verdict(mut verifier: Verifier, platter: &mut Platter, order: impl Fn(usize) -> usize) -> VerifyOutput {
    let mut out = Vec::new();
    let mut checks = Vec::new();
    platter.asks.clear();
    verifier.on(Now::default(), VerifyInput::Start, platter, &mut out);
    loop {
        checks.extend(out.extract_if(.., |output| matches!(output, VerifyOutput::Check(_))));
        let input = if !platter.asks.is_empty() {
            assert!(platter.asks.iter().all(|ask| matches!(ask, Ask::Read(..))), "a verifier only reads");
            let event: Event = platter.answer(platter.asks.len() - 1);
            VerifyInput::Event(event)
        } else if !checks.is_empty() {
            let VerifyOutput::Check(check) = checks.remove(order(checks.len())) else { unreachable!() };
            VerifyInput::Checked(check.run())
        } else {
            return out.pop().expect("a verifier comes to an end");
        };
        verifier.on(Now::default(), input, platter, &mut out);
    }
}

#[test]
fn a_whole_log_is_verified_to_its_head() {
    let mut node = Node::fresh(21);
    let log = Author::new().log(0, 70);
    node.append_all(&log);
    let VerifyOutput::Whole(totals) = verify(&mut node.platter) else { panic!("the log is whole") };
    let last = log[69].header;
    assert_eq!((totals.op, totals.entries, totals.chain), (Op(70), 70, last.chain));
    assert_eq!(totals.bytes, log.iter().map(|prepare| u64::from(prepare.header.size)).sum::<u64>());
}

#[test]
fn every_damaged_prepare_is_found_sealed_or_not() {
    let log = Author::new().log(0, 70);
    let starts =
        log.iter().position(|prepare| prepare.header.place == 5 * config().layout.segment_size).unwrap();
    for (op, unreadable) in [(1, false), (starts, true), (starts + 1, false), (69, true), (70, false)] {
        let mut node = Node::fresh(22);
        node.append_all(&log);
        let place = Place::log(log[op - 1].header.place);
        if unreadable {
            node.platter.spoil(place);
        } else {
            node.platter.flip(place, 600);
        }
        let VerifyOutput::Broken(totals, finding) = verify(&mut node.platter) else {
            panic!("op {op} is broken")
        };
        assert_eq!(finding, Finding { place, op: Op(op as u64), what: Wrong::Damaged });
        assert_eq!(totals.op, Op(op as u64 - 1));
    }
}

#[test]
fn a_broken_chain_and_a_time_that_stands_still_are_found_behind_intact_checksums() {
    for what in [Wrong::Chain, Wrong::Time] {
        let mut node = Node::fresh(27);
        let mut author = Author::new();
        let mut log = author.log(0, 9);
        // Whoever made the tenth had a wrong idea of the ninth.
        match what {
            Wrong::Chain => author.head.chain = log[3].header.chain,
            _ => author.head.timestamp.0 -= 1,
        }
        log.push(author.next(0, 700, 1));
        log.extend(author.log(0, 30));
        node.append_all(&log);
        let VerifyOutput::Broken(totals, finding) = verify(&mut node.platter) else { panic!("{what}") };
        let place = Place::log(log[9].header.place);
        assert_eq!((totals.op, finding), (Op(9), Finding { place, op: Op(10), what }));
    }
}

#[test]
fn a_prepare_that_was_never_durable_is_no_damage() {
    let mut node = Node::fresh(23);
    let log = Author::new().log(0, 4);
    node.append_all(&log[..3]);
    node.input(Input::Append(log[3].clone()));
    let VerifyOutput::Whole(totals) = verify(&mut node.platter) else { panic!("the log is whole") };
    assert_eq!(totals.op, Op(3));
}

/// A backup that held 20 ops when it adopted a log of 30, whose last 8 headers it was told; of those it received what
/// `received` says, and then stopped.
fn behind(received: &[usize]) -> (Node, Vec<Prepare>) {
    let mut node = Node::fresh(26);
    let mut author = Author::new();
    let mut log = author.log(0, 30);
    log.extend((0..4).map(|fill| author.next(1, 300, fill)));
    node.append_all(&log[..20]);
    let headers = log[22..30].iter().map(|prepare| prepare.header).collect();
    let adopted = ViewState { view: View(1), log_view: View(1), commit: Op(25), headers };
    node.input(Input::PersistView(adopted));
    node.run();
    for op in received {
        node.input(Input::Append(log[op - 1].clone()));
        node.run();
    }
    (node, log)
}

/// Puts the ring's slot of an op there as it is when the op is durable.
fn ring(platter: &mut Platter, prepare: &Prepare) {
    let op = prepare.header.op.0;
    let slot = op % u64::from(config().layout.ring_slots) * PREPARE_HEADER_SIZE as u64;
    let sector = Place::headers(slot / 4096 * 4096);
    let mut bytes = platter.bytes(sector, 4096);
    let within = (slot % 4096) as usize;
    bytes[within..within + PREPARE_HEADER_SIZE].copy_from_slice(&prepare.header.encode());
    platter.put(sector, &bytes);
}

#[test]
fn a_backup_that_stopped_behind_is_not_damaged() {
    let (mut node, log) = behind(&[]);
    let VerifyOutput::Behind(totals, missing) = verify(&mut node.platter) else { panic!("it is behind") };
    assert_eq!((totals.op, totals.chain), (Op(20), log[19].header.chain));
    assert_eq!(missing, Missing { first: Op(21), last: Op(30), ops: 10 });
    // It goes on where it stopped.
    let (mut node, _) = behind(&[21, 22]);
    let VerifyOutput::Behind(totals, missing) = verify(&mut node.platter) else { panic!("it is behind") };
    assert_eq!((totals.op, missing), (Op(22), Missing { first: Op(23), last: Op(30), ops: 8 }));
    let all: Vec<usize> = (21..=30).collect();
    let (mut node, _) = behind(&all);
    let VerifyOutput::Whole(totals) = verify(&mut node.platter) else { panic!("it is whole") };
    assert_eq!(totals.op, Op(30));
}

#[test]
fn damage_in_front_of_or_behind_what_was_not_received_is_damage_all_the_same() {
    let (node, log) = behind(&[]);
    let with = |held: &[usize]| {
        let mut platter = node.platter.clone();
        for op in held {
            let prepare = &log[op - 1];
            platter.put(Place::log(prepare.header.place), &prepare.frame().padded());
            ring(&mut platter, prepare);
        }
        platter
    };
    // Adopted ones, and one that is linked to those.
    let held = [22, 23, 26, 30];
    let VerifyOutput::Behind(_, missing) = verify(&mut with(&held)) else { panic!("it is behind") };
    assert_eq!(missing, Missing { first: Op(21), last: Op(30), ops: 6 });
    // What followed the adopted log is known as far as it is linked to its head.
    let VerifyOutput::Behind(_, missing) = verify(&mut with(&[30, 31, 32, 34])) else {
        panic!("it is behind")
    };
    assert_eq!(missing, Missing { first: Op(21), last: Op(32), ops: 9 });
    for op in held.into_iter().chain([5]) {
        let mut platter = with(&held);
        let place = Place::log(log[op - 1].header.place);
        platter.flip(place, 600);
        let VerifyOutput::Broken(_, finding) = verify(&mut platter) else { panic!("op {op} is broken") };
        assert_eq!(finding, Finding { place, op: Op(op as u64), what: Wrong::Damaged });
    }
    // A slot that cannot be read may have named what is not there.
    for op in [21, 22, 25] {
        let mut platter = with(&[]);
        let slot = Place::headers(op % 32 * PREPARE_HEADER_SIZE as u64);
        platter.spoil(slot);
        assert!(matches!(
            verify(&mut platter),
            VerifyOutput::Broken(_, Finding { what: Wrong::Damaged, .. })
        ));
    }
}

#[test]
fn a_lone_replica_is_never_behind() {
    let (mut node, log) = behind(&[]);
    let copy = node.platter.bytes(Place::superblock(0), SUPERBLOCK_COPY_SIZE);
    let (superblock, _) = Superblock::decode(&copy).expect("the copy is intact");
    let (lone, _) = Superblock { replica: ReplicaId(0), replicas: 1, ..superblock }.encode();
    for copy in 0..SUPERBLOCK_COPIES {
        node.platter.put(Place::superblock(copy_offset(copy)), &lone);
    }
    let config = Config { replica: ReplicaId(0), replicas: 1, ..config() };
    let VerifyOutput::Broken(_, finding) = verify_as(config, &mut node.platter) else { panic!("it is lost") };
    let place = Place::log(log[20].header.place);
    assert_eq!(finding, Finding { place, op: Op(21), what: Wrong::Damaged });
}

#[test]
fn an_inspector_shows_superblock_ring_and_footer() {
    let mut node = Node::fresh(24);
    let log = Author::new().log(0, 40);
    node.append_all(&log);
    let (cluster, layout) = (config().cluster, config().layout);
    let copy = node.platter.bytes(Place::superblock(0), SUPERBLOCK_COPY_SIZE);
    let SuperblockCopy::Intact(fields) = inspect::superblock(&copy) else { panic!("the copy is intact") };
    assert_eq!((fields.sequence, fields.layout), (0, layout));
    assert_eq!(inspect::superblock(&copy[1..]), SuperblockCopy::Damaged);
    let bytes = node.platter.bytes(Place::headers(0), layout.ring_size() as usize);
    let slots = inspect::ring(&bytes, 0, cluster, &layout);
    assert_eq!(slots.len(), 32);
    assert_eq!(slots[8], RingSlot::Header(log[39].header));
    let size = inspect::footer_size_max(&layout) as usize;
    let bytes = node.platter.bytes(Place::log(inspect::footer_offset(1, &layout)), size);
    let footer = inspect::footer(&bytes, 1, cluster, &layout).expect("the segment is sealed");
    let first = footer.prepares[0];
    assert_eq!(
        (first.place, first.checksum),
        (layout.segment_size, log[first.op.0 as usize - 1].header.checksum)
    );
    assert_eq!(inspect::footer(&bytes, 2, cluster, &layout), None);
}

#[test]
fn what_an_older_log_left_behind_a_segment_is_not_taken_for_the_log() {
    let mut node = Node::fresh(25);
    let layout = config().layout;
    let mut author = Author::new();
    let mut log = Vec::new();
    // Fill a segment's room so far that a small prepare still fits, and a large one does not.
    while author.head.op.0 < 4 {
        log.push(author.next(0, 9_000, 0));
    }
    let mut fork = author.clone();
    let stale = author.next(0, 100, 1);
    let real = fork.next(1, 14_000, 2);
    assert_eq!((stale.header.place < layout.segment_size, real.header.place), (true, layout.segment_size));
    node.append_all(&log);
    node.input(Input::Append(stale));
    node.run();
    let headers: Vec<PrepareHeader> = log.iter().map(|prepare| prepare.header).collect();
    let adopted = ViewState { view: View(1), log_view: View(1), commit: Op(4), headers };
    node.input(Input::PersistView(adopted));
    node.run();
    log.push(real);
    log.extend((0..40).map(|n| fork.next(1, 200, n)));
    node.append_all(&log[4..]);
    let headers = log[36..].iter().map(|prepare| prepare.header).collect();
    let later = ViewState { view: View(2), log_view: View(2), commit: Op(45), headers };
    node.input(Input::PersistView(later));
    node.run();
    // With every footer, with those of the first two segments lost in turn.
    for lost in [None, Some(0), Some(1)] {
        if let Some(segment) = lost {
            node.platter.spoil(Place::log(inspect::footer_offset(segment, &layout)));
        }
        let VerifyOutput::Whole(totals) = verify(&mut node.platter) else { panic!("whole without {lost:?}") };
        assert_eq!(totals.op, Op(45));
        let recovered = node.reopen();
        assert_eq!(recovered.headers.last().unwrap().0, log[44].header);
        for prepare in &log {
            assert_eq!(node.fetch(prepare.header.op.0).as_ref(), Ok(prepare));
        }
    }
}
