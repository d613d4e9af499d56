//! The rules of the waist, asserted: on the machine when it asks, on the driver when it answers.

use alloc::collections::{BTreeMap, BTreeSet};
use core::ops::Range;

use kimberlite_types::ReplicaId;
use kimberlite_types::limits::{FRAME_BODY_SIZE_LIMIT, SECTOR_SIZE, STREAM_CREDIT_INITIAL};

use crate::{Address, Buf, CloseReason, Conn, Disk, Event, Frame, Io, Net, Packet, Place, Token, Zone};

/// Watches one machine and its driver, and aborts on the first breach of the rules of the waist.
///
/// Its user calls [`Ordered::heard`] with every event before the machine handles it, and hands the machine
/// [`Ordered::wrap`] instead of the driver. It holds the asks in flight, the open streams, and the id of
/// every stream there ever was: 8 bytes for each, for as long as it lives.
///
/// Asserted of the machine: places, lengths and addresses are whole sectors and not empty; tokens are
/// unique among the asks in flight; no write or trim overlaps a write or trim in flight; ids of opened
/// streams are fresh and without [`Conn::ACCEPTED`]; only streams that were opened are written to or granted
/// credit; no message is larger than `FRAME_BODY_SIZE_LIMIT`.
///
/// Asserted of the driver: an answer names an ask in flight of its kind, once, and a read is as long as it
/// was asked; streams open before they speak and are silent once closed; nothing is received beyond the
/// credit; `Sent` follows bytes; message bodies are aligned, padded with zeros, and within the limit.
#[derive(Clone, Debug, Default)]
pub struct Ordered {
    in_flight: BTreeMap<Token, Flight>,
    streams: BTreeMap<Conn, Stream>,
    known: BTreeSet<Conn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Trim,
}

#[derive(Clone, Debug)]
struct Flight {
    kind: Kind,
    zone: Zone,
    range: Range<u64>,
}

/// A stream that is neither closed by the machine nor reported closed by the driver.
#[derive(Clone, Debug)]
struct Stream {
    open: bool,
    credit: u64,
    unsent: bool,
}

impl Ordered {
    /// Nothing in flight, no streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The driver as the machine should see it during one call of `on`: every ask is checked, then passed on.
    pub fn wrap<'a>(&'a mut self, io: &'a mut dyn Io) -> impl Io + 'a {
        Watched { rules: self, io }
    }

    /// Checks an event that the driver is about to hand to the machine.
    pub fn heard(&mut self, event: &Event) {
        match event {
            Event::Wake => {}
            Event::Read { token, result } => {
                let flight = self.answered(*token, &Kind::Read);
                if let Ok(buf) = result {
                    let asked = flight.range.end - flight.range.start;
                    assert!(buf.len() as u64 == asked, "{token:?}: {} bytes read of {asked}", buf.len());
                }
            }
            Event::Written { token, .. } => drop(self.answered(*token, &Kind::Write)),
            Event::Trimmed { token, .. } => drop(self.answered(*token, &Kind::Trim)),
            Event::Message { packet, .. } => check_body(&packet.body),
            Event::Opened { conn } => self.opened(*conn),
            Event::Received { conn, data } => {
                let stream = self.speaking(*conn);
                assert!(!data.is_empty(), "{conn:?}: received nothing");
                let left = stream.credit.checked_sub(data.len() as u64);
                stream.credit = left.unwrap_or_else(|| panic!("{conn:?}: received more than was granted"));
            }
            Event::Sent { conn } => {
                let stream = self.speaking(*conn);
                assert!(stream.unsent, "{conn:?}: Sent, though nothing was queued since the last one");
                stream.unsent = false;
            }
            Event::Closed { conn, reason } => {
                let Some(stream) = self.streams.remove(conn) else {
                    panic!("{conn:?}: closed, though it is not open");
                };
                let refused = *reason == CloseReason::Refused;
                assert!(!(refused && stream.open), "{conn:?}: refused after it was opened");
            }
        }
    }

    fn answered(&mut self, token: Token, kind: &Kind) -> Flight {
        let Some(flight) = self.in_flight.remove(&token) else {
            panic!("{token:?}: answered, though not in flight");
        };
        assert!(flight.kind == *kind, "{token:?}: asked as {:?}, answered as {kind:?}", flight.kind);
        flight
    }

