//! A prepare: one op of the log. The same bytes on the wire, in the journal and on every replica.
//!
//! ```text
//!   0  checksum [32]: BLAKE3 of bytes 32..512      32  body checksum [32]: BLAKE3 of the body
//!  64  parent [32]: checksum of op - 1             96  chain [32]: hash of the last entry so far
//! 128  cluster u128    144  op u64      152  view u64     160  commit u64
//! 168  timestamp u64   176  place u64   184  size u32     188  entries u32
//! 192  magic "KMBP"    196  version u16 198  proposer u8  199  zero
//! 200  signature [64], zero until proposals are signed
//! 264  index u32: its place among the prepares of its segment, from 0    268  zero [244]
//! 512  body: entries
//! ```
//!
//! On disk a prepare starts on a sector boundary and is padded with zeros to the next one. Its `place` is
//! the offset in the log zone at which it stands on every replica.

use kimberlite_crypto::{ChainHash, Checksum, checksum};
use kimberlite_io::{Buf, Frame, sectors};
use kimberlite_probe::mutant;
use kimberlite_types::limits::{
    COUNTER_LIMIT, ENTRIES_MAX, PREPARE_HEADER_SIZE, PREPARE_SIZE_LIMIT, TIMESTAMP_LIMIT,
};
use kimberlite_types::{ClusterId, Layout, LogPosition, Op, ReplicaId, View, WallTime};
use serde::{Deserialize, Serialize};

use crate::Malformed;
use crate::entry::{self, Entry, NewEntry, entry_size};
use crate::layout::{
    bytes_at, is_zero, put, put_u16, put_u32, put_u64, put_u128, u16_at, u32_at, u64_at, u128_at,
};

/// The mark of a prepare header.
pub const PREPARE_MAGIC: [u8; 4] = *b"KMBP";
/// The format this build writes.
pub const PREPARE_VERSION: u16 = 1;

/// A decoded prepare header. Its checksum is the op's identity: the next op names it as parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareHeader {
    /// BLAKE3 of the rest of the header; through the body checksum it covers the whole prepare.
    pub checksum: Checksum,
    /// BLAKE3 of the body.
    pub body_checksum: Checksum,
    /// The checksum of the op before this one.
    pub parent: Checksum,
    /// The hash of the last entry of the log up to and including this prepare.
    pub chain: ChainHash,
    /// The cluster.
    pub cluster: ClusterId,
    /// Which op this is.
    pub op: Op,
    /// The view in which it was proposed. Later views carry it on unchanged.
    pub view: View,
    /// What the proposer knew to be committed: at least `op - pipeline`.
    pub commit: Op,
    /// When it was proposed; strictly increasing along the log.
    pub timestamp: WallTime,
    /// Where it stands in the log zone, in bytes.
    pub place: u64,
    /// Bytes of header and body.
    pub size: u32,
    /// Entries in the body.
    pub entries: u32,
    /// Who proposed it.
    pub proposer: ReplicaId,
    /// How many prepares stand before it in its segment.
    pub index: u32,
}

impl PrepareHeader {
    /// Where [`PrepareHeader::place`] stands in an encoded header.
    pub const PLACE_AT: usize = 176;

    /// Op 0, which every log starts from. Never stored as a prepare; the first prepare names it as parent.
    pub fn root(cluster: ClusterId) -> Self {
        let mut root = Self {
            checksum: Checksum::ZERO,
            body_checksum: checksum(&[]),
            parent: Checksum::ZERO,
            chain: ChainHash::GENESIS,
            cluster,
            op: Op::ZERO,
            view: View::ZERO,
            commit: Op::ZERO,
            timestamp: WallTime(0),
            place: 0,
            size: PREPARE_HEADER_SIZE as u32,
            entries: 0,
            proposer: ReplicaId(0),
            index: 0,
        };
        root.checksum = root.checksum_of();
        root
    }

    fn checksum_of(&self) -> Checksum {
        checksum(&self.encode()[32..])
    }

    /// Whether the numbers are within their limits and the checksum is theirs: a header that came alone must be
    /// asked this.
    pub fn is_sound(&self) -> bool {
        self.is_sane() && self.checksum == self.checksum_of()
    }

