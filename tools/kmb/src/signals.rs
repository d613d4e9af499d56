//! Asking a program to end: Ctrl-C, SIGTERM, SIGHUP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kimberlite_io_real::Waker;

use crate::Failure;
use crate::failure::Kind;

/// Whether the program was asked to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked; from now on it is not.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Asks `stop` on every signal to end, and wakes the drivers that may sleep then. Once per process.
pub fn on_signal<const N: usize>(stop: &Stop, wakers: [Waker; N]) -> Result<(), Failure> {
    let stop = stop.clone();
    ctrlc::set_handler(move || {
        stop.ask();
        wakers.iter().for_each(Waker::wake);
    })
    .map_err(|error| Failure::new(Kind::Io, format!("signals cannot be handled: {error}")))
}
