//! The tree as the rules see it: tracked files, their text, and the package graph.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Everything the rules read, loaded once.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// Tracked paths from the root, with `/` between their parts, sorted.
    pub paths: Vec<String>,
    /// The tracked files that are UTF-8 text; binary files have a path and no text.
    pub texts: Vec<TextFile>,
    /// The workspace's own packages.
    pub packages: Vec<Package>,
}

/// One tracked text file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Path from the workspace root.
    pub path: String,
    /// Its whole content.
    pub text: String,
}

impl TextFile {
    /// A file with this content.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Whether the name ends in `.extension`.
    pub fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|e| e == extension)
    }
}

/// One workspace package, as `cargo metadata` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Path of its `Cargo.toml` from the workspace root.
    pub manifest: String,
    /// What it depends on directly.
    pub dependencies: Vec<Dependency>,
    /// Its features, and what each asks for.
    pub features: BTreeMap<String, Vec<String>>,
}

/// One direct dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Package name, whatever it is renamed to.
    pub name: String,
    /// What it is needed for.
    pub kind: DependencyKind,
    /// Whether it comes from this tree rather than from a registry.
    pub local: bool,
    /// Features asked of it, besides its default ones.
    pub features: Vec<String>,
}

/// What a dependency is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependencyKind {
    /// Part of what is built, or of building it.
    Normal,
    /// Tests, benches and examples only.
    Dev,
}

/// Why the tree could not be looked at.
#[derive(Debug)]
pub enum LoadError {
    /// No `Cargo.toml` with a `[workspace]` at or above the start.
    NoWorkspace(PathBuf),
    /// A file or folder could not be read.
    Read(PathBuf, io::Error),
    /// `cargo metadata` could not be started.
    Cargo(io::Error),
    /// `cargo metadata` ran and failed; its own words.
    Metadata(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorkspace(start) => write!(f, "no cargo workspace at or above {}", start.display()),
            Self::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Cargo(error) => write!(f, "cannot start cargo: {error}"),
            Self::Metadata(words) => write!(f, "cargo metadata failed: {words}"),
        }
    }
}

impl Error for LoadError {}

/// The nearest folder at or above `start` whose `Cargo.toml` declares a workspace.
pub fn find_root(start: &Path) -> Result<PathBuf, LoadError> {
    start
        .ancestors()
        .find(|folder| {
            fs::read_to_string(folder.join("Cargo.toml"))
                .is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
        })
        .map(Path::to_path_buf)
        .ok_or_else(|| LoadError::NoWorkspace(start.to_path_buf()))
}

impl Workspace {
    /// Reads the tree below `root`.
    pub fn load(root: &Path) -> Result<Self, LoadError> {
        let mut paths = match tracked_paths(root) {
            Some(paths) => paths,
            None => walked_paths(root)?,
        };
        paths.sort();
        let mut texts = Vec::new();
        // A path that is tracked but gone (removed, not yet committed) is simply no longer there.
        paths.retain(|path| root.join(path).is_file());
        for path in &paths {
            let full = root.join(path);
            let bytes = fs::read(&full).map_err(|error| LoadError::Read(full, error))?;
            if let Ok(text) = String::from_utf8(bytes)
                && !text.contains('\0')
            {
                texts.push(TextFile::new(path.clone(), text));
            }
        }
        Ok(Self { paths, texts, packages: packages(root)? })
    }
}

/// What git tracks below `root`; `None` if this is no checkout or there is no git.
fn tracked_paths(root: &Path) -> Option<Vec<String>> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().ok()?;
    let text = String::from_utf8(listed.stdout).ok()?;
    let paths: Vec<String> = text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    (listed.status.success() && !paths.is_empty()).then_some(paths)
}

