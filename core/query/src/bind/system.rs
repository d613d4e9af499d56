//! Tables of the information schema and of `pg_catalog`, made from the catalogue.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{Object, Type, Value};

use super::{Binder, NamedColumn, bare, split};
use crate::expr::{Col, Expr};
use crate::plan::Plan;

impl Binder<'_> {
    /// A table of the information schema, made from the catalogue.
    #[allow(clippy::too_many_lines, reason = "one arm per system table")]
    pub(super) fn system(&mut self, schema: &str, name: &str) -> Option<(Plan, Vec<NamedColumn>)> {
        let text = |s: &str| Value::text(s);
        let mut rows: Vec<Vec<Value>> = Vec::new();
        let names: &[(&str, Type)] = match (schema, name) {
            ("information_schema", "tables") => {
                for object in self.catalogue.objects() {
                    let kind = match object {
                        Object::Table(_) => "BASE TABLE",
                        Object::View(_) => "VIEW",
                        Object::Sequence(_) | Object::Schema(_) | Object::Function(_) => continue,
                    };
                    let (schema, own) = split(object.name());
                    rows.push([text("kimberlite"), text(&schema), text(&own), text(kind)].into());
                }
                &[
                    ("table_catalog", Type::Text),
                    ("table_schema", Type::Text),
                    ("table_name", Type::Text),
                    ("table_type", Type::Text),
                ]
            }
            ("information_schema", "schemata") => {
                rows.push([text("kimberlite"), text("public")].into());
                for object in self.catalogue.objects() {
                    let Object::Schema(schema) = object else { continue };
                    rows.push([text("kimberlite"), text(&split(&schema.prefix).0)].into());
                }
                &[("catalog_name", Type::Text), ("schema_name", Type::Text)]
            }
            ("information_schema", "columns") => {
                for object in self.catalogue.objects() {
                    let Object::Table(table) = object else { continue };
                    let (schema, own) = split(&table.name);
                    for (at, column) in table.columns.iter().enumerate() {
                        let length = match column.kind {
                            Type::Varchar(Some(n)) | Type::Char(n) => Value::Int(i64::from(n)),
                            _ => Value::Null,
                        };
                        rows.push(
                            [
                                text("kimberlite"),
                                text(&schema),
                                text(&own),
                                text(&column.name),
                                Value::Int(i64::try_from(at + 1).unwrap_or(i64::MAX)),
                                column.default.as_deref().map_or(Value::Null, text),
                                text(if column.not_null { "NO" } else { "YES" }),
                                text(&declared(&column.kind)),
                                length,
                            ]
                            .into(),
                        );
                    }
                }
                &[
                    ("table_catalog", Type::Text),
                    ("table_schema", Type::Text),
                    ("table_name", Type::Text),
                    ("column_name", Type::Text),
                    ("ordinal_position", Type::Integer),
                    ("column_default", Type::Text),
                    ("is_nullable", Type::Text),
                    ("data_type", Type::Text),
                    ("character_maximum_length", Type::Integer),
                ]
            }
            ("information_schema", "table_constraints") => {
                for object in self.catalogue.objects() {
                    let Object::Table(table) = object else { continue };
                    let list = table
                        .primary_key
                        .iter()
                        .map(|k| (&k.name, "PRIMARY KEY"))
                        .chain(table.indexes.iter().filter(|i| i.constraint).map(|i| (&i.name, "UNIQUE")))
                        .chain(table.foreign_keys.iter().map(|k| (&k.name, "FOREIGN KEY")))
                        .chain(table.checks.iter().map(|c| (&c.name, "CHECK")));
                    let (schema, own) = split(&table.name);
                    for (name, kind) in list {
                        rows.push(
                            [text(&schema), text(&bare(name)), text(&schema), text(&own), text(kind)].into(),
                        );
                    }
                }
                &[
                    ("constraint_schema", Type::Text),
                    ("constraint_name", Type::Text),
                    ("table_schema", Type::Text),
                    ("table_name", Type::Text),
                    ("constraint_type", Type::Text),
                ]
            }
            ("information_schema", "views") => {
                for object in self.catalogue.objects() {
                    let Object::View(view) = object else { continue };
                    let (schema, own) = split(&view.name);
                    rows.push([text(&schema), text(&own), text(&view.query)].into());
                }
                &[("table_schema", Type::Text), ("table_name", Type::Text), ("view_definition", Type::Text)]
            }
            ("information_schema", "sequences") => {
                for object in self.catalogue.objects() {
                    let Object::Sequence(sequence) = object else { continue };
                    let (schema, own) = split(&sequence.name);
                    let numbers = [sequence.start, sequence.low, sequence.high, sequence.step];
                    let [start, low, high, step] = numbers.map(|n| Value::from(format!("{n}")));
                    let cycle = text(if sequence.cycle { "YES" } else { "NO" });
                    rows.push(
                        [
                            text("kimberlite"),
                            text(&schema),
                            text(&own),
                            text("bigint"),
                            start,
                            low,
                            high,
                            step,
                            cycle,
                        ]
                        .into(),
                    );
                }
                &[
                    ("sequence_catalog", Type::Text),
                    ("sequence_schema", Type::Text),
                    ("sequence_name", Type::Text),
                    ("data_type", Type::Text),
                    ("start_value", Type::Text),
                    ("minimum_value", Type::Text),
                    ("maximum_value", Type::Text),
                    ("increment", Type::Text),
                    ("cycle_option", Type::Text),
                ]
            }
            ("information_schema", "key_column_usage") => {
                for object in self.catalogue.objects() {
                    let Object::Table(table) = object else { continue };
                    let (schema, own) = split(&table.name);
                    let keys = table.primary_key.iter().map(|k| (bare(&k.name), k.columns.clone()));
                    let unique = table.indexes.iter().filter(|i| i.constraint);
                    let unique = unique
                        .map(|i| (bare(&i.name), i.columns.iter().map(|c| c.column).collect::<Vec<_>>()));
                    let foreign = table.foreign_keys.iter().map(|k| (k.name.clone(), k.columns.clone()));
                    for (name, columns) in keys.chain(unique).chain(foreign) {
                        for (at, id) in columns.iter().enumerate() {
                            let column = table.place(*id).map(|at| &table.columns[at].name);
                            let place = Value::Int(i64::try_from(at + 1).unwrap_or(i64::MAX));
                            rows.push(
                                [
                                    text(&schema),
                                    text(&name),
                                    text(&schema),
                                    text(&own),
                                    column.map_or(Value::Null, |name| text(name)),
                                    place,
                                ]
                                .into(),
                            );
                        }
                    }
                }
                &[
                    ("constraint_schema", Type::Text),
                    ("constraint_name", Type::Text),
                    ("table_schema", Type::Text),
                    ("table_name", Type::Text),
                    ("column_name", Type::Text),
                    ("ordinal_position", Type::Integer),
                ]
            }
            ("pg_catalog", "pg_views") => {
                for object in self.catalogue.objects() {
                    let Object::View(view) = object else { continue };
                    let (schema, own) = split(&view.name);
                    rows.push([text(&schema), text(&own), text(&view.query)].into());
                }
                &[("schemaname", Type::Text), ("viewname", Type::Text), ("definition", Type::Text)]
            }
            ("pg_catalog", "pg_sequences") => {
                for object in self.catalogue.objects() {
                    let Object::Sequence(sequence) = object else { continue };
                    let (schema, own) = split(&sequence.name);
                    let numbers = [sequence.start, sequence.low, sequence.high, sequence.step];
                    let [start, low, high, step] = numbers.map(Value::Int);
                    let last = sequence.last.map_or(Value::Null, Value::Int);
                    let cycle = Value::Bool(sequence.cycle);
                    rows.push([text(&schema), text(&own), start, low, high, step, cycle, last].into());
                    self.whole = true;
                }
                &[
                    ("schemaname", Type::Text),
                    ("sequencename", Type::Text),
                    ("start_value", Type::BigInt),
                    ("min_value", Type::BigInt),
                    ("max_value", Type::BigInt),
                    ("increment_by", Type::BigInt),
                    ("cycle", Type::Bool),
                    ("last_value", Type::BigInt),
                ]
            }
            ("pg_catalog", "pg_tables") => {
                for object in self.catalogue.objects() {
                    let Object::Table(table) = object else { continue };
                    let (schema, own) = split(&table.name);
                    rows.push([text(&schema), text(&own)].into());
                }
                &[("schemaname", Type::Text), ("tablename", Type::Text)]
            }
            ("pg_catalog", "pg_indexes") => {
                for object in self.catalogue.objects() {
                    let Object::Table(table) = object else { continue };
                    let (schema, own) = split(&table.name);
                    let key = table.primary_key.iter().map(|key| &key.name);
                    for name in key.chain(table.indexes.iter().map(|index| &index.name)) {
                        rows.push([text(&schema), text(&own), text(&bare(name))].into());
                    }
                }
                &[("schemaname", Type::Text), ("tablename", Type::Text), ("indexname", Type::Text)]
            }
            _ => return None,
        };
        let columns: Vec<(String, Type, Col)> =
            names.iter().map(|(name, kind)| ((*name).to_string(), kind.clone(), self.col())).collect();
        let rows = rows.into_iter().map(|row| row.into_iter().map(Expr::Const).collect()).collect();
        let cols = columns.iter().map(|c| c.2).collect();
        Some((Plan::Values(rows, cols), columns))
    }
}

/// A type as the information schema names it: without its length.
fn declared(kind: &Type) -> String {
    match kind {
        Type::Varchar(_) => "character varying".to_string(),
        Type::Char(_) => "character".to_string(),
        Type::Array(_) => "ARRAY".to_string(),
        other => other.base().name(),
    }
}
