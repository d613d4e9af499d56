//! Tables: stories, lies, and everything against a model.

mod lies;
mod model;
mod property;
mod staged;

use std::collections::BTreeMap;

use kimberlite_row::fact::{Facts, Miss};
use kimberlite_row::{Column, ColumnId, Type};
use kimberlite_store::{Address, Page, PageRef, Pages};
use kimberlite_types::{ClusterId, ReplicaId, RequestNumber, SessionId, TenantId, View, WallTime};
use kimberlite_wire::command::{Command, Outcome, Refusal};
use kimberlite_wire::{NewEntry, NewPrepare, Prepare, PrepareHeader};

use super::{CLINIC, Result};
use crate::Kernel;
use crate::staged::commands;
use crate::tables::TableRows;

/// A column by its number, that may be NULL.
fn column(id: u32, kind: Type) -> Column {
    Column {
        id: ColumnId(id),
        name: format!("c{id}"),
        kind,
        not_null: false,
        default: None,
        missing: None,
        identity: None,
        owns: None,
        generated: None,
    }
}

/// How much of what was written is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// Nothing is ever written, so that nothing can miss.
    Whole,
    /// All is written after each command, and nothing is at hand when an operation begins.
    None,
    /// As `None`, and little is done at once.
    Slow,
    /// As `None`, and only the first page of a miss is fetched; and the state is opened from each checkpoint.
    OneByOne,
}

/// Pages in memory, at hand or only written.
#[derive(Default)]
struct Disk {
    written: BTreeMap<Address, (PageRef, Page)>,
    here: BTreeMap<Address, Page>,
}

impl Pages for Disk {
    fn page(&self, at: PageRef) -> core::result::Result<&Page, kimberlite_store::Miss> {
        self.here.get(&at.address).ok_or_else(|| kimberlite_store::Miss::of(at))
    }
}

/// All pages that were written.
struct All<'a>(&'a BTreeMap<Address, (PageRef, Page)>);

impl Pages for All<'_> {
    fn page(&self, at: PageRef) -> core::result::Result<&Page, kimberlite_store::Miss> {
        self.0.get(&at.address).map(|(_, page)| page).ok_or_else(|| kimberlite_store::Miss::of(at))
    }
}

/// A kernel with its pages.
struct Replica {
    kernel: Kernel,
    memory: Memory,
    disk: Disk,
    misses: usize,
}

impl Replica {
    fn new(memory: Memory) -> Self {
        Self { kernel: Kernel::new(4), memory, disk: Disk::default(), misses: 0 }
    }

    /// Runs an operation on the tables until it has all its pages, beginning with none.
    fn run<T>(
        &mut self,
        mut operation: impl FnMut(&Kernel, &dyn Pages) -> core::result::Result<T, Miss>,
    ) -> T {
        self.disk.here.clear();
        for _ in 0..10_000 {
            let miss = match operation(&self.kernel, &self.disk) {
                Ok(done) => return done,
                Err(miss) => miss,
            };
            self.fetch(&miss);
        }
        panic!("an operation does not end");
    }

    fn fetch(&mut self, miss: &Miss) {
        assert_ne!(self.memory, Memory::Whole, "{miss:?} while nothing was written");
        assert!(!miss.pages.is_empty(), "a miss names a page");
        let most = if self.memory == Memory::OneByOne { 1 } else { usize::MAX };
        for address in miss.pages.iter().take(most) {
            let (at, page) = &self.disk.written[&Address(*address)];
            let page = Page::decode(at, page.bytes().into()).expect("it was written so");
            self.disk.here.insert(at.address, page);
            self.misses += 1;
        }
    }

    /// Writes what is left of an entry, with the pages it has to come back for.
    fn go_on(&mut self) {
        self.disk.here.clear();
        while let Err(miss) = self.kernel.go_on(&self.disk) {
            self.fetch(&miss);
        }
    }

