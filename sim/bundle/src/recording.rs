//! The life of a node, written along while it lives, and read again.
//!
//! Blocks are written as they are, not compressed: a byte that waits in a compressor is lost when the process aborts,
//! and a node that records is at work.

use std::fmt;
use std::io::{self, Read, Write};

use kimberlite_io::{Event, Io, Packet, Recorder};
use kimberlite_types::{Config, Now};
use kimberlite_wire::Resealer;
use serde::{Deserialize, Serialize};

use crate::block::{
    BLOCK_HEAD_SIZE, Ended, Entry, EntryRef, PAYLOAD_SIZE_MAX, Standing, chain, size_in, sizes,
};
use crate::container::{FormatError, HEAD_SIZE, Head, Kind, pack};
use crate::identity::Identity;

/// Bytes of an opening, packed or unpacked, at most: some texts and numbers.
pub const OPENING_SIZE_MAX: usize = 64 << 10;

/// Room kept for the entry that says that the limit was reached.
const END_ROOM: u64 = 256;

/// Events between two entries that say how the node stands.
const STANDING_EVENTS: u64 = 1_024;

/// A buffer larger than this is not kept for the next event.
const BUFFER_KEPT_MAX: usize = 1 << 20;

/// The most a recording may make its reader allocate up front: four times what production uses.
const RING_SLOTS_MAX: u32 = 1 << 16;
const SESSIONS_MAX: u32 = 1 << 16;

/// How a node was opened. With the events, all that decides what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The program.
    pub identity: Identity,
    /// The node's configuration.
    pub config: Config,
    /// The node's seed.
    pub seed: u64,
    /// When.
    pub at: Now,
}

impl Opening {
    fn check(&self) -> Result<(), FormatError> {
        self.config.check().map_err(|error| FormatError::Sense(error.reason))?;
        let sizes =
            self.config.layout.ring_slots <= RING_SLOTS_MAX && self.config.sessions_max <= SESSIONS_MAX;
        if sizes {
            Ok(())
        } else {
            Err(FormatError::Sense("a recorded node has at most 65,536 slots and sessions"))
        }
    }
}

/// Why a recording is over although its node lives.
#[derive(Debug)]
pub enum Gone {
    /// It reached its limit of so many bytes, and says so.
    Limit(u64),
    /// It could not be written any more.
    Failed(io::Error),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(limit) => write!(f, "its limit of {limit} bytes is reached"),
            Self::Failed(error) => write!(f, "it cannot be written: {error}"),
        }
    }
}

/// A flight recorder: writes down what a node is told, before the node hears it.
pub struct Flight<W> {
    sink: W,
    /// One block, as it goes to the sink: its memory is used again.
    buffer: Vec<u8>,
    chain: [u8; 32],
    written: u64,
    limit: u64,
    events: u64,
    recorder: Recorder,
    resealer: Resealer,
}

impl<W: Write> Flight<W> {
    /// Begins with the opening. `secret` is the cluster's; it is used to tell authentic frames from others, and is not
    /// written. The sink must not buffer: what was written must be with the kernel.
    pub fn begin(sink: W, opening: &Opening, secret: &[u8; 32], limit: u64) -> io::Result<Self> {
        let content = postcard::to_allocvec(opening).expect("our own openings encode");
        let head = pack(Kind::Recording, &content);
        assert!(head.len() < OPENING_SIZE_MAX, "an opening is small");
        let mut flight = Self {
            sink,
            buffer: Vec::new(),
            chain: Head::read(&head).expect("our own heads decode").hash,
            written: head.len() as u64,
            limit,
            events: 0,
            recorder: Recorder::new(),
            resealer: Resealer::new(secret, opening.config.replica),
        };
        flight.sink.write_all(&head)?;
        Ok(flight)
    }

    /// Writes an event down, which is about to be handled. After an error the recording is over: drop it.
    ///
    /// `standing` is asked now and then: how many ops are committed, and the digest of the state.
    pub fn heard(
        &mut self,
        now: Now,
        event: &Event,
        standing: impl Fn() -> (kimberlite_types::Op, [u8; 32]),
    ) -> Result<(), Gone> {
        let standing = |events| {
            let (commit, state) = standing();
            Standing { events, commit, state }
        };
        let events = self.events;
        if events > 0 && events.is_multiple_of(STANDING_EVENTS) {
            self.block(&EntryRef::Standing(standing(events)));
            self.flush(|| standing(events))?;
        }
        let before = self.recorder.digest();
        match event {
            Event::Message { from, packet } => {
                let head = self.resealer.reseal(*from, &packet.head);
                let packet = Packet { head, body: packet.body.clone() };
                let event = &Event::Message { from: *from, packet };
                self.block(&EntryRef::Event { now, event, before });
            }
            event => self.block(&EntryRef::Event { now, event, before }),
        }
        self.flush(|| standing(events))?;
        self.events += 1;
        Ok(())
    }

