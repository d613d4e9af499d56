//! The routing: the one file that carries values between the parts of a node.
//!
//! | module | holds |
//! |---|---|
//! | `requests` | what clients ask: answered here, passed on, or sent elsewhere |
//! | `status` | how the node stands |

mod requests;
mod status;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use kimberlite_crypto::Checksum;
use kimberlite_io::{Conn, Event, Frame, Io, Machine, Packet};
use kimberlite_kernel::{Applied, Kernel, OpenError, StateDigest};
use kimberlite_probe::mutant;
use kimberlite_storage::{self as storage, FetchError, PageName, PageRef, Storage, Waiter};
use kimberlite_types::{Config, Instant, Now, Op, ReplicaId};
use kimberlite_vsr::{self as vsr, Lost, Replica};
use kimberlite_wire::client::Turn;
use kimberlite_wire::{Prepare, PrepareHeader};

use crate::applying::{self, Applying, Step};
use crate::clients::Clients;
use crate::note::{CheckpointLost, HaltReason, Note};
use crate::pages::{Heard, Pages};
use crate::reads::{Progress, Reads};
use crate::sql::{Effect, Sql};

/// Who waits for pages: the state when it is opened, what is applied to it, and the statement of a connection, whose ids
/// are never these.
const OPENING: Waiter = Waiter(0);
const APPLYING: Waiter = Waiter(1);

/// After how long the next step of what is applied is taken, if nothing else happens: everything that has happened comes first.
const APPLY_PAUSE: Duration = Duration::from_micros(50);

const fn waiter(conn: Conn) -> Waiter {
    Waiter(conn.0)
}

/// A value on its way from one part to another.
enum Work {
    Storage(storage::Input),
    Vsr(vsr::Input),
}

/// One node of a cluster, or the only one.
pub struct Node {
    config: Config,
    storage: Storage,
    replica: Replica,
    applying: Applying,
    /// Whether consensus was told to hand out no more for now.
    held: bool,
    /// Whether what is applied next was begun and takes more steps.
    goes_on: bool,
    /// What storage found, while the state is being opened from its checkpoint.
    opening: Option<Box<storage::Recovered>>,
    /// What consensus hears once it is open.
    deferred: Vec<vsr::Input>,
    clients: Clients,
    reads: Reads,
    pages: Pages,
    /// How far the state was that was lost last.
    rebuilds: Option<Op>,
    sql: Sql,
    work: VecDeque<Work>,
    storage_out: Vec<storage::Output>,
    vsr_out: Vec<vsr::Output>,
    /// The time of the event that is being handled.
    now: Now,
    started: bool,
    halted: Option<HaltReason>,
}

impl Node {
    /// A node that opens its data directory at its first event.
    ///
    /// `secret` authenticates the links between replicas; `seed` spreads timeouts and nonces, so replicas
    /// must not share it.
    pub fn new(config: Config, secret: &[u8; 32], seed: u64) -> Self {
        Self {
            config,
            storage: Storage::new(config),
            replica: Replica::new(config, secret, seed),
            applying: Applying::new(&config),
            held: false,
            goes_on: false,
            opening: None,
            deferred: Vec::new(),
            clients: Clients::new(config.cluster, config.replica),
            reads: Reads::default(),
            pages: Pages::new(config, secret),
            rebuilds: None,
            sql: Sql::new(seed),
            work: VecDeque::new(),
            storage_out: Vec::new(),
            vsr_out: Vec::new(),
            now: Now::default(),
            started: false,
            halted: None,
        }
    }

    /// The consensus part, to look at.
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The journal, to look at.
    pub const fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The state, to look at.
    pub const fn kernel(&self) -> &Kernel {
        &self.applying.kernel
    }

    /// Why the node stopped, if it did.
    pub const fn halted(&self) -> Option<HaltReason> {
        self.halted
    }

    /// Requests, and queries and statements, of clients that are not answered yet.
    pub fn unanswered(&self) -> (usize, usize) {
        (self.clients.waiting(), self.reads.under_way() + self.sql.under_way())
    }

    /// Pages that peers are asked for, or will be.
    pub fn pages_asked(&self) -> usize {
        self.pages.under_way()
    }

    /// Whether the state is being made anew from the log, and is not yet as far as it was.
    pub fn is_rebuilding(&self) -> bool {
        self.rebuilds.is_some_and(|op| self.kernel().applied() < op)
    }

    /// The digest of the state.
    pub fn digest(&self) -> StateDigest {
        self.kernel().digest()
    }

