//! How long things took: counts in buckets that are at most a thirty-second wide of what they hold, so that
//! memory is fixed and any percentile is right to about three in a hundred.

use std::time::Duration;

/// Buckets for each doubling.
const STEPS: u64 = 32;

/// Bits that [`STEPS`] takes.
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// Buckets for all times below half an hour in nanoseconds (2^41).
const BUCKETS: usize = ((41 - STEP_BITS + 1) as usize) * STEPS as usize;

/// Counts of durations.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(time);
    }

    /// How many were counted.
    pub const fn count(&self) -> u64 {
        self.total
    }

    /// The longest, exactly.
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// What `percent` of a hundred did not exceed, rounded up to the end of its bucket. Zero of none.
    pub fn percentile(&self, percent: u64) -> Duration {
        let wanted = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(end(index)).min(self.max);
            }
        }
        self.max
    }
}

/// The bucket of a time: itself below [`STEPS`]; above, its highest bits behind the leading one and how many
/// follow them.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let doublings = nanos.ilog2() - STEP_BITS;
    let step = (nanos >> doublings) - STEPS;
    ((u64::from(doublings) + 1) * STEPS + step).min(BUCKETS as u64 - 1) as usize
}

/// The last time in a bucket.
fn end(bucket: usize) -> u64 {
    let (row, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if row == 0 { step } else { ((STEPS + step + 1) << (row - 1)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_a_bucket_that_ends_at_most_a_thirty_second_behind_it() {
        let mut before = 0;
        for nanos in (0..100_000).chain((17..41).map(|bits| (1_u64 << bits) + 12_345)) {
            let bucket = bucket(nanos);
            assert!(bucket >= before && end(bucket) >= nanos, "{nanos}");
            assert!(end(bucket) - nanos <= nanos / STEPS, "{nanos} ends at {}", end(bucket));
            before = bucket;
        }
        assert_eq!(super::bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(99), Duration::ZERO);
        for millis in 1..=100 {
            histogram.add(Duration::from_millis(millis));
        }
        let within = |found: Duration, wanted: u64| {
            let wanted = Duration::from_millis(wanted);
            found >= wanted && found <= wanted + wanted / 32
        };
        assert!(within(histogram.percentile(50), 50) && within(histogram.percentile(99), 99));
        assert_eq!(histogram.max(), Duration::from_millis(100));
        assert_eq!(histogram.percentile(100), histogram.max());
        assert_eq!(histogram.count(), 100);
    }
}
