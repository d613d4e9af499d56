//! Normal operation: propose, acknowledge, commit, execute.

use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_probe::mutant;
use kimberlite_types::limits::{ENTRIES_MAX, PIPELINE_MAX, TIMESTAMP_LIMIT};
use kimberlite_types::{Op, ReplicaId, View, WallTime};
use kimberlite_wire::entry::entry_size;
use kimberlite_wire::{Message, NewEntry, NewPrepare, Prepare};

use crate::log::Held;
use crate::replica::{Cx, InFlight, Misbehavior, Note, Output, Replica, Request, Status, WAITING_MAX};

/// Prepares handed to the journal and not yet durable. A disk that stalls while others carry on must not fill
/// the memory: 16 x 1 MiB, two pipelines.
const WRITING_MAX: usize = 2 * PIPELINE_MAX;

/// Small prepares in flight: one on the disk and one on its way there, if it is worth it.
const SMALL_IN_FLIGHT_MAX: usize = 2;

/// Bytes of commands that make a prepare large: from here on the disk's bandwidth counts, not its latency
/// (64 KiB take hardly longer than 4 KiB to make durable).
const LARGE_PREPARE: usize = 64 << 10;

impl Replica {
    pub(crate) fn on_request(&mut self, request: Request, cx: &mut Cx<'_>) {
        assert!(self.is_primary(), "the runtime sends others' clients to the primary");
        if self.waiting.len() < WAITING_MAX {
            self.waiting_bytes += request.command.len();
            self.waiting.push_back(request);
            self.propose(cx);
        } else {
            kimberlite_probe::reachable!("normal.queue_is_full");
            let Request { session, number, .. } = request;
            cx.out.push(Output::RequestRefused { session, number });
        }
    }

    /// Packs what waits into prepares while the pipeline has room: this is group commit. Small prepares cost the
    /// disk as much as large ones, so a second one follows only with as many entries as the one before it, and
    /// behind [`SMALL_IN_FLIGHT_MAX`] requests gather until one of them is committed; the rest of the pipeline is for
    /// prepares that are worth it. Many clients so fall into two halves, one on the disk while the other is answered:
    /// without the comparison, the first to come back would go alone, again and again.
    pub(crate) fn propose(&mut self, cx: &mut Cx<'_>) {
        let small = SMALL_IN_FLIGHT_MAX.min(usize::from(self.config.pipeline_max));
        let pipeline = usize::from(self.config.pipeline_max);
        let is_worth_it = |replica: &Self| match replica.pipeline.len() {
            0 => true,
            behind if behind < small => replica.waiting.len() >= replica.head().entries as usize,
            behind => behind < pipeline && replica.waiting_bytes >= LARGE_PREPARE,
        };
        kimberlite_probe::sometimes!(
            "normal.requests_gather",
            !self.waiting.is_empty() && self.pipeline.len() >= small && self.pipeline.len() < pipeline
        );
        kimberlite_probe::sometimes!(
            "normal.pipeline_is_full",
            !self.waiting.is_empty() && self.pipeline.len() >= pipeline
        );
        while !self.waiting.is_empty() && !self.held && is_worth_it(self) && self.log.writing() < WRITING_MAX
        {
            let batch = self.take_batch();
            kimberlite_probe::sometimes!("normal.group_commits", batch.len() > 1);
            let entries: Vec<NewEntry<'_>> = batch
                .iter()
                .map(|request| NewEntry {
                    session: request.session,
                    request: request.number,
                    tenant: request.tenant,
                    command: &request.command,
                })
                .collect();
            let parent = *self.head();
            let new = NewPrepare {
                parent: &parent,
                view: self.view,
                commit: self.commit_max,
                timestamp: WallTime(cx.now.wall.0.min(TIMESTAMP_LIMIT / 2).max(parent.timestamp.0 + 1)),
                layout: &self.config.layout,
                proposer: self.config.replica,
            };
            let prepare = Prepare::build(&new, &entries);
            self.log.push(prepare.header, Held::Writing);
            self.pipeline.push_back(InFlight {
                op: prepare.header.op,
                checksum: prepare.header.checksum,
                acks: 0,
                sent_at: cx.now.monotonic,
            });
            self.remember(prepare.clone());
            cx.out.push(Output::Append(prepare.clone()));
            self.broadcast(Message::Prepare(prepare), cx);
        }
    }

