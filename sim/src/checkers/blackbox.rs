//! Linearizability as clients see it: is there an order of all that was asked, each thing taking effect once between
//! question and answer, that explains every answer?
//!
//! A second opinion. It looks at nothing but what clients asked and heard, so it shares no assumption with the checkers
//! that follow the log: not that there is a log, nor where a verdict says that its command stands. The
//! search is Wing and Gong's (*Testing and Verifying Concurrent Objects*, 1993), with Lowe's memory of states
//! (*Testing for Linearizability*, 2017), one stream at a time. Creating a tenant concerns all its streams and is part of each
//! of their histories: an order of the whole orders each part.
//!
//! The search is exponential at worst. What lies beyond its limits is counted as skipped, never as passed.

use std::collections::{BTreeMap, BTreeSet};

use kimberlite_crypto::checksum;
use kimberlite_types::{Instant, Offset, StreamId, TenantId};
use kimberlite_wire::client::{Answer, Query};
use kimberlite_wire::command::{Command, Outcome, Refusal};

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "blackbox";
const EXPLAINED: &str = "some order of what clients asked explains all that they heard";

/// Commands and queries of one stream's history at most: what a run of 400 requests may ask of one stream.
const HISTORY_MAX: usize = 512;

/// Steps of one search at most. One without concurrency takes a step for each command and query.
const STEPS_MAX: u64 = 50_000;

/// What was asked of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ask {
    CreateTenant,
    CreateStream { name: u64 },
    Append { expected: Option<Offset>, records: Vec<u64> },
    Info,
    Read { from: Offset },
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing, or nothing that tells: it took effect at any time since, or never.
    Nothing,
    Done,
    Appended {
        first: Offset,
        count: u32,
    },
    Refused(Refusal),
    Stream {
        name: u64,
        end: Offset,
    },
    Events {
        end: Offset,
        records: Vec<u64>,
    },
}

/// One thing asked, and heard of.
#[derive(Clone, Debug)]
struct Deed {
    ask: Ask,
    heard: Heard,
    /// When it was asked and answered, in observations; one without an answer is open for ever.
    asked: u64,
    answered: u64,
}

impl Deed {
    /// Whether it had an effect if it happened: then its place in the order matters to others.
    const fn changes(&self) -> bool {
        matches!(
            (&self.ask, &self.heard),
            (Ask::CreateTenant | Ask::CreateStream { .. } | Ask::Append { .. }, Heard::Nothing | Heard::Done)
                | (Ask::Append { .. }, Heard::Appended { .. })
        )
    }
}

/// A stream as its clients imagine it.
#[derive(Clone, Debug, Default)]
struct State {
    tenant: bool,
    name: Option<u64>,
    records: Vec<u64>,
    /// After each record, a hash of all up to it.
    sums: Vec<u64>,
}

/// What an imagined stream was before a step: records are only ever added, so their number is enough.
type Before = (bool, Option<u64>, usize);

/// What tells two imagined streams apart.
type Key = (bool, Option<u64>, usize, u64);

impl State {
    const fn mark(&self) -> Before {
        (self.tenant, self.name, self.records.len())
    }

    fn back_to(&mut self, (tenant, name, records): Before) {
        self.tenant = tenant;
        self.name = name;
        self.records.truncate(records);
        self.sums.truncate(records);
    }

    fn key(&self) -> Key {
        (self.tenant, self.name, self.records.len(), self.sums.last().copied().unwrap_or_default())
    }

    fn push(&mut self, records: &[u64]) {
        for record in records {
            let last = self.sums.last().copied().unwrap_or(0x9e37_79b9_7f4a_7c15);
            self.records.push(*record);
            self.sums.push((last.rotate_left(23) ^ record).wrapping_mul(0x2545_f491_4f6c_dd1d));
        }
    }

    fn end(&self) -> Offset {
        Offset(self.records.len() as u64)
    }

    /// Why a question about the stream is refused, if it is.
    const fn missing(&self) -> Option<Refusal> {
        match (self.tenant, self.name) {
            (false, _) => Some(Refusal::NoTenant),
            (true, None) => Some(Refusal::NoStream),
            (true, Some(_)) => None,
        }
    }

