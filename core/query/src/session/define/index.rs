//! CREATE INDEX and DROP INDEX.

use alloc::format;
use alloc::vec::Vec;

use kimberlite_row::schema::{Index, IndexColumn};
use kimberlite_row::{SqlError, SqlState};
use sqlparser::ast;

use super::{Definer, beside, exists};
use crate::bind::{folded, last_part, own_name, unsupported};

impl Definer<'_> {
    /// CREATE INDEX.
    pub(in crate::session) fn create_index(&mut self, create: &ast::CreateIndex) -> Result<(), SqlError> {
        let table_name = own_name(&create.table_name)?;
        let mut table = (*self.table(&table_name)?).clone();
        let mut names = Vec::new();
        let mut columns = Vec::new();
        for column in &create.columns {
            let ast::Expr::Identifier(ident) = &column.column.expr else {
                return Err(unsupported("an index on an expression"));
            };
            let name = folded(ident);
            let id = Self::ids(&table, core::slice::from_ref(&name))?[0];
            names.push(name);
            let descending = matches!(column.column.options.sort, Some(ast::OrderBySort::Desc));
            columns.push(IndexColumn {
                column: id,
                descending,
                nulls_first: column.column.options.nulls_first.unwrap_or(descending),
            });
        }
        if create.predicate.is_some() {
            return Err(unsupported("a partial index"));
        }
        let name = match &create.name {
            Some(name) => beside(&table_name, &last_part(name)),
            None => self.free_name(&format!("{table_name}_{}_idx", names.join("_"))),
        };
        if self.catalogue.taken(&name) {
            if create.if_not_exists {
                self.notices.push(format!("relation \"{name}\" already exists, skipping"));
                return Ok(());
            }
            return Err(exists("relation", &name));
        }
        let id = self.catalogue.take_id();
        table.indexes.push(Index { id, name, columns, unique: create.unique, constraint: false });
        if create.unique {
            self.recheck.push(table.id);
        }
        self.put_table(table);
        Ok(())
    }

    pub(super) fn drop_index(&mut self, name: &str, if_exists: bool) -> Result<(), SqlError> {
        let found = self.catalogue.index_table(name).cloned();
        match found {
            Some(table) => {
                let Some(index) = table.indexes.iter().find(|i| i.name == name) else {
                    return Err(SqlError::new(
                        SqlState::DependentObjectsStillExist,
                        format!(
                            "cannot drop index {name} because constraint {name} on table {} requires it",
                            table.name
                        ),
                    ));
                };
                if index.constraint {
                    return Err(SqlError::new(
                        SqlState::DependentObjectsStillExist,
                        format!(
                            "cannot drop index {name} because constraint {name} on table {} requires it",
                            table.name
                        ),
                    ));
                }
                let mut changed = (*table).clone();
                changed.indexes.retain(|i| i.name != name);
                self.put_table(changed);
                Ok(())
            }
            None if if_exists => {
                self.notices.push(format!("index \"{name}\" does not exist, skipping"));
                Ok(())
            }
            None => Err(self.missing("index", name)),
        }
    }
}
