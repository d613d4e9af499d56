//! The table of cases.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_types::limits::{FRAME_BODY_SIZE_LIMIT, SECTOR_SIZE};
use kimberlite_types::{Now, ReplicaId};

use super::actor::node;
use super::disk::Expect::{Absent, Seed, Zeros, ZerosOrAbsent};
use super::disk::Op::{Read, Trim, Write};
use super::disk::{Op, Script};
use super::message::Sender;
use super::stream::{
    CLOSE_SIZES, CREDIT_SIZES, Deserter, Drain, EchoCaller, Hose, Miser, Pusher, Rounds, WrongNumber,
};
use super::time::{Sleeper, Storm};
use super::{Case, Echo, Geometry, MachineFactory, Phase};
use crate::Place;

/// How long a phase may take. Most take milliseconds; test machines are busy.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a disk script stays to hear a second answer, where that is the point.
const LINGER: Duration = Duration::from_millis(100);

const SECTOR: u64 = SECTOR_SIZE as u64;

type Machines = fn(Geometry) -> Vec<MachineFactory>;

/// Every promise of a driver, each as a case. Run all of them.
pub fn cases() -> Vec<Case> {
    [net_cases(), disk_cases(), time_cases()].concat()
}

fn case(name: &'static str, claim: &'static str, phases: &[Machines]) -> Case {
    let phases = phases.iter().map(|machines| Phase { machines: *machines, limit: LIMIT }).collect();
    Case { name, claim, phases }
}

fn net_cases() -> Vec<Case> {
    vec![
        case(
            "messages_arrive_whole",
            "A message arrives with its head and body as sent, the body aligned and padded with zeros",
            &[|_| vec![node(Sender::default), echo()]],
        ),
        case(
            "streams_keep_their_order",
            "Bytes on a stream arrive all and in order, however they are cut",
            &[|_| vec![node(EchoCaller::new), echo()]],
        ),
        case(
            "credit_holds_the_sender",
            "A stream receives what was granted, to the last byte, and not one more",
            &[|_| vec![node(|| Pusher::new(CREDIT_SIZES.to_vec(), false)), node(Miser::default)]],
        ),
        case(
            "sent_follows_the_last_byte",
            "`Sent` comes once each time everything queued has left",
            &[|_| vec![node(Rounds::new), echo()]],
        ),
        case(
            "close_delivers_what_was_queued",
            "What was queued before a close still arrives, then the other side hears `Ended`",
            &[|_| vec![node(|| Pusher::new(CLOSE_SIZES.to_vec(), true)), node(Drain::default)]],
        ),
        case(
            "nobody_listening_is_refused",
            "A call to a node that is not there, or to an unknown address, closes as `Refused`, once",
            &[|_| vec![node(WrongNumber::default)]],
        ),
        case(
            "closed_streams_are_silent",
            "Nothing is heard of a stream after its machine closed it",
            &[|_| vec![node(Deserter::new), node(|| Hose)]],
        ),
    ]
}

fn disk_cases() -> Vec<Case> {
    vec![
        case(
            "a_write_is_read_back",
            "A read returns what was last written there, whole or in part",
            &[|geometry| one(written_and_read(geometry))],
        ),
        case(
            "a_write_survives_the_process",
            "What was answered `Written` is there after the process was killed at once",
            &[|geometry| one(vec![kept_writes(geometry)]), |geometry| one(vec![kept_reads(geometry)])],
        ),
        case(
            "concurrent_writes_are_all_answered",
            "Many writes in flight at disjoint places are all answered and all there",
            &[|_| one(concurrent())],
        ),
        case(
            "fixed_zones_start_as_zeros",
            "A place in a fixed zone that was never written reads as zeros, also beside a written one",
            &[|geometry| one(fixed_zones(geometry))],
        ),
        case(
            "past_the_end_is_absent",
            "A read past the end of the log answers `Absent`",
            &[|geometry| one(past_the_end(geometry))],
        ),
        case(
            "a_later_segment_can_come_first",
            "A segment of the log can be written before those ahead of it",
            &[|geometry| one(later_segment(geometry))],
        ),
        case(
            "the_log_rolls_over_segments",
            "Writes at both ends of three segments are read back, also by the next process",
            &[|geometry| one(roll_over(geometry)), |geometry| one(vec![rolled_reads(geometry)])],
        ),
        case(
            "asks_are_answered_once",
            "Each disk ask is answered once, by its own token, with an answer of its kind",
            &[|geometry| vec![node(move || Script::new(mixed(geometry)).lingering(LINGER))]],
        ),
        case(
            "trimmed_bytes_are_gone",
            "Trimmed places read as zeros or `Absent`, and their neighbours as before",
            &[|geometry| one(trimmed(geometry))],
        ),
    ]
}

