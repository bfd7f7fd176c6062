//! L11, the command line: one file per command, each an argument struct and a `run`. Lives on the main thread. It deliberately
//! decides nothing about brokers or logs: it reads arguments, calls the layer that knows, and prints.
//!
//! Rules: stdout is data, stderr is talk; progress only on a terminal; every error says what to try; exit codes as in `exit`.
//!
//! Non-obvious:
//! - A command without arguments prints help and starts nothing.
//! - A reader that goes away (`corelog consume | head`) is no error.

pub mod exit;
pub mod output;
pub mod record_format;
pub mod target;
pub mod units;

mod bench;
mod calibrate;
mod cluster;
mod consume;
mod consume_from;
mod demo;
mod environment;
mod interrupt;
mod log;
mod produce;
mod serve;
mod shards;
mod topic;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use exit::Outcome;

const NEXT: &str = "\
Begin with:
  corelog demo                                      everything once, in a minute
  corelog serve --dev                               a broker on 127.0.0.1:9092
  echo hello | corelog produce -t t && corelog consume -t t -e";

#[derive(Parser, Debug)]
#[command(name = "corelog", version, about = "A Kafka-wire-compatible broker for Linux, and its tools", after_help = exit::TABLE, before_help = NEXT)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Everything once: broker, producers, SIGKILL, restart, proof; a minute
    Demo(demo::DemoArgs),
    /// Run a broker
    Serve(serve::ServeArgs),
    /// Create, list, describe, change, delete and trim topics
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Look at the shards of a broker, and at whose partitions are whose
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Send records from stdin or files
    Produce(produce::ProduceArgs),
    /// Print records of a topic
    Consume(consume::ConsumeArgs),
    /// Look at the files of a data directory
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Measure a broker under load
    Bench(bench::BenchArgs),
    /// Measure what this machine allows
    #[command(subcommand)]
    Calibrate(calibrate::CalibrateCommand),
    /// What this binary is
    Version(version::VersionArgs),
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let arguments = environment::of_every_flag(Cli::command()).get_matches();
    // What matched this command is this command's.
    let cli = Cli::from_arg_matches(&arguments).unwrap_or_else(|error| error.exit());
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(args),
        Command::Topic(command) => topic::run(command),
        Command::Cluster(command) => cluster::run(&command),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args),
        Command::Log(command) => log::run(&command),
        Command::Bench(args) => bench::run(&args),
        Command::Calibrate(command) => calibrate::run(&command),
        Command::Version(args) => version::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_is_well_formed() {
        Cli::command().debug_assert();
        environment::of_every_flag(Cli::command()).debug_assert();
    }
}
