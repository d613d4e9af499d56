//! The catalogue after the facts. What is put there is checked as a whole: everything that reads tables goes by it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::codec::Layout;
use kimberlite_row::fact::SchemaFact;
use kimberlite_row::schema::COLUMNS_MAX;
use kimberlite_row::{Catalogue, ColumnId, Object, ObjectId, SqlError, SqlState, Table};

use super::keys::OBJECT_ID_LIMIT;
use super::{Refused, too_much};
use crate::limits::OBJECTS_MAX;

/// Ids that one command may pass over: those of objects that a transaction made and removed again.
const IDS_SKIPPED_MAX: u32 = 1 << 12;

/// What the facts make of a catalogue.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) catalogue: Arc<Catalogue>,
    /// Objects that were put, dropped or counted on.
    pub(super) touched: BTreeSet<ObjectId>,
    /// Tables whose stored rows go.
    pub(super) truncated: BTreeSet<ObjectId>,
}

struct Definer<'a> {
    before: &'a Catalogue,
    after: Catalogue,
    /// Who took each id that was free before.
    owners: BTreeMap<ObjectId, ObjectId>,
    touched: BTreeSet<ObjectId>,
    truncated: BTreeSet<ObjectId>,
}

/// The catalogue after the facts, or why there is none.
pub(super) fn changed(before: &Arc<Catalogue>, facts: &[SchemaFact]) -> Result<Changed, Refused> {
    if facts.is_empty() {
        let (touched, truncated) = (BTreeSet::new(), BTreeSet::new());
        return Ok(Changed { catalogue: before.clone(), touched, truncated });
    }
    let mut definer = Definer {
        before,
        after: (**before).clone(),
        owners: BTreeMap::new(),
        touched: BTreeSet::new(),
        truncated: BTreeSet::new(),
    };
    for fact in facts {
        definer.apply(fact)?;
    }
    definer.check()?;
    let Definer { after, touched, truncated, .. } = definer;
    Ok(Changed { catalogue: Arc::new(after), touched, truncated })
}

impl Definer<'_> {
    fn apply(&mut self, fact: &SchemaFact) -> Result<(), Refused> {
        match fact {
            SchemaFact::Put(object) => self.put(object),
            SchemaFact::Drop(id) => {
                self.touched.insert(*id);
                self.after.remove(*id).map(drop).ok_or(Refused::Malformed("what is dropped is not there"))
            }
            SchemaFact::Sequence(id, last) => {
                let Some(Object::Sequence(sequence)) = self.after.object(*id) else {
                    return Err(Refused::Malformed("a number is taken from what is no sequence"));
                };
                if last.is_some_and(|last| last < sequence.low || last > sequence.high) {
                    return Err(Refused::Malformed("a number lies beyond the bounds of its sequence"));
                }
                let mut sequence = (**sequence).clone();
                sequence.last = *last;
                self.after.put(Object::Sequence(Arc::new(sequence)));
                self.touched.insert(*id);
                Ok(())
            }
            SchemaFact::Truncate(id) => {
                if self.after.table(*id).is_none() {
                    return Err(Refused::Malformed("what is truncated is no table"));
                }
                self.truncated.insert(*id);
                Ok(())
            }
        }
    }

    fn put(&mut self, object: &Object) -> Result<(), Refused> {
        let id = object.id();
        match self.after.object(id) {
            Some(old) if old.kind() != object.kind() => {
                return Err(Refused::Malformed("an object becomes one of another kind"));
            }
            Some(old) if object.version() <= old.version() => {
                return Err(Refused::Conflict("the schema changed"));
            }
            Some(_) => {}
            None => self.claim(id, id)?,
        }
        if let Object::Table(table) = object {
            let stored = self.before.table(id);
            for index in &table.indexes {
                if index.id == id {
                    return Err(Refused::Malformed("an index has the id of its table"));
                }
                let kept = stored.and_then(|stored| stored.indexes.iter().find(|old| old.id == index.id));
                match kept {
                    Some(old) if old.columns == index.columns && old.unique == index.unique => {}
                    Some(_) => return Err(Refused::Malformed("an index is changed in place")),
                    None => self.claim(index.id, id)?,
                }
            }
        }
        self.after.remove(id);
        let mut names = BTreeSet::from([object.name()]);
        let mut fresh = !self.after.taken(object.name());
        if let Object::Table(table) = object {
            let key = table.primary_key.iter().map(|key| &key.name);
            for name in table.indexes.iter().map(|index| &index.name).chain(key) {
                fresh &= names.insert(name) && !self.after.taken(name);
            }
        }
        if !fresh {
            let message = format!("a name of \"{}\" is taken", object.name());
            return Err(SqlError::new(SqlState::DuplicateTable, message).into());
        }
        self.after.put(object.clone());
        self.touched.insert(id);
        Ok(())
    }

    /// Takes an id that was never used for an owner; the same owner may name it again.
    fn claim(&mut self, id: ObjectId, owner: ObjectId) -> Result<(), Refused> {
        let first = self.before.next_id().0;
        let most = first.saturating_add(self.owners.len() as u32).saturating_add(IDS_SKIPPED_MAX);
        if id.0 < first {
            return Err(Refused::Conflict("an id was taken"));
        }
        if id.0 > most || id.0 >= OBJECT_ID_LIMIT {
            return Err(Refused::Malformed("an id is far from the next one"));
        }
        let holder = *self.owners.entry(id).or_insert(owner);
        // An object that was dropped does not come back under its id.
        let again = holder == owner && (id != owner || !self.touched.contains(&id));
        if again { Ok(()) } else { Err(Refused::Malformed("an id is used again")) }
    }

    /// What holds for a catalogue as a whole.
    fn check(&self) -> Result<(), Refused> {
        if self.after.objects().count() > OBJECTS_MAX {
            return Err(too_much(format!("more than {OBJECTS_MAX} objects (OBJECTS_MAX)")));
        }
        for id in &self.touched {
            if let Some(table) = self.after.table(*id) {
                check_table(table, self.before.table(*id).map(|table| &**table))?;
            }
        }
        for object in self.after.objects() {
            let Object::Table(child) = object else { continue };
            for key in &child.foreign_keys {
                let parent = self.after.table(key.parent);
                let Some(parent) = parent else {
                    // Either was planned while the other was not there yet.
                    let (state, what) = if self.touched.contains(&child.id) {
                        (SqlState::UndefinedTable, "the table that a foreign key points to does not exist")
                    } else {
                        (SqlState::DependentObjectsStillExist, "a foreign key depends on the table")
                    };
                    return Err(SqlError::new(state, what).into());
                };
                let sound = key.columns.len() == key.parent_columns.len()
                    && are_columns(child, &key.columns)
                    && are_columns(parent, &key.parent_columns);
                if !sound {
                    return Err(Refused::Conflict("the columns of a foreign key changed"));
                }
                if self.truncated.contains(&parent.id) && !self.truncated.contains(&child.id) {
                    let what = "cannot truncate a table referenced in a foreign key constraint";
                    return Err(SqlError::new(SqlState::FeatureNotSupported, what).into());
                }
            }
        }
        Ok(())
    }
}