    /// Does what was asked, if what was heard of it is what one would hear now. Changes nothing otherwise.
    fn step(&mut self, deed: &Deed) -> bool {
        let due = self.due(&deed.ask).cut_to(&deed.heard);
        let explains = match (&deed.heard, &due) {
            // Without an effect it might as well never have happened, and need not be tried.
            (Heard::Nothing, due) => !matches!(due, Heard::Refused(_)),
            (heard, due) => heard == due,
        };
        if explains && !matches!(due, Heard::Refused(_)) {
            match &deed.ask {
                Ask::CreateTenant => self.tenant = true,
                Ask::CreateStream { name } => self.name = Some(*name),
                Ask::Append { records, .. } => self.push(records),
                Ask::Info | Ask::Read { .. } => {}
            }
        }
        explains
    }

    /// What one would hear now. Of a read, all records from there on: the answer may hold fewer.
    fn due(&self, ask: &Ask) -> Heard {
        match (ask, self.missing()) {
            (Ask::CreateTenant, Some(Refusal::NoTenant))
            | (Ask::CreateStream { .. }, Some(Refusal::NoStream)) => Heard::Done,
            (Ask::CreateTenant, _) => Heard::Refused(Refusal::TenantExists),
            (Ask::CreateStream { .. }, None) => Heard::Refused(Refusal::StreamExists),
            (_, Some(refusal)) => Heard::Refused(refusal),
            (Ask::Append { expected, records }, None) => match expected {
                Some(expected) if *expected != self.end() => {
                    Heard::Refused(Refusal::OffsetMismatch { actual: self.end() })
                }
                _ => Heard::Appended { first: self.end(), count: records.len() as u32 },
            },
            (Ask::Info, None) => Heard::Stream { name: self.name.unwrap_or_default(), end: self.end() },
            (Ask::Read { from }, None) => {
                let from = usize::try_from(from.0).unwrap_or(usize::MAX).min(self.records.len());
                Heard::Events { end: self.end(), records: self.records[from..].to_vec() }
            }
        }
    }
}

impl Heard {
    /// With as many records as were heard: an answer to a read may hold fewer than there are.
    fn cut_to(self, heard: &Self) -> Self {
        match (self, heard) {
            (Self::Events { end, mut records }, Self::Events { records: some, .. }) => {
                records.truncate(some.len());
                Self::Events { end, records }
            }
            (other, _) => other,
        }
    }
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// An order that explains everything.
    Order,
    /// None; the most that could be explained, and what was to come next by the time of its answer.
    None { explained: usize, stuck: usize },
    /// The limit came first.
    Unknown,
}

/// One step of the order that is being tried.
struct Tried {
    before: Before,
    /// What was taken, by number.
    taken: usize,
    /// Whether what follows it in the order of answers is to be tried in its place.
    others: bool,
}

/// Searches an order for these deeds, which are sorted by their answers.
fn search(deeds: &[Deed]) -> Found {
    let mut state = State::default();
    let mut done = vec![0_u64; deeds.len().div_ceil(64)];
    let mut seen: BTreeSet<(Vec<u64>, Key)> = BTreeSet::new();
    let mut path: Vec<Tried> = Vec::new();
    let (mut from, mut steps, mut best) = (0, 0, (0, 0));
    loop {
        let is_open = |number: &usize| done[number / 64] >> (number % 64) & 1 == 0;
        let first = (0..deeds.len()).find(is_open);
        let Some(first) = first.filter(|first| deeds[*first].answered < u64::MAX) else {
            return Found::Order;
        };
        if path.len() >= best.0 {
            best = (path.len(), first);
        }
        // Whatever was asked before the first answer that is still to be explained may come next.
        let until = deeds[first].answered;
        let before = state.mark();
        let mut next = None;
        for number in (from..deeds.len()).filter(is_open).filter(|number| deeds[*number].asked < until) {
            steps += 1;
            if steps > STEPS_MAX {
                return Found::Unknown;
            }
            if state.step(&deeds[number]) {
                let mut after = done.clone();
                after[number / 64] |= 1 << (number % 64);
                if seen.insert((after, state.key())) {
                    next = Some(number);
                    break;
                }
                state.back_to(before);
            }
        }
        if let Some(taken) = next {
            done[taken / 64] |= 1 << (taken % 64);
            // What changes nothing may as well come as soon as it can: nothing else need be tried in its place.
            path.push(Tried { before, taken, others: deeds[taken].changes() });
            from = 0;
            continue;
        }
        loop {
            let Some(Tried { before, taken, others }) = path.pop() else {
                return Found::None { explained: best.0, stuck: best.1 };
            };
            done[taken / 64] &= !(1 << (taken % 64));
            state.back_to(before);
            if others {
                from = taken + 1;
                break;
            }
        }
    }
}

