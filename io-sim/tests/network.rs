//! Packets and streams.

mod common;

use std::time::Duration;

use common::*;
use kimberlite_io::{Address, CloseReason, Conn, Event, Frame, Io, Packet};
use kimberlite_io_sim::{Fault, Link, World, WorldOptions};
use kimberlite_types::limits::{STREAM_CREDIT_INITIAL, STREAM_QUEUE_MAX};
use kimberlite_types::{Instant, ReplicaId};

fn send(world: &mut World<u64>, from: u16, to: u8, count: u8) {
    ask(world, node(from), |io| {
        for number in 0..count {
            io.send(ReplicaId(to), packet(number, 100));
        }
    });
}

fn messages(world: &mut World<u64>, at: u16) -> Vec<kimberlite_io::Packet> {
    let heard = take(world, node(at)).into_iter().map(|event| match event {
        Event::Message { packet, .. } => packet,
        other => panic!("only messages: {other:?}"),
    });
    heard.collect()
}

/// Sends 50 packets over a path with one thing changed; returns what arrives.
fn with_link(change: impl FnOnce(&mut Link)) -> (World<u64>, Vec<kimberlite_io::Packet>) {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    change(world.network_mut().link_mut(node(0), node(1)));
    send(&mut world, 0, 1, 50);
    settle(&mut world);
    let heard = messages(&mut world, 1);
    assert_eq!(world.network().packets_under_way(), 0);
    (world, heard)
}

#[test]
fn packets_arrive_unchanged_and_out_of_order() {
    let (world, heard) = with_link(|_| ());
    assert_eq!(heard.len(), 50);
    assert!(heard.iter().all(|packet| packet.body.len() == 100 && packet.body.padded()[100..] == [0; 3_996]));
    assert!(world.census().faults(Fault::PacketReordered) > 5);
}

#[test]
fn each_fault_of_a_path_takes_effect_and_is_counted() {
    let (world, heard) = with_link(|link| link.loss_ppm = 500_000);
    assert_eq!(heard.len() as u64, 50 - world.census().faults(Fault::PacketLost));
    assert!((10..40).contains(&heard.len()));

    let (world, heard) = with_link(|link| (link.duplicate_ppm, link.capacity) = (500_000, 200));
    assert_eq!(heard.len() as u64, 50 + world.census().faults(Fault::PacketDuplicated));
    assert!(heard.len() > 55);

    let (world, heard) = with_link(|link| (link.replay_ppm, link.capacity) = (500_000, 200));
    assert_eq!(heard.len() as u64, 50 + world.census().faults(Fault::PacketReplayed));
    assert!(heard.len() > 55);

    let (world, heard) = with_link(|link| link.corrupt_ppm = 500_000);
    let sent: Vec<_> = (0..50).map(|number| packet(number, 100)).collect();
    let head = world.census().faults(Fault::PacketHeadCorrupted);
    let body = world.census().faults(Fault::PacketBodyCorrupted);
    assert!(head > 3 && body > 3);
    let altered = heard.iter().filter(|packet| !sent.contains(packet)).count() as u64;
    // Bit 0 of the number is set twice in `sent`, so a flip may turn one packet into another.
    assert!(altered <= head + body && altered >= head + body - 2, "{altered} of {head} and {body}");

    let (world, heard) = with_link(|link| link.capacity = 10);
    assert_eq!(heard.len(), 10);
    assert_eq!(world.census().faults(Fault::PacketEvicted), 40);

    let (world, _) = with_link(|link| {
        link.tail_ppm = 200_000;
        link.tail_factor = 1_000;
    });
    assert!(world.census().faults(Fault::PacketDelayed) > 3);
    assert!(world.time() > Instant(200_000_000));
}

#[test]
fn a_narrow_path_takes_the_time_its_bytes_need() {
    let (world, heard) = with_link(|link| link.bandwidth = 1_000);
    assert_eq!(heard.len(), 50);
    let needed = 50 * 228;
    assert!(world.time() >= Instant(needed * 1_000_000));
}

#[test]
fn a_partition_may_hold_in_one_direction_only() {
    let mut world = scribes(WorldOptions::new(3, 0), 1);
    world.network_mut().block(&[node(0)], &[node(1), node(2)]);
    send(&mut world, 0, 1, 5);
    send(&mut world, 1, 0, 5);
    settle(&mut world);
    assert_eq!((messages(&mut world, 0).len(), messages(&mut world, 1).len()), (5, 0));
    assert_eq!(world.census().faults(Fault::PathBlocked), 5);
    world.network_mut().isolate(node(0));
    send(&mut world, 1, 0, 5);
    send(&mut world, 1, 2, 5);
    settle(&mut world);
    assert_eq!((messages(&mut world, 0).len(), messages(&mut world, 2).len()), (0, 5));
    world.network_mut().heal();
    send(&mut world, 0, 1, 5);
    settle(&mut world);
    assert_eq!(messages(&mut world, 1).len(), 5);
}

