//! What replicas say to each other. Names are those of Viewstamped Replication Revisited (Liskov and
//! Cowling, 2012); headers with marks in `DoViewChange` follow Protocol-Aware Recovery (FAST '18).

use alloc::vec::Vec;

use kimberlite_crypto::{Checksum, checksum};
use kimberlite_io::{Frame, Packet};
use kimberlite_types::limits::{COUNTER_LIMIT, PIPELINE_MAX};
use kimberlite_types::{ClusterId, Op, ReplicaId, View};
use serde::{Deserialize, Serialize};

use crate::header::{Command, FrameHeader, LinkKeys};
use crate::{Malformed, Prepare, PrepareHeader};

/// Headers in one `DoViewChange` or `StartView` at most: a full pipeline and the op it stands on.
pub const HEADERS_MAX: usize = PIPELINE_MAX + 1;

/// What a replica knows of an op that it names in `DoViewChange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// It holds the whole prepare.
    Present,
    /// It never held it durably, and so never acknowledged it.
    Nack,
    /// It may have held it: the copy is damaged.
    Unknown,
}

/// A message between replicas. The envelope (sender, view, commit) is [`Letter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Hold this op. Also the answer to `RequestPrepare`. When the letter's `commit` is not below the op,
    /// the sender vouches that this very prepare is committed.
    Prepare(Prepare),
    /// I hold this op durably.
    PrepareOk {
        /// The op.
        op: Op,
        /// Its checksum.
        checksum: Checksum,
    },
    /// The letter's `commit` is committed; I am the primary of its view.
    Commit {
        /// The checksum of the committed op.
        checksum: Checksum,
        /// The highest op of the primary's log.
        op: Op,
        /// The leadership round this starts or belongs to.
        round: u64,
    },
    /// I heard a `Commit` of this view.
    CommitOk {
        /// The highest op of my log.
        op: Op,
        /// The round of the `Commit`.
        round: u64,
    },
    /// I want a view to start. When the letter's own view is above the receiver's, a quorum wanted that one
    /// once, so whoever hears this should follow.
    StartViewChange {
        /// The view.
        wanted: View,
    },
    /// I left all earlier views; this is my log.
    DoViewChange {
        /// The last view whose log I adopted.
        log_view: View,
        /// The highest op of my log.
        op: Op,
        /// The last op behind `op` that I may have acknowledged, where places behind it are unreadable; `op`
        /// itself when it is certainly the end.
        doubt_until: Op,
        /// My headers up to `op`, in order, without gaps: the last [`HEADERS_MAX`], or all there are.
        headers: Vec<(PrepareHeader, Mark)>,
    },
    /// The view has started; this is its log.
    StartView {
        /// The nonce of the `RequestStartView` this answers, or zero.
        nonce: u64,
        /// The log's last headers, in order, without gaps. The last one is its head.
        headers: Vec<PrepareHeader>,
    },
    /// Which view is it, and what is its log?
    RequestStartView {
        /// Returned in the answer.
        nonce: u64,
    },
    /// Send me prepares.
    RequestPrepare {
        /// The first op.
        op: Op,
        /// How many, counted from `op`; at least 1.
        count: u32,
        /// The checksum of the one prepare wanted; when none, only committed prepares, or, from the
        /// primary of the same view, those of its log.
        checksum: Option<Checksum>,
    },
    /// Asked for a committed op whose copy here is damaged or missing: I cannot send it, but my log names this
    /// prepare. Whoever still has it in doubt may trust it.
    Vouch {
        /// The op, not above the letter's `commit`.
        op: Op,
        /// Its checksum.
        checksum: Checksum,
    },
    /// Send me this page of a checkpoint. No matter of consensus: view and commit of the letter say nothing here.
    RequestPage {
        /// Its place, counted in pages.
        address: u64,
        /// Its digest.
        digest: Checksum,
    },
    /// The answer to `RequestPage`.
    Page {
        /// As asked.
        address: u64,
        /// The digest of the bytes, which is the one that was asked for; as asked, where there are none.
        digest: Checksum,
        /// The page; none: it is not here.
        bytes: Option<Frame>,
    },
}

/// A message in its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who sent it; authenticated.
    pub from: ReplicaId,
    /// The sender's view.
    pub view: View,
    /// The highest op the sender knows to be committed.
    pub commit: Op,
    /// What it says.
    pub message: Message,
}

