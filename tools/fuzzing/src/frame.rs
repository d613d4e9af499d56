//! Frame headers, and the cutting of a client's byte stream into frames.

use kimberlite_io::Frame;
use kimberlite_types::limits::{FRAME_BODY_SIZE_LIMIT, FRAME_HEADER_SIZE};
use kimberlite_wire::client::{ClientFrame, Splitter};
use kimberlite_wire::{FrameHeader, Malformed, framing_of};

use crate::mend;
use crate::script::Script;
use crate::seat::CLUSTER;

/// The first byte says whether checksums are made true, the second how the stream is cut; the rest is the stream.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mended = script.flag();
    let cut = script.below(256) + 1;
    let mut stream = script.rest().to_vec();
    if mended {
        mend_stream(&mut stream);
    }
    header(&stream);
    let whole = split(&stream, stream.len().max(1));
    let pieces = split(&stream, cut);
    assert_eq!(whole, pieces, "what a stream says does not depend on where it is cut");
}

/// Makes the heads and bodies of a stream true, as long as the sizes it names fit.
fn mend_stream(stream: &mut [u8]) {
    let mut at = 0;
    while stream.len() - at >= FRAME_HEADER_SIZE {
        let left = stream.len() - at;
        let named = u32::from_le_bytes(stream[at + 24..at + 28].try_into().expect("four bytes")) as usize;
        let size = if (FRAME_HEADER_SIZE..=left).contains(&named) { named } else { left };
        mend::client_frame(&mut stream[at..at + size]);
        at += size;
    }
}

fn header(bytes: &[u8]) {
    let Some(head) = bytes.first_chunk::<FRAME_HEADER_SIZE>() else { return };
    let decoded = FrameHeader::decode(head);
    let shape = framing_of(head);
    let Ok(header) = decoded else {
        assert!(shape.is_err(), "a driver takes no frame that does not decode");
        return;
    };
    assert!(header.body_size <= FRAME_BODY_SIZE_LIMIT);
    assert_eq!(shape.is_ok(), header.sender.is_some() && header.command.between_replicas());
    if let Ok(shape) = shape {
        assert_eq!((Some(shape.sender), shape.body_size), (header.sender, header.body_size));
    }
    let again = header.encode();
    assert_eq!(FrameHeader::decode(&again), Ok(header), "a header says the same again");
    // All but the authenticator and the checksum over it.
    assert_eq!(again[..96], head[..96], "a header has one encoding");
}

type Said = Vec<(FrameHeader, Result<ClientFrame, Malformed>)>;

fn split(stream: &[u8], cut: usize) -> (Said, Result<(), Malformed>) {
    let mut splitter = Splitter::default();
    let mut said = Vec::new();
    for piece in stream.chunks(cut) {
        let taken =
            splitter.take(&Frame::packed(piece), Some(CLUSTER), |header: FrameHeader, body: Frame| {
                assert_eq!(header.body_size as usize, body.len());
                let frame = ClientFrame::decode(&header, &body);
                said.push((header, frame));
            });
        assert!(splitter.held() <= FRAME_HEADER_SIZE + FRAME_BODY_SIZE_LIMIT as usize);
        if taken.is_err() {
            return (said, taken);
        }
    }
    (said, Ok(()))
}
