//! What clients ask: tenants and streams, batches of records that say who wrote them, reads, and
//! commands that must be refused.

use std::collections::BTreeMap;

use kimberlite_io_sim::{Concern, Dice};
use kimberlite_types::{Layout, Offset, ReplicaId, StreamId, TenantId};
use kimberlite_wire::client::{Answer, Query};
use kimberlite_wire::command::{Command, Outcome, RecordsBuilder, Refusal, Verdict};

use crate::config::WorkPlan;

/// Bytes in front of a record's filler: client, ticket, index, length of the filler.
const RECORD_HEAD: usize = 2 + 8 + 4 + 4;

/// The largest number of tenants and streams stands for none: asked for, never created.
const NOWHERE: u64 = 1 << 40;

/// What a client is to ask next.
#[derive(Debug)]
pub(crate) enum Ask {
    Command { ticket: u64, tenant: TenantId, command: Vec<u8> },
    Query { ticket: u64, query: Query, to: Option<ReplicaId> },
}

/// What an open request was about.
#[derive(Clone, Copy, Debug)]
enum Open {
    Append(TenantId, StreamId),
    Other,
}

/// What is known of one client.
#[derive(Debug, Default)]
struct Hand {
    tickets: u64,
    open: BTreeMap<u64, Open>,
}

/// The plan, and how far it got.
#[derive(Debug)]
pub(crate) struct Workload {
    plan: WorkPlan,
    command_size_max: usize,
    replicas: u8,
    hands: Vec<Hand>,
    issued: u32,
    /// Creations that the first client still has to ask for, last one first.
    creations: Vec<(TenantId, Option<StreamId>)>,
    /// Where each stream ends, as far as clients were told.
    ends: BTreeMap<(TenantId, StreamId), u64>,
    builder: RecordsBuilder,
    record: Vec<u8>,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
}

impl Workload {
    pub(crate) fn new(plan: WorkPlan, layout: &Layout, replicas: u8) -> Self {
        let mut creations = Vec::new();
        for tenant in (1..=plan.tenants).map(TenantId) {
            creations.extend((1..=plan.streams).map(|stream| (tenant, Some(StreamId(stream)))).rev());
            creations.push((tenant, None));
        }
        Self {
            plan,
            command_size_max: layout.command_size_max() as usize,
            replicas,
            hands: (0..plan.clients).map(|_| Hand::default()).collect(),
            issued: 0,
            creations,
            ends: BTreeMap::new(),
            builder: RecordsBuilder::default(),
            record: Vec::new(),
            done: 0,
            refused: 0,
            answered: 0,
            failed: 0,
        }
    }

