//! Commands: sessions, numbers, the queue.

use super::*;
use crate::ClientError;
use crate::limits::COMMANDS_QUEUED_MAX;
use kimberlite_types::limits::COMMAND_SIZE_LIMIT;

#[test]
fn a_client_connects_registers_and_sends_when_there_is_something_to_send() {
    let mut story = Story::new(options(3));
    story.event(Event::Wake);
    assert_eq!((story.asked(), story.client.wake_at()), (vec![], None));
    story.submit(9);
    let (conn, _) = story.connected();
    let register = story.sent();
    assert_eq!((register.session, register.command), (SessionId::NONE, Command::Register.encode()));
    assert!(register.number.0 < 1 << 63, "numbers and nonces of queries never meet");
    story.reply(conn, SessionId::NONE, register.number, Ok(Outcome::Registered { session: SESSION }));
    assert_eq!(story.words(), [Output::Registered(SESSION)]);
    let sent = story.sent();
    assert_eq!(sent, Sent { conn, session: SESSION, number: RequestNumber(1), command: command(9) });
    story.reply(conn, SESSION, RequestNumber(1), Ok(Outcome::TenantCreated));
    assert_eq!(story.words(), [Output::Done { ticket: 9, verdict: created(1) }]);
    assert!(story.client.is_idle());
    assert_eq!(story.client.wake_at(), None, "an idle client keeps its connection and sleeps");
}

#[test]
fn commands_go_one_at_a_time_in_order_with_rising_numbers() {
    let (mut story, conn, _) = Story::registered(options(1));
    for ticket in 1..=3 {
        story.submit(ticket);
    }
    for ticket in 1..=3 {
        let sent = story.sent();
        assert_eq!((sent.number, sent.command), (RequestNumber(ticket + 1), command(ticket)));
        story.reply(conn, SESSION, sent.number, Err(Refusal::TenantExists));
        let verdict = Verdict { position: position(ticket + 1), result: Err(Refusal::TenantExists) };
        assert_eq!(story.words(), [Output::Done { ticket, verdict }]);
    }
}

#[test]
fn a_reply_that_answers_nothing_is_counted_and_dropped() {
    let (mut story, conn, _) = Story::registered(options(1));
    story.submit(1);
    assert_eq!(story.sent().number, RequestNumber(2));
    let other = SessionId(position(99));
    for (session, number) in [(SESSION, 1), (SESSION, 3), (other, 2), (SessionId::NONE, 2)] {
        story.reply(conn, session, RequestNumber(number), Ok(Outcome::TenantCreated));
    }
    assert_eq!((story.words(), story.client.strays()), (vec![], 4));
    story.reply(conn, SESSION, RequestNumber(2), Ok(Outcome::TenantCreated));
    story.reply(conn, SESSION, RequestNumber(2), Ok(Outcome::TenantCreated));
    assert_eq!(story.words(), [Output::Done { ticket: 1, verdict: created(2) }]);
    assert_eq!(story.client.strays(), 5);
}

#[test]
fn an_eviction_fails_the_command_in_flight_and_those_that_wait_get_a_new_session() {
    let (mut story, conn, _) = Story::registered(options(1));
    story.submit(1);
    story.submit(2);
    story.sent();
    story.reply(conn, SESSION, RequestNumber(2), Err(Refusal::NoSession));
    let failed = Output::Failed { ticket: 1, why: ClientError::Evicted };
    assert_eq!(story.words(), [Output::Evicted, failed]);
    assert!(ClientError::Evicted.is_outcome_unknown());
    let register = story.sent();
    assert_eq!(register.session, SessionId::NONE);
    let session = SessionId(position(50));
    story.reply(conn, SessionId::NONE, register.number, Ok(Outcome::Registered { session }));
    let sent = story.sent();
    assert_eq!(sent, Sent { conn, session, number: RequestNumber(1), command: command(2) });
}

#[test]
fn the_queue_is_bounded_and_says_so() {
    let mut story = Story::new(options(1));
    for ticket in 0..COMMANDS_QUEUED_MAX as u64 {
        story.submit(ticket);
    }
    assert_eq!(story.words(), []);
    story.submit(1000);
    assert_eq!(story.words(), [Output::Failed { ticket: 1000, why: ClientError::QueueFull }]);
}

#[test]
fn a_command_that_is_too_large_fails_here_or_by_the_nodes_word_and_the_next_goes_on() {
    let (mut story, conn, _) = Story::registered(options(1));
    let command = vec![0; COMMAND_SIZE_LIMIT as usize + 1];
    story.on(Input::Submit { ticket: 1, tenant: TENANT, command });
    assert_eq!(story.words(), [Output::Failed { ticket: 1, why: ClientError::TooLarge }]);
    story.submit(2);
    story.submit(3);
    let refused = story.sent();
    story.turn(conn, refused.number.0, Turn::TooLarge);
    assert_eq!(story.words(), [Output::Failed { ticket: 2, why: ClientError::TooLarge }]);
    assert_eq!(story.sent().number, refused.number.next());
}

#[test]
fn patience_ends_for_commands_in_flight_and_waiting() {
    let patience = Duration::from_secs(5);
    let options = ClientOptions { give_up_after: Some(patience), ..options(1) };
    let (mut story, conn, _) = Story::registered(options);
    let start = story.now;
    story.submit(1);
    story.submit(2);
    story.closed(conn, CloseReason::Broken);
    while !story.client.is_idle() {
        story.wake();
        for asked in story.asked() {
            if let Asked::Connect(conn, _) = asked {
                story.closed(conn, CloseReason::Refused);
            }
        }
    }
    assert_eq!(story.now.since(start), patience);
    let failed = |ticket, sent| Output::Failed { ticket, why: ClientError::GaveUp { sent } };
    assert_eq!(story.words(), [failed(2, false), failed(1, true)]);
    assert_eq!(story.client.wake_at(), None);
}

#[test]
fn a_late_reply_to_a_command_given_up_is_not_taken_for_the_next() {
    let options = ClientOptions { give_up_after: Some(Duration::from_secs(1)), ..options(1) };
    let (mut story, conn, _) = Story::registered(options);
    story.submit(1);
    let given_up = story.sent();
    story.wake();
    assert_eq!(story.words().len(), 1);
    story.submit(2);
    assert_eq!(story.sent().number, given_up.number.next());
    story.reply(conn, SESSION, given_up.number, Ok(Outcome::TenantCreated));
    assert_eq!((story.words(), story.client.strays()), (vec![], 1));
}
