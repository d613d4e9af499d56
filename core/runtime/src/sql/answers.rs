//! What clients are told of their statements: rows in text, and failures.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_kernel::limits::{COMMAND_WRITES_MAX, STAGED_BYTES_MAX, key_size_max};
use kimberlite_query::session;
use kimberlite_row::codec::ROW_SIZE_MAX;
use kimberlite_row::{SqlError, SqlState, text};
use kimberlite_storage::{PageRef, page_place};
use kimberlite_types::limits::FRAME_BODY_SIZE_LIMIT;
use kimberlite_wire::client::{SQL_PARTS_MAX, SqlColumn, SqlFailure, SqlRows};
use kimberlite_wire::command::{Refusal, SqlCode};

/// Bytes of one frame of an answer: the largest body, less what surrounds it.
const ANSWER_BYTES_MAX: usize = FRAME_BODY_SIZE_LIMIT as usize - 4096;
/// Bytes of each sentence of a failure.
const SENTENCE_BYTES_MAX: usize = 4096;
/// Bytes that a cell, a name or a row takes in an answer besides its own, at most.
const CELL_HEAD: usize = 6;

/// An answer in text, in as many frames as it takes: all but the last one hold rows alone. Refused if a row or what
/// surrounds the rows does not fit into a frame, or if there would be too many.
pub(super) fn told(answer: session::Answer) -> Result<Vec<SqlRows>, SqlError> {
    let too_large = |what: &str| {
        SqlError::new(SqlState::ProgramLimitExceeded, what)
            .hint("Ask for fewer rows or columns, with LIMIT or WHERE.")
    };
    let mut around =
        answer.tag.len() + answer.notices.iter().map(|notice| notice.len() + CELL_HEAD).sum::<usize>();
    let mut columns = Vec::with_capacity(answer.columns.len());
    for column in &*answer.columns {
        let kind = column.kind.name();
        around += column.name.len() + kind.len() + 2 * CELL_HEAD;
        columns.push(SqlColumn { name: column.name.clone(), kind });
    }
    let (mut parts, mut rows, mut size) =
        (Vec::new(), Vec::with_capacity(answer.rows.len().min(1024)), around);
    for row in &answer.rows {
        let mut cells = Vec::with_capacity(row.len());
        let mut bytes = CELL_HEAD;
        for (value, column) in row.iter().zip(&*answer.columns) {
            let cell = text::output(value, &column.kind);
            bytes += cell.as_ref().map_or(0, String::len) + CELL_HEAD;
            cells.push(cell);
        }
        if size + bytes > ANSWER_BYTES_MAX && !rows.is_empty() {
            let full = core::mem::take(&mut rows);
            parts.push(SqlRows { rows: full, ..SqlRows::default() });
            size = around;
        }
        if size + bytes > ANSWER_BYTES_MAX {
            return Err(too_large(&format!("a row of the answer takes more than {ANSWER_BYTES_MAX} bytes")));
        }
        if parts.len() >= SQL_PARTS_MAX {
            return Err(too_large(&format!(
                "the answer takes more than {SQL_PARTS_MAX} frames of {ANSWER_BYTES_MAX} bytes"
            )));
        }
        size += bytes;
        rows.push(cells);
    }
    if size > ANSWER_BYTES_MAX {
        return Err(too_large(&format!("the columns of the answer take more than {ANSWER_BYTES_MAX} bytes")));
    }
    parts.push(SqlRows { tag: answer.tag, columns, rows, notices: answer.notices });
    Ok(parts)
}

/// A page that the statement needs is lost.
pub(super) fn unreadable(page: &PageRef) -> SqlFailure {
    let message = format!("the page at {} is damaged", page_place(page.address));
    let error = SqlError::new(SqlState::IoError, message);
    failure(&error.hint("Try again later: this node makes its tables anew from the log, which is whole."))
}

/// A refusal of the log, for a frame.
pub(super) fn refused(refusal: Refusal) -> SqlFailure {
    if refusal.sqlstate() == SqlState::ProgramLimitExceeded.code() {
        let key_size_max = key_size_max();
        let message = format!(
            "one command writes, removes, indexes or checks at most {COMMAND_WRITES_MAX} rows and index entries \
             (COMMAND_WRITES_MAX), with keys of at most {key_size_max} bytes and rows of at most {ROW_SIZE_MAX}"
        );
        let hint = "Divide the statement or transaction, or index shorter columns, or store less in one row. A table that is dropped may be of any size.";
        return failure(&SqlError::new(SqlState::ProgramLimitExceeded, message).hint(hint));
    }
    if refusal.sqlstate() == SqlState::OutOfMemory.code() {
        let message =
            format!("large transactions hold more than {STAGED_BYTES_MAX} bytes (STAGED_BYTES_MAX) already");
        let error = SqlError::new(SqlState::OutOfMemory, message);
        return failure(&error.hint("Try again when they are done, or write fewer rows at once."));
    }
    let code = SqlCode::new(refusal.sqlstate()).expect("a SQLSTATE has five characters");
    SqlFailure { code, message: refusal.to_string(), position: None, detail: None, hint: None }
}

/// A refusal of the query layer, for a frame.
pub(super) fn failure(error: &SqlError) -> SqlFailure {
    let parts = error.parts();
    SqlFailure {
        code: SqlCode::new(parts.state.code()).expect("a SQLSTATE has five characters"),
        message: clipped(&parts.message),
        position: parts.position,
        detail: parts.detail.as_deref().map(clipped),
        hint: parts.hint.as_deref().map(clipped),
    }
}

/// A sentence, or the beginning of a very long one.
fn clipped(sentence: &str) -> String {
    if sentence.len() <= SENTENCE_BYTES_MAX {
        return sentence.to_string();
    }
    format!("{}…", &sentence[..sentence.floor_char_boundary(SENTENCE_BYTES_MAX)])
}

/// So many answers of several frames wait for their clients to take them that this one finds no room.
pub(super) fn crowded() -> SqlFailure {
    let error =
        SqlError::new(SqlState::ProgramLimitExceeded, "too many large answers wait for clients to take them");
    failure(&error.hint("Try again later, or ask for fewer rows with LIMIT."))
}
