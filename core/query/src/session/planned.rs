//! Plans that are kept: a statement that a session runs again is neither bound nor planned again, as long as every object
//! it was bound under is what it was.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::schema::SchemaVersion;
use kimberlite_row::{Catalogue, ObjectId, Type};
use sqlparser::ast;

use super::short::Short;
use super::write::WritePlan;
use crate::bind::Output;
use crate::exec::Program;

/// Plans that a session keeps; beyond, the oldest goes.
const PLANS_MAX: usize = 32;
/// Bytes of a text whose plan is kept. Longer ones are seldom sent twice, and their plans are large.
const PLAN_TEXT_MAX: usize = 4096;

/// How often a plan is used before it is made anew: tables grow. No other plan is better than a lookup by the whole key.
const PLAN_USES_MAX: u32 = 1000;

/// A statement, bound, planned and compiled.
#[derive(Debug)]
pub(super) struct Planned {
    /// The catalogue it was bound under.
    pub(super) catalogue: Arc<Catalogue>,
    /// Whether it depends on the catalogue as a whole.
    pub(super) whole: bool,
    /// Parameters that it was bound with.
    pub(super) count: usize,
    /// Their types.
    pub(super) kinds: Vec<Type>,
    pub(super) program: Arc<Program>,
    /// What is done in one step where nothing stands in the way.
    pub(super) short: Option<Short>,
    pub(super) columns: Arc<[Output]>,
    /// What becomes of its rows, if it writes.
    pub(super) writing: Option<Arc<WritePlan>>,
    /// The objects it was bound under.
    pub(super) used: Arc<[(ObjectId, SchemaVersion)]>,
    /// Sequences it takes numbers from.
    pub(super) sequences: Vec<ObjectId>,
}

impl Planned {
    /// Whether it would be bound to the same today. Ids are never used again, and an object that changes gets a higher
    /// version, so objects of these versions are the same objects, under the same names.
    fn holds(&self, catalogue: &Arc<Catalogue>) -> bool {
        Arc::ptr_eq(&self.catalogue, catalogue)
            || !self.whole
                && self.used.iter().all(|(id, version)| {
                    catalogue.object(*id).is_some_and(|object| object.version() == *version)
                })
    }
}

/// A statement with its plan.
#[derive(Debug)]
struct Entry {
    statement: Arc<ast::Statement>,
    /// Whether the text is this statement and nothing else.
    direct: bool,
    planned: Arc<Planned>,
    uses: u32,
}

/// The plans of a session, by the text of their statement.
#[derive(Debug, Default)]
pub(super) struct Plans {
    entries: BTreeMap<Arc<str>, Entry>,
    /// Oldest first.
    order: VecDeque<Arc<str>>,
}

impl Plans {
    /// The plan of this very statement, if it still holds.
    pub(super) fn get(
        &mut self,
        statement: &Arc<ast::Statement>,
        text: &str,
        count: usize,
        catalogue: &Arc<Catalogue>,
    ) -> Option<Arc<Planned>> {
        let Entry { statement: known, planned, uses, .. } = self.entries.get_mut(text)?;
        *uses = uses.saturating_add(1);
        let same = Arc::ptr_eq(known, statement)
            && (*uses <= PLAN_USES_MAX || matches!(planned.short, Some(Short::Lookup(_))))
            && planned.count == count
            && planned.holds(catalogue);
        same.then(|| planned.clone())
    }

    /// The statement that a text is.
    pub(super) fn statement(&self, text: &str) -> Option<Arc<ast::Statement>> {
        self.entries.get(text).filter(|entry| entry.direct).map(|entry| entry.statement.clone())
    }

    /// Keeps a plan.
    pub(super) fn keep(
        &mut self,
        statement: &Arc<ast::Statement>,
        text: &Arc<str>,
        direct: bool,
        planned: Arc<Planned>,
    ) {
        if text.len() > PLAN_TEXT_MAX {
            return;
        }
        let entry = Entry { statement: statement.clone(), direct, planned, uses: 0 };
        if self.entries.insert(text.clone(), entry).is_none() {
            self.order.push_back(text.clone());
        }
        if self.order.len() > PLANS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}
