//! Machines, and the only I/O trait there is.

use alloc::vec::Vec;

use kimberlite_types::{Instant, Now, ReplicaId};

use crate::{Address, Buf, Conn, Frame, Packet, Place, Token};

/// A message-driven state machine.
///
/// `on` never blocks, never fails and never calls another machine: it changes itself, asks through `io`,
/// and tells its parent through `out`.
pub trait Machine {
    /// A closed enum: all that can ever happen to it.
    type Input;
    /// What it tells its parent.
    type Output;

    /// Handles one input. `now` never goes back in its monotonic part within one life.
    fn on(&mut self, now: Now, input: Self::Input, io: &mut dyn Io, out: &mut Vec<Self::Output>);

    /// When it wants to be woken at the latest. Asked after every input; there is nothing to cancel.
    fn wake_at(&self) -> Option<Instant>;
}

/// Asks to the disk. Every ask is answered by one event with its token.
pub trait Disk {
    /// Reads `buf.len()` bytes at `at` into `buf`. Answer: `Event::Read`.
    /// `at` and the length are whole sectors.
    ///
    /// What was never written answers zeros in a zone of fixed size. In the log and the grid it answers
    /// zeros or `ReadFault::Absent`: how far a zone was made ahead of its writes is the driver's own
    /// affair, and may differ after a restart. Far past the last write it is `Absent`.
    fn read(&mut self, token: Token, at: Place, buf: Buf);

    /// Writes `data` at `at`. Answer: `Event::Written`, when the data survives a power cut.
    /// `at`, the length and the address of `data` are whole sectors. Must not overlap a write in flight.
    fn write(&mut self, token: Token, at: Place, data: Frame);

    /// Gives `len` bytes at `at` back to the file system; reads there answer zeros or `Absent` from then on.
    /// Answer: `Event::Trimmed`.
    fn trim(&mut self, token: Token, at: Place, len: u64);
}

/// Asks to the network. Never answered directly.
pub trait Net {
    /// Sends one message to another replica. It may vanish: when the link is down or its queue is full.
    /// The body may lie anywhere in memory here; where it arrives it is aligned and padded with zeros.
    fn send(&mut self, to: ReplicaId, packet: Packet);

    /// Opens a byte stream. Heard of as `Event::Opened`, or as `Event::Closed` with
    /// `CloseReason::Refused`, also when `to` is in no address book.
    fn connect(&mut self, conn: Conn, to: Address);

    /// Queues bytes on an open stream, behind those queued before. `Event::Sent` follows when all are gone.
    /// Ignored when the stream is already gone. Before `Event::Opened` it breaks the rules.
    fn stream(&mut self, conn: Conn, data: Frame);

    /// Allows `bytes` more to be received on a stream. A fresh stream may
    /// receive `limits::STREAM_CREDIT_INITIAL` bytes. Ignored when the stream is already gone. Before
    /// `Event::Opened` it breaks the rules.
    fn grant(&mut self, conn: Conn, bytes: u32);

    /// Ends a stream. Data already queued is still delivered if the other side reads it. No event follows.
    fn close(&mut self, conn: Conn);
}

/// Everything a node may ask of the world.
pub trait Io: Disk + Net {}

impl<T: Disk + Net + ?Sized> Io for T {}
