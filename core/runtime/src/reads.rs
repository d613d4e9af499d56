//! Queries: confirmed first, then answered from the kernel's index and the journal.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use kimberlite_io::Conn;
use kimberlite_kernel::{Extent, Kernel, StreamState, records_of};
use kimberlite_types::limits::FRAME_BODY_SIZE_LIMIT;
use kimberlite_types::{Instant, Offset, Op, StreamId, TenantId};
use kimberlite_wire::Prepare;
use kimberlite_wire::client::{Answer, ListedStream, Query, STREAMS_ANSWERED_MAX};
use kimberlite_wire::command::RecordsBuilder;

/// Prepares that one read asks the journal for at once.
const READ_AHEAD: usize = 8;
/// Queries under way at once: four for each client connection a node may have.
const QUERIES_MAX: usize = 4096;
/// Bytes of records in one answer: the largest body, less what surrounds them.
const ANSWER_BYTES_MAX: u32 = FRAME_BODY_SIZE_LIMIT - 4096;

/// A query under way.
struct Pending {
    conn: Conn,
    nonce: u64,
    query: Query,
    /// Set once the query is confirmed and needs the journal.
    reader: Option<Reader>,
}

/// Where a read of records stands.
struct Reader {
    tenant: TenantId,
    stream: StreamId,
    from: Offset,
    next: Offset,
    end: Offset,
    records_left: u32,
    bytes_left: usize,
    records: RecordsBuilder,
    /// Ops asked for and not yet there.
    awaited: BTreeSet<Op>,
    /// Prepares that are there.
    arrived: BTreeMap<Op, Prepare>,
}

/// What a step of a read needs next.
enum Step {
    Fetch(Vec<Op>),
    Wait,
    Done(Answer),
}

/// All queries under way.
#[derive(Default)]
pub(crate) struct Reads {
    pending: BTreeMap<u64, Pending>,
    next_ticket: u64,
    /// Ops that queries wait for and the journal could not give: it is asked again once they are repaired.
    missed: BTreeSet<Op>,
    /// Ops that statements wait for, and of which connections.
    statements: BTreeSet<(Op, Conn)>,
    /// When it is asked again in any case: whoever repairs may have had no room to remember all of them.
    again_at: Option<Instant>,
}

/// What came of a step: an answer to send, or ops to fetch.
pub(crate) enum Progress {
    Answer { conn: Conn, nonce: u64, answer: Answer },
    Fetch(Op),
}

/// The first of these streams, as an answer.
fn page_of<'a>(mut streams: impl Iterator<Item = (StreamId, StreamState<'a>)>, streams_max: u32) -> Answer {
    let most = streams_max.min(STREAMS_ANSWERED_MAX) as usize;
    let page = streams.by_ref().take(most);
    let page = page.map(|(id, state)| ListedStream { id, name: state.name.into(), end: state.end }).collect();
    Answer::Streams { streams: page, more: streams.next().is_some() }
}

impl Reads {
    /// Queries under way.
    pub(crate) fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// Takes a query in. Answers its ticket, or none when too many are under way.
    pub(crate) fn begin(&mut self, conn: Conn, nonce: u64, query: Query) -> Option<u64> {
        if self.pending.len() >= QUERIES_MAX {
            return None;
        }
        self.next_ticket += 1;
        self.pending.insert(self.next_ticket, Pending { conn, nonce, query, reader: None });
        Some(self.next_ticket)
    }

    /// Takes out a query that could not be taken on.
    pub(crate) fn refuse(&mut self, ticket: u64) -> Option<(Conn, u64)> {
        self.pending.remove(&ticket).map(|pending| (pending.conn, pending.nonce))
    }

    /// The statement of a connection waits for an op.
    pub(crate) fn want(&mut self, op: Op, conn: Conn) {
        self.statements.insert((op, conn));
    }

    /// An op is there, or cannot be had: the connections whose statements wait for it wait no longer.
    pub(crate) fn waiting_for(&mut self, op: Op) -> Vec<Conn> {
        let of_op = (op, Conn(0))..=(op, Conn(u64::MAX));
        let waiting: Vec<Conn> = self.statements.range(of_op).map(|(_, conn)| *conn).collect();
        for conn in &waiting {
            self.statements.remove(&(op, *conn));
        }
        waiting
    }

