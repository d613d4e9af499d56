//! Repair: what this replica lacks it fetches from peers; what peers lack it serves; and a replica that is
//! far behind catches up on what is committed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use kimberlite_crypto::Checksum;
use kimberlite_types::limits::{HEADER_WINDOW, PIPELINE_MAX};
use kimberlite_types::{Instant, Op, ReplicaId, View};
use kimberlite_wire::{Message, Prepare};

use crate::log::Held;
use crate::replica::{Cx, Lost, Misbehavior, Note, Output, Replica};

/// Prepares asked for at once, and served for one ask: 16 x 1 MiB fill a link for tens of milliseconds.
const ASK_MAX: u32 = 16;
/// Reads from the journal that run for peers at once.
const SERVING_MAX: usize = 64;
/// Ops that are wanted from peers at once: a window of the log and a pipeline of execution.
const WANTED_MAX: usize = HEADER_WINDOW + PIPELINE_MAX;
/// Reads from the journal that run for execution at once.
const FETCHING_MAX: usize = PIPELINE_MAX;
/// Prepares that arrived before their parents and wait for them.
const AHEAD_MAX: usize = 2 * PIPELINE_MAX;

/// A prepare wanted from peers.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    checksum: Option<Checksum>,
    tries: u32,
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
    serving: BTreeMap<(Op, Option<Checksum>), Vec<ReplicaId>>,
    gap: Option<Asked>,
    catch_up: Option<Asked>,
    catch_up_tries: u32,
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
        self.catch_up = None;
        self.ahead.clear();
    }

    /// A log was adopted: what the old one lacked no longer matters; the new one's needs are told anew.
    pub(crate) fn adopted(&mut self) {
        self.leave_view();
        self.wanted.clear();
    }
}

impl Replica {
    /// Ops that this replica wants from peers: damaged or missing here.
    pub fn wanted(&self) -> impl Iterator<Item = Op> {
        self.repair.wanted.keys().copied()
    }

    /// Whether this replica is fetching what was committed without it.
    pub fn is_catching_up(&self) -> bool {
        self.adoption.as_ref().is_some_and(|adoption| !adoption.persisting)
    }

    /// Wants every op of the window that is lacking and not executed.
    pub(crate) fn lack_what_is_lacking(&mut self, cx: &mut Cx<'_>) {
        let lacking: Vec<(Op, Checksum)> = self
            .log
            .after(self.commit_min)
            .filter(|slot| slot.held.is_lacking())
            .map(|slot| (slot.header.op, slot.header.checksum))
            .collect();
        for (op, checksum) in lacking {
            self.lack(op, Some(checksum), cx);
        }
    }

    fn lack(&mut self, op: Op, checksum: Option<Checksum>, cx: &mut Cx<'_>) {
        if self.is_solo() || self.repair.wanted.len() >= WANTED_MAX {
            return;
        }
        let first = self.rng.next_u64() as u32;
        if self.repair.wanted.contains_key(&op) {
            return;
        }
        self.repair.wanted.insert(op, Wanted { checksum, tries: first });
        self.ask_wanted(op, cx);
        self.arm_repair(cx);
    }

    fn ask_wanted(&mut self, op: Op, cx: &mut Cx<'_>) {
        let Some(wanted) = self.repair.wanted.get_mut(&op) else { return };
        wanted.tries = wanted.tries.wrapping_add(1);
        let Wanted { checksum, tries } = *wanted;
        let peer = self.peer_in_turn(tries);
        self.send(peer, Message::RequestPrepare { op, count: 1, checksum }, cx);
    }

    /// Every other replica in turn, so that a dead one delays a repair but never prevents it.
    fn peer_in_turn(&self, tries: u32) -> ReplicaId {
        let others = u32::from(self.config.replicas) - 1;
        self.config.others().nth((tries % others) as usize).expect("a cluster of several has others")
    }

    fn arm_repair(&mut self, cx: &Cx<'_>) {
        if self.repair.due.is_none() {
            self.repair.due = Some(cx.now.monotonic.after(self.config.timing.resend));
        }
    }

    pub(crate) fn on_repair_due(&mut self, cx: &mut Cx<'_>) {
        if self.repair.due.is_none_or(|at| at > cx.now.monotonic) {
            return;
        }
        self.repair.due = None;
        let wanted: Vec<Op> = self.repair.wanted.keys().copied().collect();
        for op in &wanted {
            self.ask_wanted(*op, cx);
        }
        if self.is_catching_up() {
            self.try_adopt(cx);
        }
        if !wanted.is_empty() || self.is_catching_up() {
            self.arm_repair(cx);
        }
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
        if self.is_adopting() {
            // The journal is about to switch logs; what is lacking then is asked for then.
            return false;
        }
        if let Some(wanted) = self.repair.wanted.get(&op) {
            let right = match wanted.checksum {
                Some(checksum) => checksum == prepare.header.checksum,
                None => commit >= op && op <= self.commit_max,
            };
            if right {
                self.repair.wanted.remove(&op);
                self.mend(from, prepare.clone(), cx);
                return true;
            }
        }
        let vouched = commit >= op;
        if self.is_catching_up() && vouched && op == self.commit_max.next() {
            self.catch_up(from, prepare, cx);
            return true;
        }
        false
    }

