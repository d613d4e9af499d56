//! The header ring agrees with the log.
//!
//! Recovery decides by the ring what a damaged prepare was, so a ring that forgets an op or names another
//! in its place turns damage into loss.

use std::collections::BTreeMap;

use kimberlite_crypto::Checksum;
use kimberlite_io::Zone;
use kimberlite_runtime::Note;
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SECTOR_SIZE};
use kimberlite_types::{Instant, Op, ReplicaId};
use kimberlite_wire::PrepareHeader;

use super::{Canon, Lives, hold};
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "ring";
const AGREES: &str = "a ring slot that names an op said to be durable holds its committed header";
const PLACE: &str = "a ring slot holds only ops that belong there";
const NAMED: &str = "the ring of a healed replica names every op it executed of its open segment";
const LOGGED: &str = "a healed replica has the header of every op it executed at the op's place in the log";

/// Compares rings and logs on the disks with what was committed.
#[derive(Default)]
pub struct Ring {
    lives: Lives,
    canon: Canon,
    /// What each replica last said to be durable at an op, and how many segments were sealed then.
    durable: BTreeMap<(ReplicaId, Op), (Checksum, u64)>,
    /// How many segments each replica said to be sealed.
    sealed: BTreeMap<ReplicaId, u64>,
    compared: u64,
}

impl Ring {
    /// Every slot that names an op at all.
    ///
    /// A replica may execute an op before its own copy of it is durable, and its slot may have to wait for a hole to be
    /// filled: only what it said to be durable is in its ring for certain. When a copy in a sealed segment is repaired and
    /// said to be durable again, the segment's footer is what names it, and its slot may hold whatever it held.
    fn check_ring(&mut self, end: &End<'_>, replica: ReplicaId) -> Result<(), Violation> {
        let slots = u64::from(end.config.layout.ring_slots);
        let ring = (end.disk)(replica, Zone::Headers, 0, end.config.layout.ring_size() as usize);
        for (slot, bytes) in ring.chunks_exact(PREPARE_HEADER_SIZE).enumerate() {
            // What does not decode is reserved, torn or damaged, and says nothing.
            let Ok(found) = PrepareHeader::decode(bytes) else { continue };
            let op = found.op;
            self.compared += 1;
            hold!(
                op.0 % slots == slot as u64,
                PLACE,
                replica,
                op,
                "slot {slot} of {slots} on {replica:?} names op {op}"
            );
            let said = self.durable.get(&(replica, op));
            let vouches = |header: &&PrepareHeader| {
                said.is_some_and(|(checksum, sealed)| {
                    *checksum == header.checksum && header.place / end.config.layout.segment_size >= *sealed
                })
            };
            if let Some(header) = self.canon.headers.get(&op).filter(vouches) {
                // A slot that is damaged says nothing to its replica, which may leave it so.
                let at = slot as u64 * PREPARE_HEADER_SIZE as u64;
                let seen = (end.seen)(replica, Zone::Headers, at, PREPARE_HEADER_SIZE);
                if seen.is_none_or(|seen| seen != bytes) {
                    continue;
                }
                hold!(
                    found == *header,
                    AGREES,
                    replica,
                    op,
                    "slot {slot} on {replica:?} names {:?} as op {op}; committed is {:?}",
                    found.checksum,
                    header.checksum
                );
            }
        }
        Ok(())
    }

    /// What a replica that came to rest must hold.
    fn check_log(&mut self, end: &End<'_>, replica: ReplicaId, executed: Op) -> Result<(), Violation> {
        let layout = &end.config.layout;
        let slots = u64::from(layout.ring_slots);
        let open = self.canon.headers.get(&executed).map_or(0, |head| head.place / layout.segment_size);
        for header in self.canon.up_to(executed).rev() {
            let op = header.op;
            let sector = (end.disk)(replica, Zone::Log, header.place, SECTOR_SIZE);
            self.compared += 1;
            hold!(
                PrepareHeader::decode(&sector).as_ref() == Ok(header),
                LOGGED,
                replica,
                op,
                "op {op} does not stand at {} of the log of {replica:?}",
                header.place
            );
            if header.place / layout.segment_size < open {
                continue;
            }
            let at = op.0 % slots * PREPARE_HEADER_SIZE as u64;
            let sector_at = at - at % SECTOR_SIZE as u64;
            let ring = (end.disk)(replica, Zone::Headers, sector_at, SECTOR_SIZE);
            let found = PrepareHeader::decode(&ring[(at - sector_at) as usize..]);
            hold!(
                found.is_ok_and(|found| found.op >= op),
                NAMED,
                replica,
                op,
                "the ring of {replica:?} does not name op {op} but {:?}",
                found.map(|found| found.op)
            );
        }
        Ok(())
    }
}

