//! A bench for the conformance suite: drivers on loopback ports and temporary directories, each on its own
//! thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use kimberlite_io::Place;
use kimberlite_io::conformance::{self, Bench, Geometry, MachineFactory, Verdict, Verdicts};
use kimberlite_io_real::{DataDirectory, Driver, Options};
use kimberlite_types::ReplicaId;
use tempfile::TempDir;

/// The largest zone of fixed size and the smallest segment that the suite fits in.
const GEOMETRY: Geometry = Geometry {
    superblock_size: 16 * super::SECTOR,
    headers_size: 16 * super::SECTOR,
    segment_size: Geometry::SEGMENT_SIZE_MIN,
};

/// Nodes that have a disk and addresses: as many as the largest phase has.
const NODES: usize = 2;

/// An address nobody listens on, of this process and call alone: loopback is 127.0.0.0/8, and connections
/// go out from 127.0.0.1, so none of them can take the port by chance.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [low, high] = (std::process::id() as u16).to_le_bytes();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, low.max(1), high, 1 + (next % 250) as u8], 7000 + next / 250))
}

/// The disks and addresses of one case.
pub(crate) struct RealBench {
    disks: Vec<TempDir>,
    peers: Vec<SocketAddr>,
    address_book: Vec<SocketAddr>,
}

impl RealBench {
    /// Formats the disks.
    pub(crate) fn new() -> Self {
        let disks: Vec<_> = (0..NODES).map(|_| super::temporary()).collect();
        let geometry = kimberlite_io_real::Geometry {
            superblock_size: GEOMETRY.superblock_size,
            headers_size: GEOMETRY.headers_size,
            segment_size: GEOMETRY.segment_size,
        };
        for disk in &disks {
            let data = DataDirectory::create(disk.path().join("data"), geometry);
            drop(data.unwrap_or_else(|error| panic!("the directory is formatted: {error}")));
        }
        let addresses = || (0..NODES).map(|_| free_address()).collect();
        Self { disks, peers: addresses(), address_book: addresses() }
    }

    /// The first `len` bytes of a node's log, in segments that were written to.
    pub(crate) fn read_log(&self, node: usize, len: u64) -> Vec<u8> {
        super::read(&mut self.driver(node), Place::log(0), len).expect("the log is there")
    }

    fn driver(&self, node: usize) -> Driver {
        let data = DataDirectory::open(self.disks[node].path().join("data"));
        super::open(Options {
            data: Some(data.unwrap_or_else(|error| panic!("the directory is opened: {error}"))),
            replica: Some(ReplicaId(node as u8)),
            replica_listen: Some(self.peers[node]),
            client_listen: Some(self.address_book[node]),
            peers: self.peers.clone(),
            address_book: self.address_book.clone(),
            framing: Some(conformance::FRAMING),
        })
    }
}

/// The life of one process, until it is told to stop or its verdicts are wanted no more.
fn live(mut driver: Driver, machine: MachineFactory, stop: &AtomicBool, say: impl Fn(Verdict) -> bool) {
    let mut machine = machine(driver.now());
    let mut said = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let (now, event) = driver.next(machine.wake_at()).expect("the ring works");
        machine.on(now, event, &mut driver, &mut said);
        if !said.drain(..).all(&say) {
            return;
        }
    }
}

impl Bench for RealBench {
    fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    fn phase(&mut self, machines: Vec<MachineFactory>, limit: Duration) -> Vec<Verdict> {
        let stop = Arc::new(AtomicBool::new(false));
        let (heard, hearing) = mpsc::channel();
        let mut verdicts = Verdicts::new(machines.len());
        let mut wakers = Vec::new();
        let mut threads = Vec::new();
        for (node, machine) in machines.into_iter().enumerate() {
            let driver = self.driver(node);
            wakers.push(driver.waker());
            let stop = Arc::clone(&stop);
            let heard: Sender<(usize, Verdict)> = heard.clone();
            let say = move |verdict| heard.send((node, verdict)).is_ok();
            threads.push(thread::spawn(move || live(driver, machine, &stop, say)));
        }
        drop(heard);
        let end = Instant::now() + limit;
        while !verdicts.complete() {
            let Ok((node, verdict)) = hearing.recv_timeout(end.saturating_duration_since(Instant::now()))
            else {
                break;
            };
            verdicts.hear(node, verdict);
        }
        stop.store(true, Ordering::Release);
        wakers.iter().for_each(kimberlite_io_real::Waker::wake);
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        verdicts.finish()
    }
}
