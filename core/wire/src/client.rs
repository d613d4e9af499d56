//! The frames between a client and a node: the frame header of [`crate::header`] and a postcard body.

use alloc::string::String;
use alloc::vec::Vec;

use kimberlite_crypto::checksum;
use kimberlite_io::{Buf, Frame};
use kimberlite_types::limits::{FRAME_BODY_SIZE_LIMIT, FRAME_HEADER_SIZE};
use kimberlite_types::{
    ClusterId, Offset, Op, ReplicaId, RequestNumber, SessionId, StreamId, TenantId, View,
};
use serde::{Deserialize, Serialize};

use crate::Malformed;
use crate::command::{RecordsBuilder, SqlCode, Verdict};
use crate::header::{Command as FrameCommand, FrameHeader};

/// A request: a command to be done once. The command's bytes follow the body's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The session, or [`SessionId::NONE`] to register one.
    pub session: SessionId,
    /// The client's counter. For a registration, a random number that only matches the reply.
    pub number: RequestNumber,
    /// The tenant.
    pub tenant: TenantId,
    /// The encoded command.
    pub command: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct RequestHead {
    session: SessionId,
    number: RequestNumber,
    tenant: TenantId,
}

/// Something to be told. Changes nothing and leaves no trace in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Records of a stream, confirmed to be the latest.
    ReadEvents {
        /// The tenant.
        tenant: TenantId,
        /// The stream.
        stream: StreamId,
        /// The first record wanted.
        from: Offset,
        /// Records wanted at most.
        records_max: u32,
        /// Bytes of records wanted at most; at least one record is sent if there is one.
        bytes_max: u32,
    },
    /// How a stream stands, confirmed to be the latest.
    StreamInfo {
        /// The tenant.
        tenant: TenantId,
        /// The stream.
        stream: StreamId,
    },
    /// How this node stands. Answered by any node, from what it knows.
    Status,
    /// The streams of a tenant by number, confirmed to be the latest: one page of them.
    Streams {
        /// The tenant.
        tenant: TenantId,
        /// The first number wanted.
        from: StreamId,
        /// Streams wanted at most; at most [`STREAMS_ANSWERED_MAX`] are sent.
        streams_max: u32,
    },
}

/// Streams in one answer: with the longest names a quarter of the largest frame.
pub const STREAMS_ANSWERED_MAX: u32 = 1_000;

/// A stream in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedStream {
    /// Its number.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// Its next offset, which is the number of its records.
    pub end: Offset,
}

/// Frames that the answer to one statement may take: 64 MiB.
pub const SQL_PARTS_MAX: usize = 64;

/// Bytes of one statement's text: what the largest frame holds, less what surrounds it.
pub const STATEMENT_SIZE_MAX: usize = FRAME_BODY_SIZE_LIMIT as usize - 64;

/// A statement of SQL. The connection that carries it is its session, and it is run at most once: whoever sent it and
/// lost the connection does not know what became of it, and must not send it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The tenant whose tables it is about: the same for all statements of a connection.
    pub tenant: TenantId,
    /// Whether it belongs to a transaction block that an earlier answer left open. If that block is gone, with its
    /// connection or its primary, the statement is refused instead of run by itself.
    pub in_block: bool,
    /// One statement, with or without a semicolon behind it.
    pub text: String,
}

/// What became of a [`Statement`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlAnswer {
    /// Whether a transaction block is open now.
    pub in_block: bool,
    /// What it gave.
    pub result: Result<SqlRows, SqlFailure>,
}

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlRows {
    /// The command tag, as PostgreSQL sends it; empty if the text held no statement.
    pub tag: String,
    /// The columns; none of a statement that gives no rows.
    pub columns: Vec<SqlColumn>,
    /// The rows: one cell for each column, in PostgreSQL's text output; none is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// What a person should be told besides.
    pub notices: Vec<String>,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlColumn {
    /// Its name.
    pub name: String,
    /// The name of its type.
    pub kind: String,
}

/// Why a statement did nothing, or why it is not known whether it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlFailure {
    /// The condition.
    pub code: SqlCode,
    /// One sentence.
    pub message: String,
    /// The character of the text it is about, counted from 1.
    pub position: Option<u32>,
    /// More about the case.
    pub detail: Option<String>,
    /// What to try.
    pub hint: Option<String>,
}

