//! Every command takes effect once, as an independent model says, and its client hears just that.

use std::collections::BTreeMap;

use kimberlite_crypto::Checksum;
use kimberlite_kernel::{Applied, EntryVerdict};
use kimberlite_runtime::Note;
use kimberlite_types::{
    Config, Instant, LogPosition, Offset, Op, ReplicaId, RequestNumber, SessionId, StreamId, TenantId,
};
use kimberlite_wire::command::{Command, Outcome, Refusal, Verdict};
use kimberlite_wire::{Entry, Prepare};

use super::durability::content;
use super::hold;
use super::model::Model;
use crate::{Checker, End, Observation, Violation};

const NAME: &str = "exactly_once";
const ORDER: &str = "ops are first executed in order";
const COMMAND: &str = "a command takes effect once";
const REQUEST: &str = "a request of a session is decided once";
const SUBMITTED: &str = "only what was submitted is decided";
const DENSE: &str = "offsets of a stream count from 0 without gaps";
const MODEL: &str = "every verdict is what the model says";
const REPLY: &str = "a client hears the verdict of the log";

/// Executes the committed log again and compares.
pub struct ExactlyOnce {
    model: Model,
    executed: Op,
    /// Commands that were ever submitted, and where one took effect.
    commands: BTreeMap<Checksum, Option<LogPosition>>,
    /// Requests that were decided for good.
    requests: BTreeMap<(SessionId, RequestNumber), LogPosition>,
    ends: BTreeMap<(TenantId, StreamId), Offset>,
    /// What was decided where, on which command.
    decided: BTreeMap<LogPosition, (Checksum, Verdict)>,
    /// Commands under way.
    waiting: BTreeMap<(u16, u64), Checksum>,
    compared: u64,
}

impl ExactlyOnce {
    /// Nothing was decided.
    pub fn new(config: &Config) -> Self {
        Self {
            model: Model::new(config.sessions_max),
            executed: Op::ZERO,
            commands: BTreeMap::new(),
            requests: BTreeMap::new(),
            ends: BTreeMap::new(),
            decided: BTreeMap::new(),
            waiting: BTreeMap::new(),
            compared: 0,
        }
    }

    fn on_prepare(
        &mut self,
        replica: ReplicaId,
        prepare: &Prepare,
        applied: &Applied,
    ) -> Result<(), Violation> {
        let op = prepare.header.op;
        if op <= self.executed {
            return Ok(());
        }
        let due = self.executed.next();
        hold!(op == due, ORDER, replica, op, "{replica:?} executes op {op}; op {due} was not seen");
        // Fewer verdicts than entries, or entries that do not parse, break rules of other checkers.
        for (entry, verdict) in prepare.entries().flatten().zip(&applied.verdicts) {
            self.on_entry(replica, &entry, verdict)?;
        }
        self.executed = op;
        Ok(())
    }

    fn on_entry(
        &mut self,
        replica: ReplicaId,
        entry: &Entry<'_>,
        said: &EntryVerdict,
    ) -> Result<(), Violation> {
        let at = entry.header.position;
        let command = Command::decode(entry.command);
        let content = content(entry.header.tenant, entry.command);
        let registers = matches!(command, Ok(Command::Register));
        if !said.duplicate && !registers {
            self.once(replica, entry, &content, said)?;
        }
        if let (false, Ok(Outcome::Appended { first, count }), Ok(Command::AppendBatch { stream, .. })) =
            (said.duplicate, said.verdict.result, &command)
        {
            let end = self.ends.entry((entry.header.tenant, *stream)).or_default();
            hold!(
                first == *end,
                DENSE,
                replica,
                at.op,
                "entry {at} appends at offset {first} of {stream:?}, which ends at {end}"
            );
            *end = Offset(first.0 + u64::from(count));
        }
        let expected = self.model.apply(entry);
        self.compared += 1;
        hold!(
            expected == *said,
            MODEL,
            replica,
            at.op,
            "entry {at} got {said:?}; the model says {expected:?}"
        );
        self.decided.insert(at, (content, said.verdict));
        Ok(())
    }

