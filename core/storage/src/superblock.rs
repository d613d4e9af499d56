//! The superblock: who this replica is, and what it promised.
//!
//! ```text
//!   0  checksum [32]: BLAKE3 of bytes 32..16384
//!  32  magic "KMBS"     36  version u16   38  replica u8   39  replicas u8   40  zero [8]
//!  48  cluster u128     64  sequence u64
//!  72  parent [32]: checksum of the superblock before this one, zero in the first
//! 104  ring slots u32  108  segment ops max u32  112  segment size u64  120  prepare size max u32
//! 124  headers u32     128  view u64     136  log view u64   144  commit u64
//! 152  checkpoint's op u64, 0: there is none     160  its prepare's checksum [32]
//! 192  root of its pages [64]                    256  zero [256]
//! 512  adopted headers [512 each], zeros up to 16384
//! ```
//!
//! Four identical copies stand side by side. **Write:** copy 0, 1, 2, 3, each when the one before it is durable;
//! durable is said when all four are. **Open:** at least two copies must be intact, whatever they say; the one with
//! the highest sequence is taken. **Mend:** the copies that are not it are then written again from it, one at a
//! time, before anything else: first those that are not intact, then those that are intact and older.
//!
//! Why that holds, within the budget of faults: at any time at most one copy is *damaged* by the disk: not
//! readable, not what was written, or older than what was said to be written. A power cut *tears* what is being written.
//!
//! *At most one copy is torn.* One write is in flight at a time, so a cut tears one copy at most. The next open mends
//! what is not intact before it touches an intact copy, so when an intact copy is written, none is torn:
//!
//! | cut while | torn | damaged | intact at least |
//! |---|---|---|---|
//! | copy n of an update is written | n | any one other | two: those before n are new, those behind it are old |
//! | a copy that is not intact is mended | that one, still | any one other | two: no intact copy was touched |
//! | an intact, older copy is mended | that one | any one other | two: the others were mended before |
//! | nothing is written | none | any one | three |
//!
//! So two copies are intact at every open: it never fails within the budget.
//!
//! *It never goes back.* When an update has completed, each copy holds it or something newer, except the damaged
//! one. Of two intact copies at most one is the damaged one, left behind by a lost write; so the highest
//! sequence of two is never behind a completed update. That is why one intact copy is not enough.
//!
//! *Going ahead is harmless.* The highest sequence may stand in one copy alone: an update that was never
//! answered. Nothing was promised in it, but it was wanted, so it may be taken; it need not be, if that copy
//! is damaged next. It is durable once all four copies say it, and only then does the replica act on it. An
//! update that an open did not take may leave its sequence, in a damaged copy only, to a later one with
//! other contents: of the same sequence, what more copies say is taken.

use alloc::vec::Vec;

use kimberlite_crypto::{Checksum, checksum};
use kimberlite_io::Buf;
use kimberlite_probe::mutant;
use kimberlite_store::CheckpointRoot;
use kimberlite_types::limits::{COUNTER_LIMIT, PREPARE_HEADER_SIZE, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_SIZE};
use kimberlite_types::{ClusterId, Config, Layout, Op, ReplicaId, View};
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::message::HEADERS_MAX;

use crate::bytes::{
    bytes_at, is_zero, put, put_u16, put_u32, put_u64, put_u128, u16_at, u32_at, u64_at, u128_at,
};
use crate::{CheckpointName, HaltReason, ViewState};

/// The mark of a superblock.
pub(crate) const SUPERBLOCK_MAGIC: [u8; 4] = *b"KMBS";
/// The format this build writes.
pub(crate) const SUPERBLOCK_VERSION: u16 = 2;

const HEADERS_AT: usize = 512;

const _: () = assert!(HEADERS_AT + HEADERS_MAX * PREPARE_HEADER_SIZE <= SUPERBLOCK_COPY_SIZE);
const _: () = assert!(SUPERBLOCK_COPIES == 4, "the proof above is about four copies");

