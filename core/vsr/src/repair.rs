//! Repair: what this replica lacks it fetches from peers, and what peers lack it serves.
//!
//! A prepare is taken when it is the one that was wanted, by checksum; or, where the log in between is not known,
//! when its sender vouches for it: a letter whose commit number is not below the op says that the sender's log
//! holds this very prepare as committed. A peer whose own copy is damaged vouches for the checksum alone: this
//! replica's own copy, which it dropped because nothing proved it, may be the last one that is intact.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_probe::mutant;
use kimberlite_types::limits::{HEADER_WINDOW, PIPELINE_MAX};
use kimberlite_types::{Instant, Op, ReplicaId, View};
use kimberlite_wire::{Message, Prepare};

use crate::load::Load;
use crate::log::Held;
use crate::replica::{Cx, Lost, Misbehavior, Note, Output, Replica};

/// Prepares asked for at once, and served for one ask: 16 x 1 MiB fill a link for tens of milliseconds.
const ASK_MAX: u32 = 16;
/// Reads from the journal that run for peers at once.
pub(crate) const SERVING_MAX: usize = 64;
/// Ops that are wanted from peers at once: a window of the log and a pipeline of execution.
pub(crate) const WANTED_MAX: usize = HEADER_WINDOW + PIPELINE_MAX;
/// Reads from the journal that run for execution at once.
pub(crate) const FETCHING_MAX: usize = PIPELINE_MAX;
/// Repairs handed to the journal and not yet durable: as many as new prepares.
pub(crate) const MENDING_MAX: usize = 2 * PIPELINE_MAX;
/// Doublings of the wait between asks for the same prepare: sixteen times at most.
const PATIENCE_DOUBLINGS_MAX: u32 = 4;
/// Asks to peers between two looks into the own journal.
const LOOK_AGAIN_TRIES: u32 = 2;
/// Prepares that arrived before their parents and wait for them.
pub(crate) const AHEAD_MAX: usize = 2 * PIPELINE_MAX;

/// A prepare wanted from peers.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    checksum: Option<Checksum>,
    /// Whom to ask next.
    turn: u32,
    tries: u32,
    again_at: Instant,
}

/// A read from the journal for peers.
#[derive(Debug)]
struct Serving {
    receivers: Vec<ReplicaId>,
    /// Whether the op was committed when it was asked for: then no later log names another.
    committed: bool,
}

/// A range that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    until: Op,
    at: Instant,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    wanted: BTreeMap<Op, Wanted>,
    /// Reads for execution.
    fetching: BTreeSet<Op>,
    /// Reads for peers, and for whom.
    serving: BTreeMap<(Op, Option<Checksum>), Serving>,
    /// Repairs on their way to the disk.
    mending: BTreeSet<Op>,
    gap: Option<Asked>,
    ahead: BTreeMap<Op, Prepare>,
    due: Option<Instant>,
}

impl Repair {
    pub(crate) const fn wake_at(&self) -> Option<Instant> {
        self.due
    }

    /// What belonged to the view that is left.
    pub(crate) fn leave_view(&mut self) {
        self.gap = None;
        self.ahead.clear();
    }

    /// A log was adopted: what the old one lacked behind `committed` no longer matters.
    pub(crate) fn adopted(&mut self, committed: Op) {
        self.leave_view();
        self.wanted.retain(|op, _| *op <= committed);
        self.mending.retain(|op| *op <= committed);
    }

    /// How much is under way.
    pub(crate) fn load(&self) -> Load {
        Load {
            wanted: self.wanted.len(),
            fetching: self.fetching.len(),
            serving: self.serving.len(),
            mending: self.mending.len(),
            ahead: self.ahead.len(),
            ..Load::default()
        }
    }

    /// A prepare is on the disk.
    pub(crate) fn durable(&mut self, op: Op) {
        self.mending.remove(&op);
    }
}

