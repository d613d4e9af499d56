//! The state of a replica, what happens to it, and its timers.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Frame, Net, Packet, sectors};
use kimberlite_probe::mutant;
use kimberlite_types::limits::{HEADER_WINDOW, PIPELINE_MAX, REPLICAS_MAX};
use kimberlite_types::{
    Config, Instant, Now, Op, Quorums, ReplicaId, RequestNumber, Rng, SessionId, Streams, TenantId, View,
};
use kimberlite_wire::message::{Letter, Mark};
use kimberlite_wire::prepare::segment_room;
use kimberlite_wire::{LinkKeys, Malformed, Message, Prepare, PrepareHeader};

use crate::log::Log;
use crate::merge::Dvc;
use crate::reads::Reads;
use crate::repair::Repair;
use crate::view_change::Adoption;

/// Prepares kept in memory: a full pipeline ahead of execution and one behind it, for peers that lag a little.
pub(crate) const CACHE_MAX: usize = 2 * PIPELINE_MAX;

/// Requests that wait for a place in a prepare: four for each client connection a node may have.
pub(crate) const WAITING_MAX: usize = 4096;

/// What a replica finds when its journal opens.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The durable view.
    pub view: View,
    /// The view whose log this is.
    pub log_view: View,
    /// The headers adopted with it.
    pub adopted: Vec<PrepareHeader>,
    /// The last headers of the log, without gaps, up to its head.
    pub headers: Vec<(PrepareHeader, Mark)>,
    /// What is known to be committed.
    pub commit: Op,
    /// The last op behind the head that may have been acknowledged, where places behind it are unreadable; the
    /// head's op when that is certain. The replica claims nothing about those ops until a new log tells it.
    pub doubt_until: Op,
    /// The first and the last op in front of the head that may have been acknowledged and are lost together with
    /// their headers, if any. They are not among `headers`, nor is what stands in front of them.
    pub gap: Option<(Op, Op)>,
    /// What is known of the ops in front of `headers`, as far as a view change may ask about them, in order.
    pub below_gap: Vec<(PrepareHeader, Mark)>,
    /// The last op whose execution is part of the state that the parent has, and the checksum of its prepare. Zero and
    /// the root's, if it has none.
    pub executed: (Op, Checksum),
}

/// What the superblock must hold before a promise is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewState {
    /// The view.
    pub view: View,
    /// The view whose log the headers begin.
    pub log_view: View,
    /// What is known to be committed.
    pub commit: Op,
    /// The headers adopted with `log_view`.
    pub headers: Vec<PrepareHeader>,
}

/// A client's request, waiting to be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's session.
    pub session: SessionId,
    /// The client's counter.
    pub number: RequestNumber,
    /// The tenant.
    pub tenant: TenantId,
    /// The encoded command.
    pub command: Frame,
}

/// All that happens to a replica.
#[derive(Debug)]
pub enum Input {
    /// The journal is open. The first input.
    Open(Recovered),
    /// Time passed.
    Wake,
    /// A frame arrived from a peer, or from somebody who claims to be one.
    Message {
        /// The claimed sender.
        from: ReplicaId,
        /// The frame.
        packet: Packet,
    },
    /// Propose this. Given to a primary only; dropped when too many wait.
    Request(Request),
    /// The parent has too much to execute: hand it no more until it says otherwise, and propose nothing.
    Hold(bool),
    /// The parent has lost its state: hand out all that is committed again, from the first op on.
    Replay,
    /// Confirm that this replica is still the primary, from now on. Given to a primary only.
    ConfirmRead {
        /// Returned in the confirmation.
        ticket: u64,
    },
    /// A prepare and its ring entry are durable.
    Durable {
        /// The op.
        op: Op,
        /// The prepare.
        checksum: Checksum,
    },
    /// A prepare is durable and its ring entry waits until older ops are sealed: more repairs may follow.
    Stored {
        /// The op.
        op: Op,
    },
    /// The superblock holds this view.
    ViewDurable {
        /// The view.
        view: View,
        /// The log view.
        log_view: View,
    },
    /// The answer to [`Output::Fetch`].
    Fetched {
        /// The op asked for.
        op: Op,
        /// The checksum asked for.
        checksum: Option<Checksum>,
        /// The prepare, or why not.
        result: Result<Prepare, Lost>,
    },
}

