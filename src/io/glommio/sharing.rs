//! What several drivers of a process share or hand to each other: wake-ups, listeners, connections, the lock of a data directory.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::Glommio;
use super::net::Listener;
use crate::io::linux::lock::HeldLock;
use crate::io::linux::sockets::{self, Detached, SharedSocket};
use crate::io::linux::storage::errno;
use crate::io::linux::table::Owner;
use crate::io::share::{DirLockOf, SharedListenerOf, SocketOf, WakerOf};
use crate::io::{
    ConnId, DirLock, Errno, ListenMode, ListenerId, LockError, Payload, SharedListener, Socket, Waker,
};

impl Glommio {
    pub fn waker(&self) -> Waker {
        Waker(WakerOf::Glommio(self.bell.clone()))
    }

    /// The wake-up of a sleeper is a system call of its own here, and leaves at once.
    pub fn wake(&mut self, to: &Waker) {
        match &to.0 {
            WakerOf::Glommio(bell) if !bell.flag().call() => {}
            WakerOf::Glommio(bell) => bell.sound(),
            _ => to.wake_from_outside(),
        }
    }

    pub fn announce_sleep(&mut self) {
        self.announced = true;
        self.bell.flag().announce();
    }

    /// The end of a turn.
    pub(super) fn wake_up(&mut self) {
        if self.announced {
            self.announced = false;
            self.bell.flag().wake_up();
        }
    }

    pub fn listen_with(
        &mut self,
        addr: SocketAddr,
        mode: ListenMode,
    ) -> Result<(ListenerId, SocketAddr), Errno> {
        let (socket, addr) = sockets::listen(addr, mode)?;
        socket.set_nonblocking(true).map_err(errno)?;
        let listener = Listener { socket: Arc::new(socket), accept: None };
        Ok((ListenerId(self.listeners.insert(listener)), addr))
    }

    pub fn share_listener(&self, listener: ListenerId) -> SharedListener {
        let socket = self.listeners.get(listener.0).socket.clone();
        SharedListener(SharedListenerOf::Glommio(SharedSocket(socket)))
    }

    pub fn add_listener(&mut self, shared: SharedListener) -> ListenerId {
        let SharedListenerOf::Glommio(SharedSocket(socket)) = shared.0 else {
            panic!("a listener of another driver")
        };
        ListenerId(self.listeners.insert(Listener { socket, accept: None }))
    }

    pub fn has_waiting(&self, listener: ListenerId) -> bool {
        sockets::has_waiting(&self.listeners.get(listener.0).socket)
    }

    /// Takes a quiet connection out.
    pub(super) fn detach(&mut self, conn: ConnId, owner: Owner) {
        let state = self.conns.get(conn.0);
        let quiet = state.is_quiet() && state.closing.is_none();
        assert!(quiet, "a connection with operations in flight stays where it is");
        let socket = Rc::into_inner(self.conns.take(conn.0).socket).expect("a socket that nobody uses");
        self.conns.release(conn.0);
        let socket = Socket(SocketOf::Glommio(Detached(socket)));
        self.finish(owner, Ok(0), false, Payload::Detached(socket));
    }

    pub fn adopt(&mut self, socket: Socket) -> ConnId {
        let SocketOf::Glommio(Detached(socket)) = socket.0 else { panic!("a connection of another driver") };
        ConnId(self.conns.insert(super::Conn::new(socket)))
    }

    pub fn lock_dir(&mut self, dir: &Path) -> Result<(), LockError> {
        self.locks.push(HeldLock::take(dir)?);
        Ok(())
    }

    pub fn share_lock(&self, dir: &Path) -> Option<DirLock> {
        let lock = self.locks.iter().find(|lock| lock.dir() == dir)?;
        Some(DirLock(DirLockOf::Glommio(lock.clone())))
    }

    pub fn join_lock(&mut self, lock: DirLock) {
        let DirLockOf::Glommio(lock) = lock.0 else { panic!("a lock of another driver") };
        self.locks.push(lock);
    }
}
