//! Once nothing breaks any more, what the breaking caused comes to an end.

use std::collections::BTreeMap;
use std::time::Duration;

use kimberlite_runtime::Note;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{Instant, Op, ReplicaId, View};

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "healing";
const VIEWS: &str = "once healed, a cluster enters few views";
const REPAIRS: &str = "once healed, a replica repairs an op a few times at most";

/// Views entered after healing at most, besides those that time explains: each replica may be the primary in turn, with
/// the down ones' turns lost, and what was under way when it healed may cost another round. A core that lacks what only
/// others have goes on trying, once in the time that a replica waits for its primary.
const VIEWS_MAX: u64 = 4 * REPLICAS_MAX as u64;

/// Repairs of one op by one replica in one life after healing, at most: the one it knew of, and one for each
/// part of it that turned out to be damaged when it was read again.
const REPAIRS_MAX: u64 = 4;

/// Counts what replicas do after they were healed.
pub struct Healing {
    /// How long a replica waits for its primary, at least.
    patience: Duration,
    healed: Option<Instant>,
    newest: View,
    views: u64,
    repairs: BTreeMap<(ReplicaId, Op), u64>,
    compared: u64,
}

impl Healing {
    /// For a cluster whose replicas wait that long for their primary, at least.
    pub fn new(patience: Duration) -> Self {
        Self { patience, healed: None, newest: View::ZERO, views: 0, repairs: BTreeMap::new(), compared: 0 }
    }

    fn on_note(&mut self, at: Instant, replica: ReplicaId, note: &Note) -> Result<(), Violation> {
        match note {
            Note::Consensus(kimberlite_vsr::Note::View { view, .. }) if *view > self.newest => {
                self.newest = *view;
                let Some(healed) = self.healed else { return Ok(()) };
                self.views += 1;
                self.compared += 1;
                let views = self.views;
                let tries = at.since(healed).as_nanos() / self.patience.as_nanos();
                hold!(
                    u128::from(views) <= u128::from(VIEWS_MAX) + tries,
                    VIEWS,
                    replica,
                    None,
                    "{view:?} is number {views} since it healed"
                );
            }
            Note::Repaired { op, .. } if self.healed.is_some() => {
                let repairs = self.repairs.entry((replica, *op)).or_default();
                *repairs += 1;
                self.compared += 1;
                hold!(
                    *repairs <= REPAIRS_MAX,
                    REPAIRS,
                    replica,
                    *op,
                    "{replica:?} repaired op {op} {repairs} times since it healed"
                );
            }
            _ => {}
        }
        Ok(())
    }
}

impl Checker for Healing {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[VIEWS, REPAIRS]
    }

    fn observe(&mut self, at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Healed { .. } => {
                self.healed = Some(at);
                self.views = 0;
                self.repairs.clear();
                Ok(())
            }
            Observation::Started { replica } => {
                self.repairs.retain(|(of, _), _| of != replica);
                Ok(())
            }
            Observation::Note { replica, note } => self.on_note(at, *replica, note),
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
    use kimberlite_io::Place;
    use kimberlite_vsr::Status;

    fn view(number: u64) -> Note {
        Note::Consensus(kimberlite_vsr::Note::View {
            view: View(number),
            log_view: View(0),
            status: Status::ViewChange,
            primary: ReplicaId(0),
        })
    }

    fn healed(checker: &mut Healing) {
        observe(checker, &Observation::Healed { core: &[ReplicaId(0)] }).unwrap();
    }

    #[test]
    fn a_storm_of_view_changes_is_noticed_only_after_healing() {
        let mut checker = Healing::new(Duration::from_millis(500));
        (1..100).try_for_each(|number| noted(&mut checker, 0, &view(number))).unwrap();
        for from in [100, 200] {
            healed(&mut checker);
            for number in from..from + VIEWS_MAX {
                (0..3).try_for_each(|replica| noted(&mut checker, replica, &view(number))).unwrap();
            }
        }
        assert_eq!(checker.compared(), 2 * VIEWS_MAX);
        assert_broken(&checker_rules(&checker), noted(&mut checker, 1, &view(999)), VIEWS);
    }

    #[test]
    fn a_repair_that_never_ends_is_noticed_only_after_healing() {
        let mut checker = Healing::new(Duration::from_millis(500));
        let repaired = Note::Repaired { op: Op(3), place: Place::log(0) };
        let again = |checker: &mut Healing| {
            (0..REPAIRS_MAX).try_for_each(|_| noted(checker, 1, &repaired)).unwrap();
        };
        again(&mut checker);
        again(&mut checker);
        healed(&mut checker);
        again(&mut checker);
        started(&mut checker, 1).unwrap();
        again(&mut checker);
        noted(&mut checker, 2, &repaired).unwrap();
        assert_broken(&checker_rules(&checker), noted(&mut checker, 1, &repaired), REPAIRS);
    }
}
