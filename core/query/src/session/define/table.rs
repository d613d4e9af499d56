//! CREATE TABLE: columns with what they say about themselves.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::schema::{ColumnId, Identity};
use kimberlite_row::{Column, Object, Sequence, SqlError, SqlState, Table, Type};
use sqlparser::ast;

use super::sequence::sequence_options;
use super::{Definer, exists, next_of};
use crate::bind::{Binder, Output, bare, folded, own_name, unsupported};

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
        if let Some(like) = &create.like {
            let like = match like {
                ast::CreateTableLikeKind::Parenthesized(like) | ast::CreateTableLikeKind::Plain(like) => like,
            };
            let source = self.table(&own_name(&like.name)?)?;
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
                Self::push_column(&mut table, given.unwrap_or_else(|| out.name.clone()), kind)?;
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
        self.check_rules(&table)?;
        self.put_table(table);
        Ok(true)
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
