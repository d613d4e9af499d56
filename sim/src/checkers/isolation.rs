//! Transactions are strictly serializable, from what clients wrote and read alone.
//!
//! Lists are appended to with elements that nobody else appends, so a read of one shows the order of its versions. From
//! that follow edges between transactions: who wrote the next version (*ww*), who read what another wrote (*wr*), who read
//! what another then replaced (*rw*), and who ended before another began (*time*). A cycle of edges is a contradiction.
//! (Kingsbury, Alvaro: *Elle: Inferring Isolation Anomalies from Experimental Observations*, VLDB 2020.)

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use kimberlite_types::Instant;

use super::hold;
use super::transactions::{Act, Fate, ListOf, Transaction, Transactions};
use crate::sql::List;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "isolation";
const ORDER: &str = "all reads of a list agree on its order";
const TWICE: &str = "an element is appended once";
const NOBODY: &str = "nothing is read that nobody wrote";
const ABORTED: &str = "nothing is read that was taken back or refused";
const INTERMEDIATE: &str = "nothing is read of a transaction that it went on to change";
const INTERNAL: &str = "a transaction reads its own snapshot with its own writes";
const NUMBERED: &str = "a list of rows is numbered from 1 without gaps";
const LOST: &str = "what was acknowledged is read by whoever begins later";
const CYCLE: &str = "transactions have an order that agrees with all they read and with time";

/// Edges of a cycle that are told at most.
const TOLD_MAX: usize = 12;

/// Gathers transactions, and judges them at the end.
#[derive(Default)]
pub struct Isolation {
    transactions: Transactions,
    compared: u64,
}

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Ww,
    Wr,
    Rw,
    Time,
}

/// From one transaction to another: an edge, and what it follows from.
type Edges = BTreeMap<(usize, usize), (Edge, String)>;

/// The reads of a transaction, each list at most at what it was outside of the transaction.
fn reads(transaction: &Transaction) -> Vec<(ListOf, &[u64], bool)> {
    let mut reads = Vec::new();
    for act in &transaction.acts {
        match act {
            Act::Read(list, elements, numbered) => reads.push((*list, elements.as_slice(), *numbered)),
            Act::ReadAll(tenant, kind, lists, numbered) => {
                for (key, elements) in lists {
                    let list = (*tenant, List { kind: *kind, key: *key });
                    reads.push((list, elements.as_slice(), *numbered));
                }
            }
            _ => {}
        }
    }
    reads
}

/// Everything that is known of one list.
#[derive(Default)]
struct Known {
    /// The longest order that was read.
    order: Vec<u64>,
    /// Who read which beginning of it: the transaction, and how many elements.
    readers: Vec<(usize, usize)>,
}

impl Isolation {
    fn judge(&mut self) -> Result<(), Violation> {
        let all = &self.transactions.all;
        let mut writers: BTreeMap<(ListOf, u64), usize> = BTreeMap::new();
        let mut refused: BTreeMap<(ListOf, u64), usize> = BTreeMap::new();
        for (number, transaction) in all.iter().enumerate() {
            let put = |act: &Act, into: &mut BTreeMap<_, _>| {
                if let Act::Append(list, element) = act {
                    into.insert((*list, *element), number);
                }
            };
            for act in &transaction.acts {
                put(act, if transaction.fate == Fate::Aborted { &mut refused } else { &mut writers });
            }
            transaction.taken_back.iter().for_each(|act| put(act, &mut refused));
        }
        for (number, transaction) in all.iter().enumerate() {
            self.compared += 1;
            internal(number, transaction)?;
        }
        let mut lists: BTreeMap<ListOf, Known> = BTreeMap::new();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        for (number, transaction) in all.iter().enumerate() {
            if transaction.fate != Fate::Committed {
                continue;
            }
            seen.insert(number);
            for (list, elements, numbered) in all_reads(all, transaction) {
                self.compared += 1;
                hold!(numbered, NUMBERED, None, None, "{}: {list:?} is {elements:?}", told(all, number));
                let mut once = BTreeSet::new();
                // Its own elements stand at the end, and are no part of what others wrote.
                let mut outside = Vec::new();
                for element in elements {
                    hold!(
                        once.insert(*element),
                        TWICE,
                        None,
                        None,
                        "{} reads {element} twice in {list:?}: {elements:?}",
                        told(all, number)
                    );
                    let written = writers.get(&(list, *element));
                    let taken_back = refused.get(&(list, *element));
                    let own = written.or(taken_back) == Some(&number);
                    hold!(
                        own || taken_back.is_none(),
                        ABORTED,
                        None,
                        None,
                        "{} reads {element} in {list:?}, which {} did not do",
                        told(all, number),
                        told(all, taken_back.copied().unwrap_or(number))
                    );
                    hold!(
                        own || written.is_some(),
                        NOBODY,
                        None,
                        None,
                        "{} reads {element} in {list:?}: {elements:?}",
                        told(all, number)
                    );
                    if !own {
                        outside.push(*element);
                        seen.extend(written);
                    }
                }
                let known = lists.entry(list).or_default();
                let common = known.order.len().min(outside.len());
                hold!(
                    known.order[..common] == outside[..common],
                    ORDER,
                    None,
                    None,
                    "{} reads {outside:?} in {list:?}; others read {:?}",
                    told(all, number),
                    known.order
                );
                known.readers.push((number, outside.len()));
                if outside.len() > known.order.len() {
                    known.order = outside;
                }
            }
        }
        self.lost(&writers, &lists)?;
        let edges = self.edges(&writers, &lists, &seen)?;
        self.compared += edges.len() as u64;
        acyclic(all, &edges, &seen)
    }

