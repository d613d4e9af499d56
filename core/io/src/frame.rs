//! Bytes in memory: exclusive while they are filled, shared and immutable afterwards.
//!
//! What may go to disk or comes from there starts on a sector boundary and is backed by whole sectors, so that
//! direct I/O can use it as it is. The alignment is had without `unsafe`: one sector more than needed is
//! allocated, and the bytes start at the first boundary inside. The allocation never moves after that.
//!
//! Large memory starts on the boundary of a large page, so that the kernel may back it with such pages: direct reads into them
//! came twice as fast as into pages of 4 KiB, of which each is named to the device (2.1 against 1.0 GB/s).
//!
//! What only travels in a byte stream is *packed*: it takes the bytes it has. Two zeroed sectors for each
//! small request and each reply were a seventh of what a busy node's processor did.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::fmt;
use core::ops::{Deref, DerefMut, Range};

use kimberlite_types::limits::SECTOR_SIZE;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::sectors;

/// Bytes of a large page, as processors of today have them. Memory of at least so many bytes starts on a multiple of it.
pub const LARGE_PAGE: usize = 2 << 20;

/// `bytes[start..]`. Aligned memory starts on a sector boundary, and a whole number of sectors is usable.
struct Memory {
    bytes: Box<[u8]>,
    start: usize,
    /// Bytes that were allocated so that the rest can start on a boundary; 0 of packed memory.
    spare: usize,
}

impl Memory {
    fn zeroed(len: usize) -> Self {
        let usable = sectors(len as u64) as usize;
        // What lies in front of the boundary and behind the end is never touched: pages that nobody touches take no memory.
        let boundary = if usable < LARGE_PAGE { SECTOR_SIZE } else { LARGE_PAGE };
        let bytes = vec![0; usable + boundary].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(boundary);
        assert!(start < boundary, "a byte address can be aligned within one such step");
        Self { bytes, start, spare: boundary }
    }

    const fn packed(bytes: Box<[u8]>) -> Self {
        Self { bytes, start: 0, spare: 0 }
    }
}

/// A buffer owned by one holder, zeroed when made.
pub struct Buf {
    memory: Memory,
    len: usize,
}

impl Buf {
    /// A buffer of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self { memory: Memory::zeroed(len), len }
    }

    /// A buffer of `len` zero bytes that neither is aligned nor takes more memory than that. Not for disks.
    pub fn packed(len: usize) -> Self {
        Self { memory: Memory::packed(vec![0; len].into_boxed_slice()), len }
    }

    /// An aligned buffer with a copy of `bytes`.
    pub fn copy_from(bytes: &[u8]) -> Self {
        let mut buf = Self::zeroed(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Ends the filling: from here on the bytes are shared and never change.
    pub fn freeze(self) -> Frame {
        Frame { start: self.memory.start, len: self.len, memory: Some(Arc::new(self.memory)) }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.bytes[self.memory.start..][..self.len]
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes[self.memory.start..][..self.len]
    }
}

impl Clone for Buf {
    fn clone(&self) -> Self {
        Self::copy_from(self)
    }
}

impl PartialEq for Buf {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buf {}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

/// Shared, immutable bytes: a view of a frozen buffer. Cloning and slicing copy nothing.
#[derive(Clone, Default)]
pub struct Frame {
    memory: Option<Arc<Memory>>,
    start: usize,
    len: usize,
}

impl Frame {
    /// No bytes.
    pub const fn empty() -> Self {
        Self { memory: None, start: 0, len: 0 }
    }

    /// A copy of `bytes`, aligned.
    pub fn copy_from(bytes: &[u8]) -> Self {
        if bytes.is_empty() { Self::empty() } else { Buf::copy_from(bytes).freeze() }
    }

    /// A copy of `bytes` that takes no more memory than they do, unaligned. Not for disks.
    pub fn packed(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        Self { start: 0, len: bytes.len(), memory: Some(Arc::new(Memory::packed(bytes.into()))) }
    }

    /// The part `range` of this frame. Copies nothing; may be unaligned.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "slice within the frame");
        Self { memory: self.memory.clone(), start: self.start + range.start, len: range.end - range.start }
    }

    /// This frame and what follows it in memory up to the next sector boundary: what goes to disk.
    /// The frame must start on a boundary. The bytes that are added are what the buffer held there
    /// when it was frozen, zeros if it was made with this length.
    pub fn padded(&self) -> Self {
        assert!(self.is_aligned(), "only a frame that starts on a sector boundary can be padded");
        Self { memory: self.memory.clone(), start: self.start, len: sectors(self.len as u64) as usize }
    }

    /// Whether the first byte lies on a sector boundary of aligned memory (an empty frame does).
    pub fn is_aligned(&self) -> bool {
        self.memory
            .as_ref()
            .is_none_or(|memory| memory.spare != 0 && (self.start - memory.start).is_multiple_of(SECTOR_SIZE))
    }

    /// The memory behind this frame as a buffer again, all of it and with what it held, if this is the last frame that
    /// shows a part of it; otherwise the frame. For whoever reads much: new memory must be cleared.
    pub fn reclaim(self) -> Result<Buf, Self> {
        let Self { memory, start, len } = self;
        let Some(memory) = memory else { return Err(Self::empty()) };
        match Arc::try_unwrap(memory) {
            Ok(memory) => {
                let len = memory.bytes.len() - memory.spare;
                Ok(Buf { memory, len })
            }
            Err(memory) => Err(Self { memory: Some(memory), start, len }),
        }
    }

    /// Bytes of memory that this frame keeps alive.
    pub fn held(&self) -> usize {
        // Of what lies around large memory, nothing was ever touched.
        self.memory.as_ref().map_or(0, |memory| memory.bytes.len() - memory.spare.saturating_sub(SECTOR_SIZE))
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Some(memory) => &memory.bytes[self.start..][..self.len],
            None => &[],
        }
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Frame {}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len)
    }
}