/// Why the journal has no prepare to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It does not hold this prepare, and never did.
    Missing,
    /// Its copy is damaged.
    Damaged {
        /// The checksum of what it should hold, when known.
        checksum: Option<Checksum>,
    },
}

/// What a replica tells its parent.
#[derive(Debug)]
pub enum Output {
    /// Make the journal hold this prepare.
    Append(Prepare),
    /// Make the superblock hold this.
    PersistView(ViewState),
    /// Read this op from the journal.
    Fetch {
        /// The op.
        op: Op,
        /// The prepare, when known.
        checksum: Option<Checksum>,
    },
    /// Execute this prepare. Given in order, each once: from the op behind the one that was executed when the replica opened,
    /// or from the first one again after [`Input::Replay`].
    Commit(Prepare),
    /// Say which ops the journal lacks. Answered by [`Input::Fetched`] for each, as damaged.
    Survey,
    /// More ops are known to be committed; segments up to here may seal.
    Committed(Op),
    /// Nobody else was primary between the ask and now, and all earlier ops are executed.
    ReadConfirmed {
        /// The ask.
        ticket: u64,
    },
    /// Too many requests wait already; this one was not taken.
    RequestRefused {
        /// The client's session.
        session: SessionId,
        /// The client's counter.
        number: RequestNumber,
    },
    /// Too many reads wait already; this one was not taken.
    ReadRefused {
        /// The ask.
        ticket: u64,
    },
    /// This replica is not, or no longer, the primary: waiting requests and reads are void.
    Resigned,
    /// Something to know.
    Note(Note),
}

/// What is worth telling of a replica's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The view or the status changed, durably.
    View {
        /// The view.
        view: View,
        /// The log view.
        log_view: View,
        /// The status.
        status: Status,
        /// The primary of the view.
        primary: ReplicaId,
    },
    /// A missing or damaged prepare was fetched from a peer.
    Repaired {
        /// The op.
        op: Op,
        /// From whom.
        from: ReplicaId,
    },
    /// A frame was dropped.
    Malformed {
        /// The claimed sender.
        from: ReplicaId,
        /// What is wrong with it.
        why: Malformed,
    },
    /// An authenticated peer broke the protocol.
    Misbehaved {
        /// The peer.
        from: ReplicaId,
        /// What it did.
        what: Misbehavior,
    },
}

/// How an authenticated peer can break the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehavior {
    /// A prepare of the same view and op as ours, but another.
    ConflictingPrepare,
    /// A prepare whose entries do not continue the hash chain.
    BrokenChain,
    /// A prepare or heartbeat from a replica that is not the primary of its view.
    NotPrimary,
    /// A log that contradicts another of the same view.
    ContradictingLog,
    /// A commit number or checksum that contradicts our own log.
    WrongCommit,
}

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waiting for the journal to open.
    Opening,
    /// Taking part in its view.
    Normal,
    /// Between views: left one, the next has not started here.
    ViewChange,
    /// Restarted with an uncertain head: takes no part in the view it was in, but may help to change it.
    Recovering,
}

impl Status {
    /// One phrase for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Normal => "normal",
            Self::ViewChange => "view change",
            Self::Recovering => "recovering",
        }
    }
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// When it was last heard, in any way.
    pub heard: Option<Instant>,
    /// The highest op it said it has.
    pub op: Op,
    /// What it said it executed.
    pub commit: Op,
    /// The view it asked for last.
    pub wanted: View,
    /// When it did.
    pub wanted_at: Instant,
}

/// An op that the primary waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) op: Op,
    pub(crate) checksum: Checksum,
    /// One bit for each replica that holds it durably.
    pub(crate) acks: u8,
    pub(crate) sent_at: Instant,
}

/// When to do what. All optional: what is not set does not happen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timers {
    pub(crate) heartbeat: Option<Instant>,
    pub(crate) view_change: Option<Instant>,
    pub(crate) resend: Option<Instant>,
}

