//! The short forms of time travel, and histories.

use alloc::vec::Vec;

use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::forms::word;

/// The name of the query in WITH that says which time the whole query is asked of.
pub(crate) const AS_OF_TIME: &str = "as of timestamp";

/// The same, for a position.
pub(crate) const AS_OF_POSITION: &str = "at position";

/// Whether a time for a whole statement begins there: the name of its kind, its value, and the tokens it takes.
fn as_of(tokens: &[TokenWithSpan], at: usize) -> Option<(&'static str, &TokenWithSpan, usize)> {
    let here = |ahead: usize| tokens.get(at + ahead);
    if word(here(0), "as") && word(here(1), "of") && word(here(2), "timestamp") {
        let value = here(3).filter(|t| matches!(t.token, Token::SingleQuotedString(_)))?;
        return Some((AS_OF_TIME, value, 4));
    }
    if word(here(0), "at") && (word(here(1), "position") || word(here(1), "offset")) {
        let value = here(2).filter(|t| matches!(t.token, Token::Number(..)))?;
        return Some((AS_OF_POSITION, value, 3));
    }
    None
}

/// Takes `AS OF TIMESTAMP '…'` or `AT POSITION n` off the beginning or the end of a statement, where it speaks for all of
/// it, and puts it into WITH.
pub(super) fn whole_travel(tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
    let end = tokens.iter().position(|t| matches!(t.token, Token::SemiColon)).unwrap_or(tokens.len());
    let mut explained = 0;
    if word(tokens.first(), "explain") {
        explained = 1 + usize::from(word(tokens.get(1), "analyze"));
    }
    let behind = [3, 4].into_iter().filter_map(|back| end.checked_sub(back)).find(|at| {
        let long = *at > 0 && word(tokens.get(at - 1), "system_time");
        !long && as_of(tokens, *at).is_some_and(|(.., count)| at + count == end)
    });
    let at = if as_of(tokens, explained).is_some() { explained } else { behind? };
    if at >= 2 && word(tokens.get(at - 1), "of") && word(tokens.get(at - 2), "as") {
        return None;
    }
    let (name, value, count) = as_of(tokens, at)?;
    let mut rest = tokens[..at].to_vec();
    rest.extend_from_slice(&tokens[at + count..]);
    let mut depth = 0_usize;
    let start = rest.iter().enumerate().position(|(at, token)| {
        let query = |t| ["select", "with", "values", "table"].iter().any(|w| word(t, w));
        let created = at > 0 && word(rest.first(), "create") && word(rest.get(at), "table");
        let found = depth == 0
            && !created
            && (query(rest.get(at)) || token.token == Token::LParen && query(rest.get(at + 1)));
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        found
    })?;
    let put = |token: Token| TokenWithSpan::new(token, value.span);
    let mut with = Vec::from([
        put(Token::make_word(name, Some('"'))),
        put(Token::make_keyword("AS")),
        put(Token::LParen),
        put(Token::make_keyword("SELECT")),
        value.clone(),
        put(Token::RParen),
    ]);
    if word(rest.get(start), "with") {
        let recursive = usize::from(word(rest.get(start + 1), "recursive"));
        with.push(put(Token::Comma));
        rest.splice(start + 1 + recursive..start + 1 + recursive, with);
    } else {
        with.insert(0, put(Token::make_keyword("WITH")));
        let table = word(rest.get(start), "table");
        if table {
            with.extend([
                put(Token::make_keyword("SELECT")),
                put(Token::Mul),
                put(Token::make_keyword("FROM")),
            ]);
        }
        rest.splice(start..start + usize::from(table), with);
    }
    Some(rest)
}

/// What may follow a column that is called `offset`, as that of a stream is, and never the clause.
const BEHIND_OFFSET: [&str; 25] = [
    "and",
    "as",
    "asc",
    "between",
    "desc",
    "else",
    "end",
    "fetch",
    "from",
    "group",
    "having",
    "ilike",
    "in",
    "intersect",
    "is",
    "like",
    "limit",
    "not",
    "nulls",
    "offset",
    "or",
    "order",
    "then",
    "union",
    "where",
];

