//! Wakes.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use kimberlite_types::Instant;
use kimberlite_types::limits::SECTOR_SIZE;

use super::actor::{Actor, Step};
use crate::{Buf, Event, Io, Place, Token};

/// Waits between the wakes that are asked for, in microseconds.
const WAITS_US: [u64; 6] = [0, 1_000, 5_000, 20_000, 3_000, 100];

/// A wake this much late is one that did not come. Generous, because test machines are busy.
const LATENESS_MAX: Duration = Duration::from_secs(1);

fn read(number: u64, io: &mut dyn Io) {
    io.read(Token(number), Place::superblock(0), Buf::zeroed(SECTOR_SIZE));
}

/// Asks for one wake after the other; then for one in an hour, which an answer from the disk moves close.
pub(super) struct Sleeper {
    due: Instant,
    woken: usize,
}

impl Sleeper {
    pub(super) const fn new() -> Self {
        Self { due: Instant::ZERO, woken: 0 }
    }

    fn sleep(&mut self, now: Instant, wait: Duration) -> Step {
        self.due = now.after(wait);
        Step::Until(self.due)
    }
}

impl Actor for Sleeper {
    fn start(&mut self, now: Instant, _: &mut dyn Io) -> Result<Step, String> {
        self.due = now;
        Ok(Step::Until(now))
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        match event {
            Event::Read { .. } => Ok(self.sleep(now, Duration::from_millis(1))),
            Event::Wake if now < self.due => Ok(Step::Keep), // early wakes are allowed
            Event::Wake => {
                let late = now.since(self.due);
                if late > LATENESS_MAX {
                    return Err(format!("a wake came {late:?} after it was due"));
                }
                self.woken += 1;
                if let Some(wait) = WAITS_US.get(self.woken - 1) {
                    Ok(self.sleep(now, Duration::from_micros(*wait)))
                } else if self.woken == WAITS_US.len() + 1 {
                    read(0, io);
                    Ok(self.sleep(now, Duration::from_hours(1)))
                } else {
                    Ok(Step::Passed)
                }
            }
            _ => Ok(Step::Keep),
        }
    }
}

/// Wakes a storm must have had.
const STORM_WAKES_MIN: u64 = 1_000;
/// Reads that must be answered meanwhile, one after the other.
const STORM_READS: u64 = 20;
/// Between two wakes of a storm.
const STORM_WAIT: Duration = Duration::from_micros(10);

/// Always wants to be woken at once, and reads all the while.
#[derive(Default)]
pub(super) struct Storm {
    wakes: u64,
    reads: u64,
}

impl Actor for Storm {
    fn start(&mut self, now: Instant, io: &mut dyn Io) -> Result<Step, String> {
        read(0, io);
        Ok(Step::Until(now))
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        match event {
            Event::Wake => self.wakes += 1,
            Event::Read { token, .. } if token == Token(self.reads) => {
                self.reads += 1;
                if self.reads < STORM_READS {
                    read(self.reads, io);
                }
            }
            Event::Read { token, .. } => {
                return Err(format!("an answer to {token:?}, which is not in flight"));
            }
            _ => {}
        }
        let over = self.wakes >= STORM_WAKES_MIN && self.reads == STORM_READS;
        Ok(if over { Step::Passed } else { Step::Until(now.after(STORM_WAIT)) })
    }
}
