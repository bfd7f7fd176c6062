//! What several drivers of a process share or hand to each other: wake-ups, listeners, connections, the lock of a directory.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::core::{Core, Event, FileRef, IoId, ProcessId};
use super::driver::SimIo;
use crate::io::share::{DirLockOf, SharedListenerOf, SocketOf, WakerOf};
use crate::io::sleep::SleepFlag;
use crate::io::{ConnId, DirLock, Errno, ListenMode, ListenerId, LockError, SharedListener, Socket, Waker};

/// Virtual time that a killed predecessor's writes are waited for.
const LOCK_WAIT_NS: u64 = 10_000_000_000;

/// Wakes one driver of a world.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Inner>);

struct Inner {
    io: IoId,
    flag: SleepFlag,
    /// Rung from outside: not an event of the world, but seen by its next turn.
    rung: AtomicBool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.io)
    }
}

impl Bell {
    pub(super) fn new(io: IoId) -> Bell {
        Bell(Arc::new(Inner { io, flag: SleepFlag::new(), rung: AtomicBool::new(false) }))
    }

    pub fn ring(&self) {
        self.0.flag.call();
        self.0.rung.store(true, Ordering::Relaxed);
    }

    pub(super) fn flag(&self) -> &SleepFlag {
        &self.0.flag
    }

    pub(super) fn is_rung(&self) -> bool {
        self.0.rung.load(Ordering::Relaxed)
    }

    pub(super) fn silence(&self) {
        self.0.rung.store(false, Ordering::Relaxed);
    }
}

/// A listening socket of a world. It stays open while this lives.
#[derive(Clone, Debug)]
pub struct SharedSocket {
    pub(super) socket: u32,
    pub(super) _held: Arc<()>,
}

/// A connection on its way from one driver to another. The world closes it once it finds it dropped.
#[derive(Debug)]
pub struct Detached {
    pub(super) conn: u32,
    pub(super) dropped: Arc<AtomicBool>,
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

/// A share in a lock. A world knows which process holds a lock, and that is until its last driver is gone.
#[derive(Clone, Debug)]
pub struct HeldLock {
    key: FileRef,
    process: ProcessId,
}

impl SimIo {
    pub fn waker(&self) -> Waker {
        Waker(WakerOf::Sim(self.world.core().ios[&self.id].bell.clone()))
    }

    pub fn wake(&mut self, to: &Waker) {
        match &to.0 {
            WakerOf::Sim(bell) => {
                if bell.flag().call() {
                    self.world.core().own_io(self.id).calls.push(bell.0.io);
                }
            }
            _ => to.wake_from_outside(),
        }
    }

    pub fn announce_sleep(&mut self) {
        let mut core = self.world.core();
        let state = core.own_io(self.id);
        state.announced = true;
        state.bell.flag().announce();
    }

    pub fn listen_with(
        &mut self,
        addr: SocketAddr,
        mode: ListenMode,
    ) -> Result<(ListenerId, SocketAddr), Errno> {
        let mut core = self.world.core();
        core.check_alive(self.id);
        core.listen(self.id, addr, mode)
    }

    pub fn share_listener(&self, listener: ListenerId) -> SharedListener {
        SharedListener(SharedListenerOf::Sim(self.world.core().share_listener(self.id, listener)))
    }

    pub fn add_listener(&mut self, shared: SharedListener) -> ListenerId {
        let SharedListenerOf::Sim(shared) = shared.0 else { panic!("a listener of another driver") };
        let mut core = self.world.core();
        core.check_alive(self.id);
        core.add_listener(self.id, shared.socket)
    }

    pub fn has_waiting(&self, listener: ListenerId) -> bool {
        self.world.core().has_waiting(self.id, listener)
    }

    pub fn adopt(&mut self, socket: Socket) -> ConnId {
        let SocketOf::Sim(detached) = socket.0 else { panic!("a connection of another driver") };
        let mut core = self.world.core();
        core.check_alive(self.id);
        core.adopt(self.id, detached.conn)
    }

    /// Refuses while another process holds the directory. A dead holder is waited for at most as long as its writes are on their
    /// way, and half of the time not at all: the lock alone must not be what recovery relies on.
    pub fn lock_dir(&mut self, dir: &Path) -> Result<(), LockError> {
        let mut core = self.world.core();
        core.check_alive(self.id);
        let key = core.dir_at(dir).map_err(LockError::Failed)?;
        let own = core.ios[&self.id].process;
        match core.locks.get(&key).copied() {
            Some(holder) if holder != own && core.processes.contains_key(&holder) => {
                return Err(LockError::Held(Some(holder.0)));
            }
            Some(holder) if holder != own && core.rng.below(2) == 0 => {
                let deadline = core.now + LOCK_WAIT_NS;
                while core.late_files().next().is_some() && core.advance(deadline) {}
                core.mark("lock_waited");
            }
            _ => {}
        }
        core.locks.insert(key, own);
        Ok(())
    }

    pub fn share_lock(&self, dir: &Path) -> Option<DirLock> {
        let core = self.world.core();
        let key = core.dir_at(dir).ok()?;
        let process = core.ios[&self.id].process;
        let held = core.locks.get(&key) == Some(&process);
        held.then_some(DirLock(DirLockOf::Sim(HeldLock { key, process })))
    }

    pub fn join_lock(&mut self, lock: DirLock) {
        let DirLockOf::Sim(lock) = lock.0 else { panic!("a lock of another driver") };
        let core = self.world.core();
        core.check_alive(self.id);
        let ours =
            core.ios[&self.id].process == lock.process && core.locks.get(&lock.key) == Some(&lock.process);
        if !ours {
            core.fail("a lock is joined that the process does not hold");
        }
    }
}

impl Core {
    fn dir_at(&self, dir: &Path) -> Result<FileRef, Errno> {
        let (disk, below) = self.resolve(dir).ok_or(Errno::NOENT)?;
        Ok(FileRef { disk, node: self.disks[disk].1.find(below)? })
    }

    /// Queued wake-ups leave, and take their time.
    pub fn submit_calls(&mut self, io: IoId) {
        for target in std::mem::take(&mut self.ios.get_mut(&io).expect("alive").calls) {
            let shift = self.rng.below(12);
            let delay = self.rng.below(1 + (20_000_000 >> shift));
            self.mark("wake_sent");
            self.schedule(self.now + delay, Event::Call { io: target });
        }
    }

    pub fn called(&mut self, io: IoId) {
        self.note("call", u64::from(io.0), 0);
        if let Some(state) = self.ios.get_mut(&io) {
            state.woken = true;
        }
    }
}