/// A command or query under way.
struct Open {
    tenant: TenantId,
    /// None: it concerns all streams of the tenant.
    stream: Option<StreamId>,
    ask: Ask,
    asked: u64,
}

/// Remembers what clients asked and heard, and judges it at the end.
#[derive(Default)]
pub struct Blackbox {
    clock: u64,
    open: BTreeMap<(u16, u64), Open>,
    streams: BTreeMap<(TenantId, StreamId), Vec<Deed>>,
    tenants: BTreeMap<TenantId, Vec<Deed>>,
    compared: u64,
    skipped: u64,
}

/// A short name for bytes.
fn short(bytes: &[u8]) -> u64 {
    let sum = checksum(bytes);
    let (head, _) = sum.as_bytes().split_first_chunk().expect("a checksum is longer than eight bytes");
    u64::from_le_bytes(*head)
}

impl Blackbox {
    fn on_submitted(&mut self, client: u16, ticket: u64, tenant: TenantId, command: &[u8]) {
        let (stream, ask) = match Command::decode(command) {
            Ok(Command::CreateTenant { .. }) => (None, Ask::CreateTenant),
            Ok(Command::CreateStream { stream, name }) => {
                (Some(stream), Ask::CreateStream { name: short(name.as_bytes()) })
            }
            Ok(Command::AppendBatch { stream, expected, records }) => {
                let records = records.iter().map(short).collect();
                (Some(stream), Ask::Append { expected, records })
            }
            // It is refused, whatever the state; or is about tables, which are not streams.
            Ok(
                Command::Register | Command::Facts { .. } | Command::Stage { .. } | Command::Commit { .. },
            )
            | Err(_) => return,
        };
        self.open.insert((client, ticket), Open { tenant, stream, ask, asked: self.clock });
    }

    fn on_asked(&mut self, client: u16, ticket: u64, query: &Query) {
        let (tenant, stream, ask) = match *query {
            Query::StreamInfo { tenant, stream } => (tenant, stream, Ask::Info),
            Query::ReadEvents { tenant, stream, from, .. } => (tenant, stream, Ask::Read { from }),
            // A list is compared with what was committed, not with what others heard.
            Query::Status | Query::Streams { .. } => return,
        };
        let open = Open { tenant, stream: Some(stream), ask, asked: self.clock };
        self.open.insert((client, ticket), open);
    }

    fn close(&mut self, client: u16, ticket: u64, heard: Heard) {
        let Some(Open { tenant, stream, ask, asked }) = self.open.remove(&(client, ticket)) else { return };
        let known = heard != Heard::Nothing;
        if !known && matches!(ask, Ask::Info | Ask::Read { .. }) {
            return;
        }
        let deed = Deed { ask, heard, asked, answered: if known { self.clock } else { u64::MAX } };
        match stream {
            Some(stream) => self.streams.entry((tenant, stream)).or_default().push(deed),
            None => self.tenants.entry(tenant).or_default().push(deed),
        }
    }

    fn judge(&mut self) -> Result<(), Violation> {
        let open: Vec<(u16, u64)> = self.open.keys().copied().collect();
        for (client, ticket) in open {
            self.close(client, ticket, Heard::Nothing);
        }
        for ((tenant, stream), deeds) in &self.streams {
            let mut deeds = deeds.clone();
            deeds.extend(self.tenants.get(tenant).into_iter().flatten().cloned());
            deeds.sort_by_key(|deed| (deed.answered, deed.asked));
            let count = deeds.len();
            let found = if count > HISTORY_MAX { Found::Unknown } else { search(&deeds) };
            match found {
                Found::Order => self.compared += count as u64,
                Found::Unknown => self.skipped += 1,
                Found::None { explained, stuck } => hold!(
                    false,
                    EXPLAINED,
                    None,
                    None,
                    "{stream:?} of {tenant:?}: no order explains more than {explained} of {count}; then comes {:?}",
                    deeds[stuck]
                ),
            }
        }
        Ok(())
    }
}

