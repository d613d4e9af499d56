//! View changes: want one, enter it, choose its log, adopt it.
//!
//! `StartViewChange` is a wish and promises nothing; a replica whose primary went silent repeats it. When a
//! quorum wants a view, each of them enters it: it makes the view durable and only then votes with
//! `DoViewChange`. So one replica that nobody else follows, cut off or slow, disturbs no one.
//!
//! A log is adopted in one step: the headers and `log_view` become durable together, then the journal and
//! this replica switch. A replica too far behind to connect first fetches what is committed in between;
//! that may overwrite its suffix at any time, because nothing can undo what is committed.

use alloc::vec::Vec;

use kimberlite_types::{Op, ReplicaId, View};
use kimberlite_wire::{Message, PrepareHeader};

use crate::log::Held;
use crate::merge::{Choice, Dvc, choose};
use crate::replica::{Cx, InFlight, Misbehavior, Note, Output, Peer, Replica, Status, ViewState};

/// Doublings of the patience between view changes that lead nowhere: eight times at most.
const PATIENCE_DOUBLINGS_MAX: u32 = 3;

/// A log that is about to be adopted.
#[derive(Debug)]
pub(crate) struct Adoption {
    pub(crate) view: View,
    pub(crate) headers: Vec<PrepareHeader>,
    pub(crate) commit: Op,
    /// The superblock is being written: from here on there is no way back.
    pub(crate) persisting: bool,
}

impl Replica {
    /// Whether the superblock is being written for an adoption. Until it is, no other view is entered: the
    /// journal must not switch to a log that this replica no longer knows of.
    pub(crate) fn is_adopting(&self) -> bool {
        self.adoption.as_ref().is_some_and(|adoption| adoption.persisting)
    }

    /// The primary is alive, or was just given its chance: wait for it, anew.
    pub(crate) fn expect_primary(&mut self, cx: &Cx<'_>) {
        if !self.is_solo() {
            self.attempts = 0;
            self.peers[usize::from(self.config.replica.0)].wanted = self.view;
            let patience = self.jittered(self.config.timing.view_change);
            self.timers.view_change = Some(cx.now.monotonic.after(patience));
        }
    }

    pub(crate) fn on_view_change_due(&mut self, cx: &mut Cx<'_>) {
        self.attempts += 1;
        let doublings = self.attempts.min(PATIENCE_DOUBLINGS_MAX);
        let patience = self.jittered(self.config.timing.view_change * (1 << doublings) / 2);
        self.timers.view_change = Some(cx.now.monotonic.after(patience));
        let highest = self.peers.iter().map(|peer| peer.wanted).max().unwrap_or_default();
        self.wish(highest.max(self.view.next()), cx);
        if !self.is_adopting() && self.adoption.is_some() {
            // The log that was chosen could not be fetched in time. Others may do better.
            self.adoption = None;
        }
        self.say_wanted(cx);
        self.count_wishes(cx);
    }

    /// Wants a view, as of now.
    fn wish(&mut self, wanted: View, cx: &Cx<'_>) {
        let me = &mut self.peers[usize::from(self.config.replica.0)];
        me.wanted = wanted;
        me.wanted_at = cx.now.monotonic;
    }

    pub(crate) fn say_wanted(&self, cx: &mut Cx<'_>) {
        let wanted = self.peers[usize::from(self.config.replica.0)].wanted.max(self.view);
        self.broadcast(Message::StartViewChange { wanted }, cx);
    }

    /// Says again what is wanted, and that it still is.
    pub(crate) fn repeat_wish(&mut self, cx: &mut Cx<'_>) {
        let wanted = self.peers[usize::from(self.config.replica.0)].wanted.max(self.view);
        self.wish(wanted, cx);
        self.say_wanted(cx);
    }

    pub(crate) fn on_start_view_change(
        &mut self,
        from: ReplicaId,
        view: View,
        wanted: View,
        cx: &mut Cx<'_>,
    ) {
        let peer = &mut self.peers[usize::from(from.0)];
        peer.wanted = wanted;
        peer.wanted_at = cx.now.monotonic;
        if view > self.view {
            // The sender is there already, so a quorum wanted that view once; nobody can go back to ours.
            self.enter(view, cx);
        }
        self.count_wishes(cx);
    }

    /// Enters the highest view that a quorum wants. A wish is repeated while it holds, so an old one is void:
    /// two replicas that each lost patience once, at different times, want nothing together.
    fn count_wishes(&mut self, cx: &mut Cx<'_>) {
        let replicas = usize::from(self.config.replicas);
        let fresh = |peer: &Peer| cx.now.monotonic.since(peer.wanted_at) < self.config.timing.view_change;
        let wish = |peer: &Peer| if fresh(peer) { peer.wanted } else { View::ZERO };
        let mut wanted: Vec<View> = self.peers[..replicas].iter().map(wish).collect();
        wanted.sort();
        // With q votes for a view, q replicas want it or a higher one: the q-th highest wish.
        let agreed = wanted[replicas - usize::from(self.quorums.view_change)];
        if agreed > self.view {
            self.enter(agreed, cx);
        }
    }

