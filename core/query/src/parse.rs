//! Text to statements: `sqlparser` with PostgreSQL's dialect, limits before and positions behind.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{SqlError, SqlState};
use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::dialect::{Kimberlite, travel};
use crate::limits::{CHAIN_MAX, NESTING_MAX, STATEMENT_BYTES_MAX};

fn refusal(error: ParserError, text: &str) -> SqlError {
    match error {
        ParserError::RecursionLimitExceeded => SqlError::new(
            SqlState::StatementTooComplex,
            format!("expressions nest deeper than {NESTING_MAX}"),
        ),
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (what, place) = match message.rsplit_once(" at Line: ") {
                Some((what, place)) => (what.to_string(), place.split_once(", Column: ")),
                None => (message.clone(), None),
            };
            let position = place.and_then(|(line, column)| {
                let location = sqlparser::tokenizer::Location::new(line.parse().ok()?, column.parse().ok()?);
                crate::bind::position(text, location)
            });
            SqlError::new(SqlState::SyntaxError, format!("syntax error: {what}")).at(position)
        }
    }
}

/// Refuses chains of operators that are longer than the limit: the parser builds them without counting nesting.
fn check_chains(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut open: Vec<usize> = Vec::new();
    let mut chain = 0;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => {
                open.push(chain);
                chain = 0;
            }
            Token::RParen | Token::RBracket => chain = open.pop().unwrap_or(0) + 1,
            Token::Comma | Token::SemiColon => chain = 0,
            Token::Word(word) => {
                chain += usize::from(matches!(
                    word.keyword,
                    Keyword::AND
                        | Keyword::OR
                        | Keyword::IS
                        | Keyword::UNION
                        | Keyword::INTERSECT
                        | Keyword::EXCEPT
                        | Keyword::LIKE
                        | Keyword::ILIKE
                        | Keyword::IN
                        | Keyword::BETWEEN
                        | Keyword::COLLATE
                ));
            }
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::Whitespace(_) => {}
            _ => chain += 1,
        }
        if chain > CHAIN_MAX {
            let message = format!("more than {CHAIN_MAX} operators in one chain");
            return Err(SqlError::new(SqlState::StatementTooComplex, message)
                .hint("Use IN (…) or = ANY (ARRAY[…]) instead of many ORs."));
        }
    }
    Ok(())
}

/// All statements of a text.
pub fn statements(text: &str) -> Result<Vec<ast::Statement>, SqlError> {
    if text.len() > STATEMENT_BYTES_MAX {
        return Err(SqlError::new(
            SqlState::ProgramLimitExceeded,
            format!("a statement has at most {STATEMENT_BYTES_MAX} bytes"),
        ));
    }
    let dialect = Kimberlite(PostgreSqlDialect {});
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| refusal(ParserError::from(error), text))?;
    check_chains(&tokens)?;
    Parser::new(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(travel(tokens))
        .parse_statements()
        .map_err(|error| refusal(error, text))
}

/// A query that was kept as text.
pub fn query(text: &str) -> Result<Box<ast::Query>, SqlError> {
    match statements(text)?.pop() {
        Some(ast::Statement::Query(query)) => Ok(query),
        _ => Err(SqlError::new(SqlState::SyntaxError, "a query was expected")),
    }
}

/// An expression that was kept as text.
pub fn expression(text: &str) -> Result<ast::Expr, SqlError> {
    let dialect = PostgreSqlDialect {};
    Parser::new(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|error| refusal(error, &String::from(text)))
}
