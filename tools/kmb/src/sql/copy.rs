//! COPY on the client's side: data from a script, standard input or a file, sent in batches that fit a command each; and
//! lines that a node answered with, written as they are.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;

use kimberlite_query::copy::{CopyIn, Format};
use kimberlite_query::session::COPY_COLUMN;
use kimberlite_wire::client::{SqlFailure, SqlRows};

use super::Talk;
use crate::Failure;
use crate::failure::Kind;

/// Rows of one batch, and bytes of their lines: far below what a command holds. A batch that is too much nevertheless, as
/// many indexes make it, is sent in halves.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 256 << 10;
/// The condition of what does not fit into a command.
const TOO_MUCH: &str = "54000";

/// Whether a statement takes lines behind it.
pub(super) fn takes_data(statement: &str) -> bool {
    let mut words = statement.split_whitespace().map(str::to_ascii_lowercase).peekable();
    if words.next().as_deref() != Some("copy") {
        return false;
    }
    let mut before = String::new();
    words.any(|word| {
        let found = before == "from" && word.starts_with("stdin");
        before = word;
        found
    })
}

/// The lines of an answer to COPY TO STDOUT; none of another answer.
pub(super) fn lines(rows: &SqlRows) -> Option<String> {
    let [column] = &rows.columns[..] else { return None };
    if column.name != COPY_COLUMN || !rows.tag.starts_with("COPY ") {
        return None;
    }
    let mut out = String::new();
    for line in rows.rows.iter().filter_map(|row| row.first()?.as_ref()) {
        out.push_str(line);
        out.push('\n');
    }
    Some(out)
}

/// `\copy … FROM 'file' …` and `\copy … TO 'file' …`: the statement for a node, and the file.
pub(super) fn backslash_copy(command: &str) -> Result<(String, String, bool), Failure> {
    let usage = || {
        Failure::usage(
            "\\copy TABLE|(QUERY) FROM|TO 'FILE' [OPTIONS], as in \\copy t FROM 't.csv' CSV HEADER"
                .to_owned(),
        )
    };
    let command = command.trim().trim_end_matches(';');
    let (mut depth, mut quote, mut at) = (0_usize, None, 0);
    let bytes = command.as_bytes();
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
            (None, b'(') => depth += 1,
            (None, b')') => depth = depth.saturating_sub(1),
            (None, byte) if byte.is_ascii_whitespace() && depth == 0 => {
                let rest = command[at..].trim_start();
                let word = rest.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
                if word == "from" || word == "to" {
                    let place = rest[word.len()..].trim_start();
                    let (file, options) = match place.strip_prefix('\'') {
                        Some(quoted) => {
                            let end = quoted.find('\'').ok_or_else(usage)?;
                            (&quoted[..end], &quoted[end + 1..])
                        }
                        None => place.split_once(char::is_whitespace).unwrap_or((place, "")),
                    };
                    if file.is_empty() {
                        return Err(usage());
                    }
                    let stands_for = if word == "from" { "FROM STDIN" } else { "TO STDOUT" };
                    let what = command[..at].trim();
                    return Ok((
                        format!("COPY {what} {stands_for} {options}"),
                        file.to_owned(),
                        word == "from",
                    ));
                }
            }
            _ => {}
        }
        at += 1;
    }
    Err(usage())
}

/// Reads records one after the other.
struct Records<'r> {
    source: &'r mut dyn BufRead,
    format: &'r Format,
    /// Lines read so far.
    line: usize,
    over: bool,
}

impl Records<'_> {
    /// The next record, with the number of its first line.
    fn next(&mut self) -> Result<Option<(usize, String)>, Failure> {
        let (first, mut record) = (self.line + 1, String::new());
        while !self.over {
            let before = record.len();
            let read = self.source.read_line(&mut record);
            let read = read.map_err(|error| {
                Failure::new(Kind::Io, format!("the data of COPY, line {}: {error}", self.line + 1))
            })?;
            if read == 0 {
                self.over = true;
                break;
            }
            self.line += 1;
            if before == 0 && record.trim_end_matches(['\r', '\n']) == "\\." {
                self.over = true;
                return Ok(None);
            }
            if self.format.record_end(&record).is_some() {
                return Ok(Some((first, record)));
            }
        }
        if !record.is_empty() && !record.ends_with('\n') {
            record.push('\n');
        }
        Ok((!record.is_empty()).then_some((first, record)))
    }
}

/// Records of one batch.
#[derive(Default)]
struct Batch {
    records: Vec<(usize, String)>,
    bytes: usize,
}

impl Talk {
    /// Runs COPY FROM STDIN. Data that do not stand behind the statement come from standard input.
    pub(super) fn copy_in(&mut self, copy: &CopyIn, text: &str) -> Result<bool, Failure> {
        match &copy.data {
            Some(data) => self.copy_from(copy, text, &mut data.as_bytes()),
            None => self.copy_from(copy, text, &mut io::stdin().lock()),
        }
    }

    /// Runs `\copy`.
    pub(super) fn copy_file(&mut self, command: &str) -> Result<bool, Failure> {
        let (statement, file, from) = backslash_copy(command)?;
        let path = Path::new(&file);
        if from {
            let Some(copy) = CopyIn::of(&statement) else { return self.run(&statement) };
            let file = File::open(path).map_err(|error| Failure::on(path, &error))?;
            return self.copy_from(&copy, &statement, &mut BufReader::new(file));
        }
        let rows = self.answered(&statement)?;
        let lines = lines(&rows).unwrap_or_default();
        let written = File::create(path).and_then(|mut file| file.write_all(lines.as_bytes()));
        written.map_err(|error| Failure::on(path, &error))?;
        self.say(&rows.tag)
    }

