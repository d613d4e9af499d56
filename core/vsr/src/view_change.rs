//! View changes: want one, enter it, choose its log, adopt it.
//!
//! `StartViewChange` is a wish and promises nothing; a replica whose primary went silent repeats it. When a
//! quorum wants a view, each of them enters it: it makes the view durable and only then votes with
//! `DoViewChange`. So one replica that nobody else follows, cut off or slow, disturbs no one.
//!
//! A log is adopted in one step: the headers and `log_view` become durable together, then the journal and
//! this replica switch. The headers of a replica that was far behind do not connect to its log. Everything in
//! between is committed, because a log names at most one pipeline of ops that are not; so that hole is
//! filled while it is executed, with prepares whose senders vouch that they are committed.

use alloc::vec::Vec;

use kimberlite_probe::mutant;
use kimberlite_types::{Op, ReplicaId, View};
use kimberlite_wire::message::{HEADERS_MAX, Mark};
use kimberlite_wire::{Message, PrepareHeader};

use crate::log::Held;
use crate::merge::{Choice, Dvc, choose};
use crate::replica::{Cx, InFlight, Misbehavior, Note, Output, Peer, Replica, Status, ViewState};

/// Doublings of the patience between view changes that lead nowhere: eight times at most.
const PATIENCE_DOUBLINGS_MAX: u32 = 3;

/// A log that is being adopted: the superblock is being written, and there is no way back.
#[derive(Debug)]
pub(crate) struct Adoption {
    pub(crate) view: View,
    pub(crate) headers: Vec<PrepareHeader>,
    pub(crate) commit: Op,
}

