//! What each command does, as tables of command and result.

use super::*;
use crate::StreamState;
use crate::tables::Unwritten;
use kimberlite_types::limits::NAME_SIZE_MAX;

#[test]
fn each_command_has_its_outcome_and_each_refusal_its_reason() {
    let other = StreamId(2);
    let long_name = "x".repeat(NAME_SIZE_MAX + 1);
    let story: Vec<(Vec<u8>, Result)> = vec![
        (create_stream(VISITS), Err(Refusal::NoTenant)),
        (append(VISITS, None, &[b"a"]), Err(Refusal::NoTenant)),
        (create_tenant(), Ok(Outcome::TenantCreated)),
        (create_tenant(), Err(Refusal::TenantExists)),
        (append(VISITS, None, &[b"a"]), Err(Refusal::NoStream)),
        (create_stream(VISITS), Ok(Outcome::StreamCreated)),
        (create_stream(VISITS), Err(Refusal::StreamExists)),
        (append(VISITS, None, &[b"a", b"b"]), appended(0, 2)),
        (append(VISITS, Some(1), &[b"c"]), Err(Refusal::OffsetMismatch { actual: Offset(2) })),
        (append(VISITS, Some(3), &[b"c"]), Err(Refusal::OffsetMismatch { actual: Offset(2) })),
        (append(VISITS, Some(2), &[b"c"]), appended(2, 1)),
        (append(VISITS, None, &[]), Err(Refusal::Malformed)),
        (Command::CreateTenant { name: &long_name }.encode(), Err(Refusal::Malformed)),
        (Command::Register.encode(), Err(Refusal::Malformed)),
        (b"no command".to_vec(), Err(Refusal::Malformed)),
        (Vec::new(), Err(Refusal::Malformed)),
        (create_stream(other), Ok(Outcome::StreamCreated)),
        (append(other, Some(0), &[b""]), appended(0, 1)),
        (append(VISITS, None, &[b"d"]), appended(3, 1)),
    ];
    let mut log = Log::new(1);
    log.commit(&[register()]);
    for (step, (command, expected)) in story.into_iter().enumerate() {
        let heard = log.commit_one(ask(session(1, 0), step as u64 + 1, command));
        assert_eq!(heard.verdict.result, expected, "step {step}");
        assert_eq!(heard.verdict.position.op, Op(step as u64 + 2));
        assert!(!heard.duplicate);
    }
    let visits = log.kernel.stream(CLINIC, VISITS).unwrap();
    assert_eq!(visits, StreamState { name: "visits", end: Offset(4) });
    assert_eq!(log.read(VISITS, 0), [b"a", b"b", b"c", b"d"]);
    assert_eq!(log.read(other, 0), [b""]);
}

#[test]
fn entries_of_one_prepare_see_what_those_before_them_did() {
    let mut log = Log::new(8);
    log.commit(&[register(), register()]);
    let (one, two) = (session(1, 0), session(1, 1));
    let verdicts = log.commit(&[
        ask(one, 1, create_tenant()),
        ask(two, 1, create_stream(VISITS)),
        ask(one, 2, append(VISITS, Some(0), &[b"first"])),
        ask(two, 2, append(VISITS, Some(0), &[b"too late"])),
        ask(two, 3, append(VISITS, Some(1), &[b"second"])),
    ]);
    let results: Vec<Result> = verdicts.iter().map(|heard| heard.verdict.result).collect();
    let mismatch = Err(Refusal::OffsetMismatch { actual: Offset(1) });
    let created = [Ok(Outcome::TenantCreated), Ok(Outcome::StreamCreated)];
    assert_eq!(results[..2], created);
    assert_eq!(results[2..], [appended(0, 1), mismatch, appended(1, 1)]);
}

#[test]
fn two_tenants_may_use_the_same_stream_id_and_never_meet() {
    let (mut log, writer) = Log::with_stream();
    let bank = TenantId(8);
    let at_bank = |number, command| Ask { tenant: bank, ..ask(writer, number, command) };
    assert_eq!(log.result(at_bank(3, append(VISITS, None, &[b"x"]))), Err(Refusal::NoTenant));
    log.commit(&[at_bank(4, create_tenant()), at_bank(5, create_stream(VISITS))]);
    assert_eq!(log.result(at_bank(6, append(VISITS, None, &[b"bank"]))), appended(0, 1));
    assert_eq!(log.result(ask(writer, 7, append(VISITS, None, &[b"clinic"]))), appended(0, 1));
    assert_eq!(log.read(VISITS, 0), [b"clinic"]);
    assert_eq!(log.kernel.stream(TenantId(9), VISITS), Err(Refusal::NoTenant));
    assert_eq!(log.kernel.stream(bank, StreamId(2)), Err(Refusal::NoStream));
}

#[test]
fn an_op_without_entries_moves_the_log_and_nothing_else() {
    let (mut log, _) = Log::with_stream();
    let chain = log.kernel.chain();
    assert_eq!(log.commit(&[]), []);
    assert_eq!((log.kernel.applied(), log.kernel.chain()), (Op(3), chain));
}

#[test]
#[should_panic(expected = "ops are applied in order, each once")]
fn applying_an_op_twice_is_a_bug() {
    let (mut log, _) = Log::with_stream();
    log.kernel.apply(&log.prepares[1]);
}

#[test]
#[should_panic(expected = "the chain continues where the log ended")]
fn applying_another_logs_prepare_is_a_bug() {
    let (mut log, writer) = Log::with_stream();
    let mut fork = Log::new(8);
    fork.commit(&[register(), register()]);
    fork.commit(&[]);
    log.kernel.apply(&fork.prepare(&[ask(writer, 3, create_tenant())]));
}

#[test]
#[should_panic(expected = "a decision is installed into the state it was made for")]
fn a_decision_that_was_overtaken_cannot_be_installed() {
    let (mut log, writer) = Log::with_stream();
    let batch = append(VISITS, Some(0), &[b"a"]);
    let prepare = log.prepare(&[ask(writer, 3, batch.clone()), ask(writer, 4, batch)]);
    let decisions: Vec<_> =
        prepare.entries().map(|entry| log.kernel.decide(&entry.unwrap(), &Unwritten).unwrap()).collect();
    for decision in decisions {
        log.kernel.install(decision);
    }
}