    /// The statement of a connection waits for nothing.
    pub(crate) fn release(&mut self, conn: Conn) {
        self.statements.retain(|(_, of)| *of != conn);
    }

    /// Forgets the queries of a stream that is gone.
    pub(crate) fn closed(&mut self, conn: Conn) {
        self.release(conn);
        self.pending.retain(|_, pending| pending.conn != conn);
    }

    /// Takes out all queries that are not confirmed, to be sent elsewhere.
    pub(crate) fn unconfirmed(&mut self) -> Vec<(Conn, u64)> {
        let gone: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.reader.is_none())
            .map(|(ticket, _)| *ticket)
            .collect();
        gone.iter()
            .filter_map(|ticket| self.pending.remove(ticket))
            .map(|pending| (pending.conn, pending.nonce))
            .collect()
    }

    /// Takes out all queries: the state that would answer them is gone.
    pub(crate) fn abandon(&mut self) -> Vec<(Conn, u64)> {
        self.statements.clear();
        core::mem::take(&mut self.pending)
            .into_values()
            .map(|pending| (pending.conn, pending.nonce))
            .collect()
    }

    /// The query is confirmed: everything that was acknowledged before it began is in the kernel.
    pub(crate) fn confirmed(&mut self, ticket: u64, kernel: &Kernel) -> Vec<Progress> {
        let Some(pending) = self.pending.get_mut(&ticket) else { return Vec::new() };
        let answer = match pending.query {
            Query::ReadEvents { tenant, stream, from, records_max, bytes_max } => {
                match kernel.locate(tenant, stream, from) {
                    Ok(located) => {
                        pending.reader = Some(Reader {
                            tenant,
                            stream,
                            from,
                            next: from,
                            end: located.end,
                            records_left: records_max,
                            bytes_left: bytes_max.min(ANSWER_BYTES_MAX) as usize,
                            records: RecordsBuilder::default(),
                            awaited: BTreeSet::new(),
                            arrived: BTreeMap::new(),
                        });
                        return self.step(ticket, kernel);
                    }
                    Err(refusal) => Answer::Refused(refusal),
                }
            }
            Query::StreamInfo { tenant, stream } => match kernel.stream(tenant, stream) {
                Ok(state) => Answer::Stream { name: state.name.into(), end: state.end },
                Err(refusal) => Answer::Refused(refusal),
            },
            Query::Streams { tenant, from, streams_max } => match kernel.streams(tenant, from) {
                Ok(streams) => page_of(streams, streams_max),
                Err(refusal) => Answer::Refused(refusal),
            },
            Query::Status => unreachable!("status needs no confirmation"),
        };
        let (conn, nonce) = (pending.conn, pending.nonce);
        self.pending.remove(&ticket);
        alloc::vec![Progress::Answer { conn, nonce, answer }]
    }

    /// A prepare was read from the journal, for whoever waits for it.
    pub(crate) fn fetched(&mut self, op: Op, prepare: Option<&Prepare>, kernel: &Kernel) -> Vec<Progress> {
        let mut waiting = Vec::new();
        for (ticket, pending) in &mut self.pending {
            if let Some(reader) = &mut pending.reader
                && reader.awaited.contains(&op)
                && let Some(prepare) = prepare
            {
                reader.awaited.remove(&op);
                reader.arrived.insert(op, prepare.clone());
                waiting.push(*ticket);
            }
        }
        waiting.into_iter().flat_map(|ticket| self.step(ticket, kernel)).collect()
    }

    /// The journal could not give this op. Whoever waits for it goes on waiting, for a repair or until `again_at`.
    pub(crate) fn missed(&mut self, op: Op, again_at: Instant) {
        if self.awaits(op) {
            kimberlite_probe::reachable!("query.waits_for_repair");
            self.missed.insert(op);
            self.again_at.get_or_insert(again_at);
        }
    }

    /// This op was repaired. Answers whether the journal should be asked for it again.
    pub(crate) fn repaired(&mut self, op: Op) -> bool {
        self.missed.remove(&op) && self.awaits(op)
    }

    /// What the journal should be asked for again, now that it is time.
    pub(crate) fn due(&mut self, now: Instant) -> BTreeSet<Op> {
        if self.again_at.is_none_or(|at| at > now) {
            return BTreeSet::new();
        }
        self.again_at = None;
        let missed = core::mem::take(&mut self.missed);
        missed.into_iter().filter(|op| self.awaits(*op)).collect()
    }

    /// When [`Self::due`] should be asked.
    pub(crate) const fn wake_at(&self) -> Option<Instant> {
        self.again_at
    }

    /// Whether a query or a statement waits for this op.
    fn awaits(&self, op: Op) -> bool {
        self.statements.range((op, Conn(0))..=(op, Conn(u64::MAX))).next().is_some()
            || self
                .pending
                .values()
                .any(|pending| pending.reader.as_ref().is_some_and(|reader| reader.awaited.contains(&op)))
    }

    /// An op cannot be had: the queries that wait for it end.
    pub(crate) fn lost(&mut self, op: Op) -> Vec<Progress> {
        let ended: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.reader.as_ref().is_some_and(|reader| reader.awaited.contains(&op)))
            .map(|(ticket, _)| *ticket)
            .collect();
        ended
            .into_iter()
            .filter_map(|ticket| self.pending.remove(&ticket))
            .map(|pending| {
                let answer = Answer::Damaged { op };
                Progress::Answer { conn: pending.conn, nonce: pending.nonce, answer }
            })
            .collect()
    }

    fn step(&mut self, ticket: u64, kernel: &Kernel) -> Vec<Progress> {
        let Some(pending) = self.pending.get_mut(&ticket) else { return Vec::new() };
        let Some(reader) = &mut pending.reader else { return Vec::new() };
        match reader.step(kernel) {
            Step::Wait => Vec::new(),
            Step::Fetch(ops) => ops.into_iter().map(Progress::Fetch).collect(),
            Step::Done(answer) => {
                let (conn, nonce) = (pending.conn, pending.nonce);
                self.pending.remove(&ticket);
                alloc::vec![Progress::Answer { conn, nonce, answer }]
            }
        }
    }
}

