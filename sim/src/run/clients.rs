//! The clients of a run: whose turn it is, what they ask, and what they are told.

use kimberlite_client::{Input, Output as Said};
use kimberlite_wire::client::Answer;

use super::{CLIENT_QUESTIONS, Run, Tick};
use crate::checker::Observation;
use crate::choice::Chosen;
use crate::failure::Failure;
use crate::sql::{Say, SqlWork};
use crate::workload::Ask;

impl Run {
    pub(super) fn on_client_tick(&mut self, client: u16) -> Result<(), Failure> {
        if self.speaks_sql(client) {
            self.say_next(client)?;
            if self.sql.as_mut().is_some_and(|sql| sql.goes_on(client)) {
                self.await_turn(client);
            }
            return Ok(());
        }
        if self.workload.is_exhausted() {
            return Ok(());
        }
        self.ask_next(client)?;
        self.await_turn(client);
        Ok(())
    }

    /// A client thinks, and then it is its turn.
    pub(super) fn await_turn(&mut self, client: u16) {
        let sql = self.sql.as_ref().filter(|_| self.speaks_sql(client));
        let think = sql.map_or(self.config.work.think, SqlWork::think);
        let wait = self.wait(u64::from(client) + CLIENT_QUESTIONS, think);
        self.schedule(wait, Tick::Client(client));
    }

    pub(super) fn speaks_sql(&self, client: u16) -> bool {
        self.sql.as_ref().is_some_and(|sql| sql.is_one(client))
    }

    /// Nothing breaks any more: clients that speak SQL end what they began, and look at everything.
    pub(crate) fn close_sql(&mut self) {
        let woken = self.sql.as_mut().map(SqlWork::close).unwrap_or_default();
        for client in woken {
            self.await_turn(client);
        }
    }

    /// Lets a client say its next statement, if it can.
    pub(super) fn say_next(&mut self, client: u16) -> Result<(), Failure> {
        let node = self.cluster.client_node(client);
        let able = self.cluster.world.is_up(node) && !self.cluster.world.is_paused(node);
        if !able || !self.sql.as_ref().is_some_and(|sql| sql.may_say(client)) {
            return Ok(());
        }
        let said = self.choose(Chosen::Request(client), |run| {
            run.sql.as_mut().map(|sql| sql.next(client, run.cluster.world.dice_mut()))
        });
        let input = match said {
            // Left out; it counts as said.
            None => {
                if let Some(sql) = &mut self.sql {
                    sql.pass(client);
                }
                return Ok(());
            }
            Some(None) => return Ok(()),
            Some(Some(Say::Tenant { ticket, tenant, command })) => {
                self.observe(&Observation::Submitted { client, ticket, tenant, command: &command })?;
                Input::Submit { ticket, tenant, command }
            }
            Some(Some(Say::Statement { ticket, deed, statement })) => {
                let (tenant, in_block) = (statement.tenant, statement.in_block);
                self.observe(&Observation::Stated { client, ticket, tenant, deed: &deed, in_block })?;
                Input::Statement { ticket, statement }
            }
        };
        let told = self.cluster.ask(client, input).expect("the client is up");
        told.into_iter().try_for_each(|told| self.on_told(node, told))
    }

    /// Lets a client ask its next request, if it can.
    pub(crate) fn ask_next(&mut self, client: u16) -> Result<(), Failure> {
        let node = self.cluster.client_node(client);
        if !self.cluster.world.is_up(node) || self.cluster.world.is_paused(node) {
            return Ok(());
        }
        if !self.workload.may_ask(client) {
            return Ok(());
        }
        let next = self
            .choose(Chosen::Request(client), |run| run.workload.next(client, run.cluster.world.dice_mut()));
        let input = match next {
            // Left out; it counts as asked.
            None => {
                self.workload.pass(client);
                return Ok(());
            }
            Some(None) => return Ok(()),
            Some(Some(Ask::Command { ticket, tenant, command })) => {
                self.observe(&Observation::Submitted { client, ticket, tenant, command: &command })?;
                Input::Submit { ticket, tenant, command }
            }
            Some(Some(Ask::Query { ticket, query, to })) => {
                self.observe(&Observation::Asked { client, ticket, query: &query })?;
                Input::Query { ticket, query, to }
            }
        };
        let told = self.cluster.ask(client, input).expect("the client is up");
        told.into_iter().try_for_each(|told| self.on_told(node, told))
    }

    pub(super) fn on_said(&mut self, client: u16, said: &Said) -> Result<(), Failure> {
        let sql = self.sql.as_mut().filter(|sql| sql.is_one(client));
        match (said, sql) {
            (Said::Done { ticket, verdict }, Some(sql)) => {
                sql.on_done(client, *ticket, verdict);
                return self.observe(&Observation::Done { client, ticket: *ticket, verdict: *verdict });
            }
            (Said::Answered { ticket, answer: Answer::Sql(answer) }, Some(sql)) => {
                sql.on_answered(client, *ticket, answer);
                return self.observe(&Observation::Ran { client, ticket: *ticket, answer });
            }
            (Said::Failed { ticket, why }, Some(sql)) => {
                let sent = why.is_outcome_unknown();
                let statement = sql.on_failed(client, *ticket, sent);
                return self.fail(client, *ticket, statement.then_some(sent));
            }
            _ => {}
        }
        match said {
            Said::Done { ticket, verdict } => {
                self.workload.on_done(client, *ticket, verdict);
                self.observe(&Observation::Done { client, ticket: *ticket, verdict: *verdict })
            }
            Said::Answered { ticket, answer } => {
                self.workload.on_answered(client, *ticket, answer);
                self.observe(&Observation::Answered { client, ticket: *ticket, answer })
            }
            Said::Failed { ticket, .. } => {
                self.workload.on_failed(client, *ticket);
                self.observe(&Observation::Failed { client, ticket: *ticket })
            }
            Said::Registered(session) => {
                self.tally.counts.registrations += 1;
                self.observe(&Observation::Registered { client, session: *session })
            }
            Said::Evicted => {
                self.tally.counts.evictions += 1;
                self.observe(&Observation::Evicted { client })
            }
            Said::Redirected { .. } => {
                self.tally.counts.redirects += 1;
                Ok(())
            }
            Said::Connected { .. } | Said::Disconnected { .. } => Ok(()),
        }
    }

    /// A request or statement has no outcome; of a statement it is known whether it was sent.
    pub(super) fn fail(&mut self, client: u16, ticket: u64, statement: Option<bool>) -> Result<(), Failure> {
        match statement {
            Some(sent) => self.observe(&Observation::Lost { client, ticket, sent }),
            None => self.observe(&Observation::Failed { client, ticket }),
        }
    }
}
