//! `corelog cluster ...`: one file per noun.

mod partitions;
mod shards;

use clap::Subcommand;

use crate::cli::exit::Outcome;

#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// Show what each shard of a broker does
    Shards(shards::ShardsArgs),
    /// Show the leader and the owning shard of each partition
    Partitions(partitions::PartitionsArgs),
}

pub fn run(command: &ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Shards(args) => shards::run(args),
        ClusterCommand::Partitions(args) => partitions::run(args),
    }
}
