//! Lives of nodes, recorded as production records them, and lived again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kimberlite_bundle::{Ended, Entry, Flight, Identity, Opening, Reader, Tail};
use kimberlite_io::{Ask, Asked, Buf, Event, Machine as _, ReadFault, Zone};
use kimberlite_runtime::Node;
use kimberlite_sim::{FailureKind, Relived, relive};
use kimberlite_storage::{FormatInput, FormatOutput, Formatter};
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{ClusterId, Config, Instant, Layout, Now, Op, ReplicaId, Timing, WallTime};

const SECRET: [u8; 32] = *b"the secret that nobody else has.";

fn config() -> Config {
    Config {
        cluster: ClusterId(7),
        replica: ReplicaId(1),
        replicas: 3,
        layout: Layout::SMALL,
        timing: Timing::PRODUCTION,
        pipeline_max: 8,
        sessions_max: 64,
    }
}

fn at(micros: u64) -> Now {
    Now { monotonic: Instant(micros * 1_000), wall: WallTime(1_000_000_000 + micros * 1_000) }
}

/// The life of a node on a disk that holds nothing: it looks, and halts.
fn life_on_a_blank_disk() -> Vec<u8> {
    let opening = Opening { identity: Identity::current(), config: config(), seed: 5, at: at(0) };
    let mut flight = Flight::begin(Vec::new(), &opening, &SECRET, 1 << 20).expect("memory is written");
    let mut node = Node::new(config(), &SECRET, 5);
    let mut asked = Asked::new();
    let mut due = vec![Event::Wake];
    let mut micros = 0;
    while node.halted().is_none() {
        micros += 1;
        let event = due.pop().expect("the node waits for an answer");
        let standing = || (node.replica().commit(), node.digest().0);
        flight.heard(at(micros), &event, standing).expect("memory is written");
        node.on(at(micros), event, &mut flight.wrap(&mut asked), &mut Vec::new());
        due.extend(asked.take().into_iter().filter_map(|ask| match ask {
            Ask::Read { token, .. } => Some(Event::Read { token, result: Err(ReadFault::Absent) }),
            _ => None,
        }));
    }
    flight.end(Ended::Halted, node.replica().commit(), node.digest().0).expect("memory is written")
}

fn relived(file: &[u8]) -> Relived {
    let (lived, result) = relive(Reader::open(file).expect("it opens"));
    result.expect("it is read to its end");
    lived
}

#[test]
fn a_life_that_ended_in_a_halt_halts_again() {
    let lived = relived(&life_on_a_blank_disk());
    assert!(lived.is_exact(), "{lived:?}");
    assert_eq!(lived.tail, Some(Tail::Ended(Ended::Halted)));
    assert!(lived.halted.is_some() && lived.events > 2);
    assert_eq!((lived.confirmed, lived.states_confirmed), (lived.events, 1));
    assert_eq!((lived.from, lived.until), (at(1), at(lived.events)));
}

#[test]
fn another_node_parts_from_the_recording_at_a_named_event_and_says_what_it_asks_for() {
    let file = life_on_a_blank_disk();
    let whole = relived(&file);
    let mut reader = Reader::open(&file[..]).expect("it opens");
    let opening = reader.opening().clone();
    let mut other = Flight::begin(Vec::new(), &opening, &SECRET, 1 << 20).expect("memory is written");
    let mut events = Vec::new();
    while let Some(entry) = reader.next_entry().expect("it is read") {
        if let Entry::Event(step) = entry {
            events.push((step.now, step.event));
        }
    }
    // A recording by someone who asked for nothing.
    for (now, event) in &events {
        other.heard(*now, event, || (Op::ZERO, [0; 32])).expect("memory is written");
    }
    let file = other.end(Ended::Stopped, Op::ZERO, [0; 32]).expect("memory is written");
    let parted = relived(&file);
    let parting = parted.parting.clone().expect("the lives part");
    assert!(!parted.is_exact());
    assert_eq!((parting.event, parting.heard.as_str(), parting.at), (1, "Wake", at(1)));
    assert!(parting.asked[0].starts_with("read "), "{parting:?}");
    assert!(parted.events < whole.events, "it ends where the lives part");
}

#[test]
fn a_life_without_its_end_is_confirmed_up_to_its_last_event() {
    let file = life_on_a_blank_disk();
    let whole = relived(&file);
    let mut events = Vec::new();
    for cut in (file.len() - 200..file.len()).step_by(7) {
        let lived = relived(&file[..cut]);
        assert!(lived.is_exact() && lived.events <= whole.events);
        assert_eq!(lived.confirmed, lived.events - 1);
        events.push(lived.events);
    }
    assert!(events.is_sorted() && events.first() < events.last(), "{events:?}");
}

