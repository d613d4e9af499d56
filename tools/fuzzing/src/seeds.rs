//! What the corpora grow from: bytes that real nodes wrote, and scripts that lead somewhere.

use kimberlite_bundle::{Ended, Flight, Identity, Opening};
use kimberlite_io::{Ask, Asked, Event, Machine as _, ReadFault, Zone};
use kimberlite_runtime::Node;
use kimberlite_sim::{Bundle, Checker, End, Observation, RunConfig, Scenario, Violation};
use kimberlite_types::limits::FRAME_HEADER_SIZE;
use kimberlite_types::{Instant, Now, Rng, Streams, WallTime};
use kimberlite_wire::command::{Command, staged_digest};
use kimberlite_wire::{FrameCommand, FrameHeader};

use crate::cluster::Cluster;
use crate::images::images;
use crate::seat::config;

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// What it is, for the name of its file.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Scripts of luck in each corpus of scripts.
const SCRIPTS: u64 = 16;

fn seed(name: impl Into<String>, bytes: Vec<u8>) -> Seed {
    Seed { name: name.into(), bytes }
}

fn luck(name: &str, key: u64) -> Rng {
    Streams::new(41).stream(name, key)
}

/// Bytes of luck, of some length.
fn noise(name: &str, key: u64, max: usize) -> Vec<u8> {
    let mut rng = luck(name, key);
    let mut bytes = vec![0; max / 4 + rng.index(max)];
    rng.fill(&mut bytes);
    bytes
}

/// A cluster of three that served a client, changed its view and repaired a replica.
fn served() -> Cluster {
    let mut cluster = Cluster::new(3, 23);
    cluster.settle();
    for size in [0, 0, 0, 10, 700, 4_000, 90] {
        cluster.do_one(size);
        let leader = cluster.leader();
        let conn = cluster.conn(leader);
        let frame = cluster.next_query(size % 3, 0);
        cluster.say(leader, conn, &frame);
        cluster.fair_round();
    }
    let leader = cluster.leader();
    cluster.restart(leader, || false);
    cluster.settle();
    cluster
}

/// One of each command, with head and body.
fn letters(cluster: &Cluster) -> Vec<(FrameCommand, Vec<u8>, Vec<u8>)> {
    let mut letters: Vec<(FrameCommand, Vec<u8>, Vec<u8>)> = Vec::new();
    for flying in &cluster.seen {
        let header = FrameHeader::decode(&flying.packet.head).expect("a node speaks the protocol");
        let known = letters.iter().filter(|(command, _, _)| *command == header.command).count();
        if known < 2 {
            letters.push((header.command, flying.packet.head.to_vec(), flying.packet.body.to_vec()));
        }
    }
    letters
}

pub(crate) fn frame() -> Vec<Seed> {
    let cluster = served();
    let mut seeds: Vec<Seed> = letters(&cluster)
        .into_iter()
        .enumerate()
        .map(|(number, (command, head, body))| {
            seed(format!("letter-{number}-{command:?}"), [vec![0, 255], head, body].concat())
        })
        .collect();
    let stream: Vec<u8> = cluster.frames.iter().take(8).flat_map(|frame| frame.to_vec()).collect();
    for (name, mended, cut) in [("stream", 0, 255), ("stream-in-pieces", 0, 6), ("stream-mended", 1, 99)] {
        seeds.push(seed(name, [vec![mended, cut], stream.clone()].concat()));
    }
    seeds.push(seed("http", b"\0\x09GET / HTTP/1.1\r\n\r\n".repeat(9)));
    seeds
}

pub(crate) fn body() -> Vec<Seed> {
    let cluster = served();
    let mut seeds = Vec::new();
    for (number, (command, head, body)) in letters(&cluster).into_iter().enumerate() {
        let index =
            FrameCommand::ALL.iter().position(|other| *other == command).expect("all are listed") as u8;
        // View, op, commit and nonce as they were sent, each with no bits shifted off.
        let fields: Vec<u8> = head[32..64].chunks(8).flat_map(|word| [&[0], word].concat()).collect();
        let start = vec![0, index, 1, fields.len() as u8];
        seeds.push(seed(format!("letter-{number}-{command:?}"), [start, fields, body.clone()].concat()));
        if command == FrameCommand::Prepare {
            seeds.push(seed(format!("prepare-{number}"), [vec![3, 1], body].concat()));
        }
    }
    let client = |frame: &[u8], number: usize, side: &str| {
        let header =
            FrameHeader::decode(frame.first_chunk().expect("a frame")).expect("our own frames decode");
        let index = header.command as u8 - FrameCommand::Request as u8;
        let start = [vec![1, index, 0], header.nonce.to_le_bytes().to_vec()].concat();
        seed(format!("{side}-{number}"), [start, frame[FRAME_HEADER_SIZE..].to_vec()].concat())
    };
    for (number, frame) in cluster.frames.iter().enumerate().take(8) {
        seeds.push(client(frame, number, "asked"));
    }
    for (number, frame) in answers(&cluster).iter().enumerate() {
        seeds.push(client(frame, number, "answered"));
    }
    let (_, _, command) = letters(&cluster)
        .into_iter()
        .rfind(|(command, _, _)| *command == FrameCommand::Prepare)
        .expect("something was proposed");
    seeds.push(seed("command", [vec![2], command[512 + 136..].to_vec()].concat()));
    for (name, command) in changes() {
        seeds.push(seed(name, [vec![2], command].concat()));
    }
    seeds
}

