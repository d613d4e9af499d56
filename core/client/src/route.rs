//! The way to each replica: its connection, and when it may be tried again.

use core::time::Duration;

use kimberlite_io::Conn;
use kimberlite_types::{Instant, Rng};
use kimberlite_wire::client::Splitter;

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: Conn,
    /// When the connection is given up if it is not open by then; none once it is open.
    pub(crate) open_by: Option<Instant>,
    pub(crate) splitter: Splitter,
    /// When something came last, or it was opened.
    pub(crate) heard_at: Instant,
    /// When the replica was asked for a sign of life that has not come.
    pub(crate) probed_at: Option<Instant>,
}

/// One replica, as seen from here.
#[derive(Debug, Default)]
pub(crate) struct Route {
    pub(crate) link: Option<Link>,
    /// Nothing is connected or sent before this: the replica failed, or asked for patience.
    pub(crate) resume_at: Instant,
    /// Waits in a row; the next is twice as long for each.
    waits: u32,
    /// Times in a row that the replica knew no primary.
    pub(crate) laters: u32,
}

impl Route {
    /// The connection, if it is open.
    pub(crate) fn open(&self) -> Option<Conn> {
        self.link.as_ref().filter(|link| link.open_by.is_none()).map(|link| link.conn)
    }

    /// The connection, open or not.
    pub(crate) fn conn(&self) -> Option<Conn> {
        self.link.as_ref().map(|link| link.conn)
    }

    /// Puts the replica off: for `min`, doubled for each wait in a row, at most `max`, half of it by luck.
    pub(crate) fn put_off(&mut self, now: Instant, min: Duration, max: Duration, rng: &mut Rng) {
        let doubled = min.saturating_mul(1 << self.waits.min(20)).min(max);
        self.waits = self.waits.saturating_add(1);
        self.resume_at = now.after(doubled / 2 + up_to(doubled / 2, rng));
    }

    /// The replica did what it was asked to.
    pub(crate) fn praise(&mut self) {
        self.waits = 0;
        self.laters = 0;
    }
}

/// A uniformly random wait of at most `longest`.
pub(crate) fn up_to(longest: Duration, rng: &mut Rng) -> Duration {
    Duration::from_nanos(rng.between(0, u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX)))
}
