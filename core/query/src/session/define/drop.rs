//! DROP, with what depends on the object.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::{Column, Object, ObjectId, SqlError, SqlState, Table};
use sqlparser::ast;

use super::Definer;
use crate::bind::{Binder, last_part, own_name, unsupported};
use crate::expr::Expr;

impl Definer<'_> {
    /// DROP of anything.
    pub(in crate::session) fn drop(
        &mut self,
        kind: ast::ObjectType,
        names: &[ast::ObjectName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<(), SqlError> {
        for name in names {
            if kind == ast::ObjectType::Schema {
                self.drop_schema(&last_part(name), if_exists, cascade)?;
                continue;
            }
            let name = own_name(name)?;
            if kind == ast::ObjectType::Index {
                self.drop_index(&name, if_exists)?;
                continue;
            }
            let word = match kind {
                ast::ObjectType::Table => "table",
                ast::ObjectType::View => "view",
                ast::ObjectType::Sequence => "sequence",
                _ => return Err(unsupported(format!("DROP {kind}"))),
            };
            let found = self.catalogue.named(&name).cloned();
            match found {
                Some(object) if object.kind() == word => self.drop_one(&object, cascade)?,
                Some(object) => {
                    return Err(SqlError::new(
                        SqlState::WrongObjectType,
                        format!("\"{name}\" is not a {word}"),
                    )
                    .hint(format!(
                        "Use DROP {} to remove a {}.",
                        object.kind().to_uppercase(),
                        object.kind()
                    )));
                }
                None if if_exists => self.notices.push(format!("{word} \"{name}\" does not exist, skipping")),
                None => return Err(self.missing(word, &name)),
            }
        }
        Ok(())
    }

    /// Whether the default of a column takes numbers from a sequence.
    fn takes_from(&self, column: &Column, sequence: ObjectId) -> bool {
        if column.owns == Some(sequence) {
            return true;
        }
        let Some(Ok(parsed)) = column.default.as_deref().map(crate::parse::expression) else { return false };
        let bound = Binder::new(&self.catalogue, "", self.now).expr(&parsed);
        let takes = |part: &Expr| matches!(part, Expr::NextValue(id) | Expr::CurrentValue(id) | Expr::SetValue(id, ..) if *id == sequence);
        bound.is_ok_and(|typed| typed.expr.any(&mut |part| takes(part)))
    }

    pub(super) fn drop_one(&mut self, object: &Object, cascade: bool) -> Result<(), SqlError> {
        let id = object.id();
        let views: Vec<Object> = self
            .catalogue
            .objects()
            .filter(|o| matches!(o, Object::View(view) if view.reads.contains(&id)))
            .cloned()
            .collect();
        let children: Vec<(Arc<Table>, String)> = self
            .catalogue
            .children(id)
            .filter(|(child, _)| child.id != id)
            .map(|(child, key)| (child.clone(), key.name.clone()))
            .collect();
        let users: Vec<Arc<Table>> = match object {
            Object::Sequence(_) => self
                .catalogue
                .objects()
                .filter_map(|o| match o {
                    Object::Table(t) if t.columns.iter().any(|c| self.takes_from(c, id)) => Some(t.clone()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        if !cascade && (!views.is_empty() || !children.is_empty() || !users.is_empty()) {
            return Err(SqlError::new(
                SqlState::DependentObjectsStillExist,
                format!("cannot drop {} {} because other objects depend on it", object.kind(), object.name()),
            )
            .hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        for view in views {
            if self.catalogue.object(view.id()).is_some() {
                self.drop_one(&view, true)?;
            }
        }
        for (child, key) in children {
            if let Some(current) = self.catalogue.table(child.id) {
                let mut changed = (**current).clone();
                changed.foreign_keys.retain(|k| k.name != key);
                self.put_table(changed);
            }
        }
        for table in users {
            let mut changed = (*table).clone();
            for column in changed.columns.iter_mut().filter(|c| self.takes_from(c, id)) {
                column.owns = column.owns.filter(|owned| *owned != id);
                column.default = None;
            }
            self.put_table(changed);
        }
        if let Object::Table(table) = object {
            for owned in table.columns.iter().filter_map(|c| c.owns) {
                self.drop_object(owned);
            }
        }
        self.drop_object(id);
        Ok(())
    }
}
