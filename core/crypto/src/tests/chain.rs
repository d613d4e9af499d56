//! The entry chain: pinned, and sensitive to every byte.

use alloc::format;

use crate::chain::GENESIS_TAG;
use crate::{ChainHash, sha256};

#[test]
fn genesis_is_the_digest_of_its_name() {
    assert_eq!(ChainHash::GENESIS.as_bytes(), sha256(GENESIS_TAG).as_bytes());
}

/// The format is drawn in the module's documentation; this is that drawing, filled in.
#[test]
fn a_link_is_the_sha256_of_tag_previous_and_entry() {
    let mut input = b"\x13kimberlite.entry.v1".to_vec();
    input.extend_from_slice(ChainHash::GENESIS.as_bytes());
    input.extend_from_slice(b"entry");
    let link = ChainHash::link(&ChainHash::GENESIS, &[b"en", b"", b"try"]);
    assert_eq!(link.as_bytes(), sha256(&input).as_bytes());
    assert_eq!(format!("{link}"), "f04634b2b1da2978a5b23c2076744530552a9076aa212169ad66eb4ac2bb0748");
}

#[test]
fn a_chain_depends_on_every_entry_and_on_their_order() {
    let chain = |entries: [&[u8]; 3]| {
        entries.iter().fold(ChainHash::GENESIS, |previous, entry| ChainHash::link(&previous, &[entry]))
    };
    let head = chain([b"a", b"b", b"c"]);
    assert_eq!(head, chain([b"a", b"b", b"c"]));
    for other in [chain([b"b", b"a", b"c"]), chain([b"a", b"b", b"d"]), chain([b"ab", b"", b"c"])] {
        assert_ne!(head, other);
    }
    assert_ne!(ChainHash::link(&ChainHash::ZERO, &[b"a"]), ChainHash::link(&ChainHash::GENESIS, &[b"a"]));
}
