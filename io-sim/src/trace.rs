//! The world's memory of itself: a rolling digest, the census and the latest faults.

use kimberlite_io::{CloseReason, Event, Place, ReadFault, WriteFault, Zone};
use kimberlite_types::Instant;

use crate::NodeId;
use crate::census::{Census, Fault, FaultInjected, Happening};

/// Records waiting to be hashed, in bytes: long enough for BLAKE3 to work on many chunks at once.
const BUFFER_SIZE: usize = 64 << 10;

/// Faults remembered until someone takes them; later ones are only counted.
const FAULTS_MAX: usize = 16 << 10;

/// One line of the digest. What does not apply is zero.
#[derive(Clone, Copy, Default)]
pub(crate) struct Line {
    /// Token, connection, tag or peer.
    pub(crate) name: u64,
    /// Zone and outcome.
    pub(crate) code: u16,
    /// Offset on disk.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// Fingerprint of the payload.
    pub(crate) content: u64,
}

impl Line {
    pub(crate) fn named(name: u64) -> Self {
        Self { name, ..Self::default() }
    }

    pub(crate) fn at(mut self, place: Place, len: u64) -> Self {
        self.code = zone_code(place.zone);
        self.offset = place.offset;
        self.len = len;
        self
    }

    pub(crate) fn with(mut self, payload: &[u8]) -> Self {
        self.len = payload.len() as u64;
        self.content = fingerprint(payload);
        self
    }
}

/// A number for each zone, from 1.
const fn zone_code(zone: Zone) -> u16 {
    match zone {
        Zone::Superblock => 1,
        Zone::Headers => 2,
        Zone::Log => 3,
        Zone::Grid => 4,
    }
}

/// A running sum over all lines, cheap enough to be looked at after each: two runs that agree in the digest agree
/// here, and where they part it shows at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// After the last thing that was delivered, before it was handled.
    pub heard: u64,
    /// Now: after everything that was asked since.
    pub asked: u64,
}

