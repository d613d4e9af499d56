//! The ring: operations handed to the kernel, and the memory and descriptors they use.
//!
//! This is the only module of the workspace with `unsafe`, with its part `pool`. The promise that carries all of it: whatever an
//! operation in flight points to (bytes, message header, socket address, descriptor) is owned by its entry
//! in `Ring::flights` and is neither moved, read nor freed before the kernel has given its last completion.
//! The entry is filled first and the pointers are taken afterwards, from memory on the heap that stays
//! where it is while the table of entries grows.
//!
//! Memory is registered with the kernel where it is used again and again: client streams are received by one
//! operation that goes on, out of a pool of small buffers, and what arrived is copied once. What is large is
//! not copied: a peer's frame is received singly into its own memory, from which the journal writes it. That
//! memory is not registered: it lives for one frame, and pinning its pages, all that registering would save,
//! was 0.5 % of a busy node's processor time. Data files are registered, sockets are not: a socket lives for a
//! few operations only.
#![allow(
    unsafe_code,
    reason = "the kernel is handed raw pointers; the one place of the workspace that does it"
)]

mod pool;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use kimberlite_io::{Buf, Conn, Frame, LARGE_PAGE, Packet};
use rustix::io::Errno;

use crate::disk::{AskId, BatchId};
use crate::error::{OpenError, UringRefusal};
use crate::links::LinkId;
use crate::sockets::Port;
use pool::Pool;

pub(crate) use pool::BUFFER_SIZE;

/// Entries of the submission queue. More may be waiting in user space; they follow in the next batch.
const SUBMISSIONS: u32 = 256;

/// Entries of the completion queue. When it is full the kernel keeps the rest (`FEAT_NODROP`).
const COMPLETIONS: u32 = 4096;

/// Files in the kernel's table: the fixed zones and the segments that may be open at once.
const FILES_REGISTERED: u32 = 128;

/// Parts of one `sendmsg`, the kernel's own limit (`UIO_MAXIOV`).
pub(crate) const PARTS_MAX: usize = 1024;

/// Operations every driver needs, with the names people know them by.
const REQUIRED: [(u8, &str); 9] = [
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::Fallocate::CODE, "FALLOCATE"),
    (opcode::Accept::CODE, "ACCEPT"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];

/// What a completion is about, so that it can be routed to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Waker,
    Accept(Port),
    Read(AskId),
    Write(AskId),
    Sync(BatchId),
    Trim(AskId),
    StreamConnect(Conn),
    StreamReceive(Conn),
    StreamSend(Conn),
    LinkConnect(LinkId),
    LinkWatch(LinkId),
    LinkSend(LinkId),
    InboundReceive(u64),
    Cancel,
}

/// What an operation owns while it is in flight, given back when it completes.
pub(crate) enum Load {
    /// Nothing.
    None,
    /// Bytes the kernel fills.
    Filling(Buf),
    /// Bytes the kernel writes to a file; held only so that they live long enough.
    Writing(#[expect(dead_code, reason = "owned for the kernel, which reads it through a pointer")] Frame),
    /// Bytes the kernel sends.
    Sending(Box<Gather>),
    /// The address of a `connect`.
    Address(Box<RawAddress>),
    /// What `accept` gave.
    Socket(OwnedFd),
    /// What a receive that goes on gave.
    Arrived(Frame),
}

impl Load {
    /// The bytes of a read or receive.
    pub(crate) fn into_buf(self) -> Buf {
        match self {
            Self::Filling(buf) => buf,
            _ => unreachable!("reads and receives complete with the buffer they were given"),
        }
    }

