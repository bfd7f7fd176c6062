//! The lock of a data directory: `flock(2)` on `<dir>/lock`, which also names its holder.
//!
//! The kernel keeps the lock of a killed process until its last operation has ended, so that a write of the predecessor cannot
//! land under its successor's feet unnoticed: `uring` registers the descriptor in every ring of the process that shares it, and a
//! thread that is inside a blocking call keeps every descriptor of its process. (The log does not rely on it alone.) The holder is
//! recorded as `pid start-time`: the start time tells a living holder from a number that was used again,
//! also in a container, where every broker is process 1.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::storage::errno;
use crate::io::LockError;

/// What a killed predecessor left in flight should have ended within this.
const WAIT_MAX: Duration = Duration::from_secs(10);
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// A share in a lock. The last one gives the lock up at once, though a registered copy of the descriptor may live on for a while.
#[derive(Clone, Debug)]
pub struct HeldLock(Arc<Held>);

#[derive(Debug)]
struct Held {
    file: File,
    dir: PathBuf,
}

impl HeldLock {
    /// Takes the lock: refuses at once while the recorded holder lives, else waits for it up to [`WAIT_MAX`].
    pub fn take(dir: &Path) -> Result<HeldLock, LockError> {
        Ok(HeldLock(Arc::new(Held { file: take(dir)?, dir: dir.to_path_buf() })))
    }

    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub fn as_raw_fd(&self) -> RawFd {
        self.0.file.as_raw_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = flock(&self.file, libc::LOCK_UN);
    }
}

fn take(dir: &Path) -> Result<File, LockError> {
    let path = dir.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|e| LockError::Failed(errno(e)))?;
    let start = Instant::now();
    loop {
        match flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) => break,
            Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => {}
            Err(error) => return Err(LockError::Failed(errno(error))),
        }
        let holder = Holder::read(&path);
        if holder.is_some_and(|h| h.lives()) || start.elapsed() >= WAIT_MAX {
            return Err(LockError::Held(holder.map(|h| h.pid)));
        }
        sleep(RETRY_EVERY);
    }
    record(&mut file).map_err(|e| LockError::Failed(errno(e)))?;
    Ok(file)
}

fn record(file: &mut File) -> std::io::Result<()> {
    let pid = std::process::id();
    let start = start_time(pid).unwrap_or(0);
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("{pid} {start}\n").as_bytes())
}

fn flock(file: &File, how: i32) -> std::io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    let rc = unsafe { libc::flock(file.as_raw_fd(), how) };
    if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    start: u64,
}

impl Holder {
    fn read(path: &Path) -> Option<Holder> {
        Holder::parse(&fs::read_to_string(path).ok()?)
    }

    fn parse(text: &str) -> Option<Holder> {
        let (pid, start) = text.trim_end().split_once(' ')?;
        Some(Holder { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }

    fn lives(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// When a living process began, in ticks since boot: field 22 of proc_pid_stat(5). None for the dead, reaped or not.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, is in parentheses and may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_lives_only_with_its_own_start_time() {
        let me = std::process::id();
        let start = start_time(me).expect("our own process is listed");
        assert!(Holder { pid: me, start }.lives());
        assert!(!Holder { pid: me, start: start + 1 }.lives());
        assert_eq!(Holder::parse("12 345\n"), Some(Holder { pid: 12, start: 345 }));
        assert_eq!(Holder::parse(""), None);
    }
}