/// The answer to a [`Query`] or a [`Statement`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Records, in order, from the offset asked for.
    Events {
        /// The offset of the first record sent.
        from: Offset,
        /// The stream's next offset: where its records end.
        end: Offset,
        /// The records.
        records: RecordsBuilder,
    },
    /// A stream's state.
    Stream {
        /// Its name.
        name: alloc::string::String,
        /// Its next offset, which is the number of its records.
        end: Offset,
    },
    /// A node's state.
    Status(Status),
    /// The tenant or stream does not exist.
    Refused(crate::command::Refusal),
    /// Records wanted are damaged on this node's disk, and it has no peer to repair them from.
    Damaged {
        /// The op that holds them.
        op: Op,
    },
    /// What became of a statement.
    Sql(SqlAnswer),
    /// Streams, by number.
    Streams {
        /// Those from the number asked for on, none left out between them.
        streams: Vec<ListedStream>,
        /// Whether there are more behind them.
        more: bool,
    },
    /// Rows that a statement gave and that did not fit into one frame; more follow, and then what became of it.
    SqlPart(SqlRows),
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node.
    pub replica: ReplicaId,
    /// Its view.
    pub view: View,
    /// The primary of that view.
    pub primary: ReplicaId,
    /// `normal`, `view change`, `recovering`…
    pub state: alloc::string::String,
    /// Its highest op.
    pub op: Op,
    /// The highest op it executed.
    pub commit: Op,
    /// Ops it knows to be damaged on its disk and not yet repaired.
    pub faulty: u32,
    /// Its last checkpoint, if there is one: a restart begins with it.
    pub checkpoint: Option<CheckpointStatus>,
    /// Of a primary: what it knows of every replica, itself included.
    pub peers: Vec<PeerStatus>,
}

/// A node's last checkpoint that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The op whose state it is.
    pub op: Op,
    /// Pages that it has.
    pub pages: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// What a primary knows of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The replica.
    pub replica: ReplicaId,
    /// Its highest op, as last heard.
    pub op: Op,
    /// What it has executed or knows to be committed, as last heard.
    pub commit: Op,
    /// Milliseconds since it was last heard; none if never.
    pub heard_ms: Option<u64>,
}

/// A node's word about where to turn instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Turn {
    /// Ask this replica: it is the primary as far as this node knows.
    Primary(ReplicaId),
    /// No primary is known; ask again later.
    Later,
    /// Too many requests wait; ask again later.
    Busy,
    /// The frame was understood and refused: larger than the cluster's limit.
    TooLarge,
}

/// A decoded client frame, on either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// A request; its command is a part of the frame.
    Request {
        /// The session.
        session: SessionId,
        /// The counter.
        number: RequestNumber,
        /// The tenant.
        tenant: TenantId,
        /// The encoded command.
        command: Frame,
    },
    /// A query.
    Query {
        /// To match the answer.
        nonce: u64,
        /// What is asked.
        query: Query,
    },
    /// A statement.
    Statement {
        /// To match the answer.
        nonce: u64,
        /// What is to be run.
        statement: Statement,
    },
    /// The statement with this nonce is no longer wanted. It is answered as ever: as cancelled, unless it was done.
    Cancel {
        /// The statement's nonce.
        nonce: u64,
    },
    /// The final word on a request.
    Reply {
        /// The request's session; [`SessionId::NONE`] for a registration.
        session: SessionId,
        /// The request's counter.
        number: RequestNumber,
        /// What became of it.
        verdict: Verdict,
    },
    /// The answer to a query.
    Answer {
        /// The query's nonce.
        nonce: u64,
        /// The answer.
        answer: Answer,
    },
    /// Turn elsewhere. Answers the request or query with this nonce (a request's number).
    Turn {
        /// The nonce of the query, or the number of the request.
        nonce: u64,
        /// Where to.
        turn: Turn,
    },
}

#[derive(Serialize, Deserialize)]
struct ReplyBody {
    session: SessionId,
    number: RequestNumber,
    verdict: Verdict,
}

