//! A script of disk asks and the answers they must get.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_types::Instant;

use super::actor::{Actor, Step};
use super::content::{check, content};
use crate::{Buf, Event, Io, Place, ReadFault, Token};

/// One ask. Lengths are in bytes; written content depends on the seed and the offset in the zone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Write(Place, u64, u64),
    Read(Place, u64, Expect),
    Trim(Place, u64),
}

/// What a read must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// What was written there with this seed.
    Seed(u64),
    /// Zeros.
    Zeros,
    /// `ReadFault::Absent`.
    Absent,
    /// One of the two, as after a trim.
    ZerosOrAbsent,
}

/// Asks round by round: all asks of a round at once, the next round when all are answered.
pub(super) struct Script {
    rounds: Vec<Vec<Op>>,
    round: usize,
    asked: u64,
    waiting: BTreeMap<Token, Op>,
    linger: Duration,
    end: Option<Instant>,
}

impl Script {
    pub(super) fn new(rounds: Vec<Vec<Op>>) -> Self {
        Self { rounds, round: 0, asked: 0, waiting: BTreeMap::new(), linger: Duration::ZERO, end: None }
    }

    /// Stays for `linger` after the last answer, to hear what should not come.
    pub(super) fn lingering(self, linger: Duration) -> Self {
        Self { linger, ..self }
    }

    fn next_round(&mut self, now: Instant, io: &mut dyn Io) -> Step {
        let Some(ops) = self.rounds.get(self.round) else {
            let end = now.after(self.linger);
            self.end = Some(end);
            return if self.linger.is_zero() { Step::Passed } else { Step::Until(end) };
        };
        self.round += 1;
        for op in ops {
            // From both ends of the range, because a token is the machine's: all 64 bits of it.
            let token = Token(if self.asked.is_multiple_of(2) { self.asked } else { u64::MAX - self.asked });
            self.asked += 1;
            self.waiting.insert(token, *op);
            match *op {
                Op::Write(at, len, seed) => io.write(token, at, content(seed, at.offset, len as usize)),
                Op::Read(at, len, _) => io.read(token, at, Buf::zeroed(len as usize)),
                Op::Trim(at, len) => io.trim(token, at, len),
            }
        }
        Step::Wait
    }

    fn answered(&mut self, token: Token) -> Result<Op, String> {
        self.waiting.remove(&token).ok_or_else(|| format!("an answer to {token:?}, which is not in flight"))
    }
}

impl Actor for Script {
    fn start(&mut self, now: Instant, io: &mut dyn Io) -> Result<Step, String> {
        Ok(self.next_round(now, io))
    }

    fn on(&mut self, now: Instant, event: Event, io: &mut dyn Io) -> Result<Step, String> {
        match event {
            Event::Read { token, result } => match self.answered(token)? {
                Op::Read(at, len, expect) => compare(at, len, expect, &result)?,
                op => return Err(format!("{op:?} answered as a read")),
            },
            Event::Written { token, result } => match self.answered(token)? {
                Op::Write(..) if result.is_ok() => {}
                op => return Err(format!("{op:?} answered as a write: {result:?}")),
            },
            Event::Trimmed { token, result } => match self.answered(token)? {
                Op::Trim(..) if result.is_ok() => {}
                op => return Err(format!("{op:?} answered as a trim: {result:?}")),
            },
            Event::Wake => {
                let over = self.end.is_some_and(|end| now >= end);
                return Ok(if over { Step::Passed } else { Step::Keep });
            }
            _ => return Ok(Step::Keep),
        }
        Ok(if self.waiting.is_empty() { self.next_round(now, io) } else { Step::Keep })
    }
}

fn compare(at: Place, len: u64, expect: Expect, result: &Result<Buf, ReadFault>) -> Result<(), String> {
    let matches = match (expect, result) {
        (_, Ok(buf)) if buf.len() as u64 != len => {
            return Err(format!("{} bytes read at {at} instead of {len}", buf.len()));
        }
        (Expect::Seed(seed), Ok(buf)) => {
            return check(seed, at.offset, buf).map_err(|why| format!("{at}: {why}"));
        }
        (Expect::Zeros | Expect::ZerosOrAbsent, Ok(buf)) => buf.iter().all(|byte| *byte == 0),
        (Expect::Absent | Expect::ZerosOrAbsent, Err(ReadFault::Absent)) => true,
        (Expect::Absent, Ok(_)) | (_, Err(_)) => false,
    };
    if matches { Ok(()) } else { Err(format!("{at}: expected {expect:?}, {}", found(result))) }
}

fn found(result: &Result<Buf, ReadFault>) -> String {
    match result {
        Ok(buf) if buf.iter().all(|byte| *byte == 0) => "found zeros".into(),
        Ok(_) => "found other bytes".into(),
        Err(fault) => format!("found {fault:?}"),
    }
}
