//! What hostile peers may take of the broker's memory: a bounded part, whatever they announce, ask for or leave unread.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corelog::client::producer::produce_request;
use corelog::client::settings::Acks;
use corelog::server::SEND_STALL_MS_MAX;
use corelog::wire::batch::build::{BatchBuilder, NewRecord};
use corelog::wire::codec::Codec;
use corelog::wire::msg::fetch_request::{FetchPartition, FetchTopic};
use corelog::wire::msg::{FetchRequest, MetadataRequest, ProduceRequest, StrBytes};

use super::{assert_serves, start};
use crate::support::{Broker, RESIDENT_MARGIN_BYTES, full, memory_bytes};
use crate::talk::{Ask, FETCH, PATIENCE, PRODUCE, Talk, batch, create, encode};

/// Writes until the peer stops reading for a while, or everything is out.
fn write_as_far_as_it_goes(stream: &mut TcpStream, mut bytes: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("an open socket");
    let mut written = 0;
    while !bytes.is_empty() {
        match stream.write(&bytes[..bytes.len().min(256 * 1024)]) {
            Ok(n) => {
                written += n;
                bytes = &bytes[n..];
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(_) => break,
        }
    }
    written
}

/// Watches the broker's memory while something happens; the largest seen.
fn peak_resident<T>(broker: &Broker, act: impl FnOnce() -> T) -> (T, u64) {
    /// Ends the watch, also where a test fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(broker.resident_bytes());
                std::thread::sleep(Duration::from_millis(5));
            }
            peak.max(broker.resident_bytes())
        });
        let end = End(&done);
        let result = act();
        drop(end);
        (result, watch.join().expect("the watch"))
    })
}

fn assert_within_memory(peak: u64, what: &str) {
    let cap = memory_bytes() + RESIDENT_MARGIN_BYTES;
    println!("{what}: {} MiB resident at most", peak >> 20);
    assert!(peak <= cap, "{what}: {} MiB resident, {} MiB allowed", peak >> 20, cap >> 20);
}

/// Sixteen peers each announce a produce of 24 MiB and send 20 MiB of it.
#[test]
fn many_half_sent_large_frames_do_not_take_memory() {
    let Some((_home, mut broker)) = start("half_sent_large_frames", &[]) else { return };
    let mut head = encode(1, PRODUCE, &produce_request("t", 0, batch(b"x").into(), Acks::All, PATIENCE));
    head.truncate(60);
    head[..4].copy_from_slice(&(24i32 << 20).to_be_bytes());
    let body = vec![0u8; 20 << 20];
    let (peers, peak) = peak_resident(&broker, || {
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..16)
                .map(|_| {
                    let (head, body, address) = (&head, &body, broker.address.clone());
                    scope.spawn(move || {
                        let mut stream = TcpStream::connect(address).expect("accepted");
                        write_as_far_as_it_goes(&mut stream, head);
                        write_as_far_as_it_goes(&mut stream, body);
                        stream
                    })
                })
                .collect();
            senders.into_iter().map(|s| s.join().expect("a sender")).collect::<Vec<_>>()
        })
    });
    assert_serves(&mut broker);
    assert_within_memory(peak, "half-sent frames");
    drop(peers);
    // The memory is free again for who means it.
    let mut cluster = broker.cluster();
    create(&mut cluster, "large", 1, &[("max.message.bytes", "20000000")]);
    let value = vec![7; 9 << 20];
    assert_eq!(Talk::to(&broker.address).produce("large", batch(&value)).error_code, 0);
    assert_serves(&mut broker);
}