    /// What was acknowledged before somebody began who then read the list is in what they read.
    fn lost(
        &self,
        writers: &BTreeMap<(ListOf, u64), usize>,
        lists: &BTreeMap<ListOf, Known>,
    ) -> Result<(), Violation> {
        let all = &self.transactions.all;
        for ((list, element), writer) in writers {
            let Some(known) = lists.get(list) else { continue };
            let (Some(ended), Fate::Committed) = (all[*writer].ended, all[*writer].fate) else { continue };
            let place = known.order.iter().position(|other| other == element);
            for (reader, count) in &known.readers {
                hold!(
                    reader == writer
                        || all[*reader].began <= ended
                        || place.is_some_and(|place| place < *count),
                    LOST,
                    None,
                    None,
                    "{} appended {element} to {list:?}, and {} reads {:?}",
                    told(all, *writer),
                    told(all, *reader),
                    &known.order[..*count]
                );
            }
        }
        Ok(())
    }

    fn edges(
        &self,
        writers: &BTreeMap<(ListOf, u64), usize>,
        lists: &BTreeMap<ListOf, Known>,
        seen: &BTreeSet<usize>,
    ) -> Result<Edges, Violation> {
        let all = &self.transactions.all;
        let mut edges: Edges = BTreeMap::new();
        let mut put = |from: usize, to: usize, edge: Edge, why: &dyn Fn() -> String| {
            if from != to && seen.contains(&from) && seen.contains(&to) {
                edges.entry((from, to)).or_insert_with(|| (edge, why()));
            }
        };
        for (list, known) in lists {
            let who = |at: usize| known.order.get(at).and_then(|element| writers.get(&(*list, *element)));
            for at in 1..known.order.len() {
                if let (Some(before), Some(after)) = (who(at - 1), who(at)) {
                    put(*before, *after, Edge::Ww, &|| {
                        format!("appended {} to {list:?} before {}", known.order[at - 1], known.order[at])
                    });
                }
            }
            // Those that nobody has read yet come behind all that was read.
            let unread: Vec<(u64, usize)> = writers
                .range((*list, 0)..=(*list, u64::MAX))
                .filter(|((_, element), writer)| {
                    all[**writer].fate == Fate::Committed && !known.order.contains(element)
                })
                .map(|((_, element), writer)| (*element, *writer))
                .collect();
            for (reader, count) in &known.readers {
                if let Some(writer) = count.checked_sub(1).and_then(who) {
                    put(*writer, *reader, Edge::Wr, &|| {
                        format!("wrote {} to {list:?}, which is read", known.order[count - 1])
                    });
                    self.intermediate(list, known, *count, *writer, *reader)?;
                }
                if let Some(writer) = who(*count) {
                    put(*reader, *writer, Edge::Rw, &|| {
                        format!("read {list:?} without {}", known.order[*count])
                    });
                }
                for (element, writer) in unread.iter().filter(|_| *count == known.order.len()) {
                    put(*reader, *writer, Edge::Rw, &|| format!("read {list:?} without {element}"));
                }
            }
        }
        Ok(edges)
    }

