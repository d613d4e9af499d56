//! Connections that fail, redirect, stall or talk nonsense.

use super::*;
use crate::limits::{LATER_MAX, REDIRECTS_MAX};
use kimberlite_wire::Malformed;

#[test]
fn a_request_without_an_answer_is_sent_again_to_the_next_replica_with_the_same_number() {
    let (mut story, conn, replica) = Story::registered(options(3));
    story.submit(1);
    let first = story.sent();
    assert_eq!(story.wake(), options(3).request_timeout);
    assert_eq!(story.disconnects(), [Disconnect::RequestTimeout]);
    assert_eq!(story.asked()[0], Asked::Closed(conn));
    let (later_conn, later_replica) = story.connected();
    assert_ne!((later_conn, later_replica), (conn, replica));
    assert_eq!(story.sent(), Sent { conn: later_conn, ..first });
    // The old connection is gone for good, whatever the driver still had to say about it.
    story.reply(conn, SESSION, RequestNumber(2), Ok(Outcome::TenantCreated));
    assert_eq!(story.words(), []);
    story.reply(later_conn, SESSION, RequestNumber(2), Ok(Outcome::TenantCreated));
    assert_eq!(story.words(), [Output::Done { ticket: 1, verdict: created(2) }]);
}

#[test]
fn a_closed_connection_is_replaced_and_the_request_sent_again() {
    let (mut story, conn, replica) = Story::registered(options(3));
    story.submit(1);
    let first = story.sent();
    story.closed(conn, CloseReason::Broken);
    assert_eq!(story.disconnects(), [Disconnect::Closed(CloseReason::Broken)]);
    let (conn, other) = story.connected();
    assert_ne!(other, replica);
    assert_eq!(story.sent(), Sent { conn, ..first });
}

#[test]
fn an_idle_connection_that_closes_is_not_replaced_until_it_is_needed() {
    let (mut story, conn, _) = Story::registered(options(1));
    story.closed(conn, CloseReason::Ended);
    assert_eq!((story.asked(), story.client.wake_at()), (vec![], None));
    story.submit(1);
    story.connected();
    assert_eq!(story.sent().number, RequestNumber(2));
}

#[test]
fn a_registration_keeps_its_number_and_a_second_session_is_dropped() {
    let mut story = Story::new(options(3));
    story.submit(1);
    story.connected();
    let first = story.sent();
    story.wake();
    let (conn, _) = story.connected();
    assert_eq!(story.sent(), Sent { conn, ..first.clone() });
    for op in [1, 2] {
        let session = SessionId(position(op));
        story.reply(conn, SessionId::NONE, first.number, Ok(Outcome::Registered { session }));
    }
    assert_eq!((story.client.session(), story.client.strays()), (Some(SESSION), 1));
}

