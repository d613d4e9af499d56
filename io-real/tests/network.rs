//! What the network promises, and what it survives.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::bench::free_address;
use common::{PATIENCE, event, event_within, framing, open, packet};
use kimberlite_io::{Address, CloseReason, Conn, Event, Frame, Net, Ordered, Packet};
use kimberlite_io_real::{Driver, DriverNote, OpenError, Options};
use kimberlite_types::ReplicaId;
use kimberlite_types::limits::{
    CONNECTIONS_MAX, FRAME_BODY_SIZE_LIMIT, LINK_QUEUE_MAX, STREAM_CREDIT_INITIAL, STREAM_QUEUE_MAX,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn replica(own: u8, peers: &[SocketAddr]) -> Driver {
    open(Options {
        replica: Some(ReplicaId(own)),
        replica_listen: Some(peers[usize::from(own)]),
        peers: peers.to_vec(),
        framing: Some(framing),
        ..Options::default()
    })
}

fn server() -> (Driver, SocketAddr) {
    let driver = open(Options { client_listen: Some(any_port()), ..Options::default() });
    let address = driver.local_addresses().1.expect("it listens");
    (driver, address)
}

/// A server and a plain socket that is connected to it.
fn server_and_socket() -> (Driver, TcpStream, Conn) {
    let (mut driver, address) = server();
    let socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let conn = opened(&mut driver);
    assert!(conn.is_accepted());
    (driver, socket, conn)
}

fn opened(driver: &mut Driver) -> Conn {
    match event(driver) {
        Event::Opened { conn } => conn,
        other => panic!("a stream opens, not {other:?}"),
    }
}

/// Receives until `count` bytes are there, without granting any.
fn receive(driver: &mut Driver, from: Conn, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match event(driver) {
            Event::Received { conn, data } if conn == from => {
                assert!(!data.is_empty());
                bytes.extend_from_slice(&data);
            }
            other => panic!("bytes come, not {other:?}"),
        }
    }
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 253) as u8).collect()
}

