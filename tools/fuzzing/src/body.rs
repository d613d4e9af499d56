//! Bodies of messages, commands and prepares: what decodes, encodes to the same again.

use kimberlite_io::{Frame, Packet};
use kimberlite_row::fact::Facts;
use kimberlite_types::limits::{COUNTER_LIMIT, FRAME_BODY_SIZE_LIMIT, PREPARE_HEADER_SIZE};
use kimberlite_types::{Op, ReplicaId, View};
use kimberlite_wire::client::{
    ClientFrame, Request, answer_frame, cancel_frame, query_frame, reply_frame, request_frame,
    statement_frame, turn_frame,
};
use kimberlite_wire::command::Command;
use kimberlite_wire::message::Letter;
use kimberlite_wire::{FrameCommand, FrameHeader, LinkKeys, Message, Prepare, PrepareHeader};

use crate::mend;
use crate::script::Script;
use crate::seat::{CLUSTER, SECRET};

const FROM: ReplicaId = ReplicaId(1);
const TO: ReplicaId = ReplicaId(0);

/// The first byte says which kind of body the others are.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    match script.below(4) {
        0 => letter(&mut script),
        1 => client(&mut script),
        2 => command(script.rest()),
        _ => {
            let mended = script.flag();
            let mut bytes = script.rest().to_vec();
            if mended {
                mend::prepare(&mut bytes);
            }
            prepare(&bytes);
        }
    }
}

/// A header whose checksum of the body is right.
fn head(
    command: FrameCommand,
    sender: Option<ReplicaId>,
    script: &mut Script<'_>,
    body: &[u8],
) -> FrameHeader {
    let mut counter = || script.magnitude() % COUNTER_LIMIT;
    let (view, op, commit) = (View(counter()), Op(counter()), Op(counter()));
    FrameHeader {
        command,
        sender,
        cluster: CLUSTER,
        body_size: body.len() as u32,
        view,
        op,
        commit,
        nonce: script.magnitude(),
        body_checksum: kimberlite_crypto::checksum(body),
    }
}

/// A sealed letter of any command, whose body is the fuzzer's.
fn letter(script: &mut Script<'_>) {
    let command = FrameCommand::ALL[script.below(FrameCommand::ALL.len())];
    let mended = script.flag();
    let fields = script.bytes(64);
    let mut body = script.rest().to_vec();
    body.truncate(FRAME_BODY_SIZE_LIMIT as usize);
    let mut header = head(command, Some(FROM), &mut Script::new(fields), &body);
    if command == FrameCommand::Prepare {
        if mended {
            mend::prepare(&mut body);
        }
        // Its checksum is that of the prepare's header, and its op is the prepare's.
        if let Ok(prepare) = PrepareHeader::decode(&body) {
            header.body_checksum = prepare.checksum;
            header.op = prepare.op;
        }
    }
    let theirs = LinkKeys::derive(&SECRET, FROM);
    let ours = LinkKeys::derive(&SECRET, TO);
    let packet = Packet { head: header.encode_for(theirs.send(TO)), body: Frame::copy_from(&body) };
    let Ok(letter) = Letter::open(&packet, FROM, CLUSTER, &ours) else { return };
    assert!(command.between_replicas(), "a client's frame is no letter");
    if let Message::Prepare(prepare) = &letter.message {
        entries(prepare);
    }
    let again = letter.seal(CLUSTER, &theirs, TO);
    assert_eq!(
        Letter::open(&again, FROM, CLUSTER, &ours).as_ref(),
        Ok(&letter),
        "a letter says the same again"
    );
    // What we wrote ourselves has one encoding, for each receiver of several, too.
    let third = letter.seal_for_all(CLUSTER, &theirs, std::iter::once(TO)).remove(0).1;
    assert_eq!(again, third);
    // A sealed letter is for one receiver on one link.
    let other = LinkKeys::derive(&SECRET, ReplicaId(2));
    assert!(Letter::open(&again, FROM, CLUSTER, &other).is_err());
    assert!(Letter::open(&again, ReplicaId(2), CLUSTER, &ours).is_err());
    assert!(Letter::open(&again, TO, CLUSTER, &theirs).is_err(), "a letter sent back does not verify");
}

