//! What a connection remembers of a request while its shard works on it: enough to encode the response.

use crate::base::few::Few;
use crate::io::SendPart;
use crate::router::message::ReplyBody;

use super::buffers::Buffers;
use super::handlers::{delete_records, fetch, list_offsets, offset_for_leader_epoch, produce};

/// What a waiting request of one partition takes, in the server and in its shard together, its two stamp vectors included; and no less
/// than each further partition of it.
const WAITING_PART_BYTES: u64 = 640;

pub enum Pending {
    Produce(produce::Waiting),
    Fetch(fetch::Waiting),
    ListOffsets(list_offsets::Waiting),
    EpochEnds(offset_for_leader_epoch::Waiting),
    DeleteRecords(delete_records::Waiting),
    /// Waits for the controller, which answers with whole frames. Bytes of the frame that was copied for another shard.
    Control(usize),
}

/// A response, ready to be sent.
pub struct Encoded {
    /// None where the request wants no response.
    pub parts: Option<Few<SendPart>>,
    /// Kafka closes the connection instead of answering an error to acks=0.
    pub close: bool,
    /// How long its client is asked to wait with the next request; one that does not is not looked at for as long.
    pub mute_ms: Option<u64>,
    pub records: RecordBytes,
}

/// Record bytes of answers to fetches, and how many of them were copied to make few large parts out of many small ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordBytes {
    pub sent: u64,
    pub copied: u64,
}

impl Encoded {
    pub fn bytes(bytes: Vec<u8>) -> Encoded {
        let parts = Few::from_iter([SendPart::Bytes(bytes)]);
        Encoded { parts: Some(parts), close: false, mute_ms: None, records: RecordBytes::default() }
    }

    /// An answer that could not be encoded is our own bug: the client must not wait for it.
    pub fn failed() -> Encoded {
        Encoded { parts: None, close: true, mute_ms: None, records: RecordBytes::default() }
    }
}

impl Pending {
    /// Memory that it stands for.
    pub fn bytes_held(&self) -> u64 {
        let frame = if let Pending::Control(bytes) = self { *bytes as u64 } else { 0 };
        frame + self.parts() as u64 * WAITING_PART_BYTES
    }

    /// Partitions that it waits for.
    fn parts(&self) -> usize {
        match self {
            Pending::Produce(waiting) => waiting.parts(),
            Pending::Fetch(waiting) => waiting.parts(),
            Pending::ListOffsets(waiting) => waiting.parts(),
            Pending::EpochEnds(waiting) => waiting.parts(),
            Pending::DeleteRecords(waiting) => waiting.parts(),
            Pending::Control(_) => 1,
        }
    }

    /// While memory is `short` nothing is copied that can wait.
    pub fn answer(self, body: ReplyBody, short: bool, buffers: &mut Buffers) -> Encoded {
        match (self, body) {
            (Pending::Produce(waiting), ReplyBody::Produce(outcomes)) => waiting.answer(outcomes, buffers),
            (Pending::Fetch(waiting), ReplyBody::Fetch(outcomes)) => waiting.answer(outcomes, short, buffers),
            (Pending::ListOffsets(waiting), ReplyBody::ListOffsets(outcomes)) => waiting.answer(&outcomes),
            (Pending::EpochEnds(waiting), ReplyBody::EpochEnds(outcomes)) => waiting.answer(&outcomes),
            (Pending::DeleteRecords(waiting), ReplyBody::DeleteRecords(outcomes)) => {
                waiting.answer(&outcomes)
            }
            // The controller's shard refused the frame: as its own connection would, this one closes.
            (Pending::Control(_), ReplyBody::Frame(_)) => Encoded::failed(),
            _ => {
                debug_assert!(false, "a reply of another kind than its request");
                Encoded::failed()
            }
        }
    }
}
