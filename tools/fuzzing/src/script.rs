//! The fuzzer's bytes, read as a list of choices.

use arbitrary::Unstructured;

/// Choices taken from the fuzzer's bytes, front to back. When the bytes are used up every choice is the first one
/// and every number is zero.
#[derive(Debug)]
pub(crate) struct Script<'a>(Unstructured<'a>);

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// An index below `count`, which must be positive. Takes one byte for each factor of 256 begun.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        assert!(count > 0, "a choice among nothing");
        self.0.int_in_range(0..=count - 1).unwrap_or(0)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// A number of any magnitude: small ones are as likely as large ones, so that limits are met from both sides.
    pub(crate) fn magnitude(&mut self) -> u64 {
        let bits = u32::from(self.byte());
        self.word() >> (bits % 64)
    }

    /// At most `max` bytes.
    pub(crate) fn bytes(&mut self, max: usize) -> &'a [u8] {
        let wanted = self.below(max + 1).min(self.0.len());
        self.0.bytes(wanted).unwrap_or(&[])
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let left = self.0.len();
        self.0.bytes(left).unwrap_or(&[])
    }
}
