//! SQL in this process: the query layer over a kernel's tables, each commit one prepare of a hash-chained log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use kimberlite_kernel::Kernel;
use kimberlite_kernel::staged::commands;
use kimberlite_query::parse;
use kimberlite_query::session::{Answer, Running, Session, Step};
use kimberlite_row::check::Stop;
use kimberlite_row::fact::Facts;
use kimberlite_row::{SqlError, Value};
use kimberlite_store::{Miss, Page, PageRef, Pages};
use kimberlite_types::limits::{COMMAND_SIZE_LIMIT, SECTOR_SIZE};
use kimberlite_types::{
    ClusterId, Layout, LogPosition, Op, ReplicaId, RequestNumber, SessionId, TenantId, View, WallTime,
};
use kimberlite_wire::command::{Command, Outcome, Refusal};
use kimberlite_wire::{NewEntry, NewPrepare, Prepare, PrepareHeader};
use kmb::Failure;
use sqlparser::ast;

const TENANT: TenantId = TenantId(1);

/// Commits between two checkpoints of the tables.
const CHECKPOINT_COMMITS: u64 = 64;

/// Bytes of a header on its own: what a node writes to its ring behind each prepare.
const HEADER_SIZE: usize = 512;

/// Pages by their place.
#[derive(Default)]
struct Memory(Vec<Option<Page>>);

impl Pages for Memory {
    fn page(&self, at: PageRef) -> Result<&Page, Miss> {
        let found = usize::try_from(at.address.0).ok().and_then(|place| self.0.get(place)?.as_ref());
        found.ok_or_else(|| Miss::of(at))
    }
}

/// Bytes of the log that are written before anything is measured, as a node writes its segments: a file that grows has
/// its size to be made durable, too.
const LOG_SIZE: u64 = 24 << 20;

/// Headers of the ring, and zeros that are written at once.
const RING_SLOTS: u64 = 1024;
const ZEROS: usize = 1 << 20;

/// The log as a lone node writes it: each prepare durable, and then its header in the ring; both files are as large as they
/// will be before the first.
struct Log {
    prepares: File,
    headers: File,
    place: u64,
}

impl Log {
    fn create(dir: &Path) -> Result<Self, Failure> {
        let file = |name, size: u64| {
            let path = dir.join(name);
            let made = || {
                let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
                let zeros = vec![0; ZEROS];
                for at in (0..size).step_by(ZEROS) {
                    file.write_all_at(&zeros, at)?;
                }
                file.sync_all()?;
                Ok(file)
            };
            made().map_err(|error| Failure::on(&path, &error))
        };
        let ring = RING_SLOTS * HEADER_SIZE as u64;
        Ok(Self { prepares: file("prepares", LOG_SIZE)?, headers: file("headers", ring)?, place: 0 })
    }

    fn write(&mut self, prepare: &Prepare) -> std::io::Result<()> {
        let bytes = prepare.frame().padded();
        self.prepares.write_all_at(&bytes, self.place)?;
        self.prepares.sync_data()?;
        self.place += bytes.len().next_multiple_of(SECTOR_SIZE) as u64;
        let slot = prepare.header.op.0 % RING_SLOTS * HEADER_SIZE as u64;
        self.headers.write_all_at(&bytes[..HEADER_SIZE], slot)?;
        self.headers.sync_data()
    }
}

/// A statement that is parsed once.
#[derive(Clone)]
pub(super) struct Prepared {
    statement: Arc<ast::Statement>,
    text: Arc<str>,
}

/// The kernel, its log, and one session.
pub(super) struct Engine {
    kernel: Kernel,
    pages: Memory,
    log: Option<Log>,
    parent: PrepareHeader,
    log_session: SessionId,
    request: u64,
    session: Session,
    micros: i64,
}

impl Engine {
    /// An empty database; its log is written to a directory, or else only hashed.
    pub(super) fn new(log: Option<&Path>) -> Result<Self, Failure> {
        let mut engine = Self {
            kernel: Kernel::new(1),
            pages: Memory::default(),
            log: log.map(Log::create).transpose()?,
            parent: PrepareHeader::root(ClusterId(1)),
            log_session: SessionId::NONE,
            request: 0,
            session: Session::default(),
            micros: 1_600_000_000_000_000,
        };
        engine.commit_one(&Command::Register.encode())?;
        engine.log_session = SessionId(LogPosition { op: Op(1), index: 0 });
        engine.commit_one(&Command::CreateTenant { name: "bench" }.encode())?;
        Ok(engine)
    }

