//! What the fuzzers drive, one function per target: `fuzz/` feeds them for hours, the tests feed them seeds, mutations of seeds and
//! the corpus. Each takes any bytes and panics only where a parser broke a promise; not called by the broker.

use crate::base::limits::COLD_FRAME_BYTES_MAX;
use crate::wire::api::ApiKey;
use crate::wire::batch::{self, Accept, Batch, records};
use crate::wire::codec;
use crate::wire::error::WireError;
use crate::wire::fetch::FetchRequest as HotFetch;
use crate::wire::frame::{FrameSplitter, RequestHeader};
use crate::wire::msg::{self, Bytes, FetchRequest, ProduceRequest};
use crate::wire::produce::ProduceRequest as HotProduce;

/// Target `splitter`: the frames of a stream do not depend on its chunks, and memory follows what arrived. The first byte chooses the
/// chunks, the rest is the stream.
pub fn splitter(data: &[u8]) {
    let Some((seed, stream)) = data.split_first() else { return };
    let whole = split(stream, usize::MAX);
    let size = usize::from(*seed) + 1;
    assert_eq!(split(stream, size), whole, "chunks of {size} change the frames");
}

/// The frames of a stream fed in chunks of `size` bytes, and the error that ended it, if one did.
fn split(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, Option<WireError>) {
    let mut splitter = FrameSplitter::requests(COLD_FRAME_BYTES_MAX);
    let mut stream = stream.to_vec();
    let mut frames = Vec::new();
    for chunk in stream.chunks_mut(size.min(1 << 20)) {
        let mut chunk = chunk;
        loop {
            let before = chunk.len();
            match splitter.next_frame(&mut chunk) {
                Ok(Some(frame)) => frames.push(frame.bytes().to_vec()),
                Ok(None) => break,
                Err(e) => return (frames, Some(e)),
            }
            assert!(chunk.len() < before || before == 0, "a frame without bytes");
        }
        assert!(chunk.is_empty(), "bytes left behind");
        assert!(
            splitter.held_capacity() <= 65536.max(2 * splitter.held_bytes()),
            "memory ahead of the bytes"
        );
    }
    (frames, None)
}

/// Target `requests`: no frame makes a decoder panic, and for Produce and Fetch what the generated messages accept, the hot parsers
/// read alike.
pub fn requests(frame: &[u8]) {
    let Ok(header) = RequestHeader::parse(frame) else { return };
    match header.api {
        ApiKey::Produce => {
            let mut hot = HotProduce::default();
            let parsed = hot.parse(frame, &header);
            if let Ok((_, cold)) = msg::decode_request::<ProduceRequest>(frame) {
                assert_eq!(parsed, Ok(()), "the hot parser refuses what is sound");
                assert_same_produce(&hot, &cold, frame);
            }
        }
        ApiKey::Fetch => {
            let mut hot = HotFetch::default();
            let parsed = hot.parse(frame, &header);
            if let Ok((_, cold)) = msg::decode_request::<FetchRequest>(frame) {
                assert_eq!(parsed, Ok(()), "the hot parser refuses what is sound");
                assert_same_fetch(&hot, &cold, frame);
            }
        }
        _ => drop(msg::recode_request(frame)),
    }
}

/// Target `responses`: no bytes make a decoder of our client panic. Two bytes choose API and version.
pub fn responses(data: &[u8]) {
    let [api, version, frame @ ..] = data else { return };
    if let Some(api) = ApiKey::from_wire(i16::from(*api)) {
        drop(msg::recode_response(api, i16::from(*version), Bytes::copy_from_slice(frame)));
    }
}

/// Target `batches`: no bytes make a batch check, walk, search or decompression panic or pass its budget; what `accept` lets through
/// can be walked to its count. Both as they are and with a CRC that matches, or nothing behind the CRC would be reached.
pub fn batches(data: &[u8]) {
    batch_set(data);
    let mut sound = data.to_vec();
    if let Ok(Some(size)) = batch::size(&sound)
        && size <= sound.len()
    {
        sound.truncate(size);
        let max = Batch::first(&sound).map_or(0, |(batch, _)| batch.max_timestamp());
        batch::set_max_timestamp(&mut sound, max);
        batch_set(&sound);
    }
}

