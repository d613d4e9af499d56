//! One page: checked once when it comes in, then read without a check that could fail.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use kimberlite_crypto::checksum;
use kimberlite_types::{LogPosition, TenantId};

use crate::layout::{
    BLOB_CELL_SIZE, BLOB_REF_SIZE, BlobRef, CURRENT_BRANCH_FIXED, CURRENT_LEAF_FIXED, ELSEWHERE, HEADER_SIZE,
    HISTORY_BRANCH_FIXED, HISTORY_LEAF_FIXED, MAGIC, POINTER_SIZE, POSITION_SIZE, SLOT_SIZE, VERSION, at,
    checksum_at, pointer_at, position_at, u16_at, u32_at, u64_at,
};
use crate::pointer::{Address, POSITION_MAX, POSITION_MIN, PageKind, PageRef, Pointer, Tree};
use crate::shape::{LEVELS_MAX, Shape, VALUE_SIZE_MAX};

/// A page whose bytes are known to be sound.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    bytes: Box<[u8]>,
    kind: PageKind,
    level: u8,
    count: u16,
    prefix: u16,
    /// Bytes of a cell before its key.
    fixed: u8,
    /// What all keys but the first one have in common behind the prefix. The first separator of a branch may be nothing, and
    /// then there is no prefix.
    shared: u16,
    /// Of a leaf of the history: where the versions of its first key end, and the greatest end of those behind. A leaf with
    /// many versions of few keys is mostly sought for one of the first key, and then left.
    edge: u16,
    rest: LogPosition,
    /// Of each key but the first one, what stands behind that. A search looks at these, which stand side by side, and then
    /// mostly at one cell; not a part of the page as it is written.
    hints: Box<[Hint]>,
}

/// The first bytes of a key's end, the highest first, zeros behind its last one: of two ends whose hints differ, the
/// greater one has the greater hint.
type Hint = u32;

#[inline]
fn hint_of(end: &[u8]) -> Hint {
    let bytes = match *end {
        [a, b, c, d, ..] => [a, b, c, d],
        [a, b, c] => [a, b, c, 0],
        [a, b] => [a, b, 0, 0],
        [a] => [a, 0, 0, 0],
        [] => [0; 4],
    };
    Hint::from_be_bytes(bytes)
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({:?}, level {}, {} cells)", self.kind, self.level, self.count)
    }
}

/// Why bytes are not the page that was asked for. The page is absent: fetch it from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The page.
    pub page: Address,
    /// What is wrong.
    pub wrong: Wrong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {}", self.page.0, self.wrong)
    }
}

/// What can be wrong with the bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Their number is not the size of a page.
    Size,
    /// They are not what the parent saw.
    Digest,
    /// They are no page of this version of the layout.
    Header,
    /// They are another page than the parent means: of another tenant, kind, level, or with other entries.
    Stranger,
    /// A cell reaches out of the page, overlaps another, or leaves a gap.
    Cell,
    /// Keys are not in order, or the prefix is not all that they have in common.
    Order,
    /// A pointer, a position or the place of a value is none that can be.
    Field,
    /// What must be zeros is not.
    Padding,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "not the size of a page",
            Self::Digest => "not the bytes that its parent names",
            Self::Header => "no page of this version",
            Self::Stranger => "not the page that its parent means",
            Self::Cell => "a cell does not fit",
            Self::Order => "keys are not in order",
            Self::Field => "a field is out of its bounds",
            Self::Padding => "bytes that must be zero are not",
        })
    }
}

/// A key in two parts: what the page's keys have in common, and the rest.
#[derive(Clone, Copy, Debug)]
pub struct Key<'p> {
    pub(crate) head: &'p [u8],
    pub(crate) tail: &'p [u8],
}

impl<'p> Key<'p> {
    #[inline]
    pub(crate) const fn whole(bytes: &'p [u8]) -> Self {
        Self { head: &[], tail: bytes }
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Both parts.
    #[inline]
    pub const fn parts(&self) -> (&'p [u8], &'p [u8]) {
        (self.head, self.tail)
    }

    /// The key in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        [self.head, self.tail].concat()
    }

