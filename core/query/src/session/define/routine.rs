//! CREATE FUNCTION and DROP FUNCTION: functions in SQL that are one expression.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::{Object, Routine, SqlError, SqlState};
use sqlparser::ast;

use super::Definer;
use crate::bind::{Binder, Typed, folded, own_name, unsupported};
use crate::expr::Expr;

/// Names and types of arguments.
fn arguments(list: &[ast::OperateFunctionArg]) -> Result<Vec<(String, kimberlite_row::Type)>, SqlError> {
    list.iter()
        .map(|arg| {
            if arg.default_expr.is_some() || !matches!(arg.mode, None | Some(ast::ArgMode::In)) {
                return Err(unsupported("an argument with a default or a mode"));
            }
            let name = arg.name.as_ref().map(folded).unwrap_or_default();
            Ok((name, Binder::type_of(&arg.data_type)?.base()))
        })
        .collect()
}

/// A name with the types of arguments.
fn with_types(name: &str, arguments: &[(String, kimberlite_row::Type)]) -> String {
    let kinds: Vec<String> = arguments.iter().map(|(_, kind)| kind.name()).collect();
    format!("{name}({})", kinds.join(","))
}

/// The expression that a body is: what its one SELECT gives.
fn expression(body: &str) -> Result<String, SqlError> {
    let query = crate::parse::query(body)?;
    if let ast::SetExpr::Select(select) = &*query.body
        && select.from.is_empty()
        && select.selection.is_none()
        && query.with.is_none()
        && let [ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. }] =
            &select.projection[..]
    {
        return Ok(expr.to_string());
    }
    // Of the rows of a query, the first is what it gives.
    let one = if query.limit_clause.is_none() && query.fetch.is_none() { " LIMIT 1" } else { "" };
    Ok(format!("({query}{one})"))
}

impl Definer<'_> {
    /// CREATE FUNCTION.
    pub(in crate::session) fn create_function(
        &mut self,
        create: &ast::CreateFunction,
    ) -> Result<(), SqlError> {
        let language = create.language.as_ref().map(folded);
        if language.as_deref().is_some_and(|language| language != "sql") {
            return Err(unsupported("a language other than SQL"));
        }
        let text = |expr: &ast::Expr| match expr {
            ast::Expr::Value(value) => {
                value.value.clone().into_string().ok_or_else(|| unsupported("this body"))
            }
            _ => Err(unsupported("this body")),
        };
        let body = match &create.function_body {
            Some(
                ast::CreateFunctionBody::AsBeforeOptions { body, .. }
                | ast::CreateFunctionBody::AsAfterOptions(body),
            ) => expression(&text(body)?)?,
            Some(ast::CreateFunctionBody::Return(expr)) => expr.to_string(),
            _ => return Err(unsupported("this body of a function")),
        };
        let Some(ast::FunctionReturnType::DataType(gives)) = &create.return_type else {
            return Err(unsupported("a function that gives no value, or rows"));
        };
        let gives = Binder::type_of(gives)?.base();
        let arguments = arguments(create.args.as_deref().unwrap_or(&[]))?;
        let name = with_types(&self.new_name(&create.name)?, &arguments);
        let (id, version) = match self.catalogue.named(&name) {
            Some(Object::Function(old)) if create.or_replace && old.gives == gives => {
                (old.id, old.version + 1)
            }
            Some(_) => {
                return Err(SqlError::new(
                    SqlState::DuplicateFunction,
                    format!("function {name} already exists with the same argument types"),
                ));
            }
            None => (self.catalogue.take_id(), 1),
        };
        let strict = matches!(
            create.called_on_null,
            Some(ast::FunctionCalledOnNull::Strict | ast::FunctionCalledOnNull::ReturnsNullOnNullInput)
        );
        let function = Routine { id, name, version, arguments, gives, strict, body };
        // Bound once, so that what is wrong with it is said now.
        let mut binder = Binder::new(&self.catalogue, "", self.now);
        let given = function
            .arguments
            .iter()
            .map(|(name, kind)| (name.clone(), Typed { expr: Expr::NULL, kind: kind.clone() }))
            .collect();
        binder.body(&function, given)?;
        self.put(Object::Function(Arc::new(function)));
        Ok(())
    }

    /// DROP FUNCTION.
    pub(in crate::session) fn drop_function(&mut self, drop: &ast::DropFunction) -> Result<(), SqlError> {
        let cascade = matches!(drop.drop_behavior, Some(ast::DropBehavior::Cascade));
        for described in &drop.func_desc {
            let name = own_name(&described.name)?;
            let prefix = match &described.args {
                Some(list) => with_types(&name, &arguments(list)?),
                None => format!("{name}("),
            };
            let found: Vec<Object> = self
                .catalogue
                .beginning(&prefix)
                .filter(|object| matches!(object, Object::Function(_)))
                .cloned()
                .collect();
            match &found[..] {
                [function] => self.drop_one(function, cascade)?,
                [] if drop.if_exists => {
                    self.notices.push(format!("function {name} does not exist, skipping"));
                }
                [] => {
                    return Err(SqlError::new(
                        SqlState::UndefinedFunction,
                        format!("function {} does not exist", prefix.trim_end_matches('(')),
                    ));
                }
                _ => {
                    return Err(SqlError::new(
                        SqlState::AmbiguousFunction,
                        format!("function name \"{name}\" is not unique"),
                    )
                    .hint("Name the types of its arguments, too."));
                }
            }
        }
        Ok(())
    }
}
