//! Making the driver that the configuration asks for.

use std::time::Duration;

use super::Io;
use super::epoll::Epoll;
#[cfg(feature = "glommio")]
use super::glommio::Glommio;
pub use super::linux::spin::SPIN_MAX;
use super::uring::Uring;
use super::uring::probe::WITHOUT;
use crate::base::error::Fatal;
use crate::config::runtime::Runtime;

/// What a driver for one thread is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverConfig {
    /// Most bytes of blocks. Nothing is mapped before `grow_pool`.
    pub pool_bytes: usize,
    /// Submission entries of the ring; more operations may be pushed between two turns.
    pub entries: u32,
    /// Receive buffers of 64 KiB, mapped at once; at most 32768.
    pub recv_buffers: u16,
    /// Longest time to spin before sleeping when work comes in quick succession, at most [`SPIN_MAX`]. Zero where shards share cores with others.
    pub spin: Duration,
    /// Bind the calling thread to this CPU.
    pub cpu: Option<usize>,
}

impl Default for DriverConfig {
    fn default() -> DriverConfig {
        DriverConfig {
            pool_bytes: 64 << 20,
            entries: 1024,
            recv_buffers: 256,
            spin: Duration::ZERO,
            cpu: None,
        }
    }
}

/// A driver for the calling thread. `Auto` takes io_uring, or epoll where io_uring is forbidden, too old or may not lock its rings, and says
/// so: to be asked once in a process, and the others for what it came to.
pub fn open(runtime: Runtime, config: DriverConfig) -> Result<Io, Fatal> {
    match runtime {
        Runtime::Uring => uring(config),
        Runtime::Epoll => epoll(&config),
        Runtime::Glommio => glommio(&config),
        Runtime::Auto => uring(config.clone()).or_else(|refused| {
            if !FALLS_BACK.contains(&refused.code) {
                return Err(refused);
            }
            // Epoll is what it gets.
            let remedies: Vec<&str> =
                refused.tries.iter().map(String::as_str).filter(|remedy| *remedy != WITHOUT).collect();
            let remedy = remedies.join(", or ");
            tracing::warn!(
                why = %refused.summary, found = %refused.found, remedy,
                "io_uring cannot be used: epoll takes its place"
            );
            epoll(&config)
        }),
    }
}

/// Refusals of io_uring that another driver gets around.
const FALLS_BACK: [&str; 4] = ["uring-blocked", "uring-disabled", "kernel-old", "memlock"];

fn uring(config: DriverConfig) -> Result<Io, Fatal> {
    Ok(Io::Uring(Box::new(Uring::new(config)?)))
}

fn epoll(config: &DriverConfig) -> Result<Io, Fatal> {
    Ok(Io::Epoll(Box::new(Epoll::new(config)?)))
}

#[cfg(feature = "glommio")]
fn glommio(config: &DriverConfig) -> Result<Io, Fatal> {
    Ok(Io::Glommio(Box::new(Glommio::new(config)?)))
}

#[cfg(not(feature = "glommio"))]
fn glommio(_config: &DriverConfig) -> Result<Io, Fatal> {
    let there: Vec<&str> = Runtime::built().collect();
    Err(Fatal {
        code: "runtime-not-built",
        summary: "this build of corelog has no glommio".into(),
        found: format!("runtimes of this build: {}", there.join(", ")),
        means: "it was built without the cargo feature glommio".into(),
        tries: vec!["cargo build --release --features glommio".into(), "--runtime uring".into()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::linux::seccomp::forbid_io_uring;
    use crate::io::linux::skip::skip;

    fn config() -> DriverConfig {
        DriverConfig { pool_bytes: 4 << 20, entries: 16, recv_buffers: 4, ..DriverConfig::default() }
    }

    #[test]
    fn where_io_uring_is_forbidden_auto_is_epoll_and_uring_is_refused() {
        let filtered = std::thread::spawn(|| {
            if !forbid_io_uring() {
                skip("open::where_io_uring_is_forbidden", "seccomp is not permitted");
                return;
            }
            let chosen = open(Runtime::Auto, config()).map(|io| io.runtime());
            assert_eq!(chosen, Ok(Some(Runtime::Epoll)));
            let refused = open(Runtime::Uring, config()).err().expect("forbidden");
            assert_eq!(refused.code, "uring-blocked");
        });
        filtered.join().expect("auto falls back");
    }

    #[test]
    fn auto_is_io_uring_where_that_works() {
        if Uring::new(config()).is_ok() {
            let chosen = open(Runtime::Auto, config()).map(|io| io.runtime());
            assert_eq!(chosen, Ok(Some(Runtime::Uring)));
        }
    }
}