    /// A reader that sees the last element of a beginning sees all that its writer appended behind it.
    fn intermediate(
        &self,
        list: &ListOf,
        known: &Known,
        count: usize,
        writer: usize,
        reader: usize,
    ) -> Result<(), Violation> {
        let all = &self.transactions.all;
        let later: Vec<u64> = all[writer]
            .acts
            .iter()
            .filter_map(|act| match act {
                Act::Append(other, element) if other == list => Some(*element),
                _ => None,
            })
            .skip_while(|element| *element != known.order[count - 1])
            .skip(1)
            .collect();
        hold!(
            later.is_empty() || writer == reader,
            INTERMEDIATE,
            None,
            None,
            "{} reads {list:?} up to {}, and {} also appended {later:?}",
            told(all, reader),
            known.order[count - 1],
            told(all, writer)
        );
        Ok(())
    }
}

/// All reads of a transaction, with the lists that a look at all of them does not show.
fn all_reads<'a>(all: &'a [Transaction], transaction: &'a Transaction) -> Vec<(ListOf, &'a [u64], bool)> {
    let mut found = reads(transaction);
    for act in &transaction.acts {
        let Act::ReadAll(tenant, kind, lists, _) = act else { continue };
        let keys: BTreeSet<u64> = all
            .iter()
            .flat_map(|other| &other.acts)
            .filter_map(|act| match act {
                Act::Append((of, list), _) if of == tenant && list.kind == *kind => Some(list.key),
                _ => None,
            })
            .collect();
        for key in keys.into_iter().filter(|key| !lists.contains_key(key)) {
            found.push(((*tenant, List { kind: *kind, key }), &[], true));
        }
    }
    found
}

/// Each read of a list shows what the one before did, and what was appended since.
fn internal(number: usize, transaction: &Transaction) -> Result<(), Violation> {
    let mut known: BTreeMap<ListOf, Vec<u64>> = BTreeMap::new();
    // What was taken back may have been read before.
    let taken_back: BTreeSet<(ListOf, u64)> = transaction
        .taken_back
        .iter()
        .filter_map(|act| match act {
            Act::Append(list, element) => Some((*list, *element)),
            _ => None,
        })
        .collect();
    for act in &transaction.acts {
        if let Act::Append(list, element) = act
            && let Some(known) = known.get_mut(list)
        {
            known.push(*element);
        }
        let single = Transaction { acts: vec![act.clone()], ..transaction.clone() };
        for (list, elements, _) in reads(&single) {
            let elements: Vec<u64> =
                elements.iter().filter(|element| !taken_back.contains(&(list, **element))).copied().collect();
            let before = known.get(&list);
            hold!(
                before.is_none_or(|before| *before == elements),
                INTERNAL,
                None,
                None,
                "transaction {number} of client {} reads {elements:?} in {list:?}; due is {before:?}",
                transaction.client
            );
            known.insert(list, elements);
        }
    }
    Ok(())
}

fn told(all: &[Transaction], number: usize) -> String {
    let Transaction { client, began, ended, fate, .. } = &all[number];
    let ended = ended.map_or_else(|| "…".to_owned(), |ended| ended.to_string());
    format!("transaction {number} (client {client}, {began} to {ended}, {fate:?})")
}

/// The graph of transactions, with nodes for moments between them: who ended before a moment, and who began after it.
fn acyclic(all: &[Transaction], edges: &Edges, seen: &BTreeSet<usize>) -> Result<(), Violation> {
    let mut ends: Vec<u64> = seen.iter().filter_map(|number| all[*number].ended).collect();
    ends.sort_unstable();
    let moment = |at: usize| all.len() + at;
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); all.len() + ends.len()];
    for (from, to) in edges.keys() {
        next[*from].push(*to);
    }
    for at in 1..ends.len() {
        next[moment(at - 1)].push(moment(at));
    }
    for number in seen {
        if let (Some(ended), Fate::Committed) = (all[*number].ended, all[*number].fate) {
            let at = ends.partition_point(|other| *other < ended);
            next[*number].push(moment(at));
        }
        let before = ends.partition_point(|ended| *ended < all[*number].began);
        if let Some(at) = before.checked_sub(1) {
            next[moment(at)].push(*number);
        }
    }
    let Some(cycle) = cycle(&next) else { return Ok(()) };
    let members: Vec<usize> = cycle.into_iter().filter(|node| *node < all.len()).collect();
    let mut seen_text = String::new();
    for (at, from) in members.iter().enumerate().take(TOLD_MAX) {
        let to = members[(at + 1) % members.len()];
        let why = edges.get(&(*from, to));
        let why = why.map_or_else(
            || format!("ended before the next began ({:?})", Edge::Time),
            |(edge, why)| format!("{why} ({edge:?})"),
        );
        write!(seen_text, "{} {why}; ", told(all, *from)).expect("strings grow");
    }
    hold!(false, CYCLE, None, None, "{seen_text}and so on: {} in a circle", members.len());
    Ok(())
}