fn time_cases() -> Vec<Case> {
    vec![
        case(
            "wakes_come_when_asked",
            "A machine is woken at or after the time it asked for last, also when that time moved closer",
            &[|_| vec![node(Sleeper::new)]],
        ),
        case(
            "time_never_goes_back",
            "The monotonic time of an event is never before that of the event before it",
            &[|_| one(concurrent())],
        ),
        case(
            "wake_storms_starve_nobody",
            "Other events come through while a machine wants to be woken all the time",
            &[|_| vec![node(Storm::default)]],
        ),
    ]
}

fn echo() -> MachineFactory {
    Box::new(|_: Now| Box::new(Echo::new(ReplicaId(1))))
}

/// One node that runs a disk script.
fn one(rounds: Vec<Vec<Op>>) -> Vec<MachineFactory> {
    vec![node(move || Script::new(rounds))]
}

/// The size of the largest write: a whole prepare, if it fits a segment.
fn largest(geometry: Geometry) -> u64 {
    u64::from(FRAME_BODY_SIZE_LIMIT).min(geometry.segment_size)
}

fn written_and_read(geometry: Geometry) -> Vec<Vec<Op>> {
    let large = largest(geometry);
    vec![
        vec![
            Write(Place::superblock(0), 4 * SECTOR, 1),
            Write(Place::headers(SECTOR), SECTOR, 2),
            Write(Place::log(0), large, 3),
        ],
        vec![
            Read(Place::superblock(0), 4 * SECTOR, Seed(1)),
            Read(Place::headers(SECTOR), SECTOR, Seed(2)),
            Read(Place::log(0), large, Seed(3)),
            Read(Place::log(7 * SECTOR), 5 * SECTOR, Seed(3)),
        ],
        vec![Write(Place::superblock(SECTOR), SECTOR, 4), Write(Place::log(8 * SECTOR), SECTOR, 5)],
        vec![
            Read(Place::superblock(0), SECTOR, Seed(1)),
            Read(Place::superblock(SECTOR), SECTOR, Seed(4)),
            Read(Place::superblock(2 * SECTOR), 2 * SECTOR, Seed(1)),
            Read(Place::log(7 * SECTOR), SECTOR, Seed(3)),
            Read(Place::log(8 * SECTOR), SECTOR, Seed(5)),
            Read(Place::log(9 * SECTOR), SECTOR, Seed(3)),
        ],
    ]
}

/// What is written before the kill, and how much.
fn kept(geometry: Geometry) -> [(Place, u64); 5] {
    [
        (Place::superblock(0), 4 * SECTOR),
        (Place::headers(geometry.headers_size - SECTOR), SECTOR),
        (Place::log(0), 16 * SECTOR),
        (Place::log(64 * SECTOR), largest(geometry) - 64 * SECTOR),
        (Place::log(geometry.segment_size), SECTOR),
    ]
}

fn kept_writes(geometry: Geometry) -> Vec<Op> {
    kept(geometry).into_iter().map(|(at, len)| Write(at, len, 6)).collect()
}

fn kept_reads(geometry: Geometry) -> Vec<Op> {
    kept(geometry).into_iter().map(|(at, len)| Read(at, len, Seed(6))).collect()
}

/// 64 writes of one to four sectors, all in flight at once, with reads of what none of them touches.
fn concurrent() -> Vec<Vec<Op>> {
    let slots = || (0..64_u64).map(|slot| (Place::log(slot * 4 * SECTOR), (slot % 4 + 1) * SECTOR, slot));
    let asks = slots().flat_map(|(at, len, seed)| {
        let beside = Place::headers(seed % 8 * SECTOR);
        [Write(at, len, seed), Read(beside, SECTOR, Zeros)]
    });
    vec![asks.collect(), slots().map(|(at, len, seed)| Read(at, len, Seed(seed))).collect()]
}

