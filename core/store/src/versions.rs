//! All versions of many keys, in bounded steps.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use kimberlite_types::{LogPosition, TenantId};

use crate::cursor::{Cursor, Direction};
use crate::page::{Page, Stored};
use crate::pointer::{Miss, POSITION_MIN, Pages, Tree, after};
use crate::scan::{Progress, StepLimits};
use crate::store::Store;

/// A scan of versions between its steps, by key and within a key oldest first: a plain value that holds no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionScan {
    /// Whose rows.
    pub tenant: TenantId,
    /// The first key of which versions are still to be seen.
    pub low: Vec<u8>,
    /// Of that key, those that ended here or before were seen.
    pub from: LogPosition,
    /// The first key behind those to be seen; `None`: to the end of the trees.
    pub high: Option<Vec<u8>>,
}

/// One version of a key, beside those in front of it and behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyVersion<'r> {
    /// The whole key.
    pub key: &'r [u8],
    /// The command that wrote it.
    pub begin: LogPosition,
    /// The command that replaced or deleted it; `None` while it holds.
    pub end: Option<LogPosition>,
    /// Whether another version of the key ended where this one begins.
    pub replaces: bool,
    /// Whether another version of the key begins where this one ended.
    pub replaced: bool,
    /// What was written.
    pub value: &'r [u8],
}

impl VersionScan {
    /// All versions of the keys from `low` on and below `high`.
    pub fn new(tenant: TenantId, low: Vec<u8>, high: Option<Vec<u8>>) -> Self {
        Self { tenant, low, from: POSITION_MIN, high }
    }

    /// Goes on behind a version that was seen: all of the key were, if it is the one that holds.
    pub fn pass(&mut self, key: &[u8], end: Option<LogPosition>) {
        self.low.clear();
        self.low.extend_from_slice(key);
        if end.is_none() {
            self.low.push(0);
        }
        self.from = end.unwrap_or(POSITION_MIN);
    }
}

impl Store {
    /// Runs one step of a scan of versions and moves `scan` past what `visit` was shown: versions that ended stand in the
    /// history, the one that holds in the current tree, and both are merged. What was pruned is not there.
    ///
    /// A miss in front of the first version is given, and nothing has happened; behind it, it ends the step early. A version
    /// is shown when the one behind it is known.
    ///
    /// Cost: a path from the root of each tree, and a page for each leaf of both.
    pub fn versions(
        &self,
        scan: &mut VersionScan,
        limits: StepLimits,
        pages: &dyn Pages,
        mut visit: impl FnMut(KeyVersion<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, Miss> {
        let open = |tree| {
            Cursor::new(self, pages, scan.tenant, tree, Direction::Forward)
                .reading_ahead(scan.high.clone().unwrap_or_default())
        };
        let (mut now, mut then) = (open(Tree::Current), open(Tree::History));
        now.seek(&scan.low, POSITION_MIN)?;
        then.seek(&scan.low, after(scan.from))?;
        let mut shown = 0;
        let mut pending: Option<(&Page, usize)> = None;
        let (mut key, mut gathered) = (Vec::new(), Vec::new());
        loop {
            let next = first(then.entry(), now.entry()).filter(|(page, index)| {
                scan.high.as_ref().is_none_or(|high| page.key(*index).cmp_slice(high).is_lt())
            });
            if let Some((page, index)) = pending {
                let cell = page.leaf_cell(index);
                let end = (page.tree() == Tree::History).then_some(cell.end);
                let value = match cell.value {
                    Stored::Inline(bytes) => bytes,
                    Stored::Elsewhere(blob) => {
                        gathered.clear();
                        match self.gather(pages, scan.tenant, &blob, &mut gathered) {
                            Err(miss) => return stopped(miss, shown),
                            Ok(()) => &gathered,
                        }
                    }
                };
                key.clear();
                page.key(index).append_to(&mut key);
                let replaces = key == scan.low && cell.begin == scan.from;
                let replaced = next.is_some_and(|(other, at)| {
                    other.key(at).cmp_slice(&key).is_eq() && Some(other.leaf_cell(at).begin) == end
                });
                scan.pass(&key, end);
                shown += 1;
                let version = KeyVersion { key: &key, begin: cell.begin, end, replaces, replaced, value };
                if visit(version).is_break() {
                    return Ok(Progress::Done);
                }
                if shown >= limits.rows || now.touched + then.touched >= limits.pages {
                    return Ok(Progress::More);
                }
            }
            let Some((page, _)) = next else { return Ok(Progress::Done) };
            pending = next;
            let moved = if page.tree() == Tree::History { then.step() } else { now.step() };
            if let Err(miss) = moved {
                return stopped(miss, shown);
            }
        }
    }
}

/// What was shown stays shown.
fn stopped(miss: Miss, shown: u32) -> Result<Progress, Miss> {
    if shown == 0 { Err(miss) } else { Ok(Progress::More) }
}

/// The one whose key is less; of one key, what ended comes before what holds.
fn first<'a>(then: Option<(&'a Page, usize)>, now: Option<(&'a Page, usize)>) -> Option<(&'a Page, usize)> {
    match (then, now) {
        (Some((a, i)), Some((b, j))) if b.key(j).cmp(&a.key(i)).is_lt() => now,
        (Some(_), _) => then,
        (None, _) => now,
    }
}
