//! Stories of SQL on small clusters: shipped nodes, shipped clients, a simulated world.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Appender, CLUSTER, Cluster, TENANT, Told};
use kimberlite_client::{self as client, Client, ClientError, ClientOptions};
use kimberlite_io::{Event, Io, Machine};
use kimberlite_io_sim::NodeId;
use kimberlite_kernel::EntryVerdict;
use kimberlite_runtime::Note;
use kimberlite_types::{Instant, Now, ReplicaId, TenantId};
use kimberlite_wire::client::{Answer, SqlAnswer, SqlFailure, SqlRows, Statement};
use kimberlite_wire::command::{Command, Outcome};

const MINUTE: Duration = Duration::from_mins(1);
/// How often a speaker looks for something to say.
const GLANCE: Duration = Duration::from_millis(1);

type Told1 = Result<SqlAnswer, ClientError>;

/// What a speaker is to say, and what it heard.
#[derive(Default)]
struct Desk {
    texts: VecDeque<(TenantId, String)>,
    heard: Vec<Told1>,
    /// The statement under way is to be cancelled.
    cancels: bool,
}

/// A client that runs the statements that are laid on its desk, one after the other.
struct Speaker {
    client: Client,
    desk: Arc<Mutex<Desk>>,
    creates: bool,
    busy: bool,
    in_block: bool,
    ticket: u64,
    time: Instant,
}

impl Speaker {
    fn step(&mut self, now: Now, input: client::Input, io: &mut dyn Io) {
        let mut heard = Vec::new();
        self.client.on(now, input, io, &mut heard);
        for output in heard {
            let told = match output {
                client::Output::Done { .. } => {
                    self.creates = false;
                    self.busy = false;
                    continue;
                }
                client::Output::Answered { answer: Answer::Sql(answer), .. } => Ok(answer),
                client::Output::Failed { why, .. } => Err(why),
                _ => continue,
            };
            self.busy = false;
            self.in_block = told.as_ref().map_or(self.in_block, |answer| answer.in_block);
            self.desk.lock().unwrap().heard.push(told);
        }
        if self.busy && std::mem::take(&mut self.desk.lock().unwrap().cancels) {
            let ticket = self.ticket;
            return self.step(now, client::Input::Cancel { ticket }, io);
        }
        if !self.busy {
            self.ticket += 1;
            let ticket = self.ticket;
            if self.creates {
                self.busy = true;
                let command = Command::CreateTenant { name: "tenant" }.encode();
                self.step(now, client::Input::Submit { ticket, tenant: TENANT, command }, io);
                return;
            }
            let text = self.desk.lock().unwrap().texts.pop_front();
            if let Some((tenant, text)) = text {
                self.busy = true;
                let statement = Statement { tenant, in_block: self.in_block, text };
                self.step(now, client::Input::Statement { ticket, statement }, io);
            }
        }
    }
}

impl Machine for Speaker {
    type Input = Event;
    type Output = Told;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, _: &mut Vec<Told>) {
        self.time = now.monotonic;
        self.step(now, client::Input::Event(event), io);
    }

    fn wake_at(&self) -> Option<Instant> {
        Some(self.client.wake_at().map_or(self.time.after(GLANCE), |at| at.min(self.time.after(GLANCE))))
    }
}

/// A cluster with speakers.
struct Stage {
    cluster: Cluster,
    desks: Vec<Arc<Mutex<Desk>>>,
}

impl Stage {
    fn new(seed: u64, replicas: u8, speakers: u16) -> Self {
        Self::on(Cluster::new(seed, replicas, speakers, 0), seed)
    }

    fn on(mut cluster: Cluster, seed: u64) -> Self {
        let replicas = cluster.replicas;
        let speakers = cluster.clients;
        let mut desks = Vec::new();
        for index in 0..speakers {
            let desk = Arc::new(Mutex::new(Desk::default()));
            let speaker = Speaker {
                client: Client::new(ClientOptions::new(CLUSTER, replicas, seed + u64::from(index))),
                desk: desk.clone(),
                creates: index == 0,
                busy: false,
                in_block: false,
                ticket: 0,
                time: Instant::ZERO,
            };
            cluster.world.start(NodeId(u16::from(replicas) + index), Box::new(speaker));
            desks.push(desk);
        }
        cluster.run_for(Duration::from_secs(3));
        Self { cluster, desks }
    }