    /// Where the next prepare would start if it stood right behind this one.
    pub fn end(&self) -> u64 {
        if self.op == Op::ZERO { 0 } else { self.place + sectors(u64::from(self.size)) }
    }

    /// The 512 bytes of this header.
    pub fn encode(&self) -> [u8; PREPARE_HEADER_SIZE] {
        let mut head = [0; PREPARE_HEADER_SIZE];
        put(&mut head, 0, self.checksum.as_bytes());
        put(&mut head, 32, self.body_checksum.as_bytes());
        put(&mut head, 64, self.parent.as_bytes());
        put(&mut head, 96, self.chain.as_bytes());
        put_u128(&mut head, 128, self.cluster.0);
        put_u64(&mut head, 144, self.op.0);
        put_u64(&mut head, 152, self.view.0);
        put_u64(&mut head, 160, self.commit.0);
        put_u64(&mut head, 168, self.timestamp.0);
        put_u64(&mut head, Self::PLACE_AT, self.place);
        put_u32(&mut head, 184, self.size);
        put_u32(&mut head, 188, self.entries);
        put(&mut head, 192, &PREPARE_MAGIC);
        put_u16(&mut head, 196, PREPARE_VERSION);
        head[198] = self.proposer.0;
        put_u32(&mut head, 264, self.index);
        head
    }

    /// Reads a header from the first 512 bytes of `bytes` and verifies its checksum.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let head = bytes.get(..PREPARE_HEADER_SIZE).ok_or(Malformed::Short)?;
        if head[192..196] != PREPARE_MAGIC {
            return Err(Malformed::Magic);
        }
        let own = Checksum::from_bytes(bytes_at(head, 0));
        if own != checksum(&head[32..]) && !mutant!(TornHeaderAccepted) {
            return Err(Malformed::HeaderChecksum);
        }
        let version = u16_at(head, 196);
        if version != PREPARE_VERSION {
            return Err(Malformed::Version { found: version });
        }
        if !is_zero(&head[199..264]) || !is_zero(&head[268..]) {
            return Err(Malformed::Reserved);
        }
        let header = Self {
            checksum: own,
            body_checksum: Checksum::from_bytes(bytes_at(head, 32)),
            parent: Checksum::from_bytes(bytes_at(head, 64)),
            chain: ChainHash::from_bytes(bytes_at(head, 96)),
            cluster: ClusterId(u128_at(head, 128)),
            op: Op(u64_at(head, 144)),
            view: View(u64_at(head, 152)),
            commit: Op(u64_at(head, 160)),
            timestamp: WallTime(u64_at(head, 168)),
            place: u64_at(head, Self::PLACE_AT),
            size: u32_at(head, 184),
            entries: u32_at(head, 188),
            proposer: ReplicaId(head[198]),
            index: u32_at(head, 264),
        };
        if header.is_sane() { Ok(header) } else { Err(Malformed::Size) }
    }

    /// Whether every number is within its limit.
    fn is_sane(&self) -> bool {
        self.size >= PREPARE_HEADER_SIZE as u32
            && self.size <= PREPARE_SIZE_LIMIT
            && self.entries <= ENTRIES_MAX
            && self.place.is_multiple_of(sectors(1))
            && self.place < u64::MAX / 2
            && self.op.0 < COUNTER_LIMIT
            && self.index < u32::MAX
            && self.view.0 < COUNTER_LIMIT
            && self.timestamp.0 < TIMESTAMP_LIMIT
            && self.commit <= self.op
    }

    /// Where the next prepare of `size` bytes stands, and its index in its segment: right behind this one,
    /// or at the start of the next segment when the segment's room for prepares, or its count of them,
    /// is used up. The first prepare of all stands at 0.
    pub fn next_place(&self, size: u32, layout: &Layout) -> (u64, u32) {
        if self.op == Op::ZERO {
            return (0, 0);
        }
        let segment = self.place / layout.segment_size;
        let room_end = segment * layout.segment_size + segment_room(layout);
        let index = self.index + 1;
        if self.end() + sectors(u64::from(size)) <= room_end && index < layout.segment_ops_max {
            (self.end(), index)
        } else {
            ((segment + 1) * layout.segment_size, 0)
        }
    }
}

/// Bytes at the start of each segment that hold prepares; the rest is the footer: one sector of header and
/// 64 bytes for each prepare.
pub const fn segment_room(layout: &Layout) -> u64 {
    layout.segment_size - footer_size(layout)
}

