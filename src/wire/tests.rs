//! Framing, headers, the hot parsers against the generated messages, and hostile bytes. Kafka's own bytes are checked in `tests/it`.

use super::api::{self, ApiKey, Features, Path, TABLE};
use super::error::{WireError, code, code_of, codes, name};
use super::fetch::{FetchRequest as HotFetch, FetchResponseHead, FetchResponseWriter, FetchedPartition};
use super::frame::{Frame, FrameSplitter, RequestHeader};
use super::msg::{self, *};
use super::produce::{ProduceRequest as HotProduce, ProduceResponseWriter, ProducedPartition};
use super::topics::TopicKey;
use super::{batch, codec, fuzz};
use crate::base::error::Refused;
use crate::base::ids;
use crate::base::limits::{COLD_FRAME_BYTES_MAX, FRAME_BYTES_MAX};

/// Small deterministic numbers for mutations (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}

/// A request frame without its length prefix.
fn frame_of<R: Call>(version: i16, request: &R) -> Vec<u8> {
    let mut out = Vec::new();
    msg::encode_request(&mut out, 77, Some("tester"), version, request).expect("encodes");
    out.split_off(4)
}

fn produce_request(version: i16) -> ProduceRequest {
    let topic = |n: u8| {
        let mut topic = produce_request::TopicProduceData::default();
        if version >= 13 {
            topic.topic_id = Uuid::from_bytes([n; 16]);
        } else {
            topic.name = StrBytes::from(format!("topic-{n}"));
        }
        for index in 0..2 {
            let mut partition = produce_request::PartitionProduceData::default();
            partition.index = index;
            partition.records = (index == 0).then(|| Bytes::from(vec![n; 300]));
            topic.partition_data.push(partition);
        }
        topic
    };
    let mut request = ProduceRequest::default();
    request.acks = -1;
    request.timeout_ms = 1500;
    request.transactional_id = Some(StrBytes::from("tx"));
    request.topic_data = vec![topic(1), topic(2), Default::default()];
    request
}

fn fetch_request(version: i16) -> FetchRequest {
    let mut request = FetchRequest::default();
    request.max_wait_ms = 500;
    request.min_bytes = 1;
    request.max_bytes = 1 << 20;
    request.isolation_level = 1;
    for n in 1..3u8 {
        let mut topic = fetch_request::FetchTopic::default();
        let mut forgotten = fetch_request::ForgottenTopic::default();
        if version >= 13 {
            topic.topic_id = Uuid::from_bytes([n; 16]);
            forgotten.topic_id = Uuid::from_bytes([n + 10; 16]);
        } else {
            topic.topic = StrBytes::from("topic");
            forgotten.topic = StrBytes::from("gone");
        }
        let mut partition = fetch_request::FetchPartition::default();
        partition.partition = i32::from(n);
        partition.fetch_offset = 1000;
        partition.partition_max_bytes = 4096;
        if version >= 9 {
            partition.current_leader_epoch = 5;
        }
        if version >= 12 {
            partition.last_fetched_epoch = 4;
        }
        if version >= 17 {
            partition.replica_directory_id = Uuid::from_bytes([9; 16]);
        }
        topic.partitions = vec![partition.clone(), partition];
        forgotten.partitions = vec![3, 4];
        request.topics.push(topic);
        if version >= 7 {
            request.session_id = 6;
            request.session_epoch = 7;
            request.forgotten_topics_data.push(forgotten);
        }
    }
    if version >= 11 {
        request.rack_id = StrBytes::from("rack");
    }
    if version >= 12 {
        request.cluster_id = Some(StrBytes::from("cluster"));
    }
    if version >= 15 {
        request.replica_state.replica_id = 3;
    }
    request
}