#[test]
fn a_partition_also_takes_what_is_under_way() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    send(&mut world, 0, 1, 5);
    world.network_mut().set_up(node(0), node(1), false);
    settle(&mut world);
    assert!(messages(&mut world, 1).is_empty());
}

#[test]
fn a_clogged_path_delivers_late_and_loses_nothing() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    let until = world.time().after(Duration::from_secs(9));
    world.network_mut().clog(node(0), node(1), until);
    send(&mut world, 0, 1, 5);
    assert!(world.step().unwrap().at >= until);
    settle(&mut world);
    assert_eq!(messages(&mut world, 1).len(), 5);
    assert_eq!(world.census().faults(Fault::PathClogged), 5);
}

#[test]
fn a_message_to_a_node_that_is_down_vanishes() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    world.crash(node(1));
    send(&mut world, 0, 1, 5);
    settle(&mut world);
    world.start(node(1), Box::new(Scribe::default()));
    settle(&mut world);
    assert_eq!(take(&mut world, node(1)), [Event::Wake]);
}

#[test]
fn a_forged_packet_arrives_under_the_name_it_claims() {
    let mut world = scribes(WorldOptions::new(3, 0), 1);
    world.forge(ReplicaId(1), ReplicaId(2), Duration::from_millis(1), packet(9, 3));
    settle(&mut world);
    let expected = Event::Message { from: ReplicaId(2), packet: packet(9, 3) };
    assert_eq!(take(&mut world, node(1)), [expected]);
    assert_eq!(world.census().faults(Fault::PacketForged), 1);
}

// Streams.

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn stream(io: &mut dyn Io, conn: Conn, data: &[u8]) {
    io.stream(conn, Frame::copy_from(data));
}

#[test]
fn stream_bytes_arrive_in_order_however_they_are_cut() {
    for seed in 0..20 {
        let mut world = scribes(WorldOptions::new(1, 1), seed);
        let cut = Link { cut_ppm: 800_000, stall_ppm: 300_000, stall_mean: 1_000_000, ..Link::HEALTHY };
        world.network_mut().set_client_links(cut);
        let (client, server) = connect(&mut world, node(1), node(0), 5);
        scribe(&mut world, node(0)).grants = true;
        scribe(&mut world, node(1)).grants = true;
        let data = bytes(300_000);
        ask(&mut world, node(1), |io| data.chunks(7_001).for_each(|part| stream(io, client, part)));
        ask(&mut world, node(0), |io| data.chunks(50_000).for_each(|part| stream(io, server, part)));
        settle(&mut world);
        for (at, conn) in [(0, server), (1, client)] {
            let heard = take(&mut world, node(at));
            assert_eq!(received(&heard, conn), data);
            assert_eq!(heard.iter().filter(|event| matches!(event, Event::Sent { .. })).count(), 1);
            assert_eq!(world.resources(node(at)).stream_bytes, 0);
        }
        assert!(world.census().faults(Fault::StreamCut) > 10);
        assert!(world.census().faults(Fault::StreamStalled) > 0);
    }
}

#[test]
fn no_more_arrives_than_was_granted() {
    let mut world = scribes(WorldOptions::new(1, 1), 1);
    let (client, server) = connect(&mut world, node(1), node(0), 5);
    let data = bytes(1 << 20);
    ask(&mut world, node(1), |io| stream(io, client, &data));
    settle(&mut world);
    let mut got = received(&take(&mut world, node(0)), server);
    assert_eq!(got.len(), STREAM_CREDIT_INITIAL as usize);
    ask(&mut world, node(0), |io| io.grant(server, 1_000));
    settle(&mut world);
    got.extend(received(&take(&mut world, node(0)), server));
    assert_eq!(got, data[..STREAM_CREDIT_INITIAL as usize + 1_000]);
}

#[test]
fn a_close_is_heard_after_the_last_byte() {
    let mut world = scribes(WorldOptions::new(1, 1), 1);
    let (client, server) = connect(&mut world, node(1), node(0), 5);
    ask(&mut world, node(1), |io| {
        stream(io, client, &bytes(10_000));
        io.close(client);
        // Asks on a stream that is gone are ignored.
        stream(io, client, &[1]);
        io.grant(client, 5);
        io.close(client);
    });
    settle(&mut world);
    let heard = take(&mut world, node(0));
    assert_eq!(received(&heard, server), bytes(10_000));
    assert_eq!(heard.last(), Some(&Event::Closed { conn: server, reason: CloseReason::Ended }));
    assert!(take(&mut world, node(1)).is_empty());
    assert_eq!((world.resources(node(0)).streams, world.resources(node(1)).streams), (0, 0));
}