    /// Leaves the current view for `view`, durably, and then votes.
    fn enter(&mut self, view: View, cx: &mut Cx<'_>) {
        if self.is_adopting() {
            return;
        }
        self.leave_for(view, cx);
        cx.out.push(Output::PersistView(self.view_state(view)));
        let patience =
            self.jittered(self.config.timing.view_change * (1 << self.attempts.min(PATIENCE_DOUBLINGS_MAX)));
        self.timers.view_change = Some(cx.now.monotonic.after(patience));
    }

    fn view_state(&self, view: View) -> ViewState {
        ViewState { view, log_view: self.log_view, commit: self.commit_max, headers: self.adopted.clone() }
    }

    /// Stops taking part in the current view.
    fn leave_for(&mut self, view: View, cx: &mut Cx<'_>) {
        assert!(view > self.view, "views only grow");
        assert!(!self.is_adopting(), "an adoption that is being written is finished first");
        let was_primary = self.is_primary();
        self.view = view;
        self.status = Status::ViewChange;
        self.wish(view, cx);
        self.adoption = None;
        self.dvcs.clear();
        self.pipeline.clear();
        self.waiting.clear();
        self.reads.reset();
        self.repair.leave_view();
        self.timers.heartbeat = None;
        self.timers.resend = Some(cx.now.monotonic.after(self.config.timing.resend));
        if was_primary {
            cx.out.push(Output::Resigned);
        }
    }

    pub(crate) fn on_view_durable(&mut self, view: View, log_view: View, cx: &mut Cx<'_>) {
        assert!((view, log_view) >= self.durable_view, "the durable view never goes back");
        self.durable_view = (view, log_view);
        if self.is_adopting() {
            if self.adoption.as_ref().is_some_and(|adoption| adoption.view == log_view) {
                self.finish_adoption(cx);
            }
        } else if view == self.view && self.status == Status::ViewChange {
            self.note_view(cx);
            self.vote(cx);
        }
    }

    /// Sends this replica's log to the new primary. The view is durable, so the vote is never forgotten.
    fn vote(&mut self, cx: &mut Cx<'_>) {
        let may_vote = self.status == Status::ViewChange
            && self.durable_view.0 == self.view
            && self.log_view < self.view
            && self.adoption.is_none();
        if !may_vote {
            return;
        }
        let headers = self.log.marks();
        let op = self.head().op;
        let head_certain = self.doubtful_from.is_none();
        let primary = self.config.primary(self.view);
        if primary == self.config.replica {
            let (log_view, commit) = (self.log_view, self.commit_max);
            let dvc = Dvc { replica: primary, log_view, op, commit, head_certain, headers };
            self.on_do_view_change(self.view, dvc, cx);
        } else {
            let log_view = self.log_view;
            self.send(primary, Message::DoViewChange { log_view, op, head_certain, headers }, cx);
        }
    }

    pub(crate) fn resend_view_change(&mut self, cx: &mut Cx<'_>) {
        self.repeat_wish(cx);
        self.vote(cx);
    }

    pub(crate) fn on_do_view_change(&mut self, view: View, dvc: Dvc, cx: &mut Cx<'_>) {
        if view < self.view || dvc.log_view >= view {
            return;
        }
        if self.config.primary(view) != self.config.replica {
            cx.note(Note::Misbehaved { from: dvc.replica, what: Misbehavior::NotPrimary });
            return;
        }
        if view > self.view {
            self.enter(view, cx);
        }
        if view != self.view || self.is_adopting() {
            return;
        }
        if self.is_primary() {
            self.say_start_view(dvc.replica, 0, cx);
            return;
        }
        // A restarted primary does not lead the view again whose log it already holds.
        if self.log_view == self.view || self.adoption.is_some() {
            return;
        }
        self.dvcs.retain(|known| known.replica != dvc.replica);
        self.dvcs.push(dvc);
        if self.dvcs.iter().any(|known| known.replica == self.config.replica) {
            self.choose_log(cx);
        }
    }

    fn choose_log(&mut self, cx: &mut Cx<'_>) {
        match choose(&self.dvcs, &self.quorums) {
            Choice::NeedQuorum | Choice::Undecided(_) => {}
            Choice::Contradiction(_, from) => {
                cx.note(Note::Misbehaved { from, what: Misbehavior::ContradictingLog });
            }
            Choice::Log { headers, commit } => {
                self.adoption = Some(Adoption { view: self.view, headers, commit, persisting: false });
                self.try_adopt(cx);
            }
        }
    }

    /// The op whose decision the view change waits for, if it does.
    pub fn undecided(&self) -> Option<Op> {
        match choose(&self.dvcs, &self.quorums) {
            Choice::Undecided(op) if self.adoption.is_none() => Some(op),
            _ => None,
        }
    }

