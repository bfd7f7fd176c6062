//! Sockets, opened and taken over with plain calls.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::storage::errno;
use crate::io::{Errno, ListenMode};

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening socket that several drivers accept from.
#[derive(Clone, Debug)]
pub struct SharedSocket(pub Arc<TcpListener>);

/// A connection on its way from one driver to another.
#[derive(Debug)]
pub struct Detached(pub TcpStream);

/// Binds (with SO_REUSEADDR) and listens; returns the address in effect.
pub fn listen(addr: SocketAddr, mode: ListenMode) -> Result<(TcpListener, SocketAddr), Errno> {
    let domain = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the call gave this descriptor to us alone.
    let socket = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
    set_option(fd, libc::SO_REUSEADDR)?;
    if mode == ListenMode::ReusePort {
        set_option(fd, libc::SO_REUSEPORT)?;
    }
    bind(fd, addr)?;
    if mode == ListenMode::FirstOfReusePort {
        // Behind the bind, which so found nobody there; before `listen`, which makes the group that others join.
        set_option(fd, libc::SO_REUSEPORT)?;
    }
    // SAFETY: the descriptor is a bound socket, open for as long as `socket` lives.
    check(unsafe { libc::listen(fd, BACKLOG) })?;
    let addr = socket.local_addr().map_err(errno)?;
    Ok((socket, addr))
}

fn check(rc: i32) -> Result<i32, Errno> {
    if rc < 0 { Err(errno(std::io::Error::last_os_error())) } else { Ok(rc) }
}

fn set_option(fd: RawFd, option: i32) -> Result<(), Errno> {
    let on = 1_i32;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the call reads `len` bytes of `on`, which lives across it.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const on).cast(), len) })?;
    Ok(())
}

fn bind(fd: RawFd, addr: SocketAddr) -> Result<(), Errno> {
    let rc = match addr {
        SocketAddr::V4(addr) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
                sin_zero: [0; 8],
            };
            let len = size_of_val(&name) as libc::socklen_t;
            // SAFETY: the call reads `len` bytes of `name`, which lives across it.
            unsafe { libc::bind(fd, (&raw const name).cast(), len) }
        }
        SocketAddr::V6(addr) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: addr.scope_id(),
            };
            let len = size_of_val(&name) as libc::socklen_t;
            // SAFETY: the call reads `len` bytes of `name`, which lives across it.
            unsafe { libc::bind(fd, (&raw const name).cast(), len) }
        }
    };
    check(rc)?;
    Ok(())
}

/// A connection waits to be accepted. A call that a signal interrupts has seen none.
pub fn has_waiting(listener: &TcpListener) -> bool {
    let mut asked = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the call reads and writes one structure, which lives across it, and does not wait.
    unsafe { libc::poll(&raw mut asked, 1, 0) == 1 && asked.revents & libc::POLLIN != 0 }
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
