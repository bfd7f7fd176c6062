//! The driver conformance suite: what `corelog::io` promises, checked on every driver from outside.
//!
//! A driver joins with one function that makes a [`World`] and one module: `each_case!(super::make_world);`. The cases know only
//! [`Io`] and [`World`]. They run single-threaded: the other end of a connection is a [`Peer`] that never blocks, and time passes
//! only inside [`Io::turn`], so a driver with a virtual clock runs them unchanged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use corelog::base::limits::{ALIGN, BLOCK_BYTES};
use corelog::io::buffer::{Block, BlockSlice};
use corelog::io::{
    ConnId, Done, Errno, FileId, Io, ListenerId, Op, OpenMode, Payload, SendChain, SendPart, Token, Wait,
    WriteSync,
};

mod epoll;
mod files;
mod flow;
#[cfg(feature = "glommio")]
mod glommio;
mod net;
mod real;
mod shards;
mod sim;
mod uring;

/// What a driver brings to the suite: files and a network that several `Io`s and outside peers share.
pub trait World {
    /// A driver instance with at least 16 blocks of pool and at least [`RECV_BUFFERS`] receive buffers, nothing mapped or bound yet.
    fn io(&mut self) -> Io;

    /// Several drivers of one process, on this thread.
    fn shards(&mut self, count: usize) -> Vec<Io>;

    /// Has two [`shards::Player`]s play to the end, each on a driver and, where it is real, a thread of its own.
    fn play(&mut self);

    /// An existing, empty directory on storage that takes direct I/O.
    fn dir(&self) -> &Path;

    /// Begins a connection to a listening address of an `Io` of this world. The handshake may need turns of that `Io`.
    fn connect(&mut self, to: SocketAddr) -> Box<dyn Peer>;
}

/// Receive buffers of a [`World::io`]: few, so that a case can use them up.
pub const RECV_BUFFERS: u16 = 8;

/// The outside end of a connection. No method blocks. Dropping it closes the connection.
pub trait Peer {
    /// Writes as many of `bytes` as are taken now, and returns how many.
    fn write(&mut self, bytes: &[u8]) -> usize;

    /// Appends what has arrived to `into`; false once the stream has ended, by close or by reset.
    fn read(&mut self, into: &mut Vec<u8>) -> bool;

    /// As `read`, at most `max` bytes.
    fn read_some(&mut self, into: &mut Vec<u8>, max: usize) -> bool;

    /// Ends our direction of the stream, as `shutdown(SHUT_WR)` does.
    fn finish(&mut self);
}

/// One `#[test]` for each case. `$make` is `fn(case: &str) -> Option<Box<dyn World>>`; none prints why, and skips the case.
macro_rules! each_case {
    ($make:path) => {
        each_case! { $make;
            files: [
                a_written_block_reads_back,
                the_end_of_a_file_makes_a_read_short,
                a_read_fills_only_its_part_of_the_block,
                parts_of_one_block_go_to_several_places,
                a_padded_tail_is_rewritten_in_place,
                allocated_space_reads_as_zeros,
                space_that_is_only_reserved_is_told,
                the_device_of_a_file_is_told,
                truncation_sets_the_length,
                flushes_and_directory_syncs_succeed,
                open_modes_do_what_they_say,
                a_rename_moves_and_replaces,
                a_removed_file_lives_while_it_is_open,
                directories_are_made_listed_and_removed,
                a_close_waits_for_the_files_operations,
                blocks_are_free_again_after_their_operations,
                storage_says_what_it_can_do,
                a_directory_has_one_lock_holder,
            ]
            net: [
                one_accept_takes_many_connections,
                a_taken_port_is_refused,
                received_bytes_keep_their_order,
                a_bounded_receive_takes_one_piece,
                a_bounded_receive_ends_like_any,
                without_buffers_a_receive_ends_and_goes_on_when_armed_again,
                receive_buffers_are_shared_by_all_connections,
                a_peer_that_leaves_ends_the_receive,
                a_send_hands_its_chain_back,
                a_chain_longer_than_one_call_goes_on,
                both_directions_run_at_once,
                a_slow_reader_of_a_long_send_shows_progress,
                a_cancelled_receive_ends_and_another_begins,
                a_close_completes_after_what_was_in_flight,
                sending_to_a_peer_that_left_fails,
                connections_come_and_go,
                a_cancelled_accept_leaves_who_comes_to_the_next,
                an_accept_that_is_cancelled_as_it_takes_loses_nobody,
            ]
            flow: [
                five_hundred_operations_are_in_flight,
                a_turn_hands_out_a_bounded_number,
                a_turn_sleeps_until_its_time,
                a_turn_wakes_for_a_completion,
                a_turn_does_not_sleep_on_what_ends_at_once,
                waiting_for_one_keeps_the_others,
                waiting_for_one_outlasts_more_than_a_turns_completions,
                waiting_for_one_outlasts_what_ends_at_once,
                clocks_and_random_numbers_move,
                the_pool_grows_to_its_budget,
                dropping_it_ends_what_is_in_flight,
            ]
            shards: [
                a_call_before_the_sleep_makes_the_turn_return,
                a_call_from_outside_ends_a_sleep,
                a_waker_outlives_its_driver,
                messages_cross_between_shards_that_sleep,
                a_detached_connection_goes_on_with_another_shard,
                a_dropped_socket_is_closed,
                a_shared_listener_serves_every_shard,
                a_connection_does_not_wait_for_a_shard_that_does_no_turns,
                listeners_that_reuse_a_port_share_its_connections,
                a_lock_lasts_until_the_last_shard_is_gone,
            ]
        }
    };
    ($make:path; $($area:ident: [$($case:ident,)*])*) => {
        $($(
            #[test]
            fn $case() {
                if let Some(mut world) = $make(stringify!($case)) {
                    crate::conformance::$area::$case(&mut *world);
                }
            }
        )*)*
    };
}
use each_case;