#[test]
fn connecting_to_a_node_that_is_down_is_refused() {
    let mut world = scribes(WorldOptions::new(1, 1), 1);
    world.crash(node(0));
    ask(&mut world, node(1), |io| io.connect(Conn(1), Address(0)));
    settle(&mut world);
    let refused = |conn| Event::Closed { conn: Conn(conn), reason: CloseReason::Refused };
    assert_eq!(take(&mut world, node(1)), [refused(1)]);
    assert!(world.time() < Instant(1_000_000_000));
    // Behind a partition nobody answers, so it takes longer.
    world.start(node(0), Box::new(Scribe::default()));
    world.network_mut().set_up(node(0), node(1), false);
    let before = world.time();
    ask(&mut world, node(1), |io| io.connect(Conn(2), Address(0)));
    settle(&mut world);
    assert_eq!(take(&mut world, node(1)), [refused(2)]);
    assert!(world.time().since(before) >= Duration::from_secs(1));
    assert_eq!(world.census().faults(Fault::StreamRefused), 2);
    assert_eq!(world.resources(node(1)).streams, 0);
}

#[test]
fn a_crash_of_either_end_breaks_the_stream_for_the_other() {
    for (victim, other) in [(0, 1), (1, 0)] {
        for seed in 0..10 {
            let mut world = scribes(WorldOptions::new(1, 1), seed);
            let (client, server) = connect(&mut world, node(1), node(0), 5);
            let (lost, left) = if victim == 0 { (server, client) } else { (client, server) };
            ask(&mut world, node(victim), |io| stream(io, lost, &bytes(20_000)));
            ask(&mut world, node(other), |io| stream(io, left, &bytes(20_000)));
            world.crash(node(victim));
            settle(&mut world);
            let heard = take(&mut world, node(other));
            let got = received(&heard, left);
            assert_eq!(got, bytes(20_000)[..got.len()]);
            assert_eq!(heard.last(), Some(&Event::Closed { conn: left, reason: CloseReason::Broken }));
            assert_eq!(world.resources(node(other)).streams, 0);
        }
    }
}

#[test]
#[should_panic(expected = "never heard of in this life")]
fn a_stream_of_a_former_life_is_not_known_any_more() {
    let mut world = scribes(WorldOptions::new(1, 1), 1);
    let (_, server) = connect(&mut world, node(1), node(0), 5);
    world.crash(node(0));
    world.start(node(0), Box::new(Scribe::default()));
    ask(&mut world, node(0), |io| io.grant(server, 1));
}

#[test]
fn a_reset_breaks_both_ends_and_leaves_no_hole() {
    for seed in 0..30 {
        let mut world = scribes(WorldOptions::new(1, 1), seed);
        let (client, server) = connect(&mut world, node(1), node(0), 5);
        world.network_mut().link_mut(node(1), node(0)).reset_ppm = 200_000;
        let data = bytes(60_000);
        for part in data.chunks(3_000) {
            ask(&mut world, node(1), |io| stream(io, client, part));
            run_for(&mut world, Duration::from_micros(300));
        }
        settle(&mut world);
        let heard = take(&mut world, node(0));
        let got = received(&heard, server);
        assert_eq!(got, data[..got.len()]);
        if world.census().faults(Fault::StreamReset) > 0 {
            assert_eq!(heard.last(), Some(&Event::Closed { conn: server, reason: CloseReason::Broken }));
            let broken = Event::Closed { conn: client, reason: CloseReason::Broken };
            assert_eq!(take(&mut world, node(1)).last(), Some(&broken));
        } else {
            assert_eq!(got, data);
        }
    }
}

#[test]
fn a_partition_stalls_a_stream_and_a_long_one_breaks_it() {
    let mut world = scribes(WorldOptions::new(1, 1), 1);
    let (client, server) = connect(&mut world, node(1), node(0), 5);
    world.network_mut().isolate(node(1));
    ask(&mut world, node(1), |io| stream(io, client, &bytes(100)));
    run_for(&mut world, Duration::from_secs(3));
    assert!(received(&take(&mut world, node(0)), server).is_empty());
    world.network_mut().heal();
    settle(&mut world);
    assert_eq!(received(&take(&mut world, node(0)), server), bytes(100));
    world.network_mut().isolate(node(1));
    ask(&mut world, node(1), |io| stream(io, client, &bytes(100)));
    settle(&mut world);
    let heard = take(&mut world, node(0));
    assert_eq!(heard, [Event::Closed { conn: server, reason: CloseReason::Broken }]);
}

