//! The life of a production node, lived again in this process: no disk, no network, the same node.
//!
//! The node is opened with the secret that everybody knows: the frames of a recording are authenticated with it where
//! the real ones were authentic (`kimberlite_wire::Resealer`). It is told what the recorded one was told, and every
//! event's digest says whether it asked for the same.

use std::collections::BTreeMap;
use std::io::Read;

use kimberlite_bundle::{Ended, Entry, Opening, ReadError, Reader, Standing, Tail};
use kimberlite_io::{Ask, Asked, EffectDigest, Event, Machine as _, Recorder, Step};
use kimberlite_runtime::{Node, Note};
use kimberlite_types::{Now, Op};
use kimberlite_wire::REPLAY_SECRET;

use crate::failure::{Failure, catch};

/// Asks that a parting tells one by one at most.
const ASKS_TOLD_MAX: usize = 12;

/// What came of living a recording again.
#[derive(Debug)]
pub struct Relived {
    /// How the node was opened.
    pub opening: Opening,
    /// Events it was told.
    pub events: u64,
    /// Those after which its asks were found equal. The last one of a life that ended abruptly is not judged: nobody
    /// knows what it led to.
    pub confirmed: u64,
    /// How often its state was found equal.
    pub states_confirmed: u64,
    /// Events by name.
    pub kinds: BTreeMap<&'static str, u64>,
    /// When it heard the first event, and the last.
    pub from: Now,
    /// When it heard the last event.
    pub until: Now,
    /// Bytes of the file that were verified.
    pub bytes: u64,
    /// How the file ends; none when it could not be read to its end.
    pub tail: Option<Tail>,
    /// What is committed at the end.
    pub commit: Op,
    /// The digest of the state at the end.
    pub state: [u8; 32],
    /// The digest of all asks at the end.
    pub asks: EffectDigest,
    /// Why the node halted, if it did.
    pub halted: Option<String>,
    /// Where the lives part, if they do.
    pub parting: Option<FlightParting>,
    /// The panic the node ended with, if it did.
    pub panic: Option<Failure>,
}

/// Where a life lived again differs from the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlightParting {
    /// The number of the event, counted from 1.
    pub event: u64,
    /// When it was heard.
    pub at: Now,
    /// What was heard.
    pub heard: String,
    /// What differs.
    pub what: String,
    /// What the node asks for now.
    pub asked: Vec<String>,
}

impl Relived {
    /// Whether everything that is recorded happened again.
    pub const fn is_exact(&self) -> bool {
        self.parting.is_none() && self.panic.is_none()
    }
}

/// A node that is told its life.
struct Life {
    node: Node,
    recorder: Recorder,
    asked: Asked,
    notes: Vec<Note>,
    last: Option<(Now, String)>,
    lived: Relived,
}

