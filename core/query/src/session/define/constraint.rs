//! Constraints of a table: keys, uniqueness, checks, references.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::schema::{Action, Check, ColumnId, ForeignKey, Index, IndexColumn, PrimaryKey};
use kimberlite_row::{SqlError, SqlState, Table, Type};
use sqlparser::ast;

use super::alter::mentions;
use super::{Definer, beside};
use crate::bind::{Binder, bare, folded, own_name, unsupported};
use crate::session::write;

impl Definer<'_> {
    pub(super) fn ids(table: &Table, names: &[String]) -> Result<Vec<ColumnId>, SqlError> {
        names
            .iter()
            .map(|name| {
                table.place_of(name).map(|at| table.columns[at].id).ok_or_else(|| {
                    SqlError::new(
                        SqlState::UndefinedColumn,
                        format!("column \"{name}\" named in key does not exist"),
                    )
                })
            })
            .collect()
    }

    pub(super) fn primary_key(
        &mut self,
        table: &mut Table,
        name: Option<String>,
        names: &[String],
    ) -> Result<(), SqlError> {
        if table.primary_key.is_some() {
            return Err(SqlError::new(
                SqlState::InvalidTableDefinition,
                format!("multiple primary keys for table \"{}\" are not allowed", table.name),
            ));
        }
        let columns = Self::ids(table, names)?;
        for id in &columns {
            if let Some(at) = table.place(*id) {
                table.columns[at].not_null = true;
            }
        }
        let name = match name {
            Some(name) => beside(&table.name, &name),
            None => self.free_name(&format!("{}_pkey", table.name)),
        };
        table.primary_key = Some(PrimaryKey { name, columns });
        Ok(())
    }

    pub(super) fn unique(
        &mut self,
        table: &mut Table,
        name: Option<String>,
        names: &[String],
    ) -> Result<(), SqlError> {
        let columns = Self::ids(table, names)?;
        let name = name.map_or_else(
            || {
                let mut name = self.free_name(&format!("{}_{}_key", table.name, names.join("_")));
                while table.indexes.iter().any(|i| i.name == name) {
                    name.push('1');
                }
                name
            },
            |name| beside(&table.name, &name),
        );
        let columns = columns
            .into_iter()
            .map(|column| IndexColumn { column, descending: false, nulls_first: false })
            .collect();
        table.indexes.push(Index {
            id: self.catalogue.take_id(),
            name,
            columns,
            unique: true,
            constraint: true,
        });
        Ok(())
    }

    /// A name that no constraint of the table has.
    fn new_constraint(table: &Table, name: &str) -> Result<(), SqlError> {
        let indexed = beside(&table.name, name);
        let taken = table.checks.iter().any(|known| known.name == name)
            || table.foreign_keys.iter().any(|known| known.name == name)
            || table.indexes.iter().any(|known| known.constraint && known.name == indexed)
            || table.primary_key.as_ref().is_some_and(|known| known.name == indexed);
        if taken {
            let message = format!("constraint \"{name}\" for relation \"{}\" already exists", table.name);
            return Err(SqlError::new(SqlState::DuplicateObject, message));
        }
        Ok(())
    }

    pub(super) fn check(table: &mut Table, name: &str, expr: &ast::Expr) {
        let mut unique = name.to_string();
        let mut count = 0;
        while table.checks.iter().any(|c| c.name == unique) {
            count += 1;
            unique = format!("{name}{count}");
        }
        table.checks.push(Check { name: unique, expression: expr.to_string() });
    }

    /// Refuses a CHECK or a generated column that could not be decided from the row alone.
    pub(super) fn check_rules(&self, table: &Table) -> Result<(), SqlError> {
        for column in &table.columns {
            let Some(text) = &column.generated else { continue };
            let other = table.columns.iter().find(|c| c.generated.is_some() && mentions(text, &c.name));
            if let Some(other) = other {
                let message =
                    format!("cannot use generated column \"{}\" in column generation expression", other.name);
                return Err(SqlError::new(SqlState::InvalidObjectDefinition, message)
                    .detail("A generated column cannot reference another generated column."));
            }
        }
        let mut binder = Binder::new(&self.catalogue, "", self.now);
        write::checks(&mut binder, table).map(|_| ())
    }

    pub(super) fn foreign_key(
        &mut self,
        table: &mut Table,
        name: Option<String>,
        key: &ast::ForeignKeyConstraint,
    ) -> Result<(), SqlError> {
        let deferred =
            |c: &ast::ConstraintCharacteristics| c.initially == Some(ast::DeferrableInitial::Deferred);
        if key.characteristics.as_ref().is_some_and(deferred) {
            return Err(unsupported("a constraint that is INITIALLY DEFERRED")
                .hint("Constraints are checked when a statement ends."));
        }
        let names: Vec<String> = key.columns.iter().map(folded).collect();
        let columns = Self::ids(table, &names)?;
        let parent_name = own_name(&key.foreign_table)?;
        let parent =
            if parent_name == table.name { Arc::new(table.clone()) } else { self.table(&parent_name)? };
        let parent_columns = if key.referred_columns.is_empty() {
            parent.primary_key.as_ref().map(|k| k.columns.clone()).ok_or_else(|| {
                SqlError::new(
                    SqlState::UndefinedObject,
                    format!("there is no primary key for referenced table \"{parent_name}\""),
                )
            })?
        } else {
            Self::ids(&parent, &key.referred_columns.iter().map(folded).collect::<Vec<_>>())?
        };
        let same = |of: &[ColumnId]| {
            of.len() == parent_columns.len() && of.iter().all(|c| parent_columns.contains(c))
        };
        let unique = parent.primary_key.as_ref().is_some_and(|k| same(&k.columns))
            || parent
                .indexes
                .iter()
                .any(|i| i.unique && same(&i.columns.iter().map(|c| c.column).collect::<Vec<_>>()));
        if !unique {
            return Err(SqlError::new(
                SqlState::InvalidForeignKey,
                format!(
                    "there is no unique constraint matching given keys for referenced table \"{parent_name}\""
                ),
            ));
        }
        if columns.len() != parent_columns.len() {
            return Err(SqlError::new(
                SqlState::InvalidForeignKey,
                "number of referencing and referenced columns for foreign key disagree",
            ));
        }
        for (a, b) in columns.iter().zip(&parent_columns) {
            let kind = |t: &Table, c: ColumnId| t.place(c).map(|at| t.columns[at].kind.base());
            let (a, b) = (kind(table, *a), kind(&parent, *b));
            let integers =
                a.as_ref().is_some_and(Type::is_integer) && b.as_ref().is_some_and(Type::is_integer);
            let texts = a.as_ref().is_some_and(Type::is_text) && b.as_ref().is_some_and(Type::is_text);
            if a != b && !integers && !texts {
                return Err(SqlError::new(
                    SqlState::DatatypeMismatch,
                    "foreign key constraint cannot be implemented: key columns are of incompatible types",
                ));
            }
        }
        let action = |action: &Option<ast::ReferentialAction>| match action {
            None | Some(ast::ReferentialAction::NoAction) => Action::NoAction,
            Some(ast::ReferentialAction::Restrict) => Action::Restrict,
            Some(ast::ReferentialAction::Cascade) => Action::Cascade,
            Some(ast::ReferentialAction::SetNull) => Action::SetNull,
            Some(ast::ReferentialAction::SetDefault) => Action::SetDefault,
        };
        let name = name
            .or_else(|| key.name.as_ref().map(folded))
            .unwrap_or_else(|| format!("{}_{}_fkey", bare(&table.name), names.join("_")));
        table.foreign_keys.push(ForeignKey {
            name,
            columns,
            parent: parent.id,
            parent_columns,
            on_delete: action(&key.on_delete),
            on_update: action(&key.on_update),
        });
        Ok(())
    }

    pub(super) fn constraint(
        &mut self,
        table: &mut Table,
        constraint: &ast::TableConstraint,
    ) -> Result<(), SqlError> {
        let column_names = |columns: &[ast::IndexColumn]| -> Result<Vec<String>, SqlError> {
            columns
                .iter()
                .map(|c| match &c.column.expr {
                    ast::Expr::Identifier(ident) => Ok(folded(ident)),
                    _ => Err(unsupported("an expression in a key")),
                })
                .collect()
        };
        match constraint {
            ast::TableConstraint::PrimaryKey(key) => {
                let names = column_names(&key.columns)?;
                self.primary_key(table, key.name.as_ref().map(folded), &names)
            }
            ast::TableConstraint::Unique(key) => {
                let names = column_names(&key.columns)?;
                self.unique(table, key.name.as_ref().map(folded), &names)
            }
            ast::TableConstraint::ForeignKey(key) => {
                self.foreign_key(table, key.name.as_ref().map(folded), key)
            }
            ast::TableConstraint::Check(check) => {
                let name = check.name.as_ref().map_or_else(|| format!("{}_check", bare(&table.name)), folded);
                if check.name.is_some() {
                    Self::new_constraint(table, &name)?;
                }
                Self::check(table, &name, &check.expr);
                Ok(())
            }
            _ => Err(unsupported("this table constraint")),
        }
    }
}
