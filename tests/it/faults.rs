//! Any one operation on a file may fail, or do half of what it was asked. The broker runs in this process, over the real driver,
//! whose N-th file operation is made to fail, for N = 0, 1, 2, ... of a small workload over TCP. It never panics; it never
//! acknowledges what is not there after a restart; an I/O error ends the acks for good, anything that may pass is tried again.
//!
//! `CORELOG_FULL=1` fails 500 operations in each of the five ways.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use corelog::broker::assemble::assemble;
use corelog::broker::configure::{Options, configure};
use corelog::broker::pump::Node;
use corelog::client::producer::produce_request;
use corelog::client::settings::Acks;
use corelog::config::broker::BrokerConfig;
use corelog::io::open::{DriverConfig, open};
use corelog::io::uring::{Counted, Fault, FaultPlan};
use corelog::io::{Errno, Io, Waker};
use corelog::wire::error::codes;
use corelog::wire::msg::create_topics_request::CreatableTopic;
use corelog::wire::msg::{
    Bytes, CreateTopicsRequest, DeleteTopicsRequest, ProduceRequest, StrBytes, decode_response,
};

use crate::support::{Home, can_serve, full, runtime};
use crate::talk::{Ask, PRODUCE, Talk, batch, encode, one, unpack};

const POOL_BYTES: usize = 16 << 20;
const RECORDS: i64 = 14;
const CANCELED: Errno = Errno(125);

const FAULTS: [(&str, Fault); 5] = [
    ("EIO", Fault::Fails(Errno::IO)),
    ("short", Fault::Short),
    ("EAGAIN", Fault::Fails(Errno::AGAIN)),
    ("ECANCELED", Fault::Fails(CANCELED)),
    ("ENOSPC", Fault::Fails(Errno::NOSPC)),
];

/// When the fault may strike first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    Start,
    Serving,
}

/// Ends the broker also where the client panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A broker in this process while `client` talks to it; then it is dropped where it stands. None: it did not start.
fn with_broker<T: Send>(
    dir: &Path,
    plan: Option<(From, FaultPlan)>,
    client: impl FnOnce(&str) -> T + Send,
) -> Option<T> {
    let done = AtomicBool::new(false);
    let (ready, address) = mpsc::channel::<Option<SocketAddr>>();
    std::thread::scope(|scope| {
        let broker = scope.spawn(|| {
            let ready = ready;
            serve(dir, plan, &ready, &done);
            // A start that failed has said nothing yet.
            let _ = ready.send(None);
        });
        let ends = Ends(&done);
        let result = address.recv().ok().flatten().map(|address| client(&address.to_string()));
        drop(ends);
        broker.join().expect("the broker does not panic");
        result
    })
}

fn inject(io: &mut Io, plan: FaultPlan) {
    match io {
        Io::Uring(uring) => uring.inject(plan),
        Io::Epoll(epoll) => epoll.inject(plan),
        #[cfg(feature = "glommio")]
        Io::Glommio(glommio) => glommio.inject(plan),
        Io::Sim(_) => unreachable!("no driver of this machine"),
    }
}

fn configured(dir: &Path, shards: u16) -> BrokerConfig {
    let options = Options {
        data_dir: Some(dir.to_path_buf()),
        listen: Some("127.0.0.1:0".into()),
        shards: Some(shards.to_string()),
        // The records are stamped in 1970.
        set: vec!["log.segment.bytes=1048576".into(), "log.retention.ms=-1".into()],
        ..Options::default()
    };
    configure(&options).expect("a configuration")
}

fn driver() -> Io {
    let driver =
        DriverConfig { pool_bytes: POOL_BYTES, entries: 64, recv_buffers: 16, ..DriverConfig::default() };
    open(runtime().expect("one that runs"), driver).expect("another driver")
}

