//! Disks: what is kept, what is lost, what is damaged and by how much.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::*;
use kimberlite_io::{Buf, Event, Frame, Place, ReadFault, Token, WriteFault, Zone};
use kimberlite_io_sim::{Damage, DiskFault, DiskRates, Fault, Happening, NodeId, World, WorldOptions};
use kimberlite_types::ReplicaId;
use kimberlite_types::limits::SECTOR_SIZE;

/// A world in which every replica may lose everything.
fn fragile(replicas: u8, seed: u64) -> World<u64> {
    let options = WorldOptions { tolerated: replicas, tear_unit: 512, ..WorldOptions::new(replicas, 0) };
    scribes(options, seed)
}

fn pattern(len: u64, salt: u8) -> Vec<u8> {
    (0..len).map(|index| (index / 512) as u8 ^ salt).collect()
}

#[test]
fn what_was_written_is_read_back_after_a_crash() {
    let mut world = fragile(1, 1);
    let data = pattern(40 * SECTOR, 7);
    assert_eq!(write(&mut world, node(0), Place::log(3 * SECTOR), &data), Ok(()));
    world.crash(node(0));
    world.start(node(0), Box::new(Scribe::default()));
    settle(&mut world);
    take(&mut world, node(0));
    assert_eq!(read(&mut world, node(0), Place::log(3 * SECTOR), 40 * SECTOR), Ok(data.clone()));
    assert_eq!(world.disk(node(0)).peek(Zone::Log, 3 * SECTOR + 100, 5_000), data[100..5_100]);
}

#[test]
fn formatted_zones_read_zeros_and_growing_ones_are_absent_past_their_end() {
    let options = WorldOptions { headers_size: Some(8 * SECTOR), ..WorldOptions::new(1, 0) };
    let mut world = scribes(options, 1);
    let zeros = Ok(vec![0; SECTOR_SIZE]);
    assert_eq!(read(&mut world, node(0), Place::superblock(15 * SECTOR), SECTOR), zeros);
    assert_eq!(read(&mut world, node(0), Place::headers(7 * SECTOR), SECTOR), zeros);
    assert_eq!(read(&mut world, node(0), Place::headers(8 * SECTOR), SECTOR), Err(ReadFault::Absent));
    assert_eq!(read(&mut world, node(0), Place::log(0), SECTOR), Err(ReadFault::Absent));
    write(&mut world, node(0), Place::log(options.segment_size + SECTOR), &pattern(SECTOR, 1)).unwrap();
    assert_eq!(read(&mut world, node(0), Place::log(0), SECTOR), zeros);
    assert_eq!(read(&mut world, node(0), Place::log(2 * options.segment_size - SECTOR), SECTOR), zeros);
    let last = Place::log(2 * options.segment_size - SECTOR);
    assert_eq!(read(&mut world, node(0), last, 2 * SECTOR), Err(ReadFault::Absent));
}

#[test]
fn a_trim_gives_zeros_or_nothing_and_frees_memory() {
    let mut world = fragile(1, 1);
    let segment = WorldOptions::new(1, 0).segment_size;
    write(&mut world, node(0), Place::log(0), &pattern(2 * segment, 9)).unwrap();
    let full = world.resources(node(0)).disk_memory;
    ask(&mut world, node(0), |io| io.trim(Token(1), Place::log(0), segment + SECTOR));
    assert_eq!(world.resources(node(0)).changes, 1);
    settle(&mut world);
    assert_eq!(take(&mut world, node(0)), [Event::Trimmed { token: Token(1), result: Ok(()) }]);
    assert_eq!(read(&mut world, node(0), Place::log(0), SECTOR), Err(ReadFault::Absent));
    assert_eq!(read(&mut world, node(0), Place::log(segment), SECTOR), Ok(vec![0; SECTOR_SIZE]));
    assert!(world.resources(node(0)).disk_memory < full * 6 / 10);
}

