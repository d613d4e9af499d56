//! A digest of the whole state that can follow every change.
//!
//! Each item of the state is hashed with its kind and key, and the hashes are added up, as four lanes
//! of 64 bits that wrap. Adding is commutative and can be undone, so a changed item costs one hash if its old
//! one was kept, however large the state is.
//!
//! This is a check between honest replicas: a bug, a flipped bit or a diverged release shows with all but
//! negligible probability. It is *not* a commitment: someone who may choose the items can make
//! two states add up to the same sum. What is proven to outsiders is proven by the hash chain.

use core::fmt;

use kimberlite_crypto::{ChainHash, Checksum, Checksummer, checksum};
use kimberlite_types::limits::NAME_SIZE_MAX;
use kimberlite_types::{LogPosition, Op, RequestNumber, SessionId, StreamId, TenantId, WallTime};
use kimberlite_wire::command::Verdict;
use serde::{Deserialize, Serialize};

use crate::Extent;

/// The domain of item hashes. A change to what an item holds takes a new one.
const ITEM_DOMAIN: &[u8] = b"kimberlite.state.item.v1";

/// The domain of the hashes of what is written to tables: tenant, position, size of the key, key, whether there is a value,
/// and the value.
const VERSION_DOMAIN: &[u8] = b"kimberlite.state.version.v1";

/// The domain of the digest itself.
const STATE_DOMAIN: &[u8] = b"kimberlite.state.v1";

/// Bytes of the longest item: its kind, at most four integers of ten bytes, and a name with its length.
const ITEM_SIZE_MAX: usize = 1 + 4 * 10 + 2 + NAME_SIZE_MAX;

/// What is written is put together and hashed in one piece, if it has no more bytes than this.
const VERSION_SIZE_SMALL: usize = 512;

/// A digest of everything a kernel knows after some op. Equal logs give equal digests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateDigest(pub [u8; 32]);

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateDigest({self})")
    }
}

/// One item of the state. Its postcard encoding is what is hashed: the variant's number tells the kinds
/// apart, and every field is self-delimiting, so that no two items have the same bytes.
#[derive(Serialize)]
pub(crate) enum Item<'a> {
    Session { id: SessionId, last: RequestNumber, verdict: Verdict },
    Tenant { id: TenantId, name: &'a str },
    Stream { tenant: TenantId, id: StreamId, name: &'a str },
    Extent { tenant: TenantId, stream: StreamId, extent: Extent },
    Staged { session: SessionId, tenant: TenantId, pieces: u32, digest: [u8; 32], touched: WallTime },
}

/// The hash of an item, as it is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lanes([u64; 4]);

impl From<Checksum> for Lanes {
    fn from(hash: Checksum) -> Self {
        let hash = hash.as_bytes();
        Self(core::array::from_fn(|lane| {
            u64::from_le_bytes(hash[lane * 8..lane * 8 + 8].try_into().expect("a lane has eight bytes"))
        }))
    }
}

impl Item<'_> {
    pub(crate) fn lanes(&self) -> Lanes {
        let mut buf = [0; ITEM_SIZE_MAX];
        let encoded = postcard::to_slice(self, &mut buf).expect("an item is no longer than its limit");
        let mut hasher = Checksummer::new();
        hasher.update(ITEM_DOMAIN);
        hasher.update(encoded);
        Lanes::from(hasher.finish())
    }
}

/// One write to a tenant's tables: an item that stays, whatever is written later.
pub(crate) struct TableVersion<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) key: &'a [u8],
    /// The command that wrote.
    pub(crate) position: LogPosition,
    /// `None`: the key went.
    pub(crate) value: Option<&'a [u8]>,
}

impl TableVersion<'_> {
    pub(crate) fn lanes(&self) -> Lanes {
        const HEAD: usize = VERSION_DOMAIN.len() + 8 + 8 + 4 + 8;
        let value = self.value.unwrap_or_default();
        let size = HEAD + self.key.len() + 1 + value.len();
        let is_there = [u8::from(self.value.is_some())];
        let parts = [
            VERSION_DOMAIN,
            &self.tenant.0.to_le_bytes(),
            &self.position.op.0.to_le_bytes(),
            &self.position.index.to_le_bytes(),
            &(self.key.len() as u64).to_le_bytes(),
            self.key,
            &is_there,
            value,
        ];
        // In one piece: the hasher takes small ones slowly.
        let mut whole = [0; VERSION_SIZE_SMALL];
        if size <= whole.len() {
            let mut rest = &mut whole[..size];
            for part in parts {
                let (to, behind) = rest.split_at_mut(part.len());
                to.copy_from_slice(part);
                rest = behind;
            }
            return Lanes::from(checksum(&whole[..size]));
        }
        let mut hasher = Checksummer::new();
        for part in parts {
            hasher.update(part);
        }
        Lanes::from(hasher.finish())
    }
}