/// Sends until the link is up and the message comes through.
fn exchange(from: &mut Driver, to: &mut Driver, target: u8, message: &Packet) -> Event {
    let start = Instant::now();
    loop {
        from.send(ReplicaId(target), message.clone());
        assert_eq!(event_within(from, Duration::from_millis(20)), None);
        if let Some(event) = event_within(to, Duration::from_millis(20)) {
            return event;
        }
        assert!(start.elapsed() < PATIENCE, "the message comes through");
    }
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order() {
    let peers = [free_address(), free_address()];
    let (mut first, mut second) = (replica(0, &peers), replica(1, &peers));
    let sizes = [0, 1, 100, 4096, 5000, 1 << 20, FRAME_BODY_SIZE_LIMIT as usize];
    for size in sizes {
        first.send(ReplicaId(1), packet(0, Frame::copy_from(&pattern(size))));
    }
    let sender = std::thread::spawn(move || {
        assert_eq!(event_within(&mut first, Duration::from_secs(2)), None);
        first
    });
    for size in sizes {
        let Event::Message { from, packet: arrived } = event(&mut second) else { panic!("a message comes") };
        assert_eq!(from, ReplicaId(0));
        let body = arrived.body.clone();
        assert_eq!(arrived, packet(0, Frame::copy_from(&pattern(size))));
        assert!(body.padded()[size..].iter().all(|byte| *byte == 0), "it can go to disk as it is");
    }
    let mut first = sender.join().expect("no panic");
    assert_eq!(first.stats().messages_sent, sizes.len() as u64);
    assert_eq!(second.stats().messages_received, sizes.len() as u64);
    assert!(first.take_notes().contains(&DriverNote::LinkUp { peer: ReplicaId(1) }));
}

#[test]
fn a_link_comes_back_after_its_peer_was_restarted_on_the_same_port() {
    let peers = [free_address(), free_address()];
    let mut first = replica(0, &peers);
    let mut second = replica(1, &peers);
    let hello = packet(0, Frame::copy_from(b"hello"));
    let expected = Event::Message { from: ReplicaId(0), packet: hello.clone() };
    assert_eq!(exchange(&mut first, &mut second, 1, &hello), expected);
    for _ in 0..3 {
        drop(second);
        assert_eq!(event_within(&mut first, Duration::from_millis(50)), None);
        assert!(first.take_notes().contains(&DriverNote::LinkDown { peer: ReplicaId(1) }));
        second = replica(1, &peers);
        assert_eq!(exchange(&mut first, &mut second, 1, &hello), expected);
    }
    assert_eq!(first.stats().link_ups, 4);
}

#[test]
fn a_link_that_is_down_keeps_the_newest_messages() {
    let peers = [free_address(), free_address()];
    let mut first = replica(0, &peers);
    let excess = 10;
    for number in 0..LINK_QUEUE_MAX + excess {
        first.send(ReplicaId(1), packet(0, Frame::copy_from(&(number as u32).to_le_bytes())));
    }
    assert_eq!(first.stats().link_queue_drops, excess as u64);
    let mut second = replica(1, &peers);
    let sender = std::thread::spawn(move || event_within(&mut first, Duration::from_secs(2)));
    for number in excess..LINK_QUEUE_MAX + excess {
        let Event::Message { packet, .. } = event(&mut second) else { panic!("a message comes") };
        assert_eq!(packet.body[..], (number as u32).to_le_bytes());
    }
    assert_eq!(sender.join().expect("no panic"), None);
}

#[test]
#[should_panic(expected = "no message to itself")]
fn a_message_to_oneself_is_a_bug() {
    let peers = [free_address()];
    replica(0, &peers).send(ReplicaId(0), packet(0, Frame::empty()));
}

#[test]
fn strangers_on_the_replica_port_are_dropped_and_counted() {
    let peers = [free_address(), free_address()];
    let mut driver = replica(0, &peers);
    let address = driver.local_addresses().0.expect("it listens");
    let mut large = packet(1, Frame::empty()).head;
    large[8..12].copy_from_slice(&(FRAME_BODY_SIZE_LIMIT + 1).to_le_bytes());
    let garbage: Vec<u8> = pattern(100_000);
    let mut http = b"GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: browser\r\n".to_vec();
    http.extend_from_slice(&[b'x'; 200]);
    let bad = [
        (http, "wrong magic"),
        (garbage, "wrong magic"),
        (large.to_vec(), "the body is larger than the limit"),
    ];
    for (count, (bytes, reason)) in (1..).zip(bad) {
        let mut socket = TcpStream::connect(address).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let from = socket.local_addr().expect("an address");
        // The driver may hang up before all of it is written.
        let _ = socket.write_all(&bytes);
        assert_eq!(event_within(&mut driver, Duration::from_millis(100)), None);
        let end = socket.read(&mut [0; 16]);
        assert!(matches!(end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
        assert_eq!(driver.stats().frames_malformed, count);
        assert_eq!(driver.stats().last_malformed, Some(reason));
        assert!(driver.take_notes().contains(&DriverNote::MalformedFrame { from, reason }));
    }
    // Torn heads and bodies are no reason for anything.
    for cut in [1, 127, 128 + 50] {
        let message = packet(1, Frame::copy_from(&pattern(100)));
        let bytes = [&message.head[..], &message.body[..]].concat();
        let mut socket = TcpStream::connect(address).expect("connected");
        socket.write_all(&bytes[..cut]).expect("written");
    }
    assert_eq!(event_within(&mut driver, Duration::from_millis(50)), None);
    let mut second = replica(1, &peers);
    let hello = packet(1, Frame::copy_from(b"still here"));
    let expected = Event::Message { from: ReplicaId(1), packet: hello.clone() };
    assert_eq!(exchange(&mut second, &mut driver, 0, &hello), expected);
}

#[test]
fn a_message_that_comes_byte_by_byte_is_put_together() {
    let peers = [free_address(), free_address()];
    let mut driver = replica(0, &peers);
    let mut socket = TcpStream::connect(driver.local_addresses().0.expect("it listens")).expect("connected");
    socket.set_nodelay(true).expect("set");
    let message = packet(1, Frame::copy_from(&pattern(60)));
    for byte in message.head.iter().chain(message.body.iter()) {
        socket.write_all(&[*byte]).expect("written");
        let _ = event_within(&mut driver, Duration::from_micros(100)).map(|event| {
            assert_eq!(event, Event::Message { from: ReplicaId(1), packet: message.clone() });
        });
    }
    let _ = event_within(&mut driver, Duration::from_millis(50));
    assert_eq!(driver.stats().messages_received, 1);
}

#[test]
fn silent_strangers_cannot_keep_peers_out() {
    let peers = [free_address(), free_address()];
    let mut driver = replica(0, &peers);
    let address = driver.local_addresses().0.expect("it listens");
    let strangers: Vec<_> = (0..40).map(|_| TcpStream::connect(address).expect("connected")).collect();
    assert_eq!(event_within(&mut driver, Duration::from_millis(50)), None);
    assert_eq!(driver.stats().replicas_evicted, 40 - 24);
    let mut second = replica(1, &peers);
    let hello = packet(1, Frame::copy_from(b"hello"));
    let expected = Event::Message { from: ReplicaId(1), packet: hello.clone() };
    assert_eq!(exchange(&mut second, &mut driver, 0, &hello), expected);
    drop(strangers);
}

#[test]
fn a_client_and_a_server_talk() {
    let (mut server, address) = server();
    let mut client = open(Options { address_book: vec![free_address(), address], ..Options::default() });
    client.connect(Conn(5), Address(1));
    assert_eq!(event(&mut client), Event::Opened { conn: Conn(5) });
    let conn = opened(&mut server);
    client.stream(Conn(5), Frame::copy_from(b"re"));
    client.stream(Conn(5), Frame::copy_from(b"quest"));
    assert_eq!(event(&mut client), Event::Sent { conn: Conn(5) });
    assert_eq!(receive(&mut server, conn, 7), b"request");
    server.stream(conn, Frame::copy_from(b"reply"));
    assert_eq!(event(&mut server), Event::Sent { conn });
    assert_eq!(receive(&mut client, Conn(5), 5), b"reply");
    client.close(Conn(5));
    let _ = event_within(&mut client, Duration::from_millis(1));
    assert_eq!(event(&mut server), Event::Closed { conn, reason: CloseReason::Ended });
    client.stream(Conn(5), Frame::copy_from(b"late"));
    assert_eq!(event_within(&mut client, Duration::from_millis(20)), None);
}

#[test]
fn nobody_there_is_refused() {
    let mut client = open(Options { address_book: vec![free_address()], ..Options::default() });
    client.connect(Conn(1), Address(0));
    assert_eq!(event(&mut client), Event::Closed { conn: Conn(1), reason: CloseReason::Refused });
}

#[test]
fn bytes_on_the_client_port_are_handed_over_as_they_are() {
    let (mut driver, mut socket, conn) = server_and_socket();
    let http = b"GET / HTTP/1.1\r\n\r\n";
    socket.write_all(http).expect("written");
    assert_eq!(receive(&mut driver, conn, http.len()), http);
    drop(socket);
    assert_eq!(event(&mut driver), Event::Closed { conn, reason: CloseReason::Ended });
}

#[test]
fn credit_stops_a_fast_sender_exactly() {
    let (mut driver, mut socket, conn) = server_and_socket();
    let bytes = pattern(8 << 20);
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        socket.write_all(&sent).expect("written");
        socket
    });
    let initial = STREAM_CREDIT_INITIAL as usize;
    assert_eq!(receive(&mut driver, conn, initial), bytes[..initial]);
    assert_eq!(event_within(&mut driver, Duration::from_millis(100)), None, "the credit is used up");
    assert!(!writer.is_finished(), "the sender is stopped");
    driver.grant(conn, 1000);
    assert_eq!(receive(&mut driver, conn, 1000), bytes[initial..initial + 1000]);
    assert_eq!(event_within(&mut driver, Duration::from_millis(50)), None);
    driver.grant(conn, bytes.len() as u32);
    let rest = receive(&mut driver, conn, bytes.len() - initial - 1000);
    assert!(rest == bytes[initial + 1000..]);
    drop(writer.join().expect("no panic"));
}

#[test]
fn small_messages_beyond_the_credit_are_held_and_told_with_the_next_grant() {
    let (mut driver, mut socket, conn) = server_and_socket();
    // Small writes keep the stream on the receive that goes on; without a grant it outruns the credit.
    let credit = STREAM_CREDIT_INITIAL as usize;
    let bytes = pattern(credit + 50_000);
    for piece in bytes.chunks(1000) {
        socket.write_all(piece).expect("the socket's own buffers take it");
    }
    drop(socket);
    let mut told = receive(&mut driver, conn, credit);
    assert_eq!(told.len(), credit, "no byte more than the credit");
    assert_eq!(event_within(&mut driver, Duration::from_millis(50)), None, "nor the end, before the rest");
    for grant in [1, 999, 60_000] {
        driver.grant(conn, grant);
        let count = (grant as usize).min(bytes.len() - told.len());
        told.extend(receive(&mut driver, conn, count));
    }
    assert!(told == bytes, "in order, each once");
    assert_eq!(event(&mut driver), Event::Closed { conn, reason: CloseReason::Ended });
}

/// Whether this kernel has receives that go on, out of a pool of buffers: since Linux 6.0.
fn kernel_receives_many() -> bool {
    let release =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel tells its release");
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.expect("a release begins with a number") >= 6
}

#[test]
fn one_receive_serves_a_stream_of_small_messages() {
    const MESSAGES: u64 = 100;
    let (mut driver, mut socket, conn) = server_and_socket();
    let bytes = pattern(200);
    for _ in 0..MESSAGES {
        socket.write_all(&bytes).expect("written");
        assert_eq!(receive(&mut driver, conn, bytes.len()), bytes);
        driver.grant(conn, bytes.len() as u32);
    }
    let asked = driver.stats().stream_receives;
    if kernel_receives_many() {
        assert_eq!(asked, 1, "the receive that was asked at first goes on");
    } else {
        assert!(asked >= MESSAGES, "each message takes a receive of its own: {asked}");
    }
}

#[test]
fn a_stream_that_changes_between_much_and_little_loses_nothing() {
    let (mut driver, mut socket, conn) = server_and_socket();
    let bytes = pattern(3_000_000);
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || {
        let (mut at, mut turn) = (0, 0);
        while at < sent.len() {
            let size = [10, 4096, 200_000, 300, 4095, 70_000, 1][turn % 7].min(sent.len() - at);
            socket.write_all(&sent[at..at + size]).expect("written");
            (at, turn) = (at + size, turn + 1);
        }
        socket
    });
    let mut told = Vec::new();
    while told.len() < bytes.len() {
        let Event::Received { conn: from, data } = event(&mut driver) else { panic!("bytes come") };
        assert_eq!(from, conn);
        told.extend_from_slice(&data);
        driver.grant(conn, data.len() as u32);
    }
    assert!(told == bytes, "in order, each once");
    drop(writer.join().expect("no panic"));
    assert_eq!(event(&mut driver), Event::Closed { conn, reason: CloseReason::Ended });
}

