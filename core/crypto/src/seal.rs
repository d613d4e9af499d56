//! Sealing: deterministic authenticated encryption of payloads and pages.
//!
//! # The construction
//!
//! Replicas must hold byte-identical logs, so sealing draws no luck; and a log position can be
//! prepared twice with different contents (in two views), so a position cannot serve as a nonce.
//! Therefore the nonce is *synthetic* (an SIV mode: Rogaway and Shrimpton, "Deterministic
//! Authenticated-Encryption", 2006), and each sealing has a key of its own:
//!
//! ```text
//! place = cipher (1) ‖ key epoch (4, LE) ‖ purpose (1) ‖ length of position (8, LE) ‖ position
//! nonce = keyed-BLAKE3(nonce subkey,   place ‖ plaintext), first 24 bytes
//! key   = keyed-BLAKE3(cipher subkey,  place ‖ nonce), 32 bytes
//! ciphertext, tag = cipher(key, twelve zero bytes, no associated data, plaintext)
//! ```
//!
//! Both subkeys come from the data key through BLAKE3's `derive_key` mode.
//!
//! # Why a nonce cannot be reused
//!
//! The cipher's own nonce is always zero, so what must never recur is the one-time *key* for two
//! different plaintexts. It depends on the place and on the synthetic nonce. In one place, two
//! different plaintexts share a synthetic nonce only when 192 bits of a keyed hash collide: among
//! `q` plaintexts sealed under one data key that is at most `q²/2^193`, so 2^-97 for 2^48 of them.
//! Nothing a caller can pass changes this, as no function takes a nonce.
//! What determinism gives away: whether two sealings in the *same* place hold the same plaintext.
//!
//! # Why what opens is what was sealed
//!
//! The tag authenticates the ciphertext under a key bound to data key, cipher, epoch, place and
//! synthetic nonce; a change to any of them changes the key, and the tag fails. After decryption
//! the synthetic nonce is computed again from the plaintext and compared. So even one who holds the
//! data key cannot make bytes that open but differ from what [`SealingKey::seal`] gives, nor bytes
//! that open under two keys (which GCM and Poly1305 alone would permit).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::aead::{self, NONCE_BYTES, TAG_BYTES};
use crate::hash::same_secret;

/// Size of the synthetic nonce in bytes.
pub const SYNTHETIC_NONCE_BYTES: usize = 24;

/// Most bytes one sealing may hold: 1 GiB, far above the largest entry or page and below the 64 GiB
/// at which AES-GCM's block counter would wrap.
pub const SEALED_BYTES_MAX: usize = 1 << 30;

/// The cipher's nonce: always zero, because its key is used once. See the module's documentation.
const ONE_TIME_NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

/// Separates the key that makes synthetic nonces from all other uses of a data key.
const NONCE_SUBKEY_CONTEXT: &str = "kimberlite seal v1: synthetic nonce subkey";

/// Separates the key that makes one-time cipher keys from all other uses of a data key.
const CIPHER_SUBKEY_CONTEXT: &str = "kimberlite seal v1: one-time cipher subkey";

/// The cipher field of entry and page headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum Cipher {
    /// The bytes are stored as they are.
    #[default]
    None = 0,
    /// AES-256 in Galois/Counter Mode (NIST SP 800-38D).
    Aes256Gcm = 1,
    /// ChaCha20 with Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 2,
}

/// A number that names no [`Cipher`] this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCipher(pub u8);

impl fmt::Display for UnknownCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cipher {} is not known to this version", self.0)
    }
}

impl core::error::Error for UnknownCipher {}

impl Cipher {
    /// The cipher a header's byte names.
    pub const fn from_u8(number: u8) -> Result<Self, UnknownCipher> {
        match number {
            0 => Ok(Self::None),
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::ChaCha20Poly1305),
            unknown => Err(UnknownCipher(unknown)),
        }
    }

    /// The byte that names this cipher in headers.
    pub const fn to_u8(self) -> u8 {
        self as u8
    }

    /// The cipher proper, or nothing where bytes are stored as they are.
    pub const fn aead(self) -> Option<Aead> {
        match self {
            Self::None => None,
            Self::Aes256Gcm => Some(Aead::Aes256Gcm),
            Self::ChaCha20Poly1305 => Some(Aead::ChaCha20Poly1305),
        }
    }
}

impl TryFrom<u8> for Cipher {
    type Error = UnknownCipher;

    fn try_from(number: u8) -> Result<Self, UnknownCipher> {
        Self::from_u8(number)
    }
}

impl From<Cipher> for u8 {
    fn from(cipher: Cipher) -> Self {
        cipher.to_u8()
    }
}

/// A cipher that does encrypt: every [`Cipher`] except [`Cipher::None`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Aead {
    /// See [`Cipher::Aes256Gcm`].
    Aes256Gcm,
    /// See [`Cipher::ChaCha20Poly1305`].
    ChaCha20Poly1305,
}

