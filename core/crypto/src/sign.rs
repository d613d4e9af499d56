//! Ed25519 signatures (RFC 8032).
//!
//! A signature is for what a third party must be able to judge: checkpoints handed to auditors and
//! statements of replicas that may become evidence. Frames between replicas carry a
//! [`MacKey`](crate::MacKey) code as well, which is cheaper and proves nothing to others.
//!
//! Verification is *strict*: small-order keys and non-canonical encodings are refused, so that a
//! signature fits one message under one key and cannot be varied by someone without the key. Two
//! honest verifiers never disagree.

use core::fmt;

use ed25519_dalek::Signer as _;
use serde::{Deserialize, Serialize};

use crate::bytes::{printed_bytes, write_hex};

/// Why a key or a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// The bytes are not 64 long, thus no signature.
    Length,
    /// The bytes do not encode a point of the curve, thus no verifying key.
    KeyMalformed,
    /// The key is one of the few of small order, under which anyone can make a signature.
    KeyWeak,
    /// The signature does not belong to this message and key.
    Mismatch,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "a signature is 64 bytes long",
            Self::KeyMalformed => "the verifying key is not a point of the curve",
            Self::KeyWeak => "the verifying key is of small order",
            Self::Mismatch => "the signature does not belong to this message and key",
        })
    }
}

impl core::error::Error for SignatureError {}

/// A secret key that signs. Wiped when dropped; cannot be cloned; prints its public half alone.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key that RFC 8032 derives from 32 secret, uniformly random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// Signs `message`. Deterministic: the same message gives the same signature.
    ///
    /// The caller's messages of different kinds must differ in their first bytes, or a statement of
    /// one kind could be shown as one of another.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(secret of {:?})", self.verifying_key())
    }
}

/// A public key that verifies. Always a curve point that is not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 32]", into = "[u8; 32]")]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Size in bytes.
    pub const SIZE: usize = 32;

    /// Reads a key; fails with [`SignatureError::KeyMalformed`] or [`SignatureError::KeyWeak`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, SignatureError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| SignatureError::KeyMalformed)?;
        if key.is_weak() { Err(SignatureError::KeyWeak) } else { Ok(Self(key)) }
    }

    /// The bytes as they are stored and sent.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Checks strictly that `signature` was made of `message` with this key's secret half; fails
    /// with [`SignatureError::Mismatch`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify_strict(message, &signature).map_err(|_| SignatureError::Mismatch)
    }
}

impl TryFrom<[u8; 32]> for VerifyingKey {
    type Error = SignatureError;

    fn try_from(bytes: [u8; 32]) -> Result<Self, SignatureError> {
        Self::from_bytes(&bytes)
    }
}

impl From<VerifyingKey> for [u8; 32] {
    fn from(key: VerifyingKey) -> Self {
        *key.as_bytes()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.as_bytes())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({self})")
    }
}

/// A signature; until verified, 64 bytes that anyone may have written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "([u8; 32], [u8; 32])", into = "([u8; 32], [u8; 32])")]
pub struct Signature([u8; 64]);

printed_bytes!(Signature, 64);

impl Signature {
    /// Size in bytes.
    pub const SIZE: usize = 64;

    /// All bits zero: fills the field of a layout that nobody signed. Verifies under no key.
    pub const ZERO: Self = Self([0; 64]);
}

impl TryFrom<&[u8]> for Signature {
    type Error = SignatureError;

    fn try_from(bytes: &[u8]) -> Result<Self, SignatureError> {
        bytes.try_into().map(Self).map_err(|_| SignatureError::Length)
    }
}

// Serialised as its two halves, R and S, because serde's arrays end at 32; the bytes are the same.
impl From<([u8; 32], [u8; 32])> for Signature {
    fn from((r, s): ([u8; 32], [u8; 32])) -> Self {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&r);
        bytes[32..].copy_from_slice(&s);
        Self(bytes)
    }
}

impl From<Signature> for ([u8; 32], [u8; 32]) {
    fn from(signature: Signature) -> Self {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&signature.0[..32]);
        s.copy_from_slice(&signature.0[32..]);
        (r, s)
    }
}