fn batch_set(data: &[u8]) {
    for batch in batch::batches(data).flatten() {
        let _ = (batch.check(), batch.last_sequence(), batch.next_offset());
        let _ = batch::find_timestamp(&batch, batch.base_timestamp(), batch.base_offset());
        let _ = batch::find_max_timestamp(&batch);
        let mut scratch = Vec::new();
        if let Ok(walk) = records::open(&batch, &mut scratch) {
            for record in walk.flatten() {
                assert_eq!(record.headers.len(), record.headers.clone().count());
            }
        }
        assert!(scratch.len() <= codec::budget(batch.payload().len()) + 64 * 1024);
    }
    for (compact, codec) in [(false, None), (true, None), (false, Some(codec::Codec::Lz4))] {
        let limits = Accept {
            produce_version: 13,
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            log_append_time: false,
            compact,
            deep: false,
            compression: codec.map(codec::Compression::from),
            now_ms: 0,
        };
        let Ok(accepted) = batch::accept(data, &limits) else { continue };
        let batch = accepted.batch;
        let walk = |batch: &batch::Batch<'_>| {
            let mut scratch = Vec::new();
            records::open(batch, &mut scratch).map(|walk| walk.flatten().count())
        };
        if compact || accepted.change.is_some() || batch.codec() == Some(codec::Codec::None) {
            assert_eq!(walk(&batch), Ok(batch.count() as usize), "accepted, but not to be walked");
        }
        if let Ok(Some(stored)) = batch::rewrite(&accepted, &limits) {
            let again = batch::accept(&stored, &limits).expect("what is stored is sound");
            assert_eq!((again.change, walk(&again.batch)), (None, Ok(batch.count() as usize)));
        }
    }
}

/// Asserts that the hot parser and the generated message read the same request.
pub fn assert_same_produce(hot: &HotProduce, cold: &ProduceRequest, frame: &[u8]) {
    assert_eq!(hot.acks, cold.acks);
    assert_eq!(hot.timeout_ms, cold.timeout_ms);
    assert_eq!(hot.transactional_id.map(|id| id.text(frame)), cold.transactional_id.as_deref());
    assert_eq!(hot.topics.len(), cold.topic_data.len());
    for (topic, expected) in hot.topics.iter().zip(&cold.topic_data) {
        assert_eq!(topic.name(frame).unwrap_or(""), &*expected.name);
        assert_eq!(topic.id().unwrap_or_default(), expected.topic_id.into());
        assert_eq!(topic.count as usize, expected.partition_data.len());
        for (partition, expected) in hot.partitions[topic.range()].iter().zip(&expected.partition_data) {
            assert_eq!(partition.index, expected.index);
            assert_eq!(partition.records.bytes(frame), expected.records.as_deref().unwrap_or(&[]));
        }
    }
}

/// Asserts that the hot parser and the generated message read the same request.
pub fn assert_same_fetch(hot: &HotFetch, cold: &FetchRequest, frame: &[u8]) {
    let replica_id = if hot.version >= 15 { cold.replica_state.replica_id } else { cold.replica_id };
    assert_eq!(hot.replica_id, replica_id);
    assert_eq!((hot.max_wait_ms, hot.min_bytes), (cold.max_wait_ms, cold.min_bytes));
    assert_eq!((hot.max_bytes, hot.isolation_level), (cold.max_bytes, cold.isolation_level));
    assert_eq!((hot.session_id, hot.session_epoch), (cold.session_id, cold.session_epoch));
    assert_eq!(hot.rack.map_or("", |rack| rack.text(frame)), &*cold.rack_id);
    assert_eq!(hot.cluster_id.map(|id| id.text(frame)), cold.cluster_id.as_deref());
    assert_eq!(hot.topics.len(), cold.topics.len());
    for (topic, expected) in hot.topics.iter().zip(&cold.topics) {
        assert_eq!(topic.name(frame).unwrap_or(""), &*expected.topic);
        assert_eq!(topic.id().unwrap_or_default(), expected.topic_id.into());
        assert_eq!(topic.count as usize, expected.partitions.len());
        for (partition, expected) in hot.partitions[topic.range()].iter().zip(&expected.partitions) {
            assert_eq!(partition.index, expected.partition);
            assert_eq!(partition.current_leader_epoch, expected.current_leader_epoch);
            assert_eq!(partition.fetch_offset, expected.fetch_offset);
            assert_eq!(partition.last_fetched_epoch, expected.last_fetched_epoch);
            assert_eq!(partition.log_start_offset, expected.log_start_offset);
            assert_eq!(partition.max_bytes, expected.partition_max_bytes);
        }
    }
    assert_eq!(hot.forgotten_topics.len(), cold.forgotten_topics_data.len());
    for (topic, expected) in hot.forgotten_topics.iter().zip(&cold.forgotten_topics_data) {
        assert_eq!(topic.name(frame).unwrap_or(""), &*expected.topic);
        assert_eq!(topic.id().unwrap_or_default(), expected.topic_id.into());
        assert_eq!(&hot.forgotten_partitions[topic.range()], &expected.partitions[..]);
    }
}
