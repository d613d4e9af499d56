//! The world as a whole: determinism, time, processes, clocks, speed.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::*;
use kimberlite_io::{Address, Buf, Conn, Event, Frame, Place, Token};
use kimberlite_io_sim::{Dice, DiskRates, Fault, Happening, Link, NodeId, StepKind, World, WorldOptions};
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{Instant, ReplicaId, WallTime};

/// Three echoes with every fault by rate, crashes, pauses and partitions.
fn stormy(dice: Dice) -> World<u64> {
    let mut options = WorldOptions::new(3, 0);
    options.tolerated = 1;
    options.tear_unit = 512;
    let mut world = echoes(options, dice);
    world.network_mut().set_replica_links(Link {
        loss_ppm: 20_000,
        duplicate_ppm: 20_000,
        replay_ppm: 20_000,
        corrupt_ppm: 20_000,
        tail_ppm: 10_000,
        tail_factor: 10,
        bandwidth: 100 << 20,
        ..Link::HEALTHY
    });
    for index in 0..3 {
        world.disk_mut(node(index)).rates = DiskRates {
            read_error_ppm: 20_000,
            latent_error_ppm: 20_000,
            bit_rot_ppm: 20_000,
            misdirected_read_ppm: 20_000,
            write_error_ppm: 20_000,
            sync_error_ppm: 20_000,
            phantom_write_ppm: 20_000,
            misdirected_write_ppm: 20_000,
            no_space_ppm: 20_000,
            stall_ppm: 5_000,
            stall_mean: 5_000_000,
            ..DiskRates::HEALTHY
        };
    }
    world.schedule(Duration::from_millis(50), 1);
    let mut story = 0;
    while story < 20 {
        let step = world.step().expect("echoes never stop");
        if let StepKind::Policy(_) = step.what {
            let victim = node(story % 3);
            match story % 4 {
                0 => world.crash(victim),
                1 => {
                    let back = (story - 1) % 3;
                    world.start(node(back), Box::new(Echo::new(back as u8, 3)));
                }
                2 => world.pause(victim),
                _ => world.resume(node((story - 1) % 3)),
            }
            story += 1;
            world.schedule(Duration::from_millis(30), u64::from(story));
        }
    }
    world
}

#[test]
fn the_same_seed_gives_the_same_digest_and_another_seed_another() {
    let (first, second, third) = (stormy(Dice::free(1)), stormy(Dice::free(1)), stormy(Dice::free(2)));
    assert_eq!(first.digest(), second.digest());
    assert_eq!(first.census(), second.census());
    assert_ne!(first.digest(), third.digest());
    assert!(first.census().happenings(Happening::Message) > 1_000);
}

#[test]
#[should_panic(expected = "the work of one event ends before it has asked for so much")]
fn work_that_asks_for_ever_within_one_event_is_ended() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    let message = packet(1, 1);
    ask(&mut world, node(0), |io| {
        loop {
            io.send(ReplicaId(1), message.clone());
        }
    });
}

#[test]
fn a_storm_really_does_what_its_rates_say() {
    let world = stormy(Dice::free(3));
    for fault in [
        Fault::PacketLost,
        Fault::PacketDuplicated,
        Fault::PacketReplayed,
        Fault::PacketHeadCorrupted,
        Fault::PacketBodyCorrupted,
        Fault::PacketDelayed,
        Fault::PacketReordered,
        Fault::DiskFull,
        Fault::WriteError,
        Fault::SyncError,
        Fault::DiskStalled,
        Fault::Crash,
        Fault::Pause,
    ] {
        assert!(world.census().faults(fault) > 0, "{} never happened", fault.name());
    }
}

#[test]
fn a_recorded_run_replays_to_the_same_digest() {
    let recorded = stormy(Dice::recording(4));
    let log = recorded.dice().log();
    assert!(log.size() > 1_000);
    let bytes = postcard::to_allocvec(&log).unwrap();
    let replayed = stormy(replay(4, postcard::from_bytes(&bytes).unwrap()));
    assert_eq!(replayed.digest(), recorded.digest());
    assert_eq!(replayed.dice().divergence(), None);
    // The record decides, not the seed.
    let elsewhere = stormy(replay(5, log));
    assert_eq!(elsewhere.dice().divergence(), None);
    // All but the atlas, whose map follows from one recorded word, comes from the record.
    assert_eq!(elsewhere.digest(), recorded.digest());
}

#[test]
fn a_census_serialises_by_name() {
    let json = serde_json::to_value(stormy(Dice::free(1)).census()).unwrap();
    assert!(json["packet_lost"].as_u64().unwrap() > 0);
    assert!(json["ask_send"].as_u64().unwrap() > 0);
    assert!(json.get("stream_reset").is_none());
}

