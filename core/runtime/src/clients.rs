//! The byte streams of clients: frames in, replies out.

use alloc::collections::BTreeMap;

use kimberlite_io::{Conn, Frame, Net};
use kimberlite_types::{ClusterId, ReplicaId, RequestNumber, SessionId};
use kimberlite_wire::Malformed;
use kimberlite_wire::client::{Answer, ClientFrame, Splitter, Turn, answer_frame, reply_frame, turn_frame};
use kimberlite_wire::command::Verdict;

/// All client streams of a node, and which request each waits for.
pub(crate) struct Clients {
    cluster: ClusterId,
    replica: ReplicaId,
    streams: BTreeMap<Conn, Splitter>,
    /// Requests given to consensus, and who waits for the verdict.
    waiting: BTreeMap<(SessionId, RequestNumber), Conn>,
}

impl Clients {
    pub(crate) fn new(cluster: ClusterId, replica: ReplicaId) -> Self {
        Self { cluster, replica, streams: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    pub(crate) fn opened(&mut self, conn: Conn) {
        self.streams.insert(conn, Splitter::default());
    }

    pub(crate) fn closed(&mut self, conn: Conn) {
        self.streams.remove(&conn);
        self.waiting.retain(|_, waiting| *waiting != conn);
    }

    /// Requests whose verdict somebody waits for.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Cuts received bytes into frames and hands each to `deliver`.
    pub(crate) fn received(
        &mut self,
        conn: Conn,
        data: &Frame,
        mut deliver: impl FnMut(ClientFrame),
    ) -> Result<(), Malformed> {
        let Some(splitter) = self.streams.get_mut(&conn) else { return Ok(()) };
        let mut broken = None;
        splitter.take(data, Some(self.cluster), |header, body| {
            match ClientFrame::decode(&header, &body) {
                Ok(frame) if broken.is_none() => deliver(frame),
                Ok(_) => {}
                Err(why) => broken = Some(why),
            }
        })?;
        broken.map_or(Ok(()), Err)
    }

    /// Remembers who waits for a request. Answers whether it was already on its way.
    pub(crate) fn wait(&mut self, session: SessionId, number: RequestNumber, conn: Conn) -> bool {
        self.waiting.insert((session, number), conn).is_some()
    }

    /// Tells whoever waits what became of a request.
    pub(crate) fn decided(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        verdict: Verdict,
        net: &mut dyn Net,
    ) {
        if let Some(conn) = self.waiting.remove(&(session, number)) {
            self.reply(conn, session, number, verdict, net);
        }
    }

    pub(crate) fn reply(
        &self,
        conn: Conn,
        session: SessionId,
        number: RequestNumber,
        verdict: Verdict,
        net: &mut dyn Net,
    ) {
        self.send(conn, reply_frame(self.cluster, self.replica, session, number, verdict), net);
    }

    pub(crate) fn answer(&self, conn: Conn, nonce: u64, answer: &Answer, net: &mut dyn Net) {
        self.send(conn, answer_frame(self.cluster, self.replica, nonce, answer), net);
    }

    pub(crate) fn turn(&self, conn: Conn, nonce: u64, turn: Turn, net: &mut dyn Net) {
        self.send(conn, turn_frame(self.cluster, self.replica, nonce, turn), net);
    }

    /// Tells whoever waits for a request that it was not taken.
    pub(crate) fn turn_one(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        turn: Turn,
        net: &mut dyn Net,
    ) {
        if let Some(conn) = self.waiting.remove(&(session, number)) {
            self.turn(conn, number.0, turn, net);
        }
    }

    /// Sends everybody who waits elsewhere: this node no longer speaks for the cluster.
    pub(crate) fn turn_all(&mut self, turn: Turn, net: &mut dyn Net) {
        for ((_, number), conn) in core::mem::take(&mut self.waiting) {
            self.turn(conn, number.0, turn, net);
        }
    }

    fn send(&self, conn: Conn, frame: Frame, net: &mut dyn Net) {
        if self.streams.contains_key(&conn) {
            net.stream(conn, frame);
        }
    }
}
