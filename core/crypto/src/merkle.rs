//! RFC 6962 Merkle trees, and proofs that an auditor can check with tools nobody here wrote.
//!
//! A leaf hashes as `SHA-256(0x00 ‖ leaf)`, a node as `SHA-256(0x01 ‖ left ‖ right)`, and a tree of
//! `n > 1` leaves splits at the largest power of two below `n` (RFC 6962 §2.1). The empty tree's
//! root is the SHA-256 of nothing. Verification follows RFC 9162 §2.1.3.2 and §2.1.4.2, whose trees
//! are the same.
//!
//! [`MerkleLog`] keeps only the roots of the perfect subtrees on the right edge: at most 64 digests
//! for any tree. The functions that *make* proofs work on the leaf hashes and read all of them.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::{Sha256, Sha256Digest, sha256};

/// Most digests a proof can hold: a tree of 2^64 - 1 leaves is 64 high, and a consistency proof may
/// name one digest more.
pub const PROOF_DIGESTS_MAX: usize = 65;

/// The hash of a leaf's contents.
pub fn leaf_hash(leaf: &[u8]) -> Sha256Digest {
    let mut hasher = Sha256::new();
    hasher.update(&[0x00]);
    hasher.update(leaf);
    hasher.finish()
}

/// The hash of the node above `left` and `right`.
pub fn node_hash(left: &Sha256Digest, right: &Sha256Digest) -> Sha256Digest {
    let mut hasher = Sha256::new();
    hasher.update(&[0x01]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    hasher.finish()
}

/// The root of the empty tree.
pub fn empty_root() -> Sha256Digest {
    sha256(&[])
}

/// A tree that grows: its size, and the roots of the perfect subtrees its leaves fall into, the
/// largest (leftmost) first. There is one per set bit of the size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u64, Vec<Sha256Digest>)", into = "(u64, Vec<Sha256Digest>)")]
pub struct MerkleLog {
    size: u64,
    frontier: Vec<Sha256Digest>,
}

/// A stored frontier whose length does not fit the stored size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedFrontier;

impl fmt::Display for MalformedFrontier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a frontier holds one digest per set bit of the tree's size")
    }
}

impl core::error::Error for MalformedFrontier {}

impl MerkleLog {
    /// The empty tree.
    pub const fn new() -> Self {
        Self { size: 0, frontier: Vec::new() }
    }

    /// Restores a tree from what [`MerkleLog::size`] and [`MerkleLog::frontier`] gave.
    pub fn from_parts(size: u64, frontier: Vec<Sha256Digest>) -> Result<Self, MalformedFrontier> {
        if frontier.len() == size.count_ones() as usize {
            Ok(Self { size, frontier })
        } else {
            Err(MalformedFrontier)
        }
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, largest first.
    pub fn frontier(&self) -> &[Sha256Digest] {
        &self.frontier
    }

    /// Adds a leaf by its [`leaf_hash`] and returns its index, counted from 0. Constant work on
    /// average, at most 64 hashes.
    pub fn append(&mut self, leaf: Sha256Digest) -> u64 {
        let index = self.size;
        self.size = index.checked_add(1).expect("no log lives to hold 2^64 leaves");
        // Like adding one to a binary number: each carry joins two subtrees of equal size.
        let mut root = leaf;
        for _ in 0..index.trailing_ones() {
            let left = self.frontier.pop().expect("the frontier has one digest per set bit of the size");
            root = node_hash(&left, &root);
        }
        self.frontier.push(root);
        assert_eq!(
            self.frontier.len(),
            self.size.count_ones() as usize,
            "the frontier has one digest per set bit of the size"
        );
        index
    }

    /// The root over all leaves.
    pub fn root(&self) -> Sha256Digest {
        let mut subtrees = self.frontier.iter().rev();
        match subtrees.next() {
            None => empty_root(),
            Some(smallest) => subtrees.fold(*smallest, |right, left| node_hash(left, &right)),
        }
    }
}

impl TryFrom<(u64, Vec<Sha256Digest>)> for MerkleLog {
    type Error = MalformedFrontier;

