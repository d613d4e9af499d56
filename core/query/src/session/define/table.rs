//! CREATE TABLE: columns with what they say about themselves.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::schema::{ColumnId, Identity, Index, IndexColumn};
use kimberlite_row::{Column, Object, Sequence, SqlError, SqlState, Table, Type};
use sqlparser::ast;

use super::sequence::sequence_options;
use super::{Definer, exists, next_of};
use crate::bind::{Binder, Output, bare, folded, own_name, unsupported};
use crate::dialect::LIKE_COLUMN;

impl Definer<'_> {
    /// CREATE TABLE.
    pub(in crate::session) fn create_table(
        &mut self,
        create: &ast::CreateTable,
        rows: Option<&[Output]>,
    ) -> Result<bool, SqlError> {
        let elsewhere = [
            (create.inherits.is_some(), "INHERITS"),
            (create.partition_by.is_some() || create.partition_of.is_some(), "PARTITION"),
            (matches!(create.on_commit, Some(ast::OnCommit::DeleteRows | ast::OnCommit::Drop)), "ON COMMIT"),
        ];
        if let Some((_, what)) = elsewhere.iter().find(|(there, _)| *there) {
            return Err(unsupported(format!("CREATE TABLE with {what}")));
        }
        let name = self.new_name(&create.name)?;
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
        if create.like.is_some() {
            return Err(SqlError::new(SqlState::SyntaxError, "syntax error at or near \"LIKE\"")
                .hint("It is CREATE TABLE t (LIKE other)."));
        }
        if let Some(output) = rows {
            if !create.columns.is_empty() {
                return Err(SqlError::new(SqlState::SyntaxError, "syntax error at or near \"AS\"")
                    .hint("The columns of CREATE TABLE AS have names alone: their types are the query's."));
            }
            for out in output {
                let kind = if out.kind == Type::Unknown { Type::Text } else { out.kind.clone() };
                Self::push_column(&mut table, out.name.clone(), kind)?;
            }
        } else {
            for definition in &create.columns {
                match (&definition.data_type, definition.name.value.as_str()) {
                    (ast::DataType::Custom(name, _), LIKE_COLUMN) => self.like(&mut table, name)?,
                    _ => self.column(&mut table, definition)?,
                }
            }
        }
        for constraint in &create.constraints {
            self.constraint(&mut table, constraint)?;
        }
        table.version = 0;
        self.check_rules(&table)?;
        self.put_table(table);
        Ok(true)
    }

    /// `LIKE t INCLUDING …`: the columns of another table as they are now, and what else of it is asked for.
    fn like(&mut self, table: &mut Table, marked: &ast::ObjectName) -> Result<(), SqlError> {
        let Some((options, name)) = marked.0.split_first() else { return Ok(()) };
        let options = options.as_ident().map_or("", |ident| ident.value.as_str());
        let known = [
            "all",
            "defaults",
            "constraints",
            "indexes",
            "generated",
            "identity",
            "comments",
            "storage",
            "statistics",
            "compression",
        ];
        let mut included: Vec<&str> = Vec::new();
        for option in options.split_whitespace() {
            let (sign, what) = option.split_at(1);
            let Some(what) = known.into_iter().find(|known| *known == what) else {
                let message = format!("syntax error at or near \"{what}\"");
                return Err(SqlError::new(SqlState::SyntaxError, message));
            };
            if sign == "-" {
                included.retain(|known| *known != what && what != "all");
            } else if what == "all" {
                included.extend(known);
            } else {
                included.push(what);
            }
        }
        let has = |what: &str| included.contains(&what);
        let source = self.table(&own_name(&ast::ObjectName(name.to_vec()))?)?;
        let mut copied = Vec::new();
        for column in &source.columns {
            Self::push_column(table, column.name.clone(), column.kind.clone())?;
            let at = table.columns.len() - 1;
            copied.push((column.id, at));
            table.columns[at].not_null = column.not_null;
            if column.identity.is_some() {
                if has("identity") {
                    self.own_sequence(table, at, &[])?;
                    table.columns[at].identity = column.identity;
                }
            } else if has("defaults") {
                table.columns[at].default.clone_from(&column.default);
            }
            if has("generated") {
                table.columns[at].generated.clone_from(&column.generated);
            }
        }
        if has("constraints") {
            table.checks.extend(source.checks.iter().cloned());
        }
        if !has("indexes") {
            return Ok(());
        }
        let named = |table: &Table, id: ColumnId| {
            copied.iter().find(|(old, _)| *old == id).map(|(_, at)| table.columns[*at].name.clone())
        };
        if let Some(key) = &source.primary_key {
            let names: Vec<String> = key.columns.iter().filter_map(|id| named(table, *id)).collect();
            self.primary_key(table, None, &names)?;
        }
        for index in &source.indexes {
            let names: Vec<String> = index.columns.iter().filter_map(|c| named(table, c.column)).collect();
            if index.constraint {
                self.unique(table, None, &names)?;
                continue;
            }
            let columns = index.columns.iter().filter_map(|column| {
                let at = copied.iter().find(|(old, _)| *old == column.column)?.1;
                Some(IndexColumn { column: table.columns[at].id, ..column.clone() })
            });
            let columns = columns.collect();
            let mut name = self.free_name(&format!("{}_{}_idx", table.name, names.join("_")));
            while table.indexes.iter().any(|known| known.name == name) {
                name.push('1');
            }
            let id = self.catalogue.take_id();
            table.indexes.push(Index { id, name, columns, ..index.clone() });
        }
        Ok(())
    }

    pub(super) fn push_column(table: &mut Table, name: String, kind: Type) -> Result<(), SqlError> {
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
        table.columns[at].default = Some(next_of(&name));
        table.columns[at].not_null = true;
        table.columns[at].owns = Some(sequence.id);
        self.put(Object::Sequence(Arc::new(sequence)));
        Ok(())
    }

    pub(super) fn column(&mut self, table: &mut Table, definition: &ast::ColumnDef) -> Result<(), SqlError> {
        let kind = Binder::type_of(&definition.data_type)?;
        Self::push_column(table, folded(&definition.name), kind)?;
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
                    let name = named
                        .unwrap_or_else(|| format!("{}_{}_check", bare(&table.name), table.columns[at].name));
                    Self::check(table, &name, &check.expr);
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

    pub(super) fn set_default(
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
}
