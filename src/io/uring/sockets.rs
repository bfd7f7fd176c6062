//! Sockets: opened and adopted with plain calls, then driven by the ring.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::storage::errno;
use crate::io::Errno;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

pub struct Listener {
    pub socket: TcpListener,
    /// Name of the `Accept` in flight.
    pub accept: Option<u64>,
}

pub struct Conn {
    pub socket: TcpStream,
    /// Names of the `Recv`, `Send` and `CloseConn` in flight.
    pub recv: Option<u64>,
    pub send: Option<u64>,
    pub closing: Option<u64>,
    is_shut: bool,
}

/// Binds (with SO_REUSEADDR) and listens; returns the address in effect.
pub fn listen(addr: SocketAddr) -> Result<(Listener, SocketAddr), Errno> {
    let socket = TcpListener::bind(addr).map_err(errno)?;
    // Binding listens with a short queue; a second listen(2) makes it longer.
    // SAFETY: the descriptor is a bound socket, open for as long as `socket` lives.
    let rc = unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) };
    if rc != 0 {
        return Err(errno(std::io::Error::last_os_error()));
    }
    let addr = socket.local_addr().map_err(errno)?;
    Ok((Listener { socket, accept: None }, addr))
}

/// Takes over a descriptor that the kernel accepted. Fails if the peer is gone already.
pub fn adopt(fd: RawFd) -> Result<(Conn, SocketAddr), Errno> {
    // SAFETY: the accept that completed with this descriptor gave it to us alone.
    let socket = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let peer = socket.peer_addr().map_err(errno)?;
    Ok((Conn::new(socket)?, peer))
}

pub fn connect(to: SocketAddr) -> Result<Conn, Errno> {
    Conn::new(TcpStream::connect(to).map_err(errno)?)
}

impl Conn {
    fn new(socket: TcpStream) -> Result<Conn, Errno> {
        socket.set_nodelay(true).map_err(errno)?;
        Ok(Conn { socket, recv: None, send: None, closing: None, is_shut: false })
    }

    /// Ends both directions, which completes what is in flight on the socket.
    pub fn shut(&mut self) {
        // A connection that the peer has reset is shut already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.is_shut = true;
    }

    /// Shut down, with nothing in flight.
    pub fn is_quiet(&self) -> bool {
        self.is_shut && self.recv.is_none() && self.send.is_none()
    }
}
