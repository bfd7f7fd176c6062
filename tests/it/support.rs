//! A real broker for tests: the binary that cargo built, on a directory of its own, on a free port, ended with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use corelog::client::settings::Settings;

/// How long a start may take: recovery of what the tests write, on a loaded machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

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
        let (ready, log) = (data_dir.with_extension("ready"), data_dir.with_extension("log"));
        let _ = fs::remove_file(&ready);
        let log_file = fs::File::create(&log).expect("a log file for the broker");
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
        command.arg("serve").arg("--data-dir").arg(data_dir).args([
            "--listen",
            "127.0.0.1:0",
            "--shards",
            "1",
        ]);
        command.arg("--ready-file").arg(&ready).args(["-X", "memory=67108864"]);
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
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