impl From<Aead> for Cipher {
    fn from(aead: Aead) -> Self {
        match aead {
            Aead::Aes256Gcm => Self::Aes256Gcm,
            Aead::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
        }
    }
}

impl TryFrom<u8> for Aead {
    type Error = UnknownCipher;

    fn try_from(number: u8) -> Result<Self, UnknownCipher> {
        Cipher::from_u8(number)?.aead().ok_or(UnknownCipher(number))
    }
}

impl From<Aead> for u8 {
    fn from(aead: Aead) -> Self {
        Cipher::from(aead).to_u8()
    }
}

/// Where a plaintext stands: a purpose, and a position whose format belongs to that purpose.
///
/// A sealing opens only in the context it was made in, so stored bytes cannot be moved. Contexts of
/// different purposes never meet, whatever their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    purpose: u8,
    position: &'a [u8],
}

impl<'a> Context<'a> {
    /// A payload of the log. The position is what identifies it *before* it has a place in the log:
    /// tenant, session and request number, in a fixed layout.
    pub const fn entry(position: &'a [u8]) -> Self {
        Self { purpose: 1, position }
    }

    /// A page of a tree. The position is the tenant and the page's address, in a fixed layout.
    pub const fn page(position: &'a [u8]) -> Self {
        Self { purpose: 2, position }
    }

    /// A data key under its master key.
    pub(crate) const fn data_key(position: &'a [u8]) -> Self {
        Self { purpose: 3, position }
    }
}

/// What a header stores about a payload so that it can be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealHeader {
    /// How the bytes are encrypted.
    pub cipher: Cipher,
    /// Which of the tenant's data keys was used; 0 while there is none.
    pub key_epoch: u32,
    /// The synthetic nonce; zero while the cipher is none.
    pub nonce: [u8; SYNTHETIC_NONCE_BYTES],
    /// The cipher's tag; zero while the cipher is none.
    pub tag: [u8; TAG_BYTES],
}

impl SealHeader {
    /// The header of bytes that are stored as they are.
    pub const NONE: Self =
        Self { cipher: Cipher::None, key_epoch: 0, nonce: [0; SYNTHETIC_NONCE_BYTES], tag: [0; TAG_BYTES] };
}

/// A sealed plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// What is needed, beside key and context, to open it.
    pub header: SealHeader,
    /// The encrypted bytes, as many as the plaintext had.
    pub ciphertext: Vec<u8>,
}

/// Why a sealing did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The header says the bytes are stored as they are; there is nothing to open.
    NotSealed,
    /// The header names another data key.
    WrongEpoch {
        /// The epoch of the key at hand.
        key: u32,
        /// The epoch the header names.
        sealed: u32,
    },
    /// The ciphertext is longer than [`SEALED_BYTES_MAX`].
    TooLong,
    /// Key, context, header and ciphertext do not belong together: one of them was changed.
    NotAuthentic,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSealed => f.write_str("the bytes are not sealed"),
            Self::WrongEpoch { key, sealed } => {
                write!(f, "sealed under key epoch {sealed}, but the key at hand is of epoch {key}")
            }
            Self::TooLong => write!(f, "the ciphertext is longer than {SEALED_BYTES_MAX} bytes"),
            Self::NotAuthentic => f.write_str("key, context, header and ciphertext do not belong together"),
        }
    }
}

impl core::error::Error for OpenError {}

/// The secrets of a [`SealingKey`], kept on the heap so that moving the key leaves no copy behind.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Secrets {
    data_key: [u8; 32],
    nonce_subkey: [u8; 32],
    cipher_subkey: [u8; 32],
}

/// A tenant's data key of one epoch: seals and opens payloads.
///
/// It has a cipher of its own for new sealings, which is part of the replicated state (replicas that
/// chose differently would store different bytes); it opens either. Wiped when dropped; cannot be
/// cloned, so dropping it and destroying its wrapped form destroys the data; never prints itself.
pub struct SealingKey {
    aead: Aead,
    epoch: u32,
    secrets: Box<Secrets>,
}

impl SealingKey {
    /// A key made of 32 secret, uniformly random bytes that serve nothing else.
    pub fn new(aead: Aead, epoch: u32, data_key: &[u8; 32]) -> Self {
        let mut secrets =
            Box::new(Secrets { data_key: [0; 32], nonce_subkey: [0; 32], cipher_subkey: [0; 32] });
        secrets.data_key.copy_from_slice(data_key);
        derive_subkey(NONCE_SUBKEY_CONTEXT, data_key, &mut secrets.nonce_subkey);
        derive_subkey(CIPHER_SUBKEY_CONTEXT, data_key, &mut secrets.cipher_subkey);
        Self { aead, epoch, secrets }
    }

    /// The cipher of new sealings.
    pub fn aead(&self) -> Aead {
        self.aead
    }

