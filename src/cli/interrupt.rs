//! Ctrl-C and SIGTERM: the first asks the command to end, the second ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::exit::{Exit, Failure};
use crate::io::signal;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Begins to watch; call it before other threads are started.
pub fn watch() {
    signal::block_stop_signals();
    std::thread::spawn(|| {
        signal::wait_for_stop_signal();
        ASKED.store(true, Ordering::Relaxed);
        signal::wait_for_stop_signal();
        std::process::exit(Exit::Interrupted as i32);
    });
}

/// True once the command should end.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// What an interrupted command returns.
pub fn failure(done: &str) -> Failure {
    Failure::plain(Exit::Interrupted, "interrupted", done, "", &["run the command again"])
}
