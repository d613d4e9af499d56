//! The kernel under commands that change tables, whole and in pieces, honest and not: one that decides each at once and has all
//! its pages says the same as one that does a few rows at a time, finds every page missing and is restarted from checkpoints.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;

use kimberlite_kernel::tables::Unwritten;
use kimberlite_kernel::{EntryVerdict, Kernel, OpenError, staged};
use kimberlite_query::parse;
use kimberlite_query::session::{Running, Session, Step};
use kimberlite_row::check::Stop;
use kimberlite_row::fact::{Facts, Miss};
use kimberlite_store::{Address, CheckpointRoot, Page, PageRef, Pages};
use kimberlite_types::{
    ClusterId, Layout, LogPosition, Op, ReplicaId, RequestNumber, SessionId, StreamId, TenantId, View,
    WallTime,
};
use kimberlite_wire::command::{Command, RecordsBuilder, staged_digest};
use kimberlite_wire::{NewEntry, NewPrepare, Prepare, PrepareHeader};

use crate::generate::{Choices, SCHEMA};
use crate::script::Script;

const TENANT: TenantId = TenantId(1);

/// Sessions that a kernel keeps: the two clients', and one that others are evicted for.
const SESSIONS_MAX: u32 = 3;

/// Steps of one input at most.
const STEPS_MAX: usize = 150;

/// Bytes that a command has at most: facts of a row or two, of some rows, and all.
const SIZES: [usize; 4] = [150, 400, 2_000, 100_000];

/// Commands that wait for one client at most.
const QUEUE_MAX: usize = 64;

/// Choices of a lie in facts; from `TRUE` on they are left as they were planned.
const LIES: usize = 12;
const TRUE: usize = 7;

/// What changes the schema, ends a transaction or writes much.
const OTHERS: [&str; 14] = [
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "INSERT INTO t SELECT n, n % 7, repeat('x', 90) FROM generate_series(100, 140) AS g (n)",
    "INSERT INTO u SELECT n % 9, n, repeat('y', 2000) FROM generate_series(1, 12) AS g (n)",
    "UPDATE t SET c = repeat('z', 700)",
    "CREATE INDEX ON t (d)",
    "CREATE UNIQUE INDEX ON u (y)",
    "ALTER TABLE t ADD e int DEFAULT 7",
    "ALTER TABLE t DROP COLUMN d",
    "ALTER TABLE u ADD CHECK (x < 7)",
    "ALTER TABLE u ADD FOREIGN KEY (x) REFERENCES t ON DELETE CASCADE",
    "TRUNCATE u",
    "CREATE TABLE IF NOT EXISTS v (i int PRIMARY KEY, s serial)",
];

/// Pages that were written, and those that are at hand.
#[derive(Default)]
struct Disk {
    written: BTreeMap<Address, (PageRef, Page)>,
    here: BTreeMap<Address, Page>,
}

impl Pages for Disk {
    fn page(&self, at: PageRef) -> Result<&Page, kimberlite_store::Miss> {
        self.here.get(&at.address).ok_or_else(|| kimberlite_store::Miss::of(at))
    }
}

impl Disk {
    fn fetch(&mut self, addresses: impl IntoIterator<Item = Address>) {
        let before = self.here.len();
        for address in addresses {
            let (at, page) = &self.written[&address];
            let page = Page::decode(at, page.bytes().into()).expect("what was written is sound");
            self.here.insert(address, page);
        }
        assert!(self.here.len() > before, "a miss names a page that is not at hand");
    }

    fn missed(&mut self, miss: &Miss) {
        self.fetch(miss.pages.iter().map(|address| Address(*address)));
    }

    /// Opens a checkpoint, page by page.
    fn open(&mut self, root: &CheckpointRoot) -> Kernel {
        self.here.clear();
        loop {
            match Kernel::open(SESSIONS_MAX, root, self) {
                Ok(kernel) => return kernel,
                Err(OpenError::Miss(miss)) => self.fetch(miss.pages().iter().map(|at| at.address)),
                Err(error) => panic!("our own checkpoint: {error}"),
            }
        }
    }
}

/// Somebody who plans statements on the tables as they are, and has the commands of their facts under way.
struct Client {
    id: SessionId,
    number: u64,
    session: Session,
    queue: VecDeque<Vec<u8>>,
}

/// An entry to be committed.
type Asked = (SessionId, u64, Vec<u8>);

/// One log, and the two kernels that apply it.
struct Log {
    whole: Kernel,
    steps: Kernel,
    disk: Disk,
    parent: PrepareHeader,
    time: u64,
    clients: [Client; 2],
    /// Statements so far.
    planned: u64,
}