/// The 512-byte units of a crashed write that are new, over many seeds.
fn torn(tear_unit: u32) -> BTreeSet<Vec<bool>> {
    (0..200)
        .map(|seed| {
            let options = WorldOptions { tear_unit, ..WorldOptions::new(1, 0) };
            let mut world = scribes(options, seed);
            write(&mut world, node(0), Place::log(0), &[1; 2 * SECTOR_SIZE]).unwrap();
            let fresh = Frame::copy_from(&[2; 2 * SECTOR_SIZE]);
            ask(&mut world, node(0), |io| io.write(Token(1), Place::log(0), fresh));
            world.crash(node(0));
            let found = world.disk(node(0)).peek(Zone::Log, 0, 2 * SECTOR_SIZE);
            let units: Vec<bool> = found.chunks(512).map(|unit| unit == [2; 512]).collect();
            assert!(found.chunks(512).all(|unit| unit == [1; 512] || unit == [2; 512]));
            let kept = units.iter().filter(|new| **new).count();
            assert_eq!(world.census().faults(Fault::WriteDropped), u64::from(kept == 0));
            assert_eq!(world.census().faults(Fault::WriteTorn), u64::from(kept > 0 && kept < 16));
            units
        })
        .collect()
}

#[test]
fn a_crash_keeps_an_arbitrary_subset_of_a_write_at_the_tear_unit() {
    let fine = torn(512);
    assert!(fine.contains(&vec![true; 16]) && fine.contains(&vec![false; 16]));
    assert!(fine.iter().any(|units| units[..8].iter().any(|new| *new) && units[..8].iter().any(|new| !*new)));
    assert!(fine.iter().any(|units| !units[0] && units[15]), "later units may survive without earlier ones");
    assert!(fine.len() > 50);
    let coarse = torn(4_096);
    assert_eq!(coarse.len(), 4);
    assert!(
        coarse.iter().all(|units| units.chunks(8).all(|sector| sector.iter().all(|new| *new == sector[0])))
    );
}

#[test]
fn a_read_beside_a_write_in_flight_sees_old_or_new_sectors() {
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let mut world = fragile(1, seed);
        write(&mut world, node(0), Place::log(0), &[1; 4 * SECTOR_SIZE]).unwrap();
        world.disk_mut(node(0)).rates.write_min = 1 << 40;
        ask(&mut world, node(0), |io| {
            io.write(Token(1), Place::log(0), Frame::copy_from(&[2; 4 * SECTOR_SIZE]));
            io.read(Token(2), Place::log(0), Buf::zeroed(4 * SECTOR_SIZE));
        });
        settle(&mut world);
        let heard = take(&mut world, node(0));
        let Event::Read { result: Ok(buf), .. } = &heard[0] else { panic!("the read is faster") };
        assert!(buf.chunks(SECTOR_SIZE).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        seen.insert(buf.iter().step_by(SECTOR_SIZE).copied().collect::<Vec<u8>>());
    }
    assert!(seen.len() > 8 && seen.iter().flatten().all(|byte| [1, 2].contains(byte)), "{seen:?}");
}

#[test]
fn a_latent_error_lasts_until_the_sector_is_rewritten() {
    let mut world = fragile(1, 1);
    let data = pattern(4 * SECTOR, 1);
    write(&mut world, node(0), Place::log(0), &data).unwrap();
    assert!(world.damage(node(0), Place::log(SECTOR), Damage::Latent));
    for _ in 0..2 {
        assert_eq!(read(&mut world, node(0), Place::log(0), 4 * SECTOR), Err(ReadFault::Failed));
    }
    assert_eq!(
        read(&mut world, node(0), Place::log(2 * SECTOR), SECTOR).unwrap(),
        data[2 * SECTOR_SIZE..][..SECTOR_SIZE]
    );
    write(&mut world, node(0), Place::log(SECTOR), &data[SECTOR_SIZE..][..SECTOR_SIZE]).unwrap();
    assert_eq!(read(&mut world, node(0), Place::log(0), 4 * SECTOR), Ok(data));
    assert_eq!(world.census().faults(Fault::LatentError), 1);
    let faults = world.take_faults();
    assert_eq!((faults[0].fault, faults[0].place), (Fault::LatentError, Some(Place::log(SECTOR))));
    assert!(world.take_faults().is_empty());
}

