//! Frees versions that no snapshot sees any more.

use alloc::vec::Vec;

use kimberlite_types::{LogPosition, TenantId};

use crate::cursor::{Cursor, Direction};
use crate::plan::{Change, Draft, Edit, Planner};
use crate::pointer::{Miss, POSITION_MIN, Pages, Tree};
use crate::store::Store;

/// Entries of the history that one step of pruning looks at. 4,096 entries of 128 bytes are 64 pages to write anew.
pub const PRUNE_ENTRIES_MAX: usize = 4_096;

/// Where the next step of pruning begins. A plain value; part of the command that prunes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneFrom {
    key: Vec<u8>,
    end: LogPosition,
}

impl Store {
    /// Plans to remove the versions that ended at or before the horizon, among the next [`PRUNE_ENTRIES_MAX`] entries of
    /// a tenant's history from `from` on; the first step begins at the default. Gives where the next step begins, or
    /// `None` behind the last entry.
    ///
    /// What a step removes depends on the state and on `from` alone, so replicas that run the same steps stay the same.
    pub fn plan_prune(
        &self,
        tenant: TenantId,
        from: &PruneFrom,
        pages: &dyn Pages,
    ) -> Result<(Draft, Option<PruneFrom>), Miss> {
        let roots = self.roots(tenant);
        let mut cursor = Cursor::new(self, pages, tenant, Tree::History, Direction::Forward);
        cursor.seek(&from.key, from.end)?;
        let mut gone: Vec<(Vec<u8>, LogPosition)> = Vec::new();
        let mut next = None;
        for looked_at in 0.. {
            let Some((page, index)) = cursor.entry() else { break };
            let (key, end) = (page.key(index), page.rank(index));
            if looked_at == PRUNE_ENTRIES_MAX {
                next = Some(PruneFrom { key: key.first(key.len()), end });
                break;
            }
            if end <= roots.horizon {
                gone.push((key.first(key.len()), end));
            }
            cursor.step()?;
        }
        let edits: Vec<Edit<'_>> =
            gone.iter().map(|(key, end)| Edit { key, rank: *end, change: Change::Remove }).collect();
        let mut planner = Planner::new(self, pages, tenant, roots.newest.max(POSITION_MIN));
        let history = planner.tree(Tree::History, &edits);
        let draft = planner.finish(history.ok().map(|history| (roots.current, history)))?;
        Ok((draft, next))
    }
}
