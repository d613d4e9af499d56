//! Byte streams to and from clients.
//!
//! - Bytes are received only against credit, so a fast sender is stopped by its own full socket.
//! - A stream of small messages is received by one operation that goes on until it is cancelled. What it brings
//!   beyond the credit is held, little of it: who fills a buffer is received singly from then on, into memory
//!   of its own, until it falls quiet.
//! - Bytes to send queue up to a limit; a client that does not read is disconnected there.
//! - A stream that was closed on this side sends what is queued, ends its direction, and then discards what
//!   still arrives until the other side ends too or a deadline passes: closing a socket with unread bytes
//!   would reset the connection and could take the last reply with it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use kimberlite_io::{Address, Buf, CloseReason, Conn, Event, Frame};
use kimberlite_types::Instant;
use kimberlite_types::limits::{CONNECTIONS_MAX, STREAM_CREDIT_INITIAL, STREAM_QUEUE_MAX};
use rustix::io::Errno;
use rustix::net::Shutdown;

use crate::clock;
use crate::desk::Desk;
use crate::ring::{BUFFER_SIZE, Completion, FlightId, Gather, Load, Pieces, Purpose};
use crate::sockets;
use crate::stats::DriverNote;

/// How long a closed stream may take to send what is queued and to hear the other side's end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one receive: the first guess, and the most. The guess grows while it is filled, so that a quiet
/// connection holds little memory.
const RECEIVE_FIRST: usize = BUFFER_SIZE;
const RECEIVE_LAST: usize = 64 << 10;

/// The credit without which no receive is begun that goes on: it may bring this much before it is cancelled.
const MANY_CREDIT: u64 = 32 << 10;

/// Frames in one send.
const SEND_FRAMES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    /// The core has nothing to do with it any more; what is queued is still sent.
    Closing,
}

/// How a stream is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    /// Not at all: without credit, or after the end.
    Not,
    /// Once.
    Single,
    /// On and on.
    Many(FlightId),
    /// On and on until the cancel that was asked is heard.
    Ending,
}

struct Stream {
    socket: Arc<OwnedFd>,
    phase: Phase,
    /// Bytes that the machine may still be told of.
    credit: u64,
    /// What arrived beyond the credit.
    held: VecDeque<Frame>,
    receive_size: usize,
    connect: Option<FlightId>,
    receive: Receive,
    send: Option<FlightId>,
    queue: VecDeque<Frame>,
    /// Bytes in `queue` and in the send in flight.
    queued: u64,
    /// Whether our direction, or theirs, has ended.
    we_ended: bool,
    they_ended: bool,
}

/// All streams.
pub(crate) struct Streams {
    address_book: Vec<SocketAddr>,
    live: HashMap<Conn, Stream>,
    accepted: usize,
    names: u64,
    /// Streams in phase `Closing`, in the order of their deadlines. Those that ended sooner are still listed.
    closing: VecDeque<(Instant, Conn)>,
    /// Streams that were given bytes in this round.
    touched: Vec<Conn>,
}

impl Streams {
    pub(crate) fn new(address_book: Vec<SocketAddr>) -> Self {
        Self {
            address_book,
            live: HashMap::new(),
            accepted: 0,
            names: 0,
            closing: VecDeque::new(),
            touched: Vec::new(),
        }
    }

    /// Takes a connection from a client.
    pub(crate) fn accept(&mut self, desk: &mut Desk, socket: OwnedFd) {
        if self.accepted == CONNECTIONS_MAX {
            desk.ledger.stats.clients_refused += 1;
            return; // Dropping the socket closes it.
        }
        desk.ledger.stats.clients_accepted += 1;
        sockets::tune(&socket);
        self.accepted += 1;
        self.names += 1;
        let conn = Conn(Conn::ACCEPTED | self.names);
        let mut stream = Stream::new(socket, Phase::Open);
        desk.events.push_back(Event::Opened { conn });
        stream.pump_receive(desk, conn);
        self.live.insert(conn, stream);
    }

