//! Tenants, their streams, and where in the log the records of each stand.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::iter::Enumerate;

use kimberlite_types::limits::NAME_SIZE_MAX;
use kimberlite_types::{Offset, Op, StreamId, TenantId};
use kimberlite_wire::command::{Command, RecordIter, Refusal};
use kimberlite_wire::prepare::Entries;
use kimberlite_wire::{Entry, Malformed, Prepare};
use serde::{Deserialize, Serialize};

use crate::digest::Item;
use crate::image::{StreamImage, TenantImage};
use crate::limits::{STREAMS_MAX, TENANTS_MAX};

/// The records that one accepted entry appended to a stream.
///
/// 24 bytes of memory for an entry of 128 bytes and more: the index is at most a sixth of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The offset of the first.
    pub first: Offset,
    /// The op whose prepare holds them.
    pub op: Op,
    /// The index of the entry within the prepare.
    pub entry: u32,
    /// How many, at least one.
    pub count: u32,
}

impl Extent {
    /// The offset after the last record.
    pub const fn end(&self) -> Offset {
        Offset(self.first.0 + self.count as u64)
    }
}

/// How a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its next offset, which is the number of its records.
    pub end: Offset,
}

/// Where the records of a stream stand, from some offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The stream's next offset.
    pub end: Offset,
    /// The extents up to `end`, by offset without gaps, and so by op and entry too. The first holds the
    /// offset asked for; empty if that lies at the end or behind it.
    pub extents: &'a [Extent],
}

#[derive(Clone, Debug)]
struct Tenant {
    name: Box<str>,
    streams: BTreeMap<StreamId, Stream>,
}

#[derive(Clone, Debug)]
struct Stream {
    name: Box<str>,
    extents: Vec<Extent>,
}

impl Stream {
    fn end(&self) -> Offset {
        self.extents.last().map_or(Offset::ZERO, Extent::end)
    }
}

/// All tenants and streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tenants {
    table: BTreeMap<TenantId, Tenant>,
    /// Streams of all tenants together.
    streams: u32,
}

impl Tenants {
    /// Whether the tenant may be created.
    pub(crate) fn check_tenant(&self, id: TenantId) -> Result<(), Refusal> {
        if self.table.contains_key(&id) {
            return Err(Refusal::TenantExists);
        }
        if self.table.len() >= TENANTS_MAX as usize {
            return Err(Refusal::TooMany);
        }
        Ok(())
    }

    /// Whether the tenant exists.
    pub(crate) fn check_exists(&self, id: TenantId) -> Result<(), Refusal> {
        if self.table.contains_key(&id) { Ok(()) } else { Err(Refusal::NoTenant) }
    }

    /// Whether the stream may be created.
    pub(crate) fn check_stream(&self, tenant: TenantId, id: StreamId) -> Result<(), Refusal> {
        let owner = self.table.get(&tenant).ok_or(Refusal::NoTenant)?;
        if owner.streams.contains_key(&id) {
            return Err(Refusal::StreamExists);
        }
        if self.streams >= STREAMS_MAX {
            return Err(Refusal::TooMany);
        }
        Ok(())
    }

