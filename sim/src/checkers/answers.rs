//! Looks at tables answer what the log says they must: of the past the same for ever, of the present one moment between
//! question and answer.
//!
//! The queries are those of the grammar, and so are their answers, by a second evaluation. That of three parts (those of
//! which a condition holds, those of which it does not, those of which it is NULL) is *TLP*, that of a count by a filter and
//! by a sum *NoREC* (Rigger, Su, 2020): they hold an answer against the table as a whole, whatever a condition means.

use std::collections::BTreeMap;

use kimberlite_kernel::Applied;
use kimberlite_row::Row;
use kimberlite_runtime::Note;
use kimberlite_types::{Instant, LogPosition, Op, TenantId};
use kimberlite_wire::Prepare;
use kimberlite_wire::client::{SqlAnswer, SqlFailure};
use kimberlite_wire::command::Verdict;

use super::facts::TableModel;
use super::hold;
use crate::sql::grammar::DataRow;
use crate::sql::query::{Cells, Shape};
use crate::sql::{Deed, Look, When};
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "answers";
const PAST: &str = "a look at the past answers what the log says of it, at all times the same";
const PRESENT: &str = "a look at the present answers one moment between question and answer";
const FUTURE: &str = "nothing is answered of the future, and nothing known is refused as the future";
const PARTS: &str = "each row is in one of three parts: a condition holds, does not hold, or is NULL";
const REASON: &str = "a statement is refused for a reason that it gives";

/// What a client is in the middle of.
#[derive(Debug, Default)]
struct Speaker {
    open: Option<Open>,
    /// Its block: what its snapshot may be, and whether it wrote.
    block: Option<(Op, Op, bool)>,
}

#[derive(Debug)]
struct Open {
    ticket: u64,
    tenant: TenantId,
    deed: Deed,
    in_block: bool,
    /// The last op that was acknowledged when it was said.
    acknowledged: Op,
}

/// Follows the tables of the log, and holds answers against them.
#[derive(Default)]
pub struct Answers {
    model: TableModel,
    executed: Op,
    /// The last op that a client was told of.
    acknowledged: Op,
    speakers: BTreeMap<u16, Speaker>,
    compared: u64,
}

/// Where a look may have looked.
enum Moment {
    At(LogPosition),
    Between(Op, Op),
}

impl Answers {
    fn on_prepare(&mut self, prepare: &Prepare, applied: &Applied) {
        let op = prepare.header.op;
        if op != self.executed.next() {
            return;
        }
        self.executed = op;
        for (entry, said) in prepare.entries().flatten().zip(&applied.verdicts) {
            // What is wrong with the facts themselves is for others to say.
            let _known = self.model.apply(&entry, said);
        }
    }

    fn on_done(&mut self, verdict: &Verdict) {
        self.acknowledged = self.acknowledged.max(verdict.position.op);
    }

    fn on_ran(&mut self, client: u16, ticket: u64, answer: &SqlAnswer) -> Result<(), Violation> {
        let executed = self.executed;
        let speaker = self.speakers.entry(client).or_default();
        let Some(open) = speaker.open.take_if(|open| open.ticket == ticket) else { return Ok(()) };
        let block = speaker.block;
        match (&open.deed, &answer.result) {
            (Deed::Begin, Ok(_)) => speaker.block = Some((open.acknowledged, executed, false)),
            (deed, _) => {
                if let Some((_, _, wrote)) = &mut speaker.block {
                    *wrote |= deed.writes();
                }
            }
        }
        if !answer.in_block {
            speaker.block = None;
        }
        let moment = match (&open.deed, open.in_block, block) {
            (Deed::Look(_, When::Now), false, _) => Moment::Between(open.acknowledged, executed),
            (Deed::Look(_, When::Now), true, Some((from, to, false))) => Moment::Between(from, to),
            (Deed::Look(_, When::Position(op)), ..) => {
                let position = LogPosition { op: Op(*op), index: u32::MAX };
                let refused = is_future(&answer.result);
                self.compared += 1;
                hold!(
                    if refused {
                        Op(*op) > open.acknowledged
                    } else {
                        answer.result.is_err() || Op(*op) <= executed
                    },
                    FUTURE,
                    None,
                    Op(*op),
                    "client {client} looks at op {op} and hears {:?}; op {} was acknowledged, op {executed} executed",
                    answer.result,
                    open.acknowledged
                );
                if refused {
                    return Ok(());
                }
                Moment::At(position)
            }
            (Deed::Look(_, When::Time(micros)), ..) => {
                let position = self.model.position_at(open.tenant, *micros);
                self.compared += 1;
                if is_future(&answer.result) {
                    return Ok(());
                }
                hold!(
                    position.is_some() || answer.result.is_err(),
                    FUTURE,
                    None,
                    executed,
                    "client {client} looks at {micros} µs and hears {:?}; nothing is known of it",
                    answer.result
                );
                let Some(position) = position else { return Ok(()) };
                Moment::At(position)
            }
            _ => return self.reason(client, &open, answer),
        };
        match &answer.result {
            Ok(rows) => self.on_look(client, &open, &moment, &rows.rows),
            Err(_) => self.on_refused(client, &open, &moment, answer),
        }
    }

