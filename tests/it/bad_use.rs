//! Mistakes that people and programs make: each gets the Kafka error code, or the message that says what to try, and nothing
//! that was there before is lost.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use corelog::client::admin::NewTopic;
use corelog::client::cluster::Cluster;
use corelog::client::error::ClientError;
use corelog::client::settings::Acks;
use corelog::wire::batch::build::{BatchBuilder, NewRecord};
use corelog::wire::codec::Codec;
use corelog::wire::error::codes;

use crate::support::{Broker, Home, can_serve, serve_until_end, skip};
use crate::talk::{PATIENCE, Talk, batch, batch_of, create, sequenced};

/// How long a start that must fail may take; a lock is waited for up to ten seconds.
const END_MAX: Duration = Duration::from_secs(15);

fn start(test: &str) -> Option<(Home, Broker)> {
    if !can_serve(&format!("bad_use::{test}")) {
        return None;
    }
    let home = Home::new(test);
    let broker = Broker::start(&home.data(), &[]);
    create(&mut broker.cluster(), "t", 1, &[("max.message.bytes", "5000")]);
    Some((home, broker))
}

/// One record, in a batch of exactly so many bytes.
fn batch_of_size(size: usize) -> Vec<u8> {
    let overhead = batch(&vec![0; size - 200]).len() - (size - 200);
    let bytes = batch(&vec![7; size - overhead]);
    assert_eq!(bytes.len(), size);
    bytes
}

