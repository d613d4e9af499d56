//! Whose keys are whose.

use alloc::vec::Vec;

use kimberlite_types::ObjectId;

use crate::page::Key;

/// Bytes at the start of each key that say which object it belongs to.
pub const OBJECT_SIZE: usize = 4;

/// What the keys of an object begin with.
pub const fn object_prefix(object: ObjectId) -> [u8; OBJECT_SIZE] {
    object.0.to_be_bytes()
}

/// The key of an object that goes on with `rest`.
pub fn object_key(object: ObjectId, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(OBJECT_SIZE + rest.len());
    key.extend_from_slice(&object_prefix(object));
    key.extend_from_slice(rest);
    key
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