    /// The message of a send.
    #[expect(clippy::unnecessary_box_returns, reason = "it goes back into the ring as it came out")]
    pub(crate) fn into_gather(self) -> Box<Gather> {
        match self {
            Self::Sending(gather) => gather,
            _ => unreachable!("sends complete with the message they were given"),
        }
    }
}

/// One completion.
pub(crate) struct Completion {
    pub(crate) purpose: Purpose,
    pub(crate) load: Load,
    /// The operation's result, a number of bytes for most.
    pub(crate) result: Result<usize, Errno>,
    /// Whether the operation goes on and will complete again.
    pub(crate) more: bool,
}

/// A file with its place in the kernel's table, if it has one.
pub(crate) struct Target {
    descriptor: Arc<OwnedFd>,
    slot: Option<u32>,
}

impl Target {
    /// Whether no operation on this file is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.descriptor) == 1
    }

    /// The file.
    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }
}

/// Names an operation in flight: index and generation, so that a late cancel hits nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlightId(u64);

struct Flight {
    purpose: Purpose,
    load: Load,
    /// Keeps the descriptor open, at the latest until the kernel has taken its own reference.
    _descriptor: Option<Arc<OwnedFd>>,
    generation: u32,
}

/// The kernel's ring and everything in flight on it.
pub(crate) struct Ring {
    /// Dropped before the pool, whose memory it knows.
    uring: IoUring,
    /// None where the kernel has no such pools (before 5.19).
    pool: Option<Pool>,
    /// Whether the kernel refused a receive that goes on (before 6.0).
    singly: bool,
    /// Indexed by the low half of `user_data`.
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    generation: u32,
    /// Entries that are not in the submission queue yet.
    waiting: VecDeque<squeue::Entry>,
    completions: VecDeque<Completion>,
    /// Free places of the kernel's file table.
    slots: Vec<u32>,
    enabled: bool,
}

