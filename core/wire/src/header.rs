//! The frame header.
//!
//! ```text
//!   0  magic "KMBF"     4  version u16     6  command u8     7  sender u8 (255: a client)
//!   8  cluster u128    24  size u32 (header and body)       28  zero u32
//!  32  view u64        40  op u64         48  commit u64    56  nonce u64
//!  64  body checksum [32]                                   96  authenticator [16]
//! 112  header checksum [16] over bytes 0..112
//! ```
//!
//! The body checksum is BLAKE3 of the body; for a `Prepare` it is the checksum of the prepare's own
//! header, which covers its body, so that a large body is hashed once. Between replicas the authenticator
//! is BLAKE3, keyed by a key of the directed pair and cut to 128 bits, over bytes 0..96; between client
//! and node it is zero. The header checksum is BLAKE3 cut to 128 bits.

use alloc::vec::Vec;

use kimberlite_crypto::{Checksum, MacKey, checksum};
use kimberlite_io::FrameShape;
use kimberlite_types::limits::{
    COUNTER_LIMIT, FRAME_BODY_SIZE_LIMIT, FRAME_HEADER_SIZE, FRAME_SAID_SIZE, REPLICAS_MAX,
};
use kimberlite_types::{ClusterId, Op, ReplicaId, View};

use crate::Malformed;
use crate::layout::{bytes_at, put, put_u16, put_u32, put_u64, put_u128, u16_at, u32_at, u64_at, u128_at};

/// The first bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"KMBF";
/// The protocol version this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// The sender field of a client's frame.
pub const SENDER_CLIENT: u8 = u8::MAX;

/// What a frame says. The numbers are the format; they are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Command {
    /// Primary to backup: hold this op.
    Prepare = 1,
    /// Backup to primary: held, durably.
    PrepareOk = 2,
    /// Primary to backup: this much is committed; I am here.
    Commit = 3,
    /// Backup to primary: I heard your `Commit`.
    CommitOk = 4,
    /// The primary seems gone; let us change the view.
    StartViewChange = 5,
    /// To the new primary: my log.
    DoViewChange = 6,
    /// From the new primary: the log.
    StartView = 7,
    /// To the primary: tell me the view.
    RequestStartView = 8,
    /// Send me these prepares.
    RequestPrepare = 9,
    /// I cannot send it, but this is its checksum.
    Vouch = 10,
    /// Send me this page of a checkpoint.
    RequestPage = 11,
    /// That page, or that it is not here.
    Page = 12,

    /// Client to node: do this once.
    Request = 32,
    /// Client to node: tell me this.
    Query = 33,
    /// Node to client: what became of a request.
    Reply = 34,
    /// Node to client: the answer to a query.
    Answer = 35,
    /// Node to client: ask another, later, or not at all.
    Turn = 36,
    /// Client to node: run this SQL, once.
    Statement = 37,
    /// Client to node: end that statement.
    Cancel = 38,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 19] = [
        Self::Prepare,
        Self::PrepareOk,
        Self::Commit,
        Self::CommitOk,
        Self::StartViewChange,
        Self::DoViewChange,
        Self::StartView,
        Self::RequestStartView,
        Self::RequestPrepare,
        Self::Vouch,
        Self::RequestPage,
        Self::Page,
        Self::Request,
        Self::Query,
        Self::Reply,
        Self::Answer,
        Self::Turn,
        Self::Statement,
        Self::Cancel,
    ];

    /// The command of a number.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|command| *command as u8 == number)
    }

    /// What a head says that it is. Nothing of it is verified.
    pub fn peek(head: &[u8; FRAME_HEADER_SIZE]) -> Option<Self> {
        Self::from_u8(head[6])
    }

    /// Whether replicas say this to each other.
    pub const fn between_replicas(self) -> bool {
        (self as u8) < 32
    }
}

/// A decoded frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame says.
    pub command: Command,
    /// The sending replica, or none for a client.
    pub sender: Option<ReplicaId>,
    /// The cluster.
    pub cluster: ClusterId,
    /// Bytes of body that follow.
    pub body_size: u32,
    /// The sender's view.
    pub view: View,
    /// An op; what it means depends on the command.
    pub op: Op,
    /// The highest op the sender knows to be committed.
    pub commit: Op,
    /// A number to match answers to questions.
    pub nonce: u64,
    /// The checksum of the body.
    pub body_checksum: Checksum,
}

