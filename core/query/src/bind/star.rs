//! `*` written out, for a query that is kept as text.

use alloc::vec::Vec;

use kimberlite_row::SqlError;
use sqlparser::ast;

use super::{Binder, Visible, last_part};

impl Binder<'_> {
    /// A query with the columns that its `*` means now: what it shows stays, whatever columns its tables get.
    pub fn written_out(&mut self, query: &ast::Query) -> Result<ast::Query, SqlError> {
        let mut body = (*query.body).clone();
        self.travelled(query, |binder, with| binder.with(with, |binder| binder.write_out(&mut body)))?;
        let mut query = query.clone();
        *query.body = body;
        Ok(query)
    }

    fn write_out(&mut self, body: &mut ast::SetExpr) -> Result<(), SqlError> {
        match body {
            ast::SetExpr::Select(select) => {
                let star = |item: &ast::SelectItem| {
                    matches!(item, ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..))
                };
                if !select.projection.iter().any(star) {
                    return Ok(());
                }
                let (_, columns) = self.from_list(&select.from)?;
                let mut list = Vec::new();
                for item in core::mem::take(&mut select.projection) {
                    match &item {
                        ast::SelectItem::Wildcard(_) => {
                            list.extend(columns.iter().filter(|column| !column.merged).map(named));
                        }
                        ast::SelectItem::QualifiedWildcard(
                            ast::SelectItemQualifiedWildcardKind::ObjectName(name),
                            _,
                        ) => {
                            let table = Some(last_part(name));
                            list.extend(columns.iter().filter(|column| column.table == table).map(named));
                        }
                        _ => list.push(item),
                    }
                }
                select.projection = list;
                Ok(())
            }
            ast::SetExpr::Query(query) => {
                **query = self.written_out(query)?;
                Ok(())
            }
            ast::SetExpr::SetOperation { left, right, .. } => {
                self.write_out(left)?;
                self.write_out(right)
            }
            _ => Ok(()),
        }
    }
}

/// A column by its names.
fn named(column: &Visible) -> ast::SelectItem {
    let ident = |name: &str| ast::Ident::with_quote('"', name);
    ast::SelectItem::UnnamedExpr(match &column.table {
        Some(table) => ast::Expr::CompoundIdentifier([ident(table), ident(&column.name)].into()),
        None => ast::Expr::Identifier(ident(&column.name)),
    })
}