    #[inline]
    pub(crate) fn byte(&self, index: usize) -> u8 {
        match self.head.get(index) {
            Some(byte) => *byte,
            None => self.tail[index - self.head.len()],
        }
    }

    /// How many bytes at the start both have in common.
    #[inline]
    pub(crate) fn common(&self, other: &Self) -> usize {
        let most = self.len().min(other.len());
        (0..most).find(|&index| self.byte(index) != other.byte(index)).unwrap_or(most)
    }

    /// Writes all but the first `skip` bytes.
    #[inline]
    pub(crate) fn write_rest(&self, skip: usize, to: &mut [u8]) {
        if skip >= self.head.len() {
            to.copy_from_slice(&self.tail[skip - self.head.len()..]);
        } else {
            let head = &self.head[skip..];
            to[..head.len()].copy_from_slice(head);
            to[head.len()..].copy_from_slice(self.tail);
        }
    }

    /// The first `size` bytes.
    pub(crate) fn first(&self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(&self.head[..size.min(self.head.len())]);
        bytes.extend_from_slice(&self.tail[..size - bytes.len()]);
        bytes
    }

    /// Appends the key.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.head);
        bytes.extend_from_slice(self.tail);
    }

    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        let common = self.head.len().min(other.head.len());
        self.head[..common].cmp(&other.head[..common]).then_with(|| {
            let ours = Key { head: &self.head[common..], tail: self.tail };
            let theirs = Key { head: &other.head[common..], tail: other.tail };
            if ours.head.is_empty() {
                theirs.cmp_slice(ours.tail).reverse()
            } else {
                ours.cmp_slice(theirs.tail)
            }
        })
    }

    pub(crate) fn cmp_slice(&self, other: &[u8]) -> Ordering {
        let common = self.head.len().min(other.len());
        self.head[..common].cmp(&other[..common]).then_with(|| {
            if common < self.head.len() { Ordering::Greater } else { self.tail.cmp(&other[common..]) }
        })
    }
}

/// What a leaf holds of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored<'p> {
    Inline(&'p [u8]),
    Elsewhere(BlobRef),
}

/// One entry of a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafCell<'p> {
    pub(crate) begin: LogPosition,
    /// Zero in the current tree.
    pub(crate) end: LogPosition,
    pub(crate) tail: &'p [u8],
    pub(crate) value: Stored<'p>,
}

const fn fixed_of(kind: PageKind) -> u8 {
    (match kind {
        PageKind::Leaf(Tree::Current) => CURRENT_LEAF_FIXED,
        PageKind::Leaf(Tree::History) => HISTORY_LEAF_FIXED,
        PageKind::Branch(Tree::Current) => CURRENT_BRANCH_FIXED,
        PageKind::Branch(Tree::History) => HISTORY_BRANCH_FIXED,
        PageKind::Value | PageKind::ValueIndex => 0,
    }) as u8
}

/// Where the hints stand, among some in order, that are this one.
#[inline]
fn alike(hints: &[Hint], hint: Hint) -> (usize, usize) {
    let (mut from, mut rest) = (0, hints);
    // To count all of a few is faster than to halve them: no step waits for what the one before finds in memory.
    while rest.len() > COUNTED_MAX {
        let (left, right) = rest.split_at(rest.len() / 2);
        if left.last().is_some_and(|last| *last < hint) {
            from += left.len();
            rest = right;
        } else if right.first().is_some_and(|first| *first > hint) {
            rest = left;
        } else {
            let until = rest.partition_point(|other| *other <= hint);
            return (from + rest.partition_point(|other| *other < hint), from + until);
        }
    }
    let (mut less, mut same) = (0u32, 0u32);
    for other in rest {
        // Few are counted; a check of each sum would keep the compiler from counting several at once.
        less = less.wrapping_add(u32::from(*other < hint));
        same = same.wrapping_add(u32::from(*other == hint));
    }
    (from + less as usize, from + (less + same) as usize)
}

/// Bytes that memory gives at once, and how many such lines of a version are looked at before it is wanted.
const LINE_SIZE: usize = 64;
const LOOKED_AT_MAX: usize = 4;

