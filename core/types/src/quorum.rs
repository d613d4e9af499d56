//! Quorum sizes, listed rather than computed: a formula is easy to get wrong and hard to review.

use crate::limits::REPLICAS_MAX;

/// How many replicas must agree, for each purpose. Replicas count themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums {
    /// Must hold an op durably before it is committed.
    pub replication: u8,
    /// Must send a `DoViewChange` before a view starts.
    pub view_change: u8,
    /// Must say they never held an op before it is cut: then no replication quorum can have held it.
    pub nack: u8,
    /// Must confirm a leadership round before a read is served: meets every view-change quorum.
    pub read: u8,
}

impl Quorums {
    /// The quorums of a cluster of `replicas` (1 to 6).
    ///
    /// With R replicas: `replication + view_change > R` (a commit is seen by every view change),
    /// `nack = R - replication + 1`, `read + view_change > R`, and `view_change > R/2`.
    pub const fn of(replicas: u8) -> Self {
        let (replication, view_change, nack, read) = match replicas {
            1 => (1, 1, 1, 1),
            2 => (2, 2, 1, 1),
            3 => (2, 2, 2, 2),
            4 => (2, 3, 3, 2),
            5 => (3, 3, 3, 3),
            6 => (3, 4, 4, 3),
            _ => panic!("a cluster has 1 to 6 replicas"),
        };
        Self { replication, view_change, nack, read }
    }
}

const _: () = {
    let mut r = 1;
    while r as usize <= REPLICAS_MAX {
        let q = Quorums::of(r);
        assert!(q.replication + q.view_change > r);
        assert!(q.view_change * 2 > r);
        assert!(q.nack == r - q.replication + 1);
        assert!(q.read + q.view_change > r);
        assert!(q.replication <= r && q.view_change <= r && q.read <= r);
        r += 1;
    }
};
