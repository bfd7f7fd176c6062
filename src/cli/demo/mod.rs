//! `corelog demo`: the main job in one command. A broker, a topic, real input from several producers over TCP, SIGKILL in the
//! middle, a restart, and the proof that every acknowledged record is there, once, unchanged.

mod broker;
mod input;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::output::{Progress, print, say};
use crate::cli::units::short;
use crate::client::admin::NewTopic;
use crate::client::cluster::Cluster;
use crate::client::settings::{Acks, Settings};
use crate::loadgen::durability;
use crate::loadgen::ledger::{self, History, Ledger, Verdict, Watch};
use broker::ChildBroker;
use input::Input;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 4;

/// How long a producer retries: a restart takes a second or so.
const PRODUCER_PATIENCE: Duration = Duration::from_secs(20);

/// A fast machine stops a half of made-up orders here, not by the clock: about 400 MB of log, and 100 MB of ledgers.
const HALF_RECORDS_MAX: u64 = 2_500_000;

/// Marks a directory as the demo's own, to be emptied without asking.
const MARKER: &str = "made-by-corelog-demo";

#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Produce the lines of this file instead of made-up orders
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where the demo's broker keeps its data
    #[arg(long, default_value = "data/demo", value_name = "DIR")]
    data_dir: PathBuf,
    /// How long to produce (without FILE)
    #[arg(short, long, default_value = "10s", value_parser = crate::cli::units::duration, value_name = "DURATION")]
    duration: Duration,
    /// Producers, each a thread with its own connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    producers: u32,
    /// Leave the data directory as it is at the end
    #[arg(long)]
    keep: bool,
}

/// What the middle of the demo measured.
struct Killed {
    /// Records acknowledged, and seconds since the first, when the broker was killed.
    acked: u64,
    seconds: f64,
    /// From the kill to the first ack after it.
    outage: Duration,
    broker: ChildBroker,
}

pub fn run(args: &DemoArgs) -> Outcome {
    interrupt::watch();
    let input = Input::read(args.file.as_deref(), args.producers)?;
    prepare(&args.data_dir)?;
    let outcome = tell(args, &input);
    if args.keep {
        say(&format!("kept: {}", args.data_dir.display()));
    } else if outcome.is_ok() {
        remove(&args.data_dir)?;
    } else {
        say(&format!("left for a look: {}", args.data_dir.display()));
    }
    outcome
}

fn tell(args: &DemoArgs, input: &Input) -> Outcome {
    let address = broker::free_address()?;
    let broker = ChildBroker::start(&args.data_dir, &address)?;
    let settings = Settings {
        brokers: vec![address.clone()],
        acks: Acks::All,
        idempotent: true,
        batch_bytes: 32 * 1024,
        delivery_timeout: PRODUCER_PATIENCE,
        ..Settings::default()
    };
    let mut cluster = Cluster::new(settings.clone());
    let topic = NewTopic {
        name: TOPIC.to_string(),
        partitions: PARTITIONS,
        replication: 1,
        configs: Vec::new(),
        validate_only: false,
    };
    cluster.create_topic(&topic)?;
    let label = durability::label(&cluster.topic_configs(TOPIC)?, Acks::All, 1);
    drop(cluster);

    let watch = Watch::default();
    let (ledgers, killed) = ledger::run(&settings, TOPIC, 0..args.producers, input, &watch, || {
        let killed = kill_in_the_middle(args, input, &watch, broker, &address);
        watch.stop.store(killed.is_err() || input.total().is_none() || interrupt::asked(), Ordering::Relaxed);
        killed
    });
    let killed = killed.map_err(|failure| explain(failure, &ledgers))?;
    if let Some(error) = ledgers.iter().find_map(|l| l.error.clone()) {
        return Err(error.into());
    }
    if interrupt::asked() {
        return Err(interrupt::failure("interrupted"));
    }
    let began = Instant::now();
    let verdict = ledger::verify(&settings, TOPIC, &ledgers, input, &mut History::default())?;
    let story = report::Story {
        args,
        input,
        ledgers: &ledgers,
        killed: &killed,
        verdict: &verdict,
        reading: began.elapsed(),
    };
    print(&story.text(label))?;
    drop(killed.broker);
    conclude(&verdict)
}

