//! The kernel: decides entries and installs the decisions.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kimberlite_crypto::ChainHash;
use kimberlite_probe::mutant;
use kimberlite_row::fact::{Facts, Guard, Miss, SchemaFact, Write};
use kimberlite_store::{Checkpoint, CheckpointRoot, Pages};
use kimberlite_types::Layout;
use kimberlite_types::{LogPosition, Offset, Op, RequestNumber, SessionId, StreamId, TenantId};
use kimberlite_wire::command::{Command, Outcome, Refusal, SqlCode, Verdict};
use kimberlite_wire::{Entry, Prepare, PrepareHeader};

use crate::digest::ItemSum;
use crate::image::{self, OpenError};
use crate::session::Sessions;
use crate::staged::{Stages, Staging};
use crate::stream::Tenants;
use crate::tables::{Budget, Deciding, Refused, TableChange, TableRows, Tables, Unwritten};
use crate::{Extent, Located, Lookup, StateDigest, StreamState};

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryVerdict {
    /// The session that asked; none for a registration.
    pub session: SessionId,
    /// The request's number.
    pub request: RequestNumber,
    /// The final word. Of a duplicate, the one the first copy got, with its position.
    pub verdict: Verdict,
    /// Whether the request had been decided before; this copy did nothing.
    pub duplicate: bool,
}

/// What became of a prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The op.
    pub op: Op,
    /// One verdict for each entry, in order.
    pub verdicts: Vec<EntryVerdict>,
}

/// What an entry will do. Worthless once any other decision was installed.
#[derive(Debug)]
#[must_use = "a decision has no effect until it is installed"]
pub struct Decision {
    /// The position the kernel expected next when it decided; the state it decided against.
    decided_at: LogPosition,
    /// The entry's own position.
    position: LogPosition,
    outcome: EntryVerdict,
    /// Whether the verdict becomes the last one of its session.
    remembered: bool,
    change: Change,
}

impl Decision {
    /// What became of the entry.
    pub const fn verdict(&self) -> &EntryVerdict {
        &self.outcome
    }
}

/// The change to the state, besides the session's last verdict.
#[derive(Debug)]
enum Change {
    Nothing,
    Register { evict: Option<SessionId> },
    CreateTenant { tenant: TenantId, name: Box<str> },
    CreateStream { tenant: TenantId, stream: StreamId, name: Box<str> },
    Append { tenant: TenantId, stream: StreamId, extent: Extent },
    Stage(Staging),
    Tables(Box<TableChange>),
}

/// What becomes of a request, and what it changes.
type Executed = Result<(Outcome, Change), Refusal>;

/// What becomes of facts at first.
enum Begun {
    Deciding(Box<Deciding>),
    Decided(Executed),
}

/// Pages of tables without a place before a checkpoint is due: 32 MiB of pages of 8 KiB.
const DIRTY_PAGES_MAX: usize = 4_096;

/// What was applied since a checkpoint, or since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Since {
    pub(crate) ops: u64,
    /// Bytes of their prepares.
    pub(crate) bytes: u64,
    /// Bytes that the checkpoint holds beside the trees.
    pub(crate) companion: u64,
}

/// The state that a log gives, up to some op.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(crate) applied: Op,
    /// The hash of the last entry applied.
    pub(crate) chain: ChainHash,
    /// Entries of op `applied + 1` installed so far.
    installed: u32,
    pub(crate) sessions: Sessions,
    pub(crate) tenants: Tenants,
    pub(crate) tables: Tables,
    /// Facts in pieces that are not committed.
    pub(crate) stages: Stages,
    /// The decision on the next entry, if it was begun: no part of the state.
    deciding: Option<Box<Deciding>>,
    /// Of sessions, tenants and streams.
    pub(crate) items: ItemSum,
    /// Of all that was ever written to tables.
    pub(crate) written: ItemSum,
    /// What was applied since the last checkpoint.
    pub(crate) since: Since,
}

impl Kernel {
    /// The state of an empty log. `sessions_max` must be positive, and the same on all replicas at all
    /// times: which session is evicted depends on it.
    pub fn new(sessions_max: u32) -> Self {
        Self {
            applied: Op::ZERO,
            chain: ChainHash::GENESIS,
            installed: 0,
            sessions: Sessions::new(sessions_max),
            tenants: Tenants::default(),
            tables: Tables::default(),
            stages: Stages::default(),
            deciding: None,
            items: ItemSum::default(),
            written: ItemSum::default(),
            since: Since::default(),
        }
    }