/// One frame of each API in each version: what the mutations start from.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    (3..=13).for_each(|v| seeds.push(frame_of(v, &produce_request(v))));
    (4..=18).for_each(|v| seeds.push(frame_of(v, &fetch_request(v))));
    for version in 0..=13 {
        let mut request = MetadataRequest::default();
        let mut topic = metadata_request::MetadataRequestTopic::default();
        topic.name = Some(StrBytes::from("orders"));
        request.topics = Some(vec![topic.clone(), topic]);
        seeds.push(frame_of(version, &request));
    }
    for version in 2..=7 {
        let mut topic = create_topics_request::CreatableTopic::default();
        topic.name = StrBytes::from("orders");
        topic.configs.push(Default::default());
        let mut request = CreateTopicsRequest::default();
        request.topics.push(topic);
        seeds.push(frame_of(version, &request));
    }
    (3..=4).for_each(|v| seeds.push(frame_of(v, &ApiVersionsRequest::default())));
    (0..=1).for_each(|v| seeds.push(frame_of(v, &IncrementalAlterConfigsRequest::default())));
    seeds
}

#[test]
fn the_table_agrees_with_the_schemas() {
    for row in TABLE {
        assert_eq!(ApiKey::from_wire(row.key.wire()), Some(row.key));
        assert_eq!(row.key.row(), row);
        assert!(row.advertised_min <= row.min && row.min <= row.max);
        let schema =
            kafka_wire::API_DESCRIPTORS.iter().find(|d| d.api_key.value() == row.key.wire()).expect("known");
        assert_eq!(
            schema.flexible_versions.map(|f| f.min().value()),
            Some(row.first_flexible),
            "{}",
            row.name
        );
        assert!(schema.supported_versions.min().value() <= row.min, "{}", row.name);
        assert!(schema.latest_stable_version().expect("one").value() >= row.max, "{}", row.name);
        assert_eq!(format!("{}Request", row.name), schema.request.name);
    }
    assert_eq!(TABLE.iter().filter(|row| row.advertised_min != row.min).count(), 1, "Produce alone");
    assert_eq!(TABLE.iter().filter(|row| row.path == Path::Hot).count(), 2);
}

#[test]
fn errors_have_kafkas_numbers_and_names() {
    assert_eq!(code(Refused::CorruptMessage), 2);
    assert_eq!(code(Refused::UnknownServerError), -1);
    assert_eq!(code_of::<()>(&Err(Refused::InvalidRecord)), 87);
    assert_eq!(code_of(&Ok(())), 0);
    assert_eq!(name(3), Some("UNKNOWN_TOPIC_OR_PARTITION"));
    assert_eq!(name(133), Some("SHARE_SESSION_LIMIT_REACHED"));
    assert_eq!(name(134), None);
    assert!((-1..=133).all(|code| name(code).is_some()));
}

#[test]
fn a_version_too_high_is_answered_in_version_0() {
    let mut out = Vec::new();
    api::write_versions_unsupported(&mut out, 9);
    let answer =
        msg::decode_response::<ApiVersionsRequest>(Bytes::from(out.split_off(4)), 4).expect("decodes");
    assert_eq!(answer.error_code, codes::UNSUPPORTED_VERSION);
    assert_eq!(answer.api_keys.len(), 1);
    assert_eq!((answer.api_keys[0].api_key, answer.api_keys[0].max_version), (18, 4));
}

#[test]
fn versions_answers_list_the_table() {
    for version in 0..=4 {
        let mut out = Vec::new();
        api::write_versions_response(&mut out, 9, version, 0, 0, &Features::NONE);
        let answer = msg::decode_response::<ApiVersionsRequest>(Bytes::from(out.split_off(4)), version)
            .expect("decodes");
        let listed: Vec<_> =
            answer.api_keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect();
        let expected: Vec<_> =
            TABLE.iter().map(|row| (row.key.wire(), row.advertised_min, row.max)).collect();
        assert_eq!(listed, expected);
    }
}

#[test]
fn software_names() {
    for good in ["a", "librdkafka", "v2.0.2-rc1", "0"] {
        assert!(api::is_software_name(good), "{good}");
    }
    for bad in ["", "-a", "a.", "a b", "a_b", "é"] {
        assert!(!api::is_software_name(bad), "{bad}");
    }
}

