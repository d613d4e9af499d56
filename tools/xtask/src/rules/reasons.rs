//! A relaxed lint says why: in Rust with `reason = ".."`, in a manifest with a comment on the line above.

use crate::source::{attributes, find_words, line_of, past_closing};
use crate::{Rule, Source, TextFile, Violation};

/// The levels that relax a lint.
const LEVELS: [&str; 2] = ["allow", "expect"];

/// Looks at attributes in `.rs` files and at lint tables in `Cargo.toml`.
pub fn check(file: &TextFile, found: &mut Vec<Violation>) {
    if file.has_extension("rs") {
        check_rust(file, found);
    } else if file.path == "Cargo.toml" || file.path.ends_with("/Cargo.toml") {
        check_manifest(file, found);
    }
}

fn check_rust(file: &TextFile, found: &mut Vec<Violation>) {
    let source = Source::split(&file.text);
    for attribute in attributes(&source.code) {
        for level in LEVELS {
            for at in find_words(attribute.body, level) {
                let open = at + level.len();
                if !attribute.body[open..].starts_with('(') {
                    continue;
                }
                let list = &attribute.body[open..past_closing(attribute.body, open)];
                let reasoned = find_words(list, "reason")
                    .any(|at| list[at + "reason".len()..].trim_start().starts_with('='));
                if !reasoned {
                    found.push(violation(file, line_of(&source.code, attribute.start), level));
                }
            }
        }
    }
}

fn check_manifest(file: &TextFile, found: &mut Vec<Violation>) {
    let mut in_lints = false;
    let mut above = "";
    for (index, line) in file.text.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            in_lints = line.starts_with("[lints") || line.starts_with("[workspace.lints");
        }
        let relaxed = |level: &&str| !line.starts_with('#') && line.contains(&format!("\"{level}\""));
        if in_lints
            && !above.starts_with('#')
            && let Some(level) = LEVELS.iter().find(|level| relaxed(level))
        {
            found.push(violation(file, index + 1, level));
        }
        above = line;
    }
}

fn violation(file: &TextFile, line: usize, level: &str) -> Violation {
    let advice = if file.has_extension("rs") {
        "add `reason = \"..\"`"
    } else {
        "say why in a comment on the line above"
    };
    Violation {
        rule: Rule::Reasons,
        file: file.path.clone(),
        line: Some(line),
        found: format!("`{level}` without a reason"),
        advice: advice.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<Option<usize>> {
        let mut found = Vec::new();
        check(&TextFile::new(path, text), &mut found);
        found.into_iter().map(|v| v.line).collect()
    }

    #[test]
    fn an_attribute_without_a_reason_is_found_on_its_line() {
        assert_eq!(lines("a.rs", "\n#[allow(dead_code)]\nfn a() {}"), [Some(2)]);
        assert_eq!(lines("a.rs", "#![expect(clippy::pedantic)]"), [Some(1)]);
        assert_eq!(lines("a.rs", "#[cfg_attr(test, allow(dead_code))]\nfn a() {}"), [Some(1)]);
        // A reason in a comment is for people; the attribute is for the compiler too.
        assert_eq!(lines("a.rs", "#[allow(dead_code)] // reason = \"later\""), [Some(1)]);
    }

    #[test]
    fn an_attribute_with_a_reason_and_calls_of_that_name_pass() {
        let reasoned = "#[expect(\n    clippy::too_many_lines,\n    reason = \"one table\"\n)]\nfn a() {}";
        assert_eq!(lines("a.rs", reasoned), []);
        assert_eq!(lines("a.rs", "x.expect(\"set\"); // #[allow(dead_code)]"), []);
        assert_eq!(lines("a.rs", "#[should_panic(expected = \"x\")]"), []);
    }

    #[test]
    fn a_manifest_lint_without_a_comment_above_is_found() {
        let text = "[workspace.lints.clippy]\n# Names repeat on purpose.\na = \"allow\"\nb = \"allow\"\n\
                    c = { level = \"allow\", priority = 1 }\nd = \"warn\"\n[features]\ne = [\"allow\"]\n";
        assert_eq!(lines("Cargo.toml", text), [Some(4), Some(5)]);
        assert_eq!(lines("core/x/Cargo.toml", "[lints.rust]\na = \"allow\"\n"), [Some(2)]);
    }
}