/// Hints of which each is looked at: of a leaf of the usual size, or of a branch.
const COUNTED_MAX: usize = 128;

impl Page {
    /// Takes bytes that came from a disk or a peer, if they are the page that was asked for. Any bytes give a page
    /// or an error, and nothing that is done with the page later can fail because of them.
    pub fn decode(at: &PageRef, bytes: Box<[u8]>) -> Result<Self, Malformed> {
        let wrong = |wrong| Malformed { page: at.address, wrong };
        if Shape::new(bytes.len()).is_none() {
            return Err(wrong(Wrong::Size));
        }
        if checksum(&bytes) != at.digest {
            return Err(wrong(Wrong::Digest));
        }
        Self::check(at, bytes).map_err(wrong)
    }

    fn check(at: &PageRef, bytes: Box<[u8]>) -> Result<Self, Wrong> {
        let zeros = |range: core::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
        if bytes[..4] != MAGIC || bytes[at::VERSION] != VERSION {
            return Err(Wrong::Header);
        }
        // Without a cipher there is neither key nor nonce nor tag; no other cipher has a number yet.
        if !zeros(at::CIPHER..at::COUNT) || !zeros(at::NONCE..at::USED) || !zeros(at::RESERVED..HEADER_SIZE) {
            return Err(Wrong::Header);
        }
        let kind =
            PageKind::ALL.into_iter().find(|kind| kind.code() == bytes[at::KIND]).ok_or(Wrong::Header)?;
        let (level, tenant) = (bytes[at::LEVEL], TenantId(u64_at(&bytes, at::TENANT)));
        if kind != at.kind || level != at.level || tenant != at.tenant || level > LEVELS_MAX {
            return Err(Wrong::Stranger);
        }
        let used = u32_at(&bytes, at::USED) as usize;
        if used > bytes.len() - HEADER_SIZE {
            return Err(Wrong::Cell);
        }
        if !zeros(HEADER_SIZE + used..bytes.len()) {
            return Err(Wrong::Padding);
        }
        let (count, prefix) = (u16_at(&bytes, at::COUNT), u16_at(&bytes, at::PREFIX));
        let mut page = Self::bare(bytes, kind, level, count, prefix);
        match kind {
            PageKind::Value | PageKind::ValueIndex => page.check_value(at, used)?,
            PageKind::Leaf(_) | PageKind::Branch(_) => {
                if (level == 0) != matches!(kind, PageKind::Leaf(_)) {
                    return Err(Wrong::Stranger);
                }
                page.check_cells(used)?;
                page.check_order()?;
                page.take_hints();
                if (page.max(), page.entries()) != (at.max, at.entries) {
                    return Err(Wrong::Stranger);
                }
            }
        }
        Ok(page)
    }

    fn check_value(&self, at: &PageRef, used: usize) -> Result<(), Wrong> {
        if self.prefix != 0 || used as u64 != at.entries || used == 0 {
            return Err(Wrong::Stranger);
        }
        if self.kind == PageKind::Value {
            return if self.count == 0 && self.level == 0 { Ok(()) } else { Err(Wrong::Stranger) };
        }
        if self.level == 0 || used != self.count() * BLOB_CELL_SIZE {
            return Err(Wrong::Cell);
        }
        if (0..self.count()).any(|index| !self.value_child(index).0.is_place()) {
            return Err(Wrong::Field);
        }
        Ok(())
    }

    /// Cells follow each other, in the order of the slots, from the slots to the end of what is used.
    fn check_cells(&self, used: usize) -> Result<(), Wrong> {
        let (count, fixed, end) = (self.count(), usize::from(self.fixed), HEADER_SIZE + used);
        let mut next = HEADER_SIZE + usize::from(self.prefix) + count * SLOT_SIZE;
        if count == 0 || next > end {
            return Err(Wrong::Cell);
        }
        for index in 0..count {
            let cell = self.slot(index);
            if cell != next || cell + fixed > end {
                return Err(Wrong::Cell);
            }
            let tail = usize::from(u16_at(&self.bytes, cell));
            next = cell + fixed + tail;
            if self.is_leaf() {
                next += match u16_at(&self.bytes, cell + 2) {
                    ELSEWHERE => BLOB_REF_SIZE,
                    size => usize::from(size),
                };
            }
            if next > end {
                return Err(Wrong::Cell);
            }
            self.check_fields(index, cell)?;
        }
        if next != end {
            return Err(Wrong::Cell);
        }
        Ok(())
    }

