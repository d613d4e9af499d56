//! Dependencies point down.
//!
//! The architecture is a table: who may know whom. A package without a row is refused, so a new package is
//! placed on purpose. Packages below `tools/` are the tops of the graph and may use anything, except that
//! what ships must not contain the simulator, and the simulator must not contain the real machine.

use crate::{Dependency, DependencyKind, Package, Rule, TextFile, Violation, Workspace};

/// Which crates from outside the tree a package may use.
enum External {
    /// These and no others: every crate in the core is deterministic and `no_std`.
    Only(&'static [&'static str]),
    /// Any from the workspace's list.
    Free,
}
use External::{Free, Only};

/// One row of the table. Names are without the `kimberlite-` prefix.
struct Row {
    package: &'static str,
    uses: &'static [&'static str],
    tests_also: &'static [&'static str],
    external: External,
}

const fn row(
    package: &'static str,
    uses: &'static [&'static str],
    tests_also: &'static [&'static str],
    external: External,
) -> Row {
    Row { package, uses, tests_also, external }
}

/// Who may know whom. Tests may use external crates freely, as they do not ship.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    //  package    may use                                                                     its tests may also use        external crates
    row("types",   &[],                                                                        &[],                          Only(&["rand_chacha", "serde"])),
    row("probe",   &[],                                                                        &[],                          Only(&[])),
    row("crypto",  &["types"],                                                                 &[],                          Only(CIPHERS)),
    row("io",      &["types"],                                                                 &[],                          Only(&["serde"])),
    row("wire",    &["types", "probe", "crypto", "io"],                                        &[],                          Only(&["serde", "postcard"])),
    row("row",     &["types", "crypto"],                                                       &[],                          Only(&["serde", "postcard", "libm"])),
    row("store",   &["types", "probe", "crypto", "row"],                                       &["io", "io-sim"],            Only(&[])),
    row("kernel",  &["types", "probe", "crypto", "wire", "row", "store"],                      &[],                          Only(&["serde", "postcard"])),
    row("storage", &["types", "probe", "crypto", "io", "wire", "store"],                       &["io-sim"],                  Only(&["serde", "postcard"])),
    row("vsr",     &["types", "probe", "crypto", "io", "wire"],                                &["io-sim", "storage"],       Only(&["serde", "postcard"])),
    row("client",  &["types", "probe", "crypto", "io", "wire", "kernel"],                      &["io-sim", "runtime"],       Only(&["serde", "postcard"])),
    row("query",   &["types", "row", "store"],                                                 &[],                          Only(&["sqlparser", "libm", "md-5", "sha2", "regex-automata"])),
    row("runtime", &["types", "probe", "crypto", "io", "wire", "row", "query", "kernel", "storage", "vsr"], &["io-sim", "client"], Only(&["serde", "postcard"])),
    row("server",  &["types", "crypto", "io", "wire", "runtime"],                              &["io-sim", "client"],        Only(&[])),
    row("bundle",  &["types", "probe", "io", "wire"],                                          &[],                          Free),
    row("io-real", &["types", "io"],                                                           &["io-sim"],                  Free),
    row("io-sim",  &["types", "io"],                                                           &[],                          Free),
    row("sim",     &["types", "probe", "crypto", "io", "wire", "kernel", "storage", "vsr", "client",
                     "row", "store", "query", "runtime", "server", "bundle", "io-sim"],        &[],                          Free),
];

const CIPHERS: &[&str] =
    &["sha2", "blake3", "crc32fast", "ed25519-dalek", "aes-gcm", "chacha20poly1305", "zeroize", "serde"];

/// What must not be part of a package, however long the way there.
const NEVER_INSIDE: &[(&str, &[&str], &str)] = &[
    ("kmb", &["sim", "io-sim"], "what ships must not contain the simulator"),
    ("vopr", &["io-real"], "a simulated run must not reach the real machine"),
    ("sim", &["io-real"], "a simulated run must not reach the real machine"),
];