#[test]
fn a_flipped_bit_stays_flipped_until_the_disk_is_healed() {
    let mut world = fragile(1, 1);
    let data = pattern(2 * SECTOR, 1);
    write(&mut world, node(0), Place::headers(0), &data).unwrap();
    assert!(world.damage(node(0), Place::headers(SECTOR), Damage::FlipBit(9)));
    let mut rotten = data.clone();
    rotten[SECTOR_SIZE + 1] ^= 2;
    for _ in 0..2 {
        assert_eq!(read(&mut world, node(0), Place::headers(0), 2 * SECTOR), Ok(rotten.clone()));
    }
    assert_eq!(world.disk(node(0)).peek(Zone::Headers, 0, 2 * SECTOR_SIZE), rotten);
    assert_eq!(world.disk(node(0)).peek_pristine(Zone::Headers, 0, 2 * SECTOR_SIZE), data);
    world.disk_mut(node(0)).heal();
    assert_eq!(read(&mut world, node(0), Place::headers(0), 2 * SECTOR), Ok(data));
}

#[test]
fn a_phantom_write_reports_success_and_shows_the_old_bytes() {
    let mut world = fragile(1, 1);
    write(&mut world, node(0), Place::log(0), &[1; SECTOR_SIZE]).unwrap();
    world.disk_mut(node(0)).arm(DiskFault::PhantomWrite);
    write(&mut world, node(0), Place::log(0), &[2; SECTOR_SIZE]).unwrap();
    assert_eq!(read(&mut world, node(0), Place::log(0), SECTOR), Ok(vec![1; SECTOR_SIZE]));
    assert_eq!(world.disk(node(0)).peek_pristine(Zone::Log, 0, SECTOR_SIZE), [2; SECTOR_SIZE]);
    write(&mut world, node(0), Place::log(0), &[3; SECTOR_SIZE]).unwrap();
    assert_eq!(read(&mut world, node(0), Place::log(0), SECTOR), Ok(vec![3; SECTOR_SIZE]));
    assert_eq!(world.census().faults(Fault::PhantomWrite), 1);
}

#[test]
fn a_misdirected_write_damages_both_places_and_healing_undoes_both() {
    let mut world = fragile(1, 1);
    let data = pattern(16 * SECTOR, 1);
    write(&mut world, node(0), Place::log(0), &data).unwrap();
    world.disk_mut(node(0)).arm(DiskFault::MisdirectedWrite);
    write(&mut world, node(0), Place::log(4 * SECTOR), &[9; SECTOR_SIZE]).unwrap();
    assert_eq!(world.census().faults(Fault::MisdirectedWrite), 1);
    let found = world.disk(node(0)).peek(Zone::Log, 0, 64 * SECTOR_SIZE);
    assert_eq!(found[4 * SECTOR_SIZE..][..SECTOR_SIZE], data[4 * SECTOR_SIZE..][..SECTOR_SIZE]);
    assert_eq!(found.chunks(SECTOR_SIZE).filter(|sector| *sector == [9; SECTOR_SIZE]).count(), 1);
    assert_eq!(world.disk(node(0)).damaged_sectors().count(), 2);
    world.disk_mut(node(0)).heal();
    let mut right = data;
    right[4 * SECTOR_SIZE..][..SECTOR_SIZE].fill(9);
    assert_eq!(world.disk(node(0)).peek(Zone::Log, 0, 16 * SECTOR_SIZE), right);
}

