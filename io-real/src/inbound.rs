//! What peers send: connections on the replica port, cut into messages.
//!
//! Nothing that arrives here is trusted. A head is judged by the framing before a byte of body is read or
//! allocated, and a connection with a bad one is dropped. There are few connections: when one more comes,
//! the one that has been silent longest goes, so that idle strangers cannot keep peers out.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kimberlite_io::{Buf, Event, Frame, FrameShape, Framing, Packet};
use kimberlite_types::Instant;
use kimberlite_types::limits::{FRAME_BODY_SIZE_LIMIT, FRAME_HEADER_SIZE, REPLICAS_MAX};
use rustix::io::Errno;

use crate::desk::Desk;
use crate::ring::{Completion, Purpose};
use crate::sockets;
use crate::stats::DriverNote;

/// Connections on the replica port. Each holds one body at most: 24 x 1 MiB is the worst case.
const INBOUND_MAX: usize = 4 * REPLICAS_MAX;

enum Reading {
    Head,
    Body { head: [u8; FRAME_HEADER_SIZE], shape: FrameShape },
}

struct Connection {
    socket: Arc<OwnedFd>,
    from: SocketAddr,
    reading: Reading,
    /// Bytes of the current head or body that are here.
    filled: usize,
    /// Bytes it has in all.
    wanted: usize,
    /// When it last completed a message, or was accepted.
    heard_at: Instant,
}

/// All inbound connections.
pub(crate) struct Inbound {
    framing: Option<Framing>,
    connections: HashMap<u64, Connection>,
    names: u64,
}

impl Inbound {
    pub(crate) fn new(framing: Option<Framing>) -> Self {
        Self { framing, connections: HashMap::new(), names: 0 }
    }

    /// Takes a new connection.
    pub(crate) fn accept(&mut self, desk: &mut Desk, now: Instant, socket: OwnedFd) {
        let stream = TcpStream::from(socket);
        let Ok(from) = stream.peer_addr() else { return }; // Gone already.
        let socket = OwnedFd::from(stream);
        sockets::tune(&socket);
        if self.connections.len() == INBOUND_MAX {
            let silent =
                self.connections.iter().min_by_key(|(name, connection)| (connection.heard_at, **name));
            let name = *silent.expect("there are some").0;
            self.drop_connection(name);
            desk.ledger.stats.replicas_evicted += 1;
        }
        desk.ledger.stats.replicas_accepted += 1;
        self.names += 1;
        let connection = Connection {
            socket: Arc::new(socket),
            from,
            reading: Reading::Head,
            filled: 0,
            wanted: FRAME_HEADER_SIZE,
            heard_at: now,
        };
        connection.receive(desk, self.names, Buf::packed(FRAME_HEADER_SIZE));
        self.connections.insert(self.names, connection);
    }

    /// Takes the completion of a receive.
    pub(crate) fn on_completion(&mut self, desk: &mut Desk, now: Instant, completion: Completion) {
        let Purpose::InboundReceive(name) = completion.purpose else {
            unreachable!("only inbound receives are routed here")
        };
        let Some(connection) = self.connections.get_mut(&name) else { return };
        let buf = completion.load.into_buf();
        match completion.result {
            Err(Errno::INTR | Errno::AGAIN) => connection.receive(desk, name, buf),
            Ok(0) | Err(_) => self.drop_connection(name),
            Ok(bytes) => {
                desk.ledger.stats.bytes_received += bytes as u64;
                connection.filled += bytes;
                if connection.filled < connection.wanted {
                    connection.receive(desk, name, buf);
                } else {
                    self.on_filled(desk, now, name, buf);
                }
            }
        }
    }

    fn on_filled(&mut self, desk: &mut Desk, now: Instant, name: u64, buf: Buf) {
        let connection = self.connections.get_mut(&name).expect("looked up by the caller");
        match connection.reading {
            Reading::Head => {
                let head = buf[..].try_into().expect("a head was wanted");
                let framing = self.framing.expect("a driver that listens for replicas has a framing");
                let shape = framing(&head).and_then(|shape| {
                    let fits = shape.body_size <= FRAME_BODY_SIZE_LIMIT;
                    if fits { Ok(shape) } else { Err("the body is larger than the limit") }
                });
                match shape {
                    Err(reason) => {
                        let from = connection.from;
                        desk.ledger.stats.frames_malformed += 1;
                        desk.ledger.stats.last_malformed = Some(reason);
                        desk.ledger.note(DriverNote::MalformedFrame { from, reason });
                        self.drop_connection(name);
                    }
                    Ok(shape) if shape.body_size == 0 => {
                        connection.heard_at = now;
                        connection.filled = 0;
                        connection.receive(desk, name, buf);
                        deliver(desk, shape, head, Frame::empty());
                    }
                    Ok(shape) => {
                        connection.reading = Reading::Body { head, shape };
                        connection.filled = 0;
                        connection.wanted = shape.body_size as usize;
                        // Zeroed to the end of its last sector: it goes to the journal as it is.
                        connection.receive(desk, name, Buf::zeroed(shape.body_size as usize));
                    }
                }
            }
            Reading::Body { head, shape } => {
                connection.heard_at = now;
                connection.reading = Reading::Head;
                connection.filled = 0;
                connection.wanted = FRAME_HEADER_SIZE;
                connection.receive(desk, name, Buf::packed(FRAME_HEADER_SIZE));
                deliver(desk, shape, head, buf.freeze());
            }
        }
    }

    /// Ends a connection. Its receive in flight completes and finds nobody.
    fn drop_connection(&mut self, name: u64) {
        if let Some(connection) = self.connections.remove(&name) {
            sockets::hang_up(&connection.socket);
        }
    }
}

impl Connection {
    fn receive(&self, desk: &mut Desk, name: u64, buf: Buf) {
        let left = self.wanted - self.filled;
        desk.ring.receive(Purpose::InboundReceive(name), &self.socket, buf, self.filled, left, true);
    }
}

fn deliver(desk: &mut Desk, shape: FrameShape, head: [u8; FRAME_HEADER_SIZE], body: Frame) {
    desk.ledger.stats.messages_received += 1;
    desk.events.push_back(Event::Message { from: shape.sender, packet: Packet { head, body } });
}