/// What a verdict tells of the state, if anything.
fn heard_of(result: Result<Outcome, Refusal>) -> Heard {
    match result {
        Ok(Outcome::Appended { first, count }) => Heard::Appended { first, count },
        Ok(Outcome::TenantCreated | Outcome::StreamCreated) => Heard::Done,
        // No word on whether an earlier copy of it took effect, or none on the state.
        Ok(Outcome::Registered { .. } | Outcome::Written { .. } | Outcome::Staged { .. })
        | Err(
            Refusal::NoSession
            | Refusal::Stale
            | Refusal::TooMany
            | Refusal::Malformed
            | Refusal::Conflict
            | Refusal::Sql { .. },
        ) => Heard::Nothing,
        Err(refusal) => Heard::Refused(refusal),
    }
}

impl Checker for Blackbox {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[EXPLAINED]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        self.clock += 1;
        match seen {
            Observation::Submitted { client, ticket, tenant, command } => {
                self.on_submitted(*client, *ticket, *tenant, command);
            }
            Observation::Asked { client, ticket, query } => self.on_asked(*client, *ticket, query),
            Observation::Done { client, ticket, verdict } => {
                self.close(*client, *ticket, heard_of(verdict.result));
            }
            Observation::Answered { client, ticket, answer } => {
                let heard = match answer {
                    Answer::Stream { name, end } => Heard::Stream { name: short(name.as_bytes()), end: *end },
                    Answer::Events { end, records, .. } => {
                        Heard::Events { end: *end, records: records.records().iter().map(short).collect() }
                    }
                    Answer::Refused(refusal) => Heard::Refused(*refusal),
                    Answer::Status(_)
                    | Answer::Damaged { .. }
                    | Answer::Streams { .. }
                    | Answer::Sql(_)
                    | Answer::SqlPart(_) => Heard::Nothing,
                };
                self.close(*client, *ticket, heard);
            }
            Observation::Failed { client, ticket } => self.close(*client, *ticket, Heard::Nothing),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
        self.judge()
    }

    fn compared(&self) -> u64 {
        self.compared
    }

    fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;

    const A: u64 = 1;
    const B: u64 = 2;
    const C: u64 = 3;

    fn deed(ask: Ask, heard: Heard, asked: u64, answered: u64) -> Deed {
        Deed { ask, heard, asked, answered }
    }

    fn append(record: u64, heard: Heard, asked: u64, answered: u64) -> Deed {
        deed(Ask::Append { expected: None, records: vec![record] }, heard, asked, answered)
    }

    fn at(first: u64) -> Heard {
        Heard::Appended { first: Offset(first), count: 1 }
    }

    fn read(records: &[u64], asked: u64, answered: u64) -> Deed {
        let heard = Heard::Events { end: Offset(records.len() as u64), records: records.to_vec() };
        deed(Ask::Read { from: Offset(0) }, heard, asked, answered)
    }

    /// The tenant and the stream are made first; then comes `history`, from moment 10 on.
    fn found(history: Vec<Deed>) -> Found {
        let mut deeds = vec![
            deed(Ask::CreateTenant, Heard::Done, 1, 2),
            deed(Ask::CreateStream { name: 5 }, Heard::Done, 3, 4),
        ];
        deeds.extend(history);
        deeds.sort_by_key(|deed| (deed.answered, deed.asked));
        search(&deeds)
    }

    fn is_refuted(history: Vec<Deed>) -> bool {
        matches!(found(history), Found::None { .. })
    }

    #[test]
    fn histories_that_some_order_explains_pass() {
        let never = u64::MAX;
        let histories = [
            vec![append(A, at(0), 10, 11), read(&[A], 12, 13)],
            // Concurrent, and the one that was answered later came first.
            vec![append(A, at(1), 10, 20), append(B, at(0), 11, 30), read(&[B, A], 40, 41)],
            // While it is appended it may be seen or not.
            vec![append(A, at(0), 10, 30), read(&[], 11, 12), read(&[A], 13, 14)],
            // Nobody heard of it, yet it took effect, in the end.
            vec![append(A, Heard::Nothing, 10, never), read(&[], 11, 12), read(&[A], 13, 14)],
            // Or it did not.
            vec![append(A, Heard::Nothing, 10, never), append(B, at(0), 11, 12), read(&[B], 13, 14)],
            vec![
                deed(
                    Ask::Append { expected: Some(Offset(7)), records: vec![A] },
                    Heard::Refused(Refusal::OffsetMismatch { actual: Offset(1) }),
                    10,
                    20,
                ),
                append(B, at(0), 11, 12),
            ],
            vec![deed(Ask::CreateStream { name: 6 }, Heard::Refused(Refusal::StreamExists), 10, 11)],
            vec![deed(Ask::Info, Heard::Refused(Refusal::NoStream), 2, 12)],
        ];
        for history in histories {
            assert_eq!(found(history.clone()), Found::Order, "{history:?}");
        }
    }

