//! Bundles from anywhere.

use kimberlite_bundle::{HEAD_SIZE, Head, Kind, Reader, pack};
use kimberlite_sim::Bundle;

use crate::script::Script;

/// Where the head's size and hash stand, and what the hash leaves out.
const SIZE_AT: usize = 12;
const HASH: std::ops::Range<usize> = 16..48;

/// The first byte says what the others are: a file, a file whose size and hash are made true, or the content of one.
pub(crate) fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let file = match script.below(3) {
        0 => script.rest().to_vec(),
        1 => mended(script.rest().to_vec()),
        _ => packed(script.rest()),
    };
    if Head::read(&file).is_ok_and(|head| head.kind == Kind::Recording) {
        return read_through(&file);
    }
    let Ok(bundle) = Bundle::decode(&file) else { return };
    assert!(bundle.config.check().is_ok(), "what is replayed makes sense");
    assert_eq!(Bundle::decode(&bundle.encode()), Ok(bundle), "a bundle says the same again");
}

/// Reads a recording to its end, or to where it is none any more. Nothing is believed that was not in the file.
fn read_through(file: &[u8]) {
    let Ok(mut reader) = Reader::open(file) else { return };
    let mut verified = reader.verified();
    while let Ok(Some(_)) = reader.next_entry() {
        assert!(reader.verified() >= verified, "a reader goes forward");
        verified = reader.verified();
    }
    assert!(verified <= file.len() as u64, "no more is verified than is there");
}

/// The file with its size and hash made true.
fn mended(mut file: Vec<u8>) -> Vec<u8> {
    if file.len() >= HEAD_SIZE {
        let size = (file.len() - HEAD_SIZE) as u32;
        file[SIZE_AT..HASH.start].copy_from_slice(&size.to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&file[..HASH.start]);
        hasher.update(&file[HASH.end..]);
        file[HASH].copy_from_slice(hasher.finalize().as_bytes());
    }
    file
}

/// A file with this content.
pub(crate) fn packed(content: &[u8]) -> Vec<u8> {
    pack(Kind::Failure, content)
}
