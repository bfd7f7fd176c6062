//! `corelog bench`: one closed-loop run of the load generator.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::{Format, say};
use crate::cli::target::Target;
use crate::cli::topic::key_value;
use crate::cli::units;
use crate::client::admin::NewTopic;
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::client::settings::{Acks, Settings};
use crate::loadgen::ledger::now_ms;
use crate::loadgen::run::{self, Failed, Load, Mode};
use crate::wire::error::codes;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    Produce,
    Fetch,
    /// The bare pipeline of `corelog calibrate pipeline --serve`
    Bare,
}

#[derive(Args, Debug)]
pub struct BenchArgs {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value = "produce")]
    mode: ModeArg,
    /// Topic to use, made if it is not there; by default one of its own, deleted at the end
    #[arg(short, long, value_name = "NAME")]
    topic: Option<String>,
    /// Partitions to use; 1 per connection by default
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..), value_name = "N")]
    partitions: Option<i32>,
    /// Each connection produces to all of the partitions in turn, instead of to one
    #[arg(long)]
    spread: bool,
    /// Configuration of a topic that it makes; may be repeated
    #[arg(long, value_parser = key_value, value_name = "KEY=VALUE")]
    topic_config: Vec<(String, String)>,
    #[arg(short, long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096), value_name = "N")]
    connections: u16,
    /// Unanswered requests per connection
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=128), value_name = "N")]
    in_flight: u16,
    /// Bytes of a record's value
    #[arg(short, long, default_value = "1KiB", value_parser = units::bytes, value_name = "BYTES")]
    size: u64,
    /// Records in each request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    batch: u32,
    /// 1 or all
    #[arg(short, long, default_value = "all", value_name = "ACKS")]
    acks: String,
    /// Length of the measured window
    #[arg(short, long, default_value = "20s", value_parser = units::duration, value_name = "DURATION")]
    duration: Duration,
    /// Run before the window, discarded
    #[arg(long, default_value = "5s", value_parser = units::duration, value_name = "DURATION")]
    warmup: Duration,
    /// Generator threads
    #[arg(long, default_value_t = 1, value_name = "N")]
    workers: u16,
    /// Bytes that one fetch asks for
    #[arg(long, default_value = "1MiB", value_parser = units::bytes, value_name = "BYTES")]
    fetch_bytes: u64,
    /// Bytes written before a fetch run into a topic of its own
    #[arg(long, default_value = "256MiB", value_parser = units::bytes, value_name = "BYTES")]
    fill: u64,
    /// Process whose CPU time per request is told
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Largest request, so that a worker's pool holds it: Kafka's own limit on a message is 1 MiB unless raised.
const REQUEST_BYTES_MAX: u64 = 8 * 1024 * 1024;

pub fn run(args: &BenchArgs) -> Outcome {
    let settings = args.target.settings()?;
    let load = load(args, &settings)?;
    let own_topic = args.topic.is_none() && load.mode != Mode::Bare;
    if load.mode != Mode::Bare {
        prepare(args, &load, &settings, own_topic)?;
    }
    let report = run::run(&load, &settings).map_err(failure);
    if own_topic {
        Cluster::new(settings).delete_topic(&load.topic)?;
    }
    let report = report?;
    args.format.print(|| report.text(), || report.json())?;
    if report.is_invalid() {
        let marks = report.marks().join(" · ");
        return Err(Failure::plain(
            Exit::Invalid,
            "invalid",
            "this run measured something else than the server",
            &marks,
            &["read the marks above"],
        ));
    }
    Ok(())
}

fn load(args: &BenchArgs, settings: &Settings) -> Result<Load, Failure> {
    let acks = Acks::parse(&args.acks).filter(|acks| *acks != Acks::None);
    let acks = acks.ok_or_else(|| {
        Failure::usage("acks=0 has no answer whose time could be told", &["-a 1", "-a all"])
    })?;
    if args.size * u64::from(args.batch) > REQUEST_BYTES_MAX {
        return Err(Failure::usage("a request may have 8 MiB", &["--batch N", "-s BYTES"]));
    }
    let mode = match args.mode {
        ModeArg::Produce => Mode::Produce,
        ModeArg::Fetch => Mode::Fetch,
        ModeArg::Bare => Mode::Bare,
    };
    Ok(Load {
        mode,
        address: settings.brokers[0].clone(),
        topic: args.topic.clone().unwrap_or_else(|| format!("bench-{}-{}", std::process::id(), now_ms())),
        connections: usize::from(args.connections),
        in_flight: usize::from(args.in_flight),
        record_bytes: args.size as usize,
        batch_records: args.batch as usize,
        partitions: args.partitions.unwrap_or(i32::from(args.connections)),
        spread: args.spread,
        acks,
        workers: usize::from(args.workers),
        warm_up: args.warmup,
        window: args.duration.max(Duration::from_millis(100)),
        fetch_bytes: i32::try_from(args.fetch_bytes).unwrap_or(i32::MAX).clamp(1, 64 * 1024 * 1024),
        server_pid: args.server_pid,
    })
}

/// Makes the topic, and fills it where a fetch needs something to read.
fn prepare(args: &BenchArgs, load: &Load, settings: &Settings, own_topic: bool) -> Outcome {
    let mut cluster = Cluster::new(settings.clone());
    let topic = NewTopic {
        name: load.topic.clone(),
        partitions: load.partitions,
        replication: -1,
        configs: args.topic_config.clone(),
        validate_only: false,
    };
    match cluster.create_topic(&topic) {
        Err(error) if !own_topic && error.code() == Some(codes::TOPIC_ALREADY_EXISTS) => return Ok(()),
        outcome => outcome?,
    };
    if load.mode == Mode::Fetch {
        say(&format!("writing {} bytes to read", args.fill));
        run::fill(settings, &load.topic, load.record_bytes, args.fill)?;
    }
    Ok(())
}

fn failure(failed: Failed) -> Failure {
    match failed {
        Failed::Client(error) => error.into(),
        Failed::Fatal(fatal) => Failure::new(Exit::Environment, fatal),
        Failed::Talk(what) => ClientError::Lost { address: "the server".to_string(), why: what }.into(),
    }
}