    /// The last op applied.
    pub const fn applied(&self) -> Op {
        self.applied
    }

    /// The hash of the last entry applied.
    pub const fn chain(&self) -> ChainHash {
        self.chain
    }

    /// The position of the next entry.
    fn next(&self) -> LogPosition {
        LogPosition { op: self.applied.next(), index: self.installed }
    }

    /// Applies a committed prepare: decides and installs each of its entries.
    ///
    /// The prepare is the successor of the last one applied, and `Prepare::verify_chain` has passed: what
    /// a cluster commits was verified before it was accepted. No page of a table was ever written, so none is missing:
    /// after a checkpoint entries are decided one by one, with pages at hand.
    pub fn apply(&mut self, prepare: &Prepare) -> Applied {
        let mut verdicts = Vec::with_capacity(prepare.header.entries as usize);
        self.apply_on(prepare, &Unwritten, &mut verdicts).expect("all pages are the store's own");
        Applied { op: prepare.header.op, verdicts }
    }

    /// Applies a committed prepare as far as pages are at hand, and adds what became of its entries. When one is missing, the
    /// same call is made again with the page at hand, and goes on where it stopped.
    pub fn apply_on(
        &mut self,
        prepare: &Prepare,
        pages: &dyn Pages,
        verdicts: &mut Vec<EntryVerdict>,
    ) -> Result<(), Miss> {
        let done = self.apply_some(prepare, pages, verdicts, usize::MAX)?;
        assert!(done, "no bound was set");
        Ok(())
    }

    /// The same, with about so many rows at most that are looked at: an entry that writes many takes several calls, between
    /// which nothing else is applied, and everything is read as it was before. Answers whether the prepare is applied.
    pub fn apply_some(
        &mut self,
        prepare: &Prepare,
        pages: &dyn Pages,
        verdicts: &mut Vec<EntryVerdict>,
        rows: usize,
    ) -> Result<bool, Miss> {
        let header = &prepare.header;
        assert_eq!(header.op, self.applied.next(), "ops are applied in order, each once");
        assert_eq!(verdicts.len(), self.installed as usize, "an op is applied as a whole");
        let mut budget = Budget(rows);
        if self.tables.write_some(pages, &mut budget)? {
            return Ok(false);
        }
        for entry in prepare.entries().skip(self.installed as usize) {
            let entry = entry.expect("the entries of a committed prepare were verified");
            if self.installed == 0 {
                assert_eq!(entry.header.previous, self.chain, "the chain continues where the log ended");
            }
            let entry = if mutant!(FactsReversed, turned(prepare, &entry).is_some()) {
                turned(prepare, &entry).unwrap_or(entry)
            } else {
                entry
            };
            let mut begun = self.deciding.take();
            let decided = self.decide_some(&entry, pages, &mut begun, &mut budget);
            self.deciding = begun;
            let Some(decision) = decided? else { return Ok(false) };
            self.deciding = None;
            verdicts.push(self.install(decision));
            if self.tables.write_some(pages, &mut budget)? {
                return Ok(false);
            }
        }
        self.finish(header);
        Ok(true)
    }

    /// Writes what is left of the entry that was installed last: one that writes much takes several batches. Like a decision it
    /// may miss pages, and is then called again with them at hand; before it is through, nothing else is decided.
    pub fn go_on(&mut self, pages: &dyn Pages) -> Result<(), Miss> {
        self.tables.go_on(pages)
    }

    /// What `entry` does if it is the next. Changes nothing. Any command bytes give a decision, as soon as the pages are
    /// at hand that it needs.
    pub fn decide(&self, entry: &Entry<'_>, pages: &dyn Pages) -> Result<Decision, Miss> {
        let decided = self.decide_some(entry, pages, &mut None, &mut Budget::all())?;
        Ok(decided.expect("no bound was set"))
    }

