//! No path that exists on one machine only: whoever reads the tree has another machine.

use crate::source::{is_word, line_of};
use crate::{Rule, TextFile, Violation};

/// Starts of such paths. Written in two halves, or this file would break its own rule.
const STARTS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp/bash_", "jobs")];

/// Looks at the whole text of any file.
pub fn check(file: &TextFile, found: &mut Vec<Violation>) {
    for start in STARTS {
        for (at, _) in file.text.match_indices(start) {
            // In `a/b/c` the `/b/` is the middle of some other path.
            let before = at.checked_sub(1).map(|index| file.text.as_bytes()[index]);
            if before.is_some_and(|byte| is_word(byte) || matches!(byte, b'.' | b'-' | b'}' | b')')) {
                continue;
            }
            found.push(Violation {
                rule: Rule::MachinePaths,
                file: file.path.clone(),
                line: Some(line_of(&file.text, at)),
                found: format!("the path `{start}` exists on one machine only"),
                advice: "write a path from the root of this tree".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Option<usize>> {
        let mut found = Vec::new();
        check(&TextFile::new("a.txt", text), &mut found);
        found.into_iter().map(|v| v.line).collect()
    }

    #[test]
    fn every_start_is_found_on_its_line() {
        for start in STARTS {
            assert_eq!(lines(&format!("first\nsee `{start}/x`\n")), [Some(2)], "{start}");
            assert_eq!(lines(start), [Some(1)], "{start}");
        }
    }

    #[test]
    fn the_middle_of_another_path_and_plain_temporary_paths_are_left_alone() {
        assert_eq!(lines(&format!("https://example.org{}a, /tmp/data", STARTS[0])), []);
        assert_eq!(lines(&format!("..{0}, $HOME}}{0}", STARTS[1])), []);
    }
}
