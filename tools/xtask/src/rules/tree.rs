//! The top of the tree is the first page of the documentation; it holds only what the architecture names.

use std::collections::BTreeSet;

use crate::{Rule, Violation};

/// What may stand at the top.
#[rustfmt::skip]
const PERMITTED: &[&str] = &[
    // the code
    "core", "bundle", "io-real", "io-sim", "sim", "fuzz", "seeds", "tools",
    // the pages
    "README.md", "ARCHITECTURE.md", "LICENSE",
    // what the tools read
    "Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "rustfmt.toml", "clippy.toml", "deny.toml",
    ".cargo", ".ci", ".github", ".gitignore",
];

/// Looks at the first part of every tracked path; each stranger is reported once.
pub fn check(paths: &[String], found: &mut Vec<Violation>) {
    let tops: BTreeSet<&str> = paths.iter().map(|path| path.split('/').next().unwrap_or(path)).collect();
    for top in tops.into_iter().filter(|top| !PERMITTED.contains(top)) {
        found.push(Violation {
            rule: Rule::Tree,
            file: top.to_owned(),
            line: None,
            found: "not a permitted entry at the top of the tree".to_owned(),
            advice: "move it below a permitted folder".to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_at_the_top_is_found_once_and_deeper_names_are_free() {
        let paths = ["core/notes/a.rs", "notes/a.md", "notes/b.md", "Cargo.toml"].map(str::to_owned);
        let mut found = Vec::new();
        check(&paths, &mut found);
        let files: Vec<_> = found.iter().map(|v| v.file.as_str()).collect();
        assert_eq!(files, ["notes"]);
    }
}
