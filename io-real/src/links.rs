//! Links to other replicas: one connection per peer, used for sending only. What peers send comes in on
//! connections of theirs, see `inbound`.
//!
//! A link is opened at once, and again whenever it breaks, with a growing, jittered wait in between. While
//! it is down, messages queue up to a limit, the oldest making room. The peer never writes on this
//! connection; a receive is kept in flight so that its end is noticed even when nothing is sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use kimberlite_io::{Buf, Packet};
use kimberlite_types::limits::LINK_QUEUE_MAX;
use kimberlite_types::{Instant, ReplicaId, Rng};

use crate::desk::Desk;
use crate::ring::{Completion, FlightId, Gather, Pieces, Purpose};
use crate::sockets;
use crate::stats::DriverNote;

/// The wait before a link is opened again: doubled from the first to the last, half of it random.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// A link that lasted this long starts over with the first wait.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages in one send. 16 x 1 MiB fills any socket buffer; acknowledgements queue in tens.
const SEND_PACKETS_MAX: usize = 16;

/// One connection of one link. Completions of older connections are told apart by the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkId {
    peer: u8,
    epoch: u64,
}

enum State {
    Down { retry_at: Instant },
    Connecting { socket: Arc<OwnedFd>, connect: FlightId, until: Instant },
    Up { socket: Arc<OwnedFd>, since: Instant, sending: bool },
}

struct Link {
    peer: ReplicaId,
    address: SocketAddr,
    epoch: u64,
    state: State,
    backoff: Duration,
    queue: VecDeque<Packet>,
}

/// All links of this replica.
pub(crate) struct Links {
    own: Option<ReplicaId>,
    /// None to itself.
    by_peer: Vec<Option<Link>>,
    jitter: Rng,
}

impl Links {
    /// Links to all `peers` but `own`; none at all if this is no replica.
    pub(crate) fn new(own: Option<ReplicaId>, peers: &[SocketAddr], jitter: Rng) -> Self {
        let link = |(index, address): (usize, &SocketAddr)| {
            let peer = ReplicaId(u8::try_from(index).expect("a cluster has at most 256 members"));
            (own.is_some() && own != Some(peer)).then(|| Link {
                peer,
                address: *address,
                epoch: 0,
                state: State::Down { retry_at: Instant::ZERO },
                backoff: BACKOFF_FIRST,
                queue: VecDeque::new(),
            })
        };
        Self { own, by_peer: peers.iter().enumerate().map(link).collect(), jitter }
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, desk: &mut Desk, to: ReplicaId, packet: Packet) {
        assert!(self.own.is_some(), "only a replica sends messages");
        assert!(self.own != Some(to), "a replica sends no message to itself");
        let link = self.by_peer.get_mut(usize::from(to.0)).and_then(Option::as_mut);
        let link = link.expect("messages go to members of the cluster the driver was opened for");
        if link.queue.len() == LINK_QUEUE_MAX {
            link.queue.pop_front();
            desk.ledger.stats.link_queue_drops += 1;
        }
        link.queue.push_back(packet);
    }

    /// Starts what is due: connections to open, connections that took too long, queues to send.
    pub(crate) fn tick(&mut self, desk: &mut Desk, now: Instant) {
        for link in self.by_peer.iter_mut().flatten() {
            match link.state {
                State::Down { retry_at } if retry_at <= now => link.connect(desk, &mut self.jitter, now),
                State::Connecting { until, .. } if until <= now => link.fail(desk, &mut self.jitter, now),
                _ => {}
            }
            link.pump(desk);
        }
    }

