//! What holds however badly the network and the nodes behave.

use std::collections::BTreeMap;

use super::*;
use kimberlite_types::Streams;
use proptest::prelude::*;

/// Plays a world that answers, stalls, cuts, closes, redirects and babbles by luck, then heals. Answers each
/// command executed, in order, with what the client was told of it.
fn play(seed: u64, commands: u64, faults: u64) {
    let mut luck = Streams::new(seed).stream("world", 0);
    let mut story = Story::new(ClientOptions { seed, ..options(3) });
    let mut executed: BTreeMap<RequestNumber, Vec<u8>> = BTreeMap::new();
    let mut told: Vec<u64> = Vec::new();
    let mut faults_left = faults;
    for ticket in 0..commands {
        story.submit(ticket);
    }
    let mut steps = 0;
    while !story.client.is_idle() {
        steps += 1;
        assert!(steps < 20_000, "the client gets there once faults end");
        if story.script.asked.is_empty() {
            story.wake();
        }
        for asked in story.asked() {
            let faulty = faults_left > 0 && luck.chance_ppm(600_000);
            faults_left -= u64::from(faulty);
            match asked {
                Asked::Connect(conn, _) if faulty => match luck.below(3) {
                    0 => story.closed(conn, CloseReason::Refused),
                    1 => story.closed(conn, CloseReason::Broken),
                    _ => {} // Never opens.
                },
                Asked::Connect(conn, _) => story.event(Event::Opened { conn }),
                Asked::Sent(conn, ClientFrame::Request { session, number, command, .. }) => {
                    // Lost before it was executed, or executed and the reply lost.
                    let arrives = !faulty || luck.chance_ppm(500_000);
                    let reply = if session == SessionId::NONE {
                        let result = Ok(Outcome::Registered { session: SESSION });
                        let verdict = Verdict { position: position(1), result };
                        reply_frame(CLUSTER, ReplicaId(0), session, number, verdict)
                    } else {
                        if arrives {
                            let first = executed.entry(number).or_insert_with(|| command.to_vec());
                            assert_eq!(**first, *command, "a number stands for one command for ever");
                            let last = executed.last_key_value().unwrap();
                            assert_eq!(*last.0, number, "a later command was never sent before");
                        }
                        reply_frame(CLUSTER, ReplicaId(0), session, number, created(number.0))
                    };
                    if !faulty {
                        let cut = luck.index(reply.len());
                        story.receive(conn, &reply[..cut.max(1)]);
                        story.receive(conn, &reply[cut.max(1)..]);
                        continue;
                    }
                    let turn = match luck.below(8) {
                        0 => Turn::Later,
                        1 => Turn::Busy,
                        2 => Turn::Primary(ReplicaId(luck.below(4) as u8)),
                        3 => {
                            let cut = luck.index(reply.len()).max(1);
                            story.receive(conn, &reply[..cut]);
                            story.closed(conn, CloseReason::Broken);
                            continue;
                        }
                        4 => {
                            let mut noise = vec![0; 1 + luck.index(300)];
                            luck.fill(&mut noise);
                            story.receive(conn, &noise);
                            continue;
                        }
                        5 => {
                            story.closed(conn, CloseReason::Ended);
                            continue;
                        }
                        _ => continue, // Silence.
                    };
                    story.turn(conn, number.0, turn);
                }
                Asked::Sent(..) | Asked::Granted(..) | Asked::Closed(_) => {}
            }
        }
        for word in story.words() {
            match word {
                Output::Done { ticket, verdict } => {
                    assert_eq!(verdict, created(ticket + 1));
                    told.push(ticket);
                }
                Output::Failed { .. } | Output::Evicted => panic!("{word:?}"),
                _ => {}
            }
        }
    }
    assert_eq!(told, (0..commands).collect::<Vec<_>>());
    let commands_executed: Vec<Vec<u8>> = executed.into_values().collect();
    assert_eq!(commands_executed, (0..commands).map(command).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_is_executed_once_in_order_and_told_whatever_breaks(
        seed in any::<u64>(),
        commands in 1..12_u64,
        faults in 0..60_u64,
    ) {
        play(seed, commands, faults);
    }

    #[test]
    fn bytes_from_a_node_never_panic_and_settle_nothing(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..10),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let (mut story, conn, _) = Story::registered(options(3));
        story.submit(1);
        let mut reply = reply_frame(CLUSTER, ReplicaId(0), SESSION, RequestNumber(2), created(2)).to_vec();
        let at = at.index(reply.len());
        if reply[at] != value {
            reply[at] = value;
            story.receive(conn, &reply);
        }
        for chunk in chunks {
            story.receive(conn, &chunk);
        }
        prop_assert!(!story.client.is_idle());
        prop_assert_eq!(story.words(), []);
    }
}