#[test]
fn frames_are_the_same_in_every_chunking() {
    let frames = [frame_of(9, &produce_request(9)), frame_of(0, &MetadataRequest::default()), vec![0; 8]];
    let mut stream = Vec::new();
    for frame in &frames {
        stream.extend_from_slice(&(frame.len() as i32).to_be_bytes());
        stream.extend_from_slice(frame);
    }
    for first in 0..=stream.len() {
        let mut stream = stream.clone();
        let (left, right) = stream.split_at_mut(first);
        let mut splitter = FrameSplitter::requests(FRAME_BYTES_MAX);
        let mut found = Vec::new();
        for mut chunk in [left, right] {
            while let Some(frame) = splitter.next_frame(&mut chunk).expect("frames") {
                found.push(frame.bytes().to_vec());
            }
        }
        assert_eq!(found, frames, "cut at {first}");
        assert_eq!(splitter.held_bytes(), 0);
    }
    for seed in 0..=255 {
        fuzz::splitter(&[&[seed], &stream[..]].concat());
    }
}

#[test]
fn a_whole_frame_is_yielded_in_place_and_an_assembled_one_can_be_taken() {
    let mut stream = vec![0, 0, 0, 8, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 3];
    let place = stream.as_ptr();
    let mut splitter = FrameSplitter::requests(100);
    let mut chunk = &mut stream[..];
    match splitter.next_frame(&mut chunk).expect("sound") {
        Some(Frame::InPlace(frame)) => assert_eq!(frame.as_ptr(), place.wrapping_add(4)),
        other => panic!("{other:?}"),
    }
    assert_eq!(splitter.next_frame(&mut chunk), Ok(None));
    assert_eq!((splitter.held_bytes(), splitter.claimed_bytes()), (6, Some(8)));
    let mut rest = [0, 0, 0, 0, 0, 2];
    let mut chunk = &mut rest[..];
    match splitter.next_frame(&mut chunk).expect("sound") {
        Some(Frame::Assembled(frame)) => assert_eq!(std::mem::take(frame), [0, 3, 0, 0, 0, 0, 0, 2]),
        other => panic!("{other:?}"),
    }
    assert_eq!(splitter.next_frame(&mut chunk), Ok(None));
}

#[test]
fn lengths_are_refused_before_memory_is_reserved() {
    let refused = |bytes: &[u8]| {
        let mut splitter = FrameSplitter::requests(FRAME_BYTES_MAX);
        let mut bytes = bytes.to_vec();
        let result = splitter.next_frame(&mut &mut bytes[..]).is_err();
        assert!(splitter.held_capacity() <= 4096);
        result
    };
    assert!(refused(&(-1i32).to_be_bytes()));
    assert!(refused(&i32::MAX.to_be_bytes()));
    assert!(refused(&7i32.to_be_bytes()), "shorter than any header");
    assert!(refused(&(FRAME_BYTES_MAX as i32 + 1).to_be_bytes()));
    assert!(!refused(&(FRAME_BYTES_MAX as i32).to_be_bytes()));
    let with_key = |len: usize, key: i16| [&(len as i32).to_be_bytes()[..], &key.to_be_bytes()[..]].concat();
    assert!(refused(&with_key(COLD_FRAME_BYTES_MAX + 1, 3)), "Metadata has the cold cap");
    assert!(refused(&with_key(COLD_FRAME_BYTES_MAX + 1, 999)), "so has what nobody knows");
    assert!(!refused(&with_key(COLD_FRAME_BYTES_MAX + 1, 0)), "Produce may be larger");
}