impl Replica {
    /// Whether this replica still executes ops that are older than the headers it has in memory.
    pub fn is_catching_up(&self) -> bool {
        let first = self.log.all().next().map_or(Op::ZERO, |slot| slot.header.op);
        self.commit_min < first.previous()
    }

    /// Ops that this replica wants from peers: damaged or missing here.
    pub fn wanted(&self) -> impl Iterator<Item = Op> {
        self.repair.wanted.keys().copied()
    }

    /// The same, and whether the checksum of each is known.
    pub(crate) fn wanted_by_checksum(&self) -> impl Iterator<Item = (Op, bool)> {
        self.repair.wanted.iter().map(|(op, wanted)| (*op, wanted.checksum.is_some()))
    }

    /// Wants every op of the window that is lacking.
    pub(crate) fn lack_what_is_lacking(&mut self, cx: &mut Cx<'_>) {
        let lacking: Vec<(Op, Checksum)> = self
            .log
            .all()
            .filter(|slot| slot.held.is_lacking())
            .map(|slot| (slot.header.op, slot.header.checksum))
            .collect();
        for (op, checksum) in lacking {
            self.lack(op, Some(checksum), cx);
        }
    }

    fn lack(&mut self, op: Op, checksum: Option<Checksum>, cx: &mut Cx<'_>) {
        if self.is_solo() {
            return;
        }
        if let Some(wanted) = self.repair.wanted.get_mut(&op) {
            wanted.checksum = wanted.checksum.or(checksum);
            return;
        }
        if self.repair.mending.contains(&op) || self.repair.wanted.len() >= WANTED_MAX {
            return;
        }
        let turn = self.rng.next_u64() as u32;
        let again_at = cx.now.monotonic;
        self.repair.wanted.insert(op, Wanted { checksum, turn, tries: 0, again_at });
        self.ask_wanted(op, cx);
    }

    fn ask_wanted(&mut self, op: Op, cx: &mut Cx<'_>) {
        let Some(wanted) = self.repair.wanted.get_mut(&op) else { return };
        let wait = self.config.timing.resend * (1 << wanted.tries.min(PATIENCE_DOUBLINGS_MAX));
        wanted.tries += 1;
        let same = mutant!(RepairAsksSamePeer);
        wanted.turn = wanted.turn.wrapping_add(u32::from(!same));
        wanted.again_at = cx.now.monotonic.after(wait);
        let Wanted { checksum, turn, tries, again_at } = *wanted;
        if tries.is_multiple_of(LOOK_AGAIN_TRIES) {
            kimberlite_probe::reachable!("repair.looks_again");
            // What the journal could not tell before it may tell by now: the op behind it may have come and named it.
            cx.out.push(Output::Fetch { op, checksum });
        }
        self.repair.due = Some(self.repair.due.map_or(again_at, |due| due.min(again_at)));
        let peer = self.peer_in_turn(turn);
        self.send(peer, Message::RequestPrepare { op, count: 1, checksum }, cx);
    }

    /// Every other replica in turn, so that a dead one delays a repair but never prevents it.
    fn peer_in_turn(&self, turn: u32) -> ReplicaId {
        let others = u32::from(self.config.replicas) - 1;
        self.config.others().nth((turn % others) as usize).expect("a cluster of several has others")
    }

    pub(crate) fn on_repair_due(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.monotonic;
        if self.repair.due.is_none_or(|at| at > now) {
            return;
        }
        let wanted = &self.repair.wanted;
        let late: Vec<Op> =
            wanted.iter().filter(|(_, wanted)| wanted.again_at <= now).map(|(op, _)| *op).collect();
        self.repair.due = wanted.values().map(|wanted| wanted.again_at).filter(|at| *at > now).min();
        for op in late {
            self.ask_wanted(op, cx);
        }
        // What found no room before may find it now.
        self.lack_what_is_lacking(cx);
        self.execute(cx);
    }