/// Holds the package graph against the table.
pub fn check(workspace: &Workspace, found: &mut Vec<Violation>) {
    for package in &workspace.packages {
        let at = Manifest::of(package, &workspace.texts);
        match TABLE.iter().find(|row| row.package == short(&package.name)) {
            Some(row) => check_row(package, row, &at, found),
            None if package.manifest.starts_with("tools/") => {}
            None => found.push(at.violation(
                None,
                format!("package `{}` has no row in the dependency table", package.name),
                "place it in tools/xtask/src/rules/dependencies.rs",
            )),
        }
        for (holder, banned, why) in NEVER_INSIDE {
            if *holder == short(&package.name) {
                check_inside(package, banned, why, &workspace.packages, &at, found);
            }
        }
    }
}

fn check_row(package: &Package, row: &Row, at: &Manifest<'_>, found: &mut Vec<Violation>) {
    for dependency in &package.dependencies {
        let name = short(&dependency.name);
        let dev = dependency.kind == DependencyKind::Dev;
        let allowed = if dependency.local {
            row.uses.contains(&name) || dev && row.tests_also.contains(&name)
        } else {
            match row.external {
                Free => true,
                Only(list) => dev || list.contains(&name),
            }
        };
        if !allowed {
            let needs = if dev { "tests of" } else { "package" };
            found.push(at.violation(
                Some(dependency),
                format!("{needs} `{}` may not depend on `{}`", package.name, dependency.name),
                "remove it, or change the table in tools/xtask/src/rules/dependencies.rs and say why",
            ));
        }
    }
}

/// Follows normal dependencies from `package` and reports the first way to each banned one.
fn check_inside(
    package: &Package,
    banned: &[&str],
    why: &str,
    all: &[Package],
    at: &Manifest<'_>,
    found: &mut Vec<Violation>,
) {
    let mut ways: Vec<Vec<&str>> = vec![vec![&package.name]];
    let mut next = 0;
    while next < ways.len() {
        let way = ways[next].clone();
        next += 1;
        let last = *way.last().expect("a way holds at least its start");
        let Some(here) = all.iter().find(|p| p.name == last) else { continue };
        for dependency in here.dependencies.iter().filter(|d| d.local && d.kind == DependencyKind::Normal) {
            if ways.iter().any(|seen| seen.last() == Some(&dependency.name.as_str())) {
                continue;
            }
            let mut longer = way.clone();
            longer.push(&dependency.name);
            if banned.contains(&short(&dependency.name)) {
                let first = package.dependencies.iter().find(|d| d.name == longer[1]);
                found.push(at.violation(
                    first,
                    format!("`{}` contains `{}`: {}", package.name, dependency.name, longer.join(" -> ")),
                    why,
                ));
            }
            ways.push(longer);
        }
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("kimberlite-").unwrap_or(name)
}

/// A package's manifest, to point at the line that asks for a dependency.
struct Manifest<'w> {
    path: &'w str,
    text: &'w str,
}

impl<'w> Manifest<'w> {
    fn of(package: &'w Package, texts: &'w [TextFile]) -> Self {
        let text = texts.iter().find(|file| file.path == package.manifest).map_or("", |file| &file.text);
        Self { path: &package.manifest, text }
    }

