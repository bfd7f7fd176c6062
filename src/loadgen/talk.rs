//! What goes over a connection: requests made in advance, and just enough reading of the answers to know that they are good.

use crate::client::producer::produce_request;
use crate::client::settings::{Acks, RESPONSE_BYTES_MAX};
use crate::io::SendPart;
use crate::io::buffer::{BlockSlice, Pool};
use crate::wire::batch;
use crate::wire::error::codes;
use crate::wire::msg::fetch_request::{FetchPartition, FetchTopic};
use crate::wire::msg::{self, Bytes, FetchRequest, ProduceRequest, StrBytes};

/// Versions without tagged fields: what is patched lies at a fixed place, and nothing follows the records.
const PRODUCE_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 11;

/// Where the correlation id stands in a request frame: behind length, key and version.
const CORRELATION_AT: usize = 8;

/// The bare pipeline's frames: `length u32 | crc u32 | seq u64 | payload`, little-endian; the answer is 64 bytes and begins with
/// the sequence.
const BARE_HEADER_BYTES: usize = 16;
const BARE_REPLY_BYTES: usize = 64;

/// One answer as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub records: u64,
    /// Record bytes as sent or fetched.
    pub bytes: u64,
    /// Kafka's number; 0 is success.
    pub error: i16,
}

/// How one connection speaks.
pub enum Talk {
    Produce(ProduceTalk),
    Fetch(FetchTalk),
    Bare(BareTalk),
}

impl Talk {
    /// Appends the next request to `parts`.
    pub fn request(&mut self, parts: &mut Vec<SendPart>) {
        match self {
            Talk::Produce(talk) => talk.request(parts),
            Talk::Fetch(talk) => talk.request(parts),
            Talk::Bare(talk) => talk.request(parts),
        }
    }

    /// Length of the answer at the front of `input`, once it can be told. An error for bytes that are no answer.
    pub fn answer_len(&self, input: &[u8]) -> Result<Option<usize>, String> {
        if let Talk::Bare(_) = self {
            return Ok(Some(BARE_REPLY_BYTES));
        }
        let Some(prefix) = input.first_chunk::<4>() else { return Ok(None) };
        let claimed = i32::from_be_bytes(*prefix);
        let len = usize::try_from(claimed).ok().filter(|len| (4..=RESPONSE_BYTES_MAX).contains(len));
        len.map(|len| Some(len + 4)).ok_or_else(|| format!("an answer claims {claimed} bytes"))
    }

    /// Reads one whole answer, to the oldest request that has none.
    pub fn answer(&mut self, bytes: &[u8]) -> Result<Answer, String> {
        match self {
            Talk::Produce(talk) => talk.answer(bytes),
            Talk::Fetch(talk) => talk.answer(bytes),
            Talk::Bare(talk) => talk.answer(bytes),
        }
    }
}

/// Copies bytes into pool blocks, to be sent from there over and over.
pub fn into_blocks(pool: &mut Pool, mut bytes: &[u8]) -> Option<Vec<BlockSlice>> {
    let mut slices = Vec::new();
    while !bytes.is_empty() {
        let mut block = pool.take()?;
        let taken = block.append(bytes);
        slices.push(block.slice(0..taken));
        bytes = &bytes[taken..];
    }
    Some(slices)
}

pub struct ProduceTalk {
    /// The request up to the batch. The partition's index and the batch's length, 4 bytes each, are its end.
    prefix: Vec<u8>,
    /// One for each request, in turn.
    partitions: Vec<i32>,
    batch: Vec<BlockSlice>,
    records: u64,
    batch_bytes: u64,
    next: i32,
    due: i32,
    /// Where the partition's error number stands in an answer.
    error_at: usize,
}

impl ProduceTalk {
    /// Requests to `partitions`, at least one, in turn. `batch` is encoded; `slices` hold the same bytes.
    pub fn new(
        topic: &str,
        partitions: Vec<i32>,
        acks: Acks,
        batch: &Bytes,
        records: u64,
        slices: Vec<BlockSlice>,
    ) -> Result<ProduceTalk, String> {
        let first = *partitions.first().ok_or("no partition")?;
        let request = produce_request(topic, first, batch.clone(), acks, std::time::Duration::from_secs(30));
        let mut prefix = Vec::new();
        msg::encode_request::<ProduceRequest>(
            &mut prefix,
            0,
            Some("corelog-bench"),
            PRODUCE_VERSION,
            &request,
        )
        .map_err(|e| e.to_string())?;
        prefix.truncate(prefix.len() - batch.len());
        // length, correlation id, topics, name, partitions, index
        let error_at = 4 + 4 + 4 + 2 + topic.len() + 4 + 4;
        Ok(ProduceTalk {
            prefix,
            partitions,
            batch: slices,
            records,
            batch_bytes: batch.len() as u64,
            next: 0,
            due: 0,
            error_at,
        })
    }

