//! Histories for tests: a log as real prepares and what a real kernel makes of it, and ways to break them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kimberlite_crypto::checksum;
use kimberlite_io::{Frame, Zone, sectors};
use kimberlite_io_sim::Resources;
use kimberlite_kernel::{Applied, Kernel, StateDigest};
use kimberlite_row::fact::{Facts, Guard, RowId, SchemaFact, Write};
use kimberlite_row::schema::{ColumnId, Object, PrimaryKey};
use kimberlite_row::{Column, ObjectId, Table, Type, Value};
use kimberlite_runtime::{Node, Note};
use kimberlite_types::limits::PREPARE_HEADER_SIZE;
use kimberlite_types::{
    ClusterId, Config, Instant, Layout, Offset, Op, ReplicaId, RequestNumber, SessionId, StreamId, TenantId,
    Timing, View, WallTime,
};
use kimberlite_wire::client::{Answer, Query, SqlAnswer, SqlFailure, SqlRows};
use kimberlite_wire::command::{Command, RecordsBuilder, SqlCode, Verdict};
use kimberlite_wire::{NewEntry, NewPrepare, Prepare, PrepareHeader};

use crate::sql::Deed;
use crate::{Checker, End, Observation, Violation};

pub(super) const TENANT: TenantId = TenantId(1);
pub(super) const STREAM: StreamId = StreamId(7);

pub(super) fn config(replicas: u8) -> Config {
    Config {
        cluster: ClusterId(9),
        replica: ReplicaId(0),
        replicas,
        layout: Layout::SMALL,
        timing: Timing::PRODUCTION,
        pipeline_max: 4,
        sessions_max: 4,
    }
}

/// One entry to be: session, number, tenant, command.
pub(super) type Asked = (SessionId, u64, TenantId, Vec<u8>);

pub(super) fn register() -> Asked {
    (SessionId::NONE, 77, TenantId(0), Command::Register.encode())
}

pub(super) fn create_tenant(session: SessionId, number: u64) -> Asked {
    (session, number, TENANT, Command::CreateTenant { name: "clinic" }.encode())
}

pub(super) fn create_stream(session: SessionId, number: u64) -> Asked {
    (session, number, TENANT, Command::CreateStream { stream: STREAM, name: "visits" }.encode())
}

pub(super) fn packed(records: &[&[u8]]) -> RecordsBuilder {
    let mut builder = RecordsBuilder::default();
    for record in records {
        builder.push(record);
    }
    builder
}

pub(super) fn append(session: SessionId, number: u64, expected: Option<u64>, records: &[&[u8]]) -> Asked {
    let builder = packed(records);
    let expected = expected.map(Offset);
    let command = Command::AppendBatch { stream: STREAM, expected, records: builder.records() };
    (session, number, TENANT, command.encode())
}

/// A committed log with everything a replica notes about it.
pub(super) struct History {
    pub(super) config: Config,
    pub(super) kernel: Kernel,
    log: Vec<(Prepare, Applied, StateDigest)>,
    view: View,
}

impl History {
    pub(super) fn new(replicas: u8) -> Self {
        let config = config(replicas);
        Self { config, kernel: Kernel::new(config.sessions_max), log: Vec::new(), view: View(0) }
    }

    /// Four ops: a session `1.0`; a tenant and a stream; two appends of two and one records; another.
    pub(super) fn small(replicas: u8) -> Self {
        let mut history = Self::new(replicas);
        let session = history.session();
        history.op(&[create_tenant(session, 1), create_stream(session, 2)]);
        history
            .op(&[append(session, 3, Some(0), &[b"one", b"two"]), append(session, 4, Some(2), &[b"three"])]);
        history.op(&[append(session, 5, None, &[b"four"])]);
        history
    }

    /// Registers a session in an op of its own.
    pub(super) fn session(&mut self) -> SessionId {
        let op = self.op(&[register()]);
        SessionId(kimberlite_types::LogPosition { op: Op(op), index: 0 })
    }

    /// The view of the ops that follow.
    pub(super) fn view(&mut self, view: View) {
        self.view = view;
    }

    fn parent(&self) -> PrepareHeader {
        self.log.last().map_or(PrepareHeader::root(self.config.cluster), |(prepare, ..)| prepare.header)
    }