#[test]
fn a_redirect_is_followed_at_once_with_the_same_request() {
    let (mut story, conn, from) = Story::registered(options(3));
    story.submit(1);
    let first = story.sent();
    let to = ReplicaId((from.0 + 2) % 3);
    let before = story.now;
    story.turn(conn, first.number.0, Turn::Primary(to));
    assert_eq!(story.words(), [Output::Redirected { from, to }]);
    let asked = story.asked();
    let [Asked::Connect(next, replica), Asked::Closed(old)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((*replica, *old), (to, conn));
    story.event(Event::Opened { conn: *next });
    assert_eq!(story.sent(), Sent { conn: *next, ..first });
    assert_eq!(story.now, before);
}

#[test]
fn redirects_in_a_circle_end_in_a_wait() {
    let (mut story, mut conn, mut at) = Story::registered(options(2));
    story.submit(1);
    let number = story.sent().number;
    for _ in 0..REDIRECTS_MAX {
        story.turn(conn, number.0, Turn::Primary(ReplicaId(1 - at.0)));
        (conn, at) = story.connected();
        assert_eq!(story.sent().number, number);
    }
    story.out.clear();
    story.turn(conn, number.0, Turn::Primary(ReplicaId(1 - at.0)));
    assert_eq!(story.disconnects(), [Disconnect::NoPrimary]);
    assert_eq!(story.asked(), [Asked::Closed(conn)]);
    assert!(story.wake() > Duration::ZERO);
    let (_, next) = story.connected();
    assert_ne!(next, at);
}

#[test]
fn a_redirect_to_itself_or_to_nobody_is_a_reason_to_wait() {
    for named in [0, 3, 255] {
        let (mut story, conn, _) = Story::registered(options(1));
        story.submit(1);
        let first = story.sent();
        story.turn(conn, first.number.0, Turn::Primary(ReplicaId(named)));
        assert_eq!(story.asked(), [], "{named}");
        story.wake();
        assert_eq!(story.sent(), first);
    }
}

#[test]
fn a_busy_node_is_asked_again_with_growing_waits_and_not_left() {
    let (mut story, conn, _) = Story::registered(options(3));
    story.submit(1);
    let first = story.sent();
    let (min, max) = (options(3).backoff_min, options(3).backoff_max);
    for turn in 0..12 {
        story.turn(conn, first.number.0, Turn::Busy);
        assert_eq!(story.asked(), []);
        let longest = min.saturating_mul(1 << turn).min(max);
        let waited = story.wake();
        assert!(waited >= longest / 2 && waited <= longest, "{waited:?} of {longest:?}");
        assert_eq!(story.sent(), first);
    }
}

#[test]
fn a_node_that_never_learns_of_a_primary_is_left() {
    let (mut story, conn, replica) = Story::registered(options(3));
    story.submit(1);
    let first = story.sent();
    for _ in 1..LATER_MAX {
        story.turn(conn, first.number.0, Turn::Later);
        story.wake();
        assert_eq!(story.sent(), first);
    }
    story.turn(conn, first.number.0, Turn::Later);
    assert_eq!(story.disconnects(), [Disconnect::NoPrimary]);
    assert_eq!(story.asked(), [Asked::Closed(conn)]);
    assert_ne!(story.connected().1, replica);
}

#[test]
fn a_cluster_that_refuses_every_connection_is_tried_in_turn_and_ever_more_rarely() {
    let mut story = Story::new(options(3));
    story.submit(1);
    let mut tried = Vec::new();
    let mut conns = Vec::new();
    let start = story.now;
    while tried.len() < 60 {
        for asked in story.asked() {
            let Asked::Connect(conn, replica) = asked else { panic!("{asked:?}") };
            tried.push(replica);
            conns.push(conn);
            story.closed(conn, CloseReason::Refused);
        }
        story.wake();
    }
    assert!(tried[..3].iter().collect::<std::collections::BTreeSet<_>>().len() == 3, "{tried:?}");
    assert!(conns.windows(2).all(|pair| pair[0] < pair[1]), "ids of connections are never used again");
    let took = story.now.since(start);
    // Each replica is put off by up to one second: 20 tries of each take about 15 seconds.
    assert!(took > Duration::from_secs(7) && took < Duration::from_secs(25), "{took:?}");
}

#[test]
fn a_connection_that_does_not_open_is_given_up() {
    let mut story = Story::new(options(3));
    story.submit(1);
    let asked = story.asked();
    let [Asked::Connect(conn, replica)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(story.wake(), options(3).connect_timeout);
    assert_eq!(story.disconnects(), [Disconnect::ConnectTimeout]);
    assert_eq!(story.asked()[0], Asked::Closed(*conn));
    assert_ne!(story.connected().1, *replica);
}

#[test]
fn a_reply_cut_into_single_bytes_is_understood_and_its_credit_given_back() {
    let (mut story, conn, _) = Story::registered(options(1));
    story.submit(1);
    story.asked();
    let reply = reply_frame(CLUSTER, ReplicaId(0), SESSION, RequestNumber(2), created(8));
    for byte in reply.iter() {
        assert_eq!(story.words(), []);
        story.receive(conn, &[*byte]);
    }
    assert_eq!(story.words(), [Output::Done { ticket: 1, verdict: created(8) }]);
    let granted: u32 = story
        .script
        .asked
        .iter()
        .map(|asked| match asked {
            Asked::Granted(to, bytes) if *to == conn => *bytes,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(granted as usize, reply.len());
}

#[test]
fn a_node_that_does_not_speak_the_protocol_is_left() {
    let request = kimberlite_wire::client::query_frame(CLUSTER, 1, &kimberlite_wire::client::Query::Status);
    let foreign = reply_frame(ClusterId(1), ReplicaId(0), SESSION, RequestNumber(2), created(2));
    let mut flipped = reply_frame(CLUSTER, ReplicaId(0), SESSION, RequestNumber(2), created(2)).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let http = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".repeat(3);
    let wrong: [(&[u8], Malformed); 4] = [
        (&http, Malformed::Magic),
        (&foreign, Malformed::Cluster),
        (&flipped, Malformed::BodyChecksum),
        (&request, Malformed::Unknown),
    ];
    for (bytes, malformed) in wrong {
        let (mut story, conn, replica) = Story::registered(options(3));
        story.submit(1);
        let first = story.sent();
        story.receive(conn, bytes);
        assert_eq!(story.disconnects(), [Disconnect::Malformed(malformed)]);
        assert_eq!(story.asked(), [Asked::Closed(conn)]);
        let (conn, other) = story.connected();
        assert_ne!(other, replica);
        assert_eq!(story.sent(), Sent { conn, ..first });
    }
}

#[test]
fn a_client_that_was_told_no_cluster_learns_it_from_the_first_node_and_keeps_to_it() {
    let (mut story, conn, _) = Story::registered(ClientOptions { cluster: ClusterId::UNNAMED, ..options(3) });
    story.submit(1);
    story.sent();
    let foreign = reply_frame(ClusterId(1), ReplicaId(0), SESSION, RequestNumber(2), created(2));
    story.receive(conn, &foreign);
    assert_eq!(story.disconnects(), [Disconnect::Malformed(Malformed::Cluster)]);
}

#[test]
fn a_registration_that_ends_otherwise_is_tried_elsewhere() {
    let mut story = Story::new(options(3));
    story.submit(1);
    let (conn, _) = story.connected();
    let register = story.sent();
    story.reply(conn, SessionId::NONE, register.number, Ok(Outcome::TenantCreated));
    assert_eq!(story.disconnects(), [Disconnect::Malformed(Malformed::Body)]);
    story.asked();
    story.connected();
    assert_eq!(story.sent().command, Command::Register.encode());
}

#[test]
fn events_of_others_are_ignored() {
    let (mut story, conn, _) = Story::registered(options(1));
    story.submit(1);
    story.sent();
    for other in [Conn(conn.0 + 100), Conn(Conn::ACCEPTED | conn.0)] {
        story.event(Event::Opened { conn: other });
        story.receive(other, b"GET / HTTP/1.1");
        story.event(Event::Sent { conn: other });
        story.closed(other, CloseReason::Ended);
    }
    assert_eq!((story.asked(), story.words()), (vec![], vec![]));
    assert_eq!(story.script.asked, []);
}
