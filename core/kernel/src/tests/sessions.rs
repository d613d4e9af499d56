//! At most once, however often and wherever a request lands in the log.

use super::*;
use crate::Lookup;

#[test]
fn a_duplicate_gets_the_first_verdict_and_burns_no_offset() {
    let (mut log, writer) = Log::with_stream();
    let request = ask(writer, 3, append(VISITS, None, &[b"a", b"b"]));
    let first = log.commit_one(request.clone());
    // Once in a later prepare, and twice within one.
    let later = log.commit_one(request.clone());
    let within_one = log.commit(&[request.clone(), request]);
    for heard in [later, within_one[0], within_one[1]] {
        assert!(heard.duplicate);
        assert_eq!(heard.verdict, first.verdict);
    }
    assert_eq!(log.result(ask(writer, 4, append(VISITS, None, &[b"c"]))), appended(2, 1));
    assert_eq!(log.read(VISITS, 0), [b"a", b"b", b"c"]);
}

#[test]
fn a_refusal_is_the_final_word_even_if_the_reason_is_gone() {
    let (mut log, writer) = Log::with_stream();
    let early = ask(writer, 3, append(StreamId(2), None, &[b"a"]));
    assert_eq!(log.result(early.clone()), Err(Refusal::NoStream));
    let other = session(4, 0);
    log.commit(&[register()]);
    assert_eq!(log.result(ask(other, 1, create_stream(StreamId(2)))), Ok(Outcome::StreamCreated));
    let again = log.commit_one(early);
    assert!(again.duplicate);
    assert_eq!(again.verdict.result, Err(Refusal::NoStream));
}

#[test]
fn a_duplicate_is_told_by_its_number_not_by_its_bytes() {
    let (mut log, writer) = Log::with_stream();
    log.commit(&[ask(writer, 3, append(VISITS, None, &[b"a"]))]);
    let heard = log.commit_one(ask(writer, 3, append(VISITS, None, &[b"another"])));
    assert_eq!((heard.duplicate, heard.verdict.result), (true, appended(0, 1)));
    assert_eq!(log.read(VISITS, 0), [b"a"]);
}

#[test]
fn an_older_request_is_stale_and_does_not_become_the_last() {
    let (mut log, writer) = Log::with_stream();
    let last = log.commit_one(ask(writer, 9, append(VISITS, None, &[b"a"])));
    for number in [8, 1, 0] {
        let heard = log.commit_one(ask(writer, number, append(VISITS, None, &[b"b"])));
        assert_eq!((heard.duplicate, heard.verdict.result), (false, Err(Refusal::Stale)), "{number}");
        assert_eq!(log.kernel.reply_of(writer, RequestNumber(number)), Lookup::Stale);
    }
    assert_eq!(log.kernel.reply_of(writer, RequestNumber(9)), Lookup::Duplicate(last.verdict));
    assert_eq!(log.kernel.reply_of(writer, RequestNumber(10)), Lookup::New);
}

#[test]
fn number_zero_is_no_request_even_right_after_the_registration() {
    let mut log = Log::new(8);
    log.commit(&[register()]);
    assert_eq!(log.result(ask(session(1, 0), 0, create_tenant())), Err(Refusal::Stale));
}

#[test]
fn without_a_session_only_registering_is_possible() {
    let (mut log, _) = Log::with_stream();
    for unknown in [SessionId::NONE, session(2, 0), session(99, 0)] {
        let result = log.result(ask(unknown, 1, append(VISITS, None, &[b"a"])));
        assert_eq!(result, Err(Refusal::NoSession), "{unknown:?}");
    }
    assert_eq!(log.result(ask(SessionId::NONE, 1, vec![0xff])), Err(Refusal::Malformed));
    assert_eq!(log.kernel.reply_of(session(99, 0), RequestNumber(1)), Lookup::NoSession);
    assert_eq!(log.kernel.reply_of(SessionId::NONE, RequestNumber(1)), Lookup::New);
}

#[test]
fn a_retried_registration_makes_another_session() {
    let mut log = Log::new(8);
    let ids: Vec<Result> =
        log.commit(&[register(), register()]).iter().map(|heard| heard.verdict.result).collect();
    let registered = |op, index| Ok(Outcome::Registered { session: session(op, index) });
    assert_eq!(ids, [registered(1, 0), registered(1, 1)]);
}

#[test]
fn the_session_that_was_idle_for_the_longest_is_evicted() {
    let mut log = Log::new(2);
    log.commit(&[register(), register()]);
    let (busy, idle) = (session(1, 0), session(1, 1));
    log.commit(&[ask(busy, 1, create_tenant())]);
    log.commit(&[register()]);
    let new = session(3, 0);
    assert_eq!(log.result(ask(idle, 1, create_stream(VISITS))), Err(Refusal::NoSession));
    assert_eq!(log.result(ask(busy, 2, create_stream(VISITS))), Ok(Outcome::StreamCreated));
    // Now the new one is the older of the two. Its duplicates would not keep it, for they get no verdict.
    log.commit(&[register()]);
    assert_eq!(log.kernel.reply_of(new, RequestNumber(1)), Lookup::NoSession);
    assert_eq!(log.kernel.reply_of(busy, RequestNumber(3)), Lookup::New);
}

#[test]
fn a_duplicate_does_not_renew_its_session() {
    let mut log = Log::new(2);
    log.commit(&[register(), register()]);
    let (one, two) = (session(1, 0), session(1, 1));
    let request = ask(one, 1, create_tenant());
    log.commit(&[request.clone(), ask(two, 1, create_stream(VISITS)), request, register()]);
    assert_eq!(log.kernel.reply_of(one, RequestNumber(2)), Lookup::NoSession);
    assert_eq!(log.kernel.reply_of(two, RequestNumber(2)), Lookup::New);
}

#[test]
fn an_evicted_sessions_request_is_refused_rather_than_done_twice() {
    let mut log = Log::new(1);
    log.commit(&[register()]);
    let request = ask(session(1, 0), 1, create_tenant());
    assert_eq!(log.result(request.clone()), Ok(Outcome::TenantCreated));
    log.commit(&[register()]);
    let heard = log.commit_one(request);
    assert_eq!((heard.duplicate, heard.verdict.result), (false, Err(Refusal::NoSession)));
}
