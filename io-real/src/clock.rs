//! The clocks of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use kimberlite_types::{Instant, Now, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Reads both clocks. The monotonic one counts from the start of the machine, so that readings of several
/// drivers in one process compare.
pub(crate) fn now() -> Now {
    let monotonic = clock_gettime(ClockId::Monotonic);
    // Neither part of a monotonic reading is ever negative.
    let (seconds, nanoseconds) = (monotonic.tv_sec.cast_unsigned(), monotonic.tv_nsec.cast_unsigned());
    let monotonic = Instant(seconds * 1_000_000_000 + nanoseconds);
    // A wall clock before 1970 is a clock that was never set.
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { monotonic, wall: WallTime(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)) }
}
