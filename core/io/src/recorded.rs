//! A machine's life as a value: its opening and every event it heard, to be lived again elsewhere.
//!
//! Each step carries a digest of everything that was asked *before* it. So a step can be made durable
//! before its event is handled, nothing is ever written twice, and a replay that asks for something else
//! is caught at the next step. What a machine tells its parent is not covered, and of the head of a packet only
//! what it says: authenticators follow from a secret that no recording holds.

use alloc::vec::Vec;
use core::fmt;

use kimberlite_types::limits::FRAME_SAID_SIZE;
use kimberlite_types::{Now, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::{Address, Buf, Conn, Disk, Event, Frame, Io, Machine, Net, Packet, Place, Token, Zone};

/// A digest of a sequence of asks: kinds, tokens, places, lengths and contents.
///
/// FNV-1a with 128 bits of state (Fowler, Noll, Vo), fed with 64-bit words instead of bytes for speed. Each
/// step is a bijection of the state, so a difference in one word can never vanish. It finds machines that
/// diverge; it does not withstand someone who wants two sequences to collide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EffectDigest(pub u128);

impl EffectDigest {
    /// The digest of no asks.
    pub const EMPTY: Self = Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);

    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ u128::from(word)).wrapping_mul(Self::PRIME);
    }

    /// Length, then content; the last word is filled up with zeros, which the length tells from content.
    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
    }

    fn disk(&mut self, kind: u64, token: Token, at: Place) {
        self.word(kind);
        self.word(token.0);
        self.word(match at.zone {
            Zone::Superblock => 0,
            Zone::Headers => 1,
            Zone::Log => 2,
            Zone::Grid => 3,
        });
        self.word(at.offset);
    }

    fn net(&mut self, kind: u64, whom: u64) {
        self.word(kind);
        self.word(whom);
    }
}

impl Default for EffectDigest {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for EffectDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One event of a life, as it is recorded before it is handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The time the machine was told.
    pub now: Now,
    /// What it heard.
    pub event: Event,
    /// Digest of all it had asked for before this event.
    pub before: EffectDigest,
}

/// A life: how the machine was opened, and what happened to it since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// All that is needed to open the same machine again: build, configuration, seed. Its meaning is the
    /// program's. Never holds a private key.
    pub opening: Vec<u8>,
    /// The events, oldest first.
    pub steps: Vec<Step>,
    /// Digest of all asks, when the life was recorded to its end. Absent after a crash: then nobody knows
    /// what the last event led to.
    pub end: Option<EffectDigest>,
}

impl Recording {
    /// A life that has just been opened.
    pub const fn new(opening: Vec<u8>) -> Self {
        Self { opening, steps: Vec::new(), end: None }
    }

    /// The events in order, with the time each was heard.
    pub fn iter(&self) -> impl Iterator<Item = (Now, &Event)> {
        self.steps.iter().map(|step| (step.now, &step.event))
    }

    /// Lives this life again in `machine`, freshly opened from the same opening. What it tells its parent
    /// is appended to `out`. Ends at the first ask that differs from the recorded life's.
    pub fn replay<M: Machine<Input = Event>>(
        &self,
        machine: &mut M,
        out: &mut Vec<M::Output>,
    ) -> Result<(), Divergence> {
        let mut replayer = Replayer::new();
        for step in &self.steps {
            replayer.step(step, machine, out)?;
        }
        self.end.map_or(Ok(()), |end| replayer.finish(end))
    }
}

/// Turns events into steps, and digests what is asked meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    digest: EffectDigest,
}

impl Recorder {
    /// At the start of a life.
    pub fn new() -> Self {
        Self::default()
    }

    /// The step to append to the recording, before `event` is handled, so that an abort loses nothing.
    #[must_use = "a step that is not kept leaves a hole in the recording"]
    pub fn heard(&mut self, now: Now, event: &Event) -> Step {
        Step { now, event: event.clone(), before: self.digest }
    }

