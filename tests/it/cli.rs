//! The command line as a user meets it: output, exit codes, and errors that say what to try. The last tests talk to a real
//! broker, the first to none or to one that misbehaves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use corelog::wire::api::ApiKey;
use corelog::wire::frame::RequestHeader;
use corelog::wire::msg::{
    self, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, StrBytes,
};

use crate::support::{Broker, fresh_dir};

fn corelog(args: &[&str]) -> Output {
    corelog_fed(args, b"")
}

fn corelog_fed(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command
        .args(args)
        .env_remove("CORELOG_BROKERS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the binary ends");
    feeder.join().expect("the input was handed over");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Fails unless the command ends with `exit` and an error of this code, which says what to try.
fn check_error(args: &[&str], exit: i32, code: &str) -> String {
    let output = corelog(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {said}");
    assert!(said.starts_with(&format!("error[{code}]: ")) && said.contains("\n  try:"), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "an error belongs on stderr");
    said
}

/// The output of a command that must succeed.
fn check_ok(args: &[&str], input: &[u8]) -> String {
    let output = corelog_fed(args, input);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn without_arguments_it_helps_and_starts_nothing() {
    let output = corelog(&[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("corelog demo") && said.contains("corelog serve --dev") && said.contains("Exit codes"),
        "{said}"
    );
}

#[test]
fn the_version_is_json_on_request() {
    let said = check_ok(&["version", "--format", "json"], b"");
    let value: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let address = format!("127.0.0.1:{port}");
    check_error(&["topic", "list", "-b", &address], 3, "broker-unreachable");
    check_error(&["produce", "-t", "t", "-b", &address], 3, "broker-unreachable");
    check_error(&["bench", "-b", &address], 3, "broker-unreachable");
}

#[test]
fn wrong_input_is_explained() {
    let said = check_error(&["topic", "list", "-X", "linger.mss=1"], 2, "bad-config-key");
    assert!(said.contains("linger.ms"), "{said}");
    check_error(&["topic", "list", "-X", "acks=7"], 2, "bad-config-value");
    check_error(&["produce", "-t", "t", "-z", "brotli"], 2, "usage");
    check_error(&["produce", "-t", "t", "-D", ""], 2, "usage");
    check_error(&["topic", "alter-config", "t"], 2, "usage");
    check_error(&["bench", "-a", "0"], 2, "usage");
    check_error(&["produce", "-t", "t", "/no/such/file"], 1, "io");
    assert_eq!(corelog(&["consume", "-t", "t", "-o", "someday"]).status.code(), Some(2));
    assert_eq!(corelog(&["no-such-command"]).status.code(), Some(2));
}

/// Answers each request of one connection after the other, until the test ends.
fn fake_broker(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = serve(stream, &answer);
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&[u8]) -> Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix)?;
        let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
        stream.read_exact(&mut frame)?;
        stream.write_all(&answer(&frame))?;
    }
}

/// Serves ApiVersions and Metadata, and advertises another address than its own.
fn advertises_elsewhere(frame: &[u8]) -> Vec<u8> {
    let header = RequestHeader::parse(frame).expect("a request");
    let mut out = Vec::new();
    if header.api == ApiKey::ApiVersions {
        let mut response = ApiVersionsResponse::default();
        for (key, max) in [(ApiKey::ApiVersions, 3), (ApiKey::Metadata, 9), (ApiKey::CreateTopics, 5)] {
            let mut range = msg::api_versions_response::ApiVersion::default();
            (range.api_key, range.max_version) = (key.wire(), max);
            response.api_keys.push(range);
        }
        msg::encode_response::<ApiVersionsRequest>(&mut out, header.correlation_id, header.version, &response)
    } else {
        let mut broker = msg::metadata_response::MetadataResponseBroker::default();
        (broker.node_id, broker.host, broker.port) = (7, StrBytes::from("127.0.0.2"), 1);
        let mut response = MetadataResponse::default();
        response.controller_id = 7;
        response.brokers.push(broker);
        msg::encode_response::<MetadataRequest>(&mut out, header.correlation_id, header.version, &response)
    }
    .expect("an answer");
    out
}

#[test]
fn an_advertised_address_that_is_dead_is_named() {
    let address = fake_broker(advertises_elsewhere);
    let args = ["topic", "create", "t", "-b", &address, "-X", "delivery.timeout.ms=200"];
    let said = check_error(&args, 3, "advertised-unreachable");
    assert!(said.contains("127.0.0.2:1") && said.contains("advertised.listeners"), "{said}");
}

#[test]
fn something_else_than_kafka_listens() {
    let address = fake_broker(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    let output = corelog(&["topic", "list", "-b", &address]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("try:"), "{said}");
    let address = fake_broker(|frame| [&8u32.to_be_bytes()[..], &frame[4..8], &[9; 4]].concat());
    check_error(&["topic", "list", "-b", &address], 1, "not-kafka");
}

#[test]
fn records_come_back_as_they_went() {
    let broker = Broker::start(&fresh_dir("cli-records"), &[]);
    let b = broker.address.as_str();
    check_ok(&["topic", "create", "orders", "-p", "3", "-b", b], b"");
    let input: String = (0..20_000).map(|i| format!("key-{}:value {i}\n", i % 100)).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        check_ok(&["produce", "-t", "orders", "-K", ":", "-z", codec, "-b", b], input.as_bytes());
    }
    let mut read: Vec<String> = check_ok(&["consume", "-t", "orders", "-e", "-K", ":", "-b", b], b"")
        .lines()
        .map(String::from)
        .collect();
    let mut sent: Vec<String> = input.lines().flat_map(|line| vec![line.to_string(); 5]).collect();
    read.sort();
    sent.sort();
    assert!(read == sent, "{} records came back, {} went", read.len(), sent.len());
    let partitions = check_ok(&["consume", "-t", "orders", "-e", "-f", "%k %p\n", "-b", b], b"");
    let mut places: Vec<&str> = partitions.lines().collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 100, "a key has one partition");
}

