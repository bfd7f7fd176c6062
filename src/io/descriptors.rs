//! The process's limit of open files.

/// Raises the soft limit to the hard one: each log in use holds a file or two, each connection one. A limit that cannot be raised stays.
pub fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 || limit.rlim_cur >= limit.rlim_max {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; the kernel only reads it.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
}
