//! Functions that are expressions over their arguments: a call becomes the expression.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kimberlite_row::cast::Willing;
use kimberlite_row::{Object, Routine, SqlError};
use sqlparser::ast;

use super::{Binder, Typed, own_name, unsupported};
use crate::expr::Expr;

impl Binder<'_> {
    /// The call of a function that was made with CREATE FUNCTION, if there is one that takes these arguments.
    pub(super) fn routine(
        &mut self,
        name: &ast::ObjectName,
        args: &[Typed],
    ) -> Result<Option<Typed>, SqlError> {
        let Ok(mut prefix) = own_name(name) else { return Ok(None) };
        prefix.push('(');
        let mut best: Option<(u32, Arc<Routine>)> = None;
        for object in self.catalogue.beginning(&prefix) {
            let Object::Function(function) = object else { continue };
            if function.arguments.len() != args.len() {
                continue;
            }
            let costs = function.arguments.iter().zip(args).map(|((_, to), arg)| Self::fit(&arg.kind, to));
            let cost = costs.sum::<Option<u32>>();
            if let Some(cost) = cost
                && best.as_ref().is_none_or(|(least, _)| cost < *least)
            {
                best = Some((cost, function.clone()));
            }
        }
        let Some((_, function)) = best else { return Ok(None) };
        self.reads.push(function.id);
        let mut given = Vec::new();
        for ((name, kind), arg) in function.arguments.iter().zip(args) {
            let expr = self.coerce(arg.clone(), kind, Willing::Implicit)?;
            if expr.is_volatile() {
                return Err(unsupported("an argument of an SQL function that is another each time"));
            }
            given.push((name.clone(), Typed { expr, kind: kind.clone() }));
        }
        let nulls = given.iter().map(|(_, arg)| Expr::IsNull(Box::new(arg.expr.clone()))).collect::<Vec<_>>();
        let body = self.body(&function, given)?;
        let expr = if function.strict && !nulls.is_empty() {
            Expr::Case([(Expr::Or(nulls), Expr::NULL)].into(), Box::new(body))
        } else {
            body
        };
        Ok(Some(Typed { expr, kind: function.gives.clone() }))
    }

    /// The expression of a function over what its arguments stand for.
    pub fn body(&mut self, function: &Routine, given: Vec<(String, Typed)>) -> Result<Expr, SqlError> {
        let parsed = crate::parse::expression(&function.body)?;
        // It sees its arguments and nothing of the query that calls it.
        let saved = (
            core::mem::take(&mut self.scopes),
            core::mem::take(&mut self.ctes),
            core::mem::replace(&mut self.arguments, given),
        );
        let bound = self.within(Self::scope_of(Vec::new()), |binder| binder.expr(&parsed));
        (self.scopes, self.ctes, self.arguments) = saved;
        self.coerce(bound?.0, &function.gives, Willing::Assignment)
    }

    /// What an argument stands for, by its number.
    pub(super) fn argument(&self, at: usize) -> Option<Typed> {
        self.arguments.get(at).map(|(_, typed)| typed.clone())
    }

    /// What an argument stands for, by its name.
    pub(super) fn argument_named(&self, name: &str) -> Option<Typed> {
        self.arguments.iter().find(|(known, _)| known == name).map(|(_, typed)| typed.clone())
    }
}