fn serve(
    dir: &Path,
    plan: Option<(From, FaultPlan)>,
    ready: &mpsc::Sender<Option<SocketAddr>>,
    done: &AtomicBool,
) {
    let config = configured(dir, 1);
    let mut io = driver();
    let (at_start, serving) = match plan {
        Some((From::Start, plan)) => (plan, None),
        Some((From::Serving, plan)) => (FaultPlan::new(), Some(plan)),
        None => (FaultPlan::new(), None),
    };
    inject(&mut io, at_start);
    let Ok((mut nodes, listening)) = assemble(vec![io], config, POOL_BYTES as u64) else { return };
    let mut node = nodes.remove(0);
    if let Some(plan) = serving {
        inject(&mut node.io, plan);
    }
    listening.iter().for_each(|listening| node.server.serve(listening.listener, listening.for_all));
    ready.send(listening.first().map(|listening| listening.addr)).expect("somebody waits");
    while !node.is_stopped() && !done.load(Ordering::Acquire) {
        node.turn();
    }
}

/// What a client saw.
#[derive(Debug, Default)]
struct Seen {
    acked: Vec<i64>,
    codes: Vec<i16>,
    closed: bool,
}

/// 100 kB each: the segment is extended and rolled on the way.
fn value(i: i64) -> Vec<u8> {
    [&i.to_be_bytes()[..], &[i as u8; 100_000]].concat()
}

fn create(talk: &mut Talk, partitions: i32) -> Option<()> {
    let mut topic = CreatableTopic::default();
    topic.name = StrBytes::from("t");
    topic.num_partitions = partitions;
    topic.replication_factor = 1;
    let mut request = CreateTopicsRequest::default();
    request.timeout_ms = 10_000;
    request.topics = vec![topic];
    if !talk.send_bytes(&encode(1, 5, &request)) {
        return None;
    }
    talk.frame().map(drop)
}

/// Creates a topic and produces, one record at a time.
fn work(address: &str) -> Seen {
    let mut seen = Seen::default();
    let mut talk = Talk::to(address);
    seen.closed = create(&mut talk, 1).is_none();
    for i in 0..RECORDS {
        let request = produce_request("t", 0, batch(&value(i)).into(), Acks::All, Duration::from_secs(5));
        let answer = talk.send_bytes(&encode(1, PRODUCE, &request)).then(|| talk.frame()).flatten();
        let Some(frame) = answer else {
            seen.closed = true;
            return seen;
        };
        let response = decode_response::<ProduceRequest>(Bytes::from(frame), PRODUCE).expect("a response");
        let answer = one(one(response.responses).partition_responses);
        seen.codes.push(answer.error_code);
        if answer.error_code == 0 {
            assert!(answer.base_offset >= i - seen.codes.iter().filter(|code| **code != 0).count() as i64);
            assert_eq!(seen.acked.len() as i64 + refused_below(&seen), i);
            seen.acked.push(i);
        }
    }
    seen
}

fn refused_below(seen: &Seen) -> i64 {
    seen.codes.iter().filter(|code| **code != 0).count() as i64
}

