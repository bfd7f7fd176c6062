//! What one shard's [`Io`](super::Io) hands to another's: a way to wake it, a connection, a listener, a lock. All are [`Send`], and each
//! belongs to the kind of driver that made it: only a [`Waker`] works across kinds.

use super::linux::bell::Bell;
use super::linux::lock::HeldLock;
use super::linux::sockets::{Detached, SharedSocket};
use super::{sim, uring};

/// Wakes one certain `Io`. From a thread that has an `Io` of its own, [`Io::wake`](super::Io::wake) is cheaper.
#[derive(Clone, Debug)]
pub struct Waker(pub(super) WakerOf);

#[derive(Clone, Debug)]
pub(super) enum WakerOf {
    Uring(uring::Bell),
    Epoll(Bell),
    #[cfg(feature = "glommio")]
    Glommio(Bell),
    Sim(sim::Bell),
}

impl Waker {
    /// Makes the `turn` in which the target sleeps, or else one of its next, return early. Unlike `Io::wake` it does so whether or not
    /// the target has announced its sleep: for stop signals and the like, a system call each.
    pub fn wake_from_outside(&self) {
        match &self.0 {
            WakerOf::Uring(bell) => bell.ring(),
            WakerOf::Epoll(bell) => bell.ring(),
            #[cfg(feature = "glommio")]
            WakerOf::Glommio(bell) => bell.ring(),
            WakerOf::Sim(bell) => bell.ring(),
        }
    }
}

/// A connection without an `Io`. Dropping it closes it.
#[derive(Debug)]
pub struct Socket(pub(super) SocketOf);

#[derive(Debug)]
pub(super) enum SocketOf {
    Uring(Detached),
    Epoll(Detached),
    #[cfg(feature = "glommio")]
    Glommio(Detached),
    Sim(sim::Detached),
}

/// A listening socket that several `Io`s accept from. Open until the last of them, and this, are gone.
#[derive(Clone, Debug)]
pub struct SharedListener(pub(super) SharedListenerOf);

#[derive(Clone, Debug)]
pub(super) enum SharedListenerOf {
    Uring(SharedSocket),
    Epoll(SharedSocket),
    #[cfg(feature = "glommio")]
    Glommio(SharedSocket),
    Sim(sim::SharedSocket),
}

/// A share in the lock of a data directory, which is held until the last share is gone.
#[derive(Clone, Debug)]
pub struct DirLock(pub(super) DirLockOf);

#[derive(Clone, Debug)]
pub(super) enum DirLockOf {
    Uring(HeldLock),
    Epoll(HeldLock),
    #[cfg(feature = "glommio")]
    Glommio(HeldLock),
    Sim(sim::HeldLock),
}

const _: () = {
    use super::buffer::{Block, BlockSlice};
    use super::recv::RecvBuf;
    const fn is_send<T: Send>() {}
    const fn is_sync<T: Sync>() {}
    is_send::<Waker>();
    is_sync::<Waker>();
    is_send::<Socket>();
    is_send::<SharedListener>();
    is_send::<DirLock>();
    is_send::<Block>();
    is_send::<BlockSlice>();
    is_send::<RecvBuf>();
    is_send::<super::SendPart>();
    is_send::<super::SendChain>();
};