    pub(crate) fn create_tenant(&mut self, id: TenantId, name: Box<str>) -> Item<'_> {
        let displaced = self.table.insert(id, Tenant { name, streams: BTreeMap::new() });
        assert!(displaced.is_none(), "only a tenant that does not exist is created");
        Item::Tenant { id, name: &self.table[&id].name }
    }

    pub(crate) fn create_stream(&mut self, tenant: TenantId, id: StreamId, name: Box<str>) -> Item<'_> {
        let streams = &mut self.table.get_mut(&tenant).expect("the stream's tenant exists").streams;
        let displaced = streams.insert(id, Stream { name, extents: Vec::new() });
        assert!(displaced.is_none(), "only a stream that does not exist is created");
        self.streams += 1;
        Item::Stream { tenant, id, name: &streams[&id].name }
    }

    pub(crate) fn append(&mut self, tenant: TenantId, stream: StreamId, extent: Extent) -> Item<'static> {
        let owner = self.table.get_mut(&tenant).expect("the stream's tenant exists");
        let target = owner.streams.get_mut(&stream).expect("the stream exists");
        assert_eq!(extent.first, target.end(), "records go to the end of their stream");
        assert!(extent.count > 0, "an extent is not empty");
        target.extents.push(extent);
        Item::Extent { tenant, stream, extent }
    }

    fn find(&self, tenant: TenantId, stream: StreamId) -> Result<&Stream, Refusal> {
        let owner = self.table.get(&tenant).ok_or(Refusal::NoTenant)?;
        owner.streams.get(&stream).ok_or(Refusal::NoStream)
    }

    pub(crate) fn streams(
        &self,
        tenant: TenantId,
        from: StreamId,
    ) -> Result<impl Iterator<Item = (StreamId, StreamState<'_>)>, Refusal> {
        let owner = self.table.get(&tenant).ok_or(Refusal::NoTenant)?;
        let states = owner.streams.range(from..);
        Ok(states.map(|(&id, stream)| (id, StreamState { name: &stream.name, end: stream.end() })))
    }

    pub(crate) fn stream(&self, tenant: TenantId, stream: StreamId) -> Result<StreamState<'_>, Refusal> {
        let found = self.find(tenant, stream)?;
        Ok(StreamState { name: &found.name, end: found.end() })
    }

    pub(crate) fn locate(
        &self,
        tenant: TenantId,
        stream: StreamId,
        from: Offset,
    ) -> Result<Located<'_>, Refusal> {
        let found = self.find(tenant, stream)?;
        let before = found.extents.partition_point(|extent| extent.end() <= from);
        Ok(Located { end: found.end(), extents: &found.extents[before..] })
    }

    /// Every tenant with its streams, by id.
    pub(crate) fn image(&self) -> Vec<TenantImage<'_>> {
        let tenants = self.table.iter().map(|(id, tenant)| TenantImage {
            id: *id,
            name: &tenant.name,
            streams: tenant
                .streams
                .iter()
                .map(|(id, stream)| StreamImage {
                    id: *id,
                    name: &stream.name,
                    extents: Cow::Borrowed(&stream.extents),
                })
                .collect(),
        });
        tenants.collect()
    }

    /// What an image is of; `None` if no state up to `applied` has it.
    pub(crate) fn of_image(image: Vec<TenantImage<'_>>, applied: Op) -> Option<Self> {
        let mut tenants = Self::default();
        if image.len() > TENANTS_MAX as usize {
            return None;
        }
        for TenantImage { id, name, streams } in image {
            let mut owner = Tenant { name: name.into(), streams: BTreeMap::new() };
            for StreamImage { id, name, extents } in streams {
                let ordered = owner.streams.last_key_value().is_none_or(|(last, _)| *last < id);
                if !ordered || name.len() > NAME_SIZE_MAX || !is_dense(&extents, applied) {
                    return None;
                }
                let stream = Stream { name: name.into(), extents: extents.into_owned() };
                owner.streams.insert(id, stream);
                tenants.streams += 1;
            }
            let ordered = tenants.table.last_key_value().is_none_or(|(last, _)| *last < id);
            if !ordered || name.len() > NAME_SIZE_MAX || tenants.streams > STREAMS_MAX {
                return None;
            }
            tenants.table.insert(id, owner);
        }
        Some(tenants)
    }

    /// Every tenant, stream and extent as an item. Checks on the way that offsets are dense.
    pub(crate) fn for_each_item(&self, mut visit: impl FnMut(&Item<'_>)) {
        let mut count = 0;
        for (&tenant, owner) in &self.table {
            visit(&Item::Tenant { id: tenant, name: &owner.name });
            for (&id, stream) in &owner.streams {
                visit(&Item::Stream { tenant, id, name: &stream.name });
                count += 1;
                let mut next = Offset::ZERO;
                for &extent in &stream.extents {
                    assert_eq!(extent.first, next, "a stream's offsets have no gap");
                    next = extent.end();
                    visit(&Item::Extent { tenant, stream: id, extent });
                }
            }
        }
        assert_eq!(count, self.streams, "the streams are counted as they are created");
    }
}