    /// Makes the chosen log durable, if ours connects to it; fetches what is between them if not.
    pub(crate) fn try_adopt(&mut self, cx: &mut Cx<'_>) {
        let Some(adoption) = &mut self.adoption else { return };
        if adoption.persisting {
            return;
        }
        if !self.log.connects(&adoption.headers) {
            self.ask_catch_up(cx);
            return;
        }
        adoption.persisting = true;
        let state = ViewState {
            view: adoption.view,
            log_view: adoption.view,
            commit: self.commit_max,
            headers: adoption.headers.clone(),
        };
        cx.out.push(Output::PersistView(state));
    }

    fn finish_adoption(&mut self, cx: &mut Cx<'_>) {
        let Adoption { view, headers, commit, .. } = self.adoption.take().expect("one is being written");
        assert!(view == self.view, "no other view was entered meanwhile");
        let doubtful_from = self.doubtful_from.take();
        self.log.adopt(&headers, |op| match doubtful_from {
            Some(from) if op >= from => Held::Damaged,
            _ => Held::Missing,
        });
        assert!(self.commit_max <= self.head().op, "a view's log holds all that is committed");
        let log = &self.log;
        self.cache
            .retain(|op, prepare| log.get(*op).is_none_or(|_| log.names(*op, &prepare.header.checksum)));
        self.log_view = view;
        self.adopted = headers;
        self.status = Status::Normal;
        self.commit_max = self.commit_max.max(commit.min(self.head().op));
        cx.out.push(Output::Committed(self.commit_max));
        self.dvcs.clear();
        self.repair.adopted();
        self.note_view(cx);
        self.expect_primary(cx);
        if self.is_primary() {
            self.begin_view(cx);
        } else {
            let held: Vec<Op> = self.log.after(self.commit_max).map(|slot| slot.header.op).collect();
            for op in held {
                self.acknowledge(op, cx);
            }
        }
        self.lack_what_is_lacking(cx);
        self.execute(cx);
    }

    /// Leads the view: what is not committed is proposed again, unchanged.
    fn begin_view(&mut self, cx: &mut Cx<'_>) {
        self.inherited = self.head().op;
        self.reads.reset();
        let me = self.config.replica;
        self.pipeline = self
            .log
            .after(self.commit_max)
            .map(|slot| InFlight {
                op: slot.header.op,
                checksum: slot.header.checksum,
                acks: if slot.held == Held::Durable { 1 << me.0 } else { 0 },
                sent_at: cx.now.monotonic,
            })
            .collect();
        self.timers.heartbeat = Some(cx.now.monotonic);
        for to in self.config.others() {
            self.say_start_view(to, 0, cx);
        }
        self.commit_pipeline(cx);
    }

    fn say_start_view(&self, to: ReplicaId, nonce: u64, cx: &mut Cx<'_>) {
        assert!(self.is_primary(), "only the primary starts a view");
        self.send(to, Message::StartView { nonce, headers: self.log.tail() }, cx);
    }

    pub(crate) fn on_start_view(
        &mut self,
        from: ReplicaId,
        view: View,
        commit: Op,
        headers: Vec<PrepareHeader>,
        cx: &mut Cx<'_>,
    ) {
        if from != self.config.primary(view) {
            cx.note(Note::Misbehaved { from, what: Misbehavior::NotPrimary });
            return;
        }
        let started = view == self.view && self.status == Status::Normal;
        if view < self.view || started || self.is_adopting() {
            return;
        }
        if view > self.view {
            self.leave_for(view, cx);
        }
        self.expect_primary(cx);
        let head = headers.last().expect("decoded with at least one header").op;
        if head < self.commit_max {
            cx.note(Note::Misbehaved { from, what: Misbehavior::WrongCommit });
            return;
        }
        self.adoption = Some(Adoption { view, headers, commit, persisting: false });
        self.try_adopt(cx);
    }

    /// A primary of a view that did not start here yet was heard.
    pub(crate) fn follow(&mut self, view: View, cx: &mut Cx<'_>) {
        if self.is_adopting() {
            return;
        }
        if view > self.view {
            self.leave_for(view, cx);
        }
        self.expect_primary(cx);
        if self.adoption.is_none() {
            let nonce = self.rng.next_u64();
            self.send(self.config.primary(view), Message::RequestStartView { nonce }, cx);
        }
    }

    /// Asks everybody which view it is.
    pub(crate) fn ask_for_view(&mut self, cx: &mut Cx<'_>) {
        if self.adoption.is_none() {
            let nonce = self.rng.next_u64();
            self.broadcast(Message::RequestStartView { nonce }, cx);
        }
    }

    pub(crate) fn on_request_start_view(&mut self, from: ReplicaId, view: View, nonce: u64, cx: &mut Cx<'_>) {
        if self.is_primary() && view <= self.view {
            self.say_start_view(from, nonce, cx);
        }
    }
}
