//! Two clocks per node, both derived from the world's time.

use kimberlite_types::{Instant, Now, WallTime};

use crate::census::Fault;

/// The wall clock of a world at its start: 2024-01-01T00:00:00Z.
pub const EPOCH: WallTime = WallTime(1_704_067_200_000_000_000);

/// One node's clocks. The monotonic clock may run fast or slow but never goes back; the wall clock may
/// also be off, jump and stand still.
#[derive(Clone, Debug)]
pub struct Clock {
    /// World time at which the readings below were true.
    settled: u64,
    monotonic: u64,
    wall: u64,
    drift_ppm: i32,
    frozen: bool,
    /// What was done to it since the world last looked.
    pub(crate) done: Vec<Fault>,
}

impl Clock {
    pub(crate) const fn new(monotonic: u64) -> Self {
        Self { settled: 0, monotonic, wall: EPOCH.0, drift_ppm: 0, frozen: false, done: Vec::new() }
    }

    /// What the node reads at world time `time`.
    pub(crate) fn now(&self, time: u64) -> Now {
        let elapsed = self.elapsed(time);
        let wall = if self.frozen { self.wall } else { self.wall.saturating_add(elapsed) };
        Now { monotonic: Instant(self.monotonic.saturating_add(elapsed)), wall: WallTime(wall) }
    }

    /// The world time, not before `time`, at which the monotonic clock will have reached `instant`.
    pub(crate) fn when(&self, instant: Instant, time: u64) -> u64 {
        let wait = u128::from(instant.0.saturating_sub(self.monotonic));
        let world = (wait * 1_000_000).div_ceil(self.speed());
        let at = u64::try_from(world).unwrap_or(u64::MAX).saturating_add(self.settled);
        at.max(time)
    }

    /// Brings the readings up to `time`, so that what is changed next holds from there on.
    pub(crate) fn settle(&mut self, time: u64) {
        let now = self.now(time);
        self.settled = time;
        self.monotonic = now.monotonic.0;
        self.wall = now.wall.0;
    }

    /// Lets both clocks run fast (positive) or slow by `ppm` parts of 1,000,000, at most half.
    pub fn set_drift_ppm(&mut self, ppm: i32) {
        assert!((-500_000..=500_000).contains(&ppm), "a clock drifts by at most half its speed");
        self.drift_ppm = ppm;
        if ppm != 0 {
            self.done.push(Fault::ClockDrift);
        }
    }

    /// Moves the wall clock by `nanoseconds`, forward or back. Also how an offset is set.
    pub fn jump(&mut self, nanoseconds: i64) {
        self.wall = self.wall.saturating_add_signed(nanoseconds);
        self.done.push(Fault::ClockJump);
    }

    /// Sets the wall clock: an unsynchronised epoch.
    pub fn set_wall(&mut self, wall: WallTime) {
        self.wall = wall.0;
        self.done.push(Fault::ClockJump);
    }

    /// Stops the wall clock, or lets it run on from where it stands.
    pub fn freeze(&mut self, frozen: bool) {
        if frozen && !self.frozen {
            self.done.push(Fault::ClockFreeze);
        }
        self.frozen = frozen;
    }

    /// Ends drift and freeze. The wall clock stays off by what it has gathered.
    pub fn heal(&mut self) {
        self.drift_ppm = 0;
        self.frozen = false;
    }

    fn speed(&self) -> u128 {
        u128::from(1_000_000_u32.saturating_add_signed(self.drift_ppm))
    }

    fn elapsed(&self, time: u64) -> u64 {
        let world = time - self.settled;
        if self.drift_ppm == 0 {
            return world;
        }
        u64::try_from(u128::from(world) * self.speed() / 1_000_000).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_reaches_an_instant_earlier_and_is_right_about_when() {
        let mut clock = Clock::new(1_000);
        clock.settle(500);
        clock.set_drift_ppm(100_000);
        for wait in [0, 1, 7, 1_000, 999_999_937] {
            let instant = Instant(clock.now(500).monotonic.0 + wait);
            let at = clock.when(instant, 500);
            assert!(clock.now(at).monotonic >= instant);
            assert!(at == 500 || clock.now(at - 1).monotonic < instant);
            assert!(at - 500 <= wait);
        }
    }

    #[test]
    fn the_wall_jumps_and_freezes_while_the_monotonic_clock_runs() {
        let mut clock = Clock::new(0);
        clock.settle(100);
        clock.jump(-50);
        assert_eq!(clock.now(100).wall.0, EPOCH.0 + 50);
        clock.freeze(true);
        assert_eq!(clock.now(900).wall.0, EPOCH.0 + 50);
        assert_eq!(clock.now(900).monotonic.0, 900);
        clock.settle(900);
        clock.freeze(false);
        assert_eq!(clock.now(1_000).wall.0, EPOCH.0 + 150);
        assert_eq!(clock.done, [Fault::ClockJump, Fault::ClockFreeze]);
    }
}
