//! The smallest machine that is of use: it says everything back.

use alloc::vec::Vec;

use kimberlite_types::{Instant, Now, ReplicaId};

use super::Verdict;
use super::content::{frame_head, number_of};
use crate::{Event, Io, Machine, Packet};

/// Sends every message back to where it came from, and every byte back on its stream.
///
/// The smallest example of a [`Machine`]: it keeps what it must know between two events, asks through the
/// `io` it is handed, and returns. Its one verdict is that it is up.
#[derive(Clone, Debug)]
pub struct Echo {
    me: ReplicaId,
    up: bool,
}

impl Echo {
    /// An echo that signs its messages as `me`.
    pub const fn new(me: ReplicaId) -> Self {
        Self { me, up: false }
    }
}

impl Machine for Echo {
    type Input = Event;
    type Output = Verdict;

    fn on(&mut self, _: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Verdict>) {
        if !self.up {
            self.up = true;
            out.push(Verdict::Passed);
        }
        match event {
            Event::Message { from, packet: Packet { head, body } } => {
                let head = frame_head(self.me, body.len() as u32, number_of(&head));
                io.send(from, Packet { head, body });
            }
            Event::Received { conn, data } => {
                io.grant(conn, data.len() as u32);
                io.stream(conn, data);
            }
            _ => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        (!self.up).then_some(Instant::ZERO)
    }
}
