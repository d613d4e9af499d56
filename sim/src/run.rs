//! One run: a cluster under a workload and faults, watched by checkers, in two phases.
//!
//! In the first phase everything may break, and what was promised must hold. Then a core that suffices is
//! healed, all other faults become permanent, and the core must make progress (see `liveness`).

mod clients;

use std::time::Duration;

use kimberlite_crypto::Checksummer;
use kimberlite_io::Zone;
use kimberlite_io_sim::{
    Concern, DecisionLog, Dice, Divergence, Fault, FaultInjected, Happening, NodeId, Step, StepKind,
};
use kimberlite_probe::mark;
use kimberlite_runtime::{HaltReason, Note};
use kimberlite_types::limits::HEADER_WINDOW;
use kimberlite_types::{Instant, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::cells::{Cells, Tracker};
use crate::census::{Counts, Tally, memory};
use crate::checker::{Checker, End, Observation, Sample};
use crate::choice::{Choice, Chosen};
use crate::cluster::{Cluster, Told};
use crate::config::{Family, RunConfig};
use crate::crash_at::Play;
use crate::failure::{Failure, FailureKind, catch};
use crate::liveness::Liveness;
use crate::plots::Scheme;
use crate::sql::{Coverage, SqlWork};
use crate::trail::{FAULTS_MAX, Seen, Trail};
use crate::workload::Workload;

/// Events between two checkpoints of the digest.
pub const CHECKPOINT_EVENTS: u64 = 4_096;

/// Marks that are counted in one event at most: some three hundred times what any event of five hundred worlds came to.
const EVENT_MARKS_MAX: u64 = 1 << 16;

/// Events between two looks at what replicas do without saying so.
const SAMPLE_EVENTS: u64 = 32;

/// Makes the checkers of a run.
pub type Rules = fn(&RunConfig) -> Vec<Box<dyn Checker>>;

/// Where the luck of a run comes from.
#[derive(Clone, Debug)]
pub enum Luck {
    /// From the seed, without a record.
    Free,
    /// From the seed; every decision is recorded, and the digest at every checkpoint.
    Recorded,
    /// From a record made with the seed.
    Replayed(DecisionLog),
    /// From the seed, but for the decisions that these bytes name ([`Dice::steered`]); recorded.
    Steered(Vec<u8>),
}

/// The digest of a run after some events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Events so far.
    pub event: u64,
    /// Virtual time.
    pub at: Instant,
    /// The world's digest.
    pub digest: [u8; 32],
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything held, and the core made progress.
    Passed,
    /// More was broken than any cluster could bear, and it was refused loudly. Not a pass.
    Excused(String),
    /// Something that must hold did not.
    Failed(Failure),
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// What happened, in the words of the protocol.
    pub counts: Counts,
    /// What happened, in the words of the world: events, asks and faults by name.
    pub census: Vec<(&'static str, u64)>,
    /// How often each mark in the code was counted.
    pub marks: mark::Counts,
    /// Which faults hit replicas doing what.
    pub cells: Cells,
    /// Which clauses clients said that speak SQL, and which together.
    pub grammar: Coverage,
    /// How much each checker compared.
    pub compared: Vec<(&'static str, u64)>,
    /// How much each checker left undecided, if it did.
    pub skipped: Vec<(&'static str, u64)>,
    /// Events delivered.
    pub events: u64,
    /// Virtual time at the end.
    pub at: Instant,
    /// Digest of all that was delivered and asked, and of the state of every replica at the end.
    pub digest: [u8; 32],
    /// Bytes the disks and queues of the world held at the end.
    pub memory: u64,
}

/// What a recorded or replayed run leaves besides its report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Every decision.
    pub decisions: DecisionLog,
    /// The digest now and then.
    pub checkpoints: Vec<Checkpoint>,
    /// Where a replay left its record first, if it did.
    pub divergence: Option<Divergence>,
    /// Every event, in a few bytes.
    pub trail: Trail,
    /// The first few thousand faults that took effect.
    pub faults: Vec<Seen>,
    /// What could have been left out.
    pub choices: Vec<Choice>,
}

/// Runs `config` with the luck of `seed` under `rules`. Panics inside the run become failures.
pub fn run(config: &RunConfig, seed: u64, luck: Luck, rules: Rules) -> (Report, Record) {
    assert!(config.check().is_ok(), "a run is checked before it is started");
    let record = !matches!(luck, Luck::Free);
    let dice = match luck {
        Luck::Free => Dice::free(seed),
        Luck::Recorded => Dice::recording(seed),
        Luck::Replayed(log) => Dice::replaying(seed, log),
        Luck::Steered(bytes) => Dice::steered(seed, bytes),
    };
    let mut run = match catch(|| Run::new(config, dice, rules, record)) {
        Ok(run) => run,
        Err(caught) => return (Report::failed(caught.into_failure()), Record::empty()),
    };
    let outcome = run.conclude();
    run.finish(outcome)
}

/// Lives a story. Answers also how far it got.
pub(crate) fn run_play(config: &RunConfig, dice: Dice, rules: Rules, play: Play) -> (Report, Option<Play>) {
    assert_eq!(config.check(), Ok(()), "a story makes sense");
    let mut run = match catch(|| Run::new(config, dice, rules, false)) {
        Ok(run) => run,
        Err(caught) => return (Report::failed(caught.into_failure()), None),
    };
    run.play = Some(play);
    let outcome = run.conclude();
    let play = run.play.take();
    (run.finish(outcome).0, play)
}

impl Report {
    /// The report of a run that failed before there was a world.
    fn failed(failure: Failure) -> Self {
        Self {
            outcome: Outcome::Failed(failure),
            counts: Counts::default(),
            census: Vec::new(),
            marks: mark::take().0,
            cells: Cells::default(),
            grammar: Coverage::default(),
            compared: Vec::new(),
            skipped: Vec::new(),
            events: 0,
            at: Instant::ZERO,
            digest: [0; 32],
            memory: 0,
        }
    }
}

impl Record {
    fn empty() -> Self {
        Self {
            decisions: DecisionLog::default(),
            checkpoints: Vec::new(),
            divergence: None,
            trail: Trail::default(),
            faults: Vec::new(),
            choices: Vec::new(),
        }
    }
}

/// A timer of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// A client asks its next request.
    Client(u16),
    /// A family of faults strikes.
    Family(Family),
    /// A process starts again.
    Restart(NodeId),
    /// A process that has just started dies again.
    CrashAgain(NodeId),
    /// A paused process runs on.
    Resume(NodeId),
    /// The partition with this number ends.
    Rejoin(u16),
    /// A disk has room again.
    Room(NodeId),
    /// A disk is as fast as before.
    Fast(NodeId),
    /// The second phase is looked at.
    Watch,
    /// The next deed of a story.
    Deed,
    /// The plot with this number is looked after.
    Plot(u16),
}

impl Tick {
    /// The word for what a tag stands for.
    fn kind(tag: u64) -> u8 {
        (tag >> 32) as u8
    }

    pub(crate) const fn tag(self) -> u64 {
        let (kind, of) = match self {
            Self::Client(client) => (0, client),
            Self::Family(family) => (1, family as u16),
            Self::Restart(node) => (2, node.0),
            Self::CrashAgain(node) => (3, node.0),
            Self::Resume(node) => (4, node.0),
            Self::Rejoin(number) => (5, number),
            Self::Room(node) => (6, node.0),
            Self::Fast(node) => (7, node.0),
            Self::Watch => (8, 0),
            Self::Deed => (9, 0),
            Self::Plot(number) => (10, number),
        };
        kind << 32 | of as u64
    }

    fn of_tag(tag: u64) -> Self {
        let of = (tag & 0xffff) as u16;
        match tag >> 32 {
            0 => Self::Client(of),
            1 => Self::Family(Family::ALL[usize::from(of)]),
            2 => Self::Restart(NodeId(of)),
            3 => Self::CrashAgain(NodeId(of)),
            4 => Self::Resume(NodeId(of)),
            5 => Self::Rejoin(of),
            6 => Self::Room(NodeId(of)),
            7 => Self::Fast(NodeId(of)),
            8 => Self::Watch,
            9 => Self::Deed,
            10 => Self::Plot(of),
            _ => panic!("a tag nobody made"),
        }
    }
}

/// A crash that waits for a write to tear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ambush {
    /// Whose write.
    pub(crate) replica: ReplicaId,
    /// Whether all others crash with it.
    pub(crate) all: bool,
    /// Where the write goes; none: anywhere.
    pub(crate) zone: Option<Zone>,
}