/// Bytes at the end of each segment that hold its footer.
pub const fn footer_size(layout: &Layout) -> u64 {
    sectors(1) + sectors(layout.segment_ops_max as u64 * 64)
}

/// What a prepare is made of, besides its entries.
#[derive(Clone, Copy, Debug)]
pub struct NewPrepare<'a> {
    /// The header of the op before.
    pub parent: &'a PrepareHeader,
    /// The view that proposes it.
    pub view: View,
    /// What is committed.
    pub commit: Op,
    /// When; must be later than the parent's.
    pub timestamp: WallTime,
    /// The layout, which says where in the log zone the prepare stands.
    pub layout: &'a Layout,
    /// Who proposes.
    pub proposer: ReplicaId,
}

/// A whole prepare, verified or made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The decoded header.
    pub header: PrepareHeader,
    /// Header and body; starts on a sector boundary, zeros behind it in memory.
    frame: Frame,
}

impl Prepare {
    /// Bytes of a prepare that carries commands of these lengths.
    pub fn size_of(commands: impl Iterator<Item = usize>) -> usize {
        PREPARE_HEADER_SIZE + commands.map(entry_size).sum::<usize>()
    }

    /// Makes a prepare of `entries`, in order.
    pub fn build(new: &NewPrepare<'_>, entries: &[NewEntry<'_>]) -> Self {
        assert!(new.timestamp > new.parent.timestamp, "time along the log strictly increases");
        let size = Self::size_of(entries.iter().map(|entry| entry.command.len()));
        assert!(size <= PREPARE_SIZE_LIMIT as usize, "a prepare respects its limit");
        let op = new.parent.op.next();
        let (place, index) = new.parent.next_place(size as u32, new.layout);
        let mut buf = Buf::zeroed(size);
        let mut chain = new.parent.chain;
        let mut at = PREPARE_HEADER_SIZE;
        for (n, entry) in entries.iter().enumerate() {
            let position = LogPosition { op, index: n as u32 };
            chain = entry::write(&mut buf[at..], entry, position, new.timestamp, &chain);
            at += entry_size(entry.command.len());
        }
        let mut header = PrepareHeader {
            checksum: Checksum::ZERO,
            body_checksum: checksum(&buf[PREPARE_HEADER_SIZE..]),
            parent: new.parent.checksum,
            chain,
            cluster: new.parent.cluster,
            op,
            view: new.view,
            commit: new.commit,
            timestamp: new.timestamp,
            place,
            size: size as u32,
            entries: entries.len() as u32,
            proposer: new.proposer,
            index,
        };
        header.checksum = header.checksum_of();
        buf[..PREPARE_HEADER_SIZE].copy_from_slice(&header.encode());
        Self { header, frame: buf.freeze() }
    }

    /// Reads a prepare from bytes that start with it and may be longer (padding). Verifies both
    /// checksums; whether the entries parse and chain is asked by [`Prepare::verify_chain`].
    pub fn parse(bytes: &Frame) -> Result<Self, Malformed> {
        UncheckedPrepare::new(PrepareHeader::decode(bytes)?, bytes)?.check()
    }

    /// Header and body, to send.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Header, body and zeros up to the sector boundary, to write. Copies only when the memory behind the
    /// prepare is not known to be zero, which never happens to one that came off the network or was built here.
    pub fn sectors(&self) -> Frame {
        if self.frame.is_aligned() {
            let padded = self.frame.padded();
            if is_zero(&padded[self.frame.len()..]) {
                return padded;
            }
        }
        Frame::copy_from(&self.frame).padded()
    }

    /// The entries, in order. An error ends the iteration.
    pub fn entries(&self) -> Entries<'_> {
        Entries { rest: &self.frame[PREPARE_HEADER_SIZE..], left: self.header.entries }
    }

    /// Whether the entries stand where they say, carry the prepare's time, and continue the chain from
    /// `previous` to this header's `chain`.
    pub fn verify_chain(&self, previous: &ChainHash) -> Result<(), Malformed> {
        let mut chain = *previous;
        let mut index = 0;
        for entry in self.entries() {
            let entry = entry?;
            let here = LogPosition { op: self.header.op, index };
            if entry.header.previous != chain
                || entry.header.position != here
                || entry.header.timestamp != self.header.timestamp
            {
                return Err(Malformed::Chain);
            }
            chain = entry.hash();
            index += 1;
        }
        if chain == self.header.chain && index == self.header.entries {
            Ok(())
        } else {
            Err(Malformed::Chain)
        }
    }
}