#[test]
fn memory_follows_the_bytes_that_arrived() {
    let mut splitter = FrameSplitter::requests(FRAME_BYTES_MAX);
    let mut head = (FRAME_BYTES_MAX as i32).to_be_bytes();
    assert_eq!(splitter.next_frame(&mut &mut head[..]), Ok(None));
    let mut arrived = 0;
    while arrived < 1 << 20 {
        let mut chunk = [0; 1000];
        assert_eq!(splitter.next_frame(&mut &mut chunk[..]), Ok(None));
        arrived += chunk.len();
        assert!(splitter.held_capacity() <= 4096.max(2 * arrived), "{arrived}");
    }
}

#[test]
fn headers_of_what_is_not_served() {
    let head = |key: i16, version: i16| {
        [&key.to_be_bytes()[..], &version.to_be_bytes(), &5i32.to_be_bytes(), &[0xff, 0xff, 0]].concat()
    };
    assert_eq!(RequestHeader::parse(&head(11, 0)), Err(WireError::UnknownApi { key: 11, version: 0 }));
    for (api, version) in
        [(ApiKey::ApiVersions, 99), (ApiKey::Produce, 2), (ApiKey::Fetch, 3), (ApiKey::Metadata, -1)]
    {
        let refused = WireError::UnsupportedVersion { api, version, correlation_id: 5 };
        assert_eq!(RequestHeader::parse(&head(api.wire(), version)), Err(refused));
    }
    let header = head(3, 12);
    assert_eq!(RequestHeader::parse(&header).expect("sound").client_id, None);
    // A tag of one byte, then one that is not above it.
    let tagged = [&header[..10], &[2, 5, 1, 9, 6, 0]].concat();
    assert_eq!(RequestHeader::parse(&tagged).expect("sound").body_at, tagged.len());
    let unordered = [&header[..10], &[2, 5, 1, 9, 5, 0]].concat();
    assert!(matches!(RequestHeader::parse(&unordered), Err(WireError::Malformed { .. })));
    let not_utf8 = [&head(3, 1)[..8], &[0, 1, 0xff]].concat();
    assert_eq!(RequestHeader::parse(&not_utf8).expect("as in Kafka").client_id, Some(""));
    let negative = [&head(3, 1)[..8], &[0xff, 0xfe]].concat();
    assert_eq!(RequestHeader::parse(&negative).expect("as in Kafka").client_id, None);
}

#[test]
fn hot_parsers_read_what_the_generated_messages_write() {
    let (mut produce, mut fetch) = (HotProduce::default(), HotFetch::default());
    for version in 3..=13 {
        let frame = frame_of(version, &produce_request(version));
        let header = RequestHeader::parse(&frame).expect("a header");
        assert_eq!((header.correlation_id, header.client_id), (77, Some("tester")));
        produce.parse(&frame, &header).expect("parses");
        fuzz::assert_same_produce(&produce, &produce_request(version), &frame);
        for len in header.body_at..frame.len() {
            assert!(produce.parse(&frame[..len], &header).is_err(), "version {version} cut at {len}");
        }
    }
    for version in 4..=18 {
        let frame = frame_of(version, &fetch_request(version));
        let header = RequestHeader::parse(&frame).expect("a header");
        fetch.parse(&frame, &header).expect("parses");
        fuzz::assert_same_fetch(&fetch, &fetch_request(version), &frame);
        for len in header.body_at..frame.len() {
            assert!(fetch.parse(&frame[..len], &header).is_err(), "version {version} cut at {len}");
        }
    }
}

/// Every window of four bytes becomes a huge count, every byte a huge compact one: refused, or harmless, and no list grows.
#[test]
fn huge_counts_reserve_nothing() {
    for seed in seeds() {
        for at in 0..seed.len().min(120) {
            for bytes in [
                &i32::MAX.to_be_bytes()[..],
                &[0xff, 0xff, 0xff, 0xff, 0x07],
                &[0xff; 9],
                &(-2i32).to_be_bytes(),
            ] {
                let mut frame = seed.clone();
                let len = bytes.len().min(frame.len() - at);
                frame[at..at + len].copy_from_slice(&bytes[..len]);
                fuzz::requests(&frame);
                let Ok(header) = RequestHeader::parse(&frame) else { continue };
                let mut produce = HotProduce::default();
                if header.api == ApiKey::Produce && produce.parse(&frame, &header).is_err() {
                    assert!(produce.topics.capacity() + produce.partitions.capacity() < 64);
                }
            }
        }
    }
}