/// A run while it goes on.
pub(crate) struct Run {
    pub(crate) cluster: Cluster,
    pub(crate) config: RunConfig,
    pub(crate) workload: Workload,
    pub(crate) sql: Option<SqlWork>,
    pub(crate) tally: Tally,
    pub(crate) tracker: Tracker,
    /// Replicas whose disk was told to die, and those whose disk did: one bit each.
    pub(crate) doomed: u8,
    pub(crate) dead: u8,
    pub(crate) partitions: u16,
    /// Who crashes at the first moment a write of theirs is under way.
    pub(crate) ambush: Option<Ambush>,
    /// The plot under way, if one is, and how many there were.
    pub(crate) scheme: Option<Scheme>,
    pub(crate) plots: u16,
    /// Replicas seen catching up, one bit each.
    catching_up: u8,
    /// The second phase, once it began.
    pub(crate) liveness: Option<Liveness>,
    /// Why the run cannot be held against the cluster, if so.
    excused: Option<String>,
    /// The story that is lived, if one is.
    pub(crate) play: Option<Play>,
    checkers: Vec<Box<dyn Checker>>,
    events: u64,
    began: Instant,
    diary: Option<Diary>,
}

/// What a run keeps that is recorded.
#[derive(Default)]
struct Diary {
    checkpoints: Vec<Checkpoint>,
    trail: Trail,
    faults: Vec<Seen>,
    choices: Vec<Choice>,
}

