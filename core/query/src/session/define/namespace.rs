//! CREATE SCHEMA and DROP SCHEMA.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::{Namespace, Object, SqlError, SqlState};

use super::Definer;
use crate::bind::{has_schema, no_schema, prefix};

impl Definer<'_> {
    /// CREATE SCHEMA.
    pub(in crate::session) fn create_schema(
        &mut self,
        name: &str,
        if_not_exists: bool,
    ) -> Result<(), SqlError> {
        if has_schema(&self.catalogue, name) {
            let message = format!("schema \"{name}\" already exists");
            if if_not_exists {
                self.notices.push(format!("{message}, skipping"));
                return Ok(());
            }
            return Err(SqlError::new(SqlState::DuplicateSchema, message));
        }
        let schema = Namespace { id: self.catalogue.take_id(), prefix: prefix(name), version: 1 };
        self.put(Object::Schema(Arc::new(schema)));
        Ok(())
    }

    /// DROP SCHEMA, with what stands in it if asked to.
    pub(super) fn drop_schema(&mut self, name: &str, if_exists: bool, cascade: bool) -> Result<(), SqlError> {
        let prefix = prefix(name);
        let Some(schema) = self.catalogue.named(&prefix).map(Object::id) else {
            if if_exists {
                self.notices.push(format!("schema \"{name}\" does not exist, skipping"));
                return Ok(());
            }
            return Err(no_schema(name));
        };
        let inside: Vec<Object> = self
            .catalogue
            .objects()
            .filter(|object| object.id() != schema && object.name().starts_with(&prefix))
            .cloned()
            .collect();
        if !inside.is_empty() && !cascade {
            return Err(SqlError::new(
                SqlState::DependentObjectsStillExist,
                format!("cannot drop schema {name} because other objects depend on it"),
            )
            .hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        for object in inside {
            if self.catalogue.object(object.id()).is_some() {
                self.drop_one(&object, true)?;
            }
        }
        self.drop_object(schema);
        Ok(())
    }
}
