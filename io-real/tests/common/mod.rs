//! What the tests share: drivers on temporary directories and loopback ports, and waiting for events.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod bench;

use std::time::Duration;

use kimberlite_io::{Buf, Disk, Event, Frame, FrameShape, Packet, Place, ReadFault, Token, WriteFault};
use kimberlite_io_real::{DataDirectory, Driver, Geometry, Options};
use kimberlite_types::ReplicaId;
use kimberlite_types::limits::{FRAME_HEADER_SIZE, SECTOR_SIZE};
use tempfile::TempDir;

pub(crate) const SECTOR: u64 = SECTOR_SIZE as u64;

/// Small zones, and segments of four sectors so that they roll over soon.
pub(crate) const GEOMETRY: Geometry =
    Geometry { superblock_size: 16 * SECTOR, headers_size: 8 * SECTOR, segment_size: 4 * SECTOR };

/// Longer than anything here takes; reached only when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An empty directory on the disk that holds the build, where direct I/O is to be had.
pub(crate) fn temporary() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

pub(crate) fn open(options: Options) -> Driver {
    Driver::open(options).unwrap_or_else(|error| panic!("the driver opens: {error}"))
}

pub(crate) fn format(parent: &TempDir) -> Driver {
    let data = DataDirectory::create(parent.path().join("data"), GEOMETRY);
    let data = data.unwrap_or_else(|error| panic!("the directory is formatted: {error}"));
    open(Options { data: Some(data), ..Options::default() })
}

pub(crate) fn reopen(parent: &TempDir) -> Driver {
    let data = DataDirectory::open(parent.path().join("data"));
    let data = data.unwrap_or_else(|error| panic!("the directory is opened: {error}"));
    open(Options { data: Some(data), ..Options::default() })
}

/// The next event that is no wake, or `None` when `patience` is over.
pub(crate) fn event_within(driver: &mut Driver, patience: Duration) -> Option<Event> {
    let until = driver.now().monotonic.after(patience);
    loop {
        let (now, event) = driver.next(Some(until)).expect("the ring works");
        if event != Event::Wake {
            return Some(event);
        }
        if now.monotonic >= until {
            return None;
        }
    }
}

pub(crate) fn event(driver: &mut Driver) -> Event {
    event_within(driver, PATIENCE).expect("an event comes")
}

pub(crate) fn write(driver: &mut Driver, at: Place, data: Frame) -> Result<(), WriteFault> {
    driver.write(Token(7), at, data);
    match event(driver) {
        Event::Written { token: Token(7), result } => result,
        other => panic!("the answer to the write comes, not {other:?}"),
    }
}

pub(crate) fn read(driver: &mut Driver, at: Place, len: u64) -> Result<Vec<u8>, ReadFault> {
    driver.read(Token(8), at, Buf::zeroed(len as usize));
    match event(driver) {
        Event::Read { token: Token(8), result } => result.map(|buf| buf.to_vec()),
        other => panic!("the answer to the read comes, not {other:?}"),
    }
}

/// Whole sectors that differ from each other and from those of another `tag`.
pub(crate) fn sectors(count: u64, tag: u8) -> Frame {
    let bytes: Vec<u8> = (0..count * SECTOR).map(|at| (at / SECTOR) as u8 ^ (at % 251) as u8 ^ tag).collect();
    Frame::copy_from(&bytes)
}

/// A framing for tests: `KMBT`, the sender, the size of the body.
pub(crate) fn framing(head: &[u8; FRAME_HEADER_SIZE]) -> Result<FrameShape, &'static str> {
    if &head[..4] != b"KMBT" {
        return Err("wrong magic");
    }
    let body_size = u32::from_le_bytes(head[8..12].try_into().expect("four bytes"));
    Ok(FrameShape { sender: ReplicaId(head[4]), body_size })
}

pub(crate) fn packet(sender: u8, body: Frame) -> Packet {
    let mut head = [0; FRAME_HEADER_SIZE];
    head[..4].copy_from_slice(b"KMBT");
    head[4] = sender;
    head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[FRAME_HEADER_SIZE - 1] = 0xAB;
    Packet { head, body }
}
