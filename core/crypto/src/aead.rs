//! The two ciphers as they come, nonce and all. Private: outside, only [`crate::seal`] is seen.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use crate::seal::Aead;

pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;

/// The cipher refused: on encryption the input was too long, on decryption it is not authentic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Encrypts `buffer` in place and returns its tag.
pub(crate) fn encrypt(
    aead: Aead,
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    associated: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG_BYTES], Refused> {
    match aead {
        Aead::Aes256Gcm => Aes256Gcm::new(key.into())
            .encrypt_inout_detached(nonce.into(), associated, buffer.into())
            .map(Into::into),
        Aead::ChaCha20Poly1305 => ChaCha20Poly1305::new(key.into())
            .encrypt_inout_detached(nonce.into(), associated, buffer.into())
            .map(Into::into),
    }
    .map_err(|_| Refused)
}

/// Checks `tag` and only then decrypts `buffer` in place.
pub(crate) fn decrypt(
    aead: Aead,
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    associated: &[u8],
    buffer: &mut [u8],
    tag: &[u8; TAG_BYTES],
) -> Result<(), Refused> {
    match aead {
        Aead::Aes256Gcm => Aes256Gcm::new(key.into()).decrypt_inout_detached(
            nonce.into(),
            associated,
            buffer.into(),
            tag.into(),
        ),
        Aead::ChaCha20Poly1305 => ChaCha20Poly1305::new(key.into()).decrypt_inout_detached(
            nonce.into(),
            associated,
            buffer.into(),
            tag.into(),
        ),
    }
    .map_err(|_| Refused)
}