    /// When `tick` is needed next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadline = |link: &Link| match link.state {
            State::Down { retry_at } => Some(retry_at),
            State::Connecting { until, .. } => Some(until),
            State::Up { .. } => None,
        };
        self.by_peer.iter().flatten().filter_map(deadline).min()
    }

    /// Takes the completion of a link's operation.
    pub(crate) fn on_completion(&mut self, desk: &mut Desk, now: Instant, completion: Completion) {
        let Completion { purpose, load, result, .. } = completion;
        let (Purpose::LinkConnect(id) | Purpose::LinkWatch(id) | Purpose::LinkSend(id)) = purpose else {
            unreachable!("only link operations are routed here")
        };
        let link = self.by_peer[usize::from(id.peer)].as_mut().expect("an operation belongs to a link");
        let current = link.epoch == id.epoch;
        let jitter = &mut self.jitter;
        match purpose {
            Purpose::LinkConnect(_) if current => match result {
                Ok(_) => link.open(desk, now),
                Err(_) => link.fail(desk, jitter, now),
            },
            // The end, an error, or bytes that have no business here: in each case it is no link any more.
            Purpose::LinkWatch(_) if current => link.fail(desk, jitter, now),
            Purpose::LinkSend(_) => {
                let mut gather = load.into_gather();
                match (result, &mut link.state) {
                    (Ok(bytes), State::Up { socket, sending, .. }) if current => {
                        desk.ledger.stats.bytes_sent += bytes as u64;
                        gather.advance(bytes);
                        if gather.left() > 0 {
                            desk.ring.send(purpose, socket, gather);
                        } else {
                            *sending = false;
                            desk.ledger.stats.messages_sent += gather.packets() as u64;
                            link.pump(desk);
                        }
                    }
                    _ => {
                        desk.ledger.stats.link_send_losses += gather.packets() as u64;
                        if current {
                            link.fail(desk, jitter, now);
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

impl Link {
    fn id(&self) -> LinkId {
        LinkId { peer: self.peer.0, epoch: self.epoch }
    }

    fn connect(&mut self, desk: &mut Desk, jitter: &mut Rng, now: Instant) {
        match sockets::open(self.address) {
            Ok(socket) => {
                sockets::tune_link(&socket);
                let socket = Arc::new(socket);
                let connect = desk.ring.connect(Purpose::LinkConnect(self.id()), &socket, self.address);
                self.state = State::Connecting { socket, connect, until: now.after(CONNECT_TIMEOUT) };
            }
            Err(_) => self.fail(desk, jitter, now),
        }
    }

    fn open(&mut self, desk: &mut Desk, now: Instant) {
        let State::Connecting { socket, .. } = &self.state else {
            unreachable!("a connection opens once per epoch")
        };
        let socket = Arc::clone(socket);
        desk.ring.receive(Purpose::LinkWatch(self.id()), &socket, Buf::packed(1), 0, 1, false);
        self.state = State::Up { socket, since: now, sending: false };
        desk.ledger.stats.link_ups += 1;
        desk.ledger.note(DriverNote::LinkUp { peer: self.peer });
        self.pump(desk);
    }

    /// Ends the connection, if there is one, and waits before the next.
    fn fail(&mut self, desk: &mut Desk, jitter: &mut Rng, now: Instant) {
        match &self.state {
            State::Down { .. } => {}
            State::Connecting { socket, connect, .. } => {
                desk.ring.cancel(*connect);
                sockets::hang_up(socket);
            }
            State::Up { socket, since, .. } => {
                sockets::hang_up(socket);
                if now.since(*since) >= STABLE_AFTER {
                    self.backoff = BACKOFF_FIRST;
                }
                desk.ledger.note(DriverNote::LinkDown { peer: self.peer });
            }
        }
        desk.ledger.stats.link_failures += 1;
        let half = self.backoff / 2;
        let wait = half + Duration::from_nanos(jitter.below(half.as_nanos() as u64));
        self.backoff = (self.backoff * 2).min(BACKOFF_LAST);
        self.epoch += 1;
        self.state = State::Down { retry_at: now.after(wait) };
    }

    /// Sends what is queued, several messages at once, if nothing is being sent.
    fn pump(&mut self, desk: &mut Desk) {
        let id = self.id();
        let State::Up { socket, sending, .. } = &mut self.state else { return };
        if *sending || self.queue.is_empty() {
            return;
        }
        let count = self.queue.len().min(SEND_PACKETS_MAX);
        let gather = Gather::new(Pieces::Packets(self.queue.drain(..count).collect()));
        desk.ring.send(Purpose::LinkSend(id), socket, gather);
        *sending = true;
    }
}
