//! A virtual disk: latency, faults, and what a power cut leaves.
//!
//! The pristine image holds what the disk would hold had no fault ever damaged it. Damage lies over it,
//! sector by sector, until the sector is rewritten or the disk is healed. A write changes the image when
//! it completes; until then a read may see the old or the new bytes of each of its sectors, and a crash
//! keeps an arbitrary subset of its units.

use std::collections::BTreeMap;

use kimberlite_io::{Buf, Frame, Place, ReadFault, Token, WriteFault, Zone};
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{Instant, ReplicaId};

use crate::NodeId;
use crate::agenda::Due;
use crate::census::Fault;
use crate::dice::Concern;
use crate::ground::Ground;
use crate::image::{SECTOR, ZoneImage, zone_index};
use crate::rates::{DiskFault, DiskRates, Keep};

/// The sizes of a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) superblock_size: u64,
    pub(crate) headers_size: Option<u64>,
    pub(crate) segment_size: u64,
    pub(crate) tear_unit: usize,
}

/// What lies over a sector of the pristine image.
#[derive(Clone, Debug, Default)]
struct Damage {
    /// Stands instead of the pristine bytes.
    replaced: Option<Frame>,
    /// Flipped bits, counted from the start of the sector.
    flipped: Vec<u32>,
    /// Cannot be read.
    latent: bool,
}

