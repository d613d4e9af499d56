//! What a rule says when it is broken.

use std::fmt;

use serde_json::{Value, json};

/// The rules, one per module below [`crate::rules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Packages depend only downwards, and core crates only on listed external crates.
    Dependencies,
    /// Every package takes the workspace's lints.
    Lints,
    /// Core crates are `no_std` and forbid unsafe code.
    CoreCrates,
    /// The top of the tree holds only what the architecture names.
    Tree,
    /// No word that marks unfinished work.
    Debt,
    /// No path that exists on one machine only.
    MachinePaths,
    /// Marks stand where they are declared, and nothing that ships asks for marks or mutants.
    Probes,
    /// A relaxed lint says why.
    Reasons,
    /// Unsafe code stands in one package, each block with its argument.
    UnsafeCode,
}

impl Rule {
    /// The name used in output; stable, so that scripts may filter on it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dependencies => "dependencies",
            Self::Lints => "lints",
            Self::CoreCrates => "core-crates",
            Self::Tree => "tree",
            Self::Debt => "debt",
            Self::MachinePaths => "machine-paths",
            Self::Probes => "probes",
            Self::Reasons => "reasons",
            Self::UnsafeCode => "unsafe-code",
        }
    }
}

/// One place where the tree breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule broken.
    pub rule: Rule,
    /// Path from the workspace root, with `/` between its parts.
    pub file: String,
    /// Line, counted from 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// What stands there.
    pub found: String,
    /// What to do about it.
    pub advice: String,
}

impl Violation {
    /// The same facts for scripts: `rule`, `file`, `line` (number or null), `found`, `advice`.
    pub fn to_json(&self) -> Value {
        json!({
            "rule": self.rule.name(),
            "file": self.file,
            "line": self.line,
            "found": self.found,
            "advice": self.advice,
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": [{}] {}; {}", self.rule.name(), self.found, self.advice)
    }
}
