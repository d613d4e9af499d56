//! Any machine of the suite, with the rules of the waist asserted around it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use kimberlite_types::{Instant, Now};

use super::{MachineFactory, Verdict};
use crate::{Event, Io, Machine, Ordered};

/// `machine` behind [`Ordered`]: a driver that breaks a rule of the waist in any case of the suite, whatever
/// the case is about, is found by a panic on the thread that runs the machine.
pub fn watched(machine: MachineFactory) -> MachineFactory {
    Box::new(|opened| Box::new(Watched { machine: machine(opened), rules: Ordered::new() }))
}

struct Watched {
    machine: Box<dyn Machine<Input = Event, Output = Verdict>>,
    rules: Ordered,
}

impl Machine for Watched {
    type Input = Event;
    type Output = Verdict;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Verdict>) {
        self.rules.heard(&event);
        self.machine.on(now, event, &mut self.rules.wrap(io), out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.machine.wake_at()
    }
}