    #[test]
    fn histories_that_no_order_explains_are_refuted() {
        let never = u64::MAX;
        let histories = [
            // A stale read.
            vec![append(A, at(0), 10, 11), read(&[], 12, 13)],
            // A read that goes back.
            vec![append(A, at(0), 10, 30), read(&[A], 11, 12), read(&[], 13, 14)],
            // Two appends at one offset.
            vec![append(A, at(0), 10, 20), append(B, at(0), 11, 21)],
            // An offset that was skipped.
            vec![append(A, at(1), 10, 11)],
            // Records in an order that contradicts the answers.
            vec![append(A, at(0), 10, 11), append(B, at(1), 12, 13), read(&[B, A], 14, 15)],
            // A record that nobody appended.
            vec![append(A, at(0), 10, 11), read(&[C], 12, 13)],
            // One whose outcome nobody knows took effect twice.
            vec![append(A, Heard::Nothing, 10, never), read(&[A, A], 11, 12)],
            // It was seen, and then it was not.
            vec![append(A, Heard::Nothing, 10, never), read(&[A], 11, 12), read(&[], 13, 14)],
            // An append that expected another end.
            vec![deed(Ask::Append { expected: Some(Offset(7)), records: vec![A] }, at(0), 10, 11)],
            // Made once, it is there.
            vec![deed(Ask::Info, Heard::Refused(Refusal::NoStream), 10, 12)],
            vec![deed(Ask::Info, Heard::Stream { name: 6, end: Offset(0) }, 10, 12)],
            vec![deed(Ask::CreateTenant, Heard::Done, 10, 12)],
        ];
        for history in histories {
            assert!(is_refuted(history.clone()), "{history:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_limits_is_not_decided() {
        // Appends that all are under way at once, of which nobody heard, and a read of something else.
        let mut history: Vec<Deed> =
            (0..40).map(|record| append(record, Heard::Nothing, 10, u64::MAX)).collect();
        history.push(read(&[99], 11, 12));
        assert_eq!(found(history), Found::Unknown);
    }

    #[test]
    fn it_judges_what_clients_said_and_heard_and_counts_what_it_skips() {
        let history = History::small(3);
        let rules = checker_rules(&Blackbox::default());
        let read = Query::ReadEvents {
            tenant: TENANT,
            stream: STREAM,
            from: Offset(1),
            records_max: 2,
            bytes_max: 99,
        };
        let records =
            |records: &[&[u8]]| Answer::Events { from: Offset(1), end: Offset(4), records: packed(records) };
        for (answer, holds) in [(records(&[b"two", b"three"]), true), (records(&[b"two", b"four"]), false)] {
            let mut checker = Blackbox::default();
            for op in 2..=4 {
                for entry in 0..history.header(op).entries as usize {
                    submitted(&mut checker, &history, op, entry).unwrap();
                    done(&mut checker, op, entry, history.verdict(op, entry)).unwrap();
                }
            }
            asked(&mut checker, 1, &read).unwrap();
            answered(&mut checker, 1, &answer).unwrap();
            let result = finish_on(&mut checker, &history, |_| {});
            if holds {
                result.unwrap();
                assert_eq!((checker.compared(), checker.skipped()), (6, 0));
            } else {
                assert_broken(&rules, result, EXPLAINED);
            }
        }
        let mut checker = Blackbox::default();
        for ticket in 0..=HISTORY_MAX as u64 {
            let command = history.command(3, 0);
            let submitted = Observation::Submitted { client: 0, ticket, tenant: TENANT, command: &command };
            observe(&mut checker, &submitted).unwrap();
        }
        finish_on(&mut checker, &history, |_| {}).unwrap();
        assert_eq!((checker.compared(), checker.skipped()), (0, 1));
    }
}