impl Run {
    fn new(config: &RunConfig, dice: Dice, rules: Rules, record: bool) -> Self {
        mark::begin();
        let mut cluster = Cluster::new(config, dice);
        cluster.configure_faults();
        // What it took to format the disks is no fault.
        cluster.world.take_faults();
        Self {
            began: cluster.world.time(),
            cluster,
            config: config.clone(),
            workload: Workload::new(config.work, &config.layout, config.replicas),
            sql: config
                .sql
                .clone()
                .map(|plan| SqlWork::new(plan, config.work.clients, config.layout.command_size_max())),
            tally: Tally::default(),
            tracker: Tracker::default(),
            doomed: 0,
            dead: 0,
            partitions: 0,
            ambush: None,
            scheme: None,
            plots: 0,
            catching_up: 0,
            liveness: None,
            excused: None,
            play: None,
            checkers: rules(config),
            events: 0,
            diary: record.then(Diary::default),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.cluster.world.time()
    }

    pub(crate) fn schedule(&mut self, after: Duration, tick: Tick) {
        self.cluster.world.schedule(after, tick.tag());
    }

    pub(crate) fn draw(&mut self, question: u64, bound: u64) -> u64 {
        self.cluster.world.dice_mut().draw(Concern::Schedule, question, bound)
    }

    pub(crate) fn chance(&mut self, question: u64, ppm: u32) -> bool {
        self.cluster.world.dice_mut().chance_ppm(Concern::Schedule, question, ppm)
    }

    /// An exponentially distributed wait of at least a microsecond.
    pub(crate) fn wait(&mut self, question: u64, mean: Duration) -> Duration {
        let mean = Instant::ZERO.after(mean).0;
        let nanos = self.cluster.world.dice_mut().exponential(Concern::Schedule, question, mean);
        Duration::from_nanos(nanos.max(1_000))
    }

    /// Tells the checkers whose grid was harmed.
    fn tell_harm(&mut self) -> Result<(), Failure> {
        for replica in self.track_faults() {
            self.observe(&Observation::GridHarmed { replica })?;
        }
        Ok(())
    }

    pub(crate) fn observe(&mut self, seen: &Observation<'_>) -> Result<(), Failure> {
        let at = self.now();
        for checker in &mut self.checkers {
            checker.observe(at, seen).map_err(Failure::of_violation)?;
        }
        Ok(())
    }

    /// Runs to the end. A panic on the way is a failure like any other.
    fn conclude(&mut self) -> Outcome {
        let ended = catch(|| self.execute());
        match ended {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(failure)) => Outcome::Failed(self.dated(failure)),
            Err(caught) => {
                let mut failure = self.dated(caught.into_failure());
                failure.replica = self.cluster.world.acting().and_then(|node| self.cluster.replica_on(node));
                Outcome::Failed(failure)
            }
        }
    }

