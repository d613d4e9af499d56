//! Messages between replicas.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use kimberlite_types::limits::FRAME_BODY_SIZE_LIMIT;
use kimberlite_types::{Instant, ReplicaId};

use super::actor::{Actor, Step};
use super::content::{check, fill, frame_head, number_of};
use crate::{Buf, Event, Frame, Io, Packet};

/// The bodies that are sent, in bytes.
const BODY_SIZES: [usize; 8] = [0, 1, 4095, 4096, 4097, 100_000, 300, FRAME_BODY_SIZE_LIMIT as usize];

/// After this long a message is taken for lost and sent again.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// Sends one body of each size to replica 1, an echo, and compares what comes back.
#[derive(Default)]
pub(super) struct Sender {
    current: usize,
    resend_at: Instant,
}

const ME: ReplicaId = ReplicaId(0);
const PEER: ReplicaId = ReplicaId(1);

impl Sender {
    fn send(&mut self, now: Instant, io: &mut dyn Io) -> Step {
        let Some(size) = BODY_SIZES.get(self.current) else { return Step::Passed };
        let number = self.current as u64;
        let head = frame_head(ME, *size as u32, number);
        io.send(PEER, Packet { head, body: out_of_line(number, *size) });
        self.resend_at = now.after(RESEND_AFTER);
        Step::Until(self.resend_at)
    }

    fn compare(&self, from: ReplicaId, packet: &Packet) -> Result<bool, String> {
        let number = number_of(&packet.head);
        let Some(size) = BODY_SIZES.get(number as usize).filter(|_| number <= self.current as u64) else {
            return Err(format!("a message with number {number} that was never sent"));
        };
        if from != PEER {
            return Err(format!("message {number} claims to be from {from:?}"));
        }
        if packet.head != frame_head(PEER, *size as u32, number) {
            return Err(format!("message {number} has another head than was sent"));
        }
        if packet.body.len() != *size {
            return Err(format!("a body of {size} bytes arrived with {}", packet.body.len()));
        }
        check(number, 0, &packet.body)?;
        Ok(number == self.current as u64)
    }
}

/// A body of `size` bytes, aligned for every other `number` only, with something behind it: a machine may
/// send any part of what it holds.
fn out_of_line(number: u64, size: usize) -> Frame {
    let start = number as usize % 2 * 3;
    let mut buf = Buf::zeroed(start + size + 9);
    buf.fill(0xa5);
    fill(number, 0, &mut buf[start..start + size]);
    buf.freeze().slice(start..start + size)
}

impl Actor for Sender {
    fn start(&mut self, now: Instant, io: &mut dyn Io) -> Result<Step, String> {
        Ok(self.send(now, io))
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        match event {
            Event::Message { from, packet } => {
                if !self.compare(from, &packet)? {
                    return Ok(Step::Keep); // an earlier one, doubled on the way
                }
                self.current += 1;
                Ok(self.send(now, io))
            }
            Event::Wake if self.current < BODY_SIZES.len() && now >= self.resend_at => Ok(self.send(now, io)),
            _ => Ok(Step::Keep),
        }
    }
}
