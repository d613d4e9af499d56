//! The driver: one thread, one ring, the caller's loop.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use kimberlite_io::{Address, Buf, Conn, Disk, Event, Frame, Framing, Net, Packet, Place, Token};
use kimberlite_types::limits::CONNECTIONS_MAX;
use kimberlite_types::{Instant, Now, ReplicaId, Streams as Luck};

use crate::clock;
use crate::descriptors;
use crate::desk::Desk;
use crate::directory::DataDirectory;
use crate::disk::Data;
use crate::error::{DriverError, OpenError};
use crate::inbound::Inbound;
use crate::links::Links;
use crate::ring::{Completion, Load, Purpose, Ring};
use crate::sockets::{Listener, Port};
use crate::stats::{DriverNote, Ledger, Stats};
use crate::streams::Streams;
use crate::waker::Waker;

/// The wait before connections are accepted again after that failed for lack of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Events that are given one reading of the clocks: reading both takes as long as a hundredth of a small request.
const EVENTS_PER_CLOCK: u8 = 16;

/// Descriptors of a full node: its clients, and room for segments, replicas and the program itself.
const DESCRIPTORS_WANTED: u64 = CONNECTIONS_MAX as u64 + 512;

/// What a driver is opened with. A client program needs only an address book.
#[derive(Debug, Default)]
pub struct Options {
    /// The data directory; without it the driver has no disk.
    pub data: Option<DataDirectory>,
    /// Where peers connect to. Port 0 lets the kernel choose. Needs `framing`.
    pub replica_listen: Option<SocketAddr>,
    /// Where clients connect to. Port 0 lets the kernel choose.
    pub client_listen: Option<SocketAddr>,
    /// Which of `peers` this is; without it there are no links.
    pub replica: Option<ReplicaId>,
    /// The replica ports of the cluster's members, by replica. The own entry is ignored.
    pub peers: Vec<SocketAddr>,
    /// What `Address(i)` means.
    pub address_book: Vec<SocketAddr>,
    /// Where a message between replicas ends.
    pub framing: Option<Framing>,
}

/// The real world behind the waist. See the crate's documentation.
///
/// It may be moved to another thread until `next` is called first, and belongs to that thread from then on.
pub struct Driver {
    /// First, so that it is dropped first: its drop waits until the kernel has let go of everything.
    desk: Desk,
    data: Option<Data>,
    links: Links,
    inbound: Inbound,
    streams: Streams,
    listeners: Vec<Listener>,
    /// Listeners that could not accept, and when they try again.
    stalled: Vec<(Instant, Port)>,
    waker: Waker,
    /// The clocks as they were read last, and for how many more events that will do.
    time: Now,
    clock_good_for: u8,
    /// Whether `Event::Wake` for a time was the last thing said. Then an event goes first, so that a
    /// machine that wants to be woken in the past still hears of the world.
    woke_last: bool,
}