    fn execute(&mut self) -> Result<Outcome, Failure> {
        self.begin_play();
        for replica in self.cluster.replicas() {
            self.start_replica(replica)?;
        }
        for client in 0..self.config.clients() {
            self.cluster.start_client(client);
            self.await_turn(client);
        }
        self.begin_faults();
        let safety_ends = self.began.after(self.config.safety);
        while self.excused.is_none() {
            let said = self.sql.as_ref().is_none_or(|sql| sql.is_exhausted() && sql.open_total() == 0);
            let done = said && self.workload.is_done() && self.play.as_ref().is_none_or(Play::is_over);
            if self.liveness.is_none() && (done || self.now() > safety_ends) {
                self.begin_liveness()?;
            }
            let over = self.step()?;
            if over {
                break;
            }
            if self.events > self.config.events_max {
                return Err(Failure::new(
                    FailureKind::Stuck,
                    "events",
                    "a run ends within its number of events",
                    format!("{} events and no end", self.events),
                    None,
                ));
            }
        }
        if let Some(why) = self.excused.take() {
            return Ok(Outcome::Excused(why));
        }
        self.check_end()?;
        Ok(Outcome::Passed)
    }

    /// One event. Tells whether the run is over.
    fn step(&mut self) -> Result<bool, Failure> {
        let step = mark::within(EVENT_MARKS_MAX, || self.cluster.world.step());
        let step = step.expect("a replica always waits for something");
        self.events += 1;
        self.tell_harm()?;
        self.keep_diary(&step);
        if self.events.is_multiple_of(CHECKPOINT_EVENTS) {
            self.checkpoint();
        }
        let over = self.handle(step)?;
        // Now that whoever lost its power in this step is down.
        if self.events.is_multiple_of(SAMPLE_EVENTS) {
            self.sample()?;
        }
        Ok(over)
    }

    /// What an event came to. Tells whether the run is over.
    fn handle(&mut self, step: Step<Told>) -> Result<bool, Failure> {
        match step.what {
            StepKind::Policy(tag) => self.on_tick(Tick::of_tag(tag)),
            StepKind::Delivered { node, event, outputs } => {
                if event == Happening::Written && self.cluster.world.write_failed(node) {
                    let replica = self.cluster.replica_on(node).expect("clients have no disk");
                    self.observe(&Observation::WriteFailed { replica })?;
                }
                for told in outputs {
                    self.on_told(node, told)?;
                }
                if let Some(replica) = self.cluster.replica_on(node) {
                    self.tracker.see(replica, self.cluster.node(replica));
                }
                if let Some(broken) = mark::broken() {
                    return Err(Self::of_mark(broken));
                }
                self.spring_ambush(node)?;
                self.cut_power(node)?;
                self.go_on_with_play();
                Ok(false)
            }
        }
    }

