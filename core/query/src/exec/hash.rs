//! A hash table from keys to numbers, the same on every machine: fixed hash, output in the order of insertion.

use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use kimberlite_row::Value;

/// FNV-1a over words, with a last mix: fast on short keys and without a secret, as keys come from one tenant's own rows.
struct Fixed(u64);

impl Hasher for Fixed {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed ^ (mixed >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
        self.0 = (self.0 ^ 0xFF).wrapping_mul(0x0100_0000_01B3);
    }
    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    }
    fn write_i64(&mut self, value: i64) {
        self.write_u64(value.cast_unsigned());
    }
}

fn hash(key: &[Value]) -> u64 {
    let mut state = Fixed(0xCBF2_9CE4_8422_2325);
    for value in key {
        value.hash(&mut state);
    }
    state.finish()
}

const EMPTY: u32 = u32::MAX;

/// Keys with a number each, counted in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    keys: Vec<(u64, Vec<Value>)>,
    slots: Vec<u32>,
}

impl Keys {
    /// The key of a number.
    pub(crate) fn key(&self, at: usize) -> &[Value] {
        &self.keys[at].1
    }

    fn slot(&self, hash: u64, key: &[Value]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let number = self.slots[at];
            if number == EMPTY {
                return at;
            }
            let (other, stored) = &self.keys[number as usize];
            if *other == hash && stored == key {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// The number of a key.
    pub(crate) fn find(&self, key: &[Value]) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let number = self.slots[self.slot(hash(key), key)];
        (number != EMPTY).then_some(number as usize)
    }

    /// The number of a key, and whether it is new.
    pub(crate) fn insert(&mut self, key: Vec<Value>) -> (usize, bool) {
        if self.slots.len() < (self.keys.len() + 1) * 2 {
            self.grow();
        }
        let hash = hash(&key);
        let slot = self.slot(hash, &key);
        let number = self.slots[slot];
        if number != EMPTY {
            return (number as usize, false);
        }
        self.slots[slot] = self.keys.len() as u32;
        self.keys.push((hash, key));
        (self.keys.len() - 1, true)
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(16);
        self.slots.clear();
        self.slots.resize(size, EMPTY);
        for number in 0..self.keys.len() {
            let mut at = self.keys[number].0 as usize & (size - 1);
            while self.slots[at] != EMPTY {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = number as u32;
        }
    }
}
