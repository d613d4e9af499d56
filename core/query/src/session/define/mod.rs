//! CREATE, ALTER, DROP: changes of the catalogue, and of rows where they must follow.

mod alter;
mod constraint;
mod drop;
mod index;
mod namespace;
mod replace;
mod routine;
mod sequence;
mod table;
mod view;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::fact::{Guard, SchemaFact};
use kimberlite_row::{Catalogue, Object, ObjectId, SqlError, SqlState, Table};
use sqlparser::ast;

use crate::bind::{PUBLIC, has_schema, kept, near, no_schema, own_name, prefix, split};
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

/// A name that the catalogue keeps, as SQL.
pub(super) fn in_sql(name: &str) -> String {
    let (schema, own) = split(name);
    format!("{}.{}", quoted(&schema), quoted(&own))
}

/// A name in the schema of another object.
fn beside(other: &str, name: &str) -> String {
    kept(&split(other).0, name)
}

/// A default that takes numbers from a sequence.
fn next_of(sequence: &str) -> String {
    format!("nextval('{}')", sequence.replace('\'', "''"))
}

impl Definer<'_> {
    /// The name of an object that is made: its schema must be there, and must still be when it is.
    fn new_name(&mut self, name: &ast::ObjectName) -> Result<String, SqlError> {
        let name = own_name(name)?;
        let (schema, _) = split(&name);
        if schema != PUBLIC {
            let found = self.catalogue.named(&prefix(&schema)).map(|found| (found.id(), found.version()));
            let (id, version) = found.ok_or_else(|| no_schema(&schema))?;
            self.overlay.guard_schema(id, version);
        }
        Ok(name)
    }

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
        let (schema, _) = split(name);
        if !has_schema(&self.catalogue, &schema) {
            return no_schema(&schema);
        }
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
        let (schema, own) = split(base);
        let mut name = kept(&schema, &own);
        let mut count = 0;
        while self.catalogue.taken(&name) {
            count += 1;
            name = kept(&schema, &format!("{own}{count}"));
        }
        name
    }
}