/// Quotes `offset` where it is a column: the clause is followed by a value.
pub(super) fn offsets(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    for at in 0..tokens.len() {
        let next = tokens.get(at + 1);
        let ends = match next.map(|t| &t.token) {
            None
            | Some(
                Token::Comma
                | Token::RParen
                | Token::SemiColon
                | Token::Eq
                | Token::Neq
                | Token::Lt
                | Token::Gt
                | Token::LtEq
                | Token::GtEq
                | Token::Mod
                | Token::Mul
                | Token::Div
                | Token::DoubleColon,
            ) => true,
            Some(Token::Word(_)) => BEHIND_OFFSET.iter().any(|text| word(next, text)),
            _ => false,
        };
        if ends && word(tokens.get(at), "offset") {
            tokens[at].token = Token::make_word("offset", Some('"'));
        }
    }
    tokens
}

/// The schema in which the histories of tables stand, for the parser: `HISTORY OF t` is `"history of".t`.
pub(crate) const HISTORY_OF: &str = "history of";

/// Brings `HISTORY OF t` in FROM into a qualified name. What is written to has no history in its place.
pub(super) fn history(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let changes = ["drop", "truncate", "alter", "comment", "grant", "revoke"];
    let reads = !changes.iter().any(|change| word(tokens.first(), change));
    let mut at = 0;
    while at < tokens.len() {
        let named = matches!(tokens.get(at + 2).map(|t| &t.token), Some(Token::Word(_)));
        let last = out.last();
        let before = ["from", "join", "using", "table"].iter().any(|before| word(last, before))
            || matches!(last.map(|t| &t.token), Some(Token::Comma | Token::LParen));
        let deleted = word(last, "from") && out.len() >= 2 && word(out.get(out.len() - 2), "delete");
        if reads
            && before
            && !deleted
            && named
            && word(tokens.get(at), "history")
            && word(tokens.get(at + 1), "of")
        {
            let put = |token: Token| TokenWithSpan::new(token, tokens[at].span);
            out.extend([put(Token::make_word(HISTORY_OF, Some('"'))), put(Token::Period)]);
            at += 2;
            continue;
        }
        out.push(tokens[at].clone());
        at += 1;
    }
    out
}

/// Brings the short forms of time travel into the long one: `AS OF TIMESTAMP '…'` to `FOR SYSTEM_TIME AS OF …`,
/// `[FOR SYSTEM_TIME AS OF] AT POSITION n` (or `AT OFFSET n`) to `VERSION AS OF n`.
pub(super) fn travel(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let here = |ahead: usize| tokens.get(at + ahead);
        let span = tokens[at].span;
        let put = |out: &mut Vec<TokenWithSpan>, text: &str| {
            out.push(TokenWithSpan::new(Token::make_keyword(text), span));
        };
        let place = word(here(1), "position") || word(here(1), "offset");
        let number = matches!(here(2).map(|t| &t.token), Some(Token::Number(..)));
        if word(here(0), "at") && place && number {
            let long = out.len() >= 4 && word(out.get(out.len() - 4), "for") && word(out.last(), "of");
            if long {
                out.truncate(out.len() - 4);
            }
            for word in ["VERSION", "AS", "OF"] {
                put(&mut out, word);
            }
            at += 2;
            continue;
        }
        let after = out.last();
        let named = word(after, "system_time") || word(after, "timestamp") || word(after, "version");
        if word(here(0), "as") && word(here(1), "of") && word(here(2), "timestamp") && !named {
            for word in ["FOR", "SYSTEM_TIME"] {
                put(&mut out, word);
            }
        }
        out.push(tokens[at].clone());
        at += 1;
    }
    out
}
