//! CREATE VIEW.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::{Object, ObjectId, SqlError, SqlState, View};
use sqlparser::ast;

use super::{Definer, exists};
use crate::bind::{Output, folded, known_type, unsupported};

impl Definer<'_> {
    /// What a view showed it shows still, and more behind it: others may read its columns.
    fn replaceable(old: &[Output], new: &[Output], names: &[String]) -> Result<(), SqlError> {
        let refuse = |message: String| Err(SqlError::new(SqlState::InvalidTableDefinition, message));
        if new.len() < old.len() {
            return refuse("cannot drop columns from view".to_string());
        }
        for ((old, new), name) in old.iter().zip(new).zip(names) {
            if old.name != *name {
                return refuse(format!("cannot change name of view column \"{}\" to \"{name}\"", old.name));
            }
            let kind = known_type(&new.kind);
            if old.kind.base() != kind.base() {
                let (from, to) = (old.kind.name(), kind.name());
                return refuse(format!(
                    "cannot change data type of view column \"{name}\" from {from} to {to}"
                ));
            }
        }
        Ok(())
    }

    /// CREATE VIEW.
    pub(in crate::session) fn create_view(
        &mut self,
        create: &ast::CreateView,
        output: &[Output],
        old: &[Output],
        reads: Vec<ObjectId>,
    ) -> Result<(), SqlError> {
        if create.materialized {
            return Err(unsupported("a materialized view").hint("CREATE VIEW asks its query each time."));
        }
        if create.if_not_exists {
            return Err(SqlError::new(SqlState::SyntaxError, "syntax error at or near \"NOT\"")
                .hint("CREATE OR REPLACE VIEW makes a view that may be there."));
        }
        let name = self.new_name(&create.name)?;
        let mut columns: Vec<String> = output.iter().map(|o| o.name.clone()).collect();
        if create.columns.len() > columns.len() {
            return Err(SqlError::new(
                SqlState::InvalidTableDefinition,
                "CREATE VIEW specifies more column names than columns",
            ));
        }
        for (at, column) in create.columns.iter().enumerate() {
            columns[at] = folded(&column.name);
        }
        for (at, column) in columns.iter().enumerate() {
            if columns[..at].contains(column) {
                return Err(SqlError::new(
                    SqlState::DuplicateColumn,
                    format!("column \"{column}\" specified more than once"),
                ));
            }
        }
        Self::replaceable(old, output, &columns)?;
        let (id, version) = match self.catalogue.named(&name) {
            Some(Object::View(view)) if create.or_replace => (view.id, view.version + 1),
            None if !self.catalogue.taken(&name) => (self.catalogue.take_id(), 1),
            _ => return Err(exists("relation", &name)),
        };
        let view = View { id, name, version, columns, query: create.query.to_string(), reads };
        self.put(Object::View(Arc::new(view)));
        Ok(())
    }
}
