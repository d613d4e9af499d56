//! Asks remembered as values, so that a test of a machine reads what was asked instead of acting it out.

use alloc::vec::Vec;
use core::mem;

use kimberlite_types::ReplicaId;

use crate::{Address, Buf, Conn, Disk, Frame, Io, Net, Packet, Place, Token};

/// One ask, as a value. The variants are the methods of [`Disk`] and [`Net`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// [`Disk::read`].
    Read {
        /// Names the answer.
        token: Token,
        /// Where.
        at: Place,
        /// Bytes to read: the length of the buffer that was handed over.
        len: usize,
    },
    /// [`Disk::write`].
    Write {
        /// Names the answer.
        token: Token,
        /// Where.
        at: Place,
        /// What.
        data: Frame,
    },
    /// [`Disk::trim`].
    Trim {
        /// Names the answer.
        token: Token,
        /// Where.
        at: Place,
        /// Bytes to give back.
        len: u64,
    },
    /// [`Net::send`].
    Send {
        /// The receiver.
        to: ReplicaId,
        /// The message.
        packet: Packet,
    },
    /// [`Net::connect`].
    Connect {
        /// The stream to open.
        conn: Conn,
        /// Who is called.
        to: Address,
    },
    /// [`Net::stream`].
    Stream {
        /// The stream.
        conn: Conn,
        /// The bytes queued.
        data: Frame,
    },
    /// [`Net::grant`].
    Grant {
        /// The stream.
        conn: Conn,
        /// Bytes more that may be received.
        bytes: u32,
    },
    /// [`Net::close`].
    Close {
        /// The stream.
        conn: Conn,
    },
}

impl Ask {
    /// Asks `io` for this. A read gets a fresh buffer.
    pub fn ask(self, io: &mut dyn Io) {
        match self {
            Self::Read { token, at, len } => io.read(token, at, Buf::zeroed(len)),
            Self::Write { token, at, data } => io.write(token, at, data),
            Self::Trim { token, at, len } => io.trim(token, at, len),
            Self::Send { to, packet } => io.send(to, packet),
            Self::Connect { conn, to } => io.connect(conn, to),
            Self::Stream { conn, data } => io.stream(conn, data),
            Self::Grant { conn, bytes } => io.grant(conn, bytes),
            Self::Close { conn } => io.close(conn),
        }
    }
}

/// An [`Io`] that does nothing but remember, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked(
    /// What was asked, oldest first.
    pub Vec<Ask>,
);

impl Asked {
    /// Nothing asked yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// What was asked since the last call.
    pub fn take(&mut self) -> Vec<Ask> {
        mem::take(&mut self.0)
    }
}

impl Disk for Asked {
    fn read(&mut self, token: Token, at: Place, buf: Buf) {
        self.0.push(Ask::Read { token, at, len: buf.len() });
    }

    fn write(&mut self, token: Token, at: Place, data: Frame) {
        self.0.push(Ask::Write { token, at, data });
    }

    fn trim(&mut self, token: Token, at: Place, len: u64) {
        self.0.push(Ask::Trim { token, at, len });
    }
}

impl Net for Asked {
    fn send(&mut self, to: ReplicaId, packet: Packet) {
        self.0.push(Ask::Send { to, packet });
    }

    fn connect(&mut self, conn: Conn, to: Address) {
        self.0.push(Ask::Connect { conn, to });
    }

    fn stream(&mut self, conn: Conn, data: Frame) {
        self.0.push(Ask::Stream { conn, data });
    }

    fn grant(&mut self, conn: Conn, bytes: u32) {
        self.0.push(Ask::Grant { conn, bytes });
    }

    fn close(&mut self, conn: Conn) {
        self.0.push(Ask::Close { conn });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_types::limits::{FRAME_HEADER_SIZE, SECTOR_SIZE};

    /// One ask of every kind.
    fn every_ask() -> Vec<Ask> {
        let packet = Packet { head: [3; FRAME_HEADER_SIZE], body: Frame::copy_from(b"body") };
        let data = Frame::copy_from(&[7; SECTOR_SIZE]);
        vec![
            Ask::Read { token: Token(1), at: Place::log(0), len: SECTOR_SIZE },
            Ask::Write { token: Token(2), at: Place::headers(4096), data },
            Ask::Trim { token: Token(3), at: Place::log(8192), len: 4096 },
            Ask::Send { to: ReplicaId(2), packet },
            Ask::Connect { conn: Conn(4), to: Address(1) },
            Ask::Stream { conn: Conn(4), data: Frame::copy_from(b"hello") },
            Ask::Grant { conn: Conn(4), bytes: 9 },
            Ask::Close { conn: Conn(4) },
        ]
    }

    #[test]
    fn every_kind_of_ask_is_remembered_as_it_was_made_and_taken_once() {
        let mut asked = Asked::new();
        for ask in every_ask() {
            ask.ask(&mut asked);
        }
        assert_eq!(asked.take(), every_ask());
        assert_eq!(asked.take(), vec![]);
    }

    #[test]
    fn asks_of_other_content_are_not_equal() {
        let ask = |byte| Ask::Stream { conn: Conn(1), data: Frame::copy_from(&[byte]) };
        assert_ne!(ask(1), ask(2));
    }
}
