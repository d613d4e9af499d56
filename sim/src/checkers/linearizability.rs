//! An answer shows the state as it was at one moment between question and answer, and a command takes effect at one. The
//! order of commits is the witness, so a run of any length is judged in time in proportion to it.

use std::collections::BTreeMap;

use kimberlite_crypto::{Checksum, checksum};
use kimberlite_kernel::Applied;
use kimberlite_runtime::Note;
use kimberlite_types::{Instant, Offset, Op, ReplicaId, StreamId, TenantId};
use kimberlite_wire::Prepare;
use kimberlite_wire::client::{Answer, ListedStream, Query, STREAMS_ANSWERED_MAX};
use kimberlite_wire::command::{Command, Outcome, RecordsBuilder, Refusal};

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "linearizability";
const ORDER: &str = "ops are first executed in order";
const MATCH: &str = "an answer is of the kind that was asked for";
const STALE: &str = "an answer shows everything acknowledged or read before its question";
const FUTURE: &str = "an answer shows nothing that is not committed";
const WHOLE: &str = "an answer shows the state between two ops";
const RECORDS: &str = "records are those of the log, without gaps, from the offset asked for";
const BOUNDS: &str = "an answer keeps the bounds asked for, and is not empty while records remain";
const REAL_TIME: &str = "a command is decided after everything known when it was submitted";
const REFUSED: &str = "what exists is not refused";

/// What a stream was, at every op.
struct Stream {
    name: String,
    /// The ops that changed it, and its next offset after each; the first created it.
    ends: Vec<(Op, Offset)>,
    /// The records, as hashes.
    records: Vec<Checksum>,
}

impl Stream {
    fn created(&self) -> Op {
        self.ends[0].0
    }

    /// The next offset after `op`, or none if the stream was not there yet.
    fn end_at(&self, op: Op) -> Option<Offset> {
        let after = self.ends.partition_point(|(changed, _)| *changed <= op);
        after.checked_sub(1).map(|last| self.ends[last].1)
    }

    /// The first op after which the stream ended just there.
    fn first_at(&self, end: Offset) -> Option<Op> {
        let place = self.ends.binary_search_by_key(&end, |(_, end)| *end).ok()?;
        Some(self.ends[place].0)
    }
}

/// A question under way, and the op whose effect its answer must show.
struct Asked {
    query: Query,
    after: Op,
}

/// Follows streams through the committed log, and what clients have seen of it.
#[derive(Default)]
pub struct Linearizability {
    executed: Op,
    tenants: BTreeMap<TenantId, Op>,
    streams: BTreeMap<(TenantId, StreamId), Stream>,
    /// The newest op whose effect some client knows of.
    known: Op,
    asked: BTreeMap<(u16, u64), Asked>,
    /// Commands under way, and the newest op that was known when each was submitted.
    submitted: BTreeMap<(u16, u64), Op>,
    compared: u64,
}

impl Linearizability {
    fn on_prepare(
        &mut self,
        replica: ReplicaId,
        prepare: &Prepare,
        applied: &Applied,
    ) -> Result<(), Violation> {
        let op = prepare.header.op;
        if op <= self.executed {
            return Ok(());
        }
        let due = self.executed.next();
        hold!(op == due, ORDER, replica, op, "{replica:?} executes op {op}; op {due} was not seen");
        for (entry, said) in prepare.entries().flatten().zip(&applied.verdicts) {
            if let (false, Ok(outcome), Ok(command)) =
                (said.duplicate, said.verdict.result, Command::decode(entry.command))
            {
                self.change(op, entry.header.tenant, outcome, &command);
            }
        }
        self.executed = op;
        Ok(())
    }

