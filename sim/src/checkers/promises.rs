//! A replica that starts again finds what it said to be durable, or knows that it lost it.
//!
//! An acknowledgement is a promise to vote with the op for as long as the log may need it. A replica that forgets one
//! breaks nothing by itself: it takes a second one, elsewhere and later, before an op is lost. So the promise
//! is held against the disk where it is read: at every opening.

use std::collections::BTreeMap;

use kimberlite_crypto::Checksum;
use kimberlite_runtime::Note;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{Instant, Op, ReplicaId, View};
use kimberlite_wire::PrepareHeader;
use kimberlite_wire::message::Mark;

use super::{Canon, hold};
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "promises";
const FOUND: &str =
    "a replica that opens its log finds what it said to be durable, or knows how much it may have lost";
const DENIED: &str = "a replica that opens its log does not deny a prepare that it said to be durable";
const ONE_LOG: &str = "the log that a replica opens agrees with what was committed of its log view";

/// What a replica said at an op: which prepare is durable, and of which view's log that was.
#[derive(Clone, Copy)]
struct Said {
    checksum: Checksum,
    log_view: View,
}

/// Remembers what each replica said to be durable, through all its lives.
#[derive(Default)]
pub struct Promises {
    canon: Canon,
    said: [BTreeMap<Op, Said>; REPLICAS_MAX],
    /// The view whose log each replica was last known to hold.
    log_views: [View; REPLICAS_MAX],
    /// What each replica named when it was last opened, in which log view.
    opened: [Option<(View, BTreeMap<Op, Checksum>)>; REPLICAS_MAX],
    compared: u64,
}

/// What an opening found.
struct Found<'a> {
    log_view: View,
    tail: &'a [(PrepareHeader, Mark)],
    doubt_until: Op,
}

impl Promises {
    /// Whether a replica that holds the log of `log_view` still owes what it said at an op. A log that was adopted since may
    /// have cut the op; one that was committed is in every later log.
    fn is_owed(&self, op: Op, said: Said, log_view: View) -> bool {
        let committed = self.canon.headers.get(&op).map(|header| header.checksum);
        committed == Some(said.checksum) || (committed.is_none() && said.log_view == log_view)
    }

    fn on_opened(&mut self, replica: ReplicaId, found: &Found<'_>) -> Result<(), Violation> {
        let Found { log_view, tail, doubt_until } = *found;
        let index = usize::from(replica.0);
        let head = tail.last().map_or(Op::ZERO, |(header, _)| header.op);
        let known = head.max(doubt_until);
        self.compared += 1;
        let forgotten = self.said[index].range(known.next()..).next_back();
        if let Some((op, said)) = forgotten.filter(|(op, said)| self.is_owed(**op, **said, log_view)) {
            hold!(
                false,
                FOUND,
                replica,
                *op,
                "{replica:?} said in the log of {:?} that op {op} is durable, and opens that of {log_view:?} up to op \
                 {head}, in doubt up to op {doubt_until}",
                said.log_view
            );
        }
        for (header, mark) in tail {
            let op = header.op;
            if let Some(said) = self.said[index].get(&op)
                && said.checksum == header.checksum
                && self.is_owed(op, *said, log_view)
            {
                self.compared += 1;
                hold!(*mark != Mark::Nack, DENIED, replica, op, "{replica:?} denies op {op}, which it held");
            }
            if let Some(committed) = self.canon.headers.get(&op) {
                Self::agree(replica, log_view, header.checksum, committed)?;
            }
        }
        // What is not owed any more is not asked about again.
        let _gone = self.said[index].split_off(&known.next());
        self.log_views[index] = log_view;
        let names = tail.iter().map(|(header, _)| (header.op, header.checksum)).collect();
        self.opened[index] = Some((log_view, names));
        Ok(())
    }

    /// A view has one primary, which proposes each op once: whoever holds the log of the view in which an op was proposed
    /// and committed names nothing else there.
    fn agree(
        replica: ReplicaId,
        log_view: View,
        named: Checksum,
        committed: &PrepareHeader,
    ) -> Result<(), Violation> {
        let op = committed.op;
        hold!(
            committed.view != log_view || committed.checksum == named,
            ONE_LOG,
            replica,
            op,
            "{replica:?} opened the log of {log_view:?} with {named:?} at op {op}; committed there is {:?}",
            committed.checksum
        );
        Ok(())
    }