enum Ask {
    Read { buf: Buf, fate: ReadFate },
    Write { data: Frame, fate: WriteFate },
    Trim,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadFate {
    Good,
    Failed,
    /// Reads from this offset instead.
    Elsewhere(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteFate {
    Good,
    NoSpace,
    Failed,
    Lost,
    /// Lands at this offset instead.
    Elsewhere(u64),
}

struct Op {
    id: u32,
    token: Token,
    place: Place,
    len: u64,
    ask: Ask,
}

impl Op {
    fn is_change(&self) -> bool {
        !matches!(self.ask, Ask::Read { .. })
    }

    fn overlaps(&self, place: Place, len: u64) -> bool {
        self.place.zone == place.zone
            && self.place.offset < place.offset + len
            && place.offset < self.place.offset + self.len
    }
}

/// The answer to an ask.
pub(crate) enum Answer {
    Read(Token, Result<Buf, ReadFault>),
    Written(Token, Result<(), WriteFault>),
    Trimmed(Token),
}

/// The questions a disk asks its dice, one lane each, so that none shifts another.
#[derive(Clone, Copy)]
enum Question {
    Latency,
    Stall,
    ReadError,
    Latent,
    Rot,
    MisdirectedRead,
    WriteError,
    SyncError,
    Phantom,
    MisdirectedWrite,
    NoSpace,
    Target,
    Detail,
    InFlight,
    Tear,
}

/// The disk of one node.
pub struct SimDisk {
    node: NodeId,
    geometry: Geometry,
    /// Speed and rates, for the policy to change at any time.
    pub rates: DiskRates,
    /// What the next power cut leaves of the writes in flight.
    pub keep: Keep,
    zones: [ZoneImage; 4],
    damage: BTreeMap<(Zone, u64), Damage>,
    ops: Vec<Op>,
    ops_made: u32,
    changes_in_flight: u32,
    /// Faults asked for, in one zone or in any.
    armed: Vec<(DiskFault, Option<Zone>)>,
    stalled_until: u64,
    sectors_max: Option<u64>,
}

impl SimDisk {
    pub(crate) fn new(node: NodeId, geometry: Geometry) -> Self {
        assert!([512, SECTOR_SIZE].contains(&geometry.tear_unit), "disks tear at 512 or 4,096 bytes");
        Self {
            node,
            geometry,
            rates: DiskRates::HEALTHY,
            keep: Keep::Luck,
            zones: Self::blank(geometry),
            damage: BTreeMap::new(),
            ops: Vec::new(),
            ops_made: 0,
            changes_in_flight: 0,
            armed: Vec::new(),
            stalled_until: 0,
            sectors_max: None,
        }
    }

    fn blank(geometry: Geometry) -> [ZoneImage; 4] {
        [
            ZoneImage::new(Some(geometry.superblock_size), SECTOR),
            ZoneImage::new(geometry.headers_size, SECTOR),
            ZoneImage::new(None, geometry.segment_size),
            ZoneImage::new(None, SECTOR),
        ]
    }

    /// Lets operations end only after `until`, those asked before included if they have not ended.
    pub fn stall(&mut self, until: Instant) {
        self.stalled_until = self.stalled_until.max(until.0);
    }

    /// Allows `bytes` of stored sectors at most; writes that need more find no space. `None`: no limit.
    pub fn limit(&mut self, bytes: Option<u64>) {
        self.sectors_max = bytes.map(|bytes| bytes / SECTOR);
    }

    /// Asks for a fault at the next operation it fits.
    pub fn arm(&mut self, fault: DiskFault) {
        self.armed.push((fault, None));
    }

    /// The same, at the next operation in this zone.
    pub fn arm_in(&mut self, zone: Zone, fault: DiskFault) {
        self.armed.push((fault, Some(zone)));
    }

    /// Changes in flight in one zone.
    pub fn changes_in(&self, zone: Zone) -> usize {
        self.ops.iter().filter(|op| op.is_change() && op.place.zone == zone).count()
    }

    /// Ends every fault: damage is taken off the pristine image, rates, stalls and limits are lifted.
    pub fn heal(&mut self) {
        self.damage.clear();
        self.armed.clear();
        self.stalled_until = 0;
        self.sectors_max = None;
        let DiskRates { read_min, read_mean, write_min, write_mean, .. } = self.rates;
        self.rates = DiskRates { read_min, read_mean, write_min, write_mean, ..DiskRates::HEALTHY };
    }

    /// What a read would find if nothing failed: damage included, work in flight not. Zeros where
    /// nothing was written. Any alignment.
    pub fn peek(&self, zone: Zone, offset: u64, len: usize) -> Vec<u8> {
        self.copy_out(zone, offset, len, Self::visible)
    }

    /// What would be there had no fault damaged it.
    pub fn peek_pristine(&self, zone: Zone, offset: u64, len: usize) -> Vec<u8> {
        self.copy_out(zone, offset, len, |disk, zone, number| {
            disk.zones[zone_index(zone)].sector(number).cloned().unwrap_or_default()
        })
    }

    /// Whether a sector of this part of a zone cannot be read.
    pub fn is_unreadable(&self, zone: Zone, offset: u64, len: usize) -> bool {
        let sectors = offset / SECTOR..(offset + len as u64).div_ceil(SECTOR);
        self.damage.range((zone, sectors.start)..(zone, sectors.end)).any(|(_, damage)| damage.latent)
    }

    /// The end of what was ever written in a zone, in bytes.
    pub fn extent(&self, zone: Zone) -> u64 {
        self.zones[zone_index(zone)].extent()
    }

    /// Sectors with damage on them.
    pub fn damaged_sectors(&self) -> impl Iterator<Item = Place> + '_ {
        self.damage.keys().map(|(zone, number)| Place { zone: *zone, offset: number * SECTOR })
    }

    /// Bytes of memory this disk takes, roughly: frames shared with others are counted here as well.
    pub fn memory(&self) -> u64 {
        self.zones.iter().map(ZoneImage::memory).sum::<u64>() + self.damage.len() as u64 * SECTOR
    }

    /// Reads and changes in flight.
    pub fn in_flight(&self) -> (usize, usize) {
        let changes = self.changes_in_flight as usize;
        (self.ops.len() - changes, changes)
    }

    fn copy_out(
        &self,
        zone: Zone,
        offset: u64,
        len: usize,
        look: impl Fn(&Self, Zone, u64) -> Frame,
    ) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        let end = offset + len as u64;
        let mut at = offset;
        while at < end {
            let stop = ((at / SECTOR + 1) * SECTOR).min(end);
            let sector = look(self, zone, at / SECTOR);
            let part = (at % SECTOR) as usize..(at % SECTOR + stop - at) as usize;
            match sector.get(part) {
                Some(part) => bytes.extend_from_slice(part),
                None => bytes.resize(bytes.len() + (stop - at) as usize, 0),
            }
            at = stop;
        }
        bytes
    }

    /// A sector as it reads; empty for zeros.
    fn visible(&self, zone: Zone, number: u64) -> Frame {
        let pristine = || self.zones[zone_index(zone)].sector(number).cloned().unwrap_or_default();
        if self.damage.is_empty() {
            return pristine();
        }
        let Some(damage) = self.damage.get(&(zone, number)) else { return pristine() };
        let base = damage.replaced.clone().unwrap_or_else(pristine);
        if damage.flipped.is_empty() {
            return base;
        }
        let mut buf = owned(&base);
        for bit in &damage.flipped {
            buf[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        buf.freeze()
    }

    const fn lane(&self, question: Question) -> u64 {
        self.node.0 as u64 * 16 + question as u64
    }

    fn chance(&self, ground: &mut Ground, question: Question, ppm: u32) -> bool {
        ground.dice.chance_ppm(Concern::Disk, self.lane(question), ppm)
    }

    const fn replica(&self) -> ReplicaId {
        ReplicaId(if self.node.0 > 255 { 255 } else { self.node.0 as u8 })
    }

    // Asks.

    pub(crate) fn read(&mut self, ground: &mut Ground, token: Token, place: Place, buf: Buf) {
        let len = buf.len() as u64;
        self.check(token, place, len);
        let fate = self.read_fate(ground, place, len);
        let times = (self.rates.read_min, self.rates.read_mean);
        self.enqueue(ground, times, token, place, len, Ask::Read { buf, fate });
    }

    pub(crate) fn write(&mut self, ground: &mut Ground, token: Token, place: Place, data: Frame) {
        let len = data.len() as u64;
        self.check(token, place, len);
        assert!(data.is_aligned(), "written bytes start on a sector boundary in memory");
        self.check_change(place, len);
        let fate = self.write_fate(ground, place, len);
        let times = (self.rates.write_min, self.rates.write_mean);
        self.enqueue(ground, times, token, place, len, Ask::Write { data, fate });
    }

    pub(crate) fn trim(&mut self, ground: &mut Ground, token: Token, place: Place, len: u64) {
        self.check(token, place, len);
        self.check_change(place, len);
        let times = (self.rates.write_min, self.rates.write_mean);
        self.enqueue(ground, times, token, place, len, Ask::Trim);
    }

    fn check(&self, token: Token, place: Place, len: u64) {
        assert!(place.is_aligned(), "{place} is not on a sector boundary");
        assert!(len > 0 && len.is_multiple_of(SECTOR), "{len} bytes at {place} are not whole sectors");
        assert!(place.offset.checked_add(len).is_some(), "{place} lies beyond every disk");
        assert!(self.ops.iter().all(|op| op.token != token), "{token:?} is in flight already");
    }

    fn check_change(&self, place: Place, len: u64) {
        let overlap = self.ops.iter().find(|op| op.is_change() && op.overlaps(place, len));
        assert!(overlap.is_none(), "{len} bytes at {place} overlap a write in flight");
        let room = self.zones[zone_index(place.zone)].has_room(place.offset, len);
        assert!(room, "{len} bytes at {place} lie outside the zone");
    }

    fn enqueue(
        &mut self,
        ground: &mut Ground,
        (min, mean): (u64, u64),
        token: Token,
        place: Place,
        len: u64,
        ask: Ask,
    ) {
        let drawn = ground.dice.exponential(Concern::Disk, self.lane(Question::Latency), mean);
        let latency = (min + drawn) * u64::from(self.rates.slow_factor);
        if self.rates.slow_factor > 1 {
            ground.disk_fault(self.node, Fault::DiskSlow, place);
        }
        if self.chance(ground, Question::Stall, self.rates.stall_ppm) {
            let mean = self.rates.stall_mean;
            let wait = ground.dice.exponential(Concern::Disk, self.lane(Question::Detail), mean);
            self.stalled_until = self.stalled_until.max(ground.time + wait);
        }
        self.ops_made = self.ops_made.wrapping_add(1);
        let op = Op { id: self.ops_made, token, place, len, ask };
        self.changes_in_flight += u32::from(op.is_change());
        ground.agenda.add(ground.time + latency, Due::Disk { node: self.node.0, op: op.id });
        self.ops.push(op);
    }

    // Fates.

    /// Whether a fault is due, by rate or because it was asked for.
    fn strikes(
        &self,
        ground: &mut Ground,
        (question, ppm): (Question, u32),
        zone: Zone,
        fault: DiskFault,
    ) -> bool {
        self.chance(ground, question, ppm) || self.armed_at(zone, fault).is_some()
    }

    /// Where a fault that was asked for and fits stands in the list.
    fn armed_at(&self, zone: Zone, fault: DiskFault) -> Option<usize> {
        self.armed.iter().position(|(armed, at)| *armed == fault && at.is_none_or(|at| at == zone))
    }

    /// Notes that a fault struck: it is no longer asked for.
    fn struck(&mut self, ground: &mut Ground, place: Place, fault: DiskFault) {
        if let Some(index) = self.armed_at(place.zone, fault) {
            self.armed.remove(index);
        }
        let fault = match fault {
            DiskFault::WriteError => Fault::WriteError,
            DiskFault::SyncError => Fault::SyncError,
            DiskFault::PhantomWrite => Fault::PhantomWrite,
            DiskFault::MisdirectedWrite => Fault::MisdirectedWrite,
            DiskFault::ReadError => Fault::ReadError,
            DiskFault::MisdirectedRead => Fault::MisdirectedRead,
        };
        ground.disk_fault(self.node, fault, place);
    }

    fn read_fate(&mut self, ground: &mut Ground, place: Place, len: u64) -> ReadFate {
        let rates = self.rates;
        let error = self.strikes(
            ground,
            (Question::ReadError, rates.read_error_ppm),
            place.zone,
            DiskFault::ReadError,
        );
        let misdirected = self.strikes(
            ground,
            (Question::MisdirectedRead, rates.misdirected_read_ppm),
            place.zone,
            DiskFault::MisdirectedRead,
        );
        let latent = self.chance(ground, Question::Latent, rates.latent_error_ppm);
        let rot = self.chance(ground, Question::Rot, rates.bit_rot_ppm);
        if !(error || misdirected || latent || rot) {
            return ReadFate::Good;
        }
        if latent || rot {
            let index = ground.dice.draw(Concern::Disk, self.lane(Question::Detail), len / SECTOR);
            let sector = Place { zone: place.zone, offset: place.offset + index * SECTOR };
            if latent {
                self.damage_latent(ground, sector);
            }
            if rot {
                let count = 1 + ground.dice.draw(Concern::Disk, self.lane(Question::Detail), 3);
                for _ in 0..count {
                    let bit = ground.dice.draw(Concern::Disk, self.lane(Question::Detail), SECTOR * 8);
                    self.damage_bit(ground, sector, bit as u32);
                }
            }
        }
        if (error || misdirected) && ground.atlas.permits(self.replica(), place, len) {
            if error {
                self.struck(ground, place, DiskFault::ReadError);
                return ReadFate::Failed;
            }
            if let Some(elsewhere) = self.elsewhere(ground, place, len, false) {
                self.struck(ground, place, DiskFault::MisdirectedRead);
                return ReadFate::Elsewhere(elsewhere);
            }
        }
        ReadFate::Good
    }

    fn write_fate(&mut self, ground: &mut Ground, place: Place, len: u64) -> WriteFate {
        let rates = self.rates;
        let no_space = self.chance(ground, Question::NoSpace, rates.no_space_ppm);
        let error = self.strikes(
            ground,
            (Question::WriteError, rates.write_error_ppm),
            place.zone,
            DiskFault::WriteError,
        );
        let sync = self.strikes(
            ground,
            (Question::SyncError, rates.sync_error_ppm),
            place.zone,
            DiskFault::SyncError,
        );
        let lost = self.strikes(
            ground,
            (Question::Phantom, rates.phantom_write_ppm),
            place.zone,
            DiskFault::PhantomWrite,
        );
        let misdirected = self.strikes(
            ground,
            (Question::MisdirectedWrite, rates.misdirected_write_ppm),
            place.zone,
            DiskFault::MisdirectedWrite,
        );
        if no_space || self.is_full(place, len) {
            ground.disk_fault(self.node, Fault::DiskFull, place);
            return WriteFate::NoSpace;
        }
        if error || sync {
            let fault = if error { DiskFault::WriteError } else { DiskFault::SyncError };
            self.struck(ground, place, fault);
            return WriteFate::Failed;
        }
        if (lost || misdirected) && ground.atlas.permits(self.replica(), place, len) {
            if lost {
                ground.atlas.spend(self.replica(), place, len);
                self.struck(ground, place, DiskFault::PhantomWrite);
                return WriteFate::Lost;
            }
            if let Some(elsewhere) = self.elsewhere(ground, place, len, true) {
                ground.atlas.spend(self.replica(), place, len);
                ground.atlas.spend(self.replica(), Place { zone: place.zone, offset: elsewhere }, len);
                self.struck(ground, place, DiskFault::MisdirectedWrite);
                return WriteFate::Elsewhere(elsewhere);
            }
        }
        WriteFate::Good
    }

    /// Whether a write would need more sectors than are left.
    fn is_full(&self, place: Place, len: u64) -> bool {
        let Some(max) = self.sectors_max else { return false };
        let zone = &self.zones[zone_index(place.zone)];
        let first = place.offset / SECTOR;
        let fresh = (first..first + len / SECTOR).filter(|number| zone.sector(*number).is_none()).count();
        let stored: u64 = self.zones.iter().map(ZoneImage::stored).sum();
        fresh > 0 && stored + fresh as u64 > max
    }

    /// Another place of the zone that a misdirected operation may touch instead: written before, not
    /// overlapping the right one, not in flight, and within the budget if it is to be damaged.
    fn elsewhere(&self, ground: &mut Ground, place: Place, len: u64, damage: bool) -> Option<u64> {
        /// Places tried before the disk gets it right after all.
        const TRIES: u32 = 16;
        let slots = (self.extent(place.zone).checked_sub(len)?) / SECTOR + 1;
        for _ in 0..TRIES {
            let offset = ground.dice.draw(Concern::Disk, self.lane(Question::Target), slots) * SECTOR;
            let target = Place { zone: place.zone, offset };
            let apart = offset + len <= place.offset || place.offset + len <= offset;
            let idle = !self.ops.iter().any(|op| op.is_change() && op.overlaps(target, len));
            let present = self.zones[zone_index(place.zone)].is_present(offset, len);
            let permitted = !damage || ground.atlas.permits(self.replica(), target, len);
            if apart && idle && present && permitted {
                return Some(offset);
            }
        }
        None
    }

    // Damage on request or by rate.

    /// Makes a sector unreadable, if the budget permits.
    pub(crate) fn damage_latent(&mut self, ground: &mut Ground, sector: Place) -> bool {
        if !ground.atlas.permits(self.replica(), sector, SECTOR) {
            return false;
        }
        ground.atlas.spend(self.replica(), sector, SECTOR);
        ground.disk_fault(self.node, Fault::LatentError, sector);
        self.damage.entry((sector.zone, sector.offset / SECTOR)).or_default().latent = true;
        true
    }

    /// Flips a bit of a sector, if the budget permits.
    pub(crate) fn damage_bit(&mut self, ground: &mut Ground, sector: Place, bit: u32) -> bool {
        if !ground.atlas.permits(self.replica(), sector, SECTOR) {
            return false;
        }
        let flipped = &mut self.damage.entry((sector.zone, sector.offset / SECTOR)).or_default().flipped;
        if flipped.contains(&bit) {
            return false;
        }
        flipped.push(bit);
        ground.atlas.spend(self.replica(), sector, SECTOR);
        ground.disk_fault(self.node, Fault::BitRot, sector);
        true
    }

    // Ends.

    /// Ends an operation, unless it died or has to wait.
    pub(crate) fn complete(&mut self, ground: &mut Ground, id: u32) -> Option<Answer> {
        let index = self.ops.iter().position(|op| op.id == id)?;
        if self.stalled_until > ground.time {
            ground.disk_fault(self.node, Fault::DiskStalled, self.ops[index].place);
            ground.agenda.add(self.stalled_until, Due::Disk { node: self.node.0, op: id });
            return None;
        }
        let Op { token, place, len, ask, .. } = self.ops.swap_remove(index);
        Some(match ask {
            Ask::Read { buf, fate } => Answer::Read(token, self.finish_read(ground, place, buf, fate)),
            Ask::Write { data, fate } => {
                self.changes_in_flight -= 1;
                Answer::Written(token, self.finish_write(ground, place, &data, fate))
            }
            Ask::Trim => {
                self.changes_in_flight -= 1;
                let first = place.offset / SECTOR;
                (first..first + len / SECTOR).for_each(|number| self.clear(place.zone, number));
                self.zones[zone_index(place.zone)].dig(place.offset, len);
                Answer::Trimmed(token)
            }
        })
    }

    fn finish_read(
        &self,
        ground: &mut Ground,
        place: Place,
        mut buf: Buf,
        fate: ReadFate,
    ) -> Result<Buf, ReadFault> {
        let offset = match fate {
            ReadFate::Good => place.offset,
            ReadFate::Failed => return Err(ReadFault::Failed),
            ReadFate::Elsewhere(offset) => offset,
        };
        let zone = place.zone;
        if !self.zones[zone_index(zone)].is_present(offset, buf.len() as u64) {
            return Err(ReadFault::Absent);
        }
        for (bytes, number) in buf.chunks_exact_mut(SECTOR_SIZE).zip(offset / SECTOR..) {
            if !self.damage.is_empty() && self.damage.get(&(zone, number)).is_some_and(|found| found.latent) {
                return Err(ReadFault::Failed);
            }
            let sector = self.in_flight_sector(ground, zone, number);
            let sector = sector.unwrap_or_else(|| self.visible(zone, number));
            if sector.is_empty() {
                bytes.fill(0);
            } else {
                bytes.copy_from_slice(&sector);
            }
        }
        Ok(buf)
    }

    /// The new bytes of a sector that is being written, if luck has it that they are seen already.
    fn in_flight_sector(&self, ground: &mut Ground, zone: Zone, number: u64) -> Option<Frame> {
        if self.changes_in_flight == 0 {
            return None;
        }
        let place = Place { zone, offset: number * SECTOR };
        let op = self.ops.iter().find(|op| op.is_change() && op.overlaps(place, SECTOR))?;
        let start = (place.offset - op.place.offset) as usize;
        let fresh = match &op.ask {
            Ask::Write { data, fate: WriteFate::Good | WriteFate::Failed } => {
                data.slice(start..start + SECTOR_SIZE)
            }
            _ => return None,
        };
        (ground.dice.draw(Concern::Disk, self.lane(Question::InFlight), 2) == 1).then_some(fresh)
    }

    fn finish_write(
        &mut self,
        ground: &mut Ground,
        place: Place,
        data: &Frame,
        fate: WriteFate,
    ) -> Result<(), WriteFault> {
        let first = place.offset / SECTOR;
        let numbers = first..first + data.len() as u64 / SECTOR;
        match fate {
            WriteFate::Good => {
                if !self.damage.is_empty() {
                    for number in numbers {
                        self.damage.remove(&(place.zone, number));
                    }
                }
                self.zones[zone_index(place.zone)].write(place.offset, data);
                Ok(())
            }
            WriteFate::NoSpace => {
                self.write_what_fits(ground, place, data);
                Err(WriteFault::NoSpace)
            }
            WriteFate::Failed => {
                self.keep_some(ground, Concern::Disk, self.lane(Question::Tear), place, data, Keep::Luck);
                Err(WriteFault::Failed)
            }
            WriteFate::Lost => {
                self.hide_behind_old(place, data);
                Ok(())
            }
            WriteFate::Elsewhere(offset) => {
                self.hide_behind_old(place, data);
                let target = offset / SECTOR..;
                for (start, number) in (0..data.len()).step_by(SECTOR_SIZE).zip(target) {
                    let stray = Frame::copy_from(&data[start..start + SECTOR_SIZE]);
                    let damage = Damage { replaced: Some(stray), ..Damage::default() };
                    self.damage.insert((place.zone, number), damage);
                }
                Ok(())
            }
        }
    }

    /// Writes whole sectors from the front, an arbitrary number of those there is room for.
    fn write_what_fits(&mut self, ground: &mut Ground, place: Place, data: &Frame) {
        let sectors = data.len() as u64 / SECTOR;
        let fitting = (0..=sectors).rev().find(|count| !self.is_full(place, count * SECTOR));
        let bound = fitting.map_or(1, |count| count + 1);
        let count = ground.dice.draw(Concern::Disk, self.lane(Question::Tear), bound);
        for number in place.offset / SECTOR..place.offset / SECTOR + count {
            self.damage.remove(&(place.zone, number));
        }
        self.zones[zone_index(place.zone)].write(place.offset, &data.slice(0..(count * SECTOR) as usize));
    }

    /// Writes to the pristine image, while what was visible stays visible.
    fn hide_behind_old(&mut self, place: Place, data: &Frame) {
        let first = place.offset / SECTOR;
        for number in first..first + data.len() as u64 / SECTOR {
            let old = owned(&self.visible(place.zone, number)).freeze();
            let damage = self.damage.entry((place.zone, number)).or_default();
            damage.replaced = Some(old);
            damage.flipped.clear();
        }
        self.zones[zone_index(place.zone)].write(place.offset, data);
    }

    fn clear(&mut self, zone: Zone, number: u64) {
        self.damage.remove(&(zone, number));
        self.zones[zone_index(zone)].clear(number);
    }

    /// The process died: reads vanish, every change in flight keeps an arbitrary subset of its units, or what
    /// [`SimDisk::keep`] says of writes.
    pub(crate) fn crash(&mut self, ground: &mut Ground) {
        for op in std::mem::take(&mut self.ops) {
            let lane = u64::from(self.node.0);
            match op.ask {
                Ask::Read { .. } | Ask::Write { fate: WriteFate::NoSpace, .. } => {}
                Ask::Write { data, .. } => {
                    let (kept, units) =
                        self.keep_some(ground, Concern::Crash, lane, op.place, &data, self.keep);
                    if kept == 0 {
                        ground.disk_fault(self.node, Fault::WriteDropped, op.place);
                    } else if kept < units {
                        ground.disk_fault(self.node, Fault::WriteTorn, op.place);
                    }
                }
                Ask::Trim => {
                    let first = op.place.offset / SECTOR;
                    let count = op.len / SECTOR;
                    let until = ground.dice.draw(Concern::Crash, lane, count + 1);
                    (first..first + until).for_each(|number| self.clear(op.place.zone, number));
                    self.zones[zone_index(op.place.zone)].dig(op.place.offset, until * SECTOR);
                }
            }
        }
        self.changes_in_flight = 0;
    }

    /// Keeps an arbitrary subset of a write's units: none, all, a front part, or each with its own luck.
    /// Returns how many of how many.
    fn keep_some(
        &mut self,
        ground: &mut Ground,
        concern: Concern,
        lane: u64,
        place: Place,
        data: &Frame,
        keep: Keep,
    ) -> (usize, usize) {
        let unit = self.geometry.tear_unit;
        let per_sector = SECTOR_SIZE / unit;
        let units = data.len() / unit;
        let drawn = ground.dice.draw(concern, lane, 6);
        let style = match keep {
            Keep::Luck => drawn,
            Keep::Nothing => 0,
            Keep::Everything => 1,
            Keep::Half => 3,
        };
        let front = ground.dice.index(concern, lane, units + 1);
        let mut kept_in_all = 0;
        let mut luck = 0;
        for sector in 0..data.len() / SECTOR_SIZE {
            let mut mask = 0_u32;
            for index in 0..per_sector {
                let number = sector * per_sector + index;
                let keep = match style {
                    0 => false,
                    1 => true,
                    2 => number < front,
                    _ => {
                        if number.is_multiple_of(32) {
                            luck = ground.dice.draw(concern, lane, 1 << 32);
                        }
                        luck >> (number % 32) & 1 == 1
                    }
                };
                mask |= u32::from(keep) << index;
            }
            kept_in_all += mask.count_ones() as usize;
            let bytes = &data[sector * SECTOR_SIZE..][..SECTOR_SIZE];
            self.merge(place.zone, place.offset / SECTOR + sector as u64, bytes, mask, unit);
        }
        (kept_in_all, units)
    }

    /// Overwrites the units of a sector that `mask` names.
    fn merge(&mut self, zone: Zone, number: u64, bytes: &[u8], mask: u32, unit: usize) {
        if mask == 0 {
            return;
        }
        let image = &mut self.zones[zone_index(zone)];
        if mask.count_ones() as usize == SECTOR_SIZE / unit {
            image.set(number, Frame::copy_from(bytes));
            self.damage.remove(&(zone, number));
            return;
        }
        let mixed = |old: &Frame| {
            let mut buf = owned(old);
            for index in (0..SECTOR_SIZE / unit).filter(|index| mask >> index & 1 == 1) {
                buf[index * unit..][..unit].copy_from_slice(&bytes[index * unit..][..unit]);
            }
            buf.freeze()
        };
        let pristine = mixed(&image.sector(number).cloned().unwrap_or_default());
        image.set(number, pristine);
        if let Some(damage) = self.damage.get_mut(&(zone, number)) {
            damage.replaced = damage.replaced.as_ref().map(mixed);
            damage.flipped.retain(|bit| mask >> (*bit as usize / 8 / unit) & 1 == 0);
        }
    }

    /// An empty disk of the same size takes this one's place. Nothing may be in flight.
    pub(crate) fn wipe(&mut self) {
        assert!(self.ops.is_empty(), "a disk is replaced while its node is down");
        self.zones = Self::blank(self.geometry);
        self.damage.clear();
    }
}

/// A copy of a sector; zeros for an empty one.
fn owned(sector: &Frame) -> Buf {
    if sector.is_empty() { Buf::zeroed(SECTOR_SIZE) } else { Buf::copy_from(sector) }
}