/// One superblock; its copies are identical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) cluster: ClusterId,
    pub(crate) replica: ReplicaId,
    pub(crate) replicas: u8,
    pub(crate) layout: Layout,
    pub(crate) sequence: u64,
    pub(crate) parent: Checksum,
    pub(crate) state: ViewState,
    /// The last checkpoint all of whose pages are durable.
    pub(crate) checkpoint: Option<CheckpointName>,
}

/// Why a copy is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyFault {
    /// Nothing was ever written there.
    Blank,
    /// Intact, of another format.
    Version(u16),
    /// Unreadable, or not what was written.
    Damaged,
}

impl Superblock {
    /// The first superblock of a data directory.
    pub(crate) fn initial(config: &Config) -> Self {
        Self {
            cluster: config.cluster,
            replica: config.replica,
            replicas: config.replicas,
            layout: config.layout,
            sequence: 0,
            parent: Checksum::ZERO,
            state: ViewState::initial(config.cluster),
            checkpoint: None,
        }
    }

    /// The one after this.
    pub(crate) fn next(&self, state: ViewState, checkpoint: Option<CheckpointName>) -> Self {
        let (_, own) = self.encode();
        Self { sequence: self.sequence + 1, parent: own, state, checkpoint, ..self.clone() }
    }

    /// The bytes of one copy, and their checksum.
    pub(crate) fn encode(&self) -> (Buf, Checksum) {
        let headers = &self.state.headers;
        assert!(
            !headers.is_empty() && headers.len() <= HEADERS_MAX,
            "1 to {HEADERS_MAX} headers are adopted"
        );
        let mut copy = Buf::zeroed(SUPERBLOCK_COPY_SIZE);
        put(&mut copy, 32, &SUPERBLOCK_MAGIC);
        put_u16(&mut copy, 36, SUPERBLOCK_VERSION);
        copy[38] = self.replica.0;
        copy[39] = self.replicas;
        put_u128(&mut copy, 48, self.cluster.0);
        put_u64(&mut copy, 64, self.sequence);
        put(&mut copy, 72, self.parent.as_bytes());
        put_u32(&mut copy, 104, self.layout.ring_slots);
        put_u32(&mut copy, 108, self.layout.segment_ops_max);
        put_u64(&mut copy, 112, self.layout.segment_size);
        put_u32(&mut copy, 120, self.layout.prepare_size_max);
        put_u32(&mut copy, 124, headers.len() as u32);
        put_u64(&mut copy, 128, self.state.view.0);
        put_u64(&mut copy, 136, self.state.log_view.0);
        put_u64(&mut copy, 144, self.state.commit.0);
        if let Some(CheckpointName { op, checksum, root }) = &self.checkpoint {
            assert!(*op > Op::ZERO, "a checkpoint holds an op");
            put_u64(&mut copy, 152, op.0);
            put(&mut copy, 160, checksum.as_bytes());
            put(&mut copy, 192, &root.encode());
        }
        for (index, header) in headers.iter().enumerate() {
            put(&mut copy, HEADERS_AT + index * PREPARE_HEADER_SIZE, &header.encode());
        }
        let own = checksum(&copy[32..]);
        put(&mut copy, 0, own.as_bytes());
        (copy, own)
    }

