//! Queries, beside the commands.

use super::*;
use crate::ClientError;
use crate::limits::QUERIES_MAX;
use kimberlite_types::{StreamId, View};
use kimberlite_wire::Malformed;
use kimberlite_wire::client::{Answer, Query, Status, answer_frame};

const INFO: Query = Query::StreamInfo { tenant: TENANT, stream: StreamId(1) };

fn info() -> Answer {
    Answer::Stream { name: "visits".into(), end: Offset(3) }
}

fn status(replica: u8) -> Answer {
    Answer::Status(Status {
        replica: ReplicaId(replica),
        view: View(1),
        primary: ReplicaId(1),
        state: "normal".into(),
        op: Op(9),
        commit: Op(8),
        faulty: 0,
        checkpoint: None,
        peers: Vec::new(),
    })
}

impl Story {
    fn ask(&mut self, ticket: u64, query: Query, to: Option<u8>) {
        self.on(Input::Query { ticket, query, to: to.map(ReplicaId) });
    }

    fn answer(&mut self, conn: Conn, nonce: u64, answer: &Answer) {
        self.receive(conn, &answer_frame(CLUSTER, ReplicaId(0), nonce, answer));
    }

    /// Expects that queries alone were sent since the last look, and answers their nonces.
    fn asked_queries(&mut self, conn: Conn) -> Vec<u64> {
        let nonce = |asked| match asked {
            Asked::Sent(on, ClientFrame::Query { nonce, .. }) if on == conn => nonce,
            other => panic!("{other:?}"),
        };
        self.asked().into_iter().map(nonce).collect()
    }
}

#[test]
fn a_query_needs_no_session_and_waits_for_no_command() {
    let mut story = Story::new(options(3));
    story.ask(1, INFO, None);
    let (conn, _) = story.connected();
    let [nonce] = story.asked_queries(conn)[..] else { panic!("one query") };
    story.submit(2);
    story.sent();
    story.answer(conn, nonce, &info());
    assert_eq!(story.words(), [Output::Answered { ticket: 1, answer: info() }]);
    story.answer(conn, nonce, &info());
    assert_eq!((story.words(), story.client.strays()), (vec![], 1));
}

#[test]
fn queries_follow_redirects_together_with_the_command() {
    let (mut story, conn, from) = Story::registered(options(3));
    story.ask(1, INFO, None);
    let [one] = story.asked_queries(conn)[..] else { panic!("one query") };
    story.ask(2, INFO, None);
    let [two] = story.asked_queries(conn)[..] else { panic!("one query") };
    story.submit(3);
    story.sent();
    let to = ReplicaId((from.0 + 1) % 3);
    story.turn(conn, one, Turn::Primary(to));
    assert_eq!(story.words(), [Output::Redirected { from, to }]);
    let (conn, replica) = {
        let asked = story.asked();
        let [Asked::Connect(conn, replica), Asked::Closed(_)] = asked.as_slice() else { panic!("{asked:?}") };
        (*conn, *replica)
    };
    assert_eq!(replica, to);
    story.event(Event::Opened { conn });
    let asked = story.asked();
    let [Asked::Sent(_, ClientFrame::Request { number, .. }), Asked::Sent(_, first), Asked::Sent(_, second)] =
        asked.as_slice()
    else {
        panic!("{asked:?}")
    };
    assert_eq!(*number, RequestNumber(2));
    for (frame, nonce) in [(first, one), (second, two)] {
        assert!(matches!(frame, ClientFrame::Query { nonce: sent, .. } if *sent == nonce));
    }
}

#[test]
fn an_unanswered_query_is_asked_again_elsewhere() {
    let mut story = Story::new(options(3));
    story.ask(1, INFO, None);
    let (conn, replica) = story.connected();
    let first = story.asked_queries(conn);
    assert_eq!(story.wake(), options(3).request_timeout);
    let (conn, other) = story.connected();
    assert_ne!(other, replica);
    assert_eq!(story.asked_queries(conn), first);
}

#[test]
fn a_query_to_one_replica_goes_there_and_leaves_the_commands_where_they_are() {
    let (mut story, conn, main) = Story::registered(options(3));
    let other = (main.0 + 1) % 3;
    story.ask(1, Query::Status, Some(other));
    let (aside, replica) = story.connected();
    assert_eq!(replica, ReplicaId(other));
    let [nonce] = story.asked_queries(aside)[..] else { panic!("one query") };
    story.submit(2);
    assert_eq!(story.sent().conn, conn);
    story.answer(aside, nonce, &status(other));
    assert_eq!(story.words(), [Output::Answered { ticket: 1, answer: status(other) }]);
    assert_eq!(story.asked(), [Asked::Closed(aside)], "a connection that nothing needs is closed");
    story.reply(conn, SESSION, RequestNumber(2), Ok(Outcome::TenantCreated));
    assert_eq!(story.words().len(), 1);
}

#[test]
fn a_query_to_one_replica_that_is_down_tries_it_alone_until_patience_ends() {
    let options = ClientOptions { give_up_after: Some(Duration::from_secs(3)), ..options(3) };
    let (mut story, _, main) = Story::registered(options);
    let down = ReplicaId((main.0 + 1) % 3);
    story.ask(1, Query::Status, Some(down.0));
    let mut tries = 0;
    while !story.client.is_idle() {
        for asked in story.asked() {
            let Asked::Connect(conn, replica) = asked else { panic!("{asked:?}") };
            assert_eq!(replica, down);
            tries += 1;
            story.closed(conn, CloseReason::Refused);
        }
        story.wake();
    }
    assert!((4..20).contains(&tries), "{tries}");
    assert_eq!(story.words(), [Output::Failed { ticket: 1, why: ClientError::GaveUp { sent: false } }]);
}

#[test]
fn the_one_replica_that_cannot_answer_fails_the_query() {
    let (mut story, _, main) = Story::registered(options(3));
    let wrong = |ticket| Output::Failed { ticket, why: ClientError::WrongReplica };
    story.ask(1, Query::Status, Some(3));
    assert_eq!(story.words(), [wrong(1)]);
    story.ask(2, INFO, Some((main.0 + 1) % 3));
    let (aside, _) = story.connected();
    let [nonce] = story.asked_queries(aside)[..] else { panic!("one query") };
    story.turn(aside, nonce, Turn::Primary(main));
    assert_eq!(story.words(), [wrong(2)]);
}

#[test]
fn an_answer_of_another_kind_is_malformed() {
    let mut story = Story::new(options(1));
    story.ask(1, INFO, None);
    let (conn, _) = story.connected();
    let [nonce] = story.asked_queries(conn)[..] else { panic!("one query") };
    story.answer(conn, nonce, &status(0));
    assert_eq!(story.disconnects(), [Disconnect::Malformed(Malformed::Body)]);
    story.asked();
    let (conn, _) = story.connected();
    assert_eq!(story.asked_queries(conn), [nonce]);
    story.answer(conn, nonce, &Answer::Refused(Refusal::NoStream));
    let answer = Answer::Refused(Refusal::NoStream);
    assert_eq!(story.words(), [Output::Answered { ticket: 1, answer }]);
}

#[test]
fn queries_in_flight_are_bounded() {
    let mut story = Story::new(options(1));
    for ticket in 0..QUERIES_MAX as u64 {
        story.ask(ticket, Query::Status, None);
    }
    assert_eq!(story.words(), []);
    story.ask(1000, Query::Status, None);
    assert_eq!(story.words(), [Output::Failed { ticket: 1000, why: ClientError::QueueFull }]);
}