    /// The driver as the machine should see it: every ask is digested, then passed on.
    pub fn wrap<'a>(&'a mut self, io: &'a mut dyn Io) -> impl Io + 'a {
        Digesting { digest: &mut self.digest, io: Some(io) }
    }

    /// Digest of everything asked so far. At the end of a life it is the recording's `end`.
    pub fn digest(&self) -> EffectDigest {
        self.digest
    }
}

/// Feeds steps to a fresh machine whose asks go nowhere, and compares digests on the way.
#[derive(Clone, Debug, Default)]
pub struct Replayer {
    digest: EffectDigest,
    handled: u64,
}

impl Replayer {
    /// At the start of a life.
    pub fn new() -> Self {
        Self::default()
    }

    /// Confirms that all went as recorded up to `step`, then lets `machine` handle its event.
    pub fn step<M: Machine<Input = Event>>(
        &mut self,
        step: &Step,
        machine: &mut M,
        out: &mut Vec<M::Output>,
    ) -> Result<(), Divergence> {
        self.finish(step.before)?;
        machine.on(step.now, step.event.clone(), &mut self.io(), out);
        self.handled += 1;
        Ok(())
    }

    /// Where a machine's asks go that it makes while it is opened, before the first step.
    pub fn io(&mut self) -> impl Io + '_ {
        Digesting { digest: &mut self.digest, io: None }
    }

    /// Confirms that everything asked so far digests to `expected`.
    pub fn finish(&self, expected: EffectDigest) -> Result<(), Divergence> {
        if self.digest == expected {
            Ok(())
        } else {
            Err(Divergence { step: self.handled, expected, got: self.digest })
        }
    }
}

/// Two lives from one opening asked for different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The event whose handling first differed, counted from 1; 0 is the opening itself.
    pub step: u64,
    /// Digest of all asks up to and including that step, as recorded.
    pub expected: EffectDigest,
    /// The same, as replayed.
    pub got: EffectDigest,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, expected, got } = self;
        write!(
            f,
            "the replay diverged at event {step}: its asks digest to {got:?}, recorded were {expected:?}"
        )
    }
}

impl core::error::Error for Divergence {}

/// Digests asks and passes them on, if there is someone to pass them to.
struct Digesting<'a> {
    digest: &'a mut EffectDigest,
    io: Option<&'a mut dyn Io>,
}

impl Disk for Digesting<'_> {
    fn read(&mut self, token: Token, at: Place, buf: Buf) {
        self.digest.disk(1, token, at);
        self.digest.word(buf.len() as u64);
        if let Some(io) = &mut self.io {
            io.read(token, at, buf);
        }
    }

    fn write(&mut self, token: Token, at: Place, data: Frame) {
        self.digest.disk(2, token, at);
        self.digest.bytes(&data);
        if let Some(io) = &mut self.io {
            io.write(token, at, data);
        }
    }

    fn trim(&mut self, token: Token, at: Place, len: u64) {
        self.digest.disk(3, token, at);
        self.digest.word(len);
        if let Some(io) = &mut self.io {
            io.trim(token, at, len);
        }
    }
}