fn frame(
    cluster: ClusterId,
    sender: Option<ReplicaId>,
    command: FrameCommand,
    nonce: u64,
    parts: &[&[u8]],
) -> Frame {
    let body_size: usize = parts.iter().map(|part| part.len()).sum();
    let mut buf = Buf::packed(FRAME_HEADER_SIZE + body_size);
    let mut at = FRAME_HEADER_SIZE;
    for part in parts {
        buf[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    let header = FrameHeader {
        command,
        sender,
        cluster,
        body_size: body_size as u32,
        view: View::ZERO,
        op: Op::ZERO,
        commit: Op::ZERO,
        nonce,
        body_checksum: checksum(&buf[FRAME_HEADER_SIZE..]),
    };
    buf[..FRAME_HEADER_SIZE].copy_from_slice(&header.encode());
    buf.freeze()
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("our own bodies encode")
}

/// The frame of a request.
pub fn request_frame(cluster: ClusterId, request: &Request<'_>) -> Frame {
    let head = RequestHead { session: request.session, number: request.number, tenant: request.tenant };
    let parts: [&[u8]; 2] = [&encode(&head), request.command];
    frame(cluster, None, FrameCommand::Request, request.number.0, &parts)
}

/// The frame of a query.
pub fn query_frame(cluster: ClusterId, nonce: u64, query: &Query) -> Frame {
    frame(cluster, None, FrameCommand::Query, nonce, &[&encode(query)])
}

/// The frame of a statement, whose text is not longer than [`STATEMENT_SIZE_MAX`].
pub fn statement_frame(cluster: ClusterId, nonce: u64, statement: &Statement) -> Frame {
    frame(cluster, None, FrameCommand::Statement, nonce, &[&encode(statement)])
}

/// The frame that ends a statement.
pub fn cancel_frame(cluster: ClusterId, nonce: u64) -> Frame {
    frame(cluster, None, FrameCommand::Cancel, nonce, &[])
}

/// The frame of a reply.
pub fn reply_frame(
    cluster: ClusterId,
    from: ReplicaId,
    session: SessionId,
    number: RequestNumber,
    verdict: Verdict,
) -> Frame {
    let body = ReplyBody { session, number, verdict };
    frame(cluster, Some(from), FrameCommand::Reply, number.0, &[&encode(&body)])
}

/// The frame of an answer.
pub fn answer_frame(cluster: ClusterId, from: ReplicaId, nonce: u64, answer: &Answer) -> Frame {
    frame(cluster, Some(from), FrameCommand::Answer, nonce, &[&encode(answer)])
}

/// The frame that sends a client elsewhere.
pub fn turn_frame(cluster: ClusterId, from: ReplicaId, nonce: u64, turn: Turn) -> Frame {
    frame(cluster, Some(from), FrameCommand::Turn, nonce, &[&encode(&turn)])
}

impl ClientFrame {
    /// Reads the body of a frame whose header was decoded.
    pub fn decode(header: &FrameHeader, body: &Frame) -> Result<Self, Malformed> {
        if header.body_size as usize != body.len() {
            return Err(Malformed::Size);
        }
        if checksum(body) != header.body_checksum {
            return Err(Malformed::BodyChecksum);
        }
        let malformed = |_| Malformed::Body;
        match header.command {
            FrameCommand::Request => {
                let (head, command): (RequestHead, _) = postcard::take_from_bytes(body).map_err(malformed)?;
                let RequestHead { session, number, tenant } = head;
                let command = body.slice(body.len() - command.len()..body.len());
                Ok(Self::Request { session, number, tenant, command })
            }
            FrameCommand::Query => {
                let query = postcard::from_bytes(body).map_err(malformed)?;
                Ok(Self::Query { nonce: header.nonce, query })
            }
            FrameCommand::Statement => {
                let statement = postcard::from_bytes(body).map_err(malformed)?;
                Ok(Self::Statement { nonce: header.nonce, statement })
            }
            FrameCommand::Cancel if body.is_empty() => Ok(Self::Cancel { nonce: header.nonce }),
            FrameCommand::Cancel => Err(Malformed::Body),
            FrameCommand::Reply => {
                let ReplyBody { session, number, verdict } = postcard::from_bytes(body).map_err(malformed)?;
                Ok(Self::Reply { session, number, verdict })
            }
            FrameCommand::Answer => {
                let answer = postcard::from_bytes(body).map_err(malformed)?;
                Ok(Self::Answer { nonce: header.nonce, answer })
            }
            FrameCommand::Turn => {
                let turn = postcard::from_bytes(body).map_err(malformed)?;
                Ok(Self::Turn { nonce: header.nonce, turn })
            }
            _ => Err(Malformed::Unknown),
        }
    }
}

/// Cuts a byte stream into frames. Memory is bounded by one frame of the largest size.
#[derive(Debug, Default)]
pub struct Splitter {
    pending: Vec<u8>,
    frame: Option<(FrameHeader, Buf, usize)>,
}

impl Splitter {
    /// Takes in what was `received` and hands each complete frame to `deliver`. After an error the stream is lost.
    ///
    /// With a `cluster`, a frame of another one is malformed; a frame that names none is not.
    pub fn take(
        &mut self,
        received: &Frame,
        cluster: Option<ClusterId>,
        mut deliver: impl FnMut(FrameHeader, Frame),
    ) -> Result<(), Malformed> {
        let mut bytes = &received[..];
        while !bytes.is_empty() {
            match &mut self.frame {
                None => {
                    let wanted = FRAME_HEADER_SIZE - self.pending.len();
                    let (now, later) = bytes.split_at(wanted.min(bytes.len()));
                    self.pending.extend_from_slice(now);
                    bytes = later;
                    if let Ok(head) = <&[u8; FRAME_HEADER_SIZE]>::try_from(self.pending.as_slice()) {
                        let header = FrameHeader::decode(head)?;
                        let named = header.cluster != ClusterId::UNNAMED;
                        if named && cluster.is_some_and(|cluster| cluster != header.cluster) {
                            return Err(Malformed::Cluster);
                        }
                        self.pending.clear();
                        let size = header.body_size as usize;
                        // A body that is here whole is not copied, unless a few bytes would keep much alive.
                        if size <= bytes.len() && size >= received.held() / 4 {
                            let at = received.len() - bytes.len();
                            bytes = &bytes[size..];
                            deliver(header, received.slice(at..at + size));
                        } else {
                            self.frame = Some((header, Buf::packed(size), 0));
                        }
                    }
                }
                Some((_, body, filled)) => {
                    let count = (body.len() - *filled).min(bytes.len());
                    body[*filled..*filled + count].copy_from_slice(&bytes[..count]);
                    *filled += count;
                    bytes = &bytes[count..];
                }
            }
            if self.frame.as_ref().is_some_and(|(_, body, filled)| *filled == body.len()) {
                let (header, body, _) = self.frame.take().expect("just seen");
                deliver(header, body.freeze());
            }
        }
        Ok(())
    }

    /// Bytes of memory held for the frame that is coming in.
    pub fn held(&self) -> usize {
        self.pending.len() + self.frame.as_ref().map_or(0, |(_, body, _)| body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Outcome;
    use kimberlite_types::LogPosition;

    const CLUSTER: ClusterId = ClusterId(3);

    fn frames() -> Vec<Frame> {
        let position = LogPosition { op: Op(4), index: 2 };
        let verdict = Verdict { position, result: Ok(Outcome::TenantCreated) };
        let request = Request {
            session: SessionId(position),
            number: RequestNumber(9),
            tenant: TenantId(1),
            command: b"a command",
        };
        let mut records = RecordsBuilder::default();
        records.push(b"record");
        vec![
            request_frame(CLUSTER, &request),
            query_frame(CLUSTER, 5, &Query::Status),
            reply_frame(CLUSTER, ReplicaId(1), SessionId(position), RequestNumber(9), verdict),
            answer_frame(
                CLUSTER,
                ReplicaId(1),
                5,
                &Answer::Events { from: Offset(1), end: Offset(2), records },
            ),
            turn_frame(CLUSTER, ReplicaId(1), 5, Turn::Primary(ReplicaId(2))),
        ]
    }

    #[test]
    fn frames_cut_anywhere_come_out_whole_and_in_order() {
        let frames = frames();
        let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.to_vec()).collect();
        for cut in 1..200 {
            let mut splitter = Splitter::default();
            let mut decoded = Vec::new();
            for chunk in stream.chunks(cut) {
                splitter
                    .take(&Frame::packed(chunk), Some(CLUSTER), |header, body| {
                        decoded.push(ClientFrame::decode(&header, &body).unwrap());
                    })
                    .unwrap();
            }
            assert_eq!(decoded.len(), frames.len(), "cut {cut}");
            assert!(
                matches!(&decoded[0], ClientFrame::Request { command, .. } if **command == *b"a command")
            );
            assert!(matches!(decoded[4], ClientFrame::Turn { nonce: 5, .. }));
            assert_eq!(splitter.held(), 0);
        }
    }

    #[test]
    fn a_frame_that_names_no_cluster_is_taken_and_one_of_another_cluster_is_not() {
        let take = |named: ClusterId| {
            let frame = query_frame(named, 5, &Query::Status);
            let mut count = 0;
            Splitter::default().take(&frame, Some(CLUSTER), |_, _| count += 1).map(|()| count)
        };
        assert_eq!(take(CLUSTER), Ok(1));
        assert_eq!(take(ClusterId::UNNAMED), Ok(1));
        assert_eq!(take(ClusterId(4)), Err(Malformed::Cluster));
    }

    #[test]
    fn http_on_the_client_port_is_malformed_and_not_a_panic() {
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(5);
        let mut splitter = Splitter::default();
        let result = splitter.take(&Frame::packed(&request), None, |_, _| panic!("no frame in here"));
        assert_eq!(result, Err(Malformed::Magic));
    }
}
