//! What one command writes.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use kimberlite_types::{LogPosition, TenantId};

use crate::shape::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, Shape, VALUE_SIZE_MAX};

/// What is written cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// A key is longer than [`Shape::key_size_max`].
    KeyTooLong {
        /// Its bytes.
        size: usize,
        /// The most there may be.
        max: usize,
    },
    /// A value is longer than [`VALUE_SIZE_MAX`].
    ValueTooLong {
        /// Its bytes.
        size: usize,
    },
    /// The batch holds [`BATCH_WRITES_MAX`] writes or [`BATCH_BYTES_MAX`] bytes: install it, and go on with another
    /// of the same position.
    BatchFull,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyTooLong { size, max } => write!(f, "a key of {size} bytes is longer than {max}"),
            Self::ValueTooLong { size } => {
                write!(f, "a value of {size} bytes is longer than {VALUE_SIZE_MAX}")
            }
            Self::BatchFull => f.write_str("the batch is full"),
        }
    }
}

struct Write {
    key: Range<u32>,
    /// `None` deletes.
    value: Option<Range<u32>>,
}

/// What one command does to the rows and index entries of one tenant, or a part of it.
///
/// Keys begin with the [`ObjectId`](kimberlite_types::ObjectId) they belong to. Of several writes to one key the last one counts.
pub struct WriteBatch {
    tenant: TenantId,
    position: LogPosition,
    shape: Shape,
    bytes: Vec<u8>,
    writes: Vec<Write>,
}

impl fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteBatch({} at {}, {} writes)", self.tenant, self.position, self.writes.len())
    }
}

impl WriteBatch {
    /// An empty batch for a store of this shape. Its writes are the versions that begin at `position`, the place of
    /// the command in the log.
    pub fn new(shape: Shape, tenant: TenantId, position: LogPosition) -> Self {
        Self { tenant, position, shape, bytes: Vec::new(), writes: Vec::new() }
    }

    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The place of the command in the log.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Writes, those included that others of the same key override.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The newest version of `key` is `value`.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.write(key, Some(value))
    }

    /// There is no newest version of `key`. Nothing happens if there was none.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), WriteError> {
        self.write(key, None)
    }

    /// An index entry moves: from what the columns were to what they are, each `None` if the row did not or does not
    /// exist. An entry whose columns stay the same is left alone and keeps the interval it has.
    pub fn index(&mut self, old: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), WriteError> {
        if old == new {
            return Ok(());
        }
        if let Some(old) = old {
            self.delete(old)?;
        }
        if let Some(new) = new {
            self.put(new, &[])?;
        }
        Ok(())
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), WriteError> {
        let max = self.shape.key_size_max();
        if key.len() > max {
            return Err(WriteError::KeyTooLong { size: key.len(), max });
        }
        let size = value.map_or(0, <[u8]>::len);
        if size > VALUE_SIZE_MAX {
            return Err(WriteError::ValueTooLong { size });
        }
        if self.writes.len() == BATCH_WRITES_MAX || self.bytes.len() + key.len() + size > BATCH_BYTES_MAX {
            return Err(WriteError::BatchFull);
        }
        let key = self.keep(key);
        let value = value.map(|value| self.keep(value));
        self.writes.push(Write { key, value });
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<u32> {
        let from = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len() as u32
    }

    fn bytes(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// The last write of each key, in the order of the keys.
    pub(crate) fn net(&self) -> Vec<(&[u8], Option<&[u8]>)> {
        let mut writes: Vec<(&[u8], Option<&[u8]>)> = self
            .writes
            .iter()
            .map(|write| (self.bytes(&write.key), write.value.as_ref().map(|value| self.bytes(value))))
            .collect();
        if writes.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            writes.sort_by(|a, b| a.0.cmp(b.0));
            // `dedup_by` keeps the first of equals, so the later write takes its place.
            writes.dedup_by(|later, earlier| {
                let same = later.0 == earlier.0;
                if same {
                    earlier.1 = later.1;
                }
                same
            });
        }
        writes
    }
}
