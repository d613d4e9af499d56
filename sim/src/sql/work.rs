//! What a client that speaks SQL says next, and how far it got.

use std::collections::BTreeMap;

use kimberlite_io_sim::{Concern, Dice};
use kimberlite_types::{TenantId, WallTime};
use kimberlite_wire::client::{SqlAnswer, Statement};
use kimberlite_wire::command::{Command, Refusal, Verdict};

use super::coverage::Coverage;
use super::deed::{COUNTERS, Deed, INDEXES, Kind, List, Look, PREPARED, When};
use super::grammar::{Ask, Condition, DataRow, TEXTS, constant};
use super::plan::{SqlPlan, Theme};
use super::query::Query;

/// Questions of these clients' luck start here; those of the others lie below.
const QUESTIONS: u64 = 1 << 12;

/// Questions of one client.
const QUESTIONS_EACH: u64 = 32;

/// Elements that one client may append: each client's are its own.
const ELEMENTS_EACH: u64 = 1_000_000;

/// Ops that a client looks back, less than; and ahead of what is known, where nothing can be read.
const BACK_MAX: u64 = 200;
const AHEAD: u64 = 2;

/// Keys of rows that several clients insert at once, and the ops after which it is the next one's turn.
const RACED_FROM: u64 = 1_000;
const RACED_EVERY: u64 = 8;

/// Rows that are put by the hundred: where the first may stand, how far apart, and bytes of each. Many are too many for one
/// command of a small layout, above all where they take the place of others.
const BULK_FROM: u64 = 1_000_000;
const BULK_PLACES: u64 = 4;
const BULK_ROWS: u64 = 50;
const BULK_SIZE: u64 = 1_000;

/// The same of a client that looks at what has just happened.
const NEAR: u64 = 6;

/// What a client says.
#[derive(Debug)]
pub(crate) enum Say {
    /// Its tenant is to exist.
    Tenant { ticket: u64, tenant: TenantId, command: Vec<u8> },
    /// A statement.
    Statement { ticket: u64, deed: Deed, statement: Statement },
}

/// A transaction block that a client has open.
#[derive(Debug)]
struct Block {
    /// Statements until it ends.
    left: u64,
    /// A statement of it was refused.
    failed: bool,
    savepoints: Vec<u32>,
    /// The newest op that was known when it began: its snapshot, more often than not.
    snapshot: u64,
    /// The last number of each list of rows that it read, with what it added.
    numbers: BTreeMap<u64, u64>,
}

/// How far a client got.
#[derive(Debug, Default)]
struct Hand {
    tickets: u64,
    /// The tenant is there.
    tenant: bool,
    /// Statements of the beginning that were done.
    prepared: usize,
    /// What is under way: nothing stands for the tenant.
    open: Option<(u64, Option<Deed>)>,
    block: Option<Block>,
    /// Statements of the block that is about to be opened.
    opens: u64,
    /// A block may be open of which the client does not want to know any more.
    dangling: bool,
    elements: u64,
    /// Statements of the end that were done; none before the end.
    closing: Option<usize>,
    /// It has nothing to say until the end comes.
    asleep: bool,
}

/// What all clients together say, and how far they got.
#[derive(Debug)]
pub(crate) struct SqlWork {
    plan: SqlPlan,
    first: u16,
    hands: Vec<Hand>,
    issued: u32,
    /// The newest op that anybody executed, and its time in microseconds.
    newest: (u64, i64),
    filler_max: usize,
    pub(crate) counts: SqlCounts,
    pub(crate) coverage: Coverage,
}

/// What became of statements.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SqlCounts {
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) conflicts: u64,
    pub(crate) blocks: u64,
    pub(crate) commits: u64,
    pub(crate) unknown: u64,
    pub(crate) travels: u64,
}

/// What every client looks at in the end.
const LAST_LOOKS: [Look; 3] = [Look::Cells, Look::Entries, Look::Counters];

