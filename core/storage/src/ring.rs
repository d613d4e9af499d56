//! The header ring: what was acknowledged, in case the prepare itself is lost.
//!
//! Slot `op mod slots` is 512 bytes: the header of the last durable prepare that came by, exactly as it
//! stands in front of the prepare, or the reserved entry it was formatted with:
//!
//! ```text
//!   0  checksum [32]: BLAKE3 of bytes 32..512      32  zero [96]
//! 128  cluster u128    144  slot u64    152  op u64: 0    160  zero [32]
//! 192  magic "KMBR"    196  version u16                   198  zero [314]
//! ```
//!
//! A slot that was damaged after its op had been sealed is written as a reserved entry with that op in it: what the header
//! was only the segment knows, but that the op was held must not be forgotten, in case segment and footer are lost as well.
//!
//! A slot that is neither is bad, and says nothing. Eight slots share a sector, which is written as one: at most one write of a
//! sector is in flight, and slots set meanwhile go out with the next.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use kimberlite_crypto::{Checksum, checksum};
use kimberlite_io::{Frame, Io, Place};
use kimberlite_probe::mutant;
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SECTOR_SIZE};
use kimberlite_types::{ClusterId, Layout, Op, View};
use kimberlite_wire::PrepareHeader;

use crate::asks::{Asks, WriteFor};
use crate::bytes::{bytes_at, is_zero, put, put_u16, put_u64, put_u128, u16_at, u64_at, u128_at};

/// The mark of a reserved slot.
pub(crate) const RESERVED_MAGIC: [u8; 4] = *b"KMBR";
/// The format this build writes.
pub(crate) const RING_VERSION: u16 = 1;

/// Slots in one sector.
pub(crate) const SLOTS_PER_SECTOR: u32 = (SECTOR_SIZE / PREPARE_HEADER_SIZE) as u32;

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The header of a prepare that was durable.
    Header(PrepareHeader),
    /// No prepare has come by yet.
    Reserved,
    /// This op was sealed; its header was lost with the slot.
    Sealed(Op),
    /// Unreadable, or not what was written.
    Bad,
}

/// The bytes a slot is formatted with.
pub(crate) fn reserved(cluster: ClusterId, slot: u32) -> [u8; PREPARE_HEADER_SIZE] {
    without_header(cluster, slot, Op::ZERO)
}

/// A slot without a header: of a sealed op, or reserved if it is zero.
fn without_header(cluster: ClusterId, slot: u32, sealed: Op) -> [u8; PREPARE_HEADER_SIZE] {
    let mut bytes = [0; PREPARE_HEADER_SIZE];
    put_u128(&mut bytes, 128, cluster.0);
    put_u64(&mut bytes, 144, u64::from(slot));
    put_u64(&mut bytes, 152, sealed.0);
    put(&mut bytes, 192, &RESERVED_MAGIC);
    put_u16(&mut bytes, 196, RING_VERSION);
    let own = checksum(&bytes[32..]);
    put(&mut bytes, 0, own.as_bytes());
    bytes
}

/// Reads the bytes of slot `slot`. A sound header in a slot that is not its own was misdirected, so it is bad.
pub(crate) fn decode_slot(bytes: &[u8], cluster: ClusterId, slot: u32, slots: u32) -> Slot {
    if bytes[192..196] == RESERVED_MAGIC {
        let sound = Checksum::from_bytes(bytes_at(bytes, 0)) == checksum(&bytes[32..PREPARE_HEADER_SIZE])
            && u128_at(bytes, 128) == cluster.0
            && u64_at(bytes, 144) == u64::from(slot)
            && is_zero(&bytes[160..192])
            && u16_at(bytes, 196) == RING_VERSION
            && is_zero(&bytes[198..PREPARE_HEADER_SIZE]);
        return match u64_at(bytes, 152) {
            0 if sound => Slot::Reserved,
            op if sound && op % u64::from(slots) == u64::from(slot) => Slot::Sealed(Op(op)),
            _ => Slot::Bad,
        };
    }
    match PrepareHeader::decode(bytes) {
        Ok(header)
            if header.cluster == cluster
                && header.op > Op::ZERO
                && header.op.0 % u64::from(slots) == u64::from(slot) =>
        {
            Slot::Header(header)
        }
        _ => Slot::Bad,
    }
}