#[test]
fn bad_produces_get_their_code_and_leave_the_connection_open() {
    let Some((_home, mut broker)) = start("bad_produces") else { return };
    let mut talk = Talk::to(&broker.address);
    assert_eq!(talk.produce("t", batch(b"first")).error_code, 0);
    let mut flipped = batch(b"flipped");
    *flipped.last_mut().expect("bytes") ^= 1;
    let mut old = batch(b"old format");
    old[16] = 1;
    let mut short = batch(b"short");
    short.pop();
    let mut placed = Vec::new();
    let mut builder = BatchBuilder::new(Codec::None).at(7, 0);
    builder.push(&NewRecord { timestamp: 1_000_000, value: Some(b"placed"), ..NewRecord::default() });
    builder.finish(&mut placed).expect("a batch");
    let bad: [(&str, i32, &str, Vec<u8>, i16); 12] = [
        ("unknown topic", 0, "nowhere", batch(b"x"), codes::UNKNOWN_TOPIC_OR_PARTITION),
        ("unknown partition", 1, "t", batch(b"x"), codes::UNKNOWN_TOPIC_OR_PARTITION),
        ("negative partition", -1, "t", batch(b"x"), codes::UNKNOWN_TOPIC_OR_PARTITION),
        ("bad topic name", 0, "../t", batch(b"x"), codes::UNKNOWN_TOPIC_OR_PARTITION),
        ("empty topic name", 0, "", batch(b"x"), codes::UNKNOWN_TOPIC_OR_PARTITION),
        ("one byte too large", 0, "t", batch_of_size(5001), codes::MESSAGE_TOO_LARGE),
        ("corrupt CRC", 0, "t", flipped, codes::CORRUPT_MESSAGE),
        ("two batches", 0, "t", [batch(b"x"), batch(b"y")].concat(), codes::INVALID_RECORD),
        ("old format", 0, "t", old, codes::INVALID_RECORD),
        ("cut", 0, "t", short, codes::INVALID_RECORD),
        ("empty", 0, "t", Vec::new(), codes::INVALID_RECORD),
        ("placed by the client", 0, "t", placed, codes::INVALID_RECORD),
    ];
    for (what, partition, topic, bytes, code) in bad {
        let answer = talk.produce_to(topic, partition, bytes, Acks::All);
        assert_eq!((answer.error_code, answer.base_offset), (code, -1), "{what}");
    }
    assert_eq!(talk.produce("t", batch_of_size(5000)).error_code, 0, "exactly as large as allowed");
    let (id, epoch) = broker.cluster().init_producer_id().expect("an id");
    assert_eq!(talk.produce("t", sequenced((id.0, epoch.0), 0, &[b"x"])).error_code, 0);
    let gap = talk.produce("t", sequenced((id.0, epoch.0), 5, &[b"x"]));
    assert_eq!(gap.error_code, codes::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let found = talk.values("t", 0);
    assert_eq!(found.len(), 3, "nothing of what was refused is there");
    assert_eq!(found[0].1, b"first");
    broker.assert_healthy();
}

/// acks=0 has no answer to put an error in: the connection is closed, as Kafka does.
#[test]
fn a_bad_produce_without_answer_closes_the_connection() {
    let Some((_home, mut broker)) = start("bad_produce_without_answer") else { return };
    let mut flipped = batch(b"flipped");
    *flipped.last_mut().expect("bytes") ^= 1;
    for (what, topic, bytes) in [("unknown topic", "nowhere", batch(b"x")), ("corrupt CRC", "t", flipped)] {
        let mut talk = Talk::to(&broker.address);
        talk.produce_silently(topic, bytes);
        assert!(talk.is_closed_within(Duration::from_secs(5)), "{what}");
    }
    assert_eq!(Talk::to(&broker.address).values("t", 0), []);
    broker.assert_healthy();
}

fn refusal(
    cluster: &mut Cluster,
    name: &str,
    partitions: i32,
    replication: i16,
    configs: &[(&str, &str)],
) -> i16 {
    let topic = NewTopic {
        name: name.into(),
        partitions,
        replication,
        configs: configs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        validate_only: false,
    };
    cluster.create_topic(&topic).expect_err(name).code().expect("a code")
}

#[test]
fn bad_topics_get_their_code_and_are_not_made() {
    let Some((_home, mut broker)) = start("bad_topics") else { return };
    let mut cluster = broker.cluster();
    let long = "n".repeat(250);
    for name in ["", ".", "..", "a/b", "a b", "ä", "a\0b", &long] {
        assert_eq!(refusal(&mut cluster, name, 1, 1, &[]), codes::INVALID_TOPIC_EXCEPTION, "{name:?}");
    }
    let c = &mut cluster;
    assert_eq!(refusal(c, "t", 1, 1, &[]), codes::TOPIC_ALREADY_EXISTS);
    for partitions in [0, -2, i32::MIN] {
        assert_eq!(refusal(c, "p", partitions, 1, &[]), codes::INVALID_PARTITIONS, "{partitions}");
    }
    assert_eq!(refusal(c, "p", i32::MAX, 1, &[]), codes::POLICY_VIOLATION);
    for replicas in [0, 2, -2] {
        assert_eq!(refusal(c, "p", 1, replicas, &[]), codes::INVALID_REPLICATION_FACTOR, "{replicas}");
    }
    for config in
        [("no.such.key", "1"), ("retention.ms", "soon"), ("durability", "maybe"), ("segment.bytes", "1")]
    {
        assert_eq!(refusal(c, "p", 1, 1, &[config]), codes::INVALID_CONFIG, "{config:?}");
    }
    for count in [1, 0, -1, i32::MIN] {
        let error = c.create_partitions("t", count).expect_err("no growth");
        assert_eq!(error.code(), Some(codes::INVALID_PARTITIONS), "{count}");
    }
    assert!(matches!(c.delete_topic("nowhere"), Err(ClientError::TopicUnknown { .. })));
    let names: Vec<String> = c.list_topics().expect("topics").into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["t"]);
    broker.assert_healthy();
}

/// `error[code]`, what was found, what it means, and at least one thing to try; with this exit code.
fn assert_says(output: &Output, exit: i32, code: &str, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "exit code of:\n{said}");
    assert!(said.contains(&format!("error[{code}]: ")), "no error[{code}] in:\n{said}");
    assert!(said.contains("\n  try:    "), "nothing to try in:\n{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn serve(data_dir: &Path, more: &[&str]) -> Output {
    let dir = data_dir.to_str().expect("a plain path");
    let shared = ["--data-dir", dir, "-X", "memory=67108864"];
    let listen: &[&str] = if more.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
    serve_until_end(&[&shared[..], listen, more].concat(), END_MAX)
}

