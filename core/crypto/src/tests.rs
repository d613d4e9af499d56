//! Tests against published vectors, and of what the crate's own constructions promise.

use alloc::vec::Vec;

use data_encoding::HEXLOWER;

mod chain;
mod merkle;
mod seal;
mod sign;
mod vectors;
mod wycheproof;

/// Bytes written as published; spaces and line ends are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    HEXLOWER.decode(&digits).expect("vectors are written in lower-case hexadecimal")
}

fn hex_array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().expect("a vector of this size")
}