/// One workload with one fault, a restart without, and what is there then.
fn survives(test: &str, from: From, name: &str, fault: Fault, nth: u64) {
    let what = format!("{name} at operation {nth} from {from:?}");
    let home = Home::new(&format!("faults-{test}-{name}-{nth}"));
    let plan = FaultPlan::new().strike(Counted::FileOps, nth, fault);
    let seen = with_broker(&home.data(), Some((from, plan)), work).unwrap_or_default();
    let first_refusal = seen.codes.iter().position(|code| *code != 0);
    if fault == Fault::Fails(Errno::IO)
        && let Some(at) = first_refusal
    {
        let after = &seen.codes[at..];
        assert!(after.iter().all(|code| *code != 0), "{what}: acks after an I/O error: {:?}", seen.codes);
    }
    if matches!(fault, Fault::Short | Fault::Fails(Errno::AGAIN)) && from == From::Serving {
        assert!(!seen.closed && first_refusal.is_none(), "{what} is not tried again: {seen:?}");
    }
    let known = [0, codes::KAFKA_STORAGE_ERROR, codes::REQUEST_TIMED_OUT, codes::UNKNOWN_TOPIC_OR_PARTITION];
    assert!(seen.codes.iter().all(|code| known.contains(code)), "{what}: {:?}", seen.codes);
    let found = with_broker(&home.data(), None, |address| {
        let mut talk = Talk::to(address);
        let _ = create(&mut talk, 1);
        talk.values("t", 0)
    });
    let found = found.unwrap_or_else(|| panic!("{what}: no start after it"));
    let values: Vec<i64> =
        found.iter().map(|(_, v)| i64::from_be_bytes(*v.first_chunk().expect("eight bytes"))).collect();
    assert!(
        found.iter().zip(0..).all(|((offset, v), at)| *offset == at && *v == value(values[at as usize])),
        "{what}"
    );
    assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{what}: order, {values:?}");
    let lost: Vec<&i64> = seen.acked.iter().filter(|i| !values.contains(i)).collect();
    assert!(lost.is_empty(), "{what}: {lost:?} acknowledged and gone, there are {values:?}, seen {seen:?}");
}

/// All cases, two at a time.
fn fail_each(test: &str, from: From, count: u64) {
    if !can_serve(&format!("faults::{test}")) {
        return;
    }
    let began = Instant::now();
    let every = full();
    let cases: Vec<(u64, usize)> = (0..count)
        // Quick: an I/O error at each, and one of the others in turn.
        .flat_map(|n| {
            (0..5).filter(move |f| every || *f == 0 || *f == 1 + n as usize % 4).map(move |f| (n, f))
        })
        .collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((nth, fault)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (name, fault) = FAULTS[*fault];
                    survives(test, from, name, fault, *nth);
                }
            });
        }
    });
    println!("{} faults in {:?}", cases.len(), began.elapsed());
}

/// Not only may acks end after an error: they must, whichever write or flush of the log it is.
#[test]
fn a_failed_write_or_flush_ends_the_acks() {
    if !can_serve("faults::a_failed_write_or_flush_ends_the_acks") {
        return;
    }
    for counted in [Counted::Writes, Counted::Flushes] {
        let mut ended = Vec::new();
        for nth in 0..8 {
            let home = Home::new(&format!("faults-ends-{counted:?}-{nth}"));
            let plan = FaultPlan::new().strike(counted, nth, Fault::Fails(Errno::IO));
            let seen = with_broker(&home.data(), Some((From::Serving, plan)), work).expect("it started");
            if seen.closed || seen.codes.iter().any(|code| *code != 0) {
                ended.push(nth);
            }
            let mut acks_after = seen.codes.iter().skip_while(|code| **code == 0);
            assert!(acks_after.all(|code| *code != 0), "{counted:?} {nth}: {:?}", seen.codes);
        }
        // The rest is work whose loss costs only time at the next start.
        assert!(ended.len() >= 6, "of the first 8 {counted:?} only {ended:?} ended the acks");
    }
}

#[test]
fn any_file_operation_may_fail_while_it_serves() {
    fail_each("serving", From::Serving, if full() { 500 } else { 40 });
}

#[test]
fn any_file_operation_may_fail_while_it_starts() {
    fail_each("starting", From::Start, if full() { 60 } else { 24 });
}