    /// Opens a stream.
    pub(crate) fn connect(&mut self, desk: &mut Desk, conn: Conn, to: Address) {
        assert!(!conn.is_accepted(), "the ids of accepted streams are given by the driver");
        assert!(!self.live.contains_key(&conn), "the id of a stream is used once: {conn:?}");
        let address = self.address_book.get(usize::from(to.0)).copied();
        if let Some(address) = address
            && let Ok(socket) = sockets::open(address)
        {
            sockets::tune(&socket);
            let mut stream = Stream::new(socket, Phase::Connecting);
            let purpose = Purpose::StreamConnect(conn);
            stream.connect = Some(desk.ring.connect(purpose, &stream.socket, address));
            self.live.insert(conn, stream);
        } else {
            desk.events.push_back(Event::Closed { conn, reason: CloseReason::Refused });
        }
    }

    /// Queues bytes.
    pub(crate) fn stream(&mut self, desk: &mut Desk, conn: Conn, data: Frame) {
        let Some(stream) = self.live.get_mut(&conn) else { return };
        assert!(stream.phase != Phase::Connecting, "{conn:?} is not open yet");
        if stream.phase == Phase::Closing {
            return;
        }
        let queued = stream.queued + data.len() as u64;
        if queued > STREAM_QUEUE_MAX {
            desk.ledger.stats.slow_readers += 1;
            desk.ledger.note(DriverNote::SlowReader { queued });
            self.break_stream(desk, conn);
            return;
        }
        if data.is_empty() {
            if stream.phase == Phase::Open && stream.queued == 0 {
                desk.events.push_back(Event::Sent { conn });
            }
            return;
        }
        stream.queued = queued;
        stream.queue.push_back(data);
        self.touched.push(conn);
        // Sending starts in `flush`, so that all that one event causes leaves in one call.
    }

    /// Allows more to be received.
    pub(crate) fn grant(&mut self, desk: &mut Desk, conn: Conn, bytes: u32) {
        if let Some(stream) = self.live.get_mut(&conn) {
            assert!(stream.phase != Phase::Connecting, "{conn:?} is not open yet");
            stream.credit += u64::from(bytes);
            stream.release(desk, conn);
            stream.pump_receive(desk, conn);
            if stream.they_ended && stream.held.is_empty() && stream.phase == Phase::Open {
                desk.events.push_back(Event::Closed { conn, reason: CloseReason::Ended });
                self.wind_down(desk, conn, clock::now().monotonic);
            }
        }
    }

    /// Ends a stream from this side. Nothing more is heard of it, not even what is already here.
    pub(crate) fn close(&mut self, desk: &mut Desk, conn: Conn, now: Instant) {
        match self.live.get(&conn).map(|stream| stream.phase) {
            Some(Phase::Connecting) => self.remove(desk, conn),
            Some(Phase::Open) => self.wind_down(desk, conn, now),
            Some(Phase::Closing) | None => {}
        }
        desk.events.retain(|event| !is_about(event, conn));
    }

    /// Whether `event` tells what is no longer so: a `Sent` after which more was queued. Another one follows.
    pub(crate) fn is_outdated(&self, event: &Event) -> bool {
        let Event::Sent { conn } = event else { return false };
        self.live.get(conn).is_some_and(|stream| stream.phase == Phase::Open && stream.queued > 0)
    }

    /// Sends what was queued in this round.
    pub(crate) fn flush(&mut self, desk: &mut Desk) {
        for conn in self.touched.drain(..) {
            if let Some(stream) = self.live.get_mut(&conn) {
                stream.pump_send(desk, conn);
            }
        }
    }

    /// Gives up on closed streams whose time is over.
    pub(crate) fn tick(&mut self, desk: &mut Desk, now: Instant) {
        while let Some((until, conn)) = self.closing.front().copied()
            && until <= now
        {
            self.closing.pop_front();
            self.remove(desk, conn);
        }
    }

