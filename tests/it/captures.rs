//! What a running Apache Kafka answered, recorded by the interop scripts into `tests/captures`: every exchange decodes, and our verdict
//! on each produced batch is Kafka's, but for named differences.

use std::collections::BTreeMap;
use std::path::PathBuf;

use corelog::wire::api::ApiKey;
use corelog::wire::batch::{Accept, Batch, accept};
use corelog::wire::error::{code, codes};
use corelog::wire::frame::RequestHeader;
use corelog::wire::fuzz;
use corelog::wire::msg::{self, Bytes};
use corelog::wire::produce::ProduceRequest;
use serde_json::Value;

use crate::support::skip;
use crate::vectors::hex;

/// Requests that Kafka serves and the facade does not decode.
const NOT_DECODED: &[(&str, &str)] = &[(
    "connections.bodies: count fffffffe",
    "a count of -2 is null to Kafka, and refused by the generated messages",
)];

/// Where our verdict on a batch is not Kafka's.
const DIFFERENT: &[(&str, &str)] = &[
    ("a batch and a byte", "Kafka drops what follows the batch; records are stored here as they were sent"),
    ("offset delta", "Kafka renumbers records; see above. Compressed batches are not walked without need"),
    ("length 2 GiB", "Kafka fails with an unknown error"),
    ("of 2, gzip", "compressed batches are not walked without need"),
    ("of noise", "compressed batches are not walked without need"),
    ("LogAppendTime bit", "Kafka clears the bit; records are stored here as they were sent"),
    ("batches.too_large", "depends on the topic's configuration"),
    ("batches.compacted", "depends on the topic's configuration"),
    ("batches.timestamps: too old", "depends on the topic's configuration"),
];

/// Errors that are found before or behind the batch itself: acks, topics, transactions, sequences.
const NOT_OF_THE_BATCH: &[i16] = &[
    codes::INVALID_REQUIRED_ACKS,
    codes::UNKNOWN_TOPIC_OR_PARTITION,
    codes::UNKNOWN_TOPIC_ID,
    codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    codes::OUT_OF_ORDER_SEQUENCE_NUMBER,
    codes::INVALID_PRODUCER_EPOCH,
];

struct Exchange {
    name: String,
    api: i16,
    version: i16,
    request: Vec<u8>,
    /// None: Kafka closed the connection, or had nothing to say.
    response: Option<Vec<u8>>,
}

/// All exchanges; empty, with a printed line, where none were recorded.
fn exchanges(test: &str) -> Vec<Exchange> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let Ok(files) = std::fs::read_dir(&folder) else {
        skip(test, "no tests/captures");
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let list: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("text")).expect("JSON");
        for exchange in list.as_array().expect("a list") {
            let request = frame(&exchange["request_hex"]).expect("a request");
            if request.len() < 4 {
                continue;
            }
            found.push(Exchange {
                name: exchange["name"].as_str().expect("a name").to_string(),
                api: i16::from_be_bytes([request[0], request[1]]),
                version: i16::from_be_bytes([request[2], request[3]]),
                request,
                response: frame(&exchange["response_hex"]),
            });
        }
    }
    found
}

/// A frame without its length prefix, whether or not it was recorded with one.
fn frame(recorded: &Value) -> Option<Vec<u8>> {
    let bytes = hex(recorded.as_str()?);
    let prefix = bytes.first_chunk::<4>().map(|len| i32::from_be_bytes(*len));
    let prefixed = prefix == i32::try_from(bytes.len()).ok().map(|len| len - 4);
    Some(if prefixed { bytes[4..].to_vec() } else { bytes })
}

fn is_listed(list: &[(&str, &str)], name: &str) -> bool {
    list.iter().any(|(part, _)| name.contains(part))
}

/// Every recorded request, without its length prefix.
pub fn requests() -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut requests = Vec::new();
    let Ok(files) = std::fs::read_dir(folder) else { return requests };
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "json")) {
        let list: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("text")).expect("JSON");
        let exchanges = list.as_array().expect("a list").iter();
        requests.extend(
            exchanges.filter_map(|exchange| frame(&exchange["request_hex"])).filter(|r| r.len() >= 8),
        );
    }
    requests
}

#[test]
fn recorded_exchanges_decode() {
    let mut decoded = 0;
    for exchange in exchanges("captures::recorded_exchanges_decode") {
        let name = &exchange.name;
        // Also those that Kafka did not answer: they are hostile on purpose.
        fuzz::requests(&exchange.request);
        let Some(response) = exchange.response else { continue };
        let Some(api) = ApiKey::from_wire(exchange.api) else { continue };
        if !api.serves(exchange.version) {
            // Answered in version 0: the client does not know better.
            assert_eq!(api, ApiKey::ApiVersions, "{name}");
            msg::recode_response(api, 0, Bytes::from(response)).expect(name);
            continue;
        }
        let request = msg::recode_request(&exchange.request);
        assert_eq!(request.is_err(), is_listed(NOT_DECODED, name), "{name}: {request:?}");
        let again = msg::recode_response(api, exchange.version, Bytes::from(response.clone())).expect(name);
        assert_eq!(&again[4..], &response[..], "{name}");
        decoded += 1;
    }
    println!("{decoded} exchanges");
}

#[test]
fn produced_batches_get_kafkas_verdict() {
    let mut compared = 0;
    let mut now_ms = None;
    for exchange in exchanges("captures::produced_batches_get_kafkas_verdict") {
        let (Some(response), Ok(header)) = (exchange.response, RequestHeader::parse(&exchange.request))
        else {
            continue;
        };
        if header.api != ApiKey::Produce {
            continue;
        }
        let mut request = ProduceRequest::default();
        request.parse(&exchange.request, &header).expect("what Kafka answered");
        let response = msg::decode_response::<msg::ProduceRequest>(Bytes::from(response), header.version)
            .expect("decodes");
        // Kafka does not keep the order of the request; a partition named twice is answered once.
        let verdicts: BTreeMap<_, _> = response
            .responses
            .iter()
            .flat_map(|topic| topic.partition_responses.iter().map(move |part| (topic, part)))
            .map(|(topic, part)| ((topic.name.to_string(), topic.topic_id.to_bytes(), part.index), part))
            .collect();
        if verdicts.len() != request.partitions.len() {
            continue;
        }
        let asked = request.topics.iter().flat_map(|topic| topic.range().map(move |at| (topic, at)));
        for (topic, at) in asked {
            let partition = &request.partitions[at];
            let name = topic.name(&exchange.request).unwrap_or_default().to_string();
            let id = topic.id().unwrap_or_default().0;
            let verdict = verdicts[&(name, id, partition.index)];
            let records = partition.records.bytes(&exchange.request);
            // The first batch tells the time of the recording.
            let first_ms = Batch::only(records).map_or(0, |batch| batch.base_timestamp());
            let now_ms = *now_ms.get_or_insert(first_ms);
            let error = verdict.error_code;
            if NOT_OF_THE_BATCH.contains(&error) || is_listed(DIFFERENT, &exchange.name) {
                continue;
            }
            let ours = accept(records, &limits(header.version, now_ms))
                .err()
                .map_or(0, |refusal| code(refusal.error));
            assert_eq!(ours, error, "{} v{}", exchange.name, header.version);
            compared += 1;
        }
    }
    println!("{compared} batches");
}

/// Kafka's defaults.
fn limits(produce_version: i16, now_ms: i64) -> Accept {
    Accept {
        produce_version,
        max_message_bytes: 1_048_588,
        segment_bytes: 1 << 30,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        log_append_time: false,
        compact: false,
        deep: false,
        compression: None,
        now_ms,
    }
}
