//! Sockets, opened and taken over with plain calls.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::storage::errno;
use crate::io::Errno;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds (with SO_REUSEADDR) and listens; returns the address in effect.
pub fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Errno> {
    let socket = TcpListener::bind(addr).map_err(errno)?;
    // Binding listens with a short queue; a second listen(2) makes it longer.
    // SAFETY: the descriptor is a bound socket, open for as long as `socket` lives.
    let rc = unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) };
    if rc != 0 {
        return Err(errno(std::io::Error::last_os_error()));
    }
    let addr = socket.local_addr().map_err(errno)?;
    Ok((socket, addr))
}

/// Takes over a descriptor that accept(2) gave to the caller alone. Fails if the peer is gone already.
pub fn accepted(fd: RawFd) -> Result<(TcpStream, SocketAddr), Errno> {
    // SAFETY: the caller owns the descriptor and hands it over.
    let socket = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let peer = socket.peer_addr().map_err(errno)?;
    socket.set_nodelay(true).map_err(errno)?;
    Ok((socket, peer))
}

/// Connects. Blocks.
pub fn connect(to: SocketAddr) -> Result<TcpStream, Errno> {
    let socket = TcpStream::connect(to).map_err(errno)?;
    socket.set_nodelay(true).map_err(errno)?;
    Ok(socket)
}
