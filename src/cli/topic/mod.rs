//! `corelog topic ...`: one file per verb, named as rpk names them.

mod add_partitions;
mod alter_config;
mod create;
mod delete;
mod describe;
mod list;
mod trim;

use std::io::{IsTerminal, Write};

use clap::Subcommand;

use crate::cli::exit::{Failure, Outcome};
use crate::cli::{consume, produce};

#[derive(Subcommand, Debug)]
pub enum TopicCommand {
    /// Create topics
    Create(create::CreateArgs),
    /// List topics
    List(list::ListArgs),
    /// Show a topic's configuration and partitions
    Describe(describe::DescribeArgs),
    /// Set or reset configuration values of a topic
    AlterConfig(alter_config::AlterConfigArgs),
    /// Add partitions to a topic
    AddPartitions(add_partitions::AddPartitionsArgs),
    /// Delete topics with everything in them
    Delete(delete::DeleteArgs),
    /// Delete the oldest records of a topic
    Trim(trim::TrimArgs),
    /// The same as `corelog produce`
    Produce(produce::ProduceArgs),
    /// The same as `corelog consume`
    Consume(consume::ConsumeArgs),
}

pub fn run(command: TopicCommand) -> Outcome {
    match command {
        TopicCommand::Create(args) => create::run(&args),
        TopicCommand::List(args) => list::run(&args),
        TopicCommand::Describe(args) => describe::run(&args),
        TopicCommand::AlterConfig(args) => alter_config::run(&args),
        TopicCommand::AddPartitions(args) => add_partitions::run(&args),
        TopicCommand::Delete(args) => delete::run(&args),
        TopicCommand::Trim(args) => trim::run(&args),
        TopicCommand::Produce(args) => produce::run(&args),
        TopicCommand::Consume(args) => consume::run(&args),
    }
}

/// `key=value`, for configuration flags.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}`: KEY=VALUE is needed"))?;
    Ok((key.trim().to_string(), value.to_string()))
}

/// Asks before something is destroyed; only on a terminal, and not with `--yes`.
fn confirm(question: &str, yes: bool) -> Outcome {
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Failure::io("cannot read the answer", &e))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::usage("nothing was done", &["--yes", "--dry-run"]))
    }
}