    /// Counts the faults that took effect since it was last asked. Answers whose disk harmed its grid, beyond what a power
    /// cut does to writes in flight.
    fn track_faults(&mut self) -> Vec<ReplicaId> {
        let (seen, event) = (self.cluster.world.take_faults(), self.events);
        let harms = |fault: &&FaultInjected| {
            fault.place.is_some_and(|place| place.zone == Zone::Grid)
                && matches!(
                    fault.fault,
                    Fault::ReadError
                        | Fault::MisdirectedRead
                        | Fault::LatentError
                        | Fault::BitRot
                        | Fault::PhantomWrite
                        | Fault::MisdirectedWrite
                )
        };
        let harmed =
            seen.iter().filter(harms).filter_map(|fault| self.cluster.replica_on(fault.node)).collect();
        self.tracker.count(&seen, self.config.replicas);
        if let Some(diary) = &mut self.diary {
            diary.faults.extend(seen.iter().map(|fault| Seen::of(event, fault)));
            diary.faults.truncate(FAULTS_MAX);
        }
        harmed
    }

    /// A mark in the code was broken: what always holds did not, or what is never reached was.
    fn of_mark(broken: mark::Broken) -> Failure {
        let mark::Broken { mark, line } = broken;
        let rule = format!("{} {}: {}", mark.kind.name(), mark.name, mark.meaning);
        Failure::new(FailureKind::Violation, "mark", rule, format!("{}:{line}", mark.file), None)
    }

    /// Lets checkers look, and counts replicas that fell behind by more than the headers they keep.
    fn sample(&mut self) -> Result<(), Failure> {
        let (at, cluster) = (self.now(), &self.cluster);
        let sample = Sample {
            config: self.config.config(ReplicaId(0)),
            nodes: cluster.replicas().map(|replica| cluster.node(replica)).collect(),
            held: cluster.held(),
        };
        for checker in &mut self.checkers {
            checker.sample(at, &sample).map_err(Failure::of_violation)?;
        }
        let mut now = 0;
        for replica in self.cluster.replicas() {
            let catching_up = self.cluster.node(replica).is_some_and(|node| {
                let vsr = node.replica();
                vsr.commit_max().0 - vsr.commit().0 > HEADER_WINDOW as u64
            });
            now |= u8::from(catching_up) << replica.0;
        }
        self.tally.counts.catch_ups += u64::from((now & !self.catching_up).count_ones());
        self.catching_up = now;
        Ok(())
    }

    fn checkpoint(&mut self) {
        if let Some(diary) = &mut self.diary {
            let (at, digest) = (self.cluster.world.time(), self.cluster.world.digest());
            diary.checkpoints.push(Checkpoint { event: self.events, at, digest });
        }
    }

    /// Writes down what just happened, if this run is recorded.
    fn keep_diary(&mut self, step: &Step<Told>) {
        let Some(diary) = &mut self.diary else { return };
        let pulse = self.cluster.world.pulse();
        match &step.what {
            StepKind::Delivered { node, event, .. } => diary.trail.push(step.at, *node, *event, pulse),
            StepKind::Policy(tag) => diary.trail.push_policy(step.at, Tick::kind(*tag), pulse),
        }
    }

    /// Does something of the policy that may as well not be done, or leaves it out where the record says so. What it
    /// decides while it is done is noted, so that whoever leaves it out can take that out, too.
    pub(crate) fn choose<R>(&mut self, what: Chosen, act: impl FnOnce(&mut Self) -> R) -> Option<R> {
        let gate = what.gate();
        if !self.chance(gate, 1_000_000) {
            return None;
        }
        if self.diary.is_none() {
            return Some(act(self));
        }
        let concerns = what.concerns();
        let before: Vec<_> =
            concerns.iter().map(|concern| self.cluster.world.dice().positions(*concern)).collect();
        let index = self.cluster.world.dice().position(Concern::Schedule, gate) - 1;
        let result = act(self);
        let mut decided = Vec::new();
        for (concern, before) in concerns.iter().zip(before) {
            for (key, to) in self.cluster.world.dice().positions(*concern) {
                let from = before.get(&key).copied().unwrap_or(0);
                if from < to {
                    decided.push((*concern, key, from..to));
                }
            }
        }
        let (event, at) = (self.events, self.now());
        if let Some(diary) = &mut self.diary {
            diary.choices.push(Choice { what, event, at, index, decided });
        }
        Some(result)
    }