    /// Reads a copy and verifies it.
    pub(crate) fn decode(copy: &[u8]) -> Result<(Self, Checksum), CopyFault> {
        if is_zero(copy) {
            return Err(CopyFault::Blank);
        }
        if copy.len() != SUPERBLOCK_COPY_SIZE {
            return Err(CopyFault::Damaged);
        }
        let own = Checksum::from_bytes(bytes_at(copy, 0));
        let sealed = own == checksum(&copy[32..]) || mutant!(SuperblockUnsealed);
        if copy[32..36] != SUPERBLOCK_MAGIC || !sealed {
            return Err(CopyFault::Damaged);
        }
        let version = u16_at(copy, 36);
        if version != SUPERBLOCK_VERSION {
            return Err(CopyFault::Version(version));
        }
        let cluster = ClusterId(u128_at(copy, 48));
        let superblock = Self {
            cluster,
            replica: ReplicaId(copy[38]),
            replicas: copy[39],
            layout: Layout {
                ring_slots: u32_at(copy, 104),
                segment_ops_max: u32_at(copy, 108),
                segment_size: u64_at(copy, 112),
                prepare_size_max: u32_at(copy, 120),
            },
            sequence: u64_at(copy, 64),
            parent: Checksum::from_bytes(bytes_at(copy, 72)),
            state: ViewState {
                view: View(u64_at(copy, 128)),
                log_view: View(u64_at(copy, 136)),
                commit: Op(u64_at(copy, 144)),
                headers: decode_headers(copy, cluster).ok_or(CopyFault::Damaged)?,
            },
            checkpoint: decode_checkpoint(copy),
        };
        // A true checksum says that it was written so, not that a replica wrote it.
        let same = *superblock.encode().0 == *copy;
        if superblock.is_sane() && (same || mutant!(SuperblockUnsealed)) {
            Ok((superblock, own))
        } else {
            Err(CopyFault::Damaged)
        }
    }

    /// Whether every number is within its limit.
    fn is_sane(&self) -> bool {
        let ViewState { view, log_view, commit, headers: _ } = &self.state;
        log_view <= view
            && self.checkpoint.is_none_or(|checkpoint| checkpoint.op.0 < COUNTER_LIMIT)
            && view.0 < COUNTER_LIMIT
            && commit.0 < COUNTER_LIMIT
            && self.sequence < COUNTER_LIMIT
    }

    /// Whether this superblock is the one the configuration means.
    pub(crate) fn check(&self, config: &Config) -> Result<(), HaltReason> {
        if self.cluster != config.cluster {
            return Err(HaltReason::WrongCluster { found: self.cluster, expected: config.cluster });
        }
        let (found, expected) = ((self.replica, self.replicas), (config.replica, config.replicas));
        if found != expected {
            return Err(HaltReason::WrongReplica { found, expected });
        }
        if self.layout != config.layout {
            return Err(HaltReason::WrongLayout { found: self.layout });
        }
        Ok(())
    }
}

/// The checkpoint. Of bytes that name none, none: then they are not what is encoded of it, and so damage.
fn decode_checkpoint(copy: &[u8]) -> Option<CheckpointName> {
    let op = Op(u64_at(copy, 152));
    let root = CheckpointRoot::decode(&bytes_at(copy, 192)).filter(|_| op > Op::ZERO)?;
    Some(CheckpointName { op, checksum: Checksum::from_bytes(bytes_at(copy, 160)), root })
}

/// The adopted headers: each sound, of the cluster, and the parent of the next. The root encodes to a header like any.
fn decode_headers(copy: &[u8], cluster: ClusterId) -> Option<Vec<PrepareHeader>> {
    let count = u32_at(copy, 124) as usize;
    if count == 0 || count > HEADERS_MAX {
        return None;
    }
    let mut headers: Vec<PrepareHeader> = Vec::with_capacity(count);
    for index in 0..count {
        let header = PrepareHeader::decode(&copy[HEADERS_AT + index * PREPARE_HEADER_SIZE..]).ok()?;
        let follows = headers
            .last()
            .is_none_or(|before| header.op == before.op.next() && header.parent == before.checksum);
        if header.cluster != cluster || !follows {
            return None;
        }
        headers.push(header);
    }
    Some(headers)
}

/// What the four copies say.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// The superblock to open with.
    pub(crate) superblock: Superblock,
    /// The copies that are not it and must be written again, in this order.
    pub(crate) mend: Vec<usize>,
}

pub(crate) type Copies = [Result<(Superblock, Checksum), CopyFault>; SUPERBLOCK_COPIES];

