//! The machine around every machine of the suite: starts it, keeps its alarm, and checks what must hold
//! of any event at any time.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kimberlite_types::{Instant, Now};

use super::{MachineFactory, Verdict};
use crate::{Event, Io, Machine, Packet};

/// What an actor wants after an event.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// As before.
    Keep,
    /// Events only.
    Wait,
    /// To be woken then.
    Until(Instant),
    /// It has seen all it wanted. It still hears events.
    Passed,
}

/// The part of a machine that differs from case to case. `Err` names the promise that was broken.
pub(super) trait Actor {
    /// The node is up.
    fn start(&mut self, now: Instant, io: &mut dyn Io) -> Result<Step, String>;

    /// Something happened.
    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String>;
}

/// A factory of the machine that runs the actor `make` returns.
pub(super) fn node<A: Actor + 'static>(make: impl FnOnce() -> A + Send + 'static) -> MachineFactory {
    Box::new(move |opened| {
        let wake_at = Some(Instant::ZERO);
        Box::new(Checked { actor: make(), started: false, latest: opened.monotonic, wake_at })
    })
}

struct Checked<A> {
    actor: A,
    started: bool,
    latest: Instant,
    wake_at: Option<Instant>,
}

impl<A: Actor> Checked<A> {
    fn handle(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<bool, String> {
        if now < self.latest {
            return Err(format!("time went back from {:?} to {now:?}", self.latest));
        }
        self.latest = now;
        let mut passed = false;
        if !self.started {
            self.started = true;
            let step = self.actor.start(now, io)?;
            passed |= self.follow(step);
        }
        check(&event)?;
        let step = self.actor.on(now, event, io)?;
        Ok(passed | self.follow(step))
    }

    fn follow(&mut self, step: Step) -> bool {
        match step {
            Step::Keep => {
                if self.wake_at == Some(Instant::ZERO) {
                    self.wake_at = None;
                }
            }
            Step::Wait | Step::Passed => self.wake_at = None,
            Step::Until(at) => self.wake_at = Some(at),
        }
        matches!(step, Step::Passed)
    }
}

impl<A: Actor> Machine for Checked<A> {
    type Input = Event;
    type Output = Verdict;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Verdict>) {
        match self.handle(now.monotonic, event, io) {
            Ok(false) => {}
            Ok(true) => out.push(Verdict::Passed),
            Err(why) => out.push(Verdict::Failed(why)),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }
}

/// What holds of every event.
fn check(event: &Event) -> Result<(), String> {
    match event {
        Event::Message { packet: Packet { body, .. }, .. } => {
            if !body.is_aligned() {
                return Err("a message body does not start on a sector boundary".into());
            }
            if body.padded()[body.len()..].iter().any(|byte| *byte != 0) {
                return Err("a message body is not followed by zeros up to the next sector".into());
            }
        }
        Event::Received { conn, data } if data.is_empty() => {
            return Err(format!("{conn:?} received nothing"));
        }
        _ => {}
    }
    Ok(())
}