    fn check_fields(&self, index: usize, cell: usize) -> Result<(), Wrong> {
        let sound = if self.is_leaf() {
            let begin = position_at(&self.bytes, cell + 4);
            let end = self.rank(index);
            let is_interval = self.tree() == Tree::Current || begin < end;
            let value = if u16_at(&self.bytes, cell + 2) == ELSEWHERE {
                let tail = usize::from(u16_at(&self.bytes, cell));
                BlobRef::read(&self.bytes, cell + usize::from(self.fixed) + tail).is_some_and(|blob| {
                    let shape = Shape::new(self.bytes.len()).expect("a page has the size of one");
                    let size = blob.length as usize;
                    blob.address.is_place()
                        && (1..=VALUE_SIZE_MAX).contains(&size)
                        && blob.level == shape.blob_level(blob.length)
                })
            } else {
                true
            };
            is_interval && value && begin < POSITION_MAX && end < POSITION_MAX
        } else {
            // 2^32 pages of less than 2^13 entries: sums of entries stay far below 2^64.
            let pointer = pointer_at(&self.bytes, cell + 2);
            pointer.address.is_place() && pointer.entries > 0 && pointer.entries < 1 << 45
        };
        if sound { Ok(()) } else { Err(Wrong::Field) }
    }

    fn check_order(&self) -> Result<(), Wrong> {
        let count = self.count();
        let ordered = |index: usize| {
            let (left, right) = (self.tail(index - 1), self.tail(index));
            left.cmp(right).then_with(|| self.rank(index - 1).cmp(&self.rank(index))) == Ordering::Less
        };
        if !(1..count).all(ordered) {
            return Err(Wrong::Order);
        }
        let (first, last) = (self.tail(0), self.tail(count - 1));
        let more =
            if count == 1 { !first.is_empty() } else { !first.is_empty() && first.first() == last.first() };
        if more { Err(Wrong::Order) } else { Ok(()) }
    }

    /// A page that was just built; its bytes are right because they were written here.
    pub(crate) fn built(bytes: Box<[u8]>) -> Self {
        let kind = PageKind::ALL
            .into_iter()
            .find(|kind| kind.code() == bytes[at::KIND])
            .expect("a page is built with a kind");
        let (count, prefix) = (u16_at(&bytes, at::COUNT), u16_at(&bytes, at::PREFIX));
        let level = bytes[at::LEVEL];
        let mut page = Self::bare(bytes, kind, level, count, prefix);
        if !matches!(kind, PageKind::Value | PageKind::ValueIndex) {
            page.take_hints();
        }
        page
    }

    /// A page of which nothing is known yet but its header.
    fn bare(bytes: Box<[u8]>, kind: PageKind, level: u8, count: u16, prefix: u16) -> Self {
        let (hints, fixed) = (Box::default(), fixed_of(kind));
        Self { bytes, kind, level, count, prefix, fixed, shared: 0, edge: 0, rest: POSITION_MIN, hints }
    }

    /// Reads the hints of keys that are in order.
    fn take_hints(&mut self) {
        let count = self.count();
        if count > 1 {
            let (first, last) = (Key::whole(self.tail(1)), Key::whole(self.tail(count - 1)));
            let shared = first.common(&last);
            self.hints = (1..count).map(|index| hint_of(&self.tail(index)[shared..])).collect();
            self.shared = shared as u16;
        }
        if self.kind == PageKind::Leaf(Tree::History) {
            let edge = self.behind_key(0);
            self.edge = edge as u16;
            self.rest = (edge..count).map(|index| self.rank(index)).max().unwrap_or(POSITION_MIN);
        }
    }