    /// The driver as the node should see it.
    pub fn wrap<'a>(&'a mut self, io: &'a mut dyn Io) -> impl Io + 'a {
        self.recorder.wrap(io)
    }

    /// Ends the recording on purpose. Answers what it was written to.
    pub fn end(mut self, why: Ended, commit: kimberlite_types::Op, state: [u8; 32]) -> io::Result<W> {
        let standing = Standing { events: self.events, commit, state };
        self.block(&EntryRef::Ended { why, standing, asks: self.recorder.digest() });
        self.write()?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    /// Bytes so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Makes the buffer hold the block of an entry.
    fn block(&mut self, entry: &EntryRef<'_>) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&[0; BLOCK_HEAD_SIZE]);
        buffer = postcard::to_extend(entry, buffer).expect("our own entries encode");
        self.buffer = buffer;
    }

    /// Writes the block in the buffer, or ends the recording where it would exceed its limit.
    fn flush(&mut self, standing: impl Fn() -> Standing) -> Result<(), Gone> {
        let size = self.buffer.len() as u64;
        if self.written + size + END_ROOM > self.limit {
            self.block(&EntryRef::Ended {
                why: Ended::Limit,
                standing: standing(),
                asks: self.recorder.digest(),
            });
            self.write().map_err(Gone::Failed)?;
            return Err(Gone::Limit(self.limit));
        }
        self.write().map_err(Gone::Failed)?;
        if self.buffer.capacity() > BUFFER_KEPT_MAX {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Hashes and writes the block in the buffer.
    fn write(&mut self) -> io::Result<()> {
        let (head, payload) = self.buffer.split_at_mut(BLOCK_HEAD_SIZE);
        assert!(payload.len() <= PAYLOAD_SIZE_MAX, "an event is smaller than {PAYLOAD_SIZE_MAX} bytes");
        let sizes = sizes(payload.len());
        self.chain = chain(&self.chain, &sizes, payload);
        head[..8].copy_from_slice(&sizes);
        head[8..].copy_from_slice(&self.chain[..16]);
        self.sink.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        Ok(())
    }
}

/// How the file of a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With an entry that says why.
    Ended(Ended),
    /// Behind a whole entry, without a word: the process ended at once.
    Abrupt,
    /// In the middle of an entry, which was cut off: so many bytes.
    Torn(u64),
}

/// Why a recording cannot be read, or not any further.
#[derive(Debug)]
pub enum ReadError {
    /// The file could not be read.
    Io(io::Error),
    /// It does not begin like a recording that this program can use.
    Format(FormatError),
    /// It is damaged in the middle: the block at this byte does not match its hash, and more follows.
    Damaged {
        /// Where.
        at: u64,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Format(error) => error.fmt(f),
            Self::Damaged { at } => {
                write!(f, "the recording is damaged at byte {at}: what stands there does not match its hash")
            }
        }
    }
}

impl std::error::Error for ReadError {}

impl From<FormatError> for ReadError {
    fn from(error: FormatError) -> Self {
        Self::Format(error)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a recording entry by entry. Holds one block at a time.
pub struct Reader<R> {
    source: R,
    opening: Opening,
    chain: [u8; 32],
    /// Bytes read so far, all of them verified.
    at: u64,
    tail: Option<Tail>,
}

impl<R: Read> Reader<R> {
    /// Reads the opening.
    pub fn open(mut source: R) -> Result<Self, ReadError> {
        let mut head = Vec::new();
        source.by_ref().take(HEAD_SIZE as u64).read_to_end(&mut head)?;
        let found = Head::read(&head)?;
        if found.kind != Kind::Recording {
            return Err(FormatError::Kind(found.kind).into());
        }
        if found.size as usize > OPENING_SIZE_MAX {
            return Err(FormatError::TooLarge(OPENING_SIZE_MAX).into());
        }
        let mut body = Vec::new();
        source.by_ref().take(found.size.into()).read_to_end(&mut body)?;
        if body.len() != found.size as usize {
            return Err(FormatError::Size.into());
        }
        let content = found.open(&head, &body, OPENING_SIZE_MAX)?;
        let opening: Opening = postcard::from_bytes(&content).map_err(|_| FormatError::Content)?;
        opening.check()?;
        let at = (head.len() + body.len()) as u64;
        Ok(Self { source, opening, chain: found.hash, at, tail: None })
    }

    /// How the node was opened.
    pub const fn opening(&self) -> &Opening {
        &self.opening
    }

    /// How the file ends, once there are no more entries.
    pub const fn tail(&self) -> Option<Tail> {
        self.tail
    }

    /// Bytes that were read and verified.
    pub const fn verified(&self) -> u64 {
        self.at
    }

    /// The next entry; none at the end. A block that is cut off at the end of the file, or that does not match its
    /// hash and is the last one, was being written when the machine stopped: it is left out. The same within the file
    /// is damage.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        if self.tail.is_some() {
            return Ok(None);
        }
        let mut block = Vec::new();
        self.source.by_ref().take(BLOCK_HEAD_SIZE as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            self.tail = Some(Tail::Abrupt);
            return Ok(None);
        }
        let Some(head) = block.first_chunk::<BLOCK_HEAD_SIZE>().copied() else {
            return self.torn(block.len());
        };
        let Some(size) = size_in(&head) else { return self.torn(block.len()) };
        self.source.by_ref().take(size as u64).read_to_end(&mut block)?;
        let payload = &block[BLOCK_HEAD_SIZE..];
        let chain = chain(&self.chain, &head[..8], payload);
        if payload.len() < size || chain[..16] != head[8..] {
            return self.torn(block.len());
        }
        let entry: Entry = postcard::from_bytes(payload).map_err(|_| FormatError::Content)?;
        self.chain = chain;
        self.at += block.len() as u64;
        if let Entry::Ended { why, .. } = entry {
            self.tail = Some(Tail::Ended(why));
            let behind = io::copy(&mut self.source.by_ref().take(1), &mut io::sink())?;
            if behind > 0 {
                return Err(ReadError::Damaged { at: self.at });
            }
        }
        Ok(Some(entry))
    }

