//! Newtypes over fixed-size byte strings that print as lower-case hexadecimal.

use core::fmt;

/// Writes `bytes` in lower-case hexadecimal.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// How many bytes the short form of a digest shows: enough to tell neighbours apart in a log line.
pub(crate) const SHORT_BYTES: usize = 4;

/// Gives a `struct Name([u8; N])` its accessors and its printed form: all digits, or with `{:#}`
/// the first [`SHORT_BYTES`] bytes.
macro_rules! printed_bytes {
    ($name:ident, $size:literal) => {
        impl $name {
            /// Wraps bytes that were stored or sent earlier.
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }

            /// The bytes as they are stored and sent.
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let shown = if f.alternate() { &self.0[..crate::bytes::SHORT_BYTES] } else { &self.0[..] };
                crate::bytes::write_hex(f, shown)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                crate::bytes::write_hex(f, &self.0)?;
                f.write_str(")")
            }
        }
    };
}
pub(crate) use printed_bytes;

/// Declares a 32-byte digest: a plain value, ordered by its bytes, serialised as the bytes alone.
macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
        )]
        pub struct $name([u8; 32]);

        crate::bytes::printed_bytes!($name, 32);

        impl $name {
            /// Size in bytes.
            pub const SIZE: usize = 32;

            /// All bits zero: a placeholder in fixed layouts, not the digest of anything known.
            pub const ZERO: Self = Self([0; 32]);
        }
    };
}
pub(crate) use digest;
