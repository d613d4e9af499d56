//! What the log means, a second time: a plain model of the rules the kernel documents, to hold it against.
//!
//! It is slow where the kernel is clever: names and contents are left out, sessions are searched in two
//! ordinary maps, and nothing is decided without being done.

use std::collections::{BTreeMap, BTreeSet};

use kimberlite_kernel::EntryVerdict;
use kimberlite_kernel::limits::{STAGED_BYTES_MAX, STAGED_IDLE_MAX, STREAMS_MAX, TENANTS_MAX};
use kimberlite_kernel::tables::{Refused, Tables, Unwritten};
use kimberlite_row::fact::Facts;
use kimberlite_types::{LogPosition, Offset, RequestNumber, SessionId, StreamId, TenantId};
use kimberlite_wire::Entry;
use kimberlite_wire::command::{Command, Outcome, Refusal, SqlCode, Verdict, staged_digest};
use kimberlite_wire::entry::EntryHeader;

/// The last word a session got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    /// The request it was on; 0 if the session only registered.
    pub(super) number: RequestNumber,
    /// The word.
    pub(super) verdict: Verdict,
}

/// The state that a log gives.
#[derive(Debug)]
pub(super) struct Model {
    sessions_max: usize,
    sessions: BTreeMap<SessionId, Last>,
    /// Sessions that had to make room.
    evicted: Vec<SessionId>,
    /// Sessions by when they were last decided for, oldest first.
    ages: BTreeMap<LogPosition, SessionId>,
    tenants: BTreeSet<TenantId>,
    /// The next offset of each stream.
    streams: BTreeMap<(TenantId, StreamId), Offset>,
    /// Tables have a model of their own, in the kernel's tests. Here it is about what reaches them.
    tables: Tables,
    /// Pieces of facts that sessions have staged.
    staged: BTreeMap<SessionId, Staged>,
}

/// What one session has staged.
#[derive(Debug)]
struct Staged {
    tenant: TenantId,
    pieces: Vec<Vec<u8>>,
    touched: u64,
}

impl Model {
    /// The state of an empty log.
    pub(super) fn new(sessions_max: u32) -> Self {
        Self {
            sessions_max: sessions_max as usize,
            sessions: BTreeMap::new(),
            evicted: Vec::new(),
            ages: BTreeMap::new(),
            tenants: BTreeSet::new(),
            streams: BTreeMap::new(),
            tables: Tables::default(),
            staged: BTreeMap::new(),
        }
    }

