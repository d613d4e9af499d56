//! The waist, as a node inside a world sees it.

use kimberlite_io::{Address, Buf, Conn, Disk, Frame, Net, Packet, Place, Token};
use kimberlite_types::ReplicaId;

use crate::NodeId;
use crate::census::Happening;
use crate::trace::{Line, fingerprint};
use crate::world::Core;

/// What a machine asks for in one event at most. More is work without an end, which no virtual time would ever stop.
const EVENT_ASKS_MAX: u32 = 1 << 16;

/// One node's `Io`, lent to its machine for one call.
pub(crate) struct Asks<'a> {
    core: &'a mut Core,
    node: NodeId,
    /// What it asked for so far.
    asked: u32,
}

impl<'a> Asks<'a> {
    pub(crate) const fn new(core: &'a mut Core, node: NodeId) -> Self {
        Self { core, node, asked: 0 }
    }

    fn note(&mut self, what: Happening, line: Line) {
        self.asked += 1;
        assert!(self.asked <= EVENT_ASKS_MAX, "the work of one event ends before it has asked for so much");
        let ground = &mut self.core.ground;
        ground.trace.line(ground.time, self.node, what, line);
    }
}

impl Disk for Asks<'_> {
    fn read(&mut self, token: Token, at: Place, buf: Buf) {
        self.note(Happening::AskRead, Line::named(token.0).at(at, buf.len() as u64));
        self.core.disks[usize::from(self.node.0)].read(&mut self.core.ground, token, at, buf);
    }

    fn write(&mut self, token: Token, at: Place, data: Frame) {
        self.note(Happening::AskWrite, Line::named(token.0).with(&data).at(at, data.len() as u64));
        self.core.disks[usize::from(self.node.0)].write(&mut self.core.ground, token, at, data);
    }

    fn trim(&mut self, token: Token, at: Place, len: u64) {
        self.note(Happening::AskTrim, Line::named(token.0).at(at, len));
        self.core.disks[usize::from(self.node.0)].trim(&mut self.core.ground, token, at, len);
    }
}

impl Net for Asks<'_> {
    fn send(&mut self, to: ReplicaId, packet: Packet) {
        let target = NodeId(u16::from(to.0));
        assert!(self.core.is_replica(self.node), "only replicas send messages");
        assert!(self.core.is_replica(target) && target != self.node, "a message goes to another replica");
        let mut line = Line::named(u64::from(to.0)).with(&packet.body);
        line.offset = fingerprint(&packet.head);
        self.note(Happening::AskSend, line);
        let life = self.core.seats[usize::from(to.0)].life;
        self.core.network.send(&mut self.core.ground, self.node, target, life, packet);
    }

    fn connect(&mut self, conn: Conn, to: Address) {
        self.note(Happening::AskConnect, Line { offset: u64::from(to.0), ..Line::named(conn.0) });
        let listed = self.core.is_replica(NodeId(to.0));
        let Core { ground, network, streams, .. } = self.core;
        if listed {
            streams.connect(ground, network, self.node, conn, to);
        } else {
            streams.connect_nowhere(ground, self.node, conn);
        }
    }

    fn stream(&mut self, conn: Conn, data: Frame) {
        self.note(Happening::AskStream, Line::named(conn.0).with(&data));
        let Core { ground, network, streams, .. } = self.core;
        streams.stream(ground, network, self.node, conn, data);
    }

    fn grant(&mut self, conn: Conn, bytes: u32) {
        self.note(Happening::AskGrant, Line { len: u64::from(bytes), ..Line::named(conn.0) });
        let Core { ground, network, streams, .. } = self.core;
        streams.grant(ground, network, self.node, conn, bytes);
    }

    fn close(&mut self, conn: Conn) {
        self.note(Happening::AskClose, Line::named(conn.0));
        let Core { ground, network, streams, .. } = self.core;
        streams.close(ground, network, self.node, conn);
    }
}
