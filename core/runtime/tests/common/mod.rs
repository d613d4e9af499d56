//! A small cluster of shipped nodes and shipped clients in a simulated world.
#![allow(dead_code, reason = "each story uses its own part of this module")]

use std::collections::VecDeque;
use std::time::Duration;

use kimberlite_client::{self as client, Client, ClientOptions};
use kimberlite_io::{Event, Io, Machine};
use kimberlite_io_sim::{Dice, NodeId, StepKind, World, WorldOptions};
use kimberlite_runtime::{Node, Note};
use kimberlite_storage::{FormatInput, FormatOutput, Formatter};
use kimberlite_types::{
    ClusterId, Config, Instant, Layout, Now, Offset, Op, ReplicaId, StreamId, TenantId, Timing,
};
use kimberlite_wire::client::{Answer, Query};
use kimberlite_wire::command::{Command, Outcome, RecordsBuilder};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const SECRET: [u8; 32] = [7; 32];
pub(crate) const TENANT: TenantId = TenantId(1);
pub(crate) const STREAM: StreamId = StreamId(1);

/// What any machine of the world says.
pub(crate) enum Told {
    Node(Note),
    Client(client::Output),
    Formatted,
}

pub(crate) struct NodeLife(pub(crate) Node);

impl Machine for NodeLife {
    type Input = Event;
    type Output = Told;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Told>) {
        let mut notes = Vec::new();
        self.0.on(now, event, io, &mut notes);
        out.extend(notes.into_iter().map(Told::Node));
    }

    fn wake_at(&self) -> Option<Instant> {
        self.0.wake_at()
    }
}

struct FormatLife(Formatter, bool);

