//! A kernel that is its own cluster: each commit becomes the one entry of a prepare, and is decided and installed as in a
//! node. With pages that miss, every commit ends with a checkpoint, so that all pages are written, and every statement
//! begins with none of them at hand.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kimberlite_kernel::Kernel;
use kimberlite_kernel::staged::commands;
use kimberlite_kernel::tables::TableRows;
use kimberlite_row::fact::Facts;
use kimberlite_row::{SqlError, SqlState};
use kimberlite_store::{Address, Miss, Page, PageRef, Pages};
use kimberlite_types::limits::COMMAND_SIZE_LIMIT;
use kimberlite_types::{
    ClusterId, Layout, LogPosition, Op, ReplicaId, RequestNumber, SessionId, TenantId, View, WallTime,
};
use kimberlite_wire::command::{Command, Outcome, Refusal};
use kimberlite_wire::{NewEntry, NewPrepare, Prepare, PrepareHeader};

const TENANT: TenantId = TenantId(1);

/// Pages in memory, at hand or only written.
#[derive(Default)]
struct Disk {
    written: BTreeMap<Address, Box<[u8]>>,
    here: BTreeMap<Address, Page>,
    wanted: RefCell<Vec<PageRef>>,
}

impl Pages for Disk {
    fn page(&self, at: PageRef) -> Result<&Page, Miss> {
        self.here.get(&at.address).ok_or_else(|| {
            self.wanted.borrow_mut().push(at);
            Miss::of(at)
        })
    }
}

/// The kernel, the log's end, and one session.
pub(crate) struct Node {
    kernel: Kernel,
    parent: PrepareHeader,
    session: SessionId,
    request: u64,
    disk: Disk,
    /// Whether pages are written and have to be fetched.
    miss: bool,
    /// Pages fetched.
    pub(crate) fetched: usize,
}

impl Node {
    /// A log in which the tenant exists; `miss` makes the first touch of every page in a statement miss.
    pub(crate) fn new(miss: bool) -> Self {
        let mut node = Self {
            kernel: Kernel::new(1),
            parent: PrepareHeader::root(ClusterId(1)),
            session: SessionId::NONE,
            request: 0,
            disk: Disk::default(),
            miss,
            fetched: 0,
        };
        // The first op holds the session and the tenant, so that statements begin with the second.
        let session = SessionId(LogPosition { op: Op(1), index: 0 });
        let (register, create) = (Command::Register.encode(), Command::CreateTenant { name: "slt" }.encode());
        let results = node.commit_op(&[(SessionId::NONE, &register), (session, &create)], 1);
        assert_eq!(results, [Ok(Outcome::Registered { session }), Ok(Outcome::TenantCreated)]);
        node.session = session;
        node
    }

    /// Rows as of the last commit.
    pub(crate) fn rows(&self) -> TableRows<'_> {
        self.kernel.rows(TENANT, &self.disk)
    }

    /// A statement begins.
    pub(crate) fn forget_pages(&mut self) {
        self.disk.here.clear();
    }

    /// Fetches what was missed.
    pub(crate) fn fetch(&mut self) {
        let wanted = self.disk.wanted.take();
        assert!(!wanted.is_empty(), "what misses asks for a page");
        for at in wanted {
            let bytes = self.disk.written.get(&at.address).expect("what is asked for was written");
            let page = Page::decode(&at, bytes.clone()).expect("what was written is sound");
            self.disk.here.insert(at.address, page);
            self.fetched += 1;
        }
    }

    /// Puts facts into the log, at a time in microseconds.
    pub(crate) fn commit(&mut self, facts: &Facts, micros: i64) -> Result<(), SqlError> {
        let commands = commands(facts, COMMAND_SIZE_LIMIT as usize)
            .map_err(|message| SqlError::new(SqlState::ProgramLimitExceeded, message))?;
        for command in commands {
            let results = self.commit_op(&[(self.session, &command)], micros.cast_unsigned() * 1_000);
            match results[..] {
                [Ok(_)] => {}
                [Err(refusal), ..] => {
                    let state = SqlState::of_code(refusal.sqlstate());
                    let state = state.unwrap_or(SqlState::InvalidParameterValue);
                    return Err(SqlError::new(state, refusal.to_string()));
                }
                _ => panic!("one entry has one result: {results:?}"),
            }
        }
        Ok(())
    }

    /// Puts one op into the log, and applies it.
    fn commit_op(&mut self, commands: &[(SessionId, &Vec<u8>)], time: u64) -> Vec<Result<Outcome, Refusal>> {
        let new = NewPrepare {
            parent: &self.parent,
            view: View(0),
            commit: self.parent.op,
            timestamp: WallTime(time.max(self.parent.timestamp.0 + 1)),
            layout: &Layout::PRODUCTION,
            proposer: ReplicaId(0),
        };
        let mut entries = Vec::new();
        for (session, command) in commands {
            self.request += 1;
            let (session, request) = (*session, RequestNumber(self.request));
            entries.push(NewEntry { session, request, tenant: TENANT, command });
        }
        let prepare = Prepare::build(&new, &entries);
        self.parent = prepare.header;
        let mut verdicts = Vec::new();
        while self.kernel.apply_on(&prepare, &self.disk, &mut verdicts).is_err() {
            self.fetch();
        }
        let results = verdicts.iter().map(|said| said.verdict.result).collect();
        if self.miss {
            for sealed in self.kernel.checkpoint().pages {
                self.disk.written.insert(sealed.at.address, sealed.page.bytes().into());
            }
            self.forget_pages();
        }
        results
    }
}