/// Lives a recording again. Ends at the first difference. An error says that the file could not be read, or not to its
/// end: then what went before was confirmed, and `told` has it.
pub fn relive<R: Read>(mut reader: Reader<R>) -> (Relived, Result<(), ReadError>) {
    let mut life = Life::new(reader.opening().clone());
    let result = loop {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                if !life.take(entry) {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    life.lived.bytes = reader.verified();
    life.lived.tail = reader.tail();
    (life.finish(), result)
}

impl Life {
    fn new(opening: Opening) -> Self {
        let lived = Relived {
            events: 0,
            confirmed: 0,
            states_confirmed: 0,
            kinds: BTreeMap::new(),
            from: opening.at,
            until: opening.at,
            bytes: 0,
            tail: None,
            commit: Op::ZERO,
            state: [0; 32],
            asks: EffectDigest::EMPTY,
            halted: None,
            parting: None,
            panic: None,
            opening,
        };
        Self {
            node: Node::new(lived.opening.config, &REPLAY_SECRET, lived.opening.seed),
            recorder: Recorder::new(),
            asked: Asked::new(),
            notes: Vec::new(),
            last: None,
            lived,
        }
    }

    /// One entry. Tells whether to go on.
    fn take(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Event(step) => self.confirm(step.before) && self.live(step),
            Entry::Standing(standing) => self.stand(&standing),
            Entry::Ended { why, standing, asks } => {
                let halts = self.node.halted().is_some() == (why == Ended::Halted);
                self.confirm(asks) && (halts || self.part("whether the node halts")) && self.stand(&standing)
            }
        }
    }

    /// Whether the asks so far are those of the record.
    fn confirm(&mut self, asks: EffectDigest) -> bool {
        if self.recorder.digest() != asks {
            return self.part("it asks for something else");
        }
        self.lived.confirmed = self.lived.events;
        true
    }

    fn stand(&mut self, then: &Standing) -> bool {
        let commit = self.node.replica().commit();
        if then.events != self.lived.events {
            self.part("the number of events that were handled")
        } else if then.commit != commit {
            self.part(&format!("ops committed: {commit} now, {} then", then.commit))
        } else if then.state != self.node.digest().0 {
            self.part("the digest of its state")
        } else {
            self.lived.states_confirmed += 1;
            true
        }
    }

    /// Notes that the lives part at the last event.
    fn part(&mut self, what: &str) -> bool {
        let (at, heard) =
            self.last.clone().unwrap_or_else(|| (self.lived.opening.at, "its opening".to_owned()));
        let asks = self.asked.take();
        let mut asked: Vec<String> = asks.iter().take(ASKS_TOLD_MAX).map(ask_in_words).collect();
        if asks.len() > ASKS_TOLD_MAX {
            asked.push(format!("and {} more", asks.len() - ASKS_TOLD_MAX));
        }
        let event = self.lived.events;
        self.lived.parting = Some(FlightParting { event, at, heard, what: what.to_owned(), asked });
        false
    }

    fn live(&mut self, step: Step) -> bool {
        let Step { now, event, .. } = step;
        let lived = &mut self.lived;
        lived.events += 1;
        lived.until = now;
        if lived.events == 1 {
            lived.from = now;
        }
        *lived.kinds.entry(kind_of(&event)).or_default() += 1;
        self.last = Some((now, event_in_words(&event)));
        self.asked.take();
        let Self { node, recorder, asked, notes, .. } = self;
        let result = catch(|| node.on(now, event, &mut recorder.wrap(asked), notes));
        for note in self.notes.drain(..) {
            if let Note::Halted(reason) = note {
                self.lived.halted = Some(reason.to_string());
            }
        }
        match result {
            Ok(()) => true,
            Err(caught) => {
                let mut failure = caught.into_failure();
                (failure.event, failure.at) = (self.lived.events, now.monotonic);
                failure.replica = Some(self.lived.opening.config.replica);
                self.lived.panic = Some(failure);
                false
            }
        }
    }

    fn finish(self) -> Relived {
        let Self { node, recorder, mut lived, .. } = self;
        lived.asks = recorder.digest();
        lived.commit = node.replica().commit();
        lived.state = node.digest().0;
        lived
    }
}

/// The name of a kind of event.
pub(crate) const fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Wake => "wake",
        Event::Read { .. } => "read",
        Event::Written { .. } => "written",
        Event::Trimmed { .. } => "trimmed",
        Event::Message { .. } => "message",
        Event::Opened { .. } => "opened",
        Event::Received { .. } => "received",
        Event::Sent { .. } => "sent",
        Event::Closed { .. } => "closed",
    }
}

fn event_in_words(event: &Event) -> String {
    match event {
        Event::Message { from, packet } => match kimberlite_wire::FrameHeader::decode(&packet.head) {
            Ok(head) => format!("{:?} from replica {from}, op {}, view {}", head.command, head.op, head.view),
            Err(why) => format!("a message from replica {from} that is none: {}", why.reason()),
        },
        Event::Received { conn, data } => format!("{} bytes received on {conn:?}", data.len()),
        Event::Read { token, result: Ok(bytes) } => format!("{token:?} read, {} bytes", bytes.len()),
        other => format!("{other:?}"),
    }
}

fn ask_in_words(ask: &Ask) -> String {
    match ask {
        Ask::Read { token, at, len } => format!("read {len} bytes at {at} ({token:?})"),
        Ask::Write { token, at, data } => format!("write {} bytes at {at} ({token:?})", data.len()),
        Ask::Trim { token, at, len } => format!("trim {len} bytes at {at} ({token:?})"),
        Ask::Send { to, packet } => match kimberlite_wire::FrameHeader::decode(&packet.head) {
            Ok(head) => {
                format!("send {:?} to replica {to}, op {}, view {}", head.command, head.op, head.view)
            }
            Err(_) => format!("send something to replica {to}"),
        },
        Ask::Stream { conn, data } => format!("{} bytes to {conn:?}", data.len()),
        other => format!("{other:?}"),
    }
}
