//! Byte streams between a node and its clients.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_types::Instant;
use kimberlite_types::limits::STREAM_CREDIT_INITIAL;

use super::actor::{Actor, Step};
use super::content::{check, content};
use crate::{Address, CloseReason, Conn, Event, Frame, Io};

/// The sequence that every stream of the suite carries.
const SEED: u64 = 0x5742;

/// The node that answers.
const SERVER: Address = Address(1);

/// A node that is just starting refuses calls; the caller tries again after this long.
const CALL_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How long a machine stays to hear what should not come.
const LINGER: Duration = Duration::from_millis(100);

/// `sizes` cut from the stream's sequence: one frame each, sharing memory, aligned to nothing.
fn cut(sizes: &[usize]) -> Vec<Frame> {
    let all = content(SEED, 0, sizes.iter().sum());
    let mut start = 0;
    let part = |size: &usize| {
        start += size;
        all.slice(start - size..start)
    };
    sizes.iter().map(part).collect()
}

/// Opens one stream to the server, again and again until it is up.
struct Caller {
    conn: Conn,
    open: bool,
    call_at: Option<Instant>,
}

impl Caller {
    const fn new() -> Self {
        Self { conn: Conn(1), open: false, call_at: None }
    }

    /// Handles what concerns the opening. `Some` when that was all there is to this event.
    fn on(&mut self, now: Instant, event: &Event, io: &mut dyn Io) -> Result<Option<Step>, String> {
        match event {
            Event::Closed { conn, reason: CloseReason::Refused } if *conn == self.conn && !self.open => {
                let call_at = now.after(CALL_AGAIN_AFTER);
                self.call_at = Some(call_at);
                Ok(Some(Step::Until(call_at)))
            }
            Event::Wake if self.call_at.is_some_and(|at| now >= at) => {
                self.call_at = None;
                self.conn = Conn(self.conn.0 + 1);
                io.connect(self.conn, SERVER);
                Ok(Some(Step::Wait))
            }
            Event::Opened { conn } if *conn == self.conn && !self.open => {
                self.open = true;
                Ok(None)
            }
            Event::Closed { conn, reason } if *conn == self.conn => {
                Err(format!("{conn:?} closed as {reason:?}, though nobody closed it"))
            }
            Event::Opened { conn } | Event::Received { conn, .. } | Event::Sent { conn }
                if *conn != self.conn || !self.open =>
            {
                Err(format!("{conn:?} speaks, though it is not open"))
            }
            _ => Ok(None),
        }
    }
}

/// What was received of the stream's sequence.
#[derive(Default)]
struct Incoming(u64);

impl Incoming {
    fn take(&mut self, data: &Frame) -> Result<(), String> {
        check(SEED, self.0, data)?;
        self.0 += data.len() as u64;
        Ok(())
    }
}

/// How the bytes of the echo case are cut when they are queued.
const ECHO_SIZES: [usize; 13] = [1, 2, 3, 7, 100, 4095, 4096, 4097, 65_536, 1, 100_000, 300_000, 5];

/// Sends to an echo in many sizes, and compares the order of what comes back.
pub(super) struct EchoCaller {
    caller: Caller,
    incoming: Incoming,
}

impl EchoCaller {
    pub(super) fn new() -> Self {
        Self { caller: Caller::new(), incoming: Incoming::default() }
    }
}

impl Actor for EchoCaller {
    fn start(&mut self, _: Instant, io: &mut dyn Io) -> Result<Step, String> {
        io.connect(self.caller.conn, SERVER);
        Ok(Step::Wait)
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        if let Some(step) = self.caller.on(now, &event, io)? {
            return Ok(step);
        }
        match event {
            Event::Opened { conn } => cut(&ECHO_SIZES).into_iter().for_each(|part| io.stream(conn, part)),
            Event::Received { conn, data } => {
                self.incoming.take(&data)?;
                io.grant(conn, data.len() as u32);
                if self.incoming.0 == ECHO_SIZES.iter().sum::<usize>() as u64 {
                    return Ok(Step::Passed);
                }
            }
            _ => {}
        }
        Ok(Step::Keep)
    }
}

/// Queues `sizes` as soon as its stream is open, then closes it if told so.
pub(super) struct Pusher {
    caller: Caller,
    sizes: Vec<usize>,
    closes: bool,
}

impl Pusher {
    pub(super) fn new(sizes: Vec<usize>, closes: bool) -> Self {
        Self { caller: Caller::new(), sizes, closes }
    }
}

