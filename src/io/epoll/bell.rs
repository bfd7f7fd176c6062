//! Waking the driver from other threads: the eventfd of its bell is among the descriptors that it waits for, edge-triggered, so that
//! each write is an event of its own and nobody reads it back to zero.

use super::Epoll;
use crate::io::Waker;
use crate::io::share::WakerOf;

impl Epoll {
    pub fn waker(&self) -> Waker {
        Waker(WakerOf::Epoll(self.bell.clone()))
    }

    /// The wake-up of a sleeper is a system call of its own here, and leaves at once.
    pub fn wake(&mut self, to: &Waker) {
        match &to.0 {
            WakerOf::Epoll(bell) if !bell.flag().call() => {}
            WakerOf::Epoll(bell) => bell.sound(),
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
}