/// A postcard body for the messages whose content does not fit the frame header.
#[derive(Serialize, Deserialize)]
enum Body {
    DoViewChange { log_view: View, doubt_until: Op, headers: Vec<(PrepareHeader, Mark)> },
    StartView { headers: Vec<PrepareHeader> },
    RequestPrepare { count: u32, checksum: Option<Checksum> },
}

impl Letter {
    /// The frame of this letter for one receiver.
    pub fn seal(&self, cluster: ClusterId, keys: &LinkKeys, to: ReplicaId) -> Packet {
        let draft = Draft::of(&self.message);
        draft.address(self, cluster, keys, to)
    }

    /// The frames of this letter for several receivers: its body is encoded and hashed once.
    pub fn seal_for_all(
        &self,
        cluster: ClusterId,
        keys: &LinkKeys,
        receivers: impl Iterator<Item = ReplicaId>,
    ) -> Vec<(ReplicaId, Packet)> {
        let draft = Draft::of(&self.message);
        receivers.map(|to| (to, draft.address(self, cluster, keys, to))).collect()
    }

    /// Opens a frame. `claimed` is who the link says it is from.
    pub fn open(
        packet: &Packet,
        claimed: ReplicaId,
        cluster: ClusterId,
        keys: &LinkKeys,
    ) -> Result<Self, Malformed> {
        let header = FrameHeader::decode(&packet.head)?;
        if header.cluster != cluster {
            return Err(Malformed::Cluster);
        }
        if header.sender != Some(claimed) || !header.command.between_replicas() {
            return Err(Malformed::Unknown);
        }
        keys.verify(claimed, &packet.head)?;
        if header.body_size as usize != packet.body.len() {
            return Err(Malformed::Size);
        }
        let message = decode(&header, &packet.body)?;
        Ok(Self { from: claimed, view: header.view, commit: header.commit, message })
    }
}

/// The parts of a frame that do not depend on its receiver.
struct Draft {
    command: Command,
    op: Op,
    nonce: u64,
    body: Frame,
    body_checksum: Checksum,
}

impl Draft {
    fn of(message: &Message) -> Self {
        let (command, op, nonce) = match message {
            Message::Prepare(prepare) => {
                return Self {
                    command: Command::Prepare,
                    op: prepare.header.op,
                    nonce: 0,
                    body: prepare.frame().clone(),
                    body_checksum: prepare.header.checksum,
                };
            }
            Message::PrepareOk { op, checksum } => {
                return Self::bare(Command::PrepareOk, *op, 0, *checksum);
            }
            Message::Vouch { op, checksum } => {
                return Self::bare(Command::Vouch, *op, 0, *checksum);
            }
            Message::Commit { checksum, op, round } => {
                return Self::bare(Command::Commit, *op, *round, *checksum);
            }
            Message::RequestPage { address, digest } => {
                return Self::bare(Command::RequestPage, Op(*address), 0, *digest);
            }
            Message::Page { address, digest, bytes } => {
                let body = bytes.clone().unwrap_or_else(Frame::empty);
                return Self { body, ..Self::bare(Command::Page, Op(*address), 0, *digest) };
            }
            Message::CommitOk { op, round } => {
                return Self::bare(Command::CommitOk, *op, *round, Checksum::ZERO);
            }
            Message::StartViewChange { wanted } => {
                return Self::bare(Command::StartViewChange, Op::ZERO, wanted.0, Checksum::ZERO);
            }
            Message::RequestStartView { nonce } => {
                return Self::bare(Command::RequestStartView, Op::ZERO, *nonce, Checksum::ZERO);
            }
            Message::DoViewChange { op, .. } => (Command::DoViewChange, *op, 0),
            Message::StartView { nonce, .. } => (Command::StartView, Op::ZERO, *nonce),
            Message::RequestPrepare { op, .. } => (Command::RequestPrepare, *op, 0),
        };
        let body = match message {
            Message::DoViewChange { log_view, doubt_until, headers, .. } => Body::DoViewChange {
                log_view: *log_view,
                doubt_until: *doubt_until,
                headers: headers.clone(),
            },
            Message::StartView { headers, .. } => Body::StartView { headers: headers.clone() },
            Message::RequestPrepare { count, checksum, .. } => {
                Body::RequestPrepare { count: *count, checksum: *checksum }
            }
            _ => unreachable!("messages without a body were handled above"),
        };
        let bytes = postcard::to_allocvec(&body).expect("our own bodies encode");
        Self { command, op, nonce, body_checksum: checksum(&bytes), body: Frame::copy_from(&bytes) }
    }

