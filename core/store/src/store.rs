//! The store: the roots of all tenants, and the pages that have no place yet.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use kimberlite_types::{LogPosition, TenantId};

use crate::free_set::FreeSet;
use crate::page::Page;
use crate::plan::Draft;
use crate::pointer::{Miss, POSITION_MIN, PageRef, Pages, Pointer, Tree};
use crate::shape::{Shape, TENANTS_MAX};

/// The root of one tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) pointer: Pointer,
    pub(crate) level: u8,
}

/// What the directory holds of one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roots {
    /// `None`: no entries.
    pub(crate) current: Option<Root>,
    pub(crate) history: Option<Root>,
    /// Snapshots below it are too old: what ended before may be gone.
    pub(crate) horizon: LogPosition,
    /// The newest position that was installed.
    pub(crate) newest: LogPosition,
}

impl Roots {
    pub(crate) fn of(&self, tree: Tree) -> Option<Root> {
        match tree {
            Tree::Current => self.current,
            Tree::History => self.history,
        }
    }

    pub(crate) fn of_mut(&mut self, tree: Tree) -> &mut Option<Root> {
        match tree {
            Tree::Current => &mut self.current,
            Tree::History => &mut self.history,
        }
    }
}

/// Trees of versions for any number of tenants. See the [crate's page](crate).
#[derive(Clone)]
pub struct Store {
    pub(crate) shape: Shape,
    pub(crate) tenants: BTreeMap<TenantId, Roots>,
    /// Pages without a place, by temporary id.
    pub(crate) dirty: Vec<Option<Page>>,
    /// Temporary ids that are not in use, the next one last.
    pub(crate) idle: Vec<u32>,
    /// Places that pages left since the last checkpoint, which still needs them.
    pub(crate) left: Vec<crate::Address>,
    pub(crate) free: FreeSet,
    /// Places of the last checkpoint's directory and companion.
    pub(crate) directory: Vec<crate::Address>,
    /// Checkpoints so far.
    pub(crate) sequence: u64,
    /// Drafts that were installed: a draft is for the store it was planned on.
    pub(crate) installed: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tenants, dirty) = (self.tenants.len(), self.dirty_pages());
        write!(f, "Store({tenants} tenants, {dirty} dirty pages, checkpoint {})", self.sequence)
    }
}

impl Store {
    /// A store of nothing.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            tenants: BTreeMap::new(),
            dirty: Vec::new(),
            idle: Vec::new(),
            left: Vec::new(),
            free: FreeSet::default(),
            directory: Vec::new(),
            sequence: 0,
            installed: 0,
        }
    }

    /// The size of its pages.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Pages that the next checkpoint writes, the directory aside. A function of the commands alone, so it may
    /// trigger the checkpoint; they are kept in memory until then.
    pub fn dirty_pages(&self) -> usize {
        self.dirty.len() - self.idle.len()
    }

    /// Pages of the data file, in use or free.
    pub fn pages(&self) -> u64 {
        self.free.pages()
    }

    /// Of these, those that the next checkpoint may write to.
    pub fn free_pages(&self) -> u64 {
        self.free.free()
    }

    /// The tenants that ever wrote, in order.
    pub fn tenants(&self) -> impl Iterator<Item = TenantId> + '_ {
        self.tenants.keys().copied()
    }

    /// The newest position that was installed for a tenant; zero if it never wrote.
    pub fn newest(&self, tenant: TenantId) -> LogPosition {
        self.roots(tenant).newest
    }

    /// Entries of a tenant: of the present, or versions that ended.
    pub fn entries(&self, tenant: TenantId, tree: Tree) -> u64 {
        self.roots(tenant).of(tree).map_or(0, |root| root.pointer.entries)
    }

    /// The retention horizon of a tenant: snapshots below it are refused.
    pub fn horizon(&self, tenant: TenantId) -> LogPosition {
        self.roots(tenant).horizon
    }

    /// Moves the retention horizon of a tenant forward, when a command says so. From now on snapshots below it are
    /// refused; [`plan_prune`](Store::plan_prune) frees what no other snapshot sees. A horizon never goes back, and
    /// not past the newest position.
    pub fn retain_from(&mut self, tenant: TenantId, horizon: LogPosition) {
        if let Some(roots) = self.tenants.get_mut(&tenant) {
            roots.horizon = roots.horizon.max(horizon.min(roots.newest));
        }
    }

    pub(crate) fn roots(&self, tenant: TenantId) -> &Roots {
        static NONE: Roots =
            Roots { current: None, history: None, horizon: POSITION_MIN, newest: POSITION_MIN };
        self.tenants.get(&tenant).unwrap_or(&NONE)
    }

    /// A page of a tree, wherever it is.
    #[inline]
    pub(crate) fn page<'a>(
        &'a self,
        pages: &'a dyn Pages,
        tenant: TenantId,
        tree: Tree,
        level: u8,
        pointer: &Pointer,
    ) -> Result<&'a Page, Miss> {
        if let Some(id) = pointer.address.temporary() {
            return Ok(self.dirty_page(id));
        }
        let at = PageRef::of(pointer, tenant, tree, level);
        let page = pages.page(at)?;
        assert!(page.kind() == at.kind && page.level() == level, "`Pages` answered with another page");
        Ok(page)
    }

    pub(crate) fn dirty_page(&self, id: u32) -> &Page {
        self.dirty[id as usize].as_ref().expect("a pointer leads to a page until the page is replaced")
    }

    /// The temporary id that the `index`-th page of a draft will have.
    pub(crate) fn future_id(&self, index: usize) -> u32 {
        match self.idle.len().checked_sub(index + 1) {
            Some(at) => self.idle[at],
            None => (self.dirty.len() + index - self.idle.len()) as u32,
        }
    }

    /// Makes a draft true. It must have been planned on this very state: drafts are installed in the order in which they
    /// were planned, each before the next one is planned.
    pub fn install(&mut self, draft: Draft) {
        assert_eq!(draft.installed, self.installed, "a draft is for the state that it was planned on");
        let roots = self.tenants.entry(draft.tenant).or_default();
        assert!(roots.newest <= draft.position, "commands are installed in the order of the log");
        *roots.of_mut(Tree::Current) = draft.current;
        *roots.of_mut(Tree::History) = draft.history;
        roots.newest = draft.position;
        assert!(self.tenants.len() <= TENANTS_MAX, "the kernel refuses a tenant too many");
        for page in draft.built {
            match self.idle.pop() {
                Some(id) => self.dirty[id as usize] = page,
                None => self.dirty.push(page),
            }
        }
        for id in draft.dropped {
            self.dirty[id as usize] = None;
            self.idle.push(id);
        }
        self.left.extend(draft.left);
        self.installed += 1;
    }

    /// Whether nothing was ever written at or behind this position, so that all newest versions are in sight.
    pub(crate) fn is_present(&self, tenant: TenantId, at: LogPosition) -> bool {
        self.roots(tenant).newest <= at
    }

    /// The least position.
    pub const ORIGIN: LogPosition = POSITION_MIN;
}