    /// As many waiting requests as fit one prepare, at least one.
    fn take_batch(&mut self) -> Vec<Request> {
        let mut size = Prepare::size_of(core::iter::empty());
        let mut batch = Vec::new();
        while let Some(request) = self.waiting.front() {
            size += entry_size(request.command.len());
            let full =
                size > self.config.layout.prepare_size_max as usize || batch.len() >= ENTRIES_MAX as usize;
            if full {
                assert!(!batch.is_empty(), "the runtime refuses commands that fit no prepare");
                kimberlite_probe::reachable!("normal.prepare_is_full");
                break;
            }
            self.waiting_bytes -= request.command.len();
            batch.extend(self.waiting.pop_front());
        }
        batch
    }

    pub(crate) fn on_prepare(
        &mut self,
        from: ReplicaId,
        view: View,
        commit: Op,
        prepare: Prepare,
        cx: &mut Cx<'_>,
    ) {
        let op = prepare.header.op;
        if view == self.view && self.is_backup() && from == self.config.primary(view) {
            self.expect_primary(cx);
        }
        if self.take_repair(from, commit, &prepare, cx) {
            return;
        }
        if view > self.view && from == self.config.primary(view) {
            kimberlite_probe::reachable!("normal.prepare_of_later_view");
            self.follow(view, cx);
            return;
        }
        let of_this_view = view == self.view || mutant!(AckOfAnotherPrepare, view < self.view);
        if !of_this_view || !self.is_backup() {
            return;
        }
        if from != self.config.primary(view) {
            // Anybody may answer a `RequestPrepare`; such an answer was taken above or is not needed.
            return;
        }
        if self.log.names(op, &prepare.header.checksum) {
            kimberlite_probe::reachable!("normal.prepare_again");
            self.acknowledge(op, cx);
        } else if op == self.head().op.next() {
            self.keep_ahead(prepare);
            self.accept_ahead(cx);
        } else if op > self.head().op {
            kimberlite_probe::reachable!("normal.prepare_ahead");
            self.keep_ahead(prepare);
            self.ask_for_gap(op, cx);
        } else if op > self.commit_max && prepare.header.view == self.view && self.log.get(op).is_some() {
            cx.note(Note::Misbehaved { from, what: Misbehavior::ConflictingPrepare });
        }
        self.commit_to(commit, cx);
    }

    /// Takes what has arrived into the log, in order, as fast as the disk makes it durable, and asks for what
    /// the primary has behind it.
    pub(crate) fn accept_ahead(&mut self, cx: &mut Cx<'_>) {
        let primary = self.config.primary(self.view);
        while self.log.writing() < WRITING_MAX
            && let Some(next) = self.take_ahead()
        {
            self.accept(primary, next, cx);
        }
        if self.log.writing() < WRITING_MAX {
            self.ask_for_gap(self.peer(primary).op.next(), cx);
        }
    }

    /// Takes the next op into the log.
    fn accept(&mut self, from: ReplicaId, prepare: Prepare, cx: &mut Cx<'_>) {
        if prepare.header.parent != self.head().checksum || prepare.header.view > self.view {
            cx.note(Note::Misbehaved { from, what: Misbehavior::ConflictingPrepare });
            return;
        }
        let expected = self.head().next_place(prepare.header.size, &self.config.layout);
        let sane = (prepare.header.place, prepare.header.index) == expected
            && prepare.header.size <= self.config.layout.prepare_size_max
            && prepare.header.timestamp > self.head().timestamp
            && prepare.header.cluster == self.config.cluster
            && prepare.verify_chain(&self.head().chain).is_ok();
        if !sane {
            cx.note(Note::Misbehaved { from, what: Misbehavior::BrokenChain });
            return;
        }
        let proven = prepare.header.commit;
        if mutant!(AckBeforeDurable) {
            let (op, checksum) = (prepare.header.op, prepare.header.checksum);
            self.send(from, Message::PrepareOk { op, checksum }, cx);
        }
        self.log.push(prepare.header, Held::Writing);
        self.remember(prepare.clone());
        cx.out.push(Output::Append(prepare));
        self.commit_to(proven, cx);
    }