    fn request(&mut self, parts: &mut Vec<SendPart>) {
        let mut prefix = self.prefix.clone();
        prefix[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&self.next.to_be_bytes());
        let partition = self.partitions[self.next as u32 as usize % self.partitions.len()];
        let index_at = prefix.len() - 8;
        prefix[index_at..index_at + 4].copy_from_slice(&partition.to_be_bytes());
        self.next = self.next.wrapping_add(1);
        parts.push(SendPart::Bytes(prefix));
        parts.extend(self.batch.iter().map(|slice| SendPart::Block(slice.clone())));
    }

    fn answer(&mut self, bytes: &[u8]) -> Result<Answer, String> {
        in_turn(bytes, &mut self.due)?;
        let error = bytes.get(self.error_at..self.error_at + 2).ok_or("an answer is too short")?;
        let error = i16::from_be_bytes([error[0], error[1]]);
        if error == codes::NONE {
            Ok(Answer { records: self.records, bytes: self.batch_bytes, error })
        } else {
            Ok(Answer { error, ..Answer::default() })
        }
    }
}

/// Reads one partition over and over, with a position for each request in flight.
pub struct FetchTalk {
    topic: StrBytes,
    partition: i32,
    /// (first, end) of the partition.
    range: (i64, i64),
    positions: Vec<i64>,
    partition_bytes: i32,
    next: i32,
    due: i32,
}

impl FetchTalk {
    pub fn new(
        topic: &str,
        partition: i32,
        range: (i64, i64),
        in_flight: usize,
        partition_bytes: i32,
    ) -> FetchTalk {
        // Readers at different places, so that they do not all read the same bytes.
        let step = (range.1 - range.0) / in_flight.max(1) as i64;
        let positions = (0..in_flight as i64).map(|i| range.0 + i * step).collect();
        FetchTalk {
            topic: StrBytes::from(topic),
            partition,
            range,
            positions,
            partition_bytes,
            next: 0,
            due: 0,
        }
    }

    fn slot(&self, number: i32) -> usize {
        number as u32 as usize % self.positions.len()
    }

    fn request(&mut self, parts: &mut Vec<SendPart>) {
        let mut wanted = FetchPartition::default();
        wanted.partition = self.partition;
        wanted.current_leader_epoch = -1;
        wanted.fetch_offset = self.positions[self.slot(self.next)];
        wanted.partition_max_bytes = self.partition_bytes;
        let mut of_topic = FetchTopic::default();
        of_topic.topic = self.topic.clone();
        of_topic.partitions = vec![wanted];
        let mut request = FetchRequest::default();
        request.replica_id = -1;
        request.max_wait_ms = 500;
        request.min_bytes = 1;
        request.max_bytes = self.partition_bytes;
        request.session_epoch = -1;
        request.topics = vec![of_topic];
        let mut frame = Vec::new();
        msg::encode_request::<FetchRequest>(
            &mut frame,
            self.next,
            Some("corelog-bench"),
            FETCH_VERSION,
            &request,
        )
        .expect("every field exists in this version");
        self.next = self.next.wrapping_add(1);
        parts.push(SendPart::Bytes(frame));
    }

    fn answer(&mut self, bytes: &[u8]) -> Result<Answer, String> {
        let slot = self.slot(self.due);
        in_turn(bytes, &mut self.due)?;
        let frame = Bytes::copy_from_slice(&bytes[4..]);
        let response =
            msg::decode_response::<FetchRequest>(frame, FETCH_VERSION).map_err(|e| e.to_string())?;
        let data = response
            .responses
            .first()
            .and_then(|t| t.partitions.first())
            .ok_or("an answer without the partition")?;
        let mut answer = Answer {
            error: if response.error_code == 0 { data.error_code } else { response.error_code },
            ..Answer::default()
        };
        let records = data.records.as_deref().unwrap_or_default();
        for batch in batch::batches(records) {
            let batch = batch.map_err(|e| format!("fetched bytes are no batch: {e:?}"))?;
            answer.records += batch.count().max(0) as u64;
            self.positions[slot] = batch.next_offset();
        }
        answer.bytes = records.len() as u64;
        if self.positions[slot] >= self.range.1 {
            self.positions[slot] = self.range.0;
        }
        Ok(answer)
    }
}