/// A shortest cycle through some node that lies on one.
fn cycle(next: &[Vec<usize>]) -> Option<Vec<usize>> {
    // What has no way in is on no cycle, and so on (Kahn): what is left leads to one.
    let mut incoming = vec![0_usize; next.len()];
    for to in next.iter().flatten() {
        incoming[*to] += 1;
    }
    let mut free: Vec<usize> = (0..next.len()).filter(|node| incoming[*node] == 0).collect();
    let mut left = next.len();
    while let Some(node) = free.pop() {
        left -= 1;
        for to in &next[node] {
            incoming[*to] -= 1;
            if incoming[*to] == 0 {
                free.push(*to);
            }
        }
    }
    if left == 0 {
        return None;
    }
    (0..next.len())
        .filter(|node| incoming[*node] > 0)
        .filter_map(|node| around(next, node))
        .min_by_key(Vec::len)
}

/// The shortest way from a node back to it.
fn around(next: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for to in &next[node] {
            if *to == start {
                let mut way = vec![node];
                while let Some(before) =
                    way.last().filter(|last| **last != start).and_then(|last| from.get(last))
                {
                    way.push(*before);
                }
                way.reverse();
                return Some(way);
            }
            if *to != start && !from.contains_key(to) {
                from.insert(*to, node);
                queue.push_back(*to);
            }
        }
    }
    None
}

