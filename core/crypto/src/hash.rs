//! Digests and message authentication.
//!
//! Three unkeyed functions with three purposes. SHA-256 ([`Sha256Digest`]) is for what people
//! outside verify with tools nobody here wrote: entries and Merkle nodes. BLAKE3 ([`Checksum`]) is
//! for what replicas verify: frames, prepares and pages; it is as strong and several times faster.
//! CRC-32 finds accidents in one record and proves nothing against an adversary.
//!
//! [`MacKey`] authenticates frames between replicas.

use core::fmt;

use sha2::Digest as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::bytes::digest;

digest! {
    /// A SHA-256 digest (FIPS 180-4).
    Sha256Digest
}

digest! {
    /// A BLAKE3 digest, 32 bytes.
    Checksum
}

/// The SHA-256 digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256Digest {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hasher.finish()
}

/// SHA-256 over input that arrives in pieces; how it was cut does not matter.
#[derive(Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Sha256Digest {
        Sha256Digest::from_bytes(self.0.finalize().into())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256(..)")
    }
}

/// The BLAKE3 digest of `bytes`.
pub fn checksum(bytes: &[u8]) -> Checksum {
    Checksum::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// BLAKE3 over input that arrives in pieces; how it was cut does not matter.
#[derive(Clone, Default)]
pub struct Checksummer(blake3::Hasher);

impl Checksummer {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Checksum {
        Checksum::from_bytes(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for Checksummer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checksummer(..)")
    }
}

/// The CRC-32 of `bytes` (ISO-HDLC: reflected polynomial `0xEDB88320`, as in Ethernet and gzip).
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Size of a message authentication code in bytes: 128 bits, so a forger who may try 2^40 frames
/// succeeds with a chance of 2^-88.
pub const MAC_BYTES: usize = 16;

/// A secret that authenticates messages: keyed BLAKE3, cut to [`MAC_BYTES`].
///
/// A cluster has one secret; each *directed* pair of replicas uses a key of its own, made with
/// [`MacKey::derive`], so that a frame from 1 to 2 can be reflected neither to 1 nor to 3.
/// Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// Size of the secret in bytes.
    pub const SIZE: usize = 32;

    /// A key made of 32 secret, uniformly random bytes.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(*secret)
    }

    /// Another key, which reveals nothing about this one, for another purpose.
    ///
    /// This is BLAKE3's `derive_key` mode, with this key followed by `material` as the key material.
    /// `context` names the purpose and is a constant of the program ("kimberlite.frames.v1");
    /// `material` tells apart the keys of one purpose (sender, then receiver). Distinct pairs of
    /// context and material give independent keys.
    #[must_use]
    pub fn derive(&self, context: &str, material: &[u8]) -> Self {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_derive_key(context));
        hasher.update(&self.0);
        hasher.update(material);
        Self(*Zeroizing::new(hasher.finalize()).as_bytes())
    }

    /// The code of the message that `parts` are when joined.
    ///
    /// The parts spare the caller a copy and mean nothing by themselves: `["ab", "c"]` and
    /// `["abc"]` are one message. Where one ends must follow from the bytes (a size in a header).
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; MAC_BYTES] {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(&self.0));
        for part in parts {
            hasher.update(part);
        }
        let full = hasher.finalize();
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&full.as_bytes()[..MAC_BYTES]);
        mac
    }

    /// Whether `mac` is the code of the message that `parts` are when joined. Takes the same time
    /// wherever a wrong code differs.
    #[must_use]
    pub fn verify(&self, parts: &[&[u8]], mac: &[u8; MAC_BYTES]) -> bool {
        same_secret(&self.mac(parts), mac)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(secret)")
    }
}

/// Compares up to 32 bytes in constant time, by way of [`blake3::Hash`], whose equality is.
pub(crate) fn same_secret<const N: usize>(a: &[u8; N], b: &[u8; N]) -> bool {
    const { assert!(N <= blake3::OUT_LEN, "longer values would be compared in part only") };
    let widen = |bytes: &[u8; N]| {
        let mut wide = [0; blake3::OUT_LEN];
        wide[..N].copy_from_slice(bytes);
        blake3::Hash::from_bytes(wide)
    };
    widen(a) == widen(b)
}
