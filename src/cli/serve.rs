//! `corelog serve`: the arguments of a broker. What they mean is the broker's business, environment variables included.

use std::path::PathBuf;

use clap::Args;

use crate::base::error::Fatal;
use crate::broker::configure::Options;
use crate::broker::start;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output::print;
use crate::config::{describe, keys};

#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Directory of the logs; created if it is not there
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address for clients; port 0 takes a free one, which is printed
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Threads that each own a core and its partitions
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// How shards reach the kernel: auto, or the name of a driver (`corelog version --format json` lists them)
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// A TOML file with Kafka's property names, or a server.properties
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For a laptop: ./data, one shard, little memory, loopback only
    #[arg(long)]
    dev: bool,
    /// Written once the broker answers, with its address in it
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// A broker setting under Kafka's name; may be repeated; `-X list` prints them
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(args: ServeArgs) -> Outcome {
    if args.set.iter().any(|item| item == "list") {
        return list();
    }
    let options = Options {
        data_dir: args.data_dir,
        listen: args.listen,
        shards: args.shards,
        runtime: args.runtime,
        config_file: args.config,
        dev: args.dev,
        ready_file: args.ready_file,
        set: args.set,
    };
    start::serve(&options).map_err(|fatal| Failure::new(exit(&fatal), fatal))
}

/// Every key with its default and what it does.
fn list() -> Outcome {
    let lines = keys::broker_all().values().map(|opt| {
        let default = opt.default.map_or("no default".to_string(), |value| format!("default {value}"));
        format!("{:<44} {default}\n    {}\n", opt.key, describe::doc(opt))
    });
    print(&lines.collect::<String>())
}

/// What a supervisor needs to know: another start with the same arguments would end the same way (2 and 5), or might not (1).
fn exit(fatal: &Fatal) -> Exit {
    const ENVIRONMENT: &[&str] = &[
        "uring-blocked",
        "uring-disabled",
        "kernel-old",
        "memlock",
        "odirect-unsupported",
        "data-dir-unusable",
        "disk-full",
        "data-dir-locked",
        "data-dir-foreign",
        "format-newer",
        "metadata-corrupt",
        "listener-failed",
        "listener-unknown-host",
        "more-shards-than-served",
        "port-in-use",
    ];
    if fatal.code.starts_with("bad-config") {
        Exit::Usage
    } else if ENVIRONMENT.contains(&fatal.code) {
        Exit::Environment
    } else {
        Exit::Failed
    }
}
