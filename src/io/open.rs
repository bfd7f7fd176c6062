//! Making the driver that the configuration asks for.

use super::Io;
use super::uring::Uring;
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
    /// Spin for a while before sleeping when work comes in quick succession. Off where shards share cores with others.
    pub spin: bool,
    /// Bind the calling thread to this CPU.
    pub cpu: Option<usize>,
}

impl Default for DriverConfig {
    fn default() -> DriverConfig {
        DriverConfig { pool_bytes: 64 << 20, entries: 1024, recv_buffers: 256, spin: false, cpu: None }
    }
}

/// A driver for the calling thread.
pub fn open(runtime: Runtime, config: DriverConfig) -> Result<Io, Fatal> {
    match runtime {
        Runtime::Auto | Runtime::Uring => {
            let uring = Uring::new(config)?;
            tracing::info!(ring = ?uring.probed(), "io_uring");
            Ok(Io::Uring(Box::new(uring)))
        }
    }
}