    /// A repair is on the disk and waits for its slot, which may be a matter of other repairs: it must not keep them out.
    pub(crate) fn on_stored(&mut self, op: Op, cx: &mut Cx<'_>) {
        if !mutant!(RepairBudgetStarves) {
            self.repair.durable(op);
        }
        self.execute(cx);
    }

    /// Takes a prepare that was asked for. Answers whether it was.
    pub(crate) fn take_repair(
        &mut self,
        from: ReplicaId,
        commit: Op,
        prepare: &Prepare,
        cx: &mut Cx<'_>,
    ) -> bool {
        let op = prepare.header.op;
        if self.is_adopting() && !mutant!(MendDuringAdoption) {
            // The journal is about to switch logs; what is lacking then is asked for then.
            return false;
        }
        let Some(wanted) = self.repair.wanted.get(&op) else { return false };
        let right = match wanted.checksum {
            Some(checksum) => checksum == prepare.header.checksum,
            None => commit >= op && op <= self.commit_max,
        } || mutant!(RepairNotVerified);
        if !right || !self.may_mend(op) {
            kimberlite_probe::sometimes!("repair.disk_is_busy", right);
            kimberlite_probe::sometimes!("repair.not_believed", !right);
            return false;
        }
        if !self.fits(&prepare.header) {
            cx.note(Note::Misbehaved { from, what: Misbehavior::BrokenChain });
            return false;
        }
        kimberlite_probe::sometimes!("repair.taken_on_word", self.repair.wanted[&op].checksum.is_none());
        kimberlite_probe::sometimes!("repair.taken_by_checksum", self.repair.wanted[&op].checksum.is_some());
        self.repair.wanted.remove(&op);
        self.mend(from, prepare.clone(), cx);
        true
    }

    /// Whether one more repair may be handed to the journal. Execution, and with it everything else, waits for the next few:
    /// for them some room is kept.
    fn may_mend(&self, op: Op) -> bool {
        let next = op.0 <= self.commit_min.0 + FETCHING_MAX as u64;
        let full = self.repair.mending.len() >= MENDING_MAX;
        let room = if next && !mutant!(RepairBudgetStarves, full) { FETCHING_MAX } else { 0 };
        self.repair.mending.len() < MENDING_MAX + room
    }

    /// Puts a prepare that the log names, and the disk lacks, in its place.
    fn mend(&mut self, from: ReplicaId, prepare: Prepare, cx: &mut Cx<'_>) {
        let (op, checksum) = (prepare.header.op, prepare.header.checksum);
        if self.log.get(op).is_some_and(|slot| slot.header.checksum != checksum || !slot.held.is_lacking()) {
            return;
        }
        self.log.set_held(op, &checksum, Held::Writing);
        self.repair.mending.insert(op);
        self.remember(prepare.clone());
        cx.out.push(Output::Append(prepare));
        cx.note(Note::Repaired { op, from });
        self.execute(cx);
    }

    /// Asks the primary for the ops between our head and `before`.
    pub(crate) fn ask_for_gap(&mut self, before: Op, cx: &mut Cx<'_>) {
        let first = self.head().op.next();
        let now = cx.now.monotonic;
        let pending = self
            .repair
            .gap
            .is_some_and(|asked| first <= asked.until && now.since(asked.at) < self.config.timing.resend);
        if pending || before <= first {
            return;
        }
        let count = u32::try_from(before.0 - first.0).unwrap_or(u32::MAX).min(ASK_MAX);
        kimberlite_probe::reachable!("repair.asks_for_gap");
        self.repair.gap = Some(Asked { until: Op(first.0 + u64::from(count) - 1), at: now });
        let message = Message::RequestPrepare { op: first, count, checksum: None };
        self.send(self.config.primary(self.view), message, cx);
    }

    /// Keeps a prepare that came before its parent.
    pub(crate) fn keep_ahead(&mut self, prepare: Prepare) {
        let op = prepare.header.op;
        if op.0 <= self.head().op.0 + AHEAD_MAX as u64 {
            self.repair.ahead.insert(op, prepare);
        }
        while self.repair.ahead.len() > AHEAD_MAX {
            kimberlite_probe::reachable!("repair.too_far_ahead");
            self.repair.ahead.pop_last();
        }
    }

