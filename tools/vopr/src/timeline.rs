//! What happens in a run, line by line: a checker that holds no rule and tells all it sees.

use kimberlite_runtime::Note;
use kimberlite_sim::{Checker, End, Observation, RunConfig, Violation, rules};
use kimberlite_types::Instant;

/// Tells on standard error what it sees.
struct Teller;

/// The rules of every scenario, and a teller before them: it tells what they are about to refuse, too.
pub(crate) fn telling_rules(config: &RunConfig) -> Vec<Box<dyn Checker>> {
    let mut all: Vec<Box<dyn Checker>> = vec![Box::new(Teller)];
    all.extend(rules(config));
    all
}

impl Checker for Teller {
    fn name(&self) -> &'static str {
        "timeline"
    }

    fn rules(&self) -> &'static [&'static str] {
        &[]
    }

    fn observe(&mut self, at: Instant, seen: &Observation<'_>) -> Result<(), Violation> {
        match seen {
            Observation::Note { replica, note } => match note {
                Note::Committed { prepare, .. } => {
                    let header = &prepare.header;
                    eprintln!("{at:?} r{replica} committed {:?} of {:?}", header.op, header.view);
                }
                Note::Opened { view, log_view, tail, commit, head_certain, .. } => {
                    let head = tail.last().map(|(header, mark)| (header.op, mark));
                    let certain = if *head_certain { "certain" } else { "uncertain" };
                    eprintln!(
                        "{at:?} r{replica} opened in {view:?} (log {log_view:?}), {certain} head {head:?}, \
                         commit {commit:?}"
                    );
                }
                note => eprintln!("{at:?} r{replica} {note:?}"),
            },
            Observation::Submitted { client, ticket, tenant, command } => {
                eprintln!("{at:?} client {client} submits {ticket} for {tenant:?}, {} bytes", command.len());
            }
            Observation::Stated { client, ticket, tenant, deed, .. } => {
                eprintln!("{at:?} client {client} says {ticket} of {tenant:?}: {}", deed.text());
            }
            Observation::Ran { client, ticket, answer } => match &answer.result {
                Ok(rows) => {
                    eprintln!("{at:?} client {client} hears {} {:?} to {ticket}", rows.tag, rows.rows);
                }
                Err(failure) => {
                    let (code, message) = (failure.code.as_str(), &failure.message);
                    eprintln!("{at:?} client {client} hears {code} {message} to {ticket}");
                }
            },
            Observation::Answered { client, ticket, .. } => {
                eprintln!("{at:?} client {client} hears the answer to {ticket}");
            }
            other => eprintln!("{at:?} {other:?}"),
        }
        Ok(())
    }

    fn finish(&mut self, _: &End<'_>) -> Result<(), Violation> {
        Ok(())
    }

    fn compared(&self) -> u64 {
        0
    }
}