#[test]
fn a_bad_configuration_names_the_right_one() {
    let home = Home::new("bad-configuration");
    let of = |more: &[&str]| serve(&home.data(), more);
    assert_says(&of(&["-X", "log.retention.sm=1"]), 2, "bad-config-key", &["log.retention.ms"]);
    assert_says(&of(&["-X", "retention.ms=1"]), 2, "bad-config-key", &["corelog topic alter-config"]);
    assert_says(&of(&["-X", "memory=lots"]), 2, "bad-config-value", &["memory", "lots"]);
    assert_says(&of(&["-X", "durability=maybe"]), 2, "bad-config-value", &["durable", "written"]);
    assert_says(&of(&["-X", "memory"]), 2, "bad-config-key", &["key=value"]);
    let file = home.dir.join("broker.toml");
    fs::write(&file, "log.segment.bytes = \n").expect("a file");
    assert_says(&of(&["--config", file.to_str().expect("plain")]), 2, "bad-config-file", &["broker.toml"]);
    assert_says(&of(&["--config", "/nowhere/at.all"]), 2, "bad-config-file", &["/nowhere/at.all"]);
    assert!(!home.data().exists(), "a configuration that is refused makes no directory");
}

#[test]
fn a_taken_port_is_named() {
    if !can_serve("bad_use::a_taken_port_is_named") {
        return;
    }
    let home = Home::new("taken-port");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("bound").to_string();
    let port = address.rsplit(':').next().expect("a port");
    assert_says(
        &serve(&home.data(), &["--listen", &address]),
        5,
        "port-in-use",
        &[&address, "ss -ltnp", port],
    );
}

/// A broker that was started right behind the end of another one found its port taken, once in some thousand times on a busy machine.
#[test]
fn a_port_that_becomes_free_is_waited_for() {
    if !can_serve("bad_use::a_port_that_becomes_free") {
        return;
    }
    let home = Home::new("freed-port");
    let (first, other) = two_ports();
    let freed = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(other);
    });
    let mut broker =
        Broker::start(&home.data(), &["shards=2", "advertise=shards", &format!("advertise.port={first}")]);
    freed.join().expect("it ends");
    broker.assert_healthy();
}

/// A port that is free, and the next one, bound. Below those that the kernel gives to whoever asks for any.
fn two_ports() -> (u16, TcpListener) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
    let from = 15_000 + (std::process::id() as u16 % 400) * 10;
    let pair = std::iter::repeat_with(|| from + NEXT.fetch_add(2, Ordering::Relaxed))
        .find_map(|first| bind(first).and_then(|_| bind(first + 1)).ok().map(|second| (first, second)));
    pair.expect("two free ports")
}

#[test]
fn a_taken_port_of_a_shard_is_named() {
    if !can_serve("bad_use::a_taken_port_of_a_shard_is_named") {
        return;
    }
    let home = Home::new("taken-shard-port");
    let (first, other) = two_ports();
    let port = other.local_addr().expect("bound").port();
    let first = format!("advertise.port={first}");
    let arguments = ["--shards", "2", "--advertise", "shards", "-X", &first];
    let output = serve(&home.data(), &arguments);
    assert_says(&output, 5, "port-in-use", &["shard 1", &port.to_string(), "-X advertise.port=N"]);
}