    /// A block does not verify, of which `read` bytes were read. It is a torn tail if nothing follows but zeros, which a
    /// file system may leave where it had no time to write.
    fn torn(&mut self, read: usize) -> Result<Option<Entry>, ReadError> {
        let mut rest = 0;
        let mut piece = [0; 4096];
        loop {
            let count = self.source.read(&mut piece)?;
            if count == 0 {
                break;
            }
            if piece[..count].iter().any(|byte| *byte != 0) {
                self.tail = Some(Tail::Torn(0));
                return Err(ReadError::Damaged { at: self.at });
            }
            rest += count as u64;
        }
        self.tail = Some(Tail::Torn(read as u64 + rest));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_io::{Asked, Conn, Disk as _, Frame, Net as _, Place, Token, Zone};
    use kimberlite_types::{ClusterId, Layout, Op, ReplicaId, Timing};

    fn opening() -> Opening {
        let config = Config {
            cluster: ClusterId(9),
            replica: ReplicaId(1),
            replicas: 3,
            layout: Layout::SMALL,
            timing: Timing::PRODUCTION,
            pipeline_max: 8,
            sessions_max: 64,
        };
        Opening { identity: Identity::current(), config, seed: 7, at: Now::default() }
    }

    const SECRET: [u8; 32] = *b"the secret of a cluster in tests";

    fn standing() -> (Op, [u8; 32]) {
        (Op(3), [4; 32])
    }

    /// A recording of `count` events, and where each of its blocks ends.
    fn recording(count: u64, limit: u64) -> (Flight<Vec<u8>>, Vec<usize>, Option<Gone>) {
        let mut flight = Flight::begin(Vec::new(), &opening(), &SECRET, limit).unwrap();
        let mut ends = vec![flight.sink.len()];
        for number in 0..count {
            let data = Frame::copy_from(&number.to_le_bytes());
            let event = Event::Received { conn: Conn(number), data };
            if let Err(gone) = flight.heard(Now::default(), &event, standing) {
                return (flight, ends, Some(gone));
            }
            ends.push(flight.sink.len());
            flight.wrap(&mut Asked::new()).close(Conn(number));
        }
        (flight, ends, None)
    }

    fn read(file: &[u8]) -> Result<(Vec<Entry>, Option<Tail>), ReadError> {
        let mut reader = Reader::open(file)?;
        assert_eq!(*reader.opening(), opening());
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            entries.push(entry);
        }
        Ok((entries, reader.tail()))
    }

    #[test]
    fn a_recording_gives_every_event_back_with_the_digest_of_what_was_asked_before_it() {
        let (flight, ..) = recording(5, u64::MAX);
        let file = flight.end(Ended::Stopped, Op(8), [1; 32]).unwrap();
        let (entries, tail) = read(&file).unwrap();
        assert_eq!(tail, Some(Tail::Ended(Ended::Stopped)));
        assert_eq!(entries.len(), 6);
        let mut recorder = Recorder::new();
        for (number, entry) in entries[..5].iter().enumerate() {
            let Entry::Event(step) = entry else { panic!("{entry:?}") };
            assert_eq!(step.before, recorder.digest());
            assert!(matches!(&step.event, Event::Received { conn, .. } if conn.0 == number as u64));
            recorder.wrap(&mut Asked::new()).close(Conn(number as u64));
        }
        let Entry::Ended { standing, asks, .. } = &entries[5] else { panic!("{entries:?}") };
        assert_eq!((standing.events, standing.commit, *asks), (5, Op(8), recorder.digest()));
    }