impl Checker for Isolation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[ORDER, TWICE, NOBODY, ABORTED, INTERMEDIATE, INTERNAL, NUMBERED, LOST, CYCLE]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        self.transactions.observe(seen);
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
        self.judge()
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use crate::sql::{Deed, Kind, Look, When};

    const CELL: List = List { kind: Kind::Cell, key: 1 };
    const OTHER: List = List { kind: Kind::Cell, key: 2 };
    const ROWS: List = List { kind: Kind::Rows, key: 1 };

    fn append(list: List, element: u64) -> Deed {
        Deed::Append { list, element, number: None, upsert: true, filler: 0 }
    }

    /// Whole transactions, one after the other, and the verdict on them.
    fn judged(story: impl FnOnce(&mut Speech<'_>)) -> Result<(), Violation> {
        let mut checker = Isolation::default();
        story(&mut Speech(&mut checker));
        let history = History::new(3);
        finish_on(&mut checker, &history, |_| {})
    }

    #[track_caller]
    fn breaks(rule: &str, story: impl FnOnce(&mut Speech<'_>)) {
        assert_broken(&checker_rules(&Isolation::default()), judged(story), rule);
    }

    #[test]
    fn transactions_blocks_and_unknown_outcomes_that_agree_pass() {
        judged(|says| {
            says.done(0, &append(CELL, 1), "INSERT 0 1", &[]);
            says.begin(1);
            says.in_block(1, &Deed::Read(CELL), "SELECT 1", &[&[",1"]]);
            says.in_block(1, &append(CELL, 2), "UPDATE 1", &[]);
            says.in_block(1, &Deed::Savepoint(0), "SAVEPOINT", &[]);
            says.in_block(1, &append(CELL, 3), "UPDATE 1", &[]);
            says.in_block(1, &Deed::Read(CELL), "SELECT 1", &[&[",1,2,3"]]);
            says.in_block(1, &Deed::RollbackTo(0), "ROLLBACK", &[]);
            says.in_block(1, &Deed::Read(CELL), "SELECT 1", &[&[",1,2"]]);
            says.end(1, "COMMIT");
            says.lost(2, &append(CELL, 4));
            says.refused(0, &append(CELL, 5), "40001");
            says.done(0, &Deed::Read(CELL), "SELECT 1", &[&[",1,2,4"]]);
            says.done(0, &append(ROWS, 6), "INSERT 0 1", &[]);
            says.done(0, &Deed::Look(Look::Entries, When::Now), "SELECT 1", &[&["1", "1", "6"]]);
            says.done(0, &Deed::Look(Look::Cells, When::Now), "SELECT 1", &[&["1", ",1,2,4"]]);
        })
        .unwrap();
    }

    #[test]
    fn lists_that_are_read_in_two_orders_twice_or_from_nowhere_are_noticed() {
        breaks(ORDER, |says| {
            says.lost(0, &append(CELL, 1));
            says.lost(1, &append(CELL, 2));
            says.done(2, &Deed::Read(CELL), "SELECT 1", &[&[",1,2"]]);
            says.done(3, &Deed::Read(CELL), "SELECT 1", &[&[",2,1"]]);
        });
        breaks(TWICE, |says| {
            says.done(0, &append(CELL, 1), "UPDATE 1", &[]);
            says.done(0, &Deed::Read(CELL), "SELECT 1", &[&[",1,1"]]);
        });
        breaks(NOBODY, |says| says.done(0, &Deed::Read(CELL), "SELECT 1", &[&[",9"]]));
        breaks(NUMBERED, |says| {
            says.done(0, &append(ROWS, 1), "INSERT 0 1", &[]);
            says.done(1, &append(ROWS, 2), "INSERT 0 1", &[]);
            says.done(1, &Deed::Read(ROWS), "SELECT 2", &[&["1", "1"], &["1", "2"]]);
        });
    }

    #[test]
    fn what_was_refused_taken_back_or_half_done_must_not_be_read() {
        breaks(ABORTED, |says| {
            says.refused(0, &append(CELL, 1), "40001");
            says.done(1, &Deed::Read(CELL), "SELECT 1", &[&[",1"]]);
        });
        breaks(ABORTED, |says| {
            says.begin(0);
            says.in_block(0, &Deed::Savepoint(0), "SAVEPOINT", &[]);
            says.in_block(0, &append(CELL, 1), "UPDATE 1", &[]);
            says.in_block(0, &Deed::RollbackTo(0), "ROLLBACK", &[]);
            says.end(0, "COMMIT");
            says.done(1, &Deed::Read(CELL), "SELECT 1", &[&[",1"]]);
        });
        breaks(INTERMEDIATE, |says| {
            says.begin(0);
            says.in_block(0, &append(CELL, 1), "UPDATE 1", &[]);
            says.in_block(0, &append(CELL, 2), "UPDATE 1", &[]);
            says.lost_in_block(0, &Deed::Commit);
            says.done(1, &Deed::Read(CELL), "SELECT 1", &[&[",1"]]);
            says.done(1, &Deed::Read(CELL), "SELECT 1", &[&[",1,2"]]);
        });
    }

    #[test]
    fn a_transaction_that_does_not_read_its_own_writes_is_noticed() {
        breaks(INTERNAL, |says| {
            says.begin(0);
            says.in_block(0, &Deed::Read(CELL), "SELECT 0", &[]);
            says.in_block(0, &append(CELL, 1), "INSERT 0 1", &[]);
            says.in_block(0, &Deed::Read(CELL), "SELECT 0", &[]);
            says.end(0, "COMMIT");
        });
    }

    #[test]
    fn an_acknowledged_append_that_is_not_read_later_is_noticed() {
        breaks(LOST, |says| {
            says.done(0, &append(CELL, 1), "INSERT 0 1", &[]);
            says.done(1, &Deed::Look(Look::Cells, When::Now), "SELECT 0", &[]);
        });
    }

    #[test]
    fn two_transactions_that_each_read_what_the_other_changes_are_noticed() {
        // Write skew: no version is written by both, and neither saw the other.
        breaks(CYCLE, |says| {
            says.begin(0);
            says.begin(1);
            says.in_block(0, &Deed::Read(CELL), "SELECT 0", &[]);
            says.in_block(1, &Deed::Read(OTHER), "SELECT 0", &[]);
            says.in_block(0, &append(OTHER, 1), "INSERT 0 1", &[]);
            says.in_block(1, &append(CELL, 2), "INSERT 0 1", &[]);
            says.end(0, "COMMIT");
            says.end(1, "COMMIT");
            says.done(2, &Deed::Look(Look::Cells, When::Now), "SELECT 2", &[&["1", ",2"], &["2", ",1"]]);
        });
    }

    #[test]
    fn an_order_that_time_contradicts_is_noticed() {
        // The second append is read, the first one of another list is not, though it was acknowledged before.
        breaks(CYCLE, |says| {
            says.lost(0, &append(CELL, 1));
            says.done(1, &Deed::Read(CELL), "SELECT 1", &[&[",1"]]);
            says.done(1, &append(OTHER, 2), "INSERT 0 1", &[]);
            says.begin(2);
            says.in_block(2, &Deed::Read(OTHER), "SELECT 1", &[&[",2"]]);
            says.in_block(2, &Deed::Read(CELL), "SELECT 0", &[]);
            says.end(2, "COMMIT");
        });
    }
}
