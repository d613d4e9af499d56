//! COPY: rows as lines of text or CSV, read and written as PostgreSQL does (its copyfromparse.c and copyto.c).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState};
use sqlparser::ast;

use crate::bind::{folded, unsupported};

/// How rows are lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Format {
    /// CSV, and not PostgreSQL's text.
    pub csv: bool,
    /// What stands between two values.
    pub delimiter: char,
    /// What stands for NULL.
    pub null: String,
    /// Whether the first line has the names of the columns.
    pub header: bool,
    /// What stands around values in CSV.
    pub quote: char,
    /// What stands in front of a quote in a quoted value.
    pub escape: char,
    /// Columns whose values are always quoted.
    pub force_quote: Vec<String>,
    /// Columns in which nothing is NULL.
    pub force_not_null: Vec<String>,
    /// Columns in which a quoted value may be NULL, too.
    pub force_null: Vec<String>,
}

fn refused(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::InvalidParameterValue, message)
}

impl Format {
    /// What the options of a statement say.
    pub fn of(options: &[ast::CopyOption], legacy: &[ast::CopyLegacyOption]) -> Result<Self, SqlError> {
        use ast::{CopyLegacyCsvOption as C, CopyLegacyOption as L, CopyOption as O};
        let (mut csv, mut delimiter, mut null, mut header) = (None, None, None, None);
        let (mut quote, mut escape, mut encoding) = (None, None, None);
        let mut lists: [Option<Vec<String>>; 3] = [None, None, None];
        let names = |idents: &[ast::Ident]| idents.iter().map(folded).collect::<Vec<String>>();
        let mut all: Vec<O> = options.to_vec();
        for option in legacy {
            match option {
                L::Delimiter(c) => all.push(O::Delimiter(*c)),
                L::Null(text) => all.push(O::Null(text.clone())),
                L::Header => all.push(O::Header(true)),
                L::Csv(more) => {
                    all.push(O::Format(ast::Ident::new("csv")));
                    for option in more {
                        all.push(match option {
                            C::Header => O::Header(true),
                            C::Quote(c) => O::Quote(*c),
                            C::Escape(c) => O::Escape(*c),
                            C::ForceQuote(list) => O::ForceQuote(list.clone()),
                            C::ForceNotNull(list) => O::ForceNotNull(list.clone()),
                        });
                    }
                }
                L::Binary => return Err(unsupported("COPY in binary format")),
                _ => return Err(unsupported("this option of COPY")),
            }
        }
        let mut twice = false;
        for option in all {
            match option {
                O::Format(name) => {
                    let name = folded(&name);
                    twice |= csv.replace(name == "csv").is_some();
                    match name.as_str() {
                        "csv" | "text" => {}
                        "binary" => return Err(unsupported("COPY in binary format")),
                        other => return Err(refused(format!("COPY format \"{other}\" not recognized"))),
                    }
                }
                O::Delimiter(c) => twice |= delimiter.replace(c).is_some(),
                O::Null(text) => twice |= null.replace(text).is_some(),
                O::Header(header_line) => twice |= header.replace(header_line).is_some(),
                O::Quote(c) => twice |= quote.replace(c).is_some(),
                O::Escape(c) => twice |= escape.replace(c).is_some(),
                O::ForceQuote(list) => twice |= lists[0].replace(names(&list)).is_some(),
                O::ForceNotNull(list) => twice |= lists[1].replace(names(&list)).is_some(),
                O::ForceNull(list) => twice |= lists[2].replace(names(&list)).is_some(),
                O::Encoding(name) => twice |= encoding.replace(name).is_some(),
                // Rows are as frozen as any.
                O::Freeze(_) => {}
            }
        }
        if twice {
            return Err(SqlError::new(SqlState::SyntaxError, "conflicting or redundant options"));
        }
        if let Some(name) = encoding
            && !["utf8", "utf-8", "unicode"].contains(&name.to_lowercase().as_str())
        {
            return Err(unsupported("another encoding than UTF8"));
        }
        let csv = csv.unwrap_or(false);
        for (given, what) in [
            (quote.is_some(), "quote"),
            (escape.is_some(), "escape"),
            (lists[0].is_some(), "force quote"),
            (lists[1].is_some(), "force not null"),
            (lists[2].is_some(), "force null"),
        ] {
            if given && !csv {
                return Err(SqlError::new(
                    SqlState::FeatureNotSupported,
                    format!("COPY {what} available only in CSV mode"),
                ));
            }
        }
        let quote = quote.unwrap_or('"');
        let [force_quote, force_not_null, force_null] = lists.map(Option::unwrap_or_default);
        let this = Self {
            csv,
            delimiter: delimiter.unwrap_or(if csv { ',' } else { '\t' }),
            null: null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() }),
            header: header.unwrap_or(false),
            quote,
            escape: escape.unwrap_or(quote),
            force_quote,
            force_not_null,
            force_null,
        };
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result<(), SqlError> {
        for (sign, what) in [(self.delimiter, "delimiter"), (self.quote, "quote"), (self.escape, "escape")] {
            if !sign.is_ascii() {
                return Err(SqlError::new(
                    SqlState::FeatureNotSupported,
                    format!("COPY {what} must be a single one-byte character"),
                ));
            }
        }
        let breaks = |c: char| c == '\n' || c == '\r';
        if breaks(self.delimiter) {
            return Err(refused("COPY delimiter cannot be newline or carriage return"));
        }
        if self.null.contains(breaks) {
            return Err(refused("COPY null representation cannot use newline or carriage return"));
        }
        let taken = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '\\';
        if !self.csv && taken(self.delimiter) {
            return Err(refused(format!("COPY delimiter cannot be \"{}\"", self.delimiter)));
        }
        if self.null.contains(self.delimiter) {
            return Err(refused("COPY delimiter must not appear in the NULL specification"));
        }
        if self.csv && self.delimiter == self.quote {
            return Err(refused("COPY delimiter and quote must be different"));
        }
        if self.csv && self.null.contains(self.quote) {
            return Err(refused("CSV quote character must not appear in the NULL specification"));
        }
        Ok(())
    }

    /// Where the first record of a text ends, its line break included; none if it does not end in it.
    pub fn record_end(&self, text: &str) -> Option<usize> {
        let (mut quoted, mut skip) = (false, false);
        for (at, c) in text.char_indices() {
            if core::mem::take(&mut skip) {
                continue;
            }
            if self.csv {
                if quoted && c == self.escape && self.escape != self.quote {
                    skip = text[at + c.len_utf8()..].starts_with([self.escape, self.quote]);
                } else if c == self.quote {
                    quoted = !quoted;
                }
            } else {
                skip = c == '\\';
            }
            if c == '\n' && !quoted {
                return Some(at + 1);
            }
        }
        None
    }

    /// The values of a record, NULL as none. `columns` are told apart by the options that name some.
    pub fn values(&self, record: &str, columns: &[String]) -> Result<Vec<Option<String>>, SqlError> {
        let record = record.strip_suffix('\n').unwrap_or(record);
        let record = record.strip_suffix('\r').unwrap_or(record);
        if self.csv { self.csv_values(record, columns) } else { self.text_values(record) }
    }

    fn text_values(&self, record: &str) -> Result<Vec<Option<String>>, SqlError> {
        if record.contains('\r') {
            return Err(malformed("literal carriage return found in data")
                .hint("Use \"\\r\" to represent carriage return."));
        }
        let (mut values, mut raw_from, mut bytes) = (Vec::new(), 0, Vec::new());
        let source = record.as_bytes();
        let delimiter = self.delimiter as u8;
        let mut at = 0;
        loop {
            match source.get(at) {
                None => {
                    values.push(self.text_value(&record[raw_from..], core::mem::take(&mut bytes))?);
                    return Ok(values);
                }
                Some(b) if *b == delimiter => {
                    values.push(self.text_value(&record[raw_from..at], core::mem::take(&mut bytes))?);
                    raw_from = at + 1;
                }
                Some(b'\\') if at + 1 < source.len() => {
                    at += 1;
                    let digits = |radix: u32, from: usize, most: usize| {
                        let rest = source.get(from..).unwrap_or_default();
                        rest.iter().take(most).take_while(|b| char::from(**b).is_digit(radix)).count()
                    };
                    match source[at] {
                        b'b' => bytes.push(8),
                        b'f' => bytes.push(12),
                        b'n' => bytes.push(b'\n'),
                        b'r' => bytes.push(b'\r'),
                        b't' => bytes.push(b'\t'),
                        b'v' => bytes.push(11),
                        b'0'..=b'7' => {
                            let count = digits(8, at, 3);
                            let code = u32::from_str_radix(&record[at..at + count], 8).unwrap_or(0);
                            bytes.push((code & 0xff) as u8);
                            at += count - 1;
                        }
                        b'x' if digits(16, at + 1, 2) > 0 => {
                            let count = digits(16, at + 1, 2);
                            bytes.push(u8::from_str_radix(&record[at + 1..=at + count], 16).unwrap_or(0));
                            at += count;
                        }
                        other => bytes.push(other),
                    }
                }
                Some(other) => bytes.push(*other),
            }
            at += 1;
        }
    }

    /// A value, unless it stands for NULL as it was written.
    fn text_value(&self, raw: &str, bytes: Vec<u8>) -> Result<Option<String>, SqlError> {
        if raw == self.null {
            return Ok(None);
        }
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(Some(text)),
            _ => Err(SqlError::new(
                SqlState::CharacterNotInRepertoire,
                "invalid byte sequence for encoding \"UTF8\"",
            )),
        }
    }

    fn csv_values(&self, record: &str, columns: &[String]) -> Result<Vec<Option<String>>, SqlError> {
        let mut values = Vec::new();
        let mut chars = record.chars().peekable();
        loop {
            let (mut text, mut saw_quote, mut quoted, mut over) = (String::new(), false, false, true);
            while let Some(c) = chars.next() {
                if quoted {
                    match chars.peek() {
                        Some(next) if c == self.escape && (*next == self.escape || *next == self.quote) => {
                            text.push(*next);
                            chars.next();
                        }
                        _ if c == self.quote => quoted = false,
                        _ => text.push(c),
                    }
                } else if c == self.delimiter {
                    over = false;
                    break;
                } else if c == self.quote {
                    (saw_quote, quoted) = (true, true);
                } else if c == '\r' {
                    return Err(malformed("unquoted carriage return found in data")
                        .hint("Use quoted CSV field to represent carriage return."));
                } else {
                    text.push(c);
                }
            }
            if quoted {
                return Err(malformed("unterminated CSV quoted field"));
            }
            let named = |list: &[String]| columns.get(values.len()).is_some_and(|name| list.contains(name));
            let null = text == self.null
                && (!saw_quote && !named(&self.force_not_null) || saw_quote && named(&self.force_null));
            values.push((!null).then_some(text));
            if over {
                return Ok(values);
            }
        }
    }

    /// A row as a line, without its end.
    pub fn line(&self, values: &[Option<String>], columns: &[String]) -> String {
        let mut out = String::new();
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                out.push(self.delimiter);
            }
            let Some(value) = value else {
                out.push_str(&self.null);
                continue;
            };
            if self.csv {
                let forced = columns.get(at).is_some_and(|name| self.force_quote.contains(name));
                self.put_csv(value, forced, values.len() == 1, &mut out);
            } else {
                self.put_text(value, &mut out);
            }
        }
        out
    }

    fn put_text(&self, value: &str, out: &mut String) {
        for c in value.chars() {
            let letter = match c {
                '\u{8}' => 'b',
                '\u{c}' => 'f',
                '\n' => 'n',
                '\r' => 'r',
                '\t' => 't',
                '\u{b}' => 'v',
                '\\' => '\\',
                c if c == self.delimiter => c,
                c => {
                    out.push(c);
                    continue;
                }
            };
            out.push('\\');
            out.push(letter);
        }
    }

    fn put_csv(&self, value: &str, forced: bool, single: bool, out: &mut String) {
        let special = |c: char| c == self.delimiter || c == self.quote || c == '\n' || c == '\r';
        // A line of its own would end the data.
        let plain = value != self.null && !value.contains(special) && (!single || value != "\\.");
        if plain && !forced {
            out.push_str(value);
            return;
        }
        out.push(self.quote);
        for c in value.chars() {
            if c == self.quote || c == self.escape {
                out.push(self.escape);
            }
            out.push(c);
        }
        out.push(self.quote);
    }
}