    /// When `tick` is needed next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.closing.front().map(|(until, _)| *until)
    }

    /// Takes the completion of a stream's operation.
    pub(crate) fn on_completion(&mut self, desk: &mut Desk, now: Instant, completion: Completion) {
        let Completion { purpose, load, result, more } = completion;
        match purpose {
            Purpose::StreamConnect(conn) => self.on_connect(desk, conn, result),
            Purpose::StreamReceive(conn) => {
                if let Some(stream) = self.live.get_mut(&conn)
                    && !more
                {
                    stream.receive = Receive::Not;
                }
                self.on_receive(desk, now, conn, load, result);
            }
            Purpose::StreamSend(conn) => self.on_send(desk, conn, load.into_gather(), result),
            _ => unreachable!("only stream operations are routed here"),
        }
    }

    fn on_connect(&mut self, desk: &mut Desk, conn: Conn, result: Result<usize, Errno>) {
        let Some(stream) = self.live.get_mut(&conn) else { return };
        stream.connect = None;
        if result.is_err() {
            self.remove(desk, conn);
            desk.events.push_back(Event::Closed { conn, reason: CloseReason::Refused });
            return;
        }
        stream.phase = Phase::Open;
        desk.events.push_back(Event::Opened { conn });
        stream.pump_receive(desk, conn);
        stream.pump_send(desk, conn);
    }

    fn on_receive(
        &mut self,
        desk: &mut Desk,
        now: Instant,
        conn: Conn,
        load: Load,
        result: Result<usize, Errno>,
    ) {
        let Some(stream) = self.live.get_mut(&conn) else { return };
        match (result, stream.phase) {
            // Interrupted, cancelled, or out of buffers for a moment: asked again below.
            (Err(Errno::INTR | Errno::AGAIN | Errno::CANCELED | Errno::NOBUFS), _) => {}
            (Err(Errno::INVAL), _) if desk.ring.receives_many() => desk.ring.receive_singly(),
            (Ok(0), Phase::Closing) => stream.they_ended = true,
            (Ok(0), _) => {
                stream.they_ended = true;
                if stream.held.is_empty() {
                    desk.events.push_back(Event::Closed { conn, reason: CloseReason::Ended });
                    return self.wind_down(desk, conn, now);
                }
            }
            (Ok(bytes), phase) => {
                desk.ledger.stats.bytes_received += bytes as u64;
                if phase == Phase::Open {
                    stream.take_in(desk, load, bytes);
                    stream.release(desk, conn);
                }
            }
            (Err(_), Phase::Closing) => return self.remove(desk, conn),
            (Err(_), _) => return self.break_stream(desk, conn),
        }
        let stream = self.live.get_mut(&conn).expect("still there");
        stream.pump_receive(desk, conn);
        self.remove_if_over(desk, conn);
    }

    fn on_send(
        &mut self,
        desk: &mut Desk,
        conn: Conn,
        mut gather: Box<Gather>,
        result: Result<usize, Errno>,
    ) {
        let Some(stream) = self.live.get_mut(&conn) else { return };
        stream.send = None;
        match result {
            Ok(bytes) => {
                desk.ledger.stats.bytes_sent += bytes as u64;
                stream.queued -= bytes as u64;
                gather.advance(bytes);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) if stream.phase == Phase::Closing => return self.remove(desk, conn),
            Err(_) => return self.break_stream(desk, conn),
        }
        if gather.left() > 0 {
            stream.send = Some(desk.ring.send(Purpose::StreamSend(conn), &stream.socket, gather));
        } else if stream.queued == 0 && stream.phase == Phase::Open {
            desk.events.push_back(Event::Sent { conn });
        } else {
            stream.pump_send(desk, conn);
            self.remove_if_over(desk, conn);
        }
    }

    /// Turns an open stream into one that only finishes.
    fn wind_down(&mut self, desk: &mut Desk, conn: Conn, now: Instant) {
        let stream = self.live.get_mut(&conn).expect("the caller looked it up");
        stream.phase = Phase::Closing;
        stream.held.clear();
        self.closing.push_back((now.after(CLOSE_TIMEOUT), conn));
        stream.pump_send(desk, conn);
        stream.pump_receive(desk, conn);
        self.remove_if_over(desk, conn);
    }

    /// Ends a stream that failed, and says so.
    fn break_stream(&mut self, desk: &mut Desk, conn: Conn) {
        self.remove(desk, conn);
        desk.events.push_back(Event::Closed { conn, reason: CloseReason::Broken });
    }

    fn remove_if_over(&mut self, desk: &mut Desk, conn: Conn) {
        if self.live.get(&conn).is_some_and(|stream| stream.we_ended && stream.they_ended) {
            self.remove(desk, conn);
        }
    }

    /// Forgets a stream. Its operations in flight complete and find nobody.
    fn remove(&mut self, desk: &mut Desk, conn: Conn) {
        let Some(stream) = self.live.remove(&conn) else { return };
        self.accepted -= usize::from(conn.is_accepted());
        if let Some(connect) = stream.connect {
            desk.ring.cancel(connect);
        }
        if stream.connect.or(stream.send).is_some() || stream.receive != Receive::Not {
            sockets::hang_up(&stream.socket);
        }
    }
}

