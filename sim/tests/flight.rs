//! Lives of nodes, recorded as production records them, and lived again.

use kimberlite_bundle::{Ended, Entry, Flight, Identity, Opening, Reader, Tail};
use kimberlite_io::{Ask, Asked, Event, Machine as _, ReadFault};
use kimberlite_runtime::Node;
use kimberlite_sim::{Relived, relive};
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
