//! Seeded randomness, one named stream per concern.
//!
//! Removing one user of luck must not shift the luck of the others, so nobody shares a generator: each
//! concern (`network`, `disk.2`, `crash`) takes its own stream by name and key from the one seed.

use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// The source of all streams of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// All streams that follow from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The stream `name`, in its instance `key` (a replica, a connection, an event).
    ///
    /// The 256-bit ChaCha key is the seed, the FNV-1a hash of the name, `key`, and a constant, so
    /// streams of different names or keys are independent for every practical purpose.
    pub fn stream(&self, name: &str, key: u64) -> Rng {
        let mut chacha_key = [0; 32];
        chacha_key[..8].copy_from_slice(&self.seed.to_le_bytes());
        chacha_key[8..16].copy_from_slice(&fnv1a(name).to_le_bytes());
        chacha_key[16..24].copy_from_slice(&key.to_le_bytes());
        chacha_key[24..].copy_from_slice(b"kmbstrm1");
        Rng(ChaCha8Rng::from_seed(chacha_key))
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): enough to tell a handful of stream names apart.
fn fnv1a(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A deterministic generator (ChaCha with 8 rounds). Integer arithmetic only, so every platform agrees.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// A uniform 64-bit number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number below `bound`, which must be positive. Bias is below 2^-64 x bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "below(0) has no answer");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "empty range");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.next_u64(),
        }
    }

    /// True in `parts` of 1,000,000 cases.
    pub fn chance_ppm(&mut self, parts: u32) -> bool {
        self.below(1_000_000) < u64::from(parts)
    }

    /// An exponentially distributed number with the given mean, at most 44 times the mean.
    ///
    /// `-ln(u)` by integer arithmetic: the leading zeros of a uniform word are the whole part of its
    /// `-log2`, the bits below give the fraction by linear interpolation (error below 9 %).
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let word = self.next_u64() | 1;
        let zeros = word.leading_zeros();
        let fraction = u128::from((word << zeros) << 1) >> 32; // mantissa after the leading one, 32 bits
        let log2 = (u128::from(zeros + 1) << 32) - fraction; // -log2(word / 2^64), 32.32 fixed point
        let ln2 = 2_977_044_472_u128; // ln 2 x 2^32
        u64::try_from((u128::from(mean) * ((log2 * ln2) >> 32)) >> 32).unwrap_or(u64::MAX)
    }

    /// An exponentially distributed wait.
    pub fn wait(&mut self, mean: Duration) -> Duration {
        Duration::from_nanos(self.exponential(u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// One of `items`, uniformly.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// A uniform index below `len`, which must be positive.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_different_names_and_keys_differ_and_repeat() {
        let streams = Streams::new(7);
        let first = |name, key| streams.stream(name, key).next_u64();
        assert_eq!(first("network", 0), first("network", 0));
        assert_ne!(first("network", 0), first("network", 1));
        assert_ne!(first("network", 0), first("disk", 0));
        assert_ne!(first("network", 0), Streams::new(8).stream("network", 0).next_u64());
    }

    #[test]
    fn the_first_words_never_change_between_releases() {
        let mut rng = Streams::new(1).stream("golden", 2);
        assert_eq!([rng.next_u64(), rng.next_u64()], [6_474_873_355_894_245_441, 12_226_774_944_991_506_635]);
    }

    #[test]
    fn exponential_has_its_mean() {
        let mut rng = Streams::new(3).stream("exponential", 0);
        let sum: u64 = (0..100_000).map(|_| rng.exponential(1_000)).sum();
        assert!((950..1_100).contains(&(sum / 100_000)), "mean {}", sum / 100_000);
    }

    #[test]
    fn below_reaches_every_value_and_no_other() {
        let mut rng = Streams::new(4).stream("below", 0);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[rng.below(10) as usize] = true;
        }
        assert!(seen.iter().all(|hit| *hit));
    }
}