    fn rows<T>(&mut self, mut read: impl FnMut(&TableRows<'_>) -> core::result::Result<T, Miss>) -> T {
        self.run(|kernel, pages| read(&kernel.rows(CLINIC, pages)))
    }

    /// Applies a prepare by a few rows at once.
    fn apply_slowly(&mut self, prepare: &Prepare) -> Vec<Result> {
        let mut verdicts = Vec::new();
        self.disk.here.clear();
        for _ in 0..1_000_000 {
            match self.kernel.apply_some(prepare, &self.disk, &mut verdicts, 3) {
                Ok(true) => return verdicts.iter().map(|said| said.verdict.result).collect(),
                // What was at hand for one step may be gone at the next.
                Ok(false) => self.disk.here.clear(),
                Err(miss) => self.fetch(&miss),
            }
        }
        panic!("a prepare is not applied");
    }

    fn apply(&mut self, prepare: &Prepare) -> Vec<Result> {
        let slow = self.memory == Memory::Slow;
        let mut results = if slow { self.apply_slowly(prepare) } else { Vec::new() };
        for entry in prepare.entries().filter(|_| !slow) {
            let entry = entry.expect("built here");
            let before = self.kernel.digest();
            let decision = self.run(|kernel, pages| kernel.decide(&entry, pages));
            assert_eq!(self.kernel.digest(), before, "deciding changes nothing");
            results.push(self.kernel.install(decision).verdict.result);
            self.go_on();
        }
        if !slow {
            self.kernel.finish(&prepare.header);
        }
        if self.memory != Memory::Whole {
            let checkpoint = self.kernel.checkpoint();
            for sealed in checkpoint.pages {
                self.disk.written.insert(sealed.at.address, (sealed.at, sealed.page));
            }
            if self.memory == Memory::OneByOne {
                // This one is restarted after each command.
                let opened = Kernel::open(4, &checkpoint.root, &All(&self.disk.written));
                let opened = opened.expect("what was written is a checkpoint");
                assert_eq!(opened.digest(), self.kernel.digest());
                self.kernel = opened;
            }
        }
        results
    }

    fn check_digest(&self) {
        assert_eq!(self.kernel.digest_walk_with(&All(&self.disk.written)), Ok(self.kernel.digest()));
    }
}

/// One log, and the replicas that apply it.
struct Cluster {
    replicas: Vec<Replica>,
    parent: PrepareHeader,
    session: SessionId,
    request: u64,
}

impl Cluster {
    /// A log in which the clinic exists.
    fn new(memories: &[Memory]) -> Self {
        let replicas = memories.iter().map(|memory| Replica::new(*memory)).collect();
        let parent = PrepareHeader::root(ClusterId(1));
        let mut cluster = Self { replicas, parent, session: SessionId::NONE, request: 0 };
        let registered = cluster.commit(CLINIC, 1, &[Command::Register.encode()]);
        let [Ok(Outcome::Registered { session })] = registered[..] else { panic!("{registered:?}") };
        cluster.session = session;
        cluster.commit(CLINIC, 2, &[super::create_tenant()]);
        cluster
    }

    /// The next prepare, of these commands.
    fn prepare(&mut self, tenant: TenantId, time: u64, commands: &[Vec<u8>]) -> Prepare {
        let entries: Vec<NewEntry<'_>> = commands
            .iter()
            .map(|command| {
                self.request += 1;
                let request = RequestNumber(self.request);
                NewEntry { session: self.session, request, tenant, command }
            })
            .collect();
        let new = NewPrepare {
            parent: &self.parent,
            view: View(0),
            commit: self.parent.op,
            timestamp: WallTime(time.max(self.parent.timestamp.0 + 1)),
            layout: &kimberlite_types::Layout::PRODUCTION,
            proposer: ReplicaId(0),
        };
        let prepare = Prepare::build(&new, &entries);
        self.parent = prepare.header;
        prepare
    }

    /// Commits commands in one prepare; all replicas say the same.
    fn commit(&mut self, tenant: TenantId, time: u64, commands: &[Vec<u8>]) -> Vec<Result> {
        let prepare = self.prepare(tenant, time, commands);
        let mut said = None;
        let mut digest = None;
        for replica in &mut self.replicas {
            let results = replica.apply(&prepare);
            replica.check_digest();
            assert_eq!(*said.get_or_insert_with(|| results.clone()), results, "replicas decide the same");
            let after = replica.kernel.digest();
            assert_eq!(*digest.get_or_insert(after), after, "the same log gives the same digest");
        }
        said.expect("there is a replica")
    }

    /// Commits facts for the clinic, at a time in microseconds.
    fn facts(&mut self, micros: u64, facts: &Facts) -> Result {
        let facts = postcard::to_allocvec(facts).expect("facts encode");
        let command = Command::Facts { facts: &facts, reply: b"done" }.encode();
        self.commit(CLINIC, micros * 1_000, &[command])[0]
    }

    /// Commits facts for the clinic in pieces, if they are more than a command of this size holds.
    fn staged(&mut self, micros: u64, facts: &Facts, size_max: usize) -> Result {
        let mut commands = commands(facts, size_max).expect("each fact is smaller than that");
        let last = commands.pop().expect("facts are at least one command");
        for stage in commands {
            let said = self.commit(CLINIC, 0, &[stage]);
            assert!(matches!(said[..], [Ok(Outcome::Staged { .. })]), "{said:?}");
        }
        self.commit(CLINIC, micros * 1_000, &[last])[0]
    }

    /// Commits facts and says the SQLSTATE of the refusal, if it is one.
    fn refused(&mut self, facts: &Facts) -> Option<String> {
        let micros = self.parent.timestamp.0 / 1_000 + 1;
        self.facts(micros, facts).err().map(|refusal| match refusal {
            Refusal::Malformed => "malformed".to_owned(),
            Refusal::Conflict => "conflict".to_owned(),
            other => other.sqlstate().to_owned(),
        })
    }
}