/// Runs the script.
pub(crate) fn run(bytes: &[u8]) {
    static BEGUN: OnceLock<(Kernel, PrepareHeader, [u64; 2])> = OnceLock::new();
    let (kernel, parent, numbers) = BEGUN.get_or_init(|| {
        let Log { whole, parent, clients, .. } = Log::new();
        (whole, parent, clients.map(|client| client.number))
    });
    let mut script = Script::new(bytes);
    let mut log = Log::behind(kernel, *parent, *numbers);
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        log.step(&mut script);
    }
    log.settle();
}

impl Log {
    /// A log whose clients go on behind these numbers.
    fn behind(kernel: &Kernel, parent: PrepareHeader, numbers: [u64; 2]) -> Self {
        let client = |index: u32| Client {
            id: SessionId(LogPosition { op: Op(1), index }),
            number: numbers[index as usize],
            session: Session::default(),
            queue: VecDeque::new(),
        };
        Self {
            whole: kernel.clone(),
            steps: kernel.clone(),
            disk: Disk::default(),
            parent,
            time: parent.timestamp.0,
            clients: [client(0), client(1)],
            planned: 0,
        }
    }

    /// A log of two sessions and a tenant with tables.
    fn new() -> Self {
        let root = PrepareHeader::root(ClusterId(1));
        let mut log = Self::behind(&Kernel::new(SESSIONS_MAX), root, [0; 2]);
        let register = || (SessionId::NONE, 1, Command::Register.encode());
        log.commit(&[register(), register()], 1);
        log.clients[0].queue.push_back(Command::CreateTenant { name: "tenant" }.encode());
        for statement in SCHEMA.split_inclusive(';').chain(["INSERT INTO t VALUES (1, 2, 'a', 0.5)"]) {
            while let Some(asked) = log.next_of(0) {
                log.commit(&[asked], usize::MAX);
            }
            log.plan(0, statement, |facts| (facts, SIZES[3]));
        }
        log.settle();
        log
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(8) {
            0 | 1 => {
                let which = script.below(2);
                let statement = match script.below(3) {
                    0 => OTHERS[script.below(OTHERS.len())].to_owned(),
                    _ => Choices::new(script.bytes(24)).change(),
                };
                let (size_max, lie) = (SIZES[script.below(SIZES.len())], script.below(LIES));
                self.plan(which, &statement, |facts| (altered(facts, lie, script), size_max));
            }
            2..=4 => {
                let mut entries = Vec::new();
                for _ in 0..=script.below(3) {
                    self.ask(script, &mut entries);
                }
                let rows = [1, 3, 20, usize::MAX][script.below(4)];
                self.commit(&entries, rows);
            }
            5 => {
                let root = self.checkpoint();
                if script.flag() {
                    let before = self.steps.digest();
                    self.steps = self.disk.open(&root);
                    assert_eq!(self.steps.digest(), before, "a checkpoint is the state");
                }
            }
            6 => {
                let which = script.below(2);
                let commands = strange(script);
                self.queue(which, commands);
            }
            // Up to two minutes: what is staged may be idle for one.
            _ => self.time += 1 << script.below(38),
        }
    }

    /// Plans statements on the tables as they are. What they change is `made` into commands of some size.
    fn plan(&mut self, which: usize, sql: &str, mut made: impl FnMut(Facts) -> (Facts, usize)) {
        let list = parse::statements(sql).expect("our own statements");
        for statement in list {
            self.planned += 1;
            let mut running = Running::new(statement, sql, Vec::new(), 1_600_000_000_000_000, self.planned);
            let rows = self.whole.rows(TENANT, &Unwritten);
            let facts = loop {
                match self.clients[which].session.step(&mut running, &rows) {
                    Ok(Step::More) => {}
                    Ok(Step::Done(_)) => break None,
                    Ok(Step::Commit(facts, _)) => break Some(facts),
                    Err(Stop::Refused(_)) => return,
                    Err(Stop::Miss(miss)) => panic!("{miss:?} while nothing was written"),
                }
            };
            if let Some(facts) = facts {
                let (facts, size_max) = made(facts);
                if let Ok(commands) = staged::commands(&facts, size_max) {
                    self.queue(which, commands);
                }
            }
        }
    }

    fn queue(&mut self, which: usize, commands: impl IntoIterator<Item = Vec<u8>>) {
        let queue = &mut self.clients[which].queue;
        queue.extend(commands);
        queue.truncate(QUEUE_MAX);
    }

    fn next_of(&mut self, which: usize) -> Option<Asked> {
        let client = &mut self.clients[which];
        let command = client.queue.pop_front()?;
        client.number += 1;
        Some((client.id, client.number, command))
    }

