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

use crate::dialect::{Kimberlite, known_forms};
use crate::limits::{CHAIN_MAX, NESTING_MAX, STATEMENT_BYTES_MAX, TOKENS_MAX};

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

/// How deep a text nests at most: parentheses, CASE, and runs of signs and NOT.
fn nesting(tokens: &[TokenWithSpan]) -> usize {
    let (mut depth, mut run, mut deepest) = (0_usize, 0_usize, 0_usize);
    for token in tokens {
        let keyword = if let Token::Word(word) = &token.token { word.keyword } else { Keyword::NoKeyword };
        match (&token.token, keyword) {
            (Token::Whitespace(_), _) => continue,
            (Token::LParen | Token::LBracket, _) | (_, Keyword::CASE) => (depth, run) = (depth + 1, 0),
            (Token::RParen | Token::RBracket, _) | (_, Keyword::END) => {
                (depth, run) = (depth.saturating_sub(1), 0);
            }
            (Token::Plus | Token::Minus | Token::Tilde, _) | (_, Keyword::NOT) => run += 1,
            _ => run = 0,
        }
        deepest = deepest.max(depth + run);
    }
    deepest
}

/// How many tokens a text has at least: what stands between quotes or in comments, and a word, are one each.
fn tokens_at_least(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        count += 1;
        let rest = &bytes[at..];
        at += match rest[0] {
            quote @ (b'\'' | b'"') => {
                rest[1..].iter().position(|b| *b == quote).map_or(rest.len(), |end| end + 2)
            }
            b'-' if rest.starts_with(b"--") => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => {
                rest[2..].windows(2).position(|end| end == b"*/").map_or(rest.len(), |end| end + 4)
            }
            // What a dollar quotes is not looked into.
            b'$' if !rest.get(1).is_some_and(u8::is_ascii_digit) => return count,
            b if is_word(b) => rest.iter().position(|b| !is_word(*b)).unwrap_or(rest.len()),
            _ => 1,
        };
    }
    count
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
    if tokens_at_least(text) > TOKENS_MAX {
        return Err(SqlError::new(
            SqlState::ProgramLimitExceeded,
            format!("a statement has at most {TOKENS_MAX} words, signs and spaces"),
        )
        .hint("Send it in parts, or send its values as parameters."));
    }
    let dialect = Kimberlite(PostgreSqlDialect {});
    let tokens = Tokenizer::new(&dialect, text)
        .tokenize_with_location()
        .map_err(|error| refusal(ParserError::from(error), text))?;
    check_chains(&tokens)?;
    let deep = nesting(&tokens) > NESTING_MAX;
    Parser::new(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(known_forms(tokens))
        .parse_statements()
        .map_err(|error| match error {
            // The parser tries more than one reading, and may give the last one's complaint.
            ParserError::ParserError(_) if deep => refusal(ParserError::RecursionLimitExceeded, text),
            error => refusal(error, text),
        })
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
    let dialect = Kimberlite(PostgreSqlDialect {});
    Parser::new(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|error| refusal(error, &String::from(text)))
}
