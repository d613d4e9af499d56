//! What is on a medium: sparse sectors, by zone.

use std::collections::{BTreeMap, BTreeSet};

use kimberlite_io::{Frame, Zone};
use kimberlite_types::limits::SECTOR_SIZE;

/// A sector, in bytes.
pub(crate) const SECTOR: u64 = SECTOR_SIZE as u64;

/// Sectors kept together.
const CHUNK_SECTORS: u64 = 64;

/// A write up to this size is kept as it was handed over, shared with whoever made it; a larger one is
/// copied in parts of this size, so that one sector never keeps a large frame alive.
const SHARED_SIZE_MAX: usize = 64 << 10;

type Chunk = Box<[Option<Frame>; CHUNK_SECTORS as usize]>;

/// One zone of a disk.
pub(crate) struct ZoneImage {
    chunks: BTreeMap<u64, Chunk>,
    /// Bytes of the zone, when they are fixed and formatted from the start.
    fixed: Option<u64>,
    /// Bytes the zone grows by.
    step: u64,
    /// The end of the last step that was ever written.
    extent: u64,
    /// Steps that were given back whole.
    holes: BTreeSet<u64>,
    stored: u64,
}

impl ZoneImage {
    pub(crate) fn new(fixed: Option<u64>, step: u64) -> Self {
        let extent = fixed.unwrap_or(0);
        Self { chunks: BTreeMap::new(), fixed, step, extent, holes: BTreeSet::new(), stored: 0 }
    }

    /// Whether all of `len` bytes at `offset` may be written.
    pub(crate) fn has_room(&self, offset: u64, len: u64) -> bool {
        self.fixed.is_none_or(|size| offset.checked_add(len).is_some_and(|end| end <= size))
    }

    /// Whether all of `len` bytes at `offset` were written or lie beside what was.
    pub(crate) fn is_present(&self, offset: u64, len: u64) -> bool {
        let Some(end) = offset.checked_add(len) else { return false };
        if end > self.extent {
            return false;
        }
        self.holes.is_empty() || self.holes.range(offset / self.step..=(end - 1) / self.step).next().is_none()
    }

    pub(crate) const fn extent(&self) -> u64 {
        self.extent
    }

    /// Sectors that hold bytes.
    pub(crate) const fn stored(&self) -> u64 {
        self.stored
    }

    /// The bytes of a sector; nothing if they are zeros.
    pub(crate) fn sector(&self, number: u64) -> Option<&Frame> {
        self.chunks.get(&(number / CHUNK_SECTORS))?[(number % CHUNK_SECTORS) as usize].as_ref()
    }

    /// Sets a sector.
    pub(crate) fn set(&mut self, number: u64, bytes: Frame) {
        assert_eq!(bytes.len(), SECTOR_SIZE, "a sector has one size");
        self.extent = self.extent.max(((number + 1) * SECTOR).next_multiple_of(self.step));
        if !self.holes.is_empty() {
            self.holes.remove(&(number * SECTOR / self.step));
        }
        let chunk = self
            .chunks
            .entry(number / CHUNK_SECTORS)
            .or_insert_with(|| Box::new([const { None }; CHUNK_SECTORS as usize]));
        let slot = &mut chunk[(number % CHUNK_SECTORS) as usize];
        self.stored += u64::from(slot.is_none());
        *slot = Some(bytes);
    }

    /// Sets all sectors of `data`, which is kept rather than copied where that wastes little.
    pub(crate) fn write(&mut self, offset: u64, data: &Frame) {
        for (part, start) in data.chunks(SHARED_SIZE_MAX).zip((0..).step_by(SHARED_SIZE_MAX)) {
            let kept = if data.held() <= SHARED_SIZE_MAX + SECTOR_SIZE {
                data.slice(start..start + part.len())
            } else {
                Frame::copy_from(part)
            };
            for at in (0..part.len()).step_by(SECTOR_SIZE) {
                let number = (offset + (start + at) as u64) / SECTOR;
                self.set(number, kept.slice(at..at + SECTOR_SIZE));
            }
        }
    }

    /// Forgets one sector: it reads zeros.
    pub(crate) fn clear(&mut self, number: u64) {
        if let Some(chunk) = self.chunks.get_mut(&(number / CHUNK_SECTORS)) {
            let had = chunk[(number % CHUNK_SECTORS) as usize].take().is_some();
            self.stored -= u64::from(had);
        }
    }

    /// Marks the steps that lie wholly inside a range as never written.
    pub(crate) fn dig(&mut self, offset: u64, len: u64) {
        if self.fixed.is_some() {
            return;
        }
        let end = (offset + len).min(self.extent);
        for step in offset.div_ceil(self.step)..end / self.step {
            self.holes.insert(step);
        }
    }

    /// Bytes of memory, roughly.
    pub(crate) fn memory(&self) -> u64 {
        self.stored * SECTOR + self.chunks.len() as u64 * (CHUNK_SECTORS * 24)
    }
}

/// The number of a zone.
pub(crate) const fn zone_index(zone: Zone) -> usize {
    match zone {
        Zone::Superblock => 0,
        Zone::Headers => 1,
        Zone::Log => 2,
        Zone::Grid => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_zone_is_present_up_to_its_last_step_and_absent_behind() {
        let mut zone = ZoneImage::new(None, 4 * SECTOR);
        assert!(!zone.is_present(0, SECTOR));
        zone.write(5 * SECTOR, &Frame::copy_from(&[1; SECTOR_SIZE]));
        assert!(zone.is_present(0, 8 * SECTOR));
        assert!(!zone.is_present(7 * SECTOR, 2 * SECTOR));
        assert!(!zone.is_present(u64::MAX, SECTOR));
        assert!(zone.sector(4).is_none() && zone.sector(5).is_some());
        zone.dig(0, 6 * SECTOR);
        assert!(!zone.is_present(0, SECTOR));
        assert!(zone.is_present(4 * SECTOR, SECTOR));
    }

    #[test]
    fn a_small_write_is_shared_and_a_large_one_is_kept_in_small_parts() {
        let mut zone = ZoneImage::new(None, SECTOR);
        let small = Frame::copy_from(&[1; 2 * SECTOR_SIZE]);
        zone.write(0, &small);
        assert_eq!(zone.sector(1).unwrap().as_ptr(), small[SECTOR_SIZE..].as_ptr());
        zone.write(0, &Frame::copy_from(&vec![2; 1 << 20]));
        assert!(zone.sector(200).unwrap().held() <= SHARED_SIZE_MAX + SECTOR_SIZE);
        assert_eq!(zone.stored(), 256);
        assert_eq!(zone.sector(255).unwrap()[..], [2; SECTOR_SIZE]);
    }
}
