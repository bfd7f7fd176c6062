//! Waking a driver that sleeps, from other threads: an eventfd among the descriptors that it waits for.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::Epoll;
use crate::io::Waker;
use crate::io::share::WakerOf;
use crate::io::sleep::SleepFlag;

#[derive(Clone)]
pub struct Bell(Arc<Inner>);

struct Inner {
    flag: SleepFlag,
    event: File,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bell(eventfd {})", self.descriptor())
    }
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        // SAFETY: takes integers only.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call gave this descriptor to us alone.
        let event = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Bell(Arc::new(Inner { flag: SleepFlag::new(), event })))
    }

    pub fn flag(&self) -> &SleepFlag {
        &self.0.flag
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }

    /// Wakes the driver whether it said that it sleeps or not.
    pub fn ring(&self) {
        self.0.flag.call();
        self.sound();
    }

    /// Writes to the eventfd.
    pub fn sound(&self) {
        // It would block only after 2^64 - 2 wake-ups: nobody reads them, because each write is an event of its own.
        while let Err(error) = (&self.0.event).write_all(&1_u64.to_ne_bytes()) {
            assert_eq!(error.kind(), ErrorKind::Interrupted, "write to an eventfd: {error}");
        }
    }
}

impl Epoll {
    pub fn waker(&self) -> Waker {
        Waker(WakerOf::Epoll(self.bell.clone()))
    }

    /// The wake-up of a sleeper is a system call of its own here, and leaves at once.
    pub fn wake(&mut self, to: &Waker) {
        match &to.0 {
            WakerOf::Epoll(bell) if !bell.flag().call() => {}
            WakerOf::Epoll(bell) => bell.sound(),
            WakerOf::Uring(_) | WakerOf::Sim(_) => to.wake_from_outside(),
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
}
