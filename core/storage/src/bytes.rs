//! Fixed layouts: integers at known places, little-endian.

/// The `N` bytes at `at`. The caller has checked the length.
pub(crate) fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

macro_rules! integer {
    ($get:ident, $put:ident, $int:ty) => {
        pub(crate) fn $get(bytes: &[u8], at: usize) -> $int {
            <$int>::from_le_bytes(bytes_at(bytes, at))
        }

        pub(crate) fn $put(bytes: &mut [u8], at: usize, value: $int) {
            bytes[at..at + size_of::<$int>()].copy_from_slice(&value.to_le_bytes());
        }
    };
}

integer!(u16_at, put_u16, u16);
integer!(u32_at, put_u32, u32);
integer!(u64_at, put_u64, u64);
integer!(u128_at, put_u128, u128);

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
