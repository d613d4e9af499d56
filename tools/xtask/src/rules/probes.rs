//! Marks stand where they are declared to, and nothing that ships asks for marks or mutants.
//!
//! The compiler refuses a mark that is not declared. What it cannot see is one that is declared and stands nowhere,
//! in two places, or in another file than the table says; and a feature that a package asks for on the way to
//! what ships, which cargo would then build in without a word.

use kimberlite_probe::mark::Mark;

use crate::source::line_of;
use crate::{DependencyKind, Package, Rule, TextFile, Violation, Workspace};

/// What no package that ships may be built with.
const FEATURES: [&str; 2] = ["marks", "mutants"];

/// The packages that ship.
const SHIPS: [&str; 1] = ["kmb"];

/// Where marks are declared.
const TABLE: &str = "core/probe/src/table.rs";

/// Holds the marks and features of a tree against the declared marks.
pub fn check(workspace: &Workspace, marks: &[Mark], found: &mut Vec<Violation>) {
    // A tree without the table is not the one that these marks are declared for.
    if workspace.paths.iter().any(|path| path == TABLE) {
        check_marks(&workspace.texts, marks, found);
    }
    check_features(&workspace.packages, found);
}

fn check_marks(texts: &[TextFile], marks: &[Mark], found: &mut Vec<Violation>) {
    for mark in marks {
        let places: Vec<(&str, usize)> = texts
            .iter()
            .flat_map(|file| uses_of(mark, file).map(move |line| (file.path.as_str(), line)))
            .collect();
        let advice = "a mark stands once, in the file that its row names; move the row or the mark";
        match places.as_slice() {
            [(file, _)] if *file == mark.file => {}
            [] => {
                let what = format!("mark `{}` is declared and stands nowhere", mark.name);
                found.push(violation(TABLE, None, what, advice));
            }
            [(file, line)] => {
                let what = format!("mark `{}` is declared to stand in {}", mark.name, mark.file);
                found.push(violation(file, Some(*line), what, advice));
            }
            [_, (file, line), ..] => {
                let what = format!("mark `{}` stands here a second time", mark.name);
                found.push(violation(file, Some(*line), what, advice));
            }
        }
    }
}

/// Lines on which a mark is used: its name between quotes, as the first argument of its macro.
fn uses_of(mark: &Mark, file: &TextFile) -> impl Iterator<Item = usize> {
    let quoted = format!("\"{}\"", mark.name);
    let call = format!("kimberlite_probe::{}!(", mark.kind.name());
    let is_source = file.path.starts_with("core/") && file.has_extension("rs");
    let text = if is_source { file.text.as_str() } else { "" };
    let uses = text.match_indices(quoted.as_str()).filter(|(at, _)| text[..*at].trim_end().ends_with(&call));
    uses.map(|(at, _)| line_of(text, at)).collect::<Vec<_>>().into_iter()
}

/// Follows what ships down to everything it is built from, and looks at the features asked for on the way.
fn check_features(packages: &[Package], found: &mut Vec<Violation>) {
    for ships in SHIPS {
        let mut inside: Vec<&Package> = packages.iter().filter(|package| package.name == ships).collect();
        let mut next = 0;
        while let Some(&package) = inside.get(next) {
            next += 1;
            if let Some(way) = arms(package, "default", packages, 0) {
                let what =
                    format!("`{ships}` contains `{}`, whose default features ask for {way}", package.name);
                found.push(violation(&package.manifest, None, what, ADVICE));
            }
            let normal = package.dependencies.iter().filter(|d| d.local && d.kind == DependencyKind::Normal);
            for dependency in normal {
                let Some(target) = packages.iter().find(|other| other.name == dependency.name) else {
                    continue;
                };
                let armed = dependency.features.iter().find_map(|feature| arms(target, feature, packages, 0));
                if let Some(way) = armed {
                    let what = format!("`{ships}` is built with {way}, which `{}` asks for", package.name);
                    found.push(violation(&package.manifest, None, what, ADVICE));
                }
                if !inside.iter().any(|seen| seen.name == target.name) {
                    inside.push(target);
                }
            }
        }
    }
}

const ADVICE: &str = "marks and mutants are for the simulator: take the feature away";

/// Features that ask for features ask at most so deep.
const DEPTH_MAX: usize = 16;

