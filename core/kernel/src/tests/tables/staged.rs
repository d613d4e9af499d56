//! Facts in pieces: what is kept of them, for how long, and that they become what they would be in one.

use kimberlite_row::fact::{KeyRange, RowId, Rows, Scan, SchemaFact, TimePoint, Write, provisional};
use kimberlite_row::schema::{Object, Table};
use kimberlite_row::{ObjectId, Type, Value};
use kimberlite_store::BATCH_WRITES_MAX;
use kimberlite_wire::command::staged_digest;

use super::*;
use crate::limits::STAGED_IDLE_MAX;
use crate::tables::Unwritten;

const TABLE: ObjectId = ObjectId(1);

fn table(id: ObjectId, name: &str) -> SchemaFact {
    SchemaFact::Put(Object::Table(
        Table {
            id,
            name: name.into(),
            version: 1,
            columns: [column(0, Type::BigInt)].into(),
            next_column: 1,
            primary_key: None,
            indexes: Vec::new(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
        }
        .into(),
    ))
}

fn cluster_of(memories: &[Memory]) -> Cluster {
    let mut cluster = Cluster::new(memories);
    let schema = [table(TABLE, "t")].into();
    assert_eq!(cluster.refused(&Facts { schema, ..Facts::default() }), None);
    cluster
}

fn cluster() -> Cluster {
    cluster_of(&[Memory::Whole, Memory::Slow, Memory::OneByOne])
}

fn rows(count: u32) -> Facts {
    let write = |n: u32| Write {
        table: TABLE,
        id: RowId::Hidden(provisional(n)),
        before: None,
        after: Some([Value::Int(n.into())].into()),
    };
    Facts { writes: (0..count).map(write).collect(), ..Facts::default() }
}

fn count_in(rows: &TableRows<'_>) -> core::result::Result<usize, Miss> {
    let catalogue = rows.catalogue(rows.last())?;
    let table = catalogue.table(TABLE).expect("it was made");
    let mut count = 0;
    let scan = Scan { table, index: None, at: rows.last(), range: &KeyRange::ALL, after: None, reader: None };
    rows.scan(&scan, &mut |_| {
        count += 1;
        true
    })?;
    Ok(count)
}

fn count(cluster: &mut Cluster) -> usize {
    cluster.replicas[0].rows(count_in)
}

#[test]
fn what_is_installed_in_part_is_not_seen() {
    let mut cluster = cluster_of(&[Memory::Whole]);
    assert_eq!(cluster.refused(&rows(3)), None);
    let many = u32::try_from(2 * BATCH_WRITES_MAX).expect("it is small");
    let facts = Facts { schema: [table(ObjectId(2), "u")].into(), ..rows(many) };
    let time = cluster.parent.timestamp.0 + 5_000_000;
    let prepare = cluster.prepare(CLINIC, time, &commands(&facts, usize::MAX).unwrap());
    let micros = (prepare.header.timestamp.0 / 1_000).cast_signed();
    let mut verdicts = Vec::new();
    let (mut steps, mut in_part) = (0, 0);
    let kernel = &mut cluster.replicas[0].kernel;
    while !kernel.apply_some(&prepare, &Unwritten, &mut verdicts, 2_000).unwrap() {
        steps += 1;
        in_part += usize::from(kernel.tables.is_under_way());
        let rows = kernel.rows(CLINIC, &Unwritten);
        assert_eq!(count_in(&rows), Ok(3));
        assert_eq!(rows.position_at(micros), Ok(TimePoint::Future));
        assert!(rows.catalogue(rows.last()).unwrap().table(ObjectId(2)).is_none());
    }
    assert!(in_part > 0 && steps > 10, "{in_part} of {steps} steps");
    let rows = kernel.rows(CLINIC, &Unwritten);
    assert_eq!(count_in(&rows), Ok(3 + many as usize));
    assert!(matches!(rows.position_at(micros), Ok(TimePoint::At(_))));
    assert!(rows.catalogue(rows.last()).unwrap().table(ObjectId(2)).is_some());
}

/// The commands of some rows in three pieces or more, the last of which commits them.
fn pieces(of: u32) -> Vec<Vec<u8>> {
    let commands = commands(&rows(of), 400).unwrap();
    assert!(commands.len() > 3, "{}", commands.len());
    commands
}

fn say(cluster: &mut Cluster, command: &[u8]) -> Result {
    cluster.commit(CLINIC, 0, &[command.to_vec()])[0]
}

fn stage(cluster: &mut Cluster, commands: &[Vec<u8>]) {
    for (number, command) in (1..).zip(commands) {
        assert_eq!(say(cluster, command), Ok(Outcome::Staged { pieces: number }));
    }
}

#[test]
fn pieces_are_committed_as_one() {
    let mut cluster = cluster();
    let commands = pieces(100);
    let (commit, stages) = commands.split_last().unwrap();
    stage(&mut cluster, stages);
    assert_eq!(count(&mut cluster), 0, "nothing is seen before");
    assert_eq!(say(&mut cluster, commit), Ok(Outcome::Written { rows: 100 }));
    assert_eq!(count(&mut cluster), 100);
    // They are gone: what commits them again finds none.
    assert_eq!(say(&mut cluster, commit), Err(Refusal::Conflict));
    assert_eq!(count(&mut cluster), 100);
}

#[test]
fn only_what_was_staged_as_a_whole_is_committed() {
    let mut cluster = cluster();
    let (one, other) = (pieces(100), pieces(101));
    let commit = one.last().unwrap();
    // One is missing at the end, one in front, one is of others, and one comes twice.
    stage(&mut cluster, &one[..one.len() - 2]);
    assert_eq!(say(&mut cluster, commit), Err(Refusal::Conflict));
    assert_eq!(say(&mut cluster, &one[1]), Err(Refusal::Conflict));
    stage(&mut cluster, &one[..one.len() - 2]);
    stage_next(&mut cluster, &other[one.len() - 2]);
    assert_eq!(say(&mut cluster, commit), Err(Refusal::Conflict));
    stage(&mut cluster, &one[..2]);
    assert_eq!(say(&mut cluster, &one[1]), Err(Refusal::Conflict));
    assert_eq!(say(&mut cluster, commit), Err(Refusal::Conflict));
    // Whatever else is asked drops them, refused or not; and so do the first pieces of others.
    stage(&mut cluster, &one[..one.len() - 1]);
    assert_eq!(say(&mut cluster, b"nonsense"), Err(Refusal::Malformed));
    assert_eq!(say(&mut cluster, commit), Err(Refusal::Conflict));
    stage(&mut cluster, &one[..one.len() - 1]);
    stage(&mut cluster, &other[..1]);
    assert_eq!(say(&mut cluster, commit), Err(Refusal::Conflict));
    assert_eq!(count(&mut cluster), 0);
    // Pieces that are no facts can be staged, and are not committed.
    let stage = Command::Stage { number: 0, facts: b"nonsense" }.encode();
    assert_eq!(say(&mut cluster, &stage), Ok(Outcome::Staged { pieces: 1 }));
    let digest = staged_digest([0; 32], b"nonsense");
    let commit = Command::Commit { pieces: 1, digest, reply: b"" }.encode();
    assert_eq!(say(&mut cluster, &commit), Err(Refusal::Malformed));
}

fn stage_next(cluster: &mut Cluster, command: &[u8]) {
    assert!(matches!(say(cluster, command), Ok(Outcome::Staged { .. })));
}

#[test]
fn what_nobody_goes_on_with_makes_room_for_others() {
    let mut cluster = cluster();
    let commands = pieces(100);
    let (commit, stages) = commands.split_last().unwrap();
    stage(&mut cluster, stages);
    let first = cluster.session;
    cluster.session = SessionId::NONE;
    let [Ok(Outcome::Registered { session })] = cluster.commit(CLINIC, 0, &[Command::Register.encode()])[..]
    else {
        panic!("a session is registered");
    };
    cluster.session = session;
    // A tenant's pieces are not another's.
    assert_eq!(cluster.commit(TenantId(99), 0, &[stages[0].clone()])[..], [Err(Refusal::NoTenant)]);
    let last = cluster.parent.timestamp.0;
    assert_eq!(
        cluster.commit(CLINIC, last + STAGED_IDLE_MAX, &[stages[0].clone()])[0].unwrap(),
        Outcome::Staged { pieces: 1 }
    );
    cluster.session = first;
    assert_eq!(say(&mut cluster, commit), Err(Refusal::Conflict));
    // The one that came last is still there.
    cluster.session = session;
    for (number, command) in (2..).zip(&stages[1..]) {
        assert_eq!(say(&mut cluster, command), Ok(Outcome::Staged { pieces: number }));
    }
    assert_eq!(say(&mut cluster, commit), Ok(Outcome::Written { rows: 100 }));
}

#[test]
fn a_session_that_is_evicted_takes_its_pieces_along() {
    let mut cluster = cluster();
    let commands = pieces(100);
    stage(&mut cluster, &commands[..2]);
    cluster.session = SessionId::NONE;
    // The kernels of these tests keep four sessions; the digests are held against what is there after each command.
    for _ in 0..4 {
        cluster.commit(CLINIC, 0, &[Command::Register.encode()]);
    }
    assert_eq!(cluster.replicas[0].kernel.stages.items().count(), 0);
}
