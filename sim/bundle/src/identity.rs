//! What a program was built from.

use serde::{Deserialize, Serialize};

/// What a program was built from. Two that agree in all but the commit are one build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The package's version.
    pub version: String,
    /// The commit, with `-dirty` when sources were changed since; `unknown` outside a repository.
    pub commit: String,
    /// Hash of the sources of everything but the tools.
    pub sources: String,
    /// Hash of the lock file.
    pub lock: String,
    /// The compiler.
    pub compiler: String,
    /// `debug` or `release`.
    pub profile: String,
    /// What was compiled in beyond the product: `marks`, `mutants`.
    pub features: Vec<String>,
}

impl Identity {
    /// This program's.
    pub fn current() -> Self {
        let lock = blake3::hash(include_bytes!("../../../Cargo.lock")).to_hex();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("KIMBERLITE_BUILD_COMMIT").to_owned(),
            sources: env!("KIMBERLITE_SOURCES").to_owned(),
            lock: lock[..16].to_owned(),
            compiler: env!("KIMBERLITE_RUSTC").to_owned(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            features: kimberlite_probe::FEATURES.iter().map(ToString::to_string).collect(),
        }
    }

    /// The names and values, for printing.
    pub fn fields(&self) -> [(&'static str, String); 7] {
        let features = if self.features.is_empty() { "none".to_owned() } else { self.features.join(", ") };
        [
            ("version", self.version.clone()),
            ("commit", self.commit.clone()),
            ("sources", self.sources.clone()),
            ("lock file", self.lock.clone()),
            ("compiler", self.compiler.clone()),
            ("profile", self.profile.clone()),
            ("features", features),
        ]
    }

    /// Where two identities differ: what, here, there.
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, String, String)> {
        let pairs = self.fields().into_iter().zip(other.fields());
        pairs.filter(|(here, there)| here != there).map(|(here, there)| (here.0, here.1, there.1)).collect()
    }

    /// Whether two programs must behave alike. The profile and the marks change nothing in what a node does, and a
    /// commit may change nothing but words.
    pub fn is_same_build(&self, other: &Self) -> bool {
        let decides = |it: &Self| {
            let mutants = it.features.iter().any(|feature| feature == "mutants");
            (it.sources.clone(), it.lock.clone(), it.compiler.clone(), mutants)
        };
        decides(self) == decides(other)
    }

    /// Version and commit, as they stand in the head of a file.
    pub fn short(&self) -> String {
        format!("{} {}", self.version, self.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_names_its_sources_and_differs_from_others_by_name() {
        let here = Identity::current();
        assert_eq!(here.sources.len(), 16);
        assert_eq!(here.differences(&here), []);
        let there = Identity { lock: "other".to_owned(), commit: "else".to_owned(), ..here.clone() };
        let names: Vec<_> = here.differences(&there).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["commit", "lock file"]);
        assert!(!here.is_same_build(&there));
        assert!(here.is_same_build(&Identity { commit: "else".to_owned(), ..here.clone() }));
    }
}
