//! Tells the crate what it is built from, for the identity in bundles: the commit, the sources, the compiler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What decides how a node behaves: the folders whose sources are hashed.
const SOURCES: [&str; 4] = ["core", "io-real", "io-sim", "sim"];

fn main() {
    let manifest =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo tells where the package is"));
    let root = manifest.parent().and_then(Path::parent).expect("the package lies in the workspace");
    println!("cargo:rerun-if-env-changed=KIMBERLITE_COMMIT");
    for folder in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
    }
    println!("cargo:rustc-env=KIMBERLITE_RUSTC={}", compiler());
    println!("cargo:rustc-env=KIMBERLITE_BUILD_COMMIT={}", commit(root));
    println!("cargo:rustc-env=KIMBERLITE_SOURCES={}", sources(root));
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

fn compiler() -> String {
    let compiler = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    said(Command::new(compiler).arg("--version")).unwrap_or_else(|| "unknown".to_owned())
}

/// The commit; with `-dirty` when tracked sources differ from it; `unknown` where nobody can tell.
fn commit(root: &Path) -> String {
    if let Ok(told) = env::var("KIMBERLITE_COMMIT") {
        return told;
    }
    let git = |arguments: &[&str]| said(Command::new("git").arg("-C").arg(root).args(arguments));
    // An archive that was unpacked inside a repository of something else is not at that one's commit.
    let top = git(&["rev-parse", "--show-toplevel"]).and_then(|top| fs::canonicalize(top).ok());
    if top.is_none() || top != fs::canonicalize(root).ok() {
        return "unknown".to_owned();
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let name = git(&["symbolic-ref", "-q", "HEAD"]);
    for file in ["HEAD"].into_iter().chain(name.as_deref()) {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            let path = root.join(path);
            // A branch that lives in the packed file has no file of its own: watching it would run this every time.
            if path.exists() {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
    }
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--", "Cargo.toml", "Cargo.lock"];
    status.extend(SOURCES);
    match git(&status).as_deref() {
        Some("") => commit,
        _ => format!("{commit}-dirty"),
    }
}

/// A hash of all sources: two builds of one commit may differ, and two commits may be one build.
fn sources(root: &Path) -> String {
    let mut files = Vec::new();
    for folder in SOURCES {
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let Ok(content) = fs::read(&file) else { continue };
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        for part in [name.as_bytes(), &content] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            // Tests do not change what is built.
            if path.file_name().is_some_and(|name| name != "tests" && name != "target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "toml") {
            files.push(path);
        }
    }
}