    /// The prepare that follows the head, if it came early.
    pub(crate) fn take_ahead(&mut self) -> Option<Prepare> {
        let head = self.head().op;
        self.repair.ahead.retain(|op, _| *op > head);
        self.repair.ahead.remove(&head.next())
    }

    pub(crate) fn on_request_prepare(
        &mut self,
        from: ReplicaId,
        view: View,
        op: Op,
        count: u32,
        checksum: Option<Checksum>,
        cx: &mut Cx<'_>,
    ) {
        let ours = self.is_primary() && view == self.view;
        for index in 0..u64::from(count.min(ASK_MAX)) {
            let Some(op) = op.0.checked_add(index).map(Op) else { break };
            assert!(!mutant!(NetworkAssertion, op > self.head().op), "peers ask for ops of our log");
            if op == Op::ZERO || op > self.head().op {
                break;
            }
            let may_tell = checksum.is_some() || op <= self.commit_max || ours;
            kimberlite_probe::sometimes!("repair.may_not_tell", !may_tell);
            if !may_tell {
                break;
            }
            let named = self.log.get(op).map(|slot| slot.header.checksum);
            self.serve(from, op, checksum.or(named), cx);
        }
    }

    /// Sends a prepare of our log to a peer, from memory or from the journal.
    pub(crate) fn serve(&mut self, to: ReplicaId, op: Op, checksum: Option<Checksum>, cx: &mut Cx<'_>) {
        if let Some(slot) = self.log.get(op) {
            if checksum.is_some_and(|checksum| checksum != slot.header.checksum) {
                return;
            }
            let checksum = slot.header.checksum;
            let held = slot.held;
            if let Some(prepare) = self.cached(op, &checksum) {
                kimberlite_probe::reachable!("repair.serves_from_memory");
                self.send(to, Message::Prepare(prepare.clone()), cx);
                return;
            }
            if held != Held::Durable {
                kimberlite_probe::reachable!("repair.has_none_to_serve");
                self.vouch(to, op, checksum, cx);
                return;
            }
        }
        if self.repair.serving.len() >= SERVING_MAX {
            return;
        }
        let committed = op <= self.commit_max;
        let serving = self
            .repair
            .serving
            .entry((op, checksum))
            .or_insert_with(|| Serving { receivers: Vec::new(), committed });
        if serving.receivers.contains(&to) {
            return;
        }
        serving.receivers.push(to);
        if serving.receivers.len() == 1 {
            kimberlite_probe::reachable!("repair.serves_from_journal");
            cx.out.push(Output::Fetch { op, checksum });
        }
    }

    /// Tells a peer what the log names at a committed op that cannot be sent.
    fn vouch(&self, to: ReplicaId, op: Op, checksum: Checksum, cx: &mut Cx<'_>) {
        if op <= self.commit_max {
            kimberlite_probe::reachable!("repair.vouches");
            self.send(to, Message::Vouch { op, checksum }, cx);
        }
    }

    /// Learns which prepare is wanted, and looks for it among what the journal dropped.
    pub(crate) fn on_vouch(&mut self, commit: Op, op: Op, checksum: Checksum, cx: &mut Cx<'_>) {
        if commit < op || op > self.commit_max || self.is_adopting() {
            return;
        }
        if let Some(wanted) = self.repair.wanted.get_mut(&op)
            && wanted.checksum.is_none_or(|known| known == checksum)
        {
            wanted.checksum = Some(checksum);
            kimberlite_probe::reachable!("repair.hears_vouch");
            cx.out.push(Output::Fetch { op, checksum: Some(checksum) });
        }
    }