    fn build(
        &self,
        parent: &PrepareHeader,
        entries: &[Asked],
        change: impl FnOnce(&mut NewPrepare<'_>),
    ) -> Prepare {
        let entries: Vec<NewEntry<'_>> = entries
            .iter()
            .map(|(session, number, tenant, command)| NewEntry {
                session: *session,
                request: RequestNumber(*number),
                tenant: *tenant,
                command,
            })
            .collect();
        let layout = self.config.layout;
        let mut new = NewPrepare {
            parent,
            view: self.view,
            commit: parent.op,
            timestamp: WallTime(parent.timestamp.0 + 10),
            layout: &layout,
            proposer: self.config.primary(self.view),
        };
        change(&mut new);
        Prepare::build(&new, &entries)
    }

    /// Commits an op of these entries and answers its number.
    pub(super) fn op(&mut self, entries: &[Asked]) -> u64 {
        let prepare = self.build(&self.parent(), entries, |_| {});
        self.push(prepare)
    }

    fn push(&mut self, prepare: Prepare) -> u64 {
        let applied = self.kernel.apply(&prepare);
        self.log.push((prepare, applied, self.kernel.digest()));
        self.ops()
    }

    /// Goes back to the first `ops` ops.
    pub(super) fn truncate(&mut self, ops: u64) {
        self.log.truncate(ops as usize);
        self.kernel = Kernel::new(self.config.sessions_max);
        for (prepare, ..) in &self.log {
            self.kernel.apply(prepare);
        }
    }

    /// Proposes the last op anew, without entries, with a change.
    pub(super) fn rebuild_last(&mut self, change: impl FnOnce(&mut NewPrepare<'_>)) {
        self.truncate(self.ops() - 1);
        let prepare = self.build(&self.parent(), &[], change);
        self.push(prepare);
    }

    /// A next prepare whose parent is taken to be other than it is. Not committed.
    pub(super) fn append_unchecked(
        &self,
        parent: impl FnOnce(&mut PrepareHeader),
        change: impl FnOnce(&mut NewPrepare<'_>),
    ) -> Prepare {
        let mut header = self.parent();
        parent(&mut header);
        self.build(&header, &[], change)
    }

    pub(super) fn ops(&self) -> u64 {
        self.log.len() as u64
    }

    pub(super) fn prepare(&self, op: u64) -> &Prepare {
        &self.log[op as usize - 1].0
    }

    pub(super) fn header(&self, op: u64) -> &PrepareHeader {
        &self.prepare(op).header
    }

    pub(super) fn applied(&self, op: u64) -> &Applied {
        &self.log[op as usize - 1].1
    }

    /// The verdict on an entry.
    pub(super) fn verdict(&self, op: u64, entry: usize) -> Verdict {
        self.applied(op).verdicts[entry].verdict
    }

    /// The command of an entry.
    pub(super) fn command(&self, op: u64, entry: usize) -> Vec<u8> {
        let entry = self.prepare(op).entries().nth(entry).expect("the entry exists");
        entry.expect("our own entries parse").command.to_vec()
    }

    /// What a replica notes when it executes an op.
    pub(super) fn committed(&self, op: u64) -> Note {
        let (prepare, applied, digest) = self.log[op as usize - 1].clone();
        Note::Committed { prepare, applied, digest }
    }

    /// What a replica notes when it holds an op.
    pub(super) fn durable(&self, op: u64) -> Note {
        let checksum = self.prepare(op).header.checksum;
        Note::Durable { op: Op(op), checksum }
    }

    /// All replicas start, hold every op and execute it.
    pub(super) fn play(&self, checker: &mut dyn Checker) -> Result<(), Violation> {
        for replica in 0..self.config.replicas {
            started(checker, replica)?;
        }
        for op in 1..=self.ops() {
            self.play_op(checker, op)?;
        }
        Ok(())
    }

    /// All replicas hold an op and execute it.
    pub(super) fn play_op(&self, checker: &mut dyn Checker, op: u64) -> Result<(), Violation> {
        for replica in 0..self.config.replicas {
            noted(checker, replica, &self.durable(op))?;
        }
        for replica in 0..self.config.replicas {
            commit(checker, replica, self, op)?;
        }
        Ok(())
    }
}

/// A note of an execution, with another prepare in it.
pub(super) fn with_prepare(note: &Note, prepare: Prepare) -> Note {
    let Note::Committed { applied, digest, .. } = note.clone() else { unreachable!("it is an execution") };
    Note::Committed { prepare, applied, digest }
}

/// A note of an execution, with other verdicts in it.
pub(super) fn with_applied(note: &Note, change: impl FnOnce(&mut Applied)) -> Note {
    let Note::Committed { prepare, mut applied, digest } = note.clone() else {
        unreachable!("it is an execution")
    };
    change(&mut applied);
    Note::Committed { prepare, applied, digest }
}

/// Changes a prepare and makes its checksums match again.
pub(super) fn reseal(prepare: &Prepare, change: impl FnOnce(&mut PrepareHeader, &mut [u8])) -> Prepare {
    let mut bytes = prepare.frame().to_vec();
    let mut header = prepare.header;
    change(&mut header, &mut bytes[PREPARE_HEADER_SIZE..]);
    header.body_checksum = checksum(&bytes[PREPARE_HEADER_SIZE..]);
    header.checksum = checksum(&header.encode()[32..]);
    bytes[..PREPARE_HEADER_SIZE].copy_from_slice(&header.encode());
    Prepare::parse(&Frame::copy_from(&bytes)).expect("its checksums match")
}

pub(super) fn observe(checker: &mut dyn Checker, seen: &Observation<'_>) -> Result<(), Violation> {
    checker.observe(Instant::ZERO, seen)
}

pub(super) fn noted(checker: &mut dyn Checker, replica: u8, note: &Note) -> Result<(), Violation> {
    observe(checker, &Observation::Note { replica: ReplicaId(replica), note })
}

pub(super) fn started(checker: &mut dyn Checker, replica: u8) -> Result<(), Violation> {
    observe(checker, &Observation::Started { replica: ReplicaId(replica) })
}

pub(super) fn crashed(checker: &mut dyn Checker, replica: u8) -> Result<(), Violation> {
    observe(checker, &Observation::Crashed { replica: ReplicaId(replica) })
}

pub(super) fn commit(
    checker: &mut dyn Checker,
    replica: u8,
    history: &History,
    op: u64,
) -> Result<(), Violation> {
    noted(checker, replica, &history.committed(op))
}

/// Client 0 submits the command of an entry, under the ticket `op * 100 + entry`.
pub(super) fn submitted(
    checker: &mut dyn Checker,
    history: &History,
    op: u64,
    entry: usize,
) -> Result<(), Violation> {
    let command = history.command(op, entry);
    let ticket = op * 100 + entry as u64;
    observe(checker, &Observation::Submitted { client: 0, ticket, tenant: TENANT, command: &command })
}

/// Client 0 submits every command of the history, registrations apart.
pub(super) fn submit_all(checker: &mut dyn Checker, history: &History) -> Result<(), Violation> {
    for op in 1..=history.ops() {
        for entry in 0..history.header(op).entries as usize {
            if history.command(op, entry) != Command::Register.encode() {
                submitted(checker, history, op, entry)?;
            }
        }
    }
    Ok(())
}

/// Client 0 hears a verdict on the command it submitted from this entry.
pub(super) fn done(
    checker: &mut dyn Checker,
    op: u64,
    entry: usize,
    verdict: Verdict,
) -> Result<(), Violation> {
    let ticket = op * 100 + entry as u64;
    observe(checker, &Observation::Done { client: 0, ticket, verdict })
}

pub(super) fn asked(checker: &mut dyn Checker, ticket: u64, query: &Query) -> Result<(), Violation> {
    observe(checker, &Observation::Asked { client: 0, ticket, query })
}

pub(super) fn answered(checker: &mut dyn Checker, ticket: u64, answer: &Answer) -> Result<(), Violation> {
    observe(checker, &Observation::Answered { client: 0, ticket, answer })
}

pub(super) fn checker_rules(checker: &dyn Checker) -> (&'static str, &'static [&'static str]) {
    (checker.name(), checker.rules())
}

/// Exactly this rule, one of the checker's own, was broken.
#[track_caller]
pub(super) fn assert_broken(
    (name, rules): &(&'static str, &'static [&'static str]),
    result: Result<(), Violation>,
    rule: &str,
) {
    assert!(rules.contains(&rule), "{rule} is a rule of {name}");
    let violation = result.expect_err(rule);
    assert_eq!((violation.checker.as_str(), violation.rule.as_str()), (*name, rule), "{violation}");
}

/// Disks as a power cut leaves them.
pub(super) struct Disks(Vec<BTreeMap<Zone, Vec<u8>>>);

impl Disks {
    /// The disks of a cluster that holds the whole history everywhere.
    pub(super) fn of(history: &History) -> Self {
        let mut disks = Self(vec![BTreeMap::new(); usize::from(history.config.replicas)]);
        let slots = u64::from(history.config.layout.ring_slots);
        for replica in 0..history.config.replicas {
            for op in 1..=history.ops() {
                let header = history.header(op);
                let slot = op % slots * PREPARE_HEADER_SIZE as u64;
                disks.write(replica, Zone::Headers, slot, &header.encode());
                disks.write(replica, Zone::Log, header.place, history.prepare(op).frame());
            }
        }
        disks
    }

    pub(super) fn write(&mut self, replica: u8, zone: Zone, at: u64, bytes: &[u8]) {
        let disk = self.0[usize::from(replica)].entry(zone).or_default();
        let (at, end) = (at as usize, at as usize + bytes.len());
        disk.resize(disk.len().max(sectors(end as u64) as usize), 0);
        disk[at..end].copy_from_slice(bytes);
    }

    pub(super) fn read(&self, replica: ReplicaId, zone: Zone, at: u64, len: usize) -> Vec<u8> {
        let disk = self.0[usize::from(replica.0)].get(&zone).map_or(&[][..], Vec::as_slice);
        let mut bytes: Vec<u8> = disk.iter().skip(at as usize).take(len).copied().collect();
        bytes.resize(len, 0);
        bytes
    }
}

/// Ends a run on these disks, with all replicas in the core.
pub(super) fn finish(
    checker: &mut dyn Checker,
    config: Config,
    disks: &Disks,
    nodes: Vec<Option<&Node>>,
) -> Result<(), Violation> {
    let disk = |replica, zone, at, len| disks.read(replica, zone, at, len);
    let core = (0..config.replicas).map(ReplicaId).collect();
    let held = vec![Resources::default(); nodes.len()];
    let seen = |replica, zone, at, len| Some(disks.read(replica, zone, at, len));
    checker.finish(&End { config, nodes, held, disk: &disk, seen: &seen, core })
}

/// Ends a run on the disks of the history, or on what a change makes of them. No node is looked at.
pub(super) fn finish_on(
    checker: &mut dyn Checker,
    history: &History,
    change: impl FnOnce(&mut Disks),
) -> Result<(), Violation> {
    let mut disks = Disks::of(history);
    change(&mut disks);
    finish(checker, history.config, &disks, vec![None; usize::from(history.config.replicas)])
}

/// The table `cells` of a tenant, and `data`, which come first in [`wards`].
pub(super) const CELLS: ObjectId = ObjectId(100);
pub(super) const DATA: ObjectId = ObjectId(101);

/// A value from a number.
pub(super) trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for i64 {
    fn into_value(self) -> Value {
        Value::Int(self)
    }
}

fn table(id: ObjectId, name: &str, columns: &[(&str, Type)]) -> SchemaFact {
    let columns = columns.iter().zip(1..).map(|((name, kind), id)| Column {
        id: ColumnId(id),
        name: (*name).to_owned(),
        kind: kind.clone(),
        not_null: id == 1,
        default: None,
        missing: None,
        identity: None,
        owns: None,
        generated: None,
    });
    let columns: Vec<Column> = columns.collect();
    SchemaFact::Put(Object::Table(Arc::new(Table {
        id,
        name: name.to_owned(),
        version: 1,
        next_column: columns.len() as u32 + 1,
        primary_key: Some(PrimaryKey { name: format!("{name}_pkey"), columns: vec![ColumnId(1)] }),
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        columns,
    })))
}

fn command(session: SessionId, number: u64, facts: &Facts) -> Asked {
    let facts = postcard::to_allocvec(facts).expect("facts encode");
    (session, number, TENANT, Command::Facts { facts: &facts, reply: &[] }.encode())
}

/// A command of facts.
pub(super) fn facts(session: SessionId, number: u64, guards: Vec<Guard>, writes: Vec<Write>) -> Asked {
    command(session, number, &Facts { guards, schema: Vec::new(), writes })
}

/// The identity of a row by its number.
pub(super) fn key(number: i64) -> RowId {
    RowId::Key(vec![Value::Int(number)])
}

/// A list of `cells` becomes another.
pub(super) fn cell(number: i64, before: Option<&str>, after: Option<&str>) -> Write {
    let row = |text: &str| vec![Value::Int(number), Value::text(text)];
    Write { table: CELLS, id: key(number), before: before.map(row), after: after.map(row) }
}

/// A tenant with tables. Op 3 makes them and a row of `data`, op 4 makes list 1 of `cells`, op 5 appends to it.
pub(super) fn wards() -> History {
    let mut history = History::new(3);
    let session = history.session();
    history.op(&[create_tenant(session, 1)]);
    let (int, text) = (Type::BigInt, Type::Text);
    let schema = vec![
        table(CELLS, "cells", &[("k", int.clone()), ("v", text.clone())]),
        table(DATA, "data", &[("id", int.clone()), ("a", int.clone()), ("b", int), ("s", text)]),
    ];
    let row = vec![Value::Int(5), Value::Int(1), Value::Null, Value::text("a")];
    let writes = vec![Write { table: DATA, id: key(5), before: None, after: Some(row) }];
    history.op(&[command(session, 2, &Facts { guards: Vec::new(), schema, writes })]);
    history.op(&[facts(session, 3, vec![], vec![cell(1, None, Some(",1"))])]);
    history.op(&[facts(session, 4, vec![], vec![cell(1, Some(",1"), Some(",1,2"))])]);
    for op in 2..=history.ops() {
        assert!(history.verdict(op, 0).result.is_ok(), "op {op}: {:?}", history.verdict(op, 0));
    }
    history
}

/// Clients that say statements and hear answers, one after the other.
pub(super) struct Speech<'a>(pub(super) &'a mut dyn Checker);

impl Speech<'_> {
    fn say(&mut self, client: u16, deed: &Deed, in_block: bool) -> Result<(), Violation> {
        observe(self.0, &Observation::Stated { client, ticket: 1, tenant: TENANT, deed, in_block })
    }

    fn hear(
        &mut self,
        client: u16,
        in_block: bool,
        result: Result<SqlRows, SqlFailure>,
    ) -> Result<(), Violation> {
        observe(self.0, &Observation::Ran { client, ticket: 1, answer: &SqlAnswer { in_block, result } })
    }

    pub(super) fn try_done(
        &mut self,
        client: u16,
        deed: &Deed,
        tag: &str,
        rows: &[&[&str]],
    ) -> Result<(), Violation> {
        self.say(client, deed, false)?;
        self.hear(client, false, Ok(answer_of(tag, rows)))
    }

    pub(super) fn try_refused(&mut self, client: u16, deed: &Deed, code: &str) -> Result<(), Violation> {
        self.say(client, deed, false)?;
        let code = SqlCode::new(code).expect("five characters");
        let message = "refused".to_owned();
        self.hear(client, false, Err(SqlFailure { code, message, position: None, detail: None, hint: None }))
    }

    pub(super) fn done(&mut self, client: u16, deed: &Deed, tag: &str, rows: &[&[&str]]) {
        self.try_done(client, deed, tag, rows).unwrap();
    }

    pub(super) fn refused(&mut self, client: u16, deed: &Deed, code: &str) {
        self.try_refused(client, deed, code).unwrap();
    }

    pub(super) fn begin(&mut self, client: u16) {
        self.say(client, &Deed::Begin, false).unwrap();
        self.hear(client, true, Ok(answer_of("BEGIN", &[]))).unwrap();
    }

    pub(super) fn in_block(&mut self, client: u16, deed: &Deed, tag: &str, rows: &[&[&str]]) {
        self.say(client, deed, true).unwrap();
        self.hear(client, true, Ok(answer_of(tag, rows))).unwrap();
    }

    pub(super) fn end(&mut self, client: u16, tag: &str) {
        self.say(client, &Deed::Commit, true).unwrap();
        self.hear(client, false, Ok(answer_of(tag, &[]))).unwrap();
    }

    pub(super) fn lost(&mut self, client: u16, deed: &Deed) {
        self.say(client, deed, false).unwrap();
        observe(self.0, &Observation::Lost { client, ticket: 1, sent: true }).unwrap();
    }

    pub(super) fn lost_in_block(&mut self, client: u16, deed: &Deed) {
        self.say(client, deed, true).unwrap();
        observe(self.0, &Observation::Lost { client, ticket: 1, sent: true }).unwrap();
    }
}

fn answer_of(tag: &str, rows: &[&[&str]]) -> SqlRows {
    let row = |row: &&[&str]| row.iter().map(|cell| Some((*cell).to_owned())).collect();
    SqlRows { tag: tag.to_owned(), rows: rows.iter().map(row).collect(), ..SqlRows::default() }
}