    #[test]
    fn a_recording_cut_anywhere_gives_all_whole_events_before_the_cut() {
        let (flight, ends, _) = recording(6, u64::MAX);
        let file = flight.sink;
        for cut in ends[0]..=file.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let (entries, tail) = read(&file[..cut]).unwrap();
            assert_eq!(entries.len(), whole, "cut at {cut}");
            let expected =
                if ends.contains(&cut) { Tail::Abrupt } else { Tail::Torn((cut - ends[whole]) as u64) };
            assert_eq!(tail, Some(expected), "cut at {cut}");
        }
        for cut in 0..ends[0] {
            assert!(read(&file[..cut]).is_err(), "cut at {cut}");
        }
        let zeros = [&file[..ends[3] + 5], &[0; 5000]].concat();
        let (entries, tail) = read(&zeros).unwrap();
        assert_eq!((entries.len(), tail), (3, Some(Tail::Torn(5005))));
    }

    #[test]
    fn a_flipped_bit_is_damage_within_the_file_and_a_torn_tail_in_its_last_block() {
        let (flight, ends, _) = recording(6, u64::MAX);
        let file = flight.sink;
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match read(&damaged) {
                Ok((entries, Some(Tail::Torn(_)))) => {
                    assert!(bit / 8 >= ends[5], "bit {bit}");
                    assert_eq!(entries.len(), 5);
                }
                // The last block's size is not torn either: a tear leaves it whole or cut.
                Err(ReadError::Damaged { at }) => {
                    assert!((ends[0]..ends[5] + 8).contains(&(bit / 8)), "bit {bit}");
                    assert!(ends.contains(&(at as usize)));
                }
                Err(ReadError::Format(_)) => assert!(bit / 8 < ends[0], "bit {bit}"),
                other => panic!("bit {bit}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_limit_ends_the_recording_with_a_word_and_is_kept() {
        let limit = 1_500;
        let (flight, ends, gone) = recording(1_000, limit);
        assert!(matches!(gone, Some(Gone::Limit(1_500))), "{gone:?}");
        assert!(flight.written() <= limit && ends.len() > 3);
        let (entries, tail) = read(&flight.sink).unwrap();
        assert_eq!(entries.len(), ends.len());
        assert_eq!(tail, Some(Tail::Ended(Ended::Limit)));
    }

    #[test]
    fn now_and_then_a_recording_says_how_the_node_stands() {
        let (flight, ..) = recording(2 * STANDING_EVENTS + 1, u64::MAX);
        let (entries, _) = read(&flight.sink).unwrap();
        let found: Vec<u64> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Standing(standing) => Some(standing.events),
                _ => None,
            })
            .collect();
        assert_eq!(found, [STANDING_EVENTS, 2 * STANDING_EVENTS]);
    }

    #[test]
    fn nothing_may_follow_the_end_and_no_opening_may_ask_for_more_than_there_is_room_for() {
        let (flight, ..) = recording(1, u64::MAX);
        let mut file = flight.end(Ended::Halted, Op(0), [0; 32]).unwrap();
        file.push(0);
        assert!(matches!(read(&file), Err(ReadError::Damaged { .. })));
        let mut greedy = opening();
        greedy.config.sessions_max = u32::MAX;
        let file = Flight::begin(Vec::new(), &greedy, &SECRET, u64::MAX).unwrap().sink;
        assert!(matches!(Reader::open(&file[..]), Err(ReadError::Format(FormatError::Sense(_)))));
    }

    #[test]
    fn a_recording_holds_no_secret() {
        let (flight, ..) = recording(3, u64::MAX);
        let file = flight.end(Ended::Stopped, Op(0), [0; 32]).unwrap();
        assert!(!file.windows(8).any(|window| SECRET.windows(8).any(|part| part == window)));
    }

    #[test]
    fn asks_of_the_disk_go_through_to_it() {
        let (mut flight, ..) = recording(1, u64::MAX);
        let mut asked = Asked::new();
        let at = Place { zone: Zone::Log, offset: 0 };
        flight.wrap(&mut asked).write(Token(1), at, Frame::copy_from(&[1; 4096]));
        assert_eq!(asked.take().len(), 1);
    }
}
