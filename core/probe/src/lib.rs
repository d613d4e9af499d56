//! Marks and mutants: what a simulator asks of the code it runs.
//!
//! | module | holds |
//! |---|---|
//! | [`mark`] | `always!`, `sometimes!`, `reachable!`, `unreachable!`: what a swarm must have seen |
//! | `table` | every mark there is |
//! | `mutant` | `mutant!`: planted bugs at their real sites, switched on one at a time |
//!
//! **What it promises.** Without the features `marks` and `mutants` every macro is a constant or nothing at all, and this
//! crate is `no_std`. With them, what is counted and what is switched on belongs to the running thread, and a
//! world runs on one thread: so it belongs to a world, never to the process. Counting decides nothing: a run with
//! marks and one without give the same digest.
#![cfg_attr(not(any(test, feature = "marks", feature = "mutants")), no_std)]
#![forbid(unsafe_code)]

pub mod mark;
mod mutant;
mod table;

pub use mutant::{Mutant, Sight};

#[cfg(feature = "mutants")]
pub use mutant::planted;

#[doc(hidden)]
pub use mutant::__private as __mutant;

/// What of this crate is compiled in: it belongs to the identity of a build.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "marks")]
    "marks",
    #[cfg(feature = "mutants")]
    "mutants",
];
