//! A producer was told "stored", then the machine's owner ran `kill -9`. The story of these tests: a broker is killed again and
//! again under eight producers and three readers, and after each restart everything that was acknowledged is there, each offset
//! holds what it always held, and offsets are dense.
//!
//! `CYCLES=100 cargo test --release --test it crash` is the full run; `SEED=...` repeats the same moments of killing.
//! `SERVE=program` kills another broker that takes the arguments of `corelog serve`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corelog::client::admin::NewTopic;
use corelog::client::cluster::Cluster;
use corelog::client::settings::{Acks, Settings};
use corelog::loadgen::ledger::{self, History, Ledger, Source, Watch};

use crate::loopfs::StallingDisk;
use crate::support::{can_serve, fresh_dir, skip};

/// How long a start may take on a loaded machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// One promise that producers ask for, on a topic of its own.
struct Promise {
    topic: &'static str,
    acks: Acks,
    idempotent: bool,
    producers: u32,
    partitions: i32,
}

const PROMISES: [Promise; 3] = [
    Promise { topic: "all-idempotent", acks: Acks::All, idempotent: true, producers: 3, partitions: 2 },
    Promise { topic: "all", acks: Acks::All, idempotent: false, producers: 3, partitions: 2 },
    Promise { topic: "leader", acks: Acks::Leader, idempotent: false, producers: 2, partitions: 1 },
];

/// Values of 20 to about 1500 bytes, each a function of its producer and number.
struct Values;

impl Source for Values {
    fn record(&self, producer: u32, sequence: u64, key: &mut Vec<u8>, value: &mut Vec<u8>) -> bool {
        let draw = scramble(u64::from(producer) << 40 | sequence);
        key.extend_from_slice(&(draw as u32 % 1000).to_be_bytes());
        value.extend_from_slice(format!("{producer}/{sequence}/").as_bytes());
        let len = 20 + (draw >> 32) as usize % if draw.is_multiple_of(16) { 1500 } else { 100 };
        value.resize(value.len() + len, draw as u8);
        true
    }
}

fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Size of the disk that stalls; what 100 cycles write takes less than a quarter of it.
const DISK_MB: u64 = 4096;

/// No ack for so long: the disk stalls, and what it had answered before was acknowledged.
const SILENCE: Duration = Duration::from_millis(50);

/// A broker that keeps its address over restarts, so that clients ride through them.
struct Rig {
    dir: PathBuf,
    /// Its data lies there, if it is to stall.
    disk: Option<StallingDisk>,
    address: String,
    child: Option<Child>,
}

impl Rig {
    /// Its broker is yet to start.
    fn new(name: &str) -> Rig {
        // Below the ports that clients draw from: while nobody listens there, a client may be given that port and meet itself.
        static RIGS: AtomicU16 = AtomicU16::new(0);
        let first = 20_000 + (std::process::id() as u16 % 600) * 20 + RIGS.fetch_add(10, Ordering::Relaxed);
        let mut addresses = (first..).map(|port| format!("127.0.0.1:{port}"));
        let address = addresses.find(|a| TcpListener::bind(a.as_str()).is_ok()).expect("a free port");
        Rig { dir: fresh_dir(name), disk: None, address, child: None }
    }

    fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("broker.log"))
            .expect("a log");
        let program = std::env::var("SERVE").unwrap_or_else(|_| env!("CARGO_BIN_EXE_corelog").to_string());
        let mut command = Command::new(program);
        let data = self.disk.as_ref().map_or_else(|| self.dir.join("data"), |disk| disk.inner.data());
        command.arg("serve").arg("--data-dir").arg(data).args(["--listen", &self.address]);
        command.args(["-X", "log.segment.bytes=1048576"]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn();
        self.child = Some(child.expect("the broker starts"));
        let since = Instant::now();
        let mut cluster = Cluster::new(self.settings(Acks::All, false));
        while let Err(error) = cluster.wait_until_answering(Duration::from_millis(200)) {
            let ended = self.child.as_mut().and_then(|c| c.try_wait().expect("the child's status"));
            let alive = ended.is_none() && since.elapsed() < START_PATIENCE;
            assert!(alive, "the broker does not answer ({error}, ended: {ended:?}):\n{}", self.log());
        }
    }

    fn settings(&self, acks: Acks, idempotent: bool) -> Settings {
        Settings {
            brokers: vec![self.address.clone()],
            acks,
            idempotent,
            batch_bytes: 4096,
            retry_backoff: Duration::from_millis(5),
            ..Settings::default()
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("a broker runs").id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill").success());
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("a broker runs");
        child.kill().expect("SIGKILL");
        child.wait().expect("the child's end");
    }

    /// Kills the broker with writes that the disk does not take; it takes them when the process is long dead.
    fn kill_with_stalled_disk(&mut self, acked: &AtomicU64) {
        let stalled = self.disk.as_ref().expect("a disk that can stall").stall();
        let (mut seen, mut since) = (acked.load(Ordering::Relaxed), Instant::now());
        let began = since;
        while since.elapsed() < SILENCE {
            assert!(began.elapsed() < START_PATIENCE, "acks go on while the disk stalls");
            std::thread::sleep(Duration::from_millis(5));
            let now = acked.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        let mut child = self.child.take().expect("a broker runs");
        child.kill().expect("SIGKILL");
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(acked.load(Ordering::Relaxed), seen, "an ack while the disk stalls");
        drop(stalled);
        child.wait().expect("the child's end");
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("broker.log")).unwrap_or_default();
        log.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        drop(self.disk.take());
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// One promise over all cycles so far.
struct Record {
    promise: &'static Promise,
    settings: Settings,
    ledgers: Vec<Ledger>,
    history: History,
}

/// How a cycle ends the broker.
#[derive(Clone, Copy)]
enum End {
    Kill,
    /// Stopped for a while, as by a debugger or an overcommitted host; goes on, and is killed later.
    StallThenKill,
    /// Killed while it is stopped.
    KillStalled,
    /// Killed while its disk stalls.
    KillWithStalledDisk,
}

fn create(rig: &Rig, topic: &str, partitions: i32, configs: Vec<(String, String)>) {
    let name = topic.to_string();
    let topic = NewTopic { name, partitions, replication: 1, configs, validate_only: false };
    Cluster::new(rig.settings(Acks::All, false)).create_topic(&topic).expect("the topic is created");
}

fn records(rig: &Rig) -> Vec<Record> {
    let records = PROMISES.iter().map(|promise| {
        create(rig, promise.topic, promise.partitions, Vec::new());
        let settings = rig.settings(promise.acks, promise.idempotent);
        Record { promise, settings, ledgers: Vec::new(), history: History::default() }
    });
    records.collect()
}

/// Produces and reads on all topics, ends the broker after `before`, starts it again, goes on for a moment and stops.
fn cycle(rig: &mut Rig, records: &mut [Record], number: u32, end: End, before: Duration) {
    let (watch, stop_readers) = (Watch::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (watch, stop_readers) = (&watch, &stop_readers);
        let mut running = Vec::new();
        for record in records {
            let Record { promise, settings, history, ledgers } = record;
            let (promise, settings) = (*promise, &*settings);
            let reader = scope.spawn(move || ledger::observe(settings, promise.topic, history, stop_readers));
            let names = number * promise.producers..(number + 1) * promise.producers;
            let producers = names
                .map(|p| scope.spawn(move || ledger::produce(settings, promise.topic, p, &Values, watch)));
            running.push((reader, producers.collect::<Vec<_>>(), ledgers));
        }
        assert!(
            ledger::wait_for_acks(watch, 1, START_PATIENCE),
            "nothing was ever acknowledged:\n{}",
            rig.log()
        );
        std::thread::sleep(before);
        end_and_restart(rig, end, &watch.acked);
        let acked = watch.acked.load(Ordering::Relaxed);
        assert!(
            ledger::wait_for_acks(watch, acked + 1, START_PATIENCE),
            "no ack after the restart:\n{}",
            rig.log()
        );
        watch.stop.store(true, Ordering::Relaxed);
        for (reader, producers, ledgers) in running {
            ledgers.extend(producers.into_iter().map(|p| p.join().expect("a producer ends")));
            stop_readers.store(true, Ordering::Relaxed);
            let seen = reader.join().expect("a reader ends");
            seen.unwrap_or_else(|what| panic!("cycle {number}: {what}\n{}", rig.log()));
        }
    });
}

fn end_and_restart(rig: &mut Rig, end: End, acked: &AtomicU64) {
    match end {
        End::Kill => {}
        End::StallThenKill => {
            rig.signal("-STOP");
            std::thread::sleep(Duration::from_millis(100));
            rig.signal("-CONT");
            std::thread::sleep(Duration::from_millis(20));
        }
        End::KillStalled => {
            rig.signal("-STOP");
            std::thread::sleep(Duration::from_millis(50));
        }
        End::KillWithStalledDisk => {
            rig.kill_with_stalled_disk(acked);
            return rig.start();
        }
    }
    rig.kill();
    rig.start();
}

fn check(rig: &Rig, records: &mut [Record], number: u32, seed: u64) {
    for Record { promise, settings, ledgers, history } in records {
        for ledger in ledgers.iter().filter(|l| l.producer / promise.producers == number) {
            assert_eq!(
                ledger.error,
                None,
                "producer {} of {}\n{}",
                ledger.producer,
                promise.topic,
                rig.log()
            );
        }
        let verdict =
            ledger::verify(settings, promise.topic, ledgers, &Values, history).expect("the topic is read");
        let exact = !promise.idempotent || verdict.duplicates == 0;
        let sound = verdict.is_sound() && exact;
        assert!(sound, "SEED={seed} cycle {number}, {}: {verdict:?}\n{}", promise.topic, rig.log());
    }
}

fn run(name: &str, cycles: u32, ends: &[End]) {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(ledger::now_ms);
    let mut rig = Rig::new(name);
    if ends.iter().any(|end| matches!(end, End::KillWithStalledDisk)) {
        rig.disk = Some(StallingDisk::build(&rig.dir, DISK_MB));
    }
    rig.start();
    let mut records = records(&rig);
    for number in 0..cycles {
        let draw = scramble(seed ^ u64::from(number) << 48);
        let before = Duration::from_millis(draw % 150);
        cycle(&mut rig, &mut records, number, ends[number as usize % ends.len()], before);
        check(&rig, &mut records, number, seed);
    }
    let acked = |r: &Record| r.ledgers.iter().flat_map(|l| &l.placed).filter(|p| p.is_some()).count();
    let acked: Vec<String> = records.iter().map(|r| format!("{} {}", r.promise.topic, acked(r))).collect();
    println!("{name}: SEED={seed}, {cycles} kills, acknowledged and found: {}", acked.join(", "));
}

fn cycles(few: u32) -> u32 {
    std::env::var("CYCLES").ok().and_then(|c| c.parse().ok()).unwrap_or(few)
}

fn can_run(test: &str) -> bool {
    std::env::var("SERVE").is_ok() || can_serve(&format!("crash::{test}"))
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    if can_run("what_was_acknowledged_survives_sigkill") {
        run("crash-kill", cycles(5), &[End::Kill]);
    }
}

/// The kill meets a client before its first words with the broker: neither a producer nor a reader takes that for a wrong address.
#[test]
fn a_kill_while_clients_connect_ends_none() {
    if !can_run("a_kill_while_clients_connect_ends_none") {
        return;
    }
    let mut rig = Rig::new("crash-connect");
    rig.start();
    create(&rig, "early", 1, Vec::new());
    rig.kill();
    let settings = rig.settings(Acks::All, false);
    // The kernel ends the rings of a killed process, and what they listen at, a moment later.
    let since = Instant::now();
    let dies = loop {
        match TcpListener::bind(rig.address.as_str()) {
            Ok(listener) => break listener,
            Err(error) => assert!(since.elapsed() < START_PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (watch, stop) = (Watch::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| ledger::produce(&settings, "early", 0, &Values, &watch));
        drop(dies.accept().expect("the producer connects"));
        let reader = scope.spawn(|| ledger::observe(&settings, "early", &mut History::default(), &stop));
        drop(dies.accept().expect("the reader connects, or the producer again"));
        drop(dies);
        rig.start();
        assert!(ledger::wait_for_acks(&watch, 1, START_PATIENCE), "nothing is acknowledged:\n{}", rig.log());
        watch.stop.store(true, Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(producer.join().expect("the producer ends").error, None);
        reader.join().expect("the reader ends").expect("nothing that it saw is gone");
    });
}

/// How often the canary kills at the most.
const KILLS: u32 = 20;

/// The canary: `durability=memory` acknowledges what a killed process forgets. A check that does not see that sees nothing.
#[test]
fn the_check_finds_what_memory_loses() {
    if !can_run("the_check_finds_what_memory_loses") {
        return;
    }
    let mut rig = Rig::new("crash-canary");
    rig.start();
    let settings = rig.settings(Acks::All, false);
    let configs = [
        ("durability", "memory"),
        ("durability.flush.ms", "60000"),
        ("durability.flush.bytes", "1073741824"),
    ];
    let configs = configs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    create(&rig, "memory", 1, configs);
    let mut ledgers = Vec::new();
    // Each kill under load: what is staged behind a write in flight goes. An idle broker has written it within a moment.
    for kill in 0..KILLS {
        let watch = Watch::default();
        let (more, ()) = ledger::run(&settings, "memory", kill..kill + 1, &Values, &watch, || {
            let acked = ledger::wait_for_acks(&watch, 1000, START_PATIENCE);
            assert!(acked, "nothing is acknowledged:\n{}", rig.log());
            rig.kill();
            rig.start();
            watch.stop.store(true, Ordering::Relaxed);
        });
        ledgers.extend(more);
        let verdict = ledger::verify(&settings, "memory", &ledgers, &Values, &mut History::default());
        let verdict = verdict.expect("the topic is read");
        if verdict.lost > 0 {
            return assert!(!verdict.is_sound(), "{verdict:?}");
        }
    }
    panic!("nothing was lost in {KILLS} kills");
}

#[test]
fn what_was_acknowledged_survives_a_stall_and_sigkill() {
    if can_run("what_was_acknowledged_survives_a_stall_and_sigkill") {
        run("crash-stall", cycles(2), &[End::StallThenKill, End::KillStalled]);
    }
}

#[test]
fn what_was_acknowledged_survives_sigkill_during_a_stalled_disk() {
    const TEST: &str = "what_was_acknowledged_survives_sigkill_during_a_stalled_disk";
    if !can_run(TEST) {
        return;
    }
    match StallingDisk::missing() {
        Some(what) => skip(&format!("crash::{TEST}"), what),
        None => run("crash-disk", cycles(2), &[End::KillWithStalledDisk, End::Kill]),
    }
}
