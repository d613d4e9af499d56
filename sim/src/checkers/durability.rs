//! Nothing is acknowledged before enough replicas hold it, and what was acknowledged is never lost.

use std::collections::BTreeMap;

use kimberlite_crypto::{Checksum, Checksummer};
use kimberlite_runtime::Note;
use kimberlite_types::{Config, Instant, LogPosition, Op, ReplicaId, TenantId, View};
use kimberlite_vsr::Status;
use kimberlite_wire::message::Mark;

use super::{Lives, hold};
use crate::{Checker, End, Observation, Sample, Violation};

const NAME: &str = "durability";
const LOGGED: &str = "an acknowledged command stands in the committed log where its verdict says";
const QUORUM: &str = "an op is executed once a replication quorum holds it durably";
const ACKNOWLEDGED: &str = "a command is acknowledged once a replication quorum holds it durably";
const ASKED: &str = "only what was submitted is acknowledged";
const IN_VIEW: &str = "the primary of the newest view has every acknowledged op in its log";
const KEPT: &str = "every healed replica has every acknowledged op";

/// A command and its tenant, as a hash.
pub(super) fn content(tenant: TenantId, command: &[u8]) -> Checksum {
    let mut hasher = Checksummer::new();
    hasher.update(&tenant.0.to_le_bytes());
    hasher.update(command);
    hasher.finish()
}

/// Remembers who holds what, what is committed, and what clients were promised.
pub struct Durability {
    config: Config,
    lives: Lives,
    /// The replicas that said they hold a prepare, or found it on their disk when they opened it (though they
    /// may have died before they could say so), as bits.
    holders: BTreeMap<(Op, Checksum), u8>,
    /// The prepares that were executed.
    canonical: BTreeMap<Op, Checksum>,
    /// The committed commands.
    log: BTreeMap<LogPosition, Checksum>,
    executed: Op,
    /// Commands under way.
    submitted: BTreeMap<(u16, u64), Checksum>,
    /// The acknowledged op that stands last.
    acknowledged: Op,
    /// The newest view that some replica works in.
    newest: View,
    compared: u64,
}

/// A primary, and what its journal names at the op that was acknowledged last, if it names any there.
struct Leading {
    replica: ReplicaId,
    view: View,
    head: Op,
    names: Option<Checksum>,
}

impl Durability {
    /// Nothing is held.
    pub fn new(config: &Config) -> Self {
        Self {
            config: *config,
            lives: Lives::default(),
            holders: BTreeMap::new(),
            canonical: BTreeMap::new(),
            log: BTreeMap::new(),
            executed: Op::ZERO,
            submitted: BTreeMap::new(),
            acknowledged: Op::ZERO,
            newest: View::ZERO,
            compared: 0,
        }
    }

    /// How many replicas hold a prepare, and whether they are enough.
    fn held(&self, op: Op, checksum: Checksum) -> (u32, bool) {
        let count = self.holders.get(&(op, checksum)).copied().unwrap_or(0).count_ones();
        (count, count >= u32::from(self.config.quorums().replication))
    }

    fn hold(&mut self, replica: ReplicaId, op: Op, checksum: Checksum) {
        *self.holders.entry((op, checksum)).or_default() |= 1 << replica.0;
    }

