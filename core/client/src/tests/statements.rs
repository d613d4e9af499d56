//! Statements: sent once.

use super::*;
use crate::ClientError;
use kimberlite_wire::client::{
    Answer, Query, STATEMENT_SIZE_MAX, SqlAnswer, SqlRows, Statement, answer_frame,
};

fn statement(text: &str) -> Statement {
    Statement { tenant: TENANT, in_block: false, text: text.into() }
}

fn done() -> Answer {
    Answer::Sql(SqlAnswer { in_block: false, result: Ok(SqlRows::default()) })
}

impl Story {
    fn run(&mut self, ticket: u64) {
        self.on(Input::Statement { ticket, statement: statement("SELECT 1") });
    }

    /// Expects that one statement was sent since the last look. Answers its nonce.
    fn ran(&mut self, conn: Conn) -> u64 {
        match self.asked().as_slice() {
            [Asked::Sent(on, ClientFrame::Statement { nonce, statement: sent })] => {
                assert_eq!((*on, sent), (conn, &statement("SELECT 1")));
                *nonce
            }
            other => panic!("one statement: {other:?}"),
        }
    }
}

#[test]
fn a_statement_is_answered_by_nothing_but_its_answer() {
    let mut story = Story::new(options(1));
    story.run(1);
    let (conn, _) = story.connected();
    let nonce = story.ran(conn);
    story.receive(conn, &answer_frame(CLUSTER, ReplicaId(0), nonce, &done()));
    assert_eq!(story.words(), [Output::Answered { ticket: 1, answer: done() }]);
    story.run(2);
    let nonce = story.ran(conn);
    let wrong = Answer::Stream { name: "visits".into(), end: Offset(3) };
    story.receive(conn, &answer_frame(CLUSTER, ReplicaId(0), nonce, &wrong));
    assert_eq!(story.words(), [Output::Failed { ticket: 2, why: ClientError::GaveUp { sent: true } }]);
}

#[test]
fn a_statement_whose_connection_is_lost_is_never_sent_again() {
    let mut story = Story::new(ClientOptions { give_up_after: Some(Duration::from_secs(9)), ..options(3) });
    story.run(1);
    let (conn, _) = story.connected();
    story.ran(conn);
    story.closed(conn, CloseReason::Broken);
    assert_eq!(story.words(), [Output::Failed { ticket: 1, why: ClientError::GaveUp { sent: true } }]);
    assert!(story.client.is_idle());
    assert_eq!(story.asked(), []);
}

/// Waits until the replica is asked for a sign of life, and answers the nonce of the question.
fn probed(story: &mut Story, conn: Conn) -> u64 {
    story.wake();
    let [Asked::Sent(on, ClientFrame::Query { nonce, query: Query::Status })] = story.asked()[..] else {
        panic!("one question")
    };
    assert_eq!(on, conn);
    nonce
}

#[test]
fn a_statement_may_take_as_long_as_it_takes_a_replica_that_is_alive() {
    let mut story = Story::new(ClientOptions { give_up_after: Some(Duration::from_secs(9)), ..options(3) });
    story.run(1);
    let (conn, _) = story.connected();
    let nonce = story.ran(conn);
    let begun = story.now;
    while story.now < begun.after(Duration::from_mins(10)) {
        let probe = probed(&mut story, conn);
        story.receive(conn, &answer_frame(CLUSTER, ReplicaId(0), probe, &done()));
    }
    story.receive(conn, &answer_frame(CLUSTER, ReplicaId(0), nonce, &done()));
    assert_eq!(story.words(), [Output::Answered { ticket: 1, answer: done() }]);
    assert!(story.client.is_idle());
}

#[test]
fn a_statement_is_not_waited_for_of_a_replica_that_is_silent() {
    let mut story = Story::new(options(3));
    story.run(1);
    let (conn, _) = story.connected();
    story.ran(conn);
    probed(&mut story, conn);
    story.wake();
    assert_eq!(story.words(), [Output::Failed { ticket: 1, why: ClientError::GaveUp { sent: true } }]);
    assert!(story.client.is_idle());
}

#[test]
fn a_statement_that_was_turned_away_goes_where_it_was_sent_and_is_given_up_unsent() {
    let mut story = Story::new(ClientOptions { give_up_after: Some(Duration::from_secs(9)), ..options(3) });
    story.run(1);
    let (conn, from) = story.connected();
    let nonce = story.ran(conn);
    story.turn(conn, nonce, Turn::Primary(ReplicaId((from.0 + 1) % 3)));
    let (next, to) = story.connected();
    assert_eq!(to, ReplicaId((from.0 + 1) % 3));
    assert_eq!(story.ran(next), nonce);
    story.turn(next, nonce, Turn::Later);
    story.closed(next, CloseReason::Broken);
    assert_eq!(story.words().len(), 1, "the redirect alone: it was not taken, so it is not lost");
    loop {
        story.wake();
        let words = story.words();
        for asked in story.asked() {
            if let Asked::Connect(conn, _) = asked {
                story.closed(conn, CloseReason::Refused);
            }
        }
        if let [Output::Failed { ticket: 1, why }] = words[..] {
            assert_eq!(why, ClientError::GaveUp { sent: false });
            break;
        }
    }
}

#[test]
fn a_redirect_of_something_else_does_not_move_a_statement() {
    let mut story = Story::new(options(3));
    story.run(1);
    let (conn, from) = story.connected();
    let nonce = story.ran(conn);
    story.on(Input::Query { ticket: 2, query: Query::Status, to: None });
    let [Asked::Sent(_, ClientFrame::Query { nonce: other, .. })] = story.asked()[..] else {
        panic!("a query")
    };
    story.turn(conn, other, Turn::Primary(ReplicaId((from.0 + 1) % 3)));
    let asked = story.asked();
    assert!(matches!(asked[..], [Asked::Connect(..)]), "its connection stays: {asked:?}");
    story.receive(conn, &answer_frame(CLUSTER, ReplicaId(0), nonce, &done()));
    assert!(story.words().contains(&Output::Answered { ticket: 1, answer: done() }));
}

#[test]
fn a_text_larger_than_a_frame_is_refused_here() {
    let mut story = Story::new(options(1));
    story.on(Input::Statement { ticket: 1, statement: statement(&"x".repeat(STATEMENT_SIZE_MAX + 1)) });
    assert_eq!(story.words(), [Output::Failed { ticket: 1, why: ClientError::TooLarge }]);
}
