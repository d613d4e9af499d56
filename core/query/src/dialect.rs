//! PostgreSQL's dialect, and what it lacks: `FOR SYSTEM_TIME AS OF` and `HISTORY OF`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::any::TypeId;

use sqlparser::ast;
use sqlparser::dialect::{BindPlaceholderStyle, Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use crate::plan::Exclude;

/// PostgreSQL with versions of tables.
#[derive(Debug)]
pub(crate) struct Kimberlite(pub PostgreSqlDialect);

impl Dialect for Kimberlite {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }
    fn supports_table_versioning(&self) -> bool {
        true
    }
    /// What is a literal is read as one: the parser would first try to read a type, and write a complaint each time.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<ast::Expr, ParserError>> {
        match parser.peek_token_ref().token {
            Token::Number(..) | Token::SingleQuotedString(_) => {
                Some(parser.parse_value().map(ast::Expr::Value))
            }
            _ => None,
        }
    }
    fn supports_cte_materialization(&self) -> bool {
        self.0.supports_cte_materialization()
    }
    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.0.identifier_quote_style(identifier)
    }
    fn ordered_bind_placeholder_style(&self) -> Option<BindPlaceholderStyle> {
        self.0.ordered_bind_placeholder_style()
    }
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }
    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }
    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }
    fn supports_unicode_string_literal(&self) -> bool {
        self.0.supports_unicode_string_literal()
    }
    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        self.0.is_reserved_for_identifier(kw)
    }
    fn is_table_alias(&self, kw: &Keyword, parser: &mut Parser) -> bool {
        self.0.is_table_alias(kw, parser)
    }
    fn supports_string_literal_column_alias(&self, explicit: bool) -> bool {
        self.0.supports_string_literal_column_alias(explicit)
    }
    fn supports_string_literal_table_alias(&self, explicit: bool) -> bool {
        self.0.supports_string_literal_table_alias(explicit)
    }
    fn is_custom_operator_part(&self, ch: char) -> bool {
        self.0.is_custom_operator_part(ch)
    }
    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        if word(Some(parser.peek_token_ref()), "isnull") {
            return Some(Ok(self.0.prec_value(Precedence::Is)));
        }
        self.0.get_next_precedence(parser)
    }
    fn parse_infix(
        &self,
        parser: &mut Parser,
        expr: &ast::Expr,
        _precedence: u8,
    ) -> Option<Result<ast::Expr, ParserError>> {
        if word(Some(parser.peek_token_ref()), "isnull") {
            parser.next_token();
            return Some(Ok(ast::Expr::IsNull(Box::new(expr.clone()))));
        }
        let negated = usize::from(word(Some(parser.peek_token_ref()), "not"));
        let [first, second] = [negated, negated + 1].map(|at| parser.peek_nth_token(at));
        (word(Some(&first), "between") && word(Some(&second), "symmetric")).then(|| {
            for _ in 0..negated + 2 {
                parser.next_token();
            }
            symmetric(parser, expr, negated == 1)
        })
    }
    fn supports_filter_during_aggregation(&self) -> bool {
        self.0.supports_filter_during_aggregation()
    }
    fn supports_group_by_expr(&self) -> bool {
        self.0.supports_group_by_expr()
    }
    fn supports_drop_group(&self) -> bool {
        self.0.supports_drop_group()
    }
    fn supports_alter_user_as_alter_role(&self) -> bool {
        self.0.supports_alter_user_as_alter_role()
    }
    fn supports_create_group(&self) -> bool {
        self.0.supports_create_group()
    }
    fn supports_create_role_if_not_exists(&self) -> bool {
        self.0.supports_create_role_if_not_exists()
    }
    fn prec_value(&self, prec: Precedence) -> u8 {
        self.0.prec_value(prec)
    }
    fn allow_extract_custom(&self) -> bool {
        self.0.allow_extract_custom()
    }
    fn allow_extract_single_quotes(&self) -> bool {
        self.0.allow_extract_single_quotes()
    }
    fn supports_create_index_with_clause(&self) -> bool {
        self.0.supports_create_index_with_clause()
    }
    fn supports_sql_option_without_value(&self) -> bool {
        self.0.supports_sql_option_without_value()
    }
    fn supports_explain_with_utility_options(&self) -> bool {
        self.0.supports_explain_with_utility_options()
    }
    fn supports_listen_notify(&self) -> bool {
        self.0.supports_listen_notify()
    }
    fn supports_exclude_constraint(&self) -> bool {
        self.0.supports_exclude_constraint()
    }
    fn supports_factorial_operator(&self) -> bool {
        self.0.supports_factorial_operator()
    }
    fn supports_bitwise_shift_operators(&self) -> bool {
        self.0.supports_bitwise_shift_operators()
    }
    fn supports_tilde_like_match_operator(&self) -> bool {
        self.0.supports_tilde_like_match_operator()
    }
    fn supports_comparison_in_between_low_bound(&self) -> bool {
        self.0.supports_comparison_in_between_low_bound()
    }
    fn supports_comment_on(&self) -> bool {
        self.0.supports_comment_on()
    }
    fn supports_load_extension(&self) -> bool {
        self.0.supports_load_extension()
    }
    fn supports_named_fn_args_with_colon_operator(&self) -> bool {
        self.0.supports_named_fn_args_with_colon_operator()
    }
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        self.0.supports_named_fn_args_with_expr_name()
    }
    fn supports_named_fn_args_with_assignment_operator(&self) -> bool {
        self.0.supports_named_fn_args_with_assignment_operator()
    }
    fn supports_empty_projections(&self) -> bool {
        self.0.supports_empty_projections()
    }
    fn supports_nested_comments(&self) -> bool {
        self.0.supports_nested_comments()
    }
    fn supports_copy_from_stdin_data(&self) -> bool {
        self.0.supports_copy_from_stdin_data()
    }
    fn supports_string_escape_constant(&self) -> bool {
        self.0.supports_string_escape_constant()
    }
    fn supports_numeric_literal_underscores(&self) -> bool {
        self.0.supports_numeric_literal_underscores()
    }
    fn supports_non_decimal_integer_literals(&self) -> bool {
        self.0.supports_non_decimal_integer_literals()
    }
    fn supports_array_typedef_with_brackets(&self) -> bool {
        self.0.supports_array_typedef_with_brackets()
    }
    fn supports_geometric_types(&self) -> bool {
        self.0.supports_geometric_types()
    }
    fn supports_order_by_using_operator(&self) -> bool {
        self.0.supports_order_by_using_operator()
    }
    fn supports_set_names(&self) -> bool {
        self.0.supports_set_names()
    }
    fn supports_alter_column_type_using(&self) -> bool {
        self.0.supports_alter_column_type_using()
    }
    fn supports_left_associative_joins_without_parens(&self) -> bool {
        self.0.supports_left_associative_joins_without_parens()
    }
    fn supports_notnull_operator(&self) -> bool {
        self.0.supports_notnull_operator()
    }
    fn supports_interval_options(&self) -> bool {
        self.0.supports_interval_options()
    }
    fn is_interval_qualifier(&self, kw: Keyword) -> bool {
        self.0.is_interval_qualifier(kw)
    }
    fn supports_insert_table_alias(&self) -> bool {
        self.0.supports_insert_table_alias()
    }
    fn supports_create_table_like_parenthesized(&self) -> bool {
        self.0.supports_create_table_like_parenthesized()
    }
    fn supports_select_wildcard_with_alias(&self) -> bool {
        self.0.supports_select_wildcard_with_alias()
    }
    fn supports_comma_separated_trim(&self) -> bool {
        self.0.supports_comma_separated_trim()
    }
    fn supports_xml_expressions(&self) -> bool {
        self.0.supports_xml_expressions()
    }
    fn is_custom_type_typed_string(&self, first_keyword: Keyword, qualified: bool) -> bool {
        self.0.is_custom_type_typed_string(first_keyword, qualified)
    }
    fn supports_aliased_function_args(&self) -> bool {
        self.0.supports_aliased_function_args()
    }
    fn supports_comment_optimizer_hint(&self) -> bool {
        self.0.supports_comment_optimizer_hint()
    }
    fn supports_add_column_if_not_exists(&self) -> bool {
        self.0.supports_add_column_if_not_exists()
    }
    fn supports_attach_partition_of(&self) -> bool {
        self.0.supports_attach_partition_of()
    }
    fn supports_detach_partition_of(&self) -> bool {
        self.0.supports_detach_partition_of()
    }
    fn supports_table_inheritance_markers(&self) -> bool {
        self.0.supports_table_inheritance_markers()
    }
    fn supports_column_generic_options(&self) -> bool {
        self.0.supports_column_generic_options()
    }
}

