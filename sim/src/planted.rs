//! Runs with a planted bug: the same run, with one wrong turn in the code switched on.

use kimberlite_bundle::FormatError;
use kimberlite_probe::{Mutant, Sight};

use crate::config::RunConfig;
use crate::run::{Luck, Record, Report, Rules, run};

/// Whether this build holds planted bugs.
pub const HOLDS_MUTANTS: bool = cfg!(feature = "mutants");

/// Runs `config`, with a planted bug if one is given, and tells how often that came into play. Only a build with the
/// feature `mutants` can: in any other, naming one is a mistake of the caller, who must ask [`HOLDS_MUTANTS`].
pub fn run_with(
    mutant: Option<Mutant>,
    config: &RunConfig,
    seed: u64,
    luck: Luck,
    rules: Rules,
) -> ((Report, Record), Sight) {
    match mutant {
        None => (run(config, seed, luck, rules), Sight::default()),
        Some(mutant) => plant(mutant, || run(config, seed, luck, rules)),
    }
}

#[cfg(feature = "mutants")]
fn plant<R>(mutant: Mutant, run: impl FnOnce() -> R) -> (R, Sight) {
    kimberlite_probe::planted(mutant, run)
}

#[cfg(not(feature = "mutants"))]
fn plant<R>(mutant: Mutant, _: impl FnOnce() -> R) -> (R, Sight) {
    panic!("this build holds no planted bugs, {} least of all", mutant.name())
}

/// Runs `config` with the luck of `seed` and one planted bug, and tells how often that came into play.
#[cfg(feature = "mutants")]
pub fn run_planted(config: &RunConfig, seed: u64, rules: Rules, mutant: Mutant) -> (Report, Sight) {
    let ((report, _), sight) = run_with(Some(mutant), config, seed, Luck::Free, rules);
    (report, sight)
}

/// The planted bug of a name that stands in a bundle, if this build holds it.
pub(crate) fn held(name: &str) -> Result<Mutant, FormatError> {
    Mutant::named(name)
        .filter(|_| HOLDS_MUTANTS)
        .ok_or_else(|| FormatError::Planted(name.chars().take(NAME_MAX).collect()))
}

/// Letters of a planted bug's name that are told at most.
const NAME_MAX: usize = 64;