    fn on_note(&mut self, replica: ReplicaId, note: &Note) -> Result<(), Violation> {
        match note {
            Note::Opened { tail, .. } => {
                for (header, _) in tail.iter().filter(|(_, mark)| *mark == Mark::Present) {
                    self.hold(replica, header.op, header.checksum);
                }
            }
            Note::Durable { op, checksum } => self.hold(replica, *op, *checksum),
            Note::Consensus(kimberlite_vsr::Note::View { view, status: Status::Normal, .. }) => {
                self.newest = self.newest.max(*view);
            }
            Note::Committed { prepare, .. } if prepare.header.op > self.executed => {
                let op = prepare.header.op;
                self.canonical.insert(op, prepare.header.checksum);
                let (count, enough) = self.held(op, prepare.header.checksum);
                hold!(enough, QUORUM, replica, op, "{replica:?} executes op {op}, which {count} hold");
                for entry in prepare.entries().flatten() {
                    let content = content(entry.header.tenant, entry.command);
                    self.log.insert(entry.header.position, content);
                }
                self.executed = op;
                self.compared += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// A primary of an older view may not know yet that it was deposed; that of the newest has everything.
    fn check_primary(&mut self, primary: &Leading) -> Result<(), Violation> {
        let Leading { replica, view, head, names } = *primary;
        let op = self.acknowledged;
        if view < self.newest || op == Op::ZERO {
            return Ok(());
        }
        self.compared += 1;
        let due = self.canonical.get(&op).copied();
        hold!(
            head >= op && (names.is_none() || names == due),
            IN_VIEW,
            replica,
            op,
            "{replica:?} leads {view:?} up to op {head}; it names {names:?} at op {op}, acknowledged is {due:?}"
        );
        Ok(())
    }
}

impl Checker for Durability {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[LOGGED, QUORUM, ACKNOWLEDGED, ASKED, IN_VIEW, KEPT]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        self.lives.observe(seen);
        match seen {
            Observation::Note { replica, note } => self.on_note(*replica, note)?,
            Observation::Submitted { client, ticket, tenant, command } => {
                self.submitted.insert((*client, *ticket), content(*tenant, command));
            }
            Observation::Done { client, ticket, verdict } => {
                let at = verdict.position;
                let asked = self.submitted.remove(&(*client, *ticket));
                hold!(
                    asked.is_some(),
                    ASKED,
                    None,
                    at.op,
                    "client {client} hears a verdict on {ticket}, which it did not submit or heard of before"
                );
                let executed = self.canonical.get(&at.op).copied().unwrap_or(Checksum::ZERO);
                let (count, enough) = self.held(at.op, executed);
                hold!(
                    enough,
                    ACKNOWLEDGED,
                    None,
                    at.op,
                    "client {client} hears a verdict on {ticket} of op {}, which {count} hold",
                    at.op
                );
                hold!(
                    asked.as_ref() == self.log.get(&at),
                    LOGGED,
                    None,
                    at.op,
                    "client {client} hears that its command {ticket} stands at {at}, where there is {}",
                    if self.log.contains_key(&at) { "another" } else { "none" }
                );
                self.acknowledged = self.acknowledged.max(at.op);
                self.compared += 1;
            }
            Observation::Failed { client, ticket } => {
                self.submitted.remove(&(*client, *ticket));
            }
            _ => {}
        }
        Ok(())
    }

    fn sample(&mut self, _at: Instant, sample: &Sample<'_>) -> Result<(), Violation> {
        for (replica, node) in (0..).map(ReplicaId).zip(&sample.nodes) {
            let Some(node) = node.filter(|node| node.replica().is_primary()) else { continue };
            let names = node.storage().header(self.acknowledged).map(|header| header.checksum);
            let (view, head) = (node.replica().view(), node.replica().op());
            self.check_primary(&Leading { replica, view, head, names })?;
        }
        Ok(())
    }

    fn finish(&mut self, end: &End<'_>) -> Result<(), Violation> {
        for replica in &end.core {
            let executed = self.lives.executed(*replica);
            self.compared += 1;
            hold!(
                executed >= self.acknowledged,
                KEPT,
                *replica,
                self.acknowledged,
                "{replica:?} ends at op {executed}; op {} was acknowledged",
                self.acknowledged
            );
        }
        Ok(())
    }

    fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;

    fn fresh(history: &History) -> Durability {
        let mut checker = Durability::new(&history.config);
        submit_all(&mut checker, history).unwrap();
        checker
    }

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Durability::new(&config(3)))
    }