    /// Takes in a command that had an effect. Whether it should have had it is for others to say.
    fn change(&mut self, op: Op, tenant: TenantId, outcome: Outcome, command: &Command<'_>) {
        match (command, outcome) {
            (Command::CreateTenant { .. }, Outcome::TenantCreated) => {
                self.tenants.entry(tenant).or_insert(op);
            }
            (Command::CreateStream { stream, name }, Outcome::StreamCreated) => {
                self.streams.entry((tenant, *stream)).or_insert_with(|| Stream {
                    name: (*name).to_owned(),
                    ends: vec![(op, Offset(0))],
                    records: Vec::new(),
                });
            }
            (Command::AppendBatch { stream, records, .. }, Outcome::Appended { .. }) => {
                if let Some(stream) = self.streams.get_mut(&(tenant, *stream)) {
                    stream.records.extend(records.iter().map(checksum));
                    let end = Offset(stream.records.len() as u64);
                    match stream.ends.last_mut() {
                        Some((changed, last)) if *changed == op => *last = end,
                        _ => stream.ends.push((op, end)),
                    }
                }
            }
            _ => {}
        }
    }

    fn on_answer(&mut self, client: u16, ticket: u64, answer: &Answer) -> Result<(), Violation> {
        let asked = self.asked.remove(&(client, ticket));
        let who = format!("client {client}, ticket {ticket}");
        let Some(Asked { query, after }) = asked else {
            hold!(false, MATCH, None, None, "{who}: an answer to nothing that was asked");
            return Ok(());
        };
        self.compared += 1;
        match (&query, answer) {
            (Query::StreamInfo { tenant, stream }, Answer::Stream { name, end }) => {
                let shown = self.at_end(&who, (*tenant, *stream), *end, after)?;
                let real = &self.streams[&(*tenant, *stream)].name;
                hold!(name == real, RECORDS, None, shown, "{who}: the stream is {real:?}, not {name:?}");
                self.known = self.known.max(shown);
            }
            (Query::ReadEvents { tenant, stream, .. }, Answer::Events { from, end, records }) => {
                let shown = self.at_end(&who, (*tenant, *stream), *end, after)?;
                let stream = &self.streams[&(*tenant, *stream)];
                check_records(&who, &query, stream, (*from, *end), records)?;
                self.known = self.known.max(shown);
            }
            (Query::Streams { tenant, from, streams_max }, Answer::Streams { streams, more }) => {
                let most = (*streams_max).min(STREAMS_ANSWERED_MAX) as usize;
                let full = streams.len() == most;
                hold!(
                    streams.len() <= most,
                    BOUNDS,
                    None,
                    None,
                    "{who}: {} of {most} streams",
                    streams.len()
                );
                hold!(
                    full || !more,
                    BOUNDS,
                    None,
                    None,
                    "{who}: {} of {most} streams, and more",
                    streams.len()
                );
                let shown = self.check_list(&who, (*tenant, *from), streams, *more, after)?;
                self.known = self.known.max(shown);
            }
            (Query::Streams { tenant, .. }, Answer::Refused(refusal)) => {
                self.check_refusal(&who, *tenant, None, *refusal, after)?;
            }
            (
                Query::StreamInfo { tenant, stream } | Query::ReadEvents { tenant, stream, .. },
                Answer::Refused(refusal),
            ) => self.check_refusal(&who, *tenant, Some(*stream), *refusal, after)?,
            // A node's own standing is no part of the state; a lone node may say that its disk is damaged.
            (Query::Status, Answer::Status(_))
            | (Query::StreamInfo { .. } | Query::ReadEvents { .. }, Answer::Damaged { .. }) => {}
            _ => hold!(false, MATCH, None, None, "{who}: asked {query:?}, heard {answer:?}"),
        }
        Ok(())
    }

    /// Finds the first moment from `after` on at which the stream ended at `end`.
    fn at_end(
        &self,
        who: &str,
        (tenant, id): (TenantId, StreamId),
        end: Offset,
        after: Op,
    ) -> Result<Op, Violation> {
        let Some(stream) = self.streams.get(&(tenant, id)) else {
            hold!(false, FUTURE, None, None, "{who}: {id:?} of {tenant:?} does not exist");
            return Ok(after);
        };
        let least = stream.end_at(after).unwrap_or_default();
        let most = Offset(stream.records.len() as u64);
        hold!(
            end >= least,
            STALE,
            None,
            after,
            "{who}: {id:?} ends at {end}; it ended at {least} at op {after}, known before the question"
        );
        hold!(end <= most, FUTURE, None, None, "{who}: {id:?} ends at {end}; {most} records are committed");
        let Some(shown) = stream.first_at(end) else {
            hold!(false, WHOLE, None, None, "{who}: after no op did {id:?} end at {end}");
            return Ok(after);
        };
        Ok(shown.max(after))
    }