    fn lay(&self, speaker: usize, text: &str) {
        self.desks[speaker].lock().unwrap().texts.push_back((TENANT, text.to_owned()));
    }

    /// Runs until everybody has heard so many answers in all, and takes them.
    fn hear(&mut self, counts: &[usize]) -> Vec<Vec<Told1>> {
        let desks = self.desks.clone();
        let heard = |index: usize| desks[index].lock().unwrap().heard.len();
        self.cluster
            .run_until(MINUTE, |_| counts.iter().enumerate().all(|(index, count)| heard(index) >= *count));
        self.desks.iter().map(|desk| std::mem::take(&mut desk.lock().unwrap().heard)).collect()
    }

    fn told(&mut self, speaker: usize, text: &str) -> Told1 {
        self.lay(speaker, text);
        let mut counts = vec![0; self.desks.len()];
        counts[speaker] = 1;
        self.hear(&counts)[speaker].pop().unwrap()
    }

    fn run(&mut self, speaker: usize, text: &str) -> SqlRows {
        self.told(speaker, text).unwrap().result.unwrap_or_else(|failure| panic!("{text}: {failure:?}"))
    }

    fn fail(&mut self, speaker: usize, text: &str) -> SqlFailure {
        self.told(speaker, text).unwrap().result.expect_err(text)
    }

    /// The rows of a query, cells joined by `|`.
    fn rows(&mut self, speaker: usize, text: &str) -> Vec<String> {
        let rows = self.run(speaker, text).rows;
        let cell = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".to_owned());
        rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>().join("|")).collect()
    }
}

fn patients(stage: &mut Stage) {
    let create = "CREATE TABLE patient (id INT PRIMARY KEY, name TEXT NOT NULL, age INT CHECK (age >= 0))";
    assert_eq!(stage.run(0, create).tag, "CREATE TABLE");
    let insert = "INSERT INTO patient VALUES (1, 'Ada', 36), (2, 'Grace', NULL);";
    assert_eq!(stage.run(0, insert).tag, "INSERT 0 2");
}

#[test]
fn tables_are_made_written_read_and_rebuilt_from_the_log() {
    let mut stage = Stage::new(1, 1, 1);
    patients(&mut stage);
    let answer = stage.run(0, "SELECT id, name, age FROM patient ORDER BY id");
    let columns: Vec<String> = answer.columns.iter().map(|c| format!("{} {}", c.name, c.kind)).collect();
    assert_eq!(columns, ["id integer", "name text", "age integer"]);
    assert_eq!(answer.tag, "SELECT 2");
    assert_eq!(answer.rows[1], [Some("2".to_owned()), Some("Grace".to_owned()), None]);
    stage.cluster.crash(0);
    stage.cluster.start(0);
    assert_eq!(stage.rows(0, "SELECT name FROM patient ORDER BY name"), ["Ada", "Grace"]);
    let node = stage.cluster.node(0);
    assert_eq!(node.kernel().digest_walk(), node.digest());
    assert_eq!(node.unanswered(), (0, 0));
}

#[test]
fn connections_that_take_each_other_s_session_away_all_come_to_write() {
    let mut stage = Stage::on(Cluster::with_sessions(1, 31, 1, 6, 0), 31);
    stage.run(0, "CREATE TABLE seat (id INT PRIMARY KEY)");
    for round in 0..5 {
        for speaker in 0..6 {
            stage.lay(speaker, &format!("INSERT INTO seat VALUES ({})", round * 6 + speaker));
        }
        for heard in stage.hear(&[1; 6]) {
            let tag = heard[0].as_ref().unwrap().result.as_ref().unwrap().tag.as_str();
            assert_eq!(tag, "INSERT 0 1");
        }
    }
    assert_eq!(stage.rows(0, "SELECT count(*) FROM seat"), ["30"]);
    let ops = stage.cluster.node(0).replica().op().0;
    assert!(ops < 1000, "{ops} ops for 30 rows");
}

const ROWS: &str = "SELECT count(*), sum(id), min(length(filler)), max(length(filler)) FROM wide";

