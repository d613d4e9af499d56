//! The trees that hold tables, with keys and rows encoded as they will be, against SQLite in memory.
//!
//! Neither side writes to a disk and neither parses SQL while it is measured (SQLite's statements are prepared); our side
//! has no query layer above it. Checkpoints are part of our inserts: every page is hashed as it would be.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use kimberlite_row::codec::Layout;
use kimberlite_row::key::encode_all;
use kimberlite_row::schema::{Column, ColumnId, Table};
use kimberlite_row::{Type, Value};
use kimberlite_store::{
    Direction, Miss, Page, PageRef, Pages, Progress, Scan, Shape, Snapshot, StepLimits, WriteBatch,
    object_prefix,
};
use kimberlite_types::{LogPosition, ObjectId, Op, TenantId};
use kmb::Failure;
use rusqlite::{Connection, params};

use crate::arguments::Store as Asked;
use crate::figures::{Aim, Report, Series};
use crate::setting::Setting;

/// Rows of one command.
const BATCH: u64 = 1_000;

/// Rows that are inserted in one measurement.
const INSERTS: u64 = 100_000;

/// Rows that are read by key in one measurement.
const GETS: u64 = 200_000;

/// Dirty pages at which a checkpoint is taken: 128 MiB.
const CHECKPOINT_PAGES: usize = 16_384;

const TENANT: TenantId = TenantId(1);
const OBJECT: ObjectId = ObjectId(1);
const NOTE: &str = "a note of eighty bytes, as long as an address or a short comment would often be.";

/// Runs the command.
pub(crate) fn measure(setting: &Setting, asked: &Asked) -> Result<Vec<Report>, Failure> {
    setting.step("store: filling both")?;
    let mut ours = Ours::new();
    ours.insert(0..asked.rows, |n| n);
    let mut theirs = Theirs::new().map_err(|error| failed(&error))?;
    theirs.insert(0..asked.rows, |n| n).map_err(|error| failed(&error))?;
    let mut pairs: Vec<(&str, Aim, Pair)> = vec![
        ("point reads in random order", Aim::AtLeast(1.0), Pair::default()),
        ("a scan with a filter and a sum", Aim::AtLeast(1.0), Pair::default()),
        ("inserts in batches of 1,000, ascending keys", Aim::AtLeast(0.5), Pair::default()),
        ("inserts in batches of 1,000, keys in random order", Aim::AtLeast(0.5), Pair::default()),
        ("updates in batches of 1,000, keys in random order", Aim::AtLeast(0.5), Pair::default()),
    ];
    for round in 1..=setting.repetitions {
        setting.step(&format!("store: {round} of {}", setting.repetitions))?;
        let scattered = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1;
        let among = |n: u64| scattered(n + u64::from(round) * GETS) % asked.rows;
        pairs[0].2.add(GETS, || ours.get(GETS, among), || theirs.get(GETS, among))?;
        pairs[1].2.add(asked.rows, || ours.scan(), || theirs.scan())?;
        for (which, random) in [(2, false), (3, true)] {
            let key = |n: u64| if random { scattered(n) } else { n };
            let mut fresh = Theirs::new().map_err(|error| failed(&error))?;
            let mut own = Ours::new();
            pairs[which].2.add(INSERTS, || own.insert(0..INSERTS, key), || fresh.insert(0..INSERTS, key))?;
        }
        pairs[4].2.add(INSERTS, || ours.insert(0..INSERTS, among), || theirs.insert(0..INSERTS, among))?;
    }
    let mut report = Report::new(format!("store: {} rows of about 110 bytes", asked.rows));
    for (name, aim, pair) in pairs {
        report.row(format!("{name}: ours"), "rows/s", pair.ours);
        report.row(format!("{name}: SQLite"), "rows/s", pair.theirs);
        report.aimed(format!("{name}: ours for one of SQLite's"), "", pair.ratio, aim);
    }
    report.note(format!(
        "our tables take {} pages of 8 KiB for present and past; SQLite is in memory, without a journal",
        ours.store.pages() - ours.store.free_pages() + ours.store.dirty_pages() as u64,
    ));
    report.note("updates keep the old version for time travel; SQLite's do not");
    Ok(vec![report])
}

fn failed(error: &rusqlite::Error) -> Failure {
    Failure::failed(format!("SQLite: {error}"))
}

#[derive(Default)]
struct Pair {
    ours: Series,
    theirs: Series,
    ratio: Series,
}

impl Pair {
    fn add(
        &mut self,
        rows: u64,
        ours: impl FnOnce() -> i64,
        theirs: impl FnOnce() -> rusqlite::Result<i64>,
    ) -> Result<(), Failure> {
        #[expect(clippy::cast_precision_loss, reason = "rows are far fewer than 2^52")]
        let rate = |begun: Instant| rows as f64 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let said = ours();
        let ours = rate(begun);
        let begun = Instant::now();
        let other = theirs().map_err(|error| failed(&error))?;
        let theirs = rate(begun);
        if said != other {
            return Err(Failure::failed(format!("we say {said}, SQLite says {other}")));
        }
        self.ours.push(ours);
        self.theirs.push(theirs);
        self.ratio.push(ours / theirs);
        Ok(())
    }
}

/// Pages by their place.
#[derive(Default)]
struct Memory(Vec<Option<Page>>);

impl Pages for Memory {
    fn page(&self, at: PageRef) -> Result<&Page, Miss> {
        let found = usize::try_from(at.address.0).ok().and_then(|place| self.0.get(place)?.as_ref());
        found.ok_or_else(|| Miss::of(at))
    }
}

struct Ours {
    store: kimberlite_store::Store,
    memory: Memory,
    layout: Layout,
    op: u64,
}

