//! `corelog calibrate ...`: what this machine allows at best.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::calibrate::pipeline::{self, Load};
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::{Format, say};
use crate::cli::units;
use crate::config::runtime::Runtime;

#[derive(Subcommand, Debug)]
pub enum CalibrateCommand {
    /// Receive, CRC, append, durable, small reply: the broker's io without Kafka's protocol
    Pipeline(PipelineArgs),
}

#[derive(Args, Debug)]
pub struct PipelineArgs {
    /// Where its files are made; they are removed after a measurement
    #[arg(long, default_value = "data/pipeline", value_name = "DIR")]
    data_dir: PathBuf,
    /// Serve until it is killed, for `corelog bench --mode bare`
    #[arg(long)]
    serve: bool,
    #[arg(long, default_value = "127.0.0.1:9393", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Files, as partitions
    #[arg(long, default_value_t = 1, value_name = "N")]
    files: usize,
    /// Bytes of all files together
    #[arg(long, default_value = "512MiB", value_parser = units::bytes, value_name = "BYTES")]
    bytes: u64,
    /// Driver of the server: auto, uring, epoll, glommio
    #[arg(long, default_value = "auto", value_parser = runtime, value_name = "NAME")]
    runtime: Runtime,
    /// CPU of the server
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// CPU of the load, when measuring
    #[arg(long, value_name = "N")]
    load_cpu: Option<usize>,
    /// Poll for a while before sleeping
    #[arg(long)]
    spin: bool,
    #[arg(short, long, default_value_t = 64, value_parser = at_least_one(), value_name = "N")]
    connections: usize,
    #[arg(long, default_value_t = 1, value_parser = at_least_one(), value_name = "N")]
    in_flight: usize,
    #[arg(short, long, default_value = "1KiB", value_parser = units::bytes, value_name = "BYTES")]
    size: u64,
    #[arg(short, long, default_value = "10s", value_parser = units::duration, value_name = "DURATION")]
    duration: Duration,
    #[arg(long, default_value = "2s", value_parser = units::duration, value_name = "DURATION")]
    warmup: Duration,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

fn runtime(name: &str) -> Result<Runtime, String> {
    Runtime::parse(name).ok_or_else(|| format!("one of {}", Runtime::NAMES.join(", ")))
}

pub fn run(command: &CalibrateCommand) -> Outcome {
    let CalibrateCommand::Pipeline(args) = command;
    std::fs::create_dir_all(&args.data_dir)
        .map_err(|e| Failure::io(&format!("cannot make {}", args.data_dir.display()), &e))?;
    let mut server = pipeline::Args {
        runtime: args.runtime,
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        files: args.files,
        bytes_total: args.bytes,
        cpu: args.cpu,
        spin: args.spin,
    };
    let environment = |fatal| Failure::new(Exit::Environment, fatal);
    if args.serve {
        say(&format!("bare pipeline on {}, {} files", args.listen, args.files));
        return pipeline::run(&server).map_err(environment);
    }
    server.listen.set_port(0);
    let load = Load {
        conns: args.connections,
        payload_bytes: args.size as usize,
        depth: args.in_flight,
        warm_up_ms: args.warmup.as_millis() as u64,
        measured_ms: args.duration.as_millis() as u64,
        cpu: args.load_cpu,
    };
    let measured = pipeline::measure(&server, &load).map_err(environment)?;
    args.format.print(
        || format!("{measured}\n"),
        || json!({
            "schema_version": 1,
            "mode": "bare",
            "marks": ["CLOSED_LOOP"],
            "durability": "device",
            "connections": args.connections,
            "in_flight": args.in_flight,
            "record_bytes": args.size,
            "files": args.files,
            "requests": measured.requests,
            "requests_per_s": measured.requests_per_s,
            "bytes_per_s": measured.payload_bytes_per_s,
            "service_ns": { "p50": measured.p50_us * 1e3, "p99": measured.p99_us * 1e3, "p99_9": measured.p999_us * 1e3 },
            "server": { "cpu_us_per_request": measured.server_us_per_request, "busy_cores": measured.server_busy },
        }),
    )
}