impl Driver {
    /// Opens everything that `options` names. Nothing happens before the first call of `next`.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        assert!(
            options.replica_listen.is_none() || options.framing.is_some(),
            "who listens for replicas knows where their messages end"
        );
        let descriptors = options.client_listen.and_then(|_| descriptors::ask_for(DESCRIPTORS_WANTED));
        let resources = |error: rustix::io::Errno| OpenError::Resources { error: error.into() };
        let waker = Waker::new().map_err(resources)?;
        let ring = Ring::open()?;
        let mut desk = Desk { ring, events: VecDeque::new(), ledger: Ledger::default() };
        if let Some(limit) = descriptors {
            desk.ledger.note(DriverNote::FewDescriptors { limit, wanted: DESCRIPTORS_WANTED });
        }
        let mut listeners = Vec::new();
        for (port, address) in
            [(Port::Replica, options.replica_listen), (Port::Client, options.client_listen)]
        {
            if let Some(address) = address {
                listeners.push(Listener::open(port, address)?);
            }
        }
        let data = match options.data {
            Some(directory) => Some(Data::open(directory, &mut desk, waker.clone())?),
            None => None,
        };
        // Jitter only has to differ between replicas that restart together.
        let seed = clock::now().wall.0 ^ u64::from(std::process::id()) << 32;
        let jitter = Luck::new(seed).stream("link", options.replica.map_or(0, |own| u64::from(own.0)));
        desk.ring.await_eventfd(Purpose::Waker, waker.eventfd(), Buf::zeroed(8));
        for listener in &listeners {
            desk.ring.accept(Purpose::Accept(listener.port), &listener.socket, listener.many);
        }
        Ok(Self {
            desk,
            data,
            links: Links::new(options.replica, &options.peers, jitter),
            inbound: Inbound::new(options.framing),
            streams: Streams::new(options.address_book),
            listeners,
            stalled: Vec::new(),
            waker,
            time: clock::now(),
            clock_good_for: 0,
            woke_last: false,
        })
    }

    /// Both clocks, read now. No event that follows is told with an earlier time.
    pub fn now(&mut self) -> Now {
        self.clock_good_for = 0;
        self.time()
    }

    /// The next event, waiting for it. `Event::Wake` comes when `wake_at` is reached or the waker was used.
    ///
    /// What was asked since the events ran out last is handed to the kernel here, all at once.
    pub fn next(&mut self, wake_at: Option<Instant>) -> Result<(Now, Event), DriverError> {
        loop {
            let now = self.time();
            let due = wake_at.is_some_and(|at| at <= now.monotonic);
            if due && !self.woke_last {
                self.woke_last = true;
                return Ok((now, Event::Wake));
            }
            if let Some(event) = self.pop() {
                self.woke_last = false;
                return Ok((now, event));
            }
            self.tick(now.monotonic);
            let until = [wake_at, self.deadline()].into_iter().flatten().min();
            // An event of this very round, such as the answer to a read of nothing, is not waited for.
            let wait = match until {
                _ if !self.desk.events.is_empty() => Some(Duration::ZERO),
                until => until.map(|until| until.since(now.monotonic)),
            };
            self.desk.ring.enter(wait).map_err(|error| DriverError { error })?;
            self.clock_good_for = 0;
            self.dispatch();
            if due {
                self.woke_last = false;
            }
        }
    }

    /// The time for one more event. It is read anew after each wait and every [`EVENTS_PER_CLOCK`] events: those
    /// that arrived together are handled within some microseconds of each other.
    fn time(&mut self) -> Now {
        if self.clock_good_for == 0 {
            self.clock_good_for = EVENTS_PER_CLOCK;
            self.time = clock::now();
        }
        self.clock_good_for -= 1;
        self.time
    }

    /// The next event that is already here. Hands nothing to the kernel and waits for nothing.
    pub fn try_next(&mut self) -> Option<(Now, Event)> {
        let event = self.pop()?;
        self.woke_last = false;
        Some((self.time(), event))
    }

    /// The next event that still holds.
    fn pop(&mut self) -> Option<Event> {
        loop {
            let event = self.desk.events.pop_front()?;
            if !self.streams.is_outdated(&event) {
                return Some(event);
            }
        }
    }

    /// Something to wake this driver with from another thread or a signal handler.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.desk.ledger.stats
    }

    /// What there is to tell people since the last time.
    pub fn take_notes(&mut self) -> Vec<DriverNote> {
        self.desk.ledger.take_notes()
    }

    /// Where the driver really listens: for replicas, for clients.
    pub fn local_addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let address = |port| self.listener(port).map(|listener| listener.address);
        (address(Port::Replica), address(Port::Client))
    }

    fn listener(&self, port: Port) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.port == port)
    }

    /// Starts what is due and what was asked.
    fn tick(&mut self, now: Instant) {
        let desk = &mut self.desk;
        if let Some(data) = &mut self.data {
            data.flush(desk);
        }
        self.links.tick(desk, now);
        self.streams.flush(desk);
        self.streams.tick(desk, now);
        let listeners = &self.listeners;
        self.stalled.retain(|(at, port)| {
            let due = *at <= now;
            if due && let Some(listener) = listeners.iter().find(|listener| listener.port == *port) {
                desk.ring.accept(Purpose::Accept(*port), &listener.socket, listener.many);
            }
            !due
        });
    }

    /// When `tick` is needed next.
    fn deadline(&self) -> Option<Instant> {
        let stalled = self.stalled.iter().map(|(at, _)| *at).min();
        [self.links.deadline(), self.streams.deadline(), stalled].into_iter().flatten().min()
    }

    /// Routes all completions to whoever asked.
    fn dispatch(&mut self) {
        let now = self.time().monotonic;
        while let Some(completion) = self.desk.ring.next_completion() {
            let desk = &mut self.desk;
            match completion.purpose {
                Purpose::Waker => self.on_waker(completion),
                Purpose::Accept(port) => self.on_accept(now, port, completion),
                Purpose::Read(_) | Purpose::Write(_) | Purpose::Sync(_) | Purpose::Trim(_) => {
                    let data = self.data.as_mut().expect("only a driver with data asks its disk");
                    data.on_completion(desk, completion);
                }
                Purpose::StreamConnect(_) | Purpose::StreamReceive(_) | Purpose::StreamSend(_) => {
                    self.streams.on_completion(desk, now, completion);
                }
                Purpose::LinkConnect(_) | Purpose::LinkWatch(_) | Purpose::LinkSend(_) => {
                    self.links.on_completion(desk, now, completion);
                }
                Purpose::InboundReceive(_) => self.inbound.on_completion(desk, now, completion),
                Purpose::Cancel => unreachable!("the ring keeps the completions of cancels to itself"),
            }
        }
    }

    fn on_waker(&mut self, completion: Completion) {
        self.desk.ring.await_eventfd(Purpose::Waker, self.waker.eventfd(), completion.load.into_buf());
        if self.waker.take() {
            self.desk.events.push_back(Event::Wake);
        }
        if let Some(data) = &mut self.data {
            data.on_segments(&mut self.desk);
        }
    }

    fn on_accept(&mut self, now: Instant, port: Port, completion: Completion) {
        let desk = &mut self.desk;
        if let Load::Socket(socket) = completion.load {
            match port {
                Port::Replica => self.inbound.accept(desk, now, socket),
                Port::Client => self.streams.accept(desk, socket),
            }
        }
        if completion.more {
            return;
        }
        let listener = self.listeners.iter_mut().find(|listener| listener.port == port);
        let listener = listener.expect("a listener accepts");
        match completion.result {
            Err(rustix::io::Errno::INVAL) if listener.many => listener.many = false,
            Err(error) if !is_of_one_connection(error) => {
                desk.ledger.stats.accept_failures += 1;
                desk.ledger.note(DriverNote::AcceptFailed { reason: error.to_string() });
                self.stalled.push((now.after(ACCEPT_BACKOFF), port));
                return;
            }
            _ => {}
        }
        desk.ring.accept(Purpose::Accept(port), &listener.socket, listener.many);
    }

    fn disk(&mut self) -> (&mut Data, &mut Desk) {
        (self.data.as_mut().expect("only a driver with data asks its disk"), &mut self.desk)
    }
}