    fn opened(&mut self, conn: Conn) {
        if conn.is_accepted() {
            assert!(self.known.insert(conn), "{conn:?}: an accepted stream reuses an id");
            let credit = u64::from(STREAM_CREDIT_INITIAL);
            self.streams.insert(conn, Stream { open: true, credit, unsent: false });
        } else {
            let Some(stream) = self.streams.get_mut(&conn) else {
                panic!("{conn:?}: opened, though nobody waits for it");
            };
            assert!(!stream.open, "{conn:?}: opened twice");
            stream.open = true;
        }
    }

    fn speaking(&mut self, conn: Conn) -> &mut Stream {
        match self.streams.get_mut(&conn) {
            Some(stream) if stream.open => stream,
            Some(_) => panic!("{conn:?}: speaks before it is open"),
            None => panic!("{conn:?}: speaks, though it is not open"),
        }
    }

    fn takes_off(&mut self, token: Token, kind: Kind, at: Place, len: u64) {
        let whole = len.is_multiple_of(SECTOR_SIZE as u64);
        assert!(at.is_aligned() && whole, "{token:?}: {at} and {len} bytes are not whole sectors");
        assert!(len > 0, "{token:?}: asks for nothing at {at}");
        let Some(end) = at.offset.checked_add(len) else { panic!("{token:?}: {at} ends beyond any disk") };
        if kind != Kind::Read {
            let overlap = self.in_flight.iter().find(|(_, other)| {
                other.kind != Kind::Read
                    && other.zone == at.zone
                    && other.range.start < end
                    && at.offset < other.range.end
            });
            if let Some((other, _)) = overlap {
                panic!("{token:?}: {kind:?} of {len} bytes at {at} overlaps {other:?} in flight");
            }
        }
        let flight = Flight { kind, zone: at.zone, range: at.offset..end };
        assert!(self.in_flight.insert(token, flight).is_none(), "{token:?}: already in flight");
    }

    /// A stream the machine may use. `None` when it is gone: the machine may not have known.
    fn usable(&mut self, conn: Conn) -> Option<&mut Stream> {
        assert!(self.known.contains(&conn), "{conn:?}: no such stream");
        let stream = self.streams.get_mut(&conn);
        assert!(stream.as_ref().is_none_or(|stream| stream.open), "{conn:?}: used before it is open");
        stream
    }
}

fn check_body(body: &Frame) {
    assert!(body.len() <= FRAME_BODY_SIZE_LIMIT as usize, "a body of {} bytes", body.len());
    assert!(body.is_aligned(), "a message body starts on a sector boundary");
    let padding = &body.padded()[body.len()..];
    assert!(padding.iter().all(|byte| *byte == 0), "a message body is padded with zeros");
}

struct Watched<'a> {
    rules: &'a mut Ordered,
    io: &'a mut dyn Io,
}

impl Disk for Watched<'_> {
    fn read(&mut self, token: Token, at: Place, buf: Buf) {
        self.rules.takes_off(token, Kind::Read, at, buf.len() as u64);
        self.io.read(token, at, buf);
    }

    fn write(&mut self, token: Token, at: Place, data: Frame) {
        assert!(data.is_aligned(), "{token:?}: data does not start on a sector boundary in memory");
        self.rules.takes_off(token, Kind::Write, at, data.len() as u64);
        self.io.write(token, at, data);
    }

    fn trim(&mut self, token: Token, at: Place, len: u64) {
        self.rules.takes_off(token, Kind::Trim, at, len);
        self.io.trim(token, at, len);
    }
}

