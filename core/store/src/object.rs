//! Whose keys are whose.

use alloc::vec::Vec;

use crate::page::Key;

/// A table, an index, or another thing of a tenant that has rows or entries. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

/// Bytes at the start of each key that say which object it belongs to.
pub const OBJECT_SIZE: usize = 4;

impl ObjectId {
    /// What its keys begin with.
    pub const fn prefix(self) -> [u8; OBJECT_SIZE] {
        self.0.to_be_bytes()
    }

    /// The key of this object that goes on with `rest`.
    pub fn key(self, rest: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(OBJECT_SIZE + rest.len());
        key.extend_from_slice(&self.prefix());
        key.extend_from_slice(rest);
        key
    }

    /// The object that a key belongs to, if it is long enough to say.
    pub fn of(key: &[u8]) -> Option<Self> {
        key.first_chunk().map(|bytes| Self(u32::from_be_bytes(*bytes)))
    }
}

pub(crate) fn same_object(key: &Key<'_>, other: &[u8]) -> bool {
    key.len() >= OBJECT_SIZE && other.len() >= OBJECT_SIZE && key.common(&Key::whole(other)) >= OBJECT_SIZE
}

/// The first key behind all that begin with `prefix`; `None` if there is none.
pub fn behind_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut behind = prefix[..=last].to_vec();
    behind[last] += 1;
    Some(behind)
}