/// Commands of facts: whole, a piece of them, and what commits pieces.
fn changes() -> [(&'static str, Vec<u8>); 3] {
    use kimberlite_row::ObjectId;
    use kimberlite_row::fact::{Facts, Guard, KeyRange, RowId, SchemaFact, Write, provisional};
    use kimberlite_types::{LogPosition, Offset, Op, StreamId};
    let (table, at) = (ObjectId(1), LogPosition { op: Op(4), index: 1 });
    let facts = Facts {
        guards: vec![
            Guard::Schema(table, 3),
            Guard::NameFree("t".to_owned()),
            Guard::Version(table, RowId::Key(values()[2..4].to_vec()), at),
            Guard::Unchanged(table, Some(ObjectId(2)), KeyRange::equal(values()[..1].to_vec()), at),
            Guard::StreamEnds(StreamId(1), Offset(9)),
        ],
        schema: vec![SchemaFact::Sequence(ObjectId(3), Some(70)), SchemaFact::Drop(ObjectId(4))],
        writes: vec![Write {
            table,
            id: RowId::Hidden(provisional(1)),
            before: None,
            after: Some(values().into_iter().collect()),
        }],
    };
    let facts = &postcard::to_allocvec(&facts).expect("facts encode")[..];
    let digest = staged_digest([0; 32], facts);
    [
        ("facts", Command::Facts { facts, reply: b"done" }.encode()),
        ("stage", Command::Stage { number: 2, facts }.encode()),
        ("commit", Command::Commit { pieces: 1, digest, reply: b"done" }.encode()),
    ]
}

/// What the client of a cluster heard, as frames again.
fn answers(cluster: &Cluster) -> Vec<Vec<u8>> {
    use kimberlite_types::ReplicaId;
    use kimberlite_wire::client::{ClientFrame, answer_frame, reply_frame, turn_frame};
    let from = ReplicaId(0);
    let frames = cluster.heard.iter().take(16).filter_map(|frame| match frame {
        ClientFrame::Reply { session, number, verdict } => {
            Some(reply_frame(crate::seat::CLUSTER, from, *session, *number, *verdict))
        }
        ClientFrame::Answer { nonce, answer } => {
            Some(answer_frame(crate::seat::CLUSTER, from, *nonce, answer))
        }
        ClientFrame::Turn { nonce, turn } => Some(turn_frame(crate::seat::CLUSTER, from, *nonce, *turn)),
        ClientFrame::Request { .. }
        | ClientFrame::Query { .. }
        | ClientFrame::Statement { .. }
        | ClientFrame::Cancel { .. } => None,
    });
    frames.map(|frame| frame.to_vec()).collect()
}

/// The bytes that choose `index` among `count`.
fn choice(index: usize, count: usize) -> Vec<u8> {
    let wide = count > 256;
    if wide { (index as u16).to_be_bytes().to_vec() } else { vec![index as u8] }
}

pub(crate) fn journal() -> Vec<Seed> {
    let all = images();
    let mut seeds = Vec::new();
    for (index, image) in all.moments.iter().enumerate().step_by(5) {
        let start = [choice(index, all.moments.len()), vec![9]].concat();
        seeds.push(seed(format!("whole-{index}"), start.clone()));
        // The last sector of log and ring: a flipped bit in one, and both unreadable.
        let last = |zone: Zone, which: u8| {
            let sectors = image.platter.written(zone).len();
            [vec![which], choice(sectors - 1, sectors)].concat()
        };
        if image.top() > 0 {
            let (log, ring) = (last(Zone::Log, 0), last(Zone::Headers, 1));
            let flip = [start.clone(), log.clone(), vec![0, 0, 200, 3]].concat();
            seeds.push(seed(format!("flip-{index}"), flip));
            let lost = [start, log, vec![1], ring, vec![1]].concat();
            seeds.push(seed(format!("lost-{index}"), lost));
        }
    }
    for key in 0..SCRIPTS {
        seeds.push(seed(format!("luck-{key}"), noise("journal", key, 200)));
    }
    seeds
}

pub(crate) fn superblock() -> Vec<Seed> {
    let all = images();
    let mut seeds = Vec::new();
    for (which, (_, pool)) in all.superblocks.iter().enumerate() {
        let newest = choice(pool.len() - 1, pool.len());
        let older = choice(pool.len() / 2, pool.len());
        let (intact, blank) = (vec![0], vec![1]);
        let start = vec![which as u8, 0];
        let copies = |fourth: Vec<u8>| {
            let three = [newest.clone(), intact.clone()].concat().repeat(3);
            [start.clone(), three, fourth].concat()
        };
        seeds.push(seed(format!("same-{which}"), copies([newest.clone(), intact.clone()].concat())));
        seeds.push(seed(format!("older-{which}"), copies([older.clone(), intact.clone()].concat())));
        seeds.push(seed(format!("blank-{which}"), copies([older.clone(), blank].concat())));
        // One view more in a copy with a true checksum.
        let forged = [older, vec![4, 0, 128, 1, 9]].concat();
        seeds.push(seed(format!("forged-{which}"), copies(forged)));
    }
    for key in 0..SCRIPTS {
        seeds.push(seed(format!("luck-{key}"), noise("superblock", key, 120)));
    }
    seeds
}

/// Is broken by the thousandth thing that happens, so that there is something to keep.
struct Ends(u64);

impl Checker for Ends {
    fn name(&self) -> &'static str {
        "ends"
    }

    fn rules(&self) -> &'static [&'static str] {
        &["a run for a corpus is short"]
    }

    fn observe(&mut self, _: Instant, _: &Observation<'_>) -> Result<(), Violation> {
        self.0 += 1;
        if self.0 < 300 {
            return Ok(());
        }
        Err(Violation {
            checker: self.name().to_owned(),
            rule: self.rules()[0].to_owned(),
            seen: "it ended".to_owned(),
            replica: None,
            op: None,
        })
    }

    fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.0
    }
}