/// Two shards on one thread. Once `strikes` is set, the next operation of this kind of the second one fails. Returns why each ended.
fn serve_two(
    dir: &Path,
    counted: Counted,
    strikes: &AtomicBool,
    ready: &mpsc::Sender<SocketAddr>,
    done: &AtomicBool,
) -> Vec<Option<String>> {
    let ios = vec![driver(), driver()];
    let wakers: Vec<Waker> = ios.iter().map(Io::waker).collect();
    let (mut nodes, listening) = assemble(ios, configured(dir, 2), POOL_BYTES as u64).expect("it starts");
    listening.iter().for_each(|listening| nodes[0].server.serve(listening.listener, listening.for_all));
    ready.send(listening[0].addr).expect("somebody waits");
    let mut stop_until = None;
    while !nodes.iter().all(Node::is_stopped) {
        if strikes.swap(false, Ordering::AcqRel) {
            inject(&mut nodes[1].io, FaultPlan::new().strike(counted, 0, Fault::Fails(Errno::IO)));
        }
        if done.load(Ordering::Acquire) && stop_until.is_none() {
            stop_until = Some(Instant::now() + Duration::from_secs(10));
            nodes[0].begin_stop();
        }
        for (node, waker) in nodes.iter_mut().zip(&wakers).filter(|(node, _)| !node.is_stopped()) {
            // The other's turn is next: none may sleep.
            waker.wake_from_outside();
            node.turn();
        }
        assert!(stop_until.is_none_or(|until| Instant::now() < until), "a stop never ends");
    }
    nodes.into_iter().map(|node| node.dead).collect()
}

/// A failed write or flush of one shard was of a device whose cache held what another had written and not yet flushed: the other's next flush
/// succeeded, and it acknowledged what might be gone.
#[test]
fn a_failure_that_one_shard_saw_ends_the_acks_of_the_other() {
    if !can_serve("faults::a_failure_that_one_shard_saw_ends_the_acks_of_the_other") {
        return;
    }
    for counted in [Counted::Writes, Counted::Flushes] {
        let home = Home::new(&format!("faults-other-{counted:?}"));
        let (done, strikes) = (AtomicBool::new(false), AtomicBool::new(false));
        let (ready, address) = mpsc::channel();
        let ended = std::thread::scope(|scope| {
            let broker = scope.spawn(|| serve_two(&home.data(), counted, &strikes, &ready, &done));
            let ends = Ends(&done);
            one_fails_and_both_refuse(&address.recv().expect("it started").to_string(), &strikes);
            drop(ends);
            broker.join().expect("the broker does not panic")
        });
        let first_hand = ended[1].as_deref().expect("the shard that saw it");
        assert_eq!(ended[0], Some(format!("{first_hand} (seen by shard 1)")), "{counted:?}");
    }
}

fn one_fails_and_both_refuse(address: &str, strikes: &AtomicBool) {
    let mut talk = Talk::to(address);
    create(&mut talk, 2).expect("a topic");
    let produce = |talk: &mut Talk, partition| {
        talk.produce_to("t", partition, batch(&value(partition.into())), Acks::All).error_code
    };
    let mut acked = [0, 0];
    for partition in [0, 1, 0, 1] {
        assert_eq!(produce(&mut talk, partition), 0);
        acked[partition as usize] += 1;
    }
    strikes.store(true, Ordering::Release);
    // Some of them go to the shard whose disk is as ever.
    let mut failed = None;
    for partition in [0, 1].into_iter().cycle().take(40) {
        match produce(&mut talk, partition) {
            0 => acked[partition as usize] += 1,
            error => {
                failed = Some(error);
                break;
            }
        }
    }
    assert_eq!(failed, Some(codes::KAFKA_STORAGE_ERROR));
    for partition in [0, 1, 0, 1] {
        assert_eq!(produce(&mut talk, partition), codes::KAFKA_STORAGE_ERROR, "partition {partition}");
    }
    for partition in [0, 1] {
        let data = talk.fetch_as(&Ask { partition, ..Ask::of("t") });
        assert_eq!((data.error_code, data.high_watermark), (0, acked[partition as usize]));
        let (_, first) = one(unpack(data.records.as_deref().unwrap_or_default()).drain(..1).collect());
        assert_eq!(first, value(partition.into()));
    }
    let mut request = DeleteTopicsRequest::default();
    request.topic_names = vec![StrBytes::from("t")];
    request.timeout_ms = 10_000;
    assert_eq!(one(talk.call::<DeleteTopicsRequest>(4, &request).responses).error_code, 0);
}