    /// Finds the first moment from `after` on at which these were the tenant's streams, each with this end.
    fn check_list(
        &self,
        who: &str,
        (tenant, from): (TenantId, StreamId),
        listed: &[ListedStream],
        more: bool,
        after: Op,
    ) -> Result<Op, Violation> {
        let sorted = listed.is_sorted_by(|one, next| one.id < next.id);
        let from_there = listed.first().is_none_or(|first| first.id >= from);
        hold!(sorted && from_there, WHOLE, None, None, "{who}: streams from {from:?} on: {listed:?}");
        let Some(since) = self.tenants.get(&tenant) else {
            hold!(false, FUTURE, None, None, "{who}: {tenant:?} does not exist");
            return Ok(after);
        };
        let mut moment = after.max(*since);
        for stream in listed {
            moment = moment.max(self.at_end(who, (tenant, stream.id), stream.end, after)?);
        }
        if more {
            // The answer is of a moment at which there was another one behind these.
            let behind = self.streams.range((tenant, from)..=(tenant, StreamId(u64::MAX)));
            let behind = behind.filter(|((_, id), _)| listed.last().is_none_or(|last| *id > last.id));
            let first = behind.filter_map(|(_, stream)| stream.ends.first().map(|(op, _)| *op)).min();
            moment = moment.max(first.unwrap_or_default());
        }
        let there: Vec<_> = self
            .streams
            .range((tenant, from)..=(tenant, StreamId(u64::MAX)))
            .filter_map(|((_, id), stream)| Some((*id, &stream.name, stream.end_at(moment)?)))
            .collect();
        let same = listed.iter().map(|stream| (stream.id, &stream.name, stream.end));
        hold!(
            there.len() >= listed.len() && there.iter().copied().zip(same).all(|(real, said)| real == said),
            WHOLE,
            None,
            moment,
            "{who}: at op {moment} the streams from {from:?} on were {there:?}, not {listed:?}"
        );
        hold!(
            more == (there.len() > listed.len()),
            WHOLE,
            None,
            moment,
            "{who}: {} streams, more: {more}; at op {moment} there were {}",
            listed.len(),
            there.len()
        );
        Ok(moment)
    }

    fn check_refusal(
        &self,
        who: &str,
        tenant: TenantId,
        id: Option<StreamId>,
        refusal: Refusal,
        after: Op,
    ) -> Result<(), Violation> {
        let tenant_since = self.tenants.get(&tenant);
        let holds = match (refusal, id) {
            (Refusal::NoTenant, _) => tenant_since.is_none_or(|since| *since > after),
            (Refusal::NoStream, Some(id)) => {
                // Some moment after the question has the tenant and not the stream.
                let stream_since = self.streams.get(&(tenant, id)).map(Stream::created);
                tenant_since
                    .is_some_and(|tenant| stream_since.is_none_or(|stream| stream > after.max(*tenant)))
            }
            _ => {
                hold!(false, MATCH, None, None, "{who}: a query is refused with {refusal:?}");
                return Ok(());
            }
        };
        hold!(holds, REFUSED, None, after, "{who}: {id:?} of {tenant:?} is refused with {refusal:?}");
        Ok(())
    }
}