pub(crate) fn bundle() -> Vec<Seed> {
    let rules = |_: &RunConfig| -> Vec<Box<dyn Checker>> { vec![Box::new(Ends(0))] };
    let mut seeds = Vec::new();
    for (scenario, number) in [(Scenario::Calm, 1), (Scenario::Default, 2), (Scenario::Solo, 3)] {
        let config = kimberlite_sim::draw(scenario, number);
        let Ok(bundle) = Bundle::capture(scenario.name(), &config, number, rules) else { continue };
        let name = scenario.name();
        let file = bundle.encode();
        seeds.push(seed(format!("file-{name}"), [vec![0], file.clone()].concat()));
        seeds.push(seed(format!("mended-{name}"), [vec![1], file[..file.len() / 2].to_vec()].concat()));
        let mut short = bundle;
        short.decisions =
            kimberlite_sim::run(&config, number, kimberlite_sim::Luck::Free, kimberlite_sim::rules)
                .1
                .decisions;
        let content = postcard::to_allocvec(&short).expect("our own bundles encode");
        seeds.push(seed(format!("content-{name}"), [vec![2], content].concat()));
    }
    // Recordings: one that ends, one of a node that was killed, and one whose head is made true.
    let life = recording();
    let killed = life.len() - life.len() / 4;
    seeds.push(seed("recording", [vec![0], life.clone()].concat()));
    seeds.push(seed("recording-killed", [vec![0], life[..killed].to_vec()].concat()));
    seeds.push(seed("recording-mended", [vec![1], life].concat()));
    seeds.push(seed("empty", Vec::new()));
    seeds
}

/// What `kmb start --record` writes of a node that finds nothing on its disk and halts.
fn recording() -> Vec<u8> {
    let config = config(1, 3);
    let at = |micros: u64| Now { monotonic: Instant(micros * 1_000), wall: WallTime(micros * 1_000 + 1) };
    let opening = Opening { identity: Identity::current(), config, seed: 5, at: at(0) };
    let secret = [7; 32];
    let mut flight = Flight::begin(Vec::new(), &opening, &secret, 1 << 20).expect("memory is written");
    let mut node = Node::new(config, &secret, 5);
    let mut asked = Asked::new();
    let mut due = vec![Event::Wake];
    let mut micros = 0;
    while let Some(event) = due.pop().filter(|_| node.halted().is_none()) {
        micros += 1;
        let standing = || (node.replica().commit(), node.digest().0);
        flight.heard(at(micros), &event, standing).expect("memory is written");
        node.on(at(micros), event, &mut flight.wrap(&mut asked), &mut Vec::new());
        due.extend(asked.take().into_iter().filter_map(|ask| match ask {
            Ask::Read { token, .. } => Some(Event::Read { token, result: Err(ReadFault::Absent) }),
            _ => None,
        }));
    }
    flight.end(Ended::Halted, node.replica().commit(), node.digest().0).expect("memory is written")
}