    fn on_tick(&mut self, tick: Tick) -> Result<bool, Failure> {
        match tick {
            Tick::Client(client) => self.on_client_tick(client)?,
            Tick::Watch => return self.watch(),
            Tick::Deed => self.on_deed()?,
            // In the second phase nothing breaks any more, and what is broken stays so.
            _ if self.liveness.is_some() => {}
            fault => self.on_fault_tick(fault)?,
        }
        Ok(false)
    }

    fn on_told(&mut self, node: NodeId, told: Told) -> Result<(), Failure> {
        match told {
            Told::Node(note) => {
                let replica = self.cluster.replica_on(node).expect("nodes live on replicas");
                self.on_note(replica, &note)
            }
            Told::Client(said) => {
                let client = self.cluster.client_on(node).expect("clients live on their nodes");
                self.on_said(client, &said)
            }
            Told::Formatter(_) => panic!("disks are formatted before the run begins"),
        }
    }

    fn on_note(&mut self, replica: ReplicaId, note: &Note) -> Result<(), Failure> {
        self.tally.note(replica, note);
        self.observe(&Observation::Note { replica, note })?;
        match note {
            Note::Committed { prepare, .. } => {
                if let Some(sql) = &mut self.sql {
                    sql.on_committed(prepare.header.op.0, prepare.header.timestamp);
                }
                Ok(())
            }
            Note::Halted(reason) => self.on_halted(replica, *reason),
            _ => Ok(()),
        }
    }

    /// A node stopped for good: allowed where its disk was killed, or where it was alone and is damaged.
    fn on_halted(&mut self, replica: ReplicaId, reason: HaltReason) -> Result<(), Failure> {
        use kimberlite_storage::HaltReason as Storage;
        let bit = 1 << replica.0;
        if matches!(reason, HaltReason::Storage(Storage::WriteFailed { .. })) && self.doomed & bit != 0 {
            self.dead |= bit;
            self.tally.counts.deaths += 1;
            return self.crash_replica(replica);
        }
        let alone = self.config.replicas == 1 && self.config.faults.tolerated > 0;
        if alone && !matches!(reason, HaltReason::Storage(Storage::WriteFailed { .. })) {
            self.excused = Some(format!("a lone replica refused its damaged disk: {reason}"));
            return Ok(());
        }
        let class = match reason {
            HaltReason::Storage(Storage::WriteFailed { .. }) => "write failed",
            HaltReason::Storage(Storage::NotFormatted) => "not formatted",
            HaltReason::Storage(Storage::SuperblockLost { .. }) => "superblock lost",
            HaltReason::Storage(_) => "superblock contradicts the configuration",
            HaltReason::Damaged { .. } => "damaged alone",
        };
        Err(Failure::new(FailureKind::Halted, "node", class, reason.to_string(), Some(replica)))
    }

    pub(crate) fn start_replica(&mut self, replica: ReplicaId) -> Result<(), Failure> {
        self.tell_harm()?;
        self.cluster.start_replica(replica);
        self.tracker.see(replica, self.cluster.node(replica));
        self.observe(&Observation::Started { replica })
    }

    /// Ends a replica's process, if one runs.
    pub(crate) fn crash_replica(&mut self, replica: ReplicaId) -> Result<(), Failure> {
        let node = Cluster::node_of(replica);
        if !self.cluster.world.is_up(node) {
            return Ok(());
        }
        self.cluster.crash_replica(replica);
        self.tell_harm()?;
        self.tracker.see(replica, None);
        self.tally.counts.crashes += 1;
        self.observe(&Observation::Crashed { replica })
    }

    /// Ends a client's process, if one runs: what it had open has an outcome nobody knows.
    pub(crate) fn crash_client(&mut self, client: u16) -> Result<(), Failure> {
        let node = self.cluster.client_node(client);
        if !self.cluster.world.is_up(node) {
            return Ok(());
        }
        self.cluster.world.crash(node);
        self.tally.counts.client_crashes += 1;
        if let Some(sql) = self.sql.as_mut().filter(|sql| sql.is_one(client)) {
            let Some((ticket, statement)) = sql.on_crashed(client) else { return Ok(()) };
            return self.fail(client, ticket, statement.then_some(true));
        }
        for ticket in self.workload.on_crashed(client) {
            self.observe(&Observation::Failed { client, ticket })?;
        }
        Ok(())
    }