#[test]
fn a_reader_that_does_not_read_is_closed() {
    let (mut driver, socket, conn) = server_and_socket();
    let reply = Frame::copy_from(&pattern(FRAME_BODY_SIZE_LIMIT as usize));
    let mut queued = 0;
    let closed = loop {
        driver.stream(conn, reply.clone());
        queued += reply.len() as u64;
        match event_within(&mut driver, Duration::from_millis(1)) {
            None | Some(Event::Sent { .. }) => {}
            Some(other) => break other,
        }
        assert!(queued < 200 << 20, "it is closed before it has cost much");
    };
    assert_eq!(closed, Event::Closed { conn, reason: CloseReason::Broken });
    assert!(queued > STREAM_QUEUE_MAX);
    assert_eq!(driver.stats().slow_readers, 1);
    driver.stream(conn, reply);
    assert_eq!(event_within(&mut driver, Duration::from_millis(20)), None);
    drop(socket);
}

#[test]
fn what_was_queued_before_a_close_is_still_delivered() {
    let (mut driver, mut socket, conn) = server_and_socket();
    let reply = pattern(FRAME_BODY_SIZE_LIMIT as usize);
    for _ in 0..4 {
        driver.stream(conn, Frame::copy_from(&reply));
    }
    // Bytes the core never asked for must not turn the end into a reset.
    socket.write_all(&pattern(100_000)).expect("written");
    driver.close(conn);
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).expect("an orderly end");
        bytes
    });
    let start = Instant::now();
    while !reader.is_finished() && start.elapsed() < PATIENCE {
        assert_eq!(event_within(&mut driver, Duration::from_millis(5)), None, "nothing is heard of it");
    }
    let bytes = reader.join().expect("no panic");
    assert_eq!(bytes.len(), 4 * reply.len());
    assert!(bytes.chunks(reply.len()).all(|chunk| chunk == reply));
}

