//! Repository chores, and the rules this tree keeps about itself.
//!
//! [`tidy`] reads the tracked files and the package graph once and holds them against every rule in
//! [`rules`]. A rule is a pure function from text (or packages) to [`Violation`]s, so each one is tested
//! on a snippet that breaks it; the real tree is one more input, checked by `tests/tidy.rs`.
//!
//! [`fuzz`] builds and runs the fuzz targets; it is the one chore that starts other programs and writes files.
//!
//! Promised of tidy: nothing is written, nothing is built, nothing is fetched. Violations come sorted by file and
//! line, so two runs over one tree print the same bytes.
//!
//! Left out: what the compiler and clippy already refuse. These rules cover what neither can see: which
//! package may know which, what a relaxed lint owes its reader, what may stand in a tracked file.

pub mod fuzz;
mod source;
mod violation;
mod workspace;

pub mod rules;

pub use rules::length::LongFile;
pub use source::Source;
pub use violation::{Rule, Violation};
pub use workspace::{Dependency, DependencyKind, LoadError, Package, TextFile, Workspace, find_root};

/// Holds `workspace` against every rule. Sorted by file, then line, then rule; empty means clean.
pub fn tidy(workspace: &Workspace) -> Vec<Violation> {
    let mut found = Vec::new();
    rules::dependencies::check(workspace, &mut found);
    rules::lints::check(workspace, &mut found);
    rules::core_crates::check(&workspace.texts, &mut found);
    rules::probes::check(workspace, kimberlite_probe::mark::ALL, &mut found);
    rules::tree::check(&workspace.paths, &mut found);
    for file in &workspace.texts {
        rules::debt::check(file, &mut found);
        rules::machine_paths::check(file, &mut found);
        rules::reasons::check(file, &mut found);
        rules::unsafe_code::check(file, &mut found);
    }
    found.sort_by(|a, b| (&a.file, a.line, a.rule).cmp(&(&b.file, b.line, b.rule)));
    found
}
