//! Unsafe code stands in `io-real` alone, and each block there carries the argument why it is sound.

use crate::source::{find_words, line_of};
use crate::{Rule, Source, TextFile, Violation};

/// The one folder where the keyword may stand.
const HOME: &str = "io-real/";

/// How far above a block its argument may end.
const LINES_ABOVE_MAX: usize = 3;

/// What may follow the keyword without an argument: these state a contract and perform nothing.
const CONTRACTS: [&str; 3] = ["fn", "extern", "trait"];

/// Looks at code, not at comments or strings.
pub fn check(file: &TextFile, found: &mut Vec<Violation>) {
    if !file.has_extension("rs") {
        return;
    }
    let source = Source::split(&file.text);
    let comments: Vec<&str> = source.comments.lines().collect();
    for at in find_words(&source.code, "unsafe") {
        let line = line_of(&source.code, at);
        let rest = source.code[at + "unsafe".len()..].trim_start();
        let contract = CONTRACTS.iter().any(|word| find_words(rest, word).next() == Some(0));
        let (what, advice) = if !file.path.starts_with(HOME) {
            ("`unsafe` outside io-real", "move it behind a safe interface of io-real")
        } else if !contract && !argued(&comments, line) {
            ("`unsafe` without its argument", "write a `// SAFETY:` comment directly above")
        } else {
            continue;
        };
        found.push(Violation {
            rule: Rule::UnsafeCode,
            file: file.path.clone(),
            line: Some(line),
            found: what.to_owned(),
            advice: advice.to_owned(),
        });
    }
}

/// Whether an argument stands on `line` (from 1) or in a run of comment lines that ends close above it.
fn argued(comments: &[&str], line: usize) -> bool {
    let at = line - 1;
    let mut distance = 0;
    for index in (0..=at).rev() {
        let comment = comments.get(index).is_some_and(|text| !text.trim().is_empty());
        if comment && comments[index].contains("SAFETY:") {
            return true;
        }
        // A long argument counts from its last line, so lines inside a run of comments are not counted.
        if !comment {
            if distance == LINES_ABOVE_MAX {
                return false;
            }
            distance += 1;
        }
    }
    false
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
    fn the_keyword_outside_its_home_is_found_even_with_an_argument() {
        let text = "fn a() {\n    // SAFETY: no.\n    unsafe { b() }\n}";
        assert_eq!(lines("core/x/src/lib.rs", text), [Some(3)]);
        assert_eq!(lines("tools/x/src/main.rs", "unsafe fn a() {}"), [Some(1)]);
    }

    #[test]
    fn lints_comments_and_strings_do_not_count_as_the_keyword() {
        let text = "#![forbid(unsafe_code)]\n// unsafe\nconst A: &str = \"unsafe { }\";\n";
        assert_eq!(lines("core/x/src/lib.rs", text), []);
    }

    #[test]
    fn a_block_at_home_needs_its_argument_close_above() {
        let near =
            "// SAFETY: the buffer outlives the call,\n// which takes it.\nlet x =\n    unsafe { a() };";
        assert_eq!(lines("io-real/src/a.rs", near), []);
        assert_eq!(lines("io-real/src/a.rs", "let x = unsafe { a() };"), [Some(1)]);
        let far = "// SAFETY: it was true.\nb();\nb();\nb();\nlet x = unsafe { a() };";
        assert_eq!(lines("io-real/src/a.rs", far), [Some(5)]);
        let quoted = "let y = \"SAFETY: no\";\nlet x = unsafe { a() };";
        assert_eq!(lines("io-real/src/a.rs", quoted), [Some(2)]);
    }

    #[test]
    fn a_long_argument_counts_from_its_last_line() {
        let long = format!("// SAFETY: first.\n{}let x = unsafe {{ a() }};", "// More.\n".repeat(9));
        assert_eq!(lines("io-real/src/a.rs", &long), []);
    }

    #[test]
    fn a_function_signature_states_a_contract_and_an_impl_makes_a_claim() {
        assert_eq!(lines("io-real/src/a.rs", "unsafe fn a() {}\nunsafe extern \"C\" { fn b(); }"), []);
        assert_eq!(lines("io-real/src/a.rs", "unsafe impl Send for A {}"), [Some(1)]);
    }
}
