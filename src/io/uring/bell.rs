//! Waking a driver that sleeps: an entry of the waker's own ring where it has one (MSG_RING), else an eventfd that every ring reads.
//!
//! # Non-obvious
//! - The message posts no completion at the sender unless it failed; then the eventfd does the work. A failed one is named by
//!   the target's place in `Uring::called`.
//! - A bell outlives its ring. The ring's descriptor may then belong to something else: the message fails, or wakes another ring of
//!   this process for nothing.

use std::fmt;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use super::Uring;
use super::slots::{BELL, NOBODY};
use crate::io::Waker;
use crate::io::linux::eventfd::EventFd;
use crate::io::share::WakerOf;
use crate::io::sleep::SleepFlag;

/// Low word of the `user_data` of a wake-up that was sent: no slot has this index. The high word is the place in `called`.
const CALL: u32 = u32::MAX - 1;

#[derive(Clone)]
pub struct Bell(Arc<Inner>);

struct Inner {
    flag: SleepFlag,
    ring: RawFd,
    event: EventFd,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bell(ring {})", self.0.ring)
    }
}

impl Bell {
    pub fn new(ring: RawFd) -> std::io::Result<Bell> {
        Ok(Bell(Arc::new(Inner { flag: SleepFlag::new(), ring, event: EventFd::new()? })))
    }

    pub fn flag(&self) -> &SleepFlag {
        &self.0.flag
    }

    /// Wakes the ring whether it said that it sleeps or not.
    pub fn ring(&self) {
        self.0.flag.call();
        self.sound();
    }

    /// Writes to the eventfd.
    pub fn sound(&self) {
        self.0.event.sound();
    }
}

impl Uring {
    pub fn waker(&self) -> Waker {
        Waker(WakerOf::Uring(self.bell.clone()))
    }

    pub fn wake(&mut self, to: &Waker) {
        match &to.0 {
            WakerOf::Uring(bell) if !bell.flag().call() => {}
            WakerOf::Uring(bell) => {
                let known = self.called.iter().position(|b| Arc::ptr_eq(&b.0, &bell.0));
                let place = known.unwrap_or_else(|| {
                    self.called.push(bell.clone());
                    self.called.len() - 1
                });
                let user_data = (place as u64) << 32 | u64::from(CALL);
                let entry = opcode::MsgRingData::new(Fd(bell.0.ring), 0, NOBODY, None).build();
                let entry = entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(user_data);
                // SAFETY: the entry points at no memory.
                unsafe { self.ring.push(entry) };
            }
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

    /// Has the ring read the eventfd, unless it does.
    pub(super) fn arm_bell(&mut self) {
        if !self.bell_armed {
            self.bell_armed = true;
            let fd = Fd(self.bell.0.event.descriptor());
            let to = self.bell_count.as_mut_ptr().cast();
            let entry = opcode::Read::new(fd, to, size_of::<u64>() as u32).build().user_data(BELL);
            // SAFETY: the boxed count stays in place until `drop` has seen the read end, and nobody else touches it.
            unsafe { self.ring.push(entry) };
        }
    }

    /// Completions that belong to no slot: true if this is one.
    pub(super) fn complete_bell(&mut self, user_data: u64, code: i32) -> bool {
        if user_data == BELL {
            self.bell_armed = false;
            if !self.ending {
                self.arm_bell();
            }
            return true;
        }
        if user_data as u32 != CALL {
            return false;
        }
        // Only failures are told.
        if let Some(bell) = self.called.get((user_data >> 32) as usize).filter(|_| code < 0) {
            bell.sound();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Wait;
    use crate::io::linux::skip::skip;
    use crate::io::uring::Config;

    /// Whether the eventfd was written, waiting up to `ms` for it.
    fn has_sounded(bell: &Bell, ms: i32) -> bool {
        let mut polled = libc::pollfd { fd: bell.0.event.descriptor(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the call reads and writes the one structure, which lives across it.
        unsafe { libc::poll(&raw mut polled, 1, ms) == 1 }
    }

    #[test]
    fn a_wake_up_that_no_ring_takes_goes_by_eventfd() {
        let Ok(mut here) = Uring::new(Config { recv_buffers: 1, ..Config::default() }) else {
            skip("uring::a_wake_up_that_no_ring_takes_goes_by_eventfd", "no io_uring");
            return;
        };
        let bell = Bell::new(-1).expect("an eventfd");
        let waker = Waker(WakerOf::Uring(bell.clone()));
        here.wake(&waker);
        assert!(here.called.is_empty(), "nothing is sent to those who are awake");
        for announced in [true, false] {
            bell.flag().announce();
            assert!(announced || bell.flag().fall_asleep());
            here.wake(&waker);
            (0..3).for_each(|_| here.turn(Wait::No, &mut Vec::new()));
            assert_eq!(has_sounded(&bell, if announced { 0 } else { 5_000 }), !announced);
        }
    }
}
