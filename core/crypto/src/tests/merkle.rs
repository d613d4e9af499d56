//! Merkle trees against the reference vectors of Certificate Transparency, and proofs of all trees
//! up to a size.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::hex;
use crate::merkle::{
    MalformedFrontier, MerkleLog, PROOF_DIGESTS_MAX, ProofError, consistency_proof, empty_root,
    inclusion_proof, leaf_hash, node_hash, root, verify_consistency, verify_inclusion,
};
use crate::{Sha256Digest, sha256};

/// The leaves of the reference vectors.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

/// The roots over the first one, two, ... eight of them.
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn reference_leaves() -> Vec<Sha256Digest> {
    LEAVES.iter().map(|leaf| leaf_hash(&hex(leaf))).collect()
}

fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::from_bytes(super::hex_array(text))
}

/// `count` leaves that differ.
fn leaves(count: u64) -> Vec<Sha256Digest> {
    (0..count).map(|number| leaf_hash(&number.to_le_bytes())).collect()
}

#[test]
fn roots_are_those_of_the_reference_vectors() {
    let mut log = MerkleLog::new();
    assert_eq!(log.root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for ((index, leaf), expected) in (0..).zip(reference_leaves()).zip(ROOTS) {
        assert_eq!(log.append(leaf), index);
        assert_eq!(log.size(), index + 1);
        assert_eq!(log.root().to_string(), expected);
    }
}

#[test]
fn inclusion_proofs_are_those_of_the_reference_vectors() {
    let leaves = reference_leaves();
    let check = |index: u64, size: usize, expected: &[&str]| {
        let expected: Vec<Sha256Digest> = expected.iter().map(|text| digest(text)).collect();
        assert_eq!(inclusion_proof(&leaves[..size], index), Some(expected));
    };
    check(0, 1, &[]);
    check(
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    );
    check(
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    );
    check(2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]);
}

#[test]
fn consistency_proofs_are_those_of_the_reference_vectors() {
    let leaves = reference_leaves();
    let check = |old: u64, size: usize, expected: &[&str]| {
        let expected: Vec<Sha256Digest> = expected.iter().map(|text| digest(text)).collect();
        assert_eq!(consistency_proof(&leaves[..size], old), Some(expected));
    };
    check(1, 1, &[]);
    check(
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    );
    check(
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    );
    check(
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    );
}

/// RFC 6962 §2.1, read literally.
fn literal_root(leaves: &[Sha256Digest]) -> Sha256Digest {
    match leaves {
        [] => sha256(b""),
        [leaf] => *leaf,
        _ => {
            let mut split = 1;
            while 2 * split < leaves.len() {
                split *= 2;
            }
            node_hash(&literal_root(&leaves[..split]), &literal_root(&leaves[split..]))
        }
    }
}

#[test]
fn the_frontier_gives_the_root_of_the_recursive_definition() {
    let all = leaves(130);
    for size in 0..=all.len() {
        assert_eq!(root(&all[..size]), literal_root(&all[..size]), "{size} leaves");
    }
}

#[test]
fn every_inclusion_proof_verifies_and_fits_no_other_index() {
    let all = leaves(33);
    for size in 1..=33 {
        let tree = &leaves(size);
        let top = root(tree);
        for index in 0..size {
            let at = usize::try_from(index).expect("small");
            let proof = inclusion_proof(tree, index).expect("the leaf exists");
            assert_eq!(verify_inclusion(&tree[at], index, size, &proof, &top), Ok(()), "{index} of {size}");
            for other in (0..size + 2).filter(|other| *other != index) {
                assert!(verify_inclusion(&tree[at], other, size, &proof, &top).is_err());
            }
            let wrong_leaf = &all[(at + 1) % all.len()];
            assert_eq!(verify_inclusion(wrong_leaf, index, size, &proof, &top), Err(ProofError::Root));
        }
        assert_eq!(inclusion_proof(tree, size), None);
    }
    assert_eq!(inclusion_proof(&[], 0), None);
    assert_eq!(verify_inclusion(&all[0], 0, 0, &[], &empty_root()), Err(ProofError::OutOfRange));
}

#[test]
fn every_consistency_proof_verifies() {
    let all = leaves(33);
    for size in 0..=all.len() {
        let top = root(&all[..size]);
        for old in 0..=size {
            let (old_size, new_size) = (old as u64, size as u64);
            let old_top = root(&all[..old]);
            let proof = consistency_proof(&all[..size], old_size).expect("the old tree is no larger");
            let verdict = verify_consistency(old_size, &old_top, new_size, &top, &proof);
            assert_eq!(verdict, Ok(()), "{old} in {size}");
        }
        assert_eq!(consistency_proof(&all[..size], size as u64 + 1), None);
    }
}

#[test]
fn a_history_that_was_rewritten_is_not_consistent() {
    for size in 2..=20_u64 {
        let honest = leaves(size);
        for old_size in 1..size {
            let old = usize::try_from(old_size).expect("small");
            let old_top = root(&honest[..old]);
            for changed in 0..old {
                let mut rewritten = honest.clone();
                rewritten[changed] = leaf_hash(b"rewritten");
                let proof = consistency_proof(&rewritten, old_size).expect("the old tree is smaller");
                let verdict = verify_consistency(old_size, &old_top, size, &root(&rewritten), &proof);
                assert!(verdict.is_err(), "leaf {changed}, {old_size} in {size}");
            }
        }
    }
}

