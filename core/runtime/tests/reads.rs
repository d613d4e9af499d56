//! Stories of queries that meet records which are damaged on the node they ask.
//!
//! Such a query waits. The journal is asked again when the op was repaired; and after a while in any case, because whoever
//! repairs remembers only so many ops. The clients here are patient enough to ask nothing twice: what answers them is one of
//! the two.

mod common;

use std::time::Duration;

use common::{Appender, CLUSTER, Cluster, STREAM, TENANT, Told};
use kimberlite_client::{self as client, Client, ClientOptions};
use kimberlite_io::{Event, Io, Machine, Place, Zone};
use kimberlite_io_sim::{Damage, NodeId};
use kimberlite_types::limits::SECTOR_SIZE;
use kimberlite_types::{Instant, Now, Offset, Op, Timing};
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::client::{Answer, Query};

const MINUTE: Duration = Duration::from_mins(1);
const RECORDS: u64 = 120;
/// Ops that a replica wants from its peers at once: a window of headers and a pipeline.
const WANTED_MAX: usize = 40;

/// Asks for records from several offsets at once.
struct Reader {
    client: Client,
    from: Vec<Offset>,
    records_max: u32,
    answers: Vec<Answer>,
}

impl Reader {
    fn new(from: &[u64], records_max: u32) -> Self {
        let options = ClientOptions { request_timeout: MINUTE * 60, ..ClientOptions::new(CLUSTER, 3, 77) };
        let from = from.iter().copied().map(Offset).collect();
        Self { client: Client::new(options), from, records_max, answers: Vec::new() }
    }
}

impl Machine for Reader {
    type Input = Event;
    type Output = Told;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Told>) {
        let mut inputs = vec![client::Input::Event(event)];
        for (ticket, from) in std::mem::take(&mut self.from).into_iter().enumerate() {
            let records_max = self.records_max;
            let query =
                Query::ReadEvents { tenant: TENANT, stream: STREAM, from, records_max, bytes_max: u32::MAX };
            inputs.push(client::Input::Query { ticket: ticket as u64, query, to: None });
        }
        let mut heard = Vec::new();
        for input in inputs {
            self.client.on(now, input, io, &mut heard);
        }
        for output in heard {
            if let client::Output::Answered { answer, .. } = &output {
                self.answers.push(answer.clone());
            }
            out.push(Told::Client(output));
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        self.client.wake_at()
    }
}

/// Three nodes that hold sealed segments full of records, and nothing else to do.
fn full_cluster(seed: u64) -> (Cluster, u8) {
    let mut cluster = Cluster::new(seed, 3, 2, 3);
    cluster.add_client(0, Appender::new(1, 3, true, RECORDS, 3_000));
    cluster.run_until(MINUTE, |cluster| cluster.client(0).is_done());
    cluster.run_until(MINUTE, Cluster::is_settled);
    let primary = cluster.primary().expect("somebody leads");
    (cluster, primary)
}

/// Makes the prepares of the records with these offsets unreadable on one node. Each is an op of its own, behind those that
/// registered the client and created the tenant and the stream.
fn damage(cluster: &mut Cluster, replica: u8, records: std::ops::Range<u64>) {
    let node = NodeId(u16::from(replica));
    let disk = cluster.world.disk(node);
    let places = (0..disk.extent(Zone::Log)).step_by(SECTOR_SIZE);
    let headers = places.filter_map(|place| {
        let header = PrepareHeader::decode(&disk.peek(Zone::Log, place, SECTOR_SIZE)).ok()?;
        (header.place == place).then_some(header)
    });
    let last = cluster.node(replica).replica().op();
    let first = Op(last.0 - RECORDS + 1);
    let ops = first.0 + records.start..first.0 + records.end;
    let hit: Vec<u64> =
        headers.filter(|header| ops.contains(&header.op.0)).map(|header| header.place).collect();
    assert_eq!(hit.len() as u64, ops.end - ops.start, "every op is found on the disk");
    for place in hit {
        assert!(cluster.world.damage(node, Place::log(place), Damage::Latent), "all copies may be damaged");
    }
}

fn start_reader(cluster: &mut Cluster, reader: Reader) {
    cluster.world.start(reader_node(), Box::new(reader));
}

fn reader_node() -> NodeId {
    NodeId(4)
}

fn reader(cluster: &Cluster) -> &Reader {
    cluster.world.inspect(reader_node()).expect("the reader is up")
}

fn misses(cluster: &Cluster) -> usize {
    cluster.notes.iter().filter(|(_, note)| matches!(note, kimberlite_runtime::Note::Damaged { .. })).count()
}

fn assert_read(answer: &Answer, records_max: u32) {
    let Answer::Events { records, .. } = answer else { panic!("events, not {answer:?}") };
    assert_eq!(records.count(), records_max);
}

#[test]
fn a_query_that_met_damage_is_answered_as_soon_as_the_op_is_repaired() {
    let (mut cluster, primary) = full_cluster(700);
    damage(&mut cluster, primary, 3..4);
    start_reader(&mut cluster, Reader::new(&[0], 8));
    cluster.run_until(MINUTE, |cluster| misses(cluster) > 0);
    let missed_at = cluster.world.time();
    cluster.run_until(MINUTE, |cluster| !reader(cluster).answers.is_empty());
    assert_read(&reader(&cluster).answers[0], 8);
    let waited = cluster.world.time().since(missed_at);
    assert!(waited < Timing::PRODUCTION.resend, "{waited:?}: it waited for more than the repair");
}

#[test]
fn queries_that_met_more_damage_than_is_remembered_ask_the_journal_again() {
    let (mut cluster, primary) = full_cluster(701);
    let from: Vec<u64> = (0..8).map(|query| query * 8).collect();
    let damaged = 8 * from.len();
    assert!(damaged > WANTED_MAX);
    damage(&mut cluster, primary, 0..damaged as u64);
    // The peers confirm queries, and have no disk from which to repair anything.
    let others: Vec<u8> = (0..3).filter(|replica| *replica != primary).collect();
    let forever = cluster.world.time().after(MINUTE);
    for replica in &others {
        cluster.world.disk_mut(NodeId(u16::from(*replica))).stall(forever);
    }
    start_reader(&mut cluster, Reader::new(&from, 8));
    cluster.run_until(MINUTE, |cluster| misses(cluster) >= damaged);
    for replica in others {
        cluster.crash(replica);
    }
    assert_eq!(cluster.node(primary).replica().wanted().count(), WANTED_MAX, "no more is remembered");
    assert!(reader(&cluster).answers.is_empty(), "every query needs what is damaged");
    // The sectors can be read again, as after an error of the bus.
    cluster.world.disk_mut(NodeId(u16::from(primary))).heal();
    cluster.run_until(MINUTE, |cluster| reader(cluster).answers.len() == 8);
    for answer in &reader(&cluster).answers {
        assert_read(answer, 8);
    }
}