pub(crate) fn machine() -> Vec<Seed> {
    // Steps by their numbers in `machine::step`: a round in which all goes well, time, a request.
    let (fair, time, ask) = (vec![0], |step: u8| vec![2, step], |size: u8| vec![3, size]);
    let mut seeds = Vec::new();
    for replicas in 0..3_u8 {
        let start = [vec![replicas], [fair.clone(), time(20)].concat().repeat(6)].concat();
        let serve = [ask(9), fair.clone(), fair.clone(), fair.clone(), time(12)].concat();
        let steady = [start.clone(), serve.repeat(12)].concat();
        seeds.push(seed(format!("steady-{replicas}"), steady.clone()));
        let restart = [vec![12, 0], 0x5555_5555_5555_5555_u64.to_le_bytes().to_vec()].concat();
        let crash = [steady, restart, [fair.clone(), time(19)].concat().repeat(9), serve.repeat(4)].concat();
        seeds.push(seed(format!("crash-{replicas}"), crash));
        for key in 0..SCRIPTS / 2 {
            let noise = noise("machine", key + u64::from(replicas) * SCRIPTS, 400);
            seeds.push(seed(
                format!("luck-{replicas}-{key}"),
                [start.clone(), serve.repeat(3), noise].concat(),
            ));
        }
    }
    seeds
}

pub(crate) fn client() -> Vec<Seed> {
    // Steps by their numbers in `Table::step`: submit, connect, answer with what was hoped for.
    let submit = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let connect = vec![3, 0, 0];
    let answer = [vec![7, 0, 0, 1, 3, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], vec![0]].concat();
    let mut seeds = vec![seed("served", [submit.repeat(3), connect, answer.repeat(5)].concat())];
    for key in 0..SCRIPTS {
        seeds.push(seed(format!("luck-{key}"), noise("client", key, 400)));
    }
    seeds
}

pub(crate) fn world() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for scenario in 0..Scenario::ALL.len() {
        for key in 0..4_u32 {
            let start = [vec![scenario as u8], key.to_le_bytes().to_vec()].concat();
            let steering = if key == 0 { Vec::new() } else { noise("world", u64::from(key), 60) };
            seeds.push(seed(format!("{}-{key}", Scenario::ALL[scenario].name()), [start, steering].concat()));
        }
    }
    seeds
}

pub(crate) fn kernel() -> Vec<Seed> {
    // Steps by their numbers in `kernel::Log::step`: one of the other statements, planned as it is and cut into commands of some
    // size; a prepare of one entry of the first client; a checkpoint and a restart.
    let plan = |statement: u8, size: u8| vec![0, 0, 0, statement, size, 11];
    let (commit, restart) = (vec![2, 0, 0, 11, 0], vec![5, 1]);
    let mut seeds = Vec::new();
    for size in 0..4 {
        let written =
            [plan(3, size), commit.repeat(40), restart.clone(), plan(4, size), commit.repeat(30)].concat();
        let changed = [3, 6, 8, 11, 10, 5, 13, 7, 9, 12]
            .map(|statement| [plan(statement, size), commit.repeat(8), restart.clone()].concat());
        seeds.push(seed(format!("written-{size}"), written));
        seeds.push(seed(format!("changed-{size}"), changed.concat()));
    }
    for key in 0..SCRIPTS {
        seeds.push(seed(format!("luck-{key}"), noise("kernel", key, 500)));
    }
    seeds
}

pub(crate) fn tree() -> Vec<Seed> {
    let mut seeds: Vec<Seed> =
        (0..SCRIPTS).map(|key| seed(format!("luck-{key}"), noise("tree", key, 2_000))).collect();
    // One command after another, ascending keys, a checkpoint and a restart now and then.
    let command =
        |n: u8| [vec![0, 20], (0..=20).flat_map(|k| [1, 3, n, k, 0, 0, 2, 90, 7]).collect()].concat();
    let steps: Vec<u8> = (0..60)
        .flat_map(|n| [command(n), if n % 7 == 6 { vec![4, 5] } else { Vec::new() }].concat())
        .collect();
    seeds.push(seed("ascending", steps));
    seeds
}