#[test]
fn a_misdirected_read_answers_with_other_bytes_once() {
    let mut world = fragile(1, 1);
    let data: Vec<u8> = (0..16 * SECTOR).map(|index| (index / SECTOR) as u8 + 1).collect();
    write(&mut world, node(0), Place::superblock(0), &data).unwrap();
    let options = WorldOptions::new(1, 0);
    assert_eq!(options.superblock_size, 16 * SECTOR);
    write(&mut world, node(0), Place::log(0), &data).unwrap();
    world.disk_mut(node(0)).arm(DiskFault::MisdirectedRead);
    let stray = read(&mut world, node(0), Place::log(3 * SECTOR), SECTOR).unwrap();
    assert_ne!(stray[0], 4);
    assert_eq!(read(&mut world, node(0), Place::log(3 * SECTOR), SECTOR), Ok(vec![4; SECTOR_SIZE]));
    assert_eq!(world.census().faults(Fault::MisdirectedRead), 1);
}

#[test]
fn a_read_error_passes_and_a_failed_write_leaves_some_of_it() {
    let mut world = fragile(1, 1);
    write(&mut world, node(0), Place::log(0), &[1; 4 * SECTOR_SIZE]).unwrap();
    world.disk_mut(node(0)).arm(DiskFault::ReadError);
    assert_eq!(read(&mut world, node(0), Place::log(0), SECTOR), Err(ReadFault::Failed));
    assert_eq!(read(&mut world, node(0), Place::log(0), SECTOR), Ok(vec![1; SECTOR_SIZE]));
    let mut mixed = BTreeSet::new();
    for round in 0..20 {
        let fault = if round % 2 == 0 { DiskFault::WriteError } else { DiskFault::SyncError };
        world.disk_mut(node(0)).arm(fault);
        let outcome = write(&mut world, node(0), Place::log(0), &[2 + round; 4 * SECTOR_SIZE]);
        assert_eq!(outcome, Err(WriteFault::Failed));
        let found = world.disk(node(0)).peek(Zone::Log, 0, 4 * SECTOR_SIZE);
        mixed.insert(found.chunks(512).filter(|unit| unit[0] == 2 + round).count());
    }
    assert!(mixed.len() > 4, "{mixed:?}");
    assert_eq!(world.census().faults(Fault::WriteError), 10);
    assert_eq!(world.census().faults(Fault::SyncError), 10);
    assert_eq!(world.census().faults(Fault::ReadError), 1);
}

#[test]
fn a_full_disk_overwrites_but_writes_at_most_a_front_part_of_what_is_new() {
    let mut world = fragile(1, 1);
    write(&mut world, node(0), Place::log(0), &[1; SECTOR_SIZE]).unwrap();
    world.disk_mut(node(0)).limit(Some(2 * SECTOR));
    let mut fronts = BTreeSet::new();
    for round in 10..30 {
        let outcome = write(&mut world, node(0), Place::log(0), &[round; 3 * SECTOR_SIZE]);
        assert_eq!(outcome, Err(WriteFault::NoSpace));
        let found = world.disk(node(0)).peek(Zone::Log, 0, 3 * SECTOR_SIZE);
        let new = found.iter().take_while(|byte| **byte == round).count();
        assert!(new.is_multiple_of(SECTOR_SIZE) && new <= 2 * SECTOR_SIZE, "{new} new bytes");
        assert!(!found[new..].contains(&round));
        fronts.insert(new);
    }
    assert_eq!(fronts.len(), 3, "{fronts:?}");
    assert_eq!(write(&mut world, node(0), Place::log(0), &[3; 2 * SECTOR_SIZE]), Ok(()));
    assert_eq!(write(&mut world, node(0), Place::log(0), &[4; 2 * SECTOR_SIZE]), Ok(()));
    assert_eq!(world.census().faults(Fault::DiskFull), 20);
    world.disk_mut(node(0)).limit(None);
    assert_eq!(write(&mut world, node(0), Place::log(0), &[2; 3 * SECTOR_SIZE]), Ok(()));
}