    #[test]
    fn what_is_held_executed_acknowledged_and_kept_passes() {
        let history = History::small(3);
        let mut checker = fresh(&history);
        history.play(&mut checker).unwrap();
        for (op, entry) in [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0)] {
            done(&mut checker, op, entry, history.verdict(op, entry)).unwrap();
        }
        finish_on(&mut checker, &history, |_| {}).unwrap();
        assert_eq!(checker.compared(), history.ops() + 5 + 3);
    }

    #[test]
    fn an_op_that_too_few_hold_is_neither_executed_nor_acknowledged() {
        let history = History::small(3);
        let held = history.durable(1);
        let mut checker = fresh(&history);
        noted(&mut checker, 0, &held).unwrap();
        noted(&mut checker, 0, &held).unwrap();
        assert_broken(&rules(), commit(&mut checker, 0, &history, 1), QUORUM);
        noted(&mut checker, 2, &held).unwrap();
        commit(&mut checker, 0, &history, 1).unwrap();

        noted(&mut checker, 0, &history.durable(2)).unwrap();
        assert_broken(&rules(), done(&mut checker, 2, 0, history.verdict(2, 0)), ACKNOWLEDGED);
    }

    #[test]
    fn what_a_restart_finds_on_disk_is_held() {
        let history = History::small(3);
        let mut checker = fresh(&history);
        noted(&mut checker, 0, &history.durable(1)).unwrap();
        let opened = |mark| Note::Opened {
            view: View(0),
            log_view: View(0),
            tail: vec![(history.prepare(1).header, mark)],
            commit: Op(0),
            head_certain: true,
            doubt_until: Op(0),
        };
        noted(&mut checker, 1, &opened(Mark::Unknown)).unwrap();
        assert_broken(&rules(), commit(&mut checker, 0, &history, 1), QUORUM);
        let opened = opened(Mark::Present);
        noted(&mut checker, 1, &opened).unwrap();
        commit(&mut checker, 0, &history, 1).unwrap();
        noted(&mut checker, 0, &history.durable(2)).unwrap();
        assert_broken(&rules(), commit(&mut checker, 0, &history, 2), QUORUM);
    }

    #[test]
    fn a_verdict_from_nowhere_or_on_another_command_is_noticed() {
        let history = History::small(3);
        let mut checker = fresh(&history);
        history.play(&mut checker).unwrap();
        assert_broken(&rules(), done(&mut checker, 3, 0, history.verdict(3, 1)), LOGGED);
        let mut nowhere = history.verdict(3, 1);
        nowhere.position.index = 9;
        assert_broken(&rules(), done(&mut checker, 3, 1, nowhere), LOGGED);
        done(&mut checker, 4, 0, history.verdict(4, 0)).unwrap();
        assert_broken(&rules(), done(&mut checker, 4, 0, history.verdict(4, 0)), ASKED);
    }

    #[test]
    fn a_new_primary_without_an_acknowledged_op_is_noticed_and_an_old_one_may_lack_it() {
        let history = History::small(3);
        let mut checker = fresh(&history);
        history.play(&mut checker).unwrap();
        done(&mut checker, 3, 0, history.verdict(3, 0)).unwrap();
        let works = Note::Consensus(kimberlite_vsr::Note::View {
            view: View(4),
            log_view: View(4),
            status: Status::Normal,
            primary: ReplicaId(1),
        });
        noted(&mut checker, 1, &works).unwrap();
        let named = Some(history.header(3).checksum);
        let leading =
            |view, head, names| Leading { replica: ReplicaId(1), view: View(view), head: Op(head), names };
        let before = checker.compared();
        checker.check_primary(&leading(3, 2, None)).unwrap();
        assert_eq!(checker.compared(), before);
        checker.check_primary(&leading(4, 3, named)).unwrap();
        checker.check_primary(&leading(4, 9, None)).unwrap();
        assert_eq!(checker.compared(), before + 2);
        assert_broken(&rules(), checker.check_primary(&leading(4, 2, None)), IN_VIEW);
        let other = Some(history.header(2).checksum);
        assert_broken(&rules(), checker.check_primary(&leading(4, 3, other)), IN_VIEW);
    }

    #[test]
    fn a_healed_replica_without_an_acknowledged_op_is_noticed() {
        let history = History::small(3);
        let mut checker = fresh(&history);
        history.play(&mut checker).unwrap();
        done(&mut checker, 3, 0, history.verdict(3, 0)).unwrap();
        started(&mut checker, 1).unwrap();
        for op in 1..=2 {
            commit(&mut checker, 1, &history, op).unwrap();
        }
        assert_broken(&rules(), finish_on(&mut checker, &history, |_| {}), KEPT);
        commit(&mut checker, 1, &history, 3).unwrap();
        finish_on(&mut checker, &history, |_| {}).unwrap();
    }
}
