//! A damaged data directory is opened.
//!
//! The bytes pick a data directory that a real node wrote, and what became of it: flipped bits, sectors that cannot be
//! read, zeros, garbage, sectors from elsewhere or from earlier, headers forged with true checksums. What must hold
//! of what opens: nothing is invented, and where only damage that shows was done, nothing promised is denied.

use kimberlite_io::Zone;
use kimberlite_runtime::Note;
use kimberlite_storage::{FetchError, HaltReason, Recovered, VerifyOutput};
use kimberlite_types::Op;
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SECTOR_SIZE};
use kimberlite_wire::message::Mark;

use crate::desk::{self, Desk};
use crate::images::{Image, Images, images};
use crate::mend;
use crate::platter::{Platter, Sector};
use crate::script::Script;
use crate::seat::Seat;

/// Places that are damaged at most.
const DAMAGES_MAX: usize = 48;

/// What was done to a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// The superblock was touched.
    superblock: bool,
    /// Something intact stands where it does not belong: a write was lost or went astray.
    strayed: bool,
    /// Something was written with a true checksum that no node wrote.
    forged: bool,
    /// Places that were damaged, those counted twice that were damaged twice.
    damages: usize,
}

/// Damages a data directory and looks at what is left of it.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let all = images();
    let image = &all.moments[script.below(all.moments.len())];
    let order = script.byte();
    let mut platter = image.platter.clone();
    let mut done = Done::default();
    for _ in 0..DAMAGES_MAX {
        if script.is_over() {
            break;
        }
        damage(&mut platter, &mut done, image, all, &mut script);
    }
    check(image, all, platter, done, order);
}

/// Verifies a data directory and opens it: the journal alone, again, and a lone node on it.
pub(crate) fn check(image: &Image, all: &Images, platter: Platter, done: Done, order: u8) {
    verify(image, platter.clone(), done);
    let opened = open(image, all, platter.clone(), done, order);
    if image.config.replicas == 1 {
        lone_node(image, all, platter, done, opened.is_ok());
    }
}

fn pick_sector(platter: &Platter, script: &mut Script<'_>) -> Option<Sector> {
    let zone = [Zone::Log, Zone::Headers, Zone::Superblock][script.below(3)];
    let sectors = platter.written(zone);
    (!sectors.is_empty()).then(|| sectors[script.below(sectors.len())])
}

fn damage(platter: &mut Platter, done: &mut Done, image: &Image, all: &Images, script: &mut Script<'_>) {
    let Some(sector) = pick_sector(platter, script) else { return };
    done.superblock |= sector.0 == Zone::Superblock;
    done.damages += 1;
    let mut content = platter.content(sector);
    match script.below(7) {
        0 => {
            let at = script.below(SECTOR_SIZE);
            content[at] ^= 1 << script.below(8);
        }
        1 => {
            platter.spoil(sector);
            return;
        }
        2 => content.fill(0),
        3 => {
            let at = script.below(SECTOR_SIZE);
            let garbage = script.bytes(255);
            for (old, new) in content[at..].iter_mut().zip(garbage) {
                *old = *new;
            }
        }
        4 => {
            let Some(other) = pick_sector(platter, script) else { return };
            done.strayed = true;
            content = platter.content(other);
        }
        5 => {
            // A write that was lost: what stood there at another moment of the same disk.
            let same = |other: &&Image| other.history == image.history && other.config == image.config;
            let others: Vec<&Image> = all.moments.iter().filter(same).collect();
            done.strayed = true;
            content = others[script.below(others.len())].platter.content(sector);
        }
        _ => {
            if sector.0 == Zone::Superblock {
                return;
            }
            done.forged = true;
            let slot = script.below(SECTOR_SIZE / PREPARE_HEADER_SIZE) * PREPARE_HEADER_SIZE;
            let at = slot + 32 + script.below(PREPARE_HEADER_SIZE - 32);
            for (old, new) in content[at..slot + PREPARE_HEADER_SIZE].iter_mut().zip(script.bytes(16)) {
                *old = *new;
            }
            mend::prepare_header(&mut content[slot..slot + PREPARE_HEADER_SIZE]);
        }
    }
    platter.put(sector, &content);
}

fn open(
    image: &Image,
    all: &Images,
    platter: Platter,
    done: Done,
    order: u8,
) -> Result<Recovered, HaltReason> {
    let mut desk = Desk::new(image.config, platter);
    let mut luck = usize::from(order);
    let opened = desk.open(&mut |count| {
        luck = luck.wrapping_mul(5).wrapping_add(3);
        (luck >> 3) % count
    });
    let recovered = match opened {
        Ok(recovered) => recovered,
        Err(reason) => {
            assert!(done.superblock, "a data directory with its superblock is opened: {reason}");
            return Err(reason);
        }
    };
    if !done.forged {
        nothing_is_invented(image, all, &recovered, &mut desk);
    }
    if !done.forged && !done.strayed {
        nothing_is_denied(image, &recovered);
        if done.damages <= 1 {
            all_is_known(image, &recovered, &mut desk);
        }
    }
    // What was mended while it was opened takes nothing away.
    let again = Desk::new(image.config, desk.platter.clone()).open(&mut |_| 0);
    let again = again.expect("what was opened once is opened again");
    if !done.forged && !done.strayed {
        assert!(again.doubt_until >= Op(image.top()), "opening again takes an op away");
        assert_eq!(again.head().op, recovered.head().op, "opening again finds the same head");
    }
    Ok(recovered)
}

