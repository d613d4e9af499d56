//! The tables of all tenants: rows, index entries, catalogues and times in the trees of one store.
//!
//! Facts are *decided* against the state so far ([`Tables::decide`]), which changes nothing and may miss pages, and the
//! change is then *installed* ([`Tables::install`]), which can neither fail nor miss. Nothing in the facts is believed:
//! guards are looked up, what they say was there before must be what is there, and the constraints are decided anew.
//!
//! | file | holds |
//! |---|---|
//! | `keys` | what stands under which key; ranges of values as ranges of keys |
//! | `read` | [`TableRows`]: rows, catalogues and times at a position |
//! | `guard` | whether what must still hold does |
//! | `schema` | the catalogue after the facts, and what may not be changed in place |
//! | `deciding` | a decision on facts, in bounded steps |
//! | `decide` | what it asks and gives for each row, from facts to the keys that are written |
//! | `inserts` | the same of facts that only insert, without making values of them |
//!
//! Misses name pages by address; whoever implements [`Pages`] was asked for each of them by its whole reference.

mod decide;
mod deciding;
mod guard;
mod inserts;
mod keys;
mod read;
mod schema;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kimberlite_row::fact::Miss;
use kimberlite_row::{Catalogue, SqlError, SqlState, check};
use kimberlite_store::{Checkpoint, CheckpointRoot, Draft, PageRef, Pages, Shape, Store, Tree};
use kimberlite_types::{LogPosition, TenantId, WallTime};

use crate::digest::{ItemSum, TableVersion};

pub(crate) use deciding::{Budget, Deciding};
pub use keys::OBJECT_ID_LIMIT;
pub use read::TableRows;

/// Why facts are not installed. The same on every replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Something changed since they were planned: plan again.
    Conflict(&'static str),
    /// What they would make is not allowed.
    Sql(SqlError),
    /// No planner makes such facts.
    Malformed(&'static str),
}

impl From<SqlError> for Refused {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(what) => write!(f, "{what} since the statement was planned; plan it again"),
            Self::Sql(error) => write!(f, "{error}"),
            Self::Malformed(what) => write!(f, "malformed facts: {what}"),
        }
    }
}

/// A named limit was reached.
fn too_much(what: impl Into<alloc::string::String>) -> Refused {
    Refused::Sql(SqlError::new(SqlState::ProgramLimitExceeded, what))
}

/// Why a decision has no change: pages are missing, or the answer is no.
enum Stop {
    Miss(Miss),
    Refused(Refused),
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<check::Stop> for Stop {
    fn from(stop: check::Stop) -> Self {
        match stop {
            check::Stop::Miss(miss) => Self::Miss(miss),
            check::Stop::Refused(error) => Self::Refused(error.into()),
        }
    }
}

/// Names the missing pages.
fn missed(miss: &kimberlite_store::Miss) -> Miss {
    Miss::of_pages(miss.pages().iter().map(|page| page.address.0).collect())
}

/// What ended a read at a position. No command moves a horizon, so none is too old.
fn stopped(stop: &kimberlite_store::Stop) -> Miss {
    match stop {
        kimberlite_store::Stop::Miss(miss) => missed(miss),
        kimberlite_store::Stop::TooOld { horizon } => unreachable!("the horizon moved to {horizon}"),
    }
}

/// No page was ever written, so that all are the store's own and none is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Unwritten;

impl Pages for Unwritten {
    fn page(&self, at: PageRef) -> Result<&kimberlite_store::Page, kimberlite_store::Miss> {
        Err(kimberlite_store::Miss::of(at))
    }
}

/// What follows from a tenant's trees and is kept at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Latest {
    /// The newest catalogue.
    catalogue: Arc<Catalogue>,
    /// It is the one from here on.
    since: LogPosition,
    /// The time of the newest command, in microseconds since 1970 UTC; none before the first.
    micros: Option<i64>,
}

impl Latest {
    /// The time of the next command. Times tell commands apart, so no two have the same one.
    fn next_micros(&self, time: WallTime) -> i64 {
        let micros = (time.0 / 1_000).cast_signed();
        self.micros.map_or(micros, |last| micros.max(last.saturating_add(1)))
    }
}

/// Keys and what is written there: `None` where something goes.
type Net = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What is still to be written of a command that takes several batches of the store. Nobody sees the part of it that is written:
/// its position lies behind all that is applied.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    tenant: TenantId,
    at: LogPosition,
    net: Net,
}

/// The tables of all tenants. See the [module's page](self).
#[derive(Clone, Debug)]
pub struct Tables {
    store: Store,
    latest: BTreeMap<TenantId, Latest>,
    rest: Option<Rest>,
}

/// What facts make of the tables. Made by [`Tables::decide`], used up by [`Tables::install`].
#[derive(Debug)]
#[must_use = "a change has no effect until it is installed"]
pub struct TableChange {
    tenant: TenantId,
    /// `None`: the facts hold nothing, and nothing is written.
    draft: Option<Draft>,
    rest: Option<Rest>,
    latest: Latest,
    rows: u32,
    sum: ItemSum,
}

