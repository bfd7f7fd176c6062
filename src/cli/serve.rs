//! `corelog serve`: the arguments of a broker. What they mean is the broker's business, environment variables included.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::base::error::Fatal;
use crate::broker::configure::Options;
use crate::broker::start::{self, Facts};
use crate::cli::environment;
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
    /// Threads that each own a core and its partitions; as many as CPUs by default
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shards: Option<String>,
    /// CPUs for the shards, as in 2-5,8; all that the process may use by default
    #[arg(long, value_name = "LIST")]
    cpus: Option<String>,
    /// Whom clients see: one broker, or each shard as a broker of its own, so that they connect to the core that owns a partition
    #[arg(long, value_name = "broker|shards")]
    advertise: Option<String>,
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
    /// Form of the log on stderr, as the setting log.format has it. json also prints the start-up facts on stdout, as one JSON line
    #[arg(long, value_enum)]
    format: Option<LogFormat>,
    /// A broker setting under Kafka's name; may be repeated; `-X list` prints them
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub fn run(args: ServeArgs) -> Outcome {
    if args.set.iter().any(|item| item == "list") {
        return list();
    }
    let options = Options {
        data_dir: args.data_dir,
        listen: args.listen,
        shards: args.shards,
        cpus: args.cpus,
        advertise: args.advertise,
        runtime: args.runtime,
        config_file: args.config,
        dev: args.dev,
        ready_file: args.ready_file,
        log_format: args.format.map(|format| if format == LogFormat::Json { "json" } else { "text" }),
        set: args.set,
        own_variables: own_variables(),
    };
    let announced = |facts: &Facts| {
        if args.format == Some(LogFormat::Json) {
            // A reader that went away is no reason for a broker to end.
            let _ = writeln!(std::io::stdout(), "{}", as_json(facts));
        }
    };
    start::serve(&options, &announced).map_err(|fatal| Failure::new(exit(&fatal), fatal))
}

/// The variables of this command's flags, which are no configuration keys.
fn own_variables() -> Vec<String> {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let flags = command.get_arguments().filter_map(|arg| arg.get_long());
    // Set for the tools by those who also run a broker.
    flags.chain(["brokers"]).map(|flag| environment::variable("serve", flag)).collect()
}

fn as_json(facts: &Facts) -> serde_json::Value {
    json!({
        "event": "serving",
        "listening": facts.listening.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "advertised": facts.advertised,
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "shards": facts.shards,
        "runtime": facts.runtime,
        "durability": facts.durability,
        "relaxed_topics": facts.relaxed_topics,
        "partitions": facts.partitions,
        "data_dir": facts.data_dir.display().to_string(),
        "ready_ms": facts.ready_ms,
    })
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
        "runtime-not-built",
        "uring-blocked",
        "uring-disabled",
        "uring-setup",
        "epoll-setup",
        "glommio-setup",
        "kernel-old",
        "memlock",
        "proc-missing",
        "out-of-memory",
        "shard-failed",
        "odirect-unsupported",
        "data-dir-unusable",
        "disk-full",
        "data-dir-locked",
        "data-dir-foreign",
        "format-newer",
        "metadata-corrupt",
        "listener-failed",
        "listener-unknown-host",
        "bad-cpu-list",
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

#[cfg(test)]
mod tests {
    use super::*;

    // A driver that could not be had exited with 1, as if another start might fare better.
    #[test]
    fn what_this_machine_or_build_lacks_is_the_environments_fault() {
        let check = |code, expected| {
            let fatal = Fatal {
                code,
                summary: String::new(),
                found: String::new(),
                means: String::new(),
                tries: vec![],
            };
            assert_eq!(exit(&fatal), expected, "{code}");
        };
        for code in ["runtime-not-built", "uring-setup", "epoll-setup", "glommio-setup", "proc-missing"] {
            check(code, Exit::Environment);
        }
        for code in ["kernel-old", "uring-blocked", "memlock", "out-of-memory", "shard-failed", "port-in-use"]
        {
            check(code, Exit::Environment);
        }
        check("bad-config-key", Exit::Usage);
        check("log-directory-failed", Exit::Failed);
    }
}