    fn on_committed(&mut self, committed: &PrepareHeader) -> Result<(), Violation> {
        for (replica, opened) in (0..).map(ReplicaId).zip(&self.opened) {
            let Some((log_view, names)) = opened else { continue };
            if let Some(named) = names.get(&committed.op) {
                Self::agree(replica, *log_view, *named, committed)?;
            }
        }
        Ok(())
    }
}

impl Checker for Promises {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[FOUND, DENIED, ONE_LOG]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        self.canon.observe(seen);
        let Observation::Note { replica, note } = seen else { return Ok(()) };
        let index = usize::from(replica.0);
        match note {
            Note::Durable { op, checksum } => {
                let said = Said { checksum: *checksum, log_view: self.log_views[index] };
                self.said[index].insert(*op, said);
            }
            Note::Consensus(kimberlite_vsr::Note::View { log_view, .. }) => {
                self.log_views[index] = *log_view;
            }
            Note::Committed { prepare, .. } => self.on_committed(&prepare.header)?,
            Note::Opened { log_view, tail, doubt_until, .. } => {
                let found = Found { log_view: *log_view, tail, doubt_until: *doubt_until };
                self.on_opened(*replica, &found)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
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

    /// Replica 2 opens its log up to `head`, whose last op has this mark.
    fn opened(history: &History, log_view: u64, head: u64, mark: Mark, doubt_until: u64) -> Note {
        let first = head.saturating_sub(3).max(1);
        let mark_of = |op| if op == head { mark } else { Mark::Present };
        Note::Opened {
            view: View(9),
            log_view: View(log_view),
            tail: (first..=head).map(|op| (*history.header(op), mark_of(op))).collect(),
            commit: Op::ZERO,
            head_certain: doubt_until <= head,
            doubt_until: Op(doubt_until),
        }
    }

    fn history() -> History {
        let mut history = History::small(3);
        while history.ops() < 12 {
            history.op(&[]);
        }
        history
    }

    /// What replica 2 said up to `op`, without anybody having executed it.
    fn said(history: &History, ops: u64) -> Promises {
        let mut checker = Promises::default();
        (1..=ops).try_for_each(|op| noted(&mut checker, 2, &history.durable(op))).unwrap();
        checker
    }

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Promises::default())
    }

    #[test]
    fn what_was_said_is_found_or_known_to_be_lost() {
        let history = history();
        let open =
            |head, mark, doubt| noted(&mut said(&history, 10), 2, &opened(&history, 0, head, mark, doubt));
        open(10, Mark::Present, 10).unwrap();
        open(12, Mark::Nack, 12).unwrap();
        open(8, Mark::Present, 10).unwrap();
        open(10, Mark::Unknown, 10).unwrap();
        assert_broken(&rules(), open(8, Mark::Present, 9), FOUND);
        assert_broken(&rules(), open(9, Mark::Present, 9), FOUND);
        assert_broken(&rules(), open(10, Mark::Nack, 10), DENIED);
        // Another replica said nothing.
        noted(&mut said(&history, 10), 1, &opened(&history, 0, 8, Mark::Nack, 8)).unwrap();
    }

    #[test]
    fn a_later_log_may_lack_what_was_said_unless_it_is_committed() {
        let history = history();
        let mut checker = said(&history, 10);
        noted(&mut checker, 2, &opened(&history, 3, 8, Mark::Present, 8)).unwrap();
        let mut checker = said(&history, 10);
        (1..=10).try_for_each(|op| commit(&mut checker, 0, &history, op)).unwrap();
        let result = noted(&mut checker, 2, &opened(&history, 3, 8, Mark::Present, 8));
        assert_broken(&rules(), result, FOUND);
    }

    #[test]
    fn a_log_that_contradicts_what_its_view_committed_is_noticed_before_and_after() {
        let history = history();
        let mut other = history.header(7).to_owned();
        other.timestamp.0 += 1;
        let other = PrepareHeader { checksum: history.header(3).checksum, ..other };
        let note = Note::Opened {
            view: View(0),
            log_view: history.header(7).view,
            tail: vec![(other, Mark::Present)],
            commit: Op::ZERO,
            head_certain: true,
            doubt_until: Op(7),
        };
        let mut checker = Promises::default();
        (1..=7).try_for_each(|op| commit(&mut checker, 0, &history, op)).unwrap();
        assert_broken(&rules(), noted(&mut checker, 2, &note), ONE_LOG);
        let mut checker = Promises::default();
        noted(&mut checker, 2, &note).unwrap();
        let result = (1..=7).try_for_each(|op| commit(&mut checker, 0, &history, op));
        assert_broken(&rules(), result, ONE_LOG);
    }
}
