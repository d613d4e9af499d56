//! Statements about the session and its transaction: they read no rows.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::check::Stop;
use kimberlite_row::fact::Rows;
use kimberlite_row::{Catalogue, SqlError, SqlState, Type, Value};
use sqlparser::ast;

use super::{Answer, Running, Session, Step, in_transaction_only};
use crate::bind::{Binder, Output, PUBLIC, folded, last_part, parts, unsupported};

impl Session {
    /// Statements about the session and its transaction.
    #[allow(clippy::too_many_lines, reason = "one arm per kind of statement")]
    pub(super) fn control(
        &mut self,
        running: &mut Running,
        statement: &ast::Statement,
        text: &Arc<str>,
    ) -> Result<Option<Step>, Stop> {
        use ast::Statement as S;
        Ok(Some(match statement {
            S::StartTransaction { modes, .. } => {
                let read_only = modes.iter().any(|m| {
                    matches!(m, ast::TransactionMode::AccessMode(ast::TransactionAccessMode::ReadOnly))
                });
                let transaction = self.transaction()?;
                let step = Self::done(running, "BEGIN");
                if transaction.explicit {
                    if let Some(answer) = &mut running.answer {
                        answer.notices.push("there is already a transaction in progress".to_string());
                    }
                } else {
                    transaction.explicit = true;
                    transaction.read_only = read_only;
                }
                step
            }
            S::Commit { .. } => {
                running.queue.pop_front();
                let transaction = self.transaction.take();
                let mut answer = Answer { tag: "COMMIT".to_string(), ..Answer::default() };
                let Some(transaction) = transaction.filter(|t| t.explicit) else {
                    answer.notices.push("there is no transaction in progress".to_string());
                    return Ok(Some(Step::Done(answer)));
                };
                if transaction.failed {
                    answer.tag = "ROLLBACK".to_string();
                    return Ok(Some(Step::Done(answer)));
                }
                if transaction.overlay.is_empty() {
                    return Ok(Some(Step::Done(answer)));
                }
                return Ok(Some(Step::Commit(transaction.overlay.facts(), answer)));
            }
            S::Rollback { savepoint: Some(name), .. } => {
                let name = folded(name);
                let transaction = self.transaction()?;
                if !transaction.explicit {
                    return Err(in_transaction_only().into());
                }
                let Some(at) = transaction.savepoints.iter().rposition(|(known, _)| *known == name) else {
                    return Err(no_savepoint(&name).into());
                };
                transaction.savepoints.truncate(at + 1);
                let before = transaction.savepoints[at].1.clone();
                transaction.overlay.restore(before);
                transaction.failed = false;
                Self::done(running, "ROLLBACK")
            }
            S::Rollback { .. } => {
                running.queue.pop_front();
                self.transaction = None;
                return Ok(Some(Step::Done(Answer { tag: "ROLLBACK".to_string(), ..Answer::default() })));
            }
            S::Savepoint { name } => {
                let transaction = self.transaction()?;
                if !transaction.explicit {
                    return Err(in_transaction_only().into());
                }
                if transaction.failed {
                    return Ok(None);
                }
                transaction.savepoints.push((folded(name), transaction.overlay.clone()));
                Self::done(running, "SAVEPOINT")
            }
            S::ReleaseSavepoint { name } => {
                let name = folded(name);
                let transaction = self.transaction()?;
                let Some(at) = transaction.savepoints.iter().rposition(|(known, _)| *known == name) else {
                    return Err(no_savepoint(&name).into());
                };
                transaction.savepoints.truncate(at);
                Self::done(running, "RELEASE")
            }
            S::Set(set) => {
                if let ast::Set::SingleAssignment { variable, values, .. } = set {
                    let value: Vec<String> =
                        values.iter().map(|v| v.to_string().trim_matches('\'').to_string()).collect();
                    let (name, value) = (parts(variable).join("."), value.join(", "));
                    if name == STATEMENT_TIMEOUT && milliseconds(&value).is_none() {
                        return Err(SqlError::new(
                            SqlState::InvalidParameterValue,
                            format!("invalid value for parameter \"{name}\": \"{value}\""),
                        )
                        .hint("Give milliseconds, or a number with ms, s, min, h or d; 0 turns it off.")
                        .into());
                    }
                    let names: Vec<&str> =
                        value.split(',').map(|name| name.trim().trim_matches(['"', '\''])).collect();
                    let known =
                        [PUBLIC, "$user", "pg_catalog", "information_schema", "default", "DEFAULT", ""];
                    if name == "search_path" && names.iter().any(|name| !known.contains(name)) {
                        return Err(unsupported("a search_path of other schemas than public").into());
                    }
                    self.settings.insert(name, value);
                }
                Self::done(running, "SET")
            }
            S::CreateSchema { schema_name, if_not_exists, .. } => {
                let name = match schema_name {
                    ast::SchemaName::Simple(name) => parts(name).pop().unwrap_or_default(),
                    _ => return Err(unsupported("a schema that belongs to a role").into()),
                };
                if name != PUBLIC {
                    return Ok(None);
                }
                let exists = format!("schema \"{name}\" already exists");
                if !if_not_exists {
                    return Err(SqlError::new(SqlState::DuplicateSchema, exists).into());
                }
                Self::noticed(running, "CREATE SCHEMA", format!("{exists}, skipping"))
            }
            S::Drop { object_type: ast::ObjectType::Schema, names, .. }
                if names.iter().any(|name| last_part(name) == PUBLIC) =>
            {
                return Err(unsupported("DROP of the schema public")
                    .hint("Drop its tables one by one.")
                    .into());
            }
            S::Grant(_) | S::Revoke(_) => {
                return Err(unsupported("GRANT and REVOKE")
                    .hint("There are no roles: who is let in to a tenant may do everything in it.")
                    .into());
            }
            S::Reset(_) => {
                self.settings.clear();
                Self::done(running, "RESET")
            }
            S::ShowVariable { variable } => {
                let name = variable.iter().map(folded).collect::<Vec<_>>().join("_");
                let own = self.settings.get(&name).or_else(|| self.settings.get(&name.replacen('_', ".", 1)));
                let value = match (name.as_str(), own) {
                    (_, Some(value)) => value.clone(),
                    ("server_version_num", _) => "150000".to_string(),
                    ("server_version", _) => "15.0".to_string(),
                    ("server_encoding" | "client_encoding", _) => "UTF8".to_string(),
                    ("transaction_isolation" | "transaction_isolation_level", _) => {
                        "serializable".to_string()
                    }
                    ("timezone" | "time_zone", _) => "UTC".to_string(),
                    ("datestyle", _) => "ISO, MDY".to_string(),
                    ("search_path", _) => "\"$user\", public".to_string(),
                    _ => {
                        return Err(SqlError::new(
                            SqlState::UndefinedObject,
                            format!("unrecognized configuration parameter \"{name}\""),
                        )
                        .into());
                    }
                };
                let step = Self::done(running, "SHOW");
                if let Some(answer) = &mut running.answer {
                    answer.columns = [Output { name, kind: Type::Text }].into();
                    answer.rows = [[Value::from(value)].into()].into();
                }
                step
            }
            S::Prepare { name, statement, .. } => {
                if self
                    .prepared
                    .insert(folded(name), (Arc::new((**statement).clone()), text.clone()))
                    .is_some()
                {
                    return Err(SqlError::new(
                        SqlState::DuplicatePreparedStatement,
                        format!("prepared statement \"{}\" already exists", folded(name)),
                    )
                    .into());
                }
                Self::done(running, "PREPARE")
            }
            S::Execute { name: Some(name), parameters, .. } => {
                let name = last_part(name);
                let Some((statement, text)) = self.prepared.get(&name).cloned() else {
                    return Err(SqlError::new(
                        SqlState::InvalidStatementName,
                        format!("prepared statement \"{name}\" does not exist"),
                    )
                    .into());
                };
                let catalogue = Catalogue::default();
                let mut params = Vec::new();
                for parameter in parameters {
                    let mut binder = Binder::new(&catalogue, "", running.now);
                    let typed = binder.expr(parameter)?;
                    let mut shared = self.shared(running, running.now, BTreeMap::new());
                    let mut scope = crate::eval::Scope { outer: &[], slots: &[], shared: &mut shared };
                    let value = typed.expr.eval(&[], &mut scope)?;
                    // As text, so that it takes the type that the statement needs.
                    params.push(
                        kimberlite_row::text::output(&value, &typed.kind).map_or(Value::Null, Value::from),
                    );
                }
                running.params = params;
                running.queue.pop_front();
                running.queue.push_front((statement, text));
                running.direct = false;
                Step::More
            }
            S::Deallocate { name, .. } => {
                if folded(name) == "all" {
                    self.prepared.clear();
                } else if self.prepared.remove(&folded(name)).is_none() {
                    return Err(SqlError::new(
                        SqlState::InvalidStatementName,
                        format!("prepared statement \"{}\" does not exist", folded(name)),
                    )
                    .into());
                }
                Self::done(running, "DEALLOCATE")
            }
            S::Vacuum(_) | S::Analyze(_) => Self::done(running, "VACUUM"),
            _ => return Ok(None),
        }))
    }