    /// The next command of a client, which may be lost, said twice, or come to harm on its way.
    fn ask(&mut self, script: &mut Script<'_>, entries: &mut Vec<Asked>) {
        let (which, harm) = (script.below(2), script.below(12));
        let Some(asked) = self.next_of(which) else { return };
        match harm {
            0 => {}
            1 => entries.extend([asked.clone(), asked]),
            2 => {
                let (id, number, mut command) = asked;
                if !command.is_empty() {
                    let at = script.below(command.len());
                    command[at] ^= 1 << script.below(8);
                }
                entries.push((id, number, command));
            }
            // A new session, which the oldest one goes for.
            3 => entries.extend([(SessionId::NONE, 1, Command::Register.encode()), asked]),
            _ => entries.push(asked),
        }
    }

    /// Commits entries. The one kernel applies them about so many rows at a time.
    fn commit(&mut self, entries: &[Asked], rows: usize) {
        let entries: Vec<NewEntry<'_>> = entries
            .iter()
            .map(|(session, number, command)| NewEntry {
                session: *session,
                request: RequestNumber(*number),
                tenant: TENANT,
                command,
            })
            .collect();
        self.time = self.time.max(self.parent.timestamp.0) + 1;
        let new = NewPrepare {
            parent: &self.parent,
            view: View(0),
            commit: self.parent.op,
            timestamp: WallTime(self.time),
            layout: &Layout::PRODUCTION,
            proposer: ReplicaId(0),
        };
        let prepare = Prepare::build(&new, &entries);
        self.parent = prepare.header;
        let whole = self.whole.apply(&prepare).verdicts;
        let steps = self.apply_in_steps(&prepare, rows);
        assert_eq!(steps, whole, "all kernels decide the same");
        assert_eq!(self.steps.digest(), self.whole.digest(), "the same log gives the same state");
    }

    fn apply_in_steps(&mut self, prepare: &Prepare, rows: usize) -> Vec<EntryVerdict> {
        let mut verdicts = Vec::new();
        self.disk.here.clear();
        loop {
            match self.steps.apply_some(prepare, &self.disk, &mut verdicts, rows) {
                Ok(true) => return verdicts,
                // What was at hand for one step may be gone at the next.
                Ok(false) => self.disk.here.clear(),
                Err(miss) => self.disk.missed(&miss),
            }
        }
    }

    fn checkpoint(&mut self) -> CheckpointRoot {
        let checkpoint = self.steps.checkpoint();
        for sealed in checkpoint.pages {
            self.disk.written.insert(sealed.at.address, (sealed.at, sealed.page));
        }
        checkpoint.root
    }

    /// Commits what waits, and looks at all that came of it.
    fn settle(&mut self) {
        for which in 0..self.clients.len() {
            while let Some(asked) = self.next_of(which) {
                self.commit(&[asked], 1);
            }
        }
        assert_eq!(self.whole.digest_walk(), self.whole.digest(), "the digest is that of the state");
    }
}

/// Facts as they were planned, or with a lie in them.
fn altered(mut facts: Facts, lie: usize, script: &mut Script<'_>) -> Facts {
    let write = if lie < TRUE { script.below(facts.writes.len().max(1)) } else { 0 };
    match lie {
        0 => facts.guards.clear(),
        1 => facts.writes.extend(facts.writes.get(write).cloned()),
        2 => facts.writes.reverse(),
        3 => {
            if let Some(write) = facts.writes.get_mut(write) {
                std::mem::swap(&mut write.before, &mut write.after);
            }
        }
        4 => {
            if let Some(write) = facts.writes.get_mut(write) {
                write.before = None;
            }
        }
        5 | 6 => {
            let mut bytes = postcard::to_allocvec(&facts).expect("facts encode");
            for _ in 0..=script.below(3) {
                let at = script.below(bytes.len());
                bytes[at] = script.byte();
            }
            if let Ok((altered, [])) = postcard::take_from_bytes(&bytes) {
                return altered;
            }
        }
        _ => {}
    }
    facts
}

/// Commands that were not planned.
fn strange(script: &mut Script<'_>) -> Vec<Vec<u8>> {
    let mut records = RecordsBuilder::default();
    let (number, byte) = (script.below(4) as u32, script.byte());
    let (facts, reply) = (script.bytes(60), b"done");
    records.push(facts);
    let (stage, stream) = (Command::Stage { number: 0, facts }, StreamId(1));
    let commands = match script.below(8) {
        0 => vec![Command::Stage { number, facts }],
        1 => vec![Command::Stage { number, facts: &[0, 0, 0] }],
        2 => vec![Command::Commit { pieces: number, digest: [byte; 32], reply }],
        3 => {
            let digest = staged_digest([0; 32], facts);
            vec![stage, Command::Commit { pieces: 1, digest, reply }]
        }
        4 => vec![Command::Facts { facts, reply }],
        5 => vec![Command::CreateStream { stream, name: "stream" }],
        6 => vec![Command::AppendBatch { stream, expected: None, records: records.records() }],
        _ => return vec![facts.to_vec()],
    };
    commands.iter().map(Command::encode).collect()
}