/// The ring in memory, and which of its sectors are on their way to disk.
#[derive(Debug)]
pub(crate) struct Ring {
    cluster: ClusterId,
    slots: u32,
    image: Vec<u8>,
    /// Sectors to write, with the ops that wait for them.
    dirty: BTreeMap<u32, Vec<(Op, Checksum)>>,
    /// Sectors being written, with the ops that are in them for the first time.
    flying: BTreeMap<u32, Vec<(Op, Checksum)>>,
    /// Slots found bad at open and not written since.
    bad: BTreeSet<u32>,
}

impl Ring {
    /// A ring of which nothing is known: every slot is bad.
    pub(crate) fn unread(cluster: ClusterId, layout: &Layout) -> Self {
        Self {
            cluster,
            slots: layout.ring_slots,
            image: vec![0; usize::try_from(layout.ring_size()).expect("the ring fits in memory")],
            dirty: BTreeMap::new(),
            flying: BTreeMap::new(),
            bad: BTreeSet::new(),
        }
    }

    /// Takes bytes that were read at `offset` of the zone.
    pub(crate) fn load(&mut self, offset: u64, bytes: &[u8]) {
        put(&mut self.image, offset as usize, bytes);
    }

    /// Looks at every slot once. Answers the offsets of the bad ones. What they hold is not kept: it would be written
    /// again with the rest of its sector, and a header that strayed there would look like this replica's own.
    pub(crate) fn survey(&mut self) -> Vec<u64> {
        self.bad = (0..self.slots).filter(|slot| self.at(*slot) == Slot::Bad).collect();
        for slot in &self.bad {
            put(&mut self.image, *slot as usize * PREPARE_HEADER_SIZE, &[0; PREPARE_HEADER_SIZE]);
        }
        self.bad.iter().map(|slot| u64::from(*slot) * PREPARE_HEADER_SIZE as u64).collect()
    }

    /// Takes the word from reserved slots that cannot be right: behind the adopted head slots are issued in the order of
    /// ops, so one that names an op of the log view proves that none in front of it was never issued. Such a slot was lost
    /// when its op was sealed, and reserved; or its write was lost.
    pub(crate) fn distrust(&mut self, adopted: Op, log_view: View) {
        let named = (0..self.slots).filter_map(|slot| match self.at(slot) {
            Slot::Header(header) if header.op > adopted && header.view == log_view => Some(header.op),
            _ => None,
        });
        let Some(last) = named.max() else { return };
        let first = adopted.next().max(Op((last.0 + 1).saturating_sub(u64::from(self.slots))));
        for op in (first.0..last.0).map(Op) {
            if self.slot(op) == Slot::Reserved {
                kimberlite_probe::reachable!("ring.distrusts_reserved");
                let slot = self.slot_of(op);
                self.fill(slot, &[0; PREPARE_HEADER_SIZE]);
                self.bad.insert(slot);
            }
        }
    }

    /// The slots that are still bad.
    pub(crate) fn bad(&self) -> impl Iterator<Item = u32> {
        self.bad.iter().copied()
    }

    /// Whether the slot of `op` is still bad.
    pub(crate) fn is_bad(&self, op: Op) -> bool {
        self.bad.contains(&self.slot_of(op))
    }

    fn slot_of(&self, op: Op) -> u32 {
        (op.0 % u64::from(self.slots)) as u32
    }

    fn at(&self, slot: u32) -> Slot {
        let start = slot as usize * PREPARE_HEADER_SIZE;
        decode_slot(&self.image[start..start + PREPARE_HEADER_SIZE], self.cluster, slot, self.slots)
    }

    /// The place that the slot of `op` says, be it intact or not, of that op or of another.
    pub(crate) fn says_place(&self, op: Op) -> u64 {
        let start = self.slot_of(op) as usize * PREPARE_HEADER_SIZE;
        u64_at(&self.image, start + PrepareHeader::PLACE_AT)
    }