/// `x BETWEEN SYMMETRIC a AND b`: between them, whichever comes first.
fn symmetric(parser: &mut Parser, expr: &ast::Expr, negated: bool) -> Result<ast::Expr, ParserError> {
    let precedence = PostgreSqlDialect {}.prec_value(Precedence::Between);
    let low = parser.parse_subexpr(precedence)?;
    parser.expect_keyword(Keyword::AND)?;
    let high = parser.parse_subexpr(precedence)?;
    let between = |low: &ast::Expr, high: &ast::Expr| {
        Box::new(ast::Expr::Between {
            expr: Box::new(expr.clone()),
            negated: false,
            low: Box::new(low.clone()),
            high: Box::new(high.clone()),
        })
    };
    let either = ast::Expr::Nested(Box::new(ast::Expr::BinaryOp {
        left: between(&low, &high),
        op: ast::BinaryOperator::Or,
        right: between(&high, &low),
    }));
    if !negated {
        return Ok(either);
    }
    let inner = ast::Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: Box::new(either) };
    Ok(ast::Expr::Nested(Box::new(inner)))
}

fn word(token: Option<&TokenWithSpan>, text: &str) -> bool {
    matches!(token.map(|t| &t.token), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(text))
}

/// Puts string literals that only a line break parts into one.
fn joined(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut line = false;
    for token in tokens {
        match (&token.token, out.last_mut().map(|last| &mut last.token)) {
            (Token::Whitespace(space), _) => {
                line |= matches!(space, Whitespace::Newline | Whitespace::SingleLineComment { .. });
                continue;
            }
            (
                Token::SingleQuotedString(more),
                Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)),
            ) if line => text.push_str(more),
            _ => out.push(token),
        }
        line = false;
    }
    out
}