/// Whether a failed accept says something about the one connection only, see accept(2).
fn is_of_one_connection(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::CONNABORTED | Errno::INTR | Errno::AGAIN | Errno::PROTO | Errno::NETDOWN)
}

impl Disk for Driver {
    fn read(&mut self, token: Token, at: Place, buf: Buf) {
        let (data, desk) = self.disk();
        data.read(desk, token, at, buf);
    }

    fn write(&mut self, token: Token, at: Place, data: Frame) {
        self.disk().0.write(token, at, data);
    }

    fn trim(&mut self, token: Token, at: Place, len: u64) {
        let (data, desk) = self.disk();
        data.trim(desk, token, at, len);
    }
}

impl Net for Driver {
    fn send(&mut self, to: ReplicaId, packet: Packet) {
        self.links.send(&mut self.desk, to, packet);
    }

    fn connect(&mut self, conn: Conn, to: Address) {
        self.streams.connect(&mut self.desk, conn, to);
    }

    fn stream(&mut self, conn: Conn, data: Frame) {
        self.streams.stream(&mut self.desk, conn, data);
    }

    fn grant(&mut self, conn: Conn, bytes: u32) {
        self.streams.grant(&mut self.desk, conn, bytes);
    }

    fn close(&mut self, conn: Conn) {
        self.streams.close(&mut self.desk, conn, clock::now().monotonic);
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("stats", self.stats()).finish_non_exhaustive()
    }
}
