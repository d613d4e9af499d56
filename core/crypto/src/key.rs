//! The key hierarchy: a master key wraps the data keys of tenants.
//!
//! A data key is random, not derived from the master key, and is kept only wrapped. That is what
//! makes erasure possible: destroy the few bytes of a tenant's wrapped key, drop the key itself, and
//! all the tenant sealed under it is gone, in backups too, while chain and Merkle proofs stay valid.
//! A derived key could always be derived again.

use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::aead::TAG_BYTES;
use crate::seal::{Aead, Context, SYNTHETIC_NONCE_BYTES, SealHeader, SealingKey};

/// The wrapping itself always uses this cipher: constant-time in software on every machine.
const WRAPPING: Aead = Aead::ChaCha20Poly1305;

/// Longest context of a tenant, in bytes. A tenant's id takes 8; the rest is for names of clusters.
pub const TENANT_CONTEXT_BYTES_MAX: usize = 128;

/// Size of what stands before the tenant's context in the position of a wrapping: cipher and epoch.
const POSITION_PREFIX_BYTES: usize = 1 + 4;

/// The secret under which an installation keeps its tenants' data keys. Wiped when dropped; cannot
/// be cloned; never prints itself.
pub struct MasterKey(SealingKey);

/// A data key as it is stored: of no use without the master key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    /// The cipher the data key uses for new sealings.
    pub aead: Aead,
    /// The epoch of the data key.
    pub key_epoch: u32,
    /// The synthetic nonce of the wrapping.
    pub nonce: [u8; SYNTHETIC_NONCE_BYTES],
    /// The tag of the wrapping.
    pub tag: [u8; TAG_BYTES],
    /// The encrypted data key.
    pub secret: [u8; 32],
}

/// Why a wrapped key did not unwrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnwrapError {
    /// The tenant's context is longer than [`TENANT_CONTEXT_BYTES_MAX`]: nothing was wrapped in it.
    ContextTooLong,
    /// Another master key, another tenant, or changed bytes.
    NotAuthentic,
}

impl fmt::Display for UnwrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContextTooLong => {
                write!(f, "a tenant's context takes at most {TENANT_CONTEXT_BYTES_MAX} bytes")
            }
            Self::NotAuthentic => f.write_str("another master key, another tenant, or changed bytes"),
        }
    }
}

impl core::error::Error for UnwrapError {}

impl MasterKey {
    /// A key made of 32 secret, uniformly random bytes that serve nothing else.
    pub fn from_bytes(secret: &[u8; 32]) -> Self {
        Self(SealingKey::new(WRAPPING, 0, secret))
    }

    /// Wraps `key` for the tenant that `tenant_context` identifies, in a fixed layout of at most
    /// [`TENANT_CONTEXT_BYTES_MAX`]. Deterministic, as all sealing is.
    pub fn wrap(&self, tenant_context: &[u8], key: &SealingKey) -> WrappedKey {
        let position = Position::new(key.aead(), key.epoch(), tenant_context)
            .expect("a tenant's context is of our own making and bounded");
        let mut secret = Zeroizing::new(*key.data_key());
        let header = self.0.seal_in_place(&Context::data_key(position.as_bytes()), &mut secret[..]);
        WrappedKey {
            aead: key.aead(),
            key_epoch: key.epoch(),
            nonce: header.nonce,
            tag: header.tag,
            secret: *secret,
        }
    }

    /// The data key that was wrapped for this tenant under this master key.
    pub fn unwrap(&self, tenant_context: &[u8], wrapped: &WrappedKey) -> Result<SealingKey, UnwrapError> {
        let position = Position::new(wrapped.aead, wrapped.key_epoch, tenant_context)
            .ok_or(UnwrapError::ContextTooLong)?;
        let header = SealHeader {
            cipher: WRAPPING.into(),
            key_epoch: self.0.epoch(),
            nonce: wrapped.nonce,
            tag: wrapped.tag,
        };
        let mut secret = Zeroizing::new(wrapped.secret);
        self.0
            .open_in_place(&Context::data_key(position.as_bytes()), &header, &mut secret[..])
            .map_err(|_| UnwrapError::NotAuthentic)?;
        Ok(SealingKey::new(wrapped.aead, wrapped.key_epoch, &secret))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(secret)")
    }
}

/// The position of a wrapping: `cipher (1) ‖ key epoch (4, LE) ‖ tenant's context`. What stands in
/// the clear beside a wrapped secret is thereby bound to it.
struct Position {
    bytes: [u8; POSITION_PREFIX_BYTES + TENANT_CONTEXT_BYTES_MAX],
    len: usize,
}

impl Position {
    fn new(aead: Aead, epoch: u32, tenant_context: &[u8]) -> Option<Self> {
        if tenant_context.len() > TENANT_CONTEXT_BYTES_MAX {
            return None;
        }
        let len = POSITION_PREFIX_BYTES + tenant_context.len();
        let mut bytes = [0; POSITION_PREFIX_BYTES + TENANT_CONTEXT_BYTES_MAX];
        bytes[0] = aead.into();
        bytes[1..POSITION_PREFIX_BYTES].copy_from_slice(&epoch.to_le_bytes());
        bytes[POSITION_PREFIX_BYTES..len].copy_from_slice(tenant_context);
        Some(Self { bytes, len })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
