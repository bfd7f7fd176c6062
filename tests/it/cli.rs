//! The command line as a user meets it: output, exit codes, and errors that say what to try. The last tests talk to a real
//! broker, the first to none or to one that misbehaves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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

/// A broker on a directory of its own, which is removed with it.
struct Own {
    broker: Option<Broker>,
    dir: PathBuf,
}

impl Own {
    fn start(name: &str) -> Own {
        let dir = fresh_dir(name);
        Own { broker: Some(Broker::start(&dir.join("data"), &[])), dir }
    }

    fn address(&self) -> String {
        self.broker.as_ref().expect("it runs").address.clone()
    }

    fn stop(&mut self) {
        self.broker.take().expect("it runs").stop(Duration::from_secs(10));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.broker.take();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
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

/// What the command says with these variables set, and its exit status.
fn with_variables(variables: &[(&str, &str)], args: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    let output = command.args(args).envs(variables.iter().copied()).stdin(Stdio::null()).output();
    let output = output.expect("the binary runs");
    (text(&output.stdout) + &text(&output.stderr), output.status.code())
}

#[test]
fn every_flag_has_a_variable() {
    let (said, _) = with_variables(&[("CORELOG_FORMAT", "yaml")], &["version"]);
    assert!(said.contains("\nversion: \"") && said.contains("\nruntimes:\n  - \"uring\"\n"), "{said}");
    let (said, _) = with_variables(&[("CORELOG_FORMAT", "yaml")], &["version", "--format", "text"]);
    assert!(said.starts_with("corelog "), "a flag wins: {said}");
    let (said, exit) = with_variables(&[("CORELOG_FORMAT", "xml")], &["version"]);
    assert!(exit == Some(2) && said.contains("'xml' for '--format"), "{said}");
    let (said, _) = with_variables(&[("CORELOG_RECORD_FORMAT", "%q")], &["consume", "-t", "t"]);
    assert!(said.contains("% is followed by `q`"), "{said}");
    let conflict = [("CORELOG_JSON", "yes"), ("CORELOG_RECORD_FORMAT", "%s")];
    assert_eq!(with_variables(&conflict, &["consume", "-t", "t"]).1, Some(2));
    // What demo removes at its end is never what a broker's variable names.
    let (help, _) = with_variables(&[], &["demo", "--help"]);
    assert!(
        help.contains("[env: CORELOG_DEMO_DATA_DIR") && !help.contains("[env: CORELOG_DATA_DIR"),
        "{help}"
    );
    let (help, _) = with_variables(&[], &["topic", "create", "--help"]);
    for variable in ["BROKERS", "PARTITIONS", "CONFIG", "IF_NOT_EXISTS", "DRY_RUN", "FORMAT"] {
        assert!(help.contains(&format!("[env: CORELOG_{variable}")), "{variable}: {help}");
    }
}

#[test]
fn a_broker_tells_its_facts_as_json() {
    let dir = fresh_dir("cli-serve-json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(["serve", "--format", "json", "-X", "memory=64MiB", "-X", "zookeeper.connect=old:2181"]);
    // A flag's variable and a setting's: neither is unknown.
    command.env("CORELOG_LISTEN", "127.0.0.1:0").env("CORELOG_NUM_PARTITIONS", "3");
    let log = std::fs::File::create(dir.join("log")).expect("a log file");
    command.arg("--data-dir").arg(dir.join("data")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().expect("the binary starts");
    let mut first = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let read = std::io::BufRead::read_line(&mut stdout, &mut first);
    let facts: Result<serde_json::Value, _> = serde_json::from_str(&first);
    let address = facts.as_ref().ok().and_then(|facts| facts["listening"][0].as_str());
    let listed = address.map(|address| corelog(&["topic", "list", "-b", address]).status.code());
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let said = std::fs::read_to_string(dir.join("log")).expect("the log");
    assert!(read.is_ok() && facts.is_ok(), "{first}{said}");
    assert_eq!(listed, Some(Some(0)), "{first}");
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let warned = |what: &str| {
        lines.iter().any(|l| l["level"] == "WARN" && l["message"].as_str().is_some_and(|m| m.contains(what)))
    };
    assert!(warned("zookeeper.connect") && !warned("CORELOG_"), "{said}");
    let _ = std::fs::remove_dir_all(&dir);
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
    let said = check_error(&["topic", "list", "-X", "foo=7"], 2, "bad-config-key");
    assert!(!said.contains("-X acks"), "a guess that is none: {said}");
    let said = check_error(&["serve", "--listen", "bogus"], 2, "bad-config-value");
    assert!(said.contains("--listen 127.0.0.1:9092"), "{said}");
    assert_eq!(corelog(&["consume", "-t", "t", "-c", "0"]).status.code(), Some(2));
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
    let own = Own::start("cli-records");
    let b = own.address();
    let b = b.as_str();
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
    let own = Own::start("cli-kcat");
    let b = own.address();
    let b = b.as_str();
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
    let own = Own::start("cli-topics");
    let b = own.address();
    let b = b.as_str();
    let topic = |args: &[&str]| check_ok(&[&["topic"][..], args, &["-b", b]].concat(), b"");
    topic(&["create", "t", "-p", "2", "-c", "retention.ms=3600000"]);
    check_error(&["topic", "create", "t", "-b", b], 1, "topic-exists");
    check_error(&["topic", "create", "no spaces", "-b", b], 1, "topic-name");
    check_error(&["topic", "create", "u", "-c", "no.such=1", "-b", b], 1, "bad-config-key");
    check_error(&["topic", "create", "u", "-c", "retention.ms=x", "-b", b], 1, "bad-config-value");
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
    assert!(topic(&["list", "--format", "wide"]).lines().next().is_some_and(|l| l.ends_with("INTERNAL")));
    assert!(topic(&["list", "--format", "yaml"]).starts_with("- id: \""));
    assert!(topic(&["describe", "t", "--format", "wide"]).contains("IN SYNC"));
    assert!(topic(&["describe", "t", "--format", "yaml"]).contains("\ntopic: \"t\"\n"));
    topic(&["delete", "t"]);
    check_error(&["topic", "delete", "t", "-b", b], 1, "topic-unknown");
    check_error(&["topic", "describe", "t", "-b", b], 1, "topic-unknown");
}

/// The first file with this ending below a folder.
fn find(folder: &Path, ending: &str) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    entries.sort();
    entries.iter().find_map(|path| match path.is_dir() {
        true => find(path, ending),
        false => path.to_string_lossy().ends_with(ending).then(|| path.clone()),
    })
}

#[test]
fn log_files_are_shown_and_damage_is_found() {
    let mut own = Own::start("cli-log");
    let b = own.address();
    check_ok(&["topic", "create", "t", "-p", "1", "-b", &b], b"");
    let input: String = (0..5000).map(|i| format!("value {i}\n")).collect();
    for _ in 0..4 {
        check_ok(&["produce", "-t", "t", "-b", &b], input.as_bytes());
    }
    own.stop();
    let data = own.dir.join("data");
    let dir = data.to_string_lossy();
    let log =
        |verb: &str, format: &str| check_ok(&["log", verb, "--data-dir", &dir, "--format", format], b"");
    let segments: serde_json::Value = serde_json::from_str(&log("segments", "json")).expect("JSON");
    assert_eq!((&segments[0]["base_offset"], &segments[0]["state"]), (&0.into(), &"active".into()));
    let lines: Vec<serde_json::Value> =
        log("dump", "json").lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let records: i64 =
        lines.iter().filter(|l| l["kind"] == "batch").filter_map(|l| l["records"].as_i64()).sum();
    assert_eq!(records, 20_000);
    assert!(log("dump", "text").contains(" batch position="));
    let verified: serde_json::Value = serde_json::from_str(&log("verify", "json")).expect("JSON");
    assert_eq!(verified[0]["problems"].as_array().map(Vec::len), Some(0));

    let batch = lines.iter().find(|l| l["kind"] == "batch").expect("a batch");
    let inside = batch["position"].as_u64().expect("a position") + 100;
    let segment = find(&data, ".seg").expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("the segment");
    bytes[inside as usize] ^= 1;
    std::fs::write(&segment, bytes).expect("the segment");
    let output = corelog(&["log", "verify", "--data-dir", &dir]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.starts_with("error[log-damaged]"), "{said}");
    check_error(&["log", "segments", "--data-dir", "/no/such/dir"], 1, "io");
}

#[test]
fn the_demo_proves_its_point_and_cleans_up() {
    let dir = fresh_dir("cli-demo");
    let data = dir.join("demo").to_string_lossy().into_owned();
    let said = check_ok(&["demo", "-d", "600ms", "--producers", "2", "--data-dir", &data], b"");
    assert!(said.contains("lost 0 · duplicates 0 · changed 0 · gaps 0"), "{said}");
    assert!(
        said.contains("durability  device") && said.contains("p99.9") && said.contains("corelog serve --dev"),
        "{said}"
    );
    assert!(!Path::new(&data).exists(), "the demo leaves nothing behind");

    let lines = dir.join("lines.txt");
    std::fs::write(&lines, (0..3000).map(|i| format!("line {i}\n")).collect::<String>()).expect("a file");
    let said = check_ok(&["demo", &lines.to_string_lossy(), "--data-dir", &data], b"");
    assert!(
        said.contains("3000 lines of") && said.contains("acknowledged 3000 · lost 0 · duplicates 0"),
        "{said}"
    );
    check_error(&["demo", "--data-dir", &dir.to_string_lossy()], 2, "data-dir-foreign");
    std::fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn a_short_bench_reports_json() {
    let own = Own::start("cli-bench");
    let b = own.address();
    let pid = own.broker.as_ref().expect("it runs").pid().to_string();
    for mode in ["produce", "fetch"] {
        let args = [
            "bench", "--mode", mode, "-c", "2", "-p", "2", "-d", "300ms", "--warmup", "100ms", "--fill",
            "1MiB", "-b", &b,
        ];
        let output = corelog(&[&args[..], &["--format", "json", "--server-pid", &pid]].concat());
        // A loaded machine may mark the run INVALID; the figures are there all the same.
        assert!(matches!(output.status.code(), Some(0 | 6)), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
        assert!(report["requests"].as_u64() > Some(0) && report["errors"] == 0, "{report}");
        assert!(
            report["marks"].to_string().contains("CLOSED_LOOP")
                && report["server"]["cpu_us_per_request"].is_number(),
            "{report}"
        );
    }
    assert_eq!(
        check_ok(&["topic", "list", "-b", &b], b"").lines().count(),
        1,
        "the bench removes its topics"
    );
}
