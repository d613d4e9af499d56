//! No word that marks work left undone: finish it, or describe the limit as a limit.

use crate::source::{find_words, line_of};
use crate::{Rule, TextFile, Violation};

/// The words, each with what to do. Written in two halves, or this file would break its own rule.
const WORDS: &[(&str, &str)] = &[
    (concat!("to", "do!"), "write the code"),
    (concat!("unimple", "mented!"), "write the code, or make the case impossible by type"),
    (concat!("db", "g!"), "remove the print"),
    (concat!("FIX", "ME"), "fix it"),
    (concat!("XX", "X"), "fix it, or explain it in a sentence"),
    (concat!("HA", "CK"), "do it properly, or explain it in a sentence"),
    (concat!("#[", "ignore"), "a test that does not run is no test: make it run or remove it"),
];

/// File name endings that are read.
const EXTENSIONS: [&str; 4] = ["rs", "md", "toml", "sh"];

/// Looks at code, comments and strings alike.
pub fn check(file: &TextFile, found: &mut Vec<Violation>) {
    if !EXTENSIONS.iter().any(|extension| file.has_extension(extension)) {
        return;
    }
    for (word, advice) in WORDS {
        for at in find_words(&file.text, word) {
            found.push(Violation {
                rule: Rule::Debt,
                file: file.path.clone(),
                line: Some(line_of(&file.text, at)),
                found: format!("debt word `{word}`"),
                advice: (*advice).to_owned(),
            });
        }
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
    fn every_word_is_found_on_its_line() {
        for (word, _) in WORDS {
            assert_eq!(lines("a.rs", &format!("fn a() {{}}\n    // {word}\n")), [Some(2)], "{word}");
            assert_eq!(lines("a.md", &format!("{word}: later")), [Some(1)], "{word}");
        }
        let ignored = format!("{} = \"slow\"]\nfn a() {{}}", WORDS[6].0);
        assert_eq!(lines("a.rs", &ignored), [Some(1)]);
    }

    #[test]
    fn longer_words_and_other_kinds_of_file_are_left_alone() {
        let template = format!("mktemp a.{0}{0}", WORDS[4].0);
        assert_eq!(lines("a.sh", &template), []);
        assert_eq!(lines("a.csv", WORDS[3].0), []);
    }
}