impl Actor for Pusher {
    fn start(&mut self, _: Instant, io: &mut dyn Io) -> Result<Step, String> {
        io.connect(self.caller.conn, SERVER);
        Ok(Step::Wait)
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        if let Some(step) = self.caller.on(now, &event, io)? {
            return Ok(step);
        }
        let Event::Opened { conn } = event else { return Ok(Step::Keep) };
        for part in cut(&self.sizes) {
            io.stream(conn, part);
        }
        if self.closes {
            io.close(conn);
        }
        Ok(Step::Passed)
    }
}

/// What is pushed at a miser: ten times the initial credit.
pub(super) const CREDIT_SIZES: [usize; 10] = [STREAM_CREDIT_INITIAL as usize; 10];

/// Bytes granted one after the other, each when the credit before is used up.
const GRANTS: [u32; 5] = [1, 4095, 65_536, 65_535, 8 * STREAM_CREDIT_INITIAL];

/// How long a miser sits on used-up credit, waiting for bytes that must not come.
const HOLD: Duration = Duration::from_millis(50);

/// Grants credit slowly, and watches that no byte comes without.
#[derive(Default)]
pub(super) struct Miser {
    conn: Option<Conn>,
    incoming: Incoming,
    granted: u64,
    grants: usize,
    grant_at: Option<Instant>,
}

impl Actor for Miser {
    fn start(&mut self, _: Instant, _: &mut dyn Io) -> Result<Step, String> {
        self.granted = u64::from(STREAM_CREDIT_INITIAL);
        Ok(Step::Wait)
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        match event {
            Event::Opened { conn } => accept(&mut self.conn, conn)?,
            Event::Received { data, .. } => {
                self.incoming.take(&data)?;
                if self.incoming.0 > self.granted {
                    return Err(format!("{} bytes received, {} granted", self.incoming.0, self.granted));
                }
                if self.incoming.0 == CREDIT_SIZES.iter().sum::<usize>() as u64 {
                    return Ok(Step::Passed);
                }
                if self.incoming.0 == self.granted {
                    let grant_at = now.after(HOLD);
                    self.grant_at = Some(grant_at);
                    return Ok(Step::Until(grant_at));
                }
            }
            Event::Wake if self.grant_at.is_some_and(|at| now >= at) => {
                self.grant_at = None;
                if let (Some(conn), Some(bytes)) = (self.conn, GRANTS.get(self.grants)) {
                    io.grant(conn, *bytes);
                    self.granted += u64::from(*bytes);
                    self.grants += 1;
                }
                return Ok(Step::Wait);
            }
            Event::Closed { reason, .. } => return Err(format!("closed as {reason:?} while held")),
            _ => {}
        }
        Ok(Step::Keep)
    }
}

/// Remembers the one stream a server of the suite expects.
fn accept(slot: &mut Option<Conn>, conn: Conn) -> Result<(), String> {
    if !conn.is_accepted() {
        return Err(format!("{conn:?} was accepted without the mark of an accepted stream"));
    }
    match slot.replace(conn) {
        None => Ok(()),
        Some(other) => Err(format!("{conn:?} opened beside {other:?}, though only one call was made")),
    }
}

/// What is queued before a close.
pub(super) const CLOSE_SIZES: [usize; 4] = [1, 200_000, 99_998, 1];

/// Receives everything that was queued before the other side closed.
#[derive(Default)]
pub(super) struct Drain {
    conn: Option<Conn>,
    incoming: Incoming,
}

impl Actor for Drain {
    fn start(&mut self, _: Instant, _: &mut dyn Io) -> Result<Step, String> {
        Ok(Step::Wait)
    }

    fn on(&mut self, _: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        match event {
            Event::Opened { conn } => accept(&mut self.conn, conn)?,
            Event::Received { conn, data } => {
                self.incoming.take(&data)?;
                io.grant(conn, data.len() as u32);
            }
            Event::Closed { reason: CloseReason::Ended, .. } => {
                let (got, queued) = (self.incoming.0, CLOSE_SIZES.iter().sum::<usize>());
                if got != queued as u64 {
                    return Err(format!("closed after {got} of the {queued} bytes queued before"));
                }
                return Ok(Step::Passed);
            }
            Event::Closed { reason, .. } => return Err(format!("a finished stream closed as {reason:?}")),
            _ => {}
        }
        Ok(Step::Keep)
    }
}

/// What is queued in each round of the case about `Sent`.
const SENT_ROUNDS: [&[usize]; 4] = [&[1], &[100, 200, 300], &[70_000], &[5, 5, 5, 5, 5, 5, 5, 5, 30_000, 5]];

/// Queues round after round to an echo, each after the `Sent` of the one before, and counts them.
pub(super) struct Rounds {
    caller: Caller,
    round: usize,
    unsent: bool,
    missing: usize,
    end: Option<Instant>,
}