/// One value of each kind.
fn values() -> Vec<kimberlite_row::Value> {
    use kimberlite_row::{Decimal, Interval, Json, Value};
    let json = Json::parse(r#"{"a": [1, 2.50, null, true], "bb": {"c": "d"}}"#).expect("JSON");
    vec![
        Value::Null,
        Value::Bool(true),
        Value::Int(-70_000),
        Value::Decimal(Decimal::parse("-120.050").expect("a number")),
        Value::real(1.5),
        Value::double(-2.25),
        Value::text("te\0xt"),
        Value::Bytes([0, 255, 1].into()),
        Value::Date(20_000),
        Value::Time(1),
        Value::Timestamp(-1),
        Value::TimestampTz(1 << 50),
        Value::Interval(Interval { months: 14, days: -3, micros: 5 }),
        Value::Uuid([7; 16]),
        Value::Json(json.into()),
        Value::Array([Value::Int(1), Value::Null].into()),
    ]
}

pub(crate) fn keys() -> Vec<Seed> {
    use kimberlite_row::key::{KeyOrder, encode};
    let orders = [(0, 0), (0, 1), (1, 0), (1, 1)];
    orders
        .into_iter()
        .map(|(descending, nulls_first)| {
            let order = KeyOrder { descending: descending == 1, nulls_first: nulls_first == 1 };
            let mut bytes = vec![descending, nulls_first];
            for value in values() {
                encode(&value, order, &mut bytes);
                encode(&value, order, &mut bytes);
            }
            seed(format!("all-{descending}-{nulls_first}"), bytes)
        })
        .collect()
}

pub(crate) fn rows() -> Vec<Seed> {
    let table = |columns: &[u8]| {
        let mut bytes = vec![columns.len() as u8];
        bytes.extend(columns.iter().flat_map(|gap| [*gap, gap % 2]));
        bytes
    };
    // Seven columns in a row, of which a row holds the first values; and a table that lost and got some.
    let encode = |values: &[kimberlite_row::Value]| {
        let mut bytes = Vec::new();
        crate::row::layout(values.len()).encode(values, &mut bytes).expect("a small row");
        bytes
    };
    let mut seeds = Vec::new();
    for (number, values) in values().chunks(7).enumerate() {
        seeds.push(seed(format!("all-{number}"), [table(&[0; 7]), encode(values)].concat()));
        seeds.push(seed(format!("changed-{number}"), [table(&[1, 0, 3]), encode(values)].concat()));
    }
    seeds
}

pub(crate) fn sql() -> Vec<Seed> {
    let texts = [
        (
            "select",
            "SELECT a, sum(b) OVER (PARTITION BY c ORDER BY d DESC) FROM t WHERE b IN (1, 2) OR c LIKE 'a%' LIMIT 3",
        ),
        (
            "join",
            "SELECT * FROM t LEFT JOIN u ON t.b = u.y FULL JOIN t AS v USING (a) WHERE EXISTS (SELECT 1 FROM u)",
        ),
        (
            "group",
            "SELECT c, count(*) FILTER (WHERE b > 1), grouping(c) FROM t GROUP BY ROLLUP (c) HAVING max(b) > 0",
        ),
        (
            "recursive",
            "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r",
        ),
        (
            "write",
            "INSERT INTO t VALUES (3, 4) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING *; DELETE FROM t",
        ),
        (
            "define",
            "CREATE TABLE x (a serial PRIMARY KEY, b int REFERENCES t ON DELETE CASCADE); ALTER TABLE x ADD c text",
        ),
        (
            "transaction",
            "BEGIN; SAVEPOINT s; UPDATE t SET b = 1; ROLLBACK TO s; COMMIT; EXPLAIN SELECT * FROM t WHERE a = 1",
        ),
        (
            "values",
            "SELECT date '2024-02-29' + interval '1 year', '{\"a\": [1]}'::jsonb -> 'a', ARRAY[1, 2][1], 1.5::numeric",
        ),
        ("deep", "SELECT ((((((((((-(-(- 1))))))))))))"),
        ("quotes", "SELECT E'\\x41', $$a$$, U&'\\0041', \"c\" FROM t -- end"),
    ];
    texts.into_iter().map(|(name, text)| seed(name, text.as_bytes().to_vec())).collect()
}

pub(crate) fn statements() -> Vec<Seed> {
    (0..SCRIPTS).map(|key| seed(format!("luck-{key}"), noise("statements", key, 300))).collect()
}
