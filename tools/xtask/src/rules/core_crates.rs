//! Crates below `core/` are `no_std` and forbid unsafe code; `std` appears there in tests alone.
//!
//! A machine that cannot name `std` cannot reach a clock, a file or a thread, so this is the rule that makes
//! a simulated node and a shipped node the same code.

use std::ops::Range;

use crate::source::{Attribute, attributes, find_words, line_of, past_closing, squeezed};
use crate::{Rule, Source, TextFile, Violation};

/// Accepted ways to leave `std` out, without white space.
const NO_STD: [&str; 2] = ["no_std", "cfg_attr(not(test),no_std)"];

/// The one crate that may hold `std` behind features: what it counts and switches belongs to a simulated world,
/// and nothing that ships asks for those features (`dependencies` checks it).
const PROBE: &str = "probe";

/// How that crate leaves `std` out.
const PROBE_NO_STD: &str = "cfg_attr(not(any(test,feature=,feature=)),no_std)";

/// Looks at every package directly below `core/`.
pub fn check(texts: &[TextFile], found: &mut Vec<Violation>) {
    let packages = texts.iter().filter_map(|file| {
        let name = file.path.strip_prefix("core/")?.strip_suffix("/Cargo.toml")?;
        (!name.contains('/')).then_some(name)
    });
    for name in packages {
        let source = format!("core/{name}/src/");
        let lib = format!("{source}lib.rs");
        match texts.iter().find(|file| file.path == lib) {
            Some(file) => check_lib(name, file, found),
            None => found.push(violation(&lib, None, "no such file", "a core package is a library")),
        }
        if name == PROBE {
            continue;
        }
        let files: Vec<(&TextFile, Source)> = texts
            .iter()
            .filter(|file| file.path.starts_with(&source) && file.has_extension("rs"))
            .map(|file| (file, Source::split(&file.text)))
            .collect();
        check_std(&files, found);
    }
}

fn check_lib(package: &str, file: &TextFile, found: &mut Vec<Violation>) {
    let source = Source::split(&file.text);
    let inner: Vec<String> =
        attributes(&source.code).iter().filter(|a| a.inner).map(|a| squeezed(a.body)).collect();
    let accepted =
        |body: &str| NO_STD.contains(&body) || package == PROBE && without_strings(body) == PROBE_NO_STD;
    if !inner.iter().any(|body| accepted(body)) {
        found.push(violation(&file.path, None, "the crate is not `no_std`", "add `#![no_std]`"));
    }
    if !inner.iter().any(|body| body == "forbid(unsafe_code)") {
        let advice = "add `#![forbid(unsafe_code)]`";
        found.push(violation(&file.path, None, "the crate does not forbid unsafe code", advice));
    }
}

/// An attribute without what stands between quotes.
fn without_strings(body: &str) -> String {
    body.split('"').step_by(2).collect()
}

