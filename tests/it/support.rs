//! A real broker for tests: the binary that cargo built, on a directory of its own, on a free port, ended with the test.
//!
//! A test that this machine cannot run says so by name, with [`skip`].

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use corelog::base::error::Fatal;
use corelog::client::cluster::Cluster;
use corelog::client::settings::Settings;
use corelog::config::runtime::Runtime;
use corelog::io::open::{DriverConfig, open};

/// How long a start may take: recovery of what the tests write, on a loaded machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What test brokers get as `memory`.
const MEMORY_PER_SHARD_BYTES: u64 = 64 << 20;

/// Memory of the brokers under test: enough for as many shards as they will have.
pub fn memory_bytes() -> u64 {
    let wanted = std::env::var("CORELOG_SHARDS").ok().and_then(|shards| shards.parse().ok());
    let shards =
        wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64));
    shards * MEMORY_PER_SHARD_BYTES
}

/// In the warning that a broker of more shards than CPUs begins with: the tests ask for such brokers.
const MORE_SHARDS_THAN_CPUS: &str = "shards share";

/// In the warning of connections that were closed because theirs was one request too many: hostile clients may be.
const CLOSED_FOR_MEMORY: &str = "the requests that wait took all the memory";

/// How much more than `memory` a broker may be resident with.
pub const RESIDENT_MARGIN_BYTES: u64 = 64 << 20;

/// Says once that a test did not run, and why: past the harness, which shows nothing of what a passing test prints.
pub fn skip(test: &str, why: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = format!("SKIPPED {test}: {why}\n");
    // Behind a line end, as the harness may be in the middle of a line; in one write, as tests run side by side.
    if SAID.lock().expect("no panic in here").insert(line.clone()) {
        let _ = std::io::stderr().write_all(format!("\n{line}").as_bytes());
    }
}

/// What the tests run brokers on: `CORELOG_RUNTIME`, or what `auto` comes to here. An error if it cannot run.
pub fn runtime() -> Result<Runtime, Fatal> {
    let asked = std::env::var("CORELOG_RUNTIME").unwrap_or_else(|_| "auto".into());
    let asked = Runtime::parse(&asked).unwrap_or_else(|| panic!("CORELOG_RUNTIME={asked}"));
    let io = open(asked, DriverConfig { recv_buffers: 8, ..DriverConfig::default() })?;
    Ok(io.runtime().expect("a driver of this machine"))
}

/// Whether a broker can run here at all; if not, says so.
pub fn can_serve(test: &str) -> bool {
    runtime().inspect_err(|fatal| skip(test, &fatal.to_string())).is_ok()
}

/// The long form of the tests that have one.
pub fn full() -> bool {
    std::env::var_os("CORELOG_FULL").is_some_and(|v| v == "1")
}

/// A directory for one test, removed at its end; kept for a look if the test fails.
pub struct Home {
    pub dir: PathBuf,
}

impl Home {
    pub fn new(name: &str) -> Home {
        Home { dir: fresh_dir(name) }
    }

    /// A data directory in it.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

pub struct Broker {
    child: Child,
    pub address: String,
    pub data_dir: PathBuf,
}

/// A new empty directory for a test, on the disk of the build (a tmpfs could not hold a durable broker).
pub fn fresh_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory for the test");
    dir
}

impl Broker {
    /// Starts a broker and waits until it serves. `settings` are `-X` pairs.
    pub fn start(data_dir: &Path, settings: &[&str]) -> Broker {
        Broker::try_start(data_dir, settings).unwrap_or_else(|log| panic!("the broker did not start:\n{log}"))
    }

    /// As `start`; gives back what the broker said if it ends instead.
    pub fn try_start(data_dir: &Path, settings: &[&str]) -> Result<Broker, String> {
        Broker::start_under(&[], data_dir, settings)
    }