/// The sum over all items. Independent of the order in which they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ItemSum([u64; 4]);

impl ItemSum {
    pub(crate) fn add(&mut self, item: Lanes) {
        for (lane, word) in self.0.iter_mut().zip(item.0) {
            *lane = lane.wrapping_add(word);
        }
    }

    pub(crate) fn remove(&mut self, item: Lanes) {
        for (lane, word) in self.0.iter_mut().zip(item.0) {
            *lane = lane.wrapping_sub(word);
        }
    }

    /// Adds all items of another sum.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (lane, word) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(word);
        }
    }

    /// The digest of the state whose items add up to this, after `applied` with the log's hash `chain`.
    pub(crate) fn digest(&self, applied: Op, chain: &ChainHash) -> StateDigest {
        let mut hasher = Checksummer::new();
        hasher.update(STATE_DOMAIN);
        for lane in self.0 {
            hasher.update(&lane.to_le_bytes());
        }
        hasher.update(&applied.0.to_le_bytes());
        hasher.update(chain.as_bytes());
        StateDigest(*hasher.finish().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_types::Offset;
    use kimberlite_wire::command::{Outcome, Refusal};

    const TENANT: TenantId = TenantId(1);

    fn extent(first: u64) -> Item<'static> {
        let extent = Extent { first: Offset(first), op: Op(2), entry: 3, count: 4 };
        Item::Extent { tenant: TENANT, stream: StreamId(1), extent }
    }

    fn session(last: u64, result: Result<Outcome, Refusal>) -> Item<'static> {
        let position = LogPosition { op: Op(9), index: 1 };
        Item::Session {
            id: SessionId(position),
            last: RequestNumber(last),
            verdict: Verdict { position, result },
        }
    }

    #[test]
    fn items_that_differ_in_one_field_differ_in_the_sum() {
        let items = [
            Item::Tenant { id: TENANT, name: "a" },
            Item::Tenant { id: TENANT, name: "b" },
            Item::Tenant { id: TenantId(2), name: "a" },
            Item::Stream { tenant: TENANT, id: StreamId(1), name: "a" },
            Item::Stream { tenant: TENANT, id: StreamId(2), name: "a" },
            Item::Stream { tenant: TenantId(2), id: StreamId(1), name: "a" },
            extent(0),
            extent(1),
            session(1, Ok(Outcome::TenantCreated)),
            session(2, Ok(Outcome::TenantCreated)),
            session(1, Err(Refusal::TenantExists)),
        ];
        for (one, item) in items.iter().enumerate() {
            for other in &items[one + 1..] {
                assert_ne!(item.lanes(), other.lanes());
            }
        }
    }

    #[test]
    fn the_sum_forgets_order_and_what_was_removed() {
        let mut one = ItemSum::default();
        one.add(extent(0).lanes());
        one.add(extent(1).lanes());
        let mut other = ItemSum::default();
        other.add(extent(1).lanes());
        other.add(extent(2).lanes());
        other.add(extent(0).lanes());
        assert_ne!(one, other);
        other.remove(extent(2).lanes());
        assert_eq!(one, other);
    }

    #[test]
    fn the_digest_tells_ops_and_chains_apart() {
        let sum = ItemSum::default();
        let digest = sum.digest(Op(1), &ChainHash::GENESIS);
        assert_ne!(digest, sum.digest(Op(2), &ChainHash::GENESIS));
        assert_ne!(digest, sum.digest(Op(1), &ChainHash::ZERO));
    }

    #[test]
    fn the_longest_item_fits_its_limit() {
        let name = "x".repeat(NAME_SIZE_MAX);
        Item::Stream { tenant: TenantId(u64::MAX), id: StreamId(u64::MAX), name: &name }.lanes();
        let position = LogPosition { op: Op(u64::MAX), index: u32::MAX };
        let result = Ok(Outcome::Appended { first: Offset(u64::MAX), count: u32::MAX });
        let (last, verdict) = (RequestNumber(u64::MAX), Verdict { position, result });
        Item::Session { id: SessionId(position), last, verdict }.lanes();
    }
}