    /// Starts reading the ops that are executed next.
    pub(crate) fn fetch_ahead(&mut self, cx: &mut Cx<'_>) {
        let last = self.commit_max.0.min(self.commit_min.0 + FETCHING_MAX as u64);
        for op in (self.commit_min.0 + 1..=last).map(Op) {
            let slot = self.log.get(op).copied();
            let known = match &slot {
                Some(slot) => self.cached(op, &slot.header.checksum).is_some(),
                None => self.cache.contains_key(&op),
            };
            let under_way = self.repair.fetching.contains(&op)
                || self.repair.wanted.contains_key(&op)
                || (slot.is_none() && self.repair.mending.contains(&op));
            if known || under_way {
                continue;
            }
            match slot {
                Some(slot) if slot.held.is_lacking() => self.lack(op, Some(slot.header.checksum), cx),
                Some(slot) if slot.held == Held::Writing => {}
                _ => {
                    kimberlite_probe::sometimes!("repair.executes_from_disk", slot.is_none());
                    self.repair.fetching.insert(op);
                    let checksum = slot.map(|slot| slot.header.checksum);
                    cx.out.push(Output::Fetch { op, checksum });
                }
            }
        }
    }

    pub(crate) fn on_fetched(
        &mut self,
        op: Op,
        asked: Option<Checksum>,
        result: Result<Prepare, Lost>,
        cx: &mut Cx<'_>,
    ) {
        let serving = self.repair.serving.remove(&(op, asked));
        let for_execution = self.repair.fetching.remove(&op);
        match result {
            Ok(prepare) => {
                assert!(prepare.header.op == op, "the journal reads the op that was asked for");
                let is_it = asked.is_none_or(|asked| asked == prepare.header.checksum);
                assert!(is_it, "the journal gives the prepare that was asked for, or none");
                let named = self.log.names(op, &prepare.header.checksum);
                if self.log.get(op).is_some() && !named {
                    return;
                }
                if let Some(Serving { receivers, .. }) = serving.filter(|serving| serving.committed || named)
                {
                    // Asked for by its checksum, the journal also gives what it holds in doubt. Whoever knows
                    // that checksum may have it, but nobody may take it for committed on our word.
                    let vouched = asked.is_none() || named || mutant!(DoubtVouchedFor);
                    kimberlite_probe::sometimes!("repair.serves_in_doubt", !vouched);
                    let commit = if vouched { self.commit_max } else { op.previous().min(self.commit_max) };
                    for to in receivers {
                        self.send_as_of(commit, to, Message::Prepare(prepare.clone()), cx);
                    }
                }
                // Asked for without a checksum, the journal answers only with what its own log names.
                let checksum = prepare.header.checksum;
                let found = self.repair.wanted.get(&op).is_some_and(|wanted| match wanted.checksum {
                    Some(wanted) => wanted == checksum,
                    None => asked.is_none() && op <= self.commit_max,
                });
                if found && !self.is_adopting() {
                    kimberlite_probe::reachable!("repair.finds_at_home");
                    // Without room it stays wanted, and is looked for again.
                    if self.may_mend(op) {
                        self.repair.wanted.remove(&op);
                        self.mend(self.config.replica, prepare, cx);
                    }
                    return;
                }
                if for_execution && op > self.commit_min {
                    self.remember(prepare);
                    self.execute(cx);
                }
            }
            Err(lost) => {
                let known = match lost {
                    Lost::Missing => asked,
                    Lost::Damaged { checksum } => checksum.or(asked),
                };
                // Only what the journal names by itself is vouched for, not what a peer asked about.
                if let (Some(Serving { receivers, committed: true }), Lost::Damaged { checksum: Some(own) }) =
                    (serving, lost)
                    && (asked.is_none() || mutant!(VouchForAsked))
                {
                    for to in receivers {
                        self.vouch(to, op, own, cx);
                    }
                }
                if let Some(slot) = self.log.get(op).copied() {
                    if known.is_some_and(|known| known != slot.header.checksum) {
                        kimberlite_probe::reachable!("repair.journal_answers_late");
                        // The journal answered for a log that has been replaced since.
                        if for_execution {
                            self.execute(cx);
                        }
                        return;
                    }
                    if slot.held == Held::Durable {
                        kimberlite_probe::reachable!("repair.finds_damage");
                        self.log.set_held(op, &slot.header.checksum, Held::Damaged);
                    }
                    if slot.held != Held::Writing {
                        self.lack(op, Some(slot.header.checksum), cx);
                    }
                    return;
                }
                kimberlite_probe::reachable!("repair.lost_old_op");
                // Asked for by its checksum, it may have been a peer that asked, for what no log names any more.
                if (asked.is_none() || mutant!(VouchForAsked)) && op <= self.commit_max {
                    self.lack(op, known, cx);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kimberlite_io::{Address, Conn, Frame, Net, Packet};
    use kimberlite_types::{ClusterId, Now};
    use kimberlite_wire::message::{Letter, Mark};
    use kimberlite_wire::{FrameCommand, FrameHeader, LinkKeys};

    use crate::replica::{Input, Recovered};
    use crate::view_change::tests::{SECRET, config, log};

    /// Counts what is vouched for.
    #[derive(Default)]
    struct Vouches(usize);

    impl Net for Vouches {
        fn send(&mut self, _: ReplicaId, packet: Packet) {
            let command = FrameHeader::decode(&packet.head).expect("a frame of ours").command;
            self.0 += usize::from(command == FrameCommand::Vouch);
        }
        fn connect(&mut self, _: Conn, _: Address) {}
        fn stream(&mut self, _: Conn, _: Frame) {}
        fn grant(&mut self, _: Conn, _: u32) {}
        fn close(&mut self, _: Conn) {}
    }

    /// A peer asks for op 3, and the journal says that the copy is damaged of the prepare with checksum `damaged`. Answers
    /// how often this replica vouched, and what it wants.
    fn asked_for_damaged(asked: Option<Checksum>, damaged: Checksum) -> (usize, Vec<Op>) {
        let headers = log(12);
        let mut replica = Replica::new(config(), &SECRET, 1);
        let (mut net, mut out) = (Vouches::default(), Vec::new());
        let recovered = Recovered {
            view: View(0),
            log_view: View(0),
            adopted: headers[10..].to_vec(),
            headers: headers[10..].iter().map(|header| (*header, Mark::Present)).collect(),
            commit: Op(12),
            doubt_until: Op(12),
            gap: None,
            below_gap: Vec::new(),
            executed: (Op::ZERO, headers[0].checksum),
        };
        replica.on(Now::default(), Input::Open(recovered), &mut net, &mut out);
        let message = Message::RequestPrepare { op: Op(3), count: 1, checksum: asked };
        let letter = Letter { from: ReplicaId(1), view: View(0), commit: Op(12), message };
        let packet = letter.seal(ClusterId(1), &LinkKeys::derive(&SECRET, ReplicaId(1)), ReplicaId(2));
        out.clear();
        replica.on(Now::default(), Input::Message { from: ReplicaId(1), packet }, &mut net, &mut out);
        let reads =
            |output: &Output| matches!(output, Output::Fetch { op: Op(3), checksum } if *checksum == asked);
        assert!(out.iter().any(reads), "the journal is asked");
        let result = Err(Lost::Damaged { checksum: Some(damaged) });
        replica.on(Now::default(), Input::Fetched { op: Op(3), checksum: asked, result }, &mut net, &mut out);
        (net.0, replica.wanted().filter(|op| *op == Op(3)).collect())
    }

    #[test]
    fn what_the_journal_names_by_itself_is_vouched_for_and_wanted() {
        assert_eq!(asked_for_damaged(None, log(3)[3].checksum), (1, vec![Op(3)]));
    }

    #[test]
    fn what_only_a_peer_names_is_neither_vouched_for_nor_wanted() {
        let stale = log(4)[4].checksum;
        assert_eq!(asked_for_damaged(Some(stale), stale), (0, vec![]));
    }
}
