//! The hand-written parsers and writers, field by field against what Kafka printed beside the bytes.

use corelog::base::ids::Uuid;
use corelog::wire::api::{ApiKey, Feature, Features, write_versions_response};
use corelog::wire::fetch::{
    AbortedTransaction, DivergingEpoch, FetchRequest, FetchResponseHead, FetchResponseWriter,
    FetchedPartition,
};
use corelog::wire::frame::RequestHeader;
use corelog::wire::msg::{self, ApiVersionsRequest, Bytes};
use corelog::wire::produce::{ProduceRequest, ProduceResponseWriter, ProducedPartition};
use corelog::wire::topics::{CurrentLeader, NodeEndpoint, Topic, TopicKey};
use serde_json::Value;

use super::messages::request_frame;
use super::{base64, int, list, nullable_text, text, vectors};

const CORRELATION_ID: i32 = 7;

fn topic_is(topic: &Topic, frame: &[u8], name: &Value, id: &Value) -> bool {
    match id {
        Value::Null => topic.name(frame) == nullable_text(name),
        id => topic.id().map(|id| id.to_kafka_text()).as_deref() == Some(text(id)),
    }
}

fn key<'v>(name: &'v Value, id: &'v Value) -> TopicKey<'v> {
    match id {
        Value::Null => TopicKey::Name(text(name)),
        id => TopicKey::Id(Uuid(base64(text(id)).try_into().expect("16 bytes"))),
    }
}

#[test]
fn produce_requests() {
    let mut parsed = ProduceRequest::default();
    for version in 3..=13 {
        for vector in vectors("hot::produce_requests", "ProduceRequest", version) {
            let frame = request_frame(ApiKey::Produce, version, &vector.body);
            let header = RequestHeader::parse(&frame).expect("a header");
            parsed.parse(&frame, &header).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
            let (json, name) = (&vector.json, &vector.name);
            assert_eq!(i64::from(parsed.acks), int(&json["acks"]), "{name}");
            assert_eq!(i64::from(parsed.timeout_ms), int(&json["timeoutMs"]), "{name}");
            let id = parsed.transactional_id.map(|id| id.text(&frame));
            assert_eq!(id, nullable_text(&json["transactionalId"]), "{name}");
            assert_eq!(parsed.topics.len(), list(&json["topicData"]).len(), "{name}");
            for (topic, json) in parsed.topics.iter().zip(list(&json["topicData"])) {
                assert!(topic_is(topic, &frame, &json["name"], &json["topicId"]), "{name}");
                let partitions = &parsed.partitions[topic.range()];
                assert_eq!(partitions.len(), list(&json["partitionData"]).len(), "{name}");
                for (partition, json) in partitions.iter().zip(list(&json["partitionData"])) {
                    assert_eq!(i64::from(partition.index), int(&json["index"]), "{name}");
                    let records = nullable_text(&json["records"]).map(base64).unwrap_or_default();
                    assert_eq!(partition.records.bytes(&frame), records, "{name}");
                }
            }
            for len in header.body_at..frame.len() {
                assert!(parsed.parse(&frame[..len], &header).is_err(), "{name} cut at {len}");
            }
        }
    }
}

#[test]
fn produce_responses() {
    for version in 3..=13 {
        for vector in vectors("hot::produce_responses", "ProduceResponse", version) {
            let (json, name) = (&vector.json, &vector.name);
            let mut out = Vec::new();
            let topics = list(&json["responses"]);
            let mut writer = ProduceResponseWriter::begin(&mut out, version, CORRELATION_ID, topics.len());
            for topic in topics {
                let partitions = list(&topic["partitionResponses"]);
                writer.topic(key(&topic["name"], &topic["topicId"]), partitions.len());
                for json in partitions {
                    write_produced(&mut writer, json);
                }
            }
            writer.finish(int(&json["throttleTimeMs"]) as i32, &endpoints(json));
            let body = if version >= 9 { 9 } else { 8 };
            assert_eq!(&out[body..], &vector.body[..], "{name}");
            assert_eq!(i32::from_be_bytes([out[0], out[1], out[2], out[3]]) as usize, out.len() - 4);
        }
    }
}

fn write_produced(writer: &mut ProduceResponseWriter<'_>, json: &Value) {
    let or = |field: &str, default: i64| json[field].as_i64().unwrap_or(default);
    let errors: Vec<(i32, Option<&str>)> = list(&json["recordErrors"])
        .iter()
        .map(|e| (int(&e["batchIndex"]) as i32, nullable_text(&e["batchIndexErrorMessage"])))
        .collect();
    writer.partition(&ProducedPartition {
        index: or("index", 0) as i32,
        error_code: or("errorCode", 0) as i16,
        base_offset: or("baseOffset", 0),
        log_append_time_ms: or("logAppendTimeMs", -1),
        log_start_offset: or("logStartOffset", -1),
        record_errors: &errors,
        error_message: nullable_text(&json["errorMessage"]),
        current_leader: leader(&json["currentLeader"]),
    });
}

