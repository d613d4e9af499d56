//! Rust text split into what the compiler reads and what people read.
//!
//! Rules about code must not be fooled by a word in a comment or a string, and the other way round. A full
//! parser would be one more dependency; telling comments, strings and character literals from the rest
//! takes one pass.

/// A Rust file seen twice: `code` has comments and literals blanked out, `comments` has all else blanked
/// out. Both keep every byte's place, so a line or an offset means the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The code, with comments and the insides of literals as spaces.
    pub code: String,
    /// The comments (doc comments included), with the code as spaces.
    pub comments: String,
}

/// What the bytes at the cursor belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Splits `text`. Total: text that is no Rust gives some split, never a panic.
    pub fn split(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut code = Vec::with_capacity(bytes.len());
        let mut comments = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let (part, len) = next_part(bytes, at);
            let end = bytes.len().min(at + len);
            for &byte in &bytes[at..end] {
                let blank = if byte == b'\n' { b'\n' } else { b' ' };
                code.push(if part == Part::Code { byte } else { blank });
                comments.push(if part == Part::Comment { byte } else { blank });
            }
            at = end;
        }
        Self {
            code: String::from_utf8_lossy(&code).into_owned(),
            comments: String::from_utf8_lossy(&comments).into_owned(),
        }
    }
}

/// The part that starts at `at` and how many bytes it takes (at least one).
fn next_part(bytes: &[u8], at: usize) -> (Part, usize) {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        let len = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
        return (Part::Comment, len);
    }
    if rest.starts_with(b"/*") {
        return (Part::Comment, block_comment_len(rest));
    }
    if rest[0] == b'"' {
        return (Part::Literal, quoted_len(rest, b'"'));
    }
    if rest[0] == b'\'' {
        return match char_literal_len(rest) {
            Some(len) => (Part::Literal, len),
            None => (Part::Code, 1),
        };
    }
    let starts_word = at == 0 || !is_word(bytes[at - 1]);
    if starts_word && let Some(len) = raw_string_len(rest) {
        return (Part::Literal, len);
    }
    (Part::Code, 1)
}

/// Length of a block comment; they nest.
fn block_comment_len(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of a literal that starts with `quote` and ends at the next one that no backslash escapes.
fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a character literal, or `None` where the quote starts a lifetime.
fn char_literal_len(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted_len(rest, b'\''));
    }
    // One character, of one to four bytes, then the closing quote.
    let first = *rest.get(1)?;
    let width = match first {
        0..0x80 => 1,
        0x80..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0.. => 4,
    };
    (first != b'\'' && rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

/// Length of a raw string (`r".."`, `br#".."#`, ..), or `None` where none starts.
fn raw_string_len(rest: &[u8]) -> Option<usize> {
    let prefix = match rest {
        [b'r', ..] => 1,
        [b'b' | b'c', b'r', ..] => 2,
        _ => return None,
    };
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let mut at = open + 1;
    while at < rest.len() {
        let after = at + 1;
        if rest[at] == b'"' && rest[after..].iter().take(hashes).filter(|&&b| b == b'#').count() == hashes {
            return Some(after + hashes);
        }
        at = after;
    }
    Some(rest.len())
}

/// Whether `byte` may stand inside an identifier.
pub(crate) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Every offset at which `needle` stands in `text` without being part of a longer word. An end of the needle
/// that is no word character needs no boundary: `x(` is found in `x(y`.
pub(crate) fn find_words<'t>(text: &'t str, needle: &'t str) -> impl Iterator<Item = usize> + 't {
    let word_first = needle.bytes().next().is_some_and(is_word);
    let word_last = needle.bytes().next_back().is_some_and(is_word);
    text.match_indices(needle).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|i| text.as_bytes()[i]);
        let after = text.as_bytes().get(at + needle.len()).copied();
        !(word_first && before.is_some_and(is_word) || word_last && after.is_some_and(is_word))
    })
}

/// The line, counted from 1, on which `offset` lies.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text[..offset].matches('\n').count()
}

/// The offset just past the bracket that closes the one at `open`, or the end of the text.
pub(crate) fn past_closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// An attribute in code: where it starts, where it ends, and what stands between its square brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attribute<'c> {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) inner: bool,
    pub(crate) body: &'c str,
}

/// The attributes in `code` (the split view), in order.
pub(crate) fn attributes(code: &str) -> Vec<Attribute<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(step) = code[at..].find('#') {
        let start = at + step;
        let inner = code[start + 1..].starts_with('!');
        let open = start + 1 + usize::from(inner);
        if code[open..].starts_with('[') {
            let end = past_closing(code, open);
            let body = code[open + 1..end].strip_suffix(']').unwrap_or(&code[open + 1..end]);
            found.push(Attribute { start, end, inner, body });
            at = end;
        } else {
            at = open;
        }
    }
    found
}

/// `text` without any white space, to compare code whatever its layout.
pub(crate) fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> String {
        Source::split(text).code
    }

    #[test]
    fn comments_and_literals_are_blanked_and_every_byte_keeps_its_place() {
        let text = "a /* b /* c */ d */ e // f\ng \"h // \\\" i\" j 'k' '\\'' 'é' r#\"l \" m\"# n";
        let split = Source::split(text);
        let words: Vec<_> = split.code.split_whitespace().collect();
        assert_eq!(words, ["a", "e", "g", "j", "n"]);
        assert_eq!(split.code.len(), text.len());
        assert_eq!(split.comments.len(), text.len());
        assert_eq!(split.comments.split_whitespace().last(), Some("f"));
        assert_eq!(line_of(&split.code, split.code.find('g').expect("kept")), 2);
    }

    #[test]
    fn a_lifetime_is_code_and_does_not_open_a_literal() {
        assert_eq!(code_of("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
        assert_eq!(code_of("r#type + br\"x\"").trim_end(), "r#type +");
    }

    #[test]
    fn literals_that_never_end_take_the_rest_without_a_panic() {
        for text in ["\"abc\\", "/* a", "r#\"a\"", "'", "'\\", "b", "br", "'é"] {
            assert_eq!(code_of(text).len(), text.len(), "{text}");
        }
    }

    #[test]
    fn a_needle_inside_a_longer_word_is_not_found() {
        assert_eq!(find_words("ab_c ab abc xab ab(", "ab").collect::<Vec<_>>(), [5, 16]);
    }

    #[test]
    fn attributes_are_found_with_nested_brackets() {
        let code = "#![a(b[c])]\nx # y\n#[d]";
        let bodies: Vec<_> = attributes(code).iter().map(|a| (a.inner, a.body)).collect();
        assert_eq!(bodies, [(true, "a(b[c])"), (false, "d")]);
    }
}
