//! What holds for every log.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use kimberlite_store::{Checkpoint, Page, PageRef, Pages};

use super::*;
use crate::tables::{Tables, Unwritten};
use crate::{OpenError, image};

/// Pages as they were handed out to be written.
struct Written<'a>(&'a Checkpoint);

impl Pages for Written<'_> {
    fn page(&self, at: PageRef) -> core::result::Result<&Page, kimberlite_store::Miss> {
        let found = self.0.pages.iter().find(|sealed| sealed.at == at);
        found.map(|sealed| &sealed.page).ok_or_else(|| kimberlite_store::Miss::of(at))
    }
}

fn open(sessions_max: u32, checkpoint: &Checkpoint) -> core::result::Result<Kernel, OpenError> {
    Kernel::open(sessions_max, &checkpoint.root, &Written(checkpoint))
}

/// What one client does next. Small ranges, so that retries, evictions and conflicts are common.
#[derive(Clone, Debug)]
enum Step {
    Register {
        client: usize,
    },
    CreateTenant {
        client: usize,
    },
    CreateStream {
        client: usize,
        stream: u64,
    },
    Append {
        client: usize,
        stream: u64,
        expected: Option<u64>,
        records: Vec<Vec<u8>>,
    },
    /// Sends an earlier request again.
    Again {
        back: usize,
    },
    Garbage {
        client: usize,
        bytes: Vec<u8>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let record = prop::collection::vec(any::<u8>(), 0..12);
    let records = prop::collection::vec(record, 0..4);
    let expected = prop::option::weighted(0.3, 0..12_u64);
    prop_oneof![
        1 => (0..4_usize).prop_map(|client| Step::Register { client }),
        1 => (0..4_usize).prop_map(|client| Step::CreateTenant { client }),
        1 => (0..4_usize, 0..3_u64).prop_map(|(client, stream)| Step::CreateStream { client, stream }),
        8 => (0..4_usize, 0..3_u64, expected, records)
            .prop_map(|(client, stream, expected, records)| Step::Append { client, stream, expected, records }),
        4 => (0..12_usize).prop_map(|back| Step::Again { back }),
        1 => (0..4_usize, prop::collection::vec(any::<u8>(), 0..24))
            .prop_map(|(client, bytes)| Step::Garbage { client, bytes }),
    ]
}

fn history() -> impl Strategy<Value = Vec<Vec<Step>>> {
    prop::collection::vec(prop::collection::vec(step(), 0..7), 1..24)
}

/// Clients, what they asked, and what the verdicts say the streams hold.
struct Model {
    log: Log,
    /// Each client's session and the number of its next request.
    clients: [(SessionId, u64); 4],
    asked: Vec<Ask>,
    streams: BTreeMap<StreamId, Vec<Vec<u8>>>,
    executed: BTreeSet<(SessionId, RequestNumber)>,
}

impl Model {
    fn new() -> Self {
        let mut log = Log::new(3);
        log.commit(&[register(), register(), register(), register()]);
        let first = ask(session(1, 1), 1, create_tenant());
        log.commit(&[first, ask(session(1, 1), 2, create_stream(StreamId(0)))]);
        // The table holds three: the first of the four is evicted already.
        let clients = [0, 1, 2, 3].map(|index| (session(1, index), 3));
        let streams = BTreeMap::from([(StreamId(0), Vec::new())]);
        Self { log, clients, asked: Vec::new(), streams, executed: BTreeSet::new() }
    }

    fn ask_of(&mut self, step: &Step) -> (Ask, Option<usize>) {
        let mut fresh = |client: usize, command| {
            let (session, next) = &mut self.clients[client];
            *next += 1;
            ask(*session, *next - 1, command)
        };
        match step {
            Step::Register { client } => (register(), Some(*client)),
            Step::CreateTenant { client } => (fresh(*client, create_tenant()), None),
            Step::CreateStream { client, stream } => (fresh(*client, create_stream(StreamId(*stream))), None),
            Step::Append { client, stream, expected, records } => {
                let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
                (fresh(*client, append(StreamId(*stream), *expected, &records)), None)
            }
            Step::Again { back } => {
                let last = self.asked.len().checked_sub(back + 1);
                (last.map_or_else(register, |index| self.asked[index].clone()), None)
            }
            Step::Garbage { client, bytes } => (fresh(*client, bytes.clone()), None),
        }
    }

