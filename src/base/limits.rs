//! Every bound, with its derivation. A queue, loop, buffer or retry without a line here has no bound and is a bug.

/// Unit of staging, tail cache, cold reads and direct writes. 256 KiB: the knee of the measured write-size curve, and small
/// enough that 16 MiB of memory still holds 64 of them.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// Alignment of direct I/O in memory and in files. The device reports 512 but its physical block is 4096.
pub const ALIGN: usize = 4096;

/// Smallest write that leaves while another write of the same log is in flight: more, smaller writes cost CPU and gain nothing.
pub const PIPELINED_WRITE_BYTES_MIN: usize = 64 * 1024;

/// Commit rounds in flight per shard. Four keep the device busy while one completes.
pub const ROUNDS_IN_FLIGHT_MAX: usize = 4;

/// Segments of an iovec chain in one system call; a send that has more takes several.
pub const SEND_PARTS_MAX: usize = 64;

/// Bytes that one send takes at most before it completes: a peer that reads slowly shows progress at least this often, and one that reads
/// fast costs a completion for each.
pub const SEND_BYTES_MAX: usize = 1024 * 1024;

/// Runs of record bytes shorter than this are copied next to their neighbours: an iovec costs more than the copy.
pub const SEND_GATHER_BYTES: usize = 4096;

/// Bytes of one receive buffer handed to the kernel.
pub const RECV_BUF_BYTES: usize = 64 * 1024;

/// Largest frame before its length is refused: Kafka's `socket.request.max.bytes`.
pub const FRAME_BYTES_MAX: usize = 104_857_600;

/// Largest frame of a request that is not Produce: cold requests decode into structures up to 36 times their bytes.
pub const COLD_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Topics, and partitions over all topics, in one Produce or Fetch request. A topic takes as little as 3 bytes of a frame and ten times
/// that when parsed, so the frame cap alone would let 100 MiB become 1 GiB. 65,536 partitions are more than a broker leads well.
pub const REQUEST_PARTITIONS_MAX: usize = 65_536;

/// Requests of one connection that are read but not yet answered; beyond it the socket is not read.
pub const IN_FLIGHT_PER_CONNECTION_MAX: usize = 128;

/// Shards of one broker. Also the distance between the ids under which two nodes advertise their shards.
pub const SHARDS_MAX: usize = 1024;

/// Requests that one shard may have unanswered at another, and all shards at one: fewer for each the more shards there are, because
/// N x N lanes of that many letters are memory.
pub const LANE_CREDITS_MAX: usize = 256;
pub const LANE_CREDITS_MIN: usize = 16;
pub const LANE_CREDITS_ALL: usize = 2048;

/// Letters taken out of one lane per turn.
pub const LETTERS_PER_TURN_MAX: usize = 128;

/// Connections per shard.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 20_000;

/// Completions taken from the kernel per turn: bounds how long a ready task waits behind them.
pub const COMPLETIONS_PER_TURN_MAX: usize = 256;

/// First window zeroed ahead of a log's end, and the largest: it grows fourfold with the partition's rate.
pub const ZERO_AHEAD_BYTES_MIN: u64 = 64 * 1024;
pub const ZERO_AHEAD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Batches remembered per producer and partition, to answer duplicates: Kafka's number.
pub const PRODUCER_BATCHES_KEPT: usize = 5;

/// Records that the refusal of one batch names. Kafka names all of them, which for a batch of 100 MiB are millions; 1024 with their
/// texts are 64 KiB of answer, and no client shows more.
pub const RECORD_ERRORS_MAX: usize = 1024;

/// Most bytes that a batch may decompress to where it is compressed anew: two copies of them live at once, in vectors that have up to twice
/// their size, which keeps within the 64 MiB that a broker may take beyond its pools. 16 times Kafka's default `max.message.bytes`.
pub const RECOMPRESSED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes before a record batch's attributes: not covered by Kafka's CRC.
pub const BATCH_UNCHECKED_BYTES: usize = 21;

/// Header of a record batch, magic 2.
pub const BATCH_HEADER_BYTES: usize = 61;

/// Producers remembered per partition; beyond it those that appended longest ago are forgotten. 4096 with five batches each are
/// 700 KiB of memory and of snapshot file; a forgotten producer goes on with any sequence, but its retries are no longer recognised.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 4096;

/// Entries of a segment's sparse index; beyond it every second one is dropped. 4096 over a segment of 1 GiB is one for each
/// block of 256 KiB, the unit of a cold read: a finer index would not save a read.
pub const INDEX_ENTRIES_MAX: usize = 4096;

/// Index entries that recovery keeps over all segments of a partition: 16 GiB at one for each block, 400 KiB of memory. With more
/// segments each index gets coarser, never below `INDEX_ENTRIES_MIN`.
pub const INDEX_PARTITION_ENTRIES_MAX: usize = 16 * INDEX_ENTRIES_MAX;
pub const INDEX_ENTRIES_MIN: usize = 64;

/// Leader epochs remembered per partition, the newest: each start that appends adds one, 12 bytes of the state file.
pub const LEADER_EPOCHS_KEPT: usize = 1024;

/// Largest checkpoint file (state, producers, index) that is read: twice the largest that the limits above let anyone write.
pub const CHECKPOINT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Times that one step of a file replacement is submitted again after EAGAIN, EINTR or a short write, before it counts as failed.
pub const REPLACE_RETRIES_MAX: u32 = 16;

/// Attempts at one small write that comes back short or interrupted. Each goes on where the last ended, so a healthy device needs two.
pub const WRITE_TRIES_MAX: u32 = 64;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(ALIGN));
const _: () = assert!(PIPELINED_WRITE_BYTES_MIN <= BLOCK_BYTES);
const _: () = assert!(COLD_FRAME_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(ZERO_AHEAD_BYTES_MIN.is_multiple_of(ALIGN as u64));
const _: () = assert!(PRODUCERS_PER_PARTITION_MAX * 192 <= CHECKPOINT_BYTES_MAX);
const _: () = assert!(INDEX_ENTRIES_MIN <= INDEX_ENTRIES_MAX);