/// Whether a feature of a package asks for one of [`FEATURES`], by itself or by what it stands for: which.
fn arms(package: &Package, feature: &str, packages: &[Package], depth: usize) -> Option<String> {
    if FEATURES.contains(&feature) {
        return Some(format!("`{}/{feature}`", package.name));
    }
    if depth == DEPTH_MAX {
        return None;
    }
    package.features.get(feature)?.iter().find_map(|asks| match asks.split_once('/') {
        Some((name, feature)) => {
            let name = name.trim_end_matches('?');
            let target = packages.iter().find(|other| other.name == name)?;
            arms(target, feature, packages, depth + 1)
        }
        None => arms(package, asks, packages, depth + 1),
    })
}

fn violation(file: &str, line: Option<usize>, what: String, advice: &str) -> Violation {
    Violation { rule: Rule::Probes, file: file.to_owned(), line, found: what, advice: advice.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dependency;
    use kimberlite_probe::mark::Kind;

    const MARK: Mark =
        Mark { name: "a.b", kind: Kind::Reachable, rare: false, file: "core/a/src/lib.rs", meaning: "m" };
    const USE: &str = "fn f() {\n    kimberlite_probe::reachable!(\"a.b\");\n}\n";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let texts: Vec<TextFile> = files.iter().map(|&(path, text)| TextFile::new(path, text)).collect();
        let mut found = Vec::new();
        check_marks(&texts, &[MARK], &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_mark_that_stands_once_where_it_is_declared_passes_even_over_two_lines() {
        assert!(found(&[("core/a/src/lib.rs", USE)]).is_empty());
        assert!(found(&[("core/a/src/lib.rs", "kimberlite_probe::reachable!(\n    \"a.b\"\n)")]).is_empty());
    }

    #[test]
    fn a_mark_that_stands_nowhere_elsewhere_or_twice_is_found() {
        assert!(found(&[("core/a/src/lib.rs", "let name = \"a.b\";")])[0].contains("stands nowhere"));
        assert!(found(&[("sim/src/lib.rs", USE)])[0].contains("stands nowhere"));
        let elsewhere = found(&[("core/a/src/other.rs", USE)]);
        assert!(elsewhere[0].contains("core/a/src/other.rs:2"), "{elsewhere:?}");
        assert!(found(&[("core/a/src/lib.rs", USE), ("core/b/src/lib.rs", USE)])[0].contains("second time"));
    }

    fn package(
        name: &str,
        features: &[(&str, &[&str])],
        asks: &[(&str, &[&str], DependencyKind)],
    ) -> Package {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        Package {
            name: name.to_owned(),
            manifest: format!("{name}/Cargo.toml"),
            dependencies: asks
                .iter()
                .map(|(name, features, kind)| Dependency {
                    name: (*name).to_owned(),
                    kind: *kind,
                    local: true,
                    features: list(features),
                })
                .collect(),
            features: features.iter().map(|(name, asks)| ((*name).to_owned(), list(asks))).collect(),
        }
    }

    fn armed(packages: &[Package]) -> Vec<String> {
        let mut found = Vec::new();
        check_features(packages, &mut found);
        found.into_iter().map(|violation| violation.found).collect()
    }

    #[test]
    fn a_feature_that_arms_what_ships_is_found_however_it_gets_there() {
        use DependencyKind::{Dev, Normal};
        let probe = package("probe", &[("marks", &[]), ("mutants", &[])], &[]);
        let vsr = package("vsr", &[("testing", &["probe/marks"])], &[("probe", &[], Normal)]);
        let plain = package("kmb", &[], &[("vsr", &[], Normal), ("probe", &["marks"], Dev)]);
        assert!(armed(&[probe.clone(), vsr.clone(), plain]).is_empty());

        let direct = package("kmb", &[], &[("probe", &["mutants"], Normal)]);
        assert_eq!(
            armed(&[probe.clone(), direct]),
            ["`kmb` is built with `probe/mutants`, which `kmb` asks for"]
        );

        let forwarded = package("kmb", &[], &[("vsr", &["testing"], Normal)]);
        assert!(armed(&[probe.clone(), vsr, forwarded])[0].contains("`probe/marks`"));

        let defaults = package("vsr", &[("default", &["probe?/marks"])], &[("probe", &[], Normal)]);
        let kmb = package("kmb", &[], &[("vsr", &[], Normal)]);
        assert!(armed(&[probe, defaults, kmb])[0].contains("default features"));
    }

    #[test]
    fn the_simulator_asks_for_marks_and_does_not_ship() {
        let probe = package("probe", &[("marks", &[])], &[]);
        let sim = package("sim", &[], &[("probe", &["marks"], DependencyKind::Normal)]);
        assert!(armed(&[probe, sim]).is_empty());
    }
}