/// Whether these are columns of a table, at least one, and none twice.
fn are_columns(table: &Table, columns: &[ColumnId]) -> bool {
    let distinct: BTreeSet<&ColumnId> = columns.iter().collect();
    !columns.is_empty()
        && distinct.len() == columns.len()
        && columns.iter().all(|column| table.place(*column).is_some())
}

fn check_table(table: &Table, stored: Option<&Table>) -> Result<(), Refused> {
    if table.columns.len() > COLUMNS_MAX {
        return Err(SqlError::new(
            SqlState::TooManyColumns,
            format!("tables can have at most {COLUMNS_MAX} columns"),
        )
        .into());
    }
    let ids: BTreeSet<ColumnId> = table.columns.iter().map(|column| column.id).collect();
    let names: BTreeSet<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    if ids.len() != table.columns.len() || names.len() != table.columns.len() {
        return Err(Refused::Malformed("two columns share an id or a name"));
    }
    if ids.iter().any(|id| id.0 >= table.next_column) {
        return Err(Refused::Malformed("a column has an id that is not given yet"));
    }
    Layout::of(table)?;
    let mut keys = table.primary_key.iter().map(|key| key.columns.clone()).collect::<Vec<_>>();
    keys.extend(table.indexes.iter().map(|index| index.columns.iter().map(|c| c.column).collect()));
    if !keys.iter().all(|columns| are_columns(table, columns)) {
        return Err(Refused::Malformed("a key or an index is not of columns of its table"));
    }
    let indexes: BTreeSet<ObjectId> = table.indexes.iter().map(|index| index.id).collect();
    if indexes.len() != table.indexes.len() {
        return Err(Refused::Malformed("two indexes share an id"));
    }
    let Some(stored) = stored else { return Ok(()) };
    let key = |table: &Table| table.primary_key.as_ref().map(|key| key.columns.clone());
    if key(stored) != key(table) {
        return Err(Refused::Malformed("the key of a table is changed in place"));
    }
    let keeps = |column: &kimberlite_row::Column| match stored.columns.iter().find(|old| old.id == column.id)
    {
        Some(old) => old.kind == column.kind && old.missing == column.missing,
        None => column.id.0 >= stored.next_column,
    };
    if table.next_column < stored.next_column || !table.columns.iter().all(keeps) {
        return Err(Refused::Malformed("a column is changed in place"));
    }
    Ok(())
}