    fn on_look(&mut self, client: u16, open: &Open, moment: &Moment, rows: &Cells) -> Result<(), Violation> {
        let Deed::Look(look, _) = &open.deed else { return Ok(()) };
        self.compared += 1;
        let (rule, at, expected) = match moment {
            Moment::At(position) => {
                let expected = self.expected(open.tenant, look, *position);
                if expected.as_ref() == Some(rows) {
                    return Ok(());
                }
                (PAST, format!("{position}"), expected)
            }
            Moment::Between(from, to) => {
                let mut last = None;
                let mut op = *to;
                loop {
                    let position = LogPosition { op, index: u32::MAX };
                    let expected = self.expected(open.tenant, look, position);
                    if expected.as_ref() == Some(rows) {
                        return Ok(());
                    }
                    last = last.or(expected);
                    // Only at an op that wrote tables is there something else to see.
                    match self.model.written_before(open.tenant, position) {
                        Some(before) if before >= *from && before > Op::ZERO => op = Op(before.0 - 1),
                        _ => break,
                    }
                    if op < *from {
                        break;
                    }
                }
                (PRESENT, format!("op {from} to {to}"), last)
            }
        };
        // What needs no second evaluation is told first.
        let parts = matches!(look, Look::Data(query) if query.shape == Shape::Parts);
        hold!(
            !parts,
            PARTS,
            None,
            None,
            "client {client} hears {rows:?} of \"{}\" at {at}; due is {expected:?}",
            open.deed.text()
        );
        hold!(
            false,
            rule,
            None,
            None,
            "client {client} hears {rows:?} of \"{}\" at {at}; due is {expected:?}",
            open.deed.text()
        );
        Ok(())
    }

    fn on_refused(
        &mut self,
        client: u16,
        open: &Open,
        moment: &Moment,
        answer: &SqlAnswer,
    ) -> Result<(), Violation> {
        let Err(failure) = &answer.result else { return Ok(()) };
        let Deed::Look(look, _) = &open.deed else { return Ok(()) };
        if let (Moment::At(position), "42P01") = (moment, failure.code.as_str()) {
            self.compared += 1;
            let expected = self.expected(open.tenant, look, *position);
            hold!(
                expected.is_none(),
                PAST,
                None,
                position.op,
                "client {client} hears \"{}\" of \"{}\"; due is {expected:?}",
                failure.message,
                open.deed.text()
            );
            return Ok(());
        }
        self.reason(client, open, answer)
    }

    /// A refusal is one that fits the statement.
    fn reason(&mut self, client: u16, open: &Open, answer: &SqlAnswer) -> Result<(), Violation> {
        let Err(failure) = &answer.result else { return Ok(()) };
        self.compared += 1;
        hold!(
            is_reason(&open.deed, open.in_block, failure),
            REASON,
            None,
            None,
            "client {client} hears {} \"{}\" of \"{}\"",
            failure.code.as_str(),
            failure.message,
            open.deed.text()
        );
        Ok(())
    }

