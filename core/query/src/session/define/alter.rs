//! ALTER TABLE.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::{Object, ObjectId, SqlError, SqlState, Table, View};
use sqlparser::ast;

use super::{Definer, beside, exists, in_sql, next_of, quoted};
use crate::bind::{Binder, folded, last_part, own_name, unsupported};
use crate::eval::Scope as Seen;

impl Definer<'_> {
    /// ALTER TABLE.
    pub(in crate::session) fn alter_table(&mut self, alter: &ast::AlterTable) -> Result<(), SqlError> {
        let name = own_name(&alter.name)?;
        if self.catalogue.named(&name).is_none() && alter.if_exists {
            self.notices.push(format!("relation \"{name}\" does not exist, skipping"));
            return Ok(());
        }
        for operation in &alter.operations {
            self.alter_one(&name, operation)?;
            match operation {
                ast::AlterTableOperation::DropColumn { drop_behavior, .. } => {
                    let cascade = matches!(drop_behavior, Some(ast::DropBehavior::Cascade));
                    self.views_hold(&name, |definer, view| {
                        if cascade {
                            return definer.drop_one(&Object::View(view.clone()), true);
                        }
                        Err(SqlError::new(
                            SqlState::DependentObjectsStillExist,
                            "cannot drop the column because other objects depend on it",
                        )
                        .detail(format!("view {} depends on it", view.name))
                        .hint("Use DROP ... CASCADE to drop the dependent objects too."))
                    })?;
                }
                ast::AlterTableOperation::RenameColumn { .. } => self.views_hold(&name, |_, view| {
                    Err(unsupported("renaming a column that a view reads")
                        .hint(format!("Drop the view \"{}\", and make it again.", view.name)))
                })?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks whether the views that read a table can be read still.
    fn views_hold(
        &mut self,
        table: &str,
        mut broken: impl FnMut(&mut Self, &Arc<View>) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let Some(id) = self.catalogue.named(table).map(Object::id) else { return Ok(()) };
        let views = self.catalogue.objects().filter_map(|object| match object {
            Object::View(view) if view.reads.contains(&id) => Some(view.clone()),
            _ => None,
        });
        for view in views.collect::<Vec<_>>() {
            let query = crate::parse::query(&view.query)?;
            let holds = Binder::new(&self.catalogue, "", self.now).query(&query).is_ok();
            if !holds && self.catalogue.object(view.id).is_some() {
                broken(self, &view)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_lines, reason = "one arm per form of ALTER TABLE")]
    fn alter_one(&mut self, name: &str, operation: &ast::AlterTableOperation) -> Result<(), SqlError> {
        use ast::AlterTableOperation as A;
        if let A::RenameTable { table_name } = operation
            && self.rename_other(name, table_name)?
        {
            return Ok(());
        }
        let mut table = (*self.table(name)?).clone();
        let place = |table: &Table, ident: &ast::Ident| -> Result<usize, SqlError> {
            let column = folded(ident);
            table.place_of(&column).ok_or_else(|| {
                SqlError::new(
                    SqlState::UndefinedColumn,
                    format!("column \"{column}\" of relation \"{}\" does not exist", table.name),
                )
            })
        };
        match operation {
            A::AddColumn { if_not_exists, column_def, .. } => {
                if *if_not_exists && table.place_of(&folded(&column_def.name)).is_some() {
                    return Ok(());
                }
                let keys = (
                    table.primary_key.is_some(),
                    table.indexes.len(),
                    table.foreign_keys.len(),
                    table.checks.len(),
                );
                self.column(&mut table, column_def)?;
                self.check_rules(&table)?;
                let at = table.columns.len() - 1;
                if table.primary_key.is_some() && !keys.0 {
                    let old = (*self.table(name)?).clone();
                    return self.replace(&old, table, None);
                }
                let mut filled = false;
                if let Some(text) = table.columns[at].default.clone() {
                    let parsed = crate::parse::expression(&text)?;
                    let mut binder = Binder::new(&self.catalogue, "", self.now);
                    let typed = binder.expr(&parsed)?;
                    let expr = binder.coerce(typed, &table.columns[at].kind, Willing::Assignment)?;
                    if expr.is_volatile() {
                        filled = true;
                        self.follow.push(format!(
                            "UPDATE {} SET {} = DEFAULT",
                            in_sql(name),
                            quoted(&table.columns[at].name)
                        ));
                    } else {
                        let value =
                            expr.eval(&[], &mut Seen { outer: &[], slots: &[], shared: self.shared })?;
                        table.columns[at].missing =
                            kimberlite_row::text::output(&value, &table.columns[at].kind);
                    }
                }
                if table.columns[at].generated.is_some() {
                    self.follow.push(format!(
                        "UPDATE {} SET {1} = {1}",
                        in_sql(name),
                        quoted(&table.columns[0].name)
                    ));
                }
                let added = (true, table.indexes.len(), table.foreign_keys.len(), table.checks.len());
                let more = added.1 > keys.1 || added.2 > keys.2 || added.3 > keys.3;
                // What fills the column checks all of it.
                if !filled && (more || table.columns[at].not_null) {
                    self.recheck.push(table.id);
                }
            }
            A::DropColumn { column_names, if_exists, drop_behavior, .. } => {
                for ident in column_names {
                    let column = folded(ident);
                    let Some(at) = table.place_of(&column) else {
                        if *if_exists {
                            continue;
                        }
                        return Err(place(&table, ident).err().unwrap_or_else(|| unsupported("this column")));
                    };
                    let id = table.columns[at].id;
                    let cascade = matches!(drop_behavior, Some(ast::DropBehavior::Cascade));
                    let referenced =
                        self.catalogue.children(table.id).any(|(_, k)| k.parent_columns.contains(&id));
                    if referenced && !cascade {
                        return Err(SqlError::new(
                            SqlState::DependentObjectsStillExist,
                            format!("cannot drop column {column} of table {name} because other objects depend on it"),
                        )
                        .hint("Use DROP ... CASCADE to drop the dependent objects too."));
                    }
                    if referenced {
                        return Err(unsupported("DROP COLUMN CASCADE of a referenced column"));
                    }
                    if let Some(owned) = table.columns[at].owns {
                        self.drop_object(owned);
                    }
                    if table.primary_key.as_ref().is_some_and(|k| k.columns.contains(&id)) {
                        if column_names.len() > 1 {
                            return Err(unsupported("dropping a column of the primary key among others"));
                        }
                        return self.drop_key(&table, Some(at));
                    }
                    table.columns.remove(at);
                    table.indexes.retain(|i| i.columns.iter().all(|c| c.column != id));
                    table.foreign_keys.retain(|k| !k.columns.contains(&id));
                    table.checks.retain(|c| !mentions(&c.expression, &column));
                }
            }
            A::RenameColumn { old_column_name, new_column_name } => {
                let at = place(&table, old_column_name)?;
                let (old, new) = (folded(old_column_name), folded(new_column_name));
                if table.place_of(&new).is_some() {
                    return Err(SqlError::new(
                        SqlState::DuplicateColumn,
                        format!("column \"{new}\" of relation \"{name}\" already exists"),
                    ));
                }
                table.columns[at].name.clone_from(&new);
                for check in &mut table.checks {
                    check.expression = renamed(&check.expression, &old, &new);
                }
                for column in &mut table.columns {
                    column.generated = column.generated.as_ref().map(|text| renamed(text, &old, &new));
                }
            }
            A::RenameTable { table_name } => {
                let (ast::RenameTableNameKind::As(to) | ast::RenameTableNameKind::To(to)) = table_name;
                let to = beside(name, &last_part(to));
                if self.catalogue.taken(&to) {
                    return Err(exists("relation", &to));
                }
                let views = self
                    .catalogue
                    .objects()
                    .any(|o| matches!(o, Object::View(v) if v.reads.contains(&table.id)));
                if views {
                    return Err(unsupported("renaming a table that a view reads"));
                }
                table.name = to;
            }
            A::AddConstraint { constraint, .. } => {
                if matches!(constraint, ast::TableConstraint::PrimaryKey(_)) {
                    return self.add_primary_key(&table, constraint);
                }
                self.constraint(&mut table, constraint)?;
                self.check_rules(&table)?;
                self.recheck.push(table.id);
            }
            A::DropConstraint { if_exists, name: ident, .. } => {
                let constraint = folded(ident);
                let indexed = beside(name, &constraint);
                let before = (table.indexes.len(), table.checks.len(), table.foreign_keys.len());
                table.indexes.retain(|i| !(i.constraint && i.name == indexed));
                table.checks.retain(|c| c.name != constraint);
                table.foreign_keys.retain(|k| k.name != constraint);
                if table.primary_key.as_ref().is_some_and(|k| k.name == indexed) {
                    return self.drop_key(&table, None);
                }
                if before == (table.indexes.len(), table.checks.len(), table.foreign_keys.len()) {
                    if *if_exists {
                        return Ok(());
                    }
                    return Err(SqlError::new(
                        SqlState::UndefinedObject,
                        format!("constraint \"{constraint}\" of relation \"{name}\" does not exist"),
                    ));
                }
            }
            A::RenameConstraint { old_name, new_name } => {
                let (old, new) = (folded(old_name), folded(new_name));
                let names = table
                    .checks
                    .iter_mut()
                    .map(|c| &mut c.name)
                    .chain(table.foreign_keys.iter_mut().map(|k| &mut k.name));
                for constraint in names.filter(|constraint| **constraint == old) {
                    constraint.clone_from(&new);
                }
                let (old, new) = (beside(name, &old), beside(name, &new));
                let names = table.indexes.iter_mut().map(|i| &mut i.name);
                let names = names.chain(table.primary_key.iter_mut().map(|k| &mut k.name));
                for constraint in names.filter(|constraint| **constraint == old) {
                    constraint.clone_from(&new);
                }
            }
            A::AlterColumn { column_name, op } => {
                let at = place(&table, column_name)?;
                match op {
                    ast::AlterColumnOperation::SetNotNull => {
                        table.columns[at].not_null = true;
                        self.recheck.push(table.id);
                    }
                    ast::AlterColumnOperation::DropNotNull => {
                        let id = table.columns[at].id;
                        if table.primary_key.as_ref().is_some_and(|k| k.columns.contains(&id)) {
                            return Err(SqlError::new(
                                SqlState::InvalidTableDefinition,
                                format!("column \"{}\" is in a primary key", table.columns[at].name),
                            ));
                        }
                        table.columns[at].not_null = false;
                    }
                    ast::AlterColumnOperation::SetDefault { value } => {
                        self.set_default(&mut table, at, Some(value))?;
                    }
                    ast::AlterColumnOperation::DropDefault => self.set_default(&mut table, at, None)?,
                    ast::AlterColumnOperation::SetDataType { data_type, using, .. } => {
                        return self.change_type(&table, at, data_type, using.as_ref());
                    }
                    other => return Err(unsupported(format!("ALTER COLUMN {other}"))),
                }
            }
            A::OwnerTo { .. }
            | A::SetOptionsParens { .. }
            | A::SetLogged
            | A::SetUnlogged
            | A::ValidateConstraint { .. } => {
                return Ok(());
            }
            other => return Err(unsupported(format!("ALTER TABLE {other}"))),
        }
        self.put_table(table);
        Ok(())
    }
}

impl Definer<'_> {
    /// Gives a view, a sequence or an index another name; whether it was one.
    fn rename_other(&mut self, name: &str, to: &ast::RenameTableNameKind) -> Result<bool, SqlError> {
        let (ast::RenameTableNameKind::As(to) | ast::RenameTableNameKind::To(to)) = to;
        let to = beside(name, &last_part(to));
        let found = self.catalogue.named(name).cloned();
        if matches!(found, Some(Object::Table(_))) {
            return Ok(false);
        }
        let indexed = self.catalogue.index_table(name).cloned();
        if (found.is_some() || indexed.is_some()) && self.catalogue.taken(&to) {
            return Err(exists("relation", &to));
        }
        match (found, indexed) {
            (Some(Object::View(view)), _) => {
                let version = view.version + 1;
                self.put(Object::View(Arc::new(View { name: to, version, ..(*view).clone() })));
            }
            (Some(Object::Sequence(sequence)), _) => {
                let old = sequence.name.clone();
                let mut sequence = (*sequence).clone();
                if let Some(own) = self.overlay.sequences.remove(&sequence.id) {
                    sequence.last = own.last;
                }
                let id = sequence.id;
                sequence.version += 1;
                sequence.name.clone_from(&to);
                self.put(Object::Sequence(Arc::new(sequence)));
                self.follow_sequence(id, &old, &to);
            }
            (None, Some(table)) => {
                let mut table = (*table).clone();
                for index in table.indexes.iter_mut().filter(|index| index.name == name) {
                    index.name.clone_from(&to);
                }
                for key in table.primary_key.iter_mut().filter(|key| key.name == name) {
                    key.name.clone_from(&to);
                }
                self.put_table(table);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The default of the column that owns a sequence names it.
    fn follow_sequence(&mut self, id: ObjectId, old: &str, new: &str) {
        let (old, new) = (next_of(old), next_of(new));
        let uses = |c: &kimberlite_row::Column| c.owns == Some(id) && c.default.as_ref() == Some(&old);
        let owner = self.catalogue.objects().find_map(|object| match object {
            Object::Table(table) if table.columns.iter().any(uses) => Some((**table).clone()),
            _ => None,
        });
        if let Some(mut table) = owner {
            for column in table.columns.iter_mut().filter(|c| uses(c)) {
                column.default = Some(new.clone());
            }
            self.put_table(table);
        }
    }
}

/// Whether a word is in an expression kept as text.
pub(super) fn mentions(text: &str, column: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == column)
}

/// Renames a column in an expression kept as text: words outside of quotes.
fn renamed(text: &str, old: &str, new: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let mut quote = false;
    let flush = |word: &mut String, out: &mut String| {
        if word.eq_ignore_ascii_case(old) {
            out.push_str(&quoted(new));
        } else {
            out.push_str(word);
        }
        word.clear();
    };
    for c in text.chars() {
        if !quote && (c.is_alphanumeric() || c == '_') {
            word.push(c);
            continue;
        }
        flush(&mut word, &mut out);
        quote ^= c == '\'';
        out.push(c);
    }
    flush(&mut word, &mut out);
    out
}