    /// Puts a prepare that the log names, and the disk lacks, in its place.
    fn mend(&mut self, from: ReplicaId, prepare: Prepare, cx: &mut Cx<'_>) {
        let (op, checksum) = (prepare.header.op, prepare.header.checksum);
        if self.log.get(op).is_some() && !self.log.names(op, &checksum) {
            return;
        }
        self.log.set_held(op, &checksum, Held::Writing);
        cx.note(Note::Repaired { op, from });
        self.remember(prepare.clone());
        cx.out.push(Output::Append(prepare));
        self.execute(cx);
    }

    /// Takes the next committed op of a log that this replica was cut off from.
    fn catch_up(&mut self, from: ReplicaId, prepare: &Prepare, cx: &mut Cx<'_>) {
        let header = prepare.header;
        let base = self.log.get(self.commit_max).expect("what is committed last stands in the window").header;
        if header.parent != base.checksum {
            cx.note(Note::Misbehaved { from, what: Misbehavior::WrongCommit });
            return;
        }
        if self.log.names(header.op, &header.checksum) {
            if self.log.get(header.op).is_some_and(|slot| slot.held.is_lacking()) {
                self.log.set_held(header.op, &header.checksum, Held::Writing);
                cx.out.push(Output::Append(prepare.clone()));
            }
        } else {
            let expected = base.next_place(header.size, &self.config.layout);
            if (header.place, header.index) != expected || prepare.verify_chain(&base.chain).is_err() {
                cx.note(Note::Misbehaved { from, what: Misbehavior::BrokenChain });
                return;
            }
            self.log.cut_after(self.commit_max);
            self.repair.wanted.retain(|op, _| *op <= base.op);
            self.log.push(header, Held::Writing);
            cx.out.push(Output::Append(prepare.clone()));
        }
        self.remember(prepare.clone());
        self.commit_max = header.op;
        cx.out.push(Output::Committed(self.commit_max));
        self.expect_primary(cx);
        self.execute(cx);
        if self.repair.catch_up.is_some_and(|asked| header.op >= asked.until) {
            self.repair.catch_up = None;
        }
        self.try_adopt(cx);
    }

    /// Asks for the next committed ops, unless they were asked for just now.
    pub(crate) fn ask_catch_up(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.monotonic;
        let pending =
            self.repair.catch_up.is_some_and(|asked| now.since(asked.at) < self.config.timing.resend);
        if !pending {
            // The primary first; then, should it not answer, everybody in turn.
            let primary = self.config.primary(self.view);
            let tries = self.repair.catch_up_tries;
            self.repair.catch_up_tries = tries.wrapping_add(1);
            let to = if primary != self.config.replica && tries.is_multiple_of(2) {
                primary
            } else {
                self.peer_in_turn(tries / 2)
            };
            let op = self.commit_max.next();
            self.repair.catch_up = Some(Asked { until: Op(self.commit_max.0 + u64::from(ASK_MAX)), at: now });
            self.send(to, Message::RequestPrepare { op, count: ASK_MAX, checksum: None }, cx);
        }
        self.arm_repair(cx);
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
            if op == Op::ZERO || op > self.head().op {
                break;
            }
            let may_tell = checksum.is_some() || op <= self.commit_max || ours;
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
                self.send(to, Message::Prepare(prepare.clone()), cx);
                return;
            }
            if held != Held::Durable {
                return;
            }
        }
        if self.repair.serving.len() >= SERVING_MAX {
            return;
        }
        let receivers = self.repair.serving.entry((op, checksum)).or_default();
        if receivers.contains(&to) {
            return;
        }
        receivers.push(to);
        if receivers.len() == 1 {
            cx.out.push(Output::Fetch { op, checksum });
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
            if known || self.repair.fetching.contains(&op) || self.repair.wanted.contains_key(&op) {
                continue;
            }
            match slot {
                Some(slot) if slot.held.is_lacking() => self.lack(op, Some(slot.header.checksum), cx),
                Some(slot) if slot.held == Held::Writing => {}
                _ => {
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
        let receivers = self.repair.serving.remove(&(op, asked)).unwrap_or_default();
        let for_execution = self.repair.fetching.remove(&op);
        match result {
            Ok(prepare) => {
                let current = self.log.get(op).is_none_or(|_| self.log.names(op, &prepare.header.checksum));
                if !current {
                    return;
                }
                for to in receivers {
                    self.send(to, Message::Prepare(prepare.clone()), cx);
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
                if let Some(slot) = self.log.get(op).copied() {
                    if known.is_some_and(|known| known != slot.header.checksum) {
                        // The journal answered for a log that has been replaced since.
                        if for_execution {
                            self.execute(cx);
                        }
                        return;
                    }
                    if slot.held == Held::Durable {
                        self.log.set_held(op, &slot.header.checksum, Held::Damaged);
                    }
                    self.lack(op, Some(slot.header.checksum), cx);
                    return;
                }
                if op <= self.commit_max || known.is_some() {
                    self.lack(op, known, cx);
                }
            }
        }
    }
}