    fn try_from((size, frontier): (u64, Vec<Sha256Digest>)) -> Result<Self, MalformedFrontier> {
        Self::from_parts(size, frontier)
    }
}

impl From<MerkleLog> for (u64, Vec<Sha256Digest>) {
    fn from(log: MerkleLog) -> Self {
        (log.size, log.frontier)
    }
}

/// The root over leaves given by their [`leaf_hash`].
pub fn root(leaves: &[Sha256Digest]) -> Sha256Digest {
    let mut log = MerkleLog::new();
    for leaf in leaves {
        log.append(*leaf);
    }
    log.root()
}

/// The proof that the leaf at `index` is in the tree over `leaves` (RFC 6962 §2.1.1), nearest digest
/// first; nothing if there is no such leaf.
pub fn inclusion_proof(leaves: &[Sha256Digest], index: u64) -> Option<Vec<Sha256Digest>> {
    let mut index = usize::try_from(index).ok().filter(|index| *index < leaves.len())?;
    let mut tree = leaves;
    let mut proof = Vec::new();
    // Walk down from the root and note the sibling left aside at each level.
    while tree.len() > 1 {
        let (left, right) = tree.split_at(split(tree.len()));
        if index < left.len() {
            proof.push(root(right));
            tree = left;
        } else {
            index -= left.len();
            proof.push(root(left));
            tree = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// The proof that the tree over the first `old_size` leaves is a prefix of the tree over `leaves`
/// (RFC 6962 §2.1.2); nothing if there are fewer leaves. Empty for an empty or equal old tree.
pub fn consistency_proof(leaves: &[Sha256Digest], old_size: u64) -> Option<Vec<Sha256Digest>> {
    let mut old = usize::try_from(old_size).ok().filter(|old| *old <= leaves.len())?;
    if old == 0 || old == leaves.len() {
        return Some(Vec::new());
    }
    let mut tree = leaves;
    let mut proof = Vec::new();
    // Whether the old tree, seen in this subtree, begins where the old tree itself begins; then its
    // root is what the verifier has already.
    let mut whole = true;
    while old < tree.len() {
        let (left, right) = tree.split_at(split(tree.len()));
        if old <= left.len() {
            proof.push(root(right));
            tree = left;
        } else {
            old -= left.len();
            proof.push(root(left));
            tree = right;
            whole = false;
        }
    }
    if !whole {
        proof.push(root(tree));
    }
    proof.reverse();
    Some(proof)
}

/// The largest power of two below `size`, which is at least two.
fn split(size: usize) -> usize {
    assert!(size >= 2, "a single leaf does not split");
    1 << (size - 1).ilog2()
}

/// Why a proof was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The index or the old size lies beyond the tree.
    OutOfRange,
    /// The proof has too few or too many digests for these sizes.
    Length,
    /// The proof leads to another old root.
    OldRoot,
    /// The proof leads to another root.
    Root,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "the index or the old size lies beyond the tree",
            Self::Length => "the proof has too few or too many digests for these sizes",
            Self::OldRoot => "the proof leads to another old root",
            Self::Root => "the proof leads to another root",
        })
    }
}

impl core::error::Error for ProofError {}

/// Checks that `leaf` (a [`leaf_hash`]) stands at `index` in the tree of `size` leaves under `root`
/// (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(
    leaf: &Sha256Digest,
    index: u64,
    size: u64,
    proof: &[Sha256Digest],
    root: &Sha256Digest,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutOfRange);
    }
    // `node` and `last` are the numbers, on the current level, of our node and of the last one.
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if is_odd(node) || node == last {
            hash = node_hash(sibling, &hash);
            skip_levels_without_sibling(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last, hash == *root) {
        (1.., _) => Err(ProofError::Length),
        (0, false) => Err(ProofError::Root),
        (0, true) => Ok(()),
    }
}

/// Checks that the tree of `old_size` leaves under `old_root` is a prefix of the tree of `size`
/// leaves under `root` (RFC 9162 §2.1.4.2). The empty tree, under its own root, is a prefix of all.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Sha256Digest,
    size: u64,
    root: &Sha256Digest,
    proof: &[Sha256Digest],
) -> Result<(), ProofError> {
    if old_size > size {
        return Err(ProofError::OutOfRange);
    }
    if old_size == 0 || old_size == size {
        let expected = if old_size == 0 { empty_root() } else { *root };
        return match (proof.is_empty(), *old_root == expected) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::OldRoot),
            (true, true) if size == 0 && *root != expected => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    // A perfect old tree is itself a node of the new one, so the proof does not repeat its root.
    let (first, rest) = if old_size.is_power_of_two() {
        if proof.is_empty() {
            return Err(ProofError::Length);
        }
        (old_root, proof)
    } else {
        proof.split_first().ok_or(ProofError::Length)?
    };
    let shift = (old_size - 1).trailing_ones();
    // An old size of 2^64 - 1 cannot come here: it is below no other size. So the shift is below 64.
    let (mut node, mut last) = ((old_size - 1) >> shift, (size - 1) >> shift);
    let (mut old_hash, mut hash) = (*first, *first);
    for digest in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if is_odd(node) || node == last {
            old_hash = node_hash(digest, &old_hash);
            hash = node_hash(digest, &hash);
            skip_levels_without_sibling(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, digest);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    match (old_hash == *old_root, hash == *root) {
        (false, _) => Err(ProofError::OldRoot),
        (true, false) => Err(ProofError::Root),
        (true, true) => Ok(()),
    }
}

fn is_odd(number: u64) -> bool {
    number & 1 == 1
}

/// The last node of a level may have no sibling there and stand unchanged on the levels above, until
/// it is some node's right child; both numbers follow it up.
fn skip_levels_without_sibling(node: &mut u64, last: &mut u64) {
    while !is_odd(*node) && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}