#[test]
fn virtual_time_jumps_to_the_next_event() {
    let mut world = scribes(WorldOptions::new(1, 0), 1);
    world.schedule(Duration::from_hours(24), 5);
    let step = world.step().unwrap();
    assert!(matches!(step.what, StepKind::Policy(5)));
    assert!(world.time() >= Instant(86_400_000_000_000));
    assert!(world.step().is_none());
}

#[test]
fn a_wake_comes_when_asked_for_and_only_once() {
    let mut world = scribes(WorldOptions::new(1, 0), 1);
    let due = world.now(node(0)).monotonic.after(Duration::from_secs(5));
    scribe(&mut world, node(0)).wake_at = Some(due);
    ask(&mut world, node(0), |_| ());
    settle(&mut world);
    let heard = std::mem::take(&mut scribe(&mut world, node(0)).heard);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].1, Event::Wake);
    assert_eq!(heard[0].0.monotonic, due);
}

#[test]
fn a_wake_moved_later_is_not_heard_at_its_old_time_and_one_moved_earlier_is_not_late() {
    let mut world = scribes(WorldOptions::new(1, 0), 1);
    let start = world.now(node(0)).monotonic;
    for seconds in [5, 9, 7] {
        scribe(&mut world, node(0)).wake_at = Some(start.after(Duration::from_secs(seconds)));
        ask(&mut world, node(0), |_| ());
    }
    settle(&mut world);
    let heard = &scribe(&mut world, node(0)).heard;
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].0.monotonic, start.after(Duration::from_secs(7)));
}

#[test]
fn a_drifting_clock_wakes_its_node_by_its_own_measure() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    let begin = world.time();
    for index in 0..2 {
        let due = world.now(node(index)).monotonic.after(Duration::from_secs(10));
        scribe(&mut world, node(index)).wake_at = Some(due);
        ask(&mut world, node(index), |_| ());
    }
    world.clock_mut(node(1)).set_drift_ppm(250_000);
    let first = world.step().unwrap();
    assert!(matches!(first.what, StepKind::Delivered { node: NodeId(1), .. }));
    assert_eq!(first.at.since(begin), Duration::from_secs(8));
    assert_eq!(world.step().unwrap().at.since(begin), Duration::from_secs(10));
    assert_eq!(world.census().faults(Fault::ClockDrift), 1);
}

#[test]
fn clocks_jump_freeze_and_are_counted() {
    let mut world = scribes(WorldOptions::new(1, 0), 1);
    let before = world.now(node(0));
    world.clock_mut(node(0)).jump(-3_600_000_000_000);
    assert!(world.now(node(0)).wall < before.wall);
    world.clock_mut(node(0)).freeze(true);
    let frozen = world.now(node(0)).wall;
    run_for(&mut world, Duration::from_mins(1));
    assert_eq!(world.now(node(0)).wall, frozen);
    assert_eq!(world.now(node(0)).monotonic.since(before.monotonic), Duration::from_mins(1));
    world.clock_mut(node(0)).set_wall(WallTime(0));
    world.clock_mut(node(0)).heal();
    run_for(&mut world, Duration::from_secs(1));
    assert_eq!(world.now(node(0)).wall, WallTime(1_000_000_000));
    assert_eq!(world.census().faults(Fault::ClockJump), 2);
    assert_eq!(world.census().faults(Fault::ClockFreeze), 1);
}

#[test]
fn a_pause_holds_events_while_the_clock_runs_on() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    world.pause(node(1));
    assert!(world.is_paused(node(1)) && world.is_up(node(1)));
    ask(&mut world, node(0), |io| io.send(ReplicaId(1), packet(3, 10)));
    ask(&mut world, node(1), |io| {
        io.write(Token(1), Place::log(0), Frame::copy_from(&[1; SECTOR_SIZE]));
    });
    run_for(&mut world, Duration::from_secs(30));
    assert!(take(&mut world, node(1)).is_empty());
    world.resume(node(1));
    settle(&mut world);
    let heard = std::mem::take(&mut scribe(&mut world, node(1)).heard);
    assert_eq!(heard.len(), 2);
    assert!(
        heard.iter().all(|(now, _)| now.monotonic.since(Instant(2_000_000_000)) >= Duration::from_secs(30))
    );
}

#[test]
fn a_crash_while_paused_forgets_what_was_parked() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    world.pause(node(1));
    ask(&mut world, node(0), |io| io.send(ReplicaId(1), packet(3, 10)));
    run_for(&mut world, Duration::from_secs(1));
    world.crash(node(1));
    assert!(!world.is_up(node(1)) && !world.is_paused(node(1)));
    world.start(node(1), Box::new(Scribe::default()));
    settle(&mut world);
    assert_eq!(take(&mut world, node(1)), [Event::Wake]);
    assert_eq!(world.network().packets_under_way(), 0);
}