    /// Whether every request was asked.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.issued >= self.plan.requests
    }

    /// Whether every request was asked and has an outcome.
    pub(crate) fn is_done(&self) -> bool {
        self.is_exhausted() && self.open_total() == 0
    }

    /// Requests without an outcome.
    pub(crate) fn open_total(&self) -> usize {
        self.hands.iter().map(|hand| hand.open.len()).sum()
    }

    /// The open requests of each client that has any.
    pub(crate) fn open_by_client(&self) -> impl Iterator<Item = (u16, Vec<u64>)> + '_ {
        (0..)
            .zip(&self.hands)
            .filter(|(_, hand)| !hand.open.is_empty())
            .map(|(client, hand)| (client, hand.open.keys().copied().collect()))
    }

    /// Lets only `more` further requests be asked, one of each client at least.
    pub(crate) fn stop_after(&mut self, more: u32) {
        self.plan.requests = self.issued + more;
    }

    /// Whether the client may ask: not everything was asked, and it has room for one more.
    pub(crate) fn may_ask(&self, client: u16) -> bool {
        let open = self.hands[usize::from(client)].open.len();
        !self.is_exhausted() && open < self.plan.open_max as usize
    }

    /// The client lets its turn pass. It counts, and its next request is the one that it would have been.
    pub(crate) fn pass(&mut self, client: u16) {
        self.issued += 1;
        self.hands[usize::from(client)].tickets += 1;
    }

    /// What the client asks next; nothing when it has enough open or all was asked.
    pub(crate) fn next(&mut self, client: u16, dice: &mut Dice) -> Option<Ask> {
        if !self.may_ask(client) {
            return None;
        }
        self.issued += 1;
        let hand = &mut self.hands[usize::from(client)];
        hand.tickets += 1;
        let ticket = hand.tickets;
        let luck = &mut Luck { dice, client };
        if client == 0
            && let Some(creation) = self.creations.pop()
        {
            return Some(self.create(client, ticket, creation));
        }
        if client + self.plan.readers >= self.plan.clients || luck.chance(0, self.plan.query_ppm) {
            return Some(self.query(client, ticket, luck));
        }
        if luck.chance(1, self.plan.refused_ppm) {
            return Some(self.refusable(client, ticket, luck));
        }
        Some(self.append(client, ticket, luck))
    }

    fn create(&mut self, client: u16, ticket: u64, creation: (TenantId, Option<StreamId>)) -> Ask {
        let (tenant, stream) = creation;
        let command = match stream {
            None => Command::CreateTenant { name: "clinic" }.encode(),
            Some(stream) => Command::CreateStream { stream, name: "visits" }.encode(),
        };
        self.command(client, ticket, tenant, command, Open::Other)
    }

    fn query(&mut self, client: u16, ticket: u64, luck: &mut Luck<'_>) -> Ask {
        let (tenant, stream) = self.somewhere(luck);
        let (query, to) = match luck.below(2, 8) {
            0 if self.plan.give_up.is_some() => {
                let to = luck.below(3, u64::from(self.replicas)) as u8;
                (Query::Status, Some(ReplicaId(to)))
            }
            0 => (Query::Status, None),
            1 => (Query::StreamInfo { tenant, stream }, None),
            2 => (Query::Streams { tenant, from: stream, streams_max: 1 + ticket as u32 % 4 }, None),
            _ => {
                let end = self.ends.get(&(tenant, stream)).copied().unwrap_or(0);
                let from = Offset(luck.below(4, end + 2));
                let records_max = 1 + luck.below(5, 64) as u32;
                let bytes_max = 1 << luck.below(6, 18);
                (Query::ReadEvents { tenant, stream, from, records_max, bytes_max }, None)
            }
        };
        self.hands[usize::from(client)].open.insert(ticket, Open::Other);
        Ask::Query { ticket, query, to }
    }

    /// A command that no correct cluster carries out.
    fn refusable(&mut self, client: u16, ticket: u64, luck: &mut Luck<'_>) -> Ask {
        let (tenant, stream) = self.somewhere(luck);
        let nowhere = StreamId(NOWHERE + luck.below(7, 3));
        self.builder.clear();
        self.builder.push(b"to be refused");
        let (tenant, command) = match luck.below(8, 7) {
            0 => (tenant, Command::CreateTenant { name: "again" }.encode()),
            1 => (tenant, Command::CreateStream { stream, name: "again" }.encode()),
            2 => (TenantId(NOWHERE), Command::CreateStream { stream, name: "lost" }.encode()),
            3 => {
                let records = self.builder.records();
                (tenant, Command::AppendBatch { stream: nowhere, expected: None, records }.encode())
            }
            4 => {
                let expected = Some(Offset(NOWHERE));
                let records = self.builder.records();
                (tenant, Command::AppendBatch { stream, expected, records }.encode())
            }
            5 => (tenant, vec![0xff; 1 + luck.below(9, 40) as usize]),
            _ => (tenant, vec![7; self.command_size_max + 1]),
        };
        self.command(client, ticket, tenant, command, Open::Other)
    }

    fn append(&mut self, client: u16, ticket: u64, luck: &mut Luck<'_>) -> Ask {
        let (tenant, stream) = self.somewhere(luck);
        let huge = luck.chance(10, self.plan.huge_ppm);
        let count = if huge { 1 } else { 1 + luck.below(11, u64::from(self.plan.records_max)) as u32 };
        // Besides the records, a command holds its kind, the stream, the expected offset and two lengths.
        let room = self.command_size_max - 64;
        self.builder.clear();
        for index in 0..count {
            let size = if huge {
                room - 4 - luck.below(12, 64) as usize
            } else {
                RECORD_HEAD
                    + luck.below(13, u64::from(self.plan.record_size_max) - RECORD_HEAD as u64) as usize
            };
            if self.builder.size() + 4 + size > room {
                break;
            }
            write_record(&mut self.record, client, ticket, index, size);
            self.builder.push(&self.record);
        }
        if self.builder.is_empty() {
            write_record(&mut self.record, client, ticket, 0, RECORD_HEAD);
            self.builder.push(&self.record);
        }
        let expected = luck
            .chance(14, self.plan.expected_ppm)
            .then(|| Offset(self.ends.get(&(tenant, stream)).copied().unwrap_or(0)));
        let command = Command::AppendBatch { stream, expected, records: self.builder.records() }.encode();
        assert!(command.len() <= self.command_size_max, "the workload knows the largest command");
        self.command(client, ticket, tenant, command, Open::Append(tenant, stream))
    }

    fn command(&mut self, client: u16, ticket: u64, tenant: TenantId, command: Vec<u8>, open: Open) -> Ask {
        self.hands[usize::from(client)].open.insert(ticket, open);
        Ask::Command { ticket, tenant, command }
    }

    fn somewhere(&self, luck: &mut Luck<'_>) -> (TenantId, StreamId) {
        let tenant = TenantId(1 + luck.below(15, self.plan.tenants));
        (tenant, StreamId(1 + luck.below(16, self.plan.streams)))
    }

    /// Hears the final word on a command.
    pub(crate) fn on_done(&mut self, client: u16, ticket: u64, verdict: &Verdict) {
        let open = self.hands[usize::from(client)].open.remove(&ticket);
        self.done += 1;
        let known = |open| match open {
            Some(Open::Append(tenant, stream)) => Some((tenant, stream)),
            _ => None,
        };
        match verdict.result {
            Ok(Outcome::Appended { first, count }) => {
                if let Some(stream) = known(open) {
                    let end = self.ends.entry(stream).or_default();
                    *end = (*end).max(first.0 + u64::from(count));
                }
            }
            Ok(_) => {}
            Err(refusal) => {
                self.refused += 1;
                if let (Refusal::OffsetMismatch { actual }, Some(stream)) = (refusal, known(open)) {
                    self.ends.insert(stream, actual.0);
                }
            }
        }
    }

    /// Hears an answer.
    pub(crate) fn on_answered(&mut self, client: u16, ticket: u64, _: &Answer) {
        self.hands[usize::from(client)].open.remove(&ticket);
        self.answered += 1;
    }

    /// Hears that there will be no final word.
    pub(crate) fn on_failed(&mut self, client: u16, ticket: u64) {
        self.hands[usize::from(client)].open.remove(&ticket);
        self.failed += 1;
    }

    /// The client died: its open requests have an outcome that nobody knows.
    pub(crate) fn on_crashed(&mut self, client: u16) -> Vec<u64> {
        let lost: Vec<u64> = std::mem::take(&mut self.hands[usize::from(client)].open).into_keys().collect();
        self.failed += lost.len() as u64;
        lost
    }
}