impl Net for Watched<'_> {
    fn send(&mut self, to: ReplicaId, packet: Packet) {
        let size = packet.body.len();
        assert!(size <= FRAME_BODY_SIZE_LIMIT as usize, "a body of {size} bytes for {to:?}");
        self.io.send(to, packet);
    }

    fn connect(&mut self, conn: Conn, to: Address) {
        assert!(!conn.is_accepted(), "{conn:?}: only the driver names accepted streams");
        assert!(self.rules.known.insert(conn), "{conn:?}: the id was used before");
        let credit = u64::from(STREAM_CREDIT_INITIAL);
        self.rules.streams.insert(conn, Stream { open: false, credit, unsent: false });
        self.io.connect(conn, to);
    }

    fn stream(&mut self, conn: Conn, data: Frame) {
        assert!(!data.is_empty(), "{conn:?}: queues nothing");
        if let Some(stream) = self.rules.usable(conn) {
            stream.unsent = true;
        }
        self.io.stream(conn, data);
    }

    fn grant(&mut self, conn: Conn, bytes: u32) {
        if let Some(stream) = self.rules.usable(conn) {
            stream.credit += u64::from(bytes);
        }
        self.io.grant(conn, bytes);
    }

    fn close(&mut self, conn: Conn) {
        assert!(self.rules.known.contains(&conn), "{conn:?}: no such stream");
        self.rules.streams.remove(&conn);
        self.io.close(conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Asked, ReadFault};
    use kimberlite_types::limits::FRAME_HEADER_SIZE;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const SECTOR: u64 = SECTOR_SIZE as u64;
    const FRESH: Conn = Conn(5);
    const ACCEPTED: Conn = Conn(Conn::ACCEPTED | 1);

    /// What happens in a story: the machine asks, or it hears.
    enum Deed {
        Asks(Ask),
        Hears(Event),
    }
    use Deed::{Asks, Hears};

    fn frame(len: usize) -> Frame {
        Buf::zeroed(len).freeze()
    }

    fn read(token: u64, at: u64) -> Deed {
        Asks(Ask::Read { token: Token(token), at: Place::log(at), len: SECTOR_SIZE })
    }

    fn write(token: u64, at: u64, sectors: usize) -> Deed {
        let data = frame(sectors * SECTOR_SIZE);
        Asks(Ask::Write { token: Token(token), at: Place::log(at), data })
    }

    fn trim(token: u64, at: u64) -> Deed {
        Asks(Ask::Trim { token: Token(token), at: Place::log(at), len: SECTOR })
    }

    fn written(token: u64) -> Deed {
        Hears(Event::Written { token: Token(token), result: Ok(()) })
    }

    fn connect(conn: Conn) -> Deed {
        Asks(Ask::Connect { conn, to: Address(1) })
    }

    fn stream(conn: Conn) -> Deed {
        Asks(Ask::Stream { conn, data: frame(3) })
    }

    fn opened(conn: Conn) -> Deed {
        Hears(Event::Opened { conn })
    }

    fn received(conn: Conn, len: usize) -> Deed {
        Hears(Event::Received { conn, data: frame(len) })
    }

    fn sent(conn: Conn) -> Deed {
        Hears(Event::Sent { conn })
    }

    fn closed(conn: Conn, reason: CloseReason) -> Deed {
        Hears(Event::Closed { conn, reason })
    }

    fn message(body: Frame) -> Deed {
        let packet = Packet { head: [0; FRAME_HEADER_SIZE], body };
        Hears(Event::Message { from: ReplicaId(1), packet })
    }

    /// Lives through `story` and returns the message of the assertion that ended it, or what was asked.
    fn live(story: Vec<Deed>) -> Result<Vec<Ask>, String> {
        let mut rules = Ordered::new();
        let mut asked = Asked::new();
        let story = AssertUnwindSafe(|| {
            for deed in story {
                match deed {
                    Asks(ask) => ask.ask(&mut rules.wrap(&mut asked)),
                    Hears(event) => rules.heard(&event),
                }
            }
        });
        match catch_unwind(story) {
            Ok(()) => Ok(asked.take()),
            Err(cause) => Err(match cause.downcast::<String>() {
                Ok(text) => *text,
                Err(cause) => (*cause.downcast::<&str>().expect("a panic has a message")).to_string(),
            }),
        }
    }

    #[test]
    fn a_life_within_the_rules_is_passed_on_unchanged() {
        let story = vec![
            write(1, 0, 2),
            write(2, 2 * SECTOR, 1),
            read(3, 0),
            Asks(Ask::Write { token: Token(4), at: Place::headers(0), data: frame(SECTOR_SIZE) }),
            written(2),
            trim(2, 2 * SECTOR),
            Hears(Event::Trimmed { token: Token(2), result: Ok(()) }),
            Hears(Event::Read { token: Token(3), result: Err(ReadFault::Absent) }),
            written(1),
            write(1, 0, 1),
            connect(FRESH),
            opened(FRESH),
            opened(ACCEPTED),
            received(ACCEPTED, STREAM_CREDIT_INITIAL as usize),
            Asks(Ask::Grant { conn: ACCEPTED, bytes: 10 }),
            received(ACCEPTED, 10),
            stream(FRESH),
            sent(FRESH),
            closed(FRESH, CloseReason::Ended),
            stream(FRESH),
            Asks(Ask::Close { conn: FRESH }),
            Asks(Ask::Close { conn: ACCEPTED }),
            message(Frame::copy_from(b"padded")),
            Hears(Event::Wake),
        ];
        assert_eq!(live(story).map(|asked| asked.len()), Ok(12));
    }

    #[test]
    fn every_breach_of_a_rule_is_caught_and_named() {
        let unaligned = || Frame::copy_from(&[0; 2 * SECTOR_SIZE]).slice(8..8 + SECTOR_SIZE);
        let mut dirty = Buf::zeroed(SECTOR_SIZE);
        dirty.fill(1);
        let token = Token(1);
        let at = Place::log(0);
        let breaches: Vec<(&str, Vec<Deed>)> = vec![
            ("not whole sectors", vec![read(1, 7)]),
            ("not whole sectors", vec![Asks(Ask::Read { token, at, len: 100 })]),
            ("not whole sectors", vec![Asks(Ask::Trim { token, at, len: 1 })]),
            ("asks for nothing", vec![write(1, 0, 0)]),
            ("beyond any disk", vec![read(1, u64::MAX - SECTOR + 1)]),
            ("boundary in memory", vec![Asks(Ask::Write { token, at, data: unaligned() })]),
            ("already in flight", vec![read(1, 0), read(1, SECTOR)]),
            ("overlaps", vec![write(1, 0, 2), write(2, SECTOR, 1)]),
            ("overlaps", vec![trim(1, 0), write(2, 0, 1)]),
            ("overlaps", vec![write(1, 0, 1), trim(2, 0)]),
            ("not in flight", vec![written(1)]),
            ("not in flight", vec![write(1, 0, 1), written(1), written(1)]),
            ("answered as", vec![read(1, 0), written(1)]),
            ("bytes read", vec![read(1, 0), Hears(Event::Read { token, result: Ok(Buf::zeroed(1)) })]),
            ("only the driver", vec![connect(ACCEPTED)]),
            ("used before", vec![connect(FRESH), connect(FRESH)]),
            ("used before", vec![connect(FRESH), Asks(Ask::Close { conn: FRESH }), connect(FRESH)]),
            ("no such stream", vec![stream(FRESH)]),
            ("no such stream", vec![Asks(Ask::Close { conn: FRESH })]),
            ("no such stream", vec![Asks(Ask::Grant { conn: ACCEPTED, bytes: 1 })]),
            ("used before it is open", vec![connect(FRESH), stream(FRESH)]),
            ("queues nothing", vec![opened(ACCEPTED), Asks(Ask::Stream { conn: ACCEPTED, data: frame(0) })]),
            ("nobody waits", vec![opened(FRESH)]),
            ("opened twice", vec![connect(FRESH), opened(FRESH), opened(FRESH)]),
            ("reuses an id", vec![opened(ACCEPTED), opened(ACCEPTED)]),
            ("speaks before", vec![connect(FRESH), received(FRESH, 1)]),
            (
                "speaks, though",
                vec![opened(ACCEPTED), Asks(Ask::Close { conn: ACCEPTED }), received(ACCEPTED, 1)],
            ),
            ("received nothing", vec![opened(ACCEPTED), received(ACCEPTED, 0)]),
            (
                "more than was granted",
                vec![opened(ACCEPTED), received(ACCEPTED, 1 + STREAM_CREDIT_INITIAL as usize)],
            ),
            ("nothing was queued", vec![opened(ACCEPTED), sent(ACCEPTED)]),
            ("not open", vec![closed(FRESH, CloseReason::Ended)]),
            ("refused after", vec![opened(ACCEPTED), closed(ACCEPTED, CloseReason::Refused)]),
            ("sector boundary", vec![message(unaligned())]),
            ("padded with zeros", vec![message(dirty.freeze().slice(0..5))]),
            ("a body of", vec![message(frame(1 + FRAME_BODY_SIZE_LIMIT as usize))]),
        ];
        for (index, (rule, story)) in breaches.into_iter().enumerate() {
            let caught = live(story).expect_err(rule);
            assert!(caught.contains(rule), "breach {index}: {caught:?} does not say {rule:?}");
        }
    }

    #[test]
    fn asks_in_flight_are_counted() {
        let mut rules = Ordered::new();
        let mut asked = Asked::new();
        rules.wrap(&mut asked).read(Token(1), Place::log(0), Buf::zeroed(SECTOR_SIZE));
        assert_eq!(rules.in_flight(), 1);
        rules.heard(&Event::Read { token: Token(1), result: Err(ReadFault::Failed) });
        assert_eq!(rules.in_flight(), 0);
    }
}