#[test]
fn a_stalled_disk_answers_later_and_a_slow_one_takes_longer() {
    let mut world = fragile(1, 1);
    let until = world.time().after(Duration::from_secs(20));
    ask(&mut world, node(0), |io| {
        io.write(Token(1), Place::log(0), Frame::copy_from(&[1; SECTOR_SIZE]));
    });
    world.disk_mut(node(0)).stall(until);
    let step = world.step().unwrap();
    assert_eq!(step.at, until);
    assert_eq!(world.census().faults(Fault::DiskStalled), 1);
    world.disk_mut(node(0)).rates = DiskRates { slow_factor: 1_000, ..DiskRates::HEALTHY };
    ask(&mut world, node(0), |io| io.read(Token(2), Place::log(0), Buf::zeroed(SECTOR_SIZE)));
    let step = world.step().unwrap();
    assert!(step.at.since(until) >= Duration::from_millis(50));
    assert_eq!(world.census().faults(Fault::DiskSlow), 1);
}

#[test]
fn a_lost_disk_is_blank() {
    let mut world = fragile(1, 1);
    write(&mut world, node(0), Place::log(0), &[1; SECTOR_SIZE]).unwrap();
    world.crash(node(0));
    world.wipe(node(0));
    world.start(node(0), Box::new(Scribe::default()));
    settle(&mut world);
    assert_eq!(read(&mut world, node(0), Place::log(0), SECTOR), Err(ReadFault::Absent));
    assert_eq!(world.census().faults(Fault::DiskLost), 1);
}

#[test]
fn damage_without_a_budget_is_refused_by_request_and_by_rate() {
    let mut world = scribes(WorldOptions::new(3, 0), 1);
    for index in 0..3 {
        let rates = &mut world.disk_mut(node(index)).rates;
        rates.latent_error_ppm = 1_000_000;
        rates.bit_rot_ppm = 1_000_000;
        rates.misdirected_read_ppm = 1_000_000;
        rates.phantom_write_ppm = 1_000_000;
        rates.misdirected_write_ppm = 1_000_000;
        rates.read_error_ppm = 1_000_000;
        let data = pattern(20 * SECTOR, index as u8);
        write(&mut world, node(index), Place::log(0), &data).unwrap();
        assert_eq!(read(&mut world, node(index), Place::log(0), 20 * SECTOR), Ok(data));
        assert!(!world.damage(node(index), Place::log(0), Damage::Latent));
        assert!(!world.damage(node(index), Place::superblock(0), Damage::FlipBit(1)));
    }
    assert!(world.census().iter().all(|(name, _)| Happening::ALL.iter().any(|known| known.name() == name)));
}

#[test]
fn whatever_the_disks_do_an_intact_copy_of_every_piece_stays_on_enough_replicas() {
    for seed in 0..12 {
        let replicas = 2 + (seed % 5) as u8;
        let tolerated = 1 + (seed % 2) as u8;
        let options = WorldOptions { tolerated, chunk_size: 4 * SECTOR, ..WorldOptions::new(replicas, 0) };
        let mut world = scribes(options, seed);
        let pieces = 40;
        for index in 0..u16::from(replicas) {
            world.disk_mut(node(index)).rates = DiskRates {
                latent_error_ppm: 200_000,
                bit_rot_ppm: 200_000,
                phantom_write_ppm: 300_000,
                misdirected_write_ppm: 300_000,
                ..DiskRates::HEALTHY
            };
        }
        for round in 0..6_u8 {
            for index in 0..u16::from(replicas) {
                for piece in 0..pieces {
                    let data = vec![1 + round; 4 * SECTOR_SIZE];
                    write(&mut world, node(index), Place::log(piece * 4 * SECTOR), &data).unwrap();
                    let _ = read(&mut world, node(index), Place::log(piece * 4 * SECTOR), 4 * SECTOR);
                }
            }
            check_copies(&world, replicas, tolerated, pieces, 1 + round);
        }
        assert!(world.census().faults(Fault::PhantomWrite) > 20);
        assert!(world.census().faults(Fault::MisdirectedWrite) > 20);
        assert!(world.census().faults(Fault::LatentError) > 20);
        assert!(world.census().faults(Fault::BitRot) > 20);
    }
}

