//! A power cut at a chosen ask, so that a test can put one at every ask there is.

use kimberlite_types::ReplicaId;

use crate::{Address, Buf, Conn, Disk, Frame, Io, Net, Packet, Place, Token};

/// Counts the asks of a machine, and lets them come to nothing from a chosen one on.
///
/// Its user hands the machine [`CrashAt::wrap`] instead of the driver. A machine makes several asks in one call of `on`
/// and hears of nothing in between, so it cannot tell that the power went out: what it asks from then on is
/// lost, and its user ends it after the call in which [`CrashAt::is_cut`] became true. What it told its parent in that
/// call beyond the cut was never acted on.
///
/// A life is counted on in the next one: asks are numbered from 1 over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashAt {
    asked: u64,
    at: Option<u64>,
}

impl CrashAt {
    /// Only counts.
    pub const fn never() -> Self {
        Self { asked: 0, at: None }
    }

    /// The power goes out right before ask number `ask`, counted from 1.
    pub const fn at(ask: u64) -> Self {
        assert!(ask > 0, "asks are counted from 1");
        Self { asked: 0, at: Some(ask) }
    }

    /// Asks so far, those that were lost included.
    pub const fn asked(&self) -> u64 {
        self.asked
    }

    /// Whether an ask was lost.
    pub fn is_cut(&self) -> bool {
        self.at.is_some_and(|at| self.asked >= at)
    }

    /// The driver as the machine should see it during one call of `on`.
    pub fn wrap<'a>(&'a mut self, io: &'a mut dyn Io) -> impl Io + 'a {
        Powered { power: self, io }
    }
}

struct Powered<'a> {
    power: &'a mut CrashAt,
    io: &'a mut dyn Io,
}

impl Powered<'_> {
    /// Counts an ask and gives it the driver, if there still is one.
    fn driver(&mut self) -> Option<&mut dyn Io> {
        self.power.asked += 1;
        if self.power.is_cut() { None } else { Some(&mut *self.io) }
    }
}

impl Disk for Powered<'_> {
    fn read(&mut self, token: Token, at: Place, buf: Buf) {
        if let Some(io) = self.driver() {
            io.read(token, at, buf);
        }
    }

    fn write(&mut self, token: Token, at: Place, data: Frame) {
        if let Some(io) = self.driver() {
            io.write(token, at, data);
        }
    }

    fn trim(&mut self, token: Token, at: Place, len: u64) {
        if let Some(io) = self.driver() {
            io.trim(token, at, len);
        }
    }
}

impl Net for Powered<'_> {
    fn send(&mut self, to: ReplicaId, packet: Packet) {
        if let Some(io) = self.driver() {
            io.send(to, packet);
        }
    }

    fn connect(&mut self, conn: Conn, to: Address) {
        if let Some(io) = self.driver() {
            io.connect(conn, to);
        }
    }

    fn stream(&mut self, conn: Conn, data: Frame) {
        if let Some(io) = self.driver() {
            io.stream(conn, data);
        }
    }

    fn grant(&mut self, conn: Conn, bytes: u32) {
        if let Some(io) = self.driver() {
            io.grant(conn, bytes);
        }
    }

    fn close(&mut self, conn: Conn) {
        if let Some(io) = self.driver() {
            io.close(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Asked};
    use kimberlite_types::limits::{FRAME_HEADER_SIZE, SECTOR_SIZE};

    /// One ask of every kind.
    fn every_ask() -> Vec<Ask> {
        let data = Frame::copy_from(&[7; SECTOR_SIZE]);
        let packet = Packet { head: [3; FRAME_HEADER_SIZE], body: Frame::empty() };
        vec![
            Ask::Read { token: Token(1), at: Place::log(0), len: SECTOR_SIZE },
            Ask::Write { token: Token(2), at: Place::headers(0), data },
            Ask::Trim { token: Token(3), at: Place::log(8192), len: 4096 },
            Ask::Send { to: ReplicaId(2), packet },
            Ask::Connect { conn: Conn(4), to: Address(1) },
            Ask::Stream { conn: Conn(4), data: Frame::copy_from(b"hello") },
            Ask::Grant { conn: Conn(4), bytes: 9 },
            Ask::Close { conn: Conn(4) },
        ]
    }

    #[test]
    fn asks_of_every_kind_pass_up_to_the_chosen_one_and_none_from_there_on() {
        let all = every_ask();
        for at in 1..=all.len() + 1 {
            let mut power = CrashAt::at(at as u64);
            let mut asked = Asked::new();
            for (number, ask) in (1..).zip(all.clone()) {
                ask.ask(&mut power.wrap(&mut asked));
                assert_eq!(power.is_cut(), number >= at, "ask {number}, cut at {at}");
            }
            assert_eq!(asked.take(), all[..at - 1]);
            assert_eq!(power.asked(), all.len() as u64);
        }
    }

    #[test]
    fn one_that_only_counts_loses_nothing() {
        let mut power = CrashAt::never();
        let mut asked = Asked::new();
        for ask in every_ask() {
            ask.ask(&mut power.wrap(&mut asked));
        }
        assert_eq!((asked.take(), power.asked(), power.is_cut()), (every_ask(), 8, false));
    }
}
