//! A disk in memory: sectors that are there, sectors that cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kimberlite_io::{Ask, Buf, Event, Frame, Place, ReadFault, Token, WriteFault, Zone};
use kimberlite_types::limits::SECTOR_SIZE;

/// A sector's place: its zone and the offset of its first byte.
pub(crate) type Sector = (Zone, u64);

/// A power cut tears writes in units of this many bytes.
const TEAR_UNIT: usize = 512;

/// The sectors of one data directory. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Platter {
    sectors: BTreeMap<Sector, Arc<Vec<u8>>>,
    unreadable: BTreeSet<Sector>,
    /// Bytes of the header ring: a zone of fixed size, whose unwritten parts read as zeros.
    ring_size: u64,
}

impl Platter {
    pub(crate) fn new(ring_size: u64) -> Self {
        Self { ring_size, ..Self::default() }
    }

    /// Answers a read as it must be answered.
    pub(crate) fn read(&self, place: Place, len: usize) -> Result<Buf, ReadFault> {
        let mut buf = Buf::zeroed(len);
        for (sector, part) in sectors_of(place, len).zip(buf.chunks_mut(SECTOR_SIZE)) {
            if self.unreadable.contains(&sector) {
                return Err(ReadFault::Failed);
            }
            match self.sectors.get(&sector) {
                Some(bytes) => part.copy_from_slice(bytes),
                None if self.is_fixed(sector) => {}
                None => return Err(ReadFault::Absent),
            }
        }
        Ok(buf)
    }

    fn is_fixed(&self, (zone, offset): Sector) -> bool {
        match zone {
            Zone::Superblock => offset < SUPERBLOCK_ZONE_SIZE,
            Zone::Headers => offset < self.ring_size,
            Zone::Log | Zone::Grid => false,
        }
    }

    pub(crate) fn write(&mut self, place: Place, data: &Frame) {
        for (sector, bytes) in sectors_of(place, data.len()).zip(data.chunks(SECTOR_SIZE)) {
            self.put(sector, bytes);
        }
    }

    /// Answers an ask as a healthy disk does.
    pub(crate) fn answer(&mut self, ask: Ask) -> Event {
        match ask {
            Ask::Read { token, at, len } => Event::Read { token, result: self.read(at, len) },
            Ask::Write { token, at, data } => {
                self.write(at, &data);
                Event::Written { token, result: Ok(()) }
            }
            Ask::Trim { token, at, len } => {
                sectors_of(at, len as usize).for_each(|sector| drop(self.sectors.remove(&sector)));
                Event::Trimmed { token, result: Ok(()) }
            }
            _ => panic!("a disk is asked what disks do"),
        }
    }

    /// Of a write that was never answered, the units that `lands` permits are there afterwards.
    pub(crate) fn tear(&mut self, place: Place, data: &Frame, mut lands: impl FnMut() -> bool) {
        for (sector, bytes) in sectors_of(place, data.len()).zip(data.chunks(SECTOR_SIZE)) {
            let mut merged = self.content(sector);
            let mut any = false;
            for (old, new) in merged.chunks_mut(TEAR_UNIT).zip(bytes.chunks(TEAR_UNIT)) {
                if lands() {
                    old.copy_from_slice(new);
                    any = true;
                }
            }
            if any {
                self.put(sector, &merged);
            }
        }
    }

    /// What stands in a sector; zeros where nothing does.
    pub(crate) fn content(&self, sector: Sector) -> Vec<u8> {
        self.sectors.get(&sector).map_or_else(|| vec![0; SECTOR_SIZE], |bytes| bytes.to_vec())
    }

    /// The bytes of several sectors in a row.
    pub(crate) fn bytes(&self, place: Place, len: usize) -> Vec<u8> {
        sectors_of(place, len).flat_map(|sector| self.content(sector)).collect()
    }

    /// Puts one sector there, readable.
    pub(crate) fn put(&mut self, sector: Sector, bytes: &[u8]) {
        self.unreadable.remove(&sector);
        self.sectors.insert(sector, Arc::new(bytes.to_vec()));
    }

    pub(crate) fn put_all(&mut self, place: Place, bytes: &[u8]) {
        for (sector, bytes) in sectors_of(place, bytes.len()).zip(bytes.chunks(SECTOR_SIZE)) {
            self.put(sector, bytes);
        }
    }

    /// Makes a sector unreadable until it is written again.
    pub(crate) fn spoil(&mut self, sector: Sector) {
        self.unreadable.insert(sector);
    }

    /// The written sectors of a zone, in order.
    pub(crate) fn written(&self, zone: Zone) -> Vec<Sector> {
        self.sectors.keys().filter(|sector| sector.0 == zone).copied().collect()
    }
}

/// Bytes of the superblock zone.
const SUPERBLOCK_ZONE_SIZE: u64 =
    (kimberlite_types::limits::SUPERBLOCK_COPIES * kimberlite_types::limits::SUPERBLOCK_COPY_SIZE) as u64;

fn sectors_of(place: Place, len: usize) -> impl Iterator<Item = Sector> {
    (0..len / SECTOR_SIZE).map(move |index| (place.zone, place.offset + (index * SECTOR_SIZE) as u64))
}

/// An answer that says no.
pub(crate) fn fault(ask: &Ask, no_space: bool) -> Event {
    let refused = |token: Token| {
        let why = if no_space { WriteFault::NoSpace } else { WriteFault::Failed };
        (token, Err(why))
    };
    match ask {
        Ask::Read { token, .. } => Event::Read { token: *token, result: Err(ReadFault::Failed) },
        Ask::Write { token, .. } => {
            let (token, result) = refused(*token);
            Event::Written { token, result }
        }
        Ask::Trim { token, .. } => {
            let (token, result) = refused(*token);
            Event::Trimmed { token, result }
        }
        _ => panic!("a disk is asked what disks do"),
    }
}