/// Intact copies without which a superblock is not believed.
const INTACT_MIN: usize = 2;

/// Applies the open rule of the module's description.
pub(crate) fn choose(copies: &Copies) -> Result<Choice, HaltReason> {
    let intact = || copies.iter().filter_map(|copy| copy.as_ref().ok());
    let agree = |own: &Checksum| intact().filter(|(_, other)| other == own).count();
    let best = intact().max_by_key(|(superblock, own)| (superblock.sequence, agree(own)));
    if let Some((superblock, own)) = best
        && intact().count() >= INTACT_MIN
    {
        kimberlite_probe::sometimes!("superblock.newest_alone", agree(own) == 1);
        kimberlite_probe::sometimes!("superblock.two_intact", intact().count() == 2);
        kimberlite_probe::sometimes!("superblock.three_intact", intact().count() == 3);
        kimberlite_probe::sometimes!("superblock.four_intact", intact().count() == 4);
        let broken = (0..SUPERBLOCK_COPIES).filter(|index| copies[*index].is_err());
        let older = (0..SUPERBLOCK_COPIES)
            .filter(|index| copies[*index].as_ref().is_ok_and(|(_, other)| other != own));
        return Ok(Choice { superblock: superblock.clone(), mend: broken.chain(older).collect() });
    }
    kimberlite_probe::reachable!("superblock.lost");
    let version = copies.iter().find_map(|copy| match copy {
        Err(CopyFault::Version(found)) => Some(*found),
        _ => None,
    });
    if let Some(found) = version {
        return Err(HaltReason::WrongVersion { found });
    }
    // A format that was cut short: blank copies beside at most one intact, of the first superblock.
    let blank = copies.iter().any(|copy| matches!(copy, Err(CopyFault::Blank)));
    if blank && intact().all(|(superblock, _)| superblock.sequence == 0) {
        return Err(HaltReason::NotFormatted);
    }
    Err(HaltReason::SuperblockLost { copies: intact().count() as u8 })
}

