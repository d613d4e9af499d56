//! Sessions: who asked what last, and what became of it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use kimberlite_probe::mutant;
use kimberlite_types::{LogPosition, Op, RequestNumber, SessionId};
use kimberlite_wire::command::Verdict;

use crate::digest::{Item, Lanes};
use crate::image::SessionImage;

/// How a request stands to what its session asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Not decided yet, as far as the applied log goes. A registration is always new.
    New,
    /// It was the session's last request, and this became of it.
    Duplicate(Verdict),
    /// The session asked something newer since, and the verdict is gone; or the number is 0, which none has.
    Stale,
    /// No such session: it never was, or was evicted.
    NoSession,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    /// The number of the last request that was executed or refused; 0 after the registration.
    last: RequestNumber,
    /// What became of it. Its position is also the session's age: a duplicate or stale request, which has
    /// no verdict of its own, does not renew a session.
    verdict: Verdict,
    /// The hash of its item, kept because each request takes the old one out of the state's digest.
    lanes: Lanes,
}

impl Session {
    fn new(id: SessionId, last: RequestNumber, verdict: Verdict) -> Self {
        Self { last, verdict, lanes: Item::Session { id, last, verdict }.lanes() }
    }

    fn item(&self, id: SessionId) -> Item<'static> {
        Item::Session { id, last: self.last, verdict: self.verdict }
    }
}

/// The bounded table of sessions.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    max: u32,
    table: BTreeMap<SessionId, Session>,
    /// The sessions by age, oldest first. A position decides one request, so ages are distinct.
    by_age: BTreeMap<LogPosition, SessionId>,
}

impl Sessions {
    pub(crate) fn new(max: u32) -> Self {
        assert!(max > 0, "a kernel keeps at least one session");
        Self { max, table: BTreeMap::new(), by_age: BTreeMap::new() }
    }

    pub(crate) fn lookup(&self, id: SessionId, request: RequestNumber) -> Lookup {
        if id == SessionId::NONE {
            return Lookup::New;
        }
        match self.table.get(&id) {
            None => Lookup::NoSession,
            Some(session) if request > session.last => Lookup::New,
            Some(session) if request == session.last && request > RequestNumber::ZERO => {
                Lookup::Duplicate(session.verdict)
            }
            Some(_) => Lookup::Stale,
        }
    }

    /// The session that has to go before another can be registered, if the table is full.
    pub(crate) fn to_evict(&self) -> Option<SessionId> {
        if self.table.len() < self.max as usize {
            return None;
        }
        if mutant!(EvictionByWhim, self.by_age.len() > 1) {
            let whim = kimberlite_probe::__mutant::whim(self.by_age.len());
            return self.by_age.values().nth(whim).copied();
        }
        self.by_age.first_key_value().map(|(_, id)| *id)
    }

    /// Removes a session and answers the hash of the item it was.
    pub(crate) fn evict(&mut self, id: SessionId) -> Lanes {
        let session = self.table.remove(&id).expect("the session to evict was found in the table");
        let aged = self.by_age.remove(&session.verdict.position);
        assert!(aged == Some(id), "a session is found by its age");
        session.lanes
    }

    /// Adds a session and answers the hash of the item it is.
    pub(crate) fn register(&mut self, id: SessionId, verdict: Verdict) -> Lanes {
        assert!(self.table.len() < self.max as usize, "room was made before a session is registered");
        let session = Session::new(id, RequestNumber::ZERO, verdict);
        let displaced = self.table.insert(id, session);
        assert!(displaced.is_none(), "a log position registers one session");
        let displaced = self.by_age.insert(verdict.position, id);
        assert!(displaced.is_none(), "a log position decides one request");
        assert!(self.by_age.len() == self.table.len(), "every session has one age");
        session.lanes
    }

    /// Remembers the session's last verdict and answers the hashes of the items it was and is.
    pub(crate) fn remember(
        &mut self,
        id: SessionId,
        request: RequestNumber,
        verdict: Verdict,
    ) -> (Lanes, Lanes) {
        let session = self.table.get_mut(&id).expect("a request was decided for a session in the table");
        assert!(request > session.last, "the numbers of a session's decided requests increase");
        let before = session.lanes;
        let aged = self.by_age.remove(&session.verdict.position);
        assert!(aged == Some(id), "a session is found by its age");
        let displaced = self.by_age.insert(verdict.position, id);
        assert!(displaced.is_none(), "a log position decides one request");
        *session = Session::new(id, request, verdict);
        (before, session.lanes)
    }

    /// Every session, by id.
    pub(crate) fn image(&self) -> Vec<SessionImage> {
        let image = |(id, session): (&SessionId, &Session)| SessionImage {
            id: *id,
            last: session.last,
            verdict: session.verdict,
        };
        self.table.iter().map(image).collect()
    }

    /// The table that an image is of; `None` if no state up to `applied` has it, or it is larger than `max`.
    pub(crate) fn of_image(max: u32, image: &[SessionImage], applied: Op) -> Option<Self> {
        if image.len() > max as usize {
            return None;
        }
        let mut sessions = Self::new(max);
        let mut before = SessionId::NONE;
        for &SessionImage { id, last, verdict } in image {
            let age = verdict.position;
            if (before != SessionId::NONE && id <= before) || age.op > applied || id == SessionId::NONE {
                return None;
            }
            before = id;
            sessions.table.insert(id, Session::new(id, last, verdict));
            if sessions.by_age.insert(age, id).is_some() {
                return None;
            }
        }
        Some(sessions)
    }

    /// Every session as an item. Checks on the way that the index by age is the table's.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item<'static>> {
        assert_eq!(self.by_age.len(), self.table.len(), "every session has one age");
        self.table.iter().map(|(id, session)| {
            let indexed = self.by_age.get(&session.verdict.position);
            assert_eq!(indexed, Some(id), "a session is found by its age");
            session.item(*id)
        })
    }
}