    fn commit(&mut self, steps: &[Step]) {
        let asks: Vec<(Ask, Option<usize>)> = steps.iter().map(|step| self.ask_of(step)).collect();
        let entries: Vec<Ask> = asks.iter().map(|(ask, _)| ask.clone()).collect();
        let verdicts = self.log.commit(&entries);
        for (heard, (ask, registering)) in verdicts.iter().zip(asks) {
            self.asked.push(ask.clone());
            match heard.verdict.result {
                Ok(Outcome::Registered { session }) => {
                    if let Some(client) = registering {
                        self.clients[client] = (session, 1);
                    }
                    continue;
                }
                _ if heard.duplicate => {
                    let known = self.executed.contains(&(ask.session, ask.number));
                    assert!(known, "a duplicate was executed before: {ask:?}");
                    continue;
                }
                Err(Refusal::Stale | Refusal::NoSession) => continue,
                _ => {}
            }
            let fresh = self.executed.insert((ask.session, ask.number));
            assert!(fresh, "executed twice: {ask:?}");
            match (heard.verdict.result, Command::decode(&ask.command)) {
                (Ok(Outcome::StreamCreated), Ok(Command::CreateStream { stream, .. })) => {
                    self.streams.insert(stream, Vec::new());
                }
                (
                    Ok(Outcome::Appended { first, count }),
                    Ok(Command::AppendBatch { stream, expected, records }),
                ) => {
                    let held = self.streams.get_mut(&stream).expect("appended to a stream that exists");
                    assert_eq!(first.0, held.len() as u64, "offsets are dense");
                    assert!(expected.is_none_or(|expected| expected == first));
                    held.extend(records.iter().map(<[u8]>::to_vec));
                    assert_eq!(first.0 + u64::from(count), held.len() as u64);
                }
                (Ok(outcome), command) => panic!("{outcome:?} for {command:?}"),
                (Err(_), _) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_gives_exactly_what_was_accepted_in_order(history in history()) {
        let mut model = Model::new();
        for steps in &history {
            model.commit(steps);
        }
        for (stream, records) in &model.streams {
            for from in 0..=records.len() {
                prop_assert_eq!(&model.log.read(*stream, from as u64), &records[from..]);
            }
        }
    }

    #[test]
    fn the_same_log_gives_the_same_verdicts_and_digests(history in history()) {
        let mut model = Model::new();
        for steps in &history {
            model.commit(steps);
        }
        let mut again = Kernel::new(3);
        let mut other = Kernel::new(3);
        for prepare in &model.log.prepares {
            prop_assert_eq!(again.apply(prepare), other.apply(prepare));
            prop_assert_eq!(again.digest(), other.digest_walk());
        }
        prop_assert_eq!(again.digest(), model.log.kernel.digest());
    }

    #[test]
    fn a_state_opened_from_a_checkpoint_is_the_state_and_what_follows_is_the_same(history in history(), every in 1..4_usize) {
        let mut model = Model::new();
        for steps in &history {
            model.commit(steps);
        }
        let mut whole = Kernel::new(3);
        let mut opened = Kernel::new(3);
        for (index, prepare) in model.log.prepares.iter().enumerate() {
            prop_assert_eq!(whole.apply(prepare), opened.apply(prepare));
            if index % every == 0 {
                let (mut one, mut other) = (opened.clone(), opened);
                let checkpoint = one.checkpoint();
                prop_assert_eq!(&other.checkpoint(), &checkpoint);
                opened = open(3, &checkpoint).expect("what was written is a checkpoint");
                prop_assert!(matches!(open(1, &checkpoint), Err(OpenError::Malformed(_))));
            }
            prop_assert_eq!(opened.digest(), whole.digest());
            prop_assert_eq!(opened.digest_walk(), whole.digest());
        }
    }

    #[test]
    fn an_image_of_any_bytes_is_a_state_or_malformed(
        history in history(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut model = Model::new();
        for steps in &history {
            model.commit(steps);
        }
        let whole = image::encode(&model.log.kernel);
        let mut bytes = whole.clone();
        for (at, byte) in changes {
            bytes[at.index(whole.len())] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(whole.len()));
        }
        // The digest covers all that is behind it, so whatever passes is the state.
        if let Ok(kernel) = image::decode(3, &bytes, Tables::default()) {
            prop_assert_eq!(kernel.digest(), model.log.kernel.digest());
            prop_assert_eq!(kernel.digest_walk(), kernel.digest());
        }
    }

    #[test]
    fn any_command_bytes_give_one_decision_and_change_nothing_until_installed(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            // A valid command with one byte changed gets further than noise does.
            (0..40_usize, any::<u8>()).prop_map(|(at, value)| {
                let mut bytes = append(VISITS, Some(0), &[b"record", b"another"]);
                let at = at % bytes.len();
                bytes[at] = value;
                bytes
            }),
        ],
        op in 0..3_u64,
        index in any::<u32>(),
        number in any::<u64>(),
    ) {
        let (log, _) = Log::with_stream();
        let before = log.kernel.digest();
        let prepare = log.prepare(&[ask(session(op, index % 2), number, bytes)]);
        let entry = prepare.entries().next().unwrap().unwrap();
        let decision = log.kernel.decide(&entry, &Unwritten).unwrap();
        let again = log.kernel.decide(&entry, &Unwritten).unwrap();
        prop_assert_eq!(decision.verdict(), again.verdict());
        prop_assert_eq!(log.kernel.digest_walk(), before);
        let mut kernel = log.kernel.clone();
        let decided = *decision.verdict();
        prop_assert_eq!(kernel.install(decision), decided);
        kernel.finish(&prepare.header);
        prop_assert_eq!(kernel.digest(), kernel.digest_walk());
    }
}