/// A client's or node's frame.
fn client(script: &mut Script<'_>) {
    let commands = [
        FrameCommand::Request,
        FrameCommand::Query,
        FrameCommand::Reply,
        FrameCommand::Answer,
        FrameCommand::Turn,
        FrameCommand::Commit,
        FrameCommand::Statement,
        FrameCommand::Cancel,
    ];
    let command = commands[script.below(commands.len())];
    let nonce = script.magnitude();
    let body = script.rest();
    if body.len() > FRAME_BODY_SIZE_LIMIT as usize {
        return;
    }
    let mut header = head(command, None, &mut Script::new(&[]), body);
    header.nonce = nonce;
    let Ok(frame) = ClientFrame::decode(&header, &Frame::copy_from(body)) else { return };
    let again = match &frame {
        ClientFrame::Request { session, number, tenant, command } => {
            request_frame(CLUSTER, &Request { session: *session, number: *number, tenant: *tenant, command })
        }
        ClientFrame::Query { nonce, query } => query_frame(CLUSTER, *nonce, query),
        ClientFrame::Statement { nonce, statement } => statement_frame(CLUSTER, *nonce, statement),
        ClientFrame::Cancel { nonce } => cancel_frame(CLUSTER, *nonce),
        ClientFrame::Reply { session, number, verdict } => {
            reply_frame(CLUSTER, FROM, *session, *number, *verdict)
        }
        ClientFrame::Answer { nonce, answer } => answer_frame(CLUSTER, FROM, *nonce, answer),
        ClientFrame::Turn { nonce, turn } => turn_frame(CLUSTER, FROM, *nonce, *turn),
    };
    let size = kimberlite_types::limits::FRAME_HEADER_SIZE;
    let own =
        FrameHeader::decode(again.first_chunk().expect("a frame has a header")).expect("our own header");
    let decoded = ClientFrame::decode(&own, &again.slice(size..again.len()));
    assert_eq!(decoded.as_ref(), Ok(&frame), "a frame says the same again");
    if let ClientFrame::Request { command: bytes, .. } = &frame {
        command_bytes(bytes);
    }
}

fn command(bytes: &[u8]) {
    command_bytes(bytes);
}

fn command_bytes(bytes: &[u8]) {
    let Ok(command) = Command::decode(bytes) else { return };
    if let Command::AppendBatch { records, .. } = &command {
        assert_eq!(records.iter().count(), records.count() as usize, "records are as many as they say");
    }
    if let Command::Facts { facts, .. } | Command::Stage { facts, .. } = &command
        && let Ok(facts) = postcard::from_bytes::<Facts>(facts)
    {
        let again = postcard::to_allocvec(&facts).expect("facts encode");
        assert_eq!(postcard::from_bytes(&again), Ok(facts), "facts say the same again");
    }
    let again = command.encode();
    assert_eq!(Command::decode(&again), Ok(command), "a command says the same again");
    assert!(again.len() <= bytes.len(), "our encoding is the shortest");
}

fn prepare(bytes: &[u8]) {
    if let Ok(header) = PrepareHeader::decode(bytes) {
        assert!(header.is_sound(), "what decodes is sound");
        assert_eq!(header.encode()[..], bytes[..PREPARE_HEADER_SIZE], "a prepare header has one encoding");
    }
    let Ok(prepare) = Prepare::parse(&Frame::copy_from(bytes)) else { return };
    assert_eq!(prepare.frame()[..], bytes[..prepare.header.size as usize]);
    let sectors = prepare.sectors();
    assert_eq!(Prepare::parse(&sectors).as_ref(), Ok(&prepare), "it is read back from its sectors");
    entries(&prepare);
}

/// Walks the entries of a prepare that only its checksums vouch for.
fn entries(prepare: &Prepare) {
    let count = prepare.entries().flatten().count();
    assert!(count <= prepare.header.entries as usize);
    if prepare.verify_chain(&kimberlite_crypto::ChainHash::GENESIS).is_ok() {
        assert_eq!(count, prepare.header.entries as usize, "a chain that holds covers every entry");
    }
}