/// A log that lacks what was promised is not called whole.
fn verify(image: &Image, platter: Platter, done: Done) {
    let said = desk::verify(image.config, platter);
    if let VerifyOutput::Whole(totals) = said
        && !done.forged
        && !done.strayed
    {
        assert!(totals.op >= Op(image.top()), "{totals:?} is called whole, and op {} was held", image.top());
    }
}

/// Every header and every prepare is one that was written.
fn nothing_is_invented(image: &Image, all: &Images, recovered: &Recovered, desk: &mut Desk) {
    let written = &all.written[image.history];
    let mut parent = None;
    for (header, _) in recovered.below_gap.iter().chain(&recovered.headers) {
        assert!(
            header.op == Op::ZERO || written.contains_key(&header.checksum),
            "{header:?} was never written"
        );
    }
    for (header, _) in &recovered.headers {
        assert!(parent.is_none_or(|parent| parent == header.parent), "headers form a chain");
        parent = Some(header.checksum);
    }
    assert!(recovered.commit <= recovered.head().op && recovered.doubt_until >= recovered.head().op);
    for op in 1..=recovered.head().op.0 {
        if let Ok(prepare) = desk.fetch(op, None) {
            assert_eq!(written.get(&prepare.header.checksum), Some(&prepare), "op {op} was never written");
            assert_eq!(prepare.header.op, Op(op));
        }
    }
}

/// No promised op is voted away: it lies within the doubt, and where the end of the log names it, it is no nack.
fn nothing_is_denied(image: &Image, recovered: &Recovered) {
    let top = Op(image.top());
    assert!(
        recovered.doubt_until >= top,
        "the end is said to be {}, and {top} was held",
        recovered.doubt_until
    );
    for (header, mark) in recovered.below_gap.iter().chain(&recovered.headers) {
        let held = image.promised.contains(&(header.op.0, header.checksum));
        assert!(!held || *mark != Mark::Nack, "op {} was held and is denied", header.op);
    }
}

/// After a single fault every promised op is there, or known to be damaged, or in the gap of what may have been held.
fn all_is_known(image: &Image, recovered: &Recovered, desk: &mut Desk) {
    let in_gap = |op| recovered.gap.is_some_and(|(first, last)| (first..=last).contains(&Op(op)));
    for (op, checksum) in image.promised.iter().filter(|(op, _)| Op(*op) <= recovered.head().op) {
        match desk.fetch(*op, Some(*checksum)) {
            Ok(prepare) => assert_eq!(prepare.header.checksum, *checksum),
            Err(FetchError::Damaged { .. }) => {}
            Err(FetchError::Missing) if in_gap(*op) => {}
            Err(denied) => panic!("op {op} was held and is {denied:?}"),
        }
    }
}

/// A lone node refuses, or executes what was written from the first op on.
fn lone_node(image: &Image, all: &Images, platter: Platter, done: Done, opens: bool) {
    let mut seat = Seat::new(image.config, platter, 5);
    seat.hear(0, kimberlite_io::Event::Wake);
    // What was executed from `state` on: the op of the checkpoint that was opened, or none.
    let (mut state, mut executed) = (Op::ZERO, Vec::new());
    for round in 0..20_u64 {
        let now = round * 300_000_000;
        while !seat.asks.is_empty() {
            seat.answer(now, 0);
        }
        for note in std::mem::take(&mut seat.notes) {
            match note {
                Note::Committed { prepare, .. } => executed.push(prepare),
                Note::Restored { op, checksum, .. } => {
                    assert!(executed.is_empty(), "a checkpoint is opened before anything is executed");
                    let of = all.written[image.history].get(&checksum).map(|prepare| prepare.header.op);
                    assert!(done.forged || of == Some(op), "a checkpoint is of an op that was written");
                    state = op;
                }
                // The state is lost, and made anew from the first op on.
                Note::Rebuilds { .. } => {
                    executed.clear();
                    state = Op::ZERO;
                }
                _ => {}
            }
        }
        seat.hear(now + 300_000_000, kimberlite_io::Event::Wake);
    }
    assert!(opens || seat.node.halted().is_some(), "a node whose journal refuses has stopped");
    if done.forged {
        return;
    }
    for (prepare, op) in executed.iter().zip(state.0 + 1..) {
        assert_eq!(prepare.header.op, Op(op), "ops are executed in order");
        assert!(
            all.written[image.history].contains_key(&prepare.header.checksum),
            "op {op} was never written"
        );
    }
    if done.strayed {
        return;
    }
    let promised = image.promised.iter().filter(|(op, _)| Op(*op) > state);
    for (prepare, (op, checksum)) in executed.iter().zip(promised) {
        assert_eq!((prepare.header.op.0, prepare.header.checksum), (*op, *checksum));
    }
    let whole = state.0 + executed.len() as u64 >= image.top();
    assert!(whole || seat.node.halted().is_some(), "a node alone serves less than it acknowledged");
}
