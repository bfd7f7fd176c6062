//! What several rings of a process share or hand to each other: listeners, connections, the lock of a data directory.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use super::conns::{Conn, Listener};
use super::{LOCKS_MAX, Uring};
use crate::io::linux::lock::HeldLock;
use crate::io::linux::sockets::{self, Detached, SharedSocket};
use crate::io::linux::storage;
use crate::io::linux::table::Owner;
use crate::io::share::{DirLockOf, SharedListenerOf, SocketOf};
use crate::io::{ConnId, DirLock, Errno, ListenMode, ListenerId, LockError, Payload, SharedListener, Socket};

impl Uring {
    pub fn listen_with(
        &mut self,
        addr: SocketAddr,
        mode: ListenMode,
    ) -> Result<(ListenerId, SocketAddr), Errno> {
        let (socket, addr) = sockets::listen(addr, mode)?;
        Ok((self.add_socket(Arc::new(socket)), addr))
    }

    pub fn share_listener(&self, listener: ListenerId) -> SharedListener {
        let socket = self.listeners.get(listener.0).socket.clone();
        SharedListener(SharedListenerOf::Uring(SharedSocket(socket)))
    }

    pub fn add_listener(&mut self, shared: SharedListener) -> ListenerId {
        let SharedListenerOf::Uring(SharedSocket(socket)) = shared.0 else {
            panic!("a listener of another driver")
        };
        self.add_socket(socket)
    }

    pub fn has_waiting(&self, listener: ListenerId) -> bool {
        sockets::has_waiting(&self.listeners.get(listener.0).socket)
    }

    fn add_socket(&mut self, socket: Arc<TcpListener>) -> ListenerId {
        ListenerId(self.listeners.insert(Listener { socket, accept: None }))
    }

    /// Takes a quiet connection out.
    pub(super) fn detach(&mut self, conn: ConnId, owner: Owner) {
        let state = self.conns.get(conn.0);
        let quiet = state.recv.is_none() && state.send.is_none() && state.closing.is_none();
        assert!(quiet, "a connection with operations in flight stays where it is");
        let socket = self.conns.take(conn.0).socket;
        self.conns.release(conn.0);
        let socket = Socket(SocketOf::Uring(Detached(socket)));
        self.finish(owner, Ok(0), false, Payload::Detached(socket));
    }

    pub fn adopt(&mut self, socket: Socket) -> ConnId {
        let SocketOf::Uring(Detached(socket)) = socket.0 else { panic!("a connection of another driver") };
        ConnId(self.conns.insert(Conn::new(socket)))
    }

    pub fn lock_dir(&mut self, dir: &Path) -> Result<(), LockError> {
        let lock = HeldLock::take(dir)?;
        self.register_lock(&lock).map_err(|e| LockError::Failed(storage::errno(e)))?;
        self.locks.push(lock);
        Ok(())
    }

    pub fn share_lock(&self, dir: &Path) -> Option<DirLock> {
        let lock = self.locks.iter().find(|lock| lock.dir() == dir)?;
        Some(DirLock(DirLockOf::Uring(lock.clone())))
    }

    pub fn join_lock(&mut self, lock: DirLock) {
        let DirLockOf::Uring(lock) = lock.0 else { panic!("a lock of another driver") };
        if let Err(error) = self.register_lock(&lock) {
            tracing::warn!(%error, "the lock of the data directory may end before the writes of a killed process do");
        }
        self.locks.push(lock);
    }

    /// Has the kernel keep the lock until the ring's last operation has ended.
    fn register_lock(&self, lock: &HeldLock) -> std::io::Result<()> {
        let index = self.locks.len() as u32;
        assert!(index < LOCKS_MAX, "more data directories than LOCKS_MAX");
        self.ring.uring().submitter().register_files_update(index, &[lock.as_raw_fd()]).map(|_| ())
    }
}