/// A table of 4,000 rows and an index, which take more pages than a node of this layout keeps at hand.
fn wide(stage: &mut Stage) {
    stage.run(0, "CREATE TABLE wide (id BIGINT PRIMARY KEY, other BIGINT NOT NULL, filler TEXT)");
    stage.run(0, "CREATE INDEX by_other ON wide (other)");
    for part in 0..40 {
        let (first, last) = (part * 100 + 1, part * 100 + 100);
        let text = format!(
            "INSERT INTO wide SELECT i, (i * 7919) % 4000, repeat('x', 550) FROM generate_series({first}, {last}) AS g(i)"
        );
        assert_eq!(stage.run(0, &text).tag, "INSERT 0 100");
    }
    let node = stage.cluster.node(0);
    let fit = node.storage().checkpoint().expect("one was taken").root.page_size() as u64;
    let most = stage.cluster.layout.page_cache_bytes() / fit;
    let grid = stage.cluster.world.disk(NodeId(0)).extent(kimberlite_io::Zone::Grid) / fit;
    assert!(grid > 2 * most, "{grid} pages, of which {most} fit");
}

/// How often each replica told of something.
fn notes(stage: &Stage, wanted: fn(&Note) -> bool) -> Vec<usize> {
    let of = |replica| {
        let told = stage.cluster.notes.iter().filter(|(from, _)| *from == ReplicaId(replica));
        told.filter(|(_, note)| wanted(note)).count()
    };
    (0..stage.cluster.replicas).map(of).collect()
}

#[test]
fn tables_larger_than_what_is_at_hand_are_read_and_written_through_the_grid_and_a_restart_goes_on_from_a_checkpoint()
 {
    let mut stage = Stage::new(11, 3, 1);
    wide(&mut stage);
    assert_eq!(stage.rows(0, ROWS), ["4000|8002000|550|550"]);
    assert_eq!(stage.rows(0, "SELECT id FROM wide WHERE other = 7919 % 4000"), ["1"]);
    stage.cluster.run_until(MINUTE, Cluster::is_settled);
    (0..3).for_each(|replica| stage.cluster.crash(replica));
    stage.cluster.notes.clear();
    (0..3).for_each(|replica| stage.cluster.start(replica));
    stage.cluster.run_for(Duration::from_secs(2));
    assert_eq!(stage.rows(0, ROWS), ["4000|8002000|550|550"]);
    stage.cluster.run_until(MINUTE, Cluster::is_settled);
    assert_eq!(notes(&stage, |note| matches!(note, Note::Restored { .. })), [1, 1, 1]);
    let replayed = notes(&stage, |note| matches!(note, Note::Committed { .. }));
    let most = 2 * stage.cluster.layout.checkpoint_ops() as usize;
    assert!(replayed.iter().all(|ops| *ops <= most), "{replayed:?} ops of more than 40");
    // What is applied may miss, too: rows all over the table and both indexes, each in a statement of its own.
    for part in 0..40 {
        let text = format!("UPDATE wide SET other = other + 4000 WHERE id % 120 = {}", 3 * part);
        stage.run(0, &text);
    }
    assert_eq!(stage.rows(0, "SELECT count(*) FROM wide WHERE other >= 4000"), ["1333"]);
    stage.cluster.run_until(MINUTE, Cluster::is_settled);
    let digests: Vec<_> = (0..3).map(|replica| stage.cluster.node(replica).digest()).collect();
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{}", stage.cluster.describe());
    assert_eq!(notes(&stage, |note| matches!(note, Note::Rebuilds { .. })), [0, 0, 0]);
}

