//! What clients that speak SQL did and heard, as transactions: a history for the checkers that judge it.
//!
//! It is black-box: nothing but statements and answers. A statement outside of a block is a transaction of its own.

use std::collections::BTreeMap;

use kimberlite_types::TenantId;
use kimberlite_wire::client::SqlAnswer;

use crate::Observation;
use crate::sql::deed::elements_of;
use crate::sql::{Deed, Kind, List, Look, When};

/// A list of a tenant.
pub(super) type ListOf = (TenantId, List);

/// Something that a transaction did to lists and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It appended an element.
    Append(ListOf, u64),
    /// It read a list: its elements and, of a list of rows, whether they are numbered from 1.
    Read(ListOf, Vec<u64>, bool),
    /// It read all lists of a kind: those that are not named are empty.
    ReadAll(TenantId, Kind, BTreeMap<u64, Vec<u64>>, bool),
    /// It added to a number, and heard what came out.
    Add(TenantId, u64, i64, Option<i64>),
    /// It read all numbers.
    Numbers(TenantId, BTreeMap<u64, i64>),
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was acknowledged.
    Committed,
    /// It was not done.
    Aborted,
    /// Nobody knows.
    Unknown,
}

/// One transaction.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    /// Who.
    pub(super) client: u16,
    /// When its first statement was said, and when its last one was answered, in things that happened.
    pub(super) began: u64,
    pub(super) ended: Option<u64>,
    /// What became of it; of one that is under way, that it is not done.
    pub(super) fate: Fate,
    /// What it did, without what it took back.
    pub(super) acts: Vec<Act>,
    /// What it took back.
    pub(super) taken_back: Vec<Act>,
}

/// What a client is in the middle of.
#[derive(Debug, Default)]
struct Speaker {
    /// Its transaction block, by number, with the savepoints: name and acts before it.
    block: Option<(usize, Vec<(u32, usize)>)>,
    /// The statement that is open: its transaction, and whether that is a block's.
    open: Option<(u64, TenantId, Deed, usize)>,
}

/// All transactions so far.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    speakers: BTreeMap<u16, Speaker>,
    pub(super) all: Vec<Transaction>,
    clock: u64,
}

impl Transactions {
    /// Something happened.
    pub(super) fn observe(&mut self, seen: &Observation<'_>) {
        match seen {
            Observation::Stated { client, ticket, tenant, deed, in_block } => {
                self.clock += 1;
                self.on_stated(*client, *ticket, *tenant, deed, *in_block);
            }
            Observation::Ran { client, ticket, answer } => {
                self.clock += 1;
                self.on_ran(*client, *ticket, answer);
            }
            Observation::Lost { client, ticket, sent } => {
                self.clock += 1;
                self.on_lost(*client, *ticket, *sent);
            }
            _ => {}
        }
    }

    fn on_stated(&mut self, client: u16, ticket: u64, tenant: TenantId, deed: &Deed, in_block: bool) {
        let speaker = self.speakers.entry(client).or_default();
        if !in_block {
            speaker.block = None;
        }
        let number = if let Some((number, _)) = &speaker.block {
            *number
        } else {
            self.all.push(Transaction {
                client,
                began: self.clock,
                ended: None,
                fate: Fate::Aborted,
                acts: Vec::new(),
                taken_back: Vec::new(),
            });
            self.all.len() - 1
        };
        speaker.open = Some((ticket, tenant, deed.clone(), number));
    }

    /// The statement that this is about, if it is the one that is open.
    fn taken(&mut self, client: u16, ticket: u64) -> Option<(TenantId, Deed, usize)> {
        let speaker = self.speakers.get_mut(&client)?;
        let (_, tenant, deed, number) = speaker.open.take_if(|(open, ..)| *open == ticket)?;
        Some((tenant, deed, number))
    }

    fn on_ran(&mut self, client: u16, ticket: u64, answer: &SqlAnswer) {
        let Some((tenant, deed, number)) = self.taken(client, ticket) else { return };
        let clock = self.clock;
        let transaction = &mut self.all[number];
        let speaker = self.speakers.entry(client).or_default();
        let unknown = matches!(&answer.result, Err(failure) if failure.code.as_str() == "08007");
        let act = act_of(tenant, &deed, answer);
        match (&answer.result, act) {
            (Ok(_), Some(act)) => transaction.acts.push(act),
            // It may have been done, or must not have been.
            (Err(_), Some(act)) if unknown => transaction.acts.push(act),
            (Err(_), Some(act)) => transaction.taken_back.push(act),
            (_, None) => {}
        }
        let Some((_, savepoints)) = &mut speaker.block else {
            if deed == Deed::Begin {
                if answer.result.is_ok() && answer.in_block {
                    speaker.block = Some((number, Vec::new()));
                }
                return;
            }
            transaction.ended = Some(clock);
            transaction.fate = match (&answer.result, unknown) {
                (Ok(_), _) => Fate::Committed,
                (Err(_), true) => Fate::Unknown,
                (Err(_), false) => Fate::Aborted,
            };
            return;
        };
        match (&deed, &answer.result) {
            (Deed::Savepoint(name), Ok(_)) => savepoints.push((*name, transaction.acts.len())),
            (Deed::Release(name), Ok(_)) => {
                // The last one of the name, and those behind it.
                if let Some(at) = savepoints.iter().rposition(|(other, _)| other == name) {
                    savepoints.truncate(at);
                }
            }
            (Deed::RollbackTo(name), Ok(_)) => {
                if let Some(at) = savepoints.iter().rposition(|(other, _)| other == name) {
                    let (_, acts) = savepoints[at];
                    savepoints.truncate(at + 1);
                    let undone = transaction.acts.split_off(acts.min(transaction.acts.len()));
                    for act in undone {
                        // What was read was read.
                        match act {
                            Act::Append(..) | Act::Add(..) => transaction.taken_back.push(act),
                            read => transaction.acts.push(read),
                        }
                    }
                }
            }
            (Deed::Commit, Ok(rows)) => {
                transaction.ended = Some(clock);
                transaction.fate = if rows.tag == "COMMIT" { Fate::Committed } else { Fate::Aborted };
            }
            (Deed::Commit, Err(_)) => {
                transaction.ended = Some(clock);
                transaction.fate = if unknown { Fate::Unknown } else { Fate::Aborted };
            }
            _ => {}
        }
        if !answer.in_block {
            speaker.block = None;
        }
    }

