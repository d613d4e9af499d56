//! One key at a time.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;

use kimberlite_types::{LogPosition, TenantId};

use crate::cursor::{Cursor, Direction};
use crate::page::{Page, Stored};
use crate::pointer::{Miss, POSITION_MIN, Pages, Tree, after};
use crate::scan::{Progress, StepLimits};
use crate::store::{Roots, Store};

/// Which versions are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// The newest ones. The history is not touched.
    Present,
    /// Those that a position sees: `begin <= position < end`.
    At(LogPosition),
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Pages are missing: fetch them and read again.
    Miss(Miss),
    /// `snapshot too old`: versions that it would see may be gone.
    TooOld {
        /// The oldest position that can be read.
        horizon: LogPosition,
    },
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Miss(miss) => write!(f, "{} pages are missing", miss.pages().len()),
            Self::TooOld { horizon } => write!(f, "snapshot too old: the oldest is {horizon}"),
        }
    }
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// The command that wrote it.
    pub begin: LogPosition,
    /// The command that replaced or deleted it; `None` for the newest version of its key.
    pub end: Option<LogPosition>,
    /// What was written. Borrowed from its page, if it fits in one.
    pub value: Cow<'a, [u8]>,
}

impl Roots {
    fn check_horizon(&self, snapshot: Snapshot) -> Result<(), Stop> {
        match snapshot {
            Snapshot::At(at) if at < self.horizon => Err(Stop::TooOld { horizon: self.horizon }),
            _ => Ok(()),
        }
    }
}

impl Store {
    pub(crate) fn check_horizon(&self, tenant: TenantId, snapshot: Snapshot) -> Result<(), Stop> {
        self.roots(tenant).check_horizon(snapshot)
    }

    /// The version of `key` that a snapshot sees.
    ///
    /// Touches a page of each level of the current tree; for a position in front of the newest version, as many of
    /// the history.
    pub fn get<'a>(
        &'a self,
        tenant: TenantId,
        key: &[u8],
        snapshot: Snapshot,
        pages: &'a dyn Pages,
    ) -> Result<Option<Version<'a>>, Stop> {
        let roots = self.roots(tenant);
        roots.check_horizon(snapshot)?;
        let found = self.find(tenant, roots, key, pages)?;
        let at = match snapshot {
            Snapshot::At(at) if at < roots.newest => at,
            _ => {
                return found.map(|(page, index)| self.version(tenant, page, index, pages)).transpose();
            }
        };
        if let Some((page, index)) = found
            && page.leaf_cell(index).begin <= at
        {
            return self.version(tenant, page, index, pages).map(Some);
        }
        // Versions of one key follow each other in time, so the first one that ended later is the only candidate.
        let mut cursor = Cursor::new(self, pages, tenant, Tree::History, Direction::Forward).skipping(at);
        cursor.seek(key, after(at))?;
        match cursor.entry() {
            Some((page, index))
                if page.key(index).cmp_slice(key).is_eq() && page.leaf_cell(index).begin <= at =>
            {
                self.version(tenant, page, index, pages).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The entry of a key in the current tree.
    fn find<'a>(
        &'a self,
        tenant: TenantId,
        roots: &Roots,
        key: &[u8],
        pages: &'a dyn Pages,
    ) -> Result<Option<(&'a Page, usize)>, Miss> {
        let Some(root) = roots.current else { return Ok(None) };
        let mut page = self.page(pages, tenant, Tree::Current, root.level, &root.pointer)?;
        while !page.is_leaf() {
            let child = page.child(page.child_index(key, POSITION_MIN));
            page = self.page(pages, tenant, Tree::Current, page.level() - 1, &child)?;
        }
        Ok(page.search(key, POSITION_MIN).ok().map(|index| (page, index)))
    }

    fn version<'a>(
        &'a self,
        tenant: TenantId,
        page: &'a Page,
        index: usize,
        pages: &'a dyn Pages,
    ) -> Result<Version<'a>, Stop> {
        let cell = page.leaf_cell(index);
        let value = match cell.value {
            Stored::Inline(bytes) => Cow::Borrowed(bytes),
            Stored::Elsewhere(blob) => {
                let mut bytes = Vec::with_capacity(blob.length as usize);
                self.gather(pages, tenant, &blob, &mut bytes)?;
                Cow::Owned(bytes)
            }
        };
        Ok(Version { begin: cell.begin, end: (page.tree() == Tree::History).then_some(cell.end), value })
    }

    /// The versions of one key, oldest first, that ended behind `from`, the newest one last: its whole history from
    /// [`Store::horizon`] on.
    ///
    /// `visit` is not called when this gives an error. With [`Progress::More`] go on from the end of the last version
    /// seen.
    pub fn history_of(
        &self,
        tenant: TenantId,
        key: &[u8],
        from: LogPosition,
        limits: StepLimits,
        pages: &dyn Pages,
        mut visit: impl FnMut(Version<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, Stop> {
        self.check_horizon(tenant, Snapshot::At(from))?;
        let mut cursor = Cursor::new(self, pages, tenant, Tree::History, Direction::Forward).skipping(from);
        let mut rows = 0;
        let mut next = cursor.seek(key, after(from));
        loop {
            let version = match next {
                Err(miss) => Err(Stop::Miss(miss)),
                Ok(()) => match cursor.entry() {
                    Some((page, index)) if page.key(index).cmp_slice(key).is_eq() => {
                        self.version(tenant, page, index, pages).map(Some)
                    }
                    _ => self.find(tenant, self.roots(tenant), key, pages).map_err(Stop::Miss).and_then(
                        |found| {
                            found.map(|(page, index)| self.version(tenant, page, index, pages)).transpose()
                        },
                    ),
                },
            };
            let version = match version {
                // What was seen so far stays seen.
                Err(_) if rows > 0 => return Ok(Progress::More),
                Err(stop) => return Err(stop),
                Ok(None) => return Ok(Progress::Done),
                Ok(Some(version)) => version,
            };
            let last = version.end.is_none();
            rows += 1;
            if visit(version).is_break() || last {
                return Ok(Progress::Done);
            }
            if rows >= limits.rows || cursor.touched >= limits.pages {
                return Ok(Progress::More);
            }
            next = cursor.step();
        }
    }
}
