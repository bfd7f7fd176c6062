//! Waking a driver that sleeps, from other threads: an eventfd among the descriptors that it waits for.

use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::Epoll;
use crate::io::Waker;
use crate::io::linux::eventfd::EventFd;
use crate::io::share::WakerOf;
use crate::io::sleep::SleepFlag;

#[derive(Clone)]
pub struct Bell(Arc<Inner>);

struct Inner {
    flag: SleepFlag,
    event: EventFd,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bell(eventfd {})", self.descriptor())
    }
}

impl Bell {
    pub fn new() -> std::io::Result<Bell> {
        Ok(Bell(Arc::new(Inner { flag: SleepFlag::new(), event: EventFd::new()? })))
    }

    pub fn flag(&self) -> &SleepFlag {
        &self.0.flag
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.event.descriptor()
    }

    /// Wakes the driver whether it said that it sleeps or not.
    pub fn ring(&self) {
        self.0.flag.call();
        self.sound();
    }

    /// Writes to the eventfd, which is never read: each write is an event of its own.
    pub fn sound(&self) {
        self.0.event.sound();
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