impl Reader {
    /// Takes what has arrived, in order, and says what is needed next.
    fn step(&mut self, kernel: &Kernel) -> Step {
        if !self.awaited.is_empty() {
            return Step::Wait;
        }
        let located = match kernel.locate(self.tenant, self.stream, self.next) {
            Ok(located) => located,
            Err(refusal) => return Step::Done(Answer::Refused(refusal)),
        };
        let mut extents = located.extents;
        let mut full = self.next >= self.end || self.records_left == 0;
        while !full && let Some(first) = extents.first() {
            let Some(prepare) = self.arrived.remove(&first.op) else { break };
            kimberlite_probe::reachable!("query.reads_journal");
            full = self.take(&prepare, extents);
            let op = first.op;
            extents = &extents[extents.iter().take_while(|extent| extent.op == op).count()..];
        }
        if full || self.next >= self.end {
            let records = core::mem::take(&mut self.records);
            return Step::Done(Answer::Events { from: self.from, end: self.end, records });
        }
        let mut ops: Vec<Op> = Vec::new();
        for Extent { op, .. } in extents {
            if ops.last() != Some(op) {
                if ops.len() == READ_AHEAD {
                    break;
                }
                ops.push(*op);
            }
        }
        self.arrived.clear();
        self.awaited.extend(&ops);
        Step::Fetch(ops)
    }

    /// Takes the records of one prepare. Answers whether the answer is full.
    fn take(&mut self, prepare: &Prepare, extents: &[Extent]) -> bool {
        for record in records_of(prepare, extents, self.next) {
            let Ok((offset, record)) = record else {
                unreachable!("the kernel applied this very prepare, so its entries parse")
            };
            if offset >= self.end {
                kimberlite_probe::reachable!("query.ends_where_it_began");
                return true;
            }
            let size = record.len() + 4;
            if self.records_left == 0 || (size > self.bytes_left && !self.records.is_empty()) {
                kimberlite_probe::reachable!("query.answer_is_full");
                return true;
            }
            self.records.push(record);
            self.records_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(size);
            self.next = offset.next();
        }
        self.records_left == 0 || self.bytes_left == 0
    }
}