    /// As `try_start`, by way of another command that runs it.
    pub fn start_under(launcher: &[String], data_dir: &Path, settings: &[&str]) -> Result<Broker, String> {
        let (ready, log) = (data_dir.with_extension("ready"), data_dir.with_extension("log"));
        let _ = fs::remove_file(&ready);
        let log_file = fs::File::create(&log).expect("a log file for the broker");
        let argv: Vec<&str> =
            launcher.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_corelog")]).collect();
        let mut command = Command::new(argv[0]);
        // Ours; the broker would warn of a variable that names no key.
        command.env_remove("CORELOG_FULL");
        if let Ok(runtime) = runtime() {
            command.env("CORELOG_RUNTIME", runtime.name());
        }
        command
            .args(&argv[1..])
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--listen", "127.0.0.1:0"]);
        command.arg("--ready-file").arg(&ready).args(["-X", &format!("memory={}", memory_bytes())]);
        for setting in settings {
            command.args(["-X", setting]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .expect("the binary starts");
        let since = Instant::now();
        loop {
            if let Ok(address) = fs::read_to_string(&ready)
                && let Some(address) = address.lines().next().filter(|_| address.ends_with('\n'))
            {
                let address = address.to_string();
                return Ok(Broker { child, address, data_dir: data_dir.to_path_buf() });
            }
            let ended = child.try_wait().expect("the child's status");
            if ended.is_some() || since.elapsed() > START_PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the broker has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.data_dir.with_extension("log")).unwrap_or_default()
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the child's end");
    }

    /// SIGTERM, and an orderly end within `patience`.
    pub fn stop(mut self, patience: Duration) -> Duration {
        let since = Instant::now();
        Command::new("kill").arg(self.pid().to_string()).status().expect("kill");
        while self.child.try_wait().expect("the child's status").is_none() {
            assert!(since.elapsed() < patience, "the broker did not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        since.elapsed()
    }

    pub fn settings(&self) -> Settings {
        Settings { brokers: vec![self.address.clone()], ..Settings::default() }
    }

    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.settings())
    }

    /// Sends a signal by its name, as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().expect("kill");
        assert!(status.success(), "SIG{name} to the broker");
    }

    /// The exit code, once the broker has ended by itself; none if a signal ended it.
    pub fn wait(&mut self, patience: Duration) -> Option<i32> {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's status") {
                return status.code();
            }
            assert!(since.elapsed() < patience, "the broker goes on:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child's status").is_none()
    }

    /// Bytes of memory that are the broker's at this moment (VmRSS).
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running broker");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// The broker runs, has said nothing that a human must look at, and is within its memory.
    pub fn assert_healthy(&mut self) {
        let log = self.log();
        assert!(self.is_running(), "the broker ended:\n{log}");
        let expected = [MORE_SHARDS_THAN_CPUS, CLOSED_FOR_MEMORY];
        let lines = log.lines().filter(|line| !expected.iter().any(|text| line.contains(text)));
        for bad in ["panicked", "\"level\":\"ERROR\"", "\"level\":\"WARN\""] {
            assert!(!lines.clone().any(|line| line.contains(bad)), "{bad} in the broker's log:\n{log}");
        }
        let resident = self.resident_bytes();
        let cap = memory_bytes() + RESIDENT_MARGIN_BYTES;
        assert!(resident <= cap, "{} MiB resident, {} MiB allowed", resident >> 20, cap >> 20);
    }
}

/// Runs `corelog serve` with these arguments to an end that must come within `patience`.
pub fn serve_until_end(args: &[&str], patience: Duration) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.arg("serve").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    wait_for_end(command.spawn().expect("the binary starts"), patience)
}

/// What a process said until its end, which must come within `patience`.
pub fn wait_for_end(mut child: Child, patience: Duration) -> Output {
    let since = Instant::now();
    while child.try_wait().expect("the child's status").is_none() {
        if since.elapsed() > patience {
            let _ = child.kill();
            let output = child.wait_with_output().expect("its output");
            panic!("it goes on:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("its output")
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
