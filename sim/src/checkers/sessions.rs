//! A session belongs to one client, which hears of its end, and of nothing that was not decided for it.

use std::collections::BTreeMap;

use kimberlite_runtime::Note;
use kimberlite_types::{Config, Instant, LogPosition, Op, SessionId};
use kimberlite_wire::Prepare;
use kimberlite_wire::command::Outcome;

use super::hold;
use super::model::Model;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "sessions";
const REGISTERED: &str = "a client's session stands in the committed log";
const ALONE: &str = "a session is one client's alone";
const EVICTED: &str = "a client hears that its session is gone only when it is";
const OWN: &str = "a client hears only what was decided for its own session";

/// Follows sessions through the committed log, and what clients heard of them.
pub struct Sessions {
    model: Model,
    executed: Op,
    /// For which session each entry was decided; a registration is its own.
    decided: BTreeMap<LogPosition, SessionId>,
    /// The session of each client that has one.
    current: BTreeMap<u16, SessionId>,
    /// Whose each session is or was.
    owners: BTreeMap<SessionId, u16>,
    compared: u64,
}

impl Sessions {
    /// Nobody has a session.
    pub fn new(config: &Config) -> Self {
        Self {
            model: Model::new(config.sessions_max),
            executed: Op::ZERO,
            decided: BTreeMap::new(),
            current: BTreeMap::new(),
            owners: BTreeMap::new(),
            compared: 0,
        }
    }

    fn on_prepare(&mut self, prepare: &Prepare) {
        let op = prepare.header.op;
        // That ops are executed in order is for others to say.
        if op != self.executed.next() {
            return;
        }
        self.executed = op;
        for entry in prepare.entries().flatten() {
            let said = self.model.apply(&entry);
            let session = match said.verdict.result {
                Ok(Outcome::Registered { session }) => session,
                _ => said.session,
            };
            self.decided.insert(entry.header.position, session);
        }
    }

    fn on_registered(&mut self, client: u16, session: SessionId) -> Result<(), Violation> {
        let SessionId(at) = session;
        self.compared += 1;
        hold!(
            self.decided.get(&at) == Some(&session),
            REGISTERED,
            None,
            at.op,
            "client {client} has {session:?}, and at {at} nothing was registered"
        );
        let other = self.owners.insert(session, client);
        hold!(other.is_none(), ALONE, None, at.op, "client {client} has {session:?}, which {other:?} had");
        self.current.insert(client, session);
        Ok(())
    }

    fn on_evicted(&mut self, client: u16) -> Result<(), Violation> {
        let session = self.current.remove(&client);
        self.compared += 1;
        let gone = session.is_some_and(|session| self.model.evicted().any(|evicted| *evicted == session));
        hold!(gone, EVICTED, None, None, "client {client} hears that {session:?} is gone, and it is not");
        Ok(())
    }

    fn on_done(&mut self, client: u16, ticket: u64, at: LogPosition) -> Result<(), Violation> {
        let (own, whose) = (self.current.get(&client), self.decided.get(&at));
        self.compared += 1;
        hold!(
            own.is_some() && own == whose,
            OWN,
            None,
            at.op,
            "client {client} of {own:?} hears on {ticket} what {at} decided for {whose:?}"
        );
        Ok(())
    }
}

impl Checker for Sessions {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[REGISTERED, ALONE, EVICTED, OWN]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Note { note: Note::Committed { prepare, .. }, .. } => {
                self.on_prepare(prepare);
                Ok(())
            }
            Observation::Registered { client, session } => self.on_registered(*client, *session),
            Observation::Evicted { client } => self.on_evicted(*client),
            Observation::Done { client, ticket, verdict } => self.on_done(*client, *ticket, verdict.position),
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

    fn at(op: u64, index: u32) -> SessionId {
        SessionId(LogPosition { op: Op(op), index })
    }

    fn registered(checker: &mut Sessions, client: u16, session: SessionId) -> Result<(), Violation> {
        observe(checker, &Observation::Registered { client, session })
    }

    fn evicted(checker: &mut Sessions, client: u16) -> Result<(), Violation> {
        observe(checker, &Observation::Evicted { client })
    }

    /// A session of client 0 at 1.0, which writes; further ones that push it out.
    fn history() -> History {
        let mut history = History::small(3);
        for _ in 0..history.config.sessions_max {
            history.session();
        }
        history
    }

    /// A checker that has seen the log up to `op`; client 0 has the first session.
    fn after(history: &History, op: u64) -> Sessions {
        let mut checker = Sessions::new(&history.config);
        commit(&mut checker, 0, history, 1).unwrap();
        registered(&mut checker, 0, at(1, 0)).unwrap();
        for op in 2..=op {
            commit(&mut checker, 0, history, op).unwrap();
        }
        checker
    }

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&Sessions::new(&config(3)))
    }

    #[test]
    fn a_session_that_writes_is_evicted_and_comes_back_as_another() {
        let history = history();
        let mut checker = after(&history, history.ops());
        for (op, entry) in [(2, 0), (3, 1), (4, 0)] {
            done(&mut checker, op, entry, history.verdict(op, entry)).unwrap();
        }
        evicted(&mut checker, 0).unwrap();
        registered(&mut checker, 0, at(6, 0)).unwrap();
        assert_eq!(checker.compared(), 6);
    }

    #[test]
    fn sessions_that_nobody_registered_or_that_are_shared_are_noticed() {
        let history = history();
        let mut checker = after(&history, 5);
        assert_broken(&rules(), registered(&mut checker, 1, at(4, 0)), REGISTERED);
        assert_broken(&rules(), registered(&mut checker, 1, at(9, 0)), REGISTERED);
        assert_broken(&rules(), registered(&mut checker, 1, at(1, 0)), ALONE);
        registered(&mut checker, 1, at(5, 0)).unwrap();
    }

    #[test]
    fn an_eviction_that_did_not_happen_is_noticed() {
        let history = history();
        assert_broken(&rules(), evicted(&mut after(&history, 7), 0), EVICTED);
        assert_broken(&rules(), evicted(&mut after(&history, 8), 1), EVICTED);
        evicted(&mut after(&history, 8), 0).unwrap();
    }

    #[test]
    fn a_verdict_for_another_session_or_for_none_is_noticed() {
        let history = history();
        let mut checker = after(&history, 5);
        registered(&mut checker, 0, at(5, 0)).unwrap();
        assert_broken(&rules(), done(&mut checker, 4, 0, history.verdict(4, 0)), OWN);
        let mut checker = after(&history, 8);
        evicted(&mut checker, 0).unwrap();
        assert_broken(&rules(), done(&mut checker, 4, 0, history.verdict(4, 0)), OWN);
    }
}