    /// The same up to a budget: `None` if there is more to do. What was begun is gone on with.
    fn decide_some(
        &self,
        entry: &Entry<'_>,
        pages: &dyn Pages,
        begun: &mut Option<Box<Deciding>>,
        budget: &mut Budget,
    ) -> Result<Option<Decision>, Miss> {
        assert!(!self.tables.is_under_way(), "an entry is installed as a whole before the next is decided");
        let (session, request) = (entry.header.session, entry.header.request);
        let (outcome, remembered, change) = match self.sessions.lookup(session, request) {
            Lookup::Duplicate(verdict) if !mutant!(DuplicatesFilteredOnly) => {
                kimberlite_probe::reachable!("kernel.duplicate");
                (EntryVerdict { session, request, verdict, duplicate: true }, false, Change::Nothing)
            }
            Lookup::Stale => {
                kimberlite_probe::reachable!("kernel.stale");
                (heard(entry, Err(Refusal::Stale)), false, Change::Nothing)
            }
            Lookup::NoSession => {
                kimberlite_probe::reachable!("kernel.no_session");
                (heard(entry, Err(Refusal::NoSession)), false, Change::Nothing)
            }
            lookup @ (Lookup::New | Lookup::Duplicate(_)) => {
                let remembered =
                    session != SessionId::NONE && lookup == Lookup::New && !mutant!(SessionsNotKept);
                let Some(executed) = self.execute(entry, pages, begun, budget)? else { return Ok(None) };
                match executed {
                    Ok((outcome, change)) => (heard(entry, Ok(outcome)), remembered, change),
                    Err(refusal) => {
                        kimberlite_probe::reachable!("kernel.refuses");
                        (heard(entry, Err(refusal)), remembered, Change::Nothing)
                    }
                }
            }
        };
        let position = entry.header.position;
        Ok(Some(Decision { decided_at: self.next(), position, outcome, remembered, change }))
    }

    /// What a request that was not decided before does.
    fn execute(
        &self,
        entry: &Entry<'_>,
        pages: &dyn Pages,
        begun: &mut Option<Box<Deciding>>,
        budget: &mut Budget,
    ) -> Result<Option<Executed>, Miss> {
        if begun.is_none() {
            let registered = entry.header.session != SessionId::NONE;
            match Command::decode(entry.command) {
                Err(_) => return Ok(Some(Err(Refusal::Malformed))),
                Ok(Command::Facts { facts, .. }) if registered => match self.begin(entry, facts, pages)? {
                    Begun::Deciding(deciding) => *begun = Some(deciding),
                    Begun::Decided(decided) => return Ok(Some(decided)),
                },
                Ok(Command::Commit { pieces, digest, .. }) if registered => {
                    match self.begin_staged(entry, pieces, &digest) {
                        Ok(deciding) => *begun = Some(deciding),
                        Err(refusal) => return Ok(Some(Err(refusal))),
                    }
                }
                Ok(command) => return Ok(Some(self.execute_command(entry, command))),
            }
        }
        let Some(deciding) = begun else { unreachable!("it was begun") };
        assert_eq!(deciding.at(), entry.header.position, "a decision is about the entry it was begun for");
        let Some(decided) = deciding.go_on(&self.tables, pages, budget)? else {
            kimberlite_probe::reachable!("kernel.decides_in_steps");
            return Ok(None);
        };
        // Streams are not seen by the tables.
        let went_on = |guard: &Guard| {
            let Guard::StreamEnds(stream, end) = guard else { return false };
            self.tenants.stream(entry.header.tenant, *stream).is_ok_and(|state| state.end != *end)
        };
        if deciding.facts().guards.iter().any(went_on) && !matches!(decided, Err(Refused::Malformed(_))) {
            return Ok(Some(Err(Refusal::Conflict)));
        }
        Ok(Some(match decided {
            Ok(change) => Ok((Outcome::Written { rows: change.rows() }, Change::Tables(Box::new(change)))),
            Err(Refused::Conflict(_)) => Err(Refusal::Conflict),
            Err(Refused::Malformed(_)) => Err(Refusal::Malformed),
            Err(Refused::Sql(error)) => {
                let code = SqlCode::new(error.state().code()).expect("a SQLSTATE has five characters");
                Err(Refusal::Sql { code })
            }
        }))
    }

    /// Begins the decision on the facts that a session has staged.
    fn begin_staged(
        &self,
        entry: &Entry<'_>,
        pieces: u32,
        digest: &[u8; 32],
    ) -> Result<Box<Deciding>, Refusal> {
        let header = &entry.header;
        self.tenants.check_exists(header.tenant)?;
        let staged = self.stages.of((header.session, header.tenant), pieces, digest);
        let staged = staged.ok_or(Refusal::Conflict)?;
        let lost = usize::from(mutant!(StageLost, staged.len() > 1));
        let staged = staged[..staged.len() - lost].iter().cloned();
        kimberlite_probe::reachable!("kernel.commits_staged");
        Ok(Box::new(Deciding::of_pieces(header.tenant, staged, header.position, header.timestamp)))
    }