fn fixed_zones(geometry: Geometry) -> Vec<Vec<Op>> {
    let superblock_end = geometry.superblock_size - SECTOR;
    let headers_end = geometry.headers_size - SECTOR;
    let reads = |sectors: [Place; 6]| sectors.map(|at| Read(at, SECTOR, Zeros)).to_vec();
    let untouched = || {
        reads([
            Place::superblock(0),
            Place::superblock(2 * SECTOR),
            Place::superblock(superblock_end),
            Place::headers(0),
            Place::headers(2 * SECTOR),
            Place::headers(headers_end),
        ])
    };
    let writes = vec![Write(Place::superblock(SECTOR), SECTOR, 7), Write(Place::headers(SECTOR), SECTOR, 8)];
    vec![untouched(), writes, untouched()]
}

fn past_the_end(geometry: Geometry) -> Vec<Vec<Op>> {
    let read = |segment| Read(Place::log(segment * geometry.segment_size), SECTOR, Absent);
    vec![vec![Write(Place::log(0), SECTOR, 9)], vec![read(4), read(64)]]
}

fn later_segment(geometry: Geometry) -> Vec<Vec<Op>> {
    let at = Place::log(2 * geometry.segment_size + SECTOR);
    vec![
        vec![Write(at, 3 * SECTOR, 10)],
        vec![Read(at, 3 * SECTOR, Seed(10)), Read(Place::log(0), SECTOR, ZerosOrAbsent)],
        vec![Write(Place::log(0), SECTOR, 11)],
        vec![Read(at, 3 * SECTOR, Seed(10)), Read(Place::log(0), SECTOR, Seed(11))],
    ]
}

/// The first and the last two sectors of the first three segments.
fn ends(geometry: Geometry) -> Vec<Place> {
    let of_segment = |segment| {
        let start = segment * geometry.segment_size;
        [Place::log(start), Place::log(start + geometry.segment_size - 2 * SECTOR)]
    };
    (0..3).flat_map(of_segment).collect()
}

/// One write after the other, as a journal grows, then all read at once.
fn roll_over(geometry: Geometry) -> Vec<Vec<Op>> {
    let write = |at| vec![Write(at, 2 * SECTOR, 12)];
    let mut rounds: Vec<_> = ends(geometry).into_iter().map(write).collect();
    rounds.push(rolled_reads(geometry));
    rounds
}

fn rolled_reads(geometry: Geometry) -> Vec<Op> {
    ends(geometry).into_iter().map(|at| Read(at, 2 * SECTOR, Seed(12))).collect()
}

/// Asks of all kinds at once, some to the same place one after the other.
fn mixed(geometry: Geometry) -> Vec<Vec<Op>> {
    let round = |seed| {
        vec![
            Write(Place::log(0), 8 * SECTOR, seed),
            Write(Place::superblock(0), SECTOR, seed),
            Read(Place::headers(0), SECTOR, Zeros),
            Trim(Place::log(16 * SECTOR), 4 * SECTOR),
            Read(Place::headers(0), SECTOR, Zeros),
            Read(Place::log(4 * geometry.segment_size), SECTOR, Absent),
        ]
    };
    (13..16).map(round).collect()
}

fn trimmed(geometry: Geometry) -> Vec<Vec<Op>> {
    let next = Place::log(geometry.segment_size);
    vec![
        vec![Write(Place::log(0), 8 * SECTOR, 16), Write(next, 2 * SECTOR, 17)],
        vec![Trim(Place::log(2 * SECTOR), 2 * SECTOR)],
        vec![
            Read(Place::log(0), 2 * SECTOR, Seed(16)),
            Read(Place::log(2 * SECTOR), 2 * SECTOR, ZerosOrAbsent),
            Read(Place::log(4 * SECTOR), 4 * SECTOR, Seed(16)),
        ],
        vec![Trim(Place::log(0), geometry.segment_size)],
        vec![Read(Place::log(0), 8 * SECTOR, ZerosOrAbsent), Read(next, 2 * SECTOR, Seed(17))],
    ]
}