impl SqlWork {
    /// Nobody has said anything. The first of the clients has the number `first`, and a command holds `command_size_max`.
    pub(crate) fn new(plan: SqlPlan, first: u16, command_size_max: u32) -> Self {
        // What is changed stands in a command twice, as it was and as it will be.
        let filler_max = (plan.large_size as usize).min(command_size_max as usize / 4);
        Self {
            hands: (0..plan.clients).map(|_| Hand::default()).collect(),
            plan,
            first,
            issued: 0,
            newest: (0, 0),
            filler_max,
            counts: SqlCounts::default(),
            coverage: Coverage::default(),
        }
    }

    /// Whether this client speaks SQL.
    pub(crate) const fn is_one(&self, client: u16) -> bool {
        client >= self.first
    }

    fn hand(&mut self, client: u16) -> &mut Hand {
        &mut self.hands[usize::from(client - self.first)]
    }

    /// How long it thinks on average.
    pub(crate) const fn think(&self) -> std::time::Duration {
        self.plan.think
    }

    /// Whether everything was said.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.issued >= self.plan.statements
    }

    /// Requests without an outcome, those of the end that are still to come with them.
    pub(crate) fn open_total(&self) -> usize {
        let ends = |hand: &Hand| hand.closing.is_some_and(|done| done < LAST_LOOKS.len());
        self.hands.iter().filter(|hand| hand.open.is_some() || ends(hand)).count()
    }

    pub(crate) fn open_by_client(&self) -> impl Iterator<Item = (u16, Vec<u64>)> + '_ {
        let open = |(at, hand): (u16, &Hand)| Some((self.first + at, vec![hand.open.as_ref()?.0]));
        (0..).zip(&self.hands).filter_map(open)
    }

    /// Nothing breaks any more: what was begun is ended, and everything is looked at. Answers who has to be woken.
    pub(crate) fn close(&mut self) -> Vec<u16> {
        self.issued = self.plan.statements;
        for hand in &mut self.hands {
            hand.closing = Some(if hand.prepared < PREPARED.len() { LAST_LOOKS.len() } else { 0 });
        }
        (self.first..).zip(&mut self.hands).filter_map(|(c, hand)| hand.asleep.then_some(c)).collect()
    }

    /// Whether the client is to be woken again after its next wait.
    pub(crate) fn goes_on(&mut self, client: u16) -> bool {
        let exhausted = self.is_exhausted();
        let hand = self.hand(client);
        hand.asleep = match hand.closing {
            None => exhausted && hand.block.is_none() && hand.open.is_none(),
            Some(done) => done >= LAST_LOOKS.len() && hand.open.is_none(),
        };
        !hand.asleep
    }

    /// An op was executed somewhere.
    pub(crate) fn on_committed(&mut self, op: u64, time: WallTime) {
        if op > self.newest.0 {
            self.newest = (op, (time.0 / 1_000).cast_signed());
        }
    }

    /// The client lets its turn pass.
    pub(crate) fn pass(&mut self, client: u16) {
        self.issued += 1;
        self.hand(client).tickets += 1;
    }

    /// Whether the client has something to say now.
    pub(crate) fn may_say(&self, client: u16) -> bool {
        let hand = &self.hands[usize::from(client - self.first)];
        let ends = hand.closing.is_some_and(|done| done < LAST_LOOKS.len());
        hand.open.is_none()
            && (ends || hand.closing.is_none() && (!self.is_exhausted() || hand.block.is_some()))
    }

    /// What the client says next.
    pub(crate) fn next(&mut self, client: u16, dice: &mut Dice) -> Say {
        let tenant = self.plan.tenant(client - self.first);
        let hand = self.hand(client);
        hand.tickets += 1;
        let ticket = hand.tickets;
        if !hand.tenant {
            hand.open = Some((ticket, None));
            let command = Command::CreateTenant { name: "ward" }.encode();
            return Say::Tenant { ticket, tenant, command };
        }
        let in_block = hand.block.is_some();
        let deed = self.deed(client, dice);
        self.coverage.count(&deed);
        let hand = self.hand(client);
        hand.open = Some((ticket, Some(deed.clone())));
        let statement = Statement { tenant, in_block, text: deed.text() };
        Say::Statement { ticket, deed, statement }
    }

    fn deed(&mut self, client: u16, dice: &mut Dice) -> Deed {
        let base = QUESTIONS + u64::from(client - self.first) * QUESTIONS_EACH;
        let mut ask = |question: u64, bound: u64| dice.draw(Concern::Workload, base + question, bound.max(1));
        let hand = self.hand(client);
        if hand.dangling {
            return Deed::Rollback;
        }
        if hand.prepared < PREPARED.len() {
            return Deed::Prepare(hand.prepared);
        }
        if let (Some(done), None) = (hand.closing, &hand.block) {
            return Deed::Look(LAST_LOOKS[done].clone(), When::Now);
        }
        let closing = hand.closing.is_some();
        let (savepoint_ppm, rollback_ppm) = (self.plan.savepoint_ppm, self.plan.rollback_ppm);
        if let Some(block) = &mut self.hand(client).block {
            if block.failed {
                return match (block.savepoints.last(), ask(0, 8)) {
                    (Some(name), 0..=4) if !closing => Deed::RollbackTo(*name),
                    (_, 7) => Deed::Commit,
                    _ => Deed::Rollback,
                };
            }
            if block.left == 0 || closing {
                let gives_up = ask(1, 1_000_000) < u64::from(rollback_ppm);
                return if gives_up { Deed::Rollback } else { Deed::Commit };
            }
            block.left -= 1;
            if ask(2, 1_000_000) < u64::from(savepoint_ppm) {
                return match (block.savepoints.last().copied(), ask(3, 4)) {
                    (Some(name), 0) => Deed::Release(name),
                    (Some(name), 1 | 2) => Deed::RollbackTo(name),
                    _ => Deed::Savepoint(block.savepoints.len() as u32),
                };
            }
        } else {
            self.issued += 1;
        }
        let in_block = self.hand(client).block.is_some();
        self.about(client, in_block, &mut ask)
    }

    /// A statement on one of the themes that are on.
    fn about(&mut self, client: u16, in_block: bool, ask: &mut dyn FnMut(u64, u64) -> u64) -> Deed {
        // A block in a block is none, and indexes are made outside, where a schema that changed is no conflict.
        let fits = |theme: &Theme| !in_block || !matches!(theme, Theme::Blocks);
        let weight = |(theme, weight): (&Theme, &u32)| if fits(theme) { u64::from(*weight) } else { 0 };
        let total: u64 = self.plan.themes.iter().map(weight).sum();
        let mut drawn = ask(4, total);
        let chosen = self.plan.themes.iter().find(|at| {
            let weight = weight(*at);
            let here = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            here
        });
        let theme = chosen.map_or(Theme::Counters, |(theme, _)| *theme);
        let key = |ask: &mut dyn FnMut(u64, u64) -> u64, lists: u64| ask(5, lists);
        let (lists, keys, newest) = (self.plan.lists, self.plan.keys, self.newest);
        match theme {
            Theme::Cells | Theme::Entries => {
                let kind = if theme == Theme::Cells { Kind::Cell } else { Kind::Rows };
                let list = List { kind, key: key(ask, lists) };
                let large = ask(6, 1_000_000) < u64::from(self.plan.large_ppm);
                let filler = if large { ask(7, self.filler_max as u64) as usize } else { 0 };
                let upsert = ask(8, 3) > 0;
                let first = u64::from(client - self.first + 1) * ELEMENTS_EACH;
                let hand = self.hand(client);
                hand.elements += 1;
                let element = first + hand.elements;
                let number = match &mut hand.block {
                    Some(block) if kind == Kind::Rows => block.numbers.get_mut(&list.key).map(|last| {
                        *last += 1;
                        *last
                    }),
                    _ => None,
                };
                Deed::Append { list, element, number, upsert, filler }
            }
            Theme::Reads => {
                let kind = if ask(9, 2) == 0 { Kind::Cell } else { Kind::Rows };
                match ask(10, 8) {
                    0 => Deed::Look(Look::Cells, When::Now),
                    1 => Deed::Look(Look::Entries, When::Now),
                    _ => Deed::Read(List { kind, key: key(ask, lists) }),
                }
            }
            Theme::Counters => match ask(11, 6) {
                0 => Deed::Look(Look::Counters, When::Now),
                _ => Deed::Add { counter: ask(12, COUNTERS), by: 1 + ask(13, 2), returning: ask(14, 2) == 0 },
            },
            Theme::Changes => {
                let mut luck = |bound: u64| ask(15, bound);
                change(&mut luck, keys, newest.0)
            }
            Theme::Queries => {
                let query = Query::draw(&mut |bound: u64| ask(16, bound));
                Deed::Look(Look::Data(query), When::Now)
            }
            Theme::Travel => {
                let (op, micros) = newest;
                let snapshot = self.hand(client).block.as_ref().map(|block| block.snapshot);
                let when = if let Some(snapshot) = snapshot.filter(|_| ask(25, 2) == 0) {
                    When::Position(snapshot)
                } else if ask(17, 3) > 0 || micros == 0 {
                    let back = if ask(24, 3) == 0 { NEAR } else { BACK_MAX };
                    When::Position((op + AHEAD).saturating_sub(ask(18, back.min(op + AHEAD))))
                } else {
                    When::Time(micros - ask(19, 3_000_000).cast_signed())
                };
                let look = match ask(20, 8) {
                    0 => Look::Cells,
                    1 => Look::Entries,
                    2 => Look::EntriesOf(key(ask, lists)),
                    3 => Look::Counters,
                    _ => Look::Data(Query::draw(&mut |bound: u64| ask(16, bound))),
                };
                Deed::Look(look, when)
            }
            Theme::Indexes => {
                Deed::Index { index: ask(21, INDEXES.len() as u64) as usize, create: ask(22, 3) > 0 }
            }
            Theme::Bulk => {
                let from = BULK_FROM + ask(26, BULK_PLACES) * BULK_ROWS;
                match ask(27, 5) {
                    0 => Deed::Clear { from },
                    _ => Deed::Bulk { from, count: 1 + ask(28, 2 * BULK_ROWS), size: ask(29, BULK_SIZE) },
                }
            }
            Theme::Blocks => {
                let left = 1 + ask(23, self.plan.block_max);
                // It is open as soon as that is answered.
                self.hand(client).opens = left;
                Deed::Begin
            }
        }
    }

    /// The word on the tenant.
    pub(crate) fn on_done(&mut self, client: u16, ticket: u64, verdict: &Verdict) {
        let hand = self.hand(client);
        if hand.open.take_if(|(open, _)| *open == ticket).is_some() {
            hand.tenant = matches!(verdict.result, Ok(_) | Err(Refusal::TenantExists));
        }
    }

    /// The answer to a statement.
    pub(crate) fn on_answered(&mut self, client: u16, ticket: u64, answer: &SqlAnswer) {
        let newest = self.newest.0;
        let hand = self.hand(client);
        let Some((_, Some(deed))) = hand.open.take_if(|(open, _)| *open == ticket) else { return };
        let in_block = hand.block.is_some();
        let failed = answer.result.is_err();
        match (&deed, &mut hand.block) {
            (Deed::Prepare(step), _) if !failed => hand.prepared = step + 1,
            (Deed::Look(..), None) if !failed => {
                if let Some(done) = &mut hand.closing {
                    *done += 1;
                }
            }
            (Deed::Begin, _) if !failed => {
                let (left, savepoints, numbers) = (hand.opens, Vec::new(), BTreeMap::new());
                hand.block = Some(Block { left, failed: false, savepoints, snapshot: newest, numbers });
            }
            (Deed::Savepoint(name), Some(block)) if !failed => block.savepoints.push(*name),
            (Deed::Release(name), Some(block)) if !failed => block.savepoints.retain(|other| other < name),
            (Deed::RollbackTo(name), Some(block)) if !failed => {
                block.savepoints.retain(|other| other <= name);
                block.failed = false;
                block.numbers.clear();
            }
            (Deed::Read(List { kind: Kind::Rows, key }), Some(block)) => {
                if let Ok(rows) = &answer.result {
                    block.numbers.insert(*key, rows.rows.len() as u64);
                }
            }
            _ => {}
        }
        hand.dangling = false;
        if answer.in_block {
            match &mut hand.block {
                Some(block) => block.failed |= failed,
                // A block that was not to be is ended.
                None => hand.dangling = true,
            }
        } else {
            hand.block = None;
        }
        let counts = &mut self.counts;
        counts.answered += 1;
        counts.refused += u64::from(failed);
        counts.travels +=
            u64::from(matches!(deed, Deed::Look(_, When::Position(_) | When::Time(_))) && !failed);
        match &answer.result {
            Ok(rows) if deed == Deed::Commit => {
                counts.blocks += 1;
                counts.commits += u64::from(rows.tag == "COMMIT");
            }
            Ok(_) if deed.writes() && !in_block => counts.commits += 1,
            Err(failure) => {
                counts.conflicts += u64::from(failure.code.as_str() == "40001");
                counts.unknown += u64::from(failure.code.as_str() == "08007");
            }
            Ok(_) => {}
        }
    }

    /// There will be no answer. Tells whether it was a statement.
    pub(crate) fn on_failed(&mut self, client: u16, ticket: u64, sent: bool) -> bool {
        let hand = self.hand(client);
        let Some((_, deed)) = hand.open.take_if(|(open, _)| *open == ticket) else { return false };
        hand.block = None;
        // What was sent is lost with its connection, and so is the block. What was not sent says nothing of either.
        hand.dangling = !sent && hand.tenant;
        self.counts.unknown += u64::from(sent && deed.is_some());
        deed.is_some()
    }

    /// The client died. Answers the request that was open, and whether it was a statement.
    pub(crate) fn on_crashed(&mut self, client: u16) -> Option<(u64, bool)> {
        let hand = self.hand(client);
        let open = hand.open.take().map(|(ticket, deed)| (ticket, deed.is_some()));
        hand.block = None;
        hand.dangling = false;
        self.counts.unknown += u64::from(open.is_some_and(|(_, statement)| statement));
        open
    }
}

