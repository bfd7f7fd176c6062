//! rskafka writes and reads back every codec: keys, values and headers of any bytes, in order.

use std::collections::BTreeMap;

use chrono::{TimeZone, Utc};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::ClientBuilder;
use rskafka::record::Record;

const BATCHES: usize = 20;
const RECORDS: usize = 50;

fn record(i: usize) -> Record {
    let bytes = |n: usize| (0..n).map(|j| (i * 31 + j) as u8).collect::<Vec<u8>>();
    Record {
        key: (i % 7 != 0).then(|| bytes(i % 11)),
        value: (i % 5 != 0).then(|| bytes(i % 300)),
        headers: BTreeMap::from([("binary".to_owned(), bytes(9)), ("empty".to_owned(), vec![])]),
        timestamp: Utc.timestamp_millis_opt(1_700_000_000_000 + i as i64).unwrap(),
    }
}

async fn read_all(partition: &PartitionClient) -> Vec<Record> {
    let mut out = Vec::new();
    while out.len() < BATCHES * RECORDS {
        let (got, _high_watermark) = partition.fetch_records(out.len() as i64, 1..50_000, 5_000).await.unwrap();
        assert!(!got.is_empty(), "nothing at offset {}", out.len());
        for r in got {
            assert_eq!(r.offset, out.len() as i64);
            out.push(r.record);
        }
    }
    out
}

async fn check(compression: Compression, name: &str) {
    let broker = std::env::var("KAFKA_CONNECT").expect("KAFKA_CONNECT: the broker's address");
    let client = ClientBuilder::new(vec![broker]).build().await.unwrap();
    let topic = format!("codecs-{name}-{}", uuid::Uuid::new_v4());
    client.controller_client().unwrap().create_topic(&topic, 1, 1, 5_000).await.unwrap();
    let partition = client.partition_client(&topic, 0, UnknownTopicHandling::Retry).await.unwrap();
    for b in 0..BATCHES {
        let batch: Vec<Record> = (b * RECORDS..(b + 1) * RECORDS).map(record).collect();
        let offsets = partition.produce(batch, compression).await.unwrap();
        assert_eq!(offsets.first(), Some(&((b * RECORDS) as i64)));
    }
    let got = read_all(&partition).await;
    for (i, r) in got.into_iter().enumerate() {
        assert_eq!(r, record(i), "record {i}");
    }
}

#[tokio::test]
async fn none() {
    check(Compression::NoCompression, "none").await;
}

#[tokio::test]
async fn gzip() {
    check(Compression::Gzip, "gzip").await;
}

#[tokio::test]
async fn snappy() {
    check(Compression::Snappy, "snappy").await;
}

#[tokio::test]
async fn lz4() {
    check(Compression::Lz4, "lz4").await;
}

#[tokio::test]
async fn zstd() {
    check(Compression::Zstd, "zstd").await;
}
