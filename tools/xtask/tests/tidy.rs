//! The tree keeps its own rules.

use std::path::PathBuf;

use xtask::{Workspace, find_root, tidy};

#[test]
fn this_tree_is_tidy() {
    // Asked at run time: a build folder shared by two checkouts must not make one test the other.
    let start = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let root = find_root(&start).expect("this package is in a workspace");
    let workspace = Workspace::load(&root).expect("the tree is readable");
    // An empty tree would be tidy too; these say that the rules had something to look at.
    assert!(workspace.paths.iter().any(|path| path == "Cargo.toml"));
    assert!(workspace.packages.iter().any(|package| package.name == "xtask"));
    let found: Vec<String> = tidy(&workspace).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}