impl Machine for FormatLife {
    type Input = Event;
    type Output = Told;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Told>) {
        let mut heard = Vec::new();
        if !self.1 {
            self.1 = true;
            self.0.on(now, FormatInput::Start, io, &mut heard);
        }
        self.0.on(now, FormatInput::Event(event), io, &mut heard);
        for output in heard {
            match output {
                FormatOutput::Done => out.push(Told::Formatted),
                FormatOutput::Failed(error) => panic!("{error:?}"),
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }
}

/// A client that creates the stream and appends numbered records, one at a time.
pub(crate) struct Appender {
    client: Client,
    todo: VecDeque<Vec<u8>>,
    busy: bool,
    ticket: u64,
    pub(crate) acknowledged: Vec<(Offset, u32)>,
    pub(crate) answers: Vec<Answer>,
    ask_at_end: bool,
}

impl Appender {
    pub(crate) fn new(seed: u64, replicas: u8, creates: bool, count: u64, size: usize) -> Self {
        let mut todo = VecDeque::new();
        if creates {
            todo.push_back(Command::CreateTenant { name: "tenant" }.encode());
            todo.push_back(Command::CreateStream { stream: STREAM, name: "stream" }.encode());
        }
        for number in 0..count {
            let mut records = RecordsBuilder::default();
            let mut record = format!("client {seed} record {number} ").into_bytes();
            record.resize(size.max(record.len()), b'x');
            records.push(&record);
            let command = Command::AppendBatch { stream: STREAM, expected: None, records: records.records() };
            todo.push_back(command.encode());
        }
        Self {
            client: Client::new(ClientOptions::new(CLUSTER, replicas, seed)),
            todo,
            busy: false,
            ticket: 0,
            acknowledged: Vec::new(),
            answers: Vec::new(),
            ask_at_end: true,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.todo.is_empty() && !self.busy && !self.answers.is_empty()
    }

    fn step(&mut self, now: Now, input: client::Input, io: &mut dyn Io, out: &mut Vec<Told>) {
        let mut heard = Vec::new();
        self.client.on(now, input, io, &mut heard);
        for output in heard {
            match &output {
                client::Output::Done { verdict, .. } => {
                    self.busy = false;
                    if let Ok(Outcome::Appended { first, count }) = verdict.result {
                        self.acknowledged.push((first, count));
                    }
                }
                client::Output::Answered { answer, .. } => {
                    self.busy = false;
                    self.answers.push(answer.clone());
                }
                client::Output::Failed { why, .. } => panic!("{why:?}"),
                _ => {}
            }
            out.push(Told::Client(output));
        }
        if !self.busy {
            self.ticket += 1;
            let ticket = self.ticket;
            if let Some(command) = self.todo.pop_front() {
                self.busy = true;
                self.step(now, client::Input::Submit { ticket, tenant: TENANT, command }, io, out);
            } else if self.ask_at_end {
                self.ask_at_end = false;
                self.busy = true;
                let query = Query::ReadEvents {
                    tenant: TENANT,
                    stream: STREAM,
                    from: Offset(0),
                    records_max: u32::MAX,
                    bytes_max: u32::MAX,
                };
                self.step(now, client::Input::Query { ticket, query, to: None }, io, out);
            }
        }
    }
}

impl Machine for Appender {
    type Input = Event;
    type Output = Told;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Told>) {
        self.step(now, client::Input::Event(event), io, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.client.wake_at()
    }
}

pub(crate) struct Cluster {
    pub(crate) world: World<Told>,
    pub(crate) replicas: u8,
    pub(crate) clients: u16,
    pub(crate) notes: Vec<(ReplicaId, Note)>,
    lives: u64,
    seed: u64,
    pub(crate) layout: Layout,
    sessions: u32,
}

impl Cluster {
    pub(crate) fn new(seed: u64, replicas: u8, clients: u16, tolerated: u8) -> Self {
        Self::with_sessions(64, seed, replicas, clients, tolerated)
    }

    /// A cluster that keeps that many sessions.
    pub(crate) fn with_sessions(sessions: u32, seed: u64, replicas: u8, clients: u16, tolerated: u8) -> Self {
        let options = WorldOptions { tolerated, ..WorldOptions::new(replicas, clients) };
        let mut world = World::new(options, Dice::free(seed));
        let layout = Layout::SMALL;
        for replica in 0..replicas {
            let config = Config { sessions_max: sessions, ..config(replica, replicas, layout) };
            world.start(NodeId(u16::from(replica)), Box::new(FormatLife(Formatter::new(config), false)));
        }
        let mut formatted = 0;
        while formatted < replicas {
            let step = world.step().expect("formatting goes on");
            if let StepKind::Delivered { outputs, .. } = step.what {
                formatted += outputs.len() as u8;
            }
        }
        let mut cluster =
            Self { world, replicas, clients, notes: Vec::new(), lives: 0, seed, layout, sessions };
        for replica in 0..replicas {
            cluster.crash(replica);
            cluster.start(replica);
        }
        cluster
    }

    pub(crate) fn start(&mut self, replica: u8) {
        self.lives += 1;
        let config = Config { sessions_max: self.sessions, ..config(replica, self.replicas, self.layout) };
        let node = Node::new(config, &SECRET, self.seed + self.lives);
        self.world.start(NodeId(u16::from(replica)), Box::new(NodeLife(node)));
    }

    pub(crate) fn crash(&mut self, replica: u8) {
        self.world.crash(NodeId(u16::from(replica)));
    }

    pub(crate) fn add_client(&mut self, index: u16, appender: Appender) {
        self.world.start(NodeId(u16::from(self.replicas) + index), Box::new(appender));
    }

    pub(crate) fn client(&self, index: u16) -> &Appender {
        self.world.inspect::<Appender>(NodeId(u16::from(self.replicas) + index)).expect("a client")
    }

    pub(crate) fn node(&self, replica: u8) -> &Node {
        &self.world.inspect::<NodeLife>(NodeId(u16::from(replica))).expect("a node that is up").0
    }

    /// Runs until `done`, at most `limit` of virtual time.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.world.time().after(limit);
        while !done(self) {
            assert!(self.world.time() < end, "not done in time: {}", self.describe());
            let step = self.world.step().expect("something goes on");
            if let StepKind::Delivered { node, outputs, .. } = step.what {
                for told in outputs {
                    if let Told::Node(note) = told {
                        self.notes.push((ReplicaId(node.0 as u8), note));
                    }
                }
            }
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.world.time().after(time);
        self.world.schedule(time, 0);
        self.run_until(time * 2, |cluster| cluster.world.time() >= end);
    }

    pub(crate) fn describe(&self) -> String {
        let lines: Vec<String> = (0..self.replicas)
            .map(|r| {
                if !self.world.is_up(NodeId(u16::from(r))) {
                    return format!("\nr{r} down");
                }
                let node = self.node(r);
                let v = node.replica();
                format!(
                    "\nr{r} {:?} view {} log_view {} op {} commit {}/{} wanted {:?} undecided {:?} halted {:?}",
                    v.status(),
                    v.view(),
                    v.log_view(),
                    v.op(),
                    v.commit(),
                    v.commit_max(),
                    v.wanted().collect::<Vec<Op>>(),
                    v.undecided(),
                    node.halted()
                )
            })
            .collect();
        lines.concat()
    }

    /// The replica that leads now.
    pub(crate) fn primary(&self) -> Option<u8> {
        (0..self.replicas)
            .filter(|r| self.world.is_up(NodeId(u16::from(*r))) && self.node(*r).replica().is_primary())
            .max_by_key(|r| self.node(*r).replica().view())
    }

    /// All replicas hold and executed the same, and their states are equal.
    pub(crate) fn assert_agreement(&self) {
        let op = self.node(0).replica().commit();
        for replica in 0..self.replicas {
            let node = self.node(replica);
            assert_eq!(node.replica().commit(), op, "{}", self.describe());
            assert_eq!(node.digest(), self.node(0).digest());
            assert_eq!(node.kernel().digest_walk(), node.digest());
        }
    }

    /// Whether everybody executed everything.
    pub(crate) fn is_settled(&self) -> bool {
        let top = (0..self.replicas).map(|r| self.node(r).replica().op()).max();
        (0..self.replicas).all(|r| Some(self.node(r).kernel().applied()) == top)
    }
}

pub(crate) fn config(replica: u8, replicas: u8, layout: Layout) -> Config {
    Config {
        cluster: CLUSTER,
        replica: ReplicaId(replica),
        replicas,
        layout,
        timing: Timing::PRODUCTION,
        pipeline_max: 8,
        sessions_max: 64,
    }
}