    /// The bytes, as they are written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    pub(crate) fn kind(&self) -> PageKind {
        self.kind
    }

    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    #[inline]
    pub(crate) fn is_leaf(&self) -> bool {
        matches!(self.kind, PageKind::Leaf(_))
    }

    pub(crate) fn tree(&self) -> Tree {
        match self.kind {
            PageKind::Leaf(tree) | PageKind::Branch(tree) => tree,
            PageKind::Value | PageKind::ValueIndex => unreachable!("a page of a value is in no tree"),
        }
    }

    #[inline]
    pub(crate) fn count(&self) -> usize {
        usize::from(self.count)
    }

    #[inline]
    pub(crate) fn used(&self) -> usize {
        u32_at(&self.bytes, at::USED) as usize
    }

    #[inline]
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.bytes[HEADER_SIZE..HEADER_SIZE + usize::from(self.prefix)]
    }

    #[inline]
    fn slot(&self, index: usize) -> usize {
        let slots = HEADER_SIZE + usize::from(self.prefix);
        usize::from(u16_at(&self.bytes, slots + index * SLOT_SIZE))
    }

    /// Where the bytes of some cells stand. They follow each other.
    #[inline]
    pub(crate) fn cells(&self, indexes: core::ops::Range<usize>) -> core::ops::Range<usize> {
        self.place(indexes.start)..self.place(indexes.end)
    }

    /// Where the cell of an entry stands, and behind the last one where all cells end.
    #[inline]
    pub(crate) fn place(&self, index: usize) -> usize {
        if index < self.count() { self.slot(index) } else { HEADER_SIZE + self.used() }
    }

    /// The entry of a leaf of the current tree whose cell stands here, and where the next one does. Cells follow each other, so
    /// whoever wants one after another looks at no slot.
    #[inline]
    pub(crate) fn cell_at(&self, place: usize) -> (LeafCell<'_>, usize) {
        let bytes = &self.bytes[..];
        let tail = place + CURRENT_LEAF_FIXED;
        let fixed = &bytes[place..tail];
        let value = tail + usize::from(u16_at(fixed, 0));
        let size = u16_at(fixed, 2);
        let (stored, next) = if size == ELSEWHERE {
            let blob = BlobRef::read(bytes, value).expect("a page was checked when it came, or built here");
            (Stored::Elsewhere(blob), value + BLOB_REF_SIZE)
        } else {
            let next = value + usize::from(size);
            (Stored::Inline(&bytes[value..next]), next)
        };
        let begin = position_at(fixed, 4);
        (LeafCell { begin, end: POSITION_MIN, tail: &bytes[tail..value], value: stored }, next)
    }

    #[inline]
    pub(crate) fn tail(&self, index: usize) -> &[u8] {
        let cell = self.slot(index);
        let from = cell + usize::from(self.fixed);
        &self.bytes[from..from + usize::from(u16_at(&self.bytes, cell))]
    }

    #[inline]
    pub(crate) fn key(&self, index: usize) -> Key<'_> {
        Key { head: self.prefix(), tail: self.tail(index) }
    }

    /// What orders entries of one key: the end in a history tree, zero in a current tree.
    #[inline]
    pub(crate) fn rank(&self, index: usize) -> LogPosition {
        match self.kind {
            PageKind::Leaf(Tree::History) => {
                position_at(&self.bytes, self.slot(index) + HISTORY_LEAF_FIXED - POSITION_SIZE)
            }
            PageKind::Branch(Tree::History) => {
                position_at(&self.bytes, self.slot(index) + HISTORY_BRANCH_FIXED - POSITION_SIZE)
            }
            _ => POSITION_MIN,
        }
    }

    /// Which entry has this key and rank, or where it would stand.
    pub(crate) fn search(&self, key: &[u8], rank: LogPosition) -> Result<usize, usize> {
        self.search_from(0, key, rank)
    }

    /// As [`Page::search`], when it is known that all entries before `from` are less.
    pub(crate) fn search_from(&self, from: usize, key: &[u8], rank: LogPosition) -> Result<usize, usize> {
        let prefix = self.prefix();
        let common = prefix.len().min(key.len());
        match key[..common].cmp(&prefix[..common]) {
            Ordering::Less => return Err(from),
            Ordering::Greater => return Err(self.count()),
            Ordering::Equal if common < prefix.len() => return Err(from),
            Ordering::Equal => {}
        }
        self.search_tail_from(from, &key[common..], rank)
    }

    /// As [`Page::search_from`], by what is behind the prefix.
    #[inline]
    pub(crate) fn search_tail_from(
        &self,
        from: usize,
        rest: &[u8],
        rank: LogPosition,
    ) -> Result<usize, usize> {
        let low = match self.search_hints(from.max(1), rest, rank) {
            Ok(index) => return Ok(index),
            Err(low) => low,
        };
        // The first key has no hint.
        if from > 0 || low > 1 || self.count == 0 {
            return Err(low.min(self.count()));
        }
        match self.order(0, rest, rank) {
            Ordering::Less => Err(1),
            Ordering::Equal => Ok(0),
            Ordering::Greater => Err(0),
        }
    }

    /// As [`Page::search_tail_from`], from the second entry on or a later one.
    #[inline]
    fn search_hints(&self, from: usize, rest: &[u8], rank: LogPosition) -> Result<usize, usize> {
        let Some(hints) = self.hints.get(from - 1..) else { return Err(from) };
        let mut end = rest;
        if self.shared > 0 {
            let shared = &self.tail(1)[..usize::from(self.shared)];
            let common = shared.len().min(rest.len());
            match rest[..common].cmp(&shared[..common]) {
                Ordering::Less => return Err(from),
                Ordering::Greater => return Err(self.count()),
                Ordering::Equal if common < shared.len() => return Err(from),
                Ordering::Equal => end = &rest[common..],
            }
        }
        let (mut low, mut high) = alike(hints, hint_of(end));
        while low < high {
            let middle = low.midpoint(high);
            match self.order(from + middle, rest, rank) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(from + middle),
            }
        }
        Err(from + low)
    }

    /// How an entry stands to a key, by what is behind the prefix, and rank.
    #[inline]
    fn order(&self, index: usize, rest: &[u8], rank: LogPosition) -> Ordering {
        self.tail(index).cmp(rest).then_with(|| self.rank(index).cmp(&rank))
    }

    /// Behind an entry, the first one with another key.
    pub(crate) fn behind_key(&self, index: usize) -> usize {
        let (tail, mut from) = (self.tail(index), index + 1);
        if index == 0 && (self.count == 1 || self.tail(1) != tail) {
            return 1;
        }
        // All of the same key have the same hint, and mostly no other has it.
        let hints = &self.hints[index.max(1) - 1..];
        let mut until = index.max(1) + alike(hints, hints[0]).1;
        while from < until && self.tail(until - 1) != tail {
            let middle = from.midpoint(until);
            if self.tail(middle) == tail { from = middle + 1 } else { until = middle }
        }
        until
    }

    /// Behind the versions of the first key of a leaf of the history.
    #[inline]
    pub(crate) fn edge(&self) -> usize {
        usize::from(self.edge)
    }

    /// Looks at what a scan of the past wants of a leaf of the history, and makes nothing of it: what its keys have in common, and
    /// the last version of its first key, up to a few lines of memory.
    #[inline]
    pub(crate) fn look(&self) -> u8 {
        let cell = self.cells(self.edge() - 1..self.edge());
        let lines = cell.step_by(LINE_SIZE).take(LOOKED_AT_MAX);
        lines.fold(self.bytes[HEADER_SIZE], |sum, at| sum ^ self.bytes[at])
    }

    /// Whether all versions from an entry on, the first one of its key, ended by a position, as far as that is known without a
    /// look at them.
    #[inline]
    pub(crate) fn is_over_from(&self, index: usize, at: LogPosition) -> bool {
        index == self.edge() && self.rest <= at
    }

    /// Of some entries of a leaf of the history that are of one key, the first one that ended behind a position. It is mostly
    /// a recent one, so steps from the end on double until they are behind it.
    pub(crate) fn first_behind(&self, entries: core::ops::Range<usize>, at: LogPosition) -> usize {
        let (mut low, mut high, mut back) = (entries.start, entries.end, 1);
        while low < high {
            let middle = low.midpoint(high).max(high.saturating_sub(back));
            if self.rank(middle) > at {
                high = middle;
                back *= 2;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The first entry that is not less.
    pub(crate) fn lower_bound(&self, key: &[u8], rank: LogPosition) -> usize {
        match self.search(key, rank) {
            Ok(index) | Err(index) => index,
        }
    }

    /// The child below which a key belongs.
    pub(crate) fn child_index(&self, key: &[u8], rank: LogPosition) -> usize {
        match self.search(key, rank) {
            Ok(index) => index,
            Err(index) => index.saturating_sub(1),
        }
    }

    #[inline]
    pub(crate) fn leaf_cell(&self, index: usize) -> LeafCell<'_> {
        let cell = self.slot(index);
        let tail = cell + usize::from(self.fixed);
        let value = tail + usize::from(u16_at(&self.bytes, cell));
        let stored = match u16_at(&self.bytes, cell + 2) {
            ELSEWHERE => Stored::Elsewhere(
                BlobRef::read(&self.bytes, value).expect("a page was checked when it came, or built here"),
            ),
            size => Stored::Inline(&self.bytes[value..value + usize::from(size)]),
        };
        LeafCell {
            begin: position_at(&self.bytes, cell + 4),
            end: self.rank(index),
            tail: &self.bytes[tail..value],
            value: stored,
        }
    }

    /// When the version of an entry of a leaf began.
    #[inline]
    pub(crate) fn begin(&self, index: usize) -> LogPosition {
        position_at(&self.bytes, self.slot(index) + 4)
    }

    /// Where the bytes of a value's reference stand, if the value is elsewhere.
    pub(crate) fn blob_ref_at(&self, index: usize) -> Option<usize> {
        let cell = self.slot(index);
        (u16_at(&self.bytes, cell + 2) == ELSEWHERE)
            .then(|| cell + usize::from(self.fixed) + usize::from(u16_at(&self.bytes, cell)))
    }

    #[inline]
    pub(crate) fn child(&self, index: usize) -> Pointer {
        pointer_at(&self.bytes, self.child_at(index))
    }

    /// Where the bytes of a child's pointer stand.
    pub(crate) fn child_at(&self, index: usize) -> usize {
        self.slot(index) + 2
    }

    /// The greatest begin or end below a child.
    #[inline]
    pub(crate) fn child_max(&self, index: usize) -> LogPosition {
        position_at(&self.bytes, self.slot(index) + 2 + 40)
    }

    pub(crate) fn child_entries(&self, index: usize) -> u64 {
        u64_at(&self.bytes, self.slot(index) + 2 + POINTER_SIZE - 8)
    }

    /// The greatest begin (current) or end (history) of what is here or below.
    pub(crate) fn max(&self) -> LogPosition {
        let of = |index: usize| match self.kind {
            PageKind::Leaf(Tree::Current) => position_at(&self.bytes, self.slot(index) + 4),
            PageKind::Leaf(Tree::History) => self.rank(index),
            _ => self.child_max(index),
        };
        (0..self.count()).map(of).max().unwrap_or(POSITION_MIN)
    }

    /// Entries here or below.
    pub(crate) fn entries(&self) -> u64 {
        if self.is_leaf() {
            u64::from(self.count)
        } else {
            (0..self.count()).map(|i| self.child_entries(i)).sum()
        }
    }

    /// The part of a value.
    pub(crate) fn part(&self) -> &[u8] {
        &self.bytes[HEADER_SIZE..HEADER_SIZE + self.used()]
    }

    pub(crate) fn value_child_at(index: usize) -> usize {
        HEADER_SIZE + index * BLOB_CELL_SIZE
    }

    pub(crate) fn value_child(&self, index: usize) -> (Address, kimberlite_crypto::Checksum) {
        let at = Self::value_child_at(index);
        (Address(u64_at(&self.bytes, at)), checksum_at(&self.bytes, at + 8))
    }
}