    /// The sessions that are kept.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (&SessionId, &Last)> {
        self.sessions.iter()
    }

    /// The sessions that were evicted.
    pub(super) fn evicted(&self) -> impl Iterator<Item = &SessionId> {
        self.evicted.iter()
    }

    /// Executes the next entry and says what became of it.
    pub(super) fn apply(&mut self, entry: &Entry<'_>) -> EntryVerdict {
        let header = &entry.header;
        let (session, request, position) = (header.session, header.request, header.position);
        let said = |result| EntryVerdict {
            session,
            request,
            verdict: Verdict { position, result },
            duplicate: false,
        };
        let command = Command::decode(entry.command);
        if session == SessionId::NONE {
            return match command {
                Ok(Command::Register) => said(Ok(self.register(position))),
                Ok(_) => said(Err(Refusal::NoSession)),
                Err(_) => said(Err(Refusal::Malformed)),
            };
        }
        let Some(last) = self.sessions.get(&session).copied() else {
            return said(Err(Refusal::NoSession));
        };
        if request == RequestNumber(0) || request < last.number {
            return said(Err(Refusal::Stale));
        }
        if request == last.number {
            return EntryVerdict { session, request, verdict: last.verdict, duplicate: true };
        }
        let result = match command {
            Ok(command) => self.execute(header, &command),
            Err(_) => Err(Refusal::Malformed),
        };
        if !matches!(result, Ok(Outcome::Staged { .. })) {
            self.staged.remove(&session);
        }
        let word = said(result);
        self.ages.remove(&last.verdict.position);
        self.ages.insert(position, session);
        self.sessions.insert(session, Last { number: request, verdict: word.verdict });
        word
    }

    fn register(&mut self, position: LogPosition) -> Outcome {
        if self.sessions.len() == self.sessions_max {
            let (_, idle) = self.ages.pop_first().expect("every session has an age");
            self.sessions.remove(&idle);
            self.staged.remove(&idle);
            self.evicted.push(idle);
        }
        let session = SessionId(position);
        let registered = Outcome::Registered { session };
        let verdict = Verdict { position, result: Ok(registered) };
        self.sessions.insert(session, Last { number: RequestNumber(0), verdict });
        self.ages.insert(position, session);
        registered
    }

    fn execute(&mut self, header: &EntryHeader, command: &Command<'_>) -> Result<Outcome, Refusal> {
        let tenant = header.tenant;
        match command {
            Command::Register => Err(Refusal::Malformed),
            Command::CreateTenant { .. } => {
                if self.tenants.contains(&tenant) {
                    return Err(Refusal::TenantExists);
                }
                if self.tenants.len() == TENANTS_MAX as usize {
                    return Err(Refusal::TooMany);
                }
                self.tenants.insert(tenant);
                Ok(Outcome::TenantCreated)
            }
            Command::CreateStream { stream, .. } => {
                if !self.tenants.contains(&tenant) {
                    return Err(Refusal::NoTenant);
                }
                if self.streams.contains_key(&(tenant, *stream)) {
                    return Err(Refusal::StreamExists);
                }
                if self.streams.len() == STREAMS_MAX as usize {
                    return Err(Refusal::TooMany);
                }
                self.streams.insert((tenant, *stream), Offset(0));
                Ok(Outcome::StreamCreated)
            }
            Command::AppendBatch { stream, expected, records } => {
                if !self.tenants.contains(&tenant) {
                    return Err(Refusal::NoTenant);
                }
                let end = self.streams.get_mut(&(tenant, *stream)).ok_or(Refusal::NoStream)?;
                let first = *end;
                if expected.is_some_and(|expected| expected != first) {
                    return Err(Refusal::OffsetMismatch { actual: first });
                }
                *end = Offset(first.0 + u64::from(records.count()));
                Ok(Outcome::Appended { first, count: records.count() })
            }
            Command::Facts { facts, .. } => {
                if !self.tenants.contains(&tenant) {
                    return Err(Refusal::NoTenant);
                }
                let facts = postcard::from_bytes(facts).map_err(|_| Refusal::Malformed)?;
                self.write(header, facts)
            }
            Command::Stage { number, facts } => {
                if !self.tenants.contains(&tenant) {
                    return Err(Refusal::NoTenant);
                }
                let now = header.timestamp.0;
                if *number > 0 {
                    let own = self.staged.get(&header.session).ok_or(Refusal::Conflict)?;
                    if own.tenant != tenant || own.pieces.len() != *number as usize {
                        return Err(Refusal::Conflict);
                    }
                }
                let stays = |session: &SessionId, set: &Staged| {
                    if *session == header.session {
                        *number > 0
                    } else {
                        now <= set.touched + STAGED_IDLE_MAX
                    }
                };
                let kept = self.staged.iter().filter(|(session, set)| stays(session, set));
                let size: usize = kept.flat_map(|(_, set)| &set.pieces).map(Vec::len).sum();
                if size + facts.len() > STAGED_BYTES_MAX {
                    return Err(Refusal::Sql { code: SqlCode::new("53200").expect("five characters") });
                }
                self.staged.retain(|session, set| stays(session, set));
                let fresh = || Staged { tenant, pieces: Vec::new(), touched: now };
                let own = self.staged.entry(header.session).or_insert_with(fresh);
                own.pieces.push(facts.to_vec());
                own.touched = now;
                Ok(Outcome::Staged { pieces: own.pieces.len() as u32 })
            }
            Command::Commit { pieces, digest, .. } => {
                if !self.tenants.contains(&tenant) {
                    return Err(Refusal::NoTenant);
                }
                let own = self.staged.get(&header.session).ok_or(Refusal::Conflict)?;
                let found = own.pieces.iter().fold([0; 32], |before, piece| staged_digest(before, piece));
                if own.tenant != tenant || own.pieces.len() != *pieces as usize || found != *digest {
                    return Err(Refusal::Conflict);
                }
                let mut all = Facts::default();
                for piece in &own.pieces {
                    let facts: Facts = postcard::from_bytes(piece).map_err(|_| Refusal::Malformed)?;
                    all.guards.extend(facts.guards);
                    all.schema.extend(facts.schema);
                    all.writes.extend(facts.writes);
                }
                self.write(header, all)
            }
        }
    }

    fn write(&mut self, header: &EntryHeader, facts: Facts) -> Result<Outcome, Refusal> {
        let (at, time) = (header.position, header.timestamp);
        let decided = self.tables.decide(header.tenant, facts, at, time, &Unwritten);
        let change = decided.expect("all pages are the store's own").map_err(|refused| match refused {
            Refused::Conflict(_) => Refusal::Conflict,
            Refused::Malformed(_) => Refusal::Malformed,
            Refused::Sql(error) => {
                Refusal::Sql { code: SqlCode::new(error.state().code()).expect("five characters") }
            }
        })?;
        let rows = change.rows();
        self.tables.install(change);
        self.tables.go_on(&Unwritten).expect("all pages are the store's own");
        Ok(Outcome::Written { rows })
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use kimberlite_types::{Op, Rng, Streams};

    fn some_command(rng: &mut Rng) -> Vec<u8> {
        let stream = StreamId(rng.below(3));
        let builder = packed(&[b"a".as_slice(), b"bc"][..rng.below(3) as usize]);
        let expected = (rng.below(2) == 0).then(|| Offset(rng.below(6)));
        match rng.below(7) {
            0 => Command::Register.encode(),
            1 => Command::CreateTenant { name: "t" }.encode(),
            2 => Command::CreateStream { stream, name: "s" }.encode(),
            3 => vec![0xff, 1, 2],
            // Without records an append is malformed.
            _ => Command::AppendBatch { stream, expected, records: builder.records() }.encode(),
        }
    }

    #[test]
    fn the_kernel_decides_random_logs_as_the_model_does() {
        let mut decided = 0;
        for seed in 0..40 {
            let mut rng = Streams::new(seed).stream("model", 0);
            let mut history = History::new(3);
            let mut model = Model::new(history.config.sessions_max);
            // No session, one that never was, and those that begin on the way.
            let mut known = vec![SessionId::NONE, SessionId(LogPosition { op: Op(9999), index: 0 })];
            for _ in 0..60 {
                let entries: Vec<Asked> = (0..rng.below(6))
                    .map(|_| {
                        let session = known[rng.below(known.len() as u64) as usize];
                        if rng.below(6) == 0 {
                            return register();
                        }
                        (session, rng.below(12), TenantId(rng.below(3)), some_command(&mut rng))
                    })
                    .collect();
                let op = history.op(&entries);
                for (index, entry) in history.prepare(op).entries().enumerate() {
                    let said = model.apply(&entry.unwrap());
                    assert_eq!(said, history.applied(op).verdicts[index], "seed {seed}, op {op}.{index}");
                    if let Ok(Outcome::Registered { session }) = said.verdict.result {
                        known.push(session);
                    }
                    decided += 1;
                }
            }
        }
        assert!(decided > 4000, "{decided}");
    }
}