    /// A frame without a body; the checksum field carries `value`.
    fn bare(command: Command, op: Op, nonce: u64, value: Checksum) -> Self {
        Self { command, op, nonce, body: Frame::empty(), body_checksum: value }
    }

    fn address(&self, letter: &Letter, cluster: ClusterId, keys: &LinkKeys, to: ReplicaId) -> Packet {
        let header = FrameHeader {
            command: self.command,
            sender: Some(letter.from),
            cluster,
            body_size: self.body.len() as u32,
            view: letter.view,
            op: self.op,
            commit: letter.commit,
            nonce: self.nonce,
            body_checksum: self.body_checksum,
        };
        Packet { head: header.encode_for(keys.send(to)), body: self.body.clone() }
    }
}

fn decode(header: &FrameHeader, body: &Frame) -> Result<Message, Malformed> {
    let op = header.op;
    let bare = |message| if body.is_empty() { Ok(message) } else { Err(Malformed::Size) };
    match header.command {
        Command::Prepare => {
            let prepare = Prepare::parse(body)?;
            let same = prepare.header.checksum == header.body_checksum
                && prepare.header.op == op
                && prepare.header.size as usize == body.len();
            if same { Ok(Message::Prepare(prepare)) } else { Err(Malformed::BodyChecksum) }
        }
        Command::PrepareOk => bare(Message::PrepareOk { op, checksum: header.body_checksum }),
        Command::Commit => bare(Message::Commit { checksum: header.body_checksum, op, round: header.nonce }),
        Command::Vouch => bare(Message::Vouch { op, checksum: header.body_checksum }),
        Command::CommitOk => bare(Message::CommitOk { op, round: header.nonce }),
        Command::StartViewChange if header.nonce >= COUNTER_LIMIT => Err(Malformed::Size),
        Command::StartViewChange => bare(Message::StartViewChange { wanted: View(header.nonce) }),
        Command::RequestStartView => bare(Message::RequestStartView { nonce: header.nonce }),
        Command::RequestPage => bare(Message::RequestPage { address: op.0, digest: header.body_checksum }),
        Command::Page => {
            let bytes = (!body.is_empty()).then(|| body.clone());
            if bytes.as_ref().is_some_and(|bytes| checksum(bytes) != header.body_checksum) {
                return Err(Malformed::BodyChecksum);
            }
            Ok(Message::Page { address: op.0, digest: header.body_checksum, bytes })
        }
        Command::DoViewChange | Command::StartView | Command::RequestPrepare => {
            if checksum(body) != header.body_checksum {
                return Err(Malformed::BodyChecksum);
            }
            let parsed: Body = postcard::from_bytes(body).map_err(|_| Malformed::Body)?;
            decode_body(header, parsed)
        }
        _ => Err(Malformed::Unknown),
    }
}

fn decode_body(header: &FrameHeader, body: Body) -> Result<Message, Malformed> {
    match (header.command, body) {
        (Command::DoViewChange, Body::DoViewChange { log_view, doubt_until, headers }) => {
            ascending(headers.iter().map(|(header, _)| header), header.cluster)?;
            if headers.last().is_none_or(|(last, _)| last.op != header.op) {
                return Err(Malformed::Body);
            }
            Ok(Message::DoViewChange { log_view, op: header.op, doubt_until, headers })
        }
        (Command::StartView, Body::StartView { headers }) => {
            contiguous(headers.iter(), header.cluster)?;
            if headers.is_empty() {
                return Err(Malformed::Body);
            }
            Ok(Message::StartView { nonce: header.nonce, headers })
        }
        (Command::RequestPrepare, Body::RequestPrepare { count, checksum }) => {
            if count == 0 {
                return Err(Malformed::Body);
            }
            Ok(Message::RequestPrepare { op: header.op, count, checksum })
        }
        _ => Err(Malformed::Body),
    }
}

/// Whether headers are sound, of this cluster, few enough, and each the parent of the next.
fn contiguous<'a>(
    headers: impl Iterator<Item = &'a PrepareHeader> + Clone,
    cluster: ClusterId,
) -> Result<(), Malformed> {
    let gap = headers.clone().zip(headers.clone().skip(1)).any(|(low, high)| high.op != low.op.next());
    if gap { Err(Malformed::Body) } else { ascending(headers, cluster) }
}

