//! `--runtime`: the driver that was asked for serves; where io_uring is forbidden `auto` serves without it and says so, and `uring`
//! says why it does not start.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use corelog::config::runtime::Runtime;
use corelog::io::open::{DriverConfig, open};

use crate::support::{Broker, Home, skip, wait_for_end};
use crate::talk::{Talk, batch, create};

const PATIENCE: Duration = Duration::from_secs(30);

/// A command that runs another one where io_uring is forbidden; none if this machine has no Python, or allows no such filter.
fn forbidding(test: &str) -> Option<Vec<String>> {
    let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/forbid_io_uring.py");
    let command = vec!["python3".to_string(), launcher.display().to_string()];
    let tried = Command::new(&command[0]).arg(&command[1]).arg("true").output();
    match tried {
        Ok(output) if output.status.success() => Some(command),
        Ok(output) => {
            skip(test, &String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            skip(test, &format!("python3: {error}"));
            None
        }
    }
}

/// The line of the start, of a broker that also stores a record.
fn serves(broker: &Broker) -> String {
    create(&mut broker.cluster(), "t", 1, &[]);
    let mut talk = Talk::to(&broker.address);
    assert_eq!(talk.produce("t", batch(b"value")).error_code, 0);
    assert_eq!(talk.values("t", 0), [(0, b"value".to_vec())]);
    let log = broker.log();
    log.lines().find(|line| line.contains("corelog serves")).expect("it has said so").to_string()
}

#[test]
fn the_runtime_that_was_asked_for_serves() {
    for runtime in [Runtime::Uring, Runtime::Epoll, Runtime::Glommio] {
        if let Err(fatal) = open(runtime, DriverConfig { recv_buffers: 8, ..DriverConfig::default() }) {
            skip("runtime::the_runtime_that_was_asked_for_serves", &fatal.to_string());
            continue;
        }
        let name = runtime.name();
        let home = Home::new(&format!("runtime-{name}"));
        let mut broker = Broker::start(&home.data(), &[&format!("runtime={name}")]);
        let line = serves(&broker);
        assert!(line.contains(&format!("\"runtime\":\"{name}\"")), "{line}");
        // It was said before any memory was mapped, so that nobody could know.
        let known = ["buffers registered", "buffers FALLBACK"].iter().any(|buffers| line.contains(buffers));
        assert_eq!(known, runtime == Runtime::Uring, "{line}");
        broker.assert_healthy();
        broker.stop(PATIENCE);
    }
}

#[test]
fn where_io_uring_is_forbidden_auto_serves_without_it_and_says_so() {
    let Some(launcher) = forbidding("runtime::where_io_uring_is_forbidden_auto_serves_without_it") else {
        return;
    };
    let home = Home::new("runtime-forbidden");
    let broker =
        Broker::start_under(&launcher, &home.data(), &["runtime=auto", "shards=2"]).expect("it starts");
    let line = serves(&broker);
    assert!(line.contains("\"runtime\":\"epoll\""), "{line}");
    let log = broker.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("epoll takes its place")).collect();
    // Each shard said it, and recommended what it was told already.
    let [told] = told[..] else { panic!("once: {told:?}") };
    assert!(!told.contains("--runtime"), "{told}");
    assert!(
        told.contains("\"level\":\"WARN\"") && told.contains("io_uring_setup is not permitted"),
        "{told}"
    );
    assert!(told.contains("seccomp"), "no remedy: {told}");
    broker.stop(PATIENCE);
}

/// What a broker says that does not start, on the driver `runtime`, through the command `launcher`.
fn refusal(launcher: &[String], runtime: &str) -> String {
    let home = Home::new(&format!("runtime-refused-{runtime}"));
    let mut command = Command::new(&launcher[0]);
    command.args(&launcher[1..]).arg(env!("CARGO_BIN_EXE_corelog"));
    command.args(["serve", "--runtime", runtime, "--listen", "127.0.0.1:0", "--data-dir"]).arg(home.data());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Output { status, stderr, .. } = wait_for_end(command.spawn().expect("it starts"), PATIENCE);
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(5), "{said}");
    said
}