impl Rounds {
    pub(super) const fn new() -> Self {
        Self { caller: Caller::new(), round: 0, unsent: false, missing: 0, end: None }
    }

    fn queue(&mut self, conn: Conn, io: &mut dyn Io) {
        if let Some(sizes) = SENT_ROUNDS.get(self.round) {
            for part in cut(sizes) {
                self.missing += part.len();
                io.stream(conn, part);
            }
            self.round += 1;
            self.unsent = true;
        }
    }
}

impl Actor for Rounds {
    fn start(&mut self, _: Instant, io: &mut dyn Io) -> Result<Step, String> {
        io.connect(self.caller.conn, SERVER);
        Ok(Step::Wait)
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        if let Some(step) = self.caller.on(now, &event, io)? {
            return Ok(step);
        }
        match event {
            Event::Opened { conn } => self.queue(conn, io),
            Event::Sent { conn } => {
                if !self.unsent {
                    return Err("Sent, though nothing was queued since the last one".into());
                }
                self.unsent = false;
                self.queue(conn, io);
            }
            Event::Received { conn, data } => {
                self.missing = self.missing.checked_sub(data.len()).ok_or("more came back than was sent")?;
                io.grant(conn, data.len() as u32);
            }
            Event::Wake if self.end.is_some_and(|end| now >= end) => return Ok(Step::Passed),
            _ => return Ok(Step::Keep),
        }
        if self.missing == 0 && !self.unsent && self.round == SENT_ROUNDS.len() {
            let end = now.after(LINGER);
            self.end = Some(end);
            return Ok(Step::Until(end));
        }
        Ok(Step::Keep)
    }
}

/// Calls where nobody listens: a node that is not there, and an address that is in no book.
#[derive(Default)]
pub(super) struct WrongNumber {
    refused: Vec<Conn>,
}

const DEAD: [(Conn, Address); 2] = [(Conn(1), SERVER), (Conn(2), Address(u16::MAX))];

impl Actor for WrongNumber {
    fn start(&mut self, _: Instant, io: &mut dyn Io) -> Result<Step, String> {
        for (conn, to) in DEAD {
            io.connect(conn, to);
        }
        Ok(Step::Wait)
    }

    fn on(&mut self, _: Instant, event: Event, _: &mut dyn Io) -> Result<Step, String> {
        match event {
            Event::Closed { conn, reason } => {
                if reason != CloseReason::Refused {
                    return Err(format!("{conn:?} could not be opened, and closed as {reason:?}"));
                }
                if self.refused.contains(&conn) {
                    return Err(format!("{conn:?} was refused twice"));
                }
                self.refused.push(conn);
                Ok(if self.refused.len() == DEAD.len() { Step::Passed } else { Step::Keep })
            }
            Event::Opened { conn } => Err(format!("{conn:?} opened, though nobody listens")),
            _ => Ok(Step::Keep),
        }
    }
}

/// Closes a stream in the middle of what it receives, another before it is open, and hears no more of them.
pub(super) struct Deserter {
    caller: Caller,
    end: Option<Instant>,
}

/// Closed before it can be open.
const HASTY: Conn = Conn(1 << 40);

impl Deserter {
    pub(super) const fn new() -> Self {
        Self { caller: Caller::new(), end: None }
    }
}

impl Actor for Deserter {
    fn start(&mut self, _: Instant, io: &mut dyn Io) -> Result<Step, String> {
        io.connect(self.caller.conn, SERVER);
        Ok(Step::Wait)
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        if let Some(end) = self.end {
            return match event {
                Event::Opened { conn }
                | Event::Received { conn, .. }
                | Event::Sent { conn }
                | Event::Closed { conn, .. } => Err(format!("{conn:?} speaks after it was closed")),
                Event::Wake if now >= end => Ok(Step::Passed),
                _ => Ok(Step::Keep),
            };
        }
        if let Some(step) = self.caller.on(now, &event, io)? {
            return Ok(step);
        }
        let Event::Received { conn, .. } = event else { return Ok(Step::Keep) };
        io.close(conn);
        io.connect(HASTY, SERVER);
        io.close(HASTY);
        let end = now.after(LINGER);
        self.end = Some(end);
        Ok(Step::Until(end))
    }
}

/// Pours bytes into every stream it accepts.
pub(super) struct Hose;

impl Actor for Hose {
    fn start(&mut self, _: Instant, _: &mut dyn Io) -> Result<Step, String> {
        Ok(Step::Passed)
    }

    fn on(&mut self, _: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        if let Event::Opened { conn } = event {
            for part in cut(&[10_000; 20]) {
                io.stream(conn, part);
            }
        }
        Ok(Step::Keep)
    }
}