#[test]
fn an_empty_or_equal_old_tree_needs_an_empty_proof_and_the_right_root() {
    let tree = leaves(4);
    let top = root(&tree);
    assert_eq!(verify_consistency(0, &empty_root(), 4, &top, &[]), Ok(()));
    assert_eq!(verify_consistency(0, &top, 4, &top, &[]), Err(ProofError::OldRoot));
    assert_eq!(verify_consistency(0, &empty_root(), 4, &top, &[top]), Err(ProofError::Length));
    assert_eq!(verify_consistency(0, &empty_root(), 0, &top, &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(4, &top, 4, &top, &[]), Ok(()));
    assert_eq!(verify_consistency(4, &tree[0], 4, &top, &[]), Err(ProofError::OldRoot));
    assert_eq!(verify_consistency(5, &top, 4, &top, &[]), Err(ProofError::OutOfRange));
    assert_eq!(verify_consistency(2, &root(&tree[..2]), 4, &top, &[]), Err(ProofError::Length));
    assert_eq!(verify_consistency(3, &root(&tree[..3]), 4, &top, &[]), Err(ProofError::Length));
}

/// The roots are right and only the claimed size is not: nothing but the proof's length shows it.
#[test]
fn a_proof_for_a_tree_of_another_height_is_refused_for_its_length() {
    let tree = leaves(8);
    let proof = |size: usize| consistency_proof(&tree[..size], 1).expect("the old tree is smaller");
    let check = |proven: usize, claimed: u64| {
        let top = root(&tree[..proven]);
        verify_consistency(1, &tree[0], claimed, &top, &proof(proven))
    };
    assert_eq!(check(2, 2), Ok(()));
    assert_eq!(check(2, 3), Err(ProofError::Length), "one digest for a tree two high");
    assert_eq!(check(8, 4), Err(ProofError::Length), "three digests for a tree two high");

    let path = inclusion_proof(&tree, 0).expect("the leaf exists");
    let top = root(&tree);
    assert_eq!(verify_inclusion(&tree[0], 0, 8, &path, &top), Ok(()));
    assert_eq!(verify_inclusion(&tree[0], 0, 9, &path, &top), Err(ProofError::Length));
    assert_eq!(verify_inclusion(&tree[0], 0, 4, &path, &top), Err(ProofError::Length));
}

#[test]
fn a_stored_frontier_is_checked_against_its_size() {
    let mut log = MerkleLog::new();
    for leaf in leaves(11) {
        log.append(leaf);
    }
    let frontier = log.frontier().to_vec();
    assert_eq!(MerkleLog::from_parts(11, frontier.clone()), Ok(log.clone()));
    assert_eq!(MerkleLog::from_parts(12, frontier), Err(MalformedFrontier));
    let stored = postcard::to_allocvec(&log).expect("a log serialises");
    assert_eq!(postcard::from_bytes(&stored), Ok(log));
    let mut misfit = stored;
    misfit[0] = 12;
    assert!(postcard::from_bytes::<MerkleLog>(&misfit).is_err());
}

/// The largest numbers a header can hold must not make the verifier overflow or loop.
#[test]
fn verification_of_trees_of_any_size_ends_with_an_error() {
    let zero = Sha256Digest::ZERO;
    let long = vec![zero; PROOF_DIGESTS_MAX + 1];
    for size in [1, u64::MAX - 1, u64::MAX] {
        for other in [0, 1, size / 2, size - 1] {
            assert!(verify_inclusion(&zero, other, size, &long, &zero).is_err());
            assert!(verify_consistency(other, &zero, size, &zero, &long).is_err());
            assert!(verify_consistency(other.max(1), &zero, size, &zero, &long[..64]).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn a_tampered_proof_does_not_verify(
        size in 2..200_u64, index: prop::sample::Index, spot: prop::sample::Index,
    ) {
        let tree = leaves(size);
        let top = root(&tree);
        let at = index.index(tree.len());
        let tamper = |proof: &[Sha256Digest]| {
            let mut tampered = proof.to_vec();
            let bit = spot.index(256 * proof.len());
            let mut bytes = *tampered[bit / 256].as_bytes();
            bytes[bit % 256 / 8] ^= 1 << (bit % 8);
            tampered[bit / 256] = Sha256Digest::from_bytes(bytes);
            let shorter = proof[..proof.len() - 1].to_vec();
            let mut longer = proof.to_vec();
            longer.push(proof[0]);
            [tampered, shorter, longer]
        };

        let proof = inclusion_proof(&tree, at as u64).expect("the leaf exists");
        prop_assert!(proof.len() <= PROOF_DIGESTS_MAX);
        for forged in tamper(&proof) {
            prop_assert!(verify_inclusion(&tree[at], at as u64, size, &forged, &top).is_err());
        }

        let old_size = at.max(1) as u64;
        let old_top = root(&tree[..at.max(1)]);
        let proof = consistency_proof(&tree, old_size).expect("the old tree is smaller");
        prop_assert_eq!(verify_consistency(old_size, &old_top, size, &top, &proof), Ok(()));
        for forged in tamper(&proof) {
            prop_assert!(verify_consistency(old_size, &old_top, size, &top, &forged).is_err());
        }
        let verdict = verify_consistency(old_size, &tree[at], size, &top, &proof);
        prop_assert!(verdict.is_err() || tree[at] == old_top);
    }
}