    /// What a look answers at a position; nothing if its table is not there.
    fn expected(&self, tenant: TenantId, look: &Look, position: LogPosition) -> Option<Cells> {
        let name = match look {
            Look::Cells => "cells",
            Look::Entries | Look::EntriesOf(_) => "entries",
            Look::Counters => "counters",
            Look::Data(_) => "data",
        };
        let rows = self.model.rows(tenant, name, position)?;
        let cell = |row: &Row, at: usize| row.get(at).and_then(in_text);
        Some(match look {
            Look::Cells | Look::Counters => rows.iter().map(|row| vec![cell(row, 0), cell(row, 1)]).collect(),
            Look::Entries | Look::EntriesOf(_) => {
                let number = |row: &Row, at: usize| row.get(at).and_then(kimberlite_row::Value::as_int);
                let mut rows: Vec<&&Row> = rows
                    .iter()
                    .filter(|row| match look {
                        Look::EntriesOf(key) => number(row, 1) == Some(key.cast_signed()),
                        _ => true,
                    })
                    .collect();
                rows.sort_by_key(|row| (number(row, 1), number(row, 2), number(row, 0)));
                let all = matches!(look, Look::Entries);
                rows.iter()
                    .map(|row| {
                        let key = all.then(|| cell(row, 1));
                        key.into_iter().chain([cell(row, 2), cell(row, 0)]).collect()
                    })
                    .collect()
            }
            Look::Data(query) => {
                let rows: Vec<DataRow> = rows
                    .iter()
                    .map(|row| DataRow {
                        id: row[0].as_int().unwrap_or_default(),
                        a: row[1].as_int(),
                        b: row[2].as_int(),
                        s: row[3].as_text().map(str::to_owned),
                    })
                    .collect();
                query.answer(&rows)
            }
        })
    }
}

/// A value as an answer shows it: only numbers and texts are stored.
fn in_text(value: &kimberlite_row::Value) -> Option<String> {
    value.as_int().map(|number| number.to_string()).or_else(|| value.as_text().map(str::to_owned))
}

fn is_future<T>(result: &Result<T, SqlFailure>) -> bool {
    matches!(result, Err(failure) if failure.message.contains("lies in the future"))
}

/// Whether a statement may be refused for this.
fn is_reason(deed: &Deed, in_block: bool, failure: &SqlFailure) -> bool {
    match failure.code.as_str() {
        // Overtaken, or its block is gone; a page that it needs is damaged: the node makes its tables anew.
        "40001" | "58030" => true,
        // Nobody knows, of what writes; so of the end of a block.
        "08007" => deed.writes() || *deed == Deed::Commit,
        // The block failed before.
        "25P02" => in_block,
        // A row of that key is there.
        "23505" => matches!(deed, Deed::Insert { upsert: false, .. } | Deed::Commit),
        // Two rows of one statement cannot be inserted and changed; a savepoint is gone with its block.
        "3B001" => in_block && matches!(deed, Deed::RollbackTo(_) | Deed::Release(_)),
        // Too large for one command.
        "54000" => matches!(deed, Deed::Append { .. } | Deed::Commit | Deed::Update { .. }),
        _ => false,
    }
}