    fn on_event(&mut self, event: Event, io: &mut dyn Io, out: &mut Vec<Note>) {
        match event {
            Event::Read { .. } | Event::Written { .. } | Event::Trimmed { .. } => {
                self.work.push_back(Work::Storage(storage::Input::Event(event)));
            }
            Event::Message { from, packet } if Pages::are_meant(&packet) => {
                self.on_page_packet(from, &packet, out);
            }
            Event::Message { from, packet } => {
                if self.opening.is_none() {
                    self.work.push_back(Work::Vsr(vsr::Input::Message { from, packet }));
                }
            }
            Event::Opened { conn } => self.clients.opened(conn),
            Event::Received { conn, data } => self.on_received(conn, &data, io, out),
            // Timers are looked at on every event.
            Event::Wake => {}
            Event::Sent { conn } => {
                let mut effects = Vec::new();
                self.sql.sent(conn, &mut effects);
                self.answer_all(effects, io);
            }
            Event::Closed { conn, .. } => self.forget(conn),
        }
    }

    /// A peer asks for a page, or gives one.
    fn on_page_packet(&mut self, from: ReplicaId, packet: &Packet, out: &mut Vec<Note>) {
        match self.pages.hear(self.now.monotonic, from, packet) {
            // What is not open has no pages: the peer asks again.
            Ok(Heard::Wanted { by, page }) if self.storage.is_open() => {
                self.work.push_back(Work::Storage(storage::Input::Serve { to: by, page }));
            }
            Ok(Heard::Came { page, bytes }) => {
                self.work.push_back(Work::Storage(storage::Input::FromPeer { page, bytes: Some(bytes) }));
            }
            Ok(Heard::Wanted { .. } | Heard::Nothing) => {}
            Err(why) => out.push(Note::Consensus(vsr::Note::Malformed { from, why })),
        }
    }

    /// Goes on with the pages that peers are asked for, if there are any.
    fn have_pages(&mut self, now: Now, io: &mut dyn Io, out: &mut Vec<Note>) {
        while self.pages.under_way() > 0 && self.halted.is_none() {
            self.ask_for_pages(io);
            if self.work.is_empty() {
                return;
            }
            self.run(now, io, out);
        }
    }

    /// Asks peers for the pages that are lost here, as far as it is time.
    fn ask_for_pages(&mut self, io: &mut dyn Io) {
        let known = (self.replica.view(), self.kernel().applied());
        let storage = &self.storage;
        let needed = |page: &PageName| storage.is_asked_of_peers(page);
        for page in self.pages.go_on(self.now.monotonic, known, needed, io) {
            self.work.push_back(Work::Storage(storage::Input::FromPeer { page, bytes: None }));
        }
    }

    fn run(&mut self, now: Now, io: &mut dyn Io, out: &mut Vec<Note>) {
        while self.halted.is_none()
            && let Some(work) = self.work.pop_front()
        {
            match work {
                Work::Storage(input) => {
                    self.storage.on(now, input, io, &mut self.storage_out);
                    self.route_storage(io, out);
                }
                Work::Vsr(vsr::Input::Request(_) | vsr::Input::ConfirmRead { .. })
                    if !self.replica.is_primary() =>
                {
                    // It stopped being the primary earlier in this very step, and said so to the clients.
                    kimberlite_probe::reachable!("node.resigned_meanwhile");
                }
                Work::Vsr(input) => {
                    self.replica.on(now, input, io, &mut self.vsr_out);
                    self.route_vsr(io, out);
                }
            }
        }
    }