/// One replica of the cluster.
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) quorums: Quorums,
    pub(crate) keys: LinkKeys,
    pub(crate) rng: Rng,
    pub(crate) status: Status,
    pub(crate) view: View,
    pub(crate) log_view: View,
    /// What the superblock is known to hold.
    pub(crate) durable_view: (View, View),
    /// The view it was last asked to hold.
    pub(crate) asked_view: View,
    /// Drawn once in a life: a `StartView` that returns it was sent in this life.
    pub(crate) view_nonce: u64,
    /// The headers that the superblock holds with `log_view`.
    pub(crate) adopted: Vec<PrepareHeader>,
    pub(crate) log: Log,
    /// Known to be committed, and in this log.
    pub(crate) commit_max: Op,
    /// Handed out for execution.
    pub(crate) commit_min: Op,
    /// The checksum of what was handed out last: the parent of what is handed out next.
    pub(crate) executed: Checksum,
    /// Whether nothing is to be handed out.
    pub(crate) held: bool,
    /// The ops, first and last, that may have been acknowledged before a restart that could not read them: behind the
    /// head, in a gap in front of it, or both. What the log names of them it holds all the same.
    pub(crate) doubt: Option<(Op, Op)>,
    /// What is known in front of a gap, as of the restart.
    pub(crate) below_gap: Vec<(PrepareHeader, Mark)>,
    pub(crate) cache: BTreeMap<Op, Prepare>,
    pub(crate) pipeline: VecDeque<InFlight>,
    pub(crate) waiting: VecDeque<Request>,
    /// Bytes of the commands that wait.
    pub(crate) waiting_bytes: usize,
    pub(crate) peers: [Peer; REPLICAS_MAX],
    pub(crate) dvcs: Vec<Dvc>,
    pub(crate) adoption: Option<Adoption>,
    /// The head of the log when this primary's view began: reads wait until it is executed.
    pub(crate) inherited: Op,
    pub(crate) repair: Repair,
    pub(crate) reads: Reads,
    pub(crate) timers: Timers,
    /// When the journal last made something durable, or had nothing to.
    pub(crate) durable_at: Instant,
    /// View changes in a row that led nowhere; each doubles the patience, up to a limit.
    pub(crate) attempts: u32,
}

/// What a handler may use: the time, the network, and the parent's ear.
pub(crate) struct Cx<'a> {
    pub(crate) now: Now,
    pub(crate) net: &'a mut dyn Net,
    pub(crate) out: &'a mut Vec<Output>,
}

impl Replica {
    /// A replica that waits for [`Input::Open`]. `seed` only spreads its timeouts and nonces.
    pub fn new(config: Config, secret: &[u8; 32], seed: u64) -> Self {
        let root = PrepareHeader::root(config.cluster);
        let mut rng = Streams::new(seed).stream("vsr", u64::from(config.replica.0));
        let view_nonce = rng.next_u64() | 1;
        Self {
            config,
            quorums: config.quorums(),
            keys: LinkKeys::derive(secret, config.replica),
            rng,
            status: Status::Opening,
            view: View::ZERO,
            log_view: View::ZERO,
            durable_view: (View::ZERO, View::ZERO),
            asked_view: View::ZERO,
            view_nonce,
            adopted: Vec::new(),
            log: Log::new(&[(root, Mark::Present)]),
            commit_max: Op::ZERO,
            commit_min: Op::ZERO,
            executed: root.checksum,
            held: false,
            doubt: None,
            below_gap: Vec::new(),
            cache: BTreeMap::new(),
            pipeline: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            peers: [Peer::default(); REPLICAS_MAX],
            dvcs: Vec::new(),
            adoption: None,
            inherited: Op::ZERO,
            repair: Repair::default(),
            reads: Reads::default(),
            timers: Timers::default(),
            durable_at: Instant::ZERO,
            attempts: 0,
        }
    }