/// An `Io` with tokens of its own making: every `Done` must carry one that is still owed.
pub struct Rig {
    pub io: Io,
    next_token: u64,
    owed: Vec<Token>,
    kept: Vec<Done>,
}

/// Longest that any case may wait for one completion, on the driver's own clock.
const PATIENCE_MS: u64 = 20_000;

impl Rig {
    pub fn new(world: &mut dyn World) -> Rig {
        Rig::of(world.io())
    }

    pub fn of(io: Io) -> Rig {
        let mut rig = Rig { io, next_token: 0xfeed_0000_0000_0001, owed: Vec::new(), kept: Vec::new() };
        assert!(rig.io.grow_pool(), "the pool maps its first slice");
        rig
    }

    pub fn push(&mut self, op: Op) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.owed.push(token);
        self.io.push(op, token);
        token
    }

    /// One turn of at most `ms`, whose completions are kept for [`Rig::take`].
    pub fn turn(&mut self, ms: u64) {
        let mut out = Vec::new();
        let until = self.io.now().plus_ms(ms);
        self.io.turn(Wait::Until(until), &mut out);
        for done in out {
            let at = self.owed.iter().position(|t| *t == done.token);
            let at = at.unwrap_or_else(|| panic!("completion of an operation that has ended: {done:?}"));
            if !done.more {
                self.owed.swap_remove(at);
            }
            self.kept.push(done);
        }
    }

    /// The oldest kept completion of `token`.
    pub fn take(&mut self, token: Token) -> Option<Done> {
        let at = self.kept.iter().position(|d| d.token == token)?;
        Some(self.kept.remove(at))
    }

    /// The oldest kept completion of all.
    pub fn take_any(&mut self) -> Option<Done> {
        if self.kept.is_empty() { None } else { Some(self.kept.remove(0)) }
    }

    /// Number of kept completions.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The next completion of `token`, others kept.
    pub fn next(&mut self, token: Token) -> Done {
        let start = self.io.now();
        loop {
            if let Some(done) = self.take(token) {
                return done;
            }
            assert!(self.io.now().since_ms(start) < PATIENCE_MS, "no completion of {token:?}");
            self.turn(50);
        }
    }

    /// Pushes `op` and waits for its one completion.
    pub fn run(&mut self, op: Op) -> Done {
        let token = self.push(op);
        let done = self.next(token);
        assert!(!done.more);
        done
    }

    /// As [`Rig::run`], for an operation that moves no bytes and must succeed.
    pub fn ok(&mut self, op: Op) {
        let what = format!("{op:?}");
        assert_eq!(self.run(op).result, Ok(0), "{what}");
    }

    /// Turns until `check` holds.
    pub fn until(&mut self, what: &str, mut check: impl FnMut(&mut Rig) -> bool) {
        let start = self.io.now();
        while !check(self) {
            assert!(self.io.now().since_ms(start) < PATIENCE_MS, "gave up waiting: {what}");
            self.turn(5);
        }
    }

    pub fn open(&mut self, path: &Path, mode: OpenMode) -> Result<FileId, Errno> {
        let done = self.run(Op::OpenFile { path: path.to_path_buf(), mode });
        match (done.result, done.payload) {
            (Ok(_), Payload::Opened(file, _)) => Ok(file),
            (Err(errno), Payload::None) => Err(errno),
            other => panic!("an open ended as {other:?}"),
        }
    }

    pub fn block(&mut self) -> Block {
        if self.io.pool().available() == 0 {
            self.io.grow_pool();
        }
        self.io.pool().take().expect("a free block")
    }

    /// A block filled with `pages` pages of a pattern that differs by `seed` and position.
    pub fn pattern(&mut self, pages: usize, seed: u8) -> BlockSlice {
        let mut block = self.block();
        block.append(&pattern(pages * ALIGN, seed));
        block.slice(0..pages * ALIGN)
    }

    pub fn write(&mut self, file: FileId, offset: u64, data: BlockSlice, sync: WriteSync) {
        let len = data.len();
        let done = self.run(Op::Write { file, offset, data, sync });
        assert_eq!(done.result, Ok(len as u32));
        assert!(matches!(done.payload, Payload::Written(slice) if slice.len() == len));
    }

    /// Reads up to `len` bytes at `offset`.
    pub fn read(&mut self, file: FileId, offset: u64, len: usize) -> Vec<u8> {
        let into = self.block();
        let done = self.run(Op::Read { file, offset, into, at: 0, len: len as u32 });
        let got = done.result.expect("the read succeeds") as usize;
        let Payload::Read(mut block) = done.payload else { panic!("a read hands its block back") };
        block.as_mut_slice()[..got].to_vec()
    }
}

/// `len` bytes that differ by `seed` and by position.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect()
}
