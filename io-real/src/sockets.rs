//! Making sockets and setting their options.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::error::OpenError;

/// After this long without a byte the kernel asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// How often it asks again, and how many times before the connection is broken.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 4;

/// A link whose bytes stay unacknowledged this long is broken and opened anew.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// A port the driver listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Replica,
    Client,
}

impl Port {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Client => "client",
        }
    }
}

/// How long a port or a directory may still be held by a process that was killed: the kernel takes its ring apart
/// only after it has gone, and the ring holds its files.
const LINGER: Duration = Duration::from_secs(3);

/// Tries again for a while when something is still in use.
pub(crate) fn patiently<T>(attempt: impl Fn() -> T, is_in_use: impl Fn(&T) -> bool) -> T {
    let since = Instant::now();
    loop {
        let result = attempt();
        if !is_in_use(&result) || since.elapsed() >= LINGER {
            return result;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A listening socket.
pub(crate) struct Listener {
    pub(crate) port: Port,
    pub(crate) socket: Arc<OwnedFd>,
    /// Where it really listens.
    pub(crate) address: SocketAddr,
    /// Whether the kernel accepts many connections per ask (Linux 5.19).
    pub(crate) many: bool,
}

impl Listener {
    /// Listens on `address`; port 0 lets the kernel choose.
    pub(crate) fn open(port: Port, address: SocketAddr) -> Result<Self, OpenError> {
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => OpenError::PortInUse { address, port: port.name() },
            _ => OpenError::Listen { address, port: port.name(), error },
        };
        // The standard library sets SO_REUSEADDR, so a restart need not wait for old connections to time out.
        let listener = patiently(
            || TcpListener::bind(address),
            |result| result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse),
        )
        .map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { port, socket: Arc::new(listener.into()), address, many: true })
    }
}

/// A new socket to connect to `address` with.
pub(crate) fn open(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // Blocking on purpose: the ring waits for it, whereas a non-blocking one would answer EAGAIN.
    socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Options of every connection. They are wishes: a socket without them still works.
pub(crate) fn tune(socket: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES);
}

/// Options of a link to a peer, on top of [`tune`].
pub(crate) fn tune_link(socket: &OwnedFd) {
    tune(socket);
    let _ = sockopt::set_tcp_user_timeout(socket, LINK_TIMEOUT.as_millis() as u32);
}

/// Ends both directions, so that operations in flight complete. Failing means it is over already.
pub(crate) fn hang_up(socket: &OwnedFd) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}