#[test]
fn a_reader_that_is_too_slow_loses_its_stream() {
    let mut world = scribes(WorldOptions::new(1, 1), 1);
    let (client, server) = connect(&mut world, node(1), node(0), 5);
    let part = bytes(1 << 20);
    let parts = STREAM_QUEUE_MAX as usize / part.len() + 5;
    ask(&mut world, node(0), |io| (0..parts).for_each(|_| stream(io, server, &part)));
    assert_eq!(world.resources(node(0)).stream_bytes, 0, "nothing is queued on a stream that broke");
    settle(&mut world);
    assert_eq!(world.census().faults(Fault::StreamOverflowed), 1);
    let broken = |conn| Event::Closed { conn, reason: CloseReason::Broken };
    assert_eq!(take(&mut world, node(0)).last(), Some(&broken(server)));
    assert_eq!(take(&mut world, node(1)).last(), Some(&broken(client)));
    assert_eq!(world.resources(node(0)).stream_bytes, 0);
}

#[test]
fn streams_can_be_corrupted_and_reset_on_request() {
    let mut world = scribes(WorldOptions::new(1, 1), 1);
    let (client, server) = connect(&mut world, node(1), node(0), 5);
    world.network_mut().link_mut(node(1), node(0)).stream_corrupt_ppm = 1_000_000;
    ask(&mut world, node(1), |io| stream(io, client, &[0; 64]));
    settle(&mut world);
    let got = received(&take(&mut world, node(0)), server);
    let flipped: u32 = got.iter().map(|byte| byte.count_ones()).sum();
    assert!(flipped > 0);
    assert!(world.census().faults(Fault::StreamCorrupted) >= u64::from(flipped));
    take(&mut world, node(1));
    world.reset_streams(node(0));
    settle(&mut world);
    let broken = |conn| Event::Closed { conn, reason: CloseReason::Broken };
    assert_eq!(take(&mut world, node(0)), [broken(server)]);
    assert_eq!(take(&mut world, node(1)), [broken(client)]);
}

#[test]
fn a_stream_waits_for_a_paused_end() {
    let mut world = scribes(WorldOptions::new(1, 1), 1);
    world.pause(node(0));
    ask(&mut world, node(1), |io| io.connect(Conn(1), Address(0)));
    run_for(&mut world, Duration::from_secs(10));
    assert!(take(&mut world, node(1)).is_empty());
    world.resume(node(0));
    settle(&mut world);
    assert_eq!(take(&mut world, node(1)), [Event::Opened { conn: Conn(1) }]);
}

#[test]
fn an_address_that_leads_nowhere_is_refused_unless_the_caller_goes_first() {
    let mut world = scribes(WorldOptions::new(2, 1), 1);
    let nowhere = |world: &mut World<u64>, conn| {
        ask(world, node(2), |io| io.connect(Conn(conn), Address(9)));
    };
    nowhere(&mut world, 1);
    world.reset_streams(node(2));
    settle(&mut world);
    assert_eq!(take(&mut world, node(2)), [Event::Closed { conn: Conn(1), reason: CloseReason::Refused }]);
    assert_eq!(world.census().faults(Fault::StreamReset), 0);

    nowhere(&mut world, 2);
    ask(&mut world, node(2), |io| io.close(Conn(2)));
    settle(&mut world);
    assert_eq!(take(&mut world, node(2)), []);

    nowhere(&mut world, 3);
    world.crash(node(2));
    settle(&mut world);
    assert_eq!(world.resources(node(2)).streams, 0);
}

#[test]
fn a_body_arrives_aligned_and_padded_with_zeros_wherever_the_sender_had_it() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    let held = Frame::copy_from(&[0xa5; 9_000]);
    for part in [held.slice(0..5_000), held.slice(3..5_003)] {
        let sent = Packet { body: part, ..packet(1, 0) };
        ask(&mut world, node(0), |io| io.send(ReplicaId(1), sent.clone()));
        world.forge(ReplicaId(1), ReplicaId(0), Duration::ZERO, sent);
        settle(&mut world);
        let heard = take(&mut world, node(1));
        assert_eq!(heard.len(), 2);
        for event in heard {
            let Event::Message { packet: Packet { body, .. }, .. } = event else { panic!("a message") };
            assert_eq!(body[..], [0xa5; 5_000]);
            assert!(body.is_aligned() && body.padded()[5_000..].iter().all(|byte| *byte == 0));
        }
    }
}
