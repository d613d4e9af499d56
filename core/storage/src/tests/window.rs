//! Fetches that follow each other are answered from large reads, and judged no less.

use kimberlite_io::{Place, Zone};
use kimberlite_types::Op;
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_wire::Prepare;
use kimberlite_wire::prepare::segment_room;

use super::disk::{Ask, Author, Node, config};
use crate::{FetchError, Input};

const OPS: u64 = 24;

/// A node with four sealed or nearly full segments of small prepares, in files written with zeros before, opened anew.
fn node() -> (Node, Vec<Prepare>) {
    let mut author = Author::new();
    let log: Vec<Prepare> = (0..OPS).map(|op| author.next(1, 100, op as u8)).collect();
    let mut node = Node::fresh(3);
    node.append_all(&log);
    let layout = config().layout;
    for sector in (0..4 * layout.segment_size).step_by(SECTOR_SIZE).map(Place::log) {
        if sector.offset % layout.segment_size < segment_room(&layout) && !node.platter.has(sector) {
            node.platter.put(sector, &[0; SECTOR_SIZE]);
        }
    }
    node.reopen();
    (node, log)
}

/// Fetches an op. Answers it and how many reads of prepares that took.
fn fetch(node: &mut Node, op: u64) -> (Result<Prepare, FetchError>, usize) {
    let layout = config().layout;
    node.out.clear();
    node.input(Input::Fetch { op: Op(op), checksum: None });
    let mut reads = 0;
    while !node.platter.asks.is_empty() {
        if let Ask::Read(_, place, _) = &node.platter.asks[0] {
            let within = place.offset % layout.segment_size < segment_room(&layout);
            reads += usize::from(place.zone == Zone::Log && within);
        }
        node.answer(0);
    }
    (node.fetched(), reads)
}

#[test]
fn fetches_that_follow_each_other_share_reads_and_others_do_not() {
    let (mut node, log) = node();
    let mut reads = 0;
    for prepare in &log {
        let (found, asked) = fetch(&mut node, prepare.header.op.0);
        assert_eq!(found.as_ref(), Ok(prepare));
        reads += asked;
    }
    // Seven alone, and then what is left of each of the three segments of six ops.
    assert_eq!(reads, 7 + 3);
    for op in [5, 20, 3, 11] {
        assert_eq!(fetch(&mut node, op).0.as_ref(), Ok(&log[op as usize - 1]));
    }
    // What was read last is still at hand; nothing else is read ahead for those who jump.
    assert_eq!([5, 9, 3, 11].map(|op| fetch(&mut node, op).1), [1, 1, 1, 1]);
}

#[test]
fn a_bad_sector_in_a_window_takes_no_neighbour_with_it() {
    let (mut node, log) = node();
    node.platter.flip(Place::log(log[9].header.place), 600);
    node.platter.spoil(Place::log(log[15].header.place));
    for prepare in &log {
        let (found, _) = fetch(&mut node, prepare.header.op.0);
        match prepare.header.op.0 {
            10 | 16 => assert!(matches!(found, Err(FetchError::Damaged { .. })), "{found:?}"),
            _ => assert_eq!(found.as_ref(), Ok(prepare)),
        }
    }
}

#[test]
fn what_was_written_again_since_the_window_was_read_is_found() {
    let (mut node, log) = node();
    let tenth = &log[9];
    node.platter.flip(Place::log(tenth.header.place), 600);
    for op in 1..10 {
        assert!(fetch(&mut node, op).0.is_ok());
    }
    assert!(fetch(&mut node, 10).0.is_err());
    node.input(Input::Append(tenth.clone()));
    node.run();
    assert_eq!(fetch(&mut node, 10).0.as_ref(), Ok(tenth));
}