/// Whether these are the extents of a stream up to `applied`: they follow each other, in offsets and in the log.
fn is_dense(extents: &[Extent], applied: Op) -> bool {
    let mut next = Some(Offset::ZERO);
    let mut last = None;
    extents.iter().all(|extent| {
        let here = (extent.op, extent.entry);
        let follows = next == Some(extent.first) && last.is_none_or(|last| last < here);
        next = extent.first.0.checked_add(u64::from(extent.count)).map(Offset);
        last = Some(here);
        follows && extent.count > 0 && next.is_some() && extent.op <= applied
    })
}

/// The records that leading `extents` of `prepare`'s op hold, from the offset `from` on, in order, each
/// with its offset.
///
/// `extents` are as [`Located`] gives them, the first of them in this prepare; those of later ops are left
/// alone. The prepare is walked once, so a reader with several extents in one op passes them together.
///
/// An error ends the iteration. It means that the prepare is not the one these extents were made from.
pub fn records_of<'a>(prepare: &'a Prepare, extents: &'a [Extent], from: Offset) -> RecordsOf<'a> {
    let here = extents.partition_point(|extent| extent.op <= prepare.header.op);
    RecordsOf {
        op: prepare.header.op,
        entries: prepare.entries().enumerate(),
        extents: &extents[..here],
        from,
        open: None,
    }
}

/// Iterates over the records of a stream in one prepare; made by [`records_of`].
#[derive(Clone, Debug)]
pub struct RecordsOf<'a> {
    op: Op,
    entries: Enumerate<Entries<'a>>,
    extents: &'a [Extent],
    from: Offset,
    /// The records left of the extent that is being read, and the offset of the next.
    open: Option<(Offset, RecordIter<'a>)>,
}

impl<'a> RecordsOf<'a> {
    /// The records of `extent`, once the walk has come to its entry.
    fn open(&mut self, extent: &Extent) -> Result<RecordIter<'a>, Malformed> {
        if extent.op != self.op {
            return Err(Malformed::Unknown);
        }
        let wanted = extent.entry as usize;
        let (_, entry) = self.entries.find(|(index, _)| *index >= wanted).ok_or(Malformed::Short)?;
        let entry: Entry<'a> = entry?;
        match Command::decode(entry.command)? {
            Command::AppendBatch { records, .. } if records.count() == extent.count => Ok(records.iter()),
            _ => Err(Malformed::Unknown),
        }
    }
}

impl<'a> Iterator for RecordsOf<'a> {
    type Item = Result<(Offset, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((offset, records)) = &mut self.open {
                if let Some(record) = records.next() {
                    let here = *offset;
                    *offset = here.next();
                    if here >= self.from {
                        return Some(Ok((here, record)));
                    }
                    continue;
                }
                self.open = None;
            }
            let (extent, later) = self.extents.split_first()?;
            self.extents = later;
            match self.open(extent) {
                Ok(records) => self.open = Some((extent.first, records)),
                Err(malformed) => {
                    self.extents = &[];
                    return Some(Err(malformed));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_or_stream_too_many_is_refused() {
        let mut tenants = Tenants::default();
        for id in 0..u64::from(TENANTS_MAX) {
            assert_eq!(tenants.check_tenant(TenantId(id)), Ok(()));
            tenants.create_tenant(TenantId(id), "t".into());
        }
        assert_eq!(tenants.check_tenant(TenantId(u64::MAX)), Err(Refusal::TooMany));
        assert_eq!(tenants.check_tenant(TenantId(0)), Err(Refusal::TenantExists));
        tenants.streams = STREAMS_MAX - 1;
        assert_eq!(tenants.check_stream(TenantId(0), StreamId(1)), Ok(()));
        tenants.create_stream(TenantId(0), StreamId(1), "s".into());
        assert_eq!(tenants.check_stream(TenantId(1), StreamId(1)), Err(Refusal::TooMany));
    }
}