impl Checker for Answers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[PAST, PRESENT, FUTURE, PARTS, REASON]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Note { note: Note::Committed { prepare, applied, .. }, .. } => {
                self.on_prepare(prepare, applied);
            }
            Observation::Done { verdict, .. } => self.on_done(verdict),
            Observation::Stated { client, ticket, tenant, deed, in_block } => {
                let acknowledged = self.acknowledged;
                let speaker = self.speakers.entry(*client).or_default();
                if !in_block {
                    speaker.block = None;
                }
                let (ticket, tenant, deed, in_block) = (*ticket, *tenant, (*deed).clone(), *in_block);
                speaker.open = Some(Open { ticket, tenant, deed, in_block, acknowledged });
            }
            Observation::Ran { client, ticket, answer } => return self.on_ran(*client, *ticket, answer),
            Observation::Lost { client, .. } => drop(self.speakers.remove(client)),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use crate::sql::grammar::Condition;
    use crate::sql::query::Query;

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Answers::default())
    }

    /// A checker that has seen the tables of [`wards`] come about: list 1 is `,1` at op 4 and `,1,2` at op 5.
    fn fresh() -> (History, Answers) {
        let history = wards();
        let mut checker = Answers::default();
        for op in 1..=history.ops() {
            commit(&mut checker, 0, &history, op).unwrap();
        }
        (history, checker)
    }

    fn looks(checker: &mut Answers, when: When, rows: &[&[&str]]) -> Result<(), Violation> {
        Speech(checker).try_done(0, &Deed::Look(Look::Cells, when), "SELECT 1", rows)
    }

    #[test]
    fn the_past_is_what_the_log_says() {
        let (_, mut checker) = fresh();
        looks(&mut checker, When::Position(4), &[&["1", ",1"]]).unwrap();
        looks(&mut checker, When::Position(5), &[&["1", ",1,2"]]).unwrap();
        assert_broken(&rules(), looks(&mut checker, When::Position(4), &[&["1", ",1,2"]]), PAST);
        assert_broken(&rules(), looks(&mut checker, When::Position(3), &[&["1", ",1"]]), PAST);
        let look = Deed::Look(Look::Cells, When::Position(4));
        assert_broken(&rules(), Speech(&mut checker).try_refused(0, &look, "42P01"), PAST);
        let look = Deed::Look(Look::Cells, When::Position(1));
        Speech(&mut checker).try_refused(0, &look, "42P01").unwrap();
    }

    #[test]
    fn the_present_is_a_moment_between_question_and_answer() {
        let (history, mut checker) = fresh();
        // Nothing was acknowledged, so it may be as old as it likes.
        looks(&mut checker, When::Now, &[&["1", ",1"]]).unwrap();
        assert_broken(&rules(), looks(&mut checker, When::Now, &[&["1", ",2"]]), PRESENT);
        let verdict = history.verdict(5, 0);
        observe(&mut checker, &Observation::Done { client: 3, ticket: 1, verdict }).unwrap();
        assert_broken(&rules(), looks(&mut checker, When::Now, &[&["1", ",1"]]), PRESENT);
        looks(&mut checker, When::Now, &[&["1", ",1,2"]]).unwrap();
    }

    #[test]
    fn an_answer_about_the_future_is_noticed() {
        let (_, mut checker) = fresh();
        assert_broken(&rules(), looks(&mut checker, When::Position(6), &[&["1", ",1,2"]]), FUTURE);
        assert_broken(&rules(), looks(&mut checker, When::Time(i64::MAX), &[&["1", ",1,2"]]), FUTURE);
    }

    #[test]
    fn a_row_in_no_part_or_in_two_is_noticed() {
        let (_, mut checker) = fresh();
        let query = Query { shape: Shape::Parts, of: Condition::TextIsNull(true) };
        let look = Deed::Look(Look::Data(query), When::Now);
        Speech(&mut checker).try_done(0, &look, "SELECT 1", &[&["1", "5"]]).unwrap();
        let wrong: [&[&[&str]]; 3] = [&[], &[&["1", "5"], &["2", "5"]], &[&["2", "5"]]];
        for rows in wrong {
            assert_broken(&rules(), Speech(&mut checker).try_done(0, &look, "SELECT 1", rows), PARTS);
        }
    }

    #[test]
    fn a_refusal_that_nothing_led_to_is_noticed() {
        let (_, mut checker) = fresh();
        for (deed, code) in
            [(Deed::Begin, "08007"), (Deed::Delete { of: Condition::TextIsNull(true) }, "23505")]
        {
            assert_broken(&rules(), Speech(&mut checker).try_refused(0, &deed, code), REASON);
        }
        Speech(&mut checker).try_refused(0, &Deed::Commit, "08007").unwrap();
    }
}