#[test]
fn a_close_takes_back_what_was_not_handed_over_yet() {
    let (mut driver, address) = server();
    let mut sockets: Vec<_> = (0..2).map(|_| TcpStream::connect(address).expect("connected")).collect();
    let (first, second) = (opened(&mut driver), opened(&mut driver));
    for socket in &mut sockets {
        socket.write_all(b"x").expect("written");
    }
    std::thread::sleep(Duration::from_millis(50));
    let Event::Received { conn, .. } = event(&mut driver) else { panic!("bytes come") };
    driver.close(if conn == first { second } else { first });
    assert_eq!(event_within(&mut driver, Duration::from_millis(50)), None);
}

#[test]
fn a_reply_reaches_a_client_that_has_finished_sending() {
    let (mut driver, mut socket, conn) = server_and_socket();
    socket.write_all(b"question").expect("written");
    assert_eq!(receive(&mut driver, conn, 8), b"question");
    driver.stream(conn, Frame::copy_from(&pattern(1 << 20)));
    socket.shutdown(std::net::Shutdown::Write).expect("shut down");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut ended = false;
    let start = Instant::now();
    while !(ended && reader.is_finished()) && start.elapsed() < PATIENCE {
        match event_within(&mut driver, Duration::from_millis(5)) {
            Some(Event::Closed { reason: CloseReason::Ended, .. }) => ended = true,
            Some(Event::Sent { .. }) if !ended => {}
            None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
    assert!(ended);
    assert_eq!(reader.join().expect("no panic").expect("an orderly end"), pattern(1 << 20));
}

#[test]
fn a_reset_is_heard_as_broken() {
    let (mut driver, socket, conn) = server_and_socket();
    driver.stream(conn, Frame::copy_from(b"unread"));
    assert_eq!(event(&mut driver), Event::Sent { conn });
    // Closing with unread bytes resets the connection.
    while socket.peek(&mut [0; 8]).expect("bytes come") < 6 {}
    drop(socket);
    assert_eq!(event(&mut driver), Event::Closed { conn, reason: CloseReason::Broken });
}

#[test]
fn more_clients_than_the_limit_are_turned_away_at_once() {
    let (mut driver, address) = server();
    // Both ends are in this process.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        sockets.push(TcpStream::connect(address).expect("connected"));
        opened(&mut driver);
    }
    let mut excess = TcpStream::connect(address).expect("connected by the kernel");
    excess.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(event_within(&mut driver, Duration::from_millis(50)), None);
    assert_eq!(excess.read(&mut [0; 1]).expect("an orderly end"), 0);
    assert_eq!(
        (driver.stats().clients_accepted, driver.stats().clients_refused),
        (CONNECTIONS_MAX as u64, 1)
    );
    drop(sockets.pop());
    assert!(matches!(event(&mut driver), Event::Closed { .. }));
    let _next = TcpStream::connect(address).expect("connected");
    opened(&mut driver);
}

#[test]
fn stream_ids_are_not_used_again() {
    let (mut driver, address) = server();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let socket = TcpStream::connect(address).expect("connected");
        assert!(seen.insert(opened(&mut driver)));
        drop(socket);
        assert!(matches!(event(&mut driver), Event::Closed { .. }));
    }
}