    /// An entry that is no registration and counts as the first copy of its request.
    fn once(
        &mut self,
        replica: ReplicaId,
        entry: &Entry<'_>,
        content: &Checksum,
        said: &EntryVerdict,
    ) -> Result<(), Violation> {
        let (header, result) = (&entry.header, said.verdict.result);
        let at = header.position;
        // Facts are what a node makes of a statement, in a session of its own: what they may be is for others to say.
        let facts = matches!(
            Command::decode(entry.command),
            Ok(Command::Facts { .. } | Command::Stage { .. } | Command::Commit { .. })
        );
        let mut made = None;
        let known = if facts { Some(&mut made) } else { self.commands.get_mut(content) };
        let Some(effect) = known else {
            hold!(false, SUBMITTED, replica, at.op, "nobody submitted the command of entry {at}");
            return Ok(());
        };
        if result.is_ok() {
            hold!(
                effect.is_none(),
                COMMAND,
                replica,
                at.op,
                "the command of entry {at} took effect before: {effect:?}"
            );
            *effect = Some(at);
        }
        if !matches!(result, Err(Refusal::NoSession | Refusal::Stale)) {
            let request = (header.session, header.request);
            let before = self.requests.insert(request, at);
            hold!(
                before.is_none(),
                REQUEST,
                replica,
                at.op,
                "{:?} of {:?}, entry {at}, was decided before: {before:?}",
                header.request,
                header.session
            );
        }
        Ok(())
    }

    fn on_done(&mut self, client: u16, ticket: u64, heard: &Verdict) -> Result<(), Violation> {
        let asked = self.waiting.remove(&(client, ticket));
        let logged = self.decided.get(&heard.position);
        self.compared += 1;
        // A duplicate's entry holds the verdict of the first copy, which names the first copy's place.
        hold!(
            logged.is_some_and(|(content, verdict)| Some(*content) == asked && verdict == heard),
            REPLY,
            None,
            heard.position.op,
            "client {client} hears {heard:?} on {ticket}; the log says {:?}",
            logged.map(|(_, verdict)| verdict)
        );
        Ok(())
    }
}