/// `TABLE t`, wherever a query may stand, is `SELECT * FROM t`.
fn tables(statement: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let query = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| statement.get(before));
        let opens = matches!(before.map(|t| &t.token), None | Some(Token::LParen));
        let named = matches!(statement.get(at + 1).map(|t| &t.token), Some(Token::Word(_)));
        let behind = ["as", "union", "all", "except", "intersect"].iter().any(|w| word(before, w));
        word(statement.get(at), "table") && named && (opens || behind)
    };
    if !(0..statement.len()).any(query) {
        return statement;
    }
    let mut out = Vec::with_capacity(statement.len() + 4);
    for (at, token) in statement.iter().enumerate() {
        if query(at) {
            let put = |token_here: Token| TokenWithSpan::new(token_here, token.span);
            out.extend([
                put(Token::make_keyword("SELECT")),
                put(Token::Mul),
                put(Token::make_keyword("FROM")),
            ]);
        } else {
            out.push(token.clone());
        }
    }
    out
}

/// Where the parenthesis that opens at `from` is closed.
fn closing(tokens: &[TokenWithSpan], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            Token::SemiColon => return None,
            _ => {}
        }
    }
    None
}

/// `CREATE TABLE t (a, b) AS query WITH NO DATA` says nothing that `CREATE TABLE t AS SELECT * FROM (query) AS t (a, b)
/// LIMIT 0` does not, which is what the parser knows.
fn create_as(tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
    let start = tokens.iter().position(|t| word(Some(t), "table")).filter(|at| *at <= 2)?;
    let mut name = start + 1;
    if word(tokens.get(name), "if") {
        name += 3;
    }
    let mut next = name + 1;
    while matches!(tokens.get(next).map(|t| &t.token), Some(Token::Period)) {
        next += 2;
    }
    let mut columns = None;
    if matches!(tokens.get(next).map(|t| &t.token), Some(Token::LParen)) {
        let end = closing(tokens, next)?;
        let list = &tokens[next + 1..end];
        let plain = list.iter().enumerate().all(|(at, t)| match t.token {
            Token::Word(_) => at % 2 == 0,
            Token::Comma => at % 2 == 1,
            _ => false,
        });
        if !plain || list.is_empty() {
            return None;
        }
        columns = Some(next..end + 1);
        next = end + 1;
    }
    if !word(tokens.get(next), "as") {
        return None;
    }
    let end = tokens.iter().position(|t| matches!(t.token, Token::SemiColon)).unwrap_or(tokens.len());
    let ends = |words: &[&str]| {
        end >= words.len()
            && words.iter().enumerate().all(|(at, w)| word(tokens.get(end - words.len() + at), w))
    };
    let (mut last, empty) = (end, ends(&["with", "no", "data"]));
    if empty {
        last -= 3;
    } else if ends(&["with", "data"]) {
        last -= 2;
    } else if columns.is_none() {
        return None;
    }
    let span = tokens[next].span;
    let put = |token: Token| TokenWithSpan::new(token, span);
    let mut out = tokens[..columns.as_ref().map_or(next, |c| c.start)].to_vec();
    out.extend(["AS", "SELECT"].map(|w| put(Token::make_keyword(w))));
    out.push(put(Token::Mul));
    out.push(put(Token::make_keyword("FROM")));
    out.push(put(Token::LParen));
    out.extend_from_slice(tokens.get(next + 1..last)?);
    out.push(put(Token::RParen));
    out.push(put(Token::make_keyword("AS")));
    out.push(tokens[name].clone());
    out.extend_from_slice(&tokens[columns.unwrap_or(0..0)]);
    if empty {
        out.push(put(Token::make_keyword("LIMIT")));
        out.push(put(Token::Number("0".into(), false)));
    }
    out.extend_from_slice(&tokens[end..]);
    Some(out)
}

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
fn whole_travel(tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
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
fn offsets(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
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
fn history(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
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

/// What the frame of a window leaves out: how the parser is told, the words, and what it is. It goes in front of what the
/// partitions have in common, as a text that nobody writes.
pub(crate) const EXCLUDES: [(&str, [&str; 2], Exclude); 4] = [
    ("\u{1}exclude no others", ["no", "others"], Exclude::Nothing),
    ("\u{1}exclude current row", ["current", "row"], Exclude::Row),
    ("\u{1}exclude group", ["group", ""], Exclude::Group),
    ("\u{1}exclude ties", ["ties", ""], Exclude::Ties),
];

/// Moves EXCLUDE from the end of a window's definition to where the parser takes it.
fn exclude(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // Where parentheses were opened that are open still.
    let mut open: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let found = word(tokens.get(at), "exclude").then(|| {
            EXCLUDES.iter().find_map(|(marker, words, _)| {
                let count = words.iter().filter(|w| !w.is_empty()).count();
                let named = words[..count].iter().enumerate().all(|(n, w)| word(tokens.get(at + 1 + n), w));
                let ends = matches!(tokens.get(at + 1 + count).map(|t| &t.token), Some(Token::RParen));
                (named && ends).then_some((*marker, 1 + count))
            })
        });
        if let (Some(Some((marker, count))), Some(start)) = (found, open.last().copied()) {
            let put = |token: Token| TokenWithSpan::new(token, tokens[at].span);
            let text = put(Token::SingleQuotedString(marker.into()));
            let by = (start + 1..out.len().saturating_sub(1))
                .find(|at| word(out.get(*at), "partition") && word(out.get(*at + 1), "by"));
            if let Some(by) = by {
                out.splice(by + 2..by + 2, [text, put(Token::Comma)]);
            } else {
                // Behind the name of the window that this one begins with, if there is one.
                let first = out.get(start + 1).map(|t| &t.token);
                let named = matches!(first, Some(Token::Word(w)) if w.keyword == Keyword::NoKeyword);
                let place = start + 1 + usize::from(named);
                let words = [Token::make_keyword("PARTITION"), Token::make_keyword("BY")].map(put);
                out.splice(place..place, words.into_iter().chain([text]));
            }
            at += count;
            continue;
        }
        match tokens[at].token {
            Token::LParen => open.push(out.len()),
            Token::RParen => {
                open.pop();
            }
            _ => {}
        }
        out.push(tokens[at].clone());
        at += 1;
    }
    out
}

/// The elements of a list in parentheses, which begins at `from`: tokens between commas, and where it ends.
fn elements(tokens: &[TokenWithSpan], from: usize) -> Option<(Vec<&[TokenWithSpan]>, usize)> {
    let end = closing(tokens, from)?;
    let (mut list, mut depth, mut start) = (Vec::new(), 0_usize, from + 1);
    for at in from + 1..end {
        match tokens[at].token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Comma if depth == 0 => {
                list.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    list.push(&tokens[start..end]);
    Some((list, end))
}

/// Elements that CUBE and nested sets may have here; PostgreSQL's limit of what they make is 4096.
const SETS_MAX: usize = 4096;

/// The sets that an element of GROUPING SETS stands for: itself, or those of ROLLUP, CUBE and GROUPING SETS in it.
fn sets_of(element: &[TokenWithSpan]) -> Option<Vec<Vec<TokenWithSpan>>> {
    let span = element.first()?.span;
    let put = |token: Token| TokenWithSpan::new(token, span);
    let (rollup, cube) = (word(element.first(), "rollup"), word(element.first(), "cube"));
    let nested = word(element.first(), "grouping") && word(element.get(1), "sets");
    if !rollup && !cube && !nested {
        return Some([element.to_vec()].into());
    }
    let (list, end) = elements(element, 1 + usize::from(nested))?;
    if end + 1 != element.len() {
        return None;
    }
    if nested {
        let mut all = Vec::new();
        for inner in list {
            all.extend(sets_of(inner)?);
        }
        return (all.len() <= SETS_MAX).then_some(all);
    }
    let set = |chosen: &mut dyn Iterator<Item = &&[TokenWithSpan]>| {
        let mut out = Vec::from([put(Token::LParen)]);
        for part in chosen {
            // A composite element is its columns.
            let whole = matches!(part.first().map(|t| &t.token), Some(Token::LParen))
                && closing(part, 0) == Some(part.len() - 1);
            if out.len() > 1 {
                out.push(put(Token::Comma));
            }
            out.extend_from_slice(if whole { &part[1..part.len() - 1] } else { &part[..] });
        }
        out.push(put(Token::RParen));
        out
    };
    if rollup {
        return Some((0..=list.len()).rev().map(|count| set(&mut list[..count].iter())).collect());
    }
    let bits = (list.len() <= 12).then(|| 1_usize << list.len())?;
    let chosen = |bits: usize, at: usize| bits >> (list.len() - 1 - at) & 1 == 1;
    Some(
        (0..bits)
            .rev()
            .map(|bits| {
                let mut parts =
                    list.iter().enumerate().filter(|(at, _)| chosen(bits, *at)).map(|(_, part)| part);
                set(&mut parts)
            })
            .collect(),
    )
}

/// Brings ROLLUP, CUBE and GROUPING SETS inside of GROUPING SETS into plain sets.
fn grouping_sets(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        out.push(tokens[at].clone());
        let begins = word(tokens.get(at), "sets") && at > 0 && word(tokens.get(at - 1), "grouping");
        at += 1;
        if !begins || !matches!(tokens.get(at).map(|t| &t.token), Some(Token::LParen)) {
            continue;
        }
        let Some((list, end)) = elements(tokens, at) else { continue };
        let sets: Option<Vec<_>> = list.into_iter().map(sets_of).collect();
        let Some(sets) = sets else { continue };
        let put = |token: Token| TokenWithSpan::new(token, tokens[end].span);
        out.push(put(Token::LParen));
        for (number, set) in sets.into_iter().flatten().enumerate() {
            if number > 0 {
                out.push(put(Token::Comma));
            }
            out.extend(set);
        }
        out.push(put(Token::RParen));
        at = end + 1;
    }
    out
}

/// The schema under which ALTER SEQUENCE goes to the parser, which knows only CREATE SEQUENCE. The next part of the name
/// says where the numbers begin again: see [`restart`].
pub(crate) const ALTER_SEQUENCE: &str = "alter sequence";

/// Where RESTART lets the numbers begin: nowhere new, at the start, or at a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Restart {
    No,
    AtStart,
    At(i64),
}

/// What stands in the second part of the name of a sequence that is altered.
pub(crate) fn restart(part: &str) -> Restart {
    match part.strip_prefix("restart") {
        Some("") => Restart::AtStart,
        Some(number) => number.trim().parse().map_or(Restart::No, Restart::At),
        None => Restart::No,
    }
}

/// `ALTER SEQUENCE [IF EXISTS] s options` as CREATE SEQUENCE under a name that nothing else has.
fn alter_sequence(tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
    if !word(tokens.get(1), "sequence") {
        return None;
    }
    let span = tokens[0].span;
    let put = |token: Token| TokenWithSpan::new(token, span);
    let mut out = Vec::from([put(Token::make_keyword("CREATE")), put(Token::make_keyword("SEQUENCE"))]);
    let mut at = 2;
    if word(tokens.get(2), "if") && word(tokens.get(3), "exists") {
        out.extend(["IF", "NOT", "EXISTS"].map(|word| put(Token::make_keyword(word))));
        at = 4;
    }
    let mut rest = tokens.get(at..)?.to_vec();
    let mut part = String::from("as it is");
    if let Some(found) = rest.iter().position(|token| word(Some(token), "restart")) {
        let mut end = found + 1 + usize::from(word(rest.get(found + 1), "with"));
        let mut number = String::new();
        if matches!(rest.get(end).map(|t| &t.token), Some(Token::Minus)) {
            number.push('-');
            end += 1;
        }
        if let Some(Token::Number(digits, _)) = rest.get(end).map(|t| &t.token) {
            number.push_str(digits);
            end += 1;
        }
        if number == "-" || number.is_empty() && end > found + 1 {
            return None;
        }
        part = ["restart", &number].concat();
        rest.drain(found..end);
    }
    out.push(put(Token::make_word(ALTER_SEQUENCE, Some('"'))));
    out.push(put(Token::Period));
    out.push(put(Token::make_word(&part, Some('"'))));
    out.push(put(Token::Period));
    out.extend(rest);
    Some(out)
}

/// Takes the type off a distance in a frame, `'1 day'::interval PRECEDING`: it is that of the keys in any case.
fn bare_distances(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 0;
    while at + 3 < tokens.len() {
        let literal = matches!(tokens[at].token, Token::SingleQuotedString(_));
        let cast = matches!(tokens[at + 1].token, Token::DoubleColon) && word(tokens.get(at + 2), "interval");
        let bound = word(tokens.get(at + 3), "preceding") || word(tokens.get(at + 3), "following");
        if literal && cast && bound {
            tokens.drain(at + 1..at + 3);
        }
        at += 1;
    }
}

/// CHECKPOINT and VACUUM with options ask for nothing that a client could see: they are VACUUM alone.
fn housekeeping(tokens: &mut Vec<TokenWithSpan>) {
    let options = ["full", "freeze", "verbose", "analyze"];
    let optional = |token: Option<&TokenWithSpan>| options.iter().any(|option| word(token, option));
    if word(tokens.first(), "checkpoint") {
        tokens[0] = TokenWithSpan::new(Token::make_keyword("VACUUM"), tokens[0].span);
        return;
    }
    if matches!(tokens.get(1).map(|t| &t.token), Some(Token::LParen))
        && let Some(end) = closing(tokens, 1)
    {
        tokens.drain(1..=end);
    }
    while optional(tokens.get(1)) {
        tokens.remove(1);
    }
}

/// Without one of these words a text has no form that the parser does not know.
const FORM_WORDS: [&str; 13] = [
    "as",
    "at",
    "offset",
    "history",
    "exclude",
    "sets",
    "alter",
    "create",
    "table",
    "preceding",
    "following",
    "checkpoint",
    "vacuum",
];

/// Brings what the parser does not know into what it does: `TABLE t` as a statement, columns and `WITH [NO] DATA` of
/// CREATE TABLE AS, literals over several lines, the short forms of time travel, HISTORY OF,
/// what frames exclude, sets in sets, and ALTER VIEW RENAME.
pub(crate) fn known_forms(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let tokens = joined(tokens);
    if !tokens.iter().any(|token| FORM_WORDS.iter().any(|known| word(Some(token), known))) {
        return tokens;
    }
    let mut out = Vec::with_capacity(tokens.len());
    for statement in tokens.split_inclusive(|t| matches!(t.token, Token::SemiColon)) {
        let whole = whole_travel(statement);
        let mut statement = travel(whole.as_deref().unwrap_or(statement));
        if statement.iter().any(|token| word(Some(token), "offset")) {
            statement = offsets(statement);
        }
        let has =
            |statement: &[TokenWithSpan], text: &str| statement.iter().any(|token| word(Some(token), text));
        if has(&statement, "history") {
            statement = history(&statement);
        }
        if has(&statement, "exclude") {
            statement = exclude(&statement);
        }
        if has(&statement, "sets") {
            statement = grouping_sets(&statement);
        }
        if has(&statement, "preceding") || has(&statement, "following") {
            bare_distances(&mut statement);
        }
        let kinds = ["view", "sequence", "index"];
        if word(statement.first(), "alter") && kinds.iter().any(|kind| word(statement.get(1), kind)) {
            let renames = has(&statement, "rename") || word(statement.get(1), "view");
            if renames {
                // They are renamed as tables are.
                statement[1] = TokenWithSpan::new(Token::make_keyword("TABLE"), statement[1].span);
            } else if let Some(known) = alter_sequence(&statement) {
                statement = known;
            }
        }
        if word(statement.first(), "checkpoint") || word(statement.first(), "vacuum") {
            housekeeping(&mut statement);
        }
        let statement = tables(statement);
        let first = statement.first();
        if word(first, "create")
            && let Some(known) = create_as(&statement)
        {
            out.extend(known);
            continue;
        }
        out.extend(statement);
    }
    out
}

/// Brings the short forms of time travel into the long one: `AS OF TIMESTAMP '…'` to `FOR SYSTEM_TIME AS OF …`,
/// `[FOR SYSTEM_TIME AS OF] AT POSITION n` (or `AT OFFSET n`) to `VERSION AS OF n`.
fn travel(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
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