impl Replica {
    /// Whether the superblock is being written for an adoption. Until it is, no other view is entered: the
    /// journal must not switch to a log that this replica no longer knows of.
    pub const fn is_adopting(&self) -> bool {
        self.adoption.is_some()
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
        kimberlite_probe::sometimes!("view_change.tries_again", self.attempts > 1);
        kimberlite_probe::sometimes!("view_change.loses_patience", self.attempts == 1);
        let doublings = self.attempts.min(PATIENCE_DOUBLINGS_MAX);
        let patience = self.jittered(self.config.timing.view_change * (1 << doublings) / 2);
        self.timers.view_change = Some(cx.now.monotonic.after(patience));
        let highest = self.peers.iter().map(|peer| peer.wanted).max().unwrap_or_default();
        self.wish(highest.max(self.view.next()), cx);
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
            kimberlite_probe::reachable!("view_change.joins");
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
            kimberlite_probe::reachable!("view_change.quorum_agrees");
            self.enter(agreed, cx);
        }
    }

    /// Leaves the current view for `view`, durably, and then votes.
    fn enter(&mut self, view: View, cx: &mut Cx<'_>) {
        if self.is_adopting() {
            kimberlite_probe::reachable!("view_change.finishes_adoption_first");
            return;
        }
        self.leave_for(view, cx);
        if mutant!(ViewNotPersisted) {
            self.asked_view = view;
        } else {
            self.persist_view(cx);
        }
        if self.asked_view == view && (mutant!(ViewNotPersisted) || mutant!(ViewNotAwaited)) {
            self.on_view_durable(view, self.log_view, cx);
        }
        let patience =
            self.jittered(self.config.timing.view_change * (1 << self.attempts.min(PATIENCE_DOUBLINGS_MAX)));
        self.timers.view_change = Some(cx.now.monotonic.after(patience));
    }

    /// Makes the view durable, with the log as it was adopted.
    fn persist_view(&mut self, cx: &mut Cx<'_>) {
        self.asked_view = self.view;
        cx.out.push(Output::PersistView(ViewState {
            view: self.view,
            log_view: self.log_view,
            commit: self.commit_max,
            headers: self.adopted.clone(),
        }));
    }

    /// Stops taking part in the current view.
    fn leave_for(&mut self, view: View, cx: &mut Cx<'_>) {
        assert!(view > self.view, "views only grow");
        assert!(!self.is_adopting(), "an adoption that is being written is finished first");
        let was_primary = self.is_primary();
        self.view = view;
        self.status = Status::ViewChange;
        self.wish(view, cx);
        self.dvcs.clear();
        self.pipeline.clear();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.reads.reset();
        self.repair.leave_view();
        self.timers.heartbeat = None;
        self.timers.resend = Some(cx.now.monotonic.after(self.config.timing.resend));
        if was_primary {
            kimberlite_probe::reachable!("view_change.primary_resigns");
            cx.out.push(Output::Resigned);
        }
    }

    pub(crate) fn on_view_durable(&mut self, view: View, log_view: View, cx: &mut Cx<'_>) {
        assert!((view, log_view) >= self.durable_view, "the durable view never goes back");
        assert!(view <= self.asked_view, "only a view that was asked for becomes durable");
        self.durable_view = (view, log_view);
        if let Some(adoption) = self.adoption.take_if(|adoption| adoption.view == log_view) {
            self.finish_adoption(adoption, cx);
        } else if view == self.view && self.status == Status::ViewChange && !self.is_adopting() {
            self.note_view(cx);
            self.vote(cx);
        }
    }

    /// Sends this replica's log to the new primary. The view is durable, so the vote is never forgotten.
    fn vote(&mut self, cx: &mut Cx<'_>) {
        let may_vote = self.status == Status::ViewChange
            && self.durable_view.0 == self.view
            && self.log_view < self.view
            && !self.is_adopting();
        if !may_vote {
            return;
        }
        kimberlite_probe::always!("view_change.vote_is_durable", self.durable_view.0 == self.view);
        kimberlite_probe::sometimes!("view_change.votes_in_doubt", self.doubt.is_some());
        kimberlite_probe::sometimes!("view_change.votes_around_gap", !self.below_gap.is_empty());
        let mut op = self.head().op;
        let mut headers = self.below_gap.clone();
        headers.retain(|(header, _)| header.op < self.log.first() && header.op.0 + HEADERS_MAX as u64 > op.0);
        headers.extend(self.log.marks());
        headers.drain(..headers.len().saturating_sub(HEADERS_MAX));
        let mut doubt_until = self.doubt.map_or(op, |(_, until)| until.max(op));
        if mutant!(DoubtForgotten, doubt_until > op) {
            doubt_until = op;
        }
        let lacking = |(it, mark): &(PrepareHeader, Mark)| it.op > self.commit_max && *mark != Mark::Present;
        if mutant!(VoteCutsGap, headers.iter().any(lacking)) {
            let whole = headers.iter().take_while(|it| !lacking(it)).count();
            headers.truncate(whole.max(1));
            op = headers.last().expect("at least one is left").0.op;
            doubt_until = op;
        }
        let primary = self.config.primary(self.view);
        if primary == self.config.replica {
            kimberlite_probe::reachable!("view_change.votes_for_itself");
            let (log_view, commit) = (self.log_view, self.commit_max);
            let dvc = Dvc { replica: primary, log_view, op, commit, doubt_until, headers };
            self.on_do_view_change(self.view, dvc, cx);
        } else {
            let log_view = self.log_view;
            kimberlite_probe::reachable!("view_change.votes");
            self.send(primary, Message::DoViewChange { log_view, op, doubt_until, headers }, cx);
        }
    }

    pub(crate) fn resend_view_change(&mut self, cx: &mut Cx<'_>) {
        self.repeat_wish(cx);
        if self.asked_view < self.view && !self.is_adopting() {
            // The view was learnt from its primary, which has not been heard since: stand by it, to be of use
            // should it have to be changed.
            kimberlite_probe::reachable!("view_change.stands_by_heard_view");
            self.persist_view(cx);
        }
        self.vote(cx);
    }

    pub(crate) fn on_do_view_change(&mut self, view: View, dvc: Dvc, cx: &mut Cx<'_>) {
        if view < self.view || dvc.log_view >= view || self.is_adopting() {
            return;
        }
        if self.config.primary(view) != self.config.replica {
            cx.note(Note::Misbehaved { from: dvc.replica, what: Misbehavior::NotPrimary });
            return;
        }
        if dvc.commit > dvc.op || !self.are_sane(dvc.headers.iter().map(|(header, _)| header), view) {
            cx.note(Note::Misbehaved { from: dvc.replica, what: Misbehavior::WrongCommit });
            return;
        }
        if view > self.view {
            self.enter(view, cx);
        }
        if self.is_primary() {
            kimberlite_probe::reachable!("view_change.vote_is_late");
            self.say_start_view(dvc.replica, 0, cx);
            return;
        }
        // A restarted primary does not lead the view again whose log it already holds.
        if self.log_view == self.view {
            kimberlite_probe::reachable!("view_change.not_led_again");
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
                kimberlite_probe::reachable!("view_change.chooses_log");
                self.adopt(headers, commit, cx);
            }
        }
    }

    /// The op whose decision the view change waits for, if it does.
    pub fn undecided(&self) -> Option<Op> {
        match choose(&self.dvcs, &self.quorums) {
            Choice::Undecided(op) if !self.is_adopting() => Some(op),
            _ => None,
        }
    }

    /// Makes a view's log durable; the switch follows when it is.
    ///
    /// What it knows to be committed goes with it. Its headers may begin right behind that, when those in front are lost,
    /// and a restarted adopter must not take what it no longer names for ops of this view.
    fn adopt(&mut self, headers: Vec<PrepareHeader>, commit: Op, cx: &mut Cx<'_>) {
        assert!(!self.is_adopting(), "one log is adopted at a time");
        self.asked_view = self.view;
        let head = headers.last().expect("a view's log has at least one header").op;
        cx.out.push(Output::PersistView(ViewState {
            view: self.view,
            log_view: self.view,
            commit: self.commit_max.max(commit.min(head)),
            headers: headers.clone(),
        }));
        let adoption = Adoption { view: self.view, headers, commit };
        if mutant!(SuffixOverwrittenEarly) {
            return self.finish_adoption(adoption, cx);
        }
        self.adoption = Some(adoption);
    }

    /// Whether headers that a peer sent could stand in our journal.
    fn are_sane<'a>(&self, headers: impl Iterator<Item = &'a PrepareHeader>, view: View) -> bool {
        let mut previous: Option<&PrepareHeader> = None;
        for header in headers {
            let follows = previous.is_none_or(|previous| {
                let next = previous.next_place(header.size, &self.config.layout);
                let apart = header.op > previous.op.next();
                header.timestamp > previous.timestamp && (apart || (header.place, header.index) == next)
            });
            if !follows || header.view > view || !self.fits(header) {
                return false;
            }
            previous = Some(header);
        }
        true
    }

    fn finish_adoption(&mut self, adoption: Adoption, cx: &mut Cx<'_>) {
        let Adoption { view, headers, commit } = adoption;
        assert!(view == self.view, "no other view was entered meanwhile");
        let doubt = self.doubt.take();
        kimberlite_probe::sometimes!("view_change.adopts_in_doubt", doubt.is_some());
        self.below_gap.clear();
        let window = self.log.first();
        self.log.adopt(&headers, self.commit_max, |op| match doubt {
            Some((from, until)) if op >= from && op <= until => Held::Damaged,
            // What stood in front of the window may be held: the journal knows, this replica does not.
            _ if op < window => Held::Damaged,
            _ => Held::Missing,
        });
        assert!(self.commit_max <= self.head().op, "a view's log holds all that is committed");
        // What this replica knew to be committed is in the new log; of the rest only what the new log names.
        let (log, committed) = (&self.log, self.commit_max);
        self.cache.retain(|op, prepare| *op <= committed || log.names(*op, &prepare.header.checksum));
        self.repair.adopted(committed);
        self.log_view = view;
        self.adopted = headers;
        self.status = Status::Normal;
        self.commit_max = self.commit_max.max(commit.min(self.head().op)).max(self.head().commit);
        cx.out.push(Output::Committed(self.commit_max));
        self.dvcs.clear();
        self.durable_at = cx.now.monotonic;
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
        kimberlite_probe::sometimes!(
            "view_change.adopts_and_lacks",
            self.log.all().any(|slot| slot.held.is_lacking())
        );
        self.lack_what_is_lacking(cx);
        self.execute(cx);
    }

    /// Leads the view: what is not committed is proposed again, unchanged.
    pub(crate) fn begin_view(&mut self, cx: &mut Cx<'_>) {
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
        kimberlite_probe::sometimes!("view_change.inherits", !self.pipeline.is_empty());
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
        nonce: u64,
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
        // A replica that took part in this view before it lost its head may have acknowledged more than an
        // old `StartView` names: only one that it asked for in this life tells it where the log stands.
        let stale = view == self.log_view && nonce != self.view_nonce;
        if stale && !mutant!(StartViewNonceIgnored) {
            kimberlite_probe::reachable!("view_change.old_start_view");
            return;
        }
        let head = headers.last().expect("decoded with at least one header").op;
        let denies = |header: &PrepareHeader| {
            header.op <= self.commit_max
                && self.log.get(header.op).is_some_and(|slot| slot.header.checksum != header.checksum)
        };
        if head < self.commit_max || headers.iter().any(denies) || !self.are_sane(headers.iter(), view) {
            cx.note(Note::Misbehaved { from, what: Misbehavior::WrongCommit });
            return;
        }
        if view > self.view {
            self.leave_for(view, cx);
        }
        kimberlite_probe::sometimes!("view_change.finds_back", view == self.log_view);
        self.expect_primary(cx);
        self.adopt(headers, commit, cx);
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
        let nonce = self.view_nonce;
        kimberlite_probe::reachable!("view_change.hears_later_primary");
        self.send(self.config.primary(view), Message::RequestStartView { nonce }, cx);
    }

    /// Asks everybody which view it is.
    pub(crate) fn ask_for_view(&mut self, cx: &mut Cx<'_>) {
        if !self.is_adopting() {
            self.broadcast(Message::RequestStartView { nonce: self.view_nonce }, cx);
        }
    }

    pub(crate) fn on_request_start_view(&mut self, from: ReplicaId, view: View, nonce: u64, cx: &mut Cx<'_>) {
        if self.is_primary() && view <= self.view {
            kimberlite_probe::reachable!("view_change.tells_view");
            self.say_start_view(from, nonce, cx);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kimberlite_io::{Address, Conn, Frame, Net, Packet};
    use kimberlite_types::{
        ClusterId, Config, Layout, Now, RequestNumber, SessionId, TenantId, Timing, View, WallTime,
    };
    use kimberlite_wire::message::{Letter, Mark};
    use kimberlite_wire::{LinkKeys, NewEntry, NewPrepare, Prepare};

    use crate::replica::{Input, Recovered};

    pub(crate) const SECRET: [u8; 32] = [7; 32];

    struct Deaf;

    impl Net for Deaf {
        fn send(&mut self, _: ReplicaId, _: Packet) {}
        fn connect(&mut self, _: Conn, _: Address) {}
        fn stream(&mut self, _: Conn, _: Frame) {}
        fn grant(&mut self, _: Conn, _: u32) {}
        fn close(&mut self, _: Conn) {}
    }

    pub(crate) fn config() -> Config {
        Config {
            cluster: ClusterId(1),
            replica: ReplicaId(2),
            replicas: 3,
            layout: Layout::SMALL,
            timing: Timing::PRODUCTION,
            pipeline_max: 8,
            sessions_max: 4,
        }
    }

    /// The headers of a log of `count` ops of view 0, each proposed when the op three before it was committed.
    pub(crate) fn log(count: u64) -> Vec<PrepareHeader> {
        let mut headers = vec![PrepareHeader::root(ClusterId(1))];
        for op in 1..=count {
            let parent = *headers.last().unwrap();
            let new = NewPrepare {
                parent: &parent,
                view: View(0),
                commit: Op(op.saturating_sub(3)),
                timestamp: WallTime(op),
                layout: &Layout::SMALL,
                proposer: ReplicaId(0),
            };
            let entry = NewEntry {
                session: SessionId::NONE,
                request: RequestNumber(0),
                tenant: TenantId(0),
                command: b"x",
            };
            headers.push(Prepare::build(&new, &[entry]).header);
        }
        headers
    }

    #[test]
    fn what_a_view_knows_to_be_committed_is_durable_with_its_log() {
        let headers = log(12);
        let mut replica = Replica::new(config(), &SECRET, 1);
        let mut out = Vec::new();
        let recovered = Recovered {
            view: View(0),
            log_view: View(0),
            adopted: headers[..1].to_vec(),
            headers: headers[..6].iter().map(|header| (*header, Mark::Present)).collect(),
            commit: Op(3),
            doubt_until: Op(5),
            gap: None,
            below_gap: Vec::new(),
            executed: (Op::ZERO, headers[0].checksum),
        };
        replica.on(Now::default(), Input::Open(recovered), &mut Deaf, &mut out);
        // Ops 10 and 11 are committed and lost with their headers by those who chose the log: op 12 alone is its end,
        // and proves no more than op 9.
        let message = Message::StartView { nonce: 0, headers: headers[12..].to_vec() };
        let letter = Letter { from: ReplicaId(1), view: View(1), commit: Op(11), message };
        let packet = letter.seal(ClusterId(1), &LinkKeys::derive(&SECRET, ReplicaId(1)), ReplicaId(2));
        out.clear();
        replica.on(Now::default(), Input::Message { from: ReplicaId(1), packet }, &mut Deaf, &mut out);
        let durable = out.iter().find_map(|output| match output {
            Output::PersistView(state) => Some((state.log_view, state.commit)),
            _ => None,
        });
        assert_eq!(durable, Some((View(1), Op(11))));
    }
}