    /// The number that headers name this key by.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Seals a copy of `plaintext`. See [`SealingKey::seal_in_place`].
    pub fn seal(&self, context: &Context<'_>, plaintext: &[u8]) -> Sealed {
        let mut ciphertext = plaintext.to_vec();
        let header = self.seal_in_place(context, &mut ciphertext);
        Sealed { header, ciphertext }
    }

    /// Encrypts `buffer` where it lies and returns the header to store beside it. The same key,
    /// context and plaintext give the same bytes, always and everywhere.
    ///
    /// The buffer holds at most [`SEALED_BYTES_MAX`]; entries and pages are bounded long before.
    pub fn seal_in_place(&self, context: &Context<'_>, buffer: &mut [u8]) -> SealHeader {
        assert!(buffer.len() <= SEALED_BYTES_MAX, "entries and pages are bounded before they are sealed");
        let nonce = self.synthetic_nonce(self.aead, context, buffer);
        let key = self.one_time_key(self.aead, context, &nonce);
        let tag = aead::encrypt(self.aead, key.as_bytes(), &ONE_TIME_NONCE, &[], buffer)
            .expect("SEALED_BYTES_MAX is below the limit of both ciphers");
        SealHeader { cipher: self.aead.into(), key_epoch: self.epoch, nonce, tag }
    }

    /// Opens a sealing into a buffer that is wiped when dropped. See [`SealingKey::open_in_place`].
    pub fn open(&self, context: &Context<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let mut buffer = Zeroizing::new(sealed.ciphertext.clone());
        self.open_in_place(context, &sealed.header, &mut buffer)?;
        Ok(buffer)
    }

    /// Decrypts `buffer` where it lies. After an error it holds no plaintext, and is otherwise
    /// unspecified.
    pub fn open_in_place(
        &self,
        context: &Context<'_>,
        header: &SealHeader,
        buffer: &mut [u8],
    ) -> Result<(), OpenError> {
        let aead = header.cipher.aead().ok_or(OpenError::NotSealed)?;
        if header.key_epoch != self.epoch {
            return Err(OpenError::WrongEpoch { key: self.epoch, sealed: header.key_epoch });
        }
        if buffer.len() > SEALED_BYTES_MAX {
            return Err(OpenError::TooLong);
        }
        let key = self.one_time_key(aead, context, &header.nonce);
        aead::decrypt(aead, key.as_bytes(), &ONE_TIME_NONCE, &[], buffer, &header.tag)
            .map_err(|aead::Refused| OpenError::NotAuthentic)?;
        if !same_secret(&self.synthetic_nonce(aead, context, buffer), &header.nonce) {
            buffer.zeroize();
            return Err(OpenError::NotAuthentic);
        }
        Ok(())
    }

    /// The secret itself, for [`crate::MasterKey`] to wrap.
    pub(crate) fn data_key(&self) -> &[u8; 32] {
        &self.secrets.data_key
    }

    fn synthetic_nonce(
        &self,
        aead: Aead,
        context: &Context<'_>,
        plaintext: &[u8],
    ) -> [u8; SYNTHETIC_NONCE_BYTES] {
        let full = self.keyed(&self.secrets.nonce_subkey, aead, context, plaintext);
        let mut nonce = [0; SYNTHETIC_NONCE_BYTES];
        nonce.copy_from_slice(&full.as_bytes()[..SYNTHETIC_NONCE_BYTES]);
        nonce
    }

    pub(crate) fn one_time_key(
        &self,
        aead: Aead,
        context: &Context<'_>,
        nonce: &[u8; SYNTHETIC_NONCE_BYTES],
    ) -> Zeroizing<blake3::Hash> {
        self.keyed(&self.secrets.cipher_subkey, aead, context, nonce)
    }

    /// Keyed BLAKE3 of `place ‖ last`: every field of the place has a fixed size or its length in
    /// front, so no two inputs read alike.
    fn keyed(
        &self,
        subkey: &[u8; 32],
        aead: Aead,
        context: &Context<'_>,
        last: &[u8],
    ) -> Zeroizing<blake3::Hash> {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(subkey));
        hasher.update(&[aead.into()]);
        hasher.update(&self.epoch.to_le_bytes());
        hasher.update(&[context.purpose]);
        hasher.update(&(context.position.len() as u64).to_le_bytes());
        hasher.update(context.position);
        hasher.update(last);
        Zeroizing::new(hasher.finalize())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey(secret of epoch {}, {:?})", self.epoch, self.aead)
    }
}

fn derive_subkey(context: &str, data_key: &[u8; 32], subkey: &mut [u8; 32]) {
    let mut hasher = Zeroizing::new(blake3::Hasher::new_derive_key(context));
    hasher.update(data_key);
    subkey.copy_from_slice(Zeroizing::new(hasher.finalize()).as_bytes());
}