#[test]
fn a_crashed_node_hears_no_answer_of_its_former_life() {
    let mut world = scribes(WorldOptions::new(2, 1), 1);
    connect(&mut world, node(2), node(0), 9);
    ask(&mut world, node(0), |io| {
        io.read(Token(1), Place::superblock(0), Buf::zeroed(SECTOR_SIZE));
        io.write(Token(2), Place::log(0), Frame::copy_from(&[1; SECTOR_SIZE]));
    });
    ask(&mut world, node(1), |io| io.send(ReplicaId(0), packet(1, 1)));
    world.crash(node(0));
    world.start(node(0), Box::new(Scribe::default()));
    assert_eq!((world.resources(node(0)).reads, world.resources(node(0)).changes), (0, 0));
    settle(&mut world);
    assert_eq!(take(&mut world, node(0)), [Event::Wake]);
    assert_eq!(world.resources(node(0)).streams, 0);
    assert_eq!(world.census().faults(Fault::Crash), 1);
}

#[test]
fn a_panicking_machine_leaves_a_world_that_goes_on() {
    let mut world = scribes(WorldOptions::new(2, 0), 1);
    scribe(&mut world, node(0)).panics = true;
    ask(&mut world, node(1), |io| io.send(ReplicaId(0), packet(1, 1)));
    let outcome = catch_unwind(AssertUnwindSafe(|| settle(&mut world)));
    assert!(outcome.is_err());
    assert_eq!(world.acting(), Some(node(0)));
    assert!(!world.is_up(node(0)));
    world.crash(node(0));
    assert_eq!(world.acting(), None);
    world.start(node(0), Box::new(Scribe::default()));
    ask(&mut world, node(1), |io| io.send(ReplicaId(0), packet(1, 1)));
    settle(&mut world);
    assert!(matches!(take(&mut world, node(0))[..], [Event::Wake, Event::Message { .. }]));
}

#[test]
fn asks_that_break_the_rules_of_the_waist_panic() {
    type Ask = fn(&mut dyn kimberlite_io::Io);
    let cases: [(&str, Ask); 11] = [
        ("sector boundary", |io| io.read(Token(1), Place::log(1), Buf::zeroed(SECTOR_SIZE))),
        ("whole sectors", |io| io.read(Token(1), Place::log(0), Buf::zeroed(5))),
        ("in flight already", |io| {
            io.read(Token(1), Place::log(0), Buf::zeroed(SECTOR_SIZE));
            io.read(Token(1), Place::log(0), Buf::zeroed(SECTOR_SIZE));
        }),
        ("overlap a write", |io| {
            io.write(Token(1), Place::log(0), Frame::copy_from(&[1; 2 * SECTOR_SIZE]));
            io.trim(Token(2), Place::log(SECTOR), SECTOR);
        }),
        ("boundary in memory", |io| {
            let frame = Frame::copy_from(&[1; 2 * SECTOR_SIZE]);
            io.write(Token(1), Place::log(0), frame.slice(8..8 + SECTOR_SIZE));
        }),
        ("outside the zone", |io| {
            io.write(Token(1), Place::superblock(1 << 20), Frame::copy_from(&[1; SECTOR_SIZE]));
        }),
        ("another replica", |io| io.send(ReplicaId(0), packet(1, 1))),
        ("not open yet", |io| {
            io.connect(Conn(1), Address(1));
            io.stream(Conn(1), Frame::copy_from(&[1]));
        }),
        ("not open yet", |io| {
            io.connect(Conn(1), Address(1));
            io.grant(Conn(1), 1);
        }),
        ("never heard of", |io| io.grant(Conn(77), 1)),
        ("used before", |io| {
            io.connect(Conn(1), Address(1));
            io.connect(Conn(1), Address(1));
        }),
    ];
    for (expected, case) in cases {
        let mut world = scribes(WorldOptions::new(2, 0), 1);
        let caught = catch_unwind(AssertUnwindSafe(|| ask(&mut world, node(0), case))).unwrap_err();
        let text = caught.downcast_ref::<String>().cloned();
        let text = text.or_else(|| caught.downcast_ref::<&str>().map(ToString::to_string)).unwrap();
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_busy_world_stays_small_and_tells_its_speed() {
    let start = std::time::Instant::now();
    let mut world = echoes(WorldOptions::new(6, 0), Dice::free(1));
    let mut steps = 0_u64;
    while steps < 300_000 {
        world.step().expect("echoes never stop");
        steps += 1;
    }
    let rate = u128::from(steps) * 1_000_000 / start.elapsed().as_micros().max(1);
    println!("{rate} events per second, {} of virtual time", world.time().0 / 1_000_000_000);
    for index in 0..6 {
        assert!(world.resources(node(index)).disk_memory < 4 << 20);
    }
    assert!(world.agenda_len() < 1_000);
}
