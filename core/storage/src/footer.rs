//! The footer of a sealed segment: which prepares stand in it, and where.
//!
//! It stands behind the segment's room for prepares: one sector of head, then the table.
//!
//! ```text
//! head    0  checksum [32]: BLAKE3 of bytes 32..4096   32  table checksum [32]: BLAKE3 of the table
//!        64  magic "KMBG"   68  version u16   70  zero [2]   72  count u32   76  zero [4]
//!        80  cluster u128   96  segment u64  104  first op u64
//!       112  parent [32]: checksum of the op before the first            144  zero [368]
//!       512  header of the last prepare [512]                           1024  zero [3072]
//! table   0  checksum [32]   32  place u64   40  size u32   44  entries u32   48  timestamp u64   56  view u64
//!            one row of 64 bytes for each prepare, in order
//! ```
//!
//! A segment seals when the first op of the *next* segment is committed: from then on its last op is its
//! last for good, because an uncommitted successor could still be replaced by a smaller prepare that fits here.

use alloc::vec::Vec;

use kimberlite_crypto::{Checksum, checksum};
use kimberlite_io::{Buf, sectors};
use kimberlite_types::limits::{PREPARE_HEADER_SIZE, SECTOR_SIZE};
use kimberlite_types::{ClusterId, Layout, Op, View, WallTime};
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::prepare::{footer_size, segment_room};

use crate::bytes::{bytes_at, put, put_u16, put_u32, put_u64, put_u128, u16_at, u32_at, u64_at, u128_at};

/// The mark of a footer.
pub(crate) const FOOTER_MAGIC: [u8; 4] = *b"KMBG";
/// The format this build writes.
pub(crate) const FOOTER_VERSION: u16 = 1;

const ROW_SIZE: usize = 64;
const LAST_AT: usize = 512;

/// The head of a footer, which is all that opening needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FooterHead {
    pub(crate) segment: u64,
    pub(crate) first: Op,
    pub(crate) count: u32,
    /// The checksum of the op before the first.
    pub(crate) parent: Checksum,
    /// The header of the last prepare.
    pub(crate) last: PrepareHeader,
    table: Checksum,
}

/// One prepare of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) checksum: Checksum,
    pub(crate) place: u64,
    pub(crate) size: u32,
    pub(crate) entries: u32,
    pub(crate) timestamp: WallTime,
    pub(crate) view: View,
}

impl Row {
    pub(crate) fn of(header: &PrepareHeader) -> Self {
        Self {
            checksum: header.checksum,
            place: header.place,
            size: header.size,
            entries: header.entries,
            timestamp: header.timestamp,
            view: header.view,
        }
    }
}

/// A whole footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) head: FooterHead,
    rows: Vec<Row>,
}

impl Footer {
    /// The footer of a segment that holds these prepares, in order, and no other.
    pub(crate) fn of(headers: &[PrepareHeader], layout: &Layout) -> Self {
        let (first, last) = (headers[0], headers[headers.len() - 1]);
        let segment = first.place / layout.segment_size;
        assert!(first.place.is_multiple_of(layout.segment_size), "a segment starts with its first prepare");
        assert!(last.place / layout.segment_size == segment, "a footer is about one segment");
        assert!(
            headers.len() <= layout.segment_ops_max as usize,
            "a segment holds a limited number of prepares"
        );
        assert!(
            headers
                .windows(2)
                .all(|pair| pair[1].op == pair[0].op.next() && pair[1].parent == pair[0].checksum),
            "the prepares of a segment chain"
        );
        let rows: Vec<Row> = headers.iter().map(Row::of).collect();
        let head = FooterHead {
            segment,
            first: first.op,
            count: headers.len() as u32,
            parent: first.parent,
            last,
            table: checksum(&encode_rows(&rows)),
        };
        Self { head, rows }
    }

    /// The bytes to write at [`offset`]: head and table, padded to whole sectors.
    pub(crate) fn encode(&self) -> Buf {
        let mut bytes = Buf::zeroed(SECTOR_SIZE + sectors((self.rows.len() * ROW_SIZE) as u64) as usize);
        put(&mut bytes, 32, self.head.table.as_bytes());
        put(&mut bytes, 64, &FOOTER_MAGIC);
        put_u16(&mut bytes, 68, FOOTER_VERSION);
        put_u32(&mut bytes, 72, self.head.count);
        put_u128(&mut bytes, 80, self.head.last.cluster.0);
        put_u64(&mut bytes, 96, self.head.segment);
        put_u64(&mut bytes, 104, self.head.first.0);
        put(&mut bytes, 112, self.head.parent.as_bytes());
        put(&mut bytes, LAST_AT, &self.head.last.encode());
        let own = checksum(&bytes[32..SECTOR_SIZE]);
        put(&mut bytes, 0, own.as_bytes());
        put(&mut bytes, SECTOR_SIZE, &encode_rows(&self.rows));
        bytes
    }