impl Stream {
    fn new(socket: OwnedFd, phase: Phase) -> Self {
        Self {
            socket: Arc::new(socket),
            phase,
            credit: u64::from(STREAM_CREDIT_INITIAL),
            held: VecDeque::new(),
            receive_size: RECEIVE_FIRST,
            connect: None,
            receive: Receive::Not,
            send: None,
            queue: VecDeque::new(),
            queued: 0,
            we_ended: false,
            they_ended: false,
        }
    }

    /// Keeps what a receive brought, and judges by it how to receive next.
    fn take_in(&mut self, desk: &mut Desk, load: Load, bytes: usize) {
        let data = match load {
            Load::Arrived(data) => {
                if bytes == BUFFER_SIZE {
                    self.receive_size = RECEIVE_FIRST * 4;
                    self.end_many(desk);
                }
                data
            }
            load => {
                let buf = load.into_buf();
                let capacity = buf.len();
                if bytes == capacity {
                    self.receive_size = (self.receive_size * 4).min(RECEIVE_LAST);
                } else if bytes < capacity / 4 {
                    self.receive_size = RECEIVE_FIRST;
                }
                // A few bytes should not keep a large buffer alive.
                if bytes < capacity / 4 { Frame::packed(&buf[..bytes]) } else { buf.freeze().slice(0..bytes) }
            }
        };
        self.held.push_back(data);
    }

    /// Tells the machine what was received, as far as the credit goes.
    fn release(&mut self, desk: &mut Desk, conn: Conn) {
        while self.credit > 0
            && let Some(data) = self.held.pop_front()
        {
            let now = data.len().min(usize::try_from(self.credit).unwrap_or(usize::MAX));
            if now < data.len() {
                self.held.push_front(data.slice(now..data.len()));
            }
            self.credit -= now as u64;
            desk.events.push_back(Event::Received { conn, data: data.slice(0..now) });
        }
        if !self.held.is_empty() {
            self.end_many(desk);
        }
    }

    fn end_many(&mut self, desk: &mut Desk) {
        if let Receive::Many(flight) = self.receive {
            desk.ring.cancel(flight);
            self.receive = Receive::Ending;
        }
    }

    /// Receives if there is credit, or if what comes is thrown away.
    fn pump_receive(&mut self, desk: &mut Desk, conn: Conn) {
        if self.receive != Receive::Not || self.they_ended || !self.held.is_empty() {
            return;
        }
        let purpose = Purpose::StreamReceive(conn);
        let (many, len) = match self.phase {
            Phase::Connecting => return,
            Phase::Open => (self.credit >= MANY_CREDIT, self.credit.min(self.receive_size as u64) as usize),
            Phase::Closing => (true, self.receive_size),
        };
        if many && self.receive_size == RECEIVE_FIRST && desk.ring.receives_many() {
            desk.ledger.stats.stream_receives += 1;
            self.receive = Receive::Many(desk.ring.receive_many(purpose, &self.socket));
        } else if len > 0 {
            desk.ledger.stats.stream_receives += 1;
            desk.ring.receive(purpose, &self.socket, Buf::packed(len), 0, len, false);
            self.receive = Receive::Single;
        }
    }

    /// Sends what is queued, or ends our direction when there is nothing left to send.
    fn pump_send(&mut self, desk: &mut Desk, conn: Conn) {
        if self.phase == Phase::Connecting || self.send.is_some() {
            return;
        }
        if !self.queue.is_empty() {
            let count = self.queue.len().min(SEND_FRAMES_MAX);
            let gather = Gather::new(Pieces::Frames(self.queue.drain(..count).collect()));
            self.send = Some(desk.ring.send(Purpose::StreamSend(conn), &self.socket, gather));
        } else if self.phase == Phase::Closing && !self.we_ended {
            // Failing means that the connection is gone, which the receive in flight will find.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
            self.we_ended = true;
        }
    }
}

fn is_about(event: &Event, stream: Conn) -> bool {
    match event {
        Event::Opened { conn }
        | Event::Received { conn, .. }
        | Event::Sent { conn }
        | Event::Closed { conn, .. } => *conn == stream,
        _ => false,
    }
}