impl Checker for ExactlyOnce {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rules(&self) -> &'static [&'static str] {
        &[ORDER, COMMAND, REQUEST, SUBMITTED, DENSE, MODEL, REPLY]
    }

    fn observe(&mut self, _at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Submitted { client, ticket, tenant, command } => {
                let content = content(*tenant, command);
                self.commands.entry(content).or_insert(None);
                self.waiting.insert((*client, *ticket), content);
                Ok(())
            }
            Observation::Done { client, ticket, verdict } => self.on_done(*client, *ticket, verdict),
            Observation::Failed { client, ticket } => {
                self.waiting.remove(&(*client, *ticket));
                Ok(())
            }
            Observation::Note { replica, note: Note::Committed { prepare, applied, .. } } => {
                self.on_prepare(*replica, prepare, applied)
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

    fn fresh(history: &History) -> ExactlyOnce {
        let mut checker = ExactlyOnce::new(&history.config);
        submit_all(&mut checker, history).unwrap();
        checker
    }

    fn rules() -> (&'static str, &'static [&'static str]) {
        checker_rules(&ExactlyOnce::new(&config(3)))
    }

    /// The history up to `op`, then `op` with other verdicts.
    fn with_verdicts(
        history: &History,
        op: u64,
        change: impl FnOnce(&mut Vec<EntryVerdict>),
    ) -> Result<(), Violation> {
        let mut checker = fresh(history);
        for op in 1..op {
            commit(&mut checker, 0, history, op).unwrap();
        }
        let note = with_applied(&history.committed(op), |applied| change(&mut applied.verdicts));
        noted(&mut checker, 0, &note)
    }

    #[test]
    fn retries_refusals_and_evictions_pass() {
        let mut history = History::small(3);
        let session = SessionId(LogPosition { op: Op(1), index: 0 });
        let retry = append(session, 5, None, &[b"four"]);
        let op = history.op(&[retry.clone(), append(session, 6, Some(9), &[b"off"]), retry]);
        for _ in 0..4 {
            history.session();
        }
        history.op(&[append(session, 7, None, &[b"too late"])]);
        let mut checker = fresh(&history);
        history.play(&mut checker).unwrap();
        let entries: u64 = (1..=history.ops()).map(|op| u64::from(history.header(op).entries)).sum();
        assert_eq!(checker.compared(), entries);
        assert_eq!(history.verdict(op, 0).position, history.verdict(4, 0).position);
        done(&mut checker, op, 0, history.verdict(4, 0)).unwrap();
        done(&mut checker, op, 1, history.verdict(op, 1)).unwrap();
        assert_eq!(checker.compared(), entries + 2);
    }

    #[test]
    fn a_command_or_request_that_takes_effect_twice_is_noticed() {
        let mut history = History::small(3);
        let first = SessionId(LogPosition { op: Op(1), index: 0 });
        let second = history.session();
        let again = history.op(&[append(second, 1, None, &[b"four"])]);
        let mut checker = fresh(&history);
        for op in 1..again {
            commit(&mut checker, 0, &history, op).unwrap();
        }
        assert_broken(&rules(), commit(&mut checker, 0, &history, again), COMMAND);

        let mut history = History::small(3);
        let retry = history.op(&[append(first, 5, None, &[b"other"])]);
        let appended = Ok(Outcome::Appended { first: Offset(4), count: 1 });
        let position = LogPosition { op: Op(retry), index: 0 };
        let twice = with_verdicts(&history, retry, |verdicts| {
            verdicts[0].verdict = Verdict { position, result: appended };
            verdicts[0].duplicate = false;
        });
        assert_broken(&rules(), twice, REQUEST);
    }

    #[test]
    fn a_burnt_offset_and_a_wrong_verdict_are_noticed() {
        let history = History::small(3);
        let burnt = with_verdicts(&history, 3, |verdicts| {
            verdicts[1].verdict.result = Ok(Outcome::Appended { first: Offset(3), count: 1 });
        });
        assert_broken(&rules(), burnt, DENSE);
        let refused = with_verdicts(&history, 3, |verdicts| {
            verdicts[1].verdict.result = Err(Refusal::NoStream);
        });
        assert_broken(&rules(), refused, MODEL);
        let miscounted = with_verdicts(&history, 3, |verdicts| {
            verdicts[1].verdict.result = Ok(Outcome::Appended { first: Offset(2), count: 2 });
        });
        assert_broken(&rules(), miscounted, MODEL);
        let forgotten = with_verdicts(&history, 3, |verdicts| verdicts[1].duplicate = true);
        assert_broken(&rules(), forgotten, MODEL);
    }

    #[test]
    fn commands_from_nowhere_and_ops_out_of_order_are_noticed() {
        let history = History::small(3);
        let mut checker = ExactlyOnce::new(&history.config);
        commit(&mut checker, 0, &history, 1).unwrap();
        assert_broken(&rules(), commit(&mut checker, 0, &history, 2), SUBMITTED);
        let mut checker = fresh(&history);
        assert_broken(&rules(), commit(&mut checker, 0, &history, 2), ORDER);
    }

    #[test]
    fn a_reply_that_the_log_does_not_hold_is_noticed() {
        let history = History::small(3);
        let mut checker = fresh(&history);
        history.play(&mut checker).unwrap();
        let mut wrong = history.verdict(3, 0);
        wrong.result = Ok(Outcome::Appended { first: Offset(1), count: 2 });
        assert_broken(&rules(), done(&mut checker, 3, 0, wrong), REPLY);
        assert_broken(&rules(), done(&mut checker, 3, 1, history.verdict(3, 0)), REPLY);
        let mut nowhere = history.verdict(4, 0);
        nowhere.position.op = Op(9);
        assert_broken(&rules(), done(&mut checker, 4, 0, nowhere), REPLY);
    }
}
