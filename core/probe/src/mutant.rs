//! Planted bugs, each at its real site in the code.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// A backup acknowledges a prepare before it is durable.
    AckBeforeDurable,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::AckBeforeDurable];
}

/// Whether a planted bug is switched on here. A constant `false` unless the feature `mutants` is on.
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::__mutant::is_on($crate::Mutant::$name)
    };
}

#[doc(hidden)]
pub mod __private {
    use super::Mutant;

    /// Never, in a build that holds no mutants.
    #[cfg(not(feature = "mutants"))]
    #[inline]
    pub const fn is_on(_: Mutant) -> bool {
        false
    }

    #[cfg(feature = "mutants")]
    std::thread_local! {
        static ON: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
    }

    /// Whether this thread's world has switched it on.
    #[cfg(feature = "mutants")]
    pub fn is_on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }
}