impl TableChange {
    /// Rows that are inserted, updated or deleted, without those that a change of the schema removes.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// What it adds to the sum of the state's items.
    pub(crate) fn sum(&self) -> &ItemSum {
        &self.sum
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::new(Shape::default())
    }
}

impl Tables {
    /// No tables, in pages of this shape: the same on all replicas.
    pub fn new(shape: Shape) -> Self {
        Self { store: Store::new(shape), latest: BTreeMap::new(), rest: None }
    }

    /// Makes a change true, or begins to: it was decided on this very state. Until [`Tables::go_on`] says that nothing is
    /// left of it, nothing else may be decided.
    pub fn install(&mut self, change: TableChange) {
        assert!(self.rest.is_none(), "a change is installed as a whole before the next");
        if let Some(draft) = change.draft {
            self.store.install(draft);
            self.latest.insert(change.tenant, change.latest);
            self.rest = change.rest;
        }
    }

    /// Writes what is left of the change that was installed last. When pages are missing, the same call is made again
    /// with them at hand, and goes on where it stopped.
    pub fn go_on(&mut self, pages: &dyn Pages) -> Result<(), Miss> {
        while self.write_some(pages, &mut Budget::all())? {}
        Ok(())
    }

    /// The same up to a budget. Answers whether there is more to do.
    pub(crate) fn write_some(&mut self, pages: &dyn Pages, budget: &mut Budget) -> Result<bool, Miss> {
        while let Some(rest) = &self.rest {
            if budget.is_spent() {
                return Ok(true);
            }
            let (batch, next) = rest.batch(&self.store);
            let draft = self.store.plan(&batch, pages).map_err(|miss| missed(&miss))?;
            budget.spend(batch.len());
            self.store.install(draft);
            self.rest = self.rest.take().and_then(|rest| rest.behind(next));
        }
        Ok(false)
    }

    /// Whether a change is installed in part.
    pub(crate) fn is_under_way(&self) -> bool {
        self.rest.is_some()
    }

    /// Gives all new pages their places and hands them out; from now on they are asked for.
    /// The companion is what else belongs to the state.
    pub(crate) fn checkpoint_with(&mut self, companion: &[u8]) -> Checkpoint {
        self.store.checkpoint_with(companion)
    }

    /// Opens the tables of a checkpoint, and gives its companion.
    pub(crate) fn open(
        root: &CheckpointRoot,
        pages: &dyn Pages,
    ) -> Result<(Self, Vec<u8>), kimberlite_store::OpenError> {
        let (store, companion) = Store::open(root, pages)?;
        Ok((Self { store, latest: BTreeMap::new(), rest: None }, companion))
    }

    /// Places of pages that are in use.
    pub(crate) fn pages(&self) -> u64 {
        self.store.pages() - self.store.free_pages()
    }

    /// Pages that have no place yet.
    pub(crate) fn dirty_pages(&self) -> usize {
        self.store.dirty_pages()
    }

    /// The newest command that wrote for any tenant.
    pub(crate) fn newest(&self) -> LogPosition {
        self.store.tenants().map(|tenant| self.store.newest(tenant)).max().unwrap_or_default()
    }

    /// A tenant's rows, as of `last`: the position up to which the log was applied.
    pub fn rows<'a>(&'a self, tenant: TenantId, last: LogPosition, pages: &'a dyn Pages) -> TableRows<'a> {
        TableRows::new(self, tenant, last, pages)
    }

    /// What is kept at hand of a tenant, or else read anew.
    fn latest(&self, tenant: TenantId, pages: &dyn Pages) -> Result<Latest, Miss> {
        if let Some(latest) = self.latest.get(&tenant) {
            return Ok(latest.clone());
        }
        let since = self.store.newest(tenant);
        let rows = self.rows(tenant, since, pages);
        let catalogue = Arc::new(rows.load(since)?);
        let micros = rows.floor(i64::MAX)?.map(|(micros, _)| micros);
        Ok(Latest { catalogue, since, micros })
    }

    /// Shows every write there ever was, for a digest that is computed anew.
    pub(crate) fn for_each_version(
        &self,
        pages: &dyn Pages,
        mut each: impl FnMut(bool, &TableVersion<'_>),
    ) -> Result<(), kimberlite_store::Miss> {
        for tenant in self.store.tenants() {
            let mut ends: BTreeSet<(Vec<u8>, LogPosition)> = BTreeSet::new();
            // What ended was deleted, unless it was replaced.
            let walk = |tree, visit: &mut dyn FnMut(&[u8], kimberlite_store::Version<'_>)| {
                self.store.walk(tenant, tree, pages, visit)
            };
            walk(Tree::History, &mut |key, version| {
                let end = version.end.expect("versions of the history ended");
                ends.insert((key.to_vec(), end));
                each(true, &TableVersion { tenant, key, position: end, value: None });
            })?;
            for tree in [Tree::History, Tree::Current] {
                walk(tree, &mut |key, version| {
                    let position = version.begin;
                    if ends.contains(&(key.to_vec(), position)) {
                        each(false, &TableVersion { tenant, key, position, value: None });
                    }
                    each(true, &TableVersion { tenant, key, position, value: Some(&version.value) });
                })?;
            }
        }
        Ok(())
    }
}
