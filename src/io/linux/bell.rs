//! Waking a driver that sleeps, from other threads: an eventfd, and a flag that says when it must be written to.

use std::fmt;
use std::fs::File;
#[cfg(feature = "glommio")]
use std::io::Read;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::io::sleep::SleepFlag;

#[derive(Clone)]
pub struct Bell(Arc<Inner>);

struct Inner {
    flag: SleepFlag,
    event: File,
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bell(eventfd {})", self.as_raw_fd())
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

    /// Wakes the driver whether it said that it sleeps or not.
    pub fn ring(&self) {
        self.0.flag.call();
        self.sound();
    }

    /// Writes to the eventfd.
    pub fn sound(&self) {
        // It would block only after 2^64 - 2 wake-ups that nobody read.
        while let Err(error) = (&self.0.event).write_all(&1_u64.to_ne_bytes()) {
            assert_eq!(error.kind(), ErrorKind::Interrupted, "write to an eventfd: {error}");
        }
    }

    /// Takes the wake-ups that came so far. Only when the descriptor is readable: it blocks otherwise.
    #[cfg(feature = "glommio")]
    pub fn hear(&self) {
        // What it fails with, a signal, leaves the descriptor readable.
        let _ = (&self.0.event).read(&mut [0; 8]);
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }
}