    /// Tells the primary that an op is held, if it is, durably.
    pub(crate) fn acknowledge(&self, op: Op, cx: &mut Cx<'_>) {
        assert!(self.is_backup(), "acknowledgements go to another replica, in a view we take part in");
        let Some(slot) = self.log.get(op) else { return };
        if slot.held == Held::Durable {
            let checksum = slot.header.checksum;
            kimberlite_probe::always!(
                "normal.ack_in_durable_view",
                self.durable_view == (self.view, self.view)
            );
            self.send(self.config.primary(self.view), Message::PrepareOk { op, checksum }, cx);
        }
    }

    pub(crate) fn on_durable(&mut self, op: Op, checksum: &Checksum, cx: &mut Cx<'_>) {
        self.repair.durable(op);
        self.durable_at = cx.now.monotonic;
        if !self.log.names(op, checksum) {
            kimberlite_probe::reachable!("normal.durable_too_late");
            self.execute(cx);
            return;
        }
        self.log.set_held(op, checksum, Held::Durable);
        if self.is_primary() {
            self.count_ack(self.config.replica, op, checksum, cx);
        } else if self.is_backup() && op > self.commit_max {
            self.acknowledge(op, cx);
        }
        if self.is_primary() {
            self.propose(cx);
        } else if self.is_backup() {
            self.accept_ahead(cx);
        }
        // What was on its way to the disk and no longer in memory can be read now.
        if self.commit_min < self.commit_max {
            self.execute(cx);
        }
    }

    pub(crate) fn on_prepare_ok(
        &mut self,
        from: ReplicaId,
        view: View,
        op: Op,
        checksum: &Checksum,
        cx: &mut Cx<'_>,
    ) {
        let of_this_view = view == self.view || mutant!(AckOfAnotherPrepare, self.is_primary());
        if of_this_view && self.is_primary() {
            let peer = &mut self.peers[usize::from(from.0)];
            peer.op = peer.op.max(op);
            self.count_ack(from, op, checksum, cx);
        }
    }

    fn count_ack(&mut self, from: ReplicaId, op: Op, checksum: &Checksum, cx: &mut Cx<'_>) {
        let Some(entry) = self.pipeline.iter_mut().find(|entry| entry.op == op) else { return };
        if entry.checksum != *checksum && !mutant!(AckOfAnotherPrepare) {
            return;
        }
        kimberlite_probe::sometimes!("normal.acks_twice", entry.acks & (1 << from.0) != 0);
        if mutant!(DuplicateAckCounted, entry.acks & (1 << from.0) != 0) {
            entry.acks |= entry.acks + 1;
        }
        entry.acks |= 1 << from.0;
        self.commit_pipeline(cx);
    }

    /// Commits from the front of the pipeline what a quorum holds.
    pub(crate) fn commit_pipeline(&mut self, cx: &mut Cx<'_>) {
        kimberlite_probe::sometimes!(
            "normal.acked_out_of_order",
            self.pipeline
                .iter()
                .skip(1)
                .any(|late| late.acks.count_ones() >= u32::from(self.quorums.replication))
                && self.pipeline[0].acks.count_ones() < u32::from(self.quorums.replication)
        );
        let before = self.commit_max;
        while let Some(front) = self.pipeline.front() {
            let quorum = u32::from(self.quorums.replication);
            let held = |entry: &InFlight| entry.acks.count_ones() >= quorum;
            let short = mutant!(CommitQuorumShort, quorum > 1 && front.acks.count_ones() + 1 == quorum);
            let later = mutant!(CommitPastGap, !held(front) && self.pipeline.iter().any(held));
            if !held(front) && !short && !later {
                break;
            }
            assert!(front.op == self.commit_max.next(), "ops commit in order, without gaps");
            kimberlite_probe::sometimes!("normal.commits_alone", self.quorums.replication == 1);
            self.commit_max = front.op;
            self.pipeline.pop_front();
        }
        if self.commit_max > before {
            cx.out.push(Output::Committed(self.commit_max));
            self.execute(cx);
            self.propose(cx);
        }
    }