/// A change of `data`. Some inserts go by what everybody knows, so that two clients insert the same row at once.
fn change(ask: &mut Ask<'_>, keys: u64, newest: u64) -> Deed {
    match ask(8) {
        0..=3 => {
            let raced = (ask(3) == 0).then_some(RACED_FROM + newest / RACED_EVERY);
            let count = 1 + ask(4);
            let mut rows: Vec<DataRow> = Vec::new();
            for _ in 0..count {
                let id = raced.filter(|_| rows.is_empty()).unwrap_or_else(|| ask(keys)).cast_signed();
                let (a, b) = (constant(ask), constant(ask));
                let s = TEXTS.get(ask(TEXTS.len() as u64 + 1) as usize).map(|s| (*s).to_owned());
                // The same row cannot be inserted twice by one statement.
                if rows.iter().all(|row| row.id != id) {
                    rows.push(DataRow { id, a, b, s });
                }
            }
            Deed::Insert { rows, upsert: raced.is_none() && ask(3) > 0 }
        }
        4..=6 => {
            let of = if ask(2) == 0 { Condition::simple(ask) } else { Condition::draw(ask) };
            let text = TEXTS.get(ask(TEXTS.len() as u64 * 2) as usize).copied();
            Deed::Update { of, by: ask(3).cast_signed() - 1, text }
        }
        _ => Deed::Delete {
            of: Condition::And(Box::new(Condition::simple(ask)), Box::new(Condition::draw(ask))),
        },
    }
}
