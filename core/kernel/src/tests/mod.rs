//! A log built entry by entry, and stories told on it.

mod properties;
mod reading;
mod sessions;
mod stories;
mod tables;

use kimberlite_types::{
    ClusterId, LogPosition, Offset, Op, ReplicaId, RequestNumber, SessionId, StreamId, TenantId, View,
    WallTime,
};
use kimberlite_wire::command::{Command, Outcome, RecordsBuilder, Refusal};
use kimberlite_wire::{NewEntry, NewPrepare, Prepare, PrepareHeader};

use crate::{EntryVerdict, Kernel};

type Result = core::result::Result<Outcome, Refusal>;

const CLINIC: TenantId = TenantId(7);
const VISITS: StreamId = StreamId(1);

/// One entry to commit.
#[derive(Clone, Debug)]
struct Ask {
    session: SessionId,
    number: RequestNumber,
    tenant: TenantId,
    command: Vec<u8>,
}

fn ask(session: SessionId, number: u64, command: Vec<u8>) -> Ask {
    Ask { session, number: RequestNumber(number), tenant: CLINIC, command }
}

fn register() -> Ask {
    ask(SessionId::NONE, 4711, Command::Register.encode())
}

fn create_tenant() -> Vec<u8> {
    Command::CreateTenant { name: "clinic" }.encode()
}

fn create_stream(stream: StreamId) -> Vec<u8> {
    Command::CreateStream { stream, name: "visits" }.encode()
}

fn append(stream: StreamId, expected: Option<u64>, records: &[&[u8]]) -> Vec<u8> {
    let mut builder = RecordsBuilder::default();
    for record in records {
        builder.push(record);
    }
    Command::AppendBatch { stream, expected: expected.map(Offset), records: builder.records() }.encode()
}

#[expect(clippy::unnecessary_wraps, reason = "compared with results, it reads better whole")]
fn appended(first: u64, count: u32) -> Result {
    Ok(Outcome::Appended { first: Offset(first), count })
}

fn session(op: u64, index: u32) -> SessionId {
    SessionId(LogPosition { op: Op(op), index })
}

/// A log, and the kernel that applied it.
struct Log {
    kernel: Kernel,
    prepares: Vec<Prepare>,
    parent: PrepareHeader,
}

impl Log {
    fn new(sessions_max: u32) -> Self {
        let parent = PrepareHeader::root(ClusterId(1));
        Self { kernel: Kernel::new(sessions_max), prepares: Vec::new(), parent }
    }

    /// A log in which session op1.0 exists and has made the clinic and its visits (requests 1 and 2).
    fn with_stream() -> (Self, SessionId) {
        let mut log = Self::new(8);
        log.commit(&[register()]);
        let writer = session(1, 0);
        log.commit(&[ask(writer, 1, create_tenant()), ask(writer, 2, create_stream(VISITS))]);
        (log, writer)
    }

    fn prepare(&self, asks: &[Ask]) -> Prepare {
        let entries: Vec<NewEntry<'_>> = asks
            .iter()
            .map(|ask| NewEntry {
                session: ask.session,
                request: ask.number,
                tenant: ask.tenant,
                command: &ask.command,
            })
            .collect();
        let new = NewPrepare {
            parent: &self.parent,
            view: View(0),
            commit: self.parent.op,
            timestamp: WallTime(self.parent.timestamp.0 + 1),
            layout: &kimberlite_types::Layout::SMALL,
            proposer: ReplicaId(0),
        };
        Prepare::build(&new, &entries)
    }

    /// Commits one prepare of these entries.
    fn commit(&mut self, asks: &[Ask]) -> Vec<EntryVerdict> {
        let prepare = self.prepare(asks);
        let before = self.kernel.digest();
        let applied = self.kernel.apply(&prepare);
        assert_eq!(applied.op, prepare.header.op);
        assert_eq!(self.kernel.digest(), self.kernel.digest_walk(), "after {asks:?}");
        assert_ne!(self.kernel.digest(), before, "every op shows in the digest");
        self.parent = prepare.header;
        self.prepares.push(prepare);
        applied.verdicts
    }

    /// Commits one entry in a prepare of its own and answers what became of it.
    fn commit_one(&mut self, ask: Ask) -> EntryVerdict {
        self.commit(&[ask])[0]
    }

    /// What became of one entry in a prepare of its own.
    fn result(&mut self, ask: Ask) -> Result {
        self.commit_one(ask).verdict.result
    }

    /// All records of a stream from `from` on, read the way a node does: locate, then op by op.
    fn read(&self, stream: StreamId, from: u64) -> Vec<Vec<u8>> {
        let from = Offset(from);
        let located = self.kernel.locate(CLINIC, stream, from).unwrap();
        let mut records = Vec::new();
        let mut extents = located.extents;
        while let Some(first) = extents.first() {
            let prepare = &self.prepares[first.op.0 as usize - 1];
            for record in crate::records_of(prepare, extents, from) {
                let (offset, record) = record.unwrap();
                assert_eq!(offset.0, from.0 + records.len() as u64, "offsets are dense");
                records.push(record.to_vec());
            }
            extents = &extents[extents.partition_point(|extent| extent.op <= first.op)..];
        }
        assert_eq!(from.0 + records.len() as u64, located.end.0.max(from.0));
        records
    }
}
