//! A lone node in this process: the same node as `kmb start` runs, on a thread of its own and a loopback port of the
//! kernel's choice, which lives as long as the command does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use kimberlite_io::{Event, Machine as _};
use kimberlite_io_real::{DataDirectory, Driver, Options, Waker};
use kimberlite_runtime::Node;
use kimberlite_wire::framing_of;

use crate::node_file::{self, NodeFile};
use crate::signals::Stop;
use crate::{Failure, format, random};

/// The stack of the node's thread: the deepest statement takes most of 8 MiB in a debug build.
const STACK_SIZE: usize = 16 << 20;

/// The node, until it is stopped.
pub(super) struct Embedded {
    /// Where it listens.
    pub(super) address: SocketAddr,
    stop: Stop,
    waker: Waker,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Embedded {
    /// Starts the node of a data directory that nobody else has open.
    pub(super) fn start(data: &Path) -> Result<Self, Failure> {
        let stop = Stop::default();
        let (send, ready) = channel();
        let (path, asked) = (data.to_path_buf(), stop.clone());
        let thread = Builder::new()
            .name("node".to_owned())
            .stack_size(STACK_SIZE)
            .spawn(move || run(&path, &asked, &send))
            .map_err(|error| Failure::new(crate::failure::Kind::Io, format!("no thread: {error}")))?;
        match ready.recv() {
            Ok((address, waker)) => Ok(Self { address, stop, waker, thread }),
            // It ended before it listened.
            Err(_) => Err(ended(thread).expect_err("a node that was not stopped ends with an error")),
        }
    }

    /// Ends the node and says what went wrong with it.
    pub(super) fn stop(self) -> Result<(), Failure> {
        self.stop.ask();
        self.waker.wake();
        ended(self.thread)
    }
}

fn ended(thread: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn run(data: &Path, stop: &Stop, ready: &Sender<(SocketAddr, Waker)>) -> Result<(), Failure> {
    let config = NodeFile::read(data)?.config()?;
    if config.replicas != 1 {
        return Err(Failure::failed(format!(
            "{} belongs to replica {} of {}: start the cluster, and give --nodes instead of --data",
            data.display(),
            config.replica,
            config.replicas
        )));
    }
    let secret = node_file::read_own_secret(data)?;
    let directory = DataDirectory::open(data)?;
    format::check_geometry(data, directory.geometry(), &config)?;
    let mut driver = Driver::open(Options {
        data: Some(directory),
        client_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        framing: Some(framing_of),
        ..Options::default()
    })?;
    let mut node = Node::new(config, &secret, random::number()?);
    let (_, address) = driver.local_addresses();
    let address = address.expect("it listens for clients");
    // Whoever waits for it has the other end.
    let _ = ready.send((address, driver.waker()));
    let mut notes = Vec::new();
    let (mut now, mut event) = (driver.now(), Event::Wake);
    loop {
        node.on(now, event, &mut driver, &mut notes);
        notes.clear();
        driver.take_notes();
        if let Some(reason) = node.halted() {
            return Err(Failure::failed(format!("the node in {} halted: {reason}", data.display())));
        }
        if stop.is_asked() {
            return Ok(());
        }
        (now, event) = driver.next(node.wake_at())?;
    }
}
