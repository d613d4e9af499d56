//! CREATE VIEW.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::{Object, ObjectId, SqlError, SqlState, View};
use sqlparser::ast;

use super::{Definer, exists};
use crate::bind::{Output, folded, unsupported};

impl Definer<'_> {
    /// CREATE VIEW.
    pub(in crate::session) fn create_view(
        &mut self,
        create: &ast::CreateView,
        output: &[Output],
        reads: Vec<ObjectId>,
    ) -> Result<(), SqlError> {
        if create.materialized {
            return Err(unsupported("a materialized view").hint("CREATE VIEW asks its query each time."));
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
        let (id, version) = match self.catalogue.named(&name) {
            Some(Object::View(view)) if create.or_replace => (view.id, view.version + 1),
            Some(_) if create.if_not_exists => return Ok(()),
            None if !self.catalogue.taken(&name) => (self.catalogue.take_id(), 1),
            _ => return Err(exists("relation", &name)),
        };
        let view = View { id, name, version, columns, query: create.query.to_string(), reads };
        self.put(Object::View(Arc::new(view)));
        Ok(())
    }
}