    /// The core converged: checkers look at what is left.
    fn check_end(&mut self) -> Result<(), Failure> {
        let core = self.liveness.as_ref().map(|liveness| liveness.core.clone()).unwrap_or_default();
        let cluster = &self.cluster;
        let end = End {
            config: self.config.config(ReplicaId(0)),
            nodes: cluster.replicas().map(|replica| cluster.node(replica)).collect(),
            held: cluster.held(),
            disk: &|replica, zone, offset, len| cluster.pristine(replica, zone, offset, len),
            seen: &|replica, zone, offset, len| cluster.seen(replica, zone, offset, len),
            core,
        };
        for checker in &mut self.checkers {
            checker.finish(&end).map_err(Failure::of_violation)?;
        }
        Ok(())
    }

    /// A failure with the time at which it was noticed.
    fn dated(&self, mut failure: Failure) -> Failure {
        failure.event = self.events;
        failure.at = self.now();
        failure
    }

    fn finish(mut self, outcome: Outcome) -> (Report, Record) {
        self.track_faults();
        let (marks, broken) = mark::take();
        let outcome = match broken {
            // Whatever else breaks in the same step follows from it.
            Some(broken) => Outcome::Failed(self.dated(Self::of_mark(broken))),
            None => outcome,
        };
        let world = &self.cluster.world;
        self.tally.absorb(world.census());
        let counts = &mut self.tally.counts;
        counts.requests_done = self.workload.done;
        counts.requests_refused = self.workload.refused;
        counts.queries_answered = self.workload.answered;
        counts.requests_failed = self.workload.failed;
        if let Some(sql) = &self.sql {
            counts.sql_answered = sql.counts.answered;
            counts.sql_refused = sql.counts.refused;
            counts.sql_conflicts = sql.counts.conflicts;
            counts.sql_blocks = sql.counts.blocks;
            counts.sql_commits = sql.counts.commits;
            counts.sql_unknown = sql.counts.unknown;
            counts.sql_travels = sql.counts.travels;
        }
        let mut digest = Checksummer::new();
        digest.update(&world.digest());
        for replica in self.cluster.replicas() {
            if let Some(node) = self.cluster.node(replica) {
                digest.update(&node.digest().0);
            }
        }
        let report = Report {
            outcome,
            counts: *counts,
            census: world.census().iter().collect(),
            marks,
            cells: self.tracker.cells,
            grammar: self.sql.as_ref().map(|sql| sql.coverage.clone()).unwrap_or_default(),
            compared: self.checkers.iter().map(|checker| (checker.name(), checker.compared())).collect(),
            skipped: self
                .checkers
                .iter()
                .map(|checker| (checker.name(), checker.skipped()))
                .filter(|(_, skipped)| *skipped > 0)
                .collect(),
            events: self.events,
            at: world.time(),
            digest: wide(&digest.finish()),
            memory: memory(world, self.cluster.nodes()),
        };
        let record = match self.diary {
            None => Record::empty(),
            Some(Diary { checkpoints, trail, faults, mut choices }) => {
                let dice = world.dice();
                choices.extend(dice.fates().iter().map(Choice::of_fate));
                let (decisions, divergence) = (dice.log(), dice.divergence());
                Record { decisions, checkpoints, divergence, trail, faults, choices }
            }
        };
        (report, record)
    }
}

/// Questions of clients' waits start here; those of faults lie below.
const CLIENT_QUESTIONS: u64 = 1_000;

/// A checksum as the 32 bytes of a digest.
fn wide(sum: &kimberlite_crypto::Checksum) -> [u8; 32] {
    let mut bytes = [0; 32];
    let sum = sum.as_bytes();
    bytes[..sum.len()].copy_from_slice(sum);
    bytes
}