    /// Begins the decision on facts, unless it is made at once. It alone may miss pages.
    fn begin(&self, entry: &Entry<'_>, facts: &[u8], pages: &dyn Pages) -> Result<Begun, Miss> {
        let header = &entry.header;
        if let Err(refusal) = self.tenants.check_exists(header.tenant) {
            return Ok(Begun::Decided(Err(refusal)));
        }
        let malformed = Ok(Begun::Decided(Err(Refusal::Malformed)));
        let Ok((guards, rest)) = postcard::take_from_bytes::<Vec<Guard>>(facts) else { return malformed };
        let facts = Facts { guards, ..Facts::default() };
        let (tenant, at, time) = (header.tenant, header.position, header.timestamp);
        let streams = facts.guards.iter().any(|guard| matches!(guard, Guard::StreamEnds(..)));
        if !streams
            && let Some(change) = self.tables.decide_inserts(tenant, (&facts, rest), at, time, pages)?
        {
            let decided = (Outcome::Written { rows: change.rows() }, Change::Tables(Box::new(change)));
            return Ok(Begun::Decided(Ok(decided)));
        }
        let Ok(((schema, writes), [])) = postcard::take_from_bytes::<(Vec<SchemaFact>, Vec<Write>)>(rest)
        else {
            return malformed;
        };
        let facts = Facts { schema, writes, ..facts };
        Ok(Begun::Deciding(Box::new(Deciding::new(tenant, facts, at, time))))
    }

    /// What any other request does.
    fn execute_command(&self, entry: &Entry<'_>, command: Command<'_>) -> Result<(Outcome, Change), Refusal> {
        let header = &entry.header;
        let tenant = header.tenant;
        let registered = header.session != SessionId::NONE;
        match command {
            Command::Register if registered => Err(Refusal::Malformed),
            Command::Register => {
                let outcome = Outcome::Registered { session: SessionId(header.position) };
                Ok((outcome, Change::Register { evict: self.sessions.to_evict() }))
            }
            Command::Facts { .. } | Command::Commit { .. } => Err(Refusal::NoSession),
            _ if !registered => Err(Refusal::NoSession),
            Command::CreateTenant { name } => {
                self.tenants.check_tenant(tenant)?;
                Ok((Outcome::TenantCreated, Change::CreateTenant { tenant, name: name.into() }))
            }
            Command::CreateStream { stream, name } => {
                self.tenants.check_stream(tenant, stream)?;
                Ok((Outcome::StreamCreated, Change::CreateStream { tenant, stream, name: name.into() }))
            }
            Command::Stage { number, facts } => {
                self.tenants.check_exists(tenant)?;
                let of = (header.session, tenant);
                let (pieces, staging) = self.stages.stage(of, number, facts, header.timestamp)?;
                Ok((Outcome::Staged { pieces }, Change::Stage(staging)))
            }
            Command::AppendBatch { stream, expected, records } => {
                let first = self.tenants.stream(tenant, stream)?.end;
                if expected.is_some_and(|expected| expected != first) {
                    kimberlite_probe::reachable!("kernel.offset_mismatch");
                    return Err(Refusal::OffsetMismatch { actual: first });
                }
                let count = records.count();
                let LogPosition { op, index } = header.position;
                let extent = Extent { first, op, entry: index, count };
                Ok((Outcome::Appended { first, count }, Change::Append { tenant, stream, extent }))
            }
        }
    }