#[test]
fn too_many_partitions_are_refused() {
    let mut request = ProduceRequest::default();
    let mut topic = produce_request::TopicProduceData::default();
    topic.name = StrBytes::from("t");
    topic.partition_data = vec![Default::default(); 40_000];
    request.topic_data = vec![topic.clone(), topic];
    let frame = frame_of(9, &request);
    let header = RequestHeader::parse(&frame).expect("a header");
    assert!(matches!(HotProduce::default().parse(&frame, &header), Err(WireError::Oversized { .. })));
}

#[test]
fn produce_responses_are_read_by_the_generated_decoder() {
    for version in 3..=13 {
        let key = if version >= 13 { TopicKey::Id(ids::Uuid([4; 16])) } else { TopicKey::Name("orders") };
        let mut out = Vec::new();
        let mut writer = ProduceResponseWriter::begin(&mut out, version, 8, 2);
        for index in 0..2 {
            writer.topic(key, 1);
            writer.partition(&ProducedPartition {
                index,
                error_code: 87,
                base_offset: -1,
                log_append_time_ms: -1,
                log_start_offset: 3,
                record_errors: &[(2, Some("no key"))],
                error_message: Some("bad"),
                current_leader: None,
            });
        }
        writer.finish(6, &[]);
        let answer =
            msg::decode_response::<ProduceRequest>(Bytes::from(out.split_off(4)), version).expect("decodes");
        assert_eq!((answer.responses.len(), answer.throttle_time_ms), (2, 6));
        let partition = &answer.responses[1].partition_responses[0];
        assert_eq!((partition.index, partition.error_code), (1, 87));
        assert_eq!(partition.error_message.is_some(), version >= 8);
    }
}

#[test]
fn fetch_responses_count_the_records_that_lie_elsewhere() {
    for version in 4..=18 {
        let head = FetchResponseHead { correlation_id: 8, ..Default::default() };
        let key = if version >= 13 { TopicKey::Id(ids::Uuid([4; 16])) } else { TopicKey::Name("orders") };
        let mut out = vec![1, 2, 3];
        let mut writer = FetchResponseWriter::begin(&mut out, version, &head, 1);
        writer.topic(key, 2);
        writer.partition(&FetchedPartition::refused(0, 6), 0);
        let gap =
            writer.partition(&FetchedPartition { high_watermark: 9, ..FetchedPartition::refused(1, 0) }, 200);
        let total = writer.finish(&[]);
        let sent = [&out[3..gap], &[7; 200], &out[gap..]].concat();
        assert_eq!(sent.len(), total);
        let answer = msg::decode_response::<FetchRequest>(Bytes::copy_from_slice(&sent[4..]), version)
            .expect("decodes");
        let [empty, full] = &answer.responses[0].partitions[..] else { panic!("two partitions") };
        assert_eq!(empty.records.as_deref(), Some(&[][..]), "never null");
        assert_eq!(empty.aborted_transactions, None);
        assert_eq!((full.high_watermark, full.records.as_ref().expect("records").len()), (9, 200));
    }
}

#[test]
fn cold_messages_check_our_own_range_first() {
    // The generated InitProducerId knows version 6, which is unstable; we serve up to 5.
    let request = InitProducerIdRequest::default();
    let error = msg::encode_request(&mut Vec::new(), 1, None, 6, &request);
    assert!(matches!(error, Err(WireError::UnsupportedVersion { version: 6, .. })));
    let mut frame = frame_of(5, &request);
    frame[3] = 6;
    let error = msg::decode_request::<InitProducerIdRequest>(&frame).map(|_| ());
    assert!(matches!(error, Err(WireError::UnsupportedVersion { version: 6, .. })));
}

