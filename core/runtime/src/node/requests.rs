//! What clients ask: requests, queries and statements come in by their streams, and are answered, passed on or sent elsewhere.

use alloc::vec::Vec;

use kimberlite_io::{Conn, Frame, Io};
use kimberlite_kernel::Lookup;
use kimberlite_storage as storage;
use kimberlite_types::{LogPosition, RequestNumber, SessionId, TenantId};
use kimberlite_vsr as vsr;
use kimberlite_wire::client::{Answer, ClientFrame, Query, Turn};
use kimberlite_wire::command::{Refusal, Verdict};

use super::{Node, Work, waiter};
use crate::note::Note;

impl Node {
    pub(super) fn forget(&mut self, conn: Conn) {
        self.clients.closed(conn);
        self.reads.closed(conn);
        if self.sql.closed(conn) {
            self.work.push_back(Work::Storage(storage::Input::Release(waiter(conn))));
        }
    }

    pub(super) fn on_received(&mut self, conn: Conn, data: &Frame, io: &mut dyn Io, out: &mut Vec<Note>) {
        let mut frames = Vec::new();
        let result = self.clients.received(conn, data, |frame| frames.push(frame));
        io.grant(conn, data.len() as u32);
        for frame in frames {
            self.on_frame(conn, frame, io);
        }
        if let Err(why) = result {
            kimberlite_probe::reachable!("node.client_malformed");
            out.push(Note::ClientMalformed { conn, why });
            io.close(conn);
            self.forget(conn);
        }
    }

    fn on_frame(&mut self, conn: Conn, frame: ClientFrame, io: &mut dyn Io) {
        match frame {
            ClientFrame::Request { session, number, tenant, command } => {
                self.on_request(conn, session, number, tenant, command, io);
            }
            ClientFrame::Query { nonce, query: Query::Status } => {
                let answer = Answer::Status(self.status(self.now));
                self.clients.answer(conn, nonce, &answer, io);
            }
            ClientFrame::Query { nonce, query } => self.on_query(conn, nonce, query, io),
            ClientFrame::Statement { nonce, .. } if !self.replica.is_primary() => {
                self.clients.turn(conn, nonce, self.elsewhere(), io);
            }
            ClientFrame::Statement { nonce, statement } => {
                let mut effects = Vec::new();
                self.sql.begin(self.now.monotonic, conn, nonce, statement, &mut effects);
                self.answer_all(effects, io);
            }
            ClientFrame::Cancel { nonce } => {
                let mut effects = Vec::new();
                self.sql.cancelled(conn, nonce, &mut effects);
                self.answer_all(effects, io);
            }
            // A node says these, it is not told them.
            ClientFrame::Reply { .. } | ClientFrame::Answer { .. } | ClientFrame::Turn { .. } => {
                io.close(conn);
                self.forget(conn);
            }
        }
    }

    fn on_request(
        &mut self,
        conn: Conn,
        session: SessionId,
        number: RequestNumber,
        tenant: TenantId,
        command: Frame,
        io: &mut dyn Io,
    ) {
        if !self.replica.is_primary() {
            kimberlite_probe::reachable!("node.not_primary");
            self.clients.turn(conn, number.0, self.elsewhere(), io);
            return;
        }
        if command.len() > self.config.layout.command_size_max() as usize {
            self.clients.turn(conn, number.0, Turn::TooLarge, io);
            return;
        }
        if session != SessionId::NONE {
            // What is decided is decided for good, whoever is primary now; the rest the log decides.
            match self.kernel().reply_of(session, number) {
                Lookup::Duplicate(verdict) => {
                    kimberlite_probe::reachable!("node.filters_duplicate");
                    self.clients.reply(conn, session, number, verdict, io);
                    return;
                }
                Lookup::Stale => {
                    kimberlite_probe::reachable!("node.filters_stale");
                    let verdict = Verdict { position: LogPosition::default(), result: Err(Refusal::Stale) };
                    self.clients.reply(conn, session, number, verdict, io);
                    return;
                }
                Lookup::New | Lookup::NoSession => {}
            }
        }
        if !self.clients.wait(session, number, conn) {
            let request = vsr::Request { session, number, tenant, command };
            self.work.push_back(Work::Vsr(vsr::Input::Request(request)));
        } else {
            kimberlite_probe::reachable!("node.already_under_way");
        }
    }

    fn on_query(&mut self, conn: Conn, nonce: u64, query: Query, io: &mut dyn Io) {
        if !self.replica.is_primary() {
            self.clients.turn(conn, nonce, self.elsewhere(), io);
            return;
        }
        match self.reads.begin(conn, nonce, query) {
            Some(ticket) => self.work.push_back(Work::Vsr(vsr::Input::ConfirmRead { ticket })),
            None => self.clients.turn(conn, nonce, Turn::Busy, io),
        }
    }

    /// Where clients should turn when this node is not the primary.
    fn elsewhere(&self) -> Turn {
        let primary = self.config.primary(self.replica.view());
        if self.replica.status() == vsr::Status::Normal && primary != self.config.replica {
            kimberlite_probe::reachable!("node.redirects");
            Turn::Primary(primary)
        } else {
            kimberlite_probe::reachable!("node.knows_no_primary");
            Turn::Later
        }
    }
}