/// A prepare whose header is verified and whose body is not. It can be checked elsewhere: on another thread, say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncheckedPrepare {
    header: PrepareHeader,
    frame: Frame,
}

impl UncheckedPrepare {
    /// What stands at the start of `bytes`, which may be longer; `header` was decoded from there.
    pub fn new(header: PrepareHeader, bytes: &Frame) -> Result<Self, Malformed> {
        let size = header.size as usize;
        if bytes.len() < size {
            return Err(Malformed::Short);
        }
        Ok(Self { header, frame: bytes.slice(0..size) })
    }

    /// The header.
    pub fn header(&self) -> &PrepareHeader {
        &self.header
    }

    /// Verifies the body's checksum.
    pub fn check(self) -> Result<Prepare, Malformed> {
        let Self { header, frame } = self;
        let intact = checksum(&frame[PREPARE_HEADER_SIZE..]) == header.body_checksum;
        if !intact && !mutant!(TornBodyAccepted) {
            return Err(Malformed::BodyChecksum);
        }
        Ok(Prepare { header, frame })
    }
}

/// Iterates over the entries of a prepare.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let extra = !self.rest.is_empty();
            self.rest = &[];
            return extra.then_some(Err(Malformed::Size));
        }
        self.left -= 1;
        match entry::read(self.rest) {
            Ok((entry, rest)) => {
                self.rest = rest;
                Some(Ok(entry))
            }
            Err(malformed) => {
                self.rest = &[];
                self.left = 0;
                Some(Err(malformed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_types::{RequestNumber, SessionId, TenantId};

    fn build(commands: &[&[u8]]) -> Prepare {
        let root = PrepareHeader::root(ClusterId(1));
        let new = NewPrepare {
            parent: &root,
            view: View(3),
            commit: Op(0),
            timestamp: WallTime(5),
            layout: &Layout::SMALL,
            proposer: ReplicaId(0),
        };
        let entries: Vec<NewEntry<'_>> = commands
            .iter()
            .enumerate()
            .map(|(n, command)| NewEntry {
                session: SessionId::NONE,
                request: RequestNumber(n as u64),
                tenant: TenantId(4),
                command,
            })
            .collect();
        Prepare::build(&new, &entries)
    }

    #[test]
    fn a_prepare_survives_its_encoding() {
        let built = build(&[b"one", b"", b"a longer third command"]);
        let parsed = Prepare::parse(&built.sectors()).unwrap();
        assert_eq!(parsed, built);
        assert_eq!(parsed.verify_chain(&ChainHash::GENESIS), Ok(()));
        let commands: Vec<&[u8]> = parsed.entries().map(|entry| entry.unwrap().command).collect();
        assert_eq!(commands, [b"one".as_slice(), b"", b"a longer third command"]);
    }

    #[test]
    fn any_flipped_bit_of_a_prepare_is_noticed() {
        let built = build(&[b"payload"]);
        for bit in 0..built.frame().len() * 8 {
            let mut broken = built.frame().to_vec();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(Prepare::parse(&Frame::copy_from(&broken)).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_chain_that_starts_elsewhere_is_refused() {
        let built = build(&[b"payload"]);
        assert_eq!(built.verify_chain(&built.header.chain), Err(Malformed::Chain));
    }

    #[test]
    fn a_prepare_that_does_not_fit_starts_the_next_segment() {
        let layout = Layout::SMALL;
        let root = PrepareHeader::root(ClusterId(1));
        assert_eq!(root.next_place(600, &layout), (0, 0));
        let mut last = build(&[b"x"]).header;
        assert_eq!(last.next_place(600, &layout), (4096, 1));
        last.place = segment_room(&layout) - 4096;
        assert_eq!(last.next_place(600, &layout), (layout.segment_size, 0));
        last.place = 0;
        last.index = layout.segment_ops_max - 1;
        assert_eq!(last.next_place(600, &layout), (layout.segment_size, 0));
    }
}