/// Every file below `root` except build output: the fallback for an unpacked archive.
fn walked_paths(root: &Path) -> Result<Vec<String>, LoadError> {
    let mut paths = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        let failed = |error| LoadError::Read(full.clone(), error);
        for entry in fs::read_dir(&full).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = folder.join(entry.file_name());
            if entry.file_type().map_err(failed)?.is_dir() {
                if !matches!(entry.file_name().to_str(), Some(".git" | "target")) {
                    folders.push(path);
                }
            } else if let Some(path) = path.to_str() {
                paths.push(path.replace('\\', "/"));
            }
        }
    }
    Ok(paths)
}

/// The package graph, without resolving external crates: no network, no lock taken.
fn packages(root: &Path) -> Result<Vec<Package>, LoadError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()
        .map_err(LoadError::Cargo)?;
    if !output.status.success() {
        return Err(LoadError::Metadata(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| LoadError::Metadata(error.to_string()))?;
    parse_packages(&metadata).ok_or_else(|| LoadError::Metadata("a field is missing".to_owned()))
}

/// Reads the fields used here; `None` if one is absent or of another type.
fn parse_packages(metadata: &Value) -> Option<Vec<Package>> {
    let root = metadata["workspace_root"].as_str()?;
    let strings = |value: &Value| {
        let items = value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned));
        items.collect::<Option<Vec<String>>>()
    };
    let parse_dependency = |value: &Value| {
        Some(Dependency {
            name: value["name"].as_str()?.to_owned(),
            kind: if value["kind"] == "dev" { DependencyKind::Dev } else { DependencyKind::Normal },
            local: value["path"].is_string(),
            features: strings(&value["features"])?,
        })
    };
    let parse_package = |value: &Value| {
        let manifest = Path::new(value["manifest_path"].as_str()?);
        Some(Package {
            name: value["name"].as_str()?.to_owned(),
            manifest: manifest.strip_prefix(root).ok()?.to_str()?.replace('\\', "/"),
            dependencies: value["dependencies"]
                .as_array()?
                .iter()
                .map(parse_dependency)
                .collect::<Option<_>>()?,
            features: value["features"]
                .as_object()?
                .iter()
                .map(|(name, asks)| Some((name.clone(), strings(asks)?)))
                .collect::<Option<_>>()?,
        })
    };
    metadata["packages"].as_array()?.iter().map(parse_package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn metadata_is_read_into_packages_and_a_missing_field_is_noticed() {
        let mut metadata = json!({
            "workspace_root": "/tree",
            "packages": [{
                "name": "a", "manifest_path": "/tree/core/a/Cargo.toml",
                "dependencies": [
                    {"name": "b", "kind": null, "path": "/tree/core/b", "features": ["x"]},
                    {"name": "c", "kind": "dev", "features": []},
                    {"name": "d", "kind": "build", "features": []},
                ],
                "features": {"default": ["b/x"]},
            }],
        });
        let packages = parse_packages(&metadata).expect("complete");
        assert_eq!(packages[0].manifest, "core/a/Cargo.toml");
        let kinds: Vec<_> = packages[0].dependencies.iter().map(|d| (d.kind, d.local)).collect();
        assert_eq!(
            kinds,
            [(DependencyKind::Normal, true), (DependencyKind::Dev, false), (DependencyKind::Normal, false)]
        );
        assert_eq!(packages[0].dependencies[0].features, ["x"]);
        assert_eq!(packages[0].features["default"], ["b/x"]);
        metadata["packages"][0]["name"] = Value::Null;
        assert_eq!(parse_packages(&metadata), None);
    }

    #[test]
    fn the_root_is_found_from_inside_a_package_and_a_walk_sees_what_git_tracks() {
        let start = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
        let root = find_root(&start).expect("this package is in a workspace");
        let walked = walked_paths(&root).expect("readable");
        let own = start.strip_prefix(&root).expect("below the root").join("src/workspace.rs");
        assert!(walked.iter().any(|path| Path::new(path) == own));
        assert!(walked.iter().all(|path| !path.starts_with("target/") && !path.starts_with(".git/")));
    }
}