#[test]
fn a_lost_page_is_told_of_and_the_tables_are_made_anew_from_the_log() {
    for (seed, zone_first) in [(12, 0), (13, 8)] {
        let mut stage = Stage::on(Cluster::new(seed, 1, 1, 1), seed);
        wide(&mut stage);
        stage.cluster.crash(0);
        // All pages but some at the front, those of the root among them; or all.
        let grid = stage.cluster.world.disk(NodeId(0)).extent(kimberlite_io::Zone::Grid);
        for sector in
            (zone_first * 8192..grid).step_by(4096).filter(|at| at % (zone_first * 4096).max(4096) == 0)
        {
            let place = kimberlite_io::Place::grid(sector);
            assert!(stage.cluster.world.damage(NodeId(0), place, kimberlite_io_sim::Damage::FlipBit(77)));
        }
        stage.cluster.notes.clear();
        stage.cluster.start(0);
        stage.cluster.run_for(Duration::from_secs(2));
        // Whoever asks while the node makes its tables anew waits, or is told which page is lost.
        let mut told = stage.told(0, ROWS).unwrap().result;
        if let Err(failure) = &told {
            assert_eq!(failure.code.as_str(), "58030", "{failure:?}");
            assert!(failure.message.starts_with("the page at grid+"), "{failure:?}");
            told = stage.told(0, ROWS).unwrap().result;
        }
        let rows = told.unwrap().rows;
        assert_eq!(rows[0][0].as_deref(), Some("4000"));
        assert_eq!(notes(&stage, |note| matches!(note, Note::Rebuilds { .. })), [1]);
        assert_eq!(stage.run(0, "UPDATE wide SET other = 1 WHERE id = 5").tag, "UPDATE 1");
        stage.cluster.crash(0);
        stage.cluster.start(0);
        stage.cluster.run_for(Duration::from_secs(2));
        assert_eq!(stage.rows(0, "SELECT other FROM wide WHERE id = 5"), ["1"]);
        assert_eq!(notes(&stage, |note| matches!(note, Note::Rebuilds { .. })), [1], "it was written anew");
    }
}

#[test]
fn a_lost_page_comes_from_a_peer_and_nothing_is_made_anew() {
    let mut stage = Stage::new(14, 3, 1);
    wide(&mut stage);
    stage.cluster.run_until(MINUTE, Cluster::is_settled);
    (0..3).for_each(|replica| stage.cluster.crash(replica));
    let grid = stage.cluster.world.disk(NodeId(1)).extent(kimberlite_io::Zone::Grid);
    let zone = kimberlite_io::Place::grid(0);
    stage.cluster.world.atlas_mut().allow_only(zone, grid, &[ReplicaId(1)]);
    for sector in (0..grid).step_by(4096) {
        let place = kimberlite_io::Place::grid(sector);
        stage.cluster.world.damage(NodeId(1), place, kimberlite_io_sim::Damage::FlipBit(77));
    }
    stage.cluster.notes.clear();
    (0..3).for_each(|replica| stage.cluster.start(replica));
    stage.cluster.run_for(Duration::from_secs(2));
    // Whoever leads, every replica applies what touches every page.
    for part in 0..40 {
        stage.run(0, &format!("UPDATE wide SET other = other + 4000 WHERE id % 120 = {}", 3 * part));
    }
    stage.cluster.run_until(MINUTE, Cluster::is_settled);
    let mended = notes(&stage, |note| matches!(note, Note::PageMended { .. }));
    assert!(mended[1] > 10 && mended[0] + mended[2] == 0, "{mended:?}");
    assert_eq!(notes(&stage, |note| matches!(note, Note::Rebuilds { .. })), [0, 0, 0]);
    let digests: Vec<_> = (0..3).map(|replica| stage.cluster.node(replica).digest()).collect();
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{}", stage.cluster.describe());
    assert_eq!(stage.cluster.node(1).pages_asked(), 0);
}

