//! The fault budget: where content may be damaged, so that a correct cluster can always recover.
//!
//! Data is cut into pieces that lie at the same place on every replica: sectors of the header ring, and
//! chunks of the log and the grid. Each piece has at most `tolerated` replicas on which it may be
//! damaged, drawn when the piece is first asked about and fixed from then on; all others keep it intact.
//! Where the grid is [free](Atlas::free_grid), any replica may lose all of it: what it holds is made anew from the log, whose
//! budget stays as it is. The superblock is not replicated: of its four copies, one per replica may be damaged.
//!
//! A slot of the ring and the prepare it names are one piece of data with two witnesses: one replica's lost slot and
//! another's lost prepare of the same op are two lost copies of it. Which sector of the ring names
//! what stands in a chunk of the log is not fixed, so a budget [coupled](Atlas::couple) over both zones
//! lets the same replicas lose either, and a disk that is [lost](Atlas::lose_replica) takes its share from all of both.

use std::collections::BTreeMap;

use kimberlite_io::{Place, Zone};
use kimberlite_types::limits::{REPLICAS_MAX, SECTOR_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{ReplicaId, Streams};

use crate::dice::{Concern, Dice};

/// A set of replicas, one bit each.
type Members = u8;

/// Where one piece may be, and was, damaged.
#[derive(Clone, Copy, Debug)]
struct Piece {
    allowed: Members,
    damaged: Members,
}

/// Which copies of which data may be damaged.
#[derive(Clone, Debug)]
pub struct Atlas {
    replicas: u8,
    tolerated: u8,
    chunk_size: u64,
    streams: Streams,
    pieces: BTreeMap<(Zone, u64), Piece>,
    /// The replicas that may lose any part of ring and log, where these share one budget.
    coupled: Option<Members>,
    /// Whether the grid has no budget.
    grid_is_free: bool,
    /// Replicas that lost their whole disk: they count as damaged everywhere.
    lost: Members,
    /// The one copy of the superblock that may be damaged, by replica.
    superblock_copies: Option<[u8; REPLICAS_MAX]>,
}

impl Atlas {
    /// Bytes of a piece of the log or the grid, unless told otherwise.
    pub const CHUNK_SIZE: u64 = 64 << 10;

    /// An atlas for `replicas` replicas, of which `tolerated` may lose any one piece. Zero allows no
    /// damage at all, the superblock included.
    pub fn new(replicas: u8, tolerated: u8, dice: &mut Dice) -> Self {
        assert!(usize::from(replicas) <= REPLICAS_MAX, "replicas are few");
        assert!(tolerated <= replicas, "more copies lost than there are");
        let streams = Streams::new(dice.word(Concern::Atlas, 0));
        let copies = std::array::from_fn(|_| dice.draw(Concern::Atlas, 1, SUPERBLOCK_COPIES as u64) as u8);
        Self {
            replicas,
            tolerated,
            chunk_size: Self::CHUNK_SIZE,
            streams,
            pieces: BTreeMap::new(),
            coupled: None,
            grid_is_free: false,
            lost: 0,
            superblock_copies: (tolerated > 0).then_some(copies),
        }
    }

    /// Lets ring and log share one budget, before anything was damaged: the same replicas, throughout, may lose
    /// parts of either.
    pub fn couple(&mut self) {
        assert!(self.pieces.is_empty(), "the map is not redrawn while it is in use");
        self.coupled =
            Some(draw(self.streams, ("atlas.coupled", 0), self.replicas, self.tolerated, self.lost));
    }

    /// Lets any replica lose any part of the grid.
    pub fn free_grid(&mut self) {
        self.grid_is_free = true;
    }

    /// Sets the bytes of a piece of the log and the grid, before anything was damaged.
    pub fn set_chunk_size(&mut self, bytes: u64) {
        assert!(bytes > 0 && bytes.is_multiple_of(SECTOR_SIZE as u64), "a chunk is whole sectors");
        assert!(self.pieces.is_empty(), "the map is not redrawn while it is in use");
        self.chunk_size = bytes;
    }

    /// Whether `replica` may lose what lies at `place`.
    pub fn permits(&mut self, replica: ReplicaId, place: Place, len: u64) -> bool {
        if replica.0 >= self.replicas {
            return false;
        }
        if place.zone == Zone::Superblock {
            return self.permits_superblock(replica, place.offset, len);
        }
        if place.zone == Zone::Grid && self.grid_is_free {
            return true;
        }
        let (first, last) = self.range(place, len);
        (first..=last).all(|index| self.piece(place.zone, index).allowed & member(replica) != 0)
    }

    /// Notes that `replica` lost what lies at `place`, which must be permitted.
    pub fn spend(&mut self, replica: ReplicaId, place: Place, len: u64) {
        assert!(self.permits(replica, place, len), "damage beyond the budget");
        if place.zone == Zone::Superblock || place.zone == Zone::Grid && self.grid_is_free {
            return;
        }
        let (first, last) = self.range(place, len);
        for index in first..=last {
            self.piece(place.zone, index).damaged |= member(replica);
        }
    }

    /// Puts a place off limits on every replica. What was damaged already stays so.
    pub fn protect(&mut self, place: Place, len: u64) {
        self.allow_only(place, len, &[]);
    }

    /// Lets exactly these replicas lose what lies at `place`: for stories that go beyond the budget, too.
    pub fn allow_only(&mut self, place: Place, len: u64, replicas: &[ReplicaId]) {
        assert!(place.zone != Zone::Superblock, "the budget of the superblock is local");
        let members = replicas.iter().fold(0, |all, replica| all | member(*replica));
        let (first, last) = self.range(place, len);
        for index in first..=last {
            self.piece(place.zone, index).allowed = members;
        }
    }

    /// Whether copies of the superblock may be damaged, one per replica.
    pub fn allow_superblock(&mut self, allowed: bool, dice: &mut Dice) {
        self.superblock_copies = allowed
            .then(|| std::array::from_fn(|_| dice.draw(Concern::Atlas, 1, SUPERBLOCK_COPIES as u64) as u8));
    }

    /// The replicas on which the piece at `place` was damaged so far.
    pub fn damaged(&self, place: Place) -> Vec<ReplicaId> {
        let index = self.range(place, 1).0;
        let damaged = self.pieces.get(&(place.zone, index)).map_or(0, |piece| piece.damaged) | self.lost;
        (0..self.replicas).map(ReplicaId).filter(|replica| damaged & member(*replica) != 0).collect()
    }

    /// Spends all of a replica's budget, if each piece has some left: it may then lose its whole disk. Ring and log that
    /// share a budget are one piece: a replica may have lost the slot of an op, and another its prepare.
    pub fn lose_replica(&mut self, replica: ReplicaId) -> bool {
        let (member, tolerated) = (member(replica), self.tolerated);
        let lost = self.lost | member;
        let spent = |damaged: Members| (damaged | lost).count_ones() > u32::from(tolerated);
        let coupled = self.pieces.iter().filter(|((zone, _), _)| self.shares_budget(*zone));
        let harmed = coupled.fold(0, |all, (_, piece)| all | piece.damaged);
        if spent(harmed) || self.pieces.values().any(|piece| spent(piece.damaged)) {
            return false;
        }
        self.lost = lost;
        self.coupled = self.coupled.map(|allowed| share_with(member, allowed, harmed | lost, tolerated));
        for ((zone, _), piece) in &mut self.pieces {
            piece.allowed = match self.coupled {
                Some(allowed) if is_witness(*zone) => (piece.allowed | member) & allowed,
                _ => share_with(member, piece.allowed, piece.damaged | lost, tolerated),
            };
        }
        true
    }

    /// Notes that a replica that lost its disk, or any piece of it, holds everything again.
    pub fn regain_replica(&mut self, replica: ReplicaId) {
        self.lost &= !member(replica);
        for piece in self.pieces.values_mut() {
            piece.damaged &= !member(replica);
        }
    }

    fn permits_superblock(&self, replica: ReplicaId, offset: u64, len: u64) -> bool {
        let copy = SUPERBLOCK_COPY_SIZE as u64;
        let (first, last) = (offset / copy, (offset + len.max(1) - 1) / copy);
        let allowed = self.superblock_copies.map(|copies| u64::from(copies[usize::from(replica.0)]));
        first == last && allowed == Some(first)
    }

    /// The first and last piece of a range.
    fn range(&self, place: Place, len: u64) -> (u64, u64) {
        let size = match place.zone {
            Zone::Superblock | Zone::Headers => SECTOR_SIZE as u64,
            Zone::Log | Zone::Grid => self.chunk_size,
        };
        (place.offset / size, (place.offset + len.max(1) - 1) / size)
    }

    /// Whether a zone is one of those that share a budget.
    const fn shares_budget(&self, zone: Zone) -> bool {
        self.coupled.is_some() && is_witness(zone)
    }

    fn piece(&mut self, zone: Zone, index: u64) -> &mut Piece {
        let (replicas, tolerated, lost, streams) = (self.replicas, self.tolerated, self.lost, self.streams);
        let coupled = self.coupled.filter(|_| is_witness(zone));
        self.pieces.entry((zone, index)).or_insert_with(|| {
            let name = match zone {
                Zone::Superblock => "atlas.superblock",
                Zone::Headers => "atlas.headers",
                Zone::Log => "atlas.log",
                Zone::Grid => "atlas.grid",
            };
            let allowed = coupled.unwrap_or_else(|| draw(streams, (name, index), replicas, tolerated, lost));
            Piece { allowed, damaged: 0 }
        })
    }
}

/// Whether what a zone holds tells which prepares were durable.
const fn is_witness(zone: Zone) -> bool {
    matches!(zone, Zone::Headers | Zone::Log)
}

/// Draws who may lose a piece: those who lost everything, and others up to the number tolerated.
fn draw(streams: Streams, stream: (&str, u64), replicas: u8, tolerated: u8, lost: Members) -> Members {
    let mut order: Vec<u8> = (0..replicas).collect();
    streams.stream(stream.0, stream.1).shuffle(&mut order);
    let mut allowed = lost;
    for replica in order {
        if allowed.count_ones() < u32::from(tolerated) {
            allowed |= 1 << replica;
        }
    }
    allowed
}

/// Who may lose a piece when `member` lost it: those who are allowed to, less as many as must step back. Of those who
/// were `harmed` nobody can.
fn share_with(member: Members, allowed: Members, harmed: Members, tolerated: u8) -> Members {
    let mut allowed = allowed | member;
    let mut spare = allowed & !harmed;
    while allowed.count_ones() > u32::from(tolerated) && spare != 0 {
        let one = spare & spare.wrapping_neg();
        allowed &= !one;
        spare &= !one;
    }
    allowed
}

const fn member(replica: ReplicaId) -> Members {
    1 << replica.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: u64 = SECTOR_SIZE as u64;

    #[test]
    fn no_piece_is_ever_permitted_on_more_replicas_than_tolerated() {
        for seed in 0..40 {
            let mut dice = Dice::free(seed);
            let replicas = 1 + (seed % 6) as u8;
            let tolerated = (dice.draw(Concern::Swarm, 0, u64::from(replicas))) as u8;
            let mut atlas = Atlas::new(replicas, tolerated, &mut dice);
            for step in 0..400 {
                let zone = [Zone::Headers, Zone::Log, Zone::Grid][step % 3];
                let place = Place { zone, offset: dice.draw(Concern::Swarm, 1, 256) * SECTOR };
                let len = (1 + dice.draw(Concern::Swarm, 2, 20)) * SECTOR;
                let replica = ReplicaId(dice.draw(Concern::Swarm, 3, u64::from(replicas)) as u8);
                if atlas.permits(replica, place, len) {
                    atlas.spend(replica, place, len);
                }
                if step == 200 {
                    atlas.lose_replica(replica);
                }
            }
            for zone in [Zone::Headers, Zone::Log, Zone::Grid] {
                for sector in 0..300 {
                    let place = Place { zone, offset: sector * SECTOR };
                    let permitted = (0..replicas).filter(|r| atlas.permits(ReplicaId(*r), place, SECTOR));
                    assert!(permitted.count() <= usize::from(tolerated));
                    assert!(atlas.damaged(place).len() <= usize::from(tolerated));
                }
            }
        }
    }

    #[test]
    fn a_coupled_budget_lets_the_same_replicas_lose_ring_and_log() {
        for seed in 0..20 {
            let mut atlas = Atlas::new(5, 2, &mut Dice::free(seed));
            atlas.couple();
            for replica in (0..5).map(ReplicaId) {
                let ring = atlas.permits(replica, Place::headers(0), SECTOR);
                assert!((0..50).all(|s| atlas.permits(replica, Place::headers(s * SECTOR), SECTOR) == ring));
                assert!((0..50).all(|s| atlas.permits(replica, Place::log(s * 99 * SECTOR), SECTOR) == ring));
            }
        }
    }

    #[test]
    fn a_disk_that_is_lost_takes_its_share_of_a_coupled_budget_from_all_pieces_alike() {
        for seed in 0..40 {
            let mut atlas = Atlas::new(5, 2, &mut Dice::free(seed));
            atlas.couple();
            let places = |zone, to| (0..to).map(move |s| Place { zone, offset: s * 99 * SECTOR });
            let may_lose = |atlas: &mut Atlas, from: u64| -> Vec<ReplicaId> {
                let of = |zone| places(zone, 50).skip(from as usize);
                let any = |replica: &ReplicaId| {
                    of(Zone::Headers).chain(of(Zone::Log)).any(|place| atlas.permits(*replica, place, SECTOR))
                };
                (0..5).map(ReplicaId).filter(any).collect()
            };
            // Some pieces were asked about before, and one of the two has lost something.
            let able = may_lose(&mut atlas, 30);
            atlas.spend(able[(seed % 2) as usize], Place::headers(0), SECTOR);
            let other =
                (0..5).map(ReplicaId).find(|replica| !able.contains(replica)).expect("three are left");
            assert!(atlas.lose_replica(other));
            let able = may_lose(&mut atlas, 0);
            assert!(able.len() == 2 && able.contains(&other), "seed {seed}: {able:?}");
            // When both have lost something, no third one may.
            let left = *able.iter().find(|replica| **replica != other).expect("two are able");
            atlas.spend(left, Place::log(40 * 99 * SECTOR), SECTOR);
            assert!(
                (0..5).map(ReplicaId).all(|replica| able.contains(&replica) || !atlas.lose_replica(replica))
            );
        }
    }

    #[test]
    fn where_the_grid_is_free_its_damage_counts_for_nothing_else() {
        let mut atlas = Atlas::new(3, 1, &mut Dice::free(1));
        let place = Place::grid(7 * SECTOR);
        assert!(!(0..3).map(ReplicaId).all(|replica| atlas.permits(replica, place, SECTOR)));
        atlas.free_grid();
        for replica in (0..3).map(ReplicaId) {
            assert!(atlas.permits(replica, place, SECTOR));
            atlas.spend(replica, place, SECTOR);
        }
        assert!(!atlas.permits(ReplicaId(3), place, SECTOR), "a client has no disk");
        assert!(atlas.lose_replica(ReplicaId(2)));
        let log = (0..3).map(ReplicaId).filter(|replica| atlas.permits(*replica, Place::log(0), SECTOR));
        assert!(log.count() <= 1, "the log has the budget it had");
    }

    #[test]
    fn every_replica_is_vulnerable_somewhere() {
        let mut atlas = Atlas::new(3, 1, &mut Dice::free(1));
        for replica in (0..3).map(ReplicaId) {
            assert!((0..64).any(|s| atlas.permits(replica, Place::headers(s * SECTOR), SECTOR)));
            assert!((0..64).any(|c| atlas.permits(replica, Place::log(c * Atlas::CHUNK_SIZE), SECTOR)));
            let copies = (0..4).filter(|copy| {
                let place = Place::superblock(copy * SUPERBLOCK_COPY_SIZE as u64);
                atlas.permits(replica, place, SUPERBLOCK_COPY_SIZE as u64)
            });
            assert_eq!(copies.count(), 1);
        }
    }

    #[test]
    fn nothing_is_permitted_without_a_budget_where_protected_or_at_a_client() {
        let mut none = Atlas::new(3, 0, &mut Dice::free(1));
        let mut some = Atlas::new(3, 2, &mut Dice::free(1));
        some.protect(Place::log(0), 10 * Atlas::CHUNK_SIZE);
        for replica in (0..3).map(ReplicaId) {
            for piece in 0..10 {
                assert!(!none.permits(replica, Place::log(piece * Atlas::CHUNK_SIZE), SECTOR));
                assert!(!none.permits(replica, Place::superblock(piece * SECTOR), SECTOR));
                assert!(!some.permits(replica, Place::log(piece * Atlas::CHUNK_SIZE), SECTOR));
            }
        }
        assert!((0..64).all(|piece| !some.permits(ReplicaId(3), Place::headers(piece * SECTOR), SECTOR)));
    }

    #[test]
    fn a_disk_may_be_lost_only_while_every_piece_it_would_take_is_intact_elsewhere() {
        let mut atlas = Atlas::new(3, 1, &mut Dice::free(1));
        let place = Place::headers(0);
        let victim = (0..3).map(ReplicaId).find(|r| atlas.permits(*r, place, SECTOR)).expect("one may");
        let other = ReplicaId((victim.0 + 1) % 3);
        atlas.spend(victim, place, SECTOR);
        assert!(!atlas.lose_replica(other));
        assert!(atlas.lose_replica(victim));
        assert!((0..64).all(|s| !atlas.permits(other, Place::headers(s * SECTOR), SECTOR)));
        atlas.regain_replica(victim);
        assert!(atlas.lose_replica(other));
    }
}
