//! The demo's broker: this same binary as a child process, so that it can be killed.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::exit::{Exit, Failure};
use crate::client::cluster::Cluster;
use crate::client::settings::Settings;

/// A broker answers well within this, also after a crash with a log of this size.
const START_PATIENCE: Duration = Duration::from_secs(15);

pub struct ChildBroker {
    child: Child,
    log: PathBuf,
}

impl ChildBroker {
    /// Starts a broker on `address` and waits until it answers. Its own group of processes: Ctrl-C is ours to handle.
    pub fn start(dir: &Path, address: &str) -> Result<ChildBroker, Failure> {
        let cannot = |what: &str, error: &std::io::Error| Failure::io(&format!("cannot {what}"), error);
        let log = dir.join("broker.log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(|e| cannot("open the broker's log", &e))?;
        let second = file.try_clone().map_err(|e| cannot("open the broker's log", &e))?;
        let binary = std::env::current_exe().map_err(|e| cannot("find this program's own file", &e))?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data-dir").arg(dir.join("data")).args(["--listen", address]);
        command.stdin(Stdio::null()).stdout(file).stderr(second).process_group(0);
        command.env_remove("CORELOG_BROKERS");
        let child = command.spawn().map_err(|e| cannot("start the broker", &e))?;
        let mut broker = ChildBroker { child, log };
        broker.wait_until_answering(address)?;
        Ok(broker)
    }

    fn wait_until_answering(&mut self, address: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + START_PATIENCE;
        let settings = Settings { brokers: vec![address.to_string()], ..Settings::default() };
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("the broker ended at once ({status})"), status.code()));
            }
            let error = match Cluster::new(settings.clone()).wait_until_answering(Duration::from_millis(50)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(self.failed(&format!("the broker does not answer: {error}"), None));
            }
        }
    }

    /// The broker's own words are the best explanation there is.
    fn failed(&self, what: &str, code: Option<i32>) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(8).collect();
        let said: Vec<&str> = last.into_iter().rev().collect();
        let exit = if code == Some(Exit::Environment as i32) { Exit::Environment } else { Exit::Failed };
        let said = format!("it said:\n{}", said.join("\n"));
        Failure::plain(
            exit,
            "demo-broker",
            what,
            &said,
            &["corelog serve --dev", &format!("less {}", self.log.display())],
        )
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ChildBroker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address of loopback that is free now. Below 32768: a client that connects to a port of the range that clients draw from,
/// while nobody listens there, may be given that very port and meet itself.
pub fn free_address() -> Result<String, Failure> {
    let first = 20_000 + (std::process::id() as u16 % 4000) * 3;
    let found = (first..first + 100)
        .map(|port| format!("127.0.0.1:{port}"))
        .find(|a| TcpListener::bind(a.as_str()).is_ok());
    let none = || {
        Failure::plain(
            Exit::Environment,
            "port-in-use",
            "no free port on 127.0.0.1",
            &format!("tried {first} and 99 more"),
            &["stop what listens there"],
        )
    };
    found.ok_or_else(none)
}
