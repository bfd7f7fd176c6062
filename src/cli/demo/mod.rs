//! `corelog demo`: the main job in one command. A broker, a topic, real input from several producers over TCP, SIGKILL in the
//! middle, a restart, and the proof that every acknowledged record is there, once, unchanged.

mod broker;
mod input;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::interrupt;
use crate::cli::output::{Progress, print, say};
use crate::cli::units::{short, short_ns};
use crate::client::admin::NewTopic;
use crate::client::cluster::Cluster;
use crate::client::settings::{Acks, Settings};
use crate::loadgen::durability;
use crate::loadgen::ledger::{self, History, Ledger, Verdict, Watch};
use broker::ChildBroker;
use input::Input;

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 4;

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
    let killed = killed?;
    if let Some(error) = ledgers.iter().find_map(|l| l.error.clone()) {
        return Err(error.into());
    }
    if interrupt::asked() {
        return Err(interrupt::failure("interrupted"));
    }
    let began = Instant::now();
    let verdict = ledger::verify(&settings, TOPIC, &ledgers, input, &mut History::default())?;
    report(args, input, &ledgers, &killed, &verdict, began.elapsed(), label)?;
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
        None => began.elapsed() >= half && acked > 0,
    };
    let mut acked = 0;
    while !half_way(acked) && !interrupt::asked() && began.elapsed() < args.duration + Duration::from_secs(30)
    {
        std::thread::sleep(Duration::from_millis(1));
        acked = watch.acked.load(Ordering::Relaxed);
        progress.show(|| format!("producing: {} records acknowledged", short(acked as f64)));
    }
    broker.kill();
    let killed_at = Instant::now();
    let acked = watch.acked.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    progress.show(|| "killed: starting again".to_string());
    let broker = ChildBroker::start(&args.data_dir, address)?;
    let everything = input.total().is_some_and(|total| acked >= total);
    let resumed = everything || ledger::wait_for_acks(watch, acked + 1, Duration::from_secs(20));
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
    while !interrupt::asked() && input.total().is_none() && second_half.elapsed() < half {
        std::thread::sleep(Duration::from_millis(10));
        progress.show(|| {
            format!(
                "producing again: {} records acknowledged",
                short(watch.acked.load(Ordering::Relaxed) as f64)
            )
        });
    }
    Ok(Killed { acked, seconds, outage, broker })
}

fn report(
    args: &DemoArgs,
    input: &Input,
    ledgers: &[Ledger],
    killed: &Killed,
    verdict: &Verdict,
    reading: Duration,
    label: &str,
) -> Outcome {
    let mut latency = ledger::histogram();
    ledgers.iter().for_each(|l| latency.add(&l.latency).expect("the same bounds"));
    let records: u64 = ledgers.iter().map(|l| l.placed.len() as u64).sum();
    let bytes: u64 = ledgers.iter().map(|l| l.bytes).sum();
    let rate = killed.acked as f64 / killed.seconds.max(0.001);
    let mean_bytes = bytes as f64 / records.max(1) as f64;
    let read_rate = verdict.records as f64 / reading.as_secs_f64().max(0.001);
    let quantile = |q: f64| short_ns(latency.value_at_quantile(q));
    let what = match input {
        Input::Orders => "order events as JSON, keyed by customer".to_string(),
        Input::Lines { lines, truncated, .. } => {
            format!(
                "{} lines of {}{}",
                lines.len(),
                args.file.as_deref().unwrap_or(Path::new("")).display(),
                if *truncated { " (its first 256 MiB)" } else { "" }
            )
        }
    };
    let rows = [
        ("input", what),
        ("producers", format!("{} over TCP, acks=all, idempotent, {PARTITIONS} partitions", args.producers)),
        ("durability", format!("{label}   {}", meaning(label))),
        (
            "throughput",
            format!("{} records/s   {}B/s   until the kill", short(rate), short(rate * mean_bytes)),
        ),
        (
            "latency",
            format!(
                "p50 {}   p99 {}   p99.9 {}   per record, closed loop, the outage included",
                quantile(0.5),
                quantile(0.99),
                quantile(0.999)
            ),
        ),
        (
            "killed",
            format!(
                "SIGKILL after {} acknowledged records; acknowledging again {:.2} s later",
                killed.acked,
                killed.outage.as_secs_f64()
            ),
        ),
        (
            "read back",
            format!(
                "{} records at {} records/s, each compared with what was sent",
                verdict.records,
                short(read_rate)
            ),
        ),
        (
            "result",
            format!(
                "acknowledged {records} · lost {} · duplicates {} · changed {} · gaps {}",
                verdict.lost,
                verdict.duplicates,
                verdict.wrong + verdict.replaced,
                verdict.gaps
            ),
        ),
    ];
    let mut text = String::from("corelog demo\n");
    for (name, value) in rows {
        text.push_str(&format!("  {name:<12}{value}\n"));
    }
    let debug = if cfg!(debug_assertions) {
        "  DEBUG_BUILD: these figures mean nothing; cargo run --release -- demo\n"
    } else {
        ""
    };
    print(&format!("{text}{debug}"))
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

fn meaning(label: &str) -> &'static str {
    match label {
        "device" | "quorum-device" => "(each ack waited for the device: survives SIGKILL and power loss)",
        "page-cache" => "(each ack waited for the kernel: survives SIGKILL, not power loss)",
        "memory" | "quorum-memory" => "(acks do not wait for the disk)",
        _ => "",
    }
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