#[test]
fn where_io_uring_is_forbidden_what_needs_it_is_refused_with_a_remedy() {
    let Some(launcher) = forbidding("runtime::where_io_uring_is_forbidden_what_needs_it_is_refused") else {
        return;
    };
    for runtime in Runtime::built().filter(|name| *name != "epoll") {
        let said = refusal(&launcher, runtime);
        assert!(said.contains("uring-blocked") && said.contains("--runtime epoll"), "{said}");
    }
}

#[test]
fn glommio_says_when_it_is_not_built_and_when_it_lacks_lockable_memory() {
    let little = ["sh", "-c", "ulimit -l 64; exec \"$0\" \"$@\""].map(String::from);
    let said = refusal(&little, "glommio");
    let (code, remedy) = match cfg!(feature = "glommio") {
        true => ("memlock", "LimitMEMLOCK=infinity"),
        false => ("runtime-not-built", "--features glommio"),
    };
    assert!(said.contains(code) && said.contains(remedy), "{said}");
}

// The warning told what is slow and not what to do about it: that stood where only a test looked.
#[test]
fn without_lockable_memory_io_uring_serves_and_names_the_remedy() {
    if open(Runtime::Uring, DriverConfig { recv_buffers: 8, ..DriverConfig::default() }).is_err() {
        return skip("runtime::without_lockable_memory_io_uring_serves", "no io_uring");
    }
    let little = [
        "sh",
        "-c",
        "ulimit -l 4096; exec setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock \"$0\" \"$@\"",
    ];
    let home = Home::new("runtime-memlock");
    let Ok(broker) = Broker::start_under(&little.map(String::from), &home.data(), &["runtime=uring"]) else {
        return skip("runtime::without_lockable_memory_io_uring_serves", "setpriv does not run here");
    };
    let line = serves(&broker);
    let log = broker.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("(FALLBACK)")).collect();
    assert!(line.contains("buffers FALLBACK") && line.contains("memlock 4096 KiB"), "{line}");
    assert!(matches!(told[..], [told] if told.contains("LimitMEMLOCK=infinity")), "{told:?}");
    broker.stop(PATIENCE);
}

// A kernel that counts rings refuses them for want of lockable memory: `auto` did not start.
#[test]
fn where_no_ring_may_be_locked_auto_serves_without_and_uring_names_the_limit() {
    let test = "runtime::where_no_ring_may_be_locked";
    let little = [
        "sh",
        "-c",
        "ulimit -l 64; exec setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock \"$0\" \"$@\"",
    ]
    .map(String::from);
    let tried = Command::new(&little[0]).args(&little[1..]).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skip(test, "setpriv does not run here");
    }
    let home = Home::new("runtime-no-ring");
    let broker =
        Broker::start_under(&little, &home.data(), &["runtime=auto", "shards=2"]).expect("it starts");
    let line = serves(&broker);
    let log = broker.log();
    broker.stop(PATIENCE);
    let told: Vec<&str> = log.lines().filter(|line| line.contains("epoll takes its place")).collect();
    if told.is_empty() && line.contains("\"runtime\":\"uring\"") {
        return skip(test, "this kernel does not count rings");
    }
    assert!(line.contains("\"runtime\":\"epoll\""), "{line}");
    assert!(matches!(told[..], [told] if told.contains("LimitMEMLOCK=infinity")), "{told:?}");
    let said = refusal(&little, "uring");
    assert!(said.contains("error[memlock]") && said.contains("--runtime epoll"), "{said}");
}

#[test]
fn an_unknown_runtime_is_a_usage_error() {
    let home = Home::new("runtime-unknown");
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(["serve", "--runtime", "kqueue", "--data-dir"]).arg(home.data());
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("kqueue") && said.contains("epoll"), "{said}");
}
