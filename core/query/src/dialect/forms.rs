//! What the parser does not know, brought into forms that it does: on the tokens of a statement, before they are parsed.

use alloc::string::String;
use alloc::vec::Vec;

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::travel::{history, offsets, travel, whole_travel};
use crate::plan::Exclude;

pub(super) fn word(token: Option<&TokenWithSpan>, text: &str) -> bool {
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

/// A column of this name stands for `LIKE t INCLUDING …` in CREATE TABLE: the first part of its type says what is included,
/// the others are the table's name. Nobody writes such a name.
pub(crate) const LIKE_COLUMN: &str = "\u{1}like";

/// `LIKE t INCLUDING …` among the columns of CREATE TABLE as a column that stands for it.
fn like_elements(tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
    let table = tokens.iter().position(|t| word(Some(t), "table")).filter(|at| *at <= 2)?;
    let open = tokens.iter().position(|t| matches!(t.token, Token::LParen)).filter(|at| *at > table)?;
    let (list, end) = elements(tokens, open)?;
    if !list.iter().any(|element| word(element.first(), "like")) {
        return None;
    }
    let mut out = tokens[..=open].to_vec();
    for (at, element) in list.into_iter().enumerate() {
        let span = element.first()?.span;
        if at > 0 {
            out.push(TokenWithSpan::new(Token::Comma, span));
        }
        if !word(element.first(), "like") {
            out.extend_from_slice(element);
            continue;
        }
        let options = element.iter().position(|t| word(Some(t), "including") || word(Some(t), "excluding"));
        let (name, options) = element[1..].split_at(options.unwrap_or(element.len()) - 1);
        let mut included = String::new();
        for pair in options.chunks(2) {
            let Some(Token::Word(what)) = pair.get(1).map(|t| &t.token) else { return None };
            let sign = if word(pair.first(), "including") { "+" } else { "-" };
            included.extend([sign, &what.value.to_lowercase(), " "]);
        }
        for text in [LIKE_COLUMN, &included] {
            out.push(TokenWithSpan::new(Token::make_word(text, Some('"')), span));
        }
        out.push(TokenWithSpan::new(Token::Period, span));
        out.extend_from_slice(name);
    }
    out.extend_from_slice(&tokens[end..]);
    Some(out)
}

/// `CREATE RECURSIVE VIEW v (a) AS query` is `CREATE VIEW v AS WITH RECURSIVE v (a) AS (query) SELECT a FROM v`.
fn recursive_view(tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
    let at = tokens.iter().position(|t| word(Some(t), "recursive")).filter(|at| *at <= 4)?;
    if !word(tokens.get(at + 1), "view") {
        return None;
    }
    let open = tokens.iter().position(|t| matches!(t.token, Token::LParen))?;
    let close = closing(tokens, open)?;
    if !word(tokens.get(close + 1), "as") {
        return None;
    }
    let end = tokens.iter().position(|t| matches!(t.token, Token::SemiColon)).unwrap_or(tokens.len());
    let span = tokens[at].span;
    let put = |token: Token| TokenWithSpan::new(token, span);
    let word = |text: &str| put(Token::make_keyword(text));
    let name = tokens.get(open.checked_sub(1)?)?;
    let mut out = tokens[..at].to_vec();
    out.extend_from_slice(&tokens[at + 1..open]);
    out.extend(["AS", "WITH", "RECURSIVE"].map(word));
    out.push(name.clone());
    out.extend_from_slice(&tokens[open..=close]);
    out.extend([word("AS"), put(Token::LParen)]);
    out.extend_from_slice(&tokens[close + 2..end]);
    out.extend([put(Token::RParen), word("SELECT")]);
    out.extend_from_slice(&tokens[open + 1..close]);
    out.extend([word("FROM"), name.clone()]);
    out.extend_from_slice(&tokens[end..]);
    Some(out)
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
                .or_else(|| like_elements(&statement))
                .or_else(|| recursive_view(&statement))
        {
            out.extend(known);
            continue;
        }
        out.extend(statement);
    }
    out
}
