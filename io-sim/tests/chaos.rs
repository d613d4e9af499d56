//! Streams under every fault at once.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{ask, node, run_for};
use kimberlite_io::{Address, Conn, Event, Frame, Io, Machine};
use kimberlite_io_sim::{Concern, Dice, Link, NodeId, World, WorldOptions};
use kimberlite_types::limits::STREAM_CREDIT_INITIAL;
use kimberlite_types::{Instant, Now};

/// What a talker knows of one stream.
#[derive(Default)]
struct Talk {
    sent: u64,
    heard: u64,
    granted: u64,
}

/// Sends the low bytes of each byte's place, checks that it hears the same without a gap, and never more
/// than it granted.
#[derive(Default)]
struct Talker {
    open: BTreeMap<Conn, Talk>,
}

impl Talker {
    fn say(&mut self, conn: Conn, len: u64, io: &mut dyn Io) {
        let talk = self.open.get_mut(&conn).expect("an open stream");
        let data: Vec<u8> = (talk.sent..talk.sent + len).map(|place| (place % 251) as u8).collect();
        talk.sent += len;
        io.stream(conn, Frame::copy_from(&data));
    }
}

impl Machine for Talker {
    type Input = Event;
    type Output = u64;

    fn on(&mut self, _: Now, input: Event, _: &mut dyn Io, out: &mut Vec<u64>) {
        match input {
            Event::Opened { conn } => {
                let granted = u64::from(STREAM_CREDIT_INITIAL);
                assert!(
                    self.open.insert(conn, Talk { granted, ..Talk::default() }).is_none(),
                    "opened twice"
                );
            }
            Event::Received { conn, data } => {
                let talk = self.open.get_mut(&conn).expect("bytes on an open stream only");
                for byte in data.iter() {
                    assert_eq!(u64::from(*byte), talk.heard % 251, "a hole in the stream");
                    talk.heard += 1;
                }
                assert!(talk.heard <= talk.granted, "more than was granted");
                out.push(data.len() as u64);
            }
            Event::Sent { conn } => assert!(self.open.contains_key(&conn), "sent on a stream that is gone"),
            Event::Closed { conn, .. } => drop(self.open.remove(&conn)),
            _ => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }
}

fn talker(world: &mut World<u64>, at: NodeId) -> &mut Talker {
    let machine: &mut dyn std::any::Any = world.machine(at).expect("the node is up");
    machine.downcast_mut().expect("a talker lives there")
}

/// One random action of one node.
fn act(world: &mut World<u64>, fresh: &mut u64) {
    let mut draw = |bound| world.dice_mut().draw(Concern::Workload, 0, bound);
    let (what, at, other, len) = (draw(40), node(draw(5) as u16), node(draw(2) as u16), 1 + draw(40_000));
    if !world.is_up(at) {
        world.start(at, Box::new(Talker::default()));
        return;
    }
    let conn = talker(world, at).open.keys().last().copied();
    match (what, conn) {
        (0, _) => world.crash(at),
        (1, _) => world.pause(at),
        (2..5, _) => (0..5).for_each(|index| world.resume(node(index))),
        (5, _) => world.network_mut().isolate(at),
        (6..9, _) => world.network_mut().heal(),
        (9..13, _) if at != other => {
            *fresh += 1;
            ask(world, at, |io| io.connect(Conn(*fresh), Address(other.0)));
        }
        (13, Some(conn)) => {
            talker(world, at).open.remove(&conn);
            ask(world, at, |io| io.close(conn));
        }
        (14..26, Some(conn)) => {
            talker(world, at).open.get_mut(&conn).expect("open").granted += len;
            ask(world, at, |io| io.grant(conn, len as u32));
        }
        (_, Some(conn)) => {
            let mut machine = std::mem::take(talker(world, at));
            ask(world, at, |io| machine.say(conn, len, io));
            *talker(world, at) = machine;
        }
        _ => {}
    }
}

#[test]
fn streams_have_no_hole_no_leak_and_no_byte_too_many_whatever_happens() {
    let mut received = 0;
    for seed in 0..30 {
        let mut world = World::new(WorldOptions::new(2, 3), Dice::free(seed));
        world.network_mut().set_client_links(Link {
            cut_ppm: 500_000,
            reset_ppm: 3_000,
            stall_ppm: 20_000,
            stall_mean: 20_000_000,
            ..Link::HEALTHY
        });
        let mut fresh = 0;
        for _ in 0..600 {
            act(&mut world, &mut fresh);
            let wait = world.dice_mut().draw(Concern::Workload, 1, 3_000);
            run_for(&mut world, Duration::from_micros(wait));
        }
        received += world.census().iter().find(|(name, _)| *name == "received").map_or(0, |(_, count)| count);
        for index in 0..5 {
            world.crash(node(index));
        }
        while world.step().is_some() {}
        assert_eq!(world.agenda_len(), 0);
        for index in 0..5 {
            let held = world.resources(node(index));
            assert_eq!((held.streams, held.stream_bytes), (0, 0));
        }
    }
    assert!(received > 3_000, "{received} chunks are not much of a test");
}