impl Net for Digesting<'_> {
    fn send(&mut self, to: ReplicaId, packet: Packet) {
        self.digest.net(4, u64::from(to.0));
        self.digest.bytes(&packet.head[..FRAME_SAID_SIZE]);
        self.digest.bytes(&packet.body);
        if let Some(io) = &mut self.io {
            io.send(to, packet);
        }
    }

    fn connect(&mut self, conn: Conn, to: Address) {
        self.digest.net(5, conn.0);
        self.digest.word(u64::from(to.0));
        if let Some(io) = &mut self.io {
            io.connect(conn, to);
        }
    }

    fn stream(&mut self, conn: Conn, data: Frame) {
        self.digest.net(6, conn.0);
        self.digest.bytes(&data);
        if let Some(io) = &mut self.io {
            io.stream(conn, data);
        }
    }

    fn grant(&mut self, conn: Conn, bytes: u32) {
        self.digest.net(7, conn.0);
        self.digest.word(u64::from(bytes));
        if let Some(io) = &mut self.io {
            io.grant(conn, bytes);
        }
    }

    fn close(&mut self, conn: Conn) {
        self.digest.net(8, conn.0);
        if let Some(io) = &mut self.io {
            io.close(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Asked};
    use kimberlite_types::limits::{FRAME_HEADER_SIZE, SECTOR_SIZE};
    use kimberlite_types::{Instant, WallTime};

    /// Writes the bytes it receives, one sector each, and stumbles over a byte of its choice.
    struct Writer {
        next: u64,
        stumbles_over: u8,
    }

    impl Machine for Writer {
        type Input = Event;
        type Output = u8;

        fn on(&mut self, _: Now, event: Event, io: &mut dyn Io, out: &mut Vec<u8>) {
            let Event::Received { data, .. } = event else { return };
            for byte in data.iter() {
                let written = if *byte == self.stumbles_over { !*byte } else { *byte };
                let at = Place::log(self.next * SECTOR_SIZE as u64);
                io.write(Token(self.next), at, Frame::copy_from(&[written; SECTOR_SIZE]));
                self.next += 1;
                out.push(*byte);
            }
        }

        fn wake_at(&self) -> Option<Instant> {
            None
        }
    }

    fn sound() -> Writer {
        Writer { next: 0, stumbles_over: 0 }
    }

    fn record(bytes: &[u8]) -> (Recording, Vec<Ask>) {
        let mut recording = Recording::new(b"opening".to_vec());
        let mut recorder = Recorder::new();
        let mut machine = sound();
        let mut asked = Asked::new();
        for (second, byte) in bytes.iter().enumerate() {
            let now = Now { monotonic: Instant(second as u64), wall: WallTime(7) };
            let event = Event::Received { conn: Conn(1), data: Frame::copy_from(&[*byte]) };
            recording.steps.push(recorder.heard(now, &event));
            machine.on(now, event, &mut recorder.wrap(&mut asked), &mut Vec::new());
        }
        recording.end = Some(recorder.digest());
        (recording, asked.take())
    }

    #[test]
    fn a_recorded_machine_asks_the_world_for_all_it_asks() {
        let (recording, asked) = record(b"abc");
        assert_eq!(asked.len(), 3);
        let seconds: Vec<u64> = recording.iter().map(|(now, _)| now.monotonic.0).collect();
        assert_eq!(seconds, [0, 1, 2]);
    }

    #[test]
    fn a_replay_repeats_the_outputs_and_confirms_every_step() {
        let (recording, _) = record(b"abcd");
        let mut out = Vec::new();
        assert_eq!(recording.replay(&mut sound(), &mut out), Ok(()));
        assert_eq!(out, b"abcd");
    }

    #[test]
    fn a_replay_names_the_first_step_that_diverged() {
        let (recording, _) = record(b"abcd");
        let diverged = |byte| {
            let mut machine = Writer { next: 0, stumbles_over: byte };
            recording.replay(&mut machine, &mut Vec::new()).expect_err("it stumbles")
        };
        let divergence = diverged(b'b');
        assert_eq!((divergence.step, divergence.expected), (2, recording.steps[2].before));
        assert_ne!(divergence.got, divergence.expected);
        assert_eq!(diverged(b'd').step, 4);
    }

    #[test]
    fn a_life_that_ended_in_a_crash_is_replayed_but_its_last_step_is_not_judged() {
        let (mut recording, _) = record(b"abcd");
        recording.end = None;
        let mut machine = Writer { next: 0, stumbles_over: b'd' };
        assert_eq!(recording.replay(&mut machine, &mut Vec::new()), Ok(()));
    }

    #[test]
    fn asks_made_while_opening_count_as_step_zero() {
        let mut replayer = Replayer::new();
        replayer.io().close(Conn(1));
        assert_eq!(replayer.finish(EffectDigest::EMPTY).expect_err("one ask too many").step, 0);
    }

    #[test]
    fn a_digest_tells_apart_every_field_of_every_ask() {
        let head = [0; FRAME_HEADER_SIZE];
        let sector = |byte| Frame::copy_from(&[byte; SECTOR_SIZE]);
        let bytes = |bytes: &[u8]| Frame::copy_from(bytes);
        let packet = |body: &[u8]| Packet { head, body: Frame::copy_from(body) };
        let (token, at, conn) = (Token(1), Place::log(0), Conn(1));
        let asks = vec![
            Ask::Read { token, at, len: 4096 },
            Ask::Read { token: Token(2), at, len: 4096 },
            Ask::Read { token, at: Place::headers(0), len: 4096 },
            Ask::Read { token, at: Place::superblock(0), len: 4096 },
            Ask::Read { token, at: Place::log(4096), len: 4096 },
            Ask::Read { token, at, len: 8192 },
            Ask::Write { token, at, data: sector(0) },
            Ask::Write { token, at, data: sector(1) },
            Ask::Trim { token, at, len: 4096 },
            Ask::Trim { token, at, len: 8192 },
            Ask::Send { to: ReplicaId(0), packet: packet(b"") },
            Ask::Send { to: ReplicaId(1), packet: packet(b"") },
            Ask::Send { to: ReplicaId(0), packet: packet(b"\0") },
            Ask::Send { to: ReplicaId(0), packet: Packet { head: [1; FRAME_HEADER_SIZE], body: bytes(b"") } },
            Ask::Connect { conn, to: Address(0) },
            Ask::Connect { conn, to: Address(1) },
            Ask::Stream { conn, data: bytes(b"ab") },
            Ask::Stream { conn, data: bytes(b"ba") },
            Ask::Stream { conn, data: bytes(b"ab\0") },
            Ask::Grant { conn, bytes: 1 },
            Ask::Grant { conn, bytes: 2 },
            Ask::Close { conn },
            Ask::Close { conn: Conn(2) },
        ];
        let digests: Vec<EffectDigest> = asks
            .into_iter()
            .map(|ask| {
                let mut recorder = Recorder::new();
                ask.ask(&mut recorder.wrap(&mut Asked::new()));
                recorder.digest()
            })
            .collect();
        for (index, digest) in digests.iter().enumerate() {
            assert_ne!(*digest, EffectDigest::EMPTY, "ask {index} leaves no trace");
            assert!(!digests[..index].contains(digest), "ask {index} looks like an earlier one");
        }
    }

    #[test]
    fn a_digest_leaves_out_what_follows_from_a_secret_and_nothing_else_of_a_head() {
        let digest = |byte: Option<usize>| {
            let mut head = [7; FRAME_HEADER_SIZE];
            if let Some(byte) = byte {
                head[byte] ^= 1;
            }
            let mut recorder = Recorder::new();
            recorder.wrap(&mut Asked::new()).send(ReplicaId(1), Packet { head, body: Frame::empty() });
            recorder.digest()
        };
        for byte in 0..FRAME_HEADER_SIZE {
            assert_eq!(digest(Some(byte)) == digest(None), byte >= FRAME_SAID_SIZE, "byte {byte}");
        }
    }

    #[test]
    fn a_digest_knows_the_order_and_never_changes_between_releases() {
        let digest = |conns: [u64; 2]| {
            let mut recorder = Recorder::new();
            for conn in conns {
                recorder.wrap(&mut Asked::new()).close(Conn(conn));
            }
            recorder.digest()
        };
        assert_ne!(digest([1, 2]), digest([2, 1]));
        assert_eq!(digest([1, 2]).0, 136171034813000545002857757802687926724, "golden");
    }
}
