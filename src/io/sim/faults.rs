//! What may go wrong, as numbers. All rates are in parts per million of the operations they concern.

use std::ops::RangeInclusive;

use super::rng::Rng;
use crate::io::Errno;

/// Rates of the faults that a world injects by itself. May be changed while it runs: a safety phase with faults, then a liveness
/// phase with [`Faults::calm`].
#[derive(Clone, Debug)]
pub struct Faults {
    pub read_eio: u32,
    pub write_eio: u32,
    pub flush_eio: u32,
    /// EIO on open, rename, remove, allocate, directory sync.
    pub meta_eio: u32,
    /// A write stops early, at a multiple of 512.
    pub write_short: u32,
    /// A file operation takes `stall_ns` instead of microseconds.
    pub stall: u32,
    pub stall_ns: RangeInclusive<u64>,
    /// Microseconds of an ordinary disk operation.
    pub disk_us: RangeInclusive<u64>,
    /// Per piece that travels: the connection is reset.
    pub reset: u32,
    /// Per piece that travels: it is held up for `hold_ns`. With a `hold_ns` of many seconds: a one-way partition.
    pub hold: u32,
    pub hold_ns: RangeInclusive<u64>,
    /// Microseconds of an ordinary network delay.
    pub net_us: RangeInclusive<u64>,
    /// A piece arrives in scraps of 1 to 16 bytes.
    pub split: u32,
    /// A send takes fewer bytes than there is room for.
    pub send_short: u32,
    /// A multishot `Recv` ends with `NOBUFS` and has to be armed again.
    pub recv_nobufs: u32,
    /// A multishot `Accept` ends with the connection it hands over.
    pub accept_end: u32,
    /// Per turn: the wall clock jumps by up to an hour in either direction.
    pub wall_jump: u32,
    /// The monotonic clock of a new process runs up to 10 % fast or slow.
    pub clock_skew: bool,
    /// Per turn: a wait returns early without any completion.
    pub early_return: u32,
    /// The pool refuses to grow.
    pub no_memory: u32,
}

impl Faults {
    /// Nothing fails and nothing is short, but completions still come late and in any order.
    pub fn none() -> Faults {
        Faults {
            read_eio: 0,
            write_eio: 0,
            flush_eio: 0,
            meta_eio: 0,
            write_short: 0,
            stall: 0,
            stall_ns: 100_000_000..=5_000_000_000,
            disk_us: 20..=400,
            reset: 0,
            hold: 0,
            hold_ns: 100_000_000..=20_000_000_000,
            net_us: 10..=300,
            split: 0,
            send_short: 0,
            recv_nobufs: 0,
            accept_end: 0,
            wall_jump: 0,
            clock_skew: false,
            early_return: 0,
            no_memory: 0,
        }
    }

    /// What every healthy machine does: short results, splits, ends of multishot operations.
    pub fn calm() -> Faults {
        Faults {
            write_short: 20_000,
            split: 100_000,
            send_short: 100_000,
            recv_nobufs: 10_000,
            accept_end: 50_000,
            early_return: 10_000,
            ..Faults::none()
        }
    }

    /// A different bad day for each seed: every class of fault is switched on or off by chance, so that rare combinations and
    /// long stretches without a fault both occur. Errors of the disk are left to the caller: they end the log directory.
    pub fn drawn(rng: &mut Rng) -> Faults {
        let mut some = |ppm: u32| if rng.below(2) == 0 { ppm } else { 0 };
        let calm = Faults::calm();
        Faults {
            write_short: some(50_000),
            split: some(300_000),
            send_short: some(300_000),
            recv_nobufs: some(50_000),
            accept_end: some(200_000),
            early_return: some(50_000),
            stall: some(3_000),
            reset: some(2_000),
            hold: some(2_000),
            wall_jump: some(2_000),
            no_memory: some(100_000),
            clock_skew: some(1) == 1,
            disk_us: if some(1) == 1 { 20..=20_000 } else { calm.disk_us.clone() },
            ..calm
        }
    }
}

/// What a fault placed on one certain operation does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    Fails(Errno),
    /// A write moves fewer bytes than asked; what moves no bytes, and a read, is left alone.
    Short,
}

/// The kinds of file operations that a placed fault can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    Read,
    Write,
    /// `Flush`, and the flush inside a write with `Dsync`.
    Flush,
    /// Everything else that touches the disk.
    Meta,
    /// Any of them.
    Any,
}

/// How a disk behaves.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    pub capacity_bytes: u64,
    /// See [`StorageCaps::shared_flush`](crate::io::StorageCaps::shared_flush).
    pub shared_flush: bool,
    /// See [`StorageCaps::flush_apart`](crate::io::StorageCaps::flush_apart). Says what the log should do, and changes no operation.
    pub flush_apart: bool,
    /// A write with `Dsync` makes durable also what was returned before its push, as the contract says. False models a drive with
    /// FUA, where the kernel sends such a write past the cache and leaves the rest of the cache alone.
    pub dsync_covers_earlier: bool,
    pub file_system: &'static str,
    pub not_durable: Option<&'static str>,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig {
            capacity_bytes: 1 << 30,
            shared_flush: true,
            flush_apart: false,
            dsync_covers_earlier: true,
            file_system: "ext4",
            not_durable: None,
        }
    }
}