/// The offset of a copy in its zone, in bytes.
pub fn copy_offset(index: usize) -> u64 {
    (index * SUPERBLOCK_COPY_SIZE) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_types::Timing;

    fn config() -> Config {
        Config {
            cluster: ClusterId(7),
            replica: ReplicaId(1),
            replicas: 3,
            layout: Layout::SMALL,
            timing: Timing::PRODUCTION,
            pipeline_max: 8,
            sessions_max: 4,
        }
    }

    fn copy(sequence: u64) -> Result<(Superblock, Checksum), CopyFault> {
        let superblock = Superblock { sequence, ..Superblock::initial(&config()) };
        Superblock::decode(&superblock.encode().0)
    }

    const BAD: Result<(Superblock, Checksum), CopyFault> = Err(CopyFault::Damaged);
    const BLANK: Result<(Superblock, Checksum), CopyFault> = Err(CopyFault::Blank);

    #[test]
    fn the_first_superblock_never_changes_its_bytes() {
        let (bytes, own) = Superblock::initial(&config()).encode();
        let golden = "25c3681d1c3b58e520e7f63429312aa6531c6ea72337ab8b2072d88e9485f20f";
        assert_eq!(checksum(&bytes).to_string(), golden);
        assert_eq!(Superblock::decode(&bytes), Ok((Superblock::initial(&config()), own)));
    }

    #[test]
    fn any_flipped_byte_of_a_copy_is_noticed() {
        let (bytes, _) = Superblock::initial(&config()).encode();
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x10;
            assert!(Superblock::decode(&broken).is_err(), "byte {at}");
        }
    }

    #[test]
    fn bytes_that_no_replica_writes_are_damage_though_their_checksum_is_true() {
        let (bytes, _) = Superblock::initial(&config()).encode();
        let decoded = |at: usize, value: u8| {
            let mut forged = bytes.clone();
            forged[at] = value;
            let own = checksum(&forged[32..]);
            forged[..32].copy_from_slice(own.as_bytes());
            Superblock::decode(&forged).map(|(superblock, _)| superblock)
        };
        assert!(decoded(64, 1).is_ok_and(|superblock| superblock.sequence == 1));
        assert!(decoded(128, 1).is_ok_and(|superblock| superblock.state.view == View(1)));
        for (at, value, what) in [
            (44, 1, "reserved bytes that are not zero"),
            (300, 1, "reserved bytes that are not zero"),
            (152, 1, "the op of a checkpoint without its root"),
            (192, 1, "the root of no checkpoint"),
            (HEADERS_AT + PREPARE_HEADER_SIZE, 1, "something behind the last header"),
            (SUPERBLOCK_COPY_SIZE - 1, 1, "something behind the last header"),
            (135, 0x10, "a view beyond its limit"),
            (136, 1, "a log view ahead of the view"),
            (151, 0x10, "a commit beyond its limit"),
            (71, 0x10, "a sequence beyond its limit"),
        ] {
            assert_eq!(decoded(at, value), Err(CopyFault::Damaged), "{what}");
        }
    }

    #[test]
    fn the_newest_of_two_or_more_intact_copies_is_opened_and_the_others_mended_the_broken_ones_first() {
        for (copies, sequence, mend) in [
            ([copy(5), copy(5), copy(5), copy(5)], 5, vec![]),
            // Cut while a copy was written; then with one damaged, too.
            ([BAD, copy(5), copy(5), copy(5)], 5, vec![0]),
            ([copy(6), BAD, copy(5), copy(5)], 6, vec![1, 2, 3]),
            ([copy(6), copy(6), copy(6), BAD], 6, vec![3]),
            ([copy(6), copy(5), BAD, BAD], 6, vec![2, 3, 1]),
            ([BAD, BAD, copy(5), copy(5)], 5, vec![0, 1]),
            // A copy that a lost write left behind.
            ([BAD, copy(3), BAD, copy(6)], 6, vec![0, 2, 1]),
            ([BAD, copy(6), BLANK, copy(6)], 6, vec![0, 2]),
        ] {
            let choice = choose(&copies).unwrap();
            assert_eq!((choice.superblock.sequence, choice.mend), (sequence, mend));
        }
    }

    #[test]
    fn of_the_same_sequence_what_more_copies_say_is_opened() {
        let other = |view| {
            let state = ViewState { view: View(view), ..ViewState::initial(ClusterId(7)) };
            let superblock = Superblock { sequence: 6, state, ..Superblock::initial(&config()) };
            Superblock::decode(&superblock.encode().0)
        };
        for odd in 0..SUPERBLOCK_COPIES {
            let copies: Copies = core::array::from_fn(|index| other(if index == odd { 9 } else { 1 }));
            let choice = choose(&copies).unwrap();
            assert_eq!((choice.superblock.state.view, choice.mend), (View(1), vec![odd]));
        }
    }

    #[test]
    fn without_two_intact_copies_nothing_is_opened() {
        let lost = |copies| Err(HaltReason::SuperblockLost { copies });
        for (copies, expected) in [
            ([copy(6), BAD, BAD, BAD], lost(1)),
            ([copy(6), BLANK, BAD, BAD], lost(1)),
            ([BAD, BAD, BAD, BAD], lost(0)),
            ([BLANK, BLANK, BLANK, BLANK], Err(HaltReason::NotFormatted)),
            ([copy(0), BAD, BLANK, BLANK], Err(HaltReason::NotFormatted)),
            ([Err(CopyFault::Version(9)), BAD, BAD, BAD], Err(HaltReason::WrongVersion { found: 9 })),
            ([Err(CopyFault::Version(9)), BAD, copy(6), BAD], Err(HaltReason::WrongVersion { found: 9 })),
        ] {
            assert_eq!(choose(&copies).map(|choice| choice.superblock.sequence), expected);
        }
    }
}