pub(crate) struct Trace {
    pub(crate) pulse: Pulse,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    pub(crate) census: Census,
    faults: Vec<FaultInjected>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self {
            pulse: Pulse::default(),
            hasher: blake3::Hasher::new(),
            buffer: Vec::with_capacity(BUFFER_SIZE + 64),
            census: Census::new(),
            faults: Vec::new(),
        }
    }

    /// Notes that something happened at `node`.
    pub(crate) fn line(&mut self, time: u64, node: NodeId, what: Happening, line: Line) {
        self.census.count(what);
        let mut bytes = [0; 48];
        bytes[0] = what as u8;
        bytes[2..4].copy_from_slice(&node.0.to_le_bytes());
        bytes[4..6].copy_from_slice(&line.code.to_le_bytes());
        bytes[8..16].copy_from_slice(&time.to_le_bytes());
        bytes[16..24].copy_from_slice(&line.name.to_le_bytes());
        bytes[24..32].copy_from_slice(&line.offset.to_le_bytes());
        bytes[32..40].copy_from_slice(&line.len.to_le_bytes());
        bytes[40..48].copy_from_slice(&line.content.to_le_bytes());
        for word in bytes.as_chunks::<8>().0 {
            self.pulse.asked = mix(self.pulse.asked, u64::from_le_bytes(*word));
        }
        self.buffer.extend_from_slice(&bytes);
        if self.buffer.len() >= BUFFER_SIZE {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// Notes that a timer of the policy went off.
    pub(crate) fn policy(&mut self, time: u64, tag: u64) {
        self.line(time, NodeId(u16::MAX), Happening::Policy, Line::named(tag));
        self.pulse.heard = self.pulse.asked;
    }

    /// Notes an event about to be delivered and says what it is.
    pub(crate) fn event(&mut self, time: u64, node: NodeId, event: &Event) -> Happening {
        let (what, line) = match event {
            Event::Wake => (Happening::Wake, Line::default()),
            Event::Read { token, result } => {
                let line = Line::named(token.0);
                let line = match result {
                    Ok(buf) => line.with(buf),
                    Err(ReadFault::Absent) => Line { code: 1, ..line },
                    Err(ReadFault::Failed) => Line { code: 2, ..line },
                };
                (Happening::Read, line)
            }
            Event::Written { token, result } => (Happening::Written, written(token.0, *result)),
            Event::Trimmed { token, result } => (Happening::Trimmed, written(token.0, *result)),
            Event::Message { from, packet } => {
                let mut line = Line::named(u64::from(from.0)).with(&packet.body);
                line.offset = fingerprint(&packet.head);
                (Happening::Message, line)
            }
            Event::Opened { conn } => (Happening::Opened, Line::named(conn.0)),
            Event::Received { conn, data } => (Happening::Received, Line::named(conn.0).with(data)),
            Event::Sent { conn } => (Happening::Sent, Line::named(conn.0)),
            Event::Closed { conn, reason } => {
                let code = match reason {
                    CloseReason::Ended => 1,
                    CloseReason::Broken => 2,
                    CloseReason::Refused => 3,
                };
                (Happening::Closed, Line { code, ..Line::named(conn.0) })
            }
        };
        self.line(time, node, what, line);
        self.pulse.heard = self.pulse.asked;
        what
    }

    /// Notes a fault that took effect.
    pub(crate) fn fault(&mut self, injected: FaultInjected) {
        self.census.count_fault(injected.fault);
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(injected);
        }
    }

    pub(crate) fn node_fault(&mut self, time: u64, node: NodeId, fault: Fault) {
        self.fault(FaultInjected { at: Instant(time), node, peer: None, fault, place: None });
    }

    pub(crate) fn disk_fault(&mut self, time: u64, node: NodeId, fault: Fault, place: Place) {
        self.fault(FaultInjected { at: Instant(time), node, peer: None, fault, place: Some(place) });
    }

    pub(crate) fn path_fault(&mut self, time: u64, from: NodeId, to: NodeId, fault: Fault) {
        self.fault(FaultInjected { at: Instant(time), node: to, peer: Some(from), fault, place: None });
    }

    pub(crate) fn take_faults(&mut self) -> Vec<FaultInjected> {
        std::mem::take(&mut self.faults)
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.buffer);
        *hasher.finalize().as_bytes()
    }
}

fn written(token: u64, result: Result<(), WriteFault>) -> Line {
    let code = match result {
        Ok(()) => 0,
        Err(WriteFault::NoSpace) => 1,
        Err(WriteFault::Failed) => 2,
    };
    Line { code, ..Line::named(token) }
}

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of a running sum; for a given word a bijection of the sum.
#[inline]
const fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(FACTOR).rotate_left(29)
}

/// A 64-bit fingerprint of bytes: four lanes of multiply and rotate, so that large payloads cost little.
/// It guards against accidents, not against an enemy: both runs that are compared are our own.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    let mut lanes = [bytes.len() as u64, 1, 2, 3];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        // Of known sizes: iterators of slices cost more here than the sums, in a fifth of the simulator's time.
        let (words, _) = block.as_chunks::<8>();
        for at in 0..4 {
            lanes[at] = mix(lanes[at], u64::from_le_bytes(words[at]));
        }
    }
    for tail in rest.chunks(8) {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        lanes[0] = mix(lanes[0], u64::from_le_bytes(word));
    }
    let sum = lanes.into_iter().fold(FACTOR, mix);
    (sum ^ (sum >> 31)).wrapping_mul(FACTOR)
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn a_fingerprint_sees_every_byte_its_place_and_the_length() {
        let base = vec![0; 100];
        let mut seen = std::collections::BTreeSet::from([fingerprint(&base), fingerprint(&base[..99])]);
        for index in 0..base.len() {
            let mut changed = base.clone();
            changed[index] = 1;
            assert!(seen.insert(fingerprint(&changed)), "byte {index}");
        }
        assert_eq!(seen.len(), 102);
    }
}
