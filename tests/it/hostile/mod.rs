//! Peers that send what no client sends: lengths that cannot be, frames cut or with flipped bits, another protocol, bombs, bytes
//! so slow that they never end, questions whose answers they never read. Each is refused or timed out; the broker goes on
//! serving the others, says nothing in its log that a human must look at, and stays within its memory.

mod memory;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use corelog::client::producer::produce_request;
use corelog::client::settings::Acks;
use corelog::io::descriptors;
use corelog::wire::api::{ApiKey, TABLE};
use corelog::wire::codec::Codec;
use corelog::wire::msg::{
    self, ApiVersionsRequest, Call, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, FetchRequest,
    FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, ListOffsetsRequest,
    MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
};

use crate::captures;
use crate::support::{Broker, Home, can_serve, full, skip};
use crate::talk::{
    Ask, FETCH, LIST_OFFSETS, PATIENCE, PRODUCE, Talk, batch, batch_of, create, encode, list_offsets_request,
};

fn start(test: &str, settings: &[&str]) -> Option<(Home, Broker)> {
    if !can_serve(&format!("hostile::{test}")) {
        return None;
    }
    let home = Home::new(test);
    let broker = Broker::start(&home.data(), settings);
    create(&mut broker.cluster(), "t", 1, &[]);
    Some((home, broker))
}

/// Serves a good client, and is healthy.
fn assert_serves(broker: &mut Broker) {
    let began = Instant::now();
    let mut talk = Talk::to(&broker.address);
    let topic = "good";
    if !broker.cluster().list_topics().expect("topics").iter().any(|t| t.name == topic) {
        create(&mut broker.cluster(), topic, 1, &[]);
    }
    let answer = talk.produce(topic, batch(b"good"));
    assert_eq!(answer.error_code, 0);
    assert_eq!(talk.values(topic, answer.base_offset), [(answer.base_offset, b"good".to_vec())]);
    assert!(began.elapsed() < Duration::from_secs(10), "served after {:?}", began.elapsed());
    broker.assert_healthy();
}

struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0;
        (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 11
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn bytes_that_begin_no_frame_close_the_connection_at_once() {
    let Some((_home, mut broker)) = start("bytes_that_begin_no_frame", &[]) else { return };
    let mut beginnings: Vec<(String, Vec<u8>)> = [i32::MAX, i32::MIN, -1, 0, 1, 7, 100 * 1024 * 1024 + 1]
        .iter()
        .map(|length| (format!("length {length}"), [&length.to_be_bytes()[..], &[0; 16]].concat()))
        .collect();
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[0x5a; 506]].concat();
    beginnings.push(("TLS ClientHello".into(), hello));
    beginnings.push(("HTTP".into(), b"GET /metrics HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec()));
    beginnings.push(("SSH".into(), b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()));
    // A length that only Produce may have, for another API; and an API that does not exist.
    beginnings.push((
        "Metadata of 50 MiB".into(),
        [&(50i32 << 20).to_be_bytes()[..], &[0, 3, 0, 9, 0, 0, 0, 1]].concat(),
    ));
    beginnings
        .push(("API 999".into(), [&10i32.to_be_bytes()[..], &[3, 231, 0, 0, 0, 0, 0, 1, 255, 255]].concat()));
    for (what, bytes) in beginnings {
        let mut talk = Talk::to(&broker.address);
        talk.send_bytes(&bytes);
        assert!(talk.is_closed_within(Duration::from_secs(5)), "{what} keeps its connection");
    }
    assert_serves(&mut broker);
}

#[test]
fn random_bytes_end_their_own_connection_only() {
    let Some((_home, mut broker)) = start("random_bytes", &[]) else { return };
    let mut draw = Draw(1);
    for _ in 0..if full() { 5000 } else { 200 } {
        let len = 1 + draw.below(20_000);
        let bytes: Vec<u8> = (0..len).map(|_| draw.next() as u8).collect();
        let mut talk = Talk::to(&broker.address);
        talk.send_bytes(&bytes);
        // A small length may come by chance, and its frame is waited for.
        let _ = talk.stream().shutdown(std::net::Shutdown::Write);
        assert!(talk.is_closed_within(Duration::from_secs(5)), "{:?}...", &bytes[..len.min(16)]);
    }
    assert_serves(&mut broker);
}

/// A request of every API in every version that is served, and every request that the interop scripts recorded.
fn corpus() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    macro_rules! defaults {
        ($($request:ident)*) => {
            let mut apis = Vec::new();
            $(
                apis.push($request::API);
                for version in $request::API.row().min..=$request::API.row().max {
                    let mut bytes = Vec::new();
                    if msg::encode_request(&mut bytes, 7, Some("t"), version, &$request::default()).is_ok() {
                        frames.push(bytes);
                    }
                }
            )*
            assert_eq!(apis.len(), TABLE.len(), "an API is missing here");
        };
    }
    defaults! {
        ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest FindCoordinatorRequest ApiVersionsRequest
        CreateTopicsRequest DeleteTopicsRequest DeleteRecordsRequest InitProducerIdRequest
        OffsetForLeaderEpochRequest DescribeConfigsRequest CreatePartitionsRequest IncrementalAlterConfigsRequest
        DescribeClusterRequest
    }
    for version in 3..=PRODUCE {
        let records = batch_of(Codec::Lz4, &[b"one", b"two"]);
        frames.push(encode(7, version, &produce_request("t", 0, records.into(), Acks::All, PATIENCE)));
    }
    for version in 4..=FETCH {
        frames.push(encode(7, version, &Ask::of("t").request()));
    }
    for version in 1..=LIST_OFFSETS {
        frames.push(encode(7, version, &list_offsets_request("t", 0)));
    }
    for request in captures::requests() {
        frames.push([&(request.len() as i32).to_be_bytes()[..], &request].concat());
    }
    frames
}

/// Sets the length prefix to what is there.
fn framed(mut frame: Vec<u8>) -> Vec<u8> {
    let len = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

fn mutated(frame: &[u8], draw: &mut Draw) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    // Mostly behind the header, so that the API stays what it is.
    let first = if draw.below(8) == 0 { 4 } else { 12.min(bytes.len() - 1) };
    let at = first + draw.below(bytes.len() - first);
    match draw.below(5) {
        0 => bytes.truncate(at.max(12)),
        1 => bytes[at] ^= 1 << draw.below(8),
        2 => {
            for _ in 0..1 + draw.below(8) {
                let at = first + draw.below(bytes.len() - first);
                bytes[at] = draw.next() as u8;
            }
        }
        3 => {
            // An array count, or a length, at its extremes.
            let count = [i32::MAX, i32::MIN, -2, 0x00ff_ffff, 65_536][draw.below(5)].to_be_bytes();
            let end = (at + 4).min(bytes.len());
            bytes[at..end].copy_from_slice(&count[..end - at]);
        }
        _ => {
            // A compact count of five bytes.
            let varint = [0xff, 0xff, 0xff, 0xff, [0x07, 0x0f, 0x7f][draw.below(3)]];
            let end = (at + 5).min(bytes.len());
            bytes[at..end].copy_from_slice(&varint[..end - at]);
        }
    }
    framed(bytes)
}

/// Each hostile frame is followed by a plain question: either that is answered, or the connection is closed.
#[test]
fn damaged_requests_of_every_api_are_answered_or_refused() {
    let Some((_home, mut broker)) = start("damaged_requests", &["log.segment.bytes=1048576"]) else { return };
    let corpus = corpus();
    let per_frame = if full() { 400 } else { 12 };
    let seed = 20_250_107;
    let mut draw = Draw(seed);
    let (mut answered, mut closed, mut waiting) = (0, 0, 0);
    let mut talk = None;
    for (i, frame) in corpus.iter().enumerate() {
        for round in 0..per_frame {
            let hostile = if round == 0 { framed(frame.clone()) } else { mutated(frame, &mut draw) };
            match probe(&mut talk, &broker.address, &hostile) {
                Probed::Answered => answered += 1,
                Probed::Closed => closed += 1,
                // A fetch or a produce whose patience was damaged into a long one.
                Probed::Waits => {
                    let api = ApiKey::from_wire(i16::from_be_bytes([hostile[4], hostile[5]]));
                    assert_eq!(api, Some(ApiKey::Fetch), "frame {i} is never answered: {hostile:02x?}");
                    waiting += 1;
                }
            }
        }
        assert!(broker.is_running(), "frame {i} of the corpus ended the broker:\n{}", broker.log());
    }
    println!("{} frames: {answered} answered, {closed} closed, {waiting} waited", corpus.len());
    assert!(answered > 0 && closed > 0);
    assert_serves(&mut broker);
}

enum Probed {
    Answered,
    Closed,
    Waits,
}

const PROBE_ID: i32 = 0x5eed_0001;

fn probe(open: &mut Option<Talk>, address: &str, hostile: &[u8]) -> Probed {
    let mut talk = open.take().unwrap_or_else(|| Talk::to(address));
    let probe = encode(PROBE_ID, 0, &ApiVersionsRequest::default());
    if !talk.send_bytes(&[hostile, &probe].concat()) {
        return Probed::Closed;
    }
    talk.stream().set_read_timeout(Some(Duration::from_secs(2))).expect("an open socket");
    loop {
        match talk.try_frame() {
            Ok(Some(frame)) if msg::response_correlation_id(&frame) == Ok(PROBE_ID) => {
                *open = Some(talk);
                return Probed::Answered;
            }
            Ok(Some(_)) => {}
            Ok(None) => return Probed::Closed,
            Err(_) => return Probed::Waits,
        }
    }
}

/// A frame must be there ten seconds after its first byte, or have come at a fair rate.
#[test]
fn peers_that_send_a_byte_a_second_are_closed() {
    let Some((_home, mut broker)) = start("byte_a_second", &[]) else { return };
    let count = if full() { 2000 } else { 200 };
    // Ours, too: 1,024 is a common soft limit.
    descriptors::raise_limit();
    let frame = encode(1, PRODUCE, &produce_request("t", 0, batch(&[7; 500]).into(), Acks::All, PATIENCE));
    let mut peers: Vec<Option<TcpStream>> = (0..count)
        .map(|_| {
            let stream = TcpStream::connect(&broker.address).expect("accepted");
            stream.set_nonblocking(true).expect("an open socket");
            Some(stream)
        })
        .collect();
    let began = Instant::now();
    let mut good = Talk::to(&broker.address);
    for byte in frame.iter().take(20) {
        for peer in &mut peers {
            let Some(stream) = peer else { continue };
            let closed = match stream.read(&mut [0; 16]) {
                Ok(0) => true,
                Ok(_) => panic!("an answer to half a frame"),
                Err(e) => e.kind() != ErrorKind::WouldBlock,
            };
            if closed || stream.write_all(&[*byte]).is_err() {
                *peer = None;
            }
        }
        if peers.iter().all(Option::is_none) {
            break;
        }
        let asked = Instant::now();
        assert_eq!(good.produce("t", batch(b"good")).error_code, 0);
        assert!(asked.elapsed() < Duration::from_secs(2), "a good client waited {:?}", asked.elapsed());
        std::thread::sleep(Duration::from_secs(1).saturating_sub(asked.elapsed()));
    }
    let left = peers.iter().flatten().count();
    assert_eq!(left, 0, "still open after {:?}", began.elapsed());
    assert_serves(&mut broker);
}

/// Slots and descriptors of short connections are given back.
#[test]
fn connections_that_come_and_go_leave_nothing() {
    let Some((_home, mut broker)) = start("come_and_go", &[]) else { return };
    if !std::path::Path::new("/proc/self/fd").exists() {
        return skip("hostile::connections_that_come_and_go_leave_nothing", "no /proc");
    }
    let descriptors = |broker: &Broker| {
        std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("a running broker").count()
    };
    let before = descriptors(&broker);
    let question = encode(1, 0, &ApiVersionsRequest::default());
    for i in 0..if full() { 20_000 } else { 1000 } {
        let mut stream = TcpStream::connect(&broker.address).expect("accepted");
        match i % 4 {
            0 => {}
            1 => stream.write_all(&question).expect("sent"),
            2 => stream.write_all(&question[..7]).expect("sent"),
            // Leaves with a long poll open.
            _ => stream
                .write_all(&encode(1, FETCH, &Ask { max_wait_ms: 60_000, ..Ask::of("t") }.request()))
                .expect("sent"),
        }
    }
    let began = Instant::now();
    while descriptors(&broker) > before + 5 {
        assert!(began.elapsed() < PATIENCE, "{before} descriptors became {}", descriptors(&broker));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_serves(&mut broker);
}