fn check_copies(world: &World<u64>, replicas: u8, tolerated: u8, pieces: u64, value: u8) {
    let mut damaged_in_all = 0;
    for piece in 0..pieces {
        let damaged = (0..u16::from(replicas)).filter(|index| {
            let disk = world.disk(NodeId(*index));
            let range = piece * 4 * SECTOR..(piece + 1) * 4 * SECTOR;
            let hurt = disk.damaged_sectors().any(|at| at.zone == Zone::Log && range.contains(&at.offset));
            let bytes = disk.peek(Zone::Log, range.start, 4 * SECTOR_SIZE);
            assert!(hurt || bytes.iter().all(|byte| *byte == value), "damage without an overlay");
            hurt
        });
        let damaged = damaged.count();
        assert!(damaged <= usize::from(tolerated), "piece {piece} is damaged on {damaged} replicas");
        damaged_in_all += damaged;
    }
    assert!(damaged_in_all > 0);
}

#[test]
fn only_one_copy_of_a_superblock_is_ever_damaged() {
    let mut world = scribes(WorldOptions { tolerated: 1, ..WorldOptions::new(3, 0) }, 4);
    for index in 0..3 {
        world.disk_mut(node(index)).rates.latent_error_ppm = 500_000;
        world.disk_mut(node(index)).rates.phantom_write_ppm = 500_000;
        for round in 0..30 {
            for copy in 0..4 {
                let place = Place::superblock(copy * 4 * SECTOR);
                write(&mut world, node(index), place, &[round; 4 * SECTOR_SIZE]).unwrap();
                let _ = read(&mut world, node(index), place, 4 * SECTOR);
            }
        }
        let damaged: Vec<Place> = world.disk(node(index)).damaged_sectors().collect();
        let copies: BTreeSet<u64> = damaged.iter().map(|place| place.offset / (4 * SECTOR)).collect();
        assert!(copies.len() <= 1, "{damaged:?}");
    }
    assert!(world.census().faults(Fault::PhantomWrite) > 5);
}

#[test]
fn a_protected_place_is_spared_and_a_named_victim_is_not() {
    let mut world = scribes(WorldOptions { tolerated: 1, ..WorldOptions::new(3, 0) }, 1);
    world.atlas_mut().protect(Place::headers(0), 4 * SECTOR);
    world.atlas_mut().allow_only(Place::headers(4 * SECTOR), SECTOR, &[ReplicaId(0), ReplicaId(2)]);
    let hurt = |world: &mut World<u64>, sector: u64| -> Vec<bool> {
        (0..3)
            .map(|index| world.damage(node(index), Place::headers(sector * SECTOR), Damage::Latent))
            .collect()
    };
    assert_eq!(hurt(&mut world, 3), [false, false, false]);
    assert_eq!(hurt(&mut world, 4), [true, false, true]);
    assert_eq!(hurt(&mut world, 5).iter().filter(|done| **done).count(), 1);
    assert_eq!(world.atlas_mut().damaged(Place::headers(4 * SECTOR)), [ReplicaId(0), ReplicaId(2)]);
}

#[test]
fn latencies_differ_and_so_the_order_of_answers() {
    let mut orders = BTreeSet::new();
    for seed in 0..20 {
        let mut world = fragile(1, seed);
        ask(&mut world, node(0), |io| {
            for token in 0..4 {
                io.write(Token(token), Place::log(token * SECTOR), Frame::copy_from(&[1; SECTOR_SIZE]));
            }
        });
        assert_eq!(world.resources(node(0)).changes, 4);
        settle(&mut world);
        let tokens = take(&mut world, node(0)).into_iter().map(|event| match event {
            Event::Written { token, .. } => token,
            other => panic!("only answers to writes: {other:?}"),
        });
        orders.insert(tokens.collect::<Vec<_>>());
        assert_eq!(world.resources(node(0)).changes, 0);
    }
    assert!(orders.len() > 5);
}