#[test]
fn kcats_options() {
    let broker = Broker::start(&fresh_dir("cli-kcat"), &[]);
    let b = broker.address.as_str();
    check_ok(&["topic", "create", "t", "-p", "1", "-b", b], b"");
    check_ok(&["produce", "-t", "t", "-b", b, "-k", "k", "-H", "h=1", "-H", "h=2", "-Z", "-D", ";"], b"a;;c");
    let consume = |args: &[&str]| check_ok(&[&["consume", "-t", "t", "-b", b][..], args].concat(), b"");
    assert_eq!(
        consume(&["-e", "-Z", "-f", "%o %k %s %S %h|"]),
        "0 k a 1 h=1,h=2|1 k NULL -1 h=1,h=2|2 k c 1 h=1,h=2|"
    );
    assert_eq!(consume(&["-e", "-o", "-1"]), "c\n");
    assert_eq!(consume(&["-o", "beginning", "-c", "1"]), "a\n");
    assert_eq!(consume(&["-e", "-o", "+2", "-D", "."]), "c.");
    assert_eq!(consume(&["-e", "-o", "s@0", "-p", "0", "-c", "1"]), "a\n");
    assert_eq!(consume(&["-o", "beginning", "-o", "e@99999999999999"]), "a\n\nc\n");
    let first: serde_json::Value = serde_json::from_str(&consume(&["-J", "-c", "1"])).expect("JSON");
    assert_eq!((first["payload"].as_str(), first["offset"].as_i64()), (Some("a"), Some(0)));
    check_error(&["consume", "-t", "nosuch", "-e", "-b", b], 1, "topic-unknown");
    check_error(
        &["consume", "-t", "t", "-p", "9", "-e", "-b", b, "-X", "delivery.timeout.ms=100"],
        1,
        "topic-unknown",
    );
}

#[test]
fn topics_from_creation_to_deletion() {
    let broker = Broker::start(&fresh_dir("cli-topics"), &[]);
    let b = broker.address.as_str();
    let topic = |args: &[&str]| check_ok(&[&["topic"][..], args, &["-b", b]].concat(), b"");
    topic(&["create", "t", "-p", "2", "-c", "retention.ms=3600000"]);
    check_error(&["topic", "create", "t", "-b", b], 1, "topic-exists");
    check_error(&["topic", "create", "no spaces", "-b", b], 1, "topic-name");
    check_error(&["topic", "create", "u", "-c", "no.such=1", "-b", b], 1, "bad-config-key");
    assert!(topic(&["create", "t", "--if-not-exists"]).contains("was there"));
    assert!(topic(&["create", "v", "--dry-run"]).contains("would be created"));
    check_ok(&["produce", "-t", "t", "-p", "1", "-b", b], b"a\nb\nc\n");
    topic(&["add-partitions", "t", "-n", "2"]);
    topic(&["alter-config", "t", "--set", "durability=written", "--delete", "retention.ms"]);
    let trimmed = topic(&["trim", "t", "-o", "2", "-p", "1", "--format", "json"]);
    let trimmed: serde_json::Value = serde_json::from_str(&trimmed).expect("JSON");
    assert_eq!(trimmed["partitions"][0]["new_start"], 2);
    let described = topic(&["describe", "t", "--format", "json"]);
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(4));
    assert_eq!(described["durability"], "written");
    assert_eq!(
        (&described["partitions"][1]["start_offset"], &described["partitions"][1]["end_offset"]),
        (&2.into(), &3.into())
    );
    assert!(topic(&["list"]).starts_with("NAME"));
    topic(&["delete", "t"]);
    check_error(&["topic", "delete", "t", "-b", b], 1, "topic-unknown");
    check_error(&["topic", "describe", "t", "-b", b], 1, "topic-unknown");
}
