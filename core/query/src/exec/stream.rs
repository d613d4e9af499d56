//! The records of a stream as rows: its name is looked up, then a bounded number of records is read in each step.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::fact::{Miss, Record, Rows, StreamScan};
use kimberlite_row::{Row, SqlError, SqlState, Type, Value, text};
use kimberlite_types::{LogPosition, Offset, StreamId};

use super::StreamSource;
use crate::bind::near;
use crate::eval::Scope;
use crate::limits::{SCAN_BATCH_ROWS, STREAM_STEP_BYTES};
use crate::plan::STREAM_WRITTEN;

/// How far the read of a stream has come.
#[derive(Debug)]
pub(crate) struct Streaming {
    name: String,
    /// Which stream it is, and its own name; none before it was looked up.
    known: Option<(StreamId, Arc<str>)>,
    next: Offset,
    /// The offset at which it ends: that of the condition, and then no more than that of the stream.
    until: Offset,
    /// Records of the next batch: the first ones are small, for whoever wants few.
    batch: usize,
}

/// What a step read.
#[derive(Debug)]
pub(crate) enum Streamed {
    /// The stream, its name, and where it ends.
    Found(StreamId, Arc<str>, Offset),
    /// There is none; perhaps another one was meant.
    Unknown(Option<String>),
    /// Rows, the next offset, and whether it came to the end.
    Records(Vec<Row>, Offset, bool),
}

/// The offset that a whole number stands for; those below all offsets stand for the first.
fn offset(number: i64) -> Offset {
    Offset(u64::try_from(number).unwrap_or(0))
}

impl StreamSource {
    /// Begins; none if nothing can be in it.
    pub(super) fn begin(&self, scope: &mut Scope<'_>) -> Result<Option<Streaming>, SqlError> {
        let name = self.name.eval(&[], scope)?;
        let Some(name) = name.as_text().map(ToString::to_string) else { return Ok(None) };
        // A bound that is no whole number bounds nothing here: the condition is held against each record besides.
        let mut next = Offset::ZERO;
        if let Some((low, included)) = &self.low {
            match low.eval(&[], scope)? {
                Value::Null => return Ok(None),
                Value::Int(n) if n >= 0 => next = offset(if *included { n } else { n.saturating_add(1) }),
                _ => {}
            }
        }
        let mut until = Offset(u64::MAX);
        if let Some((high, included)) = &self.high {
            match high.eval(&[], scope)? {
                Value::Null => return Ok(None),
                Value::Int(n) => until = offset(if *included { n.saturating_add(1) } else { n }),
                _ => {}
            }
        }
        Ok(Some(Streaming { name, known: None, next, until, batch: 64 }))
    }
}

impl Streaming {
    pub(super) fn read(
        &self,
        source: &StreamSource,
        rows: &dyn Rows,
        at: LogPosition,
    ) -> Result<Streamed, Miss> {
        let at = source.at.unwrap_or(at);
        let Some((stream, name)) = &self.known else { return Ok(self.look_up(rows, at)) };
        let whole = STREAM_WRITTEN.iter().any(|place| source.places.contains(place));
        // It is below 2^64, which is a number.
        let tenant = text::parse(&rows.tenant().0.to_string(), &Type::Decimal(None)).unwrap_or_default();
        let (mut found, mut next, mut bytes) = (Vec::new(), self.next, 0);
        let scan = StreamScan { stream: *stream, from: self.next, at, whole };
        let mut over = false;
        let all = rows.stream(&scan, &mut |record: Record<'_>| {
            if record.offset >= self.until {
                over = true;
                return false;
            }
            next = record.offset.next();
            bytes += record.written.map_or(0, |(_, payload)| payload.len());
            let count = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
            let value = |place: &usize| match (place, record.written) {
                (0, _) => tenant.clone(),
                (1, _) => Value::text(name),
                (2, _) => count(record.offset.0),
                (3, _) => count(record.op.0),
                (4, Some((micros, _))) => Value::TimestampTz(micros),
                (_, Some((_, payload))) => Value::Bytes(Arc::from(payload)),
                (_, None) => Value::Null,
            };
            found.push(source.places.iter().map(value).collect());
            found.len() < self.batch && bytes < STREAM_STEP_BYTES
        })?;
        Ok(Streamed::Records(found, next, all || over))
    }

    /// The stream of that name, or else of that number.
    fn look_up(&self, rows: &dyn Rows, at: LogPosition) -> Streamed {
        let number = self.name.parse().ok().map(StreamId);
        let (mut named, mut numbered, mut names) = (None, None, Vec::new());
        rows.streams(at, &mut |id, name, end| {
            if *name == *self.name {
                named.get_or_insert((id, Arc::from(name), end));
            } else if Some(id) == number {
                numbered = Some((id, Arc::from(name), end));
            } else if named.is_none() {
                names.push(name.to_string());
            }
        });
        match named.or(numbered) {
            Some((id, name, end)) => Streamed::Found(id, name, end),
            None => Streamed::Unknown(near(&self.name, names.iter().map(String::as_str))),
        }
    }

    /// Takes what was read; false at the end.
    pub(super) fn advance(
        &mut self,
        source: &StreamSource,
        read: Streamed,
        scope: &mut Scope<'_>,
    ) -> Result<(bool, Vec<Row>), SqlError> {
        match read {
            Streamed::Unknown(other) => {
                let message = format!("stream \"{}\" does not exist", self.name);
                let error = SqlError::new(SqlState::UndefinedObject, message);
                Err(match other {
                    Some(other) => error.hint(format!("Perhaps you meant the stream \"{other}\".")),
                    None => error.hint("A stream is made by the first append to it."),
                })
            }
            Streamed::Found(id, name, end) => {
                // What comes behind the end would be read, too.
                if source.at.is_none() && self.until > end {
                    scope.shared.note_stream(id, end);
                }
                self.known = Some((id, name));
                self.until = self.until.min(end);
                Ok((self.next < self.until, Vec::new()))
            }
            Streamed::Records(rows, next, all) => {
                self.next = next;
                self.batch = (self.batch * 4).min(SCAN_BATCH_ROWS);
                Ok((!all && self.next < self.until, rows))
            }
        }
    }
}
