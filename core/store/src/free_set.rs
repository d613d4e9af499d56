//! Which places of the data file are free: one bit each.

use alloc::vec::Vec;

use crate::pointer::Address;
use crate::shape::PAGES_MAX;

/// Places that the next checkpoint may write to.
///
/// The lowest free place is taken first, and the file grows only when none is free: what is taken depends on what was
/// taken and given back alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FreeSet {
    /// A set bit is a free place. Bits of places at or behind `pages` are not set.
    words: Vec<u64>,
    /// Places of the file.
    pages: u64,
    /// Words in front of this one are zero.
    first: usize,
}

impl FreeSet {
    /// Places of the file, free or not.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Words of its bits.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Makes it of its parts; `None` if a place is free that is not in the file.
    pub(crate) fn of_words(words: Vec<u64>, pages: u64) -> Option<Self> {
        let spare = words.len() as u64 * 64;
        let fits = pages <= PAGES_MAX && spare >= pages && spare - pages < 64;
        let over = words.last().is_some_and(|last| !pages.is_multiple_of(64) && last >> (pages % 64) != 0);
        (fits && !over).then_some(Self { words, pages, first: 0 })
    }

    /// Takes the lowest free place.
    pub(crate) fn take(&mut self) -> Address {
        while let Some(word) = self.words.get_mut(self.first) {
            if *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                return Address(self.first as u64 * 64 + u64::from(bit));
            }
            self.first += 1;
        }
        let address = Address(self.pages);
        self.pages += 1;
        assert!(self.pages <= PAGES_MAX, "a store of more than {PAGES_MAX} pages");
        if self.words.len() as u64 * 64 < self.pages {
            self.words.push(0);
        }
        // The last word may have got no bit; it is looked at again when one is given back.
        address
    }

    /// Gives a place back.
    pub(crate) fn give(&mut self, address: Address) {
        assert!(address.0 < self.pages, "what is given back was taken");
        let (word, bit) = ((address.0 / 64) as usize, 1 << (address.0 % 64));
        assert!(self.words[word] & bit == 0, "a place is given back once");
        self.words[word] |= bit;
        self.first = self.first.min(word);
    }

    /// Free places.
    pub(crate) fn free(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}