/// A disk that does at once what it is asked.
#[derive(Default)]
struct Sectors(BTreeMap<(Zone, u64), Vec<u8>>);

impl Sectors {
    fn answer(&mut self, ask: Ask) -> Option<Event> {
        match ask {
            Ask::Read { token, at, len } => {
                let mut bytes = Buf::zeroed(len);
                for (part, sector) in bytes.chunks_mut(SECTOR_SIZE).zip((at.offset..).step_by(SECTOR_SIZE)) {
                    match self.0.get(&(at.zone, sector)) {
                        Some(content) => part.copy_from_slice(content),
                        None => return Some(Event::Read { token, result: Err(ReadFault::Absent) }),
                    }
                }
                Some(Event::Read { token, result: Ok(bytes) })
            }
            Ask::Write { token, at, data } => {
                for (part, sector) in data.chunks(SECTOR_SIZE).zip((at.offset..).step_by(SECTOR_SIZE)) {
                    self.0.insert((at.zone, sector), part.to_vec());
                }
                Some(Event::Written { token, result: Ok(()) })
            }
            _ => None,
        }
    }

    fn formatted() -> Self {
        let (mut disk, mut asked, mut out) = (Self::default(), Asked::new(), Vec::new());
        let mut formatter = Formatter::new(config());
        formatter.on(at(0), FormatInput::Start, &mut asked, &mut out);
        while out.is_empty() {
            for event in asked.take().into_iter().filter_map(|ask| disk.answer(ask)) {
                formatter.on(at(0), FormatInput::Event(event), &mut asked, &mut out);
            }
        }
        assert_eq!(out, [FormatOutput::Done]);
        disk
    }
}

/// The life of a node whose driver breaks a rule of the waist: it answers the read of the ring with more than was asked for.
/// Handling that, the node panics. Answers what is in the file then, and how many events the node was told.
fn life_that_panics() -> (Vec<u8>, u64) {
    let mut disk = Sectors::formatted();
    let opening = Opening { identity: Identity::current(), config: config(), seed: 5, at: at(0) };
    let mut file = Vec::new();
    let mut flight = Flight::begin(&mut file, &opening, &SECRET, 1 << 20).expect("memory is written");
    let mut node = Node::new(config(), &SECRET, 5);
    let mut asked = Asked::new();
    let mut due = vec![Event::Wake];
    for told in 1..100 {
        let event = due.remove(0);
        let standing = || (node.replica().commit(), node.digest().0);
        flight.heard(at(told), &event, standing).expect("memory is written");
        let handled = catch_unwind(AssertUnwindSafe(|| {
            node.on(at(told), event, &mut flight.wrap(&mut asked), &mut Vec::new());
        }));
        if handled.is_err() {
            // Nobody ends the recording: the process is gone.
            drop(flight);
            return (file, told);
        }
        for ask in asked.take() {
            let ring = matches!(&ask, Ask::Read { at, .. } if at.zone == Zone::Headers);
            due.extend(disk.answer(ask).map(|answer| match answer {
                Event::Read { token, result: Ok(bytes) } if ring => {
                    Event::Read { token, result: Ok(Buf::zeroed(bytes.len() + SECTOR_SIZE)) }
                }
                answer => answer,
            }));
        }
    }
    panic!("the node bears it");
}

#[test]
fn a_life_that_ended_in_a_panic_panics_again_at_the_same_event() {
    let (file, told) = life_that_panics();
    let lived = relived(&file);
    // The event that it died of was written before it was handled, so it is the last one of the file.
    assert!(matches!(lived.tail, None | Some(Tail::Abrupt)), "{lived:?}");
    // What it asked for was the same up to there.
    assert_eq!((lived.events, lived.confirmed), (told, told - 1), "{lived:?}");
    assert_eq!(lived.parting, None);
    let panic = lived.panic.expect("it panics again");
    assert_eq!((panic.kind, panic.event, panic.replica), (FailureKind::Panic, told, Some(ReplicaId(1))));
    assert!(panic.place.starts_with("core/storage/src/"), "{panic}");
    // Killed before it was told of that event, it would have lived on.
    let whole = relived(&file[..file.len() - 1]);
    assert_eq!((whole.events, whole.panic), (told - 1, None));
}
