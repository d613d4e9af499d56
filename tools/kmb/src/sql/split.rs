//! Text to statements: cuts at semicolons that stand outside of quotes, comments and parentheses. The data of COPY belong to
//! its statement, and a command that begins with a backslash is a line.

use super::copy::takes_data;

/// The statements that end in `text`, without their semicolons, and what stands behind the last of them.
pub(super) fn split(text: &str) -> (Vec<&str>, &str) {
    let bytes = text.as_bytes();
    let (mut found, mut from, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let next = match bytes[at] {
            b'\\' if is_command(rest) && is_blank(&text[from..at]) => {
                let end = rest.find('\n').unwrap_or(rest.len());
                found.push(&text[at..at + end]);
                from = at + end;
                Some(end)
            }
            b';' if takes_data(text[from..at].trim_start()) => match data_end(rest) {
                Some(end) => {
                    found.push(&text[from..at + end]);
                    from = at + end;
                    Some(end)
                }
                // Its data go on to the end.
                None => None,
            },
            b';' => {
                found.push(&text[from..at]);
                from = at + 1;
                Some(1)
            }
            b'-' if rest.starts_with("--") => rest.find('\n').map(|end| end + 1),
            b'/' if rest.starts_with("/*") => comment(rest),
            quote @ (b'"' | b'\'') => {
                // E'…' knows backslashes.
                let before = text[..at].chars().next_back();
                let word = text[..at].chars().nth_back(1).is_some_and(|c| c.is_alphanumeric() || c == '_');
                let escapes = quote == b'\'' && matches!(before, Some('e' | 'E')) && !word;
                quoted(rest.as_bytes(), quote, escapes)
            }
            b'$' => match tag(text, at) {
                Some(tag) => rest[tag.len()..].find(tag).map(|end| end + 2 * tag.len()),
                None => Some(1),
            },
            _ => rest.chars().next().map(char::len_utf8),
        };
        // What is open goes on to the end.
        at = next.map_or(bytes.len(), |next| at + next);
    }
    (found, &text[from..])
}

/// Whether a text begins with a command of the prompt.
pub(super) fn is_command(text: &str) -> bool {
    let named = |c: char| c.is_ascii_alphabetic() || c == '?';
    text.strip_prefix('\\').is_some_and(|rest| rest.starts_with(named))
}

/// Where the data of COPY end that begin in the line behind a semicolon: behind the line `\\.`.
fn data_end(rest: &str) -> Option<usize> {
    let mut at = rest.find('\n')? + 1;
    loop {
        let line = rest[at..].find('\n').map_or(&rest[at..], |end| &rest[at..at + end]);
        if line.trim_end_matches('\r') == "\\." {
            return Some(at + line.len());
        }
        at += line.len() + 1;
        if at > rest.len() {
            return None;
        }
    }
}

/// Whether there is nothing to run: blanks and comments.
pub(super) fn is_blank(text: &str) -> bool {
    let mut rest = text.trim_start();
    loop {
        let end = if rest.starts_with("--") {
            rest.find('\n').map(|end| end + 1)
        } else if rest.starts_with("/*") {
            comment(rest)
        } else {
            return rest.is_empty();
        };
        let Some(end) = end else { return !rest.starts_with("/*") };
        rest = rest[end..].trim_start();
    }
}

/// Bytes of a quoted text with its quotes.
fn quoted(bytes: &[u8], quote: u8, escapes: bool) -> Option<usize> {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 1,
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Bytes of a comment; comments nest.
fn comment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The tag of a dollar-quoted text that begins here, with both dollars.
fn tag(text: &str, at: usize) -> Option<&str> {
    if text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let rest = &text[at..];
    let end = rest[1..].find('$')? + 1;
    let name = &rest[1..end];
    let sound = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    sound.then(|| &rest[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_that_stand_free() {
        for (text, found, rest) in [
            ("SELECT 1; SELECT 2", vec!["SELECT 1"], " SELECT 2"),
            ("a;b;", vec!["a", "b"], ""),
            ("SELECT ';' || \";\";", vec!["SELECT ';' || \";\""], ""),
            ("SELECT 'it''s;';", vec!["SELECT 'it''s;'"], ""),
            ("SELECT E'\\';';x", vec!["SELECT E'\\';'"], "x"),
            ("SELECT 'a\\';x", vec!["SELECT 'a\\'"], "x"),
            ("-- a;b\nSELECT 1;", vec!["-- a;b\nSELECT 1"], ""),
            ("/* ; /* ; */ ; */ SELECT 1;", vec!["/* ; /* ; */ ; */ SELECT 1"], ""),
            ("SELECT $$;$$, $a$;$$;$a$;", vec!["SELECT $$;$$, $a$;$$;$a$"], ""),
            ("SELECT $1;", vec!["SELECT $1"], ""),
            ("SELECT 'open; ", vec![], "SELECT 'open; "),
            (
                "COPY t FROM STDIN;\na;b\n\\.\nSELECT 1;",
                vec!["COPY t FROM STDIN;\na;b\n\\.", "\nSELECT 1"],
                "",
            ),
            ("COPY t FROM STDIN;\n1;\n2;", vec![], "COPY t FROM STDIN;\n1;\n2;"),
            ("COPY t TO STDOUT;x", vec!["COPY t TO STDOUT"], "x"),
            ("a;\n\\copy t FROM 'x;y'\nb;", vec!["a", "\\copy t FROM 'x;y'", "\nb"], ""),
            ("\\timing\nSELECT 1;\n\\d t;\nx", vec!["\\timing", "\nSELECT 1", "\\d t;"], "\nx"),
            ("SELECT \\d;x", vec!["SELECT \\d"], "x"),
            ("größe; 'ß;'; é", vec!["größe", " 'ß;'"], " é"),
        ] {
            assert_eq!(split(text), (found, rest), "{text}");
        }
    }

    #[test]
    fn comments_are_nothing_to_run() {
        for text in ["", "  \n", "-- x", "-- x\n /* y */ "] {
            assert!(is_blank(text), "{text}");
        }
        for text in ["x", "-- x\ny", "/* open"] {
            assert!(!is_blank(text), "{text}");
        }
    }
}