#[test]
fn what_is_refused_names_its_condition() {
    let mut stage = Stage::new(2, 1, 1);
    patients(&mut stage);
    for (text, code) in [
        ("INSERT INTO patient VALUES (1, 'Eve', 3)", "23505"),
        ("INSERT INTO patient VALUES (3, NULL, 3)", "23502"),
        ("INSERT INTO patient VALUES (3, 'Eve', -1)", "23514"),
        ("SELECT nobody FROM patient", "42703"),
        ("SELECT * FROM nothing", "42P01"),
        ("SELEC 1", "42601"),
        ("SELECT 'unterminated", "42601"),
        ("SELECT 1; SELECT 2", "42601"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT repeat('x', 2000000)", "54000"),
    ] {
        assert_eq!(stage.fail(0, text).code.as_str(), code, "{text}");
    }
    assert_eq!(stage.fail(0, "SELECT id, nobody FROM patient").position, Some(12));
    assert_eq!(stage.run(0, " ; ").tag, "");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM patient"), ["2"]);
    stage.desks[0].lock().unwrap().texts.push_back((TenantId(77), "SELECT 1".to_owned()));
    let told = stage.hear(&[1])[0].pop().unwrap().unwrap();
    assert_eq!(told.result.unwrap_err().code.as_str(), "22023", "a connection is of one tenant");
}

#[test]
fn a_row_larger_than_a_command_is_refused_by_name() {
    let mut stage = Stage::new(3, 1, 1);
    stage.run(0, "CREATE TABLE big (id BIGINT PRIMARY KEY, filler TEXT)");
    let text = "INSERT INTO big VALUES (1, repeat('x', 70000))";
    let failure = stage.fail(0, text);
    assert_eq!(failure.code.as_str(), "54000");
    assert!(failure.message.starts_with("a row takes 70"), "{failure:?}");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM big"), ["0"]);
}

#[test]
fn a_transaction_is_done_as_a_whole_or_not_at_all() {
    let mut stage = Stage::new(4, 1, 2);
    patients(&mut stage);
    assert!(stage.told(0, "BEGIN").unwrap().in_block);
    stage.run(0, "INSERT INTO patient VALUES (3, 'Edsger', 40)");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM patient"), ["3"]);
    assert_eq!(stage.rows(1, "SELECT count(*) FROM patient"), ["2"], "nobody else sees it");
    let told = stage.told(0, "COMMIT").unwrap();
    assert_eq!((told.in_block, told.result.unwrap().tag.as_str()), (false, "COMMIT"));
    assert_eq!(stage.rows(1, "SELECT count(*) FROM patient"), ["3"]);
    stage.run(0, "BEGIN");
    stage.run(0, "DELETE FROM patient");
    stage.run(0, "ROLLBACK");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM patient"), ["3"]);
    for broken in ["SELEC", "SELECT repeat('x', 2000000)", "SELECT 1 / 0"] {
        stage.run(0, "BEGIN");
        stage.run(0, "DELETE FROM patient");
        stage.fail(0, broken);
        assert_eq!(stage.fail(0, "SELECT 1").code.as_str(), "25P02", "{broken}");
        assert_eq!(stage.run(0, "COMMIT").tag, "ROLLBACK");
    }
    assert_eq!(stage.rows(0, "SELECT count(*) FROM patient"), ["3"]);
}

#[test]
fn of_two_transactions_that_meet_the_second_is_told_to_begin_again() {
    let mut stage = Stage::new(5, 1, 2);
    patients(&mut stage);
    for speaker in 0..2 {
        stage.run(speaker, "BEGIN");
        stage.run(speaker, "UPDATE patient SET age = COALESCE(age, 0) + 1 WHERE id = 2");
    }
    stage.run(0, "COMMIT");
    let told = stage.told(1, "COMMIT").unwrap();
    assert_eq!((told.in_block, told.result.unwrap_err().code.as_str()), (false, "40001"));
    assert_eq!(stage.rows(1, "SELECT age FROM patient WHERE id = 2"), ["1"]);
}

#[test]
fn single_statements_that_meet_are_all_done() {
    let mut stage = Stage::new(6, 3, 8);
    patients(&mut stage);
    for _ in 0..20 {
        for speaker in 0..8 {
            stage.lay(speaker, "UPDATE patient SET age = age + 1 WHERE id = 1 RETURNING age");
        }
    }
    let mut ages: Vec<u32> = Vec::new();
    for told in stage.hear(&[20; 8]).into_iter().flatten() {
        let rows = told.unwrap().result.unwrap().rows;
        ages.push(rows[0][0].as_ref().unwrap().parse().unwrap());
    }
    ages.sort_by(u32::cmp);
    assert!(ages.into_iter().eq(37..37 + 160), "each saw the one before it");
    // Of two that want the same key, one is told that it exists.
    stage.lay(0, "INSERT INTO patient VALUES (9, 'Eve', 3)");
    stage.lay(1, "INSERT INTO patient VALUES (9, 'Mallory', 3)");
    let heard = stage.hear(&[1, 1]);
    let refused: Vec<SqlFailure> =
        heard.into_iter().flatten().filter_map(|told| told.unwrap().result.err()).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].code.as_str(), "23505");
    assert!(refused[0].message.contains("patient_pkey"), "{refused:?}");
}