/// Whether headers are sound, of this cluster, few enough and in the order of their ops, and each the parent of
/// the next if that is the next op.
fn ascending<'a>(
    headers: impl Iterator<Item = &'a PrepareHeader>,
    cluster: ClusterId,
) -> Result<(), Malformed> {
    let mut previous: Option<&PrepareHeader> = None;
    for (count, header) in headers.enumerate() {
        let follows = previous.is_none_or(|previous| {
            header.op > previous.op && (header.op > previous.op.next() || header.parent == previous.checksum)
        });
        if count >= HEADERS_MAX || header.cluster != cluster || !follows || !header.is_sound() {
            return Err(Malformed::Body);
        }
        previous = Some(header);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewEntry, NewPrepare};
    use kimberlite_types::{RequestNumber, SessionId, TenantId, WallTime};

    const CLUSTER: ClusterId = ClusterId(77);

    fn prepare() -> Prepare {
        let root = PrepareHeader::root(CLUSTER);
        let new = NewPrepare {
            parent: &root,
            view: View(1),
            commit: Op(0),
            timestamp: WallTime(9),
            layout: &kimberlite_types::Layout::SMALL,
            proposer: ReplicaId(1),
        };
        let entry = NewEntry {
            session: SessionId::NONE,
            request: RequestNumber(0),
            tenant: TenantId(0),
            command: b"command",
        };
        Prepare::build(&new, &[entry])
    }

    fn all() -> Vec<Message> {
        let prepare = prepare();
        let header = prepare.header;
        vec![
            Message::Prepare(prepare),
            Message::PrepareOk { op: Op(3), checksum: header.checksum },
            Message::Commit { checksum: header.checksum, op: Op(5), round: 9 },
            Message::CommitOk { op: Op(4), round: 9 },
            Message::StartViewChange { wanted: View(5) },
            Message::DoViewChange {
                log_view: View(2),
                op: Op(1),
                doubt_until: Op(2),
                headers: vec![(header, Mark::Nack)],
            },
            Message::StartView { nonce: 3, headers: vec![PrepareHeader::root(CLUSTER), header] },
            Message::RequestStartView { nonce: 8 },
            Message::Vouch { op: Op(2), checksum: header.checksum },
            Message::RequestPrepare { op: Op(6), count: 2, checksum: None },
            Message::RequestPage { address: 70, digest: header.checksum },
            Message::Page { address: 70, digest: header.checksum, bytes: None },
            Message::Page {
                address: 71,
                digest: checksum(b"a page"),
                bytes: Some(Frame::copy_from(b"a page")),
            },
        ]
    }

    fn keys(me: u8) -> LinkKeys {
        LinkKeys::derive(&[1; 32], ReplicaId(me))
    }

    #[test]
    fn every_message_survives_its_frame() {
        for message in all() {
            let letter = Letter { from: ReplicaId(1), view: View(4), commit: Op(2), message };
            let packet = letter.seal(CLUSTER, &keys(1), ReplicaId(0));
            assert_eq!(Letter::open(&packet, ReplicaId(1), CLUSTER, &keys(0)), Ok(letter));
        }
    }

    #[test]
    fn any_flipped_bit_of_a_frame_is_noticed() {
        for message in all() {
            let letter = Letter { from: ReplicaId(1), view: View(4), commit: Op(2), message };
            let packet = letter.seal(CLUSTER, &keys(1), ReplicaId(0));
            for bit in 0..(packet.head.len() + packet.body.len()) * 8 {
                let mut broken = packet.clone();
                let byte = bit / 8;
                if byte < broken.head.len() {
                    broken.head[byte] ^= 1 << (bit % 8);
                } else {
                    let mut body = broken.body.to_vec();
                    body[byte - broken.head.len()] ^= 1 << (bit % 8);
                    broken.body = Frame::copy_from(&body);
                }
                assert!(Letter::open(&broken, ReplicaId(1), CLUSTER, &keys(0)).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn headers_that_do_not_chain_are_refused() {
        let header = prepare().header;
        let message = Message::StartView { nonce: 0, headers: vec![header, header] };
        let letter = Letter { from: ReplicaId(1), view: View(4), commit: Op(2), message };
        let packet = letter.seal(CLUSTER, &keys(1), ReplicaId(0));
        assert_eq!(Letter::open(&packet, ReplicaId(1), CLUSTER, &keys(0)), Err(Malformed::Body));
    }
}