    /// What the slot of `op` says.
    pub(crate) fn slot(&self, op: Op) -> Slot {
        self.at(self.slot_of(op))
    }

    /// How far ops behind `head` may have been acknowledged, when the first of them is lost; `view` is the lowest in
    /// which an op of this log behind `head` was proposed. Slots are written in the order of ops, so the first that is
    /// intact and does not name its op, nor a later one, ends it. A slot each: at most one round of the ring is
    /// looked at.
    pub(crate) fn doubt_behind(&self, head: Op, view: View) -> Op {
        let mut until = head;
        for _ in 0..self.slots {
            if mutant!(DoubtOneOp, until > head) {
                break;
            }
            let next = until.next();
            until = match self.slot(next) {
                Slot::Bad => next,
                Slot::Header(header) if header.op == next && header.view >= view => next,
                // A slot passes on only when its op is sealed.
                Slot::Header(PrepareHeader { op, .. }) if op > next => op,
                Slot::Sealed(op) if op >= next => op,
                Slot::Header(_) | Slot::Sealed(_) | Slot::Reserved => break,
            };
        }
        until
    }

    /// The lowest op behind `op` that a slot names and that was proposed in `view`.
    pub(crate) fn lowest_behind(&self, op: Op, view: View) -> Option<PrepareHeader> {
        let named = (0..self.slots).filter_map(|slot| match self.at(slot) {
            Slot::Header(header) if header.op > op && header.view == view => Some(header),
            _ => None,
        });
        named.min_by_key(|header| header.op)
    }

    /// The first op behind `op` that its slot denies: it is intact and names neither that op, of `view` or later, nor a
    /// later one. Slots are issued in the order of ops, so nothing behind it was acknowledged.
    pub(crate) fn denied_behind(&self, op: Op, view: View) -> Op {
        let slots = u64::from(self.slots);
        let denied = (0..self.slots).filter_map(|slot| {
            let from = match self.at(slot) {
                Slot::Bad => return None,
                Slot::Reserved => op.next().0,
                Slot::Sealed(sealed) => op.max(sealed).next().0,
                Slot::Header(header) if header.view >= view => op.max(header.op).next().0,
                Slot::Header(header) => op.next().max(header.op).0,
            };
            Some(Op(from + (u64::from(slot) + slots - from % slots) % slots))
        });
        denied.min().unwrap_or(Op(u64::MAX))
    }

    /// Makes a slot say nothing: its op was held, and is lost.
    pub(crate) fn spoil(&mut self, op: Op) {
        let slot = self.slot_of(op);
        self.fill(slot, &[0; PREPARE_HEADER_SIZE]);
        self.bad.insert(slot);
        self.dirty.entry(slot / SLOTS_PER_SECTOR).or_default();
    }

    /// Sets the slot of a prepare that is durable. [`Ring::written`] names it when the slot is, too.
    pub(crate) fn set(&mut self, header: &PrepareHeader) {
        let slot = self.slot_of(header.op);
        self.fill(slot, &header.encode());
        self.dirty.entry(slot / SLOTS_PER_SECTOR).or_default().push((header.op, header.checksum));
    }

    /// Sets a bad slot that no prepare owns back to its reserved entry.
    pub(crate) fn reserve(&mut self, slot: u32) {
        self.fill(slot, &reserved(self.cluster, slot));
        self.dirty.entry(slot / SLOTS_PER_SECTOR).or_default();
    }

    /// Sets the bad slot of a sealed op whose header is not known.
    pub(crate) fn seal(&mut self, op: Op) {
        let slot = self.slot_of(op);
        self.fill(slot, &without_header(self.cluster, slot, op));
        self.dirty.entry(slot / SLOTS_PER_SECTOR).or_default();
    }

    fn fill(&mut self, slot: u32, bytes: &[u8; PREPARE_HEADER_SIZE]) {
        self.bad.remove(&slot);
        put(&mut self.image, slot as usize * PREPARE_HEADER_SIZE, bytes);
    }