    /// Parses a statement.
    pub(super) fn prepare(text: &str) -> Result<Prepared, Failure> {
        let mut statements = parse::statements(text).map_err(|error| refused(text, &error))?;
        let statement = statements.pop().ok_or_else(|| Failure::failed("a text without a statement"))?;
        Ok(Prepared { statement: Arc::new(statement), text: text.into() })
    }

    /// Runs the statements of a text.
    pub(super) fn run(&mut self, text: &str) -> Result<Answer, Failure> {
        let mut answer = Answer::default();
        for statement in parse::statements(text).map_err(|error| refused(text, &error))? {
            answer =
                self.execute(&Prepared { statement: Arc::new(statement), text: text.into() }, Vec::new())?;
        }
        Ok(answer)
    }

    /// Runs a prepared statement.
    pub(super) fn execute(&mut self, prepared: &Prepared, params: Vec<Value>) -> Result<Answer, Failure> {
        self.micros += 10;
        let Prepared { statement, text } = prepared;
        let mut running =
            Running::new(statement.clone(), text.clone(), params, self.micros, self.micros.cast_unsigned());
        loop {
            let rows = self.kernel.rows(TENANT, &self.pages);
            match self.session.step(&mut running, &rows) {
                Ok(Step::More) => {}
                Ok(Step::Done(answer)) => return Ok(answer),
                Ok(Step::Commit(facts, answer)) => {
                    self.commit(&facts)?;
                    return Ok(answer);
                }
                Err(Stop::Refused(error)) => return Err(refused(&prepared.text, &error)),
                Err(Stop::Miss(miss)) => return Err(Failure::failed(format!("pages are missing: {miss:?}"))),
            }
        }
    }

    /// The last op of the log.
    pub(super) fn last_op(&self) -> u64 {
        self.parent.op.0
    }

    fn commit(&mut self, facts: &Facts) -> Result<(), Failure> {
        for command in commands(facts, COMMAND_SIZE_LIMIT as usize).map_err(Failure::failed)? {
            self.commit_one(&command)?;
        }
        Ok(())
    }

    fn commit_one(&mut self, command: &[u8]) -> Result<Outcome, Failure> {
        self.request += 1;
        let new = NewPrepare {
            parent: &self.parent,
            view: View(0),
            commit: self.parent.op,
            timestamp: WallTime((self.micros.cast_unsigned() * 1_000).max(self.parent.timestamp.0 + 1)),
            layout: &Layout::PRODUCTION,
            proposer: ReplicaId(0),
        };
        let (session, request) = (self.log_session, RequestNumber(self.request));
        let prepare = Prepare::build(&new, &[NewEntry { session, request, tenant: TENANT, command }]);
        if let Some(log) = &mut self.log {
            log.write(&prepare).map_err(|error| Failure::failed(format!("the log: {error}")))?;
        }
        self.parent = prepare.header;
        let entry = prepare.entries().next().expect("one entry").expect("built here");
        let decision = self.kernel.decide(&entry, &self.pages).expect("all pages are at hand");
        let result = self.kernel.install(decision).verdict.result;
        self.kernel.go_on(&self.pages).expect("all pages are at hand");
        self.kernel.finish(&prepare.header);
        if self.parent.op.0.is_multiple_of(CHECKPOINT_COMMITS) {
            self.checkpoint();
        }
        result.map_err(|refusal: Refusal| Failure::failed(format!("the kernel refused: {refusal}")))
    }

    fn checkpoint(&mut self) {
        for sealed in self.kernel.checkpoint().pages {
            let place = usize::try_from(sealed.at.address.0).expect("fits in memory");
            if self.pages.0.len() <= place {
                self.pages.0.resize(place + 1, None);
            }
            self.pages.0[place] = Some(sealed.page);
        }
    }
}

fn refused(text: &str, error: &SqlError) -> Failure {
    let text: String = text.chars().take(120).collect();
    Failure::failed(format!("{error}: {text}"))
}
