//! Record batches that Kafka's own writers made.

use corelog::base::error::Refused;
use corelog::wire::batch::{self, Batch, records};
use corelog::wire::codec::{self, Codec};
use corelog::wire::fuzz;
use serde_json::Value;

use super::{base64, folder, hex, int, list, nullable_text, text};

/// Name, bytes, and what is in them.
fn batches(test: &str) -> Vec<(String, Vec<u8>, Value)> {
    let Some(folder) = folder(test) else { return Vec::new() };
    let read = |name: &str| -> Value {
        let path = folder.join("records").join(name);
        serde_json::from_str(&std::fs::read_to_string(path).expect("vectors")).expect("JSON")
    };
    let (bytes, values) = (read("batches.json"), read("values.json"));
    let values = list(&values["batches"]);
    let found: Vec<_> = list(&bytes["vectors"])
        .iter()
        .map(|v| {
            let name = text(&v["name"]);
            let value =
                values.iter().find(|value| text(&value["name"]) == name).expect("a value of this name");
            (name.to_string(), hex(text(&v["hex"])), value.clone())
        })
        .collect();
    assert!(found.len() >= 18);
    found
}

#[test]
fn batches_are_sound_and_every_flipped_byte_is_noticed() {
    for (name, bytes, _) in batches("records::batches_are_sound_and_every_flipped_byte_is_noticed") {
        let found = Batch::only(&bytes).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(found.check(), Ok(()), "{name}");
        assert_eq!(batch::batches(&bytes).count(), 1, "{name}");
        for at in 21..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            let check = Batch::only(&flipped).and_then(|batch| batch.check());
            assert_eq!(check, Err(Refused::CorruptMessage), "{name}, byte {at}");
        }
        for len in 0..bytes.len() {
            assert!(Batch::only(&bytes[..len]).is_err(), "{name} cut at {len}");
            fuzz::batches(&bytes[..len]);
        }
    }
}

#[test]
fn batch_headers_are_those_of_the_values() {
    for (name, bytes, value) in batches("records::batch_headers_are_those_of_the_values") {
        let batch = Batch::only(&bytes).expect("a batch");
        let or = |field: &str, default: i64| value[field].as_i64().unwrap_or(default);
        assert_eq!(batch.base_offset(), or("baseOffset", 0), "{name}");
        assert_eq!(batch.producer_id(), or("producerId", -1), "{name}");
        assert_eq!(i64::from(batch.producer_epoch()), or("producerEpoch", -1), "{name}");
        assert_eq!(i64::from(batch.base_sequence()), or("baseSequence", -1), "{name}");
        assert_eq!(i64::from(batch.leader_epoch()), or("partitionLeaderEpoch", -1), "{name}");
        assert_eq!(batch.is_transactional(), value["transactional"] == true, "{name}");
        assert_eq!(batch.is_control(), value["control"] == true, "{name}");
        assert_eq!(batch.codec().expect("a codec").name(), text(&value["compression"]), "{name}");
        assert_eq!(batch.is_log_append_time(), value["timestampType"] == "LogAppendTime", "{name}");
        assert_eq!(batch.has_delete_horizon(), !value["deleteHorizonMs"].is_null(), "{name}");
        if let Some(horizon) = value["deleteHorizonMs"].as_i64() {
            assert_eq!(batch.base_timestamp(), horizon, "{name}");
        }
        assert_eq!(batch.count() as usize, list(&value["records"]).len(), "{name}");
    }
}

#[test]
fn records_walk_to_the_values() {
    for (name, bytes, value) in batches("records::records_walk_to_the_values") {
        let batch = Batch::only(&bytes).expect("a batch");
        let mut scratch = Vec::new();
        let walk = records::open(&batch, &mut scratch).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let found: Vec<_> = walk.map(|record| record.unwrap_or_else(|e| panic!("{name}: {e:?}"))).collect();
        let expected = list(&value["records"]);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (index, (record, value)) in found.iter().zip(expected).enumerate() {
            let delta = value["offsetDelta"].as_i64().unwrap_or(index as i64);
            assert_eq!(i64::from(record.offset_delta), delta, "{name}");
            // With LogAppendTime the producer's times stay in the deltas, and the batch's own time (here -1) is shown.
            if batch.is_log_append_time() {
                assert_eq!(records::timestamp(&batch, record), batch.max_timestamp(), "{name}");
            } else {
                assert_eq!(records::timestamp(&batch, record), int(&value["timestamp"]), "{name}");
            }
            assert_eq!(batch.base_timestamp() + record.timestamp_delta, int(&value["timestamp"]), "{name}");
            if batch.is_control() {
                // Version 0, then 0 abort or 1 commit; version 0, then the coordinator's epoch.
                assert_eq!(record.key, Some(&[0, 0, 0, 1][..]), "{name}");
                assert_eq!(record.value, Some(&[0, 0, 0, 0, 0, 11][..]), "{name}");
                continue;
            }
            assert_eq!(record.key.map(<[u8]>::to_vec), nullable_text(&value["key"]).map(base64), "{name}");
            assert_eq!(
                record.value.map(<[u8]>::to_vec),
                nullable_text(&value["value"]).map(base64),
                "{name}"
            );
            let headers: Vec<_> = record.headers.clone().collect();
            assert_eq!(headers.len(), list(&value["headers"]).len(), "{name}");
            for ((key, found), header) in headers.into_iter().zip(list(&value["headers"])) {
                assert_eq!(key, text(&header["key"]).as_bytes(), "{name}");
                assert_eq!(found.map(<[u8]>::to_vec), nullable_text(&header["value"]).map(base64), "{name}");
            }
        }
    }
}

/// Compressing again need not give the same bytes, but must give what decompresses to them.
#[test]
fn payloads_survive_each_codec() {
    for (name, bytes, _) in batches("records::payloads_survive_each_codec") {
        let batch = Batch::only(&bytes).expect("a batch");
        let (mut plain, mut packed, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let codec = batch.codec().expect("a codec");
        codec::decompress(codec, batch.payload(), &mut plain, codec::budget(batch.payload().len()))
            .expect(&name);
        for codec in Codec::ALL {
            packed.clear();
            codec::compress(codec.into(), &plain, &mut packed).expect(&name);
            codec::decompress(codec, &packed, &mut again, codec::budget(packed.len())).expect(&name);
            assert_eq!(again, plain, "{name} by {}", codec.name());
        }
    }
}