impl Checker for Ring {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[AGREES, PLACE, NAMED, LOGGED]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        self.lives.observe(seen);
        self.canon.observe(seen);
        match seen {
            Observation::Note { replica, note: Note::Durable { op, checksum } } => {
                let sealed = self.sealed.get(replica).copied().unwrap_or_default();
                self.durable.insert((*replica, *op), (*checksum, sealed));
            }
            Observation::Note { replica, note: Note::Sealed { segment } } => {
                let sealed = self.sealed.entry(*replica).or_default();
                *sealed = (*sealed).max(segment + 1);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        for replica in (0..end.config.replicas).map(ReplicaId) {
            let executed = self.lives.executed(replica);
            self.check_ring(end, replica)?;
            if end.core.contains(&replica) {
                self.check_log(end, replica, executed)?;
            }
        }
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;

    /// A run whose ring comes round and whose log has several segments.
    fn long() -> History {
        let mut history = History::small(3);
        while history.ops() < 70 {
            history.op(&[]);
        }
        history
    }

    fn run(history: &History, change: impl FnOnce(&mut Disks)) -> Result<(), Violation> {
        let mut checker = Ring::default();
        history.play(&mut checker).unwrap();
        finish_on(&mut checker, history, change)
    }

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Ring::default())
    }

    fn other_header(history: &History, op: u64) -> PrepareHeader {
        reseal(history.prepare(op), |header, _| header.timestamp.0 += 1).header
    }

    #[test]
    fn rings_and_logs_that_agree_pass_though_old_slots_are_gone() {
        let history = long();
        let mut checker = Ring::default();
        history.play(&mut checker).unwrap();
        finish_on(&mut checker, &history, |disks| {
            // Of a sealed segment: the footer has taken over from the ring.
            disks.write(1, Zone::Headers, 10 * 512, &[0; 512]);
        })
        .unwrap();
        assert_eq!(checker.compared(), 3 * (64 + 70) - 1);
    }

    #[test]
    fn a_slot_with_another_header_is_noticed() {
        let history = long();
        let other = other_header(&history, 60).encode();
        let result = run(&history, |disks| disks.write(2, Zone::Headers, 60 * 512, &other));
        assert_broken(&rules(), result, AGREES);
        let misplaced = history.header(60).encode();
        let result = run(&history, |disks| disks.write(2, Zone::Headers, 61 * 512, &misplaced));
        assert_broken(&rules(), result, PLACE);
    }

    #[test]
    fn a_ring_that_forgets_an_open_op_is_noticed() {
        let history = long();
        let empty = run(&history, |disks| disks.write(0, Zone::Headers, 6 * 512, &[0; 512]));
        assert_broken(&rules(), empty, NAMED);
        let older = history.header(6).encode();
        let older = run(&history, |disks| disks.write(0, Zone::Headers, 6 * 512, &older));
        assert_broken(&rules(), older, NAMED);
    }

    #[test]
    fn a_prepare_that_does_not_stand_in_its_place_is_noticed() {
        let history = long();
        let place = history.header(33).place;
        let result = run(&history, |disks| disks.write(1, Zone::Log, place, &[0; 4096]));
        assert_broken(&rules(), result, LOGGED);
    }

    #[test]
    fn a_slot_may_name_another_log_until_its_op_is_said_to_be_durable_or_while_it_is_damaged() {
        let history = long();
        let finish = |op: u64, said: bool, readable: bool| {
            let mut checker = Ring::default();
            history.play(&mut checker).unwrap();
            if !said {
                checker.durable.remove(&(ReplicaId(2), Op(op)));
            }
            let mut disks = Disks::of(&history);
            disks.write(2, Zone::Headers, op % 64 * 512, &other_header(&history, op).encode());
            let disk = |replica, zone, at, len| disks.read(replica, zone, at, len);
            let core = vec![ReplicaId(0), ReplicaId(1)];
            checker.finish(&End {
                config: history.config,
                nodes: vec![None; 3],
                held: vec![],
                disk: &disk,
                seen: &|replica, zone, at, len| readable.then(|| disks.read(replica, zone, at, len)),
                core,
            })
        };
        finish(30, false, true).unwrap();
        assert_broken(&rules(), finish(30, true, true), AGREES);
        // Damaged as well, it names nothing.
        finish(30, true, false).unwrap();
    }

    #[test]
    fn a_slot_is_not_asked_about_a_copy_that_was_repaired_in_a_sealed_segment() {
        let history = long();
        let place = history.header(30).place;
        let finish = |sealed: u64| {
            let mut checker = Ring::default();
            history.play(&mut checker).unwrap();
            let checksum = history.header(30).checksum;
            let notes = [Note::Sealed { segment: sealed - 1 }, Note::Durable { op: Op(30), checksum }];
            for note in &notes {
                let seen = Observation::Note { replica: ReplicaId(2), note };
                checker.observe(Instant::default(), &seen).unwrap();
            }
            finish_on(&mut checker, &history, |disks| {
                disks.write(2, Zone::Headers, 30 * 512, &other_header(&history, 30).encode());
            })
        };
        let segment = place / history.config.layout.segment_size;
        assert!(segment > 0, "the op is not in the first segment");
        assert_broken(&rules(), finish(segment), AGREES);
        finish(segment + 1).unwrap();
    }
}