#[test]
fn a_port_that_the_broker_itself_has_is_named_as_its_own() {
    if !can_serve("bad_use::a_port_that_the_broker_itself_has") {
        return;
    }
    let home = Home::new("own-port");
    let (first, second) = two_ports();
    let port = second.local_addr().expect("bound").port();
    drop(second);
    let (listen, first) = (format!("127.0.0.1:{port}"), format!("advertise.port={first}"));
    let arguments = ["--shards", "2", "--advertise", "shards", "--listen", &listen, "-X", &first];
    let output = serve(&home.data(), &arguments);
    assert_says(&output, 5, "port-in-use", &["shard 1", "this broker", "-X advertise.port=N"]);
    let twice = format!("listeners=PLAINTEXT://{listen},SECOND://{listen}");
    let protocols = "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECOND:PLAINTEXT";
    let dir = home.data();
    let arguments = ["--data-dir", dir.to_str().expect("plain"), "-X", &twice, "-X", protocols];
    assert_says(&serve_until_end(&arguments, END_MAX), 5, "port-in-use", &[&listen, "this broker"]);
}

#[test]
fn a_number_of_shards_or_cpus_that_cannot_be_is_refused() {
    let home = Home::new("bad-shards");
    let of = |more: &[&str]| serve(&home.data(), more);
    for shards in ["0", "5000", "70000", "-1", "auto"] {
        assert_says(&of(&["--shards", shards]), 2, "bad-config-value", &["shards", shards]);
    }
    assert_says(&of(&["--cpus", "8000"]), 5, "bad-cpu-list", &["CPU 8000", "may use"]);
    assert_says(&of(&["--cpus", "0-"]), 5, "bad-cpu-list", &["2-5,8"]);
    let memory = ["--shards", "64", "-X", "memory=128MiB"];
    assert_says(
        &of(&memory),
        2,
        "bad-config-value",
        &["64 shards", "-X memory=299MiB", "--shards 30 or fewer"],
    );
    assert_says(&of(&["--cpus", "8192"]), 5, "bad-cpu-list", &["CPU 8192", "8191"]);
    let ids = ["--shards", "2", "--advertise", "shards", "-X", "node.id=3000000"];
    assert_says(&of(&ids), 2, "bad-config-value", &["node.id=2097151", "--advertise broker"]);
    let ports = ["--shards", "2", "--advertise", "shards", "-X", "advertise.port=65535"];
    assert_says(&of(&ports), 2, "bad-config-value", &["65535", "advertise.port=0"]);
}

#[test]
fn a_second_broker_on_a_directory_is_refused_at_once() {
    let Some((home, broker)) = start("second_broker") else { return };
    let mut talk = Talk::to(&broker.address);
    assert_eq!(talk.produce("t", batch(b"before")).error_code, 0);
    let began = std::time::Instant::now();
    let output = serve(&home.data(), &[]);
    assert!(began.elapsed() < Duration::from_secs(5), "refused after {:?}", began.elapsed());
    assert_says(&output, 5, "data-dir-locked", &[&broker.pid().to_string()]);
    assert_eq!(talk.produce("t", batch(b"after")).base_offset, 1, "the first one goes on");
    broker.stop(PATIENCE);
    let again = Broker::start(&home.data(), &[]);
    assert_eq!(Talk::to(&again.address).values("t", 0).len(), 2);
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    if !can_serve("bad_use::a_directory_that_cannot_be_used_is_named") {
        return;
    }
    let home = Home::new("unusable-directory");
    let file = home.dir.join("a-file");
    fs::write(&file, "not a directory").expect("a file");
    let path = file.to_str().expect("plain");
    assert_says(&serve(&file, &[]), 5, "data-dir-unusable", &[path]);
    assert_says(&serve(&file.join("below"), &[]), 5, "data-dir-unusable", &[path]);
    assert_eq!(fs::read_to_string(&file).expect("still there"), "not a directory");
}