/// Peers ask for all metadata again and again and read nothing.
#[test]
fn answers_that_nobody_reads_do_not_take_memory() {
    let Some((_home, mut broker)) = start("answers_that_nobody_reads", &[]) else { return };
    create(&mut broker.cluster(), "wide", 9000, &[("durability", "memory")]);
    let question = encode(1, 9, &MetadataRequest::default());
    let questions: Vec<u8> = question.repeat(400);
    let (peers, peak) = peak_resident(&broker, || {
        let peers: Vec<TcpStream> = (0..20)
            .map(|_| {
                let mut stream = TcpStream::connect(&broker.address).expect("accepted");
                write_as_far_as_it_goes(&mut stream, &questions);
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        peers
    });
    assert_serves(&mut broker);
    assert_within_memory(peak, "unread answers");
    // Who begins to read gets everything it asked for.
    let mut stream = peers.into_iter().next().expect("twenty");
    stream.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    let mut answers = 0;
    while answers < 100 {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).expect("an answer");
        let mut body = vec![0; i32::from_be_bytes(prefix) as usize];
        stream.read_exact(&mut body).expect("an answer");
        answers += 1;
    }
}

/// A consumer that asks for everything and reads nothing; another consumer and a producer do not notice.
#[test]
fn a_consumer_that_never_reads_harms_nobody() {
    let Some((_home, mut broker)) = start("never_reads", &["memory.tail.cache=8388608"]) else { return };
    let mut talk = Talk::to(&broker.address);
    let value = vec![b'v'; 500_000];
    for _ in 0..60 {
        assert_eq!(talk.produce("t", batch(&value)).error_code, 0);
    }
    let (mut lazy, peak) = peak_resident(&broker, || {
        let lazy: Vec<Talk> = (0..10)
            .map(|i| {
                let mut lazy = Talk::to(&broker.address);
                lazy.send_times(100, &Ask { offset: i, ..Ask::of("t") });
                lazy
            })
            .collect();
        for _ in 0..10 {
            let began = Instant::now();
            assert_eq!(talk.produce("t", batch(b"quick")).error_code, 0);
            assert_eq!(talk.values("t", 60).first().map(|(at, _)| *at), Some(60));
            let took = began.elapsed();
            assert!(took < Duration::from_secs(3), "a good client waited {took:?}");
        }
        lazy
    });
    assert_within_memory(peak, "a consumer that never reads");
    assert_serves(&mut broker);
    if full() {
        // Without reading, which would be life.
        std::thread::sleep(Duration::from_millis(SEND_STALL_MS_MAX) + Duration::from_secs(10));
        for lazy in &mut lazy {
            assert!(lazy.is_closed_within(Duration::from_secs(10)), "it is closed in the end");
        }
    }
}

/// Consumers that ask for a little of each block of a log and read nothing: what they were sent of a block keeps the whole of it.
#[test]
fn consumers_that_never_read_leave_most_blocks_to_the_others() {
    let Some((_home, mut broker)) = start("never_read_a_little", &["memory.tail.cache=8388608"]) else {
        return;
    };
    const BATCHES: i64 = 1600;
    let mut talk = Talk::to(&broker.address);
    let value = vec![b'v'; 40_000];
    for _ in 0..BATCHES {
        assert_eq!(talk.produce("t", batch(&value)).error_code, 0);
    }
    let (_lazy, peak) = peak_resident(&broker, || {
        let ask = |peer: i64, times: i64, max_bytes: i32| {
            let mut lazy = Talk::to(&broker.address);
            for i in 0..times {
                // Some seven of them lie in a block.
                let offset = (peer * 67 + i * 13) % (BATCHES - 300);
                lazy.send(FETCH, &Ask { offset, max_bytes, ..Ask::of("t") }.request());
            }
            lazy
        };
        let little = (0..24).map(|peer| ask(peer, 400, 1));
        let much = (24..80).map(|peer| ask(peer, 60, 1 << 20));
        let lazy: Vec<Talk> = little.chain(much).collect();
        for round in 0..20 {
            let began = Instant::now();
            assert_eq!(talk.produce("t", batch(b"quick")).error_code, 0);
            // Records that are only on disk. It may be told to come again.
            while talk.fetch("t", 100 + round * 60).records.is_none_or(|records| records.is_empty()) {
                let took = began.elapsed();
                assert!(took < Duration::from_secs(3), "a good client waited {took:?} in round {round}");
                std::thread::sleep(Duration::from_millis(10));
            }
            let took = began.elapsed();
            assert!(took < Duration::from_secs(3), "a good client waited {took:?} in round {round}");
        }
        lazy
    });
    assert_within_memory(peak, "consumers that never read");
    assert_serves(&mut broker);
}

/// Producers that each have more under way than there is memory for all of them: they wait for each other, and none is turned away.
#[test]
fn producers_of_large_requests_wait_for_memory() {
    const IN_FLIGHT: i32 = 5;
    let Some((_home, mut broker)) = start("large_requests_wait", &["memory=67108864"]) else { return };
    create(&mut broker.cluster(), "large", 4, &[]);
    let value = vec![b'v'; 900_000];
    for producers in [16, 64] {
        let ((), peak) = peak_resident(&broker, || {
            std::thread::scope(|scope| {
                for producer in 0..producers {
                    let (value, address) = (&value, &broker.address);
                    scope.spawn(move || {
                        let mut talk = Talk::to(address);
                        for _ in 0..IN_FLIGHT {
                            let request = produce_request(
                                "large",
                                producer % 4,
                                batch(value).into(),
                                Acks::All,
                                PATIENCE,
                            );
                            talk.send(PRODUCE, &request);
                        }
                        for i in 0..IN_FLIGHT {
                            let (_, answer) = talk.receive::<ProduceRequest>(PRODUCE);
                            let partition = &answer.responses[0].partition_responses[0];
                            assert_eq!(partition.error_code, 0, "request {i} of producer {producer}");
                        }
                    });
                }
            });
        });
        assert_within_memory(peak, &format!("{producers} producers of large requests"));
    }
    assert_serves(&mut broker);
}

/// Long polls that each name a partition tens of thousands of times, as many as one connection may have.
#[test]
fn parked_requests_do_not_take_memory() {
    let Some((_home, mut broker)) = start("parked_requests", &[]) else { return };
    let mut wanted = FetchPartition::default();
    wanted.current_leader_epoch = -1;
    wanted.last_fetched_epoch = -1;
    wanted.partition_max_bytes = 1000;
    let mut of_topic = FetchTopic::default();
    of_topic.topic = StrBytes::from("t");
    of_topic.partitions = vec![wanted; 30_000];
    let mut request = FetchRequest::default();
    request.replica_id = -1;
    request.session_epoch = -1;
    request.min_bytes = 1;
    request.max_bytes = 1000;
    request.max_wait_ms = 30_000;
    request.topics = vec![of_topic];
    let frame = encode(1, FETCH, &request);
    let (peers, peak) = peak_resident(&broker, || {
        let peers: Vec<TcpStream> = (0..4)
            .map(|_| {
                let mut stream = TcpStream::connect(&broker.address).expect("accepted");
                for _ in 0..60 {
                    if write_as_far_as_it_goes(&mut stream, &frame) < frame.len() {
                        break;
                    }
                }
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        peers
    });
    assert_serves(&mut broker);
    assert_within_memory(peak, "parked requests");
    drop(peers);
    assert_serves(&mut broker);
}

/// Receive buffers are few: peers whose requests wait behind a long poll must not keep them.
#[test]
fn requests_behind_long_polls_do_not_keep_receive_buffers() {
    let Some((_home, mut broker)) = start("behind_long_polls", &[]) else { return };
    let poll = encode(1, FETCH, &Ask { max_wait_ms: 60_000, ..Ask::of("t") }.request());
    let behind = encode(2, 9, &MetadataRequest::default()).repeat(1000);
    let (peers, peak) = peak_resident(&broker, || {
        let send = |_| {
            let mut stream = TcpStream::connect(&broker.address).expect("accepted");
            for _ in 0..3 {
                write_as_far_as_it_goes(&mut stream, &poll);
                write_as_far_as_it_goes(&mut stream, &behind);
            }
            stream
        };
        (0..100).map(send).collect::<Vec<_>>()
    });
    assert_serves(&mut broker);
    assert_within_memory(peak, "requests behind long polls");
    drop(peers);
    assert_serves(&mut broker);
}

/// A batch of about a megabyte that unpacks to hundreds, and a search by time that has to look inside.
fn bomb(codec: Codec, value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let value = vec![0; value_bytes];
    builder.push(&NewRecord { timestamp: 5, value: Some(&value), ..NewRecord::default() });
    builder.push(&NewRecord { timestamp: 10, ..NewRecord::default() });
    let mut bytes = Vec::new();
    builder.finish(&mut bytes).expect("a bomb");
    bytes
}

#[test]
fn decompression_bombs_are_searched_within_memory() {
    let Some((_home, mut broker)) = start("bombs", &[]) else { return };
    let mut cluster = broker.cluster();
    let mut talk = Talk::to(&broker.address);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for megabytes in [60, 250] {
            let topic = format!("bomb-{codec:?}-{megabytes}");
            create(&mut cluster, &topic, 1, &[("max.message.bytes", "10000000")]);
            let bytes = bomb(codec, megabytes << 20);
            if bytes.len() > 9_000_000 {
                continue;
            }
            let size = bytes.len();
            assert_eq!(talk.produce(&topic, bytes).error_code, 0);
            let ((took, code), peak) = peak_resident(&broker, || {
                let began = Instant::now();
                let found = talk.list_offset(&topic, 7);
                (began.elapsed(), found.error_code)
            });
            println!("{codec:?}: {size} bytes for {megabytes} MiB: error {code} after {took:?}");
            assert!(took < Duration::from_secs(10), "{codec:?}: {took:?}");
            assert_within_memory(peak, &format!("{codec:?} bomb of {megabytes} MiB"));
        }
    }
    assert_serves(&mut broker);
}

/// A compacted topic looks for keys inside what is produced to it.
#[test]
fn decompression_bombs_are_refused_within_memory() {
    let Some((_home, mut broker)) = start("bombs_produced", &[]) else { return };
    create(
        &mut broker.cluster(),
        "compact",
        1,
        &[("cleanup.policy", "compact"), ("max.message.bytes", "10000000")],
    );
    let mut talk = Talk::to(&broker.address);
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let bytes = bomb(codec, 250 << 20);
        let (answer, peak) = peak_resident(&broker, || talk.produce("compact", bytes));
        assert_ne!(answer.error_code, 0, "{codec:?}");
        assert_within_memory(peak, &format!("{codec:?} bomb to a compacted topic"));
    }
    assert_serves(&mut broker);
}