impl Ours {
    fn new() -> Self {
        let column = |id: u32, name: &str, kind| Column {
            id: ColumnId(id),
            name: name.to_owned(),
            kind,
            not_null: true,
            default: None,
            missing: None,
            identity: None,
            owns: None,
            generated: None,
        };
        let columns = vec![
            column(1, "id", Type::BigInt),
            column(2, "name", Type::Text),
            column(3, "score", Type::Integer),
            column(4, "note", Type::Text),
        ];
        let table = Table {
            id: OBJECT,
            name: "t".to_owned(),
            version: 1,
            columns,
            next_column: 5,
            primary_key: None,
            indexes: Vec::new(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
        };
        let layout = Layout::of(&table).expect("no column has a default");
        Self {
            store: kimberlite_store::Store::new(Shape::default()),
            memory: Memory::default(),
            layout,
            op: 0,
        }
    }

    fn checkpoint(&mut self) {
        for sealed in self.store.checkpoint().pages {
            let place = usize::try_from(sealed.at.address.0).expect("fits in memory");
            if self.memory.0.len() <= place {
                self.memory.0.resize(place + 1, None);
            }
            self.memory.0[place] = Some(sealed.page);
        }
    }

    fn insert(&mut self, rows: std::ops::Range<u64>, key: impl Fn(u64) -> u64) -> i64 {
        let (mut bytes, mut row) = (Vec::new(), Vec::new());
        let mut from = rows.start;
        while from < rows.end {
            self.op += 1;
            let position = LogPosition { op: Op(self.op), index: 0 };
            let mut batch = WriteBatch::new(Shape::default(), TENANT, position);
            let to = (from + BATCH).min(rows.end);
            for n in from..to {
                let n = key(n);
                let values = [
                    Value::Int(n.cast_signed()),
                    Value::text(format!("name {n}")),
                    Value::Int((n % 1_000).cast_signed()),
                    Value::text(NOTE),
                ];
                bytes.clear();
                bytes.extend_from_slice(&object_prefix(OBJECT));
                encode_all(&values[..1], &mut bytes);
                row.clear();
                self.layout.encode(&values, &mut row).expect("a small row");
                batch.put(&bytes, &row).expect("within limits");
            }
            let draft = self.store.plan(&batch, &self.memory).expect("all is at hand");
            self.store.install(draft);
            if self.store.dirty_pages() >= CHECKPOINT_PAGES {
                self.checkpoint();
            }
            from = to;
        }
        0
    }

    fn get(&self, count: u64, key: impl Fn(u64) -> u64) -> i64 {
        let (mut bytes, mut row, mut sum) = (Vec::new(), Vec::new(), 0);
        for n in 0..count {
            bytes.clear();
            bytes.extend_from_slice(&object_prefix(OBJECT));
            encode_all(&[Value::Int(key(n).cast_signed())], &mut bytes);
            let found =
                self.store.get(TENANT, &bytes, Snapshot::Present, &self.memory).expect("all is at hand");
            let found = found.expect("every key was inserted");
            self.layout.decode_into(&found.value, |_| true, &mut row).expect("our own row");
            sum += row[2].as_int().expect("an integer");
            black_box(&row);
        }
        sum
    }

    fn scan(&self) -> i64 {
        let prefix = object_prefix(OBJECT);
        let mut scan = Scan::of_prefix(TENANT, &prefix, Snapshot::Present, Direction::Forward);
        let (mut row, mut sum) = (Vec::new(), 0);
        loop {
            let progress = self
                .store
                .scan(&mut scan, StepLimits::default(), &self.memory, |found| {
                    // As a query that needs one column would.
                    self.layout.decode_into(found.value, |place| place == 2, &mut row).expect("our own row");
                    let score = row[2].as_int().expect("an integer");
                    if score < 500 {
                        sum += score;
                    }
                    ControlFlow::Continue(())
                })
                .expect("all is at hand");
            if progress == Progress::Done {
                return sum;
            }
        }
    }
}

struct Theirs(Connection);

impl Theirs {
    fn new() -> rusqlite::Result<Self> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -4000000;
             CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL, score INTEGER NOT NULL, note TEXT NOT NULL)",
        )?;
        Ok(Self(connection))
    }

    fn insert(&mut self, rows: std::ops::Range<u64>, key: impl Fn(u64) -> u64) -> rusqlite::Result<i64> {
        let mut from = rows.start;
        while from < rows.end {
            let transaction = self.0.transaction()?;
            let to = (from + BATCH).min(rows.end);
            {
                let mut insert =
                    transaction.prepare_cached("INSERT OR REPLACE INTO t VALUES (?1, ?2, ?3, ?4)")?;
                for n in from..to {
                    let n = key(n);
                    let (id, score) = (n.cast_signed(), (n % 1_000).cast_signed());
                    insert.execute(params![id, format!("name {n}"), score, NOTE])?;
                }
            }
            transaction.commit()?;
            from = to;
        }
        Ok(0)
    }

    fn get(&self, count: u64, key: impl Fn(u64) -> u64) -> rusqlite::Result<i64> {
        let mut select = self.0.prepare_cached("SELECT id, name, score, note FROM t WHERE id = ?1")?;
        let mut sum = 0;
        for n in 0..count {
            sum += select.query_row([key(n).cast_signed()], |row| {
                black_box((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(3)?));
                row.get::<_, i64>(2)
            })?;
        }
        Ok(sum)
    }

    fn scan(&self) -> rusqlite::Result<i64> {
        self.0.query_row("SELECT sum(score) FROM t WHERE score < 500", [], |row| row.get(0))
    }
}
