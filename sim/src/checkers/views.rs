//! Views only go forward, and each has at most one primary, in one life.

use std::collections::BTreeMap;

use kimberlite_runtime::Note;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{Config, Instant, Op, ReplicaId, View};
use kimberlite_vsr::Status;

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "views";
const VIEW: &str = "the view of a replica never goes back, restarts included";
const LOG_VIEW: &str = "the log view of a replica never goes back, restarts included";
const ORDER: &str = "the log view is at most the view";
const ONE: &str = "a view has one primary";
const TURN: &str = "the primary of a view is the view modulo the replicas";
const RESUMED: &str = "a restarted primary never resumes its view";
const STARTED: &str = "a replica that works in a view holds that view's log";

/// What is known of a replica. Its views were durable before it spoke of them.
#[derive(Clone, Copy, Default)]
struct Known {
    view: View,
    log_view: View,
    opened: bool,
    /// The newest view in which it worked as primary, in any life.
    led: Option<View>,
    /// The newest view that an earlier life may have led: never to be led again.
    spent: Option<View>,
}

/// Remembers each replica's views across its lives.
pub struct Views {
    config: Config,
    known: [Known; REPLICAS_MAX],
    /// Who worked as primary in each view.
    primaries: BTreeMap<View, ReplicaId>,
    compared: u64,
}

impl Views {
    /// Every replica is in view 0.
    pub fn new(config: &Config) -> Self {
        Self {
            config: *config,
            known: [Known::default(); REPLICAS_MAX],
            primaries: BTreeMap::new(),
            compared: 0,
        }
    }

    /// Takes in the durable views of a replica.
    fn forward(&mut self, replica: ReplicaId, view: View, log_view: View) -> Result<(), Violation> {
        let known = &mut self.known[usize::from(replica.0)];
        self.compared += 1;
        let none: Option<Op> = None;
        hold!(
            log_view <= view,
            ORDER,
            replica,
            none,
            "{replica:?} holds the log of {log_view:?} in {view:?}"
        );
        hold!(view >= known.view, VIEW, replica, none, "{replica:?} went from {:?} to {view:?}", known.view);
        hold!(
            log_view >= known.log_view,
            LOG_VIEW,
            replica,
            none,
            "{replica:?} held the log of {:?} and holds that of {log_view:?}",
            known.log_view
        );
        known.view = view;
        known.log_view = log_view;
        Ok(())
    }

    /// A new life begins. The life before may have led a view without living to say so: a replica that finds
    /// the log of a view of its own on its disk counts as having led it, except in its very first life.
    fn on_opened(&mut self, replica: ReplicaId, view: View, log_view: View) -> Result<(), Violation> {
        self.forward(replica, view, log_view)?;
        let mine = self.config.primary(view) == replica && log_view == view;
        let known = &mut self.known[usize::from(replica.0)];
        known.spent = known.led;
        if known.opened && mine {
            known.spent = known.spent.max(Some(view));
        }
        known.opened = true;
        Ok(())
    }

    /// A replica works in a view.
    fn on_view(&mut self, replica: ReplicaId, view: View, primary: ReplicaId) -> Result<(), Violation> {
        let none: Option<Op> = None;
        if primary == replica {
            let first = *self.primaries.entry(view).or_insert(replica);
            hold!(first == replica, ONE, replica, none, "{first:?} and {replica:?} both lead {view:?}");
        }
        let due = self.config.primary(view);
        hold!(
            primary == due,
            TURN,
            replica,
            none,
            "{replica:?} takes {primary:?} for the primary of {view:?}, which is {due:?}"
        );
        if primary != replica {
            return Ok(());
        }
        let known = &mut self.known[usize::from(replica.0)];
        // A lone replica has nobody who could remember what it forgot: it may go on in its view.
        hold!(
            self.config.replicas == 1 || known.spent.is_none_or(|spent| view > spent),
            RESUMED,
            replica,
            none,
            "{replica:?} leads {view:?} again after a restart"
        );
        known.led = known.led.max(Some(view));
        Ok(())
    }
}