    /// Makes a decision true: once per entry, in log order, right after it was decided.
    pub fn install(&mut self, decision: Decision) -> EntryVerdict {
        let Decision { decided_at, position, outcome, remembered, change } = decision;
        assert_eq!(position, self.next(), "entries are installed in log order, each once");
        assert_eq!(decided_at, position, "a decision is installed into the state it was made for");
        self.installed += 1;
        let EntryVerdict { session, request, verdict, .. } = outcome;
        if remembered {
            let (before, after) = self.sessions.remember(session, request, verdict);
            self.items.remove(before);
            self.items.add(after);
            // What was staged is of use only to what follows at once.
            if !matches!(change, Change::Stage(_))
                && let Some(set) = self.stages.drop_of(session)
            {
                self.items.remove(set);
            }
        }
        match change {
            Change::Nothing => {}
            Change::Register { evict } => {
                if let Some(oldest) = evict {
                    kimberlite_probe::reachable!("kernel.evicts");
                    self.items.remove(self.sessions.evict(oldest));
                    if let Some(set) = self.stages.drop_of(oldest) {
                        self.items.remove(set);
                    }
                }
                self.items.add(self.sessions.register(SessionId(position), verdict));
            }
            Change::CreateTenant { tenant, name } => {
                self.items.add(self.tenants.create_tenant(tenant, name).lanes());
            }
            Change::CreateStream { tenant, stream, name } => {
                self.items.add(self.tenants.create_stream(tenant, stream, name).lanes());
            }
            Change::Append { tenant, stream, extent } => {
                self.items.add(self.tenants.append(tenant, stream, extent).lanes());
            }
            Change::Stage(staging) => {
                let (gone, new) = self.stages.install(staging);
                for set in gone {
                    self.items.remove(set);
                }
                self.items.add(new);
            }
            Change::Tables(change) => {
                self.written.add_all(change.sum());
                self.tables.install(*change);
            }
        }
        outcome
    }

    /// Ends an op whose entries were all installed.
    pub fn finish(&mut self, header: &PrepareHeader) {
        assert_eq!(header.op, self.applied.next(), "ops are finished in order, each once");
        assert_eq!(header.entries, self.installed, "an op is finished when all its entries are installed");
        assert!(!self.tables.is_under_way(), "an op is finished when its last entry is written");
        if header.entries == 0 {
            assert_eq!(header.chain, self.chain, "an op without entries leaves the chain as it was");
        }
        self.applied = header.op;
        self.chain = header.chain;
        self.installed = 0;
        self.since.ops += 1;
        self.since.bytes += u64::from(header.size);
    }

    /// How a request stands to the log applied *here, so far*. The primary's filter for retries, ahead of
    /// the log: it only saves work; what is decided for the entry is what counts.
    ///
    /// A duplicate or stale request stays one whatever is applied later, so it may be answered or dropped at
    /// once. `NoSession` may not be: the registration may lie in the part of the log that is not applied
    /// yet. Such a request goes into the log and is refused there.
    ///
    /// Nobody is told of an op of which only a part is installed: reads may still be at the one in front of it.
    pub fn reply_of(&self, session: SessionId, request: RequestNumber) -> Lookup {
        match self.sessions.lookup(session, request) {
            Lookup::Duplicate(verdict) if verdict.position.op > self.applied => Lookup::New,
            known => known,
        }
    }

    /// Whether a tenant exists. Refused as `NoTenant`.
    pub fn tenant(&self, tenant: TenantId) -> Result<(), Refusal> {
        self.tenants.check_exists(tenant)
    }

