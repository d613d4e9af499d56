//! Confirmed reads: a leadership round that starts after the read arrived, acknowledged in the same view
//! by a quorum that meets every view-change quorum, with inherited ops executed first. One round
//! serves all reads that wait.

use alloc::collections::VecDeque;

use kimberlite_probe::mutant;
use kimberlite_types::{Op, ReplicaId};

use crate::replica::{Cx, Output, Replica};

/// Reads waiting for confirmation: one for each request that may wait.
pub(crate) const READS_MAX: usize = crate::replica::WAITING_MAX;

/// Rounds and the reads that wait for them. Round numbers only grow within one life of a primary, and a
/// restarted primary never resumes its view, so an old acknowledgement never counts for a newer round.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The newest round that was started.
    round: u64,
    /// Who acknowledged it, one bit each.
    acks: u8,
    /// The newest round that a quorum acknowledged.
    confirmed: u64,
    /// Each read, and the round it needs.
    waiting: VecDeque<(u64, u64)>,
    /// What was known to be committed when the confirmed round started.
    floor: Op,
    /// What was known to be committed when the newest round started.
    floor_next: Op,
}

impl Reads {
    pub(crate) const fn round(&self) -> u64 {
        self.round
    }

    /// Reads that wait.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.waiting.len()
    }

    /// Reads that wait for a round that is under way, and who acknowledged it, one bit each.
    pub(crate) fn open_round(&self) -> Option<(usize, u8)> {
        (self.confirmed < self.round).then_some((self.waiting.len(), self.acks))
    }

    /// Forgets waiting reads and makes every earlier acknowledgement worthless.
    pub(crate) fn reset(&mut self) {
        self.waiting.clear();
        self.round += 1;
        self.confirmed = self.round;
        self.acks = 0;
    }
}

impl Replica {
    pub(crate) fn on_confirm_read(&mut self, ticket: u64, cx: &mut Cx<'_>) {
        assert!(self.is_primary(), "the runtime sends others' clients to the primary");
        if self.reads.waiting.len() >= READS_MAX {
            kimberlite_probe::reachable!("reads.refused");
            cx.out.push(Output::ReadRefused { ticket });
            return;
        }
        let idle = self.reads.confirmed == self.reads.round;
        self.reads.waiting.push_back((ticket, self.reads.round + 1));
        if idle {
            self.start_round(cx);
        }
    }

    fn start_round(&mut self, cx: &mut Cx<'_>) {
        self.reads.round += 1;
        self.reads.acks = 1 << self.config.replica.0;
        self.reads.floor_next = self.commit_max.max(self.inherited);
        if !self.is_solo() && self.attempts == 0 {
            self.say_commit(cx);
        }
        self.finish_round(cx);
    }

    pub(crate) fn on_round_ok(&mut self, from: ReplicaId, round: u64, cx: &mut Cx<'_>) {
        let counts = round == self.reads.round || mutant!(ReadOlderRound, round < self.reads.round);
        if counts && self.reads.confirmed < self.reads.round {
            self.reads.acks |= 1 << from.0;
            self.finish_round(cx);
        }
    }

    fn finish_round(&mut self, cx: &mut Cx<'_>) {
        let confirmed = self.reads.acks.count_ones() >= u32::from(self.quorums.read);
        if !confirmed && !mutant!(ReadUnconfirmed) {
            kimberlite_probe::reachable!("reads.round_waits");
            return;
        }
        self.reads.confirmed = self.reads.round;
        self.reads.floor = self.reads.floor_next;
        kimberlite_probe::sometimes!(
            "reads.share_round",
            self.reads.waiting.iter().filter(|(_, needs)| *needs <= self.reads.confirmed).count() > 1
        );
        self.confirm_reads(cx);
        if self.reads.waiting.back().is_some_and(|(_, needs)| *needs > self.reads.round) {
            self.start_round(cx);
        }
    }

    /// Answers the reads whose round is confirmed, once everything committed before it is executed.
    pub(crate) fn confirm_reads(&mut self, cx: &mut Cx<'_>) {
        kimberlite_probe::sometimes!(
            "reads.wait_for_execution",
            self.is_primary() && self.commit_min < self.reads.floor && !self.reads.waiting.is_empty()
        );
        let behind = self.commit_min < self.reads.floor;
        if !self.is_primary() || (behind && !mutant!(ReadBeforeInherited)) {
            return;
        }
        while let Some((ticket, needs)) = self.reads.waiting.front().copied() {
            if needs > self.reads.confirmed {
                break;
            }
            self.reads.waiting.pop_front();
            kimberlite_probe::always!("reads.see_inherited", self.commit_min >= self.inherited);
            cx.out.push(Output::ReadConfirmed { ticket });
        }
    }
}