/// Half of the work, SIGKILL, a restart on the same directory, and the other half.
fn kill_in_the_middle(
    args: &DemoArgs,
    input: &Input,
    watch: &Watch,
    mut broker: ChildBroker,
    address: &str,
) -> Result<Killed, Failure> {
    let mut progress = Progress::new();
    let began = Instant::now();
    let half = args.duration / 2;
    let half_way = |acked: u64| match input.total() {
        Some(total) => acked >= total / 2,
        None => acked >= HALF_RECORDS_MAX || (began.elapsed() >= half && acked > 0),
    };
    let mut acked = 0;
    while !half_way(acked) && !interrupt::asked() && began.elapsed() < args.duration + Duration::from_secs(30)
    {
        std::thread::sleep(Duration::from_millis(1));
        acked = watch.acked.load(Ordering::Relaxed);
        progress.show(|| format!("producing: {} records acknowledged", short(acked as f64)));
    }
    watch.disturbed.store(true, Ordering::Relaxed);
    broker.kill();
    let killed_at = Instant::now();
    let acked = watch.acked.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    progress.show(|| "killed: starting again".to_string());
    let broker = ChildBroker::start(&args.data_dir, address)?;
    let everything = input.total().is_some_and(|total| acked >= total);
    let resumed = everything || ledger::wait_for_acks(watch, acked + 1, PRODUCER_PATIENCE);
    let outage = killed_at.elapsed();
    if !resumed && !interrupt::asked() {
        let found = "the producers got no ack within 20 s of the restart";
        return Err(Failure::plain(
            Exit::Failed,
            "demo-stuck",
            "the broker answers but acknowledges nothing",
            found,
            &["--keep, and read broker.log"],
        ));
    }
    let second_half = Instant::now();
    let mut now_acked = acked;
    let goes_on = |now_acked: u64| second_half.elapsed() < half && now_acked < acked + HALF_RECORDS_MAX;
    while !interrupt::asked() && input.total().is_none() && goes_on(now_acked) {
        std::thread::sleep(Duration::from_millis(1));
        now_acked = watch.acked.load(Ordering::Relaxed);
        progress.show(|| format!("producing again: {} records acknowledged", short(now_acked as f64)));
    }
    Ok(Killed { acked, seconds, outage, broker })
}

/// Adds what the producers heard last to a failure of the broker.
fn explain(mut failure: Failure, ledgers: &[Ledger]) -> Failure {
    if let Some(error) = ledgers.iter().find_map(|l| l.error.as_ref()) {
        failure.error.found = format!("{}; a producer says: {error}", failure.error.found);
    }
    failure
}

fn conclude(verdict: &Verdict) -> Outcome {
    if verdict.is_sound() && verdict.duplicates == 0 {
        return print(
            "\nNext:\n  corelog serve --dev\n  echo hello | corelog produce -t greetings && corelog consume -t greetings -e\n  corelog bench -t bench -c 16 -s 1KiB -d 10s\n",
        );
    }
    let found = verdict.first.clone().unwrap_or_else(|| format!("{} duplicates", verdict.duplicates));
    Err(Failure::plain(
        Exit::Failed,
        "demo-verify",
        "what was read is not what was acknowledged",
        &found,
        &["corelog log verify --data-dir data/demo/data"],
    ))
}

/// Empties a directory of an earlier demo, refuses anyone else's, and makes a new one.
fn prepare(dir: &Path) -> Outcome {
    let used = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if used && !dir.join(MARKER).exists() {
        let found = "it is not empty, and no demo made it";
        return Err(Failure::plain(
            Exit::Usage,
            "data-dir-foreign",
            format!("the demo will not use {}", dir.display()),
            found,
            &["--data-dir DIR"],
        ));
    }
    remove(dir)?;
    let made = std::fs::create_dir_all(dir.join("data")).and_then(|()| std::fs::write(dir.join(MARKER), ""));
    made.map_err(|e| Failure::io(&format!("cannot make {}", dir.display()), &e))
}

fn remove(dir: &Path) -> Outcome {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io(&format!("cannot remove {}", dir.display()), &error))
        }
        _ => Ok(()),
    }
}