fn leader(json: &Value) -> Option<CurrentLeader> {
    let leader = CurrentLeader {
        leader_id: json["leaderId"].as_i64()? as i32,
        leader_epoch: json["leaderEpoch"].as_i64()? as i32,
    };
    (leader != CurrentLeader { leader_id: -1, leader_epoch: -1 }).then_some(leader)
}

fn endpoints(json: &Value) -> Vec<NodeEndpoint<'_>> {
    list(&json["nodeEndpoints"])
        .iter()
        .map(|e| NodeEndpoint {
            node_id: int(&e["nodeId"]) as i32,
            host: text(&e["host"]),
            port: int(&e["port"]) as i32,
            rack: nullable_text(&e["rack"]),
        })
        .collect()
}

#[test]
fn fetch_requests() {
    let mut parsed = FetchRequest::default();
    for version in 4..=18 {
        for vector in vectors("hot::fetch_requests", "FetchRequest", version) {
            let frame = request_frame(ApiKey::Fetch, version, &vector.body);
            let header = RequestHeader::parse(&frame).expect("a header");
            parsed.parse(&frame, &header).unwrap_or_else(|e| panic!("{}: {e}", vector.name));
            check_fetch(&parsed, &vector.json, &frame, &vector.name);
            for len in header.body_at..frame.len() {
                assert!(parsed.parse(&frame[..len], &header).is_err(), "{} cut at {len}", vector.name);
            }
        }
    }
}

fn check_fetch(parsed: &FetchRequest, json: &Value, frame: &[u8], name: &str) {
    let same = |value: i64, json: &Value, default: i64| {
        assert_eq!(value, json.as_i64().unwrap_or(default), "{name}");
    };
    let replica = if parsed.version >= 15 { &json["replicaState"]["replicaId"] } else { &json["replicaId"] };
    same(parsed.replica_id.into(), replica, -1);
    same(parsed.max_wait_ms.into(), &json["maxWaitMs"], 0);
    same(parsed.min_bytes.into(), &json["minBytes"], 0);
    same(parsed.max_bytes.into(), &json["maxBytes"], 0);
    same(parsed.isolation_level.into(), &json["isolationLevel"], 0);
    same(parsed.session_id.into(), &json["sessionId"], 0);
    same(parsed.session_epoch.into(), &json["sessionEpoch"], -1);
    assert_eq!(
        parsed.rack.map_or("", |rack| rack.text(frame)),
        json["rackId"].as_str().unwrap_or(""),
        "{name}"
    );
    assert_eq!(parsed.cluster_id.map(|id| id.text(frame)), nullable_text(&json["clusterId"]), "{name}");
    assert_eq!(parsed.topics.len(), list(&json["topics"]).len(), "{name}");
    for (topic, json) in parsed.topics.iter().zip(list(&json["topics"])) {
        assert!(topic_is(topic, frame, &json["topic"], &json["topicId"]), "{name}");
        assert_eq!(topic.count as usize, list(&json["partitions"]).len(), "{name}");
        for (partition, json) in parsed.partitions[topic.range()].iter().zip(list(&json["partitions"])) {
            same(partition.index.into(), &json["partition"], 0);
            same(partition.current_leader_epoch.into(), &json["currentLeaderEpoch"], -1);
            same(partition.fetch_offset, &json["fetchOffset"], 0);
            same(partition.last_fetched_epoch.into(), &json["lastFetchedEpoch"], -1);
            same(partition.log_start_offset, &json["logStartOffset"], -1);
            same(partition.max_bytes.into(), &json["partitionMaxBytes"], 0);
        }
    }
    let forgotten = list(&json["forgottenTopicsData"]);
    assert_eq!(parsed.forgotten_topics.len(), forgotten.len(), "{name}");
    for (topic, json) in parsed.forgotten_topics.iter().zip(forgotten) {
        assert!(topic_is(topic, frame, &json["topic"], &json["topicId"]), "{name}");
        let expected: Vec<i32> = list(&json["partitions"]).iter().map(|p| int(p) as i32).collect();
        assert_eq!(&parsed.forgotten_partitions[topic.range()], &expected[..], "{name}");
    }
}

/// Null records are what we never send, and snapshot ids belong to the controller: such vectors are left out, counted.
#[test]
fn fetch_responses() {
    let (mut compared, mut left_out) = (0, 0);
    for version in 4..=18 {
        for vector in vectors("hot::fetch_responses", "FetchResponse", version) {
            let mut partitions = list(&vector.json["responses"]).iter().flat_map(|t| list(&t["partitions"]));
            if partitions
                .any(|p| p["records"].is_null() || p["snapshotId"]["epoch"].as_i64().unwrap_or(-1) != -1)
            {
                left_out += 1;
                continue;
            }
            compared += 1;
            let sent = write_fetched(&vector.json, version);
            let body = if version >= 12 { 9 } else { 8 };
            assert_eq!(&sent[body..], &vector.body[..], "{}", vector.name);
        }
    }
    println!("{compared} compared, {left_out} left out");
}