    fn on_lost(&mut self, client: u16, ticket: u64, sent: bool) {
        let Some((tenant, deed, number)) = self.taken(client, ticket) else { return };
        let transaction = &mut self.all[number];
        let speaker = self.speakers.entry(client).or_default();
        let in_block = speaker.block.take().is_some();
        if !sent {
            return;
        }
        if in_block {
            if deed == Deed::Commit {
                transaction.fate = Fate::Unknown;
            }
        } else if let Some(act) = written(tenant, &deed) {
            transaction.acts.push(act);
            transaction.fate = Fate::Unknown;
        }
    }
}

/// What a statement writes to lists and numbers, if it does.
fn written(tenant: TenantId, deed: &Deed) -> Option<Act> {
    match deed {
        Deed::Append { list, element, .. } => Some(Act::Append((tenant, *list), *element)),
        Deed::Add { counter, by, .. } => Some(Act::Add(tenant, *counter, by.cast_signed(), None)),
        _ => None,
    }
}

/// What a statement did to lists and numbers, by its answer.
fn act_of(tenant: TenantId, deed: &Deed, answer: &SqlAnswer) -> Option<Act> {
    let Ok(answer) = &answer.result else { return written(tenant, deed) };
    let number = |cell: &Option<String>| cell.as_ref().and_then(|cell| cell.parse::<i64>().ok());
    match deed {
        // A list that is not there is not appended to.
        Deed::Append { .. } | Deed::Add { .. } if answer.tag.ends_with(" 0") => None,
        Deed::Add { counter, by, .. } => {
            let came_out = answer.rows.first().and_then(|row| number(row.first()?));
            Some(Act::Add(tenant, *counter, by.cast_signed(), came_out))
        }
        Deed::Append { .. } => written(tenant, deed),
        Deed::Read(list @ List { kind: Kind::Cell, .. }) => {
            let text = answer.rows.first().and_then(|row| row.first()?.as_deref());
            let elements = text.map_or(Some(Vec::new()), elements_of)?;
            Some(Act::Read((tenant, *list), elements, true))
        }
        Deed::Read(list @ List { kind: Kind::Rows, .. }) => {
            let rows: Option<Vec<(i64, i64)>> =
                answer.rows.iter().map(|row| Some((number(row.first()?)?, number(row.get(1)?)?))).collect();
            let rows = rows?;
            let numbered = rows.iter().zip(1..).all(|((number, _), due)| *number == due);
            let elements = rows.iter().map(|(_, element)| element.cast_unsigned()).collect();
            Some(Act::Read((tenant, *list), elements, numbered))
        }
        Deed::Look(Look::Cells, When::Now) => {
            let lists: Option<BTreeMap<u64, Vec<u64>>> = answer
                .rows
                .iter()
                .map(|row| {
                    Some((number(row.first()?)?.cast_unsigned(), elements_of(row.get(1)?.as_deref()?)?))
                })
                .collect();
            Some(Act::ReadAll(tenant, Kind::Cell, lists?, true))
        }
        Deed::Look(Look::Entries, When::Now) => {
            let mut lists: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            let mut numbered = true;
            for row in &answer.rows {
                let list = lists.entry(number(row.first()?)?.cast_unsigned()).or_default();
                list.push(number(row.get(2)?)?.cast_unsigned());
                numbered &= number(row.get(1)?)? == i64::try_from(list.len()).unwrap_or(i64::MAX);
            }
            Some(Act::ReadAll(tenant, Kind::Rows, lists, numbered))
        }
        Deed::Look(Look::Counters, When::Now) => {
            let numbers: Option<BTreeMap<u64, i64>> = answer
                .rows
                .iter()
                .map(|row| Some((number(row.first()?)?.cast_unsigned(), number(row.get(1)?)?)))
                .collect();
            Some(Act::Numbers(tenant, numbers?))
        }
        _ => None,
    }
}