impl FrameHeader {
    /// The bytes of this header, without an authenticator.
    pub fn encode(&self) -> [u8; FRAME_HEADER_SIZE] {
        let mut head = self.encode_unsealed();
        seal(&mut head);
        head
    }

    /// The bytes of this header, authenticated for one receiver.
    pub fn encode_for(&self, key: &MacKey) -> [u8; FRAME_HEADER_SIZE] {
        let mut head = self.encode_unsealed();
        authenticate(&mut head, key);
        head
    }

    fn encode_unsealed(&self) -> [u8; FRAME_HEADER_SIZE] {
        assert!(self.body_size <= FRAME_BODY_SIZE_LIMIT, "a frame we send respects the limit");
        let mut head = [0; FRAME_HEADER_SIZE];
        put(&mut head, 0, &FRAME_MAGIC);
        put_u16(&mut head, 4, PROTOCOL_VERSION);
        head[6] = self.command as u8;
        head[7] = self.sender.map_or(SENDER_CLIENT, |replica| replica.0);
        put_u128(&mut head, 8, self.cluster.0);
        put_u32(&mut head, 24, FRAME_HEADER_SIZE as u32 + self.body_size);
        put_u64(&mut head, 32, self.view.0);
        put_u64(&mut head, 40, self.op.0);
        put_u64(&mut head, 48, self.commit.0);
        put_u64(&mut head, 56, self.nonce);
        put(&mut head, 64, self.body_checksum.as_bytes());
        head
    }

    /// Reads a header. Its checksum is verified; who sent it is not, see [`LinkKeys::verify`].
    pub fn decode(head: &[u8; FRAME_HEADER_SIZE]) -> Result<Self, Malformed> {
        if head[..4] != FRAME_MAGIC {
            return Err(Malformed::Magic);
        }
        let version = u16_at(head, 4);
        if version != PROTOCOL_VERSION {
            return Err(Malformed::Version { found: version });
        }
        if bytes_at::<16>(head, 112) != short_checksum(&head[..112]) {
            return Err(Malformed::HeaderChecksum);
        }
        let command = Command::from_u8(head[6]).ok_or(Malformed::Unknown)?;
        let sender = match head[7] {
            SENDER_CLIENT => None,
            replica if usize::from(replica) < REPLICAS_MAX => Some(ReplicaId(replica)),
            _ => return Err(Malformed::Unknown),
        };
        if u32_at(head, 28) != 0 {
            return Err(Malformed::Reserved);
        }
        let body_size = u32_at(head, 24).checked_sub(FRAME_HEADER_SIZE as u32).ok_or(Malformed::Size)?;
        if body_size > FRAME_BODY_SIZE_LIMIT {
            return Err(Malformed::Size);
        }
        if [32, 40, 48].into_iter().any(|at| u64_at(head, at) >= COUNTER_LIMIT) {
            return Err(Malformed::Size);
        }
        Ok(Self {
            command,
            sender,
            cluster: ClusterId(u128_at(head, 8)),
            body_size,
            view: View(u64_at(head, 32)),
            op: Op(u64_at(head, 40)),
            commit: Op(u64_at(head, 48)),
            nonce: u64_at(head, 56),
            body_checksum: Checksum::from_bytes(bytes_at(head, 64)),
        })
    }
}

fn short_checksum(bytes: &[u8]) -> [u8; 16] {
    bytes_at(checksum(bytes).as_bytes(), 0)
}

/// Puts the authenticator into a head, and then its checksum.
pub(crate) fn authenticate(head: &mut [u8; FRAME_HEADER_SIZE], key: &MacKey) {
    let mac = key.mac(&[&head[..FRAME_SAID_SIZE]]);
    put(head, FRAME_SAID_SIZE, &mac);
    seal(head);
}

/// Takes the authenticator out of a head: nobody's, from here on.
pub(crate) fn disown(head: &mut [u8; FRAME_HEADER_SIZE]) {
    put(head, FRAME_SAID_SIZE, &[0; 16]);
    seal(head);
}

fn seal(head: &mut [u8; FRAME_HEADER_SIZE]) {
    let sum = short_checksum(&head[..112]);
    put(head, 112, &sum);
}