/// Whether the records are the stream's own, and as many as were asked for.
fn check_records(
    who: &str,
    query: &Query,
    stream: &Stream,
    (from, end): (Offset, Offset),
    records: &RecordsBuilder,
) -> Result<(), Violation> {
    let Query::ReadEvents { from: wanted, records_max, bytes_max, .. } = query else {
        unreachable!("only a read is answered with records");
    };
    let count = records.count();
    let sound = records.is_empty() || records.records().check().is_ok();
    hold!(sound, RECORDS, None, None, "{who}: the records are packed wrongly");
    hold!(from == *wanted, RECORDS, None, None, "{who}: records from {from}, asked from {wanted}");
    hold!(
        count == 0 || from.0.saturating_add(u64::from(count)) <= end.0,
        RECORDS,
        None,
        None,
        "{who}: {count} records from {from} of a stream that ends at {end}"
    );
    let mut bytes = 0;
    for (index, record) in records.records().iter().enumerate() {
        let offset = from.0 as usize + index;
        bytes += record.len();
        let same = stream.records[offset] == checksum(record);
        hold!(same, RECORDS, None, None, "{who}: the record at {offset} is another ({} bytes)", record.len());
    }
    hold!(
        count <= *records_max && (count <= 1 || bytes <= *bytes_max as usize),
        BOUNDS,
        None,
        None,
        "{who}: {count} records of {bytes} bytes; asked for {records_max} and {bytes_max} at most"
    );
    let remain = from < end && *records_max > 0;
    hold!(count > 0 || !remain, BOUNDS, None, None, "{who}: no record from {from}, though {end} exist");
    Ok(())
}