    /// Learns, as a backup, what is committed in the log of this view.
    pub(crate) fn commit_to(&mut self, commit: Op, cx: &mut Cx<'_>) {
        assert!(self.status == Status::Normal, "commits are learnt in the view whose log we hold");
        let ahead = mutant!(CommitAheadOfLog, commit > self.head().op);
        let commit = if ahead { commit } else { commit.min(self.head().op) };
        if commit > self.commit_max {
            kimberlite_probe::reachable!("normal.commit_learnt");
            self.commit_max = commit;
            cx.out.push(Output::Committed(commit));
            self.execute(cx);
        }
    }

    /// Hands committed prepares out, in order, as far as they are at hand; asks for the next ones.
    pub(crate) fn execute(&mut self, cx: &mut Cx<'_>) {
        while self.commit_min < self.commit_max && !self.held {
            let next = self.commit_min.next();
            let Some(prepare) = self.cache.get(&next) else { break };
            let named = self.log.get(next).is_none_or(|slot| slot.header.checksum == prepare.header.checksum);
            let follows = named && prepare.header.parent == self.executed;
            if !follows && !mutant!(RepairNotVerified) {
                kimberlite_probe::reachable!("normal.cached_of_other_log");
                // Not of this log; what is gets fetched.
                self.cache.remove(&next);
                break;
            }
            let prepare = prepare.clone();
            self.commit_min = next;
            self.executed = prepare.header.checksum;
            cx.out.push(Output::Commit(prepare));
        }
        if !self.held {
            self.fetch_ahead(cx);
        }
        self.confirm_reads(cx);
    }

    pub(crate) fn on_heartbeat_due(&mut self, cx: &mut Cx<'_>) {
        if !self.is_primary() || self.is_solo() {
            self.timers.heartbeat = None;
            return;
        }
        self.timers.heartbeat = Some(cx.now.monotonic.after(self.config.timing.heartbeat));
        kimberlite_probe::sometimes!("normal.not_heard", !self.is_heard(cx));
        if self.is_heard(cx) && !self.is_stalled(cx) {
            self.expect_primary(cx);
        }
        // A primary that nobody answers falls silent, so that those who cannot answer it elect another.
        kimberlite_probe::sometimes!("normal.falls_silent", self.attempts > 0);
        if self.attempts == 0 {
            self.say_commit(cx);
        }
    }

    /// Whether a quorum, this primary included, was heard lately.
    fn is_heard(&self, cx: &Cx<'_>) -> bool {
        let lately = |replica: ReplicaId| {
            self.peer(replica)
                .heard
                .is_some_and(|at| cx.now.monotonic.since(at) < self.config.timing.abdicate)
        };
        let heard = self.config.others().filter(|replica| lately(*replica)).count() + 1;
        heard >= usize::from(self.quorums.replication.max(self.quorums.read))
    }

    /// Whether, for so long that another should lead, the own disk has made nothing durable, or nobody has given
    /// us the inherited op that everything waits for.
    fn is_stalled(&mut self, cx: &Cx<'_>) -> bool {
        let front = self.pipeline.front().and_then(|front| self.log.get(front.op));
        let lacks_front = front.is_some_and(|slot| slot.held.is_lacking());
        if self.log.writing() == 0 && !lacks_front {
            self.durable_at = cx.now.monotonic;
        }
        kimberlite_probe::sometimes!(
            "normal.stalls",
            cx.now.monotonic.since(self.durable_at) >= self.config.timing.abdicate
        );
        cx.now.monotonic.since(self.durable_at) >= self.config.timing.abdicate
    }

