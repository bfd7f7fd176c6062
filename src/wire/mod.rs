//! L4, Kafka bytes <-> values. Runs on every core, inside whichever shard owns the connection or the partition; it has no state
//! beyond what a caller passes in. It deliberately knows no sockets, no files, no topics that exist and no offsets that were
//! assigned: it is told. It is the only importer of the generated messages (crate `kafka-wire`) and of the compression codecs.
//!
//! Two paths. Hot: `frame`, `produce`, `fetch`, `batch` (over `primitive`, `topics`) are written by hand and parse in place. Cold:
//! every other API goes through the generated messages behind `msg`.
//!
//! Non-obvious:
//! - A count or length from the peer is compared with the bytes that are left before anything is reserved for it.
//! - The generated messages know more versions than we serve: the range check of `api` comes before each decode.
//! - The response header of ApiVersions is version 0 in every version, or a client that guessed too high could not read the error.
//! - Client ids stay plain nullable strings in the flexible request header.
//! - Produce is advertised from version 0 and accepted from 3: old librdkafka compresses only if 0 is in the range (KAFKA-18659).
//! - The CRC of a batch starts at its attributes: base offset, length, leader epoch and magic may change without a new CRC.
//! - As in Kafka, bytes behind the body of a request are ignored, and the hot parsers take every negative length for null. The
//!   generated messages take only -1.
//! - Records in a fetch response are never null: length 0, which in flexible versions is the byte 1.

pub mod api;
pub mod batch;
pub mod codec;
pub mod error;
pub mod fetch;
pub mod frame;
pub mod fuzz;
pub mod msg;
pub mod primitive;
pub mod produce;
pub mod topics;

#[cfg(test)]
mod tests;
