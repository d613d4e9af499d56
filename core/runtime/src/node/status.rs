//! How a node stands, for whoever asks.

use alloc::string::ToString;
use alloc::vec::Vec;

use kimberlite_storage as storage;
use kimberlite_types::{Now, ReplicaId};
use kimberlite_wire::client::{CheckpointStatus, PeerStatus, Status};

use super::Node;

impl Node {
    /// How this node stands.
    pub fn status(&self, now: Now) -> Status {
        let peers = if self.replica.is_primary() {
            (0..self.config.replicas).map(|r| self.peer_status(ReplicaId(r), now)).collect()
        } else {
            Vec::new()
        };
        Status {
            replica: self.config.replica,
            view: self.replica.view(),
            primary: self.config.primary(self.replica.view()),
            state: self.replica.status().name().to_string(),
            op: self.replica.op(),
            commit: self.kernel().applied(),
            faulty: self.replica.wanted().count() as u32,
            checkpoint: self.checkpoint_status(),
            peers,
        }
    }

    fn checkpoint_status(&self) -> Option<CheckpointStatus> {
        let op = self.storage.checkpoint()?.op;
        let pages = self.kernel().pages();
        Some(CheckpointStatus { op, pages, bytes: pages * storage::PAGE_SIZE as u64 })
    }

    fn peer_status(&self, replica: ReplicaId, now: Now) -> PeerStatus {
        if replica == self.config.replica {
            let (op, commit) = (self.replica.op(), self.replica.commit());
            return PeerStatus { replica, op, commit, heard_ms: Some(0) };
        }
        let peer = self.replica.peer(replica);
        let heard_ms = peer.heard.map(|at| now.monotonic.since(at).as_millis() as u64);
        PeerStatus { replica, op: peer.op, commit: peer.commit, heard_ms }
    }
}
