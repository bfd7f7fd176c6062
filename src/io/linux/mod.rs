//! What the drivers on a real Linux share: files, storage, the lock, sockets, clocks. Plain calls, for start-up or so short that a
//! shard may make them while it serves; how operations reach the kernel is the driver's own business.

pub mod bell;
pub mod eventfd;
pub mod extents;
pub mod fault;
pub mod files;
pub mod kernel;
pub mod lock;
pub mod message;
pub mod reading;
#[cfg(test)]
pub mod seccomp;
#[cfg(test)]
pub mod skip;
pub mod sockets;
pub mod spin;
pub mod storage;
pub mod table;

use std::time::{SystemTime, UNIX_EPOCH};

use super::Mono;
use crate::base::error::Fatal;
use crate::base::limits::RECV_BUF_BYTES;

pub fn now() -> Mono {
    Mono(clock_ns(libc::CLOCK_MONOTONIC))
}

/// CPU time of the calling thread.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a structure of the type that the call fills; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

/// Fills `bytes` from the kernel's generator.
pub fn random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the call fills at most the `rest.len()` bytes behind the pointer.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        let error = std::io::Error::last_os_error();
        assert!(got > 0 || error.kind() == std::io::ErrorKind::Interrupted, "getrandom: {error}");
        filled += got.max(0) as usize;
    }
}

/// Refuses a start without memory for receive buffers.
pub fn no_memory(buffers: u16) -> Fatal {
    Fatal {
        code: "out-of-memory",
        summary: "no memory for receive buffers".into(),
        found: format!("{buffers} buffers of {RECV_BUF_BYTES} bytes refused"),
        means: "the process may not map that much".into(),
        tries: vec!["a smaller memory budget, or a higher limit: ulimit -v, memory.max".into()],
    }
}

/// Binds the calling thread, and those that it starts from here on, to one CPU.
pub fn pin(cpu: usize) {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call checks `cpu` against the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is read with its own size; 0 is the calling thread.
    let rc = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if rc != 0 {
        tracing::warn!(cpu, error = %std::io::Error::last_os_error(), "the thread cannot be bound to its CPU");
    }
}
