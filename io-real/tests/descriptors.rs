//! What happens when the process may open no more descriptors. Alone in its process, whose limits it changes.

mod common;

use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use common::{event, event_within, open};
use kimberlite_io::Event;
use kimberlite_io_real::{DriverNote, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn clients_that_find_no_descriptor_wait_until_there_is_one() {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let before = getrlimit(Resource::Nofile);
    let small = Rlimit { current: Some(256), maximum: before.maximum };
    setrlimit(Resource::Nofile, small).expect("lowered");
    let mut driver = open(Options { client_listen: Some(listen), ..Options::default() });
    let raised = getrlimit(Resource::Nofile);
    assert!(raised.current > small.current, "opening asks for what a full node needs");

    let address = driver.local_addresses().1.expect("it listens");
    let clients: Vec<_> = (0..6).map(|_| TcpStream::connect(address).expect("connected")).collect();
    let last = clients.iter().map(|client| client.as_raw_fd().cast_unsigned()).max().expect("some");
    setrlimit(Resource::Nofile, Rlimit { current: Some(u64::from(last) + 3), maximum: before.maximum })
        .expect("lowered");
    for _ in 0..2 {
        assert!(matches!(event(&mut driver), Event::Opened { .. }));
    }
    assert_eq!(event_within(&mut driver, Duration::from_millis(250)), None);
    assert!((1..=4).contains(&driver.stats().accept_failures), "it tries again, but not in a busy loop");
    assert!(driver.take_notes().iter().any(|note| matches!(note, DriverNote::AcceptFailed { .. })));

    setrlimit(Resource::Nofile, raised).expect("raised");
    for _ in 0..4 {
        assert!(matches!(event(&mut driver), Event::Opened { .. }));
    }
    assert_eq!(driver.stats().clients_accepted, 6);
}