#[test]
fn a_transaction_whose_node_dies_is_gone_and_says_so() {
    let mut stage = Stage::new(7, 3, 1);
    patients(&mut stage);
    stage.run(0, "BEGIN");
    stage.run(0, "INSERT INTO patient VALUES (3, 'Edsger', 40)");
    let primary = stage.cluster.primary().unwrap();
    stage.cluster.crash(primary);
    stage.cluster.run_for(Duration::from_secs(5));
    let told = stage.told(0, "INSERT INTO patient VALUES (4, 'Barbara', 50)").unwrap();
    assert_eq!((told.in_block, told.result.unwrap_err().code.as_str()), (false, "40001"));
    assert_eq!(stage.rows(0, "SELECT count(*) FROM patient"), ["2"]);
}

#[test]
fn a_statement_whose_connection_breaks_is_not_sent_again() {
    let mut unknown = 0;
    for seed in 0..12 {
        let mut stage = Stage::new(100 + seed, 3, 1);
        stage.run(0, "CREATE TABLE hits (n INT)");
        stage.lay(0, "INSERT INTO hits VALUES (1)");
        stage.cluster.run_for(Duration::from_micros(1_000 + 150 * seed));
        let primary = stage.cluster.primary().unwrap();
        stage.cluster.crash(primary);
        stage.cluster.run_for(Duration::from_secs(5));
        let told = stage.hear(&[1])[0].pop().unwrap();
        let count = stage.rows(0, "SELECT count(*) FROM hits");
        match told {
            Ok(answer) => {
                answer.result.unwrap();
                assert_eq!(count, ["1"]);
            }
            Err(why) => {
                assert_eq!(why, ClientError::GaveUp { sent: true });
                unknown += 1;
                assert!(count == ["0"] || count == ["1"], "{count:?}");
            }
        }
    }
    assert!(unknown > 0, "some were on their way");
}

#[test]
fn statements_of_two_connections_run_side_by_side() {
    let mut stage = Stage::new(8, 1, 2);
    stage.run(0, "CREATE TABLE n (i INT PRIMARY KEY)");
    stage.run(0, "INSERT INTO n SELECT i FROM generate_series(1, 1000) AS g(i)");
    stage.lay(0, "SELECT count(*) FROM n AS a, n AS b WHERE a.i + b.i = 7");
    stage.lay(1, "SELECT 1");
    let heard = stage.hear(&[1, 1]);
    assert_eq!(heard[0][0].as_ref().unwrap().result.as_ref().unwrap().rows, [[Some("6".to_owned())]]);
    assert_eq!(heard[1][0].as_ref().unwrap().result.as_ref().unwrap().rows, [[Some("1".to_owned())]]);
}

#[test]
fn streams_are_read_beside_tables() {
    for replicas in [1, 3] {
        let mut cluster = Cluster::new(11, replicas, 1, 0);
        cluster.add_client(0, Appender::new(1, replicas, true, 40, 300));
        cluster.run_until(MINUTE, |cluster| cluster.client(0).is_done());
        cluster.crash(replicas);
        let mut stage = Stage::on(cluster, 11);
        stage.run(0, "CREATE TABLE n (i INT PRIMARY KEY)");
        stage.run(0, "INSERT INTO n SELECT i FROM generate_series(1, 5) AS g(i)");
        let count = stage.rows(0, "SELECT count(*), count(DISTINCT position) > 1 FROM stream('stream')");
        assert_eq!(count, ["40|t"]);
        let whole =
            "SELECT count(*), min(length(payload)) > 0, min(time) IS NOT NULL FROM stream('stream'), n
            WHERE offset % 5 + 1 = i";
        assert_eq!(stage.rows(0, whole), ["40|t|t"]);
        let unknown = stage.fail(0, "SELECT * FROM stream('steam')");
        assert_eq!((unknown.code.as_str(), unknown.hint.is_some()), ("42704", true));
        stage.run(0, "CREATE TABLE copy AS SELECT offset, payload FROM stream('stream') WHERE offset >= 30");
        assert_eq!(stage.rows(0, "SELECT count(*) FROM copy"), ["10"]);
    }
}

