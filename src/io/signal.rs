//! SIGINT and SIGTERM as events of the main thread, which does nothing else once the shards run.

/// Blocks both signals in this thread and in every thread that it starts from here on. Call it first.
pub fn block_stop_signals() {
    let set = stop_signals();
    // SAFETY: `set` is an initialised signal set; a null third argument means that the old mask is not wanted.
    let rc = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    assert_eq!(rc, 0, "pthread_sigmask with a valid set cannot fail");
}

/// Waits for the next stop signal and returns its number.
pub fn wait_for_stop_signal() -> i32 {
    let set = stop_signals();
    let mut signal = 0;
    loop {
        // SAFETY: both pointers are to live locals of the right types.
        let rc = unsafe { libc::sigwait(&set, &mut signal) };
        if rc == 0 {
            return signal;
        }
    }
}

fn stop_signals() -> libc::sigset_t {
    // SAFETY: a sigset_t is plain data, and sigemptyset initialises it before it is read.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a live local.
    unsafe { libc::sigemptyset(&mut set) };
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: `set` was initialised above and the signal numbers are valid.
        unsafe { libc::sigaddset(&mut set, signal) };
    }
    set
}
