//! Every package takes the workspace's lints, so that none is quietly laxer than the rest.

use crate::{Rule, Violation, Workspace};

/// Looks at the manifest of every workspace package.
pub fn check(workspace: &Workspace, found: &mut Vec<Violation>) {
    for package in &workspace.packages {
        let text = workspace.texts.iter().find(|file| file.path == package.manifest);
        if !text.is_some_and(|file| inherits(&file.text)) {
            found.push(Violation {
                rule: Rule::Lints,
                file: package.manifest.clone(),
                line: None,
                found: format!("package `{}` does not take the workspace's lints", package.name),
                advice: "add `[lints]` with `workspace = true`".to_owned(),
            });
        }
    }
}

fn inherits(manifest: &str) -> bool {
    let mut section = "";
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        let line: String = line.split_whitespace().collect();
        section == "[lints]" && line.starts_with("workspace=true")
            || section.is_empty() && line.starts_with("lints.workspace=true")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Package, TextFile};

    fn check_manifest(text: &str) -> usize {
        let manifest = "core/x/Cargo.toml".to_owned();
        let mut found = Vec::new();
        check(
            &Workspace {
                paths: Vec::new(),
                texts: vec![TextFile::new(manifest.clone(), text)],
                packages: vec![Package {
                    name: "x".to_owned(),
                    manifest,
                    dependencies: Vec::new(),
                    features: BTreeMap::new(),
                }],
            },
            &mut found,
        );
        found.len()
    }

    #[test]
    fn a_manifest_that_inherits_passes() {
        assert_eq!(check_manifest("[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n"), 0);
    }

    #[test]
    fn a_manifest_without_the_section_or_with_its_own_lints_is_found() {
        assert_eq!(check_manifest("[package]\nname = \"x\"\n"), 1);
        assert_eq!(check_manifest("[lints]\nworkspace = false\n"), 1);
        assert_eq!(check_manifest("[dependencies.serde]\nworkspace = true\n"), 1);
        assert_eq!(check_manifest("[lints.rust]\nworkspace = true\n"), 1);
    }
}
