//! A replica whose disk failed a write stops: what is on that disk is not known any more.

use kimberlite_runtime::Note;
use kimberlite_types::limits::REPLICAS_MAX;
use kimberlite_types::{Instant, ReplicaId};

use super::hold;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "halts";
const STOPS: &str = "a replica that hears of a failed write stops at once";

/// Remembers who heard of a failed write and has not stopped.
#[derive(Default)]
pub struct Halts {
    heard: [Option<Instant>; REPLICAS_MAX],
    compared: u64,
}

impl Halts {
    /// Whether everybody who heard of a failed write before `now` has stopped.
    fn check(&self, now: Option<Instant>) -> Result<(), Violation> {
        for (replica, heard) in (0..).map(ReplicaId).zip(&self.heard) {
            if let Some(heard) = heard {
                let late = now.is_none_or(|now| now > *heard);
                hold!(!late, STOPS, replica, None, "{replica:?} heard of it at {heard:?} and goes on");
            }
        }
        Ok(())
    }
}

impl Checker for Halts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[STOPS]
    }

    fn observe(&mut self, at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::WriteFailed { replica } => {
                self.heard[usize::from(replica.0)].get_or_insert(at);
                self.compared += 1;
            }
            Observation::Crashed { replica } | Observation::Note { replica, note: Note::Halted(_) } => {
                self.heard[usize::from(replica.0)] = None;
            }
            _ => {}
        }
        self.check(Some(at))
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), Violation> {
        self.check(None)
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
    use kimberlite_runtime::HaltReason;

    const FAILED: Observation<'_> = Observation::WriteFailed { replica: ReplicaId(1) };

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Halts::default())
    }

    #[test]
    fn a_replica_that_stops_or_dies_in_the_moment_its_write_fails_passes() {
        let reason = kimberlite_storage::HaltReason::WriteFailed { place: Place::log(0) };
        let note = Note::Halted(HaltReason::Storage(reason));
        let stops = Observation::Note { replica: ReplicaId(1), note: &note };
        let dies = Observation::Crashed { replica: ReplicaId(1) };
        let mut checker = Halts::default();
        for (at, last) in [(Instant(5), &stops), (Instant(9), &dies)] {
            checker.observe(at, &FAILED).unwrap();
            checker.observe(at, last).unwrap();
            checker.observe(Instant(at.0 + 1), &Observation::Started { replica: ReplicaId(1) }).unwrap();
        }
        assert_eq!(checker.compared(), 2);
    }

    #[test]
    fn a_replica_that_goes_on_is_noticed_at_the_next_event_or_at_the_end() {
        let mut checker = Halts::default();
        checker.observe(Instant(5), &FAILED).unwrap();
        let next = Observation::Started { replica: ReplicaId(0) };
        assert_broken(&rules(), checker.observe(Instant(6), &next), STOPS);
        let mut checker = Halts::default();
        checker.observe(Instant(5), &FAILED).unwrap();
        let history = History::small(3);
        assert_broken(&rules(), finish_on(&mut checker, &history, |_| {}), STOPS);
    }
}
