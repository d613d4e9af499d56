//! MERGE, as the statements that its clauses are: UPDATE, DELETE and INSERT that read the same rows.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState};
use sqlparser::ast;

use crate::bind::unsupported;

/// A condition that holds where none of the earlier clauses of the kind applies.
fn none_of(earlier: &[String]) -> String {
    earlier.iter().map(|condition| format!(" AND ({condition}) IS NOT TRUE")).collect::<Vec<_>>().concat()
}

/// The statements of the clauses, in order. What an earlier clause of the same kind applies to is left out of a later one.
pub(super) fn statements(merge: &ast::Merge) -> Result<Vec<ast::Statement>, SqlError> {
    let ast::TableFactor::Table { name, .. } = &merge.table else { return Err(unsupported("this target")) };
    let (table, source, on) = (&merge.table, &merge.source, &merge.on);
    let (mut matched, mut unmatched) = (Vec::new(), Vec::new());
    let mut texts = Vec::new();
    for clause in &merge.clauses {
        let condition = clause.predicate.as_ref().map_or_else(|| "true".to_string(), ToString::to_string);
        let matches = match clause.clause_kind {
            ast::MergeClauseKind::Matched => true,
            ast::MergeClauseKind::NotMatched | ast::MergeClauseKind::NotMatchedByTarget => false,
            ast::MergeClauseKind::NotMatchedBySource => return Err(unsupported("NOT MATCHED BY SOURCE")),
        };
        let earlier = if matches { &mut matched } else { &mut unmatched };
        let rest = format!("({condition}){}", none_of(earlier));
        earlier.push(condition);
        match (&clause.action, matches) {
            (ast::MergeAction::DoNothing { .. }, _) => {}
            (ast::MergeAction::Update(update), true) => {
                texts.push(format!("UPDATE {table} {update} FROM {source} WHERE ({on}) AND {rest}"));
            }
            (ast::MergeAction::Delete { .. }, true) => {
                texts.push(format!("DELETE FROM {table} USING {source} WHERE ({on}) AND {rest}"));
            }
            (ast::MergeAction::Insert(insert), false) => {
                let ast::MergeInsertKind::Values(values) = &insert.kind else {
                    return Err(unsupported("this form of INSERT"));
                };
                let [row] = &values.rows[..] else {
                    return Err(SqlError::new(SqlState::SyntaxError, "INSERT of MERGE takes one row"));
                };
                let columns: Vec<String> = insert.columns.iter().map(ToString::to_string).collect();
                let columns =
                    if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
                let row: Vec<String> = row.content.iter().map(ToString::to_string).collect();
                texts.push(format!(
                    "INSERT INTO {name}{columns} SELECT {} FROM {source} WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {on}) AND {rest}",
                    row.join(", ")
                ));
            }
            _ => {
                return Err(SqlError::new(
                    SqlState::SyntaxError,
                    "MATCHED takes UPDATE, DELETE or DO NOTHING, and NOT MATCHED takes INSERT or DO NOTHING",
                ));
            }
        }
    }
    texts
        .iter()
        .map(|text| crate::parse::statements(text))
        .collect::<Result<Vec<_>, _>>()
        .map(|all| all.concat())
}
