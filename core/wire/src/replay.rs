//! Frames as a recording of a node holds them.
//!
//! A recording must let its node be run again by someone who does not know the cluster's secret, and must tell
//! nothing that follows from it. So each frame is written down *resealed*: if it was authentic, with an authenticator
//! under [`REPLAY_SECRET`], which is no secret; if it was not, with none. The node that replays it is an ordinary one,
//! opened with that secret: it verifies every frame by the same code and comes to the same answer.

use kimberlite_types::ReplicaId;
use kimberlite_types::limits::FRAME_HEADER_SIZE;

use crate::header::{FrameHeader, LinkKeys, authenticate, disown};

/// What the frames of recordings are authenticated with. Known to everybody: a node that works must never be given it.
pub const REPLAY_SECRET: [u8; 32] = *b"recorded frames, known to anyone";

/// Turns the heads that one replica receives into those of its recording.
pub struct Resealer {
    real: LinkKeys,
    replay: LinkKeys,
}

impl Resealer {
    /// For replica `me` of the cluster with this secret.
    pub fn new(secret: &[u8; 32], me: ReplicaId) -> Self {
        Self { real: LinkKeys::derive(secret, me), replay: LinkKeys::derive(&REPLAY_SECRET, me) }
    }

    /// The head of a frame that claims to be from `from`, as it is recorded. One that does not decode is no frame of
    /// anybody's and stays as it is: it is dropped before anyone asks who sent it.
    pub fn reseal(&self, from: ReplicaId, head: &[u8; FRAME_HEADER_SIZE]) -> [u8; FRAME_HEADER_SIZE] {
        let mut recorded = *head;
        if FrameHeader::decode(head).is_err() {
            return recorded;
        }
        match self.replay.receive(from) {
            Some(key) if self.real.verify(from, head).is_ok() => authenticate(&mut recorded, key),
            _ => disown(&mut recorded),
        }
        recorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Command;
    use crate::{Malformed, header};
    use kimberlite_crypto::checksum;
    use kimberlite_types::{ClusterId, Op, View};

    const SECRET: [u8; 32] = [5; 32];

    fn header() -> FrameHeader {
        FrameHeader {
            command: Command::PrepareOk,
            sender: Some(ReplicaId(2)),
            cluster: ClusterId(7),
            body_size: 0,
            view: View(3),
            op: Op(9),
            commit: Op(8),
            nonce: 11,
            body_checksum: checksum(b"body"),
        }
    }

    fn sealed(secret: &[u8; 32]) -> [u8; FRAME_HEADER_SIZE] {
        header().encode_for(LinkKeys::derive(secret, ReplicaId(2)).send(ReplicaId(0)))
    }

    #[test]
    fn a_replayed_node_believes_exactly_the_frames_that_the_recorded_one_believed() {
        let resealer = Resealer::new(&SECRET, ReplicaId(0));
        let replayed = LinkKeys::derive(&REPLAY_SECRET, ReplicaId(0));
        let heard = |from, head| replayed.verify(from, &resealer.reseal(from, &head));
        assert_eq!(heard(ReplicaId(2), sealed(&SECRET)), Ok(()));
        let refused = Err(Malformed::Authenticator);
        assert_eq!(heard(ReplicaId(2), sealed(&[6; 32])), refused, "a stranger's");
        assert_eq!(heard(ReplicaId(1), sealed(&SECRET)), refused, "of another sender");
        assert_eq!(heard(ReplicaId(2), header().encode()), refused, "of nobody");
        assert_eq!(heard(ReplicaId(2), sealed(&REPLAY_SECRET)), refused, "forged with what everybody knows");
        assert_eq!(heard(ReplicaId(200), sealed(&SECRET)), Err(Malformed::Unknown));
    }

    #[test]
    fn a_recorded_head_says_the_same_and_holds_no_authenticator_of_the_cluster() {
        let resealer = Resealer::new(&SECRET, ReplicaId(0));
        let head = sealed(&SECRET);
        let recorded = resealer.reseal(ReplicaId(2), &head);
        assert_eq!(FrameHeader::decode(&recorded), FrameHeader::decode(&head));
        assert_ne!(recorded[96..112], head[96..112]);
        let refused = Err(Malformed::Authenticator);
        assert_eq!(LinkKeys::derive(&SECRET, ReplicaId(0)).verify(ReplicaId(2), &recorded), refused);
    }

    #[test]
    fn a_head_that_does_not_decode_is_recorded_as_it_came() {
        let mut head = sealed(&SECRET);
        head[40] ^= 1;
        assert_eq!(header::FrameHeader::decode(&head), Err(Malformed::HeaderChecksum));
        assert_eq!(Resealer::new(&SECRET, ReplicaId(0)).reseal(ReplicaId(2), &head), head);
    }
}