    /// Handles one input.
    pub fn on(&mut self, now: Now, input: Input, net: &mut dyn Net, out: &mut Vec<Output>) {
        let cx = &mut Cx { now, net, out };
        match input {
            Input::Open(recovered) => self.open(recovered, cx),
            Input::Wake => {}
            Input::Message { from, packet } => self.on_message(from, &packet, cx),
            Input::Request(request) => self.on_request(request, cx),
            Input::Hold(held) => self.on_hold(held, cx),
            Input::Replay => self.on_replay(cx),
            Input::ConfirmRead { ticket } => self.on_confirm_read(ticket, cx),
            Input::Durable { op, checksum } => self.on_durable(op, &checksum, cx),
            Input::Stored { op } => self.on_stored(op, cx),
            Input::ViewDurable { view, log_view } => self.on_view_durable(view, log_view, cx),
            Input::Fetched { op, checksum, result } => self.on_fetched(op, checksum, result, cx),
        }
        self.on_time(cx);
        self.check();
    }

    /// When [`Input::Wake`] is due.
    pub fn wake_at(&self) -> Option<Instant> {
        let Timers { heartbeat, view_change, resend } = self.timers;
        [heartbeat, view_change, resend, self.repair.wake_at()].into_iter().flatten().min()
    }

    fn open(&mut self, recovered: Recovered, cx: &mut Cx<'_>) {
        assert!(self.status == Status::Opening, "a replica opens once");
        assert!(recovered.log_view <= recovered.view, "a log is adopted in a view that was entered");
        self.view = recovered.view;
        self.log_view = recovered.log_view;
        self.durable_view = (self.view, self.log_view);
        self.adopted = recovered.adopted;
        self.log = Log::new(&recovered.headers);
        self.below_gap = recovered.below_gap;
        self.asked_view = self.view;
        // The head's proposer knew that this much is committed, and what it knew stands in this log.
        self.commit_max = recovered.commit.min(self.head().op).max(self.head().commit);
        self.take_executed(recovered.executed);
        let head_certain = recovered.doubt_until <= self.head().op;
        let behind = (!head_certain).then(|| (self.head().op.next(), recovered.doubt_until));
        self.doubt = match (recovered.gap, behind) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (gap, behind) => gap.or(behind),
        };
        if self.is_solo() {
            assert!(self.doubt.is_none(), "the runtime refuses to open a lone replica in doubt");
            kimberlite_probe::reachable!("replica.opens_alone");
            self.status = Status::Normal;
            self.commit_max = self.head().op;
            self.inherited = self.head().op;
        } else if !head_certain {
            self.status = Status::Recovering;
            kimberlite_probe::reachable!("replica.opens_in_doubt");
        } else if self.log_view == self.view
            && (self.config.primary(self.view) != self.config.replica || mutant!(PrimaryResumes))
        {
            self.status = Status::Normal;
            kimberlite_probe::reachable!("replica.opens_as_backup");
        } else {
            // Either a vote was cast and the view did not start here before the crash, or this was the
            // primary of the view: it may have proposed ops it no longer remembers, so it never goes on.
            self.status = Status::ViewChange;
            kimberlite_probe::sometimes!("replica.opens_after_vote", self.log_view < self.view);
            kimberlite_probe::sometimes!("replica.opens_as_old_primary", self.log_view == self.view);
        }
        if !self.is_solo() {
            self.expect_primary(cx);
            self.timers.resend = Some(cx.now.monotonic);
        }
        self.durable_at = cx.now.monotonic;
        self.note_view(cx);
        if mutant!(PrimaryResumes, self.is_primary() && !self.is_solo()) {
            self.begin_view(cx);
        }
        cx.out.push(Output::Committed(self.commit_max));
        self.lack_what_is_lacking(cx);
        self.execute(cx);
    }

    /// Goes on behind what the parent has executed, if this log holds that. If it does not (the op was executed before it was
    /// durable here, or is lost), the parent is handed what it has executed, and leaves that alone.
    fn take_executed(&mut self, (op, checksum): (Op, Checksum)) {
        let named = self.log.get(op).is_none_or(|slot| slot.header.checksum == checksum);
        kimberlite_probe::sometimes!("replica.opens_behind_state", op > self.head().op || !named);
        if op <= self.head().op && named {
            kimberlite_probe::sometimes!("replica.opens_with_state", op > Op::ZERO);
            self.commit_min = op;
            self.executed = checksum;
            self.commit_max = self.commit_max.max(op);
        }
    }

    fn on_hold(&mut self, held: bool, cx: &mut Cx<'_>) {
        self.held = held;
        if self.status == Status::Opening {
            return;
        }
        self.execute(cx);
        if self.is_primary() {
            self.propose(cx);
        }
    }

    fn on_replay(&mut self, cx: &mut Cx<'_>) {
        assert!(self.status != Status::Opening, "what is executed anew was executed");
        kimberlite_probe::reachable!("replica.replays");
        self.held = false;
        self.commit_min = Op::ZERO;
        self.executed = PrepareHeader::root(self.config.cluster).checksum;
        self.execute(cx);
    }

    fn on_message(&mut self, from: ReplicaId, packet: &Packet, cx: &mut Cx<'_>) {
        if self.status == Status::Opening {
            return;
        }
        if from == self.config.replica || from.0 >= self.config.replicas {
            cx.note(Note::Malformed { from, why: Malformed::Unknown });
            return;
        }
        match Letter::open(packet, from, self.config.cluster, &self.keys) {
            Ok(letter) => {
                self.peers[usize::from(from.0)].heard = Some(cx.now.monotonic);
                self.on_letter(letter, cx);
            }
            Err(why) => {
                kimberlite_probe::reachable!("replica.malformed");
                cx.note(Note::Malformed { from, why });
            }
        }
    }

    fn on_letter(&mut self, letter: Letter, cx: &mut Cx<'_>) {
        let Letter { from, view, commit, message } = letter;
        match message {
            Message::Prepare(prepare) => self.on_prepare(from, view, commit, prepare, cx),
            Message::PrepareOk { op, checksum } => self.on_prepare_ok(from, view, op, &checksum, cx),
            Message::Commit { checksum, op, round } => {
                self.on_commit(from, view, commit, &checksum, op, round, cx);
            }
            Message::CommitOk { op, round } => self.on_commit_ok(from, view, commit, op, round, cx),
            Message::StartViewChange { wanted } => self.on_start_view_change(from, view, wanted, cx),
            Message::DoViewChange { log_view, op, doubt_until, headers } => {
                let dvc = Dvc { replica: from, log_view, op, commit, doubt_until, headers };
                self.on_do_view_change(view, dvc, cx);
            }
            Message::StartView { nonce, headers } => {
                self.on_start_view(from, view, commit, nonce, headers, cx);
            }
            Message::RequestStartView { nonce } => self.on_request_start_view(from, view, nonce, cx),
            Message::Vouch { op, checksum } => self.on_vouch(commit, op, checksum, cx),
            Message::RequestPrepare { op, count, checksum } => {
                self.on_request_prepare(from, view, op, count, checksum, cx);
            }
            // Pages of checkpoints are no matter of consensus: whoever carries its letters has taken these out.
            Message::RequestPage { .. } | Message::Page { .. } => {}
        }
    }

    fn on_time(&mut self, cx: &mut Cx<'_>) {
        let due = |timer: Option<Instant>| timer.is_some_and(|at| at <= cx.now.monotonic);
        let Timers { heartbeat, view_change, resend } = self.timers;
        let (heartbeat, view_change, resend) = (due(heartbeat), due(view_change), due(resend));
        if heartbeat {
            self.on_heartbeat_due(cx);
        }
        if view_change {
            self.on_view_change_due(cx);
        }
        if resend {
            self.on_resend_due(cx);
        }
        self.on_repair_due(cx);
    }

    /// Sends to one replica.
    pub(crate) fn send(&self, to: ReplicaId, message: Message, cx: &mut Cx<'_>) {
        assert!(to != self.config.replica, "a replica does not write to itself");
        let packet = self.letter(message).seal(self.config.cluster, &self.keys, to);
        cx.net.send(to, packet);
    }

    /// Sends to one replica, and tells it of no more commits than `commit`.
    pub(crate) fn send_as_of(&self, commit: Op, to: ReplicaId, message: Message, cx: &mut Cx<'_>) {
        let letter = Letter { commit, ..self.letter(message) };
        cx.net.send(to, letter.seal(self.config.cluster, &self.keys, to));
    }

    /// Sends to all others.
    pub(crate) fn broadcast(&self, message: Message, cx: &mut Cx<'_>) {
        let letter = self.letter(message);
        for (to, packet) in letter.seal_for_all(self.config.cluster, &self.keys, self.config.others()) {
            cx.net.send(to, packet);
        }
    }

    fn letter(&self, message: Message) -> Letter {
        Letter { from: self.config.replica, view: self.view, commit: self.commit_max, message }
    }

    pub(crate) fn note_view(&self, cx: &mut Cx<'_>) {
        cx.note(Note::View {
            view: self.view,
            log_view: self.log_view,
            status: self.status,
            primary: self.config.primary(self.view),
        });
    }

    pub(crate) fn head(&self) -> &PrepareHeader {
        self.log.head()
    }

    pub(crate) const fn is_solo(&self) -> bool {
        self.config.replicas == 1
    }

    /// Whether this replica is the working primary of its view.
    pub fn is_primary(&self) -> bool {
        self.status == Status::Normal && self.config.primary(self.view) == self.config.replica
    }

    /// Whether this replica is a working backup of its view.
    pub(crate) fn is_backup(&self) -> bool {
        self.status == Status::Normal && !self.is_primary()
    }

    /// The view.
    pub const fn view(&self) -> View {
        self.view
    }

    /// The view whose log this replica holds.
    pub const fn log_view(&self) -> View {
        self.log_view
    }

    /// The status.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The highest op of the log.
    pub fn op(&self) -> Op {
        self.head().op
    }

    /// The highest op handed out for execution.
    pub const fn commit(&self) -> Op {
        self.commit_min
    }

    /// The highest op known to be committed.
    pub const fn commit_max(&self) -> Op {
        self.commit_max
    }

    /// What is known of a peer.
    pub fn peer(&self, replica: ReplicaId) -> Peer {
        self.peers[usize::from(replica.0)]
    }

    /// Requests not yet proposed.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Ops proposed and not yet committed.
    pub fn in_flight(&self) -> usize {
        self.pipeline.len()
    }

    /// A wait of `base`, up to half longer at random.
    pub(crate) fn jittered(&mut self, base: Duration) -> Duration {
        let nanos = u64::try_from(base.as_nanos()).unwrap_or(u64::MAX);
        base + Duration::from_nanos(self.rng.below(nanos / 2 + 1))
    }

    /// Whether a prepare of this header could stand in the journal at all.
    pub(crate) fn fits(&self, header: &PrepareHeader) -> bool {
        let layout = &self.config.layout;
        let room = segment_room(layout);
        header.cluster == self.config.cluster
            && header.size <= layout.prepare_size_max
            && header.index < layout.segment_ops_max
            && header.place % layout.segment_size + sectors(u64::from(header.size)) <= room
    }

    /// Keeps a prepare in memory while it may be needed.
    pub(crate) fn remember(&mut self, prepare: Prepare) {
        self.cache.insert(prepare.header.op, prepare);
        while self.cache.len() > CACHE_MAX {
            let oldest = *self.cache.keys().next().expect("not empty");
            // What is executed goes first; ahead of execution the newest can be fetched again.
            if oldest <= self.commit_min {
                self.cache.remove(&oldest);
            } else {
                let newest = *self.cache.keys().next_back().expect("not empty");
                kimberlite_probe::reachable!("replica.cache_gives_newest_up");
                self.cache.remove(&newest);
            }
        }
    }

    /// The prepare, if it is in memory.
    pub(crate) fn cached(&self, op: Op, checksum: &Checksum) -> Option<&Prepare> {
        self.cache.get(&op).filter(|prepare| prepare.header.checksum == *checksum)
    }

    fn check(&self) {
        assert!(self.log_view <= self.view, "log_view <= view");
        assert!(self.commit_min <= self.commit_max, "only the committed is executed");
        assert!(self.commit_max <= self.head().op, "only what is in the log is committed");
        assert!(self.pipeline.len() <= PIPELINE_MAX, "the pipeline is bounded");
        assert!(self.waiting.len() <= WAITING_MAX, "the queue is bounded");
        assert!(self.cache.len() <= CACHE_MAX, "the cache is bounded");
        assert!(self.log.after(Op::ZERO).count() <= HEADER_WINDOW, "the window is bounded");
    }
}

impl Cx<'_> {
    pub(crate) fn note(&mut self, note: Note) {
        self.out.push(Output::Note(note));
    }
}