    /// How a stream stands. Refused as `NoTenant` or `NoStream`.
    pub fn stream(&self, tenant: TenantId, stream: StreamId) -> Result<StreamState<'_>, Refusal> {
        self.tenants.stream(tenant, stream)
    }

    /// The streams of a tenant by number, from `from` on. Refused as `NoTenant`.
    pub fn streams(
        &self,
        tenant: TenantId,
        from: StreamId,
    ) -> Result<impl Iterator<Item = (StreamId, StreamState<'_>)>, Refusal> {
        self.tenants.streams(tenant, from)
    }

    /// Where the records of a stream stand from `from` on. Takes a binary search; the caller decides how
    /// many of the extents it follows. Refused as `NoTenant` or `NoStream`.
    pub fn locate(&self, tenant: TenantId, stream: StreamId, from: Offset) -> Result<Located<'_>, Refusal> {
        self.tenants.locate(tenant, stream, from)
    }

    /// The rows of a tenant as of the last op applied. Of a tenant that does not exist, none. Streams are not seen.
    pub fn rows<'a>(&'a self, tenant: TenantId, pages: &'a dyn Pages) -> TableRows<'a> {
        let last = LogPosition { op: self.applied, index: u32::MAX };
        self.tables.rows(tenant, last, pages)
    }

    /// The same with the tenant's streams, whose records are read of these prepares of the log: a miss names the ops of others.
    pub fn rows_and_streams<'a>(
        &'a self,
        tenant: TenantId,
        pages: &'a dyn Pages,
        prepares: &'a BTreeMap<Op, Prepare>,
    ) -> TableRows<'a> {
        self.rows(tenant, pages).with_streams(&self.tenants, prepares)
    }

    /// Whether a checkpoint is to be taken before anything else is applied. The same on every replica: it depends on what was
    /// applied, and on the layout, which is fixed for good.
    ///
    /// What stands beside the trees is written whole, so as much log goes by before the next checkpoint as that takes: at
    /// most every other byte that is written is one of a checkpoint. What is not written yet is held in memory, so
    /// the number of such pages alone is enough.
    pub fn is_checkpoint_due(&self, layout: &Layout) -> bool {
        let Since { ops, bytes, companion } = self.since;
        let much = ops >= layout.checkpoint_ops() || bytes >= layout.checkpoint_bytes();
        let whim = mutant!(CheckpointByWhim, !much) && kimberlite_probe::__mutant::whim(16) == 0;
        self.installed == 0
            && ops > 0
            && ((much && bytes >= companion) || self.tables.dirty_pages() >= DIRTY_PAGES_MAX || whim)
    }

    /// Pages that the last checkpoint has, of tables and beside them.
    pub fn pages(&self) -> u64 {
        self.tables.pages()
    }

    /// Gives all new pages of tables their places and hands them out, to be written, with everything else that the state
    /// holds. From now on they are asked for. Between ops.
    pub fn checkpoint(&mut self) -> Checkpoint {
        assert_eq!(self.installed, 0, "an op is in a checkpoint as a whole, or not at all");
        let image = image::encode(self);
        self.since = Since { companion: image.len() as u64, ..Since::default() };
        self.tables.checkpoint_with(&image)
    }

    /// The state that a checkpoint holds, as it was behind [`Kernel::checkpoint`]. Asks for the pages of what stands beside the
    /// trees of tables; those of the trees come as they are needed.
    pub fn open(sessions_max: u32, root: &CheckpointRoot, pages: &dyn Pages) -> Result<Self, OpenError> {
        let (tables, image) = Tables::open(root, pages)?;
        image::decode(sessions_max, &image, tables)
    }

    /// The digest of the state, at the price of one hash.
    pub fn digest(&self) -> StateDigest {
        let mut sum = self.items;
        sum.add_all(&self.written);
        sum.digest(self.applied, &self.chain)
    }

    /// The digest of the state, computed anew from every item of it. Equal to [`Kernel::digest`], or the
    /// state is not what was installed; checks the indexes on the way. Takes time in proportion to the state.
    pub fn digest_walk(&self) -> StateDigest {
        self.digest_walk_with(&Unwritten).expect("no page was ever written")
    }

    /// The same after a checkpoint, with pages of tables. It is begun anew when one was missing.
    pub fn digest_walk_with(&self, pages: &dyn Pages) -> Result<StateDigest, kimberlite_store::Miss> {
        let mut sum = ItemSum::default();
        for session in self.sessions.items() {
            sum.add(session.lanes());
        }
        self.stages.items().for_each(|set| sum.add(set));
        self.tenants.for_each_item(|item| sum.add(item.lanes()));
        self.tables.for_each_version(pages, |there, version| {
            if there {
                sum.add(version.lanes());
            } else {
                sum.remove(version.lanes());
            }
        })?;
        Ok(sum.digest(self.applied, &self.chain))
    }
}

/// The entry that stands as far from the end as this one from the beginning, of a prepare of facts alone; in its place.
fn turned<'a>(prepare: &'a Prepare, entry: &Entry<'_>) -> Option<Entry<'a>> {
    let facts = |entry: &Entry<'_>| matches!(Command::decode(entry.command), Ok(Command::Facts { .. }));
    let all: Vec<Entry<'a>> = prepare.entries().flatten().collect();
    let other = all.len().checked_sub(1 + entry.header.position.index as usize)?;
    let (fit, mut other) = (all.iter().all(facts), *all.get(other)?);
    let position = core::mem::replace(&mut other.header.position, entry.header.position);
    (fit && position != entry.header.position).then_some(other)
}

/// The verdict on an entry that was not decided before.
fn heard(entry: &Entry<'_>, result: Result<Outcome, Refusal>) -> EntryVerdict {
    let header = &entry.header;
    let verdict = Verdict { position: header.position, result };
    EntryVerdict { session: header.session, request: header.request, verdict, duplicate: false }
}
