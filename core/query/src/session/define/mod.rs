//! CREATE, ALTER, DROP: changes of the catalogue, and of rows where they must follow.

mod alter;
mod constraint;
mod drop;
mod index;
mod replace;
mod sequence;
mod table;
mod view;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::fact::{Guard, SchemaFact};
use kimberlite_row::{Catalogue, Object, ObjectId, SqlError, SqlState, Table};

use crate::bind::near;
use crate::eval::Shared;
use crate::overlay::Overlay;

/// A change of the schema in the making.
pub(super) struct Definer<'a> {
    /// The schema, as changed so far.
    pub catalogue: Catalogue,
    /// The transaction.
    pub overlay: &'a mut Overlay,
    /// The time of the transaction.
    pub now: i64,
    /// Values of the statement.
    pub shared: &'a mut Shared,
    /// Tables whose rows must be looked at again: every constraint is checked on all of them.
    pub recheck: Vec<ObjectId>,
    /// Statements that bring the rows to their new form, to be run afterwards.
    pub follow: Vec<String>,
    /// What was left undone because of IF [NOT] EXISTS.
    pub notices: Vec<String>,
}

fn exists(kind: &str, name: &str) -> SqlError {
    SqlError::new(SqlState::DuplicateTable, format!("{kind} \"{name}\" already exists"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Definer<'_> {
    /// Puts an object in place and notes the fact.
    fn put(&mut self, object: Object) {
        if let Some(old) = self.catalogue.object(object.id()) {
            self.overlay.guard_schema(old.id(), old.version());
            if old.name() != object.name() {
                self.overlay.freed.insert(old.name().to_string());
            }
        } else if !self.overlay.freed.contains(object.name()) {
            self.overlay.guards.push(Guard::NameFree(object.name().to_string()));
        }
        if let (Object::Table(new), Some(old)) = (&object, self.catalogue.table(object.id())) {
            let old = old.clone();
            self.overlay.reshape(&old, new);
        }
        self.catalogue.put(object.clone());
        self.overlay.schema.push(SchemaFact::Put(object));
    }

    fn put_table(&mut self, mut table: Table) {
        table.version += 1;
        self.put(Object::Table(Arc::new(table)));
    }

    fn drop_object(&mut self, id: ObjectId) {
        if let Some(object) = self.catalogue.remove(id) {
            self.overlay.guard_schema(id, object.version());
            self.overlay.freed.insert(object.name().to_string());
            self.overlay.forget(id);
            self.overlay.schema.push(SchemaFact::Drop(id));
        }
    }

    fn missing(&self, kind: &str, name: &str) -> SqlError {
        let state = if kind == "index" { SqlState::UndefinedObject } else { SqlState::UndefinedTable };
        let error = SqlError::new(state, format!("{kind} \"{name}\" does not exist"));
        match near(name, self.catalogue.objects().map(Object::name).collect::<Vec<_>>()) {
            Some(near) => error.hint(format!("Perhaps you meant \"{near}\".")),
            None => error,
        }
    }

    fn table(&self, name: &str) -> Result<Arc<Table>, SqlError> {
        match self.catalogue.named(name) {
            Some(Object::Table(table)) => Ok(table.clone()),
            Some(_) => Err(SqlError::new(SqlState::WrongObjectType, format!("\"{name}\" is not a table"))),
            None => Err(self.missing("relation", name)),
        }
    }

    fn free_name(&self, base: &str) -> String {
        let mut name = base.to_string();
        let mut count = 0;
        while self.catalogue.taken(&name) {
            count += 1;
            name = format!("{base}{count}");
        }
        name
    }
}