impl Serialize for Buf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Buf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Buf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Buf, E> {
                Ok(Buf::copy_from(bytes))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Buf::deserialize(deserializer)?.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_on_a_sector_boundary_and_are_padded_with_zeros() {
        for len in [1, 100, SECTOR_SIZE, SECTOR_SIZE + 1, LARGE_PAGE - 1, LARGE_PAGE + 1] {
            let mut buf = Buf::zeroed(len);
            let boundary = if sectors(len as u64) < LARGE_PAGE as u64 { SECTOR_SIZE } else { LARGE_PAGE };
            assert!((buf.as_ptr() as usize).is_multiple_of(boundary));
            buf.fill(7);
            let frame = buf.freeze();
            let padded = frame.padded();
            assert_eq!(padded.len() % SECTOR_SIZE, 0);
            assert_eq!(padded[..len], vec![7; len]);
            assert!(padded[len..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn slices_share_memory_and_know_their_alignment() {
        let frame = Frame::copy_from(&[9; 3 * SECTOR_SIZE]);
        assert!(frame.slice(SECTOR_SIZE..SECTOR_SIZE + 5).is_aligned());
        assert!(!frame.slice(1..5).is_aligned());
        assert_eq!(frame.slice(1..5).as_ptr(), frame[1..].as_ptr());
    }

    #[test]
    fn packed_bytes_take_no_sector_and_never_pass_for_aligned() {
        let frame = Frame::packed(b"a reply");
        assert_eq!((&*frame, frame.held(), frame.is_aligned()), (&b"a reply"[..], 7, false));
        let mut buf = Buf::packed(5);
        buf.copy_from_slice(b"reply");
        let frame = buf.freeze();
        assert_eq!((&*frame, frame.held(), frame.is_aligned()), (&b"reply"[..], 5, false));
        assert!(Frame::packed(b"").is_aligned());
    }

    #[test]
    fn memory_is_reclaimed_from_its_last_frame_alone() {
        let frame = Frame::copy_from(&[9; SECTOR_SIZE + 1]);
        let (part, at) = (frame.slice(7..9), frame.as_ptr());
        let part = part.reclaim().expect_err("another frame shows it");
        assert_eq!(*part, [9, 9]);
        drop(frame);
        let buf = part.reclaim().expect("nobody else shows it");
        assert_eq!((buf.len(), buf.as_ptr(), buf[SECTOR_SIZE]), (2 * SECTOR_SIZE, at, 9));
        assert_eq!(Frame::empty().reclaim(), Err(Frame::empty()));
    }

    #[test]
    #[should_panic(expected = "slice within the frame")]
    fn a_slice_past_the_end_is_a_bug() {
        let _ = Frame::copy_from(&[1, 2, 3]).slice(1..5);
    }
}
