//! Time on a processor.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Seconds that this thread has spent on a processor: what else runs on the machine does not count.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default()).as_secs_f64()
}