/// What goes over the wire: the metadata with the records inserted at the gaps.
fn write_fetched(json: &Value, version: i16) -> Vec<u8> {
    let head = FetchResponseHead {
        correlation_id: CORRELATION_ID,
        throttle_time_ms: int(&json["throttleTimeMs"]) as i32,
        error_code: json["errorCode"].as_i64().unwrap_or(0) as i16,
        session_id: json["sessionId"].as_i64().unwrap_or(0) as i32,
    };
    let topics = list(&json["responses"]);
    let (mut out, mut gaps) = (Vec::new(), Vec::new());
    let mut writer = FetchResponseWriter::begin(&mut out, version, &head, topics.len());
    for topic in topics {
        let partitions = list(&topic["partitions"]);
        writer.topic(key(&topic["topic"], &topic["topicId"]), partitions.len());
        for json in partitions {
            let records = base64(text(&json["records"]));
            gaps.push((write_partition(&mut writer, json, records.len()), records));
        }
    }
    let total = writer.finish(&endpoints(json));
    let mut sent = Vec::new();
    let mut from = 0;
    for (gap, records) in gaps {
        sent.extend_from_slice(&out[from..gap]);
        sent.extend_from_slice(&records);
        from = gap;
    }
    sent.extend_from_slice(&out[from..]);
    assert_eq!(sent.len(), total);
    assert_eq!(i32::from_be_bytes([sent[0], sent[1], sent[2], sent[3]]) as usize, sent.len() - 4);
    sent
}

fn write_partition(writer: &mut FetchResponseWriter<'_>, json: &Value, records_bytes: usize) -> usize {
    let or = |field: &str, default: i64| json[field].as_i64().unwrap_or(default);
    let aborted: Option<Vec<AbortedTransaction>> = json["abortedTransactions"].as_array().map(|list| {
        let one = |t: &Value| AbortedTransaction {
            producer_id: int(&t["producerId"]),
            first_offset: int(&t["firstOffset"]),
        };
        list.iter().map(one).collect()
    });
    let diverging = &json["divergingEpoch"];
    let diverging = DivergingEpoch {
        epoch: diverging["epoch"].as_i64().unwrap_or(-1) as i32,
        end_offset: diverging["endOffset"].as_i64().unwrap_or(-1),
    };
    let partition = FetchedPartition {
        index: or("partitionIndex", 0) as i32,
        error_code: or("errorCode", 0) as i16,
        high_watermark: or("highWatermark", 0),
        last_stable_offset: or("lastStableOffset", -1),
        log_start_offset: or("logStartOffset", -1),
        diverging_epoch: (diverging != DivergingEpoch { epoch: -1, end_offset: -1 }).then_some(diverging),
        current_leader: leader(&json["currentLeader"]),
        aborted_transactions: aborted.as_deref(),
        preferred_read_replica: or("preferredReadReplica", -1) as i32,
    };
    writer.partition(&partition, records_bytes)
}

/// Our ApiVersions answer lists our own APIs, so Kafka's bytes cannot be compared; its decoder must read it.
#[test]
fn versions_responses_are_read_by_the_generated_decoder() {
    let supported = [
        Feature { name: "metadata.version", min: 7, max: 27 },
        Feature { name: "transaction.version", min: 0, max: 2 },
    ];
    let finalized = [Feature { name: "metadata.version", min: 27, max: 27 }];
    let features = Features { supported: &supported, finalized: &finalized, finalized_epoch: 3 };
    for version in 0..=4 {
        let mut out = Vec::new();
        write_versions_response(&mut out, CORRELATION_ID, version, 0, 5, &features);
        let frame = Bytes::copy_from_slice(&out[4..]);
        let again = msg::recode_response(ApiKey::ApiVersions, version, frame.clone()).expect("decodes");
        assert_eq!(again, out, "version {version}");
        let read = msg::decode_response::<ApiVersionsRequest>(frame, version).expect("decodes");
        assert_eq!(read.api_keys[0].min_version, 0, "Produce is advertised from 0");
        let names: Vec<&str> = read.supported_features.iter().map(|f| &*f.name).collect();
        match version {
            0..=2 => assert!(names.is_empty()),
            3 => assert_eq!(names, ["metadata.version"]),
            _ => assert_eq!(names, ["metadata.version", "transaction.version"]),
        }
        if version >= 3 {
            assert_eq!(read.finalized_features[0].max_version_level, 27);
            assert_eq!(read.finalized_features_epoch, 3);
        }
    }
}
