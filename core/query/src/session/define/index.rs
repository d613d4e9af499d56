//! CREATE INDEX and DROP INDEX.

use alloc::format;
use alloc::vec::Vec;

use kimberlite_row::schema::{ColumnId, Index, IndexColumn};
use kimberlite_row::{SqlError, SqlState, Table};
use sqlparser::ast;

use super::{Definer, beside, exists};
use crate::bind::{Binder, bare, folded, last_part, own_name, unsupported};
use crate::expr::Expr;
use crate::session::write::own_columns;

impl Definer<'_> {
    /// CREATE INDEX.
    pub(in crate::session) fn create_index(&mut self, create: &ast::CreateIndex) -> Result<(), SqlError> {
        let table_name = own_name(&create.table_name)?;
        let mut table = (*self.table(&table_name)?).clone();
        let mut names = Vec::new();
        let mut columns = Vec::new();
        for column in &create.columns {
            let ast::Expr::Identifier(ident) = &column.column.expr else {
                if create.unique {
                    return Err(unsupported("a unique index on an expression")
                        .hint("A generated column that is UNIQUE says the same."));
                }
                // The columns it reads are what is looked up by.
                names.push(match &column.column.expr {
                    ast::Expr::Function(function) => last_part(&function.name),
                    _ => "expr".into(),
                });
                for column in self.columns_of(&table, &column.column.expr, false)? {
                    if !columns.iter().any(|known: &IndexColumn| known.column == column) {
                        columns.push(IndexColumn { column, descending: false, nulls_first: false });
                    }
                }
                continue;
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
        if let Some(predicate) = &create.predicate {
            if create.unique {
                return Err(unsupported("a unique partial index"));
            }
            // It holds the other rows, too.
            self.columns_of(&table, predicate, true)?;
        }
        if columns.is_empty() {
            return Err(unsupported("an index that reads no column"));
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

    /// The columns that the expression or condition of an index reads.
    fn columns_of(
        &self,
        table: &Table,
        expr: &ast::Expr,
        condition: bool,
    ) -> Result<Vec<ColumnId>, SqlError> {
        let mut binder = Binder::new(&self.catalogue, "", self.now);
        let (visible, cols) = own_columns(&mut binder, table, &bare(&table.name));
        let (bound, _) = binder.within(Binder::scope_of(visible), |binder| {
            if condition {
                binder.condition(expr, "WHERE")
            } else {
                binder.expr(expr).map(|typed| typed.expr)
            }
        })?;
        if bound.has_subquery() {
            return Err(unsupported("a subquery in an index"));
        }
        if bound.any(&mut |part| part.is_volatile_itself() || *part == Expr::Now) {
            return Err(SqlError::new(
                SqlState::InvalidObjectDefinition,
                "functions in index expression must be marked IMMUTABLE",
            ));
        }
        let mut read = Vec::new();
        bound.columns(&mut |col| {
            let column = cols.iter().position(|own| *own == col).map(|at| table.columns[at].id);
            read.extend(column.filter(|column| !read.contains(column)));
        });
        Ok(read)
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
