//! Bytes from strangers, on both ports.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use kimberlite_types::limits::FRAME_BODY_SIZE_LIMIT;

use crate::world::{PATIENCE, Three, await_some, kmb, kmb_with};

/// Sends bytes, and expects that the other side hangs up.
#[track_caller]
fn is_hung_up_on(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // It may hang up before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{address}: {error}"),
    }
    assert_eq!(answer, b"", "strangers are told nothing");
}

/// A frame header that is right in everything but the size of its body.
fn oversized() -> Vec<u8> {
    let mut head = kimberlite_wire::client::query_frame(
        kimberlite_types::ClusterId::UNNAMED,
        1,
        &kimberlite_wire::client::Query::Status,
    )[..128]
        .to_vec();
    head[24..28].copy_from_slice(&(FRAME_BODY_SIZE_LIMIT + 129).to_le_bytes());
    let sum = kimberlite_crypto::checksum(&head[..112]);
    head[112..].copy_from_slice(&sum.as_bytes()[..16]);
    head.extend(vec![7; 4096]);
    head
}

/// Bytes without a pattern, the same in every run.
fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(100_000)
    .collect()
}

#[test]
fn garbage_on_either_port_is_hung_up_on_counted_and_harmless() {
    let three = Three::new();
    kmb_with(&["append", "--stream", "s", "--nodes", &three.nodes], b"before\n").ok();
    three.settled();
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".repeat(4);
    let port = |list: &str| list.split(',').next().unwrap().to_owned();
    let ports = [(port(&three.nodes), "client_malformed"), (port(&three.replicas), "replica_malformed")];
    for (address, event) in ports {
        for (count, bytes) in [http.clone(), noise(), oversized()].iter().enumerate() {
            is_hung_up_on(&address, bytes);
            await_some("a note about it", || (three.node(0).events(event).len() > count).then_some(()));
        }
        // Says nothing, sends half a frame, goes away.
        drop(TcpStream::connect(&address).unwrap());
        let mut half = TcpStream::connect(&address).unwrap();
        half.write_all(&oversized()[..60]).unwrap();
    }
    kmb_with(&["append", "--stream", "s", "--nodes", &three.nodes], b"after\n").ok();
    assert_eq!(kmb(&["read", "--stream", "s", "--nodes", &three.nodes]).ok(), "before\nafter\n");
    three.settled();
    assert_eq!(three.node(0).events("halted").len(), 0);
}
