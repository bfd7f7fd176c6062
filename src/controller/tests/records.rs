//! The metadata as records, and whose directory it is.

use super::rig::*;
use crate::base::ids::{BrokerId, Uuid};
use crate::controller::journal::BLOCK;
use crate::controller::meta::{FORMAT, Meta};
use crate::controller::record::{BadRecord, Record};

#[test]
fn records_are_values_under_keys() {
    let mut c = controller(&[]);
    let _ = create(&mut c, &[with("a", &[("retention.ms", Some("5"))])]);
    let _ = alter(&mut c, 4, "", &[("log.retention.ms", 0, Some("2000"))]);
    let batch = c.take_batch().unwrap().records;
    let stored: Vec<String> =
        batch.iter().map(|record| format!("{} {}", record.key(), record.value().unwrap())).collect();
    let id = "00000000-0000-0000-0000-000000000001";
    let expected = [
        format!(r#"topics/a {{"v":1,"id":"{id}","config":{{"retention.ms":"5"}}}}"#),
        format!(r#"p/{id}/0 {{"v":1,"leader":1,"leader_epoch":0,"replicas":[1]}}"#),
        format!(r#"placement/{id} {{"v":1,"shards":[0],"of":0}}"#),
        r#"config/default {"v":1,"config":{"log.retention.ms":"2000"}}"#.to_string(),
    ];
    assert_eq!(stored, expected);
    for record in c.staged().records().into_iter().chain(batch) {
        let gone = Record::Gone(record.key());
        assert_eq!(Record::parse(&record.key().to_string(), None), Ok(gone));
        assert_eq!(Record::parse(&record.key().to_string(), record.value().as_deref()), Ok(record));
    }
    assert_eq!(Record::parse("topics/a", Some(r#"{"v":2}"#)), Err(BadRecord::Newer));
    assert_eq!(Record::parse("topics/a", Some(r#"{"v":1}"#)), Err(BadRecord::Value));
    assert_eq!(Record::parse("what/a", Some("{}")), Err(BadRecord::Key));
    let stray = Record::Placement { topic: Uuid([9; 16]), shards: Vec::new(), of: None };
    assert!(image(&[]).apply(&[stray]).is_err());
}

#[test]
fn the_meta_file_says_whose_directory_it_is() {
    let meta = Meta { cluster: CLUSTER, node_id: BrokerId(1), directory: Uuid([3; 16]) };
    let bytes = meta.encode();
    assert_eq!(bytes.len(), BLOCK);
    assert_eq!(Meta::decode(&bytes, "/d", BrokerId(1)), Ok(meta.clone()));
    assert_eq!(meta.cluster_id(), CLUSTER.to_kafka_text());
    let code = |bytes: &[u8], node: i32| Meta::decode(bytes, "/d", BrokerId(node)).unwrap_err().code;
    assert_eq!(code(&bytes, 2), "data-dir-foreign");
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(code(text.replace(r#""node_id":1"#, r#""node_id":2"#).as_bytes(), 2), "metadata-corrupt");
    let newer = text.replace(&format!(r#""format":{FORMAT}"#), r#""format":9"#);
    assert_eq!(code(newer.as_bytes(), 1), "format-newer");
    assert_eq!(code(b"", 1), "metadata-corrupt");
}
