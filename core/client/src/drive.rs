//! What a client does by itself: sends what waits, and leaves replicas that do not serve it.

use alloc::vec::Vec;

use kimberlite_io::{Address, Conn, Net};
use kimberlite_types::{Instant, ReplicaId, RequestNumber, SessionId, TenantId};
use kimberlite_wire::client::{Query, Request, Splitter, query_frame, request_frame};
use kimberlite_wire::command::Command;

use crate::client::{Client, ClientError, Disconnect, Flight, Output, Step};
use crate::limits::REDIRECTS_MAX;
use crate::route::{Link, Route, up_to};
use crate::task::{Task, is_due};

impl Client {
    pub(crate) fn route(&mut self, replica: ReplicaId) -> &mut Route {
        &mut self.routes[usize::from(replica.0)]
    }

    /// The replica that `conn` leads to, if it is one of ours and not gone.
    pub(crate) fn replica_on(&self, conn: Conn) -> Option<ReplicaId> {
        self.replicas().find(|replica| self.routes[usize::from(replica.0)].conn() == Some(conn))
    }

    fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.options.replicas).map(ReplicaId)
    }

    /// Every task with the replica that should answer it.
    fn tasks(&self) -> impl Iterator<Item = (ReplicaId, &Task)> {
        let flight = self.flight.iter().map(|flight| (self.target, &flight.task));
        let queries = self.queries.values().map(|asked| (asked.to.unwrap_or(self.target), &asked.task));
        flight.chain(queries)
    }

    pub(crate) fn tasks_mut(&mut self) -> impl Iterator<Item = (ReplicaId, &mut Task)> {
        let target = self.target;
        let flight = self.flight.iter_mut().map(move |flight| (target, &mut flight.task));
        let queries = self.queries.values_mut();
        flight.chain(queries.map(move |asked| (asked.to.unwrap_or(target), &mut asked.task)))
    }

    /// The replica answered: what went wrong with it before is forgotten.
    pub(crate) fn praise(&mut self, replica: ReplicaId) {
        self.route(replica).praise();
        self.redirects = 0;
    }

    /// Puts a replica off, unless it is already. Answers whether this was new.
    pub(crate) fn put_off(&mut self, now: Instant, replica: ReplicaId) -> bool {
        let route = &mut self.routes[usize::from(replica.0)];
        if now < route.resume_at {
            return false;
        }
        route.put_off(now, self.options.backoff_min, self.options.backoff_max, &mut self.rng);
        true
    }

    /// Turns to `to`, which `from` says is the primary.
    pub(crate) fn redirect(&mut self, from: ReplicaId, to: ReplicaId, step: &mut Step<'_>) {
        if from != self.target {
            return; // Turned away from it already.
        }
        self.redirects += 1;
        if self.redirects > REDIRECTS_MAX {
            kimberlite_probe::reachable!("client.redirected_in_circles");
            self.fail(from, Disconnect::NoPrimary, step);
            return;
        }
        self.target = to;
        step.out.push(Output::Redirected { from, to });
    }

    /// Leaves a replica that does not serve: for another one, if it was taken for the primary. What its
    /// connection carried will be sent again.
    pub(crate) fn fail(&mut self, replica: ReplicaId, why: Disconnect, step: &mut Step<'_>) {
        let route = &mut self.routes[usize::from(replica.0)];
        if let Some(link) = route.link.take() {
            step.net.close(link.conn);
        }
        self.drop_statements(replica, step);
        let route = &mut self.routes[usize::from(replica.0)];
        route.laters = 0;
        route.put_off(step.now, self.options.backoff_min, self.options.backoff_max, &mut self.rng);
        step.out.push(Output::Disconnected { replica, why });
        if replica == self.target {
            self.rotate(step.now);
        }
    }

    /// The connection to a replica is lost, and with it the outcome of the statements that it carried.
    fn drop_statements(&mut self, replica: ReplicaId, step: &mut Step<'_>) {
        let lost =
            self.queries.iter().filter(|(_, asked)| asked.is_sent_statement() && asked.to == Some(replica));
        let lost: Vec<u64> = lost.map(|(nonce, _)| *nonce).collect();
        for nonce in lost {
            self.drop_task(nonce, ClientError::GaveUp { sent: true }, step);
        }
    }

    /// Takes another replica for the primary: the one that may be tried first, in the order of their numbers.
    fn rotate(&mut self, now: Instant) {
        self.redirects = 0;
        let count = self.options.replicas;
        let others = (1..count).map(|step| ReplicaId((self.target.0 + step) % count));
        let Some(next) = others.min_by_key(|replica| self.routes[usize::from(replica.0)].resume_at) else {
            return;
        };
        self.target = next;
        // All clients of a replica lose it at once; they should not all come to the next one at once.
        let earliest = now.after(up_to(self.options.backoff_min, &mut self.rng));
        let route = self.route(next);
        route.resume_at = route.resume_at.max(earliest);
    }

    /// Ends a task without an answer.
    pub(crate) fn drop_task(&mut self, nonce: u64, why: ClientError, step: &mut Step<'_>) {
        let flight =
            self.flight.take_if(|flight| flight.task.nonce == nonce).and_then(|flight| flight.ticket);
        let query = self.queries.remove(&nonce).map(|asked| asked.ticket);
        if let Some(ticket) = flight.or(query) {
            step.out.push(Output::Failed { ticket, why });
        }
    }

    /// Gives up what is overdue: tasks for good, connections in favour of others.
    pub(crate) fn expire(&mut self, step: &mut Step<'_>) {
        // All wait with the same patience, so the first that was submitted is the first to be given up.
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| is_due(waiting.give_up_at, step.now)) {
            kimberlite_probe::reachable!("client.gives_up_waiting");
            let why = ClientError::GaveUp { sent: false };
            step.out.push(Output::Failed { ticket: waiting.ticket, why });
        }
        let due: Vec<(u64, bool)> = self
            .tasks()
            .filter(|(_, task)| is_due(task.give_up_at, step.now))
            .map(|(_, task)| (task.nonce, task.ever_sent))
            .collect();
        for (nonce, sent) in due {
            kimberlite_probe::sometimes!("client.gives_up_sent", sent);
            self.drop_task(nonce, ClientError::GaveUp { sent }, step);
        }
        // A session is registered for those that wait.
        if self.waiting.is_empty() {
            self.flight.take_if(|flight| flight.ticket.is_none());
        }
        for replica in self.replicas() {
            let Some(link) = &self.routes[usize::from(replica.0)].link else { continue };
            let timeout = self.options.request_timeout;
            if is_due(link.open_by, step.now) {
                kimberlite_probe::reachable!("client.connect_times_out");
                self.fail(replica, Disconnect::ConnectTimeout, step);
            } else if self.tasks().any(|(_, task)| is_due(task.overdue_at(link.conn, timeout), step.now)) {
                kimberlite_probe::reachable!("client.request_times_out");
                self.fail(replica, Disconnect::RequestTimeout, step);
            } else if is_due(self.silent_at(replica), step.now) {
                self.on_silence(replica, step);
            }
        }
    }

    /// When a replica that runs a statement has been silent for too long. A statement may take any time; a replica that is
    /// alive answers a query meanwhile.
    fn silent_at(&self, replica: ReplicaId) -> Option<Instant> {
        let link = self.routes[usize::from(replica.0)].link.as_ref()?;
        let carried = |task: &Task| task.sent.filter(|(conn, _)| task.once && *conn == link.conn);
        let since = self.tasks().filter_map(|(_, task)| carried(task)).map(|(_, at)| at).min()?;
        Some(link.probed_at.unwrap_or(since.max(link.heard_at)).after(self.options.request_timeout))
    }

    /// Asks a silent replica for a sign of life; leaves it if it was asked before.
    fn on_silence(&mut self, replica: ReplicaId, step: &mut Step<'_>) {
        let cluster = self.options.cluster;
        let nonce = self.query_nonce();
        let Some(link) = self.route(replica).link.as_mut() else { return };
        if link.probed_at.is_some() {
            kimberlite_probe::reachable!("client.replica_is_silent");
            return self.fail(replica, Disconnect::RequestTimeout, step);
        }
        link.probed_at = Some(step.now);
        let conn = link.conn;
        // Whatever comes is a sign; the answer itself is to nobody's question.
        step.net.stream(conn, query_frame(cluster, nonce, &Query::Status));
    }

    /// Sends what waits, as far as its replica may be used now.
    pub(crate) fn pump(&mut self, step: &mut Step<'_>) {
        if self.flight.is_none() {
            self.flight = self.take_off();
        }
        for replica in self.replicas() {
            let route = self.route(replica);
            let (conn, open) = (route.conn(), route.open());
            if step.now < route.resume_at {
                continue;
            }
            let unsent = self
                .tasks_mut()
                .filter(|(home, task)| *home == replica && conn.is_none_or(|conn| !task.is_on(conn)))
                .map(|(_, task)| task);
            match (conn, open) {
                (_, Some(conn)) => {
                    for task in unsent {
                        kimberlite_probe::sometimes!("client.sends_again", task.ever_sent);
                        task.sent = Some((conn, step.now));
                        task.ever_sent = true;
                        step.net.stream(conn, task.frame.clone());
                        if task.once {
                            task.give_up_at = None;
                        }
                    }
                    for asked in self.queries.values_mut().filter(|asked| asked.task.once) {
                        if asked.task.is_on(conn) {
                            asked.to = Some(replica);
                        }
                    }
                }
                (None, None) if unsent.count() > 0 => self.connect(replica, step),
                (_, None) => {}
            }
        }
    }

    fn connect(&mut self, replica: ReplicaId, step: &mut Step<'_>) {
        let conn = Conn(self.next_conn);
        assert!(!conn.is_accepted(), "the ids of opened connections do not run out");
        self.next_conn += 1;
        let open_by = Some(step.now.after(self.options.connect_timeout));
        self.route(replica).link =
            Some(Link { conn, open_by, splitter: Splitter::default(), heard_at: step.now, probed_at: None });
        step.net.connect(conn, Address(u16::from(replica.0)));
    }

    /// The next request: the first that waits, or before that a registration.
    fn take_off(&mut self) -> Option<Flight> {
        let Some(session) = self.session else {
            self.waiting.front()?;
            // Any number but those of queries will do; by luck, so that a reply to another's is not taken
            // for ours.
            let number = RequestNumber(self.rng.next_u64() >> 1);
            let command = Command::Register.encode();
            let (tenant, command) = (TenantId::ZERO, command.as_slice());
            return Some(self.flight(SessionId::NONE, number, tenant, command, None, None));
        };
        let next = self.waiting.pop_front()?;
        let number = self.next_number;
        self.next_number = number.next();
        Some(self.flight(session, number, next.tenant, &next.command, Some(next.ticket), next.give_up_at))
    }

    fn flight(
        &self,
        session: SessionId,
        number: RequestNumber,
        tenant: TenantId,
        command: &[u8],
        ticket: Option<u64>,
        give_up_at: Option<Instant>,
    ) -> Flight {
        let frame = request_frame(self.options.cluster, &Request { session, number, tenant, command });
        Flight { task: Task::new(number.0, frame, give_up_at), number, ticket }
    }

    /// Closes connections that nothing needs. The one to the supposed primary stays, for what comes next.
    pub(crate) fn tidy(&mut self, net: &mut dyn Net) {
        for replica in self.replicas() {
            let needed = replica == self.target || self.tasks().any(|(home, _)| home == replica);
            if !needed && let Some(link) = self.route(replica).link.take() {
                net.close(link.conn);
            }
        }
    }

    /// When something will be overdue or may be sent, whichever comes first.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let timeout = self.options.request_timeout;
        let waiting = self.waiting.front().and_then(|waiting| waiting.give_up_at);
        let opening = self.routes.iter().filter_map(|route| route.link.as_ref()?.open_by);
        let tasks = self.tasks().flat_map(|(home, task)| {
            let route = &self.routes[usize::from(home.0)];
            let due = match (route.open(), &route.link) {
                (Some(conn), _) if task.once && task.is_on(conn) => None,
                (Some(conn), _) => task.overdue_at(conn, timeout).or(Some(route.resume_at)),
                (None, Some(_)) => None,
                (None, None) => Some(route.resume_at),
            };
            due.into_iter().chain(task.give_up_at)
        });
        let silent = self.replicas().filter_map(|replica| self.silent_at(replica));
        waiting.into_iter().chain(opening).chain(tasks).chain(silent).min()
    }
}