#[test]
fn a_read_only_file_system_is_named() {
    let test = "bad_use::a_read_only_file_system_is_named";
    if !can_serve(test) {
        return;
    }
    let home = Home::new("read-only");
    let (there, seen) = (home.dir.join("there"), home.dir.join("seen"));
    fs::create_dir_all(there.join("data")).expect("a directory");
    fs::create_dir_all(&seen).expect("a mount point");
    let mount = |args: &[&str]| Command::new("mount").args(args).output().is_ok_and(|o| o.status.success());
    let (from, at) = (there.to_str().expect("plain"), seen.to_str().expect("plain"));
    if !mount(&["--bind", from, at]) {
        return skip(test, "bind mounts are not allowed here");
    }
    let output =
        if mount(&["-o", "remount,bind,ro", at]) { Some(serve(&seen.join("data"), &[])) } else { None };
    crate::powerloss::rig::umount(&seen);
    match output {
        None => skip(test, "a bind mount cannot be made read-only here"),
        Some(output) => assert_says(&output, 5, "data-dir-unusable", &["mounted read-only"]),
    }
}

#[test]
fn memory_is_no_disk() {
    let test = "bad_use::memory_is_no_disk";
    if !can_serve(test) {
        return;
    }
    let shm = Path::new("/dev/shm");
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.starts_with("tmpfs /dev/shm ")) {
        return skip(test, "no tmpfs at /dev/shm");
    }
    let dir = shm.join(format!("corelog-test-{}", std::process::id()));
    let output = serve(&dir, &[]);
    let _ = fs::remove_dir_all(&dir);
    assert_says(&output, 5, "odirect-unsupported", &["tmpfs", "--data-dir", "durability.allow.degraded"]);
}

/// A directory whose `meta` file a newer corelog wrote.
#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let Some((home, broker)) = start("newer_format") else { return };
    broker.stop(PATIENCE);
    let meta = home.data().join("meta");
    let mut bytes = fs::read(&meta).expect("a formatted directory");
    let at = bytes.windows(10).position(|w| w == b"\"format\":1").expect("the version") + 9;
    bytes[at] = b'9';
    fs::write(&meta, &bytes).expect("writable");
    let before = listing(&home.data());
    assert_says(&serve(&home.data(), &[]), 5, "format-newer", &["9"]);
    assert_eq!(listing(&home.data()), before, "nothing in it was touched");
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let Some((home, broker)) = start("another_node") else { return };
    broker.stop(PATIENCE);
    assert_says(&serve(&home.data(), &["-X", "node.id=2"]), 5, "data-dir-foreign", &["1", "2"]);
    let again = Broker::start(&home.data(), &[]);
    assert_eq!(again.cluster().list_topics().expect("topics").len(), 1);
}

#[test]
fn a_damaged_directory_is_refused_by_name() {
    let Some((home, broker)) = start("damaged_directory") else { return };
    broker.stop(PATIENCE);
    fs::write(home.data().join("meta"), vec![b'x'; 4096]).expect("writable");
    assert_says(&serve(&home.data(), &[]), 5, "metadata-corrupt", &["meta"]);
}

/// Names and lengths of everything below a directory, locks and probes aside.
fn listing(dir: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().expect("a type").is_dir() {
            found.extend(listing(&entry.path()).into_iter().map(|(n, len)| (format!("{name}/{n}"), len)));
        } else if name != "lock" {
            found.push((name, entry.metadata().expect("its length").len()));
        }
    }
    found.sort();
    found
}

/// The command line's own mistakes end with the table's exit codes.
#[test]
fn commands_end_with_the_documented_codes() {
    let Some((_home, broker)) = start("documented_codes") else { return };
    let run =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_corelog")).args(args).output().expect("it runs");
    let at = broker.address.as_str();
    assert_eq!(run(&["topic", "list", "-b", at]).status.code(), Some(0));
    assert_says(
        &run(&["topic", "describe", "nowhere", "-b", at]),
        1,
        "topic-unknown",
        &["corelog topic list"],
    );
    assert_says(&run(&["topic", "create", "a/b", "-b", at]), 1, "topic-name", &["letters"]);
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    assert_says(&run(&["topic", "list", "-b", &free]), 3, "broker-unreachable", &["corelog serve"]);
    assert_eq!(run(&["topic", "no-such-verb"]).status.code(), Some(2));
    let sound = batch_of(Codec::None, &[b"still here"]);
    assert_eq!(Talk::to(at).produce("t", sound).error_code, 0);
}
