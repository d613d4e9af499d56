//! Long files are reported, not refused: past this length, ask why.

use crate::TextFile;

/// Lines a Rust file may have before it is reported.
pub const LINES_MAX: usize = 800;

/// A Rust file longer than [`LINES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongFile {
    /// Path from the workspace root.
    pub file: String,
    /// How many lines it has.
    pub lines: usize,
}

/// The long Rust files, longest first.
pub fn report(texts: &[TextFile]) -> Vec<LongFile> {
    let mut long: Vec<LongFile> = texts
        .iter()
        .filter(|file| file.has_extension("rs"))
        .map(|file| LongFile { file: file.path.clone(), lines: file.text.lines().count() })
        .filter(|file| file.lines > LINES_MAX)
        .collect();
    long.sort_by(|a, b| b.lines.cmp(&a.lines).then_with(|| a.file.cmp(&b.file)));
    long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_reported_from_one_line_past_the_limit_and_the_longest_comes_first() {
        let file = |name: &str, lines| TextFile::new(name, "\n".repeat(lines));
        let texts = [file("a.rs", 800), file("b.rs", 801), file("c.rs", 900), file("d.lock", 2000)];
        let names: Vec<_> = report(&texts).into_iter().map(|long| (long.file, long.lines)).collect();
        assert_eq!(names, [("c.rs".to_owned(), 900), ("b.rs".to_owned(), 801)]);
    }
}