impl Ring {
    /// Sets the ring up, disabled: it is bound to a thread by the first `enter`.
    pub(crate) fn open() -> Result<Self, OpenError> {
        let uring = build().map_err(|error| OpenError::Uring(UringRefusal::from_setup(&error)))?;
        if !uring.params().is_feature_nodrop() || !uring.params().is_feature_ext_arg() {
            return Err(OpenError::Uring(UringRefusal::TooOld { missing: vec!["NODROP", "EXT_ARG"] }));
        }
        let mut probe = Probe::new();
        uring
            .submitter()
            .register_probe(&mut probe)
            .map_err(|error| OpenError::Uring(UringRefusal::from_setup(&error)))?;
        let missing: Vec<_> =
            REQUIRED.iter().filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name).collect();
        if !missing.is_empty() {
            return Err(OpenError::Uring(UringRefusal::TooOld { missing }));
        }
        // Kernels before 5.19 have no sparse table; plain descriptors work as well.
        let slots = match uring.submitter().register_files_sparse(FILES_REGISTERED) {
            Ok(()) => (0..FILES_REGISTERED).rev().collect(),
            Err(_) => Vec::new(),
        };
        let pool = Pool::register(&uring.submitter()).ok();
        Ok(Self {
            uring,
            pool,
            singly: false,
            flights: Vec::new(),
            free: Vec::new(),
            generation: 0,
            waiting: VecDeque::new(),
            completions: VecDeque::new(),
            slots,
            enabled: false,
        })
    }

    /// Takes a data file in, into the kernel's table if there is room.
    pub(crate) fn take_file(&mut self, file: impl Into<OwnedFd>) -> Target {
        let descriptor: OwnedFd = file.into();
        let slot = self.slots.pop().filter(|slot| {
            self.uring.submitter().register_files_update(*slot, &[descriptor.as_raw_fd()]).is_ok()
        });
        Target { descriptor: Arc::new(descriptor), slot }
    }

    /// Lets a data file go. It must be idle, so that no entry still names its place in the table.
    pub(crate) fn drop_file(&mut self, target: &Target) {
        assert!(target.is_idle(), "a file is closed only when nothing is in flight on it");
        if let Some(slot) = target.slot
            && self.uring.submitter().register_files_update(slot, &[-1]).is_ok()
        {
            self.slots.push(slot);
        }
    }

    /// Reads at `offset` into `buf[filled..filled + len]`.
    pub(crate) fn read(
        &mut self,
        purpose: Purpose,
        target: &Target,
        offset: u64,
        buf: Buf,
        filled: usize,
        len: usize,
    ) {
        let file = Handle::of(target);
        self.start(purpose, Some(&target.descriptor), Load::Filling(buf), |load| {
            let bytes = &mut filling(load)[filled..filled + len];
            want_large_pages(bytes);
            let (start, len) = (bytes.as_mut_ptr(), bytes.len() as u32);
            match file {
                Handle::Fixed(fd) => opcode::Read::new(fd, start, len).offset(offset).build(),
                Handle::Plain(fd) => opcode::Read::new(fd, start, len).offset(offset).build(),
            }
        });
    }

    /// Writes `data` at `offset`; with `durable`, the completion means that it survives a power cut.
    pub(crate) fn write(
        &mut self,
        purpose: Purpose,
        target: &Target,
        offset: u64,
        data: Frame,
        durable: bool,
    ) {
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let (start, len) = (data.as_ptr(), data.len() as u32);
        let file = Handle::of(target);
        // A frame's bytes are behind a shared pointer: they stay where they are when the frame moves.
        self.start(purpose, Some(&target.descriptor), Load::Writing(data), |_| match file {
            Handle::Fixed(fd) => opcode::Write::new(fd, start, len).offset(offset).rw_flags(flags).build(),
            Handle::Plain(fd) => opcode::Write::new(fd, start, len).offset(offset).rw_flags(flags).build(),
        });
    }

    /// `fdatasync`: makes every write to the file that completed before this call durable.
    pub(crate) fn sync(&mut self, purpose: Purpose, target: &Target) {
        let flags = types::FsyncFlags::DATASYNC;
        let file = Handle::of(target);
        self.start(purpose, Some(&target.descriptor), Load::None, |_| match file {
            Handle::Fixed(fd) => opcode::Fsync::new(fd).flags(flags).build(),
            Handle::Plain(fd) => opcode::Fsync::new(fd).flags(flags).build(),
        });
    }

    /// Gives a part of a file back to the file system.
    pub(crate) fn punch(&mut self, purpose: Purpose, target: &Target, offset: u64, len: u64) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let file = Handle::of(target);
        self.start(purpose, Some(&target.descriptor), Load::None, |_| match file {
            Handle::Fixed(fd) => opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build(),
            Handle::Plain(fd) => opcode::Fallocate::new(fd, len).offset(offset).mode(mode).build(),
        });
    }

    /// Accepts connections: one, or many until an error.
    pub(crate) fn accept(&mut self, purpose: Purpose, listener: &Arc<OwnedFd>, many: bool) {
        let fd = types::Fd(listener.as_raw_fd());
        let flags = libc::SOCK_CLOEXEC;
        self.start(purpose, Some(listener), Load::None, |_| {
            if many {
                opcode::AcceptMulti::new(fd).flags(flags).build()
            } else {
                opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).flags(flags).build()
            }
        });
    }

    /// Connects a socket.
    pub(crate) fn connect(&mut self, purpose: Purpose, socket: &Arc<OwnedFd>, to: SocketAddr) -> FlightId {
        let fd = types::Fd(socket.as_raw_fd());
        self.start(purpose, Some(socket), Load::Address(Box::new(RawAddress::from(to))), |load| {
            let Load::Address(address) = load else { unreachable!("the load was given a line above") };
            let (start, len) = address.parts();
            opcode::Connect::new(fd, start, len).build()
        })
    }

    /// Receives into `buf[filled..filled + len]`; with `all`, the kernel tries to fill that.
    pub(crate) fn receive(
        &mut self,
        purpose: Purpose,
        socket: &Arc<OwnedFd>,
        buf: Buf,
        filled: usize,
        len: usize,
        all: bool,
    ) -> FlightId {
        let fd = types::Fd(socket.as_raw_fd());
        let flags = if all { libc::MSG_WAITALL } else { 0 };
        self.start(purpose, Some(socket), Load::Filling(buf), |load| {
            let bytes = &mut filling(load)[filled..filled + len];
            opcode::Recv::new(fd, bytes.as_mut_ptr(), bytes.len() as u32).flags(flags).build()
        })
    }

    /// Whether [`Self::receive_many`] can be asked.
    pub(crate) fn receives_many(&self) -> bool {
        self.pool.is_some() && !self.singly
    }

    /// Remembers that the kernel has no receives that go on.
    pub(crate) fn receive_singly(&mut self) {
        self.singly = true;
    }

    /// Receives whatever comes, at most [`BUFFER_SIZE`] bytes at once, until it is cancelled or the stream ends.
    pub(crate) fn receive_many(&mut self, purpose: Purpose, socket: &Arc<OwnedFd>) -> FlightId {
        assert!(self.receives_many(), "asked only where it can be done");
        let fd = types::Fd(socket.as_raw_fd());
        self.start(purpose, Some(socket), Load::None, |_| opcode::RecvMulti::new(fd, pool::GROUP).build())
    }

    /// Sends what is left of a message.
    pub(crate) fn send(&mut self, purpose: Purpose, socket: &Arc<OwnedFd>, gather: Box<Gather>) -> FlightId {
        let fd = types::Fd(socket.as_raw_fd());
        self.start(purpose, Some(socket), Load::Sending(gather), |load| {
            let Load::Sending(gather) = load else { unreachable!("the load was given a line above") };
            opcode::SendMsg::new(fd, gather.message()).flags(libc::MSG_NOSIGNAL as u32).build()
        })
    }

    /// Waits until an eventfd is written and takes its count.
    pub(crate) fn await_eventfd(&mut self, purpose: Purpose, eventfd: &Arc<OwnedFd>, buf: Buf) {
        let fd = types::Fd(eventfd.as_raw_fd());
        self.start(purpose, Some(eventfd), Load::Filling(buf), |load| {
            let bytes = &mut filling(load)[..8];
            opcode::Read::new(fd, bytes.as_mut_ptr(), 8).build()
        });
    }

    /// Asks the kernel to end an operation early. It still completes, with `ECANCELED` or otherwise.
    pub(crate) fn cancel(&mut self, flight: FlightId) {
        self.start(Purpose::Cancel, None, Load::None, |_| opcode::AsyncCancel::new(flight.0).build());
    }

    /// Hands everything to the kernel and waits for a completion, at most `timeout`.
    pub(crate) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.enable()?;
        loop {
            self.fill();
            if self.waiting.is_empty() {
                break;
            }
            settled(self.uring.submit())?;
            self.reap();
        }
        self.reap();
        let entered = match timeout {
            _ if !self.completions.is_empty() => self.uring.submit(),
            None => self.uring.submit_and_wait(1),
            Some(timeout) => {
                let limit = types::Timespec::from(timeout);
                self.uring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
            }
        };
        settled(entered)?;
        self.reap();
        Ok(())
    }

    /// The oldest completion that was not looked at.
    pub(crate) fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// Binds the ring to this thread.
    fn enable(&mut self) -> io::Result<()> {
        if !self.enabled {
            self.uring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        Ok(())
    }

    /// Stores `load`, then lets `build` take pointers to where it is.
    fn start(
        &mut self,
        purpose: Purpose,
        descriptor: Option<&Arc<OwnedFd>>,
        load: Load,
        build: impl FnOnce(&mut Load) -> squeue::Entry,
    ) -> FlightId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            u32::try_from(self.flights.len() - 1).expect("fewer than 2^32 operations in flight")
        });
        self.generation = self.generation.wrapping_add(1);
        let id = FlightId(u64::from(self.generation) << 32 | u64::from(index));
        let flight = self.flights[index as usize].insert(Flight {
            purpose,
            load,
            _descriptor: descriptor.cloned(),
            generation: self.generation,
        });
        self.waiting.push_back(build(&mut flight.load).user_data(id.0));
        id
    }

    /// Moves entries from user space into the submission queue while there is room.
    fn fill(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(entry) = self.waiting.front() {
            // SAFETY: every pointer and descriptor in `entry` belongs to an entry of `flights`, which
            // stays until the completion is reaped (`reap`), or is leaked if that cannot be awaited (`drop`).
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.waiting.pop_front();
        }
    }

    /// Takes all completions there are and gives memory back to those who lent it.
    fn reap(&mut self) {
        for entry in self.uring.completion() {
            let (index, generation) = (entry.user_data() as u32, (entry.user_data() >> 32) as u32);
            let place = &mut self.flights[index as usize];
            let flight = place.as_mut().expect("a completion belongs to an operation in flight");
            assert_eq!(flight.generation, generation, "a completion belongs to the operation it names");
            let more = io_uring::cqueue::more(entry.flags());
            let purpose = flight.purpose;
            let result = match entry.result() {
                bytes @ 0.. => Ok(bytes.cast_unsigned() as usize),
                error => Err(Errno::from_raw_os_error(-error)),
            };
            let mut load = if more {
                Load::None
            } else {
                self.free.push(index);
                place.take().expect("looked at above").load
            };
            if let (Purpose::Accept(_), Ok(_)) = (purpose, result) {
                // SAFETY: a successful accept gives a fresh descriptor that nobody else owns.
                load = Load::Socket(unsafe { OwnedFd::from_raw_fd(entry.result()) });
            }
            if let Some(buffer) = io_uring::cqueue::buffer_select(entry.flags()) {
                let pool = self.pool.as_mut().expect("buffers come from the pool");
                load = Load::Arrived(pool.take(buffer, result.unwrap_or(0), Frame::packed));
            }
            if purpose != Purpose::Cancel {
                self.completions.push_back(Completion { purpose, load, result, more });
            }
        }
    }

    /// Cancels what can be cancelled and waits for the rest.
    fn drain(&mut self) -> io::Result<()> {
        let flights: Vec<_> = (0_u64..)
            .zip(&self.flights)
            .filter_map(|(index, flight)| {
                flight.as_ref().map(|flight| FlightId(u64::from(flight.generation) << 32 | index))
            })
            .collect();
        for flight in flights {
            self.cancel(flight);
        }
        while self.flights.iter().any(Option::is_some) {
            self.completions.clear();
            self.enter(None)?;
        }
        Ok(())
    }
}