    fn route_storage(&mut self, io: &mut dyn Io, out: &mut Vec<Note>) {
        for output in core::mem::take(&mut self.storage_out) {
            match output {
                storage::Output::Opened(recovered) => self.open(recovered, out),
                storage::Output::Durable { op, checksum } => {
                    out.push(Note::Durable { op, checksum });
                    self.tell_vsr(vsr::Input::Durable { op, checksum });
                    self.fetch_if_missed(op);
                }
                storage::Output::Stored { op } => {
                    self.tell_vsr(vsr::Input::Stored { op });
                    self.fetch_if_missed(op);
                }
                storage::Output::ViewDurable { view, log_view } => {
                    self.work.push_back(Work::Vsr(vsr::Input::ViewDurable { view, log_view }));
                }
                storage::Output::Fetched { op, checksum, result } => {
                    self.on_fetched(op, checksum, result, io, out);
                }
                storage::Output::CheckpointDurable { op } => {
                    if self.applying.checkpoint_durable(op) {
                        let name = self.storage.checkpoint().expect("it was named");
                        out.push(Note::Checkpoint { op, digest: name.root.digest() });
                        self.apply(io, out);
                    }
                }
                storage::Output::CheckpointDropped => self.on_dropped(),
                storage::Output::PageLost { page } => self.pages.want(page),
                storage::Output::PageMended { place } => out.push(Note::PageMended { place }),
                storage::Output::Served { to, page, bytes } => {
                    let known = (self.replica.view(), self.kernel().applied());
                    self.pages.answer(to, page, bytes, known, io);
                }
                storage::Output::Pages { waiter, bad } => self.on_pages(waiter, bad, io, out),
                storage::Output::Sealed { segment } => out.push(Note::Sealed { segment }),
                storage::Output::Repaired { op, place } => out.push(Note::Repaired { op, place }),
                storage::Output::Damaged { place, what, op } => out.push(Note::Damaged { place, what, op }),
                storage::Output::Full => out.push(Note::Full),
                storage::Output::Room => out.push(Note::Room),
                storage::Output::Halted(reason) => self.halt(HaltReason::Storage(reason), out),
            }
        }
    }

    fn open(&mut self, recovered: Box<storage::Recovered>, out: &mut Vec<Note>) {
        let head_certain = recovered.head_certain();
        let storage::ViewState { view, log_view, .. } = recovered.view_state;
        let tail = recovered.headers.clone();
        let storage::Recovered { commit, doubt_until, .. } = *recovered;
        out.push(Note::Opened { view, log_view, tail, commit, head_certain, doubt_until });
        if mutant!(SessionsForgotten, commit > Op::ZERO && self.config.sessions_max > 1) {
            self.applying = Applying::new(&Config { sessions_max: 1, ..self.config });
        }
        let damage = recovered.unknown.first().filter(|_| self.config.replicas == 1);
        if let Some((op, place)) = damage {
            kimberlite_probe::reachable!("node.refuses_damage_alone");
            self.halt(HaltReason::Damaged { op: *op, place: *place }, out);
            return;
        }
        self.opening = Some(recovered);
        self.open_state(&[], out);
    }

    /// Opens the state from its checkpoint, if there is one, and then consensus. `bad`: pages that cannot be had.
    fn open_state(&mut self, bad: &[PageRef], out: &mut Vec<Note>) {
        let Some(name) = self.opening.as_ref().and_then(|recovered| recovered.checkpoint) else {
            let executed = (Op::ZERO, PrepareHeader::root(self.config.cluster).checksum);
            self.open_vsr(executed);
            return;
        };
        let pages = self.storage.pages();
        let opened = applying::open(&self.config, &name, &pages);
        match opened {
            Ok(kernel) => {
                kimberlite_probe::reachable!("node.opens_checkpoint");
                let (op, checksum, digest) = (name.op, name.checksum, kernel.digest());
                out.push(Note::Restored { op, checksum, digest });
                self.applying.restore(kernel, &name);
                self.work.push_back(Work::Storage(storage::Input::Release(OPENING)));
                self.open_vsr((op, checksum));
            }
            Err(OpenError::Miss(_)) => {
                let missed = pages.missed();
                if let Some(page) = missed.iter().find(|page| bad.contains(page)) {
                    let place = storage::page_place(page.address);
                    self.lose_checkpoint(name.op, CheckpointLost::Page { place }, out);
                } else {
                    let want = storage::Input::Want { waiter: OPENING, pages: missed };
                    self.work.push_back(Work::Storage(want));
                }
            }
            Err(OpenError::Malformed(what)) => {
                self.lose_checkpoint(name.op, CheckpointLost::Malformed { what }, out);
            }
        }
    }

    fn open_vsr(&mut self, executed: (Op, Checksum)) {
        let recovered = *self.opening.take().expect("consensus is opened once, after storage");
        self.applying.begins_behind(recovered.head().op);
        let storage::ViewState { view, log_view, commit: _, headers: adopted } = recovered.view_state;
        self.work.push_back(Work::Vsr(vsr::Input::Open(vsr::Recovered {
            view,
            log_view,
            adopted,
            headers: recovered.headers,
            commit: recovered.commit,
            doubt_until: recovered.doubt_until,
            gap: recovered.gap,
            below_gap: recovered.below_gap,
            executed,
        })));
        self.work.extend(core::mem::take(&mut self.deferred).into_iter().map(Work::Vsr));
    }

