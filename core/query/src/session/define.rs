//! CREATE, ALTER, DROP: changes of the catalogue, and of rows where they must follow.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::fact::{Guard, SchemaFact};
use kimberlite_row::schema::{Action, Check, ColumnId, ForeignKey, Identity, Index, IndexColumn, PrimaryKey};
use kimberlite_row::{Catalogue, Column, Object, ObjectId, Sequence, SqlError, SqlState, Table, Type, View};
use sqlparser::ast;

use crate::bind::{Binder, Output, folded, last_part, near, unsupported};
use crate::eval::{Scope as Seen, Shared};
use crate::expr::Expr;
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

impl Definer<'_> {
    /// Puts an object in place and notes the fact.
    fn put(&mut self, object: Object) {
        if let Some(old) = self.catalogue.object(object.id()) {
            self.overlay.guards.push(Guard::Schema(old.id(), old.version()));
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
            self.overlay.guards.push(Guard::Schema(id, object.version()));
            self.overlay.freed.insert(object.name().to_string());
            self.overlay.forget(id);
            self.overlay.schema.push(SchemaFact::Drop(id));
        }
    }

    fn missing(&self, kind: &str, name: &str) -> SqlError {
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
        let mut name = base.to_string();
        let mut count = 0;
        while self.catalogue.taken(&name) {
            count += 1;
            name = format!("{base}{count}");
        }
        name
    }

    /// CREATE TABLE.
    pub(super) fn create_table(
        &mut self,
        create: &ast::CreateTable,
        rows: Option<&[Output]>,
    ) -> Result<bool, SqlError> {
        let name = last_part(&create.name);
        if self.catalogue.taken(&name) {
            if create.if_not_exists {
                self.notices.push(format!("relation \"{name}\" already exists, skipping"));
                return Ok(false);
            }
            return Err(exists("relation", &name));
        }
        let mut table = Table {
            id: self.catalogue.take_id(),
            name: name.clone(),
            version: 0,
            columns: Vec::new(),
            next_column: 0,
            primary_key: None,
            indexes: Vec::new(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
        };
        if let Some(like) = &create.like {
            let like = match like {
                ast::CreateTableLikeKind::Parenthesized(like) | ast::CreateTableLikeKind::Plain(like) => like,
            };
            let source = self.table(&last_part(&like.name))?;
            table.columns = source
                .columns
                .iter()
                .map(|c| Column { default: None, owns: None, identity: None, ..c.clone() })
                .collect();
            table.next_column = source.next_column;
        }
        if let Some(output) = rows {
            for (at, out) in output.iter().enumerate() {
                let given = create.columns.get(at).map(|c| folded(&c.name));
                let kind = if out.kind == Type::Unknown { Type::Text } else { out.kind.clone() };
                self.push_column(&mut table, given.unwrap_or_else(|| out.name.clone()), kind)?;
            }
        } else {
            for definition in &create.columns {
                self.column(&mut table, definition)?;
            }
        }
        for constraint in &create.constraints {
            self.constraint(&mut table, constraint)?;
        }
        table.version = 0;
        self.put_table(table);
        Ok(true)
    }

    fn push_column(&mut self, table: &mut Table, name: String, kind: Type) -> Result<(), SqlError> {
        if table.place_of(&name).is_some() {
            return Err(SqlError::new(
                SqlState::DuplicateColumn,
                format!("column \"{name}\" of relation \"{}\" already exists", table.name),
            ));
        }
        if table.columns.len() >= kimberlite_row::schema::COLUMNS_MAX {
            return Err(SqlError::new(SqlState::TooManyColumns, "tables can have at most 1600 columns"));
        }
        table.columns.push(Column {
            id: ColumnId(table.next_column),
            name,
            kind,
            not_null: false,
            default: None,
            missing: None,
            identity: None,
            owns: None,
            generated: None,
        });
        table.next_column += 1;
        Ok(())
    }

    fn own_sequence(
        &mut self,
        table: &mut Table,
        at: usize,
        options: &[ast::SequenceOptions],
    ) -> Result<(), SqlError> {
        let kind = table.columns[at].kind.clone();
        let name = self.free_name(&format!("{}_{}_seq", table.name, table.columns[at].name));
        let mut sequence = Sequence {
            id: self.catalogue.take_id(),
            name: name.clone(),
            version: 1,
            start: 1,
            step: 1,
            low: 1,
            high: kimberlite_row::text::integer_bounds(&kind).1,
            cycle: false,
            last: None,
        };
        sequence_options(&mut sequence, options)?;
        table.columns[at].default = Some(format!("nextval('{name}')"));
        table.columns[at].not_null = true;
        table.columns[at].owns = Some(sequence.id);
        self.put(Object::Sequence(Arc::new(sequence)));
        Ok(())
    }

    fn column(&mut self, table: &mut Table, definition: &ast::ColumnDef) -> Result<(), SqlError> {
        let kind = Binder::type_of(&definition.data_type)?;
        self.push_column(table, folded(&definition.name), kind)?;
        let at = table.columns.len() - 1;
        let serial = definition.data_type.to_string().to_lowercase();
        if matches!(
            serial.as_str(),
            "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" | "serial2"
        ) {
            self.own_sequence(table, at, &[])?;
        }
        for option in &definition.options {
            let named = option.name.as_ref().map(folded);
            let column = ast::Ident::with_quote('"', table.columns[at].name.clone());
            match &option.option {
                ast::ColumnOption::Null => table.columns[at].not_null = false,
                ast::ColumnOption::NotNull => table.columns[at].not_null = true,
                ast::ColumnOption::Default(expr) => self.set_default(table, at, Some(expr))?,
                ast::ColumnOption::PrimaryKey(_) => {
                    self.primary_key(table, named, &[table.columns[at].name.clone()])?;
                }
                ast::ColumnOption::Unique(_) => {
                    self.unique(table, named, &[table.columns[at].name.clone()])?;
                }
                ast::ColumnOption::ForeignKey(key) => {
                    let mut key = key.clone();
                    key.columns = [column].into();
                    self.foreign_key(table, named, &key)?;
                }
                ast::ColumnOption::Check(check) => {
                    let name =
                        named.unwrap_or_else(|| format!("{}_{}_check", table.name, table.columns[at].name));
                    self.check(table, name, &check.expr);
                }
                ast::ColumnOption::Generated { generation_expr: Some(expr), .. } => {
                    table.columns[at].generated = Some(expr.to_string());
                }
                ast::ColumnOption::Generated { generated_as, sequence_options, .. } => {
                    table.columns[at].identity = Some(match generated_as {
                        ast::GeneratedAs::Always => Identity::Always,
                        _ => Identity::ByDefault,
                    });
                    self.own_sequence(table, at, sequence_options.as_deref().unwrap_or(&[]))?;
                }
                ast::ColumnOption::Collation(_) | ast::ColumnOption::Comment(_) => {}
                other => return Err(unsupported(format!("the column option {other}"))),
            }
        }
        Ok(())
    }

    fn set_default(
        &mut self,
        table: &mut Table,
        at: usize,
        expr: Option<&ast::Expr>,
    ) -> Result<(), SqlError> {
        let Some(expr) = expr else {
            table.columns[at].default = None;
            return Ok(());
        };
        let kind = table.columns[at].kind.clone();
        let mut binder = Binder::new(&self.catalogue, "", self.now);
        let typed = binder.expr(expr)?;
        binder.coerce(typed, &kind, Willing::Assignment)?;
        table.columns[at].default = Some(expr.to_string());
        Ok(())
    }

    fn ids(table: &Table, names: &[String]) -> Result<Vec<ColumnId>, SqlError> {
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

    fn primary_key(
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
        let name = name.unwrap_or_else(|| self.free_name(&format!("{}_pkey", table.name)));
        table.primary_key = Some(PrimaryKey { name, columns });
        Ok(())
    }

    fn unique(&mut self, table: &mut Table, name: Option<String>, names: &[String]) -> Result<(), SqlError> {
        let columns = Self::ids(table, names)?;
        let name = name.unwrap_or_else(|| {
            let mut name = self.free_name(&format!("{}_{}_key", table.name, names.join("_")));
            while table.indexes.iter().any(|i| i.name == name) {
                name.push('1');
            }
            name
        });
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

    fn check(&mut self, table: &mut Table, name: String, expr: &ast::Expr) {
        let mut unique = name.clone();
        let mut count = 0;
        while table.checks.iter().any(|c| c.name == unique) {
            count += 1;
            unique = format!("{name}{count}");
        }
        table.checks.push(Check { name: unique, expression: expr.to_string() });
    }

    fn foreign_key(
        &mut self,
        table: &mut Table,
        name: Option<String>,
        key: &ast::ForeignKeyConstraint,
    ) -> Result<(), SqlError> {
        let names: Vec<String> = key.columns.iter().map(folded).collect();
        let columns = Self::ids(table, &names)?;
        let parent_name = last_part(&key.foreign_table);
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
            .unwrap_or_else(|| format!("{}_{}_fkey", table.name, names.join("_")));
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

    fn constraint(&mut self, table: &mut Table, constraint: &ast::TableConstraint) -> Result<(), SqlError> {
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
                let name = check.name.as_ref().map_or_else(|| format!("{}_check", table.name), folded);
                self.check(table, name, &check.expr);
                Ok(())
            }
            _ => Err(unsupported("this table constraint")),
        }
    }

    /// CREATE INDEX.
    pub(super) fn create_index(&mut self, create: &ast::CreateIndex) -> Result<(), SqlError> {
        let table_name = last_part(&create.table_name);
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
            Some(name) => last_part(name),
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

    /// CREATE VIEW.
    pub(super) fn create_view(
        &mut self,
        create: &ast::CreateView,
        output: &[Output],
        reads: Vec<ObjectId>,
    ) -> Result<(), SqlError> {
        let name = last_part(&create.name);
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

    /// CREATE SEQUENCE.
    pub(super) fn create_sequence(
        &mut self,
        name: &ast::ObjectName,
        if_not_exists: bool,
        options: &[ast::SequenceOptions],
    ) -> Result<(), SqlError> {
        let name = last_part(name);
        if self.catalogue.taken(&name) {
            return if if_not_exists { Ok(()) } else { Err(exists("relation", &name)) };
        }
        let mut sequence = Sequence {
            id: self.catalogue.take_id(),
            name,
            version: 1,
            start: 1,
            step: 1,
            low: 1,
            high: i64::MAX,
            cycle: false,
            last: None,
        };
        sequence_options(&mut sequence, options)?;
        self.put(Object::Sequence(Arc::new(sequence)));
        Ok(())
    }

    /// DROP of anything.
    pub(super) fn drop(
        &mut self,
        kind: &ast::ObjectType,
        names: &[ast::ObjectName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<(), SqlError> {
        for name in names {
            let name = last_part(name);
            if *kind == ast::ObjectType::Index {
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

    fn drop_one(&mut self, object: &Object, cascade: bool) -> Result<(), SqlError> {
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
                    Object::Table(t) if t.columns.iter().any(|c| c.owns == Some(id)) => Some(t.clone()),
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
            for column in changed.columns.iter_mut().filter(|c| c.owns == Some(id)) {
                column.owns = None;
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

    fn drop_index(&mut self, name: &str, if_exists: bool) -> Result<(), SqlError> {
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

    /// ALTER TABLE.
    pub(super) fn alter_table(&mut self, alter: &ast::AlterTable) -> Result<(), SqlError> {
        let name = last_part(&alter.name);
        if self.catalogue.named(&name).is_none() && alter.if_exists {
            self.notices.push(format!("relation \"{name}\" does not exist, skipping"));
            return Ok(());
        }
        for operation in &alter.operations {
            self.alter_one(&name, operation)?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_lines, reason = "one arm per form of ALTER TABLE")]
    fn alter_one(&mut self, name: &str, operation: &ast::AlterTableOperation) -> Result<(), SqlError> {
        use ast::AlterTableOperation as A;
        if let (A::RenameTable { table_name }, Some(Object::View(view))) =
            (operation, self.catalogue.named(name))
        {
            let (ast::RenameTableNameKind::As(to) | ast::RenameTableNameKind::To(to)) = table_name;
            let mut view = (**view).clone();
            view.name = last_part(to);
            view.version += 1;
            self.put(Object::View(Arc::new(view)));
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
                let at = table.columns.len() - 1;
                if table.primary_key.is_some() && !keys.0 {
                    return Err(unsupported("ADD COLUMN with PRIMARY KEY"));
                }
                if let Some(text) = table.columns[at].default.clone() {
                    let parsed = crate::parse::expression(&text)?;
                    let mut binder = Binder::new(&self.catalogue, "", self.now);
                    let typed = binder.expr(&parsed)?;
                    let expr = binder.coerce(typed, &table.columns[at].kind, Willing::Assignment)?;
                    if expr.is_volatile() {
                        self.follow.push(format!(
                            "UPDATE {} SET {} = DEFAULT",
                            quoted(name),
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
                        quoted(name),
                        quoted(&table.columns[0].name)
                    ));
                }
                let added = (true, table.indexes.len(), table.foreign_keys.len(), table.checks.len());
                if added.1 > keys.1 || added.2 > keys.2 || added.3 > keys.3 || table.columns[at].not_null {
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
                    if table.primary_key.as_ref().is_some_and(|k| k.columns.contains(&id)) {
                        return Err(unsupported("dropping a column of the primary key"));
                    }
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
                    table.columns.remove(at);
                    table.indexes.retain(|i| i.columns.iter().all(|c| c.column != id));
                    table.foreign_keys.retain(|k| !k.columns.contains(&id));
                    let word = |text: &str| {
                        text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == column)
                    };
                    table.checks.retain(|c| !word(&c.expression));
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
                let to = last_part(to);
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
                    return self.add_primary_key(table, constraint);
                }
                self.constraint(&mut table, constraint)?;
                self.recheck.push(table.id);
            }
            A::DropConstraint { if_exists, name: ident, .. } => {
                let constraint = folded(ident);
                let before = (table.indexes.len(), table.checks.len(), table.foreign_keys.len());
                table.indexes.retain(|i| !(i.constraint && i.name == constraint));
                table.checks.retain(|c| c.name != constraint);
                table.foreign_keys.retain(|k| k.name != constraint);
                if table.primary_key.as_ref().is_some_and(|k| k.name == constraint) {
                    return Err(unsupported("dropping a primary key"));
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
                    .chain(table.indexes.iter_mut().map(|i| &mut i.name))
                    .chain(table.foreign_keys.iter_mut().map(|k| &mut k.name))
                    .chain(table.primary_key.iter_mut().map(|k| &mut k.name));
                for constraint in names {
                    if *constraint == old {
                        constraint.clone_from(&new);
                    }
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
                        return self.change_type(table, at, data_type, using.as_ref());
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

    /// A new table takes the rows and the name: keys of rows are never changed in place.
    fn add_primary_key(&mut self, old: Table, constraint: &ast::TableConstraint) -> Result<(), SqlError> {
        let mut table = old.clone();
        self.constraint(&mut table, constraint)?;
        self.replace(old, table, None)
    }

    /// A column of another type is another column.
    fn change_type(
        &mut self,
        old: Table,
        at: usize,
        kind: &ast::DataType,
        using: Option<&ast::Expr>,
    ) -> Result<(), SqlError> {
        let mut table = old.clone();
        let kind = Binder::type_of(kind)?;
        let id = table.columns[at].id;
        let keyed = table.primary_key.as_ref().is_some_and(|k| k.columns.contains(&id))
            || table.foreign_keys.iter().any(|k| k.columns.contains(&id))
            || self.catalogue.children(table.id).any(|(_, k)| k.parent_columns.contains(&id));
        if keyed && kind.base() != table.columns[at].kind.base() {
            return Err(unsupported("changing the type of a key column"));
        }
        let name = quoted(&table.columns[at].name);
        let source =
            using.map_or_else(|| format!("{name}::{}", kind.name()), |e| format!("({e})::{}", kind.name()));
        table.columns[at].kind = kind;
        table.columns[at].missing = None;
        self.replace(old, table, Some((at, source)))
    }

    fn replace(
        &mut self,
        old: Table,
        mut table: Table,
        changed: Option<(usize, String)>,
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
        let list: Vec<String> = old
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.generated.is_none())
            .map(|(at, c)| match &changed {
                Some((place, source)) if *place == at => source.clone(),
                _ => quoted(&c.name),
            })
            .collect();
        let names: Vec<String> =
            old.columns.iter().filter(|c| c.generated.is_none()).map(|c| quoted(&c.name)).collect();
        self.follow.push(format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}",
            quoted(&name),
            names.join(", "),
            list.join(", "),
            quoted(&moved.name)
        ));
        self.follow.push(format!("DROP TABLE {}", quoted(&moved.name)));
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

fn sequence_options(sequence: &mut Sequence, options: &[ast::SequenceOptions]) -> Result<(), SqlError> {
    let number = |expr: &ast::Expr| -> Result<i64, SqlError> {
        let catalogue = Catalogue::default();
        let mut binder = Binder::new(&catalogue, "", 0);
        let typed = binder.expr(expr)?;
        match binder.coerce(typed, &Type::BigInt, Willing::Assignment)? {
            Expr::Const(kimberlite_row::Value::Int(n)) => Ok(n),
            Expr::Negate(inner, _) => match *inner {
                Expr::Const(kimberlite_row::Value::Int(n)) => Ok(-n),
                _ => Err(unsupported("this option of a sequence")),
            },
            _ => Err(unsupported("this option of a sequence")),
        }
    };
    let (mut start, mut low, mut high) = (None, None, None);
    for option in options {
        match option {
            ast::SequenceOptions::IncrementBy(expr, _) => sequence.step = number(expr)?,
            ast::SequenceOptions::MinValue(Some(expr)) => low = Some(number(expr)?),
            ast::SequenceOptions::MaxValue(Some(expr)) => high = Some(number(expr)?),
            ast::SequenceOptions::StartWith(expr, _) => start = Some(number(expr)?),
            ast::SequenceOptions::Cycle(no) => sequence.cycle = !*no,
            _ => {}
        }
    }
    if sequence.step == 0 {
        return Err(SqlError::new(SqlState::InvalidParameterValue, "INCREMENT must not be zero"));
    }
    if sequence.step < 0 {
        (sequence.low, sequence.high) = (i64::MIN, -1);
    }
    sequence.low = low.unwrap_or(sequence.low);
    sequence.high = high.unwrap_or(sequence.high);
    sequence.start = start.unwrap_or(if sequence.step > 0 { sequence.low } else { sequence.high });
    if sequence.low >= sequence.high || !(sequence.low..=sequence.high).contains(&sequence.start) {
        return Err(SqlError::new(
            SqlState::InvalidParameterValue,
            "the bounds of the sequence exclude its start",
        ));
    }
    Ok(())
}
