//! What the frame of a produce or fetch request costs before its records are looked at, and what a response costs. `--smoke` runs it
//! briefly, as `cargo test` does.
//!
//! Prints a line per case: name, nanoseconds per operation (the fastest of several rounds), and a hash of the results, which must not
//! change with the machine.

use std::hint::black_box;
use std::time::Instant;

use corelog::wire::fetch::{
    FetchRequest as HotFetch, FetchResponseHead, FetchResponseWriter, FetchedPartition,
};
use corelog::wire::frame::{FrameSplitter, RequestHeader};
use corelog::wire::msg::{
    self, Bytes, FetchRequest, ProduceRequest, StrBytes, fetch_request, produce_request,
};
use corelog::wire::produce::{ProduceRequest as HotProduce, ProduceResponseWriter, ProducedPartition};
use corelog::wire::topics::TopicKey;

const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;

/// A whole frame, length prefix included.
fn produce_frame(partitions: i32) -> Vec<u8> {
    let mut topic = produce_request::TopicProduceData::default();
    topic.name = StrBytes::from("orders");
    for index in 0..partitions {
        let mut partition = produce_request::PartitionProduceData::default();
        partition.index = index;
        partition.records = Some(Bytes::from(vec![b'r'; 1000]));
        topic.partition_data.push(partition);
    }
    let mut request = ProduceRequest::default();
    request.acks = -1;
    request.topic_data = vec![topic];
    let mut out = Vec::new();
    msg::encode_request(&mut out, 1, Some("bench"), PRODUCE_VERSION, &request).expect("encodes");
    out
}

/// A whole frame, length prefix included.
fn fetch_frame(partitions: i32) -> Vec<u8> {
    let mut topic = fetch_request::FetchTopic::default();
    topic.topic = StrBytes::from("orders");
    for index in 0..partitions {
        let mut partition = fetch_request::FetchPartition::default();
        partition.partition = index;
        partition.fetch_offset = 1 << 40;
        topic.partitions.push(partition);
    }
    let mut request = FetchRequest::default();
    request.topics = vec![topic];
    let mut out = Vec::new();
    msg::encode_request(&mut out, 1, Some("bench"), FETCH_VERSION, &request).expect("encodes");
    out
}

/// Runs `op` in rounds and prints the fastest; `op` returns a number that goes into the hash.
fn measure(name: &str, smoke: bool, mut op: impl FnMut() -> u64) {
    let (rounds, round_ms) = if smoke { (1, 1) } else { (7, 100) };
    let mut best = f64::MAX;
    let hash = op();
    for _ in 0..rounds {
        let started = Instant::now();
        let mut runs = 0u64;
        while started.elapsed().as_millis() < round_ms {
            for _ in 0..16 {
                assert_eq!(black_box(op()), hash, "{name} is not repeatable");
            }
            runs += 16;
        }
        best = best.min(started.elapsed().as_nanos() as f64 / runs as f64);
    }
    println!("{name:<44} {best:>12.1} ns  {hash:016x}");
}

fn main() {
    // Cargo says `--bench` when it measures; `cargo test` runs the same program briefly.
    let args: Vec<String> = std::env::args().collect();
    let smoke = args.iter().any(|arg| arg == "--smoke") || !args.iter().any(|arg| arg == "--bench");
    for partitions in [1, 10, 100] {
        let mut stream = produce_frame(partitions);
        let mut splitter = FrameSplitter::requests(usize::MAX);
        measure(&format!("split, {partitions} partitions"), smoke, || {
            let frame = splitter.next_frame(&mut black_box(&mut stream[..])).expect("sound");
            frame.map_or(0, |frame| frame.bytes().len() as u64)
        });
        let frame = &stream[4..];
        let mut produce = HotProduce::default();
        measure(&format!("header and produce, {partitions} partitions"), smoke, || {
            let header = RequestHeader::parse(black_box(frame)).expect("a header");
            produce.parse(frame, &header).expect("parses");
            produce.partitions.iter().map(|p| u64::from(p.records.start)).sum()
        });
        measure(&format!("the same by the facade, {partitions} partitions"), smoke, || {
            let (_, request) = msg::decode_request::<ProduceRequest>(black_box(frame)).expect("decodes");
            request.topic_data[0].partition_data.len() as u64
        });
        let stream = fetch_frame(partitions);
        let mut fetch = HotFetch::default();
        measure(&format!("header and fetch, {partitions} partitions"), smoke, || {
            let header = RequestHeader::parse(black_box(&stream[4..])).expect("a header");
            fetch.parse(&stream[4..], &header).expect("parses");
            fetch.partitions.iter().map(|p| p.fetch_offset as u64).sum()
        });
        responses(partitions, smoke);
    }
}

fn responses(partitions: i32, smoke: bool) {
    let mut out = Vec::new();
    measure(&format!("produce response, {partitions} partitions"), smoke, || {
        out.clear();
        let mut writer = ProduceResponseWriter::begin(&mut out, PRODUCE_VERSION, 1, 1);
        writer.topic(TopicKey::Name("orders"), partitions as usize);
        for index in 0..partitions {
            writer.partition(&ProducedPartition {
                index,
                error_code: 0,
                base_offset: 77,
                log_append_time_ms: -1,
                log_start_offset: 0,
                record_errors: &[],
                error_message: None,
                current_leader: None,
            });
        }
        writer.finish(0, &[]);
        out.len() as u64
    });
    measure(&format!("fetch response, {partitions} partitions"), smoke, || {
        out.clear();
        let mut writer =
            FetchResponseWriter::begin(&mut out, FETCH_VERSION, &FetchResponseHead::default(), 1);
        writer.topic(TopicKey::Name("orders"), partitions as usize);
        for index in 0..partitions {
            writer.partition(
                &FetchedPartition { high_watermark: 9, ..FetchedPartition::refused(index, 0) },
                1000,
            );
        }
        writer.finish(&[]) as u64
    });
}