    /// Tells consensus something, as soon as it is open.
    fn tell_vsr(&mut self, input: vsr::Input) {
        if self.opening.is_some() {
            kimberlite_probe::reachable!("node.defers");
            self.deferred.push(input);
        } else {
            self.work.push_back(Work::Vsr(input));
        }
    }

    /// The checkpoint is of no use: the state is made anew from the log.
    fn lose_checkpoint(&mut self, op: Op, why: CheckpointLost, out: &mut Vec<Note>) {
        kimberlite_probe::reachable!("node.loses_checkpoint");
        out.push(Note::Rebuilds { op, why });
        self.pages.forget();
        self.rebuilds = Some(op);
        self.work.push_back(Work::Storage(storage::Input::DropCheckpoint));
    }

    /// A page that is needed is lost: the state is given up, and made anew from the log.
    fn rebuild(&mut self, page: PageRef, io: &mut dyn Io, out: &mut Vec<Note>) {
        if self.applying.is_gone() {
            return;
        }
        let op = self.kernel().applied();
        let place = storage::page_place(page.address);
        let waited = self.applying.give_up(&self.config);
        for ticket in waited {
            self.refuse_read(ticket, io);
        }
        for (conn, nonce) in self.reads.abandon() {
            self.clients.turn(conn, nonce, Turn::Later, io);
        }
        let mut effects = Vec::new();
        self.sql.resigned(&mut effects);
        self.follow(effects, io, out);
        self.held = true;
        self.work.push_back(Work::Vsr(vsr::Input::Hold(true)));
        self.lose_checkpoint(op, CheckpointLost::Page { place }, out);
    }

    /// No checkpoint is named any more: the log is executed from its first op on.
    fn on_dropped(&mut self) {
        if let Some(recovered) = &mut self.opening {
            recovered.checkpoint = None;
            let executed = (Op::ZERO, PrepareHeader::root(self.config.cluster).checksum);
            self.open_vsr(executed);
        } else {
            self.applying.begin_anew();
            self.held = false;
            self.work.push_back(Work::Vsr(vsr::Input::Replay));
        }
    }

    fn on_pages(&mut self, waiter: Waiter, bad: Vec<PageRef>, io: &mut dyn Io, out: &mut Vec<Note>) {
        match waiter {
            OPENING => self.open_state(&bad, out),
            APPLYING => {
                self.applying.pages_came(bad);
                self.apply(io, out);
            }
            Waiter(conn) => self.sql.pages_came(Conn(conn), bad),
        }
    }

    fn on_fetched(
        &mut self,
        op: kimberlite_types::Op,
        checksum: Option<Checksum>,
        result: Result<Prepare, FetchError>,
        io: &mut dyn Io,
        out: &mut Vec<Note>,
    ) {
        let result = match result {
            Ok(prepare) => {
                let progress = self.reads.fetched(op, Some(&prepare), &self.applying.kernel);
                self.advance(progress, io);
                for conn in self.reads.waiting_for(op) {
                    self.sql.prepare_came(conn, &prepare);
                }
                Ok(prepare)
            }
            Err(FetchError::Damaged { place, checksum: _ }) if self.config.replicas == 1 => {
                kimberlite_probe::reachable!("node.finds_damage_alone");
                if op > self.replica.commit() {
                    self.halt(HaltReason::Damaged { op, place }, out);
                    return;
                }
                let progress = self.reads.lost(op);
                self.advance(progress, io);
                let mut effects = Vec::new();
                for conn in self.reads.waiting_for(op) {
                    self.sql.op_lost(conn, op, &mut effects);
                }
                self.answer_all(effects, io);
                return;
            }
            Err(error) => {
                self.reads.missed(op, self.now.monotonic.after(self.config.timing.resend));
                Err(match error {
                    FetchError::Damaged { checksum, .. } => Lost::Damaged { checksum },
                    FetchError::Missing | FetchError::Superseded => Lost::Missing,
                })
            }
        };
        self.tell_vsr(vsr::Input::Fetched { op, checksum, result });
    }

    fn advance(&mut self, progress: Vec<Progress>, io: &mut dyn Io) {
        for step in progress {
            match step {
                Progress::Answer { conn, nonce, answer } => self.clients.answer(conn, nonce, &answer, io),
                Progress::Fetch(op) => self.fetch(op),
            }
        }
    }

