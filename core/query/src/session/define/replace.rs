//! Changes that give a table new rows: another key, a column of another type.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::schema::{ColumnId, PrimaryKey};
use kimberlite_row::{Column, Object, SqlError, SqlState, Table};
use sqlparser::ast;

use super::alter::mentions;
use super::{Definer, in_sql, quoted};
use crate::bind::{Binder, unsupported};

impl Definer<'_> {
    /// A new table takes the rows and the name: keys of rows are never changed in place.
    pub(super) fn add_primary_key(
        &mut self,
        old: &Table,
        constraint: &ast::TableConstraint,
    ) -> Result<(), SqlError> {
        let mut table = old.clone();
        self.constraint(&mut table, constraint)?;
        self.replace(old, table, None)
    }

    /// A column of another type is another column.
    pub(super) fn change_type(
        &mut self,
        old: &Table,
        at: usize,
        kind: &ast::DataType,
        using: Option<&ast::Expr>,
    ) -> Result<(), SqlError> {
        let mut table = old.clone();
        let kind = Binder::type_of(kind)?;
        let id = table.columns[at].id;
        let keyed = table.foreign_keys.iter().any(|k| k.columns.contains(&id))
            || self.catalogue.children(table.id).any(|(_, k)| k.parent_columns.contains(&id));
        if keyed && kind.base() != table.columns[at].kind.base() {
            return Err(unsupported("changing the type of a column of a foreign key"));
        }
        let name = quoted(&table.columns[at].name);
        let source =
            using.map_or_else(|| format!("{name}::{}", kind.name()), |e| format!("({e})::{}", kind.name()));
        table.columns[at].kind = kind;
        table.columns[at].missing = None;
        self.replace(old, table, Some(&(at, source)))
    }

    /// The table without its primary key, and without a column of it.
    pub(super) fn drop_key(&mut self, old: &Table, column: Option<usize>) -> Result<(), SqlError> {
        let key = old.primary_key.as_ref().map_or(&[][..], |key| &key.columns);
        if self.catalogue.children(old.id).any(|(_, k)| k.parent_columns == key) {
            return Err(SqlError::new(
                SqlState::DependentObjectsStillExist,
                "cannot drop the primary key because a foreign key depends on it",
            )
            .hint("Drop the foreign key first."));
        }
        let mut table = old.clone();
        table.primary_key = None;
        let Some(at) = column else { return self.replace(old, table, None) };
        let gone = table.columns.remove(at);
        table.indexes.retain(|i| i.columns.iter().all(|c| c.column != gone.id));
        table.foreign_keys.retain(|k| !k.columns.contains(&gone.id));
        table.checks.retain(|c| !mentions(&c.expression, &gone.name));
        self.replace(old, table, None)
    }

    pub(super) fn replace(
        &mut self,
        old: &Table,
        mut table: Table,
        changed: Option<&(usize, String)>,
    ) -> Result<(), SqlError> {
        let name = old.name.clone();
        let mut moved = old.clone();
        moved.name = self.free_name(&format!("{name}_old"));
        moved.indexes.clear();
        moved.primary_key = old
            .primary_key
            .clone()
            .map(|k| PrimaryKey { name: self.free_name(&format!("{}_old", k.name)), ..k });
        for column in &mut moved.columns {
            column.owns = None;
        }
        table.id = self.catalogue.take_id();
        for index in &mut table.indexes {
            index.id = self.catalogue.take_id();
        }
        for key in &mut table.foreign_keys {
            if key.parent == old.id {
                key.parent = table.id;
            }
        }
        let place = |id: ColumnId| table.columns.iter().any(|c| c.id == id);
        let kept = |column: &Column| column.generated.is_none() && place(column.id);
        let list: Vec<String> = old
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| kept(c))
            .map(|(at, c)| match changed {
                Some((place, source)) if *place == at => source.clone(),
                _ => quoted(&c.name),
            })
            .collect();
        let names: Vec<String> = old.columns.iter().filter(|c| kept(c)).map(|c| quoted(&c.name)).collect();
        self.follow.push(format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            in_sql(&name),
            names.join(", "),
            list.join(", "),
            in_sql(&moved.name)
        ));
        self.follow.push(format!("DROP TABLE {}", in_sql(&moved.name)));
        let children: Vec<Arc<Table>> = self
            .catalogue
            .children(old.id)
            .filter(|(child, _)| child.id != old.id)
            .map(|(child, _)| child.clone())
            .collect();
        let views =
            self.catalogue.objects().any(|o| matches!(o, Object::View(v) if v.reads.contains(&old.id)));
        if views {
            return Err(unsupported("changing the key or a type of a table that a view reads"));
        }
        moved.foreign_keys.clear();
        let (from, to) = (old.id, table.id);
        self.put_table(moved);
        self.put_table(table);
        for child in children {
            let mut child = (*child).clone();
            child.foreign_keys.iter_mut().filter(|k| k.parent == from).for_each(|k| k.parent = to);
            self.put_table(child);
        }
        Ok(())
    }
}