    fn copy_from(&mut self, copy: &CopyIn, text: &str, source: &mut dyn BufRead) -> Result<bool, Failure> {
        let mut records = Records { source, format: &copy.format, line: 0, over: false };
        if copy.format.header {
            records.next()?;
        }
        let (mut stored, mut sent, mut batch) = (0, 0, Batch::default());
        loop {
            let next = records.next()?;
            let full = batch.records.len() >= BATCH_ROWS || batch.bytes >= BATCH_BYTES;
            // A statement without data says what is wrong with it, too.
            if full || next.is_none() && (!batch.records.is_empty() || sent == 0) {
                let done = self.send(copy, text, &batch.records, &mut stored);
                if let Err(failure) = done {
                    if stored > 0 && !self.in_block {
                        let rows = if stored == 1 { "1 row".to_owned() } else { format!("{stored} rows") };
                        eprintln!("NOTICE: {rows} in front of it are stored: COPY of many is done in parts");
                    }
                    return Err(failure);
                }
                sent += 1;
                batch = Batch::default();
            }
            let Some((line, record)) = next else { break };
            batch.bytes += record.len();
            batch.records.push((line, record));
        }
        self.say(&format!("COPY {stored}"))
    }

    /// Sends records as one statement, or as two halves if they are too much for one.
    fn send(
        &mut self,
        copy: &CopyIn,
        text: &str,
        records: &[(usize, String)],
        stored: &mut u64,
    ) -> Result<(), Failure> {
        let mut statement = format!("{};\n", copy.statement);
        for (_, record) in records {
            statement += record;
        }
        statement += "\\.\n";
        match self.ask(&statement)?.result {
            Ok(rows) => {
                let count = rows.tag.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
                *stored += count.unwrap_or(0);
                Ok(())
            }
            Err(failure) if failure.code.as_str() == TOO_MUCH && records.len() > 1 && !self.in_block => {
                let (first, second) = records.split_at(records.len() / 2);
                self.send(copy, text, first, stored)?;
                self.send(copy, text, second, stored)
            }
            Err(failure) => Err(self.failed(&placed(failure, records), text)),
        }
    }
}

/// A failure with the line of all the data, in place of that of the batch.
fn placed(failure: SqlFailure, records: &[(usize, String)]) -> SqlFailure {
    let moved = failure.detail.as_deref().and_then(|detail| {
        let (head, rest) = detail.split_once(", line ").filter(|(head, _)| head.starts_with("COPY "))?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        // Lines of the batch up to the record that holds the one that was named.
        let mut left = number.parse::<usize>().ok()?;
        let line = records.iter().find_map(|(line, record)| {
            let lines = record.matches('\n').count();
            if left <= lines {
                return Some(line + left - 1);
            }
            left -= lines;
            None
        })?;
        Some(format!("{head}, line {line}{tail}"))
    });
    SqlFailure { detail: moved.or(failure.detail), position: None, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_the_place_of_standard_input() {
        let read = |command| backslash_copy(command).map_err(|_| ());
        let copy = |text: &str, file: &str, from| Ok((text.to_owned(), file.to_owned(), from));
        assert_eq!(
            read("t FROM 'a b.csv' CSV HEADER;"),
            copy("COPY t FROM STDIN  CSV HEADER", "a b.csv", true)
        );
        assert_eq!(read("t (a, b) to out.txt"), copy("COPY t (a, b) TO STDOUT ", "out.txt", false));
        let query = "(SELECT 'x from y' FROM t) TO 'f' (FORMAT csv)";
        assert_eq!(read(query), copy("COPY (SELECT 'x from y' FROM t) TO STDOUT  (FORMAT csv)", "f", false));
        for wrong in ["", "t", "t FROM", "t FROM 'open", "(SELECT 1 FROM t"] {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn records_come_whole_and_a_refusal_names_the_line_of_all_data() {
        let copy = CopyIn::of("COPY t FROM STDIN CSV").unwrap();
        let mut source = "1,\"a\nb\"\n2,c\n\\.\nnot read".as_bytes();
        let mut records = Records { source: &mut source, format: &copy.format, line: 10, over: false };
        let mut all = Vec::new();
        while let Some(record) = records.next().unwrap() {
            all.push(record);
        }
        assert_eq!(all, [(11, "1,\"a\nb\"\n".to_owned()), (13, "2,c\n".to_owned())]);
        let failure = |detail: &str| SqlFailure {
            code: kimberlite_wire::command::SqlCode::new("22P02").unwrap(),
            message: String::new(),
            position: Some(3),
            detail: Some(detail.to_owned()),
            hint: None,
        };
        for (told, shown) in [
            ("COPY t, line 3, column a: \"x\"", "COPY t, line 13, column a: \"x\""),
            ("Key (a)=(1), line 3", "Key (a)=(1), line 3"),
        ] {
            assert_eq!(placed(failure(told), &all).detail.as_deref(), Some(shown));
        }
    }

    #[test]
    fn which_statements_take_data() {
        for (statement, takes) in [
            ("copy t from stdin", true),
            (" COPY t (a) FROM STDIN (FORMAT csv)", true),
            ("COPY t TO STDOUT", false),
            ("SELECT 'copy from stdin'", false),
        ] {
            assert_eq!(takes_data(statement), takes, "{statement}");
        }
    }
}