#[test]
fn a_port_in_use_is_named() {
    let (_driver, address) = server();
    for (port, options) in [
        ("client", Options { client_listen: Some(address), ..Options::default() }),
        ("replica", Options { replica_listen: Some(address), framing: Some(framing), ..Options::default() }),
    ] {
        match Driver::open(options) {
            Err(error @ OpenError::PortInUse { .. }) => {
                let text = error.to_string();
                assert!(text.contains(port) && text.contains(&address.to_string()), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_waker_wakes_from_another_thread_and_only_once() {
    let mut driver = open(Options::default());
    let waker = driver.waker();
    let start = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        waker.wake();
        waker.wake();
    });
    assert_eq!(driver.next(None).expect("the ring works").1, Event::Wake);
    assert!(start.elapsed() >= Duration::from_millis(30));
    thread.join().expect("no panic");
    driver.waker().wake();
    assert_eq!(driver.next(None).expect("the ring works").1, Event::Wake);
}

#[test]
fn a_wake_comes_on_time_and_not_early() {
    let mut driver = open(Options::default());
    for _ in 0..5 {
        let at = driver.now().monotonic.after(Duration::from_millis(20));
        let (now, event) = driver.next(Some(at)).expect("the ring works");
        assert_eq!(event, Event::Wake);
        assert!(now.monotonic >= at, "not early");
        assert!(now.monotonic.since(at) < Duration::from_secs(1), "not late");
    }
    assert_eq!(driver.try_next(), None);
}

#[test]
fn a_wish_for_a_past_wake_does_not_drown_events() {
    let (mut driver, mut socket, conn) = server_and_socket();
    socket.write_all(b"x").expect("written");
    let past = driver.now().monotonic;
    let start = Instant::now();
    loop {
        let (_, event) = driver.next(Some(past)).expect("the ring works");
        if event != Event::Wake {
            assert_eq!(event, Event::Received { conn, data: Frame::copy_from(b"x") });
            break;
        }
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn dropping_a_driver_in_the_middle_of_everything_is_harmless() {
    let peers = [free_address(), free_address(), free_address()];
    for _ in 0..10 {
        let (mut first, mut second) = (replica(0, &peers), replica(1, &peers));
        for _ in 0..8 {
            first.send(ReplicaId(1), packet(0, Frame::copy_from(&pattern(1 << 20))));
            first.send(ReplicaId(2), packet(0, Frame::copy_from(&pattern(1 << 20))));
        }
        let _ = event_within(&mut first, Duration::from_millis(3));
        let _ = event_within(&mut second, Duration::from_millis(3));
        let _ = event_within(&mut first, Duration::from_millis(3));
    }
}

#[test]
fn sent_waits_for_bytes_that_were_queued_before_it_was_told() {
    let (mut driver, mut first, conn) = server_and_socket();
    let address = driver.local_addresses().1.expect("it listens");
    let mut second = TcpStream::connect(address).expect("connected");
    let other = opened(&mut driver);
    let mut rules = Ordered::new();
    rules.heard(&Event::Opened { conn });
    rules.heard(&Event::Opened { conn: other });
    for _ in 0..50 {
        // What was received and what was sent become known in the same round.
        second.write_all(b"!").expect("written");
        rules.wrap(&mut driver).stream(conn, Frame::copy_from(b"ab"));
        let (mut answered, mut unsent) = (false, true);
        while !answered || unsent {
            let event = event(&mut driver);
            rules.heard(&event);
            if let Event::Received { .. } = event {
                answered = true;
                unsent = true;
                rules.wrap(&mut driver).grant(other, 1);
                rules.wrap(&mut driver).stream(conn, Frame::copy_from(b"cd"));
            } else {
                assert_eq!(event, Event::Sent { conn });
                unsent = false;
            }
        }
        first.read_exact(&mut [0; 4]).expect("all four bytes arrive");
    }
}

/// A driver whose stream 1 is being opened.
fn calling() -> Driver {
    let mut client = open(Options { address_book: vec![free_address()], ..Options::default() });
    client.connect(Conn(1), Address(0));
    client
}

#[test]
#[should_panic(expected = "not open yet")]
fn bytes_for_a_stream_that_is_not_open_yet_break_the_rules() {
    calling().stream(Conn(1), Frame::copy_from(b"early"));
}

#[test]
#[should_panic(expected = "not open yet")]
fn credit_for_a_stream_that_is_not_open_yet_breaks_the_rules() {
    calling().grant(Conn(1), 1);
}