    /// Tells everybody who is primary, and what is committed.
    pub(crate) fn say_commit(&self, cx: &mut Cx<'_>) {
        let checksum = self.log.get(self.commit_max).map_or(Checksum::ZERO, |slot| slot.header.checksum);
        let message = Message::Commit { checksum, op: self.head().op, round: self.reads.round() };
        self.broadcast(message, cx);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message, in its order")]
    pub(crate) fn on_commit(
        &mut self,
        from: ReplicaId,
        view: View,
        commit: Op,
        checksum: &Checksum,
        op: Op,
        round: u64,
        cx: &mut Cx<'_>,
    ) {
        if view < self.view {
            return;
        }
        if from != self.config.primary(view) {
            cx.note(Note::Misbehaved { from, what: Misbehavior::NotPrimary });
            return;
        }
        if view > self.view || !self.is_backup() {
            if mutant!(StaleSuffixCommitted, self.is_backup() && commit > self.commit_max) {
                self.commit_to(commit, cx);
            }
            self.follow(view, cx);
            return;
        }
        self.expect_primary(cx);
        self.peers[usize::from(from.0)].op = op;
        if self.log.get(commit).is_some() && !self.log.names(commit, checksum) {
            cx.note(Note::Misbehaved { from, what: Misbehavior::WrongCommit });
            return;
        }
        self.commit_to(commit, cx);
        if op > self.head().op {
            self.ask_for_gap(op.next(), cx);
        }
        self.send(from, Message::CommitOk { op: self.head().op, round }, cx);
    }

    pub(crate) fn on_commit_ok(
        &mut self,
        from: ReplicaId,
        view: View,
        commit: Op,
        op: Op,
        round: u64,
        cx: &mut Cx<'_>,
    ) {
        if view == self.view && self.is_primary() {
            let peer = &mut self.peers[usize::from(from.0)];
            peer.op = op;
            peer.commit = commit;
            self.on_round_ok(from, round, cx);
        }
    }

    pub(crate) fn on_resend_due(&mut self, cx: &mut Cx<'_>) {
        self.timers.resend = Some(cx.now.monotonic.after(self.config.timing.resend));
        if mutant!(ResendNotRearmed) {
            self.timers.resend = None;
        }
        match self.status {
            Status::Opening => {}
            Status::Normal => self.resend_pipeline(cx),
            Status::ViewChange => self.resend_view_change(cx),
            Status::Recovering => self.ask_for_view(cx),
        }
        if self.attempts > 0 && self.status != Status::ViewChange {
            self.repeat_wish(cx);
        }
        if !self.is_solo() && self.status != Status::Opening {
            // What keeps the journal from sealing may have been executed long ago, and then nothing else asks for it.
            cx.out.push(Output::Survey);
        }
    }

    /// Sends again what was not acknowledged in time, to those who have not.
    fn resend_pipeline(&mut self, cx: &mut Cx<'_>) {
        // A primary that has given up says nothing that would make others wait for it.
        if !self.is_primary() || self.is_solo() || self.attempts > 0 {
            return;
        }
        let before = cx.now.monotonic;
        let resend = self.config.timing.resend;
        let late: Vec<InFlight> =
            self.pipeline.iter().filter(|entry| before.since(entry.sent_at) >= resend).copied().collect();
        for entry in late {
            for to in self.config.others() {
                if entry.acks & (1 << to.0) == 0 {
                    kimberlite_probe::reachable!("normal.resends");
                    self.serve(to, entry.op, Some(entry.checksum), cx);
                }
            }
        }
        for entry in &mut self.pipeline {
            if before.since(entry.sent_at) >= resend {
                entry.sent_at = before;
            }
        }
    }
}