/// The shape of a frame between replicas, for drivers ([`kimberlite_io::Framing`]).
pub fn framing_of(head: &[u8; FRAME_HEADER_SIZE]) -> Result<FrameShape, &'static str> {
    let header = FrameHeader::decode(head).map_err(Malformed::reason)?;
    match header.sender {
        Some(sender) if header.command.between_replicas() => {
            Ok(FrameShape { sender, body_size: header.body_size })
        }
        _ => Err("a client's frame on the replicas' port"),
    }
}

/// The keys of one replica's links: one for every direction, derived from the cluster's secret.
pub struct LinkKeys {
    send: Vec<MacKey>,
    receive: Vec<MacKey>,
}

impl LinkKeys {
    /// The keys of replica `me`. Two replicas derive the same key for the same direction; a frame sent back
    /// to its sender, or to a third replica, does not verify.
    pub fn derive(secret: &[u8; 32], me: ReplicaId) -> Self {
        let root = MacKey::from_bytes(secret);
        let key = |from: u8, to: u8| root.derive("kimberlite.link.v1", &[from, to]);
        let all = 0..REPLICAS_MAX as u8;
        Self {
            send: all.clone().map(|other| key(me.0, other)).collect(),
            receive: all.map(|other| key(other, me.0)).collect(),
        }
    }

    /// The key of frames to `to`.
    pub fn send(&self, to: ReplicaId) -> &MacKey {
        &self.send[usize::from(to.0)]
    }

    /// Whether `from` sent this header to us.
    pub fn verify(&self, from: ReplicaId, head: &[u8; FRAME_HEADER_SIZE]) -> Result<(), Malformed> {
        let key = self.receive.get(usize::from(from.0)).ok_or(Malformed::Unknown)?;
        let authentic = key.verify(&[&head[..FRAME_SAID_SIZE]], &bytes_at(head, FRAME_SAID_SIZE));
        if authentic { Ok(()) } else { Err(Malformed::Authenticator) }
    }

    /// The key of frames from `from`.
    pub(crate) fn receive(&self, from: ReplicaId) -> Option<&MacKey> {
        self.receive.get(usize::from(from.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            command: Command::PrepareOk,
            sender: Some(ReplicaId(2)),
            cluster: ClusterId(7),
            body_size: 40,
            view: View(3),
            op: Op(9),
            commit: Op(8),
            nonce: 11,
            body_checksum: checksum(b"body"),
        }
    }

    #[test]
    fn a_header_survives_its_encoding_and_any_flipped_bit_is_noticed() {
        let head = header().encode();
        assert_eq!(FrameHeader::decode(&head), Ok(header()));
        for bit in 0..head.len() * 8 {
            let mut broken = head;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&broken).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_believed_only_from_its_sender_by_its_receiver() {
        let secret = [5; 32];
        let keys = |r| LinkKeys::derive(&secret, ReplicaId(r));
        let head = header().encode_for(keys(2).send(ReplicaId(0)));
        assert_eq!(keys(0).verify(ReplicaId(2), &head), Ok(()));
        assert_eq!(keys(0).verify(ReplicaId(1), &head), Err(Malformed::Authenticator));
        assert_eq!(keys(1).verify(ReplicaId(2), &head), Err(Malformed::Authenticator));
        let stranger = LinkKeys::derive(&[6; 32], ReplicaId(0));
        assert_eq!(stranger.verify(ReplicaId(2), &head), Err(Malformed::Authenticator));
    }

    #[test]
    fn http_and_oversized_frames_are_refused() {
        let mut http = [b' '; FRAME_HEADER_SIZE];
        http[..16].copy_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(FrameHeader::decode(&http), Err(Malformed::Magic));
        let mut large = header().encode();
        put_u32(&mut large, 24, FRAME_BODY_SIZE_LIMIT + FRAME_HEADER_SIZE as u32 + 1);
        seal(&mut large);
        assert_eq!(FrameHeader::decode(&large), Err(Malformed::Size));
    }

    #[test]
    fn a_client_frame_is_refused_on_a_link() {
        let head = FrameHeader { sender: None, command: Command::Request, ..header() }.encode();
        assert!(framing_of(&head).is_err());
    }
}