    fn violation(&self, dependency: Option<&Dependency>, found: String, advice: &str) -> Violation {
        let line = dependency.and_then(|d| {
            let asks = |line: &str| {
                line.trim_start().strip_prefix(&d.name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
            };
            self.text.lines().position(asks).map(|index| index + 1)
        });
        Violation {
            rule: Rule::Dependencies,
            file: self.path.to_owned(),
            line,
            found,
            advice: advice.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DependencyKind::{Dev, Normal};
    use std::collections::BTreeMap;

    fn package(manifest: &str, name: &str, dependencies: &[(&str, DependencyKind)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|&(name, kind)| Dependency {
                name: name.to_owned(),
                kind,
                local: name.starts_with("kimberlite-") || name == "bench",
                features: Vec::new(),
            })
            .collect();
        Package {
            name: name.to_owned(),
            manifest: manifest.to_owned(),
            dependencies,
            features: BTreeMap::new(),
        }
    }

    fn found(packages: Vec<Package>) -> Vec<Violation> {
        let texts = packages
            .iter()
            .map(|p| {
                let lines: Vec<_> =
                    p.dependencies.iter().map(|d| format!("{}.workspace = true", d.name)).collect();
                TextFile::new(p.manifest.clone(), format!("[dependencies]\n{}\n", lines.join("\n")))
            })
            .collect();
        let mut found = Vec::new();
        check(&Workspace { paths: Vec::new(), texts, packages }, &mut found);
        found
    }

    fn found_in_core(name: &str, dependencies: &[(&str, DependencyKind)]) -> Vec<Violation> {
        found(vec![package("core/x/Cargo.toml", name, dependencies)])
    }

    #[test]
    fn what_the_table_lists_passes() {
        let listed = [("kimberlite-types", Normal), ("serde", Normal), ("proptest", Dev)];
        assert_eq!(found_in_core("kimberlite-io", &listed), []);
    }

    #[test]
    fn a_dependency_that_points_up_is_found_on_its_line() {
        let up = found_in_core("kimberlite-vsr", &[("serde", Normal), ("kimberlite-storage", Normal)]);
        assert_eq!(up.len(), 1);
        assert_eq!(up[0].line, Some(3));
        assert!(up[0].found.contains("kimberlite-storage"));
    }

    #[test]
    fn what_tests_may_use_the_package_itself_may_not() {
        assert_eq!(found_in_core("kimberlite-storage", &[("kimberlite-io-sim", Dev)]), []);
        assert_eq!(found_in_core("kimberlite-storage", &[("kimberlite-io-sim", Normal)]).len(), 1);
        assert_eq!(found_in_core("kimberlite-types", &[("kimberlite-io-sim", Dev)]).len(), 1);
    }

    #[test]
    fn an_external_crate_outside_the_list_is_found_in_the_core_and_free_elsewhere() {
        assert_eq!(found_in_core("kimberlite-kernel", &[("libc", Normal)]).len(), 1);
        assert_eq!(found(vec![package("io-real/Cargo.toml", "kimberlite-io-real", &[("libc", Normal)])]), []);
    }

    #[test]
    fn a_package_without_a_row_is_found_unless_it_is_a_tool() {
        assert_eq!(found_in_core("kimberlite-new", &[]).len(), 1);
        assert_eq!(found(vec![package("tools/new/Cargo.toml", "new", &[("kimberlite-sim", Normal)])]), []);
    }

    #[test]
    fn the_simulator_is_found_inside_what_ships_even_behind_another_package() {
        let direct = package("tools/kmb/Cargo.toml", "kmb", &[("kimberlite-sim", Normal)]);
        assert_eq!(found(vec![direct]).len(), 1);

        let kmb = package("tools/kmb/Cargo.toml", "kmb", &[("bench", Normal)]);
        let bench = package("tools/bench/Cargo.toml", "bench", &[("kimberlite-io-sim", Normal)]);
        let behind = found(vec![kmb, bench]);
        assert_eq!(behind.len(), 1);
        assert!(behind[0].found.contains("kmb -> bench -> kimberlite-io-sim"), "{}", behind[0]);
        assert_eq!(behind[0].line, Some(2));

        let only_tests = package("tools/kmb/Cargo.toml", "kmb", &[("kimberlite-sim", Dev)]);
        assert_eq!(found(vec![only_tests]), []);
    }

    #[test]
    fn the_real_machine_is_found_inside_the_simulator() {
        let vopr = package("tools/vopr/Cargo.toml", "vopr", &[("kimberlite-io-real", Normal)]);
        assert_eq!(found(vec![vopr]).len(), 1);
        let sim = package("sim/Cargo.toml", "kimberlite-sim", &[("kimberlite-io-real", Normal)]);
        assert!(!found(vec![sim]).is_empty());
    }

    #[test]
    fn the_table_itself_has_no_way_back_up() {
        // Rows are written bottom first: a row may name only rows above it, save for the drivers' own order.
        for (index, row) in TABLE.iter().enumerate() {
            for used in row.uses {
                let at = TABLE.iter().position(|other| other.package == *used);
                assert!(at.is_some_and(|at| at < index), "{} uses {used}", row.package);
            }
        }
    }
}