    /// Asks the journal for an op, for whoever waits for it.
    fn fetch(&mut self, op: kimberlite_types::Op) {
        self.work.push_back(Work::Storage(storage::Input::Fetch { op, checksum: None }));
    }

    /// The journal holds an op: whoever asked for it in vain gets it now.
    fn fetch_if_missed(&mut self, op: kimberlite_types::Op) {
        if self.reads.repaired(op) {
            self.fetch(op);
        }
    }

    fn route_vsr(&mut self, io: &mut dyn Io, out: &mut Vec<Note>) {
        for output in core::mem::take(&mut self.vsr_out) {
            match output {
                vsr::Output::Append(prepare) => {
                    self.work.push_back(Work::Storage(storage::Input::Append(prepare)));
                }
                vsr::Output::PersistView(state) => {
                    let vsr::ViewState { view, log_view, commit, headers } = state;
                    let state = storage::ViewState { view, log_view, commit, headers };
                    self.work.push_back(Work::Storage(storage::Input::PersistView(state)));
                }
                vsr::Output::Fetch { op, checksum } => {
                    self.work.push_back(Work::Storage(storage::Input::Fetch { op, checksum }));
                }
                vsr::Output::Survey => self.work.push_back(Work::Storage(storage::Input::Survey)),
                vsr::Output::Commit(prepare) => {
                    self.applying.take(prepare);
                    self.apply(io, out);
                }
                vsr::Output::Committed(op) => {
                    self.work.push_back(Work::Storage(storage::Input::Committed(op)));
                }
                vsr::Output::ReadConfirmed { ticket } if self.applying.is_gone() => {
                    self.refuse_read(ticket, io);
                }
                vsr::Output::ReadConfirmed { ticket } => {
                    self.applying.take_read(ticket, self.replica.view());
                    self.apply(io, out);
                }
                vsr::Output::RequestRefused { session, number } => {
                    let mut effects = Vec::new();
                    if !self.sql.not_taken(session, number, &mut effects) {
                        self.clients.turn_one(session, number, Turn::Busy, io);
                    }
                    self.follow(effects, io, out);
                }
                vsr::Output::ReadRefused { ticket } => self.refuse_read(ticket, io),
                vsr::Output::Resigned => {
                    kimberlite_probe::reachable!("node.sends_clients_away");
                    self.clients.turn_all(Turn::Later, io);
                    for (conn, nonce) in self.reads.unconfirmed() {
                        self.clients.turn(conn, nonce, Turn::Later, io);
                    }
                    let mut effects = Vec::new();
                    self.sql.resigned(&mut effects);
                    self.follow(effects, io, out);
                }
                vsr::Output::Note(note) => {
                    out.push(Note::Consensus(note));
                }
            }
        }
    }

    /// A read cannot be answered now.
    fn refuse_read(&mut self, ticket: u64, io: &mut dyn Io) {
        if Sql::owns(ticket) {
            let mut effects = Vec::new();
            self.sql.refuse(ticket, &mut effects);
            self.answer_all(effects, io);
        } else if let Some((conn, nonce)) = self.reads.refuse(ticket) {
            self.clients.turn(conn, nonce, Turn::Busy, io);
        }
    }

    /// Applies what can be applied.
    fn apply(&mut self, io: &mut dyn Io, out: &mut Vec<Note>) {
        while let Some(step) = self.applying.step(self.storage.pages(), &self.config) {
            match step {
                Step::Applied(prepare, applied) => self.on_applied(prepare, applied, io, out),
                Step::Read(ticket) if Sql::owns(ticket) => self.sql.confirmed(ticket),
                Step::Read(ticket) => {
                    let progress = self.reads.confirmed(ticket, &self.applying.kernel);
                    self.advance(progress, io);
                }
                Step::Want(pages) => {
                    let want = storage::Input::Want { waiter: APPLYING, pages };
                    self.work.push_back(Work::Storage(want));
                }
                Step::Lost(page) => {
                    self.rebuild(page, io, out);
                    return;
                }
                Step::Checkpoint(new) => {
                    self.work.push_back(Work::Storage(storage::Input::Checkpoint(new)));
                }
                Step::More => {
                    self.goes_on = true;
                    break;
                }
            }
        }
        if self.applying.releases() {
            self.work.push_back(Work::Storage(storage::Input::Release(APPLYING)));
        }
        let full = self.applying.is_full(self.held);
        if full != self.held {
            kimberlite_probe::sometimes!("node.holds_consensus", full);
            self.held = full;
            self.work.push_back(Work::Vsr(vsr::Input::Hold(full)));
        }
    }