    /// Writes the dirty sectors that are not being written.
    pub(crate) fn pump(&mut self, asks: &mut Asks, io: &mut dyn Io) {
        let ready: Vec<u32> =
            self.dirty.keys().filter(|sector| !self.flying.contains_key(sector)).copied().collect();
        for sector in ready {
            let waiting = self.dirty.remove(&sector).expect("it was just listed");
            let start = sector as usize * SECTOR_SIZE;
            let data = Frame::copy_from(&self.image[start..start + SECTOR_SIZE]);
            asks.write(io, Place::headers(start as u64), data, WriteFor::Ring { sector });
            self.flying.insert(sector, waiting);
        }
    }

    /// A sector is durable. Answers the ops whose slots are, too.
    pub(crate) fn written(&mut self, sector: u32) -> Vec<(Op, Checksum)> {
        self.flying.remove(&sector).expect("a sector is answered once for each write")
    }

    /// Whether nothing is on its way to disk.
    pub(crate) fn is_quiet(&self) -> bool {
        self.dirty.is_empty() && self.flying.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sound header of this op and view; nothing else of it matters to a slot.
    fn header(op: u64, view: u64) -> PrepareHeader {
        let root = PrepareHeader::root(ClusterId(7));
        let mut header = PrepareHeader { op: Op(op), view: View(view), ..root };
        header.checksum = checksum(&header.encode()[32..]);
        header
    }

    #[test]
    fn a_reserved_slot_in_front_of_one_that_names_an_op_of_the_log_view_says_nothing() {
        let layout = Layout::SMALL;
        let ring = |named: &[PrepareHeader]| {
            let mut ring = Ring::unread(ClusterId(7), &layout);
            (0..layout.ring_slots).for_each(|slot| ring.reserve(slot));
            for header in named {
                ring.set(header);
            }
            ring.distrust(Op(3), View(2));
            ring
        };
        let contradicted = ring(&[header(5, 2), header(7, 2)]);
        assert_eq!(contradicted.bad().collect::<Vec<_>>(), [4, 6]);
        assert_eq!(contradicted.slot(Op(3)), Slot::Reserved);
        assert_eq!(contradicted.slot(Op(5)), Slot::Header(header(5, 2)));
        assert_eq!(contradicted.slot(Op(8)), Slot::Reserved);
        // What an older log left behind the adopted head proves nothing.
        assert_eq!(ring(&[header(7, 1)]).bad().count(), 0);
    }

    #[test]
    fn the_reserved_entry_never_changes_its_bytes() {
        let bytes = reserved(ClusterId(7), 9);
        assert_eq!(
            checksum(&bytes).to_string(),
            "0e70104072c47343c4f838d2b12f254759c91e9a7ace982ce0d14ccbf7796379"
        );
        assert_eq!(decode_slot(&bytes, ClusterId(7), 9, 64), Slot::Reserved);
        let bytes = without_header(ClusterId(7), 9, Op(73));
        assert_eq!(
            checksum(&bytes).to_string(),
            "01d3b73af6a93511544e065d6b45a98fae94b0d3987998bc5dd00a2debfcb68b"
        );
        assert_eq!(decode_slot(&bytes, ClusterId(7), 9, 64), Slot::Sealed(Op(73)));
        let elsewhere = without_header(ClusterId(7), 9, Op(74));
        assert_eq!(decode_slot(&elsewhere, ClusterId(7), 9, 64), Slot::Bad);
    }

    #[test]
    fn a_slot_of_another_place_or_cluster_or_with_a_flipped_bit_is_bad() {
        let bytes = reserved(ClusterId(7), 9);
        assert_eq!(decode_slot(&bytes, ClusterId(7), 8, 64), Slot::Bad);
        assert_eq!(decode_slot(&bytes, ClusterId(8), 9, 64), Slot::Bad);
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_slot(&broken, ClusterId(7), 9, 64), Slot::Bad, "bit {bit}");
        }
    }
}
