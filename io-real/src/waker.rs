//! Waking a driver from elsewhere.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Makes a driver's `next` return `Event::Wake`, from any thread or signal handler.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    eventfd: Arc<OwnedFd>,
    /// Whether `wake` was called: the eventfd is also rung by the driver's own helper thread.
    asked: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        let eventfd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(Self { shared: Arc::new(Shared { eventfd, asked: AtomicBool::new(false) }) })
    }

    /// Wakes the driver. Several calls before it wakes count as one.
    pub fn wake(&self) {
        if !self.shared.asked.swap(true, Ordering::AcqRel) {
            self.ring();
        }
    }

    /// Makes the driver look around without an event.
    pub(crate) fn ring(&self) {
        // The only failure is a counter of 2^64 - 2 rings that nobody took, and then it is ringing anyway.
        let _ = rustix::io::write(&self.shared.eventfd, &1_u64.to_ne_bytes());
    }

    /// Whether `wake` was called since the last time.
    pub(crate) fn take(&self) -> bool {
        self.shared.asked.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn eventfd(&self) -> &Arc<OwnedFd> {
        &self.shared.eventfd
    }
}