impl Drop for Ring {
    /// Waits until the kernel has let go of all memory. If that cannot be had (the driver is dropped on
    /// another thread than the one it ran on) the memory is leaked rather than freed under the kernel.
    fn drop(&mut self) {
        if !self.enabled {
            return; // Nothing was ever handed over.
        }
        if self.drain().is_err() {
            mem::forget(mem::take(&mut self.flights));
            mem::forget(self.pool.take());
        }
    }
}

/// The ring with the best flags the kernel takes. `R_DISABLED` leaves it unbound until the first use.
fn build() -> io::Result<IoUring> {
    let mut refusal = None;
    for single in [true, false] {
        for cooperative in [true, false] {
            let mut builder = IoUring::builder();
            builder.setup_r_disabled().setup_cqsize(COMPLETIONS);
            if single {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            if cooperative {
                builder.setup_coop_taskrun().setup_submit_all();
            }
            match builder.build(SUBMISSIONS) {
                Ok(uring) => return Ok(uring),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = Some(error),
                Err(error) => return Err(error),
            }
        }
    }
    Err(refusal.expect("the loop ran"))
}

/// Whether the kernel took the call; a full completion queue, a signal or an elapsed wait are not errors.
fn settled(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Tells the kernel that large pages may be taken for a large buffer, as far as it holds whole ones. Most kernels do so only
/// where they are asked. It costs less than a microsecond, and the answer does not matter.
fn want_large_pages(bytes: &mut [u8]) {
    let (start, len) = (bytes.as_mut_ptr(), bytes.len() - bytes.len() % LARGE_PAGE);
    if len != 0 && start.addr().is_multiple_of(LARGE_PAGE) {
        // SAFETY: the range lies in memory that the caller borrows alone; the advice changes how the kernel keeps it, never
        // what it holds.
        let _ = unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
    }
}

fn filling(load: &mut Load) -> &mut Buf {
    match load {
        Load::Filling(buf) => buf,
        _ => unreachable!("called with the load of a read or receive only"),
    }
}

/// How an entry names a file.
#[derive(Clone, Copy)]
enum Handle {
    Fixed(types::Fixed),
    Plain(types::Fd),
}

impl Handle {
    fn of(target: &Target) -> Self {
        match target.slot {
            Some(slot) => Self::Fixed(types::Fixed(slot)),
            None => Self::Plain(types::Fd(target.descriptor.as_raw_fd())),
        }
    }
}

/// A socket address as the kernel reads it.
pub(crate) enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(address) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            }),
        }
    }
}