/// Kafka answers in the order of the requests.
fn in_turn(bytes: &[u8], due: &mut i32) -> Result<(), String> {
    let found = bytes.get(4..).and_then(|b| b.first_chunk::<4>()).map(|b| i32::from_be_bytes(*b));
    if found != Some(*due) {
        return Err(format!("answer {found:?} came where {due} was due"));
    }
    *due = due.wrapping_add(1);
    Ok(())
}

pub struct BareTalk {
    payload: Vec<BlockSlice>,
    payload_bytes: u64,
    crc: u32,
    next: u64,
    due: u64,
}

impl BareTalk {
    pub fn new(payload: Vec<BlockSlice>, crc: u32) -> BareTalk {
        let payload_bytes = payload.iter().map(|slice| slice.len() as u64).sum();
        BareTalk { payload, payload_bytes, crc, next: 0, due: 0 }
    }

    fn request(&mut self, parts: &mut Vec<SendPart>) {
        let mut header = Vec::with_capacity(BARE_HEADER_BYTES);
        header.extend_from_slice(&(self.payload_bytes as u32).to_le_bytes());
        header.extend_from_slice(&self.crc.to_le_bytes());
        header.extend_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        parts.push(SendPart::Bytes(header));
        parts.extend(self.payload.iter().map(|slice| SendPart::Block(slice.clone())));
    }

    fn answer(&mut self, bytes: &[u8]) -> Result<Answer, String> {
        let found = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        if found != Some(self.due) {
            return Err(format!("answer {found:?} came where {} was due", self.due));
        }
        self.due += 1;
        Ok(Answer { records: 1, bytes: self.payload_bytes, error: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_their_partitions_in_turn() {
        let batch = Bytes::from_static(&[1, 2, 3]);
        let mut pool = Pool::new(4 << 20);
        assert!(pool.grow().is_some());
        let slices = into_blocks(&mut pool, &batch).unwrap();
        let mut talk = ProduceTalk::new("orders", vec![3, 700], Acks::All, &batch, 1, slices).unwrap();
        let mut named = || {
            let mut parts = Vec::new();
            talk.request(&mut parts);
            let frame: Vec<u8> = parts.iter().flat_map(|part| part.as_slice()).copied().collect();
            // Behind length, key, version and correlation id: client id, transactional id, acks, timeout, then the topics.
            let topics_at = 4 + 2 + 2 + 4 + 2 + "corelog-bench".len() + 2 + 2 + 4;
            let index_at = topics_at + 4 + 2 + "orders".len() + 4;
            let index = frame[index_at..index_at + 4].try_into().map(i32::from_be_bytes).unwrap();
            (index, frame.ends_with(&[0, 0, 0, 3, 1, 2, 3]))
        };
        assert_eq!([named(), named(), named()], [(3, true), (700, true), (3, true)]);
    }

    #[test]
    fn a_refusal_is_found_in_a_produce_answer() {
        let mut talk =
            ProduceTalk::new("orders", vec![3], Acks::All, &Bytes::from_static(&[1, 2, 3]), 7, Vec::new()).unwrap();
        let mut parts = Vec::new();
        talk.request(&mut parts);
        let mut response = msg::ProduceResponse::default();
        let mut topic = msg::produce_response::TopicProduceResponse::default();
        topic.name = StrBytes::from("orders");
        let mut partition = msg::produce_response::PartitionProduceResponse::default();
        (partition.index, partition.error_code) = (3, codes::CORRUPT_MESSAGE);
        topic.partition_responses = vec![partition];
        response.responses = vec![topic];
        let mut frame = Vec::new();
        msg::encode_response::<ProduceRequest>(&mut frame, 0, PRODUCE_VERSION, &response).unwrap();
        assert_eq!(Talk::Produce(ProduceTalk { next: 0, ..talk }).answer_len(&frame), Ok(Some(frame.len())));
        let mut talk =
            ProduceTalk::new("orders", vec![3], Acks::All, &Bytes::from_static(&[1, 2, 3]), 7, Vec::new()).unwrap();
        assert_eq!(talk.answer(&frame), Ok(Answer { error: codes::CORRUPT_MESSAGE, ..Answer::default() }));
        assert!(talk.answer(&frame).is_err(), "the same answer twice");
    }
}