#[test]
fn a_message_that_a_version_cannot_carry_leaves_the_buffer_alone() {
    let mut response = CreateTopicsResponse::default();
    response.topics.push(Default::default());
    let mut request = FetchRequest::default();
    request.forgotten_topics_data.push(Default::default());
    let mut out = vec![1];
    assert!(matches!(msg::encode_request(&mut out, 1, None, 4, &request), Err(WireError::Encode(_))));
    assert_eq!(out, [1]);
    msg::encode_response::<CreateTopicsRequest>(&mut out, 1, 7, &response).expect("encodes");
}

#[test]
fn mutated_requests_break_nothing() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let seeds = seeds();
    for _ in 0..4_000 {
        let mut frame = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(frame.len());
            match random.below(3) {
                0 => frame[at] = random.below(256) as u8,
                1 => frame.truncate(at.max(4)),
                _ => frame.insert(at, random.below(256) as u8),
            }
        }
        fuzz::requests(&frame);
        fuzz::splitter(&frame);
        fuzz::responses(&frame);
    }
}

#[test]
fn decompression_stops_at_its_budget() {
    let zeros = vec![0; 4 << 20];
    for codec in [codec::Codec::Gzip, codec::Codec::Snappy, codec::Codec::Lz4, codec::Codec::Zstd] {
        let (mut packed, mut out) = (Vec::new(), Vec::new());
        codec::compress(codec.into(), &zeros, &mut packed).expect("compresses");
        assert_eq!(codec::decompress(codec, &packed, &mut out, zeros.len()), Ok(()), "{}", codec.name());
        assert_eq!(out.len(), zeros.len());
        for budget in [0, 1, 100_000, zeros.len() - 1] {
            let refused = codec::decompress(codec, &packed, &mut out, budget);
            assert_eq!(refused, Err(Refused::CorruptMessage), "{} at {budget}", codec.name());
            assert!(out.len() <= budget + 64 * 1024 && out.capacity() <= 4 * zeros.len());
        }
    }
    // Claims 100 MiB in five bytes.
    let mut out = Vec::new();
    let claim = [0x80, 0x80, 0x80, 0x32, 0];
    assert!(
        codec::decompress(codec::Codec::Snappy, &claim, &mut out, codec::DECOMPRESSED_BYTES_MAX).is_err()
    );
    assert_eq!(out.capacity(), 0);
}

#[test]
fn snappy_is_read_raw_framed_and_concatenated() {
    let text = b"the same text, the same text, the same text".repeat(2000);
    let (mut framed, mut out) = (Vec::new(), Vec::new());
    codec::compress(codec::Codec::Snappy.into(), &text, &mut framed).expect("compresses");
    let raw = snap::raw::Encoder::new().compress_vec(&text).expect("compresses");
    codec::decompress(codec::Codec::Snappy, &raw, &mut out, 1 << 20).expect("raw");
    assert_eq!(out, text);
    let twice = [&framed[..], &framed[..]].concat();
    codec::decompress(codec::Codec::Snappy, &twice, &mut out, 1 << 20).expect("framed");
    assert_eq!(out, [&text[..], &text[..]].concat());
}

#[test]
fn mutated_batches_break_nothing() {
    let mut random = Random(7);
    let seeds: Vec<Vec<u8>> = codec::Codec::ALL
        .into_iter()
        .map(|codec| {
            let mut builder = batch::build::BatchBuilder::new(codec);
            for i in 0..20 {
                let headers: &[(&[u8], Option<&[u8]>)] = &[(b"k", Some(b"v")), (b"k", None)];
                let value = [b'v'; 50];
                let record =
                    batch::build::NewRecord { timestamp: i, key: Some(b"key"), value: Some(&value), headers };
                builder.push(&record);
            }
            let mut out = Vec::new();
            builder.finish(&mut out).expect("builds");
            out
        })
        .collect();
    for _ in 0..1_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.below(256) as u8;
        }
        fuzz::batches(&bytes);
    }
}