impl RawAddress {
    fn parts(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        match self {
            Self::V4(address) => {
                ((&raw const *address).cast(), mem::size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            Self::V6(address) => {
                ((&raw const *address).cast(), mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }
}

/// Several pieces of memory sent as one message, without copying them together.
pub(crate) struct Gather {
    /// Owns what `parts` point to. Never changed after `new`.
    pieces: Pieces,
    /// What is left of each piece; the first `sent` ones are gone.
    parts: Vec<libc::iovec>,
    sent: usize,
    left: usize,
    header: libc::msghdr,
}

/// The pieces of a [`Gather`].
pub(crate) enum Pieces {
    Frames(Vec<Frame>),
    Packets(Vec<Packet>),
}

// SAFETY: the raw pointers in `parts` and `header` point into memory that the same `Gather` owns and that is
// itself `Send` (frames and packets); nothing else uses them.
unsafe impl Send for Gather {}

impl Gather {
    /// A message of `pieces`, which must not be empty.
    #[expect(
        clippy::unnecessary_box_returns,
        reason = "the kernel is given a pointer to it, so it must not move"
    )]
    pub(crate) fn new(pieces: Pieces) -> Box<Self> {
        let mut parts = Vec::new();
        let mut add = |bytes: &[u8]| {
            if !bytes.is_empty() {
                let iov_base = bytes.as_ptr().cast_mut().cast();
                parts.push(libc::iovec { iov_base, iov_len: bytes.len() });
            }
        };
        match &pieces {
            Pieces::Frames(frames) => frames.iter().for_each(|frame| add(frame)),
            Pieces::Packets(packets) => {
                for packet in packets {
                    add(&packet.head);
                    add(&packet.body);
                }
            }
        }
        assert!(!parts.is_empty() && parts.len() <= PARTS_MAX, "a message has bytes and bounded parts");
        let left = parts.iter().map(|part| part.iov_len).sum();
        // SAFETY: a message header of zeros is valid: null pointers and zero lengths.
        let header = unsafe { mem::zeroed() };
        Box::new(Self { pieces, parts, sent: 0, left, header })
    }

    /// How many packets are in it.
    pub(crate) fn packets(&self) -> usize {
        match &self.pieces {
            Pieces::Packets(packets) => packets.len(),
            Pieces::Frames(_) => 0,
        }
    }

    /// Bytes not sent yet.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Counts `bytes` as sent.
    pub(crate) fn advance(&mut self, mut bytes: usize) {
        assert!(bytes <= self.left, "the kernel sends no more than it was given");
        self.left -= bytes;
        while bytes > 0 {
            let part = &mut self.parts[self.sent];
            let gone = bytes.min(part.iov_len);
            part.iov_base = part.iov_base.wrapping_byte_add(gone);
            part.iov_len -= gone;
            bytes -= gone;
            if part.iov_len == 0 {
                self.sent += 1;
            }
        }
    }

    /// The header that names what is left. Valid while `self` is neither moved out of its box nor changed.
    fn message(&mut self) -> *const libc::msghdr {
        let parts = &mut self.parts[self.sent..];
        self.header.msg_iov = parts.as_mut_ptr();
        self.header.msg_iovlen = parts.len() as _;
        &raw const self.header
    }
}
