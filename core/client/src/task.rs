//! Something to send until it is answered.

use core::time::Duration;

use kimberlite_io::{Conn, Frame};
use kimberlite_types::Instant;

/// A frame, and how far it has got.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// What is sent, the same bytes each time.
    pub(crate) frame: Frame,
    /// The number in a `Turn` that answers it.
    pub(crate) nonce: u64,
    /// The connection that carries it, and since when. Void once that connection is gone.
    pub(crate) sent: Option<(Conn, Instant)>,
    /// Whether it ever left this client.
    pub(crate) ever_sent: bool,
    /// When the parent's patience ends.
    pub(crate) give_up_at: Option<Instant>,
    /// A statement: once sent it is never overdue, because it may take long, and never sent on another connection.
    pub(crate) once: bool,
}

impl Task {
    pub(crate) fn new(nonce: u64, frame: Frame, give_up_at: Option<Instant>) -> Self {
        Self { frame, nonce, sent: None, ever_sent: false, give_up_at, once: false }
    }

    pub(crate) fn is_on(&self, conn: Conn) -> bool {
        self.sent.is_some_and(|(carrier, _)| carrier == conn)
    }

    /// When the answer is overdue, if it was sent on `conn`.
    pub(crate) fn overdue_at(&self, conn: Conn, timeout: Duration) -> Option<Instant> {
        self.sent.filter(|(carrier, _)| *carrier == conn && !self.once).map(|(_, at)| at.after(timeout))
    }
}

/// Whether a moment that may never come has come.
pub(crate) fn is_due(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}