/// A client's luck: one lane per question, so that no question shifts another.
struct Luck<'a> {
    dice: &'a mut Dice,
    client: u16,
}

impl Luck<'_> {
    const fn key(&self, question: u64) -> u64 {
        self.client as u64 * 32 + question
    }

    fn below(&mut self, question: u64, bound: u64) -> u64 {
        self.dice.draw(Concern::Workload, self.key(question), bound)
    }

    fn chance(&mut self, question: u64, ppm: u32) -> bool {
        self.dice.chance_ppm(Concern::Workload, self.key(question), ppm)
    }
}

/// A record that says who wrote it; the filler follows from the head, so that a record can be checked alone.
fn write_record(record: &mut Vec<u8>, client: u16, ticket: u64, index: u32, size: usize) {
    record.clear();
    let filler = size.saturating_sub(RECORD_HEAD);
    record.extend_from_slice(&client.to_le_bytes());
    record.extend_from_slice(&ticket.to_le_bytes());
    record.extend_from_slice(&index.to_le_bytes());
    record.extend_from_slice(&(filler as u32).to_le_bytes());
    let mut word =
        (u64::from(client) << 48 | ticket << 16 | u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while record.len() < size.max(RECORD_HEAD) {
        word = word.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(17) ^ 0x5bd1_e995;
        let rest = size.max(RECORD_HEAD) - record.len();
        record.extend_from_slice(&word.to_le_bytes()[..rest.min(8)]);
    }
}

/// Whether a record is one that [`Workload`] makes, by its own account: client, ticket and index.
pub fn record_author(record: &[u8]) -> Option<(u16, u64, u32)> {
    let (head, _) = record.split_at_checked(RECORD_HEAD)?;
    let client = u16::from_le_bytes(head[..2].try_into().ok()?);
    let ticket = u64::from_le_bytes(head[2..10].try_into().ok()?);
    let index = u32::from_le_bytes(head[10..14].try_into().ok()?);
    let mut again = Vec::with_capacity(record.len());
    write_record(&mut again, client, ticket, index, record.len());
    (again == record).then_some((client, ticket, index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn a_record_names_its_author_and_no_byte_of_it_can_change() {
        let mut record = Vec::new();
        for size in [RECORD_HEAD, 19, 64, 300] {
            write_record(&mut record, 3, 77, 2, size);
            assert_eq!(record.len(), size);
            assert_eq!(record_author(&record), Some((3, 77, 2)));
            for at in 0..size {
                let mut other = record.clone();
                other[at] ^= 1;
                assert_ne!(record_author(&other), Some((3, 77, 2)), "byte {at}");
            }
        }
    }

    #[test]
    fn every_command_but_those_too_large_on_purpose_fits_and_tickets_are_unique() {
        for seed in 0..30 {
            let config = crate::swarm::draw(Scenario::Default, seed);
            let limit = config.layout.command_size_max() as usize;
            let mut work = Workload::new(config.work, &config.layout, config.replicas);
            let mut dice = Dice::free(seed);
            let mut seen = std::collections::BTreeSet::new();
            while let Some(ask) = work.next(0, &mut dice) {
                let ticket = match ask {
                    Ask::Command { ticket, command, .. } => {
                        assert!(command.len() <= limit + 1);
                        ticket
                    }
                    Ask::Query { ticket, .. } => ticket,
                };
                assert!(seen.insert(ticket));
                work.on_failed(0, ticket);
            }
            assert!(work.is_done());
            assert_eq!(seen.len(), config.work.requests as usize);
        }
    }
}