impl Checker for Views {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[VIEW, LOG_VIEW, ORDER, ONE, TURN, RESUMED, STARTED]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        let Observation::Note { replica, note } = seen else { return Ok(()) };
        match note {
            Note::Opened { view, log_view, .. } => self.on_opened(*replica, *view, *log_view),
            Note::Consensus(kimberlite_vsr::Note::View { view, log_view, status, primary }) => {
                self.forward(*replica, *view, *log_view)?;
                if *status != Status::Normal {
                    return Ok(());
                }
                hold!(
                    log_view == view,
                    STARTED,
                    *replica,
                    None,
                    "{replica:?} works in {view:?} with the log of {log_view:?}"
                );
                self.on_view(*replica, *view, *primary)
            }
            _ => Ok(()),
        }
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

    fn opened(view: u64, log_view: u64) -> Note {
        Note::Opened {
            view: View(view),
            log_view: View(log_view),
            tail: Vec::new(),
            commit: Op(0),
            head_certain: true,
            doubt_until: Op(0),
        }
    }

    fn in_view(view: u64, log_view: u64, status: Status, primary: u8) -> Note {
        let (view, log_view, primary) = (View(view), View(log_view), ReplicaId(primary));
        Note::Consensus(kimberlite_vsr::Note::View { view, log_view, status, primary })
    }

    fn normal(view: u64) -> Note {
        in_view(view, view, Status::Normal, (view % 3) as u8)
    }

    /// Feeds notes of replicas; all but the last must pass.
    fn run(notes: &[(u8, Note)]) -> Result<(), Violation> {
        let mut checker = Views::new(&config(3));
        let (last, before) = notes.split_last().unwrap();
        for (replica, note) in before {
            noted(&mut checker, *replica, note).unwrap();
        }
        assert_eq!(checker.compared(), before.len() as u64);
        noted(&mut checker, last.0, &last.1)
    }

    #[test]
    fn views_that_go_forward_through_restarts_pass() {
        let notes = [
            (0, opened(0, 0)),
            (1, opened(0, 0)),
            (0, normal(0)),
            (1, normal(0)),
            (1, in_view(1, 0, Status::ViewChange, 1)),
            (1, normal(1)),
            (0, normal(1)),
            (0, opened(1, 1)),
            (0, normal(1)),
            (1, opened(1, 1)),
            (1, in_view(2, 1, Status::ViewChange, 2)),
            (1, in_view(4, 1, Status::ViewChange, 1)),
            (1, normal(4)),
        ];
        run(&notes).unwrap();
    }

    #[test]
    fn each_broken_rule_is_noticed() {
        let cases = [
            (VIEW, vec![(2, normal(3)), (2, normal(2))]),
            (VIEW, vec![(2, in_view(3, 0, Status::ViewChange, 0)), (2, opened(2, 0))]),
            (LOG_VIEW, vec![(2, normal(3)), (2, in_view(4, 2, Status::ViewChange, 1))]),
            (LOG_VIEW, vec![(2, normal(3)), (2, opened(3, 2))]),
            (ORDER, vec![(0, in_view(1, 2, Status::ViewChange, 1))]),
            (ONE, vec![(0, normal(3)), (1, in_view(3, 3, Status::Normal, 1))]),
            (TURN, vec![(1, in_view(3, 3, Status::Normal, 1))]),
            (TURN, vec![(1, in_view(3, 3, Status::Normal, 2))]),
            (STARTED, vec![(1, in_view(3, 2, Status::Normal, 0))]),
            (RESUMED, vec![(1, opened(0, 0)), (1, normal(1)), (1, opened(1, 1)), (1, normal(1))]),
            (RESUMED, vec![(0, opened(0, 0)), (0, opened(0, 0)), (0, normal(0))]),
        ];
        let rules = checker_rules(&Views::new(&config(3)));
        for (rule, notes) in cases {
            assert_broken(&rules, run(&notes), rule);
        }
    }

    #[test]
    fn a_lone_replica_goes_on_in_its_view() {
        let mut checker = Views::new(&config(1));
        for note in [opened(0, 0), in_view(0, 0, Status::Normal, 0), opened(0, 0)] {
            noted(&mut checker, 0, &note).unwrap();
        }
        noted(&mut checker, 0, &in_view(0, 0, Status::Normal, 0)).unwrap();
    }
}
