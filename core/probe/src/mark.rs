//! Marks: places and conditions that a swarm must have seen, or it has shown nothing.

/// Counts that a place was reached. Nothing at all unless the feature `marks` is on.
#[macro_export]
macro_rules! reachable {
    ($name:literal) => {
        $crate::__mark::reached($name)
    };
}

#[doc(hidden)]
pub mod __private {
    /// Nothing, in a build without marks.
    #[cfg(not(feature = "marks"))]
    #[inline]
    pub const fn reached(_: &'static str) {}

    /// Counts a place.
    #[cfg(feature = "marks")]
    pub fn reached(_name: &'static str) {}
}
