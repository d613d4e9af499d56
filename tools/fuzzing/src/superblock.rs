//! Four copies of a superblock, each from anywhere.
//!
//! Each copy is one that a real node wrote at some moment, is blank or unreadable, is damaged, or is forged with a true
//! checksum. No node panics on them, and what must hold is the rule of the module that writes them: two intact copies are needed, the newest
//! intact one is taken, and afterwards all four say the same.

use kimberlite_crypto::checksum;
use kimberlite_io::{Event, Place, Zone};
use kimberlite_storage::inspect::{self, SuperblockCopy, SuperblockFields};
use kimberlite_types::Config;
use kimberlite_types::limits::{SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};

use crate::desk::Desk;
use crate::images::{copies, images};
use crate::mend;
use crate::platter::Platter;
use crate::script::Script;
use crate::seat::Seat;

/// Puts four copies on a disk and opens it.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let all = images();
    let (config, pool) = &all.superblocks[script.below(all.superblocks.len())];
    let disks: Vec<_> = all.moments.iter().filter(|image| image.config == *config).collect();
    let mut platter = disks[script.below(disks.len())].platter.clone();
    for index in 0..SUPERBLOCK_COPIES {
        let place = Place::superblock(inspect::superblock_offset(index));
        let mut copy = pool[script.below(pool.len())].clone();
        match script.below(6) {
            0 => {}
            1 => copy.fill(0),
            2 => {
                platter.put_all(place, &copy);
                let sector = script.below(SUPERBLOCK_COPY_SIZE / SECTOR_SIZE) * SECTOR_SIZE;
                platter.spoil((Zone::Superblock, place.offset + sector as u64));
                continue;
            }
            3 => alter(&mut copy, &mut script),
            4 => {
                alter(&mut copy, &mut script);
                mend::superblock(&mut copy);
            }
            _ => {
                copy.fill(0);
                let bytes = script.bytes(SUPERBLOCK_COPY_SIZE);
                copy[..bytes.len()].copy_from_slice(bytes);
            }
        }
        platter.put_all(place, &copy);
    }
    let before = copies(&platter);
    let readable: Vec<bool> = (0..SUPERBLOCK_COPIES)
        .map(|index| {
            let place = Place::superblock(inspect::superblock_offset(index));
            platter.read(place, SUPERBLOCK_COPY_SIZE).is_ok()
        })
        .collect();
    let intact: Vec<SuperblockFields> = before
        .iter()
        .zip(readable)
        .filter_map(|(copy, readable)| readable.then(|| fields(copy)).flatten())
        .collect();
    node(*config, platter.clone());
    let mut desk = Desk::new(*config, platter);
    let Ok(recovered) = desk.open(&mut |_| 0) else { return };
    assert!(intact.len() >= 2, "nothing is believed that fewer than two copies say");
    let newest = intact.iter().map(|fields| fields.sequence).max().expect("two are intact");
    // Of the same sequence there may be several, forged ones among them.
    let meant = |fields: &&SuperblockFields| {
        (fields.cluster, fields.replica, fields.replicas) == (config.cluster, config.replica, config.replicas)
            && fields.layout == config.layout
    };
    let newest = intact.iter().filter(|fields| fields.sequence == newest).filter(meant);
    let candidates: Vec<_> = newest.filter(|fields| fields.state == recovered.view_state).collect();
    assert!(!candidates.is_empty(), "the newest intact copy is taken, as it stands");
    let after = copies(&desk.platter).map(|copy| fields(&copy));
    let [first, ..] = &after;
    assert!(after.iter().all(|copy| copy == first), "all four copies say the same again");
    let said = first.as_ref().expect("a mended copy is intact");
    assert!(candidates.contains(&said), "they say what was taken");
}

/// A whole node on that disk does not panic.
fn node(config: Config, platter: Platter) {
    let mut seat = Seat::new(config, platter, 3);
    for round in 0..6 {
        seat.hear(round * 400_000_000, Event::Wake);
        while !seat.asks.is_empty() {
            seat.answer(round * 400_000_000, 0);
        }
    }
}

/// Writes over a part of a copy.
fn alter(copy: &mut [u8], script: &mut Script<'_>) {
    let at = script.below(1_024);
    for (old, new) in copy[at..].iter_mut().zip(script.bytes(255)) {
        *old = *new;
    }
}

/// What an intact copy says.
fn fields(copy: &[u8]) -> Option<SuperblockFields> {
    match inspect::superblock(copy) {
        SuperblockCopy::Intact(fields) => {
            assert_eq!(copy[..32], *checksum(&copy[32..]).as_bytes(), "an intact copy has a true checksum");
            Some(fields)
        }
        _ => None,
    }
}