/// A table of a thousand rows, and a query that would look at a thousand million.
fn endless(stage: &mut Stage) -> &'static str {
    stage.run(0, "CREATE TABLE n (i INT PRIMARY KEY)");
    stage.run(0, "INSERT INTO n SELECT i FROM generate_series(1, 1000) AS g(i)");
    "SELECT count(*) FROM n AS a, n AS b, n AS c WHERE a.i + b.i + c.i = 7"
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled() {
    let mut stage = Stage::new(9, 1, 1);
    let endless = endless(&mut stage);
    assert_eq!(stage.fail(0, "SET statement_timeout = 'soon'").code.as_str(), "22023");
    stage.run(0, "SET statement_timeout = '1ms'");
    assert_eq!(stage.fail(0, endless).code.as_str(), "57014");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM n WHERE i = 7"), ["1"]);
    stage.run(0, "BEGIN");
    assert_eq!(stage.fail(0, endless).code.as_str(), "57014");
    assert_eq!(stage.fail(0, "SELECT 1").code.as_str(), "25P02", "the block is broken");
    assert_eq!(stage.run(0, "COMMIT").tag, "ROLLBACK");
    stage.run(0, "SET statement_timeout = 0");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM n AS a, n AS b WHERE a.i + b.i = 7"), ["6"]);
}

#[test]
fn a_statement_is_cancelled_by_its_client() {
    let mut stage = Stage::new(10, 1, 1);
    let endless = endless(&mut stage);
    stage.lay(0, endless);
    stage.cluster.run_for(Duration::from_millis(3));
    stage.desks[0].lock().unwrap().cancels = true;
    let heard = stage.hear(&[1])[0].pop().unwrap().unwrap();
    assert_eq!(heard.result.unwrap_err().code.as_str(), "57014");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM n"), ["1000"]);
}

#[test]
fn an_answer_takes_as_many_frames_as_it_needs() {
    let mut stage = Stage::new(12, 3, 2);
    let text = "SELECT i, repeat('x', 50000) FROM generate_series(1, 100) AS g(i)";
    stage.lay(0, text);
    stage.lay(0, "SELECT 'behind it'");
    let heard = stage.hear(&[2]).remove(0);
    let answers: Vec<SqlRows> = heard.into_iter().map(|told| told.unwrap().result.unwrap()).collect();
    assert_eq!((answers[0].tag.as_str(), answers[0].rows.len()), ("SELECT 100", 100));
    for (at, row) in answers[0].rows.iter().enumerate() {
        assert_eq!(row[0].as_deref(), Some((at + 1).to_string().as_str()));
        assert_eq!(row[1].as_ref().map(String::len), Some(50_000));
    }
    assert_eq!(answers[1].rows, [[Some("behind it".to_owned())]]);
    let far = "SELECT repeat('x', 100000) FROM generate_series(1, 1000)";
    assert_eq!(stage.fail(1, far).code.as_str(), "54000", "there is an end to it");
}

#[test]
fn writes_of_one_row_share_ops() {
    let mut stage = Stage::new(11, 1, 8);
    patients(&mut stage);
    let before = stage.cluster.node(0).kernel().applied();
    for speaker in 0..8 {
        for _ in 0..10 {
            stage.lay(speaker, "UPDATE patient SET age = age + 1 WHERE id = 1");
        }
    }
    for told in stage.hear(&[10; 8]).into_iter().flatten() {
        assert_eq!(told.unwrap().result.unwrap().tag, "UPDATE 1");
    }
    assert_eq!(stage.rows(0, "SELECT age FROM patient WHERE id = 1"), ["116"]);
    let ops = stage.cluster.node(0).kernel().applied().0 - before.0;
    // One each for eighty writes, if each waited for the one before it.
    assert!(ops < 60, "{ops} ops");
}

/// How many commands of a replica's log are pieces of facts.
fn pieces(stage: &Stage) -> usize {
    let staged = |note: &Note| {
        let Note::Committed { applied, .. } = note else { return 0 };
        let is_piece = |said: &&EntryVerdict| matches!(said.verdict.result, Ok(Outcome::Staged { .. }));
        applied.verdicts.iter().filter(is_piece).count()
    };
    let told = stage.cluster.notes.iter().filter(|(from, _)| *from == ReplicaId(0));
    told.map(|(_, note)| staged(note)).sum()
}

