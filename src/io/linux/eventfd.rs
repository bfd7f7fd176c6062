//! A descriptor that any thread can make readable, among those that a driver waits for.

use std::fs::File;
#[cfg(feature = "glommio")]
use std::io::Read;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub struct EventFd(File);

impl EventFd {
    /// One that blocks, so that a ring's read of it waits for the first write.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: takes integers only.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call gave this descriptor to us alone.
        Ok(EventFd(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Counts one more.
    pub fn sound(&self) {
        // It would block only after 2^64 - 2 wake-ups that nobody read.
        while let Err(error) = (&self.0).write_all(&1_u64.to_ne_bytes()) {
            assert_eq!(error.kind(), ErrorKind::Interrupted, "write to an eventfd: {error}");
        }
    }

    /// Takes the counts so far. Only when the descriptor is readable: it blocks otherwise.
    #[cfg(feature = "glommio")]
    pub fn hear(&self) {
        // What it fails with, a signal, leaves the descriptor readable.
        let _ = (&self.0).read(&mut [0; 8]);
    }
}