impl Checker for Linearizability {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[ORDER, MATCH, STALE, FUTURE, WHOLE, RECORDS, BOUNDS, REAL_TIME, REFUSED]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Note { replica, note: Note::Committed { prepare, applied, .. } } => {
                self.on_prepare(*replica, prepare, applied)
            }
            Observation::Submitted { client, ticket, .. } => {
                self.submitted.insert((*client, *ticket), self.known);
                Ok(())
            }
            Observation::Done { client, ticket, verdict } => {
                let op = verdict.position.op;
                let known = self.submitted.remove(&(*client, *ticket)).unwrap_or_default();
                self.compared += 1;
                hold!(
                    op > known,
                    REAL_TIME,
                    None,
                    op,
                    "client {client}: {ticket} was decided at op {op}; op {known} was known before it was submitted"
                );
                self.known = self.known.max(op);
                Ok(())
            }
            Observation::Asked { client, ticket, query } => {
                let asked = Asked { query: **query, after: self.known };
                self.asked.insert((*client, *ticket), asked);
                Ok(())
            }
            Observation::Answered { client, ticket, answer } => self.on_answer(*client, *ticket, answer),
            Observation::Failed { client, ticket } => {
                self.asked.remove(&(*client, *ticket));
                self.submitted.remove(&(*client, *ticket));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;

    const READ: Query =
        Query::ReadEvents { tenant: TENANT, stream: STREAM, from: Offset(0), records_max: 3, bytes_max: 9 };
    const INFO: Query = Query::StreamInfo { tenant: TENANT, stream: STREAM };

    /// A checker that has seen the first `ops` ops committed.
    fn after(history: &History, ops: u64) -> Linearizability {
        let mut checker = Linearizability::default();
        for op in 1..=ops {
            commit(&mut checker, 0, history, op).unwrap();
        }
        checker
    }

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Linearizability::default())
    }

    fn events(from: u64, end: u64, records: &[&[u8]]) -> Answer {
        Answer::Events { from: Offset(from), end: Offset(end), records: packed(records) }
    }

    fn info(end: u64) -> Answer {
        Answer::Stream { name: "visits".to_owned(), end: Offset(end) }
    }

    fn ask(checker: &mut Linearizability, query: &Query, answer: &Answer) -> Result<(), Violation> {
        asked(checker, 1, query).unwrap();
        answered(checker, 1, answer)
    }

    #[test]
    fn answers_from_any_moment_since_the_question_pass() {
        let history = History::small(3);
        let mut checker = after(&history, 2);
        for ticket in 0..5 {
            asked(&mut checker, ticket, if ticket < 3 { &INFO } else { &READ }).unwrap();
        }
        commit(&mut checker, 0, &history, 3).unwrap();
        commit(&mut checker, 0, &history, 4).unwrap();
        answered(&mut checker, 0, &info(4)).unwrap();
        answered(&mut checker, 1, &info(0)).unwrap();
        answered(&mut checker, 2, &info(3)).unwrap();
        answered(&mut checker, 3, &events(0, 3, &[b"one", b"two"])).unwrap();
        answered(&mut checker, 4, &events(0, 0, &[])).unwrap();
        assert_eq!(checker.compared(), 5);
    }

    #[test]
    fn a_stale_answer_is_noticed_after_an_acknowledgement_and_after_a_read() {
        let history = History::small(3);
        let mut checker = after(&history, 4);
        ask(&mut checker, &INFO, &info(3)).unwrap();
        assert_broken(&rules(), ask(&mut checker, &INFO, &info(0)), STALE);
        done(&mut checker, 4, 0, history.verdict(4, 0)).unwrap();
        assert_broken(&rules(), ask(&mut checker, &READ, &events(0, 3, &[b"one"])), STALE);
        ask(&mut checker, &READ, &events(0, 4, &[b"one"])).unwrap();
    }

    #[test]
    fn a_command_that_is_decided_in_the_past_is_noticed() {
        let history = History::small(3);
        let mut checker = after(&history, 4);
        submitted(&mut checker, &history, 3, 0).unwrap();
        submitted(&mut checker, &history, 4, 0).unwrap();
        done(&mut checker, 4, 0, history.verdict(4, 0)).unwrap();
        done(&mut checker, 3, 0, history.verdict(3, 0)).unwrap();
        submitted(&mut checker, &history, 3, 1).unwrap();
        assert_broken(&rules(), done(&mut checker, 3, 1, history.verdict(3, 1)), REAL_TIME);
        // One that a client saw counts as known, too.
        let mut checker = after(&history, 4);
        ask(&mut checker, &INFO, &info(3)).unwrap();
        submitted(&mut checker, &history, 3, 1).unwrap();
        assert_broken(&rules(), done(&mut checker, 3, 1, history.verdict(3, 1)), REAL_TIME);
    }

    #[test]
    fn the_future_and_a_half_applied_op_are_noticed() {
        let history = History::small(3);
        let mut checker = after(&history, 3);
        assert_broken(&rules(), ask(&mut checker, &INFO, &info(4)), FUTURE);
        assert_broken(&rules(), ask(&mut checker, &INFO, &info(2)), WHOLE);
        let mut early = after(&history, 1);
        assert_broken(&rules(), ask(&mut early, &INFO, &info(0)), FUTURE);
    }

    #[test]
    fn wrong_records_and_broken_bounds_are_noticed() {
        let history = History::small(3);
        let cases: [(&str, Answer); 7] = [
            (RECORDS, events(0, 4, &[b"one", b"twO"])),
            (RECORDS, events(0, 4, &[b"two"])),
            (RECORDS, events(1, 4, &[b"two"])),
            (RECORDS, events(0, 0, &[b"one"])),
            (BOUNDS, events(0, 4, &[b"one", b"two", b"three"])),
            (BOUNDS, events(0, 4, &[])),
            (RECORDS, Answer::Stream { name: "visit".to_owned(), end: Offset(4) }),
        ];
        for (rule, answer) in cases {
            let query = if matches!(answer, Answer::Stream { .. }) { INFO } else { READ };
            assert_broken(&rules(), ask(&mut after(&history, 4), &query, &answer), rule);
        }
        let narrow = Query::ReadEvents {
            tenant: TENANT,
            stream: STREAM,
            from: Offset(2),
            records_max: 1,
            bytes_max: 1,
        };
        let mut checker = after(&history, 4);
        ask(&mut checker, &narrow, &events(2, 4, &[b"three"])).unwrap();
        assert_broken(&rules(), ask(&mut checker, &narrow, &events(2, 4, &[b"three", b"four"])), BOUNDS);
    }

    #[test]
    fn a_list_that_was_never_whole_is_noticed() {
        let history = History::small(3);
        let list = |from, streams_max| Query::Streams { tenant: TENANT, from: StreamId(from), streams_max };
        let visits = |end| ListedStream { id: STREAM, name: "visits".to_owned(), end: Offset(end) };
        let said = |streams: &[ListedStream], more| Answer::Streams { streams: streams.to_vec(), more };
        let mut checker = after(&history, 4);
        let behind = STREAM.0 + 1;
        ask(&mut checker, &list(0, 5), &said(&[visits(4)], false)).unwrap();
        ask(&mut checker, &list(behind, 5), &said(&[], false)).unwrap();
        ask(&mut checker, &list(0, 0), &said(&[], true)).unwrap();
        let mut other = visits(4);
        other.name = "visit".to_owned();
        for (query, streams, more, rule) in [
            (list(0, 5), vec![], false, WHOLE),
            (list(0, 5), vec![visits(2)], false, WHOLE),
            (list(0, 5), vec![visits(5)], false, FUTURE),
            (list(0, 1), vec![visits(4)], true, WHOLE),
            (list(0, 5), vec![visits(4)], true, BOUNDS),
            (list(0, 5), vec![visits(4), visits(4)], false, WHOLE),
            (list(0, 1), vec![visits(4), visits(4)], false, BOUNDS),
            (list(behind, 5), vec![visits(4)], false, WHOLE),
            (list(0, 5), vec![other], false, WHOLE),
        ] {
            assert_broken(&rules(), ask(&mut after(&history, 4), &query, &said(&streams, more)), rule);
        }
        let nowhere = Query::Streams { tenant: TenantId(99), from: StreamId(0), streams_max: 5 };
        ask(&mut checker, &nowhere, &Answer::Refused(Refusal::NoTenant)).unwrap();
        assert_broken(&rules(), ask(&mut checker, &nowhere, &said(&[], false)), FUTURE);
    }

    #[test]
    fn a_stream_behind_a_page_may_come_while_the_page_is_asked_for() {
        let mut history = History::small(3);
        let session = kimberlite_types::LogPosition { op: Op(1), index: 0 };
        let session = kimberlite_types::SessionId(session);
        let wards = Command::CreateStream { stream: StreamId(STREAM.0 + 1), name: "wards" }.encode();
        history.op(&[(session, 6, TENANT, wards)]);
        let query = Query::Streams { tenant: TENANT, from: StreamId(0), streams_max: 1 };
        let visits = ListedStream { id: STREAM, name: "visits".to_owned(), end: Offset(4) };
        let page = Answer::Streams { streams: vec![visits], more: true };
        let mut checker = after(&history, 4);
        asked(&mut checker, 1, &query).unwrap();
        commit(&mut checker, 0, &history, 5).unwrap();
        answered(&mut checker, 1, &page).unwrap();
        // From then on there is another one.
        let page = Answer::Streams { streams: Vec::new(), more: false };
        assert_broken(&rules(), ask(&mut checker, &query, &page), WHOLE);
    }

    #[test]
    fn a_refusal_of_what_exists_is_noticed() {
        let history = History::small(3);
        let refused = |refusal| Answer::Refused(refusal);
        let mut checker = after(&history, 1);
        ask(&mut checker, &INFO, &refused(Refusal::NoTenant)).unwrap();
        assert_broken(&rules(), ask(&mut checker, &INFO, &refused(Refusal::NoStream)), REFUSED);
        asked(&mut checker, 1, &READ).unwrap();
        asked(&mut checker, 2, &READ).unwrap();
        commit(&mut checker, 0, &history, 2).unwrap();
        answered(&mut checker, 1, &refused(Refusal::NoTenant)).unwrap();
        // Tenant and stream were made by one op, so there was no moment between them.
        assert_broken(&rules(), answered(&mut checker, 2, &refused(Refusal::NoStream)), REFUSED);
        done(&mut checker, 2, 0, history.verdict(2, 0)).unwrap();
        assert_broken(&rules(), ask(&mut checker, &READ, &refused(Refusal::NoTenant)), REFUSED);
        let other = Query::StreamInfo { tenant: TENANT, stream: StreamId(8) };
        ask(&mut checker, &other, &refused(Refusal::NoStream)).unwrap();
    }

    #[test]
    fn an_answer_to_something_else_and_a_gap_are_noticed() {
        let history = History::small(3);
        let mut checker = after(&history, 4);
        assert_broken(&rules(), ask(&mut checker, &INFO, &events(0, 4, &[b"one"])), MATCH);
        assert_broken(&rules(), ask(&mut checker, &INFO, &Answer::Refused(Refusal::Stale)), MATCH);
        assert_broken(&rules(), answered(&mut checker, 9, &info(4)), MATCH);
        assert_broken(&rules(), commit(&mut after(&history, 1), 0, &history, 3), ORDER);
    }
}
