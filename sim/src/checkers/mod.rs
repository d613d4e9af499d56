//! The rules a run is held against.

use kimberlite_types::Config;

use crate::Checker;

/// All checkers.
pub fn all(_: &Config) -> Vec<Box<dyn Checker>> {
    Vec::new()
}
