//! Hashes, signatures and sealing, behind types that are hard to misuse.
//!
//! **What is here.** [`hash`]: SHA-256 for what outsiders verify, BLAKE3 for what replicas check,
//! CRC-32 for single records, and keyed BLAKE3 to authenticate frames. [`chain`]: the hash chain
//! through the entries of the log. [`sign`]: Ed25519 for statements that may become evidence.
//! [`seal`]: authenticated encryption of payloads and pages. [`key`]: the master key under which
//! tenants' data keys are kept. [`merkle`]: RFC 6962 trees, with proofs an auditor can check.
//!
//! **What it promises.** Every algorithm is checked against its published vectors. The same input
//! gives the same bytes on every machine: nothing here draws luck or reads a clock. No function
//! takes a nonce, so none can be reused. Secrets are wiped when dropped, cannot be cloned and do not
//! print themselves. Bytes from outside give an error, never a panic.
//!
//! **What it leaves out.** Where secrets come from (the machine's own source of luck, far outside
//! this crate), where they are stored, and the layout of any frame or header: those are formats, and
//! live with the code that reads and writes them.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod aead;
mod bytes;
pub mod chain;
pub mod hash;
pub mod key;
pub mod merkle;
pub mod seal;
pub mod sign;
#[cfg(test)]
mod tests;

pub use chain::ChainHash;
pub use hash::{Checksum, Checksummer, MAC_BYTES, MacKey, Sha256, Sha256Digest, checksum, crc32, sha256};
pub use key::{MasterKey, UnwrapError, WrappedKey};
pub use merkle::{MerkleLog, ProofError};
pub use seal::{Aead, Cipher, Context, OpenError, SealHeader, Sealed, SealingKey, UnknownCipher};
pub use sign::{Signature, SignatureError, SigningKey, VerifyingKey};