    /// Reads a footer of which the head may be followed by more bytes than the table has.
    pub(crate) fn decode(bytes: &[u8], cluster: ClusterId, segment: u64, layout: &Layout) -> Option<Self> {
        let head = FooterHead::decode(bytes, cluster, segment, layout)?;
        let table = bytes.get(SECTOR_SIZE..SECTOR_SIZE + head.count as usize * ROW_SIZE)?;
        if checksum(table) != head.table {
            return None;
        }
        let rows = table
            .chunks_exact(ROW_SIZE)
            .map(|row| Row {
                checksum: Checksum::from_bytes(bytes_at(row, 0)),
                place: u64_at(row, 32),
                size: u32_at(row, 40),
                entries: u32_at(row, 44),
                timestamp: WallTime(u64_at(row, 48)),
                view: View(u64_at(row, 56)),
            })
            .collect();
        Some(Self { head, rows })
    }

    /// Where the prepare `op` stands, if it is in this segment.
    pub(crate) fn row(&self, op: Op) -> Option<&Row> {
        let index = op.0.checked_sub(self.head.first.0)?;
        self.rows.get(usize::try_from(index).ok()?)
    }

    /// All prepares, in order.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

impl FooterHead {
    /// Reads the head of the footer of `segment`. None when it is not that, or damaged.
    pub(crate) fn decode(bytes: &[u8], cluster: ClusterId, segment: u64, layout: &Layout) -> Option<Self> {
        let head = bytes.get(..SECTOR_SIZE)?;
        let sound = head[64..68] == FOOTER_MAGIC
            && Checksum::from_bytes(bytes_at(head, 0)) == checksum(&head[32..])
            && u16_at(head, 68) == FOOTER_VERSION
            && u128_at(head, 80) == cluster.0
            && u64_at(head, 96) == segment;
        if !sound {
            return None;
        }
        let last = PrepareHeader::decode(&head[LAST_AT..LAST_AT + PREPARE_HEADER_SIZE]).ok()?;
        let (first, count) = (Op(u64_at(head, 104)), u32_at(head, 72));
        let sane = (1..=layout.segment_ops_max).contains(&count)
            && first.0.checked_add(u64::from(count) - 1) == Some(last.op.0)
            && last.place / layout.segment_size == segment;
        sane.then(|| Self {
            segment,
            first,
            count,
            parent: Checksum::from_bytes(bytes_at(head, 112)),
            last,
            table: Checksum::from_bytes(bytes_at(head, 32)),
        })
    }
}

fn encode_rows(rows: &[Row]) -> Vec<u8> {
    let mut table = alloc::vec![0; rows.len() * ROW_SIZE];
    for (row, bytes) in rows.iter().zip(table.chunks_exact_mut(ROW_SIZE)) {
        put(bytes, 0, row.checksum.as_bytes());
        put_u64(bytes, 32, row.place);
        put_u32(bytes, 40, row.size);
        put_u32(bytes, 44, row.entries);
        put_u64(bytes, 48, row.timestamp.0);
        put_u64(bytes, 56, row.view.0);
    }
    table
}

/// The offset in the log zone of a segment's footer, in bytes.
pub fn offset(segment: u64, layout: &Layout) -> u64 {
    segment * layout.segment_size + segment_room(layout)
}

/// Bytes of the largest footer under this layout, which is what every segment reserves.
pub fn size_max(layout: &Layout) -> u64 {
    footer_size(layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_types::{ReplicaId, RequestNumber, SessionId, TenantId};
    use kimberlite_wire::{NewEntry, NewPrepare, Prepare};

    fn footer() -> Footer {
        let mut headers = alloc::vec![PrepareHeader::root(ClusterId(7))];
        for op in 0..3 {
            let new = NewPrepare {
                parent: &headers[op],
                view: View(1),
                commit: Op(0),
                timestamp: WallTime(op as u64 + 1),
                layout: &Layout::SMALL,
                proposer: ReplicaId(1),
            };
            let entry = NewEntry {
                session: SessionId::NONE,
                request: RequestNumber(1),
                tenant: TenantId(2),
                command: b"command",
            };
            headers.push(Prepare::build(&new, &[entry]).header);
        }
        Footer::of(&headers[1..], &Layout::SMALL)
    }

    #[test]
    fn a_footer_never_changes_its_bytes_and_survives_its_encoding() {
        let footer = footer();
        let bytes = footer.encode();
        assert_eq!(
            checksum(&bytes).to_string(),
            "63f763d89afee4d077d43f0d77aae2cb4b0a5c28cf76f41e154f249c03e71378"
        );
        assert_eq!(Footer::decode(&bytes, ClusterId(7), 0, &Layout::SMALL), Some(footer));
        assert_eq!(Footer::decode(&bytes, ClusterId(7), 1, &Layout::SMALL), None);
        assert_eq!(Footer::decode(&bytes, ClusterId(8), 0, &Layout::SMALL), None);
    }

    #[test]
    fn any_flipped_byte_of_a_footer_is_noticed() {
        let bytes = footer().encode();
        for at in 0..SECTOR_SIZE + 3 * ROW_SIZE {
            let mut broken = bytes.clone();
            broken[at] ^= 4;
            assert_eq!(Footer::decode(&broken, ClusterId(7), 0, &Layout::SMALL), None, "byte {at}");
        }
    }
}
