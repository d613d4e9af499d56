//! Decisions changed from outside: how a fuzzer's bytes become a history.
//!
//! A run is a seed's, but for the decisions that the bytes name. They are read in pairs: how many decisions are
//! left as they are, and what becomes of the next one. So a change of one byte changes one decision and what
//! follows from it, and the bytes of a long history are few. When they end, the seed goes on alone.

/// Skips up to here are taken as they stand; beyond, each step skips [`STRIDE`] decisions more.
const SKIP_PLAIN: u8 = 127;

/// See [`SKIP_PLAIN`]: the longest skip is some eight thousand decisions.
const STRIDE: u64 = 64;

/// Bounds up to here are chosen among by the byte itself.
const SMALL: u64 = 256;

/// Bounds beyond this are those of words and of waits, whose values have no even spread.
const WIDE: u64 = 1 << 48;

/// Which decisions of a run are changed, and to what.
#[derive(Clone, Debug)]
pub(crate) struct Steering {
    bytes: Vec<u8>,
    at: usize,
    /// Decisions until the next change.
    left: u64,
}

impl Steering {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut steering = Self { bytes, at: 0, left: 0 };
        steering.skip();
        steering
    }

    fn skip(&mut self) {
        let skip = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        self.left = match skip.checked_sub(SKIP_PLAIN) {
            None | Some(0) => u64::from(skip),
            Some(beyond) => u64::from(SKIP_PLAIN) + u64::from(beyond) * STRIDE,
        };
    }

    /// What becomes of a decision below `bound` that the seed made.
    pub(crate) fn decide(&mut self, made: u64, bound: u64) -> u64 {
        if self.left > 0 {
            self.left -= 1;
            return made;
        }
        let Some(byte) = self.bytes.get(self.at) else { return made };
        let byte = u64::from(*byte);
        self.at += 1;
        self.skip();
        if bound <= SMALL {
            byte % bound
        } else if bound < WIDE {
            // From one end of the range to the other.
            (u128::from(bound - 1) * u128::from(byte) / 255) as u64
        } else {
            // Nothing at all, up to four times as much.
            (made / 64).saturating_mul(byte).min(bound - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(bytes: &[u8], bound: u64) -> Vec<u64> {
        let mut steering = Steering::new(bytes.to_vec());
        (0..6).map(|made| steering.decide(made, bound)).collect()
    }

    #[test]
    fn pairs_name_the_decision_and_what_becomes_of_it() {
        assert_eq!(decided(&[], 200), [0, 1, 2, 3, 4, 5]);
        assert_eq!(decided(&[2, 77], 200), [0, 1, 77, 3, 4, 5]);
        assert_eq!(decided(&[1, 9, 1, 8], 200), [0, 9, 2, 8, 4, 5]);
        assert_eq!(decided(&[0, 201, 0, 202], 200), [1, 2, 2, 3, 4, 5], "never beyond the bound");
        assert_eq!(decided(&[3], 200), [0, 1, 2, 3, 4, 5], "half a pair changes nothing");
    }

    #[test]
    fn large_ranges_are_reached_from_end_to_end_and_waits_are_stretched() {
        assert_eq!(decided(&[1, 255, 0, 0], 1 << 20), [0, (1 << 20) - 1, 0, 3, 4, 5]);
        let mut steering = Steering::new(vec![0, 0, 0, 128, 0, 255]);
        let made: Vec<u64> = (0..3).map(|_| steering.decide(6_400, u64::MAX)).collect();
        assert_eq!(made, [0, 12_800, 25_500]);
        assert!(Steering::new(vec![0, 255]).decide(u64::MAX - 1, u64::MAX) < u64::MAX);
    }

    #[test]
    fn long_skips_are_one_byte() {
        let mut steering = Steering::new(vec![255, 7]);
        let changed = (0..20_000).position(|_| steering.decide(100, 256) == 7);
        assert_eq!(changed, Some(127 + 128 * 64));
    }
}
