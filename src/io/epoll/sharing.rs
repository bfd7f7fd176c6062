//! What several drivers of a process share or hand to each other: listeners, connections, the lock of a data directory.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use super::Epoll;
use super::net::Listener;
use crate::io::linux::lock::HeldLock;
use crate::io::linux::sockets::{self, Detached, SharedSocket};
use crate::io::linux::storage::errno;
use crate::io::linux::table::Owner;
use crate::io::share::{DirLockOf, SharedListenerOf, SocketOf};
use crate::io::{ConnId, DirLock, Errno, ListenMode, ListenerId, LockError, Payload, SharedListener, Socket};

impl Epoll {
    pub fn listen_with(
        &mut self,
        addr: SocketAddr,
        mode: ListenMode,
    ) -> Result<(ListenerId, SocketAddr), Errno> {
        let (socket, addr) = sockets::listen(addr, mode)?;
        socket.set_nonblocking(true).map_err(errno)?;
        Ok((self.add_socket(Arc::new(socket)), addr))
    }

    pub fn share_listener(&self, listener: ListenerId) -> SharedListener {
        let socket = self.listeners.get(listener.0).socket();
        SharedListener(SharedListenerOf::Epoll(SharedSocket(socket)))
    }

    pub fn add_listener(&mut self, shared: SharedListener) -> ListenerId {
        let SharedListenerOf::Epoll(SharedSocket(socket)) = shared.0 else {
            panic!("a listener of another driver")
        };
        self.add_socket(socket)
    }

    pub fn has_waiting(&self, listener: ListenerId) -> bool {
        sockets::has_waiting(&self.listeners.get(listener.0).socket())
    }

    fn add_socket(&mut self, socket: Arc<TcpListener>) -> ListenerId {
        ListenerId(self.listeners.insert(Listener::new(socket)))
    }

    /// Takes a quiet connection out.
    pub(super) fn detach(&mut self, conn: ConnId, owner: Owner) {
        assert!(
            self.conns.get(conn.0).is_quiet(),
            "a connection with operations in flight stays where it is"
        );
        let socket = self.conns.take(conn.0).into_socket();
        self.conns.release(conn.0);
        self.poller.remove(socket.as_raw_fd());
        let socket = Socket(SocketOf::Epoll(Detached(socket)));
        self.finish(owner, Ok(0), false, Payload::Detached(socket));
    }

    pub fn adopt(&mut self, socket: Socket) -> ConnId {
        let SocketOf::Epoll(Detached(socket)) = socket.0 else { panic!("a connection of another driver") };
        self.register_conn(socket)
    }

    pub fn lock_dir(&mut self, dir: &Path) -> Result<(), LockError> {
        self.locks.push(HeldLock::take(dir)?);
        Ok(())
    }

    pub fn share_lock(&self, dir: &Path) -> Option<DirLock> {
        let lock = self.locks.iter().find(|lock| lock.dir() == dir)?;
        Some(DirLock(DirLockOf::Epoll(lock.clone())))
    }

    pub fn join_lock(&mut self, lock: DirLock) {
        let DirLockOf::Epoll(lock) = lock.0 else { panic!("a lock of another driver") };
        self.locks.push(lock);
    }
}