/// Finds `std` in the files of one crate, outside what is compiled for tests alone.
fn check_std(files: &[(&TextFile, Source)], found: &mut Vec<Violation>) {
    let tests: Vec<String> =
        files.iter().flat_map(|(file, source)| test_modules(&file.path, &source.code)).collect();
    for (file, source) in files {
        let stem = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        let test_only = |module: &String| {
            stem.strip_prefix(module.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if tests.iter().any(test_only) {
            continue;
        }
        let regions = test_regions(&source.code);
        for at in find_words(&source.code, "std") {
            let path = source.code[at + "std".len()..].trim_start().starts_with("::");
            let linked = source.code[..at].trim_end().ends_with("extern crate");
            if (path || linked) && !regions.iter().any(|region| region.contains(&at)) {
                let line = line_of(&source.code, at);
                let advice = "use `core` or `alloc`; `std` is for items under `#[cfg(test)]`";
                found.push(violation(&file.path, Some(line), "`std` in a core crate", advice));
            }
        }
    }
}

fn is_test_only(attribute: &Attribute<'_>) -> bool {
    let body = squeezed(attribute.body);
    body == "cfg(test)" || body.starts_with("cfg(all(test,")
}

/// What each `#[cfg(test)]` covers: from the attribute to the end of its item.
fn test_regions(code: &str) -> Vec<Range<usize>> {
    attributes(code)
        .iter()
        .filter(|attribute| is_test_only(attribute))
        .map(|attribute| {
            if attribute.inner {
                return 0..code.len();
            }
            // An item ends at its semicolon or with its braces; other attributes may stand in between.
            let mut at = attribute.end;
            while let Some(step) = code[at..].find([';', '{', '(', '[']) {
                at += step;
                match code.as_bytes()[at] {
                    b';' => return attribute.start..at + 1,
                    b'{' => return attribute.start..past_closing(code, at),
                    _ => at = past_closing(code, at),
                }
            }
            attribute.start..code.len()
        })
        .collect()
}

/// The files (without `.rs`) or folders that hold the modules declared as `#[cfg(test)] mod name;` in `path`.
fn test_modules(path: &str, code: &str) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let base = match name {
        "lib.rs" | "mod.rs" => folder.to_owned(),
        _ => path.strip_suffix(".rs").unwrap_or(path).to_owned(),
    };
    test_regions(code)
        .into_iter()
        .filter_map(|region| {
            let item = code[region].trim_end().strip_suffix(';')?;
            let mut words = item.split_whitespace().rev();
            let name = words.next()?;
            (words.next()? == "mod").then(|| format!("{base}/{name}"))
        })
        .collect()
}

fn violation(file: &str, line: Option<usize>, what: &str, advice: &str) -> Violation {
    Violation {
        rule: Rule::CoreCrates,
        file: file.to_owned(),
        line,
        found: what.to_owned(),
        advice: advice.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "#![no_std]\n#![forbid(unsafe_code)]\n";

    fn found(files: &[(&str, &str)]) -> Vec<Violation> {
        let mut texts = vec![TextFile::new("core/x/Cargo.toml", "")];
        texts.extend(files.iter().map(|&(path, text)| TextFile::new(format!("core/x/{path}"), text)));
        let mut found = Vec::new();
        check(&texts, &mut found);
        found
    }

    fn lines(files: &[(&str, &str)]) -> Vec<Option<usize>> {
        found(files).into_iter().map(|v| v.line).collect()
    }

    #[test]
    fn a_crate_with_both_attributes_passes() {
        assert_eq!(found(&[("src/lib.rs", HEAD)]), []);
        let tested = "#![cfg_attr(not(test), no_std)]\n#![forbid(unsafe_code)]\n";
        assert_eq!(found(&[("src/lib.rs", tested)]), []);
    }

    #[test]
    fn a_missing_attribute_a_commented_one_and_a_missing_library_are_found() {
        assert_eq!(found(&[("src/lib.rs", "#![no_std]\n")]).len(), 1);
        assert_eq!(found(&[("src/lib.rs", "// #![no_std]\n#![forbid(unsafe_code)]\n")]).len(), 1);
        let weaker = "#![cfg_attr(not(feature = \"std\"), no_std)]\n#![deny(unsafe_code)]\n";
        assert_eq!(found(&[("src/lib.rs", weaker)]).len(), 2);
        assert_eq!(found(&[("src/main.rs", "")]).len(), 1);
    }

    #[test]
    fn std_outside_tests_is_found_on_its_line() {
        let linked = format!("{HEAD}extern crate std;\n");
        assert_eq!(lines(&[("src/lib.rs", &linked)]), [Some(3)]);
        assert_eq!(lines(&[("src/lib.rs", HEAD), ("src/a.rs", "\nuse std::fmt;\n")]), [Some(2)]);
        let after = format!("{HEAD}#[cfg(test)]\nmod tests {{ use std::fmt; }}\nuse ::std::fmt;\n");
        assert_eq!(lines(&[("src/lib.rs", &after)]), [Some(5)]);
    }

    #[test]
    fn std_in_tests_comments_and_strings_is_left_alone() {
        let tested = format!(
            "{HEAD}// std::fmt\nconst A: &str = \"std::fmt\";\n#[cfg(test)]\n#[macro_use]\nextern crate std;\n\
             #[cfg(test)]\nmod tests {{\n    extern crate std;\n    use std::vec;\n}}\n"
        );
        assert_eq!(found(&[("src/lib.rs", &tested)]), []);
        assert_eq!(found(&[("src/lib.rs", HEAD), ("tests/story.rs", "use std::fmt;")]), []);
    }

    #[test]
    fn a_module_declared_for_tests_alone_may_use_std_in_its_own_file_and_below() {
        let lib = format!("{HEAD}mod a;\n#[cfg(test)]\nmod tests;\n");
        let a = "#[cfg(test)]\nmod stories;\nmod stories_told;\n";
        let uses = "use std::fmt;\n";
        let files = [
            ("src/lib.rs", lib.as_str()),
            ("src/tests.rs", uses),
            ("src/tests/deep.rs", uses),
            ("src/a.rs", a),
            ("src/a/stories.rs", uses),
        ];
        assert_eq!(found(&files), []);
        let mut more = files.to_vec();
        more.push(("src/a/stories_told.rs", uses));
        assert_eq!(lines(&more), [Some(1)]);
    }
}