    fn on_applied(&mut self, prepare: Prepare, applied: Applied, io: &mut dyn Io, out: &mut Vec<Note>) {
        let mut effects = Vec::new();
        let now = self.now.monotonic;
        for entry in &applied.verdicts {
            if !self.sql.decided(now, entry.session, entry.request, entry.verdict, &mut effects) {
                self.clients.decided(entry.session, entry.request, entry.verdict, io);
            }
        }
        self.follow(effects, io, out);
        out.push(Note::Committed { prepare, applied, digest: self.kernel().digest() });
    }

    /// Does what statements came to.
    fn follow(&mut self, effects: Vec<Effect>, io: &mut dyn Io, out: &mut Vec<Note>) {
        for effect in effects {
            match effect {
                Effect::Lost { page } => self.rebuild(page, io, out),
                effect => self.answer(effect, io),
            }
        }
    }

    /// Does what statements came to that took no step, and so have lost nothing.
    fn answer_all(&mut self, effects: Vec<Effect>, io: &mut dyn Io) {
        for effect in effects {
            self.answer(effect, io);
        }
    }

    fn answer(&mut self, effect: Effect, io: &mut dyn Io) {
        match effect {
            Effect::Answer { conn, nonce, answer } => {
                self.clients.answer(conn, nonce, &answer, io);
            }
            Effect::Turn { conn, nonce, turn } => self.clients.turn(conn, nonce, turn, io),
            Effect::Confirm { ticket } => {
                self.work.push_back(Work::Vsr(vsr::Input::ConfirmRead { ticket }));
            }
            Effect::Propose { session, number, tenant, command } => {
                let command = Frame::copy_from(&command);
                let request = vsr::Request { session, number, tenant, command };
                self.work.push_back(Work::Vsr(vsr::Input::Request(request)));
            }
            Effect::Want { conn, pages } => {
                let want = storage::Input::Want { waiter: waiter(conn), pages };
                self.work.push_back(Work::Storage(want));
            }
            Effect::Fetch { conn, ops } => {
                for op in ops {
                    self.reads.want(op, conn);
                    self.fetch(op);
                }
            }
            Effect::Release { conn } => {
                self.reads.release(conn);
                self.work.push_back(Work::Storage(storage::Input::Release(waiter(conn))));
            }
            Effect::Lost { page } => unreachable!("only a step finds a page lost: {page:?}"),
        }
    }

    fn halt(&mut self, reason: HaltReason, out: &mut Vec<Note>) {
        self.halted = Some(reason);
        self.work.clear();
        out.push(Note::Halted(reason));
    }
}

impl Machine for Node {
    type Input = Event;
    type Output = Note;

    fn on(&mut self, now: Now, event: Event, io: &mut dyn Io, out: &mut Vec<Note>) {
        if self.halted.is_some() {
            return;
        }
        if !self.started {
            self.started = true;
            self.work.push_back(Work::Storage(storage::Input::Start));
        }
        if self.storage.wake_at().is_some_and(|at| at <= now.monotonic) {
            self.work.push_back(Work::Storage(storage::Input::Wake));
        }
        if self.replica.wake_at().is_some_and(|at| at <= now.monotonic) {
            self.work.push_back(Work::Vsr(vsr::Input::Wake));
        }
        for op in self.reads.due(now.monotonic) {
            self.fetch(op);
        }
        self.now = now;
        let goes_on = core::mem::take(&mut self.goes_on);
        self.on_event(event, io, out);
        self.run(now, io, out);
        self.have_pages(now, io, out);
        if goes_on && self.halted.is_none() {
            self.apply(io, out);
            self.run(now, io, out);
            self.have_pages(now, io, out);
        }
        if self.sql.is_ready(now.monotonic) && self.halted.is_none() {
            let mut effects = Vec::new();
            let kernel = &self.applying.kernel;
            self.sql.run(now, kernel, &self.storage, self.config.layout.command_size_max(), &mut effects);
            self.follow(effects, io, out);
            self.run(now, io, out);
            self.have_pages(now, io, out);
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.halted.is_some() {
            return None;
        }
        [
            self.goes_on.then(|| self.now.monotonic.after(APPLY_PAUSE)),
            self.sql.wake_at(self.now.monotonic),
            self.storage.wake_at(),
            self.replica.wake_at(),
            self.reads.wake_at(),
            self.pages.wake_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