    /// A statement that does nothing, and says so.
    fn noticed(running: &mut Running, tag: &str, notice: String) -> Step {
        let step = Self::done(running, tag);
        if let Some(answer) = &mut running.answer {
            answer.notices.push(notice);
        }
        step
    }

    /// REINDEX, which the parser does not know: only the name is looked at.
    pub fn reindex(&self, name: &str, rows: &dyn Rows) -> Result<(), Stop> {
        let catalogue = rows.catalogue(rows.last())?;
        if catalogue.taken(name) {
            return Ok(());
        }
        Err(SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist")).into())
    }
}

/// The setting that says how long a statement may take.
pub const STATEMENT_TIMEOUT: &str = "statement_timeout";

/// A span of time as a setting has it: milliseconds, or a number with a unit.
pub fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let each = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "default" | "DEFAULT" if number.is_empty() => return Some(0),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(each)
}

fn no_savepoint(name: &str) -> SqlError {
    SqlError::new(SqlState::InvalidSavepoint, format!("savepoint \"{name}\" does not exist"))
}

/// The name that a REINDEX statement names; the parser does not know it.
pub fn reindex_target(text: &str) -> Option<String> {
    let mut words = text.trim().trim_end_matches(';').split_whitespace();
    if !words.next()?.eq_ignore_ascii_case("reindex") {
        return None;
    }
    words.next_back().map(str::to_lowercase)
}