#[test]
fn a_transaction_may_be_larger_than_a_command() {
    let mut stage = Stage::new(15, 3, 2);
    stage.run(0, "CREATE TABLE small (id BIGINT PRIMARY KEY)");
    stage.run(0, "BEGIN");
    stage.run(0, "CREATE TABLE large (id BIGINT PRIMARY KEY, other BIGINT UNIQUE, filler TEXT)");
    let insert = "INSERT INTO large SELECT i, -i, repeat('x', 50) FROM generate_series(1, 4000) AS g(i)";
    assert_eq!(stage.run(0, insert).tag, "INSERT 0 4000");
    assert_eq!(stage.run(0, "DELETE FROM large WHERE id % 4 = 0").tag, "DELETE 1000");
    assert_eq!(stage.fail(1, "SELECT * FROM large").code.as_str(), "42P01");
    stage.lay(0, "COMMIT");
    // Others go on between its pieces.
    for id in 0..20 {
        stage.lay(1, &format!("INSERT INTO small VALUES ({id})"));
    }
    let heard = stage.hear(&[1, 20]);
    assert!(heard.iter().flatten().all(|told| told.as_ref().unwrap().result.is_ok()), "{heard:?}");
    assert!(pieces(&stage) > 3, "{}", pieces(&stage));
    assert_eq!(stage.rows(1, "SELECT count(*), sum(id), min(other) FROM large"), ["3000|6000000|-3999"]);
    // All of them at once, or none.
    let clash = "UPDATE large SET other = CASE WHEN id = 3999 THEN -1 ELSE other + 1000000 END";
    assert_eq!(stage.run(0, "BEGIN").tag, "BEGIN");
    assert_eq!(stage.run(1, "INSERT INTO large VALUES (4, 1000000 - 1)").tag, "INSERT 0 1");
    assert_eq!(stage.run(0, "UPDATE large SET other = other + 1000000").tag, "UPDATE 3000");
    assert_eq!(stage.run(1, "UPDATE large SET filler = 'y' WHERE id = 3").tag, "UPDATE 1");
    assert_eq!(stage.fail(0, "COMMIT").code.as_str(), "40001");
    assert_eq!(stage.run(0, clash).tag, "UPDATE 3001");
    assert_eq!(stage.rows(1, "SELECT count(*), min(other) FROM large WHERE other < 0"), ["1|-1"]);
    stage.cluster.run_until(MINUTE, Cluster::is_settled);
    let digests: Vec<_> = (0..3).map(|replica| stage.cluster.node(replica).digest()).collect();
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{}", stage.cluster.describe());
    (0..3).for_each(|replica| stage.cluster.crash(replica));
    (0..3).for_each(|replica| stage.cluster.start(replica));
    stage.cluster.run_for(Duration::from_secs(2));
    assert_eq!(stage.rows(1, "SELECT count(*), min(other) FROM large WHERE other < 0"), ["1|-1"]);
}

#[test]
fn a_large_write_is_cancelled_between_its_pieces() {
    let mut stage = Stage::new(16, 1, 1);
    stage.run(0, "CREATE TABLE large (id BIGINT PRIMARY KEY, filler TEXT)");
    let insert = "INSERT INTO large SELECT i, repeat('x', 500) FROM generate_series(1, 4000) AS g(i)";
    stage.lay(0, insert);
    for _ in 0..10_000 {
        if pieces(&stage) > 2 {
            break;
        }
        stage.cluster.run_for(Duration::from_micros(100));
    }
    stage.desks[0].lock().unwrap().cancels = true;
    let heard = stage.hear(&[1])[0].pop().unwrap().unwrap();
    assert_eq!(heard.result.unwrap_err().code.as_str(), "57014");
    let staged = pieces(&stage);
    assert!((3..30).contains(&staged), "{staged} pieces");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM large"), ["0"]);
    assert_eq!(stage.run(0, insert).tag, "INSERT 0 4000");
    assert_eq!(stage.rows(0, "SELECT count(*) FROM large"), ["4000"]);
}
