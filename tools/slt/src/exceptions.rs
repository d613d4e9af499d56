//! Records of other engines' files that PostgreSQL refuses. They count as neither passed nor failed, as long as they are
//! refused here with the SQLSTATE that stands here.

use std::path::Path;

/// A record, and why it is none for us.
pub(crate) struct Exception {
    file: &'static str,
    sql: &'static str,
    state: &'static str,
    why: &'static str,
}

/// The left side is a literal of no type, which takes that of the right side.
const LITERAL: &str = "'hello' is read as an integer there; PostgreSQL 15 says 22P02, too";
/// To SQLite it is bytes.
const BITS: &str =
    "x'…' is a bit string, and PostgreSQL 15 knows no bit = integer (42883); we know no bit strings (0A000)";

/// All of them.
const EXCEPTIONS: [Exception; 4] = [
    Exception {
        file: "evidence__in1.slt",
        sql: "SELECT 'hello' IN (SELECT * FROM t1)",
        state: "22P02",
        why: LITERAL,
    },
    Exception {
        file: "evidence__in1.slt",
        sql: "SELECT 'hello' NOT IN (SELECT * FROM t1)",
        state: "22P02",
        why: LITERAL,
    },
    Exception {
        file: "evidence__in1.slt",
        sql: "SELECT x'303132' IN (SELECT * FROM t1)",
        state: "0A000",
        why: BITS,
    },
    Exception {
        file: "evidence__in1.slt",
        sql: "SELECT x'303132' NOT IN (SELECT * FROM t1)",
        state: "0A000",
        why: BITS,
    },
];

impl Exception {
    /// A line for people.
    pub(crate) fn shown(&self) -> String {
        format!("excepted: {}: {}", self.sql, self.why)
    }
}

/// The exception that a record is which failed in this way.
pub(crate) fn of(path: &Path, sql: &str, failure: &str) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|exception| {
        path.file_name().is_some_and(|name| name == exception.file)
            && sql.trim() == exception.sql
            && failure.contains(&format!("failed: {}: ", exception.state))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_is_one_only_in_its_file_and_with_its_state() {
        let sql = "SELECT 'hello' IN (SELECT * FROM t1)";
        let path = Path::new("/somewhere/evidence__in1.slt");
        assert!(of(path, sql, "query failed: 22P02: invalid input").is_some());
        assert!(of(path, sql, "query failed: 42601: syntax error").is_none());
        assert!(of(path, "SELECT 1", "query failed: 22P02: invalid input").is_none());
        assert!(of(Path::new("other.slt"), sql, "query failed: 22P02: invalid input").is_none());
    }
}
