//! Waking a driver that sleeps, from other threads: an eventfd, and a flag that says when it must be written to.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use super::eventfd::EventFd;
use crate::io::sleep::SleepFlag;

#[derive(Clone)]
pub struct Bell(Arc<Inner>);

struct Inner {
    flag: SleepFlag,
    event: EventFd,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bell(eventfd {})", self.as_raw_fd())
    }
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(Arc::new(Inner { flag: SleepFlag::new(), event: EventFd::new()? })))
    }

    pub fn flag(&self) -> &SleepFlag {
        &self.0.flag
    }

    /// Wakes the driver whether it said that it sleeps or not.
    pub fn ring(&self) {
        self.0.flag.call();
        self.sound();
    }

    /// Writes to the eventfd.
    pub fn sound(&self) {
        self.0.event.sound();
    }

    /// Takes the wake-ups that came so far. Only when the descriptor is readable: it blocks otherwise.
    #[cfg(feature = "glommio")]
    pub fn hear(&self) {
        self.0.event.hear();
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event.descriptor()
    }
}