/// The data are not as their format has them.
pub fn malformed(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::BadCopyFileFormat, message)
}

/// The records of data that were sent with a statement, each with the number of its first line, from 1; to the line `\.` or
/// the end.
pub fn records<'d>(format: &Format, data: &'d str) -> Vec<(usize, &'d str)> {
    let (mut records, mut rest, mut line) = (Vec::new(), data, 1);
    while !rest.is_empty() {
        let end = format.record_end(rest).unwrap_or(rest.len());
        let record = &rest[..end];
        if record.trim_end_matches(['\r', '\n']) == "\\." {
            break;
        }
        if line > 1 || !format.header {
            records.push((line, record));
        }
        line += record.matches('\n').count().max(1);
        rest = &rest[end..];
    }
    records
}

/// A statement `COPY … FROM STDIN`, for whoever sends its data in parts.
#[derive(Clone, PartialEq, Debug)]
pub struct CopyIn {
    /// The statement for data without a line of names, without its data.
    pub statement: String,
    /// How its data are read.
    pub format: Format,
    /// The data that stand behind it.
    pub data: Option<String>,
}

impl CopyIn {
    /// Reads a text; none if it is another statement or cannot be read.
    pub fn of(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        if !words.next()?.eq_ignore_ascii_case("copy") {
            return None;
        }
        let [statement] = <[ast::Statement; 1]>::try_from(crate::parse::statements(text).ok()?).ok()?;
        let ast::Statement::Copy { source, to: false, target, mut options, mut legacy_options, payload } =
            statement
        else {
            return None;
        };
        if target != ast::CopyTarget::Stdin {
            return None;
        }
        let format = Format::of(&options, &legacy_options).ok()?;
        options.retain(|option| !matches!(option, ast::CopyOption::Header(_)));
        legacy_options.retain(|option| !matches!(option, ast::CopyLegacyOption::Header));
        for option in &mut legacy_options {
            if let ast::CopyLegacyOption::Csv(more) = option {
                more.retain(|option| !matches!(option, ast::CopyLegacyCsvOption::Header));
            }
        }
        let statement =
            ast::Statement::Copy { source, to: false, target, options, legacy_options, payload: None };
        Some(Self { statement: statement.to_string(), format, data: payload.map(|payload| payload.data) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(options: &str) -> Format {
        CopyIn::of(&format!("COPY t FROM STDIN {options}")).expect("a statement").format
    }

    /// A row goes out as PostgreSQL writes it, and comes in as it was.
    #[test]
    fn rows_are_lines_and_lines_are_rows() {
        let values = |list: &[Option<&str>]| -> Vec<Option<String>> {
            list.iter().map(|value| value.map(ToString::to_string)).collect()
        };
        let rows = [
            (&[Some("a"), None, Some("")][..], "a\t\\N\t", "a,,\"\""),
            (&[Some("a\tb"), Some("c,d"), Some("\\N")], "a\\tb\tc,d\t\\\\N", "a\tb,\"c,d\",\\N"),
            (
                &[Some("x\ny"), Some("\r\"q\""), Some("\u{8}\u{b}\u{c}")],
                "x\\ny\t\\r\"q\"\t\\b\\v\\f",
                "\"x\ny\",\"\r\"\"q\"\"\",\u{8}\u{b}\u{c}",
            ),
            (&[Some("\\.")], "\\\\.", "\"\\.\""),
        ];
        let (text, csv) = (format(""), format("(FORMAT csv)"));
        for (row, as_text, as_csv) in rows {
            for (format, line) in [(&text, as_text), (&csv, as_csv)] {
                let row = values(row);
                assert_eq!(format.line(&row, &[]), line);
                assert_eq!(format.values(&format!("{line}\n"), &[]), Ok(row), "{line}");
            }
        }
        // What only comes in.
        assert_eq!(text.values(r"\101\x42\q\", &[]), Ok(values(&[Some("ABq\\")])));
        assert_eq!(csv.values("\"a\"b,  ,", &[]), Ok(values(&[Some("ab"), Some("  "), None])));
        let odd =
            format("WITH (FORMAT csv, DELIMITER '|', NULL '-', QUOTE '''', ESCAPE '\\', FORCE_NOT_NULL (b))");
        let columns = ["a".to_string(), "b".to_string()];
        assert_eq!(
            odd.values("-|-|'it\\'s'|'-'", &columns),
            Ok(values(&[None, Some("-"), Some("it's"), Some("-")]))
        );
        assert_eq!(odd.line(&values(&[Some("it's"), None]), &columns), "'it\\'s'|-");
    }

    #[test]
    fn records_end_where_their_format_says() {
        let csv = format("CSV HEADER");
        assert_eq!(
            records(&csv, "a,b\n1,\"x\ny\"\n\n2,z\n\\.\n3,"),
            [(2, "1,\"x\ny\"\n"), (4, "\n"), (5, "2,z\n")]
        );
        let text = format("");
        assert_eq!(records(&text, "1\\\n2\n3"), [(1, "1\\\n2\n"), (3, "3")]);
        assert!(csv.values("\"open", &[]).is_err() && text.values("a\rb", &[]).is_err());
        let statement = CopyIn::of("copy t (a) from stdin csv header;\n1\n\\.\n").expect("a statement");
        assert_eq!((statement.statement.contains("HEADER"), statement.data.as_deref()), (false, Some("1\n")));
        assert_eq!(CopyIn::of("SELECT 1"), None);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for (options, state) in [
            ("(FORMAT csv, FORMAT text)", "42601"),
            ("(FORMAT xml)", "22023"),
            ("(FORMAT binary)", "0A000"),
            ("(QUOTE 'x')", "0A000"),
            ("(DELIMITER 'a')", "22023"),
            ("(FORMAT csv, DELIMITER '\"')", "22023"),
            ("(NULL E'a\\tb')", "22023"),
            ("(ENCODING 'latin1')", "0A000"),
        ] {
            let text = format!("COPY t FROM STDIN {options}");
            let Some(ast::Statement::Copy { options: list, legacy_options, .. }) =
                crate::parse::statements(&text).expect("it parses").pop()
            else {
                panic!("{text}")
            };
            let refused = Format::of(&list, &legacy_options).map_err(|error| error.state().code());
            assert_eq!(refused.err(), Some(state), "{options}");
        }
    }
}
